// From tensors on a GPU to the launches of the low-rank PCFG's kernels.
#pragma once
#include <algorithm>

#include "cuda/lowrank.h"
#include "cuda/pcfg_tree_run.h"
#include "kernels/lowrank.h"

namespace slv::cuda {
namespace {

template <class T>
struct BoundLowRank : BoundTree<T> {
  Operand head, left, right;
  LowRank<T> g;

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
  }
  // As that of the CPU, and with inside values where they fit.
  int64_t chart_size() const {
    const bool folded = lowrank_folds(head.given, g.labels, g.r, g.nt, g.n);
    return this->items * lowrank_chart_size<T>(g.n, folded ? g.r : g.nt, g.t, g.r, head.given && !folded);
  }

 private:
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
void inside_pass(const BoundLowRank<T>& p, const RankInside& in) {
  for (int w = 1; w <= p.n; w++) run_rank_inside(p.g, in, w, p.stream);
}

// Posterior weights of every part: `nodes` and `words` of each item, those of the grammar's tables summed over the
// items of the rows that the caller names.
template <class T>
struct RankWeights {
  const BoundLowRank<T>& p;
  Tensor top, nodes, words, head, left, right;

  explicit RankWeights(const BoundLowRank<T>& p)
      : p(p),
        top(p.doubles(p.items * p.g.nt)),
        nodes(p.doubles(p.nodes(), true)),
        words(p.doubles(p.items * p.n * p.k, true)) {}
  void run(const RankInside& in, const double* weight, const GrammarSums& sums) const {
    const RankSizes<T> sizes(p);
    const int64_t spans = p.items * p.n, each = std::max(p.g.nt, p.g.r);
    const Tensor sides = p.doubles(2 * sizes.sides, true), width = p.doubles(spans * (p.g.r + 2 * each));
    double *side = data_of(sides), *ranks = data_of(width), *tops = ranks + spans * p.g.r;
    const RankMass mass{data_of(nodes), data_of(words), side, side + sizes.sides, ranks, tops, tops + spans * each};
    run_tops(p.tree, in.nodes, weight, data_of(top), data_of(nodes), p.stream);
    for (int w = int(p.n); w >= 1; w--) run_rank_outside(p.g, in, mass, sums, w, p.stream);
  }
};

// Sums of the weights of a table's entries, as they grow in float64 and as they are wanted.
template <class T>
struct GrownTable {
  const BoundLowRank<T>& p;
  const Table<T>& table;
  RowMap rows;
  bool wanted;
  Tensor sums;
  GrownTable(const BoundLowRank<T>& p, const Table<T>& table, const RowMap& rows, bool wanted = true)
      : p(p),
        table(table),
        rows(rows),
        wanted(wanted && table.rows > 0),
        sums(p.doubles(this->wanted ? rows.rows * table.size() : 0, true)) {}
  TableSums to() const { return {wanted ? data_of(sums) : nullptr, rows}; }
  Tensor narrow(const Shape& shape) const {
    Tensor out = p.empty(wanted ? shape : Shape{0});
    const int64_t each = rows.rows;
    if (wanted) p.sum(row_map({each}, {each}), table.size(), sums, out);
    return out;
  }
};

}  // namespace
}  // namespace slv::cuda
