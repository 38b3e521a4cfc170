// Queries on single trees and on maxima, in exact log space: Viterbi, max-marginals, k best, samples.
//
// The ways to build a node are listed in one order: binary rules by split, left symbol, right symbol; then unary rules
// by symbol. It breaks ties, and samples count along it.
#pragma once
#include <vector>

#include "core/philox.h"
#include "kernels/sparse_chart.h"

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

// The k best trees, each node's list made as far as it is asked for (Huang & Chiang 2005, algorithm 3).
class SparseBest {
  using Node = SparseForest::Node;

 public:
  SparseBest(const SparseGrammar& g, const SparseItem& x) : forest_(g, x, max_chart(g, x)), roots_(forest_.roots()) {
    list_of_.resize(forest_.chart.at.size(), -1);
    lists_.emplace_back();
    for (int64_t t = 0; t < roots_.size(); t++) lists_[0].heap.push({roots_[t].score, int32_t(t), 0, 0});
    std::make_heap(lists_[0].heap.begin(), lists_[0].heap.end());
  }

  // The tree of a rank; false where there are fewer.
  bool write(int64_t rank, int64_t rows, int64_t* event) {
    if (!reach(0, {}, rank)) return false;
    struct Open {
      Node node;
      int32_t rank;
    };
    Pile<Open> open;
    const Derivation top = lists_[0].done[rank];
    open.push({top_node(top), top.left});
    while (!open.empty() && rows-- > 0) {
      const auto [n, r] = open.pop();
      *event++ = n.i, *event++ = n.j, *event++ = forest_.symbol(n.entry);
      if (is_leaf(n)) continue;
      reach(list(n), n, r);
      const Derivation d = lists_[list(n)].done[r];
      const SparseForest::Way w = forest_.way(n, d.way);
      if (w.right >= 0) open.push({forest_.right(n, w), d.right});
      open.push({forest_.left(n, w), d.left});
    }
    return true;
  }

 private:
  struct Derivation {
    double score;
    int32_t way, left, right;                    // ranks of the children
    bool operator<(const Derivation& o) const {  // worse than
      if (score != o.score) return score < o.score;
      if (way != o.way) return way > o.way;
      return left != o.left ? left > o.left : right > o.right;
    }
  };
  struct List {
    Pile<Derivation> heap, done;
    int64_t followed = 0;  // of those done
  };
  bool is_leaf(const Node& n) const { return forest_.symbol(n.entry) >= forest_.g.nonterminals; }
  Node top_node(const Derivation& d) const { return {0, int32_t(forest_.x.length - 1), roots_[d.way].left}; }
  int32_t list(const Node& n) {
    if (list_of_[n.entry] >= 0) return list_of_[n.entry];
    const int32_t made = list_of_[n.entry] = int32_t(lists_.size());
    lists_.emplace_back();
    Pile<Derivation>& heap = lists_.back().heap;
    for (int64_t t = 0; t < forest_.count(n); t++) heap.push({forest_.way(n, t).score, int32_t(t), 0, 0});
    std::make_heap(heap.begin(), heap.end());
    return made;
  }
  bool reach(int32_t l, const Node& n, int64_t rank) {
    while (lists_[l].done.size() <= rank) {
      while (lists_[l].followed < lists_[l].done.size()) follow(l, n, lists_[l].done[lists_[l].followed++]);
      Pile<Derivation>& heap = lists_[l].heap;
      if (heap.empty()) return false;
      std::pop_heap(heap.begin(), heap.end());
      lists_[l].done.push(heap.pop());
    }
    return true;
  }
  // Offers the next worse derivations of the same way: one more on the right, or on the left from the first on.
  void follow(int32_t l, const Node& n, const Derivation d) {
    if (l == 0) {
      const Node top = top_node(d);
      return offer(0, d, top, d.left + 1, forest_.x.root[forest_.symbol(top.entry)], nullptr, 0);
    }
    const SparseForest::Way w = forest_.way(n, d.way);
    const Node left = forest_.left(n, w), right = forest_.right(n, w);
    const double rule = forest_.x.scores[w.rule], cell = cell_score(forest_.x, n.i, n.j);
    if (w.right < 0) return offer(l, d, left, d.left + 1, rule, nullptr, 0);
    if (d.right == 0) offer(l, d, left, d.left + 1, rule, &right, 0, cell);
    offer(l, d, left, d.left, rule, &right, d.right + 1, cell);
  }
  void offer(int32_t l, const Derivation& d, const Node& left, int32_t a, double rule, const Node* right, int32_t b,
             double cell = 0) {
    double s = 0;
    if (!value(left, a, s)) return;
    if (double t = 0; right) {
      if (!value(*right, b, t)) return;
      s += t;
    }
    Pile<Derivation>& heap = lists_[l].heap;
    heap.push({rule + s + cell, d.way, a, b});
    std::push_heap(heap.begin(), heap.end());
  }
  // The score of a node's tree of a rank; false where there are fewer.
  bool value(const Node& n, int32_t rank, double& score) {
    score = forest_.chart.value[n.entry];
    if (rank == 0) return true;
    if (is_leaf(n) || !reach(list(n), n, rank)) return false;
    const SparseForest& f = forest_;
    score = lists_[list(n)].done[rank].score + node_score(f.g, f.x, n.i, n.j, f.chart.at[n.entry]);
    return true;
  }

  SparseForest forest_;
  Pile<SparseForest::Way> roots_;
  std::vector<List> lists_;  // that of the root, then of nodes
  Pile<int32_t> list_of_;    // entry -> its list
};
inline void sparse_topk(const SparseGrammar& g, const SparseItem& x, int64_t rows, int64_t count, int64_t* events,
                        int64_t stride) {
  for (int64_t r = 0; r < count; r++) std::fill(events + r * stride, events + r * stride + 3 * rows, -1);
  SparseBest best(g, x);
  for (int64_t r = 0; r < count && best.write(r, rows, events + r * stride);) r++;
}

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
