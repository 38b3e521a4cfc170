// A block of items as the lanes of vectors: their scores, transposed and exponentiated relative to powers of two, and
// the exponentials of their transitions.
#pragma once
#include "core/buffer.h"
#include "core/product.h"
#include "kernels/factorial_axis.h"
#include "kernels/factorial_log.h"
#include "kernels/range.h"

namespace slv {
namespace {

// One number for each transition where the items of a block share them, else a vector with one for each lane.
template <class T>
struct LaneEntries {
  bool lanes = false;
  int64_t stride = 1;  // elements between entries
  const T* data = nullptr;
  const T* transposed = nullptr;  // each chain's by itself; for the way back
  template <class In>
  LaneEntries(const Factorial<In>& c, const int64_t* items, int rows) {
    for (int r = 1; r < rows; r++) lanes = lanes || (c.matrix && c.matrix[items[r]] != c.matrix[items[0]]);
    stride = lanes ? kWidth<T> : 1;
  }
  T at(int64_t e, int r) const { return lanes ? data[e * stride + r] : data[e]; }
};

// The exponentials of the transitions.
template <class T>
struct LaneTransitions : LaneEntries<T> {
  static constexpr int W = kWidth<T>;
  using LaneEntries<T>::lanes, LaneEntries<T>::stride;
  double exponent[W] = {};  // of all chains: the power of two taken out of a step
  bool mild[W] = {}, usable[W] = {};

  using LaneEntries<T>::LaneEntries;
  template <class In>
  int64_t scratch(const Factorial<In>& c) const {
    return 2 * Scratch::bytes<T>(c.edges * stride) + (lanes ? Scratch::bytes<T>(c.edges) : 0);
  }
  template <class In>
  void bind(Scratch& s, const Factorial<In>& c, const int64_t* items, int rows) {
    T* all = s.take<T>(c.edges * stride);
    T* own = lanes ? s.take<T>(c.edges) : all;
    this->data = all;
    if (lanes) std::fill(all, all + c.edges * W, T(0));
    for (int r = 0; r < rows; r++) {
      if (lanes || r == 0) exponentiate(c, c.transition_of(items[r]), own, r);
      if (!lanes) exponent[r] = exponent[0], mild[r] = mild[0], usable[r] = usable[0];
      if (lanes && usable[r])
        for (int64_t e = 0; e < c.edges; e++) all[e * W + r] = own[e];
    }
    T* turned = s.take<T>(c.edges * stride);
    this->transposed = turned;
    c.each_chain([&](int64_t, int64_t k, int64_t edge, int64_t) {
      for (int64_t e = 0; e < k * k; e++)
        std::copy_n(all + (edge + e) * stride, stride, turned + (edge + e % k * k + e / k) * stride);
    });
  }

 private:
  // For the test of what the range of T holds see factorial_scan.h.
  template <class In>
  void exponentiate(const Factorial<In>& c, const In* a, T* out, int r) {
    double rho = 0;
    bool finite = true, bounded = true;
    c.each_chain([&](int64_t, int64_t k, int64_t edge, int64_t) {
      vec<T> top = splat(-kInf<T>), low = splat(kInf<T>);
      ivec<T> forbidden{};
      for (int64_t e = 0; e < k * k; e += W) {
        const int n = int(k * k - e);
        const vec<T> x = load_as<T>(a + edge + e, n, -kInf<T>), y = load_as<T>(a + edge + e, n, kInf<T>);
        top = vmax(top, x);
        low = vmin(low, y > -kInf<T> ? y : splat(kInf<T>));
        forbidden |= y == -kInf<T>;
      }
      const double high = double(hmax<T>(top));
      const bool empty = high == -kInf<double>;
      finite = finite && !any<T>(forbidden);
      bounded = bounded && (empty || (high < double(Range<T>::huge) && high > -double(Range<T>::huge)));
      if (!bounded) return;
      if (!empty) rho += high + double(hmax<T>(-low));
      const vec<T> N = empty ? vec<T>{} : nearest<T>(splat(T(high * 1.44269504088896341)));
      exponent[r] += double(N[0]);
      for (int64_t e = 0; e < k * k; e += W) {
        const int n = int(k * k - e);
        store_n<T>(out + edge + e, exp_scaled<T>(load_as<T>(a + edge + e, n, -kInf<T>), N), n);
      }
    });
    const double states = scalar_log(double(c.states));
    mild[r] = bounded && finite && 2 * (rho + states) + scalar_log(double(c.m)) <= Range<T>::mild;
    usable[r] = mild[r] || (bounded && rho <= Range<T>::wide && rho + states <= Range<T>::wide + 6);
  }
};

template <class In, class T>
struct LaneBlock {
  static constexpr int W = kWidth<T>;
  const Factorial<In>& c;
  const int64_t* items;
  const int rows;
  const int64_t states, size;  // size: of one array of joint states
  int64_t steps = 0;           // of the longest item
  int64_t len[W] = {};
  const In* first_row[W];  // scores of step 0; a row of 0 beyond the rows
  const In* zeros = nullptr;
  double exponent[W] = {}, log_z[W] = {};
  T inverse[W] = {};  // 1/Z at the scale of the last alpha
  bool bad[W] = {};   // the range of T did not do
  ivec<T> watch{};    // lanes that are not mild: what becomes too small for T makes them bad

