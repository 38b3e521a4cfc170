// Marginals of the sparse PCFG and their derivatives: the probability of a node goes down along p(way to build it |
// node), normalised where it is used, so that it is exact however large the potentials are.
#pragma once
#include "kernels/sparse_chart.h"

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

// Cells from the top down; within the cells that end at one word, the right children's mass is kept by place.
class SparseOutside {
 public:
  SparseOutside(const SparseGrammar& g, const SparseItem& x, const SparseWeights& w, double weight,
                const SparseSink& out)
      : g_(g),
        x_(x),
        w_(w),
        weight_(weight),
        out_(out),
        chart_(sum_chart(g, x, w)),
        conditional_(g, x, w, chart_),
        mass_(chart_.at.size(), 0),
        here_(g.symbols, 0),
        above_(g.pairs, 0),
        below_(g.pairs, 0),
        right_(x.length * g.symbols, 0),
        right_mass_(x.length * g.symbols, 0),
        used_(g.symbols) {}

  void run() {
    const SparseTops top(g_, x_, chart_);
    if (!(top.sum > 0)) return;
    for (int64_t t = 0; t < top.tops.size(); t++) {
      const double p = top.weight(t) / top.sum;
      const int32_t e = top.tops[t].entry;
      mass_[e] = p;
      if (out_.root) out_.root[g_.symbol[chart_.at[e]]] += weight_ * p;
    }
    for (int64_t j = x_.length - 1; j >= 0; j--) {
      spread(j, true);
      for (int64_t i = 0; i <= j; i++) visit(i, j);
      spread(j, false);
    }
  }

 private:
  void spread(int64_t j, bool on) {
    for (int64_t i = 0; i <= j; i++) {
      const SparseCell& c = chart_.cell(i, j);
      if (c.wide) continue;
      for (int32_t e = c.begin; e < c.end; e++) right_[i * g_.symbols + chart_.at[e]] = on ? chart_.value[e] : 0;
    }
  }
  void visit(int64_t i, int64_t j) {
    const SparseCell& c = chart_.cell(i, j);
    double total = 0;
    double* mass = right_mass_.data() + i * g_.symbols;
    for (int32_t e = c.begin; e < c.end; e++) {
      total += mass_[e] += mass[chart_.at[e]];
      mass[chart_.at[e]] = 0;
    }
    if (!(total > 0)) return;
    add_cell(x_, out_, i, j, weight_ * total);  // one symbol of a constituent comes from above
    conditional_.open(i, j);
    for (int32_t e = c.end - 1; e >= c.begin; e--) {  // parents of unary rules first
      conditional_.each_above(e, [&](int32_t u, double p) {
        const double share = p * here_[g_.up_parent[u]];
        mass_[e] += share;
        if (out_.rules) out_.rules[g_.up_rule[u]] += weight_ * share;
      });
      here_[chart_.at[e]] = mass_[e];
      if (mass_[e] > 0) add_node(g_, x_, out_, i, j, chart_.at[e], weight_ * mass_[e]);
    }
    if (i < j && c.wide)
      conditional_.each_split([&](int32_t l, int32_t r, int32_t q, double p) {
        const double share = p * here_[g_.parent[q]];
        mass_[l] += share, mass_[r] += share;
        if (out_.rules) out_.rules[g_.rule[q]] += weight_ * share;
      });
    else if (i < j)
      split(c, i, j);
    conditional_.close();
  }

