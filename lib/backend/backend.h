/* backend.h: what the model's layers ask of a device. A forward pass is a sequence of operations on rows; each is cut
 * into tiles that do not depend on one another, and tiles run in slices short enough for the host's time budget. The
 * CPU backend (cpu.c, cpu_ops.c, cpu_moe.c) carries them out with the kernels and the model's threads.
 *
 * Tiles never change an answer: an output element is computed whole by one tile, in the order that kernels.h fixes.
 */
#ifndef GLM_BACKEND_BACKEND_H
#define GLM_BACKEND_BACKEND_H

#include "../base/base.h"
#include "../base/weight.h"

struct backend;

struct backend_options {
    uint32_t n_threads;          /* 0: the cores, at most 8 */
    const glm_runner *runner;    /* or NULL */
    bool float_activations;      /* neither int8 nor bfloat16 activations anywhere */
    uint32_t cpu_mask;           /* CPU_* features that may be used: all bits, or fewer in tests */
    size_t scratch_bytes;        /* of each task: backend_scratch_bytes of the widest matrix */
};

size_t backend_scratch_bytes(uint32_t n_in_max, uint32_t d_head, uint32_t n_q);

int32_t backend_open(struct mem *m, const struct backend_options *opt, struct backend **out, glm_error *err);
void backend_close(struct backend *be);
uint32_t backend_width(const struct backend *be);
uint32_t backend_cpu(const struct backend *be); /* CPU_* in use */
/* One row of a matrix as float32 [n_in]; norms and biases are read this way at open. */
void backend_decode(const struct backend *be, const struct weight *w, uint32_t row, float *out);

/* What activations are rounded to for a multiply. Where one activation has readers that want different forms, it gets
 * the greater one, and those who wanted the other read float32. */
enum act_form { ACT_F32 = 0, ACT_BF16 = 1, ACT_Q8 = 2 };
enum act_form backend_form(const struct backend *be, const struct weight *w); /* that a matrix wants */
static inline bool backend_wants_q8(const struct backend *be, const struct weight *w)
{
    return backend_form(be, w) == ACT_Q8;
}

/* Rows of activations in the forms that their readers want. */
struct act {
    float *f;          /* [n_row, n_in] f32 */
    uint8_t *rounded;  /* rows of act_row_bytes in `form`; unused where that is ACT_F32 */
    enum act_form form;
    uint8_t *fine;     /* for each row two q8 rows: the row, and what its rounding lost; or NULL */
    uint32_t n_in;
};
size_t act_row_bytes(uint32_t n_in, enum act_form form); /* of a rounded row */
size_t act_row_bytes_max(uint32_t n_in);                 /* in any form */

struct ffn {           /* SwiGLU: down(silu(gate x) * up x) */
    struct weight gate, up, down;
};

/* A sequence's KV cache as a pass sees it. Page i holds positions [64 i, 64 i + 64) of every layer and KV head. */
struct kv_seq {
    uint32_t type;         /* GLM_KV_*, never AUTO */
    uint32_t n_page;
    void **page;
};
struct kv_shape {
    uint32_t n_layer, n_head_kv, d_head; /* n_layer with the MTP layer */
};
size_t kv_page_bytes(const struct kv_shape *s, uint32_t type);
size_t kv_position_bytes(const struct kv_shape *s, uint32_t type); /* of one position, in all layers */
/* The i-th run of bytes that a page's first n_pos positions take; false behind the last. */
bool kv_page_run(const struct kv_shape *s, uint32_t type, uint32_t n_pos, size_t i, size_t *offset, size_t *bytes);
#define KV_PAGE_ROWS 64u
#define KV_SPAN 1024u      /* positions whose partial attention is computed by one tile */

/* A run of rows of one sequence, at consecutive positions. */
struct segment {
    uint32_t seq, row, n_row, pos;
};

enum op_kind {
    OP_EMBED,         /* ids -> rows */
    OP_NORM,          /* RMSNorm of rows, and their rounded form where wanted */
    OP_QUANT,         /* rounded form of rows that another operation wrote */
    OP_MATMUL,        /* up to three matrices on the same rows */
    OP_SWIGLU,
    OP_HEADS,         /* per row: QK-norm, rotation, keys and values into the cache */
    OP_ATTEND,        /* partial attention over spans */
    OP_MERGE,         /* spans together, and the rounded form */
    OP_TOPK,          /* router logits -> experts and weights of each row */
    OP_GROUP,         /* rows sorted by expert */
    OP_EXPERTS_UP,    /* gate, up and SwiGLU of the chosen experts and of the shared one */
    OP_EXPERTS_QUANT,
    OP_EXPERTS_DOWN,
    OP_COMBINE        /* weighted sum in expert order, plus the shared expert, added to the residual stream */
};

