// Every entry of the low-rank PCFG's kernel table on small awkward grammars, without torch, as chain_driver.cpp does
// it: against the recursion over all symbols with the rules written out.
#include <utility>

#include "kernels/lowrank.h"
#include "pcfg_checks.h"

namespace driver {

using slv::LowRank;

// A PcfgProblem (its rules are not used) with rules of a rank.
template <class T>
struct LowRankChecks {
  PcfgProblem<T> frame;
  const int64_t r, s, n, nt, t, batch;
  Exact<T> head, left, right;
  LowRank<T> g;
  std::vector<Tree> trees;
  std::vector<TreeAnswer> answers;
  const double tolerance;

  LowRankChecks(const PcfgSpec& spec, int64_t rank, bool has_head, bool folded)
      : frame(spec),
        r(has_head ? rank : spec.nt),
        s(spec.nt + spec.t),
        n(spec.n),
        nt(spec.nt),
        t(spec.t),
        batch(spec.batch),
        head(has_head ? scores(nt * r) : Exact<T>()),
        left(scores(r * s)),
        right(scores(r * s)),
        tolerance(sizeof(T) == 4                                 ? 1e-5
                  : spec.kind == kLarge || spec.kind == kShifted ? 1e-8
                                                                 : 1e-10) {
    const slv::Pcfg<T> p = frame.pcfg();
    const bool fold = folded && has_head && p.labels == 1;
    g = {batch,        n,       nt,      t,          r,       p.labels, fold,    p.root,      head.data(), left.data(),
         right.data(), p.unary, p.spans, p.root_row, nullptr, nullptr,  nullptr, p.spans_row, p.length};
    for (int64_t b = 0; b < batch; b++) {
      trees.push_back(tree_of(p, b));
      dense(trees.back().rules);
      answers.emplace_back(trees.back());
    }
  }
  static const auto& kernel() {
    if constexpr (sizeof(T) == 4)
      return slv::lowrank_kernels().f32;
    else
      return slv::lowrank_kernels().f64;
  }
  void run() {
    std::vector<int64_t> items(batch);
    for (int64_t b = 0; b < batch; b++) items[b] = b;
    std::stable_sort(items.begin(), items.end(), [&](int64_t a, int64_t b) { return g.len(a) > g.len(b); });
    void* grammar = kernel().prepare(g, 0);
    Exact<double> log_z(batch), again(batch);
    const bool skewed = std::exchange(skew, false);
    Exact<T> chart(batch * slv::lowrank_chart_size(g), T(kNaN));
    skew = skewed;
    kernel().forward(g, grammar, items.data(), int(batch), nullptr, log_z.data());
    kernel().forward(g, grammar, items.data(), int(batch), chart.data(), again.data());
    for (int64_t b = 0; b < batch; b++) {
      const double z = answers[b].log_z;
      check(near(log_z[b], z, tolerance, std::max(1.0, std::abs(z))), "log partition", log_z[b], z);
      check(log_z[b] == again[b], "log partition with a chart", again[b], log_z[b]);
    }
    marginals(grammar, items, chart);
    samples(grammar, items);
    kernel().release(grammar);
  }

