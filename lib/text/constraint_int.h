/* constraint_int.h: what the constraint's files share. A run's state is a set of configurations; each is a place in a terminal
 * (a state over bytes) and a chain of frames that says what to do when the terminal ends. Frames are never changed once made,
 * and refer only to older ones: going back to an earlier token is forgetting the newer frames.
 */
#ifndef GLM_TEXT_CONSTRAINT_INT_H
#define GLM_TEXT_CONSTRAINT_INT_H

#include "constraint.h"
#include "schema.h"
#include "trie.h"

#include <pthread.h>
#include <string.h>

#define CONFIGS_MAX 1024u  /* in one state */
#define NO_FRAME UINT32_MAX

struct con_vocab {
    struct mem *mem;
    const struct tok *tok;
    struct trie *trie;
    uint32_t n_word;
    uint32_t *normal; /* [n_word] all tokens that are not added ones */
};

enum frame_kind {
    F_ROOT, F_OBJECT, F_ARRAY, F_CALL, F_ARGUMENT,
    F_EITHER /* a value under way belongs to two frames, parent and shape: what follows it is tried for both */
};

struct frame {
    uint8_t kind, met; /* met: conditions of `some` that are met */
    uint8_t variant;   /* of the value that is under way */
    uint8_t classes;   /* keys of classes may come */
    uint32_t parent, shape;
    uint32_t count;    /* properties, items */
    uint32_t counted;
    uint32_t label;    /* of the property that is under way */
    uint32_t tool;
    uint32_t used;     /* keys of classes so far: a list of pairs in words, the key's last word and the next pair; or 0 */
    uint32_t set;      /* in words: keys seen, then keys that may not come now, n_word each; unless they fit here: */
    uint64_t seen, deny;
};

enum config_kind {
    C_DONE, C_SCALAR, C_TEXT, C_KEY, C_COLON, C_OBJECT_OPEN, C_OBJECT_CLOSE, C_ARRAY_OPEN, C_ARRAY_COMMA, C_ARRAY_CLOSE,
    /* a turn */
    C_FREE, C_NAME, C_NEWLINE, C_RAW_KEY, C_RAW, C_ARGUMENTS, C_KEY_END, C_VALUE, C_VALUE_END, C_GLUE
};
/* C_FREE's arg */
#define FREE_START 1u   /* a thought may open */
#define FREE_THOUGHT 2u
#define FREE_CALLED 4u  /* a call has been made */

struct config {
    uint8_t kind;
    uint32_t state; /* 0: waits for a special token */
    uint32_t frame;
    uint32_t arg;   /* shape, flags, or what comes next */
    uint32_t typed; /* C_KEY, C_RAW_KEY of shapes with classes: the last byte of the key so far, in words; 0: none */
};
/* A word of a key that is written: the one before it, how many they are, the byte. */
static inline uint64_t typed_word(uint32_t before, uint32_t n, uint8_t byte)
{
    return (uint64_t)before << 32 | (uint64_t)n << 8 | byte;
}
static inline uint32_t typed_size(uint64_t word) { return (uint32_t)word >> 8; }

struct exit_point { /* a node of the trie behind which the terminal may have ended */
    uint32_t node, label;
};
/* Tokens that lie within a terminal, from one of its states on, and where it may end. */
struct inside {
    struct inside *next;    /* in the order of making */
    uint32_t state;
    uint32_t *bits;         /* [n_word], or NULL: ids */
    int32_t *id;
    uint32_t n_id;
    struct exit_point *exits; /* [n_exit] by label */
    uint32_t n_exit;
    bool has_exits;
    size_t bytes;
};

struct con_tool {
    struct vocab_text name;
    uint32_t term; /* of its arguments */
    const struct tool_type *type;
};

struct con_start { /* per term: a value's scalar part, without and with a space before it; raw: as an argument */
    uint32_t state[2];
    bool known[2];
};

