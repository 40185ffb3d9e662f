/* test_hf.c: Hugging Face folders. Every golden checkpoint binds completely and its quantized forms
 * decode to their bf16 original; configurations, indexes and packed tensors of every wrong kind are
 * refused; each allocation and each read of an open fails cleanly.
 */
#include "io_files.h"

#include <math.h>

static struct mf files;
static struct mem mem;

static void setup(void)
{
    mf_init(&files);
    mem_init(&mem, NULL);
}

static void teardown(void)
{
    mf_free(&files);
    ck_assert_uint_eq(mem.used, 0);
}

static const char *const folders[] = {"air-bf16", "air-fused", "air-fp8", "air-int4-packed-sym",
    "air-int4-packed-asym", "air-int4-awq-asym", "air-int4-gptq-asym", "glm45-sharded",
    "glm45-fp8-block", "group-f32", "group-mixed"};

/* A golden folder under the name `to`. */
static void load_golden(const char *folder, const char *to)
{
    static const char *const names[] = {"config.json", "model.safetensors",
        "model.safetensors.index.json", "model-00001-of-00003.safetensors",
        "model-00002-of-00003.safetensors", "model-00003-of-00003.safetensors"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        char from[256], path[512], name[256];
        snprintf(from, sizeof(from), "golden/%s/%s", folder, names[i]);
        snprintf(name, sizeof(name), "%s/%s", to, names[i]);
        FILE *f = fopen(data_path(from, path, sizeof(path)), "rb");
        if (f == NULL)
            continue;
        fclose(f);
        mf_load(&files, from, name);
    }
}

static struct ckpt *must_open(const char *path, uint32_t weights)
{
    struct ckpt *c = NULL;
    glm_error err;
    int32_t rc = open_checked(&files, path, weights, &mem, &c, &err);
    ck_assert_msg(rc == GLM_OK, "%s: %d %s: %s", path, rc, err.where, err.message);
    return c;
}

/* ---- every role ---------------------------------------------------------------------------- */

struct slot {
    enum role role;
    uint32_t layer, expert, n_out, n_in;
    bool optional;
};

struct slots {
    struct slot at[1024];
    size_t n;
};

static void add(
    struct slots *s, enum role role, uint32_t layer, uint32_t expert, uint32_t n_out, uint32_t n_in)
{
    ck_assert(s->n < ARRAY_LEN(s->at));
    s->at[s->n++] = (struct slot){
        role, layer, expert, n_out, n_in, role == ROLE_MTP_EMBED || role == ROLE_MTP_HEAD};
}

static void add_layer(struct slots *s, const struct hparams *h, uint32_t l)
{
    uint32_t d = h->d_model, q = h->n_head * h->d_head, kv = h->n_head_kv * h->d_head;
    uint32_t shared = h->d_ff_exp * h->n_expert_shared;
    add(s, ROLE_ATTN_NORM, l, 0, 1, d), add(s, ROLE_FFN_NORM, l, 0, 1, d);
    add(s, ROLE_Q, l, 0, q, d), add(s, ROLE_K, l, 0, kv, d), add(s, ROLE_V, l, 0, kv, d),
        add(s, ROLE_O, l, 0, d, q);
    if (h->qkv_bias)
        add(s, ROLE_Q_BIAS, l, 0, 1, q), add(s, ROLE_K_BIAS, l, 0, 1, kv),
            add(s, ROLE_V_BIAS, l, 0, 1, kv);
    if (h->qk_norm)
        add(s, ROLE_Q_NORM, l, 0, 1, h->d_head), add(s, ROLE_K_NORM, l, 0, 1, h->d_head);
    if (l < h->n_layer_dense) {
        add(s, ROLE_GATE, l, 0, h->d_ff, d), add(s, ROLE_UP, l, 0, h->d_ff, d),
            add(s, ROLE_DOWN, l, 0, d, h->d_ff);
        return;
    }
    add(s, ROLE_ROUTER, l, 0, h->n_expert, d), add(s, ROLE_ROUTER_BIAS, l, 0, 1, h->n_expert);
    for (uint32_t e = 0; e < h->n_expert; e++) {
        add(s, ROLE_EXP_GATE, l, e, h->d_ff_exp, d), add(s, ROLE_EXP_UP, l, e, h->d_ff_exp, d);
        add(s, ROLE_EXP_DOWN, l, e, d, h->d_ff_exp);
    }
    add(s, ROLE_SHARED_GATE, l, 0, shared, d), add(s, ROLE_SHARED_UP, l, 0, shared, d);
    add(s, ROLE_SHARED_DOWN, l, 0, d, shared);
}

static void all_slots(struct slots *s, const struct hparams *h)
{
    uint32_t d = h->d_model;
    s->n = 0;
    add(s, ROLE_EMBED, 0, 0, h->n_vocab, d), add(s, ROLE_HEAD, 0, 0, h->n_vocab, d),
        add(s, ROLE_NORM, 0, 0, 1, d);
    for (uint32_t l = 0; l < h->n_layer + h->n_nextn; l++)
        add_layer(s, h, l);
    if (h->n_nextn == 0)
        return;
    uint32_t l = h->n_layer;
    add(s, ROLE_MTP_ENORM, l, 0, 1, d), add(s, ROLE_MTP_HNORM, l, 0, 1, d),
        add(s, ROLE_MTP_NORM, l, 0, 1, d);
    add(s, ROLE_MTP_PROJ, l, 0, d, 2 * d);
    add(s, ROLE_MTP_EMBED, l, 0, h->n_vocab, d), add(s, ROLE_MTP_HEAD, l, 0, h->n_vocab, d);
}

/* ---- an element, by the formulas of base/weight.h, read byte by byte ----------------------- */

static float scalar_at(const void *data, uint64_t offset, uint32_t format)
{
    const uint8_t *p = (const uint8_t *)data + offset;
    uint32_t u = p[0] | (uint32_t)p[1] << 8;
    if (format == W_F32)
        return f32_from_bits(u | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24);
    return format == W_BF16 ? f32_from_bf16((uint16_t)u) : f32_from_f16((uint16_t)u);
}

static uint32_t nibble_at(const void *data, uint64_t word, uint32_t i)
{
    return ((const uint8_t *)data)[word * 4 + i / 2] >> i % 2 * 4 & 15;
}

static float int4_at(const struct weight *w, uint32_t o, uint32_t i)
{
    static const uint32_t awq[8] = {
        0, 4, 1, 5, 2, 6, 3, 7}; /* nibble of element e: the inverse of 0 2 4 6 1 3 5 7 */
    uint32_t g = w->group != NULL ? (uint32_t)w->group[i] : i / w->block_in;
    uint32_t size = w->scale_format == W_F32 ? 4 : 2, u, zero;
    float scale;
    if (w->format == W_I4_PACKED) {
        u = nibble_at(w->data, o * w->row_bytes / 4 + i / 8, i % 8);
        scale = scalar_at(w->scale, o * w->scale_row_bytes + (uint64_t)g * size, w->scale_format);
        zero = w->zero != NULL ? nibble_at(w->zero, o / 8 * w->zero_row_bytes / 4 + g, o % 8) : 8;
        return (float)((int)u - (int)zero) * scale; /* (u - 8) - (zero - 8) */
    }
    scale = scalar_at(w->scale, g * w->scale_row_bytes + (uint64_t)o * size, w->scale_format);
    if (w->format == W_I4_AWQ) {
        u = nibble_at(w->data, i * w->row_bytes / 4 + o / 8, awq[o % 8]);
        zero = nibble_at(w->zero, g * w->zero_row_bytes / 4 + o / 8, awq[o % 8]);
    } else {
        u = nibble_at(w->data, i / 8 * w->row_bytes / 4 + o, i % 8);
        zero = nibble_at(w->zero, g * w->zero_row_bytes / 4 + o / 8, o % 8) + 1;
    }
    return (float)((int)u - (int)zero) * scale;
}

static float view_at(const struct weight *w, uint32_t o, uint32_t i)
{
    if (w->format >= W_I4_PACKED)
        return int4_at(w, o, i);
    struct weight_block b = weight_block(w->format);
    if (b.n != 1)
        return NAN; /* no assertion here: it writes to a pipe, and this is called for each element
                     */
    if (w->format != W_F8)
        return scalar_at(w->data, o * w->row_bytes + (uint64_t)i * b.bytes, w->format);
    uint64_t at = o / w->block_out * w->scale_row_bytes +
                  i / w->block_in * (w->scale_format == W_F32 ? 4ull : 2ull);
    return f32_from_e4m3(((const uint8_t *)w->data)[o * w->row_bytes + i]) *
           scalar_at(w->scale, at, w->scale_format);
}

