// Trees without replacement, chosen as samples are drawn: the symbol of the whole; then, node by node in pre-order, the
// split, the left child, the right child.
#pragma once
#include "kernels/gumbel_top_k.h"
#include "kernels/pcfg_sample.h"
#include "kernels/pcfg_search.h"

namespace slv {
namespace {

// Log-weights of the ways to divide a node, from a chart in log space. What is found of a node is kept.
template <class T>
class LogWays {
 public:
  LogWays(const Sentence<T>& c, const TreeChart& in)
      : c_(c), ways_(c, in), roots_(whole(c, in)), known_(c.len * (c.len - 1) / 2 * c.nt, -1) {}
  void roots(Doubles& scores) const { scores = roots_; }
  void splits(const TreeNode& n, Doubles& scores) { take(weights(n), n.j - n.i, scores); }
  void left(const TreeNode& n, int64_t split, Doubles& scores) {
    take(weights(n) + (n.j - n.i) + split * c_.s, block(n, split).ny, scores);
  }
  void right(const TreeNode& n, int64_t split, int64_t y, Doubles& scores) {
    take(ways_.right(n, block(n, split), y, n.i + split), block(n, split).nz, scores);
  }

 private:
  static void take(const double* from, int64_t count, Doubles& scores) { scores.assign(from, from + count); }
  const Layout::Block& block(const TreeNode& n, int64_t split) const {
    return c_.layout.block[block_of(n.i, n.i + split, n.j)];
  }
  // those of the splits, then those of the left children of each
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
  const Doubles roots_;
  Vector<int64_t> known_;
  Doubles table_;
};

// The same from a scaled chart.
template <class In, class T>
class ScaledWays {
 public:
  ScaledWays(const ChartWays<In, T>& ways, const T* roots) : ways_(ways), roots_(roots) {}
  void roots(Doubles& scores) {
    std::copy_n(roots_, ways_.z.nt, ways_.weights.begin());
    take(ways_.z.nt, scores);
  }
  void splits(const TreeNode& n, Doubles& scores) { take(ways_.splits(n), scores); }
  void left(const TreeNode& n, int64_t split, Doubles& scores) { take(ways_.left(n, split), scores); }
  void right(const TreeNode& n, int64_t split, int64_t y, Doubles& scores) { take(ways_.right(n, split, y), scores); }

 private:
  void take(int64_t count, Doubles& scores) const {
    scores.resize(count);
    for (int64_t k = 0; k < count; k++) scores[k] = scalar_log(ways_.weights[k]);
  }
  ChartWays<In, T> ways_;
  const T* roots_;
};

template <class Ways>
class TreeChoices {
 public:
  TreeChoices(Ways ways, int64_t n, int64_t len, int64_t nt) : ways_(std::move(ways)), n_(n), len_(len), nt_(nt) {}

