// The scaled domain and, for what it cannot hold, log space, under several ways of sharing out the work: each right,
// and all the same to the last bit.
#pragma once
#include "cuda/pcfg_scaled.h"
#include "pcfg_problem.h"

namespace {

struct Plan {
  bool whole;        // a launch does all widths
  int blocks, rows;  // of an item; spans at once
  bool shared;
};
const Plan kPlans[] = {{true, 1, 8, true}, {true, 1, 4, false}, {false, 3, 1, true}, {false, 2, 5, false}};

template <class T>
struct ScaledPass {
  using Weights = typename Problem<T>::Weights;
  Problem<T>& p;
  const std::vector<TreePosterior>& exact;
  const Plan& plan;
  const int64_t nt, t, words, spans, rules, half;
  Guarded<T> e, power, factor, range, common, u, left, right, both, inside, word_exponent, exponent, redo;
  Guarded<int> kind;
  Guarded<double> log_z;
  Guarded<T> log_z_narrow;
  ScaledPcfg<T> s;

  ScaledPass(Problem<T>& p, const std::vector<TreePosterior>& exact, const Plan& plan)
      : p(p),
        exact(exact),
        plan(plan),
        nt(p.o.nt),
        t(p.o.t),
        words(p.b * p.o.n),
        spans(p.g.spans_of_item()),
        rules(p.rows * nt),
        half((p.b + 1) / 2),
        e(p.rules.size()),
        power(rules),
        factor(rules),
        range(3 * rules),
        common(p.rows),
        u(words * t),
        left(words * nt * nt),
        right(left.size()),
        both(words * nt * t),
        inside(p.b * spans * nt),
        word_exponent(words),
        exponent(p.b * spans),
        redo(p.b),
        kind(p.rows),
        log_z(p.b),
        log_z_narrow(p.b),
        s{e.data(),    power.data(), factor.data(), range.data(),  common.data(),        kind.data(),     u.data(),
          left.data(), right.data(), both.data(),   inside.data(), word_exponent.data(), exponent.data(), redo.data()} {
  }

