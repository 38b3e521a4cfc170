// Compiled once per instruction set (SLV_ISA names it); only the getter at the end has a name outside.
#include "kernels/factorial.h"

#include "core/isa.h"
#include "kernels/factorial_sample.h"

namespace slv {
namespace {

template <class T>
constexpr FactorialLogKernels<T> log_kernels() {
  return {log_partition_log<T>, marginals_log<T>, hvp_log<T>};
}

template <class T>
constexpr FactorialLaneKernels<T> lane_kernels() {
  return {block_of<T>, block_forward<T>, block_backward<T>, block_sample<T>, block_viterbi<T>};
}

const FactorialKernels table = {lane_kernels<float>(), lane_kernels<double>(), log_kernels<float>(),
                                log_kernels<double>()};

}  // namespace

const FactorialKernels* SLV_GETTER(factorial_kernels)() { return &table; }

}  // namespace slv
