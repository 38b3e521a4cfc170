// The backward pass of the scaled linear domain: marginals and edge weights of a block from its chart (see
// chain_scan.h).
#pragma once
#include "kernels/chain_scan.h"

namespace slv {
namespace {

// The weights of a block's rows, as a common size, applied at the end, and ratios; a row of much smaller weight would
// lose range, so it is skipped, and redone.
template <class T>
struct RowWeights {
  T ratio[kMaxRows], common = 1;
  bool skip[kMaxRows] = {};
  void weigh(const double* weight, int rows) {
    double most = 0;
    for (int r = 0; r < rows; r++) most = std::max(most, std::abs(weight[r]));
    common = most > 0 && most < 1e30 ? T(power_of_two_below(most)) : T(1);
    for (int r = 0; r < rows; r++) {
      ratio[r] = T(weight[r] / double(common));
      if (ratio[r] != 0 && std::abs(ratio[r]) < T(sizeof(T) == 4 ? 1e-6 : 1e-30)) skip[r] = true;
    }
  }
};

template <class In, class T>
struct Adjoint : RowWeights<T> {
  using RowWeights<T>::ratio, RowWeights<T>::common, RowWeights<T>::skip;
  static constexpr int W = kWidth<T>;
  const Scan<In, T>& f;  // with a saved chart, and inverse[]
  const int rows;
  const int64_t k, panels, panel, step;
  In* unary;  // (batch, n, k)
  BlockEdges<In> edges;
  const int64_t chunk;  // steps whose outer products are formed together: t = 0.. chunk-1, and so on
  T *ring = nullptr, *sums = nullptr;
  T seed[kMaxRows];
  bool bad[kMaxRows] = {};

  Adjoint(const Scan<In, T>& f, In* unary, const BlockEdges<In>& edges)
      : f(f),
        rows(f.rows),
        k(f.k),
        panels(f.panels),
        panel(f.panel),
        step(f.step),
        unary(unary),
        edges(edges),
        chunk(k >= 256 ? 16 : 32) {}
  int64_t ring_size() const { return chunk * step; }  // g of step t+1 lies in slot t % chunk
  int64_t sum_rows() const { return edges.per_item ? rows : edges.shared ? 1 : 0; }
  int64_t sums_size() const { return sum_rows() * k * panels * W; }

  template <bool Wide, bool One>
  void run() {
    const int rows = One ? 1 : this->rows;
    const int64_t panel = rows * W;
    for (int r = 0; r < rows; r++) seed[r] = skip[r] ? T(0) : ratio[r] * f.inverse[r];
    std::fill(sums, sums + sums_size(), T(0));
    ivec<T> thin[Wide ? kMaxRows : 1] = {};
    T start[kMaxRows];
    In* out[kMaxRows];
    for (int64_t t = f.steps - 1; t >= 0; t--) {
      for (int r = 0; r < rows; r++) {
        start[r] = f.len[r] - 1 == t ? seed[r] : T(0);
        out[r] = unary + (f.items[r] * f.c.n + t) * k;
      }
      const T *al = f.alpha(t), *et = f.e(t), *s = f.scale(t);
      const bool last = t == f.steps - 1;
      const T* next = ring + t % chunk * step;
      T* g = ring + (t + chunk - 1) % chunk * step;
      if (t % chunk == 0 && !last) add_edges(t, std::min(chunk, f.steps - 1 - t));
      auto each = [&](int64_t r, int64_t p, vec<T> sum) __attribute__((always_inline)) {
        const int64_t at = p * panel + r * W;
        vec<T> a = load(al + at), beta = sum + start[r], x = load(et + at) * (beta * s[r]), mu = beta * a;
        if constexpr (Wide) {
          ivec<T> live = a > T(0);
          x = live ? x : vec<T>{};
          mu = live ? mu : vec<T>{};
          thin[r] |= live & (beta != T(0)) & (vmax(x, -x) < Range<T>::tiny);
        }
        store(g + at, x);
        store_as<T>(out[r] + p * W, mu * common, int(k - p * W));
      };
      if (last) {
        for (int64_t p = 0; p < panels; p++)
          for (int r = 0; r < rows; r++) each(r, p, vec<T>{});
        continue;
      }
      multiply_rows<PlusTimes>(rows, k, next, panel, f.m.backward(), each);
      if (edges.per_step) write_edges(t, next);
      if (t % chunk == 0) renew(t, g);
    }
    for (int r = 0; Wide && r < rows; r++)
      if (any<T>(thin[r]) && !skip[r]) bad[r] = true;
  }
  // A row found out of range is left out, and the sums over rows are formed again without it.
  void run_backward() {
    FlushDenormals flush;
    const auto pass = [&]() { rows == 1 ? run<true, true>() : run<true, false>(); };
    if (f.m.mild) return rows == 1 ? run<false, true>() : run<false, false>();
    pass();
    bool again = false;
    for (int r = 0; r < rows; r++)
      if (bad[r]) skip[r] = again = true;
    if (again) pass();
  }

