// Every entry of the factorial chain's kernel tables on small problems, without torch, as chain_driver.cpp does it.
// What is true is found on the product space, where the chains are one chain.
#include "chain_checks.h"

namespace driver {

constexpr Kind kTried[] = {Mild, Holes, Wide, WideHoles, Far, FarHoles, Extreme, Peaked, Shifted, Impossible};

struct FactorialSpec {
  std::vector<int64_t> sizes;
  int64_t batch, n, matrices;  // item b uses matrix b % matrices
  Kind kind;
  bool ragged, initial;
  uint64_t seed;
  int64_t sum(int power) const {
    int64_t s = 0;
    for (int64_t k : sizes) s += power == 1 ? k : k * k;
    return s;
  }
  int64_t states() const {
    int64_t s = 1;
    for (int64_t k : sizes) s *= k;
    return s;
  }
  std::string text() const {
    std::string s = std::string(kKindNames[kind]) + " sizes=";
    for (int64_t k : sizes) s += std::to_string(k) + ",";
    return s + " batch=" + std::to_string(batch) + " n=" + std::to_string(n) + " matrices=" + std::to_string(matrices) +
           (ragged ? " ragged" : "") + (initial ? " initial" : "") + " seed=" + std::to_string(seed);
  }
};

template <class T>
struct FactorialProblem {
  FactorialSpec spec;
  std::mt19937_64 random;
  Exact<int64_t> sizes, matrix, length;
  Exact<T> unary, transition, initial;

  explicit FactorialProblem(const FactorialSpec& s) : spec(s), random(s.seed), sizes(int64_t(s.sizes.size())) {
    std::copy(s.sizes.begin(), s.sizes.end(), sizes.data());
    if (s.ragged) {
      length = Exact<int64_t>(s.batch);
      for (int64_t b = 0; b < s.batch; b++) length[b] = random() % (s.n + 1);
    }
    if (s.matrices > 1) {
      matrix = Exact<int64_t>(s.batch);
      for (int64_t b = 0; b < s.batch; b++) matrix[b] = b % s.matrices;
    }
    unary = scores(s.batch * s.n * s.states(), unary_scale(), s.kind == Shifted ? 1e5 : 0);
    transition = scores(s.matrices * s.sum(2), transition_scale(), 0);
    if (s.initial) initial = scores(s.matrices * s.sum(1), 1, 0);
    for (int64_t b = 0; s.kind == Impossible && s.n > 0 && b < s.batch; b += 2)
      std::fill_n(unary.data() + (b * s.n + s.n / 2) * s.states(), s.states(), T(-kInf));
    for (int64_t b = 0; b < s.batch; b++)  // what no structure contains must not be seen
      std::fill(unary.data() + (b * s.n + len(b)) * s.states(), unary.data() + (b + 1) * s.n * s.states(), T(kNaN));
  }
  int64_t len(int64_t b) const { return spec.ragged ? length[b] : spec.n; }
  Factorial<T> chain() const {
    const int64_t m = sizes.size();
    return {spec.batch,     spec.n,        m,
            spec.states(),  sizes.data(),  spec.sum(2),
            spec.sum(1),    unary.data(),  transition.data(),
            initial.data(), matrix.data(), matrix.data(),
            length.data()};
  }
  // The item as one chain on the product space.
  Parts parts(int64_t b) const {
    const Factorial<T> c = chain();
    const int64_t states = c.states, steps = std::max<int64_t>(len(b) - 1, 0);
    Parts p{len(b), states, Doubles(len(b) * states), Doubles(steps * states * states)};
    std::copy_n(c.unary + b * c.n * states, p.unary.size(), p.unary.begin());
    Doubles joint(states * states);
    int64_t inner = states;
    c.each_chain([&](int64_t, int64_t k, int64_t edge, int64_t end) {
      inner /= k;
      for (int64_t z = 0; z < states; z++) {
        const int64_t i = z / inner % k;
        if (c.initial && p.len > 0) p.unary[z] += double(c.initial_of(b)[end + i]);
        for (int64_t y = 0; y < states; y++)
          joint[z * states + y] += double(c.transition_of(b)[edge + i * k + y / inner % k]);
      }
    });
    for (int64_t t = 0; t < steps; t++) std::copy(joint.begin(), joint.end(), &p.edges[t * states * states]);
    return p;
  }