/* ---- golden checkpoints -------------------------------------------------------------------- */

START_TEST(goldens_bind)
{
    static struct slots s;
    for (size_t f = 0; f < ARRAY_LEN(folders); f++) {
        load_golden(folders[f], folders[f]);
        struct ckpt *c = must_open(folders[f], GLM_WEIGHTS_MAP);
        const struct hparams *h = ckpt_hparams(c);
        ck_assert_uint_eq(ckpt_vocab(c).kind, VOCAB_NONE);
        all_slots(&s, h);
        for (size_t i = 0; i < s.n; i++) {
            const struct slot *x = &s.at[i];
            struct weight w;
            glm_error err = GLM_ERROR_INIT;
            char name[256];
            int32_t rc = ckpt_weight(
                c, x->role, x->layer, x->expert, x->n_out, x->n_in, x->optional, &w, &err);
            ck_assert_msg(rc == GLM_OK, "%s: %s: %s", folders[f], err.where, err.message);
            ckpt_role_name(c, x->role, x->layer, x->expert, name, sizeof(name));
            bool none = w.format == W_NONE;
            ck_assert(!none || x->optional);
            ck_assert_msg(none || isfinite(view_at(&w, x->n_out - 1, x->n_in - 1)), "%s %s",
                folders[f], name);
            /* another shape is refused, and the refusal names a tensor that is there */
            ck_assert_int_lt(ckpt_weight(c, x->role, x->layer, x->expert, x->n_out + 8, x->n_in,
                                 false, &w, &err),
                0);
            ck_assert_int_lt(ckpt_weight(c, x->role, x->layer, x->expert, x->n_out, x->n_in + 8,
                                 false, &w, &err),
                0);
            ck_assert_msg(none || strncmp(err.where, "model.", 6) == 0 ||
                              strncmp(err.where, "lm_head", 7) == 0,
                "%s", err.where);
        }
        ckpt_close(c);
        mf_free(&files);
    }
}
END_TEST

/* Relative distance of a variant from the float original that it was made from. */
static double distance(struct ckpt *a, struct ckpt *b, const struct slot *x)
{
    struct weight v, w;
    glm_error err = GLM_ERROR_INIT;
    double diff = 0, norm = 0;
    ck_assert_int_eq(
        ckpt_weight(a, x->role, x->layer, x->expert, x->n_out, x->n_in, x->optional, &v, &err),
        GLM_OK);
    ck_assert_int_eq(
        ckpt_weight(b, x->role, x->layer, x->expert, x->n_out, x->n_in, x->optional, &w, &err),
        GLM_OK);
    ck_assert(v.format != W_NONE || w.format == W_NONE);
    for (uint32_t o = 0; o < x->n_out && v.format != W_NONE; o++)
        for (uint32_t i = 0; i < x->n_in; i++) {
            double p = view_at(&v, o, i), q = view_at(&w, o, i);
            diff += (p - q) * (p - q);
            norm += p * p;
        }
    return norm > 0 ? sqrt(diff / norm) : 0;
}

/* A layout misread by one nibble, row or group would be as far from the original as a random
 * matrix: 1.4. */
START_TEST(quantized_forms_are_near_their_original)
{
    static const struct {
        const char *folder, *original;
        double bound;
    } forms[] = {
        {"air-fused", "air-bf16", 0},
        {"air-fp8", "air-bf16", 0.04},
        {"air-int4-packed-sym", "air-bf16", 0.12},
        {"air-int4-packed-asym", "air-bf16", 0.12},
        {"air-int4-awq-asym", "air-bf16", 0.12},
        {"air-int4-gptq-asym", "air-bf16", 0.12},
        {"glm45-fp8-block", "glm45-sharded", 0.04},
        {"group-mixed", "group-f32", 0},
    };
    static struct slots s;
    for (size_t f = 0; f < ARRAY_LEN(forms); f++) {
        load_golden(forms[f].original, "a");
        load_golden(forms[f].folder, "b");
        struct ckpt *a = must_open("a", GLM_WEIGHTS_MAP), *b = must_open("b", GLM_WEIGHTS_MAP);
        size_t n_changed = 0;
        ck_assert_mem_eq(ckpt_hparams(a), ckpt_hparams(b), sizeof(struct hparams));
        all_slots(&s, ckpt_hparams(a));
        for (size_t i = 0; i < s.n; i++) {
            double d = distance(a, b, &s.at[i]);
            char name[256];
            ckpt_role_name(b, s.at[i].role, s.at[i].layer, s.at[i].expert, name, sizeof(name));
            ck_assert_msg(d <= forms[f].bound, "%s %s: %f", forms[f].folder, name, d);
            n_changed += d > 0;
        }
        ck_assert((n_changed > 0) == (forms[f].bound > 0));
        ckpt_close(a);
        ckpt_close(b);
        mf_free(&files);
    }
}
END_TEST

START_TEST(reading_equals_mapping)
{
    static struct slots s;
    load_golden("air-int4-gptq-asym", "a");
    struct ckpt *a = must_open("a", GLM_WEIGHTS_MAP);
    uint64_t before = files.n_map;
    struct ckpt *b = must_open("a", GLM_WEIGHTS_READ);
    files.hook.map = NULL;
    fs_init(&files.fs, &files.hook);
    struct ckpt *c = must_open("a", GLM_WEIGHTS_MAP);
    all_slots(&s, ckpt_hparams(a));
    for (size_t i = 0; i < s.n; i++) {
        struct weight w;
        ck_assert(distance(b, c, &s.at[i]) == 0);
        ck_assert_int_eq(ckpt_weight(b, s.at[i].role, s.at[i].layer, s.at[i].expert, s.at[i].n_out,
                             s.at[i].n_in, true, &w, NULL),
            GLM_OK);
    }
    ck_assert_uint_eq(files.n_map, before);
    files.hook.map = mf_map;
    ckpt_close(b);
    ckpt_close(c);
    fs_init(&files.fs, &files.hook);
    b = must_open("a", GLM_WEIGHTS_READ);
    for (size_t i = 0; i < s.n; i++)
        ck_assert(distance(a, b, &s.at[i]) == 0);
    uint8_t x[32], y[32];
    ckpt_fingerprint(a, x);
    ckpt_fingerprint(b, y);
    ck_assert_mem_eq(x, y, 32);
    ckpt_close(a);
    ckpt_close(b);
}
END_TEST

struct progress {
    uint64_t n, done, total, give_up_at;
};

static int32_t GLM_CALL on_progress(void *user, uint64_t done, uint64_t total)
{
    struct progress *p = user;
    ck_assert(done <= total && done >= p->done);
    p->done = done;
    p->total = total;
    return ++p->n == p->give_up_at;
}

START_TEST(progress_and_giving_up)
{
    load_golden("glm45-sharded", "m");
    for (uint64_t give_up = 0; give_up < 4; give_up++) {
        struct progress p = {.give_up_at = give_up};
        struct ckpt_options opt = {.weights = GLM_WEIGHTS_READ,
            .fs = &files.fs,
            .progress_user = &p,
            .progress = on_progress};
        struct ckpt *c;
        glm_error err = GLM_ERROR_INIT;
        int32_t rc = ckpt_open(&mem, "m", &opt, &c, &err);
        ck_assert_int_eq(rc, give_up == 0 ? GLM_OK : GLM_ESTATE);
        ck_assert_uint_eq(p.n, give_up == 0 ? 3 : give_up);
        if (rc == GLM_OK)
            ck_assert_uint_eq(p.done, ckpt_weight_bytes(c));
        ckpt_close(c);
        ck_assert_uint_eq(mem.used, 0);
    }
}
END_TEST

/* ---- faults -------------------------------------------------------------------------------- */

static const char tokenizer_config[] =
    "{\"chat_template\": [{\"name\": \"default\", \"template\": \"[gMASK]<sop>\"}]}";

static void load_all_parts(const char *folder)
{
    load_golden(folder, "m");
    mf_text(&files, "m/tokenizer.json", "{\"model\": {}}");
    mf_text(&files, "m/tokenizer_config.json", tokenizer_config);
    mf_text(&files, "m/generation_config.json", "{\"temperature\": 0.5, \"eos_token_id\": [7, 8]}");
}

static int32_t open_and_bind(struct mem *m, glm_error *err)
{
    static struct slots s;
    struct ckpt *c;
    int32_t rc = open_checked(&files, "m", GLM_WEIGHTS_MAP, m, &c, err);
    if (rc != GLM_OK)
        return rc;
    all_slots(&s, ckpt_hparams(c));
    for (size_t i = 0; i < s.n && rc == GLM_OK; i++) {
        struct weight w;
        const struct slot *x = &s.at[i];
        rc = ckpt_weight(c, x->role, x->layer, x->expert, x->n_out, x->n_in, x->optional, &w, err);
    }
    ckpt_close(c);
    return rc;
}

