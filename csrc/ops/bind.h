// From tensors to raw pointers, as all structures do it: broadcasting, contiguity, clamped lengths, sums over items.
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>

#include "ops/check.h"

namespace slv {

// Calls body(T()) for the dtype of `x`.
template <class F>
auto dispatch(const Tensor& x, F&& body, const char* name = "unary") {
  const ScalarType t = x.scalar_type();
  STD_TORCH_CHECK(t == ScalarType::Float || t == ScalarType::Double, name, ": expected dtype float32 or float64");
  return t == ScalarType::Float ? body(float{}) : body(double{});
}

struct Operand {
  Tensor data;                // contiguous
  std::vector<int64_t> rows;  // item -> row; empty: all 0
  int64_t count = 0;          // rows in data
  const int64_t* map() const { return rows.empty() ? nullptr : rows.data(); }
  int64_t row(int64_t item) const { return rows.empty() ? 0 : rows[item]; }
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
template <class T>
const T* pointer(const Operand& x) {
  return x.count ? x.data.template const_data_ptr<T>() : nullptr;
}

// What every structure has: a unary potential (*b, n, k), which carries the batch, and lengths. `expected` is what is
// said where it has not that form.
template <class T>
struct BoundBatch {
  Shape batch;
  Tensor unary;
  int64_t items = 0, n = 0, k = 0;
  std::vector<int64_t> length;  // clamped; empty where none are given: all n

  BoundBatch(const Tensor& u, const char* expected, const MaybeTensor& lengths) {
    STD_TORCH_CHECK(u.dim() >= 2, expected, ", found ", text(shape_of(u)));
    const Shape shape = shape_of(u);
    n = shape[shape.size() - 2], k = shape.back();
    batch = Shape(shape.begin(), shape.end() - 2);
    items = product(batch);
    unary = as_contiguous(u);
    bind_lengths(lengths);
  }
  BoundBatch(const BoundBatch&) = delete;

  const int64_t* length_map() const { return length.empty() ? nullptr : length.data(); }
  static Tensor empty(const Shape& shape, ScalarType dtype = scalar_type<T>) { return empty_tensor(shape, dtype); }
  static Tensor empty_chart(int64_t size) { return empty_tensor({size}, scalar_type<T>, Purpose::chart); }
  Shape with(const Shape& tail, const Shape& head = {}) const {
    Shape s = head;
    s.insert(s.end(), batch.begin(), batch.end());
    s.insert(s.end(), tail.begin(), tail.end());
    return s;
  }

 private:
  void bind_lengths(const MaybeTensor& lengths) {
    if (!lengths) return;
    STD_TORCH_CHECK(lengths->scalar_type() == ScalarType::Long, "lengths: expected dtype int64");
    STD_TORCH_CHECK(shape_of(*lengths) == batch, "lengths: expected shape ", text(batch), ", found ",
                    text(shape_of(*lengths)));
    Tensor x = as_contiguous(*lengths);
    const int64_t* p = x.const_data_ptr<int64_t>();
    length.assign(p, p + items);
    for (int64_t& l : length) l = std::clamp<int64_t>(l, 0, n);
    if (length.empty()) length.push_back(0);  // an empty batch has lengths too
  }
};

// Events (*s, *b, ...) of items (*b, ...): how many samples lie in front of the batch, and (*s, *b).
inline int64_t samples_of(const char* name, const Tensor& events, const Shape& items) {
  STD_TORCH_CHECK(events.scalar_type() == ScalarType::Long, name, ": expected dtype int64");
  Shape s = shape_of(events);
  check_tail(name, s, items);
  s.resize(s.size() - items.size());
  return product(s);
}
inline Shape samples_shape(const Tensor& events, size_t event_dims) {
  Shape shape = shape_of(events);
  shape.resize(shape.size() - event_dims);
  return shape;
}

// Item weights of a backward pass in float64. What T flushes to zero is zero: its power of two, which the scaled
// kernels divide by, would be zero too.
template <class T>
std::vector<double> weights_of(const Tensor& grad, const Shape& batch) {
  check_sizes("grad", grad, batch);
  std::vector<double> weight(product(batch));
  auto copy = [&](const Tensor& x, auto t) {
    using G = decltype(t);
    const G* p = x.const_data_ptr<G>();
    const auto strides = x.strides();
    const bool one = std::all_of(strides.begin(), strides.end(), [](int64_t s) { return s == 0; });  // of a sum
    const Tensor all = one ? x : as_contiguous(x);
    if (one && !weight.empty())
      std::fill(weight.begin(), weight.end(), double(*p));
    else
      std::copy_n(all.const_data_ptr<G>(), weight.size(), weight.begin());
  };
  if (grad.scalar_type() == ScalarType::Float)
    copy(grad, float{});
  else
    copy(torch::stable::to(grad, std::optional<ScalarType>(ScalarType::Double)), double{});
  for (double& w : weight)
    if (std::abs(w) < double(std::numeric_limits<T>::min())) w = 0;
  return weight;
}

// Runs pass(log_z) on float64 values and returns them in the asked precision.
template <class T, class F>
Tensor log_partitions(const BoundBatch<T>& p, bool as_double, F&& pass) {
  Tensor out = p.empty(p.batch, as_double ? ScalarType::Double : scalar_type<T>);
  if (as_double || sizeof(T) == 8) {
    pass(out.template mutable_data_ptr<double>());
    return out;
  }
  std::vector<double> log_z(p.items);
  pass(log_z.data());
  std::transform(log_z.begin(), log_z.end(), out.template mutable_data_ptr<T>(), [](double z) { return T(z); });
  return out;
}

// The gradient of a potential with rows of `size` elements: from(item), or null for zeros, summed over the items of
// each row in order. An absent potential has an empty gradient.
template <class T, class F>
Tensor sum_over_items(const BoundBatch<T>& p, const Operand& x, const MaybeTensor& like, int64_t size, F&& from) {
  if (!like) return p.empty({0});
  std::vector<double> sum(x.count * size);
  for (int64_t b = 0; b < p.items; b++) {
    const T* row = from(b);
    for (int64_t i = 0; row && i < size; i++) sum[x.row(b) * size + i] += double(row[i]);
  }
  Tensor out = p.empty(shape_of(*like));
  std::transform(sum.begin(), sum.end(), out.template mutable_data_ptr<T>(), [](double s) { return T(s); });
  return out;
}

}  // namespace slv
