// Rules and words in the scaled linear domain, and the words' share of every rule ("hoisting").
//
// A slice is the square of children of one parent A. It is exponentiated relative to a power of two of its own, into
// 32 KB that stay in the first cache while everything is done to it that needs it whole.
#pragma once
#include "core/buffer.h"
#include "core/product.h"
#include "kernels/pcfg_chart.h"

namespace slv {
namespace {

// What T can hold (see pcfg_inside.h).
template <class T>
struct PcfgRange;
template <>
struct PcfgRange<float> {
  static constexpr double wide = 41;                  // of the range of finite rules, where some are -inf
  static constexpr float tiny = 1e-17f, huge = 1e6f;  // of an entry, then; of the largest score of a row
};
template <>
struct PcfgRange<double> {
  static constexpr double wide = 368, tiny = 1e-140, huge = 1e14;
};

// The first n lanes of In as T, the others `fill`; memory is read up to `end` at most.
template <class T, class In>
SLV_INLINE vec<T> load_within(const In* p, int64_t n, const In* end, T fill) {
#if defined(__AVX512F__)
  (void)end;
#else
  if constexpr (std::is_same_v<T, In>)
    if (n < kWidth<T> && end - p >= kWidth<T>) return iota<T>() < int(n) ? load(p) : splat(fill);
#endif
  return load_as<T>(p, int(std::min<int64_t>(n, kWidth<T>)), fill);
}

// Rules are read a few KiB ahead: a page's end stops the processor's own prefetching.
constexpr int64_t kAhead = 6000;

template <class T>
SLV_INLINE T power_for(T top) {  // the power of two that a row with this maximum is relative to
  return top > -PcfgRange<T>::huge && top < PcfgRange<T>::huge ? nearest<T>(splat(T(top * T(1.44269504088896341))))[0]
                                                               : T(0);
}
// 2^d of whole d <= 0; 0 below the range of T.
template <class T>
SLV_INLINE vec<T> power_of_two_of(vec<T> d) {
  const vec<T> p = (vec<T>)((ivec<T>)(d + (kMagic<T> + T(kBias<T>))) << kMantissa<T>);
  return d < T(1 - kBias<T>) ? vec<T>{} : p;
}
template <class T>
SLV_INLINE T power_of_two_of(T d) {
  return power_of_two_of<T>(splat(d))[0];
}

struct ScoreRange {
  double top = -kInf<double>, low = kInf<double>;  // of the finite scores
  bool forbidden = false;                          // some are -inf
  bool empty() const { return top == -kInf<double>; }
};
template <class T, class In>
ScoreRange score_range(const In* x, int64_t n) {
  constexpr int W = kWidth<T>;
  vec<T> top[2] = {splat(-kInf<T>), splat(-kInf<T>)}, low[2] = {-top[0], -top[0]}, least[2] = {-top[0], -top[0]};
  auto take = [&](int q, vec<T> v) __attribute__((always_inline)) {
    top[q] = vmax(top[q], v);
    least[q] = vmin(least[q], v);
    low[q] = vmin(low[q], v == -kInf<T> ? splat(kInf<T>) : v);
  };
  int64_t i = 0;
  for (; i + 2 * W <= n; i += 2 * W) {
    prefetch(x + i + kAhead / int64_t(sizeof(In)));
    prefetch(x + i + W + kAhead / int64_t(sizeof(In)));
    take(0, load_as<T>(x + i, W, T(0)));
    take(1, load_as<T>(x + i + W, W, T(0)));
  }
  for (; i < n; i += W) take(0, load_as<T>(x + i, int(std::min<int64_t>(W, n - i)), T(x[0])));
  ScoreRange r;
  r.top = double(hmax<T>(vmax(top[0], top[1])));
  r.low = -double(hmax<T>(-vmin(low[0], low[1])));
  r.forbidden = hmax<T>(-vmin(least[0], least[1])) == kInf<T>;
  return r;
}

// The rules of one grammar, slice by slice.
template <class In, class T>
struct Slices {
  static constexpr int W = kWidth<T>;
  const Sizes<T> z;
  const In* rules;
  T* power = nullptr;  // (nt): of each slice; -inf where no rule is possible
  bool finite = true, usable = true;
  T common = 0;             // the largest of `power`
  T *e = nullptr,           // (se, se)
      *factor = nullptr,    // (np): each slice's power against the common one
          *wide = nullptr;  // of the inside pass, (nt, z.pairs): the pairs of nonterminals, (y, z) in rows of nv

  Slices(const Sizes<T>& z, const In* rules) : z(z), rules(rules) {}
  int64_t scratch() const { return Scratch::bytes<T>(z.slice()) + Scratch::bytes<T>(z.np); }
  void bind(Scratch& s, T* powers) {
    power = powers;
    e = s.take<T>(z.slice());
    std::fill_n(e, z.slice(), T(0));  // padding stays as it is
    factor = s.take<T>(z.np);
  }
  int64_t children() const { return (z.nt + z.t) * (z.nt + z.t); }
  const In* slice(int64_t A) const { return rules + A * children(); }
  const In* end() const { return slice(z.nt); }

  // Powers of the slices, from a look at each; `each(A)` runs while it is in the cache.
  template <class F>
  void scan(F each) {
    ScoreRange all;
    for (int64_t A = 0; A < z.nt; A++) {
      const ScoreRange r = score_range<T>(slice(A), children());
      power[A] = r.empty() ? -kInf<T> : power_for(T(r.top));
      usable = usable && (r.empty() || (r.top < double(PcfgRange<T>::huge) && r.top > -double(PcfgRange<T>::huge)));
      all.top = std::max(all.top, r.top);
      all.low = std::min(all.low, r.low);
      all.forbidden = all.forbidden || r.forbidden;
      each(A);
    }
    finite = !all.forbidden;
    usable = usable && (finite || all.empty() || all.top - all.low <= PcfgRange<T>::wide);
  }
  void set_factors() {
    common = *std::max_element(power, power + z.nt);
    if (common == -kInf<T>) common = 0;
    std::fill(factor, factor + z.np, T(0));
    for (int64_t A = 0; A < z.nt; A++)
      if (power[A] > -kInf<T>) factor[A] = power_of_two_of(power[A] - common);
  }