START_TEST(every_allocation_fails)
{
    static const char *const some[] = {"air-int4-gptq-asym", "glm45-sharded"};
    for (size_t f = 0; f < ARRAY_LEN(some); f++) {
        load_all_parts(some[f]);
        for (int persistent = 0; persistent < 2; persistent++)
            for (uint64_t k = 1;; k++) {
                struct fail_alloc a;
                struct mem m;
                glm_error err;
                fail_alloc_init(&a, &m);
                a.fail_at = k;
                a.persistent = persistent;
                int32_t rc = open_and_bind(&m, &err);
                ck_assert_uint_eq(a.live, 0);
                ck_assert_uint_eq(files.n_open, 0);
                if (rc == GLM_OK) {
                    ck_assert_uint_gt(k, 20);
                    ck_assert_uint_lt(a.n, k);
                    break;
                }
                ck_assert_msg(rc == GLM_ENOMEM, "%d %s: %s", rc, err.where, err.message);
            }
        mf_free(&files);
    }
}
END_TEST

START_TEST(every_read_fails)
{
    load_all_parts("glm45-sharded");
    for (uint64_t k = 1;; k++) {
        glm_error err;
        files.n_read = files.n_map = 0;
        files.fail_at = k;
        int32_t rc = open_and_bind(&mem, &err);
        if (rc == GLM_OK) {
            ck_assert_uint_gt(k, 10);
            break;
        }
        ck_assert_msg(
            rc == GLM_EIO && err.message[0] != 0, "%d %s: %s", rc, err.where, err.message);
        ck_assert_uint_eq(files.n_open, 0);
    }
}
END_TEST

/* ---- configurations ------------------------------------------------------------------------ */

/* Opens {BASE with `key` replaced by `value`} without weights; value NULL: left out. */
static int32_t open_config_with(const char *key, const char *value, struct ckpt **c, glm_error *err)
{
    static const char *const base[][2] = {
        {"model_type", "\"glm4_moe\""},
        {"hidden_size", "96"},
        {"num_hidden_layers", "4"},
        {"first_k_dense_replace", "1"},
        {"num_nextn_predict_layers", "1"},
        {"num_attention_heads", "6"},
        {"num_key_value_heads", "2"},
        {"head_dim", "16"},
        {"intermediate_size", "96"},
        {"moe_intermediate_size", "32"},
        {"n_routed_experts", "12"},
        {"num_experts_per_tok", "4"},
        {"n_shared_experts", "1"},
        {"n_group", "4"},
        {"topk_group", "2"},
        {"vocab_size", "320"},
        {"max_position_embeddings", "1024"},
        {"rms_norm_eps", "1e-05"},
        {"routed_scaling_factor", "2.5"},
        {"rope_theta", "1000000"},
        {"partial_rotary_factor", "0.5"},
        {"rope_scaling", "null"},
        {"norm_topk_prob", "true"},
        {"use_qk_norm", "false"},
        {"attention_bias", "true"},
        {"tie_word_embeddings", "false"},
        {"eos_token_id", "[1, 2]"},
        {"hidden_act", "\"silu\""},
    };
    char text[4096];
    size_t n = (size_t)snprintf(text, sizeof(text), "{");
    bool known = false;
    for (size_t i = 0; i < ARRAY_LEN(base); i++) {
        bool this = strcmp(base[i][0], key) == 0;
        const char *v = this ? value : base[i][1];
        known = known || this;
        if (v != NULL)
            n += (size_t)snprintf(
                text + n, sizeof(text) - n, "%s\"%s\": %s", n > 1 ? ", " : "", base[i][0], v);
    }
    if (!known && value != NULL)
        n += (size_t)snprintf(text + n, sizeof(text) - n, ", \"%s\": %s", key, value);
    snprintf(text + n, sizeof(text) - n, "}");
    mf_text(&files, "c/config.json", text);
    return open_checked(&files, "c", GLM_WEIGHTS_NONE, &mem, c, err);
}

START_TEST(sweeps_hyperparameters)
{
    /* key, largest good value (cross-field rules included), is 0 good, is 1 good */
    static const struct {
        const char *key;
        uint64_t max;
        bool zero, one, optional;
    } keys[] = {
        {"hidden_size", HP_WIDTH_MAX, false, true, false},
        {"num_hidden_layers", HP_LAYER_MAX, false, true, false},
        {"first_k_dense_replace", 4, true, true, false},
        {"num_nextn_predict_layers", HP_LAYER_MAX, true, true, true},
        {"num_attention_heads", HP_WIDTH_MAX / 16, false, false, false},
        {"num_key_value_heads", 6, false, true, false},
        {"head_dim", HP_HEAD_DIM_MAX, false, false, true},
        {"intermediate_size", HP_WIDTH_MAX, false, true, false},
        {"moe_intermediate_size", HP_WIDTH_MAX, false, true, false},
        {"n_routed_experts", HP_EXPERT_MAX, false, false, false},
        {"num_experts_per_tok", 6, false, true, false},
        {"n_shared_experts", HP_EXPERT_MAX, false, true, false},
        {"n_group", 4, false, false, true},
        {"topk_group", 4, false, false, true},
        {"vocab_size", HP_VOCAB_MAX, false, false, false},
        {"max_position_embeddings", HP_CTX_MAX, false, true, false},
    };
    static const char *const never[] = {"2147483648", "4294967295", "4294967296",
        "18446744073709551615", "-1", "1.5", "64.0", "6.4e1", "\"x\"", "\"64\"", "null", "[64]",
        "{}", "true", "1e999"};
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        struct ckpt *c;
        glm_error err;
        char value[32];
        const uint64_t v[] = {0, 1, keys[i].max, keys[i].max + 1};
        const bool good[] = {keys[i].zero, keys[i].one, true, false};
        for (size_t k = 0; k < 4; k++) {
            snprintf(value, sizeof(value), "%llu", (unsigned long long)v[k]);
            int32_t rc = open_config_with(keys[i].key, value, &c, &err);
            bool odd =
                strcmp(keys[i].key, "num_attention_heads") == 0 && k == 2; /* 65536 % 2 == 0 */
            ck_assert_msg((rc == GLM_OK) == good[k] || odd, "%s %s: %d %s", keys[i].key, value, rc,
                err.message);
            ckpt_close(c);
        }
        for (size_t k = 0; k < ARRAY_LEN(never); k++) {
            int32_t rc = open_config_with(keys[i].key, never[k], &c, &err);
            ck_assert_msg(rc == GLM_EFORMAT, "%s %s: %d", keys[i].key, never[k], rc);
            ck_assert_msg(strstr(err.message, keys[i].key) != NULL, "%s", err.message);
            ck_assert_msg(err.offset > 0, "%s %s", keys[i].key, never[k]);
        }
        int32_t rc = open_config_with(keys[i].key, NULL, &c, &err);
        ck_assert_msg(rc == GLM_EFORMAT || keys[i].optional, "%s left out: %d", keys[i].key, rc);
        ckpt_close(c);
    }
}
END_TEST

