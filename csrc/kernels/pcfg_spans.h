// Spans of one sentence in the scaled linear domain, and the splits of each.
#pragma once
#include "core/buffer.h"
#include "core/product.h"
#include "kernels/pcfg_rules.h"

namespace slv {
namespace {

// Rules as the passes over spans need them.
template <class T>
struct SpanRules {
  const T* pairs;   // with two nonterminal children: (y, z, A), rows of nv, in the inside pass, else (A, y, z)
  const T* factor;  // (np)
  T common;         // exponent
  bool finite;      // no rule is -inf
};

// A potential times a span's entries: exp of its scores relative to a power of two.
template <class T>
struct SpanFactor {
  T exponent = 0;
  bool lost = false;  // a finite score became 0, or the scores are out of range
};
// to (np): left alone where there are none; starts as 1.
template <class T, class In>
SpanFactor<T> span_factor(const Pcfg<In>& c, const Sizes<T>& z, int64_t item, int64_t i, int64_t w, T* to) {
  constexpr int W = kWidth<T>;
  SpanFactor<T> f;
  if (!c.spans) return f;
  const In* x = c.spans + (((c.spans_row ? c.spans_row[item] : 0) * c.n + i) * c.n + i + w - 1) * c.labels;
  auto at = [&](int64_t p) {
    return c.labels == 1 ? (iota<T>() < int(z.nt - p) ? splat(T(*x)) : splat(-kInf<T>))
                         : load_as<T>(x + std::min(p, z.nt - 1), int(std::clamp<int64_t>(z.nt - p, 0, W)), -kInf<T>);
  };
  vec<T> top = at(0);
  for (int64_t p = W; p < z.nt; p += W) top = vmax(top, at(p));
  const T most = hmax<T>(top), N = power_for(most);
  f.exponent = N;
  f.lost = !(most < PcfgRange<T>::huge) || (most <= -PcfgRange<T>::huge && most > -kInf<T>);
  for (int64_t p = 0; p < z.nv; p += W) {
    const vec<T> v = at(p), y = exp_scaled<T>(v, splat(N));
    f.lost |= any<T>((v > -kInf<T>)&(y == T(0)));
    store(to + p, y);
  }
  return f;
}

// The weights of a span's splits: powers of two, the largest of them 1.
template <class T>
struct Splits {
  T exponent;     // of the largest; -inf if no split has two possible children
  T first, last;  // the first (last) word alone is a child
};

template <class T>
struct Spans {
  const Sizes<T> z;
  const int64_t n;
  T *start, *end;  // mantissas by start and by end, (spans, np) each
  T *start_exponent, *end_exponent;
  const T* word_exponent;

  T* at(int64_t i, int64_t w) const { return start + by_start(n, i, w) * z.np; }
  T* at_end(int64_t e, int64_t i) const { return end + by_end(e, i) * z.np; }
  T exponent(int64_t i, int64_t w) const { return w > 1 ? start_exponent[by_start(n, i, w)] : word_exponent[i]; }
  void copy_to_end(int64_t i, int64_t w) const {
    const T* from = at(i, w);
    T* to = at_end(i + w, i);
    for (int64_t p = 0; p < z.nv; p += kWidth<T>) store(to + p, load(from + p));
    end_exponent[by_end(i + w, i)] = exponent(i, w);
  }
  // inner: the weights of the w-3 splits between two spans
  Splits<T> weigh(int64_t i, int64_t w, T* inner) const {
    constexpr int W = kWidth<T>;
    if (w == 2) return {word_exponent[i] + word_exponent[i + 1], T(1), T(1)};
    const T first = word_exponent[i] + exponent(i + 1, w - 1), last = exponent(i, w - 1) + word_exponent[i + w - 1];
    const int64_t splits = w - 3;
    const T *l = start_exponent + by_start(n, i, 2), *r = end_exponent + by_end(i + w, i + 2);
    auto at = [&](int64_t k) __attribute__((always_inline)) {
      const int rest = int(std::min<int64_t>(W, splits - k));
      return load_n<T>(l + k, rest, -kInf<T>) + load_n<T>(r + k, rest, -kInf<T>);
    };
    vec<T> top = splat(std::max(first, last));
    for (int64_t k = 0; k < splits; k += W) top = vmax(top, at(k));
    const T most = hmax<T>(top), shift = most > -kInf<T> ? most : T(0);
    for (int64_t k = 0; k < splits; k += W)
      store_n<T>(inner + k, power_of_two_of<T>(at(k) - shift), int(std::min<int64_t>(W, splits - k)));
    return {most, power_of_two_of(first - shift), power_of_two_of(last - shift)};
  }
  // m[y][z] = sum over inner splits of weight * left[y] * right[z]; `scaled` (w-3, np) is weight * left
  void merge(int64_t i, int64_t w, const T* inner, T* scaled, T* m) const {
    constexpr int W = kWidth<T>;
    const T* y = at(i, 2);
    for (int64_t k = 0; k < w - 3; k++)
      for (int64_t p = 0; p < z.nv; p += W) store(scaled + k * z.np + p, load(y + k * z.np + p) * inner[k]);
    product<PlusTimes, true, T>({z.nt, z.n_panels(), w - 3}, {scaled, 1, z.np}, {at_end(i + w, i + 2), z.np},
                                Store<T>{m, z.nv});
  }
};

// Spans that are worked on together: their products with the rules stay in the second cache.
template <class T>
int64_t chunk_of(const Sizes<T>& z) {
  return std::clamp<int64_t>((int64_t(160) << 10) / (z.nt * z.np * int64_t(sizeof(T))), 12, 96);
}
}  // namespace
}  // namespace slv
