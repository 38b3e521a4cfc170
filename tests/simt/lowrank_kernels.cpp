// The low-rank PCFG's kernels, compiled for the emulator.
#include "cuda/lowrank_instances.h"
