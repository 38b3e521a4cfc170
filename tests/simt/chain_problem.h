// Random chains for the drivers: scores, lengths, weights of items, and the memory that kernels work in.
#pragma once
#include "chain_oracle.h"
#include "checks.h"
#include "cuda/chain.h"
#include "driver.h"
#include "guarded.h"
#include "kernels/range.h"

using namespace slv::cuda;
using slv::Range;

// Scores that are made by hand, as no random ones are likely to be so.
enum Made { kRandom, kBrink, kTail };

struct Case {
  const char* name;
  Shape batch, lead;  // lead: of the transition and of initial
  int n, k;
  bool per_step;
  double holes, scale;
  int chunks = 1;
  size_t shared = kHopperShared;
  bool ragged = true, ends = true;
  double growth = 1;        // of the scale of the transition, from one of its rows to the next
  double unary_scale = -1;  // where it is another than `scale`
  double offset = 0;        // of all unary scores
  double broken = 0;        // a score that the scaled domain cannot hold; what it touches must leave it
  Made made = kRandom;
};

template <class T>
struct Problem {
  const Case& o;
  std::mt19937_64 random{7};
  int64_t b, rows, steps, kk;
  Guarded<T> unary, transition, initial, final, v_unary, v_transition, v_initial, v_final;
  Guarded<int64_t> length;
  Guarded<double> weight;
  Chain<T> c;

  Doubles draw(int64_t size, double holes, double scale) { return ::draw(random, size, holes, scale); }
  explicit Problem(const Case& o)
      : o(o),
        b(product(o.batch)),
        rows(product(o.lead)),
        steps(o.per_step ? o.n - 1 : 1),
        kk(int64_t(o.k) * o.k),
        unary(draw(b * o.n * o.k, o.holes, o.unary_scale < 0 ? o.scale : o.unary_scale)),
        transition(draw(rows * steps * kk, o.holes, o.scale)),
        initial(draw(rows * o.k, 0, 1)),
        final(draw(b * o.k, 0, 1)),
        v_unary(draw(b * o.n * o.k, 0, 1)),
        v_transition(draw(rows * steps * kk, 0, 1)),
        v_initial(draw(rows * o.k, 0, 1)),
        v_final(draw(b * o.k, 0, 1)),
        length(b),
        weight(draw(b, 0, 1)) {
    const int64_t odd[] = {o.n + 3, 1, -1};
    for (int64_t i = 0; i < b; i++) length.data()[i] = i < 3 ? odd[(i + o.n) % 3] : o.n - i % o.n;
    const int64_t row = steps * kk;
    for (int64_t e = 0; e < transition.size(); e++) transition.data()[e] *= T(std::pow(o.growth, double(e / row)));
    for (int64_t e = 0; e < unary.size(); e++) unary.data()[e] += T(o.offset);
    for (int64_t i = 0; i < b; i++) {  // padding is never read
      for (int64_t e = int64_t(len(i)) * o.k; e < o.n * o.k; e++) unary.data()[i * o.n * o.k + e] = T(NAN);
      const int64_t used = std::max(len(i) - 1, 0) * kk;
      for (int64_t e = used; o.per_step && rows == b && e < row; e++) transition.data()[i * row + e] = T(NAN);
    }
    c = chain(unary, transition, initial, final);
  }
  Chain<T> chain(Guarded<T>& u, Guarded<T>& a, Guarded<T>& i, Guarded<T>& f) {
    const RowMap map = row_map(o.lead, o.batch);
    return {b,
            o.n,
            o.k,
            o.per_step,
            u.data(),
            a.data(),
            o.ends ? i.data() : nullptr,
            o.ends ? f.data() : nullptr,
            map,
            map,
            row_map(o.batch, o.batch),
            o.ragged ? length.data() : nullptr};
  }
  int len(int64_t item) { return !o.ragged ? o.n : int(std::clamp<int64_t>(length[item], 0, o.n)); }
  // The scores of an item, moved by `by` times v.
  Scores scores(int64_t item, double by = 0) {
    const int k = o.k, n = len(item);
    const int64_t row = c.matrix.row(item), u = item * o.n * k, a = row * steps * kk, i = row * k, f = item * k;
    auto at = [by](Guarded<T>& x, Guarded<T>& v, int64_t e) { return double(x[e]) + by * double(v[e]); };
    return {n, k,
            [=, this](int t, int s) {
              double x = at(unary, v_unary, u + t * k + s);
              if (o.ends && t == 0) x += at(initial, v_initial, i + s);
              if (o.ends && t == n - 1) x += at(final, v_final, f + s);
              return x;
            },
            [=, this](int t, int s, int r) {
              return at(transition, v_transition, a + (o.per_step ? t : 0) * kk + s * k + r);
            }};
  }

