/* bf16_float.h: matrix multiplies on BF16 rows where the CPU has no bfloat16 dot product; part of
 * float_avx2.c and float_avx512.c, behind float_matmul.h.
 *
 * Of each 32 inputs the odd ones come first, then the even ones, as float32: in a row of activations
 * and in a decoded panel of weights alike. In that order vdpbf16ps's two products are two plain fma,
 * and the chains are those of float_matmul.h, whose tiles do the work. Up to PAIR_ROWS rows: weights are
 * widened in registers, each byte read once. What is missing at the end of a row is +0 in activations,
 * -0 in weights: their product leaves any chain as it was.
 */
#ifndef GLM_KERNELS_BF16_FLOAT_H
#define GLM_KERNELS_BF16_FLOAT_H

#include "bf16_drive.h"
#include "float_matmul.h"

#ifdef __AVX512F__
#define PAIR_ROWS 3
#define PAIR_OUTS(n_row) 4
#else
#define PAIR_ROWS 2
#define PAIR_OUTS(n_row) ((n_row) == 1 ? 4 : 2)
#endif

/* The odd and the even ones of 32 bfloat16. */
INLINE void split_bf16(const void *p, v16 *odd, v16 *even)
{
#ifdef __AVX512F__
    __m512i v = _mm512_loadu_si512(p);
    *odd = _mm512_castsi512_ps(_mm512_and_si512(v, _mm512_set1_epi32((int)0xffff0000u)));
    *even = _mm512_castsi512_ps(_mm512_slli_epi32(v, 16));
#else
    __m256i keep = _mm256_set1_epi32((int)0xffff0000u), lo = _mm256_loadu_si256(p),
            hi = _mm256_loadu_si256((const __m256i *)(const void *)((const char *)p + 32));
    *odd = (v16){ _mm256_castsi256_ps(_mm256_and_si256(lo, keep)),
        _mm256_castsi256_ps(_mm256_and_si256(hi, keep)) };
    *even = (v16){ _mm256_castsi256_ps(_mm256_slli_epi32(lo, 16)),
        _mm256_castsi256_ps(_mm256_slli_epi32(hi, 16)) };
#endif
}

/* The odd and the even ones of 32 weights; of W_F8 without their scale. */
INLINE void split_weights(uint32_t format, const void *p, v16 *odd, v16 *even)
{
    if (format == W_BF16) {
        split_bf16(p, odd, even);
        return;
    }
    __m256i v = _mm256_loadu_si256(p);
    *odd = v16_from_f8_high(_mm256_and_si256(v, _mm256_set1_epi16((short)0xff00)));
    *even = v16_from_f8_high(_mm256_slli_epi16(v, 8));
}

/* The n < 32 weights at p, then -0. */
INLINE void split_rest(uint32_t format, const uint8_t *p, uint32_t n, v16 *odd, v16 *even)
{
    uint8_t rest[64];
    for (uint32_t i = 0; i < 64; i++)
        rest[i] = format == W_F8 || i % 2 ? 0x80 : 0;
    memcpy(rest, p, n * plain_bytes(format));
    split_weights(format, rest, odd, even);
}

static void round_bf16(const float *x, uint32_t n_in, void *row)
{
    uint16_t half[32];
    float *to = row;
    v16 odd, even;
    for (uint32_t i = 0; i < n_in; i += 32, to += 32) {
        uint32_t n = n_in - i, low = n < 16 ? n : 16, high = n < 16 ? 0 : n < 32 ? n - 16 : 16;
        v16 a = v16_load_n(x + i, low), b = v16_load_n(x + i + 16, high);
        _mm256_storeu_si256((__m256i *)(void *)half, v16_to_bf16(a));
        _mm256_storeu_si256((__m256i *)(void *)(half + 16), v16_to_bf16(b));
        split_bf16(half, &odd, &even);
        v16_store(to, odd);
        v16_store(to + 16, even);
    }
}

INLINE float f8_scale(const struct weight *w, uint32_t out, uint32_t block)
{
    const uint8_t *row = (const uint8_t *)w->scale + out / w->block_out * w->scale_row_bytes;
    return scale_at(row, w->scale_format, block);
}

