// What the scaled linear domains of all grammars share: scores relative to powers of two, spans that a block works on
// at once, and the symbols at the top.
#pragma once
#include "cuda/pcfg_tree.cuh"
#include "kernels/range.h"

namespace slv::cuda {

// Nonterminals, spans or items that one thread works on at once: what it has read of one serves all.
constexpr int kTreeTile = 4;

template <class T>
SLV_DEVICE T smallest() {
  return power_of_two<T>(1 - Float<T>::bias);
}
template <class T>
SLV_DEVICE T not_here() {
  return T(NAN);
}
SLV_DEVICE int least_of(int a, int b) { return a < b ? a : b; }
// The exponent of the power of two that scores with this maximum are relative to.
template <class T>
SLV_DEVICE T exponent_for(T top) {
  return top < Range<T>::huge && top > -Range<T>::huge ? rint(top * T(kLog2E)) : T(0);
}
// Whether scores with this maximum are too large for the domain, or NaN.
template <class T>
SLV_DEVICE bool too_large(T top) {
  return !(top < Range<T>::huge) || (top <= -Range<T>::huge && top > -infinity<T>());
}
// 2^d of a whole d <= 0; `under` below the range of T, 0 of -inf and NaN.
template <class T>
SLV_DEVICE T power_below(T d, T under) {
  return d >= T(1 - Float<T>::bias) ? power_of_two<T>(int(d)) : d > -infinity<T>() ? under : T(0);
}
// Whether an exponent is a whole number that T holds exactly, sums of two among them.
template <class T>
SLV_DEVICE bool is_exact(T exponent) {
  const T bound = power_of_two<T>(Float<T>::mantissa - 1);
  return exponent < bound && exponent > -bound;
}

// Some scores relative to a power of two.
template <class T>
struct RowScale {
  T exponent = 0, least = 1;                                // least: the least exponential of a finite score
  bool possible = true, forbidden = false, beyond = false;  // some are not -inf; some are; too large, or NaN
  SLV_DEVICE T operator()(T score) const { return exp_scaled(score, exponent); }
};
// Of `count` scores, by a warp.
template <class T, class F>
SLV_DEVICE RowScale<T> scale_of(const Thread& me, int count, F&& score) {
  T top = -infinity<T>(), low = -top;
  RowScale<T> x;
  for (int e = me.lane; e < count; e += 32) {
    const T s = score(e);
    x.beyond = x.beyond || !(s < infinity<T>());
    x.forbidden = x.forbidden || s == -infinity<T>();
    top = larger(top, s);
    if (s > -infinity<T>() && s < low) low = s;
  }
  top = warp_max(top), low = -warp_max(-low);
  x.beyond = ballot(x.beyond) != 0 || too_large(top);
  x.forbidden = ballot(x.forbidden) != 0;
  x.possible = top > -infinity<T>();
  x.exponent = exponent_for(top);
  x.least = x(low);
  return x;
}
// exp of a span's own scores; 1 where there are none.
template <class T>
struct SpanFactor {
  const Sentence<T>& s;
  int i, w;
  RowScale<T> scale;
  SLV_DEVICE SpanFactor(const Thread& me, const Sentence<T>& s, int i, int w) : s(s), i(i), w(w) {
    if (s.spans) scale = scale_of<T>(me, s.tree.nt, [&](int a) { return score(a); });
  }
  SLV_DEVICE T score(int a) const { return T(s.span_score(i, w, a)); }
  SLV_DEVICE T operator()(int a) const { return s.spans ? scale(score(a)) : T(1); }
};

// Spans i .. i + count - 1 of w words.
struct SpanTile {
  int i, w, count;
};
// Calls body(tile) for those of w words that a block has.
template <class F>
SLV_DEVICE void each_tile(const Widths& widths, int len, int w, F&& body) {
  const int step = widths.blocks * widths.rows, spans = len - w + 1;
  for (int i = int(blockIdx.x % unsigned(widths.blocks)) * widths.rows; i < spans; i += step)
    body(SpanTile{i, w, least_of(widths.rows, spans - i)});
}

// Adds so many terms, which term(q, parts) adds to parts, in T but for runs of 32: for each of some rules.
template <class T, class F>
SLV_DEVICE void add_terms(int count, double (&sums)[kTreeTile], F&& term) {
  for (int first = 0; first < count; first += 32) {
    T parts[kTreeTile] = {};
    for (int q = first; q < least_of(first + 32, count); q++) term(q, parts);
    SLV_UNROLL for (int k = 0; k < kTreeTile; k++) sums[k] += double(parts[k]);
  }
}
// The probabilities of the tops are the terms of this sum; by a warp. node: inside values of the whole sentence.
template <class T>
struct ScaledTops {
  const T *root, *node;
  LogSum sum;
  SLV_DEVICE ScaledTops(const Thread& me, const Sentence<T>& s, const T* node)
      : root(s.tree.root + s.tree.root_row.row(s.item) * s.tree.nt), node(node) {
    sum = warp_log_sum(me, s.tree.nt, [&](int64_t a) { return term(int(a)); });
  }
  SLV_DEVICE double term(int a) const { return node[a] > T(0) ? double(root[a]) + log(double(node[a])) : -HUGE_VAL; }
  SLV_DEVICE double probability(int a) const { return sum.possible() ? exp(term(a) - sum.top) / sum.sum : 0; }
  SLV_DEVICE double log_z(T exponent) const { return sum.log() + kLn2 * double(exponent); }
};

}  // namespace slv::cuda
