// The ladder of precision for chains with one transition: blocks in the input's own precision, items that do not fit
// its range alone in float64, and what does not fit that in exact log space (NUMERICS, section 2).
#pragma once
#include <memory>
#include <mutex>

#include "kernels/chain_log.h"
#include "kernels/chain_tangent.h"

namespace slv {
namespace {

// A transition prepared once for all the items that share it.
template <class In>
struct SharedMatrix {
  const In* source;
  ScanMatrix<In> own;
  std::once_flag once;
  std::unique_ptr<ScanMatrix<double>> wide_matrix;
  SharedMatrix(const In* a, int64_t k) : source(a), own(a, k) {}
  const ScanMatrix<double>& wide() {
    if constexpr (std::is_same_v<In, double>) {
      return own;
    } else {
      std::call_once(once, [this] { wide_matrix = std::make_unique<ScanMatrix<double>>(source, own.k); });
      return *wide_matrix;
    }
  }
};

// Items on the upper rungs: a block of them in float64, what does not fit that one by one in log space.
template <class In>
void forward_items(const Chain<In>& c, SharedMatrix<In>& m, const int64_t* items, int rows, double* log_z) {
  if (std::is_same_v<In, double> || !m.wide().usable) {
    for (int r = 0; r < rows; r++) log_z[items[r]] = log_partition_log(c, items[r]);
    return;
  }
  Scan<In, double> s(c, m.wide(), items, rows);
  Scratch scratch(Scratch::bytes<double>(s.ring_size()) + s.scratch());
  s.bind_ring(scratch.take<double>(s.ring_size()));
  s.bind(scratch);
  s.run_forward();
  for (int r = 0; r < rows; r++) log_z[items[r]] = s.bad[r] ? log_partition_log(c, items[r]) : s.log_z[r];
}

template <class In>
void marginals_item_log(const Chain<In>& c, int64_t b, double weight, In* unary, const BlockEdges<In>& edges) {
  const int64_t kk = c.k * c.k;
  Doubles sum(edges.per_item ? kk : 0);
  EdgeSink<In> sink{edges.per_step ? edges.per_step + b * (c.n - 1) * kk : nullptr,
                    edges.per_item ? sum.data() : edges.shared, 0};
  marginals_log(c, b, weight, unary + b * c.n * c.k, sink);
  if (edges.per_item) std::transform(sum.begin(), sum.end(), edges.per_item + b * kk, [](double x) { return In(x); });
}
// Rows of which 64 MiB hold the charts: `numbers` of T for each state and step.
template <class T = double, class In>
int rows_that_fit(const Chain<In>& c, int64_t numbers = 2) {
  const int64_t bytes = c.n * (numbers * padded<T>(c.k) + 1) * int64_t(sizeof(T));
  return int(std::clamp<int64_t>((int64_t(64) << 20) / std::max<int64_t>(bytes, 1), 1, kMaxRows));
}
template <class In>
void marginals_items(const Chain<In>& c, SharedMatrix<In>& m, const int64_t* items, int rows, const double* weight,
                     In* unary, const BlockEdges<In>& edges) {
  if (std::is_same_v<In, double> || !m.wide().usable) {
    for (int r = 0; r < rows; r++) marginals_item_log(c, items[r], weight[r], unary, edges);
    return;
  }
  const int most = rows_that_fit(c);
  for (; rows > 0; items += most, weight += most, rows -= most) {
    Scan<In, double> s(c, m.wide(), items, std::min(rows, most));
    Adjoint<In, double> a(s, unary, edges);
    {
      Scratch scratch(Scratch::bytes<double>(s.chart_size()) + s.scratch() + Scratch::bytes<double>(a.ring_size()) +
                      Scratch::bytes<double>(a.sums_size()));
      s.bind_chart(scratch.take<double>(s.chart_size()));
      s.bind(scratch);
      s.run_forward();
      a.ring = scratch.take<double>(a.ring_size());
      a.sums = scratch.take<double>(a.sums_size());
      for (int r = 0; r < s.rows; r++) a.skip[r] = s.bad[r];
      a.weigh(weight, s.rows);
      a.run_backward();
      a.deliver();
    }
    for (int r = 0; r < s.rows; r++)
      if (a.skip[r]) marginals_item_log(c, items[r], weight[r], unary, edges);
  }
}

// Second order. `weight` and `mean` by item; what T cannot hold is listed in `again`.
template <class T, class In>
int hvp_block(const Chain<In>& c, const ScanMatrix<T>& m, const int64_t* items, int rows, const double* weight,
              const Direction<In>& v, In* mean, In* unary, double* edges, int64_t* again) {
  int count = 0;
  if (!m.usable) {
    std::copy_n(items, rows, again);
    return rows;
  }
  const int most = rows_that_fit<T>(c, 3);
  for (; rows > 0; items += most, rows -= most) {
    Scan<In, T> s(c, m, items, std::min(rows, most));
    Tangents<In, T> a(s, v, unary, edges);
    Scratch scratch(Scratch::bytes<T>(s.chart_size()) + s.scratch() + a.scratch());
    double row_weight[kMaxRows];
    for (int r = 0; r < s.rows; r++) row_weight[r] = weight[items[r]];
    s.bind_chart(scratch.take<T>(s.chart_size()));
    s.bind(scratch);
    s.run_forward();
    a.bind(scratch);
    a.weigh(row_weight, s.rows);
    std::transform(s.bad, s.bad + s.rows, a.skip, a.skip, std::logical_or<>());
    a.v.measure(a.skip);
    a.run_forward();
    a.run_backward();
    a.deliver();
    for (int r = 0; r < s.rows; r++)
      if (a.skip[r])
        again[count++] = items[r];
      else
        mean[items[r]] = s.inverse[r] != T(0) ? In(a.mean[r]) : In(0);
  }
  return count;
}
template <class In>
void scan_hvp(const Chain<In>& c, void* matrix, const int64_t* items, int rows, const double* weight,
              const Direction<In>& v, In* mean, In* unary, double* edges) {
  auto& m = *static_cast<SharedMatrix<In>*>(matrix);
  int64_t again[kMaxRows], last[kMaxRows];
  int count = hvp_block<In>(c, m.own, items, rows, weight, v, mean, unary, edges, again);
  if (count == 0) return;
  if constexpr (!std::is_same_v<In, double>) {
    count = hvp_block<double>(c, m.wide(), again, count, weight, v, mean, unary, edges, last);
    std::copy_n(last, count, again);
  }
  for (int q = 0; q < count; q++) {
    const int64_t b = again[q];
    mean[b] = In(hvp_log(c, b, weight[b], v, unary + b * c.n * c.k, EdgeSink<In>{nullptr, edges, 0}));
  }
}

template <class In>
void* scan_prepare(const In* transition, int64_t k) {
  return new SharedMatrix<In>(transition, k);
}
template <class In>
void scan_release(void* m) {
  delete static_cast<SharedMatrix<In>*>(m);
}

// After the forward pass: nothing of the chart stays unwritten. An item is `done` here, or to be redone elsewhere.
template <class In>
void close_chart(const Scan<In, In>& s, const ChainChart<In>& chart, bool run) {
  const int64_t used = run ? s.steps : 0;
  std::fill(chart.states + used * 2 * s.step, chart.states + s.rows * s.c.n * 2 * padded<In>(s.k), In(0));
  std::fill(chart.scales + used * s.rows, chart.scales + s.rows * s.c.n, In(0));
  for (int r = 0; r < s.rows; r++) {
    In* meta = chart.meta + s.items[r] * kMeta;
    const bool done = run && !s.bad[r];
    std::fill(meta, meta + kMeta, In(0));
    meta[0] = done ? s.inverse[r] : In(0);
    meta[1] = !done;
  }
}

template <class In>
void scan_forward(const Chain<In>& c, void* matrix, const int64_t* items, int rows, const ChainChart<In>& chart,
                  double* log_z) {
  auto& m = *static_cast<SharedMatrix<In>*>(matrix);
  Scan<In, In> s(c, m.own, items, rows);
  const bool run = m.own.usable;
  if (run) {
    Scratch scratch(Scratch::bytes<In>(chart.states ? 0 : s.ring_size()) + s.scratch());
    if (chart.states)
      s.bind_chart(chart.states, chart.scales);
    else
      s.bind_ring(scratch.take<In>(s.ring_size()));
    s.bind(scratch);
    s.run_forward();
  }
  if (chart.states) close_chart(s, chart, run);
  int64_t again[kMaxRows];
  int count = 0;
  for (int r = 0; r < rows; r++)
    if (!run || s.bad[r])
      again[count++] = items[r];
    else
      log_z[items[r]] = s.log_z[r];
  if (count) forward_items(c, m, again, count, log_z);
}

// weight: per item of the batch, or null for ones.
template <class In>
void scan_backward(const Chain<In>& c, void* matrix, const int64_t* items, int rows, const ChainChart<In>& chart,
                   const double* weight, In* unary, const BlockEdges<In>& edges) {
  auto& m = *static_cast<SharedMatrix<In>*>(matrix);
  Scan<In, In> s(c, m.own, items, rows);
  Adjoint<In, In> a(s, unary, edges);
  bool all = true;
  double row_weight[kMaxRows];
  for (int r = 0; r < rows; r++) {
    row_weight[r] = weight ? weight[items[r]] : 1.0;
    s.inverse[r] = chart.meta[items[r] * kMeta];
    a.skip[r] = chart.meta[items[r] * kMeta + 1] != 0;
    all = all && a.skip[r];
  }
  if (!all) {
    s.bind_chart(chart.states, chart.scales);
    Scratch scratch(Scratch::bytes<In>(a.ring_size()) + Scratch::bytes<In>(a.sums_size()));
    a.ring = scratch.take<In>(a.ring_size());
    a.sums = scratch.take<In>(a.sums_size());
    a.weigh(row_weight, rows);
    a.run_backward();
    a.deliver();
  }
  int64_t again[kMaxRows];
  double again_weight[kMaxRows];
  int count = 0;
  for (int r = 0; r < rows; r++)
    if (a.skip[r]) again[count] = items[r], again_weight[count++] = row_weight[r];
  if (count) marginals_items(c, m, again, count, again_weight, unary, edges);
}

}  // namespace
}  // namespace slv
