// The low-rank PCFG's kernels, compiled for the GPU.
#include "cuda/lowrank_instances.h"
