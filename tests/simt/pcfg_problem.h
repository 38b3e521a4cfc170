// Small problems of the dense PCFG for the drivers, and what the textbook says of them.
#pragma once
#include <algorithm>
#include <cstring>
#include <tuple>

#include "checks.h"
#include "cuda/pcfg.h"
#include "guarded.h"
#include "kernels/range.h"
#include "pcfg_oracle.h"

namespace {

using namespace slv::cuda;
using slv::Range;

struct Case {
  const char* name;
  Shape batch, lead;  // lead: of the rules, the root and the spans
  int n, nt, t;
  double holes, scale;
  int labels = 1;  // of the spans; 0: none
  bool ragged = true;
  bool twins = false;  // two rules of a symbol are equal and better than all others
  double heavy = 1;    // the first item's words have scores so many times larger
  double dear = 0;     // the last nonterminal, in odd rows the first, loses so much over the whole sentence, and its
                       // root has it back
  bool odd = false;    // the last row of rules has scores a hundred times larger, and -inf among them
  int redone = 0;      // whether the scaled domain holds all items; 1: not all; 2: whatever
  double apart = 0;    // the rules of the last nonterminal have scores so much higher
  bool light = false;  // of three words, two nonterminals and a preterminal: set_light
  double against = 0;  // its spans have scores so much higher, and the root of the first makes it matter
  double offset = 0;   // of all words, relative to what the domain takes
  double broken = 0;   // a score that is no number, in each row but every fifth: what it touches must leave the domain
  double first = 0;    // the rules with the first nonterminal on both sides have scores so much higher
  double thin = 0;     // of the first word's scores that one lane reads, the first is so much above what may be lost in
                       // its row, the second so much below, or the other way round
  bool flags() const { return offset != 0 || broken != 0; }  // no more is asked than what leaves the domain
};

template <class T>
struct Problem {
  const Case& o;
  std::mt19937_64 random{7};
  int64_t b, rows, s;
  Guarded<T> root, rules, unary, spans;
  Guarded<int64_t> length;
  Guarded<double> weight;
  Pcfg<T> g;

