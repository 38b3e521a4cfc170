// The kernel of paths without replacement, compiled for the GPU.
#include "cuda/chain_distinct_instances.h"
