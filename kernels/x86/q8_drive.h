/* q8_drive.h: walks a matrix multiply on Q8 rows in panels of 16 outputs and puts finished sums
 * where they belong; what is inside of a panel comes from the including file (q8_avx2.c,
 * q8_avx512.c). Static in each.
 *
 * scratch: acc [2][CHUNK][16] float, two spans, then a copy of up to 16 weight rows where a matrix
 * has fewer outputs.
 */
#ifndef GLM_KERNELS_X86_Q8_DRIVE_H
#define GLM_KERNELS_X86_Q8_DRIVE_H

#include "q8_unpack.h"

#define CHUNK 256u /* rows of activations that go through a panel together */

struct q8_scratch {
    float acc[2][CHUNK][LANES];
    struct span span[2];
    uint8_t rows[]; /* [16][row bytes] */
};

/* 16 weight rows from data on, of which lanes [lane_begin, lane_end) are wanted; lane 0 is output
 * `out`. */
struct panel {
    const uint8_t *data;
    size_t stride;
    const struct q8_format *format;
    uint32_t n_in, out, lane_begin, lane_end;
    uint32_t weight_format;
    size_t ahead; /* bytes (modulo 2^64) to the same place of the next panel, which is prefetched; 0:
                     there is none */
    bool first;   /* nobody prefetched this panel */
};

/* Rows [first, first + n) of x; n <= CHUNK. */
struct row_span {
    const struct rows *x;
    uint32_t first, n;
};

struct q8_isa {
    /* Sums of a panel: acc[row][lane]. */
    void (*sums)(
        const struct panel *p, const struct row_span *r, struct span *s, float (*acc)[LANES]);
    /* Sums of two panels together, or NULL; s[2]. False: not of these formats or so few rows. */
    bool (*sums_pair)(const struct panel *p, const struct row_span *r, struct span *s,
        float (*acc)[CHUNK][LANES]);
    /* gate[lane] becomes silu(gate) * up. */
    void (*silu_mul)(float *gate, const float *up);
};

static inline const uint8_t *row_at(const struct row_span *r, uint32_t i)
{
    const struct rows *x = r->x;
    i += r->first;
    return (const uint8_t *)x->data + (x->index ? x->index[i] : i) * x->stride;
}

/* Asks for `bytes` from p on, into L2. */
ALWAYS void prefetch(const uint8_t *p, size_t bytes)
{
    for (size_t line = 0; line < bytes; line += 64)
        _mm_prefetch((const char *)p + line, _MM_HINT_T1);
}

/* Few rows are bound by memory, and a processor drops prefetches while all of its miss buffers are
 * busy: of a stream that is read at memory's rate, most of them, and the loads that then miss keep
 * the buffers busy. So each line of the next panel is asked for three times, FAR and NEAR bytes
 * before its turn and in its turn, and each row of this panel once more, from L2 into L1, a span
 * before it is used. Measured on two threads with Q6_K: 28 GB/s with one prefetch, 43 with two, 48
 * with the one into L1, of 70 that plain reading gives; with other traffic on the memory's bus 35
 * without the third, 37 with it, of 44. */
#define FAR (16u << 10)
#define NEAR (6u << 10)
ALWAYS void prefetch_panel(const uint8_t *p, size_t bytes)
{
    for (size_t line = 0; line < bytes; line += 64) {
        _mm_prefetch((const char *)p + line + FAR, _MM_HINT_T0);
        _mm_prefetch((const char *)p + line + NEAR, _MM_HINT_T0);
        _mm_prefetch((const char *)p + line, _MM_HINT_T0);
    }
}

/* One row's span; where it begins within a line is not known. */
ALWAYS void prefetch_span(const uint8_t *row, const uint32_t bytes)
{
    for (uint32_t at = 0; at < bytes + 63; at += 64)
        _mm_prefetch((const char *)row + at, _MM_HINT_T0);
}

/* A call's first panel, which nobody prefetched: at the beginning of a span, what comes soon in the
 * same rows, and at the beginning of the rows all up to there. */
static inline void prefetch_rows(const struct panel *p, const uint8_t *at)
{
    const uint32_t distance = 4u * p->format->span_bytes;
    const uint8_t *soon = at == p->data ? at : at + distance;
    size_t bytes = p->format->span_bytes + (at == p->data ? distance : 0);
    for (uint32_t i = 0; i < LANES; i++, soon += p->stride)
        prefetch(soon, bytes);
}

/* What to prefetch while a span is computed, `each` bytes with a block of some rows: in bursts,
 * prefetches hold up the loads, and 32 rows from memory then take half again as long. */
struct ahead {
    const uint8_t *at, *end;
    size_t each;
};

ALWAYS void prefetch_some(struct ahead *n)
{
    if (n->at < n->end)
        prefetch(n->at, n->each);
    n->at += n->each;
}

/* The share of the next panel that a span at `at` asks for, over n_pass passes through its blocks. */
static inline struct ahead span_ahead(
    const struct panel *p, const uint8_t *at, uint32_t n_block, uint32_t n_pass)
{
    size_t bytes = p->format->span_bytes * (size_t)LANES * n_block / SPAN_BLOCKS;
    const uint8_t *next = p->data + p->ahead + (size_t)(at - p->data) * LANES;
    size_t each = bytes / (n_block * n_pass) + 63;
    return (struct ahead){next, p->ahead ? next + bytes : next, each / 64 * 64};
}

/* The panel that holds output `out` and, up to out_end, those after it. It never reaches behind the
 * matrix's last row: at the end it begins earlier, and a matrix of fewer than 16 outputs is copied,
 * its last row repeated. */
