// Comparing what kernels return with what is true.
#pragma once
#include <cstdio>
#include <set>

#include "chain_case.h"
#include "ops/dispatch.h"

namespace driver {

using namespace slv;

inline int64_t checks = 0, failures = 0;
inline std::string context;  // of the checks that follow

inline void check(bool ok, const char* what, double found = 0, double expected = 0) {
  checks++;
  if (ok) return;
  if (failures++ < 20)
    std::printf("FAILED %s: found %.10g, expected %.10g (%s)\n", what, found, expected, context.c_str());
}
// |found - expected| <= tolerance * scale; infinities must be equal.
inline bool near(double found, double expected, double tolerance, double scale) {
  if (std::isinf(expected)) return found == expected;
  return std::abs(found - expected) <= tolerance * scale;
}

// What a kernel drew without replacement: up to `count` events of `size` elements, and their numbers.
struct Drawn {
  Exact<int64_t> events;
  Exact<double> perturbed;
  int64_t size, count;
  Drawn(int64_t size, int64_t count) : events(size * count, -7), perturbed(count, kNaN), size(size), count(count) {}
  DistinctSink sink() { return {events.data(), size, perturbed.data(), 1}; }
  const int64_t* event(int64_t rank) const { return events.data() + rank * size; }
  // Structures, as many as there are, in order, no event twice unless different ones look the same; -1 and -inf behind.
  void check_all(const char* what, int64_t structures, bool different = true) const {
    std::set<std::vector<int64_t>> seen;
    double last = kInf;
    for (int64_t r = 0; r < count; r++) {
      const double g = perturbed[r];
      check((g > -kInf) == (r < structures), what, double(r), double(structures));
      check(g <= last && g < kInf, what, g, last);
      if (g > -kInf)
        check(!different || size == 0 || seen.insert({event(r), event(r) + size}).second, what, double(r), -2);
      else
        check(std::all_of(event(r), event(r) + size, [](int64_t e) { return e == -1; }), what, double(r), -1);
      last = g;
    }
  }
};

template <class T>
struct Tables;
template <>
struct Tables<float> {
  static constexpr double nats = 2e-6, probability = 1e-5;
  static const auto& scan() { return kernels().scan_f32; }
  static const auto& dense() { return kernels().dense_f32; }
  static const auto& log() { return kernels().log_f32; }
  static const auto& relaxed() { return kernels().relaxed_f32; }
  static bool has_nan(const float* x, int64_t n) { return kernels().has_nan_f32(x, n); }
};
template <>
struct Tables<double> {
  static constexpr double nats = 1e-10, probability = 1e-9;
  static const auto& scan() { return kernels().scan_f64; }
  static const auto& dense() { return kernels().dense_f64; }
  static const auto& log() { return kernels().log_f64; }
  static const auto& relaxed() { return kernels().relaxed_f64; }
  static bool has_nan(const double* x, int64_t n) { return kernels().has_nan_f64(x, n); }
};

// What is true of the items of a problem, and how results are compared with it.
template <class T>
struct Judge {
  static constexpr T unwritten = T(kNaN);
  static constexpr int64_t kSamples = 3;
  int64_t n = 0, k = 0, kk = 0, steps = 0, batch = 0;
  uint64_t seed = 0;
  std::vector<Parts> parts;
  std::vector<Answer> answers;
  double probability = 0, nats = 0;

  // rounded: for an accuracy that the input's own rounding allows
  void hear(int64_t steps_of_items, int64_t states, uint64_t with, bool rounded, std::vector<Parts> items) {
    n = steps_of_items, k = states, kk = k * k, steps = std::max<int64_t>(n - 1, 0), batch = int64_t(items.size());
    seed = with;
    probability = std::max(Tables<T>::probability, rounded ? 1e-8 : 0);
    nats = Tables<T>::nats;
    parts = std::move(items);
    for (const Parts& p : parts) answers.emplace_back(p);
  }
  int64_t len(int64_t b) const { return parts[b].len; }
  double weight_of(int64_t b) const {
    constexpr double kWeights[] = {1, -2.5, 0, 1e-9, 3e4, 0.3};
    return kWeights[(uint64_t(b) + seed) % std::size(kWeights)];
  }

