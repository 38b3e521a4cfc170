// The PCFG's kernels on small problems under the emulator, without torch.
#include "driver.h"
#include "pcfg_draws.h"
#include "pcfg_scaled.h"

namespace {

template <class T>
struct Check : Problem<T> {
  // Sums are formed in float64: a float32 result is rounded once.
  static constexpr bool kDouble = sizeof(T) == 8;
  static constexpr double nats = 1e-10, narrow = kDouble ? nats : 1e-7, probability = kDouble ? 1e-9 : 1e-6;
  static constexpr int kSamples = 3;
  static constexpr uint64_t kSeed = (uint64_t(1) << 40) + 7;
  using Base = Problem<T>;
  using Base::Base, Base::o, Base::b, Base::g, Base::scores;

  // Log space.
  void run(const std::vector<TreePosterior>& exact) {
    Guarded<double> inside(b * g.spans_of_item() * o.nt), log_z(b);
    Guarded<T> log_z_narrow(b);
    this->log_inside(g, inside.data());
    run_finish<T>(g, inside.data(), log_z.data(), log_z_narrow.data(), nullptr);
    for (int64_t i = 0; i < b; i++) {
      close(log_z[i], exact[i].log_z, nats, "log Z", i);
      close(log_z_narrow[i], exact[i].log_z, narrow, "narrow log Z", i);
    }
    typename Base::Weights out(*this);
    this->log_outside(g, inside.data(), out);
    this->compare(exact, out, probability);
    inside.check("inside"), log_z.check("log Z"), log_z_narrow.check("narrow log Z");
  }

  // Second order, in log space.
  void covariances() {
    typename Base::Direction v(*this);
    Guarded<double> inside(b * g.spans_of_item() * o.nt), mean(b);
    Guarded<T> mean_narrow(b);
    typename Base::Weights out(*this);
    this->log_tangent(v.g, inside.data(), out, mean.data(), mean_narrow.data());
    std::vector<TreePosterior> exact;
    for (int64_t i = 0; i < b; i++) {
      exact.push_back(tree_covariances(scores(i), scores(v.g, i)));
      close(mean[i], exact[i].log_z, probability, "E f", i);
      close(mean_narrow[i], exact[i].log_z, probability, "narrow E f", i);
    }
    this->compare(exact, out, probability);
    mean.check("E f"), mean_narrow.check("narrow E f");
  }

