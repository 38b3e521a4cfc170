// The chain's kernels on small problems under the emulator, without torch.
#include "chain_problem.h"

namespace {

constexpr uint64_t kSeed = 0x1234567890abcdef;
constexpr uint64_t kTopSeed = 16390493;  // whose first uniform number, in float32, is the largest
constexpr int kSamples = 3;

template <class T>
struct Check : Problem<T> {
  using P = Problem<T>;
  using P::o, P::b, P::c, P::kk, P::len, P::unary, P::weight, P::chain, P::scores, P::zeros, P::add, P::gradient,
      P::finish, P::compare, P::ranges, P::v_unary, P::v_transition, P::v_initial, P::v_final;
  using typename P::Gradient, typename P::Sums;
  static constexpr bool kDouble = sizeof(T) == 8;
  static constexpr double nats = kDouble ? 1e-10 : 2e-6, probability = kDouble ? 1e-10 : 2e-5;

  explicit Check(const Case& o) : P(o) {
    if (o.made == kBrink) brink();
    if (o.made == kTail) tail();
    if (o.broken == 0) return;
    this->transition.data()[this->steps * kk - 1] = T(o.broken);
    unary.data()[b * o.n * o.k - 1] = T(o.broken);
  }

  // Matrices of 0 that two entries of one thread make mild no more, on either side of what is mild: in both orders.
  void brink() {
    const double limit = Range<T>::mild / 2 - std::log(double(o.k));
    for (int64_t m = 0; m < c.matrices(); m++)
      for (int64_t e : {0, 1}) this->transition.data()[m * kk + 256 * e] = T(-limit + (m % 2 == e ? 0.3 : -0.3));
  }
  // In float32, sums of these weights in the order of states lose all but the first and the last; those of each lane
  // do not.
  void tail() {
    for (int64_t e = 0; e < unary.size(); e++) {
      const int64_t i = e % o.k;
      unary.data()[e] = T(i == 0 ? 0 : std::log(i + 1 < o.k ? 0.9 * 0x1p-29 : 0x1p-23));
    }
  }

  // ---- the ladder: on which rung an item is, and that it has to leave it where its argument fails
  // --------------------

