// Which items are computed together: a function of the problem alone, never of the thread count.
#pragma once
#include <algorithm>
#include <memory>
#include <vector>

#include "kernels/chain.h"
#include "ops/parallel.h"

namespace slv {

// Items grouped by the transition they share, longest first; cut into blocks that a kernel takes at once, and groups of
// blocks that add their edge weights into one accumulator, one after the other.
struct Plan {
  struct Block {
    int64_t first, rows, matrix;  // items order[first .. first + rows)
  };
  struct Group {
    int64_t first, blocks, matrix;
  };
  std::vector<int64_t> order;
  std::vector<Block> blocks;
  std::vector<Group> groups;
};

template <class T>
std::vector<int64_t> sorted_items(const Chain<T>& c) {
  std::vector<int64_t> order(c.batch);
  for (int64_t b = 0; b < c.batch; b++) order[b] = b;
  if (c.matrix || c.length)
    std::stable_sort(order.begin(), order.end(), [&c](int64_t a, int64_t b) {
      if (c.matrix && c.matrix[a] != c.matrix[b]) return c.matrix[a] < c.matrix[b];
      return c.length && c.length[a] > c.length[b];
    });
  return order;
}

// most_rows: of a block; most_groups: accumulators for one transition
template <class T>
Plan make_plan(const Chain<T>& c, int64_t most_rows, int64_t most_groups) {
  Plan plan;
  plan.order = sorted_items(c);
  auto matrix = [&](int64_t i) { return c.matrix ? c.matrix[plan.order[i]] : 0; };
  for (int64_t i = 0, end; i < c.batch; i = end) {
    for (end = i; end < c.batch && matrix(end) == matrix(i);) end++;
    const int64_t blocks = (end - i + most_rows - 1) / most_rows, first = plan.blocks.size();
    for (int64_t q = 0; q < blocks; q++)
      plan.blocks.push_back({i + q * most_rows, std::min(most_rows, end - i - q * most_rows), matrix(i)});
    const int64_t groups = std::min(blocks, most_groups), each = (blocks + groups - 1) / groups;
    for (int64_t q = 0; q < blocks; q += each)
      plan.groups.push_back({first + q, std::min(each, blocks - q), matrix(i)});
  }
  return plan;
}

// Enough rows to keep the registers of a product full, few enough to leave blocks for the other threads.
template <class T>
int64_t block_rows(const Chain<T>& c) {
  if (c.batch >= 128) return kMaxRows;
  return c.batch >= 32 ? 16 : 8;
}

// A transition prepared for the kernels: once for all where there is one, by the unit that needs it where there are
// many.
template <class T>
class Prepared {
 public:
  using Make = void* (*)(const T*, int64_t);
  using Free = void (*)(void*);
  using Handle = std::unique_ptr<void, Free>;
  Prepared(const Chain<T>& c, Make make, Free free) : c_(c), make_(make), free_(free), shared_(nullptr, free) {
    if (!c.matrix && c.batch > 0) shared_.reset(make(c.transition, c.k));
  }
  // `own` keeps what was prepared for this unit alone
  void* get(int64_t matrix, Handle& own) const {
    if (shared_) return shared_.get();
    own.reset(make_(c_.transition + matrix * c_.k * c_.k, c_.k));
    return own.get();
  }
  Handle none() const { return Handle(nullptr, free_); }

 private:
  const Chain<T>& c_;
  Make make_;
  Free free_;
  Handle shared_;
};

}  // namespace slv
