/* cpu_ops.c: the operations of a forward pass on the CPU, cut into tiles. Each operation has two halves side by side: how
 * many tiles it has, and what one tile does. Nothing here allocates or waits. */
#include "backend_int.h"

#define ROW_BLOCK 256u           /* rows of a matrix multiply that share one panel: their q8 form stays near L2 */
#define TILE_BYTES (512u * 1024) /* weight bytes of a tile, so that a slice of few rows is mostly streaming */
#define TILE_MACS (24u << 20)
#define PANEL 16u                /* outputs that kernels compute together */
#define ROW_GROUP 6u             /* rows that kernels compute together, or half of them */
#define ROWS_LEAST 128u          /* with fewer, unpacking weights shows */
#define ATTEND_ROWS 8u           /* rows of one attention tile: they share the keys and values that it reads */

static uint64_t weight_row_bytes(const struct weight *w)
{
    struct weight_block b = weight_block(w->format);
    return b.n ? (uint64_t)w->n_in / b.n * b.bytes : (uint64_t)w->n_in / 2;
}

struct grid grid_plan(const struct backend *be, const struct weight *w, uint32_t n_row)
{
    struct grid g;
    uint64_t row_bytes = weight_row_bytes(w) + 1;
    uint32_t step, fair, rows = min_u32(n_row, ROW_BLOCK), most;

    /* two panels of outputs, which kernels take together, come before many rows */
    most = (uint32_t)(TILE_MACS / (2ull * PANEL * w->n_in));
    rows = min_u32(rows, most < ROWS_LEAST ? ROWS_LEAST : most);
    g.row_step = ceil_div(n_row, ceil_div(n_row, rows)); /* all about equal, */
    if (g.row_step < n_row)
        g.row_step = ceil_div(g.row_step, ROW_GROUP) * ROW_GROUP;
    step = (uint32_t)(TILE_MACS / ((uint64_t)g.row_step * w->n_in));
    step = min_u32(step < 2 * PANEL ? 2 * PANEL : step, (uint32_t)(TILE_BYTES / row_bytes));
    fair = ceil_div(w->n_out, 4 * be->width); /* enough tiles for every thread */
    step = min_u32(step, fair);
    g.out_step = step < 2 * PANEL ? PANEL : step / (2 * PANEL) * (2 * PANEL);
    g.n_row_tile = ceil_div(n_row, g.row_step);
    g.n_out_tile = ceil_div(w->n_out, g.out_step);
    return g;
}

struct rows act_rows(const struct act *a, enum act_form form, uint32_t first, const uint32_t *index, uint32_t n)
{
    struct rows r = { .n = n, .index = index };
    r.stride = form == ACT_F32 ? (uint64_t)a->n_in * sizeof(float) : act_row_bytes(a->n_in, form);
    r.data = (form == ACT_F32 ? (const uint8_t *)a->f : a->rounded) + first * r.stride;
    return r;
}

enum act_form form_matmul(const struct backend *be, const struct act *a, const struct weight *w)
{
    return backend_form(be, w) == a->form ? a->form : ACT_F32;
}

enum act_form form_swiglu(const struct backend *be, const struct act *a, const struct ffn *f)
{
    return form_matmul(be, a, &f->gate) == form_matmul(be, a, &f->up) ? form_matmul(be, a, &f->up) : ACT_F32;
}

matmul_fn *matmul_of(const struct backend *be, enum act_form form)
{
    return form == ACT_Q8 ? be->k.matmul_q8 : form == ACT_BF16 ? be->k.matmul_bf16 : be->k.matmul_f32;
}

swiglu_fn *swiglu_of(const struct backend *be, enum act_form form)
{
    return form == ACT_Q8 ? be->k.swiglu_q8 : form == ACT_BF16 ? be->k.swiglu_bf16 : be->k.swiglu_f32;
}

void round_row(const struct backend *be, const struct act *a, uint32_t row, const float *x)
{
    if (a->form == ACT_F32) /* there may be no room for another */
        return;
    void *to = a->rounded + row * act_row_bytes(a->n_in, a->form);
    if (a->form == ACT_Q8)
        be->k.quantize_q8(x, a->n_in, to);
    else
        be->k.round_bf16(x, a->n_in, to);
}

