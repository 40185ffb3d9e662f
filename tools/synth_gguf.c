/* synth_gguf.c: writes the GGUF file or its splits: keys, vocabulary, tensor table, random data.
 * The keys are those that llama.cpp's converter writes for the architecture, so that llama.cpp
 * opens the file too.
 */
#include "synth.h"

#include "../lib/io/gguf_int.h"

#include <stdio.h>
#include <stdlib.h>

#define ALIGN 32u
#define ARCH "glm4moe."

/* ---- keys ------------------------------------------------------------------------------------ */

struct keys {
    struct buf b;
    uint64_t n;
};

static void put(struct buf *b, uint64_t v, uint32_t n_byte)
{
    char bytes[8];
    for (uint32_t i = 0; i < n_byte; i++)
        bytes[i] = (char)(v >> 8 * i);
    buf_put(b, bytes, n_byte);
}

static void put_text(struct buf *b, const char *text, size_t size)
{
    put(b, size, 8);
    buf_put(b, text, size);
}

static void put_key(struct keys *k, const char *key, uint32_t type)
{
    k->n++;
    put_text(&k->b, key, strlen(key));
    put(&k->b, type, 4);
}

static void key_u32(struct keys *k, const char *key, uint32_t v)
{
    put_key(k, key, GGUF_U32);
    put(&k->b, v, 4);
}

static void key_f32(struct keys *k, const char *key, float v)
{
    put_key(k, key, GGUF_F32);
    put(&k->b, f32_bits(v), 4);
}

static void key_text(struct keys *k, const char *key, const char *text, size_t size)
{
    put_key(k, key, GGUF_STRING);
    put_text(&k->b, text, size);
}

static void key_texts(struct keys *k, const char *key, const struct vocab_text *text, size_t n)
{
    put_key(k, key, GGUF_ARRAY);
    put(&k->b, GGUF_STRING, 4);
    put(&k->b, n, 8);
    for (size_t i = 0; i < n; i++)
        put_text(&k->b, text[i].text, text[i].size);
}

static void put_shape(struct keys *k, const struct synth *s)
{
    const struct hparams *hp = &s->hp;
    const struct {
        const char *key;
        uint32_t v;
    } numbers[] = {
        {ARCH "block_count", hp->n_layer + hp->n_nextn},
        {ARCH "context_length", hp->n_ctx_train},
        {ARCH "embedding_length", hp->d_model},
        {ARCH "feed_forward_length", hp->d_ff},
        {ARCH "attention.head_count", hp->n_head},
        {ARCH "attention.head_count_kv", hp->n_head_kv},
        {ARCH "attention.key_length", hp->d_head},
        {ARCH "attention.value_length", hp->d_head},
        {ARCH "rope.dimension_count", hp->n_rot},
        {ARCH "expert_count", hp->n_expert},
        {ARCH "expert_used_count", hp->n_expert_used},
        {ARCH "expert_shared_count", hp->n_expert_shared},
        {ARCH "expert_feed_forward_length", hp->d_ff_exp},
        {ARCH "expert_group_count", hp->n_group},
        {ARCH "expert_group_used_count", hp->n_group_used},
        {ARCH "leading_dense_block_count", hp->n_layer_dense},
        {ARCH "expert_gating_func", 2},
        {ARCH "nextn_predict_layers", hp->n_nextn},
    };
    key_text(k, "general.architecture", "glm4moe", 7);
    key_text(k, "general.type", "model", 5);
    key_text(k, "general.name", "synthetic", 9);
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
        key_u32(k, numbers[i].key, numbers[i].v);
    key_f32(k, ARCH "attention.layer_norm_rms_epsilon", hp->norm_eps);
    key_f32(k, ARCH "rope.freq_base", (float)hp->rope_theta);
    key_f32(k, ARCH "expert_weights_scale", hp->routed_scale);
    put_key(k, ARCH "expert_weights_norm", GGUF_BOOL);
    put(&k->b, hp->norm_topk, 1);
    key_u32(k, "general.quantization_version", 2);
    key_u32(k, "general.alignment", ALIGN);
}

static void put_vocab(struct keys *k, const struct synth *s, const struct synth_vocab *v)
{
    static const char *const eos[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
        "tokenizer.ggml.eom_token_id"};
    key_text(k, "tokenizer.ggml.model", "gpt2", 4);
    key_text(k, "tokenizer.ggml.pre", "glm4", 4);
    key_texts(k, "tokenizer.ggml.tokens", v->tokens, v->n_token);
    put_key(k, "tokenizer.ggml.token_type", GGUF_ARRAY);
    put(&k->b, GGUF_I32, 4);
    put(&k->b, v->n_token, 8);
    for (size_t i = 0; i < v->n_token; i++)
        put(&k->b, (uint32_t)v->types[i], 4);
    key_texts(k, "tokenizer.ggml.merges", v->merges, v->n_merge);
    for (size_t i = 0; i < s->n_eos && i < ARRAY_LEN(eos); i++)
        key_u32(k, eos[i], (uint32_t)s->eos[i]);
    key_u32(k, "tokenizer.ggml.padding_token_id", (uint32_t)s->eos[0]);
    if (v->template_text != NULL)
        key_text(k, "tokenizer.chat_template", v->template_text, v->template_size);
}

