// Random factorial chains for the driver: scores, lengths, weights of items, and what must be computed of them, by the
// textbook recursions of the chain of joint states.
#pragma once
#include <algorithm>
#include <cstring>
#include <utility>

#include "chain_oracle.h"
#include "checks.h"
#include "cuda/factorial.h"
#include "driver.h"
#include "guarded.h"
#include "kernels/range.h"

using namespace slv::cuda;
using slv::Range;

struct Case {
  const char* name;
  Shape batch, lead;  // lead: of the transition and the initial scores
  int n;
  std::vector<int> sizes;
  double holes, scale;
  size_t shared = kHopperShared;
  bool ragged = true, initial = true, spills = false;  // spills: to global memory though there is room
  double offset = 0;        // of all unary scores; differences of log Z say nothing about second order then
  double growth = 1;        // of the scale of the transition, from one of its rows to the next
  double unary_scale = -1;  // where it is another than `scale`
  double broken = 0;        // a score that is no number; what it touches must leave the scaled domain
  int64_t states() const {
    int64_t s = 1;
    for (int k : sizes) s *= k;
    return s;
  }
};

// Scores of all parts, or what is summed over items of them.
struct Parts {
  Doubles unary, edges, starts;
};

template <class T>
struct Problem {
  const Case& o;
  std::mt19937_64 random{5};
  int64_t b, rows, states, steps;
  Factorial<T> c{};
  Guarded<T> unary, transition, initial, v_unary, v_transition, v_initial;
  Guarded<int64_t> length;
  Guarded<double> weight;

  static Factorial<T> shape(const Case& o) {
    Factorial<T> c{};
    c.n = o.n, c.m = int(o.sizes.size()), c.states = int(o.states());
    std::fill(c.sizes, c.sizes + kMostChains, 3);  // behind the chains' they mean nothing
    std::copy(o.sizes.begin(), o.sizes.end(), c.sizes);
    for (int k : o.sizes) c.edges += k * k, c.ends += k, c.padded += k * padded_row(k);
    return c;
  }
  Doubles draw(int64_t size, double holes, double scale) { return ::draw(random, size, holes, scale); }
  explicit Problem(const Case& o)
      : o(o),
        b(product(o.batch)),
        rows(product(o.lead)),
        states(o.states()),
        steps(std::max(o.n - 1, 0)),
        c(shape(o)),
        unary(draw(b * o.n * states, o.holes, o.unary_scale < 0 ? o.scale : o.unary_scale)),
        transition(draw(rows * c.edges, o.holes, o.scale)),
        initial(draw(rows * c.ends, 0, o.scale)),
        v_unary(draw(b * o.n * states, 0, 1)),
        v_transition(draw(b * steps * c.edges, 0, 1)),
        v_initial(draw(rows * c.ends, 0, 1)),
        length(b),
        weight(draw(b, 0, 1)) {
    for (int64_t i = 0; i < unary.size(); i++) unary.data()[i] += T(o.offset);
    for (int64_t i = 0; i < b; i++) length.data()[i] = i == 0 ? o.n + 1 : i == 1 ? 1 : i == 2 ? -1 : o.n - i % o.n;
    for (int64_t e = 0; e < transition.size(); e++) transition.data()[e] *= T(std::pow(o.growth, double(e / c.edges)));
    for (int64_t i = 0; i < b; i++)  // padding is never read
      for (int64_t e = len(i) * states; e < o.n * states; e++) unary.data()[i * o.n * states + e] = T(NAN);
    if (o.broken != 0) {
      transition.data()[c.edges - 1] = T(o.broken);
      unary.data()[(b - 1) * o.n * states + states - 1] = T(o.broken);
    }
    c = with(unary, transition, initial, row_map(o.lead, o.batch), false);
  }
  Factorial<T> with(Guarded<T>& u, Guarded<T>& a, Guarded<T>& first, const RowMap& matrix, bool per_step) {
    Factorial<T> f = c;
    f.batch = b, f.per_step = per_step;
    f.unary = u.data(), f.transition = a.data(), f.initial = o.initial ? first.data() : nullptr;
    f.matrix = matrix, f.initial_row = row_map(o.lead, o.batch);
    f.length = o.ragged ? length.data() : nullptr;
    return f;
  }
  // More than any workspace has, where it is to lie in global memory.
  int64_t spare() const { return o.spills ? (6 * c.m + 8) * states : 0; }
  int len(int64_t item) { return !o.ragged ? o.n : int(std::clamp<int64_t>(length[item], 0, o.n)); }
  // each(place among the edges, among the starts, state before, state after) of every chain
  template <class F>
  void each_chain(int64_t z, int64_t next, F&& each) const {
    int edge = 0, start = 0;
    for (int64_t inner = states; int k : o.sizes) {
      inner /= k;
      const int i = int(z / inner % k);
      each(edge + i * k + int(next / inner % k), start + i);
      edge += k * k, start += k;
    }
  }
  // Of the chain of joint states, moved by `step` along the direction, whose transition is its own for item and step.
  Scores scores(int64_t item, double step = 0) {
    const int64_t row = c.matrix.row(item);
    return {len(item), int(states),
            [=, this](int t, int z) {
              auto at = [&](Guarded<T>& u, Guarded<T>& first) {
                double x = u[(item * o.n + t) * states + z];
                if (t == 0 && o.initial) each_chain(z, 0, [&](int, int i) { x += double(first[row * c.ends + i]); });
                return x;
              };
              return at(unary, initial) + (step != 0 ? step * at(v_unary, v_initial) : 0);
            },
            [=, this](int t, int z, int next) {
              double x = 0;
              each_chain(z, next, [&](int e, int) {
                x += double(transition[row * c.edges + e]);
                if (step != 0) x += step * double(v_transition[(item * steps + t) * c.edges + e]);
              });
              return x;
            }};
  }