/* A slice is planned for the dearest kind of tile in it. */
void tile_cost_add(struct tile_cost *cost, const struct weight *w, const struct grid *g)
{
    uint64_t bytes = weight_row_bytes(w) * g->out_step;
    uint64_t macs = (uint64_t)g->row_step * g->out_step * w->n_in;
    cost->bytes = cost->bytes > bytes ? cost->bytes : bytes;
    cost->macs = cost->macs > macs ? cost->macs : macs;
}

/* ---- rows: one tile is ROW_TILE rows ---------------------------------------------------------------------------- */

static uint32_t row_tiles(const struct op *op, uint64_t elements, struct tile_cost *cost)
{
    cost->bytes = elements * 4 * ROW_TILE;
    return ceil_div(op->n_row, ROW_TILE);
}

static void embed_row(const struct backend *be, const struct op *op, uint32_t r, void *scratch)
{
    (void)scratch;
    be->k.decode_row(op->w, (uint32_t)op->ids[r], op->y + (size_t)r * op->w->n_in);
}

/* The row's q8 form, then the q8 form of the rest. */
static void quantize_fine(const struct backend *be, const float *x, uint32_t n, uint8_t *rows, float *rest)
{
    const float *scale = (const float *)(const void *)(rows + q8_scale_at(n));
    const int8_t *q = (const int8_t *)rows;
    be->k.quantize_q8(x, n, rows);
    for (uint32_t i = 0; i < n; i++)
        rest[i] = x[i] - (float)q[i] * scale[i / 32];
    be->k.quantize_q8(rest, n, rows + q8_row_bytes(n));
}

static void norm_row(const struct backend *be, const struct op *op, uint32_t r, void *scratch)
{
    uint32_t n = op->in.n_in, from = op->rows ? op->rows[r] : r;
    uint64_t stride = op->out_stride ? op->out_stride : n;
    float *y = op->out.f + r * stride;
    be->k.rms_norm(op->x + from * op->x_stride, op->norm, n, op->eps, y);
    round_row(be, &op->out, r, y);
    if (op->out.fine)
        quantize_fine(be, y, n, op->out.fine + 2 * r * q8_row_bytes(n), scratch);
}

static void quant_row(const struct backend *be, const struct op *op, uint32_t r, void *scratch)
{
    (void)scratch;
    round_row(be, &op->in, r, op->in.f + (size_t)r * op->in.n_in);
}

static const struct segment *segment_of(const struct op *op, uint32_t row)
{
    const struct segment *s = op->segment;
    while (row >= s->row + s->n_row)
        s++;
    return s;
}

static uint8_t *kv_head(const struct op *op, const struct kv_seq *seq, uint32_t page, uint32_t head)
{
    size_t at = ((size_t)op->layer * op->n_head_kv + head) * kv_head_bytes(seq->type, op->d_head);
    return (uint8_t *)seq->page[page] + at;
}

static void heads_row(const struct backend *be, const struct op *op, uint32_t r, void *scratch)
{
    const float *c = op->rope + (size_t)r * op->n_rot, *s = c + op->n_rot / 2;
    const struct kv_seq *seq = op->seq[segment_of(op, r)->seq];
    uint32_t d = op->d_head, pos = op->pos[r];
    (void)scratch;

    for (uint32_t j = 0; j < op->n_head; j++) {
        float *q = op->q + ((size_t)r * op->n_head + j) * d;
        if (op->q_norm)
            be->k.rms_norm(q, op->q_norm, d, op->eps, q);
        be->k.rope(q, op->n_rot, c, s);
    }
    for (uint32_t j = 0; j < op->n_head_kv; j++) {
        float *k = op->k + ((size_t)r * op->n_head_kv + j) * d;
        const float *v = op->v + ((size_t)r * op->n_head_kv + j) * d;
        if (op->k_norm)
            be->k.rms_norm(k, op->k_norm, d, op->eps, k);
        be->k.rope(k, op->n_rot, c, s);
        be->k.kv_store(seq->type, d, k, v, pos % KV_PAGE, kv_head(op, seq, pos / KV_PAGE, j));
    }
}

static void for_rows(const struct backend *be, const struct op *op, uint32_t tile, void *scratch,
    void (*row)(const struct backend *, const struct op *, uint32_t, void *))
{
    uint32_t end = min_u32((tile + 1) * ROW_TILE, op->n_row);
    for (uint32_t r = tile * ROW_TILE; r < end; r++)
        row(be, op, r, scratch);
}

