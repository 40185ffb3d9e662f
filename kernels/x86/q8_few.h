/* q8_few.h: a panel of 16 outputs with 1 to 8 rows of activations, AVX-512: weights are transposed and
 * unpacked in registers and used at once, nothing goes through memory. Part of q8_avx512.c, which
 * defines dot, broadcast_f32 and row_terms before it.
 *
 * A load takes 16 bytes of each output, 4 outputs a register; 8 shuffles make 4 registers of words
 * from 4 of those, one word (a quad of 8-bit quants, or two of 4 bits) of 16 outputs each. Per 16
 * outputs and 32 inputs: 16 loads for each 16 bytes of weights, then 8 dots, a conversion, a multiply
 * and an fma a row. Groups go in the order of the chain over K, so that formats which interleave
 * groups keep their raw words until each group's turn has come.
 */
#ifndef GLM_KERNELS_X86_Q8_FEW_H
#define GLM_KERNELS_X86_Q8_FEW_H

#include "q8_drive.h"

#define FEW_ROWS 8u

struct few {
    const uint8_t *x[FEW_ROWS];               /* quants of the span */
    const uint8_t *dx[FEW_ROWS];              /* its scales */
    union {
        int32_t start[16];                    /* by group, as row_terms: the sum's start */
        float min[16];                        /* with a minimum: what it is multiplied with */
    } term[FEW_ROWS];
    __m512 acc[FEW_ROWS];
    const uint8_t *next;                      /* to prefetch of the next panel, */
    uint32_t each;                            /* so many bytes with a group, */
    const uint8_t *soon;                      /* and of this one the next span: of the row that */
    size_t stride;                            /* comes next, and from row to row */
    uint32_t span_bytes;
};

/* ---- words of 16 outputs --------------------------------------------------------------------- */

/* Where 16 rows are: every one is a base and a scaled index away. Left to itself, gcc 12 keeps 16
 * pointers, spills them, and loses a third of the speed. */
struct at16 {
    const uint8_t *low, *high; /* rows 0 and 8 */
    size_t s, s3, s5, s7;      /* strides */
};

ALWAYS struct at16 at16_of(const uint8_t *p, size_t stride)
{
    struct at16 a = {p, p + 8 * stride, stride, 3 * stride, 5 * stride, 7 * stride};
    __asm__("" : "+r"(a.low), "+r"(a.high), "+r"(a.s), "+r"(a.s3), "+r"(a.s5), "+r"(a.s7));
    return a;
}

ALWAYS void at16_move(struct at16 *a, size_t by)
{
    a->low += by;
    a->high += by;
    __asm__("" : "+r"(a->low), "+r"(a->high));
}

/* Byte `at` of row i. */
ALWAYS const uint8_t *at16_row(const struct at16 *a, const uint32_t i, const uint32_t at)
{
    const uint8_t *p = (i < 8 ? a->low : a->high) + at;
    switch (i % 8) {
    case 0: return p;
    case 1: return p + a->s;
    case 2: return p + 2 * a->s;
    case 3: return p + a->s3;
    case 4: return p + 4 * a->s;
    case 5: return p + a->s5;
    case 6: return p + 2 * a->s3;
    default: return p + a->s7;
    }
}

/* 16 bytes of rows i, i + 4, i + 8, i + 12. */
ALWAYS __m512i four_rows(const struct at16 *a, const uint32_t i, const uint32_t at)
{
    __m512i v = _mm512_castsi128_si512(load16(at16_row(a, i, at)));
    v = _mm512_inserti32x4(v, load16(at16_row(a, i + 4, at)), 1);
    v = _mm512_inserti32x4(v, load16(at16_row(a, i + 8, at)), 2);
    return _mm512_inserti32x4(v, load16(at16_row(a, i + 12, at)), 3);
}

/* 16 bytes of each of 16 rows: t[j] is word j of them. */
ALWAYS void transpose_words(const struct at16 *at, const uint32_t o, __m512i t[4])
{
    __m512i a = four_rows(at, 0, o), b = four_rows(at, 1, o);
    __m512i c = four_rows(at, 2, o), d = four_rows(at, 3, o);
    __m512i ab0 = _mm512_unpacklo_epi32(a, b), ab1 = _mm512_unpackhi_epi32(a, b);
    __m512i cd0 = _mm512_unpacklo_epi32(c, d), cd1 = _mm512_unpackhi_epi32(c, d);
    t[0] = _mm512_unpacklo_epi64(ab0, cd0);
    t[1] = _mm512_unpackhi_epi64(ab0, cd0);
    t[2] = _mm512_unpacklo_epi64(ab1, cd1);
    t[3] = _mm512_unpackhi_epi64(ab1, cd1);
}