  LaneBlock(const Factorial<In>& c, const int64_t* items, int rows)
      : c(c), items(items), rows(rows), states(c.states), size(c.states * W) {
    for (int r = 0; r < rows; r++) {
      len[r] = c.len(items[r]);
      first_row[r] = c.unary + items[r] * c.n * states;
      steps = std::max(steps, len[r]);
    }
  }
  static int64_t row_scratch(int64_t states) { return Scratch::bytes<In>(states) + Scratch::bytes<double>(states); }
  void bind_rows(Scratch& s) {
    In* z = s.take<In>(states);
    std::fill(z, z + states, In(0));
    zeros = z;
    joined_ = s.take<double>(states);
  }

  // The scores of step t, state by state; returns the maximum of each lane. `way`: 1 or -1, to the step that is next.
  vec<T> gather(int64_t t, T* out, int64_t way) const {
    const In* src[W];
    for (int r = 0; r < W; r++) src[r] = r < rows && t < len[r] ? first_row[r] + t * states : zeros;
    const int64_t ahead = t + way >= 0 && t + way < c.n ? way * states : 0;
    vec<T> top = splat(-kInf<T>);
    auto put = [&](vec<T>* x, int64_t z, int n) __attribute__((always_inline)) {
      transpose_lanes<T, W / 2>(x);
#pragma GCC unroll 16
      for (int q = 0; q < n; q++) {
        top = vmax(top, x[q]);
        store(out + (z + q) * W, x[q]);
      }
    };
    vec<T> x[W];
    int64_t z = 0;
    for (; z + W <= states; z += W) {
#pragma GCC unroll 16
      for (int r = 0; r < W; r++) {
        prefetch_far(src[r] + z + ahead);
        x[r] = load_as<T>(src[r] + z, W, T(0));
      }
      put(x, z, W);
    }
    if (const int n = int(states - z); n > 0) {
      for (int r = 0; r < W; r++) x[r] = load_as<T>(src[r] + z, n, T(0));
      put(x, z, n);
    }
    return top;
  }
  // Unary and initial scores of a row at step 0, added up in float64: large scores must not swallow the digits of the
  // others.
  const double* join(int r) const {
    FactorialItem<In>(c, items[r]).row(0, joined_);
    return joined_;
  }
  // e of step t; its powers of two go into exponent[]. Watched: some lanes are.
  template <bool Watched>
  void exponentiate(int64_t t, T* e, int64_t way) {
    const vec<T> top = gather(t, e, way);
    const ivec<T> fits = (top > -Range<T>::huge) & (top < Range<T>::huge);
    const vec<T> N = fits ? nearest<T>(top * T(1.44269504088896341)) : vec<T>{};
    ivec<T> lost = ~(fits | (top == -kInf<T>));
    for (int64_t at = 0; at < size; at += W) {
      const vec<T> x = load(e + at), y = exp_scaled<T>(x, N);
      if constexpr (Watched) lost |= (y == T(0)) & (x > -kInf<T>)&watch;
      store(e + at, y);
    }
    for (int r = 0; r < rows; r++) {
      if (t == 0 && c.initial && len[r] > 0) {
        if (!exponentiate_joined(r, e) && watch[r]) bad[r] = true;
        continue;
      }
      exponent[r] += double(N[r]);
      if (lost[r]) bad[r] = true;
    }
  }

 private:
  bool exponentiate_joined(int r, T* e) {
    return each_joined(r, [&](int64_t z, T y) { e[z * W + r] = y; });
  }

 protected:
  // e of a row with initial scores at step 0: put(state, e). False where a finite score became 0.
  template <class F>
  bool each_joined(int r, F&& put) {
    join(r);
    const double top = *std::max_element(joined_, joined_ + states), limit = double(Range<T>::huge);
    const bool fits = top > -limit && top < limit;
    if (!fits && top != -kInf<double>) bad[r] = true;
    const double N = fits ? nearest<double>(splat(top * 1.44269504088896341))[0] : 0;
    bool whole = true;
    for (int64_t z = 0; z < states; z += kLanes) {
      const int n = int(std::min<int64_t>(kLanes, states - z));
      const vd x = load_n<double>(joined_ + z, n, kNone), y = exp_scaled<double>(x, splat(N));
      whole = whole && !any<double>((y < double(kSmallest<T>)) & (x > kNone));
      for (int l = 0; l < n; l++) put(z + l, T(y[l]));
    }
    exponent[r] += N;
    return whole;
  }
  // log Z and 1/Z of a row whose alpha adds up to z at its last step; `moved`: exponents of the transitions up to there
  void conclude(int r, double z, double moved) {
    log_z[r] = z > 0 || z != z ? kLn2 * (exponent[r] + moved) + scalar_log(z) : kNone;
    inverse[r] = z > 0 ? T(1 / z) : T(0);
  }

 private:
  double* joined_ = nullptr;
};

}  // namespace
}  // namespace slv
