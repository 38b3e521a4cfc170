// Second order, filtering and relaxed samples: the scaled kernels against those in log space.
#pragma once
#include <memory>

#include "chain_checks.h"

namespace driver {

template <class T>
struct SecondOrderChecks : Checks<T> {
  using Base = Checks<T>;
  using Base::Base;
  using Base::unwritten, Base::kSamples, Base::problem, Base::c, Base::n, Base::k, Base::kk, Base::steps, Base::batch,
      Base::len, Base::weight_of;

  void run() {
    for (int64_t m = 0; !c.per_step && m < problem.spec.matrices; m++) scan(m);
    relaxed();
  }
  void scan(int64_t matrix) {
    const auto& kernel = Tables<T>::scan();
    std::vector<int64_t> order;
    for (int64_t b = 0; b < batch; b++)
      if (b % problem.spec.matrices == matrix) order.push_back(b);
    Exact<int64_t> items(order.size());
    std::copy(order.begin(), order.end(), items.data());
    const std::unique_ptr<void, void (*)(void*)> m(kernel.prepare(c.transition + matrix * kk, k), kernel.release);
    for (int kind = 0; kind < 3; kind++) hvp(m.get(), items, kind);
    for (bool kept : {false, true}) filter(m.get(), items, kept);
  }
  static void compare(const char* what, const T* found, const T* wanted, int64_t count, double tolerance,
                      double size = 1) {
    for (int64_t i = 0; i < count; i++)
      if (std::isfinite(double(wanted[i]))) size = std::max(size, std::abs(double(wanted[i])));
    for (int64_t i = 0; i < count; i++)
      check(near(double(found[i]), double(wanted[i]), tolerance, size), what, found[i], wanted[i]);
  }
  static constexpr double kTolerance = sizeof(T) == 4 ? 2e-4 : 1e-9;

  // kind: a direction without edges, with those of all items, with those of each
  void hvp(void* m, const Exact<int64_t>& items, int kind) {
    const int64_t matrices = kind == 2 ? batch : 1;
    Exact<T> vu(batch * n * k, T(0)), vt(matrices * kk, T(0)), vi(k, T(0));
    Exact<int64_t> row(kind == 2 ? batch : 0);
    for (int64_t b = 0; b < row.size(); b++) row[b] = b;
    for (auto* x : {&vu, &vt, &vi})
      for (int64_t i = 0; i < x->size(); i++) (*x)[i] = T(std::sin(double(3 * i + kind)));
    if (kind == 0) std::fill(vt.data(), vt.data() + kk, T(0));
    const Direction<T> v{vu.data(), vt.data(), vi.data(), nullptr, 0, row.size() ? row.data() : nullptr,
                         nullptr,   nullptr};
    Exact<double> weights(batch, kNaN), edges(kk, 0.0), sum(kk, 0.0);
    for (int64_t b = 0; b < batch; b++) weights[b] = weight_of(b);
    Exact<T> mean(batch, unwritten), unary(batch * n * k, unwritten), wanted(n * k, unwritten);
    Tables<T>::scan().hvp(c, m, items.data(), int(items.size()), weights.data(), v, mean.data(), unary.data(),
                          edges.data());
    double size = 1;
    for (int64_t r = 0; r < items.size(); r++) {
      const int64_t b = items[r];
      const double expected =
          Tables<T>::log().hvp(c, b, weights[b], v, wanted.data(), EdgeSink<T>{nullptr, sum.data(), 0});
      check(near(mean[b], expected, kTolerance, std::max(1.0, std::abs(expected))), "scan hvp: mean", mean[b],
            expected);
      compare("scan hvp", unary.data() + b * n * k, wanted.data(), n * k, kTolerance,
              std::max(1.0, std::abs(weights[b])));
      size = std::max(size, std::abs(weights[b]) * double(len(b)));
    }
    for (int64_t e = 0; e < kk; e++)
      check(near(edges[e], sum[e], kTolerance, size * double(len(items.size() ? items[0] : 0) + 1)), "scan hvp: edges",
            edges[e], sum[e]);
  }
  void filter(void* m, const Exact<int64_t>& items, bool kept) {
    const int64_t rows = kept ? items.size() : 0, per_line = 64 / sizeof(T),
                  width = (k + per_line - 1) / per_line * per_line;
    Exact<T> states(rows * n * 2 * width, unwritten), scales(rows * n, unwritten), meta(batch * kMeta, unwritten);
    const ChainChart<T> chart = kept ? ChainChart<T>{states.data(), scales.data(), meta.data()} : ChainChart<T>{};
    Exact<T> found(batch * n * k, unwritten), wanted(n * k, unwritten), grad(batch * n * k, T(0));
    Exact<T> unary(batch * n * k, unwritten), pulled(n * k, unwritten);
    Exact<double> edges(kk, 0.0), sum(kk, 0.0);
    for (int64_t i = 0; i < grad.size(); i++) grad[i] = T(std::cos(double(i)));
    const auto& kernel = Tables<T>::scan();
    kernel.filter(c, m, items.data(), int(items.size()), chart, found.data());
    kernel.filter_vjp(c, m, items.data(), int(items.size()), chart, grad.data(), unary.data(), edges.data());
    for (int64_t r = 0; r < items.size(); r++) {
      const int64_t b = items[r];
      Tables<T>::log().filter(c, b, wanted.data());
      for (int64_t i = 0; i < n * k; i++)
        check(near(found[b * n * k + i], wanted[i], sizeof(T) == 4 ? 1e-5 : 1e-9,
                   std::max(1.0, std::abs(double(wanted[i])))),
              "scan filter", found[b * n * k + i], wanted[i]);
      Tables<T>::log().filter_vjp(c, b, grad.data(), pulled.data(), EdgeSink<T>{nullptr, sum.data(), 0});
      compare("scan filter, gradient", unary.data() + b * n * k, pulled.data(), n * k, 10 * kTolerance);
    }
    for (int64_t e = 0; e < kk; e++)
      check(near(edges[e], sum[e], 10 * kTolerance, double(1 + n * items.size())), "scan filter, edges", edges[e],
            sum[e]);
  }

