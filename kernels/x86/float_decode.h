/* float_decode.h: weight rows to float32, sixteen elements at a time; part of float_avx2.c and
 * float_avx512.c. Layouts and formulas: kernels/ref/decode.c; the products and sums round in the
 * same order.
 *
 * A ggml block becomes, sixteen elements at a time, signed bytes in an xmm register, then y = q *
 * scale (+ or - min). Only whole blocks are read: nothing behind a row.
 */
#ifndef GLM_KERNELS_FLOAT_DECODE_H
#define GLM_KERNELS_FLOAT_DECODE_H

#include "v16.h"

INLINE void put16(float *y, __m128i q, float scale)
{
    v16_store(y, v16_mul(v16_from_i8(q), v16_set(scale)));
}

INLINE void put16_plus(float *y, __m128i q, float scale, float min)
{
    v16_store(y, v16_add(v16_mul(v16_from_i8(q), v16_set(scale)), v16_set(min)));
}

INLINE void put16_minus(float *y, __m128i q, float scale, float min)
{
    v16_store(y, v16_sub(v16_mul(v16_from_i8(q), v16_set(scale)), v16_set(min)));
}

INLINE __m128i low4(__m128i b) { return _mm_and_si128(b, _mm_set1_epi8(15)); }
INLINE __m128i high4(__m128i b) { return _mm_and_si128(_mm_srli_epi16(b, 4), _mm_set1_epi8(15)); }
INLINE __m128i sub8(__m128i q, int n) { return _mm_sub_epi8(q, _mm_set1_epi8((char)n)); }

/* Bits 16 i .. of a mask as bytes: 16 where set. */
INLINE __m128i bits_to_16(uint32_t bits, int first)
{
    __m128i m = _mm_shuffle_epi8(_mm_cvtsi32_si128((int)(bits >> first)),
        _mm_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1));
    __m128i bit = _mm_set1_epi64x((long long)0x8040201008040201u);
    return _mm_and_si128(_mm_cmpeq_epi8(_mm_and_si128(m, bit), bit), _mm_set1_epi8(16));
}

INLINE __m128i iq4_table(void)
{
    return _mm_setr_epi8(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113);
}

INLINE __m128i mxfp4_table(void)
{
    return _mm_setr_epi8(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12);
}

/* ---- blocks of 32 ---------------------------------------------------------------------------- */

static void q8_0_block(const uint8_t *b, float *y)
{
    float d = half_to_float(b);
    put16(y, load_128(b + 2), d);
    put16(y + 16, load_128(b + 18), d);
}

static void q4_0_block(const uint8_t *b, float *y)
{
    float d = half_to_float(b);
    __m128i qs = load_128(b + 2);
    put16(y, sub8(low4(qs), 8), d);
    put16(y + 16, sub8(high4(qs), 8), d);
}

static void q4_1_block(const uint8_t *b, float *y)
{
    float d = half_to_float(b), m = half_to_float(b + 2);
    __m128i qs = load_128(b + 4);
    put16_plus(y, low4(qs), d, m);
    put16_plus(y + 16, high4(qs), d, m);
}

static void q5_0_block(const uint8_t *b, float *y)
{
    float d = half_to_float(b);
    uint32_t high = get_u32(b + 2);
    __m128i qs = load_128(b + 6);
    put16(y, sub8(_mm_or_si128(low4(qs), bits_to_16(high, 0)), 16), d);
    put16(y + 16, sub8(_mm_or_si128(high4(qs), bits_to_16(high, 16)), 16), d);
}

static void q5_1_block(const uint8_t *b, float *y)
{
    float d = half_to_float(b), m = half_to_float(b + 2);
    uint32_t high = get_u32(b + 4);
    __m128i qs = load_128(b + 8);
    put16_plus(y, _mm_or_si128(low4(qs), bits_to_16(high, 0)), d, m);
    put16_plus(y + 16, _mm_or_si128(high4(qs), bits_to_16(high, 16)), d, m);
}

