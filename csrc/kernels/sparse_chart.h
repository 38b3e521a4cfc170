// The chart of the sparse PCFG: the symbols that are alive on a span, and what its passes have in common.
#pragma once
#include <algorithm>

#include "core/semiring.h"
#include "kernels/sparse_lists.h"
#include "kernels/sparse_pcfg.h"

namespace slv {
namespace {

struct SparseCell {
  int32_t begin = 0, end = 0;  // of its symbols, by place ascending
  bool wide = true;            // values are logarithms; otherwise to be multiplied by 2^exponent
  double exponent = 0, least = 0;
  bool empty() const { return begin == end; }
};

struct SparseChart {
  Pile<SparseCell> cells;
  Pile<int32_t> at;
  Pile<double> value;
  static int64_t number(int64_t i, int64_t j) { return j * (j + 1) / 2 + i; }
  SparseCell& cell(int64_t i, int64_t j) { return cells[number(i, j)]; }
  const SparseCell& cell(int64_t i, int64_t j) const { return cells[number(i, j)]; }
  double log_value(const SparseCell& c, int64_t e) const {
    return c.wide ? value[e] : c.exponent * kLn2 + scalar_log(value[e]);
  }
};

struct SparseSum {
  static constexpr double zero = 0, one = 1;
  SLV_INLINE static double times(double a, double b) { return a * b; }
  SLV_INLINE static void add(double& s, double x) { s += x; }
};
struct SparseMax {
  static constexpr double zero = kNone, one = 0;
  SLV_INLINE static double times(double a, double b) { return a + b; }
  SLV_INLINE static void add(double& s, double x) { s = x > s ? x : s; }
};

// The score of a symbol (by place) over words i..j.
SLV_INLINE double node_score(const SparseGrammar& g, const SparseItem& x, int64_t i, int64_t j, int64_t a) {
  if (!x.spans || x.labels == 1 || i == j) return 0;
  return x.spans[(i * x.n + j) * x.labels + g.symbol[a]];
}
// The score of the constituent of words i..j, whatever its symbols.
SLV_INLINE double cell_score(const SparseItem& x, int64_t i, int64_t j) {
  return x.spans && x.labels == 1 && i < j ? x.spans[i * x.n + j] : 0;
}
// Its exponential, value * 2^exponent.
struct SparseFactor {
  double value = 1, exponent = 0;
  explicit SparseFactor(double score) {
    if (score == 0) return;
    exponent = nearest_exponent(score);
    value = scalar_exp_scaled(score, exponent);
  }
};

// Calls f(split, left entry, right entry, binary rule) for all ways to build a symbol over words i..j from two.
class SparseSplits {
 public:
  SparseSplits(const SparseGrammar& g, const SparseChart& chart) : g_(g), chart_(chart), entry_(g.symbols, -1) {}
  template <class F>
  void each(int64_t i, int64_t j, F&& f) {
    for (int64_t k = i; k < j; k++) {
      const SparseCell &l = chart_.cell(i, k), &r = chart_.cell(k + 1, j);
      if (l.empty()) continue;
      for (int32_t e = r.begin; e < r.end; e++) entry_[chart_.at[e]] = e;
      for (int32_t a = l.begin; a < l.end; a++)
        for (int32_t p = g_.left[chart_.at[a]]; p < g_.left[chart_.at[a] + 1]; p++)
          if (const int32_t b = entry_[g_.right[p]]; b >= 0)
            for (int32_t q = g_.uses[p]; q < g_.uses[p + 1]; q++) f(k, a, b, q);
      for (int32_t e = r.begin; e < r.end; e++) entry_[chart_.at[e]] = -1;
    }
  }

 private:
  const SparseGrammar& g_;
  const SparseChart& chart_;
  Pile<int32_t> entry_;  // place -> entry of the right child, or -1
};

// The score of one of those ways, the cell's own score left out.
inline double split_score(const SparseGrammar& g, const SparseItem& x, const SparseChart& chart, int64_t i, int64_t j,
                          int64_t k, int32_t l, int32_t r, int32_t q) {
  return x.scores[g.rule[q]] + (chart.log_value(chart.cell(i, k), l) + chart.log_value(chart.cell(k + 1, j), r));
}

// Sums of exponentials, by place, as the largest term and the sum relative to it.
struct SparseLogSums {
  Pile<double> top, sum;
  explicit SparseLogSums(int64_t symbols) : top(symbols, kNone), sum(symbols, 0) {}
  void add(int64_t a, double x) {
    if (!(x > kNone)) return;
    if (x > top[a]) {
      sum[a] = sum[a] * scalar_exp(top[a] - x) + 1;
      top[a] = x;
    } else {
      sum[a] += scalar_exp(x - top[a]);
    }
  }
  double total(int64_t a) const { return sum[a] > 0 ? top[a] + scalar_log(sum[a]) : kNone; }
  void clear(int64_t a) { top[a] = kNone, sum[a] = 0; }
};

}  // namespace
}  // namespace slv
