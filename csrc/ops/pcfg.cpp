// The operators of the PCFG: schema, shapes, the loop over sentences. The recursions are in csrc/kernels.
#include <torch/csrc/stable/library.h>

#include <limits>

#include "ops/pcfg_event.h"
#include "ops/pcfg_run.h"

namespace slv {
namespace {

#define SLV_POTENTIALS \
  const Tensor &root, const Tensor &rules, const Tensor &unary, MaybeTensor spans, MaybeTensor lengths

Tensor log_partition(SLV_POTENTIALS, bool as_double) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    BoundPcfg<T> p(root, rules, unary, spans, lengths);
    return log_partitions<T>(p, as_double, [&](double* log_z) { run_pcfg_inside<T>(p.pcfg, nullptr, log_z); });
  });
}

std::tuple<Tensor, Tensor> inside(SLV_POTENTIALS, bool as_double) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    BoundPcfg<T> p(root, rules, unary, spans, lengths);
    Tensor chart = p.empty_chart(pcfg_chart_size(p.pcfg));
    T* data = chart.mutable_data_ptr<T>();
    Tensor out = log_partitions<T>(p, as_double, [&](double* log_z) { run_pcfg_inside<T>(p.pcfg, data, log_z); });
    return std::make_tuple(out, chart);
  });
}

FourTensors vjp(const Tensor& grad, const Tensor& chart, SLV_POTENTIALS) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    BoundPcfg<T> p(root, rules, unary, spans, lengths);
    STD_TORCH_CHECK(
        chart.scalar_type() == scalar_type<T> && chart.is_contiguous() && chart.numel() == pcfg_chart_size(p.pcfg),
        "chart: expected what pcfg_inside returned for these potentials");
    const std::vector<double> weight = weights_of<T>(grad, p.batch);
    return run_pcfg_adjoint<T>(p, root, rules, spans, const_cast<T*>(chart.const_data_ptr<T>()), weight.data());
  });
}

FourTensors marginals(SLV_POTENTIALS, bool want_rules, bool want_spans) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    BoundPcfg<T> p(root, rules, unary, spans, lengths);
    return run_pcfg_marginals(p, want_rules, want_spans);
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> hvp(MaybeTensor grad, const Tensor& v_root, const Tensor& v_rules,
                                                       const Tensor& v_unary, MaybeTensor v_spans, SLV_POTENTIALS) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    BoundPcfg<T> p(root, rules, unary, spans, lengths);
    check_sizes("v_unary", v_unary, shape_of(unary));
    BoundPcfg<T> v(v_root, v_rules, v_unary, v_spans, lengths);
    STD_TORCH_CHECK(v.pcfg.nt == p.pcfg.nt, "v_root: expected ", p.pcfg.nt, " nonterminals, found ", v.pcfg.nt);
    const std::vector<double> weight = grad ? weights_of<T>(*grad, p.batch) : std::vector<double>(p.items, 1.0);
    Tensor dg = p.empty(p.batch);
    T* mean = dg.mutable_data_ptr<T>();
    auto [dt, dr, du, ds] =
        pcfg_gradients(p, root, rules, spans, 3 * pcfg_log_work(p.pcfg), [&](int64_t b, const PcfgSink<T>& sink) {
          mean[b] = T(pcfg_log_kernels<T>().hvp(p.pcfg, b, weight[b], v.pcfg, sink));
        });
    return std::make_tuple(dg, dt, dr, du, ds);
  });
}

Tensor argmax(SLV_POTENTIALS) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    BoundPcfg<T> p(root, rules, unary, spans, lengths);
    Tensor out = p.empty(p.event_shape(), ScalarType::Long);
    int64_t* events = out.mutable_data_ptr<int64_t>();
    const PcfgPlan plan = pcfg_plan(p.pcfg, true, 0);
    each_block<T>(plan, pcfg_scan_work(p.pcfg), [&](const PcfgPlan::Block&, const int64_t* items, int64_t count) {
      pcfg_scan_kernels<T>().argmax(p.pcfg, items, count, events);
    });
    return out;
  });
}

