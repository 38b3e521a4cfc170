// Shapes and dtypes are checked here, before any kernel sees them. The Python side raises the same sentences as
// ValueError and TypeError; this is the second line, for callers of torch.ops.
#pragma once
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#if defined(__linux__)
#include <dlfcn.h>
#endif

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "ops/memory.h"

namespace slv {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using MaybeTensor = std::optional<Tensor>;
using Shape = std::vector<int64_t>;

// The tensor itself where it is contiguous: torch is called through a slow door.
inline Tensor as_contiguous(const Tensor& x) { return x.is_contiguous() ? x : torch::stable::contiguous(x); }
inline int64_t product(const Shape& s) {
  int64_t p = 1;
  for (int64_t x : s) p *= x;
  return p;
}
inline int32_t shim_code(ScalarType dtype) {
  return torch::stable::detail::to<int32_t>(torch::stable::detail::from(dtype));
}

#if defined(__linux__)
// torch's constructor of tensors in memory that is not its own. Where it is missing, before torch 2.11, it would not
// tell when a tensor is dropped.
using FromBlob = AOTITorchError (*)(void*, int64_t, const int64_t*, const int64_t*, int64_t, int32_t, int32_t, int32_t,
                                    AtenTensorHandle*, int32_t, const uint8_t*, int64_t, void (*)(void*, void*), void*);
inline FromBlob from_blob() {
  static const auto found = reinterpret_cast<FromBlob>(dlsym(RTLD_DEFAULT, "torch_from_blob"));
  return found;
}
#endif

// In a large block, or nothing.
inline MaybeTensor large_tensor([[maybe_unused]] const Shape& shape, [[maybe_unused]] const Shape& strides,
                                [[maybe_unused]] ScalarType dtype, [[maybe_unused]] Purpose purpose) {
#if defined(__linux__)
  const int64_t bytes = product(shape) * (dtype == ScalarType::Float ? 4 : 8);
  if (bytes < LargeBlocks::kLeast || !from_blob()) return {};
  const int power = LargeBlocks::power_for(bytes);
  void* block = LargeBlocks::all(purpose).take(power);
  if (!block) return {};
  const auto drop = [](void* data, void* tag) {
    const int tagged = int(reinterpret_cast<intptr_t>(tag));
    LargeBlocks::all(Purpose(tagged >> 8)).drop(data, tagged & 255);
  };
  void* tag = reinterpret_cast<void*>(intptr_t(int(purpose) << 8 | power));
  AtenTensorHandle handle;
  const auto failed =
      from_blob()(block, int64_t(shape.size()), shape.data(), strides.data(), 0, shim_code(dtype),
                  aoti_torch_device_type_cpu(), -1, &handle, aoti_torch_layout_strided(), nullptr, 0, drop, tag);
  if (failed) drop(block, tag);
  STABLE_TORCH_ERROR_CODE_CHECK(failed);
  return Tensor(handle);
#else
  return {};
#endif
}

// A new tensor on the CPU, by the shortest way: new_empty costs half a microsecond more.
inline Tensor empty_tensor(const Shape& shape, ScalarType dtype, Purpose purpose = Purpose::result) {
  Shape strides(shape.size());
  int64_t stride = 1;
  for (size_t i = shape.size(); i-- > 0; stride *= std::max<int64_t>(shape[i], 1)) strides[i] = stride;
  if (MaybeTensor large = large_tensor(shape, strides, dtype, purpose)) return *large;
  AtenTensorHandle handle;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(int64_t(shape.size()), shape.data(), strides.data(),
                                                         shim_code(dtype), aoti_torch_device_type_cpu(), 0, &handle));
  return Tensor(handle);
}

inline Shape shape_of(const Tensor& x) {
  auto s = x.sizes();
  return Shape(s.begin(), s.end());
}
inline std::string text(const Shape& s) {
  std::string out = "(";
  for (size_t i = 0; i < s.size(); i++) out += (i ? ", " : "") + std::to_string(s[i]);
  return out + ")";
}
// The leading sizes must broadcast against the batch without enlarging it.
inline void check_broadcast(const char* name, const Shape& lead, const Shape& batch) {
  bool ok = lead.size() <= batch.size();
  for (size_t i = 0; ok && i < lead.size(); i++) {
    int64_t mine = lead[lead.size() - 1 - i], theirs = batch[batch.size() - 1 - i];
    ok = mine == theirs || mine == 1;
  }
  STD_TORCH_CHECK(ok, name, ": batch dimensions ", text(lead), " do not broadcast to ", text(batch));
}
inline void check_tail(const char* name, const Shape& found, const Shape& tail) {
  bool ok = found.size() >= tail.size() && std::equal(tail.rbegin(), tail.rend(), found.rbegin());
  STD_TORCH_CHECK(ok, name, ": expected a shape ending in ", text(tail), ", found ", text(found));
}
inline void check_sizes(const char* name, const Tensor& x, const Shape& expected) {
  const Shape found = shape_of(x);
  STD_TORCH_CHECK(found == expected, name, ": expected shape ", text(expected), ", found ", text(found));
}
// Of a potential of spans: one label for a constituent, or one for each of the `nt` nonterminals.
inline int64_t span_labels(const Tensor& spans, int64_t nt) {
  const Shape shape = shape_of(spans);
  STD_TORCH_CHECK(shape.size() >= 3 && (shape.back() == nt || shape.back() == 1),
                  "spans: expected (*b, n, n, nt) or (*b, n, n, 1) with nt = ", nt, ", found ", text(shape));
  return shape.back();
}
// For each item of the flattened batch, its row of an operand with these leading sizes; empty where all share one row.
inline std::vector<int64_t> broadcast_rows(const Shape& lead, const Shape& batch) {
  if (product(lead) == 1 || product(batch) == 0) return {};
  std::vector<int64_t> rows{0};
  int64_t stride = product(lead);
  const size_t missing = batch.size() - lead.size();
  for (size_t d = 0; d < batch.size(); d++) {
    const int64_t mine = d < missing ? 1 : lead[d - missing];
    stride /= mine;
    std::vector<int64_t> next;
    next.reserve(rows.size() * batch[d]);
    for (int64_t r : rows)
      for (int64_t i = 0; i < batch[d]; i++) next.push_back(r + (mine == 1 ? 0 : i * stride));
    rows = std::move(next);
  }
  return rows;
}

template <class T>
constexpr ScalarType scalar_type = sizeof(T) == 4 ? ScalarType::Float : ScalarType::Double;

}  // namespace slv
