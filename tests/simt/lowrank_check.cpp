// The low-rank PCFG's kernels on small problems under the emulator, without torch.
#include <algorithm>
#include <tuple>

#include "checks.h"
#include "cuda/lowrank.h"
#include "driver.h"
#include "guarded.h"
#include "lowrank_oracle.h"

namespace {

using namespace slv::cuda;

struct Case {
  const char* name;
  Shape batch, lead, lead_left;  // leads: of the left table, and of all else
  int n, nt, t, r;               // r 0: no head
  double holes, scale;
  int labels = 1;  // of the spans; 0: none
  bool ragged = true;
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
  int64_t b, rows, lefts, s;
  int r;
  Guarded<T> root, head, left, right, unary, spans;
  Guarded<int64_t> length;
  Guarded<double> weight;
  LowRank<T> g;

  Doubles draw(int64_t size, double holes, double scale) { return ::draw(random, size, holes, scale); }
  explicit Check(const Case& o)
      : o(o),
        b(product(o.batch)),
        rows(product(o.lead)),
        lefts(product(o.lead_left)),
        s(o.nt + o.t),
        r(o.r ? o.r : o.nt),
        root(draw(rows * o.nt, 0, o.scale)),
        head(draw(rows * o.nt * o.r, o.holes, o.scale)),
        left(draw(lefts * r * s, o.holes, o.scale)),
        right(draw(rows * r * s, o.holes, o.scale)),
        unary(draw(b * o.n * o.t, o.holes, o.scale)),
        spans(draw(rows * o.n * o.n * o.labels, o.holes, o.scale)),
        length(b),
        weight(draw(b, 0, 1)) {
    for (int64_t i = 0; i < b; i++) length.data()[i] = i == 0 ? o.n + 1 : i == 1 ? 1 : i == 2 ? -1 : o.n - i % o.n;
    const RowMap map = row_map(o.lead, o.batch);
    g = {{b, o.n, o.nt, o.t, o.labels, root.data(), unary.data(), o.labels ? spans.data() : nullptr, map, map,
          o.ragged ? length.data() : nullptr},
         r,
         o.r ? Table<T>{head.data(), map, o.nt, r} : Table<T>{},
         {left.data(), row_map(o.lead_left, o.batch), r, int(s)},
         {right.data(), map, r, int(s)}};
  }
  int len(int64_t item) { return !o.ragged ? o.n : int(std::clamp<int64_t>(length[item], 0, o.n)); }
  RankScores scores(int64_t item) {
    const int64_t row = g.root_row.row(item), of_left = g.left.row.row(item);
    return {len(item),
            o.nt,
            o.t,
            r,
            [=, this](int a) { return double(root[row * o.nt + a]); },
            [=, this](int a, int q) {
              if (!o.r) return a == q ? 0 : -HUGE_VAL;
              return double(head[(row * o.nt + a) * r + q]);
            },
            [=, this](int q, int y) { return double(left[(of_left * r + q) * s + y]); },
            [=, this](int q, int z) { return double(right[(row * r + q) * s + z]); },
            [=, this](int i, int y) { return double(unary[(item * o.n + i) * o.t + y]); },
            [=, this](int i, int j, int a) {
              if (!o.labels) return 0.0;
              return double(spans[((row * o.n + i) * o.n + j) * o.labels + (o.labels == 1 ? 0 : a)]);
            }};
  }

