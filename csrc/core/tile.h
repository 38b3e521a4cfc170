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
constexpr int kTileRows = 8, kTilePanels = 2;
#else
constexpr int kTileRows = 4, kTilePanels = 2;
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
// Ones that the compiler cannot see through: of a product of two splats it would make a product of two numbers.
template <class T>
SLV_INLINE vec<T> opaque_ones() {
  vec<T> one = splat(T(1));
#if defined(__SSE2__)
  asm("" : "+v"(one));
#endif
  return one;
}

// The matrix: element (i, panel p) is the vector at data + i * kWidth + p * panel.
template <class T>
struct Matrix {
  const T* data;
  int64_t panel;
};

// The terms of a long sum lie in two halves, summed apart: with one row alone the two run side by side, which hides the
// latency of FMA; with many they run one after the other, in the same registers. The order is the same.
template <class T>
SLV_INLINE int64_t first_half(int64_t k) {
  constexpr int W = kWidth<T>;
  return k < 64 ? 0 : (k + W - 1) / W / 2 * W;
}

// Forbids the compiler to hold these numbers in registers.
template <class T>
SLV_INLINE void keep_in_memory(T* p) {
  asm volatile("" : : "r"(p) : "memory");
}

// epilogue(i, j, sum over k of a(i, k) * b(k, j)) for M rows and NV panels.
template <class S, int M, int NV, class T, class E>
SLV_INLINE void tile(int64_t k, const T* a, int64_t a_panel, const T* b, Matrix<T> m, E epilogue) {
  constexpr int W = kWidth<T>;
  typedef vec<T> Sums[M][NV];
  Sums c;
  vec<T> one{};
  if constexpr (std::is_same_v<S, MaxPlus>) one = opaque_ones<T>();
  auto clear = [](Sums& x) __attribute__((always_inline)) {
#pragma GCC unroll 16
    for (int i = 0; i < M; i++)
#pragma GCC unroll 8
      for (int j = 0; j < NV; j++) x[i][j] = splat(S::template zero<T>);
  };
  auto add = [&](Sums& x, const T* column, const T* row) __attribute__((always_inline)) {
    vec<T> v[NV];
#pragma GCC unroll 8
    for (int j = 0; j < NV; j++) v[j] = load(row + j * m.panel);
#pragma GCC unroll 16
    for (int i = 0; i < M; i++) {
      vec<T> y = splat(column[i * W]);
#pragma GCC unroll 8
      for (int j = 0; j < NV; j++) x[i][j] = S::step(x[i][j], y, v[j], one);
    }
  };
  auto segment = [&](Sums& x, int64_t from, int64_t to) __attribute__((always_inline)) {
    for (int64_t p = from; p < to; p += W) {
      const T* column = a + p / W * a_panel;
      const T* row = b + p * W;
      const int n = int(std::min<int64_t>(W, to - p));
      for (int l = 0; l < n; l++) add(x, column + l, row + l * W);
    }
  };
  const int64_t half = M == 1 || std::is_same_v<S, PlusTimes> ? first_half<T>(k) : 0;
  clear(c);
  if constexpr (M == 1) {
    Sums first;
    clear(first);
    const int64_t paired = std::min(half, k - half);
    auto halves = [&](auto place) __attribute__((always_inline)) {
      for (int64_t p = 0; p < paired; p++) {
        add(first, a + place(p), b + p * W);
        add(c, a + place(p + half), b + (p + half) * W);
      }
      for (int64_t p = paired; p < half; p++) add(first, a + place(p), b + p * W);
    };
    if (a_panel == W)  // a row alone: a loop that the compiler leaves as short as it is
      halves([](int64_t p) { return p; });
    else
      halves([&](int64_t p) { return p / W * a_panel + p % W; });
    segment(c, 2 * half, k);
#pragma GCC unroll 8
    for (int j = 0; j < NV; j++) epilogue(0, j, half ? S::join(first[0][j], c[0][j]) : c[0][j]);
  } else {
    alignas(kVectorBytes) T first[M * NV * W];  // in memory: the registers are all taken
    if (half) {
      segment(c, 0, half);
#pragma GCC unroll 16
      for (int i = 0; i < M; i++)
#pragma GCC unroll 8
        for (int j = 0; j < NV; j++) store(first + (i * NV + j) * W, c[i][j]);
      keep_in_memory(first);
      clear(c);
    }
    segment(c, half, k);
    if (half)
#pragma GCC unroll 16
      for (int i = 0; i < M; i++)
#pragma GCC unroll 8
        for (int j = 0; j < NV; j++) c[i][j] = S::join(load(first + (i * NV + j) * W), c[i][j]);
#pragma GCC unroll 16
    for (int i = 0; i < M; i++)
#pragma GCC unroll 8
      for (int j = 0; j < NV; j++) epilogue(i, j, c[i][j]);
  }
}

