// The factorial chain as the kernels see it: raw pointers, no torch. m chains of k_1..k_m states that only the unary
// scores couple; z_t is one of S = k_1 ... k_m joint states in row-major order (the last chain fastest).
//
//   score(z) = sum_t unary[t, z_t] + sum_i ( initial_i[z^i_0] + sum_t transition_i[z^i_t, z^i_t+1] )
#pragma once
#include <algorithm>

#include "kernels/chain.h"

namespace slv {

template <class T>
struct Factorial {
  int64_t batch, n, m, states;  // states: S
  const int64_t* sizes;         // (m): k_i
  int64_t edges, ends;          // P = sum k_i^2 and Q = sum k_i
  const T* unary;               // (batch, n, S)
  const T* transition;          // (matrices, P): the matrices one after the other; (matrices, n-1, P) when per_step
  const T* initial;             // (initials, Q) or null
  const int64_t* matrix;        // item -> row of transition, or null: all 0
  const int64_t* initial_row;
  const int64_t* length;  // clamped to 0..n, or null: all n
  bool per_step = false;  // of a direction alone: that of edges step by step
  int64_t len(int64_t item) const { return length ? length[item] : n; }
  const T* transition_of(int64_t item) const {
    return transition + (matrix ? matrix[item] : 0) * (per_step ? std::max<int64_t>(n - 1, 0) : 1) * edges;
  }
  const T* initial_of(int64_t item) const {
    return initial ? initial + (initial_row ? initial_row[item] : 0) * ends : nullptr;
  }
  // Calls body(i, k, first element of its matrix, first element of its initial scores) for the chains in order.
  template <class F>
  void each_chain(F&& body) const {
    for (int64_t i = 0, edge = 0, end = 0; i < m; i++) {
      const int64_t k = sizes[i];
      body(i, k, edge, end);
      edge += k * k, end += k;
    }
  }
};

// Exact log space, one item at a time, float64 inside. The last rung of the ladder and the home of second order.
template <class T>
struct FactorialLogKernels {
  double (*log_partition)(const Factorial<T>&, int64_t item);
  // unary (n, S) is written; edges go to (n-1, P), written, or are added to (P)
  void (*marginals)(const Factorial<T>&, int64_t item, double weight, T* unary, const EdgeSink<T>& edges);
  // v: a direction with sharing of its own
  double (*hvp)(const Factorial<T>&, int64_t item, double weight, const Factorial<T>& v, T* unary,
                const EdgeSink<T>& edges);
};

// Scaled linear domain, a block of up to `block` items, which depends on the sizes and on sharing alone; never more
// than kMostLanes.
constexpr int kMostLanes = 16;
template <class T>
struct FactorialLaneKernels {
  int (*block)(const Factorial<T>&);
  // states (n, S, rows) and scales (n, rows): this block's part of the chart, or null; meta, log_z: by item
  void (*forward)(const Factorial<T>&, const int64_t* items, int rows, T* states, T* scales, T* meta, double* log_z);
  // weight: by item, or null for ones; edges: of each row, (P), or (n-1, P) step by step: all are written
  void (*backward)(const Factorial<T>&, const int64_t* items, int rows, T* states, T* scales, const T* meta,
                   const double* weight, T* unary, T* const* edges, bool per_step);
  // paths: (samples, batch, n), filled with -1
  void (*sample)(const Factorial<T>&, const int64_t* items, int rows, uint64_t seed, int64_t samples, int64_t* paths);
  void (*argmax)(const Factorial<T>&, const int64_t* items, int rows, int64_t* paths);
};

struct FactorialKernels {
  FactorialLaneKernels<float> lanes_f32;
  FactorialLaneKernels<double> lanes_f64;
  FactorialLogKernels<float> log_f32;
  FactorialLogKernels<double> log_f64;
};
const FactorialKernels* factorial_kernels_base();
const FactorialKernels* factorial_kernels_avx2();
const FactorialKernels* factorial_kernels_avx512();

}  // namespace slv
