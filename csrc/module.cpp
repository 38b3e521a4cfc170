// What is not a tensor: the version and the instruction set. Tensors go through the operators of csrc/ops, whose
// registration runs when this module is loaded.
#include <pybind11/pybind11.h>

#include "ops/dispatch.h"

PYBIND11_MODULE(_C, m, pybind11::mod_gil_not_used()) {
  m.doc() = "structlv native kernels";
  m.attr("version") = STRUCTLV_VERSION;
  m.def("cpu_capability", [] { return slv::kernels().name; }, "The instruction set in use: base, avx2 or avx512.");
  m.def("vector_bytes", [] { return slv::kernels().vector_bytes; }, "Width of its vectors in bytes.");
}
