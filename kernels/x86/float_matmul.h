/* float_matmul.h: y[row, out] = sum over in of x w on float32 activations; part of float_avx2.c and
 * float_avx512.c.
 *
 * A panel is 16 outputs. Two ways to its dot products, chain for chain the same:
 *
 *   direct   up to DIRECT_ROWS rows, plain formats: weights are widened in registers, each byte
 * read once; the next group of outputs is prefetched. Bound by memory: 2 operations and (1, 2 or 4)
 * bytes a weight and row. panel    more rows, or blocks: the panel is decoded into scratch [16,
 * n_in] float32 and used for all rows, in tiles of TILE_ROWS x TILE_OUTS accumulators over K_STEP
 * inputs at a time, so that a tile's weights stay in L1. Accumulators rest in scratch between the
 * steps: stored and loaded, a chain goes on as if it had not stopped.
 */
#ifndef GLM_KERNELS_FLOAT_MATMUL_H
#define GLM_KERNELS_FLOAT_MATMUL_H

#include "float_decode.h"
#include "float_finish.h"

#ifdef __AVX512F__
#define TILE_ROWS 6
#define TILE_OUTS 4
#define DIRECT_ROWS 3
#define DIRECT_OUTS 4
#else
#define TILE_ROWS 3
#define TILE_OUTS 2
#define DIRECT_ROWS 2
#define DIRECT_OUTS 4
#endif
#define ROW_BLOCK 36
#define K_STEP 512

struct work {
    float *panel;               /* [PANEL, stride] decoded weights */
    size_t stride; /* not a power of two, which would put all rows into the same cache sets */
    float *acc;                 /* [ROW_BLOCK, PANEL, 16] */
    float *dots, *dots2;        /* [ROW_BLOCK, PANEL] */
};

static struct work work_init(void *scratch, uint32_t n_in)
{
    struct work s;
    s.acc = scratch;
    s.dots = s.acc + ROW_BLOCK * PANEL * 16;
    s.dots2 = s.dots + ROW_BLOCK * PANEL;
    s.panel = s.dots2 + ROW_BLOCK * PANEL;
    s.stride = ((size_t)n_in + 15) / 16 * 16 + 16;
    return s;
}

/* ---- direct ---------------------------------------------------------------------------------- */

/* Scales of n_o outputs for one block of inputs, of W_F8 alone. */
struct f8_scales {
    v16 scale[DIRECT_OUTS];
    v16 folded[DIRECT_OUTS]; /* times 2^120, for weights widened as 2^-120 of their value: the same
                                rounded product */
    bool can_fold;           /* that does not overflow */
};

/* Sixteen (or n) inputs from `in` of n_o outputs into the accumulators of n_r rows. */
INLINE void direct_step(uint32_t format, bool folded, uint32_t n_r, uint32_t n_o,
    const uint8_t *const *b, const v16 *scale, const char *const *x, uint32_t in, uint32_t n,
    v16 *a)
{
    v16 xv[DIRECT_ROWS];
    UNROLL for (uint32_t r = 0; r < n_r; r++)
        xv[r] = n == 16 ? v16_load(x[r] + 4 * (size_t)in) : v16_load_n(x[r] + 4 * (size_t)in, n);
    UNROLL for (uint32_t o = 0; o < n_o; o++) {
        const uint8_t *p = b[o] + (size_t)in * plain_bytes(format);
        v16 wv;
        if (folded)
            wv = v16_from_f8_less120(p);
        else
            wv = n == 16 ? plain16(format, p) : plain_n(format, p, n);
        if (format == W_F8)
            wv = v16_mul(wv, scale[o]);
        if (n < 16)
            wv = v16_fill(wv, n, -0.0f);
        UNROLL for (uint32_t r = 0; r < n_r; r++)
            a[r * n_o + o] = v16_fma(xv[r], wv, a[r * n_o + o]);
    }
}

/* Inputs [begin, end): whole cache lines with a prefetch of the same line n_o rows further, then
 * the rest. */
