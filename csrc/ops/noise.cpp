// The operator of Gumbel noise: shapes, and the loop over samples and items.
#include <torch/csrc/stable/library.h>

#include "ops/bind.h"
#include "ops/dispatch.h"
#include "ops/noise_event.h"
#include "ops/parallel.h"

namespace slv {
namespace {

template <class T>
void draw(const NoiseRun& run, T* out) {
  if constexpr (sizeof(T) == 4)
    noise_kernels().gumbel_f32(run, out);
  else
    noise_kernels().gumbel_f64(run, out);
}

// The scores of spans (n, n, labels): the position of (i, j, label) does not depend on n, and spans i > j have none.
template <class T>
void draw_spans(NoiseRun run, int64_t n, int64_t labels, T* out) {
  std::vector<T> column(n * labels);
  std::fill_n(out, n * n * labels, T(0));
  for (int64_t j = 0; j < n; j++) {
    run.first = j * (j + 1) / 2 * labels, run.count = (j + 1) * labels;
    draw(run, column.data());
    for (int64_t i = 0; i <= j; i++) std::copy_n(&column[i * labels], labels, out + (i * n + j) * labels);
  }
}

// like (*b, *event) -> (num_samples, *b, *event)
Tensor gumbel(const Tensor& like, int64_t event_dims, int64_t num_samples, int64_t seed, bool spans) {
  const NoiseEvent e(like, event_dims, num_samples, spans);
  return dispatch(
      like,
      [&](auto t) {
        using T = decltype(t);
        Tensor out = empty_tensor(e.out, scalar_type<T>);
        T* data = out.mutable_data_ptr<T>();
        parallel_units(num_samples * e.items, 10.0 * double(num_samples * e.items * e.size), [&](int64_t u) {
          const NoiseRun run{uint64_t(seed), uint32_t(u % e.items), uint32_t(u / e.items), spans ? 4u : 3u, 0, e.size};
          spans ? draw_spans(run, e.event[0], e.event[2], data + u * e.size) : draw(run, data + u * e.size);
        });
        return out;
      },
      "like");
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(structlv, m) {
  m.def("gumbel(Tensor like, SymInt event_dims, SymInt num_samples, SymInt seed, bool spans) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(structlv, CPU, m) { m.impl("gumbel", TORCH_BOX(&gumbel)); }

}  // namespace slv
