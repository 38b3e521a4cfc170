// The kernels in exact log space, one item at a time.
#pragma once
#include <set>

#include "chain_checks.h"

namespace driver {

template <class T>
struct LogChecks : Checks<T> {
  using Base = Checks<T>;
  using Base::Base;
  using Base::unwritten, Base::kSamples, Base::problem, Base::c, Base::n, Base::k, Base::kk, Base::steps, Base::batch,
      Base::parts, Base::answers, Base::probability, Base::nats, Base::len, Base::weight_of, Base::summed_edges,
      Base::check_log_z, Base::check_weights, Base::check_scores, Base::check_path, Base::check_best,
      Base::check_sample;

  void item(int64_t b) {
    const auto& kernel = Tables<T>::log();
    check_log_z("log partition", b, kernel.log_partition(c, b));
    for (bool direct : {true, false}) log_marginals(b, direct);
    Exact<int64_t> states(n, -7), samples(kSamples * n, -7);
    kernel.argmax(c, b, states.data());
    check_best("argmax", b, states.data(), 1e-12);
    kernel.sample(c, b, problem.spec.seed, kSamples, samples.data(), n);
    for (int64_t s = 0; s < kSamples; s++) check_sample("log sample", b, problem.spec.seed, s, samples.data() + s * n);
    log_max_marginals(b);
    log_filter(b);
    for (int64_t count : {1, 3, 12}) topk(b, count);
    for (int64_t count : {1, 12}) distinct(b, count);
    hvp(b);
  }
  // The memory of a sink: every step by itself, or sums in float64 (a matrix a step, or one).
  struct Sink {
    Exact<T> direct;
    Exact<double> sum;
    EdgeSink<T> view;
    Sink(bool each, bool per_step, int64_t steps, int64_t kk)
        : direct(each ? steps * kk : 0, unwritten),
          sum(each ? 0 : (per_step ? steps : 1) * kk, 0.0),
          view{direct.data(), sum.data(), !each && per_step ? kk : 0} {}
  };
  void log_marginals(int64_t b, bool direct) {
    const double w = weight_of(b);
    Sink sink(direct, c.per_step, steps, kk);
    Exact<T> unary(n * k, unwritten);
    if (n > 0) Tables<T>::log().marginals(c, b, w, unary.data(), sink.view);
    check_weights("log marginals", unary.data(), n * k, answers[b].mu, w);
    const Doubles expected = c.per_step ? answers[b].edges : summed_edges(b, 1, Doubles(kk));
    check_weights("log marginals, edges", sink.direct.data(), sink.direct.size(), answers[b].edges, w);
    check_weights("log marginals, sums of edges", sink.sum.data(), sink.sum.size(), expected, w, double(len(b)));
  }
  void log_max_marginals(int64_t b) {
    Exact<T> unary(n * k, unwritten), edges((c.per_step ? steps : 1) * kk, unwritten);
    Tables<T>::log().max_marginals(c, b, unary.data(), edges.data());
    check_scores("max-marginals", unary.data(), n * k, answers[b].best_mu);
    Doubles expected = answers[b].best_edges;
    if (!c.per_step) {
      expected.assign(kk, -kInf);
      for (size_t e = 0; e < answers[b].best_edges.size(); e++)
        expected[e % kk] = std::max(expected[e % kk], answers[b].best_edges[e]);
    }
    check_scores("max-marginals of edges", edges.data(), edges.size(), expected);
  }
  void distinct(int64_t b, int64_t count) {
    Exact<int64_t> best(count * n, -7);
    Tables<T>::log().topk(c, b, count, best.data(), n);
    int64_t structures = len(b) == 0 ? 1 : 0;
    for (int64_t r = 0; r < count && len(b) > 0; r++) structures += best[r * n] >= 0;
    Drawn drawn(n, count);
    Tables<T>::log().sample_distinct(c, b, problem.spec.seed, count, drawn.sink());
    drawn.check_all("without replacement", structures);
    for (int64_t r = 0; r < structures && len(b) > 0; r++)
      if (check_path("without replacement", b, drawn.event(r)))
        check(parts[b].score(drawn.event(r)) > -kInf, "without replacement", parts[b].score(drawn.event(r)), 0);
  }
  void log_filter(int64_t b) {
    Exact<T> out(n * k, unwritten);
    Tables<T>::log().filter(c, b, out.data());
    Chain<T> open = c;
    open.final = nullptr;
    const Answer prefix(parts_of(open, b));
    check_scores("filter", out.data(), n * k, prefix.alpha,
                 std::max(1.0, prefix.possible() ? std::abs(prefix.log_z) : 0));
  }
  void topk(int64_t b, int64_t count) {
    Exact<int64_t> states(count * n, -7);
    Tables<T>::log().topk(c, b, count, states.data(), n);
    double previous = kInf;
    int64_t found = 0;
    std::set<std::vector<int64_t>> distinct;
    for (int64_t r = 0; r < count && len(b) > 0; r++) {
      const int64_t* z = states.data() + r * n;
      if (std::all_of(z, z + n, [](int64_t s) { return s == -1; })) continue;
      check(found == r, "k best: a gap", double(r), double(found));
      if (!check_path("k best", b, z)) return;
      const double score = parts[b].score(z);
      if (r == 0) check_best("k best", b, z, 1e-12);
      check(score <= previous + 1e-9 * std::max(1.0, std::abs(score)), "k best: order", score, previous);
      check(distinct.emplace(z, z + len(b)).second, "k best: the same again", double(r), 0);
      previous = score;
      found++;
    }
    if (len(b) > 0) check_all_found(b, count, found, previous);
  }
  // Against all structures, where there are few.
  void check_all_found(int64_t b, int64_t count, int64_t found, double last) {
    if (std::pow(double(k), double(len(b))) > 300) return;
    Doubles scores;
    std::vector<int64_t> z(len(b));
    for (int64_t t = 0; t < len(b);) {
      if (double x = parts[b].score(z.data()); x > -kInf) scores.push_back(x);
      for (t = 0; t < len(b) && ++z[t] == k; t++) z[t] = 0;
    }
    std::sort(scores.rbegin(), scores.rend());
    check(found == std::min<int64_t>(count, scores.size()), "k best: how many", double(found), double(scores.size()));
    if (found > 0) check(near(last, scores[found - 1], 1e-9, std::max(1.0, std::abs(last))), "k best: last", last, 0);
  }

