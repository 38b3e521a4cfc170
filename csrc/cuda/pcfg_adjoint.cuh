// Outside in the scaled linear domain: the derivative of pcfg_scan.cuh written out, as in kernels/pcfg_outside.h, where
// it is argued that nothing has to be checked. D[a] = d log Z / d inside[a]; with g = D factor[a] exp(spans[a])
// 2^-exponent and G = sum_a g[a] rules_a,
//   D_left_v += weight_v G Z_v     D_right_v += weight_v Y_v' G
// D has two parts, as a left child and as a right one. A span adds to the parts of children that begin, or end, where
// it does: no other span of its width adds to them, so the block that has the span owns them.
#pragma once
#include "cuda/pcfg_scan.cuh"

namespace slv::cuda {

// One item's adjoints.
template <class T>
struct ItemAdjoints {
  const ScaledSentence<T>& x;
  const TreeAdjoints<T>& d;
  int64_t count;  // the item's place in its range
  SLV_DEVICE int64_t node(int i, int w) const { return (count * x.g.spans_of_item() + x.g.span(i, w)) * x.g.nt; }
  SLV_DEVICE T* left(int i, int w) const { return d.left + node(i, w); }
  SLV_DEVICE T* right(int i, int w) const { return d.right + node(i, w); }
  SLV_DEVICE T* sums(int i, int w) const { return d.sums + node(i, w); }
  SLV_DEVICE T* pairs(const Widths& widths, int i, int w) const {
    const int64_t first = x.g.span(0, widths.from), spans = x.g.span(0, widths.to + 1) - first;
    return d.pairs + (count * spans + x.g.span(i, w) - first) * x.g.nt * x.g.nt;
  }
  SLV_DEVICE T* words_left(int i, int a) const { return d.words_left + ((count * x.g.n + i) * x.g.nt + a) * x.g.nt; }
  SLV_DEVICE T* words_right(int i, int a) const { return d.words_right + ((count * x.g.n + i) * x.g.nt + a) * x.g.nt; }
  SLV_DEVICE double weight() const { return d.weight ? d.weight[x.item] : 1; }
  // A span that begins or ends with the sentence is no right, or left, child. The widest parent comes first.
  SLV_DEVICE bool is_left(int i, int w) const { return i + w < x.len; }
  SLV_DEVICE bool is_right(int i) const { return i > 0; }
};

// g of a span, by a warp; in the place of D it leaves g times the weights of the splits with a word, which is what the
// words get. Impossible nodes get 0: their adjoints mean nothing and might overflow.
template <class T>
SLV_DEVICE void take_span(const Thread& me, const ItemAdjoints<T>& d, int i, int w, T most, const T* weights, T* sums) {
  const ScaledSentence<T>& x = d.x;
  const SpanFactor<T> factor(me, x, i, w);
  const T *inside = x.inside(i, w), *of_rules = x.s.factor + x.row * x.g.nt;
  const T power = x.exponent(i, w) - most - x.s.common[x.row] - factor.scale.exponent;
  const T scale = power > -infinity<T>() ? power_of_two<T>(-int(power)) : T(0);
  T *left = d.left(i, w), *right = d.right(i, w), *kept = d.sums(i, w);
  auto put = [&](int a, T mass) {
    const T value = inside[a] > T(0) ? mass : T(0), up = value * (of_rules[a] * factor(a) * scale);
    d.d.nodes[x.node(i, w) + a] = d.weight() * double(inside[a]) * double(value);
    sums[a] = up;
    kept[a] = up;
    left[a] = up * weights[1];
    right[a] = up * weights[w - 1];
  };
  if (w < x.len) {
    for (int a = me.lane; a < x.g.nt; a += 32)
      put(a, (d.is_left(i, w) ? left[a] : T(0)) + (d.is_right(i) ? right[a] : T(0)));
    return;
  }
  const ScaledTops<T> tops(me, x, inside);
  for (int a = me.lane; a < x.g.nt; a += 32) {
    const double p = tops.probability(a);
    d.d.top[x.item * x.g.nt + a] = d.weight() * p;
    put(a, T(p) / inside[a]);
  }
}

// m (count, matrix_size): G of every span of a tile. A thread has one pair of children of some spans.
template <class T>
SLV_DEVICE void spread_rules(const Thread& me, const ScaledSentence<T>& x, const SpanTile& tile, const T* sums, T* m) {
  const int nt = x.g.nt, size = nt * nt, tiles = (tile.count + kTreeTile - 1) / kTreeTile;
  for (int e = me.index; e < tiles * size; e += int(blockDim.x)) {
    const int r = e / size * kTreeTile, p = e % size, y = p / nt, z = p % nt;
    T sum[kTreeTile] = {};
    for (int a = 0; a < nt; a++) {
      const T rule = x.rules(a)[p];
      SLV_UNROLL for (int q = 0; q < kTreeTile; q++) sum[q] += rule * sums[least_of(r + q, tile.count - 1) * nt + a];
    }
    SLV_UNROLL for (int q = 0; q < kTreeTile; q++) {
      if (r + q < tile.count) m[(r + q) * matrix_size(nt) + y * (nt | 1) + z] = sum[q];
    }
  }
}

// Adds to a child's part of D, of which this is the widest parent or not.
template <class T>
SLV_DEVICE void add_to(T* part, bool others, T more) {
  *part = (others ? *part : T(0)) + more;
}
// To the children of splits between two spans. A thread has one symbol of the left, or right, child of some splits.
template <class T>
SLV_DEVICE void give_spans(const Thread& me, const ItemAdjoints<T>& d, const SpanTile& tile, const T* weights,
                           const T* m) {
  const ScaledSentence<T>& x = d.x;
  const int nt = x.g.nt, w = tile.w, groups = (w - 3 + kTreeTile - 1) / kTreeTile, each = 2 * groups * nt;
  for (int e = me.index; e < tile.count * each; e += int(blockDim.x)) {
    const int r = e / each, i = tile.i + r, side = e % each / (groups * nt), y = e % nt;
    const int v0 = 2 + e % each / nt % groups * kTreeTile, last = w - 2;
    const bool left = side == 0;
    const T* row = m + r * matrix_size(nt) + (left ? y * (nt | 1) : y);
    const T* sibling[kTreeTile];
    SLV_UNROLL for (int q = 0; q < kTreeTile; q++) {
      const int v = least_of(v0 + q, last);
      sibling[q] = left ? x.inside(i + v, w - v) : x.inside(i, v);
    }
    T sum[kTreeTile] = {};
    for (int z = 0; z < nt; z++) {
      const T part = row[left ? z : z * (nt | 1)];
      SLV_UNROLL for (int q = 0; q < kTreeTile; q++) sum[q] += part * sibling[q][z];
    }
    SLV_UNROLL for (int q = 0; q < kTreeTile; q++) {
      const int v = v0 + q;
      if (v > last) continue;
      const T more = weights[int64_t(r) * x.g.n + v] * sum[q];
      if (left)
        add_to(d.left(i, v) + y, d.is_left(i, w), more);
      else
        add_to(d.right(i + v, w - v) + y, d.is_right(i), more);
    }
  }
}
// To the child beside a word: a thread has one symbol of it.
template <class T>
SLV_DEVICE void give_beside_words(const Thread& me, const ItemAdjoints<T>& d, const SpanTile& tile, const T* weights,
                                  const T* sums) {
  const ScaledSentence<T>& x = d.x;
  const int nt = x.g.nt, w = tile.w;
  for (int e = me.index; e < tile.count * 2 * nt; e += int(blockDim.x)) {
    const int r = e / (2 * nt), i = tile.i + r, y = e % nt;
    const bool left = e % (2 * nt) < nt;
    const T* word = left ? x.right(i + w - 1, 0) : x.left(i, 0);
    T sum = 0;
    for (int a = 0; a < nt; a++) sum += sums[r * nt + a] * word[int64_t(a) * nt + y];
    const T more = weights[int64_t(r) * x.g.n + (left ? w - 1 : 1)] * sum;
    if (left)
      add_to(d.left(i, w - 1) + y, d.is_left(i, w), more);
    else
      add_to(d.right(i + 1, w - 1) + y, d.is_right(i), more);
  }
}

template <class T>
SLV_KERNEL(kMaxThreads)
pcfg_adjoint(Pcfg<T> g, ScaledPcfg<T> s, Widths widths, TileSpace<T> space, TreeAdjoints<T> adjoints) {
  Shared shared;
  const Thread me;
  T* sums = shared.take<T>(widths.rows * g.nt);
  T *m = take_matrices(shared, g.nt, widths, space), *weights = weights_of_block(g.n, widths, space);
  const int64_t count = blockIdx.x / unsigned(widths.blocks);
  const ScaledSentence<T> x(g, s, space.first + count);
  const ItemAdjoints<T> d{x, adjoints, count};
  if (s.redo[x.item] != T(0)) return;
  for (int w = widths.to; w >= widths.from; w--)
    each_tile(widths, x.len, w, [&](const SpanTile& tile) {
      for (int r = me.warp; r < tile.count; r += me.warps) {
        T* of_span = weights + int64_t(r) * g.n;
        const T most = weigh_splits(me, x, tile.i + r, w, of_span);
        sync_warp();
        take_span(me, d, tile.i + r, w, most, of_span, sums + r * g.nt);
      }
      sync_block();
      if (w > 3) {
        if (adjoints.pairs) merge_splits(me, x, tile, weights, d.pairs(widths, tile.i, w));
        spread_rules(me, x, tile, sums, m);
      }
      sync_block();
      if (w > 3) give_spans(me, d, tile, weights, m);
      if (w > 2) give_beside_words(me, d, tile, weights, sums);
      sync_block();
    });
}

}  // namespace slv::cuda
