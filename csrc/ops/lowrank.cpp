// The operators of the low-rank PCFG: schema, shapes, the loop over sentences. The recursions are in csrc/kernels.
#include <torch/csrc/stable/library.h>

#include "ops/lowrank_run.h"

namespace slv {
namespace {

#define SLV_POTENTIALS                                                                                \
  const Tensor &root, MaybeTensor head, const Tensor &left, const Tensor &right, const Tensor &unary, \
      MaybeTensor spans, MaybeTensor lengths
#define SLV_BIND(fold) BoundLowRank<T> p(root, head, left, right, unary, spans, lengths, fold)

using SixTensors = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;  // root, head, left, right, unary, spans

Tensor log_partition(SLV_POTENTIALS, bool as_double) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    SLV_BIND(true);
    return log_partitions<T>(p, as_double, [&](double* log_z) { lowrank_inside<T>(p, nullptr, log_z); });
  });
}

std::tuple<Tensor, Tensor> inside(SLV_POTENTIALS, bool as_double) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    SLV_BIND(true);
    Tensor chart = p.empty_chart(p.items * chart_size(p.pcfg));
    T* data = chart.mutable_data_ptr<T>();
    Tensor log_z = log_partitions<T>(p, as_double, [&](double* out) { lowrank_inside<T>(p, data, out); });
    return std::make_tuple(log_z, chart);
  });
}

SixTensors vjp(const Tensor& grad, const Tensor& chart, SLV_POTENTIALS) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    SLV_BIND(true);
    const LowRank<T>& g = p.pcfg;
    STD_TORCH_CHECK(
        chart.scalar_type() == scalar_type<T> && chart.is_contiguous() && chart.numel() == p.items * chart_size(g),
        "chart: expected what lowrank_inside returned for these potentials");
    const std::vector<double> weight = weights_of<T>(grad, p.batch);
    const bool own_spans = p.spans.count == p.items;
    Tensor du = p.empty(p.with({g.n, g.t})), roots = p.empty({p.items, g.nt});
    Tensor covers = p.empty(!spans ? Shape{0} : own_spans ? shape_of(*spans) : Shape{p.items, p.spans_size()});
    T *root_out = roots.mutable_data_ptr<T>(), *span_out = spans ? covers.mutable_data_ptr<T>() : nullptr;
    const Plan plan = lowrank_plan(p, accumulators(SumSizes<T>(g).all()));
    GrammarGradients<T> gradients(p, plan, head, left, right);
    const LowRankSink<T> out{root_out, du.mutable_data_ptr<T>(), span_out, g.labels, {}, 0, 0};
    lowrank_adjoint(p, plan, chart.const_data_ptr<T>(), weight.data(), out, gradients);
    Tensor dr = sum_over_items<T>(p, p.root, root, g.nt, [&](int64_t b) { return root_out + b * g.nt; });
    Tensor ds = own_spans ? covers : sum_over_items<T>(p, p.spans, spans, p.spans_size(), [&](int64_t b) {
      return span_out + b * p.spans_size();
    });
    return SixTensors(dr, gradients.head(), gradients.left(), gradients.right(), du, ds);
  });
}

SixTensors marginals(SLV_POTENTIALS, bool want_rules, bool want_spans) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    SLV_BIND(!want_spans);
    const LowRank<T>& g = p.pcfg;
    Tensor roots = p.empty(p.with({g.nt})), words = p.empty(p.with({g.n, g.t}));
    Tensor heads = p.empty(head && want_rules ? p.with({g.nt, g.r}) : Shape{0});
    const Shape side = want_rules ? p.with({g.r, g.s()}) : Shape{0};
    Tensor lefts = p.empty(side), rights = p.empty(side);
    Tensor covers = p.empty(want_spans ? p.with({g.n, g.n, g.nt}) : Shape{0});
    const LowRankSink<T> out{roots.mutable_data_ptr<T>(),
                             words.mutable_data_ptr<T>(),
                             want_spans ? covers.mutable_data_ptr<T>() : nullptr,
                             g.nt,
                             {},
                             0,
                             0};
    auto rows = [&](const Tensor& x) { return want_rules && x.numel() ? x.mutable_data_ptr<T>() : nullptr; };
    lowrank_marginals(p, out, rows(heads), rows(lefts), rows(rights));
    return SixTensors(roots, heads, lefts, rights, words, covers);
  });
}

