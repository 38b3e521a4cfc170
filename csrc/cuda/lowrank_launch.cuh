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

  // body(the product of a table and the scores of these spans, the same of a direction, whether it is the left one)
  template <class F>
  void left_and_right(const LowRank<T>& v, double* nodes, double* means, F&& body) const {
    for (const bool is_left : {true, false}) {
      const Table<T>&mine = is_left ? g.left : g.right, &of_v = is_left ? v.left : v.right;
      if (width == 1)
        body(Product<T, const T>{mine, g.nt, own(g.unary, g.t)}, Product<T, const T>{of_v, g.nt, own(v.unary, g.t)},
             is_left);
      else
        body(Product<T, double>{mine, 0, inner(nodes, g.nt)}, Product<T, double>{of_v, 0, inner(means, g.nt)}, is_left);
    }
  }
  Product<T, double> head(const Table<T>& table, double* ranks) const { return {table, 0, inner(ranks, g.r)}; }

  template <class S>
  void multiply(const Product<T, S>& p, const SpanRows<double>& out) const {
    simt::launch(lowrank_product<T, S>, blocks_of_warps(spans() * tiles_of(p.table.rows)), kLogThreads, 0, stream, g, p,
                 out, width);
  }
  template <class S>
  void means(const Product<T, S>& p, const Product<T, S>& v, const SpanRows<double>& out,
             const SpanRows<double>& means) const {
    simt::launch(lowrank_means<T, S>, blocks_of_warps(spans() * tiles_of(p.table.rows)), kLogThreads, 0, stream, g, p,
                 ProductTangent<T, S>{v, {}, nullptr, nullptr}, out, means, width);
  }
  void above(const Tree<T>& v, bool with_spans, const SpanRows<double>& mass, const SpanRows<double>& outside,
             const SpanRows<double>& out) const {
    simt::launch(lowrank_above<T>, blocks_for(spans() * mass.size), kLogThreads, 0, stream, g, v, with_spans, mass,
                 outside, out, width);
  }
  void add_spans(const Tree<T>& of, const SpanRows<double>& nodes) const {
    if (of.spans)
      simt::launch(lowrank_add_spans<T>, blocks_for(spans() * g.nt), kLogThreads, 0, stream, of, nodes, width);
  }
  // From the weights of a product to those of its scores, added or in their place, and of its table.
  template <bool kTangent, class S>
  void hand_on(const Product<T, S>& p, const ProductTangent<T, S>& f, const SpanRows<double>& mass, const RankMass& m,
               const SpanRows<double>& into, const SpanRows<double>& into_outside, bool add,
               const RuleCounts& out) const {
    const int rows = p.table.rows;
    const SpanRows<double> tops = own(m.tops, rows), weights = own(m.weights, rows);
    simt::launch(lowrank_relative<T, S>, blocks_of_warps(spans() * tiles_of(rows)), kLogThreads, 0, stream, g, p, mass,
                 tops, weights, width);
    simt::launch(lowrank_hand_on<T, S, kTangent>, blocks_for(spans() * p.score.size), kLogThreads, 0, stream, g, p, f,
                 tops, weights, into, into_outside, add, width);
    if (out.counts)
      simt::launch(lowrank_count<T, S, kTangent>, blocks_for(out.pieces() * rows * p.score.size), kLogThreads, 0,
                   stream, g, p, f, tops, weights, out, width);
  }
};

template <class T>
void run_rank_inside(const LowRank<T>& g, const RankInside& in, int width, Stream stream) {
  const Width<T> w{g, width, stream_of(stream)};
  if (width > 1) {
    const SpanRows<double> nodes = w.inner(in.nodes, g.nt);
    simt::launch(lowrank_splits<T>, blocks_for(w.spans() * g.r), kLogThreads, 0, w.stream, g, in,
                 g.has_head() ? w.inner(in.ranks, g.r) : nodes, width);
    if (g.has_head()) w.multiply(w.head(g.head, in.ranks), nodes);
    w.add_spans(g, nodes);
  }
  w.left_and_right(g, in.nodes, in.nodes, [&](const auto& p, const auto&, bool left) {
    w.multiply(p, w.all(left ? in.left : in.right, g.r));
  });
}

