// From tensors on a GPU to the launches of the PCFG's kernels: workspaces, ranges of items, sums over items.
#pragma once
#include <algorithm>
#include <utility>

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

// ---- second order -----------------------------------------------------------------------------------------------

// Covariances of all parts with <v, parts>, in log space: those of rules go into `rules`, E f into `mean`.
template <class T>
Covariances<T> covariances(const BoundPcfg<T>& p, const BoundPcfg<T>& v, const double* weight, T* mean, Tensor& rules) {
  Covariances<T> out(p);
  const Tensor inside = p.doubles(p.nodes()), means = p.doubles(p.nodes());
  const GrownRules<T> grown(p, p.rules.rows, p.g.nt * p.g.pairs(), true);
  TreeTangent<T> f{out.of(data_of(means), weight, mean), v.g, nullptr, nullptr, nullptr};
  each_range(p, data_of(inside), 1, [&](const TreeSpace<T>& space, double* memory, int64_t, int64_t) {
    f.pair_means = memory;
    for (int w = 2; w <= p.n; w++) run_means(p.g, space, f, w, p.stream);
  });
  out.begin(v.tree, data_of(inside), f);
  TreeMass mass{data_of(out.nodes), data_of(out.words), nullptr, nullptr, nullptr, nullptr};
  each_range(p, data_of(inside), 4, [&](const TreeSpace<T>& space, double* at, int64_t pairs, int64_t of_nodes) {
    auto part = [&](int64_t size) { return std::exchange(at, at + size); };
    mass.split_tops = part(pairs), mass.pairs = part(pairs), f.pair_means = part(pairs), f.pair_outside = part(pairs);
    mass.rule_tops = part(of_nodes), mass.rule_weights = part(of_nodes), f.above = part(of_nodes);
    for (int w = int(p.n); w >= 2; w--) run_outside(p.g, space, mass, f, w, grown.counts, p.stream);
  });
  out.end(v.tree, f);
  grown.narrow(rules);
  return out;
}

// ---- the chart --------------------------------------------------------------------------------------------------

// It has the size of the CPU's, and its parts but for the rules.
template <class T>
int64_t chart_size(const BoundPcfg<T>& p) {
  return p.items * pcfg_chart_size<T>(p.n, p.g.nt, p.g.t);
}

}  // namespace
}  // namespace slv::cuda
