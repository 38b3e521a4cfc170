// How many blocks the kernel of paths without replacement gets: a warp for each item.
#pragma once
#include "cuda/chain_distinct.cuh"

namespace slv::cuda {

template <class T>
void run_distinct(const Chain<T>& c, const LogSpace<T>& l, const Distinct& d, Stream stream) {
  simt::launch(chain_distinct<T>, l.count, 32, 0, static_cast<simt::Stream>(stream), c, l, d);
}

}  // namespace slv::cuda
