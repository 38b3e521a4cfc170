// Low-rank PCFG in exact log space, one item at a time, float64 inside: the last rung of the ladder.
//
// Top down, the mass of a node is divided among its alternatives, each set normalised where it is used: that is exact
// however large the potentials are.
#pragma once

#include "core/semiring.h"
#include "kernels/lowrank.h"

namespace slv {
namespace {

template <class T>
struct LowRankItem {
  const LowRank<T>& p;
  const int64_t len, nt, t, r, s;
  const T *root, *head, *left, *right, *unary, *spans;
  LowRankItem(const LowRank<T>& p, int64_t item)
      : p(p),
        len(p.len(item)),
        nt(p.nt),
        t(p.t),
        r(p.r),
        s(p.s()),
        root(p.root + p.row(p.root_row, item) * nt),
        head(p.head ? p.head + p.row(p.head_row, item) * nt * r : nullptr),
        left(p.left + p.row(p.left_row, item) * r * s),
        right(p.right + p.row(p.right_row, item) * r * s),
        unary(p.unary + item * p.n * t),
        spans(p.spans ? p.spans + p.row(p.spans_row, item) * p.n * p.n * p.labels : nullptr) {}
  double span(int64_t i, int64_t j, int64_t a) const {
    return spans ? double(spans[(i * p.n + j) * p.labels + (p.labels > 1 ? a : 0)]) : 0.0;
  }
};

// Scores of the spans i <= j of one item, in rows (i * len + j).
struct LogChart {
  int64_t len, nt, r;
  Doubles rank, sym, left, right;
  LogChart(int64_t len, int64_t nt, int64_t r)
      : len(len), nt(nt), r(r), rank(len * len * r), sym(len * len * nt), left(len * len * r), right(len * len * r) {}
  int64_t at(int64_t i, int64_t j) const { return i * len + j; }
};
// Elements j.. of a row of potentials plus one of scores.
template <class T>
SLV_INLINE vd added(const T* potential, const double* score, int64_t j, int64_t k) {
  return load_as<double>(potential + j, int(k - j), -kInf<double>) +
         load_n<double>(score + j, int(k - j), -kInf<double>);
}

template <class T>
struct LogInside : LogChart {
  LowRankItem<T> c;
  double log_z = -kInf<double>;
  LogInside(const LowRank<T>& p, int64_t item) : LogChart(p.len(item), p.nt, p.r), c(p, item) {
    for (int64_t w = 1; w <= len && len > 1; w++)
      for (int64_t i = 0; i + w <= len; i++) span(i, i + w - 1);
    if (len < 2) return;
    Doubles top(nt);
    for (int64_t a = 0; a < nt; a++) top[a] = double(c.root[a]) + sym[at(0, len - 1) * nt + a];
    log_z = Log::row(nt, [&](int64_t a, int) { return load_n<double>(&top[a], int(nt - a), -kInf<double>); });
  }
  // children of the symbol row of a span: words have preterminals, wider spans nonterminals
  void span(int64_t i, int64_t j) {
    const int64_t x = at(i, j), k = i == j ? c.t : nt, first = i == j ? nt : 0;
    Doubles word(i == j ? k : 0);
    if (i < j) {
      for (int64_t q = 0; q < r; q += kWidth<double>)
        store_n<double>(&rank[x * r + q], Log::lanes(j - i, [&](int64_t m) { return split(i, i + m, j, q); }),
                        int(r - q));
      for (int64_t a = 0; a < nt; a++) {
        const double m = c.head ? Log::row(r, [&](int64_t q, int) { return added(c.head + a * r, &rank[x * r], q, r); })
                                : rank[x * r + a];
        sym[x * nt + a] = m + c.span(i, j, a);
      }
    }
    for (int64_t y = 0; y < int64_t(word.size()); y++) word[y] = double(c.unary[i * c.t + y]);
    const double* row = i == j ? word.data() : &sym[x * nt];
    for (int64_t q = 0; q < r; q++) {
      const int64_t own = q * c.s + first;
      left[x * r + q] = Log::row(k, [&](int64_t y, int) { return added(c.left + own, row, y, k); });
      right[x * r + q] = Log::row(k, [&](int64_t y, int) { return added(c.right + own, row, y, k); });
    }
  }
  vd split(int64_t i, int64_t k, int64_t j, int64_t q) const {
    return load_n<double>(&left[at(i, k) * r + q], int(r - q), -kInf<double>) +
           load_n<double>(&right[at(k + 1, j) * r + q], int(r - q), -kInf<double>);
  }
};

// out = mass * softmax(scores); zeros where all scores are -inf.
inline void divide(const double* score, int64_t k, double mass, double* out) {
  double most = -kInf<double>, sum = 0;
  for (int64_t j = 0; j < k; j++) most = std::max(most, score[j]);
  for (int64_t j = 0; j < k; j++) sum += out[j] = most > -kInf<double> ? scalar_exp(score[j] - most) : 0.0;
  for (int64_t j = 0; j < k; j++) out[j] = sum > 0 ? out[j] * (mass / sum) : 0.0;
}

template <class T>
struct LogOutside {
  const LogInside<T>& f;
  const LowRankItem<T>& c;
  const int64_t nt, r, s;
  LowRankSums sums;
  Doubles sym, left, right, score, part;  // masses of a span's symbols; of all rows over ranks
  LogOutside(const LogInside<T>& f, const LowRankSums& sums)
      : f(f),
        c(f.c),
        nt(f.nt),
        r(f.r),
        s(c.s),
        sums(sums),
        sym(std::max(nt, c.t)),
        left(f.left.size()),
        right(f.right.size()),
        score(std::max({nt, c.t, r})),
        part(score.size()) {}

