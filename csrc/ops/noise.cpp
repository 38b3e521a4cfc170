// The operator of Gumbel noise: shapes, and the loop over samples and items.
#include <torch/csrc/stable/library.h>

#include "ops/bind.h"
#include "ops/dispatch.h"
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
  const Shape shape = shape_of(like);
  STD_TORCH_CHECK(num_samples >= 0, "num_samples: expected a number >= 0, found ", num_samples);
  STD_TORCH_CHECK(event_dims >= (spans ? 3 : 0) && event_dims <= int64_t(shape.size()),
                  "event_dims: expected as many as `like` has, and 3 for spans, found ", event_dims);
  const Shape event(shape.end() - event_dims, shape.end());
  STD_TORCH_CHECK(!spans || event[0] == event[1], "like: expected (*b, n, n, labels), found ", text(shape));
  const int64_t size = product(event), items = product(Shape(shape.begin(), shape.end() - event_dims));
  Shape full = shape;
  full.insert(full.begin(), num_samples);
  return dispatch(
      like,
      [&](auto t) {
        using T = decltype(t);
        Tensor out = empty_tensor(full, scalar_type<T>);
        T* data = out.mutable_data_ptr<T>();
        parallel_units(num_samples * items, 10.0 * double(num_samples * items * size), [&](int64_t u) {
          const NoiseRun run{uint64_t(seed), uint32_t(u % items), uint32_t(u / items), spans ? 4u : 3u, 0, size};
          spans ? draw_spans(run, event[0], event[2], data + u * size) : draw(run, data + u * size);
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
