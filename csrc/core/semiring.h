// The semirings of the exact recursions. The primitive is a reduction of k terms, not a sum of two: Log takes the
// maximum first, then one exp per term. A sum over nothing but -inf is -inf, and (inf - inf) never arises.
#pragma once
#include "core/vec.h"

namespace slv {
namespace {

using vd = vec<double>;

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
};

}  // namespace
}  // namespace slv
