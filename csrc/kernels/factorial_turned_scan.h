// Forward-backward in the second layout (factorial_turned.h); recursions and range are those of factorial_scan.h.
#pragma once
#include <numeric>

#include "kernels/factorial_adjoint.h"
#include "kernels/factorial_turned.h"

namespace slv {
namespace {

template <class T>
struct TurnedScan : TurnedBlock<T> {
  using Base = TurnedBlock<T>;
  using Base::c, Base::rows, Base::states, Base::steps, Base::len, Base::exponent, Base::bad, Base::W, Base::watch;
  using Base::split, Base::size, Base::group;
  const LaneTransitions<T>& a;
  TurnedSteps<T> move;
  LaneChart<T> chart;  // as there, rows of Q states of each item in place of states
  T *ring = nullptr, *e = nullptr;
  bool watched = false;

  TurnedScan(const Factorial<T>& c, const LaneTransitions<T>& a, const int64_t* items, int rows)
      : Base(c, items, rows), a(a), move(c, a, split) {
    bool strict[W] = {};
    for (int r = 0; r < rows; r++) {
      bad[r] = !a.usable[r], strict[r] = !a.mild[r];
      watched = watched || strict[r];
    }
    for (int l = 0; l < W; l++) watch[l] = strict[l / group] ? -1 : 0;
  }
  static int64_t scratch(const Factorial<T>& c, bool both) {
    const TurnedSplit split = turned_split(c);
    return Base::row_scratch(c.states) + TurnedSteps<T>::scratch(c, split, both) +
           Scratch::bytes<T>(2 * c.states * split.items) + Scratch::bytes<T>(c.states * split.items);
  }
  void bind(Scratch& s, const LaneChart<T>& to, bool both) {
    this->bind_rows(s);
    move.bind(s, c, both);
    ring = s.take<T>(2 * size);
    e = s.take<T>(size);
    chart = to;
  }
  void row_sums(const T* x, double* sum) const {
    double lanes[W];
    lane_sums(x, size / W, lanes);
    for (int r = 0; r < split.items; r++) sum[r] = std::accumulate(lanes + r * group, lanes + (r + 1) * group, 0.0);
  }
  bool whole() const { return rows == split.items && chart.states; }
  T* saved(int64_t t) const { return chart.states + t * states * rows; }
  T* alpha(int64_t t) const { return whole() ? saved(t) : ring + t % 2 * size; }
  void pack(int64_t t) const {
    const int used = int(rows * group);
    for (int64_t p = 0; chart.states && !whole() && p < split.p; p++)
      store_n(saved(t) + p * used, load(alpha(t) + p * W), used);
  }
  void unpack(int64_t t, T* to) const {
    if (whole()) return (void)std::copy(saved(t), saved(t) + size, to);
    const int used = int(rows * group);
    for (int64_t p = 0; p < split.p; p++) store(to + p * W, load_n<T>(saved(t) + p * used, used, T(0)));
  }

