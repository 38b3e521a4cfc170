// Trees drawn from the inside chart, from the root down. At a node the split is drawn, then the left child, then the
// right one, from the numbers of that node alone (core/philox.h), as pcfg_search.h does in exact log space. But a left
// child of one word is drawn after the right one: the chart has its sum with the rules (`left`, `both`), and a node
// of two words looks at T + T numbers in place of T^2.
#pragma once
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
  // each(k, the product of a row of a and one of b), several rows at once
  template <class F>
  void dots(int64_t count, int64_t n, const T* a, int64_t a_row, const T* b, int64_t b_row, F each) const {
    constexpr int R = kTreeRows<T>;
    for (int64_t q = 0; q < count; q += R) {
      const int64_t live = std::min<int64_t>(R, count - q);
      vec<T> sum[R];
      for (int r = 0; r < R; r++) {
        const int64_t row = q + std::min<int64_t>(r, live - 1);
        sum[r] = vec<T>{};
        for (int64_t k = 0; k < n; k += W) sum[r] += load(a + row * a_row + k) * load(b + row * b_row + k);
      }
      alignas(64) T value[R];
      store_rows(value, reduce_rows<T>(sum, SumOp()));
      for (int64_t r = 0; r < live; r++) each(q + r, value[r]);
    }
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
    dots(w - 3, z.nt, rows, z.np, s.at_end(i + w, i + 2), z.np,
         [&](int64_t k, T x) { weights[k + 1] = double(inner[k]) * double(x); });
    return w - 1;
  }
  int64_t left(const TreeNode& node, int64_t split) {
    const int64_t lw = split + 1, rw = node.j - node.i - split, ny = symbols(lw), nz = symbols(rw);
    const T *y = child(node.i, lw), *x = child(node.i + lw, rw), *e = rules(node.symbol, lw, rw);
    if (rw == 1 && lw > 1)
      weigh(y, hoisted.right + (node.j * z.nt + node.symbol) * z.np, ny);
    else
      dots(ny, nz, e, z.se, x, 0, [&](int64_t k, T sum) { weights[k] = double(y[k]) * double(sum); });
    return ny;
  }
  int64_t right(const TreeNode& node, int64_t split, int64_t a) {
    const int64_t lw = split + 1, rw = node.j - node.i - split, nz = symbols(rw);
    weigh(child(node.i + lw, rw), rules(node.symbol, lw, rw) + a * z.se, nz);
    return nz;
  }
  // The other way round, where the left child is a word.
  int64_t right(const TreeNode& node) {
    const int64_t rw = node.j - node.i, row = node.i * z.nt + node.symbol, nz = symbols(rw);
    weigh(child(node.i + 1, rw), rw == 1 ? hoisted.both + row * z.tp : hoisted.left + row * z.np, nz);
    return nz;
  }
  int64_t word(const TreeNode& node, int64_t b) {
    const T *y = child(node.i, 1), *e = rules(node.symbol, 1, node.j - node.i) + b;
    for (int64_t k = 0; k < z.t; k++) weights[k] = double(y[k]) * double(e[k * z.se]);
    return z.t;
  }

 private:
  void weigh(const T* a, const T* b, int64_t count) {
    for (int64_t k = 0; k < count; k++) weights[k] = double(a[k]) * double(b[k]);
  }
  const T* rules(int64_t A, int64_t lw, int64_t rw) const {
    return slices.at(A) + (lw == 1 ? z.np * z.se : 0) + (rw == 1 ? z.np : 0);
  }
};

// Samples of one item, grown together: of the nodes that wait, those of one symbol after another, so that its rules are
// read while they are in the cache. A node's subtree of w words has 2 w - 1 rows, so every node knows its row.
template <class In, class T>
class ChartSampler {
 public:
  static constexpr int64_t kTogether = 256;
  ChartSampler(ChartWays<In, T>& ways, int64_t n, uint64_t seed, int64_t item)
      : ways_(ways), n_(n), seed_(seed), item_(uint32_t(item)), waiting_(ways.z.nt) {}

