// From tensors on a GPU to the launches of the PCFG's kernels: workspaces, ranges of items, sums over items.
#pragma once
#include <algorithm>

#include "cuda/pcfg.h"
#include "cuda/pcfg_tree_run.h"
#include "kernels/pcfg.h"

namespace slv::cuda {
namespace {

constexpr int64_t kPairsBytes = int64_t(256) << 20;  // for the pairs of children of as many items as fit at once

template <class T>
struct BoundPcfg : BoundTree<T> {
  Operand rules;
  Pcfg<T> g;

  BoundPcfg(const Tensor& r, const Tensor& a, const Tensor& u, const MaybeTensor& w, const MaybeTensor& lengths)
      : BoundTree<T>(r, u, w, lengths) {
    const int64_t nt = this->tree.nt, s = this->tree.s();
    rules = this->operand("rules", a, {nt, s, s});
    g = {this->tree, rules.pointer<T>(), rules.rows};
  }
  // From here on log space does the items that these say.
  void redo_only(const T* redo) { this->tree.redo = g.redo = redo; }
};

// Calls body(space, memory) for ranges of items that together are all, one after the other in the same memory: arrays
// like pairs, `arrays` of them beyond that, then as many of nodes. An item's numbers do not depend on the range.
template <class T, class F>
void each_range(const BoundPcfg<T>& p, double* inside, int arrays, F&& body) {
  const int64_t spans = std::max<int64_t>(p.n - 1, 0), pairs = spans * p.g.pairs(), nodes = spans * p.g.nt;
  const int64_t size = pairs + arrays * (pairs + nodes);
  const int64_t most =
      std::clamp<int64_t>(kPairsBytes / std::max<int64_t>(8 * size, 1), 1, std::max<int64_t>(p.items, 1));
  const Tensor memory = p.doubles(most * size);
  double* start = data_of(memory);
  for (int64_t first = 0; first < p.items; first += most)
    body(TreeSpace<T>{inside, first, std::min(most, p.items - first), start}, start + most * pairs, most * pairs,
         most * nodes);
}

// Of all widths: sums over trees, or with `best` the best one's score.
template <class T>
void inside_pass(const BoundPcfg<T>& p, double* inside, bool best = false) {
  each_range(p, inside, 0, [&](const TreeSpace<T>& space, double*, int64_t, int64_t) {
    for (int w = 2; w <= p.n; w++)
      if (best)
        run_best(p.g, space, w, p.stream);
      else
        run_inside(p.g, space, w, p.stream);
  });
}

// ---- the chart --------------------------------------------------------------------------------------------------

// It has the size of the CPU's, and its parts but for the rules.
template <class T>
int64_t chart_size(const BoundPcfg<T>& p) {
  return p.items * pcfg_chart_size<T>(p.n, p.g.nt, p.g.t);
}

}  // namespace
}  // namespace slv::cuda
