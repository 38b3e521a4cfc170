// Small problems of the low-rank PCFG for the drivers, and what the textbook says of them.
#pragma once
#include <algorithm>
#include <cstring>

#include "checks.h"
#include "cuda/lowrank.h"
#include "guarded.h"
#include "lowrank_oracle.h"

namespace {

using namespace slv::cuda;

// What makes a problem hard for the scaled domain.
enum Hard {
  kPlain,
  kHeavyWords,  // the first item's words have scores a thousand times larger
  kHugeWords,   // of the first item, beyond the range of float32
  kHugeSpans,   // all
  kHugeRight,   // the scores of right children all
  kFarLeft,     // those of the first left table's last rank are so low that float32 has few digits left
  kFarRight,    // those of the first right table's first rank
  kFarWord,     // those of the first word of the first item
  kHighWords,   // of all items: the exponents of a sentence are too large for float32
  kRanksApart,  // scores of left are high and rise with the rank, and those of right fall
  kMasks,       // some scores are -1e9, which is not -inf
  kFarHead,     // the head's scores all are low, or of the first nonterminal -inf
  kDear,        // the last nonterminal loses much over the whole sentence, and its root has it back
  kHopeless,    // the first rank is hopeless, and the only one that has what the last word needs
  kLostSplit,   // the likelier split of three words has children that no rank has both of
  kAtFloor,     // a sum over splits is as small as a kept one may be, or somewhat smaller: that of the first item
  kVanishing,   // of two words, the only possible node is unlikely in three ways, each of which the domain holds
};
// Which items the scaled domain must not hold.
enum Redone { kNone, kFirst, kFirstInFloat32, kAll, kAllInFloat32, kSome };

struct Case {
  const char* name;
  Shape batch, lead, lead_left;  // leads: of the left table, and of all else
  int n, nt, t, r;               // r 0: no head
  double holes, scale;
  int labels = 1;  // of the spans; 0: none
  bool ragged = true;
  Redone redone = kNone;
  Hard hard = kPlain;
};

template <class T>
struct Problem {
  const Case& o;
  std::mt19937_64 random{7};
  int64_t b, rows, lefts, s;
  int r;
  Guarded<T> root, head, left, right, unary, spans;
  Guarded<int64_t> length;
  Guarded<double> weight;
  LowRank<T> g;

  Doubles draw(int64_t size, double holes, double scale) { return ::draw(random, size, holes, scale); }
  explicit Problem(const Case& o)
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
    harden();
    const RowMap map = row_map(o.lead, o.batch);
    g = {{b, o.n, o.nt, o.t, o.labels, root.data(), unary.data(), o.labels ? spans.data() : nullptr, map, map,
          o.ragged ? length.data() : nullptr},
         r,
         o.r ? Table<T>{head.data(), map, o.nt, r} : Table<T>{},
         {left.data(), row_map(o.lead_left, o.batch), r, int(s)},
         {right.data(), map, r, int(s)}};
  }
  int len(int64_t item) { return !o.ragged ? o.n : int(std::clamp<int64_t>(length[item], 0, o.n)); }
  RankScores scores(int64_t item) { return scores(g, item); }
  RankScores scores(const LowRank<T>& g, int64_t item) {
    const T *root = g.root + g.root_row.row(item) * o.nt, *head = o.r ? g.head.of(item) : nullptr;
    const T *left = g.left.of(item), *right = g.right.of(item), *unary = g.unary + item * o.n * o.t, *spans = g.spans;
    const int labels = g.labels;
    if (spans) spans += g.span_row.row(item) * o.n * o.n * labels;
    return {len(item),
            o.nt,
            o.t,
            r,
            [=](int a) { return double(root[a]); },
            [=, this](int a, int q) { return head     ? double(head[a * r + q])
                                             : a == q ? 0
                                                      : -HUGE_VAL; },
            [=, this](int q, int y) { return double(left[q * s + y]); },
            [=, this](int q, int z) { return double(right[q * s + z]); },
            [=, this](int i, int y) { return double(unary[i * o.t + y]); },
            [=, this](int i, int j, int a) {
              return spans ? double(spans[(i * o.n + j) * labels + (labels == 1 ? 0 : a)]) : 0.0;
            }};
  }
  // Directions of second order, drawn apart: all but right and spans for each item, spans with other labels.
  struct Direction {
    std::mt19937_64 random{11};
    Guarded<T> root, head, left, right, unary, spans;
    LowRank<T> g;
    explicit Direction(const Problem& p)
        : root(::draw(random, p.b * p.o.nt, 0, 1)),
          head(::draw(random, p.b * p.o.nt * p.o.r, 0, 1)),
          left(::draw(random, p.b * p.r * p.s, 0, 1)),
          right(::draw(random, p.right.size(), 0, 1)),
          unary(::draw(random, p.unary.size(), 0, 1)),
          spans(::draw(random, p.rows * p.o.n * p.o.n * labels(p.o), 0, 1)),
          g(p.g) {
      const RowMap own = row_map(p.o.batch, p.o.batch);
      g.root = root.data(), g.root_row = own, g.unary = unary.data();
      g.left.data = left.data(), g.left.row = own, g.right.data = right.data();
      if (p.o.r) g.head.data = head.data(), g.head.row = own;
      if (p.o.labels) g.spans = spans.data(), g.labels = labels(p.o);
    }
    static int labels(const Case& o) { return o.labels == 1 ? o.nt : o.labels ? 1 : 0; }
  };
  std::vector<RankPosterior> exact() {
    std::vector<RankPosterior> all;
    for (int64_t i = 0; i < b; i++) all.push_back(rank_posterior(scores(i)));
    return all;
  }

