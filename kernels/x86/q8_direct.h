/* q8_direct.h: one or two rows of activations with Q4_0 or Q8_0, unpacked in registers: decoding,
 * bound by memory. Static in each including file, which defines before it how a block's integers
 * are summed, for 8 outputs:
 *
 *   struct block_sum
 *   struct block_sum sum_begin(int32_t start)         start: -offset * sum(x)
 *   void sum_word(s, w, valid, x, format, odd)        adds a word of each of 8 outputs times the
 * activations at x; bytes of w that are not quants have zeros in valid; odd: of every second word
 *   __m256i sum_end(s, format)
 *   int32_t direct_offset(format)                     of the quants as sum_word takes them
 *
 * What bounds the code is loads of 8 weight rows: 16 bytes each, scales with them, into 256-bit
 * registers (a load into a part of a 512-bit register takes as long as two of those). 16 rows at a
 * time are more streams than processors foresee: with other traffic on the memory's bus they gave
 * 36 GB/s where 8 rows gave 44.
 */
#ifndef GLM_KERNELS_X86_Q8_DIRECT_H
#define GLM_KERNELS_X86_Q8_DIRECT_H

#include "q8_drive.h"

#define DIRECT_ROWS 2u
#define HALF 8u /* outputs: half a panel */

struct direct {
    const uint8_t *x[DIRECT_ROWS], *scale[DIRECT_ROWS]; /* of the span */
    int32_t start[DIRECT_ROWS][16];
    struct block_sum sum[DIRECT_ROWS]; /* of the block */
    __m256 a[DIRECT_ROWS];
    size_t stride;
    const uint8_t *next; /* what to ask for of the next half panel, NULL: there is none */
    const uint8_t *soon; /* the next span of the row to go on with */
};

ALWAYS void span_begin(
    struct direct *v, const uint8_t *row, uint32_t r, uint32_t n_in, uint32_t k, int32_t offset)
{
    const uint8_t *sum = row + q8_sum_at(n_in) + k / 4;
    v->x[r] = row + k;
    v->scale[r] = row + q8_scale_at(n_in) + k / 8;
    for (uint32_t h = 0; h < 2; h++) {
        __m256i s = _mm256_loadu_si256((const __m256i *)(const void *)(sum + 32 * h));
        s = _mm256_add_epi32(s, _mm256_srli_epi64(s, 32)); /* of 32, in every second lane */
        s = _mm256_mullo_epi32(s, _mm256_set1_epi32(-offset));
        _mm256_storeu_si256((__m256i *)(void *)(v->start[r] + 8 * h), s);
    }
}

ALWAYS void block_begin(struct direct *v, const uint32_t R, const uint32_t b)
{
#pragma GCC unroll 2
    for (uint32_t r = 0; r < R; r++)
        v->sum[r] = sum_begin(v->start[r][2 * b]);
}

ALWAYS void block_end(
    struct direct *v, const uint32_t R, const uint32_t b, const uint32_t format, const __m256 d)
{
#pragma GCC unroll 2
    for (uint32_t r = 0; r < R; r++) {
        __m256 dx = _mm256_broadcast_ss((const float *)(const void *)(v->scale[r] + 4 * b));
        __m256 sum = _mm256_cvtepi32_ps(sum_end(v->sum[r], format));
        v->a[r] = _mm256_fmadd_ps(sum, _mm256_mul_ps(d, dx), v->a[r]);
    }
}

ALWAYS void ask_next(struct direct *v, const uint32_t bytes)
{
    if (v->next) {
        prefetch_panel(v->next, bytes);
        v->next += bytes;
    }
}

/* A span of 8 blocks: 4-byte words, n of them a block, that two bytes of scale shift by half a word
 * in every second block. Words of two blocks of Q4_0, n = 4:
 *
 *   [d d 0 1][2 - 5][6 - 9][10 - 13][14 15 d' d'][0' - 3'][4' - 7'][8' - 11'][12' - 15']
 *
 * Bytes that are not quants are zeroed; what they are multiplied with then does not matter. */
