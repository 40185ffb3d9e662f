/* q8_avx2.c: matmul_q8 and swiglu_q8 with AVX2. Owns nothing; see q8_drive.h for the walk and the
 * scratch.
 *
 * 16 outputs are the lanes of two registers. vpmaddubsw multiplies unsigned weights and signed
 * activations and adds pairs in int16, where it saturates; so sums stay there only as long as they
 * cannot overflow: 8 quads of a 4-bit format (8 * 2 * 15 * 127 = 30480), 4 of 5 bits, 2 of 6. Then
 * vpmaddwd widens them. 8-bit quants are split into a low and a high nibble, two such sums, the
 * second widened with a factor of 16. Per row, quad and 16 outputs: 2 (with 8 bits 4) multiplies
 * and as many adds.
 *
 * Many rows: a span of 256 inputs is unpacked to L1 and used for all of them, some rows at a time.
 * One row of Q4_0 or Q8_0: unpacked in registers, nothing is stored.
 */
#include "q8_drive.h"
#include "x86.h"

/* How a format is summed: group and has_min as in struct q8_format; flush: quads summed in int16;
 * split: in two nibbles. */
struct plan {
    uint32_t group, flush;
    bool has_min, split;
};

ALWAYS __m256i load32(const uint8_t *p)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)p);
}

ALWAYS __m256i broadcast_quad(const uint8_t *x)
{
    return _mm256_set1_epi32(word32(x));
}

/* a += w . x in int16. The empty asm keeps gcc 12 from regrouping the adds, which costs it
 * registers. */
ALWAYS __m256i add_products(__m256i a, __m256i w, __m256i x)
{
    a = _mm256_add_epi16(a, _mm256_maddubs_epi16(w, x));
    __asm__("" : "+x"(a));
    return a;
}

union row_terms {
    int32_t sum[16]; /* -offset * sum(x) per group of 16; of 32: every second one */
    float min[16];   /* dx * sum(x) */
};

ALWAYS void row_terms(const uint8_t *x, uint32_t n_in, uint32_t k, const struct q8_format *f,
    const struct plan c, union row_terms *out)
{
    const uint8_t *at = x + q8_sum_at(n_in) + k / 4, *scale = x + q8_scale_at(n_in) + k / 8;
    for (uint32_t h = 0; h < 2; h++) {
        __m256i sum = load32(at + 32 * h);
        if (c.group == 32)
            sum = _mm256_add_epi32(sum, _mm256_srli_epi64(sum, 32));
        if (c.has_min) {
            __m256i d = _mm256_cvtepu32_epi64(load16(scale + 16 * h));
            d = _mm256_or_si256(d, _mm256_slli_epi64(d, 32));
            _mm256_storeu_ps(
                out->min + 8 * h, _mm256_mul_ps(_mm256_castsi256_ps(d), _mm256_cvtepi32_ps(sum)));
        } else {
            sum = _mm256_mullo_epi32(sum, _mm256_set1_epi32(-(int32_t)f->offset));
            _mm256_storeu_si256((__m256i *)(void *)(out->sum + 8 * h), sum);
        }
    }
}