/* ---- matrices ---------------------------------------------------------------------------------------------------- */

static bool part_is_fine(const struct backend *be, const struct op *op, const struct op_part *p)
{
    return p->fine && op->in.fine && backend_wants_q8(be, p->w);
}

static struct grid part_grid(const struct backend *be, const struct op *op, const struct op_part *p)
{
    struct grid g = grid_plan(be, p->w, op->n_row);
    if (part_is_fine(be, op, p)) {
        g.row_step = min_u32(g.row_step, FINE_ROWS);
        g.out_step = min_u32(g.out_step, FINE_OUT);
        g.n_row_tile = ceil_div(op->n_row, g.row_step);
        g.n_out_tile = ceil_div(p->w->n_out, g.out_step);
    }
    return g;
}

static uint32_t matmul_plan(const struct backend *be, const struct op *op, struct tile_cost *cost)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < op->n_part; i++) {
        struct grid g = part_grid(be, op, &op->part[i]);
        tile_cost_add(cost, op->part[i].w, &g);
        n += grid_tiles(&g);
    }
    return n;
}

/* Rows [row, row + n_row) times outputs [out, end) of one of the matrices. */
struct mm_tile {
    const struct op_part *p;
    uint32_t row, n_row, out, end;
};

static struct mm_tile matmul_find(const struct backend *be, const struct op *op, uint32_t tile)
{
    const struct op_part *p = op->part;
    struct grid g = part_grid(be, op, p);

    while (tile >= grid_tiles(&g)) {
        tile -= grid_tiles(&g);
        p++;
        g = part_grid(be, op, p);
    }
    struct mm_tile t = { .p = p, .row = tile % g.n_row_tile * g.row_step, .out = tile / g.n_row_tile * g.out_step };
    t.n_row = min_u32(g.row_step, op->n_row - t.row);
    t.end = min_u32(t.out + g.out_step, p->w->n_out);
    return t;
}

/* The multiply mm on both q8 rows of each row, then their sum. */
static void fine_tile(const struct backend *be, const struct op *op, const struct mm_tile *t, const struct matmul *mm,
    void *scratch)
{
    float *both = (float *)(void *)((uint8_t *)scratch + be->scratch_bytes - FINE_BYTES);
    uint64_t bytes = q8_row_bytes(op->in.n_in);
    uint32_t n_out = t->end - t->out;
    struct matmul two = *mm;

    two.x = (struct rows){ .data = op->in.fine + 2 * t->row * bytes, .stride = bytes, .n = 2 * t->n_row };
    two.bias = NULL;
    two.y = (float *)((uintptr_t)both - t->out * sizeof(float)); /* outputs are counted from the first */
    two.y_stride = n_out;
    two.mode = MM_STORE;
    be->k.matmul_q8(&two, t->out, t->end, scratch);
    for (uint32_t r = 0; r < t->n_row; r++) {
        const float *a = both + 2 * (size_t)r * n_out, *b = a + n_out;
        float *y = mm->y + r * mm->y_stride + t->out;
        for (uint32_t o = 0; o < n_out; o++)
            y[o] = a[o] + b[o] + (mm->bias ? mm->bias[t->out + o] : 0.0f);
    }
}

static void matmul_tile(const struct backend *be, const struct op *op, const struct turn *turn, void *scratch)
{
    struct mm_tile t = matmul_find(be, op, turn->tile), next;
    const struct op_part *p = t.p;
    enum act_form form = p->fine ? ACT_F32 : form_matmul(be, &op->in, p->w);
    struct matmul mm = {
        .w = p->w,
        .x = act_rows(&op->in, form, t.row, NULL, t.n_row),
        .bias = p->bias,
        .y = p->y + t.row * p->y_stride,
        .y_stride = p->y_stride,
        .mode = p->add ? MM_ADD : MM_STORE,
        .warm = turn->warm,
    };
    if (turn->has_next) {
        next = matmul_find(be, op, turn->tile + 1);
        mm.next = weight_row(next.p->w, next.out);
    }
    if (part_is_fine(be, op, p))
        fine_tile(be, op, &t, &mm, scratch);
    else
        matmul_of(be, form)(&mm, t.out, t.end, scratch);
}