  // Posterior weights of parts: written by the scaled domain, by log space or by both.
  struct Weights {
    static constexpr int kChunks = 2;
    static constexpr double kBefore = 1;  // weights of tables are added to what is there
    Guarded<double> top, nodes, words, head, left, right;
    explicit Weights(const Problem& p)
        : top(p.b * p.o.nt),
          nodes(p.b * p.g.spans_of_item() * p.o.nt),
          words(p.b * p.o.n * p.o.t),
          head(kChunks * p.head.size()),
          left(kChunks * p.left.size()),
          right(kChunks * p.right.size()) {
      for (Guarded<double>* x : {&top, &nodes, &words}) std::fill_n(x->data(), x->size(), 0.0);
      for (Guarded<double>* x : {&head, &left, &right}) std::fill_n(x->data(), x->size(), kBefore);
    }
    std::vector<Guarded<double>*> all() { return {&top, &nodes, &words, &head, &left, &right}; }
    GrammarCounts of_grammar(const Problem& p) {
      return {{p.g.head.row, kChunks, p.o.r ? head.data() : nullptr},
              {p.g.left.row, kChunks, left.data()},
              {p.g.right.row, kChunks, right.data()}};
    }
  };
  // Arrays of inside values in log space.
  struct Inside {
    Guarded<double> nodes, ranks, left, right;
    explicit Inside(const Problem& p)
        : nodes(p.b * p.g.spans_of_item() * p.o.nt),
          ranks(p.o.r ? p.b * p.g.spans_of_item() * p.r : 0),
          left(p.b * p.g.all_spans() * p.r),
          right(left.size()) {}
    RankInside in() { return {nodes.data(), ranks.data(), left.data(), right.data()}; }
    std::vector<Guarded<double>*> all() { return {&nodes, &ranks, &left, &right}; }
  };
  // What the way down works in.
  struct Work {
    Guarded<double> left, right, ranks, tops, weights;
    explicit Work(const Problem& p)
        : left(p.b * p.g.all_spans() * p.r),
          right(left.size()),
          ranks(p.b * p.o.n * p.r),
          tops(p.b * p.o.n * std::max(p.o.nt, p.r)),
          weights(tops.size()) {
      for (Guarded<double>* x : {&left, &right}) std::fill_n(x->data(), x->size(), 0.0);
    }
    RankMass of(Weights& w) {
      return {w.nodes.data(), w.words.data(), left.data(), right.data(), ranks.data(), tops.data(), weights.data()};
    }
    void check() {
      for (Guarded<double>* a : {&left, &right, &ranks, &tops, &weights}) a->check("workspace");
    }
  };
  // Of a problem that names items to be done again, of these alone.
  void log_inside(const LowRank<T>& g, Inside& x) {
    for (int w = 1; w <= o.n; w++) run_rank_inside(g, x.in(), w, nullptr);
    for (Guarded<double>* a : x.all()) a->check("inside");
  }
  // Second order; E f into `mean` and `narrow`.
  void log_tangent(const LowRank<T>& v, Inside& x, Weights& out, double* mean, T* narrow) {
    Inside means(*this);
    Weights outside(*this);
    Work own(*this), beyond(*this);
    const RankMass m = own.of(out), o = beyond.of(outside);
    const RankTangent<T> f{{means.nodes.data(), o.nodes, o.words, weight.data(), mean, narrow},
                           v,
                           means.in(),
                           o.left,
                           o.right,
                           o.ranks,
                           o.tops};
    for (int w = 1; w <= this->o.n; w++) run_rank_means(g, x.in(), f, w, nullptr);
    run_tops<T>(g, x.nodes.data(), nullptr, out.top.data(), out.nodes.data(), nullptr);
    run_top_means<T>(g, v, out.nodes.data(), f, nullptr);
    for (int w = this->o.n; w >= 1; w--) run_rank_outside(g, x.in(), m, f, out.of_grammar(*this), w, nullptr);
    run_covariances<T>(g, v, f, out.nodes.data(), out.words.data(), out.top.data(), nullptr);
    for (Guarded<double>* a : means.all()) a->check("means");
    for (Guarded<double>* a : {&outside.nodes, &outside.words}) a->check("outside");
    own.check(), beyond.check();
  }
  void log_outside(const LowRank<T>& g, Inside& x, Weights& out) {
    Work work(*this);
    run_tops<T>(g, x.nodes.data(), weight.data(), out.top.data(), out.nodes.data(), nullptr);
    for (int w = o.n; w >= 1; w--) run_rank_outside(g, x.in(), work.of(out), out.of_grammar(*this), w, nullptr);
    work.check();
  }