ALWAYS void direct_span(
    struct direct *v, const uint8_t *at, const uint32_t R, const uint32_t format)
{
    const uint32_t n = format == W_Q4_0 ? 4 : 8;
    __m256i t[4];
    __m256 d = _mm256_setzero_ps();
#pragma GCC unroll 68
    for (uint32_t i = 0; i < 4 * (2 * n + 1); i++) {
        const uint32_t j = i % (2 * n + 1), b = i / (2 * n + 1) * 2 + (j > n);
        const uint32_t e = j == 0 ? 0 : j <= n ? 4 * j - 2 : 4 * (j - n - 1); /* its first quant */
        const int32_t valid = j == 0 || j == n ? 0xffff : -1;
        if (i % 4 == 0) {
            if (i / 4 < 2 * n && i / 4 % (n / 4) == 0) { /* 8 times */
                prefetch_span(v->soon, q8_formats[format].span_bytes);
                v->soon += v->stride;
            }
            ask_next(v, 16 * HALF);
            transpose(at + 4 * i, v->stride, t);
        }
        if (j == 0 || j == n + 1)
            block_begin(v, R, b);
        __m256i w = t[i % 4];
        if (j == 0) {
            d = low_f16(w);
            w = _mm256_srli_epi32(w, 16);
        }
#pragma GCC unroll 2
        for (uint32_t r = 0; r < R; r++)
            sum_word(&v->sum[r], w, valid, v->x[r] + 32 * b + e, format, j % 2);
        if (j == n) {
            block_end(v, R, b, format, d);
            d = high_f16(t[i % 4]);
        }
        if (j == 2 * n)
            block_end(v, R, b, format, d);
    }
}

/* The blocks of a last, short span. */
ALWAYS void direct_blocks(struct direct *v, const uint8_t *at, uint32_t n_block, const uint32_t R,
    const uint32_t format)
{
    const uint32_t block_bytes = weight_block(format).bytes;
    for (uint32_t b = 0; b < n_block; b++, at += block_bytes) {
        __m256 d = gather_f16(at, v->stride);
        ask_next(v, HALF * block_bytes);
        block_begin(v, R, b);
#pragma GCC unroll 2
        for (uint32_t i = 2; i < block_bytes; i += 16) {
            __m256i t[4];
            transpose(at + i, v->stride, t);
#pragma GCC unroll 4
            for (uint32_t j = 0; j < 4; j++)
                for (uint32_t r = 0; r < R; r++)
                    sum_word(&v->sum[r], t[j], -1, v->x[r] + 32 * b + (i - 2) + 4 * j, format, j % 2);
        }
        block_end(v, R, b, format, d);
    }
}

/* Half a panel from `from` on; `after`: the half that is next, or NULL. */
ALWAYS void direct_half(struct direct *v, const struct panel *p, const struct row_span *rs,
    const uint8_t *from, const uint8_t *after, bool first, const uint32_t R, const uint32_t format)
{
    const uint8_t *at = from;
    v->next = after;
    v->stride = p->stride;
    for (uint32_t r = 0; r < R; r++)
        v->a[r] = _mm256_setzero_ps();
    for (uint32_t k = 0; k < p->n_in; k += SPAN, at += q8_formats[format].span_bytes) {
        bool last = p->n_in - k <= SPAN;
        for (uint32_t r = 0; r < R; r++)
            span_begin(v, row_at(rs, r), r, p->n_in, k, direct_offset(format));
        if (first)
            prefetch_rows(p, at);
        v->soon = !last ? at + q8_formats[format].span_bytes : after ? after : from;
        if (p->n_in - k >= SPAN)
            direct_span(v, at, R, format);
        else
            direct_blocks(v, at, (p->n_in - k) / 32, R, format);
    }
}

ALWAYS void direct_rows(const struct panel *p, const struct row_span *rs, float (*acc)[LANES],
    const uint32_t R, const uint32_t format)
{
    struct direct v;
    for (uint32_t half = 0; half < 2; half++) {
        const uint8_t *middle = p->data + HALF * p->stride;
        const uint8_t *next = p->ahead ? p->data + p->ahead : NULL;
        direct_half(&v, p, rs, half ? middle : p->data, half ? next : middle, p->first && !half, R,
            format);
        for (uint32_t r = 0; r < R; r++)
            _mm256_storeu_ps(acc[r] + HALF * half, v.a[r]);
    }
}

typedef void direct_kernel(const struct panel *p, const struct row_span *rs, float (*acc)[LANES]);

#define DIRECT_KERNEL(name, R, format)                                                             \
    static void name(const struct panel *p, const struct row_span *rs, float(*acc)[LANES])         \
    {                                                                                              \
        direct_rows(p, rs, acc, R, format);                                                        \
    }
DIRECT_KERNEL(q4_0_direct_1, 1, W_Q4_0)
DIRECT_KERNEL(q4_0_direct_2, 2, W_Q4_0)
DIRECT_KERNEL(q8_0_direct_1, 1, W_Q8_0)
DIRECT_KERNEL(q8_0_direct_2, 2, W_Q8_0)

/* NULL: this format, or so many rows, have none. */
static inline direct_kernel *direct_of(uint32_t format, uint32_t n_row)
{
    if (n_row == 0 || n_row > DIRECT_ROWS)
        return NULL;
    if (format == W_Q4_0)
        return n_row == 1 ? q4_0_direct_1 : q4_0_direct_2;
    if (format == W_Q8_0)
        return n_row == 1 ? q8_0_direct_1 : q8_0_direct_2;
    return NULL;
}

#endif
