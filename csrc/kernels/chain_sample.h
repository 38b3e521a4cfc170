// Forward filtering, backward sampling (Carter & Kohn 1994) for chains with one transition. State i is drawn with
// weight alpha_t(i) P(i, next); the first state, in index order, whose cumulative weight exceeds u * total is taken.
#pragma once
#include <array>

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

  // Draws of N (row, sample) pairs, numbered first.. out of `count`; N is kTreeRows or 1. P panels, 0 for any number.
  template <int P, int N>
  void draw(int64_t first, int64_t count) {
    static constexpr auto ones = all_ones();
    const int64_t np = P ? P : f.panels, into_stride = f.k * W;
    const T *into[N], *from[N];  // P(., next), and the row of alpha
    int64_t *out[N], last[N], into_panel[N];
    Draws<N> random{seed, {}, {}};
    int64_t steps = 0;
    for (int q = 0; q < N; q++) {
      const int64_t pair = std::min(first + q, count - 1), s = pair / f.rows;
      const int r = int(pair % f.rows);
      random.item[q] = uint32_t(f.items[r]);
      random.sample[q] = uint32_t(s);
      into[q] = ones.data();
      into_panel[q] = 0;
      from[q] = f.base + r * W;
      out[q] = states + s * stride + f.items[r] * f.c.n;
      last[q] = f.inverse[r] > 0 && first + q < count ? f.len[r] : 0;
      steps = std::max(steps, last[q]);
    }
    alignas(64) T u[R], target[R], chosen[R];
    for (int64_t t = steps - 1; t >= 0; t--) {
      const int64_t at = t * 2 * f.step;  // alpha(t) of a chart
      auto weights = [&](int q, int64_t p) __attribute__((always_inline)) {
        return load(from[q] + at + p * f.panel) * load(into[q] + p * into_panel[q]);
      };
      const uint32_t* word = random(t);
      for (int q = 0; q < N; q++) u[q] = T(uniform<In>(word[q]));
      vec<T> total{}, sums[P ? P : 1];
      for (int64_t p = 0; p < np; p++) {
        vec<T> w[R];
#pragma GCC unroll 8
        for (int q = 0; q < N; q++) w[q] = weights(q, p);
        total += N == 1 ? reduce_lanes<T, W / 2>(w[0], SumOp()) : reduce_rows<T>(w, SumOp());
        if constexpr (P > 0)
          sums[p] = total;
        else
          store(cumulative + p * W, total);
      }
      vec<T> goal = (N == 1 ? splat(u[0]) : spread_rows(u)) * total, below{}, panel{};
      goal = goal < total ? goal : total * T(1 - std::numeric_limits<T>::epsilon());
      for (int64_t p = 0; p + 1 < np; p++) {
        vec<T> c = P ? sums[P ? p : 0] : load(cumulative + p * W);
        ivec<T> passed = c <= goal;
        panel += passed ? splat(T(1)) : vec<T>{};
        below = passed ? c : below;
      }
      store_rows(target, goal - below);
      store_rows(chosen, panel);
#pragma GCC unroll 8
      for (int q = 0; q < N; q++) {
        if (t >= last[q]) continue;
        const int64_t p = np == 1 ? 0 : int64_t(chosen[q]);
        const vec<T> w = weights(q, p);
        const unsigned hit = greater_lanes(prefix_sums<T>(w), splat(target[q])) & greater_lanes(w, vec<T>{});
        const int64_t state = p * W + (hit ? __builtin_ctz(hit) : last_positive(w));
        out[q][t] = state;
        into[q] = f.m.backward().data + state * W;
        into_panel[q] = into_stride;
      }
    }
  }
  static constexpr std::array<T, W> all_ones() {
    std::array<T, W> x{};
    for (T& v : x) v = 1;
    return x;
  }
  // Rounding of a prefix sum may leave none above the target: then the last that has weight.
  static int64_t last_positive(vec<T> w) {
    int64_t l = W - 1;
    while (l >= 0 && !(w[l] > 0)) l--;
    return l;
  }
};

template <class In, class T>
void run_sampler(Scan<In, T>& s, uint64_t seed, int64_t samples, int64_t* states, int64_t stride, Scratch& scratch) {
  Sampler<In, T> sampler{s, seed, states, stride, scratch.take<T>(s.panels * kWidth<T>)};
  const int64_t pairs = samples * s.rows;
  with_panel_count(s.panels, [&](auto panels) {
    constexpr int P = decltype(panels)::value;
    if (pairs == 1) return sampler.template draw<P, 1>(0, 1);
    for (int64_t i = 0; i < pairs; i += kTreeRows<T>) sampler.template draw<P, kTreeRows<T>>(i, pairs);
  });
}
template <class In, class T>
int64_t sampler_scratch(const Scan<In, T>& s) {
  return Scratch::bytes<T>(s.chart_size()) + s.scratch() + Scratch::bytes<T>(s.panels * kWidth<T>);
}

template <class In>
void sample_items(const Chain<In>& c, SharedMatrix<In>& m, const int64_t* items, int rows, uint64_t seed,
                  int64_t samples, int64_t* states, int64_t stride) {
  if (std::is_same_v<In, double> || !m.wide().usable) {
    for (int r = 0; r < rows; r++) sample_log(c, items[r], seed, samples, states + items[r] * c.n, stride);
    return;
  }
  const int most = rows_that_fit(c);
  for (; rows > 0; items += most, rows -= most) {
    Scan<In, double> s(c, m.wide(), items, std::min(rows, most));
    {
      Scratch scratch(sampler_scratch(s));
      s.bind_chart(scratch.take<double>(s.chart_size()));
      s.bind(scratch);
      s.run_forward();
      run_sampler(s, seed, samples, states, stride, scratch);
    }
    for (int r = 0; r < s.rows; r++)
      if (s.bad[r]) sample_log(c, items[r], seed, samples, states + items[r] * c.n, stride);
  }
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
  int64_t again[kMaxRows];
  int count = 0;
  for (int r = 0; r < rows; r++)
    if (!m.own.usable || s.bad[r]) again[count++] = items[r];
  if (count) sample_items(c, m, again, count, seed, samples, states, stride);
}

}  // namespace
}  // namespace slv