  // sums over `count` steps from t, a multiple of chunk, of alpha' g
  void add_edges(int64_t t, int64_t count) {
    if (edges.shared)
      return outer_sums<T>(k, {count, step, 0, rows, rows}, f.alpha(t), 2 * step, ring, sums, panels * W);
    for (int r = 0; edges.per_item && r < rows; r++)
      outer_sums<T>(k, {count, step, r, 1, rows}, f.alpha(t), 2 * step, ring, sums + r * k * panels * W, panels * W);
  }
  // Rounding makes the weights of a step drift from the item's weight as a random walk: set right once a chunk. When,
  // and in what pieces the edges are summed, depends on t alone, so that no bit depends on the batch.
  void renew(int64_t t, T* g) {
    if constexpr (std::is_same_v<In, T>)
      for (int r = 0; r < rows; r++) {
        const In* mu = unary + (f.items[r] * f.c.n + t) * k;
        vec<T> sum{};
        for (int64_t p = 0; p < panels; p++) sum += load_n<T>(mu + p * W, int(k - p * W), T(0));
        const T total = hsum<T>(sum), wanted = ratio[r] * common, factor = wanted / total;
        if (!(std::abs(factor - 1) < T(0.01))) continue;
        for (int64_t p = 0; p < panels; p++) store(g + p * panel + r * W, load(g + p * panel + r * W) * factor);
      }
  }
  void write_edges(int64_t t, const T* g) {
    for (int r = 0; r < rows; r++) {
      In* out = edges.per_step + (f.items[r] * (f.c.n - 1) + t) * k * k;
      for (int64_t i = 0; i < k; i++) {
        const T a = f.alpha(t)[i / W * panel + r * W + i % W] * common;
        for (int64_t p = 0; p < panels; p++)
          store_as<T>(out + i * k + p * W, f.m.at(i, p) * a * load(g + p * panel + r * W), int(k - p * W));
      }
    }
  }
  // After the pass: the sums times P, where they belong, and zeros in the padding.
  void deliver() {
    for (int r = 0; r < rows; r++) {
      const int64_t b = f.items[r], n = f.c.n;
      std::fill(unary + (b * n + f.steps) * k, unary + (b + 1) * n * k, In(0));
      if (edges.per_step && n > 1)
        std::fill(edges.per_step + (b * (n - 1) + std::max<int64_t>(f.steps - 1, 0)) * k * k,
                  edges.per_step + (b + 1) * (n - 1) * k * k, In(0));
    }
    for (int q = 0; q < sum_rows(); q++)
      for (int64_t i = 0; i < k; i++)
        for (int64_t p = 0; p < panels; p++) {
          vec<T> v = load(sums + (q * k + i) * panels * W + p * W) * f.m.at(i, p) * common;
          const int n = int(std::min<int64_t>(W, k - p * W));
          if (edges.per_item) {
            store_as<T>(edges.per_item + (f.items[q] * k + i) * k + p * W, v, n);
          } else {
            add_as<T>(edges.shared + i * k + p * W, v, n);
          }
        }
  }
};

}  // namespace
}  // namespace slv
