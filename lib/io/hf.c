/* hf.c: opens a Hugging Face folder: config.json and, as far as they are there,
 * generation_config.json, tokenizer.json, the chat template, and the weights in one safetensors
 * file or in those that an index names. Owns the texts that it loads.
 */
#include "hf_int.h"

#include <string.h>

#define TOKENIZER_MAX (256u << 20)
#define TEMPLATE_MAX (4u << 20)

/* dir/name in the arena if it is there, else NULL. */
static const char *present(struct ckpt *c, const char *name, int32_t *rc, glm_error *err)
{
    size_t size = strlen(c->path) + strlen(name) + 2;
    char *path = arena_alloc(&c->arena, size, 1);
    if (path == NULL) {
        *rc = err_nomem(err, "a path");
        return NULL;
    }
    return io_is_file(c, c->path, name, path, size) ? path : NULL;
}

static int32_t open_single(struct ckpt *c, const char *path, glm_error *err)
{
    c->files = arena_alloc(&c->arena, sizeof(*c->files), _Alignof(struct io_file));
    if (c->files == NULL)
        return err_nomem(err, "the table of files");
    c->files[0] = (struct io_file){.name = path};
    c->n_file = 1;
    return st_open(c, 0, NULL, err);
}

/* Names begin with "model." or, in a vision model, with "model.language_model.". */
static int32_t find_prefix(struct ckpt *c, struct hf *h, glm_error *err)
{
    static const char *const prefixes[] = {"model.", "model.language_model."};
    for (size_t i = 0; i < ARRAY_LEN(prefixes); i++) {
        struct hf_module m = {.size = strlen(prefixes[i])};
        memcpy(m.name, prefixes[i], m.size);
        if (hf_part(c, &m, "norm.weight") != NULL) {
            h->prefix = prefixes[i];
            return GLM_OK;
        }
    }
    return err_set(err, GLM_EFORMAT, 0, c->files[0].name,
        "there is no tensor model.norm.weight: not a model of this family, "
        "or one whose first file is missing");
}

/* A file may come without the layer that its configuration announces (many quantized ones do). */
static void find_nextn(struct ckpt *c, struct hf *h)
{
    if (h->n_nextn_config > 1)
        log_put(c->opt.log, LOG_WARN, "%s: %u next-token-prediction layers, only the first is used",
            c->path, h->n_nextn_config);
    if (c->hp.n_nextn == 0)
        return;
    char name[IO_NAME_MAX];
    ckpt_role_name(c, ROLE_MTP_HNORM, c->hp.n_layer, 0, name, sizeof(name));
    if (io_find(c, name) != NULL)
        return;
    c->hp.n_nextn = 0;
    log_put(c->opt.log, LOG_INFO,
        "%s: no tensor %s: opened without the next-token-prediction layer", c->path, name);
}

static int32_t open_weights(struct ckpt *c, struct hf *h, glm_error *err)
{
    int32_t rc = GLM_OK;
    const char *path = present(c, "model.safetensors.index.json", &rc, err);
    if (path != NULL) {
        rc = hf_index_open(c, path, err);
    } else if (rc == GLM_OK) {
        path = present(c, "model.safetensors", &rc, err);
        if (path != NULL)
            rc = open_single(c, path, err);
        else if (rc == GLM_OK)
            rc = err_set(err, GLM_EIO, 0, c->path,
                "the folder has neither model.safetensors nor "
                "model.safetensors.index.json: fetch the weights, or open with GLM_WEIGHTS_NONE");
    }
    if (rc == GLM_OK)
        rc = io_index(c, err);
    if (rc == GLM_OK)
        rc = find_prefix(c, h, err);
    if (rc == GLM_OK)
        find_nextn(c, h);
    return rc;
}

static int32_t open_tokenizer(struct ckpt *c, glm_error *err)
{
    int32_t rc = GLM_OK;
    size_t size = 0;
    const char *path = present(c, "tokenizer.json", &rc, err);
    if (path == NULL)
        return rc;
    rc = fs_load(c->mem, c->opt.fs, path, TOKENIZER_MAX, &c->vocab_text, &size, err);
    if (rc == GLM_OK)
        c->vocab = (struct vocab_source){
            .kind = VOCAB_JSON, .where = path, .json = c->vocab_text, .json_size = size};
    return rc;
}

static int32_t open_template(struct ckpt *c, struct hf *h, glm_error *err)
{
    int32_t rc = GLM_OK;
    const char *path = present(c, "chat_template.jinja", &rc, err);
    if (path != NULL) {
        rc = fs_load(
            c->mem, c->opt.fs, path, TEMPLATE_MAX, &h->chat_template, &c->template_size, err);
    } else if (rc == GLM_OK) {
        path = present(c, "tokenizer_config.json", &rc, err);
        if (path != NULL)
            rc = hf_tokenizer_config(c, path, &h->chat_template, &c->template_size, err);
    }
    c->template_text = h->chat_template;
    return rc;
}

int32_t hf_open(struct ckpt *c, glm_error *err)
{
    int32_t rc = GLM_OK;
    struct hf *h = mem_zalloc(c->mem, sizeof(*h));
    if (h == NULL)
        return err_nomem(err, "a checkpoint");
    h->prefix = "model.";
    c->state = h;
    c->format = &hf_format;
    const char *path = present(c, "config.json", &rc, err);
    if (path != NULL)
        rc = hf_config(c, h, path, err);
    if (rc == GLM_OK && c->opt.weights != GLM_WEIGHTS_NONE)
        rc = open_weights(c, h, err);
    if (rc == GLM_OK && (path = present(c, "generation_config.json", &rc, err)) != NULL)
        rc = hf_generation(c, path, err);
    if (rc == GLM_OK)
        rc = open_tokenizer(c, err);
    if (rc == GLM_OK)
        rc = open_template(c, h, err);
    return rc;
}
