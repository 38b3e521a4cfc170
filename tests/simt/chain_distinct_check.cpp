// The kernel of paths without replacement on small problems under the emulator, without torch.
#include <queue>

#include "chain_problem.h"
#include "cuda/chain_distinct.h"

namespace {

constexpr uint64_t kSeed = 0x1234567890abcdef;
constexpr int kCount = 40;

struct Start {
  double perturbed, log_prob;
  std::vector<int64_t> path;  // the last states, first of them first
  bool operator<(const Start& o) const { return perturbed < o.perturbed; }
};
double noise(uint32_t item, uint32_t opening, int64_t choice) {
  slv::Draws<1> draw{kSeed, {item}, {opening}, 5};
  return -std::log(-std::log((double(*draw(choice)) + 0.5) * 0x1p-32));
}
// The algorithm of structlv/reference/distinct.py, which keeps every beginning.
std::vector<Start> best_paths(const Scores& s, const Posterior& p, uint32_t item) {
  std::priority_queue<Start> frontier;
  std::vector<Start> found;
  uint32_t openings = 0;
  frontier.push({noise(item, 0, 0), 0, {}});
  while (!frontier.empty() && found.size() < size_t(kCount)) {
    const Start from = frontier.top();
    frontier.pop();
    const int t = s.len - int(from.path.size()) - 1;
    if (t < 0) {
      found.push_back(from);
      continue;
    }
    Doubles scores(s.k), g(s.k);
    for (int i = 0; i < s.k; i++)
      scores[i] = p.alpha[t * s.k + i] + (from.path.empty() ? 0 : s.edge(t, i, int(from.path[0])));
    const double z = log_sum(scores);
    const auto ways = std::count_if(scores.begin(), scores.end(), [](double x) { return x > -HUGE_VAL; });
    openings += ways > 1;
    for (int i = 0; i < s.k; i++) g[i] = from.log_prob + scores[i] - z + (ways > 1 ? noise(item, openings, i) : 0);
    const double most = *std::max_element(g.begin(), g.end());
    for (int i = 0; i < s.k; i++) {
      if (!(scores[i] > -HUGE_VAL)) continue;
      const double v = from.perturbed - g[i] + std::log(-std::expm1(g[i] - most));
      const double given = from.perturbed - std::max(v, 0.0) - std::log1p(std::exp(-std::abs(v)));
      Start next{given, from.log_prob + scores[i] - z, {i}};
      next.path.insert(next.path.end(), from.path.begin(), from.path.end());
      frontier.push(next);
    }
  }
  return found;
}

template <class T>
void check(const Case& o) {
  Problem<T> p(o);
  Guarded<int64_t> states(kCount * p.b * o.n);
  Guarded<double> perturbed(kCount * p.b);
  Distinct d = Distinct::of(kSeed, kCount, kCount, o.n, o.k);
  Guarded<double> memory(d.stride * ((p.b + 1) / 2));
  d.memory = memory.data(), d.states = states.data(), d.perturbed = perturbed.data();
  p.ranges(nullptr, 1, [&](const auto& l) {
    log_forward<T>(p.c, l, nullptr, nullptr, nullptr);
    run_distinct(p.c, l, d, nullptr);
  });
  for (int64_t i = 0; i < p.b; i++) {
    const Scores s = p.scores(i);
    const std::vector<Start> expected = best_paths(s, posterior(s), uint32_t(i));
    for (int r = 0; r < kCount; r++) {
      const bool there = r < int(expected.size());
      close(perturbed[r * p.b + i], there ? expected[r].perturbed : -HUGE_VAL, 1e-9, "perturbed", i);
      for (int t = 0; t < o.n; t++)
        require(states[(r * p.b + i) * o.n + t] == (there && t < p.len(i) ? expected[r].path[t] : -1),
                "path " + std::to_string(r) + " of item " + std::to_string(i));
    }
  }
  states.check("states"), perturbed.check("perturbed"), memory.check("frontier");
}

const Case kCases[] = {
    {"partly shared", {2, 3}, {2, 1}, 5, 5, false, 0, 1},
    {"shared", {9}, {1}, 4, 3, false, 0, 1},
    {"holes", {4}, {4}, 6, 9, false, 0.25, 1},
    {"per step", {4}, {4}, 4, 9, true, 0.2, 1},
    {"per step shared", {4}, {1}, 3, 34, true, 0, 1, 2, kHopperShared, true, false},
    {"fewer than are wanted", {4}, {4}, 2, 2, false, 0, 1},
    {"few possible", {8}, {8}, 5, 4, false, 0.6, 1},
    {"one state", {3}, {3}, 3, 1, false, 0, 1},
    {"pruned", {6}, {1}, 5, 136, false, 0, 0.1},
    // nothing that is dropped could be made up for by what is opened later
    {"pruned, one step", {12}, {1}, 1, 161, false, 0, 1, 1, kHopperShared, false},
    {"pruned, one step, holes", {24}, {1}, 1, 190, false, 0.1, 1, 1, kHopperShared, false},
    {"far apart", {5}, {1}, 5, 7, false, 0.1, 700},
#if defined(SLV_PTX)  // rows begin at sectors: what ptx/ counts of accesses to memory, it counts of these
    {"aligned", {2}, {1}, 3, 64, false, 0, 1, 1, kHopperShared, false},
#endif
};

}  // namespace

int main(int argc, char** argv) {
  return check_kernels(
      "chain_distinct", argc, argv, kCases, [](const Case& o, auto t) { check<decltype(t)>(o); },
      [](const Case& o) { return o.k <= 9 && o.n <= 12 && product(o.batch) <= 9; },
      [](const Case& o) { return o.shared; });
}
