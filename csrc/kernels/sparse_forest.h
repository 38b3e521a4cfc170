// The best tree, and the packed forest that all queries on single trees walk through.
//
// The ways to build a node are listed in one order: binary rules by split, left symbol, right symbol; then unary rules
// by symbol. It breaks ties, and samples count along it.
#pragma once
#include "kernels/sparse_inside.h"

namespace slv {
namespace {

inline SparseChart max_chart(const SparseGrammar& g, const SparseItem& x) {
  Pile<double> binary(g.binary, 0), up(g.up[g.symbols], 0);
  for (int64_t q = 0; q < g.binary; q++) binary[q] = x.scores[g.rule[q]];
  for (int64_t u = 0; u < up.size(); u++) up[u] = x.scores[g.up_rule[u]];
  SparseInside<SparseMax> pass(g, x, binary.data(), up.data(), nullptr);
  pass.run();
  return std::move(pass.chart);
}

// The packed forest of a chart, unfolded where it is visited.
class SparseForest {
 public:
  struct Way {
    double score;         // of the rule and of the best (or of all) trees below it
    int32_t left, right;  // entries; right is -1 under a unary rule
    int32_t split, rule;
  };
  struct Node {
    int32_t i, j, entry;
  };

  SparseForest(const SparseGrammar& g, const SparseItem& x, SparseChart chart)
      : g(g), x(x), chart(std::move(chart)), first_(g.symbols, -1), second_(g.symbols, -1) {
    for (int64_t j = 0; j < x.length; j++)  // all in logarithms
      for (int64_t i = 0; i <= j; i++) {
        SparseCell& c = this->chart.cell(i, j);
        for (int32_t e = c.begin; !c.wide && e < c.end; e++) this->chart.value[e] = this->chart.log_value(c, e);
        c.wide = true;
      }
    known_.resize(this->chart.at.size(), Range{-1, -1});
  }

  // The root symbols in order, as ways of a node above the chart.
  Pile<Way> roots() const {
    Pile<Way> out;
    if (x.length == 0) return out;
    const SparseCell& c = chart.cell(0, x.length - 1);
    for (int32_t e = c.begin; e < c.end; e++) {
      const int64_t symbol = g.symbol[chart.at[e]];
      if (symbol >= g.nonterminals || !(x.root[symbol] + chart.value[e] > kNone)) continue;
      out.push({x.root[symbol] + chart.value[e], e, -1, -1, -1});
    }
    std::sort(out.begin(), out.end(), [this](const Way& a, const Way& b) { return symbol(a.left) < symbol(b.left); });
    return out;
  }
  int64_t symbol(int32_t entry) const { return g.symbol[chart.at[entry]]; }
  Node left(const Node& n, const Way& w) const { return {n.i, w.right < 0 ? n.j : w.split, w.left}; }
  Node right(const Node& n, const Way& w) const { return {w.split + 1, n.j, w.right}; }
  int64_t count(const Node& n) { return unfold(n).end - unfold(n).begin; }
  const Way& way(const Node& n, int64_t number) { return ways_[unfold(n).begin + number]; }

  const SparseGrammar& g;
  const SparseItem& x;
  SparseChart chart;

 private:
  struct Range {
    int64_t begin, end;
  };
  const Range& unfold(const Node& n) {
    Range& r = known_[n.entry];
    if (r.begin >= 0) return r;
    r.begin = ways_.size();
    const int64_t a = chart.at[n.entry];
    const double cell = cell_score(x, n.i, n.j);
    int64_t unary = g.down[a];
    while (unary < g.down[a + 1] && g.second[unary] >= 0) unary++;
    for (int64_t k = n.i; k < n.j && unary > g.down[a]; k++) {
      mark(first_, n.i, k, true), mark(second_, k + 1, n.j, true);
      for (int64_t d = g.down[a]; d < unary; d++) add(d, first_[g.first[d]], second_[g.second[d]], k, cell);
      mark(first_, n.i, k, false), mark(second_, k + 1, n.j, false);
    }
    if (unary < g.down[a + 1]) {
      mark(first_, n.i, n.j, true);
      for (int64_t d = unary; d < g.down[a + 1]; d++) add(d, first_[g.first[d]]);
      mark(first_, n.i, n.j, false);
    }
    r.end = ways_.size();
    return r;
  }
  void mark(Pile<int32_t>& entry, int64_t i, int64_t j, bool on) const {
    const SparseCell& c = chart.cell(i, j);
    for (int32_t e = c.begin; e < c.end; e++) entry[chart.at[e]] = on ? e : -1;
  }
  void add(int64_t d, int32_t l) {
    if (l >= 0) add({x.scores[g.down_rule[d]] + chart.value[l], l, -1, -1, g.down_rule[d]});
  }
  void add(int64_t d, int32_t l, int32_t r, int64_t k, double cell) {
    if (l < 0 || r < 0) return;
    const double s = x.scores[g.down_rule[d]] + (chart.value[l] + chart.value[r]) + cell;
    add({s, l, r, int32_t(k), g.down_rule[d]});
  }
  void add(const Way& w) {
    if (w.score > kNone) ways_.push(w);
  }

  Pile<int32_t> first_, second_;  // place -> entry, for the children of one split
  Pile<Range> known_;             // entry -> its ways
  Pile<Way> ways_;
};

// Writes the tree under a root in pre-order; choose(node) gives the way to build it, by number.
template <class F>
void write_tree(SparseForest& f, const SparseForest::Way& root, int64_t rows, int64_t* event, F&& choose) {
  Pile<SparseForest::Node> open;
  open.push({0, int32_t(f.x.length - 1), root.left});
  while (!open.empty() && rows-- > 0) {
    const SparseForest::Node n = open.pop();
    *event++ = n.i, *event++ = n.j, *event++ = f.symbol(n.entry);
    if (f.symbol(n.entry) >= f.g.nonterminals) continue;
    if (f.count(n) == 0) return;  // only where a potential is no number
    const SparseForest::Way w = f.way(n, choose(n));
    if (w.right >= 0) open.push(f.right(n, w));
    open.push(f.left(n, w));
  }
}

inline void sparse_argmax(const SparseGrammar& g, const SparseItem& x, int64_t rows, int64_t* event) {
  std::fill(event, event + 3 * rows, -1);
  SparseForest forest(g, x, max_chart(g, x));
  auto better = [](const SparseForest::Way& a, const SparseForest::Way& b) { return a.score < b.score; };
  Pile<SparseForest::Way> roots = forest.roots();
  if (roots.empty()) return;
  write_tree(forest, *std::max_element(roots.begin(), roots.end(), better), rows, event, [&](const auto& n) {
    int64_t best = 0;
    for (int64_t t = 1; t < forest.count(n); t++)
      if (forest.way(n, t).score > forest.way(n, best).score) best = t;
    return best;
  });
}

}  // namespace
}  // namespace slv