ALWAYS void transpose_8words(const struct at16 *at, const uint32_t o, __m512i t[8])
{
    transpose_words(at, o, t);
    transpose_words(at, o + 16, t + 4);
}

ALWAYS __m512i words_of(const struct at16 *at, const uint32_t o)
{
    int32_t w[16];
#pragma GCC unroll 16
    for (uint32_t i = 0; i < 16; i++)
        w[i] = word32(at16_row(at, i, o));
    return _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_setr_epi32(w[0], w[1], w[2], w[3], w[4],
                                  w[5], w[6], w[7])),
        _mm256_setr_epi32(w[8], w[9], w[10], w[11], w[12], w[13], w[14], w[15]), 1);
}

ALWAYS __m512 halves_of(const struct at16 *at, const uint32_t o)
{
    int16_t w[16];
#pragma GCC unroll 16
    for (uint32_t i = 0; i < 16; i++)
        w[i] = word16(at16_row(at, i, o));
    return _mm512_cvtph_ps(_mm256_setr_epi16(w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7], w[8],
        w[9], w[10], w[11], w[12], w[13], w[14], w[15]));
}

ALWAYS __m512 low_half(__m512i v) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(v)); }
ALWAYS __m512 high_half(__m512i v) { return low_half(_mm512_srli_epi32(v, 16)); }
ALWAYS __m512 negated(__m512 v)
{
    return _mm512_castsi512_ps(
        _mm512_xor_si512(_mm512_castps_si512(v), _mm512_set1_epi32((int)0x80000000u)));
}

#define ALL(byte) _mm512_set1_epi8((char)(byte))

/* (v moved right by `by` bits, or left if negative) & mask, bytewise for masks that fit. */
ALWAYS __m512i field(__m512i v, const int by, const int mask)
{
    if (by > 0)
        v = _mm512_srli_epi16(v, (unsigned)by);
    if (by < 0)
        v = _mm512_slli_epi16(v, (unsigned)-by);
    return _mm512_and_si512(v, ALL(mask));
}

/* field(v, by, mask) | rest */
ALWAYS __m512i field_or(__m512i v, const int by, const int mask, __m512i rest)
{
    if (by > 0)
        v = _mm512_srli_epi16(v, (unsigned)by);
    if (by < 0)
        v = _mm512_slli_epi16(v, (unsigned)-by);
    return _mm512_ternarylogic_epi32(v, ALL(mask), rest, 0xea);
}

ALWAYS __m512 byte_float(__m512i v, const int i)
{
    return _mm512_cvtepi32_ps(
        _mm512_and_si512(_mm512_srli_epi32(v, (unsigned)(8 * i)), _mm512_set1_epi32(0xff)));
}

/* ---- sums ------------------------------------------------------------------------------------ */

/* A group that begins at quad `first` of block b: n quads w, its scale and, where there is one, its
 * minimum. Asks for as much of the next panel, and of this panel's next span, as the group takes:
 * evenly, because a burst of prefetches holds up the loads, and memory then gives a third of its
 * rate. */
ALWAYS void few_group(struct few *v, const uint32_t R, uint32_t b, const uint32_t first,
    const uint32_t n, const __m512i *w, __m512 scale, __m512 min, const bool has_min)
{
    uint32_t at = 2 * b + first / 4;
#pragma GCC unroll 2
    for (uint32_t i = 0; i < n / 4; i++, v->soon += v->stride)
        prefetch_span(v->soon, v->span_bytes);
    prefetch_panel(v->next, v->each);
    v->next += v->each;
#pragma GCC unroll 8
    for (uint32_t r = 0; r < R; r++) {
        const uint8_t *x = v->x[r] + 32 * b + 4 * first;
        __m512i sum = has_min ? _mm512_setzero_si512() : _mm512_set1_epi32(v->term[r].start[at]);
#pragma GCC unroll 8
        for (uint32_t j = 0; j < n; j++)
            sum = dot(sum, w[j], x + 4 * j);
        __m512 dd = _mm512_mul_ps(scale, broadcast_f32(v->dx[r] + 4 * b));
        v->acc[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), dd, v->acc[r]);
        if (has_min)
            v->acc[r] = _mm512_fmadd_ps(min, _mm512_set1_ps(v->term[r].min[at]), v->acc[r]);
    }
}

