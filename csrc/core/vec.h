// Vectors in GCC/Clang vector extensions, and every exp and infinity of the C++ side.
//
// Included by kernel translation units only, which are compiled once per instruction set: all of it lies in an
// anonymous namespace, so that the linker can never hand one instruction set's copy to another.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#define SLV_INLINE inline __attribute__((always_inline))

namespace slv {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif
constexpr double kLn2 = 0.6931471805599453094;
template <class T>
constexpr T kInf = std::numeric_limits<T>::infinity();
template <class T>
constexpr int kWidth = kVectorBytes / int(sizeof(T));
constexpr int kChartBytes = 64;  // rows of a chart are padded to this on every machine (its size is part of the op)
template <class T>
SLV_INLINE int64_t padded(int64_t k) {
  constexpr int64_t w = kChartBytes / int64_t(sizeof(T));
  return (k + w - 1) / w * w;
}

template <class T>
struct lanes;
template <>
struct lanes<float> {
  typedef float type __attribute__((vector_size(kVectorBytes), may_alias));
  typedef int32_t itype __attribute__((vector_size(kVectorBytes), may_alias));
  typedef uint32_t utype __attribute__((vector_size(kVectorBytes), may_alias));
};
template <>
struct lanes<double> {
  typedef double type __attribute__((vector_size(kVectorBytes), may_alias));
  typedef int64_t itype __attribute__((vector_size(kVectorBytes), may_alias));
  typedef uint64_t utype __attribute__((vector_size(kVectorBytes), may_alias));
};
template <class T>
using vec = typename lanes<T>::type;
template <class T>
using ivec = typename lanes<T>::itype;  // also the type of a comparison: all ones where true

template <class T>
SLV_INLINE vec<T> load(const T* p) {
  vec<T> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <class T>
SLV_INLINE void store(T* p, vec<T> v) {
  std::memcpy(p, &v, sizeof v);
}
template <class T>
SLV_INLINE vec<T> splat(T x) {
  return x - vec<T>{};
}
template <class T>
SLV_INLINE ivec<T> iota() {
  ivec<T> v{};
  for (int l = 0; l < kWidth<T>; l++) v[l] = l;
  return v;
}
// The first n lanes of memory; the others are `fill` and are not read.
template <class T>
SLV_INLINE vec<T> load_n(const T* p, int n, T fill) {
  if (n >= kWidth<T>) return load(p);
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    return (vec<T>)_mm512_mask_loadu_ps(_mm512_set1_ps(fill), __mmask16((1u << n) - 1), p);
  else
    return (vec<T>)_mm512_mask_loadu_pd(_mm512_set1_pd(fill), __mmask8((1u << n) - 1), p);
#else
  vec<T> v = splat(fill);
  std::memcpy(&v, p, n * sizeof(T));
  return v;
#endif
}
template <class T>
SLV_INLINE void store_n(T* p, vec<T> v, int n) {
  if (n >= kWidth<T>) return store(p, v);
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    _mm512_mask_storeu_ps(p, __mmask16((1u << n) - 1), (__m512)v);
  else
    _mm512_mask_storeu_pd(p, __mmask8((1u << n) - 1), (__m512d)v);
#else
  std::memcpy(p, &v, n * sizeof(T));
#endif
}
// Past the cache: for results much larger than it, on addresses aligned to a vector.
template <class T>
SLV_INLINE void store_stream(T* p, vec<T> v) {
#if defined(__AVX512F__)
  _mm512_stream_si512((__m512i*)p, (__m512i)v);
#elif defined(__AVX2__)
  _mm256_stream_si256((__m256i*)p, (__m256i)v);
#else
  store(p, v);
#endif
}
inline void finish_streams() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}
// A line of memory that will be read soon.
SLV_INLINE void prefetch(const void* p) { __builtin_prefetch(p); }
// The same where the first-level cache is full of what is read sooner.
SLV_INLINE void prefetch_far(const void* p) { __builtin_prefetch(p, 0, 2); }
// Load as another type: the narrow inputs of a wider computation.
template <class T, class In>
SLV_INLINE vec<T> load_as(const In* p, int n, T fill) {
  if constexpr (sizeof(In) == sizeof(T)) {
    return load_n<T>(p, n, fill);
  } else {
    typedef In narrow __attribute__((vector_size(kVectorBytes / (int(sizeof(T)) / int(sizeof(In))))));
    narrow v = In(fill) - narrow{};
    if (n >= kWidth<T>)
      std::memcpy(&v, p, sizeof v);
    else
      std::memcpy(&v, p, n * sizeof(In));
    return __builtin_convertvector(v, vec<T>);
  }
}
template <class T, class Out>
SLV_INLINE void store_as(Out* p, vec<T> v, int n) {
  if constexpr (sizeof(Out) == sizeof(T)) {
    store_n<T>(p, v, n);
  } else {
    typedef Out narrow __attribute__((vector_size(kVectorBytes / (int(sizeof(T)) / int(sizeof(Out))))));
    narrow x = __builtin_convertvector(v, narrow);
    std::memcpy(p, &x, (n >= kWidth<T> ? kWidth<T> : n) * sizeof(Out));
  }
}
// Adds n lanes times a weight to sums of another type.
template <class T, class Sum>
SLV_INLINE void add_as(Sum* p, vec<T> v, int64_t n, Sum weight = 1) {
  typedef Sum wide __attribute__((vector_size(kWidth<T> * sizeof(Sum))));
  const wide x = __builtin_convertvector(v, wide) * weight;
  if (n >= kWidth<T>) {
    wide sum;
    std::memcpy(&sum, p, sizeof sum);
    sum += x;
    std::memcpy(p, &sum, sizeof sum);
  } else {
#pragma GCC unroll 1
    for (int64_t l = 0; l < n; l++) p[l] += x[l];
  }
}

template <class V>
SLV_INLINE V vmax(V a, V b) {
  return a > b ? a : b;
}
template <class V>
SLV_INLINE V vmin(V a, V b) {
  return a < b ? a : b;
}
// Two vectors cut into blocks of 2H lanes: the first (or second) halves of the blocks of a, each followed by that of b.
template <class T, int H, int Second, size_t... L>
SLV_INLINE vec<T> interleave_halves(vec<T> a, vec<T> b, std::index_sequence<L...>) {
  constexpr int W = kWidth<T>;
  return __builtin_shufflevector(
      a, b,
      (int(L) % (2 * H) < H ? int(L) / (2 * H) * 2 * H + Second * H + int(L) % (2 * H)
                            : W + int(L) / (2 * H) * 2 * H + Second * H + int(L) % (2 * H) - H)...);
}
template <class T>
constexpr auto kLaneSequence = std::make_index_sequence<kWidth<T>>{};
template <class T, int H, class Op>  // the reduction of all lanes, in every lane
SLV_INLINE vec<T> reduce_lanes(vec<T> v, Op op) {
  if constexpr (H > 0)
    return reduce_lanes<T, H / 2>(
        op(interleave_halves<T, H, 0>(v, v, kLaneSequence<T>), interleave_halves<T, H, 1>(v, v, kLaneSequence<T>)), op);
  else
    return v;
}
struct MaxOp {
  template <class V>
  SLV_INLINE V operator()(V a, V b) const {
    return vmax(a, b);
  }
};
struct SumOp {
  template <class V>
  SLV_INLINE V operator()(V a, V b) const {
    return a + b;
  }
};
template <class T>
SLV_INLINE T hmax(vec<T> v) {
  return reduce_lanes<T, kWidth<T> / 2>(v, MaxOp())[0];
}
template <class T>
SLV_INLINE T hsum(vec<T> v) {
  return reduce_lanes<T, kWidth<T> / 2>(v, SumOp())[0];
}
template <class T>
SLV_INLINE bool any(ivec<T> m) {
#if defined(__AVX512F__)
  return _mm512_test_epi32_mask((__m512i)m, (__m512i)m) != 0;
#elif defined(__AVX2__)
  return !_mm256_testz_si256((__m256i)m, (__m256i)m);
#elif defined(__SSE2__)
  return _mm_movemask_epi8((__m128i)m) != 0;
#else
  auto x = m[0];
  for (int l = 1; l < kWidth<T>; l++) x |= m[l];
  return x != 0;
#endif
}

// A bit for each lane where a == b, or a > b.
#if defined(__AVX512F__)
// By hand: GCC 12 may store a mask as 16 bits and read it back as 64.
SLV_INLINE unsigned mask_bits(__mmask16 m) {
  unsigned bits;
  asm("kmovw %1, %0" : "=r"(bits) : "k"(m));
  return bits;
}
SLV_INLINE unsigned mask_bits(__mmask8 m) {
  unsigned bits;
  asm("kmovb %1, %0" : "=r"(bits) : "k"(m));
  return bits;
}
SLV_INLINE unsigned equal_lanes(vec<float> a, vec<float> b) {
  return mask_bits(_mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_EQ_OQ));
}
SLV_INLINE unsigned equal_lanes(vec<double> a, vec<double> b) {
  return mask_bits(_mm512_cmp_pd_mask((__m512d)a, (__m512d)b, _CMP_EQ_OQ));
}
SLV_INLINE unsigned greater_lanes(vec<float> a, vec<float> b) {
  return mask_bits(_mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GT_OQ));
}
SLV_INLINE unsigned greater_lanes(vec<double> a, vec<double> b) {
  return mask_bits(_mm512_cmp_pd_mask((__m512d)a, (__m512d)b, _CMP_GT_OQ));
}
#else
template <class M>
SLV_INLINE unsigned lane_bits(M m) {
  constexpr int n = int(sizeof(m) / sizeof(m[0]));
#if defined(__AVX2__)
  return n == 8 ? _mm256_movemask_ps((__m256)m) : _mm256_movemask_pd((__m256d)m);
#elif defined(__SSE2__)
  return n == 4 ? _mm_movemask_ps((__m128)m) : _mm_movemask_pd((__m128d)m);
#else
  unsigned bits = 0;
  for (int l = 0; l < n; l++) bits |= unsigned(m[l] != 0) << l;
  return bits;
#endif
}
template <class V>
SLV_INLINE unsigned equal_lanes(V a, V b) {
  return lane_bits(a == b);
}
template <class V>
SLV_INLINE unsigned greater_lanes(V a, V b) {
  return lane_bits(a > b);
}
#endif

