// From tensors on a GPU to the launches of the low-rank PCFG's kernels in log space.
#pragma once
#include <algorithm>
#include <vector>

#include "cuda/lowrank.h"
#include "cuda/pcfg_tree_run.h"
#include "kernels/lowrank.h"

namespace slv::cuda {
namespace {

template <class T>
struct BoundLowRank : BoundTree<T> {
  Operand head, left, right;
  LowRank<T> g;
  RowMap grammar;  // of all three tables

  BoundLowRank(const Tensor& o, const MaybeTensor& h, const Tensor& l, const Tensor& r, const Tensor& u,
               const MaybeTensor& w, const MaybeTensor& lengths)
      : BoundTree<T>(o, u, w, lengths) {
    STD_TORCH_CHECK(l.dim() >= 2, "left: expected (*b, r, s), found ", text(shape_of(l)));
    const int64_t nt = this->tree.nt, s = this->tree.s(), rank = shape_of(l)[l.dim() - 2];
    STD_TORCH_CHECK(rank > 0, "left: expected a rank r >= 1, found ", text(shape_of(l)));
    STD_TORCH_CHECK(h || rank == nt, "left: expected r = nt = ", nt, " where there is no head, found ", rank);
    STD_TORCH_CHECK(rank <= 1 << 15, "expected a rank of at most 2^15");
    head = this->operand("head", h, {nt, rank});
    left = this->operand("left", l, {rank, s});
    right = this->operand("right", r, {rank, s});
    g = {this->tree, int(rank), table(head, nt, rank), table(left, rank, s), table(right, rank, s)};
    std::vector<Shape> leads{lead_of(l), lead_of(r)};
    if (h) leads.push_back(lead_of(*h));
    grammar = row_map(joined(leads, this->batch), this->batch);
  }
  // From here on log space does the items that these say.
  void redo_only(const T* redo) { this->tree.redo = g.redo = redo; }
  // Where the CPU sums nonterminals out of the rules beforehand, its chart has no place for them.
  bool folded() const { return lowrank_folds(head.given, g.labels, g.r, g.nt, g.n); }
  // As that of the CPU.
  int64_t chart_size() const {
    return this->items * lowrank_chart_size<T>(g.n, folded() ? g.r : g.nt, g.t, g.r, head.given && !folded());
  }

 private:
  static Shape lead_of(const Tensor& x) {
    const Shape shape = shape_of(x);
    return {shape.begin(), shape.end() - 2};
  }
  static Table<T> table(const Operand& x, int64_t rows, int64_t columns) {
    return x.given ? Table<T>{x.pointer<T>(), x.rows, int(rows), int(columns)} : Table<T>{};
  }
};

// Arrays of inside values, or of their weights, one behind the other.
template <class T>
struct RankSizes {
  int64_t nodes, ranks, sides;
  explicit RankSizes(const BoundLowRank<T>& p)
      : nodes(p.nodes()),
        ranks(p.head.given ? p.items * p.g.spans_of_item() * p.g.r : 0),
        sides(p.items * p.g.all_spans() * p.g.r) {}
  int64_t inside() const { return nodes + ranks + 2 * sides; }
  RankInside in(double* memory) const {
    double* left = memory + nodes + ranks;
    return {memory, memory + nodes, left, left + sides};
  }
};

template <class T>
int64_t widest(const BoundLowRank<T>& p) {
  return std::max(p.g.nt, p.g.r);
}
// What log space works in on the way down; with sides that begin as 0.
template <class T>
struct RankWork {
  Tensor sides, width;
  RankMass mass;
  RankWork(const BoundLowRank<T>& p, double* nodes, double* words) {
    const int64_t of_sides = RankSizes<T>(p).sides, spans = p.items * p.n, each = widest(p);
    sides = p.doubles(2 * of_sides, true), width = p.doubles(spans * (p.g.r + 2 * each));
    double *side = data_of(sides), *ranks = data_of(width), *tops = ranks + spans * p.g.r;
    mass = {nodes, words, side, side + of_sides, ranks, tops, tops + spans * each};
  }
};

// Of all widths: sums over trees.
template <class T>
void inside_pass(const BoundLowRank<T>& p, const RankInside& in) {
  for (int w = 1; w <= p.n; w++) run_rank_inside(p.g, in, w, p.stream);
}

// Covariances of all parts but rules with <v, parts>, in log space: those of the tables go into `counts`, E f into
// `mean`.
template <class T>
Covariances<T> covariances(const BoundLowRank<T>& p, const BoundLowRank<T>& v, const double* weight, T* mean,
                           const GrammarCounts& counts) {
  Covariances<T> out(p);
  const RankSizes<T> sizes(p);
  const Tensor inside = p.doubles(sizes.inside()), means = p.doubles(sizes.inside());
  const RankInside in = sizes.in(data_of(inside)), below = sizes.in(data_of(means));
  const RankWork<T> own(p, data_of(out.nodes), data_of(out.words));
  const Tensor sides = p.doubles(2 * sizes.sides, true), width = p.doubles(p.items * p.n * (p.g.r + widest(p)));
  double *side = data_of(sides), *ranks = data_of(width);
  const RankTangent<T> f{out.of(below.nodes, weight, mean), v.g, below, side, side + sizes.sides, ranks,
                         ranks + p.items * p.n * p.g.r};
  for (int w = 1; w <= p.n; w++) run_rank_means(p.g, in, f, w, p.stream);
  out.begin(v.tree, in.nodes, f);
  for (int w = int(p.n); w >= 1; w--) run_rank_outside(p.g, in, own.mass, f, counts, w, p.stream);
  out.end(v.tree, f);
  return out;
}

}  // namespace
}  // namespace slv::cuda
