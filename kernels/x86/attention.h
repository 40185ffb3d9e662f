/* attention.h: keys and values into pages, attention over pages, merge of partials; part of
 * attention_avx2.c, attention_avx512.c and attention_bf16.c. The arithmetic, element for element, is
 * kernels/ref/attention.c. Pages of bfloat16 are attention_bf16.h's.
 *
 * A query is one (row, query head); all queries of up to ROWS rows go through a page together, so
 * that a page is widened to float32 once (scratch) and each key and value is loaded once for a tile
 * of queries:
 *
 *   k, v      [KV_PAGE, stride] float32, widened; float32 pages are used in place
 *   score     [queries, KV_PAGE]: dot products, then exp(s - m) [* v_scale]
 *   decay     [queries]: what the page's new maximum makes of the sums so far
 *
 * Per page and query: 4 d_head operations a position, of which half are the scores (tiles of Q_TILE
 * queries by 4 positions, folded four at a time) and half the values (Q_TILE queries by COLUMNS
 * vectors of o, over all positions in order).
 */
#ifndef GLM_KERNELS_ATTENTION_H
#define GLM_KERNELS_ATTENTION_H

#include "v16.h"

#include <math.h>

#ifdef __AVX512F__
#define Q_TILE 4
#define P_TILE 4
#define COLUMNS 4
#else
#define Q_TILE 3
#define P_TILE 2
#define COLUMNS 2
#endif
#define ROWS 16
#define UNROLL _Pragma("GCC unroll 16")

INLINE uint32_t row_end(const struct attention *a, uint32_t r)
{
    return a->pos_end <= a->pos[r] ? a->pos_end : a->pos[r] + 1;
}

#include "attention_bf16.h"

/* ---- store ----------------------------------------------------------------------------------- */

/* The scale that takes max|x| to `limit`, 0 for zeros, NaN where an element is not finite;
 * *inverse: its reciprocal or 0. */
static float head_scale(const float *x, uint32_t n, float limit, float *inverse)
{
    v16 max = v16_set(0), infinity = v16_set(INFINITY);
    bool finite = true;
    for (uint32_t i = 0; i < n; i += 16) {
        v16 a = v16_abs(v16_load_n(x + i, n - i < 16 ? n - i : 16));
        finite = finite && v16_all_less(a, infinity);
        max = v16_max(a, max);
    }
    float m = v16_max_of(max);
    *inverse = 0;
    if (!finite)
        return NAN;
    if (m < 1e-30f)
        return 0;
    *inverse = limit / m;
    return m / limit;
}

static void store_int8(const float *x, uint32_t n, int8_t *q, float *scale)
{
    float inverse;
    *scale = head_scale(x, n, 127.0f, &inverse);
    if (!(inverse > 0)) {
        memset(q, 0, n);
        return;
    }
    for (uint32_t i = 0; i < n; i += 16) {
        uint32_t m = n - i < 16 ? n - i : 16;
        int8_t b[16];
        _mm_storeu_si128(
            (__m128i *)(void *)b, v16_to_i8(v16_mul(v16_load_n(x + i, m), v16_set(inverse))));
        memcpy(q + i, b, m);
    }
}

/* Eight finite floats to E4M3, nearest even, in the low bytes of int32. */
INLINE __m256i to_e4m3(__m256 x)
{
    __m256i bits = _mm256_castps_si256(x),
            u = _mm256_and_si256(bits, _mm256_set1_epi32(0x7fffffff));
    __m256i sign = _mm256_and_si256(_mm256_srli_epi32(bits, 24), _mm256_set1_epi32(0x80));
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 20), _mm256_set1_epi32(1));
    __m256i r = _mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7ffff)), odd);
    r = _mm256_sub_epi32(_mm256_srli_epi32(r, 20), _mm256_set1_epi32(120 << 3));
    __m256i sub = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_castsi256_ps(u), _mm256_set1_ps(512.0f)));
    r = _mm256_blendv_epi8(
        r, sub, _mm256_cmpgt_epi32(_mm256_set1_epi32(0x3c800000), u)); /* below 2^-6 */
    r = _mm256_blendv_epi8(
        _mm256_set1_epi32(0x7e), r, _mm256_cmpgt_epi32(_mm256_set1_epi32(0x43e00000), u)); /* 448 */
    return _mm256_or_si256(r, sign);
}

