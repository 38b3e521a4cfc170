// The weights of edges in the scaled linear domain: for chain i, A_i(i, j) times the sum, over the states of the other
// chains, of x(i) y(j); x is alpha_t after A_1 .. A_i-1, y is g_t+1 after A_m .. A_i+1. A block has some steps of one
// item, whose sums are gathered in one order: nothing is added atomically.
#pragma once
#include "cuda/factorial_scale.cuh"

namespace slv::cuda {

constexpr int kEdgeChunk = 32;  // steps whose edges are added up in T

// Elements of a block's workspace: x and y of every chain (m, spaced S each), and the sums of edges.
template <class T>
SLV_BOTH int64_t joint_tables_size(const Factorial<T>& c) {
  return 2 * int64_t(c.m) * spaced<T>(c.states);
}
// How a block's threads share out the pairs (i, j) of one chain: each has one i and four j, and, where there are fewer
// of these tiles than threads, one of `slots` parts of the other chains' states, with sums of its own.
struct EdgeTiles {
  int rest, tiles, slots;
  SLV_BOTH EdgeTiles(int k, int states, int threads)
      : rest(states / k), tiles(k * (padded_row(k) / 4)), slots(threads / tiles) {
    slots = slots < 1 ? 1 : slots > rest ? rest : slots;
  }
  SLV_BOTH int64_t size() const { return int64_t(slots) * tiles * 4; }
};
template <class T>
SLV_BOTH int64_t edges_size(const Factorial<T>& c, int threads) {
  int64_t size = joint_tables_size(c);
  for (int i = 0; i < c.m; i++) size += EdgeTiles(c.sizes[i], c.states, threads).size();
  return size;
}
// Into how many pieces the steps are cut: as many as there are chunks, but where sums or tables are large.
template <class T>
SLV_BOTH int edge_pieces(const Factorial<T>& c) {
  const int64_t large = int64_t(c.edges) + 2 * int64_t(c.m) * c.states;
  const int64_t chunks = (c.n - 1 + kEdgeChunk - 1) / kEdgeChunk, most = (int64_t(1) << 20) / large;
  return chunks < 1 || most < 1 ? 1 : chunks < most ? int(chunks) : int(most);
}

// Adds one step's x(i) y(j) to the sums of a chain.
template <class T>
SLV_DEVICE void count_pairs(const Thread& me, const Move<T>& move, const EdgeTiles& tiles, const T* x, const T* y,
                            T* sums) {
  const int k = move.k, inner = move.inner, quads = padded_row(k) / 4;
  for (int unit = me.index; unit < tiles.tiles * tiles.slots; unit += int(blockDim.x)) {
    const int tile = unit / tiles.slots, slot = unit - tile * tiles.slots;
    const int i = tile / quads, first = (tile - i * quads) * 4;
    T sum[4] = {}, *own = sums + (slot * tiles.tiles + tile) * 4;
    int j[4];
    SLV_UNROLL for (int q = 0; q < 4; q++) j[q] = (first + q < k ? first + q : k - 1) * inner;
    for (int r = slot; r < tiles.rest; r += tiles.slots) {
      const int outer = r / inner, base = outer * k * inner + (r - outer * inner);
      const T left = x[spaced<T>(base + i * inner)];
      SLV_UNROLL for (int q = 0; q < 4; q++) sum[q] += left * y[spaced<T>(base + j[q])];
    }
    SLV_UNROLL for (int q = 0; q < 4; q++) own[q] += sum[q];
  }
}

template <class T>
SLV_KERNEL(kMaxThreads)
factorial_edges(Factorial<T> c, JointScaled<T> s, ItemRange<T> range, bool room, JointAdjoint<T> a,
                JointPosterior<T> out) {
  Shared shared;
  const Thread me;
  const int threads = int(blockDim.x), states = c.states, width = spaced<T>(states);
  const int64_t place = blockIdx.x / unsigned(out.pieces), b = range.first + place, row = c.matrix.row(b);
  const int piece = int(blockIdx.x % unsigned(out.pieces));
  T* x = range.spill ? range.spill + blockIdx.x * edges_size(c, threads) : shared.take<T>(int(edges_size(c, threads)));
  T *y = x + int64_t(c.m) * width, *sums = x + joint_tables_size(c);
  if (a.redo[b] != 0) return;
  const JointItem<T> item(c, b);
  const T* matrices = resident(me, shared, room, s.matrix + row * c.padded, c.padded);
  const T* backs = resident(me, shared, room, s.back + row * c.padded, c.padded);
  const int steps = c.n > 1 ? c.n - 1 : 0;
  const int64_t chunks = (steps + kEdgeChunk - 1) / kEdgeChunk;
  const int first = int(chunks * piece / out.pieces) * kEdgeChunk;
  int last = int(chunks * (piece + 1) / out.pieces) * kEdgeChunk;
  last = last < steps ? last : steps;
  const int end = last < item.len - 1 ? last : item.len - 1;
  const double weight = out.weight ? out.weight[b] : 1;
  double* counts = out.counts + (place * out.pieces + piece) * c.edges;
  T* by_step = out.steps ? out.steps + b * steps * c.edges : nullptr;
  const int64_t size = edges_size(c, threads) - joint_tables_size(c);
  for (int64_t e = me.index; e < size; e += threads) sums[e] = 0;
  for (int e = me.index; e < c.edges && !by_step; e += threads) counts[e] = 0;
  for (int64_t e = int64_t(first > end ? first : end) * c.edges + me.index; by_step && e < int64_t(last) * c.edges;
       e += threads)
    by_step[e] = 0;

  for (int t = first; t < end; t++) {
    const T *alpha = s.alpha + (b * c.n + t) * states, *g = a.g + (place * c.n + t + 1) * states;
    T* const ends = y + int64_t(c.m - 1) * width;
    for (int z = me.index; z < states; z += threads) x[spaced<T>(z)] = alpha[z], ends[spaced<T>(z)] = g[z];
    sync_block();
    // the first chain moves on and the last one back, then those after and before them
    Move<T> on = item.first(), back = item.last();
    for (int i = 0; i < c.m - 1; i++) {
      if (i > 0) on = item.after(on), back = item.before(back);
      T *to = x + int64_t(on.chain + 1) * width, *to_back = y + int64_t(back.chain - 1) * width;
      move_along(me, on, states, matrices, to - width, to);
      move_along(me, back, states, backs, to_back + width, to_back);
      sync_block();
    }
    T* own = sums;
    item.each_move([&](const Move<T>& move) {
      const EdgeTiles tiles(move.k, states, threads);
      count_pairs(me, move, tiles, x + int64_t(move.chain) * width, y + int64_t(move.chain) * width, own);
      own += tiles.size();
    });
    sync_block();
    if (!by_step && t + 1 < end && (t + 1) % kEdgeChunk != 0) continue;
    // what the slots have, together, and begun anew
    own = sums;
    item.each_move([&](const Move<T>& move) {
      const int k = move.k, stride = padded_row(k);
      const EdgeTiles tiles(k, states, threads);
      for (int e = me.index; e < k * k; e += threads) {
        const int i = e / k, in = i * stride + (e - i * k);
        double sum = 0;
        for (int q = 0; q < tiles.slots; q++) {
          T* const part = own + q * tiles.tiles * 4 + in;
          sum += double(*part);
          *part = 0;
        }
        sum *= weight * double(matrices[move.padded + in]);
        if (by_step)
          by_step[int64_t(t) * c.edges + move.edge + e] = T(sum);
        else
          counts[move.edge + e] += sum;
      }
      own += tiles.size();
    });
  }
}

}  // namespace slv::cuda
