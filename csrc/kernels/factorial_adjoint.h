// The backward pass of the scaled linear domain: marginals and edge weights of a block from its chart (see
// factorial_scan.h).
#pragma once
#include "kernels/factorial_scan.h"

namespace slv {
namespace {

// A weight as the product of both; `common` is a power of two, applied at the end.
template <class T>
void split_weight(double weight, T& ratio, T& common) {
  const double size = std::abs(weight);
  common = size > 0 && size < 1e30 ? T(power_of_two_below(size)) : T(1);
  ratio = T(weight / double(common));
}
// Zeros from a step on: marginals, and edges step by step (or null).
template <class T>
void clear_padding(const Factorial<T>& c, int64_t item, int64_t from, T* unary, T* edges) {
  std::fill(unary + (item * c.n + from) * c.states, unary + (item + 1) * c.n * c.states, T(0));
  if (edges && c.n > 1) std::fill(edges + std::max<int64_t>(from - 1, 0) * c.edges, edges + (c.n - 1) * c.edges, T(0));
}

// One vector of beta_t.
template <class T, bool Watched>
struct LaneRetreat {
  const T *alpha, *e, *before;  // before: alpha of the step that is next
  T *g, *mu;
  vec<T> s, start, common;
  ivec<T> watch, thin{};
  SLV_INLINE void operator()(int64_t at, vec<T> sum) {
    prefetch_far(before + at);
    const vec<T> a = load(alpha + at), beta = sum + start;
    vec<T> x = load(e + at) * (beta * s), p = beta * a;
    if constexpr (Watched) {
      const ivec<T> live = (a > T(0)) | ~watch;
      x = live ? x : vec<T>{};
      p = live ? p : vec<T>{};
      thin |= live & watch & (beta != T(0)) & (vmax(x, -x) < Range<T>::tiny);
    }
    store(g + at, x);
    store(mu + at, p * common);
  }
};

template <class In, class T>
struct LaneAdjoint {
  static constexpr int W = kWidth<T>;
  static constexpr int64_t kChunk = 32;  // steps whose edges are added up in T
  LaneScan<In, T>& f;                    // with a chart, and inverse[]
  const int rows;
  const int64_t states, size, edges;
  In* unary;             // (batch, n, S)
  In* const* edge_rows;  // of each row: (P), or (n-1, P) where they are wanted step by step
  const bool per_step;
  T *g[2] = {}, *mu = nullptr;
  double* sums = nullptr;
  vec<T> ratio{}, common{};  // of each lane: see split_weight
  bool skip[W] = {}, bad[W] = {};

  LaneAdjoint(LaneScan<In, T>& f, In* unary, In* const* edge_rows, bool per_step)
      : f(f),
        rows(f.rows),
        states(f.states),
        size(f.size),
        edges(f.c.edges),
        unary(unary),
        edge_rows(edge_rows),
        per_step(per_step) {}
  static int64_t whole_rows(int64_t states) { return (states + W - 1) / W * W; }
  static int64_t scratch(const Factorial<In>& c) {
    return 2 * Scratch::bytes<T>(c.states * W) + Scratch::bytes<T>(whole_rows(c.states) * W) +
           Scratch::bytes<T>(c.edges * W) + Scratch::bytes<double>(c.edges * W);
  }
  void bind(Scratch& s) {
    for (T*& x : g) x = s.take<T>(size);
    mu = s.take<T>(whole_rows(states) * W);
    f.move.counts = s.take<T>(edges * W);
    sums = s.take<double>(edges * W);
    std::fill(mu, mu + whole_rows(states) * W, T(0));
    std::fill(f.move.counts, f.move.counts + edges * W, T(0));
    std::fill(sums, sums + edges * W, 0.0);
  }
  void weigh(const double* weight) {
    for (int r = 0; r < W; r++) {
      T x, y;
      split_weight(r < rows ? weight[r] : 0, x, y);
      ratio[r] = x, common[r] = y;
    }
  }

