// The chain's kernels on small problems under the emulator, without torch.
#include "chain_oracle.h"
#include "checks.h"
#include "cuda/chain.h"
#include "driver.h"
#include "guarded.h"

namespace {

using namespace slv::cuda;

struct Case {
  const char* name;
  Shape batch, lead;  // lead: of the transition and of initial
  int n, k;
  bool per_step;
  double holes, scale;
  int chunks = 1;
  size_t shared = kHopperShared;
  bool ragged = true, ends = true;
};

constexpr uint64_t kSeed = 0x1234567890abcdef;
constexpr int kSamples = 3;

template <class T>
struct Check {
  static constexpr bool kDouble = sizeof(T) == 8;
  static constexpr double nats = kDouble ? 1e-10 : 2e-6, probability = kDouble ? 1e-10 : 2e-5;
  const Case& o;
  std::mt19937_64 random{7};
  int64_t b, rows, steps, kk;
  Guarded<T> unary, transition, initial, final, v_unary, v_transition, v_initial, v_final;
  Guarded<int64_t> length;
  Guarded<double> weight;
  Chain<T> c;

  Doubles draw(int64_t size, double holes, double scale) { return ::draw(random, size, holes, scale); }
  explicit Check(const Case& o)
      : o(o),
        b(product(o.batch)),
        rows(product(o.lead)),
        steps(o.per_step ? o.n - 1 : 1),
        kk(int64_t(o.k) * o.k),
        unary(draw(b * o.n * o.k, o.holes, o.scale)),
        transition(draw(rows * steps * kk, o.holes, o.scale)),
        initial(draw(rows * o.k, 0, 1)),
        final(draw(b * o.k, 0, 1)),
        v_unary(draw(b * o.n * o.k, 0, 1)),
        v_transition(draw(rows * steps * kk, 0, 1)),
        v_initial(draw(rows * o.k, 0, 1)),
        v_final(draw(b * o.k, 0, 1)),
        length(b),
        weight(draw(b, 0, 1)) {
    for (int64_t i = 0; i < b; i++) length.data()[i] = i == 0 ? o.n + 3 : i == 1 ? 1 : i == 2 ? -1 : o.n - i % o.n;
    c = chain(unary, transition, initial, final);
  }
  Chain<T> chain(Guarded<T>& u, Guarded<T>& a, Guarded<T>& i, Guarded<T>& f) {
    const RowMap map = row_map(o.lead, o.batch);
    return {b,
            o.n,
            o.k,
            o.per_step,
            u.data(),
            a.data(),
            o.ends ? i.data() : nullptr,
            o.ends ? f.data() : nullptr,
            map,
            map,
            row_map(o.batch, o.batch),
            o.ragged ? length.data() : nullptr};
  }
  int len(int64_t item) { return !o.ragged ? o.n : int(std::clamp<int64_t>(length[item], 0, o.n)); }
  // The scores of an item, moved by `by` times v.
  Scores scores(int64_t item, double by = 0) {
    const int k = o.k, n = len(item);
    const int64_t row = c.matrix.row(item), u = item * o.n * k, a = row * steps * kk, i = row * k, f = item * k;
    auto at = [by](Guarded<T>& x, Guarded<T>& v, int64_t e) { return double(x[e]) + by * double(v[e]); };
    return {n, k,
            [=, this](int t, int s) {
              double x = at(unary, v_unary, u + t * k + s);
              if (o.ends && t == 0) x += at(initial, v_initial, i + s);
              if (o.ends && t == n - 1) x += at(final, v_final, f + s);
              return x;
            },
            [=, this](int t, int s, int r) {
              return at(transition, v_transition, a + (o.per_step ? t : 0) * kk + s * k + r);
            }};
  }

  // What the weighted sum of marginals over items must be.
  struct Sums {
    Doubles unary, edges, initial, final;
  };
  void add(Sums& s, int64_t item, double w, const Posterior& p) {
    const int n = len(item), k = o.k;
    const int64_t row = c.matrix.row(item);
    for (int e = 0; e < n * k; e++) s.unary[item * o.n * k + e] += w * p.unary[e];
    for (size_t e = 0; e < p.edges.size(); e++) s.edges[row * steps * kk + (o.per_step ? e : e % kk)] += w * p.edges[e];
    for (int i = 0; n > 0 && i < k; i++) {
      s.initial[row * k + i] += w * p.unary[i];
      s.final[item * k + i] += w * p.unary[(n - 1) * k + i];
    }
  }
  Sums zeros() { return {Doubles(b * o.n * o.k), Doubles(rows * steps * kk), Doubles(rows * o.k), Doubles(b * o.k)}; }