  // Row (A, y, :) among nonterminals (`from` = 0) or among preterminals.
  SLV_INLINE void exp_row(const In* x, int64_t count, vec<T> N, T* to) const {
    int64_t c = 0;
    for (; c + W <= count; c += W) {
      prefetch(x + c + kAhead / int64_t(sizeof(In)));
      store(to + c, exp_scaled<T>(load_as<T>(x + c, W, T(0)), N));
    }
    if (c < count) store(to + c, exp_scaled<T>(load_within<T>(x + c, count - c, end(), -kInf<T>), N));
  }
  vec<T> power_vector(int64_t A) const { return splat(power[A] > -kInf<T> ? power[A] : T(0)); }
  void exponentiate(int64_t A) const {
    const vec<T> N = power_vector(A);
    const In* x = slice(A);
    for (int64_t y = 0; y < z.nt + z.t; y++, x += z.nt + z.t) {
      T* row = e + (y < z.nt ? y : z.np + y - z.nt) * z.se;
      exp_row(x, z.nt, N, row);
      exp_row(x + z.nt, z.t, N, row + z.np);
    }
  }
  // The pairs of nonterminals alone.
  void exponentiate_pairs(int64_t A, T* to) const {
    for (int64_t y = 0; y < z.nt; y++) {
      const In* x = slice(A) + y * (z.nt + z.t);
      for (int64_t k = 0; A + 1 < z.nt && k < z.nt * int64_t(sizeof(In)); k += 64)
        prefetch(reinterpret_cast<const char*>(x + children()) + k);  // the next slice's
      exp_row(x, z.nt, power_vector(A), to + y * z.nv);
    }
  }
};

// exp of one word's scores; true if a finite one was lost or is thin. exponent: -inf where no preterminal is possible.
template <class In, class T>
bool exp_word(const Sizes<T>& z, const In* x, T* to, T* exponent) {
  constexpr int W = kWidth<T>;
  vec<T> top = splat(-kInf<T>);
  auto at = [&](int64_t c) { return load_as<T>(x + c, int(std::min<int64_t>(W, z.t - c)), -kInf<T>); };
  for (int64_t c = 0; c < z.t; c += W) top = vmax(top, at(c));
  const T most = hmax<T>(top), N = power_for(most);
  ivec<T> thin{};
  for (int64_t c = 0; c < z.t; c += W) {
    const vec<T> v = at(c), y = exp_scaled<T>(v, splat(N));
    thin |= (v > -kInf<T>)&(y < PcfgRange<T>::tiny);
    store(to + c, y);
  }
  *exponent = most == -kInf<T> ? -kInf<T> : N;
  return any<T>(thin);
}

// Words' share of the rules: see BlockChart for `left`, `right` and `both`; pairs (words, np): both children are words,
// this one and the next.
template <class T>
struct Hoisted {
  T *left, *right, *both, *pairs;
  Hoisted from(const Sizes<T>& z, int64_t word) const {
    const int64_t row = word * z.nt;
    return {left + row * z.np, right + row * z.np, both + row * z.tp, pairs + (pairs ? word * z.np : 0)};
  }
};
template <class T>
struct Hoist {
  const Sizes<T> z;
  const int64_t rows;  // words of all items of the block
  const T* words;      // (rows, tp)
  const Hoisted<T> to;
  T* turned;  // (tp, np)
  static int64_t scratch(const Sizes<T>& z) { return Scratch::bytes<T>(z.tp * z.np); }

  void slice(int64_t A, const T* e) const {
    product<PlusTimes, false, T>({rows, z.n_panels(), z.t}, {words, z.tp, 1}, {e + z.np * z.se, z.se},
                                 Store<T>{to.left + A * z.np, z.nt * z.np});
    product<PlusTimes, false, T>({rows, z.t_panels(), z.t}, {words, z.tp, 1}, {e + z.np * z.se + z.np, z.se},
                                 Store<T>{to.both + A * z.tp, z.nt * z.tp});
    transpose(e + z.np, z.se, z.nv, z.tv, turned, z.np);
    product<PlusTimes, false, T>({rows, z.n_panels(), z.t}, {words, z.tp, 1}, {turned, z.np},
                                 Store<T>{to.right + A * z.np, z.nt * z.np});
    join_pairs(A);
  }
  void join_pairs(int64_t A) const {
    constexpr int R = kTreeRows<T>, W = kWidth<T>;
    alignas(64) T sums[R];
    for (int64_t i = 0; i < rows - 1; i += R) {
      vec<T> v[R];
      for (int q = 0; q < R; q++) {
        const int64_t r = std::min(i + q, rows - 2);
        const T *x = to.both + (r * z.nt + A) * z.tp, *next = words + (r + 1) * z.tp;
        v[q] = load(x) * load(next);
        for (int64_t c = W; c < z.t; c += W) v[q] += load(x + c) * load(next + c);
      }
      store_rows(sums, reduce_rows<T>(v, SumOp()));
      for (int q = 0; q < R && i + q < rows - 1; q++) to.pairs[(i + q) * z.np + A] = sums[q];
    }
  }
};

}  // namespace
}  // namespace slv
