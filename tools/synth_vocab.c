/* synth_vocab.c: the vocabulary of a GGUF file: a tokenizer.json turned into ggml's token, type and
 * merge arrays, or a byte-level toy (256 bytes, then unused ids) that llama.cpp opens too.
 * Views live as long as the parsed document.
 */
#include "synth.h"

#include <stdio.h>

#define TOKENIZER_MAX (256ull << 20)

enum { TYPE_NORMAL = 1, TYPE_CONTROL = 3, TYPE_USER = 4, TYPE_UNUSED = 5 };

static const char *print(struct arena *a, const char *fmt, uint32_t i)
{
    char text[32];
    int n = snprintf(text, sizeof text, fmt, i);
    return arena_copy(a, text, (size_t)n);
}

/* Fills what no token has taken: unused ids, as converters name them. */
static int32_t pad(struct synth_vocab *v, struct arena *a, size_t from, const char *fmt,
    int32_t type, glm_error *err)
{
    for (size_t i = from; i < v->n_token; i++) {
        if (v->tokens[i].text != NULL)
            continue;
        const char *text = print(a, fmt, (uint32_t)i);
        if (text == NULL)
            return err_nomem(err, "the vocabulary");
        v->tokens[i] = (struct vocab_text){text, strlen(text)};
        v->types[i] = type;
    }
    return GLM_OK;
}

/* GPT-2's letters for bytes: printable Latin-1 stands for itself, the others follow from U+0100 on.
 */
static int32_t toy(struct synth_vocab *v, struct arena *a, glm_error *err)
{
    uint32_t next = 256;
    char text[4];
    for (uint32_t b = 0; b < 256 && b < v->n_token; b++) {
        bool keep = (b >= 33 && b < 127) || (b >= 161 && b < 173) || b >= 174;
        uint32_t n = utf8_encode(keep ? b : next++, text);
        const char *copy = arena_copy(a, text, n);
        if (copy == NULL)
            return err_nomem(err, "the vocabulary");
        v->tokens[b] = (struct vocab_text){copy, n};
        v->types[b] = TYPE_NORMAL;
    }
    v->merges[0] = (struct vocab_text){"a b", 3}; /* llama.cpp refuses an empty list */
    v->n_merge = 1;
    return pad(v, a, 0, "<t%u>", TYPE_UNUSED, err);
}

static int32_t put_token(const struct synth *s, struct synth_vocab *v, const struct json *text,
    const struct json *id, int32_t type, glm_error *err)
{
    uint64_t i;
    if (text->type != JSON_STRING || !json_u64(id, &i))
        return err_set(
            err, GLM_EFORMAT, text->offset, s->tokenizer, "a token or its id is of the wrong type");
    if (i >= v->n_token)
        return err_set(err, GLM_EINVAL, text->offset, s->tokenizer,
            "token id %llu does not fit a vocabulary of %zu: raise --vocab", (unsigned long long)i,
            v->n_token);
    v->tokens[i] = (struct vocab_text){text->text, text->size};
    v->types[i] = type;
    return GLM_OK;
}

static int32_t read_tokens(const struct synth *s, struct synth_vocab *v, const struct json *vocab,
    const struct json *added, glm_error *err)
{
    int32_t status = GLM_OK;
    for (const struct json *t = json_first(vocab); t && status == GLM_OK; t = json_next(vocab, t))
        status = put_token(s, v, t, t + 1, TYPE_NORMAL, err);
    for (const struct json *t = json_first(added); t && status == GLM_OK; t = json_next(added, t)) {
        const struct json *id = json_get(t, "id"), *text = json_get(t, "content");
        bool special = true;
        if (id == NULL || text == NULL)
            return err_set(
                err, GLM_EFORMAT, t->offset, s->tokenizer, "an added token has no id or content");
        if (json_get(t, "special") != NULL)
            json_bool(json_get(t, "special"), &special);
        status = put_token(s, v, text, id, special ? TYPE_CONTROL : TYPE_USER, err);
    }
    return status;
}

