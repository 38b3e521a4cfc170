// From the adjoints of what words gave to the rules (pcfg_rules.h: Hoist) to those of rules and words, slice by slice.
#pragma once
#include "kernels/pcfg_outside.h"

namespace slv {
namespace {

// Where the weights of the rules go: (nt, S, S), written or added to; past the cache if they are much larger than it.
template <class In>
struct RuleSink {
  In* out;
  double scale;
  bool add, stream;
};

// Adjoints times rules times a factor, in the potential's own layout: `count` columns, in vectors that lie within them.
template <class In, class T>
struct RuleGradient {
  const T* e;
  int64_t e_row;
  In* out;
  int64_t out_row, count;
  T scale;
  SLV_INLINE void operator()(int64_t i, int64_t c, vec<T> v) const {
    v *= load(e + i * e_row + c) * scale;
    if (count >= kWidth<T>)
      store_as<T>(out + i * out_row + c, v, kWidth<T>);
    else
      store_as<T>(out + i * out_row, v, int(count));
  }
  static Extent extent(int64_t rows, int64_t count, int64_t terms) {
    constexpr int64_t W = kWidth<T>;
    return {rows, (count + W - 1) / W, terms, 1, std::max<int64_t>(count - W, 0)};
  }
};

template <class In, class T>
struct Unhoist {
  static constexpr int W = kWidth<T>;
  const Slices<In, T>& slices;
  const Sizes<T> z;
  const WordAdjoints<T> up;
  const T *words, *weighted;          // (rows, tp): exp of the words' scores, and times the weight of their item
  const T* both;                      // of Hoisted
  const T* sums;                      // (nt, pairs): of the rules with two nonterminal children
  T *q = nullptr, *turned = nullptr;  // (rows, se), (se, tp)
  T* d_words = nullptr;               // (rows, tp), of all slices
  In* compact = nullptr;              // a slice of weights that goes elsewhere in one piece

  static int64_t scratch(const Sizes<T>& z, int64_t rows) {
    return Scratch::bytes<T>(rows * z.se) + Scratch::bytes<T>(z.se * z.tp) + Scratch::bytes<T>(rows * z.tp) +
           Scratch::bytes<In>(compact_size(z));
  }
  static int64_t compact_size(const Sizes<T>& z) { return (z.nt + z.t) * (z.nt + z.t) + 2 * kChartBytes; }
  void bind(Scratch& memory) {
    compact = memory.take<In>(compact_size(z));
    q = memory.take<T>(up.rows * z.se);
    turned = memory.take<T>(z.se * z.tp);
    d_words = memory.take<T>(up.rows * z.tp);
    std::fill_n(q, up.rows * z.se, T(0));
    std::fill_n(d_words, up.rows * z.tp, T(0));
    static const T one = 1;
    for (int64_t i = 0; i + 1 < up.rows; i++)  // the right word of a pair
      product<PlusTimes, false, T>({1, z.t_panels(), z.nt}, {up.pairs + i * z.np, 0, 1}, {both + i * z.nt * z.tp, z.tp},
                                   Add<T>{d_words + (i + 1) * z.tp, 0, &one, 0});
  }

  void slice(int64_t A, const RuleSink<In>& sink) {
    slices.exponentiate(A);
    gather(A);
    if (sink.out) {
      In* out = sink.out + A * slices.children();
      if (sink.stream || sink.add)
        pass_on(A, sink, out);
      else
        rule_gradients(A, T(sink.scale), out);
    }
    word_gradients(A);
  }

 private:
  // q: adjoints of a word's row as a left child, over all right children
  void gather(int64_t A) {
    const int64_t rows = up.rows;
    for (int64_t i = 0; i < rows; i++) {
      T* to = q + i * z.se;
      std::copy_n(up.left + (A * rows + i) * z.np, z.nv, to);
      const T x = i + 1 < rows ? up.pairs[i * z.np + A] : T(0);
      const T* next = words + (x == T(0) ? i : i + 1) * z.tp;
      for (int64_t c = 0; c < z.t; c += W) store(to + z.np + c, load(next + c) * x);
    }
  }
  void rule_gradients(int64_t A, T scale, In* out) const {
    using Gradient = RuleGradient<In, T>;
    const int64_t S = z.nt + z.t, rows = up.rows;
    const T* e = slices.e;
    const Extent row = Gradient::extent(1, z.nt, 0);
    for (int64_t y = 0; y < z.nt; y++) {
      const Gradient to{e + y * z.se, 0, out + y * S, 0, z.nt, scale};
      const T* x = sums + A * z.pairs + y * z.nv;
      for (int64_t p = 0; p + 1 < row.panels; p++) to(0, p * W, load(x + p * W));
      to(0, row.last, load(x + row.last));
    }
    product<PlusTimes, false, T>(Gradient::extent(z.nt, z.t, rows), {up.right + A * rows * z.np, 1, z.np},
                                 {weighted, z.tp}, Gradient{e + z.np, z.se, out + z.nt, S, z.t, scale});
    e += z.np * z.se;
    out += z.nt * S;
    product<PlusTimes, false, T>(Gradient::extent(z.t, z.nt, rows), {weighted, 1, z.tp}, {q, z.se},
                                 Gradient{e, z.se, out, S, z.nt, scale});
    product<PlusTimes, false, T>(Gradient::extent(z.t, z.t, rows), {weighted, 1, z.tp}, {q + z.np, z.se},
                                 Gradient{e + z.np, z.se, out + z.nt, S, z.t, scale});
  }
  // by way of a slice in the cache
  void pass_on(int64_t A, const RuleSink<In>& sink, In* out) const {
    constexpr int64_t w = kVectorBytes / int64_t(sizeof(In));
    const int64_t size = slices.children(), phase = int64_t(reinterpret_cast<uintptr_t>(out) / sizeof(In)) % w;
    In* from = compact + phase;  // as far from an aligned address as `out` is
    rule_gradients(A, T(sink.scale), from);
    if (sink.add) {
      for (int64_t i = 0; i < size; i++) out[i] += from[i];
      return;
    }
    int64_t i = std::min(size, (w - phase) % w);
    std::copy_n(from, i, out);
    for (; i + w <= size; i += w) store_stream(out + i, load(from + i));
    std::copy(from + i, from + size, out + i);
  }
  void word_gradients(int64_t A) const {
    static const T one = 1;
    const int64_t rows = up.rows;
    const Add<T> to{d_words, z.tp, &one, 0};
    transpose(slices.e + z.np * z.se, z.se, z.tv, z.np + z.tv, turned, z.tp);
    product<PlusTimes, false, T>({rows, z.t_panels(), z.np + z.t}, {q, z.se, 1}, {turned, z.tp}, to);
    product<PlusTimes, false, T>({rows, z.t_panels(), z.nt}, {up.right + A * rows * z.np, z.np, 1},
                                 {slices.e + z.np, z.se}, to);
  }
};

}  // namespace
}  // namespace slv
