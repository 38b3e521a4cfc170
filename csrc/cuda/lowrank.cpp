// The operators of the low-rank PCFG for tensors on a GPU: the same schemas as csrc/ops/lowrank.cpp. Every launch goes
// to torch's current stream and nothing waits for a result.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "cuda/lowrank_scaled_run.h"

namespace slv::cuda {
namespace {

using SixTensors = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;  // root, head, left, right, unary, spans

#define SLV_POTENTIALS                                                                                \
  const Tensor &root, MaybeTensor head, const Tensor &left, const Tensor &right, const Tensor &unary, \
      MaybeTensor spans, MaybeTensor lengths
#define SLV_BIND BoundLowRank<T> p(root, head, left, right, unary, spans, lengths)

Tensor log_partition(SLV_POTENTIALS, bool as_double) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    SLV_BIND;
    Tensor chart = p.empty({p.chart_size()});
    ScaledRankTrees<T> run(p, chart.mutable_data_ptr<T>());
    return climb(p, run, as_double);
  });
}

std::tuple<Tensor, Tensor> inside(SLV_POTENTIALS, bool as_double) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    SLV_BIND;
    Tensor chart = p.empty({p.chart_size()});
    torch::stable::zero_(chart);  // an operator's outputs are the same again, in what is never read too
    ScaledRankTrees<T> run(p, chart.mutable_data_ptr<T>());
    return std::make_tuple(climb(p, run, as_double), chart);
  });
}

// The weights of one of the grammar's tables, summed over the items of each row.
template <class T>
GrownRules<T> grown(const BoundLowRank<T>& p, const Table<T>& table, const RowMap& rows, bool wanted = true) {
  return {p, rows, table.size(), wanted && table.rows > 0};
}

SixTensors vjp(const Tensor& grad, const Tensor& chart, SLV_POTENTIALS) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    SLV_BIND;
    STD_TORCH_CHECK(chart.scalar_type() == scalar_type<T> && chart.is_contiguous() && chart.numel() == p.chart_size(),
                    "chart: expected what lowrank_inside returned for these potentials");
    p.check_device("chart", chart);
    const Tensor weight = p.weights(grad);
    ScaledRankTrees<T> run(p, const_cast<T*>(chart.const_data_ptr<T>()));
    run.complete();
    const GrownRules<T> heads = grown(p, p.g.head, p.head.rows), lefts = grown(p, p.g.left, p.left.rows),
                        rights = grown(p, p.g.right, p.right.rows);
    RankWeights<T> out(p);
    out.run(run, weight.const_data_ptr<double>(), {heads.counts, lefts.counts, rights.counts});
    Tensor dh = p.empty(head ? shape_of(*head) : Shape{0}), dl = p.empty(shape_of(left)), dr = p.empty(shape_of(right));
    heads.narrow(dh), lefts.narrow(dl), rights.narrow(dr);
    auto [dt, du, ds] = tree_gradients(p, out, root, spans);
    return SixTensors(dt, dh, dl, dr, du, ds);
  });
}

