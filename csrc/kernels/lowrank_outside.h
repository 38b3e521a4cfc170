// Outside pass and expected counts of a low-rank PCFG, from the chart of the inside pass (see lowrank_inside.h).
//
// Every outside value is the derivative of log Z by the inside value, at the scale of that value: their product is a
// probability. Where the inside value is 0 the outside value is not needed and is set to 0. All sums are gathered, so
// their order is fixed. The counts are sums over spans of outer products, formed once for all spans of an item.
#pragma once
#include "kernels/lowrank_inside.h"
#include "kernels/lowrank_outer.h"

namespace slv {
namespace {

template <class In, class T>
struct Outside {
  static constexpr int W = kWidth<T>;
  Inside<In, T>& f;  // with a chart
  const LowRank<In>& p;
  const Grammar<T>& g;
  const LowRankSink<In>& out;
  const int64_t leaves, inner, spans, all;
  const double* weight;      // of the items of the block
  T *sides, *top, *rank;     // [2 pr][all] left and right rows; [ps][inner] rows of states; rows `before`
  T* mass = nullptr;         // [ps][row] probabilities of the spans of a width
  T* pair_counts = nullptr;  // [pr][2 pr W][lane] where the head is folded
  Pairs<T> pairs;

  Outside(Inside<In, T>& f, const LowRankSink<In>& out, const double* weight)
      : f(f),
        p(f.p),
        g(f.g),
        out(out),
        leaves(f.leaves),
        inner(f.inner),
        spans(f.spans),
        all(f.spans),
        weight(weight),
        pairs(f.longest) {}
  int64_t mass_size() const { return out.spans ? f.rows(2) * g.ps * W : 0; }
  int64_t pairs_size() const { return g.folded ? g.pr * g.deep() * W : 0; }
  int64_t scratch() const {
    return Scratch::bytes<T>(2 * g.pr * all * W) + Scratch::bytes<T>(g.ps * inner * W) +
           Scratch::bytes<T>(g.pr * spans * W) + Scratch::bytes<T>(mass_size()) + Scratch::bytes<T>(pairs_size());
  }
  void bind(Scratch& s) {
    sides = s.take<T>(2 * g.pr * all * W);
    top = s.take<T>(g.ps * inner * W);
    rank = s.take<T>(g.pr * spans * W);
    mass = s.take<T>(mass_size());
    pair_counts = s.take<T>(pairs_size());
  }

  void run() {
    FlushDenormals flush;
    for (int64_t w = f.longest; w >= 2; w--) {
      const int64_t inside = f.active(w + 1), rows = f.start(w, inside);
      gather(w, inside);
      f.weigh_spans(w);
      symbols(w, rows);
      for (int64_t c = inside; c < f.active(w); c++) whole(w, c);
      ranks(w);
      if (out.spans) deliver_spans(w);
    }
    gather(1, f.active(1));
    words();
    if (out.sums.left) all_counts();
  }

