// Forward-backward in the scaled linear domain for chains with a transition of their own at every step (a dense CRF).
//
// One item at a time: the potentials are read once forward and once backward, their exponentials formed on the way
// and not kept (they would be n k^2), the weights of the edges written once. With M_t the power of two of max A_t and
// s_t that of max alpha_t, which is applied at the end of the step, so that the products need not wait for it:
//   alpha_t+1 = (alpha_t exp(A_t) 2^-M_t) e_t+1 / s_t
//   beta_t(i) = sum_j h_ij, edge(i, j) = alpha_t(i) h_ij,
//   h_ij = exp(A_t(i, j)) 2^-N_t e_t+1(j) beta_t+1(j), 2^N_t = 2^M_t s_t
// The conditions of exactness are those of chain_scan.h, with rho the largest range of any step.
#pragma once
#include "kernels/chain_ladder.h"

namespace slv {
namespace {

template <class In, class T>
struct Dense : ScaledRows<In, T> {
  using Base = ScaledRows<In, T>;
  using Base::W, Base::k, Base::steps, Base::panels, Base::step, Base::window, Base::exponent, Base::with_panels;
  static constexpr int R = kTreeRows<T>;
  const In* matrices;
  const double most_mild;  // range of a step's scores
  bool save = false;
  T *base = nullptr, *powers = nullptr;  // powers: N_t
  bool wide = false, thin = false, stream = false;

  Dense(const Chain<In>& c, const int64_t* item)
      : Base(c, item, 1),
        matrices(c.transition + (c.matrix ? c.matrix[*item] : 0) * c.steps() * c.k * c.k),
        most_mild(Range<T>::mild / 2 - scalar_log(double(c.k))) {}
  int64_t chart_size() const { return steps * (2 * step + 1); }
  int64_t ring_size() const { return (2 + window) * step; }
  void bind_chart(T* p, T* n) { save = true, base = p, powers = n; }
  void bind_ring(T* p) { save = false, base = p; }
  T* alpha(int64_t t) const { return base + (save ? 2 * t : t & 1) * step; }
  T* e(int64_t t) const { return base + (save ? 2 * t + 1 : 2 + t % window) * step; }
  // A_t(i, panel p); Full: k is a multiple of the vector's width
  template <bool Full>
  SLV_INLINE vec<T> score(int64_t t, int64_t i, int64_t p) const {
    return load_as<T>(matrices + (t * k + i) * k + p * W, Full ? W : int(k - p * W), -kInf<T>);
  }

  // The maximum of A_t; false where its range asks for another rung.
  bool survey(int64_t t, T& top) const {
    constexpr int kChains = 4;  // of maxima, side by side
    const In* a = matrices + t * k * k;
    vec<T> highs[kChains], lows[kChains];
    for (int q = 0; q < kChains; q++) highs[q] = splat(-kInf<T>), lows[q] = splat(kInf<T>);
    int64_t i = 0;
    const int64_t kk = k * k;
    for (; i + kChains * W <= kk; i += kChains * W)
#pragma GCC unroll 4
      for (int q = 0; q < kChains; q++) {
        vec<T> x = load_as<T>(a + i + q * W, W, T(0));
        highs[q] = vmax(highs[q], x);
        lows[q] = vmin(lows[q], x);
      }
    vec<T> high = vmax(vmax(highs[0], highs[1]), vmax(highs[2], highs[3]));
    vec<T> low = vmin(vmin(lows[0], lows[1]), vmin(lows[2], lows[3]));
    for (; i + W <= kk; i += W) {
      vec<T> x = load_as<T>(a + i, W, T(0));
      high = vmax(high, x);
      low = vmin(low, x);
    }
    if (i < kk) {
      high = vmax(high, load_as<T>(a + i, int(kk - i), -kInf<T>));
      low = vmin(low, load_as<T>(a + i, int(kk - i), kInf<T>));
    }
    top = hmax<T>(high);
    double least = -double(hmax<T>(-low));
    if (wide) {  // -inf is allowed: the least of the finite ones counts
      low = splat(kInf<T>);
      for (i = 0; i < kk; i += W) {
        vec<T> x = load_as<T>(a + i, int(kk - i), kInf<T>);
        low = vmin(low, x > -kInf<T> ? x : splat(kInf<T>));
      }
      least = -double(hmax<T>(-low));
      if (top == -kInf<T>) return top = 0, true;
    }
    const double rho = double(top) - least;
    const bool bounded = top < Range<T>::huge && top > -Range<T>::huge;
    return bounded && (wide ? rho <= Range<T>::wide : rho <= most_mild);
  }

