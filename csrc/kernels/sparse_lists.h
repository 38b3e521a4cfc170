// Containers of the sparse PCFG. They lie in an anonymous namespace, unlike those of the standard library, so that no
// instruction set's copy of them can serve another.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <new>
#include <type_traits>
#include <utility>

#include "core/buffer.h"

namespace slv {
namespace {

// An array that grows and keeps its contents.
template <class T>
class Pile {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  Pile() = default;
  Pile(int64_t n, T fill) { resize(n, fill); }
  Pile(Pile&& o) noexcept { swap(o); }
  Pile& operator=(Pile&& o) noexcept {
    swap(o);
    return *this;
  }
  ~Pile() {
    if (data_) ::operator delete(data_, std::align_val_t(64));
  }
  void swap(Pile& o) { std::swap(data_, o.data_), std::swap(size_, o.size_), std::swap(room_, o.room_); }
  void resize(int64_t n, T fill) {
    reserve(n);
    if (n > size_) std::fill(data_ + size_, data_ + n, fill);
    size_ = n;
  }
  void truncate(int64_t n) { size_ = n; }
  void push(T x) {
    if (size_ == room_) reserve(std::max<int64_t>(16, 2 * room_));
    data_[size_++] = x;
  }
  T pop() { return data_[--size_]; }
  int64_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  T* data() { return data_; }
  T* begin() { return data_; }
  T* end() { return data_ + size_; }
  T& back() { return data_[size_ - 1]; }
  T& operator[](int64_t i) { return data_[i]; }
  const T& operator[](int64_t i) const { return data_[i]; }

 private:
  void reserve(int64_t n) {
    if (n <= room_) return;
    if (n > std::numeric_limits<int32_t>::max()) throw std::bad_alloc();  // entries are numbered in 32 bits
    T* more = static_cast<T*>(::operator new(n * sizeof(T), std::align_val_t(64)));
    if (size_) std::memcpy(static_cast<void*>(more), data_, size_ * sizeof(T));
    if (data_) ::operator delete(data_, std::align_val_t(64));
    data_ = more, room_ = n;
  }
  T* data_ = nullptr;
  int64_t size_ = 0, room_ = 0;
};

// A set of places, emptied in ascending order; higher places may be added on the way.
class LiveSet {
 public:
  explicit LiveSet(int64_t n) : words_((n + 63) / 64, 0) {}
  void set(int64_t i) { words_[i >> 6] |= uint64_t(1) << (i & 63); }
  bool has(int64_t i) const { return words_[i >> 6] >> (i & 63) & 1; }
  template <class F>
  void drain(F&& f) {
    for (int64_t w = 0; w < words_.size(); w++)
      while (words_[w]) {
        const int64_t i = w * 64 + __builtin_ctzll(words_[w]);
        words_[w] &= words_[w] - 1;
        f(i);
      }
  }

 private:
  Pile<uint64_t> words_;
};

}  // namespace
}  // namespace slv
