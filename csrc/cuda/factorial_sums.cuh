// Sums over the items of a row, in one order: of edges, and of initial scores.
#pragma once
#include "cuda/factorial_forward.cuh"

namespace slv::cuda {

// 8 threads for each of 32 elements of a row: each adds up an eighth of what the row's items have, piece by piece, then
// one adds the eighths to what earlier ranges of items have left in `sums`.
template <class T>
SLV_KERNEL(256)
factorial_sum_edges(Factorial<T> c, Beginnings s, RowMap rows, const double* counts, int pieces, double* sums, T* out) {
  Shared shared;
  double* parts = shared.take<double>(256);
  const Thread me;
  const int tiles = (c.edges + 31) / 32;
  const int64_t row = blockIdx.x / unsigned(tiles), all = int64_t(rows.items_of_row()) * pieces;
  const int e = int(blockIdx.x % unsigned(tiles)) * 32 + me.lane;
  double sum = 0;
  for (int64_t q = all * me.warp / 8; q < all * (me.warp + 1) / 8 && e < c.edges; q++) {
    const int64_t item = q / pieces, place = rows.item(row, item) - s.first;
    if (place >= 0 && place < s.count) sum += counts[(place * pieces + (q - item * pieces)) * c.edges + e];
  }
  parts[me.index] = sum;
  sync_block();
  if (me.warp > 0 || e >= c.edges) return;
  for (int q = 1; q < 8; q++) sum += parts[q * 32 + me.lane];
  if (s.first > 0) sum += sums[row * c.edges + e];
  if (s.first + s.count < c.batch)
    sums[row * c.edges + e] = sum;
  else
    out[row * c.edges + e] = T(sum);
}

// A block for each state of each chain of a row.
template <class T>
SLV_KERNEL(256)
factorial_sum_starts(Factorial<T> c, RowMap rows, const T* unary, T* out) {
  Shared shared;
  double* parts = shared.take<double>(kMaxWarps);
  const Thread me;
  const int64_t row = blockIdx.x / unsigned(c.ends);
  int state = int(blockIdx.x % unsigned(c.ends)), chain = 0, inner = c.states / c.sizes[0];
  for (; state >= c.sizes[chain]; inner /= c.sizes[chain]) state -= c.sizes[chain++];
  const int k = c.sizes[chain], rest = c.states / k;
  double sum = 0;
  for (int64_t x = me.index; x < int64_t(rows.items_of_row()) * rest && c.n > 0; x += blockDim.x) {
    const int64_t q = x / rest;
    const int r = int(x - q * rest), z = (r / inner * k + state) * inner + r % inner;
    sum += double(unary[rows.item(row, q) * c.n * c.states + z]);
  }
  sum = warp_sum(sum);
  if (me.lane == 0) parts[me.warp] = sum;
  sync_block();
  if (me.index == 0) out[blockIdx.x] = T(sum_of_parts(parts, me.warps));
}

}  // namespace slv::cuda
