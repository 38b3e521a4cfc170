// The factorial chain's kernels, compiled for the emulator.
#include "cuda/factorial_instances.h"
