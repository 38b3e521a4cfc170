// Viterbi and samples in the second layout (factorial_turned.h): the choices of factorial_viterbi.h and
// factorial_sample.h.
#pragma once
#include "core/philox.h"
#include "kernels/factorial_turned_scan.h"
#include "kernels/factorial_viterbi.h"

namespace slv {
namespace {

// The transitions into one state of each item, where the states before lie: a vector for each state of the chains
// before the cut, and a row for each of the others.
template <class T>
struct TurnedInto {
  static constexpr int W = kWidth<T>;
  const TurnedSplit split;
  const int64_t tails, width, group;  // width: of a row
  const Factorial<T>& c;
  const LaneEntries<T>& a;
  LaneInto<T> heads;
  T* tail;

  TurnedInto(Scratch& s, const Factorial<T>& c, const LaneEntries<T>& a, const TurnedSplit& split)
      : split(split),
        tails(c.m - split.head),
        width(split.items * split.q),
        group(W / split.items),
        c(c),
        a(a),
        heads(s, c, a, split.head),
        tail(s.take<T>(tails * width)) {}
  static int64_t scratch(const Factorial<T>& c, const TurnedSplit& split) {
    return LaneInto<T>::scratch(c) + Scratch::bytes<T>((c.m - split.head) * split.items * split.q);
  }
  // next: the joint state of each row, or -1: then `none` instead of transitions
  void look_up(const int64_t* next, int rows, T none) {
    int64_t lane[W];
    for (int l = 0; l < W; l++) lane[l] = l / group < rows ? next[l / group] : -1;
    heads.look_up(lane, none);
    T* to = tail;
    int64_t inner = split.q;
    c.each_chain([&](int64_t i, int64_t k, int64_t edge, int64_t) {
      if (i < split.head) return;
      inner /= k;
      for (int64_t r = 0; r < split.items; r++) {
        const int64_t state = r < rows ? next[r] : -1, j = state / inner % k;
        for (int64_t q = 0; q < split.q; q += k * inner)
          for (int64_t d = 0; d < k; d++, to += inner)
            std::fill_n(to, inner, state < 0 ? none : a.data[edge + d * k + j]);
      }
    });
  }
  // body(number of a row of states, vectors of the chains before the cut)
  template <class F>
  SLV_INLINE void each_row(F body) {
    heads.each_prefix(split.head, body);
  }
};

template <class T>
struct TurnedViterbi : TurnedBlock<T> {
  using Base = TurnedBlock<T>;
  using Index = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
  using Base::c, Base::items, Base::rows, Base::steps, Base::len, Base::split, Base::size, Base::group, Base::W;
  const LaneEntries<T>& a;
  TurnedSteps<T> move;
  TurnedInto<T> into;
  T *best, *scores;  // best: (steps, size)

