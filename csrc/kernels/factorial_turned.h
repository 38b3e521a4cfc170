// A second layout of joint states: neighbouring states lie side by side in a vector, of one item or of a few. An item
// needs no company then to fill the lanes, its arrays stay in the first-level cache, and scores come as they are
// stored.
//
// The chains are cut in two: P states of the first ones, Q of the others. An array of joint states is a matrix
// (P, items Q), whose rows are whole vectors: the first chains move in it as in factorial_axis.h. The other chains move
// in its transpose, (items Q, P).
#pragma once
#include "kernels/factorial_lanes.h"

namespace slv {
namespace {

struct TurnedSplit {
  int64_t head = 0;  // chains before the cut; 0: the sizes allow none, and items must be lanes
  int64_t p = 0, q = 0;
  int64_t items = 1;  // side by side: as many as Q needs to fill a vector
};
template <class T>
TurnedSplit turned_split(const Factorial<T>& c) {
  constexpr int64_t W = kWidth<T>;
  TurnedSplit best;
  if (c.batch > W / 2) return best;  // measured: full lanes spare the transposes, and are up to 1.6 times as fast
  int64_t q = 1;
  for (int64_t head = c.m - 1; head > 0; head--) {
    q *= c.sizes[head];
    const int64_t p = c.states / q, items = q % W == 0 ? 1 : W % q == 0 ? W / q : W;
    if (p % W || items == W || (items > 1 && c.matrix)) continue;
    if (!best.head || items < best.items) best = {head, p, q, items};
  }
  return best;
}

// epilogue(element, vector) for the transpose of whole vectors.
template <class T, class E>
__attribute__((noinline)) void turn(const T* from, int64_t rows, int64_t columns, E& result) {
  constexpr int W = kWidth<T>;
  E epilogue = result;
  for (int64_t r = 0; r < rows; r += W)
    for (int64_t c = 0; c < columns; c += W) {
      vec<T> x[W];
#pragma GCC unroll 16
      for (int i = 0; i < W; i++) x[i] = load(from + (r + i) * columns + c);
      transpose_lanes<T, W / 2>(x);
#pragma GCC unroll 16
      for (int i = 0; i < W; i++) epilogue((c + i) * rows + r, x[i]);
    }
  result = epilogue;
}

// Items pieces of each of as many vectors, transposed.
template <int Items, int H, class T>
SLV_INLINE void turn_pieces(vec<T>* x) {
  if constexpr (H > 0) {
#pragma GCC unroll 8
    for (int i = 0; i < Items; i++)
      if (i / H % 2 == 0) {
        const vec<T> a = x[i], b = x[i + H];
        x[i] = interleave_halves<T, H * kWidth<T> / Items, 0>(a, b, kLaneSequence<T>);
        x[i + H] = interleave_halves<T, H * kWidth<T> / Items, 1>(a, b, kLaneSequence<T>);
      }
    turn_pieces<Items, H / 2, T>(x);
  }
}
// Calls body(number of items that lie side by side).
template <class T, class F>
SLV_INLINE void with_items(int64_t items, F body) {
  [&]<int... I>(std::integer_sequence<int, I...>) __attribute__((always_inline)) {
    (void)((items == 1 << I ? (body(std::integral_constant<int, 1 << I>{}), true) : false) || ...);
  }(std::make_integer_sequence<int, kWidth<T> == 16  ? 4
                                    : kWidth<T> == 8 ? 3
                                    : kWidth<T> == 4 ? 2
                                                     : 1>{});
}

// A block of items that lie side by side.
template <class T>
struct TurnedBlock : LaneBlock<T, T> {
  using Base = LaneBlock<T, T>;
  using Base::c, Base::rows, Base::states, Base::len, Base::W;
  const TurnedSplit split;
  const int64_t size, group;  // of an array of joint states; lanes of an item
  TurnedBlock(const Factorial<T>& c, const int64_t* items, int rows)
      : Base(c, items, rows), split(turned_split(c)), size(c.states * split.items), group(W / split.items) {}
  // A number for each row, in its lanes.
  vec<T> spread(const T* of_row) const {
    T x[W];
    for (int l = 0; l < W; l++) x[l] = of_row[l / group];
    return load(x);
  }
  // Over each row's lanes, in all of them.
  template <class Op>
  vec<T> reduce(vec<T> v, Op op) const {
    vec<T> out{};
    with_items<T>(split.items, [&](auto items) { out = reduce_lanes<T, W / decltype(items)::value / 2>(v, op); });
    return out;
  }
  // The scores of step t of each item.
  template <int Items>
  SLV_INLINE void find_rows(int64_t t, const T** src) const {
#pragma GCC unroll 8
    for (int r = 0; r < Items; r++) src[r] = r < rows && t < len[r] ? this->first_row[r] + t * states : this->zeros;
  }
  // each(row, vector), of whole vectors of states, to where the states lie
  template <int Items, class F>
  SLV_INLINE void arrange(const T* const* src, T* out, F each) const {
    for (int64_t z = 0; z < states; z += W) {
      vec<T> y[Items];
#pragma GCC unroll 8
      for (int r = 0; r < Items; r++) y[r] = each(r, load(src[r] + z));
      turn_pieces<Items, Items / 2, T>(y);
#pragma GCC unroll 8
      for (int r = 0; r < Items; r++) store(out + z * Items + r * W, y[r]);
    }
  }
  int64_t place(int r, int64_t z) const { return (z / split.q * split.items + r) * split.q + z % split.q; }
};

// A step, forward and back.
template <class T>
struct TurnedSteps {
  static constexpr int W = kWidth<T>;
  const TurnedSplit split;
  const int64_t m, states, size, edges;  // size: of an array of joint states
  int64_t head_edges = 0, most = 1;      // most: steps whose edges are counted at once
  Vector<AxisShape> shape;
  Vector<int64_t> edge;
  const LaneEntries<T>& a;
  T *spare[2] = {}, *before = nullptr, *after = nullptr, *counts = nullptr;  // (m, most, size) each; (items, P) vectors
  int64_t slot = 0;                                                          // steps that are to be counted

