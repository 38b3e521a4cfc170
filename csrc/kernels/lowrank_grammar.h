// The exponentials of a low-rank grammar, packed for the products of the inside and outside passes.
//
// The sum over ranks leaves a choice of scale to every rank: left and right rows are taken relative to a power of two
// of their own, which the head gets back. The head is relative to one power of two for all of it.
#pragma once
#include <algorithm>

#include "core/buffer.h"
#include "core/tile.h"
#include "kernels/lowrank.h"

namespace slv {
namespace {

// What the scaled linear domain in T can hold.
template <class T>
struct LowRankRange;
template <>
struct LowRankRange<float> {
  static constexpr float tiny = 1e-17f, huge = 1e6f, most = 1e37f;  // tiny: the product of two is still normal
};
template <>
struct LowRankRange<double> {
  static constexpr double tiny = 1e-140, huge = 1e14, most = 1e300;
};
// A sum of k products may lose k of the smallest numbers: above this it does not notice.
template <class T>
constexpr T lowrank_floor(int64_t k) {
  return T(4) * T(k) * kSmallest<T> * T(int64_t(1) << (kMantissa<T> + 3));
}

// What was seen while exponentials were formed.
template <class T>
struct Seen {
  T lowest = LowRankRange<T>::most;  // positive result
  bool beyond = false;               // a maximum out of range
  bool lost = false;                 // a finite score became 0
  bool forbidden = false;            // a score of -inf
  void join(const Seen& x) {
    lowest = std::min(lowest, x.lowest);
    beyond |= x.beyond, lost |= x.lost, forbidden |= x.forbidden;
  }
};

template <class T, class In>
SLV_INLINE vec<T> row_maximum(const In* row, int64_t k) {
  vec<T> top = splat(-kInf<T>);
  for (int64_t j = 0; j < k; j += kWidth<T>) top = vmax(top, load_as<T>(row + j, int(k - j), -kInf<T>));
  return top;
}
// The power of two of a row's maximum; 0 where it is out of range or all is -inf.
template <class T>
double row_exponent(T top, Seen<T>& seen) {
  const bool fits = top > -LowRankRange<T>::huge && top < LowRankRange<T>::huge;
  seen.beyond |= !fits && top != -kInf<T>;
  return fits ? double(nearest<T>(splat(top * T(1.44269504088896341)))[0]) : 0.0;
}
// exp(row) relative to powers of two, N(j) for elements j.., into panels that lie `panel` apart.
template <class T, class In, class F>
void exp_panels(const In* row, int64_t k, F N, T* out, int64_t panel, Seen<T>& seen) {
  constexpr int W = kWidth<T>;
  vec<T> low = splat(LowRankRange<T>::most);
  ivec<T> lost{}, forbidden{};
  for (int64_t j = 0; j < k; j += W) {
    const int n = int(k - j);
    vec<T> x = load_as<T>(row + j, n, -kInf<T>), y = exp_scaled<T>(x, N(j));
    lost |= (y == T(0)) & (x > -kInf<T>);
    forbidden |= load_as<T>(row + j, n, T(0)) == -kInf<T>;
    low = y > T(0) ? vmin(low, y) : low;
    store(out + j / W * panel, y);
  }
  seen.lost |= any<T>(lost);
  seen.forbidden |= any<T>(forbidden);
  seen.lowest = std::min(seen.lowest, -hmax<T>(-low));
}
// A row relative to its own power of two, which is returned.
template <class T, class In>
double exp_row(const In* row, int64_t k, T* out, int64_t panel, Seen<T>& seen) {
  const double exponent = row_exponent(hmax<T>(row_maximum<T>(row, k)), seen);
  const vec<T> N = splat(T(exponent));
  exp_panels<T>(row, k, [N](int64_t) { return N; }, out, panel, seen);
  return exponent;
}

template <class T, int H>
SLV_INLINE void transpose_stage(vec<T>* r) {
  if constexpr (H > 0) {
#pragma GCC unroll 16
    for (int i = 0; i < kWidth<T>; i++)
      if (!(i & H)) {
        const vec<T> a = r[i], b = r[i + H];
        r[i] = interleave_halves<T, H, 0>(a, b, kLaneSequence<T>);
        r[i + H] = interleave_halves<T, H, 1>(a, b, kLaneSequence<T>);
      }
    transpose_stage<T, H / 2>(r);
  }
}
// Panels of columns [panel][row][lane], of rows x columns, to panels of rows [panel][column][lane].
template <class T>
void transpose_panels(int64_t rows, int64_t columns, const T* from, int64_t from_panel, T* to, int64_t to_panel) {
  constexpr int W = kWidth<T>;
  for (int64_t i = 0; i < rows; i += W)
    for (int64_t j = 0; j < columns; j += W) {
      vec<T> r[W];
      for (int l = 0; l < W; l++) r[l] = i + l < rows ? load(from + j / W * from_panel + (i + l) * W) : vec<T>{};
      transpose_stage<T, W / 2>(r);
      for (int l = 0; l < W && j + l < columns; l++) store(to + i / W * to_panel + (j + l) * W, r[l]);
    }
}

template <class T>
struct Grammar {
  static constexpr int W = kWidth<T>;
  static int64_t panels(int64_t k) { return (k + W - 1) / W; }
  const bool has_head, folded;
  const int64_t nt, t, r, states;  // states: of a span of two words or more, nt, or r where the head is folded
  const int64_t pn, pt, pr, ps;    // panels of these
  double exponent = 0;             // of the head
  bool usable = false;             // in this precision
  Seen<T> seen;
  Buffer<T> data;
  T *head_up, *head_down;       // [pn][r][lane], [pr][nt][lane]
  T* gain;                      // [ps][lane]: the head's diagonal where there is none
  T* sides_up;                  // [2 pr][states + t][lane]: left, then right
  T *sides_inner, *sides_leaf;  // [ps | pt][2 pr W][lane]
  T *plain_up, *plain_inner;    // where folded, of nonterminals: [2 pr][nt][lane], [pn][2 pr W][lane]

