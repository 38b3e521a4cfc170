// Compiled once per instruction set (SLV_ISA names it); only the getter at the end has a name outside.
#include "kernels/lowrank.h"

#include "core/isa.h"
#include "kernels/lowrank_ladder.h"

namespace slv {
namespace {

template <class T>
constexpr LowRankKernels<T> lowrank_table() {
  return {lowrank_prepare<T>, lowrank_release<T>, lowrank_forward<T>, lowrank_backward<T>, lowrank_sample<T>};
}
const LowRankTable table = {lowrank_table<float>(), lowrank_table<double>()};

}  // namespace

const LowRankTable* SLV_GETTER(lowrank_kernels)() { return &table; }

}  // namespace slv
