// Where things lie in the chart of a block of items that share a grammar.
//
// Rows of spans lie by width, then item, then first word, [panel][row][lane]: one product a width for all items. The
// rows that are summed over splits are each in one piece, [row][rank], and lie by first word, then last (`before`), or
// by last word, then first (`behind`), so that one side of each sum is one stretch of memory.
#pragma once

#include "kernels/lowrank_grammar.h"

namespace slv {
namespace {

template <class In, class T>
struct Block {
  static constexpr int W = kWidth<T>;
  const LowRank<In>& p;
  const Grammar<T>& g;
  const int64_t *items, count;
  int64_t len[kLowRankItems], lead[kLowRankItems + 1] = {}, triangle[kLowRankItems + 1] = {};  // sums before an item
  int64_t longest = 0, leaves = 0, inner = 0, spans = 0;  // rows: words, spans of two words or more, both
  Vector<int64_t> first;                                  // inner row at which a width starts
  // the chart
  T *rank, *sym, *word;  // inner rows: over ranks (null without a head), over nonterminals; of words
  T *left, *right;       // rows `before` and `behind`, over ranks
  double *left_before, *left_behind, *right_before, *right_behind, *rank_before, *rank_behind;  // powers of two
  T *left_shift, *right_shift;  // rows `before`: what left and right were multiplied with
  double* meta;                 // two for each item: log Z, and whether it was done on another rung

  Block(const LowRank<In>& p, const Grammar<T>& g, const int64_t* items, int64_t count)
      : p(p), g(g), items(items), count(count) {
    for (int64_t c = 0; c < count; c++) {
      len[c] = p.len(items[c]) > 1 ? p.len(items[c]) : 0;
      lead[c + 1] = lead[c] + len[c];
      triangle[c + 1] = triangle[c] + len[c] * (len[c] + 1) / 2;
    }
    longest = len[0], leaves = lead[count], spans = triangle[count], inner = spans - leaves;
    first.assign(longest + 2, 0);
    for (int64_t w = 2; w <= longest; w++) first[w + 1] = first[w] + rows(w);
  }
  int64_t chart_size() const {
    const int64_t vectors = inner * (g.ps + (g.has_head ? g.pr : 0)) + leaves * g.pt + 2 * spans * g.pr;
    return kLowRankMeta * count + vectors * W + 6 * spans * int64_t(sizeof(double) / sizeof(T)) + 2 * spans;
  }
  void bind(T* chart) {
    auto take = [&chart](int64_t n) { return std::exchange(chart, chart + n); };
    meta = reinterpret_cast<double*>(take(kLowRankMeta * count));
    rank = g.has_head ? take(g.pr * inner * W) : nullptr;
    sym = take(g.ps * inner * W);
    word = take(g.pt * leaves * W);
    left = take(g.pr * spans * W);
    right = take(g.pr * spans * W);
    double* scale = reinterpret_cast<double*>(take(6 * spans * int64_t(sizeof(double) / sizeof(T))));
    left_before = scale, left_behind = scale + spans, right_before = scale + 2 * spans;
    right_behind = scale + 3 * spans, rank_before = scale + 4 * spans, rank_behind = scale + 5 * spans;
    left_shift = take(spans);
    right_shift = take(spans);
  }
  // items that have spans of this width; how many such spans, and at which of them an item starts
  int64_t active(int64_t w) const {
    int64_t c = count;
    while (c > 0 && len[c - 1] < w) c--;
    return c;
  }
  int64_t rows(int64_t w) const { return start(w, active(w)); }
  int64_t start(int64_t w, int64_t c) const { return lead[c] - c * (w - 1); }
  int64_t stride() const { return g.pr * W; }  // of rows over ranks in one piece
  int64_t before(int64_t c, int64_t i, int64_t j) const { return triangle[c] + i * len[c] - i * (i - 1) / 2 + j - i; }
  int64_t behind(int64_t c, int64_t i, int64_t j) const { return triangle[c] + j * (j + 1) / 2 + i; }
  // visit(row, item, i, j) for the spans of a width, of the items before `end`
  template <class F>
  SLV_INLINE void each(int64_t w, int64_t end, F visit) const {
    for (int64_t c = 0, x = 0; c < end; c++)
      for (int64_t i = 0; i + w <= len[c]; i++) visit(x++, c, i, i + w - 1);
  }
};

// The pairs of rows that are summed for one span, and their weights.
template <class T>
struct Pairs {
  Vector<int64_t> a, b;
  Vector<T> weight;
  int64_t count = 0;
  explicit Pairs(int64_t n) : a(n), b(n), weight(n + kWidth<double>) {}
};
// What stands for the power of two of a row of zeros: finite, since a chart is compared bit by bit.
constexpr double kNoPower = -1e300;
// 2^(a + Sign b + shift), 0 where that is too small
template <int Sign, class T>
void pair_weights(const double* a, const double* b, double shift, int64_t n, T* out) {
  constexpr int kMost = kBias<T> - 1;
  for (int64_t t = 0; t < n; t += kWidth<double>) {
    const int live = int(n - t);
    vec<double> d = load_n<double>(a + t, live, 0) + double(Sign) * load_n<double>(b + t, live, 0) + shift;
    d = d < double(kMost) ? d : splat(double(kMost));
    vec<double> scale = (vec<double>)((ivec<double>)(d + (kMagic<double> + 1023.0)) << 52);
    store_as<double>(out + t, d > double(1 - kBias<T>) ? scale : vec<double>{}, live);
  }
}
// to(panel, sum over pairs of a(row) * b(row) * weight, whether some pair was not 0)
template <bool Wide, class T, class F>
SLV_INLINE void sum_pairs(const Pairs<T>& pairs, int64_t panels, const T* a, const T* b, F to) {
  constexpr int W = kWidth<T>;
  const int64_t stride = panels * W;
  auto run = [&]<int N>(std::integral_constant<int, N>, int64_t p) __attribute__((always_inline)) {
    vec<T> sum[N] = {};
    ivec<T> some[N] = {};
    const T *x = a + p * W, *y = b + p * W;
    for (int64_t t = 0; t < pairs.count; t++) {
      const T *xt = x + pairs.a[t] * stride, *yt = y + pairs.b[t] * stride;
      const vec<T> w = splat(pairs.weight[t]);
#pragma GCC unroll 8
      for (int v = 0; v < N; v++) {
        const vec<T> u = load(xt + v * W), z = load(yt + v * W);
        sum[v] += (u * z) * w;
        if constexpr (Wide) some[v] |= (u > T(0)) & (z > T(0));
      }
    }
#pragma GCC unroll 8
    for (int v = 0; v < N; v++) to(p + v, sum[v], some[v]);
  };
  int64_t p = 0;
  for (; p + 8 <= panels; p += 8) run(std::integral_constant<int, 8>{}, p);
  if (p + 4 <= panels) run(std::integral_constant<int, 4>{}, p), p += 4;
  if (p + 3 <= panels) run(std::integral_constant<int, 3>{}, p), p += 3;
  if (p + 2 <= panels) run(std::integral_constant<int, 2>{}, p), p += 2;
  if (p < panels) run(std::integral_constant<int, 1>{}, p);
}

}  // namespace
}  // namespace slv
