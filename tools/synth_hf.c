/* synth_hf.c: writes the Hugging Face folder: config.json, safetensors (with an index where there
 * are several), generation defaults and the tokenizer. The folder is made under a temporary name
 * and renamed when everything is in it.
 */
#include "synth.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#define TOKENIZER_MAX (256ull << 20)

static int32_t write_text(
    const char *dir, const char *name, const char *text, size_t size, glm_error *err)
{
    char path[4096];
    struct synth_file f = {.fd = -1};
    snprintf(path, sizeof path, "%s/%s", dir, name);
    int32_t status = synth_file_open(&f, path, err);
    status = status ? status : synth_file_write(&f, text, size, err);
    status = status ? status : synth_file_finish(&f, err);
    synth_file_drop(&f);
    return status;
}

/* ---- config.json ----------------------------------------------------------------------------- */

static void put_number(struct buf *b, const char *key, uint64_t v)
{
    buf_str(b, " \""), buf_str(b, key), buf_str(b, "\": ");
    buf_u64(b, v);
    buf_str(b, ",\n");
}

static void put_real(struct buf *b, const char *key, double v)
{
    buf_str(b, " \""), buf_str(b, key), buf_str(b, "\": ");
    json_put_f64(b, v);
    buf_str(b, ",\n");
}

static void put_truth(struct buf *b, const char *key, bool v)
{
    buf_str(b, " \""), buf_str(b, key), buf_str(b, v ? "\": true,\n" : "\": false,\n");
}

/* A float's value in as few decimal digits as give it back: 1e-05, not 9.999999747378752e-06. */
static double short_decimal(float v)
{
    char text[32];
    for (int digits = 1; digits < 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)v);
        if (strtof(text, NULL) == v)
            break;
    }
    return strtod(text, NULL);
}

static void put_eos(struct buf *b, const struct synth *s)
{
    buf_str(b, " \"eos_token_id\": [");
    for (uint32_t i = 0; i < s->n_eos; i++) {
        buf_str(b, i ? ", " : "");
        buf_i64(b, s->eos[i]);
    }
    buf_str(b, "],\n \"pad_token_id\": ");
    buf_i64(b, s->eos[0]);
}

/* As the published FP8 checkpoints and llm-compressor's int4 have it. */
static void put_quantization(struct buf *b, const struct synth *s, const struct synth_plan *plan)
{
    uint64_t group = 0;
    if (strcasecmp(s->type, "fp8-block") == 0) {
        buf_str(b, ",\n \"quantization_config\": {\"quant_method\": \"fp8\", \"fmt\": \"e4m3\", "
                   "\"activation_scheme\": \"dynamic\", \"weight_block_size\": [128, 128]}");
        return;
    }
    if (strcasecmp(s->type, "fp8") != 0 && strcasecmp(s->type, "int4") != 0)
        return;
    for (size_t i = 1; i < plan->n && group == 0;
         i++) /* a packed matrix and its scales are neighbours */
        if (plan->tensors[i - 1].format == W_I4_PACKED)
            group = plan->tensors[i - 1].dim[1] * 8 / plan->tensors[i].dim[1];
    buf_str(b,
        ",\n \"quantization_config\": {\"quant_method\": \"compressed-tensors\", \"format\": \"");
    buf_str(b, group ? "pack-quantized" : "float-quantized");
    buf_str(b, "\", \"quantization_status\": \"compressed\", \"kv_cache_scheme\": null,\n  "
               "\"config_groups\": {\"group_0\": "
               "{\"targets\": [\"Linear\"], \"output_activations\": null,\n   \"weights\": "
               "{\"num_bits\": ");
    buf_str(b, group ? "4, \"type\": \"int\", \"strategy\": \"group\", \"group_size\": "
                     : "8, \"type\": \"float\", "
                       "\"strategy\": \"channel\", \"group_size\": null");
    if (group)
        buf_u64(b, group);
    buf_str(b, ", \"symmetric\": true, \"dynamic\": false, \"actorder\": null, \"observer\": "
               "\"minmax\"},\n   "
               "\"input_activations\": ");
    buf_str(b, group ? "null"
                     : "{\"num_bits\": 8, \"type\": \"float\", \"strategy\": \"token\", "
                       "\"symmetric\": true, "
                       "\"dynamic\": true}");
    buf_str(b, "}},\n  \"ignore\": [\"lm_head\", \"model.embed_tokens\"");
    for (size_t i = 0; i < plan->n; i++) {
        const char *name = plan->tensors[i].name, *end = strstr(name, ".mlp.gate.weight");
        end = end                               ? end + 9
              : strstr(name, ".eh_proj.weight") ? strstr(name, ".eh_proj.weight") + 8
                                                : NULL;
        if (end == NULL)
            continue;
        buf_str(b, ", \"");
        buf_put(b, name, (size_t)(end - name));
        buf_str(b, "\"");
    }
    buf_str(b, "]}");
}

