// From tensors to a Chain of raw pointers: broadcasting, contiguity, clamped lengths.
#pragma once
#include <algorithm>
#include <memory>

#include "kernels/chain.h"
#include "ops/check.h"

namespace slv {

struct Operand {
  Tensor data;                // contiguous
  std::vector<int64_t> rows;  // item -> row; empty: all 0
  int64_t count = 0;          // rows in data
  const int64_t* map() const { return rows.empty() ? nullptr : rows.data(); }
};

// One potential with `tail` trailing sizes. Missing operands have count 0.
inline Operand bind_operand(const char* name, const Tensor& x, const Shape& tail, const Shape& batch,
                            ScalarType dtype) {
  STD_TORCH_CHECK(x.scalar_type() == dtype, name, ": its dtype differs from that of unary");
  Shape shape = shape_of(x);
  check_tail(name, shape, tail);
  Shape lead(shape.begin(), shape.end() - tail.size());
  check_broadcast(name, lead, batch);
  return {as_contiguous(x), broadcast_rows(lead, batch), product(lead)};
}
inline Operand bind_operand(const char* name, const MaybeTensor& x, const Shape& tail, const Shape& batch,
                            ScalarType d) {
  return x ? bind_operand(name, *x, tail, batch, d) : Operand{};
}
inline bool is_per_step(const Tensor& transition, const Tensor& unary) { return transition.dim() == unary.dim() + 1; }
inline Shape edge_tail(bool per_step, int64_t n, int64_t k) {
  return per_step ? Shape{std::max<int64_t>(n - 1, 0), k, k} : Shape{k, k};
}

template <class T>
const T* pointer(const Operand& x) {
  return x.count ? x.data.template const_data_ptr<T>() : nullptr;
}

template <class T>
struct Bound {
  Shape batch;
  Tensor unary;
  Operand transition, initial, final;
  std::vector<int64_t> length;
  Chain<T> chain;

  Bound(const Tensor& u, const Tensor& a, const MaybeTensor& i, const MaybeTensor& f, const MaybeTensor& lengths) {
    STD_TORCH_CHECK(u.dim() >= 2, "unary: expected (*b, n, k), found ", text(shape_of(u)));
    STD_TORCH_CHECK(a.dim() <= u.dim() + 1, "transition: expected (*b, k, k) or (*b, n-1, k, k), found ",
                    text(shape_of(a)));
    Shape shape = shape_of(u);
    const int64_t n = shape[shape.size() - 2], k = shape.back();
    STD_TORCH_CHECK(k > 0, "unary: expected at least one state (k >= 1), found ", text(shape));
    batch = Shape(shape.begin(), shape.end() - 2);
    unary = as_contiguous(u);
    const ScalarType dtype = scalar_type<T>;
    const bool per_step = is_per_step(a, u);
    transition = bind_operand("transition", a, edge_tail(per_step, n, k), batch, dtype);
    initial = bind_operand("initial", i, {k}, batch, dtype);
    final = bind_operand("final", f, {k}, batch, dtype);
    bind_lengths(lengths, n);
    chain = {product(batch),
             n,
             k,
             per_step,
             unary.const_data_ptr<T>(),
             pointer<T>(transition),
             pointer<T>(initial),
             pointer<T>(final),
             transition.map(),
             initial.map(),
             final.map(),
             lengths ? length.data() : nullptr};
  }
  Bound(const Bound&) = delete;

  static Tensor empty(const Shape& shape, ScalarType dtype = scalar_type<T>) { return empty_tensor(shape, dtype); }
  Shape with(const Shape& tail, const Shape& head = {}) const {
    Shape s = head;
    s.insert(s.end(), batch.begin(), batch.end());
    s.insert(s.end(), tail.begin(), tail.end());
    return s;
  }
  int64_t edge_size() const { return (chain.per_step ? std::max<int64_t>(chain.n - 1, 0) : 1) * chain.k * chain.k; }

 private:
  void bind_lengths(const MaybeTensor& lengths, int64_t n) {
    if (!lengths) return;
    STD_TORCH_CHECK(lengths->scalar_type() == ScalarType::Long, "lengths: expected dtype int64");
    STD_TORCH_CHECK(shape_of(*lengths) == batch, "lengths: expected shape ", text(batch), ", found ",
                    text(shape_of(*lengths)));
    Tensor x = as_contiguous(*lengths);
    const int64_t* p = x.const_data_ptr<int64_t>();
    length.assign(p, p + product(batch));
    for (int64_t& l : length) l = std::clamp<int64_t>(l, 0, n);
    if (length.empty()) length.push_back(0);  // a pointer that is not null, for an empty batch
  }
};

}  // namespace slv
