// Viterbi for chains with one transition: max-plus products of a block of rows, and a traceback without back-pointers
// that recomputes one argmax a step. Ties go to the lowest state.
#pragma once
#include "kernels/chain_scan.h"

namespace slv {
namespace {

// The transition as panels of columns (-inf where padded), and its transpose.
template <class T>
struct ScoreMatrix {
  int64_t k, panels;
  Buffer<T> data;
  ScoreMatrix(const T* a, int64_t k) : k(k), panels((k + kWidth<T> - 1) / kWidth<T>), data(2 * panels * k * kWidth<T>) {
    constexpr int W = kWidth<T>;
    T *p = data.data(), *q = p + panels * k * W;
    std::fill(p, q + panels * k * W, -kInf<T>);
    for (int64_t i0 = 0; i0 < k; i0 += W)
      for (int64_t j0 = 0; j0 < k; j0 += W)
        for (int64_t i = i0; i < std::min(i0 + W, k); i++)
          for (int64_t j = j0; j < std::min(j0 + W, k); j++) {
            p[(j0 / W * k + i) * W + j - j0] = a[i * k + j];
            q[(i0 / W * k + j) * W + i - i0] = a[i * k + j];
          }
  }
  Matrix<T> forward() const { return {data.data(), k * kWidth<T>}; }
  // transitions into state j: panel p lies p * k * width further
  const T* into(int64_t j) const { return data.data() + (panels * k + j) * kWidth<T>; }
};

template <class T>
struct Viterbi : Rows<T> {
  static constexpr int W = kWidth<T>;
  using Rows<T>::rows, Rows<T>::k, Rows<T>::steps, Rows<T>::shortest, Rows<T>::len;
  const ScoreMatrix<T>& m;
  const int64_t panels, panel, step;
  T* best = nullptr;  // [step][panel][row][lane]
  double* sums = nullptr;
  T* joined = nullptr;  // [row][state]: unary plus initial or final
  Viterbi(const Chain<T>& c, const ScoreMatrix<T>& m, const int64_t* items, int rows)
      : Rows<T>(c, items, rows), m(m), panels(m.panels), panel(rows * W), step(panels * rows * W) {}

