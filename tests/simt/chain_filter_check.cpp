// The kernels of filtering and relaxed sampling on small problems under the emulator, without torch.
#include "chain_problem.h"
#include "cuda/chain_filter.h"
#include "cuda/noise.h"

namespace {

constexpr uint64_t kSeed = 0x1234567890abcdef;
constexpr int kSamples = 3;

// The filtered rows of an item, and what `grad` (len, k) of them gives its unary scores and edges: the recursion of the
// forward pass in reverse.
struct Filtered {
  Doubles rows, unary, edges;
};
Filtered filtered(const Scores& s, const Doubles& grad) {
  const int k = s.k, n = s.len;
  const Posterior p = posterior(s);
  Filtered f{p.alpha, Doubles(n * k), Doubles(std::max(n - 1, 0) * k * k)};
  for (int t = n - 1; t >= 0; t--) {
    const double* alpha = &p.alpha[t * k];
    const double z = log_sum(Doubles(alpha, alpha + k));
    double total = 0;
    for (int i = 0; i < k; i++) total += grad[t * k + i];
    for (int i = 0; i < k; i++) {
      if (!(alpha[i] > -HUGE_VAL)) continue;
      f.rows[t * k + i] = alpha[i] - z;
      double sum = grad[t * k + i] - std::exp(alpha[i] - z) * total;
      for (int j = 0; t + 1 < n && j < k; j++) {
        const double next = p.alpha[(t + 1) * k + j] - s.unary(t + 1, j);  // nan where nothing leads to j
        const double edge = f.unary[(t + 1) * k + j] * std::exp(alpha[i] + s.edge(t, i, j) - next);
        if (!(f.unary[(t + 1) * k + j] != 0)) continue;
        f.edges[(t * k + i) * k + j] = edge, sum += edge;
      }
      f.unary[t * k + i] = sum;
    }
  }
  return f;
}

template <class T>
struct Check : Problem<T> {
  using P = Problem<T>;
  using P::o, P::b, P::c, P::rows, P::steps, P::kk, P::random, P::transition, P::final, P::scores, P::zeros,
      P::gradient, P::finish, P::compare, P::ranges, P::len, P::initial;
  using typename P::Gradient, typename P::Sums;
  static constexpr bool kDouble = sizeof(T) == 8;
  static constexpr double nats = kDouble ? 1e-10 : 4e-6, probability = kDouble ? 1e-10 : 2e-5;
  Guarded<T> grad, out;

  explicit Check(const Case& o) : P(o), grad(::draw(random, b * o.n * o.k, 0, 1)), out(b * o.n * o.k) {}

  // The sums that an item's gradients are part of.
  void add(Sums& s, int64_t item, const Doubles& unary, const Doubles& edges) {
    const int n = len(item), k = o.k;
    const int64_t row = c.matrix.row(item);
    for (int e = 0; e < n * k; e++) s.unary[item * o.n * k + e] += unary[e];
    for (size_t e = 0; e < edges.size(); e++) s.edges[row * steps * kk + (o.per_step ? e : e % kk)] += edges[e];
    for (int i = 0; n > 0 && i < k; i++) {
      s.initial[row * k + i] += unary[i];
      s.final[item * k + i] += unary[(n - 1) * k + i];
    }
  }
  // Filtering into `out`, and the gradient of <grad, out> into `d`.
  void filter_and_back(Gradient& d) {
    Workspace<T> w(*this);
    const Scaled<T>& s = w.s;
    prepare_matrices(c, s, nullptr);
    exponentiate_rows(c, s, nullptr);
    forward(c, s, uncut(c), nullptr);
    run_filter(c, s, out.data(), nullptr);
    ranges(w.meta.data() + 1, kMeta, [&](const auto& l) {
      log_forward<T>(c, l, nullptr, nullptr, nullptr);
      log_filter<T>(c, l, nullptr, out.data(), nullptr);
    });
    // NaN would send an item to log space, which would hide what went wrong
    for (int64_t i = 0; i < b && o.scale < 5; i++) require(w.meta[i * kMeta + 1] == T(0), "an item left its domain");

    const Adjoint<T> a{nullptr, w.g.data(), d.unary.data(), w.redo.data()};
    filter_cotangent(c, s, grad.data(), w.g.data(), nullptr);
    filter_backward(c, s, a, nullptr);
    edges(c, s, a, d.sums, nullptr);
    ranges(w.redo.data(), 1, [&](const auto& l) {
      log_forward<T>(c, l, nullptr, nullptr, nullptr);
      log_filter<T>(c, l, grad.data(), nullptr, nullptr);
      log_filter_backward(c, l, d.unary.data(), nullptr);
      log_edges<T>(c, l, d.sums, nullptr, nullptr);
    });
    w.check();
  }

