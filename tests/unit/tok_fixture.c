/* tok_fixture.c: see tok_fixture.h. */
#include "tok_fixture.h"
#include "test_data.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

struct tok *fixture_open(struct mem *m, const char *name)
{
    size_t size;
    char *text = test_load(name, &size);
    struct vocab_source src = {.kind = VOCAB_JSON, .where = name, .json = text, .json_size = size};
    struct tok *t;
    glm_error err = GLM_ERROR_INIT;
    int32_t status = tok_open(m, &src, 0, &t, &err);
    ck_assert_msg(status == 0, "%s", err.message);
    free(text);
    return t;
}

/* ---- GGUF arrays ----------------------------------------------------------------------------- */

static void set_token(
    struct fixture_gguf *g, const struct json *id, const struct json *text, int32_t type)
{
    uint64_t i;
    ck_assert(json_u64(id, &i) && i < g->src.n_token);
    g->tokens[i] = (struct vocab_text){ text->text, text->size };
    g->types[i] = type;
}

/* Both forms, joined by a blank. */
static void set_merges(struct fixture_gguf *g, const struct json *merges)
{
    size_t i = 0, *at = calloc(merges->count + 1u, sizeof *at);
    for (const struct json *v = json_first(merges); v; v = json_next(merges, v)) {
        at[i++] = g->joined.size;
        if (v->type == JSON_STRING) {
            buf_put(&g->joined, v->text, v->size);
            continue;
        }
        const struct json *left = json_first(v), *right = json_next(v, left);
        buf_put(&g->joined, left->text, left->size);
        buf_char(&g->joined, ' ');
        buf_put(&g->joined, right->text, right->size);
    }
    at[i] = g->joined.size;
    g->merges = calloc(i + 1, sizeof *g->merges);
    for (size_t k = 0; k < i; k++)
        g->merges[k] = (struct vocab_text){ g->joined.data + at[k], at[k + 1] - at[k] };
    g->src.n_merge = i;
    free(at);
}

void fixture_gguf_init(struct fixture_gguf *g, struct mem *m, const char *name, uint32_t n_token)
{
    size_t size;
    memset(g, 0, sizeof *g);
    g->text = test_load(name, &size);
    ck_assert_int_eq(json_parse(m, g->text, size, 0, name, &g->doc, NULL), 0);
    g->tokens = calloc(n_token, sizeof *g->tokens);
    g->types = calloc(n_token, sizeof *g->types);
    g->src = (struct vocab_source){.kind = VOCAB_GGUF,
        .where = "model.gguf",
        .n_token = n_token,
        .model = "gpt2",
        .pre = "glm4",
        .types = g->types,
        .tokens = g->tokens};
    for (uint32_t i = 0; i < n_token; i++) {
        g->tokens[i] = (struct vocab_text){ "[PAD]", 5 };
        g->types[i] = 5;
    }
    const struct json *model = json_get(g->doc.root, "model"), *vocab = json_get(model, "vocab");
    for (const struct json *v = json_first(vocab); v; v = json_next(vocab, v))
        set_token(g, v + 1, v, 1);
    const struct json *added = json_get(g->doc.root, "added_tokens");
    for (const struct json *v = json_first(added); v; v = json_next(added, v))
        set_token(g, json_get(v, "id"), json_get(v, "content"),
            json_get(v, "special")->type == JSON_TRUE ? 3 : 4);
    buf_init(&g->joined, m);
    set_merges(g, json_get(model, "merges"));
    ck_assert(!g->joined.failed);
    g->src.merges = g->merges;
}

void fixture_gguf_free(struct fixture_gguf *g)
{
    json_free(&g->doc);
    buf_free(&g->joined);
    free(g->text);
    free(g->tokens);
    free(g->types);
    free(g->merges);
}

/* ---- the tiny tokenizer ---------------------------------------------------------------------- */

#define PATTERN                                                                                    \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}{1,3}| "         \
    "?[^\\\\s\\\\p{L}\\\\p{N}]+"                                                                   \
    "[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"
#define FLAGS                                                                                      \
    "\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false,\"special\":"    \
    "true"

void fixture_small_init(struct fixture_small *f)
{
    *f = (struct fixture_small){
        .added = "[{\"id\":300,\"content\":\"<x>\"," FLAGS
                 "},{\"id\":301,\"content\":\"<xy>\"," FLAGS "}]",
        .normalizer = "null",
        .pre_tokenizer =
            "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":"
            "\"" PATTERN "\"},\"behavior\":\"Isolated\",\"invert\":false},{\"type\":\"ByteLevel\","
            "\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}]}",
        .post_processor = "null",
        .decoder = "{\"type\":\"ByteLevel\"}",
        .type = "\"BPE\"",
        .settings =
            "\"dropout\":null,\"unk_token\":null,\"byte_fallback\":false,\"ignore_merges\":true",
        .vocab_more = "\"ab\":256,\"abc\":257,\"bc\":258",
        .merges = "[[\"a\",\"b\"],[\"b\",\"c\"],[\"ab\",\"c\"]]",
        .skip_byte = -1,
    };
}

static void put_member(struct buf *out, const char *key, const char *value)
{
    if (!value)
        return;
    if (out->data[out->size - 1] != '{')
        buf_char(out, ',');
    buf_char(out, '"');
    buf_str(out, key);
    buf_str(out, "\":");
    buf_str(out, value);
}

/* The vocabulary as an object: bytes in their spelling, then vocab_more. */
static void put_vocab(const struct fixture_small *f, struct buf *out)
{
    uint32_t other = 0;
    buf_str(out, ",\"vocab\":{");
    for (uint32_t c = 0; c < 256; c++) {
        char spelling[4];
        bool plain = (c >= 0x21 && c <= 0x7E) || (c >= 0xA1 && c != 0xAD);
        uint32_t n = utf8_encode(plain ? c : 0x100 + other++, spelling);
        if ((int)c == f->skip_byte)
            continue;
        json_put_string(out, spelling, n);
        buf_char(out, ':');
        buf_u64(out, c);
        buf_char(out, ',');
    }
    buf_str(out, f->vocab_more ? f->vocab_more : "\"zz\":259");
    buf_char(out, '}');
}

void fixture_small_print(const struct fixture_small *f, struct buf *out)
{
    buf_char(out, '{');
    put_member(out, "added_tokens", f->added);
    put_member(out, "normalizer", f->normalizer);
    put_member(out, "pre_tokenizer", f->pre_tokenizer);
    put_member(out, "post_processor", f->post_processor);
    put_member(out, "decoder", f->decoder);
    buf_str(out, out->data[out->size - 1] == '{' ? "\"model\":{" : ",\"model\":{");
    put_member(out, "type", f->type);
    buf_str(out, f->type ? "," : "");
    buf_str(out, f->settings);
    if (f->merges_first)
        put_member(out, "merges", f->merges);
    put_vocab(f, out);
    if (!f->merges_first)
        put_member(out, "merges", f->merges);
    buf_str(out, "}}");
    ck_assert(!out->failed);
}
