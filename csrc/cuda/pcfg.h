// The PCFG with dense rules on a GPU: raw device pointers and the launches of its kernels, without torch and CUDA, as
// csrc/cuda/chain.h. Everything is in log space and float64, whatever the dtype of the potentials: exact, maximum
// first, one exponential per term. The kernels are in csrc/cuda/pcfg_*.cuh.
#pragma once
#include <cstddef>
#include <cstdint>

#include "cuda/row_map.h"

namespace slv::cuda {

using Stream = void*;  // a cudaStream_t

// Symbols 0..nt-1 are nonterminals, nt..s-1 the preterminals.
template <class T>
struct Pcfg {
  int64_t batch;
  int n, nt, t, labels;
  const T* root;   // (rows, nt)
  const T* rules;  // (rows, nt, s, s)
  const T* unary;  // (batch, n, t)
  const T* spans;  // (rows, n, n, labels), labels 1 or nt; or null
  RowMap root_row, rule_row, span_row;
  const int64_t* length;  // not yet clamped to 0..n; null: all n
  SLV_BOTH int s() const { return nt + t; }
  SLV_BOTH int64_t pairs() const { return int64_t(s()) * s(); }
  // Spans of two words or more, ordered by width, then by the first word.
  SLV_BOTH int64_t spans_of_item() const { return int64_t(n) * (n > 0 ? n - 1 : 0) / 2; }
  SLV_BOTH int64_t span(int i, int w) const { return int64_t(w - 2) * (2 * n + 1 - w) / 2 + i; }
};

// What a pass over the widths works in. The pairs are those of the spans of one width, of the items
// [first, first + count).
template <class T>
struct TreeSpace {
  double* inside;  // (batch, spans, nt): log of the sum over the trees of a span
  int64_t first, count;
  double* pairs;  // (count, n - 1, s, s): log of the sum over splits, for every pair of children
};

// The posterior weights of nodes, times those of their items; and, for the spans of one width, what they have to do
// with sums over rules and over splits: the largest term of each, and the weight relative to the sum.
struct TreeMass {
  const double* weight;              // (batch), or null for ones
  double* top;                       // (batch, nt): a nonterminal at the top
  double* nodes;                     // (batch, spans, nt)
  double* words;                     // (batch, n, t)
  double *rule_tops, *rule_weights;  // (count, n - 1, nt)
  double *split_tops, *pairs;        // (count, n - 1, s, s)
};

// inside of all spans of `width` words
template <class T>
void run_inside(const Pcfg<T>&, const TreeSpace<T>&, int width, Stream);
// log Z into log_z or log_z_narrow (batch), either null
template <class T>
void run_finish(const Pcfg<T>&, const double* inside, double* log_z, T* log_z_narrow, Stream);

// The weights of the tops, where nodes and words are 0.
template <class T>
void run_tops(const Pcfg<T>&, const double* inside, const TreeMass&, Stream);
// From the nodes of `width` words, which have their weights, to all of fewer words; and to counts (rows, nt, s, s), the
// weights of rules summed over the items of each row, which is null where they are not wanted.
template <class T>
void run_outside(const Pcfg<T>&, const TreeSpace<T>&, const TreeMass&, int width, const RowMap& rows, double* counts,
                 Stream);
// out (rows, size): sums of (items, size) over the items of each row
template <class T>
void run_sum_items(const RowMap& rows, int64_t size, const double* from, T* out, Stream);
// out (rows, n, n, labels): the same of nodes, 0 where i < j does not hold; a label of 1 is all nonterminals
template <class T>
void run_sum_spans(const Pcfg<T>&, const RowMap& rows, int labels, const double* nodes, T* out, Stream);

}  // namespace slv::cuda
