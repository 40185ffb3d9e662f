/* q8_avx512.c: matmul_q8 and swiglu_q8 with AVX-512 and VNNI. Owns nothing; see q8_drive.h for the walk and the scratch.
 *
 * 16 outputs are the lanes of a register. For a group of 32 inputs, 8 vpdpbusd add weight quads (unsigned, see q8_unpack.h)
 * times a broadcast quad of activations; the sum starts from -offset * sum(x), so that the offset costs nothing. Per row,
 * group and 16 outputs: 8 dots, 1 conversion, 1 multiply, 1 fma; the dots bound it.
 *
 * Many rows: a span of 256 inputs is unpacked to L1, then 8 rows at a time keep a group's 8 quads in registers.
 * One or two rows of Q4_0 or Q8_0: unpacked in registers, nothing is stored.
 */
#include "q8_drive.h"
#include "x86.h"

/* acc += w (unsigned bytes) . x (4 signed bytes, broadcast). gcc 12 loads the broadcast into a register of its own when
 * left to itself. */
ALWAYS __m512i dot(__m512i acc, __m512i w, const uint8_t *x)
{
    __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(acc) : "v"(w), "m"(*(const int32_t *)(const void *)x));
    return acc;
}

ALWAYS __m512 broadcast_f32(const uint8_t *p)
{
    float v;
    memcpy(&v, p, 4);
    return _mm512_set1_ps(v);
}

/* What a row adds to the sums of a span's groups, one lane a group of 16 (of 32: lane 2 b): the integer start
 * -offset * sum(x), or with a minimum the float dx * sum(x). */
ALWAYS __m512i row_terms(const uint8_t *x, uint32_t n_in, uint32_t k, int32_t offset, uint32_t group, bool has_min)
{
    __m512i sum = _mm512_loadu_si512(x + q8_sum_at(n_in) + k / 4);
    if (group == 32)
        sum = _mm512_add_epi32(sum, _mm512_srli_epi64(sum, 32));
    if (!has_min)
        return _mm512_mullo_epi32(sum, _mm512_set1_epi32(-offset));
    __m256i d = _mm256_loadu_si256((const __m256i *)(const void *)(x + q8_scale_at(n_in) + k / 8));
    __m512i twice = _mm512_cvtepu32_epi64(d);
    twice = _mm512_or_si512(twice, _mm512_slli_epi64(twice, 32));
    return _mm512_castps_si512(_mm512_mul_ps(_mm512_castsi512_ps(twice), _mm512_cvtepi32_ps(sum)));
}

/* R rows through a span in scratch: acc[row][lane] goes on. */
ALWAYS void span_rows(const struct panel *p, const struct span *s, const uint8_t *const *row, uint32_t k, float (*acc)[LANES],
    const uint32_t R, const uint32_t group, const bool has_min)
{
    uint32_t left = (p->n_in - k) / 32, n_block = left < SPAN_BLOCKS ? left : SPAN_BLOCKS;
    const uint8_t *x[8];
    __m512i term[8];
    __m512 a[8];
#pragma GCC unroll 8
    for (uint32_t r = 0; r < R; r++) {
        x[r] = row[r] + k;
        term[r] = row_terms(row[r], p->n_in, k, p->format->offset, group, has_min);
        a[r] = _mm512_loadu_ps(acc[r]);
    }
    size_t scale_at = q8_scale_at(p->n_in) + k / 8 - k;
    for (uint32_t b = 0; b < n_block; b++) {
        __m512i w[8];
#pragma GCC unroll 8
        for (uint32_t j = 0; j < 8; j++)
            w[j] = _mm512_loadu_si512(s->w[b][j]);
#pragma GCC unroll 2
        for (uint32_t g = 0; g < 32 / group; g++) {
            uint32_t i = b * (32 / group) + g;
            __m512 d = _mm512_loadu_ps(s->scale[i]);
            __m512i at = _mm512_set1_epi32((int)(2 * b + g));
#pragma GCC unroll 8
            for (uint32_t r = 0; r < R; r++) {
                __m512i t = _mm512_permutexvar_epi32(at, term[r]);
                __m512i sum = has_min ? _mm512_setzero_si512() : t;
#pragma GCC unroll 8
                for (uint32_t j = g * group / 4; j < (g + 1) * group / 4; j++)
                    sum = dot(sum, w[j], x[r] + 32 * b + 4 * j);
                __m512 dd = _mm512_mul_ps(d, broadcast_f32(x[r] + scale_at + 4 * b));
                a[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), dd, a[r]);
                if (has_min)
                    a[r] = _mm512_fmadd_ps(_mm512_loadu_ps(s->min[i]), _mm512_castsi512_ps(t), a[r]);
            }
        }
    }
