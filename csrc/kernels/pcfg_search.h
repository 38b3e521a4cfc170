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

// Log-weights of the ways to divide a node, up to a constant: of its splits, of the left children at a split, of the
// right children beside a left one.
template <class T>
class TreeWays {
 public:
  TreeWays(const Sentence<T>& c, const TreeChart& in) : c(c), in(in) {}
  // split: (j - i); left: (j - i, s), at the first places of each row the left children that there are
  void weigh(const TreeNode& node, double* split, double* left) {
    std::fill_n(left, (node.j - node.i) * c.s, kNone);
    each_left(c, in, node.i, node.j, [&](int64_t k, const Layout::Block& p, int64_t y, double l, const double* r) {
      if (l > kNone) left[(k - node.i) * c.s + y] = l + total<Log>(beside(node.symbol, p, y, r), p.nz);
    });
    for (int64_t k = 0; k < node.j - node.i; k++) split[k] = total<Log>(left + k * c.s, c.s);
  }
  // of the right children at the first split, where the left child is a word
  const double* right(const TreeNode& node, const Layout::Block& p) {
    const double *l = in.row(node.i, node.i), *r = in.row(node.i + 1, node.j);
    right_.resize(p.pitch);
    left_.resize(c.s);
    for (int64_t z = 0; z < p.nz; z++) {
      for (int64_t y = 0; y < p.ny; y++) left_[y] = l[y] + c.rule(node.symbol, p, y, z);
      right_[z] = r[z] + total<Log>(left_.data(), p.ny);
    }
    return right_.data();
  }
  // and then of that word
  const double* word(const TreeNode& node, const Layout::Block& p, int64_t z) {
    const double* l = in.row(node.i, node.i);
    left_.resize(c.s);
    for (int64_t y = 0; y < p.ny; y++) left_[y] = l[y] + c.rule(node.symbol, p, y, z);
    return left_.data();
  }
  // of the split after word k, whose block is p, and its left child y
  const double* right(const TreeNode& node, const Layout::Block& p, int64_t y, int64_t k) {
    return beside(node.symbol, p, y, in.row(k + 1, node.j));
  }

 private:
  const double* beside(int64_t a, const Layout::Block& p, int64_t y, const double* r) {
    right_.resize(p.pitch);
    const T* rule = &c.rules[a * c.layout.size + p.at + y * p.pitch];
    for (int64_t z = 0; z < p.nz; z += kLanes)
      store<double>(&right_[z], load_as<double>(rule + z, kLanes, T(kNone)) + load(r + z));
    return right_.data();
  }
  const Sentence<T>& c;
  const TreeChart& in;
  Doubles left_, right_;
};

// Numbers of a node's own: the split, then the left child, then the right one; the right one first if the left one is
// a word.
template <class T>
struct Sampler {
  const Sentence<T>& c;
  TreeWays<T> ways;
  Draws<1> nodes{};

  Sampler(const Sentence<T>& c, const TreeChart& in) : c(c), ways(c, in) {}

  // an index in proportion to exp(scores), or -1
  int64_t draw(const double* scores, int64_t count, double u) {
    weight_.resize(count);
    if (!softmax(scores, count, 1, weight_.data())) return -1;
    return pick(weight_.data(), count, std::accumulate(weight_.begin(), weight_.end(), 0.0), u);
  }
  bool operator()(const TreeNode& node, TreeNode& left, TreeNode& right) {
    const int64_t i = node.i, j = node.j, position = 4 * (j * (j + 1) / 2 + i), most = c.s;
    auto u = [&](int word) { return double(uniform<T>(*nodes(position + word))); };
    left_.resize((j - i) * most);
    split_.resize(j - i);
    ways.weigh(node, split_.data(), left_.data());
    const int64_t k = i + draw(split_.data(), j - i, u(0));
    if (k < i) return false;
    const Layout::Block& p = c.layout.block[block_of(i, k, j)];
    int64_t y = -1, z = -1;
    if (k == i) {
      if ((z = draw(ways.right(node, p), p.nz, u(2))) >= 0) y = draw(ways.word(node, p, z), p.ny, u(1));
    } else {
      if ((y = draw(&left_[(k - i) * most], p.ny, u(1))) >= 0) z = draw(ways.right(node, p, y, k), p.nz, u(2));
    }
    left = {i, k, p.y + y}, right = {k + 1, j, p.z + z};
    return y >= 0 && z >= 0;
  }

 private:
  Doubles split_, left_, weight_;  // scores of every split; of it and a left child
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
    const int64_t root = sampler.draw(roots.data(), c.nt, double(uniform<T>(*top(0))));
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
