// The factorial chain's kernels, compiled for the GPU.
#include "cuda/factorial_instances.h"
