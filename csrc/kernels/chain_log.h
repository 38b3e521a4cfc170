// The textbook recursions over a semiring (Rabiner 1989, section III), one item at a time, float64 inside.
//
//   alpha_t(j) = u_t(j) + SUM_i alpha_t-1(i) + A_t-1(i, j)
//   beta_t(i)  = SUM_j A_t(i, j) + u_t+1(j) + beta_t+1(j)
#pragma once
#include <algorithm>
#include <vector>

#include "core/philox.h"
#include "core/semiring.h"
#include "kernels/chain.h"

namespace slv {
namespace {

template <class T>
struct Item {
  int64_t len, n, k, step;
  const T *unary, *transition, *initial, *final;
  Item(const Chain<T>& c, int64_t b)
      : len(c.length ? c.length[b] : c.n),
        n(c.n),
        k(c.k),
        step(c.per_step ? c.k * c.k : 0),
        unary(c.unary + b * c.n * c.k),
        transition(c.transition + (c.matrix ? c.matrix[b] : 0) * c.steps() * c.k * c.k),
        initial(c.initial ? c.initial + (c.initial_row ? c.initial_row[b] : 0) * c.k : nullptr),
        final(c.final ? c.final + (c.final_row ? c.final_row[b] : 0) * c.k : nullptr) {}
  // A_t(i, j..)
  vd edge(int64_t t, int64_t i, int64_t j) const {
    return load_as<double>(transition + t * step + i * k + j, int(k - j), kNone);
  }
  double u(int64_t t, int64_t i) const {
    double x = unary[t * k + i];
    if (t == 0 && initial) x += initial[i];
    if (t == len - 1 && final) x += final[i];
    return x;
  }
  void row(int64_t t, double* out) const {
    for (int64_t i = 0; i < k; i++) out[i] = u(t, i);
  }
};

template <class S, class T>
Doubles inside(const Item<T>& c) {
  const int64_t k = c.k;
  Doubles alpha(c.len * k);
  for (int64_t t = 0; t < c.len; t++) {
    double* out = alpha.data() + t * k;
    c.row(t, out);
    if (t == 0) continue;
    const double* prev = out - k;
    for (int64_t j = 0; j < k; j += kLanes) {
      vd sum = S::lanes(k, [&](int64_t i) { return splat(prev[i]) + c.edge(t - 1, i, j); });
      store_n<double>(out + j, row_of(out, j, k) + sum, int(k - j));
    }
  }
  return alpha;
}

template <class S, class T>
Doubles outside(const Item<T>& c) {
  const int64_t k = c.k;
  Doubles beta(c.len * k), next(k);
  for (int64_t t = c.len - 2; t >= 0; t--) {
    for (int64_t j = 0; j < k; j++) next[j] = c.u(t + 1, j) + beta[(t + 1) * k + j];
    for (int64_t i = 0; i < k; i++)
      beta[t * k + i] = S::row(k, [&](int64_t j, int) { return c.edge(t, i, j) + row_of(next.data(), j, k); });
  }
  return beta;
}

template <class T>
double log_partition_log(const Chain<T>& chain, int64_t b) {
  Item<T> c(chain, b);
  return c.len == 0 ? 0 : total<Log>(inside<Log>(c).data() + (c.len - 1) * c.k, c.k);
}

template <class T>
SLV_INLINE void emit(const EdgeSink<T>& sink, int64_t t, int64_t k, int64_t i, int64_t j, vd v) {
  const int n = int(k - j);
  if (sink.direct) return store_as<double>(sink.direct + (t * k + i) * k + j, v, n);
  double* p = sink.sum + t * sink.sum_step + i * k + j;
  store_n<double>(p, load_n<double>(p, n, 0) + v, n);
}
// Zeros in the padding of one item's outputs; all of it where no structure is possible.
template <class T>
void clear_from(int64_t t, const Item<T>& c, T* unary, const EdgeSink<T>& sink) {
  if (unary) std::fill(unary + t * c.k, unary + c.n * c.k, T(0));
  if (sink.direct && c.n > 0) {
    const int64_t kk = c.k * c.k;
    std::fill(sink.direct + std::clamp<int64_t>(t - 1, 0, c.n - 1) * kk, sink.direct + (c.n - 1) * kk, T(0));
  }
}

// The weight of each predecessor i of the states j.. of step t+1: exp(alpha_t(i) + A_t(i, j)) over its sum. Normalised
// where it is used, so that it is exact however large the potentials are.
template <class T>
struct Predecessors {
  const Item<T>& c;
  const double* alpha;
  int64_t t, j;
  vd shift, inverse;
  Predecessors(const Item<T>& c, const double* alpha, int64_t t, int64_t j)
      : c(c), alpha(alpha), t(t), j(j), inverse{} {
    vd m = Max::lanes(c.k, [&](int64_t i) { return term(i); });
    shift = m > kNone ? m : vd{};
    for (int64_t i = 0; i < c.k; i++) inverse += exp<double>(term(i) - shift);
    inverse = inverse > 0.0 ? 1.0 / inverse : inverse;
  }
  vd term(int64_t i) const { return splat(alpha[i]) + c.edge(t, i, j); }
  vd weight(int64_t i) const { return exp<double>(term(i) - shift) * inverse; }
};

// Smoothing from the filtered side: p(z_t = i, z_t+1 = j) = p(z_t+1 = j) p(i | j, x up to t).
template <class T>
void marginals_log(const Chain<T>& chain, int64_t b, double weight, T* unary, const EdgeSink<T>& sink) {
  Item<T> c(chain, b);
  const int64_t k = c.k;
  clear_from(c.len, c, unary, sink);
  if (c.len == 0) return;
  Doubles alpha = inside<Log>(c), mu(k), before(k);
  if (!softmax(&alpha[(c.len - 1) * k], k, weight, mu.data())) return clear_from(0, c, unary, sink);
  for (int64_t t = c.len - 1; t >= 0; t--) {
    for (int64_t i = 0; i < k; i++) unary[t * k + i] = T(mu[i]);
    if (t == 0) break;
    std::fill(before.begin(), before.end(), 0.0);
    for (int64_t j = 0; j < k; j += kLanes) {
      Predecessors<T> from(c, &alpha[(t - 1) * k], t - 1, j);
      const vd next = load_n<double>(&mu[j], int(k - j), 0);
      for (int64_t i = 0; i < k; i++) {
        vd p = from.weight(i) * next;
        before[i] += hsum<double>(p);
        emit(sink, t - 1, k, i, j, p);
      }
    }
    std::swap(mu, before);
  }
}

// The covariance of the parts with f = <v, parts>, by conditional expectations of f's prefix and suffix:
//   prefix_t(j) = E[f up to t | z_t = j], suffix_t(i) = E[f after t | z_t = i];
//   cov(part) = p(part) (prefix + v(part) + suffix - E f).
// They are averages, so nothing needs a scale. Returns E f.
template <class T>
struct Tangent {
  const Item<T>& c;
  const Direction<T>& v;
  const T *vu, *vt, *vi, *vf;
  Tangent(const Item<T>& c, const Direction<T>& v, int64_t b)
      : c(c),
        v(v),
        vu(v.unary + b * c.n * c.k),
        vt(v.transition + (v.matrix ? v.matrix[b] : 0) * (v.transition_step ? c.n - 1 : 1) * c.k * c.k),
        vi(v.initial ? v.initial + (v.initial_row ? v.initial_row[b] : 0) * c.k : nullptr),
        vf(v.final ? v.final + (v.final_row ? v.final_row[b] : 0) * c.k : nullptr) {}
  double u(int64_t t, int64_t i) const {
    double x = vu[t * c.k + i];
    if (t == 0 && vi) x += vi[i];
    if (t == c.len - 1 && vf) x += vf[i];
    return x;
  }
  vd edge(int64_t t, int64_t i, int64_t j) const {
    return load_as<double>(vt + t * v.transition_step + i * c.k + j, int(c.k - j), 0);
  }
};

template <class T>
Doubles prefix_means(const Item<T>& c, const Tangent<T>& v, const Doubles& alpha) {
  const int64_t k = c.k;
  Doubles a(c.len * k);
  for (int64_t t = 0; t < c.len; t++) {
    double* out = a.data() + t * k;
    for (int64_t j = 0; j < k; j++) out[j] = v.u(t, j);
    if (t == 0) continue;
    for (int64_t j = 0; j < k; j += kLanes) {
      Predecessors<T> from(c, &alpha[(t - 1) * k], t - 1, j);
      vd mean = load_n<double>(out + j, int(k - j), 0);
      for (int64_t i = 0; i < k; i++) mean += where_positive(from.weight(i), out[i - k] + v.edge(t - 1, i, j));
      store_n<double>(out + j, mean, int(k - j));
    }
  }
  return a;
}

template <class T>
double hvp_log(const Chain<T>& chain, int64_t item, double weight, const Direction<T>& dir, T* unary,
               const EdgeSink<T>& sink) {
  Item<T> c(chain, item);
  const int64_t k = c.k;
  clear_from(c.len, c, unary, sink);
  if (c.len == 0) return 0;
  Doubles alpha = inside<Log>(c), mu(k), suffix(k), before(k), sum(k), after(k);
  if (!softmax(&alpha[(c.len - 1) * k], k, 1, mu.data())) return clear_from(0, c, unary, sink), 0;
  Tangent<T> v(c, dir, item);
  Doubles a = prefix_means(c, v, alpha);
  double mean = 0;
  for (int64_t i = 0; i < k; i++)
    if (mu[i] > 0) mean += mu[i] * a[(c.len - 1) * k + i];
  for (int64_t t = c.len - 1; t >= 0; t--) {
    const double* at = &a[t * k];
    for (int64_t i = 0; i < k; i++) unary[t * k + i] = T(mu[i] > 0 ? weight * mu[i] * (at[i] + suffix[i] - mean) : 0);
    if (t == 0) break;
    for (int64_t j = 0; j < k; j++) after[j] = v.u(t, j) + suffix[j];
    std::fill(before.begin(), before.end(), 0.0);
    std::fill(sum.begin(), sum.end(), 0.0);
    for (int64_t j = 0; j < k; j += kLanes) {
      Predecessors<T> from(c, &alpha[(t - 1) * k], t - 1, j);
      const vd next = load_n<double>(&mu[j], int(k - j), 0), rest = load_n<double>(&after[j], int(k - j), 0);
      for (int64_t i = 0; i < k; i++) {
        vd p = from.weight(i) * next, f = v.edge(t - 1, i, j) + rest;
        before[i] += hsum<double>(p);
        sum[i] += hsum<double>(where_positive(p, f));
        emit(sink, t - 1, k, i, j, where_positive(p, (f + (a[(t - 1) * k + i] - mean)) * weight));
      }
    }
    for (int64_t i = 0; i < k; i++) suffix[i] = before[i] > 0 ? sum[i] / before[i] : 0;
    std::swap(mu, before);
  }
  return mean;
}

}  // namespace
}  // namespace slv
