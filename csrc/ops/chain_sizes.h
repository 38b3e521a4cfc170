// How many states each chain of a factorial chain has, from a tensor on the CPU.
#pragma once
#include "ops/check.h"

namespace slv {

// The numbers of states of the chains; their product must be that of the joint states.
struct ChainSizes {
  std::vector<int64_t> sizes;
  int64_t edges = 0, ends = 0;
  ChainSizes(const Tensor& x, int64_t states) {
    STD_TORCH_CHECK(x.scalar_type() == ScalarType::Long, "sizes: expected dtype int64");
    STD_TORCH_CHECK(x.dim() == 1, "sizes: expected (m,), found ", text(shape_of(x)));
    const Tensor all = as_contiguous(x);
    const int64_t* p = all.const_data_ptr<int64_t>();
    sizes.assign(p, p + all.numel());
    int64_t joint = 1;
    bool fits = !sizes.empty();
    for (int64_t k : sizes) {
      fits = fits && k > 0 && k <= states && joint <= states;
      if (fits) joint *= k, edges += k * k, ends += k;
    }
    STD_TORCH_CHECK(fits && joint == states,
                    "sizes: expected the numbers of states (>= 1) of at least one chain, whose ",
                    "product is that of the joint states of unary, ", states, ", found ", text(sizes));
  }
};

}  // namespace slv
