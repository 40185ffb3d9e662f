/* hf_config.c: config.json, generation_config.json and tokenizer_config.json of a Hugging Face
 * folder. Keeps nothing of the documents but numbers; an error names file, key and the offset of
 * the value.
 */
#include "hf_int.h"

#include <math.h>
#include <string.h>

#define JSON_BYTES_MAX (8u << 20)
#define JSON_VALUES_MAX                                                                            \
    150000u /* of a tree; keeps a small hostile file from making a large one                       \
             */

/* Loads and parses a document whose root is an object. */
static int32_t load(struct ckpt *c, const char *path, struct json_doc *doc, glm_error *err)
{
    char *text = NULL;
    size_t size = 0, n = 0;
    glm_error own = GLM_ERROR_INIT, *e = err != NULL ? err : &own;
    *doc = (struct json_doc){0};
    int32_t rc = fs_load(c->mem, c->opt.fs, path, JSON_BYTES_MAX, &text, &size, e);
    if (rc != GLM_OK)
        return rc;
    struct json_reader count;
    enum json_event ev;
    json_reader_init(&count, c->mem, text, size, path);
    while ((ev = json_reader_next(&count, e)) != JSON_EV_END && ev != JSON_EV_ERROR &&
           n <= JSON_VALUES_MAX)
        n += ev != JSON_EV_CLOSE;
    json_reader_free(&count);
    if (ev == JSON_EV_ERROR)
        rc = e->code;
    else if (n > JSON_VALUES_MAX)
        rc = err_set(e, GLM_EFORMAT, 0, path, "more than %u values", JSON_VALUES_MAX);
    else
        rc = json_parse(c->mem, text, size, JSON_REFUSE_DUPLICATES, path, doc, e);
    mem_free(c->mem, text);
    if (rc == GLM_OK && doc->root->type != JSON_OBJECT) {
        json_free(doc);
        rc = err_set(e, GLM_EFORMAT, 0, path, "is not a JSON object");
    }
    return rc;
}

/* ---- getters: the first failure stays ------------------------------------------------------ */

struct cfg {
    const struct json *object;
    const char *where;
    glm_error *err;
    int32_t rc;
};

static void cfg_fail(
    struct cfg *g, int32_t rc, const struct json *v, const char *key, const char *why)
{
    if (g->rc == GLM_OK)
        g->rc = err_set(
            g->err, rc, v != NULL ? v->offset : g->object->offset, g->where, "%s %s", key, why);
}

static const struct json *cfg_find(struct cfg *g, const char *key, bool required)
{
    const struct json *v = json_get(g->object, key);
    if (v == NULL && required)
        cfg_fail(g, GLM_EFORMAT, NULL, key, "is missing");
    return v;
}

static bool is_null(const struct json *v)
{
    return v == NULL || v->type == JSON_NULL;
}

static bool plain_integer(const struct json *v, uint64_t *out)
{
    if (v->type != JSON_NUMBER || memchr(v->text, '.', v->size) != NULL ||
        memchr(v->text, 'e', v->size) != NULL || memchr(v->text, 'E', v->size) != NULL ||
        v->text[0] == '-')
        return false;
    return json_u64(v, out);
}

#define REQUIRED UINT32_MAX

/* fallback REQUIRED: the key must be there. */
static uint32_t cfg_u32(
    struct cfg *g, const char *key, uint32_t low, uint32_t high, uint32_t fallback)
{
    const struct json *v = cfg_find(g, key, fallback == REQUIRED);
    uint64_t n = 0;
    if (v == NULL)
        return fallback;
    if ((!plain_integer(v, &n) || n < low || n > high) && g->rc == GLM_OK)
        g->rc = err_set(g->err, GLM_EFORMAT, v->offset, g->where,
            "%s is %.*s, not a whole number of %u to %u", key,
            v->type == JSON_NUMBER ? (int)(v->size < 40 ? v->size : 40) : 16,
            v->type == JSON_NUMBER ? v->text : "no plain number", low, high);
    return (uint32_t)n;
}

static double cfg_f64(struct cfg *g, const char *key, bool required, double fallback)
{
    const struct json *v = cfg_find(g, key, required);
    double x = 0;
    if (v == NULL)
        return fallback;
    if (v->type != JSON_NUMBER || !json_f64(v, &x) || !isfinite(x))
        cfg_fail(g, GLM_EFORMAT, v, key, "is not a finite number");
    return x;
}

