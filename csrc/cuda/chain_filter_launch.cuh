// How many blocks, threads and bytes of shared memory the kernels of filtering and relaxed sampling get.
#pragma once
#include "cuda/chain_filter_relaxed.cuh"
#include "cuda/chain_launch.cuh"

namespace slv::cuda {

// Blocks of eight warps, for a warp each.
inline int64_t warp_blocks(int64_t warps) { return pieces(warps, 8); }

template <class T>
void run_filter(const Chain<T>& c, const Scaled<T>& s, T* out, Stream stream) {
  simt::launch(c.per_step ? chain_filter<T, Stepwise<T>> : chain_filter<T, Cached<T>>, c.batch * c.n,
               step_threads(c.k, kLogThreads), array_bytes<T>(kMaxWarps), native(stream), c, s, out, padded<T>(c.k));
}
template <class T>
void filter_cotangent(const Chain<T>& c, const Scaled<T>& s, const T* grad, T* g, Stream stream) {
  simt::launch(chain_filter_cotangent<T>, warp_blocks(c.batch * c.n), 256, 0, native(stream), c, s, grad, g,
               padded<T>(c.k));
}
template <class T>
void filter_backward(const Chain<T>& c, const Scaled<T>& s, const Adjoint<T>& a, Stream stream) {
  with_source(c, array_bytes<T>(2 * c.k), [&](auto source, size_t shared) {
    simt::launch(chain_filter_backward<T, typename decltype(source)::Type>, c.batch, step_threads(c.k), shared,
                 native(stream), c, s, a, padded<T>(c.k));
  });
}
template <class T>
void log_filter(const Chain<T>& c, const LogSpace<T>& l, const T* grad, T* out, Stream stream) {
  simt::launch(chain_filter_log<T>, warp_blocks(l.count * c.n), 256, 0, native(stream), c, l, grad, out);
}
template <class T>
void log_filter_backward(const Chain<T>& c, const LogSpace<T>& l, T* unary, Stream stream) {
  simt::launch(chain_filter_log_backward<T>, l.count, step_threads(c.k, kLogThreads), array_bytes<double>(c.k),
               native(stream), c, l, unary);
}

template <class T>
void run_relaxed(const Chain<T>& c, const T* columns, const Relaxed<T>& r, Stream stream) {
  simt::launch(c.per_step ? chain_relaxed<T, true> : chain_relaxed<T, false>, warp_blocks(r.samples * c.batch), 256, 0,
               native(stream), c, columns, r);
}
template <class T>
void relaxed_backward(const Chain<T>& c, const Relaxed<T>& r, const RelaxedAdjoint<T>& a, Stream stream) {
  simt::launch(chain_relaxed_backward<T>, warp_blocks(c.batch * c.n), 256, 0, native(stream), c, r, a);
  simt::launch(chain_relaxed_heat<T>, warp_blocks(c.batch), 256, 0, native(stream), c, a);
}
template <class T>
void relaxed_edges(const Chain<T>& c, const Relaxed<T>& r, const RelaxedAdjoint<T>& a, const Edges<T>& out,
                   Stream stream) {
  const size_t shared = array_bytes<double>(kEdgeSide * kEdgeSide / 32 * kWarpSums);
  simt::launch(chain_relaxed_edges<T>, edge_blocks(c, out), kEdgeSide * kEdgeSide, shared, native(stream), c, r, a,
               out);
}

}  // namespace slv::cuda