template <class T>
void run_rank_means(const LowRank<T>& g, const RankInside& in, const RankTangent<T>& f, int width, Stream stream) {
  const Width<T> w{g, width, stream_of(stream)};
  const RankInside& means = f.below;
  if (width > 1) {
    const SpanRows<double> nodes = w.inner(in.nodes, g.nt), node_means = w.inner(means.nodes, g.nt);
    simt::launch(lowrank_split_means<T>, blocks_for(w.spans() * g.r), kLogThreads, 0, w.stream, g, in, means,
                 g.has_head() ? w.inner(in.ranks, g.r) : nodes, g.has_head() ? w.inner(means.ranks, g.r) : node_means,
                 width);
    if (g.has_head()) w.means(w.head(g.head, in.ranks), w.head(f.v.head, means.ranks), nodes, node_means);
    w.add_spans(g, nodes), w.add_spans(f.v, node_means);
  }
  w.left_and_right(f.v, in.nodes, means.nodes, [&](const auto& p, const auto& v, bool left) {
    w.means(p, v, w.all(left ? in.left : in.right, g.r), w.all(left ? means.left : means.right, g.r));
  });
}

template <bool kTangent, class T>
void launch_rank_outside(const LowRank<T>& g, const RankInside& in, const RankMass& m, const RankTangent<T>& f,
                         const GrammarCounts& out, int width, Stream stream) {
  const Width<T> w{g, width, stream_of(stream)};
  const SpanRows<double> symbols = width == 1 ? w.own(m.words, g.t) : w.inner(m.nodes, g.nt);
  const SpanRows<double> outside = width == 1 ? w.own(f.words_outside, g.t) : w.inner(f.outside, g.nt);
  const LowRank<T>& v = kTangent ? f.v : g;
  w.left_and_right(v, in.nodes, f.below.nodes,
                   [&]<class S>(const Product<T, S>& p, const Product<T, S>& of_v, bool left) {
                     const SpanRows<double> mass = w.all(left ? m.left : m.right, g.r), above = w.own(f.above, g.r);
                     if constexpr (kTangent) w.above(v, false, mass, w.all(left ? f.left : f.right, g.r), above);
                     w.template hand_on<kTangent>(p, ProductTangent<T, S>{of_v, above, f.mean, f.weight}, mass, m,
                                                  symbols, outside, true, left ? out.left : out.right);
                   });
  if (width == 1) return;
  SpanRows<double> above = w.own(f.above, g.nt);
  if constexpr (kTangent) w.above(v, true, symbols, outside, above);
  const SpanRows<double> ranks = w.own(m.ranks, g.r), ranks_outside = w.own(f.ranks, g.r);
  if (g.has_head()) {
    const ProductTangent<T, double> of_v{w.head(v.head, f.below.ranks), above, f.mean, f.weight};
    w.template hand_on<kTangent>(w.head(g.head, in.ranks), of_v, symbols, m, ranks, ranks_outside, false, out.head);
    above = w.own(f.above, g.r);
    if constexpr (kTangent) w.above(v, false, ranks, ranks_outside, above);
  }
  simt::launch(lowrank_divide<T, kTangent>, blocks_for(w.spans() * g.r), kLogThreads, 0, w.stream, g, in,
               g.has_head() ? ranks : symbols, m.left, m.right, above,
               RankOutside{f.below.left, f.below.right, f.left, f.right}, width);
}
template <class T>
void run_rank_outside(const LowRank<T>& g, const RankInside& in, const RankMass& m, const GrammarCounts& out, int width,
                      Stream stream) {
  launch_rank_outside<false>(g, in, m, RankTangent<T>{}, out, width, stream);
}
template <class T>
void run_rank_outside(const LowRank<T>& g, const RankInside& in, const RankMass& m, const RankTangent<T>& f,
                      const GrammarCounts& out, int width, Stream stream) {
  launch_rank_outside<true>(g, in, m, f, out, width, stream);
}

template <class T>
void run_rank_sample(const LowRank<T>& g, const RankInside& in, uint64_t seed, int64_t samples, int64_t* events,
                     Stream stream) {
  simt::launch(lowrank_sample<T>, blocks_of_warps(samples * g.batch), kLogThreads, 0, stream_of(stream), g, in, seed,
               samples, events);
}

}  // namespace slv::cuda