  // finish(panel, alpha' exp(A_t) 2^-N); P as in with_panels
  template <int P, class F>
  SLV_INLINE void advance(int64_t t, const T* a, vec<T> N, F finish) const {
    constexpr int most = P ? P : 4;
    for (int64_t first = 0; first < panels; first += most) {
      vec<T> sum[most] = {};
      const int count = P ? P : int(std::min<int64_t>(most, panels - first));
      for (int64_t i = 0; i < k; i++) {
        const vec<T> x = splat(a[i]);
#pragma GCC unroll 4
        for (int p = 0; p < most; p++)
          if (P || p < count) sum[p] += x * exp_scaled<T>(score<(P > 0)>(t, i, first + p), N);
      }
#pragma GCC unroll 4
      for (int p = 0; p < most; p++)
        if (P || p < count) finish(first + p, sum[p]);
    }
  }

  // alpha of step t from that of step t-1, whose power of two is applied at the end: then a step need not wait for it.
  template <bool Wide>
  bool forward_step(int64_t t, const T* prev, const T* et, T* out) {
    T top;
    if (!survey(t - 1, top)) return false;
    vec<T> most = load(prev);
    for (int64_t p = 1; p < panels; p++) most = vmax(most, load(prev + p * W));
    const ivec<T> power = exponent_of<T>(vmax(reduce_lanes<T, W / 2>(most, MaxOp()), splat(kSmallest<T>)));
    const vec<T> N = nearest<T>(splat(T(top * T(1.44269504088896341)))), s = power_of_two<T>(-power);
    const vec<T> all = N + __builtin_convertvector(power, vec<T>);
    exponent[0] += double(all[0]);
    if (save) powers[t - 1] = all[0];
    with_panels([&](auto panels_) {
      advance<decltype(panels_)::value>(t - 1, prev, N, [&](int64_t p, vec<T> sum) __attribute__((always_inline)) {
        vec<T> x = load(et + p * W), v = sum * (x * s);
        if constexpr (Wide) thin = thin || any<T>((v < Range<T>::tiny) & (sum > T(0)) & (x > T(0)));
        store(out + p * W, v);
      });
    });
    return true;
  }
  template <bool Wide>
  bool forward() {
    for (int64_t t = 0; t < steps; t++) {
      if (t % window == 0)
        this->template exponentiate<Wide>(t, std::min(t + window, steps), e(t), save ? 2 * step : step);
      if (t > 0) {
        if (!forward_step<Wide>(t, alpha(t - 1), e(t), alpha(t))) return false;
        continue;
      }
      for (int64_t p = 0; p < panels; p++) {
        vec<T> x = load(e(0) + p * W);
        if constexpr (Wide) thin = thin || any<T>((x < Range<T>::tiny) & (x > T(0)));
        store(alpha(0) + p * W, x);
      }
    }
    if (steps > 0) this->finish(0, alpha(steps - 1), 0);
    return !this->bad[0] && !thin;
  }
  bool run_forward() {
    FlushDenormals flush;
    if (forward<false>()) return true;
    if (this->bad[0]) return false;
    restart();
    wide = true;
    return forward<true>();
  }
  void restart() {
    exponent[0] = 0;
    thin = false;
  }

