// Compiled once per instruction set (SLV_ISA names it); only the getter at the end has a name outside.
#include "kernels/sparse_pcfg.h"

#include "core/isa.h"
#include "kernels/sparse_distinct.h"
#include "kernels/sparse_kbest.h"
#include "kernels/sparse_outside.h"
#include "kernels/sparse_search.h"
#include "kernels/sparse_tangent.h"

namespace slv {
namespace {

// Exponentials of the scores; see SparseWeights.
void sparse_prepare(const SparseGrammar& g, const double* scores, double* out) {
  const int64_t unary = g.rules - g.binary;
  double top = kNone, bottom = kInf<double>, largest = 0;
  for (int64_t q = 0; q < g.binary; q++) {
    const double s = out[q] = scores[g.rule[q]];
    top = std::max(top, s);
    if (s > kNone) bottom = std::min(bottom, s), largest = std::max(largest, std::abs(s));
  }
  const double exponent = top > kNone && largest <= kMildScore ? nearest_exponent(top) : 0;
  bool mild = largest <= kMildScore && !(top - bottom > kMildRange);
  for (int64_t u = 0; u < unary; u++) {
    const double s = out[g.binary + u] = scores[g.up_rule[u]];
    if (s > kNone && !(std::abs(s) <= kMildRange)) mild = false;
  }
  constexpr int W = kWidth<double>;
  for (int64_t q = 0; q < g.rules; q += W) {
    const int n = int(std::min<int64_t>(W, g.rules - q));
    const vec<double> x = load_n<double>(out + q, n, 0);
    vec<double> shift{};
    for (int l = 0; l < n; l++) shift[l] = q + l < g.binary ? exponent : 0;
    store_n<double>(out + q, exp_scaled<double>(x, shift), n);
  }
  out[g.rules] = exponent;
  out[g.rules + 1] = top > kNone ? scalar_exp_scaled(bottom, exponent) : 1;
  out[g.rules + 2] = mild;
}

const SparsePcfgKernels table = {sparse_prepare, sparse_log_partition, sparse_marginals,
                                 sparse_hvp,     sparse_argmax,        sparse_topk,
                                 sparse_sample,  sparse_distinct,      sparse_max_marginals};

}  // namespace

const SparsePcfgKernels* SLV_GETTER(sparse_pcfg_kernels)() { return &table; }

}  // namespace slv
