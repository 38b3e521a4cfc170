// The low-rank PCFG's kernels on small problems under the emulator, without torch.
#include "driver.h"
#include "lowrank_scaled.h"

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
  void run(const std::vector<RankPosterior>& exact) {
    typename Base::Inside inside(*this);
    Guarded<double> log_z(b);
    Guarded<T> log_z_narrow(b);
    this->log_inside(g, inside);
    run_finish<T>(g, inside.nodes.data(), log_z.data(), log_z_narrow.data(), nullptr);
    for (int64_t i = 0; i < b; i++) {
      close(log_z[i], exact[i].log_z, nats, "log Z", i);
      close(log_z_narrow[i], exact[i].log_z, narrow, "narrow log Z", i);
    }
    if (o.hard == kPlain) samples(inside.in());  // else rounding decides
    typename Base::Weights out(*this);
    this->log_outside(g, inside, out);
    this->compare(exact, out, probability);
    log_z.check("log Z"), log_z_narrow.check("narrow log Z");
  }

  // Second order, in log space.
  void covariances() {
    typename Base::Direction v(*this);
    typename Base::Inside inside(*this);
    Guarded<double> mean(b);
    Guarded<T> mean_narrow(b);
    typename Base::Weights out(*this);
    this->log_tangent(v.g, inside, out, mean.data(), mean_narrow.data());
    std::vector<RankPosterior> exact;
    for (int64_t i = 0; i < b; i++) {
      exact.push_back(rank_covariances(scores(i), scores(v.g, i)));
      close(mean[i], exact[i].log_z, probability, "E f", i);
      close(mean_narrow[i], exact[i].log_z, probability, "narrow E f", i);
    }
    this->compare(exact, out, probability);
    mean.check("E f"), mean_narrow.check("narrow E f");
  }

  void samples(const RankInside& in) {
    const int64_t size = 3 * (2 * o.n - 1);
    Guarded<int64_t> drawn(kSamples * b * size);
    run_rank_sample(g, in, kSeed, kSamples, drawn.data(), nullptr);
    for (int64_t item = 0; item < b; item++) {
      const RankScores x = scores(item);
      const TreeScores rules = dense(x);
      const TreeInside exact = tree_inside(rules);
      for (int64_t k = 0; k < kSamples; k++)
        same_tree(drawn.data() + (k * b + item) * size,
                  sampled_tree<T>(o.n, x, o.r > 0, rules, exact, {kSeed, item, k}), "sample", item);
    }
    drawn.check("samples");
  }
};

