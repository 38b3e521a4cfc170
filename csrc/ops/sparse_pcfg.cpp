// The operators of the sparse PCFG: schema, shapes, the loop over items. The recursions are in csrc/kernels.
#include <torch/csrc/stable/library.h>

#include <cmath>
#include <limits>
#include <tuple>

#include "ops/sparse_event.h"
#include "ops/sparse_run.h"

namespace slv {
namespace {

#define SLV_POTENTIALS                                                                                   \
  const Tensor &root, const Tensor &scores, const Tensor &unary, MaybeTensor spans, const Tensor &index, \
      MaybeTensor lengths
#define SLV_BIND BoundSparse p(root, scores, unary, spans, index, lengths)

constexpr double kNothing = -std::numeric_limits<double>::infinity();

Tensor log_partition(SLV_POTENTIALS, bool as_double) {
  SLV_BIND;
  Tensor out = p.empty(p.batch);
  double* log_z = out.mutable_data_ptr<double>();
  each_sentence(p, 1, [&](int64_t b, const SparseItem& x, const SparseWeights& w) {
    log_z[b] = sparse_pcfg_kernels().log_partition(p.grammar(), x, w);
  });
  return as_double ? out : p.narrow(out);
}

// The chart is not kept: how much of it is alive is not known beforehand. The backward pass makes it again.
std::tuple<Tensor, Tensor> inside(SLV_POTENTIALS, bool as_double) {
  Tensor log_z = log_partition(root, scores, unary, spans, index, lengths, as_double);
  return {log_z, torch::stable::new_empty(unary, Shape{0})};
}

Gradients vjp(const Tensor& grad, const Tensor&, SLV_POTENTIALS) {
  SLV_BIND;
  const std::vector<double> weight = weights_of<double>(grad, p.batch);
  return sparse_gradients(p, root, scores, spans, 4,
                          [&](int64_t b, const SparseItem& x, const SparseWeights& w, const SparseSink& sink) {
                            if (weight[b] != 0) sparse_pcfg_kernels().marginals(p.grammar(), x, w, weight[b], sink);
                          });
}

inline void check_labels(const BoundSparse& p, int64_t labels) {
  STD_TORCH_CHECK(labels == 0 || labels == 1 || labels == p.nonterminals,
                  "labels: expected 0, 1 or nt = ", p.nonterminals, ", found ", labels);
}
// labels: of the spans, the number of nonterminals, or 1 for constituents whatever their symbols, or 0 for none
Gradients marginals(SLV_POTENTIALS, bool rules, int64_t labels) {
  SLV_BIND;
  check_labels(p, labels);
  const int64_t nt = p.nonterminals, r = p.grammar().rules;
  Tensor top = p.zeros(p.with({nt})), used = p.zeros(rules ? p.with({r}) : Shape{0});
  Tensor leaf = p.zeros(p.with({p.n, p.k})), node = p.zeros(labels ? p.with({p.n, p.n, labels}) : Shape{0});
  double *a = top.mutable_data_ptr<double>(), *b = used.mutable_data_ptr<double>();
  double *c = leaf.mutable_data_ptr<double>(), *d = node.mutable_data_ptr<double>();
  each_sentence(p, 4, [&](int64_t i, const SparseItem& x, const SparseWeights& w) {
    const SparseSink sink{a + i * nt, rules ? b + i * r : nullptr, c + i * p.n * p.k,
                          labels ? d + i * p.n * p.n * labels : nullptr, labels};
    sparse_pcfg_kernels().marginals(p.grammar(), x, w, 1, sink);
  });
  return {p.narrow(top), p.narrow(used), p.narrow(leaf), p.narrow(node)};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> hvp(MaybeTensor grad, const Tensor& v_root, const Tensor& v_scores,
                                                       const Tensor& v_unary, MaybeTensor v_spans, SLV_POTENTIALS) {
  SLV_BIND;
  check_sizes("v_unary", v_unary, shape_of(unary));
  const BoundScores v(v_root, v_scores, p.grammar().rules, v_unary, v_spans, lengths);
  STD_TORCH_CHECK(v.nonterminals == p.nonterminals, "v_root: expected the nonterminals of root");
  const std::vector<double> weight = grad ? weights_of<double>(*grad, p.batch) : std::vector<double>(p.items, 1.0);
  Tensor mean = p.empty(p.batch);
  double* means = mean.mutable_data_ptr<double>();
  auto [dr, dq, du, dw] = sparse_gradients(
      p, root, scores, spans, 10, [&](int64_t b, const SparseItem& x, const SparseWeights& w, const SparseSink& sink) {
        means[b] = sparse_pcfg_kernels().hvp(p.grammar(), x, w, weight[b], v.item(b), sink);
      });
  return {p.narrow(mean), dr, dq, du, dw};
}

Gradients max_marginals(SLV_POTENTIALS, int64_t labels) {
  SLV_BIND;
  check_labels(p, labels);
  const int64_t nt = p.nonterminals, r = p.grammar().rules;
  auto nothing = [&](const Shape& shape) {
    Tensor x = p.empty(shape);
    std::fill_n(x.mutable_data_ptr<double>(), product(shape), kNothing);
    return x;
  };
  Tensor top = nothing(p.with({nt})), used = nothing(p.with({r})), leaf = nothing(p.with({p.n, p.k}));
  Tensor node = nothing(labels ? p.with({p.n, p.n, labels}) : Shape{0});
  double *a = top.mutable_data_ptr<double>(), *b = used.mutable_data_ptr<double>();
  double *c = leaf.mutable_data_ptr<double>(), *d = node.mutable_data_ptr<double>();
  parallel_units(p.items, 4 * sparse_work(p), [&](int64_t i) {
    const SparseSink sink{a + i * nt, b + i * r, c + i * p.n * p.k, labels ? d + i * p.n * p.n * labels : nullptr,
                          labels};
    sparse_pcfg_kernels().max_marginals(p.grammar(), p.item(i), sink);
  });
  return {p.narrow(top), p.narrow(used), p.narrow(leaf), p.narrow(node)};
}

Tensor argmax(SLV_POTENTIALS, int64_t depth) {
  SLV_BIND;
  p.check_depth(depth);
  const int64_t rows = p.rows();
  Tensor out = p.empty(p.with({rows, 3}), ScalarType::Long);
  int64_t* event = out.mutable_data_ptr<int64_t>();
  parallel_units(p.items, sparse_work(p),
                 [&](int64_t b) { sparse_pcfg_kernels().argmax(p.grammar(), p.item(b), rows, event + b * rows * 3); });
  return out;
}

Tensor topk(SLV_POTENTIALS, int64_t k, int64_t depth) {
  STD_TORCH_CHECK(k >= 0, "k: expected a number of trees >= 0, found ", k);
  SLV_BIND;
  p.check_depth(depth);
  const int64_t rows = p.rows();
  Tensor out = p.empty(p.with({rows, 3}, {k}), ScalarType::Long);
  int64_t* event = out.mutable_data_ptr<int64_t>();
  if (out.numel() == 0) return out;
  parallel_units(p.items, 2 * sparse_work(p), [&](int64_t b) {
    sparse_pcfg_kernels().topk(p.grammar(), p.item(b), rows, k, event + b * rows * 3, p.items * rows * 3);
  });
  return out;
}

Tensor sample(SLV_POTENTIALS, int64_t num_samples, int64_t seed, int64_t depth) {
  STD_TORCH_CHECK(num_samples >= 0, "num_samples: expected a number >= 0, found ", num_samples);
  SLV_BIND;
  p.check_depth(depth);
  const int64_t rows = p.rows();
  Tensor out = p.empty(p.with({rows, 3}, {num_samples}), ScalarType::Long);
  int64_t* event = out.mutable_data_ptr<int64_t>();
  if (out.numel() == 0) return out;
  each_sentence(p, 2, [&](int64_t b, const SparseItem& x, const SparseWeights& w) {
    sparse_pcfg_kernels().sample(p.grammar(), x, w, rows, uint64_t(seed), uint32_t(b), num_samples,
                                 p.dtype == ScalarType::Float, event + b * rows * 3, p.items * rows * 3);
  });
  return out;
}

std::tuple<Tensor, Tensor> sample_distinct(SLV_POTENTIALS, int64_t k, int64_t seed, int64_t depth) {
  STD_TORCH_CHECK(k >= 0, "k: expected a number of trees >= 0, found ", k);
  SLV_BIND;
  p.check_depth(depth);
  const int64_t size = p.rows() * 3;
  Tensor out = p.empty(p.with({p.rows(), 3}, {k}), ScalarType::Long), perturbed = p.empty(p.with({}, {k}));
  if (perturbed.numel() == 0) return {out, perturbed};
  const DistinctSink sink{out.mutable_data_ptr<int64_t>(), p.items * size, perturbed.mutable_data_ptr<double>(),
                          p.items};
  each_sentence(p, 3, [&](int64_t b, const SparseItem& x, const SparseWeights& w) {
    sparse_pcfg_kernels().sample_distinct(p.grammar(), x, w, p.rows(), uint64_t(seed), uint32_t(b), k,
                                          sink.of(b, size));
  });
  return {out, perturbed};
}

// ---- scores of given trees; linear in the potentials -------------------------------------------------------

// event (*s, *b, rows, 3): its number of rows, and (*s, *b)
std::pair<int64_t, Shape> event_shape(const BoundSparse& p, const Tensor& event) {
  STD_TORCH_CHECK(event.scalar_type() == ScalarType::Long, "event: expected dtype int64");
  Shape s = shape_of(event);
  STD_TORCH_CHECK(s.size() >= 2 && s.back() == 3, "event: expected (*s, *b, m, 3), found ", text(s));
  const int64_t rows = s[s.size() - 2];
  check_tail("event", s, p.with({rows, 3}));
  s.resize(s.size() - 2);
  return {rows, s};
}

Tensor score(const Tensor& event, SLV_POTENTIALS) {
  SLV_BIND;
  const auto [rows, shape] = event_shape(p, event);
  Tensor e = torch::stable::contiguous(event), out = p.empty(shape);
  const int64_t* trees = e.const_data_ptr<int64_t>();
  double* to = out.mutable_data_ptr<double>();
  parallel_units(product(shape), 50.0 * double(product(shape)) * double(rows), [&, rows = rows](int64_t t) {
    const SparseItem x = p.item(t % p.items);
    double sum = 0;
    const bool tree = each_sparse_part(
        p.grammar(), trees + t * rows * 3, rows, x.length, [&](int64_t a) { sum += x.root[a]; },
        [&](int64_t i, int64_t j, int64_t a) {
          if (x.spans && x.labels != 1) sum += x.spans[(i * x.n + j) * x.labels + a];
        },
        [&](int64_t i, int64_t j) {
          if (x.spans && x.labels == 1) sum += x.spans[i * x.n + j];
        },
        [&](int64_t rule) { sum += x.scores[rule]; }, [&](int64_t i, int64_t y) { sum += x.unary[i * p.k + y]; });
    to[t] = tree ? sum : kNothing;
  });
  return out;
}

Gradients score_vjp(const Tensor& grad, const Tensor& event, SLV_POTENTIALS) {
  SLV_BIND;
  const auto [rows, shape] = event_shape(p, event);
  const std::vector<double> weight = weights_of<double>(grad, shape);
  Tensor e = torch::stable::contiguous(event);
  const int64_t* trees = e.const_data_ptr<int64_t>();
  const int64_t samples = p.items ? int64_t(weight.size()) / p.items : 0;
  return sparse_gradients(
      p, root, scores, spans, 0,
      [&, rows = rows](int64_t b, const SparseItem& x, const SparseWeights&, const SparseSink& sink) {
        for (int64_t t = b; t < samples * p.items; t += p.items)
          each_sparse_part(
              p.grammar(), trees + t * rows * 3, rows, x.length, [&](int64_t a) { sink.root[a] += weight[t]; },
              [&](int64_t i, int64_t j, int64_t a) {
                if (sink.spans && sink.labels != 1) sink.spans[(i * x.n + j) * sink.labels + a] += weight[t];
              },
              [&](int64_t i, int64_t j) {
                if (sink.spans && sink.labels == 1) sink.spans[i * x.n + j] += weight[t];
              },
              [&](int64_t rule) { sink.rules[rule] += weight[t]; },
              [&](int64_t i, int64_t y) { sink.unary[i * p.k + y] += weight[t]; });
      });
}

// ---- NaN among the potentials; padding does not count -------------------------------------------------------

bool has_nan(SLV_POTENTIALS) {
  SLV_BIND;
  bool any = false;
  for (int64_t b = 0; b < p.items; b++) any = any || p.len(b) > 0;
  if (!any) return false;
  auto found = [](const double* x, int64_t size) { return std::any_of(x, x + size, [](double v) { return v != v; }); };
  if (found(p.root.data.const_data_ptr<double>(), p.root.count * p.nonterminals)) return true;
  if (found(p.scores.data.const_data_ptr<double>(), p.scores.count * p.grammar().rules)) return true;
  for (int64_t b = 0; b < p.items; b++) {
    const SparseItem x = p.item(b);
    if (found(x.unary, x.length * p.k)) return true;
    for (int64_t i = 0; x.spans && i < x.length; i++)
      if (found(x.spans + (i * x.n + i + 1) * x.labels, (x.length - i - 1) * x.labels)) return true;
  }
  return false;
}

}  // namespace

#define SLV_SCHEMA "Tensor root, Tensor scores, Tensor unary, Tensor? spans, Tensor index, Tensor? lengths"
#define SLV_FOUR " -> (Tensor, Tensor, Tensor, Tensor)"

STABLE_TORCH_LIBRARY_FRAGMENT(structlv, m) {
  m.def("sparse_pcfg_log_partition(" SLV_SCHEMA ", bool as_double) -> Tensor");
  m.def("sparse_pcfg_inside(" SLV_SCHEMA ", bool as_double) -> (Tensor, Tensor)");
  m.def("sparse_pcfg_vjp(Tensor grad, Tensor chart, " SLV_SCHEMA ")" SLV_FOUR);
  m.def("sparse_pcfg_marginals(" SLV_SCHEMA ", bool rules, SymInt labels)" SLV_FOUR);
  m.def("sparse_pcfg_hvp(Tensor? grad, Tensor v_root, Tensor v_scores, Tensor v_unary, Tensor? v_spans, " SLV_SCHEMA
        ") -> (Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def("sparse_pcfg_argmax(" SLV_SCHEMA ", SymInt depth) -> Tensor");
  m.def("sparse_pcfg_topk(" SLV_SCHEMA ", SymInt k, SymInt depth) -> Tensor");
  m.def("sparse_pcfg_sample_distinct(" SLV_SCHEMA ", SymInt k, SymInt seed, SymInt depth) -> (Tensor, Tensor)");
  m.def("sparse_pcfg_sample(" SLV_SCHEMA ", SymInt num_samples, SymInt seed, SymInt depth) -> Tensor");
  m.def("sparse_pcfg_max_marginals(" SLV_SCHEMA ", SymInt labels)" SLV_FOUR);
  m.def("sparse_pcfg_score(Tensor event, " SLV_SCHEMA ") -> Tensor");
  m.def("sparse_pcfg_score_vjp(Tensor grad, Tensor event, " SLV_SCHEMA ")" SLV_FOUR);
  m.def("sparse_pcfg_has_nan(" SLV_SCHEMA ") -> bool");
}

STABLE_TORCH_LIBRARY_IMPL(structlv, CPU, m) {
  m.impl("sparse_pcfg_log_partition", TORCH_BOX(&log_partition));
  m.impl("sparse_pcfg_inside", TORCH_BOX(&inside));
  m.impl("sparse_pcfg_vjp", TORCH_BOX(&vjp));
  m.impl("sparse_pcfg_marginals", TORCH_BOX(&marginals));
  m.impl("sparse_pcfg_hvp", TORCH_BOX(&hvp));
  m.impl("sparse_pcfg_argmax", TORCH_BOX(&argmax));
  m.impl("sparse_pcfg_topk", TORCH_BOX(&topk));
  m.impl("sparse_pcfg_sample_distinct", TORCH_BOX(&sample_distinct));
  m.impl("sparse_pcfg_sample", TORCH_BOX(&sample));
  m.impl("sparse_pcfg_max_marginals", TORCH_BOX(&max_marginals));
  m.impl("sparse_pcfg_score", TORCH_BOX(&score));
  m.impl("sparse_pcfg_score_vjp", TORCH_BOX(&score_vjp));
  m.impl("sparse_pcfg_has_nan", TORCH_BOX(&has_nan));
}

}  // namespace slv
