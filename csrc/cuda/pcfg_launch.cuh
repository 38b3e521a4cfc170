// How many blocks and threads each kernel of dense rules gets: a function of the problem alone.
#pragma once
#include "cuda/pcfg_choose.cuh"
#include "cuda/pcfg_outside.cuh"
#include "cuda/pcfg_tree_launch.cuh"

namespace slv::cuda {

// A warp for every row of pairs of children, as far as a block goes.
template <class T>
int tree_threads(const Pcfg<T>& g) {
  const int64_t warps = (g.pairs() + 31) / 32;
  return int(warps < kLogThreads / 32 ? 32 * warps : kLogThreads);
}

template <class T>
void run_inside(const Pcfg<T>& g, const TreeSpace<T>& space, int width, Stream stream) {
  simt::launch(pcfg_inside<T, false>, space.count * (g.n - width + 1), tree_threads(g), 0, stream_of(stream), g, space,
               width);
}
template <class T>
void run_best(const Pcfg<T>& g, const TreeSpace<T>& space, int width, Stream stream) {
  simt::launch(pcfg_inside<T, true>, space.count * (g.n - width + 1), tree_threads(g), 0, stream_of(stream), g, space,
               width);
}
template <bool kTangent, class T>
void launch_outside(const Pcfg<T>& g, const TreeSpace<T>& space, const TreeMass& mass, const TreeTangent<T>& f,
                    int width, const RuleCounts& out, Stream stream) {
  const int warps = g.nt > g.t ? g.nt : g.t;
  simt::launch(pcfg_pairs<T, kTangent>, space.count * (g.n - width + 1), tree_threads(g), 0, stream_of(stream), g,
               space, mass, f, width);
  if (out.counts)
    simt::launch(pcfg_rules<T, kTangent>, blocks_for(out.pieces() * g.nt * g.pairs()), kLogThreads, 0,
                 stream_of(stream), g, space, mass, f, width, out);
  simt::launch(pcfg_children<T, kTangent>, space.count * g.n * (width - 1), 32 * (warps < 8 ? warps : 8), 0,
               stream_of(stream), g, space, mass, f, width);
}
template <class T>
void run_outside(const Pcfg<T>& g, const TreeSpace<T>& space, const TreeMass& mass, int width, const RuleCounts& out,
                 Stream stream) {
  launch_outside<false>(g, space, mass, TreeTangent<T>{}, width, out, stream);
}
template <class T>
void run_outside(const Pcfg<T>& g, const TreeSpace<T>& space, const TreeMass& mass, const TreeTangent<T>& f, int width,
                 const RuleCounts& out, Stream stream) {
  launch_outside<true>(g, space, mass, f, width, out, stream);
}
template <class T>
void run_means(const Pcfg<T>& g, const TreeSpace<T>& space, const TreeTangent<T>& f, int width, Stream stream) {
  simt::launch(pcfg_means<T>, space.count * (g.n - width + 1), tree_threads(g), 0, stream_of(stream), g, space, f,
               width);
}
template <class T>
void run_argmax(const Pcfg<T>& g, const double* best, int64_t* events, Stream stream) {
  simt::launch(pcfg_argmax<T>, blocks_for(32 * g.batch), kLogThreads, 0, stream_of(stream), g, best, events);
}
template <class T>
void run_sample(const Pcfg<T>& g, const double* inside, uint64_t seed, int64_t first, int64_t samples, double* memory,
                int64_t* events, Stream stream) {
  simt::launch(pcfg_sample<T>, blocks_for(32 * samples * g.batch), kLogThreads, 0, stream_of(stream), g, inside, seed,
               first, samples, memory, events);
}

}  // namespace slv::cuda
