/* kernels.h: every operation on numbers, as one table of functions. The C table in kernels/ref defines what each means;
 * kernels/x86 fills faster ones over it, per CPU feature. Raw pointers and sizes in, no allocation, no engine types.
 *
 * One answer: each output element has one fixed order of arithmetic, written in its comment here and carried out bit for
 * bit by every implementation. It depends neither on how many rows run together, nor on how outputs or rows are split
 * over calls, nor on the instruction set. So fast kernels are compared with the reference by memcmp.
 *
 * Legend: rows are tokens; a matrix multiply is y[row, out] = sum over in of x[row, in] * w[out, in].
 * No pointer into weights is aligned; our own buffers are 64-byte aligned, rows of them too where said.
 */
#ifndef GLM_KERNELS_H
#define GLM_KERNELS_H

#include "../lib/base/weight.h"

#include <stdbool.h>

/* ---- activations quantized for integer dot products ------------------------------------------------------------------- */

/* Row r of Q8: int8 quants [n_in], then per block of 32 a float scale, then per 16 elements the int32 sum of the quants.
 * scale = max|x| / 127 of the block; q = round-half-even(x * (127 / max|x|)) (127.0f / max computed in float32, one
 * multiply an element); a block of zeros, or one with max|x| < 1e-30, has scale 0 and quants 0. n_in is a multiple of 32.
 * A NaN or infinity gives scale NaN, so that it shows in the result. */
static inline size_t q8_scale_at(uint32_t n_in) { return ((size_t)n_in + 63) & ~(size_t)63; }
static inline size_t q8_sum_at(uint32_t n_in) { return q8_scale_at(n_in) + (((size_t)n_in / 32 * 4 + 63) & ~(size_t)63); }
static inline size_t q8_row_bytes(uint32_t n_in) { return q8_sum_at(n_in) + (((size_t)n_in / 16 * 4 + 63) & ~(size_t)63); }

/* ---- activations rounded to bfloat16 ---------------------------------------------------------------------------------- */

/* A BF16 row holds the n_in activations rounded to bfloat16, nearest even, in the order that the multiplies of the same
 * table want: only they read it. bf16_row_bytes is what any of them may take; rows are 64-byte aligned. Rows one behind
 * another begin an odd number of cache lines apart, so that they do not fall into the same cache sets. */
static inline size_t bf16_row_bytes(uint32_t n_in)
{
    size_t lines = ((size_t)n_in + 31) / 32 * 2;
    return (lines + (81 - lines % 32) % 32) * 64;
}

/* Rows of activations, as a matrix multiply reads them. */
struct rows {
    const void *data;       /* float32, Q8 or BF16 rows */
    uint64_t stride;        /* bytes from row to row */
    const uint32_t *index;  /* row i of the multiply is row index[i] of data; NULL: row i */
    uint32_t n;
};

/* What is done with a finished sum v at y[row, out]. */
enum { MM_STORE = 0, MM_ADD = 1 }; /* y = v (+ bias); y = y + v */

struct matmul {
    const struct weight *w;
    struct rows x;
    const float *bias;      /* [n_out] f32 or NULL: y = v + bias[out] (MM_STORE only) */
    float *y;               /* y[i * y_stride + out], i the row of the multiply, out counted from the matrix's first */
    uint64_t y_stride;      /* floats */
    uint32_t mode;
    /* Hints, without an effect on results: */
    bool warm;              /* the thread's last call had these weights as its `next` */
    const void *next;       /* weights of the thread's next call, asked for while the last panel is computed; or NULL */
};

/* gate and up of one SwiGLU: y = silu(gate . x) * (up . x), silu(g) = g / (1 + exp(-g)) with k_exp below, order:
 * s = 1 / (1 + exp(-g)) by true division, y = (g * s) * u. */
struct swiglu {
    const struct weight *gate, *up; /* same shape; formats may differ */
    struct rows x;
    float *y;
    uint64_t y_stride;
    bool warm;              /* as in struct matmul */
    const void *next_gate, *next_up;
};

/* Bytes of scratch (64-byte aligned) that any matmul or swiglu call on matrices of up to n_in may use. */
size_t k_scratch_bytes(uint32_t n_in_max);

/* ---- attention -------------------------------------------------------------------------------------------------------------- */

enum kv_type { KV_F32 = 1, KV_BF16 = 2, KV_INT8 = 3, KV_F8 = 4 }; /* as GLM_KV_* */

