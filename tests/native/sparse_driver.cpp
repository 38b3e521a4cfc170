// Every entry of the sparse PCFG's kernel table on small random grammars, without torch, as chain_driver.cpp does it.
#include "chain_checks.h"
#include "kernels/sparse_tables.h"

namespace driver {

struct SparseSpec {
  int64_t nt, t, rules, n, labels;  // labels 0: no spans
  double scale, holes;
  uint64_t seed;
  std::string text() const {
    return "nt=" + std::to_string(nt) + " t=" + std::to_string(t) + " n=" + std::to_string(n) +
           " labels=" + std::to_string(labels) + " scale=" + std::to_string(scale) + " seed=" + std::to_string(seed);
  }
};

struct SparseProblem {
  SparseSpec s;
  std::mt19937_64 random;
  Exact<int64_t> index;
  Exact<double> root, scores, unary, spans;

  explicit SparseProblem(const SparseSpec& spec) : s(spec), random(spec.seed), index(3 * spec.rules) {
    const int64_t symbols = s.nt + s.t;
    for (int64_t r = 0; r < s.rules; r++) {
      int64_t* rule = index.data() + 3 * r;
      rule[0] = random() % s.nt, rule[1] = random() % symbols, rule[2] = random() % symbols;
      if (random() % 3 == 0) rule[2] = -1, rule[1] = rule[0] + 1 + random() % (symbols - rule[0] - 1);  // no cycle
    }
    root = draw(s.nt), scores = draw(s.rules), unary = draw(s.n * s.t);
    if (s.labels) spans = draw(s.n * s.n * s.labels);
  }
  Exact<double> draw(int64_t count) {
    Exact<double> out(count);
    for (int64_t i = 0; i < count; i++) {
      const double x = s.scale * (2 * double(random() >> 11) * 0x1p-53 - 1);
      out[i] = double(random() >> 11) * 0x1p-53 < s.holes ? -kInf : x;
    }
    return out;
  }
  SparseItem item() const {
    return {s.n, s.n, std::max<int64_t>(s.labels, 1), root.data(), scores.data(), unary.data(), spans.data()};
  }
};

// The plain recursion over all symbols and rules: sums of exponentials, or the best.
struct Plain {
  const SparseProblem& p;
  const bool best;
  std::vector<double> chart;

