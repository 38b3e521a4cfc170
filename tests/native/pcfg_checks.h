// The kernels of the PCFG in exact log space, one sentence at a time.
#pragma once
#include <set>

#include "chain_checks.h"
#include "pcfg_case.h"

namespace driver {

template <class T>
struct PcfgChecks {
  static constexpr T unwritten = T(kNaN);
  PcfgProblem<T> problem;
  Pcfg<T> g;
  const int64_t n, nt, t, s, rows, labels;
  const bool exact;  // float64, and no rounding of large inputs
  std::vector<Tree> trees;
  std::vector<TreeAnswer> answers;
  const double tolerance;

  explicit PcfgChecks(const PcfgSpec& spec)
      : problem(spec),
        g(problem.pcfg()),
        n(spec.n),
        nt(spec.nt),
        t(spec.t),
        s(nt + t),
        rows(event_size(n) / 3),
        labels(g.labels),
        exact(sizeof(T) == 8 && spec.kind != kLarge && spec.kind != kShifted),
        tolerance(sizeof(T) == 4 ? 1e-5
                  : exact        ? 1e-10
                                 : 1e-8) {
    for (int64_t b = 0; b < spec.batch; b++) trees.push_back(tree_of(g, b)), answers.emplace_back(trees.back());
  }
  static const auto& kernel() {
    if constexpr (sizeof(T) == 4)
      return pcfg_kernels().log_f32;
    else
      return pcfg_kernels().log_f64;
  }
  void run() {
    for (int64_t b = 0; b < problem.spec.batch; b++) {
      const double z = kernel().log_partition(g, b);
      check(near(z, answers[b].log_z, tolerance, std::max(1.0, std::abs(answers[b].log_z))), "log partition", z,
            answers[b].log_z);
      for (double weight : {1.0, -2.5, 0.0})
        for (bool direct : {true, false}) marginals(b, weight, direct);
      max_marginals(b);
      structures(b);
      hvp(b);
    }
  }

  // The memory of a sink, and what it holds afterwards in float64.
  struct Sink {
    Exact<T> root, unary, rules, spans;
    Exact<double> rules_sum, spans_sum;
    PcfgSink<T> view;
    Sink(const PcfgChecks& c, bool direct, int64_t labels)
        : root(c.nt, unwritten),
          unary(c.n * c.t, unwritten),
          rules(direct ? c.nt * c.s * c.s : 0, unwritten),
          spans(direct ? c.n * c.n * labels : 0, unwritten),
          rules_sum(direct ? 0 : c.nt * c.s * c.s),
          spans_sum(direct ? 0 : c.n * c.n * labels),
          view{root.data(), unary.data(), rules.data(), rules_sum.data(), spans.data(), spans_sum.data(), labels} {}
    static Doubles values(const Exact<T>& x, const Exact<double>& sum = Exact<double>()) {
      Doubles out(x.data(), x.data() + x.size());
      out.insert(out.end(), sum.data(), sum.data() + sum.size());
      return out;
    }
  };
  void compare(const char* what, const Doubles& found, const Doubles& expected, double weight, double close) {
    check(found.size() == expected.size(), what, double(found.size()), double(expected.size()));
    for (size_t e = 0; e < found.size() && e < expected.size(); e++)
      if (const double x = weight == 0 ? 0 : weight * expected[e];
          !near(found[e], x, close, std::max(1.0, std::abs(x))))
        return check(false, what, found[e], x);
    check(true, what);
  }
  // (len, len, nt) -> (n, n, labels), and (len, t) -> (n, t)
  Doubles padded_spans(int64_t b, const Doubles& x, int64_t to, double fill) const {
    const int64_t len = trees[b].len;
    Doubles out(n * n * to, fill);
    for (int64_t i = 0; i < len; i++)
      for (int64_t j = 0; j < len; j++)
        for (int64_t a = 0; a < nt; a++) {
          const double e = x[(i * len + j) * nt + a];
          double& at = out[(i * n + j) * to + (to == 1 ? 0 : a)];
          at = to == nt ? e : at + e;
        }
    return out;
  }
  Doubles padded_unary(Doubles x, double fill) const { return x.resize(n * t, fill), x; }