  // Scores stay relative to their row's maximum, lest they lose digits as they grow. Full: k fills its vectors.
  template <bool Full>
  void forward() {
    constexpr int64_t kEvery = 16;
    T offset[kMaxRows] = {};
    const T* src[kMaxRows];
    for (int64_t t = 0; t < steps; t++) {
      T* out = best + t * step;
      const bool plain = t > 0 && t < shortest - 1;  // no row ends, none has initial or final scores
      for (int r = 0; r < rows; r++)
        src[r] = plain ? this->first_row[r] + t * k : this->is_joined(r, t) ? join(r, t) : this->row(r, t);
      auto add = [&](int64_t r, int64_t p, vec<T> sum) __attribute__((always_inline)) {
        vec<T> u = load_as<T>(src[r] + p * W, Full ? W : int(k - p * W), -kInf<T>);
        store(out + p * panel + r * W, sum + (u - offset[r]));
      };
      if (t == 0) {
        for (int64_t p = 0; p < panels; p++)
          for (int r = 0; r < rows; r++) add(r, p, vec<T>{});
      } else {
        multiply_rows<MaxPlus>(rows, k, out - step, panel, m.forward(), add);
      }
      if (t % kEvery < 2)
        for (int r = 0; r < rows; r++) offset[r] = t % kEvery == 0 ? top(out, r) : T(0);
    }
  }
  const T* join(int r, int64_t t) {
    this->joined_row(r, t, sums);
    std::transform(sums, sums + k, joined + r * k, [](double x) { return T(x); });
    return joined + r * k;
  }
  T top(const T* row, int r) const {
    vec<T> x = load(row + r * W);
    for (int64_t p = 1; p < panels; p++) x = vmax(x, load(row + p * panel + r * W));
    const T y = hmax<T>(x);
    return y > -kInf<T> && y < kInf<T> ? y : T(0);
  }
  // A row's way back: scores of states before, and transitions into the state after.
  struct Trace {
    const T *from, *into;
    int64_t into_panel;
    int64_t* out;
    int64_t last;  // steps that it has
  };
  SLV_INLINE vec<T> scores(const Trace& r, int64_t at, int64_t p) const {
    return load(r.from + at + p * panel) + load(r.into + p * r.into_panel);
  }
  // The lowest state of score `top`, which one has; P panels, 0 for any number.
  template <int P>
  SLV_INLINE int64_t first_with(T top, const Trace& r, int64_t at) const {
    if constexpr (P > 0 && P * W <= 64) {
      uint64_t bits = 0;
#pragma GCC unroll 4
      for (int p = 0; p < P; p++) bits |= uint64_t(equal_lanes(scores(r, at, p), splat(top))) << (p * W);
      return __builtin_ctzll(bits);
    }
    for (int64_t p = 0;; p++)
      if (unsigned bits = equal_lanes(scores(r, at, p), splat(top))) return p * W + __builtin_ctz(bits);
  }
  // N rows at a time, as G trees of reductions: several hide the latency of one. P panels, 0 for any number.
  template <int P, int N, int G>
  void traceback(int64_t* states, const T* nothing) {
    const int64_t np = P ? P : panels;
    constexpr int M = N * G;
    for (int first = 0; first < rows; first += M) {
      const int live = std::min(M, rows - first);
      Trace trace[M];
      for (int q = 0; q < M; q++) {
        const int r = std::min(first + q, rows - 1);
        trace[q] = {best + r * W, nothing, 0, states + this->items[r] * this->c.n, len[r]};
      }
      for (int64_t t = steps - 1; t >= 0; t--) {
        alignas(64) T top[M];
#pragma GCC unroll 2
        for (int g = 0; g < G; g++) {
          vec<T> value[N];
#pragma GCC unroll 8
          for (int q = 0; q < N; q++) {
            value[q] = scores(trace[g * N + q], t * step, 0);
            for (int64_t p = 1; p < np; p++) value[q] = vmax(value[q], scores(trace[g * N + q], t * step, p));
          }
          reduce_into<T, N>(top + g * N, value, MaxOp());
        }
        for (int q = 0; q < live; q++) {
          Trace& r = trace[q];
          if (t < r.last && !(top[q] > -kInf<T>)) r.last = 0;  // nothing is possible
          if (t >= r.last) continue;
          const int64_t state = first_with<P>(top[q], r, t * step);
          r.out[t] = state;
          r.into = m.into(state);
          r.into_panel = k * W;
        }
      }
    }
  }
};

template <class T>
void* viterbi_prepare(const T* transition, int64_t k) {
  return new ScoreMatrix<T>(transition, k);
}
template <class T>
void viterbi_release(void* m) {
  delete static_cast<ScoreMatrix<T>*>(m);
}
template <class T>
void viterbi_block(const Chain<T>& c, void* matrix, const int64_t* items, int rows, int64_t* states) {
  Viterbi<T> v(c, *static_cast<ScoreMatrix<T>*>(matrix), items, rows);
  for (int r = 0; r < rows; r++) std::fill(states + items[r] * c.n, states + (items[r] + 1) * c.n, -1);
  Scratch scratch(Scratch::bytes<T>(v.steps * v.step) + Scratch::bytes<T>(rows * c.k) + v.row_scratch(1));
  v.best = scratch.take<T>(v.steps * v.step);
  v.joined = scratch.take<T>(rows * c.k);
  v.sums = v.bind_rows(scratch, 1);
  alignas(64) const T nothing[kWidth<T>] = {};
  if (c.k % kWidth<T> == 0)
    v.template forward<true>();
  else
    v.template forward<false>();
  auto trace = [&](auto panels) {
    constexpr int P = decltype(panels)::value;
    if (rows == 1)
      v.template traceback<P, 1, 1>(states, nothing);
    else if (rows <= kTreeRows<T>)
      v.template traceback<P, kTreeRows<T>, 1>(states, nothing);
    else
      v.template traceback<P, kTreeRows<T>, 2>(states, nothing);
  };
  with_panel_count(v.panels, trace);
}

}  // namespace
}  // namespace slv