static void iq4_nl_block(const uint8_t *b, float *y)
{
    float d = half_to_float(b);
    __m128i qs = load_128(b + 2);
    put16(y, _mm_shuffle_epi8(iq4_table(), low4(qs)), d);
    put16(y + 16, _mm_shuffle_epi8(iq4_table(), high4(qs)), d);
}

static void mxfp4_block(const uint8_t *b, float *y)
{
    float d = f32_from_bits(b[0] < 2 ? 0x00200000u << b[0] : (uint32_t)(b[0] - 1) << 23);
    __m128i qs = load_128(b + 1);
    put16(y, _mm_shuffle_epi8(mxfp4_table(), low4(qs)), d);
    put16(y + 16, _mm_shuffle_epi8(mxfp4_table(), high4(qs)), d);
}

/* ---- blocks of 256 --------------------------------------------------------------------------- */

INLINE __m128i field2(__m128i b, int field)
{
    return _mm_and_si128(_mm_srl_epi16(b, _mm_cvtsi32_si128(2 * field)), _mm_set1_epi8(3));
}

static void q2_k_block(const uint8_t *b, float *y)
{
    float d = half_to_float(b + 80), dmin = half_to_float(b + 82);
    for (int g = 0; g < 16;
         g++) { /* elements 16 g ..: bytes 32 (g / 8) + 16 (g % 2), field (g % 8) / 2 */
        __m128i qs = load_128(b + 16 + g / 8 * 32 + g % 2 * 16);
        put16_minus(
            y + 16 * g, field2(qs, g % 8 / 2), d * (float)(b[g] & 15), dmin * (float)(b[g] >> 4));
    }
}

INLINE int k3_scale(const uint8_t *s, int g)
{
    int low = g < 8 ? s[g] & 15 : s[g - 8] >> 4, high = s[8 + g % 4] >> (2 * (g / 4)) & 3;
    return (low | high << 4) - 32;
}

static void q3_k_block(const uint8_t *b, float *y)
{
    float d = half_to_float(b + 108);
    for (int g = 0; g < 16; g++) {
        __m128i q = field2(load_128(b + 32 + g / 8 * 32 + g % 2 * 16), g % 8 / 2);
        __m128i bit = _mm_set1_epi8((char)(1 << g / 2)),
                hm = _mm_and_si128(load_128(b + g % 2 * 16), bit);
        __m128i minus = _mm_andnot_si128(_mm_cmpeq_epi8(hm, bit), _mm_set1_epi8(4));
        put16(y + 16 * g, _mm_sub_epi8(q, minus), d * (float)k3_scale(b + 96, g));
    }
}

INLINE void k4_scale_min(const uint8_t *s, int g, int *scale, int *min)
{
    *scale = g < 4 ? s[g] & 63 : (s[g + 4] & 15) | s[g - 4] >> 6 << 4;
    *min = g < 4 ? s[g + 4] & 63 : s[g + 4] >> 4 | s[g] >> 6 << 4;
}

static void q4_k_block(const uint8_t *b, float *y)
{
    float d = half_to_float(b), dmin = half_to_float(b + 2);
    for (int g = 0; g < 8; g++) {
        int sc, m;
        k4_scale_min(b + 4, g, &sc, &m);
        float scale = d * (float)sc, min = dmin * (float)m;
        for (int half = 0; half < 2; half++) {
            __m128i qs = load_128(b + 16 + g / 2 * 32 + half * 16);
            put16_minus(y + 32 * g + 16 * half, g % 2 ? high4(qs) : low4(qs), scale, min);
        }
    }
}

