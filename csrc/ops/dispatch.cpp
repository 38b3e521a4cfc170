#include "ops/dispatch.h"

#include <cstdlib>
#include <cstring>

namespace slv {
namespace {

const Kernels* choose() {
#if defined(__x86_64__)
  const char* wanted = std::getenv("STRUCTLV_CPU");
  auto allowed = [wanted](const char* name) { return !wanted || !*wanted || std::strcmp(wanted, name) == 0; };
  __builtin_cpu_init();
  if (allowed("avx512") && __builtin_cpu_supports("x86-64-v4")) return kernels_avx512();
  if ((allowed("avx2") || allowed("avx512")) && __builtin_cpu_supports("x86-64-v3")) return kernels_avx2();
#endif
  return kernels_base();
}

}  // namespace

const Kernels& kernels() {
  static const Kernels* chosen = choose();
  return *chosen;
}

}  // namespace slv
