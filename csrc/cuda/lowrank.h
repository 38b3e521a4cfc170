// The PCFG with rules of low rank on a GPU: raw device pointers and the launches of its kernels, without torch and
// CUDA, as csrc/cuda/pcfg.h. Everything here is in log space and float64, whatever the dtype of the potentials, and in
// the space of ranks (csrc/kernels/lowrank.h): rules are never formed. The kernels are in csrc/cuda/lowrank_product.cuh
// and lowrank_splits.cuh; those of the scaled domain are called by csrc/cuda/lowrank_scaled.h.
#pragma once
#include "cuda/pcfg_tree.h"

namespace slv::cuda {

// One of a grammar's tables, of which items that share a row have one.
template <class T>
struct Table {
  const T* data;  // (tables, rows, columns)
  RowMap row;
  int rows, columns;
  SLV_BOTH int64_t size() const { return int64_t(rows) * columns; }
  SLV_BOTH const T* of(int64_t item) const { return data + row.row(item) * size(); }
};

template <class T>
struct LowRank : Tree<T> {
  int r;
  Table<T> head;         // (nt, r), or of no rows: the rank is the nonterminal itself, r = nt
  Table<T> left, right;  // (r, s)
  SLV_BOTH bool has_head() const { return head.rows > 0; }
  // All spans of an item, those of one word first.
  SLV_BOTH int64_t all_spans() const { return this->spans_of_item() + this->n; }
};

// Logs of sums over the trees of spans.
struct RankInside {
  double* nodes;         // (batch, spans of two words or more, nt)
  double* ranks;         // (batch, spans of two words or more, r); without a head unused: nodes begin as these
  double *left, *right;  // (batch, all spans, r): of spans as children of a rank
};
// Their posterior weights, which begin as 0 but for the nodes of whole sentences; and what a width needs meanwhile.
struct RankMass {
  double* nodes;           // as above
  double* words;           // (batch, n, t)
  double *left, *right;    // as above
  double* ranks;           // (batch, n, r)
  double *tops, *weights;  // (batch, n, max(nt, r)): of a sum the largest term, and its weight over the sum
};
// What second order takes along.
template <class T>
struct RankTangent : TreeMeans<T> {
  LowRank<T> v;                  // the direction
  RankInside below;              // the means of f below everything that has an inside value; its nodes are `means`
  double *left, *right, *ranks;  // as those of the weights: the probability times the mean of f outside
  double* above;                 // as `tops`: the mean of f outside of every sum
};
struct GrammarCounts {
  RuleCounts head, left, right;
};

// inside of all spans of `width` words
template <class T>
void run_rank_inside(const LowRank<T>&, const RankInside&, int width, Stream);
// From the spans of `width` words, whose left and right have their weights, to all of fewer words.
template <class T>
void run_rank_outside(const LowRank<T>&, const RankInside&, const RankMass&, const GrammarCounts&, int width, Stream);
// Second order: inside and the means of all spans of `width` words, which go up; and the walk down, as
// run_rank_outside, of probabilities.
template <class T>
void run_rank_means(const LowRank<T>&, const RankInside&, const RankTangent<T>&, int width, Stream);
template <class T>
void run_rank_outside(const LowRank<T>&, const RankInside&, const RankMass&, const RankTangent<T>&,
                      const GrammarCounts&, int width, Stream);
// Trees from the inside values into events (samples, batch, 2n - 1, 3).
template <class T>
void run_rank_sample(const LowRank<T>&, const RankInside&, uint64_t seed, int64_t samples, int64_t* events, Stream);

}  // namespace slv::cuda
