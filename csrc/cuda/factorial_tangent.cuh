// Hessian-vector products: the covariance of the parts with f = <v, parts>, by conditional expectations of f's prefix
// and suffix, as in chain_tangent.cuh, a chain's move being a step:
//   prefix(j) = E[f up to here | j], suffix(i) = E[f from here | i];
//   cov(part) = p(part) (prefix + v(part) + suffix - E f).
#pragma once
#include "cuda/factorial_backward.cuh"

namespace slv::cuda {

// What second order has beside the sums of a step: prefixes before each move (m, S), and two spaced rows of suffixes.
template <class T>
SLV_BOTH int64_t tangent_size(const Factorial<T>& c) {
  return backward_size(c) + int64_t(c.m) * c.states + 2 * int64_t(spaced<double>(c.states));
}

// The mean of f up to joint state z after a move, from the means before it; d: the direction of its matrix.
template <class T>
SLV_DEVICE double mean_into(const Move<T>& move, const T* d, const double* from, const double* means, int z,
                            const LogSum& x) {
  const int j = move.state(z), base = z - j * move.inner;
  double mean = 0;
  for (int i = 0; i < move.k && x.possible(); i++) {
    const int at = base + i * move.inner, e = i * move.k + j;
    const double p = exp(from[at] + double(move.a[e]) - x.top);
    if (p > 0) mean += p * (means[at] + double(d[e]));
  }
  return x.possible() ? mean / x.sum : 0;
}

template <class T>
SLV_KERNEL(kLogThreads)
factorial_tangent(Factorial<T> c, Beginnings s, Direction<T> direction, JointPosterior<T> out) {
  Shared shared;
  const Thread me;
  const int64_t place = blockIdx.x, b = s.first + place;
  const int states = c.states, stride = int(blockDim.x);
  double* parts = shared.take<double>(2 * kMaxWarps);
  double* memory = s.spill ? s.spill + place * tangent_size(c) : shared.take<double>(int(tangent_size(c)));
  const StepSums step(c, memory);
  double *means = memory + backward_size(c), *suffix = means + int64_t(c.m) * states, *before = suffix + step.row;
  const JointItem<T> item(c, b), f(direction.v, b);
  const Results<T> results(me, c, out, place, b, item.len);
  results.clear(me);
  auto row = [&](double* of_all, int t) { return of_all + (place * c.n + t) * states; };
  // the direction of a move's matrix, from t to t + 1
  auto of_move = [&](const Move<T>& move, int t) {
    return f.transition + int64_t(f.c.per_step ? t : 0) * c.edges + move.edge;
  };
  // the means of f before a move from step t
  auto means_of = [&](int chain, int t) { return chain == 0 ? row(direction.prefix, t) : means + chain * states; };
  // the sums of the step from t to t + 1 and the means before and after its moves
  auto sum_step = [&](int t, double* after) {
    sum_moves(me, item, row(s.alpha, t), step, [&](const Move<T>& move, const double* from, int z, const LogSum& x) {
      const bool last = move.chain == c.m - 1;
      if (last && !after) return;
      const double mean = mean_into(move, of_move(move, t), from, means_of(move.chain, t), z, x);
      if (last)
        after[z] = mean + f.template u<double>(t + 1, z);
      else
        means[(move.chain + 1) * states + z] = mean;
    });
  };

  const int end = item.len - 1;
  for (int z = me.index; z < states && end >= 0; z += stride) {
    row(direction.prefix, 0)[z] = f.template u<double>(0, z);
    step.mu[z] = 0;
  }
  sync_block();
  for (int t = 0; t < end; t++) sum_step(t, row(direction.prefix, t + 1));
  double mean = 0;
  if (end >= 0) end_posterior(me, parts, states, row(s.alpha, end), step.mu);
  for (int z = me.index; z < states && end >= 0; z += stride)
    if (step.mu[z] > 0) mean += step.mu[z] * row(direction.prefix, end)[z];
  mean = warp_sum(mean);
  sync_block();
  if (me.lane == 0) parts[me.warp] = mean;
  sync_block();
  mean = sum_of_parts(parts, me.warps);
  if (me.index == 0) direction.mean[b] = T(mean);

  auto put = [&](int t, int z) {
    const double mu = step.mu[z];
    results.put(t, z, mu > 0 ? mu * (row(direction.prefix, t)[z] + suffix[spaced<double>(z)] - mean) : 0);
  };
  for (int z = me.index; z < states && end >= 0; z += stride) {
    suffix[spaced<double>(z)] = 0;
    put(end, z);
  }
  for (int t = end - 1; t >= 0; t--) {
    for (int z = me.index; z < states; z += stride) suffix[spaced<double>(z)] += f.template u<double>(t + 1, z);
    sum_step(t, nullptr);
    double* edges = results.partial + partial_size(c, me.warps);
    item.each_move_back([&](const Move<T>& move) {
      edges -= Tiles(move.k, states / move.k, me.warps).size(move.k);
      const T* d = of_move(move, t);
      const double* prefix = means_of(move.chain, t);
      double behind = 0, ahead = 0;
      spread(
          me, item, move, row(s.alpha, t), step, edges, [&](int z) { behind = prefix[z] - mean, ahead = 0; },
          [&](int i, int j, int to, double p) {
            const double rest = double(d[i * move.k + j]) + suffix[to];
            ahead += p * rest;
            return p * (rest + behind);
          },
          [&](int z, double mu) {
            before[spaced<double>(z)] = mu > 0 ? ahead / mu : 0;
            if (move.chain > 0)
              put_weight(step, move.chain, z, mu);
            else
              step.mu[z] = mu;
          });
      sync_block();
      double* const other = suffix;
      suffix = before, before = other;
    });
    for (int z = me.index; z < states; z += stride) put(t, z);
  }
  results.put_edges(me, 0);
}

}  // namespace slv::cuda
