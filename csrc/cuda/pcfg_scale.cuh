// Rules and words in the scaled linear domain, and the words' share of the rules. What does not fit the domain becomes
// NaN, which all sums that use it pass on to the exponent of a span.
#pragma once
#include "cuda/pcfg_inside.cuh"
#include "cuda/pcfg_scaled.h"
#include "cuda/pcfg_tree_scale.cuh"

namespace slv::cuda {

// The rules of one nonterminal, by what its children are: two nonterminals, a nonterminal and a word, a word and a
// nonterminal, two words. The right child is the fast index of each block.
struct DenseRules {
  int nt, t;
  SLV_DEVICE int64_t nodes(int y, int z) const { return int64_t(y) * nt + z; }
  SLV_DEVICE int64_t node_word(int y, int c) const { return int64_t(nt) * nt + int64_t(y) * t + c; }
  SLV_DEVICE int64_t word_node(int c, int z) const { return int64_t(nt) * (nt + t) + int64_t(c) * nt + z; }
  SLV_DEVICE int64_t words(int c, int d) const { return int64_t(nt) * (nt + t) + int64_t(t) * nt + int64_t(c) * t + d; }
  // of symbols
  SLV_DEVICE int64_t place(int y, int z) const {
    if (y < nt) return z < nt ? nodes(y, z) : node_word(y, z - nt);
    return z < nt ? word_node(y - nt, z) : words(y - nt, z - nt);
  }
};

// One block for each nonterminal of a row of rules.
template <class T>
SLV_KERNEL(kLogThreads)
pcfg_slices(Pcfg<T> g, ScaledPcfg<T> s) {
  Shared shared;
  T* parts = shared.take<T>(2 * kMaxWarps);
  const Thread me;
  const int64_t slice = blockIdx.x, size = g.pairs();
  const T* from = g.rules + slice * size;
  T high = -infinity<T>(), low = -high;
  bool holes = false, broken = false;
  for (int64_t e = me.index; e < size; e += blockDim.x) {
    const T x = from[e];
    broken = broken || !(x < infinity<T>());
    holes = holes || x == -infinity<T>();
    high = larger(high, x);
    if (x > -infinity<T>() && x < low) low = x;
  }
  high = warp_max(high);
  low = -warp_max(-low);
  if (me.lane == 0) parts[me.warp] = high, parts[kMaxWarps + me.warp] = -low;
  holes = sync_block_or(holes);
  broken = sync_block_or(broken);
  high = max_of_parts(parts, me.warps);
  low = -max_of_parts(parts + kMaxWarps, me.warps);
  const T exponent = exponent_for(high);
  if (me.index == 0) {
    s.power[slice] = high == -infinity<T>() ? high : exponent;
    T* range = s.range + 3 * slice;
    range[0] = broken ? not_here<T>() : high, range[1] = low, range[2] = T(holes);
  }
  const DenseRules at{g.nt, g.t};
  T* to = s.rules + slice * size;
  for (int64_t e = me.index; e < size; e += blockDim.x) {
    const int y = int(e / g.s()), z = int(e - int64_t(y) * g.s());
    to[at.place(y, z)] = exp_scaled(from[e], exponent);
  }
}
// One warp for each row of rules.
template <class T>
SLV_KERNEL(32)
pcfg_judge(Pcfg<T> g, ScaledPcfg<T> s) {
  const Thread me;
  const int64_t row = blockIdx.x;
  const T *range = s.range + row * g.nt * 3, *power = s.power + row * g.nt;
  T high = -infinity<T>(), low = -high, common = high;
  bool holes = false, unusable = false;
  for (int a = me.lane; a < g.nt; a += 32) {
    unusable = unusable || too_large(range[3 * a]);
    high = larger(high, range[3 * a]);
    low = -larger(-low, -range[3 * a + 1]);
    holes = holes || range[3 * a + 2] != T(0);
    common = larger(common, power[a]);
  }
  high = warp_max(high), low = -warp_max(-low), common = warp_max(common);
  holes = ballot(holes) != 0;
  // without any rule nothing has a range
  unusable = ballot(unusable) != 0 || (holes && double(high) - double(low) > Range<T>::wide);
  for (int a = me.lane; a < g.nt; a += 32) s.factor[row * g.nt + a] = power_below(power[a] - common, T(0));
  if (me.lane > 0) return;
  s.common[row] = common > -infinity<T>() ? common : T(0);
  s.kind[row] = unusable ? kUnusableRules : holes ? kSomeRules : kFiniteRules;
}

// One item in the scaled domain.
template <class T>
struct ScaledSentence : Sentence<T> {
  const Pcfg<T>& g;
  const ScaledPcfg<T>& s;
  int64_t row;  // of the rules
  DenseRules at;
  bool finite;
  T tiny;  // where 0 has to mean impossible: the least that another number may be
  SLV_DEVICE ScaledSentence(const Pcfg<T>& g, const ScaledPcfg<T>& s, int64_t b)
      : Sentence<T>(g, b),
        g(g),
        s(s),
        row(g.rule_row.row(b)),
        at{g.nt, g.t},
        finite(s.kind[row] == kFiniteRules),
        tiny(finite ? T(0) : T(Range<T>::tiny)) {}
  SLV_DEVICE const T* rules(int a) const { return s.rules + (row * g.nt + a) * g.pairs(); }
  SLV_DEVICE const T* word(int i) const { return s.words + (this->item * g.n + i) * g.t; }
  // What word i gives to the rules of nonterminal a.
  SLV_DEVICE int64_t hoisted(int i, int a) const { return (this->item * g.n + i) * g.nt + a; }
  SLV_DEVICE T* left(int i, int a) const { return s.left + hoisted(i, a) * g.nt; }
  SLV_DEVICE T* right(int i, int a) const { return s.right + hoisted(i, a) * g.nt; }
  SLV_DEVICE T* both(int i, int a) const { return s.both + hoisted(i, a) * g.t; }
  SLV_DEVICE T* inside(int i, int w) const { return s.inside + this->node(i, w); }
  SLV_DEVICE T& exponent(int i, int w) const {
    return w > 1 ? s.exponent[this->item * g.spans_of_item() + g.span(i, w)] : s.word_exponent[this->item * g.n + i];
  }
  // A sum of products, none of which may have been lost; and one product.
  SLV_DEVICE T guarded(T x) const { return x > T(0) && x < tiny ? not_here<T>() : x; }
  SLV_DEVICE T weighted(T x, T weight) const {
    const T product = x * weight;
    return x > T(0) && weight > T(0) && product < tiny ? not_here<T>() : product;
  }
};

// One warp for each word. That a possible word was lost matters where 0 has to mean impossible.
template <class T>
SLV_KERNEL(kLogThreads)
pcfg_words(Pcfg<T> g, ScaledPcfg<T> s) {
  const Thread me;
  const int64_t word = int64_t(blockIdx.x) * me.warps + me.warp;
  if (word >= g.batch * g.n) return;
  const ScaledSentence<T> x(g, s, word / g.n);
  if (word % g.n >= x.len) return;
  const T* u = g.unary + word * g.t;
  const RowScale<T> scale = scale_of<T>(me, g.t, [&](int c) { return u[c]; });
  for (int c = me.lane; c < g.t; c += 32) s.words[word * g.t + c] = scale(u[c]);
  const bool lost = scale.beyond || scale.least < x.tiny;
  if (me.lane == 0) s.word_exponent[word] = lost ? not_here<T>() : scale.possible ? scale.exponent : -infinity<T>();
}

// The words' share of the rules of one nonterminal; a block has one of one item.
template <class T>
SLV_KERNEL(kLogThreads)
pcfg_hoist(Pcfg<T> g, ScaledPcfg<T> s) {
  const Thread me;
  const int a = int(blockIdx.x % unsigned(g.nt)), nt = g.nt, t = g.t;
  const ScaledSentence<T> x(g, s, blockIdx.x / unsigned(g.nt));
  const T* rules = x.rules(a);
  for (int i = 0; i < x.len; i += kTreeTile) {
    const T* words[kTreeTile];
    SLV_UNROLL for (int q = 0; q < kTreeTile; q++) words[q] = x.word(least_of(i + q, x.len - 1));
    // as left children, for every right one
    for (int z = me.index; z < g.s(); z += blockDim.x) {
      T sum[kTreeTile] = {};
      for (int c = 0; c < t; c++) {
        const T rule = rules[x.at.place(nt + c, z)];
        SLV_UNROLL for (int q = 0; q < kTreeTile; q++) sum[q] += words[q][c] * rule;
      }
      SLV_UNROLL for (int q = 0; q < kTreeTile; q++) {
        if (i + q >= x.len) continue;
        if (z < nt)
          x.left(i + q, a)[z] = x.guarded(sum[q]);
        else
          x.both(i + q, a)[z - nt] = x.guarded(sum[q]);
      }
    }
    // as right children of a nonterminal's
    for (int y = me.warp; y < nt; y += me.warps) {
      T sum[kTreeTile] = {};
      for (int c = me.lane; c < t; c += 32) {
        const T rule = rules[x.at.node_word(y, c)];
        SLV_UNROLL for (int q = 0; q < kTreeTile; q++) sum[q] += words[q][c] * rule;
      }
      SLV_UNROLL for (int q = 0; q < kTreeTile; q++) {
        const T all = warp_sum(sum[q]);
        if (me.lane == 0 && i + q < x.len) x.right(i + q, a)[y] = x.guarded(all);
      }
    }
  }
}

}  // namespace slv::cuda