static uint32_t swiglu_plan(const struct backend *be, const struct op *op, struct tile_cost *cost)
{
    struct grid g = grid_plan(be, &op->ffn->gate, op->n_row);
    tile_cost_add(cost, &op->ffn->gate, &g);
    cost->bytes *= 2;
    cost->macs *= 2;
    return grid_tiles(&g);
}

static void swiglu_tile(const struct backend *be, const struct op *op, const struct turn *turn, void *scratch)
{
    struct grid g = grid_plan(be, &op->ffn->gate, op->n_row);
    uint32_t tile = turn->tile, next = (tile + 1) / g.n_row_tile * g.out_step;
    uint32_t row = tile % g.n_row_tile * g.row_step, out = tile / g.n_row_tile * g.out_step;
    enum act_form form = form_swiglu(be, &op->in, op->ffn);
    struct swiglu sg = {
        .gate = &op->ffn->gate,
        .up = &op->ffn->up,
        .x = act_rows(&op->in, form, row, NULL, min_u32(g.row_step, op->n_row - row)),
        .y = op->out.f + (size_t)row * op->out.n_in,
        .y_stride = op->out.n_in,
        .warm = turn->warm,
        .next_gate = turn->has_next ? weight_row(&op->ffn->gate, next) : NULL,
        .next_up = turn->has_next ? weight_row(&op->ffn->up, next) : NULL,
    };
    uint32_t end = min_u32(out + g.out_step, op->ffn->gate.n_out);
    swiglu_of(be, form)(&sg, out, end, scratch);
}

/* ---- attention -------------------------------------------------------------------------------- */

/* A block of rows of one segment. Its tiles are KV heads times spans; spans reach to the block's last row. */
struct attend_block {
    const struct segment *segment;
    uint32_t row, n_row, n_span, first_tile;
};

/* Walks the blocks; true: `tile` lies in *b. Without such a tile, b->first_tile is the number of tiles. */
static bool attend_find(const struct op *op, uint32_t tile, struct attend_block *b)
{
    uint32_t end = op->row_begin + op->n_row;
    b->first_tile = 0;
    for (uint32_t i = 0; i < op->n_segment; i++) {
        const struct segment *s = &op->segment[i];
        uint32_t r = s->row > op->row_begin ? s->row : op->row_begin;
        uint32_t r_end = min_u32(s->row + s->n_row, end);
        for (; r < r_end; r += b->n_row) {
            b->segment = s;
            b->row = r;
            b->n_row = min_u32(ATTEND_ROWS, r_end - r);
            b->n_span = op->pos[r + b->n_row - 1] / KV_SPAN + 1;
            uint32_t n_tile = b->n_span * op->n_head_kv;
            if (tile - b->first_tile < n_tile)
                return true;
            b->first_tile += n_tile;
        }
    }
    return false;
}

static uint32_t attend_plan(const struct op *op, struct tile_cost *cost)
{
    struct attend_block b;
    uint32_t n_q = op->n_head / op->n_head_kv, rows = min_u32(ATTEND_ROWS, op->n_row), most = 0;

    for (uint32_t r = op->row_begin; r < op->row_begin + op->n_row; r++)
        most = op->pos[r] > most ? op->pos[r] : most;
    cost->macs = (uint64_t)rows * n_q * min_u32(most + 1, KV_SPAN) * op->d_head * 2;
    attend_find(op, UINT32_MAX, &b);
    return b.first_tile;
}

/* Partial sums lie as [n_span, n_head_kv, n_row, n_q, d_head + 2]. */
static size_t part_index(const struct op *op, uint32_t span, uint32_t head, uint32_t row)
{
    size_t i = ((size_t)span * op->n_head_kv + head) * op->n_row + (row - op->row_begin);
    return i * (op->n_head / op->n_head_kv) * (op->d_head + 2);
}

/* The first page of a tile, NULL without such a tile. */
static const void *attend_first_page(const struct op *op, uint32_t tile)
{
    struct attend_block b;
    if (!attend_find(op, tile, &b))
        return NULL;
    uint32_t head = (tile - b.first_tile) / b.n_span, span = (tile - b.first_tile) % b.n_span;
    return kv_head(op, op->seq[b.segment->seq], span * (KV_SPAN / KV_PAGE), head);
}

