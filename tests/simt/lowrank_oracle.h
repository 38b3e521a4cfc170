// Low-rank rules as dense ones, for the textbook recursion of pcfg_oracle.h: what the kernels must compute.
#pragma once
#include "pcfg_oracle.h"

struct RankScores {
  int len, nt, t, r;
  std::function<double(int)> root;
  std::function<double(int, int)> head, left, right;  // (nt, r), (r, s), (r, s)
  std::function<double(int, int)> word;               // of a preterminal, 0..t-1
  std::function<double(int, int, int)> span;          // i, j, nonterminal
};

struct RankPosterior {
  double log_z;
  std::vector<double> root, head, left, right, words, spans;
};

inline RankPosterior rank_posterior(const RankScores& x) {
  const int nt = x.nt, s = nt + x.t, r = x.r;
  std::vector<double> rules(nt * s * s, -HUGE_VAL);
  // calls f(rule, a, q, y, z, score of the rank-one term)
  auto each = [&](auto&& f) {
    for (int a = 0; a < nt; a++)
      for (int y = 0; y < s; y++)
        for (int z = 0; z < s; z++)
          for (int q = 0; q < r; q++) f((a * s + y) * s + z, a, q, y, z, x.head(a, q) + x.left(q, y) + x.right(q, z));
  };
  each([&](int rule, int, int, int, int, double score) { rules[rule] = log_add(rules[rule], score); });
  const TreePosterior p = tree_posterior(
      {x.len, nt, x.t, x.root, [&](int a, int y, int z) { return rules[(a * s + y) * s + z]; }, x.word, x.span});
  RankPosterior out{p.log_z, p.root, {}, {}, {}, p.words, p.spans};
  out.head.assign(nt * r, 0), out.left.assign(r * s, 0), out.right.assign(r * s, 0);
  each([&](int rule, int a, int q, int y, int z, double score) {
    if (!(score > -HUGE_VAL)) return;
    const double part = p.rules[rule] * std::exp(score - rules[rule]);
    out.head[a * r + q] += part, out.left[q * s + y] += part, out.right[q * s + z] += part;
  });
  return out;
}
