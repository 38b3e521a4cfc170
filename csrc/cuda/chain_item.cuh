// One item of a chain, as its block of threads sees it.
#pragma once
#include "cuda/chain.h"
#include "cuda/warp.cuh"

namespace slv::cuda {

template <class T>
SLV_DEVICE int length_of(const Chain<T>& c, int64_t b) {
  if (!c.length) return c.n;
  const int64_t len = c.length[b];
  return len < 0 ? 0 : len > c.n ? c.n : int(len);
}

template <class T>
struct Item {
  int len, k;
  int64_t matrix, step;  // the first of its matrices, and how many lie between two steps: 0 or 1
  const T *unary, *transition, *initial, *final;
  SLV_DEVICE Item(const Chain<T>& c, int64_t b)
      : len(length_of(c, b)),
        k(c.k),
        matrix(c.matrix.row(b) * c.steps()),
        step(c.per_step ? 1 : 0),
        unary(c.unary + b * c.n * c.k),
        transition(c.transition + matrix * c.k * c.k),
        initial(c.initial ? c.initial + c.initial_row.row(b) * c.k : nullptr),
        final(c.final ? c.final + c.final_row.row(b) * c.k : nullptr) {}
  // The scores of state i at step t but for unary: those of the ends.
  template <class A = T>
  SLV_DEVICE A end(int t, int i) const {
    A x = 0;
    if (t == 0 && initial) x += A(initial[i]);
    if (t == len - 1 && final) x += A(final[i]);
    return x;
  }
  // All scores of state i at step t, added up as A.
  template <class A = T>
  SLV_DEVICE A u(int t, int i) const {
    return A(unary[int64_t(t) * k + i]) + end<A>(t, i);
  }
  SLV_DEVICE const T* edges(int t) const { return transition + t * step * k * k; }
};

}  // namespace slv::cuda
