/* q8_avx512.c: matmul_q8 and swiglu_q8 with AVX-512 and VNNI. Owns nothing; see q8_drive.h for the
 * walk and the scratch.
 *
 * 16 outputs are the lanes of a register. For a group of 32 inputs, 8 vpdpbusd add weight quads
 * (unsigned, see q8_unpack.h) times a broadcast quad of activations; the sum starts from -offset *
 * sum(x), so that the offset costs nothing. Per row, group and 16 outputs: 8 dots, 1 conversion, 1
 * multiply, 1 fma; the dots bound it.
 *
 * More than 8 rows: a span of 256 inputs is unpacked to L1, of two panels at a time where there are
 * two, and used for 6 rows (of one panel alone: 8) at a time, their sums side by side. Up to 8 rows:
 * unpacked in registers, nothing is stored (q8_few.h); one or two rows of Q4_0 or Q8_0 in 256-bit
 * registers, which is faster there (q8_direct.h). Unpacking spans in 512-bit registers was slower by
 * 3 to 10 %: a load into a quarter of a register costs as much as two into halves.
 */
#include "q8_drive.h"
#include "x86.h"

#define PAIR_ROWS 6u       /* 24 accumulators, 2 weights, an activation and 2 scales: all registers */
#define PAIR_ROWS_FROM 8u  /* fewer are done in registers (q8_few.h) */

/* acc += w (unsigned bytes) . x (4 signed bytes, broadcast). gcc 12 loads the broadcast into a
 * register of its own when left to itself. */
ALWAYS __m512i dot(__m512i acc, __m512i w, const uint8_t *x)
{
    __asm__("vpdpbusd %2%{1to16%}, %1, %0"
            : "+v"(acc)
            : "v"(w), "m"(*(const int32_t *)(const void *)x));
    return acc;
}

ALWAYS __m512 broadcast_f32(const uint8_t *p)
{
    float v;
    memcpy(&v, p, 4);
    return _mm512_set1_ps(v);
}

/* What a row adds to the sums of a span's groups, one lane a group of 16 (of 32: lane 2 b): the
 * integer start -offset * sum(x), or with a minimum the float dx * sum(x). */
ALWAYS __m512i row_terms(
    const uint8_t *x, uint32_t n_in, uint32_t k, int32_t offset, uint32_t group, bool has_min)
{
    __m512i sum = _mm512_loadu_si512(x + q8_sum_at(n_in) + k / 4);
    if (group == 32)
        sum = _mm512_add_epi32(sum, _mm512_srli_epi64(sum, 32));
    if (!has_min)
        return _mm512_mullo_epi32(sum, _mm512_set1_epi32(-offset));
    __m256i d = _mm256_loadu_si256((const __m256i *)(const void *)(x + q8_scale_at(n_in) + k / 8));
    __m512i twice = _mm512_cvtepu32_epi64(d);
    twice = _mm512_or_si512(twice, _mm512_slli_epi64(twice, 32));
    return _mm512_castps_si512(_mm512_mul_ps(_mm512_castsi512_ps(twice), _mm512_cvtepi32_ps(sum)));
}

/* The same with the quad at x + at + offset. gcc 12 would spend a register on each offset, and keep
 * the rows' pointers in memory: the offset is written into the instruction. Where it is not known to
 * be a constant in time for that (clang, no optimization) the compiler does as it likes. */
#if defined(__GNUC__) && !defined(__clang__) && defined(__OPTIMIZE__)
ALWAYS __m512i dot_at(
    __m512i acc, __m512i w, const uint8_t *x, size_t at, const int offset)
{
    __asm__("vpdpbusd %c4(%2,%3)%{1to16%}, %1, %0" : "+v"(acc) : "v"(w), "r"(x), "r"(at), "i"(offset));
    return acc;
}

/* The quad at x + at + offset, in all lanes. */
ALWAYS __m512i broadcast_at(const uint8_t *x, size_t at, const int offset)
{
    __m512i v;
    __asm__("vpbroadcastd %c3(%1,%2), %0" : "=v"(v) : "r"(x), "r"(at), "i"(offset));
    return v;
}
#else
ALWAYS __m512i broadcast_at(const uint8_t *x, size_t at, const int offset)
{
    int quad;
    memcpy(&quad, x + at + offset, sizeof quad);
    return _mm512_set1_epi32(quad);
}

