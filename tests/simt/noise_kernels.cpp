// The kernel of noise, compiled for the emulator.
#include "cuda/noise_instances.h"
