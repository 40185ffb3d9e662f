/* gguf.c: opens a GGUF checkpoint: one file, or splits whose first holds the metadata. Fills the
 * checkpoint's hyper- parameters, tensor table, tokenizer source and defaults. Keeps the first
 * file's metadata, which the tokenizer's views point into, until the checkpoint is closed; the
 * other files' only while opening.
 */
#include "gguf_int.h"

#include <string.h>

#define ARCH "glm4moe"
#define SPLIT_TAIL 20u /* "-00001-of-00003.gguf" */

struct gguf_state {
    struct gguf_meta meta; /* of the first file */
};

struct loading {
    struct ckpt *c;
    struct gguf_meta *shards; /* [c->n_file]; the first is the state's */
    uint32_t n_shard;
};

static int32_t bad_key(
    const struct gguf_meta *g, int32_t code, const char *key, const char *why, glm_error *err)
{
    char place[GGUF_PLACE];
    const struct gguf_kv *kv = gguf_find(g, key);
    return err_set(err, code, kv ? kv->value : g->infos,
        gguf_place(g->name, key, strlen(key), place), "%s", why);
}

/* ---- files and splits ------------------------------------------------------------------------ */

static int32_t open_file(struct ckpt *c, uint32_t i, const char *path, glm_error *err)
{
    struct io_file *f = &c->files[i];
    f->name = path;
    int32_t status = fs_open(c->opt.fs, path, &f->file, err);
    if (status == GLM_OK)
        c->n_file = i + 1;
    return status;
}

static void put_5_digits(char *at, uint32_t v)
{
    for (int i = 4; i >= 0; i--, v /= 10)
        at[i] = (char)('0' + v % 10);
}

/* "NAME-0000i-of-0000n.gguf" from the first split's name; NULL: c->path is not such a name, or no
 * memory. */
static char *split_name(struct ckpt *c, uint32_t i, uint32_t n)
{
    char tail[SPLIT_TAIL + 1] = "-00001-of-00000.gguf";
    size_t size = strlen(c->path);
    put_5_digits(tail + 10, n);
    if (size <= SPLIT_TAIL || memcmp(c->path + size - SPLIT_TAIL, tail, SPLIT_TAIL) != 0)
        return NULL;
    char *name = arena_copy(&c->arena, c->path, size);
    if (name != NULL)
        put_5_digits(name + size - SPLIT_TAIL + 1, i + 1);
    return name;
}

/* Before anything else is looked for: only the first split has the other keys. */
static int32_t check_first(const struct gguf_meta *g, glm_error *err)
{
    uint32_t no = 0;
    int32_t status = gguf_u32(g, "split.no", false, &no, err);
    if (status == GLM_OK && no != 0)
        status = bad_key(g, GLM_EFORMAT, "split.no",
            "this is not the first split: give the path of the first, NAME-00001-of-COUNT.gguf",
            err);
    return status;
}

static int32_t check_split(const struct gguf_meta *g, uint32_t i, uint32_t n, glm_error *err)
{
    uint32_t no = 0, count = 0;
    int32_t status = gguf_u32(g, "split.no", true, &no, err);
    status = status ? status : gguf_u32(g, "split.count", true, &count, err);
    if (status == GLM_OK && (no != i || count != n))
        status = bad_key(g, GLM_EFORMAT, no != i ? "split.no" : "split.count",
            "this split does not belong at its place: its number or count is another than its "
            "name's",
            err);
    return status;
}

static int32_t open_shards(struct loading *l, uint32_t n, glm_error *err)
{
    struct ckpt *c = l->c;
    for (uint32_t i = 1; i < n; i++) {
        char *name = split_name(c, i, n);
        if (name == NULL)
            return err_nomem(err, "names of splits");
        int32_t status = open_file(c, i, name, err);
        if (status == GLM_EIO)
            return err_set(err, GLM_EIO, 0, name,
                "split %u of %u cannot be opened: all splits must lie in one folder", i + 1, n);
        status =
            status ? status
                   : gguf_meta_read(&l->shards[l->n_shard++], c->mem, &c->files[i].file, name, err);
        status = status ? status : check_split(&l->shards[i], i, n, err);
        if (status)
            return status;
    }
    return GLM_OK;
}

