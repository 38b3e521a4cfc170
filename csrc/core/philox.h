// Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3): random
// numbers as a function of (key, counter), so that a draw depends on nothing but its own coordinates.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "core/simt.h"

namespace slv {
namespace {

// N counters in, four words of each out. Written lane by lane for the compiler to vectorise.
template <int N>
SLV_BOTH inline void philox(uint64_t seed, uint32_t (&word)[4][N]) {
  uint32_t c0[N], c1[N], c2[N], c3[N], k0 = uint32_t(seed), k1 = uint32_t(seed >> 32);
  for (int l = 0; l < N; l++) c0[l] = word[0][l], c1[l] = word[1][l], c2[l] = word[2][l], c3[l] = word[3][l];
  for (int round = 0; round < 10; round++) {
    for (int l = 0; l < N; l++) {
      const uint64_t p0 = uint64_t(0xD2511F53u) * c0[l], p1 = uint64_t(0xCD9E8D57u) * c2[l];
      c0[l] = uint32_t(p1 >> 32) ^ c1[l] ^ k0;
      c2[l] = uint32_t(p0 >> 32) ^ c3[l] ^ k1;
      c1[l] = uint32_t(p1);
      c3[l] = uint32_t(p0);
    }
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  for (int l = 0; l < N; l++) word[0][l] = c0[l], word[1][l] = c1[l], word[2][l] = c2[l], word[3][l] = c3[l];
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
