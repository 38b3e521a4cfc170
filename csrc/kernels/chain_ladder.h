// The ladder of precision for chains with one transition: blocks in the input's own precision, items that do not fit
// its range alone in float64, and what does not fit that in exact log space (NUMERICS, section 2).
#pragma once
#include <memory>
#include <mutex>

#include "kernels/chain_adjoint.h"
#include "kernels/chain_log.h"

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

// One item on the upper rungs.
template <class In>
double forward_item(const Chain<In>& c, SharedMatrix<In>& m, int64_t b) {
  if (!std::is_same_v<In, double> && m.wide().usable) {
    Scan<In, double> s(c, m.wide(), &b, 1);
    Scratch scratch(Scratch::bytes<double>(s.ring_size()) + s.scratch());
    s.bind_ring(scratch.take<double>(s.ring_size()));
    s.bind(scratch);
    s.run_forward();
    if (!s.bad[0]) return s.log_z[0];
  }
  return log_partition_log(c, b);
}
template <class In>
void marginals_item(const Chain<In>& c, SharedMatrix<In>& m, int64_t b, double weight, In* unary,
                    const BlockEdges<In>& edges) {
  if (!std::is_same_v<In, double> && m.wide().usable) {
    Scan<In, double> s(c, m.wide(), &b, 1);
    Adjoint<In, double> a(s, unary, edges);
    Scratch scratch(Scratch::bytes<double>(s.chart_size()) + s.scratch() + Scratch::bytes<double>(a.ring_size()) +
                    Scratch::bytes<double>(a.sums_size()));
    s.bind_chart(scratch.take<double>(s.chart_size()));
    s.bind(scratch);
    s.run_forward();
    if (!s.bad[0]) {
      a.ring = scratch.take<double>(a.ring_size());
      a.sums = scratch.take<double>(a.sums_size());
      a.weigh(&weight);
      a.run_backward();
      if (!a.bad[0]) return a.deliver();
    }
  }
  const int64_t kk = c.k * c.k;
  Doubles sum(edges.per_item ? kk : 0);
  EdgeSink<In> sink{edges.per_step ? edges.per_step + b * (c.n - 1) * kk : nullptr,
                    edges.per_item ? sum.data() : edges.shared, 0};
  marginals_log(c, b, weight, unary + b * c.n * c.k, sink);
  if (edges.per_item) std::transform(sum.begin(), sum.end(), edges.per_item + b * kk, [](double x) { return In(x); });
}

template <class In>
void* scan_prepare(const In* transition, int64_t k) {
  return new SharedMatrix<In>(transition, k);
}
template <class In>
void scan_release(void* m) {
  delete static_cast<SharedMatrix<In>*>(m);
}

template <class In>
void scan_forward(const Chain<In>& c, void* matrix, const int64_t* items, int rows, In* chart, In* scales, In* meta,
                  double* log_z) {
  auto& m = *static_cast<SharedMatrix<In>*>(matrix);
  Scan<In, In> s(c, m.own, items, rows);
  const bool run = m.own.usable;
  if (run) {
    Scratch scratch(Scratch::bytes<In>(chart ? 0 : s.ring_size()) + s.scratch());
    if (chart)
      s.bind_chart(chart, scales);
    else
      s.bind_ring(scratch.take<In>(s.ring_size()));
    s.bind(scratch);
    s.run_forward();
  }
  if (chart) {  // nothing of it stays unwritten
    const int64_t used = run ? s.steps : 0;
    std::fill(chart + used * 2 * s.step, chart + rows * c.n * 2 * padded<In>(c.k), In(0));
    std::fill(scales + used * rows, scales + rows * c.n, In(0));
  }
  for (int r = 0; r < rows; r++) {
    const int64_t b = items[r];
    const bool redo = !run || s.bad[r];
    log_z[b] = redo ? forward_item(c, m, b) : s.log_z[r];
    if (!meta) continue;
    std::fill(meta + b * kMeta, meta + (b + 1) * kMeta, In(0));
    meta[b * kMeta] = redo ? In(0) : s.inverse[r];
    meta[b * kMeta + 1] = redo;
  }
}

// weight: per item of the batch, or null for ones.
template <class In>
void scan_backward(const Chain<In>& c, void* matrix, const int64_t* items, int rows, In* chart, In* scales,
                   const In* meta, const double* weight, In* unary, const BlockEdges<In>& edges) {
  auto& m = *static_cast<SharedMatrix<In>*>(matrix);
  Scan<In, In> s(c, m.own, items, rows);
  Adjoint<In, In> a(s, unary, edges);
  bool all = true;
  double row_weight[kMaxRows];
  for (int r = 0; r < rows; r++) {
    row_weight[r] = weight ? weight[items[r]] : 1.0;
    s.inverse[r] = meta[items[r] * kMeta];
    a.skip[r] = meta[items[r] * kMeta + 1] != 0;
    all = all && a.skip[r];
  }
  if (!all) {
    s.bind_chart(chart, scales);
    Scratch scratch(Scratch::bytes<In>(a.ring_size()) + Scratch::bytes<In>(a.sums_size()));
    a.ring = scratch.take<In>(a.ring_size());
    a.sums = scratch.take<In>(a.sums_size());
    a.weigh(row_weight);
    a.run_backward();
    a.deliver();
  }
  for (int r = 0; r < rows; r++)
    if (a.skip[r]) marginals_item(c, m, items[r], row_weight[r], unary, edges);
}

}  // namespace
}  // namespace slv