  Widths widths(int from, int to) const { return {from, to, plan.blocks, plan.rows, plan.shared}; }
  template <class F>
  void each_range(F&& body) {
    const int64_t tiles = half * plan.blocks * plan.rows;
    Guarded<T> weights(tiles * p.o.n), matrices(plan.shared ? 0 : tiles * matrix_size(nt));
    for (int64_t first = 0; first < p.b; first += half)
      body(TileSpace<T>{first, std::min(half, p.b - first), weights.data(), matrices.data()});
    weights.check("weights of splits"), matrices.check("matrices");
  }
  void forward() {
    run_scale_rules(p.g, s, p.rows, nullptr);
    run_scale_words(p.g, s, nullptr);
    each_range([&](const TileSpace<T>& space) {
      for (int w = 2; w <= p.o.n; w = plan.whole ? p.o.n + 1 : w + 1)
        run_scan(p.g, s, widths(w, plan.whole ? p.o.n : w), space, nullptr);
    });
    run_scan_end(p.g, s, log_z.data(), log_z_narrow.data(), nullptr);
    for (Guarded<T>* x : {&e, &power, &factor, &range, &common, &u, &left, &right, &both, &inside, &word_exponent,
                          &exponent, &redo, &log_z_narrow})
      x->check("scaled domain");
    kind.check("kind"), log_z.check("log Z");
  }
  void backward(Weights& out) {
    Guarded<T> on_left(half * spans * nt), on_right(on_left.size()), sums(on_left.size());
    Guarded<T> pairs(half * (plan.whole ? spans : p.o.n - 1) * nt * nt);
    Guarded<T> of_left(half * p.o.n * nt * nt), of_right(of_left.size());
    const TreeAdjoints<T> d{p.weight.data(), on_left.data(),  on_right.data(), sums.data(),      pairs.data(),
                            of_left.data(),  of_right.data(), out.top.data(),  out.nodes.data(), out.words.data()};
    each_range([&](const TileSpace<T>& space) {
      for (int to = p.o.n; to >= 2; to = plan.whole ? 1 : to - 1) {
        const Widths w = widths(plan.whole ? 2 : to, to);
        run_adjoint(p.g, s, w, space, d, nullptr);
        if (w.from == 2) run_word_adjoints(p.g, s, space, d, nullptr);
        run_unhoist_rules(p.g, s, w, space, d, out.of_rules(p), nullptr);
      }
      run_unhoist_words(p.g, s, space, d, nullptr);
    });
    for (Guarded<T>* x : {&on_left, &on_right, &sums, &pairs, &of_left, &of_right}) x->check("adjoints");
  }
  // What exponentials of rules are relative to, and whether they can be scaled.
  void check_rules() {
    for (int64_t row = 0; row < p.rows; row++) {
      double high = -HUGE_VAL, low = HUGE_VAL, most = -HUGE_VAL;
      bool holes = false, unusable = false;
      for (int64_t slice = row * nt; slice < (row + 1) * nt; slice++) {
        double top = -HUGE_VAL, least = HUGE_VAL;
        bool hole = false, broken = false;
        for (int64_t e = slice * p.s * p.s; e < (slice + 1) * p.s * p.s; e++) {
          const double x = p.rules[e];
          broken = broken || !(x < HUGE_VAL), hole = hole || x == -HUGE_VAL;
          top = std::max(top, x);
          if (x > -HUGE_VAL) least = std::min(least, x);
        }
        const bool large = broken || (top > -HUGE_VAL && std::abs(top) >= double(Range<T>::huge));
        require(large == !(std::abs(range[3 * slice]) < Range<T>::huge || top == -HUGE_VAL), "rules too large");
        unusable = unusable || large;
        if (large) continue;
        require(range[3 * slice] == top && range[3 * slice + 1] == least, "the range of rules");
        require((range[3 * slice + 2] != 0) == hole, "whether all rules are possible");
        const double n = power[slice];
        require(top == -HUGE_VAL ? n == top : std::abs(n - top / std::log(2)) < 0.51, "the power of two of rules");
        high = std::max(high, top), low = std::min(low, least), holes = holes || hole, most = std::max(most, n);
      }
      unusable = unusable || (holes && high - low > Range<T>::wide);
      require(kind[row] == (unusable ? kUnusableRules : holes ? kSomeRules : kFiniteRules), "the kind of rules");
      if (unusable) continue;
      require(common[row] == (most > -HUGE_VAL ? most : 0), "the power of two of all rules");
      for (int64_t slice = row * nt; slice < (row + 1) * nt; slice++) {
        const T expected = std::ldexp(T(1), int(std::max(double(power[slice]) - common[row], -1e4)));
        require(factor[slice] == (std::isnormal(expected) ? expected : T(0)), "the factor of rules");
      }
    }
  }
  // What does not fit, in log space; what fits is not touched.
  void again(Weights& out) {
    Pcfg<T> g = p.g;
    g.redo = redo.data();
    Guarded<double> values(p.b * spans * nt);
    p.log_inside(g, values.data());
    run_finish<T>(g, values.data(), log_z.data(), log_z_narrow.data(), nullptr);
    p.log_outside(g, values.data(), out);
    Guarded<double> untouched(values.size());
    for (int64_t i = 0; i < p.b; i++) {
      const size_t size = spans * nt * sizeof(double);
      const bool same =
          size == 0 || std::memcmp(values.data() + i * spans * nt, untouched.data() + i * spans * nt, size) == 0;
      require(redo[i] != T(0) || same, "an item that fits was done again");
    }
  }
  void run(Doubles& numbers) {
    const double nats = sizeof(T) == 8 ? 1e-10 : 1e-6, narrow = nats, probability = sizeof(T) == 8 ? 1e-9 : 3e-6;
    forward();
    check_rules();
    bool some = false;
    for (int64_t i = 0; i < p.b; i++) {
      require(redo[i] == T(0) || redo[i] == T(1), "redo: neither yes nor no");
      some = some || redo[i] != T(0);
      if (p.o.broken != 0) require((redo[i] != T(0)) == (p.broken(p.g.rule_row.row(i)) != nullptr), "what is broken");
      if (redo[i] == T(0) && !p.o.flags()) close(log_z[i], exact[i].log_z, nats, "scaled log Z", i);
    }
    require(p.o.redone == 2 || some == (p.o.redone == 1), some ? "the domain should do" : "the domain cannot do");
    if (p.o.flags()) return;
    Weights out(p);
    backward(out);
    again(out);
    for (int64_t i = 0; i < p.b; i++) {
      close(log_z[i], exact[i].log_z, nats, "log Z after both", i);
      close(log_z_narrow[i], exact[i].log_z, narrow, "narrow log Z after both", i);
      numbers.push_back(log_z[i]);
    }
    for (Guarded<double>* x : {&out.top, &out.nodes, &out.words, &out.counts})
      numbers.insert(numbers.end(), x->data(), x->data() + x->size());
    p.compare(exact, out, probability);
  }
};

template <class T>
void run_scaled(Problem<T>& p, const std::vector<TreePosterior>& exact) {
  Doubles first;
  bool whole = false;
  const bool small = p.o.nt <= 8 && p.o.n <= 10;
  for (const Plan& plan : kPlans) {
    if (!small && &plan - kPlans > 0 && plan.whole == whole) continue;  // one of each kind
    Doubles numbers;
    ScaledPass<T>(p, exact, plan).run(numbers);
    if (plan.whole != whole) first = numbers;
    whole = plan.whole;
#if !defined(SLV_PTX)  // there approximate instructions have noise
    require(numbers.empty() || std::memcmp(first.data(), numbers.data(), first.size() * sizeof(double)) == 0,
            "plans differ");
#endif
  }
}

}  // namespace
