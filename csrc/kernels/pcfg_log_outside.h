// Marginals of one item and their directional derivative, in exact log space.
//
// From the root down, each node hands its probability on to its children: p(y, z, k | i, j, A) is normalised where it
// is used, so that it is exact however large the potentials are. Nodes are visited in one order by one thread.
#pragma once
#include "kernels/pcfg_log.h"

namespace slv {
namespace {

// The outputs of one item; all of them scaled by its weight.
template <class T>
struct PcfgOutput {
  const Pcfg<T>& g;
  const PcfgSink<T>& to;
  const double weight;

  void clear(T x = T(0)) const {
    std::fill_n(to.root, g.nt, x);
    std::fill_n(to.unary, g.n * g.t, x);
    if (to.rules) std::fill_n(to.rules, g.rules_size(), x);
    if (to.spans) std::fill_n(to.spans, g.n * g.n * to.labels, x);
  }
  bool wants_rules() const { return to.rules || to.rules_sum; }
  void root(int64_t a, double x) const { to.root[a] = T(weight * x); }
  void leaf(int64_t i, int64_t y, double x) const { to.unary[i * g.t + y] = T(weight * x); }
  // x: a number for each nonterminal
  void span(int64_t i, int64_t j, const double* x) const {
    if (!to.spans && !to.spans_sum) return;
    double sum = 0;
    for (int64_t a = 0; a < g.nt; a++) sum += x[a];
    const bool one = to.labels == 1;
    const int64_t at = (i * g.n + j) * to.labels;
    for (int64_t a = 0; a < to.labels; a++) {
      if (to.spans) to.spans[at + a] = T(weight * (one ? sum : x[a]));
      if (to.spans_sum) to.spans_sum[at + a] += weight * (one ? sum : x[a]);
    }
  }
  // x: (nt, layout.size)
  void rules(const Layout& layout, const double* x) const {
    const int64_t s = g.s();
    for (int64_t a = 0; a < g.nt; a++)
      for (const auto& p : layout.block)
        for (int64_t y = 0; y < p.ny; y++) {
          const double* row = x + a * layout.size + p.at + y * p.pitch;
          const int64_t at = (a * s + p.y + y) * s + p.z;
          for (int64_t z = 0; to.rules && z < p.nz; z++) to.rules[at + z] = T(weight * row[z]);
          for (int64_t z = 0; to.rules_sum && z < p.nz; z++) to.rules_sum[at + z] += weight * row[z];
        }
  }
};

// v of a derivative, and the conditional means of f = <v, parts>: mean(i, j, A) is the expectation, given that A covers
// i..j, of what the parts of the tree below it add to f. Averages need no scale.
template <class T>
struct PcfgTangent {
  const Sentence<T> v;
  TreeChart mean;
  Doubles pair;  // of a pair of children: the mean of both together

  PcfgTangent(const Pcfg<T>& direction, const Pcfg<T>& g, int64_t b)
      : v(with_lengths(direction, g), b, T(0)), mean(v, 0), pair(v.layout.size) {
    mean.set_leaves(v);
  }
  static Pcfg<T> with_lengths(Pcfg<T> direction, const Pcfg<T>& g) {
    direction.length = g.length;
    return direction;
  }
  vd rule(int64_t a, int64_t at) const { return load_as<double>(&v.rules[a * v.layout.size + at], kLanes, T(0)); }

  void fill_pairs(const Pairs<T>& p) {
    for (int q = v.layout.first(p.words()); q < v.layout.last(p.words()); q++) {
      const Layout::Block& block = v.layout.block[q];
      for (int64_t y = 0; y < block.ny; y++)
        for (int64_t z = 0; z < block.nz; z += kLanes) {
          const int64_t at = block.at + y * block.pitch + z;
          store<double>(&pair[at], q == Layout::kWide ? split_mean(p, y, z, at) : both(p, p.first_split(q), y, z));
        }
    }
  }
  void fill_means(Pairs<T>& p) {
    double* row = mean.row(p.i, p.j);
    for (int64_t a = 0; a < v.nt; a++) {
      const double scale = p.weigh(a);
      if (!(scale > 0)) continue;
      vd sum{};
      p.each([&](int64_t at) { sum += where_positive(load(&p.weight[at]), rule(a, at) + load(&pair[at])); });
      row[a] = v.span(p.i, p.j, a) + scale * hsum<double>(sum);
    }
  }

