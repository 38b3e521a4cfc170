// The PCFG's kernels, compiled for the emulator.
#include "cuda/pcfg_instances.h"