 private:
  static constexpr bool kNarrow = sizeof(T) == 4;
  double uniform() { return double(random() >> 11) * 0x1p-53; }
  double unary_scale() const { return spec.kind == Peaked ? 100 : spec.kind == Extreme ? 1000 : 2; }
  double transition_scale() const {  // half the range, shared out among the chains
    const double all = spec.kind == Wide || spec.kind == WideHoles ? (kNarrow ? 16 : 150)
                       : spec.kind == Far || spec.kind == FarHoles ? (kNarrow ? 60 : 300)
                       : spec.kind == Extreme                      ? 1000
                                                                   : 4;
    return all / double(spec.sizes.size());
  }
  Exact<T> scores(int64_t count, double scale, double shift) {
    const bool holes = spec.kind == Holes || spec.kind == WideHoles || spec.kind == FarHoles;
    Exact<T> out(count);
    for (int64_t i = 0; i < count; i++) {
      const double x = scale * (2 * uniform() - 1) + shift;
      out[i] = holes && uniform() < 0.15 ? T(-kInf) : T(x);
    }
    return out;
  }
};

template <class T>
const auto& lane_kernels() {
  if constexpr (sizeof(T) == 4)
    return factorial_kernels().lanes_f32;
  else
    return factorial_kernels().lanes_f64;
}
template <class T>
const auto& exact_kernels() {
  if constexpr (sizeof(T) == 4)
    return factorial_kernels().log_f32;
  else
    return factorial_kernels().log_f64;
}

template <class T>
struct FactorialChecks : Judge<T> {
  using Base = Judge<T>;
  using Base::unwritten, Base::kSamples, Base::n, Base::steps, Base::batch, Base::answers, Base::len, Base::weight_of,
      Base::check_log_z, Base::check_weights, Base::check_path, Base::check_best, Base::check_sample, Base::seed;
  const FactorialProblem<T> problem;
  const Factorial<T> c;
  const int64_t states, edges;

  explicit FactorialChecks(const FactorialSpec& s) : problem(s), c(problem.chain()), states(c.states), edges(c.edges) {
    std::vector<Parts> items;
    for (int64_t b = 0; b < s.batch; b++) items.push_back(problem.parts(b));
    this->hear(s.n, states, s.seed, s.kind == Shifted || s.kind == Extreme, std::move(items));
  }
  // What the joint edges of item b say of the chains' own, step by step.
  Doubles counts(int64_t b) const {
    Doubles out(answers[b].edges.size() / (states * states) * edges);
    for (size_t e = 0; e < answers[b].edges.size(); e++) {
      const int64_t t = e / (states * states), z = e / states % states, y = e % states;
      int64_t inner = states;
      c.each_chain([&](int64_t, int64_t k, int64_t edge, int64_t) {
        inner /= k;
        out[t * edges + edge + z / inner % k * k + y / inner % k] += answers[b].edges[e];
      });
    }
    return out;
  }
  Doubles summed(const Doubles& counts) const {
    Doubles out(edges);
    for (size_t e = 0; e < counts.size(); e++) out[e % edges] += counts[e];
    return out;
  }

