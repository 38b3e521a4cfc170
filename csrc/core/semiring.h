// The semirings of the exact recursions. The primitive is a reduction of k terms, not a sum of two: Log takes the
// maximum first, then one exp per term. A sum over nothing but -inf is -inf, and (inf - inf) never arises.
#pragma once
#include <algorithm>

#include "core/buffer.h"
#include "core/vec.h"

namespace slv {
namespace {

using vd = vec<double>;
constexpr int kLanes = kWidth<double>;
constexpr double kNone = -kInf<double>;

// Elements j.. of a row of k, -inf beyond its end.
SLV_INLINE vd row_of(const double* p, int64_t j, int64_t k) { return load_n<double>(p + j, int(k - j), kNone); }
SLV_INLINE vd where_positive(vd w, vd x) { return w > 0.0 ? w * x : vd{}; }  // 0 * anything is 0

struct Log {
  // sum over i of term(i), in every lane by itself
  template <class F>
  SLV_INLINE static vd lanes(int64_t k, F term) {
    vd m = splat(-kInf<double>);
    for (int64_t i = 0; i < k; i++) m = vmax(m, term(i));
    vd shift = m > -kInf<double> ? m : vd{}, s{};
    for (int64_t i = 0; i < k; i++) s += exp<double>(term(i) - shift);
    return m > -kInf<double> ? m + log<double>(s) : m;
  }
  // sum over all elements; term(j, n) gives lanes j.. of which n count, the others being -inf
  template <class F>
  SLV_INLINE static double row(int64_t k, F term) {
    constexpr int W = kWidth<double>;
    vd m = splat(-kInf<double>), s{};
    for (int64_t j = 0; j < k; j += W) m = vmax(m, term(j, int(k - j)));
    double top = hmax<double>(m);
    if (!(top > -kInf<double>)) return top;
    for (int64_t j = 0; j < k; j += W) s += exp<double>(term(j, int(k - j)) - top);
    return top + scalar_log(hsum<double>(s));
  }
  // sum over all elements of the terms that each(visit) shows to `visit`
  template <class F>
  SLV_INLINE static double all(F each) {
    vd m = splat(-kInf<double>), s{};
    each([&](vd x) { m = vmax(m, x); });
    const double top = hmax<double>(m);
    if (!(top > -kInf<double>)) return top;
    each([&](vd x) { s += exp<double>(x - top); });
    return top + scalar_log(hsum<double>(s));
  }
};

struct Max {
  template <class F>
  SLV_INLINE static vd lanes(int64_t k, F term) {
    vd m = splat(-kInf<double>);
    for (int64_t i = 0; i < k; i++) m = vmax(m, term(i));
    return m;
  }
  template <class F>
  SLV_INLINE static double row(int64_t k, F term) {
    vd m = splat(-kInf<double>);
    for (int64_t j = 0; j < k; j += kWidth<double>) m = vmax(m, term(j, int(k - j)));
    return hmax<double>(m);
  }
  template <class F>
  SLV_INLINE static double all(F each) {
    vd m = splat(-kInf<double>);
    each([&](vd x) { m = vmax(m, x); });
    return hmax<double>(m);
  }
};

// The weights exp(row), which add up to `scale`: they start every backward pass. False where all are 0.
inline bool softmax(const double* row, int64_t k, double scale, double* out) {
  const double top = *std::max_element(row, row + k);
  if (top == kNone) return false;
  double sum = 0;
  for (int64_t i = 0; i < k; i++) sum += out[i] = scalar_exp(row[i] - top);
  for (int64_t i = 0; i < k; i++) out[i] *= scale / sum;
  return true;
}
template <class S>
double total(const double* row, int64_t k) {
  return S::row(k, [&](int64_t j, int) { return row_of(row, j, k); });
}

}  // namespace
}  // namespace slv
