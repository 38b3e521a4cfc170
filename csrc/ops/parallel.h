// Units of work on torch's own threads, longest first, handed out one at a time. What a unit computes does not depend
// on which thread runs it, so neither do the bits.
#pragma once
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <vector>

namespace slv {

// `flops`: of the whole; waking a thread costs about 15 microseconds, so small work stays on one.
template <class F>
void parallel_units(int64_t units, double flops, F&& body) {
  constexpr double kWorthAThread = 4e5;
  const double most = std::min(flops / kWorthAThread, double(torch::stable::get_num_threads()));
  const int64_t threads = std::min<int64_t>(units, int64_t(most));
  if (threads <= 1) {
    for (int64_t u = 0; u < units; u++) body(u);
    return;
  }
  std::atomic<int64_t> next{0};
  torch::stable::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    for (int64_t u; (u = next.fetch_add(1)) < units;) body(u);
  });
}

// How many sums of so many float64 elements are kept beside each other: what is added up is a function of the problem.
inline int64_t accumulators(int64_t elements) {
  constexpr int64_t kMost = int64_t(1) << 24;  // float64: 128 MiB
  return std::clamp<int64_t>(kMost / std::max<int64_t>(elements, 1), 1, 32);
}

// The items, those of most words first; len(item) says how many.
template <class F>
std::vector<int64_t> longest_first(int64_t items, F&& len) {
  std::vector<int64_t> order(items);
  for (int64_t b = 0; b < items; b++) order[b] = b;
  std::stable_sort(order.begin(), order.end(), [&len](int64_t a, int64_t b) { return len(a) > len(b); });
  return order;
}

}  // namespace slv
