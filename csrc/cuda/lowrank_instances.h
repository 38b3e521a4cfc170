// Every launch of the low-rank PCFG in float32 and float64: included by the source that nvcc compiles and by the
// emulator's.
#pragma once
#include "cuda/lowrank_launch.cuh"

#define SLV_LOWRANK_LAUNCHES(T)                                                                                  \
  template void run_rank_inside(const LowRank<T>&, const RankInside&, int, Stream);                              \
  template void run_rank_outside(const LowRank<T>&, const RankInside&, const RankMass&, const GrammarSums&, int, \
                                 Stream);                                                                        \
  template void run_rank_sample(const LowRank<T>&, const RankInside&, uint64_t, int64_t, int64_t*, Stream);

namespace slv::cuda {
SLV_LOWRANK_LAUNCHES(float)
SLV_LOWRANK_LAUNCHES(double)
}  // namespace slv::cuda
