// From tensors on a GPU to the launches of the factorial chain's kernels: workspaces, ranges of items, the chart.
#pragma once
#include <algorithm>
#include <vector>

#include "cuda/bind.h"
#include "cuda/factorial.h"
#include "ops/chain_sizes.h"

namespace slv::cuda {
namespace {

constexpr int64_t kMostJoint = 1 << 20;
constexpr int64_t kSweepBytes = int64_t(256) << 20;  // for the passes over as many items as fit at once

template <class T>
struct BoundFactorial : BoundBatch<T> {
  using Base = BoundBatch<T>;
  using Base::batch, Base::items, Base::n, Base::k, Base::empty, Base::stream, Base::with;
  Operand transition, initial;
  Factorial<T> c{};

  // direction: its transition may be one per step, of one dimension more than batch and edges
  BoundFactorial(const Tensor& u, const Tensor& a, const MaybeTensor& i, const Tensor& s, const MaybeTensor& lengths,
                 bool direction = false)
      : Base(u, "unary: expected (*b, n, s)", lengths, kMostJoint) {
    STD_TORCH_CHECK(!s.is_cuda(), "sizes: expected on the CPU, where it is read");
    const ChainSizes sizes(s, k);
    STD_TORCH_CHECK(sizes.sizes.size() <= kMostChains, "sizes: expected at most ", kMostChains, " chains, found ",
                    sizes.sizes.size());
    int64_t padded = 0;
    for (int64_t k : sizes.sizes) padded += k * padded_row(int(k));
    STD_TORCH_CHECK(padded <= INT32_MAX, "sizes: expected fewer than 2^31 elements in the transition, found ",
                    sizes.edges);
    c.per_step = direction && a.dim() == u.dim();
    transition = this->operand("transition", a,
                               c.per_step ? Shape{std::max<int64_t>(n - 1, 0), sizes.edges} : Shape{sizes.edges});
    initial = this->operand("initial", i, {sizes.ends});
    c.batch = items, c.n = int(n), c.m = int(sizes.sizes.size()), c.states = int(k);
    std::copy(sizes.sizes.begin(), sizes.sizes.end(), c.sizes);
    c.edges = int(sizes.edges), c.ends = int(sizes.ends), c.padded = int(padded);
    c.unary = this->unary.template const_data_ptr<T>();
    c.transition = transition.pointer<T>(), c.initial = initial.pointer<T>();
    c.matrix = transition.rows, c.initial_row = initial.rows;
    c.length = this->length();
  }
  int64_t alphas() const { return n * k; }  // of an item
  Tensor doubles(int64_t count) const { return empty({count}, ScalarType::Double); }
};

inline double* data_of(const Tensor& x) { return x.mutable_data_ptr<double>(); }

// Calls body(first, count, memory) for ranges of items that together are all, one after the other in the same memory of
// `size` elements of A for each item. An item's numbers do not depend on the range.
template <class A, class T, class F>
void each_range(const BoundFactorial<T>& p, int64_t size, F&& body) {
  const int64_t bytes = std::max<int64_t>(int64_t(sizeof(A)) * size, 1);
  const int64_t most = std::clamp<int64_t>(kSweepBytes / bytes, 1, std::max<int64_t>(p.items, 1));
  const Tensor memory = p.empty({most * size}, sizeof(A) == 4 ? ScalarType::Float : ScalarType::Double);
  int64_t first = 0;
  do  // once for an empty batch too, whose sums are 0
    body(first, std::min(most, p.items - first), memory.mutable_data_ptr<A>());
  while ((first += most) < p.items);
}

// ---- the scaled domain ------------------------------------------------------------------------------------------

// Doubles that have room for so many elements of T.
template <class T>
constexpr int64_t in_doubles(int64_t count) {
  return (count * int64_t(sizeof(T)) + 7) / 8;
}

// Its workspace. What the backward pass needs of the forward pass lies in a chart, of the size that the CPU's has.
template <class T>
struct ScaledFactorial {
  const BoundFactorial<T>& p;
  JointScaled<T> s{};
  std::vector<Tensor> keep;

