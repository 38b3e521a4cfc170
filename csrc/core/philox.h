// Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3): random
// numbers as a function of (key, counter), so that a draw depends on nothing but its own coordinates.
#pragma once
#include <cstdint>

namespace slv {
namespace {

struct Philox4 {
  uint32_t word[4];
};
inline Philox4 philox(uint64_t seed, uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3) {
  uint32_t k0 = uint32_t(seed), k1 = uint32_t(seed >> 32);
  for (int round = 0; round < 10; round++) {
    uint64_t p0 = uint64_t(0xD2511F53u) * c0, p1 = uint64_t(0xCD9E8D57u) * c2;
    c0 = uint32_t(p1 >> 32) ^ c1 ^ k0;
    c1 = uint32_t(p1);
    c2 = uint32_t(p0 >> 32) ^ c3 ^ k1;
    c3 = uint32_t(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// The draws of one chain, read from its last position to its first: one block of random bits serves four positions.
struct Draws {
  uint64_t seed;
  uint32_t item, sample;
  int64_t block = -1;
  Philox4 bits{};
  uint32_t operator()(int64_t position) {
    if (position >> 2 != block) {
      block = position >> 2;
      bits = philox(seed, uint32_t(block), item, sample, 0);
    }
    return bits.word[position & 3];
  }
};
// In [0, 1): 24 bits where the potentials are float32, 32 where they are float64.
template <class T>
inline T uniform(uint32_t word) {
  return sizeof(T) == 4 ? T(word >> 8) * T(1.0 / 16777216) : T(word) * T(1.0 / 4294967296.0);
}

}  // namespace
}  // namespace slv
