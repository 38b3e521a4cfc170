// The scaled domain and, for what it cannot hold, log space, under several ways of sharing out the work: each right,
// and all the same to the last bit.
#pragma once
#include "cuda/lowrank_scaled.h"
#include "lowrank_problem.h"

namespace {

struct Plan {
  bool whole;        // a launch does all widths
  int blocks, rows;  // of an item; spans at once
};
const Plan kPlans[] = {{true, 1, 8}, {true, 1, 4}, {false, 3, 1}, {false, 2, 5}};

template <class T>
struct Scaled {
  Guarded<T> down, up, power;
  Guarded<int> seen;
  Scaled(int64_t tables, int64_t rows, int64_t columns)
      : down(tables * rows * columns), up(down.size()), power(tables * rows), seen(tables * rows) {}
  ScaledTable<T> in() { return {down.data(), up.data(), power.data(), seen.data()}; }
};

template <class T>
struct ScaledPass {
  using Weights = typename Problem<T>::Weights;
  Problem<T>& p;
  const std::vector<RankPosterior>& exact;
  const Plan& plan;
  const RowMap grammar;
  const int64_t all, inner;
  Scaled<T> head, left, right;
  Guarded<T> factor, common, words, symbols, ranks, on_left, on_right, exponent, left_exponent, right_exponent;
  Guarded<T> rank_exponent, redo;
  Guarded<int> seen, notes;
  Guarded<double> log_z;
  Guarded<T> log_z_narrow;
  ScaledRanks<T> s;

  ScaledPass(Problem<T>& p, const std::vector<RankPosterior>& exact, const Plan& plan)
      : p(p),
        exact(exact),
        plan(plan),
        grammar(row_map(joined({p.o.lead, p.o.lead_left}, p.o.batch), p.o.batch)),
        all(p.b * p.g.all_spans()),
        inner(p.b * p.g.spans_of_item()),
        head(grammar.rows, p.o.nt, p.o.r),
        left(p.lefts, p.r, p.s),
        right(p.rows, p.r, p.s),
        factor(grammar.rows * p.o.nt),
        common(grammar.rows),
        words(p.b * p.o.n * p.o.t),
        symbols(inner * p.o.nt),
        ranks(inner * p.o.r),
        on_left(all * p.r),
        on_right(all * p.r),
        exponent(all),
        left_exponent(all),
        right_exponent(all),
        rank_exponent(inner),
        redo(p.b),
        seen(grammar.rows),
        notes(3 * all),
        log_z(p.b),
        log_z_narrow(p.b),
        s{grammar,
          head.in(),
          left.in(),
          right.in(),
          factor.data(),
          common.data(),
          seen.data(),
          words.data(),
          symbols.data(),
          p.o.r ? ranks.data() : nullptr,
          on_left.data(),
          on_right.data(),
          exponent.data(),
          left_exponent.data(),
          right_exponent.data(),
          rank_exponent.data(),
          redo.data(),
          notes.data()} {
    std::memset(notes.data(), 0, notes.size() * sizeof(int));
  }

