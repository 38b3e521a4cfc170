// Trees drawn from the inside chart, as pcfg_search.h does it in exact log space. At a node over i..j with symbol A:
//   which of its children are words          four kinds, as Layout numbers them; sums of what follows
//   a pair (y, z)                            in proportion to rules[A, y, z] M_ij[y, z], M as in pcfg_inside.h: first
//                                            the right child (the left one if the right one is a word), then the other
//   the split, between two spans             2^d_k left_k[y] right_k[z]
// from the numbers of that node alone (core/philox.h). All samples of a sentence grow together, the widest spans first:
// M is computed once for a span, and a node costs O(N^2 + w) for N nonterminals, whose sums need no look at the splits.
#pragma once
#include "core/draw.h"
#include "kernels/pcfg_ladder.h"
#include "kernels/pcfg_search.h"

namespace slv {
namespace {

// Weights of the ways to divide a node, up to a constant; each function may overwrite those of another.
template <class In, class T>
struct ChartWays {
  static constexpr int W = kWidth<T>, kSlots = 8;
  const Slices<In, T>& slices;
  const Spans<T> s;
  const Sizes<T> z;
  const T* words;  // of the sentence
  const Hoisted<T> hoisted;
  const T* kept;                                   // pairs of children of all spans, or null
  T *inner, *scaled, *own_pairs, *sums, *weights;  // sums: of each of kSlots nodes, weights of `first` by kind
  int64_t i = -1, w = 0;                           // the span that was entered last: inner, pairs, split are of it
  Splits<T> split{};
  const T* pairs = nullptr;

  static int64_t scratch(const Sizes<T>& z, int64_t n) {
    return Scratch::bytes<T>(n) + Scratch::bytes<T>(n * z.np) + Scratch::bytes<T>(z.pairs) +
           Scratch::bytes<T>(kSlots * 3 * 2 * z.np) + Scratch::bytes<T>(most(z, n));
  }
  ChartWays(const Slices<In, T>& slices, const Spans<T>& s, const T* words, const Hoisted<T>& hoisted, const T* kept,
            int64_t n, Scratch& memory)
      : slices(slices),
        s(s),
        z(s.z),
        words(words),
        hoisted(hoisted),
        kept(kept),
        inner(memory.take<T>(n)),
        scaled(memory.take<T>(n * z.np)),
        own_pairs(memory.take<T>(z.pairs)),
        sums(memory.take<T>(kSlots * 3 * 2 * z.np)),
        weights(memory.take<T>(most(z, n))) {}

  void enter(int64_t first, int64_t width) {
    if (first == i && width == w) return;
    i = first, w = width;
    split = s.weigh(i, w, inner);
    pairs = kept ? kept + by_width(s.n, i, w) * z.pairs : own_pairs;
    if (w > 3 && !kept) s.merge(i, w, inner, scaled, own_pairs);
  }
  Weights<T> roots(const T* probability) {
    for (int64_t p = 0; p < z.nv; p += W) store(weights + p, load(probability + p));
    return {weights, z.nt};
  }
  std::array<T, 4> kinds(int64_t A, int slot = 0) {
    if (w == 2) return {0, 0, 0, 1};
    return {w > 3 ? sum_columns(slices.wide + A * z.pairs, row(slot, Layout::kWide)) : T(0),
            split.last * multiply(with_right_word(A), s.at(i, w - 1), row(slot, Layout::kLeafRight)),
            split.first * multiply(with_left_word(A), s.at(i + 1, w - 1), row(slot, Layout::kLeafLeft)), 0};
  }
  // The child that is drawn first; of the node that `kinds` looked at for this slot.
  Weights<T> first(int64_t A, int64_t kind, int slot = 0) {
    if (w > 2) return {row(slot, kind), z.nt};
    const T *a = hoisted.both + (i * z.nt + A) * z.tp, *b = words + (i + 1) * z.tp;
    return each(z.t, [&](int64_t k) { return load(a + k) * load(b + k); });
  }
  // The other one beside it.
  Weights<T> second(int64_t A, int64_t kind, int64_t chosen) {
    if (kind == Layout::kLeafRight) return word(A, i + w - 1, chosen, false);
    if (kind != Layout::kWide) return word(A, i, chosen + (kind == Layout::kLeaves ? z.nt : 0), true);
    const T *e = slices.wide + A * z.pairs + chosen, *m = pairs + chosen;
    return each(z.nt, [&](int64_t k) { return strided(e, z.nv, k, z.nv) * strided(m, z.nv, k, z.nt); });
  }
  // A word under A beside a child of symbol `sibling`, on its left or on its right. Rules with words are exponentiated
  // as they are needed.
  Weights<T> word(int64_t A, int64_t at, int64_t sibling, bool on_left) {
    const int64_t symbols = z.nt + z.t;
    const In* rules = slices.slice(A) + (on_left ? z.nt * symbols + sibling : sibling * symbols + z.nt);
    const vec<T> power = slices.power_vector(A);
    const T* score = words + at * z.tp;
    if (on_left)
      return each(z.t,
                  [&](int64_t k) { return exp_scaled<T>(strided(rules, symbols, k, z.t), power) * load(score + k); });
    return each(z.t, [&](int64_t k) {
      return exp_scaled<T>(load_within<T>(rules + k, z.t - k, slices.end(), T(0)), power) * load(score + k);
    });
  }
  // Split k of two nonterminals has k + 2 words on the left.
  Weights<T> splits(int64_t y, int64_t x) {
    const T *l = s.at(i, 2) + y, *r = s.at_end(i + w, i + 2) + x;
    const int64_t count = w - 3;
    return each(count, [&](int64_t k) {
      return load_n<T>(inner + k, int(std::min<int64_t>(W, count - k)), T(0)) *
             (strided(l, z.np, k, count) * strided(r, z.np, k, count));
    });
  }

