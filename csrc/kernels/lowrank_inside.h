// Inside pass of a low-rank PCFG in the scaled linear domain, in the space of ranks (Cohen, Satta & Collins 2013,
// section 4; Yang, Liu & Tu 2022, section 3). For a span i..j, over ranks q and nonterminals A:
//
//   m(q) = sum_k w_k l_ik(q) r_k+1,j(q)     s(A) = E(A) sum_q head(A, q) m(q)
//   l(q) = sum_A left(q, A) s(A)            r(q) = sum_A right(q, A) s(A)
//
// Rows m, l and r are relative to a power of two of their own, so a split costs one weight 2^(...) and no exp; s, l, r
// of all spans of a width are one product each.
//
// When is that exact? A sum of k products that underflow loses at most k of the smallest numbers of T.
// * No score is -inf: every value is positive, and one under `floor` flags its item. So all values are right to
//   rounding, and an outside value times an inside one is a probability: what underflows there is below 1e-30.
// * Else all values, exponentials included, must be 0 or above `tiny`, so that the product of two does not underflow;
//   sums over splits, whose weights may, are checked for pairs. By induction 0 means structurally impossible.
// Flagged items are redone in float64, then in exact log space.
#pragma once
#include "core/semiring.h"
#include "kernels/lowrank_block.h"

namespace slv {
namespace {

template <class In, class T>
struct Inside : Block<In, T> {
  using Base = Block<In, T>;
  using Base::p, Base::g, Base::items, Base::count, Base::len, Base::longest, Base::leaves, Base::inner, Base::spans;
  using Base::rank, Base::sym, Base::word, Base::left, Base::right;
  static constexpr int W = kWidth<T>;
  Seen<T> seen[kLowRankItems];
  bool bad[kLowRankItems] = {};
  double log_z[kLowRankItems], whole[kLowRankItems] = {};  // whole: the power of two of an item's last row
  Pairs<T> pairs;
  T* factor = nullptr;         // of the spans of a width: exp of their scores, [pn][row][lane] or [row]
  double* exponent = nullptr;  // of their rows of nonterminals

  Inside(const LowRank<In>& p, const Grammar<T>& g, const int64_t* items, int64_t count)
      : Base(p, g, items, count), pairs(this->longest) {
    for (Seen<T>& x : seen) x = g.seen;
  }
  bool labelled() const { return p.spans && p.labels > 1; }
  int64_t widest() const { return std::max(leaves, Base::rows(2)); }  // most rows of a width
  int64_t factor_size() const { return p.spans ? Base::rows(2) * (labelled() ? g.ps * W : 1) : 0; }
  int64_t scratch() const { return Scratch::bytes<T>(factor_size()) + Scratch::bytes<double>(widest()); }
  void bind_scratch(Scratch& s) {
    factor = s.take<T>(factor_size());
    exponent = s.take<double>(widest());
  }

  void run() {
    FlushDenormals flush;
    blank();
    std::fill(Base::meta, Base::meta + kLowRankMeta * count * int64_t(sizeof(T)) / int64_t(sizeof(double)), 0.0);
    words();
    for (int64_t w = 2; w <= longest; w++) {
      merge(w);
      weigh_spans(w);
      symbols(w);
      const int64_t inside = Base::active(w + 1);
      const int64_t rows = Base::start(w, inside);
      sides(w, rows, inside, sym + Base::first[w] * W, g.states, inner * W, g.sides_up, g.states);
    }
    for (int64_t c = 0; c < count; c++) finish(c);
  }

  // What no pass writes: children that whole sentences would be, powers of two of words at the top of a rule.
  void blank() {
    std::fill(Base::left_before, Base::left_before + 6 * spans, 0.0);
    std::fill(Base::left_shift, Base::left_shift + 2 * spans, T(0));
    for (int64_t c = 0; c < count && len[c] > 1; c++) {
      T* l = left + Base::before(c, 0, len[c] - 1) * Base::stride();
      T* r = right + Base::behind(c, 0, len[c] - 1) * Base::stride();
      std::fill(l, l + Base::stride(), T(0));
      std::fill(r, r + Base::stride(), T(0));
    }
  }
  // nothing is tried
  void give_up() {
    std::fill(Base::meta, Base::meta + kLowRankMeta * count * int64_t(sizeof(T)) / int64_t(sizeof(double)), 0.0);
    for (int64_t c = 0; c < count; c++) {
      bad[c] = true;
      Base::meta[2 * c + 1] = 1;
    }
  }

