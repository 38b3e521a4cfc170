// The kernels of filtering and relaxed sampling, compiled for the emulator.
#include "cuda/chain_filter_instances.h"