static bool cfg_bool(struct cfg *g, const char *key, bool fallback)
{
    const struct json *v = cfg_find(g, key, false);
    bool x = fallback;
    if (v != NULL && !json_bool(v, &x))
        cfg_fail(g, GLM_EFORMAT, v, key, "is neither true nor false");
    return x;
}

/* A choice that the model has made for good: absent or null is fine, anything but `only` is another
 * architecture. */
static void cfg_only(struct cfg *g, const char *key, const char *only)
{
    const struct json *v = json_get(g->object, key);
    if (is_null(v) || json_is_text(v, only) || g->rc != GLM_OK)
        return;
    g->rc = err_set(g->err, GLM_ENOTSUP, v->offset, g->where, "%s is %s, only %s is supported", key,
        v->type == JSON_STRING ? io_tail(v->text) : "not a string", only);
}

/* ---- config.json --------------------------------------------------------------------------- */

static void check_model_type(struct cfg *g)
{
    static const char *const known[] = {"glm4_moe", "glm4_moe_text", "glm4v_moe_text"};
    const struct json *v = cfg_find(g, "model_type", true);
    if (v == NULL || g->rc != GLM_OK)
        return;
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (json_is_text(v, known[i]))
            return;
    if (v->type != JSON_STRING)
        cfg_fail(g, GLM_EFORMAT, v, "model_type", "is not a string");
    else if (json_is_text(v, "glm4_moe_lite"))
        cfg_fail(g, GLM_ENOTSUP, v, "model_type",
            "is glm4_moe_lite (GLM-4.7-Flash): its latent attention is not supported, only "
            "glm4_moe is");
    else
        g->rc = err_set(g->err, GLM_ENOTSUP, v->offset, g->where,
            "model_type is %s, only glm4_moe (GLM-4.5, 4.5-Air, 4.6, 4.7) is supported",
            io_tail(v->text));
}

/* Older files: rope_theta, partial_rotary_factor, rope_scaling: null. Newer: all in
 * rope_parameters. */
static void read_rope(struct cfg *g, struct hparams *hp)
{
    const struct json *p = json_get(g->object, "rope_parameters"),
                      *s = json_get(g->object, "rope_scaling");
    struct cfg in = *g;
    for (int i = 0; i < 2; i++) {
        const struct json *o = i == 0 ? p : s;
        const char *key = i == 0 ? "rope_parameters" : "rope_scaling";
        if (is_null(o))
            continue;
        if (o->type != JSON_OBJECT) {
            cfg_fail(g, GLM_EFORMAT, o, key, "is not an object");
            return;
        }
        in.object = o;
        cfg_only(&in, "rope_type", "default");
        cfg_only(&in, "type", "default");
        if (in.rc == GLM_OK && !is_null(json_get(o, "mrope_section")))
            cfg_fail(&in, GLM_ENOTSUP, json_get(o, "mrope_section"), "mrope_section",
                "asks for rotary angles of image positions, which are not supported");
        if (in.rc == GLM_OK && !is_null(json_get(o, "factor")))
            cfg_fail(
                &in, GLM_ENOTSUP, json_get(o, "factor"), "factor", "asks for scaled rotary angles");
    }
    in.object = !is_null(p) && json_get(p, "rope_theta") != NULL ? p : g->object;
    hp->rope_theta = cfg_f64(&in, "rope_theta", true, 0);
    in.object = !is_null(p) && json_get(p, "partial_rotary_factor") != NULL ? p : g->object;
    double factor = cfg_f64(&in, "partial_rotary_factor", false, 0.5);
    if (in.rc == GLM_OK && !(factor > 0.0 && factor <= 1.0))
        cfg_fail(&in, GLM_EFORMAT, json_get(in.object, "partial_rotary_factor"),
            "partial_rotary_factor", "is not above 0 and at most 1");
    if (in.rc == GLM_OK)
        hp->n_rot = (uint32_t)(factor * hp->d_head); /* rounded down, as the reference does */
    g->rc = in.rc;
}