  TurnedViterbi(const Factorial<T>& c, const LaneEntries<T>& a, const int64_t* items, int rows, Scratch& s)
      : Base(c, items, rows),
        a(a),
        move(c, a, split),
        into(s, c, a, split),
        best(s.take<T>(c.n * size)),
        scores(s.take<T>(size)) {
    this->bind_rows(s);
    move.bind(s, c, false);
  }
  static int64_t scratch(const Factorial<T>& c) {
    const TurnedSplit split = turned_split(c);
    return TurnedInto<T>::scratch(c, split) + Scratch::bytes<T>(c.n * c.states * split.items) +
           Scratch::bytes<T>(c.states * split.items) + Base::row_scratch(c.states) +
           TurnedSteps<T>::scratch(c, split, false);
  }
  T* saved(int64_t t) const { return best + t * size; }
  // The scores of a step, where its states lie; of a single item they lie so already.
  template <int Items>
  const T* scores_of(int64_t t) const {
    const T* src[Items];
    this->template find_rows<Items>(t, src);
    const bool joined = t == 0 && c.initial;
    if (Items == 1 && !joined) return src[0];
    this->template arrange<Items>(src, scores, [](int, vec<T> x) __attribute__((always_inline)) { return x; });
    for (int r = 0; joined && r < rows; r++) {
      const double* row = len[r] > 0 ? this->join(r) : nullptr;
      for (int64_t z = 0; row && z < c.states; z++) scores[this->place(r, z)] = T(row[z]);
    }
    return scores;
  }
  // As LaneViterbi::forward.
  template <int Items>
  void forward() {
    constexpr int64_t kEvery = 16;
    vec<T> offset{};
    for (int64_t t = 0; t < steps; t++) {
      typename LaneViterbi<T>::Add next{saved(t), scores_of<Items>(t), offset};
      if (t == 0)
        for (int64_t z = 0; z < size; z += W) next(z, vec<T>{});
      else
        move.template forward<MaxPlus>(saved(t - 1), next);
      offset = vec<T>{};
      if (t % kEvery == 0 && t > 0) {
        const vec<T> top = this->reduce(next.top, MaxOp());
        offset = (top > -kInf<T>)&(top < kInf<T>) ? top : offset;
      }
    }
  }
  void traceback(int64_t* paths) {
    int64_t next[W], last[W] = {};
    std::copy_n(len, rows, last);
    ivec<T> lane;
    for (int l = 0; l < W; l++) lane[l] = Index(l % group);
    for (int64_t t = steps - 1; t >= 0; t--) {
      for (int r = 0; r < rows; r++) next[r] = t + 1 < last[r] ? paths[items[r] * c.n + t + 1] : -1;
      into.look_up(next, rows, T(0));
      vec<T> top = splat(-kInf<T>);
      ivec<T> state{};
      into.each_row([&](int64_t p, const T* const* before) __attribute__((always_inline)) {
        for (int64_t v = 0; v < into.width; v += W) {
          vec<T> x = load(saved(t) + p * into.width + v);
          for (int64_t i = 0; i < split.head; i++) x += load(before[i]);
          for (int64_t i = 0; i < into.tails; i++) x += load(into.tail + i * into.width + v);
          const ivec<T> better = x > top;
          top = better ? x : top;
          state = better ? lane + Index(p * split.q + v) : state;
        }
      });
      for (int r = 0; r < rows; r++) {
        if (t >= last[r]) continue;
        T most = -kInf<T>;
        int64_t choice = -1;
        for (int64_t l = r * group; l < (r + 1) * group; l++)
          if (top[l] > most || (top[l] == most && state[l] < choice)) most = top[l], choice = state[l];
        if (!(most > -kInf<T>))
          last[r] = 0;  // nothing is possible
        else
          paths[items[r] * c.n + t] = choice;
      }
    }
  }
};

template <class T>
void turned_viterbi(const Factorial<T>& c, const int64_t* items, int rows, int64_t* paths) {
  LaneEntries<T> a(c, items, rows);
  a.data = c.transition_of(items[0]);
  Scratch s(TurnedViterbi<T>::scratch(c));
  TurnedViterbi<T> v(c, a, items, rows, s);
  with_items<T>(v.split.items, [&](auto side_by_side) { v.template forward<decltype(side_by_side)::value>(); });
  v.traceback(paths);
}

template <class T>
void block_viterbi(const Factorial<T>& c, const int64_t* items, int rows, int64_t* paths) {
  for (int r = 0; r < rows; r++) std::fill(paths + items[r] * c.n, paths + (items[r] + 1) * c.n, -1);
  turned_split(c).head ? turned_viterbi(c, items, rows, paths) : lane_viterbi(c, items, rows, paths);
}

template <class T>
struct TurnedSampler {
  static constexpr int W = kWidth<T>;
  const TurnedScan<T>& f;
  uint64_t seed;
  int64_t *paths, stride;  // of one sample of all items
  TurnedInto<T> into;
  T *alpha, *weights, *product, *cumulative;  // cumulative: of whole rows, a vector for each

