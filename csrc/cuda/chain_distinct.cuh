// Paths without replacement: those of the k largest perturbed log-probabilities, found best-first (the argument is in
// kernels/gumbel_top_k.h). One warp for each item: what is opened next depends on what was found before, but a
// beginning is weighed, perturbed and put among the others by all lanes at once. The frontier is no heap: the best is
// looked for.
#pragma once
#include "cuda/chain_distinct.h"
#include "cuda/chain_log.cuh"
#include "cuda/noise_gumbel.cuh"

namespace slv::cuda {

constexpr uint32_t kDistinctStream = 5;  // of Philox, as on the CPU

SLV_DEVICE double distinct_noise(uint64_t seed, int64_t item, uint32_t opening, int choice) {
  uint32_t word[4][1] = {{uint32_t(choice) >> 2}, {uint32_t(item)}, {opening}, {kDistinctStream}};
  philox<1>(seed, word);
  const int q = choice & 3;
  return gumbel_of(q == 0 ? word[0][0] : q == 1 ? word[1][0] : q == 2 ? word[2][0] : word[3][0], double());
}
// In the order of numbers.
SLV_DEVICE uint64_t order_of(double x) {
  uint64_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits >> 63 ? ~bits : bits | uint64_t(1) << 63;
}

// All beginnings that may still be wanted. Every lane has the same copy of what is not in memory.
struct Frontier {
  Beginning* all;
  int size;
  double least = -HUGE_VAL;  // what is below it cannot be wanted

  SLV_DEVICE bool worse(int a, int b) const {
    const Beginning &x = all[a], &y = all[b];
    if (x.perturbed != y.perturbed) return x.perturbed < y.perturbed;
    return x.parent != y.parent ? x.parent > y.parent : x.choice > y.choice;
  }
  SLV_DEVICE Beginning pop(const Thread& me) {
    int at = me.lane < size ? me.lane : 0;
    for (int e = me.lane + 32; e < size; e += 32) at = worse(at, e) ? e : at;
    SLV_UNROLL for (int mask = 16; mask > 0; mask /= 2) {
      const int other = shuffle_xor(at, mask);
      at = worse(at, other) ? other : at;
    }
    const Beginning best = all[at], last = all[size - 1];
    size--;
    sync_warp();
    if (me.lane == 0) all[at] = last;
    sync_warp();
    return best;
  }
  // Those of the lanes that have one, in their order; seen after the next barrier.
  SLV_DEVICE void push(const Thread& me, bool mine, const Beginning& x, int64_t width) {
    const uint32_t lanes = ballot(mine);
    const int at = size + simt::count_of(lanes & ((uint32_t(1) << me.lane) - 1));
    if (mine && at < width) all[at] = x;
    size += simt::count_of(lanes);
    size = size < width ? size : int(width);
  }
  // Keeps the `wanted` best: the value of the last of them is found bit by bit.
  SLV_DEVICE void prune(const Thread& me, int64_t wanted) {
    uint64_t last = 0;
    for (int bit = 63; bit >= 0; bit--) {
      const uint64_t tried = last | uint64_t(1) << bit;
      int above = 0;
      for (int e = me.lane; e < size; e += 32) above += order_of(all[e].perturbed) >= tried;
      if (warp_sum(above) >= wanted) last = tried;
    }
    const int count = size;
    size = 0;
    for (int first = 0; first < count; first += 32) {
      const int e = first + me.lane;
      const Beginning x = all[e < count ? e : 0];
      const bool keep = e < count && order_of(x.perturbed) >= last;
      sync_warp();
      push(me, keep, x, count);
      if (keep && order_of(x.perturbed) == last) least = x.perturbed;
      sync_warp();
    }
    least = warp_max(least);
  }
};

template <class T>
SLV_KERNEL(32)
chain_distinct(Chain<T> c, LogSpace<T> l, Distinct d) {
  const Thread me;
  const int64_t b = l.first + blockIdx.x;
  const Item<T> item(c, b);
  const int k = c.k;
  double* memory = d.memory + int64_t(blockIdx.x) * d.stride;
  Frontier frontier{reinterpret_cast<Beginning*>(memory), 1};
  OpenedBeginning* opened = reinterpret_cast<OpenedBeginning*>(memory + 4 * d.width);
  if (me.lane == 0) frontier.all[0] = {distinct_noise(d.seed, b, 0, 0), 0, item.len, -1, -1, 0};
  for (int64_t rank = 0; rank < d.rows; rank++) {
    const int64_t row = rank * c.batch + b;
    for (int t = me.lane; t < c.n; t += 32) d.states[row * c.n + t] = -1;
    if (me.lane == 0) d.perturbed[row] = -HUGE_VAL;
  }
  sync_warp();
  uint32_t openings = 0;
  int number = 0;
  for (int64_t rank = 0; rank < d.count && frontier.size > 0 && number < d.opened; number++) {
    const Beginning from = frontier.pop(me);
    if (me.lane == 0) opened[number] = {from.choice, from.parent};
    if (from.t == 0) {
      const int64_t row = rank++ * c.batch + b;
      if (me.lane > 0) continue;
      d.perturbed[row] = from.perturbed;
      OpenedBeginning x = opened[number];
      for (int t = 0; t < item.len; t++) {
        d.states[row * c.n + t] = x.state;
        x = opened[x.parent];
      }
      continue;
    }
    const int t = from.t - 1;
    const int64_t at = log_row(c, l, b, t);
    auto score = [&](int i) {
      const double alpha = log_alpha(item, l, at, t, i);
      return from.choice < 0 ? alpha : alpha + double(item.edges(t)[int64_t(i) * k + from.choice]);
    };
    double top = -HUGE_VAL, sum = 0;
    int ways = 0;
    for (int i = me.lane; i < k; i += 32) top = larger(top, score(i));
    top = warp_max(top);
    if (!(top > -HUGE_VAL)) continue;
    for (int i = me.lane; i < k; i += 32) {
      const double x = score(i);
      sum += exp(x - top), ways += x > -HUGE_VAL;
    }
    const double z = top + log(warp_sum(sum));
    const bool race = warp_sum(ways) > 1;
    openings += race;
    auto log_prob = [&](int i) { return race ? score(i) - z + from.log_prob : from.log_prob; };
    auto noisy = [&](int i) { return log_prob(i) + distinct_noise(d.seed, b, openings, i); };
    double most = -HUGE_VAL;
    for (int i = me.lane; race && i < k; i += 32) most = larger(most, noisy(i));
    most = warp_max(most);
    for (int first = 0; first < k; first += 32) {
      const int i = first + me.lane;
      const bool possible = i < k && score(i) > -HUGE_VAL;
      double given = from.perturbed;
      if (possible && race) {
        // G_c = -log(exp(-G) - exp(-Z) + exp(-g_c)): given that the largest is G
        const double g = noisy(i), below = g - most;
        const double v = from.perturbed - g + log(-expm1(below));
        if (below < 0) given = from.perturbed - larger(v, 0.0) - log1p(exp(-fabs(v)));
      }
      const bool wanted = possible && (!race || given >= frontier.least);
      frontier.push(me, wanted, {given, possible ? log_prob(i) : 0, t, i, number, 0}, d.width);
    }
    sync_warp();
    if (frontier.size > 2 * (d.count - rank) + 64) frontier.prune(me, d.count - rank);
  }
}

}  // namespace slv::cuda
