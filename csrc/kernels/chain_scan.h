// Forward-backward in the scaled linear domain (Rabiner 1989, section V.A), for chains whose steps share one transition.
//
// A block of items that share it advances together: one [rows, k] x [k, k] product a step. Every entry is relative to a
// power of two kept as an integer, so no log, exp or division is spent on scaling:
//   e_t = exp(u_t) 2^-N_t     alpha_t = (alpha_t-1 P) e_t s_t     s_t = 2^-exponent(max alpha_t-1)
//   g_t = e_t beta_t s_t      beta_t = g_t+1 P^T                  the backward pass starts from weight / Z
// so that alpha_t beta_t are the weighted marginals and alpha_t P g_t+1 the edges, with no reduction of its own.
//
// When is that exact? (NUMERICS: "the ladder".) With rho the range of the finite transitions:
// * mild: all are finite and 4 k^2 2^-126 e^(2 rho) < 1e-15. Whatever underflows is at least that far below the rest, and
//   one step cannot lift it by more than e^rho: it never matters, and nothing is checked.
// * wide: rho <= 41 (float64: 368), with or without -inf. Every entry that is neither 0 nor above kTiny flags its row; then
//   no product underflows, so by induction 0 means structurally impossible and nothing was lost.
// * else, and for flagged rows: float64, then exact log space, for that item alone.
#pragma once
#include <algorithm>

#include "core/buffer.h"
#include "core/tile.h"
#include "kernels/chain.h"

namespace slv {
namespace {

template <class T>
struct Range;
template <>
struct Range<float> {
  static constexpr double mild = 51.4, wide = 41;       // 2 rho + 2 ln k; rho
  static constexpr float tiny = 1e-17f, huge = 1e6f;    // of a wide entry; of a row's maximum
};
template <>
struct Range<double> {
  static constexpr double mild = 670, wide = 368;
  static constexpr double tiny = 1e-140, huge = 1e14;
};

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
    usable = empty || (bounded && rho <= Range<T>::wide);
    mild = bounded && !any<T>(forbidden) && 2 * rho + 2 * scalar_log(double(k)) <= Range<T>::mild;
    if (!usable) return;
    exponent = empty ? 0 : double(nearest<T>(splat(T(high * 1.44269504088896341)))[0]);
    const vec<T> N = splat(T(exponent));
    T *p = data.data(), *q = p + panels * k * W;
    for (int64_t i = 0; i < k; i++)
      for (int64_t j = 0; j < k; j += W)
        store(p + (j / W * k + i) * W, exp_scaled<T>(load_as<T>(a + i * k + j, int(k - j), -kInf<T>), N));
    std::fill(q + (panels - 1) * k * W, q + panels * k * W, T(0));
    for (int64_t i0 = 0; i0 < k; i0 += W)  // tile by tile, for the cache
      for (int64_t j0 = 0; j0 < k; j0 += W)
        for (int64_t i = i0; i < std::min(i0 + W, k); i++)
          for (int64_t j = j0; j < std::min(j0 + W, k); j++) q[(i0 / W * k + j) * W + i - i0] = p[(j0 / W * k + i) * W + j - j0];
  }
  Matrix<T> forward() const { return {data.data(), kWidth<T>, k * kWidth<T>}; }
  Matrix<T> backward() const { return {data.data() + panels * k * kWidth<T>, kWidth<T>, k * kWidth<T>}; }
  // vector of columns panel p of row i
  vec<T> at(int64_t i, int64_t p) const { return load(data.data() + (p * k + i) * kWidth<T>); }
};

// The items of a block, and their rows of scores.
template <class In>
struct Rows {
  const Chain<In>& c;
  const int64_t* items;
  const int rows;
  const int64_t k;
  int64_t steps = 0;  // of the longest item
  int64_t len[kMaxRows];
  const In* zeros = nullptr;  // a row of 0 for the steps after an item's end

