// As much of CUDA's runtime as the launches of csrc/cuda use, for a machine without a GPU: nvcc's own launch code hands
// a kernel's name, grid and arguments to it, and it hands them to the interpreter in Python.
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "../runtime.h"
#include "device_memory.h"

namespace {

struct Dim3 {
  unsigned x, y, z;
};
struct Array {
  const void* begin;
  uint64_t bytes;
};
constexpr size_t kMostText = 2000;

// What the interpreter is called with; launches.py has the same structure.
struct Launch {
  const char* kernel;
  uint64_t blocks, threads, shared;
  void** arguments;
  const Array* arrays;
  uint64_t array_count;
  char* error;  // kMostText bytes; stays empty where all went well
};
using Interpreter = void (*)(const Launch*);

struct Function {
  std::string name;
  size_t shared = 48 * 1024;  // what a block may have; more must be asked for
};
struct State {
  std::map<const void*, Function> functions;
  std::map<const void*, uint64_t> arrays;
  Interpreter interpreter = nullptr;
  size_t limit = 227 * 1024;
  uint64_t launches = 0;
  char error[kMostText] = {};
  struct {
    Dim3 grid, block;
    size_t shared;
    void* stream;
  } configuration;
};
State& state() {
  static State s;
  return s;
}
int fail(const std::string& what) {
  what.copy(state().error, kMostText - 1);
  return 1;
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

void slv_ptx_interpret_by(Interpreter interpreter) { state().interpreter = interpreter; }
void slv_ptx_allocated(const void* begin, size_t bytes) { state().arrays[begin] = bytes; }
void slv_ptx_freed(const void* begin) { state().arrays.erase(begin); }

// What the drivers ask of the emulator: there is no schedule here, and launches are counted.
void slv_simt_configure(uint64_t, size_t limit) { state().limit = limit; }
uint64_t slv_simt_switches() { return state().launches; }

// ---- of nvcc's own code ---------------------------------------------------------------------------------------------

void** __cudaRegisterFatBinary(void*) {
  static void* handle;
  return &handle;
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
void __cudaRegisterFunction(void**, const char* host, char*, const char* name, int, void*, void*, void*, void*, int*) {
  state().functions[host].name = name;
}
unsigned __cudaPushCallConfiguration(Dim3 grid, Dim3 block, size_t shared, void* stream) {
  state().configuration = {grid, block, shared, stream};
  return 0;
}
int __cudaPopCallConfiguration(Dim3* grid, Dim3* block, size_t* shared, void* stream) {
  const auto& c = state().configuration;
  *grid = c.grid, *block = c.block, *shared = c.shared, *static_cast<void**>(stream) = c.stream;
  return 0;
}
int __cudaGetKernel(const void** kernel, const void* host) {
  *kernel = host;
  return 0;
}
int __cudaLaunchKernel(const void* kernel, Dim3 grid, Dim3 block, void** arguments, size_t shared, void*) {
  State& s = state();
  s.error[0] = 0;
  const Function& f = s.functions[kernel];
  if (shared > f.shared) return fail(f.name + ": more shared memory than was asked for");
  if (grid.y != 1 || grid.z != 1 || block.y != 1 || block.z != 1) return fail(f.name + ": a grid of more dimensions");
  std::vector<Array> arrays;
  for (const auto& [begin, bytes] : s.arrays) arrays.push_back({begin, bytes});
  const Launch launch{f.name.c_str(), grid.x, block.x, shared, arguments, arrays.data(), arrays.size(), s.error};
  s.interpreter(&launch);
  s.launches++;
  return s.error[0] != 0;
}

// ---- of csrc/core/simt.h --------------------------------------------------------------------------------------------

int cudaGetLastError() { return state().error[0] != 0; }
const char* cudaGetErrorString(int) { return state().error; }
int cudaGetDevice(int* device) {
  *device = 0;
  return 0;
}
int cudaDeviceGetAttribute(int* value, int, int) {
  *value = int(state().limit);
  return 0;
}
int cudaFuncSetAttribute(const void* host, int, int bytes) {
  if (size_t(bytes) > state().limit) return fail("more shared memory than a block may have");
  state().functions[host].shared = size_t(bytes);
  return 0;
}
}
#pragma GCC visibility pop