/* KV pages hold KV_PAGE positions. In a page, one (layer, KV head): keys [KV_PAGE, d_head] then values [KV_PAGE, d_head]
 * of the KV type, then for int8 and fp8 one float scale per position for keys [KV_PAGE], then for values [KV_PAGE]. */
#define KV_PAGE 64u
static inline size_t kv_elem_bytes(uint32_t type) { return type == KV_F32 ? 4 : type == KV_BF16 ? 2 : 1; }
static inline size_t kv_head_bytes(uint32_t type, uint32_t d_head)
{
    size_t data = 2 * (size_t)KV_PAGE * d_head * kv_elem_bytes(type);
    size_t scale = type >= KV_INT8 ? 2 * KV_PAGE * sizeof(float) : 0;
    return (data + scale + 63) & ~(size_t)63;
}

/* Query heads of one KV head, for n_row rows, over one span of positions: partial softmax sums.
 * For each row r and query head j: positions p in [pos_begin, min(pos_end, pos[r] + 1)), page by page (a page begins at a
 * multiple of KV_PAGE; pos_begin is a multiple too). Within a page of n valid positions:
 *   s_p = k_dot(q, k_p) [* k_scale_p] * scale;  m' = max(m, max_p s_p);  c = exp(m - m') (0 where m is -inf)
 *   e_p = exp(s_p - m');  l = l * c + k_sum(e_0 .. e_63, missing ones 0);  o_i = o_i * c, then fma(e_p [* v_scale_p], v_pi, o_i)
 *   for p in order.
 * KV_BF16 multiplies bfloat16 numbers in pairs instead: q and e_p (before the sum l) are rounded to them, to nearest even,
 * exp of e_p is one short polynomial, in the reference, error <= 2^-17, exact 0 below -87.3;
 *   s_p = chain over i = 0, 2, .. of s = pair((q_i, q_i+1), (k_pi, k_pi+1), s) from 0, times scale;
 *   o_i = o_i * c, then chain over p = 0, 2, .. of o_i = pair((e_p, e_p+1), (v_pi, v_p+1,i), o_i);
 *   pair(a, b, c) = fma(a_0, b_0, fma(a_1, b_1, c)), where every number that goes into or comes out of an fma counts as a zero of
 *   its sign if it is smaller than the smallest normal one (judged after rounding): what x86's vdpbf16ps does. A missing second
 *   element or position is 0.
 * Out per (row, head): o [d_head], then l, then m: out[(r * n_q + j) * (d_head + 2)]. A row without positions gets o = 0,
 * l = 0, m = -inf. */
struct attention {
    uint32_t kv_type, d_head, n_q;   /* n_q: query heads per KV head */
    uint32_t n_row;
    float scale;                     /* d_head^-0.5 */
    const float *q;                  /* row r, head j at q + r * q_stride + j * d_head */
    uint64_t q_stride;               /* floats */
    const uint32_t *pos;             /* [n_row] position of each row, all in the same sequence */
    const void *const *page;         /* page[i]: this layer and KV head of positions [i * KV_PAGE, (i + 1) * KV_PAGE) */
    uint32_t pos_begin, pos_end;
    float *out;
    const void *next;                /* a hint: the first page of the thread's next call, or NULL */
};

/* ---- the table -------------------------------------------------------------------------------------------------------------- */

/* Dot products of floats, everywhere: 16 chains, chain j over elements i = j (mod 16) in order with fma from 0; then the
 * chains are added 8 apart, 4 apart, 2 apart, 1 apart (l[j] += l[j + 8] ...). Elements past the end count as absent. k_sum is
 * the same with plain adds. k_exp is one polynomial, in the reference, error <= 2 ulp, exact 0 below -87.3, inf above 88.7,
 * NaN for NaN. */
struct kernels {
    /* Weight row `row` as float32 [n_in], exactly as the format defines it. */
    void (*decode_row)(const struct weight *w, uint32_t row, float *out);

    /* Outputs [out_begin, out_end) for all rows of x (float32 rows): v = k_dot(x, decoded w). W_F8 and int4 decode element by
     * element (value times scale rounded to float32) like every other format. scratch: k_scratch_bytes. */
    void (*matmul_f32)(const struct matmul *mm, uint32_t out_begin, uint32_t out_end, void *scratch);
    void (*swiglu_f32)(const struct swiglu *sg, uint32_t out_begin, uint32_t out_end, void *scratch);

