// The textbook recursions over a semiring (Rabiner 1989, section III), one item at a time, float64 inside.
//
//   alpha_t(j) = u_t(j) + SUM_i alpha_t-1(i) + A_t-1(i, j)          beta_t(i) = SUM_j A_t(i, j) + u_t+1(j) + beta_t+1(j)
#pragma once
#include <algorithm>
#include <vector>

#include "core/philox.h"
#include "core/semiring.h"
#include "kernels/chain.h"

namespace slv {
namespace {

constexpr int kLanes = kWidth<double>;
constexpr double kNone = -kInf<double>;
using Doubles = std::vector<double>;

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

SLV_INLINE vd row_of(const double* p, int64_t j, int64_t k) { return load_n<double>(p + j, int(k - j), kNone); }

template <class S>
double total(const double* row, int64_t k) {
  return S::row(k, [&](int64_t j, int) { return row_of(row, j, k); });
}

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

template <class T>
void marginals_log(const Chain<T>& chain, int64_t b, double weight, T* unary, const EdgeSink<T>& sink) {
  Item<T> c(chain, b);
  const int64_t k = c.k;
  clear_from(c.len, c, unary, sink);
  if (c.len == 0) return;
  Doubles alpha = inside<Log>(c), beta = outside<Log>(c), next(k);
  const double z = total<Log>(alpha.data() + (c.len - 1) * k, k);
  if (z == kNone) return clear_from(0, c, unary, sink);
  for (int64_t t = 0; t < c.len; t++) {
    const double *a = alpha.data() + t * k, *be = beta.data() + t * k;
    for (int64_t j = 0; unary && j < k; j += kLanes)
      store_as<double>(unary + t * k + j, exp<double>(row_of(a, j, k) + row_of(be, j, k) - z) * weight, int(k - j));
    if (t == c.len - 1) break;
    for (int64_t j = 0; j < k; j++) next[j] = c.u(t + 1, j) + be[k + j] - z;
    for (int64_t i = 0; i < k; i++)
      for (int64_t j = 0; j < k; j += kLanes)
        emit(sink, t, k, i, j, exp<double>(a[i] + c.edge(t, i, j) + row_of(next.data(), j, k)) * weight);
  }
}

// The covariance of the parts with f = <v, parts>, by conditional expectations of f's prefix and suffix:
//   a_t(j) = E[f up to t | z_t = j], b_t(i) = E[f after t | z_t = i]; cov(part) = p(part) (a + v(part) + b - E f).
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
SLV_INLINE vd where_positive(vd w, vd x) { return w > 0.0 ? w * x : vd{}; }  // 0 * anything is 0

template <class T>
Doubles prefix_means(const Item<T>& c, const Tangent<T>& v, const Doubles& alpha) {
  const int64_t k = c.k;
  Doubles a(c.len * k);
  for (int64_t t = 0; t < c.len; t++) {
    double* out = a.data() + t * k;
    for (int64_t j = 0; j < k; j++) out[j] = v.u(t, j);
    if (t == 0) continue;
    const double *prev = out - k, *al = alpha.data() + (t - 1) * k;
    for (int64_t j = 0; j < k; j += kLanes) {
      auto term = [&](int64_t i) { return splat(al[i]) + c.edge(t - 1, i, j); };
      vd m = Max::lanes(k, term), shift = m > kNone ? m : vd{}, weight{}, mean{};
      for (int64_t i = 0; i < k; i++) {
        vd w = exp<double>(term(i) - shift);
        weight += w;
        mean += where_positive(w, prev[i] + v.edge(t - 1, i, j));
      }
      vd x = load_n<double>(out + j, int(k - j), 0) + (weight > 0.0 ? mean / weight : vd{});
      store_n<double>(out + j, x, int(k - j));
    }
  }
  return a;
}

template <class T>
Doubles suffix_means(const Item<T>& c, const Tangent<T>& v, const Doubles& beta) {
  const int64_t k = c.k;
  Doubles b(c.len * k), next(k), after(k);
  for (int64_t t = c.len - 2; t >= 0; t--) {
    for (int64_t j = 0; j < k; j++) {
      next[j] = c.u(t + 1, j) + beta[(t + 1) * k + j];
      after[j] = v.u(t + 1, j) + b[(t + 1) * k + j];
    }
    for (int64_t i = 0; i < k; i++) {
      const double top = beta[t * k + i], shift = top > kNone ? top : 0;
      vd mean{};
      for (int64_t j = 0; j < k; j += kLanes) {
        vd w = exp<double>(c.edge(t, i, j) + row_of(next.data(), j, k) - shift);
        mean += where_positive(w, v.edge(t, i, j) + load_n<double>(&after[j], int(k - j), 0));
      }
      b[t * k + i] = hsum<double>(mean);
    }
  }
  return b;
}

template <class T>
double hvp_log(const Chain<T>& chain, int64_t item, double weight, const Direction<T>& dir, T* unary,
               const EdgeSink<T>& sink) {
  Item<T> c(chain, item);
  const int64_t k = c.k;
  clear_from(c.len, c, unary, sink);
  if (c.len == 0) return 0;
  Doubles alpha = inside<Log>(c), beta = outside<Log>(c);
  const double z = total<Log>(alpha.data() + (c.len - 1) * k, k);
  if (z == kNone) return clear_from(0, c, unary, sink), 0;
  Tangent<T> v(c, dir, item);
  Doubles a = prefix_means(c, v, alpha), b = suffix_means(c, v, beta), next(k), after(k);
  double mean = 0;
  for (int64_t i = 0; i < k; i++) {
    const double p = scalar_exp(alpha[(c.len - 1) * k + i] - z);
    if (p > 0) mean += p * a[(c.len - 1) * k + i];
  }
  for (int64_t t = 0; t < c.len; t++) {
    const int64_t row = t * k;
    for (int64_t j = 0; j < k; j += kLanes) {
      vd p = exp<double>(row_of(&alpha[row], j, k) + row_of(&beta[row], j, k) - z) * weight;
      vd f = load_n<double>(&a[row + j], int(k - j), 0) + load_n<double>(&b[row + j], int(k - j), 0) - mean;
      store_as<double>(unary + row + j, p != 0.0 ? p * f : vd{}, int(k - j));
    }
    if (t == c.len - 1) break;
    for (int64_t j = 0; j < k; j++) {
      next[j] = c.u(t + 1, j) + beta[row + k + j] - z;
      after[j] = v.u(t + 1, j) + b[row + k + j] - mean;
    }
    for (int64_t i = 0; i < k; i++)
      for (int64_t j = 0; j < k; j += kLanes) {
        vd p = exp<double>(alpha[row + i] + c.edge(t, i, j) + row_of(next.data(), j, k)) * weight;
        vd f = a[row + i] + v.edge(t, i, j) + load_n<double>(&after[j], int(k - j), 0);
        emit(sink, t, k, i, j, p != 0.0 ? p * f : vd{});
      }
  }
  return mean;
}

}  // namespace
}  // namespace slv
