/* attention_bf16.c: the attention kernels of attention.h, compiled for AVX-512 with BF16. */
#include "attention.h"

void x86_attention_bf16(struct kernels *k)
{
    k->kv_store = kv_store;
    k->attention = attention;
    k->attention_merge = attention_merge;
}
