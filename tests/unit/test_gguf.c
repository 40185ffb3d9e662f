/* test_gguf.c: GGUF checkpoints: what valid ones say, and that no damaged or hostile one does more
 * than give an error that names its file and place. Files come from tests/data/golden and are
 * changed in memory.
 */
#include "ckpt_walk.h"
#include "gguf_edit.h"

#define ALIGN 32

static struct mf files;
static struct mem mem;
static glm_error err;

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

/* ---- helpers --------------------------------------------------------------------------------- */

/* Opens "f.gguf" and binds every weight. A failure has told what and where. */
static int32_t use(void)
{
    struct ckpt *c = NULL;
    int32_t status = open_checked(&files, "f.gguf", GLM_WEIGHTS_MAP, &mem, &c, &err);
    if (status != GLM_OK)
        return status;
    status = all_weights(c, &err);
    if (status != GLM_OK)
        ck_assert(err.code == status && err.message[0] && err.where[0]);
    ckpt_close(c);
    return status;
}

static void load(struct ge *g, const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "golden/%s", name);
    mf_load(&files, path, "f.gguf");
    mf_load(&files, path, "original");
    ge_parse(g, mf_find(&files, "original")->bytes, mf_find(&files, "original")->size);
}

static void change(const struct ge *g)
{
    ge_write(g, &files, "f.gguf", false, ALIGN);
}

static void refused(int32_t code, const char *where)
{
    int32_t status = use();
    ck_assert_msg(status == code, "status %d, not %d, of %s: %s", status, code, where, err.message);
    ck_assert_msg(strstr(err.where, where) != NULL, "'%s' is not in '%s' (%s)", where, err.where,
        err.message);
}

/* ---- valid files ----------------------------------------------------------------------------- */

static const char *const golden[] = {"air256-gguf-BF16/BF16", "air256-gguf-IQ4_NL/IQ4_NL",
    "air256-gguf-IQ4_XS/IQ4_XS", "air256-gguf-MXFP4_MOE/MXFP4_MOE", "air256-gguf-Q2_K/Q2_K",
    "air256-gguf-Q3_K_M/Q3_K_M", "air256-gguf-Q4_0/Q4_0", "air256-gguf-Q4_1/Q4_1",
    "air256-gguf-Q4_K_M/Q4_K_M", "air256-gguf-Q5_0/Q5_0", "air256-gguf-Q5_1/Q5_1",
    "air256-gguf-Q5_K_M/Q5_K_M", "air256-gguf-Q6_K/Q6_K", "air256-gguf-Q8_0/Q8_0",
    "air256-gguf-split/split-00001-of-00003", "glm45mtp-gguf-Q8_0/Q8_0"};

/* Types as the maker's own list of them has it. */
static void check_types(const struct ckpt *c, const char *folder)
{
    char path[512], name[160];
    struct fs fs;
    struct json_doc doc;
    char *text;
    size_t size;
    fs_init(&fs, NULL);
    snprintf(name, sizeof name, "golden/%.*s/expect.json", (int)strcspn(folder, "/"), folder);
    ck_assert_int_eq(
        fs_load(&mem, &fs, data_path(name, path, sizeof path), 1 << 20, &text, &size, &err),
        GLM_OK);
    ck_assert_int_eq(json_parse(&mem, text, size, 0, path, &doc, &err), GLM_OK);
    const struct json *types = json_get(doc.root, "tensor_types");
    ck_assert_ptr_nonnull(types);
    ck_assert_uint_eq(types->count, ckpt_n_tensor(c));
    for (size_t i = 0; i < ckpt_n_tensor(c); i++) {
        struct tensor_entry t;
        ckpt_tensor(c, i, &t);
        ck_assert_msg(json_is_text(json_get(types, t.name), t.type), "%s: %s", t.name, t.type);
    }
    json_free(&doc);
    mem_free(&mem, text);
}

START_TEST(golden_files_open)
{
    char path[512], name[160];
    struct fs fs;
    struct ckpt *c;
    fs_init(&fs, NULL);
    snprintf(name, sizeof name, "golden/%s.gguf", golden[_i]);
    const struct ckpt_options map = {.fs = &fs}, read = {.fs = &fs, .weights = GLM_WEIGHTS_READ};
    for (int how = 0; how < 2; how++) {
        err = (glm_error)GLM_ERROR_INIT;
        int32_t status =
            ckpt_open(&mem, data_path(name, path, sizeof path), how ? &read : &map, &c, &err);
        ck_assert_msg(status == GLM_OK, "%s: %s", err.where, err.message);
        status = all_weights(c, &err);
        ck_assert_msg(status == GLM_OK, "%s: %s", err.where, err.message);
        check_types(c, golden[_i]);
        ck_assert_str_eq(ckpt_kind(c), "gguf");
        ckpt_close(c);
    }
}
END_TEST

