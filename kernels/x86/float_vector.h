/* float_vector.h: norms, rotations, dot products, sums, and activations to Q8; part of float_avx2.c
 * and float_avx512.c. */
#ifndef GLM_KERNELS_FLOAT_VECTOR_H
#define GLM_KERNELS_FLOAT_VECTOR_H

#include "v16.h"

#include <math.h>

static float dot(const float *a, const float *b, uint32_t n)
{
    v16 acc = v16_set(0);
    uint32_t i = 0;
    for (; i + 16 <= n; i += 16)
        acc = v16_fma(v16_load(a + i), v16_load(b + i), acc);
    if (i < n)
        acc = v16_fma(
            v16_load_n(a + i, n - i), v16_fill(v16_load_n(b + i, n - i), n - i, -0.0f), acc);
    return v16_fold(acc);
}

static void rms_norm(const float *x, const float *w, uint32_t n, float eps, float *y)
{
    v16 r = v16_set(1.0f / sqrtf(dot(x, x, n) / (float)n + eps));
    uint32_t i = 0;
    for (; i + 16 <= n; i += 16)
        v16_store(y + i, v16_mul(v16_mul(v16_load(x + i), r), v16_load(w + i)));
    if (i < n)
        v16_store_n(
            y + i, v16_mul(v16_mul(v16_load_n(x + i, n - i), r), v16_load_n(w + i, n - i)), n - i);
}

static void rope(float *x, uint32_t n_rot, const float *c, const float *s)
{
    float *low = x, *high = x + n_rot / 2;
    for (uint32_t i = 0; i < n_rot / 2; i += 16) {
        uint32_t n = n_rot / 2 - i < 16 ? n_rot / 2 - i : 16;
        v16 a = v16_load_n(low + i, n), b = v16_load_n(high + i, n), cv = v16_load_n(c + i, n),
            sv = v16_load_n(s + i, n);
        v16_store_n(low + i, v16_fma(a, cv, v16_negate(v16_mul(b, sv))), n);
        v16_store_n(high + i, v16_fma(b, cv, v16_mul(a, sv)), n);
    }
}

static void add(float *y, const float *x, uint32_t n)
{
    uint32_t i = 0;
    for (; i + 16 <= n; i += 16)
        v16_store(y + i, v16_add(v16_load(y + i), v16_load(x + i)));
    if (i < n)
        v16_store_n(y + i, v16_add(v16_load_n(y + i, n - i), v16_load_n(x + i, n - i)), n - i);
}

static void axpy(float *y, float a, const float *x, uint32_t n)
{
    v16 f = v16_set(a);
    uint32_t i = 0;
    for (; i + 16 <= n; i += 16)
        v16_store(y + i, v16_fma(f, v16_load(x + i), v16_load(y + i)));
    if (i < n)
        v16_store_n(y + i, v16_fma(f, v16_load_n(x + i, n - i), v16_load_n(y + i, n - i)), n - i);
}

/* Sum of sixteen int8. */
INLINE int32_t sum_i8(__m128i q)
{
    __m128i s = _mm_sad_epu8(_mm_xor_si128(q, _mm_set1_epi8((char)0x80)), _mm_setzero_si128());
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_unpackhi_epi64(s, s))) - 16 * 128;
}

/* Per block of 32: max|x| with the scale from it, then both halves rounded and summed. */
static void quantize_q8(const float *x, uint32_t n_in, void *row)
{
    char *q = row;
    float *scale = (float *)(void *)(q + q8_scale_at(n_in));
    int32_t *sum = (int32_t *)(void *)(q + q8_sum_at(n_in));
    v16 infinity = v16_set(INFINITY);
    for (uint32_t i = 0; i < n_in; i += 32) {
        v16 a = v16_load(x + i), b = v16_load(x + i + 16), aa = v16_abs(a), ab = v16_abs(b);
        __m128i qa = _mm_setzero_si128(), qb = qa;
        float s = NAN;
        if (v16_all_less(aa, infinity) && v16_all_less(ab, infinity)) {
            float max = v16_max_of(v16_max(aa, ab));
            s = 0;
            if (!(max < 1e-30f)) {
                v16 inverse = v16_set(127.0f / max);
                qa = v16_to_i8(v16_mul(a, inverse));
                qb = v16_to_i8(v16_mul(b, inverse));
                s = max / 127.0f;
            }
        }
        _mm_storeu_si128((__m128i *)(void *)(q + i), qa);
        _mm_storeu_si128((__m128i *)(void *)(q + i + 16), qb);
        scale[i / 32] = s;
        sum[i / 16] = sum_i8(qa);
        sum[i / 16 + 1] = sum_i8(qb);
    }
}

#endif
