// The factorial chain's kernels on small problems under the emulator, without torch; what they must compute is said by
// the textbook recursions of the chain of joint states.
#include <algorithm>
#include <cstring>
#include <utility>

#include "chain_oracle.h"
#include "checks.h"
#include "cuda/factorial.h"
#include "driver.h"
#include "guarded.h"

namespace {

using namespace slv::cuda;

constexpr int kSamples = 3;
constexpr size_t kScarce = 2100;  // bytes of shared memory: less than small problems want
constexpr uint64_t kSeed = (uint64_t(3) << 40) + 12345;

struct Case {
  const char* name;
  Shape batch, lead;  // lead: of the transition and the initial scores
  int n;
  std::vector<int> sizes;
  double holes, scale;
  size_t shared = kHopperShared;
  bool ragged = true, initial = true, spills = false;  // spills: to global memory though there is room
  double offset = 0;  // of all unary scores; differences of log Z say nothing about second order then
  int64_t states() const {
    int64_t s = 1;
    for (int k : sizes) s *= k;
    return s;
  }
};

// Scores of all parts, or what is summed over items of them.
struct Parts {
  Doubles unary, edges, starts;
};

template <class T>
struct Check {
  // Sums are formed in float64: a float32 result is rounded once.
  static constexpr bool kDouble = sizeof(T) == 8;
  static constexpr double nats = 1e-10, narrow = kDouble ? nats : 1e-7, probability = kDouble ? 1e-9 : 1e-6;
  const Case& o;
  std::mt19937_64 random{5};
  int64_t b, rows, states, steps;
  Factorial<T> c{};
  Guarded<T> unary, transition, initial, v_unary, v_transition, v_initial;
  Guarded<int64_t> length;
  Guarded<double> weight;

  static Factorial<T> shape(const Case& o) {
    Factorial<T> c{};
    c.n = o.n, c.m = int(o.sizes.size()), c.states = int(o.states());
    std::copy(o.sizes.begin(), o.sizes.end(), c.sizes);
    for (int k : o.sizes) c.edges += k * k, c.ends += k;
    return c;
  }
  Doubles draw(int64_t size, double holes, double scale) { return ::draw(random, size, holes, scale); }
  explicit Check(const Case& o)
      : o(o),
        b(product(o.batch)),
        rows(product(o.lead)),
        states(o.states()),
        steps(std::max(o.n - 1, 0)),
        c(shape(o)),
        unary(draw(b * o.n * states, o.holes, o.scale)),
        transition(draw(rows * c.edges, o.holes, o.scale)),
        initial(draw(rows * c.ends, 0, o.scale)),
        v_unary(draw(b * o.n * states, 0, 1)),
        v_transition(draw(b * steps * c.edges, 0, 1)),
        v_initial(draw(rows * c.ends, 0, 1)),
        length(b),
        weight(draw(b, 0, 1)) {
    for (int64_t i = 0; i < unary.size(); i++) unary.data()[i] += T(o.offset);
    for (int64_t i = 0; i < b; i++) length.data()[i] = i == 0 ? o.n + 1 : i == 1 ? 1 : i == 2 ? -1 : o.n - i % o.n;
    c = with(unary, transition, initial, row_map(o.lead, o.batch), false);
  }
  Factorial<T> with(Guarded<T>& u, Guarded<T>& a, Guarded<T>& first, const RowMap& matrix, bool per_step) {
    Factorial<T> f = c;
    f.batch = b, f.per_step = per_step;
    f.unary = u.data(), f.transition = a.data(), f.initial = o.initial ? first.data() : nullptr;
    f.matrix = matrix, f.initial_row = row_map(o.lead, o.batch);
    f.length = o.ragged ? length.data() : nullptr;
    return f;
  }
  int len(int64_t item) { return !o.ragged ? o.n : int(std::clamp<int64_t>(length[item], 0, o.n)); }
  // each(place among the edges, among the starts, state before, state after) of every chain
  template <class F>
  void each_chain(int64_t z, int64_t next, F&& each) const {
    int edge = 0, start = 0;
    for (int64_t inner = states; int k : o.sizes) {
      inner /= k;
      const int i = int(z / inner % k);
      each(edge + i * k + int(next / inner % k), start + i);
      edge += k * k, start += k;
    }
  }
  // Of the chain of joint states, moved by `step` along the direction, whose transition is its own for item and step.
  Scores scores(int64_t item, double step = 0) {
    const int64_t row = c.matrix.row(item);
    return {len(item), int(states),
            [=, this](int t, int z) {
              auto at = [&](Guarded<T>& u, Guarded<T>& first) {
                double x = u[(item * o.n + t) * states + z];
                if (t == 0 && o.initial) each_chain(z, 0, [&](int, int i) { x += double(first[row * c.ends + i]); });
                return x;
              };
              return at(unary, initial) + (step != 0 ? step * at(v_unary, v_initial) : 0);
            },
            [=, this](int t, int z, int next) {
              double x = 0;
              each_chain(z, next, [&](int e, int) {
                x += double(transition[row * c.edges + e]);
                if (step != 0) x += step * double(v_transition[(item * steps + t) * c.edges + e]);
              });
              return x;
            }};
  }