  // The best tree; and samples, in two ranges.
  void trees() {
    const int64_t nodes = b * g.spans_of_item() * o.nt, size = 3 * (2 * o.n - 1);
    Guarded<double> best(nodes), inside(nodes), pairs(b * (o.n - 1) * g.pairs()), memory(2 * b * g.alternatives());
    for (int w = 2; w <= o.n; w++) {
      run_best(g, {best.data(), 0, b, pairs.data()}, w, nullptr);
      run_inside(g, {inside.data(), 0, b, pairs.data()}, w, nullptr);
    }
    Guarded<int64_t> found(b * size), drawn(kSamples * b * size);
    run_argmax(g, best.data(), found.data(), nullptr);
    for (int first = 0; first < kSamples; first += 2)
      run_sample(g, inside.data(), kSeed, first, std::min(2, kSamples - first), memory.data(), drawn.data(), nullptr);
    for (int64_t item = 0; item < b; item++) {
      const TreeScores x = scores(item);
      const TreeInside in = tree_inside(x);
      same_tree(found.data() + item * size, best_tree(o.n, x), "best tree", item);
      for (int64_t k = 0; k < kSamples; k++)
        same_tree(drawn.data() + (k * b + item) * size, sampled_tree<T>(o.n, x, in, {kSeed, item, k}), "sample", item);
    }
    found.check("best trees"), drawn.check("samples"), memory.check("memory");
  }
};

const Case kCases[] = {
    {"smallest", {2}, {1}, 4, 2, 2, 0, 1, 2, false},
    {"small", {4}, {4}, 5, 2, 3, 0, 1},
    {"shared", {5}, {1}, 4, 3, 2, 0, 1, 3},
    {"partly shared", {2, 3}, {2, 1}, 5, 2, 2, 0.1, 1},
    {"no spans", {3}, {1}, 6, 3, 4, 0, 1, 0, false},
    {"one symbol each", {3}, {3}, 6, 1, 1, 0, 1, 1, false},
    {"a word and none", {5}, {1}, 2, 2, 2, 0, 1},
    {"holes", {4}, {4}, 5, 3, 3, 0.3, 1, 3},
    {"all equal", {2}, {1}, 5, 3, 2, 0, 0, 1, false},
    {"equals in two rounds of a warp", {1}, {1}, 4, 6, 1, 0, 0, 0, false, true},
    {"impossible", {4}, {4}, 4, 2, 2, 0.8, 1},
    {"large scores", {3}, {3}, 5, 3, 3, 0.1, 300, 3, false, false, 1, 0, false, 1},
    {"huge scores", {2, 2}, {2, 1}, 3, 2, 2, 0.05, 1e7, 1, true, false, 1, 0, false, 1},
    {"one heavy item", {4}, {1}, 5, 3, 3, 0.1, 1, 1, false, false, 1000, 0, false, 1},
    {"heavy words, all possible", {3}, {1}, 6, 3, 4, 0, 1, 1, false, false, 1000},
    {"a dear symbol", {2}, {2}, 4, 3, 2, 0, 1, 3, false, false, 1, 800, false, 1},
    {"rules of two kinds", {2}, {2}, 4, 2, 2, 0, 1, 1, false, false, 1, 0, true, 1},
    {"wide", {4}, {4}, 6, 3, 2, 0, 20, 3, true, false, 1, 0, false, 2},
    {"wide with holes", {4}, {4}, 6, 3, 2, 0.2, 10, 3, true, false, 1, 0, false, 2},
    {"rules far above others", {2}, {2}, 4, 2, 2, 0.2, 1, 1, false, false, 1, 0, false, 1, 400},
    {"rules far below others", {2}, {2}, 4, 2, 2, 0.2, 1, 1, false, false, 1, 0, false, 1, -400},
    {"the first pair far above", {2}, {1}, 4, 2, 2, 0, 1, 1, false, false, 1, 0, false, 2, 0, false, 0, 0, 0, 800},
    {"rules against spans", {2}, {1}, 4, 2, 2, 0, 1, 2, false, false, 1, 0, false, 2, -76, false, 98},
    {"too far from 0", {1}, {1}, 20, 1, 1, 0, 1, 1, false, false, 1, 0, false, 1, 0, false, 0, 0.9},
    {"not a number", {5}, {5}, 4, 2, 2, 0, 1, 2, false, false, 1, 0, false, 1, 0, false, 0, 0, NAN},
    {"infinite", {5}, {5}, 4, 2, 2, 0, 1, 2, false, false, 1, 0, false, 1, 0, false, 0, 0, HUGE_VAL},
    {"a symbol by light splits", {1}, {1}, 3, 2, 1, 0, 1, 1, false, false, 1, 0, false, 2, 0, true},
    {"a thin word first", {1}, {1}, 3, 2, 33, 0.1, 0, 1, false, false, 1, 0, false, 1, 0, false, 0, 0, 0, 0, -0.4},
    {"a thin word last", {1}, {1}, 3, 2, 33, 0.1, 0, 1, false, false, 1, 0, false, 1, 0, false, 0, 0, 0, 0, 0.4},
    {"three items", {3}, {1}, 4, 2, 2, 0, 1, 1, false},
    {"several tiles", {2}, {1}, 10, 5, 3, 0, 1, 5, false},
    {"several tiles with holes", {2}, {2}, 10, 6, 2, 0.3, 1, 1, false},
    {"long", {1}, {1}, 36, 1, 1, 0, 1, 1, false},
    {"many nonterminals", {2}, {1}, 4, 33, 1, 0, 1, 1, false},
    {"many preterminals", {2}, {1}, 3, 2, 33, 0, 1, 2, false},
    {"a warp", {1}, {1}, 4, 31, 2, 0, 1, 0, false},
    {"a warp of words", {1}, {1}, 4, 2, 32, 0.1, 1, 1, false},
    {"two warps", {1}, {1}, 3, 32, 31, 0, 1, 32, false},
#if defined(SLV_PTX)  // rows begin at sectors: what ptx/ counts of accesses to memory, it counts of these
    {"aligned", {2}, {1}, 4, 16, 16, 0, 1, 1, false},
#endif
};

}  // namespace

int main(int argc, char** argv) {
  return check_kernels(
      "pcfg", argc, argv, kCases,
      [](const Case& o, auto t) {
        Check<decltype(t)> check(o);
        const std::vector<TreePosterior> exact = check.exact();
        run_scaled(check, exact);
        if (o.flags()) return;
        check.run(exact);
        check.covariances();
        check.trees();
      },
      [](const Case& o) { return o.nt + o.t <= 8 && o.n <= 5 && product(o.batch) <= 5; },
      [](const Case&) { return kHopperShared; });
}
