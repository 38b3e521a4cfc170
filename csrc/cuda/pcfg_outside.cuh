// From the top down: what a node weighs in the posterior goes to pairs of children along p(pair | node) and to the
// children along p(split | pair), width by width, so that large numbers are never subtracted from each other's sums.
// Every result is gathered by the thread that owns it, in one order: nothing is added atomically.
#pragma once
#include "cuda/pcfg_inside.cuh"

namespace slv::cuda {

// The nonterminals at the top; a warp for each item. Other nodes have been cleared.
template <class T>
SLV_KERNEL(32)
pcfg_tops(Pcfg<T> g, const double* inside, TreeMass mass) {
  const Thread me;
  const int64_t b = blockIdx.x;
  const Sentence<T> s(g, b);
  const T* root = g.root + g.root_row.row(b) * g.nt;
  const LogSum all = sum_tops(me, s, root, inside);
  const double weight = mass.weight ? mass.weight[b] : 1;
  for (int a = me.lane; a < g.nt; a += 32) {
    double top = 0;
    if (all.possible()) {
      const int64_t node = s.node(0, s.len) + a;
      top = weight * exp(double(root[a]) + inside[node] - all.top) / all.sum;
      mass.nodes[node] = top;
    }
    mass.top[b * g.nt + a] = top;
  }
}

// What a rule and a pair of children, a log of sums, weigh below a node.
SLV_DEVICE double of_pair(double weight, double top, double rule, double pair) {
  return weight != 0 && pair > -HUGE_VAL ? weight * exp(rule + pair - top) : 0;
}

// What the outside pass has of a node's sum over pairs of children: the largest term, and the node's weight over the
// sum relative to it. Places of the spans of one width, as those of pairs.
template <class T>
SLV_DEVICE int64_t node_place(const Pcfg<T>& g, int64_t count, int i) {
  return (count * (g.n - 1) + i) * g.nt;
}

// The pairs of children of all spans of `width` words; a block has one span of one item.
template <class T>
SLV_KERNEL(kLogThreads)
pcfg_pairs(Pcfg<T> g, TreeSpace<T> space, TreeMass mass, int width) {
  const Thread me;
  const SpanBlock<T> block(g, space.first, width);
  const Sentence<T> s(g, block.item);
  if (block.i + width > s.len) return;
  double *pairs = space.pairs + block.place, *tops = mass.split_tops + block.place, *out = mass.pairs + block.place;
  sum_splits(me, s, space.inside, block.i, width,
             [&](int64_t q, const LogSum& x) { pairs[q] = x.log(), tops[q] = x.top, out[q] = x.sum; });
  sync_block();
  const int64_t place = node_place(g, block.item - space.first, block.i), count = g.pairs();
  for (int a = me.warp; a < g.nt; a += me.warps) {
    const double weight = mass.nodes[s.node(block.i, width) + a];
    const LogSum x = sum_rules(me, s, pairs, a);
    if (me.lane > 0) continue;
    mass.rule_tops[place + a] = x.top;
    mass.rule_weights[place + a] = weight != 0 ? weight / x.sum : 0;
  }
  sync_block();
  for (int64_t q = me.index; q < count; q += blockDim.x) {
    double sum = 0;
    for (int a = 0; a < g.nt; a++)
      sum += of_pair(mass.rule_weights[place + a], mass.rule_tops[place + a], double(s.rules[a * count + q]), pairs[q]);
    out[q] = sum != 0 ? sum / out[q] : 0;
  }
}

// Adds to counts (rows, nt, s, s) what the spans of `width` words give; a thread has one rule of one row.
template <class T>
SLV_KERNEL(kLogThreads)
pcfg_rules(Pcfg<T> g, TreeSpace<T> space, TreeMass mass, int width, RowMap rows, double* counts) {
  const int64_t rule = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, pairs = g.pairs(), size = g.nt * pairs;
  if (rule >= rows.rows * size) return;
  const int64_t row = rule / size, e = rule - row * size, q = e % pairs;
  const int a = int(e / pairs);
  double sum = counts[rule];
  for (int64_t p = 0; p < rows.items_of_row(); p++) {
    const int64_t b = rows.item(row, p);
    if (b < space.first || b >= space.first + space.count) continue;
    const Sentence<T> s(g, b);
    for (int i = 0; i + width <= s.len; i++) {
      const int64_t node = node_place(g, b - space.first, i) + a;
      sum += of_pair(mass.rule_weights[node], mass.rule_tops[node], double(s.rules[e]),
                     space.pairs[((b - space.first) * (g.n - 1) + i) * pairs + q]);
    }
  }
  counts[rule] = sum;
}

// Adds to nodes and words of fewer than `width` words what they get as children of spans of `width` words; a block has
// one child of one item, a warp one symbol of it.
template <class T>
SLV_KERNEL(kLogThreads)
pcfg_children(Pcfg<T> g, TreeSpace<T> space, TreeMass mass, int width) {
  const Thread me;
  const int i = int(blockIdx.x % unsigned(g.n)), nt = g.nt, symbols = g.s();
  const int64_t rest = blockIdx.x / unsigned(g.n), count = rest / (width - 1);
  const int v = int(rest - count * (width - 1)) + 1, w = width - v;  // the words of the child, and of its sibling
  const Sentence<T> s(g, space.first + count);
  if (i + v > s.len) return;
  const int first = w == 1 ? nt : 0, last = w == 1 ? symbols : nt;  // the sibling's symbols
  // what the child gets as a part of the span that begins at `parent`, its sibling beginning at `other`
  auto share = [&](int y, int parent, int other, bool left) {
    const int64_t place = (count * (g.n - 1) + parent) * g.pairs();
    const double own = s.below(space.inside, i, v, y);
    double sum = 0;
    for (int z = first + me.lane; z < last; z += 32) {
      const int64_t q = place + (left ? int64_t(y) * symbols + z : int64_t(z) * symbols + y);
      const double here = mass.pairs[q];
      if (here != 0) sum += here * exp(own + s.below(space.inside, other, w, z) - mass.split_tops[q]);
    }
    return sum;
  };
  for (int a = me.warp; a < (v == 1 ? g.t : nt); a += me.warps) {
    const int y = v == 1 ? nt + a : a;
    double sum = 0;
    if (i + width <= s.len) sum += share(y, i, i + v, true);
    if (i >= w) sum += share(y, i - w, i - w, false);
    sum = warp_sum(sum);
    if (me.lane > 0) continue;
    double* into = v == 1 ? mass.words + (s.item * g.n + i) * g.t : mass.nodes + s.node(i, v);
    into[a] += sum;
  }
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
pcfg_sum_spans(Pcfg<T> g, RowMap rows, int labels, const double* nodes, T* out) {
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
