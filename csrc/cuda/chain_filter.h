// Filtering of chains on a GPU, and relaxed backward sampling from what it finds: the launches of their kernels. The
// forward pass is that of chain.h, of a chain without final scores.
#pragma once
#include "cuda/chain.h"

namespace slv::cuda {

// Relaxed samples: (samples, batch, n) states, (samples, batch, n, k) weights.
template <class T>
struct Relaxed {
  const T* temperature;  // (batch)
  int64_t samples;
  int64_t* states;
  T* weights;
};
// What comes back from them.
template <class T>
struct RelaxedAdjoint {
  const T* grad;  // (samples, batch, n, k)
  T* change;      // the same shape: what each sample gives the perturbed scores
  T* unary;       // (batch, n, k): the sum over samples
  double* heat;   // (batch, n)
  T* total_heat;  // (batch)
};

// out (batch, n, k), or null; afterwards s.e holds alpha P of the step before, and the chart is what filter_backward
// takes
template <class T>
void run_filter(const Chain<T>&, const Scaled<T>&, T* out, Stream);
// g: the cotangent of unnormalised rows, from `grad` (batch, n, k), that of filtered rows
template <class T>
void filter_cotangent(const Chain<T>&, const Scaled<T>&, const T* grad, T* g, Stream);
template <class T>
void filter_backward(const Chain<T>&, const Scaled<T>&, const Adjoint<T>&, Stream);
// out, or where `grad` is given its cotangent into l.mu
template <class T>
void log_filter(const Chain<T>&, const LogSpace<T>&, const T* grad, T* out, Stream);
template <class T>
void log_filter_backward(const Chain<T>&, const LogSpace<T>&, T* unary, Stream);

// Of a chain whose `unary` is filtered. The weights hold the noise first; columns (rows, k, k): the transition
// transposed, or null per step
template <class T>
void run_relaxed(const Chain<T>&, const T* columns, const Relaxed<T>&, Stream);
template <class T>
void relaxed_backward(const Chain<T>&, const Relaxed<T>&, const RelaxedAdjoint<T>&, Stream);
// Adds the weights of edges.
template <class T>
void relaxed_edges(const Chain<T>&, const Relaxed<T>&, const RelaxedAdjoint<T>&, const Edges<T>&, Stream);

}  // namespace slv::cuda
