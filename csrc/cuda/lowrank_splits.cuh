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
  SLV_DEVICE double both(const RankInside& in, int v) const { return in.left[left(v)] + in.right[right(v)]; }
  SLV_DEVICE LogSum sum(const RankInside& in) const {
    return log_sum(1, width, [&](int v) { return both(in, v); });
  }
};

template <class T>
SLV_KERNEL(kLogThreads)
lowrank_splits(LowRank<T> g, RankInside in, SpanRows<double> out, int width) {
  const SpanPlace<T> at(g, width, g.r, thread_of_launch());
  if (!at.exists) return;
  out.at(at.item, at.i)[at.e] = Splits<T>{g, at.item, at.i, width, at.e}.sum(in).log();
}

// The same; and the means of f below every rank, from those of the children.
template <class T>
SLV_KERNEL(kLogThreads)
lowrank_split_means(LowRank<T> g, RankInside in, RankInside below, SpanRows<double> out, SpanRows<double> means,
                    int width) {
  const SpanPlace<T> at(g, width, g.r, thread_of_launch());
  if (!at.exists) return;
  const Splits<T> splits{g, at.item, at.i, width, at.e};
  const LogMean x =
      log_mean(1, width, [&](int v) { return splits.both(in, v); }, [&](int v) { return splits.both(below, v); });
  out.at(at.item, at.i)[at.e] = x.log(), means.at(at.item, at.i)[at.e] = x.mean();
}

// The mean of f outside of what has a probability, from `outside`, the two multiplied; `with_spans`: and of the spans,
// where what has it is a node.
template <class T>
SLV_KERNEL(kLogThreads)
lowrank_above(Tree<T> g, Tree<T> v, bool with_spans, SpanRows<double> mass, SpanRows<double> outside,
              SpanRows<double> above, int width) {
  const SpanPlace<T> at(g, width, mass.size, thread_of_launch());
  if (!at.exists) return;
  const double p = mass.at(at.item, at.i)[at.e];
  const double span = with_spans ? Sentence<T>(v, at.item).span_score(at.i, width, at.e) : 0;
  above.at(at.item, at.i)[at.e] = p != 0 ? outside.at(at.item, at.i)[at.e] / p + span : 0;
}

// Adds the scores of spans to their nonterminals.
template <class T>
SLV_KERNEL(kLogThreads)
lowrank_add_spans(Tree<T> g, SpanRows<double> nodes, int width) {
  const SpanPlace<T> at(g, width, g.nt, thread_of_launch());
  if (!at.exists) return;
  nodes.at(at.item, at.i)[at.e] += Sentence<T>(g, at.item).span_score(at.i, width, at.e);
}

// What second order takes along: the means of f below spans as children, and the probability times the mean outside.
struct RankOutside {
  const double *left_means, *right_means;
  double *left, *right;
};

// Hands the weight of a rank on to both children, which have no other parent of this width on that side; `above` is the
// mean of f outside of the rank.
template <class T, bool kTangent>
SLV_KERNEL(kLogThreads)
lowrank_divide(LowRank<T> g, RankInside in, SpanRows<double> mass, double* left, double* right, SpanRows<double> above,
               RankOutside f, int width) {
  const SpanPlace<T> at(g, width, g.r, thread_of_launch());
  if (!at.exists) return;
  const double weight = mass.at(at.item, at.i)[at.e];
  if (weight == 0) return;
  const Splits<T> splits{g, at.item, at.i, width, at.e};
  const LogSum x = splits.sum(in);
  const double relative = weight / x.sum;
  for (int v = 1; v < width; v++) {
    const double part = relative * exp(splits.both(in, v) - x.top);
    left[splits.left(v)] += part;
    right[splits.right(v)] += part;
    if constexpr (kTangent) {
      if (part == 0) continue;
      const double beyond = above.at(at.item, at.i)[at.e];
      f.left[splits.left(v)] += part * (beyond + f.right_means[splits.right(v)]);
      f.right[splits.right(v)] += part * (beyond + f.left_means[splits.left(v)]);
    }
  }
}

}  // namespace slv::cuda
