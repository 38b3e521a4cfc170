// Single trees and maxima in exact log space: the best tree, max-marginals, samples, and the tree of best span scores.
#pragma once
#include <numeric>

#include "core/philox.h"
#include "kernels/pcfg_log_outside.h"

namespace slv {
namespace {

struct TreeNode {
  int64_t i, j, symbol;
  int64_t rank = 0;  // among the k best
};

// Writes the tree over n words that choose(node, left, right) grows from the root down, in pre-order; -1 behind its
// end, and everywhere where `choose` finds nothing or the root's symbol is -1. No recursion: a tree may be as deep as
// the sentence is long.
template <class F>
void grow(int64_t n, const TreeNode& root, int64_t* event, F&& choose) {
  std::fill_n(event, event_size(n), -1);
  if (root.symbol < 0) return;
  Vector<TreeNode> open{root};
  for (int64_t* row = event; !open.empty(); row += 3) {
    const TreeNode node = open.back();
    row[0] = node.i, row[1] = node.j, row[2] = node.symbol;
    if (node.i == node.j) {
      open.pop_back();
      continue;
    }
    TreeNode left{}, right{};
    if (!choose(node, left, right)) return void(std::fill_n(event, event_size(n), -1));
    open.back() = right;
    open.push_back(left);
  }
}

// The block of the pairs of children of i..j that are split after word k.
inline int block_of(int64_t i, int64_t k, int64_t j) { return 2 * (k == i) + (k + 1 == j); }

// Calls visit(k, block, y, score of the left child, scores of the right ones) for each left child of a node, in order.
template <class T, class F>
void each_left(const Sentence<T>& c, const TreeChart& in, int64_t i, int64_t j, F visit) {
  for (int64_t k = i; k < j; k++) {
    const Layout::Block& p = c.layout.block[block_of(i, k, j)];
    const double *left = in.row(i, k), *right = in.row(k + 1, j);
    for (int64_t y = 0; y < p.ny; y++) visit(k, p, y, left[y], right);
  }
}

template <class T>
bool best_children(const Sentence<T>& c, const TreeChart& in, const TreeNode& node, TreeNode& left, TreeNode& right) {
  double best = kNone;
  each_left(c, in, node.i, node.j, [&](int64_t k, const Layout::Block& p, int64_t y, double l, const double* r) {
    for (int64_t z = 0; l > kNone && z < p.nz; z++) {
      const double x = c.rule(node.symbol, p, y, z) + (l + r[z]);
      if (x > best) best = x, left = {node.i, k, p.y + y}, right = {k + 1, node.j, p.z + z};
    }
  });
  return best > kNone;
}

template <class T>
void pcfg_argmax_log(const Pcfg<T>& g, int64_t b, int64_t* event) {
  Sentence<T> c(g, b);
  if (!c.trees()) return void(std::fill_n(event, event_size(g.n), -1));
  const TreeChart in = inside<Max>(c);
  const Doubles scores = whole(c, in);
  const auto best = std::max_element(scores.begin(), scores.end());
  const int64_t root = *best > kNone ? best - scores.begin() : -1;
  grow(g.n, {0, c.len - 1, root}, event,
       [&](const TreeNode& node, TreeNode& left, TreeNode& right) { return best_children(c, in, node, left, right); });
}

// ---- max-marginals: the best score of a tree that has the part

SLV_INLINE void raise(double* to, vd x) { store<double>(to, vmax(load(to), x)); }

template <class T>
struct MaxDescent {
  const Sentence<T>& c;
  Pairs<T> pairs;
  TreeChart outside;  // the best score of the rest of a tree around a node
  Doubles above;      // the same of a pair of children
  Doubles rules;

  MaxDescent(const Sentence<T>& c, const TreeChart& in)
      : c(c), pairs(c, in), outside(c, kNone), above(c.layout.size), rules(c.nt * c.layout.size, kNone) {}

