// Where an operator's kernels run: the device of its tensors, and torch's current stream there.
#pragma once
#include <dlfcn.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

namespace slv::cuda {

#if defined(SLV_EMULATE)

struct OnDevice {
  explicit OnDevice(const torch::stable::Tensor&) {}
  void* stream() const { return nullptr; }
};

#else

// Makes the tensor's device the current one while it lives. The stream is asked of libtorch_cuda, which a build against
// the CPU's torch does not link: it is looked up among the libraries that torch has loaded.
class OnDevice {
 public:
  explicit OnDevice(const torch::stable::Tensor& x) : index_(x.get_device_index()), guard_(index_) {}
  void* stream() const {
    using Ask = int32_t (*)(int32_t, void**);
    static const Ask ask = [] {
      void* library = dlopen("libtorch_cuda.so", RTLD_NOLOAD | RTLD_LAZY);
      return library ? reinterpret_cast<Ask>(dlsym(library, "aoti_torch_get_current_cuda_stream")) : nullptr;
    }();
    STD_TORCH_CHECK(ask, "structlv: the CUDA kernels need a torch with CUDA");
    void* found = nullptr;
    STD_TORCH_CHECK(ask(index_, &found) == 0, "structlv: torch did not say which stream is current");
    return found;
  }

 private:
  int32_t index_;
  torch::stable::accelerator::DeviceGuard guard_;
};

#endif

}  // namespace slv::cuda
