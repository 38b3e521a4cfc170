// Backward sampling with Gumbel noise, hard and relaxed at once: the Gumbel-CRF of Fu, Tan, Bi, Rush, Wang and Liu
// (2020), "Latent template induction with Gumbel-CRFs", section 3. With l_t the filtered log-probabilities, from the
// last state to the first:
//   y_t(i) = l_t(i) + A_t(i, z_t+1) + G_t(i)     z_t = argmax y_t     relaxed_t = softmax(y_t / temperature)
// (l + final + G at the last). An argmax of perturbed log-probabilities is an exact draw, and so is z.
#pragma once
#include "core/tile.h"
#include "kernels/chain_log.h"
#include "kernels/gumbel.h"

namespace slv {
namespace {

// The columns of a transition as rows. `transition` (steps, k, k).
template <class T>
void relaxed_columns(const T* transition, int64_t steps, int64_t k, T* out) {
  for (int64_t t = 0; t < steps; t++)
    for (int64_t i = 0; i < k; i++)
      for (int64_t j = 0; j < k; j++) out[(t * k + j) * k + i] = transition[(t * k + i) * k + j];
}

// c.unary is l. One item's sample: states (n), relaxed (n, k), which holds the noise first. `columns`: the item's.
template <class T>
void relaxed_sample(const Chain<T>& c, int64_t item, uint64_t seed, int64_t sample, T temperature, const T* columns,
                    int64_t* states, T* relaxed) {
  constexpr int W = kWidth<T>;
  const int64_t k = c.k, len = c.length ? c.length[item] : c.n;
  const T* l = c.unary + item * c.n * k;
  gumbel<T>({seed, uint32_t(item), uint32_t(sample), 3, 0, len * k}, relaxed);
  std::fill(states + len, states + c.n, -1);
  std::fill(relaxed + len * k, relaxed + c.n * k, T(0));
  const T *next = c.final ? c.final + (c.final_row ? c.final_row[item] : 0) * k : nullptr, inverse = 1 / temperature;
  for (int64_t t = len - 1; t >= 0; t--) {
    const T* row = l + t * k;
    T* y = relaxed + t * k;
    vec<T> top = splat(-kInf<T>), sum{};
    for (int64_t p = 0; p < k; p += W) {
      const int n = int(std::min<int64_t>(W, k - p));
      vec<T> x = load_n<T>(row + p, n, -kInf<T>) + load_n<T>(y + p, n, T(0));
      if (next) x += load_n<T>(next + p, n, T(0));
      store_n<T>(y + p, x, n);
      top = vmax(top, x);
    }
    const vec<T> best = reduce_lanes<T, W / 2>(top, MaxOp());
    if (!(best[0] > -kInf<T>)) {  // no structure
      std::fill(states, states + t + 1, -1);
      return std::fill(relaxed, relaxed + (t + 1) * k, T(0));
    }
    int64_t state = 0;
    for (int64_t p = 0;; p += W)
      if (const unsigned hit = equal_lanes(load_n<T>(y + p, int(std::min<int64_t>(W, k - p)), -kInf<T>), best)) {
        state = p + __builtin_ctz(hit);
        break;
      }
    for (int64_t p = 0; p < k; p += W) {
      const int n = int(std::min<int64_t>(W, k - p));
      const vec<T> e = exp<T>((load_n<T>(y + p, n, -kInf<T>) - best) * inverse);
      sum += e;
      store_n<T>(y + p, e, n);
    }
    const T scale = 1 / hsum<T>(sum);
    for (int64_t p = 0; p < k; p += W) {
      const int n = int(std::min<int64_t>(W, k - p));
      store_n<T>(y + p, load_n<T>(y + p, n, T(0)) * scale, n);
    }
    states[t] = state;
    if (t > 0) next = columns + ((c.per_step ? t - 1 : 0) * k + state) * k;
  }
}

template <class T>
SLV_INLINE void add_doubles(double* to, vec<T> x, int n) {
  constexpr int D = kWidth<double>;
  alignas(64) T value[kWidth<T>];
  store(value, x);
  for (int q = 0; q < n; q += D) {
    const int m = std::min(D, n - q);
    store_n<double>(to + q, load_n<double>(to + q, m, 0.0) + load_as<double>(value + q, m, 0.0), m);
  }
}

// The gradient for `grad` (n, k): written (`first`) or added to that of l (n, k), added to edges and to final (k, or
// null). Returns the temperature's. In a long chain the edges are summed by the later state first, where they lie
// together.
template <class T>
double relaxed_vjp(const Chain<T>& c, int64_t item, T temperature, const T* grad, const int64_t* states,
                   const T* relaxed, bool first, T* unary, double* edges, double* final) {
  constexpr int W = kWidth<T>;
  const int64_t k = c.k, len = c.length ? c.length[item] : c.n;
  const T inverse = 1 / temperature;
  Doubles columns(c.per_step || len < k ? 0 : k * k);
  double heat = 0;
  const int64_t end = std::find_if(states, states + len, [](int64_t z) { return z < 0; }) - states;
  if (first) std::fill(unary + end * k, unary + c.n * k, T(0));
  for (int64_t t = 0; t < end; t++) {
    const T *g = grad + t * k, *z = relaxed + t * k;
    vec<T> inner{}, warm{};
    for (int64_t p = 0; p < k; p += W) {
      const int n = int(std::min<int64_t>(W, k - p));
      inner += load_n<T>(g + p, n, T(0)) * load_n<T>(z + p, n, T(0));
    }
    const vec<T> mean = splat(hsum<T>(inner));
    const bool last = t == len - 1;
    const int64_t to = last ? 0 : states[t + 1];
    for (int64_t p = 0; p < k; p += W) {
      const int n = int(std::min<int64_t>(W, k - p));
      const vec<T> w = load_n<T>(z + p, n, T(0)), d = w * (load_n<T>(g + p, n, T(0)) - mean) * inverse;
      store_n<T>(unary + t * k + p, first ? d : load_n<T>(unary + t * k + p, n, T(0)) + d, n);
      warm += w >= kSmallest<T> ? d * log_normal<T>(vmax(w, splat(kSmallest<T>))) : vec<T>{};
      if (last) {
        if (final) add_doubles<T>(final + p, d, n);
      } else if (columns.size()) {
        add_doubles<T>(&columns[to * k + p], d, n);
      } else {
        double* e = edges + (c.per_step ? t * k * k : 0);
        for (int q = 0; q < n; q++) e[(p + q) * k + to] += double(d[q]);
      }
    }
    heat -= double(hsum<T>(warm));
  }
  for (int64_t j = 0; columns.size() && j < k; j++)
    for (int64_t i = 0; i < k; i++) edges[i * k + j] += columns[j * k + i];
  return heat;
}

// Pairs of neighbours among soft states: sum over t of z_t(i) z_t+1(j). Accumulators are fresh in every chunk, which
// keeps rounding from growing with n.
template <class T>
void state_pairs(const T* states, int64_t n, int64_t k, T* out) {
  constexpr int64_t W = kWidth<T>, kChunk = 32;
  const int64_t panels = (k + W - 1) / W, width = panels * W;
  Scratch scratch(width == k ? 0 : Scratch::bytes<T>(n * width) + Scratch::bytes<T>(k * width));
  const T* z = states;
  T* sums = out;
  if (width != k) {
    T* padded = scratch.take<T>(n * width);
    sums = scratch.take<T>(k * width);
    std::fill(padded, padded + n * width, T(0));
    for (int64_t t = 0; t < n; t++) std::copy_n(states + t * k, k, padded + t * width);
    z = padded;
  }
  std::fill(sums, sums + k * width, T(0));
  for (int64_t t = 0; t + 1 < n; t += kChunk) {
    const int64_t count = std::min(kChunk, n - 1 - t);
    outer_sums<T>(k, {count, width, 0, 1, 1}, z + t * width, width, z + (t + 1) * width, sums, width);
  }
  for (int64_t i = 0; sums != out && i < k; i++) std::copy_n(sums + i * width, k, out + i * k);
}

}  // namespace
}  // namespace slv
