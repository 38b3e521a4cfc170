// How the emulator is told what to do; see runtime.cpp.
#pragma once
#include <cstddef>
#include <cstdint>

#pragma GCC visibility push(default)
extern "C" {
// seed 0: blocks and threads in order; else every choice is drawn at random from the seed. limit: bytes of shared
// memory that a block may have.
void slv_simt_configure(uint64_t seed, size_t limit);
// Switches between fibers since the start: what a run cost.
uint64_t slv_simt_switches();
}
#pragma GCC visibility pop