static int32_t read_tensors(struct loading *l, glm_error *err)
{
    struct ckpt *c = l->c;
    uint64_t n = 0;
    for (uint32_t i = 0; i < l->n_shard; i++)
        n += l->shards[i].n_tensor; /* each at most GGUF_TENSOR_MAX */
    if (n > GGUF_TENSOR_MAX)
        return err_set(err, GLM_EFORMAT, 0, c->path, "%llu tensors in all splits: they are damaged",
            (unsigned long long)n);
    c->tensors =
        arena_alloc(&c->arena, (size_t)(n + 1) * sizeof *c->tensors, _Alignof(struct io_tensor));
    if (c->tensors == NULL)
        return err_nomem(err, "the tensor table");
    for (uint32_t i = 0; i < l->n_shard; i++) {
        struct io_file *f = &c->files[i];
        int32_t status = gguf_meta_tensors(
            &l->shards[i], &c->arena, i, c->tensors + c->n_tensor, &f->data_offset, err);
        if (status)
            return status;
        f->data_size = f->file.size - f->data_offset;
        c->n_tensor += (size_t)l->shards[i].n_tensor;
    }
    return io_index(c, err);
}

/* Opens the other splits and reads all tensor tables. */
static int32_t load_tensors(struct ckpt *c, struct gguf_state *state, glm_error *err)
{
    struct loading l = {.c = c};
    struct io_file *files;
    uint32_t n = 1, total = 0;
    int32_t status = gguf_u32(&state->meta, "split.count", false, &n, err);
    status = status ? status : gguf_u32(&state->meta, "split.tensors.count", false, &total, err);
    if (status)
        return status;
    if (n == 0 || n > 65535)
        return bad_key(&state->meta, GLM_EFORMAT, "split.count", "must be 1 to 65535", err);
    if (n > 1 && split_name(c, 0, n) == NULL)
        return bad_key(&state->meta, GLM_EFORMAT, "split.count",
            "the file's name must be NAME-00001-of-COUNT.gguf, or its splits cannot be found", err);
    files = arena_alloc(&c->arena, n * sizeof *files, _Alignof(struct io_file));
    l.shards = mem_zarray(c->mem, n, sizeof *l.shards);
    if (files == NULL || l.shards == NULL) {
        status = err_nomem(err, "the table of splits");
        goto done;
    }
    memset(files, 0, n * sizeof *files);
    files[0] = c->files[0];
    c->files = files;
    state->meta.file = &files[0].file;
    l.shards[l.n_shard++] = state->meta;
    status = open_shards(&l, n, err);
    status = status ? status : read_tensors(&l, err);
    if (status == GLM_OK && total != 0 && total != c->n_tensor)
        status = bad_key(&state->meta, GLM_EFORMAT, "split.tensors.count",
            "the splits hold another number of tensors: they belong to different conversions", err);
    state->meta = l.shards[0]; /* reading may have moved its bytes */
done:
    for (uint32_t i = 1; i < l.n_shard; i++)
        gguf_meta_free(&l.shards[i]);
    mem_free(c->mem, l.shards);
    return status;
}

/* ---- hyper-parameters ------------------------------------------------------------------------ */

static int32_t check_architecture(const struct gguf_meta *g, glm_error *err)
{
    char place[GGUF_PLACE];
    const char *key = "general.architecture", *text = NULL;
    size_t size = 0;
    int32_t status = gguf_string(g, key, true, &text, &size, err);
    if (status)
        return status;
    if (size == strlen(ARCH) && memcmp(text, ARCH, size) == 0)
        return GLM_OK;
    size = utf8_valid_prefix(text, size < 64 ? size : 64);
    return err_set(err, GLM_ENOTSUP, gguf_find(g, key)->value,
        gguf_place(g->name, key, strlen(key), place),
        "architecture \"%.*s\" is not supported, only " ARCH " is", (int)size, text);
}

/* Keys whose other values would need other arithmetic. */
static int32_t check_variants(const struct gguf_meta *g, glm_error *err)
{
    uint32_t gating = 2;
    const char *scaling = "none", *kind = "model";
    size_t scaling_size = 4, kind_size = 5;
    int32_t status = gguf_u32(g, ARCH ".expert_gating_func", false, &gating, err);
    status = status
                 ? status
                 : gguf_string(g, ARCH ".rope.scaling.type", false, &scaling, &scaling_size, err);
    status = status ? status : gguf_string(g, "general.type", false, &kind, &kind_size, err);
    if (status)
        return status;
    if (gating != 2)
        return bad_key(
            g, GLM_ENOTSUP, ARCH ".expert_gating_func", "only 2 (sigmoid) is supported", err);
    if (scaling_size != 4 || memcmp(scaling, "none", 4) != 0)
        return bad_key(
            g, GLM_ENOTSUP, ARCH ".rope.scaling.type", "rotary scaling is not supported", err);
    if (kind_size != 5 || memcmp(kind, "model", 5) != 0)
        return bad_key(g, GLM_ENOTSUP, "general.type",
            "this file is no model (an adapter or projector?)", err);
    return GLM_OK;
}