  void run() {
    const int64_t nodes = b * g.spans_of_item() * o.nt, ranks = o.r ? b * g.spans_of_item() * r : 0;
    const int64_t sides = b * g.all_spans() * r, own = b * o.n * std::max(o.nt, r);
    Guarded<double> inside(nodes), of_ranks(ranks), lefts(sides), rights(sides), log_z(b);
    Guarded<T> log_z_narrow(b);
    const RankInside in{inside.data(), of_ranks.data(), lefts.data(), rights.data()};
    for (int w = 1; w <= o.n; w++) run_rank_inside(g, in, w, nullptr);
    run_finish<T>(g, inside.data(), log_z.data(), log_z_narrow.data(), nullptr);
    std::vector<RankPosterior> exact;
    for (int64_t i = 0; i < b; i++) {
      exact.push_back(rank_posterior(scores(i)));
      close(log_z[i], exact[i].log_z, nats, "log Z", i);
      close(log_z_narrow[i], exact[i].log_z, narrow, "narrow log Z", i);
    }

    samples(in);

    Guarded<double> top(b * o.nt), mass(nodes), words(b * o.n * o.t), left_mass(sides), right_mass(sides);
    Guarded<double> rank_mass(b * o.n * r), tops(own), weights(own);
    Guarded<double> heads(head.size()), left_sums(left.size()), right_sums(right.size());
    for (Guarded<double>* x : {&mass, &words, &left_mass, &right_mass, &heads, &left_sums, &right_sums})
      std::fill_n(x->data(), x->size(), 0.0);
    const RankMass m{mass.data(),      words.data(), left_mass.data(), right_mass.data(),
                     rank_mass.data(), tops.data(),  weights.data()};
    const GrammarSums sums{
        {o.r ? heads.data() : nullptr, g.head.row}, {left_sums.data(), g.left.row}, {right_sums.data(), g.right.row}};
    run_tops<T>(g, inside.data(), weight.data(), top.data(), mass.data(), nullptr);
    for (int w = o.n; w >= 1; w--) run_rank_outside(g, in, m, sums, w, nullptr);
    Guarded<T> d_root(root.size()), d_spans(spans.size());
    run_sum_items(g.root_row, o.nt, top.data(), d_root.data(), nullptr);
    run_sum_spans<T>(g, g.span_row, o.labels, mass.data(), d_spans.data(), nullptr);
    compare(exact, d_root, heads, left_sums, right_sums, words, d_spans);

    for (Guarded<double>* x : {&inside, &of_ranks, &lefts, &rights, &log_z, &top, &mass, &left_mass, &right_mass,
                               &rank_mass, &tops, &weights})
      x->check("workspace");
    log_z_narrow.check("narrow log Z");
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

  // The gradients, summed over items in the order of the problem.
  void compare(const std::vector<RankPosterior>& exact, Guarded<T>& d_root, Guarded<double>& d_head,
               Guarded<double>& d_left, Guarded<double>& d_right, Guarded<double>& d_unary, Guarded<T>& d_spans) {
    Doubles root(d_root.size()), head(d_head.size()), left(d_left.size()), right(d_right.size());
    Doubles unary(d_unary.size()), spans(d_spans.size());
    for (int64_t item = 0; item < b; item++) {
      const RankPosterior& p = exact[item];
      const int64_t row = g.root_row.row(item), of_left = g.left.row.row(item), n = len(item);
      auto add = [&](Doubles& into, int64_t first, const Doubles& x) {
        for (size_t e = 0; e < x.size(); e++) into[first + e] += weight[item] * x[e];
      };
      add(root, row * o.nt, p.root);
      if (o.r) add(head, row * o.nt * r, p.head);
      add(left, of_left * r * s, p.left);
      add(right, row * r * s, p.right);
      add(unary, item * o.n * o.t, p.words);
      for (int64_t e = 0; e < int64_t(p.spans.size()) && o.labels; e++) {
        const int64_t a = e % o.nt, i = e / o.nt / n, j = e / o.nt % n;
        spans[((row * o.n + i) * o.n + j) * o.labels + (o.labels == 1 ? 0 : a)] += weight[item] * p.spans[e];
      }
    }
    auto same = [](const char* name, auto& found, const Doubles& expected) {
      for (int64_t i = 0; i < found.size(); i++) close(found[i], expected[i], probability, name, i);
      found.check(name);
    };
    same("root", d_root, root);
    same("head", d_head, head);
    same("left", d_left, left);
    same("right", d_right, right);
    same("unary", d_unary, unary);
    same("spans", d_spans, spans);
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
    {"large scores", {3}, {3}, {1}, 5, 3, 3, 4, 0.1, 300, 3, false},
    {"large scores, simple", {3}, {1}, {3}, 5, 4, 3, 0, 0.1, 300, 1, false},
    {"many nonterminals", {2}, {1}, {1}, 4, 33, 1, 3, 0, 1, 1, false},
    {"many preterminals", {2}, {1}, {1}, 3, 2, 33, 4, 0, 1, 2, false},
    {"many ranks", {2}, {1}, {1}, 4, 3, 2, 33, 0.1, 1, 1, false},
    {"a tile", {1}, {1}, {1}, 4, 4, 8, 8, 0, 1, 0, false},
    {"over a tile", {1}, {1}, {1}, 4, 9, 9, 5, 0, 1, 1, false},
    {"more than a block", {2}, {1}, {1}, 5, 7, 17, 40, 0.1, 1, 7, false},
#if defined(SLV_PTX)  // rows begin at sectors: what ptx/ counts of accesses to memory, it counts of these
    {"aligned", {2}, {1}, {1}, 4, 16, 32, 32, 0, 1, 1, false},
    {"aligned, simple", {2}, {1}, {1}, 4, 32, 32, 0, 0, 1, 1, false},
#endif
};

}  // namespace

int main(int argc, char** argv) {
  return check_kernels(
      "lowrank", argc, argv, kCases, [](const Case& o, auto t) { Check<decltype(t)>(o).run(); },
      [](const Case& o) { return o.nt + o.t <= 4 && o.n <= 4 && product(o.batch) <= 2; },
      [](const Case&) { return kHopperShared; });
}
