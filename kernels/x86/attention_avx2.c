/* attention_avx2.c: the attention kernels of attention.h, compiled for AVX2 with FMA and F16C. */
#include "attention.h"

void x86_attention_avx2(struct kernels *k)
{
    k->kv_store = kv_store;
    k->attention = attention;
    k->attention_merge = attention_merge;
}
