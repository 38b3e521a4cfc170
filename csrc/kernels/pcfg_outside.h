// The outside pass of one sentence (Lari and Young 1990, section 2), as the derivative of pcfg_inside.h written out.
//
// D[A] = d log Z / d inside[A], so that inside D are the probabilities of spans; it gathers from the spans above in two
// charts, by start for left children and by end for right ones. Scales are constants. With g = D 2^(slice - common)
// exp(spans[A]) 2^-exponent, d log Z / d s[A], and G[y, z] = sum_A g[A] R_A[y, z]:
//   D_left_k += 2^d_k G Z_k     D_right_k += 2^d_k Y_k' G     rules[A, y, z] += R_A[y, z] sum over spans of g[A] M[y,
//   z]
// M is formed again; the words' share of the rules is a product over all spans of one word at the end (pcfg_unhoist.h).
//
// Nothing is checked: an adjoint times its forward value is a probability, so one that underflows is a probability
// below n S^2 times the smallest number; and g <= 1 / s is held by the floor of s. What is impossible is set to zero,
// else its adjoints, which mean nothing, might overflow.
#pragma once
#include "kernels/pcfg_inside.h"

namespace slv {
namespace {

// Where an item's adjoints of the hoisted products go, for all words of the block: `rows` of them.
template <class T>
struct WordAdjoints {
  T *left, *right;  // (nt, rows, np) each: nonterminal right child of a word, nonterminal left child
  T* pairs;         // (rows, np)
  int64_t rows;
};
// Probabilities of spans times a weight, (n, n, labels), or null.
template <class In, class T>
struct SpanSink {
  In* out;
  int64_t n, labels;
  T weight;
};

// Memory for one sentence at a time, of up to n words.
template <class T>
struct OutsideSpace {
  T *by_start, *by_end;  // D, then g times the weight of the outer splits
  T *m, *g, *up, *turned, *inner, *scaled, *factors;
  static int64_t scratch(const Sizes<T>& z, int64_t n) {
    const int64_t chunk = chunk_of(z);
    return 2 * Scratch::bytes<T>(span_count(n) * z.np) + 2 * Scratch::bytes<T>(chunk * z.pairs) +
           Scratch::bytes<T>(chunk * z.np) + Scratch::bytes<T>(z.nv * z.nv) + Scratch::bytes<T>(chunk * n) +
           Scratch::bytes<T>(n * z.np) + Scratch::bytes<T>(z.np);
  }
  OutsideSpace(Scratch& memory, const Sizes<T>& z, int64_t n) {
    const int64_t chunk = chunk_of(z);
    by_start = memory.take<T>(span_count(n) * z.np);
    by_end = memory.take<T>(span_count(n) * z.np);
    m = memory.take<T>(chunk * z.pairs);
    g = memory.take<T>(chunk * z.np);
    up = memory.take<T>(chunk * z.pairs);
    turned = memory.take<T>(z.nv * z.nv);
    inner = memory.take<T>(chunk * n);
    scaled = memory.take<T>(n * z.np);
    factors = memory.take<T>(z.np);
    std::fill_n(factors, z.np, T(1));
    for (int64_t r = 0; r < chunk; r++)  // rows behind the nonterminals: read by transpose
      std::fill_n(up + r * z.pairs + z.nt * z.nv, (z.nv - z.nt) * z.nv, T(0));
  }
};

template <class In, class T>
struct Outside {
  static constexpr int W = kWidth<T>;
  const Pcfg<In>& c;
  const int64_t item;
  const Spans<T> s;
  const SpanRules<T> rules;
  const Hoisted<T> hoisted;
  const Sizes<T> z;
  const int64_t n, chunk;
  const OutsideSpace<T> space;
  int64_t filled = 0;  // spans in m and g that are not yet in the rules' sums

  Outside(const Pcfg<In>& c, int64_t item, const Spans<T>& s, const SpanRules<T>& rules, const Hoisted<T>& hoisted,
          const OutsideSpace<T>& space)
      : c(c), item(item), s(s), rules(rules), hoisted(hoisted), z(s.z), n(s.n), chunk(chunk_of(z)), space(space) {}
  T* start_d(int64_t i, int64_t w) const { return space.by_start + by_start(n, i, w) * z.np; }
  T* end_d(int64_t e, int64_t i) const { return space.by_end + by_end(e, i) * z.np; }

  // probability: of each root symbol; sums (nt, pairs): of the rules, added to, times `weight`
  void run(const T* probability, T weight, T* sums, const WordAdjoints<T>& words, int64_t first_word,
           const SpanSink<In, T>& sink) {
    std::fill_n(space.by_start, span_count(n) * z.np, T(0));
    std::fill_n(space.by_end, span_count(n) * z.np, T(0));
    for (int64_t A = 0; A < z.nt; A++)
      if (probability[A] > T(0)) start_d(0, n)[A] = probability[A] / s.at(0, n)[A];
    filled = 0;
    for (int64_t w = n; w >= 2; w--)
      for (int64_t i = 0; i + w <= n; i += chunk) {
        const int64_t count = std::min(chunk, n - w + 1 - i);
        if (filled + count > chunk) add_rules(weight, sums);
        spans(i, w, count, words.pairs + first_word * z.np, sink);
      }
    add_rules(weight, sums);
    std::fill_n(words.pairs + (first_word + n - 1) * z.np, z.np, T(0));
    for (int64_t i = 0; i < n; i++) word_adjoints(i, words, first_word + i);
  }

