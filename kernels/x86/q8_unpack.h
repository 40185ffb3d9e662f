/* q8_unpack.h: a span of 256 inputs of 16 outputs, turned from ggml blocks in a file into what the
 * integer dot products read. Needs AVX2 and F16C; included by q8_avx2.c and q8_avx512.c, static in
 * each.
 *
 * Outputs are lanes. A quad is 4 consecutive inputs of one output, a 32-bit word in the file as
 * here, so that unpacking is a transposition of words:
 *
 *   file     out 0: [quad 0][quad 1][quad 2][quad 3]...     span w[block][quad]: [out 0][out
 * 1]...[out 15] out 1: [quad 0][quad 1]...
 *
 * Quants become unsigned by adding the format's offset; who sums starts from -offset * sum(x). All
 * of it is done 8 outputs at a time. No byte outside of the 16 rows is read.
 */
#ifndef GLM_KERNELS_X86_Q8_UNPACK_H
#define GLM_KERNELS_X86_Q8_UNPACK_H

#include "../kernels.h"

#include <immintrin.h>

#define LANES 16u
#define SPAN 256u /* inputs; the last span of a row may have fewer, in blocks of 32 */
#define SPAN_BLOCKS (SPAN / 32)
#define ALWAYS static inline __attribute__((always_inline))

struct span {
    uint8_t w[SPAN_BLOCKS][8][4 * LANES]; /* [block of 32][quad][out][4], unsigned */
    uint8_t high[SPAN_BLOCKS][8]
                [4 * LANES];       /* AVX2, 8-bit quants: w split into low and high nibbles */
    float scale[SPAN / 16][LANES]; /* [group][out] */
    float min[SPAN / 16][LANES];   /* added, so that of a K-quant is negative */
};

/* ---- gathers: one field of 8 rows ------------------------------------------------------------ */

ALWAYS __m128i load16(const uint8_t *p)
{
    return _mm_loadu_si128((const __m128i *)(const void *)p);
}

ALWAYS __m256i two_rows(const uint8_t *p, size_t step)
{
    return _mm256_inserti128_si256(_mm256_castsi128_si256(load16(p)), load16(p + step), 1);
}

/* 16 bytes of each row: t[j] is word j of rows 0..7. */
ALWAYS void transpose(const uint8_t *p, size_t stride, __m256i t[4])
{
    __m256i a = two_rows(p, 4 * stride), b = two_rows(p + stride, 4 * stride);
    __m256i c = two_rows(p + 2 * stride, 4 * stride), d = two_rows(p + 3 * stride, 4 * stride);
    __m256i ab0 = _mm256_unpacklo_epi32(a, b), ab1 = _mm256_unpackhi_epi32(a, b);
    __m256i cd0 = _mm256_unpacklo_epi32(c, d), cd1 = _mm256_unpackhi_epi32(c, d);
    t[0] = _mm256_unpacklo_epi64(ab0, cd0);
    t[1] = _mm256_unpackhi_epi64(ab0, cd0);
    t[2] = _mm256_unpacklo_epi64(ab1, cd1);
    t[3] = _mm256_unpackhi_epi64(ab1, cd1);
}

ALWAYS int16_t word16(const uint8_t *p)
{
    int16_t v;
    memcpy(&v, p, 2);
    return v;
}

ALWAYS int32_t word32(const uint8_t *p)
{
    int32_t v;
    memcpy(&v, p, 4);
    return v;
}

ALWAYS __m256 gather_f16(const uint8_t *p, size_t s)
{
    const uint8_t *p4 = p + 4 * s;
    return _mm256_cvtph_ps(_mm_setr_epi16(word16(p), word16(p + s), word16(p + 2 * s),
        word16(p + 3 * s), word16(p4), word16(p4 + s), word16(p4 + 2 * s), word16(p4 + 3 * s)));
}

ALWAYS __m256i gather_32(const uint8_t *p, size_t s)
{
    const uint8_t *p4 = p + 4 * s;
    return _mm256_setr_epi32(word32(p), word32(p + s), word32(p + 2 * s), word32(p + 3 * s),
        word32(p4), word32(p4 + s), word32(p4 + 2 * s), word32(p4 + 3 * s));
}