  // exp of the scores of words, and what they are as children
  void words() {
    Base::each(1, Base::active(1), [&](int64_t x, int64_t c, int64_t i, int64_t) {
      const In* row = p.unary + (items[c] * p.n + i) * p.t;
      exponent[x] = exp_row<T>(row, p.t, word + x * W, leaves * W, seen[c]);
    });
    sides(1, leaves, Base::active(1), word, g.t, leaves * W, g.sides_up + g.states * W, g.t);
  }
  // left and right rows of the first `rows` spans of a width, from their rows of symbols
  void sides(int64_t w, int64_t rows, int64_t end, const T* from, int64_t k, int64_t panel, const T* matrix,
             int64_t terms) {
    if (rows == 0) return;
    Vector<int64_t> at(2 * rows);
    Base::each(w, end, [&](int64_t x, int64_t c, int64_t i, int64_t j) {
      at[x] = Base::before(c, i, j) * Base::stride();
      at[rows + x] = Base::behind(c, i, j) * Base::stride();
    });
    const int64_t all = g.states + g.t;
    multiply_panels<PlusTimes>(rows, k, from, panel, Matrix<T>{matrix, all * W}, 2 * g.pr,
                               [&](int64_t x, int64_t q, vec<T> v) __attribute__((always_inline)) {
                                 if (q < g.pr)
                                   store(left + q * W + at[x], v);
                                 else
                                   store(right + (q - g.pr) * W + at[rows + x], v);
                               });
    Base::each(w, end, [&](int64_t x, int64_t c, int64_t i, int64_t j) {
      const int64_t a = Base::before(c, i, j), b = Base::behind(c, i, j);
      Base::left_before[a] = Base::left_behind[b] =
          exponent[x] + normalise(left + a * Base::stride(), W, c, terms, &Base::left_shift[a]);
      Base::right_before[a] = Base::right_behind[b] =
          exponent[x] + normalise(right + b * Base::stride(), W, c, terms, &Base::right_shift[a]);
    });
  }
  // Rescales a row over ranks by a power of two, and checks it.
  double normalise(T* row, int64_t panel, int64_t c, int64_t terms, T* shift = nullptr) {
    vec<T> top{};
    for (int64_t q = 0; q < g.pr; q++) top = vmax(top, load(row + q * panel));
    const T most = hmax<T>(top);
    const ivec<T> power = exponent_of<T>(vmax(splat(most), splat(kSmallest<T>)));
    const vec<T> scale = power_of_two<T>(-power);
    vec<T> low = splat(LowRankRange<T>::most), positive = low;
    for (int64_t q = 0; q < g.pr; q++) {
      const vec<T> x = load(row + q * panel);
      watch(x, q, g.r, low, positive);
      store(row + q * panel, x * scale);
    }
    check(c, low, positive, terms);
    if (shift) *shift = scale[0];
    return most > T(0) ? double(power[0]) : kNoPower;
  }
  SLV_INLINE static void watch(vec<T> x, int64_t panel, int64_t k, vec<T>& low, vec<T>& positive) {
    const vec<T> lane = __builtin_convertvector(iota<T>(), vec<T>);
    const vec<T> y = lane < T(k - panel * W) ? x : splat(LowRankRange<T>::most);
    low = vmin(low, y);
    positive = y > T(0) ? vmin(positive, y) : positive;
  }
  void check(int64_t c, vec<T> low, vec<T> positive, int64_t terms) {
    if (!seen[c].forbidden && -hmax<T>(-low) < lowrank_floor<T>(terms)) bad[c] = true;
    seen[c].lowest = std::min(seen[c].lowest, -hmax<T>(-positive));
  }