START_TEST(refuses_other_settings)
{
    static const struct {
        const char *key, *value;
        int32_t status;
    } bad[] = {
        {"num_key_value_heads", "4", GLM_EFORMAT},
        {"head_dim", "15", GLM_EFORMAT},
        {"n_group", "5", GLM_EFORMAT},
        {"n_group", "12", GLM_EFORMAT},
        {"topk_group", "1", GLM_EFORMAT},
        {"topk_group", "5", GLM_EFORMAT},
        {"num_experts_per_tok", "7", GLM_EFORMAT},
        {"first_k_dense_replace", "5", GLM_EFORMAT},
        {"partial_rotary_factor", "0", GLM_EFORMAT},
        {"partial_rotary_factor", "1.01", GLM_EFORMAT},
        {"partial_rotary_factor", "-0.5", GLM_EFORMAT},
        {"partial_rotary_factor", "0.2", GLM_EFORMAT}, /* 3 elements */
        {"partial_rotary_factor", "1e-300", GLM_EFORMAT},
        {"partial_rotary_factor", "\"0.5\"", GLM_EFORMAT},
        {"rope_theta", "0", GLM_EFORMAT},
        {"rope_theta", "-1", GLM_EFORMAT},
        {"rope_theta", "1e999", GLM_EFORMAT},
        {"rope_theta", "null", GLM_EFORMAT},
        {"rope_theta", NULL, GLM_EFORMAT},
        {"rope_scaling", "{\"rope_type\": \"yarn\", \"factor\": 4}", GLM_ENOTSUP},
        {"rope_scaling", "{\"type\": \"linear\"}", GLM_ENOTSUP},
        {"rope_scaling", "{\"rope_type\": \"default\", \"mrope_section\": [8, 12, 12]}",
            GLM_ENOTSUP},
        {"rope_scaling", "4", GLM_EFORMAT},
        {"rope_parameters", "{\"rope_type\": \"llama3\", \"rope_theta\": 1e4}", GLM_ENOTSUP},
        {"rope_parameters", "[]", GLM_EFORMAT},
        {"rms_norm_eps", "0", GLM_EFORMAT},
        {"rms_norm_eps", "-1e-5", GLM_EFORMAT},
        {"rms_norm_eps", "1e-60", GLM_EFORMAT},
        {"rms_norm_eps", "1e999", GLM_EFORMAT},
        {"rms_norm_eps", "\"1e-5\"", GLM_EFORMAT},
        {"rms_norm_eps", NULL, GLM_EFORMAT},
        {"routed_scaling_factor", "0", GLM_EFORMAT},
        {"routed_scaling_factor", "1e40", GLM_EFORMAT},
        {"routed_scaling_factor", NULL, GLM_EFORMAT},
        {"norm_topk_prob", "1", GLM_EFORMAT},
        {"use_qk_norm", "\"true\"", GLM_EFORMAT},
        {"attention_bias", "null", GLM_EFORMAT},
        {"tie_word_embeddings", "0", GLM_EFORMAT},
        {"hidden_act", "\"gelu\"", GLM_ENOTSUP},
        {"scoring_func", "\"softmax\"", GLM_ENOTSUP},
        {"topk_method", "\"greedy\"", GLM_ENOTSUP},
        {"model_type", "\"glm4_moe_lite\"", GLM_ENOTSUP},
        {"model_type", "\"llama\"", GLM_ENOTSUP},
        {"model_type", "7", GLM_EFORMAT},
        {"model_type", NULL, GLM_EFORMAT},
        {"eos_token_id", "-1", GLM_EFORMAT},
        {"eos_token_id", "320", GLM_EFORMAT},
        {"eos_token_id", "[1, 1.5]", GLM_EFORMAT},
        {"eos_token_id", "[1, [2]]", GLM_EFORMAT},
        {"eos_token_id", "{}", GLM_EFORMAT},
        {"eos_token_id", "[1,2,3,4,5,6,7,8,9]", GLM_EFORMAT},
        {"quantization_config", "7", GLM_EFORMAT},
        {"quantization_config", "{\"quant_method\": \"modelopt\", \"quant_algo\": \"NVFP4\"}",
            GLM_ENOTSUP},
        {"quantization_config", "{\"quant_method\": \"mxfp4\"}", GLM_ENOTSUP},
        {"quantization_config", "{\"quant_method\": \"bitsandbytes\"}", GLM_ENOTSUP},
        {"quantization_config",
            "{\"quant_method\": \"compressed-tensors\", \"format\": \"nvfp4-pack-quantized\"}",
            GLM_ENOTSUP},
        {"quantization_config",
            "{\"quant_method\": \"compressed-tensors\", \"format\": \"mxfp4-pack-quantized\"}",
            GLM_ENOTSUP},
        {"quantization_config",
            "{\"quant_method\": \"compressed-tensors\", \"format\": \"int-quantized\"}",
            GLM_ENOTSUP},
        {"quantization_config", "{\"quant_method\": \"fp8\", \"weight_block_size\": [0, 128]}",
            GLM_EFORMAT},
        {"quantization_config", "{\"quant_method\": \"fp8\", \"weight_block_size\": [128]}",
            GLM_EFORMAT},
        {"quantization_config", "{\"quant_method\": \"gptq\", \"bits\": 4, \"group_size\": 0}",
            GLM_EFORMAT},
        {"quantization_config", "{\"quant_method\": \"gptq\", \"bits\": -4}", GLM_EFORMAT},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct ckpt *c;
        glm_error err;
        int32_t rc = open_config_with(bad[i].key, bad[i].value, &c, &err);
        ck_assert_msg(
            rc == bad[i].status, "%s %s: %d %s", bad[i].key, bad[i].value, rc, err.message);
        ck_assert_str_eq(err.where, "c/config.json");
    }
}
END_TEST

START_TEST(accepts_both_spellings_of_rope)
{
    struct ckpt *c;
    glm_error err;
    ck_assert_int_eq(
        open_config_with("rope_parameters",
            "{\"rope_type\": \"default\", \"rope_theta\": 5e5, \"partial_rotary_factor\": 1.0}", &c,
            &err),
        GLM_OK);
    ck_assert(ckpt_hparams(c)->rope_theta == 5e5);
    ck_assert_uint_eq(ckpt_hparams(c)->n_rot, 16);
    ckpt_close(c);
    ck_assert_int_eq(
        open_config_with("rope_parameters", "{\"rope_type\": \"default\"}", &c, &err), GLM_OK);
    ck_assert(ckpt_hparams(c)->rope_theta == 1e6);
    ck_assert_uint_eq(ckpt_hparams(c)->n_rot, 8);
    ckpt_close(c);
    ck_assert_int_eq(open_config_with("rope_scaling", NULL, &c, &err), GLM_OK);
    char name[64]; /* without weights a name is still spelled */
    ckpt_role_name(c, ROLE_UP, 1, 0, name, sizeof(name));
    ck_assert_str_eq(name, "model.layers.1.mlp.up_proj.weight");
    ckpt_close(c);
    ck_assert_int_eq(open_config_with("head_dim", NULL, &c, &err), GLM_OK);
    ck_assert_uint_eq(ckpt_hparams(c)->d_head, 16);
    ckpt_close(c);
}
END_TEST

START_TEST(family_configurations)
{
    static const struct {
        const char *name;
        uint32_t n_layer, n_expert, n_ctx;
        float scale;
    } family[] = {
        {"GLM-4.5-Air", 46, 128, 131072, 1.0f},
        {"GLM-4.5-Air-Base", 46, 128, 131072, 1.0f},
        {"GLM-4.5-Air-FP8", 46, 128, 131072, 1.0f},
        {"GLM-4.5", 92, 160, 131072, 2.5f},
        {"GLM-4.5-Base", 92, 160, 131072, 2.5f},
        {"GLM-4.5-FP8", 92, 160, 131072, 2.5f},
        {"GLM-4.6", 92, 160, 202752, 2.5f},
        {"GLM-4.7", 92, 160, 202752, 2.5f},
        {"GLM-4.7-FP8", 92, 160, 202752, 2.5f},
    };
    for (size_t i = 0; i < ARRAY_LEN(family); i++) {
        char name[128];
        snprintf(name, sizeof(name), "configs/%s.config.json", family[i].name);
        mf_load(&files, name, "c/config.json");
        struct ckpt *c = must_open("c", GLM_WEIGHTS_NONE);
        const struct hparams *h = ckpt_hparams(c);
        const struct generation_defaults *g = ckpt_generation(c);
        ck_assert_uint_eq(h->n_layer, family[i].n_layer);
        ck_assert_uint_eq(h->n_expert, family[i].n_expert);
        ck_assert_uint_eq(h->n_ctx_train, family[i].n_ctx);
        ck_assert(
            h->routed_scale == family[i].scale && h->rope_theta == 1e6 && h->norm_eps == 1e-5f);
        ck_assert(h->n_head == 96 && h->n_head_kv == 8 && h->d_head == 128 && h->n_rot == 64 &&
                  h->n_nextn == 1);
        ck_assert(h->norm_topk && h->qkv_bias && h->qk_norm == (family[i].n_layer == 92));
        ck_assert(
            g->n_eos == 3 && g->eos[0] == 151329 && g->eos[1] == 151336 && g->eos[2] == 151338);
        ckpt_close(c);
    }
    struct ckpt *c;
    glm_error err;
    mf_load(&files, "configs/GLM-4.7-Flash.config.json", "c/config.json");
    ck_assert_int_eq(open_checked(&files, "c", GLM_WEIGHTS_NONE, &mem, &c, &err), GLM_ENOTSUP);
    ck_assert_ptr_nonnull(strstr(err.message, "Flash"));
}
END_TEST

START_TEST(vision_models_nest_their_text)
{
    struct ckpt *c;
    glm_error err;
    char text[4096];
    ck_assert_int_eq(open_config_with("x", NULL, &c, &err), GLM_OK);
    ckpt_close(c);
    struct mf_entry *e = mf_find(&files, "c/config.json");
    snprintf(text, sizeof(text),
        "{\"model_type\": \"glm4v_moe\", \"eos_token_id\": 5, \"text_config\": %.*s}", (int)e->size,
        (const char *)e->bytes);
    mf_text(&files, "c/config.json", text);
    c = must_open("c", GLM_WEIGHTS_NONE);
    ck_assert_uint_eq(ckpt_hparams(c)->d_model, 96);
    ck_assert_uint_eq(ckpt_generation(c)->n_eos, 2);
    ckpt_close(c);
}
END_TEST

