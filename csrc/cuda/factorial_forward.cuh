// Forward, in log space: a step is a move of each chain in turn, a'(o, j, q) = log sum_i exp(a(o, i, q) + A[i, j]), o
// the states of the chains before it and q of those after. A block has one item, a thread the joint states that are its
// own.
#pragma once
#include "cuda/factorial.h"
#include "cuda/log_sum.cuh"

namespace slv::cuda {

// One chain's move among the joint states of an item.
template <class T>
struct Move {
  int chain, k, inner, edge;  // inner: joint states of the chains after it; edge: the first of its matrix
  int padded;                 // the first of its matrix, as the scaled domain has it
  const T* a;                 // (k, k)
  SLV_DEVICE int state(int z) const { return z / inner % k; }
  // The sum over what the chain may have come from into joint state z, from the sums in `from`.
  SLV_DEVICE LogSum into(const double* from, int z) const {
    const int j = state(z), base = z - j * inner;
    return log_sum(0, k, [&](int i) { return from[base + i * inner] + double(a[i * k + j]); });
  }
};

// One item, as its block of threads sees it.
template <class T>
struct JointItem {
  const Factorial<T>& c;
  int len;
  const T *unary, *transition, *initial;
  SLV_DEVICE JointItem(const Factorial<T>& c, int64_t b)
      : c(c),
        len(c.n),
        unary(c.unary + b * c.n * c.states),
        transition(c.transition + c.matrix.row(b) *
                                      (!c.per_step ? 1
                                       : c.n > 1   ? c.n - 1
                                                   : 0) *
                                      c.edges),
        initial(c.initial ? c.initial + c.initial_row.row(b) * c.ends : nullptr) {
    if (!c.length) return;
    const int64_t given = c.length[b];
    len = given < 0 ? 0 : given > c.n ? c.n : int(given);
  }
  // The scores of joint state z at step t but for transitions, added up as A.
  template <class A>
  SLV_DEVICE A u(int t, int z) const {
    A x = A(unary[int64_t(t) * c.states + z]);
    const T* own = t == 0 ? initial : nullptr;
    for (int i = 0, inner = c.states; own && i < c.m; i++) {
      inner /= c.sizes[i];
      x += A(own[z / inner % c.sizes[i]]);
      own += c.sizes[i];
    }
    return x;
  }
  SLV_DEVICE Move<T> first() const {
    const int k = c.sizes[0];
    return {0, k, c.states / k, 0, 0, transition};
  }
  SLV_DEVICE Move<T> last() const {
    const int k = c.sizes[c.m - 1], edge = c.edges - k * k;
    return {c.m - 1, k, 1, edge, c.padded - k * padded_row(k), transition + edge};
  }
  SLV_DEVICE Move<T> after(const Move<T>& x) const {
    const int k = c.sizes[x.chain + 1], edge = x.edge + x.k * x.k;
    return {x.chain + 1, k, x.inner / k, edge, x.padded + x.k * padded_row(x.k), transition + edge};
  }
  SLV_DEVICE Move<T> before(const Move<T>& x) const {
    const int k = c.sizes[x.chain - 1], edge = x.edge - k * k;
    return {x.chain - 1, k, x.inner * x.k, edge, x.padded - k * padded_row(k), transition + edge};
  }
  // Calls body(move) for every chain, from the first to the last and back.
  template <class F>
  SLV_DEVICE void each_move(F&& body) const {
    Move<T> move = first();
    for (int i = 0; i < c.m; i++) {
      if (i > 0) move = after(move);
      body(move);
    }
  }
  template <class F>
  SLV_DEVICE void each_move_back(F&& body) const {
    Move<T> move = last();
    for (int i = 0; i < c.m; i++) {
      if (i > 0) move = before(move);
      body(move);
    }
  }
};

SLV_DEVICE bool skipped(const Beginnings& s, int64_t b) { return s.redo && s.redo[b] == 0; }

// Elements of a block's workspace, which shared memory should hold.
template <class T>
SLV_BOTH int64_t forward_size(const Factorial<T>& c) {
  return 2 * int64_t(c.states);
}

template <class T>
SLV_KERNEL(kLogThreads)
factorial_forward(Factorial<T> c, Beginnings s, double* log_z, T* log_z_narrow) {
  Shared shared;
  const Thread me;
  const int64_t b = s.first + blockIdx.x;
  const int states = c.states, stride = int(blockDim.x);
  double* parts = shared.take<double>(2 * kMaxWarps);
  double* from = s.spill ? s.spill + blockIdx.x * forward_size(c) : shared.take<double>(int(forward_size(c)));
  double* to = from + states;
  if (skipped(s, b)) return;
  const JointItem<T> item(c, b);
  for (int t = 0; t < item.len; t++) {
    double* kept = s.alpha ? s.alpha + (int64_t(blockIdx.x) * c.n + t) * states : nullptr;
    auto put = [&](double* row, int z, double x) {
      row[z] = x;
      if (kept) kept[z] = x;
    };
    if (t == 0) {
      for (int z = me.index; z < states; z += stride) put(from, z, item.template u<double>(0, z));
      sync_block();
      continue;
    }
    item.each_move([&](const Move<T>& move) {
      const bool last = move.chain == c.m - 1;
      for (int z = me.index; z < states; z += stride) {
        const double x = move.into(from, z).log();
        if (last)
          put(to, z, x + item.template u<double>(t, z));
        else
          to[z] = x;
      }
      sync_block();
      double* const other = from;
      from = to, to = other;
    });
  }
  const int count = item.len > 0 ? states : 0;
  const double z = block_log_sum(me, parts, count, [&](int q) { return from[q]; }).log();
  if (me.index > 0) return;
  if (log_z) log_z[b] = item.len > 0 ? z : 0;
  if (log_z_narrow) log_z_narrow[b] = T(item.len > 0 ? z : 0);
}

}  // namespace slv::cuda
