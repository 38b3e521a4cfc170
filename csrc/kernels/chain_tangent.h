// Second order in the scaled linear domain: the derivative of the marginals in a direction v, from the chart of a block
// (see chain_scan.h). Dual numbers, with w_t = v_t of the step's scores and V that of the transition:
//   alpha'_t = (alpha'_t-1 P + alpha_t-1 (P o V)) e_t s_t + alpha_t (w_t - c_t-1)
//   g'_t     = e_t s_t beta'_t + g_t (w_t - m_t)             beta'_t = g'_t+1 P^T + g_t+1 (P o V)^T
// alpha'/alpha is E[f of the prefix | state] for f = <v, parts>, beta'/beta that of the suffix; the derivative of a
// marginal is its covariance with f, so what is common to the states of a step does not count. Both are kept relative
// to a mean: c_t of the filtered, m_t of both together; nothing grows with the length and no large numbers cancel.
#pragma once
#include "kernels/chain_adjoint.h"

namespace slv {
namespace {

// The directions of a block's rows, divided by a common power of two: then what is derived from them stays in range.
template <class In, class T>
struct BlockDirection {
  static constexpr int W = kWidth<T>;
  const Scan<In, T>& f;
  const Direction<In>& v;
  T gain = 1;                             // that power of two, inverted
  bool has_edges = false, shared = true;  // whether V is not zero, and one for all rows
  const In* matrix[kMaxRows];
  const In* zeros = nullptr;  // a row
  In* joined = nullptr;       // rows that v.initial or v.final are added to

  BlockDirection(const Scan<In, T>& f, const Direction<In>& v) : f(f), v(v) {
    for (int r = 0; r < f.rows; r++) {
      matrix[r] = v.transition + (v.matrix ? v.matrix[f.items[r]] : 0) * f.k * f.k;
      shared = shared && matrix[r] == matrix[0];
    }
  }
  int64_t scratch() const { return Scratch::bytes<In>(f.k) + Scratch::bytes<In>(f.rows * f.k); }
  void bind(Scratch& s) {
    In* z = s.take<In>(f.k);
    std::fill(z, z + f.k, In(0));
    zeros = z;
    joined = s.take<In>(f.rows * f.k);
  }
  const In* ends(const In* x, const int64_t* row, int r) const { return x + (row ? row[f.items[r]] : 0) * f.k; }

  // Marks rows that T cannot hold beside the others; the rest share `gain`.
  void measure(bool* skip) {
    double size[kMaxRows], most = 0;
    for (int r = 0; r < f.rows; r++) {
      const bool seen = r > 0 && matrix[r] == matrix[r - 1];
      const double edges = seen ? edge_size : edge_size = largest(matrix[r], f.k * f.k);
      size[r] = std::max(edges, largest(v.unary + f.items[r] * f.c.n * f.k, f.len[r] * f.k));
      if (v.initial) size[r] = std::max(size[r], largest(ends(v.initial, v.initial_row, r), f.k));
      if (v.final) size[r] = std::max(size[r], largest(ends(v.final, v.final_row, r), f.k));
      has_edges = has_edges || edges > 0;
      if (!(size[r] < double(std::numeric_limits<In>::max()) / 16)) size[r] = 0, skip[r] = true;
      most = std::max(most, size[r]);
    }
    const double limit = sizeof(T) == 4 ? 1e-12 : 1e-100,
                 unit = power_of_two_below(std::max(most, double(kSmallest<In>)));
    gain = T(1 / unit);
    for (int r = 0; r < f.rows; r++)
      if (size[r] > 0 && size[r] < limit * most) skip[r] = true;
  }
  // w_t of the rows
  void rows_at(int64_t t, const In** out) const {
    for (int r = 0; r < f.rows; r++) {
      const bool first = t == 0 && v.initial, last = t == f.len[r] - 1 && v.final;
      out[r] = t < f.len[r] ? v.unary + (f.items[r] * f.c.n + t) * f.k : zeros;
      if (t >= f.len[r] || !(first || last)) continue;
      const In* i = first ? ends(v.initial, v.initial_row, r) : zeros;
      const In* l = last ? ends(v.final, v.final_row, r) : zeros;
      In* to = joined + r * f.k;
      for (int64_t j = 0; j < f.k; j++) to[j] = out[r][j] + i[j] + l[j];
      out[r] = to;
    }
  }

