/* attention.c: keys and values into their page, attention of one KV head over a span of positions
 * as partial softmax sums, and the combination of such partials.
 *
 * Legend: a page holds KV_PAGE positions of one (layer, KV head): k[KV_PAGE, d_head], v[KV_PAGE,
 * d_head] of the KV type, then for int8 and fp8 float k_scale[KV_PAGE], v_scale[KV_PAGE]. p counts
 * positions in a page. A partial is o[d_head], l, m: the running maximum m of the scores, l = sum
 * exp(s - m), o = sum exp(s - m) v.
 */
#include "ref.h"

#include <math.h>

/* Round to nearest even E4M3; |x| beyond 448 gives 448. */
static uint8_t e4m3_from_f32(float x)
{
    uint32_t u = f32_bits(x);
    uint8_t sign = (uint8_t)(u >> 24 & 0x80u);
    u &= 0x7fffffffu;
    if (u > 0x7f800000u)
        return sign | 0x7fu;
    if (u >= 0x43e00000u) /* 448 */
        return sign | 0x7eu;
    if (u < 0x3c800000u)  /* 2^-6: below, the format counts in steps of 2^-9 */
        return (uint8_t)(sign | (uint8_t)(int32_t)rintf(f32_from_bits(u) * 512.0f));
    u += 0x7ffffu + (u >> 20 & 1u);
    return (uint8_t)(sign | (uint8_t)((u >> 20) - (120u << 3)));
}

/* The scale that takes max|x| to `limit`: 0 for zeros, NaN where an element is not finite.
 * *inverse: its reciprocal. */
static float head_scale(const float *x, uint32_t n, float limit, float *inverse)
{
    float max = 0;
    bool finite = true;
    for (uint32_t i = 0; i < n; i++) {
        float a = fabsf(x[i]);
        finite = finite && a < INFINITY;
        max = a > max ? a : max;
    }
    *inverse = 0;
    if (!finite)
        return NAN;
    if (max < 1e-30f)
        return 0;
    *inverse = limit / max;
    return max / limit;
}

static void store_int8(const float *x, uint32_t n, int8_t *q, float *scale)
{
    float inverse;
    *scale = head_scale(x, n, 127.0f, &inverse);
    for (uint32_t i = 0; i < n; i++)
        q[i] = inverse > 0 ? (int8_t)rintf(x[i] * inverse) : 0;
}

static void store_f8(const float *x, uint32_t n, uint8_t *q, float *scale)
{
    float inverse;
    *scale = head_scale(x, n, 448.0f, &inverse);
    for (uint32_t i = 0; i < n; i++)
        q[i] = inverse > 0 ? e4m3_from_f32(x[i] * inverse) : 0;
}

void ref_kv_store(
    uint32_t kv_type, uint32_t d_head, const float *k, const float *v, uint32_t slot, void *head)
{
    size_t plane = (size_t)KV_PAGE * d_head, at = (size_t)slot * d_head;
    float *scale = (float *)(void *)((char *)head + 2 * plane * kv_elem_bytes(kv_type));
    float *f = head;
    uint16_t *h = head;
    uint8_t *b = head;

    switch (kv_type) {
    case KV_F32:
        memcpy(f + at, k, d_head * sizeof(float));
        memcpy(f + plane + at, v, d_head * sizeof(float));
        break;
    case KV_BF16:
        for (uint32_t i = 0; i < d_head; i++) {
            h[at + i] = bf16_from_f32(k[i]);
            h[plane + at + i] = bf16_from_f32(v[i]);
        }
        break;
    case KV_INT8:
        store_int8(k, d_head, (int8_t *)b + at, scale + slot);
        store_int8(v, d_head, (int8_t *)b + plane + at, scale + KV_PAGE + slot);
        break;
    default:
        store_f8(k, d_head, b + at, scale + slot);
        store_f8(v, d_head, b + plane + at, scale + KV_PAGE + slot);
        break;
    }
}