  // The weights of the edges of step t, h to write(i, panel, h), and their row sums, a vector of states at a time; P as
  // in with_panels, and passed on to write.
  template <int P, class Write>
  SLV_INLINE void retreat_panels(int64_t t, const T* g, T* beta, Write write) const {
    const vec<T> N = splat(powers[t]);
    const int64_t np = P ? P : panels;
    vec<T> gp[P ? P : 1];
    for (int p = 0; p < P; p++) gp[p] = load(g + p * W);
    const In* before = matrices + (t - (t > 0)) * k * k;  // the step to come
    for (int64_t first = 0; first < k; first += W) {
      vec<T> sum[W] = {};
      auto row = [&](int i) __attribute__((always_inline)) {
#pragma GCC unroll 4
        for (int64_t p = 0; p < np; p++) {
          prefetch(before + (first + i) * k + p * W);
          vec<T> h = exp_scaled<T>(score<(P > 0)>(t, first + i, p), N) * (P ? gp[P ? p : 0] : load(g + p * W));
          sum[i] += h;
          write(std::integral_constant<int, P>{}, first + i, p, h);
        }
      };
      repeat<(P > 0), W>(P ? W : int(std::min<int64_t>(W, k - first)), row);
      store(beta + first, reduce_square<T>(sum, SumOp()));
    }
  }
  template <class Write>
  void retreat(int64_t t, const T* g, T* beta, Write write) const {
    with_panels([&](auto p) { retreat_panels<decltype(p)::value>(t, g, beta, write); });
  }
  template <bool Wide, bool Stream>
  void write_edges(int64_t t, const T* g, T* beta, const T* al, In* out) const {
    retreat(t, g, beta, [&](auto panels_, int64_t i, int64_t p, vec<T> h) __attribute__((always_inline)) {
      vec<T> x = Wide && al[i] == T(0) ? vec<T>{} : h * al[i];
      if constexpr (Stream)
        store_stream(out + i * k + p * W, x);
      else
        store_as<T>(out + i * k + p * W, x, decltype(panels_)::value ? W : int(k - p * W));
    });
  }

  // Memory of the backward pass.
  struct Work {
    T* rows;
    In* edges;  // of one step, rounded to the input's type as one item's own would be
  };
  static constexpr int kRows = 3;
  // sums: whether edges are added to sums
  int64_t work_bytes(bool sums) const { return Scratch::bytes<T>(kRows * step) + Scratch::bytes<In>(sums ? k * k : 0); }
  Work take_work(Scratch& s, bool sums) const {
    T* rows = s.take<T>(kRows * step);
    return {rows, sums ? s.take<In>(k * k) : nullptr};
  }

