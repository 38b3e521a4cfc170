// Logs of sums in float64, the maximum first: of terms of a thread, a warp or a block.
#pragma once
#include "cuda/warp.cuh"

namespace slv::cuda {

// The log of a sum as its largest term and the sum relative to it: top + log(sum). A probability is exp(term - top) /
// sum, which is exact however large the terms are.
struct LogSum {
  double top = -HUGE_VAL, sum = 0;
  SLV_DEVICE bool possible() const { return top > -HUGE_VAL; }
  SLV_DEVICE double log() const { return possible() ? top + ::log(sum) : -HUGE_VAL; }
};
// Of the terms `term(q)`, first <= q < end. With `Best` of the largest alone, so that its log is a maximum.
template <bool Best = false, class F>
SLV_DEVICE LogSum log_sum(int first, int end, F&& term) {
  LogSum x;
  for (int q = first; q < end; q++) x.top = larger(x.top, term(q));
  if constexpr (Best)
    x.sum = 1;
  else
    for (int q = first; q < end && x.possible(); q++) x.sum += exp(term(q) - x.top);
  return x;
}
// Over a warp, every lane of which gives terms: `term(q)` for q < count.
template <bool Best = false, class F>
SLV_DEVICE LogSum warp_log_sum(const Thread& me, int64_t count, F&& term) {
  LogSum x;
  for (int64_t q = me.lane; q < count; q += 32) x.top = larger(x.top, term(q));
  x.top = warp_max(x.top);
  if constexpr (Best) {
    x.sum = 1;
  } else {
    for (int64_t q = me.lane; q < count && x.possible(); q += 32) x.sum += exp(term(q) - x.top);
    x.sum = warp_sum(x.sum);
  }
  return x;
}
// Over a block, every thread of which gets the sum; parts: 2 kMaxWarps in shared memory.
template <class F>
SLV_DEVICE LogSum block_log_sum(const Thread& me, double* parts, int count, F&& term) {
  const int first = count * me.warp / me.warps, end = count * (me.warp + 1) / me.warps;
  const LogSum own = warp_log_sum(me, end - first, [&](int64_t q) { return term(first + int(q)); });
  if (me.lane == 0) parts[me.warp] = own.top, parts[kMaxWarps + me.warp] = own.sum;
  sync_block();
  LogSum x{max_of_parts(parts, me.warps), 0};
  for (int w = 0; w < me.warps && x.possible(); w++) x.sum += parts[kMaxWarps + w] * exp(parts[w] - x.top);
  return x;
}

}  // namespace slv::cuda
