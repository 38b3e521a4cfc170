// Launches of the kernels that all grammars share.
#pragma once
#include "cuda/pcfg_tree.cuh"

namespace slv::cuda {

inline simt::Stream stream_of(Stream stream) { return static_cast<simt::Stream>(stream); }
inline int64_t cut(int64_t count, int64_t size) { return (count + size - 1) / size; }
// Blocks for a thread each.
inline int64_t blocks_for(int64_t threads) { return cut(threads, kLogThreads); }
// Threads of whole warps, for so many of them but at most a block.
inline int threads_for(int64_t wanted, int most) { return int(wanted < most ? 32 * cut(wanted, 32) : most); }

template <class T>
void run_finish(const Tree<T>& g, const double* inside, double* log_z, T* log_z_narrow, Stream stream) {
  simt::launch(pcfg_finish<T>, g.batch, 32, 0, stream_of(stream), g, inside, log_z, log_z_narrow);
}
template <class T>
void run_tops(const Tree<T>& g, const double* inside, const double* weight, double* top, double* nodes, Stream stream) {
  simt::launch(pcfg_tops<T>, g.batch, 32, 0, stream_of(stream), g, inside, weight, top, nodes);
}
template <class T>
void run_top_means(const Tree<T>& g, const Tree<T>& v, const double* nodes, const TreeMeans<T>& f, Stream stream) {
  simt::launch(pcfg_top_means<T>, g.batch, 32, 0, stream_of(stream), g, v, nodes, f);
}
template <class T>
void run_covariances(const Tree<T>& g, const Tree<T>& v, const TreeMeans<T>& f, double* nodes, double* words,
                     double* top, Stream stream) {
  const int64_t each = g.spans_of_item() * g.nt + int64_t(g.n) * g.t;
  simt::launch(pcfg_covariances<T>, blocks_for(g.batch * each), kLogThreads, 0, stream_of(stream), g, v, f, nodes,
               words, top);
}
template <class T>
void run_sum_items(const RowMap& rows, int64_t size, const double* from, T* out, Stream stream) {
  simt::launch(pcfg_sum_items<T>, blocks_for(rows.rows * size), kLogThreads, 0, stream_of(stream), rows, size, from,
               out);
}
template <class T>
void run_sum_spans(const Tree<T>& g, const RowMap& rows, int labels, const double* nodes, T* out, Stream stream) {
  simt::launch(pcfg_sum_spans<T>, blocks_for(int64_t(rows.rows) * g.n * g.n * labels), kLogThreads, 0,
               stream_of(stream), g, rows, labels, nodes, out);
}

}  // namespace slv::cuda
