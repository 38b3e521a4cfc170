// Inside in the scaled linear domain (kernels/pcfg_inside.h). With Y, Z the children of the split of span (i, w) behind
// its first v words:
//   M = sum_v weight_v Y_v Z_v'                           of splits between two spans; weights are powers of two
//   s[a] = <rules_a, M> + <left_i[a], Z> + <right_j[a], Y>     the outer two splits have a word for a child
//   inside[a] = s[a] factor[a] exp(spans[a]) 2^-exponent
// A block works on some spans of an item and a width at once: what it reads of the rules serves all of them. It has all
// widths of a sentence, or one of them.
#pragma once
#include "cuda/pcfg_scale.cuh"

namespace slv::cuda {

// A block's part of the memory for tiles.
template <class T>
SLV_DEVICE T* take_matrices(Shared& shared, int nt, const Widths& widths, const TileSpace<T>& space) {
  const int64_t size = widths.rows * matrix_size(nt);
  return widths.shared ? shared.take<T>(int(size)) : space.matrices + blockIdx.x * size;
}
template <class T>
SLV_DEVICE T* weights_of_block(int n, const Widths& widths, const TileSpace<T>& space) {
  return space.weights + int64_t(blockIdx.x) * widths.rows * n;
}

// Powers of two of the splits of a span behind 1 .. w - 1 words, the largest 1, at weights[1 ..]; 0 where a child is
// impossible. By a warp, which gets the exponent of the largest: -inf where no split is possible.
template <class T>
SLV_DEVICE T weigh_splits(const Thread& me, const ScaledSentence<T>& x, int i, int w, T* weights) {
  auto exponent = [&](int v) { return x.exponent(i, v) + x.exponent(i + v, w - v); };
  T most = -infinity<T>();
  for (int v = 1 + me.lane; v < w; v += 32) most = larger(most, exponent(v));
  most = warp_max(most);
  for (int v = 1 + me.lane; v < w; v += 32) weights[v] = power_below(exponent(v) - most, smallest<T>());
  return most;
}

// m (count, nt, nt): M of every span of a tile. A thread has some left children of one right one.
template <class T>
SLV_DEVICE void merge_splits(const Thread& me, const ScaledSentence<T>& x, const SpanTile& tile, const T* weights,
                             T* m) {
  const int nt = x.g.nt, n = x.g.n, groups = (nt + kTreeTile - 1) / kTreeTile, each = groups * nt;
  for (int e = me.index; e < tile.count * each; e += int(blockDim.x)) {
    const int r = e / each, rest = e - r * each, y = rest / nt * kTreeTile, z = rest % nt, i = tile.i + r;
    T sum[kTreeTile] = {};
    for (int v = 2; v < tile.w - 1; v++) {
      const T* left = x.inside(i, v);
      const T right = x.weighted(x.inside(i + v, tile.w - v)[z], weights[int64_t(r) * n + v]);
      SLV_UNROLL for (int q = 0; q < kTreeTile; q++) sum[q] += left[least_of(y + q, nt - 1)] * right;
    }
    SLV_UNROLL for (int q = 0; q < kTreeTile; q++) {
      if (y + q < nt) m[(int64_t(r) * nt + y + q) * nt + z] = x.guarded(sum[q]);
    }
  }
}

// What the splits with a word give to s[a] of span (i, w); by a warp.
template <class T>
SLV_DEVICE T sum_words(const Thread& me, const ScaledSentence<T>& x, int i, int w, int a, const T* weights) {
  T sum = 0;
  if (w == 2) {
    const T *left = x.both(i, a), *right = x.word(i + 1);
    for (int c = me.lane; c < x.g.t; c += 32) sum += left[c] * right[c];
  } else {
    const T *left = x.left(i, a), *right = x.right(i + w - 1, a), *y = x.inside(i, w - 1), *z = x.inside(i + 1, w - 1);
    for (int p = me.lane; p < x.g.nt; p += 32)
      sum += left[p] * x.weighted(z[p], weights[1]) + right[p] * x.weighted(y[p], weights[w - 1]);
  }
  return warp_sum(sum);
}
// sums (count, nt): s of every span of a tile. A warp has some nonterminals of some spans.
template <class T>
SLV_DEVICE void sum_rules(const Thread& me, const ScaledSentence<T>& x, const SpanTile& tile, const T* weights,
                          const T* m, T* sums) {
  const int nt = x.g.nt, size = nt * nt, groups = (nt + kTreeTile - 1) / kTreeTile;
  const int tasks = groups * ((tile.count + kTreeTile - 1) / kTreeTile);
  for (int task = me.warp; task < tasks; task += me.warps) {
    const int a0 = task % groups * kTreeTile, r0 = task / groups * kTreeTile;
    const int symbols = least_of(kTreeTile, nt - a0), spans = least_of(kTreeTile, tile.count - r0);
    for (int e = 0; e < symbols * spans; e++) {
      const int a = a0 + e % symbols, r = r0 + e / symbols;
      const T sum = sum_words(me, x, tile.i + r, tile.w, a, weights + int64_t(r) * x.g.n);
      if (me.lane == 0) sums[r * nt + a] = sum;
    }
    if (tile.w < 4) continue;
    T sum[kTreeTile][kTreeTile] = {};
    for (int p = me.lane; p < size; p += 32) {
      T pairs[kTreeTile];
      SLV_UNROLL for (int q = 0; q < kTreeTile; q++) pairs[q] = m[int64_t(r0 + least_of(q, spans - 1)) * size + p];
      SLV_UNROLL for (int k = 0; k < kTreeTile; k++) {
        const T rule = x.rules(a0 + least_of(k, symbols - 1))[p];
        SLV_UNROLL for (int q = 0; q < kTreeTile; q++) sum[k][q] += rule * pairs[q];
      }
    }
    SLV_UNROLL for (int k = 0; k < kTreeTile; k++) SLV_UNROLL for (int q = 0; q < kTreeTile; q++) {
      const T all = warp_sum(sum[k][q]);
      if (me.lane == 0 && k < symbols && q < spans) sums[(r0 + q) * nt + a0 + k] += all;
    }
  }
}

// From s to inside and its exponent, by a warp; `most`: the exponent of the largest split.
template <class T>
SLV_DEVICE void normalise(const Thread& me, const ScaledSentence<T>& x, int i, int w, const T* sums, T most) {
  const SpanFactor<T> factor(me, x, i, w);
  const int nt = x.g.nt;
  const T* of_rules = x.s.factor + x.row * nt;
  const T floor =
      T(64.0 * x.g.n * x.g.s() * x.g.s() * double(smallest<T>()) * double(power_of_two<T>(Float<T>::mantissa)));
  const T least = x.finite ? floor : x.tiny;
  T top = 0;
  for (int a = me.lane; a < nt; a += 32) top = larger(top, sums[a] * (of_rules[a] * factor(a)));
  top = warp_max(top);
  const bool empty = !(top >= smallest<T>());
  const int power = empty ? 0 : exponent_of(top);
  const T scale = power_of_two<T>(-power);
  bool lost = factor.scale.beyond || factor.scale.least == T(0);
  for (int a = me.lane; a < nt; a += 32) {
    const T f = factor(a), k = of_rules[a] * f, value = sums[a] * (k * scale);
    const bool wanted = x.finite || !(sums[a] == T(0));
    lost = lost || (wanted && (!(sums[a] >= floor) || (f > T(0) && (!(value >= least) || k < floor))));
    x.inside(i, w)[a] = value;
  }
  lost = ballot(lost) != 0;
  if (me.lane > 0) return;
  const T exponent = most + x.s.common[x.row] + factor.scale.exponent + T(power);
  const bool inexact = !empty && !is_exact(exponent);
  const bool possible = most > -infinity<T>();
  x.exponent(i, w) = possible && (lost || inexact) ? not_here<T>() : empty ? -infinity<T>() : exponent;
}

template <class T>
SLV_KERNEL(kMaxThreads)
pcfg_scan(Pcfg<T> g, ScaledPcfg<T> s, Widths widths, TileSpace<T> space) {
  Shared shared;
  const Thread me;
  const int nt = g.nt;
  T *sums = shared.take<T>(widths.rows * nt), *most = shared.take<T>(widths.rows);
  T *m = take_matrices(shared, nt, widths, space), *weights = weights_of_block(g.n, widths, space);
  const ScaledSentence<T> x(g, s, space.first + blockIdx.x / unsigned(widths.blocks));
  if (s.kind[x.row] == kUnusableRules) return;
  for (int w = widths.from; w <= widths.to; w++)
    each_tile(widths, x.len, w, [&](const SpanTile& tile) {
      for (int r = me.warp; r < tile.count; r += me.warps) {
        const T found = weigh_splits(me, x, tile.i + r, w, weights + int64_t(r) * g.n);
        if (me.lane == 0) most[r] = found;
      }
      sync_block();
      if (w > 3) merge_splits(me, x, tile, weights, m);
      sync_block();
      sum_rules(me, x, tile, weights, m, sums);
      sync_block();
      for (int r = me.warp; r < tile.count; r += me.warps) normalise(me, x, tile.i + r, w, sums + r * nt, most[r]);
      sync_block();
    });
}

// One warp for each item.
template <class T>
SLV_KERNEL(32)
pcfg_scan_end(Pcfg<T> g, ScaledPcfg<T> s, double* log_z, T* log_z_narrow) {
  const Thread me;
  const int64_t b = blockIdx.x;
  const ScaledSentence<T> x(g, s, b);
  bool lost = s.kind[x.row] == kUnusableRules;
  for (int w = 1; w <= x.len && !lost; w++)
    for (int i = me.lane; i + w <= x.len; i += 32) lost = lost || !(x.exponent(i, w) < infinity<T>());
  lost = ballot(lost) != 0 && x.len > 1;
  const double z = lost || x.len < 2 ? -HUGE_VAL : ScaledTops<T>(me, x, x.inside(0, x.len)).log_z(x.exponent(0, x.len));
  if (me.lane > 0) return;
  s.redo[b] = T(lost);
  if (log_z) log_z[b] = z;
  if (log_z_narrow) log_z_narrow[b] = T(z);
}

}  // namespace slv::cuda