/* Inputs of one scale; without scales all of them. */
INLINE uint32_t block_of(const struct weight *w)
{
    return w->format == W_F8 && w->block_in < w->n_in ? w->block_in : w->n_in;
}

/* ---- few rows -------------------------------------------------------------------------------- */

INLINE void pair_step(uint32_t n_r, uint32_t n_o, uint32_t o, const char *const *x, uint32_t in,
    v16 odd, v16 even, v16 *a)
{
    UNROLL for (uint32_t r = 0; r < n_r; r++) {
        v16 *acc = &a[r * n_o + o];
        *acc = v16_fma(v16_load(x[r] + 4 * (size_t)in), odd, *acc);
        *acc = v16_fma(v16_load(x[r] + 4 * (size_t)in + 64), even, *acc);
    }
}

/* dots[r * PANEL + o] of n_r rows and n_o outputs from out. */
INLINE void pair_direct(uint32_t format, uint32_t n_r, uint32_t n_o, const struct weight *w,
    uint32_t out, const char *const *x, float *dots)
{
    v16 a[PAIR_ROWS * 4], total[PAIR_ROWS * 4];
    uint32_t step = block_of(w), size = plain_bytes(format);
    const uint8_t *b[4];
    v16 odd, even;
    UNROLL for (uint32_t o = 0; o < n_o; o++)
        b[o] = (const uint8_t *)w->data + (out + o) * w->row_bytes;
    UNROLL for (uint32_t i = 0; i < n_r * n_o; i++)
        total[i] = v16_set(0);
    for (uint32_t begin = 0, block = 0; begin < w->n_in; begin += step, block++) {
        uint32_t end = w->n_in - begin < step ? w->n_in : begin + step, i = begin;
        UNROLL for (uint32_t k = 0; k < n_r * n_o; k++)
            a[k] = v16_set(0);
        for (; i + 32 <= end; i += 32) {
            UNROLL for (uint32_t o = 0; o < n_o; o++) {
                const uint8_t *p = b[o] + (size_t)i * size;
                _mm_prefetch((const char *)p + n_o * w->row_bytes, _MM_HINT_T1);
                split_weights(format, p, &odd, &even);
                pair_step(n_r, n_o, o, x, i, odd, even, a);
            }
        }
        UNROLL for (uint32_t o = 0; o < n_o; o++) {
            if (i < end) {
                split_rest(format, b[o] + (size_t)i * size, end - i, &odd, &even);
                pair_step(n_r, n_o, o, x, i, odd, even, a);
            }
            v16 scale = v16_set(format == W_F8 ? f8_scale(w, out + o, block) : 1.0f);
            UNROLL for (uint32_t r = 0; r < n_r; r++)
                total[r * n_o + o] = format == W_F8
                                         ? v16_fma(a[r * n_o + o], scale, total[r * n_o + o])
                                         : a[r * n_o + o];
        }
    }
    UNROLL for (uint32_t i = 0; i < n_r * n_o; i++)
        dots[i / n_o * PANEL + i % n_o] = v16_fold(total[i]);
}

INLINE void pair_outputs(
    uint32_t format, uint32_t n_r, const struct bf16_panel *p, const char *const *x, float *dots)
{
    uint32_t o = 0;
    for (; o + PAIR_OUTS(n_r) <= p->n_out; o += PAIR_OUTS(n_r))
        pair_direct(format, n_r, PAIR_OUTS(n_r), p->w, p->out + o, x, dots + o);
    for (; o < p->n_out; o++)
        pair_direct(format, n_r, 1, p->w, p->out + o, x, dots + o);
}

#define PAIR_FEW(name, format)                                                             \
    static void name(                                                                      \
        uint32_t n_r, const struct bf16_panel *p, const char *const *x, float *dots)       \
    {                                                                                      \
        if (n_r == 1)                                                                      \
            pair_outputs(format, 1, p, x, dots);                                           \
        else if (n_r == 2)                                                                 \
            pair_outputs(format, 2, p, x, dots);                                           \
        else                                                                               \
            pair_outputs(format, PAIR_ROWS, p, x, dots);                                   \
    }