  // With P(pair) = sum over splits of left y, right z and Q(pair) = sum over rules of weight, mass of A / sum of A:
  // a rule is used Q's share of P times, and each child gets Q times the other one.
  void split(const SparseCell& c, int64_t i, int64_t j) {
    each_use(c, [&](int32_t d, double share) {
      used_.set(g_.first[d]);
      above_[g_.pair[g_.down_use[d]]] += share;
    });
    for (int64_t k = i; k < j; k++) {
      const SparseCell &l = chart_.cell(i, k), &r = chart_.cell(k + 1, j);
      if (l.empty() || r.empty()) continue;
      const double factor = conditional_.factor(k);
      const double* from = right_.data() + (k + 1) * g_.symbols;
      double* to = right_mass_.data() + (k + 1) * g_.symbols;
      for (int32_t e = l.begin; e < l.end; e++) {
        const int64_t y = chart_.at[e];
        if (!used_.has(y)) continue;
        const double v = chart_.value[e] * factor;
        double sum = 0;
        for (int32_t p = g_.left[y]; p < g_.left[y + 1]; p++) {
          const int32_t z = g_.right[p];
          const double pair = v * from[z], share = pair * above_[p];
          below_[p] += pair;
          sum += share;
          to[z] += share;
        }
        mass_[e] += sum;
      }
    }
    if (out_.rules)
      each_use(c, [&](int32_t d, double share) {
        out_.rules[g_.down_rule[d]] += weight_ * share * below_[g_.pair[g_.down_use[d]]];
      });
    used_.drain([&](int64_t y) {
      for (int32_t p = g_.left[y]; p < g_.left[y + 1]; p++) above_[p] = below_[p] = 0;
    });
  }
  // f(rule among those of its parent, weight * mass / sum of the parent) for the binary rules of a cell's symbols
  template <class F>
  void each_use(const SparseCell& c, F&& f) {
    for (int32_t e = c.begin; e < c.end; e++) {
      const int64_t a = chart_.at[e];
      const double share = mass_[e] * conditional_.inverse(a);
      if (share == 0) continue;
      for (int32_t d = g_.down[a]; d < g_.down[a + 1] && g_.second[d] >= 0; d++)
        f(d, share * w_.binary[g_.down_use[d]]);
    }
  }

  const SparseGrammar& g_;
  const SparseItem& x_;
  const SparseWeights& w_;
  const double weight_;
  const SparseSink& out_;
  const SparseChart chart_;
  SparseConditional conditional_;
  Pile<double> mass_;           // by entry
  Pile<double> here_;           // the same of one cell, by place
  Pile<double> above_, below_;  // Q and P, by pair
  Pile<double> right_, right_mass_;
  LiveSet used_;
};

inline double sparse_log_partition(const SparseGrammar& g, const SparseItem& x, const SparseWeights& w) {
  return SparseTops(g, x, sum_chart(g, x, w)).log_partition();
}
inline void sparse_marginals(const SparseGrammar& g, const SparseItem& x, const SparseWeights& w, double weight,
                             const SparseSink& out) {
  SparseOutside(g, x, w, weight, out).run();
}

// The covariance of the parts with f = <v, parts>, by conditional expectations:
//   below(node) = E[f of the tree under it | node], above(node) = E[f of the rest | node];
//   cov(part) = p(part) (E[f | part] - E f).
// They are averages, so nothing needs a scale.
class SparseTangent {
 public:
  SparseTangent(const SparseGrammar& g, const SparseItem& x, const SparseWeights& w, double weight, const SparseItem& v,
                const SparseSink& out)
      : g_(g),
        x_(x),
        v_(v),
        weight_(weight),
        out_(out),
        chart_(sum_chart(g, x, w)),
        conditional_(g, x, w, chart_),
        below_(chart_.at.size(), 0),
        above_(chart_.at.size(), 0),
        mass_(chart_.at.size(), 0),
        here_(g.symbols, 0),
        entry_(g.symbols, -1) {}

  double run() {
    const SparseTops top(g_, x_, chart_);
    if (!(top.sum > 0)) return 0;
    for (int64_t j = 0; j < x_.length; j++)
      for (int64_t i = j; i >= 0; i--) up(i, j);
    for (int64_t t = 0; t < top.tops.size(); t++) {
      const int32_t e = top.tops[t].entry;
      mass_[e] = top.weight(t) / top.sum;
      const double root = v_.root[g_.symbol[chart_.at[e]]];
      if (!(mass_[e] > 0)) continue;
      above_[e] = mass_[e] * root;
      mean_ += mass_[e] * (root + below_[e]);
    }
    for (int64_t t = 0; t < top.tops.size(); t++) {
      const int32_t e = top.tops[t].entry;
      const int64_t symbol = g_.symbol[chart_.at[e]];
      if (mass_[e] > 0) out_.root[symbol] += weight_ * mass_[e] * (v_.root[symbol] + below_[e] - mean_);
    }
    for (int64_t j = x_.length - 1; j >= 0; j--)
      for (int64_t i = 0; i <= j; i++) down(i, j);
    return mean_;
  }