 private:
  double edge_size = 0;
  static double largest(const In* x, int64_t count) {
    constexpr int N = kWidth<In>;
    vec<In> top{};
    for (int64_t i = 0; i < count; i += N) {
      const vec<In> y = load_n<In>(x + i, int(std::min<int64_t>(N, count - i)), In(0));
      top = vmax(top, vmax(y, y != y ? splat(kInf<In>) : -y));
    }
    return double(hmax<In>(top));
  }
};

template <class In, class T>
struct Tangents : RowWeights<T> {
  static constexpr int W = kWidth<T>;
  const Scan<In, T>& f;  // with a saved chart, and inverse[]
  BlockDirection<In, T> v;
  const int rows;
  const int64_t k, panels, panel, step, matrix_size;
  In* unary;      // (batch, n, k)
  double* edges;  // (k, k), added to
  const int64_t chunk = 32;
  T *dual = nullptr, *ring = nullptr, *beta = nullptr, *turned = nullptr, *sums = nullptr;
  double mean[kMaxRows] = {};
  bool bad[kMaxRows] = {};

  Tangents(const Scan<In, T>& f, const Direction<In>& direction, In* unary, double* edges)
      : f(f),
        v(f, direction),
        rows(f.rows),
        k(f.k),
        panels(f.panels),
        panel(f.panel),
        step(f.step),
        matrix_size(f.panels * f.k * W),
        unary(unary),
        edges(edges) {}
  int matrices() const { return !v.has_edges ? 0 : v.shared ? 1 : rows; }
  // Before measure() it is not known whether V is zero, so there is room in any case.
  int64_t most_matrices() const { return v.shared ? 1 : rows; }
  int64_t scratch() const {
    return v.scratch() + Scratch::bytes<T>(f.steps * step) + Scratch::bytes<T>(2 * chunk * step) +
           Scratch::bytes<T>(3 * step) + Scratch::bytes<T>(2 * most_matrices() * matrix_size) +
           Scratch::bytes<T>((1 + most_matrices()) * matrix_size);
  }
  void bind(Scratch& s) {
    v.bind(s);
    dual = s.take<T>(f.steps * step);
    ring = s.take<T>(2 * chunk * step);
    beta = s.take<T>(3 * step);
    turned = s.take<T>(2 * most_matrices() * matrix_size);
    sums = s.take<T>((1 + most_matrices()) * matrix_size);
  }
  T* dual_alpha(int64_t t) const { return dual + t * step; }
  T* slot(int64_t t, bool is_dual) const { return ring + ((t + chunk - 1) % chunk + (is_dual ? chunk : 0)) * step; }

  // P o V and its transpose, of each row or of all
  Matrix<T> turned_matrix(int q, bool transposed) const { return {turned + (2 * q + transposed) * matrix_size, k * W}; }
  void turn() {
    for (int q = 0; q < matrices(); q++) {
      const In* x = v.matrix[q];
      T *p = turned + 2 * q * matrix_size, *t = p + matrix_size;
      std::fill(t + (panels - 1) * k * W, t + matrix_size, T(0));
      for (int64_t i = 0; i < k; i++)
        for (int64_t j = 0; j < panels; j++) {
          const int n = int(std::min<int64_t>(W, k - j * W));
          const vec<T> y = f.m.at(i, j) * (load_as<T>(x + i * k + j * W, n, T(0)) * v.gain);
          store(p + (j * k + i) * W, y);
          for (int l = 0; l < n; l++) t[(i / W * k + j * W + l) * W + i % W] = y[l];
        }
    }
  }
  // the rows of `a` times P o V; zeros where V is zero
  void multiply_turned(const T* a, bool transposed, T* out) const {
    if (!v.has_edges) return (void)std::fill_n(out, step, T(0));
    if (v.shared) return multiply_into(rows, k, a, panel, turned_matrix(0, transposed), out);
    for (int q = 0; q < rows; q++) multiply_into(1, k, a + q * W, panel, turned_matrix(q, transposed), out + q * W);
  }