START_TEST(numbers_and_vocabulary)
{
    struct ckpt *c;
    mf_load(&files, "golden/glm45mtp-gguf-Q8_0/Q8_0.gguf", "f.gguf");
    ck_assert_int_eq(open_checked(&files, "f.gguf", GLM_WEIGHTS_MAP, &mem, &c, &err), GLM_OK);
    const struct hparams *hp = ckpt_hparams(c);
    ck_assert(hp->n_layer == 3 && hp->n_layer_dense == 1 && hp->n_nextn == 1 && hp->d_model == 64);
    ck_assert(hp->n_head == 12 && hp->n_head_kv == 1 && hp->d_head == 32 && hp->n_rot == 16);
    ck_assert(hp->d_ff == 96 && hp->d_ff_exp == 32 && hp->n_expert == 8 && hp->n_expert_used == 2);
    ck_assert(hp->n_expert_shared == 1 && hp->n_group == 1 && hp->n_group_used == 1 &&
              hp->n_vocab == 280);
    ck_assert(hp->n_ctx_train == 8192 && hp->rope_theta == 1e6 && hp->norm_eps == 1e-5f &&
              hp->routed_scale == 2.5f);
    ck_assert(hp->norm_topk && hp->qk_norm && hp->qkv_bias);
    struct vocab_source v = ckpt_vocab(c);
    ck_assert(v.kind == VOCAB_GGUF && v.n_token == 280 && v.n_merge == 1 && v.types[0] == 1 &&
              v.types[279] == 3);
    ck_assert_str_eq(v.model, "gpt2");
    ck_assert_str_eq(v.pre, "glm4");
    ck_assert(v.tokens[97].size == 1 && v.tokens[97].text[0] == 'a');
    ck_assert(v.tokens[0].size == 2 && memcmp(v.tokens[0].text, "\xc4\x80", 2) == 0);
    ck_assert(v.tokens[279].size == 6 && memcmp(v.tokens[279].text, "<t279>", 6) == 0);
    ck_assert(v.merges[0].size == 3 && memcmp(v.merges[0].text, "a b", 3) == 0);
    ck_assert(ckpt_generation(c)->n_eos == 1 && ckpt_generation(c)->eos[0] == 279 &&
              ckpt_generation(c)->top_k == -1);
    size_t size = 7;
    ck_assert(ckpt_template(c, &size) == NULL && size == 0);
    char name[64];
    ckpt_role_name(c, ROLE_EXP_UP, 2, 5, name, sizeof name);
    ck_assert_str_eq(name, "blk.2.ffn_up_exps.weight");
    ckpt_role_name(c, ROLE_MTP_PROJ, 3, 0, name, sizeof name);
    ck_assert_str_eq(name, "blk.3.nextn.eh_proj.weight");
    ckpt_role_name(c, ROLE_MTP_PROJ, 3, 0, name, 8);
    ck_assert_str_eq(name, "blk.3.n");
    ckpt_close(c);
}
END_TEST

/* A view's bytes are those that the file's table says. */
START_TEST(views_point_at_their_bytes)
{
    struct ge g;
    struct ckpt *c;
    struct weight w;
    load(&g, "air256-gguf-Q4_K_M/Q4_K_M.gguf");
    ck_assert_int_eq(open_checked(&files, "f.gguf", GLM_WEIGHTS_MAP, &mem, &c, &err), GLM_OK);
    ck_assert_int_eq(ckpt_weight(c, ROLE_V, 1, 0, 32, 256, false, &w, &err), GLM_OK);
    ck_assert(w.format == W_Q6_K && w.row_bytes == 210);
    ck_assert_int_eq(memcmp(w.data, ge_tensor(&g, "blk.1.attn_v.weight")->data, 32 * 210), 0);
    const struct ge_tensor *down =
        ge_tensor(&g, "blk.1.ffn_down_exps.weight"); /* [96, 256, 4] of Q8_0 */
    for (uint32_t e = 0; e < 4; e++) {
        ck_assert_int_eq(ckpt_weight(c, ROLE_EXP_DOWN, 1, e, 256, 96, false, &w, &err), GLM_OK);
        ck_assert(w.format == W_Q8_0 && w.row_bytes == 102);
        ck_assert_int_eq(memcmp(w.data, down->data + e * 256 * 102, 256 * 102), 0);
    }
    ck_assert_int_eq(ckpt_weight(c, ROLE_EXP_DOWN, 1, 4, 256, 96, false, &w, &err), GLM_EINVAL);
    ck_assert_int_eq(ckpt_weight(c, ROLE_EXP_DOWN, 1, 0, 96, 256, false, &w, &err), GLM_EFORMAT);
    ck_assert_ptr_nonnull(strstr(err.where, "blk.1.ffn_down_exps.weight"));
    ck_assert_int_eq(ckpt_weight(c, ROLE_MTP_HEAD, 2, 0, 288, 256, true, &w, &err), GLM_OK);
    ck_assert_uint_eq(w.format, W_NONE);
    ck_assert_int_eq(ckpt_weight(c, ROLE_Q_NORM, 0, 0, 1, 32, false, &w, &err), GLM_EFORMAT);
    ck_assert_ptr_nonnull(strstr(err.where, "blk.0.attn_q_norm.weight"));
    ckpt_close(c);
    ge_free(&g);
}
END_TEST

