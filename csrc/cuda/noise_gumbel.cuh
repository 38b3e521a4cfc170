// Gumbel noise -log(-log(u)), u = (word + 1/2) 2^-32, of the words that the CPU draws (kernels/gumbel.h): a thread for
// each Philox counter, whose four words are four positions in a row.
#pragma once
#include "core/philox.h"
#include "core/simt.h"
#include "cuda/noise.h"

namespace slv::cuda {

SLV_DEVICE double gumbel_of(uint32_t word, double) { return -log(-log((double(word) + 0.5) * 0x1p-32)); }
// float32 has no digits left near u = 1, so from u = 1/2 on it starts from 1 - u, which it can hold.
SLV_DEVICE float gumbel_of(uint32_t word, float) {
  const bool high = word >> 31;
  const float x = (float(high ? ~word : word) + 0.5f) * 0x1p-32f;
  return -logf(high ? -log1pf(-x) : -logf(x));
}

// Spans and labels in the order of their positions: by end, then start, then label.
struct SpanPlace {
  int64_t n, labels, i, j, label;
  SLV_DEVICE SpanPlace(const Noise& x, int64_t position) : n(x.n), labels(x.labels) {
    const int64_t span = position / labels;
    label = position - span * labels;
    j = int64_t((sqrt(8.0 * double(span) + 1.0) - 1.0) / 2.0);  // where a column begins, the root is exact
    i = span - j * (j + 1) / 2;
  }
  SLV_DEVICE int64_t place() const { return (i * n + j) * labels + label; }
  SLV_DEVICE void next() {
    if (++label < labels) return;
    label = 0;
    if (++i > j) i = 0, j++;
  }
};

template <class T, bool Spans>
SLV_KERNEL(256)
noise_gumbel(Noise x, T* out) {
  const int64_t counters = (x.positions + 3) / 4, index = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t unit = index / counters, first = index % counters * 4;
  if (unit >= x.samples * x.items) return;
  uint32_t word[4][1] = {
      {uint32_t(first / 4)}, {uint32_t(unit % x.items)}, {uint32_t(unit / x.items)}, {Spans ? 4u : 3u}};
  philox<1>(x.seed, word);
  SpanPlace span(x, Spans ? first : 0);
  SLV_UNROLL for (int q = 0; q < 4; q++) {
    if (first + q >= x.positions) return;
    out[unit * x.size + (Spans ? span.place() : first + q)] = gumbel_of(word[q][0], T());
    if (Spans) span.next();
  }
}

}  // namespace slv::cuda