/* float16 in the low or high half of each word */
ALWAYS __m256 f16_of_words(__m256i v)
{
#ifdef __AVX512VL__
    return _mm256_cvtph_ps(_mm256_cvtepi32_epi16(v));
#else
    __m256i packed = _mm256_packus_epi32(v, v);
    return _mm256_cvtph_ps(_mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08)));
#endif
}
ALWAYS __m256 low_f16(__m256i v)
{
    return f16_of_words(_mm256_and_si256(v, _mm256_set1_epi32(0xffff)));
}
ALWAYS __m256 high_f16(__m256i v)
{
    return f16_of_words(_mm256_srli_epi32(v, 16));
}

/* Byte i of each word as float. */
ALWAYS __m256 byte_f32(__m256i v, int i)
{
    return _mm256_cvtepi32_ps(
        _mm256_and_si256(_mm256_srli_epi32(v, 8 * i), _mm256_set1_epi32(0xff)));
}

/* ---- pieces of quants ------------------------------------------------------------------------ */

ALWAYS __m256i bytes(int v)
{
    return _mm256_set1_epi8((char)v);
}
ALWAYS __m256i low_nibble(__m256i v)
{
    return _mm256_and_si256(v, bytes(15));
}
ALWAYS __m256i high_nibble(__m256i v)
{
    return _mm256_and_si256(_mm256_srli_epi16(v, 4), bytes(15));
}
/* Bits [at, at + 2) of each byte, moved to bit `to`. */
ALWAYS __m256i field2(__m256i v, int at, int to)
{
    __m256i moved = at > to ? _mm256_srli_epi16(v, at - to) : _mm256_slli_epi16(v, to - at);
    return _mm256_and_si256(moved, bytes(3 << to));
}
ALWAYS __m256i bit1(__m256i v, int at, int to)
{
    __m256i moved = at > to ? _mm256_srli_epi16(v, at - to) : _mm256_slli_epi16(v, to - at);
    return _mm256_and_si256(moved, bytes(1 << to));
}

ALWAYS void put(uint8_t *w, uint32_t quad, __m256i v)
{
    _mm256_storeu_si256((__m256i *)(void *)(w + (size_t)quad * 4 * LANES), v);
}

/* 16 bytes of nibbles, elements 0..15 below and 16..31 above. */
ALWAYS void nibbles(const uint8_t *qs, size_t stride, __m256i q[8])
{
    __m256i t[4];
    transpose(qs, stride, t);
    for (int j = 0; j < 4; j++) {
        q[j] = low_nibble(t[j]);
        q[j + 4] = high_nibble(t[j]);
    }
}

ALWAYS void put8(uint8_t *w, const __m256i q[8])
{
    for (uint32_t j = 0; j < 8; j++)
        put(w, j, q[j]);
}

/* Values of a table by nibble. */
ALWAYS void look_up(__m256i table, __m256i q[8])
{
    for (int j = 0; j < 8; j++)
        q[j] = _mm256_shuffle_epi8(table, q[j]);
}

ALWAYS __m256i iq4_table(void) /* plus 128 */
{
    return _mm256_broadcastsi128_si256(_mm_setr_epi8(1, 24, 45, 63, 79, 93, 106, 118, (char)129,
        (char)141, (char)153, (char)166, (char)181, (char)197, (char)217, (char)241));
}

ALWAYS __m256i mxfp4_table(void) /* plus 12 */
{
    return _mm256_broadcastsi128_si256(
        _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));
}