  std::vector<Kind> kinds;       // of the items
  std::vector<Posterior> exact;  // of the items
  static Kind kind_of(const T* a, int k) {
    double high = -HUGE_VAL, low = HUGE_VAL;
    bool forbidden = false;
    for (int e = 0; e < k * k; e++) {
      if (!(a[e] < HUGE_VAL)) return kUnusable;
      forbidden = forbidden || a[e] == -HUGE_VAL;
      if (a[e] > -HUGE_VAL) high = std::max(high, double(a[e])), low = std::min(low, double(a[e]));
    }
    if (high == -HUGE_VAL) return kWide;
    if (std::abs(high) >= Range<T>::huge) return kUnusable;
    if (!forbidden && 2 * (high - low) + 2 * std::log(double(k)) <= Range<T>::mild) return kMild;
    return high - low <= Range<T>::wide ? kWide : kUnusable;
  }
  static void near_one(const T* e, int64_t size, const char* what) {
    const T most = *std::max_element(e, e + size);
    require(most == T(0) || (most > T(0.7) && most < T(1.42)), std::string(what) + ": its largest entry is not near 1");
  }
  // size: of a chunk, whose first step is scaled as alpha before it was found in another way, but for rounding
  void check_ladder(Workspace<T>& w, int size) {
    const int k = o.k, width = padded<T>(k);
    kinds.clear();
    for (int64_t m = 0; m < c.matrices(); m++) {
      const Kind kind = kind_of(c.transition + m * kk, k);
      require(w.kind[m] == kind, "the rung of matrix " + std::to_string(m));
      if (!o.per_step && kind != kUnusable) near_one(w.matrix.data() + m * kk, kk, "matrix");
    }
    for (int64_t i = 0; i < b; i++) {
      const int n = len(i);
      Kind kind = kMild;
      for (int t = 0; t < (o.per_step ? n - 1 : 1); t++)
        kind = std::max(kind, Kind(w.kind[c.matrix.row(i) * c.steps() + t]));
      kinds.push_back(kind);
      bool leaves = n > 0 && kind == kUnusable;
      for (int t = 0; t < n; t++) leaves = check_row(w, i, t) || leaves;
      if (kind == kMild || leaves) require(w.meta[i * kMeta + 1] == T(leaves), "whether an item leaves its rung");
      const bool stays = w.meta[i * kMeta + 1] == T(0);
      for (int t = 0; stays && t < n; t++) {
        const T *alpha = w.alpha.data() + (i * o.n + t) * width,
                most = t ? *std::max_element(alpha - width, alpha - width + k) : 0;
        const T scale = std::isnormal(most) ? std::ldexp(T(1), -std::ilogb(most)) : T(1), found = w.scale[i * o.n + t];
        const bool near = t % size == 0 && most > 0 && found * most > T(0.999) && found * most < T(2.001);
        require(found == scale || near, "the scale of a step");
      }
    }
    check_entries(w, w.alpha, w.meta.data() + 1, kMeta);
  }
  // Whether the item cannot be held because of this row.
  bool check_row(Workspace<T>& w, int64_t item, int t) {
    const int64_t row = item * o.n + t;
    const T* e = w.e.data() + row * padded<T>(o.k);
    const Scores s = scores(item);
    bool bad = false, thin = false;
    double top = -HUGE_VAL;
    for (int i = 0; i < o.k; i++) {
      const double u = s.unary(t, i);
      bad = bad || !(u < HUGE_VAL);
      top = std::max(top, u);
      thin = thin || (u > -HUGE_VAL && e[i] < Range<T>::tiny);
    }
    bad = bad || (top > -HUGE_VAL && std::abs(top) >= Range<T>::huge);
    require(w.code[row] == (bad ? kBad : thin ? kThin : kPlain), "what a row holds");
    if (!bad) near_one(e, o.k, "row");
    return bad || (kinds.back() == kWide && thin);
  }
  // In wide items that stay, what is possible is not too small.
  void check_entries(Workspace<T>& w, Guarded<T>& x, const T* left, int stride) {
    const int width = padded<T>(o.k);
    for (int64_t i = 0; i < b; i++)
      for (int64_t e = i * o.n * width; kinds[i] == kWide && left[i * stride] == T(0) && e < (i * o.n + len(i)) * width;
           e++)
        if (e % width < o.k && w.alpha[e] > T(0))
          require(!(x[e] > T(0) && x[e] < Range<T>::tiny), "a small entry of a wide item");
  }

  // ---- values
  // ---------------------------------------------------------------------------------------------------------

  void run() {
    for (int64_t i = 0; i < b && o.broken == 0; i++) exact.push_back(posterior(scores(i)));
    Workspace<T> w(*this);
    const Doubles left = pass(w, 0);
    for (int size : chunk_sizes()) {
      Workspace<T> other(*this);
      require(pass(other, size) == left, "which items leave the scaled domain, in chunks of " + std::to_string(size));
    }
    if (o.broken != 0) return;
    if (o.offset == 0) second_order();
    choose(w);
  }