 private:
  void spans(int64_t i, int64_t w, int64_t count, T* pairs, const SpanSink<In, T>& sink) {
    T *gs = w > 3 ? space.g + filled * z.np : space.scaled, *ms = space.m + filled * z.pairs;
    for (int64_t r = 0; r < count; r++) {
      T *weights = space.inner + r * n, *row = w == 2 ? pairs + (i + r) * z.np : gs + (w > 3 ? r * z.np : 0);
      const Splits<T> split = s.weigh(i + r, w, weights);
      take(i + r, w, split, row, sink);
      if (w > 2) add_words(i + r, w);
      if (w > 3) s.merge(i + r, w, weights, space.scaled, ms + r * z.pairs);
    }
    if (w < 4) return;
    product<PlusTimes, true, T>({count, z.pair_panels(), z.nt}, {gs, z.np, 1}, {rules.pairs, z.pairs},
                                Store<T>{space.up, z.pairs});
    for (int64_t r = 0; r < count; r++) add_children(i + r, w, space.up + r * z.pairs, space.inner + r * n);
    filled += count;
  }

  // g of a span; its probabilities; and in place of D, g times the weights of its outer splits
  void take(int64_t i, int64_t w, const Splits<T>& split, T* row, const SpanSink<In, T>& sink) {
    const SpanFactor<T> f = span_factor(c, z, item, i, w, space.factors);
    const T power = s.exponent(i, w) - split.exponent - rules.common - f.exponent;
    const vec<T> scale = power > -kInf<T> ? power_of_two<T>(-__builtin_convertvector(splat(power), ivec<T>)) : vec<T>{};
    const T* inside = s.at(i, w);
    T *d = start_d(i, w), *e = end_d(i + w, i);
    In* out = sink.out ? sink.out + (i * sink.n + i + w - 1) * sink.labels : nullptr;
    vec<T> sum{};
    for (int64_t p = 0; p < z.nv; p += W) {
      const vec<T> y = load(inside + p), both = load(d + p) + load(e + p);
      const vec<T> v = y > T(0) ? both : vec<T>{};
      if (out && sink.labels > 1) store_as<T>(out + p, y * v * sink.weight, int(std::min<int64_t>(W, z.nt - p)));
      sum += y * v;
      const vec<T> x = v * (load(rules.factor + p) * load(space.factors + p) * scale);
      store(row + p, x);
      store(d + p, x * split.first);
      store(e + p, x * split.last);
    }
    if (out && sink.labels == 1) *out = In(hsum<T>(sum) * sink.weight);
  }
  // the children of the splits with a word on one side
  void add_words(int64_t i, int64_t w) const {
    const T *g_first = start_d(i, w), *g_last = end_d(i + w, i);
    const T *l = hoisted.left + i * z.nt * z.np, *r = hoisted.right + (i + w - 1) * z.nt * z.np;
    T *x = end_d(i + w, i + 1), *y = start_d(i, w - 1);
    auto columns = [&]<int NV>(std::integral_constant<int, NV>, int64_t p) __attribute__((always_inline)) {
      vec<T> dx[2][NV] = {}, dy[2][NV] = {};
      auto add = [&](int q, int64_t A) __attribute__((always_inline)) {
#pragma GCC unroll 2
        for (int j = 0; j < NV; j++) {
          dx[q][j] += load(l + A * z.np + p + j * W) * g_first[A];
          dy[q][j] += load(r + A * z.np + p + j * W) * g_last[A];
        }
      };
      int64_t A = 0;
      for (; A + 2 <= z.nt; A += 2) add(0, A), add(1, A + 1);
      if (A < z.nt) add(0, A);
#pragma GCC unroll 2
      for (int j = 0; j < NV; j++) {
        store(x + p + j * W, load(x + p + j * W) + (dx[0][j] + dx[1][j]));
        store(y + p + j * W, load(y + p + j * W) + (dy[0][j] + dy[1][j]));
      }
    };
    int64_t p = 0;
    for (; p + 2 * W <= z.nv; p += 2 * W) columns(std::integral_constant<int, 2>{}, p);
    if (p < z.nv) columns(std::integral_constant<int, 1>{}, p);
  }
  // the children of the other splits
  void add_children(int64_t i, int64_t w, const T* G, const T* weights) const {
    const int64_t splits = w - 3;
    product<PlusTimes, true, T>({splits, z.n_panels(), z.nt}, {s.at(i, 2), z.np, 1}, {G, z.nv},
                                Add<T>{end_d(i + w, i + 2), z.np, weights, 1});
    transpose(G, z.nv, z.nv, z.nv, space.turned, z.nv);
    product<PlusTimes, true, T>({splits, z.n_panels(), z.nt}, {s.at_end(i + w, i + 2), z.np, 1}, {space.turned, z.nv},
                                Add<T>{start_d(i, 2), z.np, weights, 1});
  }
  void add_rules(T weight, T* sums) {
    if (filled > 0)
      product<PlusTimes, true, T>({z.nt, z.pair_panels(), filled}, {space.g, 1, z.np}, {space.m, z.pairs},
                                  Add<T>{sums, z.pairs, &weight, 0});
    filled = 0;
  }
  void word_adjoints(int64_t i, const WordAdjoints<T>& words, int64_t row) const {
    const int64_t after = std::max<int64_t>(n - i - 2, 0), before = std::max<int64_t>(i - 1, 0);
    product<PlusTimes, true, T>({z.nt, z.n_panels(), after}, {start_d(i, 3), 1, z.np}, {s.at(i + 1, 2), z.np},
                                Store<T>{words.left + row * z.np, words.rows * z.np});
    product<PlusTimes, true, T>({z.nt, z.n_panels(), before}, {end_d(i + 1, 0), 1, z.np}, {s.at_end(i, 0), z.np},
                                Store<T>{words.right + row * z.np, words.rows * z.np});
  }
};

}  // namespace
}  // namespace slv