  void run() {
    const int64_t most = lane_kernels<T>().block(c);
    for (int64_t first = 0; first < batch; first += most) block(first, std::min(most, batch - first));
    for (int64_t b = 0; b < std::min<int64_t>(batch, 2); b++) item(b);
  }
  void block(int64_t first, int64_t rows) {
    const auto& kernel = lane_kernels<T>();
    Exact<int64_t> items(rows);
    for (int64_t r = 0; r < rows; r++) items[r] = first + (r * 7 + 3) % rows;
    if (rows % 7 == 0)
      for (int64_t r = 0; r < rows; r++) items[r] = first + r;
    Exact<T> chart(rows * n * states, unwritten), scales(rows * n, unwritten), meta(batch * kMeta, unwritten);
    Exact<double> log_z(batch, kNaN), again(batch, kNaN);
    kernel.forward(c, items.data(), int(rows), chart.data(), scales.data(), meta.data(), log_z.data());
    kernel.forward(c, items.data(), int(rows), nullptr, nullptr, nullptr, again.data());
    for (int64_t b = first; b < first + rows; b++) {
      check_log_z("forward", b, log_z[b]);
      check(again[b] == log_z[b], "forward without a chart", again[b], log_z[b]);
    }
    for (int mode = 0; mode < 4; mode++) backward(items, chart, scales, meta, mode % 2, mode / 2);
    Exact<int64_t> drawn(kSamples * batch * n, -1), best(batch * n, -9);
    kernel.sample(c, items.data(), int(rows), seed, kSamples, drawn.data());
    kernel.argmax(c, items.data(), int(rows), best.data());
    for (int64_t b = first; b < first + rows; b++) {
      check_best("argmax", b, best.data() + b * n, sizeof(T) == 4 ? 1e-6 : 1e-13);
      for (int64_t s = 0; s < kSamples; s++) check_sample("sample", b, seed, s, drawn.data() + (s * batch + b) * n);
    }
  }
  void backward(const Exact<int64_t>& items, const Exact<T>& chart, const Exact<T>& scales, const Exact<T>& meta,
                bool per_step, bool ones) {
    const int64_t rows = items.size(), size = per_step ? steps * edges : edges;
    Exact<double> weights(ones ? 0 : batch);
    for (int64_t b = 0; b < weights.size(); b++) weights[b] = weight_of(b);
    Exact<T> unary(batch * n * states, unwritten), counted(rows * size, unwritten);
    T* to[kMostLanes];
    for (int64_t r = 0; r < rows; r++) to[r] = counted.data() + r * size;
    lane_kernels<T>().backward(c, items.data(), int(rows), chart.data(), scales.data(), meta.data(), weights.data(),
                               unary.data(), to, per_step);
    for (int64_t r = 0; r < rows; r++) {
      const int64_t b = items[r];
      const double weight = ones ? 1 : weight_of(b);
      check_weights("backward", unary.data() + b * n * states, n * states, answers[b].mu, weight);
      const Doubles expected = counts(b);
      check_weights("edges", to[r], size, per_step ? expected : summed(expected), weight, double(n));
    }
  }
  void item(int64_t b) {
    const auto& kernel = exact_kernels<T>();
    check_log_z("log space", b, kernel.log_partition(c, b));
    const double weight = weight_of(b);
    Exact<T> unary(n * states, unwritten), each(steps * edges, unwritten);
    Exact<double> sum(edges, 0.5);
    kernel.marginals(c, b, weight, unary.data(), EdgeSink<T>{nullptr, sum.data(), 0});
    check_weights("log marginals", unary.data(), n * states, answers[b].mu, weight);
    const Doubles expected = counts(b);
    Doubles total = summed(expected);
    for (double& x : total) x = 0.5 + weight * x;
    check_weights("log edges", sum.data(), edges, total, 1, std::abs(weight) * double(n) + 1);
    kernel.marginals(c, b, weight, unary.data(), EdgeSink<T>{each.data(), nullptr, 0});
    check_weights("log edges, per step", each.data(), steps * edges, expected, weight);
    second_order(b);
  }
  // H is symmetric, and <v, mu> comes out with H v.
  void second_order(int64_t b) {
    const auto& kernel = exact_kernels<T>();
    FactorialSpec like = problem.spec;
    like.kind = Mild, like.ragged = false, like.seed += 1000;
    const FactorialProblem<T> u(like), v((like.seed += 1000, like));
    auto product = [&](const FactorialProblem<T>& x, const FactorialProblem<T>& y, double& mean) {
      Exact<T> unary(n * states, unwritten);
      Exact<double> sum(edges);
      mean = kernel.hvp(c, b, 1, x.chain(), unary.data(), EdgeSink<T>{nullptr, sum.data(), 0});
      return dot(y.chain(), b, unary.data(), sum);
    };
    double mean = 0, other = 0;
    const double uv = product(u, v, other), vu = product(v, u, mean);
    const double size = double(n) * double(n) + 1;
    check(near(uv, vu, 1e3 * this->probability, size), "symmetric", uv, vu);
    Exact<T> mu(n * states, unwritten);
    Exact<double> sum(edges);
    kernel.marginals(c, b, 1, mu.data(), EdgeSink<T>{nullptr, sum.data(), 0});
    const double expected = dot(v.chain(), b, mu.data(), sum);
    check(near(mean, expected, 10 * this->probability, size), "mean", mean, expected);
  }
  double dot(const Factorial<T>& v, int64_t b, const T* unary, const Exact<double>& counted) const {
    double sum = 0;
    for (int64_t i = 0; i < len(b) * states; i++) sum += double(unary[i]) * double(v.unary[b * n * states + i]);
    for (int64_t e = 0; e < edges; e++) sum += counted[e] * double(v.transition_of(b)[e]);
    int64_t inner = states;
    c.each_chain([&](int64_t, int64_t k, int64_t, int64_t end) {
      inner /= k;
      for (int64_t z = 0; v.initial && len(b) > 0 && z < states; z++)
        sum += double(unary[z]) * double(v.initial_of(b)[end + z / inner % k]);
    });
    return sum;
  }
};

template <class T>
void run_all() {
  const std::vector<std::vector<int64_t>> kSizes = {{1},    {3},    {17},   {2, 3},  {1, 4, 1}, {2, 2, 3}, {5, 4},
                                                    {8, 3}, {9, 2}, {4, 2}, {16, 2}, {8, 8},    {4, 4, 4}, {2, 8, 4}};
  constexpr int64_t kRows[] = {1, 2, 3, 7, 8, 16, 17, 33};
  uint64_t cases = 0;
  for (const auto& sizes : kSizes)
    for (int64_t n : {0, 1, 2, 5, 34})
      for (Kind kind : kTried) {
        cases++;
        int64_t batch = kRows[cases * 5 / 2 % std::size(kRows)];
        if (n > 5 && cases % 8) batch = 1 + int64_t(cases % 3);
        const int64_t matrices = cases % 3 == 0 ? 1 : cases % 3 == 1 ? std::min<int64_t>(2, batch) : batch;
        const FactorialSpec spec{sizes, batch, n, matrices, kind, cases % 4 < 2, cases % 5 < 3, cases};
        context = (sizeof(T) == 4 ? "float32 " : "float64 ") + spec.text();
        skew = cases % 4 >= 2;
        FactorialChecks<T>(spec).run();
      }
}

}  // namespace driver

int main() {
  driver::run_all<float>();
  driver::run_all<double>();
  std::printf("factorial_driver: %s, %d-byte vectors: %lld checks, %lld failed\n", slv::kernels().name,
              slv::kernels().vector_bytes, static_cast<long long>(driver::checks),
              static_cast<long long>(driver::failures));
  return driver::failures != 0;
}
