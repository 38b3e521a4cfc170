// The backward pass in the scaled linear domain, from the chart of the forward pass: one block for each item.
//   g_t = e_t beta_t s_t      beta_t = P g_t+1      from beta_len-1 = 1 / Z
// so that alpha_t beta_t are the marginals, and alpha_t P g_t+1 the weights of edges (chain_edges.cuh).
#pragma once
#include "cuda/chain_scan.cuh"

namespace slv::cuda {

// Rounding makes the mass of a step drift from 1 as a random walk: it is set right every so many steps.
constexpr int kRenew = 32;

template <class T, class P>
SLV_KERNEL(kMaxThreads)
chain_backward(Chain<T> c, Scaled<T> s, Adjoint<T> a, int width) {
  Shared shared;
  const Thread me;
  const int64_t b = blockIdx.x;
  const int k = c.k;
  const Item<T> item(c, b);
  T* rows = shared.take<T>(2 * k);  // g of this step and of the one after
  T* masses = shared.take<T>(kMaxWarps);
  const T weight = T(a.weight ? a.weight[b] : 1.0);
  const bool redo = s.meta[b * kMeta + 1] != T(0);
  for (int64_t e = int64_t(item.len) * k + me.index; e < int64_t(c.n) * k; e += blockDim.x)
    a.unary[b * c.n * k + e] = 0;
  if (redo || item.len == 0) {
    if (me.index == 0) a.redo[b] = T(redo);
    return;
  }
  const bool wide = kind_of(c, s, item, me) != kMild;
  P matrix(c, s, item, me, shared);
  bool bad = false;
  T factor = 1;
  // no barrier: the last step needs no matrix
  for (int t = item.len - 1; t >= 0; t--) {
    const int64_t row = b * c.n + t;
    const bool last = t == item.len - 1, renew = t % kRenew == 0;
    const T *e = s.e + row * width, *alpha = s.alpha + row * width, scale = s.scale[row];
    const T* after = rows + (t + 1) % 2 * k;
    T *now = rows + t % 2 * k, mass = 0;
    auto put = [&](int i, T sum) {
      const T beta = last ? s.meta[b * kMeta] : sum * factor;
      T x = e[i] * (beta * scale), mu = beta * alpha[i];
      if (wide) {
        const bool live = alpha[i] > T(0);
        x = live ? x : T(0);
        mu = live ? mu : T(0);
        if (live && beta != T(0) && x < T(Range<T>::tiny)) bad = true;
      }
      now[i] = x;
      a.g[row * width + i] = x;
      a.unary[row * k + i] = mu * weight;
      mass += mu;
    };
    if (last) {
      for (int i = me.index; i < k; i += int(blockDim.x)) put(i, T(0));
    } else {
      matrix.at(t);
      times_rows(me, k, after, matrix, put);
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
  if (me.index == 0) a.redo[b] = T(bad);
}

}  // namespace slv::cuda