  Widths widths(int from, int to) const { return {from, to, plan.blocks, plan.rows}; }
  void forward() {
    run_scale_grammar(p.g, s, nullptr);
    run_scale_words(p.g, s, nullptr);
    for (int w = 1; w <= p.o.n; w = plan.whole ? p.o.n + 1 : w + 1)
      run_scan(p.g, s, widths(w, plan.whole ? p.o.n : w), nullptr);
    run_scan_end(p.g, s, log_z.data(), log_z_narrow.data(), nullptr);
    for (Scaled<T>* x : {&head, &left, &right})
      x->down.check("table"), x->up.check("table"), x->power.check("table"), x->seen.check("table");
    for (Guarded<T>* x : {&factor, &common, &words, &symbols, &ranks, &on_left, &on_right, &exponent, &left_exponent,
                          &right_exponent, &rank_exponent, &redo, &log_z_narrow})
      x->check("scaled domain");
    seen.check("seen"), notes.check("notes"), log_z.check("log Z");
  }
  // The symbols of what fits are formed again as they were.
  void form_again() {
    Guarded<T> before(symbols.size());
    const size_t size = p.g.spans_of_item() * p.o.nt;
    std::copy_n(symbols.data(), symbols.size(), before.data());
    for (int64_t i = 0; i < p.b; i++)
      if (redo[i] == T(0)) std::memset(static_cast<void*>(symbols.data() + i * size), 0xff, size * sizeof(T));
    run_form_symbols(p.g, s, nullptr);
#if !defined(SLV_PTX)  // there approximate instructions have noise
    require(symbols.size() == 0 || std::memcmp(before.data(), symbols.data(), symbols.size() * sizeof(T)) == 0,
            "symbols formed again differ");
#endif
    symbols.check("symbols");
  }
  void backward(Weights& out) {
    Guarded<T> d_left(all * p.r), d_right(all * p.r), d_symbols(symbols.size()), d_ranks(ranks.size());
    const RankAdjoints<T> d{
        p.weight.data(), d_left.data(),    d_right.data(),  d_symbols.data(), p.o.r ? d_ranks.data() : nullptr,
        out.top.data(),  out.nodes.data(), out.words.data()};
    for (int to = p.o.n; to >= 1; to = plan.whole ? 0 : to - 1)
      run_adjoint(p.g, s, widths(plan.whole ? 1 : to, to), d, nullptr);
    run_count_tables(p.g, s, d, out.of_grammar(p), nullptr);
    for (Guarded<T>* x : {&d_left, &d_right, &d_symbols, &d_ranks}) x->check("adjoints");
  }
  // What does not fit, in log space; what fits is not touched.
  void again(Weights& out) {
    LowRank<T> g = p.g;
    g.redo = redo.data();
    typename Problem<T>::Inside values(p), untouched(p);
    p.log_inside(g, values);
    run_finish<T>(g, values.nodes.data(), log_z.data(), log_z_narrow.data(), nullptr);
    p.log_outside(g, values, out);
    for (size_t a = 0; a < values.all().size(); a++) {
      const int64_t size = values.all()[a]->size() / p.b;
      for (int64_t i = 0; i < p.b; i++) {
        const double *found = values.all()[a]->data() + i * size, *fresh = untouched.all()[a]->data() + i * size;
        const bool same = size == 0 || std::memcmp(found, fresh, size * sizeof(double)) == 0;
        require(redo[i] != T(0) || same, "an item that fits was done again");
      }
    }
  }
  bool must_redo(int64_t item) const {
    const Redone which = p.o.redone;
    const bool first = which == kFirst || (which == kFirstInFloat32 && sizeof(T) == 4);
    return (first && item == 0) || which == kAll || (which == kAllInFloat32 && sizeof(T) == 4);
  }
  void run(Doubles& numbers) {
    const double nats = sizeof(T) == 8 ? 1e-10 : 1e-6, narrow = nats, probability = sizeof(T) == 8 ? 1e-9 : 3e-6;
    forward();
    for (int64_t i = 0; i < p.b; i++) {
      require(redo[i] == T(0) || redo[i] == T(1), "redo: neither yes nor no");
      if (redo[i] == T(0)) close(log_z[i], exact[i].log_z, nats, "scaled log Z", i);
      if (p.o.redone == kSome || p.len(i) < 2) continue;
      require((redo[i] == T(1)) == must_redo(i), must_redo(i) ? "the domain cannot do" : "the domain should do");
    }
    if (p.o.r) form_again();
    Weights out(p);
    backward(out);
    again(out);
    for (int64_t i = 0; i < p.b; i++) {
      close(log_z[i], exact[i].log_z, nats, "log Z after both", i);
      close(log_z_narrow[i], exact[i].log_z, narrow, "narrow log Z after both", i);
      numbers.push_back(log_z[i]);
    }
    for (Guarded<double>* x : out.all()) numbers.insert(numbers.end(), x->data(), x->data() + x->size());
    p.compare(exact, out, probability);
  }
};

template <class T>
void run_scaled(Problem<T>& p, const std::vector<RankPosterior>& exact) {
  Doubles first;
#if defined(SLV_PTX) || defined(__SANITIZE_THREAD__)  // where a launch takes a second
  const bool small = false;
#else
  const bool small = p.o.nt <= 8 && p.r <= 8 && p.o.n <= 10;
#endif
  for (const Plan& plan : kPlans) {
    if (!small && (&plan - kPlans) % 2 == 1) continue;  // one of each kind
    Doubles numbers;
    ScaledPass<T>(p, exact, plan).run(numbers);
    if (first.empty()) first = numbers;
#if !defined(SLV_PTX)
    require(first.empty() || std::memcmp(first.data(), numbers.data(), first.size() * sizeof(double)) == 0,
            "plans differ");
#endif
  }
}

}  // namespace
