// The operators of the dense PCFG for tensors on a GPU: the same schemas as csrc/ops/pcfg.cpp. Every launch goes to
// torch's current stream and nothing waits for a result.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "cuda/pcfg_scaled_run.h"

namespace slv::cuda {
namespace {

using FourTensors = std::tuple<Tensor, Tensor, Tensor, Tensor>;

#define SLV_POTENTIALS \
  const Tensor &root, const Tensor &rules, const Tensor &unary, MaybeTensor spans, MaybeTensor lengths

Tensor log_partition(SLV_POTENTIALS, bool as_double) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    BoundPcfg<T> p(root, rules, unary, spans, lengths);
    Tensor chart = p.empty({chart_size(p)});
    ScaledTrees<T> run(p, chart.mutable_data_ptr<T>());
    return climb(p, run, as_double);
  });
}

std::tuple<Tensor, Tensor> inside(SLV_POTENTIALS, bool as_double) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    BoundPcfg<T> p(root, rules, unary, spans, lengths);
    Tensor chart = p.empty({chart_size(p)});
    ScaledTrees<T> run(p, chart.mutable_data_ptr<T>());
    return std::make_tuple(climb(p, run, as_double), chart);
  });
}

FourTensors vjp(const Tensor& grad, const Tensor& chart, SLV_POTENTIALS) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    BoundPcfg<T> p(root, rules, unary, spans, lengths);
    STD_TORCH_CHECK(chart.scalar_type() == scalar_type<T> && chart.is_contiguous() && chart.numel() == chart_size(p),
                    "chart: expected what pcfg_inside returned for these potentials");
    p.check_device("chart", chart);
    const Tensor weight = p.weights(grad);
    ScaledTrees<T> run(p, const_cast<T*>(chart.const_data_ptr<T>()));
    Tensor dr = p.empty(shape_of(rules));
    TreeWeights<T> out(p);
    out.run(run, weight.const_data_ptr<double>(), p.rules.rows, &dr);
    auto [dt, du, ds] = tree_gradients(p, out, root, spans);
    return std::make_tuple(dt, dr, du, ds);
  });
}

FourTensors marginals(SLV_POTENTIALS, bool want_rules, bool want_spans) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    BoundPcfg<T> p(root, rules, unary, spans, lengths);
    Tensor chart = p.empty({chart_size(p)});
    ScaledTrees<T> run(p, chart.mutable_data_ptr<T>());
    run.forward(nullptr);
    const int64_t nt = p.g.nt, s = p.g.s();
    Tensor top = p.empty(p.with({nt})), words = p.empty(p.with({p.n, p.k}));
    Tensor counts = p.empty(want_rules ? p.with({nt, s, s}) : Shape{0});
    Tensor covers = p.empty(want_spans ? p.with({p.n, p.n, nt}) : Shape{0});
    const RowMap each = row_map(p.batch, p.batch);
    TreeWeights<T> out(p);
    out.run(run, nullptr, each, want_rules ? &counts : nullptr);
    p.sum(each, nt, out.top, top);
    p.sum(each, p.n * p.k, out.words, words);
    if (want_spans) p.sum_spans(each, nt, out.nodes, covers);
    return std::make_tuple(top, counts, words, covers);
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> hvp(MaybeTensor grad, const Tensor& v_root, const Tensor& v_rules,
                                                       const Tensor& v_unary, MaybeTensor v_spans, SLV_POTENTIALS) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    BoundPcfg<T> p(root, rules, unary, spans, lengths);
    check_sizes("v_unary", v_unary, shape_of(unary));
    BoundPcfg<T> v(v_root, v_rules, v_unary, v_spans, lengths);
    STD_TORCH_CHECK(v.g.nt == p.g.nt, "v_root: expected ", p.g.nt, " nonterminals, found ", v.g.nt);
    p.check_device("v_unary", v_unary);
    const Tensor weight = grad ? p.weights(*grad) : Tensor();
    Tensor dg = p.empty(p.batch), dr = p.empty(shape_of(rules));
    const Covariances<T> out =
        covariances(p, v, grad ? weight.const_data_ptr<double>() : nullptr, dg.mutable_data_ptr<T>(), dr);
    auto [dt, du, ds] = tree_gradients(p, out, root, spans);
    return std::make_tuple(dg, dt, dr, du, ds);
  });
}

Tensor argmax(SLV_POTENTIALS) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    BoundPcfg<T> p(root, rules, unary, spans, lengths);
    Tensor out = p.empty(p.event_shape(), ScalarType::Long);
    if (out.numel() == 0) return out;
    const Tensor best = p.doubles(p.nodes());
    inside_pass(p, data_of(best), true);
    run_argmax(p.g, data_of(best), out.mutable_data_ptr<int64_t>(), p.stream);
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
    const Tensor values = p.doubles(p.nodes());
    inside_pass(p, data_of(values));
    const int64_t each = p.items * p.g.alternatives();
    const int64_t most = std::clamp<int64_t>(kPairsBytes / (8 * each), 1, num_samples);
    const Tensor memory = p.doubles(most * each);
    for (int64_t first = 0; first < num_samples; first += most)
      run_sample(p.g, data_of(values), uint64_t(seed), first, std::min(most, num_samples - first), data_of(memory),
                 out.mutable_data_ptr<int64_t>(), p.stream);
    return out;
  });
}

}  // namespace

#if defined(SLV_EMULATE)
#define SLV_SCHEMA "Tensor root, Tensor rules, Tensor unary, Tensor? spans, Tensor? lengths"
STABLE_TORCH_LIBRARY_FRAGMENT(structlv_emulated, m) {
  m.def("pcfg_log_partition(" SLV_SCHEMA ", bool as_double) -> Tensor");
  m.def("pcfg_inside(" SLV_SCHEMA ", bool as_double) -> (Tensor, Tensor)");
  m.def("pcfg_vjp(Tensor grad, Tensor chart, " SLV_SCHEMA ") -> (Tensor, Tensor, Tensor, Tensor)");
  m.def("pcfg_marginals(" SLV_SCHEMA ", bool want_rules, bool want_spans) -> (Tensor, Tensor, Tensor, Tensor)");
  m.def("pcfg_hvp(Tensor? grad, Tensor v_root, Tensor v_rules, Tensor v_unary, Tensor? v_spans, " SLV_SCHEMA
        ") -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def("pcfg_argmax(" SLV_SCHEMA ") -> Tensor");
  m.def("pcfg_sample(" SLV_SCHEMA ", SymInt num_samples, SymInt seed) -> Tensor");
}
STABLE_TORCH_LIBRARY_IMPL(structlv_emulated, CPU, m) {
#else
STABLE_TORCH_LIBRARY_IMPL(structlv, CUDA, m) {
#endif
  m.impl("pcfg_log_partition", TORCH_BOX(&log_partition));
  m.impl("pcfg_inside", TORCH_BOX(&inside));
  m.impl("pcfg_vjp", TORCH_BOX(&vjp));
  m.impl("pcfg_marginals", TORCH_BOX(&marginals));
  m.impl("pcfg_hvp", TORCH_BOX(&hvp));
  m.impl("pcfg_argmax", TORCH_BOX(&argmax));
  m.impl("pcfg_sample", TORCH_BOX(&sample));
}

}  // namespace slv::cuda
