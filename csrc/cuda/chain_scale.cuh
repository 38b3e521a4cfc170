// The scaled domain's exponentials, all independent of one another: of the transitions, and of the unary scores. After
// them, the steps along a chain have only products left to do.
#pragma once
#include "cuda/chain_item.cuh"
#include "kernels/range.h"

namespace slv::cuda {

// The range of the finite ones among some scores, and what else there is.
template <class T>
struct ScoreRange {
  T high, low;
  bool forbidden, broken;  // some are -inf; some are NaN or +inf
  SLV_DEVICE bool empty() const { return high == -infinity<T>() && !broken; }
  SLV_DEVICE bool bounded() const { return !broken && high < T(Range<T>::huge) && high > -T(Range<T>::huge); }
  SLV_DEVICE double rho() const { return double(high) - double(low); }
  // The power of two nearest to the largest exponential.
  SLV_DEVICE T exponent() const { return bounded() ? T(rint(double(high) * kLog2E)) : T(0); }
};
// Of `count` scores, by a block; parts: 2 kMaxWarps in shared memory.
template <class T>
SLV_DEVICE ScoreRange<T> range_of(const Thread& me, T* parts, const T* scores, int count) {
  ScoreRange<T> r{-infinity<T>(), infinity<T>(), false, false};
  for (int e = me.index; e < count; e += int(blockDim.x)) {
    const T x = scores[e];
    if (x == -infinity<T>()) {
      r.forbidden = true;
      continue;
    }
    r.broken = r.broken || !(x < infinity<T>());
    r.high = larger(r.high, x);
    r.low = x < r.low ? x : r.low;
  }
  r.high = warp_max(r.high);
  r.low = -warp_max(-r.low);
  if (me.lane == 0) parts[me.warp] = r.high, parts[kMaxWarps + me.warp] = -r.low;
  r.forbidden = sync_block_or(r.forbidden);
  r.broken = sync_block_or(r.broken);
  r.high = max_of_parts(parts, me.warps);
  r.low = -max_of_parts(parts + kMaxWarps, me.warps);
  return r;
}

// One block for each matrix: its range, and, where the steps share it, its exponential.
template <class T>
SLV_KERNEL(256)
chain_prepare(Chain<T> c, Scaled<T> s) {
  Shared shared;
  T* parts = shared.take<T>(2 * kMaxWarps);
  const Thread me;
  const int64_t row = blockIdx.x;
  const int k = c.k, kk = k * k;
  const T* a = c.transition + row * kk;
  const ScoreRange<T> r = range_of(me, parts, a, kk);
  int kind = kUnusable;
  if (r.empty() || (r.bounded() && r.rho() <= Range<T>::wide)) kind = kWide;
  if (r.bounded() && !r.forbidden && 2 * r.rho() + 2 * log(double(k)) <= Range<T>::mild) kind = kMild;
  const T exponent = r.exponent();
  if (me.index == 0) s.kind[row] = kind, s.exponent[row] = exponent;
  if (!s.matrix || kind == kUnusable) return;
  for (int e = me.index; e < kk; e += int(blockDim.x)) {
    const T x = exp_scaled(a[e], exponent);
    s.matrix[row * kk + e] = x;
    if (s.into) s.into[row * kk + e % k * k + e / k] = x;
  }
}

// One warp for each row of unary scores.
template <class T>
SLV_KERNEL(256)
chain_rows(Chain<T> c, Scaled<T> s, int width) {
  const Thread me;
  const int64_t row = int64_t(blockIdx.x) * me.warps + me.warp;
  if (row >= c.batch * c.n) return;
  const int64_t b = row / c.n;
  const int t = int(row % c.n);
  const Item<T> item(c, b);
  if (t >= item.len) return;
  T top = -infinity<T>();
  bool bad = false;
  for (int j = me.lane; j < c.k; j += 32) {
    const T x = item.u(t, j);
    bad = bad || !(x < infinity<T>());
    top = larger(top, x);
  }
  top = warp_max(top);
  const bool empty = top == -infinity<T>();
  bad = ballot(bad) != 0 || !(empty || (top < T(Range<T>::huge) && top > -T(Range<T>::huge)));
  const T exponent = bad || empty ? T(0) : T(rint(double(top) * kLog2E));
  bool thin = false;
  for (int j = me.lane; j < width; j += 32) {
    const T x = j < c.k ? item.u(t, j) : -infinity<T>();
    const T e = bad || j >= c.k ? T(0) : exp_scaled(item.unary[int64_t(t) * c.k + j], exponent, item.end(t, j));
    thin = thin || (x > -infinity<T>() && e < T(Range<T>::tiny));
    s.e[row * width + j] = e;
  }
  thin = ballot(thin) != 0;
  if (me.lane == 0) s.row_exponent[row] = exponent, s.row_code[row] = bad ? kBad : thin ? kThin : kPlain;
}

}  // namespace slv::cuda
