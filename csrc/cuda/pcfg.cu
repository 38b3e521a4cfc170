// The PCFG's kernels, compiled for the GPU.
#include "cuda/pcfg_instances.h"