ALWAYS void few_begin(struct few *v, const uint32_t R, const struct panel *p,
    const struct row_span *rs, uint32_t k, const uint32_t format)
{
    const struct q8_format f = q8_formats[format];
#pragma GCC unroll 8
    for (uint32_t r = 0; r < R; r++) {
        const uint8_t *row = row_at(rs, r < rs->n ? r : rs->n - 1);
        v->x[r] = row + k;
        v->dx[r] = row + q8_scale_at(p->n_in) + k / 8;
        _mm512_storeu_si512(
            v->term[r].start, row_terms(row, p->n_in, k, f.offset, f.group, f.has_min));
    }
}

/* ---- blocks of 32 ---------------------------------------------------------------------------- */

/* 16 bytes of nibbles: elements 0..15 below, 16..31 above. */
ALWAYS void few_nibbles(const struct at16 *at, const uint32_t o, __m512i q[8])
{
    transpose_words(at, o, q);
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        q[j + 4] = field(q[j], 4, 15);
        q[j] = field(q[j], 0, 15);
    }
}

ALWAYS void few_look_up(__m256i table, __m512i q[8])
{
    __m512i t = _mm512_broadcast_i64x4(table);
#pragma GCC unroll 8
    for (int j = 0; j < 8; j++)
        q[j] = _mm512_shuffle_epi8(t, q[j]);
}

/* Bit i of a word high is the fifth bit of element i: byte j / 2 of the word has those of quad j. */
ALWAYS void few_fifth_bits(__m512i high, __m512i q[8])
{
    const __m512i word = _mm512_set4_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0);
#pragma GCC unroll 8
    for (int j = 0; j < 8; j++) {
        __m512i v = _mm512_shuffle_epi8(high, _mm512_add_epi8(word, ALL(j / 2)));
        __m512i bit = _mm512_set1_epi32(j % 2 ? (int)0x80402010u : 0x08040201);
        q[j] = _mm512_mask_add_epi8(q[j], _mm512_test_epi8_mask(v, bit), q[j], ALL(16));
    }
}

ALWAYS void few_block(
    struct few *v, const uint32_t R, const struct at16 *at, uint32_t b, const uint32_t format)
{
    __m512i q[8], head;
    __m512 scale, min = _mm512_setzero_ps();
    switch (format) {
    case W_Q8_0:
        scale = halves_of(at, 0);
        transpose_8words(at, 2, q);
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++)
            q[j] = _mm512_xor_si512(q[j], ALL(0x80));
        break;
    case W_Q4_0:
        scale = halves_of(at, 0);
        few_nibbles(at, 2, q);
        break;
    case W_IQ4_NL:
        scale = halves_of(at, 0);
        few_nibbles(at, 2, q);
        few_look_up(iq4_table(), q);
        break;
    case W_MXFP4:
        head = _mm512_and_si512(words_of(at, 0), _mm512_set1_epi32(0xff));
        scale = _mm512_insertf32x8(
            _mm512_castps256_ps512(mxfp4_scale(_mm512_castsi512_si256(head))),
            mxfp4_scale(_mm512_extracti64x4_epi64(head, 1)), 1);
        few_nibbles(at, 1, q);
        few_look_up(mxfp4_table(), q);
        break;
    case W_Q5_0:
        scale = halves_of(at, 0);
        few_nibbles(at, 6, q);
        few_fifth_bits(words_of(at, 2), q);
        break;
    default: /* Q4_1, Q5_1 */
        head = words_of(at, 0);
        scale = low_half(head);
        min = high_half(head);
        few_nibbles(at, (format == W_Q5_1 ? 8 : 4), q);
        if (format == W_Q5_1)
            few_fifth_bits(words_of(at, 4), q);
        break;
    }
    few_group(v, R, b, 0, 8, q, scale, min, format == W_Q4_1 || format == W_Q5_1);
}

/* ---- blocks of 256 --------------------------------------------------------------------------- */

