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
 * What bounds the code is loads of 16 weight rows: 16 bytes each, scales with them, into 256-bit
 * registers (a load into a part of a 512-bit register takes as long as two of those).
 */
#ifndef GLM_KERNELS_X86_Q8_DIRECT_H
#define GLM_KERNELS_X86_Q8_DIRECT_H

#include "q8_drive.h"

#define DIRECT_ROWS 2u

struct direct {
    const uint8_t *x[DIRECT_ROWS], *scale[DIRECT_ROWS]; /* of the span */
    int32_t start[DIRECT_ROWS][16];
    struct block_sum sum[DIRECT_ROWS][2]; /* [row][half] of the block */
    __m256 a[DIRECT_ROWS][2];
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
        v->sum[r][0] = v->sum[r][1] = sum_begin(v->start[r][2 * b]);
}

ALWAYS void block_end(
    struct direct *v, const uint32_t R, const uint32_t b, const uint32_t format, const __m256 d[2])
{
#pragma GCC unroll 2
    for (uint32_t r = 0; r < R; r++) {
        __m256 dx = _mm256_broadcast_ss((const float *)(const void *)(v->scale[r] + 4 * b));
#pragma GCC unroll 2
        for (uint32_t h = 0; h < 2; h++) {
            __m256 sum = _mm256_cvtepi32_ps(sum_end(v->sum[r][h], format));
            v->a[r][h] = _mm256_fmadd_ps(sum, _mm256_mul_ps(d[h], dx), v->a[r][h]);
        }
    }
}

/* A span of 8 blocks; the first row's next one is at `soon`. 4-byte words, n of them a block, that
 * two bytes of scale shift by half a word in every second block. Words of two blocks of Q4_0, n = 4:
 *
 *   [d d 0 1][2 - 5][6 - 9][10 - 13][14 15 d' d'][0' - 3'][4' - 7'][8' - 11'][12' - 15']
 *
 * Bytes that are not quants are zeroed; what they are multiplied with then does not matter. */
ALWAYS void direct_span(struct direct *v, const struct panel *p, const uint8_t *at,
    const uint8_t *soon, const uint32_t R, const uint32_t format)
{
    const uint32_t n = format == W_Q4_0 ? 4 : 8;
    const uint32_t n_soon = LANES / (2 * n); /* rows to ask for with 16 bytes of each */
    __m256i t[2][4];
    __m256 d[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
#pragma GCC unroll 68
    for (uint32_t i = 0; i < 4 * (2 * n + 1); i++) {
        const uint32_t j = i % (2 * n + 1), b = i / (2 * n + 1) * 2 + (j > n);
        const uint32_t e = j == 0 ? 0 : j <= n ? 4 * j - 2 : 4 * (j - n - 1); /* its first quant */
        const int32_t valid = j == 0 || j == n ? 0xffff : -1;
        if (i % 4 == 0) {
            for (uint32_t row = 0; i / 4 < 2 * n && row < n_soon; row++, soon += p->stride)
                prefetch_span(soon, q8_formats[format].span_bytes);
            if (p->ahead)
                prefetch_panel(
                    p->data + p->ahead + (size_t)(at + 4 * i - p->data) * LANES, 16 * LANES);
            transpose(at + 4 * i, p->stride, t[0]);
            transpose(at + 4 * i + 8 * p->stride, p->stride, t[1]);
        }
        if (j == 0 || j == n + 1)
            block_begin(v, R, b);
#pragma GCC unroll 2
        for (uint32_t h = 0; h < 2; h++) {
            __m256i w = t[h][i % 4];
            if (j == 0) {
                d[h] = low_f16(w);
                w = _mm256_srli_epi32(w, 16);
            }
#pragma GCC unroll 2
            for (uint32_t r = 0; r < R; r++)
                sum_word(&v->sum[r][h], w, valid, v->x[r] + 32 * b + e, format, j % 2);
        }
        if (j == n) {
            block_end(v, R, b, format, d);
            d[0] = high_f16(t[0][i % 4]);
            d[1] = high_f16(t[1][i % 4]);
        }
        if (j == 2 * n)
            block_end(v, R, b, format, d);
    }
}

/* The blocks of a last, short span. */
ALWAYS void direct_blocks(struct direct *v, const struct panel *p, const uint8_t *at,
    uint32_t n_block, const uint32_t R, const uint32_t format)
{
    const uint32_t block_bytes = weight_block(format).bytes;
    for (uint32_t b = 0; b < n_block; b++, at += block_bytes) {
        const uint8_t *from[2] = {at, at + 8 * p->stride};
        __m256 d[2] = {gather_f16(from[0], p->stride), gather_f16(from[1], p->stride)};
        if (p->ahead)
            prefetch_panel(
                p->data + p->ahead + (size_t)(at - p->data) * LANES, (size_t)LANES * block_bytes);
        block_begin(v, R, b);
#pragma GCC unroll 2
        for (uint32_t h = 0; h < 2; h++) {
#pragma GCC unroll 2
            for (uint32_t i = 2; i < block_bytes; i += 16) {
                __m256i t[4];
                transpose(from[h] + i, p->stride, t);
#pragma GCC unroll 4
                for (uint32_t j = 0; j < 4; j++)
                    for (uint32_t r = 0; r < R; r++)
                        sum_word(&v->sum[r][h], t[j], -1, v->x[r] + 32 * b + (i - 2) + 4 * j,
                            format, j % 2);
            }
        }
        block_end(v, R, b, format, d);
    }
}

ALWAYS void direct_rows(const struct panel *p, const struct row_span *rs, float (*acc)[LANES],
    const uint32_t R, const uint32_t format)
{
    struct direct v;
    const uint8_t *at = p->data;
    for (uint32_t r = 0; r < R; r++)
        v.a[r][0] = v.a[r][1] = _mm256_setzero_ps();
    for (uint32_t k = 0; k < p->n_in; k += SPAN, at += q8_formats[format].span_bytes) {
        for (uint32_t r = 0; r < R; r++)
            span_begin(&v, row_at(rs, r), r, p->n_in, k, direct_offset(format));
        if (p->first)
            prefetch_rows(p, at);
        if (p->n_in - k >= SPAN)
            direct_span(&v, p, at, span_after(p, at, k), R, format);
        else
            direct_blocks(&v, p, at, (p->n_in - k) / 32, R, format);
    }
    for (uint32_t r = 0; r < R; r++) {
        _mm256_storeu_ps(acc[r], v.a[r][0]);
        _mm256_storeu_ps(acc[r] + 8, v.a[r][1]);
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
