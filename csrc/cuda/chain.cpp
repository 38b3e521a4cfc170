// The operators of the chain for tensors on a GPU: the same schemas as csrc/ops/chain.cpp. Every launch goes to torch's
// current stream and nothing waits for a result: what each item needs is decided on the device, by flags.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "cuda/chain_run.h"

namespace slv::cuda {
namespace {

// ---- operators --------------------------------------------------------------------------------------------------

#define SLV_POTENTIALS \
  const Tensor &unary, const Tensor &transition, MaybeTensor initial, MaybeTensor final, MaybeTensor lengths

template <class T>
Tensor inside_pass(const Bound<T>& p, T* chart, bool as_double) {
  Tensor z = p.empty(p.batch, as_double ? ScalarType::Double : scalar_type<T>);
  ScaledRun<T> run(p);
  run.bind_result(z);
  run.forward(chart);
  redo_log_z(p, run.s);
  return z;
}

Tensor log_partition(SLV_POTENTIALS, bool as_double) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    Bound<T> p(unary, transition, initial, final, lengths);
    return inside_pass<T>(p, nullptr, as_double);
  });
}

std::tuple<Tensor, Tensor> inside(SLV_POTENTIALS, bool as_double) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    Bound<T> p(unary, transition, initial, final, lengths);
    Tensor chart = p.empty({ScaledRun<T>::chart_size(p)});
    return std::make_tuple(inside_pass<T>(p, chart.mutable_data_ptr<T>(), as_double), chart);
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor> vjp(const Tensor& grad, const Tensor& chart, SLV_POTENTIALS) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    Bound<T> p(unary, transition, initial, final, lengths);
    STD_TORCH_CHECK(
        chart.scalar_type() == scalar_type<T> && chart.is_contiguous() && chart.numel() == ScaledRun<T>::chart_size(p),
        "chart: expected what chain_inside returned for these potentials");
    p.check_device("chart", chart);
    const Tensor weight = p.weights(grad);
    Tensor du = p.empty(p.with({p.n, p.k}));
    T* out = du.mutable_data_ptr<T>();
    EdgeSums<T> sums(p, p.transition.rows, p.chain.per_step, shape_of(transition));
    ScaledRun<T> run(p);
    run.bind_chart(const_cast<T*>(chart.const_data_ptr<T>()));
    backward_all(run, weight.const_data_ptr<double>(), out, &sums);
    return std::make_tuple(du, sums.finish(), end_gradient<T>(p, p.initial, initial, out, false),
                           end_gradient<T>(p, p.final, final, out, true));
  });
}

// edges: whether they are per step in any case; without a value there are none, (*b, 0, 0)
std::tuple<Tensor, Tensor> marginals(SLV_POTENTIALS, std::optional<bool> edges) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    Bound<T> p(unary, transition, initial, final, lengths);
    Tensor mu = p.empty(p.with({p.n, p.k}));
    ScaledRun<T> run(p);
    run.forward_kept();
    if (!edges) {
      backward_all<T>(run, nullptr, mu.mutable_data_ptr<T>(), nullptr);
      return std::make_tuple(mu, p.empty(p.with({0, 0})));
    }
    const bool per_step = *edges || p.chain.per_step;
    EdgeSums<T> sums(p, row_map(p.batch, p.batch), per_step, p.with(edge_tail(per_step, p.n, p.k)));
    backward_all<T>(run, nullptr, mu.mutable_data_ptr<T>(), &sums);
    return std::make_tuple(mu, sums.finish());
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> hvp(MaybeTensor grad, const Tensor& v_unary,
                                                       const Tensor& v_transition, MaybeTensor v_initial,
                                                       MaybeTensor v_final, SLV_POTENTIALS) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    Bound<T> p(unary, transition, initial, final, lengths), q(v_unary, v_transition, v_initial, v_final, lengths);
    check_sizes("v_unary", v_unary, shape_of(unary));
    const Tensor weight = grad ? p.weights(*grad) : Tensor();
    Tensor dg = p.empty(p.batch), du = p.empty(p.with({p.n, p.k})), mean = p.empty(p.batch, ScalarType::Double);
    T* out = du.mutable_data_ptr<T>();
    EdgeSums<T> sums(p, p.transition.rows, p.chain.per_step, shape_of(transition));
    sums.clear();
    const Chain<T>& v = q.chain;
    Tangent<T> tangents{v.unary,
                        v.transition,
                        v.initial,
                        v.final,
                        v.per_step,
                        v.matrix,
                        v.initial_row,
                        v.final_row,
                        grad ? weight.const_data_ptr<double>() : nullptr,
                        nullptr,
                        nullptr,
                        mean.mutable_data_ptr<double>(),
                        dg.mutable_data_ptr<T>(),
                        out};
    each_range<T>(p, nullptr, 1, true, 2, [&](const LogSpace<T>& l, double* extra, int64_t size) {
      tangents.prefix = extra, tangents.suffix = extra + size;
      log_forward<T>(p.chain, l, nullptr, nullptr, p.stream);
      log_backward<T>(p.chain, l, nullptr, nullptr, p.stream);
      tangent(p.chain, l, tangents, p.stream);
      tangent_edges(p.chain, l, tangents, sums.edges, p.stream);
    });
    return std::make_tuple(dg, du, sums.finish(), end_gradient<T>(p, p.initial, initial, out, false),
                           end_gradient<T>(p, p.final, final, out, true));
  });
}

