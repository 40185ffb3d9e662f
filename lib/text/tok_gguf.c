/* tok_gguf.c: the vocabulary of a GGUF file, taken from its metadata arrays into a tok_build. Owns
 * nothing.
 */
#include "tok_int.h"

#define KEY "tokenizer.ggml."

enum { TYPE_NORMAL = 1, TYPE_CONTROL = 3, TYPE_USER_DEFINED = 4, TYPE_UNUSED = 5 };

static int32_t check_kind(const struct vocab_source *src, glm_error *err)
{
    if (!src->model || strcmp(src->model, "gpt2"))
        return err_set(err, GLM_ENOTSUP, 0, src->where,
            KEY "model: \"%s\"; only \"gpt2\" (byte-level BPE) is known",
            src->model ? src->model : "(none)");
    if (!src->pre || (strcmp(src->pre, "glm4") && strcmp(src->pre, "chatglm-bpe")))
        return err_set(err, GLM_ENOTSUP, 0, src->where,
            KEY "pre: \"%s\"; only \"glm4\" and \"chatglm-bpe\" are known",
            src->pre ? src->pre : "(none)");
    if (!src->tokens || !src->n_token)
        return err_set(err, GLM_EFORMAT, 0, src->where, KEY "tokens: missing or empty");
    if (!src->merges && src->n_merge)
        return err_set(err, GLM_EFORMAT, 0, src->where, KEY "merges: missing");
    return GLM_OK;
}

/* Control and user-defined tokens are markup, spelled as they are; unused ones are padding. */
static int32_t read_tokens(struct tok_build *b, const struct vocab_source *src, glm_error *err)
{
    for (uint32_t i = 0; i < src->n_token; i++) {
        const struct vocab_text *v = &src->tokens[i];
        int32_t type = src->types ? src->types[i] : TYPE_NORMAL, status = GLM_OK;
        switch (type) {
        case TYPE_NORMAL:
            status = tok_build_normal(b, i, v->text, v->size, i, KEY "tokens", err);
            break;
        case TYPE_CONTROL:
        case TYPE_USER_DEFINED:
            status = tok_build_added(b, i, v->text, v->size, i, KEY "tokens", err);
            break;
        case TYPE_UNUSED: break;
        default:
            return err_set(err, GLM_ENOTSUP, i, src->where,
                KEY "token_type: token %u has type %d; 1, 3, 4 and 5 are known", i, type);
        }
        if (status)
            return status;
    }
    return GLM_OK;
}

/* "left right". A merge of what is no token is passed over: it can never apply, and cut-down files
 * have such. */
static int32_t read_merges(struct tok_build *b, const struct vocab_source *src, glm_error *err)
{
    for (uint64_t i = 0; i < src->n_merge; i++) {
        const struct vocab_text *v = &src->merges[i];
        const char *blank = v->size ? memchr(v->text, ' ', v->size) : NULL;
        if (!blank)
            return err_set(err, GLM_EFORMAT, i, src->where,
                KEY "merges: entry %llu is not \"left right\"", (unsigned long long)i);
        size_t left = (size_t)(blank - v->text);
        int32_t status = tok_build_merge(
            b, v->text, left, blank + 1, v->size - left - 1, true, i, KEY "merges", err);
        if (status)
            return status;
    }
    return GLM_OK;
}

int32_t tok_gguf_read(struct tok_build *b, const struct vocab_source *src, glm_error *err)
{
    int32_t status = check_kind(src, err);
    if (!status)
        status = read_tokens(b, src, err);
    if (!status)
        status = tok_build_pieces(b, err);
    if (!status)
        status = read_merges(b, src, err);
    b->tok->ignore_merges = true; /* no key says so; the family's tokenizers have it on */
    return status;
}