struct con_grammar {
    struct mem *mem;
    struct con_vocab *vocab;
    _Atomic uint32_t refs;
    pthread_mutex_t lock;
    struct rx rx;
    struct schema schema;
    enum con_kind kind;
    uint32_t root;       /* term; or state of CON_REGEX, CON_CHOICE */
    struct con_start *start; /* [n_term] */
    uint32_t n_start;
    uint32_t punct[6][2]; /* states of { } [ ] , : without and with a space before */
    uint32_t newline, names, glue;
    /* a turn */
    enum con_tool_choice choice;
    enum chat_family family;
    bool in_thought, may_think, has_answer;
    struct con_tool *tool;
    uint32_t n_tool;
    struct tool_types *types;
    int32_t special[TOK_SPECIAL_COUNT];
    /* the cache of masks */
    struct inside *oldest, *newest, **by_state;
    uint32_t by_state_cap;
    uint64_t cache_bytes, cache_max;
    uint32_t *scratch_bits; /* [n_word] */
};

struct moment { /* after a token */
    uint32_t first, n; /* its configurations */
    uint32_t n_frame, n_words;
};

struct con_run {
    struct mem *mem;
    struct con_grammar *g;
    struct config *config;
    struct frame *frame;
    uint64_t *words;
    struct moment *moment; /* [n_moment]: the start, then one per token */
    uint32_t n_config, n_frame, n_words, n_moment;
    uint32_t config_cap, frame_cap, words_cap, moment_cap;
    int32_t failed;
    bool asking; /* for a mask: keys that end are not compared with used ones, since not all of their bytes are known */
};

/* ---- moving (constraint_step.c) ---- */
void run_start(struct con_run *r);
/* Configurations [from, from + n) by a byte; what comes of them is appended to r->config. */
void run_step(struct con_run *r, uint32_t from, uint32_t n, uint8_t byte);
void run_step_special(struct con_run *r, uint32_t from, uint32_t n, enum tok_special which);
void run_exit(struct con_run *r, struct config c, uint32_t label, uint32_t base);
void run_put(struct con_run *r, struct config c, uint32_t base);
uint32_t run_frame(struct con_run *r, struct frame f);
void run_value(struct con_run *r, uint32_t term, uint32_t frame, uint32_t spaced, uint32_t base);
void run_value_done(struct con_run *r, uint32_t frame, uint32_t base);
bool run_key_live(struct con_run *r, const struct config *c, uint32_t state);
bool run_used_rest(const struct con_run *r, const struct config *c, uint32_t pair, uint8_t *rest, uint32_t max, uint32_t *n);
bool run_key_is_used_up(struct con_run *r, const struct config *c, uint32_t state); /* it can only end, as a used one */
bool run_key_must_end(struct rx *x, uint32_t state);
uint32_t run_type(struct con_run *r, uint32_t before, uint8_t byte);
bool run_key_touched(struct con_run *r, const struct config *c, uint32_t state);
const uint64_t *run_deny(const struct con_run *r, const struct frame *f);
uint32_t grammar_state(struct con_grammar *g, uint32_t node);

/* ---- objects (constraint_object.c) ---- */
void run_object_next(struct con_run *r, struct frame f, bool first, uint32_t base);
void run_object_value_done(struct con_run *r, const struct frame *f, uint32_t base);
void run_object_key(struct con_run *r, const struct config *c, uint32_t label, uint32_t base);
bool run_object_may_close(const struct con_run *r, const struct frame *f);
void run_object_values(struct con_run *r, uint32_t frame, uint32_t base);
bool run_object_any_key(const struct con_run *r, uint32_t frame);
void run_object_raw_key(struct con_run *r, uint32_t frame, uint32_t base);

/* ---- calls (constraint_call.c) ---- */
int32_t call_compile(struct con_grammar *g, const struct con_spec *spec, const struct json *tools, glm_error *err);
void call_start(struct con_run *r, uint32_t base);
void call_exit(struct con_run *r, struct config c, uint32_t label, uint32_t base);
void call_special(struct con_run *r, struct config c, enum tok_special which, uint32_t base);
bool call_allows(const struct con_run *r, const struct config *c, enum tok_special which);
void call_argument(struct con_run *r, uint32_t term, uint32_t frame, uint32_t base);
bool call_can_end(const struct con_run *r, const struct config *c);

#endif