static void q5_k_block(const uint8_t *b, float *y)
{
    float d = half_to_float(b), dmin = half_to_float(b + 2);
    for (int g = 0; g < 8; g++) {
        int sc, m;
        k4_scale_min(b + 4, g, &sc, &m);
        float scale = d * (float)sc, min = dmin * (float)m;
        for (int half = 0; half < 2; half++) {
            __m128i qs = load_128(b + 48 + g / 2 * 32 + half * 16),
                    bit = _mm_set1_epi8((char)(1 << g));
            __m128i qh = _mm_cmpeq_epi8(_mm_and_si128(load_128(b + 16 + half * 16), bit), bit);
            __m128i q =
                _mm_or_si128(g % 2 ? high4(qs) : low4(qs), _mm_and_si128(qh, _mm_set1_epi8(16)));
            put16_minus(y + 32 * g + 16 * half, q, scale, min);
        }
    }
}

static void q6_k_block(const uint8_t *b, float *y)
{
    float d = half_to_float(b + 208);
    for (int g = 0; g < 16; g++) {
        int j = g % 8 / 2;
        __m128i ql = load_128(b + g / 8 * 64 + j % 2 * 32 + g % 2 * 16);
        __m128i qh = field2(load_128(b + 128 + g / 8 * 32 + g % 2 * 16), j);
        __m128i v = _mm_or_si128(j < 2 ? low4(ql) : high4(ql), _mm_slli_epi16(qh, 4));
        put16(y + 16 * g, sub8(v, 32), d * (float)(int8_t)b[192 + g]);
    }
}

static void iq4_xs_block(const uint8_t *b, float *y)
{
    float d = half_to_float(b);
    int high = get_u16(b + 2);
    for (int g = 0; g < 8; g++) {
        int s = (b[4 + g / 2] >> g % 2 * 4 & 15) | (high >> 2 * g & 3) << 4;
        float scale = d * (float)(s - 32);
        __m128i qs = load_128(b + 8 + 16 * g);
        put16(y + 32 * g, _mm_shuffle_epi8(iq4_table(), low4(qs)), scale);
        put16(y + 32 * g + 16, _mm_shuffle_epi8(iq4_table(), high4(qs)), scale);
    }
}

/* ---- plain elements -------------------------------------------------------------------------- */

/* Bytes of one element of a plain format. */
INLINE uint32_t plain_bytes(uint32_t format)
{
    return format == W_F32 ? 4 : format == W_F8 ? 1 : 2;
}

/* Sixteen elements at p; F8 without its scale. */
INLINE v16 plain16(uint32_t format, const void *p)
{
    switch (format) {
    case W_F32: return v16_load(p);
    case W_F16: return v16_from_half(_mm256_loadu_si256(p));
    case W_BF16: return v16_from_bf16(p);
    default: return v16_from_f8(load_128(p));
    }
}

/* n < 16 elements, zeros behind them. */
INLINE v16 plain_n(uint32_t format, const void *p, uint32_t n)
{
    char tail[64] = { 0 };
    memcpy(tail, p, n * plain_bytes(format));
    return plain16(format, tail);
}

/* Element i of a row of scales. */
INLINE float scale_at(const uint8_t *row, uint32_t format, uint32_t i)
{
    if (format == W_F32)
        return f32_from_bits(get_u32(row + 4 * (size_t)i));
    if (format == W_F16)
        return half_to_float(row + 2 * (size_t)i);
    return f32_from_bf16(get_u16(row + 2 * (size_t)i));
}

INLINE void plain_row(uint32_t format, const uint8_t *b, uint32_t n, float *y)
{
    uint32_t i = 0, size = plain_bytes(format);
    for (; i + 16 <= n; i += 16)
        v16_store(y + i, plain16(format, b + i * size));
    if (i < n)
        v16_store_n(y + i, plain_n(format, b + i * size, n - i), n - i);
}

