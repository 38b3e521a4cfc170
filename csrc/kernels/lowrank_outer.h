// Sums over rows of outer products, where the rows lie in several stretches of memory.
#pragma once
#include "core/buffer.h"
#include "core/tile.h"

namespace slv {
namespace {

// Rows [first, first + count) of a span's arrays.
struct Stretch {
  int64_t first, count;
};
// to(i, panel p, sum over the rows of x(i) * y(panel p)) for i < k; in pieces of about a thousand rows.
template <int M, int NV, class T, class F>
SLV_INLINE void outer_piece(const Stretch* from, const Stretch* end, int64_t i, int64_t p, const T* x, int64_t x_panel,
                            const T* y, int64_t y_panel, F to) {
  constexpr int W = kWidth<T>;
  vec<T> sum[M][NV] = {};
  const T *xi = x + i / W * x_panel + i % W, *yp = y + p * y_panel;
  for (; from < end; from++)
    for (int64_t r = from->first; r < from->first + from->count; r++) {
      vec<T> v[NV];
#pragma GCC unroll 4
      for (int j = 0; j < NV; j++) v[j] = load(yp + j * y_panel + r * W);
#pragma GCC unroll 16
      for (int q = 0; q < M; q++) {
        const vec<T> a = splat(xi[r * W + q]);
#pragma GCC unroll 4
        for (int j = 0; j < NV; j++) sum[q][j] += a * v[j];
      }
    }
#pragma GCC unroll 16
  for (int q = 0; q < M; q++)
#pragma GCC unroll 4
    for (int j = 0; j < NV; j++) to(i + q, p + j, sum[q][j]);
}
template <class T, class F>
SLV_INLINE void outer_rows(const Vector<Stretch>& rows, int64_t k, const T* x, int64_t x_panel, int64_t panels,
                           const T* y, int64_t y_panel, F to) {
  constexpr int W = kWidth<T>, M = kTileRows < W ? kTileRows : W;
  constexpr int64_t kPiece = 1024;
  auto columns = [&]<int NV>(std::integral_constant<int, NV>, const Stretch* from, const Stretch* end, int64_t p)
                     __attribute__((always_inline)) {
                       int64_t i = 0;
                       for (; i + M <= k; i += M) outer_piece<M, NV>(from, end, i, p, x, x_panel, y, y_panel, to);
                       for (; i < k; i++) outer_piece<1, NV>(from, end, i, p, x, x_panel, y, y_panel, to);
                     };
  const Stretch *from = rows.data(), *last = from + rows.size(), *end = from;
  for (; from < last; from = end) {
    for (int64_t n = 0; end < last && n < kPiece; end++) n += end->count;
    int64_t p = 0;
    for (; p + kTilePanels <= panels; p += kTilePanels)
      columns(std::integral_constant<int, kTilePanels>{}, from, end, p);
    for (; p < panels; p++) columns(std::integral_constant<int, 1>{}, from, end, p);
  }
}

}  // namespace
}  // namespace slv
