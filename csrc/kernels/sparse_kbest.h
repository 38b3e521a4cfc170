// The k best trees of the sparse PCFG.
#pragma once
#include <vector>

#include "kernels/sparse_forest.h"

namespace slv {
namespace {

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

}  // namespace
}  // namespace slv
