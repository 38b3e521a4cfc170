// The operators of the chain: schema, shapes, the loop over items. The recursions are in csrc/kernels.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "ops/chain_run.h"

namespace slv {
namespace {

// ---- operators -------------------------------------------------------------------------------------------

#define SLV_POTENTIALS \
  const Tensor &unary, const Tensor &transition, MaybeTensor initial, MaybeTensor final, MaybeTensor lengths

template <class T>
Tensor inside_pass(const Bound<T>& p, const Chart<T>& chart, bool as_double) {
  return log_partitions<T>(p, as_double, [&](double* log_z) { run_inside(p.chain, chart, log_z); });
}

Tensor log_partition(SLV_POTENTIALS, bool as_double) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    Bound<T> p(unary, transition, initial, final, lengths);
    return inside_pass(p, Chart<T>(), as_double);
  });
}

std::tuple<Tensor, Tensor> inside(SLV_POTENTIALS, bool as_double) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    Bound<T> p(unary, transition, initial, final, lengths);
    Tensor data = p.empty_chart(Chart<T>::size(p.chain));
    Chart<T> chart(data.mutable_data_ptr<T>(), p.chain);
    return std::make_tuple(inside_pass(p, chart, as_double), data);
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor> vjp(const Tensor& grad, const Tensor& chart, SLV_POTENTIALS) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    Bound<T> p(unary, transition, initial, final, lengths);
    const Chain<T>& c = p.chain;
    const std::vector<double> weight = weights_of<T>(grad, p.batch);
    Tensor du = p.empty(p.with({c.n, c.k})), da = p.empty(shape_of(transition));
    T* unary_out = du.mutable_data_ptr<T>();
    run_adjoint(c, p.transition.count, Chart<T>::of("chain_inside", chart, c), weight.data(), unary_out,
                da.mutable_data_ptr<T>());
    return std::make_tuple(du, da, end_gradient(p, p.initial, initial, unary_out, false),
                           end_gradient(p, p.final, final, unary_out, true));
  });
}

// edges: whether they are per step in any case; without a value there are none, (*b, 0, 0)
std::tuple<Tensor, Tensor> marginals(SLV_POTENTIALS, std::optional<bool> edges) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    Bound<T> p(unary, transition, initial, final, lengths);
    const Chain<T>& c = p.chain;
    const bool per_step = edges.value_or(false) || c.per_step;
    Tensor mu = p.empty(p.with({c.n, c.k}));
    Tensor ma = p.empty(p.with(edges ? edge_tail(per_step, c.n, c.k) : Shape{0, 0}));
    run_marginals(c, per_step, mu.mutable_data_ptr<T>(), edges ? ma.mutable_data_ptr<T>() : nullptr);
    return std::make_tuple(mu, ma);
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> hvp(MaybeTensor grad, const Tensor& v_unary,
                                                       const Tensor& v_transition, MaybeTensor v_initial,
                                                       MaybeTensor v_final, SLV_POTENTIALS) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    Bound<T> p(unary, transition, initial, final, lengths), v(v_unary, v_transition, v_initial, v_final, lengths);
    const Chain<T>& c = p.chain;
    check_sizes("v_unary", v_unary, shape_of(unary));
    const std::vector<double> weight = grad ? weights_of<T>(*grad, p.batch) : std::vector<double>(c.batch, 1.0);
    Direction<T> d{
        v.chain.unary,  v.chain.transition,  v.chain.initial,  v.chain.final, v.chain.per_step ? c.k * c.k : 0,
        v.chain.matrix, v.chain.initial_row, v.chain.final_row};
    Tensor dg = p.empty(p.batch), du = p.empty(p.with({c.n, c.k})), da = p.empty(shape_of(transition));
    T *unary_out = du.mutable_data_ptr<T>(), *mean = dg.mutable_data_ptr<T>();
    run_hvp(c, p.transition.count, d, weight.data(), mean, unary_out, da.mutable_data_ptr<T>());
    return std::make_tuple(dg, du, da, end_gradient(p, p.initial, initial, unary_out, false),
                           end_gradient(p, p.final, final, unary_out, true));
  });
}

