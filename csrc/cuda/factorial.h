// The factorial chain on a GPU: raw device pointers and the launches of its kernels. Sums are formed in the scaled
// linear domain, in the dtype of the potentials; for items that it cannot hold, and for second order, in exact log
// space and float64: maximum first, one exponential per term. The kernels are in csrc/cuda/factorial_*.cuh.
#pragma once
#include <cstddef>
#include <cstdint>

#include "cuda/kind.h"
#include "cuda/row_map.h"

namespace slv::cuda {

using Stream = void*;  // a cudaStream_t

constexpr int kMostChains = 32;

// Chains of sizes[0] .. sizes[m-1] states, whose matrices and initial scores lie one after the other; a joint state is
// a number in row-major order, the last chain fastest.
template <class T>
struct Factorial {
  int64_t batch;
  int n, m, states;  // states: joint ones, S
  int sizes[kMostChains];
  int edges, ends;      // P, all elements of an item's matrices, and Q, all of its initial scores
  int padded;           // as P, rows of each matrix being padded to whole quads
  const T* unary;       // (batch, n, S)
  const T* transition;  // (rows, P)
  const T* initial;     // (rows, Q) or null
  RowMap matrix, initial_row;
  const int64_t* length;  // not yet clamped to 0..n; null: all n
  bool per_step;          // of a direction alone: then transition is (rows, n - 1, P)
};

// Elements of a row of a matrix of k states in the scaled domain, which threads read four at a time.
SLV_BOTH constexpr int padded_row(int k) { return (k + 3) / 4 * 4; }

// The scaled linear domain, in the dtype of the potentials (csrc/cuda/factorial_scan.cuh).
template <class T>
struct JointScaled {
  T *matrix, *back;  // (rows, padded): exp of the transitions, and of each chain's transposed
  double* exponent;  // (rows): the power of two taken out of a step
  int* kind;         // (rows): Kind
  T* row_exponent;   // (batch, n): that taken out of the scores; NaN where they cannot be scaled
  T *alpha, *scale;  // (batch, n, S), (batch, n); null where nothing follows
  T* inverse;        // (batch): 1/Z relative to the scales; NaN where the item left the domain
  int* redo;         // (batch): whether it did
};
// The items [first, first + count) of a launch.
template <class T>
struct ItemRange {
  int64_t first, count;
  T* spill;  // what a block has not enough shared memory for; null where it has
};
// What the scaled backward pass makes of it.
template <class T>
struct JointAdjoint {
  const double* weight;  // (batch), or null for ones
  T* g;                  // (count, n, S)
  T* unary;              // (batch, n, S): weighted marginals
  int* redo;             // (batch): whether the item is to be done in log space
};

// What the passes over time have in log space, for the items [first, first + count).
struct Beginnings {
  int64_t first, count;
  double* alpha;    // (count, n, S): the log of the sum over beginnings; null where nothing follows
  double* spill;    // what a block has not enough shared memory for; null where it has
  const int* redo;  // (batch): items whose entry is 0 are left out; null: all are done
};

// What the backward pass makes of it: probabilities, times the weights of their items.
template <class T>
struct JointPosterior {
  const double* weight;  // (batch), or null for ones
  double* partial;       // (count, factorial_partial_size): sums of edges, in the pieces of a block's warps
  T* unary;              // (batch, n, S)
  T* steps;              // (batch, n - 1, P): edges step by step, or null:
  double* counts;        // (count, pieces, P): edges summed over the steps of each piece
  int pieces;            // of which log space fills the first, with the sums over all steps
};

// v of a Hessian-vector product, and what is computed of it.
template <class T>
struct Direction {
  Factorial<T> v;  // with a sharing of its own
  double* prefix;  // (count, n, S)
  T* mean;         // (batch): E <v, parts>
};

// Elements of spill for each item, 0 where shared memory is enough: going forward, back, for second order, and for
// Viterbi.
template <class T>
int64_t factorial_forward_spill(const Factorial<T>&);
template <class T>
int64_t factorial_backward_spill(const Factorial<T>&);
template <class T>
int64_t factorial_tangent_spill(const Factorial<T>&);
template <class T>
int64_t factorial_argmax_spill(const Factorial<T>&);
template <class T>
int64_t factorial_partial_size(const Factorial<T>&);

// In the scaled domain: forward, back, and for the edges of a piece of an item's steps.
template <class T>
int64_t factorial_scan_spill(const Factorial<T>&);
template <class T>
int64_t factorial_edges_spill(const Factorial<T>&);
// Into how many pieces an item's steps are cut: a function of its sizes alone.
template <class T>
int factorial_pieces(const Factorial<T>&);

template <class T>
void run_prepare(const Factorial<T>&, const JointScaled<T>&, Stream);
template <class T>
void run_rows(const Factorial<T>&, const JointScaled<T>&, Stream);
// What JointScaled holds of the forward pass, and log Z of items that stay, any of them null.
template <class T>
void run_scan(const Factorial<T>&, const JointScaled<T>&, const ItemRange<T>&, double* log_z, T* log_z_narrow, Stream);
template <class T>
void run_adjoint(const Factorial<T>&, const JointScaled<T>&, const ItemRange<T>&, const JointAdjoint<T>&, Stream);
// The edges of the items that stay into `out`, which has no use for `partial` and `unary`.
template <class T>
void run_edges(const Factorial<T>&, const JointScaled<T>&, const ItemRange<T>&, const JointAdjoint<T>&,
               const JointPosterior<T>& out, Stream);

// alpha, and log Z into log_z or log_z_narrow (batch), any of them null
template <class T>
void run_forward(const Factorial<T>&, const Beginnings&, double* log_z, T* log_z_narrow, Stream);
template <class T>
void run_backward(const Factorial<T>&, const Beginnings&, const JointPosterior<T>&, Stream);
// Covariances with <v, parts> in the place of probabilities.
template <class T>
void run_tangent(const Factorial<T>&, const Beginnings&, const Direction<T>&, const JointPosterior<T>&, Stream);
// Sums of counts (of the items of `s`) over the items of each row, added to `sums` (rows, P) but at the first range,
// and into `out` (rows, P) at the last.
template <class T>
void run_sum_edges(const Factorial<T>&, const Beginnings&, const RowMap& rows, const double* counts, int pieces,
                   double* sums, T* out, Stream);
// out (rows, Q): the unary gradient of the first steps, summed over the states of other chains and the items of each
// row
template <class T>
void run_sum_starts(const Factorial<T>&, const RowMap& rows, const T* unary, T* out, Stream);
// best: (count, n, S); states: (batch, n)
template <class T>
void run_argmax(const Factorial<T>&, int64_t first, int64_t count, T* best, T* spill, int64_t* states, Stream);
// states: (samples, batch, n)
template <class T>
void run_sample(const Factorial<T>&, const JointScaled<T>&, uint64_t seed, int64_t samples, int64_t* states, Stream);
template <class T>
void run_log_sample(const Factorial<T>&, const Beginnings&, uint64_t seed, int64_t samples, int64_t* states, Stream);

}  // namespace slv::cuda
