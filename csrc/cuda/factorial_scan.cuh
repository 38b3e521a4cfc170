// The forward pass in the scaled linear domain, in the dtype of the potentials: one block for each item, the loop over
// steps inside. Every entry is relative to a power of two:
//   e_t = exp(u_t) 2^-N_t     alpha_t = (A_m^T ... A_1^T alpha_t-1) e_t s_t     s_t = 2^-exponent(max alpha_t-1)
// A_i acts along chain i. When that is exact, and what is watched, is said in kernels/factorial_scan.h; an item that
// the domain cannot hold is flagged and done again in log space.
#pragma once
#include "cuda/factorial_scale.cuh"

namespace slv::cuda {

// Elements of a block's workspace: a table before a move, and one after it.
template <class T>
SLV_BOTH int64_t scan_size(const Factorial<T>& c) {
  return 2 * int64_t(spaced<T>(c.states));
}

template <class T>
SLV_KERNEL(kMaxThreads)
factorial_scan(Factorial<T> c, JointScaled<T> s, ItemRange<T> range, bool room, double* log_z, T* log_z_narrow) {
  Shared shared;
  const Thread me;
  const int64_t b = range.first + blockIdx.x, row = c.matrix.row(b);
  const int states = c.states, kind = s.kind[row];
  const JointItem<T> item(c, b);
  T* tops = shared.take<T>(kMaxWarps);
  T* from = range.spill ? range.spill + blockIdx.x * scan_size(c) : shared.take<T>(int(scan_size(c)));
  T* to = from + spaced<T>(states);
  const T* matrices = resident(me, shared, room, s.matrix + row * c.padded, c.padded);
  bool bad = kind == kUnusable && item.len > 0;
  double exponent = 0;  // counted by every thread alike
  // no barrier: the first step needs no matrix
  for (int t = 0; t < item.len && kind != kUnusable; t++) {
    const int64_t at = b * c.n + t;
    const T n = s.row_exponent[at];
    if (!(n == n)) {  // every thread alike
      bad = true;
      break;
    }
    exponent += double(n);
    T scale = 1, top = 0;
    if (t > 0) {
      const T most = max_of_parts(tops, me.warps);
      const int power = most >= power_of_two<T>(1 - Float<T>::bias) ? exponent_of(most) : 0;
      scale = power_of_two<T>(-power);
      exponent += double(power) + s.exponent[row];
      item.each_move([&](const Move<T>& move) {
        move_along(me, move, states, matrices, from, to);
        sync_block();
        T* const other = from;
        from = to, to = other;
      });
    }
    for (int z = me.index; z < states; z += int(blockDim.x)) {
      bool lost = false;
      T& x = from[spaced<T>(z)];
      const T sum = t > 0 ? x : T(1), e = exp_of(item, t, z, n, lost), value = sum * (e * scale);
      if (kind == kWide && sum > T(0) && (lost || (e > T(0) && value < T(Range<T>::tiny)))) bad = true;
      x = value;
      top = larger(top, value);
      if (s.alpha) s.alpha[at * states + z] = value;
    }
    top = warp_max(top);
    if (me.lane == 0) tops[me.warp] = top;
    if (s.scale && me.index == 0) s.scale[at] = scale;
    sync_block();
  }
  bad = sync_block_or(bad);
  if (me.warp > 0) return;
  double total = 0;
  for (int z = me.lane; z < states && item.len > 0 && !bad; z += 32) total += double(from[spaced<T>(z)]);
  total = item.len > 0 ? warp_sum(total) : 1;
  bad = bad || !(total < HUGE_VAL);
  if (me.lane > 0) return;
  s.inverse[b] = bad ? T(NAN) : total > 0 ? T(1 / total) : T(0);
  s.redo[b] = bad;
  if (bad) return;
  const double z = total > 0 ? log(total) + exponent * kLn2 : -HUGE_VAL;
  if (log_z) log_z[b] = z;
  if (log_z_narrow) log_z_narrow[b] = T(z);
}

}  // namespace slv::cuda
