/* pass.c: one forward pass as a resumable sequence of operations. The pass owns its work space, laid out
 * once at pass_open; the attention and the FFN half of a layer share one region. A step of the sequence
 * is turned into a backend operation when it is reached, because routing decides the size of some.
 *
 * Legend: x residual stream [n_row, d_model]; xn its norm; q k v heads; att attention output; h FFN
 * activations; y expert outputs. */
#include "experts_int.h"

#include <math.h>
#include <string.h>

#define PART_BYTES (24u << 20) /* partial attention sums: rows are grouped so that they fit */

enum step {
    STEP_EMBED, STEP_MTP_ENORM, STEP_MTP_HNORM, STEP_MTP_QUANT, STEP_MTP_PROJ,
    STEP_ATTN_NORM, STEP_QKV, STEP_HEADS, STEP_ATTEND, STEP_MERGE, STEP_O, STEP_FFN_NORM,
    STEP_SWIGLU, STEP_DENSE_QUANT, STEP_DOWN,
    STEP_ROUTER, STEP_TOPK, STEP_GROUP, STEP_GUESS_NORM, STEP_GUESS_ROUTER, STEP_GUESS_TOPK,
    STEP_EXPERTS_UP, STEP_EXPERTS_QUANT, STEP_EXPERTS_DOWN, STEP_COMBINE,
    STEP_FINAL_NORM, STEP_HEAD_NORM, STEP_HEAD, STEP_DONE
};

struct pass {
    struct net *net;
    const struct hparams *hp;
    uint32_t row_max, logit_max, n_ctx;
    void *memory, *work;
    struct batch b;
    struct segment *segments;
    uint32_t *pos, *logit_rows;
    struct act xn, att, cat, dense_h, h, shared_h, sel;
    float *x, *q, *k, *v, *part, *y, *shared_y, *rope, *hidden, *logits;
    size_t part_floats;
    struct routing route;
    struct experts experts;
    enum step step;
    uint32_t layer, row_begin, row_group; /* STEP_ATTEND and STEP_MERGE take rows group by group */
    struct op op;
    struct op_state state;
    bool op_ready;
};

/* ---- work space ------------------------------------------------------------------------------- */

/* Hands out parts of one block; with base NULL it only measures. */
struct carver {
    uint8_t *base;
    uint64_t at;
};

static void *carve(struct carver *c, uint64_t n, uint64_t size)
{
    void *p = c->base ? c->base + c->at : NULL;
    c->at = (c->at + n * size + 63) & ~63ull;
    return p;
}

static struct act carve_act(struct carver *c, uint32_t n_in, uint64_t n_row, bool fine)
{
    struct act a = { .n_in = n_in };
    a.f = carve(c, n_row * n_in, sizeof(float));
    a.rounded = carve(c, n_row, act_row_bytes_max(n_in));
    if (n_in % 32 == 0 && fine)
        a.fine = carve(c, 2 * n_row, act_row_bytes(n_in, ACT_Q8));
    return a;
}

static uint64_t part_floats(const struct hparams *hp, uint32_t n_row, uint32_t n_ctx)
{
    uint64_t row = (uint64_t)hp->n_head * (hp->d_head + 2) * ((n_ctx + KV_SPAN - 1) / KV_SPAN);
    uint64_t all = row * n_row, cap = PART_BYTES / sizeof(float);
    return all < cap ? all : row > cap ? row : cap;
}

static void carve_attention(struct pass *p, struct carver *c)
{
    const struct hparams *hp = p->hp;
    uint64_t n = p->row_max, n_q = (uint64_t)hp->n_head * hp->d_head, n_kv = (uint64_t)hp->n_head_kv * hp->d_head;
    p->q = carve(c, n * n_q, sizeof(float));
    p->k = carve(c, n * n_kv, sizeof(float));
    p->v = carve(c, n * n_kv, sizeof(float));
    p->att = carve_act(c, (uint32_t)n_q, n, false);
    p->part_floats = part_floats(hp, p->row_max, p->n_ctx);
    p->part = carve(c, p->part_floats, sizeof(float));
}

