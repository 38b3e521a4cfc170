// The PCFG's kernels on small problems under the emulator, without torch.
#include <algorithm>
#include <cstring>
#include <tuple>

#include "checks.h"
#include "cuda/pcfg.h"
#include "driver.h"
#include "guarded.h"
#include "pcfg_draws.h"

namespace {

using namespace slv::cuda;

struct Case {
  const char* name;
  Shape batch, lead;  // lead: of the rules, the root and the spans
  int n, nt, t;
  double holes, scale;
  int labels = 1;  // of the spans; 0: none
  bool ragged = true;
  bool twins = false;  // two rules of a symbol are equal and better than all others
};

template <class T>
struct Check {
  // Sums are formed in float64: a float32 result is rounded once.
  static constexpr bool kDouble = sizeof(T) == 8;
  static constexpr double nats = 1e-10, narrow = kDouble ? nats : 1e-7, probability = kDouble ? 1e-9 : 1e-6;
  static constexpr int kSamples = 3;
  static constexpr uint64_t kSeed = (uint64_t(1) << 40) + 7;
  const Case& o;
  std::mt19937_64 random{7};
  int64_t b, rows, s;
  Guarded<T> root, rules, unary, spans;
  Guarded<int64_t> length;
  Guarded<double> weight;
  Pcfg<T> g;

  Doubles draw(int64_t size, double holes, double scale) { return ::draw(random, size, holes, scale); }
  explicit Check(const Case& o)
      : o(o),
        b(product(o.batch)),
        rows(product(o.lead)),
        s(o.nt + o.t),
        root(draw(rows * o.nt, 0, o.scale)),
        rules(draw(rows * o.nt * s * s, o.holes, o.scale)),
        unary(draw(b * o.n * o.t, o.holes, o.scale)),
        spans(draw(rows * o.n * o.n * o.labels, o.holes, o.scale)),
        length(b),
        weight(draw(b, 0, 1)) {
    for (int64_t i = 0; i < b; i++) length.data()[i] = i == 0 ? o.n + 1 : i == 1 ? 1 : i == 2 ? -1 : o.n - i % o.n;
    for (int64_t e = 0; o.twins && e < rules.size(); e++) {
      const int64_t pair = e % (s * s);
      rules.data()[e] = pair == 5 * s + 1 || pair == 5 * s + 2 ? 0 : -1;
    }
    const RowMap map = row_map(o.lead, o.batch);
    g = {{b, o.n, o.nt, o.t, o.labels, root.data(), unary.data(), o.labels ? spans.data() : nullptr, map, map,
          o.ragged ? length.data() : nullptr},
         rules.data(),
         map};
  }
  int len(int64_t item) { return !o.ragged ? o.n : int(std::clamp<int64_t>(length[item], 0, o.n)); }
  TreeScores scores(int64_t item) {
    const int64_t row = g.rule_row.row(item);
    return {len(item),
            o.nt,
            o.t,
            [=, this](int a) { return double(root[row * o.nt + a]); },
            [=, this](int a, int y, int z) { return double(rules[((row * o.nt + a) * s + y) * s + z]); },
            [=, this](int i, int y) { return double(unary[(item * o.n + i) * o.t + y]); },
            [=, this](int i, int j, int a) {
              if (!o.labels) return 0.0;
              return double(spans[((row * o.n + i) * o.n + j) * o.labels + (o.labels == 1 ? 0 : a)]);
            }};
  }