static int32_t write_config(const struct synth *s, struct mem *m, const struct synth_plan *plan,
    const char *dir, glm_error *err)
{
    const struct hparams *hp = &s->hp;
    struct buf b;
    buf_init(&b, m);
    buf_str(&b,
        "{\n \"architectures\": [\"Glm4MoeForCausalLM\"],\n \"model_type\": \"glm4_moe\",\n"
        " \"hidden_act\": \"silu\",\n \"attention_dropout\": 0.0,\n \"initializer_range\": 0.02,\n"
        " \"rope_scaling\": null,\n \"torch_dtype\": \"");
    buf_str(&b, strcasecmp(s->type, "f32") == 0   ? "float32"
                : strcasecmp(s->type, "f16") == 0 ? "float16"
                                                  : "bfloat16");
    buf_str(&b, "\",\n");
    put_number(&b, "vocab_size", hp->n_vocab);
    put_number(&b, "hidden_size", hp->d_model);
    put_number(&b, "num_hidden_layers", hp->n_layer);
    put_number(&b, "first_k_dense_replace", hp->n_layer_dense);
    put_number(&b, "num_attention_heads", hp->n_head);
    put_number(&b, "num_key_value_heads", hp->n_head_kv);
    put_number(&b, "head_dim", hp->d_head);
    put_number(&b, "intermediate_size", hp->d_ff);
    put_number(&b, "moe_intermediate_size", hp->d_ff_exp);
    put_number(&b, "n_routed_experts", hp->n_expert);
    put_number(&b, "num_experts_per_tok", hp->n_expert_used);
    put_number(&b, "n_shared_experts", hp->n_expert_shared);
    put_number(&b, "n_group", hp->n_group);
    put_number(&b, "topk_group", hp->n_group_used);
    put_number(&b, "max_position_embeddings", hp->n_ctx_train);
    put_number(&b, "num_nextn_predict_layers", hp->n_nextn);
    put_real(&b, "rms_norm_eps", short_decimal(hp->norm_eps));
    put_real(&b, "routed_scaling_factor", short_decimal(hp->routed_scale));
    put_real(&b, "rope_theta", hp->rope_theta);
    put_real(&b, "partial_rotary_factor", (double)hp->n_rot / hp->d_head);
    put_truth(&b, "attention_bias", hp->qkv_bias);
    put_truth(&b, "use_qk_norm", hp->qk_norm);
    put_truth(&b, "norm_topk_prob", hp->norm_topk);
    put_truth(&b, "tie_word_embeddings", false);
    put_truth(&b, "use_cache", true);
    put_eos(&b, s);
    put_quantization(&b, s, plan);
    buf_str(&b, "\n}\n");
    int32_t status = b.failed ? err_nomem(err, "config.json")
                              : write_text(dir, "config.json", b.data, b.size, err);
    buf_clear(&b);
    buf_str(&b, "{\n");
    put_eos(&b, s);
    buf_str(&b, "\n}\n");
    if (status == GLM_OK)
        status = b.failed ? err_nomem(err, "generation_config.json")
                          : write_text(dir, "generation_config.json", b.data, b.size, err);
    buf_free(&b);
    return status;
}

/* ---- weights --------------------------------------------------------------------------------- */

static const char *dtype(uint32_t format)
{
    switch (format) {
    case W_F32: return "F32";
    case W_F16: return "F16";
    case W_F8: return "F8_E4M3";
    case W_I4_PACKED: return "I32";
    case SYNTH_SHAPE: return "I64";
    default: return "BF16";
    }
}

static void put_entry(struct buf *b, const struct synth_tensor *t)
{
    bool shape = t->format == SYNTH_SHAPE;
    buf_str(b, ", \""), buf_str(b, t->name), buf_str(b, "\": {\"dtype\": \""),
        buf_str(b, dtype(t->format));
    buf_str(b, "\", \"shape\": [");
    for (uint32_t i = 0; i < (shape ? 1 : t->n_dim); i++) {
        buf_str(b, i ? ", " : "");
        buf_u64(b, shape ? 2 : t->dim[i]);
    }
    buf_str(b, "], \"data_offsets\": [");
    buf_u64(b, t->offset);
    buf_str(b, ", ");
    buf_u64(b, t->offset + t->bytes);
    buf_str(b, "]}");
}

static void file_name(uint32_t i, uint32_t n, char name[64])
{
    if (n == 1)
        snprintf(name, 64, "model.safetensors");
    else
        snprintf(name, 64, "model-%05u-of-%05u.safetensors", i + 1, n);
}

