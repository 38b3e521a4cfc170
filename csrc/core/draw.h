// One of several alternatives in proportion to their weights, without a branch that depends on which.
#pragma once
#include <algorithm>
#include <array>

#include "core/vec.h"

namespace slv {
namespace {

// Lane l - D of v in lane l, 0 where there is none.
template <class T, int D, size_t... L>
SLV_INLINE vec<T> lanes_up(vec<T> v, std::index_sequence<L...>) {
  return __builtin_shufflevector(v, vec<T>{}, (int(L) < D ? kWidth<T> : int(L) - D)...);
}
// The sum of each lane and those before it.
template <class T, int D = 1>
SLV_INLINE vec<T> prefix_sums(vec<T> v) {
  if constexpr (D < kWidth<T>)
    return prefix_sums<T, 2 * D>(v + lanes_up<T, D>(v, kLaneSequence<T>));
  else
    return v;
}

// Alternatives: whole vectors of their weights, 0 behind the last one, and as many places after them for what is
// summed up.
template <class T>
struct Weights {
  T* of;
  int64_t count;
};
template <class T>
SLV_INLINE T draw_target(T sum, T u) {  // below the sum
  return std::min(u * sum, sum * (1 - std::numeric_limits<T>::epsilon() / 2));
}
// The first of those above the target that have some weight: a bit for each.
SLV_INLINE int64_t first_above(uint64_t above, uint64_t some) {
  if (above & some) return __builtin_ctzll(above & some);
  return some ? 63 - __builtin_clzll(some) : -1;  // rounding has left the target to the last one
}
template <int N, class T>
SLV_INLINE int64_t draw_vectors(const T* weights, T u) {
  constexpr int W = kWidth<T>;
  vec<T> x[N], c[N], sum{};
#pragma GCC unroll 8
  for (int v = 0; v < N; v++) {
    x[v] = load(weights + v * W);
    c[v] = prefix_sums<T>(x[v]);
  }
#pragma GCC unroll 8
  for (int v = 0; v < N; v++) {
    c[v] += sum;
    sum = __builtin_shuffle(c[v], ivec<T>{} + (W - 1));
  }
  const vec<T> target = splat(draw_target(sum[0], u));
  uint64_t above = 0, some = 0;
#pragma GCC unroll 8
  for (int v = 0; v < N; v++) {
    above |= uint64_t(greater_lanes(c[v], target)) << (v * W);
    some |= uint64_t(greater_lanes(x[v], vec<T>{})) << (v * W);
  }
  return first_above(above, some);
}
// The first whose cumulative weight is above u times the sum of all; never one of weight 0; -1 where all are.
template <class T>
SLV_INLINE int64_t draw(const Weights<T>& w, T u) {
  constexpr int W = kWidth<T>;
  constexpr int64_t kWord = 64;
  const int64_t size = (w.count + W - 1) / W * W;
  if (size == W) return draw_vectors<1>(w.of, u);
  if (size == 2 * W) return draw_vectors<2>(w.of, u);
  if (size == 4 * W) return draw_vectors<4>(w.of, u);
  T* const cumulative = w.of + size;
  T sum = 0;
  for (int64_t k = 0; k < size; k += W) {
    const vec<T> c = prefix_sums<T>(load(w.of + k)) + sum;
    store(cumulative + k, c);
    sum = c[W - 1];
  }
  const vec<T> target = splat(draw_target(sum, u));
  int64_t last = -1;
  for (int64_t first = 0; first < size; first += kWord) {
    uint64_t above = 0, some = 0;
    for (int64_t k = first; k < std::min(size, first + kWord); k += W) {
      above |= uint64_t(greater_lanes(load(cumulative + k), target)) << (k - first);
      some |= uint64_t(greater_lanes(load(w.of + k), vec<T>{})) << (k - first);
    }
    if (some) last = first + first_above(above, some);
    if (above & some) break;
  }
  return last;
}
// The same of a few.
template <class T, size_t N>
SLV_INLINE int64_t draw(const std::array<T, N>& w, T u) {
  T sum = 0, before[N];
  for (size_t k = 0; k < N; k++) before[k] = sum, sum += w[k];
  const T target = draw_target(sum, u);
  int64_t k = -(sum > 0 ? 0 : int64_t(N));
  for (size_t q = 1; q < N; q++) k += target >= before[q];
  return std::max<int64_t>(k, -1);
}

}  // namespace
}  // namespace slv
