// The scaled kernels of the PCFG and the ladder they are rungs of, once per instruction set.
#include "core/isa.h"
#include "kernels/pcfg_distinct.h"
#include "kernels/pcfg_ladder.h"
#include "kernels/pcfg_sample.h"
#include "kernels/pcfg_viterbi.h"

namespace slv {
namespace {

template <class T>
constexpr PcfgScanKernels<T> scan_kernels() {
  return {pcfg_forward<T>, pcfg_backward<T>, pcfg_argmax<T>, pcfg_sample<T>, pcfg_distinct<T>};
}

const PcfgScans table = {scan_kernels<float>(), scan_kernels<double>()};

}  // namespace

const PcfgScans* SLV_GETTER(pcfg_scans)() { return &table; }

}  // namespace slv