static int32_t write_file(const char *dir, uint32_t i, uint32_t n_file, struct mem *m,
    const struct synth_plan *plan, struct synth_out *o, glm_error *err)
{
    char path[4096], name[64], size[8];
    struct synth_file f = {.fd = -1};
    struct buf head;
    buf_init(&head, m);
    buf_str(&head, "{\"__metadata__\": {\"format\": \"pt\"}");
    for (size_t t = 0; t < plan->n; t++)
        if (plan->tensors[t].file == i)
            put_entry(&head, &plan->tensors[t]);
    buf_str(&head, "}");
    while (head.size % 8 != 0 && !head.failed)
        buf_str(&head, " ");
    for (uint32_t k = 0; k < 8; k++)
        size[k] = (char)((uint64_t)head.size >> 8 * k);
    file_name(i, n_file, name);
    snprintf(path, sizeof path, "%s/%s", dir, name);
    int32_t status = head.failed ? err_nomem(err, "a header") : synth_file_open(&f, path, err);
    status = status ? status : synth_file_write(&f, size, 8, err);
    status = status ? status : synth_file_write(&f, head.data, head.size, err);
    for (size_t t = 0; t < plan->n && status == GLM_OK; t++)
        if (plan->tensors[t].file == i)
            status = synth_file_tensor(&f, o, &plan->tensors[t], err);
    status = status ? status : synth_file_finish(&f, err);
    synth_file_drop(&f);
    buf_free(&head);
    return status;
}

static int32_t write_index(const char *dir, uint32_t n_file, struct mem *m,
    const struct synth_plan *plan, const struct synth_out *o, glm_error *err)
{
    char name[64];
    struct buf b;
    buf_init(&b, m);
    buf_str(&b, "{\"metadata\": {\"total_size\": ");
    buf_u64(&b, o->total);
    buf_str(&b, "}, \"weight_map\": {");
    for (size_t i = 0; i < plan->n; i++) {
        file_name(plan->tensors[i].file, n_file, name);
        buf_str(&b, i ? ",\n \"" : "\n \""), buf_str(&b, plan->tensors[i].name);
        buf_str(&b, "\": \""), buf_str(&b, name), buf_str(&b, "\"");
    }
    buf_str(&b, "}}\n");
    int32_t status = b.failed
                         ? err_nomem(err, "the index")
                         : write_text(dir, "model.safetensors.index.json", b.data, b.size, err);
    buf_free(&b);
    return status;
}

static int32_t copy_file(
    const char *from, const char *dir, const char *name, struct mem *m, glm_error *err)
{
    struct fs fs;
    char *text = NULL;
    size_t size = 0;
    fs_init(&fs, NULL);
    int32_t status = fs_load(m, &fs, from, TOKENIZER_MAX, &text, &size, err);
    status = status ? status : write_text(dir, name, text, size, err);
    mem_free(m, text);
    return status;
}

static int32_t write_all(struct synth *s, struct mem *m, struct synth_plan *plan, const char *dir,
    struct synth_out *o, glm_error *err)
{
    struct synth_vocab v = {0};
    int32_t status = GLM_OK;
    synth_plan_split(s, plan, 1);
    uint32_t n_file = plan->tensors[plan->n - 1].file + 1;
    if (s->tokenizer != NULL) { /* its end-of-text ids, and whether it fits */
        status = synth_vocab_make(s, m, &plan->arena, &v, err);
        synth_vocab_free(m, &v);
        status = status ? status : copy_file(s->tokenizer, dir, "tokenizer.json", m, err);
    }
    if (status == GLM_OK && s->chat_template != NULL)
        status = copy_file(s->chat_template, dir, "chat_template.jinja", m, err);
    status = status ? status : write_config(s, m, plan, dir, err);
    for (uint32_t i = 0; i < n_file && status == GLM_OK; i++)
        status = write_file(dir, i, n_file, m, plan, o, err);
    if (status == GLM_OK && n_file > 1)
        status = write_index(dir, n_file, m, plan, o, err);
    return status;
}

/* Removes the unfinished folder; it holds files only. */
static void remove_folder(const char *dir)
{
    char path[4300];
    DIR *d = opendir(dir);
    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            unlink(path);
    }
    if (d != NULL)
        closedir(d);
    rmdir(dir);
}

int32_t synth_write_hf(
    struct synth *s, struct mem *m, struct synth_plan *plan, struct synth_out *o, glm_error *err)
{
    char dir[4000];
    size_t n = strlen(s->out);
    while (n > 1 && s->out[n - 1] == '/')
        n--;
    if (snprintf(dir, sizeof dir, "%.*s.tmp-%ld", (int)n, s->out, (long)getpid()) >=
        (int)sizeof dir)
        return err_set(err, GLM_EINVAL, 0, "-o", "the path is too long");
    if (mkdir(dir, 0777) != 0)
        return err_set(err, GLM_EIO, 0, s->out, "cannot be made: %s", strerror(errno));
    int32_t status = write_all(s, m, plan, dir, o, err);
    if (status == GLM_OK && rename(dir, s->out) != 0)
        status = err_set(err, GLM_EIO, 0, s->out, "cannot be put in place: %s", strerror(errno));
    if (status != GLM_OK)
        remove_folder(dir);
    return status;
}
