// The textbook recursions of the chain, one item at a time, float64 and log space: what the kernels must compute.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <vector>

#include "core/philox.h"

using Doubles = std::vector<double>;

// One item's scores, cut to its length; edge(t, i, j) of step t to t + 1.
struct Scores {
  int len, k;
  std::function<double(int, int)> unary;  // ends included
  std::function<double(int, int, int)> edge;
};

inline double log_sum(const Doubles& x) {
  const double top = *std::max_element(x.begin(), x.end());
  if (!(top > -HUGE_VAL)) return top;
  double sum = 0;
  for (double v : x) sum += std::exp(v - top);
  return top + std::log(sum);
}

struct Posterior {
  double log_z = 0;
  Doubles alpha, beta, unary, edges;  // (len, k), (len, k), (len, k), (len - 1, k, k)
};

inline Posterior posterior(const Scores& s) {
  const int k = s.k, n = s.len;
  Posterior p;
  p.alpha.resize(n * k), p.beta.assign(n * k, 0), p.unary.resize(n * k), p.edges.resize(std::max(n - 1, 0) * k * k);
  if (n == 0) return p;
  Doubles terms(k);
  for (int t = 0; t < n; t++)
    for (int j = 0; j < k; j++) {
      for (int i = 0; t > 0 && i < k; i++) terms[i] = p.alpha[(t - 1) * k + i] + s.edge(t - 1, i, j);
      p.alpha[t * k + j] = s.unary(t, j) + (t > 0 ? log_sum(terms) : 0);
    }
  for (int t = n - 2; t >= 0; t--)
    for (int i = 0; i < k; i++) {
      for (int j = 0; j < k; j++) terms[j] = s.edge(t, i, j) + s.unary(t + 1, j) + p.beta[(t + 1) * k + j];
      p.beta[t * k + i] = log_sum(terms);
    }
  p.log_z = log_sum(Doubles(p.alpha.end() - k, p.alpha.end()));
  if (!(p.log_z > -HUGE_VAL)) {
    std::fill(p.unary.begin(), p.unary.end(), 0);
    std::fill(p.edges.begin(), p.edges.end(), 0);
    return p;
  }
  for (int e = 0; e < n * k; e++) p.unary[e] = std::exp(p.alpha[e] + p.beta[e] - p.log_z);
  for (int t = 0; t + 1 < n; t++)
    for (int i = 0; i < k; i++)
      for (int j = 0; j < k; j++)
        p.edges[(t * k + i) * k + j] =
            std::exp(p.alpha[t * k + i] + s.edge(t, i, j) + s.unary(t + 1, j) + p.beta[(t + 1) * k + j] - p.log_z);
  return p;
}

// Ties go to the lowest state, decided from the last step to the first; empty where nothing is possible.
inline std::vector<int64_t> best_path(const Scores& s) {
  const int k = s.k, n = s.len;
  Doubles best(n * k);
  std::vector<int64_t> path(n);
  for (int t = 0; t < n; t++)
    for (int j = 0; j < k; j++) {
      double top = t > 0 ? -HUGE_VAL : 0;
      for (int i = 0; t > 0 && i < k; i++) top = std::max(top, best[(t - 1) * k + i] + s.edge(t - 1, i, j));
      best[t * k + j] = top + s.unary(t, j);
    }
  for (int t = n - 1; t >= 0; t--) {
    double top = -HUGE_VAL;
    int at = -1;
    for (int i = 0; i < k; i++) {
      const double x = best[t * k + i] + (t + 1 < n ? s.edge(t, i, int(path[t + 1])) : 0);
      if (x > top) top = x, at = i;
    }
    if (at < 0) return {};
    path[t] = at;
  }
  return path;
}

template <class T>
std::vector<int64_t> sample_path(const Scores& s, const Posterior& p, uint64_t seed, uint32_t item, uint32_t sample) {
  const int k = s.k, n = s.len;
  std::vector<int64_t> path(n);
  slv::Draws<1> draw{seed, {item}, {sample}};
  for (int t = n - 1; t >= 0; t--) {
    Doubles weight(k);
    for (int i = 0; i < k; i++) weight[i] = p.alpha[t * k + i] + (t + 1 < n ? s.edge(t, i, int(path[t + 1])) : 0);
    const double top = *std::max_element(weight.begin(), weight.end());
    double sum = 0;
    for (double& w : weight) sum += w = std::exp(w - top);
    path[t] = slv::pick(weight.data(), k, sum, double(slv::uniform<T>(*draw(t))));
  }
  return path;
}
