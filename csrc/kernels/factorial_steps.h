// A step of a block of factorial chains: micro-steps along its chains, forward, back, and into single states.
#pragma once
#include "kernels/factorial_lanes.h"

namespace slv {
namespace {

constexpr int64_t kSlabBytes = 16 << 10;  // of joint states on which chains are taken in turn, before the next states

// The micro-steps of a step, depth first: once the first chain has moved, the states of each of its values are a
// problem of their own, which the first-level cache holds.
template <class T>
struct LaneSteps {
  static constexpr int W = kWidth<T>;
  int64_t m, states;
  const int64_t* sizes;
  Vector<int64_t> inner, edge;  // by chain: states of later chains; its first entry
  const LaneEntries<T>& a;
  T *moved = nullptr, *back = nullptr;  // by chain but the last: x and y
  T* counts = nullptr;                  // (P) vectors

  template <class In>
  LaneSteps(const Factorial<In>& c, const LaneEntries<T>& a)
      : m(c.m), states(c.states), sizes(c.sizes), inner(c.m), edge(c.m), a(a) {
    int64_t left = states;
    c.each_chain([&](int64_t i, int64_t k, int64_t first, int64_t) { inner[i] = left /= k, edge[i] = first; });
  }
  // both: for the backward pass too
  template <class In>
  static int64_t scratch(const Factorial<In>& c, bool both) {
    return Scratch::bytes<T>((c.m - 1) * c.states * W) * (both ? 2 : 1);
  }
  void bind(Scratch& s, bool both) {
    moved = s.take<T>((m - 1) * states * W);
    if (both) back = s.take<T>((m - 1) * states * W);
  }
  AxisMatrix<T> forward_matrix(int64_t i) const { return {a.data + edge[i] * a.stride, a.lanes}; }
  AxisMatrix<T> backward_matrix(int64_t i) const { return {a.transposed + edge[i] * a.stride, a.lanes}; }
  // Calls body(blocks, first state) for what chain i+1 takes at once, of `blocks` times its states and the later ones'.
  template <class F>
  SLV_INLINE void descend(int64_t i, int64_t blocks, F body) const {
    const int64_t most = std::max<int64_t>(kSlabBytes / (inner[i] * W * int64_t(sizeof(T))), 1);
    for (int64_t o = 0; o < blocks; o += most) body(std::min(most, blocks - o), o * inner[i]);
  }
  // epilogue(element, sum) for all states after the chains from i on have moved; `at` is where they lie among all.
  template <class S, class E>
  void forward(int64_t i, int64_t outer, const T* in, int64_t at, E& epilogue) const {
    const AxisShape shape{sizes[i], outer, inner[i]};
    if (i == m - 1) {
      Placed<E> placed{epilogue, at};
      along<S>(shape, forward_matrix(i), in, placed);
      epilogue = placed.epilogue;
      return;
    }
    StoreState<T> out{moved + i * states * W};
    along<S>(shape, forward_matrix(i), in, out);
    descend(i, outer * sizes[i],
            [&](int64_t blocks, int64_t z) { forward<S>(i + 1, blocks, out.to + z * W, at + z * W, epilogue); });
  }
  // From x (states before the chains from i on have moved) and g (after): adds their edges to `counts`, and calls
  // epilogue(element, sum) for the way back of g.
  template <class E>
  void backward(int64_t i, int64_t outer, const T* x, const T* g, E& epilogue) const {
    const AxisShape shape{sizes[i], outer, inner[i]};
    if (i < m - 1) {
      StoreState<T> next{moved + i * states * W};
      T* y = back + i * states * W;
      along<PlusTimes>(shape, forward_matrix(i), x, next);
      descend(i, outer * sizes[i], [&](int64_t blocks, int64_t z) {
        StoreState<T> to{y + z * W};
        backward(i + 1, blocks, next.to + z * W, g + z * W, to);
      });
      g = y;
    }
    count_pairs(shape, x, g, counts + edge[i] * W);
    along<PlusTimes>(shape, backward_matrix(i), g, epilogue);
  }
};

// The transitions into one state for each lane: for each of the first chains a vector for each state before.
template <class T>
class LaneInto {
 public:
  static constexpr int W = kWidth<T>;
  template <class In>
  static int64_t scratch(const Factorial<In>& c) {
    return Scratch::bytes<T>(c.ends * W);
  }
  template <class In>
  LaneInto(Scratch& s, const Factorial<In>& c, const LaneEntries<T>& a, int64_t chains)
      : chains_(chains),
        sizes_(c.sizes),
        a_(a),
        table_(s.take<T>(c.ends * W)),
        inner_(c.m),
        edge_(c.m),
        row_(c.m),
        digit_(c.m) {
    int64_t left = c.states;
    c.each_chain([&](int64_t i, int64_t k, int64_t edge, int64_t) { inner_[i] = left /= k, edge_[i] = edge; });
  }
  // next: the joint state of each lane, or -1: then `none` instead of transitions
  void look_up(const int64_t* next, T none) {
    T* to = table_;
    for (int64_t i = 0; i < chains_; i++) {
      const int64_t k = sizes_[i];
      for (int r = 0; r < W; r++) {
        const int64_t j = next[r] / inner_[i] % k;
        for (int64_t q = 0; q < k; q++) to[q * W + r] = next[r] < 0 ? none : a_.at(edge_[i] + q * k + j, r);
      }
      to += k * W;
    }
  }
  // body(number, vectors of the first `count` chains in their states), the last of them fastest
  template <class F>
  SLV_INLINE void each_prefix(int64_t count, F body) {
    const T* first = table_;
    int64_t prefixes = 1;
    for (int64_t i = 0; i < count; i++) row_[i] = first, digit_[i] = 0, first += sizes_[i] * W, prefixes *= sizes_[i];
    for (int64_t p = 0; p < prefixes; p++) {
      body(p, row_.data());
      for (int64_t i = count - 1; i >= 0; i--) {
        row_[i] += W;
        if (++digit_[i] < sizes_[i]) break;
        row_[i] -= digit_[i] * W, digit_[i] = 0;
      }
    }
  }
  // the vectors of a chain
  const T* of(int64_t chain) const {
    const T* first = table_;
    for (int64_t i = 0; i < chain; i++) first += sizes_[i] * W;
    return first;
  }

 private:
  const int64_t chains_, *sizes_;
  const LaneEntries<T>& a_;
  T* table_;
  Vector<int64_t> inner_, edge_;
  Vector<const T*> row_;
  Vector<int64_t> digit_;
};

}  // namespace
}  // namespace slv