static void attend_tile(const struct backend *be, const struct op *op, const struct turn *turn, void *scratch)
{
    struct attend_block b;
    uint32_t tile = turn->tile;
    if (!attend_find(op, tile, &b))
        return;
    uint32_t head = (tile - b.first_tile) / b.n_span, span = (tile - b.first_tile) % b.n_span;
    uint32_t n_q = op->n_head / op->n_head_kv, begin = span * KV_SPAN;
    const struct kv_seq *seq = op->seq[b.segment->seq];
    uint32_t n = min_u32(KV_SPAN, op->pos[b.row + b.n_row - 1] + 1 - begin);
    const void *page[KV_SPAN / KV_PAGE];
    uint32_t pos[ATTEND_ROWS], skip = 0;

    for (uint32_t p = 0; p < n; p += KV_PAGE)
        page[p / KV_PAGE] = kv_head(op, seq, (begin + p) / KV_PAGE, head);
    while (op->pos[b.row + skip] < begin)
        skip++; /* rows that end in an earlier span: their partial sums are never read */
    for (uint32_t i = skip; i < b.n_row; i++)
        pos[i - skip] = op->pos[b.row + i] - begin;
    struct attention at = {
        .kv_type = seq->type, .d_head = op->d_head, .n_q = n_q, .n_row = b.n_row - skip,
        .scale = op->scale,
        .q = op->q + ((size_t)(b.row + skip) * op->n_head + (size_t)head * n_q) * op->d_head,
        .q_stride = (uint64_t)op->n_head * op->d_head,
        .pos = pos, .page = page, .pos_begin = 0, .pos_end = n,
        .out = op->part_out + part_index(op, span, head, b.row + skip),
        .next = turn->has_next ? attend_first_page(op, tile + 1) : NULL,
    };
    be->k.attention(&at, scratch);
}

/* Row r of the operation is row row_begin + r of the pass. */
static void merge_row(const struct backend *be, const struct op *op, uint32_t r, void *scratch)
{
    uint32_t row = op->row_begin + r, d = op->d_head, n_q = op->n_head / op->n_head_kv;
    uint32_t n_span = op->pos[row] / KV_SPAN + 1;
    uint64_t stride = (uint64_t)op->n_head_kv * op->n_row * n_q * (d + 2);
    float *y = op->out.f + (size_t)row * op->out.n_in;
    (void)scratch;

    for (uint32_t h = 0; h < op->n_head; h++) {
        const float *part = op->part_out + part_index(op, 0, h / n_q, row) + (size_t)(h % n_q) * (d + 2);
        be->k.attention_merge(part, n_span, stride, d, y + (size_t)h * d);
    }
    round_row(be, &op->out, row, y);
}

/* ---- dispatch ---------------------------------------------------------------------------------- */

uint32_t op_plan(const struct backend *be, const struct op *op, struct tile_cost *cost)
{
    switch (op->kind) {
    case OP_EMBED: return row_tiles(op, op->w->n_in, cost);
    case OP_NORM: return row_tiles(op, op->in.n_in * 2ull, cost);
    case OP_QUANT: return row_tiles(op, op->in.n_in, cost);
    case OP_HEADS: return row_tiles(op, (uint64_t)(op->n_head + 2 * op->n_head_kv) * op->d_head, cost);
    case OP_MERGE: return row_tiles(op, (uint64_t)op->n_head * op->d_head * 2, cost);
    case OP_MATMUL: return matmul_plan(be, op, cost);
    case OP_SWIGLU: return swiglu_plan(be, op, cost);
    case OP_ATTEND: return attend_plan(op, cost);
    default: return moe_plan(be, op, cost);
    }
}

void op_tile(const struct backend *be, const struct op *op, const struct turn *t, void *scratch)
{
    uint32_t tile = t->tile;
    switch (op->kind) {
    case OP_EMBED: for_rows(be, op, tile, scratch, embed_row); break;
    case OP_NORM: for_rows(be, op, tile, scratch, norm_row); break;
    case OP_QUANT: for_rows(be, op, tile, scratch, quant_row); break;
    case OP_HEADS: for_rows(be, op, tile, scratch, heads_row); break;
    case OP_MERGE: for_rows(be, op, tile, scratch, merge_row); break;
    case OP_MATMUL: matmul_tile(be, op, t, scratch); break;
    case OP_SWIGLU: swiglu_tile(be, op, t, scratch); break;
    case OP_ATTEND: attend_tile(be, op, t, scratch); break;
    default: moe_tile(be, op, t, scratch); break;
    }
}
