// The loops over sentences: longest first over the threads; sums over sentences in float64, in an order of their own.
#pragma once
#include <tuple>

#include "ops/dispatch.h"
#include "ops/parallel.h"
#include "ops/pcfg_bind.h"
#include "ops/pcfg_plan.h"

namespace slv {

template <class T>
const PcfgLogKernels<T>& pcfg_log_kernels() {
  if constexpr (sizeof(T) == 4)
    return pcfg_kernels().log_f32;
  else
    return pcfg_kernels().log_f64;
}

template <class T>
const PcfgScanKernels<T>& pcfg_scan_kernels() {
  if constexpr (sizeof(T) == 4)
    return pcfg_scans().f32;
  else
    return pcfg_scans().f64;
}

// Operations of one inside pass over the whole batch in exact log space.
template <class T>
double pcfg_log_work(const Pcfg<T>& g) {
  const double n = double(g.n), nt = double(g.nt), s = double(g.s());
  return double(g.batch) * n * n * nt * (10 * s * s + 5 * n * nt);
}

// The same in the scaled domain.
template <class T>
double pcfg_scan_work(const Pcfg<T>& g) {
  const double n = double(g.n), nt = double(g.nt), s = double(g.s());
  return double(g.batch) * nt * (s * s * (10 + 2 * n) + n * n * nt * (n / 3 + nt));
}
template <class T>
int64_t pcfg_chart_size(const Pcfg<T>& g) {
  return g.batch * pcfg_chart_size<T>(g.n, g.nt, g.t);
}

// body(block, items, count) for every block, those with most work first.
template <class T, class F>
void each_block(const PcfgPlan& plan, double work, F&& body) {
  parallel_units(plan.groups.size(), work, [&](int64_t u) {
    const PcfgPlan::Group& group = plan.groups[u];
    for (int64_t q = group.first; q < group.first + group.blocks; q++)
      body(plan.blocks[q], plan.order.data() + plan.blocks[q].first, plan.blocks[q].count);
  });
}
template <class T>
T* chart_of(const Pcfg<T>& g, T* chart, const PcfgPlan::Block& block) {
  return chart ? chart + block.first * pcfg_chart_size<T>(g.n, g.nt, g.t) : nullptr;
}

// chart: null, or kept for the backward pass
template <class T>
void run_pcfg_inside(const Pcfg<T>& g, T* chart, double* log_z) {
  const PcfgPlan plan = pcfg_plan(g, true, 0);
  each_block<T>(plan, pcfg_scan_work(g), [&](const PcfgPlan::Block& block, const int64_t* items, int64_t count) {
    pcfg_scan_kernels<T>().forward(g, items, count, chart_of(g, chart, block), log_z);
  });
}

template <class T>
std::vector<int64_t> longest_first(const Pcfg<T>& g) {
  return longest_first(g.batch, [&g](int64_t b) { return g.len(b); });
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

// Whether gradients are written past the cache.
inline bool past_cache(int64_t elements, int64_t size) { return double(elements) * double(size) > 12e6; }

// The gradient of the rules (grammars, nt, s, s): accumulators for the groups of those that need more than one, added
// up in float64, in order.
template <class T>
class RuleGradients {
 public:
  RuleGradients(const Pcfg<T>& g, const PcfgPlan& plan, int64_t grammars, T* out)
      : size_(g.rules_size()), grammars_(grammars), plan_(plan), out_(out), place_(plan.groups.size(), -1) {
    int64_t count = 0;
    for (size_t u = 0; u < plan.groups.size(); u++)
      if (!plan.groups[u].alone) place_[u] = count++;
    sums_.reset(new T[count * size_]);
  }
  T* of(int64_t group) {
    const int64_t place = place_[group];
    return place < 0 ? out_ + plan_.groups[group].rules * size_ : sums_.get() + place * size_;
  }
  void finish() {
    if (plan_.groups.empty()) std::fill_n(out_, grammars_ * size_, T(0));
    std::vector<int64_t> order;
    for (size_t u = 0; u < plan_.groups.size(); u++)
      if (place_[u] >= 0) order.push_back(int64_t(u));
    std::sort(order.begin(), order.end(),
              [&](int64_t a, int64_t b) { return plan_.groups[a].first < plan_.groups[b].first; });
    std::vector<double> total(order.empty() ? 0 : size_);
    for (size_t u = 0, end; u < order.size(); u = end) {
      const int64_t rules = plan_.groups[order[u]].rules;
      std::fill(total.begin(), total.end(), 0.0);
      for (end = u; end < order.size() && plan_.groups[order[end]].rules == rules; end++)
        for (int64_t e = 0; e < size_; e++) total[e] += double(of(order[end])[e]);
      std::transform(total.begin(), total.end(), out_ + rules * size_, [](double x) { return T(x); });
    }
  }

 private:
  const int64_t size_, grammars_;
  const PcfgPlan& plan_;
  T* out_;
  std::vector<int64_t> place_;
  std::unique_ptr<T[]> sums_;
};

// The gradient of <weight, log Z> in the potentials' own shapes.
template <class T>
FourTensors run_pcfg_adjoint(const BoundPcfg<T>& p, const Tensor& root, const Tensor& rules, const MaybeTensor& spans,
                             T* chart, const double* weight) {
  const Pcfg<T>& g = p.pcfg;
  Tensor du = p.empty(p.with({g.n, g.t})), dr = p.empty(shape_of(rules));
  const bool own_spans = spans && p.spans.count == g.batch;
  Tensor ds = p.empty(!spans ? Shape{0} : own_spans ? shape_of(*spans) : p.with({g.n, g.n, g.labels}));
  const PcfgPlan plan = pcfg_plan(g, true, accumulators(g.rules_size()), true);
  RuleGradients<T> rule_sums(g, plan, p.rules.count, dr.template mutable_data_ptr<T>());
  std::vector<T> root_rows(g.batch * g.nt);
  T *unary = du.template mutable_data_ptr<T>(), *tables = spans ? ds.template mutable_data_ptr<T>() : nullptr;
  const bool stream = past_cache(p.rules.count * g.rules_size(), sizeof(T));
  parallel_units(plan.groups.size(), 3 * pcfg_scan_work(g), [&](int64_t u) {
    const PcfgPlan::Group& group = plan.groups[u];
    for (int64_t q = group.first; q < group.first + group.blocks; q++) {
      const PcfgPlan::Block& block = plan.blocks[q];
      const PcfgBlockSink<T> sink{root_rows.data(),     unary, tables, rule_sums.of(u), g.labels, q > group.first,
                                  stream && group.alone};
      pcfg_scan_kernels<T>().backward(g, plan.order.data() + block.first, block.count, chart_of(g, chart, block),
                                      weight, sink);
    }
  });
  rule_sums.finish();
  const T* table = tables;
  if (spans && !own_spans)
    ds = sum_over_items<T>(p, p.spans, spans, p.spans_size(), [&](int64_t b) { return table + b * p.spans_size(); });
  Tensor dt = sum_over_items<T>(p, p.root, root, g.nt, [&](int64_t b) { return root_rows.data() + b * g.nt; });
  return {dt, dr, du, ds};
}

template <class T>
FourTensors run_pcfg_marginals(const BoundPcfg<T>& p, bool rules, bool spans) {
  const Pcfg<T>& g = p.pcfg;
  PcfgParts<T> out(p, rules, spans);
  const PcfgSink<T> at = out.sink(0);
  const PcfgPlan plan = pcfg_plan(g, !rules, 0);
  const bool stream = rules && past_cache(g.batch * g.rules_size(), sizeof(T));
  each_block<T>(plan, 4 * pcfg_scan_work(g), [&](const PcfgPlan::Block&, const int64_t* items, int64_t count) {
    T* to = rules ? at.rules + items[0] * g.rules_size() : nullptr;
    pcfg_scan_kernels<T>().backward(g, items, count, nullptr, nullptr,
                                    {at.root, at.unary, at.spans, to, g.nt, false, stream});
  });
  return out.tensors();
}

}  // namespace slv