static void carve_ffn(struct pass *p, struct carver *c)
{
    const struct hparams *hp = p->hp;
    uint64_t n = p->row_max, n_slot = n * hp->n_expert_used;
    struct carver dense = *c;
    struct routing *rt = &p->route;

    p->dense_h = carve_act(&dense, hp->d_ff, n, false);
    p->h = carve_act(c, hp->d_ff_exp, n_slot, false);
    p->shared_h = carve_act(c, hp->d_ff_exp * hp->n_expert_shared, n, false);
    p->y = carve(c, n_slot * hp->d_model, sizeof(float));
    p->shared_y = carve(c, n * hp->d_model, sizeof(float));
    rt->logits = carve(c, n * hp->n_expert, sizeof(float));
    rt->scratch = carve(c, n * hp->n_expert, sizeof(float));
    rt->expert = carve(c, n_slot, sizeof(uint32_t));
    rt->weight = carve(c, n_slot, sizeof(float));
    rt->slot = carve(c, n_slot, sizeof(uint32_t));
    rt->slot_row = carve(c, n_slot, sizeof(uint32_t));
    rt->first = carve(c, hp->n_expert + 1, sizeof(uint32_t));
    rt->active = carve(c, hp->n_expert, sizeof(uint32_t));
    if (dense.at > c->at)
        c->at = dense.at;
}

static void carve_all(struct pass *p, struct carver *c)
{
    const struct hparams *hp = p->hp;
    uint64_t n = p->row_max;
    struct carver ffn;

    p->segments = carve(c, p->row_max, sizeof *p->segments);
    p->pos = carve(c, n, sizeof *p->pos);
    p->logit_rows = carve(c, p->logit_max, sizeof *p->logit_rows);
    p->rope = carve(c, n * hp->n_rot, sizeof(float));
    p->x = carve(c, n * hp->d_model, sizeof(float));
    p->xn = carve_act(c, hp->d_model, n, true);
    p->hidden = carve(c, n * hp->d_model, sizeof(float));
    p->sel = carve_act(c, hp->d_model, p->logit_max, true);
    p->logits = carve(c, (uint64_t)p->logit_max * hp->n_vocab, sizeof(float));
    if (hp->n_nextn)
        p->cat = carve_act(c, 2 * hp->d_model, n, false);
    ffn = *c; /* a layer's two halves never live at the same time */
    carve_attention(p, c);
    carve_ffn(p, &ffn);
    if (ffn.at > c->at)
        c->at = ffn.at;
}

uint64_t pass_bytes(const struct hparams *hp, uint32_t n_row, uint32_t n_logit, uint32_t n_ctx)
{
    struct pass p = { .hp = hp, .row_max = n_row, .logit_max = n_logit, .n_ctx = n_ctx };
    struct carver c = { NULL, 0 };
    carve_all(&p, &c);
    return c.at;
}

int32_t pass_open(struct net *n, uint32_t n_row, uint32_t n_logit, uint32_t n_ctx, struct pass **out,
    glm_error *err)
{
    const struct hparams *hp = &n->hp;
    struct pass *p = mem_zalloc(n->mem, sizeof *p);
    struct carver c = { NULL, 0 };

    *out = NULL;
    if (!p)
        return err_nomem(err, "a forward pass");
    p->net = n;
    p->hp = hp;
    p->row_max = n_row;
    p->logit_max = n_logit;
    p->n_ctx = n_ctx;
    p->memory = mem_alloc(n->mem, pass_bytes(hp, n_row, n_logit, n_ctx));
    p->work = mem_alloc(n->mem, backend_work_bytes(n->be));
    if (!p->memory || !p->work || experts_open(&p->experts, n, NULL)) {
        pass_close(p);
        return err_nomem(err, "the work space of a forward pass");
    }
    c.base = p->memory;
    carve_all(p, &c);
    p->route.n_expert = hp->n_expert;
    p->route.n_used = hp->n_expert_used;
    p->route.n_group = hp->n_group;
    p->route.n_group_used = hp->n_group_used;
    p->route.norm_topk = hp->norm_topk;
    p->route.scale = hp->routed_scale;
    p->step = STEP_DONE;
    *out = p;
    return GLM_OK;
}

void pass_close(struct pass *p)
{
    if (!p)
        return;
    experts_close(&p->experts);
    mem_free(p->net->mem, p->memory);
    mem_free(p->net->mem, p->work);
    mem_free(p->net->mem, p);
}

/* ---- begin ------------------------------------------------------------------------------------ */

/* Angles in double: at position 200,000 a float32 product would already be off by 0.01. */
static void rope_row(const struct net *n, uint32_t pos, float *cs)
{
    uint32_t half = n->hp.n_rot / 2;
    for (uint32_t i = 0; i < half; i++) {
        double angle = (double)pos * n->rope_freq[i];
        cs[i] = (float)cos(angle);
        cs[half + i] = (float)sin(angle);
    }
}

