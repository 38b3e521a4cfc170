// Which sentences are computed together: a function of the problem alone, never of the thread count.
#pragma once
#include <algorithm>
#include <vector>

#include "kernels/pcfg.h"
#include "ops/chain_plan.h"

namespace slv {

// Items grouped by the rules they share, longest first, and cut into blocks that a kernel takes at once; groups of
// blocks add the weights of their rules into one accumulator, one after the other.
struct PcfgPlan {
  struct Block {
    int64_t first, count, rules;  // items order[first .. first + count)
  };
  struct Group {
    int64_t first, blocks, rules, work;
    bool alone;  // all items of its rules are in this group
  };
  std::vector<int64_t> order;
  std::vector<Block> blocks;
  std::vector<Group> groups;  // those with most work first
};

// Enough sentences to share the exponentials of the rules, few enough to leave blocks for other threads.
inline int64_t block_items(int64_t sharing, int64_t n) {
  const int64_t most = sharing >= 32 ? 16 : sharing >= 8 ? 8 : 4;
  return std::clamp<int64_t>(1024 / std::max<int64_t>(n, 1), 1, most);
}

// together: blocks may hold several items; most_groups: accumulators for the rules of one grammar, 0: as many as
// blocks; backward: among equals those come first that a forward pass did last, and left in the cache
template <class T>
PcfgPlan pcfg_plan(const Pcfg<T>& g, bool together, int64_t most_groups, bool backward = false) {
  PcfgPlan plan;
  plan.order.resize(g.batch);
  for (int64_t b = 0; b < g.batch; b++) plan.order[b] = b;
  auto rules = [&g](int64_t b) { return g.rules_row ? g.rules_row[b] : 0; };
  std::stable_sort(plan.order.begin(), plan.order.end(), [&](int64_t a, int64_t b) {
    return rules(a) != rules(b) ? rules(a) < rules(b) : g.len(a) > g.len(b);
  });
  for (int64_t i = 0, end; i < g.batch; i = end) {
    const int64_t own = rules(plan.order[i]), first = plan.blocks.size();
    for (end = i; end < g.batch && rules(plan.order[end]) == own;) end++;
    const int64_t most = together ? block_items(end - i, g.n) : 1;
    for (int64_t q = i; q < end; q += most) plan.blocks.push_back({q, std::min(most, end - q), own});
    const int64_t blocks = int64_t(plan.blocks.size()) - first;
    const int64_t groups = most_groups ? std::min(blocks, most_groups) : blocks, each = (blocks + groups - 1) / groups;
    for (int64_t q = 0; q < blocks; q += each)
      plan.groups.push_back({first + q, std::min(each, blocks - q), own, 0, each == blocks});
  }
  for (PcfgPlan::Group& x : plan.groups)
    for (int64_t q = x.first; q < x.first + x.blocks; q++)
      for (int64_t i = 0; i < plan.blocks[q].count; i++) {
        const int64_t len = g.len(plan.order[plan.blocks[q].first + i]);
        x.work += len * len * (len + g.nt) + g.nt;
      }
  if (backward) std::reverse(plan.groups.begin(), plan.groups.end());
  std::stable_sort(plan.groups.begin(), plan.groups.end(),
                   [](const PcfgPlan::Group& a, const PcfgPlan::Group& b) { return a.work > b.work; });
  return plan;
}

}  // namespace slv