  Doubles draw(int64_t size, double holes, double scale) { return ::draw(random, size, holes, scale); }
  explicit Problem(const Case& o)
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
    for (int64_t e = 0; e < o.n * o.t; e++) unary.data()[e] *= T(o.heavy);
    for (int64_t row = 0; o.dear && row < rows; row++) {
      const int64_t a = row % 2 ? 0 : o.nt - 1;
      root.data()[row * o.nt + a] += T(o.dear);
      spans.data()[(row * o.n * o.n + o.n - 1) * o.labels + a] -= T(o.dear);
    }
    for (int64_t e = 0; e < rules.size(); e++)
      if (e / (s * s) % o.nt == o.nt - 1) rules.data()[e] += T(o.apart);
    for (int64_t e = 0; e < rules.size(); e += s * s) rules.data()[e] += T(o.first);
    for (int64_t e = o.labels - 1; o.against != 0 && e < spans.size(); e += o.labels) spans.data()[e] += T(o.against);
    for (int64_t a = 0; o.against != 0 && a < root.size(); a += o.nt) root.data()[a] += T(o.against / 3);
    if (o.light) set_light();
    if (o.thin != 0)
      unary.data()[0] = T(log(Range<T>::tiny) + o.thin), unary.data()[32] = T(log(Range<T>::tiny) - o.thin);
    for (int64_t e = 0; e < unary.size(); e++) unary.data()[e] += T(o.offset * Range<T>::huge);
    for (int64_t e = 0; e < spans.size(); e++) {  // those of less than two words are never read
      const int64_t place = e / o.labels % (o.n * o.n), i = place / o.n, j = place % o.n;
      if (i >= j) spans.data()[e] = i % 2 ? T(NAN) : T(-1e6);
    }
    for (int64_t row = 0; o.broken != 0 && row < rows; row++)
      if (T* score = broken(row)) *score = T(o.broken);
    for (int64_t e = rules.size() - rules.size() / rows; o.odd && e < rules.size(); e++)
      rules.data()[e] = e % 5 == 0 ? T(-HUGE_VAL) : T(100) * rules[e];
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
  // The top is the second nonterminal, which comes by one split alone, 200 nats below the other, and from a child that
  // is 20 below the best of its span.
  void set_light() {
    auto rule = [&](int a, int y, int z) -> T& { return rules.data()[(a * s + y) * s + z]; };
    for (int64_t e = 0; e < rules.size(); e++) rules.data()[e] = T(-HUGE_VAL);
    rule(0, 0, 2) = rule(0, 2, 2) = rule(1, 2, 1) = 0, rule(1, 2, 2) = -20;
    root.data()[0] = -300, spans.data()[1] = 200;
  }
  // Which score of a row is no number; null: none.
  T* broken(int64_t row) {
    T* const of_spans = spans.data() + (row * o.n + 1) * o.n * o.labels;  // behind those that begin with the first word
    switch (row % 5) {
      case 0:
        return rules.data() + (row + 1) * o.nt * s * s - 1;
      case 1:
        return of_spans - o.labels;
      case 2:
        return of_spans - 1;
      case 3:
        return unary.data() + (row + 1) * o.n * o.t - 1;
      default:
        return nullptr;
    }
  }
  // Directions of second order, drawn apart: root and rules for each item, spans with labels where the problem's have
  // none.
  struct Direction {
    std::mt19937_64 random{11};
    Guarded<T> root, rules, unary, spans;
    Pcfg<T> g;
    explicit Direction(const Problem& p)
        : root(::draw(random, p.b * p.o.nt, 0, 1)),
          rules(::draw(random, p.b * p.o.nt * p.s * p.s, 0, 1)),
          unary(::draw(random, p.b * p.o.n * p.o.t, 0, 1)),
          spans(::draw(random, p.rows * p.o.n * p.o.n * labels(p.o), 0, 1)),
          g(p.g) {
      const RowMap own = row_map(p.o.batch, p.o.batch);
      g.root = root.data(), g.unary = unary.data(), g.rules = rules.data(), g.root_row = g.rule_row = own;
      if (p.o.labels) g.spans = spans.data(), g.labels = labels(p.o);
    }
    static int labels(const Case& o) { return o.labels == 1 ? o.nt : o.labels ? 1 : 0; }
  };
  int len(int64_t item) { return !o.ragged ? o.n : int(std::clamp<int64_t>(length[item], 0, o.n)); }
  TreeScores scores(int64_t item) { return scores(g, item); }
  TreeScores scores(const Pcfg<T>& g, int64_t item) {
    const T *root = g.root + g.root_row.row(item) * o.nt, *rules = g.rules + g.rule_row.row(item) * o.nt * s * s;
    const T *unary = g.unary + item * o.n * o.t, *spans = g.spans;
    const int labels = g.labels;
    if (spans) spans += g.span_row.row(item) * o.n * o.n * labels;
    return {len(item),
            o.nt,
            o.t,
            [=](int a) { return double(root[a]); },
            [=, this](int a, int y, int z) { return double(rules[(a * s + y) * s + z]); },
            [=, this](int i, int y) { return double(unary[i * o.t + y]); },
            [=, this](int i, int j, int a) {
              return spans ? double(spans[(i * o.n + j) * labels + (labels == 1 ? 0 : a)]) : 0.0;
            }};
  }

