// The loops over sentences: longest first over the threads; sums over sentences in float64, in an order of their own.
#pragma once
#include <tuple>

#include "ops/chain_plan.h"
#include "ops/dispatch.h"
#include "ops/parallel.h"
#include "ops/pcfg_bind.h"

namespace slv {

template <class T>
const PcfgLogKernels<T>& pcfg_log_kernels() {
  if constexpr (sizeof(T) == 4)
    return pcfg_kernels().log_f32;
  else
    return pcfg_kernels().log_f64;
}

// Operations of one inside pass over the whole batch in exact log space.
template <class T>
double pcfg_log_work(const Pcfg<T>& g) {
  const double n = double(g.n), nt = double(g.nt), s = double(g.s());
  return double(g.batch) * n * n * nt * (10 * s * s + 5 * n * nt);
}

// Elements of the opaque chart that the inside pass leaves for the backward pass: exact log space starts afresh.
template <class T>
int64_t pcfg_chart_size(const Pcfg<T>&) {
  return 0;
}

template <class T>
std::vector<int64_t> longest_first(const Pcfg<T>& g) {
  std::vector<int64_t> order(g.batch);
  for (int64_t b = 0; b < g.batch; b++) order[b] = b;
  std::stable_sort(order.begin(), order.end(), [&g](int64_t a, int64_t b) { return g.len(a) > g.len(b); });
  return order;
}
template <class T, class F>
void each_sentence(const Pcfg<T>& g, double work, F&& body) {
  const std::vector<int64_t> order = longest_first(g);
  parallel_units(g.batch, work, [&](int64_t u) { body(order[u]); });
}

// The gradient of a potential with rows of `size` elements. An item with a row of its own writes it; what items share
// is added up in float64.
template <class T>
struct RowSums {
  const Operand& x;
  const int64_t size;  // of a row; 0 where nothing is to be added up
  T* out;
  std::vector<double> total;

  RowSums(const Operand& x, int64_t items, int64_t elements, Tensor& to)
      : x(x),
        size(x.count && x.count != items ? elements : 0),
        out(x.count ? to.mutable_data_ptr<T>() : nullptr),
        total(x.count * size),
        elements_(elements) {}
  T* own(int64_t item) const { return out && !size ? out + item * elements_ : nullptr; }
  void add(int64_t item, const double* part) {
    double* to = total.data() + x.row(item) * size;
    for (int64_t e = 0; e < size; e++) to[e] += part[e];
  }
  void clear(int64_t items) {
    if (out && !size) std::fill_n(out, items * elements_, T(0));
  }
  void add(int64_t item, int64_t element, double w) {
    if (size)
      total[x.row(item) * size + element] += w;
    else
      out[item * elements_ + element] += T(w);
  }
  void finish() {
    if (size) std::transform(total.begin(), total.end(), out, [](double s) { return T(s); });
  }

 private:
  const int64_t elements_;
};

using FourTensors = std::tuple<Tensor, Tensor, Tensor, Tensor>;  // root, rules, unary, spans

// A number for every part of every item; rules and spans only where they are wanted.
template <class T>
class PcfgParts {
 public:
  PcfgParts(const BoundPcfg<T>& p, bool rules, bool spans)
      : g_(p.pcfg),
        root_(p.empty(p.with({g_.nt}))),
        rules_(p.empty(rules ? p.with(p.rules_tail()) : Shape{0})),
        unary_(p.empty(p.with({g_.n, g_.t}))),
        spans_(p.empty(spans ? p.with({g_.n, g_.n, g_.nt}) : Shape{0})),
        root_out_(root_.mutable_data_ptr<T>()),
        rules_out_(rules ? rules_.mutable_data_ptr<T>() : nullptr),
        unary_out_(unary_.mutable_data_ptr<T>()),
        spans_out_(spans ? spans_.mutable_data_ptr<T>() : nullptr) {}
  PcfgSink<T> sink(int64_t b) const {
    return {root_out_ + b * g_.nt,
            unary_out_ + b * g_.n * g_.t,
            rules_out_ ? rules_out_ + b * g_.rules_size() : nullptr,
            nullptr,
            spans_out_ ? spans_out_ + b * g_.n * g_.n * g_.nt : nullptr,
            nullptr,
            g_.nt};
  }
  FourTensors tensors() const { return {root_, rules_, unary_, spans_}; }

 private:
  const Pcfg<T>& g_;
  Tensor root_, rules_, unary_, spans_;
  T *root_out_, *rules_out_, *unary_out_, *spans_out_;
};

// Gradients in the potentials' own shapes; body(item, sink) gives those of an item. What items share is added up window
// by window of items, which bounds the memory, in one order whatever the threads do.
template <class T, class F>
FourTensors pcfg_gradients(const BoundPcfg<T>& p, const Tensor& root, const Tensor& rules, const MaybeTensor& spans,
                           double work, F&& body) {
  const Pcfg<T>& g = p.pcfg;
  Tensor du = p.empty(p.with({g.n, g.t})), dr = p.empty(shape_of(rules));
  Tensor ds = p.empty(spans ? shape_of(*spans) : Shape{0});
  RowSums<T> rule_sums(p.rules, g.batch, g.rules_size(), dr), span_sums(p.spans, g.batch, p.spans_size(), ds);
  const int64_t size = rule_sums.size + span_sums.size;
  const int64_t window = size ? std::min(accumulators(size), g.batch) : g.batch;
  const std::vector<int64_t> order = longest_first(g);
  std::vector<T> root_rows(g.batch * g.nt);
  std::vector<double> parts(window * size);
  T* unary = du.template mutable_data_ptr<T>();
  for (int64_t first = 0; first < g.batch; first += window) {
    const int64_t count = std::min(window, g.batch - first);
    std::fill(parts.begin(), parts.end(), 0.0);
    parallel_units(count, work * double(count) / double(g.batch), [&](int64_t u) {
      const int64_t b = order[first + u];
      double* part = parts.data() + u * size;
      body(b, PcfgSink<T>{root_rows.data() + b * g.nt, unary + b * g.n * g.t, rule_sums.own(b),
                          rule_sums.size ? part : nullptr, span_sums.own(b),
                          span_sums.size ? part + rule_sums.size : nullptr, g.labels});
    });
    for (int64_t u = 0; u < count; u++) {
      rule_sums.add(order[first + u], parts.data() + u * size);
      span_sums.add(order[first + u], parts.data() + u * size + rule_sums.size);
    }
  }
  rule_sums.finish(), span_sums.finish();
  Tensor dt = sum_over_items<T>(p, p.root, root, g.nt, [&](int64_t b) { return root_rows.data() + b * g.nt; });
  return {dt, dr, du, ds};
}

}  // namespace slv
