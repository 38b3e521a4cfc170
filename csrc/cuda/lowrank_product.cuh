// The one step of inside and outside that knows the grammar: a table times the scores of spans, in log space,
//
//   out(u) = log sum_v exp(table(u, v) + score(v))
//
// for all spans of one width of all items. The head leads from ranks to nonterminals so, left and right from symbols to
// ranks. Going down, the weight of out(u) is shared out along p(v | u); an entry of the table weighs what it hands on.
// With `kTangent` the way down takes along what second order needs (cuda/pcfg_tree.h).
#pragma once
#include "cuda/lowrank.h"
#include "cuda/pcfg_tree.cuh"

namespace slv::cuda {

// Which span of `width` words, and which of its `each` numbers, the index-th thread or warp of a launch has.
template <class T>
struct SpanPlace {
  int64_t item;
  int i, e;
  bool exists;
  SLV_DEVICE SpanPlace(const Tree<T>& g, int width, int each, int64_t index) {
    const int64_t span = index / each;
    const int spans = g.n - width + 1;
    e = int(index - span * each);
    item = span / spans;
    i = int(span - item * spans);
    exists = item < g.batch && i + width <= Sentence<T>(g, item).len;
  }
};

// Numbers of the spans of one width: `size` of each, an item's spans side by side, the first of which is `first`.
template <class S>
struct SpanRows {
  S* data;
  int64_t of_item, first;
  int size;
  SLV_DEVICE S* at(int64_t item, int i) const { return data + (item * of_item + first + i) * size; }
};

// Over the columns of a tile, for each row, as sum_of_columns.
SLV_DEVICE double max_of_columns(double x) {
  x = larger(x, shuffle_xor(x, 1));
  x = larger(x, shuffle_xor(x, 2));
  return larger(x, shuffle_xor(x, 4));
}

template <class T, class S>
struct Product {
  Table<T> table;
  int first;          // of the columns that have scores
  SpanRows<S> score;  // of these
  SLV_DEVICE const T* row(int64_t item, int u) const { return table.of(item) + int64_t(u) * table.columns + first; }
  // out(u) of a span, by the lanes of a row of a tile; where there is none they take part in the warp's exchanges
  SLV_DEVICE LogSum sum(const Thread& me, int64_t item, int i, int u) const {
    const bool exists = u < table.rows;
    const T* own = row(item, exists ? u : 0);
    const S* scores = score.at(item, i);
    LogSum x;
    for (int v = me.column; v < score.size && exists; v += kTileColumns)
      x.top = larger(x.top, double(own[v]) + double(scores[v]));
    x.top = max_of_columns(x.top);
    for (int v = me.column; v < score.size && x.possible(); v += kTileColumns)
      x.sum += exp(double(own[v]) + double(scores[v]) - x.top);
    x.sum = sum_of_columns(x.sum);
    return x;
  }
};

// What second order takes along a product: the same of the direction, whose scores are the means of f below them; and
// for the spans of the product the mean of f outside of every out(u), and of E f.
template <class T, class S>
struct ProductTangent {
  Product<T, S> v;
  SpanRows<double> above;
  const double *mean, *weight;  // (batch), as those of TreeMeans
  SLV_DEVICE double weight_of(int64_t item) const { return weight ? weight[item] : 1; }
  // of an entry and of all below it
  SLV_DEVICE double below(int64_t item, int i, int u, int column) const {
    return double(v.row(item, u)[column]) + double(v.score.at(item, i)[column]);
  }
};

// Warps of a span, each with a tile of rows.
SLV_BOTH inline int tiles_of(int rows) { return (rows + kTileRows - 1) / kTileRows; }

template <class T, class S>
SLV_KERNEL(kLogThreads)
lowrank_product(Tree<T> g, Product<T, S> p, SpanRows<double> out, int width) {
  const Thread me;
  const SpanPlace<T> at(g, width, tiles_of(p.table.rows), warp_of_launch(me));
  if (!at.exists) return;
  const int u = at.e * kTileRows + me.row;
  const double sum = p.sum(me, at.item, at.i, u).log();
  if (me.column == 0 && u < p.table.rows) out.at(at.item, at.i)[u] = sum;
}

// The same as lowrank_product; and the means of f below every out(u).
template <class T, class S>
SLV_KERNEL(kLogThreads)
lowrank_means(Tree<T> g, Product<T, S> p, ProductTangent<T, S> f, SpanRows<double> out, SpanRows<double> means,
              int width) {
  const Thread me;
  const SpanPlace<T> at(g, width, tiles_of(p.table.rows), warp_of_launch(me));
  if (!at.exists) return;
  const int u = at.e * kTileRows + me.row;
  const bool exists = u < p.table.rows;
  const T* own = p.row(at.item, exists ? u : 0);
  const S* scores = p.score.at(at.item, at.i);
  LogMean x;
  for (int c = me.column; c < p.score.size && exists; c += kTileColumns)
    x.top = larger(x.top, double(own[c]) + double(scores[c]));
  x.top = max_of_columns(x.top);
  for (int c = me.column; c < p.score.size && x.possible(); c += kTileColumns)
    x.add(double(own[c]) + double(scores[c]), f.below(at.item, at.i, u, c));
  x.sum = sum_of_columns(x.sum);
  x.times = sum_of_columns(x.times);
  if (me.column == 0 && exists) out.at(at.item, at.i)[u] = x.log(), means.at(at.item, at.i)[u] = x.mean();
}

// Of every out(u) the largest term, and its weight over the sum relative to that.
template <class T, class S>
SLV_KERNEL(kLogThreads)
lowrank_relative(Tree<T> g, Product<T, S> p, SpanRows<double> mass, SpanRows<double> tops, SpanRows<double> weights,
                 int width) {
  const Thread me;
  const SpanPlace<T> at(g, width, tiles_of(p.table.rows), warp_of_launch(me));
  if (!at.exists) return;
  const int u = at.e * kTileRows + me.row;
  const LogSum x = p.sum(me, at.item, at.i, u);
  if (me.column > 0 || u >= p.table.rows) return;
  const double weight = mass.at(at.item, at.i)[u];
  tops.at(at.item, at.i)[u] = x.top;
  weights.at(at.item, at.i)[u] = weight != 0 ? weight / x.sum : 0;
}

// The weight of every score, which is what all out(u) hand on to it: added to what is there, or in its place.
template <class T, class S, bool kTangent>
SLV_KERNEL(kLogThreads)
lowrank_hand_on(Tree<T> g, Product<T, S> p, ProductTangent<T, S> f, SpanRows<double> tops, SpanRows<double> weights,
                SpanRows<double> into, SpanRows<double> into_outside, bool add, int width) {
  const SpanPlace<T> at(g, width, p.score.size, thread_of_launch());
  if (!at.exists) return;
  const T* column = p.row(at.item, 0) + at.e;
  const double score = double(p.score.at(at.item, at.i)[at.e]);
  const double *top = tops.at(at.item, at.i), *weight = weights.at(at.item, at.i);
  double& out = into.at(at.item, at.i)[at.e];
  double sum = add ? out : 0, outside = 0;
  for (int u = 0; u < p.table.rows; u++) {
    const double share = share_of(weight[u], top[u], double(column[int64_t(u) * p.table.columns]), score);
    sum += share;
    if constexpr (kTangent)
      if (share != 0) outside += share * (double(f.v.row(at.item, u)[at.e]) + f.above.at(at.item, at.i)[u]);
  }
  out = sum;
  if constexpr (kTangent) {
    double& there = into_outside.at(at.item, at.i)[at.e];
    there = add ? there + outside : outside;
  }
}

// Adds to the weight of every entry of the table, of a piece of the items; a thread has one entry.
template <class T, class S, bool kTangent>
SLV_KERNEL(kLogThreads)
lowrank_count(Tree<T> g, Product<T, S> p, ProductTangent<T, S> f, SpanRows<double> tops, SpanRows<double> weights,
              RuleCounts out, int width) {
  const int64_t index = thread_of_launch(), live = int64_t(p.table.rows) * p.score.size, piece = index / live;
  if (piece >= out.pieces()) return;
  const int64_t row = piece / out.chunks, chunk = piece - row * out.chunks;
  const int u = int((index - piece * live) / p.score.size), v = int(index - piece * live - int64_t(u) * p.score.size);
  double* into = out.counts + piece * p.table.size() + int64_t(u) * p.table.columns + p.first + v;
  double sum = *into;
  for (int64_t q = out.begin(chunk); q < out.begin(chunk + 1); q++) {
    const int64_t b = out.rows.item(row, q);
    const double entry = double(p.row(b, u)[v]);
    const int len = Sentence<T>(g, b).len;
    for (int i = 0; i + width <= len; i++) {
      double share = share_of(weights.at(b, i)[u], tops.at(b, i)[u], entry, double(p.score.at(b, i)[v]));
      if constexpr (kTangent)
        if (share != 0) share *= f.weight_of(b) * (f.above.at(b, i)[u] + f.below(b, i, u, v) - f.mean[b]);
      sum += share;
    }
  }
  *into = sum;
}

}  // namespace slv::cuda
