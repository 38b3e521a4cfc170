// Trees without replacement, chosen as samples are drawn: the symbol of the whole; then, node by node in pre-order,
// which of its children are words, the two children, the split.
#pragma once
#include "kernels/gumbel_top_k.h"
#include "kernels/pcfg_sample.h"
#include "kernels/pcfg_search.h"

namespace slv {
namespace {

// Log-weights of the ways to divide a node, from a chart in log space.
template <class T>
class LogWays {
 public:
  LogWays(const Sentence<T>& c, const TreeChart& in) : ways_(c, in), roots_(whole(c, in)) {}
  void roots(Doubles& scores) const { scores = roots_; }
  void kinds(const TreeNode& n, Doubles& scores) {
    ways_.enter(n.i, n.j);
    ways_.kinds(n.symbol, scores);
  }
  void first(const TreeNode& n, int64_t kind, Doubles& scores) {
    ways_.enter(n.i, n.j);
    ways_.first(n.symbol, kind, scores);
  }
  void second(const TreeNode& n, int64_t kind, int64_t first, Doubles& scores) {
    ways_.enter(n.i, n.j);
    ways_.second(n.symbol, kind, first, scores);
  }
  void splits(const TreeNode& n, int64_t y, int64_t z, Doubles& scores) {
    ways_.enter(n.i, n.j);
    ways_.splits(y, z, scores);
  }

 private:
  TreeWays<T> ways_;
  const Doubles roots_;
};

// The same from a scaled chart.
template <class In, class T>
class ScaledWays {
 public:
  ScaledWays(const ChartWays<In, T>& ways, const T* roots) : ways_(ways), roots_(roots) {}
  void roots(Doubles& scores) { take(ways_.roots(roots_), scores); }
  void kinds(const TreeNode& n, Doubles& scores) {
    std::array<T, 4> weights = enter(n).kinds(n.symbol);
    take({weights.data(), 4}, scores);
  }
  void first(const TreeNode& n, int64_t kind, Doubles& scores) {
    enter(n).kinds(n.symbol);
    take(ways_.first(n.symbol, kind), scores);
  }
  void second(const TreeNode& n, int64_t kind, int64_t first, Doubles& scores) {
    take(enter(n).second(n.symbol, kind, first), scores);
  }
  void splits(const TreeNode& n, int64_t y, int64_t z, Doubles& scores) { take(enter(n).splits(y, z), scores); }

 private:
  ChartWays<In, T>& enter(const TreeNode& n) {
    ways_.enter(n.i, n.j - n.i + 1);
    return ways_;
  }
  static void take(const Weights<T>& w, Doubles& scores) {
    scores.resize(w.count);
    for (int64_t k = 0; k < w.count; k++) scores[k] = scalar_log(double(w.of[k]));
  }
  ChartWays<In, T> ways_;
  const T* roots_;
};

template <class Ways>
class TreeChoices {
 public:
  TreeChoices(Ways ways, int64_t n, int64_t len, int64_t nt) : ways_(std::move(ways)), n_(n), len_(len), nt_(nt) {}

  int64_t enter(int64_t parent, int64_t choice) {
    State s{parent, choice, kRoot, -1, {}};
    if (parent >= 0) {
      const State& up = states_[parent];
      s.open = up.next == kRoot ? push({0, len_ - 1, choice}, -1) : up.open;
      s.made = up.made;
      s.next = record(s.made, up.next, choice);
      if (s.next == kKind && up.next != kRoot) s.open = push_children(s.made, up.open);
    }
    states_.push_back(s);
    return states_.size() - 1;
  }
  bool complete(int64_t s) const { return states_[s].next == kKind && states_[s].open < 0; }
  void weigh(int64_t state, Doubles& scores) {
    const State& s = states_[state];
    switch (s.next) {
      case kRoot:
        return ways_.roots(scores);
      case kKind:
        return ways_.kinds(node(s), scores);
      case kFirst:
        return ways_.first(node(s), s.made.kind, scores);
      case kSecond:
        return ways_.second(node(s), s.made.kind, s.made.first, scores);
      case kSplit:
        return ways_.splits(node(s), s.made.second, s.made.first, scores);
    }
  }
  void write(int64_t s, int64_t* event) {
    choices_.clear();
    for (; states_[s].parent >= 0; s = states_[s].parent) choices_.push_back(states_[s].choice);
    auto next = choices_.rbegin();
    const int64_t root = *next++;
    grow(n_, {0, len_ - 1, root}, event, [&](const TreeNode& n, TreeNode& left, TreeNode& right) {
      Division made;
      for (Stage stage = kKind; (stage = record(made, stage, *next++)) != kKind;);
      made.children(n, nt_, left, right);
      return true;
    });
  }

 private:
  enum Stage { kRoot, kKind, kFirst, kSecond, kSplit };
  struct State {
    int64_t parent, choice;
    Stage next;     // what is to be chosen
    int64_t open;   // the node that it is of, and behind it the others that are yet to be divided; -1: none
    Division made;  // of that node, so far
  };
  struct Open {
    TreeNode node;
    int64_t rest;
  };

  // Takes the choice of a stage down; which one follows, kKind where the node is divided.
  static Stage record(Division& made, Stage stage, int64_t choice) {
    switch (stage) {
      case kKind:
        made.kind = choice;
        return kFirst;
      case kFirst:
        made.first = choice;
        return kSecond;
      case kSecond:
        made.second = choice;
        return made.kind == Layout::kWide ? kSplit : kKind;
      case kSplit:
        made.split = choice;
        return kKind;
      case kRoot:
        return kKind;
    }
    __builtin_unreachable();
  }
  const TreeNode& node(const State& s) const { return open_[s.open].node; }
  int64_t push(const TreeNode& n, int64_t rest) {
    if (n.i == n.j) return rest;
    open_.push_back({n, rest});
    return open_.size() - 1;
  }
  int64_t push_children(const Division& made, int64_t open) {
    TreeNode left{}, right{};
    made.children(open_[open].node, nt_, left, right);
    const int64_t rest = push(right, open_[open].rest);
    return push(left, rest);
  }

  Ways ways_;
  const int64_t n_, len_, nt_;
  Vector<State> states_;
  Vector<Open> open_;
  Vector<int64_t> choices_;
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
  each_chart<In, T>(c, items, count, again, [&](int64_t item, const ChartWays<In, T>& ways, const T* roots) {
    const DistinctSink to = out.of(item, event_size(c.n));
    clear_distinct(to, k, event_size(c.n));
    const LastFound last =
        draw_distinct(TreeChoices<ScaledWays<In, T>>({ways, roots}, c.n, ways.s.n, c.nt), seed, item, k, to);
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