  explicit ScaledFactorial(const BoundFactorial<T>& p) : p(p) {
    const int64_t rows = p.c.matrix.rows;
    s.matrix = take(rows * p.c.padded), s.back = take(rows * p.c.padded),
    s.exponent = take<double>(rows, ScalarType::Double);
    s.kind = take<int>(rows, ScalarType::Int), s.redo = take<int>(p.items, ScalarType::Int);
    s.row_exponent = take(p.items * p.n);
    run_prepare(p.c, s, p.stream);
    run_rows(p.c, s, p.stream);
  }
  template <class U = T>
  U* take(int64_t count, ScalarType dtype = scalar_type<T>) {
    keep.push_back(p.empty({count}, dtype));
    return keep.back().template mutable_data_ptr<U>();
  }
  static int64_t chart_size(const BoundFactorial<T>& p) { return p.items * (p.n * (p.k + 1) + 8); }
  void bind_chart(T* chart) {
    s.alpha = chart;
    s.scale = chart + p.items * p.alphas();
    s.inverse = s.scale + p.items * p.n;
  }
  // log Z, in log space for the items that are flagged; the chart may be null.
  void forward(T* chart, double* log_z, T* log_z_narrow) {
    if (chart)
      bind_chart(chart);
    else
      s.inverse = take(p.items);
    const int64_t spill = factorial_scan_spill(p.c);
    each_range<T>(p, spill, [&](int64_t first, int64_t count, T* memory) {
      run_scan(p.c, s, {first, count, spill ? memory : nullptr}, log_z, log_z_narrow, p.stream);
    });
  }
  // The forward pass with a chart of its own.
  void forward_kept() { forward(take(chart_size(p)), nullptr, nullptr); }
};

template <class T>
Tensor log_partitions(const BoundFactorial<T>& p, T* chart, bool as_double) {
  Tensor z = p.empty(p.batch, as_double ? ScalarType::Double : scalar_type<T>);
  double* wide = z.scalar_type() == ScalarType::Double ? z.mutable_data_ptr<double>() : nullptr;
  T* narrow = wide ? nullptr : z.mutable_data_ptr<T>();
  ScaledFactorial<T> run(p);
  run.forward(chart, wide, narrow);
  const int64_t spill = factorial_forward_spill(p.c);
  each_range<double>(p, spill, [&](int64_t first, int64_t count, double* memory) {
    run_forward(p.c, {first, count, nullptr, spill ? memory : nullptr, run.s.redo}, wide, narrow, p.stream);
  });
  return z;
}

// ---- log space --------------------------------------------------------------------------------------------------

// Elements for each item of a pass after the forward pass that spills so much: what both spill, and alpha.
template <class T>
int64_t sweep_size(const BoundFactorial<T>& p, int64_t spill) {
  return std::max(factorial_forward_spill(p.c), spill) + p.alphas();
}
// The forward pass of a range in memory of that size, and what the next pass has of it.
template <class T>
Beginnings sweep(const BoundFactorial<T>& p, int64_t first, int64_t count, double* memory, int64_t spill,
                 const int* redo) {
  const int64_t forward = factorial_forward_spill(p.c);
  double* alpha = memory + count * std::max(forward, spill);
  run_forward<T>(p.c, {first, count, alpha, forward ? memory : nullptr, redo}, nullptr, nullptr, p.stream);
  return {first, count, alpha, spill ? memory : nullptr, redo};
}

// ---- derivatives ------------------------------------------------------------------------------------------------

// Posterior weights into unary (*b, n, S), and those of edges into `steps`, step by step, or their sums over steps and
// the items of each row into `edges`: one of them, or none where there are no steps. In the scaled domain, from a
// forward pass whose chart was kept; then in log space, in the same memory, for the items that it cannot hold.
template <class T>
void backward_pass(ScaledFactorial<T>& run, const double* weight, T* unary, T* steps, const RowMap& rows, T* edges) {
  const BoundFactorial<T>& p = run.p;
  const int64_t pieces = factorial_pieces(p.c), partial = factorial_partial_size(p.c);
  const int64_t counts = steps ? 0 : pieces * p.c.edges, spill = factorial_backward_spill(p.c);
  const int64_t scan = factorial_scan_spill(p.c), pairs = pieces * factorial_edges_spill(p.c);
  const int64_t scaled = in_doubles<T>(p.alphas() + std::max(scan, pairs));
  const int64_t own = std::max(scaled, sweep_size(p, spill) + partial);
  int* redo = run.template take<int>(p.items, ScalarType::Int);
  const Tensor sums = p.doubles(edges ? int64_t(rows.rows) * p.c.edges : 0);
  each_range<double>(p, own + counts, [&](int64_t first, int64_t count, double* memory) {
    T *g = reinterpret_cast<T*>(memory), *more = g + count * p.alphas();
    JointPosterior<T> out{weight, nullptr, unary, steps, memory + count * own, int(pieces)};
    const JointAdjoint<T> a{weight, g, unary, redo};
    run_adjoint(p.c, run.s, {first, count, scan ? more : nullptr}, a, p.stream);
    run_edges(p.c, run.s, {first, count, pairs ? more : nullptr}, a, out, p.stream);
    const Beginnings s = sweep(p, first, count, memory, spill, redo);
    out.partial = s.alpha + count * p.alphas();
    run_backward(p.c, s, out, p.stream);
    if (edges) run_sum_edges(p.c, s, rows, out.counts, out.pieces, data_of(sums), edges, p.stream);
  });
}
// The covariances with <v, parts>, and its mean.
template <class T>
void tangent_pass(const BoundFactorial<T>& p, const BoundFactorial<T>& v, const double* weight, T* mean, T* unary,
                  T* edges) {
  const int64_t partial = factorial_partial_size(p.c), spill = factorial_tangent_spill(p.c);
  const int64_t own = sweep_size(p, spill);
  const RowMap& rows = p.transition.rows;
  const Tensor sums = p.doubles(int64_t(rows.rows) * p.c.edges);
  each_range<double>(p, own + partial + p.c.edges + p.alphas(), [&](int64_t first, int64_t count, double* memory) {
    const Beginnings s = sweep(p, first, count, memory, spill, nullptr);
    double *edge_sums = memory + count * own, *counts = edge_sums + count * partial;
    double* prefix = counts + count * p.c.edges;
    run_tangent(p.c, s, Direction<T>{v.c, prefix, mean}, {weight, edge_sums, unary, nullptr, counts, 1}, p.stream);
    run_sum_edges(p.c, s, rows, counts, 1, data_of(sums), edges, p.stream);
  });
}
template <class T>
Tensor initial_gradient(const BoundFactorial<T>& p, const MaybeTensor& like, const T* unary) {
  if (!like) return p.empty({0});
  Tensor out = p.empty(shape_of(*like));
  run_sum_starts(p.c, p.initial.rows, unary, out.template mutable_data_ptr<T>(), p.stream);
  return out;
}

}  // namespace
}  // namespace slv::cuda
