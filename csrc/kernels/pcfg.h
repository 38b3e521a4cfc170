// The probabilistic context-free grammar over a sentence as the kernels see it: raw pointers, no torch.
//
//   score(tree) = root[A of the whole] + sum over nodes i < j of (rules[A, y, z] + spans[i, j, A])
//                                      + sum over leaves of unary[i, y - nt]
//
// Symbols 0..nt-1 are nonterminals, nt..nt+t-1 preterminals; all trees are binary and every leaf is a preterminal. So a
// child of one word is a preterminal, a wider one a nonterminal, and fewer than two words have no tree. A potential
// that items share lies in memory once: the maps say which row of it an item uses.
#pragma once
#include <cstdint>

#include "kernels/distinct.h"

namespace slv {

template <class T>
struct Pcfg {
  int64_t batch, n, nt, t;
  int64_t labels;            // of spans: nt, or 1 where all nonterminals share a span's score
  const T* root;             // (roots, nt)
  const T* rules;            // (grammars, nt, s, s)
  const T* unary;            // (batch, n, t)
  const T* spans;            // (tables, n, n, labels), both ends inclusive, of which i < j counts; or null
  const int64_t* root_row;   // item -> row of root, or null: all 0
  const int64_t* rules_row;  // the same for rules
  const int64_t* spans_row;  // the same for spans
  const int64_t* length;     // clamped to 0..n, or null: all n
  int64_t s() const { return nt + t; }
  int64_t rules_size() const { return nt * s() * s(); }
  int64_t len(int64_t item) const { return length ? length[item] : n; }
};

// Where the weights of the parts of one item go. What is written is written whole, padding included; what is added to
// is shared by several items. Neither pointer given: not wanted.
template <class T>
struct PcfgSink {
  T* root;            // (nt), written
  T* unary;           // (n, t), written
  T* rules;           // (nt, s, s), written, or
  double* rules_sum;  // added to
  T* spans;           // (n, n, labels), written, or
  double* spans_sum;  // added to
  int64_t labels;     // nt, or 1: the sum over nonterminals
};

// A tree is an event of rows (i, j, symbol), (2n-1, 3), in pre-order, -1 behind its end and where there is none.
constexpr int64_t event_size(int64_t n) { return n > 0 ? 3 * (2 * n - 1) : 0; }

// Exact log space, one item at a time, float64 inside. The last rung of the ladder and the home of the rarer queries.
template <class T>
struct PcfgLogKernels {
  double (*log_partition)(const Pcfg<T>&, int64_t item);
  void (*marginals)(const Pcfg<T>&, int64_t item, double weight, const PcfgSink<T>& out);
  // v: potentials of the same sizes with a sharing of their own, its spans null where it has none; returns <v,
  // marginals>
  double (*hvp)(const Pcfg<T>&, int64_t item, double weight, const Pcfg<T>& v, const PcfgSink<T>& out);
  void (*argmax)(const Pcfg<T>&, int64_t item, int64_t* event);
  void (*max_marginals)(const Pcfg<T>&, int64_t item, const PcfgSink<T>& out);  // written, labels nt; -inf: in no tree
  void (*topk)(const Pcfg<T>&, int64_t item, int64_t k, int64_t* events, int64_t stride);
  void (*sample)(const Pcfg<T>&, int64_t item, uint64_t seed, int64_t samples, int64_t* events, int64_t stride);
  void (*sample_distinct)(const Pcfg<T>&, int64_t item, uint64_t seed, int64_t count, const DistinctSink& out);
  // the binary tree over `len` of n words that maximises the sum of its span scores (n, n)
  void (*decode)(const T* spans, int64_t n, int64_t len, int64_t* event);
};

constexpr int64_t span_count(int64_t n) { return n > 1 ? n * (n - 1) / 2 : 0; }  // of two words or more
// Elements of T that the inside pass leaves for the backward pass, for each item and on every machine: see
// pcfg_chart.h.
template <class T>
constexpr int64_t pcfg_chart_size(int64_t n, int64_t nt, int64_t t) {
  constexpr int64_t line = 64 / int64_t(sizeof(T));
  auto pad = [](int64_t k) { return (k + line - 1) / line * line; };
  const int64_t np = pad(nt), tp = pad(t), spans = span_count(n);
  return n * (tp + nt * (2 * np + tp)) + spans * np + pad(n + spans + 1 + nt);
}

// Where the weights of a block of items that share their rules go. Item by item: root (batch, nt), unary (batch, n, t),
// spans (batch, n, n, labels) or null; rules (nt, s, s) of the whole block or null: written, or added to, and past the
// cache if they are much larger than it.
template <class T>
struct PcfgBlockSink {
  T *root, *unary, *spans, *rules;
  int64_t labels;
  bool add, stream;
};

// The ladder of precision (pcfg_ladder.h), for a block of items that share their rules.
template <class T>
struct PcfgScanKernels {
  // chart: this block's part, or null; log_z: by item
  void (*forward)(const Pcfg<T>&, const int64_t* items, int64_t count, T* chart, double* log_z);
  // chart null: the forward pass is made here; weight: by item, or null for ones
  void (*backward)(const Pcfg<T>&, const int64_t* items, int64_t count, T* chart, const double* weight,
                   const PcfgBlockSink<T>&);
  void (*argmax)(const Pcfg<T>&, const int64_t* items, int64_t count, int64_t* events);  // (batch, rows, 3)
  void (*sample)(const Pcfg<T>&, const int64_t* items, int64_t count, uint64_t seed, int64_t samples,
                 int64_t* events);  // (samples, batch, rows, 3)
  void (*sample_distinct)(const Pcfg<T>&, const int64_t* items, int64_t count, uint64_t seed, int64_t k,
                          const DistinctSink& out);  // of all items
};

struct PcfgKernels {
  PcfgLogKernels<float> log_f32;
  PcfgLogKernels<double> log_f64;
};
const PcfgKernels* pcfg_kernels_base();
const PcfgKernels* pcfg_kernels_avx2();
const PcfgKernels* pcfg_kernels_avx512();

struct PcfgScans {
  PcfgScanKernels<float> f32;
  PcfgScanKernels<double> f64;
};
const PcfgScans* pcfg_scans_base();
const PcfgScans* pcfg_scans_avx2();
const PcfgScans* pcfg_scans_avx512();

}  // namespace slv
