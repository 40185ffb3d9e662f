/* model_bytes.c: see model_bytes.h. Opens the checkpoint for its headers; no weight is touched or mapped. */
#include "model_bytes.h"

#include "../lib/io/io.h"

struct sum {
    struct ckpt *ckpt;
    uint64_t bytes;
    int32_t rc;
    glm_error *err;
};

/* Bytes of a matrix with its scales and zero points. */
static uint64_t bytes_of(struct sum *s, enum role role, uint32_t layer, uint32_t expert, uint32_t n_out, uint32_t n_in,
    bool optional)
{
    struct place p[PLACE_COUNT];
    struct weight w;
    if (!s->rc)
        s->rc = ckpt_places(s->ckpt, role, layer, expert, n_out, n_in, optional, &w, p, s->err);
    return s->rc ? 0 : p[PLACE_DATA].bytes + p[PLACE_SCALE].bytes + p[PLACE_ZERO].bytes;
}

static void add(struct sum *s, enum role role, uint32_t layer, uint32_t expert, uint32_t n_out, uint32_t n_in,
    bool optional)
{
    s->bytes += bytes_of(s, role, layer, expert, n_out, n_in, optional);
}

static void add_attention(struct sum *s, const struct hparams *hp, uint32_t l)
{
    uint32_t q = hp->n_head * hp->d_head, kv = hp->n_head_kv * hp->d_head;
    add(s, ROLE_ATTN_NORM, l, 0, 1, hp->d_model, false);
    add(s, ROLE_Q, l, 0, q, hp->d_model, false);
    add(s, ROLE_K, l, 0, kv, hp->d_model, false);
    add(s, ROLE_V, l, 0, kv, hp->d_model, false);
    add(s, ROLE_O, l, 0, hp->d_model, q, false);
    if (hp->qkv_bias) {
        add(s, ROLE_Q_BIAS, l, 0, 1, q, true);
        add(s, ROLE_K_BIAS, l, 0, 1, kv, true);
        add(s, ROLE_V_BIAS, l, 0, 1, kv, true);
    }
    if (hp->qk_norm) {
        add(s, ROLE_Q_NORM, l, 0, 1, hp->d_head, true);
        add(s, ROLE_K_NORM, l, 0, 1, hp->d_head, true);
    }
    add(s, ROLE_FFN_NORM, l, 0, 1, hp->d_model, false);
}

static void add_ffn(struct sum *s, const struct hparams *hp, uint32_t l, enum role gate, uint32_t e, uint32_t d_ff)
{
    add(s, gate, l, e, d_ff, hp->d_model, false);
    add(s, gate + 1, l, e, d_ff, hp->d_model, false);
    add(s, gate + 2, l, e, hp->d_model, d_ff, false);
}

static uint64_t experts_of(struct sum *s, const struct hparams *hp, uint32_t l)
{
    uint64_t before = s->bytes, bytes;
    for (uint32_t e = 0; e < hp->n_expert && !s->rc; e++)
        add_ffn(s, hp, l, ROLE_EXP_GATE, e, hp->d_ff_exp);
    bytes = s->bytes - before;
    s->bytes = before;
    return bytes;
}

/* A layer but for its experts into s->bytes; *experts: all of them. */
static void add_layer(struct sum *s, const struct hparams *hp, uint32_t l, uint64_t *experts)
{
    *experts = 0;
    add_attention(s, hp, l);
    if (l < hp->n_layer_dense) {
        add_ffn(s, hp, l, ROLE_GATE, 0, hp->d_ff);
        return;
    }
    add(s, ROLE_ROUTER, l, 0, hp->n_expert, hp->d_model, false);
    add(s, ROLE_ROUTER_BIAS, l, 0, 1, hp->n_expert, true);
    if (hp->n_expert_shared)
        add_ffn(s, hp, l, ROLE_SHARED_GATE, 0, hp->d_ff_exp * hp->n_expert_shared);
    *experts = experts_of(s, hp, l);
}

/* *head: the head's, which a draft reads, too. */
static void add_ends(struct sum *s, const struct hparams *hp, uint64_t *head)
{
    add(s, ROLE_NORM, 0, 0, 1, hp->d_model, false);
    *head = s->bytes;
    add(s, ROLE_HEAD, 0, 0, hp->n_vocab, hp->d_model, false);
    *head = s->bytes - *head;
    s->bytes += bytes_of(s, ROLE_EMBED, 0, 0, hp->n_vocab, hp->d_model, false) / hp->n_vocab;
}

static int32_t count(struct ckpt *c, struct model_bytes *out, glm_error *err)
{
    const struct hparams *hp = ckpt_hparams(c);
    struct sum s = { .ckpt = c, .err = err };
    uint64_t experts, head = 0;

    if (!hp)
        return err_set(err, GLM_EFORMAT, 0, ckpt_path(c), "there is a tokenizer but no model here");
    *out = (struct model_bytes){ .kv_position = 2ull * hp->n_layer * hp->n_head_kv * hp->d_head };
    for (uint32_t l = 0; l < hp->n_layer && !s.rc; l++) {
        add_layer(&s, hp, l, &experts);
        out->experts_all += experts;
        out->experts += hp->n_expert ? experts * hp->n_expert_used / hp->n_expert : 0;
    }
    add_ends(&s, hp, &head);
    out->dense = s.bytes;
    if (hp->n_nextn && !s.rc) {
        s.bytes = 0;
        add_layer(&s, hp, hp->n_layer, &experts);
        add(&s, ROLE_MTP_PROJ, hp->n_layer, 0, hp->d_model, 2 * hp->d_model, false);
        out->mtp = s.bytes + experts;
        out->draft = s.bytes + head;
        out->draft_experts = hp->n_expert ? experts * hp->n_expert_used / hp->n_expert : 0;
    }
    return s.rc;
}

int32_t model_bytes_read(const char *path, struct model_bytes *out, glm_error *err)
{
    struct mem mem;
    struct fs fs;
    struct ckpt_options how = { .weights = GLM_WEIGHTS_MAP, .by_tensor = true, .fs = &fs };
    struct ckpt *c = NULL;
    int32_t rc;

    mem_init(&mem, NULL);
    fs_init(&fs, NULL);
    rc = ckpt_open(&mem, path, &how, &c, err);
    if (!rc)
        rc = count(c, out, err);
    ckpt_close(c);
    return rc;
}
