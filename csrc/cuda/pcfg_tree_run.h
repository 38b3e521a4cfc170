// From tensors on a GPU to what all grammars share: sentences, log Z, sums over items.
#pragma once
#include <algorithm>
#include <tuple>

#include "cuda/bind.h"
#include "cuda/pcfg_tree.h"

namespace slv::cuda {
namespace {

inline double* data_of(const Tensor& x) { return x.mutable_data_ptr<double>(); }

template <class T>
struct BoundTree : BoundBatch<T> {
  using BoundBatch<T>::n, BoundBatch<T>::k, BoundBatch<T>::empty, BoundBatch<T>::stream;
  Operand root, spans;
  Tree<T> tree;

  BoundTree(const Tensor& r, const Tensor& u, const MaybeTensor& w, const MaybeTensor& lengths)
      : BoundBatch<T>(u, "unary: expected (*b, n, t)", lengths) {
    STD_TORCH_CHECK(r.dim() >= 1, "root: expected (*b, nt), found ", text(shape_of(r)));
    const int64_t nt = shape_of(r).back();
    STD_TORCH_CHECK(nt > 0, "root: expected at least one nonterminal (nt >= 1), found ", text(shape_of(r)));
    STD_TORCH_CHECK(k > 0, "unary: expected at least one preterminal (t >= 1), found ", text(shape_of(u)));
    STD_TORCH_CHECK(nt <= 1 << 15 && n <= 1 << 15, "expected at most 2^15 nonterminals and words");
    root = this->operand("root", r, {nt});
    const int64_t labels = w ? span_labels(*w, nt) : 1;
    spans = this->operand("spans", w, {n, n, labels});
    tree = {this->items,
            int(n),
            int(nt),
            int(k),
            int(labels),
            root.pointer<T>(),
            this->unary.template const_data_ptr<T>(),
            spans.pointer<T>(),
            root.rows,
            spans.rows,
            this->length()};
  }
  int64_t nodes() const { return this->items * tree.spans_of_item() * tree.nt; }
  // Of trees as rows (i, j, symbol).
  Shape event_shape(const Shape& head = {}) const { return this->with({n > 0 ? 2 * n - 1 : 0, 3}, head); }
  Tensor doubles(int64_t count, bool cleared = false) const {
    Tensor out = empty({count}, ScalarType::Double);
    if (cleared) torch::stable::zero_(out);
    return out;
  }
  Tensor new_log_z(bool as_double) const { return empty(this->batch, as_double ? ScalarType::Double : scalar_type<T>); }
  void finish(const double* inside, Tensor& z) const {
    if (z.scalar_type() == ScalarType::Double)
      run_finish<T>(tree, inside, z.mutable_data_ptr<double>(), nullptr, stream);
    else
      run_finish<T>(tree, inside, nullptr, z.mutable_data_ptr<T>(), stream);
  }
  Tensor log_partitions(const double* inside, bool as_double) const {
    Tensor z = new_log_z(as_double);
    finish(inside, z);
    return z;
  }
  // Sums of numbers in float64, over the items of each row.
  void sum(const RowMap& rows, int64_t size, const Tensor& from, Tensor& out) const {
    run_sum_items(rows, size, data_of(from), out.mutable_data_ptr<T>(), stream);
  }
  void sum_spans(const RowMap& rows, int64_t labels, const Tensor& nodes, Tensor& out) const {
    run_sum_spans(tree, rows, int(labels), data_of(nodes), out.mutable_data_ptr<T>(), stream);
  }
};

// Gradients of root, unary and spans, from the weights of every item's tops, words and nodes.
template <class T, class Weights>
std::tuple<Tensor, Tensor, Tensor> tree_gradients(const BoundTree<T>& p, const Weights& w, const Tensor& root,
                                                  const MaybeTensor& spans) {
  Tensor dt = p.empty(shape_of(root)), du = p.empty(p.with({p.n, p.k}));
  Tensor ds = p.empty(spans ? shape_of(*spans) : Shape{0});
  p.sum(p.root.rows, p.tree.nt, w.top, dt);
  p.sum(row_map(p.batch, p.batch), p.n * p.k, w.words, du);
  if (spans) p.sum_spans(p.spans.rows, p.tree.labels, w.nodes, ds);
  return {dt, du, ds};
}

// Covariances of all parts but rules with <v, parts>, as weights to be summed over the items that share them.
template <class T>
struct Covariances {
  const BoundTree<T>& p;
  Tensor top, nodes, words;

  explicit Covariances(const BoundTree<T>& p)
      : p(p),
        top(p.doubles(p.items * p.tree.nt)),
        nodes(p.doubles(p.nodes(), true)),
        words(p.doubles(p.items * p.n * p.k, true)),
        outside_(p.doubles(p.nodes(), true)),
        words_outside_(p.doubles(p.items * p.n * p.k, true)),
        mean_(p.doubles(p.items)) {}
  // `means` are those below nodes; `weight` those of items, or null; E f goes into `narrow`.
  TreeMeans<T> of(double* means, const double* weight, T* narrow) const {
    return {means, data_of(outside_), data_of(words_outside_), weight, data_of(mean_), narrow};
  }
  // Before the walk down, and after it.
  void begin(const Tree<T>& v, const double* inside, const TreeMeans<T>& f) const {
    run_tops(p.tree, inside, nullptr, data_of(top), data_of(nodes), p.stream);
    run_top_means(p.tree, v, data_of(nodes), f, p.stream);
  }
  void end(const Tree<T>& v, const TreeMeans<T>& f) const {
    run_covariances(p.tree, v, f, data_of(nodes), data_of(words), data_of(top), p.stream);
  }

 private:
  Tensor outside_, words_outside_, mean_;
};

constexpr int64_t kRuleBlocks = 512;  // enough to fill a GPU: sums over items are cut into so many

// The weights of rules, `size` of them for each row: as they grow in float64, and as they are wanted.
template <class T>
struct GrownRules {
  const BoundTree<T>& p;
  int64_t size;
  Tensor memory;
  RuleCounts counts;
  GrownRules(const BoundTree<T>& p, const RowMap& rows, int64_t size, bool wanted) : p(p), size(size) {
    const int64_t blocks = std::max<int64_t>(rows.rows * size / (4 * 256), 1);
    const int64_t chunks = std::clamp<int64_t>(kRuleBlocks / blocks, 1, std::max<int64_t>(rows.items_of_row(), 1));
    memory = p.doubles(wanted ? rows.rows * chunks * size : 0, true);
    counts = {rows, int(chunks), wanted ? data_of(memory) : nullptr};
  }
  void narrow(Tensor& out) const {
    const int64_t each = counts.rows.rows;
    if (counts.counts) p.sum(row_map({each, 1}, {each, counts.chunks}), size, memory, out);
  }
};

}  // namespace
}  // namespace slv::cuda
