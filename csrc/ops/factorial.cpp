// The operators of the factorial chain: schema, shapes. The loops over items are in factorial_run.h, the recursions in
// csrc/kernels. States of events are joint ones.
#include <torch/csrc/stable/library.h>

#include <atomic>
#include <tuple>

#include "ops/factorial_run.h"

namespace slv {
namespace {

#define SLV_POTENTIALS \
  const Tensor &unary, const Tensor &transition, MaybeTensor initial, const Tensor &sizes, MaybeTensor lengths
#define SLV_BIND                                                   \
  using T = decltype(t);                                           \
  BoundFactorial<T> p(unary, transition, initial, sizes, lengths); \
  const Factorial<T>& c = p.chain

using Gradients = std::tuple<Tensor, Tensor, Tensor>;  // of unary, transition, initial

// The gradient of initial: that of unary at the first step, summed over the states of the other chains and the items of
// each row.
template <class T>
Tensor initial_gradient(const BoundFactorial<T>& p, const MaybeTensor& like, const T* unary) {
  const Factorial<T>& c = p.chain;
  std::vector<double> sum(c.ends);
  std::vector<T> row(c.ends);
  return sum_over_items<T>(p, p.initial, like, c.ends, [&](int64_t b) -> const T* {
    if (c.len(b) == 0) return nullptr;
    std::fill(sum.begin(), sum.end(), 0.0);
    const T* mu = unary + b * c.n * c.states;
    int64_t inner = c.states;
    c.each_chain([&](int64_t, int64_t k, int64_t, int64_t end) {
      const int64_t block = inner;
      inner /= k;
      for (int64_t o = 0; o < c.states; o += block)
        for (int64_t i = 0; i < k; i++)
          for (int64_t q = 0; q < inner; q++) sum[end + i] += double(mu[o + i * inner + q]);
    });
    std::transform(sum.begin(), sum.end(), row.begin(), [](double x) { return T(x); });
    return row.data();
  });
}

Tensor log_partition(SLV_POTENTIALS, bool as_double) {
  return dispatch(unary, [&](auto t) {
    SLV_BIND;
    return log_partitions<T>(p, as_double, [&](double* log_z) { run_inside(c, FactorialChart<T>(), log_z); });
  });
}

std::tuple<Tensor, Tensor> inside(SLV_POTENTIALS, bool as_double) {
  return dispatch(unary, [&](auto t) {
    SLV_BIND;
    Tensor chart = p.empty_chart(factorial_chart_size(c));
    const FactorialChart<T> parts(chart.template mutable_data_ptr<T>(), c);
    Tensor log_z = log_partitions<T>(p, as_double, [&](double* out) { run_inside(c, parts, out); });
    return std::make_tuple(log_z, chart);
  });
}

Gradients vjp(const Tensor& grad, const Tensor& chart, SLV_POTENTIALS) {
  return dispatch(unary, [&](auto t) {
    SLV_BIND;
    STD_TORCH_CHECK(
        chart.scalar_type() == scalar_type<T> && chart.is_contiguous() && chart.numel() == factorial_chart_size(c),
        "chart: expected what factorial_inside returned for these potentials");
    const std::vector<double> weight = weights_of<T>(grad, p.batch);
    Tensor du = p.empty(p.with({c.n, c.states})), da = p.empty(shape_of(transition));
    T* unary_out = du.template mutable_data_ptr<T>();
    run_adjoint(c, p.transition, FactorialChart<T>(const_cast<T*>(chart.template const_data_ptr<T>()), c),
                weight.data(), unary_out, da.template mutable_data_ptr<T>());
    return Gradients(du, da, initial_gradient(p, initial, unary_out));
  });
}

// edges: whether the transitions are counted step by step
std::tuple<Tensor, Tensor> marginals(SLV_POTENTIALS, bool edges) {
  return dispatch(unary, [&](auto t) {
    SLV_BIND;
    Tensor mu = p.empty(p.with({c.n, c.states}));
    Tensor ma = p.empty(p.with(edges ? Shape{std::max<int64_t>(c.n - 1, 0), c.edges} : Shape{c.edges}));
    run_marginals(c, edges, mu.template mutable_data_ptr<T>(), ma.template mutable_data_ptr<T>());
    return std::make_tuple(mu, ma);
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor> hvp(MaybeTensor grad, const Tensor& v_unary, const Tensor& v_transition,
                                               MaybeTensor v_initial, SLV_POTENTIALS) {
  return dispatch(unary, [&](auto t) {
    SLV_BIND;
    check_sizes("v_unary", v_unary, shape_of(unary));
    STD_TORCH_CHECK(v_unary.scalar_type() == scalar_type<T>, "v_unary: its dtype differs from that of unary");
    const BoundFactorial<T> v(v_unary, v_transition, v_initial, sizes, lengths, true);
    const std::vector<double> weight = grad ? weights_of<T>(*grad, p.batch) : std::vector<double>(c.batch, 1.0);
    Tensor dg = p.empty(p.batch), du = p.empty(p.with({c.n, c.states})), da = p.empty(shape_of(transition));
    T *unary_out = du.template mutable_data_ptr<T>(), *mean = dg.template mutable_data_ptr<T>();
    const std::vector<int64_t> order = longest_first(c.batch, [&](int64_t b) { return c.len(b); });
    sum_counts(c, p.transition, order, da.template mutable_data_ptr<T>(), [&](int64_t first, int64_t last, auto&& row) {
      const double work = 8 * factorial_log_work(c) * double(last - first) / double(c.batch);
      parallel_units(last - first, work, [&](int64_t u) {
        const int64_t b = order[first + u];
        std::vector<double> sum(c.edges);
        const EdgeSink<T> sink{nullptr, sum.data(), 0};
        mean[b] = T(factorial_log<T>().hvp(c, b, weight[b], v.chain, unary_out + b * c.n * c.states, sink));
        std::transform(sum.begin(), sum.end(), row(first + u), [](double x) { return T(x); });
      });
    });
    return std::make_tuple(dg, du, da, initial_gradient(p, initial, unary_out));
  });
}

Tensor argmax(SLV_POTENTIALS) {
  return dispatch(unary, [&](auto t) {
    SLV_BIND;
    Tensor out = p.empty(p.with({c.n}), ScalarType::Long);
    run_argmax(c, out.template mutable_data_ptr<int64_t>());
    return out;
  });
}

Tensor sample(SLV_POTENTIALS, int64_t num_samples, int64_t seed) {
  STD_TORCH_CHECK(num_samples >= 0, "num_samples: expected a number >= 0, found ", num_samples);
  return dispatch(unary, [&](auto t) {
    SLV_BIND;
    Tensor out = p.empty(p.with({c.n}, {num_samples}), ScalarType::Long);
    if (out.numel() > 0) run_sample(c, uint64_t(seed), num_samples, out.template mutable_data_ptr<int64_t>());
    return out;
  });
}

// ---- scores of given structures; linear in the potentials -------------------------------------------------

// Calls unary(t, state), edge(place among P), initial(place among Q) for the parts of item b in `z`; false where a
// state is out of range.
template <class T, class U, class E, class I>
bool each_part(const Factorial<T>& c, int64_t b, const int64_t* z, U&& unary, E&& edge, I&& initial) {
  const int64_t len = c.len(b);
  for (int64_t t = 0; t < len; t++)
    if (z[t] < 0 || z[t] >= c.states) return false;
  for (int64_t t = 0; t < len; t++) {
    unary(t, z[t]);
    int64_t inner = c.states;
    c.each_chain([&](int64_t, int64_t k, int64_t first_edge, int64_t end) {
      inner /= k;
      const int64_t state = z[t] / inner % k;
      if (t == 0) initial(end + state);
      if (t + 1 < len) edge(first_edge + state * k + z[t + 1] / inner % k);
    });
  }
  return true;
}

Tensor score(const Tensor& states, SLV_POTENTIALS) {
  return dispatch(unary, [&](auto t) {
    SLV_BIND;
    const int64_t samples = samples_of("states", states, p.with({c.n}));
    const Tensor z = as_contiguous(states);
    Tensor out = p.empty(samples_shape(states, 1), ScalarType::Double);
    double* scores = out.template mutable_data_ptr<double>();
    const int64_t* path = z.template const_data_ptr<int64_t>();
    parallel_units(samples * c.batch, 10.0 * double(samples * c.batch * c.n * c.m), [&](int64_t i) {
      const int64_t b = i % c.batch;
      const T *u = c.unary + b * c.n * c.states, *a = c.transition_of(b), *first = c.initial_of(b);
      double sum = 0;
      const bool ok = each_part(
          c, b, path + i * c.n, [&](int64_t t, int64_t s) { sum += double(u[t * c.states + s]); },
          [&](int64_t e) { sum += double(a[e]); }, [&](int64_t q) { sum += first ? double(first[q]) : 0.0; });
      scores[i] = ok ? sum : -std::numeric_limits<double>::infinity();
    });
    return out;
  });
}

Gradients score_vjp(const Tensor& grad, const Tensor& states, SLV_POTENTIALS) {
  return dispatch(unary, [&](auto t) {
    SLV_BIND;
    const int64_t samples = samples_of("states", states, p.with({c.n}));
    check_sizes("grad", grad, samples_shape(states, 1));
    const Tensor z = as_contiguous(states);
    const Tensor g = torch::stable::contiguous(torch::stable::to(grad, std::optional<ScalarType>(ScalarType::Double)));
    Tensor du = p.empty(p.with({c.n, c.states})), da = p.empty(shape_of(transition));
    Tensor di = p.empty(initial ? shape_of(*initial) : Shape{0});
    T* unary_out = du.template mutable_data_ptr<T>();
    std::fill_n(unary_out, c.batch * c.n * c.states, T(0));
    std::vector<double> edges(p.transition.count * c.edges), ends(initial ? p.initial.count * c.ends : 0);
    for (int64_t i = 0; i < samples * c.batch; i++) {
      const int64_t b = i % c.batch;
      const double w = g.template const_data_ptr<double>()[i];
      T* u = unary_out + b * c.n * c.states;
      double* edge = edges.data() + p.transition.row(b) * c.edges;
      double* end = ends.empty() ? nullptr : ends.data() + p.initial.row(b) * c.ends;
      each_part(
          c, b, z.template const_data_ptr<int64_t>() + i * c.n,
          [&](int64_t t, int64_t s) { u[t * c.states + s] += T(w); }, [&](int64_t e) { edge[e] += w; },
          [&](int64_t q) {
            if (end) end[q] += w;
          });
    }
    auto narrow = [](const std::vector<double>& from, T* to) {
      std::transform(from.begin(), from.end(), to, [](double x) { return T(x); });
    };
    narrow(edges, da.template mutable_data_ptr<T>());
    narrow(ends, di.template mutable_data_ptr<T>());
    return Gradients(du, da, di);
  });
}

// ---- NaN among the potentials; padding does not count -------------------------------------------------------

bool has_nan(SLV_POTENTIALS) {
  return dispatch(unary, [&](auto t) {
    SLV_BIND;
    if (p.initial.count && any_nan(c.initial, p.initial.count * c.ends)) return true;
    if (any_nan(c.transition, p.transition.count * c.edges)) return true;
    std::atomic<bool> found{false};
    parallel_units(c.batch, double(c.batch) * double(c.n * c.states), [&](int64_t b) {
      if (any_nan(c.unary + b * c.n * c.states, c.len(b) * c.states)) found = true;
    });
    return found.load();
  });
}

}  // namespace

#define SLV_SCHEMA "Tensor unary, Tensor transition, Tensor? initial, Tensor sizes, Tensor? lengths"

STABLE_TORCH_LIBRARY_FRAGMENT(structlv, m) {
  m.def("factorial_log_partition(" SLV_SCHEMA ", bool as_double) -> Tensor");
  m.def("factorial_inside(" SLV_SCHEMA ", bool as_double) -> (Tensor, Tensor)");
  m.def("factorial_vjp(Tensor grad, Tensor chart, " SLV_SCHEMA ") -> (Tensor, Tensor, Tensor)");
  m.def("factorial_marginals(" SLV_SCHEMA ", bool edges) -> (Tensor, Tensor)");
  m.def("factorial_hvp(Tensor? grad, Tensor v_unary, Tensor v_transition, Tensor? v_initial, " SLV_SCHEMA
        ") -> (Tensor, Tensor, Tensor, Tensor)");
  m.def("factorial_argmax(" SLV_SCHEMA ") -> Tensor");
  m.def("factorial_sample(" SLV_SCHEMA ", SymInt num_samples, SymInt seed) -> Tensor");
  m.def("factorial_score(Tensor states, " SLV_SCHEMA ") -> Tensor");
  m.def("factorial_score_vjp(Tensor grad, Tensor states, " SLV_SCHEMA ") -> (Tensor, Tensor, Tensor)");
  m.def("factorial_has_nan(" SLV_SCHEMA ") -> bool");
}

STABLE_TORCH_LIBRARY_IMPL(structlv, CPU, m) {
  m.impl("factorial_log_partition", TORCH_BOX(&log_partition));
  m.impl("factorial_inside", TORCH_BOX(&inside));
  m.impl("factorial_vjp", TORCH_BOX(&vjp));
  m.impl("factorial_marginals", TORCH_BOX(&marginals));
  m.impl("factorial_hvp", TORCH_BOX(&hvp));
  m.impl("factorial_argmax", TORCH_BOX(&argmax));
  m.impl("factorial_sample", TORCH_BOX(&sample));
  m.impl("factorial_score", TORCH_BOX(&score));
  m.impl("factorial_score_vjp", TORCH_BOX(&score_vjp));
  m.impl("factorial_has_nan", TORCH_BOX(&has_nan));
}

}  // namespace slv