static void read_hparams(struct cfg *g, struct hparams *hp, struct hf *h)
{
    hp->n_layer = cfg_u32(g, "num_hidden_layers", 1, HP_LAYER_MAX, REQUIRED);
    hp->n_layer_dense = cfg_u32(g, "first_k_dense_replace", 0, HP_LAYER_MAX, REQUIRED);
    h->n_nextn_config = cfg_u32(g, "num_nextn_predict_layers", 0, HP_LAYER_MAX, 0);
    hp->d_model = cfg_u32(g, "hidden_size", 1, HP_WIDTH_MAX, REQUIRED);
    hp->n_head = cfg_u32(g, "num_attention_heads", 1, HP_WIDTH_MAX, REQUIRED);
    hp->n_head_kv = cfg_u32(g, "num_key_value_heads", 1, HP_WIDTH_MAX, REQUIRED);
    uint32_t d_head = hp->n_head > 0 ? hp->d_model / hp->n_head : 0;
    hp->d_head = cfg_u32(g, "head_dim", 2, HP_HEAD_DIM_MAX, d_head);
    hp->d_ff = cfg_u32(g, "intermediate_size", 1, HP_WIDTH_MAX, REQUIRED);
    hp->d_ff_exp = cfg_u32(g, "moe_intermediate_size", 1, HP_WIDTH_MAX, REQUIRED);
    hp->n_expert = cfg_u32(g, "n_routed_experts", 1, HP_EXPERT_MAX, REQUIRED);
    hp->n_expert_used = cfg_u32(g, "num_experts_per_tok", 1, HP_EXPERT_MAX, REQUIRED);
    hp->n_expert_shared = cfg_u32(g, "n_shared_experts", 1, HP_EXPERT_MAX, REQUIRED);
    hp->n_group = cfg_u32(g, "n_group", 1, HP_EXPERT_MAX, 1);
    hp->n_group_used = cfg_u32(g, "topk_group", 1, HP_EXPERT_MAX, 1);
    hp->n_vocab = cfg_u32(g, "vocab_size", 1, HP_VOCAB_MAX, REQUIRED);
    hp->n_ctx_train = cfg_u32(g, "max_position_embeddings", 1, HP_CTX_MAX, REQUIRED);
    hp->norm_eps = (float)cfg_f64(g, "rms_norm_eps", true, 0);
    hp->routed_scale = (float)cfg_f64(g, "routed_scaling_factor", true, 0);
    hp->norm_topk = cfg_bool(g, "norm_topk_prob", true);
    hp->qk_norm = cfg_bool(g, "use_qk_norm", false);
    hp->qkv_bias = cfg_bool(g, "attention_bias", false);
    h->tied = cfg_bool(g, "tie_word_embeddings", false);
    cfg_only(g, "hidden_act", "silu");
    cfg_only(g, "scoring_func", "sigmoid");
    cfg_only(g, "topk_method", "noaux_tc");
    read_rope(g, hp);
}

/* ---- end-of-turn ids ----------------------------------------------------------------------- */

static bool add_eos(
    struct cfg *g, struct generation_defaults *gen, const struct json *v, uint64_t n_vocab)
{
    uint64_t id = 0;
    if (!plain_integer(v, &id) || id > INT32_MAX || (n_vocab > 0 && id >= n_vocab)) {
        cfg_fail(g, GLM_EFORMAT, v, "eos_token_id",
            "has an entry that is not a token id of the vocabulary");
        return false;
    }
    if (gen->n_eos < ARRAY_LEN(gen->eos))
        gen->eos[gen->n_eos++] = (int32_t)id;
    return true;
}

/* A number, a list of numbers, or nothing. */
static void read_eos(struct cfg *g, struct generation_defaults *gen, uint64_t n_vocab)
{
    const struct json *v = json_get(g->object, "eos_token_id");
    if (is_null(v) || g->rc != GLM_OK)
        return;
    gen->n_eos = 0;
    if (v->type != JSON_ARRAY) {
        add_eos(g, gen, v, n_vocab);
        return;
    }
    if (v->count > ARRAY_LEN(gen->eos)) {
        cfg_fail(g, GLM_EFORMAT, v, "eos_token_id", "has more than 8 entries");
        return;
    }
    for (const struct json *e = json_first(v); e != NULL; e = json_next(v, e))
        if (!add_eos(g, gen, e, n_vocab))
            return;
}

/* ---- quantization_config ------------------------------------------------------------------- */