  // mass of symbols, from that of the ranks they are children of; k of them, from `first` of the columns
  void symbols(const double* row, int64_t k, int64_t first, int64_t x) {
    for (int64_t q = 0; q < r; q++)
      for (int side = 0; side < 2; side++) {
        const double mass = (side ? right : left)[x * r + q];
        if (!(mass != 0)) continue;
        const T* own = (side ? c.right : c.left) + q * s + first;
        double* sum = (side ? sums.right : sums.left) + q * s + first;
        for (int64_t y = 0; y < k; y++) score[y] = double(own[y]) + row[y];
        divide(score.data(), k, mass, part.data());
        for (int64_t y = 0; y < k; y++) sym[y] += part[y], sum[y] += part[y];
      }
  }
  // and down to the ranks of both children
  void down(int64_t i, int64_t j) {
    const int64_t x = f.at(i, j);
    Doubles rank(r);
    for (int64_t a = 0; a < nt; a++) {
      if (!(sym[a] != 0)) continue;
      if (!c.head) {
        rank[a] = sym[a];
        continue;
      }
      for (int64_t q = 0; q < r; q++) score[q] = double(c.head[a * r + q]) + f.rank[x * r + q];
      divide(score.data(), r, sym[a], part.data());
      for (int64_t q = 0; q < r; q++) rank[q] += part[q], sums.head[a * r + q] += part[q];
    }
    for (int64_t q = 0; q < r; q += kWidth<double>) {
      const int live = int(r - q);
      vd top = splat(-kInf<double>), sum{};
      for (int64_t k = i; k < j; k++) top = vmax(top, f.split(i, k, j, q));
      top = top > -kInf<double> ? top : vd{};
      for (int64_t k = i; k < j; k++) sum += exp<double>(f.split(i, k, j, q) - top);
      const vd scale = sum > 0.0 ? load_n<double>(&rank[q], live, 0) / sum : vd{};
      for (int64_t k = i; k < j; k++) {
        const vd mass = exp<double>(f.split(i, k, j, q) - top) * scale;
        double *l = &left[f.at(i, k) * r + q], *h = &right[f.at(k + 1, j) * r + q];
        store_n<double>(l, load_n<double>(l, live, 0) + mass, live);
        store_n<double>(h, load_n<double>(h, live, 0) + mass, live);
      }
    }
  }
};

// Weighted marginals of one item; its rows of root, unary and spans are zeros on entry.
template <class T>
void lowrank_marginals_log(const LowRank<T>& p, int64_t item, double weight, const LowRankSink<T>& out,
                           const LowRankSums& sums) {
  const LogInside<T> f(p, item);
  if (!(f.log_z > -kInf<double>)) return;
  LogOutside<T> o(f, sums);
  const int64_t len = f.len, nt = p.nt;
  for (int64_t w = len; w >= 1; w--)
    for (int64_t i = 0; i + w <= len; i++) {
      const int64_t j = i + w - 1, x = f.at(i, j);
      std::fill(o.sym.begin(), o.sym.end(), 0.0);
      if (w == 1) {
        const T* word = o.c.unary + i * p.t;
        const Doubles row(word, word + p.t);
        o.symbols(row.data(), p.t, nt, x);
        for (int64_t y = 0; y < p.t; y++) out.unary[(item * p.n + i) * p.t + y] = T(o.sym[y]);
        continue;
      }
      if (w == len) {
        for (int64_t a = 0; a < nt; a++) o.score[a] = double(o.c.root[a]) + f.sym[x * nt + a];
        divide(o.score.data(), nt, weight, o.sym.data());
        for (int64_t a = 0; a < nt; a++) out.root[item * nt + a] = T(o.sym[a]);
      } else {
        o.symbols(&f.sym[x * nt], nt, 0, x);
      }
      double total = 0;
      for (int64_t a = 0; out.spans && a < nt; a++) {
        T* to = out.spans + ((item * p.n + i) * p.n + j) * out.labels;
        total += o.sym[a];
        if (out.labels > 1)
          to[a] = T(o.sym[a]);
        else
          *to = T(total);
      }
      o.down(i, j);
    }
}

}  // namespace
}  // namespace slv