  // e of step t; its powers of two go into exponent[].
  template <bool Watched>
  void exponentiate(int64_t t) {
    with_items<T>(split.items, [&](auto items) { exponentiate_items<Watched, decltype(items)::value>(t); });
  }
  template <bool Watched, int Items>
  void exponentiate_items(int64_t t) {
    const T* src[Items];
    vec<T> N[Items];
    ivec<T> lost[Items];
    this->template find_rows<Items>(t, src);
#pragma GCC unroll 8
    for (int r = 0; r < Items; r++) {
      vec<T> most[2] = {splat(-kInf<T>), splat(-kInf<T>)};
      int64_t z = 0;
      for (; z + 2 * W <= states; z += 2 * W)
        for (int i = 0; i < 2; i++) most[i] = vmax(most[i], load(src[r] + z + i * W));
      for (; z < states; z += W) most[0] = vmax(most[0], load(src[r] + z));
      const vec<T> top = splat(hmax<T>(vmax(most[0], most[1])));
      const ivec<T> fits = (top > -Range<T>::huge) & (top < Range<T>::huge);
      N[r] = fits ? nearest<T>(top * T(1.44269504088896341)) : vec<T>{};
      lost[r] = ~(fits | (top == -kInf<T>));
    }
    const ivec<T> strict = watch;
    this->template arrange<Items>(src, e, [&](int r, vec<T> x) __attribute__((always_inline)) {
      const vec<T> y = exp_scaled<T>(x, N[r]);
      if constexpr (Watched) lost[r] |= (y == T(0)) & (x > -kInf<T>)&splat_lane(strict, r * group);
      return y;
    });
    for (int r = 0; r < rows; r++) {
      if (t == 0 && c.initial && len[r] > 0) {
        if (!exponentiate_joined(r) && watch[r * group]) bad[r] = true;
        continue;
      }
      exponent[r] += double(N[r][0]);
      if (any<T>(lost[r])) bad[r] = true;
    }
  }
  static ivec<T> splat_lane(ivec<T> v, int64_t lane) { return v[lane] - ivec<T>{}; }
  bool exponentiate_joined(int r) {
    return this->each_joined(r, [&](int64_t z, T y) { e[this->place(r, z)] = y; });
  }

  template <bool Watched>
  void forward() {
    vec<T> s = splat(T(1));
    ivec<T> thin{};
    for (int64_t t = 0; t < steps; t++) {
      exponentiate<Watched>(t);
      LaneAdvance<T, Watched> next{alpha(t), e, s};
      if (t == 0)
        for (int64_t at = 0; at < size; at += W) next(at, splat(T(1)));
      else
        move.template forward<PlusTimes>(alpha(t - 1), next);
      thin |= next.thin;
      for (int r = 0; chart.scales && r < rows; r++) chart.scales[t * rows + r] = s[r * group];
      finish(t);
      pack(t);
      const ivec<T> power = exponent_of<T>(vmax(this->reduce(next.top, MaxOp()), splat(kSmallest<T>)));
      s = power_of_two<T>(-power);
      for (int r = 0; r < rows; r++) exponent[r] += double(power[r * group]);
    }
    thin &= watch;
    for (int l = 0; l < rows * group; l++)
      if (thin[l]) bad[l / group] = true;
  }
  void run_forward() {
    FlushDenormals flush;
    watched ? forward<true>() : forward<false>();
  }
  void finish(int64_t t) {
    if (std::none_of(len, len + rows, [t](int64_t l) { return l - 1 == t; })) return;
    double sum[W];
    row_sums(alpha(t), sum);
    for (int r = 0; r < rows; r++)
      if (len[r] - 1 == t) this->conclude(r, sum[r], double(t) * a.exponent[r]);
  }
};

template <class T>
struct TurnedAdjoint {
  static constexpr int W = kWidth<T>;
  static constexpr int64_t kChunk = 32;  // steps whose edges are added up in T
  TurnedScan<T>& f;                      // with a chart, and inverse[]
  const int rows;
  const int64_t states, edges;
  T* unary;
  T* const* edge_rows;
  const bool per_step;
  T *g[2] = {}, *mu = nullptr;
  double* sums = nullptr;
  T ratio[W] = {}, common[W] = {};
  bool skip[W] = {}, bad[W] = {};

  TurnedAdjoint(TurnedScan<T>& f, T* unary, T* const* edge_rows, bool per_step)
      : f(f),
        rows(f.rows),
        states(f.states),
        edges(f.c.edges),
        unary(unary),
        edge_rows(edge_rows),
        per_step(per_step) {}
  static int64_t scratch(const Factorial<T>& c) {
    const int64_t items = turned_split(c).items;
    return 3 * Scratch::bytes<T>(c.states * items) + Scratch::bytes<double>(items * c.edges);
  }
  void bind(Scratch& s) {
    for (T*& x : g) x = s.take<T>(f.size);
    mu = s.take<T>(f.size);
    sums = s.take<double>(f.split.items * edges);
    std::fill(sums, sums + f.split.items * edges, 0.0);
  }
  void weigh(const double* weight) {
    for (int r = 0; r < rows; r++) split_weight(weight[r], ratio[r], common[r]);
  }

