/* net.c: binding a checkpoint's tensors to the layers of the architecture. Vectors are copied to float32,
 * matrices stay views into the checkpoint; experts may be blocks of a cache instead. Everything else lives in the net's
 * arena. */
#include "model.h"

#include <math.h>

struct binder {
    struct net *net;
    struct ckpt *ckpt;
    glm_error *err;
    int32_t rc;        /* first failure; later calls do nothing */
    uint32_t layer;
    struct block *blocks; /* [n_moe * n_expert] of experts that are not bound but cached; or NULL */
    uint32_t n_block;
};

static void *bind_alloc(struct binder *b, size_t n, size_t size)
{
    void *p = b->rc ? NULL : arena_alloc(&b->net->arena, n * size, 64);
    if (!p && !b->rc)
        b->rc = err_nomem(b->err, "the layers");
    return p;
}

static void bind_matrix(struct binder *b, enum role role, uint32_t expert, uint32_t n_out, uint32_t n_in,
    bool optional, struct weight *out)
{
    if (!b->rc)
        b->rc = ckpt_weight(b->ckpt, role, b->layer, expert, n_out, n_in, optional, out, b->err);
}

/* NULL where an optional vector is missing. */
static float *bind_vector(struct binder *b, enum role role, uint32_t n, bool optional)
{
    struct weight w = { 0 };
    float *v;
    bind_matrix(b, role, 0, 1, n, optional, &w);
    if (b->rc || w.format == W_NONE)
        return NULL;
    v = bind_alloc(b, n, sizeof *v);
    if (v)
        backend_decode(b->net->be, &w, 0, v);
    return v;
}

static void bind_ffn(struct binder *b, enum role gate, uint32_t expert, uint32_t d_ff, struct ffn *f)
{
    uint32_t d = b->net->hp.d_model;
    bind_matrix(b, gate, expert, d_ff, d, false, &f->gate);
    bind_matrix(b, gate + 1, expert, d_ff, d, false, &f->up);
    bind_matrix(b, gate + 2, expert, d, d_ff, false, &f->down);
}

static void place_matrix(struct binder *b, enum role role, uint32_t expert, uint32_t n_out, uint32_t n_in, struct weight *w,
    struct place *place)
{
    if (!b->rc)
        b->rc = ckpt_places(b->ckpt, role, b->layer, expert, n_out, n_in, false, w, place, b->err);
}

/* An expert's shape, and where its parts lie: gate, up, down, each data, scales, zero points. */
static void place_expert(struct binder *b, uint32_t e, struct ffn *f)
{
    const struct hparams *hp = &b->net->hp;
    struct place *p = b->blocks[b->n_block++].part;
    place_matrix(b, ROLE_EXP_GATE, e, hp->d_ff_exp, hp->d_model, &f->gate, p);
    place_matrix(b, ROLE_EXP_UP, e, hp->d_ff_exp, hp->d_model, &f->up, p + PLACE_COUNT);
    place_matrix(b, ROLE_EXP_DOWN, e, hp->d_model, hp->d_ff_exp, &f->down, p + 2 * PLACE_COUNT);
}

static void bind_attention(struct binder *b, struct net_layer *l)
{
    const struct hparams *hp = &b->net->hp;
    uint32_t d = hp->d_model, n_q = hp->n_head * hp->d_head, n_kv = hp->n_head_kv * hp->d_head;

    l->attn_norm = bind_vector(b, ROLE_ATTN_NORM, d, false);
    bind_matrix(b, ROLE_Q, 0, n_q, d, false, &l->q);
    bind_matrix(b, ROLE_K, 0, n_kv, d, false, &l->k);
    bind_matrix(b, ROLE_V, 0, n_kv, d, false, &l->v);
    bind_matrix(b, ROLE_O, 0, d, n_q, false, &l->o);
    if (hp->qkv_bias) {
        l->q_bias = bind_vector(b, ROLE_Q_BIAS, n_q, false);
        l->k_bias = bind_vector(b, ROLE_K_BIAS, n_kv, false);
        l->v_bias = bind_vector(b, ROLE_V_BIAS, n_kv, false);
    }
    if (hp->qk_norm) {
        l->q_norm = bind_vector(b, ROLE_Q_NORM, hp->d_head, false);
        l->k_norm = bind_vector(b, ROLE_K_NORM, hp->d_head, false);
    }
}

