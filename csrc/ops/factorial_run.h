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

// Operations of one inside pass: in the scaled domain, and in exact log space.
template <class T>
double factorial_work(const Factorial<T>& c) {
  return double(c.batch) * double(c.n) * double(c.states) * (2 * double(c.ends) + 40);
}
template <class T>
double factorial_log_work(const Factorial<T>& c) {
  return double(c.batch) * double(c.n) * double(c.states) * double(c.ends) * 30;
}

// Elements of a chart: for each item and step two rows of joint states and a scale; kMeta for each item.
template <class T>
int64_t factorial_chart_size(const Factorial<T>& c) {
  return c.batch * (c.n * (2 * c.states + 1) + kMeta);
}

// The counts of edges of many items, added up for each row of the transition: window by window of items, which bounds
// the memory, in the order of the items whatever the threads do. body(first, last, rows) fills the rows (P) of the
// items first .. last - 1.
template <class T, class F>
void sum_counts(const Factorial<T>& c, const Operand& transition, T* out, F&& body) {
  if (transition.count == c.batch && c.batch > 0) return body(int64_t(0), c.batch, out);
  constexpr int64_t kMost = int64_t(1) << 24, kItems = 64;  // elements of a window; items
  const int64_t window = std::max(kMost / std::max<int64_t>(c.edges, 1) / kItems * kItems, kItems);
  std::vector<double> sums(transition.count * c.edges);
  std::unique_ptr<T[]> rows(new T[std::min(window, c.batch) * c.edges]);
  for (int64_t first = 0; first < c.batch; first += window) {
    const int64_t last = std::min(first + window, c.batch);
    body(first, last, rows.get());
    for (int64_t b = first; b < last; b++) {
      double* to = sums.data() + transition.row(b) * c.edges;
      const T* from = rows.get() + (b - first) * c.edges;
      for (int64_t e = 0; e < c.edges; e++) to[e] += double(from[e]);
    }
  }
  std::transform(sums.begin(), sums.end(), out, [](double x) { return T(x); });
}

// body(item, sink) for the items first .. last - 1, whose edges come together in `rows` (P for each).
template <class T, class F>
void each_count(const Factorial<T>& c, int64_t first, int64_t last, double work, T* rows, F&& body) {
  parallel_units(last - first, work * double(last - first) / double(c.batch), [&](int64_t u) {
    std::vector<double> sum(c.edges);
    body(first + u, EdgeSink<T>{nullptr, sum.data(), 0});
    std::transform(sum.begin(), sum.end(), rows + u * c.edges, [](double x) { return T(x); });
  });
}

template <class T>
void run_inside(const Factorial<T>& c, T* chart, double* log_z) {
  if (chart) std::fill_n(chart, factorial_chart_size(c), T(0));
  parallel_units(c.batch, factorial_log_work(c), [&](int64_t b) { log_z[b] = factorial_log<T>().log_partition(c, b); });
}

// The gradient of <weight, log Z>: unary (batch, n, S), transition in its own shape.
template <class T>
void run_adjoint(const Factorial<T>& c, const Operand& transition, const T*, const double* weight, T* unary, T* edges) {
  sum_counts(c, transition, edges, [&](int64_t first, int64_t last, T* rows) {
    each_count(c, first, last, 3 * factorial_log_work(c), rows, [&](int64_t b, const EdgeSink<T>& sink) {
      factorial_log<T>().marginals(c, b, weight[b], unary + b * c.n * c.states, sink);
    });
  });
}

// Marginals of every item by itself: edges summed over its steps (P), or step by step (n-1, P).
template <class T>
void run_marginals(const Factorial<T>& c, bool per_step, T* unary, T* edges) {
  if (!per_step)
    return each_count(c, 0, c.batch, 3 * factorial_log_work(c), edges, [&](int64_t b, const EdgeSink<T>& sink) {
      factorial_log<T>().marginals(c, b, 1, unary + b * c.n * c.states, sink);
    });
  const int64_t steps = std::max<int64_t>(c.n - 1, 0);
  parallel_units(c.batch, 3 * factorial_log_work(c), [&](int64_t b) {
    const EdgeSink<T> sink{edges + b * steps * c.edges, nullptr, 0};
    factorial_log<T>().marginals(c, b, 1, unary + b * c.n * c.states, sink);
  });
}

template <class T>
void run_argmax(const Factorial<T>& c, int64_t* states) {
  parallel_units(c.batch, factorial_log_work(c), [&](int64_t b) { factorial_log<T>().argmax(c, b, states + b * c.n); });
}

template <class T>
void run_sample(const Factorial<T>& c, uint64_t seed, int64_t samples, int64_t* states) {
  const double draws = double(samples) * double(c.batch) * double(c.n) * double(c.states);
  parallel_units(c.batch, factorial_log_work(c) + 20 * draws,
                 [&](int64_t b) { factorial_log<T>().sample(c, b, seed, samples, states + b * c.n, c.batch * c.n); });
}

}  // namespace slv