static int32_t read_keys(const struct gguf_meta *g, struct hparams *hp, uint32_t *n_block,
    uint32_t *d_value, glm_error *err)
{
    const struct {
        const char *key;
        uint32_t *to;
        bool required;
    } keys[] = {
        {ARCH ".block_count", n_block, true},
        {ARCH ".context_length", &hp->n_ctx_train, true},
        {ARCH ".embedding_length", &hp->d_model, true},
        {ARCH ".feed_forward_length", &hp->d_ff, true},
        {ARCH ".attention.head_count", &hp->n_head, true},
        {ARCH ".attention.head_count_kv", &hp->n_head_kv, true},
        {ARCH ".attention.key_length", &hp->d_head, true},
        {ARCH ".attention.value_length", d_value, false},
        {ARCH ".rope.dimension_count", &hp->n_rot, true},
        {ARCH ".expert_count", &hp->n_expert, true},
        {ARCH ".expert_used_count", &hp->n_expert_used, true},
        {ARCH ".expert_shared_count", &hp->n_expert_shared, false},
        {ARCH ".expert_feed_forward_length", &hp->d_ff_exp, true},
        {ARCH ".expert_group_count", &hp->n_group, false},
        {ARCH ".expert_group_used_count", &hp->n_group_used, false},
        {ARCH ".leading_dense_block_count", &hp->n_layer_dense, false},
        {ARCH ".nextn_predict_layers", &hp->n_nextn, false},
    };
    double eps = 0, scale = 1;
    int32_t status = GLM_OK;
    hp->n_expert_shared = hp->n_group = hp->n_group_used = 1;
    hp->norm_topk = true;
    for (size_t i = 0; i < ARRAY_LEN(keys) && status == GLM_OK; i++)
        status = gguf_u32(g, keys[i].key, keys[i].required, keys[i].to, err);
    status = status ? status : gguf_f64(g, ARCH ".rope.freq_base", true, &hp->rope_theta, err);
    status =
        status ? status : gguf_f64(g, ARCH ".attention.layer_norm_rms_epsilon", true, &eps, err);
    status = status ? status : gguf_f64(g, ARCH ".expert_weights_scale", false, &scale, err);
    status =
        status ? status : gguf_bool(g, ARCH ".expert_weights_norm", false, &hp->norm_topk, err);
    hp->norm_eps = (float)eps;
    hp->routed_scale = (float)scale;
    return status;
}

static bool has_tensor(const struct ckpt *c, enum role role, uint32_t layer)
{
    char name[IO_NAME_MAX];
    gguf_role_name(c, role, layer, 0, name, sizeof name);
    return io_find(c, name) != NULL;
}

/* What the keys do not say but the tensors do. */
static int32_t read_from_tensors(struct ckpt *c, const struct gguf_meta *g, glm_error *err)
{
    char place[GGUF_PLACE];
    struct hparams *hp = &c->hp;
    const struct gguf_kv *tokens = gguf_find(g, "tokenizer.ggml.tokens");
    const struct io_tensor *embed = io_find(c, "token_embd.weight");
    uint64_t n_vocab = embed ? embed->dim[0] : tokens ? tokens->count : 0;
    if (embed == NULL && (c->n_tensor > 0 || c->opt.weights != GLM_WEIGHTS_NONE))
        return err_set(err, GLM_EFORMAT, g->infos,
            gguf_place(g->name, "token_embd.weight", 17, place),
            "the file lacks this tensor: it holds no whole model");
    if (n_vocab == 0 || n_vocab > HP_VOCAB_MAX || (embed && embed->n_dim != 2))
        return err_set(err, GLM_EFORMAT, embed ? io_file_offset(c, embed) : g->infos,
            gguf_place(g->name, "token_embd.weight", 17, place), "a vocabulary of %llu tokens",
            (unsigned long long)n_vocab);
    hp->n_vocab = (uint32_t)n_vocab;
    hp->qk_norm = has_tensor(c, ROLE_Q_NORM, 0);
    hp->qkv_bias = has_tensor(c, ROLE_Q_BIAS, 0) || io_find(c, "blk.0.attn_qkv.bias") != NULL;
    if (c->n_tensor > 0 && !has_tensor(c, ROLE_MTP_PROJ, hp->n_layer))
        hp->n_nextn = 0; /* a file whose maker left them out */
    return GLM_OK;
}