/* d, dmin and the 6-bit scales and minima of Q4_K and Q5_K, as k4_scales. */
ALWAYS void few_k4_scales(const struct at16 *at, __m512 scale[8], __m512 min[8])
{
    __m512i t[4];
    transpose_words(at, 0, t);
    __m512 d = low_half(t[0]), dmin = negated(high_half(t[0]));
    __m512i sc[2] = {field(t[1], 0, 63), field_or(t[1], 2, 0x30, field(t[3], 0, 15))};
    __m512i m[2] = {field(t[2], 0, 63), field_or(t[2], 2, 0x30, field(t[3], 4, 15))};
#pragma GCC unroll 8
    for (int g = 0; g < 8; g++) {
        scale[g] = _mm512_mul_ps(d, byte_float(sc[g / 4], g % 4));
        min[g] = _mm512_mul_ps(dmin, byte_float(m[g / 4], g % 4));
    }
}

ALWAYS void few_q4_k(struct few *v, const uint32_t R, const struct at16 *at)
{
    __m512 scale[8], min[8];
    struct at16 a = *at;
    few_k4_scales(at, scale, min);
    at16_move(&a, 16);
    for (uint32_t i = 0; i < 4; i++, at16_move(&a, 32)) {
        __m512i t[8], q[8];
        transpose_8words(&a, 0, t);
#pragma GCC unroll 2
        for (uint32_t half = 0; half < 2; half++) {
#pragma GCC unroll 8
            for (int j = 0; j < 8; j++)
                q[j] = field(t[j], half ? 4 : 0, 15);
            few_group(v, R, 2 * i + half, 0, 8, q, scale[2 * i + half], min[2 * i + half], true);
        }
    }
}

ALWAYS void few_q5_k(struct few *v, const uint32_t R, const struct at16 *at)
{
    __m512 scale[8], min[8];
    __m512i high[8];
    few_k4_scales(at, scale, min);
    transpose_8words(at, 16, high);
#pragma GCC unroll 4
    for (uint32_t i = 0; i < 4; i++) {
        __m512i t[8], q[8];
        transpose_8words(at, 48 + 32 * i, t);
#pragma GCC unroll 2
        for (uint32_t half = 0; half < 2; half++) {
            const int bit = (int)(2 * i + half);
#pragma GCC unroll 8
            for (int j = 0; j < 8; j++)
                q[j] = field_or(high[j], bit - 4, 16, field(t[j], half ? 4 : 0, 15));
            few_group(v, R, 2 * i + half, 0, 8, q, scale[2 * i + half], min[2 * i + half], true);
        }
    }
}

ALWAYS void few_q6_k(struct few *v, const uint32_t R, const struct at16 *at)
{
    __m512i sc[4];
    __m512 scale[16], none = _mm512_setzero_ps(), d = halves_of(at, 208);
    transpose_words(at, 192, sc);
#pragma GCC unroll 16
    for (int g = 0; g < 16; g++) {
        __m512i s = _mm512_slli_epi32(sc[g / 4], (unsigned)(24 - 8 * (g % 4)));
        scale[g] = _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_srai_epi32(s, 24)));
    }
    struct at16 top = *at, a = *at; /* loops that move pointers: unrolled, this one is half as fast */
    at16_move(&top, 128);
    for (uint32_t n = 0; n < 2; n++, at16_move(&top, 32), at16_move(&a, 64)) {
        __m512i high[8], low[2][8], q[8];
        transpose_8words(&top, 0, high);
        transpose_8words(&a, 0, low[0]);
        transpose_8words(&a, 32, low[1]);
#pragma GCC unroll 4
        for (uint32_t f = 0; f < 4; f++) {
            const uint32_t b = 4 * n + f;
#pragma GCC unroll 8
            for (int j = 0; j < 8; j++)
                q[j] = field_or(high[j], 2 * (int)f - 4, 0x30, field(low[f % 2][j], f < 2 ? 0 : 4, 15));
            few_group(v, R, b, 0, 4, q, scale[2 * b], none, false);
            few_group(v, R, b, 4, 4, q + 4, scale[2 * b + 1], none, false);
        }
    }
}

