// Filtering in the scaled linear domain (see chain_scan.h), log p(z_t | scores of steps up to t), and its derivative.
//
// With before_t = alpha_t-1 P, what is known before the scores of step t are seen, the answer is u_t + log before_t,
// normalised: a score that lies hundreds of nats under its neighbours is lost in alpha_t, but not in this sum. For the
// same reason a cotangent goes back through p(z_t = i | z_t+1 = j) = alpha_t(i) P(i, j) / before_t+1(j):
//   lambda_t = q_t + alpha_t (P (lambda_t+1 / before_t+1)),   q_t the cotangent of the normalised rows.
#pragma once
#include "core/log.h"
#include "kernels/chain_ladder.h"
#include "kernels/chain_search.h"

namespace slv {
namespace {

// A chain without final scores: filtering does not look ahead.
template <class In>
Chain<In> without_final(Chain<In> c) {
  c.final = nullptr;
  return c;
}

template <class In, class T>
struct Filter {
  static constexpr int W = kWidth<T>;
  const Scan<In, T>& f;  // with a saved chart
  const int rows;
  const int64_t k, panels, panel, step;
  Filter(const Scan<In, T>& f) : f(f), rows(f.rows), k(f.k), panels(f.panels), panel(f.panel), step(f.step) {}

  // out (batch, n, k). The chart's e has a step's total too, so that no exponential is formed for it.
  void write(In* out, Scratch& scratch) {
    FlushDenormals flush;
    constexpr int R = kTreeRows<T>;
    T* before = scratch.take<T>(step);
    for (int64_t t = 0; t < f.steps; t++) {
      look_before(t, before);
      const T* e = f.e(t);
      for (int q = 0; q < rows; q += R) {
        const int live = std::min(R, rows - q);
        vec<T> top[R], sum[R];
        for (int i = 0; i < R; i++) {
          const int r = q + std::min(i, live - 1);
          top[i] = splat(-kInf<T>), sum[i] = vec<T>{};
          for (int64_t p = 0; p < panels; p++) {
            top[i] = vmax(top[i], scores(r, t, p));
            sum[i] += load(e + p * panel + r * W) * load(before + p * panel + r * W);
          }
        }
        alignas(64) T most[R], sums[R];
        store_rows(most, reduce_rows<T>(top, MaxOp()));
        store_rows(sums, reduce_rows<T>(sum, SumOp()));
        for (int i = 0; i < live; i++) write_row(q + i, t, before, most[i], sums[i], out);
      }
    }
    for (int r = 0; r < rows; r++)
      std::fill(out + (f.items[r] * f.c.n + f.steps) * k, out + (f.items[r] + 1) * f.c.n * k, -kInf<In>);
  }
  SLV_INLINE vec<T> scores(int r, int64_t t, int64_t p) const {
    return load_as<T>(f.row(r, t) + p * W, int(std::min<int64_t>(W, k - p * W)), -kInf<T>);
  }
  // most: the largest score; sum: of the chart's e before_t, e being relative to the power of two next to exp(most).
  SLV_INLINE void write_row(int r, int64_t t, const T* before, T most, T sum, In* out) const {
    In* to = out + (f.items[r] * f.c.n + t) * k;
    if (t >= f.len[r] || !(sum > 0)) return (void)std::fill(to, to + k, -kInf<In>);
    if (f.is_joined(r, t)) {
      f.joined_row(r, t, f.joined);
      const double log_z = total<Log>(f.joined, k);
      return (void)std::transform(f.joined, f.joined + k, to, [&](double x) { return In(x - log_z); });
    }
    const double power = double(nearest<T>(splat(most * T(1.44269504088896341)))[0]);
    const vec<T> log_z = splat(T(power * 0.693147180559945309 - double(most))) + log_normal<T>(splat(sum));
    for (int64_t p = 0; p < panels; p++) {
      const vec<T> b = load(before + p * panel + r * W);
      const vec<T> x = (scores(r, t, p) - most) + (log_normal<T>(b > T(0) ? b : splat(T(1))) - log_z);
      store_as<T>(to + p * W, b > T(0) ? x : splat(-kInf<T>), int(std::min<int64_t>(W, k - p * W)));
    }
  }
  void look_before(int64_t t, T* before) const {
    if (t == 0) return std::fill(before, before + step, T(1));
    multiply_into(rows, k, f.alpha(t - 1), panel, f.m.forward(), before);
  }

