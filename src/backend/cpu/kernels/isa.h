/* One source, several instruction sets: a file NAME.isa.c is compiled once per set with -DTN_ISA=avx2, avx512 or neon, and
 * its public functions get that suffix: TN_ISA_NAME(tn_add) is tn_add__avx2 and so on. */
#ifndef TN_CPU_ISA_H
#define TN_CPU_ISA_H

#define TN_ISA_JOIN_(f, isa) f##__##isa
#define TN_ISA_JOIN(f, isa)  TN_ISA_JOIN_(f, isa)
#define TN_ISA_NAME(f)       TN_ISA_JOIN(f, TN_ISA)

/* The function of that name for an instruction set of this architecture. */
#if defined(__x86_64__)
#define TN_ISA_FIND(f, isa) ((isa) == TN_ISA_AVX512 ? f##__avx512 : (isa) == TN_ISA_AVX2 ? f##__avx2 : f##__ref)
#elif defined(__aarch64__)
#define TN_ISA_FIND(f, isa) ((isa) == TN_ISA_NEON ? f##__neon : f##__ref)
#else
#define TN_ISA_FIND(f, isa) ((void)(isa), f##__ref)
#endif

/* Helpers whose arguments must become constants of the caller. */
#define TN_INLINE static inline __attribute__((always_inline))

/* Before a loop of at most 16 constant rounds that must become straight code, so that its arrays live in registers.
 */
#ifdef __clang__
#define TN_UNROLL _Pragma("clang loop unroll(full)")
#else
#define TN_UNROLL _Pragma("GCC unroll 16")
#endif

#endif
