// Forward-backward of factorial chains in the scaled linear domain, for a block of W items, one in each lane.
//
//   e_t = exp(u_t) 2^-N_t     alpha_t = (A_m^T ... A_1^T alpha_t-1) e_t s_t     s_t = 2^-exponent(max alpha_t-1)
//   g_t = e_t beta_t s_t      beta_t = A_1 ... A_m g_t+1                        the backward pass starts from weight /
//   Z
//
// A_i acts along chain i, so a step costs S sum k_i products. alpha_t beta_t are the weighted marginals. The edges of
// chain i are A_i(k, j) times the sum, over the states of the other chains, of x(k) y(j): x is alpha_t after A_1 ..
// A_i-1, y is g_t+1 after A_m .. A_i+1.
//
// When is that exact? As in chain_scan.h, the step being one with the matrix A_1 x ... x A_m: k is S, rho the sum of
// the ranges of the finite transitions of the chains, and every partial product lies between its factors' extremes:
// * mild: all are finite and 4 m S^2 2^-126 e^(2 rho) < 1e-15. At each of m micro-steps what underflows is less than
//   2^-126 for each of S states; every sum that it is missing from is at least e^-rho times the largest alpha, which is
//   itself at least e^-rho / 4. Nothing is checked.
// * wide: rho <= 41 (float64: 368), with ln S at most 6 more. An entry of alpha that is neither 0 nor above `tiny`
// flags
//   its item, so no product of alpha with transitions, e^-rho at least, underflows: 0 means impossible. The backward
//   pass is watched in the same way. An entry of g is at most 3 e^rho / tiny, so that sums of S of them do not overflow
//   even where no structure leads. A term of the edges that underflows is a probability under 2^-126.
// * else, and for flagged items: float64, then exact log space, for those items alone.
// Lanes know nothing of each other, so a flagged one is left as it is and redone.
#pragma once
#include "kernels/factorial_steps.h"

namespace slv {
namespace {

// The chart of a block: alpha of all states and the scales, step by step. In memory it has as many lanes as there are
// rows; the passes work on whole vectors, which are the chart itself where all lanes are rows. e is not kept: it would
// double the chart, and to form it again costs no more than to read it.
template <class T>
struct LaneChart {
  T *states = nullptr, *scales = nullptr;  // (n, S, rows), (n, rows)
};

// One vector of alpha_t. What goes into sized_product does not name In: each type is a copy of all its tiles.
template <class T, bool Watched>
struct LaneAdvance {
  T* out;
  const T* e;
  vec<T> s, top{};
  ivec<T> thin{};
  SLV_INLINE void operator()(int64_t at, vec<T> sum) {
    const vec<T> x = load(e + at), v = sum * (x * s);
    top = vmax(top, v);
    if constexpr (Watched) thin |= (v < Range<T>::tiny) & (sum > T(0)) & (x > T(0));
    store(out + at, v);
  }
};

template <class In, class T>
struct LaneScan : LaneBlock<In, T> {
  using Base = LaneBlock<In, T>;
  using Base::c, Base::rows, Base::states, Base::size, Base::steps, Base::len, Base::exponent, Base::bad;
  using Base::W, Base::watch;
  const LaneTransitions<T>& a;
  LaneSteps<T> move;
  LaneChart<T> chart;
  T *ring = nullptr, *e = nullptr;  // alpha of two steps, where it is not the chart; e of this one
  bool watched = false;

  LaneScan(const Factorial<In>& c, const LaneTransitions<T>& a, const int64_t* items, int rows)
      : Base(c, items, rows), a(a), move(c, a) {
    for (int r = 0; r < rows; r++) {
      if (!a.usable[r]) bad[r] = true;
      if (!a.mild[r]) watch[r] = -1, watched = true;
    }
  }
  static int64_t scratch(const Factorial<In>& c, bool both) {
    return Base::row_scratch(c.states) + LaneSteps<T>::scratch(c, both) + Scratch::bytes<T>(2 * c.states * W) +
           Scratch::bytes<T>(c.states * W);
  }
  void bind(Scratch& s, const LaneChart<T>& to, bool both) {
    this->bind_rows(s);
    move.bind(s, both);
    ring = s.take<T>(2 * size);
    e = s.take<T>(size);
    chart = to;
  }
  bool whole() const { return rows == W && chart.states; }
  T* saved(int64_t t) const { return chart.states + t * states * rows; }
  T* alpha(int64_t t) const { return whole() ? saved(t) : ring + t % 2 * size; }
  // Between vectors and the chart, where some lanes are empty.
  void pack(int64_t t) const {
    if (whole() || !chart.states) return;
    for (int64_t z = 0; z < states; z++) store_n<T>(saved(t) + z * rows, load(alpha(t) + z * W), rows);
  }
  void unpack(int64_t t) const {
    if (whole()) return;
    for (int64_t z = 0; z < states; z++) store(alpha(t) + z * W, load_n<T>(saved(t) + z * rows, rows, T(0)));
  }

  template <bool Watched>
  void forward() {
    vec<T> s = splat(T(1));
    ivec<T> thin{};
    for (int64_t t = 0; t < steps; t++) {
      this->template exponentiate<Watched>(t, e, 1);
      LaneAdvance<T, Watched> next{alpha(t), e, s};
      if (t == 0)
        for (int64_t at = 0; at < size; at += W) next(at, splat(T(1)));
      else
        move.template forward<PlusTimes>(0, 1, alpha(t - 1), 0, next);
      thin |= next.thin;
      if (chart.scales) store_n<T>(chart.scales + t * rows, s, rows);
      finish(t);
      pack(t);
      const ivec<T> power = exponent_of<T>(vmax(next.top, splat(kSmallest<T>)));
      s = power_of_two<T>(-power);
      for (int r = 0; r < rows; r++) exponent[r] += double(power[r]);
    }
    thin &= watch;
    for (int r = 0; r < rows; r++)
      if (thin[r]) bad[r] = true;
  }
  void run_forward() {
    FlushDenormals flush;
    watched ? forward<true>() : forward<false>();
  }
  // log Z and 1/Z of the items whose last step is t
  void finish(int64_t t) {
    if (std::none_of(len, len + rows, [t](int64_t l) { return l - 1 == t; })) return;
    double sum[W];
    lane_sums(alpha(t), states, sum);
    for (int r = 0; r < rows; r++)
      if (len[r] - 1 == t) this->conclude(r, sum[r], double(t) * a.exponent[r]);
  }
};

}  // namespace
}  // namespace slv