Tensor argmax(SLV_POTENTIALS) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    Bound<T> p(unary, transition, initial, final, lengths);
    Tensor out = p.empty(p.with({p.n}), ScalarType::Long), from = p.empty({p.items * p.n * p.k}, ScalarType::Int);
    run_argmax(p.chain, from.mutable_data_ptr<int>(), out.mutable_data_ptr<int64_t>(), p.stream);
    return out;
  });
}

Tensor sample(SLV_POTENTIALS, int64_t num_samples, int64_t seed) {
  STD_TORCH_CHECK(num_samples >= 0, "num_samples: expected a number >= 0, found ", num_samples);
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    Bound<T> p(unary, transition, initial, final, lengths);
    Tensor out = p.empty(p.with({p.n}, {num_samples}), ScalarType::Long);
    if (out.numel() == 0) return out;
    int64_t* states = out.mutable_data_ptr<int64_t>();
    ScaledRun<T> run(p, true);
    run.forward_kept();
    run_sample(p.chain, run.s, uint64_t(seed), num_samples, states, p.stream);
    each_range<T>(p, run.s.meta + 1, kMeta, false, 0, [&](const LogSpace<T>& l, double*, int64_t) {
      log_forward<T>(p.chain, l, nullptr, nullptr, p.stream);
      run_log_sample(p.chain, l, uint64_t(seed), num_samples, states, p.stream);
    });
    return out;
  });
}

}  // namespace

#if defined(SLV_EMULATE)
#define SLV_SCHEMA "Tensor unary, Tensor transition, Tensor? initial, Tensor? final, Tensor? lengths"
STABLE_TORCH_LIBRARY(structlv_emulated, m) {
  m.def("chain_log_partition(" SLV_SCHEMA ", bool as_double) -> Tensor");
  m.def("chain_inside(" SLV_SCHEMA ", bool as_double) -> (Tensor, Tensor)");
  m.def("chain_vjp(Tensor grad, Tensor chart, " SLV_SCHEMA ") -> (Tensor, Tensor, Tensor, Tensor)");
  m.def("chain_marginals(" SLV_SCHEMA ", bool? edges) -> (Tensor, Tensor)");
  m.def("chain_hvp(Tensor? grad, Tensor v_unary, Tensor v_transition, Tensor? v_initial, Tensor? v_final, " SLV_SCHEMA
        ") -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def("chain_argmax(" SLV_SCHEMA ") -> Tensor");
  m.def("chain_sample(" SLV_SCHEMA ", SymInt num_samples, SymInt seed) -> Tensor");
}
STABLE_TORCH_LIBRARY_IMPL(structlv_emulated, CPU, m) {
#else
STABLE_TORCH_LIBRARY_IMPL(structlv, CUDA, m) {
#endif
  m.impl("chain_log_partition", TORCH_BOX(&log_partition));
  m.impl("chain_inside", TORCH_BOX(&inside));
  m.impl("chain_vjp", TORCH_BOX(&vjp));
  m.impl("chain_marginals", TORCH_BOX(&marginals));
  m.impl("chain_hvp", TORCH_BOX(&hvp));
  m.impl("chain_argmax", TORCH_BOX(&argmax));
  m.impl("chain_sample", TORCH_BOX(&sample));
}

}  // namespace slv::cuda

#if !defined(SLV_EMULATE)
extern "C" __attribute__((visibility("default"))) const char* structlv_cuda_version() { return STRUCTLV_VERSION; }
#endif