  void check_log_z(const char* what, int64_t b, double found) {
    const double z = answers[b].log_z;
    check(near(found, z, nats, std::max({1.0, std::abs(z), std::abs(answers[b].best)})), what, found, z);
  }
  // found (count) against weight * expected (shorter: 0 beyond its end)
  template <class X>
  void check_weights(const char* what, const X* found, int64_t count, const Doubles& expected, double weight,
                     double scale = 1) {
    scale = std::abs(weight) * std::max(1.0, scale) + std::numeric_limits<X>::min() / probability;
    for (int64_t i = 0; i < count; i++) {
      const double e = i < int64_t(expected.size()) ? weight * expected[i] : 0;
      if (!near(found[i], e, probability, scale)) return check(false, what, found[i], e);
    }
    check(true, what);
  }
  Doubles summed_edges(int64_t b, double weight, Doubles sum) const {
    for (size_t e = 0; e < answers[b].edges.size(); e++) sum[e % kk] += weight * answers[b].edges[e];
    return sum;
  }
  // `size`: of the terms that the scores are differences of
  void check_scores(const char* what, const T* found, int64_t count, const Doubles& expected, double size = 1) {
    for (int64_t i = 0; i < count; i++) {
      const double e = i < int64_t(expected.size()) ? expected[i] : -kInf;
      if (!near(found[i], e, nats, std::max(size, std::abs(e)))) return check(false, what, found[i], e);
    }
    check(true, what);
  }
  // A path is -1 in the padding, or everywhere where nothing is possible. Returns whether it is a structure.
  bool check_path(const char* what, int64_t b, const int64_t* z) {
    const bool some = answers[b].possible();
    check(!some || parts[b].in_range(z), what, -2, 0);
    check(std::all_of(z + (some ? len(b) : 0), z + n, [](int64_t s) { return s == -1; }), what, -3, -1);
    return some && parts[b].in_range(z);
  }
  void check_best(const char* what, int64_t b, const int64_t* z, double tolerance) {
    if (!check_path(what, b, z)) return;
    const double score = parts[b].score(z), best = answers[b].best;
    double size = std::max(1.0, std::abs(best));  // of what was added up
    for (int64_t t = 0; t < len(b); t++) size = std::max(size, double(len(b)) * std::abs(parts[b].unary[t * k + z[t]]));
    check(near(score, best, tolerance, size), what, score, best);
  }
  // Each state is the one whose share of [0, 1) its draw fell into, given the state after it.
  void check_sample(const char* what, int64_t b, uint64_t key, int64_t sample, const int64_t* z) {
    if (!check_path(what, b, z)) return;
    check(parts[b].score(z) > -kInf, what, parts[b].score(z), 0);
    Doubles weight(k);
    for (int64_t t = len(b) - 1; t >= 0; t--) {
      const double u = draw(key, t, b, sample, sizeof(T) == 4 ? 24 : 32);
      for (int64_t i = 0; i < k; i++)
        weight[i] = answers[b].alpha[t * k + i] + (t + 1 < len(b) ? parts[b].edges[(t * k + i) * k + z[t + 1]] : 0);
      const double total = log_sum(weight.data(), k);
      double below = 0;
      for (int64_t i = 0; i < z[t]; i++) below += std::exp(weight[i] - total);
      const double above = below + std::exp(weight[z[t]] - total);
      check(u >= below - probability && u <= above + probability, what, u, below);
    }
  }
};

// A chain among its answers.
template <class T>
struct Checks : Judge<T> {
  Problem<T> problem;
  Chain<T> c;
  std::mt19937_64 random;

  explicit Checks(const Spec& s) : problem(s), c(problem.chain()), random(s.seed + 1) {
    std::vector<Parts> items;
    for (int64_t b = 0; b < s.batch; b++) items.push_back(parts_of(c, b));
    // shifts of 1e5 cost five digits
    this->hear(s.n, s.k, s.seed, s.kind == Shifted || s.kind == Extreme, std::move(items));
  }
};

}  // namespace driver
