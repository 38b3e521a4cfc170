// From the top down: what a node weighs in the posterior goes to pairs of children along p(pair | node) and to the
// children along p(split | pair), width by width, so that large numbers are never subtracted from each other's sums.
// Every result is gathered by the thread that owns it, in one order: nothing is added atomically. With `kTangent` the
// same walk takes along what second order needs (cuda/pcfg_tangent.cuh).
#pragma once
#include "cuda/pcfg_tangent.cuh"

namespace slv::cuda {

// What the outside pass has of a node's sum over pairs of children: the largest term, and the node's weight over the
// sum relative to it. Places of the spans of one width, as those of pairs.
template <class T>
SLV_DEVICE int64_t node_place(const Pcfg<T>& g, int64_t count, int i) {
  return (count * (g.n - 1) + i) * g.nt;
}

// The pairs of children of all spans of `width` words; a block has one span of one item.
template <class T, bool kTangent>
SLV_KERNEL(kLogThreads)
pcfg_pairs(Pcfg<T> g, TreeSpace<T> space, TreeMass mass, TreeTangent<T> f, int width) {
  const Thread me;
  const SpanBlock<T> block(g, space.first, width);
  const DenseSentence<T> s(g, block.item), v(kTangent ? f.v : g, block.item);
  if (block.i + width > s.len) return;
  double *pairs = space.pairs + block.place, *tops = mass.split_tops + block.place, *out = mass.pairs + block.place;
  if constexpr (kTangent)
    mean_splits(me, s, v, space.inside, f.means, block.i, width, [&](int64_t q, const LogMean& x) {
      pairs[q] = x.log(), tops[q] = x.top, out[q] = x.sum, f.pair_means[block.place + q] = x.mean();
    });
  else
    sum_splits(me, s, space.inside, block.i, width,
               [&](int64_t q, const LogSum& x) { pairs[q] = x.log(), tops[q] = x.top, out[q] = x.sum; });
  sync_block();
  const int64_t place = node_place(g, block.item - space.first, block.i), count = g.pairs();
  for (int a = me.warp; a < g.nt; a += me.warps) {
    const int64_t node = s.node(block.i, width) + a;
    const double weight = mass.nodes[node];
    const LogSum x = sum_rules(me, s, pairs, a);
    if (me.lane > 0) continue;
    mass.rule_tops[place + a] = x.top;
    mass.rule_weights[place + a] = weight != 0 ? weight / x.sum : 0;
    if constexpr (kTangent)
      f.above[place + a] = weight != 0 ? f.outside[node] / weight + v.span_score(block.i, width, a) : 0;
  }
  sync_block();
  for (int64_t q = me.index; q < count; q += blockDim.x) {
    double sum = 0, outside = 0;
    for (int a = 0; a < g.nt; a++) {
      const double share =
          share_of(mass.rule_weights[place + a], mass.rule_tops[place + a], double(s.rules[a * count + q]), pairs[q]);
      sum += share;
      if constexpr (kTangent)
        if (share != 0) outside += share * (double(v.rules[a * count + q]) + f.above[place + a]);
    }
    if constexpr (kTangent) f.pair_outside[block.place + q] = outside != 0 ? outside / out[q] : 0;
    out[q] = sum != 0 ? sum / out[q] : 0;
  }
}

// Adds to the counts of rules what the spans of `width` words give; a thread has one rule of one piece.
template <class T, bool kTangent>
SLV_KERNEL(kLogThreads)
pcfg_rules(Pcfg<T> g, TreeSpace<T> space, TreeMass mass, TreeTangent<T> f, int width, RuleCounts out) {
  const int64_t rule = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, pairs = g.pairs(), size = g.nt * pairs;
  if (rule >= out.pieces() * size) return;
  const int64_t piece = rule / size, e = rule - piece * size, q = e % pairs;
  const int64_t row = piece / out.chunks, chunk = piece - row * out.chunks;
  const int a = int(e / pairs);
  double sum = out.counts[rule];
  for (int64_t p = out.begin(chunk); p < out.begin(chunk + 1); p++) {
    const int64_t b = out.rows.item(row, p);
    if (b < space.first || b >= space.first + space.count) continue;
    const DenseSentence<T> s(g, b), v(kTangent ? f.v : g, b);
    for (int i = 0; i + width <= s.len; i++) {
      const int64_t node = node_place(g, b - space.first, i) + a;
      const int64_t pair = ((b - space.first) * (g.n - 1) + i) * pairs + q;
      double share = share_of(mass.rule_weights[node], mass.rule_tops[node], double(s.rules[e]), space.pairs[pair]);
      if constexpr (kTangent)
        if (share != 0) share *= f.weight_of(b) * (double(v.rules[e]) + f.above[node] + f.pair_means[pair] - f.mean[b]);
      sum += share;
    }
  }
  out.counts[rule] = sum;
}

// Adds to nodes and words of fewer than `width` words what they get as children of spans of `width` words; a block has
// one child of one item, a warp one symbol of it.
template <class T, bool kTangent>
SLV_KERNEL(kLogThreads)
pcfg_children(Pcfg<T> g, TreeSpace<T> space, TreeMass mass, TreeTangent<T> f, int width) {
  const Thread me;
  const int i = int(blockIdx.x % unsigned(g.n)), nt = g.nt, symbols = g.s();
  const int64_t rest = blockIdx.x / unsigned(g.n), count = rest / (width - 1);
  const int v = int(rest - count * (width - 1)) + 1, w = width - v;  // the words of the child, and of its sibling
  const DenseSentence<T> s(g, space.first + count), direction(kTangent ? f.v : g, space.first + count);
  if (i + v > s.len) return;
  const int first = w == 1 ? nt : 0, last = w == 1 ? symbols : nt;  // the sibling's symbols
  double sum = 0, outside = 0;
  // what the child gets as a part of the span that begins at `parent`, its sibling beginning at `other`
  auto add = [&](int y, int parent, int other, bool left) {
    const int64_t place = (count * (g.n - 1) + parent) * g.pairs();
    const double own = s.below(space.inside, i, v, y);
    for (int z = first + me.lane; z < last; z += 32) {
      const int64_t q = place + (left ? int64_t(y) * symbols + z : int64_t(z) * symbols + y);
      const double here = mass.pairs[q];
      if (here == 0) continue;
      const double split = exp(own + s.below(space.inside, other, w, z) - mass.split_tops[q]);
      sum += here * split;
      if constexpr (kTangent)
        if (split != 0) outside += split * (f.pair_outside[q] + here * direction.below(f.means, other, w, z));
    }
  };
  for (int a = me.warp; a < (v == 1 ? g.t : nt); a += me.warps) {
    const int y = v == 1 ? nt + a : a;
    sum = outside = 0;
    if (i + width <= s.len) add(y, i, i + v, true);
    if (i >= w) add(y, i - w, i - w, false);
    sum = warp_sum(sum);
    if constexpr (kTangent) outside = warp_sum(outside);
    if (me.lane > 0) continue;
    const int64_t at = (v == 1 ? (s.item * g.n + i) * g.t : s.node(i, v)) + a;
    (v == 1 ? mass.words : mass.nodes)[at] += sum;
    if constexpr (kTangent) (v == 1 ? f.words_outside : f.outside)[at] += outside;
  }
}

}  // namespace slv::cuda
