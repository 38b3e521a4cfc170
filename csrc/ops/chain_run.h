// The loops over items: scaled kernels in blocks where the steps share one transition, item by item otherwise.
#pragma once
#include "ops/chain_bind.h"
#include "ops/chain_plan.h"
#include "ops/dispatch.h"
#include "ops/parallel.h"

namespace slv {

template <class T>
const ChainLogKernels<T>& log_kernels() {
  if constexpr (sizeof(T) == 4)
    return kernels().log_f32;
  else
    return kernels().log_f64;
}
template <class T>
const ChainScanKernels<T>& scan_kernels() {
  if constexpr (sizeof(T) == 4)
    return kernels().scan_f32;
  else
    return kernels().scan_f64;
}

template <class T>
const ChainDenseKernels<T>& dense_kernels() {
  if constexpr (sizeof(T) == 4)
    return kernels().dense_f32;
  else
    return kernels().dense_f64;
}

// Operations of one inside pass: in the scaled domain, and in exact log space.
template <class T>
double scan_work(const Chain<T>& c) {
  return double(c.batch) * double(c.n) * double(c.k) * (2 * double(c.k) + 40);
}
template <class T>
double log_work(const Chain<T>& c) {
  return double(c.batch) * double(c.n) * double(c.k) * double(c.k) * 30;
}

template <class T>
double dense_work(const Chain<T>& c) {
  return double(c.batch) * double(c.n) * double(c.k) * (8 * double(c.k) + 40);
}

// The parts of a chart: alpha and e of each block, scales of each block, kMeta elements of each item.
template <class T>
struct Chart {
  T *states = nullptr, *scales = nullptr, *meta = nullptr;
  int64_t n = 0, width = 0;
  Chart() = default;
  Chart(T* data, const Chain<T>& c) : states(data), n(c.n), width(2 * padded_states(c.k)) {
    scales = states + c.batch * n * width;
    meta = scales + c.batch * n;
  }
  // What the operator `source` returned.
  static Chart of(const char* source, const Tensor& data, const Chain<T>& c) {
    STD_TORCH_CHECK(data.scalar_type() == scalar_type<T> && data.is_contiguous() && data.numel() == size(c),
                    "chart: expected what ", source, " returned for these potentials");
    return {const_cast<T*>(data.const_data_ptr<T>()), c};
  }
  static int64_t padded_states(int64_t k) {
    constexpr int64_t w = 64 / sizeof(T);
    return (k + w - 1) / w * w;
  }
  static int64_t size(const Chain<T>& c) { return c.batch * (c.n * (2 * padded_states(c.k) + 1) + kMeta); }
  T* block(int64_t first) const { return states ? states + first * n * width : nullptr; }
  T* block_scales(int64_t first) const { return scales ? scales + first * n : nullptr; }
  ChainChart<T> part(int64_t first) const { return {block(first), block_scales(first), meta}; }
};

template <class T>
void run_inside(const Chain<T>& c, const Chart<T>& chart, double* log_z) {
  if (c.per_step) {
    parallel_units(c.batch, dense_work(c), [&](int64_t b) {
      log_z[b] = dense_kernels<T>().forward(c, b, chart.block(b), chart.block_scales(b),
                                            chart.meta + (chart.meta ? b * kMeta : 0));
    });
    return;
  }
  const auto& kernel = scan_kernels<T>();
  const Plan plan = make_plan(c, block_rows(c), 1);
  const Prepared<T> matrices(c, kernel.prepare, kernel.release);
  parallel_units(plan.blocks.size(), scan_work(c), [&](int64_t u) {
    const Plan::Block& b = plan.blocks[u];
    auto own = matrices.none();
    kernel.forward(c, matrices.get(b.matrix, own), plan.order.data() + b.first, int(b.rows), chart.part(b.first),
                   log_z);
  });
}

// Adds up `sums` (one row of `size` for each group) over the groups of each of `matrices` transitions, in order.
template <class T>
void add_groups(const Plan& plan, int64_t matrices, int64_t size, const std::vector<double>& sums, T* out) {
  if (plan.groups.empty()) std::fill(out, out + matrices * size, T(0));
  std::vector<double> total(size);
  for (size_t g = 0, end; g < plan.groups.size(); g = end) {
    std::fill(total.begin(), total.end(), 0.0);
    for (end = g; end < plan.groups.size() && plan.groups[end].matrix == plan.groups[g].matrix; end++)
      for (int64_t e = 0; e < size; e++) total[e] += sums[end * size + e];
    std::transform(total.begin(), total.end(), out + plan.groups[g].matrix * size, [](double x) { return T(x); });
  }
}

// Calls body(item, sink) for every item and leaves in `out` (rows, steps, k, k) the sums over the items of each row.
template <class T, class F>
void sum_edges(const Chain<T>& c, int64_t rows, bool per_step, T* out, F&& body) {
  const int64_t kk = c.k * c.k, size = (per_step ? std::max<int64_t>(c.n - 1, 0) : 1) * kk;
  const bool direct = per_step && rows == c.batch;
  // Sums of every step are large, and each takes its time to be cleared and added up: few of them. That bounds how many
  // threads can share the items of one transition.
  const int64_t few = std::clamp<int64_t>((int64_t(1) << 20) / std::max<int64_t>(size, 1), 8, 32);
  const Plan plan = make_plan(c, 1, per_step ? std::min(accumulators(size), few) : accumulators(size));
  std::vector<double> sums(direct ? 0 : plan.groups.size() * size);
  parallel_units(plan.groups.size(), 3 * log_work(c), [&](int64_t g) {
    const Plan::Group& group = plan.groups[g];
    for (int64_t q = group.first; q < group.first + group.blocks; q++) {
      const int64_t b = plan.order[plan.blocks[q].first];
      body(b, direct ? EdgeSink<T>{out + b * size, nullptr, 0}
                     : EdgeSink<T>{nullptr, sums.data() + g * size, per_step ? kk : 0});
    }
  });
  if (!direct) add_groups(plan, rows, size, sums, out);
}

// Whether edge weights are written past the cache.
template <class T>
bool streams(const Chain<T>& c) {
  return double(c.batch) * double(c.n) * double(c.k * c.k) * sizeof(T) > 12e6;
}

// Calls body(matrix, items, rows, first, sums) for every block; leaves in `out` (matrices, k, k) what that added to
// `sums` (k, k), over the items of each transition. `first` is the block's place in the order of items.
template <class T, class F>
void sum_blocks(const Chain<T>& c, int64_t matrices_count, double work, T* out, F&& body) {
  const auto& kernel = scan_kernels<T>();
  const int64_t size = c.k * c.k;
  const Plan plan = make_plan(c, block_rows(c), accumulators(size));
  const Prepared<T> matrices(c, kernel.prepare, kernel.release);
  std::vector<double> sums(plan.groups.size() * size);
  parallel_units(plan.groups.size(), work, [&](int64_t g) {
    const Plan::Group& group = plan.groups[g];
    auto own = matrices.none();
    void* matrix = matrices.get(group.matrix, own);
    for (int64_t q = group.first; q < group.first + group.blocks; q++) {
      const Plan::Block& b = plan.blocks[q];
      body(matrix, plan.order.data() + b.first, int(b.rows), b.first, sums.data() + g * size);
    }
  });
  add_groups(plan, matrices_count, size, sums, out);
}

// The gradient of <weight, log Z>: unary (batch, n, k); transition in its own shape.
template <class T>
void run_adjoint(const Chain<T>& c, int64_t matrices_count, const Chart<T>& chart, const double* weight, T* unary,
                 T* transition) {
  if (c.per_step) {
    sum_edges(c, matrices_count, true, transition, [&](int64_t b, const EdgeSink<T>& sink) {
      dense_kernels<T>().backward(c, b, weight[b], chart.block(b), chart.block_scales(b), chart.meta + b * kMeta, unary,
                                  sink, streams(c));
    });
    return;
  }
  const auto& kernel = scan_kernels<T>();
  sum_blocks(c, matrices_count, 3 * scan_work(c), transition,
             [&](void* matrix, const int64_t* items, int rows, int64_t first, double* sums) {
               kernel.backward(c, matrix, items, rows, chart.part(first), weight, unary,
                               BlockEdges<T>{sums, nullptr, nullptr});
             });
}

// <v, marginals> of each item, and the gradient of its weighted sum: unary (batch, n, k); transition in its own shape.
template <class T>
void run_hvp(const Chain<T>& c, int64_t matrices_count, const Direction<T>& v, const double* weight, T* mean, T* unary,
             T* transition) {
  if (c.per_step || v.transition_step) {
    sum_edges(c, matrices_count, c.per_step, transition, [&](int64_t b, const EdgeSink<T>& sink) {
      mean[b] = T(log_kernels<T>().hvp(c, b, weight[b], v, unary + b * c.n * c.k, sink));
    });
    return;
  }
  const auto& kernel = scan_kernels<T>();
  sum_blocks(c, matrices_count, 8 * scan_work(c), transition,
             [&](void* matrix, const int64_t* items, int rows, int64_t, double* sums) {
               kernel.hvp(c, matrix, items, rows, weight, v, mean, unary, sums);
             });
}

// Marginals of every item by itself: edges summed over its steps (k, k), or step by step (n-1, k, k); no edges if null.
template <class T>
void run_marginals(const Chain<T>& c, bool per_step, T* unary, T* edges) {
  if (c.per_step && !edges) {
    parallel_units(c.batch, 3 * dense_work(c), [&](int64_t b) {
      dense_kernels<T>().backward(c, b, 1, nullptr, nullptr, nullptr, unary, EdgeSink<T>{nullptr, nullptr, 0}, false);
    });
    return;
  }
  if (c.per_step) {
    std::vector<int64_t> identity(c.batch);
    for (int64_t b = 0; b < c.batch; b++) identity[b] = b;
    Chain<T> own = c;
    own.matrix = identity.data();  // one row of sums for each item
    sum_edges(own, c.batch, per_step, edges, [&](int64_t b, const EdgeSink<T>& sink) {
      dense_kernels<T>().backward(c, b, 1, nullptr, nullptr, nullptr, unary, sink, streams(c));
    });
    return;
  }
  const auto& kernel = scan_kernels<T>();
  const Plan plan = make_plan(c, block_rows(c), 1);
  const Prepared<T> matrices(c, kernel.prepare, kernel.release);
  const BlockEdges<T> target{nullptr, per_step ? nullptr : edges, per_step ? edges : nullptr};
  std::vector<T> meta(c.batch * kMeta);
  std::vector<double> log_z(c.batch);
  parallel_units(plan.blocks.size(), 4 * scan_work(c), [&](int64_t u) {
    const Plan::Block& b = plan.blocks[u];
    const int64_t* items = plan.order.data() + b.first;
    auto own = matrices.none();
    void* matrix = matrices.get(b.matrix, own);
    const int64_t states = b.rows * c.n * 2 * Chart<T>::padded_states(c.k);
    std::unique_ptr<T[]> data(new T[states + b.rows * c.n]);
    const ChainChart<T> chart{data.get(), data.get() + states, meta.data()};
    kernel.forward(c, matrix, items, int(b.rows), chart, log_z.data());
    kernel.backward(c, matrix, items, int(b.rows), chart, nullptr, unary, target);
  });
}

// log p(z_t | scores of steps up to t): out (batch, n, k). A chart is kept where steps share one transition.
template <class T>
void run_filter(const Chain<T>& c, const Chart<T>& chart, T* out) {
  if (c.per_step) {
    parallel_units(c.batch, log_work(c), [&](int64_t b) { log_kernels<T>().filter(c, b, out + b * c.n * c.k); });
    return;
  }
  const auto& kernel = scan_kernels<T>();
  const Plan plan = make_plan(c, block_rows(c), 1);
  const Prepared<T> matrices(c, kernel.prepare, kernel.release);
  parallel_units(plan.blocks.size(), 2 * scan_work(c), [&](int64_t u) {
    const Plan::Block& b = plan.blocks[u];
    auto own = matrices.none();
    kernel.filter(c, matrices.get(b.matrix, own), plan.order.data() + b.first, int(b.rows), chart.part(b.first), out);
  });
}
template <class T>
void run_filter_vjp(const Chain<T>& c, int64_t matrices_count, const Chart<T>& chart, const T* grad, T* unary,
                    T* transition) {
  if (c.per_step) {
    sum_edges(c, matrices_count, true, transition, [&](int64_t b, const EdgeSink<T>& sink) {
      log_kernels<T>().filter_vjp(c, b, grad, unary + b * c.n * c.k, sink);
    });
    return;
  }
  sum_blocks(c, matrices_count, 5 * scan_work(c), transition,
             [&](void* matrix, const int64_t* items, int rows, int64_t first, double* sums) {
               scan_kernels<T>().filter_vjp(c, matrix, items, rows, chart.part(first), grad, unary, sums);
             });
}

// The gradient of initial or final: the unary gradient at the first or last step, summed over the items of each row.
template <class T>
Tensor end_gradient(const Bound<T>& p, const Operand& x, const MaybeTensor& like, const T* unary, bool last) {
  return sum_over_items<T>(p, x, like, p.k, [&](int64_t b) -> const T* {
    const int64_t len = p.chain.length ? p.chain.length[b] : p.n;
    return len > 0 ? unary + (b * p.n + (last ? len - 1 : 0)) * p.k : nullptr;
  });
}

template <class T>
void run_argmax(const Chain<T>& c, int64_t* states) {
  if (c.per_step) {
    parallel_units(c.batch, log_work(c), [&](int64_t b) { log_kernels<T>().argmax(c, b, states + b * c.n); });
    return;
  }
  const auto& kernel = scan_kernels<T>();
  const int64_t fit =
      (int64_t(64) << 20) / std::max<int64_t>(1, c.n * c.k * int64_t(sizeof(T)));  // scores kept for the traceback
  const Plan plan = make_plan(c, std::clamp<int64_t>(fit, 1, block_rows(c)), 1);
  const Prepared<T> matrices(c, kernel.viterbi_prepare, kernel.viterbi_release);
  parallel_units(plan.blocks.size(), scan_work(c), [&](int64_t u) {
    const Plan::Block& b = plan.blocks[u];
    auto own = matrices.none();
    kernel.viterbi(c, matrices.get(b.matrix, own), plan.order.data() + b.first, int(b.rows), states);
  });
}

template <class T>
void run_sample(const Chain<T>& c, uint64_t seed, int64_t samples, int64_t* states) {
  const double draws = double(samples) * double(c.batch) * double(c.n) * double(c.k);
  if (c.per_step) {
    parallel_units(c.batch, log_work(c) + 20 * draws,
                   [&](int64_t b) { log_kernels<T>().sample(c, b, seed, samples, states + b * c.n, c.batch * c.n); });
    return;
  }
  const auto& kernel = scan_kernels<T>();
  std::fill(states, states + samples * c.batch * c.n, -1);
  const Plan plan = make_plan(c, block_rows(c), 1);
  const Prepared<T> matrices(c, kernel.prepare, kernel.release);
  parallel_units(plan.blocks.size(), scan_work(c) + 4 * draws, [&](int64_t u) {
    const Plan::Block& b = plan.blocks[u];
    auto own = matrices.none();
    kernel.sample(c, matrices.get(b.matrix, own), plan.order.data() + b.first, int(b.rows), seed, samples, states);
  });
}

}  // namespace slv
