// The loops over sentences: blocks of items that share a grammar; sums over items in float64, in an order of their own.
#pragma once
#include <tuple>

#include "ops/chain_plan.h"
#include "ops/dispatch.h"
#include "ops/lowrank_bind.h"
#include "ops/parallel.h"

namespace slv {

template <class T>
const LowRankKernels<T>& lowrank_kernels_of() {
  if constexpr (sizeof(T) == 4)
    return lowrank_kernels().f32;
  else
    return lowrank_kernels().f64;
}

// Operations of one inside pass over the whole batch.
template <class T>
double lowrank_work(const LowRank<T>& g) {
  const double n = double(g.n), r = double(g.r), nt = double(g.nt), span = g.folded ? 2 * r : (g.head ? 3 : 2) * nt;
  return double(g.batch) * n * (n * r * (span + n / 2) + 4 * r * double(g.t)) + 8 * r * double(g.s());
}
template <class T>
int64_t chart_size(const LowRank<T>& g) {
  return lowrank_chart_size(g);
}
// float64 sums of one grammar: of head, left and right
template <class T>
struct SumSizes {
  int64_t head, side;
  explicit SumSizes(const LowRank<T>& g) : head(g.head ? g.nt * g.r : 0), side(g.r * g.s()) {}
  int64_t all() const { return head + 2 * side; }
  LowRankSums at(double* p) const { return {head ? p : nullptr, p + head, p + head + side}; }
};

// Blocks of items small enough for the threads, and for their sums over splits to stay in a cache; a grammar that is
// larger than that is rather shared by more.
template <class T>
Plan lowrank_plan(const BoundLowRank<T>& p, int64_t most_groups, int64_t most_rows = kLowRankItems) {
  const LowRank<T>& g = p.pcfg;
  const double cache = double(768 << 10) / sizeof(T);
  const bool large = 3.0 * double(g.folded ? g.r : g.nt) * double(g.r) > cache;
  const double most = large ? double(kLowRankItems) : cache / (1.5 * double(g.n * g.n * g.r) + 1);
  const int64_t fit = int64_t(std::clamp<double>(most, 1, double(kLowRankItems)));
  const int64_t threads = p.items >= 32 ? kLowRankItems : p.items >= 8 ? 4 : 2;
  Chain<T> items{};
  items.batch = p.items;
  items.matrix = p.grammar.empty() ? nullptr : p.grammar.data();
  items.length = p.length_map();
  return make_plan(items, std::min({fit, threads, most_rows}), most_groups);
}

// A grammar prepared for the kernels: once for all where there is one, by the unit that needs it where there are many.
template <class T>
class PreparedGrammars {
 public:
  using Handle = std::unique_ptr<void, void (*)(void*)>;
  explicit PreparedGrammars(const BoundLowRank<T>& p) : p_(p), shared_(none()) {
    if (p.grammar.empty() && p.items > 0) shared_ = make(0);
  }
  void* get(int64_t item, Handle& own) const {
    if (shared_) return shared_.get();
    own = make(item);
    return own.get();
  }
  Handle none() const { return Handle(nullptr, lowrank_kernels_of<T>().release); }

 private:
  Handle make(int64_t item) const {
    return Handle(lowrank_kernels_of<T>().prepare(p_.pcfg, item), lowrank_kernels_of<T>().release);
  }
  const BoundLowRank<T>& p_;
  Handle shared_;
};

// body(block, its items, grammar), over the threads
template <class T, class F>
void each_block(const BoundLowRank<T>& p, const Plan& plan, double work, F&& body) {
  const PreparedGrammars<T> grammars(p);
  parallel_units(plan.blocks.size(), work, [&](int64_t u) {
    const Plan::Block& b = plan.blocks[u];
    auto own = grammars.none();
    const int64_t* items = plan.order.data() + b.first;
    body(b, items, grammars.get(items[0], own));
  });
}

template <class T>
void lowrank_inside(const BoundLowRank<T>& p, T* chart, double* log_z) {
  const int64_t size = chart_size(p.pcfg);
  each_block(p, lowrank_plan(p, 1), lowrank_work(p.pcfg), [&](const Plan::Block& b, const int64_t* items, void* g) {
    lowrank_kernels_of<T>().forward(p.pcfg, g, items, int(b.rows), chart ? chart + b.first * size : nullptr, log_z);
  });
}

// Gradients of head, left and right in their own shapes, from the sums of each group of items. Sums that share a row
// are added up in order; the others go to their row at once.
template <class T>
class GrammarGradients {
 public:
  GrammarGradients(const BoundLowRank<T>& p, const Plan& plan, const MaybeTensor& head, const Tensor& left,
                   const Tensor& right)
      : p_(p),
        plan_(plan),
        tensors{p.empty(head ? shape_of(*head) : Shape{0}), p.empty(shape_of(left)), p.empty(shape_of(right))} {
    const Operand* operand[3] = {&p.head, &p.left, &p.right};
    for (int x = 0; x < 3; x++) {
      part_[x].operand = operand[x];
      part_[x].out = tensors[x].template mutable_data_ptr<T>();
      part_[x].size = operand[x]->count ? tensors[x].numel() / operand[x]->count : 0;
      part_[x].prepare(int64_t(plan.groups.size()));
    }
  }
  void add(int64_t group, const double* sums) {
    const int64_t item = plan_.order[plan_.blocks[plan_.groups[group].first].first];
    for (Part& x : part_) {
      x.add(item, sums);
      sums += x.size;
    }
  }
  void finish() {
    for (Part& x : part_) std::transform(x.total.begin(), x.total.end(), x.out, [](double v) { return T(v); });
  }
  Tensor head() const { return tensors[0]; }
  Tensor left() const { return tensors[1]; }
  Tensor right() const { return tensors[2]; }