static int32_t read_hparams(struct ckpt *c, const struct gguf_meta *g, glm_error *err)
{
    struct hparams *hp = &c->hp;
    uint32_t n_block = 0, d_value = 0;
    int32_t status = read_keys(g, hp, &n_block, &d_value, err);
    if (status)
        return status;
    if (hp->n_nextn >= n_block)
        return bad_key(
            g, GLM_EFORMAT, ARCH ".nextn_predict_layers", "must be less than the block count", err);
    if (hp->n_nextn > 1)
        return bad_key(
            g, GLM_ENOTSUP, ARCH ".nextn_predict_layers", "only one such layer is supported", err);
    if (d_value != 0 && d_value != hp->d_head)
        return bad_key(
            g, GLM_ENOTSUP, ARCH ".attention.value_length", "must be equal to the key length", err);
    hp->n_layer = n_block - hp->n_nextn;
    status = read_from_tensors(c, g, err);
    status = status ? status : io_check_hparams(hp, c->path, err);
    c->has_hparams = status == GLM_OK;
    return status;
}

/* ---- tokenizer and defaults ------------------------------------------------------------------ */

/* A NUL-terminated copy, or NULL where the key is missing. */
static int32_t copy_string(struct ckpt *c, const struct gguf_meta *g, const char *key,
    const char **out, size_t *out_size, glm_error *err)
{
    const char *text = NULL;
    size_t size = 0;
    int32_t status = gguf_string(g, key, false, &text, &size, err);
    *out = NULL;
    if (status || text == NULL)
        return status;
    if (memchr(text, 0, size) != NULL)
        return bad_key(g, GLM_EFORMAT, key, "the text has a NUL in it", err);
    *out = arena_copy(&c->arena, text, size);
    if (out_size != NULL)
        *out_size = size;
    return *out ? GLM_OK : err_nomem(err, "the tokenizer's keys");
}

static int32_t string_views(struct ckpt *c, const struct gguf_meta *g, const struct gguf_kv *kv,
    const struct vocab_text **out, glm_error *err)
{
    size_t n;
    uint64_t bytes, pos = kv->value;
    if (!ck_mul(kv->count, sizeof **out, &bytes) || !ck_size(bytes, &n))
        return err_nomem(err, "the vocabulary");
    struct vocab_text *views = arena_alloc(&c->arena, n ? n : 1, _Alignof(struct vocab_text));
    if (views == NULL)
        return err_nomem(err, "the vocabulary");
    for (uint64_t i = 0; i < kv->count; i++)
        gguf_next_string(g, &pos, &views[i].text, &views[i].size);
    *out = views;
    return GLM_OK;
}

static int32_t read_token_types(
    struct ckpt *c, const struct gguf_meta *g, const struct gguf_kv *kv, glm_error *err)
{
    if (kv->count != c->vocab.n_token)
        return bad_key(g, GLM_EFORMAT, "tokenizer.ggml.token_type",
            "must have as many elements as there are tokens", err);
    int32_t *types = arena_alloc(&c->arena, (size_t)kv->count * 4 + 1, _Alignof(int32_t));
    if (types == NULL)
        return err_nomem(err, "the vocabulary");
    memcpy(types, g->data + kv->value, (size_t)kv->count * 4);
    c->vocab.types = types;
    return GLM_OK;
}

static int32_t read_vocab(struct ckpt *c, const struct gguf_meta *g, glm_error *err)
{
    struct vocab_source *v = &c->vocab;
    const struct gguf_kv *tokens = NULL, *types = NULL, *merges = NULL;
    int32_t status = gguf_array(g, "tokenizer.ggml.tokens", GGUF_STRING, &tokens, err);
    status = status ? status : gguf_array(g, "tokenizer.ggml.token_type", GGUF_I32, &types, err);
    status = status ? status : gguf_array(g, "tokenizer.ggml.merges", GGUF_STRING, &merges, err);
    status = status ? status : copy_string(c, g, "tokenizer.ggml.model", &v->model, NULL, err);
    status = status ? status : copy_string(c, g, "tokenizer.ggml.pre", &v->pre, NULL, err);
    status = status ? status
                    : copy_string(c, g, "tokenizer.chat_template", &c->template_text,
                          &c->template_size, err);
    if (status || tokens == NULL)
        return status;
    if (tokens->count == 0 || tokens->count > c->hp.n_vocab)
        return bad_key(g, GLM_EFORMAT, "tokenizer.ggml.tokens",
            "must have at least one token and none beyond token_embd's rows", err);
    v->n_token = (uint32_t)tokens->count;
    v->where = g->name;
    status = string_views(c, g, tokens, &v->tokens, err);
    if (status == GLM_OK && types != NULL)
        status = read_token_types(c, g, types, err);
    if (status == GLM_OK && merges != NULL) {
        v->n_merge = merges->count;
        status = string_views(c, g, merges, &v->merges, err);
    }
    v->kind = status ? VOCAB_NONE : VOCAB_GGUF;
    return status;
}

