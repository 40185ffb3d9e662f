/* decode.c: a row of weights as float32, for every format: the meaning of the bytes in a file.
 * Formulas and layouts are those of ggml's block formats, OCP FP8 and the three int4 conventions
 * (see lib/base/weight.h).
 *
 * Legend: y[i] the weight at input i; in a block, i counts from its first element. d, m, dmin are
 * float16, little-endian. Each product and sum rounds to float32, in the order written; nothing is
 * fused. n(i) is a nibble of qs: in blocks of 32, byte i holds element i below and element i + 16
 * above. K-quant blocks of 256 are halves (or quarters) of bytes whose bit fields belong to
 * elements 32 apart.
 */
#include "ref.h"

static const int8_t iq4_value[16] = { -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53,
    69, 89, 113 };
static const int8_t mxfp4_value[16] = { 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8,
    -12 }; /* E2M1, doubled */

static uint32_t nibble(const uint8_t *qs, uint32_t i)
{
    return i < 16 ? qs[i] & 15u : (uint32_t)qs[i - 16] >> 4;
}

/* ---- blocks of 32 ---------------------------------------------------------------------------- */

/* d, q[32]: y = q d */
static void q8_0_block(const uint8_t *b, float *y)
{
    float d = load_f16(b);
    for (uint32_t i = 0; i < 32; i++)
        y[i] = (float)(int8_t)b[2 + i] * d;
}

/* d, qs[16]: y = (n - 8) d */
static void q4_0_block(const uint8_t *b, float *y)
{
    float d = load_f16(b);
    for (uint32_t i = 0; i < 32; i++)
        y[i] = (float)((int32_t)nibble(b + 2, i) - 8) * d;
}

/* d, m, qs[16]: y = n d + m */
static void q4_1_block(const uint8_t *b, float *y)
{
    float d = load_f16(b), m = load_f16(b + 2);
    for (uint32_t i = 0; i < 32; i++) {
        float nd = (float)nibble(b + 4, i) * d;
        y[i] = nd + m;
    }
}

/* d, qh[4], qs[16]: the fifth bit of element i is bit i of qh; y = (n - 16) d */
static void q5_0_block(const uint8_t *b, float *y)
{
    float d = load_f16(b);
    uint32_t high = load_u32(b + 2);
    for (uint32_t i = 0; i < 32; i++)
        y[i] = (float)((int32_t)(nibble(b + 6, i) | (high >> i & 1u) << 4) - 16) * d;
}

/* d, m, qh[4], qs[16]: y = n d + m */
static void q5_1_block(const uint8_t *b, float *y)
{
    float d = load_f16(b), m = load_f16(b + 2);
    uint32_t high = load_u32(b + 4);
    for (uint32_t i = 0; i < 32; i++) {
        float nd = (float)(nibble(b + 8, i) | (high >> i & 1u) << 4) * d;
        y[i] = nd + m;
    }
}

/* d, qs[16]: y = T[n] d */
static void iq4_nl_block(const uint8_t *b, float *y)
{
    float d = load_f16(b);
    for (uint32_t i = 0; i < 32; i++)
        y[i] = (float)iq4_value[nibble(b + 2, i)] * d;
}

/* 2^(e - 128), whose last two are subnormal: e = 0 gives 2^-128, e = 1 gives 2^-127. */
static float mxfp4_scale(uint8_t e)
{
    return f32_from_bits(e < 2 ? 0x00200000u << e : (uint32_t)(e - 1) << 23);
}

/* e, qs[16]: y = K[n] 2^(e - 128), K twice the E2M1 value */
static void mxfp4_block(const uint8_t *b, float *y)
{
    float d = mxfp4_scale(b[0]);
    for (uint32_t i = 0; i < 32; i++)
        y[i] = (float)mxfp4_value[nibble(b + 1, i)] * d;
}

/* ---- blocks of 256 --------------------------------------------------------------------------- */

