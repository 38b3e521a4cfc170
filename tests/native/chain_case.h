// Chains to test kernels on, in memory of exactly their size, and what an independent recursion in log space says of
// them.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <new>
#include <random>
#include <string>
#include <vector>

#include "kernels/chain.h"

namespace driver {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
using Doubles = std::vector<double>;

// Elements whose allocation ends where they end, so that AddressSanitizer sees the first one too many; null where there
// are none, as in an empty tensor. `skew`: they start one element off a cache line, as a slice of a tensor may.
inline bool skew = false;
template <class T>
class Exact {
 public:
  explicit Exact(int64_t n = 0, T fill = T()) : size_(n) {
    if (n == 0) return;
    const int64_t gap = skew ? 1 : 0;
    if (posix_memalign(&memory_, 64, (n + gap) * sizeof(T))) throw std::bad_alloc();
    data_ = static_cast<T*>(memory_) + gap;
    std::fill_n(data_, n, fill);
  }
  ~Exact() { std::free(memory_); }
  Exact(Exact&& o) noexcept : memory_(o.memory_), data_(o.data_), size_(o.size_) {
    o.memory_ = nullptr, o.data_ = nullptr, o.size_ = 0;
  }
  Exact& operator=(Exact&& o) noexcept {
    std::swap(memory_, o.memory_), std::swap(data_, o.data_), std::swap(size_, o.size_);
    return *this;
  }
  T* data() const { return data_; }
  int64_t size() const { return size_; }
  T& operator[](int64_t i) const { return data_[i]; }
  void refill(T x) { std::fill_n(data_, size_, x); }

 private:
  void* memory_ = nullptr;
  T* data_ = nullptr;
  int64_t size_ = 0;
};

// The draw of a position: Philox4x32-10 as published (Salmon et al. 2011), in [0, 1).
inline double draw(uint64_t seed, int64_t position, int64_t item, int64_t sample, int bits) {
  uint32_t c[4] = {uint32_t(position >> 2), uint32_t(item), uint32_t(sample), 0};
  uint32_t key[2] = {uint32_t(seed), uint32_t(seed >> 32)};
  for (int round = 0; round < 10; round++) {
    const uint64_t a = uint64_t(0xD2511F53) * c[0], b = uint64_t(0xCD9E8D57) * c[2];
    const uint32_t next[4] = {uint32_t(b >> 32) ^ c[1] ^ key[0], uint32_t(b), uint32_t(a >> 32) ^ c[3] ^ key[1],
                              uint32_t(a)};
    std::copy_n(next, 4, c);
    key[0] += 0x9E3779B9, key[1] += 0xBB67AE85;
  }
  return std::ldexp(double(c[position & 3] >> (32 - bits)), -bits);
}

// What the potentials are like; each asks another rung of the ladder to answer.
enum Kind { Mild, Holes, Wide, WideHoles, Far, FarHoles, Extreme, Peaked, Shifted, DeadRows, Impossible, kKinds };
constexpr const char* kKindNames[kKinds] = {"mild",    "holes",  "wide",    "wide holes", "far",       "far holes",
                                            "extreme", "peaked", "shifted", "dead rows",  "impossible"};

struct Spec {
  int64_t batch, n, k;
  Kind kind;
  bool per_step, ragged, initial, final;
  int64_t matrices;  // item b uses matrix b % matrices
  uint64_t seed;
  std::string text() const {
    return std::string(kKindNames[kind]) + " batch=" + std::to_string(batch) + " n=" + std::to_string(n) +
           " k=" + std::to_string(k) + " matrices=" + std::to_string(matrices) + (per_step ? " per step" : "") +
           (ragged ? " ragged" : "") + (initial ? " initial" : "") + (final ? " final" : "") +
           " seed=" + std::to_string(seed);
  }
};

template <class T>
struct Problem {
  Spec spec;
  Exact<T> unary, transition, initial, final;
  Exact<int64_t> matrix, end_row, length;
  std::mt19937_64 random;

