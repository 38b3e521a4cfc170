// The forward pass in the scaled linear domain (Rabiner 1989, section V.A; the argument is in kernels/chain_scan.h):
// one block for each item, or for each chunk of its steps (chain_chunks.cuh), the loop over steps inside. Every entry
// is relative to a power of two:
//   e_t = exp(u_t) 2^-N_t     alpha_t = (alpha_t-1 P) e_t s_t     s_t = 2^-exponent(max alpha_t-1)
// An item that the domain cannot hold says so in its meta data and is done again in log space.
#pragma once
#include "cuda/chain_scale.cuh"

namespace slv::cuda {

// Where P comes from. Resident: from shared memory, copied there once; else through the cache, step by step.
template <class T>
struct Resident {
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

// Chunk `index` of a cut, all items' chunks in a row: the steps [first, end) of an item.
struct Chunk {
  int64_t index, item;
  int first, end;
  bool asked;  // whether the item is to be done
  template <class T>
  SLV_DEVICE Chunk(const Chain<T>& c, const Cut<T>& cut, int64_t index)
      : index(index), item(index / cut.count), first(int(index % cut.count) * cut.size) {
    const int len = length_of(c, item);
    end = len - first < cut.size ? len : first + cut.size;
    asked = !cut.only;
    for (int q = 0; q < cut.of; q++) asked = asked || cut.only[item * cut.of + q] != 0;
  }
  SLV_DEVICE bool beyond(int len) const { return first > 0 && first >= len; }
};

// R rows that a block moves along a chain together: alpha alone, or rows of a product of matrices.
template <class T, int R>
struct Rows {
  using Value = Few<T, R>;
  Value *values, *tops;     // of a step and of the one before: the rows, and the largest entry that each warp made
  double exponent[R] = {};  // counted by every thread alike
  unsigned bad = 0;         // a bit for each row
  SLV_DEVICE Rows(Shared& shared, int k) : values(shared.take<Value>(2 * k)), tops(shared.take<Value>(2 * kMaxWarps)) {}
  // The rows before step t, whose largest entry is between 1 and 2: value(r, i).
  template <class F>
  SLV_DEVICE void start(const Thread& me, int k, int t, F&& value) {
    Value* before = values + (t + 1) % 2 * k;
    for (int i = me.index; i < k; i += int(blockDim.x)) {
      SLV_UNROLL for (int r = 0; r < R; r++) before[i].at[r] = value(r, i);
    }
    if (me.lane == 0) tops[(t + 1) % 2 * kMaxWarps + me.warp] = {};  // as of no scale
    sync_block();
  }
  SLV_DEVICE Value most(const Thread& me, int t) const { return max_of_parts(tops + t % 2 * kMaxWarps, me.warps); }
};

// Step t, whose unary scores are row `at` of all; keep(j, values of state j). What the step was scaled by.
template <class T, class P, int R, class F>
SLV_DEVICE Few<T, R> advance(const Thread& me, const Scaled<T>& s, const Item<T>& item, int kind, P& matrix,
                             Rows<T, R>& x, int t, int64_t at, int width, F&& keep) {
  const int k = item.k, code = s.row_code[at];
  const T* e = s.e + at * width;
  const Few<T, R>* before = x.values + (t + 1) % 2 * k;
  Few<T, R>*now = x.values + t % 2 * k, scale, top{}, one;
  if (code == kBad || (kind == kWide && code == kThin)) x.bad = ~0u;
  SLV_UNROLL for (int r = 0; r < R; r++) scale.at[r] = one.at[r] = 1, x.exponent[r] += double(s.row_exponent[at]);
  if (t > 0) {
    const Few<T, R> most = x.most(me, t - 1);
    SLV_UNROLL for (int r = 0; r < R; r++) {
      const int power = power_of(most.at[r]);
      scale.at[r] = power_of_two<T>(-power);
      x.exponent[r] += double(power) + double(s.exponent[item.matrix + item.step * (t - 1)]);
    }
    matrix.at(t - 1);
  }
  auto put = [&](int j, const Few<T, R>& sum) {
    const T own = e[j];
    Few<T, R> value;
    SLV_UNROLL for (int r = 0; r < R; r++) {
      value.at[r] = t > 0 ? sum.at[r] * (own * scale.at[r]) : own;
      if (kind == kWide && sum.at[r] > T(0) && own > T(0) && value.at[r] < T(Range<T>::tiny)) x.bad |= 1u << r;
    }
    now[j] = value;
    top = larger(top, value);
    keep(j, value);
  };
  if (t > 0) {
    times_columns(me, k, before, matrix, put);
  } else {
    for (int j = me.index; j < k; j += int(blockDim.x)) put(j, one);
  }
  SLV_UNROLL for (int r = 0; r < R; r++) top.at[r] = warp_max(top.at[r]);
  if (me.lane == 0) x.tops[t % 2 * kMaxWarps + me.warp] = top;
  sync_block();
  return scale;
}

template <class T, class P>
SLV_KERNEL(kMaxThreads)
chain_forward(Chain<T> c, Scaled<T> s, Cut<T> cut, int width) {
  Shared shared;
  const Thread me;
  const Chunk chunk(c, cut, blockIdx.x);
  const int64_t b = chunk.item, row = b * c.n;
  const int k = c.k;
  const Item<T> item(c, b);
  Rows<T, 1> alpha(shared, k);
  if (!chunk.asked) return;
  if (chunk.beyond(item.len)) {
    if (me.index == 0) cut.lost[chunk.index] = 0;
    return;
  }
  const int kind = cut.kind ? cut.kind[b] : kind_of(c, s, item, me);
  P matrix(c, s, item, me, shared);
  bool bad = kind == kUnusable && item.len > 0;
  if (chunk.first > 0 && !bad) {
    alpha.exponent[0] = cut.taken[chunk.index];
    bad = !(alpha.exponent[0] == alpha.exponent[0]);
    alpha.start(me, k, chunk.first, [&](int, int i) { return cut.edge[chunk.index * k + i]; });
  }
  // no barrier: the first step of all needs no matrix
  for (int t = chunk.first; t < chunk.end && !bad; t++) {
    const T scale = advance(me, s, item, kind, matrix, alpha, t, row + t, width, [&](int j, const Few<T, 1>& x) {
                      if (s.alpha) s.alpha[(row + t) * width + j] = x.at[0];
                    }).at[0];
    if (s.scale && me.index == 0 && (t == 0 || t > chunk.first)) s.scale[row + t] = scale;
  }
  bad = sync_block_or(bad || alpha.bad != 0);
  if (me.warp > 0) return;
  if (cut.lost && me.lane == 0) cut.lost[chunk.index] = bad;
  const double exponent = alpha.exponent[0];
  if (chunk.end < item.len) {
    // The next chunk has begun from what is this one's last alpha but for rounding and a power of two.
    if (!s.scale || me.lane > 0 || bad) return;
    const double power = cut.taken[chunk.index + 1] - exponent, most = double(Float<T>::bias);
    const bool fits = power > -most && power < most;
    s.scale[row + chunk.end] = fits && alpha.most(me, chunk.end - 1).at[0] > T(0) ? power_of_two<T>(-int(power)) : T(1);
    return;
  }
  double total = item.len > 0 ? 0 : 1;
  if (!bad)
    for (int j = me.lane; j < k && item.len > 0; j += 32)
      total += double(alpha.values[(item.len - 1) % 2 * k + j].at[0]);
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
