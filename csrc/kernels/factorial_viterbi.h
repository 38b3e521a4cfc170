// Viterbi in the input's precision (a maximum cannot underflow): max-plus micro-steps of a block, and a traceback
// without back-pointers that recomputes one argmax a step, adding in the same order. Ties go to the lowest state.
#pragma once
#include "kernels/factorial_steps.h"

namespace slv {
namespace {

template <class T>
struct LaneViterbi : LaneBlock<T, T> {
  using Base = LaneBlock<T, T>;
  using Index = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
  using Base::c, Base::items, Base::rows, Base::states, Base::size, Base::steps, Base::len, Base::W;
  const LaneEntries<T>& a;
  LaneSteps<T> move;
  T *best = nullptr, *ring = nullptr, *scores = nullptr;  // best: (steps, S, rows)
  LaneViterbi(const Factorial<T>& c, const LaneEntries<T>& a, const int64_t* items, int rows)
      : Base(c, items, rows), a(a), move(c, a) {}
  static int64_t scratch(const Factorial<T>& c, int rows) {
    return Base::row_scratch(c.states) + LaneSteps<T>::scratch(c, false) + LaneInto<T>::scratch(c) +
           Scratch::bytes<T>(c.n * c.states * rows) + Scratch::bytes<T>(2 * c.states * W) +
           Scratch::bytes<T>(c.states * W);
  }
  void bind(Scratch& s) {
    this->bind_rows(s);
    move.bind(s, false);
    best = s.take<T>(c.n * states * rows);
    ring = s.take<T>(2 * size);
    scores = s.take<T>(size);
  }
  T* saved(int64_t t) const { return best + t * states * rows; }
  T* at(int64_t t) const { return rows == W ? saved(t) : ring + t % 2 * size; }

  struct Add {
    T* out;
    const T* scores;
    vec<T> offset, top = splat(-kInf<T>);
    SLV_INLINE void operator()(int64_t at, vec<T> sum) {
      const vec<T> v = sum + (load(scores + at) - offset);
      top = vmax(top, v);
      store(out + at, v);
    }
  };
  // Scores stay relative to their lane's maximum, lest they lose digits as they grow.
  void forward() {
    constexpr int64_t kEvery = 16;
    vec<T> offset{};
    for (int64_t t = 0; t < steps; t++) {
      this->gather(t, scores, 1);
      for (int r = 0; t == 0 && c.initial && r < rows; r++)
        if (len[r] > 0) put(r, this->join(r));
      Add next{at(t), scores, offset};
      if (t == 0)
        for (int64_t z = 0; z < size; z += W) next(z, vec<T>{});
      else
        move.template forward<MaxPlus>(0, 1, at(t - 1), 0, next);
      const ivec<T> finite = (next.top > -kInf<T>)&(next.top < kInf<T>);
      offset = t % kEvery == 0 && t > 0 ? (finite ? next.top : vec<T>{}) : vec<T>{};
      if (rows < W)
        for (int64_t z = 0; z < states; z++) store_n<T>(saved(t) + z * rows, load(at(t) + z * W), rows);
    }
  }
  void put(int r, const double* row) const {
    for (int64_t z = 0; z < states; z++) scores[z * W + r] = T(row[z]);
  }
  void traceback(Scratch& s, int64_t* paths) {
    LaneInto<T> into(s, c, a, c.m);
    const int64_t last_size = c.sizes[c.m - 1];
    const T* own = into.of(c.m - 1);
    int64_t next[W], last[W] = {};
    std::copy_n(len, rows, last);
    for (int64_t t = steps - 1; t >= 0; t--) {
      for (int r = 0; r < W; r++) next[r] = r < rows && t + 1 < last[r] ? paths[items[r] * c.n + t + 1] : -1;
      into.look_up(next, T(0));
      vec<T> top = splat(-kInf<T>);
      ivec<T> state{};
      into.each_prefix(c.m - 1, [&](int64_t p, const T* const* before) __attribute__((always_inline)) {
        for (int64_t q = 0, z = p * last_size; q < last_size; q++, z++) {
          vec<T> x = load_n<T>(saved(t) + z * rows, rows, -kInf<T>);
          for (int64_t i = 0; i + 1 < c.m; i++) x += load(before[i]);
          x += load(own + q * W);
          const ivec<T> better = x > top;
          top = better ? x : top;
          state = better ? ivec<T>{} + Index(z) : state;
        }
      });
      for (int r = 0; r < rows; r++) {
        if (t < last[r] && !(top[r] > -kInf<T>)) last[r] = 0;  // nothing is possible
        if (t < last[r]) paths[items[r] * c.n + t] = state[r];
      }
    }
  }
};

// The transitions of a block for each lane, where its items do not share them.
template <class T>
T* lane_scores(const Factorial<T>& c, const int64_t* items, int rows, Scratch& s) {
  constexpr int W = kWidth<T>;
  T* out = s.take<T>(c.edges * W);
  std::fill(out, out + c.edges * W, T(0));
  for (int r = 0; r < rows; r++)
    for (int64_t e = 0; e < c.edges; e++) out[e * W + r] = c.transition_of(items[r])[e];
  return out;
}
template <class T>
void lane_viterbi(const Factorial<T>& c, const int64_t* items, int rows, int64_t* paths) {
  LaneEntries<T> a(c, items, rows);
  Scratch s(LaneViterbi<T>::scratch(c, rows) + (a.lanes ? Scratch::bytes<T>(c.edges * kWidth<T>) : 0));
  a.data = a.lanes ? lane_scores(c, items, rows, s) : c.transition_of(items[0]);
  LaneViterbi<T> v(c, a, items, rows);
  v.bind(s);
  v.forward();
  v.traceback(s, paths);
}

}  // namespace
}  // namespace slv