static void f8_row(const struct weight *w, uint32_t row, float *y)
{
    const uint8_t *b = (const uint8_t *)w->data + row * w->row_bytes;
    const uint8_t *scale = (const uint8_t *)w->scale + row / w->block_out * w->scale_row_bytes;
    for (uint32_t begin = 0, block = 0; begin < w->n_in; begin += w->block_in, block++) {
        uint32_t end = w->n_in - begin < w->block_in ? w->n_in : begin + w->block_in, i = begin;
        v16 s = v16_set(scale_at(scale, w->scale_format, block));
        for (; i + 16 <= end; i += 16)
            v16_store(y + i, v16_mul(plain16(W_F8, b + i), s));
        if (i < end)
            v16_store_n(y + i, v16_mul(plain_n(W_F8, b + i, end - i), s), end - i);
    }
}

/* ---- int4 ------------------------------------------------------------------------------------ */

INLINE uint32_t word_nibble(const void *base, uint64_t at, uint32_t n)
{
    return get_u32((const uint8_t *)base + at) >> (4 * n) & 15u;
}

/* compressed-tensors without activation order, groups of a multiple of 16. */
static void i4_packed_row(const struct weight *w, uint32_t row, float *y)
{
    const uint8_t *b = (const uint8_t *)w->data + row * w->row_bytes;
    const uint8_t *scale = (const uint8_t *)w->scale + row * w->scale_row_bytes;
    for (uint32_t i = 0; i < w->n_in; i += 16) {
        uint32_t g = i / w->block_in, n = w->n_in - i;
        uint32_t z =
            w->zero ? word_nibble(w->zero, row / 8 * w->zero_row_bytes + g * 4u, row % 8) : 8;
        __m128i qs = n >= 16 ? load_64(b + i / 2)
                             : _mm_cvtsi32_si128((int)get_u32(b + i / 2)); /* n_in: by 8 */
        __m128i q = sub8(_mm_unpacklo_epi8(low4(qs), high4(qs)), (int)z);
        v16 v = v16_mul(v16_from_i8(q), v16_set(scale_at(scale, w->scale_format, g)));
        if (n >= 16)
            v16_store(y + i, v);
        else
            v16_store_n(y + i, v, n);
    }
}

