/* The instruction sets of the processor we run on. */
#include "backend/cpu/kernels/kernels.h"

#ifdef __aarch64__
#include <sys/auxv.h>
#ifndef HWCAP_ASIMDDP
#define HWCAP_ASIMDDP (1 << 20)
#endif
#endif

/* What has AVX2 has F16C, which not every compiler can ask for. */
bool tn_isa_has(tn_isa isa) {
    if (isa == TN_ISA_REF) return true;
#if defined(__x86_64__)
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
    if (isa == TN_ISA_AVX2) return avx2;
    if (isa == TN_ISA_AVX512)
        return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx512vnni");
#elif defined(__aarch64__)
    if (isa == TN_ISA_NEON) return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#endif
    return false;
}

tn_isa tn_isa_best(void) {
    int isa = TN_ISA_COUNT - 1;
    while (!tn_isa_has((tn_isa)isa)) isa--;
    return (tn_isa)isa;
}

const char *tn_isa_name(tn_isa isa) {
    static const char *const names[TN_ISA_COUNT] = {"ref", "neon", "avx2", "avx512"};
    return names[isa];
}
