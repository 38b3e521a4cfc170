// Every entry of the kernel tables on small awkward chains, without torch: under AddressSanitizer and
// UndefinedBehaviorSanitizer with `make sanitize`. STRUCTLV_CPU names the instruction set. One line at the end says
// what was done; the exit status is 1 where a result is wrong.
#include "chain_log_checks.h"
#include "chain_scaled_checks.h"
#include "chain_second_order_checks.h"

namespace driver {

template <class T>
void has_nan() {
  for (int64_t n = 0; n < 140; n++) {
    Exact<T> x(n, T(-kInf));
    check(!Tables<T>::has_nan(x.data(), n), "has_nan: none");
    for (int64_t i = 0; i < n; i++) {
      x[i] = T(kNaN);
      check(Tables<T>::has_nan(x.data(), n), "has_nan: one");
      x[i] = T(kInf);
    }
  }
}

// One case of every number of states, length and kind; the rest takes turns.
template <class T>
void run_all() {
  constexpr int64_t kRows[] = {1, 2, 3, 7, 8, 9, 16, 31, 32};
  uint64_t seed = 0;
  has_nan<T>();
  for (int64_t k : {1, 2, 3, 5, 15, 16, 17, 31, 32, 33, 64, 65})
    for (int64_t n : {0, 1, 2, 3, 9, 37})
      for (int kind = 0; kind < kKinds; kind++)
        for (bool per_step : {false, true}) {
          seed++;
          int64_t batch = kRows[seed * 7 / 2 % std::size(kRows)];
          if (batch * n * k * k > 40000 && seed % 16) batch = 1 + int64_t(seed % 3);
          const int64_t choice = seed / 2 % 3, matrices = choice == 0   ? 1
                                                          : choice == 1 ? std::min<int64_t>(2, batch)
                                                                        : batch;
          const Spec spec{batch,        n,        k,   Kind(kind), per_step, seed / 3 % 3 != 0, seed / 2 % 2 == 0,
                          seed % 5 < 3, matrices, seed};
          context = (sizeof(T) == 4 ? "float32 " : "float64 ") + spec.text();
          skew = seed % 4 >= 2;
          ScaledChecks<T>(spec).run();
          SecondOrderChecks<T>(spec).run();
          LogChecks<T> logarithmic(spec);
          const int64_t items = std::min<int64_t>(n * k * k > 2000 ? 1 : 4, batch);
          for (int64_t b = 0; b < items; b++) logarithmic.item(b);
        }
}

}  // namespace driver

int main() {
  driver::run_all<float>();
  driver::run_all<double>();
  std::printf("chain_driver: %s, %d-byte vectors: %lld checks, %lld failed\n", slv::kernels().name,
              slv::kernels().vector_bytes, static_cast<long long>(driver::checks),
              static_cast<long long>(driver::failures));
  return driver::failures != 0;
}
