// Outside in the scaled linear domain: the derivative of lowrank_scan.cuh written out. An adjoint is the derivative of
// log Z by a number of the inside pass, at the scale of that; their product is a probability, so nothing has to be
// checked. Where the number is 0 its adjoint means nothing, might overflow, and is set to 0. From the widest spans on,
// each gathers what all wider ones give to it.
#pragma once
#include "cuda/lowrank_scan.cuh"

namespace slv::cuda {

// One item's adjoints.
template <class T>
struct ItemRankAdjoints {
  const ScaledRankSentence<T>& x;
  const RankAdjoints<T>& d;
  SLV_DEVICE T* child(bool right, int i, int w) const { return (right ? d.on_right : d.on_left) + x.any(i, w) * x.g.r; }
  SLV_DEVICE T* symbols(int i, int w) const { return d.symbols + x.inner(i, w) * x.g.nt; }
  SLV_DEVICE T* ranks(int i, int w) const { return x.g.has_head() ? d.ranks + x.inner(i, w) * x.g.r : symbols(i, w); }
  SLV_DEVICE double weight() const { return d.weight ? d.weight[x.item] : 1; }
  // From the derivative by a symbol to its posterior weight and, of a node, to that by its sum over ranks.
  SLV_DEVICE void put(int i, int w, int a, T derivative) const {
    const T inside = x.symbols(i, w)[a], value = inside > T(0) ? derivative : T(0);
    const double mass = weight() * double(inside) * double(value);
    if (w == 1) {
      d.words[(x.item * x.g.n + i) * x.g.t + a] = mass;
      return;
    }
    d.nodes[x.node(i, w) + a] = mass;
    T factor = x.factor()[a];
    if (x.spans)
      factor *= exp_scaled(T(x.span_score(i, w, a)), x.exponent(i, w) - x.rank_exponent(i, w) - x.s.common[x.grammar]);
    symbols(i, w)[a] = value > T(0) ? value * factor : T(0);
  }
};

// What a split weighs at the scales of its three spans: 2^d, which may be large where no rank can have both children.
template <class T>
SLV_DEVICE T split_weight(T d) {
  constexpr int kMost = Float<T>::bias - 1;
  return power_below(d > T(kMost) ? T(kMost) : d, T(0));
}
// The derivatives by the sums over symbols of a tile's spans as children of wider ones: a warp has some ranks of one.
template <class T>
SLV_DEVICE void gather_parents(const Half& me, const ItemRankAdjoints<T>& d, const SpanTile& tile) {
  const ScaledRankSentence<T>& x = d.x;
  const int r = x.g.r, w = tile.w, groups = (r + kRankGroup - 1) / kRankGroup;
  for (int task = me.warp; task < tile.count * groups; task += me.warps) {
    const int i = tile.i + task / groups, q0 = task % groups * kRankGroup + me.lane;
    const int parents = me.right ? i : x.len - i - w;
    const T own = x.child_exponent(me.right, i, w);
    T sum[kTreeTile] = {};
    for (int more = 1; more <= parents; more++) {  // words of the sibling
      const int from = me.right ? i - more : i, beside = me.right ? i - more : i + w;
      const T weight = split_weight(own + x.child_exponent(!me.right, beside, more) - x.rank_exponent(from, w + more));
      const T *up = d.ranks(from, w + more), *sibling = x.child(!me.right, beside, more);
      SLV_UNROLL for (int k = 0; k < kTreeTile; k++) {
        const int q = least_of(q0 + 32 * k, r - 1);
        sum[k] += up[q] * sibling[q] * weight;
      }
    }
    const T* inside = x.child(me.right, i, w);
    const T scale = own > -infinity<T>() ? power_of_two<T>(int(x.exponent(i, w) - own)) : T(0);
    T* to = d.child(me.right, i, w);
    SLV_UNROLL for (int k = 0; k < kTreeTile; k++) {
      const int q = q0 + 32 * k;
      if (q < r) to[q] = inside[q] > T(0) ? sum[k] * scale : T(0);
    }
  }
}

template <class T>
SLV_KERNEL(kMaxThreads)
lowrank_adjoint(LowRank<T> g, ScaledRanks<T> s, Widths widths, RankAdjoints<T> adjoints) {
  const Thread me;
  const ScaledRankSentence<T> x(g, s, blockIdx.x / unsigned(widths.blocks));
  const ItemRankAdjoints<T> d{x, adjoints};
  if (s.redo[x.item] != T(0) || x.len < 2) return;
  for (int w = widths.to; w >= widths.from; w--)
    each_tile(widths, x.len, w, [&](const SpanTile& tile) {
      const int i = tile.i;
      if (w < x.len) {
        gather_parents(Half(me), d, tile);
        sync_block();
        multiply_tile<T>(me, tile.count, x.symbols_of(w),
                         {{x.side_down(false, w), g.s(), d.child(false, i, w), g.r, g.r},
                          {x.side_down(true, w), g.s(), d.child(true, i, w), g.r, g.r}},
                         [&](int e, int a, T sum) { d.put(i + e, w, a, sum); });
      } else if (me.warp == 0) {
        const ScaledTops<T> tops(me, x, x.symbols(0, w));
        for (int a = me.lane; a < g.nt; a += 32) {
          const double p = tops.probability(a);
          adjoints.top[x.item * g.nt + a] = d.weight() * p;
          d.put(0, w, a, T(p) / x.symbols(0, w)[a]);
        }
      }
      sync_block();
      if (w == 1 || !g.has_head()) return;
      multiply_tile<T>(me, tile.count, g.r, {{x.head_down(), g.r, d.symbols(i, w), g.nt, g.nt}},
                       [&](int e, int q, T sum) { d.ranks(i + e, w)[q] = x.ranks(i + e, w)[q] > T(0) ? sum : T(0); });
      sync_block();
    });
}

enum GrammarTable { kHead, kLeft, kRight };

// What an item gives to entries u .. of a table and one column: sums over spans of the adjoints of what an entry leads
// to, times what it leads from.
template <class T>
struct EntryTerms {
  const ItemRankAdjoints<T>& d;
  int u[kTreeTile];
  // spans of w words
  SLV_DEVICE void add(int w, const T* up, int rows, const T* score, int columns, double (&sums)[kTreeTile]) const {
    add_terms<T>(d.x.len - w + 1, sums, [&](int i, T(&parts)[kTreeTile]) {
      const T x = score[int64_t(i) * columns];
      SLV_UNROLL for (int k = 0; k < kTreeTile; k++) parts[k] += up[int64_t(i) * rows + u[k]] * x;
    });
  }
  SLV_DEVICE void head(int q, double (&sums)[kTreeTile]) const {
    const LowRank<T>& g = d.x.g;
    for (int w = 2; w <= d.x.len; w++) add(w, d.symbols(0, w), g.nt, d.x.ranks(0, w) + q, g.r, sums);
  }
  SLV_DEVICE void side(bool right, int y, double (&sums)[kTreeTile]) const {
    const LowRank<T>& g = d.x.g;
    if (y >= g.nt)
      add(1, d.child(right, 0, 1), g.r, d.x.symbols(0, 1) + y - g.nt, g.t, sums);
    else
      for (int w = 2; w < d.x.len; w++) add(w, d.child(right, 0, w), g.r, d.x.symbols(0, w) + y, g.nt, sums);
  }
};

// Adds the weights of a table's entries: a thread has some rows of one column, of a piece of the items.
template <class T>
SLV_KERNEL(kLogThreads)
lowrank_count_table(LowRank<T> g, ScaledRanks<T> s, RankAdjoints<T> adjoints, GrammarTable which, RuleCounts out) {
  const int rows = which == kHead ? g.nt : g.r, columns = which == kHead ? g.r : g.s();
  const int64_t at = thread_of_launch(), each = int64_t((rows + kTreeTile - 1) / kTreeTile) * columns;
  const int64_t piece = at / each, rest = at - piece * each;
  if (piece >= out.pieces()) return;
  const int u0 = int(rest / columns) * kTreeTile, v = int(rest % columns);
  double* counts = out.counts + (piece * rows + u0) * columns + v;
  double total[kTreeTile];
  SLV_UNROLL for (int k = 0; k < kTreeTile; k++) total[k] = u0 + k < rows ? counts[int64_t(k) * columns] : 0;
  const int64_t row = piece / out.chunks, chunk = piece - row * out.chunks;
  for (int64_t p = out.begin(chunk); p < out.begin(chunk + 1); p++) {
    const ScaledRankSentence<T> x(g, s, out.rows.item(row, p));
    if (x.len < 2 || s.redo[x.item] != T(0)) continue;
    const ItemRankAdjoints<T> d{x, adjoints};
    EntryTerms<T> terms{d, {}};
    SLV_UNROLL for (int k = 0; k < kTreeTile; k++) terms.u[k] = least_of(u0 + k, rows - 1);
    double sums[kTreeTile] = {};
    if (which == kHead)
      terms.head(v, sums);
    else
      terms.side(which == kRight, v, sums);
    const T* table = which == kHead ? x.head_down() : x.side_down(which == kRight, 2);
    SLV_UNROLL for (int k = 0; k < kTreeTile; k++) total[k] +=
        d.weight() * double(table[int64_t(terms.u[k]) * columns + v]) * sums[k];
  }
  SLV_UNROLL for (int k = 0; k < kTreeTile; k++) {
    if (u0 + k < rows) counts[int64_t(k) * columns] = total[k];
  }
}

}  // namespace slv::cuda