int32_t pass_begin(struct pass *p, const struct batch *b, glm_error *err)
{
    const struct hparams *hp = p->hp;
    uint32_t n = 0;

    if (b->n_row == 0 || b->n_row > p->row_max || b->n_logit > p->logit_max || b->n_segment > p->row_max)
        return err_set(err, GLM_EINVAL, b->n_row, NULL, "a pass of %u rows does not fit its work space", b->n_row);
    for (uint32_t i = 0; i < b->n_row; i++)
        if (b->ids[i] < 0 || (uint32_t)b->ids[i] >= hp->n_vocab)
            return err_set(err, GLM_EINVAL, i, "ids", "token id %d is outside the vocabulary of %u", b->ids[i],
                hp->n_vocab);
    p->b = *b;
    memcpy(p->segments, b->segments, b->n_segment * sizeof *p->segments);
    if (b->n_logit)
        memcpy(p->logit_rows, b->logit_rows, b->n_logit * sizeof *p->logit_rows);
    for (uint32_t i = 0; i < b->n_segment; i++)
        for (uint32_t r = 0; r < b->segments[i].n_row; r++, n++) {
            p->pos[n] = b->segments[i].pos + r;
            rope_row(p->net, p->pos[n], p->rope + (size_t)n * hp->n_rot);
        }
    p->step = STEP_EMBED;
    p->layer = b->mtp_hidden ? hp->n_layer : 0;
    p->op_ready = false;
    return GLM_OK;
}

/* ---- steps into operations --------------------------------------------------------------------- */

static const struct net_layer *layer_of(const struct pass *p) { return &p->net->layers[p->layer]; }

static struct act act_in(const struct act *a, enum act_form form, bool fine)
{
    struct act r = *a;
    r.form = form;
    if (!fine)
        r.fine = NULL;
    return r;
}

static void op_norm(struct op *op, const float *x, uint32_t n, const float *w, float eps, struct act out)
{
    op->kind = OP_NORM;
    op->x = x;
    op->x_stride = n;
    op->in.n_in = n;
    op->norm = w;
    op->eps = eps;
    op->out = out;
}

static void op_matmul(struct op *op, struct act in, const struct weight *w, const float *bias, float *y,
    bool add)
{
    op->kind = OP_MATMUL;
    op->in = in;
    op->part[op->n_part++] = (struct op_part){ .w = w, .bias = bias, .y = y, .y_stride = w->n_out, .add = add };
}

/* Rows whose partial sums fit the space at once. */
static uint32_t attend_group(const struct pass *p)
{
    const struct hparams *hp = p->hp;
    uint64_t each = (uint64_t)hp->n_head * (hp->d_head + 2);
    uint32_t n_span = 0, n = 0;
    for (uint32_t r = p->row_begin; r < p->b.n_row; r++, n++) {
        uint32_t s = p->pos[r] / KV_SPAN + 1;
        n_span = s > n_span ? s : n_span;
        if (n > 0 && each * n_span * (n + 1) > p->part_floats)
            break;
    }
    return n;
}

static void op_attention(struct pass *p, struct op *op, enum op_kind kind)
{
    const struct hparams *hp = p->hp;
    const struct net_layer *l = layer_of(p);

    op->kind = kind;
    op->seq = p->b.seqs;
    op->segment = p->segments;
    op->n_segment = p->b.n_segment;
    op->pos = p->pos;
    op->layer = p->layer;
    op->n_head = hp->n_head;
    op->n_head_kv = hp->n_head_kv;
    op->d_head = hp->d_head;
    op->n_rot = hp->n_rot;
    op->rope = p->rope;
    op->q = p->q;
    op->k = p->k;
    op->v = p->v;
    op->q_norm = l->q_norm;
    op->k_norm = l->k_norm;
    op->eps = hp->norm_eps;
    op->scale = (float)(1.0 / sqrt((double)hp->d_head));
    op->part_out = p->part;
    op->out = act_in(&p->att, l->o_form, false);
    if (kind != OP_HEADS) {
        op->row_begin = p->row_begin;
        op->n_row = p->row_group;
    }
}

