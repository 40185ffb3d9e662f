/* dispatch.c: overwrites the table of kernels with the fastest that the given CPU features allow.
 * Keeps nothing. The build defines HAVE_X86_* for the sets of kernels that it compiled; elsewhere
 * the reference stays.
 */
#include "x86.h"

#include "../../lib/base/base.h"

void kernels_x86(struct kernels *k, uint32_t cpu_features)
{
    (void)k;
    if (!(cpu_features & CPU_AVX2))
        return;
#ifdef HAVE_X86_FLOAT_AVX2
    x86_float_avx2(k);
    x86_attention_avx2(k);
#endif
#ifdef HAVE_X86_Q8_AVX2
    x86_q8_avx2(k);
#endif
    if (!(cpu_features & CPU_AVX512))
        return;
#ifdef HAVE_X86_FLOAT_AVX512
    x86_float_avx512(k);
    x86_attention_avx512(k);
#endif
#ifdef HAVE_X86_ATTENTION_BF16
    if (cpu_features & CPU_BF16)
        x86_attention_bf16(k);
#endif
#ifdef HAVE_X86_Q8_AVX512
    if (cpu_features & CPU_VNNI)
        x86_q8_avx512(k);
#endif
#ifdef HAVE_X86_BF16_AVX512
    if (cpu_features & CPU_BF16)
        x86_bf16_avx512(k);
#endif
}