Tensor argmax(SLV_POTENTIALS) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    Bound<T> p(unary, transition, initial, final, lengths);
    Tensor out = p.empty(p.with({p.chain.n}), ScalarType::Long);
    run_argmax(p.chain, out.mutable_data_ptr<int64_t>());
    return out;
  });
}

std::tuple<Tensor, Tensor> max_marginals(SLV_POTENTIALS) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    Bound<T> p(unary, transition, initial, final, lengths);
    const Chain<T>& c = p.chain;
    Tensor mu = p.empty(p.with({c.n, c.k})), ma = p.empty(p.with(edge_tail(c.per_step, c.n, c.k)));
    T *mu_out = mu.mutable_data_ptr<T>(), *ma_out = ma.mutable_data_ptr<T>();
    parallel_units(c.batch, 2 * log_work(c), [&](int64_t b) {
      log_kernels<T>().max_marginals(c, b, mu_out + b * c.n * c.k, ma_out + b * p.edge_size());
    });
    return std::make_tuple(mu, ma);
  });
}

Tensor topk(SLV_POTENTIALS, int64_t k) {
  STD_TORCH_CHECK(k >= 0, "k: expected a number of structures >= 0, found ", k);
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    Bound<T> p(unary, transition, initial, final, lengths);
    const Chain<T>& c = p.chain;
    Tensor out = p.empty(p.with({c.n}, {k}), ScalarType::Long);
    int64_t* states = out.mutable_data_ptr<int64_t>();
    if (out.numel() == 0) return out;  // the loops over k structures of no state may be very long
    parallel_units(c.batch, log_work(c) * double(k),
                   [&](int64_t b) { log_kernels<T>().topk(c, b, k, states + b * c.n, c.batch * c.n); });
    return out;
  });
}

Tensor sample(SLV_POTENTIALS, int64_t num_samples, int64_t seed) {
  STD_TORCH_CHECK(num_samples >= 0, "num_samples: expected a number >= 0, found ", num_samples);
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    Bound<T> p(unary, transition, initial, final, lengths);
    const Chain<T>& c = p.chain;
    Tensor out = p.empty(p.with({c.n}, {num_samples}), ScalarType::Long);
    if (out.numel() > 0) run_sample(c, uint64_t(seed), num_samples, out.mutable_data_ptr<int64_t>());
    return out;
  });
}

std::tuple<Tensor, Tensor> sample_distinct(SLV_POTENTIALS, int64_t k, int64_t seed) {
  STD_TORCH_CHECK(k >= 0, "k: expected a number of structures >= 0, found ", k);
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    Bound<T> p(unary, transition, initial, final, lengths);
    const Chain<T>& c = p.chain;
    Tensor out = p.empty(p.with({c.n}, {k}), ScalarType::Long),
           perturbed = p.empty(p.with({}, {k}), ScalarType::Double);
    const DistinctSink sink{out.mutable_data_ptr<int64_t>(), c.batch * c.n, perturbed.mutable_data_ptr<double>(),
                            c.batch};
    const double draws = double(k) * double(c.batch) * double(c.n) * double(c.k);
    parallel_units(k > 0 ? c.batch : 0, log_work(c) + 100 * draws,
                   [&](int64_t b) { log_kernels<T>().sample_distinct(c, b, uint64_t(seed), k, sink.of(b, c.n)); });
    return std::make_tuple(out, perturbed);
  });
}

// ---- scores of given structures; linear in the potentials -------------------------------------------------

// Calls unary(t, state), edge(t, from, to) for the parts of item b in `z`; false where a state is out of range.
template <class T, class U, class E>
bool each_part(const Chain<T>& c, int64_t b, const int64_t* z, U&& unary, E&& edge) {
  const int64_t len = c.length ? c.length[b] : c.n;
  for (int64_t t = 0; t < len; t++)
    if (z[t] < 0 || z[t] >= c.k) return false;
  for (int64_t t = 0; t < len; t++) {
    unary(t, z[t]);
    if (t + 1 < len) edge(t, z[t], z[t + 1]);
  }
  return true;
}

