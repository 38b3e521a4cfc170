// The emulator behind csrc/core/simt.h: a fiber for each CUDA thread of a block, one block after the other.
//
// A fiber runs until it waits for others, and which one goes on then is drawn from a seed; so code whose result depends
// on the schedule gives another one under another seed. Checked besides: barriers and warp functions that not all
// threads reach, or reach at different places; shared memory read before it is written (it is filled with NaN),
// written past its end (guard bytes; under ASan every array is an allocation of its own), or larger than the launch
// said. What is found is thrown as std::runtime_error by the launch.
//
// With SLV_TSAN, ThreadSanitizer is told of the fibers, and only barriers order their memory accesses. This file itself
// is then compiled without it.
#include "runtime.h"

#include <sys/mman.h>

#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/simt.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(SLV_TSAN)
extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void* fiber);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void __tsan_acquire(void* address);
void __tsan_release(void* address);
}
#endif
#if !defined(__x86_64__) || defined(SLV_UCONTEXT)
#define SLV_PORTABLE_SWITCH
#include <ucontext.h>
#endif

SimtIndex threadIdx, blockIdx, blockDim, gridDim;

namespace {

using slv::simt::Op;
using slv::simt::Place;

constexpr size_t kStack = 256 * 1024;
#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kGuard = 0;  // ASan sees to it
#else
constexpr size_t kGuard = 64;
#endif
constexpr unsigned char kPoison = 0xff;  // NaN in every float, -1 in every integer

enum class State { kReady, kAtBarrier, kAtWarp, kDone };

struct Fiber {
  State state = State::kReady;
  Op op = Op::kBlock;
  Place place;
  uint64_t word = 0, answer = 0;
  int from = 0;
  bool vote = false;
  size_t taken = 0;  // shared arrays it has asked for
  char* stack = nullptr;
#if defined(SLV_PORTABLE_SWITCH)
  ucontext_t context;
#else
  void* top = nullptr;
#endif
#if defined(__SANITIZE_ADDRESS__)
  void* fake = nullptr;
#endif
#if defined(SLV_TSAN)
  void* tsan = nullptr;
#endif
};

struct Array {
  unsigned char* memory;
  size_t bytes;
  Place place;
};
constexpr size_t kMostArrays = 64;

// Everything of the launch in progress; there is one at a time.
struct Grid {
  uint64_t seed = 0, random = 0, switches = 0;
  size_t limit = 227 * 1024, shared = 0, used = 0;
  std::vector<Fiber> fibers;
  std::vector<char*> stacks;  // kept from launch to launch
  std::vector<unsigned> warp_order, lane_order;
  std::vector<int> waiting;  // threads of each warp at a warp function
  std::vector<Array> arrays;
  size_t alive = 0, at_barrier = 0;
  unsigned current = 0;
  bool vote = false;
  Place barrier;  // where the threads of the block wait
  std::string error;
  void (*body)(void*) = nullptr;
  void* context = nullptr;
  Fiber scheduler;
#if defined(SLV_TSAN)
  std::vector<void*> spent;  // fibers of earlier blocks: kept, so that races between blocks are found
  std::vector<char> warp_tags;
  char block_tag[2] = {}, end_tag = 0;
  int phase = 0;
  unsigned char* slab =
      nullptr;  // shared arrays: no two of a grid at one address, none from an allocator that is watched
  size_t slab_used = 0;
#endif
} grid;

uint64_t draw() {  // xorshift
  uint64_t& x = grid.random;
  x ^= x << 13, x ^= x >> 7, x ^= x << 17;
  return x;
}
void mix(std::vector<unsigned>& order) {
  for (size_t i = order.size(); grid.seed && i > 1; i--) std::swap(order[i - 1], order[draw() % i]);
}
bool same(const Place& a, const Place& b) {
  const char *x = a.file_name(), *y = b.file_name();  // mostly one literal
  return a.line() == b.line() && (x == y || std::strcmp(x, y) == 0);
}
std::vector<unsigned> numbers(int64_t count) {
  std::vector<unsigned> out(count);
  std::iota(out.begin(), out.end(), 0u);
  return out;
}
std::string text(const Place& place) {
  std::string file = place.file_name();
  return file.substr(file.find_last_of('/') + 1) + ":" + std::to_string(place.line());
}

#if !defined(SLV_PORTABLE_SWITCH)
// Saves the registers that a call must keep on this stack and takes up another.
extern "C" void slv_simt_switch(void** from, void* to);
asm(R"(
.text
.globl slv_simt_switch
.hidden slv_simt_switch
.type slv_simt_switch, @function
slv_simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size slv_simt_switch, . - slv_simt_switch
)");
#endif

void switch_between(Fiber& from, Fiber& to) {
  grid.switches++;
#if defined(__SANITIZE_ADDRESS__)
  static const void* own_bottom = nullptr;
  static size_t own_size = 0;
  const bool back = &to == &grid.scheduler;
  __sanitizer_start_switch_fiber(back && from.state == State::kDone ? nullptr : &from.fake,
                                 back ? own_bottom : to.stack, back ? own_size : kStack);
#endif
#if defined(SLV_TSAN)
  __tsan_switch_to_fiber(to.tsan, 1);  // 1: without synchronising
#endif
#if defined(SLV_PORTABLE_SWITCH)
  swapcontext(&from.context, &to.context);
#else
  slv_simt_switch(&from.top, to.top);
#endif
#if defined(__SANITIZE_ADDRESS__)
  const bool home = &from == &grid.scheduler;
  __sanitizer_finish_switch_fiber(from.fake, home ? nullptr : &own_bottom, home ? nullptr : &own_size);
#endif
}
void wait() { switch_between(grid.fibers[grid.current], grid.scheduler); }

[[noreturn]] void fail(const std::string& what, const Place& place) {
  grid.error = "block " + std::to_string(blockIdx.x) + ", thread " + std::to_string(grid.current) + " at " +
               text(place) + ": " + what;
  wait();
  std::abort();  // a failed grid is not resumed
}

void enter() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
  grid.body(grid.context);
#if defined(SLV_TSAN)
  __tsan_release(&grid.end_tag);
#endif
  Fiber& me = grid.fibers[grid.current];
  me.state = State::kDone;
  grid.alive--;
  wait();
  std::abort();
}