 private:
  static int64_t most(const Sizes<T>& z, int64_t n) { return 2 * (std::max(n, std::max(z.nv, z.tv)) + kChartBytes); }
  const T* with_left_word(int64_t A) const { return hoisted.left + (i * z.nt + A) * z.np; }
  const T* with_right_word(int64_t A) const { return hoisted.right + ((i + w - 1) * z.nt + A) * z.np; }
  T* row(int slot, int64_t kind) const { return sums + (slot * 3 + kind) * 2 * z.np; }
  T multiply(const T* a, const T* b, T* to) const {
    vec<T> sum{};
    for (int64_t p = 0; p < z.nv; p += W) {
      const vec<T> x = load(a + p) * load(b + p);
      store(to + p, x);
      sum += x;
    }
    return hsum<T>(sum);
  }
  // for each right child, of all left ones
  T sum_columns(const T* e, T* to) {
    vec<T> all{};
    for (int64_t p = 0; p < z.nv; p += W) {
      vec<T> even{}, odd{};
      const T *a = e + p, *b = pairs + p;
      for (int64_t y = 0; y + 1 < z.nt; y += 2, a += 2 * z.nv, b += 2 * z.nv) {
        even += load(a) * load(b);
        odd += load(a + z.nv) * load(b + z.nv);
      }
      if (z.nt % 2) even += load(a) * load(b);
      all += even + odd;
      store(to + p, even + odd);
    }
    return hsum<T>(all);
  }
  // of(k): the weights from the k-th on, 0 behind the last
  template <class F>
  Weights<T> each(int64_t count, F of) {
    for (int64_t k = 0; k < count; k += W) store<T>(weights + k, of(k));
    return {weights, count};
  }
  // Elements k, k + 1, ... of `count` that lie `row` apart; the last one again behind it.
  template <class From>
  SLV_INLINE static vec<T> strided(const From* a, int64_t row, int64_t k, int64_t count) {
    vec<T> v;
    a += k * row;
    if (k + W <= count) {
#pragma GCC unroll 16
      for (int q = 0; q < W; q++, a += row) v[q] = T(*a);
    } else {
#pragma GCC unroll 16
      for (int q = 0; q < W; q++) {
        v[q] = T(*a);
        a += k + q + 1 < count ? row : 0;
      }
    }
    return v;
  }
};

// Samples of one item, grown together from the widest span to the narrowest. A node's subtree of w words has 2 w - 1
// rows, so every node knows its row.
template <class In, class T>
class ChartSampler {
 public:
  static constexpr int64_t kTogether = 256;
  ChartSampler(ChartWays<In, T>& ways, int64_t n, uint64_t seed, int64_t item)
      : ways_(ways),
        n_(n),
        len_(ways.s.n),
        waiting_(span_count(len_), -1),
        words_of_(ways.z.nt, -1),
        numbers_{seed, {}, {}, 1} {
    std::fill_n(numbers_.item, kLanes, uint32_t(item));
  }
  // Samples first .. first + count - 1; event(sample) is where one goes. False where T lost what a node is made of.
  template <class F>
  bool run(int64_t first, int64_t count, const T* roots, F&& event) {
    nodes_.clear();
    words_.clear();
    for (int64_t k = first; k < first + count; k++) {
      int64_t* to = event(k);
      std::fill(to + 3 * (2 * len_ - 1), to + event_size(n_), -1);
      Draws<1> top{numbers_.seed, {numbers_.item[0]}, {uint32_t(k)}, 2};
      const int64_t root = draw(ways_.roots(roots), T(uniform<In>(*top(0))));
      if (root >= 0)
        wait(0, len_, k, root, to);
      else
        std::fill_n(to, event_size(n_), -1);
    }
    for (int64_t w = len_; w >= 2; w--)
      for (int64_t i = 0; i + w <= len_; i++) divide(i, w);
    draw_words();
    return !lost_;
  }

