// Exact samples of trees from a chart, top down in the space of ranks: a node of A over i..j draws
//
//   q by head(A, q) m(q)    k by w_k l_ik(q) r_k+1,j(q)    y by left(q, y) s_ik(y)    z by right(q, z) s_k+1,j(z)
//
// in O(r + w + 2 nt), each the first alternative whose cumulative weight exceeds u times the total.
#pragma once
#include "core/philox.h"
#include "kernels/lowrank_inside.h"
#include "kernels/lowrank_log.h"

namespace slv {
namespace {

// Weights(i, j, ...) into a row of float64, from the scaled chart of item c of a block.
template <class In, class T>
struct ScaledChoices {
  static constexpr int W = kWidth<T>;
  Inside<In, T>& f;
  const int64_t c;
  const T* inner(const T* base, int64_t i, int64_t j) const {
    const int64_t w = j - i + 1;
    return base + (f.first[w] + f.start(w, c) + i) * W;
  }
  int64_t whole(double* out) const {
    const In* root = f.p.root + f.p.row(f.p.root_row, f.items[c]) * f.p.nt;
    const T* s = inner(f.sym, 0, f.len[c] - 1);
    for (int64_t a = 0; a < f.p.nt; a++) {
      const double v = double(s[a / W * f.inner * W + a % W]);
      out[a] = v > 0 ? double(root[a]) + scalar_log(v) : -kInf<double>;
    }
    divide(out, f.p.nt, 1, out);
    return f.p.nt;
  }
  int64_t ranks(int64_t i, int64_t j, int64_t a, double* out) const {
    const T* m = inner(f.rank, i, j);
    for (int64_t q = 0; q < f.g.r; q += W) {
      const vec<T> v = f.g.head_at(a, q / W) * load(m + q / W * f.inner * W);
      for (int64_t l = 0; l < W && q + l < f.g.r; l++) out[q + l] = double(v[l]);
    }
    return f.g.r;
  }
  int64_t splits(int64_t i, int64_t j, int64_t q, double* out) {
    const int64_t a = f.before(c, i, i), b = f.behind(c, i + 1, j), n = j - i;
    const int64_t step = f.stride();
    const T *l = f.left + a * step + q, *r = f.right + b * step + q;
    double top = -kInf<double>;
    for (int64_t k = 0; k < n; k++) {
      out[k] = l[k * step] > T(0) && r[k * step] > T(0) ? f.left_before[a + k] + f.right_behind[b + k] : -kInf<double>;
      top = std::max(top, out[k]);
    }
    for (int64_t k = 0; k < n; k++)
      out[k] =
          out[k] > -kInf<double> ? scalar_exp(kLn2 * (out[k] - top)) * double(l[k * step]) * double(r[k * step]) : 0.0;
    return n;
  }
  int64_t symbols(bool right, int64_t i, int64_t j, int64_t q, double* out) const {
    const int64_t row = (right ? f.g.pr * W : 0) + q, k = i == j ? f.p.t : f.p.nt;
    const T* s = i == j ? f.word + (f.lead[c] + i) * W : inner(f.sym, i, j);
    const int64_t panel = (i == j ? f.leaves : f.inner) * W;
    for (int64_t y = 0; y < k; y += W) {
      const vec<T> v = (i == j ? f.g.leaf_at(row, y / W) : f.g.inner_at(row, y / W)) * load(s + y / W * panel);
      for (int64_t l = 0; l < W && y + l < k; l++) out[y + l] = double(v[l]);
    }
    return k;
  }
};
// The same from exact log space.
template <class T>
struct LogChoices {
  const LogInside<T>& f;
  int64_t share(double* out, int64_t k) const {
    divide(out, k, 1, out);
    return k;
  }
  int64_t whole(double* out) const {
    for (int64_t a = 0; a < f.nt; a++) out[a] = double(f.c.root[a]) + f.sym[f.at(0, f.len - 1) * f.nt + a];
    return share(out, f.nt);
  }
  int64_t ranks(int64_t i, int64_t j, int64_t a, double* out) const {
    for (int64_t q = 0; q < f.r; q++) out[q] = double(f.c.head[a * f.r + q]) + f.rank[f.at(i, j) * f.r + q];
    return share(out, f.r);
  }
  int64_t splits(int64_t i, int64_t j, int64_t q, double* out) const {
    for (int64_t k = i; k < j; k++) out[k - i] = f.left[f.at(i, k) * f.r + q] + f.right[f.at(k + 1, j) * f.r + q];
    return share(out, j - i);
  }
  int64_t symbols(bool right, int64_t i, int64_t j, int64_t q, double* out) const {
    const bool word = i == j;
    const int64_t k = word ? f.c.t : f.nt;
    const T* own = (right ? f.c.right : f.c.left) + q * f.c.s + (word ? f.nt : 0);
    for (int64_t y = 0; y < k; y++)
      out[y] = double(own[y]) + (word ? double(f.c.unary[i * k + y]) : f.sym[f.at(i, j) * f.nt + y]);
    return share(out, k);
  }
};

// One tree over len > 1 words: rows (i, j, symbol) of `event` in pre-order.
template <class T, class Choices>
void draw_tree(Choices& from, bool has_head, int64_t len, int64_t nt, uint64_t seed, int64_t item, int64_t sample,
               Doubles& weight, int64_t* event) {
  struct Node {
    int64_t i, j, symbol, row;
  };
  auto choose = [&](int64_t k, uint32_t word) {
    double sum = 0;
    for (int64_t j = 0; j < k; j++) sum += weight[j];
    return std::max<int64_t>(pick(weight.data(), k, sum, double(uniform<T>(word))), 0);
  };
  Draws<1> top{seed, {uint32_t(item)}, {uint32_t(sample)}, 2}, inner{seed, {uint32_t(item)}, {uint32_t(sample)}, 1};
  Vector<Node> stack{{0, len - 1, choose(from.whole(weight.data()), top(0)[0]), 0}};
  while (!stack.empty()) {
    const auto [i, j, symbol, row] = stack.back();
    stack.pop_back();
    event[3 * row] = i, event[3 * row + 1] = j, event[3 * row + 2] = symbol;
    if (i == j) continue;
    auto word = [&, first = 4 * (j * (j + 1) / 2 + i)](int w) { return inner(first + w)[0]; };
    const int64_t q = has_head ? choose(from.ranks(i, j, symbol, weight.data()), word(3)) : symbol;
    const int64_t k = i + choose(from.splits(i, j, q, weight.data()), word(0));
    const int64_t y = choose(from.symbols(false, i, k, q, weight.data()), word(1)) + (i == k ? nt : 0);
    const int64_t z = choose(from.symbols(true, k + 1, j, q, weight.data()), word(2)) + (k + 1 == j ? nt : 0);
    stack.push_back({k + 1, j, z, row + 2 * (k - i + 1)});
    stack.push_back({i, k, y, row + 1});
  }
}
// All samples of an item: from its part of one sample to that of the next is `stride`.
template <class In, class Choices>
void draw_trees(Choices&& from, const LowRank<In>& p, int64_t item, double log_z, uint64_t seed, int64_t samples,
                int64_t* events, int64_t stride) {
  Doubles weight(std::max({p.nt, p.t, p.r, p.n}) + kWidth<double>);
  for (int64_t s = 0; s < samples; s++) {
    int64_t* event = events + s * stride + item * lowrank_event_size(p.n);
    std::fill(event, event + lowrank_event_size(p.n), -1);
    if (log_z > -kInf<double>) draw_tree<In>(from, p.head != nullptr, p.len(item), p.nt, seed, item, s, weight, event);
  }
}

}  // namespace
}  // namespace slv
