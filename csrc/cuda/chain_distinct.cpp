// The operator of paths without replacement for tensors on a GPU: the same schema as in csrc/ops/chain.cpp.
#include "cuda/chain_distinct.h"

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "cuda/chain_run.h"

namespace slv::cuda {
namespace {

// k^n, or `most` where that is less: no memory for more paths than there are.
int64_t paths(int64_t k, int64_t n, int64_t most) {
  int64_t number = 1;
  for (int64_t t = 0; t < n && k > 1 && number < most; t++) number = number > most / k ? most : number * k;
  return std::min(number, most);
}

std::tuple<Tensor, Tensor> sample_distinct(const Tensor& unary, const Tensor& transition, MaybeTensor initial,
                                           MaybeTensor final, MaybeTensor lengths, int64_t k, int64_t seed) {
  STD_TORCH_CHECK(k >= 0, "k: expected a number of structures >= 0, found ", k);
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    Bound<T> p(unary, transition, initial, final, lengths);
    Tensor states = p.empty(p.with({p.n}, {k}), ScalarType::Long);
    Tensor perturbed = p.empty(p.with({}, {k}), ScalarType::Double);
    if (perturbed.numel() == 0) return std::make_tuple(states, perturbed);
    Distinct d = Distinct::of(uint64_t(seed), k, paths(p.k, p.n, k), p.n, p.k);
    STD_TORCH_CHECK(d.width <= INT32_MAX && d.opened <= INT32_MAX, "k: too many structures: ", k);
    d.states = states.mutable_data_ptr<int64_t>(), d.perturbed = perturbed.mutable_data_ptr<double>();
    const int64_t row = std::max<int64_t>(p.n * p.k, 1), arrays = (d.stride + row - 1) / row;
    d.stride = arrays * row;
    each_range<T>(p, nullptr, 1, false, int(arrays), [&](const LogSpace<T>& l, double* memory, int64_t) {
      d.memory = memory;
      log_forward<T>(p.chain, l, nullptr, nullptr, p.stream);
      run_distinct(p.chain, l, d, p.stream);
    });
    return std::make_tuple(states, perturbed);
  });
}

}  // namespace

#if defined(SLV_EMULATE)
STABLE_TORCH_LIBRARY_FRAGMENT(structlv_emulated, m) {
  m.def(
      "chain_sample_distinct(Tensor unary, Tensor transition, Tensor? initial, Tensor? final, Tensor? lengths, SymInt "
      "k, "
      "SymInt seed) -> (Tensor, Tensor)");
}
STABLE_TORCH_LIBRARY_IMPL(structlv_emulated, CPU, m) {
#else
STABLE_TORCH_LIBRARY_IMPL(structlv, CUDA, m) {
#endif
  m.impl("chain_sample_distinct", TORCH_BOX(&sample_distinct));
}

}  // namespace slv::cuda
