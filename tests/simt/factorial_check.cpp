// The factorial chain's kernels on small problems under the emulator, without torch.
#include "factorial_ladder.h"

namespace {

constexpr int kSamples = 3;
constexpr size_t kScarce = 2100;  // bytes of shared memory: less than small problems want
constexpr uint64_t kSeed = (uint64_t(3) << 40) + 12345;

// Into how many pieces the steps of these sizes are cut: chunks of 32, or as many as 2^20 elements have room for.
void check_pieces() {
  auto pieces = [](int n, std::vector<int> sizes) {
    return factorial_pieces(Problem<float>::shape({"", {1}, {1}, n, std::move(sizes), 0, 0}));
  };
  const bool chunks = pieces(0, {2}) == 1 && pieces(1, {2}) == 1 && pieces(33, {2, 2}) == 1 &&
                      pieces(34, {2, 2}) == 2 && pieces(65, {2, 2}) == 2 && pieces(66, {2, 2}) == 3;
  const bool large = pieces(100000, {64, 64}) == (1 << 20) / (2 * 64 * 64 + 4 * 64 * 64);
  require(chunks && large && pieces(100000, {1024, 1024}) == 1, "pieces of steps");
}

template <class T>
struct Check : Ladder<T> {
  using P = Ladder<T>;
  using P::o, P::b, P::rows, P::states, P::steps, P::c, P::weight, P::scores, P::zeros, P::add, P::same, P::results,
      P::compare, P::with, P::v_unary, P::v_transition, P::v_initial, P::s;
  using typename P::Found;
  // In log space sums are formed in float64: a float32 result is rounded once.
  static constexpr bool kDouble = sizeof(T) == 8;
  static constexpr double nats = 1e-10, narrow = kDouble ? nats : 1e-7, probability = kDouble ? 1e-9 : 1e-6;
  Parts expected = zeros(), moved = zeros();
  Doubles steps_expected{Doubles(b * steps * c.edges)};
  std::vector<Posterior> exact;

  using P::P;
  void run() {
    check_pieces();
    for (int64_t i = 0; i < b && o.broken == 0; i++) {
      exact.push_back(posterior(scores(i)));
      add(expected, i, weight[i], exact[i], &steps_expected);
    }
    this->climb(exact, expected, steps_expected);
    if (o.broken == 0) in_log_space();
  }

  void in_log_space() {
    const int64_t half = (b + 1) / 2, part = o.n * states, partial = factorial_partial_size(c);
    Guarded<double> alpha(half * part), prefix(half * part), edges(half * partial), counts(half * c.edges);
    const int64_t spare = this->spare();
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
        run_forward(c, {first, count, alpha.data(), in(forward_spill, forward), nullptr}, log_z.data(),
                    log_z_narrow.data(), nullptr);
        body(Beginnings{first, count, alpha.data(), nullptr, nullptr});
      }
    };
    Found first = results(), second = results();
    Guarded<T> by_step(b * steps * c.edges), again(b * part);
    const Direction<T> v{with(v_unary, v_transition, v_initial, row_map(o.batch, o.batch), true), prefix.data(),
                         mean.data()};
    ranges([&](Beginnings s) {
      s.spill = in(backward_spill, backward);
      JointPosterior<T> out{weight.data(), edges.data(), first.unary.data(), nullptr, counts.data(), 1};
      run_backward(c, s, out, nullptr);
      run_sum_edges(c, s, c.matrix, counts.data(), 1, sums.data(), first.edges.data(), nullptr);
      if (steps > 0) {
        out.unary = again.data(), out.steps = by_step.data();
        run_backward(c, s, out, nullptr);
      }
    });
    ranges([&](Beginnings s) {
      s.spill = in(tangent_spill, tangent);
      run_tangent(c, s, v, {weight.data(), edges.data(), second.unary.data(), nullptr, counts.data(), 1}, nullptr);
      run_sum_edges(c, s, c.matrix, counts.data(), 1, sums.data(), second.edges.data(), nullptr);
    });
    ranges([&](Beginnings s) {
      run_log_sample(c, s, kSeed, kSamples, drawn.data(), nullptr);
      run_argmax(c, s.first, s.count, best.data(), in(best_spill, argmax), best_path_of.data(), nullptr);
    });
    // alpha need not be kept, nor log Z asked for
    run_forward<T>(c, {0, half, nullptr, in(forward_spill, forward), nullptr}, nullptr, nullptr, nullptr);

