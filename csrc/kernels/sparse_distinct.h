// Trees of the sparse PCFG without replacement: the symbol of the whole, then, node by node in pre-order, one of the
// ways to build it.
#pragma once
#include "kernels/gumbel_top_k.h"
#include "kernels/sparse_forest.h"

namespace slv {
namespace {

class SparseChoices {
  using Node = SparseForest::Node;

 public:
  SparseChoices(const SparseGrammar& g, const SparseItem& x, const SparseWeights& w)
      : forest_(g, x, sum_chart(g, x, w)), roots_(forest_.roots()) {}

  int64_t enter(int64_t parent, int64_t choice) {
    State s{parent, choice, -1};
    if (parent >= 0) {
      const int64_t open = states_[parent].open;
      if (open < 0) {
        s.open = push(root(choice), -1);
      } else {
        const Node n = open_[open].node;
        const SparseForest::Way w = forest_.way(n, choice);
        s.open = open_[open].rest;
        if (w.right >= 0) s.open = push(forest_.right(n, w), s.open);
        s.open = push(forest_.left(n, w), s.open);
      }
    }
    states_.push(s);
    return states_.size() - 1;
  }
  bool complete(int64_t s) const { return states_[s].parent >= 0 && states_[s].open < 0; }
  void weigh(int64_t s, Doubles& scores) {
    const int64_t open = states_[s].open;
    const int64_t count = open < 0 ? roots_.size() : forest_.count(open_[open].node);
    scores.resize(count);
    for (int64_t t = 0; t < count; t++) scores[t] = (open < 0 ? roots_[t] : forest_.way(open_[open].node, t)).score;
  }
  void write(int64_t s, int64_t rows, int64_t* event) {
    Pile<int64_t> made;
    for (; states_[s].parent >= 0; s = states_[s].parent) made.push(states_[s].choice);
    const int64_t top = made.pop();
    write_tree(forest_, roots_[top], rows, event, [&](const Node&) { return made.pop(); });
  }

 private:
  struct State {
    int64_t parent, choice, open;  // `open`: of the nodes that are yet to be built, the first in pre-order
  };
  struct Open {
    Node node;
    int64_t rest;
  };
  Node root(int64_t choice) const { return {0, int32_t(forest_.x.length - 1), roots_[choice].left}; }
  int64_t push(const Node& n, int64_t rest) {
    if (forest_.symbol(n.entry) >= forest_.g.nonterminals) return rest;
    open_.push({n, rest});
    return open_.size() - 1;
  }

  SparseForest forest_;
  Pile<SparseForest::Way> roots_;
  Pile<State> states_;
  Pile<Open> open_;
};

inline void sparse_distinct(const SparseGrammar& g, const SparseItem& x, const SparseWeights& w, int64_t rows,
                            uint64_t seed, uint32_t item, int64_t count, const DistinctSink& out) {
  clear_distinct(out, count, 3 * rows);
  SparseChoices from(g, x, w);
  gumbel_top_k(from, seed, item, count, [&](int64_t rank, int64_t state, double perturbed) {
    from.write(state, rows, out.events + rank * out.event_stride);
    out.perturbed[rank * out.stride] = perturbed;
  });
}

}  // namespace
}  // namespace slv
