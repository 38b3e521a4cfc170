// What the scaled kernels of the PCFG keep: sizes of rows, and the parts of a chart.
#pragma once
#include <algorithm>

#include "core/vec.h"
#include "kernels/pcfg.h"

namespace slv {
namespace {

// Rows over nonterminals and over preterminals are padded to 64 bytes on every machine; the vectors that hold the row
// are computed, with zeros behind its end. A rule's children index a square of `se` symbols, nonterminals first.
template <class T>
struct Sizes {
  int64_t nt, t, np, tp, se;
  int64_t nv, tv;  // whole vectors of nt and t
  int64_t pairs;   // distance of rows over pairs of nonterminals, y nv + z; not of whole pages, which share cache lines
  Sizes(int64_t nt, int64_t t)
      : nt(nt),
        t(t),
        np(padded<T>(nt)),
        tp(padded<T>(t)),
        se(np + tp),
        nv((nt + kWidth<T> - 1) / kWidth<T> * kWidth<T>),
        tv((t + kWidth<T> - 1) / kWidth<T> * kWidth<T>),
        pairs(nv * nv + kChartBytes / int64_t(sizeof(T))) {}
  int64_t n_panels() const { return nv / kWidth<T>; }
  int64_t t_panels() const { return tv / kWidth<T>; }
  int64_t pair_panels() const { return nt * nv / kWidth<T>; }
  int64_t slice() const { return se * se; }
};

// Spans of two words or more among n, by their first word and their width, or by the word behind them and their first:
// both orders put the children of all splits of a span side by side; or by their width and their first word.
constexpr int64_t by_start(int64_t n, int64_t i, int64_t w) { return i * (n - 1) - i * (i - 1) / 2 + w - 2; }
constexpr int64_t by_end(int64_t e, int64_t i) { return (e - 1) * (e - 2) / 2 + i; }
constexpr int64_t by_width(int64_t n, int64_t i, int64_t w) { return (w - 2) * n - (w - 2) * (w - 1) / 2 + i; }

// The chart of a block of `count` items that share their rules, one part after the other:
//   words  (count n, tp)           exp of the words' scores
//   left   (count n, nt, np)       sum over y of words[y] rules[A, y, z], z a nonterminal: a word as a left child
//   right  (count n, nt, np)       sum over z of rules[A, y, z] words[z], y a nonterminal: as a right child
//   both   (count n, nt, tp)       sum over y of words[y] rules[A, y, z], z a preterminal
//   inside (count, spans, np)      mantissas, by start
// and the binary exponents of these, (count, n + spans + 1 + nt): of words, of spans, whether the item was done on
// another rung, and of the slices of rules (of the block's first item). A word's rows lie side by side with those of
// the next item; what shorter items leave over is at the end of each part. PcfgChart says how large it is.
template <class T>
struct BlockChart {
  T *words, *left, *right, *both, *inside, *exponents;
  Sizes<T> z;
  int64_t n, count;
  BlockChart(T* data, const Sizes<T>& z, int64_t n, int64_t count) : z(z), n(n), count(count) {
    words = data;
    left = words + count * n * z.tp;
    right = left + count * n * z.nt * z.np;
    both = right + count * n * z.nt * z.np;
    inside = both + count * n * z.nt * z.tp;
    exponents = inside + count * span_count(n) * z.np;
  }
  int64_t exponents_size() const { return padded<T>(n + span_count(n) + 1 + z.nt); }
  T* word_exponents(int64_t q) const { return exponents + q * exponents_size(); }
  T* span_exponents(int64_t q) const { return word_exponents(q) + n; }
  T& redone(int64_t q) const { return span_exponents(q)[span_count(n)]; }
  T* slice_exponents() const { return &redone(0) + 1; }
  T* spans(int64_t q) const { return inside + q * span_count(n) * z.np; }

  // Zeros wherever `rows` words do not write, so that a chart is a function of its potentials.
  void clear_rest(int64_t rows) const {
    if (z.nv < z.np || z.tv < z.tp) std::fill(words, exponents, T(0));
    const int64_t rest = count * n - rows;
    std::fill_n(words + rows * z.tp, rest * z.tp, T(0));
    std::fill_n(left + rows * z.nt * z.np, rest * z.nt * z.np, T(0));
    std::fill_n(right + rows * z.nt * z.np, rest * z.nt * z.np, T(0));
    std::fill_n(both + rows * z.nt * z.tp, rest * z.nt * z.tp, T(0));
    std::fill_n(exponents, count * exponents_size(), T(0));
  }
  void clear_spans(int64_t q, int64_t from) const {
    std::fill(spans(q) + from * z.np, spans(q) + span_count(n) * z.np, T(0));
    std::fill(span_exponents(q) + from, span_exponents(q) + span_count(n), T(0));
  }
};

}  // namespace
}  // namespace slv
