// Inside passes of the sparse PCFG over the symbols that are alive, one sentence at a time, float64.
//
// A cell holds the live symbols of a span, each a number relative to one power of two. Such a cell is computed if none
// of its terms can underflow: if the product of the least weights of its children and rules, its scale, and then every
// symbol's sum are above kLeast. Then 0 means impossible. Otherwise the cell is `wide`: exact log space, as are all
// cells above it.
#pragma once
#include "kernels/sparse_chart.h"

namespace slv {
namespace {

constexpr double kLeast = 1e-250, kMost = 1e30;  // what is lost under DBL_MIN is 1e-28 of a sum, or less
constexpr double kMildScore = 3e5;               // a larger number's exponential is not exact to the last bits
constexpr double kMildRange = 500;               // of the scores of rules

// S: SparseSum, or SparseMax, in which every cell is in logarithms and nothing is ever too small.
template <class S>
class SparseInside {
  static constexpr bool kScaled = std::is_same_v<S, SparseSum>;

 public:
  SparseChart chart;

  SparseInside(const SparseGrammar& g, const SparseItem& x, const double* binary, const double* up,
               const SparseWeights* w)
      : g_(g),
        x_(x),
        binary_(binary),
        up_(up),
        w_(w),
        sum_(g.symbols, S::zero),
        pair_(g.pairs, S::zero),
        right_(x.length * g.symbols, S::zero),
        live_(g.symbols),
        seen_(g.symbols) {
    chart.cells.resize(x.length * (x.length + 1) / 2, SparseCell{});
  }

  void run() {
    for (int64_t j = 0; j < x_.length; j++) {
      for (int64_t i = j; i >= 0; i--) {
        SparseCell& c = chart.cell(i, j);
        c.begin = c.end = int32_t(chart.at.size());
        if (!(i == j ? leaves(c, i) : splits(c, i, j))) wide(c, i, j);
        for (int32_t e = c.begin; (!kScaled || !c.wide) && e < c.end; e++) right(i)[chart.at[e]] = chart.value[e];
      }
      for (int64_t i = 0; i <= j; i++) {
        const SparseCell& c = chart.cell(i, j);
        for (int32_t e = c.begin; e < c.end; e++) right(i)[chart.at[e]] = S::zero;
      }
    }
  }

 private:
  double* right(int64_t i) { return right_.data() + i * g_.symbols; }  // of the cells that end where the pass is
  int64_t preterminals() const { return g_.symbols - g_.nonterminals; }

  // False: the cell must be wide.
  bool leaves(SparseCell& c, int64_t i) {
    const double* u = x_.unary + i * preterminals();
    double top = kNone, largest = 0;
    for (int64_t t = 0; t < preterminals(); t++) {
      top = std::max(top, u[t]);
      if (u[t] > kNone) largest = std::max(largest, std::abs(u[t]));
    }
    if (top == kNone) return true;
    if (kScaled && !(w_->mild && largest <= kMildScore)) return false;
    const double exponent = kScaled ? nearest_exponent(top) : 0;
    for (int64_t t = 0; t < preterminals(); t++)
      if (u[t] > kNone) {
        const int64_t a = g_.place[g_.nonterminals + t];
        sum_[a] = kScaled ? scalar_exp_scaled(u[t], exponent) : u[t];
        live_.set(a);
      }
    return close(c, i, i, exponent);
  }

  bool splits(SparseCell& c, int64_t i, int64_t j) {
    const double cell = cell_score(x_, i, j);
    if (cell == kNone) return true;
    double exponent = 0;
    if (kScaled && !(std::abs(cell) <= kMildScore && scale(i, j, exponent))) return false;
    const SparseFactor own(kScaled ? cell : 0);
    for (int64_t k = i; k < j; k++) {
      const SparseCell &l = chart.cell(i, k), &r = chart.cell(k + 1, j);
      if (l.empty() || r.empty()) continue;
      const double factor = kScaled ? scalar_power_of_two(l.exponent + r.exponent - exponent) : S::one;
      const double* from = right(k + 1);
      for (int32_t e = l.begin; e < l.end; e++) {
        const int64_t y = chart.at[e], begin = g_.left[y], count = g_.left[y + 1] - begin;
        if (count == 0) continue;
        seen_.set(y);
        const double v = S::times(chart.value[e], factor);
        double* pair = pair_.data() + begin;
        const int32_t* z = g_.right + begin;
        for (int64_t p = 0; p < count; p++) S::add(pair[p], S::times(v, from[z[p]]));
      }
    }
    seen_.drain([&](int64_t y) {
      for (int32_t p = g_.left[y]; p < g_.left[y + 1]; p++) {
        const double v = pair_[p];
        pair_[p] = S::zero;
        if (v == S::zero) continue;
        for (int32_t q = g_.uses[p]; q < g_.uses[p + 1]; q++) {
          const int64_t a = g_.parent[q];
          S::add(sum_[a], S::times(S::times(binary_[q], v), kScaled ? own.value : cell));
          if (sum_[a] != S::zero) live_.set(a);
        }
      }
    });
    return close(c, i, j, exponent + (kScaled ? w_->exponent + own.exponent : 0));
  }