 private:
  vd both(const Pairs<T>& p, int64_t k, int64_t y, int64_t z) const {
    return mean.row(p.i, k)[y] + load(mean.row(k + 1, p.j) + z);
  }
  vd split_mean(const Pairs<T>& p, int64_t y, int64_t z, int64_t at) const {
    vd sum{};
    for (int64_t k = p.i + 1; k < p.j - 1; k++) sum += where_positive(p.share(k, y, z, at), both(p, k, y, z));
    return sum;
  }
};

template <class T>
void fill_means(PcfgTangent<T>& f, Pairs<T>& pairs) {
  const int64_t len = pairs.c.len;
  for (int64_t w = 2; w <= len; w++)
    for (int64_t i = 0; i + w <= len; i++) {
      pairs.template fill<Log>(i, i + w - 1);
      f.fill_pairs(pairs);
      f.fill_means(pairs);
    }
}

// The walk from the root down. kTangent: the parts' covariances with f instead of their probabilities,
//   cov(node) = p(node) (mean below it + mean outside of it - E f), and the same for a rule between them.
template <class T, bool kTangent>
struct Descent {
  const Sentence<T>& c;
  Pairs<T>& pairs;
  PcfgTangent<T>* f;  // null where there is none
  const PcfgOutput<T>& out;
  TreeChart p;        // of a node: its probability
  TreeChart outside;  // p times the mean of f outside of the node
  Doubles rules;
  Doubles pair, pair_outside;  // the same two of a pair of children
  Doubles row;
  double mean = 0;  // E f

  Descent(Pairs<T>& pairs, PcfgTangent<T>* f, const PcfgOutput<T>& out)
      : c(pairs.c),
        pairs(pairs),
        f(f),
        out(out),
        p(c, 0),
        outside(c, 0, kTangent),
        rules(out.wants_rules() ? c.nt * c.layout.size : 0),
        pair(c.layout.size),
        pair_outside(kTangent ? c.layout.size : 0),
        row(c.nt) {}

  // top: the probabilities of the root's symbols
  void run(const Doubles& top) {
    const int64_t last = c.len - 1;
    std::copy(top.begin(), top.end(), p.row(0, last));
    if constexpr (kTangent)
      for (int64_t a = 0; a < c.nt; a++)
        if (top[a] > 0) {
          outside.row(0, last)[a] = top[a] * double(f->v.root[a]);
          mean += top[a] * (double(f->v.root[a]) + f->mean.row(0, last)[a]);
        }
    for (int64_t a = 0; a < c.nt; a++) out.root(a, part(0, last, a));
    for (int64_t w = c.len; w >= 2; w--)
      for (int64_t i = 0; i + w <= c.len; i++) node(i, i + w - 1);
    for (int64_t i = 0; i < c.len; i++)
      for (int64_t y = 0; y < c.t; y++) out.leaf(i, y, part(i, i, y));
    if (out.wants_rules()) out.rules(c.layout, rules.data());
  }