static void refuse_quant(struct cfg *g, const struct json *v, const char *key)
{
    if (g->rc == GLM_OK)
        g->rc = err_set(g->err, GLM_ENOTSUP, v->offset, g->where,
            "quantization_config: %s %s is not supported; FP8, "
            "compressed-tensors pack-quantized int4, AWQ and GPTQ are",
            key, v->type == JSON_STRING ? io_tail(v->text) : "(not a string)");
}

static bool is_one_of(const struct json *v, const char *const *words, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (json_is_text(v, words[i]))
            return true;
    return false;
}

static void read_group_size(struct cfg *g, struct hf_quant *q)
{
    const struct json *v = json_get(g->object, "group_size");
    int64_t n = 0;
    if (is_null(v))
        return;
    if (!json_i64(v, &n) || n < -1 || n == 0 || n > HP_WIDTH_MAX) {
        cfg_fail(g, GLM_EFORMAT, v, "quantization_config: group_size", "is neither -1 nor a size");
        return;
    }
    if (n > 0 && q->group_size == 0)
        q->group_size = (uint32_t)n;
}

static void read_bits(struct cfg *g, const char *key, struct hf_quant *q)
{
    if (is_null(json_get(g->object, key)))
        return;
    uint32_t bits = cfg_u32(g, key, 1, 64, 0);
    if (q->bits == 0)
        q->bits = bits;
}

/* compressed-tensors: {"config_groups": {"group_0": {"weights": {"num_bits", "type",
 * "group_size"}}}} */
static void read_groups(struct cfg *g, struct hf_quant *q)
{
    const struct json *groups = json_get(g->object, "config_groups");
    if (is_null(groups) || groups->type != JSON_OBJECT)
        return;
    for (const struct json *k = json_first(groups); k != NULL; k = json_next(groups, k)) {
        struct cfg in = *g;
        in.object = json_get(k + 1, "weights");
        if (is_null(in.object) || in.object->type != JSON_OBJECT ||
            !json_is_text(json_get(in.object, "type"), "int"))
            continue;
        read_bits(&in, "num_bits", q);
        read_group_size(&in, q);
        g->rc = in.rc;
    }
}

static void read_block_size(struct cfg *g, struct hf_quant *q)
{
    const struct json *v = json_get(g->object, "weight_block_size");
    if (is_null(v))
        return;
    uint64_t n[2] = {0, 0};
    const struct json *e = json_first(v);
    for (int i = 0; i < 2 && v->type == JSON_ARRAY && v->count == 2; i++, e = json_next(v, e))
        if (!plain_integer(e, &n[i]))
            n[i] = 0;
    if (n[0] == 0 || n[1] == 0 || n[0] > HP_WIDTH_MAX || n[1] > HP_WIDTH_MAX) {
        cfg_fail(g, GLM_EFORMAT, v, "quantization_config: weight_block_size", "is not two sizes");
        return;
    }
    q->block_out = (uint32_t)n[0];
    q->block_in = (uint32_t)n[1];
}

/* Methods are checked by name here so that an unsupported one is refused at open; beyond that what
 * counts is which tensors a module has. */
static void read_quant(struct cfg *g, struct hf_quant *q)
{
    static const char *const methods[] = {"compressed-tensors", "fp8", "awq", "gptq"};
    static const char *const formats[] = {
        "float-quantized", "naive-quantized", "pack-quantized", "dense", "mixed-precision"};
    const struct json *o = json_get(g->object, "quantization_config"), *v;
    q->block_out = q->block_in = 128;
    if (is_null(o) || g->rc != GLM_OK)
        return;
    if (o->type != JSON_OBJECT) {
        cfg_fail(g, GLM_EFORMAT, o, "quantization_config", "is not an object");
        return;
    }
    struct cfg in = {.object = o, .where = g->where, .err = g->err};
    v = json_get(o, "quant_method");
    if (!is_null(v) && !is_one_of(v, methods, ARRAY_LEN(methods)))
        refuse_quant(&in, v, "quant_method");
    v = json_get(o, "format");
    if (!is_null(v) && !is_one_of(v, formats, ARRAY_LEN(formats)))
        refuse_quant(&in, v, "format");
    q->gptq_v2 = json_is_text(json_get(o, "checkpoint_format"), "gptq_v2");
    v = json_get(o, "version");
    q->awq_gemv =
        json_is_text(v, "gemv") || json_is_text(v, "gemv_fast") || json_is_text(v, "GEMV");
    read_bits(&in, "bits", q);
    read_group_size(&in, q);
    read_groups(&in, q);
    read_block_size(&in, q);
    g->rc = in.rc;
}