static void op_experts(struct pass *p, struct op *op, enum op_kind kind)
{
    const struct net_layer *l = layer_of(p);

    op->kind = kind;
    op->route = &p->route;
    op->router_bias = l->router_bias;
    op->ffn = p->experts.net ? p->experts.ffn : l->experts;
    if (l->has_shared && (p->route.active_begin == 0 || kind == OP_COMBINE)) /* once, with the first experts */
        op->shared = &l->shared;
    op->in = op->out = act_in(&p->h, l->down_form, false);
    op->shared_out = act_in(&p->shared_h, l->down_form, false);
    op->y = p->y;
    op->shared_y = p->shared_y;
    if (kind == OP_EXPERTS_UP)
        op->in = act_in(&p->xn, l->ffn_form, false);
    if (kind == OP_COMBINE)
        op->out = (struct act){ .f = p->x, .n_in = p->net->hp.d_model };
}

/* The next layer's routing, of the residual stream as it is before this layer's experts. */
static void op_guess(struct pass *p, struct op *op)
{
    const struct net_layer *next = layer_of(p) + 1;
    struct experts *x = &p->experts;
    struct act in = { .f = x->guess_x, .n_in = p->hp->d_model };

    if (p->step == STEP_GUESS_NORM) {
        op_norm(op, p->x, p->hp->d_model, next->ffn_norm, p->hp->norm_eps, in);
    } else if (p->step == STEP_GUESS_ROUTER) {
        op_matmul(op, in, &next->router, NULL, x->guess.logits, false);
    } else {
        op->kind = OP_TOPK;
        op->route = &x->guess;
        op->router_bias = next->router_bias;
    }
}

/* A draft may be wrong: its head takes activations as they are fastest. */
static void op_head(struct pass *p, struct op *op)
{
    const struct net *n = p->net;
    op->n_row = p->b.n_logit;
    if (p->b.mtp_hidden) {
        op_matmul(op, act_in(&p->sel, backend_form(n->be, &n->mtp_head), false), &n->mtp_head, NULL, p->logits, false);
        return;
    }
    op_matmul(op, act_in(&p->sel, ACT_F32, true), &n->head, NULL, p->logits, false);
    op->part[0].fine = true;
}

static void op_final_norm(struct pass *p, struct op *op, bool selected)
{
    const struct net *n = p->net;
    const float *w = p->b.mtp_hidden ? n->mtp_norm : n->norm;
    struct act out = { .f = p->hidden, .n_in = n->hp.d_model };
    if (selected) {
        out = p->b.mtp_hidden ? act_in(&p->sel, backend_form(n->be, &n->mtp_head), false)
                              : act_in(&p->sel, ACT_F32, backend_wants_q8(n->be, &n->head));
        op->rows = p->logit_rows;
        op->n_row = p->b.n_logit;
    }
    op_norm(op, p->x, n->hp.d_model, w, n->hp.norm_eps, out);
}

static void op_embed(struct pass *p, struct op *op)
{
    op->kind = OP_EMBED;
    op->ids = p->b.ids;
    op->w = p->b.mtp_hidden ? &p->net->mtp_embed : &p->net->embed;
    op->y = p->x;
}

/* The MTP layer's input: norm of the embedding, then norm of the trunk's state, side by side. */
static void op_mtp(struct pass *p, struct op *op)
{
    const struct net *n = p->net;
    uint32_t d = n->hp.d_model;

    if (p->step == STEP_MTP_PROJ) {
        op_matmul(op, act_in(&p->cat, backend_form(n->be, &n->mtp_proj), false), &n->mtp_proj, NULL, p->x, false);
    } else if (p->step == STEP_MTP_ENORM) {
        op_norm(op, p->x, d, n->mtp_enorm, n->hp.norm_eps, (struct act){ .f = p->cat.f, .n_in = d });
        op->out_stride = 2 * d;
    } else {
        op_norm(op, p->b.mtp_hidden, d, n->mtp_hnorm, n->hp.norm_eps, (struct act){ .f = p->cat.f + d, .n_in = d });
        op->out_stride = 2 * d;
    }
}

