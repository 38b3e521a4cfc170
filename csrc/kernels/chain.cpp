// Compiled once per instruction set (SLV_ISA names it); only the getter at the end has a name outside.
#include "kernels/chain.h"

#include "core/isa.h"
#include "kernels/chain_dense.h"
#include "kernels/chain_distinct.h"
#include "kernels/chain_filter.h"
#include "kernels/chain_ladder.h"
#include "kernels/chain_log.h"
#include "kernels/chain_relaxed.h"
#include "kernels/chain_sample.h"
#include "kernels/chain_search.h"
#include "kernels/chain_viterbi.h"

namespace slv {
namespace {

template <class T>
bool has_nan(const T* p, int64_t n) {
  constexpr int W = kWidth<T>;
  ivec<T> bad{};
  int64_t i = 0;
  for (; i + 4 * W <= n; i += 4 * W)
    for (int q = 0; q < 4; q++) {
      vec<T> x = load(p + i + q * W);
      bad |= x != x;
    }
  for (; i < n; i += W) {
    vec<T> x = load_n<T>(p + i, int(n - i < W ? n - i : W), 0);
    bad |= x != x;
  }
  return any<T>(bad);
}

template <class T>
constexpr ChainLogKernels<T> log_kernels() {
  return {log_partition_log<T>, marginals_log<T>, hvp_log<T>,      argmax_log<T>, max_marginals_log<T>,
          topk_log<T>,          sample_log<T>,    distinct_log<T>, filter_log<T>, filter_vjp_log<T>};
}

template <class T>
constexpr ChainScanKernels<T> scan_kernels() {
  return {scan_prepare<T>,    scan_release<T>, scan_forward<T>,    scan_backward<T>,   scan_hvp<T>,     scan_filter<T>,
          scan_filter_vjp<T>, scan_sample<T>,  viterbi_prepare<T>, viterbi_release<T>, viterbi_block<T>};
}

template <class T>
constexpr ChainDenseKernels<T> dense_kernels() {
  return {dense_forward<T>, dense_backward<T>};
}

template <class T>
constexpr ChainRelaxedKernels<T> relaxed_kernels() {
  return {relaxed_columns<T>, relaxed_sample<T>, relaxed_vjp<T>, state_pairs<T>};
}

const Kernels table = {SLV_STRING(SLV_ISA),       kVectorBytes,           scan_kernels<float>(),
                       scan_kernels<double>(),    dense_kernels<float>(), dense_kernels<double>(),
                       log_kernels<float>(),      log_kernels<double>(),  relaxed_kernels<float>(),
                       relaxed_kernels<double>(), has_nan<float>,         has_nan<double>};

}  // namespace

const Kernels* SLV_GETTER(kernels)() { return &table; }

}  // namespace slv