static inline struct panel panel_at(
    const struct weight *w, uint32_t out, uint32_t out_end, uint8_t *copy)
{
    uint32_t base = out + LANES <= w->n_out ? out : w->n_out < LANES ? 0 : w->n_out - LANES;
    uint32_t end = out_end - base < LANES ? out_end - base : LANES;
    struct panel p = {
        .data = (const uint8_t *)w->data + base * w->row_bytes,
        .stride = w->row_bytes,
        .format = &q8_formats[w->format],
        .weight_format = w->format,
        .n_in = w->n_in,
        .out = base,
        .lane_begin = out - base,
        .lane_end = end,
    };
    if (w->n_out < LANES) {
        struct weight_block b = weight_block(w->format);
        size_t bytes = (size_t)w->n_in / b.n * b.bytes;
        for (uint32_t i = 0; i < LANES; i++) {
            uint32_t row = i < w->n_out ? i : w->n_out - 1;
            memcpy(copy + i * bytes, (const uint8_t *)w->data + row * w->row_bytes, bytes);
        }
        p.data = copy;
        p.stride = bytes;
    }
    return p;
}

/* Where the first row's span behind `at` is: in this panel, or at the beginning of the next. */
ALWAYS const uint8_t *span_after(const struct panel *p, const uint8_t *at, uint32_t k)
{
    return p->n_in - k > SPAN ? at + p->format->span_bytes : p->data + p->ahead;
}

/* What comes before and after a panel: `first` of a call that is not warm, `last` of the call, then
 * `next`; else the panel `step` outputs further. */
static inline void panel_order(
    struct panel *p, bool first, bool last, const void *next, uint32_t step)
{
    p->first = first;
    p->ahead = step * p->stride;
    if (last)
        p->ahead = next ? (size_t)((uintptr_t)next - (uintptr_t)p->data) : 0;
}

/* acc[lane] to y[row, out]. */
static inline void matmul_put(
    const struct matmul *mm, const struct panel *p, uint32_t row, const float *acc)
{
    float *y = mm->y + row * mm->y_stride + p->out;
    const float *bias = mm->bias ? mm->bias + p->out : NULL;
    for (uint32_t l = p->lane_begin; l < p->lane_end; l++) {
        if (mm->mode == MM_ADD)
            y[l] += acc[l];
        else
            y[l] = bias ? acc[l] + bias[l] : acc[l];
    }
}

/* Sums of n panels, 1 or 2. */
static inline void drive_sums(const struct q8_isa *isa, const struct panel *p, uint32_t n,
    const struct row_span *r, struct q8_scratch *t)
{
    if (n == 2 && isa->sums_pair && isa->sums_pair(p, r, t->span, t->acc))
        return;
    for (uint32_t i = 0; i < n; i++)
        isa->sums(&p[i], r, t->span, t->acc[i]);
}

static inline void drive_matmul(
    const struct q8_isa *isa, const struct matmul *mm, uint32_t begin, uint32_t end, void *scratch)
{
    struct q8_scratch *t = scratch;
    for (uint32_t out = begin; out < end;) {
        struct panel p[2] = {panel_at(mm->w, out, end, t->rows)};
        uint32_t next = p[0].out + p[0].lane_end, n = 1;
        if (isa->sums_pair && next < end && next + LANES <= mm->w->n_out) {
            p[1] = panel_at(mm->w, next, end, t->rows);
            next = p[1].out + p[1].lane_end;
            n = 2;
        }
        for (uint32_t i = 0; i < n; i++)
            panel_order(&p[i], out == begin && !mm->warm, next >= end, mm->next, n * LANES);
        for (uint32_t row = 0; row < mm->x.n; row += CHUNK) {
            struct row_span r = {&mm->x, row, mm->x.n - row < CHUNK ? mm->x.n - row : CHUNK};
            drive_sums(isa, p, n, &r, t);
            for (uint32_t i = 0; i < n; i++)
                for (uint32_t j = 0; j < r.n; j++)
                    matmul_put(mm, &p[i], row + j, t->acc[i][j]);
        }
        out = next;
    }
}

static inline void drive_swiglu(
    const struct q8_isa *isa, const struct swiglu *sg, uint32_t begin, uint32_t end, void *scratch)
{
    struct q8_scratch *t = scratch;
    for (uint32_t out = begin; out < end;) {
        uint32_t next = end;
        for (uint32_t row = 0; row < sg->x.n; row += CHUNK) {
            struct row_span r = {&sg->x, row, sg->x.n - row < CHUNK ? sg->x.n - row : CHUNK};
            uint8_t *up_rows = t->rows + (sg->gate->n_out < LANES ? LANES * sg->gate->row_bytes : 0);
            struct panel p[2] = {
                panel_at(sg->gate, out, end, t->rows), panel_at(sg->up, out, end, up_rows)};
            bool first = out == begin && !sg->warm;
            next = p[0].out + p[0].lane_end;
            panel_order(&p[0], first, next >= end, sg->next_gate, LANES);
            panel_order(&p[1], first, next >= end, sg->next_up, LANES);
            drive_sums(isa, p, 2, &r, t);
            for (uint32_t i = 0; i < r.n; i++) {
                float *y = sg->y + (row + i) * sg->y_stride + p[0].out;
                isa->silu_mul(t->acc[0][i], t->acc[1][i]);
                memcpy(y + p[0].lane_begin, t->acc[0][i] + p[0].lane_begin,
                    (p[0].lane_end - p[0].lane_begin) * sizeof *y);
            }
        }
        if (sg->x.n == 0)
            return;
        out = next;
    }
}

#endif
