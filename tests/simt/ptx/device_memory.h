// Memory of the "GPU" on which PTX is interpreted: the host's, but the interpreter is told of every array.
#pragma once
#include <cstddef>
#include <new>

#pragma GCC visibility push(default)
extern "C" {
void slv_ptx_allocated(const void* begin, size_t bytes);
void slv_ptx_freed(const void* begin);
}
#pragma GCC visibility pop

namespace slv::ptx {

template <class T>
struct Allocator {
  using value_type = T;
  static constexpr std::align_val_t kAlignment{256};  // as cudaMalloc's
  Allocator() = default;
  template <class U>
  Allocator(const Allocator<U>&) {}
  T* allocate(size_t count) {
    void* memory = ::operator new(count * sizeof(T), kAlignment);
    slv_ptx_allocated(memory, count * sizeof(T));
    return static_cast<T*>(memory);
  }
  void deallocate(T* memory, size_t) {
    slv_ptx_freed(memory);
    ::operator delete(memory, kAlignment);
  }
  bool operator==(const Allocator&) const = default;
};

}  // namespace slv::ptx