  template <class In>
  Grammar(const LowRank<In>& p, int64_t item)
      : has_head(p.head && !p.folded),
        folded(p.folded),
        nt(p.nt),
        t(p.t),
        r(p.r),
        states(folded ? r : nt),
        pn(panels(nt)),
        pt(panels(t)),
        pr(panels(r)),
        ps(panels(states)) {
    allocate(p.head != nullptr);
    Buffer<T> scales(pr * W);
    std::fill(scales.data(), scales.data() + pr * W, T(0));
    std::fill(gain, gain + ps * W, T(1));
    side(p.left + p.row(p.left_row, item) * r * (nt + t), 0, scales.data());
    side(p.right + p.row(p.right_row, item) * r * (nt + t), 1, scales.data());
    if (p.head)
      head(p.head + p.row(p.head_row, item) * nt * r, scales.data());
    else
      diagonal(scales.data());
    if (folded) fold();
    transpose_sides();
    usable &= !seen.beyond;
  }
  int64_t deep() const { return 2 * pr * W; }
  // column panel p of row i
  vec<T> head_at(int64_t i, int64_t p) const { return load(head_down + (p * nt + i) * W); }
  vec<T> inner_at(int64_t i, int64_t p) const { return load(sides_inner + (p * deep() + i) * W); }
  vec<T> plain_at(int64_t i, int64_t p) const { return load(plain_inner + (p * deep() + i) * W); }
  vec<T> leaf_at(int64_t i, int64_t p) const { return load(sides_leaf + (p * deep() + i) * W); }

