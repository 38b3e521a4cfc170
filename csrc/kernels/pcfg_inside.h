// The inside pass of one sentence (Baker 1979; Lari and Young 1990, section 2) in the scaled linear domain.
//
// Every vector over nonterminals is relative to a power of two of its own, kept as a whole number (of T: an item whose
// exponents are not exact in it is bad); words' share of the rules is taken out (pcfg_rules.h).
// With Y, Z the left and right children of a split k of span (i, w):
//   M = sum_k 2^d_k Y_k Z_k'                       w-3 splits between spans; d_k: their exponents, less the largest
//   s[A] = <R_A, M> + <left_i[A], Z> + <right_j[A], Y>     the outer two splits have a word for a child
//   inside[A] = s[A] 2^(slice - common) exp(spans[A]) 2^-exponent
// O(n^3 N^2 + n^2 N^3 + n N (N+T) T) for N nonterminals and T preterminals; memory O(n^2 N).
//
// When is that exact? What underflows is at most `n S^2` times the smallest number, S the number of symbols.
// * Rules all finite: then a span that has a split with two possible children is possible for every A. If s[A],
//   inside[A] and the factor between them stay `floor` = 64 n S^2 min / eps or more, what was lost is a quarter of a
//   rounding error of s[A], wherever in its sum it was; else the item is bad. The range of the potentials is free.
// * Some rules -inf: 0 has to mean impossible, so no product of two numbers may underflow. With the finite rules within
//   `wide` of each other, every factor must be 0 or at least `tiny`; else the item is bad. (s also `floor`, for the
//   sake of 1/s.)
// A bad item is done again on the next rung.
#pragma once
#include "kernels/pcfg_spans.h"

namespace slv {
namespace {

template <class T>
T floor_of(int64_t n, int64_t symbols) {
  return T(64 * double(n) * double(symbols) * double(symbols) * double(kSmallest<T>) /
           double(std::numeric_limits<T>::epsilon()));
}

// log Z from the mantissas of the whole sentence, and the probability of each root symbol.
template <class In, class T>
double root_probability(const Pcfg<In>& c, int64_t item, const Spans<T>& s, T* probability) {
  const In* root = c.root + (c.root_row ? c.root_row[item] : 0) * c.nt;
  const T* top = s.at(0, s.n);
  auto term = [&](int64_t A) {
    return top[A] > T(0) || top[A] != top[A] ? double(root[A]) + scalar_log(double(top[A])) : -kInf<double>;
  };
  double high = -kInf<double>, sum = 0;
  for (int64_t A = 0; A < c.nt; A++) high = term(A) > high || term(A) != term(A) ? term(A) : high;  // NaN stays
  std::fill_n(probability, s.z.np, T(0));
  if (high == -kInf<double>) return high;
  for (int64_t A = 0; A < c.nt; A++) sum += scalar_exp(term(A) - high);
  for (int64_t A = 0; A < c.nt; A++) probability[A] = T(scalar_exp(term(A) - high) / sum);
  return high + scalar_log(sum) + kLn2 * double(s.exponent(0, s.n));
}

// Memory for one sentence at a time, of up to n words.
template <class T>
struct InsideSpace {
  T *m, *scaled, *inner, *sums, *factors, *most;
  T* kept = nullptr;  // M of all spans, by width, where they are wanted afterwards
  static int64_t scratch(const Sizes<T>& z, int64_t n) {
    const int64_t chunk = chunk_of(z);
    return Scratch::bytes<T>(chunk * z.pairs) + Scratch::bytes<T>(n * z.np) + Scratch::bytes<T>(n) +
           Scratch::bytes<T>(chunk * z.np) + Scratch::bytes<T>(z.np) + Scratch::bytes<T>(chunk);
  }
  InsideSpace(Scratch& memory, const Sizes<T>& z, int64_t n) {
    const int64_t chunk = chunk_of(z);
    m = memory.take<T>(chunk * z.pairs);
    scaled = memory.take<T>(n * z.np);
    inner = memory.take<T>(n);
    sums = memory.take<T>(chunk * z.np);
    factors = memory.take<T>(z.np);
    std::fill_n(factors, z.np, T(1));
    most = memory.take<T>(chunk);
  }
};

template <class In, class T>
struct Inside {
  static constexpr int W = kWidth<T>;
  const Pcfg<In>& c;
  const int64_t item;
  const Spans<T> s;
  const SpanRules<T> rules;
  const Hoisted<T> words;
  const Sizes<T> z;
  const int64_t n, chunk;
  const T floor;
  const InsideSpace<T> space;
  T *const scaled, *const inner, *const sums, *const factors;
  bool bad = false;

