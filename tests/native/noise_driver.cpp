// Gumbel noise under the sanitizers: a run is a piece of a longer one, wherever it begins; every number is finite, and
// what its definition says.
#include <cmath>
#include <cstdio>
#include <vector>

#include "ops/dispatch.h"

namespace {

long checks = 0, failed = 0;
void check(bool ok) {
  checks++;
  failed += !ok;
}

template <class T>
void draw(const slv::NoiseRun& run, T* out) {
  if constexpr (sizeof(T) == 4)
    slv::noise_kernels().gumbel_f32(run, out);
  else
    slv::noise_kernels().gumbel_f64(run, out);
}

template <class T>
void check_runs(uint64_t seed) {
  const slv::NoiseRun whole{seed, 3, 2, 3, 0, 1000};
  std::vector<T> all(whole.count);
  draw(whole, all.data());
  double sum = 0;
  for (T x : all) check(std::isfinite(x)), sum += double(x);
  check(std::abs(sum / double(whole.count) - 0.5772) < 0.2);  // Euler's constant; a standard error is 0.04
  for (int64_t first : {0, 1, 2, 3, 4, 5, 62, 63, 64, 65, 127, 500, 999})
    for (int64_t count : {0, 1, 2, 3, 4, 7, 63, 64, 65, 130, 400}) {
      slv::NoiseRun piece = whole;
      piece.first = first, piece.count = std::min(count, whole.count - first);
      std::vector<T> some(piece.count);  // of exactly its size, so that a write beyond it is seen
      draw(piece, some.data());
      for (int64_t i = 0; i < piece.count; i++) check(some[i] == all[first + i]);
    }
}

void check_precisions(uint64_t seed) {
  const slv::NoiseRun run{seed, 0, 0, 4, 0, 4096};
  std::vector<float> narrow(run.count);
  std::vector<double> wide(run.count);
  draw(run, narrow.data());
  draw(run, wide.data());
  for (int64_t i = 0; i < run.count; i++)
    check(std::abs(double(narrow[i]) - wide[i]) <= 1e-6 * std::max(1.0, std::abs(wide[i])));
}

}  // namespace

int main() {
  for (uint64_t seed : {uint64_t(0), uint64_t(1), uint64_t(1) << 62, (uint64_t(1) << 63) - 1}) {
    check_runs<float>(seed);
    check_runs<double>(seed);
    check_precisions(seed);
  }
  std::printf("noise_driver: %ld checks, %ld failed\n", checks, failed);
  return failed != 0;
}