int32_t hf_config(struct ckpt *c, struct hf *h, const char *path, glm_error *err)
{
    struct json_doc doc;
    int32_t rc = load(c, path, &doc, err);
    if (rc != GLM_OK)
        return rc;
    struct cfg g = {.object = doc.root, .where = path, .err = err};
    const struct json *text = json_get(doc.root, "text_config");
    if (!is_null(text) && text->type == JSON_OBJECT) { /* the language model of a vision model */
        read_quant(&g, &h->quant);
        read_eos(&g, &c->gen, 0);
        g.object = text;
    }
    check_model_type(&g);
    if (g.rc == GLM_OK)
        read_hparams(&g, &c->hp, h);
    if (g.rc == GLM_OK && g.object == doc.root)
        read_quant(&g, &h->quant);
    if (g.rc == GLM_OK) {
        c->hp.n_nextn = h->n_nextn_config > 0;
        g.rc = io_check_hparams(&c->hp, path, err);
    }
    read_eos(&g, &c->gen, c->hp.n_vocab);
    json_free(&doc);
    c->has_hparams = g.rc == GLM_OK;
    return g.rc;
}

/* ---- generation_config.json ---------------------------------------------------------------- */

static float sampling_number(struct cfg *g, const char *key, double high)
{
    if (is_null(json_get(g->object, key)))
        return NAN;
    double x = cfg_f64(g, key, false, 0);
    if (!(x >= 0.0 && x <= high))
        cfg_fail(g, GLM_EFORMAT, json_get(g->object, key), key, "is out of its range");
    return (float)x;
}

int32_t hf_generation(struct ckpt *c, const char *path, glm_error *err)
{
    struct json_doc doc;
    int32_t rc = load(c, path, &doc, err);
    if (rc != GLM_OK)
        return rc;
    struct cfg g = {.object = doc.root, .where = path, .err = err};
    struct generation_defaults gen = c->gen; /* ends of config.json stay where none are said here */
    read_eos(&g, &gen, c->has_hparams ? c->hp.n_vocab : 0);
    gen.temperature = sampling_number(&g, "temperature", 100);
    gen.top_p = sampling_number(&g, "top_p", 1);
    gen.min_p = sampling_number(&g, "min_p", 1);
    gen.repeat_penalty = sampling_number(&g, "repetition_penalty", 100);
    if (!is_null(json_get(g.object, "top_k")))
        gen.top_k = (int32_t)cfg_u32(&g, "top_k", 0, INT32_MAX, 0);
    if (!is_null(json_get(g.object, "do_sample")))
        gen.do_sample = cfg_bool(&g, "do_sample", false);
    json_free(&doc);
    if (g.rc == GLM_OK)
        c->gen = gen;
    return g.rc;
}

/* ---- tokenizer_config.json ----------------------------------------------------------------- */

/* A string, or a list of named ones, of which the one named default counts. */
static const struct json *find_template(const struct json *root)
{
    const struct json *v = json_get(root, "chat_template");
    if (v == NULL || v->type != JSON_ARRAY)
        return v;
    for (const struct json *e = json_first(v); e != NULL; e = json_next(v, e))
        if (json_is_text(json_get(e, "name"), "default"))
            return json_get(e, "template");
    return NULL;
}

int32_t hf_tokenizer_config(
    struct ckpt *c, const char *path, char **text, size_t *size, glm_error *err)
{
    struct json_doc doc;
    int32_t rc = load(c, path, &doc, err);
    if (rc != GLM_OK)
        return rc;
    const struct json *v = find_template(doc.root);
    if (v != NULL && v->type == JSON_STRING) {
        char *copy = mem_alloc(c->mem, (size_t)v->size + 1);
        if (copy == NULL) {
            rc = err_nomem(err, "the chat template");
        } else {
            memcpy(copy, v->text, v->size);
            copy[v->size] = 0;
            *text = copy;
            *size = v->size;
        }
    }
    json_free(&doc);
    return rc;
}