 private:
  struct Part {
    const Operand* operand;
    T* out;
    int64_t size;
    std::vector<double> total;  // where groups share rows
    void prepare(int64_t groups) {
      if (groups != operand->count) total.assign(operand->count * size, 0.0);
    }
    void add(int64_t item, const double* sums) {
      const int64_t row = operand->row(item) * size;
      for (int64_t e = 0; e < size; e++)
        if (total.empty())
          out[row + e] = T(sums[e]);
        else
          total[row + e] += sums[e];
    }
  };
  const BoundLowRank<T>& p_;
  const Plan& plan_;
  Tensor tensors[3];
  Part part_[3];
};

// The gradient of <weight, log Z>: root, unary and spans by item into `out`; the grammar's by group.
template <class T>
void lowrank_adjoint(const BoundLowRank<T>& p, const Plan& plan, const T* chart, const double* weight,
                     LowRankSink<T> out, GrammarGradients<T>& gradients) {
  const SumSizes<T> sizes(p.pcfg);
  const int64_t window = accumulators(sizes.all()), size = chart_size(p.pcfg), groups = plan.groups.size();
  const PreparedGrammars<T> grammars(p);
  std::vector<double> sums(std::min(window, groups) * sizes.all());
  for (int64_t first = 0; first < groups; first += window) {
    const int64_t count = std::min(window, groups - first);
    std::fill(sums.begin(), sums.end(), 0.0);
    parallel_units(count, 3 * lowrank_work(p.pcfg), [&](int64_t u) {
      const Plan::Group& group = plan.groups[first + u];
      auto own = grammars.none();
      void* grammar = grammars.get(plan.order[plan.blocks[group.first].first], own);
      LowRankSink<T> to = out;
      to.sums = sizes.at(sums.data() + u * sizes.all());
      for (int64_t q = group.first; q < group.first + group.blocks; q++) {
        const Plan::Block& b = plan.blocks[q];
        lowrank_kernels_of<T>().backward(p.pcfg, grammar, plan.order.data() + b.first, int(b.rows),
                                         chart + b.first * size, weight, to);
      }
    });
    for (int64_t u = 0; u < count; u++) gradients.add(first + u, sums.data() + u * sizes.all());
  }
  gradients.finish();
}

// Marginals of every item by itself: what is in `out`, and parts (batch, ...) of head, left and right; all three null
// where they are not wanted.
template <class T>
void lowrank_marginals(const BoundLowRank<T>& p, LowRankSink<T> out, T* head, T* left, T* right) {
  const LowRank<T>& g = p.pcfg;
  const SumSizes<T> sizes(g);
  const int64_t each = left ? sizes.all() : 0;
  const Plan plan = lowrank_plan(p, 1, std::max<int64_t>((int64_t(1) << 21) / std::max<int64_t>(each, 1), 1));
  each_block(p, plan, 4 * lowrank_work(g), [&](const Plan::Block& b, const int64_t* items, void* grammar) {
    std::unique_ptr<T[]> chart(new T[b.rows * chart_size(g)]);
    std::vector<double> log_z(g.batch), sums(b.rows * each);
    lowrank_kernels_of<T>().forward(g, grammar, items, int(b.rows), chart.get(), log_z.data());
    LowRankSink<T> to = out;
    if (left)
      to.sums = {sizes.head ? sums.data() : nullptr, sums.data() + b.rows * sizes.head,
                 sums.data() + b.rows * (sizes.head + sizes.side)};
    to.head_stride = sizes.head, to.side_stride = sizes.side;
    lowrank_kernels_of<T>().backward(g, grammar, items, int(b.rows), chart.get(), nullptr, to);
    auto deliver = [&](const double* from, int64_t size, T* rows) {
      for (int64_t c = 0; c < b.rows; c++)
        std::transform(from + c * size, from + (c + 1) * size, rows + items[c] * size, [](double v) { return T(v); });
    };
    if (head) deliver(to.sums.head, sizes.head, head);
    if (left) deliver(to.sums.left, sizes.side, left);
    if (right) deliver(to.sums.right, sizes.side, right);
  });
}

}  // namespace slv
