// The operators of filtering, and of what is drawn backwards from it: schema, shapes, the loop over items.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "ops/chain_run.h"

namespace slv {
namespace {

template <class T>
const ChainRelaxedKernels<T>& relaxed_kernels() {
  if constexpr (sizeof(T) == 4)
    return kernels().relaxed_f32;
  else
    return kernels().relaxed_f64;
}

#define SLV_POTENTIALS \
  const Tensor &unary, const Tensor &transition, MaybeTensor initial, MaybeTensor final, MaybeTensor lengths

template <class T>
Tensor filtered(const Bound<T>& p, const Chart<T>& chart) {
  Tensor out = p.empty(p.with({p.chain.n, p.chain.k}));
  run_filter(p.chain, chart, out.mutable_data_ptr<T>());
  return out;
}

Tensor filter(SLV_POTENTIALS) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    return filtered(Bound<T>(unary, transition, initial, final, lengths), Chart<T>());
  });
}

// With a chart for the backward pass; it is empty where every step has a transition of its own (that is log space).
std::tuple<Tensor, Tensor> filter_inside(SLV_POTENTIALS) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    Bound<T> p(unary, transition, initial, final, lengths);
    const Chain<T>& c = p.chain;
    Tensor data = p.empty_chart(c.per_step ? 0 : Chart<T>::size(c));
    Tensor out = filtered(p, c.per_step ? Chart<T>() : Chart<T>(data.mutable_data_ptr<T>(), c));
    return std::make_tuple(out, data);
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor> filter_vjp(const Tensor& grad, const Tensor& chart, SLV_POTENTIALS) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    Bound<T> p(unary, transition, initial, final, lengths);
    const Chain<T>& c = p.chain;
    check_sizes("grad", grad, shape_of(unary));
    STD_TORCH_CHECK(grad.scalar_type() == scalar_type<T>, "grad: its dtype differs from that of unary");
    const Tensor g = as_contiguous(grad);
    Tensor du = p.empty(p.with({c.n, c.k})), da = p.empty(shape_of(transition));
    T* unary_out = du.mutable_data_ptr<T>();
    run_filter_vjp(c, p.transition.count, c.per_step ? Chart<T>() : Chart<T>::of("chain_filter_inside", chart, c),
                   g.const_data_ptr<T>(), unary_out, da.mutable_data_ptr<T>());
    auto nothing = [](int64_t) -> const T* { return nullptr; };
    return std::make_tuple(du, da, end_gradient(p, p.initial, initial, unary_out, false),
                           sum_over_items<T>(p, p.final, final, c.k, nothing));
  });
}

// ---- relaxed backward sampling: a chain whose scores of states are `filtered` ---------------------------------------

#define SLV_FILTERED \
  const Tensor &filtered, const Tensor &transition, MaybeTensor final, MaybeTensor lengths, const Tensor &temperature

template <class T>
struct Relaxed : Bound<T> {
  std::vector<T> temperature;
  Relaxed(const Tensor& filtered, const Tensor& transition, const MaybeTensor& final, const MaybeTensor& lengths,
          const Tensor& heat)
      : Bound<T>(filtered, transition, std::nullopt, final, lengths) {
    check_sizes("temperature", heat, this->batch);
    STD_TORCH_CHECK(heat.scalar_type() == scalar_type<T>, "temperature: its dtype differs from that of unary");
    const Tensor x = as_contiguous(heat);
    temperature.assign(x.const_data_ptr<T>(), x.const_data_ptr<T>() + this->items);
  }
};

