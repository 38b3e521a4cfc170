// Blocks of sentences that share their rules, on one rung of the ladder.
#pragma once
#include "kernels/pcfg_unhoist.h"

namespace slv {
namespace {

template <class In, class T>
struct PcfgBlock {
  const Pcfg<In>& c;
  const int64_t* items;
  const int64_t count;
  const Sizes<T> z;
  Slices<In, T> slices;
  int64_t words = 0, longest = 0;  // of all items; of one
  Buffer<int64_t> first;           // word of each item
  int64_t kept_size = 0;           // of M of all spans of one item, where they are kept
  T* kept = nullptr;

  PcfgBlock(const Pcfg<In>& c, const int64_t* items, int64_t count)
      : c(c),
        items(items),
        count(count),
        z(c.nt, c.t),
        slices(z, c.rules + (c.rules_row ? c.rules_row[items[0]] : 0) * c.rules_size()),
        first(count) {
    for (int64_t q = 0; q < count; q++) {
      first.data()[q] = words;
      words += len(q);
      longest = std::max(longest, len(q));
    }
  }
  int64_t len(int64_t q) const { return c.len(items[q]) > 1 ? c.len(items[q]) : 0; }
  int64_t end_scratch() const {
    return Scratch::bytes<T>(span_count(longest) * z.np) + Scratch::bytes<T>(span_count(longest));
  }

  // ---- inside -------------------------------------------------------------------------------------------------
  // Whether the sums over the splits of all spans are kept for what comes after the inside pass: where they are small.
  void keep_pairs() {
    const int64_t size = span_count(longest) * z.pairs;
    kept_size = size * int64_t(sizeof(T)) <= (int64_t(16) << 20) ? size : 0;
  }
  int64_t forward_scratch() const {
    return slices.scratch() + Hoist<T>::scratch(z) + Scratch::bytes<T>(words * z.np) +
           Scratch::bytes<T>(z.nv * z.pairs) + Scratch::bytes<T>(z.nt * z.nv * z.nv) + end_scratch() +
           InsideSpace<T>::scratch(z, longest) + Scratch::bytes<T>(z.np) + Scratch::bytes<T>(kept_size);
  }
  // log_z: by item; what this rung could not do is marked in the chart. save: the chart is for a backward pass.
  // each(q, spans, probabilities of root symbols) is called for every item done
  template <class F>
  void forward(Scratch& memory, const BlockChart<T>& chart, bool save, double* log_z, F each) {
    const FlushDenormals flush;
    if (save) chart.clear_rest(words);
    slices.bind(memory, chart.slice_exponents());
    for (int64_t q = 0; q < count; q++) exp_words(chart, q);
    const Hoisted<T> hoisted{chart.left, chart.right, chart.both, memory.take<T>(words * z.np)};
    T* pairs = memory.take<T>(z.nt * z.nv * z.nv);
    hoist(memory, chart.words, hoisted, pairs);
    T *end = memory.take<T>(span_count(longest) * z.np), *probability = memory.take<T>(z.np);
    T* end_exponent = memory.take<T>(span_count(longest));
    InsideSpace<T> space(memory, z, longest);
    kept = space.kept = kept_size ? memory.take<T>(kept_size) : nullptr;
    const SpanRules<T> rules{pairs, slices.factor, slices.common, slices.finite};
    for (int64_t q = 0; q < count; q++) {
      const bool thin = chart.redone(q) != T(0) && !slices.finite;  // nothing if all rules are possible
      chart.redone(q) = T(0);
      if (save) chart.clear_spans(q, span_count(len(q)));
      log_z[items[q]] = -kInf<double>;
      if (len(q) == 0) continue;
      const Spans<T> s = spans(chart, q, end, end_exponent);
      Inside<In, T> in(c, items[q], s, rules, hoisted.from(z, first.data()[q]), space);
      in.bad = thin || !slices.usable;
      if (!in.bad && !slices.finite) in.check_words();
      if (!in.bad) in.run();
      chart.redone(q) = T(in.bad);
      if (!in.bad) {
        log_z[items[q]] = root_probability(c, items[q], s, probability);
        each(q, s, probability);
      } else if (save) {
        erase(chart, q);
      }
    }
  }
  void forward(Scratch& memory, const BlockChart<T>& chart, bool save, double* log_z) {
    forward(memory, chart, save, log_z, [](int64_t, const Spans<T>&, const T*) {});
  }

