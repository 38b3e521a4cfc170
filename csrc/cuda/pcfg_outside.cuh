// From the top down: what a node weighs in the posterior goes to pairs of children along p(pair | node) and to the
// children along p(split | pair), width by width, so that large numbers are never subtracted from each other's sums.
// Every result is gathered by the thread that owns it, in one order: nothing is added atomically.
#pragma once
#include "cuda/pcfg_inside.cuh"

namespace slv::cuda {

// What the outside pass has of a node's sum over pairs of children: the largest term, and the node's weight over the
// sum relative to it. Places of the spans of one width, as those of pairs.
template <class T>
SLV_DEVICE int64_t node_place(const Pcfg<T>& g, int64_t count, int i) {
  return (count * (g.n - 1) + i) * g.nt;
}

// The pairs of children of all spans of `width` words; a block has one span of one item.
template <class T>
SLV_KERNEL(kLogThreads)
pcfg_pairs(Pcfg<T> g, TreeSpace<T> space, TreeMass mass, int width) {
  const Thread me;
  const SpanBlock<T> block(g, space.first, width);
  const DenseSentence<T> s(g, block.item);
  if (block.i + width > s.len) return;
  double *pairs = space.pairs + block.place, *tops = mass.split_tops + block.place, *out = mass.pairs + block.place;
  sum_splits(me, s, space.inside, block.i, width,
             [&](int64_t q, const LogSum& x) { pairs[q] = x.log(), tops[q] = x.top, out[q] = x.sum; });
  sync_block();
  const int64_t place = node_place(g, block.item - space.first, block.i), count = g.pairs();
  for (int a = me.warp; a < g.nt; a += me.warps) {
    const double weight = mass.nodes[s.node(block.i, width) + a];
    const LogSum x = sum_rules(me, s, pairs, a);
    if (me.lane > 0) continue;
    mass.rule_tops[place + a] = x.top;
    mass.rule_weights[place + a] = weight != 0 ? weight / x.sum : 0;
  }
  sync_block();
  for (int64_t q = me.index; q < count; q += blockDim.x) {
    double sum = 0;
    for (int a = 0; a < g.nt; a++)
      sum +=
          share_of(mass.rule_weights[place + a], mass.rule_tops[place + a], double(s.rules[a * count + q]), pairs[q]);
    out[q] = sum != 0 ? sum / out[q] : 0;
  }
}

// Adds to the counts of rules what the spans of `width` words give; a thread has one rule of one piece.
template <class T>
SLV_KERNEL(kLogThreads)
pcfg_rules(Pcfg<T> g, TreeSpace<T> space, TreeMass mass, int width, RuleCounts out) {
  const int64_t rule = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, pairs = g.pairs(), size = g.nt * pairs;
  if (rule >= out.pieces() * size) return;
  const int64_t piece = rule / size, e = rule - piece * size, q = e % pairs;
  const int64_t row = piece / out.chunks, chunk = piece - row * out.chunks;
  const int a = int(e / pairs);
  double sum = out.counts[rule];
  for (int64_t p = out.begin(chunk); p < out.begin(chunk + 1); p++) {
    const int64_t b = out.rows.item(row, p);
    if (b < space.first || b >= space.first + space.count) continue;
    const DenseSentence<T> s(g, b);
    for (int i = 0; i + width <= s.len; i++) {
      const int64_t node = node_place(g, b - space.first, i) + a;
      sum += share_of(mass.rule_weights[node], mass.rule_tops[node], double(s.rules[e]),
                      space.pairs[((b - space.first) * (g.n - 1) + i) * pairs + q]);
    }
  }
  out.counts[rule] = sum;
}

// Adds to nodes and words of fewer than `width` words what they get as children of spans of `width` words; a block has
// one child of one item, a warp one symbol of it.
template <class T>
SLV_KERNEL(kLogThreads)
pcfg_children(Pcfg<T> g, TreeSpace<T> space, TreeMass mass, int width) {
  const Thread me;
  const int i = int(blockIdx.x % unsigned(g.n)), nt = g.nt, symbols = g.s();
  const int64_t rest = blockIdx.x / unsigned(g.n), count = rest / (width - 1);
  const int v = int(rest - count * (width - 1)) + 1, w = width - v;  // the words of the child, and of its sibling
  const DenseSentence<T> s(g, space.first + count);
  if (i + v > s.len) return;
  const int first = w == 1 ? nt : 0, last = w == 1 ? symbols : nt;  // the sibling's symbols
  // what the child gets as a part of the span that begins at `parent`, its sibling beginning at `other`
  auto share = [&](int y, int parent, int other, bool left) {
    const int64_t place = (count * (g.n - 1) + parent) * g.pairs();
    const double own = s.below(space.inside, i, v, y);
    double sum = 0;
    for (int z = first + me.lane; z < last; z += 32) {
      const int64_t q = place + (left ? int64_t(y) * symbols + z : int64_t(z) * symbols + y);
      const double here = mass.pairs[q];
      if (here != 0) sum += here * exp(own + s.below(space.inside, other, w, z) - mass.split_tops[q]);
    }
    return sum;
  };
  for (int a = me.warp; a < (v == 1 ? g.t : nt); a += me.warps) {
    const int y = v == 1 ? nt + a : a;
    double sum = 0;
    if (i + width <= s.len) sum += share(y, i, i + v, true);
    if (i >= w) sum += share(y, i - w, i - w, false);
    sum = warp_sum(sum);
    if (me.lane > 0) continue;
    double* into = v == 1 ? mass.words + (s.item * g.n + i) * g.t : mass.nodes + s.node(i, v);
    into[a] += sum;
  }
}

}  // namespace slv::cuda