  void marginals(int64_t b, double weight, bool direct) {
    const TreeAnswer& a = answers[b];
    for (int64_t to : {nt, int64_t(1)}) {
      const Sink sink(*this, direct, to);
      kernel().marginals(g, b, weight, sink.view);
      compare("marginals: root", Sink::values(sink.root), a.root, weight, tolerance);
      compare("marginals: rules", Sink::values(sink.rules, sink.rules_sum), a.rules, weight, tolerance);
      compare("marginals: unary", Sink::values(sink.unary), padded_unary(a.unary, 0), weight, tolerance);
      compare("marginals: spans", Sink::values(sink.spans, sink.spans_sum), padded_spans(b, a.spans, to, 0), weight,
              tolerance);
    }
    const Exact<T> root(nt), unary(n * t);
    kernel().marginals(g, b, weight, {root.data(), unary.data(), nullptr, nullptr, nullptr, nullptr, nt});
  }
  void max_marginals(int64_t b) {
    const TreeAnswer& a = answers[b];
    const Sink sink(*this, true, nt);
    kernel().max_marginals(g, b, sink.view);
    compare("max-marginals: root", Sink::values(sink.root), a.best_root, 1, tolerance);
    compare("max-marginals: rules", Sink::values(sink.rules), a.best_rules, 1, tolerance);
    compare("max-marginals: unary", Sink::values(sink.unary), padded_unary(a.best_unary, -kInf), 1, tolerance);
    compare("max-marginals: spans", Sink::values(sink.spans), padded_spans(b, a.best_spans, nt, -kInf), 1, tolerance);
  }
  // Best trees and samples; -1 everywhere where there is none.
  void structures(int64_t b) {
    const double best = answers[b].best, size = best > -kInf ? std::max(1.0, std::abs(best)) : 1;
    Exact<int64_t> one(3 * rows, -7), many(12 * 3 * rows, -7);
    kernel().argmax(g, b, one.data());
    const double found = tree_score("argmax", b, one.data());
    check(near(found, best, 1e-12, size), "argmax", found, best);
    kernel().topk(g, b, 12, many.data(), 3 * rows);
    check(std::equal(one.data(), one.data() + one.size(), many.data()), "k best: the first");
    std::set<std::vector<int64_t>> seen;
    double last = kInf;
    for (int64_t r = 0; r < 12; r++) {
      const int64_t* event = many.data() + r * 3 * rows;
      const double x = tree_score("k best", b, event);
      check(x <= last + 1e-12 * size, "k best: order", x, last);
      check(x == -kInf || seen.insert({event, event + 3 * rows}).second, "k best: the same twice");
      last = x;
    }
    Drawn drawn(3 * rows, 12);
    kernel().sample_distinct(g, b, problem.spec.seed, 12, drawn.sink());
    drawn.check_all("without replacement", int64_t(seen.size()));
    for (int64_t r = 0; r < int64_t(seen.size()); r++)
      check(tree_score("without replacement", b, drawn.event(r)) > -kInf, "without replacement");
    kernel().sample(g, b, problem.spec.seed, 12, many.data(), 3 * rows);
    for (int64_t r = 0; r < 12; r++) {
      const double x = tree_score("sample", b, many.data() + r * 3 * rows);
      check((x > -kInf) == (answers[b].log_z > -kInf), "sample", x, answers[b].log_z);
    }
  }
  double tree_score(const char* what, int64_t b, const int64_t* event) {
    const double x = trees[b].len < 2 ? -kInf : score_of(trees[b], event, rows);
    check(x > -kInf || std::all_of(event, event + 3 * rows, [](int64_t e) { return e == -1; }), what, x, -1);
    return x;
  }