START_TEST(hostile_json)
{
    static const char *const bad[] = {"", "{", "[]", "null", "{\"a\": 1, \"a\": 2}",
        "{\"model_type\": \"\xff\"}", "{} x", "{\"model_type\": \"glm4_moe\"}",
        "{\"text_config\": {}}", "\xef\xbb\xbf{}"};
    struct ckpt *c;
    glm_error err;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        mf_text(&files, "c/config.json", bad[i]);
        ck_assert_msg(
            open_checked(&files, "c", GLM_WEIGHTS_NONE, &mem, &c, &err) < 0, "%s", bad[i]);
    }
    size_t n = 2000000;
    char *deep = malloc(n);
    for (int kind = 0; kind < 3; kind++) {
        memset(deep, '[', n);
        for (size_t i = 0; kind > 0 && i < n; i += 2)
            deep[i] = kind == 1 ? ',' : '0', deep[i + 1] = kind == 1 ? '0' : ',';
        deep[0] = '{', deep[1] = '"', deep[2] = 'a', deep[3] = '"', deep[4] = ':', deep[5] = '[',
        deep[6] = '0';
        if (kind == 2)
            deep[7] = ',', deep[8] = '0', deep[n - 2] = ']', deep[n - 1] = '}', deep[n - 3] = '0',
            deep[n - 4] = ',';
        mf_put(&files, "c/config.json", deep, n);
        mem_init(&mem, NULL);
        ck_assert_int_lt(open_checked(&files, "c", GLM_WEIGHTS_NONE, &mem, &c, &err), 0);
        ck_assert_uint_lt(mem.peak, (16u << 20) + 2 * n);
    }
    free(deep);
}
END_TEST

/* ---- the folder's other files -------------------------------------------------------------- */

START_TEST(generation_defaults)
{
    struct ckpt *c;
    glm_error err;
    ck_assert_int_eq(open_config_with("x", NULL, &c, &err), GLM_OK);
    const struct generation_defaults *g = ckpt_generation(c);
    ck_assert(
        isnan(g->temperature) && isnan(g->top_p) && isnan(g->min_p) && isnan(g->repeat_penalty));
    ck_assert(g->top_k == -1 && g->do_sample == -1 && g->n_eos == 2 && g->eos[1] == 2);
    ckpt_close(c);
    mf_text(&files, "c/generation_config.json",
        "{\"temperature\": 0.6, \"top_p\": 0.95, \"min_p\": 0, \"top_k\": 40, "
        "\"repetition_penalty\": 1.1, \"do_sample\": true, \"eos_token_id\": 9, \"pad_token_id\": "
        "null}");
    c = must_open("c", GLM_WEIGHTS_NONE);
    g = ckpt_generation(c);
    ck_assert(g->temperature == 0.6f && g->top_p == 0.95f && g->min_p == 0.0f &&
              g->repeat_penalty == 1.1f);
    ck_assert(g->top_k == 40 && g->do_sample == 1 && g->n_eos == 1 && g->eos[0] == 9);
    ckpt_close(c);
    mf_text(&files, "c/generation_config.json", "{\"temperature\": null, \"top_k\": null}");
    c = must_open("c", GLM_WEIGHTS_NONE);
    ck_assert(isnan(ckpt_generation(c)->temperature) && ckpt_generation(c)->n_eos == 2);
    ckpt_close(c);
    static const char *const bad[] = {"{\"temperature\": -1}", "{\"temperature\": 1e999}",
        "{\"temperature\": \"1\"}", "{\"top_p\": 1.5}", "{\"top_k\": -3}", "{\"top_k\": 1.5}",
        "{\"do_sample\": 1}", "{\"eos_token_id\": 4294967296}", "{\"eos_token_id\": \"a\"}", "[",
        "7"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        mf_text(&files, "c/generation_config.json", bad[i]);
        ck_assert_msg(
            open_checked(&files, "c", GLM_WEIGHTS_NONE, &mem, &c, &err) < 0, "%s", bad[i]);
        ck_assert_str_eq(err.where, "c/generation_config.json");
    }
    mf_load(&files, "configs/GLM-4.5.config.json", "c/config.json");
    mf_load(&files, "configs/GLM-4.5.generation_config.json", "c/generation_config.json");
    ckpt_close(must_open("c", GLM_WEIGHTS_NONE));
}
END_TEST

START_TEST(tokenizer_and_template)
{
    struct ckpt *c;
    glm_error err;
    size_t n;
    uint8_t x[32], y[32];
    ck_assert_int_eq(open_config_with("x", NULL, &c, &err), GLM_OK);
    ck_assert_ptr_null(ckpt_template(c, &n));
    ckpt_fingerprint(c, x);
    ckpt_close(c);
    mf_text(&files, "c/tokenizer.json", "{\"t\": 1}");
    mf_text(&files, "c/tokenizer_config.json", tokenizer_config);
    c = must_open("c", GLM_WEIGHTS_NONE);
    ck_assert_uint_eq(ckpt_vocab(c).kind, VOCAB_JSON);
    ck_assert_uint_eq(ckpt_vocab(c).json_size, 8);
    ck_assert_mem_eq(ckpt_vocab(c).json, "{\"t\": 1}", 8);
    ck_assert_str_eq(ckpt_vocab(c).where, "c/tokenizer.json");
    ck_assert_str_eq(ckpt_template(c, &n), "[gMASK]<sop>");
    ck_assert_uint_eq(n, 12);
    ckpt_fingerprint(c, y);
    ck_assert_mem_ne(x, y, 32);
    ckpt_close(c);
    mf_text(&files, "c/tokenizer_config.json", "{\"chat_template\": \"one\"}");
    c = must_open("c", GLM_WEIGHTS_NONE);
    ck_assert_str_eq(ckpt_template(c, &n), "one");
    ckpt_close(c);
    mf_text(&files, "c/chat_template.jinja", "two\n");
    c = must_open("c/", GLM_WEIGHTS_NONE);
    ck_assert_str_eq(ckpt_template(c, &n), "two\n");
    ckpt_close(c);
    /* without a configuration */
    mf_remove(&files, "c/config.json");
    c = must_open("c", GLM_WEIGHTS_NONE);
    ck_assert_ptr_null(ckpt_hparams(c));
    ck_assert_str_eq(ckpt_kind(c), "tokenizer");
    ck_assert_uint_eq(ckpt_vocab(c).json_size, 8);
    struct weight w;
    ck_assert_int_eq(ckpt_weight(c, ROLE_NORM, 0, 0, 1, 64, false, &w, &err), GLM_ESTATE);
    ckpt_close(c);
    ck_assert_int_eq(open_checked(&files, "c", GLM_WEIGHTS_MAP, &mem, &c, &err), GLM_EINVAL);
    c = must_open("c/tokenizer.json", GLM_WEIGHTS_NONE);
    ck_assert_str_eq(ckpt_kind(c), "tokenizer");
    ckpt_close(c);
    ck_assert_int_eq(
        open_checked(&files, "c/chat_template.jinja", GLM_WEIGHTS_NONE, &mem, &c, &err),
        GLM_EFORMAT);
    ck_assert_int_eq(open_checked(&files, "nowhere", GLM_WEIGHTS_NONE, &mem, &c, &err), GLM_EIO);
    ck_assert_int_eq(open_checked(&files, "", GLM_WEIGHTS_NONE, &mem, &c, &err), GLM_EINVAL);
}
END_TEST

START_TEST(files_that_are_not_folders)
{
    struct ckpt *c;
    glm_error err;
    load_golden("group-f32", "m");
    ck_assert_int_eq(
        open_checked(&files, "m/model.safetensors", GLM_WEIGHTS_MAP, &mem, &c, &err), GLM_EINVAL);
    ck_assert_ptr_nonnull(strstr(err.message, "folder"));
    mf_remove(&files, "m/config.json");
    ck_assert_int_eq(open_checked(&files, "m", GLM_WEIGHTS_MAP, &mem, &c, &err), GLM_EIO);
    ck_assert_ptr_nonnull(strstr(err.message, "config.json"));
    for (size_t size = 0; size < 64; size++) { /* files of nothing but one byte */
        uint8_t bytes[64];
        for (int b = 0; b < 256; b += 5) {
            memset(bytes, b, sizeof(bytes));
            mf_put(&files, "f", bytes, size);
            ck_assert_int_lt(open_checked(&files, "f", GLM_WEIGHTS_MAP, &mem, &c, &err), 0);
        }
    }
}
END_TEST

