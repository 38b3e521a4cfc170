// The ladder of precision of factorial chains: blocks of items in the input's own precision, those that do not fit its
// range in float64, and what does not fit that one by one in exact log space (NUMERICS, section 2).
#pragma once
#include "kernels/factorial_turned_scan.h"

namespace slv {
namespace {

// A block in T, bound to memory.
template <class Scan, class In, class T>
struct Pass {
  LaneTransitions<T> a;
  Scratch scratch;
  Scan scan;
  bool usable = false;  // some item is
  // `more`: bytes that are taken later; `own`: chart in scratch, where none is given
  Pass(const Factorial<In>& c, const int64_t* items, int rows, LaneChart<T> chart, bool both, int64_t more = 0,
       bool own = false)
      : a(c, items, rows),
        scratch(a.scratch(c) + Scan::scratch(c, both) + more + (own ? chart_bytes(c, rows) : 0)),
        scan(c, (a.bind(scratch, c, items, rows), a), items, rows) {
    if (own) chart = {scratch.take<T>(c.n * c.states * rows), scratch.take<T>(c.n * rows)};
    scan.bind(scratch, chart, both);
    for (int r = 0; r < rows; r++) usable = usable || a.usable[r];
  }
  static int64_t chart_bytes(const Factorial<In>& c, int rows) {
    return Scratch::bytes<T>(c.n * c.states * rows) + Scratch::bytes<T>(c.n * rows);
  }
};
template <class In, class T>
using LanePass = Pass<LaneScan<In, T>, In, T>;
template <class T>
using TurnedPass = Pass<TurnedScan<T>, T, T>;

// Rows of a float64 chart that 64 MiB hold.
template <class In>
int factorial_rows_that_fit(const Factorial<In>& c) {
  const int64_t bytes = c.n * (c.states + 1) * int64_t(sizeof(double));
  return int(std::clamp<int64_t>((int64_t(64) << 20) / std::max<int64_t>(bytes, 1), 1, kWidth<double>));
}

// Items on the upper rungs.
template <class In>
void forward_items(const Factorial<In>& c, const int64_t* items, int rows, double* log_z) {
  constexpr int W = kWidth<double>;
  for (; rows > 0; items += W, rows -= W) {
    bool redo[W] = {};
    const int count = std::min(rows, W);
    std::fill(redo, redo + count, true);
    if constexpr (!std::is_same_v<In, double>) {
      LanePass<In, double> pass(c, items, count, {}, false);
      if (pass.usable) pass.scan.run_forward();
      for (int r = 0; r < count; r++) redo[r] = pass.scan.bad[r], log_z[items[r]] = pass.scan.log_z[r];
    }
    for (int r = 0; r < count; r++)
      if (redo[r]) log_z[items[r]] = log_partition_log(c, items[r]);
  }
}

template <class In>
void marginals_item(const Factorial<In>& c, int64_t b, double weight, In* unary, In* edges, bool per_step) {
  Doubles sum(per_step ? 0 : c.edges);
  marginals_log(c, b, weight, unary + b * c.n * c.states,
                per_step ? EdgeSink<In>{edges, nullptr, 0} : EdgeSink<In>{nullptr, sum.data(), 0});
  std::transform(sum.begin(), sum.end(), edges, [](double x) { return In(x); });
}
template <class In>
void marginals_items(const Factorial<In>& c, const int64_t* items, int rows, const double* weight, In* unary,
                     In* const* edges, bool per_step) {
  const int most = factorial_rows_that_fit(c);
  for (; rows > 0; items += most, weight += most, edges += most, rows -= most) {
    bool redo[kWidth<double>] = {};
    const int count = std::min(rows, most);
    std::fill(redo, redo + count, true);
    if constexpr (!std::is_same_v<In, double>) {
      LanePass<In, double> pass(c, items, count, {}, true, LaneAdjoint<In, double>::scratch(c), true);
      if (pass.usable) {
        pass.scan.run_forward();
        LaneAdjoint<In, double> back(pass.scan, unary, edges, per_step);
        back.bind(pass.scratch);
        for (int r = 0; r < count; r++) back.skip[r] = pass.scan.bad[r];
        back.weigh(weight);
        back.run_backward();
        std::copy(back.skip, back.skip + count, redo);
      }
    }
    for (int r = 0; r < count; r++)
      if (redo[r]) marginals_item(c, items[r], weight[r], unary, edges[r], per_step);
  }
}

// The first rung, for a block of as many items as `block_of` says, and what it does not hold.
template <class In>
int block_of(const Factorial<In>& c) {
  const TurnedSplit split = turned_split(c);
  return split.head ? int(split.items) : kWidth<In>;
}

template <class Pass, class In>
void forward_block(const Factorial<In>& c, const int64_t* items, int rows, In* states, In* scales, In* meta,
                   double* log_z) {
  int64_t again[kWidth<In>];
  int count = 0;
  {
    Pass pass(c, items, rows, {states, scales}, false);
    auto& s = pass.scan;
    if (pass.usable) s.run_forward();
    if (states) {  // nothing of it stays unwritten
      const int64_t used = pass.usable ? s.steps : 0;
      std::fill(states + used * c.states * rows, states + c.n * c.states * rows, In(0));
      std::fill(scales + used * rows, scales + c.n * rows, In(0));
    }
    for (int r = 0; r < rows; r++) {
      const int64_t b = items[r];
      if (s.bad[r])
        again[count++] = b;
      else
        log_z[b] = s.log_z[r];
      if (!meta) continue;
      std::fill(meta + b * kMeta, meta + (b + 1) * kMeta, In(0));
      meta[b * kMeta] = s.bad[r] ? In(0) : s.inverse[r];
      meta[b * kMeta + 1] = s.bad[r];
    }
  }
  if (count) forward_items(c, again, count, log_z);
}

template <class In>
void block_forward(const Factorial<In>& c, const int64_t* items, int rows, In* states, In* scales, In* meta,
                   double* log_z) {
  if (turned_split(c).head)
    forward_block<TurnedPass<In>>(c, items, rows, states, scales, meta, log_z);
  else
    forward_block<LanePass<In, In>>(c, items, rows, states, scales, meta, log_z);
}

// weight: by item, or null for ones; edges: by row
template <class Pass, class Adjoint, class In>
void backward_block(const Factorial<In>& c, const int64_t* items, int rows, In* states, In* scales, const In* meta,
                    const double* weight, In* unary, In* const* edges, bool per_step) {
  constexpr int W = kWidth<In>;
  double row_weight[W], again_weight[W];
  int64_t again[W];
  In* again_edges[W];
  bool skip[W];
  for (int r = 0; r < rows; r++) {
    row_weight[r] = weight ? weight[items[r]] : 1.0;
    skip[r] = meta[items[r] * kMeta + 1] != 0;
  }
  if (!std::all_of(skip, skip + rows, [](bool x) { return x; })) {
    Pass pass(c, items, rows, {states, scales}, true, Adjoint::scratch(c));
    Adjoint back(pass.scan, unary, edges, per_step);
    for (int r = 0; r < rows; r++) pass.scan.inverse[r] = meta[items[r] * kMeta], back.skip[r] = skip[r];
    back.bind(pass.scratch);
    back.weigh(row_weight);
    back.run_backward();
    std::copy(back.skip, back.skip + rows, skip);
  }
  int count = 0;
  for (int r = 0; r < rows; r++)
    if (skip[r]) again[count] = items[r], again_edges[count] = edges[r], again_weight[count++] = row_weight[r];
  if (count) marginals_items(c, again, count, again_weight, unary, again_edges, per_step);
}
template <class In>
void block_backward(const Factorial<In>& c, const int64_t* items, int rows, In* states, In* scales, const In* meta,
                    const double* weight, In* unary, In* const* edges, bool per_step) {
  const auto run = turned_split(c).head ? backward_block<TurnedPass<In>, TurnedAdjoint<In>, In>
                                        : backward_block<LanePass<In, In>, LaneAdjoint<In, In>, In>;
  run(c, items, rows, states, scales, meta, weight, unary, edges, per_step);
}

}  // namespace
}  // namespace slv
