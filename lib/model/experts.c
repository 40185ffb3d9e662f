/* experts.c: a pass's use of the cache of experts. Which experts a row needs is known only when it has been routed; from
 * then on a pass takes windows of them (see experts_int.h). Sums over experts are in the order of the experts, whatever
 * the windows: bits do not depend on what was there. */
#include "experts_int.h"

#define WAIT_NS 1000000u /* between two looks at the stop flags, and a step's least patience */

static bool open_guess(struct experts *x, const struct hparams *hp)
{
    size_t n = GUESS_ROWS, n_expert = hp->n_expert, n_used = hp->n_expert_used;
    float *at = mem_array(x->net->mem, n * (hp->d_model + 2 * n_expert + 2 * n_used), sizeof *at);

    if (!at)
        return false;
    x->guess_memory = x->guess_x = at;
    x->guess = (struct routing){ .n_expert = hp->n_expert, .n_used = hp->n_expert_used, .n_group = hp->n_group,
        .n_group_used = hp->n_group_used, .logits = at + n * hp->d_model };
    x->guess.scratch = x->guess.logits + n * n_expert;
    x->guess.weight = x->guess.scratch + n * n_expert;
    x->guess.expert = (uint32_t *)(void *)(x->guess.weight + n * n_used);
    return true;
}

int32_t experts_open(struct experts *x, struct net *n, glm_error *err)
{
    uint32_t n_expert = n->hp.n_expert;

    *x = (struct experts){ 0 };
    if (!n->cache)
        return GLM_OK;
    x->net = n;
    x->ffn = mem_zarray(n->mem, n_expert, sizeof *x->ffn);
    x->block = mem_array(n->mem, n_expert, sizeof *x->block);
    x->count = mem_array(n->mem, n_expert, sizeof *x->count);
    if (x->ffn && x->block && x->count && open_guess(x, &n->hp))
        return GLM_OK;
    return err_nomem(err, "the experts of a forward pass");
}

void experts_close(struct experts *x)
{
    if (!x->net)
        return;
    mem_free(x->net->mem, x->ffn);
    mem_free(x->net->mem, x->block);
    mem_free(x->net->mem, x->count);
    mem_free(x->net->mem, x->guess_memory);
}

/* Blocks of the layer's active experts [begin, end) into x->block. */
static uint32_t list(struct experts *x, const struct net_layer *l, const struct routing *rt, uint32_t begin, uint32_t end)
{
    for (uint32_t i = begin; i < end; i++)
        x->block[i - begin] = l->first_block + rt->active[i];
    return end - begin;
}

void experts_routed(struct experts *x, const struct net_layer *l, struct routing *rt, uint32_t n_row)
{
    uint32_t n = list(x, l, rt, 0, rt->n_active);

    for (uint32_t i = 0; i < n; i++)
        x->count[i] = rt->first[rt->active[i] + 1] - rt->first[rt->active[i]];
    cache_note(x->net->cache, x->block, x->count, n, (double)n_row / x->net->n_moe);
    rt->active_begin = rt->active_end = 0;
    cache_ask(x->net->cache, &x->claim, x->block, n);
    x->fixed = false;
    x->ffn[0] = l->experts[0];
}

static void point(struct weight *w, const void *const *at)
{
    w->data = at[PLACE_DATA];
    w->scale = at[PLACE_SCALE];
    w->zero = at[PLACE_ZERO];
}

/* A block that was dropped and held again may lie elsewhere. */
static void point_window(struct experts *x, const struct net_layer *l, const struct routing *rt)
{
    for (uint32_t i = rt->active_begin; i < rt->active_end; i++) {
        uint32_t e = rt->active[i];
        const void *at[BLOCK_PARTS];
        struct ffn *f = &x->ffn[e];
        cache_parts(x->net->cache, l->first_block + e, at);
        *f = l->experts[e];
        point(&f->gate, at);
        point(&f->up, at + PLACE_COUNT);
        point(&f->down, at + 2 * PLACE_COUNT);
    }
}

/* A window that has begun keeps its order: tiles are counted by it. */
static void fix_window(struct experts *x, const struct net_layer *l, struct routing *rt, uint32_t n_left, uint32_t n)
{
    if (x->fixed)
        return;
    for (uint32_t i = 0; i < n_left; i++)
        rt->active[rt->active_begin + i] = x->block[i] - l->first_block;
    rt->active_end = rt->active_begin + n;
    x->fixed = true;
}

static uint64_t patience(uint64_t now, uint64_t deadline)
{
    return deadline > now && deadline - now < WAIT_NS ? deadline - now : WAIT_NS;
}

int32_t experts_take(struct experts *x, const struct net_layer *l, struct routing *rt, uint64_t deadline,
    const struct stop *stop, bool *there, glm_error *err)
{
    struct cache *c = x->net->cache;
    uint32_t n = list(x, l, rt, rt->active_begin, x->fixed ? rt->active_end : rt->n_active);
    uint32_t n_held = 0;
    int32_t rc;

    *there = false;
    for (;;) {
        rc = cache_hold(c, &x->claim, x->block, n, x->fixed, &n_held, err);
        if (rc || n_held)
            break;
        cache_wait(c, &x->claim, patience(os_now_ns(), deadline));
        if ((deadline && os_now_ns() >= deadline) || stop_asked(stop))
            return GLM_OK;
    }
    if (rc)
        return rc;
    fix_window(x, l, rt, n, n_held);
    point_window(x, l, rt);
    x->held = *there = true;
    return GLM_OK;
}

static void drop(struct experts *x, const struct net_layer *l, const struct routing *rt)
{
    if (x->held)
        cache_drop(x->net->cache, x->block, list(x, l, rt, rt->active_begin, rt->active_end));
    x->held = false;
}

bool experts_next(struct experts *x, const struct net_layer *l, struct routing *rt)
{
    drop(x, l, rt);
    x->fixed = false;
    if (rt->active_end == rt->n_active)
        return false;
    rt->active_begin = rt->active_end;
    return true;
}

void experts_pause(struct experts *x, const struct net_layer *l, struct routing *rt)
{
    drop(x, l, rt);
    cache_quit(x->net->cache, &x->claim, x->block, list(x, l, rt, rt->active_begin, rt->n_active));
}

bool experts_can_guess(const struct experts *x, const struct net_layer *l, uint32_t n_row)
{
    const struct net *n = x->net;
    return n_row <= GUESS_ROWS && l + 1 < n->layers + n->hp.n_layer && l[1].moe && !cache_is_whole(n->cache);
}

void experts_guessed(struct experts *x, const struct net_layer *l, uint32_t n_row)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < n_row * x->guess.n_used && n < x->net->hp.n_expert; i++)
        x->block[n++] = l[1].first_block + x->guess.expert[i];
    cache_prefetch(x->net->cache, x->block, n);
}
