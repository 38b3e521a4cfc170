// How likely each way to build a node is, and to which part a node counts.
#pragma once
#include "kernels/sparse_inside.h"

namespace slv {
namespace {

// p(way to build a symbol | the symbol over words i..j), for one cell at a time.
class SparseConditional {
 public:
  SparseConditional(const SparseGrammar& g, const SparseItem& x, const SparseWeights& w, const SparseChart& chart)
      : g_(g), x_(x), w_(w), chart_(chart), splits_(g, chart), inverse_(g.symbols, 0), top_(g.symbols, 0) {}

  void open(int64_t i, int64_t j) {
    i_ = i, j_ = j, cell_ = chart_.cell(i, j), score_ = cell_score(x_, i, j);
    if (cell_.wide) return open_wide();
    own_ = SparseFactor(score_);
    for (int32_t e = cell_.begin; e < cell_.end; e++) {
      const double s = node_score(g_, x_, i, j, chart_.at[e]);
      inverse_[chart_.at[e]] = (s == 0 ? 1 : scalar_exp(s)) / chart_.value[e];
    }
  }
  void close() {
    for (int32_t e = cell_.begin; e < cell_.end; e++) inverse_[chart_.at[e]] = 0;
  }
  double inverse(int64_t a) const { return inverse_[a]; }
  // What the products of the values of two children are to be multiplied by, relative to the cell.
  double factor(int64_t k) const {
    const double e = chart_.cell(i_, k).exponent + chart_.cell(k + 1, j_).exponent + w_.exponent + own_.exponent;
    return own_.value * scalar_power_of_two(e - cell_.exponent);
  }
  // f(left entry, right entry, binary rule, probability), where that is not 0
  template <class F>
  void each_split(F&& f) {
    splits_.each(i_, j_, [&](int64_t k, int32_t l, int32_t r, int32_t q) {
      const double inverse = inverse_[g_.parent[q]];
      if (inverse == 0) return;
      const double p = cell_.wide ? wide_split(k, l, r, q) * inverse
                                  : chart_.value[l] * factor(k) * chart_.value[r] * w_.binary[q] * inverse;
      if (p > 0) f(l, r, q, p);
    });
  }
  // The same of the unary rules above an entry: f(unary rule, probability).
  template <class F>
  void each_above(int32_t entry, F&& f) {
    const int64_t y = chart_.at[entry];
    for (int32_t u = g_.up[y]; u < g_.up[y + 1]; u++) {
      const int64_t a = g_.up_parent[u];
      if (inverse_[a] == 0) continue;
      const double v = chart_.value[entry];
      const double p =
          cell_.wide ? scalar_exp(x_.scores[g_.up_rule[u]] + v - top_[a]) * inverse_[a] : w_.up[u] * v * inverse_[a];
      if (p > 0) f(u, p);
    }
  }

 private:
  double wide_split(int64_t k, int32_t l, int32_t r, int32_t q) const {
    return scalar_exp(score_ + split_score(g_, x_, chart_, i_, j_, k, l, r, q) - top_[g_.parent[q]]);
  }
  void open_wide() {
    SparseLogSums sums(g_.symbols);
    if (i_ == j_)
      for (int64_t t = 0; t < g_.symbols - g_.nonterminals; t++)
        sums.add(g_.place[g_.nonterminals + t], x_.unary[i_ * (g_.symbols - g_.nonterminals) + t]);
    splits_.each(i_, j_, [&](int64_t k, int32_t l, int32_t r, int32_t q) {
      sums.add(g_.parent[q], score_ + split_score(g_, x_, chart_, i_, j_, k, l, r, q));
    });
    for (int32_t e = cell_.begin; e < cell_.end; e++) {
      const int64_t y = chart_.at[e];
      for (int32_t u = g_.up[y]; u < g_.up[y + 1]; u++)
        sums.add(g_.up_parent[u], x_.scores[g_.up_rule[u]] + chart_.value[e]);
    }
    for (int32_t e = cell_.begin; e < cell_.end; e++) {
      const int64_t a = chart_.at[e];
      if (sums.sum[a] > 0) inverse_[a] = 1 / sums.sum[a], top_[a] = sums.top[a];
    }
  }

  const SparseGrammar& g_;
  const SparseItem& x_;
  const SparseWeights& w_;
  const SparseChart& chart_;
  SparseSplits splits_;
  Pile<double> inverse_, top_;  // by place; 0 where the cell does not have the symbol
  int64_t i_ = 0, j_ = 0;
  SparseCell cell_;
  double score_ = 0;
  SparseFactor own_{0};
};

// Adds to the part that a symbol over words i..j is, and to the constituent that the words are.
inline void add_node(const SparseGrammar& g, const SparseItem& x, const SparseSink& out, int64_t i, int64_t j,
                     int64_t a, double mass) {
  const int64_t symbol = g.symbol[a];
  if (symbol >= g.nonterminals)
    out.unary[i * (g.symbols - g.nonterminals) + symbol - g.nonterminals] += mass;
  else if (out.spans && out.labels != 1 && i < j)
    out.spans[(i * x.n + j) * out.labels + symbol] += mass;
}
inline void add_cell(const SparseItem& x, const SparseSink& out, int64_t i, int64_t j, double mass) {
  if (out.spans && out.labels == 1 && i < j) out.spans[i * x.n + j] += mass;
}

}  // namespace
}  // namespace slv
