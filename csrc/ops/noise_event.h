// The event of Gumbel noise: what `like` (*b, *event) says of it.
#pragma once
#include "ops/check.h"

namespace slv {

struct NoiseEvent {
  Shape event, out;     // out: (num_samples, *b, *event)
  int64_t items, size;  // of the event

  NoiseEvent(const Tensor& like, int64_t event_dims, int64_t num_samples, bool spans) : out(shape_of(like)) {
    STD_TORCH_CHECK(num_samples >= 0, "num_samples: expected a number >= 0, found ", num_samples);
    STD_TORCH_CHECK(event_dims >= (spans ? 3 : 0) && event_dims <= int64_t(out.size()),
                    "event_dims: expected as many as `like` has, and 3 for spans, found ", event_dims);
    event = Shape(out.end() - event_dims, out.end());
    STD_TORCH_CHECK(!spans || event[0] == event[1], "like: expected (*b, n, n, labels), found ", text(out));
    size = product(event), items = product(Shape(out.begin(), out.end() - event_dims));
    out.insert(out.begin(), num_samples);
  }
};

}  // namespace slv