FourTensors max_marginals(SLV_POTENTIALS) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    BoundPcfg<T> p(root, rules, unary, spans, lengths);
    PcfgParts<T> out(p, true, true);
    each_sentence(p.pcfg, pcfg_log_work(p.pcfg) / 2,
                  [&](int64_t b) { pcfg_log_kernels<T>().max_marginals(p.pcfg, b, out.sink(b)); });
    return out.tensors();
  });
}

Tensor topk(SLV_POTENTIALS, int64_t k) {
  STD_TORCH_CHECK(k >= 0, "k: expected a number of trees >= 0, found ", k);
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    BoundPcfg<T> p(root, rules, unary, spans, lengths);
    Tensor out = p.empty(p.event_shape({k}), ScalarType::Long);
    if (out.numel() == 0) return out;
    int64_t* events = out.mutable_data_ptr<int64_t>();
    const int64_t size = event_size(p.n);
    each_sentence(p.pcfg, pcfg_log_work(p.pcfg),
                  [&](int64_t b) { pcfg_log_kernels<T>().topk(p.pcfg, b, k, events + b * size, p.items * size); });
    return out;
  });
}

Tensor sample(SLV_POTENTIALS, int64_t num_samples, int64_t seed) {
  STD_TORCH_CHECK(num_samples >= 0, "num_samples: expected a number >= 0, found ", num_samples);
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    BoundPcfg<T> p(root, rules, unary, spans, lengths);
    Tensor out = p.empty(p.event_shape({num_samples}), ScalarType::Long);
    if (out.numel() == 0) return out;
    int64_t* events = out.mutable_data_ptr<int64_t>();
    const double draws = double(num_samples) * double(p.items) * double(p.n) * double(p.n) * double(p.pcfg.nt);
    const PcfgPlan plan = pcfg_plan(p.pcfg, true, 0);
    each_block<T>(plan, pcfg_scan_work(p.pcfg) + draws * double(p.pcfg.nt),
                  [&](const PcfgPlan::Block&, const int64_t* items, int64_t count) {
                    pcfg_scan_kernels<T>().sample(p.pcfg, items, count, uint64_t(seed), num_samples, events);
                  });
    return out;
  });
}

std::tuple<Tensor, Tensor> sample_distinct(SLV_POTENTIALS, int64_t k, int64_t seed) {
  STD_TORCH_CHECK(k >= 0, "k: expected a number of trees >= 0, found ", k);
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    BoundPcfg<T> p(root, rules, unary, spans, lengths);
    Tensor out = p.empty(p.event_shape({k}), ScalarType::Long),
           perturbed = p.empty(p.with({}, {k}), ScalarType::Double);
    if (perturbed.numel() == 0) return std::make_tuple(out, perturbed);
    const int64_t size = event_size(p.n);
    const DistinctSink sink{out.mutable_data_ptr<int64_t>(), p.items * size, perturbed.mutable_data_ptr<double>(),
                            p.items};
    const double opened = double(k) * double(p.items) * double(p.n) * double(p.n) * double(p.pcfg.nt);
    each_block<T>(pcfg_plan(p.pcfg, true, 0), pcfg_scan_work(p.pcfg) + 2 * opened * double(p.pcfg.nt),
                  [&](const PcfgPlan::Block&, const int64_t* items, int64_t count) {
                    pcfg_scan_kernels<T>().sample_distinct(p.pcfg, items, count, uint64_t(seed), k, sink);
                  });
    return std::make_tuple(out, perturbed);
  });
}

// ---- scores of given trees; linear in the potentials

