/* weight.h: how a weight matrix lies in a file, and the number formats in it. Shared by lib/io, which finds the bytes,
 * and kernels/, which compute with them in place. Raw pointers and sizes only.
 *
 * Element and block layouts: ggml (https://github.com/ggml-org/ggml, src/ggml-common.h), OCP 8-bit floating point,
 * compressed-tensors, AutoAWQ and GPTQ; each decoder in kernels/ref/decode.c gives its formula.
 */
#ifndef GLM_BASE_WEIGHT_H
#define GLM_BASE_WEIGHT_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum weight_format {
    W_NONE = 0,
    /* plain elements, row-major [n_out, n_in] */
    W_F32, W_F16, W_BF16,
    W_F8,                 /* E4M3 with scales: one per block of [block_out, block_in] elements */
    /* ggml blocks along n_in */
    W_Q8_0, W_Q4_0, W_Q4_1, W_Q5_0, W_Q5_1, W_IQ4_NL, W_MXFP4,      /* 32 elements a block */
    W_Q2_K, W_Q3_K, W_Q4_K, W_Q5_K, W_Q6_K, W_IQ4_XS,               /* 256 */
    /* int4 of safetensors: 8 nibbles in an int32 */
    W_I4_PACKED,          /* compressed-tensors: [n_out, n_in / 8], low nibble first, w = (u - 8 - zero) * scale */
    W_I4_AWQ,             /* AutoAWQ: [n_in, n_out / 8], nibble order 0 2 4 6 1 3 5 7, w = (u - zero) * scale */
    W_I4_GPTQ,            /* GPTQ v1: [n_in / 8, n_out], low nibble first, w = (u - (zero + 1)) * scale */
    W_FORMAT_COUNT
};

/* A view; it owns nothing. No pointer is guaranteed to be aligned to more than one byte: loads go through memcpy or
 * unaligned instructions. The bytes behind the pointers are the file's, checked by lib/io to be all there. */
struct weight {
    uint32_t format;       /* enum weight_format */
    uint32_t n_out, n_in;
    const void *data;
    uint64_t row_bytes;    /* from one stored row to the next: of n_out, for AWQ of n_in, for GPTQ of n_in / 8 */
    const void *scale;     /* W_F8: [ceil(n_out / block_out), ceil(n_in / block_in)]; W_I4_PACKED: [n_out, n_group];
                              AWQ, GPTQ: [n_group, n_out]; elements of scale_format */
    uint64_t scale_row_bytes;
    uint32_t scale_format; /* W_F32, W_F16 or W_BF16 */
    uint32_t block_out, block_in; /* W_F8 as above; int4: block_in is the group size, n_group = ceil(n_in / block_in) */
    uint32_t reserved;
    const void *zero;      /* NULL: symmetric. W_I4_PACKED: int32 [n_out / 8, n_group] nibbles along n_out, stored as
                              zero + 8; AWQ, GPTQ: int32 [n_group, n_out / 8] */
    uint64_t zero_row_bytes;
    const int32_t *group;  /* GPTQ, W_I4_PACKED with activation order: g_idx [n_in], checked < n_group (an aligned,
                              owned copy); NULL: i / block_in */
};

struct weight_block {
    uint16_t n, bytes; /* elements and bytes of a block; 1 element for plain formats; 0, 0 for the int4 formats */
};

/* Of a format's blocks; {0, 0} where rows are not made of blocks. */
static inline struct weight_block weight_block(uint32_t format)
{
    switch (format) {
    case W_F32: return (struct weight_block){ 1, 4 };
    case W_F16: case W_BF16: return (struct weight_block){ 1, 2 };
    case W_F8: return (struct weight_block){ 1, 1 };
    case W_Q8_0: return (struct weight_block){ 32, 34 };
    case W_Q4_0: return (struct weight_block){ 32, 18 };
    case W_Q4_1: return (struct weight_block){ 32, 20 };
    case W_Q5_0: return (struct weight_block){ 32, 22 };
    case W_Q5_1: return (struct weight_block){ 32, 24 };
    case W_IQ4_NL: return (struct weight_block){ 32, 18 };
    case W_MXFP4: return (struct weight_block){ 32, 17 };
    case W_Q2_K: return (struct weight_block){ 256, 84 };
    case W_Q3_K: return (struct weight_block){ 256, 110 };
    case W_Q4_K: return (struct weight_block){ 256, 144 };
    case W_Q5_K: return (struct weight_block){ 256, 176 };
    case W_Q6_K: return (struct weight_block){ 256, 210 };
    case W_IQ4_XS: return (struct weight_block){ 256, 136 };
    default: return (struct weight_block){ 0, 0 };
    }
}

/* ---- numbers --------------------------------------------------------------------------------------------------- */

static inline float f32_from_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

static inline uint32_t f32_bits(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, 4);
    return bits;
}

static inline float f32_from_bf16(uint16_t h) { return f32_from_bits((uint32_t)h << 16); }

/* Round to nearest even; a NaN stays a NaN. */
static inline uint16_t bf16_from_f32(float f)
{
    uint32_t u = f32_bits(f);
    if ((u & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(u >> 16 | 0x40u);
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}

static inline float f32_from_f16(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = h >> 10 & 31u, mantissa = h & 1023u;
    if (exponent == 31)
        return f32_from_bits(sign | 0x7f800000u | mantissa << 13);
    if (exponent != 0)
        return f32_from_bits(sign | (exponent + 112u) << 23 | mantissa << 13);
    float f = (float)mantissa * 0x1p-24f; /* subnormal: exact */
    return sign ? -f : f;
}

static inline uint16_t f16_from_f32(float f) /* nearest even; overflow gives infinity */
{
    uint32_t u = f32_bits(f), sign = u >> 16 & 0x8000u, a = u & 0x7fffffffu;
    if (a >= 0x7f800000u)
        return (uint16_t)(sign | 0x7c00u | (a > 0x7f800000u ? 0x200u : 0u));
    if (a >= 0x477ff000u)
        return (uint16_t)(sign | 0x7c00u);
    if (a < 0x38800000u) { /* subnormal or zero: add 0.5, whose last bit is 2^-24 */
        float m = f32_from_bits(a) + 0.5f;
        return (uint16_t)(sign | (f32_bits(m) - 0x3f000000u));
    }
    a += 0xc8000000u + 0xfffu + (a >> 13 & 1u); /* rebias by -112, round */
    return (uint16_t)(sign | a >> 13);
}

/* E4M3: bias 7, no infinity, 0x7f and 0xff are NaN. */
static inline float f32_from_e4m3(uint8_t b)
{
    uint32_t sign = (uint32_t)(b & 0x80u) << 24, exponent = b >> 3 & 15u, mantissa = b & 7u;
    if ((b & 0x7fu) == 0x7fu)
        return f32_from_bits(sign | 0x7fc00000u);
    if (exponent != 0)
        return f32_from_bits(sign | (exponent + 120u) << 23 | mantissa << 20);
    float f = (float)mantissa * 0x1p-9f;
    return sign ? -f : f;
}

#endif