/* sum[row][half] over the quads of one group, from the offset's term. */
ALWAYS void group_sums(const struct span *s, uint32_t b, uint32_t first, const uint8_t *const x[4],
    __m256i sum[4][2], const uint32_t R, const struct plan c)
{
    const __m256i one = _mm256_set1_epi16(1), sixteen = _mm256_set1_epi16(16);
#pragma GCC unroll 4
    for (uint32_t q = first; q < first + c.group / 4; q += c.flush) {
        __m256i low[4][2], high[4][2];
#pragma GCC unroll 4
        for (uint32_t r = 0; r < R; r++)
            low[r][0] = low[r][1] = high[r][0] = high[r][1] = _mm256_setzero_si256();
#pragma GCC unroll 8
        for (uint32_t j = q; j < q + c.flush; j++) {
            __m256i w0 = load32(s->w[b][j]), w1 = load32(s->w[b][j] + 32);
#pragma GCC unroll 4
            for (uint32_t r = 0; r < R; r++) {
                __m256i xq = broadcast_quad(x[r] + 32 * b + 4 * j);
                low[r][0] = add_products(low[r][0], w0, xq);
                low[r][1] = add_products(low[r][1], w1, xq);
                if (c.split) {
                    high[r][0] = add_products(high[r][0], load32(s->high[b][j]), xq);
                    high[r][1] = add_products(high[r][1], load32(s->high[b][j] + 32), xq);
                }
            }
        }
#pragma GCC unroll 4
        for (uint32_t r = 0; r < R; r++)
            for (uint32_t h = 0; h < 2; h++) {
                sum[r][h] = _mm256_add_epi32(sum[r][h], _mm256_madd_epi16(low[r][h], one));
                if (c.split)
                    sum[r][h] = _mm256_add_epi32(sum[r][h], _mm256_madd_epi16(high[r][h], sixteen));
            }
    }
}

/* R rows through a span in scratch: acc[row][lane] goes on. */
ALWAYS void span_rows(const struct panel *p, const struct span *s, const uint8_t *const *row,
    uint32_t k, struct ahead *n, float (*acc)[LANES], const uint32_t R, const struct plan c)
{
    uint32_t left = (p->n_in - k) / 32, n_block = left < SPAN_BLOCKS ? left : SPAN_BLOCKS;
    size_t scale_at = q8_scale_at(p->n_in) + k / 8 - k;
    const uint8_t *x[4];
    union row_terms term[4];
    for (uint32_t r = 0; r < R; r++) {
        x[r] = row[r] + k;
        row_terms(row[r], p->n_in, k, p->format, c, &term[r]);
    }
    for (uint32_t b = 0; b < n_block; b++) {
        prefetch_some(n);
        for (uint32_t g = 0; g < 32 / c.group; g++) {
            uint32_t i = b * (32 / c.group) + g;
            __m256i sum[4][2];
#pragma GCC unroll 4
            for (uint32_t r = 0; r < R; r++)
                sum[r][0] = sum[r][1] =
                    c.has_min ? _mm256_setzero_si256() : _mm256_set1_epi32(term[r].sum[2 * b + g]);
            group_sums(s, b, g * 4, x, sum, R, c);
#pragma GCC unroll 4
            for (uint32_t r = 0; r < R; r++) {
                __m256 dx =
                    _mm256_broadcast_ss((const float *)(const void *)(x[r] + scale_at + 4 * b));
                for (uint32_t h = 0; h < 2; h++) {
                    __m256 a = _mm256_loadu_ps(acc[r] + 8 * h),
                           dd = _mm256_mul_ps(_mm256_loadu_ps(s->scale[i] + 8 * h), dx);
                    a = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[r][h]), dd, a);
                    if (c.has_min)
                        a = _mm256_fmadd_ps(_mm256_loadu_ps(s->min[i] + 8 * h),
                            _mm256_set1_ps(term[r].min[2 * b + g]), a);
                    _mm256_storeu_ps(acc[r] + 8 * h, a);
                }
            }
        }
    }
}

/* Splits a span's quants into nibbles. */
ALWAYS void split_span(struct span *s, uint32_t n_block)
{
    for (uint32_t i = 0; i < n_block * 16; i++) {
        __m256i *w = (__m256i *)(void *)(s->w[0][0] + 32 * i),
                *high = (__m256i *)(void *)(s->high[0][0] + 32 * i);
        __m256i v = _mm256_loadu_si256(w);
        _mm256_storeu_si256(w, low_nibble(v));
        _mm256_storeu_si256(high, high_nibble(v));
    }
}