ALWAYS void few_q2_k(struct few *v, const uint32_t R, const struct at16 *at)
{
    __m512i sc[4], head = words_of(at, 80);
    __m512 scale[16], min[16], d = low_half(head), dmin = negated(high_half(head));
    transpose_words(at, 0, sc);
#pragma GCC unroll 16
    for (int g = 0; g < 16; g++) {
        scale[g] = _mm512_mul_ps(d, byte_float(field(sc[g / 4], 0, 15), g % 4));
        min[g] = _mm512_mul_ps(dmin, byte_float(field(sc[g / 4], 4, 15), g % 4));
    }
    struct at16 a = *at;
    at16_move(&a, 16);
    for (uint32_t n = 0; n < 2; n++, at16_move(&a, 32)) {
        __m512i t[8], q[8];
        transpose_8words(&a, 0, t);
#pragma GCC unroll 4
        for (uint32_t f = 0; f < 4; f++) {
            const uint32_t b = 4 * n + f;
#pragma GCC unroll 8
            for (int j = 0; j < 8; j++)
                q[j] = field(t[j], 2 * (int)f, 3);
            few_group(v, R, b, 0, 4, q, scale[2 * b], min[2 * b], true);
            few_group(v, R, b, 4, 4, q + 4, scale[2 * b + 1], min[2 * b + 1], true);
        }
    }
}

ALWAYS void few_k3_scales(const struct at16 *at, __m512 scale[16])
{
    __m512 d = halves_of(at, 108);
    __m512i s0 = words_of(at, 96), s1 = words_of(at, 100),
            high = words_of(at, 104);
    __m512i sc[4] = {field_or(high, -4, 0x30, field(s0, 0, 15)),
        field_or(high, -2, 0x30, field(s1, 0, 15)), field_or(high, 0, 0x30, field(s0, 4, 15)),
        field_or(high, 2, 0x30, field(s1, 4, 15))};
#pragma GCC unroll 16
    for (int g = 0; g < 16; g++)
        scale[g] =
            _mm512_mul_ps(d, _mm512_sub_ps(byte_float(sc[g / 4], g % 4), _mm512_set1_ps(32.0f)));
}

ALWAYS void few_q3_k(struct few *v, const uint32_t R, const struct at16 *at)
{
    __m512i high[8];
    __m512 scale[16], none = _mm512_setzero_ps();
    few_k3_scales(at, scale);
    transpose_8words(at, 0, high);
#pragma GCC unroll 2
    for (uint32_t n = 0; n < 2; n++) {
        __m512i t[8], q[8];
        transpose_8words(at, 32 + 32 * n, t);
#pragma GCC unroll 4
        for (uint32_t f = 0; f < 4; f++) {
            const uint32_t b = 4 * n + f;
#pragma GCC unroll 8
            for (int j = 0; j < 8; j++)
                q[j] = field_or(high[j], (int)b - 2, 4, field(t[j], 2 * (int)f, 3));
            few_group(v, R, b, 0, 4, q, scale[2 * b], none, false);
            few_group(v, R, b, 4, 4, q + 4, scale[2 * b + 1], none, false);
        }
    }
}

ALWAYS void few_iq4_xs(struct few *v, const uint32_t R, const struct at16 *at)
{
    __m512i first = words_of(at, 0), low = words_of(at, 4);
    __m512 d = low_half(first), scale[8];
#pragma GCC unroll 8
    for (int g = 0; g < 8; g++) {
        __m512i s =
            _mm512_and_si512(_mm512_srli_epi32(low, (unsigned)(4 * g)), _mm512_set1_epi32(15));
        __m512i h = _mm512_and_si512(
            _mm512_srli_epi32(first, (unsigned)(16 + 2 * g)), _mm512_set1_epi32(3));
        s = _mm512_sub_epi32(_mm512_or_si512(s, _mm512_slli_epi32(h, 4)), _mm512_set1_epi32(32));
        scale[g] = _mm512_mul_ps(d, _mm512_cvtepi32_ps(s));
    }
    struct at16 a = *at;
    at16_move(&a, 8);
    for (uint32_t g = 0; g < 8; g++, at16_move(&a, 16)) {
        __m512i q[8];
        few_nibbles(&a, 0, q);
        few_look_up(iq4_table(), q);
        few_group(v, R, g, 0, 8, q, scale[g], d, false);
    }
}

/* ---- panels ---------------------------------------------------------------------------------- */

ALWAYS void few_span(
    struct few *v, const uint32_t R, const struct at16 *at, uint32_t n_block, const uint32_t format)
{
    struct at16 a = *at;
    switch (format) {
    case W_Q2_K: few_q2_k(v, R, at); break;
    case W_Q3_K: few_q3_k(v, R, at); break;
    case W_Q4_K: few_q4_k(v, R, at); break;
    case W_Q5_K: few_q5_k(v, R, at); break;
    case W_Q6_K: few_q6_k(v, R, at); break;
    case W_IQ4_XS: few_iq4_xs(v, R, at); break;
    default:
        for (uint32_t b = 0; b < n_block; b++) {
            few_block(v, R, &a, b, format);
            at16_move(&a, q8_formats[format].span_bytes / SPAN_BLOCKS);
        }
        break;
    }
}

