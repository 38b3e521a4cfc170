// Every launch of the PCFG in float32 and float64: included by the source that nvcc compiles and by the emulator's.
#pragma once
#include "cuda/pcfg_launch.cuh"
#include "cuda/pcfg_scaled_launch.cuh"

#define SLV_PCFG_LAUNCHES(T)                                                                                       \
  template void run_inside(const Pcfg<T>&, const TreeSpace<T>&, int, Stream);                                      \
  template void run_best(const Pcfg<T>&, const TreeSpace<T>&, int, Stream);                                        \
  template void run_finish(const Tree<T>&, const double*, double*, T*, Stream);                                    \
  template void run_tops(const Tree<T>&, const double*, const double*, double*, double*, Stream);                  \
  template void run_outside(const Pcfg<T>&, const TreeSpace<T>&, const TreeMass&, int, const RuleCounts&, Stream); \
  template void run_means(const Pcfg<T>&, const TreeSpace<T>&, const TreeTangent<T>&, int, Stream);                \
  template void run_top_means(const Tree<T>&, const Tree<T>&, const double*, const TreeMeans<T>&, Stream);         \
  template void run_outside(const Pcfg<T>&, const TreeSpace<T>&, const TreeMass&, const TreeTangent<T>&, int,      \
                            const RuleCounts&, Stream);                                                            \
  template void run_covariances(const Tree<T>&, const Tree<T>&, const TreeMeans<T>&, double*, double*, double*,    \
                                Stream);                                                                           \
  template void run_argmax(const Pcfg<T>&, const double*, int64_t*, Stream);                                       \
  template void run_sample(const Pcfg<T>&, const double*, uint64_t, int64_t, int64_t, double*, int64_t*, Stream);  \
  template void run_sum_items(const RowMap&, int64_t, const double*, T*, Stream);                                  \
  template void run_sum_spans(const Tree<T>&, const RowMap&, int, const double*, T*, Stream);

#define SLV_SCALED_PCFG_LAUNCHES(T)                                                                                  \
  template void run_scale_rules(const Pcfg<T>&, const ScaledPcfg<T>&, int64_t, Stream);                              \
  template void run_scale_words(const Pcfg<T>&, const ScaledPcfg<T>&, Stream);                                       \
  template Widths widths_of(const Pcfg<T>&, int, int);                                                               \
  template void run_scan(const Pcfg<T>&, const ScaledPcfg<T>&, const Widths&, const TileSpace<T>&, Stream);          \
  template void run_scan_end(const Pcfg<T>&, const ScaledPcfg<T>&, double*, T*, Stream);                             \
  template void run_adjoint(const Pcfg<T>&, const ScaledPcfg<T>&, const Widths&, const TileSpace<T>&,                \
                            const TreeAdjoints<T>&, Stream);                                                         \
  template void run_unhoist_rules(const Pcfg<T>&, const ScaledPcfg<T>&, const Widths&, const TileSpace<T>&,          \
                                  const TreeAdjoints<T>&, const RuleCounts&, Stream);                                \
  template void run_word_adjoints(const Pcfg<T>&, const ScaledPcfg<T>&, const TileSpace<T>&, const TreeAdjoints<T>&, \
                                  Stream);                                                                           \
  template void run_unhoist_words(const Pcfg<T>&, const ScaledPcfg<T>&, const TileSpace<T>&, const TreeAdjoints<T>&, \
                                  Stream);

namespace slv::cuda {
SLV_PCFG_LAUNCHES(float)
SLV_PCFG_LAUNCHES(double)
SLV_SCALED_PCFG_LAUNCHES(float)
SLV_SCALED_PCFG_LAUNCHES(double)
}  // namespace slv::cuda
