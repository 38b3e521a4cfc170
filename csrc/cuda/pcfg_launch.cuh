// How many blocks and threads each kernel of the PCFG gets: a function of the problem alone.
#pragma once
#include "cuda/pcfg_outside.cuh"

namespace slv::cuda {

inline simt::Stream stream_of(Stream stream) { return static_cast<simt::Stream>(stream); }
// A warp for every row of pairs of children, as far as a block goes.
template <class T>
int tree_threads(const Pcfg<T>& g) {
  const int64_t warps = (g.pairs() + 31) / 32;
  return int(warps < kLogThreads / 32 ? 32 * warps : kLogThreads);
}

// Blocks for a thread each.
inline int64_t blocks_for(int64_t threads) { return (threads + kLogThreads - 1) / kLogThreads; }

template <class T>
void run_inside(const Pcfg<T>& g, const TreeSpace<T>& space, int width, Stream stream) {
  simt::launch(pcfg_inside<T>, space.count * (g.n - width + 1), tree_threads(g), 0, stream_of(stream), g, space, width);
}
template <class T>
void run_finish(const Pcfg<T>& g, const double* inside, double* log_z, T* log_z_narrow, Stream stream) {
  simt::launch(pcfg_finish<T>, g.batch, 32, 0, stream_of(stream), g, inside, log_z, log_z_narrow);
}
template <class T>
void run_tops(const Pcfg<T>& g, const double* inside, const TreeMass& mass, Stream stream) {
  simt::launch(pcfg_tops<T>, g.batch, 32, 0, stream_of(stream), g, inside, mass);
}
template <class T>
void run_outside(const Pcfg<T>& g, const TreeSpace<T>& space, const TreeMass& mass, int width, const RowMap& rows,
                 double* counts, Stream stream) {
  const int warps = g.nt > g.t ? g.nt : g.t;
  simt::launch(pcfg_pairs<T>, space.count * (g.n - width + 1), tree_threads(g), 0, stream_of(stream), g, space, mass,
               width);
  if (counts)
    simt::launch(pcfg_rules<T>, blocks_for(rows.rows * g.nt * g.pairs()), kLogThreads, 0, stream_of(stream), g, space,
                 mass, width, rows, counts);
  simt::launch(pcfg_children<T>, space.count * g.n * (width - 1), 32 * (warps < 8 ? warps : 8), 0, stream_of(stream), g,
               space, mass, width);
}
template <class T>
void run_sum_items(const RowMap& rows, int64_t size, const double* from, T* out, Stream stream) {
  simt::launch(pcfg_sum_items<T>, blocks_for(rows.rows * size), kLogThreads, 0, stream_of(stream), rows, size, from,
               out);
}
template <class T>
void run_sum_spans(const Pcfg<T>& g, const RowMap& rows, int labels, const double* nodes, T* out, Stream stream) {
  simt::launch(pcfg_sum_spans<T>, blocks_for(int64_t(rows.rows) * g.n * g.n * labels), kLogThreads, 0,
               stream_of(stream), g, rows, labels, nodes, out);
}

}  // namespace slv::cuda
