/* The vector vocabulary of the instruction set that a *.isa.c is compiled for. */
#if defined(__AVX512F__)
#include "backend/cpu/kernels/vec_avx512.h"
#elif defined(__AVX2__)
#include "backend/cpu/kernels/vec_avx2.h"
#else
#include "backend/cpu/kernels/vec_neon.h"
#endif
