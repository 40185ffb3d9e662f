/* backend_int.h: what the parts of the CPU backend share behind backend.h. */
#ifndef GLM_BACKEND_INT_H
#define GLM_BACKEND_INT_H

#include "../../kernels/kernels.h"
#include "backend.h"

struct backend {
    struct mem *mem;
    struct kernels k;
    struct pool *pool;
    uint32_t width;
    uint32_t cpu;
    bool float_activations;
    size_t scratch_bytes;    /* of one task: the kernels' scratch, then FINE_BYTES */
    atomic_uint n_running;   /* calls of backend_run: with more than one they take turns, slice by slice */
};

/* What a tile costs, for planning slices before anything was measured. */
struct tile_cost {
    uint64_t bytes, macs;
};

/* How a matrix multiply is cut: blocks of rows times ranges of outputs. */
struct grid {
    uint32_t row_step, out_step, n_row_tile, n_out_tile;
};
struct grid grid_plan(const struct backend *be, const struct weight *w, uint32_t n_row);
static inline uint32_t grid_tiles(const struct grid *g) { return g->n_row_tile * g->n_out_tile; }

/* Rows [first, first + n) of a, or rows index[0..n) of it, in a form that it has. */
struct rows act_rows(const struct act *a, enum act_form form, uint32_t first, const uint32_t *index, uint32_t n);
/* The form in which a matrix, or the gate and up of an FFN together, read the activation: one that it has. */
enum act_form form_matmul(const struct backend *be, const struct act *a, const struct weight *w);
enum act_form form_swiglu(const struct backend *be, const struct act *a, const struct ffn *f);
typedef void matmul_fn(const struct matmul *mm, uint32_t out_begin, uint32_t out_end, void *scratch);
typedef void swiglu_fn(const struct swiglu *sg, uint32_t out_begin, uint32_t out_end, void *scratch);
matmul_fn *matmul_of(const struct backend *be, enum act_form form);
swiglu_fn *swiglu_of(const struct backend *be, enum act_form form);
/* The rounded form of a row of `a` (none of ACT_F32). */
void round_row(const struct backend *be, const struct act *a, uint32_t row, const float *x);
void tile_cost_add(struct tile_cost *cost, const struct weight *w, const struct grid *g);
static inline uint32_t ceil_div(uint32_t a, uint32_t b) { return (a + b - 1) / b; }
static inline uint32_t min_u32(uint32_t a, uint32_t b) { return a < b ? a : b; }
/* A fine multiply's outputs on both q8 rows, before they are added: behind the kernels' scratch. */
#define FINE_ROWS 16u
#define FINE_OUT 512u
#define FINE_BYTES (2 * FINE_ROWS * FINE_OUT * sizeof(float))
#define ROW_TILE 4u              /* rows of a tile where rows are cheap */

/* A tile among those of its thread: the weights of the next one are asked for while it is computed. */
struct turn {
    uint32_t tile;
    bool warm;               /* the thread's last tile was the one before, and asked for this one's weights */
    bool has_next;           /* tile + 1 comes after it */
};

uint32_t op_plan(const struct backend *be, const struct op *op, struct tile_cost *cost); /* number of tiles */
void op_tile(const struct backend *be, const struct op *op, const struct turn *t, void *scratch);
static inline const void *weight_row(const struct weight *w, uint32_t out)
{
    return (const uint8_t *)w->data + out * w->row_bytes;
}

/* cpu_moe.c */
uint32_t moe_plan(const struct backend *be, const struct op *op, struct tile_cost *cost);
void moe_tile(const struct backend *be, const struct op *op, const struct turn *t, void *scratch);

#endif
