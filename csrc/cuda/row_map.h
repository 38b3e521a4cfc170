// Which row of a broadcast operand an item of the flattened batch uses, as arithmetic: nothing is uploaded.
#pragma once
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "core/simt.h"

namespace slv::cuda {

struct RowMap {
  static constexpr int kDims = 6;  // after neighbours of one kind are joined
  int dims = 0;
  uint32_t rows = 1, items = 1;
  uint32_t size[kDims] = {};  // outermost first
  bool shared[kDims] = {};    // whether all of this dimension use one row

  SLV_BOTH uint32_t items_of_row() const { return rows ? items / rows : 0; }
  SLV_BOTH int64_t row(int64_t item) const {
    uint32_t rest = uint32_t(item), out = 0, stride = 1;
    SLV_UNROLL for (int d = kDims - 1; d >= 0; d--) {
      if (d >= dims) continue;
      const uint32_t next = rest / size[d], at = rest - next * size[d];
      rest = next;
      if (shared[d]) continue;
      out += at * stride;
      stride *= size[d];
    }
    return out;
  }
  // The q-th item of a row, in order.
  SLV_BOTH int64_t item(int64_t row, int64_t q) const {
    uint32_t r = uint32_t(row), p = uint32_t(q), out = 0, stride = 1;
    SLV_UNROLL for (int d = kDims - 1; d >= 0; d--) {
      if (d >= dims) continue;
      const uint32_t from = shared[d] ? p : r, next = from / size[d];
      out += (from - next * size[d]) * stride;
      stride *= size[d];
      if (shared[d])
        p = next;
      else
        r = next;
    }
    return out;
  }
};

// Of an operand with these leading sizes, which broadcast to the batch.
inline RowMap row_map(const std::vector<int64_t>& lead, const std::vector<int64_t>& batch) {
  RowMap map;
  const size_t missing = batch.size() - lead.size();
  for (size_t d = 0; d < batch.size(); d++) {
    const bool shared = d < missing || lead[d - missing] != batch[d];
    map.items *= uint32_t(batch[d]);
    if (!shared) map.rows *= uint32_t(batch[d]);
    if (batch[d] == 1) continue;
    if (map.dims > 0 && map.shared[map.dims - 1] == shared) {
      map.size[map.dims - 1] *= uint32_t(batch[d]);
      continue;
    }
    if (map.dims == RowMap::kDims)
      throw std::runtime_error(
          "the CUDA kernels take batch dimensions that change at most five times between "
          "broadcast and full; expand some of the potentials");
    map.size[map.dims] = uint32_t(batch[d]);
    map.shared[map.dims++] = shared;
  }
  return map;
}

// The leading sizes of what belongs to several operands at once.
inline std::vector<int64_t> joined(const std::vector<std::vector<int64_t>>& leads, const std::vector<int64_t>& batch) {
  std::vector<int64_t> all(batch.size(), 1);
  for (const std::vector<int64_t>& lead : leads)
    for (size_t d = 0; d < lead.size(); d++) {
      const size_t at = batch.size() - lead.size() + d;
      if (lead[d] == batch[at]) all[at] = batch[at];
    }
  return all;
}

}  // namespace slv::cuda