PAIR_FEW(pair_few_bf16, W_BF16)
PAIR_FEW(pair_few_f8, W_F8)

/* ---- panels ---------------------------------------------------------------------------------- */

static void pair_decode(const struct bf16_panel *p, size_t stride)
{
    uint32_t format = p->w->format, n_in = p->w->n_in, size = plain_bytes(format);
    for (uint32_t o = 0; o < p->n_out; o++) {
        const uint8_t *b = (const uint8_t *)p->w->data + (p->out + o) * p->w->row_bytes;
        char *to = p->to + o * stride;
        v16 odd, even;
        for (uint32_t i = 0; i < n_in; i += 32, to += 128) {
            const uint8_t *at = b + (size_t)i * size;
            if (n_in - i < 32)
                split_rest(format, at, n_in - i, &odd, &even);
            else if (format == W_BF16)
                split_weights(W_BF16, at, &odd, &even);
            else
                split_weights(W_F8, at, &odd, &even);
            v16_store(to, odd);
            v16_store(to + 64, even);
        }
    }
}

/* total = acc * scale + total, of a block. */
static void pair_scale(
    const struct bf16_panel *p, uint32_t block, uint32_t n_row, const struct bf16_work *s)
{
    for (uint32_t o = 0; o < p->n_out; o++) {
        v16 scale = v16_set(f8_scale(p->w, p->out + o, block));
        for (uint32_t r = 0; r < n_row; r++) {
            float *acc = s->acc + (r * PANEL + o) * 16, *total = s->total + (r * PANEL + o) * 16;
            v16_store(total,
                v16_fma(v16_load(acc), scale, block == 0 ? v16_set(0) : v16_load(total)));
        }
    }
}

static void pair_panel(const struct bf16_panel *p, const char *const *x, uint32_t n_row,
    size_t stride, const struct bf16_work *s, float *dots)
{
    const struct weight *w = p->w;
    uint32_t n_in = (w->n_in + 31) / 32 * 32, each = block_of(w);
    bool scaled = w->format == W_F8, blocks = each < w->n_in;
    uint32_t step = blocks ? each : K_STEP;
    for (uint32_t begin = 0; begin < n_in; begin += step) {
        /* a block's chains begin anew: as if its first input were the row's */
        size_t shift = blocks ? 4 * (size_t)begin : 0;
        uint32_t from = blocks ? 0 : begin, n = n_in - begin < step ? n_in - begin : step;
        for (uint32_t r = 0; r < n_row;) {
            const char *row[TILE_ROWS];
            uint32_t n_r = n_row - r < TILE_ROWS ? 1 : TILE_ROWS;
            float *acc = s->acc + (size_t)r * PANEL * 16;
            for (uint32_t i = 0; i < n_r; i++)
                row[i] = x[r + i] + shift;
            if (n_r == TILE_ROWS)
                tile_row(TILE_ROWS, row, p->to + shift, stride, p->n_out, from, from + n, acc);
            else
                tile_row(1, row, p->to + shift, stride, p->n_out, from, from + n, acc);
            r += n_r;
        }
        if (blocks)
            pair_scale(p, begin / each, n_row, s);
    }
    if (scaled && !blocks)
        pair_scale(p, 0, n_row, s);
    const float *sum = scaled ? s->total : s->acc;
    for (uint32_t r = 0; r < n_row; r++)
        for (uint32_t o = 0; o < p->n_out; o++)
            dots[r * PANEL + o] = v16_fold(v16_load(sum + (r * PANEL + o) * 16));
}

static void bf16_dots(const struct bf16_panel *p, const char *const *x, uint32_t n_row,
    const struct bf16_work *s, float *dots)
{
    size_t stride = bf16_panel_stride(p->w->n_in);
    if (n_row <= PAIR_ROWS && !p->decoded) {
        (p->w->format == W_F8 ? pair_few_f8 : pair_few_bf16)(n_row, p, x, dots);
        return;
    }
    if (!p->decoded)
        pair_decode(p, stride);
    pair_panel(p, x, n_row, stride, s, dots);
}

#endif
