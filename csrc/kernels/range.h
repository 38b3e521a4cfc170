// The limits of the scaled linear domain.
#pragma once

namespace slv {
namespace {

// What the scaled domain in T can hold (see chain_scan.h, factorial_scan.h); rho is the range of the finite
// transitions.
template <class T>
struct Range;
template <>
struct Range<float> {
  static constexpr double mild = 51.4, wide = 41;     // of 2 rho + 2 ln k, and of rho; e^(3 rho) must not overflow
  static constexpr float tiny = 1e-17f, huge = 1e6f;  // of a wide entry; of a row's maximum
};
template <>
struct Range<double> {
  static constexpr double mild = 460, wide = 368;
  static constexpr double tiny = 1e-140, huge = 1e14;
};

}  // namespace
}  // namespace slv
