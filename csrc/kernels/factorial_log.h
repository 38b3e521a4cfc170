// The exact recursions in log space, one item at a time, float64 inside (Ghahramani & Jordan 1997, appendix B).
//
// A step is m micro-steps, each along one chain:  a'(o, j, i) = SUM_k a(o, k, i) + A[k, j].  A layer is taken as
// (k, rest), the chain to be moved outermost, and left as (rest, j): after m micro-steps every chain is back in its
// place, and lanes are always the states j of one row of A. So one step costs S sum k_i terms, not S^2.
#pragma once
#include <algorithm>

#include "core/philox.h"
#include "core/semiring.h"
#include "kernels/factorial.h"

namespace slv {
namespace {

template <class T>
struct FactorialItem {
  const Factorial<T>& c;
  int64_t len, n, m, states;
  const T *unary, *transition, *initial;
  FactorialItem(const Factorial<T>& c, int64_t b)
      : c(c),
        len(c.len(b)),
        n(c.n),
        m(c.m),
        states(c.states),
        unary(c.unary + b * c.n * c.states),
        transition(c.transition_of(b)),
        initial(c.initial_of(b)) {}
  // the matrices of the step from t to t + 1
  const T* step(int64_t t) const { return transition + (c.per_step ? t : 0) * c.edges; }
  // unary scores, and at the first step the initial ones
  void row(int64_t t, double* out) const {
    std::copy(unary + t * states, unary + (t + 1) * states, out);
    if (t > 0 || !initial) return;
    c.each_chain([&](int64_t, int64_t k, int64_t, int64_t end) {
      int64_t inner = inner_of(end);
      for (int64_t z = 0; z < states; z++) out[z] += double(initial[end + z / inner % k]);
    });
  }
  // w(z) += sum over i of A_i[z^i, next^i], in the order in which micro-steps add them
  void add_into(int64_t next, double* w) const {
    int64_t inner = states;
    c.each_chain([&](int64_t, int64_t k, int64_t edge, int64_t) {
      const int64_t block = inner;
      inner /= k;
      const T* column = transition + edge + next / inner % k;
      for (int64_t o = 0; o < states; o += block)
        for (int64_t i = 0; i < k; i++) {
          const double a = double(column[i * k]);
          double* x = w + o + i * inner;
          for (int64_t q = 0; q < inner; q++) x[q] += a;
        }
    });
  }