/* Bit i of a word high is the fifth bit of element i. */
ALWAYS void fifth_bits(__m256i high, __m256i q[8])
{
    for (int j = 0; j < 8; j++) {
        __m256i from = _mm256_set1_epi64x(0x0404040400000000ll + 0x0101010101010101ll * (j / 2));
        __m256i bit = _mm256_set1_epi32(j % 2 ? (int)0x80402010u : 0x08040201);
        __m256i lanes = _mm256_add_epi8(
            from, _mm256_setr_epi64x(0, 0x0808080808080808ll, 0, 0x0808080808080808ll));
        __m256i v = _mm256_and_si256(_mm256_shuffle_epi8(high, lanes), bit);
        q[j] = _mm256_or_si256(q[j], _mm256_and_si256(_mm256_cmpeq_epi8(v, bit), bytes(16)));
    }
}

/* ---- blocks of 32, 8 outputs: w [8][64], scale and min [16] ---------------------------------- */

ALWAYS void q8_0_block(const uint8_t *b, size_t stride, uint8_t *w, float *scale, float *min)
{
    __m256i t[4];
    (void)min;
    _mm256_storeu_ps(scale, gather_f16(b, stride));
    for (uint32_t half = 0; half < 2; half++) {
        transpose(b + 2 + 16 * half, stride, t);
        for (uint32_t j = 0; j < 4; j++)
            put(w, 4 * half + j, _mm256_xor_si256(t[j], bytes(0x80)));
    }
}

ALWAYS void q4_0_block(const uint8_t *b, size_t stride, uint8_t *w, float *scale, float *min)
{
    __m256i q[8];
    (void)min;
    _mm256_storeu_ps(scale, gather_f16(b, stride));
    nibbles(b + 2, stride, q);
    put8(w, q);
}

ALWAYS void q4_1_block(const uint8_t *b, size_t stride, uint8_t *w, float *scale, float *min)
{
    __m256i q[8], d = gather_32(b, stride);
    _mm256_storeu_ps(scale, low_f16(d));
    _mm256_storeu_ps(min, high_f16(d));
    nibbles(b + 4, stride, q);
    put8(w, q);
}

ALWAYS void q5_0_block(const uint8_t *b, size_t stride, uint8_t *w, float *scale, float *min)
{
    __m256i q[8];
    (void)min;
    _mm256_storeu_ps(scale, gather_f16(b, stride));
    nibbles(b + 6, stride, q);
    fifth_bits(gather_32(b + 2, stride), q);
    put8(w, q);
}

ALWAYS void q5_1_block(const uint8_t *b, size_t stride, uint8_t *w, float *scale, float *min)
{
    __m256i q[8], d = gather_32(b, stride);
    _mm256_storeu_ps(scale, low_f16(d));
    _mm256_storeu_ps(min, high_f16(d));
    nibbles(b + 8, stride, q);
    fifth_bits(gather_32(b + 4, stride), q);
    put8(w, q);
}

ALWAYS void iq4_nl_block(const uint8_t *b, size_t stride, uint8_t *w, float *scale, float *min)
{
    __m256i q[8];
    (void)min;
    _mm256_storeu_ps(scale, gather_f16(b, stride));
    nibbles(b + 2, stride, q);
    look_up(iq4_table(), q);
    put8(w, q);
}

/* 2^(e - 128); the powers of e = 0 and 1 are subnormal. */
ALWAYS __m256 mxfp4_scale(__m256i e)
{
    __m256i one = _mm256_set1_epi32(1);
    __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, one), 23);
    __m256i small = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), e);
    return _mm256_castsi256_ps(_mm256_blendv_epi8(small, normal, _mm256_cmpgt_epi32(e, one)));
}

ALWAYS __m256 mxfp4_scales(const uint8_t *b, size_t stride)
{
    const uint8_t *b4 = b + 4 * stride;
    return mxfp4_scale(_mm256_setr_epi32(b[0], b[stride], b[2 * stride], b[3 * stride], b4[0],
        b4[stride], b4[2 * stride], b4[3 * stride]));
}

ALWAYS void mxfp4_block(const uint8_t *b, size_t stride, uint8_t *w, float *scale, float *min)
{
    __m256i q[8];
    (void)min;
    _mm256_storeu_ps(scale, mxfp4_scales(b, stride));
    nibbles(b + 1, stride, q);
    look_up(mxfp4_table(), q);
    put8(w, q);
}