  static constexpr int64_t kChunk = 32;
  int64_t pull_scratch() const { return Scratch::bytes<T>((kChunk + 1) * step) + Scratch::bytes<T>(panels * k * W); }
  // unary (batch, n, k) written, edges (k, k) added to; rows in `skip` contribute nothing.
  void pull(const In* grad, const bool* skip, In* unary, double* edges, Scratch& scratch) {
    FlushDenormals flush;
    T *ring = scratch.take<T>((kChunk + 1) * step), *before = ring + kChunk * step;
    T* sums = scratch.take<T>(panels * k * W);
    std::fill(sums, sums + panels * k * W, T(0));
    for (int64_t t = f.steps - 1; t >= 0; t--) {
      const T* al = f.alpha(t);
      const bool last = t == f.steps - 1;
      if (t % kChunk == 0 && !last)
        outer_sums<T>(k, {std::min(kChunk, f.steps - 1 - t), step, 0, rows, rows}, f.alpha(t), 2 * step, ring, sums,
                      panels * W);
      T* out = ring + (t + kChunk - 1) % kChunk * step;  // lambda_t / before_t
      const T* next = ring + t % kChunk * step;
      look_before(t, before);
      vec<T> q_scale[kMaxRows];  // sum of the cotangent over that of alpha
      for (int r = 0; r < rows; r++) {
        vec<T> g{}, a{};
        for (int64_t p = 0; p < panels; p++) g += cotangent(grad, skip, t, r, p), a += load(al + p * panel + r * W);
        const T total = hsum<T>(a);
        q_scale[r] = splat(total > 0 ? hsum<T>(g) / total : T(0));
      }
      if (last)
        std::fill(out, out + step, T(0));
      else
        multiply_into(rows, k, next, panel, f.m.backward(), out);
      for (int64_t p = 0; p < panels; p++)
        for (int r = 0; r < rows; r++) {
          const int64_t at = p * panel + r * W;
          const vec<T> a = load(al + at), b = load(before + at), g = cotangent(grad, skip, t, r, p);
          const vec<T> possible = (b > T(0)) & (score(t, r, p) > -kInf<T>) ? g - a * q_scale[r] : vec<T>{};
          const vec<T> lambda = possible + a * load(out + at);
          store(out + at, b > T(0) ? lambda / (b > T(0) ? b : splat(T(1))) : vec<T>{});
          store_as<T>(unary + (f.items[r] * f.c.n + t) * k + p * W, lambda, int(std::min<int64_t>(W, k - p * W)));
        }
    }
    for (int r = 0; r < rows; r++)
      std::fill(unary + (f.items[r] * f.c.n + f.steps) * k, unary + (f.items[r] + 1) * f.c.n * k, In(0));
    for (int64_t i = 0; i < k; i++)
      for (int64_t p = 0; p < panels; p++) {
        const vec<T> x = load(sums + (i * panels + p) * W) * f.m.at(i, p);
        add_as<T>(edges + i * k + p * W, x, k - p * W);
      }
  }
  // Only whether it is -inf counts.
  SLV_INLINE vec<T> score(int64_t t, int64_t r, int64_t p) const {
    const int n = int(std::min<int64_t>(W, k - p * W));
    const vec<T> u = load_as<T>(f.row(int(r), t) + p * W, n, T(0));
    if (t > 0 || !f.c.initial) return u;
    return u + load_as<T>(f.c.initial + (f.c.initial_row ? f.c.initial_row[f.items[r]] : 0) * k + p * W, n, T(0));
  }
  // Zero in the padding, and where no prefix is possible.
  SLV_INLINE vec<T> cotangent(const In* grad, const bool* skip, int64_t t, int64_t r, int64_t p) const {
    if (t >= f.len[r] || skip[r]) return vec<T>{};
    return load_as<T>(grad + (f.items[r] * f.c.n + t) * k + p * W, int(std::min<int64_t>(W, k - p * W)), T(0));
  }
};

// Runs body(scan, scratch) on the rows that T has the range for; the rest are listed in `again`.
template <class T, class In, class F>
int filter_block(const Chain<In>& c, const ScanMatrix<T>& m, const int64_t* items, int rows, int64_t* again, F body) {
  int count = 0;
  if (!m.usable) {
    std::copy_n(items, rows, again);
    return rows;
  }
  const int most = rows_that_fit<T>(c);
  for (; rows > 0; items += most, rows -= most) {
    Scan<In, T> s(c, m, items, std::min(rows, most));
    Filter<In, T> filter(s);
    Scratch scratch(Scratch::bytes<T>(s.chart_size()) + s.scratch() + Scratch::bytes<T>(s.step) +
                    filter.pull_scratch());
    s.bind_chart(scratch.take<T>(s.chart_size()));
    s.bind(scratch);
    s.run_forward();
    body(s, filter, scratch);
    for (int r = 0; r < s.rows; r++)
      if (s.bad[r]) again[count++] = items[r];
  }
  return count;
}
// The same in the input's precision, with a chart that the caller has: made here (`fresh`), or by an earlier call.
template <class In, class F>
int filter_block(const Chain<In>& c, const ScanMatrix<In>& m, const int64_t* items, int rows,
                 const ChainChart<In>& chart, bool fresh, int64_t* again, F body) {
  Scan<In, In> s(c, m, items, rows);
  Filter<In, In> filter(s);
  Scratch scratch(s.scratch() + Scratch::bytes<In>(s.step) + filter.pull_scratch());
  s.bind_chart(chart.states, chart.scales);
  s.bind(scratch);
  if (fresh) {
    if (m.usable) s.run_forward();
    close_chart(s, chart, m.usable);
  }
  int count = 0;
  for (int r = 0; r < rows; r++)
    if ((s.bad[r] = chart.meta[items[r] * kMeta + 1] != 0)) again[count++] = items[r];
  if (count < rows) body(s, filter, scratch);
  return count;
}
template <class In, class F>
int filter_ladder(const Chain<In>& c, void* matrix, const int64_t* items, int rows, const ChainChart<In>& chart,
                  bool fresh, int64_t* again, F body) {
  auto& m = *static_cast<SharedMatrix<In>*>(matrix);
  int64_t wide[kMaxRows];
  const int count = chart.states ? filter_block(c, m.own, items, rows, chart, fresh, wide, body)
                                 : filter_block<In>(c, m.own, items, rows, wide, body);
  if constexpr (std::is_same_v<In, double>) {
    std::copy_n(wide, count, again);
    return count;
  } else {
    return count ? filter_block<double>(c, m.wide(), wide, count, again, body) : 0;
  }
}

template <class In>
void scan_filter(const Chain<In>& chain, void* matrix, const int64_t* items, int rows, const ChainChart<In>& chart,
                 In* out) {
  const Chain<In> c = without_final(chain);
  int64_t again[kMaxRows];
  const int count = filter_ladder(c, matrix, items, rows, chart, true, again,
                                  [&](auto&, auto& filter, Scratch& scratch) { filter.write(out, scratch); });
  for (int q = 0; q < count; q++) filter_log(c, again[q], out + again[q] * c.n * c.k);
}
template <class In>
void scan_filter_vjp(const Chain<In>& chain, void* matrix, const int64_t* items, int rows, const ChainChart<In>& chart,
                     const In* grad, In* unary, double* edges) {
  const Chain<In> c = without_final(chain);
  int64_t again[kMaxRows];
  const int count =
      filter_ladder(c, matrix, items, rows, chart, false, again,
                    [&](auto& s, auto& filter, Scratch& scratch) { filter.pull(grad, s.bad, unary, edges, scratch); });
  for (int q = 0; q < count; q++)
    filter_vjp_log(c, again[q], grad, unary + again[q] * c.n * c.k, EdgeSink<In>{nullptr, edges, 0});
}

}  // namespace
}  // namespace slv