START_TEST(fused_qkv)
{
    struct ge g;
    struct ckpt *c;
    struct weight w;
    static const char *const parts[] = {"q", "k", "v"};
    load(&g, "air256-gguf-BF16/BF16.gguf");
    for (uint32_t l = 0; l < 2; l++)
        for (int bias = 0; bias < 2; bias++) {
            char name[64];
            snprintf(name, sizeof name, "blk.%u.attn_qkv.%s", l, bias ? "bias" : "weight");
            size_t row = bias ? 4 : 512, at = 0;
            struct ge_tensor *t = ge_add_tensor(&g, name, bias ? 0 : 30, 256, 256, 256 * row);
            t->n_dim = bias ? 1 : 2;
            uint8_t *to = g.kept[g.n_kept - 1];
            for (size_t i = 0; i < 3; i++) {
                snprintf(
                    name, sizeof name, "blk.%u.attn_%s.%s", l, parts[i], bias ? "bias" : "weight");
                size_t size = (i == 0 ? 192 : 32) * row;
                memcpy(to + at, ge_tensor(&g, name)->data, size);
                at += size;
                ge_remove_tensor(&g, name);
            }
        }
    change(&g);
    ck_assert_int_eq(use(), GLM_OK);
    ck_assert_int_eq(open_checked(&files, "f.gguf", GLM_WEIGHTS_MAP, &mem, &c, &err), GLM_OK);
    ck_assert(ckpt_hparams(c)->qkv_bias);
    struct ge whole;
    ge_parse(&whole, mf_find(&files, "original")->bytes, mf_find(&files, "original")->size);
    const struct {
        enum role role;
        uint32_t n_out, n_in;
        const char *name;
    } cases[] = {{ROLE_Q, 192, 256, "blk.1.attn_q.weight"},
        {ROLE_K, 32, 256, "blk.1.attn_k.weight"}, {ROLE_V, 32, 256, "blk.1.attn_v.weight"},
        {ROLE_Q_BIAS, 1, 192, "blk.1.attn_q.bias"}, {ROLE_K_BIAS, 1, 32, "blk.1.attn_k.bias"},
        {ROLE_V_BIAS, 1, 32, "blk.1.attn_v.bias"}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        ck_assert_int_eq(
            ckpt_weight(c, cases[i].role, 1, 0, cases[i].n_out, cases[i].n_in, false, &w, &err),
            GLM_OK);
        ck_assert_int_eq(
            memcmp(w.data, ge_tensor(&whole, cases[i].name)->data, cases[i].n_out * w.row_bytes),
            0);
    }
    ck_assert_int_eq(ckpt_weight(c, ROLE_K, 1, 0, 192, 256, false, &w, &err), GLM_ENOTSUP);
    ckpt_close(c);
    ge_free(&g);
}
END_TEST

START_TEST(tied_head_and_missing_mtp)
{
    struct ge g;
    struct ckpt *c;
    struct weight embed, head;
    load(&g, "glm45mtp-gguf-Q8_0/Q8_0.gguf");
    ge_remove_tensor(&g, "output.weight");
    ge_remove_tensor(&g, "blk.3.nextn.eh_proj.weight"); /* stripped, as some files are */
    change(&g);
    ck_assert_int_eq(use(), GLM_OK);
    ck_assert_int_eq(open_checked(&files, "f.gguf", GLM_WEIGHTS_MAP, &mem, &c, &err), GLM_OK);
    ck_assert(ckpt_hparams(c)->n_layer == 3 && ckpt_hparams(c)->n_nextn == 0);
    ck_assert_int_eq(ckpt_weight(c, ROLE_EMBED, 0, 0, 280, 64, false, &embed, &err), GLM_OK);
    ck_assert_int_eq(ckpt_weight(c, ROLE_HEAD, 0, 0, 280, 64, false, &head, &err), GLM_OK);
    ck_assert_ptr_eq(embed.data, head.data);
    ckpt_close(c);
    ge_free(&g);
}
END_TEST

START_TEST(defaults_from_the_file)
{
    struct ge g;
    struct ckpt *c;
    float temp = 0.5f;
    int32_t top_k = 20;
    load(&g, "air256-gguf-Q8_0/Q8_0.gguf");
    ge_set_u32(&g, "tokenizer.ggml.eot_token_id", 5);
    ge_set_u32(&g, "tokenizer.ggml.eom_token_id", 287); /* as eos: listed once */
    ge_set_text(&g, "tokenizer.chat_template", "{{ x }}");
    ge_set(&g, "general.sampling.temp", 6, &temp, 4);
    ge_set(&g, "general.sampling.top_k", 5, &top_k, 4);
    ge_remove_key(&g, "glm4moe.expert_gating_func");
    ge_remove_key(&g, "glm4moe.expert_shared_count");
    change(&g);
    ck_assert_int_eq(open_checked(&files, "f.gguf", GLM_WEIGHTS_NONE, &mem, &c, &err), GLM_OK);
    const struct generation_defaults *gen = ckpt_generation(c);
    ck_assert(gen->n_eos == 2 && gen->eos[0] == 287 && gen->eos[1] == 5);
    ck_assert(gen->temperature == 0.5f && gen->top_k == 20 && gen->top_p != gen->top_p);
    size_t size;
    ck_assert_str_eq(ckpt_template(c, &size), "{{ x }}");
    ck_assert_uint_eq(size, 7);
    ckpt_close(c);
    ge_free(&g);
}
END_TEST