  void node(int64_t i, int64_t j) {
    pairs.template fill<Max>(i, j);
    std::fill(above.begin(), above.end(), kNone);
    for (int64_t a = 0; a < c.nt; a++) {
      const double around = outside.row(i, j)[a] + c.span(i, j, a);
      if (!(around > kNone)) continue;
      double* best = &rules[a * c.layout.size];
      pairs.each([&](int64_t at) {
        raise(&above[at], around + pairs.rule(a, at));
        raise(best + at, around + pairs.score(a, at));
      });
    }
    for (int64_t k = i; k < j; k++) split(c.layout.block[block_of(i, k, j)], i, k, j);
  }
  void split(const Layout::Block& p, int64_t i, int64_t k, int64_t j) {
    const double *left = pairs.in.row(i, k), *right = pairs.in.row(k + 1, j);
    double *to_left = outside.row(i, k), *to_right = outside.row(k + 1, j);
    for (int64_t y = 0; y < p.ny; y++) {
      vd best = splat(kNone);
      for (int64_t z = 0; z < p.nz; z += kLanes) {
        const vd x = load(&above[p.at + y * p.pitch + z]);
        best = vmax(best, x + load(right + z));
        raise(to_right + z, x + left[y]);
      }
      to_left[y] = std::max(to_left[y], hmax<double>(best));
    }
  }
};

template <class T>
void pcfg_max_marginals_log(const Pcfg<T>& g, int64_t b, const PcfgSink<T>& to) {
  const PcfgOutput<T> out{g, to, 1};
  out.clear(T(kNone));
  Sentence<T> c(g, b);
  if (!c.trees()) return;
  const TreeChart in = inside<Max>(c);
  MaxDescent<T> walk(c, in);
  Doubles row = whole(c, in);
  for (int64_t a = 0; a < c.nt; a++) out.root(a, row[a]), walk.outside.row(0, c.len - 1)[a] = double(c.root[a]);
  for (int64_t w = c.len; w >= 2; w--)
    for (int64_t i = 0; i + w <= c.len; i++) {
      for (int64_t a = 0; a < c.nt; a++) row[a] = in.row(i, i + w - 1)[a] + walk.outside.row(i, i + w - 1)[a];
      out.span(i, i + w - 1, row.data());
      walk.node(i, i + w - 1);
    }
  for (int64_t i = 0; i < c.len; i++)
    for (int64_t y = 0; y < c.t; y++) out.leaf(i, y, in.row(i, i)[y] + walk.outside.row(i, i)[y]);
  out.rules(c.layout, walk.rules.data());
}

// ---- samples

// Log-weights of the ways to divide a node: which of its children are words (the kinds of Layout), a pair of children,
// their split. `first` of a pair is the right child, the left one if the right one is a word; `second` the other.
template <class T>
class TreeWays {
 public:
  TreeWays(const Sentence<T>& c, const TreeChart& in) : pairs_(c, in) {}
  void enter(int64_t i, int64_t j) {
    if (i != pairs_.i || j != pairs_.j) pairs_.template fill<Log>(i, j);
  }
  void kinds(int64_t A, Doubles& scores) {
    scores.assign(4, kNone);
    const Layout& layout = pairs_.layout;
    for (int q = layout.first(pairs_.words()); q < layout.last(pairs_.words()); q++)
      scores[q] = Log::all([&](auto visit) {
        const Layout::Block& p = layout.block[q];
        for (int64_t at = p.at; at < p.at + p.ny * p.pitch; at += kLanes) visit(pairs_.score(A, at));
      });
  }
  void first(int64_t A, int64_t kind, Doubles& scores) {
    const Layout::Block& p = pairs_.layout.block[kind];
    const bool left = kind == Layout::kLeafRight;
    scores.resize(left ? p.ny : p.nz);
    for (size_t k = 0; k < scores.size(); k++) {
      second(A, kind, k, other_);
      scores[k] = total<Log>(other_.data(), other_.size());
    }
  }
  void second(int64_t A, int64_t kind, int64_t chosen, Doubles& scores) const {
    const Layout::Block& p = pairs_.layout.block[kind];
    const bool left = kind != Layout::kLeafRight;
    scores.resize(left ? p.ny : p.nz);
    for (int64_t k = 0; k < int64_t(scores.size()); k++) {
      const int64_t y = left ? k : chosen, z = left ? chosen : k;
      scores[k] = pairs_.c.rule(A, p, y, z) + pairs_.value[p.at + y * p.pitch + z];
    }
  }
  // of two nonterminals; the first has two words on the left
  void splits(int64_t y, int64_t z, Doubles& scores) const {
    scores.resize(pairs_.splits(Layout::kWide));
    for (size_t k = 0; k < scores.size(); k++) {
      const int64_t last = pairs_.first_split(Layout::kWide) + k;
      scores[k] = pairs_.in.row(pairs_.i, last)[y] + pairs_.in.row(last + 1, pairs_.j)[z];
    }
  }

