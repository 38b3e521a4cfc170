// The instruction set is chosen once, when the first kernel is asked for.
#pragma once
#include "kernels/chain.h"
#include "kernels/pcfg.h"

namespace slv {
// STRUCTLV_CPU = base | avx2 | avx512 overrides the choice (downwards: what the processor lacks is never chosen).
const Kernels& kernels();
const PcfgKernels& pcfg_kernels();
const PcfgScans& pcfg_scans();
}  // namespace slv
