// Paths of a chain without replacement on a GPU: the launch of its kernel. The forward pass is that of log space.
#pragma once
#include "cuda/chain.h"

namespace slv::cuda {

// A way to go on from a beginning that was opened: the states from t on are chosen, `choice` first of them.
struct Beginning {
  double perturbed, log_prob;
  int t, choice, parent;  // parent: the number of the one it goes on from, -1 at the end of the chain
  int unused;
};
struct OpenedBeginning {
  int state, parent;
};

// Of an item: a frontier of `width` beginnings, then `opened` of those that were opened. Enough for `count` paths.
struct Distinct {
  uint64_t seed;
  int64_t count, width, opened;
  double* memory;  // `stride` for each item of a range
  int64_t stride;
  int64_t rows;       // of the results: `count` or more
  int64_t* states;    // (rows, batch, n), -1 where nothing is found
  double* perturbed;  // (rows, batch), -inf there
  static Distinct of(uint64_t seed, int64_t rows, int64_t count, int64_t n, int64_t k) {
    const int64_t width = 2 * count + 64 + k, opened = count * (n + 1);
    static_assert(sizeof(Beginning) == 4 * sizeof(double) && sizeof(OpenedBeginning) == sizeof(double));
    return {seed, count, width, opened, nullptr, 4 * width + opened, rows, nullptr, nullptr};
  }
};

template <class T>
void run_distinct(const Chain<T>&, const LogSpace<T>&, const Distinct&, Stream);

}  // namespace slv::cuda
