/* table.c: the reference kernels as a table, and the scratch that any implementation may use. */
#include "ref.h"

void kernels_ref(struct kernels *k)
{
    *k = (struct kernels){
        .decode_row = ref_decode_row,
        .matmul_f32 = ref_matmul_f32,
        .swiglu_f32 = ref_swiglu_f32,
        .matmul_q8 = ref_matmul_q8,
        .swiglu_q8 = ref_swiglu_q8,
        .quantize_q8 = ref_quantize_q8,
        .matmul_bf16 = ref_matmul_bf16,
        .swiglu_bf16 = ref_swiglu_bf16,
        .round_bf16 = ref_round_bf16,
        .rms_norm = ref_rms_norm,
        .rope = ref_rope,
        .dot = ref_dot,
        .add = ref_add,
        .axpy = ref_axpy,
        .kv_store = ref_kv_store,
        .attention = ref_attention,
        .attention_merge = ref_attention_merge,
    };
}

/* The largest user is a panel of decoded rows: 16 outputs of gate and 16 of up as float32, with
 * packed activations; and sums of a block of rows. */
size_t k_scratch_bytes(uint32_t n_in_max)
{
    return 64 * 4 * (size_t)n_in_max + 131072;
}

/* A page of keys and one of values as float32; of 16 rows' query heads the scores of a page, the query,
 * the sums in whole vectors, and a few numbers. */
size_t k_attention_scratch_bytes(uint32_t d_head, uint32_t n_q)
{
    size_t columns = ((size_t)d_head + 31) & ~(size_t)31;
    return sizeof(float) *
               (2 * KV_PAGE * columns + 16 * (KV_PAGE + 4 + 2 * columns) * (size_t)n_q) +
           65536;
}
