// Dense rules in the scaled linear domain on a GPU: what its kernels work in, and their launches. Numbers are relative
// to powers of two: one for each word and each span, kept as whole numbers of T, and one for each nonterminal's rules.
// Words' share of the rules is taken out ("hoisted"), as in kernels/pcfg_rules.h. When that is exact is argued at the
// head of kernels/pcfg_inside.h; an item that does not fit is done again in log space (cuda/pcfg.h).
#pragma once
#include "cuda/pcfg.h"

namespace slv::cuda {

// Of a row of rules: all possible; some -inf, so that 0 has to mean impossible; out of the domain's range.
enum RulesKind { kFiniteRules, kSomeRules, kUnusableRules };

template <class T>
struct ScaledPcfg {
  // by row of rules
  T* rules;           // (rows, nt, s * s): exponentials, those of a nonterminal in four blocks (DenseRules)
  T *power, *factor;  // (rows, nt): their exponents, -inf where no rule is possible; powers of two against `common`
  T* range;           // (rows, nt, 3): the largest and the least finite score, and whether there is -inf
  T* common;          // (rows): the largest exponent
  int* kind;          // (rows): RulesKind
  // the chart, by item
  T* words;                     // (batch, n, t): exponentials
  T* left;                      // (batch, n, nt, nt): sum over y of words[y] rules[a, y, z]: a word as a left child
  T* right;                     // (batch, n, nt, nt): sum over z of rules[a, y, z] words[z]: as a right child
  T* both;                      // (batch, n, nt, t): as a left child, where the right one is a word
  T* inside;                    // (batch, spans, nt)
  T *word_exponent, *exponent;  // (batch, n), (batch, spans): -inf: impossible; NaN: does not fit the domain
  T* redo;                      // (batch): whether log space has to do it
};

// Memory for the items [first, first + count).
template <class T>
struct TileSpace {
  int64_t first, count;
  T* weights;   // (count, blocks, rows, n): of splits
  T* matrices;  // (count, blocks, rows, matrix_size), where shared memory does not hold them
};

// Adjoints of these items; and the posterior weights that they make, which begin as 0 and are written of items that are
// not to be done again.
template <class T>
struct TreeAdjoints {
  const double* weight;  // (batch), or null for ones
  T *left, *right;       // (count, spans, nt): of spans as left and as right children; then what the words gave them
  T* sums;               // (count, spans, nt): of a span's sums over rules
  T* pairs;              // (count, spans of a launch, nt, nt): sums over splits, kept for the rules; or null
  T *words_left, *words_right;  // (count, n, nt, nt): of `left` and `right` in ScaledPcfg
  double *top, *nodes, *words;  // (batch, nt), (batch, spans, nt), (batch, n, t)
};

// Exponentials of rules; of words, and their share of the rules
template <class T>
void run_scale_rules(const Pcfg<T>&, const ScaledPcfg<T>&, int64_t rows, Stream);
template <class T>
void run_scale_words(const Pcfg<T>&, const ScaledPcfg<T>&, Stream);
// Elements of a matrix of pairs of nonterminals; its rows are an odd number of elements apart where columns are read.
SLV_BOTH constexpr int64_t matrix_size(int64_t nt) { return nt * (nt | 1); }
// Few nonterminals: a block does a whole sentence, else some spans of one width.
template <class T>
Widths widths_of(const Pcfg<T>&, int from, int to);
template <class T>
bool in_one_launch(const Pcfg<T>& g) {
  return g.nt <= 32 && g.n <= 64;
}
// The inside pass over some widths.
template <class T>
void run_scan(const Pcfg<T>&, const ScaledPcfg<T>&, const Widths&, const TileSpace<T>&, Stream);
// Which items are to be done again, and log Z of the others, into either of the results.
template <class T>
void run_scan_end(const Pcfg<T>&, const ScaledPcfg<T>&, double* log_z, T* log_z_narrow, Stream);

// The outside pass over some widths, from the widest; then the weights of their rules, with those of the narrowest the
// weights of rules of words, which need the words' adjoints; and the weights of words.
template <class T>
void run_adjoint(const Pcfg<T>&, const ScaledPcfg<T>&, const Widths&, const TileSpace<T>&, const TreeAdjoints<T>&,
                 Stream);
template <class T>
void run_word_adjoints(const Pcfg<T>&, const ScaledPcfg<T>&, const TileSpace<T>&, const TreeAdjoints<T>&, Stream);
template <class T>
void run_unhoist_rules(const Pcfg<T>&, const ScaledPcfg<T>&, const Widths&, const TileSpace<T>&, const TreeAdjoints<T>&,
                       const RuleCounts&, Stream);
template <class T>
void run_unhoist_words(const Pcfg<T>&, const ScaledPcfg<T>&, const TileSpace<T>&, const TreeAdjoints<T>&, Stream);

}  // namespace slv::cuda
