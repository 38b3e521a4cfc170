// How many blocks the kernel of noise gets.
#pragma once
#include "cuda/noise_gumbel.cuh"

namespace slv::cuda {

template <class T>
void run_gumbel(const Noise& x, T* out, Stream stream) {
  const int64_t threads = x.items * x.samples * ((x.positions + 3) / 4);
  simt::launch(x.n > 0 ? noise_gumbel<T, true> : noise_gumbel<T, false>, (threads + 255) / 256, 256, 0,
               static_cast<simt::Stream>(stream), x, out);
}

}  // namespace slv::cuda