  // unary (n, k) of this item; edges to the sink. weight = common * ratio, common a power of two.
  template <bool Wide>
  bool backward(double weight, In* unary, const EdgeSink<In>& sink, const Work& work) {
    T *g = work.rows, *beta = g + step, *weighted = beta + step;
    const T common = weight != 0 && std::abs(weight) < 1e30 ? T(power_of_two_below(std::abs(weight))) : T(1);
    const T ratio = T(weight / double(common));
    const int64_t kk = k * k;
    for (int64_t t = steps - 1; t >= 0; t--) {
      const T* al = alpha(t);
      for (int64_t p = 0; p < panels; p++) store(weighted + p * W, load(al + p * W) * common);
      if (t == steps - 1) {
        for (int64_t p = 0; p < panels; p++) store(beta + p * W, splat(ratio * this->inverse[0]));
      } else if (sink.direct) {
        if constexpr (std::is_same_v<In, float> && std::is_same_v<T, float>)
          if (stream) write_edges<Wide, true>(t, g, beta, weighted, sink.direct + t * kk);
        if (!stream) write_edges<Wide, false>(t, g, beta, weighted, sink.direct + t * kk);
      } else if (sink.sum) {
        write_edges<Wide, false>(t, g, beta, weighted, work.edges);
        double* sum = sink.sum + t * sink.sum_step;
        for (int64_t q = 0; q < kk; q += kWidth<In>)
          add_as<In>(sum + q, load_n<In>(work.edges + q, int(std::min<int64_t>(kWidth<In>, kk - q)), In(0)), kk - q);
      } else {
        retreat(t, g, beta, [](auto, int64_t, int64_t, vec<T>) {});
      }
      vec<T> total{};
      for (int64_t p = 0; p < panels; p++) {
        vec<T> a = load(al + p * W), b = load(beta + p * W), x = load(e(t) + p * W) * b, mu = a * b;
        if constexpr (Wide) {
          ivec<T> live = a > T(0);
          x = live ? x : vec<T>{};
          mu = live ? mu : vec<T>{};
          thin = thin || any<T>(live & (b != T(0)) & (vmax(x, -x) < Range<T>::tiny));
        }
        total += mu;
        store(g + p * W, x);
        store_as<T>(unary + t * k + p * W, mu * common, int(k - p * W));
      }
      if (sizeof(T) == 8 || t % 32 != 0) continue;
      const T factor = ratio / hsum<T>(total);  // see Adjoint::renew
      if (std::abs(factor - 1) < T(0.01))
        for (int64_t p = 0; p < panels; p++) store(g + p * W, load(g + p * W) * factor);
    }
    return !thin;
  }
  bool run_backward(double weight, In* unary, const EdgeSink<In>& sink, const Work& work) {
    FlushDenormals flush;
    if (!wide) return backward<false>(weight, unary, sink, work);
    // what is added to a sum cannot be taken back: see first whether the range will do
    if (sink.sum && !backward<true>(weight, unary, EdgeSink<In>{}, work)) return false;
    return backward<true>(weight, unary, sink, work);
  }
};

constexpr int kMetaWide = 2;  // of an item's meta: whether its ranges are those of the wide rung

template <class In>
double dense_forward(const Chain<In>& c, int64_t b, In* chart, In* scales, In* meta) {
  double log_z = 0;
  bool done = false;
  {
    Dense<In, In> d(c, &b);
    Scratch scratch(Scratch::bytes<In>(chart ? 0 : d.ring_size()) + d.scratch());
    if (chart)
      d.bind_chart(chart, scales);
    else
      d.bind_ring(scratch.take<In>(d.ring_size()));
    d.bind(scratch);
    done = d.run_forward();
    log_z = d.log_z[0];
    if (chart) {
      std::fill(chart + d.steps * 2 * d.step, chart + c.n * 2 * padded<In>(c.k), In(0));
      std::fill(scales + std::max<int64_t>(d.steps - 1, 0), scales + c.n, In(0));
      std::fill(meta, meta + kMeta, In(0));
      meta[0] = d.inverse[0];
      meta[1] = !done;
      meta[kMetaWide] = d.wide;
    }
  }
  if (!std::is_same_v<In, double> && !done) {
    Dense<In, double> d(c, &b);
    Scratch scratch(Scratch::bytes<double>(d.ring_size()) + d.scratch());
    d.bind_ring(scratch.take<double>(d.ring_size()));
    d.bind(scratch);
    done = d.run_forward();
    log_z = d.log_z[0];
  }
  return done ? log_z : log_partition_log(c, b);
}

// Both passes of an item in T, from nothing; false where its range does not do.
template <class T, class In>
bool dense_item(const Chain<In>& c, int64_t b, double weight, In* unary, const EdgeSink<In>& edges, bool stream) {
  Dense<In, T> d(c, &b);
  Scratch scratch(Scratch::bytes<T>(d.chart_size()) + d.work_bytes(edges.sum) + d.scratch());
  T* chart = scratch.take<T>(d.chart_size());
  d.bind_chart(chart, chart + d.steps * 2 * d.step);
  d.bind(scratch);
  d.stream = stream;
  return d.run_forward() && d.run_backward(weight, unary, edges, d.take_work(scratch, edges.sum));
}

template <class In>
void dense_backward(const Chain<In>& c, int64_t b, double weight, In* chart, In* scales, const In* meta, In* unary,
                    const EdgeSink<In>& edges, bool stream) {
  In* mine = unary + b * c.n * c.k;
  clear_from(c.length ? c.length[b] : c.n, Item<In>(c, b), mine, edges);
  const bool aligned = c.k % kWidth<In> == 0 && reinterpret_cast<uintptr_t>(edges.direct) % kVectorBytes == 0;
  stream = stream && aligned && std::is_same_v<In, float>;
  bool done = false;
  if (chart && meta[1] == 0) {
    Dense<In, In> d(c, &b);
    Scratch scratch(d.work_bytes(edges.sum));
    d.bind_chart(chart, scales);
    d.inverse[0] = meta[0];
    d.wide = meta[kMetaWide] != 0;
    d.stream = stream;
    done = d.run_backward(weight, mine, edges, d.take_work(scratch, edges.sum));
  } else if (!chart) {
    done = dense_item<In>(c, b, weight, mine, edges, stream);
  }
  if (!std::is_same_v<In, double> && !done) done = dense_item<double>(c, b, weight, mine, edges, false);
  if (!done) marginals_log(c, b, weight, mine, edges);
  if (stream) finish_streams();
}

}  // namespace
}  // namespace slv
