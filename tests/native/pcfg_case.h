// Grammars and sentences to test kernels on, in memory of exactly their size, and what a plain recursion over all
// symbols says of them.
#pragma once
#include "chain_case.h"
#include "kernels/pcfg.h"

namespace driver {

enum PcfgKind { kMild, kHoles, kLarge, kShifted, kHopeless, kPcfgKinds };
constexpr const char* kPcfgKindNames[kPcfgKinds] = {"mild", "holes", "large", "shifted", "hopeless"};

struct PcfgSpec {
  int64_t batch, n, nt, t, labels;  // labels 0: no spans
  PcfgKind kind;
  bool shared, ragged;
  uint64_t seed;
  std::string text() const {
    return std::string(kPcfgKindNames[kind]) + " batch=" + std::to_string(batch) + " n=" + std::to_string(n) +
           " nt=" + std::to_string(nt) + " t=" + std::to_string(t) + " labels=" + std::to_string(labels) +
           (shared ? " shared" : "") + (ragged ? " ragged" : "") + " seed=" + std::to_string(seed);
  }
};

template <class T>
struct PcfgProblem {
  PcfgSpec spec;
  Exact<T> root, rules, unary, spans;
  Exact<int64_t> row, length;
  std::mt19937_64 random;

  explicit PcfgProblem(const PcfgSpec& s) : spec(s), random(s.seed) {
    const int64_t rows = s.shared ? 1 : s.batch, symbols = s.nt + s.t;
    if (!s.shared) {
      row = Exact<int64_t>(s.batch);
      for (int64_t b = 0; b < s.batch; b++) row[b] = s.batch - 1 - b;
    }
    if (s.ragged) {
      length = Exact<int64_t>(s.batch);
      for (int64_t b = 0; b < s.batch; b++) length[b] = random() % (s.n + 1);
    }
    root = scores(rows * s.nt, 0);
    rules = scores(rows * s.nt * symbols * symbols, 0);
    unary = scores(s.batch * s.n * s.t, s.kind == kShifted ? 1e5 : 0);
    if (s.labels) spans = scores(rows * s.n * s.n * s.labels, 0);
    pad(rows);
  }
  slv::Pcfg<T> pcfg() const {
    return {spec.batch,  spec.n,       spec.nt,      spec.t,       std::max<int64_t>(spec.labels, 1),
            root.data(), rules.data(), unary.data(), spans.data(), row.data(),
            row.data(),  row.data(),   length.data()};
  }

 private:
  double uniform() { return double(random() >> 11) * 0x1p-53; }
  Exact<T> scores(int64_t count, double shift) {
    Exact<T> out(count);
    const double size = spec.kind == kLarge ? 1e3 : 2;
    for (int64_t i = 0; i < count; i++) {
      const double x = shift + size * (2 * uniform() - 1);
      out[i] =
          (spec.kind == kHoles && uniform() < 0.2) || (spec.kind == kHopeless && uniform() < 0.8) ? T(-kInf) : T(x);
    }
    return out;
  }
  void pad(int64_t rows) {  // what no tree contains must not be seen
    const int64_t n = spec.n, t = spec.t;
    for (int64_t b = 0; spec.ragged && b < spec.batch; b++)
      std::fill(unary.data() + (b * n + length[b]) * t, unary.data() + (b + 1) * n * t, T(kNaN));
    for (int64_t r = 0; spec.labels && r < rows; r++)
      for (int64_t i = 0; i < n; i++)
        std::fill_n(spans.data() + (r * n + i) * n * spec.labels, (i + 1) * spec.labels, T(kNaN));
  }
};

// The potentials of one item in float64.
struct Tree {
  int64_t len, nt, t, s;
  Doubles root, rules, unary, spans;  // spans (len, len, nt)
  double rule(int64_t a, int64_t y, int64_t z) const { return rules[(a * s + y) * s + z]; }
  double span(int64_t i, int64_t j, int64_t a) const { return spans[(i * len + j) * nt + a]; }
};
template <class T>
Tree tree_of(const slv::Pcfg<T>& g, int64_t b) {
  const int64_t len = g.len(b), nt = g.nt, s = g.s(), labels = g.labels;
  const int64_t root = g.root_row ? g.root_row[b] : 0, rules = g.rules_row ? g.rules_row[b] : 0,
                spans = g.spans_row ? g.spans_row[b] : 0;
  Tree p{len, nt, g.t, s, {}, {}, {}, Doubles(len * len * nt)};
  p.root.assign(g.root + root * nt, g.root + (root + 1) * nt);
  p.rules.assign(g.rules + rules * nt * s * s, g.rules + (rules + 1) * nt * s * s);
  p.unary.assign(g.unary + b * g.n * g.t, g.unary + (b * g.n + len) * g.t);
  for (int64_t i = 0; i < len; i++)
    for (int64_t j = i + 1; g.spans && j < len; j++)
      for (int64_t a = 0; a < nt; a++)
        p.spans[(i * len + j) * nt + a] = g.spans[((spans * g.n + i) * g.n + j) * labels + (labels == 1 ? 0 : a)];
  return p;
}

// Sums and maxima over all trees, by terms kept one by one: everything over all symbols, impossible ones at -inf.
struct TreeAnswer {
  double log_z = -kInf, best = -kInf;
  Doubles root, rules, unary, spans;                      // probabilities
  Doubles best_root, best_rules, best_unary, best_spans;  // the best score of a tree with the part