static void store_f8(const float *x, uint32_t n, uint8_t *q, float *scale)
{
    float inverse;
    *scale = head_scale(x, n, 448.0f, &inverse);
    if (!(inverse > 0)) {
        memset(q, 0, n);
        return;
    }
    for (uint32_t i = 0; i < n; i += 16) {
        uint32_t m = n - i < 16 ? n - i : 16;
        float f[16];
        uint8_t b[16];
        v16_store(f, v16_mul(v16_load_n(x + i, m), v16_set(inverse)));
        __m256i lo = to_e4m3(_mm256_loadu_ps(f)), hi = to_e4m3(_mm256_loadu_ps(f + 8));
        __m128i lo16 =
            _mm_packus_epi32(_mm256_castsi256_si128(lo), _mm256_extracti128_si256(lo, 1));
        __m128i hi16 =
            _mm_packus_epi32(_mm256_castsi256_si128(hi), _mm256_extracti128_si256(hi, 1));
        _mm_storeu_si128((__m128i *)(void *)b, _mm_packus_epi16(lo16, hi16));
        memcpy(q + i, b, m);
    }
}

static void store_bf16(const float *x, uint32_t n, uint16_t *h)
{
    uint32_t i = 0;
    for (; i + 16 <= n; i += 16)
        _mm256_storeu_si256((__m256i *)(void *)(h + i), v16_to_bf16(v16_load(x + i)));
    for (; i < n; i++)
        h[i] = bf16_from_f32(x[i]);
}

