// The operator of Gumbel noise for tensors on a GPU: the same schema, and the same words, as csrc/ops/noise.cpp.
#include "cuda/noise.h"

#include <torch/csrc/stable/library.h>

#include "cuda/bind.h"
#include "ops/noise_event.h"

namespace slv::cuda {
namespace {

Tensor gumbel(const Tensor& like, int64_t event_dims, int64_t num_samples, int64_t seed, bool spans) {
  const NoiseEvent e(like, event_dims, num_samples, spans);
  return dispatch(
      like,
      [&](auto t) {
        using T = decltype(t);
        const OnDevice device(like);
        Tensor out = new_tensor(like, e.out, scalar_type<T>);
        if (out.numel() == 0) return out;
        if (spans) torch::stable::zero_(out);
        const int64_t n = spans ? e.event[0] : 0, labels = spans ? e.event[2] : 1;
        const int64_t positions = spans ? n * (n + 1) / 2 * labels : e.size;
        run_gumbel(Noise{uint64_t(seed), e.items, num_samples, e.size, positions, n, labels}, out.mutable_data_ptr<T>(),
                   device.stream());
        return out;
      },
      "like");
}

}  // namespace

#if defined(SLV_EMULATE)
STABLE_TORCH_LIBRARY_FRAGMENT(structlv_emulated, m) {
  m.def("gumbel(Tensor like, SymInt event_dims, SymInt num_samples, SymInt seed, bool spans) -> Tensor");
}
STABLE_TORCH_LIBRARY_IMPL(structlv_emulated, CPU, m) {
#else
STABLE_TORCH_LIBRARY_IMPL(structlv, CUDA, m) {
#endif
  m.impl("gumbel", TORCH_BOX(&gumbel));
}

}  // namespace slv::cuda