  void run() {
    const T* final_scores = c.final;
    c.final = nullptr;
    Gradient d = gradient();
    filter_and_back(d);
    Sums expected = zeros();
    for (int64_t i = 0; i < b; i++) {
      const int n = len(i) * o.k;
      const Doubles g(grad.data() + i * o.n * o.k, grad.data() + i * o.n * o.k + n);
      Scores without = scores(i);
      const int64_t row = c.matrix.row(i);
      without.unary = [&, i, row](int t, int s) {
        return double(this->unary[(i * o.n + t) * o.k + s]) + (o.ends && t == 0 ? double(initial[row * o.k + s]) : 0);
      };
      const Filtered f = filtered(without, g);
      for (int e = 0; e < o.n * o.k; e++)
        close(out[i * o.n * o.k + e], e < n ? f.rows[e] : -HUGE_VAL, nats, "filtered", i * o.n * o.k + e);
      add(expected, i, f.unary, f.edges);
    }
    Gradient first = gradient();
    std::memcpy(static_cast<void*>(first.partial.data()), d.partial.data(), d.partial.size() * sizeof(double));
    if (d.sums.direct) std::memcpy(static_cast<void*>(first.edges.data()), d.edges.data(), d.edges.size() * sizeof(T));
    std::memcpy(static_cast<void*>(first.unary.data()), d.unary.data(), d.unary.size() * sizeof(T));
    finish(first);
    compare(first, expected, probability, "gradient of filtering");

    c.unary = out.data(), c.initial = nullptr, c.final = final_scores;
    relax(d, expected);
    out.check("filtered"), grad.check("grad");
  }