ALWAYS __m512i dot_at(__m512i acc, __m512i w, const uint8_t *x, size_t at, const int offset)
{
    return _mm512_dpbusd_epi32(acc, w, broadcast_at(x, at, offset));
}
#endif

/* R rows through a span in scratch: acc[row][lane] goes on. */
ALWAYS void span_rows(const struct panel *p, const struct span *s, const uint8_t *const *row,
    uint32_t k, struct ahead *n, float (*acc)[LANES], const uint32_t R, const uint32_t group,
    const bool has_min)
{
    uint32_t left = (p->n_in - k) / 32, n_block = left < SPAN_BLOCKS ? left : SPAN_BLOCKS;
    size_t scale_at = q8_scale_at(p->n_in) + k / 8 - k;
    const uint8_t *x[8];
    int32_t term[8][16]; /* of groups: row_terms */
    __m512 a[8];
#pragma GCC unroll 8
    for (uint32_t r = 0; r < R; r++) {
        x[r] = row[r] + k;
        _mm512_storeu_si512(
            term[r], row_terms(row[r], p->n_in, k, p->format->offset, group, has_min));
        a[r] = _mm512_loadu_ps(acc[r]);
    }
    for (size_t b = 0; b < n_block; b++) {
        prefetch_some(n);
#pragma GCC unroll 2
        for (uint32_t g = 0; g < 32 / group; g++) {
            size_t i = b * (32 / group) + g;
            __m512 d = _mm512_loadu_ps(s->scale[i]);
            __m512i sum[8];
#pragma GCC unroll 8
            for (uint32_t r = 0; r < R; r++)
                sum[r] = has_min ? _mm512_setzero_si512() : _mm512_set1_epi32(term[r][2 * b + g]);
#pragma GCC unroll 8
            for (uint32_t j = g * group / 4; j < (g + 1) * group / 4; j++) {
                __m512i w = _mm512_loadu_si512(s->w[b][j]);
#pragma GCC unroll 8
                for (uint32_t r = 0; r < R; r++)
                    sum[r] = dot_at(sum[r], w, x[r], 32 * b, 4 * (int)j);
            }
#pragma GCC unroll 8
            for (uint32_t r = 0; r < R; r++) {
                __m512 dd = _mm512_mul_ps(d, broadcast_f32(x[r] + scale_at + 4 * b));
                a[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[r]), dd, a[r]);
                if (has_min)
                    a[r] = _mm512_fmadd_ps(_mm512_loadu_ps(s->min[i]),
                        _mm512_castsi512_ps(_mm512_set1_epi32(term[r][2 * b + g])), a[r]);
            }
        }
    }
#pragma GCC unroll 8
    for (uint32_t r = 0; r < R; r++)
        _mm512_storeu_ps(acc[r], a[r]);
}

ALWAYS void span_all_rows(const struct panel *p, const struct span *s, const struct row_span *rs,
    uint32_t k, struct ahead *n, float (*acc)[LANES], const uint32_t group, const bool has_min)
{
    const uint8_t *x[8];
    uint32_t i = 0;
    for (; i + 8 <= rs->n; i += 8) {
        for (uint32_t r = 0; r < 8; r++)
            x[r] = row_at(rs, i + r);
        span_rows(p, s, x, k, n, acc + i, 8, group, has_min);
    }
    for (uint32_t r = 0; i + r < rs->n; r++)
        x[r] = row_at(rs, i + r);
    const uint8_t *const *rest = x;
    if (rs->n - i >= 4) {
        span_rows(p, s, rest, k, n, acc + i, 4, group, has_min);
        i += 4;
        rest += 4;
    }
    if (rs->n - i >= 2) {
        span_rows(p, s, rest, k, n, acc + i, 2, group, has_min);
        i += 2;
        rest += 2;
    }
    if (i < rs->n)
        span_rows(p, s, rest, k, n, acc + i, 1, group, has_min);
}

typedef void span_kernel(const struct panel *p, const struct span *s, const struct row_span *rs,
    uint32_t k, struct ahead *n, float (*acc)[LANES]);

#define SPAN_KERNEL(name, group, has_min)                                                          \
    static void name(const struct panel *p, const struct span *s, const struct row_span *rs,       \
        uint32_t k, struct ahead *n, float(*acc)[LANES])                                           \
    {                                                                                              \
        span_all_rows(p, s, rs, k, n, acc, group, has_min);                                        \
    }