#pragma GCC unroll 8
    for (uint32_t r = 0; r < R; r++)
        _mm512_storeu_ps(acc[r], a[r]);
}

ALWAYS void span_all_rows(const struct panel *p, const struct span *s, const struct row_span *rs, uint32_t k,
    float (*acc)[LANES], const uint32_t group, const bool has_min)
{
    const uint8_t *x[8];
    uint32_t i = 0;
    for (; i + 8 <= rs->n; i += 8) {
        for (uint32_t r = 0; r < 8; r++)
            x[r] = row_at(rs, i + r);
        span_rows(p, s, x, k, acc + i, 8, group, has_min);
    }
    for (uint32_t r = 0; i + r < rs->n; r++)
        x[r] = row_at(rs, i + r);
    const uint8_t *const *rest = x;
    if (rs->n - i >= 4) {
        span_rows(p, s, rest, k, acc + i, 4, group, has_min);
        i += 4;
        rest += 4;
    }
    if (rs->n - i >= 2) {
        span_rows(p, s, rest, k, acc + i, 2, group, has_min);
        i += 2;
        rest += 2;
    }
    if (i < rs->n)
        span_rows(p, s, rest, k, acc + i, 1, group, has_min);
}

typedef void span_kernel(const struct panel *p, const struct span *s, const struct row_span *rs, uint32_t k,
    float (*acc)[LANES]);

#define SPAN_KERNEL(name, group, has_min)                                                                    \
    static void name(const struct panel *p, const struct span *s, const struct row_span *rs, uint32_t k,     \
        float (*acc)[LANES])                                                                                 \
    {                                                                                                        \
        span_all_rows(p, s, rs, k, acc, group, has_min);                                                     \
    }
SPAN_KERNEL(span_32, 32, false)
SPAN_KERNEL(span_32_min, 32, true)
SPAN_KERNEL(span_16, 16, false)
SPAN_KERNEL(span_16_min, 16, true)

static void sums_by_span(const struct panel *p, const struct row_span *rs, struct span *s, float (*acc)[LANES])
{
    span_kernel *kernel = p->format->group == 32 ? (p->format->has_min ? span_32_min : span_32)
                                                 : (p->format->has_min ? span_16_min : span_16);
    const uint8_t *at = p->data;
    memset(acc, 0, rs->n * sizeof *acc);
    for (uint32_t k = 0; k < p->n_in; k += SPAN, at += p->format->span_bytes) {
        uint32_t left = (p->n_in - k) / 32;
        prefetch_next(p, at);
        p->format->unpack(at, p->stride, left < SPAN_BLOCKS ? left : SPAN_BLOCKS, s);
        kernel(p, s, rs, k, acc);
    }
}

/* ---- one or two rows, in registers ------------------------------------------------------------------------------------ */

/* Masked broadcasts are loads and blends; inserts would take turns with the shuffles, which bound this code. */
ALWAYS __m512i four_rows(const uint8_t *p, size_t step)
{
    __m512i v = _mm512_castsi128_si512(load16(p));
    v = _mm512_mask_broadcast_i32x4(v, 0x00f0, load16(p + step));
    v = _mm512_mask_broadcast_i32x4(v, 0x0f00, load16(p + 2 * step));
    return _mm512_mask_broadcast_i32x4(v, 0xf000, load16(p + 3 * step));
}

/* 16 bytes of each of 16 rows: t[j] is word j of rows 0..15. */
ALWAYS void transpose_16(const uint8_t *p, size_t stride, __m512i t[4])
{
    __m512i a = four_rows(p, 4 * stride), b = four_rows(p + stride, 4 * stride);
    __m512i c = four_rows(p + 2 * stride, 4 * stride), d = four_rows(p + 3 * stride, 4 * stride);
    __m512i ab0 = _mm512_unpacklo_epi32(a, b), ab1 = _mm512_unpackhi_epi32(a, b);
    __m512i cd0 = _mm512_unpacklo_epi32(c, d), cd1 = _mm512_unpackhi_epi32(c, d);
    t[0] = _mm512_unpacklo_epi64(ab0, cd0);
    t[1] = _mm512_unpackhi_epi64(ab0, cd0);
    t[2] = _mm512_unpacklo_epi64(ab1, cd1);
    t[3] = _mm512_unpackhi_epi64(ab1, cd1);
}