/* ---- hostile files --------------------------------------------------------------------------- */

START_TEST(truncated_anywhere)
{
    struct ge g;
    load(&g, "air256-gguf-Q4_K_M/Q4_K_M.gguf");
    struct mf_entry *f = mf_find(&files, "f.gguf");
    size_t whole = f->size,
           last = g.data_start + g.tensor[g.n_tensor - 1].offset + 1024; /* without padding */
    for (size_t n = 0; n < g.meta_end; n++) {
        f->size = n;
        ck_assert_msg(use() != GLM_OK, "opens with %zu bytes", n);
    }
    for (size_t i = 0; i < g.n_tensor; i++) {
        size_t end = g.data_start + g.tensor[i].offset + g.tensor[i].size;
        f->size = end < last ? end - 32 : last - 1; /* in the tensor: its padding is less than 32 */
        refused(GLM_EFORMAT, "f.gguf");
    }
    for (size_t i = 0; i < 200; i++) {
        f->size = g.meta_end + (last - g.meta_end) * i / 200;
        ck_assert_int_eq(use(), GLM_EFORMAT);
    }
    f->size = last;
    ck_assert_int_eq(use(), GLM_OK);
    f->size = whole;
    ck_assert_int_eq(use(), GLM_OK);
    ge_free(&g);
}
END_TEST

START_TEST(boundary_sweep)
{
    struct ge g;
    size_t n_opened = 0;
    load(&g, _i ? "glm45mtp-gguf-Q8_0/Q8_0.gguf" : "air256-gguf-Q4_K_M/Q4_K_M.gguf");
    struct mf_entry *f = mf_find(&files, "f.gguf");
    for (size_t i = 0; i < g.n_field; i++) {
        const struct ge_field *field = &g.field[i];
        uint64_t old = 0, left = f->size - field->at - field->width;
        const uint64_t values[] = {0, 1, 2, 0x7fffffff, 0x80000000u, 0xffffffffu, 1ull << 63,
            UINT64_MAX, left, left + 1, (uint64_t) - (int64_t)(field->at + field->width), 31,
            UINT64_MAX / 16, UINT64_MAX / 8 + 1};
        memcpy(&old, f->bytes + field->at, field->width);
        for (size_t v = 0; v < ARRAY_LEN(values); v++) {
            uint64_t put = field->width == 4 ? (uint32_t)values[v] : values[v];
            if (put == old)
                continue;
            memcpy(f->bytes + field->at, &put, field->width);
            mem.peak = 0;
            int32_t status = use();
            if (status == GLM_OK && strcmp(field->what, "type of a tensor") == 0)
                continue; /* a smaller type fits into the larger one's bytes */
            ck_assert_msg(status == GLM_EFORMAT || status == GLM_ENOTSUP,
                "%s (%zu of %s) = %llu: status %d", field->what, field->i, g.tensor[field->i].name,
                (unsigned long long)put, status);
            ck_assert_msg(mem.peak <= (16u << 20) + 2 * f->size, "%llu bytes taken",
                (unsigned long long)mem.peak);
            ck_assert_ptr_nonnull(strstr(err.where, "f.gguf"));
            n_opened++;
        }
        memcpy(f->bytes + field->at, &old, field->width);
    }
    ck_assert_uint_gt(n_opened, 2000);
    ck_assert_int_eq(use(), GLM_OK);
    ge_free(&g);
}
END_TEST

