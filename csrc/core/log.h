// The logarithm of whole vectors: log(2^e m) = e ln 2 + 2 atanh((m - 1) / (m + 1)), m in [1/sqrt 2, sqrt 2).
#pragma once
#include "core/vec.h"

namespace slv {
namespace {

// 2 atanh(s) from the first `Terms` of 2 (s + s^3 / 3 + s^5 / 5 + ...).
template <class T, int Terms>
SLV_INLINE vec<T> twice_atanh(vec<T> s) {
  const vec<T> square = s * s;
  vec<T> p = splat(T(2.0 / (2 * Terms - 1)));
#pragma GCC unroll 16
  for (int i = Terms - 2; i >= 0; i--) p = p * square + T(2.0 / (2 * i + 1));
  return p * s;
}
// x = 2^e m for positive normal numbers; e as floating-point numbers.
template <class T>
struct Split {
  vec<T> e, m;
  SLV_INLINE explicit Split(vec<T> x) {
    const ivec<T> root = (ivec<T>)splat(T(0.70710678118654752));
    const ivec<T> power = ((ivec<T>)x - root) >> kMantissa<T>;
    m = (vec<T>)((ivec<T>)x - (power << kMantissa<T>));
    e = __builtin_convertvector(power, vec<T>);
  }
};
// e ln 2 + r; ln 2 in two parts, the first of so few digits that its product is exact.
template <class T>
SLV_INLINE vec<T> plus_powers(vec<T> e, vec<T> r) {
  constexpr bool narrow = sizeof(T) == 4;
  const T high = narrow ? T(0.693145751953125) : T(6.93147180369123816490e-01);
  const T low = narrow ? T(1.42860677e-6) : T(1.90821492927058770002e-10);
  return e * high + (e * low + r);
}
// Of positive normal numbers, to about one unit in the last place.
template <class T>
SLV_INLINE vec<T> log_normal(vec<T> x) {
  const Split<T> s(x);
  return plus_powers<T>(s.e, twice_atanh<T, sizeof(T) == 4 ? 5 : 12>((s.m - T(1)) / (s.m + T(1))));
}
// log(1 + x), 0 <= x <= 1.
SLV_INLINE vec<double> log_one_plus(vec<double> x) { return twice_atanh<double, 17>(x / (x + 2.0)); }
// log(1 - exp(x)), x < 0: near 0 by the series of 1 - exp(x), which would cancel.
SLV_INLINE vec<double> log_one_minus_exp(vec<double> x) {
  vec<double> p = splat(1.0);
#pragma GCC unroll 16
  for (int n = 15; n > 1; n--) p = p * x * (1.0 / n) + 1.0;
  return log_normal<double>(x < -0.5 ? 1.0 - exp<double>(x) : -x * p);
}

}  // namespace
}  // namespace slv