Tensor score(const Tensor& states, SLV_POTENTIALS) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    Bound<T> p(unary, transition, initial, final, lengths);
    const Chain<T>& c = p.chain;
    const int64_t samples = samples_of("states", states, p.with({c.n}));
    Tensor z = as_contiguous(states);
    Tensor out = p.empty(samples_shape(states, 1), ScalarType::Double);
    double* scores = out.mutable_data_ptr<double>();
    const int64_t* path = z.const_data_ptr<int64_t>();
    const int64_t kk = c.k * c.k, step = c.per_step ? kk : 0;
    parallel_units(samples * c.batch, 10.0 * double(samples * c.batch * c.n), [&](int64_t i) {
      const int64_t b = i % c.batch, *zi = path + i * c.n, len = c.length ? c.length[b] : c.n;
      const T *u = c.unary + b * c.n * c.k, *a = c.transition + (c.matrix ? c.matrix[b] : 0) * p.edge_size();
      double sum = 0;
      bool ok = each_part(
          c, b, zi, [&](int64_t t, int64_t s) { sum += double(u[t * c.k + s]); },
          [&](int64_t t, int64_t s, int64_t r) { sum += double(a[t * step + s * c.k + r]); });
      if (ok && len > 0 && c.initial) sum += double(c.initial[(c.initial_row ? c.initial_row[b] : 0) * c.k + zi[0]]);
      if (ok && len > 0 && c.final) sum += double(c.final[(c.final_row ? c.final_row[b] : 0) * c.k + zi[len - 1]]);
      scores[i] = ok ? sum : -std::numeric_limits<double>::infinity();
    });
    return out;
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor> score_vjp(const Tensor& grad, const Tensor& states, SLV_POTENTIALS) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    Bound<T> p(unary, transition, initial, final, lengths);
    const Chain<T>& c = p.chain;
    const int64_t samples = samples_of("states", states, p.with({c.n})), kk = c.k * c.k, step = c.per_step ? kk : 0;
    check_sizes("grad", grad, samples_shape(states, 1));
    Tensor z = as_contiguous(states);
    Tensor g = torch::stable::contiguous(torch::stable::to(grad, std::optional<ScalarType>(ScalarType::Double)));
    Tensor du = p.empty(p.with({c.n, c.k})), da = p.empty(shape_of(transition));
    T *unary_out = du.mutable_data_ptr<T>(), *edge_out = da.mutable_data_ptr<T>();
    std::fill_n(unary_out, c.batch * c.n * c.k, T(0));
    // the edges in float64 where items add up, in place where every item has its own
    const bool own = p.transition.count == c.batch && c.per_step;
    std::vector<double> sum(own ? 0 : p.transition.count * p.edge_size());
    if (own) std::fill_n(edge_out, c.batch * p.edge_size(), T(0));
    for (int64_t i = 0; i < samples * c.batch; i++) {
      const int64_t b = i % c.batch, row = (c.matrix ? c.matrix[b] : 0) * p.edge_size();
      const double w = g.const_data_ptr<double>()[i];
      T* u = unary_out + b * c.n * c.k;
      each_part(
          c, b, z.const_data_ptr<int64_t>() + i * c.n, [&](int64_t t, int64_t s) { u[t * c.k + s] += T(w); },
          [&](int64_t t, int64_t s, int64_t r) {
            const int64_t e = row + t * step + s * c.k + r;
            if (own)
              edge_out[e] += T(w);
            else
              sum[e] += w;
          });
    }
    for (size_t e = 0; e < sum.size(); e++) edge_out[e] = T(sum[e]);
    return std::make_tuple(du, da, end_gradient(p, p.initial, initial, unary_out, false),
                           end_gradient(p, p.final, final, unary_out, true));
  });
}

