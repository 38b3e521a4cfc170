// Low-rank rules as dense ones, for the textbook recursions of pcfg_oracle.h and pcfg_draws.h: what the kernels must
// compute.
#pragma once
#include "pcfg_draws.h"

template <class R>
struct RankScoresOf {
  int len, nt, t, r;
  std::function<R(int)> root;
  std::function<R(int, int)> head, left, right;  // (nt, r), (r, s), (r, s)
  std::function<R(int, int)> word;               // of a preterminal, 0..t-1
  std::function<R(int, int, int)> span;          // i, j, nonterminal
};
using RankScores = RankScoresOf<double>;

template <class R>
struct RankPosteriorOf {
  R log_z;
  std::vector<R> root, head, left, right, words, spans;
};
using RankPosterior = RankPosteriorOf<double>;

// The same with rules.
template <class R>
TreeScoresOf<R> dense(const RankScoresOf<R>& x) {
  const int nt = x.nt, s = nt + x.t;
  std::vector<R> rules(nt * s * s, R(-HUGE_VAL));
  for (int e = 0; e < nt * s * s; e++)
    for (int q = 0; q < x.r; q++)
      rules[e] = log_add(rules[e], x.head(e / s / s, q) + x.left(q, e / s % s) + x.right(q, e % s));
  return {x.len,  nt,    x.t, x.root, [rules, s](int a, int y, int z) { return rules[(a * s + y) * s + z]; },
          x.word, x.span};
}

template <class R>
RankPosteriorOf<R> rank_posterior(const RankScoresOf<R>& x) {
  using std::exp;
  const int nt = x.nt, s = nt + x.t, r = x.r;
  const TreeScoresOf<R> rules = dense(x);
  const TreePosteriorOf<R> p = tree_posterior(rules);
  RankPosteriorOf<R> out{p.log_z, p.root, {}, {}, {}, p.words, p.spans};
  out.head.assign(nt * r, 0), out.left.assign(r * s, 0), out.right.assign(r * s, 0);
  for (int a = 0; a < nt; a++)
    for (int y = 0; y < s; y++)
      for (int z = 0; z < s; z++)
        for (int q = 0; q < r; q++) {
          const R score = x.head(a, q) + x.left(q, y) + x.right(q, z);
          if (!possible(score)) continue;
          const R part = p.rules[(a * s + y) * s + z] * exp(score - rules.rule(a, y, z));
          out.head[a * r + q] += part, out.left[q * s + y] += part, out.right[q * s + z] += part;
        }
  return out;
}

// As tree_covariances.
inline RankPosterior rank_covariances(const RankScores& x, const RankScores& v) {
  const RankPosteriorOf<Dual> p =
      rank_posterior<Dual>({x.len, x.nt, x.t, x.r, dual(x.root, v.root), dual(x.head, v.head), dual(x.left, v.left),
                            dual(x.right, v.right), dual(x.word, v.word), dual(x.span, v.span)});
  return {p.log_z.slope,   slopes(p.root),  slopes(p.head), slopes(p.left),
          slopes(p.right), slopes(p.words), slopes(p.spans)};
}

// `in` is that of the dense rules.
template <class T>
Event sampled_tree(int n, const RankScores& x, bool has_head, const TreeScores& rules, const TreeInside& in,
                   const NodeWords& words) {
  auto side = [&](auto&& table, int q, int i, int j) {
    double total = -HUGE_VAL;
    for (int y = 0; y < rules.s(); y++) total = log_add(total, table(q, y) + in(i, j, y));
    return total;
  };
  return grow(n, x.len, take_top<T>(rules, in, words), [&](int i, int j, int a) {
    auto split = [&](int q, int k) { return side(x.left, q, i, k) + side(x.right, q, k + 1, j); };
    auto rank = [&](int q) {
      double total = -HUGE_VAL;
      for (int k = i; k < j; k++) total = log_add(total, split(q, k));
      return x.head(a, q) + total;
    };
    const int q = has_head ? take<T>(x.r, words(i, j, 3), rank) : a;
    const int k = i + take<T>(j - i, words(i, j, 0), [&](int v) { return split(q, i + v); });
    const int y = take<T>(rules.s(), words(i, j, 1), [&](int y) { return x.left(q, y) + in(i, k, y); });
    const int z = take<T>(rules.s(), words(i, j, 2), [&](int z) { return x.right(q, z) + in(k + 1, j, z); });
    return Chosen{k, y, z};
  });
}
