#include "ops/dispatch.h"

#include <cstdlib>
#include <cstring>

namespace slv {
namespace {

#if defined(__x86_64__) && !defined(SLV_ONE_ISA)
// The getter of the widest instruction set that the processor has and the user allows.
template <class Table>
const Table* choose(const Table* (*base)(), const Table* (*avx2)(), const Table* (*avx512)()) {
  const char* wanted = std::getenv("STRUCTLV_CPU");
  auto allowed = [wanted](const char* name) { return !wanted || !*wanted || std::strcmp(wanted, name) == 0; };
  __builtin_cpu_init();
  if (allowed("avx512") && __builtin_cpu_supports("x86-64-v4")) return avx512();
  if ((allowed("avx2") || allowed("avx512")) && __builtin_cpu_supports("x86-64-v3")) return avx2();
  return base();
}
#define SLV_CHOOSE(getter) choose(getter##_base, getter##_avx2, getter##_avx512)
#else
#define SLV_CHOOSE(getter) getter##_base()
#endif

}  // namespace

const Kernels& kernels() {
  static const Kernels& chosen = *SLV_CHOOSE(kernels);
  return chosen;
}
const PcfgKernels& pcfg_kernels() {
  static const PcfgKernels& chosen = *SLV_CHOOSE(pcfg_kernels);
  return chosen;
}
const FactorialKernels& factorial_kernels() {
  static const FactorialKernels& chosen = *SLV_CHOOSE(factorial_kernels);
  return chosen;
}
const LowRankTable& lowrank_kernels() {
  static const LowRankTable& chosen = *SLV_CHOOSE(lowrank_kernels);
  return chosen;
}
const SparsePcfgKernels& sparse_pcfg_kernels() {
  static const SparsePcfgKernels& chosen = *SLV_CHOOSE(sparse_pcfg_kernels);
  return chosen;
}
const PcfgScans& pcfg_scans() {
  static const PcfgScans& chosen = *SLV_CHOOSE(pcfg_scans);
  return chosen;
}
const NoiseKernels& noise_kernels() {
  static const NoiseKernels& chosen = *SLV_CHOOSE(noise_kernels);
  return chosen;
}

}  // namespace slv
