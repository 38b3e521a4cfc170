// The operators of filtering, and of what is drawn backwards from it, for tensors on a GPU: the same schemas as
// csrc/ops/chain_filter.cpp. (Pairs of soft states are a product in torch there.)
#include "cuda/chain_filter.h"

#include <torch/csrc/stable/library.h>

#include <tuple>

#include "cuda/chain_run.h"
#include "cuda/noise.h"

namespace slv::cuda {
namespace {

using FourTensors = std::tuple<Tensor, Tensor, Tensor, Tensor>;

#define SLV_POTENTIALS \
  const Tensor &unary, const Tensor &transition, MaybeTensor initial, MaybeTensor final, MaybeTensor lengths

// Final scores are checked, but filtering does not look ahead. Where every step has a transition of its own no chart is
// kept, as on the CPU: the backward pass makes it again.
template <class T>
Tensor filter_pass(Bound<T>& p, T* chart) {
  p.chain.final = nullptr;
  Tensor out = p.empty(p.with({p.n, p.k}));
  T* rows = out.mutable_data_ptr<T>();
  ScaledRun<T> run(p);
  chart ? run.forward(chart) : run.forward_kept();
  run_filter(p.chain, run.s, rows, p.stream);
  each_range<T>(p, run.s.meta + 1, kMeta, false, 0, [&](const LogSpace<T>& l, double*, int64_t) {
    log_forward<T>(p.chain, l, nullptr, nullptr, p.stream);
    log_filter<T>(p.chain, l, nullptr, rows, p.stream);
  });
  return out;
}

Tensor filter(SLV_POTENTIALS) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    Bound<T> p(unary, transition, initial, final, lengths);
    return filter_pass<T>(p, nullptr);
  });
}

std::tuple<Tensor, Tensor> filter_inside(SLV_POTENTIALS) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    Bound<T> p(unary, transition, initial, final, lengths);
    Tensor chart = p.empty({p.chain.per_step ? 0 : ScaledRun<T>::chart_size(p)});
    Tensor out = filter_pass<T>(p, p.chain.per_step ? nullptr : chart.mutable_data_ptr<T>());
    return std::make_tuple(out, chart);
  });
}

// The gradient of unary into `out`, the weights of edges into `sums`.
template <class T>
void filter_adjoint(Bound<T>& p, const Tensor& chart, const T* grad, T* out, const EdgeSums<T>& sums) {
  p.chain.final = nullptr;
  const Chain<T>& c = p.chain;
  const int64_t size = c.per_step ? 0 : ScaledRun<T>::chart_size(p);
  STD_TORCH_CHECK(chart.scalar_type() == scalar_type<T> && chart.is_contiguous() && chart.numel() == size,
                  "chart: expected what chain_filter_inside returned for these potentials");
  p.check_device("chart", chart);
  ScaledRun<T> run(p);
  if (c.per_step) {
    run.forward_kept();
    run_filter<T>(c, run.s, nullptr, p.stream);
  } else {
    run.bind_chart(const_cast<T*>(chart.const_data_ptr<T>()));
  }
  Adjoint<T> a{nullptr, run.take(p.items * p.n * padded<T>(c.k)), out, run.take(p.items)};
  filter_cotangent(c, run.s, grad, a.g, p.stream);
  filter_backward(c, run.s, a, p.stream);
  edges(c, run.s, a, sums.edges, p.stream);
  each_range<T>(p, a.redo, 1, true, 0, [&](const LogSpace<T>& l, double*, int64_t) {
    log_forward<T>(c, l, nullptr, nullptr, p.stream);
    log_filter<T>(c, l, grad, nullptr, p.stream);
    log_filter_backward(c, l, out, p.stream);
    log_edges<T>(c, l, sums.edges, nullptr, p.stream);
  });
}
template <class T>
void check_like(const Bound<T>& p, const char* name, const Tensor& x, const Shape& shape) {
  check_sizes(name, x, shape);
  STD_TORCH_CHECK(x.scalar_type() == scalar_type<T>, name, ": its dtype differs from that of unary");
  p.check_device(name, x);
}

FourTensors filter_vjp(const Tensor& grad, const Tensor& chart, SLV_POTENTIALS) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    Bound<T> p(unary, transition, initial, final, lengths);
    check_like(p, "grad", grad, shape_of(unary));
    const Tensor g = as_contiguous(grad);
    Tensor du = p.empty(p.with({p.n, p.k})), df = p.empty(final ? shape_of(*final) : Shape{0});
    T* out = du.mutable_data_ptr<T>();
    EdgeSums<T> sums(p, p.transition.rows, p.chain.per_step, shape_of(transition));
    filter_adjoint(p, chart, g.const_data_ptr<T>(), out, sums);
    torch::stable::zero_(df);
    return std::make_tuple(du, sums.finish(), end_gradient<T>(p, p.initial, initial, out, false), df);
  });
}

// ---- relaxed backward sampling: a chain whose scores of states are filtered -----------------------------------------

template <class T>
struct BoundRelaxed : Bound<T> {
  Tensor temperature;
  BoundRelaxed(const Tensor& filtered, const Tensor& transition, const MaybeTensor& final, const MaybeTensor& lengths,
               const Tensor& heat)
      : Bound<T>(filtered, transition, std::nullopt, final, lengths), temperature(as_contiguous(heat)) {
    check_like(*this, "temperature", heat, this->batch);
  }
  Relaxed<T> samples(int64_t count, const Tensor& states, const Tensor& weights) const {
    return {temperature.const_data_ptr<T>(), count, const_cast<int64_t*>(states.const_data_ptr<int64_t>()),
            const_cast<T*>(weights.const_data_ptr<T>())};
  }
};