  void run() {
    const int64_t nodes = b * g.spans_of_item() * o.nt, half = (b + 1) / 2, pairs = half * (o.n - 1) * g.pairs();
    Guarded<double> inside(nodes), log_z(b), scratch(pairs);
    Guarded<T> log_z_narrow(b);
    for (int64_t first = 0; first < b; first += half)
      for (int w = 2; w <= o.n; w++)
        run_inside(g, {inside.data(), first, std::min(half, b - first), scratch.data()}, w, nullptr);
    run_finish<T>(g, inside.data(), log_z.data(), log_z_narrow.data(), nullptr);
    std::vector<TreePosterior> exact;
    for (int64_t i = 0; i < b; i++) {
      exact.push_back(tree_posterior(scores(i)));
      close(log_z[i], exact[i].log_z, nats, "log Z", i);
      close(log_z_narrow[i], exact[i].log_z, narrow, "narrow log Z", i);
    }

    Guarded<double> top(b * o.nt), mass(nodes), words(b * o.n * o.t), below(pairs), tops(pairs);
    Guarded<double> rule_tops(half * (o.n - 1) * o.nt), rule_weights(rule_tops.size()), counts(rows * o.nt * s * s);
    for (Guarded<double>* x : {&mass, &words, &counts}) std::memset(x->data(), 0, x->size() * sizeof(double));
    const TreeMass m{mass.data(), words.data(), rule_tops.data(), rule_weights.data(), tops.data(), below.data()};
    run_tops<T>(g, inside.data(), weight.data(), top.data(), mass.data(), nullptr);
    for (int64_t first = 0; first < b; first += half)
      for (int w = o.n; w >= 2; w--)
        run_outside(g, {inside.data(), first, std::min(half, b - first), scratch.data()}, m, w, g.rule_row,
                    counts.data(), nullptr);
    const RowMap own = row_map(o.batch, o.batch), each = row_map({rows}, {rows});
    Guarded<T> d_unary(words.size()), d_rules(counts.size()), d_root(rows * o.nt), d_spans(spans.size());
    run_sum_items(own, int64_t(o.n) * o.t, words.data(), d_unary.data(), nullptr);
    run_sum_items(each, int64_t(o.nt) * s * s, counts.data(), d_rules.data(), nullptr);
    run_sum_items(g.root_row, o.nt, top.data(), d_root.data(), nullptr);
    run_sum_spans<T>(g, g.span_row, o.labels, mass.data(), d_spans.data(), nullptr);
    compare(exact, d_root, d_rules, d_unary, d_spans);

    for (Guarded<double>* x :
         {&inside, &log_z, &scratch, &top, &mass, &words, &below, &tops, &rule_tops, &rule_weights, &counts})
      x->check("workspace");
    log_z_narrow.check("narrow log Z");
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

  // The gradients, summed over items in double and in the order of the problem.
  void compare(const std::vector<TreePosterior>& exact, Guarded<T>& d_root, Guarded<T>& d_rules, Guarded<T>& d_unary,
               Guarded<T>& d_spans) {
    Doubles root(d_root.size()), rules(d_rules.size()), unary(d_unary.size()), spans(d_spans.size());
    for (int64_t item = 0; item < b; item++) {
      const TreePosterior& p = exact[item];
      const int64_t row = g.rule_row.row(item), n = len(item);
      auto add = [&](Doubles& into, int64_t at, double x) { into[at] += weight[item] * x; };
      for (size_t e = 0; e < p.root.size(); e++) add(root, row * o.nt + e, p.root[e]);
      for (size_t e = 0; e < p.rules.size(); e++) add(rules, row * p.rules.size() + e, p.rules[e]);
      for (size_t e = 0; e < p.words.size(); e++) add(unary, item * o.n * o.t + e, p.words[e]);
      for (int64_t e = 0; e < int64_t(p.spans.size()) && o.labels; e++) {
        const int64_t a = e % o.nt, i = e / o.nt / n, j = e / o.nt % n;
        add(spans, ((row * o.n + i) * o.n + j) * o.labels + (o.labels == 1 ? 0 : a), p.spans[e]);
      }
    }
    const std::tuple<const char*, Guarded<T>*, const Doubles*> all[] = {{"root", &d_root, &root},
                                                                        {"rules", &d_rules, &rules},
                                                                        {"unary", &d_unary, &unary},
                                                                        {"spans", &d_spans, &spans}};
    for (auto [name, found, expected] : all) {
      for (int64_t i = 0; i < found->size(); i++) close((*found)[i], (*expected)[i], probability, name, i);
      found->check(name);
    }
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
    {"large scores", {3}, {3}, 5, 3, 3, 0.1, 300, 3, false},
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
        check.run();
        check.trees();
      },
      [](const Case& o) { return o.nt + o.t <= 4 && o.n <= 4 && product(o.batch) <= 2; },
      [](const Case&) { return kHopperShared; });
}
