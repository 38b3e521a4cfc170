// Second order of the sparse PCFG.
#pragma once
#include "kernels/sparse_conditional.h"

namespace slv {
namespace {

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
