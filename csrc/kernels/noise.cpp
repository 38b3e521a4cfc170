#include "kernels/noise.h"

#include "core/isa.h"
#include "kernels/gumbel.h"

namespace slv {
namespace {

const NoiseKernels table = {draw_gumbel<float>, draw_gumbel<double>};

}  // namespace

const NoiseKernels* SLV_GETTER(noise_kernels)() { return &table; }

}  // namespace slv
