// What all kernels share: where a thread stands, reductions, powers of two, and one product of a vector and a matrix.
#pragma once
#include "core/simt.h"

namespace slv::cuda {

using simt::ballot, simt::Shared, simt::shuffle, simt::shuffle_up, simt::shuffle_xor, simt::sync_block,
    simt::sync_block_or, simt::sync_warp;

// Of a block in the scaled domain, and in log space, whose float64 functions need more registers.
constexpr int kMaxThreads = 512, kLogThreads = 256, kMaxWarps = kMaxThreads / 32;

// A warp works on tiles of 4 rows and 8 columns; lane l is at row l / 8 and column l % 8.
constexpr int kTileRows = 4, kTileColumns = 8;
// In shared memory, rows of a matrix lie this many elements apart: then a tile meets every bank once.
SLV_BOTH constexpr int stride_of(int k) { return (k + 23) / 32 * 32 + 8; }

struct Thread {
  int index, lane, warp, warps, row, column;
  SLV_DEVICE Thread()
      : index(int(threadIdx.x)),
        lane(index & 31),
        warp(index >> 5),
        warps(int(blockDim.x >> 5)),
        row(lane / kTileColumns),
        column(lane % kTileColumns) {}
};

template <class T>
SLV_DEVICE T infinity() {
  return T(HUGE_VAL);
}
template <class T>
SLV_DEVICE T larger(T a, T b) {
  return a > b ? a : b;
}

// R values that are worked on together, loaded by as few instructions as hold them.
template <class T, int R>
struct alignas(R * sizeof(T) < 16 ? R * sizeof(T) : 16) Few {
  T at[R];
};
template <class T, int R>
SLV_DEVICE Few<T, R> larger(const Few<T, R>& a, const Few<T, R>& b) {
  Few<T, R> out;
  SLV_UNROLL for (int r = 0; r < R; r++) out.at[r] = larger(a.at[r], b.at[r]);
  return out;
}

// ---- reductions: every lane gets the result, formed in one order whatever the schedule --------------------------

template <class T>
SLV_DEVICE T warp_sum(T x) {
  SLV_UNROLL for (int mask = 16; mask > 0; mask /= 2) x += shuffle_xor(x, mask);
  return x;
}
template <class T>
SLV_DEVICE T warp_max(T x) {
  SLV_UNROLL for (int mask = 16; mask > 0; mask /= 2) x = larger(x, shuffle_xor(x, mask));
  return x;
}
// Over the rows of a tile, for each column; and over its columns, for each row.
template <class T>
SLV_DEVICE T sum_of_rows(T x) {
  x += shuffle_xor(x, 8);
  return x + shuffle_xor(x, 16);
}
template <class T, int R>
SLV_DEVICE Few<T, R> sum_of_rows(Few<T, R> x) {
  SLV_UNROLL for (int r = 0; r < R; r++) x.at[r] = sum_of_rows(x.at[r]);
  return x;
}
template <class T>
SLV_DEVICE T max_of_rows(T x) {
  x = larger(x, shuffle_xor(x, 8));
  return larger(x, shuffle_xor(x, 16));
}
template <class T>
SLV_DEVICE T sum_of_columns(T x) {
  x += shuffle_xor(x, 1);
  x += shuffle_xor(x, 2);
  return x + shuffle_xor(x, 4);
}
// Over all warps, from what each has put into `parts`.
template <class T>
SLV_DEVICE T max_of_parts(const T* parts, int warps) {
  T x = parts[0];
  for (int w = 1; w < warps; w++) x = larger(x, parts[w]);
  return x;
}
template <class T>
SLV_DEVICE T sum_of_parts(const T* parts, int warps) {
  T x = parts[0];
  for (int w = 1; w < warps; w++) x += parts[w];
  return x;
}
// Over a block; parts: kMaxWarps in shared memory, which no thread still reads.
template <class T>
SLV_DEVICE T block_max(const Thread& me, T x, T* parts) {
  x = warp_max(x);
  if (me.lane == 0) parts[me.warp] = x;
  sync_block();
  return max_of_parts(parts, me.warps);
}

// ---- powers of two ----------------------------------------------------------------------------------------------

template <class T>
struct Float;
template <>
struct Float<float> {
  using Bits = int32_t;
  static constexpr int mantissa = 23, bias = 127;
  // ln 2 as a part of few bits and the rest
  static constexpr float ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
};
template <>
struct Float<double> {
  using Bits = int64_t;
  static constexpr int mantissa = 52, bias = 1023;
  static constexpr double ln2_high = 6.93147180369123816490e-01, ln2_low = 1.90821492927058770002e-10;
};
// floor(log2(x)) of a normal x > 0
template <class T>
SLV_DEVICE int exponent_of(T x) {
  typename Float<T>::Bits bits;
  memcpy(&bits, &x, sizeof(T));
  return int(bits >> Float<T>::mantissa) - Float<T>::bias;
}
// 2^n, n in the range of normal numbers
template <class T>
SLV_DEVICE T power_of_two(int n) {
  const typename Float<T>::Bits bits = typename Float<T>::Bits(n + Float<T>::bias) << Float<T>::mantissa;
  T x;
  memcpy(&x, &bits, sizeof(T));
  return x;
}
// The exponent of x >= 0, or 0 of what is no normal number.
template <class T>
SLV_DEVICE int power_of(T x) {
  return x >= power_of_two<T>(1 - Float<T>::bias) ? exponent_of(x) : 0;
}
constexpr double kLn2 = 0.69314718055994530942, kLog2E = 1.44269504088896340736;
// x + more - n ln 2, for whole n near (x + more) / ln 2 or above it. The parts are added where they are small: digits
// of one that the other's size would swallow are kept.
template <class T>
SLV_DEVICE T log_scaled(T x, T n, T more = 0) {
  return fma(-n, Float<T>::ln2_low, fma(-n, Float<T>::ln2_high, x) + more);
}
template <class T>
SLV_DEVICE T exp_scaled(T x, T n, T more = 0) {
  return exp(log_scaled(x, n, more));
}

// ---- a vector times a matrix ------------------------------------------------------------------------------------

template <class T>
SLV_DEVICE void add_product(T& sum, T x, T m) {
  sum += x * m;
}
template <class T, int R>
SLV_DEVICE void add_product(Few<T, R>& sum, const Few<T, R>& x, T m) {
  SLV_UNROLL for (int r = 0; r < R; r++) sum.at[r] += x.at[r] * m;
}
// sum_i x(i) m(i, j) for every j < k, each given to `each(j, sum)` by one thread; X: a number, or a few of them. Warps
// share out the columns, tile by tile; the four rows of a tile add up first among themselves.
template <class X, class M, class F>
SLV_DEVICE void times_columns(const Thread& me, int k, const X* x, const M& m, F&& each) {
  for (int first = me.warp * kTileColumns; first < k; first += me.warps * kTileColumns) {
    const int j = first + me.column;
    X sum{};
    for (int i = me.row; i < k && j < k; i += kTileRows) add_product(sum, x[i], m(i, j));
    sum = sum_of_rows(sum);
    if (me.row == 0 && j < k) each(j, sum);
  }
}
// sum_j m(i, j) x(j) for every i < k: warps share out the rows.
template <class T, class M, class F>
SLV_DEVICE void times_rows(const Thread& me, int k, const T* x, const M& m, F&& each) {
  for (int first = me.warp * kTileRows; first < k; first += me.warps * kTileRows) {
    const int i = first + me.row;
    T sum = 0;
    for (int j = me.column; j < k; j += kTileColumns) sum += i < k ? x[j] * m(i, j) : T(0);
    sum = sum_of_columns(sum);
    if (me.column == 0 && i < k) each(i, sum);
  }
}

}  // namespace slv::cuda
