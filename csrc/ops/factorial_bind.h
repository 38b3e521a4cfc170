// From tensors to a Factorial of raw pointers.
#pragma once
#include "kernels/factorial.h"
#include "ops/bind.h"

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

// A direction of the transition may be one per step: then it has one dimension more than batch and edges.
template <class T>
struct BoundFactorial : BoundBatch<T> {
  using BoundBatch<T>::batch, BoundBatch<T>::items, BoundBatch<T>::n, BoundBatch<T>::k;
  ChainSizes sizes;
  Operand transition, initial;
  Factorial<T> chain;

  BoundFactorial(const Tensor& u, const Tensor& a, const MaybeTensor& i, const Tensor& s, const MaybeTensor& lengths,
                 bool direction = false)
      : BoundBatch<T>(u, "unary: expected (*b, n, s)", lengths), sizes(s, k) {
    const ScalarType dtype = scalar_type<T>;
    const bool per_step = direction && a.dim() == u.dim();
    const Shape tail = per_step ? Shape{std::max<int64_t>(n - 1, 0), sizes.edges} : Shape{sizes.edges};
    transition = bind_operand("transition", a, tail, batch, dtype);
    initial = bind_operand("initial", i, {sizes.ends}, batch, dtype);
    chain = {items,
             n,
             int64_t(sizes.sizes.size()),
             k,
             sizes.sizes.data(),
             sizes.edges,
             sizes.ends,
             this->unary.template const_data_ptr<T>(),
             pointer<T>(transition),
             pointer<T>(initial),
             transition.map(),
             initial.map(),
             this->length_map(),
             per_step};
  }
};

}  // namespace slv