/* Each key of the file given every type. */
START_TEST(type_confusion)
{
    static const uint8_t bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    struct ge g;
    load(&g, "glm45mtp-gguf-Q8_0/Q8_0.gguf");
    float real = 2;
    ge_set_u32(&g, "general.alignment", 32);
    ge_set_text(&g, "glm4moe.rope.scaling.type", "none");
    ge_set_u32(&g, "tokenizer.ggml.eot_token_id", 1);
    ge_set_text(&g, "tokenizer.chat_template", "x");
    ge_set(&g, "general.sampling.temp", 6, &real, 4);
    ge_set_u32(&g, "general.sampling.top_k", 1);
    ge_set_text(&g, "general.type", "model");
    change(&g);
    ck_assert_int_eq(use(), GLM_OK);
    for (size_t i = 0; i < g.n_kv; i++)
        for (uint32_t type = 0; type < 26; type++) {
            struct ge_kv old = g.kv[i];
            uint8_t value[64] = {0};
            uint32_t scalar = type < 13 ? type : type - 13;
            size_t n = 0;
            if (scalar == 9) /* an array is one element of each type below */
                continue;
            if (type >= 13) {
                memcpy(value, &scalar, 4);
                value[4] = 1;
                n = 12;
            }
            value[n] = 1; /* the number 1, or a string of one letter */
            n += scalar == 8 ? 9 : bytes[scalar];
            g.kv[i].type = type < 13 ? type : 9, g.kv[i].value = value, g.kv[i].size = n;
            change(&g);
            int32_t status = use();
            bool known = strncmp(old.key, "general.name", 12) != 0 &&
                         strncmp(old.key, "general.q", 9) != 0 &&
                         strncmp(old.key, "general.file", 12) != 0;
            bool number = old.type == 4 || old.type == 5 || old.type == 6 || old.type == 7;
            ck_assert(status == GLM_OK || status == GLM_EFORMAT || status == GLM_ENOTSUP);
            if (known && (number         ? scalar == 8 || type >= 13
                             : type < 13 ? scalar != old.type
                                         : scalar != 8 && scalar != 5)) {
                ck_assert_msg(status == GLM_EFORMAT, "%s as type %u: %d", old.key, type, status);
                ck_assert_msg(strstr(err.where, old.key) != NULL, "%s: %s", old.key, err.where);
            }
            g.kv[i] = old;
        }
    ge_free(&g);
}
END_TEST

START_TEST(hyper_parameter_sweep)
{
    struct ge g;
    load(&g, "glm45mtp-gguf-Q8_0/Q8_0.gguf");
    size_t n_refused = 0;
    for (size_t i = 0; i < g.n_kv; i++) {
        struct ge_kv old = g.kv[i];
        uint32_t v;
        if (old.type != 4 || strncmp(old.key, "glm4moe.", 8) != 0)
            continue;
        memcpy(&v, old.value, 4);
        const uint32_t values[] = {0, 1, 2, v - 1, v + 1, 2 * v, v / 2, 3, 511, 512, 513, 1024,
            65536, 0x7fffffff, 0x80000000u, 0xffffffffu};
        for (size_t k = 0; k < ARRAY_LEN(values); k++) {
            g.kv[i].value = (const uint8_t *)&values[k];
            change(&g);
            n_refused += use() != GLM_OK;
        }
        g.kv[i] = old;
    }
    ck_assert_uint_gt(n_refused, 100);
    ge_free(&g);
}
END_TEST

static const struct {
    const char *key;
    uint32_t value;
    int32_t code;
} wrong_numbers[] = {
    {"glm4moe.nextn_predict_layers", 4, GLM_EFORMAT},
    {"glm4moe.nextn_predict_layers", 5, GLM_EFORMAT},
    {"glm4moe.nextn_predict_layers", 0xffffffffu, GLM_EFORMAT},
    {"glm4moe.nextn_predict_layers", 2, GLM_ENOTSUP},
    {"glm4moe.expert_used_count", 9, GLM_EFORMAT},
    {"glm4moe.expert_used_count", 0, GLM_EFORMAT},
    {"glm4moe.attention.head_count_kv", 5, GLM_EFORMAT},
    {"glm4moe.attention.head_count_kv", 0, GLM_EFORMAT},
    {"glm4moe.attention.key_length", 31, GLM_ENOTSUP},
    {"glm4moe.attention.value_length", 64, GLM_ENOTSUP},
    {"glm4moe.rope.dimension_count", 64, GLM_EFORMAT},
    {"glm4moe.rope.dimension_count", 15, GLM_EFORMAT},
    {"glm4moe.leading_dense_block_count", 5, GLM_EFORMAT},
    {"glm4moe.expert_gating_func", 1, GLM_ENOTSUP},
    {"glm4moe.block_count", 0, GLM_EFORMAT},
    {"glm4moe.block_count", 100000, GLM_EFORMAT},
    {"glm4moe.context_length", 0, GLM_EFORMAT},
    {"glm4moe.expert_count", 0, GLM_EFORMAT},
    {"glm4moe.expert_group_count", 3, GLM_EFORMAT},
    {"glm4moe.expert_group_used_count", 2, GLM_EFORMAT},
    {"tokenizer.ggml.eos_token_id", 280, GLM_EFORMAT},
    {"general.alignment", 0, GLM_EFORMAT},
    {"general.alignment", 1, GLM_EFORMAT},
    {"general.alignment", 3, GLM_EFORMAT},
    {"general.alignment", 31, GLM_EFORMAT},
    {"general.alignment", 48, GLM_EFORMAT},
    {"general.alignment", 1u << 21, GLM_EFORMAT},
    {"general.alignment", 1u << 31, GLM_EFORMAT},
};

