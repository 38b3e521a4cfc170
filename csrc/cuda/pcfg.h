// The PCFG with dense rules on a GPU: raw device pointers and the launches of its kernels, without torch and CUDA, as
// csrc/cuda/chain.h. Everything here is in log space and float64, whatever the dtype of the potentials: exact, maximum
// first, one exponential per term. The kernels are in csrc/cuda/pcfg_*.cuh.
#pragma once
#include "cuda/pcfg_tree.h"

namespace slv::cuda {

template <class T>
struct Pcfg : Tree<T> {
  const T* rules;  // (rows, nt, s, s)
  RowMap rule_row;
  SLV_BOTH int64_t pairs() const { return int64_t(this->s()) * this->s(); }
  SLV_BOTH int64_t alternatives() const {  // at most, of one draw
    const int most = this->n > this->s() ? this->n : this->s();
    return most > 4 ? most : 4;
  }
};

// What a pass over the widths works in. The pairs are those of the spans of one width, of the items
// [first, first + count).
template <class T>
struct TreeSpace {
  double* inside;  // (batch, spans, nt): log of the sum over the trees of a span
  int64_t first, count;
  double* pairs;  // (count, n - 1, s, s): log of the sum over splits, for every pair of children
};

// The posterior weights of nodes and words, which begin as 0; and, for the spans of one width, what they have to do
// with sums over rules and over splits: the largest term of each, and the weight relative to the sum.
struct TreeMass {
  double* nodes;                     // (batch, spans, nt)
  double* words;                     // (batch, n, t)
  double *rule_tops, *rule_weights;  // (count, n - 1, nt)
  double *split_tops, *pairs;        // (count, n - 1, s, s)
};

template <class T>
struct TreeTangent : TreeMeans<T> {
  Pcfg<T> v;                          // the direction
  double *pair_means, *pair_outside;  // as the pairs: of f below them; of the weight times f outside, over the sum
  double* above;                      // as rule_tops: the mean of f outside of a node, and its span
};

// inside of all spans of `width` words
template <class T>
void run_inside(const Pcfg<T>&, const TreeSpace<T>&, int width, Stream);
// The same with maxima in place of sums: the score of the best tree of a span.
template <class T>
void run_best(const Pcfg<T>&, const TreeSpace<T>&, int width, Stream);

// From the nodes of `width` words, which have their weights, to all of fewer words; and to the counts of rules.
template <class T>
void run_outside(const Pcfg<T>&, const TreeSpace<T>&, const TreeMass&, int width, const RuleCounts&, Stream);

// Second order: inside and the means of all spans of `width` words, which go up; and the walk down, as run_outside, of
// probabilities.
template <class T>
void run_means(const Pcfg<T>&, const TreeSpace<T>&, const TreeTangent<T>&, int width, Stream);
template <class T>
void run_outside(const Pcfg<T>&, const TreeSpace<T>&, const TreeMass&, const TreeTangent<T>&, int width,
                 const RuleCounts&, Stream);

// Trees as events (batch, 2n - 1, 3) from the scores of the best ones.
template <class T>
void run_argmax(const Pcfg<T>&, const double* best, int64_t* events, Stream);
// Samples first .. first + samples - 1 of events (all samples, batch, 2n - 1, 3); memory: (samples, batch,
// alternatives).
template <class T>
void run_sample(const Pcfg<T>&, const double* inside, uint64_t seed, int64_t first, int64_t samples, double* memory,
                int64_t* events, Stream);

}  // namespace slv::cuda