 private:
  double own(int64_t i, int64_t j, int64_t a) const {
    const int64_t t = g_.symbol[a] - g_.nonterminals;
    return t < 0 ? node_score(g_, v_, i, j, a) : v_.unary[i * (g_.symbols - g_.nonterminals) + t];
  }
  void up(int64_t i, int64_t j) {
    const SparseCell& c = chart_.cell(i, j);
    if (c.empty()) return;
    for (int32_t e = c.begin; e < c.end; e++) here_[chart_.at[e]] = 0;
    conditional_.open(i, j);
    const double cell = cell_score(v_, i, j);
    conditional_.each_split([&](int32_t l, int32_t r, int32_t q, double p) {
      here_[g_.parent[q]] += p * (v_.scores[g_.rule[q]] + cell + below_[l] + below_[r]);
    });
    for (int32_t e = c.begin; e < c.end; e++) {
      below_[e] = here_[chart_.at[e]] + own(i, j, chart_.at[e]);
      conditional_.each_above(
          e, [&](int32_t u, double p) { here_[g_.up_parent[u]] += p * (v_.scores[g_.up_rule[u]] + below_[e]); });
    }
    conditional_.close();
  }
  void down(int64_t i, int64_t j) {
    const SparseCell& c = chart_.cell(i, j);
    double total = 0, f_total = 0;
    for (int32_t e = c.begin; e < c.end; e++)
      if (mass_[e] > 0) total += mass_[e], f_total += above_[e] + mass_[e] * below_[e];
    if (!(total > 0)) return;
    add_cell(x_, out_, i, j, weight_ * (f_total - total * mean_));
    const double cell = cell_score(v_, i, j);
    conditional_.open(i, j);
    // f of what lies over a way to build A and of A itself, given A: entry_ says which entry A is
    auto use = [&](int32_t parent, int32_t rule, double p, double children) {
      const double share = p * mass_[parent];
      if (!(share > 0)) return std::pair(0.0, 0.0);
      const double f = above_[parent] / mass_[parent] + own(i, j, chart_.at[parent]) + v_.scores[rule];
      out_.rules[rule] += weight_ * share * (f + children - mean_);
      return std::pair(share, share * f);
    };
    for (int32_t e = c.begin; e < c.end; e++) entry_[chart_.at[e]] = e;
    for (int32_t e = c.end - 1; e >= c.begin; e--) {
      conditional_.each_above(e, [&](int32_t u, double p) {
        const auto [share, f] = use(entry_[g_.up_parent[u]], g_.up_rule[u], p, below_[e]);
        mass_[e] += share, above_[e] += f;
      });
      if (mass_[e] > 0)
        add_node(g_, x_, out_, i, j, chart_.at[e], weight_ * mass_[e] * (above_[e] / mass_[e] + below_[e] - mean_));
    }
    conditional_.each_split([&](int32_t l, int32_t r, int32_t q, double p) {
      const auto [share, f] = use(entry_[g_.parent[q]], g_.rule[q], p, cell + below_[l] + below_[r]);
      mass_[l] += share, above_[l] += f + share * (cell + below_[r]);
      mass_[r] += share, above_[r] += f + share * (cell + below_[l]);
    });
    conditional_.close();
  }

  const SparseGrammar& g_;
  const SparseItem &x_, &v_;
  const double weight_;
  const SparseSink& out_;
  const SparseChart chart_;
  SparseConditional conditional_;
  Pile<double> below_, above_, mass_;  // by entry; above: times mass
  Pile<double> here_;                  // by place
  Pile<int32_t> entry_;                // place -> entry, for the symbols of one cell
  double mean_ = 0;
};
inline double sparse_hvp(const SparseGrammar& g, const SparseItem& x, const SparseWeights& w, double weight,
                         const SparseItem& v, const SparseSink& out) {
  return SparseTangent(g, x, w, weight, v, out).run();
}

}  // namespace
}  // namespace slv