std::tuple<Tensor, Tensor> draw(SLV_FILTERED, int64_t num_samples, int64_t seed) {
  STD_TORCH_CHECK(num_samples >= 0, "num_samples: expected a number >= 0, found ", num_samples);
  return dispatch(filtered, [&](auto t) {
    using T = decltype(t);
    Relaxed<T> p(filtered, transition, final, lengths, temperature);
    const Chain<T>& c = p.chain;
    const int64_t edge = p.edge_size();
    Tensor z = p.empty(p.with({c.n}, {num_samples}), ScalarType::Long),
           soft = p.empty(p.with({c.n, c.k}, {num_samples}));
    std::vector<T> columns(p.transition.count * edge);
    if (z.numel() > 0)
      for (int64_t m = 0; m < p.transition.count; m++)
        relaxed_kernels<T>().columns(c.transition + m * edge, c.steps(), c.k, &columns[m * edge]);
    int64_t* states = z.mutable_data_ptr<int64_t>();
    T* out = soft.mutable_data_ptr<T>();
    const int64_t units = num_samples * c.batch;
    parallel_units(units, 40.0 * double(units) * double(c.n * c.k), [&](int64_t u) {
      const int64_t b = u % c.batch;
      relaxed_kernels<T>().sample(c, b, uint64_t(seed), u / c.batch, p.temperature[b],
                                  columns.data() + (c.matrix ? c.matrix[b] : 0) * edge, states + u * c.n,
                                  out + u * c.n * c.k);
    });
    return std::make_tuple(soft, z);
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor> draw_vjp(const Tensor& grad, const Tensor& states, const Tensor& soft,
                                                    SLV_FILTERED) {
  return dispatch(filtered, [&](auto t) {
    using T = decltype(t);
    Relaxed<T> p(filtered, transition, final, lengths, temperature);
    const Chain<T>& c = p.chain;
    const int64_t samples = samples_of("states", states, p.with({c.n}));
    for (const auto& [name, x] : {std::pair{"grad", grad}, std::pair{"relaxed", soft}}) {
      check_sizes(name, x, p.with({c.n, c.k}, {samples}));
      STD_TORCH_CHECK(x.scalar_type() == scalar_type<T>, name, ": its dtype differs from that of unary");
    }
    const Tensor g = as_contiguous(grad), z = as_contiguous(states), y = as_contiguous(soft);
    Tensor du = p.empty(p.with({c.n, c.k})), da = p.empty(shape_of(transition)), dt = p.empty(p.batch);
    T *unary = du.mutable_data_ptr<T>(), *heat = dt.mutable_data_ptr<T>();
    std::vector<double> last(p.final.count ? c.batch * c.k : 0);
    sum_edges(c, p.transition.count, c.per_step, da.mutable_data_ptr<T>(), [&](int64_t b, const EdgeSink<T>& sink) {
      std::vector<double> own(sink.direct ? p.edge_size() : 0);
      double total = 0;
      if (samples == 0) std::fill_n(unary + b * c.n * c.k, c.n * c.k, T(0));
      for (int64_t s = 0; s < samples; s++) {
        const int64_t at = (s * c.batch + b) * c.n;
        total += relaxed_kernels<T>().vjp(c, b, p.temperature[b], g.const_data_ptr<T>() + at * c.k,
                                          z.const_data_ptr<int64_t>() + at, y.const_data_ptr<T>() + at * c.k, s == 0,
                                          unary + b * c.n * c.k, sink.direct ? own.data() : sink.sum,
                                          last.empty() ? nullptr : &last[b * c.k]);
      }
      heat[b] = T(total);
      std::transform(own.begin(), own.end(), sink.direct, [](double x) { return T(x); });
    });
    std::vector<T> rounded(last.begin(), last.end());
    return std::make_tuple(du, da,
                           sum_over_items<T>(p, p.final, final, c.k, [&](int64_t b) { return &rounded[b * c.k]; }), dt);
  });
}

// The samples, relaxed and hard; for the backward pass, what filtering found, and its chart.
std::tuple<Tensor, Tensor, Tensor, Tensor> relaxed(SLV_POTENTIALS, const Tensor& temperature, int64_t num_samples,
                                                   int64_t seed) {
  const auto [filtered, chart] = filter_inside(unary, transition, initial, std::nullopt, lengths);
  const auto [soft, states] = draw(filtered, transition, final, lengths, temperature, num_samples, seed);
  return {soft, states, filtered, chart};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> relaxed_vjp(const Tensor& grad, const Tensor& states,
                                                               const Tensor& soft, const Tensor& filtered,
                                                               const Tensor& chart, SLV_POTENTIALS,
                                                               const Tensor& temperature) {
  const auto [d_filtered, edges, d_final, heat] =
      draw_vjp(grad, states, soft, filtered, transition, final, lengths, temperature);
  const auto [d_unary, more, d_initial, none] =
      filter_vjp(d_filtered, chart, unary, transition, initial, std::nullopt, lengths);
  Tensor d_transition = edges;
  dispatch(unary, [&](auto t) {
    using T = decltype(t);
    T* to = d_transition.mutable_data_ptr<T>();
    const T* from = more.template const_data_ptr<T>();
    std::transform(from, from + d_transition.numel(), to, to, [](T a, T b) { return a + b; });
  });
  return {d_unary, d_transition, d_initial, d_final, heat};
}

Tensor pairs(const Tensor& states) {
  STD_TORCH_CHECK(states.dim() >= 2, "states: expected (*b, n, k)");
  auto body = [&](auto t) {
    using T = decltype(t);
    const Shape shape = shape_of(states);
    const int64_t n = shape[shape.size() - 2], k = shape.back();
    Shape edge(shape.begin(), shape.end() - 2);
    const int64_t items = product(edge);
    edge.insert(edge.end(), {k, k});
    const Tensor z = as_contiguous(states);
    Tensor out = empty_tensor(edge, scalar_type<T>);
    const T* from = z.const_data_ptr<T>();
    T* to = out.mutable_data_ptr<T>();
    parallel_units(items, 2.0 * double(items) * double(n * k * k),
                   [&](int64_t b) { relaxed_kernels<T>().pairs(from + b * n * k, n, k, to + b * k * k); });
    return out;
  };
  return dispatch(states, body, "states");
}

}  // namespace

#define SLV_SCHEMA "Tensor unary, Tensor transition, Tensor? initial, Tensor? final, Tensor? lengths"

STABLE_TORCH_LIBRARY_FRAGMENT(structlv, m) {
  m.def("chain_filter(" SLV_SCHEMA ") -> Tensor");
  m.def("chain_filter_inside(" SLV_SCHEMA ") -> (Tensor, Tensor)");
  m.def("chain_filter_vjp(Tensor grad, Tensor chart, " SLV_SCHEMA ") -> (Tensor, Tensor, Tensor, Tensor)");
  m.def("chain_relaxed(" SLV_SCHEMA
        ", Tensor temperature, SymInt num_samples, SymInt seed) -> (Tensor, Tensor, Tensor, Tensor)");
  m.def("chain_relaxed_vjp(Tensor grad, Tensor states, Tensor relaxed, Tensor filtered, Tensor chart, " SLV_SCHEMA
        ", Tensor temperature) -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def("chain_pairs(Tensor states) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(structlv, CPU, m) {
  m.impl("chain_filter", TORCH_BOX(&filter));
  m.impl("chain_filter_inside", TORCH_BOX(&filter_inside));
  m.impl("chain_filter_vjp", TORCH_BOX(&filter_vjp));
  m.impl("chain_relaxed", TORCH_BOX(&relaxed));
  m.impl("chain_relaxed_vjp", TORCH_BOX(&relaxed_vjp));
  m.impl("chain_pairs", TORCH_BOX(&pairs));
}

}  // namespace slv
