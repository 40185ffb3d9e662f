/* vocab.h: where a tokenizer's content comes from. lib/io fills it, lib/text reads it. */
#ifndef GLM_BASE_VOCAB_H
#define GLM_BASE_VOCAB_H

#include <stddef.h>
#include <stdint.h>

struct vocab_text {
    const char *text; /* not NUL-terminated */
    size_t size;
};

enum vocab_kind { VOCAB_NONE = 0, VOCAB_JSON = 1, VOCAB_GGUF = 2 };

/* A view: lives as long as the checkpoint that gave it. */
struct vocab_source {
    uint32_t kind;          /* enum vocab_kind */
    uint32_t n_token;       /* VOCAB_GGUF: entries of tokens and types */
    const char *where;      /* the file's name, for errors */
    const char *json;       /* VOCAB_JSON: tokenizer.json */
    size_t json_size;
    const char *model, *pre;            /* VOCAB_GGUF: tokenizer.ggml.model and .pre, NUL-terminated, or NULL */
    const struct vocab_text *tokens;    /* [n_token], in ggml's byte-level spelling */
    const int32_t *types;               /* [n_token]: 1 normal, 3 control, 4 user-defined, 5 unused; NULL: all normal */
    const struct vocab_text *merges;    /* [n_merge] "left right" */
    uint64_t n_merge;
};

#endif