#if defined(SLV_TSAN)
constexpr size_t kSlab = size_t(1) << 30;
unsigned char* allocate(size_t bytes) {
  unsigned char* out = grid.slab + grid.slab_used;
  grid.slab_used += (bytes + 63) / 64 * 64;
  if (grid.slab_used > kSlab) throw std::runtime_error("SIMT: no memory for shared arrays");
  return out;
}
void release_arrays() { grid.arrays.clear(); }
#else
unsigned char* allocate(size_t bytes) { return new unsigned char[bytes]; }
void release_arrays() {
  for (const Array& array : grid.arrays) delete[] array.memory;
  grid.arrays.clear();
}
#endif
// Not by memset, which the sanitizers watch.
void fill(volatile unsigned char* memory, size_t bytes) {
  for (size_t i = 0; i < bytes; i++) memory[i] = kPoison;
}

char* stack_of(size_t thread) {
  while (grid.stacks.size() <= thread) {
    void* memory = mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::runtime_error("SIMT: no memory for stacks");
    grid.stacks.push_back(static_cast<char*>(memory));
  }
  return grid.stacks[thread];
}

void begin(Fiber& fiber, size_t thread) {
#if defined(SLV_TSAN)
  void* tsan = __tsan_create_fiber(0);
  grid.spent.push_back(tsan);
  thread = grid.spent.size() - 1;  // no stack serves two fibers of a grid
#endif
  fiber = Fiber();
  fiber.stack = stack_of(thread);
#if defined(SLV_TSAN)
  fiber.tsan = tsan;
#endif
#if defined(SLV_PORTABLE_SWITCH)
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack;
  fiber.context.uc_stack.ss_size = kStack;
  makecontext(&fiber.context, enter, 0);
#else
  void** top = reinterpret_cast<void**>(fiber.stack + kStack);
  *--top = nullptr;  // where enter would return to; it leaves the stack aligned as at a call
  *--top = reinterpret_cast<void*>(&enter);
  for (int i = 0; i < 6; i++) *--top = nullptr;
  fiber.top = top;
#endif
}

