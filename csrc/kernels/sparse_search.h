// Samples and max-marginals of the sparse PCFG, in exact log space.
#pragma once
#include "core/philox.h"
#include "kernels/sparse_forest.h"

namespace slv {
namespace {

// Top-down draws. Of the node that is the d-th on its span (d = 0, 1, ... from the top): word 0 chooses the split or
// the unary rule, word 1 the left symbol, word 2 the right one.
class SparseSampler {
  using Words = Draws<1>;

 public:
  SparseSampler(const SparseGrammar& g, const SparseItem& x, const SparseWeights& w, uint64_t seed, uint32_t item,
                bool single)
      : forest_(g, x, sum_chart(g, x, w)), roots_(forest_.roots()), seed_(seed), item_(item), single_(single) {
    weigh(roots_.data(), roots_.size(), root_weight_);
  }
  void draw(uint32_t sample, int64_t rows, int64_t* event) {
    if (roots_.empty()) return;
    Range top{0, roots_.size()};
    Words w{seed_, {item_}, {sample}, 2};
    narrow(top, root_weight_, u(w, 0), [](int64_t t) { return t; });
    int64_t i = -1, j = -1, depth = 0;
    write_tree(forest_, roots_[top.begin], rows, event, [&](const SparseForest::Node& n) {
      depth = n.i == i && n.j == j ? depth + 1 : 0;
      i = n.i, j = n.j;
      Words own{seed_, {item_}, {sample}, uint32_t(depth ? depth + 2 : 1)};
      return choose(n, own, 4 * (j * (j + 1) / 2 + i));
    });
  }

 private:
  struct Range {
    int64_t begin, end;
  };
  double u(Words& w, int64_t at) const { return single_ ? double(uniform<float>(*w(at))) : uniform<double>(*w(at)); }
  static void weigh(const SparseForest::Way* ways, int64_t count, Pile<double>& out) {
    double top = kNone;
    for (int64_t t = 0; t < count; t++) top = std::max(top, ways[t].score);
    for (int64_t t = 0; t < count; t++) out.push(scalar_exp(ways[t].score - top));
  }
  int64_t choose(const SparseForest::Node& n, Words& w, int64_t at) {
    const int64_t count = forest_.count(n);
    const SparseForest::Way* ways = &forest_.way(n, 0);
    if (start_.size() <= n.entry) start_.resize(forest_.chart.at.size(), -1);
    if (start_[n.entry] < 0) {
      start_[n.entry] = weight_.size();
      weigh(ways, count, weight_);
    }
    const double* weight = &weight_[start_[n.entry]];
    Range r{0, count};
    narrow(r, weight, u(w, at), [&](int64_t t) { return ways[t].right < 0 ? -1 - t : int64_t(ways[t].split); });
    if (ways[r.begin].right < 0) return r.begin;
    narrow(r, weight, u(w, at + 1), [&](int64_t t) { return int64_t(ways[t].left); });
    narrow(r, weight, u(w, at + 2), [](int64_t t) { return t; });
    return r.begin;
  }
  // To the first run of one key whose cumulative weight exceeds u times the total.
  template <class W, class Key>
  static void narrow(Range& r, const W& weight, double u, Key&& key) {
    double total = 0, target = 0;
    for (int pass = 0; pass < 2; pass++) {
      double seen = 0;
      for (int64_t t = r.begin; t < r.end;) {
        const int64_t begin = t;
        double run = 0;
        while (t < r.end && key(t) == key(begin)) run += weight[t++];
        seen += run;
        if (pass == 1 && seen > target) return void(r = {begin, t});
      }
      total = seen;
      target = std::min(u * total, std::nextafter(total, 0.0));
    }
  }

  SparseForest forest_;
  Pile<SparseForest::Way> roots_;
  Pile<double> root_weight_, weight_;
  Pile<int64_t> start_;  // entry -> its weights
  const uint64_t seed_;
  const uint32_t item_;
  const bool single_;
};
inline void sparse_sample(const SparseGrammar& g, const SparseItem& x, const SparseWeights& w, int64_t rows,
                          uint64_t seed, uint32_t item, int64_t samples, bool single, int64_t* events, int64_t stride) {
  for (int64_t s = 0; s < samples; s++) std::fill(events + s * stride, events + s * stride + 3 * rows, -1);
  SparseSampler sampler(g, x, w, seed, item, single);
  for (int64_t s = 0; s < samples; s++) sampler.draw(uint32_t(s), rows, events + s * stride);
}

// The best tree with each part: the best below a node (its value) and the best around it.
inline void sparse_max_marginals(const SparseGrammar& g, const SparseItem& x, const SparseSink& out) {
  const SparseChart chart = max_chart(g, x);
  SparseSplits splits(g, chart);
  Pile<double> around(chart.at.size(), kNone), here(g.symbols, kNone);
  auto raise = [](double& best, double s) { best = s > best ? s : best; };
  const SparseTops top(g, x, chart);
  for (int64_t t = 0; t < top.tops.size(); t++) {
    const int32_t e = top.tops[t].entry;
    const int64_t symbol = g.symbol[chart.at[e]];
    around[e] = x.root[symbol];
    raise(out.root[symbol], top.tops[t].score);
  }
  for (int64_t j = x.length - 1; j >= 0; j--)
    for (int64_t i = 0; i <= j; i++) {
      const SparseCell& c = chart.cell(i, j);
      for (int32_t e = c.end - 1; e >= c.begin; e--) {
        const int64_t a = chart.at[e], t = g.symbol[a] - g.nonterminals;
        for (int32_t u = g.up[a]; u < g.up[a + 1]; u++) {
          const double s = here[g.up_parent[u]] + x.scores[g.up_rule[u]];
          raise(around[e], s);
          raise(out.rules[g.up_rule[u]], s + chart.value[e]);
        }
        here[a] = around[e] + node_score(g, x, i, j, a);
        const double best = around[e] + chart.value[e];
        if (t >= 0)
          raise(out.unary[i * (g.symbols - g.nonterminals) + t], best);
        else if (out.spans && i < j)
          raise(out.spans[(i * x.n + j) * out.labels + (out.labels == 1 ? 0 : g.symbol[a])], best);
      }
      const double cell = cell_score(x, i, j);
      splits.each(i, j, [&](int64_t, int32_t l, int32_t r, int32_t q) {
        const double s = here[g.parent[q]] + x.scores[g.rule[q]] + cell;
        raise(around[l], s + chart.value[r]);
        raise(around[r], s + chart.value[l]);
        raise(out.rules[g.rule[q]], s + chart.value[l] + chart.value[r]);
      });
      for (int32_t e = c.begin; e < c.end; e++) here[chart.at[e]] = kNone;
    }
}

}  // namespace
}  // namespace slv
