/* quants.c: a row of a ggml block format as integers and scales, and the integer matrix multiply on
 * them: what matmul_q8 and swiglu_q8 mean. Layouts are drawn in decode.c; here the same fields stay
 * integers.
 *
 * Legend: group: elements that share a weight scale, 16 or 32; q_w, q_x int8; dx the activation's
 * scale of 32 elements. Per output one float chain: for each group acc = fma(S, dw dx, acc), S =
 * sum(q_w q_x) in int32, then with a minimum acc = fma(min, dx sum(q_x), acc).
 */
#include "ref.h"

#include <math.h>

static const int8_t iq4_value[16] = { -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53,
    69, 89, 113 };
static const int8_t mxfp4_value[16] = { 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12 };

/* Quants of one block to q, scales to scale (and minima to min). */
typedef void unpack_block(const uint8_t *b, int8_t *q, float *scale, float *min);

static void unpack_q8_0(const uint8_t *b, int8_t *q, float *scale, float *min)
{
    (void)min;
    *scale = load_f16(b);
    memcpy(q, b + 2, 32);
}

/* 16 bytes of nibbles, less `zero`. */
static void unpack_nibbles(const uint8_t *qs, int32_t zero, int8_t *q)
{
    for (uint32_t i = 0; i < 16; i++) {
        q[i] = (int8_t)((qs[i] & 15) - zero);
        q[i + 16] = (int8_t)((qs[i] >> 4) - zero);
    }
}

static void unpack_table(const uint8_t *qs, const int8_t *value, int8_t *q)
{
    for (uint32_t i = 0; i < 16; i++) {
        q[i] = value[qs[i] & 15];
        q[i + 16] = value[qs[i] >> 4];
    }
}

static void add_fifth_bits(const uint8_t *qh, int8_t *q)
{
    uint32_t high = load_u32(qh);
    for (uint32_t i = 0; i < 32; i++)
        q[i] = (int8_t)(q[i] + (int32_t)(high >> i & 1u) * 16);
}

static void unpack_q4_0(const uint8_t *b, int8_t *q, float *scale, float *min)
{
    (void)min;
    *scale = load_f16(b);
    unpack_nibbles(b + 2, 8, q);
}

static void unpack_q4_1(const uint8_t *b, int8_t *q, float *scale, float *min)
{
    *scale = load_f16(b);
    *min = load_f16(b + 2);
    unpack_nibbles(b + 4, 0, q);
}

static void unpack_q5_0(const uint8_t *b, int8_t *q, float *scale, float *min)
{
    (void)min;
    *scale = load_f16(b);
    unpack_nibbles(b + 6, 16, q);
    add_fifth_bits(b + 2, q);
}

static void unpack_q5_1(const uint8_t *b, int8_t *q, float *scale, float *min)
{
    *scale = load_f16(b);
    *min = load_f16(b + 2);
    unpack_nibbles(b + 8, 0, q);
    add_fifth_bits(b + 4, q);
}

static void unpack_iq4_nl(const uint8_t *b, int8_t *q, float *scale, float *min)
{
    (void)min;
    *scale = load_f16(b);
    unpack_table(b + 2, iq4_value, q);
}

static void unpack_mxfp4(const uint8_t *b, int8_t *q, float *scale, float *min)
{
    (void)min;
    *scale = f32_from_bits(b[0] < 2 ? 0x00200000u << b[0] : (uint32_t)(b[0] - 1) << 23);
    unpack_table(b + 1, mxfp4_value, q);
}

