// The PCFG whose rules are a list, for grammars of thousands of symbols, as the kernels see it: no torch.
//
//   score(tree) = root[A of the whole] + sum over rules of scores[rule] + sum over leaves of unary[i, y - nonterminals]
//                 + sum over nonterminals A over words i < j of spans[i, j, A]
//
// With one label, spans[i, j] counts once for a constituent, however many symbols unary rules put on top of each other.
//
// A rule is A -> y z or A -> y, and unary rules have no cycle. Inside, symbols are numbered by `place`: a unary rule
// leads from its child to a parent of a higher place, so that one pass in ascending order closes a cell under them.
#pragma once
#include <cstdint>

#include "kernels/distinct.h"

namespace slv {

// Shared by all items; every list is sorted by what it is looked up by. Rules: their rows in the index.
struct SparseGrammar {
  int64_t symbols, nonterminals, rules, binary, pairs;
  const int32_t *place, *symbol;        // symbol -> place, place -> symbol
  const int32_t *left, *right;          // place of y -> its pairs (symbols + 1); pair -> place of z
  const int32_t* uses;                  // pair -> its binary rules (pairs + 1)
  const int32_t *parent, *rule, *pair;  // of the binary rules in this order
  const int32_t* up;                    // place of y -> the unary rules above it (symbols + 1)
  const int32_t *up_parent, *up_rule;
  const int32_t* down;                  // place of A -> its rules (symbols + 1), binary by (y, z), then unary by y
  const int32_t *first, *second;        // places of the children; second is -1 for a unary rule
  const int32_t *down_rule, *down_use;  // row in the index; number among the binary or among the unary rules above
};

// The potentials of one item in float64, or a direction among them.
struct SparseItem {
  int64_t length, n;  // words that count, words that the tensors have
  int64_t labels;     // of spans: nonterminals or 1
  const double *root, *scores, *unary;
  const double* spans;  // (n, n, labels), both ends inclusive, of which i < j counts; or null
};

// Exponentials of the scores of the rules: binary ones in the order of SparseGrammar::uses, then unary ones in that of
// `up`. The binary ones are relative to 2^exponent.
struct SparseWeights {
  const double *binary, *up;
  double exponent, least;  // least: the smallest binary one that is not 0
  bool mild;               // none is 0 but for a score of -inf
  static constexpr int64_t kExtra = 3;
  SparseWeights(const SparseGrammar& g, const double* data)
      : binary(data),
        up(data + g.binary),
        exponent(data[g.rules]),
        least(data[g.rules + 1]),
        mild(data[g.rules + 2] > 0) {}
  static int64_t size(const SparseGrammar& g) { return g.rules + kExtra; }
};

// Where the weights of the parts of one item are added to. A null pointer: not wanted.
struct SparseSink {
  double *root, *rules, *unary, *spans;
  int64_t labels;  // of spans
};

struct SparsePcfgKernels {
  void (*prepare)(const SparseGrammar&, const double* scores, double* weights);
  double (*log_partition)(const SparseGrammar&, const SparseItem&, const SparseWeights&);
  void (*marginals)(const SparseGrammar&, const SparseItem&, const SparseWeights&, double weight, const SparseSink&);
  double (*hvp)(const SparseGrammar&, const SparseItem&, const SparseWeights&, double weight, const SparseItem& v,
                const SparseSink&);
  // event: (rows, 3), filled with -1 behind the tree
  void (*argmax)(const SparseGrammar&, const SparseItem&, int64_t rows, int64_t* event);
  void (*topk)(const SparseGrammar&, const SparseItem&, int64_t rows, int64_t count, int64_t* events, int64_t stride);
  // single: uniforms of 24 bits, as for float32
  void (*sample)(const SparseGrammar&, const SparseItem&, const SparseWeights&, int64_t rows, uint64_t seed,
                 uint32_t item, int64_t samples, bool single, int64_t* events, int64_t stride);
  void (*sample_distinct)(const SparseGrammar&, const SparseItem&, const SparseWeights&, int64_t rows, uint64_t seed,
                          uint32_t item, int64_t count, const DistinctSink& out);
  void (*max_marginals)(const SparseGrammar&, const SparseItem&, const SparseSink&);  // maxima, over -inf
};
const SparsePcfgKernels* sparse_pcfg_kernels_base();
const SparsePcfgKernels* sparse_pcfg_kernels_avx2();
const SparsePcfgKernels* sparse_pcfg_kernels_avx512();

}  // namespace slv
