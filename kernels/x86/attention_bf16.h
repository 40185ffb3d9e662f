/* attention_bf16.h: attention over pages of bfloat16, part of attention.h. The arithmetic, element for
 * element, is kernels/ref/attention.c: numbers are multiplied in pairs, as vdpbf16ps does it. Where the
 * CPU lacks that instruction a pair is two float32 fma, with small numbers flushed by MXCSR, so that
 * the bits are the same.
 *
 * Both halves of attention are one matrix multiply, c[r, col] += sum over i of a[r, i] b[i, col], whose
 * elements of a and b are pairs and whose lanes are columns, so that nothing is added across lanes:
 *
 *   scores:  a = queries [n_q, d_head / 2], b = keys   [d_head / 2, KV_PAGE]
 *   values:  a = weights [n_q, KV_PAGE / 2], b = values [KV_PAGE / 2, columns]
 *
 * A page's keys and values are brought into the form b once (16 KB each, 4 operations in 100 of one row's
 * own where a pair takes one), for all rows of the call. Then each row's query heads go through it:
 * scores, softmax, values. Per page and query: 4 KV_PAGE d_head operations.
 */
#ifndef GLM_KERNELS_ATTENTION_BF16_H
#define GLM_KERNELS_ATTENTION_BF16_H

#include "v16.h"

#include <math.h>

/* A tile of the multiply: TILE_Q rows times TILE_V vectors of columns. */
#ifdef __AVX512F__
#define LANES 16
#define TILE_Q 12
#define LINES_AHEAD 2
typedef __m512i vpair;
typedef __m512 vsum;
#else
#define LANES 8
#define TILE_Q 6
#define LINES_AHEAD 1
typedef __m256i vpair;
typedef __m256 vsum;
#endif
#define TILE_V 2
#define COLUMN_STEP 32u /* columns are padded to it */

/* A pair of a, in the form that is broadcast. */
#ifdef __AVX512BF16__
typedef uint32_t left;
#else
typedef struct {
    float even, odd;
} left;
#endif

struct bf16_span {
    const struct attention *a;
    uint32_t row;            /* the first of the block */
    uint32_t n_row, n_pair, columns;
    uint32_t *keys;          /* [n_pair, KV_PAGE] pairs */
    uint32_t *values;        /* [KV_PAGE / 2, columns] pairs */
    uint32_t *last;          /* [columns] pairs: the last position of an odd number */
    left *query;             /* [n_row, n_pair, n_q] */
    left *weight;            /* [n_q, KV_PAGE / 2] */
    float *score;            /* [n_q, KV_PAGE] */
    float *sum;              /* [n_row * n_q, columns]: o */
    float *l, *m;            /* [n_row * n_q] */
    float *decay, *old;      /* [n_q], and room to 16 */
    const char *ahead, *ahead_end; /* of the next page, what is to be asked for */
};

/* ---- the multiply ---------------------------------------------------------------------------- */

struct product {
    const left *a;
    size_t a_row, a_pair; /* from row to row, from pair to pair */
    const uint32_t *b;
    size_t b_stride;
    uint32_t n_pair;
    float *c;
    size_t c_stride;
};

#ifdef __AVX512F__
INLINE vpair vpair_load(const void *p) { return _mm512_loadu_si512(p); }
INLINE void vpair_store(void *p, vpair x) { _mm512_storeu_si512(p, x); }
INLINE vsum vsum_load(const float *p) { return _mm512_loadu_ps(p); }
INLINE void vsum_store(float *p, vsum x) { _mm512_storeu_ps(p, x); }
INLINE vsum vsum_zero(void) { return _mm512_setzero_ps(); }
#else
INLINE vpair vpair_load(const void *p) { return _mm256_loadu_si256(p); }
INLINE void vpair_store(void *p, vpair x) { _mm256_storeu_si256(p, x); }
INLINE vsum vsum_load(const float *p) { return _mm256_loadu_ps(p); }
INLINE void vsum_store(float *p, vsum x) { _mm256_storeu_ps(p, x); }
INLINE vsum vsum_zero(void) { return _mm256_setzero_ps(); }
#endif

