// Sums over items, each formed by the one block or thread that owns its place (no atomics): the weights of edges, which
// are a product of all alpha with all g, and the gradients of initial and final scores.
#pragma once
#include "cuda/chain_adjoint.cuh"

namespace slv::cuda {

// A block of 16 x 16 threads owns a tile of 32 x 32 edges; a thread owns four of them, 16 apart.
constexpr int kEdgeSide = 16, kEdgeTile = 2 * kEdgeSide, kEdgeSteps = 16;

// What a block of an edge kernel does: a tile of the edges of one step, or of all steps, of a chunk of a row's items.
struct EdgeBlock {
  int i0, j0, step, chunk;
  int64_t row, first, last;  // of the row's items
  template <class T>
  SLV_DEVICE EdgeBlock(const Edges<T>& out, int k, int steps) {
    const int side = (k + kEdgeTile - 1) / kEdgeTile;
    int64_t index = blockIdx.x;
    j0 = int(index % side) * kEdgeTile;
    index /= side;
    i0 = int(index % side) * kEdgeTile;
    index /= side;
    step = int(index % steps);
    index /= steps;
    chunk = int(index % out.chunks);
    row = index / out.chunks;
    const int64_t items = out.rows.items_of_row(), each = (items + out.chunks - 1) / out.chunks;
    first = chunk * each < items ? chunk * each : items;
    last = first + each < items ? first + each : items;
  }
  // The step where it ends, in an item of this length.
  SLV_DEVICE int end_of(bool per_step, int len) const { return per_step && step + 1 < len ? step + 1 : len - 1; }
  SLV_DEVICE int64_t place(int chunks, int steps, int k, int i, int j) const {
    return (((row * chunks + chunk) * steps + step) * k + i) * k + j;
  }
};

// The edges that a thread owns: each(q, i, j) for q < 4 where they exist.
template <class F>
SLV_DEVICE void each_edge(const EdgeBlock& block, int k, F&& each) {
  const int x = int(threadIdx.x) % kEdgeSide, y = int(threadIdx.x) / kEdgeSide;
  SLV_UNROLL for (int q = 0; q < 4; q++) {
    const int i = block.i0 + y + q / 2 * kEdgeSide, j = block.j0 + x + q % 2 * kEdgeSide;
    if (i < k && j < k) each(q, i, j);
  }
}
// Where the sums go: to the row's piece, added to what is there or in its place.
template <class T>
SLV_DEVICE void deliver(const Edges<T>& out, const EdgeBlock& block, int steps, int k, const double (&sum)[4],
                        bool add) {
  each_edge(block, k, [&](int q, int i, int j) {
    const int64_t at = block.place(out.chunks, steps, k, i, j);
    if (out.direct)
      out.direct[at] = T(add ? double(out.direct[at]) + sum[q] : sum[q]);
    else
      out.partial[at] = add ? out.partial[at] + sum[q] : sum[q];
  });
}

// Stepwise: a transition per step, whose exponential is formed again; else it is in s.matrix.
template <class T, bool Stepwise>
SLV_KERNEL(kEdgeSide* kEdgeSide)
chain_edges(Chain<T> c, Scaled<T> s, Adjoint<T> a, Edges<T> out, int width) {
  Shared shared;
  T* left = shared.take<T>(kEdgeSteps * kEdgeTile);   // alpha of some steps
  T* right = shared.take<T>(kEdgeSteps * kEdgeTile);  // g of the steps after them
  const int k = c.k, steps = !out.per_step ? 1 : c.n - 1;
  const EdgeBlock block(out, k, steps);
  const int x = int(threadIdx.x) % kEdgeSide, y = int(threadIdx.x) / kEdgeSide;
  double sum[4] = {};
  for (int64_t q = block.first; q < block.last; q++) {
    const int64_t b = out.rows.item(block.row, q);
    const int len = length_of(c, b);
    if (a.redo[b] != T(0)) continue;
    const int from = out.per_step ? block.step : 0, to = block.end_of(out.per_step, len);
    double item[4] = {};
    for (int t0 = from; t0 < to; t0 += kEdgeSteps) {
      sync_block();
      for (int e = int(threadIdx.x); e < kEdgeSteps * kEdgeTile; e += kEdgeSide * kEdgeSide) {
        const int t = t0 + e / kEdgeTile, i = block.i0 + e % kEdgeTile, j = block.j0 + e % kEdgeTile;
        const bool inside = t < to;
        left[e] = inside && i < k ? s.alpha[(b * c.n + t) * width + i] : T(0);
        right[e] = inside && j < k ? a.g[(b * c.n + t + 1) * width + j] : T(0);
      }
      sync_block();
      T part[4] = {};
      for (int t = 0; t < kEdgeSteps; t++) {
        const T i0 = left[t * kEdgeTile + y], i1 = left[t * kEdgeTile + y + kEdgeSide];
        const T j0 = right[t * kEdgeTile + x], j1 = right[t * kEdgeTile + x + kEdgeSide];
        part[0] += i0 * j0;
        part[1] += i0 * j1;
        part[2] += i1 * j0;
        part[3] += i1 * j1;
      }
      SLV_UNROLL for (int p = 0; p < 4; p++) item[p] += double(part[p]);
    }
    const double weight = a.weight ? a.weight[b] : 1.0;
    const int64_t matrix = c.matrix.row(b) * c.steps() + (Stepwise ? block.step : 0);
    each_edge(block, k, [&](int p, int i, int j) {
      const int64_t at = (matrix * k + i) * k + j;
      const double edge = Stepwise ? double(exp_scaled(c.transition[at], s.exponent[matrix])) : double(s.matrix[at]);
      if (item[p] != 0) sum[p] += weight * (item[p] * edge);
    });
  }
  deliver(out, block, steps, k, sum, false);
}

// Adds up the pieces of each sum, in order. One thread for each element.
template <class T>
SLV_KERNEL(256)
chain_finish_edges(Edges<T> out, int64_t rows, int64_t size, T* into) {
  const int64_t e = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (e >= rows * size) return;
  double sum = 0;
  for (int q = 0; q < out.chunks; q++) sum += out.partial[(e / size * out.chunks + q) * size + e % size];
  into[e] = T(sum);
}

// 8 threads for each of 32 states of a row: each adds up an eighth of the row's items, then one adds the eighths.
template <class T>
SLV_KERNEL(256)
chain_ends(Chain<T> c, RowMap rows, const T* unary, bool last, T* out) {
  Shared shared;
  double* parts = shared.take<double>(256);
  const int tiles = (c.k + 31) / 32, lane = int(threadIdx.x) % 32, eighth = int(threadIdx.x) / 32;
  const int64_t row = blockIdx.x / tiles, items = rows.items_of_row();
  const int i = int(blockIdx.x % tiles) * 32 + lane;
  double sum = 0;
  for (int64_t q = items * eighth / 8; q < items * (eighth + 1) / 8 && i < c.k; q++) {
    const int64_t b = rows.item(row, q);
    const int len = length_of(c, b);
    if (len > 0) sum += double(unary[(b * c.n + (last ? len - 1 : 0)) * c.k + i]);
  }
  parts[threadIdx.x] = sum;
  sync_block();
  if (eighth > 0 || i >= c.k) return;
  for (int q = 1; q < 8; q++) sum += parts[q * 32 + lane];
  out[row * c.k + i] = T(sum);
}

}  // namespace slv::cuda
