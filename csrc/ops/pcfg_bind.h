// From tensors to a Pcfg of raw pointers.
#pragma once
#include "kernels/pcfg.h"
#include "ops/bind.h"

namespace slv {

// root, rules and spans broadcast against the batch of unary and are never copied for an item.
template <class T>
struct BoundPcfg : BoundBatch<T> {
  using BoundBatch<T>::batch, BoundBatch<T>::items, BoundBatch<T>::n, BoundBatch<T>::with;
  Operand root, rules, spans;
  Pcfg<T> pcfg;

  BoundPcfg(const Tensor& r, const Tensor& a, const Tensor& u, const MaybeTensor& w, const MaybeTensor& lengths)
      : BoundBatch<T>(u, "unary: expected (*b, n, t)", lengths) {
    STD_TORCH_CHECK(r.dim() >= 1, "root: expected (*b, nt), found ", text(shape_of(r)));
    const ScalarType dtype = scalar_type<T>;
    const int64_t nt = shape_of(r).back(), t = this->k, s = nt + t;
    STD_TORCH_CHECK(nt > 0, "root: expected at least one nonterminal (nt >= 1), found ", text(shape_of(r)));
    STD_TORCH_CHECK(t > 0, "unary: expected at least one preterminal (t >= 1), found ", text(shape_of(u)));
    root = bind_operand("root", r, {nt}, batch, dtype);
    rules = bind_operand("rules", a, {nt, s, s}, batch, dtype);
    const int64_t labels = w ? span_labels(*w, nt) : 1;
    spans = bind_operand("spans", w, {n, n, labels}, batch, dtype);
    pcfg = {items,
            n,
            nt,
            t,
            labels,
            pointer<T>(root),
            pointer<T>(rules),
            this->unary.template const_data_ptr<T>(),
            pointer<T>(spans),
            root.map(),
            rules.map(),
            spans.map(),
            this->length_map()};
  }
  int64_t spans_size() const { return n * n * pcfg.labels; }
  Shape rules_tail() const { return {pcfg.nt, pcfg.s(), pcfg.s()}; }
  Shape event_shape(const Shape& head = {}) const { return with({event_size(n) / 3, 3}, head); }
};

}  // namespace slv
