// The backward pass in the scaled linear domain, from the chart of the forward pass: one block for each item, or for
// each chunk of its steps (chain_chunks.cuh).
//   g_t = e_t beta_t s_t      beta_t = P g_t+1      from beta_len-1 = 1 / Z
// so that alpha_t beta_t are the marginals, and alpha_t P g_t+1 the weights of edges (chain_edges.cuh).
#pragma once
#include "cuda/adjoint_step.cuh"
#include "cuda/chain_scan.cuh"

namespace slv::cuda {

template <class T, class P>
SLV_KERNEL(kMaxThreads)
chain_backward(Chain<T> c, Scaled<T> s, Adjoint<T> a, Cut<T> cut, int width) {
  Shared shared;
  const Thread me;
  const Chunk chunk(c, cut, blockIdx.x);
  const int64_t b = chunk.item;
  const int k = c.k;
  const Item<T> item(c, b);
  T* rows = shared.take<T>(2 * k);  // g of this step and of the one after
  T* parts = shared.take<T>(kMaxWarps);
  AdjointStep<T> step(shared);
  const T weight = T(a.weight ? a.weight[b] : 1.0);
  const bool redo = s.meta[b * kMeta + 1] != T(0);
  if (!chunk.asked) return;
  const int padding = chunk.first > item.len ? chunk.first : item.len;
  const int stop = c.n - chunk.first < cut.size ? c.n : chunk.first + cut.size;
  for (int64_t e = int64_t(padding) * k + me.index; e < int64_t(stop) * k; e += blockDim.x)
    a.unary[b * c.n * k + e] = 0;
  if (redo || item.len == 0 || chunk.beyond(item.len)) {
    if (me.index > 0) return;
    if (cut.lost) cut.lost[chunk.index] = 0;
    if (chunk.first == 0) a.redo[b] = T(redo);
    return;
  }
  step.wide = (cut.kind ? cut.kind[b] : kind_of(c, s, item, me)) != kMild;
  P matrix(c, s, item, me, shared);
  // beta of the last step lies where g of the one after would: of a chunk that others follow, made of what is at its
  // end
  T* beta = rows + chunk.end % 2 * k;
  T inverse = s.meta[b * kMeta];
  const T* edge = chunk.end < item.len ? cut.edge + chunk.index * k : nullptr;
  if (edge) {
    T mass = 0;
    for (int i = me.index; i < k; i += int(blockDim.x))
      mass += s.alpha[(b * c.n + chunk.end - 1) * width + i] * edge[i];
    mass = warp_sum(mass);
    if (me.lane == 0) parts[me.warp] = mass;
    sync_block();
    mass = sum_of_parts(parts, me.warps);
    inverse = mass > T(0) ? 1 / mass : T(0);
    step.bad = !(cut.taken[chunk.index] == cut.taken[chunk.index]);
  }
  for (int i = me.index; i < k; i += int(blockDim.x)) beta[i] = edge ? inverse * edge[i] : inverse;
  // no barrier: the last step needs no matrix
  for (int t = chunk.end - 1; t >= chunk.first; t--) {
    const int64_t row = b * c.n + t;
    const T *e = s.e + row * width, *alpha = s.alpha + row * width, scale = s.scale[row];
    const T* after = rows + (t + 1) % 2 * k;
    T* now = rows + t % 2 * k;
    auto put = [&](int i, T sum) {
      T mu;
      now[i] = step.meet(alpha[i], sum * step.factor, e[i], scale, mu);
      a.g[row * width + i] = now[i];
      a.unary[row * k + i] = mu * weight;
    };
    if (t == chunk.end - 1) {
      for (int i = me.index; i < k; i += int(blockDim.x)) put(i, after[i]);
    } else {
      matrix.at(t);
      times_rows(me, k, after, matrix, put);
    }
    step.finish(me, t);
  }
  const bool bad = sync_block_or(step.bad);
  if (me.index > 0) return;
  if (cut.lost) cut.lost[chunk.index] = bad;
  if (chunk.first == 0) a.redo[b] = T(bad);
}

}  // namespace slv::cuda