/* a[i][j] to y[j * stride + i]: eight inputs of eight outputs become eight rows. */
INLINE void transpose_8(const __m256 *a, float *y, size_t stride)
{
    __m256 t[8], u[8];
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(a[i], a[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        u[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
        u[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
        u[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        u[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    for (int i = 0; i < 4; i++) {
        _mm256_storeu_ps(y + (size_t)i * stride, _mm256_permute2f128_ps(u[i], u[i + 4], 0x20));
        _mm256_storeu_ps(
            y + (size_t)(i + 4) * stride, _mm256_permute2f128_ps(u[i], u[i + 4], 0x31));
    }
}

/* Scales of outputs out .. out + 7. */
INLINE __m256 scales_8(const uint8_t *row, uint32_t format, uint32_t out)
{
    if (format == W_F32)
        return _mm256_loadu_ps((const float *)(const void *)row + out);
    __m128i h = load_128(row + 2 * (size_t)out);
    return format == W_F16 ? _mm256_cvtph_ps(h)
                           : _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

/* AutoAWQ and GPTQ: outputs out .. out + 7, out a multiple of 8, to rows of y. Both keep scales and
 * zeros of eight outputs side by side, so that lanes are outputs. */
static void i4_columns_8(const struct weight *w, uint32_t out, float *y, size_t stride)
{
    bool awq = w->format == W_I4_AWQ;
    const uint8_t *b = (const uint8_t *)w->data + (awq ? out / 8 * 4 : out * 4);
    __m256i place = awq ? _mm256_setr_epi32(0, 16, 4, 20, 8, 24, 12, 28)
                        : _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
    __m256i fifteen = _mm256_set1_epi32(15), z = _mm256_set1_epi32(8);
    __m256 scale = _mm256_setzero_ps();
    uint32_t last = UINT32_MAX;
    for (uint32_t i = 0; i < w->n_in; i += 8) {
        __m256i word =
            awq ? z : _mm256_loadu_si256((const __m256i *)(const void *)(b + i / 8 * w->row_bytes));
        __m256 v[8];
        for (uint32_t k = 0; k < 8; k++) {
            uint32_t g = w->group ? (uint32_t)w->group[i + k] : (i + k) / w->block_in;
            if (g != last) {
                last = g;
                scale = scales_8(
                    (const uint8_t *)w->scale + g * w->scale_row_bytes, w->scale_format, out);
                if (w->zero) {
                    uint32_t zeros =
                        get_u32((const uint8_t *)w->zero + g * w->zero_row_bytes + out / 8 * 4);
                    z = _mm256_and_si256(
                        _mm256_srlv_epi32(_mm256_set1_epi32((int)zeros), place), fifteen);
                    z = awq ? z : _mm256_add_epi32(z, _mm256_set1_epi32(1));
                }
            }
            __m256i u =
                awq ? _mm256_srlv_epi32(
                          _mm256_set1_epi32((int)get_u32(b + (i + k) * w->row_bytes)), place)
                    : _mm256_srl_epi32(word, _mm_cvtsi32_si128((int)(4 * k)));
            u = _mm256_sub_epi32(_mm256_and_si256(u, fifteen), z);
            v[k] = _mm256_mul_ps(_mm256_cvtepi32_ps(u), scale);
        }
        transpose_8(v, y + i, stride);
    }
}

/* ---- rows ------------------------------------------------------------------------------------ */

typedef void decode_block(const uint8_t *b, float *y);

static decode_block *const block_decoder[W_FORMAT_COUNT] = {
    [W_Q8_0] = q8_0_block,
    [W_Q4_0] = q4_0_block,
    [W_Q4_1] = q4_1_block,
    [W_Q5_0] = q5_0_block,
    [W_Q5_1] = q5_1_block,
    [W_IQ4_NL] = iq4_nl_block,
    [W_MXFP4] = mxfp4_block,
    [W_Q2_K] = q2_k_block,
    [W_Q3_K] = q3_k_block,
    [W_Q4_K] = q4_k_block,
    [W_Q5_K] = q5_k_block,
    [W_Q6_K] = q6_k_block,
    [W_IQ4_XS] = iq4_xs_block,
};

static void decode_row(const struct weight *w, uint32_t row, float *out)
{
    const uint8_t *b = (const uint8_t *)w->data + row * w->row_bytes;
    struct weight_block size = weight_block(w->format);
    switch (w->format) {
    case W_F32: memcpy(out, b, w->n_in * sizeof *out); return;
    case W_F16: plain_row(W_F16, b, w->n_in, out); return;
    case W_BF16: plain_row(W_BF16, b, w->n_in, out); return;
    case W_F8: f8_row(w, row, out); return;
    default: break;
    }
    if (size.n > 0) {
        for (uint32_t i = 0; i < w->n_in; i += size.n, b += size.bytes)
            block_decoder[w->format](b, out + i);
    } else if (w->format == W_I4_PACKED && !w->group && w->block_in % 16 == 0) {
        i4_packed_row(w, row, out);
    } else { /* a single row of AWQ or GPTQ, or activation order in compressed-tensors: rare */
        struct kernels ref;
        kernels_ref(&ref);
        ref.decode_row(w, row, out);
    }
}

/* n outputs from `out` to rows of y, `stride` floats apart. */
static void decode_rows(const struct weight *w, uint32_t out, uint32_t n, float *y, size_t stride)
{
    bool columns = (w->format == W_I4_AWQ || w->format == W_I4_GPTQ) && w->n_in % 8 == 0;
    for (uint32_t i = 0; i < n;) {
        if (columns && (out + i) % 8 == 0 && n - i >= 8) {
            i4_columns_8(w, out + i, y + i * stride, stride);
            i += 8;
        } else {
            decode_row(w, out + i, y + i * stride);
            i++;
        }
    }
}

#endif
