// The backward pass in the scaled linear domain, from the chart of the forward pass: one block for each item.
//   g_t = e_t beta_t s_t      beta_t = A_1 ... A_m g_t+1      from beta_len-1 = 1 / Z
// so that alpha_t beta_t are the marginals; factorial_edges.cuh makes those of edges from alpha_t and g_t+1.
#pragma once
#include "cuda/adjoint_step.cuh"
#include "cuda/factorial_scan.cuh"

namespace slv::cuda {

template <class T>
SLV_KERNEL(kMaxThreads)
factorial_adjoint(Factorial<T> c, JointScaled<T> s, ItemRange<T> range, bool room, JointAdjoint<T> a) {
  Shared shared;
  const Thread me;
  const int64_t place = blockIdx.x, b = range.first + place, row = c.matrix.row(b);
  const int states = c.states;
  const JointItem<T> item(c, b);
  AdjointStep<T> step(shared);
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
  step.wide = s.kind[row] == kWide;
  // no barrier: the last step needs no matrix
  for (int t = item.len - 1; t >= 0; t--) {
    const int64_t at = b * c.n + t;
    const bool last = t == item.len - 1;
    const T n = s.row_exponent[at], scale = s.scale[at], *alpha = s.alpha + at * states;
    T *unary = a.unary + at * states, *g = a.g + (place * c.n + t) * states;
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
      const T beta = last ? inverse : value * step.factor;
      T mu;
      value = step.meet(alpha[z], beta, exp_of(item, t, z, n, lost), scale, mu);
      g[z] = value;
      unary[z] = mu * weight;
    }
    step.finish(me, t);
  }
  const bool bad = sync_block_or(step.bad);
  if (me.index == 0) a.redo[b] = bad;
}

}  // namespace slv::cuda