  // Samples first .. first + count - 1 of a sentence of `len` words; event(sample) is where one goes.
  template <class F>
  void run(int64_t len, int64_t first, int64_t count, const T* roots, F&& event) {
    for (int64_t k = first; k < first + count; k++) {
      int64_t* to = event(k);
      std::fill_n(to, event_size(n_), -1);
      std::copy_n(roots, ways_.z.nt, ways_.weights.begin());
      Draws<1> top{seed_, {item_}, {uint32_t(k)}, 2};
      const int64_t root = draw(ways_.z.nt, double(uniform<In>(*top(0))));
      if (root >= 0) waiting_[root].push_back({0, len - 1, k, to});
    }
    for (bool some = true; some;) {
      some = false;
      for (int64_t A = 0; A < ways_.z.nt; A++)
        for (Vector<Open>& nodes = waiting_[A]; !nodes.empty(); some = true) {
          const Open node = nodes.back();
          nodes.pop_back();
          if (!divide(node, A)) lost_.push_back(node.sample);
        }
    }
    for (int64_t k : lost_) std::fill_n(event(k), event_size(n_), -1);
    lost_.clear();
  }

 private:
  struct Open {
    int64_t i, j, sample;
    int64_t* row;
  };
  // As `pick` does it, but first by blocks, which do not wait for one another's sums.
  int64_t draw(int64_t count, double u) const {
    constexpr int64_t kBlock = 8, V = kWidth<double>;
    double* w = ways_.weights.data();
    std::fill(w + count, w + (count + kBlock - 1) / kBlock * kBlock, 0.0);
    auto block = [&](int64_t at) __attribute__((always_inline)) {
      vec<double> x = load(w + at);
      for (int64_t l = V; l < kBlock; l += V) x += load(w + at + l);
      return hsum<double>(x);
    };
    double sum = 0, before = 0, next;
    for (int64_t at = 0; at < count; at += kBlock) sum += block(at);
    const double target = std::min(u * sum, sum * (1 - 0x1p-53));
    int64_t at = 0;
    for (; at < count; at += kBlock, before = next)
      if ((next = before + block(at)) > target) break;
    int64_t last = -1;  // of positive weight: rounding may have left the target to it
    for (int64_t k = at; k < std::min(at + kBlock, count); k++) {
      if (w[k] > 0) last = k;
      if ((before += w[k]) > target) return k;
    }
    return last;
  }
  bool divide(const Open& open, int64_t A) {
    const TreeNode node{open.i, open.j, A};
    Draws<1> numbers{seed_, {item_}, {uint32_t(open.sample)}, 1};
    const int64_t i = open.i, j = open.j, position = 4 * (j * (j + 1) / 2 + i);
    auto u = [&](int word) { return double(uniform<In>(*numbers(position + word))); };
    const int64_t split = draw(ways_.splits(node), u(0));
    if (split < 0) return false;
    int64_t a = -1, b = -1;
    if (split == 0) {
      if ((b = draw(ways_.right(node), u(2))) >= 0) a = draw(ways_.word(node, b), u(1));
    } else {
      if ((a = draw(ways_.left(node, split), u(1))) >= 0) b = draw(ways_.right(node, split, a), u(2));
    }
    if (a < 0 || b < 0) return false;
    write(open.row, i, j, A);
    const int64_t k = i + split;
    child(i, k, a, open.sample, open.row + 3);
    child(k + 1, j, b, open.sample, open.row + 3 * (2 * (k - i + 1)));
    return true;
  }
  void child(int64_t i, int64_t j, int64_t symbol, int64_t sample, int64_t* row) {
    if (i == j)
      write(row, i, j, ways_.z.nt + symbol);
    else
      waiting_[symbol].push_back({i, j, sample, row});
  }
  static void write(int64_t* row, int64_t i, int64_t j, int64_t symbol) { row[0] = i, row[1] = j, row[2] = symbol; }

  ChartWays<In, T>& ways_;
  const int64_t n_;
  const uint64_t seed_;
  const uint32_t item_;
  Vector<Vector<Open>> waiting_;  // by symbol
  Vector<int64_t> lost_;          // samples without a tree
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
  Doubles log_z(c.batch), weights(std::max(n, std::max(z.nt, z.t)) + 8);
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
                    [&](int64_t item, int64_t len, ChartWays<In, T> ways, const T* probability) {
                      ChartSampler<In, T> sampler(ways, c.n, seed, item);
                      constexpr int64_t kMost = ChartSampler<In, T>::kTogether;
                      for (int64_t k = 0; k < samples; k += kMost)
                        sampler.run(len, k, std::min(kMost, samples - k), probability,
                                    [&](int64_t sample) { return event(sample, item); });
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