 private:
  Exact<T> scores(int64_t count) {
    Exact<T> out(count);
    auto uniform = [this] { return double(frame.random() >> 11) * 0x1p-53; };
    const double size = frame.spec.kind == kLarge ? 1e3 : 2, holes = frame.spec.kind == kHoles      ? 0.2
                                                                     : frame.spec.kind == kHopeless ? 0.6
                                                                                                    : 0;
    for (int64_t i = 0; i < count; i++) {
      const double x = size * (2 * uniform() - 1);
      out[i] = uniform() < holes ? T(-kInf) : T(x);
    }
    return out;
  }
  void dense(Doubles& rules) const {
    for (int64_t a = 0; a < nt; a++)
      for (int64_t y = 0; y < s; y++)
        for (int64_t z = 0; z < s; z++) {
          Doubles terms;
          for (int64_t q = 0; q < r; q++)
            if (head.size() || q == a)
              terms.push_back((head.size() ? double(head[a * r + q]) : 0.0) + left[q * s + y] + right[q * s + z]);
          rules[(a * s + y) * s + z] = log_sum(terms.data(), int64_t(terms.size()));
        }
  }
  void marginals(void* grammar, const std::vector<int64_t>& items, const Exact<T>& chart) {
    const bool covered = !g.folded;
    Exact<T> root(batch * nt, T(kNaN)), unary(batch * n * t, T(kNaN)), spans(covered ? batch * n * n * nt : 0, T(kNaN));
    Exact<double> heads(batch * nt * r), lefts(batch * r * s), rights(batch * r * s);
    kernel().backward(g, grammar, items.data(), int(batch), chart.data(), nullptr,
                      {root.data(),
                       unary.data(),
                       spans.data(),
                       nt,
                       {head.size() ? heads.data() : nullptr, lefts.data(), rights.data()},
                       nt * r,
                       r * s});
    for (int64_t c = 0; c < batch; c++) {
      const int64_t b = items[c], len = trees[b].len;
      const TreeAnswer& a = answers[b];
      for (int64_t e = 0; e < nt; e++)
        check(near(root[b * nt + e], a.root[e], tolerance, 1), "root", root[b * nt + e], a.root[e]);
      for (int64_t e = 0; e < n * t; e++) {
        const double x = e < len * t ? a.unary[e] : 0;
        check(near(unary[b * n * t + e], x, tolerance, 1), "unary", unary[b * n * t + e], x);
      }
      for (int64_t i = 0; covered && i < n; i++)
        for (int64_t j = 0; j < n; j++)
          for (int64_t e = 0; e < nt; e++) {
            const double x = i < len && j < len ? a.spans[(i * len + j) * nt + e] : 0,
                         found = spans[((b * n + i) * n + j) * nt + e];
            check(near(found, x, tolerance, 1), "spans", found, x);
          }
      const double nodes = a.log_z > -kInf ? double(len - 1) : 0;
      auto total = [](const Exact<double>& x, int64_t at, int64_t size) {
        double sum = 0;
        for (int64_t e = 0; e < size; e++) sum += x[at * size + e];
        return sum;
      };
      check(near(total(lefts, c, r * s), nodes, tolerance, nodes + 1), "left", total(lefts, c, r * s), nodes);
      check(near(total(rights, c, r * s), nodes, tolerance, nodes + 1), "right", total(rights, c, r * s), nodes);
      if (head.size())
        check(near(total(heads, c, nt * r), nodes, tolerance, nodes + 1), "head", total(heads, c, nt * r), nodes);
    }
  }
  void samples(void* grammar, const std::vector<int64_t>& items) {
    if (g.folded) return;
    const int64_t size = slv::lowrank_event_size(n);
    Exact<int64_t> events(2 * batch * size, 7);
    kernel().sample(g, grammar, items.data(), int(batch), 11, 2, events.data(), batch * size);
    for (int64_t e = 0; e < 2 * batch && size > 0; e++) {
      const Tree& tree = trees[e % batch];
      if (answers[e % batch].log_z > -kInf)
        check(score_of(tree, events.data() + e * size, size / 3) > -kInf, "sample");
      else
        check(std::all_of(events.data() + e * size, events.data() + (e + 1) * size, [](int64_t x) { return x == -1; }),
              "no sample");
    }
  }
};

template <class T>
void run_all() {
  uint64_t seed = 0;
  for (int64_t nt : {1, 2, 9, 17})
    for (int64_t t : {1, 5, 16})
      for (int64_t n : {0, 1, 2, 3, 6})
        for (int kind = 0; kind < kPcfgKinds; kind++)
          for (int form = 0; form < 3; form++) {  // a head, a folded one, none
            seed++;
            constexpr int64_t kRanks[] = {1, 3, 8, 17};
            const int64_t labels = form == 1 || seed % 3 == 0 ? seed % 2
                                   : seed % 3 == 1            ? 1
                                                              : nt,
                          batch = nt > 9 || n > 3 ? 2 : 5;
            const PcfgSpec spec{batch, n, nt, t, labels, PcfgKind(kind), true, seed / 3 % 3 == 0, seed};
            context = (sizeof(T) == 4 ? "float32 " : "float64 ") + spec.text() + " form=" + std::to_string(form);
            skew = seed % 4 >= 2;
            LowRankChecks<T>(spec, kRanks[seed % 4], form < 2, form == 1).run();
          }
}

}  // namespace driver

int main() {
  driver::run_all<float>();
  driver::run_all<double>();
  std::printf("lowrank_driver: %s: %lld checks, %lld failed\n", slv::kernels().name,
              static_cast<long long>(driver::checks), static_cast<long long>(driver::failures));
  return driver::failures != 0;
}
