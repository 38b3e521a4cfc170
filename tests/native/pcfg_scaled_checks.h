// The ladder of the PCFG: blocks of sentences that share their rules.
#pragma once
#include "pcfg_checks.h"

namespace driver {

template <class T>
struct PcfgScaledChecks : PcfgChecks<T> {
  using Base = PcfgChecks<T>;
  using Base::Base;
  using Base::unwritten, Base::problem, Base::g, Base::n, Base::nt, Base::t, Base::s, Base::rows, Base::trees,
      Base::answers, Base::tolerance, Base::compare, Base::padded_spans, Base::padded_unary, Base::tree_score;

  static const auto& kernel() {
    if constexpr (sizeof(T) == 4)
      return pcfg_scans().f32;
    else
      return pcfg_scans().f64;
  }
  void run() {
    Exact<int64_t> all(problem.spec.batch);
    for (int64_t b = 0; b < all.size(); b++) all[b] = all.size() - 1 - b;
    if (problem.spec.shared) return block(all);
    for (int64_t b = 0; b < all.size(); b++) {
      Exact<int64_t> one(1);
      one[0] = b;
      block(one);
    }
  }

  void block(const Exact<int64_t>& items) {
    const int64_t count = items.size(), batch = problem.spec.batch;
    Exact<T> chart(count * pcfg_chart_size<T>(n, nt, t), unwritten);
    Exact<double> log_z(batch, kNaN), again(batch, kNaN);
    kernel().forward(g, items.data(), count, chart.data(), log_z.data());
    kernel().forward(g, items.data(), count, nullptr, again.data());
    for (int64_t q = 0; q < count; q++) {
      const double z = log_z[items[q]], expected = answers[items[q]].log_z;
      check(near(z, expected, tolerance, std::max(1.0, std::abs(expected))), "scaled log partition", z, expected);
      check(z == again[items[q]], "scaled log partition, without a chart", again[items[q]], z);
    }
    check(std::none_of(chart.data(), chart.data() + chart.size(), [](T x) { return std::isnan(x); }), "chart: NaN");
    for (int64_t labels : {nt, int64_t(1)})
      for (bool saved : {true, false})
        for (bool add : {false, true}) backward(items, saved ? chart.data() : nullptr, labels, add);
    choices(items);
  }
  void backward(const Exact<int64_t>& items, T* chart, int64_t labels, bool add) {
    const int64_t batch = problem.spec.batch;
    Exact<T> root(batch * nt, unwritten), unary(batch * n * t, unwritten), spans(batch * n * n * labels, unwritten);
    Exact<T> rules(nt * s * s, add ? T(0.5) : unwritten);
    Exact<double> weight(batch, 0.0);
    for (int64_t b = 0; b < batch; b++) weight[b] = b == 1 ? -1e-9 : 1.5 - double(b);
    kernel().backward(g, items.data(), items.size(), chart, weight.data(),
                      {root.data(), unary.data(), spans.data(), rules.data(), labels, add, labels == 1});
    Doubles sum(nt * s * s, add ? 0.5 : 0.0);
    double most = 1;
    for (int64_t q = 0; q < items.size(); q++) {
      const int64_t b = items[q];
      const TreeAnswer& a = answers[b];
      auto part = [b](const Exact<T>& x, int64_t size) {
        return Doubles(x.data() + b * size, x.data() + (b + 1) * size);
      };
      compare("scaled: root", part(root, nt), a.root, weight[b], tolerance);
      compare("scaled: unary", part(unary, n * t), padded_unary(a.unary, 0), weight[b], tolerance);
      compare("scaled: spans", part(spans, n * n * labels), padded_spans(b, a.spans, labels, 0), weight[b], tolerance);
      for (size_t e = 0; weight[b] != 0 && e < sum.size(); e++) sum[e] += weight[b] * a.rules[e];
      most = std::max(most, std::abs(weight[b]) * double(n));
    }
    compare("scaled: rules", Doubles(rules.data(), rules.data() + rules.size()), sum, 1, tolerance * most);
    kernel().backward(g, items.data(), items.size(), chart, nullptr,
                      {root.data(), unary.data(), nullptr, nullptr, labels, false, false});
  }
  void distinct(const Exact<int64_t>& items, int64_t count) {
    const int64_t batch = problem.spec.batch, size = 3 * rows;
    Exact<int64_t> events(count * batch * size, -7), best(count * size, -7);
    Exact<double> perturbed(count * batch, kNaN);
    kernel().sample_distinct(g, items.data(), items.size(), problem.spec.seed, count,
                             {events.data(), batch * size, perturbed.data(), batch});
    for (int64_t q = 0; q < items.size(); q++) {
      const int64_t b = items[q];
      Base::kernel().topk(g, b, count, best.data(), size);
      int64_t trees = 0;
      for (int64_t r = 0; r < count && size > 0; r++) trees += best[r * size] >= 0;
      Drawn drawn(size, count);
      for (int64_t r = 0; r < count; r++) {
        std::copy_n(events.data() + (r * batch + b) * size, size, drawn.events.data() + r * size);
        drawn.perturbed[r] = perturbed[r * batch + b];
      }
      drawn.check_all("scaled, without replacement", trees);
      for (int64_t r = 0; r < trees; r++)
        check(tree_score("scaled, without replacement", b, drawn.event(r)) > -kInf, "scaled, without replacement");
    }
  }
  void choices(const Exact<int64_t>& items) {
    constexpr int64_t samples = 5;
    const int64_t batch = problem.spec.batch, size = 3 * rows;
    Exact<int64_t> best(batch * size, -7), drawn(samples * batch * size, -7);
    for (int64_t count : {1, 12}) distinct(items, count);
    kernel().argmax(g, items.data(), items.size(), best.data());
    kernel().sample(g, items.data(), items.size(), problem.spec.seed, samples, drawn.data());
    for (int64_t q = 0; q < items.size(); q++) {
      const int64_t b = items[q];
      const double expected = answers[b].best, found = tree_score("scaled argmax", b, best.data() + b * size);
      const double close = sizeof(T) == 4 ? 1e-6 : 1e-12;
      check(near(found, expected, close, std::max(1.0, std::abs(expected))), "scaled argmax", found, expected);
      for (int64_t k = 0; k < samples; k++) {
        const double x = tree_score("scaled sample", b, drawn.data() + (k * batch + b) * size);
        check((x > -kInf) == (answers[b].log_z > -kInf), "scaled sample", x, answers[b].log_z);
      }
    }
  }
};

}  // namespace driver