/* Word i of v from memory: a load and a blend. */
#define BLEND_WORD(v, i, p) __asm__("vpbroadcastd %1, %0%{%2%}" : "+v"(v) : "m"(*(const int32_t *)(const void *)(p)), \
    "Yk"((__mmask8)(1u << (i))))

/* The word at p of 8 rows. */
ALWAYS __m256i blend_words(const uint8_t *p, size_t s)
{
    const uint8_t *p4 = p + 4 * s;
    __m256i v = _mm256_castsi128_si256(_mm_cvtsi32_si128(word32(p)));
    BLEND_WORD(v, 1, p + s);
    BLEND_WORD(v, 2, p + 2 * s);
    BLEND_WORD(v, 3, p + 3 * s);
    BLEND_WORD(v, 4, p4);
    BLEND_WORD(v, 5, p4 + s);
    BLEND_WORD(v, 6, p4 + 2 * s);
    BLEND_WORD(v, 7, p4 + 3 * s);
    return v;
}

/* The float16 at p of 16 rows, read with the two bytes behind it. */
ALWAYS __m512 blend_f16(const uint8_t *p, size_t stride)
{
    __m512i v = _mm512_inserti64x4(_mm512_castsi256_si512(blend_words(p, stride)), blend_words(p + 8 * stride, stride), 1);
    return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(v));
}

/* High nibbles stay where they are, 16 times their value. */
ALWAYS void q4_0_quads(const uint8_t *b, size_t stride, __m512i w[8])
{
    __m512i t[4];
    transpose_16(b + 2, stride, t);
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        w[j] = _mm512_and_si512(t[j], _mm512_set1_epi8(15));
        w[j + 4] = _mm512_and_si512(t[j], _mm512_set1_epi8((char)0xf0));
    }
}

ALWAYS void q8_0_quads(const uint8_t *b, size_t stride, __m512i w[8])
{
    transpose_16(b + 2, stride, w);
    transpose_16(b + 18, stride, w + 4);
#pragma GCC unroll 8
    for (int j = 0; j < 8; j++)
        w[j] = _mm512_xor_si512(w[j], _mm512_set1_epi8((char)0x80));
}

/* Whole rows of blocks of 32 that begin with a float16 scale. */
ALWAYS void direct_rows(const struct panel *p, const struct row_span *rs, float (*acc)[LANES], const uint32_t R,
    const uint32_t format)
{
    const uint32_t block_bytes = weight_block(format).bytes;
    const int32_t offset = q8_formats[format].offset;
    const uint8_t *x[2], *at = p->data;
    __m512 a[2];
    for (uint32_t r = 0; r < R; r++) {
        x[r] = row_at(rs, r);
        a[r] = _mm512_setzero_ps();
    }
    size_t scale_at = q8_scale_at(p->n_in);
    for (uint32_t k = 0; k < p->n_in; k += SPAN) {
        uint32_t left = (p->n_in - k) / 32, n_block = left < SPAN_BLOCKS ? left : SPAN_BLOCKS;
        __m512i term[2];
        for (uint32_t r = 0; r < R; r++)
            term[r] = row_terms(x[r], p->n_in, k, offset, 32, false);
        if (p->first)
            prefetch_rows(p, at);
        for (uint32_t b = 0; b < n_block; b++, at += block_bytes) {
            __m512i w[8];
            __m512 d = blend_f16(at, p->stride);
            if (p->ahead)
                prefetch(p->data + p->ahead + (size_t)(at - p->data) * LANES, LANES * block_bytes);
            if (format == W_Q4_0)
                q4_0_quads(at, p->stride, w);
            else
                q8_0_quads(at, p->stride, w);
#pragma GCC unroll 2
            for (uint32_t r = 0; r < R; r++) {
                __m512i sum = _mm512_permutexvar_epi32(_mm512_set1_epi32((int)(2 * b)), term[r]);
                __m512i second = _mm512_setzero_si512(); /* a chain of its own: shorter, and Q4_0's is 16 times too large */
#pragma GCC unroll 4
                for (uint32_t j = 0; j < 4; j++) {
                    sum = dot(sum, w[j], x[r] + k + 32 * b + 4 * j);
                    second = dot(second, w[j + 4], x[r] + k + 32 * b + 16 + 4 * j);
                }
                if (format == W_Q4_0)
                    second = _mm512_srai_epi32(second, 4);
                sum = _mm512_add_epi32(sum, second);
                __m512 dd = _mm512_mul_ps(d, broadcast_f32(x[r] + scale_at + k / 8 + 4 * b));
                a[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), dd, a[r]);
            }
        }
    }
    for (uint32_t r = 0; r < R; r++)
        _mm512_storeu_ps(acc[r], a[r]);
}

