// The best tree (the Viterbi form of CKY), in the precision of the potentials: a maximum cannot underflow.
//
// The inside pass of pcfg_inside.h over (max, +): max distributes as a sum does, so words are taken out of the rules in
// the same way. No back-pointers: the children of the n - 1 nodes of the tree are found again from the chart.
#pragma once
#include "kernels/pcfg_scan.h"
#include "kernels/pcfg_search.h"

namespace slv {
namespace {

template <class T>
struct BestTrees {
  static constexpr int W = kWidth<T>;
  const Pcfg<T>& c;
  const int64_t* items;
  const int64_t count;
  const Sizes<T> z;
  const T* rules;
  int64_t words = 0, longest = 0;
  T *leaves, *slice, *turned, *left, *right, *pairs, *corner;  // as in pcfg_rules.h; paddings are -inf
  T *start, *end, *m, *sums;

  BestTrees(const Pcfg<T>& c, const int64_t* items, int64_t count)
      : c(c),
        items(items),
        count(count),
        z(c.nt, c.t),
        rules(c.rules + (c.rules_row ? c.rules_row[items[0]] : 0) * c.rules_size()) {
    for (int64_t q = 0; q < count; q++) words += len(q), longest = std::max(longest, len(q));
  }
  int64_t len(int64_t q) const { return c.len(items[q]) > 1 ? c.len(items[q]) : 0; }
  int64_t scratch() const {
    return Scratch::bytes<T>(words * z.tp) + Scratch::bytes<T>(z.slice()) + Scratch::bytes<T>(z.tp * z.np) +
           2 * Scratch::bytes<T>(words * z.nt * z.np) + Scratch::bytes<T>(words * z.np) +
           Scratch::bytes<T>(z.nv * z.pairs) + Scratch::bytes<T>(z.nt * z.nv * z.nv) +
           2 * Scratch::bytes<T>(span_count(longest) * z.np) + Scratch::bytes<T>(chunk_of(z) * z.pairs) +
           Scratch::bytes<T>(chunk_of(z) * z.np) + Scratch::bytes<T>(words * z.tp);
  }
  void run(int64_t* events) {
    Scratch memory(scratch());
    hoist(memory);
    start = memory.take<T>(span_count(longest) * z.np);
    end = memory.take<T>(span_count(longest) * z.np);
    m = memory.take<T>(chunk_of(z) * z.pairs);
    sums = memory.take<T>(chunk_of(z) * z.np);
    for (int64_t q = 0, first = 0; q < count; first += len(q), q++) {
      int64_t* event = events + items[q] * event_size(c.n);
      if (len(q) == 0)
        std::fill_n(event, event_size(c.n), -1);
      else
        sentence(q, first, event);
    }
  }

