// The kernel of noise on small events under the emulator, without torch: each draw against the words of its counter.
#include "checks.h"
#include "core/philox.h"
#include "cuda/noise.h"
#include "driver.h"
#include "guarded.h"

namespace {

using namespace slv::cuda;

struct Case {
  const char* name;
  int64_t items, samples, size;  // size: of rows
  int64_t n = 0, labels = 1;     // of spans
};

constexpr uint64_t kSeed = 0x1234567890abcdef;

// -log(-log((word + 1/2) 2^-32)) of the word at a position.
double expected(int64_t item, int64_t sample, uint32_t stream, int64_t position) {
  slv::Draws<1> draw{kSeed, {uint32_t(item)}, {uint32_t(sample)}, stream};
  return -std::log(-std::log((double(*draw(position)) + 0.5) * 0x1p-32));
}

template <class T>
void check(const Case& o) {
  const bool spans = o.n > 0;
  const int64_t size = spans ? o.n * o.n * o.labels : o.size;
  const int64_t positions = spans ? o.n * (o.n + 1) / 2 * o.labels : size;
  Guarded<T> out(o.samples * o.items * size);
  run_gumbel(Noise{kSeed, o.items, o.samples, size, positions, o.n, o.labels}, out.data(), nullptr);
  const double tolerance = sizeof(T) == 8 ? 1e-13 : 1e-6;
  for (int64_t e = 0; e < out.size(); e++) {
    const int64_t unit = e / size, place = e % size, label = place % o.labels;
    const int64_t i = place / o.labels / std::max<int64_t>(o.n, 1), j = place / o.labels % std::max<int64_t>(o.n, 1);
    if (spans && i > j) {
      require(std::isnan(out[e]), "a span that ends before it starts was written");
      continue;
    }
    const int64_t position = spans ? (j * (j + 1) / 2 + i) * o.labels + label : place;
    close(out[e], expected(unit % o.items, unit / o.items, spans ? 4 : 3, position), tolerance, "noise", e);
  }
  out.check("noise");
}

const Case kCases[] = {
    {"rows", 3, 2, 10},
    {"one position", 5, 3, 1},
    {"more than a block", 2, 2, 1000},
    {"spans", 2, 3, 0, 5, 3},
    {"one word", 2, 2, 0, 1},
    {"many spans", 1, 1, 0, 40},
    // enough for words so near 0 and 2^32 that the half added to them is seen in float32
    {"many", 2, 2, 100001},
#if defined(SLV_PTX)  // rows begin at sectors: what ptx/ counts of accesses to memory, it counts of these
    {"aligned", 2, 2, 1024},
#endif
};

}  // namespace

int main(int argc, char** argv) {
  return check_kernels(
      "noise", argc, argv, kCases, [](const Case& o, auto t) { check<decltype(t)>(o); },
      [](const Case& o) { return o.n < 10 && o.size < 100; }, [](const Case&) { return kHopperShared; });
}