static void bind_moe(struct binder *b, struct net_layer *l)
{
    const struct hparams *hp = &b->net->hp;

    bind_matrix(b, ROLE_ROUTER, 0, hp->n_expert, hp->d_model, false, &l->router);
    l->router_bias = bind_vector(b, ROLE_ROUTER_BIAS, hp->n_expert, true);
    if (!l->router_bias && (l->router_bias = bind_alloc(b, hp->n_expert, sizeof(float))))
        for (uint32_t e = 0; e < hp->n_expert; e++)
            l->router_bias[e] = 0.0f;
    l->experts = bind_alloc(b, hp->n_expert, sizeof *l->experts);
    l->first_block = b->n_block;
    for (uint32_t e = 0; !b->rc && e < hp->n_expert; e++)
        if (b->blocks)
            place_expert(b, e, &l->experts[e]);
        else
            bind_ffn(b, ROLE_EXP_GATE, e, hp->d_ff_exp, &l->experts[e]);
    l->has_shared = hp->n_expert_shared > 0;
    if (l->has_shared)
        bind_ffn(b, ROLE_SHARED_GATE, 0, hp->d_ff_exp * hp->n_expert_shared, &l->shared);
}

static enum act_form greater(enum act_form a, enum act_form b) { return a > b ? a : b; }

static enum act_form ffn_form(const struct backend *be, const struct ffn *f)
{
    enum act_form gate = backend_form(be, &f->gate), up = backend_form(be, &f->up);
    return gate == up ? gate : ACT_F32;
}

/* The greatest of the forms that an activation's readers want. */
static void plan_forms(const struct net *n, struct net_layer *l)
{
    const struct backend *be = n->be;
    l->attn_form = greater(backend_form(be, &l->q), backend_form(be, &l->k));
    l->v_fine = backend_wants_q8(be, &l->v);
    if (!l->v_fine)
        l->attn_form = greater(l->attn_form, backend_form(be, &l->v));
    l->o_form = backend_form(be, &l->o);
    l->ffn_form = l->down_form = ACT_F32;
    if (!l->moe || l->has_shared) {
        const struct ffn *f = l->moe ? &l->shared : &l->dense;
        l->ffn_form = ffn_form(be, f);
        l->down_form = backend_form(be, &f->down);
    }
    if (!l->moe && l->ffn_form == ACT_BF16)
        l->ffn_form = ACT_F32; /* the first layers: what is lost there goes through all others. A fifth of the error of the
                                  logits, for one matrix pair of a few dozen layers */
    for (uint32_t e = 0; l->moe && e < n->hp.n_expert; e++) {
        l->ffn_form = greater(l->ffn_form, ffn_form(be, &l->experts[e]));
        l->down_form = greater(l->down_form, backend_form(be, &l->experts[e].down));
    }
}

static void bind_layer(struct binder *b, uint32_t i, struct net_layer *l)
{
    const struct hparams *hp = &b->net->hp;

    b->layer = i;
    *l = (struct net_layer){ 0 };
    l->moe = i >= hp->n_layer_dense; /* the MTP layer too */
    bind_attention(b, l);
    l->ffn_norm = bind_vector(b, ROLE_FFN_NORM, hp->d_model, false);
    if (l->moe)
        bind_moe(b, l);
    else
        bind_ffn(b, ROLE_GATE, 0, hp->d_ff, &l->dense);
    if (!b->rc)
        plan_forms(b->net, l);
}

static void bind_mtp(struct binder *b)
{
    struct net *n = b->net;
    uint32_t d = n->hp.d_model;

    b->layer = n->hp.n_layer;
    n->mtp_enorm = bind_vector(b, ROLE_MTP_ENORM, d, false);
    n->mtp_hnorm = bind_vector(b, ROLE_MTP_HNORM, d, false);
    n->mtp_norm = bind_vector(b, ROLE_MTP_NORM, d, true);
    if (!n->mtp_norm)
        n->mtp_norm = n->norm;
    bind_matrix(b, ROLE_MTP_PROJ, 0, d, 2 * d, false, &n->mtp_proj);
    bind_matrix(b, ROLE_MTP_EMBED, 0, n->hp.n_vocab, d, true, &n->mtp_embed);
    bind_matrix(b, ROLE_MTP_HEAD, 0, n->hp.n_vocab, d, true, &n->mtp_head);
    if (n->mtp_embed.format == W_NONE)
        n->mtp_embed = n->embed;
    if (n->mtp_head.format == W_NONE)
        n->mtp_head = n->head;
}

static void bind_all(struct binder *b)
{
    struct net *n = b->net;
    const struct hparams *hp = &n->hp;

    bind_matrix(b, ROLE_EMBED, 0, hp->n_vocab, hp->d_model, false, &n->embed);
    bind_matrix(b, ROLE_HEAD, 0, hp->n_vocab, hp->d_model, false, &n->head);
    n->norm = bind_vector(b, ROLE_NORM, hp->d_model, false);
    n->layers = bind_alloc(b, hp->n_layer + hp->n_nextn, sizeof *n->layers);
    for (uint32_t i = 0; !b->rc && i < hp->n_layer + hp->n_nextn; i++)
        bind_layer(b, i, &n->layers[i]);
    if (hp->n_nextn)
        bind_mtp(b);
    n->rope_freq = bind_alloc(b, hp->n_rot / 2 + 1, sizeof *n->rope_freq);
    for (uint32_t i = 0; n->rope_freq && i < hp->n_rot / 2; i++)
        n->rope_freq[i] = pow(hp->rope_theta, -2.0 * i / hp->n_rot);
}