  void run_forward() {
    FlushDenormals flush;
    turn();
    const In* w[kMaxRows];
    T offset[kRoom] = {};
    vec<T> dots[kRoom], total[kRoom];
    for (int64_t t = 0; t < f.steps; t++) {
      v.rows_at(t, w);
      const T *al = f.alpha(t), *et = f.e(t), *s = f.scale(t);
      T *out = dual_alpha(t), *edge = beta;
      clear(dots);
      clear(total);
      if (t == 0) {
        std::fill_n(out, step, T(0));
        std::fill_n(edge, step, T(0));
      } else {
        multiply_turned(f.alpha(t - 1), false, edge);
        multiply_into(rows, k, dual_alpha(t - 1), panel, f.m.forward(), out);
      }
      for (int64_t p = 0; p < panels; p++)
        for (int r = 0; r < rows; r++) {
          const int64_t at = p * panel + r * W;
          const vec<T> a = load(al + at), moved = (load(out + at) + load(edge + at)) * (load(et + at) * s[r]);
          const vec<T> y =
              moved + a * (load_as<T>(w[r] + p * W, int(std::min<int64_t>(W, k - p * W)), T(0)) * v.gain - offset[r]);
          dots[r] += y;
          total[r] += a;
          store(out + at, y);
        }
      quotients(dots, total, offset);
      for (int r = 0; r < rows; r++)
        if (t < f.len[r]) mean[r] += double(offset[r]);
    }
    for (int r = 0; r < rows; r++) mean[r] /= double(v.gain);
  }
  // Sums over the states of a step, all rows at once.
  static constexpr int R = kTreeRows<T>, kRoom = kMaxRows + R;
  void clear(vec<T>* x) const {
    for (int r = 0; r < rows; r += R) std::fill(x + r, x + r + R, vec<T>{});
  }
  void sum_rows(const vec<T>* x, T* out) const {
    for (int r = 0; r < rows; r += R) store_rows(out + r, reduce_rows<T>(x + r, SumOp()));
  }
  // sum of x over sum of y, or 0
  void quotients(const vec<T>* x, const vec<T>* y, T* out) const {
    for (int r = 0; r < rows; r += R) {
      const vec<T> total = reduce_rows<T>(y + r, SumOp()), q = reduce_rows<T>(x + r, SumOp()) / total;
      store_rows(out + r, total != T(0) ? q : vec<T>{});
    }
  }