  Parts zeros() const { return {Doubles(b * o.n * states), Doubles(rows * c.edges), Doubles(rows * c.ends)}; }
  // An item's expected parts; its edges step by step into `by_step` where it is given.
  void add(Parts& s, int64_t item, double w, const Posterior& p, Doubles* by_step = nullptr) {
    const int64_t row = c.matrix.row(item);
    const int n = len(item);
    for (int64_t e = 0; e < n * states; e++) s.unary[item * o.n * states + e] += w * p.unary[e];
    for (int64_t z = 0; z < states && n > 0; z++)
      each_chain(z, 0, [&](int, int i) { s.starts[row * c.ends + i] += w * p.unary[z]; });
    for (int t = 0; t + 1 < n; t++)
      for (int64_t z = 0; z < states; z++)
        for (int64_t next = 0; next < states; next++)
          each_chain(z, next, [&](int e, int) {
            const double x = w * p.edges[(t * states + z) * states + next];
            s.edges[row * c.edges + e] += x;
            if (by_step) (*by_step)[(item * steps + t) * c.edges + e] += x;
          });
  }

  static void same(Guarded<T>& found, const Doubles& expected, double tolerance, const char* what) {
    double most = 1;
    for (double x : expected) most = std::max(most, std::abs(x));
    for (int64_t i = 0; i < found.size(); i++) close(found[i] / most, expected[i] / most, tolerance, what, i);
    found.check(what);
  }
  struct Found {
    Guarded<T> unary, edges, starts;
  };
  Found results() const {
    return {Guarded<T>(b * o.n * states), Guarded<T>(rows * c.edges), Guarded<T>(rows * c.ends)};
  }
  void compare(Found& f, const Parts& expected, double tolerance, const char* what) {
    run_sum_starts(c, c.initial_row, f.unary.data(), f.starts.data(), nullptr);
    same(f.unary, expected.unary, tolerance, what);
    same(f.edges, expected.edges, tolerance, what);
    same(f.starts, expected.starts, tolerance, what);
  }

