// The textbook inside-outside algorithm, one sentence at a time, float64 and log space: what the kernels must compute.
// Every symbol may stand over every span: one that may not has a sum of -inf there.
#pragma once
#include <cmath>
#include <functional>
#include <vector>

struct TreeScores {
  int len, nt, t;
  std::function<double(int)> root;
  std::function<double(int, int, int)> rule;
  std::function<double(int, int)> word;       // of a preterminal, 0..t-1
  std::function<double(int, int, int)> span;  // i, j, nonterminal
  int s() const { return nt + t; }
};

// log(exp(a) + exp(b))
inline double log_add(double a, double b) {
  const double top = std::fmax(a, b);
  return top > -HUGE_VAL ? top + std::log(std::exp(a - top) + std::exp(b - top)) : top;
}

// Places of the symbols of i..j, and the log of the sum over trees, or with `best` the best score, for each of them.
struct TreeInside {
  int n, s;
  std::vector<double> value;
  int at(int i, int j) const { return (i * n + j) * s; }
  double operator()(int i, int j, int symbol) const { return value[at(i, j) + symbol]; }
};
inline TreeInside tree_inside(const TreeScores& x, bool best = false) {
  TreeInside in{x.len, x.s(), std::vector<double>(x.len * x.len * x.s(), -HUGE_VAL)};
  for (int i = 0; i < x.len; i++)
    for (int y = 0; y < x.t; y++) in.value[in.at(i, i) + x.nt + y] = x.word(i, y);
  for (int w = 2; w <= x.len; w++)
    for (int i = 0; i + w <= x.len; i++)
      for (int a = 0; a < x.nt; a++) {
        double& up = in.value[in.at(i, i + w - 1) + a];
        for (int k = i; k < i + w - 1; k++)
          for (int y = 0; y < in.s; y++)
            for (int z = 0; z < in.s; z++) {
              const double term = x.rule(a, y, z) + (in(i, k, y) + in(k + 1, i + w - 1, z));
              up = best ? std::fmax(up, term) : log_add(up, term);
            }
        up += x.span(i, i + w - 1, a);
      }
  return in;
}

struct TreePosterior {
  double log_z = -HUGE_VAL;
  std::vector<double> root, rules, words, spans;  // (nt), (nt, s, s), (len, t), (len, len, nt)
};

inline TreePosterior tree_posterior(const TreeScores& x) {
  const int n = x.len, nt = x.nt, s = x.s();
  TreePosterior p;
  p.root.assign(nt, 0), p.rules.assign(nt * s * s, 0), p.words.assign(n * x.t, 0), p.spans.assign(n * n * nt, 0);
  if (n < 2) return p;
  const TreeInside in = tree_inside(x);
  const std::vector<double>& inside = in.value;
  std::vector<double> outside(n * n * s, -HUGE_VAL);
  auto at = [&](int i, int j) { return in.at(i, j); };
  // calls f(place of the parent, of the left child, of the right child, score of the rule and the span, rule)
  auto each = [&](int i, int j, auto&& f) {
    for (int a = 0; a < nt; a++)
      for (int k = i; k < j; k++)
        for (int y = 0; y < s; y++)
          for (int z = 0; z < s; z++)
            f(at(i, j) + a, at(i, k) + y, at(k + 1, j) + z, x.rule(a, y, z) + x.span(i, j, a), (a * s + y) * s + z);
  };
  for (int a = 0; a < nt; a++) p.log_z = log_add(p.log_z, x.root(a) + inside[at(0, n - 1) + a]);
  if (!(p.log_z > -HUGE_VAL)) return p;
  for (int a = 0; a < nt; a++) outside[at(0, n - 1) + a] = x.root(a) - p.log_z;
  for (int w = n; w >= 2; w--)
    for (int i = 0; i + w <= n; i++)
      each(i, i + w - 1, [&](int up, int left, int right, double score, int rule) {
        const double here = outside[up] + score;
        p.rules[rule] += std::exp(here + inside[left] + inside[right]);
        outside[left] = log_add(outside[left], here + inside[right]);
        outside[right] = log_add(outside[right], here + inside[left]);
      });
  for (int a = 0; a < nt; a++) p.root[a] = std::exp(outside[at(0, n - 1) + a] + inside[at(0, n - 1) + a]);
  for (int i = 0; i < n; i++) {
    for (int y = 0; y < x.t; y++) p.words[i * x.t + y] = std::exp(outside[at(i, i) + nt + y] + x.word(i, y));
    for (int j = i + 1; j < n; j++)
      for (int a = 0; a < nt; a++)
        p.spans[(i * n + j) * nt + a] = std::exp(outside[at(i, j) + a] + inside[at(i, j) + a]);
  }
  return p;
}
