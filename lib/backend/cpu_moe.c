/* cpu_moe.c: routing, and the experts' part of the operations on the CPU. Rows are grouped by expert,
 * so that each expert's weights are read once for all of its rows; sums over experts are in ascending
 * order of the expert, so that they do not depend on the grouping. */
#include "backend_int.h"

#include <math.h>
#include <string.h>

#define GROUP_WORDS (4096 / 64) /* a bit per expert group, HP_EXPERT_MAX at most */

/* ---- routing --------------------------------------------------------------------------------- */

/* Sum of the two largest scores of a group: what ranks groups. */
static float group_score(const float *score, uint32_t n)
{
    float a = -INFINITY, b = -INFINITY;
    for (uint32_t i = 0; i < n; i++) {
        if (score[i] > a) {
            b = a;
            a = score[i];
        } else if (score[i] > b) {
            b = score[i];
        }
    }
    return n > 1 ? a + b : a;
}

/* Experts outside the n_group_used best groups get score 0, as the family's reference does (so one
 * of them can still win against a negative score). Ties go to the lower group. */
static void mask_groups(const struct routing *rt, float *score)
{
    uint64_t refused[GROUP_WORDS] = { 0 };
    uint32_t each = rt->n_expert / rt->n_group;

    for (uint32_t i = 0; i < rt->n_group; i++) {
        float mine = group_score(score + i * each, each);
        uint32_t better = 0;
        for (uint32_t j = 0; j < rt->n_group; j++) {
            float other = group_score(score + j * each, each);
            better += other > mine || (other == mine && j < i);
        }
        if (better >= rt->n_group_used)
            refused[i / 64] |= 1ull << i % 64;
    }
    for (uint32_t e = 0; e < rt->n_expert; e++)
        if (refused[e / each / 64] >> e / each % 64 & 1)
            score[e] = 0.0f;
}

/* Moves the n_used largest scores' experts to `chosen`, ascending. Ties go to the lower expert; a NaN
 * loses against everything but still leaves n_used different experts. score is used up. */
static void choose(float *score, uint32_t n_expert, uint32_t n_used, uint32_t *chosen)
{
    for (uint32_t i = 0; i < n_used; i++) {
        uint32_t best = UINT32_MAX, at = i;
        float top = -INFINITY;
        for (uint32_t e = 0; e < n_expert; e++) {
            if (score[e] > top) {
                top = score[e];
                best = e;
            }
        }
        for (uint32_t e = 0; best == UINT32_MAX && e < n_expert; e++) {
            bool taken = false;
            for (uint32_t j = 0; j < i; j++)
                taken |= chosen[j] == e;
            if (!taken)
                best = e;
        }
        score[best] = -INFINITY;
        while (at > 0 && chosen[at - 1] > best) {
            chosen[at] = chosen[at - 1];
            at--;
        }
        chosen[at] = best;
    }
}

/* Weights are the unbiased sigmoids of the experts that the biased ones chose. */
static void topk_row(const struct op *op, uint32_t r)
{
    const struct routing *rt = op->route;
    float *sigmoid = rt->logits + (size_t)r * rt->n_expert;
    float *score = rt->scratch + (size_t)r * rt->n_expert;
    uint32_t *expert = rt->expert + (size_t)r * rt->n_used;
    float *weight = rt->weight + (size_t)r * rt->n_used, sum = 0.0f;

    for (uint32_t e = 0; e < rt->n_expert; e++) {
        sigmoid[e] = 1.0f / (1.0f + k_exp(-sigmoid[e]));
        score[e] = sigmoid[e] + op->router_bias[e];
    }
    if (rt->n_group > 1)
        mask_groups(rt, score);
    choose(score, rt->n_expert, rt->n_used, expert);
    for (uint32_t i = 0; i < rt->n_used; i++) {
        weight[i] = sigmoid[expert[i]];
        sum += weight[i];
    }
    for (uint32_t i = 0; i < rt->n_used; i++) {
        if (rt->norm_topk)
            weight[i] /= sum + 1e-20f;
        weight[i] *= rt->scale;
    }
}

static void group_rows(const struct op *op)
{
    struct routing *rt = op->route;
    uint32_t n_slot = op->n_row * rt->n_used, slot = 0;

    memset(rt->first, 0, (rt->n_expert + 1) * sizeof *rt->first);
    for (uint32_t i = 0; i < n_slot; i++)
        rt->first[rt->expert[i]]++;
    rt->n_active = 0;
    for (uint32_t e = 0; e <= rt->n_expert; e++) {
        uint32_t n = rt->first[e];
        rt->first[e] = slot;
        slot += n;
        if (e < rt->n_expert && n)
            rt->active[rt->n_active++] = e;
    }
    for (uint32_t i = 0; i < n_slot; i++) { /* first[e] moves to the end of e while filling */
        uint32_t at = rt->first[rt->expert[i]]++;
        rt->slot[i] = at;
        rt->slot_row[at] = i / rt->n_used;
    }
    for (uint32_t e = rt->n_expert; e > 0; e--)
        rt->first[e] = rt->first[e - 1];
    rt->first[0] = 0;
    rt->active_begin = 0;
    rt->active_end = rt->n_active;
}