/* 256 2-bit fields of 64 bytes. */
static void unpack_fields2(const uint8_t *plane, int8_t *q)
{
    for (uint32_t i = 0; i < 256; i++)
        q[i] = (int8_t)(plane[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3);
}

static void unpack_q2_k(const uint8_t *b, int8_t *q, float *scale, float *min)
{
    float d = load_f16(b + 80), dmin = load_f16(b + 82);
    for (uint32_t g = 0; g < 16; g++) {
        scale[g] = d * (float)(b[g] & 15);
        min[g] = -(dmin * (float)(b[g] >> 4));
    }
    unpack_fields2(b + 16, q);
}

static void unpack_q3_k(const uint8_t *b, int8_t *q, float *scale, float *min)
{
    (void)min;
    float d = load_f16(b + 108);
    for (uint32_t g = 0; g < 16; g++)
        scale[g] = d * (float)k3_scale(b + 96, g);
    unpack_fields2(b + 32, q);
    for (uint32_t i = 0; i < 256; i++)
        q[i] = (int8_t)(q[i] - ((b[i % 32] >> (i / 32) & 1) ? 0 : 4));
}

/* Scales and minima of Q4_K and Q5_K, and the four low bits of their quants. */
static void unpack_k4(const uint8_t *b, const uint8_t *qs, int8_t *q, float *scale, float *min)
{
    float d = load_f16(b), dmin = load_f16(b + 2);
    for (uint32_t g = 0; g < 8; g++) {
        uint32_t sc, m;
        k4_scale_min(b + 4, g, &sc, &m);
        scale[g] = d * (float)sc;
        min[g] = -(dmin * (float)m);
        for (uint32_t l = 0; l < 32; l++)
            q[32 * g + l] = (int8_t)(qs[g / 2 * 32 + l] >> (g % 2 * 4) & 15);
    }
}

static void unpack_q4_k(const uint8_t *b, int8_t *q, float *scale, float *min)
{
    unpack_k4(b, b + 16, q, scale, min);
}

static void unpack_q5_k(const uint8_t *b, int8_t *q, float *scale, float *min)
{
    unpack_k4(b, b + 48, q, scale, min);
    for (uint32_t i = 0; i < 256; i++)
        q[i] = (int8_t)(q[i] + (b[16 + i % 32] >> (i / 32) & 1) * 16);
}

static void unpack_q6_k(const uint8_t *b, int8_t *q, float *scale, float *min)
{
    (void)min;
    float d = load_f16(b + 208);
    for (uint32_t g = 0; g < 16; g++)
        scale[g] = d * (float)(int8_t)b[192 + g];
    unpack_fields2(b + 128, q);
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t j = i % 128 / 32;
        uint8_t low = b[i / 128 * 64 + j % 2 * 32 + i % 32];
        q[i] = (int8_t)((q[i] << 4 | (j < 2 ? low & 15 : low >> 4)) - 32);
    }
}

static void unpack_iq4_xs(const uint8_t *b, int8_t *q, float *scale, float *min)
{
    (void)min;
    float d = load_f16(b);
    uint32_t high = load_u16(b + 2);
    for (uint32_t g = 0; g < 8; g++) {
        uint32_t s = ((uint32_t)b[4 + g / 2] >> (g % 2 * 4) & 15u) | (high >> 2 * g & 3u) << 4;
        scale[g] = d * (float)((int32_t)s - 32);
        unpack_table(b + 8 + 16 * g, iq4_value, q + 32 * g);
    }
}

static const struct {
    unpack_block *unpack;
    uint8_t group;
    bool has_min;
} quants_of[W_FORMAT_COUNT] = {
    [W_Q8_0] = { unpack_q8_0, 32, false },     [W_Q4_0] = { unpack_q4_0, 32, false },
    [W_Q4_1] = { unpack_q4_1, 32, true },      [W_Q5_0] = { unpack_q5_0, 32, false },
    [W_Q5_1] = { unpack_q5_1, 32, true },      [W_IQ4_NL] = { unpack_iq4_nl, 32, false },
    [W_MXFP4] = { unpack_mxfp4, 32, false },   [W_Q2_K] = { unpack_q2_k, 16, true },
    [W_Q3_K] = { unpack_q3_k, 16, false },     [W_Q4_K] = { unpack_q4_k, 32, true },
    [W_Q5_K] = { unpack_q5_k, 32, true },      [W_Q6_K] = { unpack_q6_k, 16, false },
    [W_IQ4_XS] = { unpack_iq4_xs, 32, false },
};

bool k_has_q8(uint32_t format)
{
    return format < W_FORMAT_COUNT && quants_of[format].unpack != NULL;
}

void ref_quants(const struct weight *w, uint32_t row, struct quants *out)
{
    struct weight_block size = weight_block(w->format);
    const uint8_t *b = (const uint8_t *)w->data + row * w->row_bytes;
    out->group = quants_of[w->format].group;
    out->has_min = quants_of[w->format].has_min;
    for (uint32_t i = 0; i < w->n_in; i += size.n, b += size.bytes)
        quants_of[w->format].unpack(
            b, out->q + i, out->scale + i / out->group, out->min + i / out->group);
}