  // ---- outside ------------------------------------------------------------------------------------------------
  int64_t backward_scratch() const {
    return slices.scratch() + 2 * Scratch::bytes<T>(z.nt * z.pairs) + end_scratch() +
           OutsideSpace<T>::scratch(z, longest) + 2 * Scratch::bytes<T>(z.nt * words * z.np) +
           Scratch::bytes<T>(words * z.np) + Scratch::bytes<T>(z.np) + Scratch::bytes<T>(words * z.tp) +
           Unhoist<In, T>::scratch(z, words);
  }
  // weight: by place in the block; 0 for items done elsewhere
  void backward(Scratch& memory, const BlockChart<T>& chart, const double* weight, const PcfgBlockSink<In>& sink) {
    const FlushDenormals flush;
    bool some = false;
    for (int64_t q = 0; q < count; q++) {
      if (len(q) == 0) clear_outputs(q, sink);
      some = some || (len(q) > 0 && chart.redone(q) == T(0));
    }
    if (!some) {  // also where the rules are out of range
      if (sink.rules && !sink.add) std::fill_n(sink.rules, c.rules_size(), In(0));
      return;
    }
    slices.bind(memory, chart.slice_exponents());
    slices.set_factors();
    T *pairs = memory.take<T>(z.nt * z.pairs), *sums = memory.take<T>(z.nt * z.pairs);
    std::fill_n(sums, z.nt * z.pairs, T(0));
    for (int64_t A = 0; A < z.nt; A++) slices.exponentiate_pairs(A, pairs + A * z.pairs);
    const double common = common_weight(weight);
    const WordAdjoints<T> d{memory.take<T>(z.nt * words * z.np), memory.take<T>(z.nt * words * z.np),
                            memory.take<T>(words * z.np), words};
    outside(memory, chart, weight, common, SpanRules<T>{pairs, slices.factor, slices.common, true}, d, sums, sink);
    Unhoist<In, T> un{slices, z, d, chart.words, weigh_words(memory, chart, weight, common), chart.both, sums};
    un.bind(memory);
    for (int64_t A = 0; A < z.nt; A++) un.slice(A, {sink.rules, common, sink.add, sink.stream && !sink.add});
    if (sink.stream) finish_streams();
    for (int64_t q = 0; sink.unary && q < count; q++)
      if (chart.redone(q) == T(0)) deliver_words(chart, q, un.d_words, T(weight[q]), sink);
  }

 private:
  Spans<T> spans(const BlockChart<T>& chart, int64_t q, T* end, T* end_exponent) const {
    return {z, len(q), chart.spans(q), end, chart.span_exponents(q), end_exponent, chart.word_exponents(q)};
  }
  void exp_words(const BlockChart<T>& chart, int64_t q) const {
    bool thin = false;
    for (int64_t i = 0; i < len(q); i++)
      thin |= exp_word(z, c.unary + (items[q] * c.n + i) * c.t, chart.words + (first.data()[q] + i) * z.tp,
                       chart.word_exponents(q) + i);
    chart.redone(q) = thin;
  }
  // every slice while it is in the cache; pairs: those of nonterminals as (y, z, A)
  void hoist(Scratch& memory, const T* word_rows, const Hoisted<T>& to, T* pairs) {
    const Hoist<T> each{z, words, word_rows, to, memory.take<T>(z.tp * z.np)};
    T* by_parent = slices.wide = memory.take<T>(z.nv * z.pairs);
    std::fill_n(by_parent, z.nv * z.pairs, T(0));
    slices.scan([&](int64_t A) {
      if (!slices.usable || words == 0) return;
      slices.exponentiate(A);
      for (int64_t y = 0; y < z.nt; y++) std::copy_n(slices.e + y * z.se, z.nv, by_parent + A * z.pairs + y * z.nv);
      each.slice(A, slices.e);
    });
    slices.set_factors();
    transpose(by_parent, z.pairs, z.nv, z.nt * z.nv, pairs, z.nv);
  }
  // An item that is computed elsewhere must not spoil sums over the block.
  void erase(const BlockChart<T>& chart, int64_t q) const {
    const int64_t word = first.data()[q];
    chart.clear_spans(q, 0);
    std::fill_n(chart.word_exponents(q), len(q), T(0));
    std::fill_n(chart.words + word * z.tp, len(q) * z.tp, T(0));
    std::fill_n(chart.left + word * z.nt * z.np, len(q) * z.nt * z.np, T(0));
    std::fill_n(chart.both + word * z.nt * z.tp, len(q) * z.nt * z.tp, T(0));
    std::fill_n(chart.right + word * z.nt * z.np, len(q) * z.nt * z.np, T(0));
  }
  // one item's own weight; else a power of two, relative to which the items' are
  double common_weight(const double* weight) const {
    if (count == 1) return weight[0];
    double most = 0;
    for (int64_t q = 0; q < count; q++) most = std::max(most, std::abs(weight[q]));
    return most > 0 && most < kInf<double> ? power_of_two_below(most) : 1;
  }
  T ratio(double weight, double common) const { return count == 1 ? T(1) : T(weight / common); }

