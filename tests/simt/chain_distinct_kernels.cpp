// The kernel of paths without replacement, compiled for the emulator.
#include "cuda/chain_distinct_instances.h"
