// What a kernel source (csrc/cuda/*.cuh) may use of CUDA: real CUDA under nvcc; with SLV_EMULATE the same names run on
// the CPU, a fiber for each CUDA thread, under the runtime of tests/simt, which checks what hardware leaves undefined.
//
// Rules for kernels: blocks of whole warps, warp functions by whole warps; shared memory through `Shared` alone; no
// atomics; no inline PTX; nothing that waits for another block.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#define SLV_BOTH __host__ __device__
#define SLV_DEVICE __device__ __forceinline__
#define SLV_KERNEL(threads) __global__ void __launch_bounds__(threads, 1)
#define SLV_UNROLL _Pragma("unroll")
#define SLV_UNROLL_TWICE _Pragma("unroll 2")
#define SLV_NO_UNROLL _Pragma("unroll 1")

namespace slv::simt {

using Stream = cudaStream_t;

// Hands out a block's dynamic shared memory; every thread makes the same calls.
class Shared {
 public:
  SLV_DEVICE Shared() {
    extern __shared__ __align__(16) unsigned char memory[];
    next_ = memory;
  }
  template <class T>
  SLV_DEVICE T* take(int count) {
    T* out = reinterpret_cast<T*>(next_);
    next_ += (size_t(count) * sizeof(T) + 15) / 16 * 16;
    return out;
  }

 private:
  unsigned char* next_;
};

SLV_DEVICE void sync_block() { __syncthreads(); }
SLV_DEVICE bool sync_block_or(bool mine) { return __syncthreads_or(mine) != 0; }
SLV_DEVICE void sync_warp() { __syncwarp(); }
template <class T>
SLV_DEVICE T shuffle(T value, int lane) {
  return __shfl_sync(0xffffffffu, value, lane);
}
template <class T>
SLV_DEVICE T shuffle_xor(T value, int mask) {
  return __shfl_xor_sync(0xffffffffu, value, mask);
}
// From `delta` lanes below; below the first lane comes the lane's own value.
template <class T>
SLV_DEVICE T shuffle_up(T value, int delta) {
  return __shfl_up_sync(0xffffffffu, value, unsigned(delta));
}
SLV_DEVICE uint32_t ballot(bool mine) { return __ballot_sync(0xffffffffu, mine); }
SLV_DEVICE int first_of(uint32_t lanes) { return __ffs(int(lanes)) - 1; }
SLV_DEVICE int last_of(uint32_t lanes) { return 31 - __clz(int(lanes)); }
SLV_DEVICE int count_of(uint32_t lanes) { return __popc(lanes); }

inline void require(cudaError_t error, const char* what) {
  if (error != cudaSuccess)
    throw std::runtime_error(std::string("structlv: ") + what + ": " + cudaGetErrorString(error));
}
// Bytes of shared memory that a block of the current device may have.
inline size_t shared_limit() {
  int device = 0, bytes = 0;
  require(cudaGetDevice(&device), "cudaGetDevice");
  require(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), "cudaDeviceGetAttribute");
  return size_t(bytes);
}
template <class... P, class... A>
void launch(void (*kernel)(P...), int64_t blocks, int threads, size_t shared, Stream stream, const A&... arguments) {
  if (blocks == 0) return;
  if (blocks > INT32_MAX) throw std::runtime_error("structlv: more than 2^31 - 1 blocks of threads are needed");
  if (shared > 48 * 1024)
    require(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared)), "shared memory");
  kernel<<<unsigned(blocks), unsigned(threads), shared, stream>>>(arguments...);
  require(cudaGetLastError(), "launch of a kernel");
}

}  // namespace slv::simt

#elif defined(SLV_EMULATE)

#include <bit>
#include <source_location>
#include <type_traits>

#define SLV_BOTH
#define SLV_DEVICE inline
#define SLV_KERNEL(threads) void
#define SLV_UNROLL
#define SLV_UNROLL_TWICE
#define SLV_NO_UNROLL

// The runtime sets these before a thread goes on.
struct SimtIndex {
  unsigned x;
};
extern SimtIndex threadIdx, blockIdx, blockDim, gridDim;

namespace slv::simt {

using Stream = void*;
using Place = std::source_location;

enum class Op { kBlock, kWarp, kShuffle, kBallot };
void* take_shared(size_t bytes, Place place);
bool block_barrier(bool mine, Place place);
// What lane `from` brought to the same call; for kBallot, a bit for each lane that brought a nonzero word.
uint64_t warp_exchange(Op op, uint64_t word, int from, Place place);
void run(int64_t blocks, int threads, size_t shared, void (*body)(void*), void* context);
size_t shared_limit();
void poison(void* memory, size_t bytes, bool integers);

class Shared {
 public:
  template <class T>
  T* take(int count, Place place = Place::current()) {
    return static_cast<T*>(take_shared(size_t(count) * sizeof(T), place));
  }
};

inline int own_lane() { return int(threadIdx.x & 31); }
template <class T>
T exchange(T value, int from, Place place) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
  uint64_t word = 0;
  std::memcpy(&word, &value, sizeof(T));
  word = warp_exchange(Op::kShuffle, word, from, place);
  std::memcpy(&value, &word, sizeof(T));
  return value;
}
inline void sync_block(Place place = Place::current()) { block_barrier(false, place); }
inline bool sync_block_or(bool mine, Place place = Place::current()) { return block_barrier(mine, place); }
inline void sync_warp(Place place = Place::current()) { warp_exchange(Op::kWarp, 0, 0, place); }
template <class T>
T shuffle(T value, int lane, Place place = Place::current()) {
  return exchange(value, lane & 31, place);
}
template <class T>
T shuffle_xor(T value, int mask, Place place = Place::current()) {
  return exchange(value, own_lane() ^ mask, place);
}
template <class T>
T shuffle_up(T value, int delta, Place place = Place::current()) {
  return exchange(value, own_lane() < delta ? own_lane() : own_lane() - delta, place);
}
inline uint32_t ballot(bool mine, Place place = Place::current()) {
  return uint32_t(warp_exchange(Op::kBallot, mine, 0, place));
}
inline int first_of(uint32_t lanes) { return lanes ? std::countr_zero(lanes) : -1; }
inline int last_of(uint32_t lanes) { return 31 - std::countl_zero(lanes); }
inline int count_of(uint32_t lanes) { return std::popcount(lanes); }

template <class... P, class... A>
void launch(void (*kernel)(P...), int64_t blocks, int threads, size_t shared, Stream, const A&... arguments) {
  auto body = [&] { kernel(arguments...); };
  run(blocks, threads, shared, [](void* f) { (*static_cast<decltype(body)*>(f))(); }, &body);
}

}  // namespace slv::simt

#else  // a host source that knows the kernels by their launches alone

#define SLV_BOTH
#define SLV_UNROLL
#define SLV_UNROLL_TWICE
#define SLV_NO_UNROLL

#endif

namespace slv::simt {

// Bytes of shared memory that one call of Shared::take uses.
template <class T>
size_t array_bytes(int64_t count) {
  return (size_t(count) * sizeof(T) + 15) / 16 * 16;
}

}  // namespace slv::simt
