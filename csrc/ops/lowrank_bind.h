// From tensors to a LowRank of raw pointers.
#pragma once
#include <map>
#include <tuple>

#include "kernels/lowrank.h"
#include "ops/bind.h"

namespace slv {

// All potentials but unary broadcast against its batch and are never copied for an item. `fold`: whether nonterminals
// may be summed out of the rules beforehand, r^2 operations a span instead of 3/2 nt r; then no query can name them.
template <class T>
struct BoundLowRank : BoundBatch<T> {
  using BoundBatch<T>::batch, BoundBatch<T>::items, BoundBatch<T>::n, BoundBatch<T>::with;
  Operand root, head, left, right, spans;
  std::vector<int64_t> grammar;  // item -> number of its grammar, a head, a left and a right; empty: all one
  LowRank<T> pcfg;

  BoundLowRank(const Tensor& o, const MaybeTensor& h, const Tensor& l, const Tensor& r, const Tensor& u,
               const MaybeTensor& w, const MaybeTensor& lengths, bool fold = false)
      : BoundBatch<T>(u, "unary: expected (*b, n, t)", lengths) {
    STD_TORCH_CHECK(o.dim() >= 1, "root: expected (*b, nt), found ", text(shape_of(o)));
    STD_TORCH_CHECK(l.dim() >= 2, "left: expected (*b, r, s), found ", text(shape_of(l)));
    const ScalarType dtype = scalar_type<T>;
    const int64_t nt = shape_of(o).back(), t = this->k, s = nt + t, rank = shape_of(l)[l.dim() - 2];
    STD_TORCH_CHECK(nt > 0, "root: expected at least one nonterminal (nt >= 1), found ", text(shape_of(o)));
    STD_TORCH_CHECK(t > 0, "unary: expected at least one preterminal (t >= 1), found ", text(shape_of(u)));
    STD_TORCH_CHECK(rank > 0, "left: expected a rank r >= 1, found ", text(shape_of(l)));
    STD_TORCH_CHECK(h || rank == nt, "left: expected r = nt = ", nt, " where there is no head, found ", rank);
    root = bind_operand("root", o, {nt}, batch, dtype);
    head = bind_operand("head", h, {nt, rank}, batch, dtype);
    left = bind_operand("left", l, {rank, s}, batch, dtype);
    right = bind_operand("right", r, {rank, s}, batch, dtype);
    const int64_t labels = w ? span_labels(*w, nt) : 1;
    spans = bind_operand("spans", w, {n, n, labels}, batch, dtype);
    number_grammars();
    pcfg = {items,
            n,
            nt,
            t,
            rank,
            labels,
            fold && lowrank_folds(h.has_value(), labels, rank, nt, n),
            pointer<T>(root),
            pointer<T>(head),
            pointer<T>(left),
            pointer<T>(right),
            this->unary.template const_data_ptr<T>(),
            pointer<T>(spans),
            root.map(),
            head.map(),
            left.map(),
            right.map(),
            spans.map(),
            this->length_map()};
  }
  int64_t spans_size() const { return n * n * pcfg.labels; }
  Shape event_shape(const Shape& head = {}) const { return with({lowrank_event_size(n) / 3, 3}, head); }

 private:
  void number_grammars() {
    if (head.rows.empty() && left.rows.empty() && right.rows.empty()) return;
    std::map<std::tuple<int64_t, int64_t, int64_t>, int64_t> numbers;
    for (int64_t b = 0; b < items; b++) {
      const auto key = std::make_tuple(head.row(b), left.row(b), right.row(b));
      grammar.push_back(numbers.emplace(key, int64_t(numbers.size())).first->second);
    }
  }
};

}  // namespace slv