 private:
  static constexpr int kLanes = ChartWays<In, T>::kSlots;
  struct Node {
    int64_t sample, symbol;
    int64_t* row;
    int64_t next;  // that waits for the same span; -1: none
  };
  struct Word {
    int64_t at, sibling;
    int64_t* row;
    T u;
    bool on_left;
    int64_t next = -1;  // that waits for the same rules
  };
  void wait(int64_t i, int64_t w, int64_t sample, int64_t symbol, int64_t* row) {
    int64_t& head = waiting_[by_start(len_, i, w)];
    nodes_.push_back({sample, symbol, row, head});
    head = nodes_.size() - 1;
  }
  void wait_for_word(int64_t A, Word word) {
    word.next = words_of_[A];
    words_.push_back(word);
    words_of_[A] = words_.size() - 1;
  }
  void divide(int64_t i, int64_t w) {
    int64_t& head = waiting_[by_start(len_, i, w)];
    if (head < 0) return;
    ways_.enter(i, w);
    const int64_t j = i + w - 1, position = 4 * (j * (j + 1) / 2 + i);
    while (head >= 0) {
      Node node[kLanes];
      int count = 0;
      for (; head >= 0 && count < kLanes; head = node[count++].next) {
        node[count] = nodes_[head];
        numbers_.sample[count] = uint32_t(node[count].sample);
      }
      numbers_.block = -1;
      numbers_(position);
      divide(node, count);
    }
  }
  // One choice of all nodes after another: what one node's has to wait for overlaps with the others'.
  void divide(const Node* node, int count) {
    int64_t kind[kLanes], first[kLanes];
    for (int q = 0; q < count; q++) kind[q] = draw(ways_.kinds(node[q].symbol, q), u(0, q));
    for (int q = 0; q < count; q++)
      first[q] =
          kind[q] < 0 ? -1 : draw(ways_.first(node[q].symbol, kind[q], q), u(kind[q] == Layout::kLeafRight ? 1 : 2, q));
    const int64_t i = ways_.i, w = ways_.w;
    for (int q = 0; q < count; q++) {
      const Node& n = node[q];
      write(n.row, i, i + w - 1, n.symbol);
      if (first[q] < 0) {
        lost_ = true;
      } else if (kind[q] == Layout::kWide) {
        divide_wide(n, first[q], u(1, q), u(3, q));
      } else if (kind[q] == Layout::kLeafRight) {
        wait(i, w - 1, n.sample, first[q], n.row + 3);
        wait_for_word(n.symbol, {i + w - 1, first[q], n.row + 3 * (2 * (w - 1)), u(2, q), false});
      } else if (kind[q] == Layout::kLeafLeft) {
        wait(i + 1, w - 1, n.sample, first[q], n.row + 6);
        wait_for_word(n.symbol, {i, first[q], n.row + 3, u(1, q), true});
      } else {
        const int64_t x = ways_.z.nt + first[q];
        write(n.row + 6, i + 1, i + 1, x);
        wait_for_word(n.symbol, {i, x, n.row + 3, u(1, q), true});
      }
    }
  }
  void divide_wide(const Node& n, int64_t x, T u_left, T u_split) {
    const int64_t i = ways_.i, w = ways_.w, y = draw(ways_.second(n.symbol, Layout::kWide, x), u_left);
    const int64_t k = y < 0 ? -1 : draw(ways_.splits(y, x), u_split);
    if (k < 0) return void(lost_ = true);
    wait(i, k + 2, n.sample, y, n.row + 3);
    wait(i + k + 2, w - k - 2, n.sample, x, n.row + 3 * (2 * (k + 2)));
  }
  // Words, by the symbol above them, whose rules stay in the cache meanwhile.
  void draw_words() {
    for (int64_t A = 0; A < ways_.z.nt; A++)
      for (int64_t& head = words_of_[A]; head >= 0; head = words_[head].next) {
        const Word& word = words_[head];
        const int64_t symbol = draw(ways_.word(A, word.at, word.sibling, word.on_left), word.u);
        lost_ = lost_ || symbol < 0;
        write(word.row, word.at, word.at, ways_.z.nt + symbol);
      }
  }
  T u(int word, int q) const { return T(uniform<In>(numbers_.word[word][q])); }
  static void write(int64_t* row, int64_t i, int64_t j, int64_t symbol) { row[0] = i, row[1] = j, row[2] = symbol; }

