// Memory of large results. A training loop asks for charts and gradients of the same sizes again and again, and a fresh
// page can cost more than the numbers written on it: blocks that are dropped are kept for the next results.
#pragma once
#include <cstdint>
#if defined(__linux__)
#include <sys/mman.h>

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
  // A block that has lain unused while so many others were dropped makes room for one that is in use. Sooner, sizes in
  // use that do not fit together would drive each other out and none would be kept.
  static constexpr int64_t kStale = 256;

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
      for (auto at = kept_.end(); at != kept_.begin();) {  // the last one dropped may still be in the cache
        if ((--at)->power != power) continue;
        void* memory = at->memory;
        kept_.erase(at);
        bytes_ -= size(power);
        return memory;
      }
    }
    void* memory = mmap(nullptr, size_t(size(power)), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return nullptr;
#if defined(MADV_HUGEPAGE)
    (void)madvise(memory, size_t(size(power)), MADV_HUGEPAGE);  // a hint: may be refused
#endif
    return memory;
  }
  void drop(void* memory, int power) noexcept {
    std::lock_guard lock(mutex_);
    ++drops_;
    if (size(power) <= kKeep)
      while (bytes_ + size(power) > kKeep && drops_ - kept_.front().dropped > kStale) {
        munmap(kept_.front().memory, size_t(size(kept_.front().power)));
        bytes_ -= size(kept_.front().power);
        kept_.erase(kept_.begin());
      }
    if (!keep(memory, power)) munmap(memory, size_t(size(power)));
  }

 private:
  struct Block {
    void* memory;
    int power;
    int64_t dropped;
  };
  static int64_t size(int power) { return int64_t(1) << power; }
  bool keep(void* memory, int power) noexcept try {
    if (bytes_ + size(power) > kKeep) return false;
    kept_.push_back({memory, power, drops_});
    bytes_ += size(power);
    return true;
  } catch (const std::bad_alloc&) {
    return false;
  }
  std::mutex mutex_;
  int64_t bytes_ = 0, drops_ = 0;
  std::vector<Block> kept_;  // in the order they were dropped; at most kKeep / kLeast
};

#endif

}  // namespace slv
