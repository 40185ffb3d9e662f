/* ref.h: the reference kernels among themselves. Only kernels/ref includes it; the fast kernels
 * know kernels.h alone. */
#ifndef GLM_KERNELS_REF_H
#define GLM_KERNELS_REF_H

#include "../kernels.h"

#include <float.h>
#include <math.h>

static inline uint16_t load_u16(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }
static inline float load_f16(const uint8_t *p) { return f32_from_f16(load_u16(p)); }

/* The int32 word at p, little-endian as all weights. */
static inline uint32_t load_u32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* vdpbf16ps's arithmetic: numbers below the smallest normal one are zeros, on the way in and out. */
static inline float flushed(float v) { return fabsf(v) < FLT_MIN ? copysignf(0.0f, v) : v; }

/* a * b + c, tiny or not after rounding with 24 bits: a result that only the fewer bits of subnormal numbers bring up to
 * FLT_MIN is found by computing it again, 2^32 times larger. */
static inline float fma_flushed(float a, float b, float c)
{
    a = flushed(a);
    b = flushed(b);
    c = flushed(c);
    float y = fmaf(a, b, c);
    if (fabsf(y) != FLT_MIN)
        return flushed(y);
    bool first = fabsf(a) < fabsf(b);
    float large = fmaf(first ? a * 0x1p32f : a, first ? b : b * 0x1p32f, c * 0x1p32f);
    return fabsf(large) < FLT_MIN * 0x1p32f ? copysignf(0.0f, y) : y;
}

/* Row i of the multiply. */
static inline const void *rows_at(const struct rows *x, uint32_t i)
{
    return (const char *)x->data + (x->index ? x->index[i] : i) * x->stride;
}

/* 6-bit scale and minimum g < 8 of a Q4_K or Q5_K super-block, packed in 12 bytes. */
static inline void k4_scale_min(const uint8_t *s, uint32_t g, uint32_t *scale, uint32_t *min)
{
    if (g < 4) {
        *scale = s[g] & 63u;
        *min = s[g + 4] & 63u;
    } else {
        *scale = (s[g + 4] & 15u) | (uint32_t)(s[g - 4] >> 6) << 4;
        *min = (uint32_t)(s[g + 4] >> 4) | (uint32_t)(s[g] >> 6) << 4;
    }
}

/* 6-bit scale g < 16 of a Q3_K super-block, packed in 12 bytes; -32 .. 31. */
static inline int32_t k3_scale(const uint8_t *s, uint32_t g)
{
    uint32_t low = g < 8 ? s[g] & 15u : (uint32_t)s[g - 8] >> 4;
    uint32_t high = (uint32_t)s[8 + g % 4] >> (2 * (g / 4)) & 3u;
    return (int32_t)(low | high << 4) - 32;
}

/* quants.c: row `row` of a ggml block format as signed integers and one scale (and minimum) a
 * group, so that w[i] = q[i] * scale[i / group] (+ min[i / group]). */
struct quants {
    int8_t *q;      /* [n_in] */
    float *scale;   /* [n_in / group] */
    float *min;     /* [n_in / group]; added, so a K-quant's is negative; unused without has_min */
    uint32_t group; /* 16 or 32 elements */
    bool has_min;
};
void ref_quants(const struct weight *w, uint32_t row, struct quants *out);

void ref_decode_row(const struct weight *w, uint32_t row, float *out);
void ref_matmul_f32(const struct matmul *mm, uint32_t out_begin, uint32_t out_end, void *scratch);
void ref_swiglu_f32(const struct swiglu *sg, uint32_t out_begin, uint32_t out_end, void *scratch);
void ref_matmul_q8(const struct matmul *mm, uint32_t out_begin, uint32_t out_end, void *scratch);
void ref_swiglu_q8(const struct swiglu *sg, uint32_t out_begin, uint32_t out_end, void *scratch);
void ref_quantize_q8(const float *x, uint32_t n_in, void *row);
void ref_matmul_bf16(const struct matmul *mm, uint32_t out_begin, uint32_t out_end, void *scratch);
void ref_swiglu_bf16(const struct swiglu *sg, uint32_t out_begin, uint32_t out_end, void *scratch);
void ref_round_bf16(const float *x, uint32_t n_in, void *row);
void ref_rms_norm(const float *x, const float *w, uint32_t n, float eps, float *y);
void ref_rope(float *x, uint32_t n_rot, const float *c, const float *s);
float ref_dot(const float *a, const float *b, uint32_t n);
float ref_sum(const float *a, uint32_t n);
float ref_silu_mul(float gate, float up); /* (gate * sigmoid(gate)) * up */
void ref_add(float *y, const float *x, uint32_t n);
void ref_axpy(float *y, float a, const float *x, uint32_t n);
void ref_kv_store(
    uint32_t kv_type, uint32_t d_head, const float *k, const float *v, uint32_t slot, void *head);
void ref_attention(const struct attention *a, void *scratch);
void ref_attention_merge(
    const float *part, uint32_t n_part, uint64_t stride, uint32_t d_head, float *y);

#endif
