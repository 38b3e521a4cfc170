// What all grammars share on a GPU: sentences, the symbols at the top, and how spans are numbered.
#pragma once
#include <cstddef>
#include <cstdint>

#include "cuda/row_map.h"

namespace slv::cuda {

using Stream = void*;  // a cudaStream_t

// Symbols 0..nt-1 are nonterminals, nt..s-1 the preterminals.
template <class T>
struct Tree {
  int64_t batch;
  int n, nt, t, labels;
  const T* root;   // (rows, nt)
  const T* unary;  // (batch, n, t)
  const T* spans;  // (rows, n, n, labels), labels 1 or nt; or null
  RowMap root_row, span_row;
  const int64_t* length;    // not yet clamped to 0..n; null: all n
  const T* redo = nullptr;  // (batch): an item of 0 is left alone; null: none is
  SLV_BOTH int s() const { return nt + t; }
  // Spans of two words or more, ordered by width, then by the first word.
  SLV_BOTH int64_t spans_of_item() const { return int64_t(n) * (n > 0 ? n - 1 : 0) / 2; }
  SLV_BOTH int64_t span(int i, int w) const { return int64_t(w - 2) * (2 * n + 1 - w) / 2 + i; }
};

// Which spans a launch does: those of from .. to words, shared out to so many blocks for each item, each of which works
// on `rows` spans at once. With dense rules, what nonterminals a span's children are needs a matrix for each of these,
// in shared memory or elsewhere. No number depends on blocks, rows and memory.
struct Widths {
  int from, to, blocks, rows;
  bool shared = false;
};
// Where the weights of rules, or of a table's entries, are added up, each piece having a part of the items of a row;
// null where they are not wanted.
struct RuleCounts {
  RowMap rows;
  int chunks;      // pieces of a row
  double* counts;  // (rows, chunks, as the rules)
  SLV_BOTH int64_t pieces() const { return int64_t(rows.rows) * chunks; }
  // The items of a chunk: rows.item(row, q), begin(chunk) <= q < begin(chunk + 1).
  SLV_BOTH int64_t begin(int64_t chunk) const { return int64_t(rows.items_of_row()) * chunk / chunks; }
};

// What second order takes along: f = <v, parts> is a sum over the parts of a tree, v the direction, and
//   cov(node) = p(node) (mean of f below it + mean of f outside of it - E f)
// its covariance with a part. The same argument for chains is in kernels/chain_log.h.
template <class T>
struct TreeMeans {
  double* means;                    // as nodes: of f below a node, given the node; its own span is a part of it
  double *outside, *words_outside;  // of nodes and words, begin as 0: the probability times the mean of f outside
  const double* weight;             // (batch) by which covariances are multiplied in the end, or null for ones
  double* mean;                     // (batch): E f
  T* mean_narrow;
  SLV_BOTH double weight_of(int64_t item) const { return weight ? weight[item] : 1; }
};

// Nodes are numbers of all nonterminals over all spans of two words or more, (batch, spans, nt): `inside` are logs of
// sums over trees, `nodes` posterior weights.

// log Z into log_z or log_z_narrow (batch), either null
template <class T>
void run_finish(const Tree<T>&, const double* inside, double* log_z, T* log_z_narrow, Stream);
// The weights of the tops into top (batch, nt) and, where possible, into nodes; `weight`: (batch), or null for ones
template <class T>
void run_tops(const Tree<T>&, const double* inside, const double* weight, double* top, double* nodes, Stream);
// E f, and what is outside of the tops, whose probabilities are in `nodes`; v: the direction.
template <class T>
void run_top_means(const Tree<T>&, const Tree<T>& v, const double* nodes, const TreeMeans<T>&, Stream);
// Probabilities of nodes, words and tops become covariances.
template <class T>
void run_covariances(const Tree<T>&, const Tree<T>& v, const TreeMeans<T>&, double* nodes, double* words, double* top,
                     Stream);
// out (rows, size): sums of (items, size) over the items of each row
template <class T>
void run_sum_items(const RowMap& rows, int64_t size, const double* from, T* out, Stream);
// out (rows, n, n, labels): the same of nodes, 0 where i < j does not hold; a label of 1 is all nonterminals
template <class T>
void run_sum_spans(const Tree<T>&, const RowMap& rows, int labels, const double* nodes, T* out, Stream);

}  // namespace slv::cuda
