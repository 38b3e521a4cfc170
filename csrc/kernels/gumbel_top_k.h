// Structures without replacement: those of the k largest perturbed log-probabilities phi + Gumbel noise (Kool, van Hoof
// & Welling 2019, "Stochastic beams and where to find them", section 4), found without looking at the others.
//
// A structure is a sequence of choices. The largest perturbed log-probability G of the structures that begin in one way
// is Gumbel(phi), phi the log-probability of that beginning; given G, those of its continuations are independent
// Gumbel(phi_c) given that the largest is G. So beginnings are opened from the largest G on, and what is complete when
// it is opened is the next structure (Kool, van Hoof & Welling 2020, "Ancestral Gumbel-top-k sampling", section 3.3).
// Only what begins one of the k structures is ever opened, and of the rest as many are kept as are still wanted. The
// noise of the e-th opening is its own, so that fewer structures are the first of more.
#pragma once
#include "core/semiring.h"
#include "kernels/distinct.h"
#include "kernels/gumbel.h"

namespace slv {
namespace {

constexpr uint32_t kDistinctStream = 5;  // of Philox

// A way to go on from a state that was opened.
struct Beginning {
  double perturbed, log_prob;
  int64_t parent, choice;                     // the state, -1 at the start; the number of the way
  bool operator<(const Beginning& o) const {  // worse than
    if (perturbed != o.perturbed) return perturbed < o.perturbed;
    return parent != o.parent ? parent > o.parent : choice > o.choice;
  }
};

class Frontier {
 public:
  Frontier(uint64_t seed, uint32_t item) : run_{seed, item, 0, kDistinctStream, 0, 1} {
    double g;
    gumbel(run_, &g);
    heap_.push_back({g, 0, -1, 0});
  }
  bool empty() const { return heap_.empty(); }
  Beginning pop() {
    std::pop_heap(heap_.begin(), heap_.end());
    const Beginning best = heap_.back();
    heap_.pop_back();
    return best;
  }
  // Adds the ways to go on from `state`, of log-weights `scores`; no more than `wanted` of all ways are kept.
  void open(const Beginning& from, int64_t state, Doubles& scores, int64_t wanted) {
    const int64_t count = scores.size();
    const double z = total<Log>(scores.data(), count);
    if (!(z > kNone)) return;
    int64_t possible = 0, last = 0;
    for (int64_t c = 0; c < count; c++)
      if (scores[c] > kNone) possible++, last = c;
    if (possible == 1) return push({from.perturbed, from.log_prob, state, last});
    race(from, z, scores);
    for (int64_t c = 0; c < count; c++)
      if (noise_[c] >= least_ && noise_[c] > kNone) push({noise_[c], log_prob_[c], state, c});
    if (int64_t(heap_.size()) > 2 * wanted + 64) prune(wanted);
  }

 private:
  void push(const Beginning& b) {
    heap_.push_back(b);
    std::push_heap(heap_.begin(), heap_.end());
  }
  // Perturbed log-probabilities, given that the largest is `from.perturbed`, in `noise_`. With Z the largest of
  // g_c ~ Gumbel(phi_c): G_c = -log(exp(-G) - exp(-Z) + exp(-g_c)), as appendix B.3 of "Stochastic beams" forms it.
  void race(const Beginning& from, double z, const Doubles& scores) {
    const int64_t count = scores.size(), lanes = (count + kLanes - 1) / kLanes * kLanes;
    noise_.resize(lanes), log_prob_.resize(lanes);
    run_.sample++, run_.count = count;
    gumbel(run_, noise_.data());
    vd top = splat(kNone);
    for (int64_t c = 0; c < count; c += kLanes) {
      const vd phi = row_of(scores.data(), c, count) - z + from.log_prob;
      const vd g = phi + row_of(noise_.data(), c, count);
      store(&log_prob_[c], phi), store(&noise_[c], g);
      top = vmax(top, g);
    }
    const double best = hmax<double>(top);
    for (int64_t c = 0; c < count; c += kLanes) {
      const vd g = load(&noise_[c]), below = g - best;
      const vd v = from.perturbed - g + log_one_minus_exp(below < 0.0 ? below : splat(-1.0));
      const vd size = v > 0.0 ? v : -v;
      const vd given = from.perturbed - ((v > 0.0 ? v : vd{}) + log_one_plus(exp<double>(-size)));
      store(&noise_[c], below == 0.0 ? splat(from.perturbed) : g > kNone ? given : splat(kNone));
    }
  }
  void prune(int64_t wanted) {
    const auto end = heap_.begin() + wanted;
    std::nth_element(heap_.begin(), end - 1, heap_.end(), [](const Beginning& a, const Beginning& b) { return b < a; });
    least_ = (end - 1)->perturbed;
    heap_.resize(wanted);
    std::make_heap(heap_.begin(), heap_.end());
  }

  NoiseRun run_;
  Vector<Beginning> heap_;
  Doubles noise_, log_prob_;
  double least_ = kNone;  // what is below it cannot be wanted
};

// `from` knows the states of a structure's choices: enter(state, choice) makes the next one (the first from -1),
// complete(state) says whether it is a structure, weigh(state, scores) gives the log-weights of all that it can go on
// to be by each choice. Calls found(rank, state, perturbed log-probability) for up to `count` structures.
template <class Choices, class F>
void gumbel_top_k(Choices& from, uint64_t seed, int64_t item, int64_t count, F&& found) {
  Frontier frontier(seed, uint32_t(item));
  Doubles scores;
  for (int64_t rank = 0; rank < count && !frontier.empty();) {
    const Beginning best = frontier.pop();
    const int64_t state = from.enter(best.parent, best.choice);
    if (from.complete(state)) {
      found(rank++, state, best.perturbed);
      continue;
    }
    from.weigh(state, scores);
    frontier.open(best, state, scores, count - rank);
  }
}

// Nothing found: -1 and -inf everywhere.
inline void clear_distinct(const DistinctSink& out, int64_t count, int64_t event) {
  for (int64_t r = 0; r < count; r++) {
    std::fill_n(out.events + r * out.event_stride, event, -1);
    out.perturbed[r * out.stride] = kNone;
  }
}

}  // namespace
}  // namespace slv
