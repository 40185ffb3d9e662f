/* model.c: the object that glm_model_open makes: hooks, checkpoint, tokenizer, layers. It is counted: the host's
 * handle and every session hold one reference. */
#include "engine_int.h"

#include <string.h>

static void model_free(glm_model *m)
{
    struct mem mem = m->mem; /* outlives the object that holds it */
    batch_free(m);
    monitor_close(m->lock);
    mem_free(&mem, m->plain_mask);
    con_vocab_close(m->con);
    net_close(m->net);
    tok_close(m->tok);
    ckpt_close(m->ckpt);
    mem_free(&mem, m);
}

void engine_release(glm_model *m)
{
    if (m && atomic_fetch_sub(&m->refs, 1) == 1)
        model_free(m);
}

bool engine_forked(const glm_model *m) { return m->pid != os_pid(); }

static void set_hooks(glm_model *m, const glm_model_options *opt)
{
    mem_init(&m->mem, opt->allocator);
    fs_init(&m->fs, opt->files);
    if (opt->logger)
        m->log = *opt->logger;
    m->pid = os_pid();
    atomic_init(&m->refs, 1);
    m->kv_cap = opt->kv_bytes;
}

static void set_family(glm_model *m, uint32_t asked)
{
    size_t size = 0;
    const char *text = ckpt_template(m->ckpt, &size);
    bool known = true;

    m->family = CHAT_45;
    if (text)
        m->family = chat_detect(text, size, &known);
    if (!known)
        log_put(&m->log, LOG_WARN, "%s: the chat template is not one of the family's; treated as GLM-4.5's",
            ckpt_path(m->ckpt));
    if (asked != GLM_TEMPLATE_AUTO)
        m->family = (enum chat_family)asked;
}

static int32_t open_tokenizer(glm_model *m, glm_error *err)
{
    const struct hparams *hp = ckpt_hparams(m->ckpt);
    struct vocab_source src = ckpt_vocab(m->ckpt);
    uint32_t n;

    if (src.kind == VOCAB_NONE)
        return GLM_OK;
    int32_t rc = tok_open(&m->mem, &src, hp ? hp->n_vocab : 0, &m->tok, err);
    if (rc)
        return rc;
    n = hp ? hp->n_vocab : tok_n(m->tok);
    m->plain_mask = mem_zarray(&m->mem, ((size_t)n + 31) / 32, sizeof *m->plain_mask);
    if (!m->plain_mask)
        return err_nomem(err, "the token mask");
    for (uint32_t id = 0; id < n; id++) {
        size_t size = 0;
        if (!tok_is_added(m->tok, (int32_t)id) && tok_bytes(m->tok, (int32_t)id, &size) && size)
            m->plain_mask[id / 32] |= 1u << id % 32;
    }
    return GLM_OK;
}

static void fill_info(glm_model *m)
{
    const struct hparams *hp = ckpt_hparams(m->ckpt);
    glm_model_info *info = &m->info;

    info->struct_size = sizeof *info;
    info->template_family = m->family;
    info->n_vocab = m->tok ? tok_n(m->tok) : 0;
    ckpt_fingerprint(m->ckpt, info->fingerprint);
    info->weight_bytes = ckpt_weight_bytes(m->ckpt);
    if (!hp)
        return;
    info->n_layer = hp->n_layer;
    info->n_vocab = hp->n_vocab;
    info->n_ctx_train = hp->n_ctx_train;
    info->d_model = hp->d_model;
    info->n_expert = hp->n_expert;
    info->n_expert_used = hp->n_expert_used;
    info->n_nextn = hp->n_nextn;
    info->batch_max = BATCH_MAX;
    if (m->net) {
        struct kv_shape shape = net_kv_shape(m->net);
        info->kv_bytes_per_token = kv_page_bytes(&shape, kv_auto(hp)) / KV_PAGE_ROWS;
    }
}

static int32_t check_options(const glm_model_options *opt, glm_error *err)
{
    if (opt->device != GLM_DEVICE_CPU)
        return err_set(err, GLM_EDEVICE, opt->device, "device", "this build computes on the CPU only");
    if (opt->repack)
        return err_set(err, GLM_ENOTSUP, 0, "repack", "not in this version");
    return GLM_OK;
}

static int32_t open_parts(glm_model *m, const char *path, const glm_model_options *opt, glm_error *err)
{
    struct ckpt_options co = { .weights = opt->weights, .by_tensor = opt->expert_cache_bytes != 0, .fs = &m->fs, .log = &m->log };
    struct backend_options bo = { .n_threads = opt->n_threads, .runner = opt->runner, .cpu_mask = UINT32_MAX };
    int32_t rc;

    co.progress = opt->progress;
    co.progress_user = opt->progress_user;
    bo.float_activations = opt->activations == GLM_ACTIVATIONS_F32;
    rc = ckpt_open(&m->mem, path, &co, &m->ckpt, err);
    if (rc)
        return rc;
    set_family(m, opt->template_family);
    rc = open_tokenizer(m, err);
    if (!rc && opt->weights != GLM_WEIGHTS_NONE)
        rc = net_open_cached(&m->mem, m->ckpt, &bo, opt->expert_cache_bytes, &m->net, err);
    if (!rc)
        fill_info(m);
    return rc;
}

int32_t engine_open(const char *path, const glm_model_options *opt, glm_model **out, glm_error *err)
{
    struct mem boot;
    glm_model *m;
    int32_t rc = check_options(opt, err);

    *out = NULL;
    if (rc)
        return rc;
    mem_init(&boot, opt->allocator);
    m = mem_zalloc(&boot, sizeof *m);
    if (!m)
        return err_nomem(err, "a model");
    set_hooks(m, opt);
    rc = monitor_open(&m->mem, &m->lock, err);
    if (!rc)
        rc = open_parts(m, path, opt, err);
    if (rc) {
        model_free(m);
        return rc;
    }
    *out = m;
    return GLM_OK;
}