Tensor score(const Tensor& event, SLV_POTENTIALS) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    BoundPcfg<T> p(root, rules, unary, spans, lengths);
    const Pcfg<T>& g = p.pcfg;
    const int64_t samples = samples_of("event", event, p.event_shape()), s = g.s();
    Tensor events = torch::stable::contiguous(event), out = p.empty(samples_shape(event, 2), ScalarType::Double);
    double* scores = out.mutable_data_ptr<double>();
    const int64_t* rows = events.const_data_ptr<int64_t>();
    parallel_units(samples * g.batch, 50.0 * double(samples * g.batch * g.n), [&](int64_t e) {
      const int64_t b = e % g.batch;
      const T *root_row = g.root + p.root.row(b) * g.nt, *rule_row = g.rules + p.rules.row(b) * g.rules_size();
      const T *leaves = g.unary + b * g.n * g.t,
              *span_row = g.spans ? g.spans + p.spans.row(b) * p.spans_size() : nullptr;
      double sum = 0;
      const bool ok = each_tree_part(
          rows + e * event_size(g.n), g.len(b), g.nt, s, [&](int64_t a) { sum += double(root_row[a]); },
          [&](int64_t i, int64_t j, int64_t a, int64_t y, int64_t z) {
            sum += double(rule_row[(a * s + y) * s + z]);
            if (g.spans) sum += double(span_row[(i * g.n + j) * g.labels + (g.labels == 1 ? 0 : a)]);
          },
          [&](int64_t i, int64_t y) { sum += double(leaves[i * g.t + y]); });
      scores[e] = ok ? sum : -std::numeric_limits<double>::infinity();
    });
    return out;
  });
}

FourTensors score_vjp(const Tensor& grad, const Tensor& event, SLV_POTENTIALS) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    BoundPcfg<T> p(root, rules, unary, spans, lengths);
    const Pcfg<T>& g = p.pcfg;
    const int64_t samples = samples_of("event", event, p.event_shape()), s = g.s();
    check_sizes("grad", grad, samples_shape(event, 2));
    const Tensor events = torch::stable::contiguous(event);
    const Tensor g64 =
        torch::stable::contiguous(torch::stable::to(grad, std::optional<ScalarType>(ScalarType::Double)));
    const int64_t* rows = events.const_data_ptr<int64_t>();
    Tensor du = p.empty(p.with({g.n, g.t})), dt = p.empty(shape_of(root)), dr = p.empty(shape_of(rules));
    Tensor ds = p.empty(spans ? shape_of(*spans) : Shape{0});
    T* leaves = du.mutable_data_ptr<T>();
    std::fill_n(leaves, g.batch * g.n * g.t, T(0));
    RowSums<T> root_sums(p.root, g.batch, g.nt, dt), rule_sums(p.rules, g.batch, g.rules_size(), dr),
        span_sums(p.spans, g.batch, p.spans_size(), ds);
    root_sums.clear(g.batch), rule_sums.clear(g.batch), span_sums.clear(g.batch);
    for (int64_t e = 0; e < samples * g.batch; e++) {
      const int64_t b = e % g.batch;
      const double w = g64.const_data_ptr<double>()[e];
      each_tree_part(
          rows + e * event_size(g.n), g.len(b), g.nt, s, [&](int64_t a) { root_sums.add(b, a, w); },
          [&](int64_t i, int64_t j, int64_t a, int64_t y, int64_t z) {
            rule_sums.add(b, (a * s + y) * s + z, w);
            if (g.spans) span_sums.add(b, (i * g.n + j) * g.labels + (g.labels == 1 ? 0 : a), w);
          },
          [&](int64_t i, int64_t y) { leaves[(b * g.n + i) * g.t + y] += T(w); });
    }
    root_sums.finish(), rule_sums.finish(), span_sums.finish();
    return std::make_tuple(dt, dr, du, ds);
  });
}

// ---- NaN among the potentials; padding does not count

bool has_nan(SLV_POTENTIALS) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    BoundPcfg<T> p(root, rules, unary, spans, lengths);
    const Pcfg<T>& g = p.pcfg;
    if (g.root && any_nan(g.root, p.root.count * g.nt)) return true;
    if (g.rules && any_nan(g.rules, p.rules.count * g.rules_size())) return true;
    std::atomic<bool> found{false};
    parallel_units(g.batch, double(g.batch * g.n) * double(g.t + g.n * g.labels), [&](int64_t b) {
      const int64_t len = g.len(b);
      bool bad = any_nan(g.unary + b * g.n * g.t, len * g.t);
      for (int64_t i = 0; g.spans && i < len - 1 && !bad; i++)  // the spans i < j of the sentence
        bad =
            any_nan(g.spans + p.spans.row(b) * p.spans_size() + (i * g.n + i + 1) * g.labels, (len - 1 - i) * g.labels);
      if (bad) found = true;
    });
    return found.load();
  });
}