  Parts zeros() const { return {Doubles(b * o.n * states), Doubles(rows * c.edges), Doubles(rows * c.ends)}; }
  // An item's expected parts; its edges step by step into `by_step` where it is given.
  void add(Parts& s, int64_t item, double w, const Posterior& p, Doubles* by_step = nullptr) {
    const int64_t row = c.matrix.row(item);
    const int n = len(item);
    for (int64_t e = 0; e < n * states; e++) s.unary[item * o.n * states + e] += w * p.unary[e];
    for (int64_t z = 0; z < states && n > 0; z++)
      each_chain(z, 0, [&](int, int i) { s.starts[row * c.ends + i] += w * p.unary[z]; });
    for (int t = 0; t + 1 < n; t++)
      for (int64_t z = 0; z < states; z++)
        for (int64_t next = 0; next < states; next++)
          each_chain(z, next, [&](int e, int) {
            const double x = w * p.edges[(t * states + z) * states + next];
            s.edges[row * c.edges + e] += x;
            if (by_step) (*by_step)[(item * steps + t) * c.edges + e] += x;
          });
  }

  static void same(Guarded<T>& found, const Doubles& expected, double tolerance, const char* what) {
    double most = 1;
    for (double x : expected) most = std::max(most, std::abs(x));
    for (int64_t i = 0; i < found.size(); i++) close(found[i] / most, expected[i] / most, tolerance, what, i);
    found.check(what);
  }
  struct Found {
    Guarded<T> unary, edges, starts;
  };
  Found results() const {
    return {Guarded<T>(b * o.n * states), Guarded<T>(rows * c.edges), Guarded<T>(rows * c.ends)};
  }
  void compare(Found& f, const Parts& expected, double tolerance, const char* what) {
    run_sum_starts(c, c.initial_row, f.unary.data(), f.starts.data(), nullptr);
    same(f.unary, expected.unary, tolerance, what);
    same(f.edges, expected.edges, tolerance, what);
    same(f.starts, expected.starts, tolerance, what);
  }
};
