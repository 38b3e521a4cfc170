// Viterbi: one block for each item; scores stay relative to their row's maximum, lest they lose digits as they grow.
// Ties go to the lowest state.
#pragma once
#include "cuda/chain_item.cuh"

namespace slv::cuda {

template <class T>
struct Best {
  T score;
  int state;
  // Takes over a better candidate.
  SLV_DEVICE void meet(T other, int where) {
    if (other > score || (other == score && where < state)) score = other, state = where;
  }
};
constexpr int kNoState = INT32_MAX;

// `Resident`: the transition is copied to shared memory once.
template <class T, bool Resident>
SLV_KERNEL(kMaxThreads)
chain_argmax(Chain<T> c, int* from, int64_t* states) {
  Shared shared;
  const Thread me;
  const int64_t b = blockIdx.x;
  const int k = c.k, stride = Resident ? stride_of(k) : k;
  const Item<T> item(c, b);
  T* rows = shared.take<T>(2 * k);  // scores of this step and of the one before
  T* tops = shared.take<T>(2 * kMaxWarps);
  T* copy = Resident ? shared.take<T>(k * stride) : nullptr;
  for (int i = me.warp; Resident && i < k; i += me.warps)
    for (int j = me.lane; j < k; j += 32) copy[i * stride + j] = item.transition[i * k + j];
  int64_t* out = states + b * c.n;
  for (int t = item.len + me.index; t < c.n; t += int(blockDim.x)) out[t] = -1;
  for (int t = 0; t < item.len; t++) {
    const T* before = rows + (t + 1) % 2 * k;
    T *now = rows + t % 2 * k, top = -infinity<T>();
    const T most = t > 0 ? max_of_parts(tops + (t + 1) % 2 * kMaxWarps, me.warps) : T(0);
    const T shift = most > -infinity<T>() ? most : T(0);
    const T* a = Resident ? copy : item.edges(t > 0 ? t - 1 : 0);
    for (int first = me.warp * kTileColumns; first < k; first += me.warps * kTileColumns) {
      const int j = first + me.column;
      Best<T> best{t > 0 ? -infinity<T>() : T(0), kNoState};
      for (int i = me.row; t > 0 && i < k && j < k; i += kTileRows) best.meet(before[i] + a[i * stride + j], i);
      SLV_UNROLL for (int mask = 8; mask < 32; mask *= 2)
          best.meet(shuffle_xor(best.score, mask), shuffle_xor(best.state, mask));
      if (me.row > 0 || j >= k) continue;
      const T score = best.score + (item.u(t, j) - shift);
      now[j] = score;
      from[(b * c.n + t) * k + j] = best.state;
      top = larger(top, score);
    }
    top = warp_max(top);
    if (me.lane == 0) tops[t % 2 * kMaxWarps + me.warp] = top;
    sync_block();
  }
  if (me.warp > 0 || item.len == 0) return;
  Best<T> end{-infinity<T>(), kNoState};
  for (int i = me.lane; i < k; i += 32) end.meet(rows[(item.len - 1) % 2 * k + i], i);
  SLV_UNROLL for (int mask = 1; mask < 32; mask *= 2)
      end.meet(shuffle_xor(end.score, mask), shuffle_xor(end.state, mask));
  const bool none = !(end.score > -infinity<T>());
  for (int t = me.lane; none && t < item.len; t += 32) out[t] = -1;
  int state = end.state;
  for (int t = item.len - 1; !none && me.lane == 0 && t >= 0; t--) {
    out[t] = state;
    state = from[(b * c.n + t) * k + state];
  }
}

}  // namespace slv::cuda