SPAN_KERNEL(span_32, 32, false)
SPAN_KERNEL(span_32_min, 32, true)
SPAN_KERNEL(span_16, 16, false)
SPAN_KERNEL(span_16_min, 16, true)

static void sums_by_span(
    const struct panel *p, const struct row_span *rs, struct span *s, float (*acc)[LANES])
{
    span_kernel *kernel = p->format->group == 32 ? (p->format->has_min ? span_32_min : span_32)
                                                 : (p->format->has_min ? span_16_min : span_16);
    const uint8_t *at = p->data;
    memset(acc, 0, rs->n * sizeof *acc);
    for (uint32_t k = 0; k < p->n_in; k += SPAN, at += p->format->span_bytes) {
        uint32_t left = (p->n_in - k) / 32, n_block = left < SPAN_BLOCKS ? left : SPAN_BLOCKS;
        struct ahead n = span_ahead(p, at, n_block, (rs->n + 7) / 8);
        if (p->first)
            prefetch_rows(p, at);
        p->format->unpack(at, p->stride, n_block, s);
        kernel(p, s, rs, k, &n, acc);
    }
}

/* ---- two panels ------------------------------------------------------------------------------ */

/* R rows through a span of each of two panels: every activation that is loaded serves 32 outputs, so
 * that the dots bound it, not the loads. */
ALWAYS void pair_rows(const struct panel *p, const struct span *s, const uint8_t *const *row,
    uint32_t k, struct ahead *n, float *const *acc0, float *const *acc1, const uint32_t R,
    const uint32_t group, const bool has_min)
{
    uint32_t left = (p->n_in - k) / 32, n_block = left < SPAN_BLOCKS ? left : SPAN_BLOCKS;
    size_t scale_at = q8_scale_at(p->n_in) + k / 8 - k;
    const uint8_t *x[PAIR_ROWS];
    int32_t term[PAIR_ROWS][16];
    __m512 a[PAIR_ROWS][2];
#pragma GCC unroll 6
    for (uint32_t r = 0; r < R; r++) {
        x[r] = row[r] + k;
        _mm512_storeu_si512(
            term[r], row_terms(row[r], p->n_in, k, p->format->offset, group, has_min));
        a[r][0] = _mm512_loadu_ps(acc0[r]);
        a[r][1] = _mm512_loadu_ps(acc1[r]);
    }
    for (size_t b = 0; b < n_block; b++) {
        prefetch_some(&n[0]);
        prefetch_some(&n[1]);
#pragma GCC unroll 2
        for (uint32_t g = 0; g < 32 / group; g++) {
            size_t i = b * (32 / group) + g;
            __m512i sum[PAIR_ROWS][2];
#pragma GCC unroll 6
            for (uint32_t r = 0; r < R; r++)
                sum[r][0] = sum[r][1] =
                    has_min ? _mm512_setzero_si512() : _mm512_set1_epi32(term[r][2 * b + g]);
#pragma GCC unroll 8
            for (uint32_t j = g * group / 4; j < (g + 1) * group / 4; j++) {
                __m512i w0 = _mm512_loadu_si512(s[0].w[b][j]), w1 = _mm512_loadu_si512(s[1].w[b][j]);
#pragma GCC unroll 6
                for (uint32_t r = 0; r < R; r++) {
                    __m512i q = broadcast_at(x[r], 32 * b, 4 * (int)j);
                    sum[r][0] = _mm512_dpbusd_epi32(sum[r][0], w0, q);
                    sum[r][1] = _mm512_dpbusd_epi32(sum[r][1], w1, q);
                }
            }
            __m512 d0 = _mm512_loadu_ps(s[0].scale[i]), d1 = _mm512_loadu_ps(s[1].scale[i]);
#pragma GCC unroll 6
            for (uint32_t r = 0; r < R; r++) {
                __m512 dx = broadcast_f32(x[r] + scale_at + 4 * b);
                a[r][0] =
                    _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[r][0]), _mm512_mul_ps(d0, dx), a[r][0]);
                a[r][1] =
                    _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[r][1]), _mm512_mul_ps(d1, dx), a[r][1]);
                if (has_min) {
                    __m512 t = _mm512_castsi512_ps(_mm512_set1_epi32(term[r][2 * b + g]));
                    a[r][0] = _mm512_fmadd_ps(_mm512_loadu_ps(s[0].min[i]), t, a[r][0]);
                    a[r][1] = _mm512_fmadd_ps(_mm512_loadu_ps(s[1].min[i]), t, a[r][1]);
                }
            }
        }
    }