#ifdef __AVX512BF16__

#define FLUSH_BEGIN
#define FLUSH_END

INLINE void pair_step(
    uint32_t n_q, const left *a, size_t a_row, const uint32_t *b, vsum *acc)
{
    __m512bh right[TILE_V];
    UNROLL for (uint32_t c = 0; c < TILE_V; c++)
        right[c] = (__m512bh)vpair_load(b + c * LANES);
    UNROLL for (uint32_t r = 0; r < n_q; r++) {
        __m512bh both = (__m512bh)_mm512_set1_epi32((int)a[r * a_row]);
        UNROLL for (uint32_t c = 0; c < TILE_V; c++)
            acc[r * TILE_V + c] = _mm512_dpbf16_ps(acc[r * TILE_V + c], both, right[c]);
    }
}

#else

#define FLUSH_BEGIN uint32_t mode = zero_subnormals();
#define FLUSH_END restore_subnormals(mode);

#ifdef __AVX512F__
INLINE vsum pair_odd(vpair b)
{
    return _mm512_castsi512_ps(_mm512_and_si512(b, _mm512_set1_epi32((int)0xffff0000u)));
}
INLINE vsum pair_even(vpair b) { return _mm512_castsi512_ps(_mm512_slli_epi32(b, 16)); }
INLINE vsum vsum_set(float x) { return _mm512_set1_ps(x); }
INLINE vsum vsum_fma(vsum a, vsum b, vsum c) { return _mm512_fmadd_ps(a, b, c); }
#else
INLINE vsum pair_odd(vpair b)
{
    return _mm256_castsi256_ps(_mm256_and_si256(b, _mm256_set1_epi32((int)0xffff0000u)));
}
INLINE vsum pair_even(vpair b) { return _mm256_castsi256_ps(_mm256_slli_epi32(b, 16)); }
INLINE vsum vsum_set(float x) { return _mm256_set1_ps(x); }
INLINE vsum vsum_fma(vsum a, vsum b, vsum c) { return _mm256_fmadd_ps(a, b, c); }
#endif

INLINE void pair_step(
    uint32_t n_q, const left *a, size_t a_row, const uint32_t *b, vsum *acc)
{
    vsum right[TILE_V];
    UNROLL for (uint32_t c = 0; c < TILE_V; c++)
        right[c] = pair_odd(vpair_load(b + c * LANES));
    UNROLL for (uint32_t r = 0; r < n_q; r++)
        UNROLL for (uint32_t c = 0; c < TILE_V; c++)
            acc[r * TILE_V + c] =
                vsum_fma(vsum_set(a[r * a_row].odd), right[c], acc[r * TILE_V + c]);
    UNROLL for (uint32_t c = 0; c < TILE_V; c++)
        right[c] = pair_even(vpair_load(b + c * LANES));
    UNROLL for (uint32_t r = 0; r < n_q; r++)
        UNROLL for (uint32_t c = 0; c < TILE_V; c++)
            acc[r * TILE_V + c] =
                vsum_fma(vsum_set(a[r * a_row].even), right[c], acc[r * TILE_V + c]);
}

#endif

/* n_q rows from row r, columns from col. fresh: from 0, else onto what is there. */
INLINE void product_tile(const struct product *p, uint32_t n_q, uint32_t r, uint32_t col, bool fresh,
    struct bf16_span *ask)
{
    const left *a = p->a + r * p->a_row;
    const uint32_t *b = p->b + col;
    float *c = p->c + r * p->c_stride + col;
    vsum acc[TILE_Q * TILE_V];
    FLUSH_BEGIN
    UNROLL for (uint32_t i = 0; i < n_q; i++)
        UNROLL for (uint32_t j = 0; j < TILE_V; j++)
            acc[i * TILE_V + j] = fresh ? vsum_zero() : vsum_load(c + i * p->c_stride + j * LANES);
    for (uint32_t i = 0; i < p->n_pair; i++, a += p->a_pair, b += p->b_stride) {
        pair_step(n_q, a, p->a_row, b, acc);
        if (ask->ahead < ask->ahead_end) {
            UNROLL for (uint32_t j = 0; j < LINES_AHEAD; j++)
                _mm_prefetch(ask->ahead + j * 64, _MM_HINT_T1);
            ask->ahead += LINES_AHEAD * 64;
        }
    }
    UNROLL for (uint32_t i = 0; i < n_q; i++)
        UNROLL for (uint32_t j = 0; j < TILE_V; j++)
            vsum_store(c + i * p->c_stride + j * LANES, acc[i * TILE_V + j]);
    FLUSH_END
}