  explicit TreeAnswer(const Tree& p) : root(p.nt), rules(p.rules.size()), unary(p.unary.size()), spans(p.spans.size()) {
    best_root.assign(root.size(), -kInf), best_rules.assign(rules.size(), -kInf);
    best_unary.assign(unary.size(), -kInf), best_spans.assign(spans.size(), -kInf);
    if (p.len < 2) return;
    for (bool sum : {true, false}) solve(p, sum);
  }

 private:
  Doubles in, out;
  static double join(const Doubles& terms, bool sum) {
    if (sum) return log_sum(terms.data(), int64_t(terms.size()));
    return terms.empty() ? -kInf : *std::max_element(terms.begin(), terms.end());
  }
  void solve(const Tree& p, bool sum) {
    const int64_t n = p.len, s = p.s, nt = p.nt;
    in.assign(n * n * s, -kInf), out.assign(n * n * s, -kInf);
    auto at = [&](int64_t i, int64_t j, int64_t a) { return (i * n + j) * s + a; };
    auto each = [&](int64_t i, int64_t j, int64_t a, auto&& visit) {  // the ways to go on from a node
      for (int64_t k = i; k < j; k++)
        for (int64_t y = 0; y < s; y++)
          for (int64_t z = 0; z < s; z++)
            visit(k, y, z, p.span(i, j, a) + p.rule(a, y, z) + in[at(i, k, y)] + in[at(k + 1, j, z)]);
    };
    for (int64_t w = 1; w <= n; w++)
      for (int64_t i = 0; i + w <= n; i++) {
        const int64_t j = i + w - 1;
        for (int64_t y = 0; w == 1 && y < p.t; y++) in[at(i, i, nt + y)] = p.unary[i * p.t + y];
        for (int64_t a = 0; w > 1 && a < nt; a++) {
          Doubles terms;
          each(i, j, a, [&](int64_t, int64_t, int64_t, double x) { terms.push_back(x); });
          in[at(i, j, a)] = join(terms, sum);
        }
      }
    Doubles tops;
    for (int64_t a = 0; a < nt; a++) tops.push_back(p.root[a] + in[at(0, n - 1, a)]);
    const double total = join(tops, sum);
    (sum ? log_z : best) = total;
    auto put = [&](Doubles& probability, Doubles& best_score, int64_t e, double x) {
      if (sum)
        probability[e] += total > -kInf ? std::exp(x - total) : 0;
      else
        best_score[e] = std::max(best_score[e], x);
    };
    for (int64_t a = 0; a < nt; a++) out[at(0, n - 1, a)] = p.root[a], put(root, best_root, a, tops[a]);
    auto raise = [&](double& to, double x) { to = join({to, x}, sum); };
    for (int64_t w = n; w > 1; w--)
      for (int64_t i = 0; i + w <= n; i++)
        for (int64_t a = 0, j = i + w - 1; a < nt; a++) {
          const double around = out[at(i, j, a)];
          put(spans, best_spans, (i * n + j) * nt + a, around + in[at(i, j, a)]);
          each(i, j, a, [&](int64_t k, int64_t y, int64_t z, double x) {
            if (!(around + x > -kInf)) return;
            put(rules, best_rules, (a * s + y) * s + z, around + x);
            const double above = around + p.span(i, j, a) + p.rule(a, y, z);
            raise(out[at(i, k, y)], above + in[at(k + 1, j, z)]);
            raise(out[at(k + 1, j, z)], above + in[at(i, k, y)]);
          });
        }
    for (int64_t i = 0; i < n; i++)
      for (int64_t y = 0; y < p.t; y++)
        put(unary, best_unary, i * p.t + y, in[at(i, i, nt + y)] + out[at(i, i, nt + y)]);
  }
};

// The score of an event, -inf where it is no tree in pre-order that ends where the sentence does.
inline double score_of(const Tree& p, const int64_t* event, int64_t rows) {
  const int64_t used = 2 * p.len - 1;
  for (int64_t r = used; r < rows; r++)
    for (int q = 0; q < 3; q++)
      if (event[3 * r + q] != -1) return -kInf;
  double sum = 0;
  int64_t next = 0;
  auto read = [&](auto&& self, int64_t i, int64_t j) -> int64_t {  // its symbol, or -1
    if (next == used) return -1;
    const int64_t* row = event + 3 * next++;
    const int64_t a = row[2];
    if (row[0] != i || row[1] != j || a < (i == j ? p.nt : 0) || a >= (i == j ? p.s : p.nt)) return -1;
    if (i == j) return sum += p.unary[i * p.t + a - p.nt], a;
    const int64_t k = next < used ? event[3 * next + 1] : -1;
    if (k < i || k >= j) return -1;
    const int64_t y = self(self, i, k), z = y < 0 ? -1 : self(self, k + 1, j);
    if (z < 0) return -1;
    return sum += p.span(i, j, a) + p.rule(a, y, z), a;
  };
  const int64_t a = read(read, 0, p.len - 1);
  return a < 0 || next != used ? -kInf : sum + p.root[a];
}

}  // namespace driver