/* Merges are "left right", or pairs of strings in newer files. */
static int32_t read_merges(const struct synth *s, struct synth_vocab *v, struct arena *a,
    const struct json *merges, glm_error *err)
{
    for (const struct json *p = json_first(merges); p; p = json_next(merges, p)) {
        struct vocab_text *out = &v->merges[v->n_merge++];
        const struct json *left = json_first(p), *right = left ? json_next(p, left) : NULL;
        if (p->type == JSON_STRING) {
            *out = (struct vocab_text){p->text, p->size};
            continue;
        }
        if (right == NULL || left->type != JSON_STRING || right->type != JSON_STRING)
            return err_set(
                err, GLM_EFORMAT, p->offset, s->tokenizer, "a merge is not a pair of strings");
        size_t size = (size_t)left->size + 1 + right->size;
        char *text = arena_alloc(a, size, 1);
        if (text == NULL)
            return err_nomem(err, "the merges");
        memcpy(text, left->text, left->size);
        text[left->size] = ' ';
        memcpy(text + left->size + 1, right->text, right->size);
        *out = (struct vocab_text){text, size};
    }
    return GLM_OK;
}

/* The ids of the tokens that end an answer, where the vocabulary has them. */
static void find_eos(struct synth *s, const struct synth_vocab *v)
{
    static const char *const names[] = {"<|endoftext|>", "<|user|>", "<|observation|>"};
    uint32_t n = 0;
    int32_t eos[ARRAY_LEN(names)];
    for (size_t j = 0; j < ARRAY_LEN(names); j++)
        for (size_t i = v->n_token; i-- > 0;)
            if (v->tokens[i].size == strlen(names[j]) &&
                memcmp(v->tokens[i].text, names[j], strlen(names[j])) == 0) {
                eos[n++] = (int32_t)i;
                break;
            }
    if (n > 0) {
        memcpy(s->eos, eos, n * sizeof *eos);
        s->n_eos = n;
    }
}

static int32_t from_json(
    struct synth *s, struct mem *m, struct arena *a, struct synth_vocab *v, glm_error *err)
{
    struct fs fs;
    char *text = NULL;
    size_t size = 0;
    fs_init(&fs, NULL);
    int32_t status = fs_load(m, &fs, s->tokenizer, TOKENIZER_MAX, &text, &size, err);
    status = status ? status : json_parse(m, text, size, 0, s->tokenizer, &v->doc, err);
    mem_free(m, text);
    if (status)
        return status;
    const struct json *model = json_get(v->doc.root, "model");
    const struct json *vocab = model ? json_get(model, "vocab") : NULL;
    const struct json *merges = model ? json_get(model, "merges") : NULL;
    const struct json *added = json_get(v->doc.root, "added_tokens");
    if (vocab == NULL || vocab->type != JSON_OBJECT || merges == NULL || merges->type != JSON_ARRAY)
        return err_set(err, GLM_EFORMAT, 0, s->tokenizer,
            "no model.vocab and model.merges: this is no BPE tokenizer.json");
    v->merges =
        arena_alloc(a, (merges->count + 1) * sizeof *v->merges, _Alignof(struct vocab_text));
    if (v->merges == NULL)
        return err_nomem(err, "the merges");
    status = read_tokens(s, v, vocab, added, err);
    status = status ? status : read_merges(s, v, a, merges, err);
    status = status ? status : pad(v, a, 0, "[PAD%u]", TYPE_UNUSED, err);
    if (status == GLM_OK)
        find_eos(s, v);
    return status;
}

int32_t synth_vocab_make(
    struct synth *s, struct mem *m, struct arena *arena, struct synth_vocab *v, glm_error *err)
{
    struct fs fs;
    struct vocab_text *one = arena_alloc(arena, sizeof *one, _Alignof(struct vocab_text));
    size_t n = s->hp.n_vocab;
    *v = (struct synth_vocab){.n_token = n, .merges = one};
    v->tokens = arena_alloc(arena, n * sizeof *v->tokens, _Alignof(struct vocab_text));
    v->types = arena_alloc(arena, n * sizeof *v->types, _Alignof(int32_t));
    if (v->tokens == NULL || v->types == NULL || one == NULL)
        return err_nomem(err, "the vocabulary");
    memset(v->tokens, 0, n * sizeof *v->tokens);
    fs_init(&fs, NULL);
    int32_t status = s->tokenizer ? from_json(s, m, arena, v, err) : toy(v, arena, err);
    if (status == GLM_OK && s->chat_template != NULL)
        status = fs_load(
            m, &fs, s->chat_template, TOKENIZER_MAX, &v->template_text, &v->template_size, err);
    return status;
}

void synth_vocab_free(struct mem *m, struct synth_vocab *v)
{
    json_free(&v->doc);
    mem_free(m, v->template_text);
}
