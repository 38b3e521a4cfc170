// Exact log space, float64 inside, one exponential per term and the maximum first: for the items that the scaled domain
// cannot hold, and for second order. One block for each item of the range [first, first + count). As in
// kernels/chain_log.h, smoothing starts from the filtered side, p(z_t = i | z_t+1 = j), which is normalised where it is
// used and so is exact however large the potentials are.
#pragma once
#include "cuda/chain_edges.cuh"

namespace slv::cuda {

// Row t of an item's part of a workspace.
template <class T>
SLV_DEVICE int64_t log_row(const Chain<T>& c, const LogSpace<T>& l, int64_t b, int t) {
  return ((b - l.first) * c.n + t) * c.k;
}
template <class T>
SLV_DEVICE bool skipped(const LogSpace<T>& l, int64_t b) {
  return l.redo && l.redo[b * l.redo_stride] == T(0);
}
// alpha_t(i) from what is kept of it: u + top + log(sum)
template <class T>
SLV_DEVICE double log_alpha(const Item<T>& item, const LogSpace<T>& l, int64_t row, int t, int i) {
  const double u = item.template u<double>(t, i);
  return t == 0 ? u : u + (l.top[row + i] + log(l.sum[row + i]));
}
// p(i at t | j at t + 1), from alpha_t(i) and what was kept of j.
template <class T>
SLV_DEVICE double predecessor(double alpha, T edge, double top, double sum) {
  return top > -HUGE_VAL ? exp(alpha + double(edge) - top) / sum : 0;
}

template <class T>
SLV_KERNEL(kLogThreads)
chain_log_forward(Chain<T> c, LogSpace<T> l, double* log_z, T* log_z_narrow) {
  Shared shared;
  const Thread me;
  const int64_t b = l.first + blockIdx.x;
  const int k = c.k;
  double* rows = shared.take<double>(2 * k);
  if (skipped(l, b)) return;
  const Item<T> item(c, b);
  for (int t = 0; t < item.len; t++) {
    const double* before = rows + (t + 1) % 2 * k;
    double* now = rows + t % 2 * k;
    const int64_t row = log_row(c, l, b, t);
    if (t == 0) {
      for (int j = me.index; j < k; j += int(blockDim.x)) now[j] = item.template u<double>(0, j);
      sync_block();
      continue;
    }
    const T* a = item.edges(t - 1);
    for (int first = me.warp * kTileColumns; first < k; first += me.warps * kTileColumns) {
      const int j = first + me.column;
      double top = -HUGE_VAL, sum = 0;
      for (int i = me.row; i < k && j < k; i += kTileRows) top = larger(top, before[i] + double(a[int64_t(i) * k + j]));
      top = max_of_rows(top);
      for (int i = me.row; i < k && j < k && top > -HUGE_VAL; i += kTileRows)
        sum += exp(before[i] + double(a[int64_t(i) * k + j]) - top);
      sum = sum_of_rows(sum);
      if (me.row > 0 || j >= k) continue;
      now[j] = top > -HUGE_VAL ? item.template u<double>(t, j) + (top + log(sum)) : -HUGE_VAL;
      l.top[row + j] = top;
      l.sum[row + j] = sum;
    }
    sync_block();
  }
  if (me.warp > 0) return;
  const double* end = rows + (item.len + 1) % 2 * k;
  double top = -HUGE_VAL, sum = 0;
  for (int j = me.lane; j < k && item.len > 0; j += 32) top = larger(top, end[j]);
  top = warp_max(top);
  for (int j = me.lane; j < k && top > -HUGE_VAL; j += 32) sum += exp(end[j] - top);
  sum = warp_sum(sum);
  if (me.lane > 0) return;
  const double z = item.len == 0 ? 0 : top > -HUGE_VAL ? top + log(sum) : top;
  if (log_z) log_z[b] = z;
  if (log_z_narrow) log_z_narrow[b] = T(z);
}

// What comes back along p(z_t | z_t+1) from the values that l.mu holds at the step after: put(t, i, sum), which writes
// l.mu at step t, for every step but the last.
template <class T, class F>
SLV_DEVICE void pull_back(const Chain<T>& c, const LogSpace<T>& l, const Item<T>& item, int64_t b, const Thread& me,
                          double* after, F&& put) {
  const int k = c.k;
  for (int t = item.len - 2; t >= 0; t--) {
    sync_block();
    const int64_t row = log_row(c, l, b, t), next = row + k;
    for (int j = me.index; j < k; j += int(blockDim.x)) after[j] = l.mu[next + j];
    sync_block();
    const T* a = item.edges(t);
    for (int first = me.warp * kTileRows; first < k; first += me.warps * kTileRows) {
      const int i = first + me.row;
      const double alpha = i < k ? log_alpha(item, l, row, t, i) : 0;
      double sum = 0;
      for (int j = me.column; j < k && i < k; j += kTileColumns)
        if (after[j] != 0)
          sum += after[j] * predecessor(alpha, a[int64_t(i) * k + j], l.top[next + j], l.sum[next + j]);
      sum = sum_of_columns(sum);
      if (me.column == 0 && i < k) put(t, i, sum);
    }
  }
}

// Posteriors of states, into the workspace and, where `unary` is given, weighted into the results, whose padding the
// scaled backward pass has cleared.
template <class T>
SLV_KERNEL(kLogThreads)
chain_log_backward(Chain<T> c, LogSpace<T> l, const double* weight, T* unary) {
  Shared shared;
  const Thread me;
  const int64_t b = l.first + blockIdx.x;
  const int k = c.k;
  double* after = shared.take<double>(k);  // mu of the step after
  double* parts = shared.take<double>(2 * kMaxWarps);
  if (skipped(l, b)) return;
  const Item<T> item(c, b);
  const double w = weight ? weight[b] : 1;
  auto put = [&](int t, int i, double mu) {
    l.mu[log_row(c, l, b, t) + i] = mu;
    if (unary) unary[(b * c.n + t) * k + i] = T(w * mu);
  };
  const int end = item.len - 1;
  if (end < 0) return;
  // the last step: a softmax of alpha
  double top = -HUGE_VAL, sum = 0;
  for (int i = me.index; i < k; i += int(blockDim.x))
    top = larger(top, log_alpha(item, l, log_row(c, l, b, end), end, i));
  top = warp_max(top);
  if (me.lane == 0) parts[me.warp] = top;
  sync_block();
  top = max_of_parts(parts, me.warps);
  for (int i = me.index; i < k && top > -HUGE_VAL; i += int(blockDim.x))
    sum += exp(log_alpha(item, l, log_row(c, l, b, end), end, i) - top);
  sum = warp_sum(sum);
  if (me.lane == 0) parts[kMaxWarps + me.warp] = sum;
  sync_block();
  sum = sum_of_parts(parts + kMaxWarps, me.warps);
  for (int i = me.index; i < k; i += int(blockDim.x)) {
    const double alpha = log_alpha(item, l, log_row(c, l, b, end), end, i);
    put(end, i, top > -HUGE_VAL ? exp(alpha - top) / sum : 0);
  }
  pull_back(c, l, item, b, me, after, put);
}

// The weights of edges, like chain_edges; `each(b, row of t, i, j, p)` gives the weight of one edge of probability p:
// or of whatever, negative too, l.mu holds of states.
template <class T, class F>
SLV_DEVICE void log_edge_sums(const Chain<T>& c, const LogSpace<T>& l, const Edges<T>& out, F&& each) {
  const int k = c.k, steps = !out.per_step ? 1 : c.n - 1;
  const EdgeBlock block(out, k, steps);
  double sum[4] = {};
  bool any = false;
  for (int64_t q = block.first; q < block.last; q++) {
    const int64_t b = out.rows.item(block.row, q);
    if (b < l.first || b >= l.first + l.count || skipped(l, b)) continue;
    any = true;
    const Item<T> item(c, b);
    const int from = out.per_step ? block.step : 0;
    for (int t = from; t < block.end_of(out.per_step, item.len); t++) {
      const int64_t row = log_row(c, l, b, t), next = row + k;
      const T* a = item.edges(t);
      each_edge(block, k, [&](int p, int i, int j) {
        const double mu = l.mu[next + j];
        if (mu == 0) return;
        const double alpha = log_alpha(item, l, row, t, i);
        const double weight = mu * predecessor(alpha, a[int64_t(i) * k + j], l.top[next + j], l.sum[next + j]);
        if (weight != 0) sum[p] += each(item, b, t, i, j, weight);
      });
    }
  }
  if (any) deliver(out, block, steps, k, sum, true);
}
template <class T>
SLV_KERNEL(kEdgeSide* kEdgeSide)
chain_log_edges(Chain<T> c, LogSpace<T> l, Edges<T> out, const double* weight) {
  log_edge_sums(c, l, out,
                [&](const Item<T>&, int64_t b, int, int, int, double p) { return weight ? weight[b] * p : p; });
}

}  // namespace slv::cuda