  // ---- Hessian-vector products ----------------------------------------------------------------------------------
  struct Product {
    double mean;
    Doubles unary, edges;
  };
  Product product(int64_t b, double weight, const Chain<T>& v, bool direct) {
    const Direction<T> d{v.unary,  v.transition,  v.initial,  v.final, v.per_step ? kk : 0,
                         v.matrix, v.initial_row, v.final_row};
    Sink sink(direct, c.per_step, steps, kk);
    Exact<T> unary(n * k, unwritten);
    const double mean = Tables<T>::log().hvp(c, b, weight, d, unary.data(), sink.view);
    Product out{mean, Doubles(unary.data(), unary.data() + n * k), {}};
    if (direct) out.edges.assign(sink.direct.data(), sink.direct.data() + sink.direct.size());
    return out;
  }
  static double dot(const Parts& v, const Doubles& unary, const Doubles& edges) {
    double sum = 0;
    for (size_t i = 0; i < v.unary.size(); i++) sum += v.unary[i] * unary[i];
    for (size_t e = 0; e < v.edges.size(); e++) sum += v.edges[e] * edges[e];
    return sum;
  }
  void hvp(int64_t b) {
    if (n == 0) return;
    Spec s = problem.spec;
    s.kind = Mild, s.ragged = false, s.seed += 7;
    const Problem<T> left(s);
    s.per_step = !s.per_step, s.matrices = batch, s.initial = !s.initial, s.seed += 6;
    const Problem<T> right(s);
    Chain<T> v = left.chain(), w = right.chain();
    v.length = w.length = c.length;
    const Parts pv = parts_of(v, b), pw = parts_of(w, b);
    const Product hv = product(b, 1.5, v, true), hw = product(b, 1.5, w, true);
    product(b, 1.5, w, false);
    const double size = 1 + double(len(b) * len(b));
    const double a = dot(pw, hv.unary, hv.edges), z = dot(pv, hw.unary, hw.edges);
    check(near(a, z, 10 * probability, size), "hvp: symmetry", a, z);
    const double mean = dot(pv, answers[b].mu, answers[b].edges);
    check(near(hv.mean, mean, 10 * probability, size), "hvp: mean", hv.mean, mean);
    if (problem.spec.kind <= Holes) differences(b, pv, hv);
    check(std::all_of(hv.unary.begin() + len(b) * k, hv.unary.end(), [](double x) { return x == 0; }), "hvp: padding");
  }
  void differences(int64_t b, const Parts& v, const Product& found) {
    constexpr double h = 1e-5;
    Parts up = parts[b], down = parts[b];
    for (size_t i = 0; i < v.unary.size(); i++) up.unary[i] += h * v.unary[i], down.unary[i] -= h * v.unary[i];
    for (size_t e = 0; e < v.edges.size(); e++) up.edges[e] += h * v.edges[e], down.edges[e] -= h * v.edges[e];
    const Answer more(up), less(down);
    auto compare = [](const char* what, const Doubles& x, const Doubles& y, const Doubles& hv) {
      for (size_t i = 0; i < x.size(); i++) {
        const double expected = 1.5 * (x[i] - y[i]) / (2 * h);
        if (!near(hv[i], expected, 1e-4, 1)) return check(false, what, hv[i], expected);
      }
      check(true, what);
    };
    compare("hvp: states", more.mu, less.mu, found.unary);
    compare("hvp: edges", more.edges, less.edges, found.edges);
  }
};

}  // namespace driver
