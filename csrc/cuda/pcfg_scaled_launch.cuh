// How many blocks, threads and bytes of shared memory each kernel of dense rules in the scaled domain gets.
#pragma once
#include "cuda/pcfg_tree_launch.cuh"
#include "cuda/pcfg_unhoist.cuh"

namespace slv::cuda {

using simt::array_bytes;

template <class T>
size_t tile_bytes(const Pcfg<T>& g, const Widths& w) {
  const size_t own = array_bytes<T>(int64_t(w.rows) * g.nt) + array_bytes<T>(w.rows);
  return own + (w.shared ? array_bytes<T>(w.rows * matrix_size(g.nt)) : 0);
}
template <class T>
Widths widths_of(const Pcfg<T>& g, int from, int to) {
  Widths w{from, to, 1, 2 * kTreeTile, true};
  if (tile_bytes(g, w) > simt::shared_limit()) w.rows = kTreeTile;
  if (tile_bytes(g, w) > simt::shared_limit()) w.shared = false;
  if (!in_one_launch(g)) w.blocks = int(cut(g.n - from + 1, w.rows));
  return w;
}
// A warp for some nonterminals of some spans.
template <class T>
int tile_threads(const Pcfg<T>& g, const Widths& w) {
  return threads_for(32 * cut(g.nt, kTreeTile) * cut(w.rows, kTreeTile), kMaxThreads);
}

template <class T>
void run_scale_rules(const Pcfg<T>& g, const ScaledPcfg<T>& s, int64_t rows, Stream stream) {
  simt::launch(pcfg_slices<T>, rows * g.nt, threads_for(g.pairs(), kLogThreads), array_bytes<T>(2 * kMaxWarps),
               stream_of(stream), g, s);
  simt::launch(pcfg_judge<T>, rows, 32, 0, stream_of(stream), g, s);
}
template <class T>
void run_scale_words(const Pcfg<T>& g, const ScaledPcfg<T>& s, Stream stream) {
  simt::launch(pcfg_words<T>, blocks_for(32 * g.batch * g.n), kLogThreads, 0, stream_of(stream), g, s);
  simt::launch(pcfg_hoist<T>, g.batch * g.nt, threads_for(g.s(), kLogThreads), 0, stream_of(stream), g, s);
}
template <class T>
void run_scan(const Pcfg<T>& g, const ScaledPcfg<T>& s, const Widths& w, const TileSpace<T>& space, Stream stream) {
  simt::launch(pcfg_scan<T>, space.count * w.blocks, tile_threads(g, w), tile_bytes(g, w), stream_of(stream), g, s, w,
               space);
}
template <class T>
void run_scan_end(const Pcfg<T>& g, const ScaledPcfg<T>& s, double* log_z, T* log_z_narrow, Stream stream) {
  simt::launch(pcfg_scan_end<T>, g.batch, 32, 0, stream_of(stream), g, s, log_z, log_z_narrow);
}

template <class T>
void run_adjoint(const Pcfg<T>& g, const ScaledPcfg<T>& s, const Widths& w, const TileSpace<T>& space,
                 const TreeAdjoints<T>& d, Stream stream) {
  simt::launch(pcfg_adjoint<T>, space.count * w.blocks, tile_threads(g, w), tile_bytes(g, w), stream_of(stream), g, s,
               w, space, d);
}
template <class T>
void run_word_adjoints(const Pcfg<T>& g, const ScaledPcfg<T>& s, const TileSpace<T>& space, const TreeAdjoints<T>& d,
                       Stream stream) {
  simt::launch(pcfg_word_adjoints<T>, blocks_for(space.count * g.n * g.nt * g.nt), kLogThreads, 0, stream_of(stream), g,
               s, space, d);
}
template <class T>
void run_unhoist_rules(const Pcfg<T>& g, const ScaledPcfg<T>& s, const Widths& w, const TileSpace<T>& space,
                       const TreeAdjoints<T>& d, const RuleCounts& out, Stream stream) {
  simt::launch(pcfg_unhoist_rules<T>, blocks_for(out.pieces() * cut(g.nt, kTreeTile) * g.pairs()), kLogThreads, 0,
               stream_of(stream), g, s, w, space, d, out);
}
template <class T>
void run_unhoist_words(const Pcfg<T>& g, const ScaledPcfg<T>& s, const TileSpace<T>& space, const TreeAdjoints<T>& d,
                       Stream stream) {
  simt::launch(pcfg_unhoist_words<T>, space.count * cut(g.n, kTreeTile), threads_for(32 * g.t, kLogThreads), 0,
               stream_of(stream), g, s, space, d);
}

}  // namespace slv::cuda
