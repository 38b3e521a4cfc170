// Tables and words in the scaled linear domain. The sum over ranks leaves a choice of scale to every rank: rows of left
// and right are relative to powers of two of their own, which the head, or where there is none a factor, gets back.
#pragma once
#include "cuda/lowrank_scaled.h"
#include "cuda/pcfg_tree_scale.cuh"

namespace slv::cuda {

template <class T>
SLV_DEVICE int seen_of(const RowScale<T>& x) {
  return (x.least < Range<T>::tiny ? kSeenThin : 0) | (x.forbidden ? kSeenForbidden : 0) | (x.beyond ? kSeenBeyond : 0);
}

// One warp for each row of left, or right.
template <class T>
SLV_KERNEL(kLogThreads)
lowrank_side(Table<T> table, ScaledTable<T> to) {
  const Thread me;
  const int64_t row = warp_of_launch(me);
  if (row >= int64_t(table.row.rows) * table.rows) return;
  const T* from = table.data + row * table.columns;
  const RowScale<T> scale = scale_of<T>(me, table.columns, [&](int y) { return from[y]; });
  T* up = to.up + row / table.rows * table.size() + row % table.rows;
  for (int y = me.lane; y < table.columns; y += 32) {
    const T x = scale(from[y]);
    to.down[row * table.columns + y] = x;
    up[int64_t(y) * table.rows] = x;
  }
  if (me.lane == 0) to.power[row] = scale.exponent, to.seen[row] = seen_of(scale);
}

// One row of the head, or a rank where there is none; a warp for each, of every grammar.
template <class T>
SLV_KERNEL(kLogThreads)
lowrank_head(LowRank<T> g, ScaledRanks<T> s) {
  const Thread me;
  const int64_t row = warp_of_launch(me), grammar = row / g.nt;
  if (grammar >= s.grammar.rows) return;
  const int a = int(row % g.nt), r = g.r;
  const int64_t item = s.grammar.item(grammar, 0);
  const T *left = s.left.power + g.left.row.row(item) * r, *right = s.right.power + g.right.row.row(item) * r;
  if (!g.has_head()) {
    if (me.lane == 0) s.head.power[row] = left[a] + right[a], s.head.seen[row] = 0;
    return;
  }
  const T* from = g.head.of(item) + int64_t(a) * r;
  T top = -infinity<T>(), far = top;  // far: of what is too large to be told apart
  bool forbidden = false, broken = false;
  for (int q = me.lane; q < r; q += 32) {
    const T h = from[q], size = rint(h * T(kLog2E)) + (left[q] + right[q]);
    forbidden = forbidden || h == -infinity<T>();
    broken = broken || !(h < infinity<T>());
    top = larger(top, size);
    if (!(h < Range<T>::huge && h > -Range<T>::huge)) far = larger(far, size);
  }
  top = warp_max(top), far = warp_max(far);
  const T exponent = top > -infinity<T>() ? top : T(0);
  bool thin = false;
  for (int q = me.lane; q < r; q += 32) {
    const T x = exp_scaled(from[q], exponent - (left[q] + right[q]));
    thin = thin || (from[q] > -infinity<T>() && x < Range<T>::tiny);
    s.head.down[row * r + q] = x;
    s.head.up[(grammar * r + q) * g.nt + a] = x;
  }
  const bool beyond = ballot(broken) != 0 || (far > -infinity<T>() && far > top - T(4 * Float<T>::bias));
  const int seen =
      (ballot(thin) ? kSeenThin : 0) | (ballot(forbidden) ? kSeenForbidden : 0) | (beyond ? kSeenBeyond : 0);
  if (me.lane == 0) s.head.power[row] = top, s.head.seen[row] = seen;
}

// What was seen by all lanes of a warp.
SLV_DEVICE int seen_by_warp(int seen) {
  int all = 0;
  SLV_UNROLL for (int bit = kSeenLow; bit <= kSeenBeyond; bit *= 2) all |= ballot((seen & bit) != 0) ? bit : 0;
  return all;
}

// One warp for each grammar.
template <class T>
SLV_KERNEL(32)
lowrank_judge(LowRank<T> g, ScaledRanks<T> s) {
  const Thread me;
  const int64_t grammar = blockIdx.x, item = s.grammar.item(grammar, 0);
  const T* power = s.head.power + grammar * g.nt;
  const int *left = s.left.seen + g.left.row.row(item) * g.r, *right = s.right.seen + g.right.row.row(item) * g.r;
  int seen = 0;
  for (int q = me.lane; q < g.r; q += 32) seen |= left[q] | right[q];
  T common = -infinity<T>();
  for (int a = me.lane; a < g.nt; a += 32) common = larger(common, power[a]);
  common = warp_max(common);
  for (int a = me.lane; a < g.nt; a += 32) {
    const T factor = power_below(power[a] - common, T(0));
    seen |= s.head.seen[grammar * g.nt + a];
    if (power[a] > -infinity<T>() && factor < Range<T>::tiny) seen |= kSeenThin;
    s.factor[grammar * g.nt + a] = factor;
  }
  seen = seen_by_warp(seen);
  if (me.lane > 0) return;
  s.common[grammar] = common > -infinity<T>() ? common : T(0);
  s.seen[grammar] = seen;
}

// One item in the scaled domain.
template <class T>
struct ScaledRankSentence : Sentence<T> {
  const LowRank<T>& g;
  const ScaledRanks<T>& s;
  int64_t grammar, left_row, right_row;
  SLV_DEVICE ScaledRankSentence(const LowRank<T>& g, const ScaledRanks<T>& s, int64_t b)
      : Sentence<T>(g, b),
        g(g),
        s(s),
        grammar(s.grammar.row(b)),
        left_row(g.left.row.row(b)),
        right_row(g.right.row.row(b)) {}
  // Of spans of w words from i on. Spans of one width lie side by side.
  SLV_DEVICE int64_t inner(int i, int w) const { return this->item * g.spans_of_item() + g.span(i, w); }
  SLV_DEVICE int64_t any(int i, int w) const { return this->item * g.all_spans() + (w == 1 ? i : g.n + g.span(i, w)); }
  SLV_DEVICE int symbols_of(int w) const { return w == 1 ? g.t : g.nt; }
  SLV_DEVICE T* symbols(int i, int w) const {
    return w == 1 ? s.words + (this->item * g.n + i) * g.t : s.symbols + inner(i, w) * g.nt;
  }
  SLV_DEVICE T* ranks(int i, int w) const { return g.has_head() ? s.ranks + inner(i, w) * g.r : symbols(i, w); }
  SLV_DEVICE T* child(bool right, int i, int w) const { return (right ? s.on_right : s.on_left) + any(i, w) * g.r; }
  SLV_DEVICE T& exponent(int i, int w) const { return s.exponent[any(i, w)]; }
  SLV_DEVICE T& rank_exponent(int i, int w) const { return s.rank_exponent[inner(i, w)]; }
  SLV_DEVICE T& child_exponent(bool right, int i, int w) const {
    return (right ? s.right_exponent : s.left_exponent)[any(i, w)];
  }
  // Of the first v words and the rest.
  SLV_DEVICE T split_exponent(int i, int w, int v) const {
    return child_exponent(false, i, v) + child_exponent(true, i + v, w - v);
  }
  SLV_DEVICE int& note(int i, int w, int of) const { return s.notes[any(i, w) * 3 + of]; }
  // The entries of left or right for children of w words: a row for each rank, and for each symbol.
  SLV_DEVICE const T* side_down(bool right, int w) const {
    return (right ? s.right.down + right_row * g.right.size() : s.left.down + left_row * g.left.size()) +
           (w == 1 ? g.nt : 0);
  }
  SLV_DEVICE const T* side_up(bool right, int w) const {
    return (right ? s.right.up + right_row * g.right.size() : s.left.up + left_row * g.left.size()) +
           (w == 1 ? int64_t(g.nt) * g.r : 0);
  }
  SLV_DEVICE const T* head_down() const { return s.head.down + grammar * g.head.size(); }
  SLV_DEVICE const T* head_up() const { return s.head.up + grammar * g.head.size(); }
  SLV_DEVICE const T* factor() const { return s.factor + grammar * g.nt; }
};

// One warp for each word.
template <class T>
SLV_KERNEL(kLogThreads)
lowrank_words(LowRank<T> g, ScaledRanks<T> s) {
  const Thread me;
  const int64_t word = warp_of_launch(me);
  if (word >= g.batch * g.n) return;
  const ScaledRankSentence<T> x(g, s, word / g.n);
  const int i = int(word % g.n);
  if (i >= x.len) return;
  const T* u = g.unary + word * g.t;
  const RowScale<T> scale = scale_of<T>(me, g.t, [&](int y) { return u[y]; });
  for (int y = me.lane; y < g.t; y += 32) x.symbols(i, 1)[y] = scale(u[y]);
  if (me.lane == 0) x.exponent(i, 1) = scale.exponent, x.note(i, 1, 0) = seen_of(scale);
}

}  // namespace slv::cuda
