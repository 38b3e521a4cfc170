// The rows of scores of a block of items, and their exponentials relative to powers of two.
#pragma once
#include <algorithm>
#include <numeric>

#include "core/buffer.h"
#include "core/tile.h"
#include "kernels/chain.h"
#include "kernels/range.h"

namespace slv {
namespace {

// The items of a block, and their rows of scores.
template <class In>
struct Rows {
  const Chain<In>& c;
  const int64_t* items;
  const int rows;
  const int64_t k;
  int64_t steps = 0, shortest = 0;  // of the longest and the shortest item
  int64_t len[kMaxRows];
  const In* first_row[kMaxRows];  // unary of step 0
  const In* zeros = nullptr;      // a row of 0 for the steps after an item's end

  Rows(const Chain<In>& c, const int64_t* items, int rows) : c(c), items(items), rows(rows), k(c.k) {
    for (int r = 0; r < rows; r++) {
      len[r] = c.length ? c.length[items[r]] : c.n;
      first_row[r] = c.unary + items[r] * c.n * c.k;
      steps = std::max(steps, len[r]);
      shortest = r ? std::min(shortest, len[r]) : len[r];
    }
  }
  int64_t row_scratch(int sums) const { return Scratch::bytes<In>(k) + Scratch::bytes<double>(sums * k); }
  double* bind_rows(Scratch& s, int sums) {  // space for `sums` rows of joined_row
    In* z = s.take<In>(k);
    std::fill(z, z + k, In(0));
    zeros = z;
    return s.take<double>(sums * k);
  }
  const In* row(int r, int64_t t) const { return t < len[r] ? first_row[r] + t * k : zeros; }
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
struct ScaledRows : Rows<In> {
  static constexpr int W = kWidth<T>;
  using Rows<In>::rows, Rows<In>::k, Rows<In>::steps, Rows<In>::shortest, Rows<In>::len;
  const int64_t panels, panel, step;  // panel: one panel of all rows; step: all panels
  const int64_t window;               // steps whose e is formed at once: enough rows for a whole tree of reductions
  double* joined = nullptr;           // one row
  double exponent[kMaxRows + kTreeRows<T>] = {};  // whole numbers
  double log_z[kMaxRows] = {};
  T inverse[kMaxRows] = {};  // 1/Z at the scale of the last alpha
  bool bad[kMaxRows] = {};   // the range of T did not do

  ScaledRows(const Chain<In>& c, const int64_t* items, int rows)
      : Rows<In>(c, items, rows),
        panels((c.k + W - 1) / W),
        panel(rows * W),
        step(panels * rows * W),
        window((kTreeRows<T> + rows - 1) / rows) {}
  int64_t scratch() const { return this->row_scratch(1); }
  void bind(Scratch& s) { joined = this->bind_rows(s, 1); }

  // Calls body<P>() where k is exactly P = 1, 2 or 4 vectors, body<0>() otherwise, and always where T is not the
  // input's type: items are redone in it rarely, and each P costs much code.
  template <class F>
  SLV_INLINE void with_panels(F body) const {
    if constexpr (std::is_same_v<In, T>)
      with_panel_count(k % W == 0 ? panels : 0, body);
    else
      body(std::integral_constant<int, 0>{});
  }

