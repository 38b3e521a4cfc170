// From the adjoints of spans to those of what words gave to the rules, and to the weights of rules and words: an
// adjoint times a rule is a probability. Every sum is a thread's own, or a warp's.
#pragma once
#include "cuda/pcfg_adjoint.cuh"

namespace slv::cuda {

// words_left and words_right of every word: a thread has one pair of nonterminals of one word.
template <class T>
SLV_KERNEL(kLogThreads)
pcfg_word_adjoints(Pcfg<T> g, ScaledPcfg<T> s, TileSpace<T> space, TreeAdjoints<T> adjoints) {
  const int64_t at = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, word = at / (int64_t(g.nt) * g.nt);
  if (word >= space.count * g.n) return;
  const int pair = int(at - word * g.nt * g.nt), a = pair / g.nt, z = pair % g.nt, i = int(word % g.n);
  const ScaledSentence<T> x(g, s, space.first + word / g.n);
  const ItemAdjoints<T> d{x, adjoints, word / g.n};
  if (i >= x.len || s.redo[x.item] != T(0)) return;
  T left = 0, right = 0;
  for (int w = 3; i + w <= x.len; w++) left += d.left(i, w)[a] * x.inside(i + 1, w - 1)[z];
  for (int w = 3; w <= i + 1; w++) right += d.right(i - w + 1, w)[a] * x.inside(i - w + 1, w - 1)[z];
  d.words_left(i, a)[z] = left;
  d.words_right(i, a)[z] = right;
}

// What an item gives to the rules of nonterminals a .. with one pair of children, by its kind.
template <class T>
struct RuleTerms {
  const ItemAdjoints<T>& d;
  const Widths& widths;
  int a[kTreeTile];
  SLV_DEVICE void nodes(int pair, double (&sums)[kTreeTile]) const {
    const int nt = d.x.g.nt, size = nt * nt;
    for (int w = widths.from > 4 ? widths.from : 4; w <= widths.to; w++)
      add_terms<T>(d.x.len - w + 1, sums, [&](int i, T(&parts)[kTreeTile]) {
        const T both = d.pairs(widths, 0, w)[int64_t(i) * size + pair];
        const T* up = d.sums(i, w);
        SLV_UNROLL for (int k = 0; k < kTreeTile; k++) parts[k] += up[a[k]] * both;
      });
  }
  SLV_DEVICE void word_left(int c, int z, double (&sums)[kTreeTile]) const {
    add_terms<T>(d.x.len, sums, [&](int i, T(&parts)[kTreeTile]) {
      const T word = d.x.word(i)[c];
      SLV_UNROLL for (int k = 0; k < kTreeTile; k++) parts[k] += d.words_left(i, a[k])[z] * word;
    });
  }
  SLV_DEVICE void word_right(int y, int c, double (&sums)[kTreeTile]) const {
    add_terms<T>(d.x.len, sums, [&](int i, T(&parts)[kTreeTile]) {
      const T word = d.x.word(i)[c];
      SLV_UNROLL for (int k = 0; k < kTreeTile; k++) parts[k] += d.words_right(i, a[k])[y] * word;
    });
  }
  SLV_DEVICE void words(int c, int e, double (&sums)[kTreeTile]) const {
    add_terms<T>(d.x.len - 1, sums, [&](int i, T(&parts)[kTreeTile]) {
      const T left = d.x.word(i)[c], right = d.x.word(i + 1)[e];
      const T* up = d.sums(i, 2);
      SLV_UNROLL for (int k = 0; k < kTreeTile; k++) parts[k] += up[a[k]] * left * right;
    });
  }
};

// Adds the weights of rules: a thread has one pair of children of some nonterminals, of a piece of the items. Where the
// widths begin with 2, those with words are added too.
template <class T>
SLV_KERNEL(kLogThreads)
pcfg_unhoist_rules(Pcfg<T> g, ScaledPcfg<T> s, Widths widths, TileSpace<T> space, TreeAdjoints<T> adjoints,
                   RuleCounts out) {
  const int64_t at = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, size = g.pairs();
  const int64_t each = (g.nt + kTreeTile - 1) / kTreeTile * size, piece = at / each, rest = at - piece * each;
  if (piece >= out.pieces()) return;
  const int nt = g.nt, a0 = int(rest / size) * kTreeTile;
  const int64_t pair = rest % size;
  const int y = int(pair / g.s()), z = int(pair - int64_t(y) * g.s());
  const bool nodes = y < nt && z < nt;
  if (nodes ? widths.to < 4 : widths.from > 2) return;
  const DenseRules rule{nt, g.t};
  double* counts = out.counts + (piece * nt + a0) * size + pair;
  double total[kTreeTile];
  SLV_UNROLL for (int k = 0; k < kTreeTile; k++) total[k] = a0 + k < nt ? counts[k * size] : 0;
  const int64_t row = piece / out.chunks, chunk = piece - row * out.chunks;
  for (int64_t p = out.begin(chunk); p < out.begin(chunk + 1); p++) {
    const int64_t b = out.rows.item(row, p);
    if (b < space.first || b >= space.first + space.count || s.redo[b] != T(0)) continue;
    const ScaledSentence<T> x(g, s, b);
    if (x.len < 2) continue;  // no tree: its words and rules were not looked at
    const ItemAdjoints<T> d{x, adjoints, b - space.first};
    RuleTerms<T> terms{d, widths, {}};
    SLV_UNROLL for (int k = 0; k < kTreeTile; k++) terms.a[k] = least_of(a0 + k, nt - 1);
    double sums[kTreeTile] = {};
    if (nodes)
      terms.nodes(int(rule.nodes(y, z)), sums);
    else if (z < nt)
      terms.word_left(y - nt, z, sums);
    else if (y < nt)
      terms.word_right(y, z - nt, sums);
    else
      terms.words(y - nt, z - nt, sums);
    SLV_UNROLL for (int k = 0; k < kTreeTile; k++) {
      const double weight = d.weight() * double(x.rules(terms.a[k])[rule.place(y, z)]);
      total[k] += weight * sums[k];
    }
  }
  SLV_UNROLL for (int k = 0; k < kTreeTile; k++) {
    if (a0 + k < nt) counts[k * size] = total[k];
  }
}

// The weights of words; a block has some words of one item.
template <class T>
SLV_KERNEL(kLogThreads)
pcfg_unhoist_words(Pcfg<T> g, ScaledPcfg<T> s, TileSpace<T> space, TreeAdjoints<T> adjoints) {
  const Thread me;
  const int nt = g.nt, t = g.t, tiles = (g.n + kTreeTile - 1) / kTreeTile;
  const int64_t count = blockIdx.x / unsigned(tiles);
  const int i0 = int(blockIdx.x % unsigned(tiles)) * kTreeTile;
  const ScaledSentence<T> x(g, s, space.first + count);
  const ItemAdjoints<T> d{x, adjoints, count};
  if (i0 >= x.len || x.len < 2 || s.redo[x.item] != T(0)) return;
  int word[kTreeTile];
  SLV_UNROLL for (int q = 0; q < kTreeTile; q++) word[q] = least_of(i0 + q, x.len - 1);
  double* out = adjoints.words + (x.item * g.n + i0) * t;
  // as a right child, by threads
  for (int c = me.index; c < t; c += int(blockDim.x)) {
    T sum[kTreeTile] = {};
    for (int a = 0; a < nt; a++) {
      for (int y = 0; y < nt; y++) {
        const T rule = x.rules(a)[x.at.node_word(y, c)];
        SLV_UNROLL for (int q = 0; q < kTreeTile; q++) sum[q] += rule * d.words_right(word[q], a)[y];
      }
      SLV_UNROLL for (int q = 0; q < kTreeTile; q++) {
        if (word[q] > 0) sum[q] += d.sums(word[q] - 1, 2)[a] * x.both(word[q] - 1, a)[c];
      }
    }
    SLV_UNROLL for (int q = 0; q < kTreeTile; q++) {
      if (i0 + q < x.len) out[int64_t(q) * t + c] = double(sum[q]);
    }
  }
  sync_block();
  // as a left child, by warps
  for (int c = me.warp; c < t; c += me.warps) {
    T sum[kTreeTile] = {};
    for (int a = 0; a < nt; a++) {
      for (int z = me.lane; z < nt; z += 32) {
        const T rule = x.rules(a)[x.at.word_node(c, z)];
        SLV_UNROLL for (int q = 0; q < kTreeTile; q++) sum[q] += rule * d.words_left(word[q], a)[z];
      }
      for (int e = me.lane; e < t; e += 32) {
        const T rule = x.rules(a)[x.at.words(c, e)];
        SLV_UNROLL for (int q = 0; q < kTreeTile; q++) {
          if (word[q] + 1 < x.len) sum[q] += d.sums(word[q], 2)[a] * (rule * x.word(word[q] + 1)[e]);
        }
      }
    }
    SLV_UNROLL for (int q = 0; q < kTreeTile; q++) {
      const double all = double(warp_sum(sum[q]));
      if (me.lane > 0 || i0 + q >= x.len) continue;
      double& to = out[int64_t(q) * t + c];
      to = d.weight() * double(x.word(word[q])[c]) * (to + all);
    }
  }
}

}  // namespace slv::cuda