static void op_build(struct pass *p)
{
    const struct net_layer *l = layer_of(p);
    const struct hparams *hp = p->hp;
    struct op *op = &p->op;
    struct act xn = p->xn;

    *op = (struct op){ .n_row = p->b.n_row };
    switch (p->step) {
    case STEP_EMBED: op_embed(p, op); break;
    case STEP_MTP_ENORM: case STEP_MTP_HNORM: case STEP_MTP_PROJ: op_mtp(p, op); break;
    case STEP_MTP_QUANT:
        op->kind = OP_QUANT;
        op->in = act_in(&p->cat, backend_form(p->net->be, &p->net->mtp_proj), false);
        break;
    case STEP_ATTN_NORM:
        op_norm(op, p->x, hp->d_model, l->attn_norm, hp->norm_eps, act_in(&xn, l->attn_form, l->v_fine));
        break;
    case STEP_QKV:
        op_matmul(op, act_in(&xn, l->attn_form, l->v_fine), &l->q, l->q_bias, p->q, false);
        op_matmul(op, op->in, &l->k, l->k_bias, p->k, false);
        op_matmul(op, op->in, &l->v, l->v_bias, p->v, false);
        op->part[2].fine = true;
        break;
    case STEP_HEADS: op_attention(p, op, OP_HEADS); break;
    case STEP_ATTEND:
        p->row_group = attend_group(p);
        op_attention(p, op, OP_ATTEND);
        break;
    case STEP_MERGE: op_attention(p, op, OP_MERGE); break;
    case STEP_O: op_matmul(op, act_in(&p->att, l->o_form, false), &l->o, NULL, p->x, true); break;
    case STEP_FFN_NORM:
        op_norm(op, p->x, hp->d_model, l->ffn_norm, hp->norm_eps, act_in(&xn, l->ffn_form, false));
        break;
    case STEP_SWIGLU:
        op->kind = OP_SWIGLU;
        op->in = act_in(&xn, l->ffn_form, false);
        op->ffn = &l->dense;
        op->out = p->dense_h;
        break;
    case STEP_DENSE_QUANT: op->kind = OP_QUANT; op->in = act_in(&p->dense_h, l->down_form, false); break;
    case STEP_DOWN: op_matmul(op, act_in(&p->dense_h, l->down_form, false), &l->dense.down, NULL, p->x, true); break;
    case STEP_ROUTER: op_matmul(op, act_in(&xn, ACT_F32, false), &l->router, NULL, p->route.logits, false); break;
    case STEP_TOPK: op_experts(p, op, OP_TOPK); break;
    case STEP_GROUP: op_experts(p, op, OP_GROUP); break;
    case STEP_GUESS_NORM: case STEP_GUESS_ROUTER: case STEP_GUESS_TOPK: op_guess(p, op); break;
    case STEP_EXPERTS_UP: op_experts(p, op, OP_EXPERTS_UP); break;
    case STEP_EXPERTS_QUANT: op_experts(p, op, OP_EXPERTS_QUANT); break;
    case STEP_EXPERTS_DOWN: op_experts(p, op, OP_EXPERTS_DOWN); break;
    case STEP_COMBINE: op_experts(p, op, OP_COMBINE); break;
    case STEP_FINAL_NORM: op_final_norm(p, op, false); break;
    case STEP_HEAD_NORM: op_final_norm(p, op, true); break;
    case STEP_HEAD: op_head(p, op); break;
    case STEP_DONE: break;
    }
    p->state = (struct op_state){ 0 };
    p->op_ready = true;
}

/* ---- order ------------------------------------------------------------------------------------- */

static void keep_residual(const struct pass *p, uint32_t after)
{
    uint32_t d = p->net->hp.d_model;
    if (p->b.residual && !p->b.mtp_hidden) {
        uint64_t row = (uint64_t)after * p->b.residual_rows + p->b.residual_row;
        memcpy(p->b.residual + row * d, p->x, (size_t)p->b.n_row * d * sizeof(float));
    }
}

static enum step after_attention_rows(struct pass *p)
{
    p->row_begin += p->row_group;
    return p->row_begin < p->b.n_row ? STEP_ATTEND : STEP_O;
}

static enum step after_layer(struct pass *p)
{
    const struct hparams *hp = p->hp;
    keep_residual(p, p->layer + 1);
    if (p->b.mtp_hidden) /* its rows are read as logits only */
        return STEP_HEAD_NORM;
    if (p->layer + 1 == hp->n_layer)
        return STEP_FINAL_NORM;
    p->layer++;
    return STEP_ATTN_NORM;
}

/* The MTP layer is the last: of rows without logits only keys and values are wanted. */
static enum step after_draft_keys(struct pass *p)
{
    uint32_t n = p->b.n_logit, first = p->b.n_row - n, d = p->hp->d_model, n_q = p->hp->n_head * p->hp->d_head;

