// Few long chains: the steps of an item in chunks that are done at once, so that more than a block is busy. Step t
// multiplies by P diag(e_t), and a chunk by M, the product of its steps':
//   1. chain_chunk_products: every M, a block for some of its rows. A row is alpha of a chain that begins in one state.
//   2. chain_chunk_starts: alpha before each chunk, from chunk to chunk, a' = a M; one block for each item.
//      chain_chunk_ends: beta at the end of each, b' = M b.
//   3. chain_forward, chain_backward: every chunk from there, into the chart that one chunk of all steps has, but for
//      rounding. A chunk's beta is made such that its last step has mass 1: no power of two goes from chunk to chunk.
// M takes k times the arithmetic of alpha; chain_run.h says when that pays.
//
// When is that exact? A row of M is relative to a power of two of its own, x_i; what a and b are made of are
//   w_i = a_i 2^(x_i - X), a' = w m, and b'_i = 2^(x_i - X) (m b)_i, X such that the largest is between 1 and 2.
// * mild items: a row is exact as alpha is (kernels/chain_scan.h): that argument asks nothing of where a chain begins.
//   What underflows is 2^-126 (2^-1022) of the row's largest entry or less. The first step makes rows' sums alike but
//   for e^rho, so that what is lost of a' is at most k 2^-126 e^rho of its largest entry, and of b' likewise, as
//   entries of b are alike but for e^rho too. The ladder's condition, 4 k^2 2^-126 e^(2 rho) < 1e-15, has room for one
//   more k: 1e-12 of a result at most for k <= 1000.
// * wide items: an entry of a row is 0 or at least `tiny`, else the row is bad. Where a_i > 0 (alpha_i > 0), which is
//   what is possible, the row must not be bad, nor w_i and a'_i (b'_i) smaller than that, else the chunk is lost; then
//   no product underflows, 0 means impossible, and nothing was lost. A bad row of an impossible state spoils nothing:
//   states that one of them leads to count only where a possible one leads to them.
// A product can be out of range where alpha is not. So an item of which a chunk is lost, for that or for what alpha or
// g is, is done again as one chunk, which alone decides whether it leaves the scaled domain.
#pragma once
#include "cuda/chain_adjoint.cuh"

