// Compiled once per instruction set (SLV_ISA names it); only the getter at the end has a name outside.
#include "kernels/factorial.h"

#include "core/isa.h"
#include "kernels/factorial_log.h"
#include "kernels/factorial_search.h"

namespace slv {
namespace {

template <class T>
constexpr FactorialLogKernels<T> log_kernels() {
  return {log_partition_log<T>, marginals_log<T>, hvp_log<T>, argmax_log<T>, sample_log<T>};
}

const FactorialKernels table = {log_kernels<float>(), log_kernels<double>()};

}  // namespace

const FactorialKernels* SLV_GETTER(factorial_kernels)() { return &table; }

}  // namespace slv
