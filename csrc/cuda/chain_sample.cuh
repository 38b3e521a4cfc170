// Forward filtering, backward sampling (Carter & Kohn 1994): one warp for each item and sample, from the chart of the
// forward pass. State i is drawn with weight alpha_t(i) P(i, next): the first, in index order, whose cumulative weight
// exceeds u * total. The uniforms are those of core/philox.h, the same bits as on the CPU.
#pragma once
#include "core/philox.h"
#include "cuda/chain_log.cuh"

namespace slv::cuda {

// The uniform of each position, from the last to the first: four positions share a block of random bits.
struct Uniforms {
  uint64_t seed;
  uint32_t item, sample;
  uint32_t word[4][1] = {};
  int block = -1;
  template <class T>
  SLV_DEVICE T at(int t) {
    if (t >> 2 != block) {
      block = t >> 2;
      word[0][0] = uint32_t(block), word[1][0] = item, word[2][0] = sample, word[3][0] = 0;
      philox<1>(seed, word);
    }
    const int q = t & 3;
    return uniform<T>(q == 0 ? word[0][0] : q == 1 ? word[1][0] : q == 2 ? word[2][0] : word[3][0]);
  }
};

// One draw by a warp from weight(i), i < k; -1 where all are 0. `below_one` is the largest number under 1.
template <class A, class W>
SLV_DEVICE int draw(const Thread& me, int k, A u, A below_one, W&& weight) {
  A total = 0;
  for (int i = me.lane; i < k; i += 32) total += weight(i);
  total = warp_sum(total);
  const A target = u * total < total ? u * total : total * below_one;
  A below = 0;
  int last = -1;  // the last state that has weight: rounding may leave no sum above the target
  for (int first = 0; first < k; first += 32) {
    const int i = first + me.lane;
    const A w = i < k ? weight(i) : A(0);
    A sum = w;
    for (int delta = 1; delta < 32; delta *= 2) {
      const A other = shuffle_up(sum, delta);
      if (me.lane >= delta) sum += other;
    }
    sum += below;
    const uint32_t live = ballot(w > A(0)), hit = ballot(w > A(0) && sum > target);
    if (hit) return first + simt::first_of(hit);
    if (live) last = first + simt::last_of(live);
    below = shuffle(sum, 31);
  }
  return last;
}

// What a warp of a sampling kernel does.
struct Pair {
  int64_t item, sample;
  bool exists;
  SLV_DEVICE Pair(const Thread& me, int64_t first, int64_t items, int64_t samples) {
    const int64_t index = int64_t(blockIdx.x) * me.warps + me.warp;
    item = first + index % items, sample = index / items;
    exists = sample < samples;
  }
};

template <class T, bool Stepwise>
SLV_KERNEL(256)
chain_sample(Chain<T> c, Scaled<T> s, uint64_t seed, int64_t samples, int64_t* states, int width) {
  const Thread me;
  const Pair pair(me, 0, c.batch, samples);
  if (!pair.exists) return;
  const int64_t b = pair.item;
  if (s.meta[b * kMeta + 1] != T(0)) return;  // log_sample does it
  const Item<T> item(c, b);
  const int k = c.k;
  int64_t* out = states + (pair.sample * c.batch + b) * c.n;
  const bool possible = s.meta[b * kMeta] > T(0);
  for (int t = (possible ? item.len : 0) + me.lane; t < c.n; t += 32) out[t] = -1;
  Uniforms uniforms{seed, uint32_t(b), uint32_t(pair.sample)};
  int next = -1;
  for (int t = item.len - 1; possible && t >= 0; t--) {
    const T u = uniforms.template at<T>(t);
    const T* alpha = s.alpha + (b * c.n + t) * width;
    const T below_one = 1 - power_of_two<T>(-Float<T>::mantissa);
    next = draw<T>(me, k, u, below_one, [&](int i) {
      if (next < 0) return alpha[i];
      if (Stepwise) return alpha[i] * exp_scaled(item.edges(t)[int64_t(i) * k + next], s.exponent[item.matrix + t]);
      return alpha[i] * s.into[item.matrix * k * k + int64_t(next) * k + i];
    });
    if (me.lane == 0) out[t] = next;
    if (next < 0) break;
  }
}

template <class T>
SLV_KERNEL(256)
chain_log_sample(Chain<T> c, LogSpace<T> l, uint64_t seed, int64_t samples, int64_t* states) {
  const Thread me;
  const Pair pair(me, l.first, l.count, samples);
  if (!pair.exists || skipped(l, pair.item)) return;
  const int64_t b = pair.item;
  const Item<T> item(c, b);
  const int k = c.k;
  int64_t* out = states + (pair.sample * c.batch + b) * c.n;
  for (int t = me.lane; t < c.n; t += 32) out[t] = -1;
  sync_warp();
  Uniforms uniforms{seed, uint32_t(b), uint32_t(pair.sample)};
  int next = -1;
  for (int t = item.len - 1; t >= 0; t--) {
    const int64_t row = log_row(c, l, b, t);
    auto score = [&](int i) {
      const double alpha = log_alpha(item, l, row, t, i);
      return next < 0 ? alpha : alpha + double(item.edges(t)[int64_t(i) * k + next]);
    };
    double top = -HUGE_VAL;
    for (int i = me.lane; i < k; i += 32) top = larger(top, score(i));
    top = warp_max(top);
    if (!(top > -HUGE_VAL)) break;  // only at the last step: no structure at all
    const double u = double(uniforms.template at<T>(t));
    next = draw<double>(me, k, u, 1 - 0x1p-53, [&](int i) { return exp(score(i) - top); });
    if (me.lane == 0) out[t] = next;
    if (next < 0) break;
  }
}

}  // namespace slv::cuda