  Rows(const Chain<In>& c, const int64_t* items, int rows) : c(c), items(items), rows(rows), k(c.k) {
    for (int r = 0; r < rows; r++) {
      len[r] = c.length ? c.length[items[r]] : c.n;
      steps = std::max(steps, len[r]);
    }
  }
  int64_t row_scratch(int sums) const { return Scratch::bytes<In>(k) + Scratch::bytes<double>(sums * k); }
  double* bind_rows(Scratch& s, int sums) {  // space for `sums` rows of joined_row
    In* z = s.take<In>(k);
    std::fill(z, z + k, In(0));
    zeros = z;
    return s.take<double>(sums * k);
  }
  const In* row(int r, int64_t t) const { return t < len[r] ? c.unary + (items[r] * c.n + t) * k : zeros; }
  bool is_joined(int r, int64_t t) const { return (t == 0 && c.initial && len[r] > 0) || (t == len[r] - 1 && c.final); }
  // unary plus initial or final, in float64: large scores must not swallow the digits of the others
  void joined_row(int r, int64_t t, double* out) const {
    const int64_t b = items[r];
    const In* u = row(r, t);
    const In* i = t == 0 && c.initial ? c.initial + (c.initial_row ? c.initial_row[b] : 0) * k : zeros;
    const In* f = t == len[r] - 1 && c.final ? c.final + (c.final_row ? c.final_row[b] : 0) * k : zeros;
    for (int64_t j = 0; j < k; j++) out[j] = double(u[j]) + double(i[j]) + double(f[j]);
  }
};

template <class In, class T>
struct Scan : Rows<In> {
  static constexpr int W = kWidth<T>;
  using Rows<In>::rows, Rows<In>::k, Rows<In>::steps, Rows<In>::len;
  const ScanMatrix<T>& m;
  const int64_t panels, panel, step;  // panel: one panel of all rows; step: all panels
  bool save = false;
  T *base = nullptr, *scales = nullptr;
  double* joined = nullptr;  // kTreeRows rows
  int64_t exponent[kMaxRows] = {};
  double log_z[kMaxRows] = {};
  T inverse[kMaxRows] = {};  // 1/Z at the scale of the last alpha
  bool bad[kMaxRows] = {};   // the range of T did not do

  Scan(const Chain<In>& c, const ScanMatrix<T>& m, const int64_t* items, int rows)
      : Rows<In>(c, items, rows), m(m), panels(m.panels), panel(rows * W), step(panels * rows * W) {}
  // Steps whose e is formed at once: enough rows for a whole tree of reductions.
  int64_t window() const { return (kTreeRows<T> + rows - 1) / rows; }
  int64_t chart_size() const { return steps * (2 * step + rows); }
  int64_t ring_size() const { return (2 + window()) * step + 2 * rows; }
  int64_t scratch() const { return this->row_scratch(kTreeRows<T>); }
  void bind(Scratch& s) { joined = this->bind_rows(s, kTreeRows<T>); }
  // chart: all steps, kept for the backward pass; ring: as much as the forward pass needs
  void bind_chart(T* p, T* s) { save = true, base = p, scales = s; }
  void bind_chart(T* p) { bind_chart(p, p + steps * 2 * step); }
  void bind_ring(T* p) { save = false, base = p, scales = p + (2 + window()) * step; }
  T* alpha(int64_t t) const { return base + (save ? t * 2 : t & 1) * step; }
  T* e(int64_t t) const { return base + (save ? t * 2 + 1 : 2 + t % window()) * step; }
  T* scale(int64_t t) const { return scales + (save ? t : t & 1) * rows; }

