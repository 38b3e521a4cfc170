// Single trees with dense rules, grown from the inside values by a warp each: the best one, and samples.
#pragma once
#include "cuda/pcfg_grow.cuh"
#include "cuda/pcfg_inside.cuh"

namespace slv::cuda {

// What a node may have for children if it is split behind `v` of its words.
template <class T>
struct Division {
  const DenseSentence<T>& s;
  const double* inside;
  int i, w, v;
  const T* rules;  // of the node's symbol
  SLV_DEVICE int first(int words) const { return words == 1 ? s.g.nt : 0; }
  SLV_DEVICE int count(int words) const { return words == 1 ? s.g.t : s.g.nt; }
  SLV_DEVICE int lefts() const { return count(v); }
  SLV_DEVICE int rights() const { return count(w - v); }
  SLV_DEVICE int64_t pairs() const { return int64_t(lefts()) * rights(); }
  SLV_DEVICE double left(int y) const { return s.below(inside, i, v, first(v) + y); }
  SLV_DEVICE double right(int z) const { return s.below(inside, i + v, w - v, first(w - v) + z); }
  SLV_DEVICE double rule(int y, int z) const {
    return double(rules[int64_t(first(v) + y) * s.g.s() + first(w - v) + z]);
  }
  SLV_DEVICE double score(int64_t pair) const {
    const int y = int(pair / rights()), z = int(pair - int64_t(y) * rights());
    return rule(y, z) + (left(y) + right(z));
  }
  SLV_DEVICE Children chosen(int y, int z) const { return {i + v - 1, first(v) + y, first(w - v) + z}; }
};

// The largest of what the lanes of a warp have met, the first of equal ones.
struct Largest {
  double score = -HUGE_VAL;
  int64_t where = INT64_MAX;
  SLV_DEVICE void meet(double other, int64_t place) {
    if (other > score || (other == score && place < where)) score = other, where = place;
  }
  SLV_DEVICE void join() {
    SLV_UNROLL for (int mask = 16; mask > 0; mask /= 2) meet(shuffle_xor(score, mask), shuffle_xor(where, mask));
  }
};

// From maxima over trees. Among equals the first wins: by split, left symbol, right symbol.
template <class T>
SLV_KERNEL(kLogThreads)
pcfg_argmax(Pcfg<T> g, const double* inside, int64_t* events) {
  const Thread me;
  const Pair pair(me, 0, g.batch, 1);
  if (!pair.exists) return;
  const DenseSentence<T> s(g, pair.item);
  Largest top;
  for (int a = me.lane; s.len > 1 && a < g.nt; a += 32)
    top.meet(double(g.root[g.root_row.row(s.item) * g.nt + a]) + inside[s.node(0, s.len) + a], a);
  top.join();
  grow_tree(me, g.n, s.len, top.score > -HUGE_VAL ? int(top.where) : -1, events + s.item * 3 * (2 * g.n - 1),
            [&](int i, int j, int a) {
              const int w = j - i + 1;
              Division<T> d{s, inside, i, w, 1, s.rules + a * g.pairs()};
              Largest best;
              for (d.v = 1; d.v < w; d.v++)
                for (int64_t q = me.lane; q < d.pairs(); q += 32) best.meet(d.score(q), d.v * g.pairs() + q);
              best.join();
              const int64_t where =
                  best.score > -HUGE_VAL ? best.where : g.pairs();  // NaN is no score: any place will do
              d.v = int(where / g.pairs());
              const int64_t q = where - d.v * g.pairs();
              return d.chosen(int(q / d.rights()), int(q % d.rights()));
            });
}

// Splits of a node of w words into children of one kind: neither is a word, the right one, the left one, both are.
// Those behind words first .. first + count - 1 of the node.
struct Splits {
  int first, count;
  SLV_DEVICE static Splits of(int kind, int w) {
    if (kind == 0) return {2, w > 3 ? w - 3 : 0};
    return {kind == 1 ? w - 1 : 1, (kind == 3) == (w == 2) ? 1 : 0};
  }
};

// A node draws the kind of its children, then the right one and the left one given it (the left one first where the
// right one alone is a word), then the split. memory: (warps, alternatives).
template <class T>
SLV_KERNEL(kLogThreads)
pcfg_sample(Pcfg<T> g, const double* inside, uint64_t seed, int64_t first, int64_t samples, double* memory,
            int64_t* events) {
  const Thread me;
  const Pair pair(me, 0, g.batch, samples);
  if (!pair.exists) return;
  const int64_t sample = first + pair.sample;
  const DenseSentence<T> s(g, pair.item);
  double* scores = memory + (pair.sample * g.batch + pair.item) * g.alternatives();
  TreeNumbers numbers{seed, uint32_t(pair.item), uint32_t(sample), {}};
  const int top = draw_top(me, s, inside, numbers);
  auto write = [&](int q, double score) {
    if (me.lane == 0) scores[q] = score;
  };
  auto draw_from = [&](int count, uint32_t word) {
    sync_warp();
    const int drawn = draw_below<T>(me, count, word, [&](int q) { return scores[q]; });
    sync_warp();
    return drawn;
  };
  grow_tree(me, g.n, s.len, top, events + (sample * g.batch + s.item) * 3 * (2 * g.n - 1), [&](int i, int j, int a) {
    const int w = j - i + 1;
    numbers.at_node(i, j);
    Division<T> d{s, inside, i, w, 1, s.rules + a * g.pairs()};
    auto behind = [&](int v) { return Division<T>{s, inside, i, w, v, d.rules}; };
    for (int kind = 0; kind < 4; kind++) {
      const Splits k = Splits::of(kind, w);
      d.v = k.first;
      const int64_t pairs = k.count ? d.pairs() : 1;
      const LogSum sum = warp_log_sum(me, k.count * pairs,
                                      [&](int64_t q) { return behind(k.first + int(q / pairs)).score(q % pairs); });
      write(kind, sum.log());
    }
    const int kind = draw_from(4, numbers.word[0][0]);
    const Splits k = Splits::of(kind, w);
    d.v = k.first;
    auto both = [&](int v, int y, int z) {
      const Division<T> at = behind(v);
      return at.left(y) + at.right(z);
    };
    // of a pair, over its splits
    auto over_splits = [&](int y, int z) {
      return d.rule(y, z) + log_sum(0, k.count, [&](int q) { return both(k.first + q, y, z); }).log();
    };
    int y, z;
    if (kind == 1) {
      for (y = 0; y < d.lefts(); y++)
        write(y, warp_log_sum(me, d.rights(), [&](int64_t q) { return over_splits(y, int(q)); }).log());
      y = draw_from(d.lefts(), numbers.word[1][0]);
      z = draw_below<T>(me, d.rights(), numbers.word[2][0], [&](int q) { return over_splits(y, q); });
    } else {
      for (z = 0; z < d.rights(); z++)
        write(z, warp_log_sum(me, d.lefts(), [&](int64_t q) { return over_splits(int(q), z); }).log());
      z = draw_from(d.rights(), numbers.word[2][0]);
      y = draw_below<T>(me, d.lefts(), numbers.word[1][0], [&](int q) { return over_splits(q, z); });
    }
    d.v = k.first + draw_below<T>(me, k.count, numbers.word[3][0], [&](int q) { return both(k.first + q, y, z); });
    return d.chosen(y, z);
  });
}

}  // namespace slv::cuda