  Inside(const Pcfg<In>& c, int64_t item, const Spans<T>& s, const SpanRules<T>& rules, const Hoisted<T>& words,
         const InsideSpace<T>& space)
      : c(c),
        item(item),
        s(s),
        rules(rules),
        words(words),
        z(s.z),
        n(s.n),
        chunk(chunk_of(z)),
        floor(floor_of<T>(n, z.nt + z.t)),
        space(space),
        scaled(space.scaled),
        inner(space.inner),
        sums(space.sums),
        factors(space.factors) {}

  void run() {
    for (int64_t w = 2; w <= n; w++)
      for (int64_t i = 0; i + w <= n; i += chunk) spans(i, w, std::min(chunk, n - w + 1 - i));
  }

  // spans i .. i + rows - 1 of width w
  void spans(int64_t i, int64_t w, int64_t rows) {
    static const T one = 1;
    T* const m = space.kept ? space.kept + by_width(n, i, w) * z.pairs : space.m;
    for (int64_t r = 0; r < rows; r++) {
      const Splits<T> split = s.weigh(i + r, w, inner);
      space.most[r] = split.exponent;
      if (w == 2) {
        std::copy_n(words.pairs + (i + r) * z.np, z.nv, sums + r * z.np);
        continue;
      }
      if (w > 3) s.merge(i + r, w, inner, scaled, m + r * z.pairs);
      add_words(i + r, w, split, sums + r * z.np);
      if (!rules.finite && split.exponent > -kInf<T>) check_factors(i + r, w, split, m + r * z.pairs);
    }
    // Padding is zero on both sides (PcfgBlock::hoist, normalise): where there is little, to go through it is faster
    // than many short loops.
    const bool through = z.nv - z.nt <= z.nt / 4;
    const Extent terms{rows, z.n_panels(), through ? z.nt * z.nv : z.nt, through ? 1 : z.nt};
    if (w > 3)
      product<PlusTimes, true, T>(terms, {m, z.pairs, 1, z.nv}, {rules.pairs, z.nv, z.nv * z.nv},
                                  Add<T>{sums, z.np, &one, 0});
    for (int64_t r = 0; r < rows; r++) normalise(i + r, w, sums + r * z.np, space.most[r]);
  }

  // sum[A] = <left_i[A], Z> + <right_j[A], Y>
  void add_words(int64_t i, int64_t w, const Splits<T>& split, T* sum) const {
    constexpr int R = kTreeRows<T>;
    const T *y = s.at(i, w - 1), *x = s.at(i + 1, w - 1);
    const T *l = words.left + i * z.nt * z.np, *r = words.right + (i + w - 1) * z.nt * z.np;
    auto rows = [&]<int N>(std::integral_constant<int, N>, int64_t A) __attribute__((always_inline)) {
      vec<T> v[N];
#pragma GCC unroll 8
      for (int q = 0; q < N; q++) v[q] = vec<T>{};
      for (int64_t p = 0; p < z.nv; p += W) {
        const vec<T> xp = load(x + p) * split.first, yp = load(y + p) * split.last;
        const T *lp = l + A * z.np + p, *rp = r + A * z.np + p;
#pragma GCC unroll 8
        for (int q = 0; q < N; q++, lp += z.np, rp += z.np) v[q] += load(lp) * xp + load(rp) * yp;
      }
      reduce_into<T, N>(sum + A, v, SumOp());
    };
    for (int64_t A = 0; z.nt >= R && A < z.nt; A += R)  // the last rows overlap those before
      rows(std::integral_constant<int, R>{}, std::min(A, z.nt - R));
    for (int64_t A = 0; z.nt < R && A < z.nt; A++) rows(std::integral_constant<int, 1>{}, A);
  }

