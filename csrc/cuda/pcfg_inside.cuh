// Inside: the sum over the trees of every span, width by width. A block has one span of one item.
#pragma once
#include "cuda/log_sum.cuh"
#include "cuda/pcfg.h"

namespace slv::cuda {

// One item, as its block of threads sees it.
template <class T>
struct Sentence {
  const Pcfg<T>& g;
  int len;
  int64_t item;
  const T *rules, *spans;
  SLV_DEVICE Sentence(const Pcfg<T>& g, int64_t b)
      : g(g),
        len(g.n),
        item(b),
        rules(g.rules + g.rule_row.row(b) * g.nt * g.pairs()),
        spans(g.spans ? g.spans + g.span_row.row(b) * g.n * g.n * g.labels : nullptr) {
    if (!g.length) return;
    const int64_t given = g.length[b];
    len = given < 0 ? 0 : given > g.n ? g.n : int(given);
  }
  SLV_DEVICE double span_score(int i, int w, int a) const {
    if (!spans) return 0;
    return double(spans[(int64_t(i) * g.n + i + w - 1) * g.labels + (g.labels == 1 ? 0 : a)]);
  }
  // The place of a node in the inside values; and the log of the sum over the trees of `w` words with `symbol` on top,
  // a preterminal where w is 1 and a nonterminal otherwise.
  SLV_DEVICE int64_t node(int i, int w) const { return (item * g.spans_of_item() + g.span(i, w)) * g.nt; }
  SLV_DEVICE double below(const double* inside, int i, int w, int symbol) const {
    return w == 1 ? double(g.unary[(item * g.n + i) * g.t + symbol - g.nt]) : inside[node(i, w) + symbol];
  }
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

// Calls each(q, sum over the splits of i..i+w-1) for every pair q of a left and a right symbol, by one thread.
template <class T, class F>
SLV_DEVICE void sum_splits(const Thread& me, const Sentence<T>& s, const double* inside, int i, int w, F&& each) {
  const int symbols = s.g.s(), nt = s.g.nt;
  for (int64_t q = me.index; q < s.g.pairs(); q += blockDim.x) {
    const int y = int(q / symbols), z = int(q - int64_t(y) * symbols);
    // the words of the left part: one under a preterminal, more under a nonterminal, and so for those of the right part
    const int from = larger(y < nt ? 2 : 1, z < nt ? 1 : w - 1), to = w - larger(z < nt ? 2 : 1, y < nt ? 1 : w - 1);
    LogSum x{-HUGE_VAL, 0};
    for (int v = from; v <= to; v++) x.top = larger(x.top, s.below(inside, i, v, y) + s.below(inside, i + v, w - v, z));
    for (int v = from; v <= to && x.possible(); v++)
      x.sum += exp(s.below(inside, i, v, y) + s.below(inside, i + v, w - v, z) - x.top);
    each(q, x);
  }
}
// The sum over the pairs of children of nonterminal `a`, from the logs of what `sum_splits` gave; by a warp.
template <class T>
SLV_DEVICE LogSum sum_rules(const Thread& me, const Sentence<T>& s, const double* pairs, int a) {
  const T* rules = s.rules + a * s.g.pairs();
  return warp_log_sum(me, s.g.pairs(), [&](int64_t q) { return double(rules[q]) + pairs[q]; });
}

template <class T>
SLV_KERNEL(kLogThreads)
pcfg_inside(Pcfg<T> g, TreeSpace<T> space, int width) {
  const Thread me;
  const SpanBlock<T> block(g, space.first, width);
  const Sentence<T> s(g, block.item);
  if (block.i + width > s.len) return;
  double* pairs = space.pairs + block.place;
  sum_splits(me, s, space.inside, block.i, width, [&](int64_t q, const LogSum& x) { pairs[q] = x.log(); });
  sync_block();
  for (int a = me.warp; a < g.nt; a += me.warps) {
    const double sum = sum_rules(me, s, pairs, a).log();
    if (me.lane == 0) space.inside[s.node(block.i, width) + a] = sum + s.span_score(block.i, width, a);
  }
}

// Over the nonterminals at the top, by a warp; nothing for sentences of fewer than two words, which have no tree.
template <class T>
SLV_DEVICE LogSum sum_tops(const Thread& me, const Sentence<T>& s, const T* root, const double* inside) {
  if (s.len < 2) return {-HUGE_VAL, 0};
  const double* node = inside + s.node(0, s.len);
  return warp_log_sum(me, s.g.nt, [&](int64_t a) { return double(root[a]) + node[a]; });
}

template <class T>
SLV_KERNEL(32)
pcfg_finish(Pcfg<T> g, const double* inside, double* log_z, T* log_z_narrow) {
  const Thread me;
  const int64_t b = blockIdx.x;
  const double z = sum_tops(me, Sentence<T>(g, b), g.root + g.root_row.row(b) * g.nt, inside).log();
  if (me.lane > 0) return;
  if (log_z) log_z[b] = z;
  if (log_z_narrow) log_z_narrow[b] = T(z);
}

}  // namespace slv::cuda
