// Backward, in log space, from the filtered side: a move's p(i | o, j, q) is normalised where it is used and so is
// exact however large the potentials are. Every result is gathered in one order: nothing is added atomically.
#pragma once
#include "cuda/factorial_scale.cuh"

namespace slv::cuda {

// How the warps of a block share out the pairs (i, j) of one chain's move, for all states of the other chains. The
// lanes of a warp have `lanes` states of the others (a power of two) for each of `rows` states i, and go over j
// together. Where there are fewer blocks of rows than warps, `slots` warps share one, each with sums of its own.
struct Tiles {
  int lanes, rows, blocks, chunks, slots;
  SLV_BOTH Tiles(int k, int rest, int warps) : lanes(1) {
    while (lanes < 32 && lanes < rest) lanes *= 2;
    rows = 32 / lanes;
    blocks = (k + rows - 1) / rows;
    chunks = (rest + lanes - 1) / lanes;
    slots = warps / blocks < 1 ? 1 : warps / blocks < chunks ? warps / blocks : chunks;
  }
  SLV_BOTH int64_t size(int k) const { return int64_t(slots) * k * k; }  // of the sums of edges
};
// Elements of the sums of edges of one item, for all slots of all chains.
template <class T>
SLV_BOTH int64_t partial_size(const Factorial<T>& c, int warps) {
  int64_t size = 0;
  for (int i = 0; i < c.m; i++) size += Tiles(c.sizes[i], c.states / c.sizes[i], warps).size(c.sizes[i]);
  return size;
}

// Calls each(e, sum over slots) for the edges of an item, and clears the sums.
template <class T, class F>
SLV_DEVICE void take_edges(const Thread& me, const Factorial<T>& c, double* partial, F&& each) {
  for (int i = 0, edge = 0; i < c.m; i++) {
    const int k = c.sizes[i];
    const Tiles tiles(k, c.states / k, me.warps);
    for (int e = me.index; e < k * k; e += int(blockDim.x)) {
      double sum = 0;
      for (int s = 0; s < tiles.slots; s++) {
        sum += partial[int64_t(s) * k * k + e];
        partial[int64_t(s) * k * k + e] = 0;
      }
      each(edge + e, sum);
    }
    edge += k * k;
    partial += tiles.size(k);
  }
}

// What a block has of the step before it: of each move (m, spaced S) the largest term of its sums, and the sums
// relative to it, which become posterior weights over them; posteriors (S), and two rows of values between the moves.
template <class T>
SLV_BOTH int64_t backward_size(const Factorial<T>& c) {
  return 2 * int64_t(c.m) * spaced<double>(c.states) + 3 * int64_t(c.states);
}
struct StepSums {
  int row;
  double *tops, *sums, *mu, *rows;
  template <class T>
  SLV_DEVICE StepSums(const Factorial<T>& c, double* memory) : row(spaced<double>(c.states)), tops(memory) {
    sums = tops + int64_t(c.m) * row;
    mu = sums + int64_t(c.m) * row;
    rows = mu + c.states;
  }
};

// The sums of all moves from alpha at a step, the last ones as posterior weights over sums; also(move, from, z, sum)
// for each of them.
template <class T, class F>
SLV_DEVICE void sum_moves(const Thread& me, const JointItem<T>& item, const double* alpha, const StepSums& s,
                          F&& also) {
  const int states = item.c.states;
  const double* from = alpha;
  item.each_move([&](const Move<T>& move) {
    const bool last = move.chain == item.c.m - 1;
    double *tops = s.tops + move.chain * s.row, *sums = s.sums + move.chain * s.row;
    double* to = s.rows + move.chain % 2 * states;
    for (int z = me.index; z < states; z += int(blockDim.x)) {
      const LogSum x = move.into(from, z);
      tops[spaced<double>(z)] = x.top;
      sums[spaced<double>(z)] = !last ? x.sum : s.mu[z] > 0 ? s.mu[z] / x.sum : 0;
      if (!last) to[z] = x.log();
      also(move, from, z, x);
    }
    sync_block();
    from = to;
  });
}

// From the posterior weights after one chain's move those before it: each(z, weight), after begin(z) for the same z by
// the same thread. Edges go into `partial`: edge(i, j, to, p) of what has the posterior weight p > 0, `to` spaced.
template <class T, class B, class E, class F>
SLV_DEVICE void spread(const Thread& me, const JointItem<T>& item, const Move<T>& move, const double* alpha,
                       const StepSums& s, double* partial, B&& begin, E&& edge, F&& each) {
  const int states = item.c.states, k = move.k, rest = states / k;
  const double *tops = s.tops + move.chain * s.row, *weights = s.sums + move.chain * s.row;
  const Tiles tiles(k, rest, me.warps);
  const int place = me.lane % tiles.lanes;
  for (int unit = me.warp; unit < tiles.blocks * tiles.slots; unit += me.warps) {
    const int slot = unit / tiles.blocks, i = (unit - slot * tiles.blocks) * tiles.rows + me.lane / tiles.lanes;
    double* edges = partial + (int64_t(slot) * k + i) * k;
    for (int chunk = slot; chunk < tiles.chunks; chunk += tiles.slots) {
      const int r = chunk * tiles.lanes + place;
      const bool live = i < k && r < rest;
      const int base = live ? r / move.inner * k * move.inner + r % move.inner : 0, z = base + i * move.inner;
      double own = 0, sum = 0, keep = 0;
      if (live) {
        begin(z);
        const int at = spaced<double>(z) - s.row;
        own = move.chain == 0 ? alpha[z] : LogSum{tops[at], weights[at]}.log();
      }
      for (int j = 0; j < k; j++) {
        const int to = spaced<double>(base + j * move.inner), which = j & (tiles.lanes - 1);
        const double weight = live ? weights[to] : 0;
        const double p = weight > 0 ? weight * exp(own + double(move.a[i * k + j]) - tops[to]) : 0;
        sum += p;
        double use = p > 0 ? edge(i, j, to, p) : 0;
        for (int mask = tiles.lanes / 2; mask > 0; mask /= 2) use += shuffle_xor(use, mask);
        if (place == which) keep = use;
        // as many columns as there are lanes for a row: each adds one of them
        if ((which == tiles.lanes - 1 || j == k - 1) && i < k && place <= which) edges[j - which + place] += keep;
      }
      if (live) each(z, sum);
    }
  }
}
// What `each` of a move leaves to the one before it: the weights over that one's sums.
SLV_DEVICE void put_weight(const StepSums& s, int chain, int z, double mu) {
  double* sum = s.sums + (chain - 1) * s.row + spaced<double>(z);
  *sum = mu > 0 ? mu / *sum : 0;
}

// One item's results, as its block of threads sees them.
template <class T>
struct Results {
  const Factorial<T>& c;
  int len, pieces;
  double weight, *partial, *counts;
  T *unary, *steps;
  SLV_DEVICE Results(const Thread& me, const Factorial<T>& c, const JointPosterior<T>& out, int64_t place, int64_t b,
                     int len)
      : c(c),
        len(len),
        pieces(out.pieces),
        weight(out.weight ? out.weight[b] : 1),
        partial(out.partial + place * partial_size(c, me.warps)),
        counts(out.counts + place * out.pieces * c.edges),
        unary(out.unary + b * c.n * c.states),
        steps(out.steps ? out.steps + b * (c.n > 0 ? c.n - 1 : 0) * c.edges : nullptr) {}
  // Zeros in the padding and in the sums of edges.
  SLV_DEVICE void clear(const Thread& me) const {
    const int stride = int(blockDim.x), end = len > 0 ? len - 1 : 0;
    for (int64_t e = me.index; e < partial_size(c, me.warps); e += stride) partial[e] = 0;
    for (int64_t z = int64_t(len) * c.states + me.index; z < int64_t(c.n) * c.states; z += stride) unary[z] = T(0);
    for (int64_t e = int64_t(end) * c.edges + me.index; steps && e < int64_t(c.n - 1) * c.edges; e += stride)
      steps[e] = T(0);
    sync_block();  // of an item without steps too, whose sums are taken at once
  }
  SLV_DEVICE void put(int t, int z, double x) const { unary[int64_t(t) * c.states + z] = T(weight * x); }
  // The edges of the step from t to t + 1, or of all.
  SLV_DEVICE void put_edges(const Thread& me, int t) const {
    take_edges(me, c, partial, [&](int e, double sum) {
      if (steps)
        steps[int64_t(t) * c.edges + e] = T(weight * sum);
      else
        for (int q = 0; q < pieces; q++) counts[int64_t(q) * c.edges + e] = q == 0 ? weight * sum : 0;
    });
  }
};

// The posterior of the last step, a softmax of alpha.
SLV_DEVICE void end_posterior(const Thread& me, double* parts, int states, const double* alpha, double* mu) {
  const LogSum x = block_log_sum(me, parts, states, [&](int z) { return alpha[z]; });
  for (int z = me.index; z < states; z += int(blockDim.x)) mu[z] = x.possible() ? exp(alpha[z] - x.top) / x.sum : 0;
}

template <class T>
SLV_KERNEL(kLogThreads)
factorial_backward(Factorial<T> c, Beginnings s, JointPosterior<T> out) {
  Shared shared;
  const Thread me;
  const int64_t place = blockIdx.x, b = s.first + place;
  const int states = c.states;
  double* parts = shared.take<double>(2 * kMaxWarps);
  double* memory = s.spill ? s.spill + place * backward_size(c) : shared.take<double>(int(backward_size(c)));
  if (skipped(s, b)) return;
  const StepSums step(c, memory);
  const JointItem<T> item(c, b);
  const Results<T> results(me, c, out, place, b, item.len);
  results.clear(me);
  auto alpha = [&](int t) { return s.alpha + (place * c.n + t) * states; };
  const int end = item.len - 1;
  if (end >= 0) end_posterior(me, parts, states, alpha(end), step.mu);
  for (int z = me.index; z < states && end >= 0; z += int(blockDim.x)) results.put(end, z, step.mu[z]);
  for (int t = end - 1; t >= 0; t--) {
    sum_moves(me, item, alpha(t), step, [](const Move<T>&, const double*, int, const LogSum&) {});
    double* edges = results.partial + partial_size(c, me.warps);
    item.each_move_back([&](const Move<T>& move) {
      edges -= Tiles(move.k, states / move.k, me.warps).size(move.k);
      spread(
          me, item, move, alpha(t), step, edges, [](int) {}, [](int, int, int, double p) { return p; },
          [&](int z, double mu) {
            if (move.chain > 0) return put_weight(step, move.chain, z, mu);
            step.mu[z] = mu;
            results.put(t, z, mu);
          });
      sync_block();
    });
    if (results.steps) results.put_edges(me, t);
  }
  if (!results.steps) results.put_edges(me, 0);
}

}  // namespace slv::cuda
