/* ckpt_walk.h: for tests: asks a checkpoint for every weight that a model of its hyper-parameters
 * needs.
 */
#ifndef TEST_CKPT_WALK_H
#define TEST_CKPT_WALK_H

#include "lib/io/io.h"

#include <check.h>

struct walk {
    struct ckpt *c;
    glm_error *err;
    void (*each)(void *user, enum role role, const struct weight *w); /* may be NULL */
    void *user;
};

/* The view's first and last byte are read, so that a sanitizer sees a view that is too long. */
static int32_t one(const struct walk *k, enum role role, uint32_t layer, uint32_t expert,
    uint64_t n_out, uint64_t n_in, bool optional)
{
    struct weight w = {0};
    int32_t status = ckpt_weight(
        k->c, role, layer, expert, (uint32_t)n_out, (uint32_t)n_in, optional, &w, k->err);
    if (status != GLM_OK || w.format == W_NONE)
        return status;
    if (w.n_out != n_out ||
        w.n_in != n_in) /* ck_assert writes to a file each time, and there are many weights */
        ck_abort_msg("role %u: shape", role);
    struct weight_block b = weight_block(w.format);
    volatile const uint8_t *p = w.data;
    if (b.n != 0) {
        if (w.row_bytes != n_in / b.n * b.bytes)
            ck_abort_msg("role %u: row bytes", role);
        (void)p[0], (void)p[n_out * w.row_bytes - 1];
    }
    if (k->each != NULL)
        k->each(k->user, role, &w);
    return GLM_OK;
}

static int32_t layer_weights(const struct walk *c, const struct hparams *hp, uint32_t l)
{
    uint64_t q = (uint64_t)hp->n_head * hp->d_head, kv = (uint64_t)hp->n_head_kv * hp->d_head,
             d = hp->d_model;
    uint64_t shared = (uint64_t)hp->d_ff_exp * hp->n_expert_shared;
    int32_t s = one(c, ROLE_ATTN_NORM, l, 0, 1, d, false);
    s = s ? s : one(c, ROLE_FFN_NORM, l, 0, 1, d, false);
    s = s ? s : one(c, ROLE_Q, l, 0, q, d, false);
    s = s ? s : one(c, ROLE_K, l, 0, kv, d, false);
    s = s ? s : one(c, ROLE_V, l, 0, kv, d, false);
    s = s ? s : one(c, ROLE_O, l, 0, d, q, false);
    s = s ? s : one(c, ROLE_Q_BIAS, l, 0, 1, q, !hp->qkv_bias);
    s = s ? s : one(c, ROLE_K_BIAS, l, 0, 1, kv, !hp->qkv_bias);
    s = s ? s : one(c, ROLE_V_BIAS, l, 0, 1, kv, !hp->qkv_bias);
    s = s ? s : one(c, ROLE_Q_NORM, l, 0, 1, hp->d_head, !hp->qk_norm);
    s = s ? s : one(c, ROLE_K_NORM, l, 0, 1, hp->d_head, !hp->qk_norm);
    if (l < hp->n_layer_dense) {
        s = s ? s : one(c, ROLE_GATE, l, 0, hp->d_ff, d, false);
        s = s ? s : one(c, ROLE_UP, l, 0, hp->d_ff, d, false);
        return s ? s : one(c, ROLE_DOWN, l, 0, d, hp->d_ff, false);
    }
    s = s ? s : one(c, ROLE_ROUTER, l, 0, hp->n_expert, d, false);
    s = s ? s : one(c, ROLE_ROUTER_BIAS, l, 0, 1, hp->n_expert, false);
    for (uint32_t e = 0; e < hp->n_expert && s == GLM_OK; e++) {
        s = one(c, ROLE_EXP_GATE, l, e, hp->d_ff_exp, d, false);
        s = s ? s : one(c, ROLE_EXP_UP, l, e, hp->d_ff_exp, d, false);
        s = s ? s : one(c, ROLE_EXP_DOWN, l, e, d, hp->d_ff_exp, false);
    }
    s = s ? s : one(c, ROLE_SHARED_GATE, l, 0, shared, d, false);
    s = s ? s : one(c, ROLE_SHARED_UP, l, 0, shared, d, false);
    return s ? s : one(c, ROLE_SHARED_DOWN, l, 0, d, shared, false);
}

static int32_t walk_weights(const struct walk *c)
{
    const struct hparams *hp = ckpt_hparams(c->c);
    uint64_t d = hp->d_model, v = hp->n_vocab;
    uint32_t l = hp->n_layer;
    int32_t s = one(c, ROLE_EMBED, 0, 0, v, d, false);
    s = s ? s : one(c, ROLE_HEAD, 0, 0, v, d, false);
    s = s ? s : one(c, ROLE_NORM, 0, 0, 1, d, false);
    for (uint32_t i = 0; i < hp->n_layer + hp->n_nextn && s == GLM_OK; i++)
        s = layer_weights(c, hp, i);
    if (hp->n_nextn == 0 || s != GLM_OK)
        return s;
    s = one(c, ROLE_MTP_ENORM, l, 0, 1, d, false);
    s = s ? s : one(c, ROLE_MTP_HNORM, l, 0, 1, d, false);
    s = s ? s : one(c, ROLE_MTP_PROJ, l, 0, d, 2 * d, false);
    s = s ? s : one(c, ROLE_MTP_EMBED, l, 0, v, d, true);
    s = s ? s : one(c, ROLE_MTP_HEAD, l, 0, v, d, true);
    return s ? s : one(c, ROLE_MTP_NORM, l, 0, 1, d, false);
}

static inline int32_t all_weights(struct ckpt *c, glm_error *err)
{
    const struct walk k = {.c = c, .err = err};
    return walk_weights(&k);
}

#endif
