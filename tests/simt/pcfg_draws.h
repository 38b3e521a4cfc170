// Single trees as the textbook finds them: grown from the top, one node after the other; draws by core/philox.h.
#pragma once
#include "checks.h"
#include "core/philox.h"
#include "pcfg_oracle.h"

using Event = std::vector<int64_t>;  // rows (i, j, symbol) in pre-order, -1 behind the tree

struct Chosen {
  int split, left, right;  // the left child ends with the word `split`
};

// choose(i, j, symbol) gives a node's children; a negative symbol at the top is no tree.
template <class F>
Event grow(int n, int len, int top, F&& choose) {
  Event event;
  auto node = [&](auto&& self, int i, int j, int symbol) -> void {
    for (int x : {i, j, symbol}) event.push_back(x);
    if (i == j) return;
    const Chosen c = choose(i, j, symbol);
    self(self, i, c.split, c.left);
    self(self, c.split + 1, j, c.right);
  };
  if (top >= 0) node(node, 0, len - 1, top);
  event.resize(3 * (2 * n - 1), -1);
  return event;
}

// Which of `count` alternatives a word of random bits takes, given the logs of their weights; -1 where there is none.
template <class T, class F>
int take(int count, uint32_t word, F&& score) {
  std::vector<double> weight(count);
  double most = -HUGE_VAL, sum = 0;
  for (int q = 0; q < count; q++) most = std::fmax(most, score(q));
  if (!(most > -HUGE_VAL)) return -1;
  for (int q = 0; q < count; q++) sum += weight[q] = std::exp(score(q) - most);
  return int(slv::pick(weight.data(), count, sum, double(slv::uniform<T>(word))));
}
// The words of a node's own; `stream` 2: of the top.
struct NodeWords {
  uint64_t seed;
  int64_t item, sample;
  uint32_t operator()(int i, int j, int word, uint32_t stream = 1) const {
    slv::Draws<1> draws{seed, {uint32_t(item)}, {uint32_t(sample)}, stream};
    return draws(4 * (int64_t(j) * (j + 1) / 2 + i) + word)[0];
  }
};
template <class T>
int take_top(const TreeScores& x, const TreeInside& in, const NodeWords& words) {
  if (x.len < 2) return -1;
  return take<T>(x.nt, words(0, 0, 0, 2), [&](int a) { return x.root(a) + in(0, x.len - 1, a); });
}

template <class T>
Event sampled_tree(int n, const TreeScores& x, const TreeInside& in, const NodeWords& words) {
  return grow(n, x.len, take_top<T>(x, in, words), [&](int i, int j, int a) {
    auto pair = [&](int k, int y, int z) { return x.rule(a, y, z) + in(i, k, y) + in(k + 1, j, z); };
    auto sum = [&](auto&& term) {
      double total = -HUGE_VAL;
      for (int q = 0; q < x.s(); q++) total = log_add(total, term(q));
      return total;
    };
    auto kind = [&](int y, int z) { return 2 * (y >= x.nt) + (z >= x.nt); };
    auto pairs = [&](int y, int z) {  // over all splits
      double total = -HUGE_VAL;
      for (int k = i; k < j; k++) total = log_add(total, pair(k, y, z));
      return total;
    };
    const int chosen = take<T>(4, words(i, j, 0), [&](int kinds) {
      return sum([&](int y) { return sum([&](int z) { return kind(y, z) == kinds ? pairs(y, z) : -HUGE_VAL; }); });
    });
    auto of_kind = [&](int y, int z) { return kind(y, z) == chosen ? pairs(y, z) : -HUGE_VAL; };
    auto left = [&](auto&& score) { return take<T>(x.s(), words(i, j, 1), score); };
    auto right = [&](auto&& score) { return take<T>(x.s(), words(i, j, 2), score); };
    int y, z;
    if (chosen == 1) {
      y = left([&](int y) { return sum([&](int z) { return of_kind(y, z); }); });
      z = right([&](int z) { return of_kind(y, z); });
    } else {
      z = right([&](int z) { return sum([&](int y) { return of_kind(y, z); }); });
      y = left([&](int y) { return of_kind(y, z); });
    }
    const int split = take<T>(j - i, words(i, j, 3), [&](int v) { return pair(i + v, y, z); });
    return Chosen{i + split, y, z};
  });
}

// Among equals the first by split, left symbol, right symbol.
inline Event best_tree(int n, const TreeScores& x) {
  const TreeInside in = tree_inside(x, true);
  int top = -1;
  double most = -HUGE_VAL;
  for (int a = 0; a < x.nt && x.len > 1; a++)
    if (x.root(a) + in(0, x.len - 1, a) > most) most = x.root(top = a) + in(0, x.len - 1, a);
  return grow(n, x.len, top, [&](int i, int j, int a) {
    Chosen best{};
    double score = -HUGE_VAL;
    for (int k = i; k < j; k++)
      for (int y = 0; y < x.s(); y++)
        for (int z = 0; z < x.s(); z++) {
          const double other = x.rule(a, y, z) + (in(i, k, y) + in(k + 1, j, z));
          if (other > score) score = other, best = {k, y, z};
        }
    return best;
  });
}

inline void same_tree(const int64_t* found, const Event& expected, const char* what, int64_t item) {
  for (size_t e = 0; e < expected.size(); e++) close(double(found[e]), double(expected[e]), 0, what, item);
}
