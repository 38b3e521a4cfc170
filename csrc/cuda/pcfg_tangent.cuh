// Second order of dense rules in log space, as kernels/pcfg_log_outside.h: on the way up, the mean of f below every
// node beside the sum over its trees. Those outside of nodes come with the outside pass (cuda/pcfg_outside.cuh); a
// rule's covariance is that of what is outside of its node, of the rule and of what is below its children.
#pragma once
#include "cuda/pcfg_inside.cuh"

namespace slv::cuda {

// Calls each(q, the sum over the splits of i..i+w-1, with the mean of f below both children) for every pair q, by one
// thread; v: the direction's sentence.
template <class T, class F>
SLV_DEVICE void mean_splits(const Thread& me, const DenseSentence<T>& s, const DenseSentence<T>& v,
                            const double* inside, const double* means, int i, int w, F&& each) {
  for (int64_t q = me.index; q < s.g.pairs(); q += blockDim.x) {
    const PairOfChildren<T> pair(s.g, q, w);
    each(q, log_mean(
                pair.from, pair.to, [&](int k) { return pair.below(s, inside, i, w, k); },
                [&](int k) { return pair.below(v, means, i, w, k); }));
  }
}

// Inside and the means of all spans of `width` words; a block has one span of one item.
template <class T>
SLV_KERNEL(kLogThreads)
pcfg_means(Pcfg<T> g, TreeSpace<T> space, TreeTangent<T> f, int width) {
  const Thread me;
  const SpanBlock<T> block(g, space.first, width);
  const DenseSentence<T> s(g, block.item), v(f.v, block.item);
  if (block.i + width > s.len) return;
  double *pairs = space.pairs + block.place, *pair_means = f.pair_means + block.place;
  mean_splits(me, s, v, space.inside, f.means, block.i, width,
              [&](int64_t q, const LogMean& x) { pairs[q] = x.log(), pair_means[q] = x.mean(); });
  sync_block();
  for (int a = me.warp; a < g.nt; a += me.warps) {
    const T *rules = s.rules + a * g.pairs(), *v_rules = v.rules + a * g.pairs();
    const LogMean x = warp_log_mean(
        me, g.pairs(), [&](int64_t q) { return double(rules[q]) + pairs[q]; },
        [&](int64_t q) { return double(v_rules[q]) + pair_means[q]; });
    if (me.lane > 0) continue;
    const int64_t node = s.node(block.i, width) + a;
    space.inside[node] = x.log() + s.span_score(block.i, width, a);
    f.means[node] = x.mean() + v.span_score(block.i, width, a);
  }
}

}  // namespace slv::cuda
