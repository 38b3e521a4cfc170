// Trees grown from the top by a warp each, whatever chooses a node's children; and the numbers that draw them.
#pragma once
#include "cuda/chain_sample.cuh"
#include "cuda/pcfg_tree.cuh"

namespace slv::cuda {

struct Children {
  int split;  // the last word of the left one
  int left, right;
};

// Writes rows (i, j, symbol) in pre-order, -1 behind the tree's end and where `root` is negative; choose(i, j, symbol)
// gives every lane a node's children. A tree over w words has 2 w - 1 rows and a node's is written before it is come
// to.
template <class F>
SLV_DEVICE void grow_tree(const Thread& me, int n, int len, int root, int64_t* event, F&& choose) {
  const int rows = root < 0 ? 0 : 2 * len - 1;
  auto write = [&](int row, int i, int j, int symbol) {
    if (me.lane > 0) return;
    event[3 * row] = i, event[3 * row + 1] = j, event[3 * row + 2] = symbol;
  };
  for (int e = 3 * rows + me.lane; e < 3 * (2 * n - 1); e += 32) event[e] = -1;
  if (rows > 0) write(0, 0, len - 1, root);
  for (int row = 0; row < rows; row++) {
    sync_warp();
    const int i = int(event[3 * row]), j = int(event[3 * row + 1]);
    if (i == j) continue;
    const Children c = choose(i, j, int(event[3 * row + 2]));
    write(row + 1, i, c.split, c.left);
    write(row + 2 * (c.split - i + 1), c.split + 1, j, c.right);
  }
}

// The numbers that draw a tree (core/philox.h): one of stream 2 for the top, four of stream 1 for each node.
struct TreeNumbers {
  uint64_t seed;
  uint32_t item, sample;
  uint32_t word[4][1];
  SLV_DEVICE void move(uint32_t place, uint32_t stream) {
    word[0][0] = place, word[1][0] = item, word[2][0] = sample, word[3][0] = stream;
    philox<1>(seed, word);
  }
  SLV_DEVICE void at_top() { move(0, 2); }
  SLV_DEVICE void at_node(int i, int j) { move(uint32_t(j) * uint32_t(j + 1) / 2 + uint32_t(i), 1); }
};

// One of `count` alternatives by a warp, given the logs of their weights; -1 where all are -inf.
template <class T, class F>
SLV_DEVICE int draw_log(const Thread& me, int count, uint32_t word, F&& score) {
  double top = -HUGE_VAL;
  for (int q = me.lane; q < count; q += 32) top = larger(top, score(q));
  top = warp_max(top);
  if (!(top > -HUGE_VAL)) return -1;
  return draw<double>(me, count, double(uniform<T>(word)), 1 - 0x1p-53, [&](int q) { return exp(score(q) - top); });
}
// The same below a node that is possible, where some alternative is.
template <class T, class F>
SLV_DEVICE int draw_below(const Thread& me, int count, uint32_t word, F&& score) {
  return larger(draw_log<T>(me, count, word, score), 0);
}
// A nonterminal at the top; -1 where no tree is possible.
template <class T>
SLV_DEVICE int draw_top(const Thread& me, const Sentence<T>& s, const double* inside, TreeNumbers& numbers) {
  if (s.len < 2) return -1;
  const T* root = s.tree.root + s.tree.root_row.row(s.item) * s.tree.nt;
  const double* node = inside + s.node(0, s.len);
  numbers.at_top();
  return draw_log<T>(me, s.tree.nt, numbers.word[0][0], [&](int a) { return double(root[a]) + node[a]; });
}

}  // namespace slv::cuda