  TurnedSteps(const Factorial<T>& c, const LaneEntries<T>& a, const TurnedSplit& split)
      : split(split),
        m(c.m),
        states(c.states),
        size(c.states * split.items),
        edges(c.edges),
        shape(c.m),
        edge(c.m),
        a(a) {
    int64_t outer = 1, inner = split.p;
    c.each_chain([&](int64_t i, int64_t k, int64_t first, int64_t) {
      if (i == split.head) outer = split.items, inner = split.q, head_edges = first;
      inner /= k;
      shape[i] = {k, outer, inner * (i < split.head ? split.items * split.q : split.p) / W};
      outer *= k, edge[i] = first;
    });
  }
  // Where there are few columns, the sums of a step are too short to be worth their loads and stores.
  static int64_t steps_at_once(const Factorial<T>& c, const TurnedSplit& split) {
    const int64_t largest = *std::max_element(c.sizes, c.sizes + c.m);
    return std::max<int64_t>(1, 4 * W * largest / (c.states * split.items));
  }
  static int64_t scratch(const Factorial<T>& c, const TurnedSplit& split, bool both) {
    const int64_t size = c.states * split.items;
    if (!both) return 2 * Scratch::bytes<T>(size);
    return 2 * Scratch::bytes<T>(size) + 2 * Scratch::bytes<T>(c.m * steps_at_once(c, split) * size) +
           Scratch::bytes<T>(split.items * c.edges * W);
  }
  void bind(Scratch& s, const Factorial<T>& c, bool both) {
    for (T*& x : spare) x = s.take<T>(size);
    if (!both) return;
    most = steps_at_once(c, split);
    before = s.take<T>(m * most * size), after = s.take<T>(m * most * size);
    counts = s.take<T>(split.items * edges * W);
    clear();
  }
  void clear() { std::fill(counts, counts + split.items * edges * W, T(0)); }
  AxisMatrix<T> forward_matrix(int64_t i) const { return {a.data + edge[i], false}; }
  AxisMatrix<T> backward_matrix(int64_t i) const { return {a.transposed + edge[i], false}; }
  T* x(int64_t i) const { return before + (i * most + slot) * size; }
  T* y(int64_t i) const { return after + (i * most + slot) * size; }
  void there(const T* from, T* to) const {
    StoreState<T> out{to};
    turn(from, split.p, split.items * split.q, out);
  }
  template <class E>
  void back(const T* from, E& epilogue) const {
    turn(from, split.items * split.q, split.p, epilogue);
  }
  template <class S = PlusTimes>
  void move(int64_t i, const AxisMatrix<T>& matrix, const T* from, T* to) const {
    StoreState<T> out{to};
    axis_product<S, false>(shape[i], matrix, from, out);
  }