 private:
  int64_t inner_of(int64_t end) const {  // states of the chains after the one whose initial scores begin there
    int64_t inner = 1;
    c.each_chain([&](int64_t, int64_t k, int64_t, int64_t mine) { inner *= mine > end ? k : 1; });
    return inner;
  }
};

// A micro-step: from (k, rest), of stride `rest`, into (rest, k).
template <class T>
struct MicroStep {
  const T* a;  // (k, k)
  int64_t k, rest;
  vd edge(int64_t i, int64_t j) const { return load_as<double>(a + i * k + j, int(k - j), kNone); }
  vd term(const double* from, int64_t r, int64_t i, int64_t j) const { return splat(from[i * rest + r]) + edge(i, j); }
  // body(r, j) for every vector of states
  template <class F>
  void each(F&& body) const {
    for (int64_t r = 0; r < rest; r++)
      for (int64_t j = 0; j < k; j += kLanes) body(r, j);
  }
  void forward(const double* from, double* to) const {
    each([&](int64_t r, int64_t j) {
      const vd sum = Log::lanes(k, [&](int64_t i) { return term(from, r, i, j); });
      store_n<double>(to + r * k + j, sum, int(k - j));
    });
  }
};
template <class T, class F>
void each_micro_step(const FactorialItem<T>& c, F&& body) {
  c.c.each_chain([&](int64_t i, int64_t k, int64_t edge, int64_t) {
    body(i, edge, MicroStep<T>{c.transition + edge, k, c.states / k});
  });
}
template <class T, class F>
void each_micro_step_back(const FactorialItem<T>& c, F&& body) {
  int64_t edge = c.c.edges;
  for (int64_t i = c.m - 1; i >= 0; i--) {
    const int64_t k = c.c.sizes[i];
    edge -= k * k;
    body(i, edge, MicroStep<T>{c.transition + edge, k, c.states / k});
  }
}

// The layers of one step: (m, S) from the values before it, which are layer 0; the last micro-step fills `out`.
template <class T>
void layers_of(const FactorialItem<T>& c, const double* before, double* layers, double* out) {
  std::copy(before, before + c.states, layers);
  each_micro_step(c, [&](int64_t i, int64_t, const MicroStep<T>& s) {
    const double* from = layers + i * c.states;
    s.forward(from, i + 1 < c.m ? layers + (i + 1) * c.states : out);
  });
}

template <class T>
Doubles inside(const FactorialItem<T>& c) {
  const int64_t states = c.states;
  Doubles alpha(c.len * states), layers(c.m * states), u(states);
  for (int64_t t = 0; t < c.len; t++) {
    double* out = alpha.data() + t * states;
    c.row(t, u.data());
    if (t > 0) layers_of(c, out - states, layers.data(), out);
    for (int64_t z = 0; z < states; z++) out[z] = t > 0 ? out[z] + u[z] : u[z];
  }
  return alpha;
}

template <class T>
double log_partition_log(const Factorial<T>& problem, int64_t b) {
  FactorialItem<T> c(problem, b);
  return c.len == 0 ? 0 : total<Log>(inside(c).data() + (c.len - 1) * c.states, c.states);
}

// The weights of the predecessors k of the states j.. of a micro-step, normalised where they are used, so that they are
// exact however large the potentials are.
template <class T>
struct MicroPredecessors {
  const MicroStep<T>& s;
  const double* from;
  int64_t r, j;
  vd shift, inverse{};
  MicroPredecessors(const MicroStep<T>& s, const double* from, int64_t r, int64_t j) : s(s), from(from), r(r), j(j) {
    const vd m = Max::lanes(s.k, [&](int64_t i) { return s.term(from, r, i, j); });
    shift = m > kNone ? m : vd{};
    for (int64_t i = 0; i < s.k; i++) inverse += exp<double>(s.term(from, r, i, j) - shift);
    inverse = inverse > 0.0 ? 1.0 / inverse : inverse;
  }
  vd weight(int64_t i) const { return exp<double>(s.term(from, r, i, j) - shift) * inverse; }
};

// Where the edges of chain i (at `edge` of P) and step t go, states j.. of row i.
template <class T>
SLV_INLINE void add_edges(double* sum, const MicroStep<T>& s, int64_t i, int64_t j, vd p) {
  double* to = sum + i * s.k + j;
  store_n<double>(to, load_n<double>(to, int(s.k - j), 0) + p, int(s.k - j));
}
// The edges of one step: into a float64 accumulator, or through one into the caller's row of that step.
template <class T>
struct StepEdges {
  const EdgeSink<T>& sink;
  Doubles own;
  StepEdges(const EdgeSink<T>& sink, int64_t edges) : sink(sink), own(sink.sum ? 0 : edges) {}
  double* begin() {
    std::fill(own.begin(), own.end(), 0.0);
    return sink.sum ? sink.sum : own.data();
  }
  void end(int64_t t) const {
    if (sink.direct)
      std::transform(own.begin(), own.end(), sink.direct + t * int64_t(own.size()), [](double x) { return T(x); });
  }
};
// Zeros in the padding of one item's outputs; all of it where no structure is possible.
template <class T>
void clear_from(int64_t t, const FactorialItem<T>& c, T* unary, const EdgeSink<T>& sink) {
  std::fill(unary + t * c.states, unary + c.n * c.states, T(0));
  if (sink.direct && c.n > 0)
    std::fill(sink.direct + std::clamp<int64_t>(t - 1, 0, c.n - 1) * c.c.edges, sink.direct + (c.n - 1) * c.c.edges,
              T(0));
}

// Smoothing from the filtered side, micro-step by micro-step: p(k, j) = p(j) p(k | j, what came before).
template <class T>
void marginals_log(const Factorial<T>& problem, int64_t b, double weight, T* unary, const EdgeSink<T>& sink) {
  FactorialItem<T> c(problem, b);
  const int64_t states = c.states;
  clear_from(c.len, c, unary, sink);
  if (c.len == 0) return;
  Doubles alpha = inside(c), layers(c.m * states), after(states), mu(states), before(states);
  if (!softmax(&alpha[(c.len - 1) * states], states, weight, mu.data())) return clear_from(0, c, unary, sink);
  StepEdges<T> edges(sink, problem.edges);
  for (int64_t t = c.len - 1;; t--) {
    std::transform(mu.begin(), mu.end(), unary + t * states, [](double x) { return T(x); });
    if (t == 0) break;
    layers_of(c, &alpha[(t - 1) * states], layers.data(), after.data());
    double* sum = edges.begin();
    each_micro_step_back(c, [&](int64_t i, int64_t edge, const MicroStep<T>& s) {
      std::fill(before.begin(), before.end(), 0.0);
      s.each([&](int64_t r, int64_t j) {
        const MicroPredecessors<T> from(s, &layers[i * states], r, j);
        const vd next = load_n<double>(&mu[r * s.k + j], int(s.k - j), 0);
        for (int64_t q = 0; q < s.k; q++) {
          const vd p = from.weight(q) * next;
          before[q * s.rest + r] += hsum<double>(p);
          add_edges(sum + edge, s, q, j, p);
        }
      });
      std::swap(mu, before);
    });
    edges.end(t - 1);
  }
}

// Second order as in chain_log.h, a micro-step being a step: with f = <v, parts>, prefix(j) = E[f up to here | j] and
// suffix(k) = E[f from here | k], cov(part) = p(part) (prefix + v(part) + suffix - E f).
template <class T>
void prefix_layers(const FactorialItem<T>& c, const T* direction, const double* layers, const double* before,
                   double* prefix, double* out) {
  std::copy(before, before + c.states, prefix);
  each_micro_step(c, [&](int64_t i, int64_t edge, const MicroStep<T>& s) {
    const MicroStep<T> d{direction + edge, s.k, s.rest};
    const double* from = prefix + i * c.states;
    double* to = i + 1 < c.m ? prefix + (i + 1) * c.states : out;
    s.each([&](int64_t r, int64_t j) {
      const MicroPredecessors<T> p(s, layers + i * c.states, r, j);
      vd mean{};
      for (int64_t q = 0; q < s.k; q++) mean += where_positive(p.weight(q), d.term(from, r, q, j));
      store_n<double>(to + r * s.k + j, mean, int(s.k - j));
    });
  });
}
template <class T>
Doubles prefix_means(const FactorialItem<T>& c, const FactorialItem<T>& v, const Doubles& alpha) {
  const int64_t states = c.states;
  Doubles prefix(c.len * states), layers(c.m * states), means(c.m * states), after(states), u(states);
  for (int64_t t = 0; t < c.len; t++) {
    double* out = prefix.data() + t * states;
    v.row(t, u.data());
    if (t > 0) {
      layers_of(c, &alpha[(t - 1) * states], layers.data(), after.data());
      prefix_layers(c, v.step(t - 1), layers.data(), out - states, means.data(), out);
    }
    for (int64_t z = 0; z < states; z++) out[z] += u[z];
  }
  return prefix;
}

// The way back over one step: mu and the suffix of the states after it become those of the states before.
template <class T>
struct SecondOrder {
  const FactorialItem<T>& c;
  double weight, mean;
  Doubles mu, suffix, before, sum;
  SecondOrder(const FactorialItem<T>& c, double weight)
      : c(c), weight(weight), mean(0), mu(c.states), suffix(c.states), before(c.states), sum(c.states) {}
  void step(const T* direction, const double* layers, const double* prefix, double* edges) {
    each_micro_step_back(c, [&](int64_t i, int64_t edge, const MicroStep<T>& s) {
      const MicroStep<T> d{direction + edge, s.k, s.rest};
      std::fill(before.begin(), before.end(), 0.0);
      std::fill(sum.begin(), sum.end(), 0.0);
      s.each([&](int64_t r, int64_t j) {
        const MicroPredecessors<T> from(s, layers + i * c.states, r, j);
        const int n = int(s.k - j);
        const vd next = load_n<double>(&mu[r * s.k + j], n, 0), rest = load_n<double>(&suffix[r * s.k + j], n, 0);
        for (int64_t q = 0; q < s.k; q++) {
          const int64_t at = q * s.rest + r;
          const vd p = from.weight(q) * next, f = d.edge(q, j) + rest;
          before[at] += hsum<double>(p);
          sum[at] += hsum<double>(where_positive(p, f));
          add_edges(edges + edge, s, q, j, where_positive(p, (f + (prefix[i * c.states + at] - mean)) * weight));
        }
      });
      for (int64_t z = 0; z < c.states; z++) suffix[z] = before[z] > 0 ? sum[z] / before[z] : 0;
      std::swap(mu, before);
    });
  }
};

template <class T>
double hvp_log(const Factorial<T>& problem, int64_t b, double weight, const Factorial<T>& direction, T* unary,
               const EdgeSink<T>& sink) {
  FactorialItem<T> c(problem, b), v(direction, b);
  const int64_t states = c.states;
  clear_from(c.len, c, unary, sink);
  if (c.len == 0) return 0;
  Doubles alpha = inside(c), layers(c.m * states), means(c.m * states), after(states), u(states);
  SecondOrder<T> back(c, weight);
  const double* last = &alpha[(c.len - 1) * states];
  if (!softmax(last, states, 1, back.mu.data())) return clear_from(0, c, unary, sink), 0;
  const Doubles prefix = prefix_means(c, v, alpha);
  for (int64_t z = 0; z < states; z++)
    if (back.mu[z] > 0) back.mean += back.mu[z] * prefix[(c.len - 1) * states + z];
  StepEdges<T> edges(sink, problem.edges);
  for (int64_t t = c.len - 1;; t--) {
    const double* at = &prefix[t * states];
    for (int64_t z = 0; z < states; z++) {
      const double x = back.mu[z] * (at[z] + back.suffix[z] - back.mean);
      unary[t * states + z] = T(back.mu[z] > 0 ? weight * x : 0);
    }
    if (t == 0) break;
    v.row(t, u.data());
    for (int64_t z = 0; z < states; z++) back.suffix[z] += u[z];
    layers_of(c, &alpha[(t - 1) * states], layers.data(), after.data());
    prefix_layers(c, v.step(t - 1), layers.data(), at - states, means.data(), after.data());
    double* sum = edges.begin();
    back.step(v.step(t - 1), layers.data(), means.data(), sum);
    edges.end(t - 1);
  }
  return back.mean;
}

}  // namespace
}  // namespace slv