 private:
  T* take(Scratch& memory, int64_t n) const {
    T* p = memory.take<T>(n);
    std::fill_n(p, n, -kInf<T>);
    return p;
  }
  void copy_row(const T* x, int64_t n, T* to) const {
    for (int64_t k = 0; k < n; k += W) store(to + k, load_within<T>(x + k, n - k, x + n, -kInf<T>));
  }
  // ---- words out of the rules ---------------------------------------------------------------------------------
  void hoist(Scratch& memory) {
    leaves = memory.take<T>(words * z.tp);
    slice = take(memory, z.slice());
    turned = memory.take<T>(z.tp * z.np);
    left = memory.take<T>(words * z.nt * z.np);
    right = memory.take<T>(words * z.nt * z.np);
    pairs = memory.take<T>(words * z.np);
    corner = memory.take<T>(z.nt * z.nv * z.nv);
    T *by_parent = take(memory, z.nv * z.pairs), *both = memory.take<T>(words * z.tp);
    T* row = leaves;
    for (int64_t q = 0; q < count; q++)
      for (int64_t i = 0; i < len(q); i++, row += z.tp) copy_row(c.unary + (items[q] * c.n + i) * z.t, z.t, row);
    const int64_t s = z.nt + z.t;
    for (int64_t A = 0; words > 0 && A < z.nt; A++) {
      for (int64_t y = 0; y < s; y++) {
        const T* x = rules + (A * s + y) * s;
        T* to = slice + (y < z.nt ? y : z.np + y - z.nt) * z.se;
        copy_row(x, z.nt, to);
        copy_row(x + z.nt, z.t, to + z.np);
      }
      for (int64_t y = 0; y < z.nt; y++) std::copy_n(slice + y * z.se, z.nv, by_parent + A * z.pairs + y * z.nv);
      hoist_slice(A, both);
    }
    transpose(by_parent, z.pairs, z.nv, z.nt * z.nv, corner, z.nv);
  }
  void hoist_slice(int64_t A, T* both) const {
    const T* e = slice + z.np * z.se;
    product<MaxPlus, false, T>({words, z.n_panels(), z.t}, {leaves, z.tp, 1}, {e, z.se},
                               Store<T>{left + A * z.np, z.nt * z.np});
    product<MaxPlus, false, T>({words, z.t_panels(), z.t}, {leaves, z.tp, 1}, {e + z.np, z.se}, Store<T>{both, z.tp});
    transpose(slice + z.np, z.se, z.nv, z.tv, turned, z.np);
    product<MaxPlus, false, T>({words, z.n_panels(), z.t}, {leaves, z.tp, 1}, {turned, z.np},
                               Store<T>{right + A * z.np, z.nt * z.np});
    for (int64_t i = 0; i + 1 < words; i++) {
      vec<T> top = splat(-kInf<T>);
      for (int64_t k = 0; k < z.t; k += W)
        top = vmax(top, load(both + i * z.tp + k) + load(leaves + (i + 1) * z.tp + k));
      pairs[i * z.np + A] = hmax<T>(top);
    }
  }

  // ---- inside -------------------------------------------------------------------------------------------------
  void sentence(int64_t q, int64_t first, int64_t* event) {
    const Spans<T> s{z, len(q), start, end, nullptr, nullptr, nullptr};
    const int64_t n = s.n, chunk = chunk_of(z);
    for (int64_t w = 2; w <= n; w++)
      for (int64_t i = 0; i + w <= n; i += chunk) spans(s, q, first, i, w, std::min(chunk, n - w + 1 - i));
    const T *root = c.root + (c.root_row ? c.root_row[items[q]] : 0) * z.nt, *top = s.at(0, n);
    int64_t best = -1;
    T most = -kInf<T>;
    for (int64_t A = 0; A < z.nt; A++)
      if (root[A] + top[A] > most) most = root[A] + top[A], best = A;
    grow(c.n, {0, n - 1, best}, event, [&](const TreeNode& node, TreeNode& l, TreeNode& r) {
      return children(s, leaves + first * z.tp, node, l, r);
    });
  }
  void spans(const Spans<T>& s, int64_t q, int64_t first, int64_t i, int64_t w, int64_t rows) const {
    for (int64_t r = 0; r < rows; r++) {
      T* sum = sums + r * z.np;
      if (w == 2) {
        std::copy_n(pairs + (first + i + r) * z.np, z.nt, sum);
      } else {
        add_words(s, first, i + r, w, sum);
      }
      for (int64_t p = z.nt; p < z.nv; p++) sum[p] = -kInf<T>;
      if (w > 3)
        product<MaxPlus, true, T>({z.nt, z.n_panels(), w - 3}, {s.at(i + r, 2), 1, z.np},
                                  {s.at_end(i + r + w, i + r + 2), z.np}, Store<T>{m + r * z.pairs, z.nv});
    }
    if (w > 3)
      product<MaxPlus, true, T>({rows, z.n_panels(), z.nt, z.nt}, {m, z.pairs, 1, z.nv}, {corner, z.nv, z.nv * z.nv},
                                Raise<T>{sums, z.np});
    for (int64_t r = 0; r < rows; r++) finish(s, q, i + r, w, sums + r * z.np);
  }
  void add_words(const Spans<T>& s, int64_t first, int64_t i, int64_t w, T* sum) const {
    const T *x = s.at(i + 1, w - 1), *y = s.at(i, w - 1);
    const T *l = left + (first + i) * z.nt * z.np, *r = right + (first + i + w - 1) * z.nt * z.np;
    auto rows = [&]<int N>(std::integral_constant<int, N>, int64_t A) __attribute__((always_inline)) {
      vec<T> v[N];
#pragma GCC unroll 8
      for (int q = 0; q < N; q++) v[q] = splat(-kInf<T>);
      for (int64_t p = 0; p < z.nv; p += W) {
        const vec<T> xp = load(x + p), yp = load(y + p);
        const T *lp = l + A * z.np + p, *rp = r + A * z.np + p;
#pragma GCC unroll 8
        for (int q = 0; q < N; q++, lp += z.np, rp += z.np) v[q] = vmax(v[q], vmax(load(lp) + xp, load(rp) + yp));
      }
      reduce_into<T, N>(sum + A, v, MaxOp());
    };
    constexpr int R = kTreeRows<T>;
    for (int64_t A = 0; z.nt >= R && A < z.nt; A += R)  // the last rows overlap those before
      rows(std::integral_constant<int, R>{}, std::min(A, z.nt - R));
    for (int64_t A = 0; z.nt < R && A < z.nt; A++) rows(std::integral_constant<int, 1>{}, A);
  }
  void finish(const Spans<T>& s, int64_t q, int64_t i, int64_t w, const T* sum) const {
    T *to = s.at(i, w), *other = s.at_end(i + w, i);
    const int64_t table = c.spans && c.spans_row ? c.spans_row[items[q]] : 0;
    const T* x = c.spans ? c.spans + ((table * c.n + i) * c.n + i + w - 1) * c.labels : nullptr;
    for (int64_t p = 0; p < z.nv; p += W) {
      vec<T> v = load(sum + p);
      if (x) v += c.labels == 1 ? splat(*x) : load_within<T>(x + p, z.nt - p, x + z.nt, -kInf<T>);
      store(to + p, v);
      store(other + p, v);
    }
  }