  // Relaxed samples of the chain of filtered scores; their gradient is added to the edges of `d`.
  void relax(Gradient& d, Sums& expected) {
    const int k = o.k;
    const int64_t size = int64_t(o.n) * k, all = kSamples * b * size;
    Guarded<T> weights(all), change(all), heat(b), temperature(b), columns(o.per_step ? 0 : rows * kk);
    Guarded<T> back(::draw(random, all, 0, 1));
    Guarded<int64_t> states(kSamples * b * o.n);
    Guarded<double> warm(b * o.n);
    for (int64_t i = 0; i < b; i++) temperature.data()[i] = T(0.5 + 0.25 * double(i % 3));
    for (int64_t e = 0; e < columns.size(); e++) {
      const int64_t m = e / kk, j = e / k % k, i = e % k;
      columns.data()[e] = transition[m * kk + i * k + j];
    }
    run_gumbel(Noise{kSeed, b, kSamples, size, size, 0, 1}, weights.data(), nullptr);
    const Relaxed<T> r{temperature.data(), kSamples, states.data(), weights.data()};
    run_relaxed(c, o.per_step ? nullptr : columns.data(), r, nullptr);

    Guarded<T> unary(b * size);
    const RelaxedAdjoint<T> a{back.data(), change.data(), unary.data(), warm.data(), heat.data()};
    relaxed_backward(c, r, a, nullptr);
    relaxed_edges(c, r, a, d.sums, nullptr);
    std::memcpy(static_cast<void*>(d.unary.data()), unary.data(), d.unary.size() * sizeof(T));
    finish(d);

    Sums only = zeros();
    only.edges = expected.edges;
    for (int64_t i = 0; i < b; i++) {
      double warmth = 0;
      for (int q = 0; q < kSamples; q++) {
        Doubles own(len(i) * k), edges(std::max(len(i) - 1, 0) * kk);
        one_sample(i, q, r, back, own, edges, warmth);
        add(only, i, own, edges);
      }
      close(heat[i], warmth, 10 * probability, "temperature", i);
    }
    compare(d, only, probability, "gradient of relaxed samples");
    for (Guarded<T>* x : {&weights, &change, &heat, &columns, &unary}) x->check("relaxed samples");
    states.check("states"), warm.check("temperature");
  }
  // A sample, and what comes back from it.
  void one_sample(int64_t item, int q, const Relaxed<T>& r, Guarded<T>& back, Doubles& own, Doubles& edges,
                  double& warmth) {
    const int k = o.k, n = len(item);
    const int64_t unit = q * b + item, at = unit * o.n * k;
    const Scores s = scores(item);
    const double heat = double(r.temperature[item]);
    slv::Draws<1> draw{kSeed, {uint32_t(item)}, {uint32_t(q)}, 3};
    int next = -1;
    bool possible = true;
    for (int t = o.n - 1; t >= 0; t--) {
      Doubles y(k);
      int best = -1;
      for (int i = 0; t < n && i < k; i++) {
        const double noise = -std::log(-std::log((double(*draw(int64_t(t) * k + i)) + 0.5) * 0x1p-32));
        y[i] = double(out[(item * o.n + t) * k + i]) + noise;
        if (t + 1 < n && next >= 0) y[i] += s.edge(t, i, next);
        if (t + 1 == n && c.final) y[i] += double(final[item * k + i]);
        if (y[i] > -HUGE_VAL && (best < 0 || y[i] > y[best])) best = i;
      }
      possible = t >= n || (possible && best >= 0);
      const int drawn = t < n && possible ? best : -1;
      require(r.states[unit * o.n + t] == drawn, "state of item " + std::to_string(item));
      double sum = 0, mean = 0;
      for (int i = 0; drawn >= 0 && i < k; i++) sum += std::exp((y[i] - y[best]) / heat);
      Doubles w(k);
      for (int i = 0; i < k; i++) {
        w[i] = drawn >= 0 ? std::exp((y[i] - y[best]) / heat) / sum : 0;
        close(r.weights[at + t * k + i], w[i], probability, "weight", at + t * k + i);
        mean += w[i] * double(back[at + t * k + i]);
      }
      for (int i = 0; drawn >= 0 && i < k; i++) {
        const double change = w[i] * (double(back[at + t * k + i]) - mean) / heat;
        own[t * k + i] = change;
        if (w[i] > 0) warmth -= change * std::log(w[i]);
        if (t + 1 < n) edges[(int64_t(t) * k + i) * k + next] += change;
      }
      next = drawn;
    }
  }
};

const Case kCases[] = {
    {"partly shared", {2, 3}, {2, 1}, 5, 5, false, 0, 1, 2},
    {"shared", {9}, {1}, 4, 3, false, 0, 1, 3},
    {"holes", {4}, {4}, 6, 9, false, 0.25, 1},
    {"per step", {4}, {4}, 4, 9, true, 0.2, 1},
    {"per step shared", {4}, {1}, 3, 34, true, 0, 1, 2, kHopperShared, true, false},
    {"long", {3}, {1}, 70, 6, false, 0, 0.5, 1, kHopperShared, false},
    {"on the brink", {9}, {1}, 12, 20, false, 0.1, 9, 2},
    {"log space", {5}, {1}, 5, 7, false, 0.1, 60, 2},
    {"log space per step", {4}, {4}, 5, 6, true, 0.1, 60},
    {"log space, large", {2}, {1}, 3, 70, false, 0, 40, 1, kHopperShared, false},
    {"far apart", {24}, {1}, 5, 7, false, 0.1, 3000},
    {"impossible", {4}, {4}, 5, 4, false, 0.75, 1},
    {"a warp and one", {2}, {1}, 35, 33, false, 0, 1, 1, kHopperShared, false, false},
    {"not resident", {2}, {1}, 3, 136, false, 0.1, 1, 1, 70000, false},
    {"one state", {3}, {3}, 3, 1, false, 0, 1},
#if defined(SLV_PTX)  // rows begin at sectors: what ptx/ counts of accesses to memory, it counts of these
    {"aligned", {2}, {1}, 3, 64, false, 0, 1, 1, kHopperShared, false},
    {"aligned, per step", {2}, {2}, 3, 64, true, 0, 1, 1, kHopperShared, false},
    {"aligned, log space", {2}, {1}, 3, 64, false, 0, 60, 1, kHopperShared, false},
#endif
};

}  // namespace

int main(int argc, char** argv) {
  return check_kernels(
      "chain_filter", argc, argv, kCases, [](const Case& o, auto t) { Check<decltype(t)>(o).run(); },
      [](const Case& o) { return o.k <= 9 && o.n <= 12 && product(o.batch) <= 9; },
      [](const Case& o) { return o.shared; });
}