  // the mantissas of a span from its sums, and what T lost of them
  void normalise(int64_t i, int64_t w, T* sum, T split_exponent) {
    const SpanFactor<T> f = span_factor(c, z, item, i, w, factors);
    T* to = s.at(i, w);
    vec<T> top = splat(kSmallest<T>);
    for (int64_t p = 0; p < z.nv; p += W) {
      const vec<T> x = iota<T>() < int(z.nt - p) ? load(sum + p) : vec<T>{};
      store(sum + p, x);
      top = vmax(top, x * (load(rules.factor + p) * load(factors + p)));
    }
    const T high = hmax<T>(top);
    const bool possible = split_exponent > -kInf<T>;
    const ivec<T> power = exponent_of<T>(splat(high));
    const vec<T> scale = power_of_two<T>(-power);
    const T least = rules.finite ? floor : PcfgRange<T>::tiny;
    ivec<T> thin{};
    for (int64_t p = 0; p < z.nv; p += W) {
      const ivec<T> live = iota<T>() < int(z.nt - p);
      const vec<T> x = load(sum + p), f = load(factors + p), k = load(rules.factor + p) * f, v = x * (k * scale);
      const ivec<T> wanted = live & (rules.finite ? (vec<T>{} == vec<T>{}) : x > T(0));
      thin |= wanted & (~(x >= floor) | ((f > T(0)) & (~(v >= least) | (k < floor))));
      store(to + p, v);
    }
    const T exponent = split_exponent + rules.common + f.exponent + T(power[0]);
    const bool empty = high == kSmallest<T>, counts = std::abs(exponent) < kMagic<T> / 2;  // is exact
    if (possible && (f.lost || any<T>(thin) || !(empty || counts))) bad = true;
    s.start_exponent[by_start(s.n, i, w)] = empty ? -kInf<T> : exponent;
    s.copy_to_end(i, w);
  }
  // With rules of -inf: whether a factor of the sums is neither 0 nor at least `tiny`.
  void check_factors(int64_t i, int64_t w, const Splits<T>& split, const T* merged) {
    ivec<T> thin{};
    auto small = [](vec<T> x) { return (x > T(0)) & (x < PcfgRange<T>::tiny); };
    auto check_child = [&](const T* x, T weight, bool possible) {
      for (int64_t p = 0; possible && p < z.nv; p += W) {
        const vec<T> v = load(x + p);
        thin |= (v > T(0)) & (v * weight < PcfgRange<T>::tiny);
      }
    };
    auto live = [&](int64_t k, int64_t e) { return s.exponent(i, k) > -kInf<T> && s.exponent(i + k, e) > -kInf<T>; };
    check_child(s.at(i + 1, w - 1), split.first, live(1, w - 1));
    check_child(s.at(i, w - 1), split.last, live(w - 1, 1));
    for (int64_t k = 2; k < w - 1; k++) check_child(s.at(i, k), inner[k - 2], live(k, w - k));
    for (int64_t y = 0; w > 3 && y < z.nt; y++)
      for (int64_t p = 0; p < z.nv; p += W) thin |= small(load(merged + y * z.nv + p));
    if (any<T>(thin)) bad = true;
  }
  void check_words() {  // the same of what the words give to the rules
    ivec<T> thin{};
    auto check = [&](const T* x, int64_t count) {
      for (int64_t p = 0; p < count; p += W) {
        const vec<T> v = load(x + p);
        thin |= (v > T(0)) & (v < PcfgRange<T>::tiny);
      }
    };
    for (int64_t r = 0; r < n * z.nt; r++) {
      check(words.left + r * z.np, z.nv);
      check(words.both + r * z.tp, z.tv);
      check(words.right + r * z.np, z.nv);
    }
    if (any<T>(thin)) bad = true;
  }
};

}  // namespace
}  // namespace slv