INLINE void direct_span(uint32_t format, uint32_t n_r, uint32_t n_o, const uint8_t *const *b,
    const struct f8_scales *s, const char *const *x, uint32_t begin, uint32_t end, uint64_t ahead,
    v16 *a)
{
    uint32_t line = 64 / plain_bytes(format), i = begin;
    for (; i + line <= end; i += line) {
        bool fold = format == W_F8 && s->can_fold;
        UNROLL for (uint32_t o = 0; o < n_o; o++) {
            _mm_prefetch((const char *)b[o] + (size_t)i * plain_bytes(format) + ahead, _MM_HINT_T1);
            if (format == W_F8)
                fold = fold && !f8_has_nan(b[o] + i);
        }
        if (fold) {
            UNROLL for (uint32_t j = 0; j < line; j += 16)
                direct_step(format, true, n_r, n_o, b, s->folded, x, i + j, 16, a);
        } else {
            UNROLL for (uint32_t j = 0; j < line; j += 16)
                direct_step(format, false, n_r, n_o, b, s->scale, x, i + j, 16, a);
        }
    }
    for (; i + 16 <= end; i += 16)
        direct_step(format, false, n_r, n_o, b, s->scale, x, i, 16, a);
    if (i < end)
        direct_step(format, false, n_r, n_o, b, s->scale, x, i, end - i, a);
}

INLINE void direct_scales(
    const struct weight *w, uint32_t n_o, uint32_t out, uint32_t block, struct f8_scales *to)
{
    to->can_fold = true;
    UNROLL for (uint32_t o = 0; o < n_o; o++) {
        const uint8_t *row =
            (const uint8_t *)w->scale + (out + o) / w->block_out * w->scale_row_bytes;
        float s = scale_at(row, w->scale_format, block);
        to->can_fold = to->can_fold && s < 64.0f && s > -64.0f;
        to->scale[o] = v16_set(s);
        to->folded[o] = v16_set(s * 0x1p120f);
    }
}

/* dots[r * PANEL + o] of n_r rows and n_o outputs from out. */
INLINE void direct(uint32_t format, uint32_t n_r, uint32_t n_o, const struct weight *w,
    uint32_t out, const char *const *x, float *dots)
{
    v16 a[DIRECT_ROWS * DIRECT_OUTS];
    struct f8_scales s;
    const uint8_t *b[DIRECT_OUTS];
    uint64_t ahead = n_o * w->row_bytes;
    UNROLL for (uint32_t i = 0; i < n_r * n_o; i++)
        a[i] = v16_set(0);
    UNROLL for (uint32_t o = 0; o < n_o; o++)
        b[o] = (const uint8_t *)w->data + (out + o) * w->row_bytes;
    uint32_t step = format == W_F8 && w->block_in < w->n_in ? w->block_in : w->n_in;
    for (uint32_t begin = 0, block = 0; begin < w->n_in; begin += step, block++) {
        uint32_t end = w->n_in - begin < step ? w->n_in : begin + step;
        if (format == W_F8)
            direct_scales(w, n_o, out, block, &s);
        direct_span(format, n_r, n_o, b, &s, x, begin, end, ahead, a);
    }
    UNROLL for (uint32_t r = 0; r < n_r; r++) {
        if (n_o == 4)
            v16_fold4(a + r * n_o, dots + r * PANEL);
        else
            UNROLL for (uint32_t o = 0; o < n_o; o++)
                dots[r * PANEL + o] = v16_fold(a[r * n_o + o]);
    }
}

INLINE void direct_outputs(uint32_t format, uint32_t n_r, const struct weight *w, uint32_t out,
    uint32_t n_out, const char *const *x, float *dots)
{
    uint32_t o = 0;
    for (; o + DIRECT_OUTS <= n_out; o += DIRECT_OUTS)
        direct(format, n_r, DIRECT_OUTS, w, out + o, x, dots + o);
    for (; o < n_out; o++)
        direct(format, n_r, 1, w, out + o, x, dots + o);
}

#define DIRECT(name, format)                                                             \
    static void name(uint32_t n_r, const struct weight *w, uint32_t out, uint32_t n_out, \
        const char *const *x, float *dots)                                               \
    {                                                                                    \
        if (n_r == 1)                                                                    \
            direct_outputs(format, 1, w, out, n_out, x, dots);                           \
        else if (n_r == 2)                                                               \
            direct_outputs(format, 2, w, out, n_out, x, dots);                           \
        else                                                                             \
            direct_outputs(format, DIRECT_ROWS, w, out, n_out, x, dots);                 \
    }
DIRECT(direct_f32, W_F32)
DIRECT(direct_f16, W_F16)
DIRECT(direct_bf16, W_BF16)
DIRECT(direct_f8, W_F8)

static bool is_direct(const struct weight *w, uint32_t n_row)
{
    if (n_row == 0 || n_row > DIRECT_ROWS || w->format > W_F8)
        return false;
    return w->format != W_F8 || w->block_in % 16 == 0 || w->block_in >= w->n_in;
}

