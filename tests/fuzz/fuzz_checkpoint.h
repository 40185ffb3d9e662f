/* fuzz_checkpoint.h: opens a checkpoint from files in memory and takes everything out of it that the engine would: its
 * description, every weight by role, its tokenizer. A view must lie within the file that it came from. */
#ifndef GLM_TESTS_FUZZ_CHECKPOINT_H
#define GLM_TESTS_FUZZ_CHECKPOINT_H

#include "fuzz.h"

#include "lib/io/io.h"
#include "lib/text/text.h"

static inline void fuzz_view(const struct fuzz_files *f, const void *data, uint64_t bytes)
{
    uintptr_t at = (uintptr_t)data;
    for (size_t i = 0; i < f->n; i++) {
        uintptr_t from = (uintptr_t)f->file[i].bytes;
        if (at >= from && at - from <= f->file[i].size && bytes <= f->file[i].size - (at - from))
            return;
    }
    FUZZ_CHECK(!"a view lies outside of the files");
}

/* Everything that a view points at. */
static inline void fuzz_weight(const struct fuzz_files *f, const struct weight *w)
{
    struct weight_block b = weight_block(w->format);
    uint64_t n_group = w->block_in ? ((uint64_t)w->n_in + w->block_in - 1) / w->block_in : 0;
    bool by_row = w->format == W_I4_PACKED;

    if (b.n != 0) {
        FUZZ_CHECK(w->row_bytes == (uint64_t)w->n_in / b.n * b.bytes);
        fuzz_view(f, w->data, w->row_bytes * w->n_out);
        if (w->format != W_F8)
            return;
        FUZZ_CHECK(w->block_out != 0 && w->block_in != 0);
        fuzz_view(f, w->scale, w->scale_row_bytes * (((uint64_t)w->n_out + w->block_out - 1) / w->block_out));
        return;
    }
    fuzz_view(f, w->data, w->row_bytes * (by_row ? w->n_out : w->format == W_I4_AWQ ? w->n_in : w->n_in / 8));
    FUZZ_CHECK(n_group != 0);
    fuzz_view(f, w->scale, w->scale_row_bytes * (by_row ? w->n_out : n_group));
    if (w->zero)
        fuzz_view(f, w->zero, w->zero_row_bytes * (by_row ? ((uint64_t)w->n_out + 7) / 8 : n_group));
    for (uint32_t i = 0; w->group && i < w->n_in; i++)
        FUZZ_CHECK(w->group[i] >= 0 && (uint64_t)w->group[i] < n_group);
}

/* All the roles, with the shapes that a model of these numbers asks for; errors are fine. */
static inline void fuzz_weights(const struct fuzz_files *f, struct ckpt *c, const struct hparams *hp)
{
    static const struct {
        uint8_t role, n_out, n_in;
    } shapes[] = {
        {ROLE_EMBED, 1, 2}, {ROLE_HEAD, 1, 2}, {ROLE_NORM, 0, 2}, {ROLE_ATTN_NORM, 0, 2}, {ROLE_Q, 3, 2},
        {ROLE_K, 4, 2}, {ROLE_V, 4, 2}, {ROLE_O, 2, 3}, {ROLE_Q_BIAS, 0, 3}, {ROLE_K_BIAS, 0, 4},
        {ROLE_V_BIAS, 0, 4}, {ROLE_Q_NORM, 0, 5}, {ROLE_K_NORM, 0, 5}, {ROLE_FFN_NORM, 0, 2}, {ROLE_GATE, 6, 2},
        {ROLE_UP, 6, 2}, {ROLE_DOWN, 2, 6}, {ROLE_ROUTER, 7, 2}, {ROLE_ROUTER_BIAS, 0, 7}, {ROLE_EXP_GATE, 8, 2},
        {ROLE_EXP_UP, 8, 2}, {ROLE_EXP_DOWN, 2, 8}, {ROLE_SHARED_GATE, 9, 2}, {ROLE_SHARED_UP, 9, 2},
        {ROLE_SHARED_DOWN, 2, 9}, {ROLE_MTP_ENORM, 0, 2}, {ROLE_MTP_HNORM, 0, 2}, {ROLE_MTP_PROJ, 2, 10},
        {ROLE_MTP_EMBED, 1, 2}, {ROLE_MTP_HEAD, 1, 2}, {ROLE_MTP_NORM, 0, 2}};
    const uint32_t size[] = {1, hp->n_vocab, hp->d_model, hp->n_head * hp->d_head, hp->n_head_kv * hp->d_head,
        hp->d_head, hp->d_ff, hp->n_expert, hp->d_ff_exp, hp->d_ff_exp * hp->n_expert_shared, 2 * hp->d_model};
    uint32_t n_layer = hp->n_layer + hp->n_nextn < 8 ? hp->n_layer + hp->n_nextn : 8;

    for (uint32_t layer = 0; layer < n_layer; layer++)
        for (size_t i = 0; i < ARRAY_LEN(shapes); i++)
            for (uint32_t expert = 0; expert < hp->n_expert; expert += 1 + hp->n_expert / 3) {
                struct weight w = {0};
                glm_error err = GLM_ERROR_INIT;
                uint32_t n_out = size[shapes[i].n_out], n_in = size[shapes[i].n_in];
                int32_t rc = ckpt_weight(c, (enum role)shapes[i].role, layer, expert, n_out, n_in, i % 2, &w, &err);
                if (rc) {
                    fuzz_check_error(rc, &err);
                    continue;
                }
                if (w.format == W_NONE)
                    continue;
                FUZZ_CHECK(w.n_out == n_out && w.n_in == n_in);
                fuzz_weight(f, &w);
            }
}

