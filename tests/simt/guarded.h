// Memory of a "GPU" for the drivers: unwritten places are NaN, or a huge integer, and places next to it are watched.
#pragma once
#include <cstring>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#if defined(SLV_PTX)
#include "ptx/device_memory.h"
template <class T>
using DeviceVector = std::vector<T, slv::ptx::Allocator<T>>;
#else
template <class T>
using DeviceVector = std::vector<T>;
#endif

template <class T>
class Guarded {
 public:
  explicit Guarded(int64_t size) : size_(size), data_(size_t(size + 2 * kAround)) {
    if (!data_.empty()) std::memset(static_cast<void*>(data_.data()), kUnwritten, data_.size() * sizeof(T));
  }
  template <class U>
  explicit Guarded(const std::vector<U>& from) : Guarded(int64_t(from.size())) {
    for (size_t i = 0; i < from.size(); i++) data()[i] = T(from[i]);
  }
  T* data() { return data_.data() + kAround; }
  int64_t size() const { return size_; }
  T operator[](int64_t i) { return data()[i]; }
  void check(const char* name) const {
    if (kAround == 0) return;
    std::vector<T> fresh(kAround);
    std::memset(static_cast<void*>(fresh.data()), kUnwritten, kAround * sizeof(T));
    for (const T* side : {data_.data(), data_.data() + kAround + size_})
      if (std::memcmp(side, fresh.data(), kAround * sizeof(T)) != 0)
        throw std::runtime_error(std::string(name) + ": written outside");
  }

 private:
#if defined(__SANITIZE_ADDRESS__) || defined(SLV_PTX)
  static constexpr int64_t kAround = 0;  // they notice reads of the neighbours too
#else
  static constexpr int64_t kAround = 64;
#endif
  static constexpr int kUnwritten = std::is_integral_v<T> ? 0x7e : 0xff;
  int64_t size_;
  DeviceVector<T> data_;
};
