// The operators of the chain for tensors on a GPU: the same schemas as csrc/ops/chain.cpp. Every launch goes to torch's
// current stream and nothing waits for a result: what each item needs is decided on the device, by flags.
#include "cuda/chain.h"

#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "cuda/bind.h"

namespace slv::cuda {
namespace {

constexpr int64_t kWorkspace = int64_t(256) << 20;  // bytes for the log space of as many items as fit at once
constexpr int64_t kBlocks = 512;                    // enough to fill a GPU: sums are cut into so many pieces

Shape edge_tail(bool per_step, int64_t n, int64_t k) {
  return per_step ? Shape{std::max<int64_t>(n - 1, 0), k, k} : Shape{k, k};
}

template <class T>
struct Bound : BoundBatch<T> {
  using Base = BoundBatch<T>;
  using Base::batch, Base::items, Base::n, Base::k, Base::empty, Base::stream;
  Operand transition, initial, final;
  Chain<T> chain;

  Bound(const Tensor& u, const Tensor& a, const MaybeTensor& i, const MaybeTensor& f, const MaybeTensor& lengths)
      : Base(u, "unary: expected (*b, n, k)", lengths) {
    STD_TORCH_CHECK(a.dim() <= u.dim() + 1, "transition: expected (*b, k, k) or (*b, n-1, k, k), found ",
                    text(shape_of(a)));
    STD_TORCH_CHECK(k > 0, "unary: expected at least one state (k >= 1), found ", text(shape_of(u)));
    const bool per_step = a.dim() == u.dim() + 1;
    transition = this->operand("transition", a, edge_tail(per_step, n, k));
    initial = this->operand("initial", i, {k});
    final = this->operand("final", f, {k});
    chain = {items,
             int(n),
             int(k),
             per_step,
             this->unary.template const_data_ptr<T>(),
             transition.pointer<T>(),
             initial.pointer<T>(),
             final.pointer<T>(),
             transition.rows,
             initial.rows,
             final.rows,
             this->length()};
  }
};

// ---- the scaled domain ------------------------------------------------------------------------------------------

// Its workspace. The parts that the backward pass needs lie in a chart, of the size that the CPU's has.
template <class T>
struct ScaledRun {
  const Bound<T>& p;
  Scaled<T> s{};
  std::vector<Tensor> keep;

  explicit ScaledRun(const Bound<T>& p, bool transposed = false) : p(p) {
    const int64_t matrices = p.chain.matrices();
    s.exponent = take(matrices);
    s.kind = take<int>(matrices, ScalarType::Int);
    if (!p.chain.per_step) s.matrix = take(matrices * p.k * p.k);
    if (!p.chain.per_step && transposed) s.into = take(matrices * p.k * p.k);
    prepare_matrices(p.chain, s, p.stream);
  }
  template <class U = T>
  U* take(int64_t count, ScalarType dtype = scalar_type<T>) {
    keep.push_back(p.empty({count}, dtype));
    return keep.back().template mutable_data_ptr<U>();
  }
  static int64_t chart_size(const Bound<T>& p) { return p.items * (p.n * (2 * padded<T>(int(p.k)) + 1) + 8); }
  void bind_chart(T* chart) {
    const int64_t rows = p.items * p.n, states = rows * padded<T>(int(p.k));
    s.alpha = chart;
    s.e = chart + states;
    s.scale = s.e + states;
    s.meta = s.scale + rows;
  }
  void forward(T* chart) {
    if (chart)
      bind_chart(chart);
    else
      s.e = take(p.items * p.n * padded<T>(int(p.k))), s.meta = take(p.items * kMeta);
    s.row_exponent = take(p.items * p.n);
    s.row_code = take<int>(p.items * p.n, ScalarType::Int);
    exponentiate_rows(p.chain, s, p.stream);
    cuda::forward(p.chain, s, p.stream);
  }
  // The forward pass with a chart of its own.
  void forward_kept() { forward(take(chart_size(p))); }
  // log Z into `out`, of float64 or of the potentials' dtype.
  void bind_result(const Tensor& out) {
    if (out.scalar_type() == ScalarType::Double)
      s.log_z = out.mutable_data_ptr<double>();
    else
      s.log_z_narrow = out.mutable_data_ptr<T>();
  }
};

// ---- log space --------------------------------------------------------------------------------------------------

// Calls body(l) for ranges of items that together are all, one after the other in the same memory. `redo`: which items
// are to be done, all where it is null; `extra`: arrays (count, n, k) of float64 beyond top, sum and mu.
template <class T, class F>
void each_range(const Bound<T>& p, const T* redo, int stride, bool smooth, int extra, F&& body) {
  const int64_t row = std::max<int64_t>(p.n * p.k, 1), arrays = 2 + smooth + extra;
  const int64_t most = std::clamp<int64_t>(kWorkspace / (8 * row * arrays), 1, std::max<int64_t>(p.items, 1));
  Tensor memory = p.empty({arrays * most * row}, ScalarType::Double);
  double* start = memory.mutable_data_ptr<double>();
  for (int64_t first = 0; first < p.items; first += most) {
    LogSpace<T> l{first, std::min(most, p.items - first), redo, stride, start, start + most * row, nullptr};
    if (smooth) l.mu = start + 2 * most * row;
    body(l, start + (arrays - extra) * most * row, most * row);
  }
}
template <class T>
void redo_log_z(const Bound<T>& p, const Scaled<T>& s) {
  each_range<T>(p, s.meta + 1, kMeta, false, 0, [&](const LogSpace<T>& l, double*, int64_t) {
    log_forward(p.chain, l, s.log_z, s.log_z_narrow, p.stream);
  });
}

// ---- gradients --------------------------------------------------------------------------------------------------

// Sums of edges over the items of each row, in pieces enough for a GPU: a function of the problem alone.
template <class T>
struct EdgeSums {
  const Bound<T>& p;
  Tensor out, memory;
  bool direct;  // every row has one item: nothing is to be added up
  Edges<T> edges;