static void direct_dots(const struct weight *w, uint32_t out, uint32_t n_out, const char *const *x,
    uint32_t n_row, float *dots)
{
    switch (w->format) {
    case W_F32: direct_f32(n_row, w, out, n_out, x, dots); break;
    case W_F16: direct_f16(n_row, w, out, n_out, x, dots); break;
    case W_BF16: direct_bf16(n_row, w, out, n_out, x, dots); break;
    default: direct_f8(n_row, w, out, n_out, x, dots); break;
    }
}

/* ---- panel ----------------------------------------------------------------------------------- */

/* Sixteen inputs, at byte `in` of the rows. AVX2 takes eight, then eight: 12 accumulators, 3
 * activations and a weight are all its registers. */
#ifdef __AVX512F__
INLINE void tile_step(uint32_t n_r, uint32_t n_o, const char *const *x, const char *w,
    size_t stride, size_t in, v16 *a)
{
    v16 xv[TILE_ROWS];
    UNROLL for (uint32_t r = 0; r < n_r; r++)
        xv[r] = v16_load(x[r] + in);
    UNROLL for (uint32_t o = 0; o < n_o; o++) {
        v16 wv = v16_load(w + o * stride);
        UNROLL for (uint32_t r = 0; r < n_r; r++)
            a[r * n_o + o] = v16_fma(xv[r], wv, a[r * n_o + o]);
    }
}
#else
INLINE __m256 load_256(const char *p) { return _mm256_loadu_ps((const float *)(const void *)p); }

INLINE void tile_step(uint32_t n_r, uint32_t n_o, const char *const *x, const char *w,
    size_t stride, size_t in, v16 *a)
{
    __m256 xv[TILE_ROWS];
    UNROLL for (uint32_t r = 0; r < n_r; r++)
        xv[r] = load_256(x[r] + in);
    UNROLL for (uint32_t o = 0; o < n_o; o++) {
        __m256 wv = load_256(w + o * stride);
        UNROLL for (uint32_t r = 0; r < n_r; r++)
            a[r * n_o + o].lo = _mm256_fmadd_ps(xv[r], wv, a[r * n_o + o].lo);
    }
    UNROLL for (uint32_t r = 0; r < n_r; r++)
        xv[r] = load_256(x[r] + in + 32);
    UNROLL for (uint32_t o = 0; o < n_o; o++) {
        __m256 wv = load_256(w + o * stride + 32);
        UNROLL for (uint32_t r = 0; r < n_r; r++)
            a[r * n_o + o].hi = _mm256_fmadd_ps(xv[r], wv, a[r * n_o + o].hi);
    }
}
#endif

/* Inputs [begin, end) of n_r rows and n_o outputs; w + o * stride the outputs' weights; acc rests
 * between steps. */
INLINE void tile(uint32_t n_r, uint32_t n_o, const char *const *x, const char *w, size_t stride,
    uint32_t begin, uint32_t end, float *acc)
{
    v16 a[TILE_ROWS * TILE_OUTS];
    uint32_t i = begin;
    UNROLL for (uint32_t r = 0; r < n_r; r++)
        UNROLL for (uint32_t o = 0; o < n_o; o++)
            a[r * n_o + o] = begin == 0 ? v16_set(0) : v16_load(acc + (r * PANEL + o) * 16);
    for (; i + 16 <= end; i += 16)
        tile_step(n_r, n_o, x, w + 4 * (size_t)i, stride, 4 * (size_t)i, a);
    if (i < end) {
        UNROLL for (uint32_t o = 0; o < n_o; o++) {
            v16 wv = v16_fill(v16_load_n(w + o * stride + 4 * (size_t)i, end - i), end - i, -0.0f);
            UNROLL for (uint32_t r = 0; r < n_r; r++) a[r * n_o + o] =
                v16_fma(v16_load_n(x[r] + 4 * (size_t)i, end - i), wv, a[r * n_o + o]);
        }
    }
    UNROLL for (uint32_t r = 0; r < n_r; r++)
        UNROLL for (uint32_t o = 0; o < n_o; o++)
            v16_store(acc + (r * PANEL + o) * 16, a[r * n_o + o]);
}

/* n_r rows and all outputs of the panel, over one step of inputs. */
INLINE void tile_row(uint32_t n_r, const char *const *x, const char *w, size_t stride,
    uint32_t n_out, uint32_t begin, uint32_t end, float *acc)
{
    uint32_t o = 0;
    for (; o + TILE_OUTS <= n_out; o += TILE_OUTS)
        tile(n_r, TILE_OUTS, x, w + o * stride, stride, begin, end, acc + o * 16);
    for (; o < n_out; o++)
        tile(n_r, 1, x, w + o * stride, stride, begin, end, acc + o * 16);
}

