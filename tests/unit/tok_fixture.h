/* tok_fixture.h: tokenizers for tests: files of tests/data, the same as GGUF arrays, and a tiny one
 * whose parts a test can replace. */
#ifndef GLM_TESTS_TOK_FIXTURE_H
#define GLM_TESTS_TOK_FIXTURE_H

#include "lib/text/text.h"

/* Opens tests/data/NAME; the test fails if that fails. */
struct tok *fixture_open(struct mem *m, const char *name);

/* A tokenizer.json's content as a GGUF file has it, ids without a token as unused ones up to
 * n_token. */
struct fixture_gguf {
    struct vocab_source src;
    char *text;
    struct json_doc doc;
    struct vocab_text *tokens, *merges;
    int32_t *types;
    struct buf joined; /* the merges' spellings */
};
void fixture_gguf_init(struct fixture_gguf *g, struct mem *m, const char *name, uint32_t n_token);
void fixture_gguf_free(struct fixture_gguf *g);

/* A tokenizer.json of 256 bytes, "ab", "abc", "bc" and the added tokens "<x>" (id 300) and "<xy>"
 * (301). Each member is one text that a test may replace; NULL leaves it out. */
struct fixture_small {
    const char *added, *normalizer, *pre_tokenizer, *post_processor, *decoder;
    const char *type, *settings, *vocab_more, *merges;
    int skip_byte; /* left out of the vocabulary; -1: none */
    bool merges_first;
};
void fixture_small_init(struct fixture_small *f);
void fixture_small_print(const struct fixture_small *f, struct buf *out);

#endif
