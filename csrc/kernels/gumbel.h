// Gumbel noise -log(-log(u)), u = (word + 1/2) 2^-32: from the open interval, so that no draw is infinite.
#pragma once
#include "core/log.h"
#include "core/philox.h"
#include "kernels/noise.h"

namespace slv {
namespace {

// -log(u) of kWidth words.
SLV_INLINE vec<double> surprise(const uint32_t* word, vec<double>) {
  typedef uint32_t Half __attribute__((vector_size(kVectorBytes / 2)));
  Half w;
  std::memcpy(&w, word, sizeof w);
  return -log_normal<double>((__builtin_convertvector(w, vec<double>) + 0.5) * 0x1p-32);
}
// float32 has no digits left near u = 1, so from u = 1/2 on it starts from x = 1 - u, which it can hold:
// -log(1 - x) = 2 atanh(x / (2 - x)), the other half of what the logarithm does too.
SLV_INLINE vec<float> surprise(const uint32_t* word, vec<float>) {
  ivec<float> w;
  std::memcpy(&w, word, sizeof w);
  const ivec<float> high = w < 0;
  const vec<float> x = (__builtin_convertvector(high ? ~w : w, vec<float>) + 0.5f) * 0x1p-32f;
  const Split<float> s(x);
  const vec<float> r = twice_atanh<float, 8>((high ? x : s.m - 1.0f) / (high ? 2.0f - x : s.m + 1.0f));
  return high ? r : -plus_powers<float>(s.e, r);
}

// The draws of a run, into out[0 .. count - 1].
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
    const bool whole = start >= run.first && start + kWords <= end;
    T* to = whole ? out + (start - run.first) : value;
    for (int l = 0; l < kWords; l += W) store(to + l, -log_normal<T>(surprise(ordered + l, vec<T>{})));
    if (whole) continue;
    const int64_t from = std::max(start, run.first), last = std::min(start + kWords, end);
    std::copy(value + (from - start), value + (last - start), out + (from - run.first));
  }
}

}  // namespace
}  // namespace slv