  void outside(Scratch& memory, const BlockChart<T>& chart, const double* weight, double common,
               const SpanRules<T>& rules, const WordAdjoints<T>& d, T* sums, const PcfgBlockSink<In>& sink) const {
    T *end = memory.take<T>(span_count(longest) * z.np), *probability = memory.take<T>(z.np);
    T* end_exponent = memory.take<T>(span_count(longest));
    const OutsideSpace<T> space(memory, z, longest);
    const Hoisted<T> hoisted{chart.left, chart.right, chart.both, nullptr};
    for (int64_t q = 0; q < count; q++) {
      const int64_t n = len(q), word = first.data()[q];
      if (n == 0 || chart.redone(q) != T(0)) {
        clear(d, word, n);
        continue;
      }
      const Spans<T> s = spans(chart, q, end, end_exponent);
      for (int64_t i = 0; i + 1 < n; i++)
        for (int64_t w = 2; i + w <= n; w++) s.copy_to_end(i, w);
      root_probability(c, items[q], s, probability);
      if (sink.root) deliver_root(q, probability, T(weight[q]), sink);
      In* out = sink.spans ? sink.spans + items[q] * c.n * c.n * sink.labels : nullptr;
      if (out) std::fill_n(out, c.n * c.n * sink.labels, In(0));
      Outside<In, T> o(c, items[q], s, rules, hoisted.from(z, word), space);
      o.run(probability, ratio(weight[q], common), sums, d, word, {out, c.n, sink.labels, T(weight[q])});
    }
  }
  void clear(const WordAdjoints<T>& d, int64_t word, int64_t n) const {
    for (int64_t A = 0; A < z.nt; A++) {
      std::fill_n(d.left + (A * words + word) * z.np, n * z.np, T(0));
      std::fill_n(d.right + (A * words + word) * z.np, n * z.np, T(0));
    }
    std::fill_n(d.pairs + word * z.np, n * z.np, T(0));
  }
  void clear_outputs(int64_t q, const PcfgBlockSink<In>& sink) const {
    if (sink.root) std::fill_n(sink.root + items[q] * z.nt, z.nt, In(0));
    if (sink.unary) std::fill_n(sink.unary + items[q] * c.n * z.t, c.n * z.t, In(0));
    if (sink.spans) std::fill_n(sink.spans + items[q] * c.n * c.n * sink.labels, c.n * c.n * sink.labels, In(0));
  }
  void deliver_root(int64_t q, const T* probability, T weight, const PcfgBlockSink<In>& sink) const {
    for (int64_t A = 0; A < z.nt; A++) sink.root[items[q] * z.nt + A] = In(probability[A] * weight);
  }
  const T* weigh_words(Scratch& memory, const BlockChart<T>& chart, const double* weight, double common) const {
    T* to = memory.take<T>(words * z.tp);
    if (count == 1) return chart.words;
    for (int64_t q = 0; q < count; q++) {
      const T x = chart.redone(q) != T(0) ? T(0) : ratio(weight[q], common);
      const int64_t from = first.data()[q];
      for (int64_t i = from; i < from + len(q); i++)
        for (int64_t k = 0; k < z.t; k += kWidth<T>) store(to + i * z.tp + k, load(chart.words + i * z.tp + k) * x);
    }
    return to;
  }
  void deliver_words(const BlockChart<T>& chart, int64_t q, const T* d_words, T weight,
                     const PcfgBlockSink<In>& sink) const {
    constexpr int W = kWidth<T>;
    In* out = sink.unary + items[q] * c.n * z.t;
    const T *x = chart.words + first.data()[q] * z.tp, *d = d_words + first.data()[q] * z.tp;
    for (int64_t i = 0; i < len(q); i++)
      for (int64_t k = 0; k < z.t; k += W)
        store_as<T>(out + i * z.t + k, load(x + i * z.tp + k) * load(d + i * z.tp + k) * weight,
                    int(std::min<int64_t>(W, z.t - k)));
    std::fill(out + len(q) * z.t, out + c.n * z.t, In(0));
  }
};

}  // namespace
}  // namespace slv
