/* bf16_avx512.c: matmul_bf16 and swiglu_bf16 with AVX-512 BF16; see bf16_drive.h for the walk. Owns
 * nothing.
 *
 * A row of activations is bfloat16 in order, then zeros up to a multiple of 32; bfloat16 weights are
 * read where they lie:
 *
 *   x [row]  0 1 | 2 3 | ... | 30 31     vdpbf16ps: chain p of (row, out) takes pair p, odd input first
 *   w [out]  0 1 | 2 3 | ... | 30 31
 *
 * Per 32 inputs and tile of 6 rows x 4 outputs: 10 loads, 24 dots, which bound it. Many rows take
 * K_STEP inputs at a time, so that a block's activations (a KB a row) stay in L1; sums rest in scratch
 * between the steps. FP8 is exact in bfloat16: few rows expand it in registers, more into scratch.
 */
#include "bf16_drive.h"
#include "x86.h"

#define TILE_ROWS 6
#define TILE_OUTS 4
#define FEW_ROWS 6       /* of W_BF16; they take whole rows of weights at once */
#define FEW_ROWS_F8 2
#define K_STEP 512

/* ---- FP8 ------------------------------------------------------------------------------------- */

/* bfloat16 of the E4M3 numbers 0 .. 127. */
#define NORMAL(e) NORMAL_HALF(e, 0), NORMAL_HALF(e, 4)
#define NORMAL_HALF(e, m) NORMAL_ONE(e, m), NORMAL_ONE(e, m + 1), NORMAL_ONE(e, m + 2), NORMAL_ONE(e, m + 3)
#define NORMAL_ONE(e, m) (((e) + 120) << 7 | (m) << 4)
static const uint16_t f8_table[128] = { 0, 0x3b00, 0x3b80, 0x3bc0, 0x3c00, 0x3c20, 0x3c40, 0x3c60,
    NORMAL(1), NORMAL(2), NORMAL(3), NORMAL(4), NORMAL(5), NORMAL(6), NORMAL(7), NORMAL(8),
    NORMAL(9), NORMAL(10), NORMAL(11), NORMAL(12), NORMAL(13), NORMAL(14), NORMAL_HALF(15, 0),
    NORMAL_ONE(15, 4), NORMAL_ONE(15, 5), NORMAL_ONE(15, 6), 0x7fc0 };

INLINE __m512i f8_expand(__m256i b)
{
    const char *t = (const char *)f8_table;
    __m512i v = _mm512_cvtepu8_epi16(b);
    __m512i low = _mm512_permutex2var_epi16(
        _mm512_loadu_si512(t), v, _mm512_loadu_si512(t + 64));
    __m512i high = _mm512_permutex2var_epi16(
        _mm512_loadu_si512(t + 128), v, _mm512_loadu_si512(t + 192));
    __mmask32 large = _mm512_test_epi16_mask(v, _mm512_set1_epi16(0x40));
    __m512i r = _mm512_mask_mov_epi16(low, large, high);
    /* r | (v << 8 & sign) */
    return _mm512_ternarylogic_epi64(
        r, _mm512_slli_epi16(v, 8), _mm512_set1_epi16((short)0x8000), 0xf8);
}

INLINE uint32_t element_bytes(uint32_t format) { return format == W_F8 ? 1 : 2; }

/* 32 weights at p. */
INLINE __m512i weights(uint32_t format, const uint8_t *p)
{
    return format == W_F8 ? f8_expand(_mm256_loadu_si256((const __m256i *)(const void *)p))
                          : _mm512_loadu_si512(p);
}

/* The n < 32 weights at p, then -0. */
INLINE __m512i weights_n(uint32_t format, const uint8_t *p, uint32_t n)
{
    __mmask32 some = (1u << n) - 1;
    if (format == W_F8)
        return f8_expand(_mm256_mask_loadu_epi8(_mm256_set1_epi8((char)0x80), some, p));
    return _mm512_mask_loadu_epi16(_mm512_set1_epi16((short)0x8000), some, p);
}