  Plain(const SparseProblem& p, bool best) : p(p), best(best), chart(p.s.n * p.s.n * (p.s.nt + p.s.t), -kInf) {
    for (int64_t width = 0; width < p.s.n; width++)
      for (int64_t i = 0; i + width < p.s.n; i++) cell(i, i + width);
  }
  double& at(int64_t i, int64_t j, int64_t a) { return chart[(i * p.s.n + j) * (p.s.nt + p.s.t) + a]; }
  double add(double a, double b) const {
    const double top = std::max(a, b);
    return best || top == -kInf ? top : top + std::log(std::exp(a - top) + std::exp(b - top));
  }
  void cell(int64_t i, int64_t j) {
    const SparseSpec& s = p.s;
    const double own = s.labels == 1 && i < j ? p.spans[i * s.n + j] : 0;
    for (int64_t t = 0; i == j && t < s.t; t++) at(i, i, s.nt + t) = p.unary[i * s.t + t];
    for (int64_t r = 0; r < s.rules; r++) {
      const int64_t* rule = p.index.data() + 3 * r;
      for (int64_t k = i; k < j && rule[2] >= 0; k++)
        at(i, j, rule[0]) = add(at(i, j, rule[0]), p.scores[r] + at(i, k, rule[1]) + at(k + 1, j, rule[2]) + own);
    }
    for (int64_t a = s.nt - 1; a >= 0; a--) {  // unary rules lead to higher numbers
      for (int64_t r = 0; r < s.rules; r++) {
        const int64_t* rule = p.index.data() + 3 * r;
        if (rule[0] == a && rule[2] < 0) at(i, j, a) = add(at(i, j, a), p.scores[r] + at(i, j, rule[1]));
      }
      if (s.labels > 1 && i < j) at(i, j, a) += p.spans[(i * s.n + j) * s.labels + a];
    }
  }
  double total() {
    double sum = -kInf;
    for (int64_t a = 0; a < p.s.nt && p.s.n; a++) sum = add(sum, p.root[a] + at(0, p.s.n - 1, a));
    return sum;
  }
};

struct Parts4 {
  Exact<double> root, rules, unary, spans;
  explicit Parts4(const SparseProblem& p, double fill = 0)
      : root(p.s.nt), rules(p.s.rules), unary(p.s.n * p.s.t), spans(p.s.n * p.s.n * std::max<int64_t>(p.s.labels, 1)) {
    for (Exact<double>* x : {&root, &rules, &unary, &spans}) std::fill(x->data(), x->data() + x->size(), fill);
  }
  SparseSink sink(const SparseProblem& p) {
    return {root.data(), rules.data(), unary.data(), p.s.labels ? spans.data() : nullptr,
            std::max<int64_t>(p.s.labels, 1)};
  }
  double dot(const SparseItem& v, const SparseProblem& p) const {
    double sum = 0;
    auto with = [&sum](const Exact<double>& x, const double* y) {
      for (int64_t i = 0; y && i < x.size(); i++) sum += x[i] ? x[i] * y[i] : 0;
    };
    with(root, v.root), with(rules, v.scores), with(unary, v.unary);
    if (p.s.labels) with(spans, v.spans);
    return sum;
  }
};

void run(const SparseSpec& spec) {
  context = spec.text();
  const SparseProblem p(spec);
  const RuleTables tables(p.index.data(), spec.rules, spec.nt, spec.nt + spec.t);
  check(tables.problem.empty(), "tables");
  const SparseGrammar& g = tables.grammar;
  const SparsePcfgKernels& k = sparse_pcfg_kernels();
  Exact<double> data(SparseWeights::size(g));
  k.prepare(g, p.scores.data(), data.data());
  const SparseWeights w(g, data.data());
  const SparseItem x = p.item();
  const double z = Plain(p, false).total(), top = Plain(p, true).total(), scale = std::max(1.0, std::abs(z));
  const double found = k.log_partition(g, x, w);
  check(near(found, z, 1e-10, scale), "log_partition", found, z);

  Parts4 mu(p);
  k.marginals(g, x, w, 2.0, mu.sink(p));
  double roots = 0, words = 0;
  for (int64_t i = 0; i < mu.root.size(); i++) roots += mu.root[i];
  for (int64_t i = 0; i < mu.unary.size(); i++) words += mu.unary[i];
  const double possible = z > -kInf ? 2 : 0;
  check(near(roots, possible, 1e-9, 1), "one root", roots, possible);
  check(near(words, possible * double(spec.n), 1e-9, double(spec.n + 1)), "all words", words, possible);

  SparseSpec other = spec;
  other.scale = 1, other.holes = 0;
  SparseProblem u(other), v((other.seed += 1000, other));
  Parts4 hu(p), hv(p);
  const double mean = k.hvp(g, x, w, 1, v.item(), hv.sink(p));
  k.hvp(g, x, w, 1, u.item(), hu.sink(p));
  check(near(mean, mu.dot(v.item(), p) / 2, 1e-8, 10), "mean", mean, mu.dot(v.item(), p) / 2);
  check(near(hv.dot(u.item(), p), hu.dot(v.item(), p), 1e-7, 10), "symmetric", hv.dot(u.item(), p),
        hu.dot(v.item(), p));

  const int64_t rows = spec.n ? (1 + tables.depth) * (2 * spec.n - 1) : 0;
  Exact<int64_t> best(3 * rows), ranked(3 * rows * 4), drawn(3 * rows * 5);
  k.argmax(g, x, rows, best.data());
  k.topk(g, x, rows, 4, ranked.data(), 3 * rows);
  k.sample(g, x, w, rows, spec.seed, 3, 5, spec.seed % 2, drawn.data(), 3 * rows);
  const int64_t begin = top > -kInf ? 0 : -1;
  for (const int64_t* event : {best.data(), ranked.data(), drawn.data(), drawn.data() + 12 * rows})
    check(rows == 0 || event[0] == begin, "a tree where there is one");
  check(std::equal(best.data(), best.data() + 3 * rows, ranked.data()), "the best of the k best");
  int64_t trees = 0;
  for (int64_t r = 0; r < 4 && rows > 0; r++) trees += ranked[3 * rows * r] >= 0;
  Drawn distinct(3 * rows, 4);
  k.sample_distinct(g, x, w, rows, spec.seed, 3, 4, distinct.sink());
  distinct.check_all("without replacement", trees, false);  // a rule may be listed twice
  Parts4 most(p, -kInf);
  k.max_marginals(g, x, most.sink(p));
  double highest = -kInf;
  for (int64_t i = 0; i < most.root.size(); i++) highest = std::max(highest, most.root[i]);
  check(near(highest, top, 1e-10, scale), "the best root's score", highest, top);
}

// Rows that no table can be made of, and none that could hang or crash it.
void refuse() {
  context = "bad rows";
  const std::vector<std::vector<int64_t>> bad = {
      {0, 1, -1, 1, 0, -1},         {0, 0, -1}, {2, 0, 0}, {0, 9, 0}, {0, 0, -2}, {-1, 0, 0}, {0, -1, 0}, {0, 0, 9},
      {1, 0, 1, 0, 1, -1, 1, 0, -1}};
  for (const auto& rows : bad)
    check(!RuleTables(rows.data(), int64_t(rows.size() / 3), 2, 4).problem.empty(), "refused");
}

}  // namespace driver

int main() {
  uint64_t seed = 1;
  for (int64_t nt : {1, 2, 5, 70})
    for (int64_t t : {1, 3})
      for (int64_t rules : {0, 1, 8, 60})
        for (int64_t n : {0, 1, 2, 5, 7})
          for (double scale : {1.0, 40.0, 2e3, 1e7})
            for (double holes : {0.0, 0.2}) {
              const int64_t labels = seed % 3 == 0 ? 0 : seed % 3 == 1 ? 1 : nt;
              driver::run({nt, t, rules, n, labels, scale, holes, seed++});
            }
  driver::refuse();
  std::printf("sparse_driver: %s: %lld checks, %lld failed\n", slv::kernels().name,
              static_cast<long long>(driver::checks), static_cast<long long>(driver::failures));
  return driver::failures != 0;
}
