// Forward-backward in the scaled linear domain (Rabiner 1989, section V.A), for chains whose steps share one
// transition.
//
// A block of items that share it advances together: one [rows, k] x [k, k] product a step. Every entry is relative to a
// power of two kept as an integer, so no log, exp or division is spent on scaling:
//   e_t = exp(u_t) 2^-N_t     alpha_t = (alpha_t-1 P) e_t s_t     s_t = 2^-exponent(max alpha_t-1)
//   g_t = e_t beta_t s_t      beta_t = g_t+1 P^T                  the backward pass starts from weight / Z
// so that alpha_t beta_t are the weighted marginals and alpha_t P g_t+1 the edges, with no reduction of its own.
//
// When is that exact? (NUMERICS: "the ladder".) With rho the range of the finite transitions:
// * mild: all are finite and 4 k^2 2^-126 e^(2 rho) < 1e-15. Whatever underflows is at least that far below the rest,
//   and one step cannot lift it by more than e^rho: it never matters, and nothing is checked.
// * wide: some are -inf, and rho <= 41 (float64: 368, finite or not). An entry that is neither 0 nor above `tiny` flags
//   its row; so no product underflows, by induction 0 means structurally impossible, and nothing was lost.
// * else, and for flagged rows: float64, then exact log space, for those items alone.
#pragma once
#include "core/product.h"
#include "kernels/chain_rows.h"

namespace slv {
namespace {

// exp of a transition matrix, as panels of columns, and of its transpose.
template <class T>
struct ScanMatrix {
  int64_t k, panels;
  double exponent = 0;  // a power of two taken out
  bool mild = false, usable = false;
  Buffer<T> data;

  template <class In>
  ScanMatrix(const In* a, int64_t k) : k(k), panels((k + kWidth<T> - 1) / kWidth<T>), data(2 * panels * k * kWidth<T>) {
    constexpr int W = kWidth<T>;
    vec<T> top = splat(-kInf<T>), low = splat(kInf<T>);
    ivec<T> forbidden{};
    for (int64_t i = 0; i < k; i++)
      for (int64_t j = 0; j < k; j += W) {
        vec<T> x = load_as<T>(a + i * k + j, int(k - j), -kInf<T>), y = load_as<T>(a + i * k + j, int(k - j), kInf<T>);
        top = vmax(top, x);
        low = vmin(low, y > -kInf<T> ? y : splat(kInf<T>));
        forbidden |= y == -kInf<T>;
      }
    const double high = double(hmax<T>(top)), rho = high + double(hmax<T>(-low));
    const bool bounded = high < double(Range<T>::huge) && high > -double(Range<T>::huge);
    const bool empty = high == -kInf<double>;
    const bool finite = !any<T>(forbidden);
    mild = bounded && finite && 2 * rho + 2 * scalar_log(double(k)) <= Range<T>::mild;
    // without -inf, float64 is mild where float32 would only be wide, and sure to be asked
    usable = empty || mild || (bounded && rho <= Range<T>::wide && (!finite || sizeof(T) == 8));
    if (!usable) return;
    exponent = empty ? 0 : double(nearest<T>(splat(T(high * 1.44269504088896341)))[0]);
    const vec<T> N = splat(T(exponent));
    T *p = data.data(), *q = p + panels * k * W;
    for (int64_t i = 0; i < k; i++)
      for (int64_t j = 0; j < k; j += W)
        store(p + (j / W * k + i) * W, exp_scaled<T>(load_as<T>(a + i * k + j, int(k - j), -kInf<T>), N));
    for (int64_t i = 0; i < k; i += W)
      for (int64_t j = 0; j < k; j += W) {
        vec<T> x[W];
#pragma GCC unroll 16
        for (int l = 0; l < W; l++) x[l] = i + l < k ? load(p + (j / W * k + i + l) * W) : vec<T>{};
        transpose_lanes<T, W / 2>(x);
#pragma GCC unroll 16
        for (int l = 0; l < W; l++)
          if (j + l < k) store(q + (i / W * k + j + l) * W, x[l]);
      }
  }
  Matrix<T> forward() const { return {data.data(), k * kWidth<T>}; }
  Matrix<T> backward() const { return {data.data() + panels * k * kWidth<T>, k * kWidth<T>}; }
  // vector of columns panel p of row i
  vec<T> at(int64_t i, int64_t p) const { return load(data.data() + (p * k + i) * kWidth<T>); }
};

template <class In, class T>
struct Scan : ScaledRows<In, T> {
  using Base = ScaledRows<In, T>;
  using Base::panels, Base::panel, Base::step, Base::window, Base::exponent, Base::bad;
  using Base::W, Base::rows, Base::k, Base::steps, Base::shortest, Base::len;
  const ScanMatrix<T>& m;
  bool save = false;
  T *base = nullptr, *scales = nullptr;