static float f8_scale(const struct weight *w, uint32_t out, uint32_t block)
{
    const uint8_t *row = (const uint8_t *)w->scale + out / w->block_out * w->scale_row_bytes;
    if (w->scale_format == W_F32)
        return f32_from_bits(get_u32(row + 4 * (size_t)block));
    if (w->scale_format == W_F16)
        return half_to_float(row + 2 * (size_t)block);
    return f32_from_bf16(get_u16(row + 2 * (size_t)block));
}

/* ---- tiles ----------------------------------------------------------------------------------- */

/* What a tile of outputs goes through. */
struct tile {
    uint32_t format;                /* of w: W_BF16, or W_F8 in place */
    const uint8_t *w[TILE_OUTS];    /* input 0 of each output */
    const char *const *x;
    uint32_t begin, end;            /* inputs */
    bool begins, ends;              /* a chain at begin; all of it at end */
    const float *scale;             /* of the block that ends here [TILE_OUTS], or NULL */
    bool adds;                      /* the block to those before */
    float *acc, *dots;              /* of the tile's first output: [row, PANEL, 16], [row, PANEL] */
    const uint8_t *soon;            /* weights of the first output for the step after this, or NULL */
    size_t soon_stride;             /* to those of the next output */
    uint32_t soon_bytes;            /* of an input */
    uint32_t soon_begin, soon_end;  /* of which outputs a call asks for them */
};

INLINE void tile_end(
    const struct tile *t, const uint32_t n_r, const uint32_t n_o, uint32_t row, __m512 *a)
{
    UNROLL for (uint32_t o = 0; o < n_o; o++) {
        if (!t->scale)
            continue;
        __m512 scale = _mm512_set1_ps(t->scale[o]);
        UNROLL for (uint32_t r = 0; r < n_r; r++) {
            const float *acc = t->acc + ((row + r) * PANEL + o) * 16;
            a[r * n_o + o] = _mm512_fmadd_ps(
                a[r * n_o + o], scale, t->adds ? _mm512_loadu_ps(acc) : _mm512_setzero_ps());
        }
    }
    UNROLL for (uint32_t r = 0; r < n_r; r++) {
        float *dots = t->dots + (row + r) * PANEL, *acc = t->acc + (row + r) * PANEL * 16;
        if (!t->ends) {
            UNROLL for (uint32_t o = 0; o < n_o; o++)
                _mm512_storeu_ps(acc + o * 16, a[r * n_o + o]);
        } else if (n_o == 4) {
            v16_fold4(a + r * n_o, dots);
        } else {
            UNROLL for (uint32_t o = 0; o < n_o; o++)
                dots[o] = v16_fold(a[r * n_o + o]);
        }
    }
}

/* n_r rows from `row` on, n_o outputs. */
INLINE void tile_dots(const struct tile *t, const uint32_t format, const uint32_t n_r,
    const uint32_t n_o, uint32_t row)
{
    __m512 a[TILE_ROWS * TILE_OUTS];
    const char *x[TILE_ROWS];
    const uint8_t *w[TILE_OUTS];
    uint32_t n = t->end - t->begin, i = 0, size = element_bytes(format);
    UNROLL for (uint32_t r = 0; r < n_r; r++) {
        x[r] = t->x[row + r] + 2 * (size_t)t->begin;
        UNROLL for (uint32_t o = 0; o < n_o; o++)
            a[r * n_o + o] = t->begins ? _mm512_setzero_ps()
                                       : _mm512_loadu_ps(t->acc + ((row + r) * PANEL + o) * 16);
    }
    UNROLL for (uint32_t o = 0; o < n_o; o++)
        w[o] = t->w[o] + (size_t)t->begin * size;
    for (; i + 32 <= n; i += 32) {
        __m512bh xv[TILE_ROWS];
        for (uint32_t o = t->soon_begin; o < t->soon_end; o++)
            _mm_prefetch((const char *)t->soon + o * t->soon_stride + (size_t)i * t->soon_bytes, _MM_HINT_T1);
        UNROLL for (uint32_t r = 0; r < n_r; r++)
            xv[r] = (__m512bh)_mm512_loadu_si512(x[r] + 2 * (size_t)i);
        UNROLL for (uint32_t o = 0; o < n_o; o++) {
            __m512bh wv = (__m512bh)weights(format, w[o] + (size_t)i * size);
            UNROLL for (uint32_t r = 0; r < n_r; r++)
                a[r * n_o + o] = _mm512_dpbf16_ps(a[r * n_o + o], xv[r], wv);
        }
    }
    if (i < n) {
        UNROLL for (uint32_t o = 0; o < n_o; o++) {
            __m512bh wv = (__m512bh)weights_n(format, w[o] + (size_t)i * size, n - i);
            UNROLL for (uint32_t r = 0; r < n_r; r++)
                a[r * n_o + o] = _mm512_dpbf16_ps(a[r * n_o + o],
                    (__m512bh)_mm512_loadu_si512(x[r] + 2 * (size_t)i), wv);
        }
    }
    tile_end(t, n_r, n_o, row, a);
}

