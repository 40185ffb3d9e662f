/* cpu.c: which instruction sets may be used: the processor must have them and the operating system
 * must save their registers. Owns nothing, keeps nothing. */
#include "base.h"

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>

/* The state components that the operating system saves. */
static uint64_t saved_state(void)
{
    uint32_t low, high;

    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

static bool has_all(uint32_t word, uint32_t bits)
{
    return (word & bits) == bits;
}

uint32_t cpu_detect(void)
{
    const uint64_t ymm = 0x06, zmm = 0xe6;
    const uint32_t osxsave = 1u << 27, avx = 1u << 28, fma = 1u << 12, f16c = 1u << 29;
    const uint32_t bmi1 = 1u << 3, avx2 = 1u << 5, bmi2 = 1u << 8;
    const uint32_t avx512_f = 1u << 16, avx512_dq = 1u << 17, avx512_bw = 1u << 30,
                   avx512_vl = 1u << 31;
    uint32_t a, b, c, d, found;
    uint64_t state;

    if (!__get_cpuid(1, &a, &b, &c, &d) || !has_all(c, osxsave | avx | fma | f16c))
        return 0;
    state = saved_state();
    if ((state & ymm) != ymm || !__get_cpuid_count(7, 0, &a, &b, &c, &d) ||
        !has_all(b, bmi1 | avx2 | bmi2))
        return 0;
    found = CPU_AVX2;
    if ((state & zmm) != zmm || !has_all(b, avx512_f | avx512_dq | avx512_bw | avx512_vl))
        return found;
    found |= CPU_AVX512;
    if (c & 1u << 11)
        found |= CPU_VNNI;
    if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 5))
        found |= CPU_BF16;
    return found;
}

#else

uint32_t cpu_detect(void)
{
    return 0;
}

#endif