#pragma GCC unroll 6
    for (uint32_t r = 0; r < R; r++) {
        _mm512_storeu_ps(acc0[r], a[r][0]);
        _mm512_storeu_ps(acc1[r], a[r][1]);
    }
}

/* All rows, PAIR_ROWS at a time; a last group of fewer repeats its last row, into spare sums. */
ALWAYS void pair_all_rows(const struct panel *p, const struct span *s, const struct row_span *rs,
    uint32_t k, struct ahead *n, float (*acc)[CHUNK][LANES], const uint32_t group,
    const bool has_min)
{
    float spare[2][LANES];
    for (uint32_t i = 0; i < rs->n; i += PAIR_ROWS) {
        uint32_t left = rs->n - i;
        const uint8_t *x[PAIR_ROWS];
        float *acc0[PAIR_ROWS], *acc1[PAIR_ROWS];
        for (uint32_t r = 0; r < PAIR_ROWS; r++) {
            bool is_row = r < left;
            x[r] = row_at(rs, is_row ? i + r : rs->n - 1);
            acc0[r] = is_row ? acc[0][i + r] : spare[0];
            acc1[r] = is_row ? acc[1][i + r] : spare[1];
        }
        memset(spare, 0, sizeof spare);
        if (left > 4)
            pair_rows(p, s, x, k, n, acc0, acc1, PAIR_ROWS, group, has_min);
        else if (left > 2)
            pair_rows(p, s, x, k, n, acc0, acc1, 4, group, has_min);
        else
            pair_rows(p, s, x, k, n, acc0, acc1, 2, group, has_min);
    }
}

typedef void pair_kernel(const struct panel *p, const struct span *s, const struct row_span *rs,
    uint32_t k, struct ahead *n, float (*acc)[CHUNK][LANES]);

#define PAIR_KERNEL(name, group, has_min)                                                          \
    static void name(const struct panel *p, const struct span *s, const struct row_span *rs,       \
        uint32_t k, struct ahead *n, float(*acc)[CHUNK][LANES])                                    \
    {                                                                                              \
        pair_all_rows(p, s, rs, k, n, acc, group, has_min);                                        \
    }
PAIR_KERNEL(pair_32, 32, false)
PAIR_KERNEL(pair_32_min, 32, true)
PAIR_KERNEL(pair_16, 16, false)
PAIR_KERNEL(pair_16_min, 16, true)

static bool sums_pair(const struct panel *p, const struct row_span *rs, struct span *s,
    float (*acc)[CHUNK][LANES])
{
    const struct q8_format *f = p->format;
    if (rs->n <= PAIR_ROWS_FROM || p[1].format != f)
        return false;
    pair_kernel *kernel = f->group == 32 ? (f->has_min ? pair_32_min : pair_32)
                                         : (f->has_min ? pair_16_min : pair_16);
    size_t at = 0;
    memset(acc[0], 0, rs->n * sizeof acc[0][0]);
    memset(acc[1], 0, rs->n * sizeof acc[1][0]);
    for (uint32_t k = 0; k < p->n_in; k += SPAN, at += f->span_bytes) {
        uint32_t left = (p->n_in - k) / 32, n_block = left < SPAN_BLOCKS ? left : SPAN_BLOCKS;
        struct ahead n[2];
        for (uint32_t i = 0; i < 2; i++) {
            n[i] = span_ahead(
                &p[i], p[i].data + at, n_block, (rs->n + PAIR_ROWS - 1) / PAIR_ROWS);
            if (p[i].first)
                prefetch_rows(&p[i], p[i].data + at);
            f->unpack(p[i].data + at, p[i].stride, n_block, &s[i]);
        }
        kernel(p, s, rs, k, n, acc);
    }
    return true;
}

/* ---- one or two rows, in registers ----------------------------------------------------------- */

/* Two chains, for latency. Q4_0's second takes the high nibbles where they are, 16 times their
 * value. */
struct block_sum {
    __m256i a, b;
};

ALWAYS struct block_sum sum_begin(int32_t start)
{
    return (struct block_sum){_mm256_set1_epi32(start), _mm256_setzero_si256()};
}