  // What the weighted sum of marginals over items must be.
  struct Sums {
    Doubles unary, edges, initial, final;
  };
  void add(Sums& s, int64_t item, double w, const Posterior& p) {
    const int n = len(item), k = o.k;
    const int64_t row = c.matrix.row(item);
    for (int e = 0; e < n * k; e++) s.unary[item * o.n * k + e] += w * p.unary[e];
    for (size_t e = 0; e < p.edges.size(); e++) s.edges[row * steps * kk + (o.per_step ? e : e % kk)] += w * p.edges[e];
    for (int i = 0; n > 0 && i < k; i++) {
      s.initial[row * k + i] += w * p.unary[i];
      s.final[item * k + i] += w * p.unary[(n - 1) * k + i];
    }
  }
  Sums zeros() { return {Doubles(b * o.n * o.k), Doubles(rows * steps * kk), Doubles(rows * o.k), Doubles(b * o.k)}; }

  struct Gradient {
    Guarded<T> unary, edges, initial, final;
    Guarded<double> partial;
    Edges<T> sums;
  };
  Gradient gradient() {
    Gradient g{Guarded<T>(b * o.n * o.k),
               Guarded<T>(rows * steps * kk),
               Guarded<T>(rows * o.k),
               Guarded<T>(b * o.k),
               Guarded<double>(rows * o.chunks * steps * kk),
               {}};
    const bool direct = rows == b;
    g.sums = {c.matrix, o.per_step, direct ? 1 : o.chunks, direct ? nullptr : g.partial.data(),
              direct ? g.edges.data() : nullptr};
    return g;
  }
  void finish(Gradient& g) {
    if (!g.sums.direct) finish_edges(c, g.sums, g.edges.data(), nullptr);
    sum_ends(c, c.matrix, g.unary.data(), false, g.initial.data(), nullptr);
    sum_ends(c, row_map(o.batch, o.batch), g.unary.data(), true, g.final.data(), nullptr);
  }
  void compare(Gradient& g, const Sums& e, double tolerance, const char* what) {
    const std::pair<Guarded<T>*, const Doubles*> all[] = {
        {&g.unary, &e.unary}, {&g.edges, &e.edges}, {&g.initial, &e.initial}, {&g.final, &e.final}};
    for (auto [found, expected] : all) {
      double most = 1;
      for (double x : *expected) most = std::max(most, std::abs(x));
      for (int64_t i = 0; i < found->size(); i++) close((*found)[i] / most, (*expected)[i] / most, tolerance, what, i);
      found->check(what);
    }
    g.partial.check(what);
  }
  // Calls body(l) for log space in two ranges of items; `which`: those that are done, all where it is null.
  template <class F>
  void ranges(const T* which, int stride, F&& body) {
    const int64_t half = (b + 1) / 2, part = half * o.n * o.k;
    Guarded<double> top(part), sum(part), mu(part);
    for (int64_t first = 0; first < b; first += half)
      body(LogSpace<T>{first, std::min(half, b - first), which, stride, top.data(), sum.data(), mu.data()});
    for (Guarded<double>* x : {&top, &sum, &mu}) x->check("log space");
  }
};

// What the scaled domain works in.
template <class T>
struct Workspace {
  Guarded<T> matrix, into, exponent, row_exponent, e, alpha, scale, meta, narrow, g, redo;
  Guarded<int> kind, code;
  Guarded<double> log_z;
  Scaled<T> s;

  explicit Workspace(const Problem<T>& p)
      : matrix(p.c.matrices() * p.kk),
        into(p.c.matrices() * p.kk),
        exponent(p.c.matrices()),
        row_exponent(p.b * p.o.n),
        e(row_exponent.size() * padded<T>(p.o.k)),
        alpha(e.size()),
        scale(row_exponent.size()),
        meta(p.b * kMeta),
        narrow(p.b),
        g(e.size()),
        redo(p.b),
        kind(exponent.size()),
        code(row_exponent.size()),
        log_z(p.b),
        s{p.o.per_step ? nullptr : matrix.data(),
          p.o.per_step ? nullptr : into.data(),
          exponent.data(),
          kind.data(),
          row_exponent.data(),
          code.data(),
          e.data(),
          alpha.data(),
          scale.data(),
          meta.data(),
          log_z.data(),
          narrow.data()} {}
  void check() {
    for (Guarded<T>* x : {&matrix, &into, &exponent, &row_exponent, &e, &alpha, &scale, &meta, &narrow, &g, &redo})
      x->check("workspace");
    kind.check("kind"), code.check("code"), log_z.check("log Z");
  }
};

// What a chain that is cut into chunks works in besides.
template <class T>
struct Chunks {
  Guarded<int> kind, lost;
  Guarded<T> product, edge;
  Guarded<double> exponent, taken;
  Cut<T> cut, again;

  Chunks(const Problem<T>& p, int size) : Chunks(p, size, (p.o.n + size - 1) / size) {}
  void check() {
    kind.check("kinds"), lost.check("lost"), product.check("products"), edge.check("edges");
    exponent.check("powers of products"), taken.check("powers of edges");
  }

 private:
  Chunks(const Problem<T>& p, int size, int count)
      : kind(p.b),
        lost(p.b * count),
        product(lost.size() * p.kk),
        edge(lost.size() * p.o.k),
        exponent(edge.size()),
        taken(lost.size()),
        cut{size, count, kind.data(), product.data(), exponent.data(), edge.data(), taken.data(), lost.data()},
        again(uncut(p.c)) {
    again.only = lost.data(), again.of = count;
  }
};
