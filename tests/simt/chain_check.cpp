// The chain's kernels on small problems under the emulator, without torch.
#include "chain_problem.h"

namespace {

constexpr uint64_t kSeed = 0x1234567890abcdef;
constexpr int kSamples = 3;

template <class T>
struct Check : Problem<T> {
  using P = Problem<T>;
  using P::o, P::b, P::c, P::weight, P::chain, P::scores, P::zeros, P::add, P::gradient, P::finish, P::compare,
      P::ranges, P::v_unary, P::v_transition, P::v_initial, P::v_final;
  using typename P::Gradient, typename P::Sums;
  static constexpr bool kDouble = sizeof(T) == 8;
  static constexpr double nats = kDouble ? 1e-10 : 2e-6, probability = kDouble ? 1e-10 : 2e-5;

  explicit Check(const Case& o) : P(o) {}
  void run() {
    Workspace<T> w(*this);
    const Scaled<T>& s = w.s;
    const int64_t part = (b + 1) / 2 * o.n * o.k;
    prepare_matrices(c, s, nullptr);
    exponentiate_rows(c, s, nullptr);
    forward(c, s, nullptr);
    ranges(w.meta.data() + 1, kMeta,
           [&](const auto& l) { log_forward(c, l, w.log_z.data(), w.narrow.data(), nullptr); });

    std::vector<Posterior> exact;
    Sums first = zeros();
    // NaN would send an item to log space, which would hide what went wrong
    for (int64_t i = 0; i < b && o.scale < 5; i++)
      require(w.meta[i * kMeta + 1] == T(0), "an item left the scaled domain, forward");
    for (int64_t i = 0; i < b; i++) {
      exact.push_back(posterior(scores(i)));
      close(w.log_z[i], exact[i].log_z, nats, "log Z", i);
      close(w.narrow[i], exact[i].log_z, 2e-6, "narrow log Z", i);
      add(first, i, weight[i], exact[i]);
    }

    Gradient d = gradient();
    Adjoint<T> a{weight.data(), w.g.data(), d.unary.data(), w.redo.data()};
    backward(c, s, a, nullptr);
    for (int64_t i = 0; i < b && o.scale < 5; i++)
      require(w.redo[i] == T(0), "an item left the scaled domain, backward");
    edges(c, s, a, d.sums, nullptr);
    ranges(w.redo.data(), 1, [&](const auto& l) {
      log_forward<T>(c, l, nullptr, nullptr, nullptr);
      log_backward(c, l, weight.data(), d.unary.data(), nullptr);
      log_edges(c, l, d.sums, weight.data(), nullptr);
    });
    finish(d);
    compare(d, first, probability, "gradient");

    // second order: the difference of exact marginals moved along v and against it
    Gradient h = gradient();
    std::memset(h.partial.data(), 0, h.partial.size() * sizeof(double));
    std::memset(static_cast<void*>(h.edges.data()), 0, h.edges.size() * sizeof(T));
    Guarded<double> prefix(part), suffix(part), mean(b);
    Guarded<T> mean_narrow(b);
    const Chain<T> v = chain(v_unary, v_transition, v_initial, v_final);
    ranges(nullptr, 1, [&](const auto& l) {
      const Tangent<T> t{v.unary,       v.transition,  v.initial,          v.final,       o.per_step,
                         v.matrix,      v.initial_row, v.final_row,        weight.data(), prefix.data(),
                         suffix.data(), mean.data(),   mean_narrow.data(), h.unary.data()};
      log_forward<T>(c, l, nullptr, nullptr, nullptr);
      log_backward<T>(c, l, nullptr, nullptr, nullptr);
      tangent(c, l, t, nullptr);
      tangent_edges(c, l, t, h.sums, nullptr);
    });
    finish(h);
    Sums second = zeros();
    for (int64_t i = 0; i < b; i++) {
      const double step = 1e-5;
      const Posterior up = posterior(scores(i, step)), down = posterior(scores(i, -step));
      add(second, i, weight[i] / (2 * step), up);
      add(second, i, -weight[i] / (2 * step), down);
      if (std::isfinite(up.log_z)) close(mean[i], (up.log_z - down.log_z) / (2 * step), 1e-5, "E f", i);
      close(mean_narrow[i], mean[i], 1e-6, "narrow E f", i);
    }
    compare(h, second, 1e-5, "second order");

    Guarded<int> from(b * o.n * o.k);
    Guarded<int64_t> best(b * o.n), drawn(kSamples * b * o.n);
    run_argmax(c, from.data(), best.data(), nullptr);
    run_sample(c, s, kSeed, kSamples, drawn.data(), nullptr);
    ranges(w.meta.data() + 1, kMeta, [&](const auto& l) {
      log_forward<T>(c, l, nullptr, nullptr, nullptr);
      run_log_sample(c, l, kSeed, kSamples, drawn.data(), nullptr);
    });
    auto same = [&](int64_t i, const int64_t* found, const std::vector<int64_t>& path, const char* what) {
      for (int t = 0; t < o.n; t++)
        require(found[t] == (t < int(path.size()) ? path[t] : -1), what + std::string(" of item ") + std::to_string(i));
    };
    for (int64_t i = 0; i < b; i++) {
      same(i, best.data() + i * o.n, best_path(scores(i)), "best path");
      for (int q = 0; q < kSamples; q++) {
        const bool possible = exact[i].log_z > -HUGE_VAL;
        same(i, drawn.data() + (q * b + i) * o.n,
             possible ? sample_path<T>(scores(i), exact[i], kSeed, uint32_t(i), uint32_t(q)) : std::vector<int64_t>(),
             "sample");
      }
    }
    w.check();
    for (Guarded<double>* x : {&prefix, &suffix, &mean}) x->check("workspace");
    from.check("from"), best.check("best"), drawn.check("samples");
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
    {"impossible", {4}, {4}, 5, 4, false, 0.75, 1},
    {"a warp and one", {2}, {1}, 35, 33, false, 0, 1, 1, kHopperShared, false, false},
    {"not resident", {2}, {1}, 4, 50, false, 0.1, 1, 1, 9000, false},
    {"large", {1}, {1}, 3, 136, false, 0, 1, 1, kHopperShared, false},
    {"one state", {3}, {3}, 3, 1, false, 0, 1},
};

}  // namespace

int main(int argc, char** argv) {
  return check_kernels(
      "chain", argc, argv, kCases, [](const Case& o, auto t) { Check<decltype(t)>(o).run(); },
      [](const Case& o) { return o.k <= 9 && o.n <= 5 && product(o.batch) <= 4; },
      [](const Case& o) { return o.shared; });
}
