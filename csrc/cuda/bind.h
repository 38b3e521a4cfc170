// From tensors on a GPU to pointers. What the host cannot read without waiting (lengths, flags) stays on the device.
#pragma once
#include "cuda/row_map.h"
#include "cuda/stream.h"
#include "ops/check.h"

namespace slv::cuda {

struct Operand {
  Tensor data;  // contiguous
  RowMap rows;
  bool given = false;
  template <class T>
  const T* pointer() const {
    return given ? data.const_data_ptr<T>() : nullptr;
  }
};

// On the device of `like`.
inline Tensor new_tensor(const Tensor& like, const Shape& shape, ScalarType dtype) {
  Tensor out = torch::stable::new_empty(like, shape, std::optional<ScalarType>(dtype));
#if defined(SLV_EMULATE)
  const size_t size = dtype == ScalarType::Float || dtype == ScalarType::Int ? 4 : 8;
  const bool integers = dtype == ScalarType::Int || dtype == ScalarType::Long;
  simt::poison(out.mutable_data_ptr(), size * size_t(product(shape)), integers);
#endif
  return out;
}

// What every structure has: a unary potential (*b, n, k), which carries the batch and the device, and lengths.
template <class T>
struct BoundBatch {
  OnDevice device;
  Shape batch;
  Tensor unary, lengths;
  int64_t items = 0, n = 0, k = 0;
  void* stream;

  BoundBatch(const Tensor& u, const char* expected, const MaybeTensor& l, int64_t most_states = 1 << 15)
      : device(u), stream(device.stream()) {
    STD_TORCH_CHECK(u.dim() >= 2, expected, ", found ", text(shape_of(u)));
    const Shape shape = shape_of(u);
    n = shape[shape.size() - 2], k = shape.back();
    batch = Shape(shape.begin(), shape.end() - 2);
    items = product(batch);
    STD_TORCH_CHECK(items <= INT32_MAX && n <= INT32_MAX && k <= most_states, expected,
                    " with fewer than 2^31 items and steps and at most ", most_states, " states, found ", text(shape));
    unary = as_contiguous(u);
    if (!l) return;
    STD_TORCH_CHECK(l->scalar_type() == ScalarType::Long, "lengths: expected dtype int64");
    STD_TORCH_CHECK(shape_of(*l) == batch, "lengths: expected shape ", text(batch), ", found ", text(shape_of(*l)));
    check_device("lengths", *l);
    lengths = as_contiguous(*l);
  }
  BoundBatch(const BoundBatch&) = delete;

  const int64_t* length() const { return lengths.defined() ? lengths.const_data_ptr<int64_t>() : nullptr; }
  Shape with(const Shape& tail, const Shape& head = {}) const {
    Shape s = head;
    s.insert(s.end(), batch.begin(), batch.end());
    s.insert(s.end(), tail.begin(), tail.end());
    return s;
  }
  Tensor empty(const Shape& shape, ScalarType dtype = scalar_type<T>) const { return new_tensor(unary, shape, dtype); }
  void check_device(const char* name, const Tensor& x) const {
    STD_TORCH_CHECK(x.is_cuda() == unary.is_cuda() && x.get_device_index() == unary.get_device_index(), name,
                    ": expected on the device of unary");
  }
  // One potential with `tail` trailing sizes.
  Operand operand(const char* name, const Tensor& x, const Shape& tail) const {
    STD_TORCH_CHECK(x.scalar_type() == scalar_type<T>, name, ": its dtype differs from that of unary");
    check_device(name, x);
    const Shape shape = shape_of(x);
    check_tail(name, shape, tail);
    const Shape lead(shape.begin(), shape.end() - tail.size());
    check_broadcast(name, lead, batch);
    return {as_contiguous(x), row_map(lead, batch), true};
  }
  Operand operand(const char* name, const MaybeTensor& x, const Shape& tail) const {
    return x ? operand(name, *x, tail) : Operand{};
  }
  // Item weights of a backward pass in float64.
  Tensor weights(const Tensor& grad) const {
    check_sizes("grad", grad, batch);
    check_device("grad", grad);
    return as_contiguous(torch::stable::to(grad, std::optional<ScalarType>(ScalarType::Double)));
  }
};

// Calls body(T()) for the dtype of `x`.
template <class F>
auto dispatch(const Tensor& x, F&& body, const char* name = "unary") {
  const ScalarType t = x.scalar_type();
  STD_TORCH_CHECK(t == ScalarType::Float || t == ScalarType::Double, name, ": expected dtype float32 or float64");
  return t == ScalarType::Float ? body(float{}) : body(double{});
}

}  // namespace slv::cuda