  void relaxed() {
    const auto& kernel = Tables<T>::relaxed();
    Exact<T> filtered(batch * n * k, unwritten);
    for (int64_t b = 0; b < batch; b++) Tables<T>::log().filter(c, b, filtered.data() + b * n * k);
    Chain<T> own = c;
    own.unary = filtered.data(), own.initial = nullptr;
    const int64_t edge = c.steps() * kk, matrices = c.matrix ? problem.spec.matrices : 1;
    Exact<T> columns(matrices * edge, unwritten), soft(n * k, unwritten), grad(n * k, T(0));
    for (int64_t m = 0; m < matrices; m++)
      kernel.columns(c.transition + m * edge, c.steps(), k, columns.data() + m * edge);
    for (int64_t i = 0; i < grad.size(); i++) grad[i] = T(std::cos(double(i)));
    for (int64_t b = 0; b < batch; b++) {
      Exact<int64_t> states(n, -7);
      kernel.sample(own, b, problem.spec.seed, 1, T(0.7), columns.data() + (c.matrix ? c.matrix[b] : 0) * edge,
                    states.data(), soft.data());
      for (int64_t t = 0; t < n; t++) {
        double total = 0;
        int64_t best = -1;
        for (int64_t i = 0; i < k; i++) {
          total += soft[t * k + i];
          if (best < 0 || soft[t * k + i] > soft[t * k + best]) best = i;
        }
        check(states[t] < 0 ? total == 0 : near(total, 1, 1e-5, 1) && soft[t * k + states[t]] == soft[t * k + best],
              "relaxed sample", total, double(states[t]));
      }
      pairs(soft);
      Exact<T> unary(n * k, unwritten);
      Exact<double> edges(edge, 0.0), last(c.final ? k : 0, 0.0);
      const double heat = kernel.vjp(own, b, T(0.7), grad.data(), states.data(), soft.data(), true, unary.data(),
                                     edges.data(), c.final ? last.data() : nullptr);
      check(std::isfinite(heat), "relaxed sample: temperature", heat);
      for (int64_t i = 0; i < n * k; i++) check(std::isfinite(double(unary[i])), "relaxed sample: gradient", unary[i]);
    }
  }
  void pairs(const Exact<T>& soft) {
    Exact<T> found(kk, unwritten);
    Tables<T>::relaxed().pairs(soft.data(), n, k, found.data());
    for (int64_t i = 0; i < k; i++)
      for (int64_t j = 0; j < k; j++) {
        double wanted = 0;
        for (int64_t t = 0; t + 1 < n; t++) wanted += double(soft[t * k + i]) * double(soft[(t + 1) * k + j]);
        check(near(found[i * k + j], wanted, 1e-5, double(n + 1)), "pairs of states", found[i * k + j], wanted);
      }
  }
};

}  // namespace driver
