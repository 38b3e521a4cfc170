// From the adjoints of what words gave to the rules (pcfg_rules.h: Hoist) to those of rules and words, slice by slice.
#pragma once
#include "kernels/pcfg_outside.h"

namespace slv {
namespace {

// Weights of rules into their potential's own layout: sums times the rule times a common factor.
template <class In, class T>
struct RuleGradient {
  const T* e;  // the rules, rows e_row apart
  int64_t e_row;
  In* out;  // rows out_row apart, `lanes` of each
  int64_t out_row, lanes;
  T scale;
  bool add;
  SLV_INLINE void operator()(int64_t i, int64_t p, vec<T> v) const {
    constexpr int W = kWidth<T>;
    const int n = int(std::min<int64_t>(W, lanes - p * W));
    In* to = out + i * out_row + p * W;
    v *= load(e + i * e_row + p * W) * scale;
    if (add) v += load_as<T>(to, n, T(0));
    store_as<T>(to, v, n);
  }
};

template <class In, class T>
struct Unhoist {
  static constexpr int W = kWidth<T>;
  const Slices<In, T>& slices;
  const Sizes<T> z;
  const WordAdjoints<T> d;
  const T *words, *weighted;  // (rows, tp): exp of the words' scores, and times the weight of their item
  const T* left;              // of Hoist
  const T* corner;            // (nt, np, np): sums of the rules with two nonterminal children, as (y, A, z)
  T *q, *turned, *d_words;    // (rows, se), (se, tp), (rows, tp), the last added to

  static int64_t scratch(const Sizes<T>& z, int64_t rows) {
    return Scratch::bytes<T>(rows * z.se) + Scratch::bytes<T>(z.se * z.tp) + Scratch::bytes<T>(rows * z.tp);
  }
  void bind(Scratch& memory) {
    q = memory.take<T>(d.rows * z.se);
    turned = memory.take<T>(z.se * z.tp);
    d_words = memory.take<T>(d.rows * z.tp);
    std::fill_n(q, d.rows * z.se, T(0));
    std::fill_n(d_words, d.rows * z.tp, T(0));
  }

  // rules (nt, S, S): written, or added to
  void slice(int64_t A, In* rules, T scale, bool add) {
    slices.exponentiate(A);
    gather(A);
    if (rules) rule_gradients(A, rules + A * slices.children(), scale, add);
    word_gradients(A);
  }

 private:
  // q: adjoints of a word's row as a left child, over all right children
  void gather(int64_t A) {
    const int64_t rows = d.rows;
    for (int64_t i = 0; i < rows; i++) {
      T* to = q + i * z.se;
      std::copy_n(d.left + (A * rows + i) * z.np, z.nv, to);
      const T x = d.pairs[i * z.np + A];
      if (x == T(0) || i + 1 == rows) {
        std::fill_n(to + z.np, z.tv, T(0));
        continue;
      }
      const T *next = words + (i + 1) * z.tp, *l = left + (i * z.nt + A) * z.se + z.np;
      T* sum = d_words + (i + 1) * z.tp;
      for (int64_t c = 0; c < z.t; c += W) {
        store(to + z.np + c, x * load(next + c));
        store(sum + c, load(sum + c) + x * load(l + c));
      }
    }
  }
  void rule_gradients(int64_t A, In* out, T scale, bool add) const {
    const int64_t S = z.nt + z.t, rows = d.rows;
    const T* e = slices.e;
    for (int64_t y = 0; y < z.nt; y++) {
      const RuleGradient<In, T> to{e + y * z.se, 0, out + y * S, 0, z.nt, scale, add};
      for (int64_t p = 0; p < z.n_panels(); p++) to(0, p, load(corner + (y * z.np + A) * z.np + p * W));
    }
    product<PlusTimes, false, T>({z.nt, z.t_panels(), rows}, {d.right + A * rows * z.np, 1, z.np}, {weighted, z.tp},
                                 RuleGradient<In, T>{e + z.np, z.se, out + z.nt, S, z.t, scale, add});
    e += z.np * z.se;
    out += z.nt * S;
    product<PlusTimes, false, T>({z.t, z.n_panels(), rows}, {weighted, 1, z.tp}, {q, z.se},
                                 RuleGradient<In, T>{e, z.se, out, S, z.nt, scale, add});
    product<PlusTimes, false, T>({z.t, z.t_panels(), rows}, {weighted, 1, z.tp}, {q + z.np, z.se},
                                 RuleGradient<In, T>{e + z.np, z.se, out + z.nt, S, z.t, scale, add});
  }
  void word_gradients(int64_t A) const {
    static const T one = 1;
    const int64_t rows = d.rows;
    const Add<T> to{d_words, z.tp, &one, 0};
    transpose(slices.e + z.np * z.se, z.se, z.tv, z.np + z.tv, turned, z.tp);
    product<PlusTimes, false, T>({rows, z.t_panels(), z.np + z.t}, {q, z.se, 1}, {turned, z.tp}, to);
    product<PlusTimes, false, T>({rows, z.t_panels(), z.nt}, {d.right + A * rows * z.np, z.np, 1},
                                 {slices.e + z.np, z.se}, to);
  }
};

}  // namespace
}  // namespace slv
