// Gumbel noise in rows: -log(-log(u)), u = (word + 1/2) 2^-32, from the open interval, so that no draw is infinite.
#pragma once
#include "core/log.h"
#include "core/philox.h"
#include "kernels/noise.h"

namespace slv {
namespace {

// -log(u); float32 has no digits left near u = 1, so there it starts from 1 - u, which it can hold.
SLV_INLINE vec<double> surprise(const uint32_t* word, vec<double>) {
  vec<double> u;
  for (int l = 0; l < kWidth<double>; l++) u[l] = (double(word[l]) + 0.5) * 0x1p-32;
  return -log_normal<double>(u);
}
SLV_INLINE vec<float> surprise(const uint32_t* word, vec<float>) {
  vec<float> x;
  ivec<float> high;
  for (int l = 0; l < kWidth<float>; l++) {
    const bool h = word[l] >> 31;
    x[l] = float(int32_t(h ? ~word[l] : word[l]));
    high[l] = -int(h);
  }
  x = (x + 0.5f) * 0x1p-32f;
  return high ? twice_atanh<float, 8>(x / (2.0f - x)) : -log_normal<float>(x);
}

template <class T>
void gumbel(const NoiseRun& run, T* out) {
  constexpr int kBlocks = 16, kWords = 4 * kBlocks, W = kWidth<T>;
  uint32_t word[4][kBlocks], ordered[kWords];
  T value[kWords];
  const int64_t end = run.first + run.count;
  for (int64_t start = run.first / 4 * 4; start < end; start += kWords) {
    for (int l = 0; l < kBlocks; l++)
      word[0][l] = uint32_t(start / 4 + l), word[1][l] = run.item, word[2][l] = run.sample, word[3][l] = run.stream;
    philox<kBlocks>(run.seed, word);
    for (int l = 0; l < kBlocks; l++)
      for (int w = 0; w < 4; w++) ordered[4 * l + w] = word[w][l];
    for (int l = 0; l < kWords; l += W) store(value + l, -log_normal<T>(surprise(ordered + l, vec<T>{})));
    const int64_t from = std::max(start, run.first), to = std::min(start + kWords, end);
    std::copy(value + (from - start), value + (to - start), out + (from - run.first));
  }
}

}  // namespace
}  // namespace slv
