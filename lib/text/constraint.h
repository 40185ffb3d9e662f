/* constraint.h: what may come next. A grammar (a JSON schema, a pattern, a choice, the tool calls of a turn) is compiled once
 * and shared; a run follows one sequence through it, and says before each token which ones keep the text completable: what is
 * accepted to its end is valid, and no accepted text is a dead end. docs/CONSTRAINTS.md says what is enforced and how.
 *
 * A grammar may be used by any number of threads (a lock guards what it learns as it runs), a run by one at a time.
 */
#ifndef GLM_TEXT_CONSTRAINT_H
#define GLM_TEXT_CONSTRAINT_H

#include "text.h"

/* The vocabulary as a byte trie: built once per tokenizer, immutable, must outlive its grammars. n_vocab: rows of the
 * model's head (0: as many as the tokenizer has ids). */
struct con_vocab;
int32_t con_vocab_open(struct mem *m, const struct tok *t, uint32_t n_vocab, struct con_vocab **out, glm_error *err);
void con_vocab_close(struct con_vocab *v);
uint32_t con_n_word(const struct con_vocab *v); /* uint32_t words of a mask */

struct con_limits { /* 0: the default */
    uint64_t bytes;      /* of a grammar with all it learns: 64 MiB. Beyond it: GLM_ELIMIT */
    uint64_t cache_bytes; /* of masks kept for states that come back: 24 MiB; older ones make room */
    uint32_t states;     /* expressions, states over bytes: 400,000 of each */
    uint32_t work;       /* steps of compiling, and of each mask or token: 300,000, some tens of milliseconds */
    uint32_t reserved;
    uint64_t compile_ns; /* of the clock, looked at now and then: none, so that a busy machine refuses nothing more */
};

enum con_kind {
    CON_SCHEMA, /* the whole text is JSON that fits the schema */
    CON_OBJECT, /* any JSON object */
    CON_VALUE,  /* any JSON */
    CON_REGEX,  /* the whole text matches an ECMA-262 pattern */
    CON_CHOICE, /* the text is one of some strings */
    CON_TURN    /* free text with tool calls; or, with a schema, thought and then JSON */
};
enum con_tool_choice { CON_AUTO, CON_NONE, CON_REQUIRED, CON_NAMED };

struct con_spec {
    enum con_kind kind;
    const struct json *schema;  /* CON_SCHEMA; CON_TURN: the answer's schema, or NULL */
    const char *regex;          /* CON_REGEX; CON_TURN: the answer's pattern, or NULL */
    size_t regex_size;
    const struct json *choices; /* an array of strings */
    /* CON_TURN */
    const struct json *tools;   /* as chat APIs have it; NULL: none */
    enum con_tool_choice choice;
    const char *name;           /* CON_NAMED: the tool's */
    size_t name_size;
    enum chat_family family;
    bool in_thought;            /* the prompt ends inside a thought */
    bool may_think;             /* a thought may open before the answer */
    const struct con_limits *limits; /* NULL: the defaults */
};

struct con_grammar;
/* The JSON is copied. GLM_ESCHEMA with the JSON pointer in err->where: malformed, or it cannot be enforced exactly;
 * GLM_ELIMIT: too large. A failure leaves nothing behind. */
int32_t con_compile(struct mem *m, struct con_vocab *v, const struct con_spec *spec, struct con_grammar **out, glm_error *err);
void con_hold(struct con_grammar *g);    /* one more con_release is needed */
void con_release(struct con_grammar *g); /* NULL is fine; runs hold their grammar */

struct con_run;
int32_t con_open(struct mem *m, struct con_grammar *g, struct con_run **out, glm_error *err);
void con_close(struct con_run *r);
int32_t con_fork(const struct con_run *r, struct con_run **out, glm_error *err);
/* A bit for each token that may come next, stop tokens among them where the text may end: bits [con_n_word]. */
int32_t con_mask(struct con_run *r, uint32_t *bits, glm_error *err);
/* Takes a token. GLM_EINVAL: it is not allowed here; a failure leaves the run as it was. */
int32_t con_accept(struct con_run *r, int32_t id, glm_error *err);
bool con_can_end(const struct con_run *r);
bool con_is_free(const struct con_run *r); /* every text is allowed here: the mask takes only markup away */
size_t con_n_token(const struct con_run *r);
void con_rewind(struct con_run *r, size_t n_token); /* back to where so many tokens had been taken */

#endif
