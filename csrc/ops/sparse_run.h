// The loops over sentences: longest first over the threads; sums over sentences in an order of their own.
#pragma once
#include <numeric>
#include <tuple>

#include "ops/sparse_bind.h"

namespace slv {

using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor>;  // of root, scores, unary, spans

// Operations of one inside pass over the batch, as if a tenth of the rules were alive on every span.
inline double sparse_work(const BoundSparse& p) {
  const double n = double(p.n);
  return double(p.items) * (double(p.grammar().rules) * n * n * (n + 10) / 60 + double(p.symbols()) * n * n / 64);
}

// Calls body(item, weights of its rules) for the items at order[first..first+count).
template <class F>
void each_sentence(const BoundSparse& p, const int64_t* order, int64_t first, int64_t count, double cost, F&& body) {
  const SparseGrammar& g = p.grammar();
  const int64_t size = SparseWeights::size(g);
  std::vector<double> shared(p.scores.count == 1 ? size : 0);
  if (!shared.empty()) sparse_pcfg_kernels().prepare(g, p.scores.data.const_data_ptr<double>(), shared.data());
  parallel_units(count, cost * sparse_work(p) * double(count) / double(std::max<int64_t>(p.items, 1)), [&](int64_t u) {
    const int64_t b = order[first + u];
    const SparseItem x = p.item(b);
    if (!shared.empty()) return body(b, x, SparseWeights(g, shared.data()));
    std::vector<double> own(size);
    sparse_pcfg_kernels().prepare(g, x.scores, own.data());
    body(b, x, SparseWeights(g, own.data()));
  });
}
inline std::vector<int64_t> longest_first(const BoundSparse& p) {
  return longest_first(p.items, [&p](int64_t b) { return p.len(b); });
}
template <class F>
void each_sentence(const BoundSparse& p, double cost, F&& body) {
  const std::vector<int64_t> order = longest_first(p);
  each_sentence(p, order.data(), 0, p.items, cost, body);
}

// Gradients in the potentials' own shapes; body(item, potentials, weights, sink) adds those of an item. What items
// share is added up window by window of items, which bounds the memory, in one order whatever the threads do.
template <class F>
Gradients sparse_gradients(const BoundSparse& p, const Tensor& root, const Tensor& scores, const MaybeTensor& spans,
                           double cost, F&& body) {
  constexpr int64_t kMost = int64_t(1) << 23;  // elements of the sums of one window
  Tensor du = p.zeros(p.with({p.n, p.k})), dr = p.zeros(shape_of(root)), dq = p.zeros(shape_of(scores));
  Tensor dw = p.zeros(spans ? shape_of(*spans) : Shape{0});
  struct Part {
    const Operand& x;
    int64_t size;
    double* out;
    bool own;  // each item has its own row
  };
  const Part parts[] = {{p.root, p.nonterminals, dr.mutable_data_ptr<double>(), p.root.count == p.items},
                        {p.scores, p.grammar().rules, dq.mutable_data_ptr<double>(), p.scores.count == p.items},
                        {p.spans, spans ? p.spans_size() : 0, dw.mutable_data_ptr<double>(), p.spans.count == p.items}};
  int64_t size = 0;
  for (const Part& part : parts) size += part.own ? 0 : part.size;
  const int64_t window = size ? std::clamp<int64_t>(kMost / size, 1, 64) : std::max<int64_t>(p.items, 1);
  const std::vector<int64_t> order = longest_first(p);
  std::vector<double> sums(std::min(window, p.items) * size);
  double* unary = du.mutable_data_ptr<double>();
  for (int64_t first = 0; first < p.items; first += window) {
    const int64_t count = std::min(window, p.items - first);
    std::fill(sums.begin(), sums.end(), 0.0);
    std::vector<int64_t> slot(p.items);
    for (int64_t u = 0; u < count; u++) slot[order[first + u]] = u;
    each_sentence(p, order.data(), first, count, cost, [&](int64_t b, const SparseItem& x, const SparseWeights& w) {
      double *sum = sums.data() + slot[b] * size, *to[3];
      for (int q = 0; q < 3; q++) {
        to[q] = parts[q].own ? parts[q].out + b * parts[q].size : sum;
        if (!parts[q].own) sum += parts[q].size;
      }
      body(b, x, w, SparseSink{to[0], to[1], unary + b * p.n * p.k, spans ? to[2] : nullptr, p.labels});
    });
    for (int64_t u = 0; u < count; u++) {
      const double* sum = sums.data() + u * size;
      for (const Part& part : parts) {
        if (part.own) continue;
        double* out = part.out + part.x.row(order[first + u]) * part.size;
        for (int64_t e = 0; e < part.size; e++) out[e] += sum[e];
        sum += part.size;
      }
    }
  }
  return {p.narrow(dr), p.narrow(dq), p.narrow(du), p.narrow(dw)};
}

}  // namespace slv