  TurnedSampler(const TurnedScan<T>& f, uint64_t seed, int64_t* paths, int64_t stride, Scratch& s)
      : f(f),
        seed(seed),
        paths(paths),
        stride(stride),
        into(s, f.c, f.a, f.split),
        alpha(s.take<T>(f.size)),
        weights(s.take<T>(f.size)),
        product(s.take<T>(into.width)),
        cumulative(s.take<T>(f.split.p * W)) {}
  static int64_t scratch(const Factorial<T>& c) {
    const TurnedSplit split = turned_split(c);
    return TurnedInto<T>::scratch(c, split) + 2 * Scratch::bytes<T>(c.states * split.items) +
           Scratch::bytes<T>(split.items * split.q) + Scratch::bytes<T>(split.p * W);
  }
  int64_t* path(int64_t s, int r) const { return paths + s * stride + f.items[r] * f.c.n; }

  void draw(int64_t samples) {
    int64_t last[W] = {};
    for (int r = 0; r < f.rows; r++) last[r] = !f.bad[r] && f.inverse[r] > 0 ? f.len[r] : 0;
    for (int64_t t = f.steps - 1; t >= 0; t--) {
      f.unpack(t, alpha);
      with_items<T>(f.split.items, [&](auto items) {
        for (int64_t s = 0; s < samples; s++) draw_step<decltype(items)::value>(t, s, last);
      });
    }
  }
  template <int Items>
  void draw_step(int64_t t, int64_t s, const int64_t* last) {
    Draws<W> random{seed, {}, {}};
    int64_t next[W];
    for (int r = 0; r < f.rows; r++) {
      random.item[r] = uint32_t(f.items[r]), random.sample[r] = uint32_t(s);
      next[r] = t + 1 < last[r] ? path(s, r)[t + 1] : -1;
    }
    into.look_up(next, f.rows, T(1));
    for (int64_t v = 0; v < into.width; v += W) {
      vec<T> x = load(into.tail + v);
      for (int64_t i = 1; i < into.tails; i++) x *= load(into.tail + i * into.width + v);
      store(product + v, x);
    }
    vec<T> total{};
    into.each_row([&](int64_t p, const T* const* before) __attribute__((always_inline)) {
      vec<T> weight = splat(T(1)), sum{};
      for (int64_t i = 0; i < f.split.head; i++) weight *= load(before[i]);
      for (int64_t v = 0; v < into.width; v += W) {
        const int64_t at = p * into.width + v;
        const vec<T> x = load(alpha + at) * (weight * load(product + v));
        store(weights + at, x);
        sum += x;
      }
      total += reduce_lanes<T, W / Items / 2>(sum, SumOp());
      store(cumulative + p * W, total);
    });
    const uint32_t* word = random(t);
    T u[W] = {};
    for (int r = 0; r < f.rows; r++) u[r] = T(uniform<T>(word[r]));
    vec<T> goal = f.spread(u) * total;
    goal = goal < total ? goal : total * T(1 - std::numeric_limits<T>::epsilon());
    ivec<T> row{};
    for (int64_t p = 0; p + 1 < f.split.p; p++) row -= load(cumulative + p * W) <= goal;
    for (int r = 0; r < f.rows; r++)
      if (t < last[r]) path(s, r)[t] = state_in(row[r * f.group], r, goal[r * f.group]);
  }
  // The first state of a row of states whose cumulative weight exceeds the goal; never one of weight 0.
  int64_t state_in(int64_t p, int r, T goal) const {
    const T* weight = weights + p * into.width + r * f.split.q;
    T seen = p > 0 ? cumulative[(p - 1) * W + r * f.group] : T(0);
    int64_t choice = 0;
    for (int64_t q = 0; q < f.split.q; q++) {
      if (!(weight[q] > T(0))) continue;
      choice = q;
      if ((seen += weight[q]) > goal) break;
    }
    return p * f.split.q + choice;
  }
};

}  // namespace
}  // namespace slv