void engine_describe(const glm_model *m, glm_model_info *out) { *out = m->info; }

/* ---- what a model will need --------------------------------------------------------------------------- */

/* Vocabulary tables, hashes and names: measured 25 to 45 MB for the family's 151,552 tokens. */
#define BYTES_PER_TOKEN 300u
#define BYTES_PER_TENSOR 300u

int32_t engine_estimate(const char *path, const glm_model_options *opt, const glm_session_options *sopt,
    uint32_t n_sessions, glm_estimate *out, glm_error *err)
{
    struct mem mem;
    struct fs fs;
    struct ckpt *c = NULL;
    struct ckpt_options co = { .weights = GLM_WEIGHTS_MAP, .by_tensor = true, .fs = &fs };
    const struct hparams *hp;
    uint64_t experts = 0, cache;
    int32_t rc;

    mem_init(&mem, opt->allocator);
    fs_init(&fs, opt->files);
    rc = ckpt_open(&mem, path, &co, &c, err);
    if (rc)
        return rc;
    hp = ckpt_hparams(c);
    if (!hp) {
        ckpt_close(c);
        return err_set(err, GLM_EFORMAT, 0, path, "there is a tokenizer but no model here");
    }
    if (opt->expert_cache_bytes && (rc = net_expert_bytes(c, &experts, err)) != 0) {
        ckpt_close(c);
        return rc;
    }
    cache = experts < opt->expert_cache_bytes ? experts : opt->expert_cache_bytes;
    struct kv_shape shape = { hp->n_layer + hp->n_nextn, hp->n_head_kv, hp->d_head };
    uint32_t n_ctx = sopt->n_ctx ? sopt->n_ctx : hp->n_ctx_train;
    uint32_t type = sopt->kv_type == GLM_KV_AUTO ? kv_auto(hp) : sopt->kv_type;
    uint64_t session = pass_bytes(hp, n_ctx < PREFILL_ROWS ? n_ctx : PREFILL_ROWS, 2, n_ctx) +
        (hp->n_nextn ? (uint64_t)PREFILL_ROWS * hp->d_model * sizeof(float) : 0); /* states for the MTP layer */
    bool read = opt->weights == GLM_WEIGHTS_READ;

    uint64_t bytes = ckpt_weight_bytes(c);
    bytes -= experts < bytes ? experts : bytes; /* those in a cache */
    out->mapped_bytes = read ? 0 : bytes;
    out->kv_bytes = ((uint64_t)n_ctx + KV_PAGE_ROWS - 1) / KV_PAGE_ROWS * kv_page_bytes(&shape, type) * n_sessions;
    out->private_bytes = session * n_sessions + (uint64_t)hp->n_vocab * BYTES_PER_TOKEN +
        ckpt_n_tensor(c) * BYTES_PER_TENSOR + (read ? bytes : 0) + cache;
    out->device_bytes = 0;
    ckpt_close(c);
    return GLM_OK;
}

/* ---- text and ids --------------------------------------------------------------------------------------- */

int32_t engine_tokenize(const glm_model *m, const char *text, size_t size, uint32_t flags, int32_t *ids, size_t capacity,
    size_t *n, glm_error *err)
{
    struct mem mem = { .hook = m->mem.hook }; /* counts for itself: the model is shared and const */
    struct ids out;
    int32_t rc;

    if (!m->tok)
        return err_set(err, GLM_ENOTSUP, 0, NULL, "the checkpoint has no tokenizer");
    ids_init(&out, &mem);
    rc = tok_encode(m->tok, text, size, flags & GLM_TOKENIZE_SPECIALS ? TOK_SPECIALS : 0, &out, err);
    if (!rc) {
        *n = out.n;
        if (capacity >= out.n && out.n)
            memcpy(ids, out.id, out.n * sizeof *ids);
        else if (out.n)
            rc = err_set(err, GLM_ELIMIT, out.n, "capacity", "the text has %zu tokens, there is room for %zu", out.n, capacity);
    }
    ids_free(&out);
    return rc;
}

int32_t engine_detokenize(const glm_model *m, const int32_t *ids, size_t n, char *text, size_t capacity, size_t *size,
    glm_error *err)
{
    struct mem mem = { .hook = m->mem.hook };
    struct tok_decoder d = { .n_held = 0 };
    struct buf out;
    int32_t rc = GLM_OK;

    if (!m->tok)
        return err_set(err, GLM_ENOTSUP, 0, NULL, "the checkpoint has no tokenizer");
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || (uint32_t)ids[i] >= m->info.n_vocab)
            return err_set(err, GLM_EINVAL, i, "ids", "token id %d is outside the vocabulary of %u", ids[i], m->info.n_vocab);
    buf_init(&out, &mem);
    for (size_t i = 0; i < n; i++)
        tok_decode(m->tok, &d, ids[i], &out);
    tok_decode_end(&d, &out);
    if (out.failed) {
        rc = err_nomem(err, "the text");
    } else {
        *size = out.size;
        if (capacity > out.size) {
            if (out.size)
                memcpy(text, out.data, out.size);
            text[out.size] = '\0';
        } else {
            rc = err_set(err, GLM_ELIMIT, out.size, "capacity", "the text has %zu bytes and a NUL, there is room for %zu",
                out.size, capacity);
        }
    }
    buf_free(&out);
    return rc;
}