INLINE void product(
    const struct product *p, uint32_t n_q, uint32_t n_col, bool fresh, struct bf16_span *ask)
{
    uint32_t r = 0;
    for (; r + TILE_Q <= n_q; r += TILE_Q)
        for (uint32_t col = 0; col < n_col; col += TILE_V * LANES)
            product_tile(p, TILE_Q, r, col, fresh, ask);
    for (; r + TILE_Q / 3 <= n_q; r += TILE_Q / 3)
        for (uint32_t col = 0; col < n_col; col += TILE_V * LANES)
            product_tile(p, TILE_Q / 3, r, col, fresh, ask);
    for (; r < n_q; r++)
        for (uint32_t col = 0; col < n_col; col += TILE_V * LANES)
            product_tile(p, 1, r, col, fresh, ask);
}

/* ---- a page in pairs ------------------------------------------------------------------------- */

/* n of the bf16 at p, zeros behind them. */
INLINE __m128i load_eight(const uint16_t *p, uint32_t n)
{
    char room[16] = { 0 };
    if (n >= 8)
        return load_128(p);
    memcpy(room, p, n * sizeof *p);
    return load_128(room);
}

INLINE vpair load_values(const uint16_t *p, uint32_t n)
{
    char room[sizeof(vpair)] = { 0 };
    if (n >= 2 * LANES)
        return vpair_load(p);
    memcpy(room, p, n * sizeof *p);
    return vpair_load(room);
}

/* Eight elements, of which there are n, at keys and of every fourth position from there, in a 128-bit
 * lane each. */
INLINE vpair key_lanes(const uint16_t *keys, uint32_t d_head, uint32_t n)
{
    __m128i x[LANES / 4];
    UNROLL for (uint32_t j = 0; j < LANES / 4; j++)
        x[j] = load_eight(keys + 4 * j * (size_t)d_head, n);
#ifdef __AVX512F__
    __m512i y = _mm512_inserti32x4(_mm512_castsi128_si512(x[0]), x[1], 1);
    return _mm512_inserti32x4(_mm512_inserti32x4(y, x[2], 2), x[3], 3);
#else
    return _mm256_inserti128_si256(_mm256_castsi128_si256(x[0]), x[1], 1);
#endif
}

#ifdef __AVX512F__
#define UNPACK(what, a, b) _mm512_unpack##what(a, b)
#else
#define UNPACK(what, a, b) _mm256_unpack##what(a, b)
#endif

/* Eight elements of LANES positions to four pairs. */
INLINE void key_block(const uint16_t *keys, uint32_t d_head, uint32_t n, uint32_t *to)
{
    vpair a = key_lanes(keys, d_head, n), b = key_lanes(keys + d_head, d_head, n);
    vpair c = key_lanes(keys + 2 * (size_t)d_head, d_head, n);
    vpair d = key_lanes(keys + 3 * (size_t)d_head, d_head, n);
    vpair ab_low = UNPACK(lo_epi32, a, b), ab_high = UNPACK(hi_epi32, a, b);
    vpair cd_low = UNPACK(lo_epi32, c, d), cd_high = UNPACK(hi_epi32, c, d);
    vpair_store(to, UNPACK(lo_epi64, ab_low, cd_low));
    vpair_store(to + KV_PAGE, UNPACK(hi_epi64, ab_low, cd_low));
    vpair_store(to + 2 * KV_PAGE, UNPACK(lo_epi64, ab_high, cd_high));
    vpair_store(to + 3 * KV_PAGE, UNPACK(hi_epi64, ab_high, cd_high));
}