  template <bool Watched>
  void backward() {
    ivec<T> thin{};
    T seed[W] = {}, start[W] = {}, scale[W];
    std::fill(scale, scale + W, T(1));
    for (int r = 0; r < rows; r++) seed[r] = skip[r] ? T(0) : ratio[r] * f.inverse[r];
    const vec<T> all_common = f.spread(common);
    for (int64_t t = f.steps - 1; t >= 0; t--) {
      T* alpha = f.move.x(0);
      f.unpack(t, alpha);
      f.template exponentiate<false>(t);
      for (int r = 0; r < rows; r++)
        start[r] = f.len[r] - 1 == t ? seed[r] : T(0), scale[r] = f.chart.scales[t * rows + r];
      T* to = f.split.items == 1 ? unary + (f.items[0] * f.c.n + t) * states : mu;
      const T* before = f.whole() && t > 0 ? f.saved(t - 1) : alpha;
      LaneRetreat<T, Watched> next{alpha,           f.e,        before, g[t % 2], to, f.spread(scale),
                                   f.spread(start), all_common, f.watch};
      if (t == f.steps - 1)
        for (int64_t at = 0; at < f.size; at += W) next(at, vec<T>{});
      else
        f.move.backward(g[(t + 1) % 2], next);
      thin |= next.thin;
      if (to == mu) with_items<T>(f.split.items, [&](auto items) { scatter<decltype(items)::value>(t); });
      if (t % kChunk == 0) renew(t, to);
      if (per_step || t % kChunk == 0) f.move.collect(sums);
      if (per_step && t + 1 < f.steps) write_edges(t * edges);
    }
    for (int l = 0; Watched && l < rows * f.group; l++)
      if (thin[l] && !skip[l / f.group]) bad[l / f.group] = true;
  }
  void run_backward() {
    FlushDenormals flush;
    f.watched ? backward<true>() : backward<false>();
    for (int r = 0; r < rows; r++) skip[r] = skip[r] || bad[r];
    deliver();
  }
  // mu to the rows of the items
  template <int Items>
  void scatter(int64_t t) const {
    for (int64_t z = 0; z < states; z += W) {
      vec<T> x[Items];
#pragma GCC unroll 8
      for (int r = 0; r < Items; r++) x[r] = load(mu + z * Items + r * W);
      turn_pieces<Items, Items / 2, T>(x);
#pragma GCC unroll 8
      for (int r = 0; r < Items; r++)
        if (r < rows) store(unary + (f.items[r] * f.c.n + t) * states + z, x[r]);
    }
  }
  // See LaneAdjoint.
  void renew(int64_t t, const T* weighed) {
    double total[W];
    f.row_sums(weighed, total);
    T factor[W];
    std::fill(factor, factor + W, T(1));
    for (int r = 0; r < rows; r++) {
      const double x = double(ratio[r]) * double(common[r]) / total[r];
      if (std::abs(x - 1) < 0.01) factor[r] = T(x);
    }
    const vec<T> by = f.spread(factor);
    for (int64_t at = 0; at < f.size; at += W) store(g[t % 2] + at, load(g[t % 2] + at) * by);
  }
  // The sums where they belong, from an element of each row's edges on; they begin anew.
  void write_edges(int64_t first) const {
    for (int r = 0; r < rows; r++)
      for (int64_t e = 0; e < edges; e++)
        edge_rows[r][first + e] = T(sums[r * edges + e] * double(f.a.data[e]) * double(common[r]));
    std::fill(sums, sums + f.split.items * edges, 0.0);
  }
  void deliver() const {
    if (!per_step) write_edges(0);
    for (int r = 0; r < rows; r++) clear_padding(f.c, f.items[r], f.steps, unary, per_step ? edge_rows[r] : nullptr);
  }
};

}  // namespace
}  // namespace slv