    if (n == 0)
        return STEP_DONE;
    if (first == 0 || p->b.n_segment != 1 || p->logit_rows[0] != first)
        return STEP_ATTEND;
    memmove(p->x, p->x + (size_t)first * d, (size_t)n * d * sizeof(float));
    memmove(p->q, p->q + (size_t)first * n_q, (size_t)n * n_q * sizeof(float));
    memmove(p->pos, p->pos + first, n * sizeof *p->pos);
    for (uint32_t i = 0; i < n; i++)
        p->logit_rows[i] = i;
    p->segments[0] = (struct segment){ p->segments[0].seq, 0, n, p->pos[0] };
    p->b.n_row = n;
    return STEP_ATTEND;
}

static enum step step_after(struct pass *p)
{
    const struct net_layer *l = layer_of(p);
    switch (p->step) {
    case STEP_EMBED:
        keep_residual(p, 0);
        return p->b.mtp_hidden ? STEP_MTP_ENORM : STEP_ATTN_NORM;
    case STEP_MTP_HNORM:
        return backend_form(p->net->be, &p->net->mtp_proj) ? STEP_MTP_QUANT : STEP_MTP_PROJ;
    case STEP_MTP_PROJ: return STEP_ATTN_NORM;
    case STEP_HEADS: p->row_begin = 0; return p->b.mtp_hidden ? after_draft_keys(p) : STEP_ATTEND;
    case STEP_MERGE: return after_attention_rows(p);
    case STEP_FFN_NORM: return l->moe ? STEP_ROUTER : STEP_SWIGLU;
    case STEP_SWIGLU: return l->down_form ? STEP_DENSE_QUANT : STEP_DOWN;
    case STEP_DOWN: case STEP_COMBINE: return after_layer(p);
    case STEP_GROUP:
        if (p->experts.net)
            experts_routed(&p->experts, l, &p->route, p->b.n_row);
        return p->experts.net && experts_can_guess(&p->experts, l, p->b.n_row) ? STEP_GUESS_NORM : STEP_EXPERTS_UP;
    case STEP_GUESS_TOPK: experts_guessed(&p->experts, l, p->b.n_row); return STEP_EXPERTS_UP;
    case STEP_EXPERTS_DOWN:
        return p->experts.net && experts_next(&p->experts, l, &p->route) ? STEP_EXPERTS_UP : STEP_COMBINE;
    case STEP_EXPERTS_UP: return l->down_form ? STEP_EXPERTS_QUANT : STEP_EXPERTS_DOWN;
    case STEP_FINAL_NORM: return p->b.n_logit ? STEP_HEAD_NORM : STEP_DONE;
    default: return p->step + 1;
    }
}

static bool wants_experts(const struct pass *p)
{
    return p->experts.net && !p->experts.held && p->step >= STEP_EXPERTS_UP && p->step <= STEP_EXPERTS_DOWN;
}

static int32_t run(struct pass *p, uint64_t deadline, const struct stop *stop, glm_error *err)
{
    while (p->step != STEP_DONE) {
        if (wants_experts(p)) {
            bool there;
            int32_t rc = experts_take(&p->experts, layer_of(p), &p->route, deadline, stop, &there, err);
            if (rc || !there)
                return rc;
        }
        if (!p->op_ready)
            op_build(p);
        if (!backend_run(p->net->be, &p->op, &p->state, p->work, deadline, stop))
            return GLM_OK;
        p->op_ready = false;
        p->step = step_after(p);
        if (p->step != STEP_DONE && ((deadline && os_now_ns() >= deadline) || stop_asked(stop)))
            return GLM_OK;
    }
    return GLM_OK;
}

int32_t pass_run(struct pass *p, uint64_t deadline, const struct stop *stop, bool *done, glm_error *err)
{
    int32_t rc = run(p, deadline, stop, err);

    *done = !rc && p->step == STEP_DONE;
    if (p->experts.net && p->step > STEP_GROUP && p->step <= STEP_EXPERTS_DOWN)
        experts_pause(&p->experts, layer_of(p), &p->route);
    return rc;
}

double pass_progress(const struct pass *p)
{
    uint32_t n = p->net->hp.n_layer;
    if (p->step == STEP_DONE)
        return 1.0;
    return p->b.mtp_hidden ? 0.5 : ((double)p->layer + (double)p->step / STEP_DONE) / (n + 1);
}

const float *pass_logits(const struct pass *p, uint32_t i)
{
    return p->logits + (size_t)i * p->net->hp.n_vocab;
}

const float *pass_hidden(const struct pass *p, uint32_t row)
{
    return p->hidden + (size_t)row * p->net->hp.d_model;
}
