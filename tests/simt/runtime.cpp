// The emulator behind csrc/core/simt.h: a fiber for each CUDA thread, a few blocks at once.
//
// A fiber runs until it waits for others, and which one goes on then is drawn from a seed; so code whose result depends
// on the schedule gives another one under another seed. Under seed 0 all goes in order, one block after the other.
// Checked besides: barriers and warp functions that not all threads reach, or reach at different places; shared memory
// read before it is written (it is filled with NaN or large numbers), written past its end (guard bytes; under ASan
// every array is an allocation of its own), or larger than the launch said. What is found is thrown as
// std::runtime_error by the launch.
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
// What shared memory is full of at first, and what is behind it: NaN in every float and -1 in every integer, or under
// some seeds numbers, as a check may take NaN for something else.
constexpr unsigned char kNotNumbers = 0xff, kNumbers = 0x7e;

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
// Blocks that run at once, and see what the others do to memory that they share. ThreadSanitizer believes that two are
// ordered of which one begins where the other ended: so it has as many as the threads that it bears (some 8,000) allow.
// It follows 255 threads at a time: of more, one that takes another's place counts as ordered after it, so that two
// blocks are told apart until the next barrier of the later one.
#if defined(SLV_TSAN)
constexpr size_t kResident = 16, kMostThreads = 6144;
#else
constexpr size_t kResident = 3, kMostThreads = kResident * 1024;
#endif

// A block that runs.
struct Block {
  unsigned index = 0;
  std::vector<Fiber> fibers;
  std::vector<int> waiting;  // threads of each warp at a warp function
  std::vector<Array> arrays;
  size_t used = 0, alive = 0, at_barrier = 0;
  bool vote = false;
  Place barrier;  // where its threads wait
#if defined(SLV_TSAN)
  // its own tags: two by turns of its barriers, then of each warp, as some threads come to the next one before others
  // have left the last
  char* tags = nullptr;
  int phase = 0;
  std::vector<int> warp_phases;
#endif
};