  int64_t enter(int64_t parent, int64_t choice) {
    State s{parent, choice, kRoot, -1};
    if (parent >= 0) {
      const State& up = states_[parent];
      s.next = Stage(up.next == kRight ? kSplit : up.next + 1);
      s.open = up.next == kRoot ? push({0, len_ - 1, choice}, -1) : up.open;
      if (up.next == kRight) s.open = push_children(node(up), states_[up.parent].choice, up.choice, choice, up.open);
    }
    states_.push_back(s);
    return states_.size() - 1;
  }
  bool complete(int64_t s) const { return states_[s].next == kSplit && states_[s].open < 0; }
  void weigh(int64_t state, Doubles& scores) {
    const State& s = states_[state];
    switch (s.next) {
      case kRoot:
        return ways_.roots(scores);
      case kSplit:
        return ways_.splits(node(s), scores);
      case kLeft:
        return ways_.left(node(s), s.choice, scores);
      case kRight:
        return ways_.right(node(s), states_[s.parent].choice, s.choice, scores);
    }
  }
  void write(int64_t s, int64_t* event) {
    made_.clear();
    for (; states_[s].parent >= 0; s = states_[s].parent) made_.push_back(states_[s].choice);
    auto next = made_.rbegin();
    const int64_t root = *next++;
    grow(n_, {0, len_ - 1, root}, event, [&](const TreeNode& n, TreeNode& left, TreeNode& right) {
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

  const TreeNode& node(const State& s) const { return open_[s.open].node; }
  int64_t push(const TreeNode& n, int64_t rest) {
    if (n.i == n.j) return rest;
    open_.push_back({n, rest});
    return open_.size() - 1;
  }
  int64_t push_children(const TreeNode& n, int64_t split, int64_t y, int64_t z, int64_t open) {
    TreeNode left{}, right{};
    children(n, split, y, z, left, right);
    const int64_t rest = push(right, open_[open].rest);
    return push(left, rest);
  }
  void children(const TreeNode& n, int64_t split, int64_t y, int64_t z, TreeNode& left, TreeNode& right) const {
    const int64_t k = n.i + split;
    left = {n.i, k, y + (k == n.i ? nt_ : 0)}, right = {k + 1, n.j, z + (k + 1 == n.j ? nt_ : 0)};
  }

  Ways ways_;
  const int64_t n_, len_, nt_;
  Vector<State> states_;
  Vector<Open> open_;
  Vector<int64_t> made_;
};

// Up to `count` trees; how many were found, and the last one's perturbed log-probability.
struct LastFound {
  int64_t count;
  double perturbed;
};
template <class Ways>
LastFound draw_distinct(TreeChoices<Ways> from, uint64_t seed, int64_t item, int64_t count, const DistinctSink& out) {
  LastFound last{0, kNone};
  gumbel_top_k(from, seed, item, count, [&](int64_t rank, int64_t state, double perturbed) {
    from.write(state, out.events + rank * out.event_stride);
    out.perturbed[rank * out.stride] = perturbed;
    last = {rank + 1, perturbed};
  });
  return last;
}

template <class T>
void pcfg_distinct_log(const Pcfg<T>& g, int64_t b, uint64_t seed, int64_t count, const DistinctSink& out) {
  clear_distinct(out, count, event_size(g.n));
  Sentence<T> c(g, b);
  if (!c.trees()) return;
  const TreeChart in = inside<Log>(c);
  draw_distinct(TreeChoices<LogWays<T>>({c, in}, g.n, c.len, c.nt), seed, b, count, out);
}

// A block of items on one rung. What underflows there is missing, so that its trees are believed only where all that
// were asked for are found, and none of them is so improbable that a missing one could have been before it.
template <class In, class T>
void distinct_block(const Pcfg<In>& c, const int64_t* items, int64_t count, uint64_t seed, int64_t k,
                    const DistinctSink& out, Vector<int64_t>& again) {
  constexpr double kImprobable = sizeof(T) == 4 ? -30 : -300;
  each_chart<In, T>(
      c, items, count, again, [&](int64_t item, int64_t len, const ChartWays<In, T>& ways, const T* roots) {
        const DistinctSink to = out.of(item, event_size(c.n));
        clear_distinct(to, k, event_size(c.n));
        const LastFound last =
            draw_distinct(TreeChoices<ScaledWays<In, T>>({ways, roots}, c.n, len, c.nt), seed, item, k, to);
        if (last.count < k || last.perturbed < kImprobable) again.push_back(item);
      });
}
template <class In>
void pcfg_distinct(const Pcfg<In>& c, const int64_t* items, int64_t count, uint64_t seed, int64_t k,
                   const DistinctSink& out) {
  Vector<int64_t> again, last;
  for (int64_t q = 0; q < count; q++) clear_distinct(out.of(items[q], event_size(c.n)), k, event_size(c.n));
  distinct_block<In, In>(c, items, count, seed, k, out, again);
  for (const int64_t& item : again) {
    if (sizeof(In) == 4)
      distinct_block<In, double>(c, &item, 1, seed, k, out, last);
    else
      last.push_back(item);
  }
  for (int64_t item : last) pcfg_distinct_log(c, item, seed, k, out.of(item, event_size(c.n)));
}

}  // namespace
}  // namespace slv
