// Sums over splits, one for each rank: m(q) = log sum_k exp(l_ik(q) + r_k+1,j(q)). A thread has one rank of one span.
#pragma once
#include "cuda/lowrank_product.cuh"

namespace slv::cuda {

// The places of the children of `width` words from i on: `left` has v words and `right` the rest.
template <class T>
struct Splits {
  const LowRank<T>& g;
  int64_t item;
  int i, width, q;
  SLV_DEVICE int64_t place(int from, int w) const {
    const int64_t span = w == 1 ? from : g.n + g.span(from, w);
    return (item * g.all_spans() + span) * g.r + q;
  }
  SLV_DEVICE int64_t left(int v) const { return place(i, v); }
  SLV_DEVICE int64_t right(int v) const { return place(i + v, width - v); }
  SLV_DEVICE double score(const RankInside& in, int v) const { return in.left[left(v)] + in.right[right(v)]; }
  SLV_DEVICE LogSum sum(const RankInside& in) const {
    return log_sum(1, width, [&](int v) { return score(in, v); });
  }
};

template <class T>
SLV_KERNEL(kLogThreads)
lowrank_splits(LowRank<T> g, RankInside in, SpanRows<double> out, int width) {
  const SpanPlace<T> at(g, width, g.r, thread_of_launch());
  if (!at.exists) return;
  out.at(at.item, at.i)[at.e] = Splits<T>{g, at.item, at.i, width, at.e}.sum(in).log();
}

// Adds the scores of spans to their nonterminals.
template <class T>
SLV_KERNEL(kLogThreads)
lowrank_add_spans(Tree<T> g, SpanRows<double> nodes, int width) {
  const SpanPlace<T> at(g, width, g.nt, thread_of_launch());
  if (!at.exists) return;
  nodes.at(at.item, at.i)[at.e] += Sentence<T>(g, at.item).span_score(at.i, width, at.e);
}

// Hands the weight of a rank on to both children, which have no other parent of this width on that side.
template <class T>
SLV_KERNEL(kLogThreads)
lowrank_divide(LowRank<T> g, RankInside in, SpanRows<double> mass, double* left, double* right, int width) {
  const SpanPlace<T> at(g, width, g.r, thread_of_launch());
  if (!at.exists) return;
  const double weight = mass.at(at.item, at.i)[at.e];
  if (weight == 0) return;
  const Splits<T> splits{g, at.item, at.i, width, at.e};
  const LogSum x = splits.sum(in);
  const double relative = weight / x.sum;
  for (int v = 1; v < width; v++) {
    const double part = relative * exp(splits.score(in, v) - x.top);
    left[splits.left(v)] += part;
    right[splits.right(v)] += part;
  }
}

}  // namespace slv::cuda