/* R >= the rows; the last one is repeated. */
ALWAYS void few_rows(const struct panel *p, const struct row_span *rs, float (*acc)[LANES],
    const uint32_t R, const uint32_t format)
{
    struct few v;
    struct at16 at = at16_of(p->data, p->stride);
    v.each = q8_formats[format].span_bytes * LANES * q8_formats[format].group / SPAN;
    v.span_bytes = q8_formats[format].span_bytes;
    v.stride = p->stride;
#pragma GCC unroll 8
    for (uint32_t r = 0; r < R; r++)
        v.acc[r] = _mm512_setzero_ps();
    for (uint32_t k = 0; k < p->n_in; k += SPAN) {
        uint32_t left = (p->n_in - k) / 32;
        if (p->first)
            prefetch_rows(p, at.low);
        v.soon = span_after(p, at.low, k);
        v.next = p->ahead ? p->data + p->ahead + (size_t)(at.low - p->data) * LANES : at.low;
        few_begin(&v, R, p, rs, k, format);
        few_span(&v, R, &at, left < SPAN_BLOCKS ? left : SPAN_BLOCKS, format);
        at16_move(&at, q8_formats[format].span_bytes);
    }
#pragma GCC unroll 8
    for (uint32_t r = 0; r < R; r++)
        if (r < rs->n)
            _mm512_storeu_ps(acc[r], v.acc[r]);
}

typedef void few_kernel(const struct panel *p, const struct row_span *rs, float (*acc)[LANES]);

#define FEW_KERNEL(name, R, format)                                                                \
    static void name(const struct panel *p, const struct row_span *rs, float(*acc)[LANES])         \
    {                                                                                              \
        few_rows(p, rs, acc, R, format);                                                           \
    }
#define FEW_KERNELS(name, format)                                                                  \
    FEW_KERNEL(name##_few_1, 1, format)                                                            \
    FEW_KERNEL(name##_few_2, 2, format)                                                            \
    FEW_KERNEL(name##_few_4, 4, format)                                                            \
    FEW_KERNEL(name##_few_8, 8, format)
FEW_KERNELS(q8_0, W_Q8_0)
FEW_KERNELS(q4_0, W_Q4_0)
FEW_KERNELS(q4_1, W_Q4_1)
FEW_KERNELS(q5_0, W_Q5_0)
FEW_KERNELS(q5_1, W_Q5_1)
FEW_KERNELS(iq4_nl, W_IQ4_NL)
FEW_KERNELS(mxfp4, W_MXFP4)
FEW_KERNELS(q2_k, W_Q2_K)
FEW_KERNELS(q3_k, W_Q3_K)
FEW_KERNELS(q4_k, W_Q4_K)
FEW_KERNELS(q5_k, W_Q5_K)
FEW_KERNELS(q6_k, W_Q6_K)
FEW_KERNELS(iq4_xs, W_IQ4_XS)

/* NULL: more rows than these take. */
static inline few_kernel *few_of(uint32_t format, uint32_t n_row)
{
#define FEW_OF(name) {name##_few_1, name##_few_2, name##_few_4, name##_few_8}
    static few_kernel *const kernels[W_FORMAT_COUNT][4] = {
        [W_Q8_0] = FEW_OF(q8_0),
        [W_Q4_0] = FEW_OF(q4_0),
        [W_Q4_1] = FEW_OF(q4_1),
        [W_Q5_0] = FEW_OF(q5_0),
        [W_Q5_1] = FEW_OF(q5_1),
        [W_IQ4_NL] = FEW_OF(iq4_nl),
        [W_MXFP4] = FEW_OF(mxfp4),
        [W_Q2_K] = FEW_OF(q2_k),
        [W_Q3_K] = FEW_OF(q3_k),
        [W_Q4_K] = FEW_OF(q4_k),
        [W_Q5_K] = FEW_OF(q5_k),
        [W_Q6_K] = FEW_OF(q6_k),
        [W_IQ4_XS] = FEW_OF(iq4_xs),
    };
    if (n_row == 0 || n_row > FEW_ROWS)
        return NULL;
    return kernels[format][n_row > 4 ? 3 : n_row > 2 ? 2 : n_row - 1];
}

#endif
