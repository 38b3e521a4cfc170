// Forward filtering, backward sampling (Carter & Kohn 1994) for chains with one transition. State i is drawn with
// weight alpha_t(i) P(i, next); the first state, in index order, whose cumulative weight exceeds u * total is taken.
#pragma once
#include "core/philox.h"
#include "kernels/chain_ladder.h"
#include "kernels/chain_search.h"

namespace slv {
namespace {

template <class T, int Shift, size_t... L>
SLV_INLINE vec<T> shift_up(vec<T> v, std::index_sequence<L...>) {
  return __builtin_shufflevector(v, vec<T>{}, (int(L) >= Shift ? int(L) - Shift : kWidth<T>)...);
}
template <class T, int Shift = 1>
SLV_INLINE vec<T> prefix_sums(vec<T> v) {
  if constexpr (Shift < kWidth<T>)
    return prefix_sums<T, Shift * 2>(v + shift_up<T, Shift>(v, std::make_index_sequence<kWidth<T>>{}));
  else
    return v;
}

template <class In, class T>
struct Sampler {
  static constexpr int W = kWidth<T>, R = kTreeRows<T>;
  const Scan<In, T>& f;
  uint64_t seed;
  int64_t *states, stride;  // of one sample of all items
  T* cumulative;            // [panels][W]

  vec<T> weights(int r, int64_t t, int64_t next, int64_t p) const {
    vec<T> a = load(f.alpha(t) + p * f.panel + r * W);
    return next < 0 ? a : a * load(f.m.backward().data + (p * f.k + next) * W);
  }
  // Draws of R (row, sample) pairs, numbered first.. out of `count`.
  void draw(int64_t first, int64_t count) {
    int row[R];
    int64_t next[R], out[R];
    Draws random[R];
    int64_t steps = 0;
    for (int q = 0; q < R; q++) {
      const int64_t pair = std::min(first + q, count - 1);
      row[q] = int(pair % f.rows);
      const int64_t b = f.items[row[q]], s = pair / f.rows;
      next[q] = -1;
      out[q] = s * stride + b * f.c.n;
      random[q] = {seed, uint32_t(b), uint32_t(s)};
      steps = std::max(steps, f.len[row[q]]);
    }
    const int live = int(std::min<int64_t>(R, count - first));
    alignas(64) T u[R] = {}, target[R], before[R], lane[R];
    for (int64_t t = steps - 1; t >= 0; t--) {
      for (int q = 0; q < live; q++) u[q] = t < f.len[row[q]] ? T(uniform<In>(random[q](t))) : T(0);
      vec<T> total{};
      for (int64_t p = 0; p < f.panels; p++) {
        vec<T> w[R];
        for (int q = 0; q < R; q++) w[q] = weights(row[q], t, next[q], p);
        total += reduce_rows<T>(w, SumOp());
        store(cumulative + p * W, total);
      }
      vec<T> goal = spread_rows(u) * total, below{}, panel{};
      goal = goal < total ? goal : total * T(1 - std::numeric_limits<T>::epsilon());
      for (int64_t p = 0; p + 1 < f.panels; p++) {
        vec<T> c = load(cumulative + p * W);
        ivec<T> passed = c <= goal;
        panel += passed ? splat(T(1)) : vec<T>{};
        below = passed ? c : below;
      }
      store_rows(target, goal - below);
      store_rows(before, panel);
      vec<T> index[R];
      for (int q = 0; q < R; q++) {
        vec<T> w = weights(row[q], t, next[q], int64_t(before[q]));
        ivec<T> hit = (prefix_sums<T>(w) > splat(target[q])) & (w > T(0));
        index[q] = hit ? lane_ : splat(T(W));
      }
      store_rows(lane, reduce_rows<T>(index, MinOp()));
      for (int q = 0; q < live; q++) {
        if (t >= f.len[row[q]] || !(f.inverse[row[q]] > 0)) continue;
        const int64_t p = int64_t(before[q]);
        int64_t l = int64_t(lane[q]);
        if (l == W) l = last_positive(weights(row[q], t, next[q], p));
        states[out[q] + t] = next[q] = p * W + l;
      }
    }
  }
  // Rounding of a prefix sum may leave none above the target: then the last that has weight.
  static int64_t last_positive(vec<T> w) {
    int64_t l = W - 1;
    while (l >= 0 && !(w[l] > 0)) l--;
    return l;
  }

  const vec<T> lane_ = __builtin_convertvector(iota<T>(), vec<T>);
};

template <class In, class T>
void run_sampler(Scan<In, T>& s, uint64_t seed, int64_t samples, int64_t* states, int64_t stride, Scratch& scratch) {
  Sampler<In, T> sampler{s, seed, states, stride, scratch.take<T>(s.panels * kWidth<T>)};
  for (int64_t i = 0; i < samples * s.rows; i += kTreeRows<T>) sampler.draw(i, samples * s.rows);
}
template <class In, class T>
int64_t sampler_scratch(const Scan<In, T>& s) {
  return Scratch::bytes<T>(s.chart_size()) + s.scratch() + Scratch::bytes<T>(s.panels * kWidth<T>);
}

template <class In>
void sample_item(const Chain<In>& c, SharedMatrix<In>& m, int64_t b, uint64_t seed, int64_t samples, int64_t* states,
                 int64_t stride) {
  if (!std::is_same_v<In, double> && m.wide().usable) {
    Scan<In, double> s(c, m.wide(), &b, 1);
    Scratch scratch(sampler_scratch(s));
    s.bind_chart(scratch.take<double>(s.chart_size()));
    s.bind(scratch);
    s.run_forward();
    if (!s.bad[0]) {
      if (s.inverse[0] > 0) run_sampler(s, seed, samples, states, stride, scratch);
      return;
    }
  }
  sample_log(c, b, seed, samples, states + b * c.n, stride);
}

// states: (samples, batch, n), filled with -1
template <class In>
void scan_sample(const Chain<In>& c, void* matrix, const int64_t* items, int rows, uint64_t seed, int64_t samples,
                 int64_t* states) {
  auto& m = *static_cast<SharedMatrix<In>*>(matrix);
  const int64_t stride = c.batch * c.n;
  Scan<In, In> s(c, m.own, items, rows);
  if (m.own.usable) {
    Scratch scratch(sampler_scratch(s));
    s.bind_chart(scratch.take<In>(s.chart_size()));
    s.bind(scratch);
    s.run_forward();
    run_sampler(s, seed, samples, states, stride, scratch);
  }
  for (int r = 0; r < rows; r++) {
    const bool redo = !m.own.usable || s.bad[r];
    if (!redo && s.inverse[r] > 0) continue;
    for (int64_t i = 0; i < samples; i++) std::fill_n(states + i * stride + items[r] * c.n, c.n, -1);
    if (redo) sample_item(c, m, items[r], seed, samples, states, stride);
  }
}

}  // namespace
}  // namespace slv
