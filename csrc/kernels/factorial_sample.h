// Forward filtering, backward sampling of a block. State z is drawn with weight alpha_t(z) prod_i A_i(z^i, next^i); the
// first one, in index order, whose cumulative weight exceeds u * total is taken.
#pragma once
#include "core/philox.h"
#include "kernels/factorial_ladder.h"
#include "kernels/factorial_turned_search.h"

namespace slv {
namespace {

template <class In, class T>
struct LaneSampler {
  static constexpr int W = kWidth<T>;
  const LaneScan<In, T>& f;
  uint64_t seed;
  int64_t *paths, stride;  // of one sample of all items
  LaneInto<T> into;
  T* cumulative;

  LaneSampler(const LaneScan<In, T>& f, uint64_t seed, int64_t* paths, int64_t stride, Scratch& s)
      : f(f), seed(seed), paths(paths), stride(stride), into(s, f.c, f.a, f.c.m), cumulative(s.take<T>(f.size)) {}
  static int64_t scratch(const Factorial<In>& c) { return LaneInto<T>::scratch(c) + Scratch::bytes<T>(c.states * W); }
  int64_t* path(int64_t s, int r) const { return paths + s * stride + f.items[r] * f.c.n; }

  void draw(int64_t samples) {
    int64_t last[W] = {};
    for (int r = 0; r < f.rows; r++) last[r] = !f.bad[r] && f.inverse[r] > 0 ? f.len[r] : 0;
    for (int64_t t = f.steps - 1; t >= 0; t--) {
      f.unpack(t);
      for (int64_t s = 0; s < samples; s++) draw_step(t, s, last);
    }
  }
  void draw_step(int64_t t, int64_t s, const int64_t* last) {
    Draws<W> random{seed, {}, {}};
    int64_t next[W];
    for (int r = 0; r < W; r++) {
      random.item[r] = r < f.rows ? uint32_t(f.items[r]) : 0, random.sample[r] = uint32_t(s);
      next[r] = r < f.rows && t + 1 < last[r] ? path(s, r)[t + 1] : -1;
    }
    into.look_up(next, T(1));
    vec<T> total{};
    const int64_t last_size = f.c.sizes[f.c.m - 1];
    const T* own = into.of(f.c.m - 1);
    into.each_prefix(f.c.m - 1, [&](int64_t p, const T* const* before) __attribute__((always_inline)) {
      vec<T> weight = splat(T(1));
      for (int64_t i = 0; i + 1 < f.c.m; i++) weight *= load(before[i]);
      for (int64_t q = 0, z = p * last_size; q < last_size; q++, z++) {
        total += load(f.alpha(t) + z * W) * (weight * load(own + q * W));
        store(cumulative + z * W, total);
      }
    });
    const uint32_t* word = random(t);
    vec<T> goal{};
    for (int r = 0; r < W; r++) goal[r] = T(uniform<In>(word[r]));
    goal *= total;
    goal = goal < total ? goal : total * T(1 - std::numeric_limits<T>::epsilon());
    ivec<T> state{};
    for (int64_t z = 0; z + 1 < f.states; z++) state -= load(cumulative + z * W) <= goal;
    for (int r = 0; r < f.rows; r++)
      if (t < last[r]) path(s, r)[t] = state[r];
  }
};

// The same in exact log space, one item at a time.
template <class T>
void sample_log(const Factorial<T>& problem, int64_t b, uint64_t seed, int64_t samples, int64_t* paths,
                int64_t stride) {
  FactorialItem<T> c(problem, b);
  const int64_t states = c.states;
  Doubles alpha, w(states);
  if (c.len > 0) alpha = inside(c);
  for (int64_t s = 0; s < samples; s++) {
    int64_t* path = paths + s * stride;
    std::fill(path, path + c.n, -1);
    Draws<1> draw{seed, {uint32_t(b)}, {uint32_t(s)}};
    for (int64_t t = c.len - 1; t >= 0; t--) {
      std::copy_n(&alpha[t * states], states, w.begin());
      if (t + 1 < c.len) c.add_into(path[t + 1], w.data());
      const double top = *std::max_element(w.begin(), w.end());
      if (!(top > kNone)) break;  // only at the last step: no structure at all
      double sum = 0;
      for (double& x : w) sum += x = scalar_exp(x - top);
      path[t] = pick(w.data(), states, sum, double(uniform<T>(*draw(t))));
      if (path[t] < 0) break;
    }
  }
}

// The items that were drawn are marked in `done`.
template <class Pass, class Sampler, class In>
void sample_pass(const Factorial<In>& c, const int64_t* items, int rows, uint64_t seed, int64_t samples, int64_t* paths,
                 int64_t stride, bool* done) {
  Pass pass(c, items, rows, {}, false, Sampler::scratch(c), true);
  if (!pass.usable) return;
  pass.scan.run_forward();
  FlushDenormals flush;
  Sampler(pass.scan, seed, paths, stride, pass.scratch).draw(samples);
  for (int r = 0; r < rows; r++) done[r] = !pass.scan.bad[r];
}
// paths: (samples, batch, n), filled with -1
template <class In>
void block_sample(const Factorial<In>& c, const int64_t* items, int rows, uint64_t seed, int64_t samples,
                  int64_t* paths) {
  const int64_t stride = c.batch * c.n, most = factorial_rows_that_fit(c);
  bool done[kWidth<In>] = {}, wide[kWidth<double>];
  int64_t again[kWidth<In>];
  int count = 0;
  const auto first_rung = turned_split(c).head ? sample_pass<TurnedPass<In>, TurnedSampler<In>, In>
                                               : sample_pass<LanePass<In, In>, LaneSampler<In, In>, In>;
  first_rung(c, items, rows, seed, samples, paths, stride, done);
  for (int r = 0; r < rows; r++)
    if (!done[r]) again[count++] = items[r];
  for (int first = 0; first < count; first += int(most)) {
    const int some = std::min(count - first, int(most));
    std::fill_n(wide, some, false);
    if constexpr (!std::is_same_v<In, double>)
      sample_pass<LanePass<In, double>, LaneSampler<In, double>>(c, again + first, some, seed, samples, paths, stride,
                                                                 wide);
    for (int r = 0; r < some; r++)
      if (!wide[r]) sample_log(c, again[first + r], seed, samples, paths + again[first + r] * c.n, stride);
  }
}

}  // namespace
}  // namespace slv
