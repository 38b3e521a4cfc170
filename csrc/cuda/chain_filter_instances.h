// The launches of filtering and relaxed sampling in float32 and float64: included by the source that nvcc compiles and
// by the emulator's.
#pragma once
#include "cuda/chain_filter_launch.cuh"

#define SLV_FILTER_LAUNCHES(T)                                                                          \
  template void run_filter(const Chain<T>&, const Scaled<T>&, T*, Stream);                              \
  template void filter_cotangent(const Chain<T>&, const Scaled<T>&, const T*, T*, Stream);              \
  template void filter_backward(const Chain<T>&, const Scaled<T>&, const Adjoint<T>&, Stream);          \
  template void log_filter(const Chain<T>&, const LogSpace<T>&, const T*, T*, Stream);                  \
  template void log_filter_backward(const Chain<T>&, const LogSpace<T>&, T*, Stream);                   \
  template void run_relaxed(const Chain<T>&, const T*, const Relaxed<T>&, Stream);                      \
  template void relaxed_backward(const Chain<T>&, const Relaxed<T>&, const RelaxedAdjoint<T>&, Stream); \
  template void relaxed_edges(const Chain<T>&, const Relaxed<T>&, const RelaxedAdjoint<T>&, const Edges<T>&, Stream);

namespace slv::cuda {
SLV_FILTER_LAUNCHES(float)
SLV_FILTER_LAUNCHES(double)
}  // namespace slv::cuda
