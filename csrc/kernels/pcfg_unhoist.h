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

template <class In, class T>
struct Unhoist {
  static constexpr int W = kWidth<T>;
  const Slices<In, T>& slices;
  const Sizes<T> z;
  const WordAdjoints<T> up;
  const T *words, *weighted;           // (rows, tp): exp of the words' scores, and times the weight of their item
  const T* both;                       // of Hoisted
  const T* corner;                     // (nt, np, np): sums of the rules with two nonterminal children, as (y, A, z)
  T *q = nullptr, *turned = nullptr;   // (rows, se), (se, tp)
  T *d_words = nullptr, *d = nullptr;  // (rows, tp), of all slices; (se, se), of this one
  In* compact = nullptr;               // a slice as it will be written

  static int64_t scratch(const Sizes<T>& z, int64_t rows) {
    return Scratch::bytes<T>(rows * z.se) + Scratch::bytes<T>(z.se * z.tp) + Scratch::bytes<T>(rows * z.tp) +
           Scratch::bytes<T>(z.slice()) + Scratch::bytes<In>(compact_size(z));
  }
  static int64_t compact_size(const Sizes<T>& z) { return (z.nt + z.t) * (z.nt + z.t) + 2 * kChartBytes; }
  void bind(Scratch& memory) {
    d = memory.take<T>(z.slice());
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
    const int64_t tiles = tiles_of(up.rows, z.t_panels()) * 2;
    slices.exponentiate(A);
    gather(A);
    Prefetch ahead(slices.slice(A + 1), A + 1 < z.nt ? slices.children() : 0, tiles);
    if (sink.out) {
      Prefetch result(sink.out + A * slices.children(), sink.stream ? 0 : slices.children(), rule_tiles());
      rule_adjoints(A, &result);
      if (sink.stream)
        stream(A, sink);
      else
        write(A, sink, sink.out + A * slices.children());
    }
    word_gradients(A, &ahead);
  }

 private:
  int64_t rule_tiles() const { return tiles_of(z.nt, z.t_panels()) + tiles_of(z.t, z.n_panels() + z.t_panels()); }
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
  // of all but the corner
  void rule_adjoints(int64_t A, Prefetch* ahead) const {
    const int64_t rows = up.rows;
    product<PlusTimes, false, T>({z.nt, z.t_panels(), rows}, {up.right + A * rows * z.np, 1, z.np}, {weighted, z.tp},
                                 Store<T>{d + z.np, z.se}, ahead);
    product<PlusTimes, false, T>({z.t, (z.np + z.tv) / W, rows}, {weighted, 1, z.tp}, {q, z.se},
                                 Store<T>{d + z.np * z.se, z.se}, ahead);
  }
  // adjoints times rules, in the potential's own layout
  void write(int64_t A, const RuleSink<In>& sink, In* out) const {
    const T scale = T(sink.scale);
    const In* end = out + slices.children();
    auto row = [&](const T* x, const T* e, int64_t count) __attribute__((always_inline)) {
      for (int64_t c = 0; c < count; c += W) {  // what is written behind the row's end is written again
        const int n = int(std::min<int64_t>(end - out - c, W));
        vec<T> v = load(x + c) * (load(e + c) * scale);
        if (sink.add) v += load_as<T>(out + c, n, T(0));
        store_as<T>(out + c, v, sink.add ? int(std::min<int64_t>(count - c, W)) : n);
      }
      out += count;
    };
    for (int64_t y = 0; y < z.nt; y++) {
      row(corner + (y * z.np + A) * z.np, slices.e + y * z.se, z.nt);
      row(d + y * z.se + z.np, slices.e + y * z.se + z.np, z.t);
    }
    for (int64_t y = z.np; y < z.np + z.t; y++) {
      row(d + y * z.se, slices.e + y * z.se, z.nt);
      row(d + y * z.se + z.np, slices.e + y * z.se + z.np, z.t);
    }
  }
  void stream(int64_t A, const RuleSink<In>& sink) const {
    constexpr int64_t w = kVectorBytes / int64_t(sizeof(In));
    In* out = sink.out + A * slices.children();
    const int64_t size = slices.children(), phase = int64_t(reinterpret_cast<uintptr_t>(out) / sizeof(In)) % w;
    In* from = compact + phase;  // as far from an aligned address as `out` is
    write(A, sink, from);
    int64_t i = std::min(size, (w - phase) % w);
    std::copy_n(from, i, out);
    for (; i + w <= size; i += w) store_stream(out + i, load(from + i));
    std::copy(from + i, from + size, out + i);
  }
  void word_gradients(int64_t A, Prefetch* ahead) const {
    static const T one = 1;
    const int64_t rows = up.rows;
    const Add<T> to{d_words, z.tp, &one, 0};
    transpose(slices.e + z.np * z.se, z.se, z.tv, z.np + z.tv, turned, z.tp);
    product<PlusTimes, false, T>({rows, z.t_panels(), z.np + z.t}, {q, z.se, 1}, {turned, z.tp}, to, ahead);
    product<PlusTimes, false, T>({rows, z.t_panels(), z.nt}, {up.right + A * rows * z.np, z.np, 1},
                                 {slices.e + z.np, z.se}, to, ahead);
  }
};

}  // namespace
}  // namespace slv