  // The row's maximum, or a vector whose maximum it is.
  vec<T> row_top(int r, int64_t t, double* space) const {
    if (this->is_joined(r, t)) {
      this->joined_row(r, t, space);
      return splat(T(*std::max_element(space, space + k)));
    }
    const In* u = this->row(r, t);
    vec<T> top = load_as<T>(u, int(k), -kInf<T>);
    for (int64_t p = 1; p < panels; p++) top = vmax(top, load_as<T>(u + p * W, int(k - p * W), -kInf<T>));
    return top;
  }
  // exp of a row times 2^-N; whether a finite score became 0
  template <bool Wide>
  bool row_exp(int r, int64_t t, const double* space, T N, T* out) const {
    if (this->is_joined(r, t)) {
      bool lost = false;
      for (int64_t j = 0; j < panels * W; j += kWidth<double>) {
        vec<double> x = load_n<double>(space + std::min(j, k - 1), int(std::max<int64_t>(k - j, 0)), -kInf<double>);
        vec<double> y = exp_scaled<double>(x, splat(double(N)));
        if constexpr (Wide) lost |= any<double>((y < double(kSmallest<T>)) & (x > -kInf<double>));
        store_as<double>(out + j / W * panel + j % W, y, kWidth<double>);
      }
      return lost;
    }
    const In* u = this->row(r, t);
    ivec<T> lost{};
    for (int64_t p = 0; p < panels; p++) {
      vec<T> x = load_as<T>(u + p * W, int(k - p * W), -kInf<T>), y = exp_scaled<T>(x, splat(N));
      if constexpr (Wide) lost |= (y == T(0)) & (x > -kInf<T>);
      store(out + p * panel, y);
    }
    return Wide && any<T>(lost);
  }
  // e of steps [from, to), and their powers of two
  template <bool Wide>
  void exponentiate(int64_t from, int64_t to) {
    constexpr int R = kTreeRows<T>;
    const int64_t count = (to - from) * rows;
    for (int64_t q = 0; q < count; q += R) {
      const int live = int(std::min<int64_t>(R, count - q));
      vec<T> top[R];
      for (int i = 0; i < R; i++) top[i] = i < live ? row_top(int((q + i) % rows), from + (q + i) / rows, joined + i * k) : top[0];
      vec<T> maximum = reduce_rows<T>(top, [](vec<T> a, vec<T> b) { return vmax(a, b); });
      ivec<T> fits = (maximum > -Range<T>::huge) & (maximum < Range<T>::huge);
      alignas(64) T N[W], large[W];
      store(N, fits ? nearest<T>(maximum * T(1.44269504088896341)) : vec<T>{});
      store(large, (fits | (maximum == -kInf<T>)) ? vec<T>{} : splat(T(1)));
      for (int i = 0; i < live; i++) {
        const int r = int((q + i) % rows);
        const int64_t t = from + (q + i) / rows;
        const bool lost = row_exp<Wide>(r, t, joined + i * k, N[i * kTreeLane<T>], e(t) + r * W);
        exponent[r] += int64_t(N[i * kTreeLane<T>]);
        if (lost || large[i * kTreeLane<T>] != 0) bad[r] = true;
      }
    }
  }

  template <bool Wide>
  void forward() {
    ivec<T> thin[Wide ? kMaxRows : 1] = {};
    for (int64_t t = 0; t < steps; t++) {
      if (t % window() == 0) exponentiate<Wide>(t, std::min(t + window(), steps));
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
      rescale(t);
      for (int r = 0; r < rows; r++)
        if (len[r] - 1 == t) finish(r, t);
    }
    for (int r = 0; Wide && r < rows; r++)
      if (any<T>(thin[r])) bad[r] = true;
    for (int r = 0; save && r < rows; r++)
      if (bad[r]) erase(r);
  }
  void run_forward() {
    FlushDenormals flush;
    if (m.mild)
      forward<false>();
    else
      forward<true>();
  }

  // the scale of step t+1, and its exponent
  void rescale(int64_t t) {
    constexpr int R = kTreeRows<T>;
    const T* a = alpha(t);
    if (t + 1 >= steps) return;
    for (int q = 0; q < rows; q += R) {
      vec<T> top[R];
      for (int r = 0; r < R; r++) {
        const T* row = a + std::min(q + r, rows - 1) * W;
        top[r] = load(row);
        for (int64_t p = 1; p < panels; p++) top[r] = vmax(top[r], load(row + p * panel));
      }
      vec<T> maximum = vmax(reduce_rows<T>(top, [](vec<T> x, vec<T> y) { return vmax(x, y); }), splat(kSmallest<T>));
      ivec<T> power = exponent_of<T>(maximum);
      alignas(64) T s[W];
      store(s, power_of_two<T>(-power));
      for (int r = 0; r < R && q + r < rows; r++) {
        scale(t + 1)[q + r] = s[r * kTreeLane<T>];
        if (t < len[q + r] - 1) exponent[q + r] += int64_t(power[r * kTreeLane<T>]);
      }
    }
  }
  void finish(int r, int64_t t) {
    const T* a = alpha(t) + r * W;
    vec<T> sum = load(a);
    for (int64_t p = 1; p < panels; p++) sum += load(a + p * panel);
    const double z = double(hsum<T>(sum));
    log_z[r] = z > 0 || z != z ? kLn2 * (double(exponent[r]) + double(len[r] - 1) * m.exponent) + scalar_log(z) : -kInf<double>;
    inverse[r] = z > 0 ? T(1 / z) : T(0);
  }
  // A row that will be computed elsewhere must not spoil sums over rows.
  void erase(int r) {
    inverse[r] = 0;
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