  ChartWays<In, T>& ways_;
  const int64_t n_, len_;
  Vector<int64_t> waiting_;  // by span: the first of its nodes
  Vector<Node> nodes_;
  Vector<int64_t> words_of_;  // by the symbol above: the first of the words
  Vector<Word> words_;
  bool lost_ = false;
  Draws<kLanes> numbers_;
};

// The charts of a block of items on one rung: calls visit(q, ways, weights of the root's symbols) for each that has
// trees and that this rung can do; what it cannot goes into `again`.
template <class In, class T, class F>
void each_chart(const Pcfg<In>& c, const int64_t* items, int64_t count, Vector<int64_t>& again, F&& visit) {
  PcfgBlock<In, T> block(c, items, count);
  const Sizes<T>& z = block.z;
  int64_t n = 0;  // a chart no longer than its items
  for (int64_t q = 0; q < count; q++) n = std::max(n, c.len(items[q]));
  const int64_t size = count * pcfg_chart_size<T>(n, c.nt, c.t);
  block.keep_pairs();
  Scratch memory(block.forward_scratch() + Scratch::bytes<T>(size) + ChartWays<In, T>::scratch(z, n));
  const BlockChart<T> chart(memory.take<T>(size), z, n, count);
  Doubles log_z(c.batch);
  block.forward(memory, chart, false, log_z.data(), [&](int64_t q, const Spans<T>& s, const T* probability) {
    const int64_t word = block.first.data()[q];
    const Hoisted<T> hoisted{chart.left, chart.right, chart.both, nullptr};
    char* mark = memory.mark();
    visit(items[q],
          ChartWays<In, T>(block.slices, s, chart.words + word * z.tp, hoisted.from(z, word), block.kept, n, memory),
          probability);
    memory.release(mark);
  });
  for (int64_t q = 0; q < count; q++)
    if (chart.redone(q) != T(0)) again.push_back(items[q]);
}

template <class In, class T>
void sample_block(const Pcfg<In>& c, const int64_t* items, int64_t count, uint64_t seed, int64_t samples,
                  int64_t* events, Vector<int64_t>& again) {
  auto event = [&](int64_t sample, int64_t item) { return events + (sample * c.batch + item) * event_size(c.n); };
  each_chart<In, T>(c, items, count, again, [&](int64_t item, ChartWays<In, T> ways, const T* probability) {
    ChartSampler<In, T> sampler(ways, c.n, seed, item);
    constexpr int64_t kMost = ChartSampler<In, T>::kTogether;
    bool found = true;
    for (int64_t k = 0; found && k < samples; k += kMost)
      found = sampler.run(k, std::min(kMost, samples - k), probability,
                          [&](int64_t sample) { return event(sample, item); });
    if (!found) again.push_back(item);
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