/* ---- blocks of 256, 8 outputs: w [8][8][64], scale and min [16][16] -------------------------- */

#define BLOCK_W(w, g) ((w) + (size_t)(g)*8 * 4 * LANES)

/* d, dmin and 12 bytes of packed 6-bit scales and minima: 4 words a row. */
ALWAYS void k4_scales(const uint8_t *b, size_t stride, float *scale, float *min)
{
    __m256i t[4];
    transpose(b, stride, t);
    __m256 d = low_f16(t[0]), dmin = _mm256_xor_ps(high_f16(t[0]), _mm256_set1_ps(-0.0f));
    __m256i six = bytes(63);
    __m256i sc[2] = {
        _mm256_and_si256(t[1], six), _mm256_or_si256(low_nibble(t[3]), field2(t[1], 6, 4))};
    __m256i m[2] = {
        _mm256_and_si256(t[2], six), _mm256_or_si256(high_nibble(t[3]), field2(t[2], 6, 4))};
    for (int g = 0; g < 8; g++) {
        _mm256_storeu_ps(scale + (size_t)g * LANES, _mm256_mul_ps(d, byte_f32(sc[g / 4], g % 4)));
        _mm256_storeu_ps(min + (size_t)g * LANES, _mm256_mul_ps(dmin, byte_f32(m[g / 4], g % 4)));
    }
}

ALWAYS void q4_k_block(const uint8_t *b, size_t stride, uint8_t *w, float *scale, float *min)
{
    k4_scales(b, stride, scale, min);
    for (uint32_t i = 0; i < 8; i++) { /* 16 bytes: half of groups 2 (i / 2) and the one after */
        __m256i t[4];
        uint8_t *to = BLOCK_W(w, i / 2 * 2);
        transpose(b + 16 + 16 * i, stride, t);
        for (uint32_t j = 0; j < 4; j++) {
            put(to, i % 2 * 4 + j, low_nibble(t[j]));
            put(to, 8 + i % 2 * 4 + j, high_nibble(t[j]));
        }
    }
}

ALWAYS void q5_k_block(const uint8_t *b, size_t stride, uint8_t *w, float *scale, float *min)
{
    k4_scales(b, stride, scale, min);
    for (uint32_t half = 0; half < 2; half++) {
        __m256i t[4], high[4];
        transpose(b + 16 + 16 * half, stride, high);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            uint8_t *to = BLOCK_W(w, 2 * i);
            transpose(b + 48 + 32 * i + 16 * half, stride, t);
            for (uint32_t j = 0; j < 4; j++) {
                put(to, half * 4 + j, _mm256_or_si256(low_nibble(t[j]), bit1(high[j], 2 * i, 4)));
                put(to, 8 + half * 4 + j,
                    _mm256_or_si256(high_nibble(t[j]), bit1(high[j], 2 * i + 1, 4)));
            }
        }
    }
}

ALWAYS void q6_k_block(const uint8_t *b, size_t stride, uint8_t *w, float *scale, float *min)
{
    __m256i sc[4];
    __m256 d = gather_f16(b + 208, stride);
    (void)min;
    transpose(b + 192, stride, sc);
    for (int g = 0; g < 16; g++) {
        __m256i v = _mm256_srai_epi32(_mm256_slli_epi32(sc[g / 4], 24 - 8 * (g % 4)), 24);
        _mm256_storeu_ps(scale + (size_t)g * LANES, _mm256_mul_ps(d, _mm256_cvtepi32_ps(v)));
    }
    for (uint32_t i = 0; i < 4; i++) { /* half of the block, then 16 of 32 */
        uint32_t n = i / 2, half = i % 2 * 4;
        __m256i high[4], a[4], c[4];
        uint8_t *to = BLOCK_W(w, 4 * n);
        transpose(b + 128 + 16 * i, stride, high);
        transpose(b + 64 * n + 16 * (i % 2), stride, a);
        transpose(b + 64 * n + 32 + 16 * (i % 2), stride, c);
        for (uint32_t j = 0; j < 4; j++) {
            put(to, half + j, _mm256_or_si256(low_nibble(a[j]), field2(high[j], 0, 4)));
            put(to, 8 + half + j, _mm256_or_si256(low_nibble(c[j]), field2(high[j], 2, 4)));
            put(to, 16 + half + j, _mm256_or_si256(high_nibble(a[j]), field2(high[j], 4, 4)));
            put(to, 24 + half + j, _mm256_or_si256(high_nibble(c[j]), field2(high[j], 6, 4)));
        }
    }
}