// Powers of two as scales: exact, and neither a log nor a division. x must be positive and normal.
template <class T>
constexpr int kMantissa = sizeof(T) == 4 ? 23 : 52;
template <class T>
constexpr int kBias = sizeof(T) == 4 ? 127 : 1023;
template <class T>
SLV_INLINE ivec<T> exponent_of(vec<T> x) {
  return ((ivec<T>)x >> kMantissa<T>)-kBias<T>;
}
template <class T>
SLV_INLINE vec<T> power_of_two(ivec<T> e) {
  return (vec<T>)((e + kBias<T>) << kMantissa<T>);
}
template <class T>
constexpr T kSmallest = std::numeric_limits<T>::min();

// x rounded to an integer (as T) by adding and subtracting 1.5 * 2^(mantissa bits); |x| < 2^22 (2^51 in float64).
template <class T>
constexpr T kMagic = sizeof(T) == 4 ? T(12582912.0) : T(6755399441055744.0);
template <class T>
SLV_INLINE vec<T> nearest(vec<T> x) {
  return (x + kMagic<T>)-kMagic<T>;
}
#if defined(__AVX512F__)
template <>
SLV_INLINE vec<float> nearest<float>(vec<float> x) {
  return (vec<float>)_mm512_maskz_roundscale_ps(0xffff, (__m512)x, _MM_FROUND_TO_NEAREST_INT);
}
#endif
// x - n ln 2 with ln 2 in two parts; the products are exact through FMA, through float64 where there is none.
SLV_INLINE vec<double> reduce_ln2(vec<double> x, vec<double> n) {
  x = x - n * 6.93147180369123816490e-01;
  return x - n * 1.90821492927058770002e-10;
}
SLV_INLINE vec<float> reduce_ln2(vec<float> x, vec<float> n) {
#if defined(__FMA__) || defined(__aarch64__)
  x = x - n * 0.693145751953125f;
  return x - n * 1.42860677e-6f;
#else
  vec<float> r;
  for (int l = 0; l < kWidth<float>; l++) r[l] = float(double(x[l]) - double(n[l]) * kLn2);
  return r;
#endif
}
SLV_INLINE vec<float> exp_polynomial(vec<float> r) {  // |r| <= ln(2)/2
  vec<float> p = splat(0.0013814539415761828f);
  p = p * r + 0.00836874544620514f;
  p = p * r + 0.04166838899254799f;
  p = p * r + 0.1666652113199234f;
  p = p * r + 0.4999999403953552f;
  p = p * r + 1.0f;
  return p * r + 1.0f;
}
SLV_INLINE vec<double> exp_polynomial(vec<double> r) {
  constexpr double c[14] = {
      1.0,        1.0,         1.0 / 2,      1.0 / 6,       1.0 / 24,       1.0 / 120,       1.0 / 720,
      1.0 / 5040, 1.0 / 40320, 1.0 / 362880, 1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800.0};
  vec<double> p = splat(c[13]);
#pragma GCC unroll 16
  for (int i = 12; i >= 0; i--) p = p * r + c[i];
  return p;
}
// p * 2^d for integer-valued d under 126; 0 where d is under -125 (float64: -1021), also where p is NaN and d is -inf.
template <class T>
SLV_INLINE vec<T> times_power(vec<T> p, vec<T> d) {
  vec<T> scale = (vec<T>)((ivec<T>)(d + (kMagic<T> + T(kBias<T>))) << kMantissa<T>);
  return d < T(2 - kBias<T>) ? vec<T>{} : p * scale;
}
#if defined(__AVX512F__)  // one instruction each; here the result is 0 where it is under 2^-126
template <>
SLV_INLINE vec<float> times_power<float>(vec<float> p, vec<float> d) {
  return (vec<float>)_mm512_maskz_scalef_ps(0xffff, (__m512)p, (__m512)d);
}
#endif
// exp(x) * 2^-N for integer-valued N, without rounding x by subtracting a maximum first. The result must be under
// 2^126; where it would be denormal it is 0 (see times_power), exactly 0 at -inf, and NaN at NaN.
template <class T>
SLV_INLINE vec<T> exp_scaled(vec<T> x, vec<T> N) {
  vec<T> n = nearest<T>(x * T(1.44269504088896341));
  return times_power<T>(exp_polynomial(reduce_ln2(x, n)), n - N);
}
template <class T>
SLV_INLINE vec<T> exp(vec<T> x) {
  return exp_scaled<T>(x, vec<T>{});
}
template <class T>
SLV_INLINE vec<T> log(vec<T> x) {  // scalar: used once per state, where exp is used once per edge
  for (int l = 0; l < kWidth<T>; l++) x[l] = std::log(x[l]);
  return x;
}
SLV_INLINE double scalar_exp(double x) { return std::exp(x); }
SLV_INLINE double scalar_log(double x) { return std::log(x); }
SLV_INLINE double power_of_two_below(double x) { return std::ldexp(1.0, std::ilogb(x)); }  // x > 0
SLV_INLINE int scalar_exponent(double x) { return std::ilogb(x); }                         // x > 0
SLV_INLINE double scalar_power_of_two(double e) {  // of a whole number; 0 where it underflows
  if (!(e >= -1022.0)) return 0;
  if (e > 1023.0) return kInf<double>;
  const uint64_t bits = uint64_t(int64_t(e) + 1023) << 52;
  double x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
// exp(x) * 2^-N, and an N that makes it about 1.
SLV_INLINE double scalar_exp_scaled(double x, double N) { return exp_scaled<double>(splat(x), splat(N))[0]; }
SLV_INLINE double nearest_exponent(double x) { return nearest<double>(splat(x * 1.44269504088896341))[0]; }

// Denormals as zero for the lifetime of the object: the scaled linear domain treats them as underflow, and they are
// slow.
struct FlushDenormals {
#if defined(__SSE2__)
  unsigned saved = _mm_getcsr();
  FlushDenormals() { _mm_setcsr(saved | 0x8040u); }
  ~FlushDenormals() { _mm_setcsr(saved); }
#else
  FlushDenormals() {}
  ~FlushDenormals() {}
#endif
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;
};

}  // namespace
}  // namespace slv