// ---- the tree of the best span scores

Tensor tree_decode(const Tensor& spans, MaybeTensor lengths) {
  auto body = [&](auto t) {
    using T = decltype(t);
    BoundBatch<T> p(spans, "spans: expected (*b, n, n)", lengths);
    const int64_t n = p.n, size = event_size(n);
    check_tail("spans", shape_of(spans), {n, n});
    Tensor out = p.empty(p.with({size / 3, 3}), ScalarType::Long);
    int64_t* events = out.mutable_data_ptr<int64_t>();
    const T* scores = p.unary.template const_data_ptr<T>();
    const double work = double(p.items) * double(n) * double(n) * double(n) / 4;
    parallel_units(p.items, work, [&](int64_t b) {
      pcfg_log_kernels<T>().decode(scores + b * n * n, n, p.length.empty() ? n : p.length[b], events + b * size);
    });
    return out;
  };
  return dispatch(spans, body, "spans");
}

}  // namespace

#define SLV_SCHEMA "Tensor root, Tensor rules, Tensor unary, Tensor? spans, Tensor? lengths"

STABLE_TORCH_LIBRARY_FRAGMENT(structlv, m) {
  m.def("pcfg_log_partition(" SLV_SCHEMA ", bool as_double) -> Tensor");
  m.def("pcfg_inside(" SLV_SCHEMA ", bool as_double) -> (Tensor, Tensor)");
  m.def("pcfg_vjp(Tensor grad, Tensor chart, " SLV_SCHEMA ") -> (Tensor, Tensor, Tensor, Tensor)");
  m.def("pcfg_marginals(" SLV_SCHEMA ", bool want_rules, bool want_spans) -> (Tensor, Tensor, Tensor, Tensor)");
  m.def("pcfg_hvp(Tensor? grad, Tensor v_root, Tensor v_rules, Tensor v_unary, Tensor? v_spans, " SLV_SCHEMA
        ") -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def("pcfg_argmax(" SLV_SCHEMA ") -> Tensor");
  m.def("pcfg_max_marginals(" SLV_SCHEMA ") -> (Tensor, Tensor, Tensor, Tensor)");
  m.def("pcfg_topk(" SLV_SCHEMA ", SymInt k) -> Tensor");
  m.def("pcfg_sample_distinct(" SLV_SCHEMA ", SymInt k, SymInt seed) -> (Tensor, Tensor)");
  m.def("pcfg_sample(" SLV_SCHEMA ", SymInt num_samples, SymInt seed) -> Tensor");
  m.def("pcfg_score(Tensor event, " SLV_SCHEMA ") -> Tensor");
  m.def("pcfg_score_vjp(Tensor grad, Tensor event, " SLV_SCHEMA ") -> (Tensor, Tensor, Tensor, Tensor)");
  m.def("pcfg_has_nan(" SLV_SCHEMA ") -> bool");
  m.def("tree_decode(Tensor spans, Tensor? lengths) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(structlv, CPU, m) {
  m.impl("pcfg_log_partition", TORCH_BOX(&log_partition));
  m.impl("pcfg_inside", TORCH_BOX(&inside));
  m.impl("pcfg_vjp", TORCH_BOX(&vjp));
  m.impl("pcfg_marginals", TORCH_BOX(&marginals));
  m.impl("pcfg_hvp", TORCH_BOX(&hvp));
  m.impl("pcfg_argmax", TORCH_BOX(&argmax));
  m.impl("pcfg_max_marginals", TORCH_BOX(&max_marginals));
  m.impl("pcfg_topk", TORCH_BOX(&topk));
  m.impl("pcfg_sample_distinct", TORCH_BOX(&sample_distinct));
  m.impl("pcfg_sample", TORCH_BOX(&sample));
  m.impl("pcfg_score", TORCH_BOX(&score));
  m.impl("pcfg_score_vjp", TORCH_BOX(&score_vjp));
  m.impl("pcfg_has_nan", TORCH_BOX(&has_nan));
  m.impl("tree_decode", TORCH_BOX(&tree_decode));
}

}  // namespace slv
