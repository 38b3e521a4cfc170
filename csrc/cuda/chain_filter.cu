// The kernels of filtering and relaxed sampling, compiled for the GPU.
#include "cuda/chain_filter_instances.h"