struct op_part {
    const struct weight *w;
    const float *bias;
    float *y;
    uint64_t y_stride;
    bool add;
    bool fine;         /* on the two q8 rows of in.fine: int8 rounding then costs no accuracy. For small
                          matrices, and for the head, which has few rows and sets the error of every logit */
};

/* Where a MoE layer keeps its routing. Slots are (row, expert) pairs sorted by expert, then row. */
struct routing {
    uint32_t n_expert, n_used, n_group, n_group_used;
    bool norm_topk;
    float scale;
    float *logits;        /* [n_row, n_expert] */
    uint32_t *expert;     /* [n_row, n_used] ascending */
    float *weight;        /* [n_row, n_used] */
    uint32_t *slot;       /* [n_row, n_used] */
    uint32_t *slot_row;   /* [n_row * n_used] */
    uint32_t *first;      /* [n_expert + 1] first slot of each expert */
    uint32_t *active;     /* [n_expert] experts that have rows */
    uint32_t n_active;
    uint32_t active_begin, active_end; /* those that the next operations on experts are about: all, after OP_GROUP */
    float *scratch;       /* [n_row, n_expert] */
};

struct op {
    enum op_kind kind;
    uint32_t n_row;
    /* inputs and outputs; each kind uses the fields that its implementation in cpu_ops.c names */
    const int32_t *ids;
    const float *x;               /* [n_row, n_in] */
    uint64_t x_stride;            /* floats */
    const uint32_t *rows;         /* gather, or NULL */
    const float *norm;
    float eps;
    struct act in, out;
    uint64_t out_stride;          /* floats, OP_NORM: 0 means out.n_in */
    const struct weight *w;
    uint32_t n_part;
    struct op_part part[3];
    const struct ffn *ffn, *shared;   /* experts: [n_expert], the first one's shape is all experts'; shared, or NULL */
    struct act shared_out;
    float *y, *shared_y;          /* [n_slot, d_model], [n_row, d_model] */
    const float *router_bias;
    struct routing *route;
    /* attention */
    struct kv_seq *const *seq;
    const struct segment *segment;
    uint32_t n_segment;
    uint32_t row_begin;           /* OP_ATTEND, OP_MERGE: rows [row_begin, row_begin + n_row) of the pass */
    const uint32_t *pos;          /* [rows of the pass] */
    uint32_t layer, n_head, n_head_kv, d_head, n_rot;
    const float *q_norm, *k_norm; /* [d_head] or NULL */
    const float *rope;            /* [rows of the pass, n_rot] cosines then sines */
    float *q, *k, *v;
    float scale;                  /* of the scores: d_head^-0.5 */
    float *part_out;              /* [n_span, n_head_kv, n_row, n_head / n_head_kv, d_head + 2] */
};

/* Where a running operation stands. Zeroed to start one. */
struct op_state {
    uint32_t tile, n_tile;
    bool planned;
    uint64_t ns_per_tile; /* measured in this operation, or predicted */
};

/* Flags that other threads set to end a run early. */
struct stop {
    const atomic_bool *const *flag; /* [n] */
    uint32_t n;
};
static inline bool stop_asked(const struct stop *s) /* NULL: never */
{
    for (uint32_t i = 0; s && i < s->n; i++)
        if (atomic_load_explicit(s->flag[i], memory_order_relaxed))
            return true;
    return false;
}

/* Runs tiles until the operation is done (true), or until the next tile would pass `deadline` (os_now_ns; 0: none) or a stop
 * is asked for (false). At least one tile is run. `work` keeps the operation's state between calls. Passes that run at the same
 * time take turns, in slices of less than 1 ms. */
bool backend_run(struct backend *be, const struct op *op, struct op_state *st, void *work, uint64_t deadline,
    const struct stop *stop);
/* Bytes of `work`, 64-byte aligned: scratch of the tasks, one for each pass that may run at the same time. */
size_t backend_work_bytes(const struct backend *be);
/* Calls fn(task, i) once for each i < count on the model's threads. */
void backend_each(struct backend *be, glm_task_fn fn, void *task, uint32_t count);

#endif