  template <bool Watched>
  void backward() {
    ivec<T> thin{};
    vec<T> seed{};
    const bool stream = streams();
    for (int r = 0; r < rows; r++) seed[r] = skip[r] ? T(0) : ratio[r] * f.inverse[r];
    for (int64_t t = f.steps - 1; t >= 0; t--) {
      f.unpack(t);
      f.template exponentiate<false>(t, f.e, -1);
      vec<T> start{};
      for (int r = 0; r < rows; r++) start[r] = f.len[r] - 1 == t ? seed[r] : T(0);
      const vec<T> s = load_n<T>(f.chart.scales + t * rows, rows, T(1));
      LaneRetreat<T, Watched> next{f.alpha(t), f.e,    f.alpha(t > 0 ? t - 1 : 0), g[t % 2], mu, s, start,
                                   common,     f.watch};
      if (t == f.steps - 1)
        for (int64_t at = 0; at < size; at += W) next(at, vec<T>{});
      else
        f.move.backward(0, 1, f.alpha(t), g[(t + 1) % 2], next);
      thin |= next.thin;
      scatter(t, stream);
      if (t % kChunk == 0) renew(t);
      if (per_step && t + 1 < f.steps) write_edges(t);
      if (per_step || t % kChunk == 0) collect();
    }
    for (int r = 0; Watched && r < rows; r++)
      if (thin[r] && !skip[r]) bad[r] = true;
  }
  void run_backward() {
    FlushDenormals flush;
    f.watched ? backward<true>() : backward<false>();
    if (streams()) finish_streams();
    for (int r = 0; r < rows; r++) skip[r] = skip[r] || bad[r];
    deliver();
  }

  // Whether mu is written past the cache: it is large, and in whole lines.
  bool streams() const {
    constexpr double kLarge = 4e6;  // bytes
    return rows == W && states % W == 0 && reinterpret_cast<uintptr_t>(unary) % kVectorBytes == 0 &&
           double(f.c.batch) * double(f.c.n) * double(states) * sizeof(In) > kLarge;
  }
  // mu to the rows of the items
  void scatter(int64_t t, bool stream) const {
    In* out[W];
    for (int r = 0; r < rows; r++) out[r] = unary + (f.items[r] * f.c.n + t) * states;
    for (int64_t z = 0; z < states; z += W) {
      const int n = int(std::min<int64_t>(W, states - z));
      vec<T> x[W];
#pragma GCC unroll 16
      for (int q = 0; q < W; q++) x[q] = load(mu + (z + q) * W);
      transpose_lanes<T, W / 2>(x);
      if (std::is_same_v<In, T> && stream) {
#pragma GCC unroll 16
        for (int r = 0; r < W; r++) store_stream<T>(reinterpret_cast<T*>(out[r] + z), x[r]);
      } else if (n == W && rows == W) {
#pragma GCC unroll 16
        for (int r = 0; r < W; r++) store_as<T>(out[r] + z, x[r], W);
      } else {
        for (int r = 0; r < rows; r++) store_as<T>(out[r] + z, x[r], n);
      }
    }
  }
  // Rounding makes the weights of a step drift from the item's weight as a random walk: set right once a chunk.
  void renew(int64_t t) {
    double total[W];
    lane_sums(mu, states, total);
    vec<T> factor = splat(T(1));
    for (int r = 0; r < rows; r++) {
      const double x = double(ratio[r]) * double(common[r]) / total[r];
      if (std::abs(x - 1) < 0.01) factor[r] = T(x);
    }
    for (int64_t at = 0; at < size; at += W) store(g[t % 2] + at, load(g[t % 2] + at) * factor);
  }
  // The counts of this chunk: added up, and begun anew.
  void collect() {
    T* counts = f.move.counts;
    for (int64_t i = 0; i < edges * W; i++) sums[i] += double(counts[i]);
    std::fill(counts, counts + edges * W, T(0));
  }
  void write_edges(int64_t t) const {
    for (int r = 0; r < rows; r++)
      for (int64_t e = 0; e < edges; e++)
        edge_rows[r][t * edges + e] = In(f.move.counts[e * W + r] * f.a.at(e, r) * common[r]);
  }
  // After the pass: the sums where they belong, and zeros in the padding.
  void deliver() const {
    for (int r = 0; r < rows; r++) clear_padding(f.c, f.items[r], f.steps, unary, per_step ? edge_rows[r] : nullptr);
    for (int64_t e = 0; !per_step && e < edges; e++)
      for (int r = 0; r < rows; r++) edge_rows[r][e] = In(sums[e * W + r] * double(f.a.at(e, r)) * double(common[r]));
  }
};

}  // namespace
}  // namespace slv
