// How many blocks and threads each kernel of the PCFG gets: a function of the problem alone.
#pragma once
#include "cuda/pcfg_inside.cuh"

namespace slv::cuda {

// A warp for every row of pairs of children, as far as a block goes.
template <class T>
int tree_threads(const Pcfg<T>& g) {
  const int64_t warps = (g.pairs() + 31) / 32;
  return int(warps < kLogThreads / 32 ? 32 * warps : kLogThreads);
}

template <class T>
void run_inside(const Pcfg<T>& g, const TreeSpace<T>& space, int width, Stream stream) {
  simt::launch(pcfg_inside<T>, space.count * (g.n - width + 1), tree_threads(g), 0, static_cast<simt::Stream>(stream),
               g, space, width);
}
template <class T>
void run_finish(const Pcfg<T>& g, const double* inside, double* log_z, T* log_z_narrow, Stream stream) {
  simt::launch(pcfg_finish<T>, g.batch, 32, 0, static_cast<simt::Stream>(stream), g, inside, log_z, log_z_narrow);
}

}  // namespace slv::cuda