/* Elements [n] at `at` of a page as float32, not scaled. */
static void load_elements(uint32_t kv_type, const void *page, size_t at, uint32_t n, float *out)
{
    for (uint32_t i = 0; i < n; i++) {
        switch (kv_type) {
        case KV_F32: out[i] = ((const float *)page)[at + i]; break;
        case KV_BF16: out[i] = f32_from_bf16(((const uint16_t *)page)[at + i]); break;
        case KV_INT8: out[i] = (float)((const int8_t *)page)[at + i]; break;
        default: out[i] = f32_from_e4m3(((const uint8_t *)page)[at + i]); break;
        }
    }
}

static const float *page_scales(const struct attention *a, const void *page)
{
    size_t at = 2 * (size_t)KV_PAGE * a->d_head * kv_elem_bytes(a->kv_type);
    return a->kv_type >= KV_INT8 ? (const float *)(const void *)((const char *)page + at) : NULL;
}

/* One page of n valid positions into the partial of one (row, head). kv: room for [d_head]. */
static void attend_page(const struct attention *a, const float *q, const void *page, uint32_t n,
    float *partial, float *kv)
{
    const float *scale = page_scales(a, page);
    float *o = partial, *l = partial + a->d_head, *m = l + 1;
    float e[KV_PAGE], max = *m;

    for (uint32_t p = 0; p < n; p++) {
        load_elements(a->kv_type, page, (size_t)p * a->d_head, a->d_head, kv);
        float s = ref_dot(q, kv, a->d_head);
        if (scale)
            s *= scale[p];
        e[p] = s * a->scale;
        max = e[p] > max ? e[p] : max; /* a NaN is passed over here and shows in e and l */
    }
    max += 0.0f; /* of two zeros, the positive one */
    float c = *m == -INFINITY ? 0.0f : k_exp(*m - max);
    for (uint32_t p = 0; p < n; p++)
        e[p] = k_exp(e[p] - max);
    float lc = *l * c;
    *l = lc + ref_sum(e, n);
    *m = max;
    for (uint32_t i = 0; i < a->d_head; i++)
        o[i] *= c;
    for (uint32_t p = 0; p < n; p++) {
        float f = scale ? e[p] * scale[KV_PAGE + p] : e[p];
        load_elements(a->kv_type, page, (size_t)(KV_PAGE + p) * a->d_head, a->d_head, kv);
        for (uint32_t i = 0; i < a->d_head; i++)
            o[i] = fmaf(f, kv[i], o[i]);
    }
}

/* ---- pages of bfloat16 ----------------------------------------------------------------------- */

static float pair(float a0, float a1, float b0, float b1, float c)
{
    return fma_flushed(a0, b0, fma_flushed(a1, b1, c));
}

/* q: rounded to bfloat16. */
static float pair_dot(const float *q, const uint16_t *k, uint32_t n)
{
    float s = 0;
    for (uint32_t i = 0; i < n; i += 2) {
        bool two = i + 1 < n;
        s = pair(q[i], two ? q[i + 1] : 0.0f, f32_from_bf16(k[i]),
            two ? f32_from_bf16(k[i + 1]) : 0.0f, s);
    }
    return s;
}

static float rounded(float x)
{
    return f32_from_bf16(bf16_from_f32(x));
}

/* exp(x) for x <= 0 with an error of at most 2^-17, for what is rounded to bfloat16: 2^n 2^r, n the nearest
 * integer to x / ln 2. The coefficients are those of a minimax fit on |r| <= 1 / 2. */
static float short_exp(float x)
{
    const float log2_e = 0x1.715476p+0f, round = 0x1.8p+23f;

    if (x < -87.3f)
        return 0.0f;
    if (!(x == x))
        return x;
    float z = fmaf(x, log2_e, round); /* the sum's last bits hold n */
    float r = fmaf(x, log2_e, -(z - round)), p = 0x1.3a02ccp-7f;
    p = fmaf(p, r, 0x1.c9fc46p-5f);
    p = fmaf(p, r, 0x1.ec0378p-3f);
    p = fmaf(p, r, 0x1.62e12cp-1f);
    p = fmaf(p, r, 1.0f);
    return f32_from_bits(f32_bits(p) + (f32_bits(z) << 23));
}