  void run() {
    const int64_t half = (b + 1) / 2, part = o.n * states, partial = factorial_partial_size(c);
    Guarded<double> alpha(half * part), prefix(half * part), edges(half * partial), counts(half * c.edges);
    const int64_t spare = o.spills ? (6 * c.m + 8) * states : 0;  // enough for any of the workspaces
    const int64_t forward = factorial_forward_spill(c) + spare, backward = factorial_backward_spill(c) + spare;
    const int64_t tangent = factorial_tangent_spill(c) + spare, argmax = factorial_argmax_spill(c) + spare;
    Guarded<double> forward_spill(half * forward), backward_spill(half * backward), tangent_spill(half * tangent);
    Guarded<double> sums(rows * c.edges), log_z(b);
    Guarded<T> log_z_narrow(b), mean(b), best(half * part), best_spill(half * argmax);
    Guarded<int64_t> best_path_of(b * o.n), drawn(kSamples * b * o.n);
    auto in = [](auto& memory, int64_t needed) { return needed ? memory.data() : nullptr; };
    // all passes, over two ranges of items
    auto ranges = [&](auto&& body) {
      for (int64_t first = 0; first < b; first += half) {
        const int64_t count = std::min(half, b - first);
        run_forward(c, {first, count, alpha.data(), in(forward_spill, forward)}, log_z.data(), log_z_narrow.data(),
                    nullptr);
        body(Beginnings{first, count, alpha.data(), nullptr});
      }
    };
    Found first = results(), second = results();
    Guarded<T> by_step(b * steps * c.edges), again(b * part);
    const Direction<T> v{with(v_unary, v_transition, v_initial, row_map(o.batch, o.batch), true), prefix.data(),
                         mean.data()};
    ranges([&](Beginnings s) {
      s.spill = in(backward_spill, backward);
      JointPosterior<T> out{weight.data(), edges.data(), first.unary.data(), nullptr, counts.data()};
      run_backward(c, s, out, nullptr);
      run_sum_edges(c, s, c.matrix, counts.data(), sums.data(), first.edges.data(), nullptr);
      if (steps > 0) {
        out.unary = again.data(), out.steps = by_step.data();
        run_backward(c, s, out, nullptr);
      }
    });
    ranges([&](Beginnings s) {
      s.spill = in(tangent_spill, tangent);
      run_tangent(c, s, v, {weight.data(), edges.data(), second.unary.data(), nullptr, counts.data()}, nullptr);
      run_sum_edges(c, s, c.matrix, counts.data(), sums.data(), second.edges.data(), nullptr);
    });
    ranges([&](Beginnings s) {
      run_sample(c, s, kSeed, kSamples, drawn.data(), nullptr);
      run_argmax(c, s.first, s.count, best.data(), in(best_spill, argmax), best_path_of.data(), nullptr);
    });
    // alpha need not be kept, nor log Z asked for
    run_forward<T>(c, {0, std::min<int64_t>(b, half), nullptr, in(forward_spill, forward)}, nullptr, nullptr, nullptr);

    Parts expected = zeros(), moved = zeros();
    Doubles steps_expected(by_step.size());
    std::vector<Posterior> exact;
    for (int64_t i = 0; i < b; i++) {
      exact.push_back(posterior(scores(i)));
      close(log_z[i], exact[i].log_z, nats, "log Z", i);
      close(log_z_narrow[i], exact[i].log_z, narrow, "narrow log Z", i);
      add(expected, i, weight[i], exact[i], &steps_expected);
      // second order: the difference of exact marginals moved along v and against it
      if (o.offset != 0) continue;
      const double step = 1e-5;
      const Posterior up = posterior(scores(i, step)), down = posterior(scores(i, -step));
      add(moved, i, weight[i] / (2 * step), up);
      add(moved, i, -weight[i] / (2 * step), down);
      close(mean[i], std::isfinite(up.log_z) ? (up.log_z - down.log_z) / (2 * step) : 0, 1e-5, "E f", i);
    }
    compare(first, expected, probability, "gradient");
    if (steps > 0) {
      same(again, expected.unary, probability, "states, step by step");
      same(by_step, steps_expected, probability, "edges, step by step");
    }
    if (o.offset == 0) compare(second, moved, 1e-5, "second order");
    choices(best_path_of, drawn, exact);
    for (Guarded<double>* x :
         {&alpha, &prefix, &edges, &counts, &sums, &log_z, &forward_spill, &backward_spill, &tangent_spill})
      x->check("workspace");
    for (Guarded<T>* x : {&log_z_narrow, &mean, &best, &best_spill}) x->check("workspace");
  }

