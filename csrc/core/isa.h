// A translation unit of kernels is compiled once per instruction set, which SLV_ISA names. Only the getter of its table
// of kernels has a name outside: SLV_GETTER(kernels) is kernels_avx2 and so on.
#pragma once

#define SLV_CONCAT_(a, b) a##_##b
#define SLV_CONCAT(a, b) SLV_CONCAT_(a, b)
#define SLV_GETTER(name) SLV_CONCAT(name, SLV_ISA)
#define SLV_STRING_(x) #x
#define SLV_STRING(x) SLV_STRING_(x)
