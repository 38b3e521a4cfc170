// The chain's kernels, compiled for the GPU.
#include "cuda/chain_instances.h"