  // Fewer where an emulated product takes long.
  std::vector<int> chunk_sizes() const {
    const double work = double(b * o.n) * double(kk * o.k);
#if defined(__SANITIZE_THREAD__)  // where every pass takes long
    if (o.n > 2) return {2};
#elif !defined(SLV_PTX)
    if (work < 1e5 && o.n > 3) return {1, 3, o.n / 2 + 1};
#endif
    return work < 5e6 ? std::vector<int>{o.n / 3 + 1} : std::vector<int>{};
  }
  // Forward and backward, in chunks of so many steps; 0: not cut. Which items left the scaled domain on the way.
  Doubles pass(Workspace<T>& w, int size) {
    const Scaled<T>& s = w.s;
    prepare_matrices(c, s, nullptr);
    exponentiate_rows(c, s, nullptr);
    Chunks<T> chunks(*this, size ? size : o.n);
    if (size) {
      chunk_products(c, s, chunks.cut, nullptr);
      if (o.broken == 0) check_products(chunks);
      chunk_starts(c, chunks.cut, nullptr);
      forward(c, s, chunks.cut, nullptr);
      forward(c, s, chunks.again, nullptr);
    } else {
      forward(c, s, uncut(c), nullptr);
    }
    check_ladder(w, size ? size : o.n);
    if (size) check_lost(chunks, w.meta.data() + 1, kMeta);
    Doubles left(w.meta.data(), w.meta.data() + b * kMeta);
    for (int64_t i = 0; i < b; i++) left[i * kMeta] = 0;
    if (o.broken != 0) return left;
    ranges(w.meta.data() + 1, kMeta,
           [&](const auto& l) { log_forward(c, l, w.log_z.data(), w.narrow.data(), nullptr); });

    Sums first = zeros();
    for (int64_t i = 0; i < b; i++) {
      close(w.log_z[i], exact[i].log_z, nats, "log Z", i);
      close(w.narrow[i], exact[i].log_z, 2e-6, "narrow log Z", i);
      add(first, i, weight[i], exact[i]);
    }

    Gradient d = gradient();
    Adjoint<T> a{weight.data(), w.g.data(), d.unary.data(), w.redo.data()};
    if (size) {
      if (size == 1 || size == o.n / 3 + 1) from_chart(w, chunks.cut);
      chunk_ends(c, s, chunks.cut, nullptr);
      backward(c, s, a, chunks.cut, nullptr);
      backward(c, s, a, chunks.again, nullptr);
    } else {
      backward(c, s, a, uncut(c), nullptr);
    }
    if (size) check_lost(chunks, w.redo.data(), 1);
    left.insert(left.end(), w.redo.data(), w.redo.data() + b);
    check_entries(w, w.g, w.redo.data(), 1);
    edges(c, s, a, d.sums, nullptr);
    ranges(w.redo.data(), 1, [&](const auto& l) {
      log_forward<T>(c, l, nullptr, nullptr, nullptr);
      log_backward(c, l, weight.data(), d.unary.data(), nullptr);
      log_edges(c, l, d.sums, weight.data(), nullptr);
    });
    finish(d);
    compare(d, first, probability, "gradient");
    w.check(), chunks.check();
    return left;
  }
  // Chunks of items that stay where they are, which scores as far apart as in some cases alone may make lost.
  void check_lost(Chunks<T>& chunks, const T* left, int stride) {
    for (int64_t q = 0; q < chunks.lost.size(); q++) {
      const int64_t item = q / chunks.cut.count;
      const bool may = left[item * stride] != T(0) || (kinds[item] == kWide && o.scale > 2);
      require(chunks.lost[q] == 0 || (may && chunks.lost[q] == 1), "whether a chunk is lost");
    }
  }
  // Of wide items, in a row that counts as right: before it was scaled no entry was below `tiny` and the largest below
  // 4 k, so none that is left is below tiny / (4 k).
  void check_products(Chunks<T>& chunks) {
    for (int64_t e = 0; e < chunks.product.size(); e++) {
      const int64_t row = e / o.k, chunk = row / o.k, q = chunk % chunks.cut.count, item = chunk / chunks.cut.count;
      const bool used = q * chunks.cut.size < len(item) && (q > 0 || row % o.k == 0);
      if (!used || chunks.kind[item] != kWide || std::isnan(chunks.exponent[row])) continue;
      const T x = chunks.product[e];
      require(x == T(0) || x >= Range<T>::tiny / (4 * o.k), "a small entry of a product");
    }
  }
  // Products once more, where only the chart is left of the forward pass.
  void from_chart(Workspace<T>& w, const Cut<T>& cut) {
    std::fill(w.code.data(), w.code.data() + w.code.size(), kPlain);
    std::fill(w.row_exponent.data(), w.row_exponent.data() + w.row_exponent.size(), T(0));
    chunk_products(c, w.s, cut, nullptr);
  }