  explicit Problem(const Spec& s) : spec(s), random(s.seed) {
    const int64_t steps = s.per_step ? std::max<int64_t>(s.n - 1, 0) : 1, ends = s.seed % 2 ? s.batch : 1;
    if (s.ragged) {
      length = Exact<int64_t>(s.batch);
      for (int64_t b = 0; b < s.batch; b++) length[b] = random() % (s.n + 1);
    }
    if (s.matrices > 1) matrix = rows(s.matrices);
    if (ends > 1) end_row = rows(ends);
    unary = scores(s.batch * s.n * s.k, unary_scale(), false);
    transition = scores(s.matrices * steps * s.k * s.k, transition_scale(), true);
    if (s.initial) initial = scores(ends * s.k, 1, false);
    if (s.final) final = scores(ends * s.k, 1, false);
    forbid(steps);
    pad(steps);
  }
  slv::Chain<T> chain() const {
    return {spec.batch,     spec.n,       spec.k,        spec.per_step,  unary.data(),   transition.data(),
            initial.data(), final.data(), matrix.data(), end_row.data(), end_row.data(), length.data()};
  }
  int64_t len(int64_t b) const { return spec.ragged ? length[b] : spec.n; }

 private:
  static constexpr bool kNarrow = sizeof(T) == 4;
  Exact<int64_t> rows(int64_t count) {
    Exact<int64_t> map(spec.batch);
    for (int64_t b = 0; b < spec.batch; b++) map[b] = b % count;
    return map;
  }
  double uniform() { return double(random() >> 11) * 0x1p-53; }
  double normal() { return std::sqrt(-2 * std::log(1 - uniform())) * std::cos(6.283185307179586 * uniform()); }
  double unary_scale() const {
    return spec.kind == Peaked ? 100 : spec.kind == Extreme ? 1000 : spec.kind == Wide || spec.kind == Far ? 3 : 1;
  }
  double transition_scale() const {  // half the range of a uniform distribution; 0: normal
    if (spec.kind == Wide || spec.kind == WideHoles) return kNarrow ? 19 : 170;
    if (spec.kind == Far || spec.kind == FarHoles) return kNarrow ? 60 : 300;
    return spec.kind == Extreme ? 1000 : 0;
  }
  Exact<T> scores(int64_t count, double scale, bool uniformly) {
    const bool holes = spec.kind == Holes || spec.kind == WideHoles || spec.kind == FarHoles;
    Exact<T> out(count);
    for (int64_t i = 0; i < count; i++) {
      double x = uniformly && scale > 0 ? scale * (2 * uniform() - 1) : normal() * (uniformly ? 1 : scale);
      if (spec.kind == Shifted && !uniformly) x += spec.seed % 2 ? 1e5 : -1e5;
      out[i] = holes && uniform() < 0.15 ? T(-kInf) : T(x);
    }
    return out;
  }
  void forbid(int64_t steps) {
    const int64_t n = spec.n, k = spec.k;
    if (spec.kind == DeadRows)
      for (int64_t i = 0; i < spec.matrices * steps * k; i++)
        if (i % k % 3 == 1) std::fill_n(transition.data() + i * k, k, T(-kInf));
    for (int64_t b = 0; spec.kind == Impossible && n > 0 && b < spec.batch; b += 2)
      std::fill_n(unary.data() + (b * n + n / 2) * k, k, T(-kInf));
    if (spec.kind == Impossible && spec.matrices > 1) std::fill_n(transition.data(), steps * k * k, T(-kInf));
  }
  void pad(int64_t steps) {  // what no structure contains must not be seen
    const int64_t n = spec.n, k = spec.k;
    for (int64_t b = 0; b < spec.batch; b++) {
      std::fill(unary.data() + (b * n + len(b)) * k, unary.data() + (b + 1) * n * k, T(kNaN));
      if (spec.per_step && spec.matrices == spec.batch)
        std::fill(transition.data() + (b * steps + std::clamp<int64_t>(len(b) - 1, 0, steps)) * k * k,
                  transition.data() + (b + 1) * steps * k * k, T(kNaN));
    }
  }
};

// The potentials of one item in float64, initial and final among the unary ones.
struct Parts {
  int64_t len, k;
  Doubles unary, edges;
  double score(const int64_t* z) const {
    double sum = 0;
    for (int64_t t = 0; t < len; t++) sum += unary[t * k + z[t]] + (t ? edges[((t - 1) * k + z[t - 1]) * k + z[t]] : 0);
    return sum;
  }
  bool in_range(const int64_t* z) const {
    return std::all_of(z, z + len, [this](int64_t s) { return s >= 0 && s < k; });
  }
};
template <class T>
Parts parts_of(const slv::Chain<T>& c, int64_t b) {
  const int64_t len = c.length ? c.length[b] : c.n, k = c.k, steps = std::max<int64_t>(len - 1, 0);
  Parts p{len, k, Doubles(len * k), Doubles(steps * k * k)};
  for (int64_t i = 0; i < len * k; i++) p.unary[i] = c.unary[b * c.n * k + i];
  for (int64_t i = 0; i < k && len > 0; i++) {
    if (c.initial) p.unary[i] += c.initial[(c.initial_row ? c.initial_row[b] : 0) * k + i];
    if (c.final) p.unary[(len - 1) * k + i] += c.final[(c.final_row ? c.final_row[b] : 0) * k + i];
  }
  const int64_t matrix = c.matrix ? c.matrix[b] : 0, stride = c.per_step ? k * k : 0;
  for (int64_t t = 0; t < steps; t++)
    for (int64_t e = 0; e < k * k; e++)
      p.edges[t * k * k + e] = c.transition[matrix * (c.per_step ? c.n - 1 : 1) * k * k + t * stride + e];
  return p;
}

inline double log_sum(const double* x, int64_t n) {
  const double top = n ? *std::max_element(x, x + n) : -kInf;
  if (top == -kInf) return top;
  double sum = 0;
  for (int64_t i = 0; i < n; i++) sum += std::exp(x[i] - top);
  return top + std::log(sum);
}

// What is true of one item. Rows of alpha and beta are normalised, so that they stay small.
struct Answer {
  double log_z = 0, best = 0;
  Doubles alpha, mu, edges, best_mu, best_edges;  // (len, k) and (len-1, k, k)
  bool possible() const { return log_z > -kInf; }

