// The launches of noise in float32 and float64: included by the source that nvcc compiles and by the emulator's.
#pragma once
#include "cuda/noise_launch.cuh"

namespace slv::cuda {
template void run_gumbel(const Noise&, float*, Stream);
template void run_gumbel(const Noise&, double*, Stream);
}  // namespace slv::cuda