static void kv_store(
    uint32_t kv_type, uint32_t d_head, const float *k, const float *v, uint32_t slot, void *head)
{
    size_t plane = (size_t)KV_PAGE * d_head, at = (size_t)slot * d_head;
    float *scale = (float *)(void *)((char *)head + 2 * plane * kv_elem_bytes(kv_type)), *f = head;
    uint16_t *h = head;
    uint8_t *b = head;
    switch (kv_type) {
    case KV_F32:
        memcpy(f + at, k, d_head * sizeof *f);
        memcpy(f + plane + at, v, d_head * sizeof *f);
        break;
    case KV_BF16:
        store_bf16(k, d_head, h + at);
        store_bf16(v, d_head, h + plane + at);
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

/* ---- a page as float32 ----------------------------------------------------------------------- */

INLINE v16 widen16(uint32_t kv_type, const char *p)
{
    switch (kv_type) {
    case KV_INT8: return v16_from_i8(load_128(p));
    default: return v16_from_f8(load_128(p));
    }
}

INLINE void widen_as(
    uint32_t kv_type, const char *from, uint32_t n_pos, uint32_t d_head, float *to, size_t stride)
{
    size_t size = kv_elem_bytes(kv_type);
    for (uint32_t p = 0; p < n_pos; p++) {
        const char *row = from + p * d_head * size;
        uint32_t i = 0;
        for (; i + 16 <= d_head; i += 16)
            v16_store(to + p * stride + i, widen16(kv_type, row + i * size));
        if (i < d_head) {
            char tail[64] = { 0 };
            memcpy(tail, row + i * size, (d_head - i) * size);
            v16_store(to + p * stride + i, widen16(kv_type, tail));
        }
    }
}

/* Keys or values of n_pos positions; returns where they are and how far apart. */
static const float *widen(
    const struct attention *a, const char *from, uint32_t n_pos, float *to, size_t *stride)
{
    *stride = ((size_t)a->d_head + 15) & ~(size_t)15;
    switch (a->kv_type) {
    case KV_INT8: widen_as(KV_INT8, from, n_pos, a->d_head, to, *stride); return to;
    case KV_F8: widen_as(KV_F8, from, n_pos, a->d_head, to, *stride); return to;
    default: *stride = a->d_head; return (const float *)(const void *)from;
    }
}

/* ---- scores ---------------------------------------------------------------------------------- */

/* Chains of n_q queries and n_p positions; to acc[r * 4 + p]. */
INLINE void score_tile(uint32_t n_q, uint32_t n_p, const float *const *q, const float *k,
    size_t stride, uint32_t d_head, v16 *acc)
{
    v16 a[Q_TILE * P_TILE], qv[Q_TILE];
    uint32_t i = 0;
    UNROLL for (uint32_t j = 0; j < n_q * n_p; j++)
        a[j] = v16_set(0);
    for (; i + 16 <= d_head; i += 16) {
        UNROLL for (uint32_t r = 0; r < n_q; r++)
            qv[r] = v16_load(q[r] + i);
        UNROLL for (uint32_t p = 0; p < n_p; p++) {
            v16 kv = v16_load(k + p * stride + i);
            UNROLL for (uint32_t r = 0; r < n_q; r++)
                a[r * n_p + p] = v16_fma(qv[r], kv, a[r * n_p + p]);
        }
    }
    if (i < d_head) {
        UNROLL for (uint32_t p = 0; p < n_p; p++) {
            v16 kv = v16_fill(v16_load_n(k + p * stride + i, d_head - i), d_head - i, -0.0f);
            UNROLL for (uint32_t r = 0; r < n_q; r++)
                a[r * n_p + p] = v16_fma(v16_load_n(q[r] + i, d_head - i), kv, a[r * n_p + p]);
        }
    }
    UNROLL for (uint32_t r = 0; r < n_q; r++)
        UNROLL for (uint32_t p = 0; p < n_p; p++)
            acc[r * 4 + p] = a[r * n_p + p];
}

/* n_q queries with all positions, four at a time; those beyond n_pos give numbers that nobody
 * reads. */
INLINE void score_queries(uint32_t n_q, const float *const *q, const float *k, size_t stride,
    uint32_t d_head, uint32_t n_pos, float *score)
{
    for (uint32_t p = 0; p < n_pos; p += 4) {
        v16 acc[Q_TILE * 4];
        UNROLL for (uint32_t half = 0; half < 4; half += P_TILE)
            score_tile(n_q, P_TILE, q, k + (p + half) * stride, stride, d_head, acc + half);
        UNROLL for (uint32_t r = 0; r < n_q; r++)
            v16_fold4(acc + r * 4, score + r * KV_PAGE + p);
    }
}

/* Scores s of n positions to exp(s - m) [* v_scale], l and m brought up to date; returns what
 * multiplies the old sums. scale: of the page's keys, then values; NULL: none. */
static float softmax(
    const struct attention *a, const float *scale, uint32_t n, float *score, float *l, float *m)
{
    v16 max = v16_set(-INFINITY), sum = v16_set(0), factor = v16_set(a->scale);
    for (uint32_t i = 0; i < n; i += 16) {
        v16 s = v16_load(score + i);
        if (scale)
            s = v16_mul(s, v16_load(scale + i));
        s = v16_fill(v16_mul(s, factor), n - i < 16 ? n - i : 16, -INFINITY);
        max = v16_max(s, max); /* a NaN is passed over here and shows below */
        v16_store(score + i, s);
    }
    float old = *m, page_max = v16_max_of(max);
    *m = (page_max > old ? page_max : old) + 0.0f; /* of two zeros, the positive one */
    float first[16];
    v16_store(first, v16_exp(v16_set(old - *m)));
    float decay = old == -INFINITY ? 0.0f : first[0];
    for (uint32_t i = 0; i < n; i += 16) {
        v16 e = v16_exp(v16_sub(v16_load(score + i), v16_set(*m)));
        e = v16_fill(e, n - i < 16 ? n - i : 16, 0.0f);
        sum = v16_add(sum, e);
        if (scale)
            e = v16_mul(e, v16_load(scale + KV_PAGE + i));
        v16_store(score + i, e);
    }
    float ld = *l * decay;
    *l = ld + v16_fold(sum);
    return decay;
}

/* ---- values ---------------------------------------------------------------------------------- */

/* o[r][n_col vectors, or `tail` elements of one] = o * decay + sum over [begin, end) of score v. */
INLINE void value_tile(uint32_t n_q, uint32_t n_col, uint32_t tail, const float *score,
    const float *decay, const float *v, size_t stride, uint32_t begin, uint32_t end,
    float *const *o)
{
    v16 a[Q_TILE * COLUMNS];
    UNROLL for (uint32_t r = 0; r < n_q; r++)
        UNROLL for (uint32_t c = 0; c < n_col; c++) {
            v16 old = tail ? v16_load_n(o[r], tail) : v16_load(o[r] + c * 16);
            a[r * n_col + c] = decay ? v16_mul(old, v16_set(decay[r])) : old;
        }
    for (uint32_t p = begin; p < end; p++) {
        v16 e[Q_TILE];
        UNROLL for (uint32_t r = 0; r < n_q; r++)
            e[r] = v16_set(score[r * KV_PAGE + p]);
        UNROLL for (uint32_t c = 0; c < n_col; c++) {
            v16 vv = tail ? v16_load_n(v + p * stride, tail) : v16_load(v + p * stride + c * 16);
            UNROLL for (uint32_t r = 0; r < n_q; r++)
                a[r * n_col + c] = v16_fma(e[r], vv, a[r * n_col + c]);
        }
    }
    UNROLL for (uint32_t r = 0; r < n_q; r++)
        UNROLL for (uint32_t c = 0; c < n_col; c++) {
            if (tail)
                v16_store_n(o[r], a[r * n_col + c], tail);
            else
                v16_store(o[r] + c * 16, a[r * n_col + c]);
        }
}

/* All columns of n_q queries over positions [begin, end). decay NULL: the old sums stay. */
INLINE void value_queries(uint32_t n_q, const float *score, const float *decay, const float *v,
    size_t stride, uint32_t d_head, uint32_t begin, uint32_t end, float *const *partial)
{
    uint32_t i = 0;
    float *o[Q_TILE];
    while (i < d_head) {
        UNROLL for (uint32_t r = 0; r < n_q; r++)
            o[r] = partial[r] + i;
        if (i + COLUMNS * 16 <= d_head) {
            value_tile(n_q, COLUMNS, 0, score, decay, v + i, stride, begin, end, o);
            i += COLUMNS * 16;
        } else if (i + 16 <= d_head) {
            value_tile(n_q, 1, 0, score, decay, v + i, stride, begin, end, o);
            i += 16;
        } else {
            value_tile(n_q, 1, d_head - i, score, decay, v + i, stride, begin, end, o);
            i = d_head;
        }
    }
}

/* ---- pages and queries ----------------------------------------------------------------------- */

struct span {
    const struct attention *a;
    uint32_t row;        /* the first of the block */
    uint32_t n_query;
    float *k, *v, *score, *decay;
};

static const float *query_at(const struct span *s, uint32_t i)
{
    return s->a->q + (s->row + i / s->a->n_q) * s->a->q_stride +
           i % s->a->n_q * (size_t)s->a->d_head;
}

static float *partial_at(const struct span *s, uint32_t i)
{
    return s->a->out + ((size_t)s->row * s->a->n_q + i) * (s->a->d_head + 2);
}

/* Positions that query i has in the page that begins at `begin`. */
static uint32_t n_valid(const struct span *s, uint32_t i, uint32_t begin)
{
    uint32_t end = row_end(s->a, s->row + i / s->a->n_q);
    return end <= begin ? 0 : end - begin < KV_PAGE ? end - begin : KV_PAGE;
}

static void page_scores(const struct span *s, const float *k, size_t stride, uint32_t n_pos)
{
    for (uint32_t i = 0; i < s->n_query;) {
        const float *q[Q_TILE];
        uint32_t n = s->n_query - i < Q_TILE ? 1 : Q_TILE;
        for (uint32_t r = 0; r < n; r++)
            q[r] = query_at(s, i + r);
        if (n == Q_TILE)
            score_queries(
                Q_TILE, q, k, stride, s->a->d_head, n_pos, s->score + (size_t)i * KV_PAGE);
        else
            score_queries(1, q, k, stride, s->a->d_head, n_pos, s->score + (size_t)i * KV_PAGE);
        i += n;
    }
}

/* Query i over positions [begin, end), after the sums were scaled if decay is NULL. */
static void values_of_one(const struct span *s, uint32_t i, const float *decay, const float *v,
    size_t stride, uint32_t begin, uint32_t end)
{
    float *o[1] = { partial_at(s, i) };
    value_queries(1, s->score + (size_t)i * KV_PAGE, decay, v, stride, s->a->d_head, begin, end, o);
}

/* Tiles of queries take the positions that all of them have; the rest follows one by one. */
static void page_values(const struct span *s, const float *v, size_t stride, uint32_t begin)
{
    for (uint32_t i = 0; i < s->n_query;) {
        uint32_t n = s->n_query - i < Q_TILE ? 1 : Q_TILE, common = KV_PAGE;
        float *o[Q_TILE];
        for (uint32_t r = 0; r < n; r++) {
            uint32_t valid = n_valid(s, i + r, begin);
            common = valid < common ? valid : common;
            o[r] = partial_at(s, i + r);
        }
        if (n < Q_TILE || common == 0) {
            for (uint32_t r = 0; r < n; r++)
                if (n_valid(s, i + r, begin) > 0)
                    values_of_one(
                        s, i + r, s->decay + i + r, v, stride, 0, n_valid(s, i + r, begin));
        } else {
            value_queries(Q_TILE, s->score + (size_t)i * KV_PAGE, s->decay + i, v, stride,
                s->a->d_head, 0, common, o);
            for (uint32_t r = 0; r < n; r++)
                if (n_valid(s, i + r, begin) > common)
                    values_of_one(s, i + r, NULL, v, stride, common, n_valid(s, i + r, begin));
        }
        i += n;
    }
}

/* All queries of the block over the page of n_pos positions from `begin`. */
static void attend_page(const struct span *s, uint32_t begin, uint32_t n_pos)
{
    const struct attention *a = s->a;
    const char *page = a->page[begin / KV_PAGE];
    size_t plane = (size_t)KV_PAGE * a->d_head * kv_elem_bytes(a->kv_type), stride;
    const float *scale =
        a->kv_type >= KV_INT8 ? (const float *)(const void *)(page + 2 * plane) : NULL;
    const float *k = widen(a, page, n_pos, s->k, &stride);
    page_scores(s, k, stride, n_pos);
    for (uint32_t i = 0; i < s->n_query; i++) {
        float *l = partial_at(s, i) + a->d_head;
        uint32_t n = n_valid(s, i, begin);
        if (n > 0)
            s->decay[i] = softmax(a, scale, n, s->score + (size_t)i * KV_PAGE, l, l + 1);
    }
    const float *v = widen(a, page + plane, n_pos, s->v, &stride);
    page_values(s, v, stride, begin);
}

static void attention_widened(const struct attention *a, void *scratch)
{
    size_t plane = KV_PAGE * (((size_t)a->d_head + 15) & ~(size_t)15);
    struct span s = { .a = a, .k = scratch };
    s.v = s.k + plane;
    s.score = s.v + plane;
    s.decay = s.score + (size_t)ROWS * a->n_q * KV_PAGE;
    for (uint32_t row = 0; row < a->n_row; row += ROWS) {
        uint32_t n_row = a->n_row - row < ROWS ? a->n_row - row : ROWS, end = 0;
        s.row = row;
        s.n_query = n_row * a->n_q;
        for (uint32_t i = 0; i < s.n_query; i++) {
            float *partial = partial_at(&s, i);
            memset(partial, 0, (a->d_head + 1) * sizeof *partial);
            partial[a->d_head + 1] = -INFINITY;
        }
        for (uint32_t r = row; r < row + n_row; r++)
            end = row_end(a, r) > end ? row_end(a, r) : end;
        for (uint32_t p = a->pos_begin; p < end; p += KV_PAGE)
            attend_page(&s, p, end - p < KV_PAGE ? end - p : KV_PAGE);
    }
}

static void attention(const struct attention *a, void *scratch)
{
    if (a->kv_type == KV_BF16)
        attention_bf16(a, scratch);
    else
        attention_widened(a, scratch);
}

/* ---- merge ----------------------------------------------------------------------------------- */

static void attention_merge(
    const float *part, uint32_t n_part, uint64_t stride, uint32_t d_head, float *y)
{
    float m = -INFINITY, l = 0;
    for (uint32_t i = 0; i < n_part; i++)
        m = part[i * stride + d_head + 1] > m ? part[i * stride + d_head + 1] : m;
    memset(y, 0, d_head * sizeof *y);
    for (uint32_t i = 0; i < n_part; i++) {
        const float *p = part + i * stride;
        if (p[d_head + 1] == -INFINITY)
            continue;
        float w[16];
        v16 wv = v16_exp(v16_set(p[d_head + 1] - m));
        v16_store(w, wv);
        l = __builtin_fmaf(p[d_head], w[0], l);
        for (uint32_t j = 0; j < d_head; j += 16) {
            uint32_t n = d_head - j < 16 ? d_head - j : 16;
            v16_store_n(y + j, v16_fma(v16_load_n(p + j, n), wv, v16_load_n(y + j, n)), n);
        }
    }
    if (m == -INFINITY)
        return;
    for (uint32_t j = 0; j < d_head; j += 16) {
        uint32_t n = d_head - j < 16 ? d_head - j : 16;
        v16_store_n(y + j, v16_div(v16_load_n(y + j, n), v16_set(l)), n);
    }
}

#endif