static uint32_t max_u32(uint32_t a, uint32_t b) { return a > b ? a : b; }

/* The widest row that a matrix multiply reads. */
static uint32_t n_in_max(const struct hparams *hp)
{
    uint32_t n = max_u32(2 * hp->d_model, hp->n_head * hp->d_head);
    return max_u32(n, max_u32(hp->d_ff, hp->d_ff_exp * max_u32(1, hp->n_expert_shared)));
}

static bool warm(void *user, uint32_t i) { return ckpt_will_need(user, i); }

static int32_t open_cache(struct net *n, const struct binder *b, uint64_t bytes, glm_error *err)
{
    struct cache_options co = { .blocks = b->blocks, .n_block = b->n_block, .n_file = ckpt_n_file(n->ckpt), .bytes = bytes,
        .least = 2 * n->hp.n_expert_used, .warm = warm, .warm_user = n->ckpt };
    struct cache_file *files = mem_array(n->mem, co.n_file, sizeof *files);
    int32_t rc;

    if (!files)
        return err_nomem(err, "the cache of experts");
    for (uint32_t i = 0; i < co.n_file; i++)
        files[i].file = ckpt_file(n->ckpt, i, &files[i].name);
    co.files = files;
    co.fs = files[0].file->fs;
    rc = cache_open(n->mem, &co, &n->cache, err);
    mem_free(n->mem, files);
    return rc;
}

/* Layers with the cache's blocks for their experts, then the cache. */
static int32_t bind_cached(struct binder *b, uint64_t bytes)
{
    struct net *n = b->net;
    size_t n_block = (size_t)n->n_moe * n->hp.n_expert;

    if (bytes && n_block) {
        b->blocks = mem_zarray(n->mem, n_block, sizeof *b->blocks);
        if (!b->blocks)
            return err_nomem(b->err, "the cache of experts");
    }
    bind_all(b);
    if (!b->rc && b->blocks)
        b->rc = open_cache(n, b, bytes, b->err);
    mem_free(n->mem, b->blocks);
    return b->rc;
}

int32_t net_open(struct mem *m, struct ckpt *c, const struct backend_options *opt, struct net **out, glm_error *err)
{
    return net_open_cached(m, c, opt, 0, out, err);
}

int32_t net_open_cached(struct mem *m, struct ckpt *c, const struct backend_options *opt, uint64_t expert_cache_bytes,
    struct net **out, glm_error *err)
{
    struct net *n = mem_zalloc(m, sizeof *n);
    struct backend_options bo = *opt;
    struct binder b = { .net = n, .ckpt = c, .err = err };

    *out = NULL;
    if (!n)
        return err_nomem(err, "the model");
    n->mem = m;
    n->ckpt = c;
    n->hp = *ckpt_hparams(c);
    n->n_moe = n->hp.n_layer - n->hp.n_layer_dense + n->hp.n_nextn;
    arena_init(&n->arena, m);
    bo.scratch_bytes = backend_scratch_bytes(n_in_max(&n->hp), n->hp.d_head, n->hp.n_head / n->hp.n_head_kv);
    b.rc = backend_open(m, &bo, &n->be, err);
    if (!b.rc)
        b.rc = bind_cached(&b, expert_cache_bytes);
    if (b.rc) {
        net_close(n);
        return b.rc;
    }
    *out = n;
    return GLM_OK;
}

int32_t net_expert_bytes(struct ckpt *c, uint64_t *bytes, glm_error *err)
{
    struct net n = { .hp = *ckpt_hparams(c) };
    struct block block;
    struct binder b = { .net = &n, .ckpt = c, .err = err, .blocks = &block };
    struct ffn f;

    *bytes = 0;
    for (b.layer = n.hp.n_layer_dense; b.layer < n.hp.n_layer + n.hp.n_nextn; b.layer++)
        for (uint32_t e = 0; e < n.hp.n_expert && !b.rc; e++) {
            b.n_block = 0;
            place_expert(&b, e, &f);
            *bytes += b.rc ? 0 : cache_block_bytes(&block);
        }
    return b.rc;
}

void net_close(struct net *n)
{
    if (!n)
        return;
    cache_close(n->cache);
    backend_close(n->be);
    arena_free(&n->arena);
    mem_free(n->mem, n);
}

uint32_t net_n_layer(const struct net *n) { return n->hp.n_layer + n->hp.n_nextn; }

struct kv_shape net_kv_shape(const struct net *n)
{
    return (struct kv_shape){ net_n_layer(n), n->hp.n_head_kv, n->hp.d_head };
}
