// From tensors to a Factorial of raw pointers.
#pragma once
#include "kernels/factorial.h"
#include "ops/bind.h"
#include "ops/chain_sizes.h"

namespace slv {

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