  void choices(Guarded<int64_t>& best, Guarded<int64_t>& drawn, const std::vector<Posterior>& exact) {
    auto same_path = [&](int64_t i, const int64_t* found, const std::vector<int64_t>& path, const char* what) {
      for (int t = 0; t < o.n; t++)
        require(found[t] == (t < int(path.size()) ? path[t] : -1), what + std::string(" of item ") + std::to_string(i));
    };
    for (int64_t i = 0; i < b; i++) {
      same_path(i, best.data() + i * o.n, best_path(scores(i)), "best path");
      for (int q = 0; q < kSamples; q++)
        same_path(i, drawn.data() + (q * b + i) * o.n,
                  exact[i].log_z > -HUGE_VAL ? sample_path<T>(scores(i), exact[i], kSeed, uint32_t(i), uint32_t(q))
                                             : std::vector<int64_t>(),
                  "sample");
    }
    best.check("best"), drawn.check("samples");
  }
};

const Case kCases[] = {
    {"smallest", {2}, {1}, 3, {2, 2}, 0, 1, kHopperShared, false},
    {"small", {4}, {4}, 4, {2, 3}, 0, 1},
    {"partly shared", {2, 3}, {2, 1}, 5, {3, 2}, 0, 1},
    {"shared", {9}, {1}, 4, {2, 1, 2}, 0, 1, kHopperShared, true, false},
    {"holes", {4}, {4}, 6, {3, 3}, 0.2, 1},
    {"impossible", {4}, {4}, 5, {2, 2}, 0.6, 1},
    {"one chain", {3}, {1}, 4, {5}, 0.1, 1},
    {"one state", {3}, {3}, 3, {1}, 0, 1},
    {"two steps", {3}, {1}, 2, {2, 4}, 0, 1},
    {"one step", {3}, {3}, 1, {2, 2}, 0, 1},
    {"many chains", {3}, {1}, 4, {2, 2, 2, 2, 2}, 0.05, 1},
    {"large scores", {4}, {4}, 5, {3, 2}, 0.1, 300},
    {"more than a warp", {2}, {1}, 4, {33}, 0, 1, kHopperShared, false},
    {"lanes left over", {2}, {2}, 4, {5, 7}, 0.05, 1, kHopperShared, false},
    {"few states with many others", {2}, {1}, 3, {2, 65}, 0, 1, kHopperShared, false},
    {"many states with few others", {2}, {1}, 3, {65, 2}, 0, 1, kHopperShared, false},
    {"more states than threads", {1}, {1}, 3, {3, 9, 10}, 0, 1, kHopperShared, false},
    {"many items of a row", {17}, {1}, 3, {2, 2}, 0, 1, kHopperShared, false},
    {"digits", {4}, {1}, 16, {6, 6}, 0, 1, kHopperShared, false, true, false, 6e4},
    {"small, in global memory", {4}, {1}, 3, {2, 2}, 0, 1, kHopperShared, false, true, true},
    {"back spills", {3}, {3}, 4, {5, 7}, 0.1, 1, kScarce, false},
    {"all spills", {3}, {1}, 2, {5, 5, 10}, 0.1, 1, kScarce, false},
#if defined(SLV_PTX)  // rows begin at sectors: what ptx/ counts of accesses to memory, it counts of these
    {"aligned", {2}, {1}, 3, {8, 8, 4}, 0, 1, kHopperShared, false},
#endif
};

}  // namespace

int main(int argc, char** argv) {
  return check_kernels(
      "factorial", argc, argv, kCases, [](const Case& o, auto t) { Check<decltype(t)>(o).run(); },
      [](const Case& o) { return o.states() <= 6 && o.n <= 4 && product(o.batch) <= 4; },
      [](const Case& o) { return o.shared; });
}
