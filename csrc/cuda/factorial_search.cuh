// Choices of paths, from the last step to the first: Viterbi, a block for each item, and samples, a warp for each item
// and sample (forward filtering, backward sampling; Carter & Kohn 1994), with the uniforms that the CPU draws.
#pragma once
#include "cuda/chain_sample.cuh"
#include "cuda/chain_viterbi.cuh"
#include "cuda/factorial_forward.cuh"

namespace slv::cuda {

// The score of the step from joint state z to `next` added to x; -1: there is none.
template <class A, class T>
SLV_DEVICE A with_step(const JointItem<T>& item, A x, int z, int next) {
  const T* a = item.transition + item.c.edges;
  for (int i = item.c.m - 1; i >= 0 && next >= 0; i--) {
    const int k = item.c.sizes[i], above = z / k, next_above = next / k;
    a -= k * k;
    x += A(a[(z - above * k) * k + next - next_above * k]);
    z = above, next = next_above;
  }
  return x;
}

template <class T>
SLV_DEVICE void meet_lanes(Best<T>& best) {
  SLV_UNROLL for (int mask = 1; mask < 32; mask *= 2)
      best.meet(shuffle_xor(best.score, mask), shuffle_xor(best.state, mask));
}

// In the input's precision (a maximum cannot underflow), relative to the maximum of the row before, lest scores lose
// digits as they grow. Ties go to the lowest joint state.
template <class T>
SLV_KERNEL(kLogThreads)
factorial_argmax(Factorial<T> c, int64_t first, T* best, T* spill, int64_t* states) {
  Shared shared;
  const Thread me;
  const int64_t place = blockIdx.x, b = first + place;
  const int joint = c.states, stride = int(blockDim.x);
  const JointItem<T> item(c, b);
  T* tops = shared.take<T>(2 * kMaxWarps);
  int* top_states = shared.take<int>(2 * kMaxWarps);
  T* rows = spill ? spill + place * forward_size(c) : shared.take<T>(int(forward_size(c)));
  int64_t* out = states + b * c.n;
  for (int t = item.len + me.index; t < c.n; t += stride) out[t] = -1;
  auto saved = [&](int t) { return best + (place * c.n + t) * joint; };
  for (int t = 0; t < item.len; t++) {
    const T most = t > 0 ? max_of_parts(tops + (t + 1) % 2 * kMaxWarps, me.warps) : T(0);
    const T shift = most > -infinity<T>() ? most : T(0);
    T top = -infinity<T>();
    auto put = [&](int z, T x) {
      x += item.template u<T>(t, z) - shift;
      saved(t)[z] = x;
      top = larger(top, x);
    };
    for (int z = me.index; t == 0 && z < joint; z += stride) put(z, T(0));
    const T* from = t > 0 ? saved(t - 1) : nullptr;
    if (t > 0)
      item.each_move([&](const Move<T>& move) {
        T* to = rows + move.chain % 2 * joint;
        for (int z = me.index; z < joint; z += stride) {
          const int j = move.state(z), base = z - j * move.inner;
          T x = -infinity<T>();
          for (int i = 0; i < move.k; i++) x = larger(x, from[base + i * move.inner] + move.a[i * move.k + j]);
          if (move.chain == c.m - 1)
            put(z, x);
          else
            to[z] = x;
        }
        if (move.chain < c.m - 1) sync_block();
        from = to;
      });
    top = warp_max(top);
    if (me.lane == 0) tops[t % 2 * kMaxWarps + me.warp] = top;
    sync_block();
  }
  int next = -1;
  for (int t = item.len - 1; t >= 0; t--) {
    Best<T> mine{-infinity<T>(), kNoState};
    for (int z = me.index; z < joint; z += stride) mine.meet(with_step(item, saved(t)[z], z, next), z);
    meet_lanes(mine);
    T* scores = tops + t % 2 * kMaxWarps;
    int* where = top_states + t % 2 * kMaxWarps;
    if (me.lane == 0) scores[me.warp] = mine.score, where[me.warp] = mine.state;
    sync_block();
    for (int w = 0; w < me.warps; w++) mine.meet(scores[w], where[w]);
    const bool none = !(mine.score > -infinity<T>());  // only at the last step: no structure at all
    for (int q = me.index; none && q < item.len; q += stride) out[q] = -1;
    if (none) return;
    next = mine.state;
    if (me.index == 0) out[t] = next;
  }
}

// The weight of the step from joint state z to `next` in the scaled domain; -1: there is none.
template <class T>
SLV_DEVICE T step_weight(const Factorial<T>& c, const T* matrices, int z, int next) {
  const T* a = matrices + c.padded;
  T w = 1;
  for (int i = c.m - 1; i >= 0 && next >= 0; i--) {
    const int k = c.sizes[i], stride = padded_row(k), above = z / k, next_above = next / k;
    a -= k * stride;
    w *= a[(z - above * k) * stride + next - next_above * k];
    z = above, next = next_above;
  }
  return w;
}
// Of the items that the scaled domain holds.
template <class T>
SLV_KERNEL(256)
factorial_sample(Factorial<T> c, JointScaled<T> s, uint64_t seed, int64_t samples, int64_t* states) {
  const Thread me;
  const Pair pair(me, 0, c.batch, samples);
  if (!pair.exists || s.redo[pair.item] != 0) return;
  const int64_t b = pair.item;
  const JointItem<T> item(c, b);
  const T* matrices = s.matrix + c.matrix.row(b) * c.padded;
  int64_t* out = states + (pair.sample * c.batch + b) * c.n;
  const int len = s.inverse[b] > T(0) ? item.len : 0;  // or no structure at all
  for (int t = len + me.lane; t < c.n; t += 32) out[t] = -1;
  Uniforms uniforms{seed, uint32_t(b), uint32_t(pair.sample)};
  int next = -1;
  for (int t = len - 1; t >= 0; t--) {
    const T* alpha = s.alpha + (b * c.n + t) * c.states;
    const T u = uniforms.template at<T>(t), below_one = 1 - power_of_two<T>(-Float<T>::mantissa);
    next = draw<T>(me, c.states, u, below_one,
                   [&](int z) { return alpha[z] > T(0) ? alpha[z] * step_weight(c, matrices, z, next) : T(0); });
    if (me.lane == 0) out[t] = next;
    if (next < 0) break;
  }
}

template <class T>
SLV_KERNEL(256)
factorial_log_sample(Factorial<T> c, Beginnings s, uint64_t seed, int64_t samples, int64_t* states) {
  const Thread me;
  const Pair pair(me, s.first, s.count, samples);
  if (!pair.exists || skipped(s, pair.item)) return;
  const int64_t b = pair.item;
  const JointItem<T> item(c, b);
  int64_t* out = states + (pair.sample * c.batch + b) * c.n;
  for (int t = me.lane; t < c.n; t += 32) out[t] = -1;
  sync_warp();
  Uniforms uniforms{seed, uint32_t(b), uint32_t(pair.sample)};
  int next = -1;
  for (int t = item.len - 1; t >= 0; t--) {
    const double* alpha = s.alpha + ((b - s.first) * c.n + t) * c.states;
    auto score = [&](int z) { return with_step(item, alpha[z], z, next); };
    double top = -HUGE_VAL;
    for (int z = me.lane; z < c.states; z += 32) top = larger(top, score(z));
    top = warp_max(top);
    if (!(top > -HUGE_VAL)) break;  // only at the last step: no structure at all
    const double u = double(uniforms.template at<T>(t));
    next = draw<double>(me, c.states, u, 1 - 0x1p-53, [&](int z) { return exp(score(z) - top); });
    if (me.lane == 0) out[t] = next;
  }
}

}  // namespace slv::cuda