SixTensors marginals(SLV_POTENTIALS, bool want_rules, bool want_spans) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    SLV_BIND;
    Tensor chart = p.empty({p.chart_size()});
    ScaledRankTrees<T> run(p, chart.mutable_data_ptr<T>());
    run.forward(nullptr);
    const RowMap each = row_map(p.batch, p.batch);
    const GrownRules<T> heads = grown(p, p.g.head, each, want_rules), lefts = grown(p, p.g.left, each, want_rules),
                        rights = grown(p, p.g.right, each, want_rules);
    RankWeights<T> out(p);
    out.run(run, nullptr, {heads.counts, lefts.counts, rights.counts});
    const int64_t nt = p.g.nt, r = p.g.r;
    const Shape side = want_rules ? p.with({r, p.g.s()}) : Shape{0};
    Tensor top = p.empty(p.with({nt})), words = p.empty(p.with({p.n, p.k}));
    Tensor dh = p.empty(want_rules && head ? p.with({nt, r}) : Shape{0}), dl = p.empty(side), dr = p.empty(side);
    Tensor covers = p.empty(want_spans ? p.with({p.n, p.n, nt}) : Shape{0});
    p.sum(each, nt, out.top, top);
    heads.narrow(dh), lefts.narrow(dl), rights.narrow(dr);
    p.sum(each, p.n * p.k, out.words, words);
    if (want_spans) p.sum_spans(each, nt, out.nodes, covers);
    return SixTensors(top, dh, dl, dr, words, covers);
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> hvp(MaybeTensor grad, const Tensor& v_root,
                                                                       MaybeTensor v_head, const Tensor& v_left,
                                                                       const Tensor& v_right, const Tensor& v_unary,
                                                                       MaybeTensor v_spans, SLV_POTENTIALS) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    SLV_BIND;
    check_sizes("v_unary", v_unary, shape_of(unary));
    BoundLowRank<T> v(v_root, v_head, v_left, v_right, v_unary, v_spans, lengths);
    STD_TORCH_CHECK(v.g.nt == p.g.nt, "v_root: expected ", p.g.nt, " nonterminals, found ", v.g.nt);
    STD_TORCH_CHECK(v.g.r == p.g.r, "v_left: expected rank ", p.g.r, ", found ", v.g.r);
    STD_TORCH_CHECK(v_head.has_value() == head.has_value(), "v_head: expected where there is a head, and only there");
    p.check_device("v_unary", v_unary);
    const Tensor weight = grad ? p.weights(*grad) : Tensor();
    const GrownRules<T> heads = grown(p, p.g.head, p.head.rows), lefts = grown(p, p.g.left, p.left.rows),
                        rights = grown(p, p.g.right, p.right.rows);
    Tensor dg = p.empty(p.batch);
    const Covariances<T> out = covariances(p, v, grad ? weight.const_data_ptr<double>() : nullptr,
                                           dg.mutable_data_ptr<T>(), {heads.counts, lefts.counts, rights.counts});
    Tensor dh = p.empty(head ? shape_of(*head) : Shape{0}), dl = p.empty(shape_of(left)), dr = p.empty(shape_of(right));
    heads.narrow(dh), lefts.narrow(dl), rights.narrow(dr);
    auto [dt, du, ds] = tree_gradients(p, out, root, spans);
    return std::make_tuple(dg, dt, dh, dl, dr, du, ds);
  });
}

Tensor sample(SLV_POTENTIALS, int64_t num_samples, int64_t seed) {
  STD_TORCH_CHECK(num_samples >= 0, "num_samples: expected a number >= 0, found ", num_samples);
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    SLV_BIND;
    Tensor out = p.empty(p.event_shape({num_samples}), ScalarType::Long);
    if (out.numel() == 0) return out;
    const RankSizes<T> sizes(p);
    const Tensor own = p.doubles(sizes.inside());
    const RankInside in = sizes.in(data_of(own));
    inside_pass(p, in);
    run_rank_sample(p.g, in, uint64_t(seed), num_samples, out.mutable_data_ptr<int64_t>(), p.stream);
    return out;
  });
}

}  // namespace

#if defined(SLV_EMULATE)
#define SLV_SCHEMA "Tensor root, Tensor? head, Tensor left, Tensor right, Tensor unary, Tensor? spans, Tensor? lengths"
#define SLV_SIX "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
STABLE_TORCH_LIBRARY_FRAGMENT(structlv_emulated, m) {
  m.def("lowrank_log_partition(" SLV_SCHEMA ", bool as_double) -> Tensor");
  m.def("lowrank_inside(" SLV_SCHEMA ", bool as_double) -> (Tensor, Tensor)");
  m.def("lowrank_vjp(Tensor grad, Tensor chart, " SLV_SCHEMA ") -> " SLV_SIX);
  m.def("lowrank_marginals(" SLV_SCHEMA ", bool want_rules, bool want_spans) -> " SLV_SIX);
  m.def(
      "lowrank_hvp(Tensor? grad, Tensor v_root, Tensor? v_head, Tensor v_left, Tensor v_right, Tensor v_unary, "
      "Tensor? v_spans, " SLV_SCHEMA ") -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def("lowrank_sample(" SLV_SCHEMA ", SymInt num_samples, SymInt seed) -> Tensor");
}
STABLE_TORCH_LIBRARY_IMPL(structlv_emulated, CPU, m) {
#else
STABLE_TORCH_LIBRARY_IMPL(structlv, CUDA, m) {
#endif
  m.impl("lowrank_log_partition", TORCH_BOX(&log_partition));
  m.impl("lowrank_inside", TORCH_BOX(&inside));
  m.impl("lowrank_vjp", TORCH_BOX(&vjp));
  m.impl("lowrank_marginals", TORCH_BOX(&marginals));
  m.impl("lowrank_hvp", TORCH_BOX(&hvp));
  m.impl("lowrank_sample", TORCH_BOX(&sample));
}

}  // namespace slv::cuda
