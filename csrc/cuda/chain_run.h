// From tensors on a GPU to the launches of the chain's kernels: workspaces, the ladder, sums over items.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <vector>

#include "cuda/bind.h"
#include "cuda/chain.h"

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

// Steps of a chunk where the chain is cut (csrc/cuda/chain_chunks.cuh), or 0: where an item has too many steps for a
// block, a block for each item is far from filling a GPU, and so are the products, which take k^3 for each step. On
// paper they take as long as all of the rest where batch k^3 is 2^21. Two times the chunks' steps and one of their
// number follow one another: about sqrt(n) of each. STRUCTLV_CUDA_CHUNK says it instead.
template <class T>
int64_t chunk_steps(const Chain<T>& c) {
  constexpr int64_t kLong = 1024, kProducts = int64_t(1) << 21, kUnit = 32;
  if (const char* wanted = std::getenv("STRUCTLV_CUDA_CHUNK"); wanted && *wanted) {
    char* end = nullptr;
    const long size = std::strtol(wanted, &end, 10);
    STD_TORCH_CHECK(*end == 0 && size >= 0, "STRUCTLV_CUDA_CHUNK: expected a number of steps, or 0, found ", wanted);
    return std::min<int64_t>(size, std::max(c.n, 1));
  }
  if (c.n < kLong || c.batch >= kBlocks || double(c.batch) * std::pow(double(c.k), 3) > double(kProducts)) return 0;
  return (int64_t(std::sqrt(double(c.n))) + kUnit - 1) / kUnit * kUnit;
}

// Its workspace. The parts that the backward pass needs lie in a chart, of the size that the CPU's has.
template <class T>
struct ScaledRun {
  const Bound<T>& p;
  Scaled<T> s{};
  Cut<T> cut;
  std::vector<Tensor> keep;

  explicit ScaledRun(const Bound<T>& p, bool transposed = false) : p(p), cut(uncut(p.chain)) {
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
  template <class U = T>
  U* zeros(int64_t count, ScalarType dtype = scalar_type<T>) {
    U* out = take<U>(count, dtype);
    torch::stable::zero_(keep.back());
    return out;
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
    if (cut_up()) chunk_starts(p.chain, cut, p.stream);
    each_pass([&](const Cut<T>& pass) { cuda::forward(p.chain, s, pass, p.stream); });
  }
  void backward(const Adjoint<T>& a) {
    if (cut_up()) chunk_ends(p.chain, s, cut, p.stream);
    each_pass([&](const Cut<T>& pass) { cuda::backward(p.chain, s, a, pass, p.stream); });
  }
  // The forward pass with a chart of its own.
  void forward_kept() { forward(take(chart_size(p))); }
  // Whether the chain is cut; if so, the products of chunks are there then. Where only the chart of the forward pass is
  // left, powers of two that rows have in common are not known, nor needed, and its items have no row to be watched
  // for.
  bool cut_up() {
    const int64_t size = chunk_steps(p.chain), count = size > 0 ? (p.n + size - 1) / size : 1;
    if (count < 2) return false;
    if (cut.product) return true;
    const int64_t chunks = p.items * count;
    cut = {int(size),
           int(count),
           take<int>(p.items, ScalarType::Int),
           take(chunks * p.k * p.k),
           take<double>(chunks * p.k, ScalarType::Double),
           take(chunks * p.k),
           take<double>(chunks, ScalarType::Double),
           take<int>(chunks, ScalarType::Int)};
    if (!s.row_code) {
      s.row_exponent = zeros(p.items * p.n);
      s.row_code = zeros<int>(p.items * p.n, ScalarType::Int);
    }
    chunk_products(p.chain, s, cut, p.stream);
    return true;
  }
  // As chunks, and as one chunk what is lost in those.
  template <class F>
  void each_pass(F&& run) {
    run(cut);
    if (cut.count < 2) return;
    Cut<T> again = uncut(p.chain);
    again.only = cut.lost, again.of = cut.count;
    run(again);
  }
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
  run.backward(a);
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

}  // namespace
}  // namespace slv::cuda