// The samples, relaxed and hard; for the backward pass, what filtering found, and its chart.
FourTensors relaxed(SLV_POTENTIALS, const Tensor& temperature, int64_t num_samples, int64_t seed) {
  STD_TORCH_CHECK(num_samples >= 0, "num_samples: expected a number >= 0, found ", num_samples);
  const auto [found, chart] = filter_inside(unary, transition, initial, std::nullopt, lengths);
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    const BoundRelaxed<T> p(found, transition, final, lengths, temperature);
    Tensor z = p.empty(p.with({p.n}, {num_samples}), ScalarType::Long),
           soft = p.empty(p.with({p.n, p.k}, {num_samples}));
    if (z.numel() == 0) return FourTensors(soft, z, found, chart);
    Tensor columns;  // a warp reads one of them at each step
    if (!p.chain.per_step) columns = torch::stable::contiguous(torch::stable::transpose(p.transition.data, -2, -1));
    const int64_t size = p.n * p.k;
    run_gumbel(Noise{uint64_t(seed), p.items, num_samples, size, size, 0, 1}, soft.mutable_data_ptr<T>(), p.stream);
    run_relaxed(p.chain, p.chain.per_step ? nullptr : columns.const_data_ptr<T>(), p.samples(num_samples, z, soft),
                p.stream);
    return FourTensors(soft, z, found, chart);
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> relaxed_vjp(const Tensor& grad, const Tensor& states,
                                                               const Tensor& soft, const Tensor& filtered,
                                                               const Tensor& chart, SLV_POTENTIALS,
                                                               const Tensor& temperature) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    Bound<T> p(unary, transition, initial, std::nullopt, lengths);
    const BoundRelaxed<T> q(filtered, transition, final, lengths, temperature);
    check_sizes("filtered", filtered, shape_of(unary));
    STD_TORCH_CHECK(states.scalar_type() == ScalarType::Long && states.dim() > 0, "states: expected dtype int64");
    const int64_t count = shape_of(states)[0];
    check_sizes("states", states, p.with({p.n}, {count}));
    p.check_device("states", states);
    check_like(p, "grad", grad, p.with({p.n, p.k}, {count}));
    check_like(p, "relaxed", soft, p.with({p.n, p.k}, {count}));
    const Tensor g = as_contiguous(grad), z = as_contiguous(states), y = as_contiguous(soft);

    Tensor change = p.empty(shape_of(grad)), d_filtered = p.empty(shape_of(unary)), du = p.empty(shape_of(unary));
    Tensor heat = p.empty({p.items, p.n}, ScalarType::Double), dt = p.empty(p.batch);
    T* scores = d_filtered.mutable_data_ptr<T>();
    const Relaxed<T> r = q.samples(count, z, y);
    const RelaxedAdjoint<T> a{g.const_data_ptr<T>(), change.mutable_data_ptr<T>(), scores,
                              heat.mutable_data_ptr<double>(), dt.mutable_data_ptr<T>()};
    relaxed_backward(q.chain, r, a, p.stream);

    EdgeSums<T> sums(p, p.transition.rows, p.chain.per_step, shape_of(transition));
    T* out = du.mutable_data_ptr<T>();
    filter_adjoint<T>(p, chart, scores, out, sums);
    relaxed_edges(q.chain, r, a, sums.edges, p.stream);
    return std::make_tuple(du, sums.finish(), end_gradient<T>(p, p.initial, initial, out, false),
                           end_gradient<T>(q, q.final, final, scores, true), dt);
  });
}

}  // namespace

#if defined(SLV_EMULATE)
#define SLV_SCHEMA "Tensor unary, Tensor transition, Tensor? initial, Tensor? final, Tensor? lengths"
STABLE_TORCH_LIBRARY_FRAGMENT(structlv_emulated, m) {
  m.def("chain_filter(" SLV_SCHEMA ") -> Tensor");
  m.def("chain_filter_inside(" SLV_SCHEMA ") -> (Tensor, Tensor)");
  m.def("chain_filter_vjp(Tensor grad, Tensor chart, " SLV_SCHEMA ") -> (Tensor, Tensor, Tensor, Tensor)");
  m.def("chain_relaxed(" SLV_SCHEMA
        ", Tensor temperature, SymInt num_samples, SymInt seed) -> (Tensor, Tensor, Tensor, Tensor)");
  m.def("chain_relaxed_vjp(Tensor grad, Tensor states, Tensor relaxed, Tensor filtered, Tensor chart, " SLV_SCHEMA
        ", Tensor temperature) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
}
STABLE_TORCH_LIBRARY_IMPL(structlv_emulated, CPU, m) {
#else
STABLE_TORCH_LIBRARY_IMPL(structlv, CUDA, m) {
#endif
  m.impl("chain_filter", TORCH_BOX(&filter));
  m.impl("chain_filter_inside", TORCH_BOX(&filter_inside));
  m.impl("chain_filter_vjp", TORCH_BOX(&filter_vjp));
  m.impl("chain_relaxed", TORCH_BOX(&relaxed));
  m.impl("chain_relaxed_vjp", TORCH_BOX(&relaxed_vjp));
}

}  // namespace slv::cuda