static void put_split(struct keys *k, uint32_t i, uint32_t n, size_t n_tensor)
{
    put_key(k, "split.no", GGUF_U16);
    put(&k->b, i, 2);
    put_key(k, "split.count", GGUF_U16);
    put(&k->b, n, 2);
    put_key(k, "split.tensors.count", GGUF_I32);
    put(&k->b, n_tensor, 4);
}

/* ---- files ----------------------------------------------------------------------------------- */

static uint32_t type_id(uint32_t format)
{
    static const uint8_t ids[W_FORMAT_COUNT] = {[W_F32] = 0,
        [W_F16] = 1,
        [W_BF16] = 30,
        [W_Q8_0] = 8,
        [W_Q4_0] = 2,
        [W_Q4_1] = 3,
        [W_Q5_0] = 6,
        [W_Q5_1] = 7,
        [W_IQ4_NL] = 20,
        [W_MXFP4] = 39,
        [W_Q2_K] = 10,
        [W_Q3_K] = 11,
        [W_Q4_K] = 12,
        [W_Q5_K] = 13,
        [W_Q6_K] = 14,
        [W_IQ4_XS] = 23};
    return ids[format];
}

static void put_tensor(struct buf *b, const struct synth_tensor *t)
{
    put_text(b, t->name, strlen(t->name));
    put(b, t->n_dim, 4);
    for (uint32_t i = t->n_dim; i-- > 0;)
        put(b, t->dim[i], 8);
    put(b, type_id(t->format), 4);
    put(b, t->offset, 8);
}

/* A file's head: header, keys, tensor table of the tensors from `first` on that lie in it. */
static void put_head(
    struct buf *head, const struct keys *k, const struct synth_plan *plan, size_t first, size_t n)
{
    buf_put(head, "GGUF", 4);
    put(head, 3, 4);
    put(head, n, 8);
    put(head, k->n, 8);
    buf_put(head, k->b.data, k->b.size);
    for (size_t i = first; i < first + n; i++)
        put_tensor(head, &plan->tensors[i]);
}

static int32_t write_one(const char *path, const struct keys *k, struct mem *m,
    const struct synth_plan *plan, size_t first, size_t n, struct synth_out *o, glm_error *err)
{
    struct synth_file f = {.fd = -1};
    struct buf head;
    buf_init(&head, m);
    put_head(&head, k, plan, first, n);
    int32_t status = head.failed || k->b.failed ? err_nomem(err, "the metadata")
                                                : synth_file_open(&f, path, err);
    status = status ? status : synth_file_write(&f, head.data, head.size, err);
    for (size_t i = first; i < first + n && status == GLM_OK; i++) {
        status = synth_file_pad(&f, ALIGN, err);
        status = status ? status : synth_file_tensor(&f, o, &plan->tensors[i], err);
    }
    status = status ? status : synth_file_pad(&f, ALIGN, err);
    status = status ? status : synth_file_finish(&f, err);
    synth_file_drop(&f);
    buf_free(&head);
    return status;
}

/* "a.gguf" and 2 of 3 -> "a-00002-of-00003.gguf" */
static void split_path(const char *out, uint32_t i, uint32_t n, char *path, size_t size)
{
    size_t stem = strlen(out);
    if (stem > 5 && strcmp(out + stem - 5, ".gguf") == 0)
        stem -= 5;
    snprintf(path, size, "%.*s-%05u-of-%05u.gguf", (int)stem, out, i + 1, n);
}

int32_t synth_write_gguf(
    struct synth *s, struct mem *m, struct synth_plan *plan, struct synth_out *o, glm_error *err)
{
    struct synth_vocab v = {0};
    int32_t status = synth_vocab_make(s, m, &plan->arena, &v, err);
    synth_plan_split(s, plan, ALIGN);
    uint32_t n_file = plan->tensors[plan->n - 1].file + 1;
    size_t n_path = strlen(s->out) + 32, first = 0;
    char *path = malloc(n_path);
    if (path == NULL && status == GLM_OK)
        status = err_nomem(err, "a path");
    for (uint32_t i = 0; i < n_file && status == GLM_OK; i++) {
        struct keys k = {.n = 0};
        size_t n = 0;
        while (first + n < plan->n && plan->tensors[first + n].file == i)
            n++;
        buf_init(&k.b, m);
        if (i == 0) {
            put_shape(&k, s);
            put_vocab(&k, s, &v);
        }
        if (n_file > 1)
            put_split(&k, i, n_file, plan->n);
        if (n_file > 1)
            split_path(s->out, i, n_file, path, n_path);
        else
            snprintf(path, n_path, "%s", s->out);
        status = write_one(path, &k, m, plan, first, n, o, err);
        buf_free(&k.b);
        first += n;
    }
    free(path);
    synth_vocab_free(m, &v);
    return status;
}
