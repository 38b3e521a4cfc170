// The scaled domain of factorial chains: its numbers, on which rung an item is, and that an item leaves its rung where
// the rung's argument fails.
#pragma once
#include "factorial_problem.h"

template <class T>
struct Ladder : Problem<T> {
  using P = Problem<T>;
  using P::o, P::b, P::rows, P::states, P::steps, P::c, P::weight, P::len, P::scores, P::results, P::compare, P::same;
  using typename P::Found;
  static constexpr bool kDouble = sizeof(T) == 8;
  static constexpr double nats = kDouble ? 1e-10 : 1e-6, probability = kDouble ? 1e-9 : 2e-5;
  const int64_t half = (b + 1) / 2, part = o.n * states, pieces = factorial_pieces(c);
  const int64_t scan = factorial_scan_spill(c) + this->spare(), pairs = factorial_edges_spill(c) + 3 * this->spare();
  const int64_t forward = factorial_forward_spill(c) + this->spare();
  const int64_t backward = factorial_backward_spill(c) + this->spare();
  Guarded<T> matrix{rows * c.padded}, back{rows * c.padded}, row_exponent{b * o.n}, alpha{b * part};
  Guarded<T> scale{b * o.n}, inverse{b}, g{half * part}, scan_spill{half * scan}, pair_spill{half * pieces * pairs};
  Guarded<int> kind{rows}, redo{b}, redo_back{b};
  Guarded<double> exponent{rows}, log_z{b}, log_alpha{half * part}, partial{half * factorial_partial_size(c)};
  Guarded<double> counts{half * pieces * c.edges}, sums{rows * c.edges};
  Guarded<double> forward_spill{half * forward}, backward_spill{half * backward};
  Guarded<T> narrow{b};
  const JointScaled<T> s{matrix.data(), back.data(),  exponent.data(), kind.data(), row_exponent.data(),
                         alpha.data(),  scale.data(), inverse.data(),  redo.data()};
  std::vector<bool> leaves;  // whether an item has to

  using P::P;
  template <class M>
  static auto in(M& memory, int64_t needed) {
    return needed ? memory.data() : nullptr;
  }
  // body(first, count) for two ranges of items.
  template <class F>
  void ranges(F&& body) {
    for (int64_t first = 0; first < b; first += half) body(first, std::min(half, b - first));
  }

  // ---- the ladder ------------------------------------------------------------------------------------------------

  // The rung of a row of matrices; checks their exponentials.
  Kind rung(int64_t row) {
    double rho = 0, power = 0;
    bool finite = true, bounded = true;
    int64_t edge = row * c.edges, padded = row * c.padded;
    for (int64_t k : o.sizes) {
      double high = -HUGE_VAL, low = HUGE_VAL;
      bool broken = false;
      for (int64_t e = 0; e < k * k; e++) {
        const double x = this->transition[edge + e];
        if (!(x < HUGE_VAL)) broken = true;
        if (x == -HUGE_VAL) finite = false;
        if (x > -HUGE_VAL) high = std::max(high, x), low = std::min(low, x);
      }
      const bool empty = high == -HUGE_VAL && !broken;
      if (broken || (!empty && std::abs(high) >= double(Range<T>::huge))) bounded = false;
      if (!broken && !empty) rho += high - low;
      if (bounded) check_matrix(edge, padded, k, empty ? 0 : high, power);
      edge += k * k, padded += k * padded_row(int(k));
    }
    if (!bounded) return kUnusable;
    require(exponent[row] == power, "the power of two of a step");
    const double all = std::log(double(states));
    if (finite && 2 * (rho + all) + std::log(double(c.m)) <= Range<T>::mild) return kMild;
    return rho <= Range<T>::wide && rho + all <= Range<T>::wide + 6 ? kWide : kUnusable;
  }
  void check_matrix(int64_t edge, int64_t padded, int64_t k, double high, double& power) {
    const double n = std::rint(high / std::log(2)), ln2 = std::log(2);
    power += n;
    const int64_t stride = padded_row(int(k));
    for (int64_t i = 0; i < k; i++)
      for (int64_t j = 0; j < stride; j++) {
        auto close_to = [&](T found, double score) {
          close(found, std::exp(score - n * ln2), kDouble ? 1e-12 : 1e-5, "exp of a transition", i * stride + j);
        };
        const int64_t at = padded + i * stride + j;
        close_to(matrix[at], j < k ? double(this->transition[edge + i * k + j]) : -HUGE_VAL);
        close_to(back[at], j < k ? double(this->transition[edge + j * k + i]) : -HUGE_VAL);
      }
  }
  // Whether the item cannot be held because of its scores at step t.
  bool check_row(int64_t item, int t) {
    const T n = row_exponent[item * o.n + t];
    const Scores of = scores(item);
    double top = -HUGE_VAL;
    bool bad = false;
    for (int z = 0; z < states; z++) {
      const double x = of.unary(t, z);
      bad = bad || !(x < HUGE_VAL);
      top = std::max(top, x);
    }
    bad = bad || (top > -HUGE_VAL && std::abs(top) >= double(Range<T>::huge));
    require(bad == !(n == n), "whether scores can be scaled");
    const double want = top > -HUGE_VAL ? top / std::log(2) : 0;
    if (!bad) require(std::abs(double(n) - want) < 0.51, "the power of two of scores");
    return bad;
  }
  void check_ladder() {
    for (int64_t r = 0; r < rows; r++) require(kind[r] == rung(r), "the rung of matrices " + std::to_string(r));
    for (int64_t i = 0; i < b; i++) {
      const Kind own = Kind(kind[c.matrix.row(i)]);
      bool leave = len(i) > 0 && own == kUnusable;
      for (int t = 0; t < len(i); t++) leave = check_row(i, t) || leave;
      leaves.push_back(leave);
      require((redo[i] != 0) == !(inverse[i] == inverse[i]), "1/Z of an item that leaves");
      if (leave) require(redo[i] != 0, "an item has to leave its rung");
      if (leave || o.broken != 0) continue;
      if (own == kMild) require(redo[i] == 0, "a mild item stays");
      if (own == kWide) require(redo[i] == loses(i), "whether a wide item stays");
      for (int t = 0; t < len(i) && redo[i] == 0; t++) {
        const T *row = alpha.data() + i * part + (t - 1) * states, most = t ? *std::max_element(row, row + states) : 0;
        const T expected = std::isnormal(most) ? std::ldexp(T(1), -std::ilogb(most)) : T(1);
        require(scale[i * o.n + t] == expected, "the scale of a step");
      }
    }
  }
  // Whether something possible has become too small for a wide item.
  bool loses(int64_t item) {
    const Posterior p = posterior(scores(item));
    for (int64_t e = 0; e < len(item) * states; e++)
      if (p.alpha[e] > -HUGE_VAL && !(alpha[item * part + e] >= Range<T>::tiny)) return true;
    return false;
  }
  // The same of the backward pass: a state that has something before it and after it.
  void check_back(int64_t first, int64_t count) {
    for (int64_t i = first; i < first + count; i++) {
      if (redo[i] != 0) require(redo_back[i] != 0, "what left going forward is gone");
      if (redo[i] != 0) continue;
      bool small = false;
      const Posterior p = posterior(scores(i));
      for (int64_t e = 0; e < len(i) * states; e++)
        small = small || (p.unary[e] > 0 && !(g[(i - first) * part + e] >= Range<T>::tiny));
      if (kind[c.matrix.row(i)] == kMild) require(redo_back[i] == 0, "a mild item stays, back");
      if (kind[c.matrix.row(i)] == kWide) require((redo_back[i] != 0) == small, "whether a wide item stays, back");
    }
  }