  int64_t side_row(int64_t w, int64_t x) const { return w == 1 ? x : leaves + f.first[w] + x; }
  // l and r of the spans of a width, from the wider spans they are children of
  void gather(int64_t w, int64_t end) {
    f.each(w, end, [&](int64_t x, int64_t c, int64_t i, int64_t j) {
      T* to = sides + side_row(w, x) * W;
      const int64_t own = f.before(c, i, j), mine = f.behind(c, i, j), n = f.len[c];
      pairs.count = n - 1 - j;
      for (int64_t t = 0, a = own + 1, b = f.behind(c, j + 1, j + 1); t < pairs.count; t++) {
        pairs.a[t] = a++;
        pairs.b[t] = b;
        b += j + t + 2;
      }
      if (pairs.count)
        weigh(f.right_before + f.before(c, j + 1, j + 1), f.rank_before + f.before(c, i, j + 1), f.left_before[own]);
      sum_pairs<false>(pairs, g.pr, rank, f.right, [&](int64_t q, vec<T> v, ivec<T>) __attribute__((always_inline)) {
        const vec<T> l = load(f.left + own * f.stride() + q * W);
        store(to + q * all * W, l > T(0) ? v * f.left_shift[own] : vec<T>{});
      });
      pairs.count = i;
      for (int64_t t = 0, a = f.before(c, 0, j), b = f.before(c, 0, i - 1); t < i; t++) {
        pairs.a[t] = a;
        pairs.b[t] = b;
        a += n - 1 - t, b += n - 1 - t;
      }
      if (i) weigh(f.left_behind + f.behind(c, 0, i - 1), f.rank_behind + f.behind(c, 0, j), f.right_before[own]);
      sum_pairs<false>(pairs, g.pr, rank, f.left, [&](int64_t q, vec<T> v, ivec<T>) __attribute__((always_inline)) {
        const vec<T> r = load(f.right + mine * f.stride() + q * W);
        store(to + (g.pr + q) * all * W, r > T(0) ? v * f.right_shift[own] : vec<T>{});
      });
    });
  }
  // 2^(sibling + own - parent): what a split weighs at the scales of the rows
  void weigh(const double* sibling, const double* parent, double own) {
    pair_weights<-1>(sibling, parent, own, pairs.count, pairs.weight.data());
  }
  SLV_INLINE void keep(int64_t w, int64_t rows, int64_t x, int64_t a, vec<T> v) {
    const int64_t at = (a * inner + f.first[w] + x) * W;
    const vec<T> s = load(f.sym + at), d = s > T(0) ? v : vec<T>{};
    if (out.spans) store(mass + (a * rows + x) * W, s * d);
    store(top + at, d * f.factor_at(x, a, rows));
  }
  // s of the spans that are children of wider ones
  void symbols(int64_t w, int64_t rows) {
    const int64_t k = 2 * g.pr * W, width_rows = f.rows(w);
    if (rows == 0) return;
    multiply_panels<PlusTimes>(rows, k, sides + side_row(w, 0) * W, all * W, Matrix<T>{g.sides_inner, k * W}, g.ps,
                               [&](int64_t x, int64_t a, vec<T> v)
                                   __attribute__((always_inline)) { keep(w, width_rows, x, a, v); });
  }
  // s of an item's whole span: the probabilities of its symbols over the inside values
  void whole(int64_t w, int64_t c) {
    const int64_t x = f.start(w, c), rows = f.rows(w);
    for (int64_t q = 0; q < 2 * g.pr; q++) store(sides + (q * all + side_row(w, x)) * W, vec<T>{});  // no one's child
    const T* s = f.sym + (f.first[w] + x) * W;
    const Doubles score = f.top_scores(c);
    Doubles mass(g.states);
    double most = -kInf<double>, sum = 0;
    for (int64_t a = 0; a < g.states; a++) {
      const double v = double(s[a / W * inner * W + a % W]);
      mass[a] = v > 0 ? score[a] + scalar_log(v) : -kInf<double>;
      most = std::max(most, mass[a]);
    }
    for (double& v : mass) sum += v = most > -kInf<double> ? scalar_exp(v - most) : 0.0;
    for (double& v : mass) v = sum > 0 ? v / sum : 0.0;
    for (int64_t a = 0; a < g.ps * W; a += W) {
      vec<T> d{};
      for (int64_t l = 0; l < W && a + l < g.states; l++)
        d[l] = mass[a + l] > 0 ? T(mass[a + l] / double(s[a / W * inner * W + l])) : T(0);
      keep(w, rows, x, a / W, d);
    }
    if (!f.bad[c]) roots(c, score, mass);
  }
  // The counts at the top: the probabilities of the root's symbols, and where the head is folded, of their ranks.
  void roots(int64_t c, const Doubles& score, const Doubles& mass) {
    In* to = out.root + f.items[c] * p.nt;
    for (int64_t a = 0; a < p.nt && !g.folded; a++) to[a] = In(weight[c] * mass[a]);
    if (!g.folded) return;
    const In* root = p.root + p.row(p.root_row, f.items[c]) * p.nt;
    const double most = *std::max_element(score.begin(), score.end());
    Doubles share(g.r);
    for (int64_t q = 0; q < g.r; q++) share[q] = mass[q] > 0 ? weight[c] * mass[q] * scalar_exp(most - score[q]) : 0.0;
    for (int64_t a = 0; a < p.nt; a++) {
      const double w = most > -kInf<double> ? scalar_exp(double(root[a]) - most) : 0.0;
      double* head = out.sums.head ? out.sums.head + c * out.head_stride + a * g.r : nullptr;
      double sum = 0;
      for (int64_t q = 0; q < g.r; q++) {
        const double x = share[q] * (w * double(g.head_down[(q / W * p.nt + a) * W + q % W]));
        sum += x;
        if (head) head[q] += x;
      }
      to[a] = In(sum);
    }
  }
  // m, from s
  void ranks(int64_t w) {
    const int64_t rows = f.rows(w);
    Vector<int64_t> at(rows);
    f.each(w, f.active(w), [&](int64_t x, int64_t c, int64_t i, int64_t j) { at[x] = f.before(c, i, j) * f.stride(); });
    const T* from = top + f.first[w] * W;
    if (g.has_head) {
      const T* m = f.rank + f.first[w] * W;
      multiply_panels<PlusTimes>(rows, g.states, from, inner * W, Matrix<T>{g.head_down, g.states * W}, g.pr,
                                 [&](int64_t x, int64_t q, vec<T> v) __attribute__((always_inline)) {
                                   const vec<T> y = load(m + (q * inner + x) * W);
                                   store(rank + at[x] + q * W, y > T(0) ? v : vec<T>{});
                                 });
    } else {
      for (int64_t q = 0; q < g.pr; q++)
        for (int64_t x = 0; x < rows; x++) store(rank + at[x] + q * W, load(from + (q * inner + x) * W));
    }
  }
  void deliver_spans(int64_t w) {
    const int64_t rows = f.rows(w);
    f.each(w, f.active(w), [&](int64_t x, int64_t c, int64_t i, int64_t j) {
      if (f.bad[c]) return;
      In* to = out.spans + ((f.items[c] * p.n + i) * p.n + j) * out.labels;
      const T scale = T(weight[c]);
      vec<T> sum{};
      for (int64_t a = 0; a < g.ps; a++) {
        const vec<T> v = load(mass + (a * rows + x) * W) * scale;
        sum += v;
        if (out.labels > 1) store_as<T>(to + a * W, v, int(p.nt - a * W));
      }
      if (out.labels == 1) *to = In(hsum<T>(sum));
    });
  }
  void words() {
    const int64_t k = 2 * g.pr * W;
    Vector<In*> to(leaves);
    Vector<T> scale(leaves);
    f.each(1, f.active(1), [&](int64_t x, int64_t c, int64_t i, int64_t) {
      to[x] = f.bad[c] ? nullptr : out.unary + (f.items[c] * p.n + i) * p.t;
      scale[x] = T(weight[c]);
    });
    multiply_panels<PlusTimes>(leaves, k, sides, all * W, Matrix<T>{g.sides_leaf, k * W}, g.pt,
                               [&](int64_t x, int64_t y, vec<T> v) __attribute__((always_inline)) {
                                 if (!to[x]) return;
                                 const vec<T> u = load(f.word + (y * leaves + x) * W);
                                 store_as<T>(to[x] + y * W, (u > T(0) ? u * v : vec<T>{}) * scale[x], int(p.t - y * W));
                               });
  }
  // Adds an item's weight times v to n float64 sums; not inlined, as it stands at the end of many tiles.
  __attribute__((noinline)) static void add(double* to, vec<T> v, double weight, int64_t n) {
    add_as<T>(to, v, n, weight);
  }
  SLV_INLINE static vec<T> counted(vec<T> weight, vec<T> x) { return weight > T(0) ? weight * x : vec<T>{}; }
  double* side(int64_t which, int64_t c) const {
    return (which ? out.sums.right : out.sums.left) + c * out.side_stride;
  }
  // Items with sums of their own one by one; of those that share sums, neighbours of one weight together.
  void all_counts() {
    const bool shared = out.head_stride == 0 && out.side_stride == 0;
    for (int64_t c = 0, end; c < f.count && f.len[c] > 0; c = end) {
      end = c + 1;
      if (f.bad[c]) continue;
      while (shared && end < f.count && !f.bad[end] && f.len[end] > 0 && weight[end] == weight[c]) end++;
      counts(c, end);
    }
  }
  // Expected counts of the items from c to `end`, times their weight.
  void counts(int64_t c, int64_t end) {
    Vector<Stretch> nodes, words{{f.lead[c], f.lead[end] - f.lead[c]}};
    for (int64_t w = 2; w <= f.len[c]; w++)
      nodes.push_back({f.first[w] + f.start(w, c), f.start(w, std::min(end, f.active(w))) - f.start(w, c)});
    const int64_t s = p.s();
    if (g.has_head) {
      double* head = out.sums.head + c * out.head_stride;
      outer_rows(nodes, g.nt, top, inner * W, g.pr, f.rank, inner * W,
                 [&](int64_t a, int64_t q, vec<T> v) __attribute__((always_inline)) {
                   add(head + a * g.r + q * W, counted(g.head_at(a, q), v), weight[c], g.r - q * W);
                 });
    }
    for (int64_t which = 0; which < 2; which++) {
      const T* x = sides + which * g.pr * all * W;
      const int64_t row = which * g.pr * W;
      double* to = side(which, c);
      outer_rows(words, g.r, x, all * W, g.pt, f.word, leaves * W,
                 [&](int64_t q, int64_t y, vec<T> v) __attribute__((always_inline)) {
                   add(to + q * s + g.nt + y * W, counted(g.leaf_at(row + q, y), v), weight[c], g.t - y * W);
                 });
      if (g.folded) continue;
      outer_rows(nodes, g.r, x + leaves * W, all * W, g.pn, f.sym, inner * W,
                 [&](int64_t q, int64_t a, vec<T> v) __attribute__((always_inline)) {
                   add(to + q * s + a * W, counted(g.inner_at(row + q, a), v), weight[c], g.nt - a * W);
                 });
    }
    if (g.folded) unfolded_counts(c, nodes);
  }
  // Counts of pairs of ranks (a rank, the rank of its child) come apart into those of the head and of the sides.
  void unfolded_counts(int64_t c, const Vector<Stretch>& nodes) {
    const int64_t deep = g.deep(), s = p.s();
    std::fill(pair_counts, pair_counts + g.pr * deep * W, T(0));
    for (int64_t which = 0; which < 2; which++)
      outer_rows(nodes, g.r, sides + (which * g.pr * all + leaves) * W, all * W, g.pr, f.sym, inner * W,
                 [&](int64_t q, int64_t p, vec<T> v) __attribute__((always_inline)) {
                   T* to = pair_counts + (p * deep + which * g.pr * W + q) * W;
                   store(to, load(to) + v);
                 });
    double* head = out.sums.head + c * out.head_stride;
    multiply_panels<PlusTimes>(g.nt, deep, g.plain_up, g.nt * W, Matrix<T>{pair_counts, deep * W}, g.pr,
                               [&](int64_t a, int64_t q, vec<T> v) __attribute__((always_inline)) {
                                 add(head + a * g.r + q * W, counted(g.head_at(a, q), v), weight[c], g.r - q * W);
                               });
    multiply_panels<PlusTimes>(deep, g.r, pair_counts, deep * W, Matrix<T>{g.head_up, g.r * W}, g.pn,
                               [&](int64_t row, int64_t a, vec<T> v) __attribute__((always_inline)) {
                                 const int64_t which = row >= g.pr * W, q = row - which * g.pr * W;
                                 if (q < g.r)
                                   add(side(which, c) + q * s + a * W, counted(g.plain_at(row, a), v), weight[c],
                                       g.nt - a * W);
                               });
  }
};

}  // namespace
}  // namespace slv
