// Inside in the scaled linear domain, in the space of ranks (kernels/lowrank_inside.h). For a span of w words from i
// on, over ranks q and symbols A:
//   m(q) = sum_v weight_v l_i,v(q) r_i+v,w-v(q)           of all splits; weights are powers of two
//   s(A) = factor(A) exp(spans(A)) sum_q head(A, q) m(q)
//   l(q) = sum_A left(q, A) s(A)     r(q) = sum_A right(q, A) s(A)
// m, l and r are then made relative to powers of two of their own. A block works on some spans of an item and a width
// at once, so that what it reads of the tables serves all of them; it has all widths of a sentence, or one of them.
#pragma once
#include "cuda/lowrank_scale.cuh"

namespace slv::cuda {

// Ranks that a warp adds up at once.
constexpr int kRankGroup = 32 * kTreeTile;

// One half of a block's warps does what there is to do with left, the other what there is with right.
struct Half : Thread {
  bool right;
  SLV_DEVICE explicit Half(const Thread& me) : Thread(me), right(me.warp % 2 == 1) { warp /= 2, warps /= 2; }
};

// A factor of a product: numbers of the spans of a tile, `size` apart, times a table.
template <class T>
struct TileFactor {
  const T* table;  // (terms, columns of which rows are `stride` apart)
  int64_t stride;
  const T* x;
  int size, terms;
};
// each(r, c, sum) for every span r of a tile and column c: the sum over both factors, where there are two, of
// x(r, k) table(k, c). A warp has 16 columns of four spans, its rows of lanes share out the terms; a lane is given
// a sum of one span.
template <class T, int N, class F>
SLV_DEVICE void multiply_tile(const Thread& me, int count, int columns, const TileFactor<T> (&factors)[N], F&& each) {
  constexpr int kColumns = 2 * kTileColumns;
  const int groups = (columns + kColumns - 1) / kColumns, tasks = groups * ((count + kTreeTile - 1) / kTreeTile);
  for (int task = me.warp; task < tasks; task += me.warps) {
    const int first = task % groups * kColumns + me.column, second = first + kTileColumns;
    const int r0 = task / groups * kTreeTile;
    T sum[kTreeTile][2] = {};
    SLV_UNROLL for (int f = 0; f < N; f++) {
      const T* table = factors[f].table + least_of(first, columns - 1);
      const int apart = least_of(second, columns - 1) - least_of(first, columns - 1);
      int span[kTreeTile];
      SLV_UNROLL for (int q = 0; q < kTreeTile; q++) span[q] = least_of(r0 + q, count - 1) * factors[f].size;
      SLV_UNROLL_TWICE for (int k = me.row; k < factors[f].terms; k += kTileRows) {
        const T* row = table + k * factors[f].stride;
        const T a = row[0], b = row[apart];
        SLV_UNROLL for (int q = 0; q < kTreeTile; q++) {
          const T y = factors[f].x[span[q] + k];
          sum[q][0] += y * a;
          sum[q][1] += y * b;
        }
      }
    }
    T own[2] = {};
    SLV_UNROLL for (int q = 0; q < kTreeTile; q++) SLV_UNROLL for (int c = 0; c < 2; c++) {
      const T all = sum_of_rows(sum[q][c]);
      if (me.row == q) own[c] = all;
    }
    if (r0 + me.row >= count) continue;
    if (first < columns) each(r0 + me.row, first, own[0]);
    if (second < columns) each(r0 + me.row, second, own[1]);
  }
}

// m of a tile, relative to its largest split, whose exponent is -inf where none is possible; NaN where it was lost
// though some split is possible.
template <class T>
SLV_DEVICE void merge_splits(const Thread& me, const ScaledRankSentence<T>& x, const SpanTile& tile) {
  const int r = x.g.r, groups = (r + kRankGroup - 1) / kRankGroup;
  for (int task = me.warp; task < tile.count * groups; task += me.warps) {
    const int i = tile.i + task / groups, w = tile.w, q0 = task % groups * kRankGroup + me.lane;
    T most = -infinity<T>();
    for (int v = 1 + me.lane; v < w; v += 32) most = larger(most, x.split_exponent(i, w, v));
    most = warp_max(most);
    if (me.lane == 0 && task % groups == 0) x.rank_exponent(i, w) = most;
    T sum[kTreeTile] = {};
    bool some[kTreeTile] = {};
    SLV_NO_UNROLL for (int v = 1; v < w; v++) {  // more would need more registers than a full block has
      const T weight = power_below(x.split_exponent(i, w, v) - most, T(0));
      const T *left = x.child(false, i, v), *right = x.child(true, i + v, w - v);
      SLV_UNROLL for (int k = 0; k < kTreeTile; k++) {
        const int q = least_of(q0 + 32 * k, r - 1);
        some[k] = some[k] || (left[q] > T(0) && right[q] > T(0));
        sum[k] += left[q] * right[q] * weight;
      }
    }
    T* m = x.ranks(i, w);
    SLV_UNROLL for (int k = 0; k < kTreeTile; k++) {
      if (q0 + 32 * k < r) m[q0 + 32 * k] = some[k] && sum[k] == T(0) ? not_here<T>() : sum[k];
    }
  }
}

// Takes note of numbers that are sums of `terms` terms.
template <class T>
struct Watch {
  T floor;
  int seen = 0;
  SLV_DEVICE explicit Watch(int terms)
      : floor(T(4) * T(terms) * smallest<T>() * power_of_two<T>(Float<T>::mantissa + 3)) {}
  SLV_DEVICE void operator()(T x) {
    if (!(x >= floor)) seen |= kSeenLow;
    if (!(x == T(0)) && !(x >= Range<T>::tiny)) seen |= kSeenThin;
  }
};
// Makes a row relative to a power of two, the exponent of which it returns: -inf of a row of zeros. By a warp.
template <class T>
SLV_DEVICE T normalise(const Thread& me, T* row, int size, Watch<T>& watch) {
  T top = 0;
  for (int q = me.lane; q < size; q += 32) top = larger(top, row[q]);
  top = warp_max(top);
  const bool empty = !(top >= smallest<T>());
  const int power = empty ? 0 : exponent_of(top);
  const T scale = power_of_two<T>(-power);
  for (int q = me.lane; q < size; q += 32) {
    watch(row[q]);
    row[q] *= scale;
  }
  return empty ? -infinity<T>() : T(power);
}
template <class T>
SLV_DEVICE int seen_of_exponent(T x) {
  return is_exact(x) || x == -infinity<T>() ? 0 : kSeenBeyond;
}

// s of a tile from m; settle(i, its exponent, what was seen) for every span, by one lane.
template <class T, class F>
SLV_DEVICE void form_symbols(const Thread& me, const ScaledRankSentence<T>& x, const SpanTile& tile, F&& settle) {
  const LowRank<T>& g = x.g;
  T* to = x.symbols(tile.i, tile.w);
  if (g.has_head())
    multiply_tile<T>(me, tile.count, g.nt, {{x.head_up(), g.nt, x.ranks(tile.i, tile.w), g.r, g.r}},
                     [&](int r, int a, T sum) { to[int64_t(r) * g.nt + a] = sum; });
  sync_block();
  for (int r = me.warp; r < tile.count; r += me.warps) {
    const int i = tile.i + r;
    const SpanFactor<T> factor(me, x, i, tile.w);
    T* symbols = x.symbols(i, tile.w);
    Watch<T> watch(2 * g.r);
    for (int a = me.lane; a < g.nt; a += 32) {
      const T scale = x.factor()[a] * factor(a), value = symbols[a] * scale;
      watch(value);
      if (value == T(0) && symbols[a] > T(0) && scale > T(0)) watch.seen |= kSeenThin;
      symbols[a] = value;
    }
    const T exponent = x.rank_exponent(i, tile.w) + x.s.common[x.grammar] + factor.scale.exponent;
    const int seen = seen_by_warp(watch.seen) | seen_of(factor.scale) | seen_of_exponent(exponent);
    if (me.lane == 0) settle(i, exponent, seen);
  }
}

// What a tile's spans are as children of a rank.
template <class T>
SLV_DEVICE void form_children(const Half& me, const ScaledRankSentence<T>& x, const SpanTile& tile) {
  const int r = x.g.r, k = x.symbols_of(tile.w);
  T* to = x.child(me.right, tile.i, tile.w);
  multiply_tile<T>(me, tile.count, r, {{x.side_up(me.right, tile.w), r, x.symbols(tile.i, tile.w), k, k}},
                   [&](int e, int q, T sum) { to[int64_t(e) * r + q] = sum; });
  sync_block();
  for (int e = me.warp; e < tile.count; e += me.warps) {
    const int i = tile.i + e;
    Watch<T> watch(k);
    const T exponent = x.exponent(i, tile.w) + normalise(me, to + int64_t(e) * r, r, watch);
    const int seen = seen_by_warp(watch.seen);
    if (me.lane > 0) continue;
    x.child_exponent(me.right, i, tile.w) = exponent;
    x.note(i, tile.w, 1 + me.right) = seen | seen_of_exponent(exponent);
  }
}

template <class T>
SLV_KERNEL(kMaxThreads)
lowrank_scan(LowRank<T> g, ScaledRanks<T> s, Widths widths) {
  const Thread me;
  const ScaledRankSentence<T> x(g, s, blockIdx.x / unsigned(widths.blocks));
  for (int w = widths.from; w <= widths.to; w++)
    each_tile(widths, x.len, w, [&](const SpanTile& tile) {
      if (w > 1) {
        merge_splits(me, x, tile);
        sync_block();
        for (int r = me.warp; r < tile.count; r += me.warps) {
          Watch<T> watch(w);
          const T power = normalise(me, x.ranks(tile.i + r, w), g.r, watch);
          const int seen = seen_by_warp(watch.seen);
          if (me.lane > 0) continue;
          T& exponent = x.rank_exponent(tile.i + r, w);
          exponent += power;
          x.note(tile.i + r, w, 0) = seen | seen_of_exponent(exponent);
        }
        sync_block();
        form_symbols(me, x, tile, [&](int i, T exponent, int seen) {
          x.exponent(i, w) = exponent;
          x.note(i, w, 0) |= seen;
        });
        sync_block();
      }
      if (w == x.len) return;  // no one's child
      form_children(Half(me), x, tile);
      sync_block();
    });
}

// All spans again, of charts that have no place for their symbols; a block has some spans of one width of one item.
template <class T>
SLV_KERNEL(kMaxThreads)
lowrank_form_symbols(LowRank<T> g, ScaledRanks<T> s, Widths widths) {
  const Thread me;
  const int w = widths.from + int(blockIdx.x / unsigned(widths.blocks) % unsigned(widths.to - widths.from + 1));
  const ScaledRankSentence<T> x(g, s, blockIdx.x / unsigned(widths.blocks * (widths.to - widths.from + 1)));
  if (s.redo[x.item] != T(0)) return;
  each_tile(widths, x.len, w, [&](const SpanTile& tile) { form_symbols(me, x, tile, [](int, T, int) {}); });
}

// One warp for each item.
template <class T>
SLV_KERNEL(32)
lowrank_scan_end(LowRank<T> g, ScaledRanks<T> s, double* log_z, T* log_z_narrow) {
  const Thread me;
  const int64_t b = blockIdx.x, notes = 3 * g.all_spans();
  const ScaledRankSentence<T> x(g, s, b);
  int seen = s.seen[x.grammar];
  for (int64_t e = me.lane; e < notes; e += 32) seen |= s.notes[b * notes + e];
  seen = seen_by_warp(seen);
  const bool lost = x.len > 1 && (seen & (kSeenBeyond | (seen & kSeenForbidden ? kSeenThin : kSeenLow))) != 0;
  const double z =
      lost || x.len < 2 ? -HUGE_VAL : ScaledTops<T>(me, x, x.symbols(0, x.len)).log_z(x.exponent(0, x.len));
  if (me.lane > 0) return;
  s.redo[b] = T(lost);
  if (log_z) log_z[b] = z;
  if (log_z_narrow) log_z_narrow[b] = T(z);
}

}  // namespace slv::cuda
