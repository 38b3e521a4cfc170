// The scaled domain's exponentials, and one chain's move in it: what the passes over time are made of.
#pragma once
#include "cuda/chain_scale.cuh"
#include "cuda/factorial_forward.cuh"

namespace slv::cuda {

// One block for each row of matrices: on which rung they are, and their exponentials, as they are and transposed, with
// zeros in the padding.
template <class T>
SLV_KERNEL(256)
factorial_prepare(Factorial<T> c, JointScaled<T> s) {
  Shared shared;
  T* parts = shared.take<T>(2 * kMaxWarps);
  const Thread me;
  const int64_t row = blockIdx.x;
  const T* a = c.transition + row * c.edges;
  T *matrix = s.matrix + row * c.padded, *back = s.back + row * c.padded;
  double rho = 0, exponent = 0;
  bool finite = true, bounded = true;
  for (int chain = 0; chain < c.m; chain++) {
    const int k = c.sizes[chain], stride = padded_row(k);
    const ScoreRange<T> r = range_of(me, parts, a, k * k);
    finite = finite && !r.forbidden;
    bounded = bounded && (r.empty() || r.bounded());
    if (!r.empty()) rho += r.rho();
    exponent += double(r.exponent());
    for (int e = me.index; e < k * stride; e += int(blockDim.x)) {
      const int i = e / stride, j = e - i * stride;
      matrix[e] = j < k ? exp_scaled(a[i * k + j], r.exponent()) : T(0);
      if (j < k)
        back[j * stride + i] = matrix[e];
      else
        back[e] = 0;
    }
    a += k * k, matrix += k * stride, back += k * stride;
    sync_block();  // of the next chain's parts
  }
  const double states = log(double(c.states));
  int kind = kUnusable;
  if (bounded && rho <= Range<T>::wide && rho + states <= Range<T>::wide + 6) kind = kWide;
  if (bounded && finite && 2 * (rho + states) + log(double(c.m)) <= Range<T>::mild) kind = kMild;
  if (me.index == 0) s.kind[row] = kind, s.exponent[row] = exponent;
}

// The power of two nearest to the largest exponential of an item's scores at a step, added up as A; NaN where the
// domain cannot hold them. By a warp.
template <class A, class T>
SLV_DEVICE T exponent_of_row(const Thread& me, const JointItem<T>& item, int t) {
  A top = -infinity<A>();
  bool broken = false;
  for (int z = me.lane; z < item.c.states; z += 32) {
    const A x = item.template u<A>(t, z);
    broken = broken || !(x < infinity<A>());
    top = larger(top, x);
  }
  top = warp_max(top);
  if (ballot(broken) != 0) return T(NAN);
  if (top == -infinity<A>()) return 0;
  const A limit = A(Range<T>::huge);
  return top < limit && top > -limit ? T(rint(double(top) * kLog2E)) : T(NAN);
}
// One warp for each step of each item.
template <class T>
SLV_KERNEL(256)
factorial_rows(Factorial<T> c, JointScaled<T> s) {
  const Thread me;
  const int64_t row = int64_t(blockIdx.x) * me.warps + me.warp;
  if (row >= c.batch * c.n) return;
  const int64_t b = row / c.n;
  const int t = int(row - b * c.n);
  const JointItem<T> item(c, b);
  if (t >= item.len) return;
  const bool joined = t == 0 && item.initial;
  const T n = joined ? exponent_of_row<double>(me, item, t) : exponent_of_row<T>(me, item, t);
  if (me.lane == 0) s.row_exponent[row] = n;
}

// exp of the scores of joint state z at step t, relative to 2^n. The first step's are added up in float64: large ones
// must not swallow the digits of others. `lost`: whether a finite score became 0.
template <class T>
SLV_DEVICE T exp_of(const JointItem<T>& item, int t, int z, T n, bool& lost) {
  if (t == 0 && item.initial) {
    const double score = item.template u<double>(0, z);
    const T x = exp(T(score - double(n) * kLn2));
    lost = x == T(0) && score > -HUGE_VAL;
    return x;
  }
  const T score = item.unary[int64_t(t) * item.c.states + z], x = exp_scaled(score, n);
  lost = x == T(0) && score > -infinity<T>();
  return x;
}

// Where joint state z lies in a table that lanes read at a power of two from each other: so they meet other banks.
template <class T>
SLV_BOTH constexpr int spaced(int z) {
  return z + (z >> (sizeof(T) == 4 ? 5 : 4));
}

// Products of a table of joint states with one chain's matrix (k, padded k), along the chain. A thread makes new states
// of the chain, W at a time, for one state of the other chains.
template <int W, class T>
SLV_DEVICE void along(const Thread& me, const Move<T>& move, int states, const T* matrix, const T* from, T* to) {
  constexpr size_t aligned = W * sizeof(T) < 16 ? W * sizeof(T) : 16;
  const int k = move.k, inner = move.inner, stride = padded_row(k), rest = states / k, tiles = (k + W - 1) / W;
  for (int unit = me.index; unit < rest * tiles; unit += int(blockDim.x)) {
    const int tile = unit / rest, r = unit - tile * rest, first = tile * W, outer = r / inner;
    const int base = outer * k * inner + (r - outer * inner);
    T sum[W] = {}, row[W];
    SLV_UNROLL_TWICE for (int i = 0; i < k; i++) {  // more would need more registers than a full block has
      const T x = from[spaced<T>(base + i * inner)];
      memcpy(row, __builtin_assume_aligned(matrix + i * stride + first, aligned), sizeof(row));
      SLV_UNROLL for (int q = 0; q < W; q++) sum[q] += x * row[q];
    }
    SLV_UNROLL for (int q = 0; q < W; q++) if (first + q < k) to[spaced<T>(base + (first + q) * inner)] = sum[q];
  }
}
// matrices: an item's, of all chains
template <class T>
SLV_DEVICE void move_along(const Thread& me, const Move<T>& move, int states, const T* matrices, const T* from, T* to) {
  if (move.k <= 2)
    along<2>(me, move, states, matrices + move.padded, from, to);
  else
    along<4>(me, move, states, matrices + move.padded, from, to);
}
// Threads of a block that have something to do in a step.
template <class T>
SLV_BOTH int scan_threads(const Factorial<T>& c) {
  int64_t most = 32;
  for (int i = 0; i < c.m; i++) {
    const int k = c.sizes[i], width = k <= 2 ? 2 : 4;
    const int64_t units = int64_t(c.states / k) * ((k + width - 1) / width);
    most = units > most ? units : most;
  }
  return most < kMaxThreads ? int((most + 31) / 32 * 32) : kMaxThreads;
}

// An item's matrices in shared memory, where there is room, else where they lie.
template <class T>
SLV_DEVICE const T* resident(const Thread& me, Shared& shared, bool room, const T* from, int size) {
  if (!room) return from;
  T* copy = shared.take<T>(size);
  for (int e = me.index; e < size; e += int(blockDim.x)) copy[e] = from[e];
  return copy;
}

}  // namespace slv::cuda
