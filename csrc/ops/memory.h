// Memory of large results. A training loop asks for charts and gradients of the same sizes again and again, and a fresh
// page can cost more than the numbers written on it: blocks that are dropped are kept for the next results.
#pragma once
#include <cstdint>
#if defined(__linux__)
#include <sys/mman.h>

#include <array>
#include <bit>
#include <mutex>
#include <new>
#include <vector>
#endif

namespace slv {

// A chart is written and read again at once: it is given memory that is still in the cache, a chart's.
enum class Purpose { result, chart };

#if defined(__linux__)

class LargeBlocks {
 public:
  static constexpr int64_t kLeast = int64_t(1) << 20, kKeep = int64_t(64) << 20;  // bytes; what is kept, together

  // Never destroyed: a tensor may be dropped after everything else.
  static LargeBlocks& all(Purpose purpose) {
    static auto* blocks = new LargeBlocks[2];
    return blocks[int(purpose)];
  }
  // Blocks have 2^power bytes; what of them is never written takes no memory.
  static int power_for(int64_t bytes) { return std::bit_width(uint64_t(bytes) - 1); }

  void* take(int power) {  // or null
    {
      std::lock_guard lock(mutex_);
      if (auto& kept = blocks_[power]; !kept.empty()) {
        void* block = kept.back();
        kept.pop_back();
        bytes_ -= size(power);
        return block;
      }
    }
    void* block = mmap(nullptr, size_t(size(power)), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (block == MAP_FAILED) return nullptr;
#if defined(MADV_HUGEPAGE)
    (void)madvise(block, size_t(size(power)), MADV_HUGEPAGE);  // a hint: may be refused
#endif
    return block;
  }
  void drop(void* block, int power) noexcept {
    {
      std::lock_guard lock(mutex_);
      if (keep(block, power)) return;
    }
    munmap(block, size_t(size(power)));
  }

 private:
  static int64_t size(int power) { return int64_t(1) << power; }
  bool keep(void* block, int power) noexcept try {
    if (bytes_ + size(power) > kKeep) return false;
    blocks_[power].push_back(block);
    bytes_ += size(power);
    return true;
  } catch (const std::bad_alloc&) {
    return false;
  }
  std::mutex mutex_;
  int64_t bytes_ = 0;
  std::array<std::vector<void*>, 63> blocks_;
};

#endif

}  // namespace slv