    for (int64_t i = 0; i < b; i++) {
      close(log_z[i], exact[i].log_z, nats, "log Z", i);
      close(log_z_narrow[i], exact[i].log_z, narrow, "narrow log Z", i);
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
    choices(best_path_of, drawn);
    // the same from the chart of the scaled domain, where it holds the item
    for (int64_t e = 0; e < drawn.size(); e++)
      if (this->redo[e / o.n % b] == 0) drawn.data()[e] = -2;
    run_sample(c, this->s, kSeed, kSamples, drawn.data(), nullptr);
    choices(best_path_of, drawn);
    for (Guarded<double>* x :
         {&alpha, &prefix, &edges, &counts, &sums, &log_z, &forward_spill, &backward_spill, &tangent_spill})
      x->check("workspace");
    for (Guarded<T>* x : {&log_z_narrow, &mean, &best, &best_spill}) x->check("workspace");
  }

  void choices(Guarded<int64_t>& best, Guarded<int64_t>& drawn) {
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
    // the ladder; last: offset, growth, scale of unary scores
    {"every rung", {2, 3}, {1, 3}, 6, {3, 2}, 0, 1, kHopperShared, true, true, false, 0, 6, 1},
    {"every rung, holes", {12}, {12}, 6, {3, 2}, 0.15, 1, kHopperShared, true, true, false, 0, 1.5, 4},
    {"on the brink", {9}, {1}, 12, {4, 5}, 0.2, 2, kHopperShared, true, true, false, 0, 1, 9},
    {"on the brink in float64", {9}, {1}, 12, {4, 3}, 0.2, 20, kHopperShared, true, true, false, 0, 1, 90},
    {"far apart", {12}, {1}, 5, {3, 2}, 0.4, 2, kHopperShared, true, true, false, 0, 1, 3000},
    {"far apart, mild", {12}, {1}, 5, {3, 2}, 0, 1, kHopperShared, true, true, false, 0, 1, 700},
    {"far from 0", {4}, {1}, 24, {3, 3}, 0, 1, kHopperShared, true, true, false, 3e3},
    {"too far from 0", {6}, {1}, 1, {3, 3}, 0, 1, kHopperShared, false, false, false, 1e6},
    {"thin", {12}, {1}, 6, {2, 2, 2}, 0.3, 2, kHopperShared, false, true, false, 0, 1, 7},
    {"thin in float64", {12}, {1}, 6, {2, 2, 2}, 0.3, 2, kHopperShared, false, true, false, 0, 1, 60},
    {"small backward alone", {16}, {16}, 8, {3, 2}, 0.2, 6},
    {"small backward alone in float64", {16}, {16}, 8, {3, 2}, 0.2, 48},
    {"small backward alone, one chain", {16}, {16}, 5, {8}, 0.6, 6, kHopperShared, false, true, false, 0, 1, 3},
    {"mild at most", {8}, {8}, 3, {4, 3}, 0, 3, kHopperShared, false, false, false, 0, 1.05, 20},
    {"wide at most", {8}, {8}, 3, {4, 3}, 0, 6, kHopperShared, false, true, false, 0, 1.05, 4},
    {"mild at most, of many", {40}, {40}, 1, {2, 2, 2, 2, 2}, 0, 1.8, kHopperShared, false, false, false, 0, 1.01, 1},
    {"wide at most, of many", {12}, {12}, 1, {10, 10, 10}, 0, 2.6, kHopperShared, false, false, false, 0, 1.003, 1},
    {"almost too far from 0", {6}, {1}, 1, {3, 3}, 0, 1, kHopperShared, false, false, false, 1e6 - 2},
    {"long", {3}, {1}, 70, {2, 3}, 0, 0.5},
    {"long and wide", {3}, {1}, 66, {2, 2, 2}, 0.2, 1},
    {"not resident", {2}, {2}, 4, {22, 1}, 0, 1, kScarce, false},
    {"not resident, edges", {2}, {2}, 4, {9, 3}, 0, 1, kScarce, false},
    {"not a number", {2, 3}, {2, 1}, 4, {3, 2}, 0, 1, kHopperShared, false, true, false, 0, 1, -1, NAN},
    {"infinite", {2, 3}, {2, 1}, 4, {3, 2}, 0, 1, kHopperShared, false, true, false, 0, 1, -1, HUGE_VAL},
#if defined(SLV_PTX)  // rows begin at sectors: what ptx/ counts of accesses to memory, it counts of these
    {"aligned", {2}, {1}, 3, {8, 8, 4}, 0, 1, kHopperShared, false},
#endif
};

}  // namespace

int main(int argc, char** argv) {
  return check_kernels(
      "factorial", argc, argv, kCases, [](const Case& o, auto t) { Check<decltype(t)>(o).run(); },
      [](const Case& o) { return o.states() <= 12 && o.n <= 6 && product(o.batch) <= 9; },
      [](const Case& o) { return o.shared; });
}