/* Keys from position by position to pair by pair. */
static void key_pairs(const uint16_t *keys, uint32_t d_head, uint32_t n_pos, uint32_t *to)
{
    for (uint32_t p = 0; p < n_pos; p += LANES, keys += LANES * (size_t)d_head) {
        uint32_t i = 0;
        for (; i + 8 <= d_head; i += 8)
            key_block(keys + i, d_head, 8, to + i / 2 * KV_PAGE + p);
        if (i < d_head)
            key_block(keys + i, d_head, d_head - i, to + i / 2 * KV_PAGE + p);
    }
}

/* Elements of two positions side by side, 2 LANES at a time. */
INLINE void value_pair(vpair even, vpair odd, uint32_t *to)
{
    vpair low = UNPACK(lo_epi16, even, odd), high = UNPACK(hi_epi16, even, odd);
#ifdef __AVX512F__
    const __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
    const __m512i second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
    vpair_store(to, _mm512_permutex2var_epi64(low, first, high));
    vpair_store(to + LANES, _mm512_permutex2var_epi64(low, second, high));
#else
    vpair_store(to, _mm256_permute2x128_si256(low, high, 0x20));
    vpair_store(to + LANES, _mm256_permute2x128_si256(low, high, 0x31));
#endif
}

static void value_pairs(
    const uint16_t *values, uint32_t d_head, uint32_t n_pos, uint32_t columns, uint32_t *to)
{
    for (uint32_t p = 0; p < n_pos; p += 2, to += columns) {
        const uint16_t *row = values + p * (size_t)d_head;
        uint32_t i = 0;
        for (; i + 2 * LANES <= d_head; i += 2 * LANES)
            value_pair(vpair_load(row + i), vpair_load(row + d_head + i), to + i);
        if (i < d_head)
            value_pair(load_values(row + i, d_head - i), load_values(row + d_head + i, d_head - i),
                to + i);
    }
}

/* ---- softmax --------------------------------------------------------------------------------- */

/* Sixteen numbers rounded to bf16, as eight pairs; returns them. */
INLINE v16 store_left(left *to, v16 x)
{
#ifdef __AVX512BF16__
    __m256i h = (__m256i)_mm512_cvtneps_pbh(x); /* none here is too small to be normal, but 0 */
    _mm256_storeu_si256((__m256i *)(void *)to, h);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
#else
    uint16_t h[16];
    _mm256_storeu_si256((__m256i *)(void *)h, v16_to_bf16(x));
    x = v16_from_bf16(h);
    v16_store(to, x);
    return x;
#endif
}

/* Scales the n scores of a query; returns their maximum and that of `max`. */
INLINE float scale_scores(float *score, uint32_t n, float scale, float max)
{
    v16 factor = v16_set(scale), most = v16_set(max);
    UNROLL for (uint32_t i = 0; i < KV_PAGE; i += 16) {
        v16 s = v16_mul(v16_load(score + i), factor);
        if (n < KV_PAGE)
            s = v16_fill(s, n < i ? 0 : n - i < 16 ? n - i : 16, -INFINITY);
        most = v16_max(s, most); /* a NaN is passed over here and shows below */
        v16_store(score + i, s);
    }
    return v16_max_of(most) + 0.0f; /* of two zeros, the positive one */
}

/* short_exp of kernels/ref, step for step. A NaN here has zeros in its last bits, for it comes from a
 * bf16 or from no number at all, and so stays one. */
INLINE v16 v16_short_exp(v16 x)
{
    v16 log2_e = v16_set(0x1.715476p+0f), round = v16_set(0x1.8p+23f);
    v16 z = v16_fma(x, log2_e, round), n = v16_sub(z, round);
    v16 r = v16_fma(x, log2_e, v16_negate(n));
    v16 p = v16_set(0x1.3a02ccp-7f);
    p = v16_fma(p, r, v16_set(0x1.c9fc46p-5f));
    p = v16_fma(p, r, v16_set(0x1.ec0378p-3f));
    p = v16_fma(p, r, v16_set(0x1.62e12cp-1f));
    p = v16_fma(p, r, v16_set(1.0f));
    return v16_ldexp(p, z, x, -87.3f);
}