ALWAYS void sum_word(struct block_sum *s, __m256i w, const int32_t valid, const uint8_t *x,
    const uint32_t format, const bool odd)
{
    __m256i xq = _mm256_set1_epi32(word32(x));
    if (format == W_Q4_0) {
        __m256i low = _mm256_and_si256(w, _mm256_set1_epi32(0x0f0f0f0f & valid));
        __m256i high = _mm256_and_si256(w, _mm256_set1_epi32((int32_t)0xf0f0f0f0 & valid));
        s->a = _mm256_dpbusd_epi32(s->a, low, xq);
        s->b = _mm256_dpbusd_epi32(s->b, high, _mm256_set1_epi32(word32(x + 16)));
    } else {
        w = _mm256_and_si256(_mm256_xor_si256(w, bytes(0x80)), _mm256_set1_epi32(valid));
        if (odd)
            s->a = _mm256_dpbusd_epi32(s->a, w, xq);
        else
            s->b = _mm256_dpbusd_epi32(s->b, w, xq);
    }
}

ALWAYS __m256i sum_end(struct block_sum s, const uint32_t format)
{
    return _mm256_add_epi32(s.a, format == W_Q4_0 ? _mm256_srai_epi32(s.b, 4) : s.b);
}

ALWAYS int32_t direct_offset(const uint32_t format)
{
    return format == W_Q4_0 ? 8 : 128;
}

#include "q8_direct.h"
#include "q8_few.h"

static void sums(
    const struct panel *p, const struct row_span *rs, struct span *s, float (*acc)[LANES])
{
    direct_kernel *direct = direct_of(p->weight_format, rs->n);
    few_kernel *few = few_of(p->weight_format, rs->n);
    if (direct)
        direct(p, rs, acc);
    else if (few)
        few(p, rs, acc);
    else
        sums_by_span(p, rs, s, acc);
}

/* ---- SwiGLU ---------------------------------------------------------------------------------- */

/* k_exp of the reference, step by step. */
static inline __m512 exp_512(__m512 x)
{
    const __m512 round = _mm512_set1_ps(0x1.8p+23f);
    __m512 z = _mm512_fmadd_ps(x, _mm512_set1_ps(0x1.715476p+0f), round),
           n = _mm512_sub_ps(z, round);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0x1.62e4p-1f), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0x1.7f7d1cp-20f), r);
    __m512 p = _mm512_set1_ps(0x1.6a23c2p-10f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.123a22p-7f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.5558f4p-5f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.555492p-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.fffffcp-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    p = _mm512_castsi512_ps(
        _mm512_add_epi32(_mm512_castps_si512(p), _mm512_slli_epi32(_mm512_castps_si512(z), 23)));
    p = _mm512_mask_mov_ps(
        p, _mm512_cmp_ps_mask(x, _mm512_set1_ps(-87.3f), _CMP_LT_OQ), _mm512_setzero_ps());
    p = _mm512_mask_mov_ps(p, _mm512_cmp_ps_mask(x, _mm512_set1_ps(88.7f), _CMP_GT_OQ),
        _mm512_castsi512_ps(_mm512_set1_epi32(0x7f800000)));
    return _mm512_mask_mov_ps(p, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), x);
}

static void silu_mul(float *gate, const float *up)
{
    __m512 g = _mm512_loadu_ps(gate), one = _mm512_set1_ps(1.0f);
    __m512 minus = _mm512_castsi512_ps(
        _mm512_xor_si512(_mm512_castps_si512(g), _mm512_set1_epi32((int)0x80000000u)));
    __m512 s = _mm512_div_ps(one, _mm512_add_ps(one, exp_512(minus)));
    _mm512_storeu_ps(gate, _mm512_mul_ps(_mm512_mul_ps(g, s), _mm512_loadu_ps(up)));
}

/* ---- the table ------------------------------------------------------------------------------- */

static const struct q8_isa isa = {sums, sums_pair, silu_mul};

static void matmul_q8(const struct matmul *mm, uint32_t out_begin, uint32_t out_end, void *scratch)
{
    drive_matmul(&isa, mm, out_begin, out_end, scratch);
}

static void swiglu_q8(const struct swiglu *sg, uint32_t out_begin, uint32_t out_end, void *scratch)
{
    drive_swiglu(&isa, sg, out_begin, out_end, scratch);
}

void x86_q8_avx512(struct kernels *k)
{
    k->matmul_q8 = matmul_q8;
    k->swiglu_q8 = swiglu_q8;
}
