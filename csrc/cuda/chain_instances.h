// Every launch of the chain in float32 and float64: included by the source that nvcc compiles and by the emulator's.
#pragma once
#include "cuda/chain_launch.cuh"

#define SLV_CHAIN_LAUNCHES(T)                                                                                   \
  template void prepare_matrices(const Chain<T>&, const Scaled<T>&, Stream);                                    \
  template void exponentiate_rows(const Chain<T>&, const Scaled<T>&, Stream);                                   \
  template void forward(const Chain<T>&, const Scaled<T>&, const Cut<T>&, Stream);                              \
  template void backward(const Chain<T>&, const Scaled<T>&, const Adjoint<T>&, const Cut<T>&, Stream);          \
  template void chunk_products(const Chain<T>&, const Scaled<T>&, const Cut<T>&, Stream);                       \
  template void chunk_starts(const Chain<T>&, const Cut<T>&, Stream);                                           \
  template void chunk_ends(const Chain<T>&, const Scaled<T>&, const Cut<T>&, Stream);                           \
  template void edges(const Chain<T>&, const Scaled<T>&, const Adjoint<T>&, const Edges<T>&, Stream);           \
  template void finish_edges(const Chain<T>&, const Edges<T>&, T*, Stream);                                     \
  template void sum_ends(const Chain<T>&, const RowMap&, const T*, bool, T*, Stream);                           \
  template void log_forward(const Chain<T>&, const LogSpace<T>&, double*, T*, Stream);                          \
  template void log_backward(const Chain<T>&, const LogSpace<T>&, const double*, T*, Stream);                   \
  template void log_edges(const Chain<T>&, const LogSpace<T>&, const Edges<T>&, const double*, Stream);         \
  template void tangent(const Chain<T>&, const LogSpace<T>&, const Tangent<T>&, Stream);                        \
  template void tangent_edges(const Chain<T>&, const LogSpace<T>&, const Tangent<T>&, const Edges<T>&, Stream); \
  template void run_argmax(const Chain<T>&, int*, int64_t*, Stream);                                            \
  template void run_sample(const Chain<T>&, const Scaled<T>&, uint64_t, int64_t, int64_t*, Stream);             \
  template void run_log_sample(const Chain<T>&, const LogSpace<T>&, uint64_t, int64_t, int64_t*, Stream);

namespace slv::cuda {
SLV_CHAIN_LAUNCHES(float)
SLV_CHAIN_LAUNCHES(double)
}  // namespace slv::cuda
