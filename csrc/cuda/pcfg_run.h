// From tensors on a GPU to the launches of the PCFG's kernels: workspaces, ranges of items, sums over items.
#pragma once
#include <algorithm>

#include "cuda/bind.h"
#include "cuda/pcfg.h"
#include "kernels/pcfg.h"

namespace slv::cuda {
namespace {

constexpr int64_t kPairsBytes = int64_t(256) << 20;  // for the pairs of children of as many items as fit at once

template <class T>
struct BoundPcfg : BoundBatch<T> {
  using Base = BoundBatch<T>;
  using Base::batch, Base::items, Base::n, Base::k, Base::empty, Base::stream, Base::with;
  Operand root, rules, spans;
  Pcfg<T> g;

  BoundPcfg(const Tensor& r, const Tensor& a, const Tensor& u, const MaybeTensor& w, const MaybeTensor& lengths)
      : Base(u, "unary: expected (*b, n, t)", lengths) {
    STD_TORCH_CHECK(r.dim() >= 1, "root: expected (*b, nt), found ", text(shape_of(r)));
    const int64_t nt = shape_of(r).back(), s = nt + k;
    STD_TORCH_CHECK(nt > 0, "root: expected at least one nonterminal (nt >= 1), found ", text(shape_of(r)));
    STD_TORCH_CHECK(k > 0, "unary: expected at least one preterminal (t >= 1), found ", text(shape_of(u)));
    STD_TORCH_CHECK(nt <= 1 << 15 && n <= 1 << 15, "expected at most 2^15 nonterminals and words");
    root = this->operand("root", r, {nt});
    rules = this->operand("rules", a, {nt, s, s});
    const int64_t labels = w ? span_labels(*w, nt) : 1;
    spans = this->operand("spans", w, {n, n, labels});
    g = {items,
         int(n),
         int(nt),
         int(k),
         int(labels),
         root.pointer<T>(),
         rules.pointer<T>(),
         this->unary.template const_data_ptr<T>(),
         spans.pointer<T>(),
         root.rows,
         rules.rows,
         spans.rows,
         this->length()};
  }
  int64_t nodes() const { return items * g.spans_of_item() * g.nt; }
  Tensor doubles(int64_t count, bool cleared = false) const {
    Tensor out = empty({count}, ScalarType::Double);
    if (cleared) torch::stable::zero_(out);
    return out;
  }
};

inline double* data_of(const Tensor& x) { return x.mutable_data_ptr<double>(); }

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

template <class T>
void inside_pass(const BoundPcfg<T>& p, double* inside) {
  each_range(p, inside, 0, [&](const TreeSpace<T>& space, double*, int64_t, int64_t) {
    for (int w = 2; w <= p.n; w++) run_inside(p.g, space, w, p.stream);
  });
}
template <class T>
Tensor log_partitions(const BoundPcfg<T>& p, const double* inside, bool as_double) {
  Tensor z = p.empty(p.batch, as_double ? ScalarType::Double : scalar_type<T>);
  if (z.scalar_type() == ScalarType::Double)
    run_finish<T>(p.g, inside, z.mutable_data_ptr<double>(), nullptr, p.stream);
  else
    run_finish<T>(p.g, inside, nullptr, z.mutable_data_ptr<T>(), p.stream);
  return z;
}

// ---- the chart --------------------------------------------------------------------------------------------------

// It has the size of the CPU's, and keeps the inside values where they fit; otherwise the backward pass forms them
// again.
template <class T>
int64_t chart_size(const BoundPcfg<T>& p) {
  return p.items * pcfg_chart_size<T>(p.n, p.g.nt, p.g.t);
}
template <class T>
double* kept_inside(const BoundPcfg<T>& p, const Tensor& chart) {
  void* data = const_cast<void*>(chart.const_data_ptr());
  const bool fits = chart_size(p) * int64_t(sizeof(T)) >= p.nodes() * 8;
  return fits && reinterpret_cast<uintptr_t>(data) % 8 == 0 ? static_cast<double*>(data) : nullptr;
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
    TreeMass mass{weight, data_of(top), data_of(nodes), data_of(words), nullptr, nullptr, nullptr, nullptr};
    run_tops(p.g, inside, mass, p.stream);
    each_range(p, inside, 2, [&](const TreeSpace<T>& space, double* memory, int64_t pairs, int64_t of_nodes) {
      mass.split_tops = memory, mass.pairs = memory + pairs;
      mass.rule_tops = memory + 2 * pairs, mass.rule_weights = mass.rule_tops + of_nodes;
      for (int w = int(p.n); w >= 2; w--)
        run_outside(p.g, space, mass, w, rows, out ? data_of(counts) : nullptr, p.stream);
    });
    if (out) sum(row_map({int64_t(rows.rows)}, {int64_t(rows.rows)}), size, counts, *out);
  }
  void sum(const RowMap& rows, int64_t size, const Tensor& from, Tensor& out) const {
    run_sum_items(rows, size, data_of(from), out.mutable_data_ptr<T>(), p.stream);
  }
  void sum_spans(const RowMap& rows, int64_t labels, Tensor& out) const {
    run_sum_spans(p.g, rows, int(labels), data_of(nodes), out.mutable_data_ptr<T>(), p.stream);
  }
};

}  // namespace
}  // namespace slv::cuda
