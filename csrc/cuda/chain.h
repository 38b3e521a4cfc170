// The linear chain on a GPU: raw device pointers and the launches of its kernels. Neither torch nor CUDA is known here,
// so that the host side compiles with any compiler. The kernels are in csrc/cuda/*.cuh, and say what they compute.
#pragma once
#include <cstddef>
#include <cstdint>

#include "cuda/kind.h"
#include "cuda/row_map.h"

namespace slv::cuda {

using Stream = void*;  // a cudaStream_t

template <class T>
struct Chain {
  int64_t batch;
  int n, k;
  bool per_step;
  const T* unary;       // (batch, n, k)
  const T* transition;  // (rows, k, k) or (rows, n-1, k, k)
  const T* initial;     // (rows, k) or null
  const T* final;       // (rows, k) or null
  RowMap matrix, initial_row, final_row;
  const int64_t* length;  // not yet clamped to 0..n; null: all n
  SLV_BOTH int steps() const { return !per_step ? 1 : n > 1 ? n - 1 : 0; }
  SLV_BOTH int64_t matrices() const { return matrix.rows * steps(); }
};

// What a row of unary scores holds: nothing special; a finite score whose exponential is too small for a wide item; a
// score that is NaN, infinite or too large to be scaled.
enum RowCode { kPlain, kThin, kBad };

// Of one item: 1/Z relative to its scales, and whether it left the scaled domain.
constexpr int kMeta = 2;
// Rows of scaled values are padded to 64 bytes.
template <class T>
int padded(int k) {
  constexpr int unit = 64 / int(sizeof(T));
  return (k + unit - 1) / unit * unit;
}

// The scaled linear domain, in the dtype of the potentials (csrc/cuda/chain_scan.cuh).
template <class T>
struct Scaled {
  T* matrix;        // (rows, k, k): exp of the transitions; null per step
  T* into;          // the same transposed, for sampling; null otherwise
  T* exponent;      // (matrices): powers of two taken out
  int* kind;        // (matrices): Kind
  T* row_exponent;  // (batch, n)
  int* row_code;    // (batch, n): RowCode
  T* e;             // (batch, n, padded k): exp of the unary scores
  T* alpha;         // the same shape, or null where no backward pass follows
  T* scale;         // (batch, n), or null with alpha
  T* meta;          // (batch, kMeta)
  double* log_z;    // (batch), or null
  T* log_z_narrow;  // (batch), or null
};

// The steps of an item in chunks that are done at once (csrc/cuda/chain_chunks.cuh); one chunk is all of them.
template <class T>
struct Cut {
  int size, count;             // steps of a chunk, and chunks of n steps
  int* kind = nullptr;         // (batch): Kind of an item's matrices together
  T* product = nullptr;        // (batch, count, k, k): of a chunk's steps; of the first chunk, as row 0, its last alpha
  double* exponent = nullptr;  // (batch, count, k): powers of two taken out of its rows; NaN: a row does not fit
  T* edge = nullptr;           // (batch, count, k): alpha before a chunk, or beta at its end
  double* taken = nullptr;     // (batch, count): powers of two taken out of that; NaN: it does not fit
  int* lost = nullptr;         // (batch, count): whether a chunk did not fit
  const int* only = nullptr;   // (batch, of): items none of whose entries is set are left out; null: all are done
  int of = 0;
};
template <class T>
Cut<T> uncut(const Chain<T>& c) {
  return {c.n > 0 ? c.n : 1, 1};
}

// What the backward pass makes of it.
template <class T>
struct Adjoint {
  const double* weight;  // (batch), or null for ones
  T* g;                  // (batch, n, padded k)
  T* unary;              // (batch, n, k): weighted marginals
  T* redo;               // (batch): whether the item is to be done in log space
};

// Exact log space, for the items [first, first + count): float64, maximum first.
template <class T>
struct LogSpace {
  int64_t first, count;
  const T* redo;  // (batch, stride): items whose entry is 0 are left out; null: all are done
  int redo_stride;
  double *top, *sum;  // (count, n, k): alpha = u + top + log(sum)
  double* mu;         // (count, n, k): posteriors of states, or null where no backward pass follows
};

// Sums of edge weights over the items of a row, in `chunks` pieces: (rows, chunks, steps, k, k) float64; or, where
// every row has one item and one piece, straight into `direct` (rows, steps, k, k).
template <class T>
struct Edges {
  RowMap rows;  // whose sums: those of the transition, or every item by itself
  bool per_step;
  int chunks;
  double* partial;
  T* direct;
};

// v of a Hessian-vector product, with a sharing of its own, and what is computed of it.
template <class T>
struct Tangent {
  const T *unary, *transition, *initial, *final;
  bool per_step;
  RowMap matrix, initial_row, final_row;
  const double* weight;     // (batch), or null for ones
  double *prefix, *suffix;  // (count, n, k)
  double* mean;             // (batch): E <v, parts>
  T* mean_narrow;           // the same
  T* out;                   // (batch, n, k)
};

template <class T>
void prepare_matrices(const Chain<T>&, const Scaled<T>&, Stream);
template <class T>
void exponentiate_rows(const Chain<T>&, const Scaled<T>&, Stream);
template <class T>
void forward(const Chain<T>&, const Scaled<T>&, const Cut<T>&, Stream);
template <class T>
void backward(const Chain<T>&, const Scaled<T>&, const Adjoint<T>&, const Cut<T>&, Stream);
template <class T>
void chunk_products(const Chain<T>&, const Scaled<T>&, const Cut<T>&, Stream);
template <class T>
void chunk_starts(const Chain<T>&, const Cut<T>&, Stream);
template <class T>
void chunk_ends(const Chain<T>&, const Scaled<T>&, const Cut<T>&, Stream);
template <class T>
void edges(const Chain<T>&, const Scaled<T>&, const Adjoint<T>&, const Edges<T>&, Stream);
template <class T>
void finish_edges(const Chain<T>&, const Edges<T>&, T* out, Stream);
// out (rows, k): the unary gradient of the first or last steps, summed over the items of each row
template <class T>
void sum_ends(const Chain<T>&, const RowMap& rows, const T* unary, bool last, T* out, Stream);
template <class T>
void log_forward(const Chain<T>&, const LogSpace<T>&, double* log_z, T* log_z_narrow, Stream);
template <class T>
void log_backward(const Chain<T>&, const LogSpace<T>&, const double* weight, T* unary, Stream);
template <class T>
void log_edges(const Chain<T>&, const LogSpace<T>&, const Edges<T>&, const double* weight, Stream);
template <class T>
void tangent(const Chain<T>&, const LogSpace<T>&, const Tangent<T>&, Stream);
template <class T>
void tangent_edges(const Chain<T>&, const LogSpace<T>&, const Tangent<T>&, const Edges<T>&, Stream);
// from: (batch, n, k) scratch, the best predecessor of each state; states: (batch, n)
template <class T>
void run_argmax(const Chain<T>&, int* from, int64_t* states, Stream);
// states: (samples, batch, n)
template <class T>
void run_sample(const Chain<T>&, const Scaled<T>&, uint64_t seed, int64_t samples, int64_t* states, Stream);
template <class T>
void run_log_sample(const Chain<T>&, const LogSpace<T>&, uint64_t seed, int64_t samples, int64_t* states, Stream);

}  // namespace slv::cuda