    /* The same on Q8 rows, for the ggml block formats. Per output one float chain over K, from 0: for each group of the
     * format's scale (32 elements; 16 for Q2_K, Q3_K, Q6_K) with integer sum S = sum(q_w * q_x) exact in int32,
     *   acc = fma((float)S, dw * dx, acc), dw the group's float32 scale (for K-quants d * sc rounded to float32; MXFP4 2^(e-128)
     *   with doubled integers as in its table; q_w the format's signed integer: Q4_0 n-8, Q8_0 q, IQ4_NL table, Q6_K v-32, ...);
     * formats with a minimum then do acc = fma(-(m), dx * (float)(sum of q_x over the group), acc), m the group's float32
     * minimum (Q4_1, Q5_1: w = d*n + m, so fma(m, ...)); dmin * m rounded to float32 for K-quants. */
    void (*matmul_q8)(const struct matmul *mm, uint32_t out_begin, uint32_t out_end, void *scratch);
    void (*swiglu_q8)(const struct swiglu *sg, uint32_t out_begin, uint32_t out_end, void *scratch);
    void (*quantize_q8)(const float *x, uint32_t n_in, void *row);

    /* The same on BF16 rows, for W_BF16, and for W_F8 with its scales taken behind the sums. Subnormal numbers are zeros here,
     * on the way in and out of every operation (x86's DAZ and FTZ, which flushes what is tiny after rounding). Inputs go in
     * blocks of F8's scale (block_in; W_BF16: all are one block). In a block are 16 chains; the pair of inputs 2p and 2p + 1,
     * counted from its first, belongs to chain p mod 16:
     *   a = fma(x[2p + 1], w[2p + 1], a), then a = fma(x[2p], w[2p], a), from 0
     * as vdpbf16ps does it; an input past the end counts as absent. Of W_F8 acc_j = fma(a_j, scale, acc_j) from 0 over the
     * blocks. The chains are then added as in k_dot. */
    void (*matmul_bf16)(const struct matmul *mm, uint32_t out_begin, uint32_t out_end, void *scratch);
    void (*swiglu_bf16)(const struct swiglu *sg, uint32_t out_begin, uint32_t out_end, void *scratch);
    void (*round_bf16)(const float *x, uint32_t n_in, void *row);

    /* y = x * rsqrt(mean(x^2) + eps) * w: sum of squares by k_dot(x, x), r = 1 / sqrtf(sum / n + eps), y = (x * r) * w. */
    void (*rms_norm)(const float *x, const float *w, uint32_t n, float eps, float *y);
    /* In place on one head: rotates pairs (i, i + n_rot / 2) by (c[i], s[i]): a' = a c - b s, b' = b c + a s, each as
     * fma(a, c, -(b * s)), fma(b, c, a * s). */
    void (*rope)(float *x, uint32_t n_rot, const float *c, const float *s);
    float (*dot)(const float *a, const float *b, uint32_t n); /* k_dot */
    void (*add)(float *y, const float *x, uint32_t n);        /* y += x */
    void (*axpy)(float *y, float a, const float *x, uint32_t n); /* y = fma(a, x, y) */
    /* One position of one KV head into its page; int8: scale = max|x| / 127, fp8: scale = max|x| / 448. */
    void (*kv_store)(uint32_t kv_type, uint32_t d_head, const float *k, const float *v, uint32_t slot, void *head);
    void (*attention)(const struct attention *a, void *scratch);
    /* Combines n_part partials of one (row, head), in order: m = max; o = sum o_i * exp(m_i - m), l likewise (skip m_i = -inf);
     * y = o / l. stride: floats between parts. */
    void (*attention_merge)(const float *part, uint32_t n_part, uint64_t stride, uint32_t d_head, float *y);
};

size_t k_attention_scratch_bytes(uint32_t d_head, uint32_t n_q);
bool k_has_q8(uint32_t format); /* formats that matmul_q8 takes */
bool k_has_bf16(const struct weight *w); /* matmul_bf16 takes it: W_BF16, W_F8 in blocks of whole 32 inputs */

void kernels_ref(struct kernels *k);                          /* all of it, in plain C */
void kernels_x86(struct kernels *k, uint32_t cpu_features);   /* overwrites what it has faster; CPU_* of lib/base/base.h */
float k_exp(float x);                                         /* the reference exponential, for tests and the sampler's kin */

#endif