// Nobody can go on: who waits for whom?
std::string standstill() {
  const auto of = [](State s) {
    return std::find_if(grid.fibers.begin(), grid.fibers.end(), [s](const Fiber& f) { return f.state == s; });
  };
  const auto end = grid.fibers.end(), warp = of(State::kAtWarp), barrier = of(State::kAtBarrier),
             done = of(State::kDone);
  const auto thread = [](auto f) { return "thread " + std::to_string(f - grid.fibers.begin()); };
  std::string all;
  if (warp != end) all += thread(warp) + " waits for its warp at " + text(warp->place) + "; ";
  if (barrier != end) all += thread(barrier) + " waits at the barrier of " + text(barrier->place) + "; ";
  if (done != end) all += thread(done) + " has left the kernel; ";
  return "block " + std::to_string(blockIdx.x) + ": not all threads arrive: " + all;
}

// Lets the threads of a warp go on, in order once, or by a drawn schedule until all wait or it is interrupted: so some
// warps are far ahead of others. Whether any moved.
bool run_warp(unsigned warp) {
  bool moved = false;
  for (bool again = true; again;) {
    again = false;
    mix(grid.lane_order);
    for (unsigned lane : grid.lane_order) {
      Fiber& fiber = grid.fibers[warp * 32 + lane];
      if (fiber.state != State::kReady) continue;
      moved = again = true;
      grid.current = threadIdx.x = warp * 32 + lane;
      switch_between(grid.scheduler, fiber);
      if (!grid.error.empty()) throw std::runtime_error("SIMT: " + grid.error);
    }
    again = again && grid.seed && draw() % 8 != 0;
  }
  return moved;
}

void run_block(unsigned block) {
  blockIdx.x = block;
  release_arrays();  // of a block that failed
  grid.used = 0;
  for (size_t i = 0; i < grid.fibers.size(); i++) begin(grid.fibers[i], i);
  std::fill(grid.waiting.begin(), grid.waiting.end(), 0);
  grid.alive = grid.fibers.size();
  grid.at_barrier = 0;
  grid.vote = false;
  while (grid.alive) {
    bool moved = false;
    mix(grid.warp_order);
    for (unsigned warp : grid.warp_order) moved = run_warp(warp) || moved;
    if (!moved) throw std::runtime_error("SIMT: " + standstill());
  }
  for (const Array& array : grid.arrays)
    for (size_t i = 0; i < kGuard; i++)
      if (array.memory[array.bytes + i] != kPoison)
        throw std::runtime_error("SIMT: the shared array taken at " + text(array.place) + " was overrun");
  release_arrays();
}

}  // namespace

