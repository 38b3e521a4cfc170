// Hessian-vector products in log space: the covariance of the parts with f = <v, parts>, by conditional expectations of
// f's prefix and suffix (the argument is in kernels/chain_log.h):
//   prefix_t(j) = E[f up to t | z_t = j], suffix_t(i) = E[f after t | z_t = i];
//   cov(part) = p(part) (prefix + v(part) + suffix - E f).
#pragma once
#include "cuda/chain_log.cuh"

namespace slv::cuda {

template <class T>
struct TangentItem {
  const T *unary, *transition, *initial, *final;
  int k, len;
  int64_t step;
  SLV_DEVICE TangentItem(const Chain<T>& c, const Tangent<T>& v, int64_t b, int len)
      : unary(v.unary + b * c.n * c.k),
        transition(v.transition + v.matrix.row(b) *
                                      (!v.per_step ? 1
                                       : c.n > 1   ? c.n - 1
                                                   : 0) *
                                      c.k * c.k),
        initial(v.initial ? v.initial + v.initial_row.row(b) * c.k : nullptr),
        final(v.final ? v.final + v.final_row.row(b) * c.k : nullptr),
        k(c.k),
        len(len),
        step(v.per_step ? int64_t(c.k) * c.k : 0) {}
  SLV_DEVICE double u(int t, int i) const {
    double x = double(unary[int64_t(t) * k + i]);
    if (t == 0 && initial) x += double(initial[i]);
    if (t == len - 1 && final) x += double(final[i]);
    return x;
  }
  SLV_DEVICE double edge(int t, int i, int j) const { return double(transition[t * step + int64_t(i) * k + j]); }
};

// Prefix means forward, suffix means backward, and with them the covariances of states. One block for each item.
template <class T>
SLV_KERNEL(kLogThreads)
chain_tangent(Chain<T> c, LogSpace<T> l, Tangent<T> v) {
  Shared shared;
  const Thread me;
  const int64_t b = l.first + blockIdx.x;
  const int k = c.k;
  double* rows = shared.take<double>(2 * k);  // prefix means of two steps; then suffix means with v of the step after
  double* parts = shared.take<double>(kMaxWarps);
  const Item<T> item(c, b);
  const TangentItem<T> f(c, v, b, item.len);
  const double weight = v.weight ? v.weight[b] : 1;
  for (int64_t e = int64_t(item.len) * k + me.index; e < int64_t(c.n) * k; e += blockDim.x) v.out[b * c.n * k + e] = 0;
  for (int t = 0; t < item.len; t++) {
    const double* before = rows + (t + 1) % 2 * k;
    double* now = rows + t % 2 * k;
    const int64_t row = log_row(c, l, b, t);
    for (int first = me.warp * kTileColumns; first < k; first += me.warps * kTileColumns) {
      const int j = first + me.column;
      double mean = 0;
      for (int i = me.row; t > 0 && i < k && j < k; i += kTileRows) {
        const double alpha = log_alpha(item, l, row - k, t - 1, i);
        const double p = predecessor(alpha, item.edges(t - 1)[int64_t(i) * k + j], l.top[row + j], l.sum[row + j]);
        if (p > 0) mean += p * (before[i] + f.edge(t - 1, i, j));
      }
      mean = sum_of_rows(mean);
      if (me.row > 0 || j >= k) continue;
      now[j] = mean + f.u(t, j);
      v.prefix[row + j] = now[j];
    }
    sync_block();
  }
  // E f
  double mean = 0;
  const int end = item.len - 1;
  for (int i = me.index; i < k && end >= 0; i += int(blockDim.x)) {
    const double mu = l.mu[log_row(c, l, b, end) + i];
    if (mu > 0) mean += mu * rows[end % 2 * k + i];
  }
  mean = warp_sum(mean);
  if (me.lane == 0) parts[me.warp] = mean;
  sync_block();
  mean = sum_of_parts(parts, me.warps);
  if (me.index == 0) v.mean[b] = mean, v.mean_narrow[b] = T(mean);
  auto put = [&](int t, int i, double mu, double suffix) {
    const int64_t at = log_row(c, l, b, t) + i;
    v.suffix[at] = suffix;
    v.out[(b * c.n + t) * k + i] = T(mu > 0 ? weight * mu * (v.prefix[at] + suffix - mean) : 0);
  };
  for (int i = me.index; i < k && end >= 0; i += int(blockDim.x)) put(end, i, l.mu[log_row(c, l, b, end) + i], 0);
  for (int t = end - 1; t >= 0; t--) {
    sync_block();
    const int64_t row = log_row(c, l, b, t), next = row + k;
    double* rest = rows;
    for (int j = me.index; j < k; j += int(blockDim.x)) rest[j] = f.u(t + 1, j) + v.suffix[next + j];
    sync_block();
    const T* a = item.edges(t);
    for (int first = me.warp * kTileRows; first < k; first += me.warps * kTileRows) {
      const int i = first + me.row;
      const double alpha = i < k ? log_alpha(item, l, row, t, i) : 0;
      double sum = 0;
      for (int j = me.column; j < k && i < k; j += kTileColumns) {
        const double mu = l.mu[next + j];
        const double p = mu > 0 ? mu * predecessor(alpha, a[int64_t(i) * k + j], l.top[next + j], l.sum[next + j]) : 0;
        if (p > 0) sum += p * (f.edge(t, i, j) + rest[j]);
      }
      sum = sum_of_columns(sum);
      if (me.column > 0 || i >= k) continue;
      const double mu = l.mu[row + i];
      put(t, i, mu, mu > 0 ? sum / mu : 0);
    }
  }
}

template <class T>
SLV_KERNEL(kEdgeSide* kEdgeSide)
chain_tangent_edges(Chain<T> c, LogSpace<T> l, Tangent<T> v, Edges<T> out) {
  log_edge_sums(c, l, out, [&](const Item<T>& item, int64_t b, int t, int i, int j, double p) {
    const TangentItem<T> f(c, v, b, item.len);
    const int64_t row = log_row(c, l, b, t);
    const double around = v.prefix[row + i] + f.edge(t, i, j) + f.u(t + 1, j) + v.suffix[row + c.k + j];
    return (v.weight ? v.weight[b] : 1.0) * p * (around - v.mean[b]);
  });
}

}  // namespace slv::cuda
