// What the drivers of the kernels are called with: `chain_check SEED...` runs every problem once for each seed of
// schedules (0: in order), `chain_check small SEED...` the small ones alone, in float32; with SLV_MUTANTS,
// `chain_check MUTANT SEED...` switches one seeded bug on. `case=NAME` before the seeds: that problem alone. Exits 1
// and says what differed.
#pragma once
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>

#include "runtime.h"

#if defined(SLV_MUTANTS)
#include <sys/time.h>
int slv_mutant = 0;
// A bug may make a kernel run for ever: the program ends when a problem takes far longer than any does.
inline void begin_problem() {
#if defined(__SANITIZE_THREAD__)
  constexpr int kSeconds = 100;
#else
  constexpr int kSeconds = 20;
#endif
  const itimerval limit{{0, 0}, {kSeconds, 0}};  // of the processor's time
  setitimer(ITIMER_PROF, &limit, nullptr);
}
#else
inline void begin_problem() {}
#endif
#if defined(SLV_PTX)  // a driver is a library there: ptx/launches.py calls it
#define main slv_check
extern "C" __attribute__((visibility("default"))) int slv_check(int argc, char** argv);
#endif

constexpr size_t kHopperShared = 227 * 1024;  // bytes of shared memory that a block may have there

// check(problem, T()) throws what differs; `is_small` says which problems ThreadSanitizer can bear and `shared_bytes`
// how much shared memory a block has.
template <class Cases, class Check, class IsSmall, class SharedBytes>
int check_kernels(const char* structure, int argc, char** argv, const Cases& cases, Check&& check, IsSmall&& is_small,
                  SharedBytes&& shared_bytes) {
  int first = 1;
#if defined(SLV_MUTANTS)
  slv_mutant = argc > 1 ? std::atoi(argv[1]) : 0;
  first = 2;
#endif
  const bool small = argc > first && std::strcmp(argv[first], "small") == 0;
  first += small;
  const char* only = argc > first && std::strncmp(argv[first], "case=", 5) == 0 ? argv[first++] + 5 : nullptr;
  for (int i = first; i < argc; i++)
    for (const auto& problem : cases)
      for (bool wide : {false, true}) try {
          if (small && (wide || !is_small(problem))) continue;
          if (only && std::strcmp(only, problem.name) != 0) continue;
          begin_problem();
          slv_simt_configure(std::strtoull(argv[i], nullptr, 10), shared_bytes(problem));
          if (wide)
            check(problem, double());
          else
            check(problem, float());
        } catch (const std::exception& error) {
          std::printf("%s, %s, seed %s: %s\n", problem.name, wide ? "float64" : "float32", argv[i], error.what());
          return 1;
        }
  std::printf("%s: all as expected; %llu switches\n", structure, static_cast<unsigned long long>(slv_simt_switches()));
  return 0;
}