  EdgeSums(const Bound<T>& p, const RowMap& rows, bool per_step, const Shape& shape) : p(p), out(p.empty(shape)) {
    const int64_t steps = !per_step ? 1 : std::max<int64_t>(p.n - 1, 0), side = (p.k + 31) / 32;
    const int64_t items = rows.items_of_row(), blocks = std::max<int64_t>(side * side * steps * rows.rows, 1);
    const int64_t chunks = std::clamp<int64_t>(kBlocks / blocks, 1, std::max<int64_t>(items, 1));
    edges = {rows, per_step, int(chunks), nullptr, nullptr};
    direct = items <= 1;
    if (direct) {
      edges.direct = out.mutable_data_ptr<T>();
      return;
    }
    memory = p.empty({int64_t(rows.rows) * chunks * steps * p.k * p.k}, ScalarType::Double);
    edges.partial = memory.mutable_data_ptr<double>();
  }
  void clear() { torch::stable::zero_(direct ? out : memory); }
  Tensor finish() {
    if (!direct) finish_edges(p.chain, edges, out.mutable_data_ptr<T>(), p.stream);
    return out;
  }
};

// The backward pass and its repetition in log space, the weights of edges into `sums` where they are wanted.
template <class T>
void backward_all(ScaledRun<T>& run, const double* weight, T* unary, EdgeSums<T>* sums) {
  const Bound<T>& p = run.p;
  Adjoint<T> a{weight, run.take(p.items * p.n * padded<T>(int(p.k))), unary, run.take(p.items)};
  backward(p.chain, run.s, a, p.stream);
  if (sums) edges(p.chain, run.s, a, sums->edges, p.stream);
  each_range<T>(p, a.redo, 1, true, 0, [&](const LogSpace<T>& l, double*, int64_t) {
    log_forward<T>(p.chain, l, nullptr, nullptr, p.stream);
    log_backward(p.chain, l, weight, unary, p.stream);
    if (sums) log_edges(p.chain, l, sums->edges, weight, p.stream);
  });
}
// The gradient of initial or final scores: that of unary at the first or last step.
template <class T>
Tensor end_gradient(const Bound<T>& p, const Operand& x, const MaybeTensor& like, const T* unary, bool last) {
  if (!like) return p.empty({0});
  Tensor out = p.empty(shape_of(*like));
  sum_ends(p.chain, x.rows, unary, last, out.mutable_data_ptr<T>(), p.stream);
  return out;
}

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
