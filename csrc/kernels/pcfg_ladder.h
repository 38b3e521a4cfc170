// The ladder of precision for the PCFG: blocks of sentences in the input's own precision, those that do not fit its
// range one by one in float64, and what does not fit that in exact log space (NUMERICS, section 2).
#pragma once

#include "kernels/pcfg_log_outside.h"
#include "kernels/pcfg_scan.h"

namespace slv {
namespace {

// A block of one item with a chart of its own.
template <class In, class T>
struct PcfgItem {
  PcfgBlock<In, T> block;
  Scratch memory;
  BlockChart<T> chart;
  PcfgItem(const Pcfg<In>& c, const int64_t* item)
      : block(c, item, 1),
        memory(std::max(block.forward_scratch(), block.backward_scratch()) + Scratch::bytes<T>(size(c, item))),
        chart(memory.take<T>(size(c, item)), block.z, c.len(*item), 1) {}
  bool forward(bool save, double* log_z) {  // whether this rung did it
    char* mark = memory.mark();
    block.forward(memory, chart, save, log_z);
    memory.release(mark);
    return chart.redone(0) == T(0);
  }

 private:
  static int64_t size(const Pcfg<In>& c, const int64_t* item) { return pcfg_chart_size<T>(c.len(*item), c.nt, c.t); }
};

template <class In>
void forward_item(const Pcfg<In>& c, int64_t item, double* log_z) {
  if constexpr (sizeof(In) == 4) {
    PcfgItem<In, double> one(c, &item);
    if (one.forward(false, log_z)) return;
  }
  log_z[item] = pcfg_log_partition_log(c, item);
}

template <class In>
void marginals_item_log(const Pcfg<In>& c, int64_t item, double weight, const PcfgBlockSink<In>& sink) {
  const int64_t spans = c.n * c.n * sink.labels, rules = c.rules_size();
  Doubles sum(sink.rules && sink.add ? rules : 0);
  pcfg_marginals_log(c, item, weight,
                     PcfgSink<In>{sink.root + item * c.nt, sink.unary + item * c.n * c.t,
                                  sink.add ? nullptr : sink.rules, sum.empty() ? nullptr : sum.data(),
                                  sink.spans ? sink.spans + item * spans : nullptr, nullptr, sink.labels});
  for (size_t e = 0; e < sum.size(); e++) sink.rules[e] += In(sum[e]);
}
// An item by itself, from its potentials. `apart`: its weight did not fit its block, its range may
template <class In>
void marginals_item(const Pcfg<In>& c, int64_t item, double weight, bool apart, const PcfgBlockSink<In>& sink) {
  Doubles log_z(c.batch);
  if (apart || sizeof(In) == 4) {
    PcfgItem<In, double> one(c, &item);
    if (one.forward(true, log_z.data())) return one.block.backward(one.memory, one.chart, &weight, sink);
  }
  marginals_item_log(c, item, weight, sink);
}

template <class In>
void pcfg_forward(const Pcfg<In>& c, const int64_t* items, int64_t count, In* chart, double* log_z) {
  Vector<int64_t> again;
  {
    PcfgBlock<In, In> block(c, items, count);
    const int64_t size = count * pcfg_chart_size<In>(c.n, c.nt, c.t);
    Scratch memory(block.forward_scratch() + Scratch::bytes<In>(chart ? 0 : size));
    const BlockChart<In> b(chart ? chart : memory.take<In>(size), block.z, c.n, count);
    block.forward(memory, b, chart != nullptr, log_z);
    for (int64_t q = 0; q < count; q++)
      if (b.redone(q) != In(0)) again.push_back(items[q]);
  }
  for (int64_t item : again) forward_item(c, item, log_z);
}

// Weights of very different size would lose the range of the smaller ones in sums over the block.
template <class In>
Vector<bool> set_apart(const Doubles& weight) {
  double most = 0;
  for (double w : weight) most = std::max(most, std::abs(w));
  Vector<bool> apart(weight.size());
  for (size_t q = 0; q < weight.size(); q++)
    apart[q] = weight[q] != 0 && std::abs(weight[q]) < most * (sizeof(In) == 4 ? 1e-6 : 1e-30);
  return apart;
}

// The backward pass of a block from its chart, and by themselves of the items that are not in it.
template <class In>
void backward_block(PcfgBlock<In, In>& block, Scratch& memory, const BlockChart<In>& chart, const Doubles& weight,
                    const PcfgBlockSink<In>& sink, Vector<int64_t>& again) {
  Doubles own = weight;
  const Vector<bool> apart = set_apart<In>(weight);
  for (int64_t q = 0; q < block.count; q++)
    if (apart[q] || chart.redone(q) != In(0)) again.push_back(q), own[q] = 0;
  if (int64_t(again.size()) < block.count || block.count > 1) block.backward(memory, chart, own.data(), sink);
}

template <class In>
void pcfg_backward(const Pcfg<In>& c, const int64_t* items, int64_t count, In* saved, const double* weights,
                   const PcfgBlockSink<In>& sink) {
  Doubles weight(count, 1.0), log_z(saved ? 0 : c.batch);
  for (int64_t q = 0; weights && q < count; q++) weight[q] = weights[items[q]];
  Vector<int64_t> again;
  {
    PcfgBlock<In, In> block(c, items, count);
    const int64_t size = count * pcfg_chart_size<In>(c.n, c.nt, c.t);
    Scratch memory((saved ? 0 : Scratch::bytes<In>(size)) +
                   std::max(block.backward_scratch(), saved ? 0 : block.forward_scratch()));
    const BlockChart<In> chart(saved ? saved : memory.take<In>(size), block.z, c.n, count);
    if (!saved) {
      char* mark = memory.mark();
      block.forward(memory, chart, true, log_z.data());
      memory.release(mark);
    }
    backward_block(block, memory, chart, weight, sink, again);
  }
  PcfgBlockSink<In> more = sink;
  more.add = sink.add || count > 1;
  for (int64_t q : again) marginals_item(c, items[q], weight[q], weights && count > 1, more);
}

}  // namespace
}  // namespace slv
