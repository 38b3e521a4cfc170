// The inside recursion over a semiring (Baker 1979; Goodman 1999), one item at a time, float64 inside.
//
//   M[y, z]  = SUM_k in(i, k, y) + in(k+1, j, z)                  pairs of children of the span i..j
//   in(i, j, A) = spans(i, j, A) + SUM_y,z rules(A, y, z) + M[y, z]
//
// in(i, i, .) are the scores of the preterminals. O(n^3 nt^2 + n^2 nt s^2) time, O(n^2 nt + nt s^2) memory.
#pragma once
#include <algorithm>
#include <type_traits>

#include "core/semiring.h"
#include "kernels/pcfg.h"

namespace slv {
namespace {

SLV_INLINE int64_t whole_vectors(int64_t k) { return (k + kLanes - 1) / kLanes * kLanes; }

// The pairs (y, z) of children in four blocks, as a child is a preterminal or not; rows of z padded to whole vectors.
// Every table over pairs has this layout, so that what a span can have for children is one run of elements.
struct Layout {
  struct Block {
    int64_t y, z, ny, nz, pitch, at;  // symbols y.., z..; (ny, pitch) elements at `at`
  };
  enum { kWide, kLeafRight, kLeafLeft, kLeaves };
  int64_t size = 0;
  Block block[4];

  Layout(int64_t nt, int64_t t) {
    block[kWide] = {0, 0, nt, nt, 0, 0};
    block[kLeafRight] = {0, nt, nt, t, 0, 0};
    block[kLeafLeft] = {nt, 0, t, nt, 0, 0};
    block[kLeaves] = {nt, nt, t, t, 0, 0};
    for (Block& p : block) {
      p.pitch = whole_vectors(p.nz), p.at = size;
      size += p.ny * p.pitch;
    }
  }
  // blocks first..last-1 are the children of a span of w words
  int first(int64_t w) const { return w == 2 ? kLeaves : w == 3 ? kLeafRight : kWide; }
  int last(int64_t w) const { return w == 2 ? 4 : kLeaves; }
  int64_t begin(int64_t w) const { return block[first(w)].at; }
  int64_t end(int64_t w) const { return w == 2 ? size : block[kLeaves].at; }
};

// One item's potentials, its rules as (nt, layout.size) with `fill` in the padding.
template <class T>
struct Sentence {
  const int64_t len, n, nt, t, s, labels;
  const T *root, *unary, *spans;
  const Layout layout;
  Vector<T> rules;

  Sentence(const Pcfg<T>& g, int64_t b, T fill = T(kNone))
      : len(g.len(b)),
        n(g.n),
        nt(g.nt),
        t(g.t),
        s(g.s()),
        labels(g.labels),
        root(g.root + (g.root_row ? g.root_row[b] : 0) * nt),
        unary(g.unary + b * n * t),
        spans(g.spans ? g.spans + (g.spans_row ? g.spans_row[b] : 0) * n * n * labels : nullptr),
        layout(nt, t),
        rules(trees() ? nt * layout.size : 0, fill) {
    if (trees()) pack(g.rules + (g.rules_row ? g.rules_row[b] : 0) * g.rules_size());
  }
  bool trees() const { return len >= 2; }
  double span(int64_t i, int64_t j, int64_t a) const {
    return spans ? double(spans[(i * n + j) * labels + (labels == 1 ? 0 : a)]) : 0.0;
  }
  double rule(int64_t a, const Layout::Block& p, int64_t y, int64_t z) const {
    return double(rules[a * layout.size + p.at + y * p.pitch + z]);
  }

 private:
  void pack(const T* from) {
    for (int64_t a = 0; a < nt; a++)
      for (const auto& p : layout.block)
        for (int64_t y = 0; y < p.ny; y++)
          std::copy_n(from + (a * s + p.y + y) * s + p.z, p.nz, &rules[a * layout.size + p.at + y * p.pitch]);
  }
};

// A number for each symbol of each span: preterminals for one word, nonterminals for more; rows are whole vectors.
struct TreeChart {
  const int64_t leaves, wide;
  Doubles leaf, node;
  template <class T>
  TreeChart(const Sentence<T>& c, double fill, bool needed = true)
      : leaves(whole_vectors(c.t)),
        wide(whole_vectors(c.nt)),
        leaf(needed ? c.len * leaves : 0, fill),
        node(needed ? c.len * (c.len - 1) / 2 * wide : 0, fill) {}
  double* row(int64_t i, int64_t j) { return i == j ? &leaf[i * leaves] : &node[(j * (j - 1) / 2 + i) * wide]; }
  const double* row(int64_t i, int64_t j) const { return const_cast<TreeChart*>(this)->row(i, j); }
  template <class T>
  void set_leaves(const Sentence<T>& c) {
    for (int64_t i = 0; i < c.len; i++) std::copy_n(c.unary + i * c.t, c.t, row(i, i));
  }
};

// Tables over the pairs of children of one span i..j.
template <class T>
struct Pairs {
  const Sentence<T>& c;
  const TreeChart& in;
  const Layout& layout;
  int64_t i = 0, j = 0;
  Doubles value;         // M
  Doubles top, inverse;  // of pairs of nonterminals: the largest term, 1 / sum of exp(term - top)
  Doubles weight;        // of a pair, relative to the best one, given A