typedef void direct_kernel(const struct panel *p, const struct row_span *rs, float (*acc)[LANES]);

#define DIRECT_KERNEL(name, R, format)                                                       \
    static void name(const struct panel *p, const struct row_span *rs, float (*acc)[LANES])  \
    {                                                                                        \
        direct_rows(p, rs, acc, R, format);                                                  \
    }
DIRECT_KERNEL(q4_0_direct_1, 1, W_Q4_0)
DIRECT_KERNEL(q4_0_direct_2, 2, W_Q4_0)
DIRECT_KERNEL(q8_0_direct_1, 1, W_Q8_0)
DIRECT_KERNEL(q8_0_direct_2, 2, W_Q8_0)

static void sums(const struct panel *p, const struct row_span *rs, struct span *s, float (*acc)[LANES])
{
    static direct_kernel *const direct[W_FORMAT_COUNT][2] = {
        [W_Q4_0] = { q4_0_direct_1, q4_0_direct_2 },
        [W_Q8_0] = { q8_0_direct_1, q8_0_direct_2 },
    };
    if (rs->n <= 2 && direct[p->weight_format][0])
        direct[p->weight_format][rs->n - 1](p, rs, acc);
    else
        sums_by_span(p, rs, s, acc);
}

/* ---- SwiGLU ------------------------------------------------------------------------------------------------------------ */

/* k_exp of the reference, step by step. */
static inline __m512 exp_512(__m512 x)
{
    const __m512 round = _mm512_set1_ps(0x1.8p+23f);
    __m512 z = _mm512_fmadd_ps(x, _mm512_set1_ps(0x1.715476p+0f), round), n = _mm512_sub_ps(z, round);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0x1.62e4p-1f), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0x1.7f7d1cp-20f), r);
    __m512 p = _mm512_set1_ps(0x1.6a23c2p-10f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.123a22p-7f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.5558f4p-5f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.555492p-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.fffffcp-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    p = _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p), _mm512_slli_epi32(_mm512_castps_si512(z), 23)));
    p = _mm512_mask_mov_ps(p, _mm512_cmp_ps_mask(x, _mm512_set1_ps(-87.3f), _CMP_LT_OQ), _mm512_setzero_ps());
    p = _mm512_mask_mov_ps(p, _mm512_cmp_ps_mask(x, _mm512_set1_ps(88.7f), _CMP_GT_OQ),
        _mm512_castsi512_ps(_mm512_set1_epi32(0x7f800000)));
    return _mm512_mask_mov_ps(p, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), x);
}

static void silu_mul(float *gate, const float *up)
{
    __m512 g = _mm512_loadu_ps(gate), one = _mm512_set1_ps(1.0f);
    __m512 minus = _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(g), _mm512_set1_epi32((int)0x80000000u)));
    __m512 s = _mm512_div_ps(one, _mm512_add_ps(one, exp_512(minus)));
    _mm512_storeu_ps(gate, _mm512_mul_ps(_mm512_mul_ps(g, s), _mm512_loadu_ps(up)));
}

/* ---- the table ---------------------------------------------------------------------------------------------------------- */

static const struct q8_isa isa = { sums, silu_mul };

static void matmul_q8(const struct matmul *mm, uint32_t out_begin, uint32_t out_end, void *scratch)
{
    drive_matmul(&isa, mm, out_begin, out_end, scratch);
}

static void swiglu_q8(const struct swiglu *sg, uint32_t out_begin, uint32_t out_end, void *scratch)
{
    drive_swiglu(&isa, sg, out_begin, out_end, scratch);
}

void x86_q8_avx512(struct kernels *k)
{
    k->matmul_q8 = matmul_q8;
    k->swiglu_q8 = swiglu_q8;
}