static inline void fuzz_tokenizer(struct mem *m, const struct vocab_source *src, uint32_t n_vocab)
{
    struct tok *t = NULL;
    struct ids ids;
    struct buf text;
    struct tok_decoder d = {{0}, 0};
    glm_error err = GLM_ERROR_INIT;
    static const char sample[] = "a tool's <|user|> \xe4\xbd\xa0\xe5\xa5\xbd 12345\n\n  \xf0\x9f\x98\x80<x>abc";
    int32_t rc = tok_open(m, src, n_vocab, &t, &err);

    if (rc) {
        fuzz_check_error(rc, &err);
        return;
    }
    ids_init(&ids, m);
    buf_init(&text, m);
    FUZZ_CHECK(tok_encode(t, sample, sizeof sample - 1, 0, &ids, &err) == GLM_OK);
    for (size_t i = 0; i < ids.n; i++) {
        FUZZ_CHECK(ids.id[i] >= 0 && (uint32_t)ids.id[i] < tok_n(t) && !tok_is_added(t, ids.id[i]));
        tok_decode(t, &d, ids.id[i], &text);
    }
    tok_decode_end(&d, &text);
    FUZZ_CHECK(text.size == sizeof sample - 1 && memcmp(text.data, sample, text.size) == 0);
    ids.n = 0;
    FUZZ_CHECK(tok_encode(t, sample, sizeof sample - 1, TOK_SPECIALS, &ids, &err) == GLM_OK);
    ids_free(&ids);
    buf_free(&text);
    tok_close(t);
}

static inline void fuzz_checkpoint(struct fuzz_files *f, const char *path, uint32_t weights)
{
    struct mem m;
    struct fs fs;
    struct ckpt *c = NULL;
    glm_error err = GLM_ERROR_INIT;
    struct ckpt_options opt = {.weights = weights, .fs = &fs};
    int32_t rc;

    mem_init(&m, NULL);
    fs_init(&fs, &f->hook);
    rc = ckpt_open(&m, path, &opt, &c, &err);
    if (rc == GLM_OK) {
        const struct hparams *hp = ckpt_hparams(c);
        struct vocab_source src = ckpt_vocab(c);
        uint8_t digest[32];
        struct tensor_entry e;
        for (size_t i = 0; i < ckpt_n_tensor(c); i++)
            ckpt_tensor(c, i, &e);
        ckpt_fingerprint(c, digest);
        if (hp && weights == GLM_WEIGHTS_MAP)
            fuzz_weights(f, c, hp);
        if (src.kind != VOCAB_NONE)
            fuzz_tokenizer(&m, &src, hp ? hp->n_vocab : 0);
    } else {
        FUZZ_CHECK(c == NULL);
        fuzz_check_error(rc, &err);
    }
    ckpt_close(c);
    FUZZ_CHECK(m.used == 0);
}

#endif
