// Second order of dense rules in log space, as kernels/pcfg_log_outside.h: the means of f below every node, from the
// leaves up. Those outside of nodes come with the outside pass (cuda/pcfg_outside.cuh); a rule's covariance is that of
// what is outside of its node, of the rule and of what is below its children.
#pragma once
#include "cuda/pcfg_inside.cuh"

namespace slv::cuda {

// What the outside pass has of a node's sum over pairs of children: the largest term, and the node's weight over the
// sum relative to it. Places of the spans of one width, as those of pairs.
template <class T>
SLV_DEVICE int64_t node_place(const Pcfg<T>& g, int64_t count, int i) {
  return (count * (g.n - 1) + i) * g.nt;
}

// The mean of f below both children, over the splits of the span; x: their sum. v: the direction's sentence.
template <class T>
SLV_DEVICE double mean_of_splits(const DenseSentence<T>& s, const DenseSentence<T>& v, const double* inside,
                                 const double* means, int i, int width, const PairOfChildren<T>& pair,
                                 const LogSum& x) {
  double mean = 0;
  for (int k = pair.from; k < pair.to && x.possible(); k++) {
    const double share = exp(pair.below(s, inside, i, width, k) - x.top) / x.sum;
    if (share > 0) mean += share * pair.below(v, means, i, width, k);
  }
  return mean;
}

// The means of all spans of `width` words; a block has one span of one item.
template <class T>
SLV_KERNEL(kLogThreads)
pcfg_means(Pcfg<T> g, TreeSpace<T> space, TreeTangent<T> f, int width) {
  const Thread me;
  const SpanBlock<T> block(g, space.first, width);
  const DenseSentence<T> s(g, block.item), v(f.v, block.item);
  if (block.i + width > s.len) return;
  double *pairs = space.pairs + block.place, *pair_means = f.pair_means + block.place;
  sum_splits(me, s, space.inside, block.i, width, [&](int64_t q, auto& pair, const LogSum& x) {
    pairs[q] = x.log();
    pair_means[q] = mean_of_splits(s, v, space.inside, f.means, block.i, width, pair, x);
  });
  sync_block();
  for (int a = me.warp; a < g.nt; a += me.warps) {
    const int64_t rule = a * g.pairs();
    const LogSum x = sum_rules(me, s, pairs, a);
    double mean = 0;
    for (int64_t q = me.lane; q < g.pairs() && x.possible(); q += 32) {
      const double share = exp(double(s.rules[rule + q]) + pairs[q] - x.top) / x.sum;
      if (share > 0) mean += share * (double(v.rules[rule + q]) + pair_means[q]);
    }
    mean = warp_sum(mean);
    if (me.lane == 0) f.means[s.node(block.i, width) + a] = mean + v.span_score(block.i, width, a);
  }
}

}  // namespace slv::cuda
