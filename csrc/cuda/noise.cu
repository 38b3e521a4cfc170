// The kernel of noise, compiled for the GPU.
#include "cuda/noise_instances.h"
