// Every launch of the PCFG in float32 and float64: included by the source that nvcc compiles and by the emulator's.
#pragma once
#include "cuda/pcfg_launch.cuh"

#define SLV_PCFG_LAUNCHES(T)                                                  \
  template void run_inside(const Pcfg<T>&, const TreeSpace<T>&, int, Stream); \
  template void run_finish(const Pcfg<T>&, const double*, double*, T*, Stream);

namespace slv::cuda {
SLV_PCFG_LAUNCHES(float)
SLV_PCFG_LAUNCHES(double)
}  // namespace slv::cuda
