// The kernels of the scaled domain: blocks of items that share a transition, and single items with one at every step.
#pragma once
#include <memory>

#include "chain_checks.h"

namespace driver {

template <class T>
struct ScaledChecks : Checks<T> {
  using Base = Checks<T>;
  using Base::Base;
  using Base::unwritten, Base::kSamples, Base::problem, Base::c, Base::n, Base::k, Base::kk, Base::steps, Base::batch,
      Base::parts, Base::answers, Base::probability, Base::nats, Base::len, Base::weight_of, Base::summed_edges,
      Base::check_log_z, Base::check_weights, Base::check_path, Base::check_best, Base::check_sample;

  void run() {
    for (int64_t m = 0; !c.per_step && m < problem.spec.matrices; m++) scan(m);
    for (int64_t b = 0; c.per_step && b < batch; b++) dense(b);
  }

  void scan(int64_t matrix) {
    const auto& kernel = Tables<T>::scan();
    std::vector<int64_t> order;
    for (int64_t b = batch - 1; b >= 0; b--)
      if (b % problem.spec.matrices == matrix) order.push_back(b);
    std::shuffle(order.begin(), order.end(), this->random);
    Exact<int64_t> items(order.size());
    std::copy(order.begin(), order.end(), items.data());
    const std::unique_ptr<void, void (*)(void*)> m(kernel.prepare(c.transition + matrix * kk, k), kernel.release);
    const int64_t rows = items.size(), per_line = 64 / sizeof(T), width = (k + per_line - 1) / per_line * per_line;
    Exact<T> chart(rows * n * 2 * width, unwritten), scales(rows * n, unwritten), meta(batch * kMeta, unwritten);
    Exact<double> log_z(batch, kNaN), again(batch, kNaN);
    const ChainChart<T> parts{chart.data(), scales.data(), meta.data()};
    kernel.forward(c, m.get(), items.data(), int(rows), parts, log_z.data());
    kernel.forward(c, m.get(), items.data(), int(rows), {}, again.data());
    for (int64_t b = 0; b < batch; b++) {
      if (b % problem.spec.matrices != matrix) {
        check(std::isnan(log_z[b]), "scan forward: another's log Z", log_z[b], kNaN);
        continue;
      }
      check_log_z("scan forward", b, log_z[b]);
      check(again[b] == log_z[b], "scan forward without a chart", again[b], log_z[b]);
    }
    for (int mode = 0; mode < 3; mode++)
      for (bool ones : {true, false}) scan_backward(m.get(), items, parts, mode, ones);
    scan_sample(m.get(), items);
    viterbi(c.transition + matrix * kk, items);
  }
  void scan_backward(void* m, const Exact<int64_t>& items, const ChainChart<T>& chart, int mode, bool ones) {
    constexpr const char* kModes[] = {"scan backward, shared", "scan backward, per item", "scan backward, per step"};
    Exact<double> weights(ones ? 0 : batch), shared(mode == 0 ? kk : 0, 0.5);
    for (int64_t b = 0; b < weights.size(); b++) weights[b] = weight_of(b);
    Exact<T> unary(batch * n * k, unwritten), edges(mode == 0 ? 0 : batch * (mode == 1 ? 1 : steps) * kk, unwritten);
    const BlockEdges<T> target{shared.data(), mode == 1 ? edges.data() : nullptr, mode == 2 ? edges.data() : nullptr};
    Tables<T>::scan().backward(c, m, items.data(), int(items.size()), chart, weights.data(), unary.data(), target);
    Doubles total(kk, 0.5);
    double size = 1;
    for (int64_t r = 0; r < items.size(); r++) {
      const int64_t b = items[r];
      const double w = ones ? 1 : weight_of(b), most = double(len(b));
      check_weights(kModes[mode], unary.data() + b * n * k, n * k, answers[b].mu, w);
      if (mode == 1) check_weights(kModes[mode], edges.data() + b * kk, kk, summed_edges(b, 1, Doubles(kk)), w, most);
      if (mode == 2) check_weights(kModes[mode], edges.data() + b * steps * kk, steps * kk, answers[b].edges, w);
      total = summed_edges(b, w, std::move(total));
      size += std::abs(w) * most;
    }
    if (mode == 0) check_weights(kModes[mode], shared.data(), kk, total, 1, size);
    check(int64_t(std::count_if(unary.data(), unary.data() + unary.size(), [](T x) { return x != x; })) ==
              (batch - items.size()) * n * k,
          "scan backward: another's marginals");
  }
  void scan_sample(void* m, const Exact<int64_t>& items) {
    Exact<int64_t> states(kSamples * batch * n, -1);
    Tables<T>::scan().sample(c, m, items.data(), int(items.size()), problem.spec.seed, kSamples, states.data());
    for (int64_t s = 0; s < kSamples; s++)
      for (int64_t r = 0; r < items.size(); r++)
        check_sample("scan sample", items[r], problem.spec.seed, s, states.data() + (s * batch + items[r]) * n);
  }
  void viterbi(const T* transition, const Exact<int64_t>& items) {
    const auto& kernel = Tables<T>::scan();
    const std::unique_ptr<void, void (*)(void*)> m(kernel.viterbi_prepare(transition, k), kernel.viterbi_release);
    Exact<int64_t> states(batch * n, -7);
    kernel.viterbi(c, m.get(), items.data(), int(items.size()), states.data());
    for (int64_t r = 0; r < items.size(); r++) check_best("viterbi", items[r], states.data() + items[r] * n, nats);
  }

  // ---- scaled kernels on an item with a transition at every step ---------------------------------------------------
  void dense(int64_t b) {
    const auto& kernel = Tables<T>::dense();
    const int64_t per_line = 64 / sizeof(T), width = (k + per_line - 1) / per_line * per_line;
    Exact<T> chart(n * 2 * width, unwritten), scales(n, unwritten), meta(kMeta, unwritten);
    const double z = kernel.forward(c, b, chart.data(), scales.data(), meta.data());
    check_log_z("dense forward", b, z);
    const double again = kernel.forward(c, b, nullptr, nullptr, nullptr);
    check(again == z, "dense forward without a chart", again, z);
    for (bool direct : {true, false})
      for (bool saved : {true, false})
        for (bool stream : {false, true})
          if (n > 0) dense_backward(b, direct, stream, saved ? &chart : nullptr, scales, meta);
  }
  void dense_backward(int64_t b, bool direct, bool stream, const Exact<T>* chart, const Exact<T>& scales,
                      const Exact<T>& meta) {
    const double w = stream ? 1 : weight_of(b);
    Exact<T> unary(batch * n * k, unwritten), edges(direct ? steps * kk : 0, unwritten);
    Exact<double> sum(direct ? 0 : steps * kk, 0.0);
    const EdgeSink<T> sink{edges.data(), sum.data(), direct ? 0 : kk};
    Tables<T>::dense().backward(c, b, w, chart ? chart->data() : nullptr, chart ? scales.data() : nullptr,
                                chart ? meta.data() : nullptr, unary.data(), sink, stream);
    check_weights("dense backward", unary.data() + b * n * k, n * k, answers[b].mu, w);
    if (direct) check_weights("dense backward, edges", edges.data(), steps * kk, answers[b].edges, w);
    if (!direct) check_weights("dense backward, sums of edges", sum.data(), steps * kk, answers[b].edges, w);
  }
};

}  // namespace driver