/* Element i: byte 32 (i / 128) + i % 32 of a plane of 2-bit fields, field (i % 128) / 32. */
static uint32_t field2(const uint8_t *plane, uint32_t i)
{
    return (uint32_t)plane[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3u;
}

/* sc[16] (scale below, minimum above), qs[64], d, dmin: y = (d sc) q - dmin m, groups of 16 */
static void q2_k_block(const uint8_t *b, float *y)
{
    float d = load_f16(b + 80), dmin = load_f16(b + 82);
    for (uint32_t i = 0; i < 256; i++) {
        float scale = d * (float)(b[i / 16] & 15), min = dmin * (float)(b[i / 16] >> 4);
        float v = scale * (float)field2(b + 16, i);
        y[i] = v - min;
    }
}

/* hm[32] (third bit, set: no minus 4), qs[64], scales[12], d: y = (d S) (q - (h ? 0 : 4)), groups
 * of 16 */
static void q3_k_block(const uint8_t *b, float *y)
{
    float d = load_f16(b + 108);
    for (uint32_t i = 0; i < 256; i++) {
        float scale = d * (float)k3_scale(b + 96, i / 16);
        bool high = b[i % 32] >> (i / 32) & 1;
        y[i] = scale * (float)((int32_t)field2(b + 32, i) - (high ? 0 : 4));
    }
}

/* d, dmin, scales[12], qs[128]: y = (d sc) n - dmin m, groups of 32 */
static void q4_k_block(const uint8_t *b, float *y)
{
    float d = load_f16(b), dmin = load_f16(b + 2);
    for (uint32_t g = 0; g < 8; g++) {
        uint32_t sc, m;
        k4_scale_min(b + 4, g, &sc, &m);
        float scale = d * (float)sc, min = dmin * (float)m;
        for (uint32_t l = 0; l < 32; l++) {
            float v = scale * (float)(b[16 + g / 2 * 32 + l] >> (g % 2 * 4) & 15);
            y[32 * g + l] = v - min;
        }
    }
}

/* d, dmin, scales[12], qh[32], qs[128]: as Q4_K, the fifth bit of group g is bit g of qh[l] */
static void q5_k_block(const uint8_t *b, float *y)
{
    float d = load_f16(b), dmin = load_f16(b + 2);
    for (uint32_t g = 0; g < 8; g++) {
        uint32_t sc, m;
        k4_scale_min(b + 4, g, &sc, &m);
        float scale = d * (float)sc, min = dmin * (float)m;
        for (uint32_t l = 0; l < 32; l++) {
            int32_t n = (b[48 + g / 2 * 32 + l] >> (g % 2 * 4) & 15) | (b[16 + l] >> g & 1) << 4;
            float v = scale * (float)n;
            y[32 * g + l] = v - min;
        }
    }
}

/* ql[128], qh[64], sc int8[16], d: y = (d sc) (v - 32), groups of 16 */
static void q6_k_block(const uint8_t *b, float *y)
{
    float d = load_f16(b + 208);
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t j = i % 128 / 32;
        uint8_t low = b[i / 128 * 64 + j % 2 * 32 + i % 32];
        int32_t v = (j < 2 ? low & 15 : low >> 4) | (int32_t)field2(b + 128, i) << 4;
        float scale = d * (float)(int8_t)b[192 + i / 16];
        y[i] = scale * (float)(v - 32);
    }
}

/* d, sh u16, sl[4], qs[128] (16 bytes a group of 32): y = (d (S - 32)) T[n] */
static void iq4_xs_block(const uint8_t *b, float *y)
{
    float d = load_f16(b);
    uint32_t high = load_u16(b + 2);
    for (uint32_t g = 0; g < 8; g++) {
        uint32_t s = ((uint32_t)b[4 + g / 2] >> (g % 2 * 4) & 15u) | (high >> 2 * g & 3u) << 4;
        float scale = d * (float)((int32_t)s - 32);
        for (uint32_t l = 0; l < 32; l++)
            y[32 * g + l] = scale * (float)iq4_value[nibble(b + 8 + 16 * g, l)];
    }
}

/* ---- plain elements, FP8, int4 --------------------------------------------------------------- */

/* Element i of a row of scales. */
static float scale_at(const uint8_t *row, uint32_t format, uint32_t i)
{
    switch (format) {
    case W_F32: return f32_from_bits(load_u32(row + 4 * (size_t)i));
    case W_F16: return f32_from_f16(load_u16(row + 2 * (size_t)i));
    default: return f32_from_bf16(load_u16(row + 2 * (size_t)i));
    }
}

