// How many blocks, threads and bytes of shared memory each kernel of the factorial chain gets: a function of the
// problem and of the device's shared memory alone, which never changes an order of summation.
#pragma once
#include "cuda/factorial_adjoint.cuh"
#include "cuda/factorial_edges.cuh"
#include "cuda/factorial_search.cuh"
#include "cuda/factorial_sums.cuh"
#include "cuda/factorial_tangent.cuh"

namespace slv::cuda {

using simt::array_bytes;

inline simt::Stream joint_stream(Stream stream) { return static_cast<simt::Stream>(stream); }
// A thread for every joint state, as far as a block goes.
template <class T>
int joint_threads(const Factorial<T>& c) {
  return c.states < kLogThreads ? (c.states + 31) / 32 * 32 : kLogThreads;
}

// Bytes of shared memory of a block with `size` elements of A for its item, and what does not fit there.
template <class A>
size_t own_bytes() {
  return array_bytes<A>(2 * kMaxWarps) + array_bytes<int>(2 * kMaxWarps);
}
template <class A>
int64_t spill_of(int64_t size) {
  return own_bytes<A>() + array_bytes<A>(size) <= simt::shared_limit() ? 0 : size;
}
template <class A>
size_t block_bytes(int64_t size, bool spilled) {
  return own_bytes<A>() + (spilled ? 0 : array_bytes<A>(size));
}
template <class T>
int64_t factorial_forward_spill(const Factorial<T>& c) {
  return spill_of<double>(forward_size(c));
}
template <class T>
int64_t factorial_backward_spill(const Factorial<T>& c) {
  return spill_of<double>(backward_size(c));
}
template <class T>
int64_t factorial_tangent_spill(const Factorial<T>& c) {
  return spill_of<double>(tangent_size(c));
}
template <class T>
int64_t factorial_argmax_spill(const Factorial<T>& c) {
  return spill_of<T>(forward_size(c));
}
template <class T>
int64_t factorial_partial_size(const Factorial<T>& c) {
  return partial_size(c, joint_threads(c) / 32);
}

// ---- the scaled domain ------------------------------------------------------------------------------------------

template <class T>
int64_t factorial_scan_spill(const Factorial<T>& c) {
  return spill_of<T>(scan_size(c));
}
template <class T>
int64_t factorial_edges_spill(const Factorial<T>& c) {
  return spill_of<T>(edges_size(c, scan_threads(c)));
}
template <class T>
int factorial_pieces(const Factorial<T>& c) {
  return edge_pieces(c);
}
template <class T>
void run_prepare(const Factorial<T>& c, const JointScaled<T>& s, Stream stream) {
  simt::launch(factorial_prepare<T>, c.matrix.rows, 256, array_bytes<T>(2 * kMaxWarps), joint_stream(stream), c, s);
}
template <class T>
void run_rows(const Factorial<T>& c, const JointScaled<T>& s, Stream stream) {
  simt::launch(factorial_rows<T>, (c.batch * c.n + 7) / 8, 256, 0, joint_stream(stream), c, s);
}
// Launches body(bytes of shared memory, whether an item's matrices have room in it) for a workspace of `size` and
// `copies` of the matrices.
template <class T, class F>
void with_room(const Factorial<T>& c, const ItemRange<T>& range, int64_t size, int copies, F&& body) {
  const size_t own = block_bytes<T>(size, range.spill), all = own + copies * array_bytes<T>(c.padded);
  const bool room = !range.spill && all <= simt::shared_limit();
  body(room ? all : own, room);
}
template <class T>
void run_scan(const Factorial<T>& c, const JointScaled<T>& s, const ItemRange<T>& range, double* log_z, T* log_z_narrow,
              Stream stream) {
  with_room(c, range, scan_size(c), 1, [&](size_t shared, bool room) {
    simt::launch(factorial_scan<T>, range.count, scan_threads(c), shared, joint_stream(stream), c, s, range, room,
                 log_z, log_z_narrow);
  });
}
template <class T>
void run_adjoint(const Factorial<T>& c, const JointScaled<T>& s, const ItemRange<T>& range, const JointAdjoint<T>& a,
                 Stream stream) {
  with_room(c, range, scan_size(c), 1, [&](size_t shared, bool room) {
    simt::launch(factorial_adjoint<T>, range.count, scan_threads(c), shared, joint_stream(stream), c, s, range, room,
                 a);
  });
}
template <class T>
void run_edges(const Factorial<T>& c, const JointScaled<T>& s, const ItemRange<T>& range, const JointAdjoint<T>& a,
               const JointPosterior<T>& out, Stream stream) {
  with_room(c, range, edges_size(c, scan_threads(c)), 2, [&](size_t shared, bool room) {
    simt::launch(factorial_edges<T>, range.count * out.pieces, scan_threads(c), shared, joint_stream(stream), c, s,
                 range, room, a, out);
  });
}

// ---- log space --------------------------------------------------------------------------------------------------

template <class T>
void run_forward(const Factorial<T>& c, const Beginnings& s, double* log_z, T* log_z_narrow, Stream stream) {
  simt::launch(factorial_forward<T>, s.count, joint_threads(c), block_bytes<double>(forward_size(c), s.spill),
               joint_stream(stream), c, s, log_z, log_z_narrow);
}
template <class T>
void run_backward(const Factorial<T>& c, const Beginnings& s, const JointPosterior<T>& out, Stream stream) {
  simt::launch(factorial_backward<T>, s.count, joint_threads(c), block_bytes<double>(backward_size(c), s.spill),
               joint_stream(stream), c, s, out);
}
template <class T>
void run_tangent(const Factorial<T>& c, const Beginnings& s, const Direction<T>& v, const JointPosterior<T>& out,
                 Stream stream) {
  simt::launch(factorial_tangent<T>, s.count, joint_threads(c), block_bytes<double>(tangent_size(c), s.spill),
               joint_stream(stream), c, s, v, out);
}
template <class T>
void run_sum_edges(const Factorial<T>& c, const Beginnings& s, const RowMap& rows, const double* counts, int pieces,
                   double* sums, T* out, Stream stream) {
  simt::launch(factorial_sum_edges<T>, int64_t(rows.rows) * ((c.edges + 31) / 32), 256, array_bytes<double>(256),
               joint_stream(stream), c, s, rows, counts, pieces, sums, out);
}
template <class T>
void run_sum_starts(const Factorial<T>& c, const RowMap& rows, const T* unary, T* out, Stream stream) {
  simt::launch(factorial_sum_starts<T>, int64_t(rows.rows) * c.ends, 256, array_bytes<double>(kMaxWarps),
               joint_stream(stream), c, rows, unary, out);
}
template <class T>
void run_argmax(const Factorial<T>& c, int64_t first, int64_t count, T* best, T* spill, int64_t* states,
                Stream stream) {
  simt::launch(factorial_argmax<T>, count, joint_threads(c), block_bytes<T>(forward_size(c), spill),
               joint_stream(stream), c, first, best, spill, states);
}
template <class T>
void run_sample(const Factorial<T>& c, const JointScaled<T>& s, uint64_t seed, int64_t samples, int64_t* states,
                Stream stream) {
  simt::launch(factorial_sample<T>, (samples * c.batch + 7) / 8, 256, 0, joint_stream(stream), c, s, seed, samples,
               states);
}
template <class T>
void run_log_sample(const Factorial<T>& c, const Beginnings& s, uint64_t seed, int64_t samples, int64_t* states,
                    Stream stream) {
  simt::launch(factorial_log_sample<T>, (samples * s.count + 7) / 8, 256, 0, joint_stream(stream), c, s, seed, samples,
               states);
}

}  // namespace slv::cuda