 private:
  double part(int64_t i, int64_t j, int64_t symbol) const {
    const double weight = p.row(i, j)[symbol];
    if constexpr (kTangent)
      if (weight > 0) return weight * (outside.row(i, j)[symbol] / weight + f->mean.row(i, j)[symbol] - mean);
    return weight;
  }
  void node(int64_t i, int64_t j) {
    const double* weight = p.row(i, j);
    for (int64_t a = 0; a < c.nt; a++) row[a] = part(i, j, a);
    out.span(i, j, row.data());
    if (std::none_of(weight, weight + c.nt, [](double x) { return x > 0; })) return;
    pairs.template fill<Log>(i, j);
    if constexpr (kTangent) f->fill_pairs(pairs);
    std::fill(pair.begin(), pair.end(), 0.0);
    std::fill(pair_outside.begin(), pair_outside.end(), 0.0);
    for (int64_t a = 0; a < c.nt; a++)
      if (weight[a] > 0) expand(a, weight[a]);
    for (int q = c.layout.first(j - i + 1); q < c.layout.last(j - i + 1); q++)
      for (int64_t k = pairs.first_split(q), end = k + pairs.splits(q); k < end; k++) split(q, k);
  }
  void expand(int64_t a, double weight) {
    const double scale = weight * pairs.weigh(a);
    double *sum = rules.empty() ? nullptr : &rules[a * c.layout.size], beyond = 0;
    if constexpr (kTangent) beyond = outside.row(pairs.i, pairs.j)[a] / weight + f->v.span(pairs.i, pairs.j, a);
    pairs.each([&](int64_t at) {
      const vd w = load(&pairs.weight[at]) * scale;
      store<double>(&pair[at], load(&pair[at]) + w);
      vd x = w;
      if constexpr (kTangent) {
        const vd above = f->rule(a, at) + beyond;
        store<double>(&pair_outside[at], load(&pair_outside[at]) + where_positive(w, above));
        x = where_positive(w, (above - mean) + load(&f->pair[at]));
      }
      if (sum) store<double>(sum + at, load(sum + at) + x);
    });
  }
  // What a split after word k gives to its two children.
  void split(int q, int64_t k) {
    const Layout::Block& block = c.layout.block[q];
    const int64_t i = pairs.i, j = pairs.j;
    double *left = p.row(i, k), *right = p.row(k + 1, j);
    for (int64_t y = 0; y < block.ny; y++) {
      vd sum{}, sum_outside{};
      for (int64_t z = 0; z < block.nz; z += kLanes) {
        const int64_t at = block.at + y * block.pitch + z;
        const vd share = q == Layout::kWide ? pairs.share(k, y, z, at) : splat(1.0);
        const vd w = share * load(&pair[at]);
        sum += w;
        store<double>(right + z, load(right + z) + w);
        if constexpr (kTangent) {
          const vd above = share * load(&pair_outside[at]);
          double* to = outside.row(k + 1, j) + z;
          sum_outside += above + where_positive(w, load(f->mean.row(k + 1, j) + z));
          store<double>(to, load(to) + (above + where_positive(w, splat(f->mean.row(i, k)[y]))));
        }
      }
      left[y] += hsum<double>(sum);
      if constexpr (kTangent) outside.row(i, k)[y] += hsum<double>(sum_outside);
    }
  }
};

// Where there is a tree: the inside chart and the probabilities of the root's symbols; false where there is none.
template <class T>
bool root_weights(const Sentence<T>& c, const TreeChart& in, Doubles& top) {
  top = whole(c, in);
  return softmax(top.data(), c.nt, 1, top.data());
}

template <class T>
void pcfg_marginals_log(const Pcfg<T>& g, int64_t b, double weight, const PcfgSink<T>& to) {
  const PcfgOutput<T> out{g, to, weight};
  out.clear();
  Sentence<T> c(g, b);
  if (!c.trees() || weight == 0) return;
  const TreeChart in = inside<Log>(c);
  Doubles top;
  if (!root_weights(c, in, top)) return;
  Pairs<T> pairs(c, in);
  Descent<T, false>(pairs, nullptr, out).run(top);
}

template <class T>
double pcfg_hvp_log(const Pcfg<T>& g, int64_t b, double weight, const Pcfg<T>& direction, const PcfgSink<T>& to) {
  const PcfgOutput<T> out{g, to, weight};
  out.clear();
  Sentence<T> c(g, b);
  if (!c.trees()) return 0;
  const TreeChart in = inside<Log>(c);
  Doubles top;
  if (!root_weights(c, in, top)) return 0;
  PcfgTangent<T> f(direction, g, b);
  Pairs<T> pairs(c, in);
  fill_means(f, pairs);
  Descent<T, true> walk(pairs, &f, out);
  walk.run(top);
  return walk.mean;
}

}  // namespace
}  // namespace slv
