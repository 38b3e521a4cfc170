// Every launch of the factorial chain in float32 and float64: included by the source that nvcc compiles and by the
// emulator's.
#pragma once
#include "cuda/factorial_launch.cuh"

#define SLV_FACTORIAL_LAUNCHES(T)                                                                                     \
  template int64_t factorial_forward_spill(const Factorial<T>&);                                                      \
  template int64_t factorial_backward_spill(const Factorial<T>&);                                                     \
  template int64_t factorial_tangent_spill(const Factorial<T>&);                                                      \
  template int64_t factorial_argmax_spill(const Factorial<T>&);                                                       \
  template int64_t factorial_partial_size(const Factorial<T>&);                                                       \
  template int64_t factorial_scan_spill(const Factorial<T>&);                                                         \
  template int64_t factorial_edges_spill(const Factorial<T>&);                                                        \
  template int factorial_pieces(const Factorial<T>&);                                                                 \
  template void run_prepare(const Factorial<T>&, const JointScaled<T>&, Stream);                                      \
  template void run_rows(const Factorial<T>&, const JointScaled<T>&, Stream);                                         \
  template void run_scan(const Factorial<T>&, const JointScaled<T>&, const ItemRange<T>&, double*, T*, Stream);       \
  template void run_adjoint(const Factorial<T>&, const JointScaled<T>&, const ItemRange<T>&, const JointAdjoint<T>&,  \
                            Stream);                                                                                  \
  template void run_edges(const Factorial<T>&, const JointScaled<T>&, const ItemRange<T>&, const JointAdjoint<T>&,    \
                          const JointPosterior<T>&, Stream);                                                          \
  template void run_forward(const Factorial<T>&, const Beginnings&, double*, T*, Stream);                             \
  template void run_backward(const Factorial<T>&, const Beginnings&, const JointPosterior<T>&, Stream);               \
  template void run_tangent(const Factorial<T>&, const Beginnings&, const Direction<T>&, const JointPosterior<T>&,    \
                            Stream);                                                                                  \
  template void run_sum_edges(const Factorial<T>&, const Beginnings&, const RowMap&, const double*, int, double*, T*, \
                              Stream);                                                                                \
  template void run_sum_starts(const Factorial<T>&, const RowMap&, const T*, T*, Stream);                             \
  template void run_argmax(const Factorial<T>&, int64_t, int64_t, T*, T*, int64_t*, Stream);                          \
  template void run_sample(const Factorial<T>&, const JointScaled<T>&, uint64_t, int64_t, int64_t*, Stream);          \
  template void run_log_sample(const Factorial<T>&, const Beginnings&, uint64_t, int64_t, int64_t*, Stream);

namespace slv::cuda {
SLV_FACTORIAL_LAUNCHES(float)
SLV_FACTORIAL_LAUNCHES(double)
}  // namespace slv::cuda