/* Scores to weights; returns their sum. Missing ones are minus infinity. */
INLINE float weigh(const float *score, float m, left *weight)
{
    v16 max = v16_set(m), sum = v16_set(0);
    UNROLL for (uint32_t i = 0; i < KV_PAGE; i += 16) {
        v16 e = v16_short_exp(v16_sub(v16_load(score + i), max));
        sum = v16_add(sum, store_left(weight + i / 2, e));
    }
    return v16_fold(sum);
}

/* The page's n scores of the row to weights; its sums so far are brought to the new maxima. */
static void softmax_row(const struct bf16_span *s, uint32_t row, uint32_t n)
{
    uint32_t n_q = s->a->n_q;
    float *l = s->l + row * n_q, *m = s->m + row * n_q;

    for (uint32_t i = 0; i < n_q; i++) {
        s->old[i] = m[i];
        m[i] = scale_scores(s->score + i * KV_PAGE, n, s->a->scale, m[i]);
        s->decay[i] = s->old[i] - m[i];
    }
    for (uint32_t i = 0; i < n_q; i += 16)
        v16_store(s->decay + i, v16_exp(v16_load(s->decay + i)));
    for (uint32_t i = 0; i < n_q; i++) {
        float decay = s->old[i] == -INFINITY ? 0.0f : s->decay[i];
        float *sum = s->sum + (size_t)(row * n_q + i) * s->columns;
        float ld = l[i] * decay;
        l[i] = ld + weigh(s->score + i * KV_PAGE, m[i], s->weight + i * (KV_PAGE / 2));
        if (decay == 1.0f)
            continue;
        for (uint32_t j = 0; j < s->columns; j += 16)
            v16_store(sum + j, v16_mul(v16_load(sum + j), v16_set(decay)));
    }
}

/* ---- rows and pages -------------------------------------------------------------------------- */

static void scores_of_row(struct bf16_span *s, uint32_t row, uint32_t n)
{
    uint32_t n_q = s->a->n_q;
    struct product p = { .a = s->query + (size_t)row * n_q * s->n_pair, .a_row = 1, .a_pair = n_q,
        .b = s->keys, .b_stride = KV_PAGE, .n_pair = s->n_pair, .c = s->score, .c_stride = KV_PAGE };
    product(&p, n_q, n <= KV_PAGE / 2 ? KV_PAGE / 2 : KV_PAGE, true, s);
}

/* n_pair pairs of positions, the first of which is `from`. */
static void add_values(
    struct bf16_span *s, uint32_t row, uint32_t from, uint32_t n_pair, const uint32_t *values)
{
    uint32_t n_q = s->a->n_q;
    struct product p = { .a = s->weight + from, .a_row = KV_PAGE / 2, .a_pair = 1, .b = values,
        .b_stride = s->columns, .n_pair = n_pair,
        .c = s->sum + (size_t)row * n_q * s->columns, .c_stride = s->columns };
    product(&p, n_q, s->columns, false, s);
}

static void values_of_row(struct bf16_span *s, uint32_t row, uint32_t n)
{
    add_values(s, row, 0, n / 2, s->values);
    if (n % 2 == 0)
        return;
    /* The position behind the last one may hold anything. */
    const uint32_t *pair = s->values + (size_t)(n / 2) * s->columns;
    for (uint32_t i = 0; i < s->columns; i++)
        s->last[i] = pair[i] & 0xffffu;
    add_values(s, row, n / 2, 1, s->last);
}

