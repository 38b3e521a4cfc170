// Compiled once per instruction set (SLV_ISA names it); only the getter at the end has a name outside.
#include "kernels/pcfg.h"

#include "core/isa.h"
#include "kernels/pcfg_distinct.h"
#include "kernels/pcfg_kbest.h"
#include "kernels/pcfg_log_outside.h"
#include "kernels/pcfg_search.h"

namespace slv {
namespace {

template <class T>
constexpr PcfgLogKernels<T> log_kernels() {
  return {pcfg_log_partition_log<T>, pcfg_marginals_log<T>,     pcfg_hvp_log<T>,
          pcfg_argmax_log<T>,        pcfg_max_marginals_log<T>, pcfg_topk_log<T>,
          pcfg_sample_log<T>,        pcfg_distinct_log<T>,      pcfg_decode_log<T>};
}

const PcfgKernels table = {log_kernels<float>(), log_kernels<double>()};

}  // namespace

const PcfgKernels* SLV_GETTER(pcfg_kernels)() { return &table; }

}  // namespace slv