  Scan(const Chain<In>& c, const ScanMatrix<T>& m, const int64_t* items, int rows) : Base(c, items, rows), m(m) {}
  int64_t chart_size() const { return steps * (2 * step + rows); }
  int64_t ring_size() const { return (2 + window) * step + 2 * rows; }
  // chart: all steps, kept for the backward pass; ring: as much as the forward pass needs
  void bind_chart(T* p, T* s) { save = true, base = p, scales = s; }
  void bind_chart(T* p) { bind_chart(p, p + steps * 2 * step); }
  void bind_ring(T* p) { save = false, base = p, scales = p + (2 + window) * step; }
  T* alpha(int64_t t) const { return base + (save ? t * 2 : t & 1) * step; }
  T* e(int64_t t) const { return base + (save ? t * 2 + 1 : window == 1 ? 2 : 2 + t % window) * step; }
  T* scale(int64_t t) const { return scales + (save ? t : t & 1) * rows; }

  // One: the block is one row, and no loop over rows is left of its steps.
  template <bool Wide, bool One>
  void forward() {
    const int rows = One ? 1 : Base::rows;
    const int64_t panel = rows * W;
    ivec<T> thin[Wide ? kMaxRows : 1] = {};
    for (int64_t t = 0, formed = 0; t < steps; t++) {
      if (t == formed) {
        formed = std::min(t + window, steps);
        this->template exponentiate<Wide>(t, formed, e(t), save ? 2 * step : step);
      }
      const T *et = e(t), *s = scale(t);
      T* out = alpha(t);
      if (t == 0) {
        std::fill(scale(0), scale(0) + rows, T(1));
        for (int64_t p = 0; p < panels; p++)
          for (int r = 0; r < rows; r++) {
            vec<T> x = load(et + p * panel + r * W);
            if constexpr (Wide) thin[r] |= (x < Range<T>::tiny) & (x > T(0));
            store(out + p * panel + r * W, x);
          }
      } else {
        multiply_rows<PlusTimes>(rows, k, alpha(t - 1), panel, m.forward(),
                                 [&](int64_t r, int64_t p, vec<T> sum) __attribute__((always_inline)) {
                                   const int64_t at = p * panel + r * W;
                                   vec<T> x = load(et + at), v = sum * (x * s[r]);
                                   if constexpr (Wide) thin[r] |= (v < Range<T>::tiny) & (sum > T(0)) & (x > T(0));
                                   store(out + at, v);
                                 });
      }
      for (int r = 0; t >= shortest - 1 && r < rows; r++)
        if (len[r] - 1 == t) this->finish(r, out, double(t) * m.exponent);
      if (t + 1 < steps) rescale<One>(t);
    }
    for (int r = 0; Wide && r < rows; r++)
      if (any<T>(thin[r])) bad[r] = true;
    for (int r = 0; save && r < rows; r++)
      if (bad[r]) erase(r);
  }
  void run_forward() {
    FlushDenormals flush;
    if (rows == 1)
      m.mild ? forward<false, true>() : forward<true, true>();
    else
      m.mild ? forward<false, false>() : forward<true, false>();
  }

  // the scale of step t+1, and its exponent
  template <bool One>
  void rescale(int64_t t) {
    constexpr int R = kTreeRows<T>;
    const int rows = One ? 1 : Base::rows;
    const int64_t panel = rows * W;
    const T* a = alpha(t);
    T* s = scale(t + 1);
    auto row_max = [&](int r) __attribute__((always_inline)) {
      vec<T> top = load(a + r * W);
      for (int64_t p = 1; p < panels; p++) top = vmax(top, load(a + p * panel + r * W));
      return top;
    };
    int q = 0;
    for (; q + R <= rows; q += R) {
      vec<T> top[R];
#pragma GCC unroll 8
      for (int i = 0; i < R; i++) top[i] = row_max(q + i);
      ivec<T> power = exponent_of<T>(vmax(reduce_rows<T>(top, MaxOp()), splat(kSmallest<T>)));
      store_rows(s + q, power_of_two<T>(-power));
      alignas(64) T p[R];
      store_rows(p, __builtin_convertvector(power, vec<T>));
      this->add_exponents(q, p);
    }
    for (; q < rows; q++) {
      ivec<T> power = exponent_of<T>(vmax(reduce_lanes<T, W / 2>(row_max(q), MaxOp()), splat(kSmallest<T>)));
      s[q] = power_of_two<T>(-power)[0];
      exponent[q] += double(power[0]);
    }
  }
  // A row that will be computed elsewhere must not spoil sums over rows.
  void erase(int r) {
    this->inverse[r] = 0;
    for (int64_t t = 0; t < steps; t++) {
      scale(t)[r] = 1;
      for (int64_t p = 0; p < panels; p++) {
        store(alpha(t) + p * panel + r * W, vec<T>{});
        store(e(t) + p * panel + r * W, vec<T>{});
      }
    }
  }
};

}  // namespace
}  // namespace slv