/* ---- activations ----------------------------------------------------------------------------- */

/* Quants of one block of 32, its scale returned. */
static float quantize_block(const float *x, int8_t *q)
{
    float max = 0;
    bool finite = true;
    for (uint32_t i = 0; i < 32; i++) {
        float a = fabsf(x[i]);
        finite = finite && a < INFINITY;
        max = a > max ? a : max;
    }
    memset(q, 0, 32);
    if (!finite)
        return NAN;
    if (max < 1e-30f)
        return 0;
    float inverse = 127.0f / max;
    for (uint32_t i = 0; i < 32; i++)
        q[i] = (int8_t)rintf(x[i] * inverse);
    return max / 127.0f;
}

void ref_quantize_q8(const float *x, uint32_t n_in, void *row)
{
    int8_t *q = row;
    float *scale = (float *)(void *)((char *)row + q8_scale_at(n_in));
    int32_t *sum = (int32_t *)(void *)((char *)row + q8_sum_at(n_in));
    for (uint32_t i = 0; i < n_in; i += 32)
        scale[i / 32] = quantize_block(x + i, q + i);
    for (uint32_t i = 0; i < n_in; i += 16) {
        int32_t s = 0;
        for (uint32_t j = 0; j < 16; j++)
            s += q[i + j];
        sum[i / 16] = s;
    }
}

/* ---- multiply -------------------------------------------------------------------------------- */

/* One weight row with one row of activations. */
static float quants_dot(const struct quants *w, const void *row, uint32_t n_in)
{
    const int8_t *q = row;
    const float *scale = (const float *)(const void *)((const char *)row + q8_scale_at(n_in));
    const int32_t *sum = (const int32_t *)(const void *)((const char *)row + q8_sum_at(n_in));
    float acc = 0;
    for (uint32_t i = 0; i < n_in; i += w->group) {
        float dx = scale[i / 32];
        int32_t s = 0;
        for (uint32_t j = i; j < i + w->group; j++)
            s += w->q[j] * q[j];
        float d = w->scale[i / w->group] * dx;
        acc = fmaf((float)s, d, acc);
        if (w->has_min) {
            float sum_x = (float)(sum[i / 16] + (w->group == 32 ? sum[i / 16 + 1] : 0));
            acc = fmaf(w->min[i / w->group], dx * sum_x, acc);
        }
    }
    return acc;
}

/* A row of quants laid out in scratch; returns what lies behind it. */
static void *quants_init(struct quants *out, void *scratch, uint32_t n_in)
{
    out->scale = scratch;
    out->min = out->scale + n_in / 16;
    out->q = (int8_t *)(out->min + n_in / 16);
    return out->q + (((size_t)n_in + 63) & ~(size_t)63);
}

void ref_matmul_q8(const struct matmul *mm, uint32_t out_begin, uint32_t out_end, void *scratch)
{
    struct quants w;
    quants_init(&w, scratch, mm->w->n_in);
    for (uint32_t out = out_begin; out < out_end; out++) {
        ref_quants(mm->w, out, &w);
        for (uint32_t i = 0; i < mm->x.n; i++) {
            float v = quants_dot(&w, rows_at(&mm->x, i), mm->w->n_in);
            float *y = mm->y + i * mm->y_stride + out;
            if (mm->mode == MM_ADD)
                *y += v;
            else
                *y = mm->bias ? v + mm->bias[out] : v;
        }
    }
}

void ref_swiglu_q8(const struct swiglu *sg, uint32_t out_begin, uint32_t out_end, void *scratch)
{
    struct quants gate, up;
    void *rest = quants_init(&gate, scratch, sg->gate->n_in);
    quants_init(&up, rest, sg->up->n_in);
    for (uint32_t out = out_begin; out < out_end; out++) {
        ref_quants(sg->gate, out, &gate);
        ref_quants(sg->up, out, &up);
        for (uint32_t i = 0; i < sg->x.n; i++) {
            const void *x = rows_at(&sg->x, i);
            float g = quants_dot(&gate, x, sg->gate->n_in), u = quants_dot(&up, x, sg->up->n_in);
            sg->y[i * sg->y_stride + out] = ref_silu_mul(g, u);
        }
    }
}
