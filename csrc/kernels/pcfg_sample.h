// Trees drawn from the inside chart, from the root down. At a node the split is drawn, then the left child, then the
// right one, from the numbers of that node alone (core/philox.h), as pcfg_search.h does in exact log space.
#pragma once
#include <numeric>

#include "kernels/pcfg_ladder.h"
#include "kernels/pcfg_search.h"

namespace slv {
namespace {

template <class In, class T>
struct ChartSampler {
  static constexpr int W = kWidth<T>;
  const Slices<In, T>& slices;  // all of them kept
  const Spans<T>& s;
  const Sizes<T>& z;
  const T* words;  // of the sentence
  const Hoisted<T> hoisted;
  T *inner, *rows;   // (n), (n, np)
  Doubles& weights;  // of what is drawn
  Draws<1> nodes{};

  int64_t draw(int64_t count, double u) const {
    return pick(weights.data(), count, std::accumulate(weights.begin(), weights.begin() + count, 0.0), u);
  }
  const T* child(int64_t i, int64_t w) const { return w == 1 ? words + i * z.tp : s.at(i, w); }
  T dot(const T* x, const T* y, int64_t n) const {
    vec<T> sum{};
    for (int64_t k = 0; k < n; k += W) sum += load(x + k) * load(y + k);
    return hsum<T>(sum);
  }

  bool operator()(const TreeNode& node, TreeNode& left, TreeNode& right) {
    const int64_t i = node.i, j = node.j, w = j - i + 1, position = 4 * (j * (j + 1) / 2 + i);
    auto u = [&](int word) { return double(uniform<In>(*nodes(position + word))); };
    const int64_t split = draw_split(i, w, node.symbol, u(0));
    if (split < 0) return false;
    const int64_t lw = split + 1, rw = w - lw, ny = lw == 1 ? z.t : z.nt, nz = rw == 1 ? z.t : z.nt;
    const T *y = child(i, lw), *x = child(i + lw, rw);
    const T* e = slices.at(node.symbol) + (lw == 1 ? z.np * z.se : 0) + (rw == 1 ? z.np : 0);
    for (int64_t k = 0; k < ny; k++) weights[k] = double(y[k]) * double(dot(e + k * z.se, x, nz));
    const int64_t a = draw(ny, u(1));
    if (a < 0) return false;
    for (int64_t k = 0; k < nz; k++) weights[k] = double(e[a * z.se + k]) * double(x[k]);
    const int64_t b = draw(nz, u(2));
    if (b < 0) return false;
    left = {i, i + split, a + (lw == 1 ? z.nt : 0)}, right = {i + lw, j, b + (rw == 1 ? z.nt : 0)};
    return true;
  }

 private:
  // the number of words of the left child, less 1
  int64_t draw_split(int64_t i, int64_t w, int64_t A, double u) {
    if (w == 2) return 0;
    const Splits<T> split = s.weigh(i, w, inner);
    const T *l = hoisted.left + (i * z.nt + A) * z.np, *r = hoisted.right + ((i + w - 1) * z.nt + A) * z.np;
    weights[0] = double(split.first) * double(dot(l, s.at(i + 1, w - 1), z.nt));
    weights[w - 2] = double(split.last) * double(dot(r, s.at(i, w - 1), z.nt));
    if (w > 3)
      product<PlusTimes, true, T>({w - 3, z.n_panels(), z.nt}, {s.at(i, 2), z.np, 1}, {slices.at(A), z.se},
                                  Store<T>{rows, z.np});
    for (int64_t k = 0; k < w - 3; k++)
      weights[k + 1] = double(inner[k]) * double(dot(rows + k * z.np, s.at_end(i + w, i + 2 + k), z.nt));
    return draw(w - 1, u);
  }
};

// A block of items on one rung; those it cannot do go into `again`.
template <class In, class T>
void sample_block(const Pcfg<In>& c, const int64_t* items, int64_t count, uint64_t seed, int64_t samples,
                  int64_t* events, Vector<int64_t>& again) {
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
    ChartSampler<In, T> sampler{block.slices,          s,     z,    chart.words + word * z.tp,
                                hoisted.from(z, word), inner, rows, weights};
    for (int64_t k = 0; k < samples; k++) {
      sampler.nodes = {seed, {uint32_t(items[q])}, {uint32_t(k)}, 1};
      Draws<1> top{seed, {uint32_t(items[q])}, {uint32_t(k)}, 2};
      std::copy_n(probability, z.nt, weights.begin());
      const int64_t root = sampler.draw(z.nt, double(uniform<In>(*top(0))));
      grow(c.n, {0, s.n - 1, root}, events + (k * c.batch + items[q]) * event_size(c.n), sampler);
    }
  });
  for (int64_t q = 0; q < count; q++) {
    if (chart.redone(q) != T(0)) again.push_back(items[q]);
    for (int64_t k = 0; block.len(q) == 0 && k < samples; k++)
      std::fill_n(events + (k * c.batch + items[q]) * event_size(c.n), event_size(c.n), -1);
  }
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