  // The gradients, summed over items in the order of the problem.
  void compare(const std::vector<RankPosterior>& exact, Weights& w, double probability) {
    Guarded<T> d_root(root.size()), d_spans(spans.size());
    run_sum_items(g.root_row, o.nt, w.top.data(), d_root.data(), nullptr);
    run_sum_spans<T>(g, g.span_row, o.labels, w.nodes.data(), d_spans.data(), nullptr);
    d_root.check("root"), d_spans.check("spans");
    Doubles root(d_root.size()), head(this->head.size()), left(this->left.size()), right(this->right.size());
    Doubles unary(w.words.size()), spans(d_spans.size());
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
    auto same = [&](const char* name, auto&& found, const Doubles& expected) {
      for (size_t i = 0; i < expected.size(); i++) close(found(i), expected[i], probability, name, i);
    };
    same("root", [&](size_t i) { return d_root[i]; }, root);
    same("spans", [&](size_t i) { return d_spans[i]; }, spans);
    same("unary", [&](size_t i) { return w.words[i]; }, unary);
    // in pieces of each row
    auto table = [&](const char* name, Guarded<double>& found, const Doubles& expected, int64_t size) {
      auto both = [&](size_t i) {
        const int64_t first = i / size * 2 * size + i % size;
        return found[first] + found[first + size] - 2 * Weights::kBefore;
      };
      same(name, both, expected);
    };
    if (o.r) table("head", w.head, head, int64_t(o.nt) * r);
    table("left", w.left, left, r * s);
    table("right", w.right, right, r * s);
    for (Guarded<double>* x : w.all()) x->check("weights");
  }

