// Compiled once per instruction set (SLV_ISA names it); only the getter at the end has a name outside.
#include "kernels/noise.h"

#include "core/isa.h"
#include "kernels/gumbel.h"

namespace slv {
namespace {

const NoiseKernels table = {gumbel<float>, gumbel<double>};

}  // namespace

const NoiseKernels* SLV_GETTER(noise_kernels)() { return &table; }

}  // namespace slv
