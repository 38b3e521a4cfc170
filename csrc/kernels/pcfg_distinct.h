// Trees without replacement, chosen as samples are drawn: the symbol of the whole; then, node by node in pre-order, the
// split, the left child, the right child.
#pragma once
#include "kernels/gumbel_top_k.h"
#include "kernels/pcfg_search.h"

namespace slv {
namespace {

template <class T>
class TreeChoices {
 public:
  TreeChoices(const Sentence<T>& c, const TreeChart& in, const Doubles& roots)
      : c_(c), ways_(c, in), roots_(roots), known_(c.len * (c.len - 1) / 2 * c.nt, -1) {}

  int64_t enter(int64_t parent, int64_t choice) {
    State s{parent, choice, kRoot, -1};
    if (parent >= 0) {
      const State& up = states_[parent];
      s.next = Stage(up.next == kRight ? kSplit : up.next + 1);
      s.open = up.next == kRoot ? push({0, c_.len - 1, choice}, -1) : up.open;
      if (up.next == kRight) s.open = push_children(node(up), states_[up.parent].choice, up.choice, choice, up.open);
    }
    states_.push_back(s);
    return states_.size() - 1;
  }
  bool complete(int64_t s) const { return states_[s].next == kSplit && states_[s].open < 0; }
  void weigh(int64_t state, Doubles& scores) {
    const State& s = states_[state];
    if (s.next == kRoot) return take(roots_.data(), c_.nt, scores);
    const TreeNode& n = node(s);
    if (s.next == kRight) {
      const int64_t k = n.i + states_[s.parent].choice;
      const Layout::Block& p = c_.layout.block[block_of(n.i, k, n.j)];
      return take(ways_.right(n, p, s.choice, k), p.nz, scores);
    }
    const double *split = weights(n), *left = split + (n.j - n.i);
    if (s.next == kSplit) return take(split, n.j - n.i, scores);
    take(left + s.choice * c_.s, c_.layout.block[block_of(n.i, n.i + s.choice, n.j)].ny, scores);
  }
  void write(int64_t s, int64_t* event) {
    made_.clear();
    for (; states_[s].parent >= 0; s = states_[s].parent) made_.push_back(states_[s].choice);
    auto next = made_.rbegin();
    const int64_t root = *next++;
    grow(c_.n, {0, c_.len - 1, root}, event, [&](const TreeNode& n, TreeNode& left, TreeNode& right) {
      const int64_t split = *next++, y = *next++, z = *next++;
      children(n, split, y, z, left, right);
      return true;
    });
  }

 private:
  enum Stage { kRoot, kSplit, kLeft, kRight };
  struct State {
    int64_t parent, choice;
    Stage next;    // what is to be chosen
    int64_t open;  // the node that it is of, and behind it the others that are yet to be divided; -1: none
  };
  struct Open {
    TreeNode node;
    int64_t rest;
  };

  static void take(const double* from, int64_t count, Doubles& scores) { scores.assign(from, from + count); }
  const TreeNode& node(const State& s) const { return open_[s.open].node; }
  int64_t push(const TreeNode& n, int64_t rest) {
    if (n.i == n.j) return rest;
    open_.push_back({n, rest});
    return open_.size() - 1;
  }
  int64_t push_children(TreeNode n, int64_t split, int64_t y, int64_t z, int64_t open) {
    TreeNode left{}, right{};
    children(n, split, y, z, left, right);
    const int64_t rest = push(right, open_[open].rest);
    return push(left, rest);
  }
  void children(const TreeNode& n, int64_t split, int64_t y, int64_t z, TreeNode& left, TreeNode& right) const {
    const int64_t k = n.i + split;
    const Layout::Block& p = c_.layout.block[block_of(n.i, k, n.j)];
    left = {n.i, k, p.y + y}, right = {k + 1, n.j, p.z + z};
  }
  // The log-weights of a node's splits, then those of the left children of each, found once.
  const double* weights(const TreeNode& n) {
    int64_t& at = known_[(n.j * (n.j - 1) / 2 + n.i) * c_.nt + n.symbol];
    if (at < 0) {
      const int64_t splits = n.j - n.i;
      at = table_.size();
      table_.resize(at + splits * (1 + c_.s));
      ways_.weigh(n, &table_[at], &table_[at + splits]);
    }
    return &table_[at];
  }

  const Sentence<T>& c_;
  TreeWays<T> ways_;
  const Doubles& roots_;
  Vector<int64_t> known_;  // where the weights of a node are, or -1
  Doubles table_;
  Vector<State> states_;
  Vector<Open> open_;
  Vector<int64_t> made_;
};

template <class T>
void pcfg_distinct_log(const Pcfg<T>& g, int64_t b, uint64_t seed, int64_t count, const DistinctSink& out) {
  clear_distinct(out, count, event_size(g.n));
  Sentence<T> c(g, b);
  if (!c.trees()) return;
  const TreeChart in = inside<Log>(c);
  const Doubles roots = whole(c, in);
  TreeChoices<T> from(c, in, roots);
  gumbel_top_k(from, seed, b, count, [&](int64_t rank, int64_t state, double perturbed) {
    from.write(state, out.events + rank * out.event_stride);
    out.perturbed[rank * out.stride] = perturbed;
  });
}

}  // namespace
}  // namespace slv
