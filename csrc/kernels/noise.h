// Gumbel noise for the parts of structures, as a function of (seed, item, sample, stream, position).
#pragma once
#include <cstdint>

namespace slv {

// Where a run of draws is: positions first .. first + count - 1 of one item's sample.
struct NoiseRun {
  uint64_t seed;
  uint32_t item, sample, stream;
  int64_t first, count;
};
struct NoiseKernels {
  void (*gumbel_f32)(const NoiseRun&, float* out);
  void (*gumbel_f64)(const NoiseRun&, double* out);
};
const NoiseKernels* noise_kernels_base();
const NoiseKernels* noise_kernels_avx2();
const NoiseKernels* noise_kernels_avx512();

}  // namespace slv
