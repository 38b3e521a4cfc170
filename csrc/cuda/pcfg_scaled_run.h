// The ladder of dense rules on a GPU: all items in the scaled domain, what does not fit it again in log space. Nothing
// waits for the device: the kernels of log space leave alone the items that are done.
#pragma once
#include <utility>
#include <vector>

#include "cuda/pcfg_run.h"
#include "cuda/pcfg_scaled.h"

namespace slv::cuda {
namespace {

template <class T>
struct ScaledTrees {
  const BoundPcfg<T>& p;
  const Pcfg<T> g;  // all items
  ScaledPcfg<T> s{};
  std::vector<Tensor> keep;

  // chart: of chart_size(p) elements
  ScaledTrees(const BoundPcfg<T>& p, T* chart) : p(p), g(p.g) {
    bind(chart);
    const int64_t rows = p.rules.rows.rows;
    s.rules = take(rows * g.nt * g.pairs());
    s.power = take(rows * g.nt), s.factor = take(rows * g.nt), s.range = take(3 * rows * g.nt);
    s.common = take(rows);
    s.kind = take<int>(rows, ScalarType::Int);
    run_scale_rules(g, s, rows, p.stream);
  }
  template <class U = T>
  U* take(int64_t count, ScalarType dtype = scalar_type<T>) {
    keep.push_back(p.empty({count}, dtype));
    return keep.back().template mutable_data_ptr<U>();
  }
  // Calls body(space) for ranges of items that together are all, one after the other in the same memory, of which an
  // item needs `more` elements besides.
  template <class F>
  void each_range(const Widths& widest, int64_t more, F&& body) {
    const int64_t tiles = int64_t(widest.blocks) * widest.rows, weights = tiles * p.n;
    const int64_t matrices = widest.shared ? 0 : tiles * matrix_size(g.nt), size = weights + matrices + more;
    const int64_t most = std::clamp<int64_t>(kPairsBytes / std::max<int64_t>(int64_t(sizeof(T)) * size, 1), 1,
                                             std::max<int64_t>(p.items, 1));
    T* memory = take(most * size);
    for (int64_t first = 0; first < p.items; first += most)
      body(TileSpace<T>{first, std::min(most, p.items - first), memory, memory + most * weights},
           memory + most * (weights + matrices), most);
  }
  void forward(const Tensor* z) {
    run_scale_words(g, s, p.stream);
    const int n = int(p.n);
    const bool whole = in_one_launch(g);
    if (n > 1)
      each_range(widths_of(g, 2, 2), 0, [&](const TileSpace<T>& space, T*, int64_t) {
        for (int w = 2; w <= n; w = whole ? n + 1 : w + 1)
          run_scan(g, s, widths_of(g, w, whole ? n : w), space, p.stream);
      });
    const bool wide = z && z->scalar_type() == ScalarType::Double;
    run_scan_end(g, s, wide ? z->mutable_data_ptr<double>() : nullptr,
                 z && !wide ? z->template mutable_data_ptr<T>() : nullptr, p.stream);
  }
  // Posterior weights of the items that are not to be done again, from a forward pass.
  void backward(TreeAdjoints<T> d, const RuleCounts& counts) {
    const int64_t spans = g.spans_of_item(), nodes = spans * g.nt, words = p.n * g.nt * g.nt, pairs = g.nt * g.nt;
    const bool wanted = counts.counts, whole = in_one_launch(g);
    const int64_t kept = wanted ? (whole ? spans : p.n - 1) * pairs : 0;
    if (p.n < 2) return;
    each_range(widths_of(g, 2, 2), 3 * nodes + 2 * words + kept, [&](const TileSpace<T>& space, T* at, int64_t most) {
      auto part = [&](int64_t size) { return std::exchange(at, at + most * size); };
      d.left = part(nodes), d.right = part(nodes), d.sums = part(nodes);
      d.words_left = part(words), d.words_right = part(words);
      d.pairs = wanted ? at : nullptr;
      for (int to = int(p.n); to >= 2; to = whole ? 1 : to - 1) {
        const Widths w = widths_of(g, whole ? 2 : to, to);
        run_adjoint(g, s, w, space, d, p.stream);
        if (w.from == 2) run_word_adjoints(g, s, space, d, p.stream);
        if (wanted) run_unhoist_rules(g, s, w, space, d, counts, p.stream);
      }
      run_unhoist_words(g, s, space, d, p.stream);
    });
  }

 private:
  // The parts of the chart; they have the place that the CPU's have (kernels/pcfg_chart.h), or less.
  void bind(T* chart) {
    const int64_t words = p.items * p.n, spans = p.items * g.spans_of_item();
    auto part = [&](int64_t size) { return std::exchange(chart, chart + size); };
    s.words = part(words * g.t);
    s.left = part(words * g.nt * g.nt), s.right = part(words * g.nt * g.nt), s.both = part(words * g.nt * g.t);
    s.inside = part(spans * g.nt);
    s.word_exponent = part(words), s.exponent = part(spans), s.redo = part(p.items);
  }
};

// log Z of all items, the scaled domain's part of it in `run`.
template <class T>
Tensor climb(BoundPcfg<T>& p, ScaledTrees<T>& run, bool as_double) {
  Tensor z = p.new_log_z(as_double);
  run.forward(&z);
  p.redo_only(run.s.redo);
  const Tensor own = p.doubles(p.nodes());
  inside_pass(p, data_of(own));
  p.finish(data_of(own), z);
  return z;
}

// Posterior weights of every part, summed over the items that share it.
template <class T>
struct TreeWeights {
  BoundPcfg<T>& p;
  Tensor top, nodes, words;

  explicit TreeWeights(BoundPcfg<T>& p)
      : p(p),
        top(p.doubles(p.items * p.g.nt, true)),
        nodes(p.doubles(p.nodes(), true)),
        words(p.doubles(p.items * p.n * p.k, true)) {}
  // From a forward pass. The weights of rules into `out`, whose rows these are, where it is given.
  void run(ScaledTrees<T>& scaled, const double* weight, const RowMap& rows, Tensor* out) {
    const GrownRules<T> rules(p, rows, p.g.nt * p.g.pairs(), out);
    TreeAdjoints<T> d{};
    d.weight = weight, d.top = data_of(top), d.nodes = data_of(nodes), d.words = data_of(words);
    scaled.backward(d, rules.counts);
    p.redo_only(scaled.s.redo);
    redo(weight, rules.counts);
    if (out) rules.narrow(*out);
  }

 private:
  void redo(const double* weight, const RuleCounts& counts) {
    const Tensor inside = p.doubles(p.nodes());
    inside_pass(p, data_of(inside));
    run_tops(p.tree, data_of(inside), weight, data_of(top), data_of(nodes), p.stream);
    TreeMass mass{data_of(nodes), data_of(words), nullptr, nullptr, nullptr, nullptr};
    each_range(p, data_of(inside), 2, [&](const TreeSpace<T>& space, double* memory, int64_t pairs, int64_t of_nodes) {
      mass.split_tops = memory, mass.pairs = memory + pairs;
      mass.rule_tops = memory + 2 * pairs, mass.rule_weights = mass.rule_tops + of_nodes;
      for (int w = int(p.n); w >= 2; w--) run_outside(p.g, space, mass, w, counts, p.stream);
    });
  }
};

}  // namespace
}  // namespace slv::cuda
