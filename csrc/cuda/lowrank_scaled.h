// Rules of low rank in the scaled linear domain on a GPU: what its kernels work in, and their launches. A row of a
// table, a word, and a span's numbers over ranks, as the left and as the right child of a rank are relative to a power
// of two each, kept as whole numbers of T. When that is exact is argued at the head of kernels/lowrank_inside.h; an
// item that does not fit is done again in log space (cuda/lowrank.h).
#pragma once
#include "cuda/lowrank.h"

namespace slv::cuda {

// What was seen of an item's numbers, and of its grammar's: one so small that a sum may have lost more than rounding;
// one of which a product could underflow, where 0 has to mean impossible; a score of -inf, so that it has to; one out
// of range.
enum Seen { kSeenLow = 1, kSeenThin = 2, kSeenForbidden = 4, kSeenBeyond = 8 };

// Exponentials of a table, as it lies and turned round; the exponent of each row, and what was seen of it.
template <class T>
struct ScaledTable {
  T *down, *up, *power;  // (tables, rows, columns), (tables, columns, rows), (tables, rows)
  int* seen;             // (tables, rows)
};

template <class T>
struct ScaledRanks {
  RowMap grammar;  // items that share all three tables share a row of this
  // by row: of the head those of `grammar`, as it gets back what left and right are relative to; -inf: no rank possible
  ScaledTable<T> head, left, right;
  T *factor, *common;  // (grammars, nt), (grammars): of the head's exponents, as powers of two against the largest
  int* seen;           // (grammars)
  // the chart, by item
  T* words;               // (batch, n, t): exponentials
  T* symbols;             // (batch, spans, nt)
  T* ranks;               // (batch, spans, r): sums over splits; without a head null, symbols begin as these
  T *on_left, *on_right;  // (batch, all spans, r): of spans as children of a rank
  T *exponent, *left_exponent, *right_exponent;  // (batch, all spans): of symbols or a word; -inf: impossible
  T* rank_exponent;                              // (batch, spans)
  T* redo;                                       // (batch): whether log space has to do it
  // meanwhile
  int* notes;  // (batch, all spans, 3): what was seen of it, and of it as a left and a right child; begin as 0
};

// Adjoints; and the posterior weights that they make, which begin as 0 and are written of items that are not to be done
// again.
template <class T>
struct RankAdjoints {
  const double* weight;         // (batch), or null for ones
  T *on_left, *on_right;        // (batch, all spans, r): of sums over symbols
  T* symbols;                   // (batch, spans, nt): of a span's sums over ranks
  T* ranks;                     // (batch, spans, r); without a head null
  double *top, *nodes, *words;  // (batch, nt), (batch, spans, nt), (batch, n, t)
};

// Exponentials of the tables; of words
template <class T>
void run_scale_grammar(const LowRank<T>&, const ScaledRanks<T>&, Stream);
template <class T>
void run_scale_words(const LowRank<T>&, const ScaledRanks<T>&, Stream);
// Few symbols and ranks: a block does a whole sentence, else some spans of one width.
template <class T>
Widths widths_of(const LowRank<T>&, int from, int to);
template <class T>
bool in_one_launch(const LowRank<T>& g) {
  return g.nt <= 64 && g.r <= 64 && g.n <= 64;
}
// The inside pass over some widths.
template <class T>
void run_scan(const LowRank<T>&, const ScaledRanks<T>&, const Widths&, Stream);
// Which items are to be done again, and log Z of the others, into either of the results.
template <class T>
void run_scan_end(const LowRank<T>&, const ScaledRanks<T>&, double* log_z, T* log_z_narrow, Stream);

// The symbols of all spans from their ranks, as the inside pass formed them.
template <class T>
void run_form_symbols(const LowRank<T>&, const ScaledRanks<T>&, Stream);
// The outside pass over some widths, from the widest; and the weights of tables, once it is done.
template <class T>
void run_adjoint(const LowRank<T>&, const ScaledRanks<T>&, const Widths&, const RankAdjoints<T>&, Stream);
template <class T>
void run_count_tables(const LowRank<T>&, const ScaledRanks<T>&, const RankAdjoints<T>&, const GrammarCounts&, Stream);

}  // namespace slv::cuda