  std::vector<TreePosterior> exact() {
    std::vector<TreePosterior> all;
    for (int64_t i = 0; i < b; i++) all.push_back(tree_posterior(scores(i)));
    return all;
  }
  // Posterior weights of parts: written by the scaled domain, by log space or by both.
  struct Weights {
    static constexpr int kChunks = 2;
    Guarded<double> top, nodes, words, counts;
    explicit Weights(const Problem& p)
        : top(p.b * p.o.nt),
          nodes(p.b * p.g.spans_of_item() * p.o.nt),
          words(p.b * p.o.n * p.o.t),
          counts(p.rows * kChunks * p.o.nt * p.s * p.s) {
      for (Guarded<double>* x : {&top, &nodes, &words, &counts}) std::memset(x->data(), 0, x->size() * sizeof(double));
    }
    RuleCounts of_rules(const Problem& p) { return {p.g.rule_row, kChunks, counts.data()}; }
  };
  void compare(const std::vector<TreePosterior>& exact, Weights& w, double probability) {
    const RowMap own = row_map(o.batch, o.batch), each = row_map({rows, 1}, {rows, Weights::kChunks});
    Guarded<T> d_unary(w.words.size()), d_rules(w.counts.size() / Weights::kChunks), d_root(rows * o.nt);
    Guarded<T> d_spans(spans.size());
    run_sum_items(own, int64_t(o.n) * o.t, w.words.data(), d_unary.data(), nullptr);
    run_sum_items(each, int64_t(o.nt) * s * s, w.counts.data(), d_rules.data(), nullptr);
    run_sum_items(g.root_row, o.nt, w.top.data(), d_root.data(), nullptr);
    run_sum_spans<T>(g, g.span_row, o.labels, w.nodes.data(), d_spans.data(), nullptr);
    compare(exact, d_root, d_rules, d_unary, d_spans, probability);
    for (Guarded<double>* x : {&w.top, &w.nodes, &w.words, &w.counts}) x->check("weights");
  }
  // Log space, in two ranges of items; of a problem that names items to be done again, of these alone.
  void log_inside(const Pcfg<T>& g, double* inside) {
    const int64_t half = (b + 1) / 2;
    Guarded<double> scratch(half * (o.n - 1) * g.pairs());
    for (int64_t first = 0; first < b; first += half)
      for (int w = 2; w <= o.n; w++)
        run_inside(g, {inside, first, std::min(half, b - first), scratch.data()}, w, nullptr);
    scratch.check("pairs of children");
  }
  void log_tangent(const Pcfg<T>& v, double* inside, Weights& out, double* mean, T* mean_narrow) {
    const int64_t half = (b + 1) / 2, pairs = half * (o.n - 1) * g.pairs(), of_nodes = half * (o.n - 1) * o.nt;
    Guarded<double> means(out.nodes.size()), below(pairs), tops(pairs), scratch(pairs), pair_means(pairs), outer(pairs);
    Guarded<double> rule_tops(of_nodes), rule_weights(of_nodes), above(of_nodes);
    Weights outside(*this);
    const TreeMass m{out.nodes.data(),    out.words.data(), rule_tops.data(),
                     rule_weights.data(), tops.data(),      below.data()};
    const TreeTangent<T> f{{means.data(), outside.nodes.data(), outside.words.data(), weight.data(), mean, mean_narrow},
                           v,
                           pair_means.data(),
                           outer.data(),
                           above.data()};
    auto space = [&](int64_t first) { return TreeSpace<T>{inside, first, std::min(half, b - first), scratch.data()}; };
    for (int64_t first = 0; first < b; first += half)
      for (int w = 2; w <= o.n; w++) run_means(g, space(first), f, w, nullptr);
    run_tops<T>(g, inside, nullptr, out.top.data(), out.nodes.data(), nullptr);
    run_top_means<T>(g, v, out.nodes.data(), f, nullptr);
    for (int64_t first = 0; first < b; first += half)
      for (int w = o.n; w >= 2; w--) run_outside(g, space(first), m, f, w, out.of_rules(*this), nullptr);
    run_covariances<T>(g, v, f, out.nodes.data(), out.words.data(), out.top.data(), nullptr);
    for (Guarded<double>* x : {&means, &below, &tops, &scratch, &pair_means, &outer, &rule_tops, &rule_weights, &above})
      x->check("workspace");
    outside.nodes.check("outside"), outside.words.check("outside of words");
  }
  void log_outside(const Pcfg<T>& g, double* inside, Weights& out) {
    const int64_t half = (b + 1) / 2, pairs = half * (o.n - 1) * g.pairs();
    Guarded<double> below(pairs), tops(pairs), scratch(pairs);
    Guarded<double> rule_tops(half * (o.n - 1) * o.nt), rule_weights(rule_tops.size());
    const TreeMass m{out.nodes.data(),    out.words.data(), rule_tops.data(),
                     rule_weights.data(), tops.data(),      below.data()};
    run_tops<T>(g, inside, weight.data(), out.top.data(), out.nodes.data(), nullptr);
    for (int64_t first = 0; first < b; first += half)
      for (int w = o.n; w >= 2; w--)
        run_outside(g, {inside, first, std::min(half, b - first), scratch.data()}, m, w, out.of_rules(*this), nullptr);
    for (Guarded<double>* x : {&scratch, &below, &tops, &rule_tops, &rule_weights}) x->check("workspace");
  }

 private:
  // The gradients, summed over items in double and in the order of the problem.
  void compare(const std::vector<TreePosterior>& exact, Guarded<T>& d_root, Guarded<T>& d_rules, Guarded<T>& d_unary,
               Guarded<T>& d_spans, double probability) {
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

}  // namespace