template <class S, int NV, class T, class E>
SLV_INLINE void tile_rows(int64_t rows, int64_t k, const T* a, int64_t a_panel, int64_t p, Matrix<T> m, E epilogue) {
  const T* b = m.data + p * m.panel;
  auto run = [&]<int M>(std::integral_constant<int, M>, int64_t r) __attribute__((always_inline)) {
    tile<S, M, NV>(k, a + r * kWidth<T>, a_panel, b, m,
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

// epilogue(row, panel, vector) for the product of all rows with a matrix of k rows and some panels of columns over the
// semiring S.
template <class S, class T, class E>
SLV_INLINE void multiply_panels(int64_t rows, int64_t k, const T* a, int64_t a_panel, Matrix<T> m, int64_t panels,
                                E epilogue) {
  int64_t p = 0;
  if (rows == 1) {  // few sums at a time otherwise: take more columns
    for (; p + 4 <= panels; p += 4)
      tile<S, 1, 4>(k, a, a_panel, m.data + p * m.panel, m,
                    [&](int, int j, vec<T> v) __attribute__((always_inline)) { epilogue(0, p + j, v); });
  }
  for (; p + kTilePanels <= panels; p += kTilePanels) tile_rows<S, kTilePanels>(rows, k, a, a_panel, p, m, epilogue);
  for (; p < panels; p++) tile_rows<S, 1>(rows, k, a, a_panel, p, m, epilogue);
}
// The same for a square matrix.
template <class S, class T, class E>
SLV_INLINE void multiply_rows(int64_t rows, int64_t k, const T* a, int64_t a_panel, Matrix<T> m, E epilogue) {
  multiply_panels<S>(rows, k, a, a_panel, m, (k + kWidth<T> - 1) / kWidth<T>, epilogue);
}

// The same into memory, panels and rows as in a; not inlined: each epilogue of its own is a copy of all tiles.
template <class T>
__attribute__((noinline)) void multiply_into(int64_t rows, int64_t k, const T* a, int64_t a_panel, Matrix<T> m,
                                             T* out) {
  multiply_rows<PlusTimes>(rows, k, a, a_panel, m,
                           [&](int64_t r, int64_t p, vec<T> sum)
                               __attribute__((always_inline)) { store(out + p * a_panel + r * kWidth<T>, sum); });
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

// Calls body<P>() for P = 1, 2 or 4 panels, body<0>() for another number: short loops that the compiler can unroll.
template <class F>
SLV_INLINE void with_panel_count(int64_t panels, F body) {
  if (panels == 1)
    body(std::integral_constant<int, 1>{});
  else if (panels == 2)
    body(std::integral_constant<int, 2>{});
  else if (panels == 4)
    body(std::integral_constant<int, 4>{});
  else
    body(std::integral_constant<int, 0>{});
}

// Calls body(i) for i < count <= N: written out, so that what it fills can stay in registers, or as a loop, which is
// a fraction of the code.
template <bool WrittenOut, int N, class F>
SLV_INLINE void repeat(int count, F body) {
  if constexpr (WrittenOut) {
#pragma GCC unroll 16
    for (int i = 0; i < N; i++) {
      if (i == count) break;
      body(i);
    }
  } else {
#pragma GCC unroll 1
    for (int i = 0; i < count; i++) body(i);
  }
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
// kWidth rows, whose reductions fill a vector.
template <class T, size_t... L>
SLV_INLINE vec<T> every_of(vec<T> a, vec<T> b, std::index_sequence<L...>) {
  constexpr int every = kWidth<T> / kTreeRows<T>;
  return __builtin_shufflevector(a, b, (int(L) * every)...);
}
template <class T, class Op>
SLV_INLINE vec<T> reduce_square(const vec<T>* rows, Op op) {
  static_assert(kWidth<T> <= 2 * kTreeRows<T>);
  vec<T> first = reduce_rows<T>(rows, op);
  if constexpr (kWidth<T> == kTreeRows<T>)
    return first;
  else
    return every_of<T>(first, reduce_rows<T>(rows + kTreeRows<T>, op), kLaneSequence<T>);
}
// The same for N rows, N being kTreeRows or 1.
template <class T, int N, class Op>
SLV_INLINE void reduce_into(T* p, const vec<T>* rows, Op op) {
  if constexpr (N == 1)
    p[0] = reduce_lanes<T, kWidth<T> / 2>(rows[0], op)[0];
  else
    store_every<T>(p, reduce_rows<T>(rows, op), std::make_index_sequence<kTreeRows<T>>{});
}
template <class T>
SLV_INLINE void store_rows(T* p, vec<T> v) {
  store_every<T>(p, v, std::make_index_sequence<kTreeRows<T>>{});
}
// The other way: a value for each row, where reduce_rows leaves it.
template <class T, size_t... L>
SLV_INLINE vec<T> load_every(const T* p, std::index_sequence<L...>) {
  typedef T some __attribute__((vector_size(kTreeRows<T> * sizeof(T))));
  some x;
  std::memcpy(&x, p, sizeof x);
  return __builtin_shufflevector(x, x, (int(L) * kTreeRows<T> / kWidth<T>)...);
}
template <class T>
SLV_INLINE vec<T> spread_rows(const T* p) {
  return load_every<T>(p, kLaneSequence<T>);
}

}  // namespace
}  // namespace slv
