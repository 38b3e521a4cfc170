// Inside: the sum over the trees of every span, or the best of them, width by width. A block has one span of one item.
#pragma once
#include "cuda/log_sum.cuh"
#include "cuda/pcfg.h"
#include "cuda/pcfg_tree.cuh"

namespace slv::cuda {

// One item, as its block of threads sees it.
template <class T>
struct DenseSentence : Sentence<T> {
  const Pcfg<T>& g;
  const T* rules;
  SLV_DEVICE DenseSentence(const Pcfg<T>& g, int64_t b)
      : Sentence<T>(g, b), g(g), rules(g.rules + g.rule_row.row(b) * g.nt * g.pairs()) {}
};

// The span of a block, of `width` words: spans of an item lie side by side.
template <class T>
struct SpanBlock {
  int64_t item, place;  // place: of its pairs of children
  int i;
  SLV_DEVICE SpanBlock(const Pcfg<T>& g, int64_t first, int width) {
    const int spans = g.n - width + 1;
    const int64_t count = blockIdx.x / unsigned(spans);
    i = int(blockIdx.x - count * spans);
    item = first + count;
    place = (count * (g.n - 1) + i) * g.pairs();
  }
};

// A pair of children of a span of `w` words: the symbols, and how many words the left one may have, from .. to - 1.
template <class T>
struct PairOfChildren {
  int y, z, from, to;
  SLV_DEVICE PairOfChildren(const Tree<T>& g, int64_t q, int w) : y(int(q / g.s())), z(int(q - int64_t(y) * g.s())) {
    // one under a preterminal, more under a nonterminal, and so for the right one
    from = larger(y < g.nt ? 2 : 1, z < g.nt ? 1 : w - 1), to = w - larger(z < g.nt ? 2 : 1, y < g.nt ? 1 : w - 1) + 1;
  }
  // What both have of `values`, where v of the words from i on are the left one's.
  SLV_DEVICE double below(const DenseSentence<T>& s, const double* values, int i, int w, int v) const {
    return s.below(values, i, v, y) + s.below(values, i + v, w - v, z);
  }
};

// Calls each(q, sum over the splits of i..i+w-1) for every pair q of a left and a right symbol, by one
// thread. With `Best`, here and below, there are maxima in place of sums.
template <bool Best = false, class T, class F>
SLV_DEVICE void sum_splits(const Thread& me, const DenseSentence<T>& s, const double* inside, int i, int w, F&& each) {
  for (int64_t q = me.index; q < s.g.pairs(); q += blockDim.x) {
    const PairOfChildren<T> pair(s.g, q, w);
    each(q, log_sum<Best>(pair.from, pair.to, [&](int v) { return pair.below(s, inside, i, w, v); }));
  }
}
// The sum over the pairs of children of nonterminal `a`, from the logs of what `sum_splits` gave; by a warp.
template <bool Best = false, class T>
SLV_DEVICE LogSum sum_rules(const Thread& me, const DenseSentence<T>& s, const double* pairs, int a) {
  const T* rules = s.rules + a * s.g.pairs();
  return warp_log_sum<Best>(me, s.g.pairs(), [&](int64_t q) { return double(rules[q]) + pairs[q]; });
}

template <class T, bool Best>
SLV_KERNEL(kLogThreads)
pcfg_inside(Pcfg<T> g, TreeSpace<T> space, int width) {
  const Thread me;
  const SpanBlock<T> block(g, space.first, width);
  const DenseSentence<T> s(g, block.item);
  if (block.i + width > s.len) return;
  double* pairs = space.pairs + block.place;
  sum_splits<Best>(me, s, space.inside, block.i, width, [&](int64_t q, const LogSum& x) { pairs[q] = x.log(); });
  sync_block();
  for (int a = me.warp; a < g.nt; a += me.warps) {
    const double sum = sum_rules<Best>(me, s, pairs, a).log();
    if (me.lane == 0) space.inside[s.node(block.i, width) + a] = sum + s.span_score(block.i, width, a);
  }
}

}  // namespace slv::cuda
