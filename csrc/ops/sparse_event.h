// Trees with unary rules given by a caller: read row by row, and never believed.
#pragma once
#include <cstdint>
#include <vector>

#include "kernels/sparse_pcfg.h"

namespace slv {

// The row of A -> y z (or y alone: z = -1) in the index, or -1.
inline int64_t find_rule(const SparseGrammar& g, int64_t a, int64_t y, int64_t z) {
  int64_t low = g.down[g.place[a]], high = g.down[g.place[a] + 1];
  auto before = [&](int64_t d) {  // is rule d in front of A -> y z?
    const bool unary = g.second[d] < 0;
    if (unary != (z < 0)) return !unary;
    const int64_t first = g.symbol[g.first[d]];
    if (first != y) return first < y;
    return !unary && g.symbol[g.second[d]] < z;
  };
  const int64_t end = high;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (before(middle))
      low = middle + 1;
    else
      high = middle;
  }
  if (low == end || g.symbol[g.first[low]] != y) return -1;
  const int64_t second = g.second[low] < 0 ? -1 : g.symbol[g.second[low]];
  return second == (z < 0 ? -1 : z) ? g.down_rule[low] : -1;
}

// Calls root(A), node(i, j, A) for i < j, constituent(i, j) for i < j, rule(row of the index), leaf(i, y -
// nonterminals) for the parts of a tree over `len` words, until the rows stop being a tree of the grammar in pre-order:
// then false.
template <class R, class N, class C, class Q, class L>
bool walk_sparse_tree(const SparseGrammar& g, const int64_t* event, int64_t rows, int64_t len, R&& root, N&& node,
                      C&& constituent, Q&& rule, L&& leaf) {
  struct Expected {
    int64_t i, j, parent, left;  // a span; of a right child its parent and the left child, else -1
  };
  if (len < 1) return false;
  std::vector<Expected> stack{{0, len - 1, -1, -1}};
  for (int64_t r = 0; r < rows && !stack.empty(); r++) {
    const int64_t *at = event + 3 * r, i = at[0], j = at[1], symbol = at[2];
    const Expected x = stack.back();
    stack.pop_back();
    if (i != x.i || j != x.j || symbol < 0 || symbol >= g.symbols) return false;
    if (x.left >= 0) {
      const int64_t found = find_rule(g, x.parent, x.left, symbol);
      if (found < 0) return false;
      rule(found);
    }
    if (symbol >= g.nonterminals) {
      if (i != j || r == 0) return false;
      leaf(i, symbol - g.nonterminals);
      continue;
    }
    if (r == 0) root(symbol);
    if (i < j) node(i, j, symbol);
    if (r + 1 == rows || at[3] != i || at[4] < i || at[4] > j || at[5] < 0 || at[5] >= g.symbols) return false;
    if (at[4] == j) {
      const int64_t found = find_rule(g, symbol, at[5], -1);
      if (found < 0) return false;
      rule(found);
      stack.push_back({i, j, -1, -1});
    } else {
      constituent(i, j);
      stack.push_back({at[4] + 1, j, symbol, at[5]});
      stack.push_back({i, at[4], -1, -1});
    }
  }
  return stack.empty();
}
// The same, and no call at all where the rows are not a tree.
template <class R, class N, class C, class Q, class L>
bool each_sparse_part(const SparseGrammar& g, const int64_t* event, int64_t rows, int64_t len, R&& root, N&& node,
                      C&& constituent, Q&& rule, L&& leaf) {
  auto nothing = [](auto...) {};
  return walk_sparse_tree(g, event, rows, len, nothing, nothing, nothing, nothing, nothing) &&
         walk_sparse_tree(g, event, rows, len, root, node, constituent, rule, leaf);
}

}  // namespace slv
