// Paths without replacement: the last state is chosen first, then each one's predecessor, as samples are drawn.
#pragma once
#include "kernels/chain_log.h"
#include "kernels/gumbel_top_k.h"

namespace slv {
namespace {

template <class T>
class PathChoices {
 public:
  PathChoices(const Item<T>& c, const Doubles& alpha) : c_(c), alpha_(alpha) {}
  int64_t enter(int64_t parent, int64_t choice) {
    states_.push_back(parent < 0 ? State{c_.len, -1, -1} : State{states_[parent].t - 1, choice, parent});
    return states_.size() - 1;
  }
  bool complete(int64_t s) const { return states_[s].t == 0; }
  void weigh(int64_t s, Doubles& scores) const {
    const int64_t t = states_[s].t - 1, next = states_[s].state;
    const T* column = next < 0 ? nullptr : c_.transition + t * c_.step + next;
    scores.resize(c_.k);
    for (int64_t i = 0; i < c_.k; i++) scores[i] = alpha_[t * c_.k + i] + (column ? double(column[i * c_.k]) : 0.0);
  }
  void write(int64_t s, int64_t* states) const {
    for (; states_[s].parent >= 0; s = states_[s].parent) states[states_[s].t] = states_[s].state;
  }

 private:
  struct State {
    int64_t t, state, parent;  // the states from t on are chosen, `state` first of them
  };
  const Item<T>& c_;
  const Doubles& alpha_;
  Vector<State> states_;
};

template <class T>
void distinct_log(const Chain<T>& chain, int64_t b, uint64_t seed, int64_t count, const DistinctSink& out) {
  Item<T> c(chain, b);
  clear_distinct(out, count, c.n);
  Doubles alpha;
  if (c.len > 0) alpha = inside<Log>(c);
  PathChoices<T> from(c, alpha);
  gumbel_top_k(from, seed, b, count, [&](int64_t rank, int64_t state, double perturbed) {
    from.write(state, out.events + rank * out.event_stride);
    out.perturbed[rank * out.stride] = perturbed;
  });
}

}  // namespace
}  // namespace slv
