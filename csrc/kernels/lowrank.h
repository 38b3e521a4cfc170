// The PCFG whose rules are a sum of rank-one terms, as the kernels see it: raw pointers, no torch.
//
//   rules[A, y, z] = log sum_q exp(head[A, q] + left[q, y] + right[q, z])
//   score(tree) = root[A of the whole] + sum over nodes i < j of (rules[A, y, z] + spans[i, j, A])
//                                      + sum over leaves of unary[i, y - nt]
//
// Without a head the rank is the nonterminal itself (r = nt, head the identity): both children are drawn independently.
// Symbols 0..nt-1 are nonterminals, nt..nt+t-1 preterminals; a child of one word is a preterminal, a wider one a
// nonterminal. A potential that items share lies in memory once: the maps say which row of it an item uses.
#pragma once
#include <cstdint>

namespace slv {

template <class T>
struct LowRank {
  int64_t batch, n, nt, t, r;
  int64_t labels;            // of spans: nt, or 1 where all nonterminals share a span's score
  bool folded;               // spans are kept as ranks alone: left and right are multiplied with the head beforehand
  const T* root;             // (roots, nt)
  const T* head;             // (heads, nt, r) or null
  const T* left;             // (lefts, r, s)
  const T* right;            // (rights, r, s)
  const T* unary;            // (batch, n, t)
  const T* spans;            // (tables, n, n, labels), both ends inclusive, of which i < j counts; or null
  const int64_t* root_row;   // item -> row of root, or null: all 0
  const int64_t* head_row;   // the same for head
  const int64_t* left_row;   // the same for left
  const int64_t* right_row;  // the same for right
  const int64_t* spans_row;  // the same for spans
  const int64_t* length;     // clamped to 0..n, or null: all n
  int64_t s() const { return nt + t; }
  int64_t len(int64_t item) const { return length ? length[item] : n; }
  static int64_t row(const int64_t* map, int64_t item) { return map ? map[item] : 0; }
};

// Expected counts of the rank-one terms are added here, weighted; null: not wanted.
struct LowRankSums {
  double* head;   // (nt, r), or null where there is none
  double* left;   // (r, s)
  double* right;  // (r, s)
};
// Where the weights of the parts go: `root`, `unary` and `spans` are written for every item, padding included; the sums
// of item number x of a block lie x * stride behind the first.
template <class T>
struct LowRankSink {
  T* root;         // (batch, nt)
  T* unary;        // (batch, n, t)
  T* spans;        // (batch, n, n, labels), or null: not wanted
  int64_t labels;  // nt, or 1: the sum over nonterminals
  LowRankSums sums;
  int64_t head_stride, side_stride;
};

// A tree is an event of rows (i, j, symbol), (2n-1, 3), in pre-order, -1 behind its end and where there is none.
constexpr int64_t lowrank_event_size(int64_t n) { return n > 0 ? 3 * (2 * n - 1) : 0; }

// Up to kLowRankItems items that share a grammar are computed together, longest first.
constexpr int64_t kLowRankItems = 8;
template <class T>
struct LowRankKernels {
  // the exponentials of the grammar that an item uses, for all the items that share it
  void* (*prepare)(const LowRank<T>&, int64_t item);
  void (*release)(void*);
  // chart: the block's part, or null; log_z: by item
  void (*forward)(const LowRank<T>&, void* grammar, const int64_t* items, int count, T* chart, double* log_z);
  // weight: by item, or null for ones
  void (*backward)(const LowRank<T>&, void* grammar, const int64_t* items, int count, const T* chart,
                   const double* weight, const LowRankSink<T>& out);
  // events of one sample lie `stride` behind those of the one before
  void (*sample)(const LowRank<T>&, void* grammar, const int64_t* items, int count, uint64_t seed, int64_t samples,
                 int64_t* events, int64_t stride);
};
// Elements of T that the chart of one item takes, on every machine. `states`: the row of a span, nt, or r where the
// head is folded; `ranks`: whether the ranks at the top of a span are kept beside it.
constexpr int64_t kLowRankMeta = 32;
template <class T>
int64_t lowrank_chart_size(int64_t n, int64_t states, int64_t t, int64_t r, bool ranks) {
  constexpr int64_t w = 64 / int64_t(sizeof(T));
  auto padded = [](int64_t k) { return (k + w - 1) / w * w; };
  const int64_t inner = n * (n - 1) / 2, all = inner + n;
  const int64_t vectors = inner * (padded(states) + (ranks ? padded(r) : 0)) + n * padded(t) + 2 * all * padded(r);
  return kLowRankMeta + vectors + padded(6 * all * int64_t(sizeof(double) / sizeof(T)) + 2 * all);
}
// Whether nonterminals are summed out of the rules beforehand, where no query names them.
constexpr bool lowrank_folds(bool head, int64_t labels, int64_t r, int64_t nt, int64_t n) {
  return head && labels == 1 && 2 * r <= nt && n * n >= nt;
}

template <class T>
int64_t lowrank_chart_size(const LowRank<T>& p) {
  return lowrank_chart_size<T>(p.n, p.folded ? p.r : p.nt, p.t, p.r, p.head && !p.folded);
}

struct LowRankTable {
  LowRankKernels<float> f32;
  LowRankKernels<double> f64;
};
const LowRankTable* lowrank_kernels_base();
const LowRankTable* lowrank_kernels_avx2();
const LowRankTable* lowrank_kernels_avx512();

}  // namespace slv
