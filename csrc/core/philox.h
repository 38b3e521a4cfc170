// Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3): random
// numbers as a function of (key, counter), so that a draw depends on nothing but its own coordinates.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "core/simt.h"
#if !defined(__CUDACC__) && !defined(SLV_EMULATE)
#include "core/vec.h"
#endif

namespace slv {
namespace {

// Ten rounds on words in registers; step(x, constant, high, low) gives the halves of a 32 x 32 bit product.
template <class W, class F>
SLV_BOTH inline void philox_rounds(uint64_t seed, W (&c)[4], F step) {
  uint32_t k0 = uint32_t(seed), k1 = uint32_t(seed >> 32);
  for (int round = 0; round < 10; round++) {
    W high0, low0, high1, low1;
    step(c[0], 0xD2511F53u, high0, low0);
    step(c[2], 0xCD9E8D57u, high1, low1);
    c[0] = high1 ^ c[1] ^ k0;
    c[2] = high0 ^ c[3] ^ k1;
    c[1] = low1;
    c[3] = low0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
}

struct ScalarHalves {
  SLV_BOTH void operator()(uint32_t x, uint32_t constant, uint32_t& high, uint32_t& low) const {
    const uint64_t product = uint64_t(constant) * x;
    high = uint32_t(product >> 32), low = uint32_t(product);
  }
};
#if !defined(__CUDACC__) && !defined(SLV_EMULATE)
typedef uint32_t Words __attribute__((vector_size(kVectorBytes), may_alias));
typedef uint64_t Products __attribute__((vector_size(kVectorBytes), may_alias));
// Of the lower halves of 64-bit lanes. (The masked form: the other one draws a false warning from GCC 12.)
SLV_INLINE Products times_even(Products x, uint32_t constant) {
#if defined(__AVX512F__)
  return (Products)_mm512_maskz_mul_epu32(__mmask8(-1), (__m512i)x, _mm512_set1_epi64(constant));
#elif defined(__AVX2__)
  return (Products)_mm256_mul_epu32((__m256i)x, _mm256_set1_epi64x(constant));
#elif defined(__SSE2__)
  return (Products)_mm_mul_epu32((__m128i)x, _mm_set1_epi64x(constant));
#else
  return (x & 0xFFFFFFFFu) * uint64_t(constant);
#endif
}
struct LaneHalves {
  SLV_INLINE void operator()(Words x, uint32_t constant, Words& high, Words& low) const {
    const uint64_t upper = uint64_t(0xFFFFFFFF) << 32;
    const Products even = times_even((Products)x, constant), odd = times_even((Products)x >> 32, constant);
    high = (Words)((even >> 32) | (odd & upper));
    low = (Words)((even & ~upper) | (odd << 32));
  }
};
#endif

// N counters in, four words of each out.
template <int N>
SLV_BOTH inline void philox(uint64_t seed, uint32_t (&word)[4][N]) {
#if !defined(__CUDACC__) && !defined(SLV_EMULATE)
  if constexpr (N > 1) {
    constexpr int L = int(sizeof(Words) / sizeof(uint32_t)), V = (N + L - 1) / L;
    for (int v = 0; v < V; v++) {
      constexpr int last = (N - (V - 1) * L) * int(sizeof(uint32_t));
      const int bytes = v + 1 < V ? int(sizeof(Words)) : last;
      Words c[4] = {};
      for (int i = 0; i < 4; i++) std::memcpy(&c[i], word[i] + v * L, bytes);
      philox_rounds(seed, c, LaneHalves());
      for (int i = 0; i < 4; i++) std::memcpy(word[i] + v * L, &c[i], bytes);
    }
    return;
  }
#endif
  for (int l = 0; l < N; l++) {
    uint32_t c[4] = {word[0][l], word[1][l], word[2][l], word[3][l]};
    philox_rounds(seed, c, ScalarHalves());
    for (int i = 0; i < 4; i++) word[i][l] = c[i];
  }
}

// The draws of N structures at the same position; one block of random bits serves four positions in a row.
template <int N>
struct Draws {
  uint64_t seed;
  uint32_t item[N], sample[N];
  uint32_t stream = 0;
  int64_t block = -1;
  uint32_t word[4][N] = {};
  const uint32_t* operator()(int64_t position) {
    if (position >> 2 != block) {
      block = position >> 2;
      for (int l = 0; l < N; l++)
        word[0][l] = uint32_t(block), word[1][l] = item[l], word[2][l] = sample[l], word[3][l] = stream;
      philox<N>(seed, word);
    }
    return word[position & 3];
  }
};
// In [0, 1): 24 bits where the potentials are float32, 32 where they are float64.
template <class T>
SLV_BOTH inline T uniform(uint32_t word) {
  return sizeof(T) == 4 ? T(word >> 8) * T(1.0 / 16777216) : T(word) * T(1.0 / 4294967296.0);
}
// The first j with cumulative weight above u * total; never one of weight 0.
inline int64_t pick(const double* weight, int64_t k, double sum, double u) {
  const double target = std::min(u * sum, std::nextafter(sum, 0.0));
  double seen = 0;
  for (int64_t j = 0; j < k; j++) {
    seen += weight[j];
    if (seen > target) return j;
  }
  return -1;
}

}  // namespace
}  // namespace slv
