// The operators of the low-rank PCFG for tensors on a GPU: the same schemas as csrc/ops/lowrank.cpp. Every launch goes
// to torch's current stream and nothing waits for a result.
#include <torch/csrc/stable/library.h>

#include <tuple>

#include "cuda/lowrank_run.h"

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
    const RankSizes<T> sizes(p);
    const Tensor own = p.doubles(sizes.inside());
    inside_pass(p, sizes.in(data_of(own)));
    return p.log_partitions(data_of(own), as_double);
  });
}

std::tuple<Tensor, Tensor> inside(SLV_POTENTIALS, bool as_double) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    SLV_BIND;
    const RankSizes<T> sizes(p);
    Tensor chart = p.empty({p.chart_size()});
    torch::stable::zero_(chart);  // an operator's outputs are the same again, in what is never read too
    double* kept = kept_in<T>(chart, sizes.inside());
    const Tensor own = p.doubles(kept ? 0 : sizes.inside());
    double* values = kept ? kept : data_of(own);
    inside_pass(p, sizes.in(values));
    return std::make_tuple(p.log_partitions(values, as_double), chart);
  });
}

SixTensors vjp(const Tensor& grad, const Tensor& chart, SLV_POTENTIALS) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    SLV_BIND;
    STD_TORCH_CHECK(chart.scalar_type() == scalar_type<T> && chart.is_contiguous() && chart.numel() == p.chart_size(),
                    "chart: expected what lowrank_inside returned for these potentials");
    p.check_device("chart", chart);
    const Tensor weight = p.weights(grad);
    const RankSizes<T> sizes(p);
    double* kept = kept_in<T>(chart, sizes.inside());
    const Tensor own = p.doubles(kept ? 0 : sizes.inside());
    const RankInside in = sizes.in(kept ? kept : data_of(own));
    if (!kept) inside_pass(p, in);
    const GrownTable<T> heads(p, p.g.head, p.head.rows), lefts(p, p.g.left, p.left.rows),
        rights(p, p.g.right, p.right.rows);
    const RankWeights<T> out(p);
    out.run(in, weight.const_data_ptr<double>(), {heads.to(), lefts.to(), rights.to()});
    Tensor dt = p.empty(shape_of(root)), du = p.empty(p.with({p.n, p.k}));
    Tensor ds = p.empty(spans ? shape_of(*spans) : Shape{0});
    p.sum(p.root.rows, p.g.nt, out.top, dt);
    p.sum(row_map(p.batch, p.batch), p.n * p.k, out.words, du);
    if (spans) p.sum_spans(p.spans.rows, p.g.labels, out.nodes, ds);
    return SixTensors(dt, heads.narrow(head ? shape_of(*head) : Shape{0}), lefts.narrow(shape_of(left)),
                      rights.narrow(shape_of(right)), du, ds);
  });
}

SixTensors marginals(SLV_POTENTIALS, bool want_rules, bool want_spans) {
  return dispatch(unary, [&](auto t) {
    using T = decltype(t);
    SLV_BIND;
    const RankSizes<T> sizes(p);
    const Tensor own = p.doubles(sizes.inside());
    const RankInside in = sizes.in(data_of(own));
    inside_pass(p, in);
    const RowMap each = row_map(p.batch, p.batch);
    const GrownTable<T> heads(p, p.g.head, each, want_rules), lefts(p, p.g.left, each, want_rules),
        rights(p, p.g.right, each, want_rules);
    const RankWeights<T> out(p);
    out.run(in, nullptr, {heads.to(), lefts.to(), rights.to()});
    const int64_t nt = p.g.nt, r = p.g.r;
    Tensor top = p.empty(p.with({nt})), words = p.empty(p.with({p.n, p.k}));
    Tensor covers = p.empty(want_spans ? p.with({p.n, p.n, nt}) : Shape{0});
    p.sum(each, nt, out.top, top);
    p.sum(each, p.n * p.k, out.words, words);
    if (want_spans) p.sum_spans(each, nt, out.nodes, covers);
    const Shape side = p.with({r, p.g.s()});
    return SixTensors(top, heads.narrow(p.with({nt, r})), lefts.narrow(side), rights.narrow(side), words, covers);
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
  m.impl("lowrank_sample", TORCH_BOX(&sample));
}

}  // namespace slv::cuda
