// Products along one chain of joint states, in registers. A vector is W sequences, one in each lane, so whatever the
// chain, its states lie a whole number of vectors apart, and what a lane holds never depends on the other lanes.
//
// An array of joint states is seen as (outer, k, inner) vectors. The pairs (outer, inner) are its columns.
#pragma once
#include <algorithm>
#include <utility>

#include "core/tile.h"

namespace slv {
namespace {

// Rows of a tile, times two columns (four where there are few rows; three of 32 registers where there are many): 16 or
// 24 accumulators of 32 registers, or 8 of 16.
#if defined(__AVX512F__)
constexpr int kAxisRows = 8, kCountRows = 4, kCountColumns = 6;
#else
constexpr int kAxisRows = 4, kCountRows = 4, kCountColumns = 2;
#endif

struct AxisShape {
  int64_t k, outer, inner;
  int64_t columns() const { return outer * inner; }
};
// The matrix of a product along a chain, (terms, rows): an element for all lanes, or for each lane its own vector.
template <class T>
struct AxisMatrix {
  const T* data;
  bool lanes;
};

template <class S, bool Lanes, int M, int NV, class T, class E>
SLV_INLINE void axis_tile(int64_t k, int64_t stride, const T* a, const T* const* in, E&& epilogue) {
  constexpr int64_t row = Lanes ? kWidth<T> : 1;
  const int64_t term = k * row;
  const T* from[NV];
#pragma GCC unroll 8
  for (int j = 0; j < NV; j++) from[j] = in[j];
  vec<T> sum[M][NV], one{};
  if constexpr (std::is_same_v<S, MaxPlus>) one = opaque_ones<T>();
#pragma GCC unroll 8
  for (int i = 0; i < M; i++)
#pragma GCC unroll 8
    for (int j = 0; j < NV; j++) sum[i][j] = splat(S::template zero<T>);
  auto add = [&]() __attribute__((always_inline)) {
    vec<T> v[NV];
#pragma GCC unroll 8
    for (int j = 0; j < NV; j++) v[j] = load(from[j]), from[j] += stride;
#pragma GCC unroll 8
    for (int i = 0; i < M; i++) {
      const vec<T> y = Lanes ? load(a + i * row) : splat(a[i]);
#pragma GCC unroll 8
      for (int j = 0; j < NV; j++) sum[i][j] = S::step(sum[i][j], y, v[j], one);
    }
    a += term;
  };
  int64_t p = 0;
  if constexpr (M == kAxisRows)  // sizes that fill tiles are mostly multiples of 8
    for (; p + 8 <= k; p += 8)
#pragma GCC unroll 8
      for (int64_t q = 0; q < 8; q++) add();
  for (; p < k; p++) add();
#pragma GCC unroll 8
  for (int i = 0; i < M; i++)
#pragma GCC unroll 8
    for (int j = 0; j < NV; j++) epilogue(i, j, sum[i][j]);
}

// Tiles of at most Most rows, of nearly equal numbers.
template <int Most>
struct RowTiles {
  int64_t tiles, each, more;
  explicit RowTiles(int64_t rows) : tiles((rows + Most - 1) / Most), each(rows / tiles), more(rows % tiles) {}
  // Calls body<M>(first) for each.
  template <class F>
  SLV_INLINE void visit(F body) const {
    for (int64_t t = 0, r = 0; t < tiles; t++) {
      const int64_t m = each + (t < more);
      [&]<int... I>(std::integer_sequence<int, I...>) __attribute__((always_inline)) {
        (void)((m == I + 1 ? (body(std::integral_constant<int, I + 1>{}, r), true) : false) || ...);
      }(std::make_integer_sequence<int, Most>{});
      r += m;
    }
  }
};

// epilogue(element at which the vector of a state lies, sum over the terms p of m(state, p) in(p)). K: the number of
// states, or 0 for any.
template <class S, bool Lanes, int K, class T, class E>
__attribute__((noinline)) void sized_product(const AxisShape& x, const AxisMatrix<T>& m, const T* in, E& result) {
  constexpr int W = kWidth<T>;
  const int64_t k = K ? K : x.k, columns = x.columns(), stride = x.inner * W;
  E epilogue = result;                  // its numbers in registers
  int64_t c = 0, place = 0, inner = 0;  // the next column: its number, its first element, its place among inner ones
  auto run = [&]<int NV>(std::integral_constant<int, NV>, const auto& tiles) __attribute__((always_inline)) {
    int64_t at[NV];
    const T* from[NV];
    for (int j = 0; j < NV; j++) {
      at[j] = place, from[j] = in + place, place += W;
      if (++inner == x.inner) inner = 0, place += (k - 1) * stride;
    }
    tiles.visit([&](auto rows, int64_t r) __attribute__((always_inline)) {
      axis_tile<S, Lanes, decltype(rows)::value, NV>(
          k, stride, m.data + r * (Lanes ? W : 1), from,
          [&](int i, int j, vec<T> v) __attribute__((always_inline)) { epilogue(at[j] + (r + i) * stride, v); });
    });
    c += NV;
  };
  if (k <= kAxisRows / 2) {
    const RowTiles<kAxisRows / 2> tiles(k);
    while (c + 4 <= columns) run(std::integral_constant<int, 4>{}, tiles);
  }
  const RowTiles<kAxisRows> tiles(k);
  if (kAxisRows == 8 && k > kAxisRows)  // measured: 3% of 16 x 16 states; nothing of 8 x 8 x 8
    while (c + 3 <= columns) run(std::integral_constant<int, 3>{}, tiles);
  while (c + 2 <= columns) run(std::integral_constant<int, 2>{}, tiles);
  if (c < columns) run(std::integral_constant<int, 1>{}, tiles);
  result = epilogue;
}
// As many states as a tile has rows: then no loop has an unknown length but that over columns.
template <class S, bool Lanes, class T, class E>
SLV_INLINE void axis_product(const AxisShape& x, const AxisMatrix<T>& m, const T* in, E& result) {
  if (!Lanes && x.k == kAxisRows)
    sized_product<S, Lanes, kAxisRows>(x, m, in, result);
  else
    sized_product<S, Lanes, 0>(x, m, in, result);
}
template <class S, class T, class E>
void along(const AxisShape& x, const AxisMatrix<T>& m, const T* in, E& epilogue) {
  m.lanes ? axis_product<S, true>(x, m, in, epilogue) : axis_product<S, false>(x, m, in, epilogue);
}
template <class T>
struct StoreState {
  T* to;
  SLV_INLINE void operator()(int64_t at, vec<T> v) const { store(to + at, v); }
};
// The same epilogue for states that begin at an element of all.
template <class E>
struct Placed {
  E epilogue;
  int64_t first;
  template <class V>
  SLV_INLINE void operator()(int64_t at, V v) {
    epilogue(first + at, v);
  }
};

// sums(k, j) += sum over columns of x(k) y(j), for each lane by itself.
template <int M, int N, class T>
SLV_INLINE void count_tile(const AxisShape& s, int64_t i, int64_t j, const T* x, const T* y, T* sums) {
  constexpr int W = kWidth<T>;
  const int64_t stride = s.inner * W;
  vec<T> sum[M][N] = {};
  for (int64_t o = 0; o < s.outer; o++)
    for (int64_t q = 0; q < s.inner; q++) {
      const T *a = x + (o * s.k * s.inner + q) * W + i * stride, *b = y + (o * s.k * s.inner + q) * W + j * stride;
      vec<T> v[N];
#pragma GCC unroll 8
      for (int n = 0; n < N; n++) v[n] = load(b + n * stride);
#pragma GCC unroll 8
      for (int l = 0; l < M; l++) {
        const vec<T> u = load(a + l * stride);
#pragma GCC unroll 8
        for (int n = 0; n < N; n++) sum[l][n] += u * v[n];
      }
    }
#pragma GCC unroll 8
  for (int l = 0; l < M; l++)
#pragma GCC unroll 8
    for (int n = 0; n < N; n++) {
      T* to = sums + ((i + l) * s.k + j + n) * W;
      store(to, load(to) + sum[l][n]);
    }
}
template <class T>
__attribute__((noinline)) void count_pairs(const AxisShape& s, const T* x, const T* y, T* sums) {
  const RowTiles<kCountRows> rows(s.k);
  const RowTiles<kCountColumns> columns(s.k);
  rows.visit([&](auto m, int64_t i) __attribute__((always_inline)) {
    columns.visit([&](auto n, int64_t j) __attribute__((always_inline)) {
      count_tile<decltype(m)::value, decltype(n)::value>(s, i, j, x, y, sums);
    });
  });
}

// Sums of `states` vectors for each lane in float64, through partial sums of few terms.
template <class T>
void lane_sums(const T* x, int64_t states, double* out) {
  constexpr int W = kWidth<T>;
  constexpr int64_t kTerms = 32;
  std::fill(out, out + W, 0.0);
  for (int64_t z = 0; z < states; z += kTerms) {
    vec<T> sum{};
    for (int64_t q = z; q < std::min(z + kTerms, states); q++) sum += load(x + q * W);
    add_as<T>(out, sum, W);
  }
}

}  // namespace
}  // namespace slv
