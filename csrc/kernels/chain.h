// The linear chain as the kernels see it: raw pointers, no torch.
//
//   score(z) = sum_t unary[t, z_t] + sum_t transition[t, z_t, z_t+1] + initial[z_0] + final[z_len-1]
//
// Potentials that are shared over items or steps are shared here too: `matrix[b]` says which transition an item uses,
// and `per_step` whether that is one matrix or n-1 of them.
#pragma once
#include <cstdint>

#include "kernels/distinct.h"

namespace slv {

template <class T>
struct Chain {
  int64_t batch, n, k;
  bool per_step;
  const T* unary;         // (batch, n, k)
  const T* transition;    // (matrices, k, k) or (matrices, n-1, k, k)
  const T* initial;       // (initials, k) or null
  const T* final;         // (finals, k) or null
  const int64_t* matrix;  // item -> row of transition, or null: all 0
  const int64_t* initial_row;
  const int64_t* final_row;
  const int64_t* length;  // clamped to 0..n, or null: all n
  int64_t steps() const { return !per_step ? 1 : n > 1 ? n - 1 : 0; }
};

// Where the weights of the edges of one item go: (steps, k, k), written (`direct`) or added to a float64 accumulator.
template <class T>
struct EdgeSink {
  T* direct;    // per step and per item: every element is written, padding included
  double* sum;  // else: added to, unless null; `sum_step` is 0 where all steps share one matrix
  int64_t sum_step;
};

// v of a Hessian-vector product; the same sharing as a Chain, of its own.
template <class T>
struct Direction {
  const T* unary;
  const T* transition;
  const T* initial;
  const T* final;
  int64_t transition_step;  // k*k where v is per step, 0 where it is shared by all
  const int64_t* matrix;
  const int64_t* initial_row;
  const int64_t* final_row;
};

// Exact log space, one item at a time, float64 inside. The last rung of the ladder and the home of the rarer queries.
template <class T>
struct ChainLogKernels {
  double (*log_partition)(const Chain<T>&, int64_t item);
  void (*marginals)(const Chain<T>&, int64_t item, double weight, T* unary, const EdgeSink<T>& edges);
  double (*hvp)(const Chain<T>&, int64_t item, double weight, const Direction<T>& v, T* unary,
                const EdgeSink<T>& edges);
  void (*argmax)(const Chain<T>&, int64_t item, int64_t* states);
  void (*max_marginals)(const Chain<T>&, int64_t item, T* unary, T* transition);
  void (*topk)(const Chain<T>&, int64_t item, int64_t k, int64_t* states, int64_t stride);
  void (*sample)(const Chain<T>&, int64_t item, uint64_t seed, int64_t samples, int64_t* states, int64_t stride);
  void (*sample_distinct)(const Chain<T>&, int64_t item, uint64_t seed, int64_t count, const DistinctSink& out);
  void (*filter)(const Chain<T>&, int64_t item, T* out);
  void (*filter_vjp)(const Chain<T>&, int64_t item, const T* grad, T* unary, const EdgeSink<T>& edges);
};

// Where the edge weights of a block of items go; nowhere if all are null.
template <class T>
struct BlockEdges {
  double* shared = nullptr;  // (k, k), added to: all items
  T* per_item = nullptr;     // (batch, k, k), written
  T* per_step = nullptr;     // (batch, n-1, k, k), written
};

// A block's part of a chart: alpha and e of its steps, their scales; meta by item. Nowhere if null.
template <class T>
struct ChainChart {
  T *states = nullptr, *scales = nullptr, *meta = nullptr;
};

// Scaled linear domain, a block of up to kMaxRows items that share one transition for all their steps; prepared once.
constexpr int kMaxRows = 32;
constexpr int kMeta = 8;  // elements of a chart kept per item: 1/Z, and whether the item was done elsewhere
template <class T>
struct ChainScanKernels {
  void* (*prepare)(const T* transition, int64_t k);
  void (*release)(void*);
  // log_z: by item
  void (*forward)(const Chain<T>&, void* matrix, const int64_t* items, int rows, const ChainChart<T>& chart,
                  double* log_z);
  // weight: by item, or null for ones
  void (*backward)(const Chain<T>&, void* matrix, const int64_t* items, int rows, const ChainChart<T>& chart,
                   const double* weight, T* unary, const BlockEdges<T>& edges);
  // v.transition shared by all steps; weight, mean: by item; edges (k, k): added to
  void (*hvp)(const Chain<T>&, void* matrix, const int64_t* items, int rows, const double* weight,
              const Direction<T>& v, T* mean, T* unary, double* edges);
  // out, grad, unary (batch, n, k); edges (k, k): added to
  void (*filter)(const Chain<T>&, void* matrix, const int64_t* items, int rows, const ChainChart<T>& chart, T* out);
  void (*filter_vjp)(const Chain<T>&, void* matrix, const int64_t* items, int rows, const ChainChart<T>& chart,
                     const T* grad, T* unary, double* edges);
  void (*sample)(const Chain<T>&, void* matrix, const int64_t* items, int rows, uint64_t seed, int64_t samples,
                 int64_t* states);
  void* (*viterbi_prepare)(const T* transition, int64_t k);
  void (*viterbi_release)(void*);
  void (*viterbi)(const Chain<T>&, void* matrix, const int64_t* items, int rows, int64_t* states);
};

// Scaled linear domain, one item with a transition of its own at every step.
template <class T>
struct ChainDenseKernels {
  // chart, scales, meta: this item's parts, or null; returns log Z
  double (*forward)(const Chain<T>&, int64_t item, T* chart, T* scales, T* meta);
  // the same parts, or null: then the forward pass is made here; `stream`: the edges are much larger than the cache
  void (*backward)(const Chain<T>&, int64_t item, double weight, T* chart, T* scales, const T* meta, T* unary,
                   const EdgeSink<T>& edges, bool stream);
};

// Relaxed backward sampling: `unary` of the chain holds filtered log-probabilities (see chain_relaxed.h).
template <class T>
struct ChainRelaxedKernels {
  void (*columns)(const T* transition, int64_t steps, int64_t k, T* out);
  void (*sample)(const Chain<T>&, int64_t item, uint64_t seed, int64_t sample, T temperature, const T* columns,
                 int64_t* states, T* relaxed);
  double (*vjp)(const Chain<T>&, int64_t item, T temperature, const T* grad, const int64_t* states, const T* relaxed,
                bool first, T* unary, double* edges, double* final);
  // sum over steps of the outer product of one's row of states (n, k) with the next one's: out (k, k)
  void (*pairs)(const T* states, int64_t n, int64_t k, T* out);
};

struct Kernels {
  const char* name;
  int vector_bytes;
  ChainScanKernels<float> scan_f32;
  ChainScanKernels<double> scan_f64;
  ChainDenseKernels<float> dense_f32;
  ChainDenseKernels<double> dense_f64;
  ChainLogKernels<float> log_f32;
  ChainLogKernels<double> log_f64;
  ChainRelaxedKernels<float> relaxed_f32;
  ChainRelaxedKernels<double> relaxed_f64;
  bool (*has_nan_f32)(const float*, int64_t);
  bool (*has_nan_f64)(const double*, int64_t);
};
const Kernels* kernels_base();
const Kernels* kernels_avx2();
const Kernels* kernels_avx512();

}  // namespace slv
