// The launches of paths without replacement in float32 and float64: included by the source that nvcc compiles and by
// the emulator's.
#pragma once
#include "cuda/chain_distinct_launch.cuh"

namespace slv::cuda {
template void run_distinct(const Chain<float>&, const LogSpace<float>&, const Distinct&, Stream);
template void run_distinct(const Chain<double>&, const LogSpace<double>&, const Distinct&, Stream);
}  // namespace slv::cuda
