/* bf16_drive.h: walks a matrix multiply on BF16 rows in panels of 16 outputs and blocks of rows; the
 * dot products come from the including file (bf16_float.h, bf16_avx512.c). Static in each.
 *
 * scratch: sums [BF16_ROWS, 16, 16] twice, dot products, then two panels of decoded weights.
 */
#ifndef GLM_KERNELS_BF16_DRIVE_H
#define GLM_KERNELS_BF16_DRIVE_H

#include "float_finish.h"

#define BF16_ROWS 42u /* rows that share a panel's pieces while these are in L1 */

struct bf16_work {
    float *acc, *total;  /* [BF16_ROWS, PANEL, 16] */
    float *dots, *dots2; /* [BF16_ROWS, PANEL] */
    char *panel, *panel2;
};

/* Outputs [out, out + n_out) of w. */
struct bf16_panel {
    const struct weight *w;
    uint32_t out, n_out;
    bool first;          /* nobody prefetched it */
    bool decoded;        /* `to` has its weights */
    const uint8_t *next; /* the first weight of the panel that is computed after it; or NULL */
    char *to;            /* room for its decoded weights */
};

/* dots[r * PANEL + o] of n_row <= BF16_ROWS rows, with subnormals as zeros; to be called between
 * zero_subnormals and restore_subnormals only. */
static void bf16_dots(const struct bf16_panel *p, const char *const *x, uint32_t n_row,
    const struct bf16_work *s, float *dots);

/* Bytes between decoded weight rows, 4 an input or fewer: not a power of two, which would put all rows
 * into the same cache sets. */
static inline size_t bf16_panel_stride(uint32_t n_in) { return ((size_t)n_in + 31) / 32 * 128 + 64; }

static struct bf16_work bf16_work_init(void *scratch, uint32_t n_in)
{
    struct bf16_work s;
    s.acc = scratch;
    s.total = s.acc + BF16_ROWS * PANEL * 16;
    s.dots = s.total + BF16_ROWS * PANEL * 16;
    s.dots2 = s.dots + BF16_ROWS * PANEL;
    s.panel = (char *)(s.dots2 + BF16_ROWS * PANEL);
    s.panel2 = s.panel + PANEL * bf16_panel_stride(n_in);
    return s;
}

/* Panel i's dot products at dots + i * n_row * PANEL. */
static __attribute__((noinline)) void flushed_dots(const struct bf16_panel *p, uint32_t n_panel,
    const char *const *x, uint32_t n_row, const struct bf16_work *s, float *dots)
{
    uint32_t mode = zero_subnormals();
    for (uint32_t i = 0; i < n_panel; i++)
        bf16_dots(&p[i], x, n_row, s, dots + (size_t)i * n_row * PANEL);
    restore_subnormals(mode);
}

/* Rows of a block, so that all blocks are about equal, in tiles of 6 or 3 rows. */
static uint32_t bf16_row_block(uint32_t n_row)
{
    uint32_t n = (n_row + BF16_ROWS - 1) / BF16_ROWS;
    return n <= 1 ? BF16_ROWS : ((n_row + n - 1) / n + 5) / 6 * 6;
}

/* A panel of a call on outputs [begin, end): `first` unless the call is warm, `next` behind the last. */
static struct bf16_panel bf16_panel_at(const struct weight *w, uint32_t out, uint32_t begin,
    uint32_t end, bool warm, const void *next)
{
    uint32_t n_out = end - out < PANEL ? end - out : PANEL;
    struct bf16_panel p = { .w = w, .out = out, .n_out = n_out, .first = out == begin && !warm };
    p.next = out + n_out < end ? (const uint8_t *)w->data + (out + n_out) * w->row_bytes : next;
    return p;
}

/* Panels whose dot products fit the room for a block of rows, up to PANELS: changing the mode costs as much as a short panel. */
#define PANELS 8u

static uint32_t bf16_panels_at(const struct weight *w, uint32_t out, uint32_t begin, uint32_t end, uint32_t n_row, bool warm,
    const void *next, char *to, struct bf16_panel *p)
{
    uint32_t n = 0, most = n_row > 0 && n_row <= BF16_ROWS ? BF16_ROWS / n_row : 1;
    for (most = most < PANELS ? most : PANELS; n < most && out < end; out += PANEL) {
        p[n] = bf16_panel_at(w, out, begin, end, warm, next);
        p[n++].to = to;
    }
    return n;
}

static void matmul_bf16(const struct matmul *mm, uint32_t begin, uint32_t end, void *scratch)
{
    struct bf16_work s = bf16_work_init(scratch, mm->w->n_in);
    uint32_t block = bf16_row_block(mm->x.n);
    const char *x[BF16_ROWS];
    struct bf16_panel p[PANELS];
    for (uint32_t out = begin, n_panel; out < end; out += n_panel * PANEL) {
        n_panel = bf16_panels_at(mm->w, out, begin, end, mm->x.n, mm->warm, mm->next, s.panel, p);
        for (uint32_t row = 0; row < mm->x.n; row += block) {
            uint32_t n = mm->x.n - row < block ? mm->x.n - row : block;
            row_pointers(&mm->x, row, n, x);
            flushed_dots(p, n_panel, x, n, &s, s.dots);
            for (uint32_t i = 0; i < n_panel; i++)
                finish_matmul(mm, out + i * PANEL, p[i].n_out, row, n, s.dots + (size_t)i * n * PANEL);
            p[0].decoded = true; /* several panels have one block of rows */
        }
    }
}

static void swiglu_bf16(const struct swiglu *sg, uint32_t begin, uint32_t end, void *scratch)
{
    struct bf16_work s = bf16_work_init(scratch, sg->gate->n_in);
    uint32_t block = bf16_row_block(sg->x.n);
    const char *x[BF16_ROWS];
    struct bf16_panel p[PANELS], q[PANELS];
    for (uint32_t out = begin, n_panel; out < end; out += n_panel * PANEL) {
        n_panel = bf16_panels_at(sg->gate, out, begin, end, sg->x.n, sg->warm, sg->next_gate, s.panel, p);
        bf16_panels_at(sg->up, out, begin, end, sg->x.n, sg->warm, sg->next_up, s.panel2, q);
        for (uint32_t row = 0; row < sg->x.n; row += block) {
            uint32_t n = sg->x.n - row < block ? sg->x.n - row : block;
            row_pointers(&sg->x, row, n, x);
            flushed_dots(p, n_panel, x, n, &s, s.dots);
            flushed_dots(q, n_panel, x, n, &s, s.dots2);
            for (uint32_t i = 0; i < n_panel; i++)
                finish_swiglu(sg, out + i * PANEL, p[i].n_out, row, n, s.dots + (size_t)i * n * PANEL,
                    s.dots2 + (size_t)i * n * PANEL);
            p[0].decoded = q[0].decoded = true;
        }
    }
}

#endif