  // ---- values ----------------------------------------------------------------------------------------------------

  // The scaled passes and log space for what they leave; expected: gradients, and of edges step by step.
  void climb(const std::vector<Posterior>& exact, const Parts& expected, const Doubles& by_step) {
    run_prepare(c, s, nullptr);
    run_rows(c, s, nullptr);
    ranges([&](int64_t first, int64_t count) {
      run_scan(c, s, {first, count, in(scan_spill, scan)}, log_z.data(), narrow.data(), nullptr);
    });
    check_ladder();
    if (o.broken != 0) return;
    ranges([&](int64_t first, int64_t count) {
      run_forward(c, {first, count, nullptr, in(forward_spill, forward), redo.data()}, log_z.data(), narrow.data(),
                  nullptr);
    });
    for (int64_t i = 0; i < b; i++) {
      close(log_z[i], exact[i].log_z, nats, "log Z, scaled", i);
      close(narrow[i], exact[i].log_z, nats, "narrow log Z, scaled", i);
    }
    gradients(expected, int(pieces));
    if (pieces > 1) gradients(expected, 1);
    if (steps > 0) marginals(expected, by_step);
    // nothing need be kept, nor asked for
    JointScaled<T> bare = s;
    bare.alpha = bare.scale = nullptr;
    run_scan<T>(c, bare, {0, half, in(scan_spill, scan)}, nullptr, nullptr, nullptr);
    check_memory();
  }
  void gradients(const Parts& expected, int cut) {
    Found found = results();
    sweep({weight.data(), nullptr, found.unary.data(), nullptr, counts.data(), cut}, [&](const Beginnings& l) {
      run_sum_edges(c, l, c.matrix, counts.data(), cut, sums.data(), found.edges.data(), nullptr);
    });
    compare(found, expected, probability, "gradient, scaled");
  }
  void marginals(const Parts& expected, const Doubles& by_step) {
    Guarded<T> unary(b * part), edges(b * steps * c.edges);
    sweep({weight.data(), nullptr, unary.data(), edges.data(), counts.data(), int(pieces)}, [](const Beginnings&) {});
    same(unary, expected.unary, probability, "states, scaled");
    same(edges, by_step, probability, "edges, scaled, step by step");
  }
  template <class F>
  void sweep(JointPosterior<T> out, F&& body) {
    const JointAdjoint<T> a{weight.data(), g.data(), out.unary, redo_back.data()};
    ranges([&](int64_t first, int64_t count) {
      run_adjoint(c, s, {first, count, in(scan_spill, scan)}, a, nullptr);
      check_back(first, count);
      run_edges(c, s, {first, count, in(pair_spill, pairs)}, a, out, nullptr);
      Beginnings l{first, count, log_alpha.data(), in(forward_spill, forward), redo_back.data()};
      run_forward<T>(c, l, nullptr, nullptr, nullptr);
      l.spill = in(backward_spill, backward);
      out.partial = partial.data();
      run_backward(c, l, out, nullptr);
      body(l);
    });
  }
  void check_memory() {
    for (Guarded<T>* x :
         {&matrix, &back, &row_exponent, &alpha, &scale, &inverse, &g, &scan_spill, &pair_spill, &narrow})
      x->check("workspace of the scaled domain");
    for (Guarded<double>* x :
         {&exponent, &log_z, &log_alpha, &partial, &counts, &sums, &forward_spill, &backward_spill})
      x->check("workspace of log space");
    for (Guarded<int>* x : {&kind, &redo, &redo_back}) x->check("flags");
  }
};