START_TEST(wrong_number)
{
    struct ge g;
    load(&g, "glm45mtp-gguf-Q8_0/Q8_0.gguf");
    ge_set_u32(&g, wrong_numbers[_i].key, wrong_numbers[_i].value);
    change(&g);
    refused(wrong_numbers[_i].code, "f.gguf");
    ge_free(&g);
}
END_TEST

START_TEST(wrong_words)
{
    struct ge g;
    float nan = f32_from_bits(0x7fc00000);
    load(&g, "glm45mtp-gguf-Q8_0/Q8_0.gguf");
    ge_set_text(&g, "general.architecture", "llama");
    change(&g);
    refused(GLM_ENOTSUP, "general.architecture");
    ge_set_text(&g, "general.architecture", "glm4moe");
    ge_set_text(&g, "glm4moe.rope.scaling.type", "yarn");
    change(&g);
    refused(GLM_ENOTSUP, "rope.scaling.type");
    ge_remove_key(&g, "glm4moe.rope.scaling.type");
    ge_set_text(&g, "general.type", "mmproj");
    change(&g);
    refused(GLM_ENOTSUP, "general.type");
    ge_remove_key(&g, "general.type");
    ge_set(&g, "glm4moe.rope.freq_base", 6, &nan, 4);
    change(&g);
    refused(GLM_EFORMAT, "f.gguf");
    ge_remove_key(&g, "glm4moe.rope.freq_base");
    change(&g);
    refused(GLM_EFORMAT, "glm4moe.rope.freq_base");
    ge_free(&g);
}
END_TEST

START_TEST(wrong_tensors)
{
    struct ge g;
    load(&g, "air256-gguf-BF16/BF16.gguf");
    struct ge_tensor *q = ge_tensor(&g, "blk.0.attn_q.weight"), old = *q;

    q->type = 16; /* smaller than the bytes that are there */
    change(&g);
    refused(GLM_ENOTSUP, "blk.0.attn_q.weight");
    ck_assert_ptr_nonnull(strstr(err.message, "IQ2_XXS"));
    q->type = 137;
    change(&g);
    refused(GLM_ENOTSUP, "blk.0.attn_q.weight");
    ck_assert_ptr_nonnull(strstr(err.message, "ik_llama.cpp (137)"));
    *q = old;
    q->ne[0] = 192, q->ne[1] = 256; /* transposed */
    change(&g);
    refused(GLM_EFORMAT, "blk.0.attn_q.weight");
    *q = old;
    snprintf(q->name, sizeof q->name, "blk.0.attn_k.weight");
    change(&g);
    ck_assert_int_eq(use(), GLM_EFORMAT);
    ck_assert_ptr_nonnull(strstr(err.message, "blk.0.attn_k.weight"));
    *q = old;
    snprintf(q->name, sizeof q->name, "blk.0.attn_x.weight");
    change(&g);
    refused(GLM_EFORMAT, "blk.0.attn_q.weight");
    *q = old;
    ge_add_tensor(&g, "blk.0.attn_q.scale", 0, 1, 0, 4);
    change(&g);
    refused(GLM_ENOTSUP, "blk.0.attn_q.weight");
    ge_remove_tensor(&g, "blk.0.attn_q.scale");
    change(&g);
    ck_assert_int_eq(use(), GLM_OK);
    ge_free(&g);
}
END_TEST

START_TEST(wrong_offsets)
{
    struct ge g;
    load(&g, "air256-gguf-BF16/BF16.gguf");
    ge_write(&g, &files, "f.gguf", true, ALIGN);
    ck_assert_int_eq(use(), GLM_OK);
    g.tensor[3].offset -= 32; /* into the one before */
    ge_write(&g, &files, "f.gguf", true, ALIGN);
    refused(GLM_EFORMAT, g.tensor[3].name);
    g.tensor[3].offset += 32 + 8; /* crooked */
    ge_write(&g, &files, "f.gguf", true, ALIGN);
    refused(GLM_EFORMAT, g.tensor[3].name);
    ge_free(&g);
}
END_TEST

START_TEST(other_alignments)
{
    struct ge g;
    static const uint32_t aligns[] = {8, 64, 4096, 1 << 20};
    load(&g, "glm45mtp-gguf-Q8_0/Q8_0.gguf");
    g.n_tensor = 3; /* few, so that the file stays small */
    for (size_t i = 0; i < ARRAY_LEN(aligns); i++) {
        struct ckpt *c;
        ge_set_u32(&g, "general.alignment", aligns[i]);
        ge_write(&g, &files, "f.gguf", false, aligns[i]);
        int32_t status = open_checked(&files, "f.gguf", GLM_WEIGHTS_MAP, &mem, &c, &err);
        ck_assert_msg(status == GLM_OK, "%u: %s", aligns[i], err.message);
        struct tensor_entry t;
        ckpt_tensor(c, 1, &t);
        ck_assert_uint_eq(t.offset % aligns[i], 0);
        ck_assert_int_eq(
            memcmp(mf_find(&files, "f.gguf")->bytes + t.offset, g.tensor[1].data, g.tensor[1].size),
            0);
        ckpt_close(c);
    }
    ge_free(&g);
}
END_TEST