static void attend_page_bf16(struct bf16_span *s, uint32_t begin, uint32_t end)
{
    const struct attention *a = s->a;
    const uint16_t *page = a->page[begin / KV_PAGE];
    uint32_t n_pos = end - begin < KV_PAGE ? end - begin : KV_PAGE;

    s->ahead = end - begin > KV_PAGE ? a->page[begin / KV_PAGE + 1] : a->next;
    s->ahead_end = s->ahead ? s->ahead + 4 * (size_t)KV_PAGE * a->d_head : NULL;
    key_pairs(page, a->d_head, n_pos, s->keys);
    value_pairs(page + (size_t)KV_PAGE * a->d_head, a->d_head, n_pos, s->columns, s->values);
    for (uint32_t r = 0; r < s->n_row; r++) {
        uint32_t row_last = row_end(a, s->row + r);
        if (row_last <= begin)
            continue;
        uint32_t n = row_last - begin < KV_PAGE ? row_last - begin : KV_PAGE;
        scores_of_row(s, r, n);
        softmax_row(s, r, n);
        values_of_row(s, r, n);
    }
}

/* The query's pairs, n_q apart. */
static void round_query(const float *q, uint32_t d_head, left *to, uint32_t n_q)
{
    for (uint32_t i = 0; i < d_head; i += 16) {
        uint32_t n = d_head - i < 16 ? d_head - i : 16;
        uint16_t h[16];
        _mm256_storeu_si256((__m256i *)(void *)h, v16_to_bf16(v16_load_n(q + i, n)));
        for (uint32_t j = 0; j < n; j += 2) /* behind the last is 0 */
#ifdef __AVX512BF16__
            to[(i + j) / 2 * n_q] = get_u32(h + j);
#else
            to[(i + j) / 2 * n_q] = (left){ f32_from_bf16(h[j]), f32_from_bf16(h[j + 1]) };
#endif
    }
}

static void begin_rows(struct bf16_span *s)
{
    const struct attention *a = s->a;
    uint32_t n = s->n_row * a->n_q;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t r = i / a->n_q, j = i % a->n_q;
        round_query(a->q + (s->row + r) * a->q_stride + (size_t)j * a->d_head, a->d_head,
            s->query + (size_t)r * a->n_q * s->n_pair + j, a->n_q);
        s->l[i] = 0;
        s->m[i] = -INFINITY;
    }
    memset(s->sum, 0, (size_t)n * s->columns * sizeof *s->sum);
}

static void finish_rows(const struct bf16_span *s)
{
    const struct attention *a = s->a;
    for (uint32_t i = 0; i < s->n_row * a->n_q; i++) {
        float *out = a->out + ((size_t)s->row * a->n_q + i) * (a->d_head + 2);
        memcpy(out, s->sum + (size_t)i * s->columns, a->d_head * sizeof *out);
        out[a->d_head] = s->l[i];
        out[a->d_head + 1] = s->m[i];
    }
}

static void attention_bf16(const struct attention *a, void *scratch)
{
    uint32_t columns = (a->d_head + COLUMN_STEP - 1) / COLUMN_STEP * COLUMN_STEP;
    size_t n_query = (size_t)ROWS * a->n_q;
    struct bf16_span s = { .a = a, .n_pair = (a->d_head + 1) / 2, .columns = columns,
        .keys = scratch };
    s.values = s.keys + columns / 2 * KV_PAGE;
    s.last = s.values + KV_PAGE / 2 * columns;
    s.sum = (float *)(void *)(s.last + columns);
    s.score = s.sum + n_query * columns;
    s.query = (left *)(void *)(s.score + (size_t)a->n_q * KV_PAGE);
    s.weight = s.query + n_query * s.n_pair;
    s.l = (float *)(void *)(s.weight + (size_t)a->n_q * KV_PAGE / 2);
    s.m = s.l + n_query;
    s.old = s.m + n_query;
    s.decay = s.old + a->n_q;

    for (s.row = 0; s.row < a->n_row; s.row += ROWS) {
        uint32_t end = 0;
        s.n_row = a->n_row - s.row < ROWS ? a->n_row - s.row : ROWS;
        for (uint32_t r = s.row; r < s.row + s.n_row; r++)
            end = row_end(a, r) > end ? row_end(a, r) : end;
        begin_rows(&s);
        for (uint32_t p = a->pos_begin; p < end; p += KV_PAGE)
            attend_page_bf16(&s, p, end);
        finish_rows(&s);
    }
}

#undef UNPACK
#endif
