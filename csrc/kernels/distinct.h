// Where structures that are drawn without replacement go, best perturbed log-probability first.
#pragma once
#include <cstdint>

namespace slv {

// Of the structure of a rank: its event at `events + rank * event_stride`, and its perturbed log-probability at
// `perturbed + rank * stride`.
struct DistinctSink {
  int64_t* events;
  int64_t event_stride;
  double* perturbed;
  int64_t stride;
  // The part of an item; one event has `size` elements, and items lie one after the other.
  DistinctSink of(int64_t item, int64_t size) const {
    return {events + item * size, event_stride, perturbed + item, stride};
  }
};

}  // namespace slv
