// Exact samples of trees in the space of ranks: a node draws its rank, then the split, the left and the right symbol,
// as csrc/kernels/lowrank_sample.h does. A warp has one sample of one item.
#pragma once
#include "cuda/lowrank_splits.cuh"
#include "cuda/pcfg_grow.cuh"

namespace slv::cuda {

template <class T>
SLV_KERNEL(kLogThreads)
lowrank_sample(LowRank<T> g, RankInside in, uint64_t seed, int64_t samples, int64_t* events) {
  const Thread me;
  const Pair pair(me, 0, g.batch, samples);
  if (!pair.exists) return;
  const Sentence<T> s(g, pair.item);
  TreeNumbers numbers{seed, uint32_t(pair.item), uint32_t(pair.sample), {}};
  const int top = draw_top(me, s, in.nodes, numbers);
  const T *head = g.head.of(s.item), *left = g.left.of(s.item), *right = g.right.of(s.item);
  auto symbol = [&](const T* side, int q, int i, int w, uint32_t word) {
    const int first = w == 1 ? g.nt : 0;
    const T* own = side + int64_t(q) * g.s() + first;
    return first + draw_below<T>(me, w == 1 ? g.t : g.nt, word,
                                 [&](int y) { return double(own[y]) + s.below(in.nodes, i, w, first + y); });
  };
  grow_tree(
      me, g.n, s.len, top, events + (pair.sample * g.batch + s.item) * 3 * (2 * g.n - 1), [&](int i, int j, int a) {
        const int w = j - i + 1;
        numbers.at_node(i, j);
        int q = a;
        if (g.has_head()) {
          const double* ranks = in.ranks + (s.item * g.spans_of_item() + g.span(i, w)) * g.r;
          q = draw_below<T>(me, g.r, numbers.word[3][0],
                            [&](int k) { return double(head[int64_t(a) * g.r + k]) + ranks[k]; });
        }
        const Splits<T> splits{g, s.item, i, w, q};
        const int v = 1 + draw_below<T>(me, w - 1, numbers.word[0][0], [&](int k) { return splits.both(in, k + 1); });
        const int y = symbol(left, q, i, v, numbers.word[1][0]);
        const int z = symbol(right, q, i + v, w - v, numbers.word[2][0]);
        return Children{i + v - 1, y, z};
      });
}

}  // namespace slv::cuda