  // Rows to exponentiate together, from the scores at src[i] to dst[i]; past `live` they only fill the tree.
  struct Batch {
    static constexpr int R = kTreeRows<T>;
    const In* src[R];
    T* dst[R];
    int row[R], live;
    alignas(64) T N[R];  // the power of two of each
  };
  // P panels that k fills, 0 for any number. The result has a bit for each row whose maximum is out of range, or of
  // which a finite score became 0.
  template <bool Wide, int P>
  SLV_INLINE unsigned exp_rows(Batch& b, int live) const {
    constexpr int R = Batch::R;
    const int64_t np = P ? P : panels;
    auto at = [&](int i, int64_t p) __attribute__((always_inline)) {
      return load_as<T>(b.src[i] + p * W, P ? W : int(k - p * W), -kInf<T>);
    };
    vec<T> top[R];
    repeat<(P > 0), R>(R, [&](int i) __attribute__((always_inline)) {
      top[i] = at(i, 0);
      for (int64_t p = 1; p < np; p++) top[i] = vmax(top[i], at(i, p));
    });
    const vec<T> maximum = reduce_rows<T>(top, MaxOp());
    const ivec<T> fits = (maximum > -Range<T>::huge) & (maximum < Range<T>::huge);
    store_rows(b.N, fits ? nearest<T>(maximum * T(1.44269504088896341)) : vec<T>{});
    unsigned bad_rows = 0;
    if (any<T>(~fits)) {
      alignas(64) T large[R];
      store_rows(large, fits | (maximum == -kInf<T>) ? vec<T>{} : splat(T(1)));
      for (int i = 0; i < live; i++) bad_rows |= unsigned(large[i] != 0) << i;
    }
    repeat<(P > 0), R>(live, [&](int i) __attribute__((always_inline)) {
      const vec<T> n = splat(b.N[i]);
      ivec<T> lost{};
#pragma GCC unroll 4
      for (int64_t p = 0; p < np; p++) {
        vec<T> x = P == 1 ? top[i] : at(i, p), y = exp_scaled<T>(x, n);
        if constexpr (Wide) lost |= (y == T(0)) & (x > -kInf<T>);
        store(b.dst[i] + p * panel, y);
      }
      if (Wide && any<T>(lost)) bad_rows |= 1u << i;
    });
    return bad_rows;
  }
  // The same for one row with initial or final scores; false where it is out of range.
  template <bool Wide>
  bool exp_joined(int r, int64_t t, T* dst) {
    this->joined_row(r, t, joined);
    const double top = *std::max_element(joined, joined + k), limit = double(Range<T>::huge);
    const bool fits = top > -limit && top < limit;
    const T N = fits ? nearest<T>(splat(T(top * 1.44269504088896341)))[0] : T(0);
    bool lost = !fits && top != -kInf<double>;
    for (int64_t j = 0; j < panels * W; j += kWidth<double>) {
      vec<double> x = load_n<double>(joined + std::min(j, k - 1), int(std::max<int64_t>(k - j, 0)), -kInf<double>);
      vec<double> y = exp_scaled<double>(x, splat(double(N)));
      if constexpr (Wide) lost |= any<double>((y < double(kSmallest<T>)) & (x > -kInf<double>));
      store_as<double>(dst + j / W * panel + j % W, y, kWidth<double>);
    }
    exponent[r] += double(N);
    return !lost;
  }
  // A row among the steps whose e is formed.
  struct Cursor {
    int64_t t;
    T* e;  // of step t
    int64_t stride;
    int r = 0;
    SLV_INLINE void advance(int by, int rows) {
      if ((r += by) == rows) r = 0, t++, e += stride;
    }
  };
  // Fills a batch from `at` on, up to step `to` or to a row with initial or final scores.
  void gather(Batch& b, Cursor& at, int64_t to) const {
    for (b.live = 0; b.live < b.R && at.t < to && !this->is_joined(at.r, at.t); b.live++, at.advance(1, rows)) {
      b.src[b.live] = this->row(at.r, at.t);
      b.dst[b.live] = at.e + at.r * W;
      b.row[b.live] = at.r;
    }
    for (int i = b.live; i < b.R; i++) b.src[i] = b.src[0];
  }
  void add_exponents(int r, const T* N) {  // of kTreeRows rows
    typedef T some __attribute__((vector_size(kTreeRows<T> * sizeof(T))));
    typedef double wide __attribute__((vector_size(kTreeRows<T> * sizeof(double)), aligned(8), may_alias));
    some x;
    std::memcpy(&x, N, sizeof x);
    *reinterpret_cast<wide*>(exponent + r) += __builtin_convertvector(x, wide);
  }
  // The same where all rows are scores as they stand.
  SLV_INLINE void gather_plain(Batch& b, Cursor& at) const {
    b.live = b.R;
#pragma GCC unroll 8
    for (int i = 0; i < b.R; i++) {
      b.src[i] = this->first_row[at.r + i] + at.t * k;
      b.dst[i] = at.e + (at.r + i) * W;
      b.row[i] = at.r + i;
    }
    at.advance(b.R, rows);
  }
  template <bool Wide, int P>
  void exp_steps(int64_t to, Cursor at) {
    const bool plain = at.t > 0 && to < shortest && rows % Batch::R == 0;
    while (at.t < to) {
      if (!plain && this->is_joined(at.r, at.t)) {
        if (!exp_joined<Wide>(at.r, at.t, at.e + at.r * W)) bad[at.r] = true;
        at.advance(1, rows);
        continue;
      }
      Batch b;
      unsigned out_of_range;
      if (plain) {
        gather_plain(b, at);
        out_of_range = exp_rows<Wide, P>(b, Batch::R);
        add_exponents(b.row[0], b.N);
      } else {
        gather(b, at, to);
        out_of_range = exp_rows<Wide, P>(b, b.live);
        if (rows == 1)  // in a register: each sum would wait for the one before to reach memory
          exponent[0] += std::accumulate(b.N, b.N + b.live, 0.0);
        else
          for (int i = 0; i < b.live; i++) exponent[b.row[i]] += double(b.N[i]);
      }
      for (int i = 0; out_of_range >> i; i++)
        if (out_of_range >> i & 1) bad[b.row[i]] = true;
    }
  }
  // e of steps [from, to) into step_e, one every `stride`; their powers of two go into exponent[].
  template <bool Wide>
  void exponentiate(int64_t from, int64_t to, T* step_e, int64_t stride) {
    with_panels([&](auto panels_) { exp_steps<Wide, decltype(panels_)::value>(to, Cursor{from, step_e, stride}); });
  }

  // log Z and 1/Z of a row whose last alpha this is; `more`: powers of two besides exponent[]
  void finish(int r, const T* alpha, double more) {
    vec<T> sum = load(alpha + r * W);
    for (int64_t p = 1; p < panels; p++) sum += load(alpha + p * panel + r * W);
    const double z = double(hsum<T>(sum));
    log_z[r] = z > 0 || z != z ? kLn2 * (exponent[r] + more) + scalar_log(z) : -kInf<double>;
    inverse[r] = z > 0 ? T(1 / z) : T(0);
  }
};

}  // namespace
}  // namespace slv
