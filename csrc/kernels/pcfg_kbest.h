// The k best trees, lazily (Huang & Chiang 2005, algorithm 3): a node's alternatives are put in order only as far as a
// better tree above it asks for them.
#pragma once
#include "kernels/pcfg_search.h"

namespace slv {
namespace {

struct Alternative {
  double score;
  int32_t k, y, z;                              // split and children
  int32_t left_rank, right_rank;                // which of the children's alternatives
  bool operator<(const Alternative& o) const {  // worse than; among equals the order of the alternatives
    if (score != o.score) return score < o.score;
    if (k != o.k) return k > o.k;
    if (y != o.y) return y > o.y;
    if (z != o.z) return z > o.z;
    return left_rank != o.left_rank ? left_rank > o.left_rank : right_rank > o.right_rank;
  }
};

template <class T>
class KBest {
 public:
  KBest(const Sentence<T>& c, const TreeChart& in, int64_t most)
      : c_(c), in_(in), most_(most), id_(c.len * (c.len - 1) / 2 * c.nt, -1) {}

  // A node's alternative of the rank it asks for, or null where there are fewer.
  const Alternative* find(const TreeNode& node) {
    order(node);
    const List& list = lists_[open(node)];
    return node.rank < int64_t(list.best.size()) ? &list.best[node.rank] : nullptr;
  }

 private:
  struct List {
    Vector<Alternative> best, heap;
    bool pending = false;  // what follows the last of `best` is not yet in the heap
    bool exhausted() const { return heap.empty() && !pending; }
  };
  const Sentence<T>& c_;
  const TreeChart& in_;
  const int64_t most_;
  Vector<int32_t> id_;  // of a node's list
  Vector<List> lists_;
  Vector<TreeNode> requests_;

  // A node's list, at first with the best alternative of each split and pair of children, the `most_` best of them.
  int32_t open(const TreeNode& node) {
    int32_t& id = id_[(node.j * (node.j - 1) / 2 + node.i) * c_.nt + node.symbol];
    if (id >= 0) return id;
    List list;
    const double span = c_.span(node.i, node.j, node.symbol);
    auto& heap = list.heap;
    each_left(c_, in_, node.i, node.j, [&](int64_t k, const Layout::Block& p, int64_t y, double l, const double* r) {
      for (int64_t z = 0; l > kNone && z < p.nz; z++) {
        const double x = span + (c_.rule(node.symbol, p, y, z) + (l + r[z]));
        if (x > kNone) heap.push_back({x, int32_t(k), int32_t(p.y + y), int32_t(p.z + z), 0, 0});
      }
    });
    if (int64_t(heap.size()) > most_) {
      std::nth_element(heap.begin(), heap.begin() + most_, heap.end(), better);
      heap.resize(most_);
    }
    heap.shrink_to_fit();
    std::make_heap(heap.begin(), heap.end());
    lists_.push_back(std::move(list));
    return id = int32_t(lists_.size() - 1);
  }
  static bool better(const Alternative& a, const Alternative& b) { return b < a; }

  // Puts a node's alternatives in order up to its rank. A stack of its own in place of recursion.
  void order(const TreeNode& node) {
    requests_.push_back(node);
    while (!requests_.empty()) {
      const TreeNode now = requests_.back();
      const int32_t id = open(now);
      if (known(now)) {
        requests_.pop_back();
        continue;
      }
      if (lists_[id].pending && !follow(now, id)) continue;
      List& list = lists_[id];
      list.pending = !list.heap.empty();
      if (!list.pending) continue;
      std::pop_heap(list.heap.begin(), list.heap.end());
      list.best.push_back(list.heap.back());
      list.heap.pop_back();
    }
  }
  bool known(const TreeNode& node) {
    if (node.i == node.j) return true;
    const List& list = lists_[open(node)];
    return int64_t(list.best.size()) > node.rank || list.exhausted();
  }
  double score(const TreeNode& node) {
    if (node.i == node.j) return node.rank == 0 ? in_.row(node.i, node.i)[node.symbol - c_.nt] : kNone;
    const List& list = lists_[open(node)];
    return node.rank < int64_t(list.best.size()) ? list.best[node.rank].score : kNone;
  }
  // Adds what follows a node's last alternative to its heap: the next one of either child. False where that is yet to
  // be found. The left child moves on only beside the best right one, so that no pair is reached twice.
  bool follow(const TreeNode& node, int32_t id) {
    const Alternative last = lists_[id].best.back();
    const TreeNode left{node.i, last.k, last.y, last.left_rank}, right{last.k + 1, node.j, last.z, last.right_rank};
    TreeNode next_left = left, next_right = right;
    next_left.rank++, next_right.rank++;
    const bool both = last.right_rank == 0, wait_left = both && !known(next_left), wait_right = !known(next_right);
    if (wait_left) requests_.push_back(next_left);
    if (wait_right) requests_.push_back(next_right);
    if (wait_left || wait_right) return false;
    if (both) add(node, id, next_left, right);
    add(node, id, left, next_right);
    return true;
  }
  void add(const TreeNode& node, int32_t id, const TreeNode& left, const TreeNode& right) {
    const auto& p = c_.layout.block[block_of(node.i, left.j, node.j)];
    const double rule = c_.rule(node.symbol, p, left.symbol - p.y, right.symbol - p.z);
    const double x = c_.span(node.i, node.j, node.symbol) + (rule + (score(left) + score(right)));
    if (!(x > kNone)) return;
    auto& heap = lists_[id].heap;
    heap.push_back(
        {x, int32_t(left.j), int32_t(left.symbol), int32_t(right.symbol), int32_t(left.rank), int32_t(right.rank)});
    std::push_heap(heap.begin(), heap.end());
  }
};

template <class T>
void pcfg_topk_log(const Pcfg<T>& g, int64_t b, int64_t count, int64_t* events, int64_t stride) {
  for (int64_t r = 0; r < count; r++) std::fill_n(events + r * stride, event_size(g.n), -1);
  Sentence<T> c(g, b);
  if (!c.trees()) return;
  const TreeChart in = inside<Max>(c);
  const Doubles roots = whole(c, in);
  KBest<T> lists(c, in, count);
  Vector<Alternative> heap;  // of the root: its symbol as y, the rank of its tree as left_rank
  auto add = [&](int32_t a, int32_t rank) {
    const Alternative* tree = rank ? lists.find({0, c.len - 1, a, rank}) : nullptr;
    const double x = rank == 0 ? roots[a] : tree ? double(c.root[a]) + tree->score : kNone;
    if (x > kNone) heap.push_back({x, 0, a, 0, rank, 0}), std::push_heap(heap.begin(), heap.end());
  };
  for (int64_t a = 0; a < c.nt; a++) add(int32_t(a), 0);
  for (int64_t r = 0; r < count && !heap.empty(); r++) {
    std::pop_heap(heap.begin(), heap.end());
    const Alternative root = heap.back();
    heap.pop_back();
    grow(g.n, {0, c.len - 1, root.y, root.left_rank}, events + r * stride,
         [&](const TreeNode& node, TreeNode& left, TreeNode& right) {
           const Alternative* x = lists.find(node);
           if (x) left = {node.i, x->k, x->y, x->left_rank}, right = {x->k + 1, node.j, x->z, x->right_rank};
           return x != nullptr;
         });
    if (r + 1 < count) add(root.y, root.left_rank + 1);
  }
}

}  // namespace
}  // namespace slv
