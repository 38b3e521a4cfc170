// From tensors on a GPU to the launches of the factorial chain's kernels: workspaces, ranges of items, the chart.
#pragma once
#include <algorithm>

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
    STD_TORCH_CHECK(sizes.edges <= INT32_MAX, "sizes: expected fewer than 2^31 elements in the transition, found ",
                    sizes.edges);
    c.per_step = direction && a.dim() == u.dim();
    transition = this->operand("transition", a,
                               c.per_step ? Shape{std::max<int64_t>(n - 1, 0), sizes.edges} : Shape{sizes.edges});
    initial = this->operand("initial", i, {sizes.ends});
    c.batch = items, c.n = int(n), c.m = int(sizes.sizes.size()), c.states = int(k);
    std::copy(sizes.sizes.begin(), sizes.sizes.end(), c.sizes);
    c.edges = int(sizes.edges), c.ends = int(sizes.ends);
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

// Calls body(beginnings, memory) for ranges of items, after their forward pass where alpha is not `kept` of all of
// them; memory: `extra` elements for each item of the range, after what spills going forward, or in `spill` if that is
// more.
template <class T, class F>
void each_sweep(const BoundFactorial<T>& p, double* kept, int64_t spill, int64_t extra, F&& body) {
  const int64_t forward = factorial_forward_spill(p.c), own = std::max(forward, spill), alphas = p.alphas();
  each_range<double>(p, own + extra + (kept ? 0 : alphas), [&](int64_t first, int64_t count, double* memory) {
    double* alpha = kept ? kept + first * alphas : memory + count * (own + extra);
    if (!kept) run_forward<T>(p.c, {first, count, alpha, forward ? memory : nullptr}, nullptr, nullptr, p.stream);
    body(Beginnings{first, count, alpha, spill ? memory : nullptr}, memory + count * own);
  });
}

// log Z, and alpha of all items where it is given.
template <class T>
Tensor log_partitions(const BoundFactorial<T>& p, double* alpha, bool as_double) {
  Tensor z = p.empty(p.batch, as_double ? ScalarType::Double : scalar_type<T>);
  double* wide = z.scalar_type() == ScalarType::Double ? z.mutable_data_ptr<double>() : nullptr;
  T* narrow = wide ? nullptr : z.mutable_data_ptr<T>();
  const int64_t spill = factorial_forward_spill(p.c);
  each_range<double>(p, spill, [&](int64_t first, int64_t count, double* memory) {
    double* own = alpha ? alpha + first * p.alphas() : nullptr;
    run_forward(p.c, {first, count, own, spill ? memory : nullptr}, wide, narrow, p.stream);
  });
  return z;
}

// The chart has the size of the CPU's, and keeps alpha in float64 where it fits; otherwise the backward pass forms it
// again.
template <class T>
int64_t chart_size(const BoundFactorial<T>& p) {
  return p.items * (p.n * (p.k + 1) + 8);
}
template <class T>
double* kept_alpha(const BoundFactorial<T>& p, const Tensor& chart) {
  void* data = const_cast<void*>(chart.const_data_ptr());
  const bool fits = chart_size(p) * int64_t(sizeof(T)) >= p.items * p.alphas() * 8;
  return fits && reinterpret_cast<uintptr_t>(data) % 8 == 0 ? static_cast<double*>(data) : nullptr;
}

// Posterior weights into unary (*b, n, S), and those of edges into `steps`, step by step, or their sums over steps and
// the items of each row into `edges`: one of them, or none where there are no steps.
template <class T>
void backward_pass(const BoundFactorial<T>& p, double* kept, const double* weight, T* unary, T* steps,
                   const RowMap& rows, T* edges) {
  const int64_t partial = factorial_partial_size(p.c), counts = steps ? 0 : p.c.edges;
  const Tensor sums = p.doubles(edges ? int64_t(rows.rows) * p.c.edges : 0);
  each_sweep(p, kept, factorial_backward_spill(p.c), partial + counts, [&](const Beginnings& s, double* memory) {
    double* own = memory + s.count * partial;
    run_backward(p.c, s, {weight, memory, unary, steps, own}, p.stream);
    if (edges) run_sum_edges(p.c, s, rows, own, data_of(sums), edges, p.stream);
  });
}
// The covariances with <v, parts>, and its mean.
template <class T>
void tangent_pass(const BoundFactorial<T>& p, const BoundFactorial<T>& v, const double* weight, T* mean, T* unary,
                  T* edges) {
  const int64_t partial = factorial_partial_size(p.c), own = partial + p.c.edges;
  const RowMap& rows = p.transition.rows;
  const Tensor sums = p.doubles(int64_t(rows.rows) * p.c.edges);
  each_sweep(p, nullptr, factorial_tangent_spill(p.c), own + p.alphas(), [&](const Beginnings& s, double* memory) {
    double *counts = memory + s.count * partial, *prefix = memory + s.count * own;
    run_tangent(p.c, s, Direction<T>{v.c, prefix, mean}, {weight, memory, unary, nullptr, counts}, p.stream);
    run_sum_edges(p.c, s, rows, counts, data_of(sums), edges, p.stream);
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
