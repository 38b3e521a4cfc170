// Filtering, log p(z_t | scores of steps up to t), from the forward pass of a chain without final scores, and its
// derivative. With before_t = alpha_t-1 P, what is known before the scores of step t are seen, the answer is
// u_t + log before_t, normalised, and a cotangent goes back through p(z_t = i | z_t+1 = j) = alpha_t(i) P(i, j) /
// before_t+1(j) (kernels/chain_filter.h says why):
//   lambda_t = q_t + alpha_t (P g_t+1)     g_t = lambda_t / before_t     q_t: the cotangent of unnormalised rows
// The weights of edges are alpha_t P g_t+1, which chain_edges forms. Given alpha, the steps of before_t and of q_t are
// independent of one another; before_t takes the place of e_t, which nothing needs any more.
#pragma once
#include "cuda/chain_log.cuh"

namespace slv::cuda {

// One block for each step of each item.
template <class T, class P>
SLV_KERNEL(kLogThreads)
chain_filter(Chain<T> c, Scaled<T> s, T* out, int width) {
  Shared shared;
  const Thread me;
  const int64_t row = blockIdx.x, b = row / c.n;
  const int t = int(row % c.n), k = c.k;
  T* parts = shared.take<T>(kMaxWarps);
  const Item<T> item(c, b);
  if (t >= item.len) {
    for (int j = me.index; out && j < k; j += int(blockDim.x)) out[row * k + j] = -infinity<T>();
    return;
  }
  if (s.meta[b * kMeta + 1] != T(0)) return;
  T* e = s.e + row * width;
  T sum = 0;
  auto put = [&](int j, T before) {
    sum += e[j] * before;
    e[j] = before;
  };
  if (t > 0) {
    P matrix(c, s, item, me, shared);
    matrix.at(t - 1);
    times_columns(me, k, s.alpha + (row - 1) * width, matrix, put);
  } else {
    for (int j = me.index; j < k; j += int(blockDim.x)) put(j, T(1));
  }
  if (!out) return;
  sum = warp_sum(sum);
  if (me.lane == 0) parts[me.warp] = sum;
  sync_block();
  sum = sum_of_parts(parts, me.warps);
  const T log_z = sum > T(0) ? T(log(sum)) : T(0);
  for (int j = me.index; j < k; j += int(blockDim.x)) {
    const T before = sum > T(0) ? e[j] : T(0);
    const T u = log_scaled(item.unary[int64_t(t) * k + j], s.row_exponent[row], item.end(t, j));
    out[row * k + j] = before > T(0) ? u + (T(log(before)) - log_z) : -infinity<T>();
  }
}

// What one warp does of rows (items, n) in order.
struct WarpRow {
  int64_t item, index;
  int t;
  bool exists;
  SLV_DEVICE WarpRow(const Thread& me, int64_t items, int n) : index(int64_t(blockIdx.x) * me.warps + me.warp) {
    exists = index < items * n;
    item = index / n, t = int(index % n);
  }
};

template <class T>
SLV_KERNEL(256)
chain_filter_cotangent(Chain<T> c, Scaled<T> s, const T* grad, T* g, int width) {
  const Thread me;
  const WarpRow row(me, c.batch, c.n);
  if (!row.exists || s.meta[row.item * kMeta + 1] != T(0)) return;
  const Item<T> item(c, row.item);
  if (row.t >= item.len) return;
  const T *q = grad + row.index * c.k, *alpha = s.alpha + row.index * width, *before = s.e + row.index * width;
  T total = 0, mass = 0;
  for (int i = me.lane; i < c.k; i += 32) total += q[i], mass += alpha[i];
  total = warp_sum(total), mass = warp_sum(mass);
  const T scale = mass > T(0) ? total / mass : T(0);
  for (int i = me.lane; i < c.k; i += 32) {
    const bool possible = before[i] > T(0) && item.u(row.t, i) > -infinity<T>();
    g[row.index * width + i] = possible ? q[i] - alpha[i] * scale : T(0);
  }
}

// One block for each item. a.g holds q before and g after.
template <class T, class P>
SLV_KERNEL(kMaxThreads)
chain_filter_backward(Chain<T> c, Scaled<T> s, Adjoint<T> a, int width) {
  Shared shared;
  const Thread me;
  const int64_t b = blockIdx.x;
  const int k = c.k;
  const Item<T> item(c, b);
  T* rows = shared.take<T>(2 * k);  // g of this step and of the one after
  for (int64_t e = int64_t(item.len) * k + me.index; e < int64_t(c.n) * k; e += blockDim.x)
    a.unary[b * c.n * k + e] = 0;
  const bool redo = s.meta[b * kMeta + 1] != T(0);
  if (me.index == 0) a.redo[b] = T(redo);
  if (redo || item.len == 0) return;
  P matrix(c, s, item, me, shared);
  // no barrier: the last step needs no matrix
  for (int t = item.len - 1; t >= 0; t--) {
    const int64_t row = b * c.n + t;
    const T *alpha = s.alpha + row * width, *before = s.e + row * width, *after = rows + (t + 1) % 2 * k;
    T* now = rows + t % 2 * k;
    auto put = [&](int i, T sum) {
      const T lambda = a.g[row * width + i] + alpha[i] * sum;
      now[i] = before[i] > T(0) ? lambda / before[i] : T(0);
      a.g[row * width + i] = now[i];
      a.unary[row * k + i] = lambda;
    };
    if (t == item.len - 1) {
      for (int i = me.index; i < k; i += int(blockDim.x)) put(i, T(0));
    } else {
      matrix.at(t);
      times_rows(me, k, after, matrix, put);
    }
    sync_block();
  }
}

// ---- log space: a warp for each step of the items of a range ----------------------------------------------------

template <class T>
SLV_KERNEL(256)
chain_filter_log(Chain<T> c, LogSpace<T> l, const T* grad, T* out) {
  const Thread me;
  const WarpRow row(me, l.count, c.n);
  const int64_t b = l.first + row.item;
  if (!row.exists || skipped(l, b)) return;
  const Item<T> item(c, b);
  if (row.t >= item.len) return;
  const int k = c.k;
  const int64_t from = row.index * k, to = (b * c.n + row.t) * k;
  auto alpha = [&](int i) { return log_alpha(item, l, from, row.t, i); };
  double top = -HUGE_VAL, sum = 0, total = 0;
  for (int i = me.lane; i < k; i += 32) top = larger(top, alpha(i));
  top = warp_max(top);
  for (int i = me.lane; i < k && top > -HUGE_VAL; i += 32) {
    sum += exp(alpha(i) - top);
    if (grad) total += double(grad[to + i]);
  }
  sum = warp_sum(sum), total = warp_sum(total);
  for (int i = me.lane; i < k; i += 32) {
    const double x = alpha(i);
    const bool possible = x > -HUGE_VAL;
    if (grad)
      l.mu[from + i] = possible ? double(grad[to + i]) - exp(x - top) / sum * total : 0;
    else
      out[to + i] = possible ? T(x - (top + log(sum))) : -infinity<T>();
  }
}

// One block for each item; its padding has been cleared.
template <class T>
SLV_KERNEL(kLogThreads)
chain_filter_log_backward(Chain<T> c, LogSpace<T> l, T* unary) {
  Shared shared;
  const Thread me;
  const int64_t b = l.first + blockIdx.x;
  double* after = shared.take<double>(c.k);
  if (skipped(l, b)) return;
  const Item<T> item(c, b);
  auto put = [&](int t, int i, double sum) {
    double& lambda = l.mu[log_row(c, l, b, t) + i];
    lambda += sum;
    unary[(b * c.n + t) * c.k + i] = T(lambda);
  };
  for (int i = me.index; i < c.k && item.len > 0; i += int(blockDim.x)) put(item.len - 1, i, 0);
  pull_back(c, l, item, b, me, after, put);
}

}  // namespace slv::cuda
