// The chain's kernels, compiled for the emulator.
#include "cuda/chain_instances.h"
