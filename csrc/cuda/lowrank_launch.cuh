// Which launches make a width of the low-rank PCFG, and how many blocks each gets: a function of the problem alone.
#pragma once
#include "cuda/lowrank_sample.cuh"
#include "cuda/pcfg_tree_launch.cuh"

namespace slv::cuda {

inline int64_t blocks_of_warps(int64_t warps) { return blocks_for(32 * warps); }

// The spans of one width, of all items.
template <class T>
struct Width {
  const LowRank<T>& g;
  int width;
  simt::Stream stream;

  int64_t spans() const { return g.batch * (g.n - width + 1); }
  // The rows of these spans in arrays that have them alone, those wider than a word, and all.
  template <class S>
  SpanRows<S> own(S* data, int size) const {
    return {data, g.n, 0, size};
  }
  SpanRows<double> inner(double* data, int size) const { return {data, g.spans_of_item(), g.span(0, width), size}; }
  SpanRows<double> all(double* data, int size) const {
    return {data, g.all_spans(), width == 1 ? 0 : g.n + g.span(0, width), size};
  }

  // body(the product of a table and the scores of these spans)
  template <class F>
  void left_and_right(double* nodes, F&& body) const {
    for (const Table<T>* side : {&g.left, &g.right})
      if (width == 1)
        body(Product<T, const T>{*side, g.nt, own(g.unary, g.t)}, side == &g.left);
      else
        body(Product<T, double>{*side, 0, inner(nodes, g.nt)}, side == &g.left);
  }
  Product<T, double> head(double* ranks) const { return {g.head, 0, inner(ranks, g.r)}; }

  template <class S>
  void multiply(const Product<T, S>& p, const SpanRows<double>& out) const {
    simt::launch(lowrank_product<T, S>, blocks_of_warps(spans() * tiles_of(p.table.rows)), kLogThreads, 0, stream, g, p,
                 out, width);
  }
  // From the weights of a product to those of its scores, added or in their place, and of its table.
  template <class S>
  void hand_on(const Product<T, S>& p, const SpanRows<double>& mass, const RankMass& m, const SpanRows<double>& into,
               bool add, const RuleCounts& out) const {
    const int rows = p.table.rows;
    const SpanRows<double> tops = own(m.tops, rows), weights = own(m.weights, rows);
    simt::launch(lowrank_relative<T, S>, blocks_of_warps(spans() * tiles_of(rows)), kLogThreads, 0, stream, g, p, mass,
                 tops, weights, width);
    simt::launch(lowrank_hand_on<T, S>, blocks_for(spans() * p.score.size), kLogThreads, 0, stream, g, p, tops, weights,
                 into, add, width);
    if (out.counts)
      simt::launch(lowrank_count<T, S>, blocks_for(out.pieces() * rows * p.score.size), kLogThreads, 0, stream, g, p,
                   tops, weights, out, width);
  }
};

template <class T>
void run_rank_inside(const LowRank<T>& g, const RankInside& in, int width, Stream stream) {
  const Width<T> w{g, width, stream_of(stream)};
  if (width > 1) {
    const SpanRows<double> nodes = w.inner(in.nodes, g.nt);
    simt::launch(lowrank_splits<T>, blocks_for(w.spans() * g.r), kLogThreads, 0, w.stream, g, in,
                 g.has_head() ? w.inner(in.ranks, g.r) : nodes, width);
    if (g.has_head()) w.multiply(w.head(in.ranks), nodes);
    if (g.spans)
      simt::launch(lowrank_add_spans<T>, blocks_for(w.spans() * g.nt), kLogThreads, 0, w.stream, g, nodes, width);
  }
  w.left_and_right(in.nodes, [&](const auto& p, bool left) { w.multiply(p, w.all(left ? in.left : in.right, g.r)); });
}

template <class T>
void run_rank_outside(const LowRank<T>& g, const RankInside& in, const RankMass& m, const GrammarCounts& out, int width,
                      Stream stream) {
  const Width<T> w{g, width, stream_of(stream)};
  const SpanRows<double> symbols = width == 1 ? w.own(m.words, g.t) : w.inner(m.nodes, g.nt);
  w.left_and_right(in.nodes, [&](const auto& p, bool left) {
    w.hand_on(p, w.all(left ? m.left : m.right, g.r), m, symbols, true, left ? out.left : out.right);
  });
  if (width == 1) return;
  const SpanRows<double> ranks = w.own(m.ranks, g.r);
  if (g.has_head()) w.hand_on(w.head(in.ranks), symbols, m, ranks, false, out.head);
  simt::launch(lowrank_divide<T>, blocks_for(w.spans() * g.r), kLogThreads, 0, w.stream, g, in,
               g.has_head() ? ranks : symbols, m.left, m.right, width);
}

template <class T>
void run_rank_sample(const LowRank<T>& g, const RankInside& in, uint64_t seed, int64_t samples, int64_t* events,
                     Stream stream) {
  simt::launch(lowrank_sample<T>, blocks_of_warps(samples * g.batch), kLogThreads, 0, stream_of(stream), g, in, seed,
               samples, events);
}

}  // namespace slv::cuda