  struct Gradient {
    Guarded<T> unary, edges, initial, final;
    Guarded<double> partial;
    Edges<T> sums;
  };
  Gradient gradient() {
    Gradient g{Guarded<T>(b * o.n * o.k),
               Guarded<T>(rows * steps * kk),
               Guarded<T>(rows * o.k),
               Guarded<T>(b * o.k),
               Guarded<double>(rows * o.chunks * steps * kk),
               {}};
    const bool direct = rows == b;
    g.sums = {c.matrix, o.per_step, direct ? 1 : o.chunks, direct ? nullptr : g.partial.data(),
              direct ? g.edges.data() : nullptr};
    return g;
  }
  void finish(Gradient& g) {
    if (!g.sums.direct) finish_edges(c, g.sums, g.edges.data(), nullptr);
    sum_ends(c, c.matrix, g.unary.data(), false, g.initial.data(), nullptr);
    sum_ends(c, row_map(o.batch, o.batch), g.unary.data(), true, g.final.data(), nullptr);
  }
  void compare(Gradient& g, const Sums& e, double tolerance, const char* what) {
    const std::pair<Guarded<T>*, const Doubles*> all[] = {
        {&g.unary, &e.unary}, {&g.edges, &e.edges}, {&g.initial, &e.initial}, {&g.final, &e.final}};
    for (auto [found, expected] : all) {
      double most = 1;
      for (double x : *expected) most = std::max(most, std::abs(x));
      for (int64_t i = 0; i < found->size(); i++) close((*found)[i] / most, (*expected)[i] / most, tolerance, what, i);
      found->check(what);
    }
    g.partial.check(what);
  }

