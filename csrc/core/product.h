// Products of matrices with any strides, in registers, over the semirings of tile.h; and transposition.
//
// Rows of the right factor and of the result are whole vectors; of the left factor one element at a time is used, so
// its rows may be its columns. The rows are shared out evenly over tiles as large as the registers allow.
#pragma once
#include "core/tile.h"

namespace slv {
namespace {

#if defined(__AVX512F__)
constexpr int kMostRows = 12;  // times two vectors, of 32 registers
#else
constexpr int kMostRows = 6;
#endif

// Terms come in blocks, each `terms` long. `last` is the column of the last panel, if not the multiple of a vector that
// it would be: then it overlaps the one before, and rows need no padding.
struct Extent {
  int64_t rows, panels, terms, blocks = 1, last = -1;
};
template <class T>
struct Left {  // element (row, block, term)
  const T* data;
  int64_t row, term, block = 0;
};
template <class T>
struct Right {  // vectors (block, term): panels lie side by side
  const T* data;
  int64_t term, block = 0;
};

// Partial sums side by side for each element, where a tile has too few elements to hide the latency of FMA (two rows
// and more were measured slower with them). The order of a sum then depends on the number of rows, so this is for rows
// that belong to one item.
template <bool Split, int M>
constexpr int kPartialSums = Split && M == 1 ? 4 : 1;

template <class S, bool Split, int M, int NV, class T, class E>
SLV_INLINE void product_tile(const Extent& x, const T* a, const Left<T>& left, const Right<T>& right,
                             const int64_t* columns, E epilogue) {
  constexpr int Q = kPartialSums<Split, M>;
  vec<T> sum[Q][M][NV], one{};
  if constexpr (std::is_same_v<S, MaxPlus>) one = opaque_ones<T>();
#pragma GCC unroll 4
  for (int q = 0; q < Q; q++)
#pragma GCC unroll 16
    for (int i = 0; i < M; i++)
#pragma GCC unroll 2
      for (int j = 0; j < NV; j++) sum[q][i][j] = splat(S::template zero<T>);
  auto add = [&](int q, const T* column, const T* row) __attribute__((always_inline)) {
    vec<T> v[NV];
#pragma GCC unroll 2
    for (int j = 0; j < NV; j++) v[j] = load(row + columns[j]);
#pragma GCC unroll 16
    for (int i = 0; i < M; i++) {
      const vec<T> y = splat(column[i * left.row]);
#pragma GCC unroll 2
      for (int j = 0; j < NV; j++) sum[q][i][j] = S::step(sum[q][i][j], y, v[j], one);
    }
  };
  for (int64_t block = 0; block < x.blocks; block++) {
    const T *column = a + block * left.block, *row = right.data + block * right.block;
    int64_t p = 0;
    for (; p + Q <= x.terms; p += Q)
#pragma GCC unroll 4
      for (int q = 0; q < Q; q++, column += left.term, row += right.term) add(q, column, row);
    if constexpr (Q > 1)
      for (; p < x.terms; p++, column += left.term, row += right.term) add(0, column, row);
  }
#pragma GCC unroll 16
  for (int i = 0; i < M; i++)
#pragma GCC unroll 2
    for (int j = 0; j < NV; j++) {
      vec<T> v = sum[0][i][j];
#pragma GCC unroll 4
      for (int q = 1; q < Q; q++) v = S::join(v, sum[q][i][j]);
      epilogue(i, columns[j], v);
    }
}

// Calls body<M>(first) for tiles of nearly equal numbers of rows.
template <class F>
SLV_INLINE void each_tile(int64_t rows, F body) {
  if (rows <= 0) return;
  const int64_t tiles = (rows + kMostRows - 1) / kMostRows, each = rows / tiles, more = rows % tiles;
  for (int64_t t = 0, r = 0; t < tiles; t++) {
    const int64_t m = each + (t < more);
    [&]<int... I>(std::integer_sequence<int, I...>) __attribute__((always_inline)) {
      (void)((m == I + 1 ? (body(std::integral_constant<int, I + 1>{}, r), true) : false) || ...);
    }(std::make_integer_sequence<int, kMostRows>{});
    r += m;
  }
}

// epilogue(row, column, vector) for the whole product.
template <class S, bool Split, class T, class E>
__attribute__((noinline)) void product(const Extent& x, const Left<T>& left, const Right<T>& right, E epilogue) {
  constexpr int W = kWidth<T>;
  auto columns = [&]<int NV>(std::integral_constant<int, NV>, int64_t p) __attribute__((always_inline)) {
    const int64_t column[2] = {NV == 1 && x.last >= 0 ? x.last : p * W,
                               p + 2 == x.panels && x.last >= 0 ? x.last : (p + 1) * W};
    each_tile(x.rows, [&]<int M>(std::integral_constant<int, M>, int64_t r) __attribute__((always_inline)) {
      product_tile<S, Split, M, NV>(x, left.data + r * left.row, left, right, column,
                                    [&](int i, int64_t c, vec<T> v)
                                        __attribute__((always_inline)) { epilogue(r + i, c, v); });
    });
  };
  int64_t p = 0;
  for (; p + 2 <= x.panels; p += 2) columns(std::integral_constant<int, 2>{}, p);
  if (p < x.panels) columns(std::integral_constant<int, 1>{}, p);
}

template <class T>
struct Store {
  T* to;
  int64_t row;
  SLV_INLINE void operator()(int64_t i, int64_t c, vec<T> v) const { store(to + i * row + c, v); }
};
// The sums, each row times a factor of its own, added to what is there.
template <class T>
struct Add {
  T* to;
  int64_t row;
  const T* factor;
  int64_t factor_row;
  SLV_INLINE void operator()(int64_t i, int64_t c, vec<T> v) const {
    T* x = to + i * row + c;
    store(x, load(x) + factor[i * factor_row] * v);
  }
};
template <class T>
struct Raise {
  T* to;
  int64_t row;
  SLV_INLINE void operator()(int64_t i, int64_t c, vec<T> v) const {
    T* x = to + i * row + c;
    store(x, vmax(load(x), v));
  }
};

template <class T, int H>
SLV_INLINE void transpose_lanes(vec<T>* r) {
  constexpr int W = kWidth<T>;
  if constexpr (H > 0) {
#pragma GCC unroll 16
    for (int i = 0; i < W; i++)
      if (i / H % 2 == 0) {
        const vec<T> a = r[i], b = r[i + H];
        r[i] = interleave_halves<T, H, 0>(a, b, kLaneSequence<T>);
        r[i + H] = interleave_halves<T, H, 1>(a, b, kLaneSequence<T>);
      }
    transpose_lanes<T, H / 2>(r);
  }
}
// to[c][r] = from[r][c] for whole vectors of rows and columns.
template <class T>
void transpose(const T* from, int64_t from_row, int64_t rows, int64_t columns, T* to, int64_t to_row) {
  constexpr int W = kWidth<T>;
  for (int64_t r = 0; r < rows; r += W)
    for (int64_t c = 0; c < columns; c += W) {
      vec<T> x[W];
#pragma GCC unroll 16
      for (int i = 0; i < W; i++) x[i] = load(from + (r + i) * from_row + c);
      transpose_lanes<T, W / 2>(x);
#pragma GCC unroll 16
      for (int i = 0; i < W; i++) store(to + (c + i) * to_row + r, x[i]);
    }
}

}  // namespace
}  // namespace slv