ALWAYS void span_all_rows(const struct panel *p, struct span *s, const struct row_span *rs,
    uint32_t k, const uint8_t *at, float (*acc)[LANES], const struct plan c)
{
    const uint32_t step = c.flush == 8 && !c.split ? 4 : 2; /* rows whose sums fit the registers */
    uint32_t n_block = (p->n_in - k) / 32 < SPAN_BLOCKS ? (p->n_in - k) / 32 : SPAN_BLOCKS;
    struct ahead n = span_ahead(p, at, n_block, rs->n / step + rs->n % step);
    const uint8_t *x[4];
    uint32_t i = 0;
    if (c.split)
        split_span(s, n_block);
    for (; i + step <= rs->n; i += step) {
        for (uint32_t r = 0; r < step; r++)
            x[r] = row_at(rs, i + r);
        span_rows(p, s, x, k, &n, acc + i, step, c);
    }
    for (; i < rs->n; i++) {
        x[0] = row_at(rs, i);
        span_rows(p, s, x, k, &n, acc + i, 1, c);
    }
}

typedef void span_kernel(const struct panel *p, struct span *s, const struct row_span *rs,
    uint32_t k, const uint8_t *at, float (*acc)[LANES]);

#define SPAN_KERNEL(name, ...)                                                                     \
    static void name(const struct panel *p, struct span *s, const struct row_span *rs, uint32_t k, \
        const uint8_t *at, float(*acc)[LANES])                                                     \
    {                                                                                              \
        const struct plan c = {__VA_ARGS__};                                                       \
        span_all_rows(p, s, rs, k, at, acc, c);                                                    \
    }
SPAN_KERNEL(span_4bit, .group = 32, .flush = 8)
SPAN_KERNEL(span_4bit_min, .group = 32, .flush = 8, .has_min = true)
SPAN_KERNEL(span_5bit, .group = 32, .flush = 4)
SPAN_KERNEL(span_5bit_min, .group = 32, .flush = 4, .has_min = true)
SPAN_KERNEL(span_8bit, .group = 32, .flush = 8, .split = true)
SPAN_KERNEL(span_16_2bit_min, .group = 16, .flush = 4, .has_min = true)
SPAN_KERNEL(span_16_3bit, .group = 16, .flush = 4)
SPAN_KERNEL(span_16_6bit, .group = 16, .flush = 2)

static void sums_by_span(
    const struct panel *p, const struct row_span *rs, struct span *s, float (*acc)[LANES])
{
    static span_kernel *const kernels[W_FORMAT_COUNT] = {
        [W_Q8_0] = span_8bit,
        [W_Q4_0] = span_4bit,
        [W_Q4_1] = span_4bit_min,
        [W_Q5_0] = span_5bit,
        [W_Q5_1] = span_5bit_min,
        [W_IQ4_NL] = span_8bit,
        [W_MXFP4] = span_5bit,
        [W_Q2_K] = span_16_2bit_min,
        [W_Q3_K] = span_16_3bit,
        [W_Q4_K] = span_4bit_min,
        [W_Q5_K] = span_5bit_min,
        [W_Q6_K] = span_16_6bit,
        [W_IQ4_XS] = span_8bit,
    };
    const uint8_t *at = p->data;
    memset(acc, 0, rs->n * sizeof *acc);
    for (uint32_t k = 0; k < p->n_in; k += SPAN, at += p->format->span_bytes) {
        uint32_t left = (p->n_in - k) / 32;
        if (p->first)
            prefetch_rows(p, at);
        p->format->unpack(at, p->stride, left < SPAN_BLOCKS ? left : SPAN_BLOCKS, s);
        kernels[p->weight_format](p, s, rs, k, at, acc);
    }
}

/* ---- one or two rows, in registers ----------------------------------------------------------- */

/* Q4_0: sum and 16-bit part of it; Q8_0: two sums, of |w| and x with the sign of w (128 * 127 * 2
 * does not saturate). */
struct block_sum {
    __m256i a, b;
};

ALWAYS struct block_sum sum_begin(int32_t start)
{
    return (struct block_sum){_mm256_set1_epi32(start), _mm256_setzero_si256()};
}

