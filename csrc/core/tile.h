// Products of a block of rows with a square matrix, in registers.
//
// Rows lie as panels of one vector, [panel][row][lane], the form in which every product of a chain leaves them, so that
// no operand is ever packed again; a matrix lies as panels of columns. A row's sum is formed in one fixed order
// whatever the other rows are, so that a result does not depend on the batch it was computed in.
#pragma once
#include <algorithm>
#include <utility>

#include "core/vec.h"

namespace slv {
namespace {

// rows x panels of one tile, and the number of interleaved partial sums of each (they hide the latency of FMA when
// there are few rows); 16 accumulators of the 32 registers, or 8 of 16.
#if defined(__AVX512F__)
constexpr int kTileRows = 8, kTilePanels = 2, kTileSums = 1;
#else
constexpr int kTileRows = 4, kTilePanels = 2, kTileSums = 1;
#endif

struct PlusTimes {
  template <class T>
  static constexpr T zero = T(0);
  template <class V>
  SLV_INLINE static V step(V c, V a, V b, V) {
    return c + a * b;
  }
  template <class V>
  SLV_INLINE static V join(V a, V b) {
    return a + b;
  }
};
struct MaxPlus {
  template <class T>
  static constexpr T zero = -kInf<T>;
  template <class V>
  SLV_INLINE static V step(V c, V a, V b, V one) {  // a * 1 + b is exact, and runs on the pipes that max leaves free
    return vmax(c, a * one + b);
  }
  template <class V>
  SLV_INLINE static V join(V a, V b) {
    return vmax(a, b);
  }
};
// Ones that the compiler cannot see through.
alignas(64) volatile float kOpaqueOneF = 1.f;
alignas(64) volatile double kOpaqueOneD = 1.0;
template <class T>
SLV_INLINE vec<T> opaque_ones() {
  if constexpr (sizeof(T) == 4)
    return splat<float>(kOpaqueOneF);
  else
    return splat<double>(kOpaqueOneD);
}

// The matrix: element (i, panel p) is the vector at data + i * row + p * panel.
template <class T>
struct Matrix {
  const T* data;
  int64_t row, panel;
};

// epilogue(i, j, sum over k of a(i, k) * b(k, j)) for M rows and NV panels.
template <class S, int M, int NV, int Q, class T, class E>
SLV_INLINE void tile(int64_t k, const T* a, int64_t a_panel, const T* b, Matrix<T> m, E epilogue) {
  constexpr int W = kWidth<T>;
  vec<T> c[Q][M][NV], one{};
  if constexpr (std::is_same_v<S, MaxPlus>) one = opaque_ones<T>();
#pragma GCC unroll 4
  for (int q = 0; q < Q; q++)
#pragma GCC unroll 16
    for (int i = 0; i < M; i++)
#pragma GCC unroll 8
      for (int j = 0; j < NV; j++) c[q][i][j] = splat(S::template zero<T>);
  auto accumulate = [&](int q, const T* column, const T* row) __attribute__((always_inline)) {
    vec<T> v[NV];
#pragma GCC unroll 8
    for (int j = 0; j < NV; j++) v[j] = load(row + j * m.panel);
#pragma GCC unroll 16
    for (int i = 0; i < M; i++) {
      vec<T> x = splat(column[i * W]);
#pragma GCC unroll 8
      for (int j = 0; j < NV; j++) c[q][i][j] = S::step(c[q][i][j], x, v[j], one);
    }
  };
  for (int64_t p = 0; p < k; p += W) {
    const T* column = a + p / W * a_panel;
    const int n = int(std::min<int64_t>(W, k - p));
    int l = 0;
    for (; l + Q <= n; l += Q)
#pragma GCC unroll 4
      for (int q = 0; q < Q; q++) accumulate(q, column + l + q, b + (p + l + q) * m.row);
    for (; l < n; l++) accumulate(0, column + l, b + (p + l) * m.row);
  }
#pragma GCC unroll 16
  for (int i = 0; i < M; i++)
#pragma GCC unroll 8
    for (int j = 0; j < NV; j++) {
      vec<T> sum = c[0][i][j];
#pragma GCC unroll 4
      for (int q = 1; q < Q; q++) sum = S::join(sum, c[q][i][j]);
      epilogue(i, j, sum);
    }
}

template <class S, int NV, int Q, class T, class E>
SLV_INLINE void tile_rows(int64_t rows, int64_t k, const T* a, int64_t a_panel, int64_t p, Matrix<T> m, E epilogue) {
  const T* b = m.data + p * m.panel;
  auto run = [&]<int M>(std::integral_constant<int, M>, int64_t r) __attribute__((always_inline)) {
    tile<S, M, NV, Q>(k, a + r * kWidth<T>, a_panel, b, m,
                      [&](int i, int j, vec<T> v) __attribute__((always_inline)) { epilogue(r + i, p + j, v); });
  };
  int64_t r = 0;
  if constexpr (NV == 1 && kTileRows == 8)  // half the columns: twice the rows
    for (; r + 16 <= rows; r += 16) run(std::integral_constant<int, 16>{}, r);
  for (; r + kTileRows <= rows; r += kTileRows) run(std::integral_constant<int, kTileRows>{}, r);
  if constexpr (kTileRows > 4)
    if (r + 4 <= rows) run(std::integral_constant<int, 4>{}, r), r += 4;
  if (r + 2 <= rows) run(std::integral_constant<int, 2>{}, r), r += 2;
  if (r < rows) run(std::integral_constant<int, 1>{}, r);
}

// epilogue(row, panel, vector) for the product of all rows with the k x k matrix over the semiring S.
template <class S, class T, class E>
SLV_INLINE void multiply_rows(int64_t rows, int64_t k, const T* a, int64_t a_panel, Matrix<T> m, E epilogue) {
  const int64_t panels = (k + kWidth<T> - 1) / kWidth<T>;
  int64_t p = 0;
  if (rows == 1) {  // few sums at a time otherwise: take more columns
    for (; p + 4 <= panels; p += 4)
      tile<S, 1, 4, kTileSums>(k, a, a_panel, m.data + p * m.panel, m,
                               [&](int, int j, vec<T> v) __attribute__((always_inline)) { epilogue(0, p + j, v); });
  }
  for (; p + kTilePanels <= panels; p += kTilePanels)
    tile_rows<S, kTilePanels, kTileSums>(rows, k, a, a_panel, p, m, epilogue);
  for (; p < panels; p++) tile_rows<S, 1, kTileSums>(rows, k, a, a_panel, p, m, epilogue);
}

// One row of steps in memory: where the sums of outer products find their factors.
struct Steps {
  int64_t count, stride;  // number of steps, distance between them
  int64_t first_row, rows, all_rows;
};

// c(i, panel p) += sum over steps and rows of x(i) * y(panel p); c is [k][panels] vectors.
template <int M, int NV, class T>
SLV_INLINE void outer_tile(const Steps& s, int64_t i, int64_t p, const T* x, int64_t x_stride, const T* y, T* c,
                           int64_t c_row) {
  constexpr int W = kWidth<T>;
  const int64_t panel = s.all_rows * W;
  vec<T> sum[M][NV] = {};
  for (int64_t t = 0; t < s.count; t++) {
    const T* xt = x + t * x_stride + i / W * panel + i % W;
    const T* yt = y + t * s.stride + p * panel;
    for (int64_t r = s.first_row; r < s.first_row + s.rows; r++) {
      vec<T> v[NV];
#pragma GCC unroll 4
      for (int j = 0; j < NV; j++) v[j] = load(yt + j * panel + r * W);
#pragma GCC unroll 16
      for (int q = 0; q < M; q++) {
        vec<T> a = splat(xt[r * W + q]);
#pragma GCC unroll 4
        for (int j = 0; j < NV; j++) sum[q][j] += a * v[j];
      }
    }
  }
#pragma GCC unroll 16
  for (int q = 0; q < M; q++)
#pragma GCC unroll 4
    for (int j = 0; j < NV; j++) {
      T* to = c + (i + q) * c_row + (p + j) * W;
      store(to, load(to) + sum[q][j]);
    }
}
template <class T>
void outer_sums(int64_t k, const Steps& s, const T* x, int64_t x_stride, const T* y, T* c, int64_t c_row) {
  constexpr int W = kWidth<T>, M = kTileRows < W ? kTileRows : W;
  const int64_t panels = (k + W - 1) / W;
  auto columns = [&]<int NV>(std::integral_constant<int, NV>, int64_t p) {
    int64_t i = 0;
    for (; i + M <= k; i += M) outer_tile<M, NV>(s, i, p, x, x_stride, y, c, c_row);
    for (; i < k; i++) outer_tile<1, NV>(s, i, p, x, x_stride, y, c, c_row);
  };
  int64_t p = 0;
  for (; p + kTilePanels <= panels; p += kTilePanels) columns(std::integral_constant<int, kTilePanels>{}, p);
  for (; p < panels; p++) columns(std::integral_constant<int, 1>{}, p);
}

// ---- reductions of several rows at once, as one tree of shuffles -----------------------------------------------
template <class T>
constexpr int kTreeRows = kWidth<T> < 8 ? kWidth<T> : 8;

template <class T, int N, int H, class Op>
SLV_INLINE vec<T> tree(vec<T>* r, Op op) {
  constexpr auto lanes = kLaneSequence<T>;
  if constexpr (N > 1) {
#pragma GCC unroll 8
    for (int i = 0; i < N / 2; i++)
      r[i] = op(interleave_halves<T, H, 0>(r[2 * i], r[2 * i + 1], lanes),
                interleave_halves<T, H, 1>(r[2 * i], r[2 * i + 1], lanes));
    return tree<T, N / 2, H / 2>(r, op);
  } else if constexpr (H > 0) {
    vec<T> v = op(interleave_halves<T, H, 0>(r[0], r[0], lanes), interleave_halves<T, H, 1>(r[0], r[0], lanes));
    return tree<T, 1, H / 2>(&v, op);
  } else {
    return r[0];
  }
}
template <class T, size_t... L>
SLV_INLINE void store_every(T* p, vec<T> v, std::index_sequence<L...>) {
  constexpr int every = kWidth<T> / kTreeRows<T>;
  if constexpr (every == 1) {
    store(p, v);
  } else {
    auto x = __builtin_shufflevector(v, v, (int(L) * every)...);
    std::memcpy(p, &x, sizeof x);
  }
}
// The reductions of kTreeRows vectors, as a vector for more of the same arithmetic; store_rows puts those of the rows
// side by side.
template <class T, class Op>
SLV_INLINE vec<T> reduce_rows(const vec<T>* rows, Op op) {
  constexpr int R = kTreeRows<T>;
  vec<T> r[R];
#pragma GCC unroll 8
  for (int i = 0; i < R; i++) {  // bit-reversed in, so that the tree leaves them in order
    int j = 0;
    for (int bit = 1, back = R / 2; bit < R; bit *= 2, back /= 2) j |= i & bit ? back : 0;
    r[i] = rows[j];
  }
  return tree<T, R, kWidth<T> / 2>(r, op);
}
template <class T>
SLV_INLINE void store_rows(T* p, vec<T> v) {
  store_every<T>(p, v, std::make_index_sequence<kTreeRows<T>>{});
}
// The other way: a value for each row, where reduce_rows leaves it.
template <class T>
SLV_INLINE vec<T> spread_rows(const T* p) {
  vec<T> v{};
  for (int i = 0; i < kWidth<T>; i++) v[i] = p[i / (kWidth<T> / kTreeRows<T>)];
  return v;
}

}  // namespace
}  // namespace slv