  // ---- the children of a node ---------------------------------------------------------------------------------
  // Sides of a split: scores of each symbol that can stand there, and the first of them.
  struct Side {
    const T* scores;
    int64_t size, symbol;
  };
  Side side(const Spans<T>& s, const T* word_rows, int64_t i, int64_t j) const {
    if (i == j) return {word_rows + i * z.tp, z.t, z.nt};
    return {s.at(i, j - i + 1), z.nt, 0};
  }
  // the best score of a pair whose left child is y, in the lanes of right children
  vec<T> row_best(const T* rule, T l, const Side& right) const {
    vec<T> top = splat(-kInf<T>);
    for (int64_t k = 0; k < right.size; k += W)
      top = vmax(top,
                 (load_within<T>(rule + k, right.size - k, rule + right.size, -kInf<T>) + l) + load(right.scores + k));
    return top;
  }
  bool children(const Spans<T>& s, const T* word_rows, const TreeNode& node, TreeNode& left_child,
                TreeNode& right_child) const {
    const int64_t size = z.nt + z.t;
    const T* own = rules + node.symbol * size * size;
    auto rule = [&](const Side& l, const Side& r, int64_t y) { return own + (l.symbol + y) * size + r.symbol; };
    T most = -kInf<T>;
    int64_t split = -1;
    for (int64_t k = node.i; k < node.j; k++) {
      const Side l = side(s, word_rows, node.i, k), r = side(s, word_rows, k + 1, node.j);
      vec<T> top = splat(-kInf<T>);
      for (int64_t y = 0; y < l.size; y++) top = vmax(top, row_best(rule(l, r, y), l.scores[y], r));
      if (const T x = hmax<T>(top); x > most) most = x, split = k;
    }
    if (split < 0) return false;
    const Side l = side(s, word_rows, node.i, split), r = side(s, word_rows, split + 1, node.j);
    for (int64_t y = 0; y < l.size; y++) {
      if (hmax<T>(row_best(rule(l, r, y), l.scores[y], r)) != most) continue;
      for (int64_t k = 0; k < r.size; k++)
        if ((rule(l, r, y)[k] + l.scores[y]) + r.scores[k] == most) {
          left_child = {node.i, split, l.symbol + y}, right_child = {split + 1, node.j, r.symbol + k};
          return true;
        }
    }
    return false;  // NaN
  }
};

template <class T>
void pcfg_argmax(const Pcfg<T>& c, const int64_t* items, int64_t count, int64_t* events) {
  BestTrees<T>(c, items, count).run(events);
}

}  // namespace
}  // namespace slv