// ---- NaN among the potentials; padding does not count -------------------------------------------------------

bool has_nan(SLV_POTENTIALS) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    Bound<T> p(unary, transition, initial, final, lengths);
    const Chain<T>& c = p.chain;
    if (p.initial.count && any_nan(c.initial, p.initial.count * c.k)) return true;
    if (p.final.count && any_nan(c.final, p.final.count * c.k)) return true;
    if (!c.length || !c.per_step)
      if (any_nan(c.transition, p.transition.count * p.edge_size())) return true;
    std::atomic<bool> found{false};
    parallel_units(c.batch, double(c.batch) * double(c.n * c.k), [&](int64_t b) {
      const int64_t len = c.length ? c.length[b] : c.n;
      if (any_nan(c.unary + b * c.n * c.k, len * c.k)) found = true;
      if (c.length && c.per_step && len > 1)
        if (any_nan(c.transition + (c.matrix ? c.matrix[b] : 0) * p.edge_size(), (len - 1) * c.k * c.k)) found = true;
    });
    return found.load();
  });
}

}  // namespace

#define SLV_SCHEMA "Tensor unary, Tensor transition, Tensor? initial, Tensor? final, Tensor? lengths"

STABLE_TORCH_LIBRARY_FRAGMENT(structlv, m) {
  m.def("chain_log_partition(" SLV_SCHEMA ", bool as_double) -> Tensor");
  m.def("chain_inside(" SLV_SCHEMA ", bool as_double) -> (Tensor, Tensor)");
  m.def("chain_vjp(Tensor grad, Tensor chart, " SLV_SCHEMA ") -> (Tensor, Tensor, Tensor, Tensor)");
  m.def("chain_marginals(" SLV_SCHEMA ", bool? edges) -> (Tensor, Tensor)");
  m.def("chain_hvp(Tensor? grad, Tensor v_unary, Tensor v_transition, Tensor? v_initial, Tensor? v_final, " SLV_SCHEMA
        ") -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def("chain_argmax(" SLV_SCHEMA ") -> Tensor");
  m.def("chain_max_marginals(" SLV_SCHEMA ") -> (Tensor, Tensor)");
  m.def("chain_topk(" SLV_SCHEMA ", SymInt k) -> Tensor");
  m.def("chain_sample(" SLV_SCHEMA ", SymInt num_samples, SymInt seed) -> Tensor");
  m.def("chain_sample_distinct(" SLV_SCHEMA ", SymInt k, SymInt seed) -> (Tensor, Tensor)");
  m.def("chain_score(Tensor states, " SLV_SCHEMA ") -> Tensor");
  m.def("chain_score_vjp(Tensor grad, Tensor states, " SLV_SCHEMA ") -> (Tensor, Tensor, Tensor, Tensor)");
  m.def("chain_has_nan(" SLV_SCHEMA ") -> bool");
}

STABLE_TORCH_LIBRARY_IMPL(structlv, CPU, m) {
  m.impl("chain_log_partition", TORCH_BOX(&log_partition));
  m.impl("chain_inside", TORCH_BOX(&inside));
  m.impl("chain_vjp", TORCH_BOX(&vjp));
  m.impl("chain_marginals", TORCH_BOX(&marginals));
  m.impl("chain_hvp", TORCH_BOX(&hvp));
  m.impl("chain_argmax", TORCH_BOX(&argmax));
  m.impl("chain_max_marginals", TORCH_BOX(&max_marginals));
  m.impl("chain_topk", TORCH_BOX(&topk));
  m.impl("chain_sample", TORCH_BOX(&sample));
  m.impl("chain_sample_distinct", TORCH_BOX(&sample_distinct));
  m.impl("chain_score", TORCH_BOX(&score));
  m.impl("chain_score_vjp", TORCH_BOX(&score_vjp));
  m.impl("chain_has_nan", TORCH_BOX(&has_nan));
}

}  // namespace slv
