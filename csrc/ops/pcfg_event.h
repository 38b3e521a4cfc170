// Trees given by a caller: read row by row, and never believed.
#pragma once
#include <cstdint>
#include <vector>

#include "kernels/pcfg.h"

namespace slv {

// Calls root(A), rule(i, j, A, y, z), leaf(i, y - nt) for the parts of a tree over `len` words, until the rows stop
// being a tree in pre-order: then false.
template <class R, class N, class L>
bool walk_tree(const int64_t* event, int64_t len, int64_t nt, int64_t s, R&& root, N&& rule, L&& leaf) {
  struct Expected {
    int64_t i, j, parent;  // a span, and the row of the parent of which it is the right child; -1: of none
  };
  if (len < 2) return false;
  std::vector<Expected> stack{{0, len - 1, -1}};
  for (int64_t row = 0; row < 2 * len - 1; row++) {
    const int64_t *at = event + 3 * row, i = at[0], j = at[1], symbol = at[2];
    if (stack.empty() || i != stack.back().i || j != stack.back().j) return false;
    const int64_t parent = stack.back().parent;
    stack.pop_back();
    if (symbol < (i == j ? nt : 0) || symbol >= (i == j ? s : nt)) return false;
    if (row == 0) root(symbol);
    if (parent >= 0) {
      const int64_t* up = event + 3 * parent;
      rule(up[0], up[1], up[2], up[5], symbol);
    }
    if (i == j) {
      leaf(i, symbol - nt);
      continue;
    }
    const int64_t k = at[4];  // the next row is the left child, if this is a tree
    if (k < i || k >= j) return false;
    stack.push_back({k + 1, j, row});
    stack.push_back({i, k, -1});
  }
  return stack.empty();
}
// The same, and no call at all where the rows are not a tree.
template <class R, class N, class L>
bool each_tree_part(const int64_t* event, int64_t len, int64_t nt, int64_t s, R&& root, N&& rule, L&& leaf) {
  auto nothing = [](auto...) {};
  return walk_tree(event, len, nt, s, nothing, nothing, nothing) && walk_tree(event, len, nt, s, root, rule, leaf);
}

}  // namespace slv
