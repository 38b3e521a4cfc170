// What the emulator must notice: small kernels with one fault each, and what is to be said of it.
#include <cstdio>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/simt.h"
#include "runtime.h"

namespace {

using namespace slv::simt;

float result[128];

void healthy(int) {
  Shared shared;
  float* x = shared.take<float>(64);
  const int i = int(threadIdx.x);
  x[63 - i] = float(i);
  sync_block();
  float y = x[i] + shuffle_xor(x[i], 1) + shuffle(x[i], 40) + shuffle_up(x[i], 2);
  if (sync_block_or(i == 5)) y += float(ballot(i % 2) & 3);
  result[i + 64 * int(blockIdx.x)] = y;
}
void divergent_barrier(int) {
  if (threadIdx.x < 32) sync_block();
  if (threadIdx.x >= 32) sync_block();
}
void barrier_of_some(int) {
  if (threadIdx.x < 40) sync_block();
}
void divergent_shuffle(int) {
  if (threadIdx.x % 2)
    shuffle(1, 0);
  else
    shuffle(2, 0);
}
void shuffle_of_some(int) {
  if (threadIdx.x != 7) shuffle(1, 0);
}
void overrun(int) {
  Shared shared;
  shared.take<float>(64)[threadIdx.x + 1] = 1;
}
void too_much(int) {
  Shared shared;
  shared.take<double>(1024);
}
void unequal(int) {
  Shared shared;
  shared.take<float>(threadIdx.x == 3 ? 8 : 16);
}
void unwritten(int) {
  Shared shared;
  const float* x = shared.take<float>(64);
  result[threadIdx.x] = x[threadIdx.x];
}
// Without its barrier, what is read depends on the schedule.
void race(int) {
  Shared shared;
  float* x = shared.take<float>(64);
  x[threadIdx.x] = 1;
  result[threadIdx.x] = x[63 - threadIdx.x];
}
// Blocks that leave numbers where others do: what comes back depends on which ran in between.
float scratch[64];
void shared_scratch(int) {
  scratch[threadIdx.x] = float(blockIdx.x);
  sync_block();
  result[threadIdx.x + 64 * (blockIdx.x % 2)] = scratch[threadIdx.x] == float(blockIdx.x);
}

std::string run(void (*kernel)(int), int threads = 64, int64_t blocks = 1) {
  try {
    launch(kernel, blocks, threads, 4096, nullptr, 0);
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}
int failures = 0;
void expect(bool ok, const char* what, const std::string& found) {
  if (!ok) std::printf("%s: found '%s'\n", what, found.c_str()), failures++;
}
void says(void (*kernel)(int), const char* part) {
  const std::string found = run(kernel);
  expect(found.find(part) != std::string::npos, part, found);
}

}  // namespace

int main() {
  std::vector<float> first;
  for (uint64_t seed : {0, 1, 2, 3}) {
    slv_simt_configure(seed, 227 * 1024);
    expect(run(healthy, 64, 2).empty(), "a healthy kernel", run(healthy, 64, 2));
    std::vector<float> now(result, result + 128);
    // thread 0 of a block: x = 63, its neighbour 62, lane 8's 55, its own 63, the ballot's low bits 2
    expect(now[0] == 63 + 62 + 55 + 63 + 2, "values of a healthy kernel", std::to_string(now[0]));
    if (first.empty()) first = now;
    expect(now == first, "the same under every schedule", "others");
    says(divergent_barrier, "a barrier in divergent code");
    says(barrier_of_some, "not all threads arrive: thread");
    says(barrier_of_some, "has left the kernel");
    says(divergent_shuffle, "a warp function in divergent code");
    says(shuffle_of_some, "waits for its warp at emulator_check.cpp");
#if !defined(__SANITIZE_ADDRESS__)
    says(overrun, "was overrun");
#endif
    says(too_much, "takes 8192 bytes of shared memory, launched with 4096");
    says(unequal, "of another size");
    expect(run(unwritten).empty() && !(result[5] < 1e37f), "unwritten shared memory is NaN, or a large number",
           std::to_string(result[5]));
    expect(!run(healthy, 48).empty(), "a block that is no whole number of warps", "");
  }
  slv_simt_configure(0, 227 * 1024);
  run(shared_scratch, 64, 2);
  expect(result[0] == 1 && result[64] == 1, "in order one block after the other", "others in between");
  bool differs = false, between = false;
  std::vector<float> before;
  for (uint64_t seed = 1; seed < 9; seed++) {
    slv_simt_configure(seed, 227 * 1024);
    run(race);
    std::vector<float> now(64);
    for (int i = 0; i < 64; i++) now[i] = result[i] == 1 ? 1.0f : 0.0f;
    differs = differs || (!before.empty() && now != before);
    before = now;
    run(shared_scratch, 64, 2);
    for (float kept : result) between = between || kept == 0;
  }
  expect(differs, "a missing barrier shows under some schedule", "the same results");
  expect(between, "blocks that share memory show under some schedule", "as if each ran alone");
  std::printf(failures ? "emulator: %d failures\n" : "emulator: all as expected\n", failures);
  return failures > 0;
}
