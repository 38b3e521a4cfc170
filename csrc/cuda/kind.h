// The rungs of the ladder (see kernels/range.h) that the scores of a transition allow.
#pragma once

namespace slv::cuda {

// Nothing need be watched; every entry must be; log space alone.
enum Kind { kMild, kWide, kUnusable };

}  // namespace slv::cuda
