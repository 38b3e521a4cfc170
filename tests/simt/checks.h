// What the drivers share: random scores, and comparisons that say where they failed.
#pragma once
#include <cmath>
#include <cstdint>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

using Doubles = std::vector<double>;
using Shape = std::vector<int64_t>;

inline int64_t product(const Shape& s) {
  int64_t p = 1;
  for (int64_t x : s) p *= x;
  return p;
}
inline void require(bool ok, const std::string& what) {
  if (!ok) throw std::runtime_error(what);
}
inline void close(double found, double expected, double tolerance, const char* what, int64_t at) {
  const bool near = std::abs(found - expected) <= tolerance * std::max(1.0, std::abs(expected));
  const bool same = found == expected || (std::isfinite(expected) && near);  // all are near infinity by that measure
  require(same, std::string(what) + "[" + std::to_string(at) + "]: " + std::to_string(found) + ", expected " +
                    std::to_string(expected));
}
// Normal scores of this standard deviation, a part of which are -inf.
inline Doubles draw(std::mt19937_64& random, int64_t size, double holes, double scale) {
  std::normal_distribution<double> normal;
  std::uniform_real_distribution<double> uniform;
  Doubles out(size);
  for (double& x : out) x = uniform(random) < holes ? -HUGE_VAL : scale * normal(random);
  return out;
}