 private:
  void allocate(bool head) {
    const int64_t heads = head ? pn * r + pr * nt : 0, plain = folded ? 2 * pr * nt + pn * deep() : 0;
    T* next = data.reserve((heads + plain + ps + 2 * pr * (states + t) + (ps + pt) * deep()) * W);
    auto take = [&next](int64_t rows) { return std::exchange(next, next + rows * W); };
    head_up = take(head ? pn * r : 0);
    head_down = take(head ? pr * nt : 0);
    gain = take(ps);
    sides_up = take(2 * pr * (states + t));
    sides_inner = take(ps * deep());
    sides_leaf = take(pt * deep());
    plain_up = take(folded ? 2 * pr * nt : 0);
    plain_inner = folded ? take(pn * deep()) : sides_inner;
    std::fill(plain_inner, plain_inner + pn * deep() * W, T(0));
    std::fill(sides_leaf, sides_leaf + pt * deep() * W, T(0));
    usable = true;
  }
  // Left and right times the head: what the ranks of a span contribute as children of a rank.
  void fold() {
    vec<T> low = splat(LowRankRange<T>::most), positive = low;
    const vec<T> lane = __builtin_convertvector(iota<T>(), vec<T>);
    multiply_panels<PlusTimes>(deep(), nt, plain_inner, deep() * W, Matrix<T>{head_down, nt * W}, pr,
                               [&](int64_t q, int64_t p, vec<T> v) __attribute__((always_inline)) {
                                 store(sides_inner + (p * deep() + q) * W, v);
                                 const bool real = q % (pr * W) < r;
                                 v = real && p * W + W <= r ? v : (lane < T(real ? r - p * W : 0) ? v : low);
                                 low = vmin(low, v);
                                 positive = v > T(0) ? vmin(positive, v) : positive;
                               });
    seen.lowest = std::min(seen.lowest, -hmax<T>(-positive));
    usable &= seen.forbidden || -hmax<T>(-low) >= lowrank_floor<T>(nt);
    for (int which = 0; which < 2; which++)
      transpose_panels(r, nt, plain_inner + which * pr * W * W, deep() * W, plain_up + which * pr * nt * W, nt * W);
  }
  void transpose_sides() {
    const int64_t all = states + t;
    for (int which = 0; which < 2; which++) {
      const int64_t first = which * pr * W;
      T* up = sides_up + which * pr * all * W;
      transpose_panels(r, states, sides_inner + first * W, deep() * W, up, all * W);
      transpose_panels(r, t, sides_leaf + first * W, deep() * W, up + states * W, all * W);
    }
  }
  template <class In>
  void side(const In* x, int64_t which, T* scales) {
    const int64_t s = nt + t, first = which * pr * W;
    for (int64_t q = 0; q < r; q++) {
      const In* row = x + q * s;
      const double exponent = row_exponent(hmax<T>(row_maximum<T>(row, s)), seen);
      const vec<T> N = splat(T(exponent));
      auto same = [N](int64_t) { return N; };
      scales[q] += T(exponent);
      exp_panels<T>(row, nt, same, plain_inner + (first + q) * W, deep() * W, seen);
      exp_panels<T>(row + nt, t, same, sides_leaf + (first + q) * W, deep() * W, seen);
    }
  }
  template <class In>
  void head(const In* x, const T* scales) {
    vec<T> top = splat(-kInf<T>), far = top;  // far: of what is too large to be told apart
    for (int64_t a = 0; a < nt; a++)
      for (int64_t q = 0; q < r; q += W) {
        vec<T> h = load_as<T>(x + a * r + q, int(r - q), -kInf<T>);
        vec<T> size = nearest<T>(h * T(1.44269504088896341)) + load(scales + q);
        top = vmax(top, size);
        far = (h < LowRankRange<T>::huge) & (h > -LowRankRange<T>::huge) ? far : vmax(far, size);
      }
    const T most = hmax<T>(top);
    seen.beyond |= hmax<T>(far) > -kInf<T> && hmax<T>(far) > most - T(4 * kBias<T>);
    exponent = most > -kInf<T> ? double(most) : 0.0;
    for (int64_t a = 0; a < nt; a++)
      exp_panels<T>(
          x + a * r, r, [&](int64_t q) { return splat(T(exponent)) - load(scales + q); }, head_down + a * W, nt * W,
          seen);
    transpose_panels(nt, r, head_down, nt * W, head_up, r * W);
  }
  void diagonal(const T* scales) {
    exponent = double(*std::max_element(scales, scales + r));
    for (int64_t q = 0; q < r; q++) {
      const T d = scales[q] - T(exponent);
      gain[q] = d < T(2 - kBias<T>) ? T(0) : power_of_two<T>(__builtin_convertvector(splat(d), ivec<T>))[0];
      seen.lost |= gain[q] == T(0);
      if (gain[q] > T(0)) seen.lowest = std::min(seen.lowest, gain[q]);
    }
    std::fill(gain + r, gain + pr * W, T(0));
  }
};

}  // namespace
}  // namespace slv
