// Memory for kernels: aligned to a cache line, grown and kept per thread, so that a call in a training loop allocates
// nothing.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <vector>
#if defined(__SANITIZE_ADDRESS__)
#include <algorithm>
#endif

namespace slv {
namespace {

// A vector whose member functions are this translation unit's own: those of std::vector<double> have one copy for all
// instruction sets.
template <class T>
struct LocalAllocator : std::allocator<T> {
  LocalAllocator() = default;
  template <class U>
  LocalAllocator(const LocalAllocator<U>&) noexcept {}
};
template <class T>
using Vector = std::vector<T, LocalAllocator<T>>;
using Doubles = Vector<double>;

template <class T>
class Buffer {
 public:
  explicit Buffer(int64_t n = 0) { reserve(n); }
  ~Buffer() { release(); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  T* reserve(int64_t n) {  // contents are lost when it grows
    if (n > size_) {
      release();
      data_ = static_cast<T*>(::operator new(n * sizeof(T), std::align_val_t(64)));
      size_ = n;
    }
    return data_;
  }
  void release() {
    if (data_) ::operator delete(data_, std::align_val_t(64));
    data_ = nullptr;
    size_ = 0;
  }
  T* data() const { return data_; }
  int64_t size() const { return size_; }

 private:
  T* data_ = nullptr;
  int64_t size_ = 0;
};

// A stack of allocations out of one buffer of the calling thread: `Scratch s; float* x = s.take<float>(n);`
class Scratch {
 public:
  explicit Scratch(int64_t bytes) : owner_(!arena().busy) {
    next_ = (owner_ ? arena().memory : mine_).reserve(bytes);  // may throw, so nothing is marked as taken before
    end_ = next_ + bytes;
    if (owner_) arena().busy = true;
  }
  ~Scratch() {
    if (!owner_) return;
    arena().busy = false;
    if (arena().memory.size() > kKeep) arena().memory.release();
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  template <class T>
  T* take(int64_t n) {
    T* p = reinterpret_cast<T*>(next_);
    next_ += bytes<T>(n);
    return isolated(p, n);
  }
  // What was taken since `mark` is free again.
  char* mark() const { return next_; }
  void release(char* mark) { next_ = mark; }
  template <class T>
  static int64_t bytes(int64_t n) {
    return (n * int64_t(sizeof(T)) + 63) / 64 * 64;
  }

 private:
  static constexpr int64_t kKeep = int64_t(64) << 20;
  struct Arena {
    Buffer<char> memory;
    bool busy = false;
  };
  static Arena& arena() {
    static thread_local Arena a;
    return a;
  }
  // Under AddressSanitizer each piece is an allocation of exactly its size, full of NaN, so that an overrun and a read
  // of what was never written are seen.
#if defined(__SANITIZE_ADDRESS__)
  std::vector<std::unique_ptr<Buffer<char>>> pieces_;
  template <class T>
  T* isolated(T*, int64_t n) {
    if (next_ > end_) __builtin_trap();  // more was taken than was asked for
    const int64_t size = n * int64_t(sizeof(T));
    pieces_.push_back(std::make_unique<Buffer<char>>(size));
    std::fill_n(pieces_.back()->data(), size, char(-1));
    return reinterpret_cast<T*>(pieces_.back()->data());
  }
#else
  template <class T>
  T* isolated(T* p, int64_t) {
    return p;
  }
#endif
  const bool owner_;
  Buffer<char> mine_;
  char *next_ = nullptr, *end_ = nullptr;
};

}  // namespace
}  // namespace slv
