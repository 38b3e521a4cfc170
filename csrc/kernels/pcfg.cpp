// Compiled once per instruction set (SLV_ISA names it); only the getter at the end has a name outside.
#include "kernels/pcfg.h"

#include "core/isa.h"

namespace slv {
namespace {

const PcfgKernels table = {};

}  // namespace

const PcfgKernels* SLV_GETTER(pcfg_kernels)() { return &table; }

}  // namespace slv
