// Backward sampling with Gumbel noise, hard and relaxed at once (Fu, Tan, Bi, Rush, Wang & Liu 2020, "Latent template
// induction with Gumbel-CRFs", section 3; see kernels/chain_relaxed.h). With l_t the filtered log-probabilities:
//   y_t(i) = l_t(i) + A_t(i, z_t+1) + G_t(i)     z_t = argmax y_t     weights_t = softmax(y_t / temperature)
#pragma once
#include "cuda/chain_filter.cuh"
#include "cuda/chain_filter.h"
#include "cuda/chain_sample.cuh"
#include "cuda/chain_viterbi.cuh"

namespace slv::cuda {

// One warp for each item and sample; a lane writes and reads its own states of each row.
template <class T, bool Stepwise>
SLV_KERNEL(256)
chain_relaxed(Chain<T> c, const T* columns, Relaxed<T> r) {
  const Thread me;
  const Pair pair(me, 0, c.batch, r.samples);
  if (!pair.exists) return;
  const Item<T> item(c, pair.item);
  const int k = c.k;
  const int64_t unit = pair.sample * c.batch + pair.item;
  int64_t* states = r.states + unit * c.n;
  T* weights = r.weights + unit * c.n * k;
  const T inverse = 1 / r.temperature[pair.item];
  for (int t = item.len + me.lane; t < c.n; t += 32) states[t] = -1;
  for (int64_t e = int64_t(item.len) * k + me.lane; e < int64_t(c.n) * k; e += 32) weights[e] = 0;
  int next = -1;
  bool possible = true;
  for (int t = item.len - 1; t >= 0; t--) {
    T* y = weights + int64_t(t) * k;
    Best<T> best{-infinity<T>(), kNoState};
    for (int i = me.lane; possible && i < k; i += 32) {
      T x = item.u(t, i) + y[i];
      if (next >= 0) x += Stepwise ? item.edges(t)[int64_t(i) * k + next] : columns[(item.matrix * k + next) * k + i];
      y[i] = x;
      best.meet(x, i);
    }
    SLV_UNROLL for (int mask = 1; mask < 32; mask *= 2)
        best.meet(shuffle_xor(best.score, mask), shuffle_xor(best.state, mask));
    possible = best.score > -infinity<T>();
    next = possible ? best.state : -1;
    if (me.lane == 0) states[t] = next;
    T sum = 0;
    for (int i = me.lane; i < k; i += 32) {
      y[i] = possible ? T(exp((y[i] - best.score) * inverse)) : T(0);
      sum += y[i];
    }
    sum = warp_sum(sum);
    for (int i = me.lane; possible && i < k; i += 32) y[i] *= 1 / sum;
  }
}

// One warp for each step of each item: samples are added up in order.
template <class T>
SLV_KERNEL(256)
chain_relaxed_backward(Chain<T> c, Relaxed<T> r, RelaxedAdjoint<T> a) {
  const Thread me;
  const WarpRow row(me, c.batch, c.n);
  if (!row.exists) return;
  const int k = c.k, len = length_of(c, row.item);
  const T inverse = 1 / r.temperature[row.item];
  T* unary = a.unary + row.index * k;
  for (int i = me.lane; i < k; i += 32) unary[i] = 0;
  double heat = 0;
  for (int64_t q = 0; q < r.samples && row.t < len; q++) {
    const int64_t at = q * c.batch * c.n + row.index;
    const T *grad = a.grad + at * k, *weights = r.weights + at * k;
    const bool possible = r.states[at] >= 0;
    T mean = 0;
    for (int i = me.lane; i < k; i += 32) mean += grad[i] * weights[i];
    mean = warp_sum(mean);
    for (int i = me.lane; i < k; i += 32) {
      const T w = weights[i], d = possible ? w * (grad[i] - mean) * inverse : T(0);
      a.change[at * k + i] = d;
      unary[i] += d;
      if (w > T(0)) heat -= double(d) * double(log(w));
    }
  }
  heat = warp_sum(heat);
  if (me.lane == 0) a.heat[row.index] = heat;
}

// One warp for each item.
template <class T>
SLV_KERNEL(256)
chain_relaxed_heat(Chain<T> c, RelaxedAdjoint<T> a) {
  const Thread me;
  const int64_t b = int64_t(blockIdx.x) * me.warps + me.warp;
  if (b >= c.batch) return;
  double sum = 0;
  for (int t = me.lane; t < c.n; t += 32) sum += a.heat[b * c.n + t];
  sum = warp_sum(sum);
  if (me.lane == 0) a.total_heat[b] = T(sum);
}

// A warp's sums: a row for each state of the tile that is led to, so far apart that a column's elements are in
// different banks.
constexpr int kSumStride = kEdgeTile + 1, kWarpSums = kEdgeTile * kSumStride;

// An edge is into the state that was drawn, so that a step of a sample adds a row to a column of the sums. A block owns
// a tile of them, each of its warps sums of its own, and a lane one state of each row.
template <class T>
SLV_KERNEL(kEdgeSide* kEdgeSide)
chain_relaxed_edges(Chain<T> c, Relaxed<T> r, RelaxedAdjoint<T> a, Edges<T> out) {
  Shared shared;
  const Thread me;
  double* all = shared.take<double>(kEdgeSide * kEdgeSide / 32 * kWarpSums);
  double* own = all + me.warp * kWarpSums;  // [to][from]
  const int k = c.k, steps = !out.per_step ? 1 : c.n - 1;
  const EdgeBlock block(out, k, steps);
  const int i = block.i0 + me.lane;
  for (int j = 0; j < kEdgeTile; j++) own[j * kSumStride + me.lane] = 0;
  for (int64_t q = block.first; q < block.last; q++) {
    const int64_t b = out.rows.item(block.row, q);
    const int from = out.per_step ? block.step : 0, count = block.end_of(out.per_step, length_of(c, b)) - from;
    for (int64_t e = me.warp; e < r.samples * count; e += me.warps) {
      const int64_t at = (e / count * c.batch + b) * c.n + from + e % count;
      const int64_t j = r.states[at + 1] - block.j0;
      if (j >= 0 && j < kEdgeTile && i < k) own[j * kSumStride + me.lane] += double(a.change[at * k + i]);
    }
  }
  sync_block();
  double sum[4] = {};
  each_edge(block, k, [&](int p, int i, int j) {
    for (int w = 0; w < me.warps; w++) sum[p] += all[w * kWarpSums + (j - block.j0) * kSumStride + i - block.i0];
  });
  deliver(out, block, steps, k, sum, true);
}

}  // namespace slv::cuda
