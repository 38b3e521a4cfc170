// Trees drawn from the inside chart, from the root down. At a node the split is drawn, then the left child, then the
// right one, from the numbers of that node alone (core/philox.h), as pcfg_search.h does in exact log space.
#pragma once
#include <numeric>

#include "kernels/pcfg_ladder.h"
#include "kernels/pcfg_search.h"

namespace slv {
namespace {

// Weights of the ways to divide a node, up to a constant, in `weights`; each gives how many there are.
template <class In, class T>
struct ChartWays {
  static constexpr int W = kWidth<T>;
  const Slices<In, T>& slices;  // all of them kept
  const Spans<T>& s;
  const Sizes<T>& z;
  const T* words;  // of the sentence
  const Hoisted<T> hoisted;
  T *inner, *rows;  // (n), (n, np)
  Doubles& weights;

  const T* child(int64_t i, int64_t w) const { return w == 1 ? words + i * z.tp : s.at(i, w); }
  int64_t symbols(int64_t w) const { return w == 1 ? z.t : z.nt; }  // that a child of w words can have
  T dot(const T* x, const T* y, int64_t n) const {
    vec<T> sum{};
    for (int64_t k = 0; k < n; k += W) sum += load(x + k) * load(y + k);
    return hsum<T>(sum);
  }
  // Split k has k + 1 words on the left.
  int64_t splits(const TreeNode& node) {
    const int64_t i = node.i, w = node.j - i + 1, A = node.symbol;
    weights[0] = 1;
    if (w == 2) return 1;
    const Splits<T> split = s.weigh(i, w, inner);
    const T *l = hoisted.left + (i * z.nt + A) * z.np, *r = hoisted.right + ((i + w - 1) * z.nt + A) * z.np;
    weights[0] = double(split.first) * double(dot(l, s.at(i + 1, w - 1), z.nt));
    weights[w - 2] = double(split.last) * double(dot(r, s.at(i, w - 1), z.nt));
    if (w > 3)
      product<PlusTimes, true, T>({w - 3, z.n_panels(), z.nt}, {s.at(i, 2), z.np, 1}, {slices.at(A), z.se},
                                  Store<T>{rows, z.np});
    for (int64_t k = 0; k < w - 3; k++)
      weights[k + 1] = double(inner[k]) * double(dot(rows + k * z.np, s.at_end(i + w, i + 2 + k), z.nt));
    return w - 1;
  }
  int64_t left(const TreeNode& node, int64_t split) {
    const int64_t lw = split + 1, rw = node.j - node.i - split, ny = symbols(lw), nz = symbols(rw);
    const T *y = child(node.i, lw), *x = child(node.i + lw, rw), *e = rules(node.symbol, lw, rw);
    for (int64_t k = 0; k < ny; k++) weights[k] = double(y[k]) * double(dot(e + k * z.se, x, nz));
    return ny;
  }
  int64_t right(const TreeNode& node, int64_t split, int64_t a) {
    const int64_t lw = split + 1, rw = node.j - node.i - split, nz = symbols(rw);
    const T *x = child(node.i + lw, rw), *e = rules(node.symbol, lw, rw) + a * z.se;
    for (int64_t k = 0; k < nz; k++) weights[k] = double(e[k]) * double(x[k]);
    return nz;
  }

 private:
  const T* rules(int64_t A, int64_t lw, int64_t rw) const {
    return slices.at(A) + (lw == 1 ? z.np * z.se : 0) + (rw == 1 ? z.np : 0);
  }
};

template <class In, class T>
struct ChartSampler {
  ChartWays<In, T> ways;
  Draws<1> nodes{};