ALWAYS void q2_k_block(const uint8_t *b, size_t stride, uint8_t *w, float *scale, float *min)
{
    __m256i sc[4], dd = gather_32(b + 80, stride);
    __m256 d = low_f16(dd), dmin = _mm256_xor_ps(high_f16(dd), _mm256_set1_ps(-0.0f));
    transpose(b, stride, sc);
    for (int g = 0; g < 16; g++) {
        __m256 s = byte_f32(low_nibble(sc[g / 4]), g % 4),
               m = byte_f32(high_nibble(sc[g / 4]), g % 4);
        _mm256_storeu_ps(scale + (size_t)g * LANES, _mm256_mul_ps(d, s));
        _mm256_storeu_ps(min + (size_t)g * LANES, _mm256_mul_ps(dmin, m));
    }
    for (uint32_t i = 0; i < 4; i++) {
        __m256i t[4];
        transpose(b + 16 + 16 * i, stride, t);
#pragma GCC unroll 4
        for (int f = 0; f < 4; f++)
            for (uint32_t j = 0; j < 4; j++)
                put(BLOCK_W(w, i / 2 * 4 + (uint32_t)f), i % 2 * 4 + j, field2(t[j], 2 * f, 0));
    }
}

/* 16 scales of 6 bits, offset 32, in 3 words a row. */
ALWAYS void k3_scales(const uint8_t *b, size_t stride, float *scale)
{
    __m256 d = gather_f16(b + 108, stride);
    __m256i s0 = gather_32(b + 96, stride), s1 = gather_32(b + 100, stride),
            hi = gather_32(b + 104, stride);
    __m256i sc[4] = {_mm256_or_si256(low_nibble(s0), field2(hi, 0, 4)),
        _mm256_or_si256(low_nibble(s1), field2(hi, 2, 4)),
        _mm256_or_si256(high_nibble(s0), field2(hi, 4, 4)),
        _mm256_or_si256(high_nibble(s1), field2(hi, 6, 4))};
    for (int g = 0; g < 16; g++) {
        __m256 s = _mm256_sub_ps(byte_f32(sc[g / 4], g % 4), _mm256_set1_ps(32.0f));
        _mm256_storeu_ps(scale + (size_t)g * LANES, _mm256_mul_ps(d, s));
    }
}

ALWAYS void q3_k_block(const uint8_t *b, size_t stride, uint8_t *w, float *scale, float *min)
{
    (void)min;
    k3_scales(b, stride, scale);
    for (uint32_t half = 0; half < 2; half++) {
        __m256i t[4], high[4];
        transpose(b + 16 * half, stride, high);
#pragma GCC unroll 2
        for (int n = 0; n < 2; n++) {
            transpose(b + 32 + 32 * n + 16 * half, stride, t);
#pragma GCC unroll 4
            for (int f = 0; f < 4; f++)
                for (uint32_t j = 0; j < 4; j++)
                    put(BLOCK_W(w, 4 * n + f), half * 4 + j,
                        _mm256_or_si256(field2(t[j], 2 * f, 0), bit1(high[j], 4 * n + f, 2)));
        }
    }
}

