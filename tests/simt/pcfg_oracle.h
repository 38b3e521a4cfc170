// The textbook inside-outside algorithm, one sentence at a time, float64 and log space: what the kernels must compute.
// Every symbol may stand over every span: one that may not has a sum of -inf there.
#pragma once
#include <cmath>
#include <functional>
#include <vector>

// A number and its derivative in one direction. What is impossible has none.
struct Dual {
  double value, slope;
  Dual(double value = 0, double slope = 0) : value(value), slope(slope) {}
  Dual& operator+=(Dual x) { return value += x.value, slope += x.slope, *this; }
};
inline Dual operator+(Dual a, Dual b) { return a += b; }
inline Dual operator-(Dual a, Dual b) { return {a.value - b.value, a.slope - b.slope}; }
inline Dual operator*(Dual a, Dual b) { return {a.value * b.value, a.value * b.slope + a.slope * b.value}; }
inline Dual weighed(double weight, Dual x) { return {weight, weight > 0 ? weight * x.slope : 0}; }
inline Dual exp(Dual x) { return weighed(std::exp(x.value), x); }
inline Dual fmax(Dual a, Dual b) { return a.value >= b.value ? a : b; }
inline bool possible(double x) { return x > -HUGE_VAL; }
inline bool possible(Dual x) { return possible(x.value); }

// log(exp(a) + exp(b))
inline double log_add(double a, double b) {
  const double top = std::fmax(a, b);
  return top > -HUGE_VAL ? top + std::log(std::exp(a - top) + std::exp(b - top)) : top;
}
inline Dual log_add(Dual a, Dual b) {
  const double sum = log_add(a.value, b.value);
  if (!possible(sum)) return sum;
  return {sum, weighed(std::exp(a.value - sum), a).slope + weighed(std::exp(b.value - sum), b).slope};
}

template <class R>
struct TreeScoresOf {
  int len, nt, t;
  std::function<R(int)> root;
  std::function<R(int, int, int)> rule;
  std::function<R(int, int)> word;       // of a preterminal, 0..t-1
  std::function<R(int, int, int)> span;  // i, j, nonterminal
  int s() const { return nt + t; }
};
using TreeScores = TreeScoresOf<double>;

// Places of the symbols of i..j, and the log of the sum over trees, or with `best` the best score, for each of them.
template <class R>
struct TreeInsideOf {
  int n, s;
  std::vector<R> value;
  int at(int i, int j) const { return (i * n + j) * s; }
  R operator()(int i, int j, int symbol) const { return value[at(i, j) + symbol]; }
};
using TreeInside = TreeInsideOf<double>;
template <class R>
TreeInsideOf<R> tree_inside(const TreeScoresOf<R>& x, bool best = false) {
  using std::fmax;
  TreeInsideOf<R> in{x.len, x.s(), std::vector<R>(x.len * x.len * x.s(), R(-HUGE_VAL))};
  for (int i = 0; i < x.len; i++)
    for (int y = 0; y < x.t; y++) in.value[in.at(i, i) + x.nt + y] = x.word(i, y);
  for (int w = 2; w <= x.len; w++)
    for (int i = 0; i + w <= x.len; i++)
      for (int a = 0; a < x.nt; a++) {
        R& up = in.value[in.at(i, i + w - 1) + a];
        for (int k = i; k < i + w - 1; k++)
          for (int y = 0; y < in.s; y++)
            for (int z = 0; z < in.s; z++) {
              const R term = x.rule(a, y, z) + (in(i, k, y) + in(k + 1, i + w - 1, z));
              up = best ? fmax(up, term) : log_add(up, term);
            }
        up += x.span(i, i + w - 1, a);
      }
  return in;
}

template <class R>
struct TreePosteriorOf {
  R log_z = -HUGE_VAL;
  std::vector<R> root, rules, words, spans;  // (nt), (nt, s, s), (len, t), (len, len, nt)
};
using TreePosterior = TreePosteriorOf<double>;

template <class R>
TreePosteriorOf<R> tree_posterior(const TreeScoresOf<R>& x) {
  using std::exp;
  const int n = x.len, nt = x.nt, s = x.s();
  TreePosteriorOf<R> p;
  p.root.assign(nt, 0), p.rules.assign(nt * s * s, 0), p.words.assign(n * x.t, 0), p.spans.assign(n * n * nt, 0);
  if (n < 2) return p;
  const TreeInsideOf<R> in = tree_inside(x);
  const std::vector<R>& inside = in.value;
  std::vector<R> outside(n * n * s, R(-HUGE_VAL));
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
  if (!possible(p.log_z)) return p;
  for (int a = 0; a < nt; a++) outside[at(0, n - 1) + a] = x.root(a) - p.log_z;
  for (int w = n; w >= 2; w--)
    for (int i = 0; i + w <= n; i++)
      each(i, i + w - 1, [&](int up, int left, int right, R score, int rule) {
        const R here = outside[up] + score;
        p.rules[rule] += exp(here + inside[left] + inside[right]);
        outside[left] = log_add(outside[left], here + inside[right]);
        outside[right] = log_add(outside[right], here + inside[left]);
      });
  for (int a = 0; a < nt; a++) p.root[a] = exp(outside[at(0, n - 1) + a] + inside[at(0, n - 1) + a]);
  for (int i = 0; i < n; i++) {
    for (int y = 0; y < x.t; y++) p.words[i * x.t + y] = exp(outside[at(i, i) + nt + y] + x.word(i, y));
    for (int j = i + 1; j < n; j++)
      for (int a = 0; a < nt; a++) p.spans[(i * n + j) * nt + a] = exp(outside[at(i, j) + a] + inside[at(i, j) + a]);
  }
  return p;
}

// A function of numbers, from those that give values and slopes.
inline auto dual(auto value, auto slope) {
  return [=](auto... at) { return Dual(value(at...), slope(at...)); };
}
inline std::vector<double> slopes(const std::vector<Dual>& from) {
  std::vector<double> out;
  for (const Dual& d : from) out.push_back(d.slope);
  return out;
}

// The derivative of the posterior, and E f in place of log Z: f = <the direction, parts>, with which these are the
// covariances of the parts.
inline TreePosterior tree_covariances(const TreeScores& x, const TreeScores& v) {
  const TreePosteriorOf<Dual> p = tree_posterior<Dual>(
      {x.len, x.nt, x.t, dual(x.root, v.root), dual(x.rule, v.rule), dual(x.word, v.word), dual(x.span, v.span)});
  return {p.log_z.slope, slopes(p.root), slopes(p.rules), slopes(p.words), slopes(p.spans)};
}