  int64_t draw(int64_t count, double u) const {
    const Doubles& weights = ways.weights;
    return pick(weights.data(), count, std::accumulate(weights.begin(), weights.begin() + count, 0.0), u);
  }
  bool operator()(const TreeNode& node, TreeNode& left, TreeNode& right) {
    const int64_t i = node.i, j = node.j, nt = ways.z.nt, position = 4 * (j * (j + 1) / 2 + i);
    auto u = [&](int word) { return double(uniform<In>(*nodes(position + word))); };
    const int64_t split = draw(ways.splits(node), u(0));
    if (split < 0) return false;
    const int64_t a = draw(ways.left(node, split), u(1));
    if (a < 0) return false;
    const int64_t b = draw(ways.right(node, split, a), u(2));
    if (b < 0) return false;
    const int64_t k = i + split;
    left = {i, k, a + (k == i ? nt : 0)}, right = {k + 1, j, b + (k + 1 == j ? nt : 0)};
    return true;
  }
};

// The charts of a block of items on one rung: calls visit(q, ways, weights of the root's symbols) for each that has
// trees and that this rung can do; what it cannot goes into `again`.
template <class In, class T, class F>
void each_chart(const Pcfg<In>& c, const int64_t* items, int64_t count, Vector<int64_t>& again, F&& visit) {
  PcfgBlock<In, T> block(c, items, count);
  const Sizes<T>& z = block.z;
  block.slices.step = z.slice();
  int64_t n = 0;  // a chart no longer than its items
  for (int64_t q = 0; q < count; q++) n = std::max(n, c.len(items[q]));
  const int64_t size = count * pcfg_chart_size<T>(n, c.nt, c.t);
  Scratch memory(block.forward_scratch() + Scratch::bytes<T>(size) + Scratch::bytes<T>(n) +
                 Scratch::bytes<T>(n * z.np));
  const BlockChart<T> chart(memory.take<T>(size), z, n, count);
  T *inner = memory.take<T>(n), *rows = memory.take<T>(n * z.np);
  Doubles log_z(c.batch), weights(std::max(n, std::max(z.nt, z.t)));
  block.forward(memory, chart, false, log_z.data(), [&](int64_t q, const Spans<T>& s, const T* probability) {
    const int64_t word = block.first.data()[q];
    const Hoisted<T> hoisted{chart.left, chart.right, chart.both, nullptr};
    visit(items[q], s.n,
          ChartWays<In, T>{block.slices, s, z, chart.words + word * z.tp, hoisted.from(z, word), inner, rows, weights},
          probability);
  });
  for (int64_t q = 0; q < count; q++)
    if (chart.redone(q) != T(0)) again.push_back(items[q]);
}

template <class In, class T>
void sample_block(const Pcfg<In>& c, const int64_t* items, int64_t count, uint64_t seed, int64_t samples,
                  int64_t* events, Vector<int64_t>& again) {
  auto event = [&](int64_t sample, int64_t item) { return events + (sample * c.batch + item) * event_size(c.n); };
  each_chart<In, T>(c, items, count, again,
                    [&](int64_t item, int64_t len, const ChartWays<In, T>& ways, const T* probability) {
                      ChartSampler<In, T> sampler{ways};
                      for (int64_t k = 0; k < samples; k++) {
                        sampler.nodes = {seed, {uint32_t(item)}, {uint32_t(k)}, 1};
                        Draws<1> top{seed, {uint32_t(item)}, {uint32_t(k)}, 2};
                        std::copy_n(probability, c.nt, ways.weights.begin());
                        const int64_t root = sampler.draw(c.nt, double(uniform<In>(*top(0))));
                        grow(c.n, {0, len - 1, root}, event(k, item), sampler);
                      }
                    });
  for (int64_t q = 0; q < count; q++)
    for (int64_t k = 0; c.len(items[q]) < 2 && k < samples; k++) std::fill_n(event(k, items[q]), event_size(c.n), -1);
}
template <class In>
void pcfg_sample(const Pcfg<In>& c, const int64_t* items, int64_t count, uint64_t seed, int64_t samples,
                 int64_t* events) {
  Vector<int64_t> again, last;
  sample_block<In, In>(c, items, count, seed, samples, events, again);
  for (const int64_t& item : again) {
    if (sizeof(In) == 4)
      sample_block<In, double>(c, &item, 1, seed, samples, events, last);
    else
      last.push_back(item);
  }
  for (int64_t item : last)
    pcfg_sample_log(c, item, seed, samples, events + item * event_size(c.n), c.batch * event_size(c.n));
}

}  // namespace
}  // namespace slv