START_TEST(doubled_keys)
{
    struct ge g;
    load(&g, "air256-gguf-Q8_0/Q8_0.gguf");
    g.kv[g.n_kv] = g.kv[3];
    g.n_kv++;
    change(&g);
    refused(GLM_EFORMAT, g.kv[3].key);
    ge_free(&g);
}
END_TEST

START_TEST(wrong_vocabularies)
{
    struct ge g;
    load(&g, "air256-gguf-Q8_0/Q8_0.gguf");
    struct ge_kv *tokens = ge_key(&g, "tokenizer.ggml.tokens"), old = *tokens;
    uint8_t many[12 + 289 * 9] = {8, 0, 0, 0, 0x21, 1}; /* 289 strings "x" for 288 rows */
    for (size_t i = 0; i < 289; i++)
        many[12 + 9 * i] = 1, many[12 + 9 * i + 8] = 'x';
    tokens->value = many, tokens->size = sizeof many;
    change(&g);
    refused(GLM_EFORMAT, "tokenizer.ggml.tokens");
    many[4] = 0, many[5] = 0; /* no tokens at all */
    tokens->size = 12;
    change(&g);
    refused(GLM_EFORMAT, "tokenizer.ggml.tokens");
    many[4] = 7; /* fewer than types */
    tokens->size = 12 + 7 * 9;
    change(&g);
    refused(GLM_EFORMAT, "tokenizer.ggml.token_type");
    *tokens = old;
    ge_set(&g, "tokenizer.ggml.pre", 8, "\3\0\0\0\0\0\0\0a\0b", 11);
    change(&g);
    refused(GLM_EFORMAT, "tokenizer.ggml.pre");
    ge_free(&g);
}
END_TEST

/* ---- splits ---------------------------------------------------------------------------------- */

static void load_splits(void)
{
    for (int i = 1; i <= 3; i++) {
        char from[128], to[64];
        snprintf(from, sizeof from, "golden/air256-gguf-split/split-0000%d-of-00003.gguf", i);
        snprintf(to, sizeof to, "dir/f-0000%d-of-00003.gguf", i);
        mf_load(&files, from, to);
    }
}

static int32_t use_path(const char *path)
{
    struct ckpt *c = NULL;
    int32_t status = open_checked(&files, path, GLM_WEIGHTS_MAP, &mem, &c, &err);
    status = status ? status : all_weights(c, &err);
    ckpt_close(c);
    return status;
}

START_TEST(splits)
{
    const char *first = "dir/f-00001-of-00003.gguf", *second = "dir/f-00002-of-00003.gguf";
    load_splits();
    ck_assert_int_eq(use_path(first), GLM_OK);
    ck_assert_int_eq(use_path(second), GLM_EFORMAT); /* not the first */
    ck_assert_ptr_nonnull(strstr(err.message, "first"));

    struct mf_entry *f = mf_find(&files, first), *g = mf_find(&files, second);
    mf_put(&files, "dir/f.gguf", f->bytes, f->size); /* its name hides the others */
    ck_assert_int_eq(use_path("dir/f.gguf"), GLM_EFORMAT);
    ck_assert_ptr_nonnull(strstr(err.where, "split.count"));
    mf_put(&files, "dir/g-00001-of-00002.gguf", f->bytes, f->size);
    ck_assert_int_eq(use_path("dir/g-00001-of-00002.gguf"), GLM_EFORMAT);

    uint8_t *no = memmem(g->bytes, g->size, "split.no", 8),
            *count = memmem(g->bytes, g->size, "split.count", 11);
    no[12] = 2;
    ck_assert_int_eq(use_path(first), GLM_EFORMAT);
    ck_assert_ptr_nonnull(strstr(err.where, "split.no"));
    ck_assert_ptr_nonnull(strstr(err.where, "00002-of"));
    no[12] = 1;
    count[15] = 4;
    ck_assert_int_eq(use_path(first), GLM_EFORMAT);
    ck_assert_ptr_nonnull(strstr(err.where, "split.count"));
    count[15] = 3;
    uint8_t *total = memmem(f->bytes, f->size, "split.tensors.count", 19);
    total[23] = 31;
    ck_assert_int_eq(use_path(first), GLM_EFORMAT);
    ck_assert_ptr_nonnull(strstr(err.where, "split.tensors.count"));
    total[23] = 32;
    mf_put(&files, "dir/f-00003-of-00003.gguf", g->bytes, g->size); /* a shard twice */
    ck_assert_int_eq(use_path(first), GLM_EFORMAT);
    mf_remove(&files, "dir/f-00003-of-00003.gguf");
    ck_assert_int_eq(use_path(first), GLM_EIO);
    ck_assert_ptr_nonnull(strstr(err.where, "00003-of-00003"));
}
END_TEST

