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

// It has the size of the CPU's, and keeps the inside values where they fit; otherwise the backward pass forms them
// again.
template <class T>
int64_t chart_size(const BoundPcfg<T>& p) {
  return p.items * pcfg_chart_size<T>(p.n, p.g.nt, p.g.t);
}

// ---- gradients --------------------------------------------------------------------------------------------------

// Posterior weights of every part, summed over the items that share it.
template <class T>
struct TreeWeights {
  const BoundPcfg<T>& p;
  Tensor top, nodes, words;

  explicit TreeWeights(const BoundPcfg<T>& p)
      : p(p),
        top(p.doubles(p.items * p.g.nt)),
        nodes(p.doubles(p.nodes(), true)),
        words(p.doubles(p.items * p.n * p.k, true)) {}
  // The weights of rules into `out`, whose rows these are, where it is given.
  void run(double* inside, const double* weight, const RowMap& rows, Tensor* out) {
    const int64_t size = p.g.nt * p.g.pairs();
    const Tensor counts = p.doubles(out ? rows.rows * size : 0, true);
    TreeMass mass{data_of(nodes), data_of(words), nullptr, nullptr, nullptr, nullptr};
    run_tops(p.tree, inside, weight, data_of(top), data_of(nodes), p.stream);
    each_range(p, inside, 2, [&](const TreeSpace<T>& space, double* memory, int64_t pairs, int64_t of_nodes) {
      mass.split_tops = memory, mass.pairs = memory + pairs;
      mass.rule_tops = memory + 2 * pairs, mass.rule_weights = mass.rule_tops + of_nodes;
      for (int w = int(p.n); w >= 2; w--)
        run_outside(p.g, space, mass, w, rows, out ? data_of(counts) : nullptr, p.stream);
    });
    if (out) p.sum(row_map({int64_t(rows.rows)}, {int64_t(rows.rows)}), size, counts, *out);
  }
};

}  // namespace
}  // namespace slv::cuda