  // m of a width, into rank, or without a head into sym
  void merge(int64_t w) {
    T* to = (g.has_head ? rank : sym) + Base::first[w] * W;
    for (int64_t t = 0; t + 1 < w; t++) pairs.a[t] = pairs.b[t] = t;
    pairs.count = w - 1;
    Base::each(w, Base::active(w), [&](int64_t x, int64_t c, int64_t i, int64_t j) {
      const int64_t a = Base::before(c, i, i), b = Base::behind(c, i + 1, j);
      const double *l = Base::left_before + a, *r = Base::right_behind + b;
      double top = 4 * kNoPower;
      for (int64_t t = 0; t + 1 < w; t++) top = std::max(top, l[t] + r[t]);
      const bool some = top > kNoPower / 2;
      pair_weights<1>(l, r, some ? -top : 0.0, w - 1, pairs.weight.data());
      ivec<T> missed{};
      auto keep = [&](int64_t q, vec<T> sum, ivec<T> any_pair) __attribute__((always_inline)) {
        missed |= any_pair & (sum == T(0));
        store(to + q * inner * W + x * W, sum);
      };
      if (seen[c].forbidden)
        sum_pairs<true>(pairs, g.pr, left + a * Base::stride(), right + b * Base::stride(), keep);
      else
        sum_pairs<false>(pairs, g.pr, left + a * Base::stride(), right + b * Base::stride(), keep);
      if (any<T>(missed)) bad[c] = true;
      const double m = (some ? top : 0.0) + normalise(to + x * W, inner * W, c, w);
      Base::rank_before[Base::before(c, i, j)] = Base::rank_behind[Base::behind(c, i, j)] = m;
      exponent[x] = m + g.exponent;
    });
  }
  // E of the spans of a width
  void weigh_spans(int64_t w) {
    if (!p.spans) return;
    const int64_t rows = Base::rows(w);
    Base::each(w, Base::active(w), [&](int64_t x, int64_t c, int64_t i, int64_t j) {
      const In* score = p.spans + ((p.row(p.spans_row, items[c]) * p.n + i) * p.n + j) * p.labels;
      if (labelled()) {
        exponent[x] += exp_row<T>(score, p.nt, factor + x * W, rows * W, seen[c]);
      } else {
        const double N = row_exponent(T(*score), seen[c]);
        seen[c].forbidden |= *score == -kInf<In>;
        factor[x] = exp_scaled<T>(splat(T(*score)), splat(T(N)))[0];
        exponent[x] += N;
      }
    });
  }
  // E(row x, panel) and the head's diagonal where there is none
  SLV_INLINE vec<T> factor_at(int64_t x, int64_t panel, int64_t rows) const {
    const vec<T> e = !p.spans ? splat(T(1)) : labelled() ? load(factor + (panel * rows + x) * W) : splat(factor[x]);
    return g.has_head ? e : e * load(g.gain + panel * W);
  }
  void symbols(int64_t w) {
    const int64_t rows = Base::rows(w), at = Base::first[w] * W;
    T* to = sym + at;
    // what three small factors make 0, none of which is, must not mean impossible: it is kept small enough to be seen
    auto keep = [&](int64_t x, int64_t a, vec<T> v) __attribute__((always_inline)) {
      const vec<T> f = factor_at(x, a, rows), s = v * f;
      store(to + (a * inner + x) * W, (v > T(0)) & (f > T(0)) & (s == T(0)) ? splat(kSmallest<T>) : s);
    };
    if (g.has_head) {
      multiply_panels<PlusTimes>(rows, g.r, rank + at, inner * W, Matrix<T>{g.head_up, g.r * W}, g.ps, keep);
    } else if (p.spans || !g.folded) {
      for (int64_t a = 0; a < g.ps; a++)
        for (int64_t x = 0; x < rows; x++) keep(x, a, load(to + (a * inner + x) * W));
    }
    Base::each(w, Base::active(w), [&](int64_t x, int64_t c, int64_t, int64_t) {
      vec<T> low = splat(LowRankRange<T>::most), positive = low;
      for (int64_t a = 0; a < g.ps; a++) watch(load(to + (a * inner + x) * W), a, g.states, low, positive);
      check(c, low, positive, 2 * g.r);
      if (len[c] == w) whole[c] = exponent[x];
    });
  }
  // Scores of the states of a whole sentence: root, or where the head is folded its sums over nonterminals.
  Doubles top_scores(int64_t c) {
    const In* root = p.root + p.row(p.root_row, items[c]) * p.nt;
    Doubles score(root, root + p.nt);
    if (!g.folded) return score;
    const double most = *std::max_element(score.begin(), score.end());
    Doubles sum(g.r);
    for (int64_t a = 0; a < p.nt && most > -kInf<double>; a++) {
      const double w = scalar_exp(score[a] - most);
      bad[c] |= w < 1e-200 && score[a] > -kInf<double>;
      for (int64_t q = 0; q < g.r; q++) sum[q] += w * double(g.head_down[(q / W * p.nt + a) * W + q % W]);
    }
    const double floor = seen[c].forbidden ? 0.0 : double(lowrank_floor<T>(p.nt));
    for (double& x : sum) bad[c] |= most > -kInf<double> && x < floor;
    for (double& x : sum) x = x > 0 ? most + scalar_log(x) : -kInf<double>;
    return sum;
  }
  // log Z, in float64 log space; the whole span is the last of the item's rows
  void finish(int64_t c) {
    log_z[c] = -kInf<double>;
    if (len[c] > 1) {
      const int64_t x = Base::start(len[c], c);
      Doubles score = top_scores(c);
      for (int64_t a = 0; a < g.states; a++) {
        const T v = sym[(a / W * inner + Base::first[len[c]] + x) * W + a % W];
        score[a] = v > T(0) || v != v ? score[a] + scalar_log(double(v)) : -kInf<double>;
      }
      log_z[c] = total<Log>(score.data(), g.states);
      if (log_z[c] > -kInf<double> || log_z[c] != log_z[c]) log_z[c] += kLn2 * whole[c];
    }
    const Seen<T>& x = seen[c];
    bad[c] |= x.beyond || (x.forbidden && (x.lost || x.lowest < LowRankRange<T>::tiny));
    Base::meta[2 * c] = log_z[c];
    Base::meta[2 * c + 1] = bad[c];
  }
};

}  // namespace
}  // namespace slv