  explicit Answer(const Parts& p) : alpha(p.unary), mu(p.len * p.k), edges(p.edges.size()), best_edges(p.edges.size()) {
    const int64_t k = p.k;
    Doubles beta(p.len * k), up(p.unary), down(p.len * k), term(k);
    for (int64_t t = 0; t < p.len; t++) {
      for (int64_t j = 0; t > 0 && j < k; j++) {
        double most = -kInf;
        for (int64_t i = 0; i < k; i++) {
          const double edge = p.edges[((t - 1) * k + i) * k + j];
          term[i] = alpha[(t - 1) * k + i] + edge;
          most = std::max(most, up[(t - 1) * k + i] + edge);
        }
        alpha[t * k + j] += log_sum(term.data(), k);
        up[t * k + j] += most;
      }
      log_z += normalise(&alpha[t * k], k);
    }
    for (int64_t t = p.len - 2; t >= 0; t--) {
      for (int64_t i = 0; i < k; i++) {
        double most = -kInf;
        for (int64_t j = 0; j < k; j++) {
          const double x = p.edges[(t * k + i) * k + j] + p.unary[(t + 1) * k + j];
          term[j] = x + beta[(t + 1) * k + j];
          most = std::max(most, x + down[(t + 1) * k + j]);
        }
        beta[t * k + i] = log_sum(term.data(), k);
        down[t * k + i] = most;
      }
      normalise(&beta[t * k], k);
    }
    best_mu.resize(p.len * k);
    for (int64_t i = 0; i < p.len * k; i++) mu[i] = alpha[i] + beta[i], best_mu[i] = up[i] + down[i];
    for (int64_t t = 0; t < p.len; t++) to_weights(&mu[t * k], k);
    for (size_t e = 0; e < edges.size(); e++) {
      const int64_t i = e / k, j = e % k + (i / k + 1) * k;  // among the rows of all steps
      edges[e] = alpha[i] + p.edges[e] + p.unary[j] + beta[j];
      best_edges[e] = up[i] + p.edges[e] + p.unary[j] + down[j];
    }
    for (size_t e = 0; e < edges.size(); e += k * k) to_weights(&edges[e], k * k);
    if (p.len > 0) best = *std::max_element(up.end() - k, up.end());
  }

 private:
  static double normalise(double* row, int64_t k) {
    const double sum = log_sum(row, k);
    for (int64_t i = 0; i < k && sum > -kInf; i++) row[i] -= sum;
    return sum;
  }
  void to_weights(double* row, int64_t n) const {
    const double sum = possible() ? log_sum(row, n) : -kInf;
    for (int64_t i = 0; i < n; i++) row[i] = sum > -kInf ? std::exp(row[i] - sum) : 0;
  }
};

}  // namespace driver