START_TEST(splits_cut_short)
{
    load_splits();
    struct mf_entry *f = mf_find(&files, "dir/f-00002-of-00003.gguf");
    size_t whole = f->size;
    for (size_t n = 0; n < whole; n += n < 900 ? 1 : 997) {
        f->size = n;
        ck_assert_int_ne(use_path("dir/f-00001-of-00003.gguf"), GLM_OK);
    }
    f->size = whole;
}
END_TEST

/* ---- faults ---------------------------------------------------------------------------------- */

START_TEST(every_allocation_fails)
{
    struct fail_alloc a;
    struct mem m;
    const char *path = "f.gguf";
    if (_i == 0)
        mf_load(&files, "golden/glm45mtp-gguf-Q8_0/Q8_0.gguf", "f.gguf");
    else
        load_splits(), path = "dir/f-00001-of-00003.gguf";
    for (int persistent = 0; persistent < 2; persistent++)
        for (uint64_t k = 1;; k++) {
            struct ckpt *c = NULL;
            fail_alloc_init(&a, &m);
            a.fail_at = k;
            a.persistent = persistent;
            int32_t status = open_checked(&files, path, GLM_WEIGHTS_READ, &m, &c, &err);
            bool hit = a.n >= k;
            ckpt_close(c);
            ck_assert_uint_eq(a.live, 0);
            ck_assert_int_eq(status, hit ? GLM_ENOMEM : GLM_OK);
            if (!hit)
                break;
        }
}
END_TEST

START_TEST(every_read_fails)
{
    load_splits();
    for (uint64_t k = 1;; k++) {
        struct ckpt *c = NULL;
        files.n_read = files.n_map = 0;
        files.fail_at = k;
        int32_t status =
            open_checked(&files, "dir/f-00001-of-00003.gguf", GLM_WEIGHTS_MAP, &mem, &c, &err);
        if (status == GLM_OK && (status = all_weights(c, &err)) != GLM_OK)
            ck_assert(err.message[0]);
        bool hit = files.n_read + files.n_map >= k;
        ckpt_close(c);
        ck_assert_int_eq(status, hit ? GLM_EIO : GLM_OK);
        if (!hit)
            break;
    }
    files.fail_at = 0;
}
END_TEST

START_TEST(tiny_files)
{
    uint8_t bytes[64];
    for (size_t n = 0; n <= sizeof bytes; n++)
        for (int fill = 0; fill < 3; fill++) {
            memset(bytes, fill == 1 ? 0xff : fill == 2 ? 1 : 0, sizeof bytes);
            memcpy(bytes, "GGUF\3\0\0\0", n < 8 ? n : 8);
            mf_put(&files, "f.gguf", bytes, n);
            ck_assert_int_ne(use(), GLM_OK);
        }
    memcpy(bytes, "GGUF\0\0\0\3", 8);
    mf_put(&files, "f.gguf", bytes, 64);
    refused(GLM_ENOTSUP, "f.gguf");
    ck_assert_ptr_nonnull(strstr(err.message, "big-endian"));
    memcpy(bytes, "GGUF\2\0\0\0", 8);
    mf_put(&files, "f.gguf", bytes, 64);
    refused(GLM_ENOTSUP, "f.gguf");
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("gguf");
    TCase *valid = tcase_create("valid"), *hostile = tcase_create("hostile"),
          *faults = tcase_create("faults");
    tcase_add_checked_fixture(valid, setup, teardown);
    tcase_add_checked_fixture(hostile, setup, teardown);
    tcase_add_checked_fixture(faults, setup, teardown);
    tcase_add_loop_test(valid, golden_files_open, 0, ARRAY_LEN(golden));
    tcase_add_test(valid, numbers_and_vocabulary);
    tcase_add_test(valid, views_point_at_their_bytes);
    tcase_add_test(valid, fused_qkv);
    tcase_add_test(valid, tied_head_and_missing_mtp);
    tcase_add_test(valid, defaults_from_the_file);
    tcase_add_test(valid, other_alignments);
    tcase_add_test(valid, splits);
    tcase_add_test(hostile, truncated_anywhere);
    tcase_add_loop_test(hostile, boundary_sweep, 0, 2);
    tcase_add_test(hostile, type_confusion);
    tcase_add_test(hostile, hyper_parameter_sweep);
    tcase_add_loop_test(hostile, wrong_number, 0, ARRAY_LEN(wrong_numbers));
    tcase_add_test(hostile, wrong_words);
    tcase_add_test(hostile, wrong_tensors);
    tcase_add_test(hostile, wrong_offsets);
    tcase_add_test(hostile, doubled_keys);
    tcase_add_test(hostile, wrong_vocabularies);
    tcase_add_test(hostile, splits_cut_short);
    tcase_add_test(hostile, tiny_files);
    tcase_add_loop_test(faults, every_allocation_fails, 0, 2);
    tcase_add_test(faults, every_read_fails);
    suite_add_tcase(s, valid);
    suite_add_tcase(s, hostile);
    suite_add_tcase(s, faults);
    return s;
}

int main(void)
{
    SRunner *r = srunner_create(suite());
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
