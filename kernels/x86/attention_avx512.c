/* attention_avx512.c: the attention kernels of attention.h, compiled for AVX-512. */
#include "attention.h"

void x86_attention_avx512(struct kernels *k)
{
    k->kv_store = kv_store;
    k->attention = attention;
    k->attention_merge = attention_merge;
}
