// From tensors to a sparse grammar and its sentences. Everything is float64 inside.
#pragma once
#include "kernels/sparse_tables.h"
#include "ops/bind.h"
#include "ops/dispatch.h"
#include "ops/parallel.h"

namespace slv {

inline Tensor as_double(const Tensor& x) {
  return torch::stable::contiguous(torch::stable::to(x, std::optional<ScalarType>(ScalarType::Double)));
}

// Potentials, or a direction among those of another: root, scores and spans broadcast against the batch of unary.
struct BoundScores : BoundBatch<double> {
  ScalarType dtype;  // of the caller's tensors
  int64_t nonterminals, rules, labels;
  Operand root, scores, spans;

  BoundScores(const Tensor& r, const Tensor& s, int64_t rules, const Tensor& u, const MaybeTensor& w,
              const MaybeTensor& lengths)
      : BoundBatch<double>(as_double(u), "unary: expected (*b, n, t)", lengths), dtype(u.scalar_type()), rules(rules) {
    STD_TORCH_CHECK(r.dim() >= 1, "root: expected (*b, nt), found ", text(shape_of(r)));
    nonterminals = shape_of(r).back();
    STD_TORCH_CHECK(nonterminals > 0, "root: expected at least one nonterminal (nt >= 1), found ", text(shape_of(r)));
    STD_TORCH_CHECK(k > 0, "unary: expected at least one preterminal (t >= 1), found ", text(shape_of(u)));
    labels = w && w->dim() > 0 && shape_of(*w).back() == 1 ? 1 : nonterminals;
    root = operand("root", r, {nonterminals});
    scores = operand("scores", s, {rules});
    if (w) spans = operand("spans", *w, {n, n, labels});
    STD_TORCH_CHECK(std::max(rules, symbols()) < int64_t(1) << 31, "expected fewer than 2^31 rules and symbols");
  }
  int64_t symbols() const { return nonterminals + k; }
  int64_t spans_size() const { return n * n * labels; }
  int64_t len(int64_t item) const { return length.empty() ? n : length[item]; }
  SparseItem item(int64_t b) const {
    return {len(b),
            n,
            labels,
            row(root, b, nonterminals),
            row(scores, b, rules),
            unary.const_data_ptr<double>() + b * n * k,
            row(spans, b, spans_size())};
  }

 private:
  Operand operand(const char* name, const Tensor& x, const Shape& tail) const {
    STD_TORCH_CHECK(x.scalar_type() == dtype, name, ": its dtype differs from that of unary");
    return bind_operand(name, as_double(x), tail, batch, ScalarType::Double);
  }
  const double* row(const Operand& x, int64_t b, int64_t size) const {
    if (!x.count) return nullptr;
    return x.data.const_data_ptr<double>() + x.row(b) * size;
  }
};

inline Tensor checked_index(const Tensor& index) {
  const Shape shape = shape_of(index);
  STD_TORCH_CHECK(index.scalar_type() == ScalarType::Long, "index: expected dtype int64");
  STD_TORCH_CHECK(shape.size() == 2 && shape[1] == 3, "index: expected (r, 3), found ", text(shape));
  return torch::stable::contiguous(index);
}

struct BoundSparse : BoundScores {
  Tensor index;
  RuleTables tables;

  BoundSparse(const Tensor& r, const Tensor& s, const Tensor& u, const MaybeTensor& w, const Tensor& i,
              const MaybeTensor& lengths)
      : BoundScores(r, s, shape_of(checked_index(i))[0], u, w, lengths),
        index(checked_index(i)),
        tables(index.const_data_ptr<int64_t>(), rules, nonterminals, symbols()) {
    STD_TORCH_CHECK(tables.problem.empty(), "index: expected ", tables.problem);
  }
  const SparseGrammar& grammar() const { return tables.grammar; }
  int64_t rows() const { return n > 0 ? (1 + tables.depth) * (2 * n - 1) : 0; }
  void check_depth(int64_t depth) const {
    STD_TORCH_CHECK(depth == tables.depth, "depth: expected the longest chain of unary rules, ", tables.depth,
                    ", found ", depth);
  }
  Tensor zeros(const Shape& shape) const {
    Tensor x = empty(shape);
    std::fill_n(x.mutable_data_ptr<double>(), product(shape), 0.0);
    return x;
  }
  Tensor narrow(const Tensor& x) const { return torch::stable::to(x, std::optional<ScalarType>(dtype)); }
};

}  // namespace slv