 private:
  void harden() {
    const double nats = sizeof(T) == 4 ? 100 : 800;  // more than T holds
    const double huge = sizeof(T) == 4 ? 1e7 : 1e3;  // of log space in float64 some digits are left
    auto each = [](Guarded<T>& x, auto&& f) {
      for (int64_t e = 0; e < x.size(); e++) x.data()[e] = f(e, x[e]);
    };
    const T low = sizeof(T) == 4 ? -2e6 : -1e3;  // where float32 has few digits left
    auto some = [](int64_t e, T x) { return e % 5 == 2 ? T(-1e9) : x; };
    const int64_t of_item = int64_t(o.n) * o.t;
    if (o.hard == kHeavyWords) each(unary, [&](int64_t e, T x) { return e < of_item ? 1000 * x : x; });
    if (o.hard == kHugeWords) each(unary, [&](int64_t e, T x) { return e < of_item ? T(huge) * x : x; });
    if (o.hard == kHugeSpans) each(spans, [&](int64_t, T x) { return T(huge) * x; });
    if (o.hard == kHugeRight) each(right, [&](int64_t, T x) { return T(huge) * x; });
    if (o.hard == kFarLeft) each(left, [&](int64_t e, T x) { return e / s == r - 1 ? x + low : x; });
    if (o.hard == kFarRight) each(right, [&](int64_t e, T x) { return e / s == 0 ? x + low : x; });
    if (o.hard == kFarWord) each(unary, [&](int64_t e, T x) { return e < o.t ? x + low : x; });
    if (o.hard == kHighWords) each(unary, [&](int64_t, T x) { return x + T(0.09 * huge); });
    if (o.hard == kRanksApart) {
      each(left, [&](int64_t e, T x) { return x + T(200) * T(4 + e / s % r); });
      each(right, [&](int64_t e, T x) { return x - T(200) * T(e / s % r); });
    }
    if (o.hard == kMasks)
      for (Guarded<T>* x : {&head, &left, &right, &unary, &spans}) each(*x, some);
    if (o.hard == kFarHead) each(head, [&](int64_t e, T x) { return e / r % o.nt > 0 ? x + low : T(-HUGE_VAL); });
    if (o.hard == kDear)
      for (int64_t row = 0; row < rows; row++) {
        root.data()[(row + 1) * o.nt - 1] += T(nats);
        spans.data()[(row * o.n * o.n + o.n) * o.labels - 1] -= T(nats);
      }
    if (o.hard == kHopeless) {
      each(head, [&](int64_t e, T x) { return e % r == 0 ? T(x - nats) : x; });
      for (Guarded<T>* x : {&left, &right})
        each(*x, [&](int64_t e, T v) { return e / s % r > 0 && e % s == s - 1 ? T(-HUGE_VAL) : v; });
      each(unary, [&](int64_t e, T x) { return e / o.t % o.n == o.n - 1 && e % o.t < o.t - 1 ? T(-HUGE_VAL) : x; });
    }
    if (o.hard == kLostSplit) {  // of three words, two nonterminals, preterminals and ranks
      each(unary, [&](int64_t e, T x) { return (e / 2 % 3 == 0) == (e % 2 == 0) ? x : T(-HUGE_VAL); });
      left.data()[2] = -HUGE_VAL;
      right.data()[4] = right.data()[5] = -HUGE_VAL;
      spans.data()[5] += T(4 * nats);
    }
    if (o.hard == kAtFloor) {  // of three words, two nonterminals, preterminals and ranks; all other scores are 0
      // The first rank has of each word what the second preterminal has. It is unlikely in the last two words: by the
      // square root of what a sum of two terms may be.
      const double floor = sizeof(T) == 4 ? -97 : -964, never = sizeof(T) == 4 ? -80 : -700;
      left.data()[2] = right.data()[2] = T(never);
      for (int64_t e = 0; e < unary.size(); e++) {
        const double unlikely = (floor + (e < of_item ? -0.5 : 0.5)) * std::log(2.0) / 2;
        if ((e / 2 % 3 == 0) != (e % 2 == 1)) unary.data()[e] = T(unlikely);
      }
    }
    if (o.hard == kVanishing) {  // two nonterminals, preterminals and ranks
      const T unlikely = sizeof(T) == 4 ? -36 : -300, never = -HUGE_VAL;
      root.data()[0] = left.data()[6] = head.data()[2] = never;
      unary.data()[1] = head.data()[3] = spans.data()[3] = unlikely;
    }
  }
};

}  // namespace
