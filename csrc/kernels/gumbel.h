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

// a0 b0 a1 b1 ... of two vectors: its first half to `low`, its second to `high`.
SLV_INLINE void in_turns(Words a, Words b, Words& low, Words& high) {
  constexpr uint32_t L = sizeof(Words) / sizeof(uint32_t);
  Words first, second;
  for (uint32_t l = 0; l < L; l++) first[l] = l / 2 + l % 2 * L, second[l] = first[l] + L / 2;
  low = __builtin_shuffle(a, b, first);
  high = __builtin_shuffle(a, b, second);
}
// Four words of each of N counters, a counter's together.
template <int N>
SLV_INLINE void by_counter(const uint32_t (&word)[4][N], uint32_t* out) {
  constexpr int L = sizeof(Words) / sizeof(uint32_t);
  for (int l = 0; l < N; l += L, out += 4 * L) {
    Words w[4], even[2], odd[2], o[4];
    for (int i = 0; i < 4; i++) std::memcpy(&w[i], word[i] + l, sizeof(Words));
    in_turns(w[0], w[2], even[0], even[1]);
    in_turns(w[1], w[3], odd[0], odd[1]);
    for (int half = 0; half < 2; half++) in_turns(even[half], odd[half], o[2 * half], o[2 * half + 1]);
    for (int i = 0; i < 4; i++) std::memcpy(out + i * L, &o[i], sizeof(Words));
  }
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
    by_counter(word, ordered);
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