Tensor sample(SLV_POTENTIALS, int64_t num_samples, int64_t seed) {
  STD_TORCH_CHECK(num_samples >= 0, "num_samples: expected a number >= 0, found ", num_samples);
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    SLV_BIND(false);
    const LowRank<T>& g = p.pcfg;
    Tensor out = p.empty(p.event_shape({num_samples}), ScalarType::Long);
    if (out.numel() == 0) return out;
    int64_t* events = out.mutable_data_ptr<int64_t>();
    const double draws = double(num_samples) * double(g.batch * g.n) * double(g.r + g.n + 2 * g.nt);
    each_block(p, lowrank_plan(p, 1), lowrank_work(g) + 8 * draws,
               [&](const Plan::Block& b, const int64_t* items, void* grammar) {
                 lowrank_kernels_of<T>().sample(g, grammar, items, int(b.rows), uint64_t(seed), num_samples, events,
                                                g.batch * lowrank_event_size(g.n));
               });
    return out;
  });
}

bool has_nan(SLV_POTENTIALS) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    SLV_BIND(false);
    const LowRank<T>& g = p.pcfg;
    const int64_t side = g.r * g.s();
    if (any_nan(g.root, p.root.count * g.nt) || any_nan(g.head, p.head.count * g.nt * g.r) ||
        any_nan(g.left, p.left.count * side) || any_nan(g.right, p.right.count * side))
      return true;
    std::atomic<bool> found{false};
    parallel_units(g.batch, double(g.batch * g.n) * double(g.t + (g.spans ? g.n * g.labels : 0)), [&](int64_t b) {
      const int64_t len = g.len(b) > 1 ? g.len(b) : 0;
      bool bad = any_nan(g.unary + b * g.n * g.t, len * g.t);
      for (int64_t i = 0; g.spans && i < len - 1 && !bad; i++)  // the spans i < j of the sentence
        bad =
            any_nan(g.spans + p.spans.row(b) * p.spans_size() + (i * g.n + i + 1) * g.labels, (len - 1 - i) * g.labels);
      if (bad) found = true;
    });
    return found.load();
  });
}

}  // namespace

#define SLV_SCHEMA "Tensor root, Tensor? head, Tensor left, Tensor right, Tensor unary, Tensor? spans, Tensor? lengths"
#define SLV_SIX "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"

STABLE_TORCH_LIBRARY_FRAGMENT(structlv, m) {
  m.def("lowrank_log_partition(" SLV_SCHEMA ", bool as_double) -> Tensor");
  m.def("lowrank_inside(" SLV_SCHEMA ", bool as_double) -> (Tensor, Tensor)");
  m.def("lowrank_vjp(Tensor grad, Tensor chart, " SLV_SCHEMA ") -> " SLV_SIX);
  m.def("lowrank_marginals(" SLV_SCHEMA ", bool want_rules, bool want_spans) -> " SLV_SIX);
  m.def("lowrank_sample(" SLV_SCHEMA ", SymInt num_samples, SymInt seed) -> Tensor");
  m.def("lowrank_has_nan(" SLV_SCHEMA ") -> bool");
}

STABLE_TORCH_LIBRARY_IMPL(structlv, CPU, m) {
  m.impl("lowrank_log_partition", TORCH_BOX(&log_partition));
  m.impl("lowrank_inside", TORCH_BOX(&inside));
  m.impl("lowrank_vjp", TORCH_BOX(&vjp));
  m.impl("lowrank_marginals", TORCH_BOX(&marginals));
  m.impl("lowrank_sample", TORCH_BOX(&sample));
  m.impl("lowrank_has_nan", TORCH_BOX(&has_nan));
}

}  // namespace slv