  template <bool Wide>
  void backward() {
    T seed[kMaxRows], start[kMaxRows], m[kRoom], factor[kRoom];
    vec<T> dots[kRoom], total[kRoom];
    for (int r = 0; r < rows; r++) seed[r] = this->skip[r] ? T(0) : this->ratio[r] * f.inverse[r];
    std::fill(sums, sums + (1 + matrices()) * matrix_size, T(0));
    const T back = T(double(this->common) / double(v.gain));
    ivec<T> thin[Wide ? kMaxRows : 1] = {};
    const In* w[kMaxRows];
    T *dual_beta = beta + step, *edge = beta + 2 * step;
    for (int64_t t = f.steps - 1; t >= 0; t--) {
      v.rows_at(t, w);
      const T *al = f.alpha(t), *et = f.e(t), *s = f.scale(t);
      T *da = dual_alpha(t), *g = slot(t, false), *dg = slot(t, true);
      const bool last = t == f.steps - 1;
      for (int r = 0; r < rows; r++) start[r] = f.len[r] - 1 == t ? seed[r] : T(0);
      clear(dots);
      clear(total);
      if (last) {
        std::fill_n(beta, 3 * step, T(0));
      } else {
        const T *next = slot(t + 1, false), *dual_next = slot(t + 1, true);
        multiply_into(rows, k, next, panel, f.m.backward(), beta);
        multiply_turned(next, true, edge);
        multiply_into(rows, k, dual_next, panel, f.m.backward(), dual_beta);
      }
      for (int64_t p = 0; p < panels; p++)
        for (int r = 0; r < rows; r++) {
          const int64_t at = p * panel + r * W;
          const vec<T> a = load(al + at), b = load(beta + at) + start[r],
                       moved = load(dual_beta + at) + load(edge + at);
          dots[r] += load(da + at) * b + a * moved;
          total[r] += a * b;
          store(beta + at, b);
          store(dual_beta + at, moved);
        }
      quotients(dots, total, m);
      auto each_vector = [&](auto body) __attribute__((always_inline)) {
        for (int r = 0; r < rows; r++)
          for (int64_t p = 0; p < panels; p++) body(r, p, p * panel + r * W, int(std::min<int64_t>(W, k - p * W)));
      };
      each_vector([&](int r, int64_t p, int64_t at, int n) __attribute__((always_inline)) {
        const vec<T> a = load(al + at), d = load(da + at) - a * m[r];
        const vec<T> mu = d * load(beta + at) + a * load(dual_beta + at);
        store(da + at, d);
        store_as<T>(unary + ((f.items[r] * f.c.n + t) * k + p * W), (Wide ? (a > T(0) ? mu : vec<T>{}) : mu) * back, n);
      });
      if (t % chunk == 0 && !last) add_edges(t, std::min(chunk, f.steps - 1 - t));
      std::fill(factor, factor + rows, T(1));
      if (t % chunk == 0) {  // rounding makes the weights drift: set right once a chunk, as in Adjoint
        sum_rows(total, factor);
        for (int r = 0; r < rows; r++) {
          const T drift = this->ratio[r] / factor[r];
          factor[r] = std::abs(drift - 1) < T(0.01) ? drift : T(1);
        }
      }
      each_vector([&](int r, int64_t p, int64_t at, int n) __attribute__((always_inline)) {
        const vec<T> a = load(al + at), b = load(beta + at), scaled = load(et + at) * (s[r] * factor[r]);
        vec<T> x = scaled * b;
        vec<T> dx = scaled * load(dual_beta + at) + x * (load_as<T>(w[r] + p * W, n, T(0)) * v.gain - m[r]);
        if constexpr (Wide) {
          const ivec<T> live = a > T(0);
          x = live ? x : vec<T>{};
          dx = live ? dx : vec<T>{};
          thin[r] |= live & (b != T(0)) & (vmax(x, -x) < Range<T>::tiny);
        }
        store(g + at, x);
        store(dg + at, dx);
      });
    }
    for (int r = 0; Wide && r < rows; r++)
      if (any<T>(thin[r]) && !this->skip[r]) bad[r] = true;
  }
  // A row found out of range is left out, as in Adjoint; that alpha' has another offset by then does not matter.
  void run_backward() {
    FlushDenormals flush;
    if (f.m.mild) return backward<false>();
    backward<true>();
    bool again = false;
    for (int r = 0; r < rows; r++)
      if (bad[r]) this->skip[r] = again = true;
    if (again) backward<true>();
  }

  // Sums over `count` steps from t, a multiple of chunk: of alpha' g + alpha g', and of alpha g by the matrices V.
  void add_edges(int64_t t, int64_t count) {
    const T *g = slot(t + 1, false), *dg = slot(t + 1, true);
    const Steps all{count, step, 0, rows, rows};
    outer_sums<T>(k, all, dual_alpha(t), step, g, sums, panels * W);
    outer_sums<T>(k, all, f.alpha(t), 2 * step, dg, sums, panels * W);
    for (int q = 0; q < matrices(); q++)
      outer_sums<T>(k, v.shared ? all : Steps{count, step, q, 1, rows}, f.alpha(t), 2 * step, g,
                    sums + (1 + q) * matrix_size, panels * W);
  }
  // After the pass: the sums times P and P o V, where they belong, and zeros in the padding.
  void deliver() {
    const T back = T(double(this->common) / double(v.gain));
    for (int r = 0; r < rows; r++)
      std::fill(unary + (f.items[r] * f.c.n + f.steps) * k, unary + (f.items[r] + 1) * f.c.n * k, In(0));
    for (int64_t i = 0; i < k; i++)
      for (int64_t p = 0; p < panels; p++) {
        const int64_t at = (i * panels + p) * W;
        vec<T> x = load(sums + at) * f.m.at(i, p);
        for (int q = 0; q < matrices(); q++)
          x += load(sums + (1 + q) * matrix_size + at) * load(turned + 2 * q * matrix_size + (p * k + i) * W);
        x *= back;
        add_as<T>(edges + i * k + p * W, x, k - p * W);
      }
  }
};

}  // namespace
}  // namespace slv
