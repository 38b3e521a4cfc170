// The ladder of low-rank rules on a GPU, as cuda/pcfg_scaled_run.h: all items in the scaled domain, what does not fit
// it again in log space.
#pragma once
#include <utility>

#include "cuda/lowrank_run.h"
#include "cuda/lowrank_scaled.h"

namespace slv::cuda {
namespace {

template <class T>
struct ScaledRankTrees {
  const BoundLowRank<T>& p;
  const LowRank<T> g;  // all items
  ScaledRanks<T> s{};
  std::vector<Tensor> keep;

  // chart: of p.chart_size() elements
  ScaledRankTrees(const BoundLowRank<T>& p, T* chart) : p(p), g(p.g) {
    bind(chart);
    s.grammar = p.grammar;
    const int64_t grammars = s.grammar.rows;
    s.head = table(grammars, g.nt, g.has_head() ? g.r : 0);
    s.left = table(g.left.row.rows, g.r, g.s());
    s.right = table(g.right.row.rows, g.r, g.s());
    s.factor = take(grammars * g.nt), s.common = take(grammars);
    s.seen = take<int>(grammars, ScalarType::Int);
    run_scale_grammar(g, s, p.stream);
  }
  template <class U = T>
  U* take(int64_t count, ScalarType dtype = scalar_type<T>) {
    keep.push_back(p.empty({count}, dtype));
    return keep.back().template mutable_data_ptr<U>();
  }
  void forward(const Tensor* z) {
    s.notes = take<int>(3 * all(), ScalarType::Int);
    torch::stable::zero_(keep.back());
    run_scale_words(g, s, p.stream);
    const int n = int(p.n);
    const bool whole = in_one_launch(g);
    for (int w = 1; w <= n; w = whole ? n + 1 : w + 1) run_scan(g, s, widths_of(g, w, whole ? n : w), p.stream);
    const bool wide = z && z->scalar_type() == ScalarType::Double;
    run_scan_end(g, s, wide ? z->mutable_data_ptr<double>() : nullptr,
                 z && !wide ? z->template mutable_data_ptr<T>() : nullptr, p.stream);
  }
  // What the chart of a forward pass left out.
  void complete() {
    if (p.folded()) run_form_symbols(g, s, p.stream);
  }
  // Posterior weights of the items that are not to be done again, from a complete forward pass.
  void backward(RankAdjoints<T> d, const GrammarCounts& counts) {
    d.on_left = take(all() * g.r), d.on_right = take(all() * g.r);
    d.symbols = take(inner() * g.nt);
    d.ranks = g.has_head() ? take(inner() * g.r) : nullptr;
    const bool whole = in_one_launch(g);
    for (int to = int(p.n); to >= 1; to = whole ? 0 : to - 1)
      run_adjoint(g, s, widths_of(g, whole ? 1 : to, to), d, p.stream);
    run_count_tables(g, s, d, counts, p.stream);
  }

 private:
  int64_t all() const { return p.items * g.all_spans(); }
  int64_t inner() const { return p.items * g.spans_of_item(); }
  ScaledTable<T> table(int64_t tables, int64_t rows, int64_t columns) {
    const int64_t size = tables * rows * columns;
    return {take(size), take(size), take(tables * rows), take<int>(tables * rows, ScalarType::Int)};
  }
  // The parts of the chart; the CPU's take more (lowrank_chart_size).
  void bind(T* chart) {
    auto part = [&](int64_t size) { return std::exchange(chart, chart + size); };
    s.words = part(p.items * p.n * g.t);
    s.symbols = p.folded() ? take(inner() * g.nt) : part(inner() * g.nt);
    s.ranks = g.has_head() ? part(inner() * g.r) : nullptr;
    s.on_left = part(all() * g.r), s.on_right = part(all() * g.r);
    s.exponent = part(all()), s.left_exponent = part(all()), s.right_exponent = part(all());
    s.rank_exponent = part(inner());
    s.redo = part(p.items);
  }
};

// log Z of all items, the scaled domain's part of it in `run`.
template <class T>
Tensor climb(BoundLowRank<T>& p, ScaledRankTrees<T>& run, bool as_double) {
  Tensor z = p.new_log_z(as_double);
  run.forward(&z);
  p.redo_only(run.s.redo);
  const RankSizes<T> sizes(p);
  const Tensor own = p.doubles(sizes.inside());
  const RankInside in = sizes.in(data_of(own));
  inside_pass(p, in);
  p.finish(in.nodes, z);
  return z;
}

// Posterior weights of every part: `nodes` and `words` of each item, those of the grammar's tables summed over the
// items of the rows that the caller names.
template <class T>
struct RankWeights {
  BoundLowRank<T>& p;
  Tensor top, nodes, words;

  explicit RankWeights(BoundLowRank<T>& p)
      : p(p),
        top(p.doubles(p.items * p.g.nt, true)),
        nodes(p.doubles(p.nodes(), true)),
        words(p.doubles(p.items * p.n * p.k, true)) {}
  void run(ScaledRankTrees<T>& scaled, const double* weight, const GrammarCounts& counts) {
    RankAdjoints<T> d{};
    d.weight = weight, d.top = data_of(top), d.nodes = data_of(nodes), d.words = data_of(words);
    scaled.backward(d, counts);
    p.redo_only(scaled.s.redo);
    redo(weight, counts);
  }

 private:
  void redo(const double* weight, const GrammarCounts& counts) {
    const RankSizes<T> sizes(p);
    const Tensor inside = p.doubles(sizes.inside());
    const RankInside in = sizes.in(data_of(inside));
    inside_pass(p, in);
    const RankWork<T> own(p, data_of(nodes), data_of(words));
    run_tops(p.tree, in.nodes, weight, data_of(top), data_of(nodes), p.stream);
    for (int w = int(p.n); w >= 1; w--) run_rank_outside(p.g, in, own.mass, counts, w, p.stream);
  }
};

}  // namespace
}  // namespace slv::cuda