  // The difference of exact marginals moved along v and against it.
  void second_order() {
    const int64_t part = (b + 1) / 2 * o.n * o.k;
    Gradient h = gradient();
    std::memset(h.partial.data(), 0, h.partial.size() * sizeof(double));
    std::memset(static_cast<void*>(h.edges.data()), 0, h.edges.size() * sizeof(T));
    Guarded<double> prefix(part), suffix(part), mean(b);
    Guarded<T> mean_narrow(b);
    const Chain<T> v = chain(v_unary, v_transition, v_initial, v_final);
    ranges(nullptr, 1, [&](const auto& l) {
      const Tangent<T> t{v.unary,       v.transition,  v.initial,          v.final,       o.per_step,
                         v.matrix,      v.initial_row, v.final_row,        weight.data(), prefix.data(),
                         suffix.data(), mean.data(),   mean_narrow.data(), h.unary.data()};
      log_forward<T>(c, l, nullptr, nullptr, nullptr);
      log_backward<T>(c, l, nullptr, nullptr, nullptr);
      tangent(c, l, t, nullptr);
      tangent_edges(c, l, t, h.sums, nullptr);
    });
    finish(h);
    Sums second = zeros();
    for (int64_t i = 0; i < b; i++) {
      const double step = 1e-5;
      const Posterior up = posterior(scores(i, step)), down = posterior(scores(i, -step));
      add(second, i, weight[i] / (2 * step), up);
      add(second, i, -weight[i] / (2 * step), down);
      if (std::isfinite(up.log_z)) close(mean[i], (up.log_z - down.log_z) / (2 * step), 1e-5, "E f", i);
      close(mean_narrow[i], mean[i], 1e-6, "narrow E f", i);
    }
    compare(h, second, 1e-5, "second order");
    for (Guarded<double>* x : {&prefix, &suffix, &mean}) x->check("workspace");
  }