/* ---- the index ----------------------------------------------------------------------------- */

static int32_t open_index(const char *text, struct ckpt **c, glm_error *err)
{
    mf_text(&files, "c/model.safetensors.index.json", text);
    return open_checked(&files, "c", GLM_WEIGHTS_MAP, &mem, c, err);
}

START_TEST(index_says_where)
{
    static struct st_maker s;
    struct ckpt *c;
    struct weight w;
    glm_error err;
    float one = 1, two = 2;
    ck_assert_int_eq(open_config_with("x", NULL, &c, &err), GLM_OK);
    ckpt_close(c);
    maker_begin(&s);
    maker_add(&s, "model.norm.weight", "F32", "[1]", &one, 4);
    maker_add(&s, "b", "F32", "[1]", &one, 4);
    maker_end(&s, &files, "c/x.safetensors");
    maker_begin(&s);
    maker_add(&s, "model.norm.weight", "F32", "[1]", &two, 4);
    maker_add(&s, "left.out", "F32", "[1]", &one, 4);
    maker_end(&s, &files, "c/mtp.safetensors");
    /* both files have the tensor: the map decides */
    ck_assert_int_eq(
        open_index("{\"metadata\": {\"total_size\": 8}, \"weight_map\": {\"b\": \"x.safetensors\", "
                   "\"model.norm.weight\": \"mtp.safetensors\"}}",
            &c, &err),
        GLM_OK);
    ck_assert_uint_eq(ckpt_n_tensor(c), 2);
    ck_assert_int_eq(ckpt_weight(c, ROLE_NORM, 0, 0, 1, 1, false, &w, &err), GLM_OK);
    ck_assert(view_at(&w, 0, 0) == 2);
    ck_assert_uint_eq(
        ckpt_hparams(c)->n_nextn, 0); /* the configuration has one, the files do not */
    ckpt_close(c);
    static const char *const bad[] = {
        "",
        "[]",
        "{}",
        "{\"weight_map\": {}}",
        "{\"weight_map\": []}",
        "{\"weight_map\": 3}",
        "{\"weight_map\": {\"b\": 3}}",
        "{\"weight_map\": {\"b\": {}}}",
        "{\"weight_map\": {\"b\": null}}",
        "{\"weight_map\": {\"b\": \"\"}}",
        "{\"weight_map\": {\"b\": \"../x.safetensors\"}}",
        "{\"weight_map\": {\"b\": \"/x.safetensors\"}}",
        "{\"weight_map\": {\"b\": \"a/x.safetensors\"}}",
        "{\"weight_map\": {\"b\": \"..\"}}",
        "{\"weight_map\": {\"b\": \"a\\\\x\"}}",
        "{\"weight_map\": {\"b\": \"a\\u0000\"}}",
        "{\"weight_map\": {\"b\": \"C:x\"}}",
        "{\"weight_map\": {\"\": \"x.safetensors\"}}",
        "{\"weight_map\": {\"b\": \"gone.safetensors\"}}",
        "{\"weight_map\": {\"b\": \"x.safetensors\", \"b\": \"x.safetensors\"}}",
        "{\"weight_map\": {\"b\": \"x.safetensors\"}, \"weight_map\": {\"b\": \"x.safetensors\"}}",
        "{\"weight_map\": {\"b\": \"x.safetensors\", \"none\": \"x.safetensors\"}}",
        "{\"weight_map\": {\"b\": \"x.safetensors\"}}", /* no norm: not a model */
        "{\"weight_map\": {\"b\": \"x.safetensors\", \"model.norm.weight\": \"x.safetensors\"}} 5",
        "{\"weight_map\": {\"b\": \"x.safetensors\", \"model.norm.weight\": \"x.safetensors\"}",
        "{\"metadata\": [[[, \"weight_map\": {}}",
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        ck_assert_msg(open_index(bad[i], &c, &err) < 0, "%s", bad[i]);
    ck_assert_int_eq(open_index("{\"weight_map\": {\"model.norm.weight\": \"x.safetensors\", "
                                "\"none\": \"x.safetensors\"}}",
                         &c, &err),
        GLM_EFORMAT);
    ck_assert_ptr_nonnull(strstr(err.message, "none"));
    mf_remove(&files, "c/model.safetensors.index.json");
    ck_assert_int_eq(open_checked(&files, "c", GLM_WEIGHTS_MAP, &mem, &c, &err), GLM_EIO);
    ck_assert_ptr_nonnull(strstr(err.message, "model.safetensors"));
}
END_TEST

START_TEST(tied_head_and_prefix)
{
    static struct st_maker s;
    struct ckpt *c;
    struct weight w;
    glm_error err;
    static uint8_t embed[320 * 64];
    char name[128];
    for (size_t i = 0; i < sizeof(embed); i++)
        embed[i] = (uint8_t)i;
    ck_assert_int_eq(open_config_with("tie_word_embeddings", "true", &c, &err), GLM_OK);
    ckpt_close(c);
    maker_begin(&s);
    maker_add(&s, "model.language_model.norm.weight", "F16", "[64]", NULL, 128);
    maker_add(
        &s, "model.language_model.embed_tokens.weight", "BF16", "[320,32]", embed, sizeof(embed));
    maker_end(&s, &files, "c/model.safetensors");
    c = must_open("c", GLM_WEIGHTS_MAP);
    ck_assert_int_eq(ckpt_weight(c, ROLE_HEAD, 0, 0, 320, 32, false, &w, &err), GLM_OK);
    ck_assert_mem_eq(w.data, embed, sizeof(embed));
    ckpt_role_name(c, ROLE_HEAD, 0, 0, name, sizeof(name));
    ck_assert_str_eq(name, "model.language_model.embed_tokens.weight");
    ck_assert_int_eq(ckpt_weight(c, ROLE_UP, 3, 0, 8, 8, false, &w, &err), GLM_EFORMAT);
    ck_assert_str_eq(err.where, "model.language_model.layers.3.mlp.up_proj.weight");
    ck_assert_int_eq(
        ckpt_weight(c, ROLE_EXP_UP, 4294967295u, 4294967295u, 8, 8, false, &w, &err), GLM_EFORMAT);
    ck_assert_int_eq(ckpt_weight(c, ROLE_UP, 3, 0, 8, 8, true, &w, &err), GLM_OK);
    ck_assert_uint_eq(w.format, W_NONE);
    ckpt_close(c);
}
END_TEST

/* ---- packed formats by hand ---------------------------------------------------------------- */

struct part {
    const char *suffix, *dtype, *shape;
    const void *bytes;
    size_t size;
};

/* A checkpoint whose only matrix is layer 0's o_proj, of these parts; then that matrix. */
static int32_t open_parts(const char *quant, const struct part *parts, size_t n, uint32_t n_out,
    uint32_t n_in, struct ckpt **c, struct weight *w, glm_error *err)
{
    static struct st_maker s;
    *c = NULL;
    int32_t rc = open_config_with("quantization_config", quant, c, err);
    if (rc != GLM_OK)
        return rc;
    ckpt_close(*c);
    maker_begin(&s);
    maker_add(&s, "model.norm.weight", "F32", "[64]", NULL, 256);
    for (size_t i = 0; i < n; i++) {
        char name[128];
        snprintf(name, sizeof(name), "model.layers.0.self_attn.o_proj.%s", parts[i].suffix);
        maker_add(&s, name, parts[i].dtype, parts[i].shape, parts[i].bytes, parts[i].size);
    }
    maker_end(&s, &files, "c/model.safetensors");
    *c = must_open("c", GLM_WEIGHTS_MAP);
    return ckpt_weight(*c, ROLE_O, 0, 0, n_out, n_in, false, w, err);
}

#define CT                                                                                         \
    "{\"quant_method\": \"compressed-tensors\", \"format\": \"pack-quantized\", "                  \
    "\"config_groups\": {\"group_0\": "                                                            \
    "{\"weights\": {\"num_bits\": 4, \"type\": \"int\", \"group_size\": 8}}}}"

/* 8 x 16, groups of 8: u = (o + i) mod 16; scale of (o, g) = o + 1 + g / 2; zero of (o, g) = (o +
 * g) mod 16. */
START_TEST(int4_layouts_by_hand)
{
    static const uint32_t order[8] = {0, 2, 4, 6, 1, 3, 5, 7};
    uint32_t packed[8][2] = {{0}}, awq[16][1] = {{0}}, gptq[2][8] = {{0}};
    uint32_t packed_zero[1][2] = {{0}}, awq_zero[2][1] = {{0}}, gptq_zero[2][1] = {{0}};
    float by_row[8][2], by_group[2][8];
    int64_t shape[2] = {8, 16};
    int32_t g_idx[16];
    for (uint32_t o = 0; o < 8; o++) {
        for (uint32_t i = 0; i < 16; i++) {
            uint32_t u = (o + i) % 16;
            packed[o][i / 8] |= u << 4 * (i % 8);
            gptq[i / 8][o] |= u << 4 * (i % 8);
            for (uint32_t k = 0; k < 8; k++)
                if (order[k] == o)
                    awq[i][0] |= u << 4 * k;
            g_idx[i] = (int32_t)(i % 2);
        }
        for (uint32_t g = 0; g < 2; g++) {
            uint32_t zero = (o + g) % 16;
            by_row[o][g] = by_group[g][o] = (float)(o + 1) + 0.5f * (float)g;
            packed_zero[0][g] |= zero << 4 * o;
            gptq_zero[g][0] |= zero << 4 * o;
            for (uint32_t k = 0; k < 8; k++)
                if (order[k] == o)
                    awq_zero[g][0] |= zero << 4 * k;
        }
    }
    const struct part ct[] = {{"weight_packed", "I32", "[8,2]", packed, 64},
        {"weight_scale", "F32", "[8,2]", by_row, 64}, {"weight_shape", "I64", "[2]", shape, 16},
        {"weight_zero_point", "I32", "[1,2]", packed_zero, 8},
        {"weight_g_idx", "I32", "[16]", g_idx, 64}};
    const struct part aw[] = {{"qweight", "I32", "[16,1]", awq, 64},
        {"qzeros", "I32", "[2,1]", awq_zero, 8}, {"scales", "F32", "[2,8]", by_group, 64}};
    const struct part gp[] = {{"qweight", "I32", "[2,8]", gptq, 64},
        {"qzeros", "I32", "[2,1]", gptq_zero, 8}, {"scales", "F32", "[2,8]", by_group, 64},
        {"g_idx", "I32", "[16]", g_idx, 64}};
    for (int kind = 0; kind < 6; kind++) {
        struct ckpt *c;
        struct weight w;
        glm_error err;
        bool symmetric = kind == 0, ordered = kind == 2 || kind == 5;
        int32_t rc =
            kind < 3    ? open_parts(CT, ct,
                           kind == 0   ? 3
                              : kind == 1 ? 4
                                          : 5,
                              8, 16, &c, &w, &err)
            : kind == 3 ? open_parts("{\"quant_method\": \"awq\", \"bits\": 4, \"group_size\": 8}",
                              aw, 3, 8, 16, &c, &w, &err)
                        : open_parts("{\"quant_method\": \"gptq\", \"bits\": 4, \"group_size\": 8}",
                              gp, kind == 4 ? 3 : 4, 8, 16, &c, &w, &err);
        ck_assert_msg(rc == GLM_OK, "%d: %s: %s", kind, err.where, err.message);
        ck_assert((w.zero == NULL) == symmetric);
        ck_assert((w.group != NULL) == ordered);
        for (uint32_t o = 0; o < 8; o++)
            for (uint32_t i = 0; i < 16; i++) {
                uint32_t g = ordered ? i % 2 : i / 8;
                int u = (int)((o + i) % 16),
                    zero = symmetric ? 8 : (int)((o + g) % 16) + (kind >= 4);
                float want = (float)(u - zero) * ((float)(o + 1) + 0.5f * (float)g);
                ck_assert_msg(view_at(&w, o, i) == want, "%d [%u, %u]: %f, not %f", kind, o, i,
                    view_at(&w, o, i), want);
            }
        ckpt_close(c);
    }
}
END_TEST

/* 3 x 200 in blocks of 2 x 128, ragged on both sides; one scale a row; one for all. */
START_TEST(fp8_scales_by_shape)
{
    uint8_t data[3 * 200];
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(0x38 + i % 8); /* 1, 1.125, .. 1.875 */
    const float block[2][2] = {{1, 2}, {4, 8}}, row[3] = {1, 3, 5}, one = 7;
    const uint16_t row_bf16[3] = {0x3f80, 0x4040, 0x40a0}, row_f16[3] = {0x3c00, 0x4200, 0x4500};
    const struct {
        struct part scale;
        int kind;
    } forms[] = {
        {{"weight_scale_inv", "F32", "[2,2]", block, 16}, 0},
        {{"weight_scale", "F32", "[2,2]", block, 16}, 0},
        {{"weight_scale", "F32", "[3,1]", row, 12}, 1},
        {{"weight_scale_inv", "F32", "[3]", row, 12}, 1},
        {{"weight_scale", "BF16", "[3,1]", row_bf16, 6}, 1},
        {{"weight_scale", "F16", "[3]", row_f16, 6}, 1},
        {{"weight_scale", "F32", "[]", &one, 4}, 2},
        {{"weight_scale", "F32", "[1]", &one, 4}, 2},
    };
    static const char quant[] = "{\"quant_method\": \"fp8\", \"weight_block_size\": [2, 128]}";
    struct ckpt *c;
    struct weight w;
    glm_error err;
    for (size_t f = 0; f < ARRAY_LEN(forms); f++) {
        const struct part parts[] = {
            {"weight", "F8_E4M3", "[3,200]", data, sizeof(data)}, forms[f].scale};
        ck_assert_int_eq(open_parts(quant, parts, 2, 3, 200, &c, &w, &err), GLM_OK);
        ck_assert_uint_eq(w.format, W_F8);
        for (uint32_t o = 0; o < 3; o++)
            for (uint32_t i = 0; i < 200; i++) {
                float s = forms[f].kind == 0   ? block[o / 2][i / 128]
                          : forms[f].kind == 1 ? row[o]
                                               : one;
                ck_assert(view_at(&w, o, i) == (1.0f + (float)((o * 200 + i) % 8) / 8) * s);
            }
        ckpt_close(c);
    }
    static const struct {
        struct part scale;
        int32_t status;
    } bad[] = {
        {{"weight_scale", "F32", "[2,3]", NULL, 24}, GLM_EFORMAT},
        {{"weight_scale", "F32", "[1,2]", NULL, 8}, GLM_EFORMAT},
        {{"weight_scale", "F32", "[3,2]", NULL, 24}, GLM_EFORMAT},
        {{"weight_scale", "F32", "[2,2,1]", NULL, 16}, GLM_EFORMAT},
        {{"weight_scale", "F32", "[0]", NULL, 0}, GLM_EFORMAT},
        {{"weight_scale", "F8_E8M0", "[3,1]", NULL, 3}, GLM_ENOTSUP},
        {{"weight_scale", "F64", "[3,1]", NULL, 24}, GLM_ENOTSUP},
        {{"input_scale", "F32", "[1]", NULL, 4}, GLM_EFORMAT},
    };
    for (size_t f = 0; f < ARRAY_LEN(bad); f++) {
        const struct part parts[] = {
            {"weight", "F8_E4M3", "[3,200]", data, sizeof(data)}, bad[f].scale};
        int32_t rc = open_parts(quant, parts, 2, 3, 200, &c, &w, &err);
        ck_assert_msg(rc == bad[f].status, "%s %s: %d", bad[f].scale.dtype, bad[f].scale.shape, rc);
        ck_assert_ptr_nonnull(strstr(err.where, "o_proj.weight_scale"));
        ckpt_close(c);
    }
}
END_TEST

START_TEST(refuses_bad_packing)
{
    static const int32_t high[16] = {0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 2};
    static const int32_t negative[16] = {0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, -2};
    static const int64_t shape[2] = {16, 8};
    static const char awq[] = "{\"quant_method\": \"awq\", \"bits\": 4, \"group_size\": 8}";
    static const char gptq[] = "{\"quant_method\": \"gptq\", \"bits\": 4, \"group_size\": 8}";
#define PACKED                                                                                     \
    {                                                                                              \
        "weight_packed", "I32", "[8,2]", NULL, 64                                                  \
    }
#define SCALE                                                                                      \
    {                                                                                              \
        "weight_scale", "BF16", "[8,2]", NULL, 32                                                  \
    }
#define GPTQ                                                                                       \
    {"qweight", "I32", "[2,8]", NULL, 64},                                                         \
    {                                                                                              \
        "qzeros", "I32", "[2,1]", NULL, 8                                                          \
    }
#define SCALES                                                                                     \
    {                                                                                              \
        "scales", "F16", "[2,8]", NULL, 32                                                         \
    }
    static const struct {
        const char *quant;
        int32_t status;
        struct part parts[4];
    } bad[] = {
        {CT, GLM_EFORMAT, {PACKED}},
        {CT, GLM_EFORMAT, {{"weight_packed", "I32", "[8,4]", NULL, 128}, SCALE}},
        {CT, GLM_EFORMAT, {{"weight_packed", "I32", "[2,8]", NULL, 64}, SCALE}},
        {CT, GLM_EFORMAT, {{"weight_packed", "I32", "[8,2,1]", NULL, 64}, SCALE}},
        {CT, GLM_EFORMAT, {{"weight_packed", "I32", "[16]", NULL, 64}, SCALE}},
        {CT, GLM_ENOTSUP, {{"weight_packed", "U8", "[8,8]", NULL, 64}, SCALE}},
        {CT, GLM_EFORMAT, {PACKED, {"weight_scale", "BF16", "[2,8]", NULL, 32}}},
        {CT, GLM_EFORMAT, {PACKED, {"weight_scale", "BF16", "[8,0]", NULL, 0}}},
        {CT, GLM_EFORMAT, {PACKED, {"weight_scale", "BF16", "[8,17]", NULL, 272}}},
        {CT, GLM_ENOTSUP, {PACKED, {"weight_scale", "BF16", "[8,3]", NULL, 48}}},
        {CT, GLM_ENOTSUP, {PACKED, {"weight_scale", "BF16", "[8,4]", NULL, 64}}},
        {CT, GLM_ENOTSUP, {PACKED, {"weight_scale", "F8_E4M3", "[8,2]", NULL, 16}}},
        {CT, GLM_EFORMAT, {PACKED, SCALE, {"weight_shape", "I64", "[2]", shape, 16}}},
        {CT, GLM_ENOTSUP, {PACKED, SCALE, {"weight_shape", "F32", "[2]", shape, 8}}},
        {CT, GLM_EFORMAT, {PACKED, SCALE, {"weight_zero_point", "I32", "[8,2]", NULL, 64}}},
        {CT, GLM_ENOTSUP, {PACKED, SCALE, {"weight_zero_point", "I8", "[8,2]", NULL, 16}}},
        {CT, GLM_EFORMAT, {PACKED, SCALE, {"weight_g_idx", "I32", "[16]", high, 64}}},
        {CT, GLM_EFORMAT, {PACKED, SCALE, {"weight_g_idx", "I32", "[16]", negative, 64}}},
        {CT, GLM_EFORMAT, {PACKED, SCALE, {"weight_g_idx", "I32", "[8]", high, 32}}},
        {CT, GLM_ENOTSUP, {PACKED, SCALE, {"weight_g_idx", "I64", "[16]", NULL, 128}}},
        {gptq, GLM_EFORMAT, {{"qweight", "I32", "[2,8]", NULL, 64}}},
        {gptq, GLM_EFORMAT, {{"qweight", "I32", "[2,8]", NULL, 64}, SCALES}},
        {gptq, GLM_EFORMAT, {GPTQ}},
        {gptq, GLM_EFORMAT, {GPTQ, {"scales", "F16", "[2,16]", NULL, 64}}},
        {gptq, GLM_EFORMAT, {GPTQ, {"scales", "F16", "[1,8]", NULL, 16}}},
        {gptq, GLM_ENOTSUP, {GPTQ, {"scales", "I32", "[2,8]", NULL, 64}}},
        {gptq, GLM_EFORMAT, {GPTQ, SCALES, {"g_idx", "I32", "[16]", high, 64}}},
        {gptq, GLM_EFORMAT, {GPTQ, SCALES, {"g_idx", "I32", "[16]", negative, 64}}},
        {awq, GLM_EFORMAT, {{"qweight", "I32", "[8,2]", NULL, 64}, SCALES}},
        {awq, GLM_ENOTSUP,
            {{"qweight", "F32", "[16,1]", NULL, 64}, {"qzeros", "I32", "[2,1]", NULL, 8}, SCALES}},
        {"{\"quant_method\": \"gptq\", \"bits\": 4, \"checkpoint_format\": \"gptq_v2\"}",
            GLM_ENOTSUP, {GPTQ, SCALES}},
        {"{\"quant_method\": \"awq\", \"bits\": 4, \"version\": \"gemv\"}", GLM_ENOTSUP,
            {GPTQ, SCALES}},
        {"{\"quant_method\": \"gptq\", \"bits\": 8}", GLM_ENOTSUP, {GPTQ, SCALES}},
        {"null", GLM_ENOTSUP,
            {{"weight", "U8", "[8,8]", NULL, 64}, {"weight_scale", "F8_E4M3", "[8,1]", NULL, 8}}},
        {"null", GLM_ENOTSUP, {{"weight", "F8_E5M2", "[8,16]", NULL, 128}}},
        {"null", GLM_EFORMAT, {{"weight", "BF16", "[16,8]", NULL, 256}}},
        {"null", GLM_EFORMAT, {{"weight", "BF16", "[128]", NULL, 256}}},
        {"null", GLM_EFORMAT, {{"weight", "BF16", "[1,8,16]", NULL, 256}}},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct ckpt *c;
        struct weight w = {.format = 99};
        glm_error err;
        size_t n = 0;
        while (n < 4 && bad[i].parts[n].suffix != NULL)
            n++;
        int32_t rc = open_parts(bad[i].quant, bad[i].parts, n, 8, 16, &c, &w, &err);
        ck_assert_msg(rc == bad[i].status, "%zu: %d %s: %s", i, rc, err.where, err.message);
        ck_assert_msg(
            strstr(err.where, "o_proj.") != NULL && err.message[0] != 0, "%zu: %s", i, err.where);
        ck_assert_uint_eq(w.format, 99); /* untouched */
        ckpt_close(c);
    }
}
END_TEST

START_TEST(fused_experts_have_their_shape)
{
    static struct st_maker s;
    struct ckpt *c;
    struct weight w;
    glm_error err;
    float rows[12 * 2 * 2 * 3];
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        rows[i] = (float)i;
    ck_assert_int_eq(open_config_with("x", NULL, &c, &err), GLM_OK);
    ckpt_close(c);
    maker_begin(&s);
    maker_add(&s, "model.norm.weight", "F32", "[64]", NULL, 256);
    maker_add(&s, "model.layers.1.mlp.experts.gate_up_proj", "F32", "[12,4,3]", rows, sizeof(rows));
    maker_add(&s, "model.layers.1.mlp.experts.down_proj", "F8_E4M3", "[12,3,2]", NULL, 72);
    maker_end(&s, &files, "c/model.safetensors");
    c = must_open("c", GLM_WEIGHTS_MAP);
    for (uint32_t e = 0; e < 12; e++)
        for (int up = 0; up < 2; up++) {
            ck_assert_int_eq(
                ckpt_weight(c, up ? ROLE_EXP_UP : ROLE_EXP_GATE, 1, e, 2, 3, false, &w, &err),
                GLM_OK);
            ck_assert(view_at(&w, 1, 2) == (float)((e * 4 + (uint32_t)up * 2 + 1) * 3 + 2));
        }
    ck_assert_int_eq(ckpt_weight(c, ROLE_EXP_UP, 1, 12, 2, 3, false, &w, &err), GLM_EINVAL);
    ck_assert_int_eq(ckpt_weight(c, ROLE_EXP_UP, 1, 0, 4, 3, false, &w, &err), GLM_EFORMAT);
    ck_assert_int_eq(ckpt_weight(c, ROLE_EXP_DOWN, 1, 0, 3, 2, false, &w, &err), GLM_ENOTSUP);
    ckpt_close(c);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("hf");
    TCase *tc = tcase_create("folder");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 240);
    tcase_add_test(tc, goldens_bind);
    tcase_add_test(tc, quantized_forms_are_near_their_original);
    tcase_add_test(tc, reading_equals_mapping);
    tcase_add_test(tc, progress_and_giving_up);
    tcase_add_test(tc, every_allocation_fails);
    tcase_add_test(tc, every_read_fails);
    tcase_add_test(tc, sweeps_hyperparameters);
    tcase_add_test(tc, refuses_other_settings);
    tcase_add_test(tc, accepts_both_spellings_of_rope);
    tcase_add_test(tc, family_configurations);
    tcase_add_test(tc, vision_models_nest_their_text);
    tcase_add_test(tc, hostile_json);
    tcase_add_test(tc, generation_defaults);
    tcase_add_test(tc, tokenizer_and_template);
    tcase_add_test(tc, files_that_are_not_folders);
    tcase_add_test(tc, index_says_where);
    tcase_add_test(tc, tied_head_and_prefix);
    tcase_add_test(tc, int4_layouts_by_hand);
    tcase_add_test(tc, fp8_scales_by_shape);
    tcase_add_test(tc, refuses_bad_packing);
    tcase_add_test(tc, fused_experts_have_their_shape);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