 private:
  Pairs<T> pairs_;
  Doubles other_;
};

// What was chosen at a node: as children.
struct Division {
  int64_t kind = -1, first = -1, second = -1, split = 0;
  void children(const TreeNode& n, int64_t nt, TreeNode& left, TreeNode& right) const {
    const bool left_first = kind == Layout::kLeafRight;
    const bool left_word = kind >= Layout::kLeafLeft,
               right_word = kind == Layout::kLeafRight || kind == Layout::kLeaves;
    const int64_t k = left_word ? n.i : right_word ? n.j - 1 : n.i + 1 + split;
    left = {n.i, k, (left_first ? first : second) + (left_word ? nt : 0)};
    right = {k + 1, n.j, (left_first ? second : first) + (right_word ? nt : 0)};
  }
};

template <class T>
struct Sampler {
  const Sentence<T>& c;
  TreeWays<T> ways;
  Draws<1> nodes{};

  Sampler(const Sentence<T>& c, const TreeChart& in) : c(c), ways(c, in) {}

  // an index in proportion to exp(scores), or -1
  int64_t draw(const Doubles& scores, double u) {
    weight_.resize(scores.size());
    if (!softmax(scores.data(), scores.size(), 1, weight_.data())) return -1;
    return pick(weight_.data(), scores.size(), std::accumulate(weight_.begin(), weight_.end(), 0.0), u);
  }
  bool operator()(const TreeNode& node, TreeNode& left, TreeNode& right) {
    const int64_t position = 4 * (node.j * (node.j + 1) / 2 + node.i);
    auto drawn = [&](int word) { return draw(scores_, double(uniform<T>(*nodes(position + word)))); };
    Division d;
    ways.enter(node.i, node.j);
    ways.kinds(node.symbol, scores_);
    if ((d.kind = drawn(0)) < 0) return false;
    const bool left_first = d.kind == Layout::kLeafRight;
    ways.first(node.symbol, d.kind, scores_);
    if ((d.first = drawn(left_first ? 1 : 2)) < 0) return false;
    ways.second(node.symbol, d.kind, d.first, scores_);
    if ((d.second = drawn(left_first ? 2 : 1)) < 0) return false;
    if (d.kind == Layout::kWide) {
      ways.splits(d.second, d.first, scores_);
      if ((d.split = drawn(3)) < 0) return false;
    }
    d.children(node, c.nt, left, right);
    return true;
  }

 private:
  Doubles scores_, weight_;
};

template <class T>
void pcfg_sample_log(const Pcfg<T>& g, int64_t b, uint64_t seed, int64_t samples, int64_t* events, int64_t stride) {
  Sentence<T> c(g, b);
  const TreeChart in = c.trees() ? inside<Log>(c) : TreeChart(c, kNone);
  const Doubles roots = c.trees() ? whole(c, in) : Doubles(c.nt, kNone);
  Sampler<T> sampler(c, in);
  for (int64_t s = 0; s < samples; s++) {
    sampler.nodes = {seed, {uint32_t(b)}, {uint32_t(s)}, 1};
    Draws<1> top{seed, {uint32_t(b)}, {uint32_t(s)}, 2};
    const int64_t root = sampler.draw(roots, double(uniform<T>(*top(0))));
    grow(g.n, {0, c.len - 1, root}, events + s * stride, sampler);
  }
}

// ---- the binary tree that maximises the sum of its span scores

// best(i, j) = scores(i, j) + max_k best(i, k) + best(k+1, j); O(n^3) time. The table is symmetric, so that both terms
// of the maximum lie one after the other in memory.
template <class T>
void pcfg_decode_log(const T* scores, int64_t n, int64_t len, int64_t* event) {
  Doubles best(len * len, 0.0);
  for (int64_t j = 1; j < len; j++)
    for (int64_t i = j - 1; i >= 0; i--) {
      const double *left = &best[i * len + i], *right = &best[j * len + i + 1];
      const double top =
          Max::row(j - i, [&](int64_t k, int) { return row_of(left, k, j - i) + row_of(right, k, j - i); });
      best[i * len + j] = best[j * len + i] = double(scores[i * n + j]) + top;
    }
  const bool some = len == 1 || (len > 1 && best[len - 1] > kNone);
  grow(n, {0, len - 1, some ? 0 : -1}, event, [&](const TreeNode& node, TreeNode& left, TreeNode& right) {
    double top = kNone;
    for (int64_t k = node.i; k < node.j; k++) {
      const double x = best[node.i * len + k] + best[node.j * len + k + 1];
      if (x > top) top = x, left = {node.i, k, 0}, right = {k + 1, node.j, 0};
    }
    return top > kNone;
  });
}

}  // namespace
}  // namespace slv