/* dots[r * PANEL + o] of up to ROW_BLOCK rows. w: float32 rows `stride` bytes apart. */
static void panel_dots(const char *w, size_t stride, uint32_t n_in, uint32_t n_out,
    const char *const *x, uint32_t n_row, float *acc, float *dots)
{
    for (uint32_t begin = 0; begin < n_in; begin += K_STEP) {
        uint32_t end = n_in - begin < K_STEP ? n_in : begin + K_STEP, r = 0;
        for (; r + TILE_ROWS <= n_row; r += TILE_ROWS)
            tile_row(TILE_ROWS, x + r, w, stride, n_out, begin, end, acc + (size_t)r * PANEL * 16);
        for (; r < n_row; r++)
            tile_row(1, x + r, w, stride, n_out, begin, end, acc + (size_t)r * PANEL * 16);
    }
    for (uint32_t r = 0; r < n_row; r++) {
        for (uint32_t o = 0; o < n_out; o++)
            dots[r * PANEL + o] = v16_fold(v16_load(acc + (r * PANEL + o) * 16));
    }
}

/* ---- both ------------------------------------------------------------------------------------ */

/* The panel's weights as float32 rows: decoded, or in place; *stride in bytes. */
static const char *panel_weights(
    const struct weight *w, uint32_t out, uint32_t n_out, const struct work *s, size_t *stride)
{
    if (w->format == W_F32) {
        *stride = w->row_bytes;
        return (const char *)w->data + out * w->row_bytes;
    }
    decode_rows(w, out, n_out, s->panel, s->stride);
    *stride = s->stride * sizeof(float);
    return (const char *)s->panel;
}

static void matmul_f32(const struct matmul *mm, uint32_t out_begin, uint32_t out_end, void *scratch)
{
    struct work s = work_init(scratch, mm->w->n_in);
    const char *x[ROW_BLOCK];
    for (uint32_t out = out_begin; out < out_end; out += PANEL) {
        uint32_t n_out = out_end - out < PANEL ? out_end - out : PANEL;
        if (is_direct(mm->w, mm->x.n)) {
            row_pointers(&mm->x, 0, mm->x.n, x);
            direct_dots(mm->w, out, n_out, x, mm->x.n, s.dots);
            finish_matmul(mm, out, n_out, 0, mm->x.n, s.dots);
            continue;
        }
        size_t stride;
        const char *w = panel_weights(mm->w, out, n_out, &s, &stride);
        for (uint32_t row = 0; row < mm->x.n; row += ROW_BLOCK) {
            uint32_t n = mm->x.n - row < ROW_BLOCK ? mm->x.n - row : ROW_BLOCK;
            row_pointers(&mm->x, row, n, x);
            panel_dots(w, stride, mm->w->n_in, n_out, x, n, s.acc, s.dots);
            finish_matmul(mm, out, n_out, row, n, s.dots);
        }
    }
}

/* Dot products of one panel and up to ROW_BLOCK rows, either way. */
static void any_dots(const struct weight *w, uint32_t out, uint32_t n_out, const char *const *x,
    uint32_t n_row, bool decoded, const struct work *s, float *dots)
{
    size_t stride = s->stride * sizeof(float);
    const char *panel = (const char *)s->panel;
    if (is_direct(w, n_row)) {
        direct_dots(w, out, n_out, x, n_row, dots);
        return;
    }
    if (!decoded)
        panel = panel_weights(w, out, n_out, s, &stride);
    panel_dots(panel, stride, w->n_in, n_out, x, n_row, s->acc, dots);
}

static void swiglu_f32(const struct swiglu *sg, uint32_t out_begin, uint32_t out_end, void *scratch)
{
    struct work s = work_init(scratch, sg->gate->n_in);
    struct work t = s; /* the second panel, for up */
    const char *x[ROW_BLOCK];
    t.panel += PANEL * s.stride;
    for (uint32_t out = out_begin; out < out_end; out += PANEL) {
        uint32_t n_out = out_end - out < PANEL ? out_end - out : PANEL;
        for (uint32_t row = 0; row < sg->x.n; row += ROW_BLOCK) {
            uint32_t n = sg->x.n - row < ROW_BLOCK ? sg->x.n - row : ROW_BLOCK;
            row_pointers(&sg->x, row, n, x);
            any_dots(sg->gate, out, n_out, x, n, row > 0 && sg->gate->format != W_F32, &s, s.dots);
            any_dots(sg->up, out, n_out, x, n, row > 0 && sg->up->format != W_F32, &t, s.dots2);
            finish_swiglu(sg, out, n_out, row, n, s.dots, s.dots2);
        }
    }
}

#endif