namespace slv::cuda {

constexpr int kTogether = 4;  // rows of a product

// What all of an item's matrices allow: one block for each item.
template <class T>
SLV_KERNEL(256)
chain_chunk_kinds(Chain<T> c, Scaled<T> s, Cut<T> cut) {
  const Thread me;
  const int64_t b = blockIdx.x;
  const int kind = kind_of(c, s, Item<T>(c, b), me);
  if (me.index == 0) cut.kind[b] = kind;
}

template <class T, class P>
SLV_KERNEL(kMaxThreads)
chain_chunk_products(Chain<T> c, Scaled<T> s, Cut<T> cut, int width) {
  Shared shared;
  const Thread me;
  const int k = c.k, groups = (k + kTogether - 1) / kTogether, row = int(blockIdx.x % groups) * kTogether;
  const Chunk chunk(c, cut, blockIdx.x / groups);
  const Item<T> item(c, chunk.item);
  Rows<T, kTogether> rows(shared, k);
  const int kind = cut.kind[chunk.item], used = chunk.first > 0 ? k : 1;
  if (chunk.first >= item.len || row >= used || kind == kUnusable) return;
  P matrix(c, s, item, me, shared);
  if (chunk.first > 0) rows.start(me, k, chunk.first, [&](int r, int i) { return T(i == row + r); });
  for (int t = chunk.first; t < chunk.end; t++)
    advance(me, s, item, kind, matrix, rows, t, chunk.item * c.n + t, width, [](int, const Few<T, kTogether>&) {});
  const Few<T, kTogether> most = rows.most(me, chunk.end - 1);
  const int64_t first = chunk.index * k + row;
  SLV_UNROLL for (int r = 0; r < kTogether; r++) {
    if (row + r >= used) continue;
    const int power = power_of(most.at[r]);
    const bool bad = sync_block_or((rows.bad >> r & 1) != 0);
    for (int j = me.index; j < k; j += int(blockDim.x))
      cut.product[(first + r) * k + j] = rows.values[(chunk.end - 1) % 2 * k + j].at[r] * power_of_two<T>(-power);
    if (me.index == 0) cut.exponent[first + r] = bad ? double(NAN) : rows.exponent[r] + double(power);
  }
}

// A chunk's product, as a matrix and the powers of two of its rows.
template <class T>
struct Product {
  const T* m;
  const double* exponent;
  int k;
  SLV_DEVICE Product(const Cut<T>& cut, int64_t chunk, int k)
      : m(cut.product + chunk * k * k), exponent(cut.exponent + chunk * k), k(k) {}
  SLV_DEVICE T operator()(int i, int j) const { return m[int64_t(i) * k + j]; }
  // The power of two of x in row i; what is no normal number has none.
  SLV_DEVICE double power(T x, int i) const {
    return x >= power_of_two<T>(1 - Float<T>::bias) ? exponent[i] + double(exponent_of(x)) : -HUGE_VAL;
  }
  // x 2^(exponent - top), 0 where that is too small; top: the largest power of some x
  SLV_DEVICE T relative(T x, int i, double top) const {
    const double by = exponent[i] - top;
    return by > double(-Float<T>::bias) && power(x, i) > -HUGE_VAL ? x * power_of_two<T>(int(by)) : T(0);
  }
};

template <class T>
SLV_KERNEL(kMaxThreads)
chain_chunk_starts(Chain<T> c, Cut<T> cut) {
  Shared shared;
  const Thread me;
  const int64_t b = blockIdx.x, first = b * cut.count;
  const int k = c.k, len = length_of(c, b), kind = cut.kind[b];
  T* alpha = shared.take<T>(k);
  T* weights = shared.take<T>(k);
  T* tops = shared.take<T>(kMaxWarps);
  double* powers = shared.take<double>(kMaxWarps);
  if (kind == kUnusable || len == 0) return;
  double taken = cut.exponent[first * k];
  bool bad = !(taken == taken);
  for (int i = me.index; i < k; i += int(blockDim.x)) alpha[i] = cut.product[first * k * k + i];
  for (int q = 1; int64_t(q) * cut.size < len; q++) {
    const int64_t chunk = first + q;
    if (q > 1) {
      const Product<T> m(cut, chunk - 1, k);
      double top = -HUGE_VAL;
      for (int i = me.index; i < k; i += int(blockDim.x)) top = larger(top, m.power(alpha[i], i));
      top = block_max(me, top, powers);
      for (int i = me.index; i < k; i += int(blockDim.x)) {
        weights[i] = m.relative(alpha[i], i, top);
        bad = bad || (kind == kWide && alpha[i] > T(0) && weights[i] < T(Range<T>::tiny));
      }
      sync_block();
      T most = 0;
      times_columns(me, k, weights, m, [&](int j, T sum) { alpha[j] = sum, most = larger(most, sum); });
      const int power = power_of(block_max(me, most, tops));
      if (top > -HUGE_VAL) taken += top + double(power);
      for (int j = me.index; j < k; j += int(blockDim.x)) {
        alpha[j] *= power_of_two<T>(-power);
        bad = bad || (kind == kWide && alpha[j] > T(0) && alpha[j] < T(Range<T>::tiny));
      }
    }
    for (int i = me.index; i < k; i += int(blockDim.x)) cut.edge[chunk * k + i] = alpha[i];
    bad = sync_block_or(bad);
    if (me.index == 0) cut.taken[chunk] = bad ? double(NAN) : taken;
  }
}

template <class T>
SLV_KERNEL(kMaxThreads)
chain_chunk_ends(Chain<T> c, Scaled<T> s, Cut<T> cut, int width) {
  Shared shared;
  const Thread me;
  const int64_t b = blockIdx.x, first = b * cut.count;
  const int k = c.k, len = length_of(c, b), kind = cut.kind[b];
  T* beta = shared.take<T>(k);
  T* sums = shared.take<T>(k);
  double* powers = shared.take<double>(kMaxWarps);
  if (s.meta[b * kMeta + 1] != T(0) || len <= cut.size) return;
  bool bad = false;
  for (int i = me.index; i < k; i += int(blockDim.x)) beta[i] = 1;
  sync_block();
  for (int q = (len - 1) / cut.size; q > 0; q--) {
    const Product<T> m(cut, first + q, k);
    const T* alpha = s.alpha + (b * c.n + int64_t(q) * cut.size - 1) * width;
    double top = -HUGE_VAL;
    times_rows(me, k, beta, m, [&](int i, T sum) {
      sums[i] = kind == kMild || alpha[i] > T(0) ? sum : T(0);
      top = larger(top, m.power(sums[i], i));
    });
    top = block_max(me, top, powers);
    for (int i = me.index; i < k; i += int(blockDim.x)) {
      beta[i] = m.relative(sums[i], i, top);
      const bool lost = m.exponent[i] != m.exponent[i] || (sums[i] > T(0) && beta[i] < T(Range<T>::tiny));
      bad = bad || (kind == kWide && alpha[i] > T(0) && lost);
      cut.edge[(first + q - 1) * k + i] = beta[i];
    }
    bad = sync_block_or(bad);
    if (me.index == 0) cut.taken[first + q - 1] = bad ? double(NAN) : 0;
  }
}

}  // namespace slv::cuda