/* ---- experts --------------------------------------------------------------------------------- */

/* A piece of work of the experts: a range of outputs for a block of one expert's rows. The shared expert
 * comes after the others and has every row. */
struct piece {
    const struct ffn *ffn;
    uint32_t row, n_row;      /* slots, or rows for the shared expert */
    uint32_t out, out_end;
    bool shared;
};

static const struct weight *piece_weight(const struct op *op, const struct ffn *f)
{
    return op->kind == OP_EXPERTS_UP ? &f->gate : &f->down;
}

/* All experts are cut alike, for the mean number of rows, so that a tile is found by division. One with more rows, up
 * to twice as many, still has all of them in one block: each block unpacks the weights again. */
static struct grid experts_grid(const struct backend *be, const struct op *op)
{
    const struct routing *rt = op->route;
    uint32_t mean = ceil_div(op->n_row * rt->n_used, rt->n_active);
    struct grid g = grid_plan(be, piece_weight(op, op->ffn), mean);
    g.row_step *= 2;
    return g;
}

static bool piece_in(const struct grid *g, uint32_t *tile, uint32_t n_row, struct piece *p)
{
    uint32_t n_block = ceil_div(n_row, g->row_step), n = n_block * g->n_out_tile;
    if (*tile >= n) {
        *tile -= n;
        return false;
    }
    p->row = *tile % n_block * g->row_step;
    p->n_row = min_u32(g->row_step, n_row - p->row);
    p->out = *tile / n_block * g->out_step;
    return true;
}

/* False: there is no such tile, and *tile is reduced by their number. */
static bool piece_find(const struct backend *be, const struct op *op, uint32_t *tile, struct piece *p)
{
    const struct routing *rt = op->route;
    struct grid g = experts_grid(be, op);

    p->shared = false;
    for (uint32_t i = rt->active_begin; i < rt->active_end; i++) {
        uint32_t e = rt->active[i];
        p->ffn = &op->ffn[e];
        p->out_end = piece_weight(op, p->ffn)->n_out;
        if (piece_in(&g, tile, rt->first[e + 1] - rt->first[e], p)) {
            p->out_end = min_u32(p->out + g.out_step, p->out_end);
            p->row += rt->first[e];
            return true;
        }
    }
    if (!op->shared)
        return false;
    p->shared = true;
    p->ffn = op->shared;
    g = grid_plan(be, piece_weight(op, p->ffn), op->n_row);
    if (!piece_in(&g, tile, op->n_row, p))
        return false;
    p->out_end = min_u32(p->out + g.out_step, piece_weight(op, p->ffn)->n_out);
    return true;
}

static uint32_t experts_plan(const struct backend *be, const struct op *op, struct tile_cost *cost)
{
    uint32_t tile = UINT32_MAX;
    struct piece p;
    struct grid g = experts_grid(be, op);

    tile_cost_add(cost, piece_weight(op, op->ffn), &g);
    if (op->shared) {
        g = grid_plan(be, piece_weight(op, op->shared), op->n_row);
        tile_cost_add(cost, piece_weight(op, op->shared), &g);
    }
    if (op->kind == OP_EXPERTS_UP) {
        cost->bytes *= 2;
        cost->macs *= 2;
    }
    piece_find(be, op, &tile, &p);
    return UINT32_MAX - tile;
}

static void experts_up_tile(const struct backend *be, const struct op *op, const struct piece *p,
    const struct piece *next, bool warm, void *scratch)
{
    const struct act *out = p->shared ? &op->shared_out : &op->out;
    const uint32_t *index = p->shared ? NULL : op->route->slot_row + p->row;
    enum act_form form = form_swiglu(be, &op->in, p->ffn);
    struct swiglu sg = {
        .gate = &p->ffn->gate,
        .up = &p->ffn->up,
        .x = act_rows(&op->in, form, p->shared ? p->row : 0, index, p->n_row),
        .y = out->f + (size_t)p->row * out->n_in,
        .y_stride = out->n_in,
        .warm = warm,
        .next_gate = next ? weight_row(&next->ffn->gate, next->out) : NULL,
        .next_up = next ? weight_row(&next->ffn->up, next->out) : NULL,
    };
    swiglu_of(be, form)(&sg, p->out, p->out_end, scratch);
}

static void experts_down_tile(const struct backend *be, const struct op *op, const struct piece *p,
    const struct piece *next, bool warm, void *scratch)
{
    const struct act *in = p->shared ? &op->shared_out : &op->in;
    const struct weight *w = &p->ffn->down;
    enum act_form form = form_matmul(be, in, w);
    struct matmul mm = {
        .w = w,
        .x = act_rows(in, form, p->row, NULL, p->n_row),
        .y = (p->shared ? op->shared_y : op->y) + (size_t)p->row * w->n_out,
        .y_stride = w->n_out,
        .mode = MM_STORE,
        .warm = warm,
        .next = next ? weight_row(&next->ffn->down, next->out) : NULL,
    };
    matmul_of(be, form)(&mm, p->out, p->out_end, scratch);
}

