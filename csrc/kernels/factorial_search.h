// Single structures in exact log space: Viterbi, and samples.
#pragma once
#include "kernels/factorial_log.h"

namespace slv {
namespace {

template <class T>
void argmax_log(const Factorial<T>& problem, int64_t b, int64_t* path) {
  FactorialItem<T> c(problem, b);
  const int64_t states = c.states;
  std::fill(path, path + c.n, -1);
  if (c.len == 0) return;
  Doubles best = inside<Max>(c), w(states);
  for (int64_t t = c.len - 1; t >= 0; t--) {  // no back-pointers: one argmax a step, ties to the lowest index
    std::copy_n(&best[t * states], states, w.begin());
    if (t + 1 < c.len) c.add_into(path[t + 1], w.data());
    const auto top = std::max_element(w.begin(), w.end());
    if (!(*top > kNone)) return std::fill(path, path + c.n, -1);
    path[t] = top - w.begin();
  }
}

// Forward filtering, backward sampling.
template <class T>
void sample_log(const Factorial<T>& problem, int64_t b, uint64_t seed, int64_t samples, int64_t* paths,
                int64_t stride) {
  FactorialItem<T> c(problem, b);
  const int64_t states = c.states;
  Doubles alpha, w(states);
  if (c.len > 0) alpha = inside<Log>(c);
  for (int64_t s = 0; s < samples; s++) {
    int64_t* path = paths + s * stride;
    std::fill(path, path + c.n, -1);
    Draws<1> draw{seed, {uint32_t(b)}, {uint32_t(s)}};
    for (int64_t t = c.len - 1; t >= 0; t--) {
      std::copy_n(&alpha[t * states], states, w.begin());
      if (t + 1 < c.len) c.add_into(path[t + 1], w.data());
      const double top = *std::max_element(w.begin(), w.end());
      if (!(top > kNone)) break;  // only at the last step: no structure at all
      double sum = 0;
      for (double& x : w) sum += x = scalar_exp(x - top);
      path[t] = pick(w.data(), states, sum, double(uniform<T>(*draw(t))));
      if (path[t] < 0) break;
    }
  }
}

}  // namespace
}  // namespace slv
