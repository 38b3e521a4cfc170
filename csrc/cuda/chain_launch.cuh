// How many blocks, threads and bytes of shared memory each kernel of the chain gets. A function of the problem and of
// the device's shared memory alone; what decides between two kernels never changes an order of summation.
#pragma once
#include "cuda/chain_chunks.cuh"
#include "cuda/chain_sample.cuh"
#include "cuda/chain_tangent.cuh"
#include "cuda/chain_viterbi.cuh"

namespace slv::cuda {

using simt::array_bytes;

inline simt::Stream native(Stream stream) { return static_cast<simt::Stream>(stream); }
// A warp for every eight columns of a step's product, as far as a block goes.
inline int step_threads(int k, int most = kMaxThreads) {
  const int threads = (k + kTileColumns - 1) / kTileColumns * 32;
  return threads < most ? threads : most;
}
inline int64_t pieces(int64_t count, int64_t size) { return (count + size - 1) / size; }

template <class T>
void prepare_matrices(const Chain<T>& c, const Scaled<T>& s, Stream stream) {
  const size_t shared = array_bytes<T>(2 * kMaxWarps);
  const int64_t warps = pieces(int64_t(c.k) * c.k, 32);
  simt::launch(chain_prepare<T>, c.matrices(), 32 * int(warps < 8 ? warps : 8), shared, native(stream), c, s);
}
template <class T>
void exponentiate_rows(const Chain<T>& c, const Scaled<T>& s, Stream stream) {
  const int64_t rows = c.batch * c.n, warps = rows < 8 ? rows : 8;
  if (rows > 0)
    simt::launch(chain_rows<T>, pieces(rows, warps), 32 * int(warps), 0, native(stream), c, s, padded<T>(c.k));
}

template <class S>
struct Tag {
  using Type = S;
};
// Calls run(tag, shared bytes) with the source that suits where an item's transition can lie.
template <class T, class F>
void with_source(const Chain<T>& c, size_t own, F&& run) {
  if (c.per_step) return run(Tag<Stepwise<T>>(), own);
  const size_t all = own + array_bytes<T>(int64_t(c.k) * stride_of(c.k));
  if (all <= simt::shared_limit()) return run(Tag<Resident<T>>(), all);
  run(Tag<Cached<T>>(), own);
}
template <class T, int R = 1>
size_t rows_bytes(const Chain<T>& c) {
  return array_bytes<Few<T, R>>(2 * c.k) + array_bytes<Few<T, R>>(2 * kMaxWarps);
}
template <class T>
void forward(const Chain<T>& c, const Scaled<T>& s, const Cut<T>& cut, Stream stream) {
  with_source(c, rows_bytes(c), [&](auto source, size_t shared) {
    simt::launch(chain_forward<T, typename decltype(source)::Type>, c.batch * cut.count, step_threads(c.k), shared,
                 native(stream), c, s, cut, padded<T>(c.k));
  });
}
template <class T>
void backward(const Chain<T>& c, const Scaled<T>& s, const Adjoint<T>& a, const Cut<T>& cut, Stream stream) {
  const size_t own = array_bytes<T>(2 * c.k) + 2 * array_bytes<T>(kMaxWarps);
  with_source(c, own, [&](auto source, size_t shared) {
    simt::launch(chain_backward<T, typename decltype(source)::Type>, c.batch * cut.count, step_threads(c.k), shared,
                 native(stream), c, s, a, cut, padded<T>(c.k));
  });
}
template <class T>
void chunk_products(const Chain<T>& c, const Scaled<T>& s, const Cut<T>& cut, Stream stream) {
  simt::launch(chain_chunk_kinds<T>, c.batch, c.per_step ? 256 : 32, 0, native(stream), c, s, cut);
  with_source(c, rows_bytes<T, kTogether>(c), [&](auto source, size_t shared) {
    simt::launch(chain_chunk_products<T, typename decltype(source)::Type>, c.batch * cut.count * pieces(c.k, kTogether),
                 step_threads(c.k), shared, native(stream), c, s, cut, padded<T>(c.k));
  });
}
template <class T>
void chunk_starts(const Chain<T>& c, const Cut<T>& cut, Stream stream) {
  const size_t shared = 2 * array_bytes<T>(c.k) + array_bytes<T>(kMaxWarps) + array_bytes<double>(kMaxWarps);
  simt::launch(chain_chunk_starts<T>, c.batch, step_threads(c.k), shared, native(stream), c, cut);
}
template <class T>
void chunk_ends(const Chain<T>& c, const Scaled<T>& s, const Cut<T>& cut, Stream stream) {
  const size_t shared = 2 * array_bytes<T>(c.k) + array_bytes<double>(kMaxWarps);
  simt::launch(chain_chunk_ends<T>, c.batch, step_threads(c.k), shared, native(stream), c, s, cut, padded<T>(c.k));
}

template <class T>
int64_t edge_blocks(const Chain<T>& c, const Edges<T>& out) {
  const int64_t side = pieces(c.k, kEdgeTile), steps = !out.per_step ? 1 : c.n > 1 ? c.n - 1 : 0;
  return side * side * steps * out.chunks * out.rows.rows;
}
template <class T>
void edges(const Chain<T>& c, const Scaled<T>& s, const Adjoint<T>& a, const Edges<T>& out, Stream stream) {
  const size_t shared = array_bytes<T>(kEdgeSteps * kEdgeTile) + array_bytes<T>(kEdgeSteps * kEdgeTile);
  simt::launch(c.per_step ? chain_edges<T, true> : chain_edges<T, false>, edge_blocks(c, out), kEdgeSide * kEdgeSide,
               shared, native(stream), c, s, a, out, padded<T>(c.k));
}
template <class T>
void finish_edges(const Chain<T>& c, const Edges<T>& out, T* into, Stream stream) {
  const int64_t size = int64_t(!out.per_step ? 1 : c.n > 1 ? c.n - 1 : 0) * c.k * c.k;
  simt::launch(chain_finish_edges<T>, pieces(out.rows.rows * size, 256), 256, 0, native(stream), out, out.rows.rows,
               size, into);
}
template <class T>
void sum_ends(const Chain<T>& c, const RowMap& rows, const T* unary, bool last, T* out, Stream stream) {
  const size_t shared = array_bytes<double>(256);
  simt::launch(chain_ends<T>, rows.rows * pieces(c.k, 32), 256, shared, native(stream), c, rows, unary, last, out);
}

template <class T>
void log_forward(const Chain<T>& c, const LogSpace<T>& l, double* log_z, T* log_z_narrow, Stream stream) {
  const size_t shared = array_bytes<double>(2 * c.k);
  simt::launch(chain_log_forward<T>, l.count, step_threads(c.k, kLogThreads), shared, native(stream), c, l, log_z,
               log_z_narrow);
}
template <class T>
void log_backward(const Chain<T>& c, const LogSpace<T>& l, const double* weight, T* unary, Stream stream) {
  const size_t shared = array_bytes<double>(c.k) + array_bytes<double>(2 * kMaxWarps);
  simt::launch(chain_log_backward<T>, l.count, step_threads(c.k, kLogThreads), shared, native(stream), c, l, weight,
               unary);
}
template <class T>
void log_edges(const Chain<T>& c, const LogSpace<T>& l, const Edges<T>& out, const double* weight, Stream stream) {
  simt::launch(chain_log_edges<T>, edge_blocks(c, out), kEdgeSide * kEdgeSide, 0, native(stream), c, l, out, weight);
}
template <class T>
void tangent(const Chain<T>& c, const LogSpace<T>& l, const Tangent<T>& v, Stream stream) {
  const size_t shared = array_bytes<double>(2 * c.k) + array_bytes<double>(kMaxWarps);
  simt::launch(chain_tangent<T>, l.count, step_threads(c.k, kLogThreads), shared, native(stream), c, l, v);
}
template <class T>
void tangent_edges(const Chain<T>& c, const LogSpace<T>& l, const Tangent<T>& v, const Edges<T>& out, Stream stream) {
  simt::launch(chain_tangent_edges<T>, edge_blocks(c, out), kEdgeSide * kEdgeSide, 0, native(stream), c, l, v, out);
}

template <class T>
void run_argmax(const Chain<T>& c, int* from, int64_t* states, Stream stream) {
  const size_t own = array_bytes<T>(2 * c.k) + array_bytes<T>(2 * kMaxWarps);
  const size_t all = own + array_bytes<T>(int64_t(c.k) * stride_of(c.k));
  const bool resident = !c.per_step && all <= simt::shared_limit();
  simt::launch(resident ? chain_argmax<T, true> : chain_argmax<T, false>, c.batch, step_threads(c.k),
               resident ? all : own, native(stream), c, from, states);
}
template <class T>
void run_sample(const Chain<T>& c, const Scaled<T>& s, uint64_t seed, int64_t samples, int64_t* states, Stream stream) {
  simt::launch(c.per_step ? chain_sample<T, true> : chain_sample<T, false>, pieces(samples * c.batch, 8), 256, 0,
               native(stream), c, s, seed, samples, states, padded<T>(c.k));
}
template <class T>
void run_log_sample(const Chain<T>& c, const LogSpace<T>& l, uint64_t seed, int64_t samples, int64_t* states,
                    Stream stream) {
  simt::launch(chain_log_sample<T>, pieces(samples * l.count, 8), 256, 0, native(stream), c, l, seed, samples, states);
}

}  // namespace slv::cuda