static void experts_tile(const struct backend *be, const struct op *op, const struct turn *t, void *scratch)
{
    uint32_t tile = t->tile, after = t->tile + 1;
    struct piece p, next;
    if (!piece_find(be, op, &tile, &p))
        return;
    bool has_next = t->has_next && piece_find(be, op, &after, &next);
    (op->kind == OP_EXPERTS_UP ? experts_up_tile : experts_down_tile)(
        be, op, &p, has_next ? &next : NULL, t->warm, scratch);
}

/* Of the experts that the operation is about. */
static uint32_t n_slots(const struct op *op)
{
    const struct routing *rt = op->route;
    uint32_t n = 0;

    if (rt->active_end - rt->active_begin == rt->n_active)
        return op->n_row * rt->n_used;
    for (uint32_t i = rt->active_begin; i < rt->active_end; i++)
        n += rt->first[rt->active[i] + 1] - rt->first[rt->active[i]];
    return n;
}

/* The r-th of them. */
static uint32_t find_slot(const struct op *op, uint32_t r)
{
    const struct routing *rt = op->route;

    if (rt->active_end - rt->active_begin == rt->n_active)
        return r;
    for (uint32_t i = rt->active_begin;; i++) {
        uint32_t first = rt->first[rt->active[i]], n = rt->first[rt->active[i] + 1] - first;
        if (r < n)
            return first + r;
        r -= n;
    }
}

/* Slots, then the shared expert's rows. */
static void experts_quant_row(const struct backend *be, const struct op *op, uint32_t n_slot, uint32_t r)
{
    const struct act *a = r < n_slot ? &op->in : &op->shared_out;
    uint32_t row = r < n_slot ? find_slot(op, r) : r - n_slot;
    round_row(be, a, row, a->f + (size_t)row * a->n_in);
}

static void experts_quant_tile(const struct backend *be, const struct op *op, uint32_t row)
{
    uint32_t n_slot = n_slots(op), end = min_u32(row + ROW_TILE, n_slot + (op->shared ? op->n_row : 0));
    for (; row < end; row++)
        experts_quant_row(be, op, n_slot, row);
}

/* out.f holds the residual stream; scratch the sum, so that the stream takes one addition. */
static void combine_row(const struct backend *be, const struct op *op, uint32_t r, float *sum)
{
    const struct routing *rt = op->route;
    uint32_t n = op->out.n_in;

    memset(sum, 0, n * sizeof *sum);
    for (uint32_t i = 0; i < rt->n_used; i++) {
        size_t at = (size_t)r * rt->n_used + i;
        be->k.axpy(sum, rt->weight[at], op->y + (size_t)rt->slot[at] * n, n);
    }
    if (op->shared)
        be->k.add(sum, op->shared_y + (size_t)r * n, n);
    be->k.add(op->out.f + (size_t)r * n, sum, n);
}

/* ---- dispatch -------------------------------------------------------------------------------- */

uint32_t moe_plan(const struct backend *be, const struct op *op, struct tile_cost *cost)
{
    const struct routing *rt = op->route;
    switch (op->kind) {
    case OP_TOPK:
        cost->macs = (uint64_t)ROW_TILE * rt->n_expert * (rt->n_used + 8);
        return ceil_div(op->n_row, ROW_TILE);
    case OP_GROUP:
        cost->macs = (uint64_t)op->n_row * rt->n_used * 64;
        return 1;
    case OP_EXPERTS_QUANT:
        cost->bytes = (uint64_t)ROW_TILE * op->in.n_in * 5;
        return ceil_div(n_slots(op) + (op->shared ? op->n_row : 0), ROW_TILE);
    case OP_COMBINE:
        cost->bytes = (uint64_t)ROW_TILE * op->out.n_in * 4 * (rt->n_used + 2);
        return ceil_div(op->n_row, ROW_TILE);
    default:
        return experts_plan(be, op, cost);
    }
}

void moe_tile(const struct backend *be, const struct op *op, const struct turn *t, void *scratch)
{
    uint32_t row = t->tile * ROW_TILE, end = min_u32(row + ROW_TILE, op->n_row);
    switch (op->kind) {
    case OP_TOPK:
        for (; row < end; row++)
            topk_row(op, row);
        break;
    case OP_GROUP: group_rows(op); break;
    case OP_EXPERTS_QUANT: experts_quant_tile(be, op, row); break;
    case OP_COMBINE:
        for (; row < end; row++)
            combine_row(be, op, row, scratch);
        break;
    default: experts_tile(be, op, t, scratch); break;
    }
}
