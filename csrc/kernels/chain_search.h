// Queries on single structures and on maxima, in exact log space: Viterbi, max-marginals, k best, samples, filtering.
#pragma once
#include "kernels/chain_log.h"

namespace slv {
namespace {

template <class T>
void argmax_log(const Chain<T>& chain, int64_t b, int64_t* states) {
  Item<T> c(chain, b);
  const int64_t k = c.k;
  std::fill(states, states + c.n, -1);
  if (c.len == 0) return;
  Doubles best = inside<Max>(c);
  int64_t next = -1;
  for (int64_t t = c.len - 1; t >= 0;
       t--) {  // no back-pointers: one argmax a step is recomputed, ties to the lowest index
    int64_t arg = -1;
    double top = kNone;
    for (int64_t i = 0; i < k; i++) {
      double x = best[t * k + i] + (next >= 0 ? double(c.transition[t * c.step + i * k + next]) : 0.0);
      if (x > top) top = x, arg = i;
    }
    if (arg < 0) return std::fill(states, states + c.n, -1);
    states[t] = next = arg;
  }
}

// transition: (k, k), the best over the steps, or (n-1, k, k) where the chain has one matrix a step.
template <class T>
void max_marginals_log(const Chain<T>& chain, int64_t b, T* unary, T* transition) {
  Item<T> c(chain, b);
  const int64_t k = c.k, kk = k * k;
  std::fill(unary, unary + c.n * k, T(kNone));
  std::fill(transition, transition + (chain.per_step ? std::max<int64_t>(c.n - 1, 0) : 1) * kk, T(kNone));
  if (c.len == 0) return;
  Doubles alpha = inside<Max>(c), beta = outside<Max>(c), next(k), sum(c.step ? 0 : kk, kNone);
  for (int64_t t = 0; t < c.len; t++) {
    for (int64_t i = 0; i < k; i++) unary[t * k + i] = T(alpha[t * k + i] + beta[t * k + i]);
    if (t == c.len - 1) break;
    for (int64_t j = 0; j < k; j++) next[j] = c.u(t + 1, j) + beta[(t + 1) * k + j];
    for (int64_t i = 0; i < k; i++)
      for (int64_t j = 0; j < k; j++) {
        double x = alpha[t * k + i] + double(c.transition[t * c.step + i * k + j]) + next[j];
        if (c.step)
          transition[t * kk + i * k + j] = T(x);
        else
          sum[i * k + j] = std::max(sum[i * k + j], x);
      }
  }
  for (size_t e = 0; e < sum.size(); e++) transition[e] = T(sum[e]);
}

struct Hypothesis {
  double score;
  int64_t state, rank;                         // of the predecessor
  bool operator<(const Hypothesis& o) const {  // worse than: ties go to the lower state, then the lower rank
    if (score != o.score) return score < o.score;
    return state != o.state ? state > o.state : rank > o.rank;
  }
};
// k^len, or `most` where that is less.
inline int64_t structures(int64_t k, int64_t len, int64_t most) {
  int64_t number = 1;
  for (int64_t t = 0; t < len && k > 1 && number < most; t++) number = number > most / k ? most : number * k;
  return std::min(number, most);
}
// The k best paths (Huang & Chiang 2005, algorithm 2: a heap over the predecessors' sorted lists).
template <class T>
void topk_log(const Chain<T>& chain, int64_t b, int64_t count, int64_t* states, int64_t stride) {
  Item<T> c(chain, b);
  const int64_t k = c.k;
  for (int64_t r = 0; r < count; r++) std::fill(states + r * stride, states + r * stride + c.n, -1);
  if (c.len == 0) return;
  count = structures(k, c.len, count);  // no memory for more than there are
  std::vector<Hypothesis> lists(c.len * k * count, {kNone, -1, -1}), heap;
  auto list = [&](int64_t t, int64_t j) { return lists.data() + (t * k + j) * count; };
  auto pop_into = [&](Hypothesis* out, auto&& successor) {  // heads of sorted lists -> the `count` best in order
    std::make_heap(heap.begin(), heap.end());
    for (int64_t r = 0; r < count && !heap.empty(); r++) {
      std::pop_heap(heap.begin(), heap.end());
      out[r] = heap.back();
      heap.pop_back();
      Hypothesis more = successor(out[r]);
      if (more.score > kNone) heap.push_back(more), std::push_heap(heap.begin(), heap.end());
    }
    heap.clear();
  };
  for (int64_t t = 0; t < c.len; t++)
    for (int64_t j = 0; j < k; j++) {
      if (t == 0) {
        list(0, j)[0].score = c.u(0, j);
        continue;
      }
      auto extend = [&](int64_t i, int64_t r) {
        double edge = c.transition[(t - 1) * c.step + i * k + j];
        return Hypothesis{r < count ? list(t - 1, i)[r].score + edge + c.u(t, j) : kNone, i, r};
      };
      for (int64_t i = 0; i < k; i++)
        if (Hypothesis h = extend(i, 0); h.score > kNone) heap.push_back(h);
      pop_into(list(t, j), [&](const Hypothesis& h) { return extend(h.state, h.rank + 1); });
    }
  std::vector<Hypothesis> ends(count, {kNone, -1, -1});
  auto end = [&](int64_t i, int64_t r) { return Hypothesis{r < count ? list(c.len - 1, i)[r].score : kNone, i, r}; };
  for (int64_t i = 0; i < k; i++)
    if (Hypothesis h = end(i, 0); h.score > kNone) heap.push_back(h);
  pop_into(ends.data(), [&](const Hypothesis& h) { return end(h.state, h.rank + 1); });
  for (int64_t r = 0; r < count && ends[r].score > kNone; r++) {
    Hypothesis h = ends[r];
    for (int64_t t = c.len - 1; t >= 0; t--) {
      states[r * stride + t] = h.state;
      h = list(t, h.state)[h.rank];
    }
  }
}

// Forward filtering, backward sampling (Carter & Kohn 1994; Chib 1996).
template <class T>
void sample_log(const Chain<T>& chain, int64_t b, uint64_t seed, int64_t samples, int64_t* states, int64_t stride) {
  Item<T> c(chain, b);
  const int64_t k = c.k;
  Doubles alpha, weight(k);
  if (c.len > 0) alpha = inside<Log>(c);
  for (int64_t s = 0; s < samples; s++) {
    int64_t *out = states + s * stride, next = -1;
    std::fill(out, out + c.n, -1);
    Draws<1> draw{seed, {uint32_t(b)}, {uint32_t(s)}};
    for (int64_t t = c.len - 1; t >= 0; t--) {
      double top = kNone, sum = 0;
      for (int64_t i = 0; i < k; i++) {
        weight[i] = alpha[t * k + i] + (next >= 0 ? double(c.transition[t * c.step + i * k + next]) : 0.0);
        top = std::max(top, weight[i]);
      }
      if (!(top > kNone)) break;  // only at the last step: no structure at all
      for (int64_t i = 0; i < k; i++) sum += weight[i] = scalar_exp(weight[i] - top);
      out[t] = next = pick(weight.data(), k, sum, double(uniform<T>(*draw(t))));
      if (next < 0) break;
    }
  }
}

template <class T>
void filter_log(const Chain<T>& chain, int64_t b, T* out) {
  Item<T> c(chain, b);
  c.final = nullptr;
  const int64_t k = c.k;
  std::fill(out, out + c.n * k, T(kNone));
  Doubles alpha = inside<Log>(c);
  for (int64_t t = 0; t < c.len; t++) {
    const double z = total<Log>(&alpha[t * k], k);
    for (int64_t i = 0; z > kNone && i < k; i++) out[t * k + i] = T(alpha[t * k + i] - z);
  }
}
// Its derivative: a cotangent `grad` (batch, n, k) goes back along p(z_t | z_t+1, scores of steps up to t).
template <class T>
void filter_vjp_log(const Chain<T>& chain, int64_t b, const T* grad, T* unary, const EdgeSink<T>& sink) {
  Item<T> c(chain, b);
  c.final = nullptr;
  const int64_t k = c.k;
  clear_from(c.len, c, unary, sink);
  Doubles alpha = inside<Log>(c), p(k), sum(k), next(k);
  for (int64_t t = c.len - 1; t >= 0; t--) {
    std::fill(sum.begin(), sum.end(), 0.0);
    for (int64_t j = 0; t + 1 < c.len && j < k; j += kLanes) {
      Predecessors<T> from(c, &alpha[t * k], t, j);
      const vd lambda = load_n<double>(&next[j], int(k - j), 0);
      for (int64_t i = 0; i < k; i++) {
        const vd moved = from.weight(i) * lambda;
        sum[i] += hsum<double>(moved);
        emit(sink, t, k, i, j, moved);
      }
    }
    const T* g = grad + (b * c.n + t) * k;
    const bool possible = softmax(&alpha[t * k], k, 1, p.data());
    double total = 0;
    for (int64_t i = 0; possible && i < k; i++) total += g[i];
    for (int64_t i = 0; i < k; i++) {
      next[i] = possible && alpha[t * k + i] > kNone ? g[i] - p[i] * total + sum[i] : 0;
      unary[t * k + i] = T(next[i]);
    }
  }
}

}  // namespace
}  // namespace slv