  void run() {
    const int width = padded<T>(o.k);
    const int64_t states = b * o.n * width, matrices = c.matrices();
    Guarded<T> matrix(matrices * kk), into(matrices * kk), exponent(matrices), row_exponent(b * o.n), e(states);
    Guarded<T> alpha(states), scale(b * o.n), meta(b * kMeta), narrow(b), g(states), redo(b);
    Guarded<int> kind(matrices), code(b * o.n);
    const int64_t half = (b + 1) / 2, part = half * o.n * o.k;  // log space in two ranges of items
    Guarded<double> log_z(b), top(part), sum(part), mu(part);
    Scaled<T> s{o.per_step ? nullptr : matrix.data(),
                o.per_step ? nullptr : into.data(),
                exponent.data(),
                kind.data(),
                row_exponent.data(),
                code.data(),
                e.data(),
                alpha.data(),
                scale.data(),
                meta.data(),
                log_z.data(),
                narrow.data()};
    prepare_matrices(c, s, nullptr);
    exponentiate_rows(c, s, nullptr);
    forward(c, s, nullptr);
    auto ranges = [&](const T* which, int stride, auto&& body) {
      for (int64_t first = 0; first < b; first += half)
        body(LogSpace<T>{first, std::min(half, b - first), which, stride, top.data(), sum.data(), mu.data()});
    };
    ranges(meta.data() + 1, kMeta, [&](const auto& l) { log_forward(c, l, log_z.data(), narrow.data(), nullptr); });

    std::vector<Posterior> exact;
    Sums first = zeros();
    // NaN would send an item to log space, which would hide what went wrong
    for (int64_t i = 0; i < b && o.scale < 5; i++)
      require(meta[i * kMeta + 1] == T(0), "an item left the scaled domain, forward");
    for (int64_t i = 0; i < b; i++) {
      exact.push_back(posterior(scores(i)));
      close(log_z[i], exact[i].log_z, nats, "log Z", i);
      close(narrow[i], exact[i].log_z, 2e-6, "narrow log Z", i);
      add(first, i, weight[i], exact[i]);
    }

    Gradient d = gradient();
    Adjoint<T> a{weight.data(), g.data(), d.unary.data(), redo.data()};
    backward(c, s, a, nullptr);
    for (int64_t i = 0; i < b && o.scale < 5; i++) require(redo[i] == T(0), "an item left the scaled domain, backward");
    edges(c, s, a, d.sums, nullptr);
    ranges(redo.data(), 1, [&](const auto& l) {
      log_forward<T>(c, l, nullptr, nullptr, nullptr);
      log_backward(c, l, weight.data(), d.unary.data(), nullptr);
      log_edges(c, l, d.sums, weight.data(), nullptr);
    });
    finish(d);
    compare(d, first, probability, "gradient");

    // second order: the difference of exact marginals moved along v and against it
    Gradient h = gradient();
    std::memset(h.partial.data(), 0, h.partial.size() * sizeof(double));
    std::memset(static_cast<void*>(h.edges.data()), 0, h.edges.size() * sizeof(T));
    Guarded<double> prefix(part), suffix(part), mean(b);
    Guarded<T> mean_narrow(b);
    const Chain<T> v = chain(v_unary, v_transition, v_initial, v_final);
    ranges(nullptr, 1, [&](const auto& l) {
      const Tangent<T> t{v.unary,       v.transition,  v.initial,          v.final,       o.per_step,
                         v.matrix,      v.initial_row, v.final_row,        weight.data(), prefix.data(),
                         suffix.data(), mean.data(),   mean_narrow.data(), h.unary.data()};
      log_forward<T>(c, l, nullptr, nullptr, nullptr);
      log_backward<T>(c, l, nullptr, nullptr, nullptr);
      tangent(c, l, t, nullptr);
      tangent_edges(c, l, t, h.sums, nullptr);
    });
    finish(h);
    Sums second = zeros();
    for (int64_t i = 0; i < b; i++) {
      const double step = 1e-5;
      const Posterior up = posterior(scores(i, step)), down = posterior(scores(i, -step));
      add(second, i, weight[i] / (2 * step), up);
      add(second, i, -weight[i] / (2 * step), down);
      if (std::isfinite(up.log_z)) close(mean[i], (up.log_z - down.log_z) / (2 * step), 1e-5, "E f", i);
      close(mean_narrow[i], mean[i], 1e-6, "narrow E f", i);
    }
    compare(h, second, 1e-5, "second order");

    Guarded<int> from(b * o.n * o.k);
    Guarded<int64_t> best(b * o.n), drawn(kSamples * b * o.n);
    run_argmax(c, from.data(), best.data(), nullptr);
    run_sample(c, s, kSeed, kSamples, drawn.data(), nullptr);
    ranges(meta.data() + 1, kMeta, [&](const auto& l) {
      log_forward<T>(c, l, nullptr, nullptr, nullptr);
      run_log_sample(c, l, kSeed, kSamples, drawn.data(), nullptr);
    });
    auto same = [&](int64_t i, const int64_t* found, const std::vector<int64_t>& path, const char* what) {
      for (int t = 0; t < o.n; t++)
        require(found[t] == (t < int(path.size()) ? path[t] : -1), what + std::string(" of item ") + std::to_string(i));
    };
    for (int64_t i = 0; i < b; i++) {
      same(i, best.data() + i * o.n, best_path(scores(i)), "best path");
      for (int q = 0; q < kSamples; q++) {
        const bool possible = exact[i].log_z > -HUGE_VAL;
        same(i, drawn.data() + (q * b + i) * o.n,
             possible ? sample_path<T>(scores(i), exact[i], kSeed, uint32_t(i), uint32_t(q)) : std::vector<int64_t>(),
             "sample");
      }
    }
    for (Guarded<T>* x : {&matrix, &into, &exponent, &row_exponent, &e, &alpha, &scale, &meta, &narrow, &g, &redo})
      x->check("workspace");
    for (Guarded<double>* x : {&log_z, &top, &sum, &mu, &prefix, &suffix, &mean}) x->check("workspace");
    kind.check("kind"), code.check("code"), from.check("from"), best.check("best"), drawn.check("samples");
  }
};

const Case kCases[] = {
    {"partly shared", {2, 3}, {2, 1}, 5, 5, false, 0, 1, 2},
    {"shared", {9}, {1}, 4, 3, false, 0, 1, 3},
    {"holes", {4}, {4}, 6, 9, false, 0.25, 1},
    {"per step", {4}, {4}, 4, 9, true, 0.2, 1},
    {"per step shared", {4}, {1}, 3, 34, true, 0, 1, 2, kHopperShared, true, false},
    {"long", {3}, {1}, 70, 6, false, 0, 0.5, 1, kHopperShared, false},
    {"on the brink", {9}, {1}, 12, 20, false, 0.1, 9, 2},
    {"log space", {5}, {1}, 5, 7, false, 0.1, 60, 2},
    {"log space per step", {4}, {4}, 5, 6, true, 0.1, 60},
    {"log space, large", {2}, {1}, 3, 70, false, 0, 40, 1, kHopperShared, false},
    {"impossible", {4}, {4}, 5, 4, false, 0.75, 1},
    {"a warp and one", {2}, {1}, 35, 33, false, 0, 1, 1, kHopperShared, false, false},
    {"not resident", {2}, {1}, 4, 50, false, 0.1, 1, 1, 9000, false},
    {"large", {1}, {1}, 3, 136, false, 0, 1, 1, kHopperShared, false},
    {"one state", {3}, {3}, 3, 1, false, 0, 1},
};

}  // namespace

int main(int argc, char** argv) {
  return check_kernels(
      "chain", argc, argv, kCases, [](const Case& o, auto t) { Check<decltype(t)>(o).run(); },
      [](const Case& o) { return o.k <= 9 && o.n <= 5 && product(o.batch) <= 4; },
      [](const Case& o) { return o.shared; });
}