/* As attend_page; q: rounded. */
static void attend_page_bf16(
    const struct attention *a, const float *q, const uint16_t *page, uint32_t n, float *partial)
{
    uint32_t d = a->d_head;
    float *o = partial, *l = partial + d, *m = l + 1, e[KV_PAGE + 1] = { 0 }, max = *m;

    for (uint32_t p = 0; p < n; p++) {
        e[p] = pair_dot(q, page + (size_t)p * d, d) * a->scale;
        max = e[p] > max ? e[p] : max; /* a NaN is passed over here and shows in e and l */
    }
    max += 0.0f; /* of two zeros, the positive one */
    float c = *m == -INFINITY ? 0.0f : k_exp(*m - max);
    for (uint32_t p = 0; p < n; p++)
        e[p] = rounded(short_exp(e[p] - max));
    float lc = *l * c;
    *l = lc + ref_sum(e, n);
    *m = max;
    for (uint32_t i = 0; i < d; i++)
        o[i] *= c;
    for (uint32_t p = 0; p < n; p += 2) {
        const uint16_t *v = page + (size_t)(KV_PAGE + p) * d;
        for (uint32_t i = 0; i < d; i++)
            o[i] = pair(e[p], e[p + 1], f32_from_bf16(v[i]),
                p + 1 < n ? f32_from_bf16(v[d + i]) : 0.0f, o[i]);
    }
}

/* ---- spans ----------------------------------------------------------------------------------- */

/* One (row, head) over positions up to `end`. scratch: room for two [d_head]. */
static void attend_query(
    const struct attention *a, const float *q, uint32_t end, float *partial, float *scratch)
{
    float *q_rounded = scratch + a->d_head;
    for (uint32_t i = 0; i < a->d_head; i++)
        q_rounded[i] = rounded(q[i]);
    memset(partial, 0, (a->d_head + 1) * sizeof(float));
    partial[a->d_head + 1] = -INFINITY;
    for (uint32_t p = a->pos_begin; p < end; p += KV_PAGE) {
        uint32_t n = end - p < KV_PAGE ? end - p : KV_PAGE;
        if (a->kv_type == KV_BF16)
            attend_page_bf16(a, q_rounded, a->page[p / KV_PAGE], n, partial);
        else
            attend_page(a, q, a->page[p / KV_PAGE], n, partial, scratch);
    }
}

void ref_attention(const struct attention *a, void *scratch)
{
    for (uint32_t r = 0; r < a->n_row; r++) {
        uint32_t end = a->pos_end <= a->pos[r] ? a->pos_end : a->pos[r] + 1;
        for (uint32_t j = 0; j < a->n_q; j++)
            attend_query(a, a->q + r * a->q_stride + j * a->d_head, end,
                a->out + ((size_t)r * a->n_q + j) * (a->d_head + 2), scratch);
    }
}

/* w = exp(m_i - m); o = fma(o_i, w, o), l = fma(l_i, w, l), part after part from 0; y = o / l, or 0
 * without any part. */
void ref_attention_merge(
    const float *part, uint32_t n_part, uint64_t stride, uint32_t d_head, float *y)
{
    float m = -INFINITY, l = 0;
    for (uint32_t i = 0; i < n_part; i++)
        m = part[i * stride + d_head + 1] > m ? part[i * stride + d_head + 1] : m;
    memset(y, 0, d_head * sizeof(float));
    for (uint32_t i = 0; i < n_part; i++) {
        const float *p = part + i * stride;
        if (p[d_head + 1] == -INFINITY)
            continue;
        float w = k_exp(p[d_head + 1] - m);
        l = fmaf(p[d_head], w, l);
        for (uint32_t j = 0; j < d_head; j++)
            y[j] = fmaf(p[j], w, y[j]);
    }
    if (m == -INFINITY)
        return;
    for (uint32_t j = 0; j < d_head; j++)
        y[j] /= l;
}