typedef void tile_fn(const struct tile *t, uint32_t row);

#define TILE(format, n_r, n_o)                                                   \
    static void tile_##format##_##n_r##x##n_o(const struct tile *t, uint32_t row) \
    {                                                                            \
        tile_dots(t, W_##format, n_r, n_o, row);                                 \
    }
#define TILES(n_o) TILE(BF16, 1, n_o) TILE(BF16, 2, n_o) TILE(BF16, 3, n_o) TILE(BF16, 4, n_o) \
    TILE(BF16, 5, n_o) TILE(BF16, 6, n_o) TILE(F8, 1, n_o) TILE(F8, 2, n_o)
TILES(1)
TILES(4)
#undef TILE
#undef TILES

/* All rows of one tile of outputs. */
static void tile_rows(struct tile *t, uint32_t n_o, uint32_t n_row)
{
    uint32_t n_call = (n_row + TILE_ROWS - 1) / TILE_ROWS, each = (n_o + n_call - 1) / n_call;
    static tile_fn *const bf16[2][TILE_ROWS] = {
        { tile_BF16_1x1, tile_BF16_2x1, tile_BF16_3x1, tile_BF16_4x1, tile_BF16_5x1, tile_BF16_6x1 },
        { tile_BF16_1x4, tile_BF16_2x4, tile_BF16_3x4, tile_BF16_4x4, tile_BF16_5x4, tile_BF16_6x4 },
    };
    static tile_fn *const f8[2][FEW_ROWS_F8] = { { tile_F8_1x1, tile_F8_2x1 },
        { tile_F8_1x4, tile_F8_2x4 } };
    for (uint32_t row = 0; row < n_row; row += TILE_ROWS) {
        uint32_t n = n_row - row < TILE_ROWS ? n_row - row : TILE_ROWS, call = row / TILE_ROWS;
        t->soon_begin = t->soon_end = 0;
        if (t->soon && call * each < n_o) { /* spread over the calls: in bursts they hold up loads */
            t->soon_begin = call * each;
            t->soon_end = n_o - t->soon_begin < each ? n_o : t->soon_begin + each;
        }
        (t->format == W_F8 ? f8[n_o == 4][n - 1] : bf16[n_o == 4][n - 1])(t, row);
    }
}

/* ---- panels ---------------------------------------------------------------------------------- */

/* Inputs [begin, end) of an FP8 panel into scratch, up to a multiple of 32. */
static void decode_step(const struct bf16_panel *p, size_t stride, uint32_t begin, uint32_t end)
{
    for (uint32_t o = 0; o < p->n_out; o++) {
        const uint8_t *b = (const uint8_t *)p->w->data + (p->out + o) * p->w->row_bytes;
        char *to = p->to + o * stride;
        uint32_t i = begin;
        for (; i + 32 <= end; i += 32)
            _mm512_storeu_si512(to + 2 * (size_t)i, weights(W_F8, b + i));
        if (i < end)
            _mm512_storeu_si512(to + 2 * (size_t)i, weights_n(W_F8, b + i, end - i));
    }
}

static void tile_scales(
    const struct bf16_panel *p, uint32_t o, uint32_t n_o, uint32_t block, float *scale)
{
    for (uint32_t i = 0; i < n_o; i++)
        scale[i] = f8_scale(p->w, p->out + o + i, block);
}

/* Where output o's weights from input `in` on are; behind the last input or output those of the next
 * panel. */
static const uint8_t *soon_weights(const struct bf16_panel *p, uint32_t o, uint32_t in)
{
    const struct weight *w = p->w;
    if (o < p->n_out && in < w->n_in)
        return (const uint8_t *)w->data + (p->out + o) * w->row_bytes +
               (size_t)in * element_bytes(w->format);
    return p->next ? p->next + o % p->n_out * w->row_bytes : NULL;
}

static void bf16_dots(const struct bf16_panel *p, const char *const *x, uint32_t n_row,
    const struct bf16_work *s, float *dots)
{
    const struct weight *w = p->w;
    bool f8 = w->format == W_F8, blocks = f8 && w->block_in < w->n_in;
    bool few = n_row <= (f8 ? FEW_ROWS_F8 : FEW_ROWS), in_place = !f8 || few;
    uint32_t step = blocks ? w->block_in : few ? w->n_in : K_STEP;
    size_t stride = bf16_panel_stride(w->n_in);
    struct tile t = { .format = in_place ? w->format : W_BF16, .x = x,
        .soon_stride = w->row_bytes, .soon_bytes = element_bytes(w->format) };
    for (uint32_t begin = 0; begin < w->n_in; begin += step) {
        float scale[TILE_OUTS];
        t.begin = begin;
        t.end = w->n_in - begin < step ? w->n_in : begin + step;
        t.begins = blocks || begin == 0;
        t.ends = t.end == w->n_in;
        t.adds = blocks && begin > 0;
        t.scale = blocks || (f8 && t.ends) ? scale : NULL;
        if (!in_place && !p->decoded)
            decode_step(p, stride, begin, t.end);
        for (uint32_t o = 0, n_o; o < p->n_out; o += n_o) {
            n_o = p->n_out - o < TILE_OUTS ? 1 : TILE_OUTS;
            for (uint32_t i = 0; i < n_o; i++)
                t.w[i] = in_place ? (const uint8_t *)w->data + (p->out + o + i) * w->row_bytes
                                  : (const uint8_t *)p->to + (o + i) * stride;
            if (t.scale)
                tile_scales(p, o, n_o, blocks ? begin / step : 0, scale);
            t.acc = s->acc + o * 16;
            t.dots = dots + o;
            t.soon = few ? soon_weights(p, o + n_o, 0) : soon_weights(p, o, t.end);
            tile_rows(&t, n_o, n_row);
        }
    }
}

/* ---- rows ------------------------------------------------------------------------------------ */

static void round_bf16(const float *x, uint32_t n_in, void *row)
{
    char *to = row;
    for (uint32_t i = 0; i < n_in; i += 32) {
        uint32_t n = n_in - i, low = n < 16 ? n : 16, high = n < 16 ? 0 : n < 32 ? n - 16 : 16;
        _mm256_storeu_si256((__m256i *)(void *)(to + 2 * (size_t)i), v16_to_bf16(v16_load_n(x + i, low)));
        _mm256_storeu_si256((__m256i *)(void *)(to + 2 * (size_t)i + 32),
            v16_to_bf16(v16_load_n(x + i + 16, high)));
    }
}

void x86_bf16_avx512(struct kernels *k)
{
    k->matmul_bf16 = matmul_bf16;
    k->swiglu_bf16 = swiglu_bf16;
    k->round_bf16 = round_bf16;
}