  // epilogue(element, sum) for all states after a step from `in`.
  template <class S, class E>
  void forward(const T* in, E& epilogue) const {
    int64_t use = 0;
    auto next = [&] { return spare[use++ % 2]; };
    const T* from = in;
    for (int64_t i = 0; i < m; i++) {
      if (i == split.head) {
        T* to = next();
        there(from, to);
        from = to;
      }
      T* to = next();
      move<S>(i, forward_matrix(i), from, to);
      from = to;
    }
    back(from, epilogue);
  }
  // From x(0), states before a step, and g after it: notes what its edges are counted from, and calls
  // epilogue(element, sum) for the way back of g.
  template <class E>
  void backward(const T* g, E& epilogue) {
    const int64_t head = split.head;
    for (int64_t i = 0; i < head; i++) move(i, forward_matrix(i), x(i), i + 1 < head ? x(i + 1) : spare[0]);
    there(spare[0], x(head));
    for (int64_t i = head; i + 1 < m; i++) move(i, forward_matrix(i), x(i), x(i + 1));
    there(g, y(m - 1));
    for (int64_t i = m - 1; i >= head; i--) move(i, backward_matrix(i), y(i), i > head ? y(i - 1) : spare[0]);
    StoreState<T> out{y(head - 1)};
    back(spare[0], out);
    for (int64_t i = head - 1; i > 0; i--) move(i, backward_matrix(i), y(i), y(i - 1));
    axis_product<PlusTimes, false>(shape[0], backward_matrix(0), y(0), epilogue);
    if (++slot == most) count();
  }
  void count() {
    const int64_t steps = slot, items = split.items;
    slot = 0;
    for (int64_t i = 0; i < m; i++) {
      const auto [k, outer, inner] = shape[i];
      T* to = counts + edge[i] * W;
      if (i < split.head || items == 1)
        count_pairs({k, outer * steps, inner}, x(i), y(i), to);
      else
        for (int64_t j = 0; j < steps * items; j++)
          count_pairs({k, outer / items, inner}, x(i) + j * states, y(i) + j * states, to + j % items * edges * W);
    }
  }
  // sums (items, P) += the counts, each without its transition; they begin anew.
  void collect(double* sums) {
    if (slot) count();
    const int64_t items = split.items, group = W / items;
    for (int64_t r = 0; r < items; r++)
      for (int64_t e = 0; e < edges; e++) {
        const bool mixed = e < head_edges;
        const T* from = mixed ? counts + e * W + r * group : counts + (r * edges + e) * W;
        double sum = 0;
        for (int64_t l = 0; l < (mixed ? group : W); l++) sum += double(from[l]);
        sums[r * edges + e] += sum;
      }
    clear();
  }
};

}  // namespace
}  // namespace slv
