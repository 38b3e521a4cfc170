// Every entry of the PCFG's kernel table on small awkward grammars, without torch, as chain_driver.cpp does it.
#include "pcfg_scaled_checks.h"

namespace driver {

template <class T>
void run_all() {
  uint64_t seed = 0;
  for (int64_t nt : {1, 2, 3, 8, 9})
    for (int64_t t : {1, 2, 7, 9})
      for (int64_t n : {0, 1, 2, 3, 4, 6})
        for (int kind = 0; kind < kPcfgKinds; kind++) {
          seed++;
          const int64_t labels = seed % 3 == 0 ? 0 : seed % 3 == 1 ? 1 : nt, batch = nt * t > 20 || n > 5 ? 1 : 3;
          const PcfgSpec spec{batch, n, nt, t, labels, PcfgKind(kind), seed / 2 % 2 == 0, seed / 3 % 3 == 0, seed};
          context = (sizeof(T) == 4 ? "float32 " : "float64 ") + spec.text();
          skew = seed % 4 >= 2;
          PcfgChecks<T>(spec).run();
          PcfgScaledChecks<T>(spec).run();
        }
  for (int64_t n = 0; n < 40; n++)
    for (int64_t len : {n, n / 2, int64_t(0)}) {
      context = "decode n=" + std::to_string(n) + " len=" + std::to_string(len);
      decode<T>(n, len, seed++, false);
      decode<T>(n, len, seed++, true);
    }
}

}  // namespace driver

int main() {
  driver::run_all<float>();
  driver::run_all<double>();
  std::printf("pcfg_driver: %s: %lld checks, %lld failed\n", slv::kernels().name,
              static_cast<long long>(driver::checks), static_cast<long long>(driver::failures));
  return driver::failures != 0;
}