const Case kCases[] = {
    {"smallest", {2}, {1}, {1}, 4, 2, 2, 3, 0, 1, 2, false},
    {"smallest simple", {2}, {1}, {1}, 3, 2, 2, 0, 0, 1, 1},
    {"small", {4}, {4}, {4}, 5, 2, 3, 2, 0, 1},
    {"shared", {5}, {1}, {1}, 4, 3, 2, 5, 0, 1, 3},
    {"partly shared", {2, 3}, {2, 1}, {1, 3}, 5, 2, 2, 3, 0.1, 1},
    {"simple", {5}, {1}, {5}, 5, 5, 3, 0, 0.1, 1, 5},
    {"no spans", {3}, {1}, {1}, 6, 3, 4, 2, 0, 1, 0, false},
    {"one symbol each", {3}, {3}, {1}, 6, 1, 1, 1, 0, 1, 1, false},
    {"a word and none", {5}, {1}, {1}, 2, 2, 2, 2, 0, 1},
    {"holes", {4}, {4}, {4}, 5, 3, 3, 4, 0.3, 1, 3},
    {"impossible", {4}, {4}, {4}, 4, 2, 2, 2, 0.8, 1},
    {"large scores", {3}, {3}, {1}, 5, 3, 3, 4, 0.1, 300, 3, false, kAll},
    {"large scores, simple", {3}, {1}, {3}, 5, 4, 3, 0, 0.1, 300, 1, false, kAll},
    {"many nonterminals", {2}, {1}, {1}, 4, 33, 1, 3, 0, 1, 1, false},
    {"many preterminals", {2}, {1}, {1}, 3, 2, 33, 4, 0, 1, 2, false},
    {"many ranks", {2}, {1}, {1}, 4, 3, 2, 33, 0.1, 1, 1, false},
    {"a tile", {1}, {1}, {1}, 4, 4, 8, 8, 0, 1, 0, false},
    {"over a tile", {1}, {1}, {1}, 4, 9, 9, 5, 0, 1, 1, false},
    {"more than a block", {2}, {1}, {1}, 5, 7, 17, 40, 0.1, 1, 7, false},
    {"heavy words, all possible", {3}, {1}, {1}, 6, 3, 4, 3, 0, 1, 1, false, kNone, kHeavyWords},
    {"heavy words with holes", {4}, {1}, {1}, 5, 3, 3, 4, 0.1, 1, 1, false, kFirst, kHeavyWords},
    {"huge words", {2, 2}, {2, 1}, {1}, 4, 2, 3, 2, 0, 1, 2, false, kFirstInFloat32, kHugeWords},
    {"huge spans", {2}, {1}, {1}, 4, 2, 3, 2, 0, 1, 2, false, kAll, kHugeSpans},
    {"huge right children", {2}, {1}, {1}, 4, 2, 3, 2, 0, 1, 2, false, kAll, kHugeRight},
    {"a far rank of one left table", {2}, {1}, {2}, 3, 2, 3, 2, 0.2, 1, 1, false, kFirst, kFarLeft},
    {"a far rank of one right table", {2}, {2}, {1}, 3, 2, 3, 2, 0.2, 1, 1, false, kFirst, kFarRight},
    {"a far first word", {2}, {1}, {1}, 3, 2, 3, 2, 0.2, 1, 1, false, kFirstInFloat32, kFarWord},
    {"high words", {2}, {1}, {1}, 5, 2, 3, 2, 0, 1, 0, false, kAllInFloat32, kHighWords},
    {"ranks apart", {3}, {1}, {3}, 5, 3, 2, 5, 0, 1, 1, false, kNone, kRanksApart},
    {"ranks apart, simple", {2}, {1}, {1}, 4, 5, 2, 0, 0, 1, 1, false, kNone, kRanksApart},
    {"masks", {2}, {1}, {1}, 5, 4, 3, 5, 0, 1, 4, false, kSome, kMasks},
    {"masks, no spans", {2}, {1}, {1}, 5, 4, 3, 4, 0, 1, 0, false, kNone, kMasks},
    {"a far head", {2}, {1}, {1}, 4, 2, 2, 3, 0, 1, 0, false, kAllInFloat32, kFarHead},
    {"a far head, two words", {2}, {1}, {1}, 2, 2, 3, 3, 0, 1, 0, false, kAllInFloat32, kFarHead},
    {"a dear symbol", {2}, {1}, {1}, 4, 3, 2, 3, 0, 1, 3, false, kAll, kDear},
    {"a dear symbol, simple", {2}, {1}, {1}, 4, 3, 2, 0, 0, 1, 3, false, kAll, kDear},
    {"hopeless", {2}, {1}, {1}, 4, 3, 2, 3, 0, 1, 1, false, kAll, kHopeless},
    {"a lost split", {1}, {1}, {1}, 3, 2, 2, 2, 0, 1, 1, false, kAll, kLostSplit},
    {"a sum at the floor", {3}, {1}, {1}, 3, 2, 2, 2, 0, 0, 1, false, kFirst, kAtFloor},
    {"a vanishing node", {1}, {1}, {1}, 2, 2, 2, 2, 0, 0, 2, false, kAll, kVanishing},
    {"wide", {4}, {4}, {4}, 6, 3, 2, 3, 0, 20, 3, true, kSome},
    {"wide with holes", {4}, {4}, {1}, 6, 3, 2, 3, 0.2, 10, 3, true, kSome},
    {"wide, simple", {4}, {4}, {4}, 6, 3, 2, 0, 0.1, 10, 1, true, kSome},
    {"several tiles", {2}, {1}, {1}, 10, 5, 3, 4, 0, 1, 5, false},
    {"several tiles with holes", {2}, {2}, {2}, 10, 6, 2, 5, 0.3, 1, 1, false},
    {"long", {1}, {1}, {1}, 36, 1, 1, 1, 0, 1, 1, false},
    {"many tables", {9}, {9}, {9}, 2, 4, 2, 8, 0, 1, 1, false},
    {"groups of ranks", {1}, {1}, {1}, 3, 2, 2, 129, 0, 1, 1, false},
#if defined(SLV_PTX)  // rows begin at sectors: what ptx/ counts of accesses to memory, it counts of these
    {"aligned", {2}, {1}, {1}, 4, 16, 32, 32, 0, 1, 1, false},
    {"aligned, simple", {2}, {1}, {1}, 4, 32, 32, 0, 0, 1, 1, false},
#endif
};

}  // namespace

int main(int argc, char** argv) {
  return check_kernels(
      "lowrank", argc, argv, kCases,
      [](const Case& o, auto t) {
        Check<decltype(t)> check(o);
        const std::vector<RankPosterior> exact = check.exact();
        check.run(exact);
        check.covariances();
        run_scaled(check, exact);
      },
      [](const Case& o) { return o.nt + o.t <= 8 && o.n <= 5 && product(o.batch) <= 4; },
      [](const Case&) { return kHopperShared; });
}
