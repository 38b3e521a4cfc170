// Gumbel noise on a GPU: what its kernel is launched with. Neither torch nor CUDA is known here.
#pragma once
#include <cstdint>

namespace slv::cuda {

using Stream = void*;  // a cudaStream_t

// The draws of all items and samples. An event lies in `size` places; its draws have the positions 0 .. positions - 1.
// Of rows, position and place are the same; of spans, the position of (i, j, label), i <= j, does not depend on n.
struct Noise {
  uint64_t seed;
  int64_t items, samples, size, positions;
  int64_t n, labels;  // of spans (n, n, labels); n is 0 for rows
};

// out (samples, items, size), where places of spans i > j are left as they are
template <class T>
void run_gumbel(const Noise&, T* out, Stream);

}  // namespace slv::cuda
