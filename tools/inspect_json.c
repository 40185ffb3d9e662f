/* inspect_json.c: an inspection as one JSON document. Sizes are in bytes. */
#include "inspect.h"

#include <string.h>

/* `"name": `, with a comma before all but the first member. */
static void key(struct buf *b, const char *name)
{
    char last = b->size ? b->data[b->size - 1] : '{';
    if (last != '{')
        buf_str(b, ", ");
    json_put_string(b, name, strlen(name));
    buf_str(b, ": ");
}

static void item(struct buf *b)
{
    if (b->size && b->data[b->size - 1] != '[')
        buf_str(b, ", ");
}

static void put_u64(struct buf *b, const char *name, uint64_t v)
{
    key(b, name);
    buf_u64(b, v);
}

static void put_f64(struct buf *b, const char *name, double v)
{
    key(b, name);
    if (v == v)
        json_put_f64(b, v);
    else
        buf_str(b, "null");
}

static void put_bool(struct buf *b, const char *name, bool v)
{
    key(b, name);
    buf_str(b, v ? "true" : "false");
}

static void put_text(struct buf *b, const char *name, const char *text)
{
    key(b, name);
    json_put_string(b, text, strlen(text));
}

static void put_model(const struct hparams *hp, struct buf *b)
{
    key(b, "model");
    buf_char(b, '{');
    put_u64(b, "n_layer", hp->n_layer);
    put_u64(b, "n_layer_dense", hp->n_layer_dense);
    put_u64(b, "n_nextn", hp->n_nextn);
    put_u64(b, "d_model", hp->d_model);
    put_u64(b, "n_head", hp->n_head);
    put_u64(b, "n_head_kv", hp->n_head_kv);
    put_u64(b, "d_head", hp->d_head);
    put_u64(b, "n_rot", hp->n_rot);
    put_u64(b, "d_ff", hp->d_ff);
    put_u64(b, "d_ff_exp", hp->d_ff_exp);
    put_u64(b, "n_expert", hp->n_expert);
    put_u64(b, "n_expert_used", hp->n_expert_used);
    put_u64(b, "n_expert_shared", hp->n_expert_shared);
    put_u64(b, "n_group", hp->n_group);
    put_u64(b, "n_group_used", hp->n_group_used);
    put_u64(b, "n_vocab", hp->n_vocab);
    put_u64(b, "n_ctx_train", hp->n_ctx_train);
    put_f64(b, "rope_theta", hp->rope_theta);
    put_f64(b, "norm_eps", (double)hp->norm_eps);
    put_f64(b, "routed_scale", (double)hp->routed_scale);
    put_bool(b, "norm_topk", hp->norm_topk);
    put_bool(b, "qk_norm", hp->qk_norm);
    put_bool(b, "qkv_bias", hp->qkv_bias);
    buf_char(b, '}');
}

static void put_generation(const struct generation_defaults *g, struct buf *b)
{
    key(b, "generation");
    buf_char(b, '{');
    key(b, "eos");
    buf_char(b, '[');
    for (uint32_t i = 0; i < g->n_eos; i++) {
        item(b);
        buf_i64(b, g->eos[i]);
    }
    buf_char(b, ']');
    put_f64(b, "temperature", (double)g->temperature);
    put_f64(b, "top_p", (double)g->top_p);
    put_f64(b, "min_p", (double)g->min_p);
    put_f64(b, "repeat_penalty", (double)g->repeat_penalty);
    key(b, "top_k");
    if (g->top_k >= 0)
        buf_i64(b, g->top_k);
    else
        buf_str(b, "null");
    buf_char(b, '}');
}

static void put_tokenizer(const struct inspection *x, struct buf *b)
{
    key(b, "tokenizer");
    if (!x->tok) {
        buf_str(b, "null");
        return;
    }
    buf_char(b, '{');
    put_u64(b, "tokens", x->n_token);
    put_u64(b, "added", x->n_added);
    put_u64(b, "largest_id", tok_n(x->tok) - 1);
    put_u64(b, "family_specials_missing", x->n_missing);
    buf_char(b, '}');
}

static void put_tensors(const struct inspection *x, struct buf *b)
{
    key(b, "tensors");
    buf_char(b, '[');
    for (size_t i = 0; i < ckpt_n_tensor(x->ckpt); i++) {
        struct tensor_entry t;
        ckpt_tensor(x->ckpt, i, &t);
        item(b);
        buf_char(b, '{');
        put_text(b, "name", t.name);
        put_text(b, "type", t.type);
        key(b, "shape");
        buf_char(b, '[');
        for (uint32_t d = 0; d < t.n_dim; d++) {
            item(b);
            buf_u64(b, t.dim[d]);
        }
        buf_char(b, ']');
        put_text(b, "file", t.file);
        put_u64(b, "offset", t.offset);
        put_u64(b, "bytes", t.bytes);
        buf_char(b, '}');
    }
    buf_char(b, ']');
}

static void put_sums(struct buf *b, const char *name, const struct inspected_sum *sums, size_t n)
{
    key(b, name);
    buf_char(b, '[');
    for (size_t i = 0; i < n; i++) {
        item(b);
        buf_char(b, '{');
        put_text(b, "name", sums[i].name);
        put_u64(b, "tensors", sums[i].n);
        put_u64(b, "elements", sums[i].elements);
        put_u64(b, "bytes", sums[i].bytes);
        buf_char(b, '}');
    }
    buf_char(b, ']');
}

static void put_memory(const struct inspection *x, struct buf *b)
{
    put_u64(b, "bytes_per_token", x->bytes.dense + x->bytes.experts);
    put_u64(b, "expert_bytes_per_token", x->bytes.experts);
    key(b, "memory");
    buf_char(b, '[');
    for (size_t i = 0; i < x->contexts.n; i++) {
        item(b);
        buf_char(b, '{');
        put_u64(b, "context", x->contexts.item[i]);
        put_u64(b, "mapped", x->estimates[i].mapped_bytes);
        put_u64(b, "private", x->estimates[i].private_bytes);
        put_u64(b, "kv", x->estimates[i].kv_bytes);
        buf_char(b, '}');
    }
    buf_char(b, ']');
}

void inspect_put_json(const struct inspection *x, struct buf *b)
{
    static const char hex[] = "0123456789abcdef";
    uint8_t print[32];
    char text[65] = "";

    ckpt_fingerprint(x->ckpt, print);
    for (size_t i = 0; i < sizeof print; i++) {
        text[2 * i] = hex[print[i] >> 4];
        text[2 * i + 1] = hex[print[i] & 15];
    }
    buf_char(b, '{');
    put_text(b, "path", x->path);
    put_text(b, "format", ckpt_kind(x->ckpt));
    put_text(b, "fingerprint", text);
    put_tokenizer(x, b);
    put_text(b, "template", x->family == CHAT_47 ? "4.7" : "4.5");
    put_bool(b, "template_known", x->has_template && x->template_known);
    if (ckpt_hparams(x->ckpt)) {
        put_model(ckpt_hparams(x->ckpt), b);
        put_generation(ckpt_generation(x->ckpt), b);
        if (!x->no_tensors)
            put_tensors(x, b);
        put_sums(b, "files", x->files, x->n_file);
        put_sums(b, "types", x->types, x->n_type);
        put_memory(x, b);
    }
    buf_char(b, '}');
}