  // ---- second order: differences of the recursion's own marginals
  // ----------------------------------------------------
  void hvp(int64_t b) {
    PcfgSpec spec = problem.spec;
    spec.kind = kMild, spec.ragged = false, spec.shared = !spec.shared, spec.seed += 7;
    if (g.spans) spec.labels = spec.seed % 2 ? 1 : nt;
    const PcfgProblem<T> other(spec);
    Pcfg<T> v = other.pcfg();
    v.length = g.length;
    const Tree direction = tree_of(v, b);
    const Sink sink(*this, problem.spec.seed % 2, labels);
    const double mean = kernel().hvp(g, b, 1.5, v, sink.view), expected = dot(direction, answers[b]);
    check(near(mean, expected, 10 * tolerance, std::max(1.0, std::abs(expected))), "hvp: mean", mean, expected);
    if (problem.spec.kind == kLarge || problem.spec.kind == kShifted) return;
    constexpr double h = 1e-5;
    const TreeAnswer up(moved(trees[b], direction, h)), down(moved(trees[b], direction, -h));
    auto slope = [](Doubles x, const Doubles& y) {
      for (size_t e = 0; e < x.size(); e++) x[e] = (x[e] - y[e]) / (2 * h);
      return x;
    };
    compare("hvp: root", Sink::values(sink.root), slope(up.root, down.root), 1.5, 1e-4);
    compare("hvp: rules", Sink::values(sink.rules, sink.rules_sum), slope(up.rules, down.rules), 1.5, 1e-4);
    compare("hvp: unary", Sink::values(sink.unary), padded_unary(slope(up.unary, down.unary), 0), 1.5, 1e-4);
    compare("hvp: spans", Sink::values(sink.spans, sink.spans_sum),
            padded_spans(b, slope(up.spans, down.spans), labels, 0), 1.5, 1e-4);
  }
  static double dot(const Tree& v, const TreeAnswer& a) {
    double sum = 0;
    auto add = [&](const Doubles& x, const Doubles& p) {
      for (size_t e = 0; e < p.size(); e++) sum += p[e] > 0 ? x[e] * p[e] : 0;
    };
    add(v.root, a.root), add(v.rules, a.rules), add(v.unary, a.unary), add(v.spans, a.spans);
    return sum;
  }
  static Tree moved(Tree p, const Tree& v, double h) {
    auto add = [h](Doubles& x, const Doubles& y) {
      for (size_t e = 0; e < x.size(); e++) x[e] += h * y[e];
    };
    add(p.root, v.root), add(p.rules, v.rules), add(p.unary, v.unary), add(p.spans, v.spans);
    return p;
  }
};

// The tree of the best span scores, against a plain recursion.
template <class T>
void decode(int64_t n, int64_t len, uint64_t seed, bool holes) {
  std::mt19937_64 random(seed);
  Exact<T> scores(n * n, T(kNaN));
  for (int64_t i = 0; i < len; i++)
    for (int64_t j = i + 1; j < len; j++)
      scores[i * n + j] = holes && random() % 4 == 0 ? T(-kInf) : T(double(random() % 2000) / 1000 - 1);
  Doubles best(n * n, 0.0);
  for (int64_t j = 1; j < len; j++)
    for (int64_t i = j - 1; i >= 0; i--) {
      double top = -kInf;
      for (int64_t k = i; k < j; k++) top = std::max(top, best[i * n + k] + best[(k + 1) * n + j]);
      best[i * n + j] = double(scores[i * n + j]) + top;
    }
  Exact<int64_t> event(event_size(n), -7);
  PcfgChecks<T>::kernel().decode(scores.data(), n, len, event.data());
  const bool some = len == 1 || (len > 1 && best[len - 1] > -kInf);
  double sum = some ? 0 : -kInf;
  for (int64_t r = 0; some && r < 2 * len - 1; r++)
    if (event[3 * r] < event[3 * r + 1]) sum += double(scores[event[3 * r] * n + event[3 * r + 1]]);
  check(near(sum, len > 1 ? best[len - 1] : len == 1 ? 0 : -kInf, 1e-12, double(n + 1)), "decode", sum);
  check(std::all_of(event.data() + (some ? 3 * (2 * len - 1) : 0), event.data() + event.size(),
                    [](int64_t x) { return x == -1; }),
        "decode: padding");
}

}  // namespace driver
