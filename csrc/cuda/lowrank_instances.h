// Every launch of the low-rank PCFG in float32 and float64: included by the source that nvcc compiles and by the
// emulator's.
#pragma once
#include "cuda/lowrank_launch.cuh"
#include "cuda/lowrank_scaled_launch.cuh"

#define SLV_LOWRANK_LAUNCHES(T)                                                                                    \
  template void run_rank_inside(const LowRank<T>&, const RankInside&, int, Stream);                                \
  template void run_rank_outside(const LowRank<T>&, const RankInside&, const RankMass&, const GrammarCounts&, int, \
                                 Stream);                                                                          \
  template void run_rank_means(const LowRank<T>&, const RankInside&, const RankTangent<T>&, int, Stream);          \
  template void run_rank_outside(const LowRank<T>&, const RankInside&, const RankMass&, const RankTangent<T>&,     \
                                 const GrammarCounts&, int, Stream);                                               \
  template void run_rank_sample(const LowRank<T>&, const RankInside&, uint64_t, int64_t, int64_t*, Stream);

#define SLV_SCALED_LOWRANK_LAUNCHES(T)                                                                                \
  template void run_scale_grammar(const LowRank<T>&, const ScaledRanks<T>&, Stream);                                  \
  template void run_scale_words(const LowRank<T>&, const ScaledRanks<T>&, Stream);                                    \
  template Widths widths_of(const LowRank<T>&, int, int);                                                             \
  template void run_scan(const LowRank<T>&, const ScaledRanks<T>&, const Widths&, Stream);                            \
  template void run_scan_end(const LowRank<T>&, const ScaledRanks<T>&, double*, T*, Stream);                          \
  template void run_form_symbols(const LowRank<T>&, const ScaledRanks<T>&, Stream);                                   \
  template void run_adjoint(const LowRank<T>&, const ScaledRanks<T>&, const Widths&, const RankAdjoints<T>&, Stream); \
  template void run_count_tables(const LowRank<T>&, const ScaledRanks<T>&, const RankAdjoints<T>&,                    \
                                 const GrammarCounts&, Stream);

namespace slv::cuda {
SLV_LOWRANK_LAUNCHES(float)
SLV_LOWRANK_LAUNCHES(double)
SLV_SCALED_LOWRANK_LAUNCHES(float)
SLV_SCALED_LOWRANK_LAUNCHES(double)
}  // namespace slv::cuda
