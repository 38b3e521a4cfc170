// How many blocks and threads each kernel of rules of low rank in the scaled domain gets: a function of the problem
// alone.
#pragma once
#include "cuda/lowrank_adjoint.cuh"
#include "cuda/pcfg_tree_launch.cuh"

namespace slv::cuda {

// More spans at once read the tables less often, where there are blocks enough to fill a GPU nevertheless.
constexpr int64_t kEnoughBlocks = 256;
template <class T>
Widths widths_of(const LowRank<T>& g, int from, int to) {
  Widths w{from, to, 1, 2 * kTreeTile};
  if (in_one_launch(g)) return w;
  const int64_t spans = g.n - from + 1;
  if (g.batch * cut(spans, w.rows) < kEnoughBlocks) w.rows = kTreeTile;
  w.blocks = int(cut(spans, w.rows));
  return w;
}
// A warp for 16 columns of some spans, and for each half of the block one.
template <class T>
int span_threads(const LowRank<T>& g, const Widths& w) {
  const int64_t columns = std::max({g.nt, g.t, g.r}), warps = cut(columns, 2 * kTileColumns) * cut(w.rows, kTreeTile);
  return threads_for(64 * cut(std::max<int64_t>(warps, w.rows), 2), kMaxThreads);
}

template <class T>
void run_scale_grammar(const LowRank<T>& g, const ScaledRanks<T>& s, Stream stream) {
  if (g.batch == 0) return;  // then rows have no items
  for (bool right : {false, true}) {
    const Table<T>& table = right ? g.right : g.left;
    simt::launch(lowrank_side<T>, blocks_for(32 * int64_t(table.row.rows) * g.r), kLogThreads, 0, stream_of(stream),
                 table, right ? s.right : s.left);
  }
  simt::launch(lowrank_head<T>, blocks_for(32 * int64_t(s.grammar.rows) * g.nt), kLogThreads, 0, stream_of(stream), g,
               s);
  simt::launch(lowrank_judge<T>, s.grammar.rows, 32, 0, stream_of(stream), g, s);
}
template <class T>
void run_scale_words(const LowRank<T>& g, const ScaledRanks<T>& s, Stream stream) {
  simt::launch(lowrank_words<T>, blocks_for(32 * g.batch * g.n), kLogThreads, 0, stream_of(stream), g, s);
}
template <class T>
void run_scan(const LowRank<T>& g, const ScaledRanks<T>& s, const Widths& w, Stream stream) {
  simt::launch(lowrank_scan<T>, g.batch * w.blocks, span_threads(g, w), 0, stream_of(stream), g, s, w);
}
template <class T>
void run_scan_end(const LowRank<T>& g, const ScaledRanks<T>& s, double* log_z, T* log_z_narrow, Stream stream) {
  simt::launch(lowrank_scan_end<T>, g.batch, 32, 0, stream_of(stream), g, s, log_z, log_z_narrow);
}
template <class T>
void run_form_symbols(const LowRank<T>& g, const ScaledRanks<T>& s, Stream stream) {
  if (g.n < 2) return;
  const Widths w{2, g.n, int(cut(g.n - 1, 2 * kTreeTile)), 2 * kTreeTile};
  simt::launch(lowrank_form_symbols<T>, g.batch * (g.n - 1) * w.blocks, span_threads(g, w), 0, stream_of(stream), g, s,
               w);
}
template <class T>
void run_adjoint(const LowRank<T>& g, const ScaledRanks<T>& s, const Widths& w, const RankAdjoints<T>& d,
                 Stream stream) {
  simt::launch(lowrank_adjoint<T>, g.batch * w.blocks, span_threads(g, w), 0, stream_of(stream), g, s, w, d);
}
template <class T>
void run_count_tables(const LowRank<T>& g, const ScaledRanks<T>& s, const RankAdjoints<T>& d, const GrammarCounts& out,
                      Stream stream) {
  auto count = [&](GrammarTable which, const Table<T>& table, const RuleCounts& counts) {
    if (counts.counts)
      simt::launch(lowrank_count_table<T>, blocks_for(counts.pieces() * cut(table.rows, kTreeTile) * table.columns),
                   kLogThreads, 0, stream_of(stream), g, s, d, which, counts);
  };
  count(kHead, g.head, out.head);
  count(kLeft, g.left, out.left);
  count(kRight, g.right, out.right);
}

}  // namespace slv::cuda