  Pairs(const Sentence<T>& c, const TreeChart& in)
      : c(c),
        in(in),
        layout(c.layout),
        value(layout.size),
        top(c.nt * layout.block[0].pitch),
        inverse(top.size()),
        weight(layout.size) {}
  int64_t words() const { return j - i + 1; }
  int64_t first_split(int q) const { return q == Layout::kWide ? i + 1 : q == Layout::kLeafRight ? j - 1 : i; }
  int64_t splits(int q) const { return q == Layout::kWide ? words() - 3 : 1; }
  vd term(int64_t k, int64_t y, int64_t z) const { return in.row(i, k)[y] + load(in.row(k + 1, j) + z); }

  template <class S>
  void fill(int64_t from, int64_t to) {
    i = from, j = to;
    for (int q = layout.first(words()); q < layout.last(words()); q++) {
      const Layout::Block& p = layout.block[q];
      const int64_t k0 = first_split(q), count = splits(q);
      for (int64_t y = 0; y < p.ny; y++)
        for (int64_t z = 0; z < p.nz; z += kLanes) {
          const int64_t at = p.at + y * p.pitch + z;
          const vd m = Max::lanes(count, [&](int64_t k) { return term(k0 + k, y, z); });
          store<double>(&value[at], m);
          if (std::is_same_v<S, Log> && q == Layout::kWide) add_up(at, m, y, z);
        }
    }
  }
  void add_up(int64_t at, vd m, int64_t y, int64_t z) {
    const vd shift = m > kNone ? m : vd{};
    vd sum{};
    for (int64_t k = i + 1; k < j - 1; k++) sum += exp<double>(term(k, y, z) - shift);
    store<double>(&value[at], m > kNone ? m + log<double>(sum) : m);
    store<double>(&top[at], shift);
    store<double>(&inverse[at], sum > 0.0 ? 1.0 / sum : sum);
  }
  // The part of a pair of nonterminals that is split after word k.
  vd share(int64_t k, int64_t y, int64_t z, int64_t at) const {
    return exp<double>(term(k, y, z) - load(&top[at])) * load(&inverse[at]);
  }
  // Calls visit(at) for whole vectors of pairs.
  template <class F>
  SLV_INLINE void each(F visit) const {
    for (int64_t at = layout.begin(words()), end = layout.end(words()); at < end; at += kLanes) visit(at);
  }
  SLV_INLINE vd rule(int64_t a, int64_t at) const {
    return load_as<double>(&c.rules[a * layout.size + at], kLanes, kNone);
  }
  SLV_INLINE vd score(int64_t a, int64_t at) const { return rule(a, at) + load(&value[at]); }
  template <class S>
  double sum(int64_t a) const {
    return S::all([&](auto visit) { each([&](int64_t at) { visit(score(a, at)); }); });
  }
  // Leaves weights in `weight`; 1 / their sum, or 0 where A has no children here.
  double weigh(int64_t a) {
    const double best = sum<Max>(a);
    if (!(best > kNone)) return 0;
    vd all{};
    each([&](int64_t at) {
      const vd w = exp<double>(score(a, at) - best);
      store<double>(&weight[at], w);
      all += w;
    });
    return 1 / hsum<double>(all);
  }
};

template <class S, class T>
TreeChart inside(const Sentence<T>& c) {
  TreeChart in(c, kNone);
  in.set_leaves(c);
  Pairs<T> pairs(c, in);
  for (int64_t w = 2; w <= c.len; w++)
    for (int64_t i = 0; i + w <= c.len; i++) {
      const int64_t j = i + w - 1;
      pairs.template fill<S>(i, j);
      for (int64_t a = 0; a < c.nt; a++) {
        const double span = c.span(i, j, a);
        if (span > kNone) in.row(i, j)[a] = span + pairs.template sum<S>(a);
      }
    }
  return in;
}

// root + in of the whole sentence.
template <class T>
Doubles whole(const Sentence<T>& c, const TreeChart& in) {
  Doubles row(c.nt);
  for (int64_t a = 0; a < c.nt; a++) row[a] = double(c.root[a]) + in.row(0, c.len - 1)[a];
  return row;
}

template <class T>
double pcfg_log_partition_log(const Pcfg<T>& g, int64_t b) {
  Sentence<T> c(g, b);
  return c.trees() ? total<Log>(whole(c, inside<Log>(c)).data(), c.nt) : kNone;
}

}  // namespace
}  // namespace slv
