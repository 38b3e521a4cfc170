// The instruction set is chosen once, when the first kernel is asked for.
#pragma once
#include "kernels/chain.h"
#include "kernels/factorial.h"
#include "kernels/lowrank.h"
#include "kernels/noise.h"
#include "kernels/pcfg.h"
#include "kernels/sparse_pcfg.h"

namespace slv {
// STRUCTLV_CPU = base | avx2 | avx512 overrides the choice (downwards: what the processor lacks is never chosen).
const Kernels& kernels();
const PcfgKernels& pcfg_kernels();
const FactorialKernels& factorial_kernels();
const LowRankTable& lowrank_kernels();
const SparsePcfgKernels& sparse_pcfg_kernels();
const PcfgScans& pcfg_scans();
const NoiseKernels& noise_kernels();

// Whether there is a NaN among n numbers; a null pointer has none.
template <class T>
bool any_nan(const T* x, int64_t n) {
  if constexpr (sizeof(T) == 4)
    return x && kernels().has_nan_f32(x, n);
  else
    return x && kernels().has_nan_f64(x, n);
}
}  // namespace slv