namespace slv::simt {

void* take_shared(size_t bytes, Place place) {
  Fiber& me = grid.fibers[grid.current];
  const size_t index = me.taken++;
  if (index == grid.arrays.size()) {
    grid.used += (bytes + 15) / 16 * 16;
    if (grid.used > grid.shared)
      fail("takes " + std::to_string(grid.used) + " bytes of shared memory, launched with " +
               std::to_string(grid.shared),
           place);
    if (index == kMostArrays) fail("takes too many shared arrays", place);
    grid.arrays.push_back({allocate(bytes + kGuard), bytes, place});
    fill(grid.arrays.back().memory, bytes + kGuard);
  }
  const Array& array = grid.arrays[index];
  if (array.bytes != bytes) fail("other threads take a shared array of another size here", place);
  return array.memory;
}

bool block_barrier(bool mine, Place place) {
  Fiber& me = grid.fibers[grid.current];
#if defined(SLV_TSAN)
  char* tag = &grid.block_tag[grid.phase];
  __tsan_release(tag);
#endif
  if (grid.at_barrier == 0) grid.barrier = place;
  if (!same(grid.barrier, place))
    fail("a barrier in divergent code: another thread is at that of " + text(grid.barrier), place);
  grid.vote |= mine;
  me.place = place;
  me.state = State::kAtBarrier;
  if (++grid.at_barrier == grid.fibers.size()) {
    for (Fiber& fiber : grid.fibers) fiber.state = State::kReady, fiber.vote = grid.vote;
    grid.at_barrier = 0;
    grid.vote = false;
#if defined(SLV_TSAN)
    grid.phase ^= 1;
#endif
  }
  wait();
#if defined(SLV_TSAN)
  __tsan_acquire(tag);
#endif
  return me.vote;
}

uint64_t warp_exchange(Op op, uint64_t word, int from, Place place) {
  Fiber& me = grid.fibers[grid.current];
  const unsigned warp = grid.current / 32;
  Fiber* lanes = &grid.fibers[warp * 32];
#if defined(SLV_TSAN)
  char* tag = &grid.warp_tags[warp];
  if (op == Op::kWarp) __tsan_release(tag);
#endif
  for (int lane = 0; lane < 32; lane++)
    if (lanes[lane].state == State::kAtWarp) {
      if (lanes[lane].op != op || !same(lanes[lane].place, place))
        fail("a warp function in divergent code: lane " + std::to_string(lane) + " is at " + text(lanes[lane].place),
             place);
      break;
    }
  me.op = op, me.word = word, me.from = from, me.place = place;
  me.state = State::kAtWarp;
  if (++grid.waiting[warp] == 32) {
    uint64_t votes = 0;
    for (int lane = 0; lane < 32; lane++) votes |= uint64_t(lanes[lane].word != 0) << lane;
    for (int lane = 0; lane < 32; lane++) {
      lanes[lane].answer = op == Op::kBallot ? votes : lanes[lanes[lane].from & 31].word;
      lanes[lane].state = State::kReady;
    }
    grid.waiting[warp] = 0;
  }
  wait();
#if defined(SLV_TSAN)
  if (op == Op::kWarp) __tsan_acquire(tag);
#endif
  return me.answer;
}

void run(int64_t blocks, int threads, size_t shared, void (*body)(void*), void* context) {
  if (blocks == 0) return;
  if (threads < 32 || threads > 1024 || threads % 32)
    throw std::runtime_error("SIMT: a block of " + std::to_string(threads) + " threads");
  if (shared > grid.limit)
    throw std::runtime_error("SIMT: a block of " + std::to_string(shared) + " bytes of shared memory");
  grid.body = body, grid.context = context, grid.shared = shared;
  grid.error.clear();
  grid.random = grid.seed * 0x9E3779B97F4A7C15u;
  grid.fibers.resize(threads);
  grid.waiting.assign(threads / 32, 0);
  grid.warp_order = numbers(threads / 32), grid.lane_order = numbers(32);
  blockDim.x = unsigned(threads), gridDim.x = unsigned(blocks);
#if defined(SLV_TSAN)
  grid.scheduler.tsan = __tsan_get_current_fiber();
  if (!grid.slab)
    grid.slab = static_cast<unsigned char*>(
        mmap(nullptr, kSlab, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  grid.slab_used = 0;
  grid.warp_tags.assign(threads / 32, 0);
#endif
  grid.arrays.reserve(kMostArrays);
  std::vector<unsigned> order = numbers(blocks);
  mix(order);
  for (unsigned block : order) run_block(block);
  release_arrays();
#if defined(SLV_TSAN)
  __tsan_acquire(&grid.end_tag);
  for (void* fiber : grid.spent) __tsan_destroy_fiber(fiber);
  grid.spent.clear();
#endif
}

size_t shared_limit() { return grid.limit; }
void poison(void* memory, size_t bytes, bool integers) { std::memset(memory, integers ? 0x7e : kPoison, bytes); }

}  // namespace slv::simt

void slv_simt_configure(uint64_t seed, size_t limit) { grid.seed = seed, grid.limit = limit; }
uint64_t slv_simt_switches() { return grid.switches; }