/* y = e4m3 * scale of the block of [block_out, block_in] */
static void f8_row(const struct weight *w, uint32_t row, float *y)
{
    const uint8_t *b = (const uint8_t *)w->data + row * w->row_bytes;
    const uint8_t *scale = (const uint8_t *)w->scale + row / w->block_out * w->scale_row_bytes;
    for (uint32_t i = 0; i < w->n_in; i++)
        y[i] = f32_from_e4m3(b[i]) * scale_at(scale, w->scale_format, i / w->block_in);
}

static uint32_t word_nibble(const void *base, uint64_t at, uint32_t n)
{
    return load_u32((const uint8_t *)base + at) >> (4 * n) & 15u;
}

/* compressed-tensors: y = (u - z) scale, z = 8 or stored as such (zero point + 8) */
static void i4_packed_row(const struct weight *w, uint32_t row, float *y)
{
    const uint8_t *scale = (const uint8_t *)w->scale + row * w->scale_row_bytes;
    for (uint32_t i = 0; i < w->n_in; i++) {
        uint32_t g = w->group ? (uint32_t)w->group[i] : i / w->block_in;
        int32_t u = (int32_t)word_nibble(w->data, row * w->row_bytes + i / 8 * 4u, i % 8);
        int32_t z =
            w->zero ? (int32_t)word_nibble(w->zero, row / 8 * w->zero_row_bytes + g * 4u, row % 8)
                    : 8;
        y[i] = (float)(u - z) * scale_at(scale, w->scale_format, g);
    }
}

/* AutoAWQ: words hold eight outputs, output c in nibble place[c]: y = (u - z) scale */
static void i4_awq_row(const struct weight *w, uint32_t row, float *y)
{
    static const uint8_t place[8] = { 0, 4, 1, 5, 2, 6, 3, 7 };
    uint32_t word = row / 8 * 4, n = place[row % 8];
    for (uint32_t i = 0; i < w->n_in; i++) {
        uint32_t g = w->group ? (uint32_t)w->group[i] : i / w->block_in;
        int32_t u = (int32_t)word_nibble(w->data, i * w->row_bytes + word, n);
        int32_t z = w->zero ? (int32_t)word_nibble(w->zero, g * w->zero_row_bytes + word, n) : 8;
        const uint8_t *scale = (const uint8_t *)w->scale + g * w->scale_row_bytes;
        y[i] = (float)(u - z) * scale_at(scale, w->scale_format, row);
    }
}

/* GPTQ v1: words hold eight inputs of one output; zeros are stored less one: y = (u - (z + 1))
 * scale */
static void i4_gptq_row(const struct weight *w, uint32_t row, float *y)
{
    for (uint32_t i = 0; i < w->n_in; i++) {
        uint32_t g = w->group ? (uint32_t)w->group[i] : i / w->block_in;
        int32_t u = (int32_t)word_nibble(w->data, i / 8 * w->row_bytes + row * 4u, i % 8);
        int32_t z =
            w->zero
                ? (int32_t)word_nibble(w->zero, g * w->zero_row_bytes + row / 8 * 4u, row % 8) + 1
                : 8;
        const uint8_t *scale = (const uint8_t *)w->scale + g * w->scale_row_bytes;
        y[i] = (float)(u - z) * scale_at(scale, w->scale_format, row);
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

static void block_row(const struct weight *w, uint32_t row, float *y)
{
    struct weight_block size = weight_block(w->format);
    const uint8_t *b = (const uint8_t *)w->data + row * w->row_bytes;
    for (uint32_t i = 0; i < w->n_in; i += size.n, b += size.bytes)
        block_decoder[w->format](b, y + i);
}

void ref_decode_row(const struct weight *w, uint32_t row, float *out)
{
    const uint8_t *b = (const uint8_t *)w->data + row * w->row_bytes;
    switch (w->format) {
    case W_F32:
    case W_F16:
    case W_BF16:
        for (uint32_t i = 0; i < w->n_in; i++)
            out[i] = scale_at(b, w->format, i);
        break;
    case W_F8: f8_row(w, row, out); break;
    case W_I4_PACKED: i4_packed_row(w, row, out); break;
    case W_I4_AWQ: i4_awq_row(w, row, out); break;
    case W_I4_GPTQ: i4_gptq_row(w, row, out); break;
    default: block_row(w, row, out); break;
    }
}