  // The scale of a cell: the largest of its splits'. False where a product might underflow.
  bool scale(int64_t i, int64_t j, double& exponent) const {
    if (!w_->mild) return false;
    exponent = kNone;
    for (int64_t k = i; k < j; k++) {
      const SparseCell &l = chart.cell(i, k), &r = chart.cell(k + 1, j);
      if (l.empty() || r.empty()) continue;
      if (l.wide || r.wide) return false;
      exponent = std::max(exponent, l.exponent + r.exponent);
    }
    if (exponent == kNone) exponent = 0;
    for (int64_t k = i; k < j; k++) {
      const SparseCell &l = chart.cell(i, k), &r = chart.cell(k + 1, j);
      if (l.empty() || r.empty()) continue;
      const double factor = scalar_power_of_two(l.exponent + r.exponent - exponent);
      if (!(l.least * factor * r.least * w_->least >= kLeast)) return false;
    }
    return true;
  }

  // Unary rules and span scores, then the cell's symbols in order. False, and nothing done, where a value is out of
  // range.
  bool close(SparseCell& c, int64_t i, int64_t j, double exponent) {
    bool fits = true;
    double least = kMost, most = 0;
    live_.drain([&](int64_t y) {
      double v = sum_[y];
      sum_[y] = S::zero;
      if (x_.spans) {
        const double s = node_score(g_, x_, i, j, y);
        if (s == kNone) return;
        v = S::times(v, kScaled ? scalar_exp(s) : s);
      }
      if (kScaled && !(v >= kLeast && v <= kMost)) fits = false;
      if (!kScaled && v == kNone) return;
      least = std::min(least, v), most = std::max(most, v);
      chart.at.push(int32_t(y));
      chart.value.push(v);
      for (int32_t u = g_.up[y]; u < g_.up[y + 1]; u++)
        if (up_[u] != S::zero) {
          S::add(sum_[g_.up_parent[u]], S::times(up_[u], v));
          live_.set(g_.up_parent[u]);
        }
    });
    if (!fits) {
      chart.at.truncate(c.begin), chart.value.truncate(c.begin);
      return false;
    }
    c.end = int32_t(chart.at.size());
    if (!kScaled || c.empty()) return true;
    const int shift = scalar_exponent(most);
    const double factor = scalar_power_of_two(-shift);
    for (int32_t e = c.begin; e < c.end; e++) chart.value[e] *= factor;
    c.exponent = exponent + shift, c.least = least * factor, c.wide = false;
    return true;
  }

  // The same in log space.
  void wide(SparseCell& c, int64_t i, int64_t j) {
    SparseLogSums sums(g_.symbols);
    auto add = [&](int64_t a, double v) {
      sums.add(a, v);
      if (v > kNone) live_.set(a);
    };
    if (i == j) {
      for (int64_t t = 0; t < preterminals(); t++) add(g_.place[g_.nonterminals + t], x_.unary[i * preterminals() + t]);
    } else {
      const double cell = cell_score(x_, i, j);
      SparseSplits(g_, chart).each(i, j, [&](int64_t k, int32_t l, int32_t r, int32_t q) {
        add(g_.parent[q], cell + split_score(g_, x_, chart, i, j, k, l, r, q));
      });
    }
    live_.drain([&](int64_t y) {
      const double v = sums.total(y) + node_score(g_, x_, i, j, y);
      if (!(v > kNone)) return;
      chart.at.push(int32_t(y));
      chart.value.push(v);
      for (int32_t u = g_.up[y]; u < g_.up[y + 1]; u++) add(g_.up_parent[u], x_.scores[g_.up_rule[u]] + v);
    });
    c.end = int32_t(chart.at.size());
    c.wide = true;
  }

  const SparseGrammar& g_;
  const SparseItem& x_;
  const double *binary_, *up_;
  const SparseWeights* w_;
  Pile<double> sum_, pair_, right_;
  LiveSet live_, seen_;
};

inline SparseChart sum_chart(const SparseGrammar& g, const SparseItem& x, const SparseWeights& w) {
  SparseInside<SparseSum> pass(g, x, w.binary, w.up, &w);
  pass.run();
  return std::move(pass.chart);
}

// The top of the chart: each nonterminal that can be the root, and its score relative to `shift`.
struct SparseTops {
  struct Top {
    int32_t entry;
    double score;
  };
  Pile<Top> tops;
  double best = kNone, sum = 0, shift = 0;
  SparseTops(const SparseGrammar& g, const SparseItem& x, const SparseChart& chart) {
    if (x.length == 0) return;
    const SparseCell& c = chart.cell(0, x.length - 1);
    shift = c.wide ? 0 : c.exponent * kLn2;
    for (int32_t e = c.begin; e < c.end; e++) {
      const int64_t symbol = g.symbol[chart.at[e]];
      if (symbol >= g.nonterminals) continue;
      const double s = x.root[symbol] + (c.wide ? chart.value[e] : scalar_log(chart.value[e]));
      if (!(s > kNone)) continue;
      tops.push({e, s});
      best = std::max(best, s);
    }
    for (int64_t t = 0; t < tops.size(); t++) sum += weight(t);
  }
  double weight(int64_t t) const { return scalar_exp(tops[t].score - best); }
  double log_partition() const { return sum > 0 ? shift + best + scalar_log(sum) : kNone; }
};

}  // namespace
}  // namespace slv