ALWAYS void iq4_xs_block(const uint8_t *b, size_t stride, uint8_t *w, float *scale, float *min)
{
    __m256i first = gather_32(b, stride), low = gather_32(b + 4, stride);
    __m256 d = low_f16(first);
    (void)min;
    for (int g = 0; g < 8; g++) {
        __m256i s = _mm256_and_si256(_mm256_srli_epi32(low, 4 * g), _mm256_set1_epi32(15));
        __m256i h = _mm256_and_si256(_mm256_srli_epi32(first, 16 + 2 * g), _mm256_set1_epi32(3));
        s = _mm256_sub_epi32(_mm256_or_si256(s, _mm256_slli_epi32(h, 4)), _mm256_set1_epi32(32));
        _mm256_storeu_ps(scale + (size_t)g * LANES, _mm256_mul_ps(d, _mm256_cvtepi32_ps(s)));
    }
    for (uint32_t g = 0; g < 8; g++) {
        __m256i q[8];
        nibbles(b + 8 + 16 * g, stride, q);
        look_up(iq4_table(), q);
        put8(BLOCK_W(w, g), q);
    }
}

/* ---- spans ----------------------------------------------------------------------------------- */

/* 16 outputs from p, `stride` apart; n_block blocks of 32. */
typedef void unpack_span(const uint8_t *p, size_t stride, uint32_t n_block, struct span *s);

#define SPAN_OF_SMALL(name, bytes_of)                                                              \
    static void name##_span(const uint8_t *p, size_t stride, uint32_t n_block, struct span *s)     \
    {                                                                                              \
        for (uint32_t i = 0; i < n_block; i++, p += (bytes_of)) {                                  \
            name##_block(p, stride, s->w[i][0], s->scale[i], s->min[i]);                           \
            name##_block(p + 8 * stride, stride, s->w[i][0] + 32, s->scale[i] + 8, s->min[i] + 8); \
        }                                                                                          \
    }
#define SPAN_OF_LARGE(name)                                                                        \
    static void name##_span(const uint8_t *p, size_t stride, uint32_t n_block, struct span *s)     \
    {                                                                                              \
        (void)n_block;                                                                             \
        for (uint32_t h = 0; h < 2; h++)                                                           \
            name##_block(p + h * 8 * stride, stride, s->w[0][0] + 32 * h, s->scale[0] + 8 * h,     \
                s->min[0] + 8 * h);                                                                \
    }

SPAN_OF_SMALL(q8_0, 34)
SPAN_OF_SMALL(q4_0, 18)
SPAN_OF_SMALL(q4_1, 20)
SPAN_OF_SMALL(q5_0, 22)
SPAN_OF_SMALL(q5_1, 24)
SPAN_OF_SMALL(iq4_nl, 18)
SPAN_OF_SMALL(mxfp4, 17)
SPAN_OF_LARGE(q2_k)
SPAN_OF_LARGE(q3_k)
SPAN_OF_LARGE(q4_k)
SPAN_OF_LARGE(q5_k)
SPAN_OF_LARGE(q6_k)
SPAN_OF_LARGE(iq4_xs)

struct q8_format {
    unpack_span *unpack;
    uint8_t group;       /* elements that share a scale: 16 or 32 */
    bool has_min;        /* then offset is 0 */
    uint8_t offset;      /* added to the signed quant */
    uint16_t span_bytes; /* of 256 elements */
};

static const struct q8_format q8_formats[W_FORMAT_COUNT] = {
    [W_Q8_0] = {q8_0_span, 32, false, 128, 272},
    [W_Q4_0] = {q4_0_span, 32, false, 8, 144},
    [W_Q4_1] = {q4_1_span, 32, true, 0, 160},
    [W_Q5_0] = {q5_0_span, 32, false, 16, 176},
    [W_Q5_1] = {q5_1_span, 32, true, 0, 192},
    [W_IQ4_NL] = {iq4_nl_span, 32, false, 128, 144},
    [W_MXFP4] = {mxfp4_span, 32, false, 12, 136},
    [W_Q2_K] = {q2_k_span, 16, true, 0, 84},
    [W_Q3_K] = {q3_k_span, 16, false, 4, 110},
    [W_Q4_K] = {q4_k_span, 32, true, 0, 144},
    [W_Q5_K] = {q5_k_span, 32, true, 0, 176},
    [W_Q6_K] = {q6_k_span, 16, false, 32, 210},
    [W_IQ4_XS] = {iq4_xs_span, 32, false, 128, 136},
};

#endif