// Everything of the launch in progress; there is one at a time.
struct Grid {
  uint64_t seed = 0, random = 0, switches = 0;
  size_t limit = 227 * 1024, shared = 0;
  std::vector<Block> blocks;  // kept from launch to launch, as the stacks are
  std::vector<char*> stacks;
  std::vector<unsigned> warp_order, lane_order;
  Block* block = nullptr;  // the one that runs now, and its thread
  unsigned current = 0;
  std::string error;
  void (*body)(void*) = nullptr;
  void* context = nullptr;
  Fiber scheduler;
  unsigned char poison() const { return seed % 3 == 2 ? kNumbers : kNotNumbers; }
  Fiber& fiber() { return block->fibers[current]; }
#if defined(SLV_TSAN)
  std::vector<void*> tsan;  // what it knows of the fibers: kept, as they take longer to make than to run
  std::vector<char> tags;
  char begin_tag = 0, end_tag = 0;
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
void wait() { switch_between(grid.fiber(), grid.scheduler); }

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
#if defined(SLV_TSAN)
  __tsan_acquire(&grid.begin_tag);
#endif
  grid.body(grid.context);
#if defined(SLV_TSAN)
  __tsan_release(&grid.end_tag);
#endif
  grid.fiber().state = State::kDone;
  grid.block->alive--;
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
void release_arrays(Block& block) { block.arrays.clear(); }
#else
unsigned char* allocate(size_t bytes) { return new unsigned char[bytes]; }
void release_arrays(Block& block) {
  for (const Array& array : block.arrays) delete[] array.memory;
  block.arrays.clear();
}
#endif
// Not by memset, which the sanitizers watch.
void fill(volatile unsigned char* memory, size_t bytes) {
  for (size_t i = 0; i < bytes; i++) memory[i] = grid.poison();
}

void* map(size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::runtime_error("SIMT: no memory for stacks and shared arrays");
  return memory;
}
char* stack_of(size_t thread) {
  while (grid.stacks.size() <= thread) {
    grid.stacks.push_back(static_cast<char*>(map(kStack)));
  }
  return grid.stacks[thread];
}

void begin(Fiber& fiber, size_t thread) {
  fiber = Fiber();
  fiber.stack = stack_of(thread);
#if defined(SLV_TSAN)
  while (grid.tsan.size() <= thread) grid.tsan.push_back(__tsan_create_fiber(0));
  fiber.tsan = grid.tsan[thread];
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

// Nobody of a block can go on: who waits for whom?
std::string standstill(const Block& block) {
  const auto of = [&](State s) {
    return std::find_if(block.fibers.begin(), block.fibers.end(), [s](const Fiber& f) { return f.state == s; });
  };
  const auto end = block.fibers.end(), warp = of(State::kAtWarp), barrier = of(State::kAtBarrier),
             done = of(State::kDone);
  const auto thread = [&](auto f) { return "thread " + std::to_string(f - block.fibers.begin()); };
  std::string all;
  if (warp != end) all += thread(warp) + " waits for its warp at " + text(warp->place) + "; ";
  if (barrier != end) all += thread(barrier) + " waits at the barrier of " + text(barrier->place) + "; ";
  if (done != end) all += thread(done) + " has left the kernel; ";
  return "block " + std::to_string(block.index) + ": not all threads arrive: " + all;
}

// Lets the threads of a warp go on, in order once, or by a drawn schedule until all wait or it is interrupted: so some
// warps are far ahead of others. Whether any moved.
bool run_warp(Block& block, unsigned warp) {
  bool moved = false;
  for (bool again = true; again;) {
    again = false;
    mix(grid.lane_order);
    for (unsigned lane : grid.lane_order) {
      Fiber& fiber = block.fibers[warp * 32 + lane];
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

void begin(Block& block, unsigned index, int threads) {
  block.index = index;
  block.fibers.resize(threads);
  const size_t first = (&block - grid.blocks.data()) * threads;
  for (size_t i = 0; i < block.fibers.size(); i++) begin(block.fibers[i], first + i);
  block.waiting.assign(threads / 32, 0);
  block.used = block.at_barrier = 0;
  block.alive = threads;
  block.vote = false;
#if defined(SLV_TSAN)
  block.tags = &grid.tags[index * size_t(2 + 2 * (threads / 32))];
  block.phase = 0;
  block.warp_phases.assign(threads / 32, 0);
#endif
}
// Lets each warp of a block go on; likewise in order once, or a drawn number of times.
void run_block(Block& block) {
  grid.block = &block;
  blockIdx.x = block.index;
  do {
    bool moved = false;
    mix(grid.warp_order);
    for (unsigned warp : grid.warp_order) moved = run_warp(block, warp) || moved;
    if (!moved) throw std::runtime_error("SIMT: " + standstill(block));
  } while (block.alive && grid.seed && draw() % 2);
}
void finish(Block& block) {
  for (const Array& array : block.arrays)
    for (size_t i = 0; i < kGuard; i++)
      if (array.memory[array.bytes + i] != grid.poison())
        throw std::runtime_error("SIMT: the shared array taken at " + text(array.place) + " was overrun");
  release_arrays(block);
}

}  // namespace

namespace slv::simt {

void* take_shared(size_t bytes, Place place) {
  Block& block = *grid.block;
  const size_t index = grid.fiber().taken++;
  if (index == block.arrays.size()) {
    block.used += (bytes + 15) / 16 * 16;
    if (block.used > grid.shared)
      fail("takes " + std::to_string(block.used) + " bytes of shared memory, launched with " +
               std::to_string(grid.shared),
           place);
    if (index == kMostArrays) fail("takes too many shared arrays", place);
    block.arrays.push_back({allocate(bytes + kGuard), bytes, place});
    fill(block.arrays.back().memory, bytes + kGuard);
  }
  const Array& array = block.arrays[index];
  if (array.bytes != bytes) fail("other threads take a shared array of another size here", place);
  return array.memory;
}

bool block_barrier(bool mine, Place place) {
  Block& block = *grid.block;
  Fiber& me = grid.fiber();
#if defined(SLV_TSAN)
  char* tag = block.tags + block.phase;
  __tsan_release(tag);
#endif
  if (block.at_barrier == 0) block.barrier = place;
  if (!same(block.barrier, place))
    fail("a barrier in divergent code: another thread is at that of " + text(block.barrier), place);
  block.vote |= mine;
  me.place = place;
  me.state = State::kAtBarrier;
  if (++block.at_barrier == block.fibers.size()) {
    for (Fiber& fiber : block.fibers) fiber.state = State::kReady, fiber.vote = block.vote;
    block.at_barrier = 0;
    block.vote = false;
#if defined(SLV_TSAN)
    block.phase ^= 1;
#endif
  }
  wait();
#if defined(SLV_TSAN)
  __tsan_acquire(tag);
#endif
  return me.vote;
}

uint64_t warp_exchange(Op op, uint64_t word, int from, Place place) {
  Fiber& me = grid.fiber();
  const unsigned warp = grid.current / 32;
  Fiber* lanes = &grid.block->fibers[warp * 32];
#if defined(SLV_TSAN)
  int& phase = grid.block->warp_phases[warp];
  char* tag = grid.block->tags + 2 + 2 * warp + phase;
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
  if (++grid.block->waiting[warp] == 32) {
    uint64_t votes = 0;
    for (int lane = 0; lane < 32; lane++) votes |= uint64_t(lanes[lane].word != 0) << lane;
    for (int lane = 0; lane < 32; lane++) {
      lanes[lane].answer = op == Op::kBallot ? votes : lanes[lanes[lane].from & 31].word;
      lanes[lane].state = State::kReady;
    }
    grid.block->waiting[warp] = 0;
#if defined(SLV_TSAN)
    if (op == Op::kWarp) phase ^= 1;
#endif
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
  grid.warp_order = numbers(threads / 32), grid.lane_order = numbers(32);
  blockDim.x = unsigned(threads), gridDim.x = unsigned(blocks);
#if defined(SLV_TSAN)
  grid.scheduler.tsan = __tsan_get_current_fiber();
  if (!grid.slab) grid.slab = static_cast<unsigned char*>(map(kSlab));
  grid.slab_used = 0;
  grid.tags.assign(blocks * (2 + 2 * (threads / 32)), 0);
  __tsan_release(&grid.begin_tag);
#endif
  std::vector<unsigned> waiting = numbers(blocks);
  mix(waiting);
  std::reverse(waiting.begin(), waiting.end());  // the next is the last
  grid.blocks.resize(kResident);
  for (Block& block : grid.blocks) release_arrays(block), block.arrays.reserve(kMostArrays);  // of a launch that failed
  std::vector<unsigned> resident =
      numbers(grid.seed ? std::min<size_t>({size_t(blocks), kResident, kMostThreads / threads}) : 1);
  const auto next = [&](unsigned slot) { begin(grid.blocks[slot], waiting.back(), threads), waiting.pop_back(); };
  for (unsigned slot : resident) next(slot);
  while (!resident.empty()) {
    mix(resident);
    const unsigned slot = resident.back();
    run_block(grid.blocks[slot]);
    if (grid.blocks[slot].alive) continue;
    finish(grid.blocks[slot]);
    if (waiting.empty())
      resident.pop_back();
    else
      next(slot);
  }
#if defined(SLV_TSAN)
  __tsan_acquire(&grid.end_tag);
#endif
}

size_t shared_limit() { return grid.limit; }
void poison(void* memory, size_t bytes, bool integers) {
  std::memset(memory, integers ? kNumbers : kNotNumbers, bytes);
}

}  // namespace slv::simt

void slv_simt_configure(uint64_t seed, size_t limit) { grid.seed = seed, grid.limit = limit; }
uint64_t slv_simt_switches() { return grid.switches; }
