// The forward pass in the scaled linear domain (Rabiner 1989, section V.A; the argument is in kernels/chain_scan.h):
// one block for each item, the loop over steps inside. Every entry is relative to a power of two:
//   e_t = exp(u_t) 2^-N_t     alpha_t = (alpha_t-1 P) e_t s_t     s_t = 2^-exponent(max alpha_t-1)
// An item that the domain cannot hold says so in its meta data and is done again in log space.
#pragma once
#include "cuda/chain_scale.cuh"

namespace slv::cuda {

// Where P comes from. Resident: from shared memory, copied there once; else through the cache, step by step.
template <class T>
struct Resident {
  static constexpr bool kShared = true;
  const T* p;
  int stride;
  SLV_DEVICE Resident(const Chain<T>& c, const Scaled<T>& s, const Item<T>& item, const Thread& me, Shared& shared)
      : stride(stride_of(c.k)) {
    T* copy = shared.take<T>(c.k * stride_of(c.k));
    const T* from = s.matrix + item.matrix * c.k * c.k;
    for (int i = me.warp; i < c.k; i += me.warps)
      for (int j = me.lane; j < c.k; j += 32) copy[i * stride + j] = from[i * c.k + j];
    p = copy;
  }
  SLV_DEVICE void at(int) {}
  SLV_DEVICE T operator()(int i, int j) const { return p[i * stride + j]; }
};
template <class T>
struct Cached {
  static constexpr bool kShared = false;
  const T* p;
  int k;
  SLV_DEVICE Cached(const Chain<T>& c, const Scaled<T>& s, const Item<T>& item, const Thread&, Shared&)
      : p(s.matrix + item.matrix * c.k * c.k), k(c.k) {}
  SLV_DEVICE void at(int) {}
  SLV_DEVICE T operator()(int i, int j) const { return p[i * k + j]; }
};
// A transition for every step: exponentials are formed where they are used.
template <class T>
struct Stepwise {
  static constexpr bool kShared = false;
  const T *first, *a, *exponents;
  T exponent;
  int k;
  SLV_DEVICE Stepwise(const Chain<T>& c, const Scaled<T>& s, const Item<T>& item, const Thread&, Shared&)
      : first(item.transition), a(first), exponents(s.exponent + item.matrix), exponent(0), k(c.k) {}
  // that of step t to t + 1
  SLV_DEVICE void at(int t) {
    a = first + int64_t(t) * k * k;
    exponent = exponents[t];
  }
  SLV_DEVICE T operator()(int i, int j) const { return exp_scaled(a[i * k + j], exponent); }
};

// The widest kind of the matrices that an item uses. Every thread gets it.
template <class T>
SLV_DEVICE int kind_of(const Chain<T>& c, const Scaled<T>& s, const Item<T>& item, const Thread& me) {
  const int used = c.per_step ? item.len - 1 : 1;
  int kind = kMild;
  for (int t = me.index; t < used; t += int(blockDim.x)) {
    const int found = s.kind[item.matrix + t];
    kind = found > kind ? found : kind;
  }
  const bool wide = sync_block_or(kind >= kWide), unusable = sync_block_or(kind == kUnusable);
  return unusable ? kUnusable : wide ? kWide : kMild;
}

template <class T, class P>
SLV_KERNEL(kMaxThreads)
chain_forward(Chain<T> c, Scaled<T> s, int width) {
  Shared shared;
  const Thread me;
  const int64_t b = blockIdx.x;
  const int k = c.k;
  const Item<T> item(c, b);
  T* rows = shared.take<T>(2 * k);  // alpha of this step and of the one before
  T* tops = shared.take<T>(2 * kMaxWarps);
  const int kind = kind_of(c, s, item, me);
  P matrix(c, s, item, me, shared);
  bool bad = kind == kUnusable && item.len > 0;
  double exponent = 0;  // counted by every thread alike
  // no barrier: the first step needs no matrix
  for (int t = 0; t < item.len && kind != kUnusable; t++) {
    const int64_t row = b * c.n + t;
    const T *e = s.e + row * width, *before = rows + (t + 1) % 2 * k;
    T *now = rows + t % 2 * k, scale = 1, top = 0;
    const int code = s.row_code[row];
    bad = bad || code == kBad || (kind == kWide && code == kThin);
    exponent += double(s.row_exponent[row]);
    if (t > 0) {
      const T most = max_of_parts(tops + (t + 1) % 2 * kMaxWarps, me.warps);
      const int power = most >= power_of_two<T>(1 - Float<T>::bias) ? exponent_of(most) : 0;
      scale = power_of_two<T>(-power);
      exponent += double(power) + double(s.exponent[item.matrix + item.step * (t - 1)]);
      matrix.at(t - 1);
    }
    auto put = [&](int j, T sum) {
      const T x = e[j], value = t > 0 ? sum * (x * scale) : x;
      if (kind == kWide && sum > T(0) && x > T(0) && value < T(Range<T>::tiny)) bad = true;
      now[j] = value;
      top = larger(top, value);
      if (s.alpha) s.alpha[row * width + j] = value;
    };
    if (t > 0) {
      times_columns(me, k, before, matrix, put);
    } else {
      for (int j = me.index; j < k; j += int(blockDim.x)) put(j, T(1));
    }
    top = warp_max(top);
    if (me.lane == 0) tops[t % 2 * kMaxWarps + me.warp] = top;
    if (s.scale && me.index == 0) s.scale[row] = scale;
    sync_block();
  }
  bad = sync_block_or(bad);
  if (me.warp > 0) return;
  double total = item.len > 0 ? 0 : 1;
  if (!bad)
    for (int j = me.lane; j < k && item.len > 0; j += 32) total += double(rows[(item.len - 1) % 2 * k + j]);
  total = item.len > 0 ? warp_sum(total) : 1;
  bad = bad || !(total < HUGE_VAL);
  if (me.lane > 0) return;
  s.meta[b * kMeta] = bad || !(total > 0) ? T(0) : T(1 / total);
  s.meta[b * kMeta + 1] = T(bad);
  const double log_z = total > 0 ? log(total) + exponent * kLn2 : -HUGE_VAL;
  if (s.log_z) s.log_z[b] = log_z;
  if (s.log_z_narrow) s.log_z_narrow[b] = T(log_z);
}

}  // namespace slv::cuda