ALWAYS void sum_word(struct block_sum *s, __m256i w, const int32_t valid, const uint8_t *x,
    const uint32_t format, const bool odd)
{
    w = _mm256_and_si256(w, _mm256_set1_epi32(valid));
    if (format == W_Q4_0) {
        s->b = add_products(s->b, low_nibble(w), broadcast_quad(x));
        s->b = add_products(s->b, high_nibble(w), broadcast_quad(x + 16));
    } else {
        __m256i v =
            _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(broadcast_quad(x), w));
        v = _mm256_madd_epi16(v, _mm256_set1_epi16(1));
        if (odd)
            s->a = _mm256_add_epi32(s->a, v);
        else
            s->b = _mm256_add_epi32(s->b, v);
    }
}

ALWAYS __m256i sum_end(struct block_sum s, const uint32_t format)
{
    return _mm256_add_epi32(
        s.a, format == W_Q4_0 ? _mm256_madd_epi16(s.b, _mm256_set1_epi16(1)) : s.b);
}

ALWAYS int32_t direct_offset(const uint32_t format)
{
    return format == W_Q4_0 ? 8 : 0;
}

#include "q8_direct.h"

static void sums(
    const struct panel *p, const struct row_span *rs, struct span *s, float (*acc)[LANES])
{
    direct_kernel *direct = direct_of(p->weight_format, rs->n);
    if (direct)
        direct(p, rs, acc);
    else
        sums_by_span(p, rs, s, acc);
}

/* ---- SwiGLU ---------------------------------------------------------------------------------- */

/* k_exp of the reference, step by step. */
static inline __m256 exp_256(__m256 x)
{
    const __m256 round = _mm256_set1_ps(0x1.8p+23f);
    __m256 z = _mm256_fmadd_ps(x, _mm256_set1_ps(0x1.715476p+0f), round),
           n = _mm256_sub_ps(z, round);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0x1.62e4p-1f), x);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0x1.7f7d1cp-20f), r);
    __m256 p = _mm256_set1_ps(0x1.6a23c2p-10f);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.123a22p-7f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.5558f4p-5f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.555492p-3f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.fffffcp-2f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    p = _mm256_castsi256_ps(
        _mm256_add_epi32(_mm256_castps_si256(p), _mm256_slli_epi32(_mm256_castps_si256(z), 23)));
    p = _mm256_andnot_ps(_mm256_cmp_ps(x, _mm256_set1_ps(-87.3f), _CMP_LT_OQ), p);
    p = _mm256_blendv_ps(p, _mm256_castsi256_ps(_mm256_set1_epi32(0x7f800000)),
        _mm256_cmp_ps(x, _mm256_set1_ps(88.7f), _CMP_GT_OQ));
    return _mm256_blendv_ps(p, x, _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
}

static void silu_mul(float *gate, const float *up)
{
    const __m256 one = _mm256_set1_ps(1.0f), sign = _mm256_set1_ps(-0.0f);
    for (uint32_t l = 0; l < LANES; l += 8) {
        __m256 g = _mm256_loadu_ps(gate + l);
        __m256 s = _mm256_div_ps(one, _mm256_add_ps(one, exp_256(_mm256_xor_ps(g, sign))));
        _mm256_storeu_ps(gate + l, _mm256_mul_ps(_mm256_mul_ps(g, s), _mm256_loadu_ps(up + l)));
    }
}

/* ---- the table ------------------------------------------------------------------------------- */

static const struct q8_isa isa = {sums, NULL, silu_mul};

static void matmul_q8(const struct matmul *mm, uint32_t out_begin, uint32_t out_end, void *scratch)
{
    drive_matmul(&isa, mm, out_begin, out_end, scratch);
}

static void swiglu_q8(const struct swiglu *sg, uint32_t out_begin, uint32_t out_end, void *scratch)
{
    drive_swiglu(&isa, sg, out_begin, out_end, scratch);
}

void x86_q8_avx2(struct kernels *k)
{
    k->matmul_q8 = matmul_q8;
    k->swiglu_q8 = swiglu_q8;
}