static int32_t read_eos(struct ckpt *c, const struct gguf_meta *g, glm_error *err)
{
    static const char *const keys[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
        "tokenizer.ggml.eom_token_id"};
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        uint32_t id = UINT32_MAX, j = 0;
        int32_t status = gguf_u32(g, keys[i], false, &id, err);
        if (status)
            return status;
        if (id == UINT32_MAX) /* missing, or a writer's "none" */
            continue;
        if (id >= c->hp.n_vocab)
            return bad_key(g, GLM_EFORMAT, keys[i], "the token is beyond the vocabulary", err);
        while (j < c->gen.n_eos && c->gen.eos[j] != (int32_t)id)
            j++;
        if (j == c->gen.n_eos && j < ARRAY_LEN(c->gen.eos))
            c->gen.eos[c->gen.n_eos++] = (int32_t)id;
    }
    return GLM_OK;
}

/* Sampling advice that newer converters write. */
static int32_t read_sampling(struct ckpt *c, const struct gguf_meta *g, glm_error *err)
{
    const struct {
        const char *key;
        float *to;
    } keys[] = {
        {"general.sampling.temp", &c->gen.temperature},
        {"general.sampling.top_p", &c->gen.top_p},
        {"general.sampling.min_p", &c->gen.min_p},
        {"general.sampling.penalty_repeat", &c->gen.repeat_penalty},
    };
    uint32_t top_k = UINT32_MAX;
    int32_t status = GLM_OK;
    for (size_t i = 0; i < ARRAY_LEN(keys) && status == GLM_OK; i++) {
        double v = (double)*keys[i].to;
        status = gguf_f64(g, keys[i].key, false, &v, err);
        *keys[i].to = (float)v;
    }
    const struct gguf_kv *kv = gguf_find(g, "general.sampling.top_k");
    if (status == GLM_OK && kv != NULL)
        status = gguf_u32(g, "general.sampling.top_k", false, &top_k, err);
    if (top_k <= INT32_MAX)
        c->gen.top_k = (int32_t)top_k;
    return status;
}

/* ---- open ------------------------------------------------------------------------------------ */

static void gguf_close(struct ckpt *c)
{
    struct gguf_state *state = c->state;
    if (state != NULL)
        gguf_meta_free(&state->meta);
    mem_free(c->mem, state);
    c->state = NULL;
}

static const struct io_format gguf_format = {
    .kind = "gguf",
    .type_name = gguf_type_name,
    .weight = gguf_weight,
    .role_name = gguf_role_name,
    .close = gguf_close,
};

int32_t gguf_open(struct ckpt *c, glm_error *err)
{
    struct gguf_state *state = mem_zalloc(c->mem, sizeof *state);
    if (state == NULL)
        return err_nomem(err, "the checkpoint");
    c->state = state;
    c->format = &gguf_format; /* from here on closing the checkpoint frees all */
    io_generation_unset(&c->gen);
    c->files = arena_alloc(&c->arena, sizeof *c->files, _Alignof(struct io_file));
    if (c->files == NULL)
        return err_nomem(err, "the checkpoint");
    memset(c->files, 0, sizeof *c->files);
    int32_t status = open_file(c, 0, c->path, err);
    status =
        status ? status : gguf_meta_read(&state->meta, c->mem, &c->files[0].file, c->path, err);
    status = status ? status : check_first(&state->meta, err);
    status = status ? status : check_architecture(&state->meta, err);
    status = status ? status : check_variants(&state->meta, err);
    status = status ? status : load_tensors(c, state, err);
    status = status ? status : read_hparams(c, &state->meta, err);
    status = status ? status : read_vocab(c, &state->meta, err);
    status = status ? status : read_eos(c, &state->meta, err);
    return status ? status : read_sampling(c, &state->meta, err);
}
