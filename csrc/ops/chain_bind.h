// From tensors to a Chain of raw pointers.
#pragma once
#include "kernels/chain.h"
#include "ops/bind.h"

namespace slv {

inline bool is_per_step(const Tensor& transition, const Tensor& unary) { return transition.dim() == unary.dim() + 1; }
inline Shape edge_tail(bool per_step, int64_t n, int64_t k) {
  return per_step ? Shape{std::max<int64_t>(n - 1, 0), k, k} : Shape{k, k};
}

template <class T>
struct Bound : BoundBatch<T> {
  using BoundBatch<T>::batch, BoundBatch<T>::items, BoundBatch<T>::n, BoundBatch<T>::k;
  Operand transition, initial, final;
  Chain<T> chain;

  Bound(const Tensor& u, const Tensor& a, const MaybeTensor& i, const MaybeTensor& f, const MaybeTensor& lengths)
      : BoundBatch<T>(u, "unary: expected (*b, n, k)", lengths) {
    STD_TORCH_CHECK(a.dim() <= u.dim() + 1, "transition: expected (*b, k, k) or (*b, n-1, k, k), found ",
                    text(shape_of(a)));
    STD_TORCH_CHECK(k > 0, "unary: expected at least one state (k >= 1), found ", text(shape_of(u)));
    const ScalarType dtype = scalar_type<T>;
    const bool per_step = is_per_step(a, u);
    transition = bind_operand("transition", a, edge_tail(per_step, n, k), batch, dtype);
    initial = bind_operand("initial", i, {k}, batch, dtype);
    final = bind_operand("final", f, {k}, batch, dtype);
    chain = {items,
             n,
             k,
             per_step,
             this->unary.template const_data_ptr<T>(),
             pointer<T>(transition),
             pointer<T>(initial),
             pointer<T>(final),
             transition.map(),
             initial.map(),
             final.map(),
             this->length_map()};
  }
  int64_t edge_size() const { return (chain.per_step ? std::max<int64_t>(n - 1, 0) : 1) * k * k; }
};

}  // namespace slv
