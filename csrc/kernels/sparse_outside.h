// Marginals of the sparse PCFG and their derivatives: the probability of a node goes down along p(way to build it |
// node), normalised where it is used, so that it is exact however large the potentials are.
#pragma once
#include "kernels/sparse_conditional.h"

namespace slv {
namespace {

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

}  // namespace
}  // namespace slv
