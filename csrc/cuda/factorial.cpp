// The operators of the factorial chain for tensors on a GPU: the same schemas as csrc/ops/factorial.cpp, `sizes` being
// on the CPU. Every launch goes to torch's current stream and nothing waits for a result.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "cuda/factorial_run.h"

namespace slv::cuda {
namespace {

#define SLV_POTENTIALS \
  const Tensor &unary, const Tensor &transition, MaybeTensor initial, const Tensor &sizes, MaybeTensor lengths

Tensor log_partition(SLV_POTENTIALS, bool as_double) {
  return dispatch(unary, [&](auto t) {
    BoundFactorial<decltype(t)> p(unary, transition, initial, sizes, lengths);
    return log_partitions<decltype(t)>(p, nullptr, as_double);
  });
}

std::tuple<Tensor, Tensor> inside(SLV_POTENTIALS, bool as_double) {
  return dispatch(unary, [&](auto t) {
    BoundFactorial<decltype(t)> p(unary, transition, initial, sizes, lengths);
    Tensor chart = p.empty({ScaledFactorial<decltype(t)>::chart_size(p)});
    return std::make_tuple(log_partitions(p, chart.template mutable_data_ptr<decltype(t)>(), as_double), chart);
  });
}

std::tuple<Tensor, Tensor, Tensor> vjp(const Tensor& grad, const Tensor& chart, SLV_POTENTIALS) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    BoundFactorial<T> p(unary, transition, initial, sizes, lengths);
    STD_TORCH_CHECK(chart.scalar_type() == scalar_type<T> && chart.is_contiguous() &&
                        chart.numel() == ScaledFactorial<T>::chart_size(p),
                    "chart: expected what factorial_inside returned for these potentials");
    p.check_device("chart", chart);
    const Tensor weight = p.weights(grad);
    Tensor du = p.empty(p.with({p.n, p.k})), da = p.empty(shape_of(transition));
    T* out = du.mutable_data_ptr<T>();
    ScaledFactorial<T> run(p);
    run.bind_chart(const_cast<T*>(chart.const_data_ptr<T>()));
    backward_pass<T>(run, weight.const_data_ptr<double>(), out, nullptr, p.transition.rows, da.mutable_data_ptr<T>());
    return std::make_tuple(du, da, initial_gradient<T>(p, initial, out));
  });
}

// edges: whether the transitions are counted step by step
std::tuple<Tensor, Tensor> marginals(SLV_POTENTIALS, bool edges) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    BoundFactorial<T> p(unary, transition, initial, sizes, lengths);
    Tensor mu = p.empty(p.with({p.n, p.k}));
    Tensor ma = p.empty(p.with(edges ? Shape{std::max<int64_t>(p.n - 1, 0), p.c.edges} : Shape{p.c.edges}));
    T* out = ma.mutable_data_ptr<T>();
    ScaledFactorial<T> run(p);
    run.forward_kept();
    backward_pass<T>(run, nullptr, mu.mutable_data_ptr<T>(), edges ? out : nullptr, row_map(p.batch, p.batch),
                     edges ? nullptr : out);
    return std::make_tuple(mu, ma);
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor> hvp(MaybeTensor grad, const Tensor& v_unary, const Tensor& v_transition,
                                               MaybeTensor v_initial, SLV_POTENTIALS) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    BoundFactorial<T> p(unary, transition, initial, sizes, lengths);
    check_sizes("v_unary", v_unary, shape_of(unary));
    STD_TORCH_CHECK(v_unary.scalar_type() == scalar_type<T>, "v_unary: its dtype differs from that of unary");
    const BoundFactorial<T> v(v_unary, v_transition, v_initial, sizes, lengths, true);
    const Tensor weight = grad ? p.weights(*grad) : Tensor();
    Tensor dg = p.empty(p.batch), du = p.empty(p.with({p.n, p.k})), da = p.empty(shape_of(transition));
    T* out = du.mutable_data_ptr<T>();
    tangent_pass<T>(p, v, grad ? weight.const_data_ptr<double>() : nullptr, dg.mutable_data_ptr<T>(), out,
                    da.mutable_data_ptr<T>());
    return std::make_tuple(dg, du, da, initial_gradient<T>(p, initial, out));
  });
}

Tensor argmax(SLV_POTENTIALS) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    BoundFactorial<T> p(unary, transition, initial, sizes, lengths);
    Tensor out = p.empty(p.with({p.n}), ScalarType::Long);
    const int64_t spill = factorial_argmax_spill(p.c);
    each_range<T>(p, p.alphas() + spill, [&](int64_t first, int64_t count, T* memory) {
      run_argmax(p.c, first, count, memory, spill ? memory + count * p.alphas() : nullptr,
                 out.mutable_data_ptr<int64_t>(), p.stream);
    });
    return out;
  });
}

Tensor sample(SLV_POTENTIALS, int64_t num_samples, int64_t seed) {
  STD_TORCH_CHECK(num_samples >= 0, "num_samples: expected a number >= 0, found ", num_samples);
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    BoundFactorial<T> p(unary, transition, initial, sizes, lengths);
    Tensor out = p.empty(p.with({p.n}, {num_samples}), ScalarType::Long);
    if (out.numel() == 0) return out;
    int64_t* states = out.mutable_data_ptr<int64_t>();
    ScaledFactorial<T> run(p);
    run.forward_kept();
    run_sample(p.c, run.s, uint64_t(seed), num_samples, states, p.stream);
    each_range<double>(p, sweep_size(p, 0), [&](int64_t first, int64_t count, double* memory) {
      run_log_sample(p.c, sweep(p, first, count, memory, 0, run.s.redo), uint64_t(seed), num_samples, states, p.stream);
    });
    return out;
  });
}

}  // namespace

#if defined(SLV_EMULATE)
#define SLV_SCHEMA "Tensor unary, Tensor transition, Tensor? initial, Tensor sizes, Tensor? lengths"
STABLE_TORCH_LIBRARY_FRAGMENT(structlv_emulated, m) {
  m.def("factorial_log_partition(" SLV_SCHEMA ", bool as_double) -> Tensor");
  m.def("factorial_inside(" SLV_SCHEMA ", bool as_double) -> (Tensor, Tensor)");
  m.def("factorial_vjp(Tensor grad, Tensor chart, " SLV_SCHEMA ") -> (Tensor, Tensor, Tensor)");
  m.def("factorial_marginals(" SLV_SCHEMA ", bool edges) -> (Tensor, Tensor)");
  m.def("factorial_hvp(Tensor? grad, Tensor v_unary, Tensor v_transition, Tensor? v_initial, " SLV_SCHEMA
        ") -> (Tensor, Tensor, Tensor, Tensor)");
  m.def("factorial_argmax(" SLV_SCHEMA ") -> Tensor");
  m.def("factorial_sample(" SLV_SCHEMA ", SymInt num_samples, SymInt seed) -> Tensor");
}
STABLE_TORCH_LIBRARY_IMPL(structlv_emulated, CPU, m) {
#else
STABLE_TORCH_LIBRARY_IMPL(structlv, CUDA, m) {
#endif
  m.impl("factorial_log_partition", TORCH_BOX(&log_partition));
  m.impl("factorial_inside", TORCH_BOX(&inside));
  m.impl("factorial_vjp", TORCH_BOX(&vjp));
  m.impl("factorial_marginals", TORCH_BOX(&marginals));
  m.impl("factorial_hvp", TORCH_BOX(&hvp));
  m.impl("factorial_argmax", TORCH_BOX(&argmax));
  m.impl("factorial_sample", TORCH_BOX(&sample));
}

}  // namespace slv::cuda
