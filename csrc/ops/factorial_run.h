// The loops over items.
#pragma once
#include <memory>

#include "ops/dispatch.h"
#include "ops/factorial_bind.h"
#include "ops/parallel.h"

namespace slv {

template <class T>
const FactorialLogKernels<T>& factorial_log() {
  if constexpr (sizeof(T) == 4)
    return factorial_kernels().log_f32;
  else
    return factorial_kernels().log_f64;
}

template <class T>
const FactorialLaneKernels<T>& factorial_lanes() {
  if constexpr (sizeof(T) == 4)
    return factorial_kernels().lanes_f32;
  else
    return factorial_kernels().lanes_f64;
}

// Operations of one inside pass: in the scaled domain, and in exact log space.
template <class T>
double factorial_work(const Factorial<T>& c) {
  return double(c.batch) * double(c.n) * double(c.states) * (2 * double(c.ends) + 40);
}
template <class T>
double factorial_log_work(const Factorial<T>& c) {
  return double(c.batch) * double(c.n) * double(c.states) * double(c.ends) * 30;
}

// Elements of a chart: for each item and step a row of joint states and a scale; kMeta for each item.
template <class T>
int64_t factorial_chart_size(const Factorial<T>& c) {
  return c.batch * (c.n * (c.states + 1) + kMeta);
}

// The parts of a chart: alpha and scales of each block, kMeta elements of each item.
template <class T>
struct FactorialChart {
  T *states = nullptr, *scales = nullptr, *meta = nullptr;
  int64_t row = 0, n = 0;
  FactorialChart() = default;
  FactorialChart(T* data, const Factorial<T>& c) : states(data), row(c.n * c.states), n(c.n) {
    scales = states + c.batch * row;
    meta = scales + c.batch * n;
  }
  T* block(int64_t first) const { return states ? states + first * row : nullptr; }
  T* block_scales(int64_t first) const { return scales ? scales + first * n : nullptr; }
};

// Items in blocks: those of most steps first, of these the ones that share a transition side by side.
template <class T>
struct LanePlan {
  std::vector<int64_t> order;
  const FactorialLaneKernels<T>& kernel;
  const int64_t block;
  explicit LanePlan(const Factorial<T>& c)
      : order(longest_first(c.batch, [&c](int64_t b) { return c.len(b); })),
        kernel(factorial_lanes<T>()),
        block(kernel.block(c)) {
    if (!c.matrix) return;
    std::stable_sort(order.begin(), order.end(), [&c](int64_t a, int64_t b) {
      return c.len(a) != c.len(b) ? c.len(a) > c.len(b) : c.matrix[a] < c.matrix[b];
    });
  }
  // Calls body(first, items, rows) for the blocks of order[first .. last), all of them costing `work`.
  template <class F>
  void each(int64_t first, int64_t last, double work, F&& body) const {
    parallel_units((last - first + block - 1) / block, work, [&](int64_t u) {
      const int64_t at = first + u * block;
      body(at, order.data() + at, int(std::min(block, last - at)));
    });
  }
};

// The counts of edges of many items, added up for each row of the transition: window by window of items, which bounds
// the memory, in their order whatever the threads do. body(first, last, row) fills row(i) (P) for the items
// order[first .. last).
template <class T, class F>
void sum_counts(const Factorial<T>& c, const Operand& transition, const std::vector<int64_t>& order, T* out, F&& body) {
  if (transition.count == c.batch && c.batch > 0)
    return body(int64_t(0), c.batch, [&](int64_t i) { return out + order[i] * c.edges; });
  constexpr int64_t kMost = int64_t(1) << 24, kItems = 64;  // elements of a window; items
  const int64_t window = std::max(kMost / c.edges / kItems * kItems, kItems);
  std::vector<double> sums(transition.count * c.edges);
  std::unique_ptr<T[]> rows(new T[std::min(window, c.batch) * c.edges]);
  for (int64_t first = 0; first < c.batch; first += window) {
    const int64_t last = std::min(first + window, c.batch);
    body(first, last, [&](int64_t i) { return rows.get() + (i - first) * c.edges; });
    for (int64_t i = first; i < last; i++) {
      double* to = sums.data() + transition.row(order[i]) * c.edges;
      const T* from = rows.get() + (i - first) * c.edges;
      for (int64_t e = 0; e < c.edges; e++) to[e] += double(from[e]);
    }
  }
  std::transform(sums.begin(), sums.end(), out, [](double x) { return T(x); });
}

template <class T>
void run_inside(const Factorial<T>& c, const FactorialChart<T>& chart, double* log_z) {
  const LanePlan<T> plan(c);
  plan.each(0, c.batch, factorial_work(c), [&](int64_t first, const int64_t* items, int rows) {
    plan.kernel.forward(c, items, rows, chart.block(first), chart.block_scales(first), chart.meta, log_z);
  });
}

// The gradient of <weight, log Z>: unary (batch, n, S), transition in its own shape.
template <class T>
void run_adjoint(const Factorial<T>& c, const Operand& transition, const FactorialChart<T>& chart, const double* weight,
                 T* unary, T* edges) {
  const LanePlan<T> plan(c);
  sum_counts(c, transition, plan.order, edges, [&](int64_t begin, int64_t end, auto&& row) {
    const double work = 3 * factorial_work(c) * double(end - begin) / double(c.batch);
    plan.each(begin, end, work, [&](int64_t first, const int64_t* items, int rows) {
      T* counts[kMostLanes];
      for (int r = 0; r < rows; r++) counts[r] = row(first + r);
      plan.kernel.backward(c, items, rows, chart.block(first), chart.block_scales(first), chart.meta, weight, unary,
                           counts, false);
    });
  });
}

// Marginals of every item by itself: edges summed over its steps (P), or step by step (n-1, P).
template <class T>
void run_marginals(const Factorial<T>& c, bool per_step, T* unary, T* edges) {
  const LanePlan<T> plan(c);
  std::vector<T> meta(c.batch * kMeta);
  std::vector<double> log_z(c.batch);
  const int64_t size = per_step ? std::max<int64_t>(c.n - 1, 0) * c.edges : c.edges;
  plan.each(0, c.batch, 4 * factorial_work(c), [&](int64_t, const int64_t* items, int rows) {
    T* counts[kMostLanes];
    for (int r = 0; r < rows; r++) counts[r] = edges + items[r] * size;
    const int64_t states = rows * c.n * c.states;
    std::unique_ptr<T[]> chart(new T[states + rows * c.n]);
    plan.kernel.forward(c, items, rows, chart.get(), chart.get() + states, meta.data(), log_z.data());
    plan.kernel.backward(c, items, rows, chart.get(), chart.get() + states, meta.data(), nullptr, unary, counts,
                         per_step);
  });
}

template <class T>
void run_argmax(const Factorial<T>& c, int64_t* paths) {
  const LanePlan<T> plan(c);
  plan.each(0, c.batch, factorial_work(c),
            [&](int64_t, const int64_t* items, int rows) { plan.kernel.argmax(c, items, rows, paths); });
}

template <class T>
void run_sample(const Factorial<T>& c, uint64_t seed, int64_t samples, int64_t* paths) {
  const LanePlan<T> plan(c);
  const double draws = double(samples) * double(c.batch) * double(c.n) * double(c.states);
  std::fill(paths, paths + samples * c.batch * c.n, -1);
  plan.each(0, c.batch, factorial_work(c) + 4 * draws,
            [&](int64_t, const int64_t* items, int rows) { plan.kernel.sample(c, items, rows, seed, samples, paths); });
}

}  // namespace slv
