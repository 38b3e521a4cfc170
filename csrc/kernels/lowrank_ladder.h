// The ladder of precision for low-rank PCFGs: blocks in the input's own precision, what does not fit its range one by
// one in float64, and what does not fit that in exact log space.
#pragma once
#include <memory>
#include <mutex>

#include "kernels/lowrank_outside.h"
#include "kernels/lowrank_sample.h"

namespace slv {
namespace {

// A grammar prepared once for all the items that share it.
template <class In>
struct SharedGrammar {
  const LowRank<In> problem;
  const int64_t item;
  Grammar<In> own;
  std::once_flag once;
  std::unique_ptr<Grammar<double>> wide_grammar;
  SharedGrammar(const LowRank<In>& p, int64_t item) : problem(p), item(item), own(p, item) {}
  const Grammar<double>& wide() {
    if constexpr (std::is_same_v<In, double>) {
      return own;
    } else {
      std::call_once(once, [this] { wide_grammar = std::make_unique<Grammar<double>>(problem, item); });
      return *wide_grammar;
    }
  }
};
template <class In>
void* lowrank_prepare(const LowRank<In>& p, int64_t item) {
  return new SharedGrammar<In>(p, item);
}
template <class In>
void lowrank_release(void* g) {
  delete static_cast<SharedGrammar<In>*>(g);
}

// then(inside pass of one item in float64, or null where that does not do either)
template <class In, class F>
void on_upper_rung(const LowRank<In>& p, SharedGrammar<In>& g, int64_t item, F&& then) {
  if (std::is_same_v<In, double> || !g.wide().usable) return then(static_cast<Inside<In, double>*>(nullptr));
  Inside<In, double> f(p, g.wide(), &item, 1);
  Buffer<double> chart(f.chart_size());
  Scratch scratch(f.scratch());
  f.bind(chart.data());
  f.bind_scratch(scratch);
  f.run();
  then(f.bad[0] ? nullptr : &f);
}

template <class In>
LowRankSums sums_in(const LowRank<In>& p, double* at) {
  return {at, at + p.nt * p.r, at + p.nt * p.r + p.r * p.s()};
}

// chart: this block's part, of count * size elements, or null
template <class In>
void lowrank_forward(const LowRank<In>& p, void* grammar, const int64_t* items, int count, In* chart, double* log_z) {
  auto& g = *static_cast<SharedGrammar<In>*>(grammar);
  Inside<In, In> f(p, g.own, items, count);
  {
    Scratch scratch(Scratch::bytes<In>(chart ? 0 : f.chart_size()) + f.scratch());
    f.bind(chart ? chart : scratch.take<In>(f.chart_size()));
    f.bind_scratch(scratch);
    if (g.own.usable)
      f.run();
    else
      f.give_up();
    if (chart) {  // nothing of it stays unwritten
      const int64_t size = lowrank_chart_size(p);
      std::fill(chart + (g.own.usable ? f.chart_size() : kLowRankMeta * count), chart + count * size, In(0));
    }
  }
  for (int c = 0; c < count; c++) {
    if (!f.bad[c]) {
      log_z[items[c]] = f.log_z[c];
      continue;
    }
    on_upper_rung(p, g, items[c],
                  [&](auto* wide) { log_z[items[c]] = wide ? wide->log_z[0] : LogInside<In>(p, items[c]).log_z; });
  }
}

template <class In, class T>
void run_outside(Inside<In, T>& f, const LowRankSink<In>& out, const double* weight) {
  Outside<In, T> o(f, out, weight);
  Scratch scratch(o.scratch() + f.scratch());
  f.bind_scratch(scratch);
  o.bind(scratch);
  o.run();
}

template <class In>
void lowrank_backward(const LowRank<In>& p, void* grammar, const int64_t* items, int count, const In* chart,
                      const double* weight, const LowRankSink<In>& out) {
  auto& g = *static_cast<SharedGrammar<In>*>(grammar);
  Inside<In, In> f(p, g.own, items, count);
  f.bind(const_cast<In*>(chart));  // it is only read
  double own[kLowRankItems];
  bool some = false;
  for (int c = 0; c < count; c++) {
    const int64_t b = items[c];
    own[c] = weight ? weight[b] : 1.0;
    f.bad[c] = f.meta[2 * c + 1] != 0;
    some |= !f.bad[c] && f.len[c] > 0;
    std::fill(out.root + b * p.nt, out.root + (b + 1) * p.nt, In(0));
    std::fill(out.unary + b * p.n * p.t, out.unary + (b + 1) * p.n * p.t, In(0));
    if (out.spans) std::fill_n(out.spans + b * p.n * p.n * out.labels, p.n * p.n * out.labels, In(0));
  }
  if (some) run_outside(f, out, own);
  for (int c = 0; c < count; c++) {
    if (!f.bad[c]) continue;
    LowRankSink<In> to = out;
    Doubles unwanted(out.sums.left ? 0 : p.nt * p.r + 2 * p.r * p.s());
    if (out.sums.left)
      to.sums = {out.sums.head ? out.sums.head + c * out.head_stride : nullptr, out.sums.left + c * out.side_stride,
                 out.sums.right + c * out.side_stride};
    on_upper_rung(p, g, items[c], [&](auto* wide) {
      if (wide)
        run_outside(*wide, to, own + c);
      else
        lowrank_marginals_log(p, items[c], own[c], out, out.sums.left ? to.sums : sums_in(p, unwanted.data()));
    });
  }
}

template <class In>
void lowrank_sample(const LowRank<In>& p, void* grammar, const int64_t* items, int count, uint64_t seed,
                    int64_t samples, int64_t* events, int64_t stride) {
  auto& g = *static_cast<SharedGrammar<In>*>(grammar);
  Inside<In, In> f(p, g.own, items, count);
  {
    Scratch scratch(Scratch::bytes<In>(f.chart_size()) + f.scratch());
    f.bind(scratch.take<In>(f.chart_size()));
    f.bind_scratch(scratch);
    if (g.own.usable)
      f.run();
    else
      f.give_up();
    for (int64_t c = 0; c < count; c++)
      if (!f.bad[c]) draw_trees(ScaledChoices<In, In>{f, c}, p, items[c], f.log_z[c], seed, samples, events, stride);
  }
  for (int c = 0; c < count; c++) {
    if (!f.bad[c]) continue;
    on_upper_rung(p, g, items[c], [&](auto* wide) {
      if (wide) {
        draw_trees(ScaledChoices<In, double>{*wide, 0}, p, items[c], wide->log_z[0], seed, samples, events, stride);
      } else {
        const LogInside<In> exact(p, items[c]);
        draw_trees(LogChoices<In>{exact}, p, items[c], exact.log_z, seed, samples, events, stride);
      }
    });
  }
}

}  // namespace
}  // namespace slv
