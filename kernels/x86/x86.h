/* x86.h: the x86 kernels' own interface. Each file is compiled for one instruction set and
 * overwrites, in the table, what it has faster; dispatch.c calls them in rising order after asking
 * which instructions the CPU has. Nothing but these functions is visible between the files of
 * different sets: a shared inline function could be emitted with instructions that an older CPU
 * lacks.
 */
#ifndef GLM_KERNELS_X86_H
#define GLM_KERNELS_X86_H

#include "../kernels.h"

/* Floats: vectors, decoding, matmul_f32, swiglu_f32; matmul_bf16, swiglu_bf16, round_bf16. */
void x86_float_avx2(struct kernels *k);
void x86_float_avx512(struct kernels *k);
/* kv_store, attention, attention_merge. */
void x86_attention_avx2(struct kernels *k);
void x86_attention_avx512(struct kernels *k);
void x86_attention_bf16(struct kernels *k);
/* Integer dot products: matmul_q8, swiglu_q8. The second needs AVX-512 and VNNI. */
void x86_q8_avx2(struct kernels *k);
void x86_q8_avx512(struct kernels *k);
/* matmul_bf16, swiglu_bf16, round_bf16; needs AVX-512 and BF16. */
void x86_bf16_avx512(struct kernels *k);

#endif