  void choose(Workspace<T>& w) {
    Guarded<int> from(b * o.n * o.k);
    Guarded<int64_t> best(b * o.n), drawn(kSamples * b * o.n);
    const uint64_t seed = o.made == kTail ? kTopSeed : kSeed;
    run_argmax(c, from.data(), best.data(), nullptr);
    run_sample(c, w.s, seed, kSamples, drawn.data(), nullptr);
    ranges(w.meta.data() + 1, kMeta, [&](const auto& l) {
      log_forward<T>(c, l, nullptr, nullptr, nullptr);
      run_log_sample(c, l, seed, kSamples, drawn.data(), nullptr);
    });
    auto same = [&](int64_t i, const int64_t* found, const std::vector<int64_t>& path, const char* what) {
      for (int t = 0; t < o.n; t++)
        require(found[t] == (t < int(path.size()) ? path[t] : -1), what + std::string(" of item ") + std::to_string(i));
    };
    for (int64_t i = 0; i < b; i++) {
      same(i, best.data() + i * o.n, best_path(scores(i)), "best path");
      for (int q = 0; q < kSamples; q++) {
        const bool possible = exact[i].log_z > -HUGE_VAL;
        same(i, drawn.data() + (q * b + i) * o.n,
             possible ? sample_path<T>(scores(i), exact[i], seed, uint32_t(i), uint32_t(q)) : std::vector<int64_t>(),
             "sample");
      }
    }
    from.check("from"), best.check("best"), drawn.check("samples");
  }
};

const Case kCases[] = {
    {"partly shared", {2, 3}, {2, 1}, 5, 5, false, 0, 1, 2},
    {"shared", {9}, {1}, 4, 3, false, 0, 1, 3},
    {"holes", {4}, {4}, 6, 9, false, 0.25, 1},
    {"per step", {4}, {4}, 4, 9, true, 0.2, 1},
    {"per step shared", {4}, {1}, 3, 34, true, 0, 1, 2, kHopperShared, true, false},
    {"long", {3}, {1}, 70, 6, false, 0, 0.5, 1, kHopperShared, false},
    {"on the brink", {9}, {1}, 12, 20, false, 0.1, 9, 2},
    {"log space", {5}, {1}, 5, 7, false, 0.1, 60, 2},
    {"log space per step", {4}, {4}, 5, 6, true, 0.1, 60},
    {"log space, large", {2}, {1}, 3, 70, false, 0, 40, 1, kHopperShared, false},
    {"impossible", {4}, {4}, 5, 4, false, 0.75, 1, 1, kHopperShared, false},
    {"a warp and one", {2}, {1}, 35, 33, false, 0, 1, 1, kHopperShared, false, false},
    {"not resident", {2}, {2}, 4, 50, false, 0, 1, 1, 9000, false},
    {"large", {2}, {1}, 3, 250, false, 0, 1, 1, kHopperShared, false},
    {"one state", {3}, {3}, 3, 1, false, 0, 1},
    {"one state, many steps", {3}, {3}, 9, 1, false, 0, 1},
    {"whole tiles", {2, 2}, {2, 1}, 4, 32, false, 0.1, 1, 2},
    {"no padding in shared memory", {3}, {3}, 3, 40, false, 0, 1},
    {"ties", {2}, {1}, 4, 34, false, 0, 0, 1, kHopperShared, false, false},
    {"ties of some", {4}, {1}, 40, 34, false, 0.5, 0, 1, kHopperShared, false, false},
    // differences of which one is not in the range of exp
    {"far apart", {24}, {1}, 5, 7, false, 0.1, 3000, 2},
    {"far apart, large", {2}, {1}, 3, 70, false, 0, 700, 1, kHopperShared, false},
    {"far apart, impossible", {4}, {4}, 5, 4, false, 0.75, 700},
    {"far from 0", {16}, {1}, 60, 9, false, 0, 1, 1, kHopperShared, false, true, 1, -1, 3e3},
    {"every rung", {2, 3}, {1, 3}, 6, 9, false, 0, 1, 1, kHopperShared, true, true, 6, 25},
    {"every rung per step", {2, 3}, {1, 3}, 6, 9, true, 0.1, 1, 1, kHopperShared, true, true, 6, 25},
    {"mild at most", {3}, {1}, 6, 20, false, 0, 3.4, 1, kHopperShared, false, false, 1, 20},
    {"mild no more", {3}, {1}, 6, 20, false, 0, 3.49, 1, kHopperShared, false, false, 1, 1},
    {"thin", {4}, {1}, 6, 2, false, 0, 1, 1, kHopperShared, false, false, 1, 30},
    {"small backward alone", {30}, {30}, 6, 3, false, 0.2, 9},
    {"wide at most", {16}, {1}, 12, 20, false, 0.1, 6, 1, kHopperShared, true, false, 1, 4},
    {"not a number", {2, 3}, {2, 1}, 4, 9, false, 0, 1, 1, kHopperShared, false, true, 1, -1, 0, NAN},
    {"too wide in one step", {2, 3}, {2, 1}, 4, 9, true, 0, 1, 1, kHopperShared, false, true, 1, -1, 0, -3000},
    {"mild but for one entry", {2}, {2}, 2, 20, false, 0, 0, 1, kHopperShared, false, false, 1, 1, 0, 0, kBrink},
    {"infinite", {2, 3}, {2, 1}, 4, 9, false, 0, 1, 1, kHopperShared, false, true, 1, -1, 0, HUGE_VAL},
#if !defined(SLV_PTX)  // where noise is on the exponentials, whose last digits count here
    {"sums lose what is drawn", {1}, {1}, 1, 256, false, 0, 1, 1, kHopperShared, false, false, 1, 1, 0, 0, kTail},
#endif
#if defined(SLV_PTX)  // rows begin at sectors: what ptx/ counts of accesses to memory, it counts of these
    {"aligned", {2}, {1}, 4, 64, false, 0, 1, 1, kHopperShared, false},
    {"aligned, not resident", {2}, {2}, 3, 64, false, 0, 1, 1, 9000, false},
    {"aligned, per step", {2}, {2}, 3, 64, true, 0, 1, 1, kHopperShared, false},
    {"aligned, log space", {2}, {1}, 3, 64, false, 0, 60, 1, kHopperShared, false},
#endif
};

}  // namespace

int main(int argc, char** argv) {
  return check_kernels(
      "chain", argc, argv, kCases, [](const Case& o, auto t) { Check<decltype(t)>(o).run(); },
      [](const Case& o) { return o.k <= 9 && o.n <= 12 && product(o.batch) <= 9; },
      [](const Case& o) { return o.shared; });
}
