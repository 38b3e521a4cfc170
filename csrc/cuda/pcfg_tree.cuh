// What the kernels of all grammars share: one item's sentence, sums in log space, the symbols at the top, and sums over
// the items that share a potential.
#pragma once
#include "cuda/log_sum.cuh"
#include "cuda/pcfg_tree.h"

namespace slv::cuda {

SLV_DEVICE int64_t thread_of_launch() { return int64_t(blockIdx.x) * blockDim.x + threadIdx.x; }
SLV_DEVICE int64_t warp_of_launch(const Thread& me) { return int64_t(blockIdx.x) * me.warps + me.warp; }

// One item, as its threads see it.
template <class T>
struct Sentence {
  const Tree<T>& tree;
  int len;  // 0 where the item is left alone
  int64_t item;
  const T* spans;
  SLV_DEVICE Sentence(const Tree<T>& tree, int64_t b)
      : tree(tree),
        len(tree.n),
        item(b),
        spans(tree.spans ? tree.spans + tree.span_row.row(b) * tree.n * tree.n * tree.labels : nullptr) {
    if (left_alone()) len = 0;
    if (!tree.length || len == 0) return;
    const int64_t given = tree.length[b];
    len = given < 0 ? 0 : given > tree.n ? tree.n : int(given);
  }
  SLV_DEVICE bool left_alone() const { return tree.redo && tree.redo[item] == T(0); }
  SLV_DEVICE double span_score(int i, int w, int a) const {
    if (!spans) return 0;
    return double(spans[(int64_t(i) * tree.n + i + w - 1) * tree.labels + (tree.labels == 1 ? 0 : a)]);
  }
  // The place of a node in the inside values; and the log of the sum over the trees of `w` words with `symbol` on top,
  // a preterminal where w is 1 and a nonterminal otherwise.
  SLV_DEVICE int64_t node(int i, int w) const { return (item * tree.spans_of_item() + tree.span(i, w)) * tree.nt; }
  SLV_DEVICE double below(const double* inside, int i, int w, int symbol) const {
    return w == 1 ? double(tree.unary[(item * tree.n + i) * tree.t + symbol - tree.nt]) : inside[node(i, w) + symbol];
  }
};

// A sum of exp(term), and the sum of these times a number each, both relative to the largest term: a mean is the second
// over the first. What is impossible has no part in it, whatever its number.
struct LogMean : LogSum {
  double times = 0;
  SLV_DEVICE void add(double term, double number) {
    const double e = exp(term - this->top);
    this->sum += e;
    if (e > 0) times += e * number;
  }
  SLV_DEVICE double mean() const { return possible() ? times / this->sum : 0; }
};
// Of the terms `term(q)` and the numbers `number(q)`, first <= q < end.
template <class F, class G>
SLV_DEVICE LogMean log_mean(int first, int end, F&& term, G&& number) {
  LogMean x;
  for (int q = first; q < end; q++) x.top = larger(x.top, term(q));
  for (int q = first; q < end && x.possible(); q++) x.add(term(q), number(q));
  return x;
}
// The same over a warp.
template <class F, class G>
SLV_DEVICE LogMean warp_log_mean(const Thread& me, int64_t count, F&& term, G&& number) {
  LogMean x;
  for (int64_t q = me.lane; q < count; q += 32) x.top = larger(x.top, term(q));
  x.top = warp_max(x.top);
  for (int64_t q = me.lane; q < count && x.possible(); q += 32) x.add(term(q), number(q));
  x.sum = warp_sum(x.sum);
  x.times = warp_sum(x.times);
  return x;
}

// What a term of such a sum weighs: `weight` is that of the whole over its sum.
SLV_DEVICE double share_of(double weight, double top, double rule, double below) {
  return weight != 0 && below > -HUGE_VAL ? weight * exp(rule + below - top) : 0;
}

// Over the nonterminals at the top, by a warp; nothing for sentences of fewer than two words, which have no tree.
template <class T>
SLV_DEVICE LogSum sum_tops(const Thread& me, const Sentence<T>& s, const T* root, const double* inside) {
  if (s.len < 2) return {};
  const double* node = inside + s.node(0, s.len);
  return warp_log_sum(me, s.tree.nt, [&](int64_t a) { return double(root[a]) + node[a]; });
}

template <class T>
SLV_KERNEL(32)
pcfg_finish(Tree<T> g, const double* inside, double* log_z, T* log_z_narrow) {
  const Thread me;
  const int64_t b = blockIdx.x;
  const Sentence<T> s(g, b);
  if (s.left_alone()) return;
  const double z = sum_tops(me, s, g.root + g.root_row.row(b) * g.nt, inside).log();
  if (me.lane > 0) return;
  if (log_z) log_z[b] = z;
  if (log_z_narrow) log_z_narrow[b] = T(z);
}

// The nonterminals at the top; a warp for each item. Other nodes have been cleared.
template <class T>
SLV_KERNEL(32)
pcfg_tops(Tree<T> g, const double* inside, const double* weights, double* tops, double* nodes) {
  const Thread me;
  const int64_t b = blockIdx.x;
  const Sentence<T> s(g, b);
  if (s.left_alone()) return;
  const T* root = g.root + g.root_row.row(b) * g.nt;
  const LogSum all = sum_tops(me, s, root, inside);
  const double weight = weights ? weights[b] : 1;
  for (int a = me.lane; a < g.nt; a += 32) {
    double top = 0;
    if (all.possible()) {
      const int64_t node = s.node(0, s.len) + a;
      top = weight * exp(double(root[a]) + inside[node] - all.top) / all.sum;
      nodes[node] = top;
    }
    tops[b * g.nt + a] = top;
  }
}

// E f, and what is outside of the nonterminals at the top; a warp for each item.
template <class T>
SLV_KERNEL(32)
pcfg_top_means(Tree<T> g, Tree<T> v, const double* nodes, TreeMeans<T> f) {
  const Thread me;
  const int64_t b = blockIdx.x;
  const Sentence<T> s(g, b);
  const T* root = v.root + v.root_row.row(b) * g.nt;
  double mean = 0;
  for (int a = me.lane; a < g.nt && s.len > 1; a += 32) {
    const int64_t node = s.node(0, s.len) + a;
    if (nodes[node] == 0) continue;
    f.outside[node] = nodes[node] * double(root[a]);
    mean += f.outside[node] + nodes[node] * f.means[node];
  }
  mean = warp_sum(mean);
  if (me.lane == 0) f.mean[b] = mean, f.mean_narrow[b] = T(mean);
}

// `outside`: the probability times the mean of f there.
SLV_DEVICE double covariance(double p, double below, double outside, double mean) {
  return p != 0 ? p * (outside / p + below - mean) : 0;
}
// A thread has one symbol of a node or a word.
template <class T>
SLV_KERNEL(kLogThreads)
pcfg_covariances(Tree<T> g, Tree<T> v, TreeMeans<T> f, double* nodes, double* words, double* tops) {
  const int64_t of_nodes = g.spans_of_item() * g.nt, each = of_nodes + int64_t(g.n) * g.t;
  const int64_t thread = thread_of_launch(), b = thread / each, e = thread - b * each;
  if (b >= g.batch) return;
  if (e >= of_nodes) {
    const int64_t at = b * g.n * g.t + e - of_nodes;
    words[at] = f.weight_of(b) * covariance(words[at], double(v.unary[at]), f.words_outside[at], f.mean[b]);
    return;
  }
  const int64_t at = b * of_nodes + e;
  nodes[at] = f.weight_of(b) * covariance(nodes[at], f.means[at], f.outside[at], f.mean[b]);
  const Sentence<T> s(g, b);
  if (s.len < 2) return;
  const int64_t a = at - s.node(0, s.len);
  if (a >= 0 && a < g.nt) tops[b * g.nt + a] = nodes[at];
}

// out (rows, size): sums of (items, size) over the items of each row; a thread has one of them.
template <class T>
SLV_KERNEL(kLogThreads)
pcfg_sum_items(RowMap rows, int64_t size, const double* from, T* out) {
  const int64_t at = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= rows.rows * size) return;
  const int64_t row = at / size, e = at - row * size;
  double sum = 0;
  for (int64_t p = 0; p < rows.items_of_row(); p++) sum += from[rows.item(row, p) * size + e];
  out[at] = T(sum);
}

// out (rows, n, n, labels): the same of nodes, 0 where there is none; a label of 1 is all nonterminals.
template <class T>
SLV_KERNEL(kLogThreads)
pcfg_sum_spans(Tree<T> g, RowMap rows, int labels, const double* nodes, T* out) {
  const int64_t at = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, size = int64_t(g.n) * g.n * labels;
  if (at >= rows.rows * size) return;
  const int64_t row = at / size, e = at - row * size, ij = e / labels;
  const int i = int(ij / g.n), j = int(ij - int64_t(i) * g.n), label = int(e - ij * labels);
  double sum = 0;
  for (int64_t p = 0; i < j && p < rows.items_of_row(); p++) {
    const double* node = nodes + (rows.item(row, p) * g.spans_of_item() + g.span(i, j - i + 1)) * g.nt;
    for (int a = labels == 1 ? 0 : label; a < (labels == 1 ? g.nt : label + 1); a++) sum += node[a];
  }
  out[at] = T(sum);
}

}  // namespace slv::cuda
