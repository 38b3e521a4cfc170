// The backward pass in the scaled linear domain, from the chart of the forward pass: one block for each item.
//   g_t = e_t beta_t s_t      beta_t = A_1 ... A_m g_t+1      from beta_len-1 = 1 / Z
// so that alpha_t beta_t are the marginals; factorial_edges.cuh makes those of edges from alpha_t and g_t+1.
#pragma once
#include "cuda/factorial_scan.cuh"

namespace slv::cuda {

// Rounding makes the mass of a step drift from 1 as a random walk: it is set right every so many steps.
constexpr int kRenewJoint = 32;

template <class T>
SLV_KERNEL(kMaxThreads)
factorial_adjoint(Factorial<T> c, JointScaled<T> s, ItemRange<T> range, bool room, JointAdjoint<T> a) {
  Shared shared;
  const Thread me;
  const int64_t place = blockIdx.x, b = range.first + place, row = c.matrix.row(b);
  const int states = c.states;
  const JointItem<T> item(c, b);
  T* masses = shared.take<T>(kMaxWarps);
  T* from = range.spill ? range.spill + place * scan_size(c) : shared.take<T>(int(scan_size(c)));
  T* to = from + spaced<T>(states);
  const T weight = T(a.weight ? a.weight[b] : 1.0), inverse = s.inverse[b];
  for (int64_t z = int64_t(item.len) * states + me.index; z < int64_t(c.n) * states; z += blockDim.x)
    a.unary[b * c.n * states + z] = 0;
  const bool left = !(inverse == inverse);
  if (left || item.len == 0) {
    if (me.index == 0) a.redo[b] = left;
    return;
  }
  const T* matrices = resident(me, shared, room, s.back + row * c.padded, c.padded);
  const bool wide = s.kind[row] == kWide;
  bool bad = false;
  T factor = 1;
  // no barrier: the last step needs no matrix
  for (int t = item.len - 1; t >= 0; t--) {
    const int64_t at = b * c.n + t;
    const bool last = t == item.len - 1, renew = t % kRenewJoint == 0;
    const T n = s.row_exponent[at], scale = s.scale[at], *alpha = s.alpha + at * states;
    T *unary = a.unary + at * states, *g = a.g + (place * c.n + t) * states, mass = 0;
    if (!last)
      item.each_move_back([&](const Move<T>& move) {
        move_along(me, move, states, matrices, from, to);
        sync_block();
        T* const other = from;
        from = to, to = other;
      });
    for (int z = me.index; z < states; z += int(blockDim.x)) {
      bool lost = false;
      T& value = from[spaced<T>(z)];
      const T beta = last ? inverse : value * factor, own = alpha[z];
      T x = exp_of(item, t, z, n, lost) * (beta * scale), mu = beta * own;
      if (wide) {
        const bool live = own > T(0);
        x = live ? x : T(0);
        mu = live ? mu : T(0);
        if (live && beta != T(0) && x < T(Range<T>::tiny)) bad = true;
      }
      value = x;
      g[z] = x;
      unary[z] = mu * weight;
      mass += mu;
    }
    if (renew) {
      mass = warp_sum(mass);
      if (me.lane == 0) masses[me.warp] = mass;
    }
    sync_block();
    factor = 1;
    if (renew && t > 0) {
      const T total = sum_of_parts(masses, me.warps);
      if (total > T(0.99) && total < T(1.01)) factor = 1 / total;
    }
  }
  bad = sync_block_or(bad);
  if (me.index == 0) a.redo[b] = bad;
}

}  // namespace slv::cuda
