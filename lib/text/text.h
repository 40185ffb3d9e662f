/* text.h: from text to tokens and back. Tokenizer, chat rendering, the stream parser and the sampler. Depends on
 * lib/base only; knows nothing of weights.
 *
 * Ids are int32_t as in the public API. Special ids are looked up by content, never constants; -1 stands for a special
 * token that the vocabulary does not have.
 */
#ifndef GLM_TEXT_TEXT_H
#define GLM_TEXT_TEXT_H

#include "../base/base.h"
#include "../base/vocab.h"

/* ---- tokenizer (tok_*.c) ------------------------------------------------------------------------------------------ */

/* The family's markup, by content. */
enum tok_special {
    TOK_ENDOFTEXT, TOK_GMASK, TOK_SOP, TOK_EOP, TOK_SYSTEM, TOK_USER, TOK_ASSISTANT, TOK_OBSERVATION,
    TOK_CODE_PREFIX, TOK_CODE_MIDDLE, TOK_CODE_SUFFIX,
    TOK_THINK, TOK_THINK_END, TOK_TOOL_CALL, TOK_TOOL_CALL_END, TOK_TOOL_RESPONSE, TOK_TOOL_RESPONSE_END,
    TOK_ARG_KEY, TOK_ARG_KEY_END, TOK_ARG_VALUE, TOK_ARG_VALUE_END, TOK_NOTHINK,
    TOK_SPECIAL_COUNT
};

struct tok; /* immutable after tok_open: any number of threads */

/* n_vocab: rows of the model's embedding (0: unknown); a vocabulary entry beyond it is GLM_EFORMAT. VOCAB_NONE gives
 * GLM_ENOTSUP. A pre-tokenizer, normalizer or model that is not the family's is refused by name with GLM_ENOTSUP. */
int32_t tok_open(struct mem *m, const struct vocab_source *src, uint32_t n_vocab, struct tok **out, glm_error *err);
void tok_close(struct tok *t);
uint32_t tok_n(const struct tok *t);                         /* one more than the largest id */
int32_t tok_id(const struct tok *t, enum tok_special which); /* -1: not in this vocabulary */
int32_t tok_find(const struct tok *t, const char *content, size_t size); /* an added token by content; -1: none */
bool tok_is_added(const struct tok *t, int32_t id);          /* an added token: markup, never produced from plain text */
/* The bytes of a token (may be part of a character); NULL with *size 0 for ids that are not in the vocabulary. An
 * added token gives its spelling. */
const char *tok_bytes(const struct tok *t, int32_t id, size_t *size);

#define TOK_SPECIALS 1u /* added tokens spelled out in the text are meant as such */

struct ids { /* a growing array of ids; failure sticks as in struct buf */
    struct mem *mem;
    int32_t *id;
    size_t n, capacity;
    bool failed;
};
void ids_init(struct ids *v, struct mem *m);
void ids_put(struct ids *v, int32_t id);
void ids_append(struct ids *v, const int32_t *id, size_t n);
void ids_free(struct ids *v);

/* Appends the ids of text (valid UTF-8). Linear time. Only `out` allocates beside small scratch from its mem. */
int32_t tok_encode(const struct tok *t, const char *text, size_t size, uint32_t flags, struct ids *out, glm_error *err);

/* Streaming decode: holds back an unfinished UTF-8 character. Bytes that can never become one come out as U+FFFD, one
 * for each maximal ill-formed part, as the reference decoder does. */
struct tok_decoder {
    char held[4];
    uint32_t n_held;
};
void tok_decode(const struct tok *t, struct tok_decoder *d, int32_t id, struct buf *out); /* appends to out */
void tok_decode_bytes(struct tok_decoder *d, const char *bytes, size_t size, struct buf *out);
void tok_decode_end(struct tok_decoder *d, struct buf *out); /* what is still held becomes U+FFFD */

/* ---- chat (chat_*.c): the family's template as code ---------------------------------------------------------------- */

enum chat_family { CHAT_45 = 1, CHAT_47 = 2 }; /* as GLM_TEMPLATE_45, GLM_TEMPLATE_47; 4.6 is CHAT_45 */

/* Which family a checkpoint's template text is: exact known texts by hash, then by the marks that tell them apart.
 * *known false: neither; the answer is then CHAT_45. */
enum chat_family chat_detect(const char *template_text, size_t size, bool *known);

/* What a template prints goes to a sink as three kinds of pieces, in order: a special token, fixed scaffold text (from
 * the template itself) and content (from messages, tools: data, never read as markup unless the message says so). */
enum chat_piece { CHAT_SPECIAL, CHAT_SCAFFOLD, CHAT_CONTENT, CHAT_CONTENT_SPECIALS };
struct chat_sink {
    void *user;
    /* For CHAT_SPECIAL: special is the token, text its spelling. A piece lives until the call returns. Nonzero stops
     * rendering with that status. */
    int32_t (*put)(void *user, enum chat_piece kind, enum tok_special special, const char *text, size_t size);
    /* Called after each whole message (index as given) has been put; may be NULL. */
    int32_t (*message_end)(void *user, size_t index);
};

/* The template's own arguments, with "defined" told apart from a value as Jinja does. */
enum chat_flag { CHAT_UNDEFINED = 0, CHAT_FALSE = 1, CHAT_TRUE = 2 };
struct chat_options {
    enum chat_family family;
    enum chat_flag enable_thinking;  /* None and 0 are CHAT_FALSE */
    enum chat_flag clear_thinking;   /* 4.7 only */
    bool add_generation_prompt;
};

struct chat_call {
    const char *name;
    size_t name_size;
    const struct json *arguments; /* a JSON_OBJECT */
};

/* A message after normalisation; text fields may be NULL where absent. */
struct chat_message {
    uint32_t role;             /* GLM_ROLE_*; or CHAT_ROLE_UNKNOWN, which prints nothing */
    uint32_t flags;            /* GLM_MESSAGE_SPECIALS */
    const char *text;
    size_t text_size;
    const char *reasoning;     /* not NULL: a string reasoning_content, and text is then not split at </think> */
    size_t reasoning_size;
    const struct chat_call *calls;
    size_t n_call;
    const struct chat_message *parts; /* tool result given as a list: each part its own <tool_response> (text only) */
    size_t n_part;
    bool list_result;          /* the tool content was a list */
};
#define CHAT_ROLE_UNKNOWN 99u

/* tools: the declared JSON array, or NULL; each tool is printed as json_put_value does. */
int32_t chat_render(struct mem *m, const struct chat_message *messages, size_t n_message, const struct json *tools,
    const struct chat_options *how, const struct chat_sink *sink, glm_error *err);

/* An OpenAI-style array into chat_message records, as the templates would read it: content string, null (printed as
 * None: *what Jinja prints*), list of parts; reasoning_content; tool_calls with or without "function", arguments an object
 * or a string that holds one; role "tool" with string or list. Errors carry the JSON pointer in err->where. The records
 * and all they point to live in arena. */
int32_t chat_from_json(struct arena *arena, struct mem *m, const struct json *messages,
    const struct chat_message **out, size_t *n, glm_error *err);

/* A sink that makes token ids: special pieces by id (a special token that the vocabulary lacks falls back to its
 * spelling as text), runs of scaffold and content through tok_encode. Scaffold and content that touch are encoded as
 * one text, as the reference does when it tokenizes the whole render, except that content never becomes markup. */
struct chat_ids {
    const struct tok *tok;
    struct ids *out;
    struct buf run;
    size_t *message_end; /* [n_message] optional: ids so far at each message's end (runs that span messages end there) */
};
int32_t chat_render_ids(const struct tok *t, struct mem *m, const struct chat_message *messages, size_t n_message,
    const struct json *tools, const struct chat_options *how, struct ids *out, size_t *message_end /* [n] or NULL */,
    glm_error *err);

/* ---- stream parser (stream.c): tokens to typed pieces ---------------------------------------------------------------- */

enum stream_event_type { STREAM_REASONING, STREAM_TEXT, STREAM_CALL_BEGIN, STREAM_CALL_DELTA, STREAM_CALL, STREAM_STOP };

struct stream_event {
    enum stream_event_type type;
    uint32_t call;        /* index of the call in this turn, from 0 */
    const char *text;     /* REASONING, TEXT, CALL_DELTA: UTF-8, never half a character, never markup */
    size_t text_size;
    const char *name;     /* CALL_BEGIN, CALL */
    size_t name_size;
    const char *arguments; /* CALL: one JSON object, as json_put_value would print it; the concatenated deltas equal it */
    size_t arguments_size;
};
struct stream_sink {
    void *user;
    int32_t (*put)(void *user, const struct stream_event *ev); /* pointers live until it returns */
};

/* Types of declared arguments, for values that are not strings: built once from the tools array. */
struct tool_types;
int32_t tool_types_open(struct mem *m, const struct json *tools /* NULL: none */, struct tool_types **out, glm_error *err);
void tool_types_close(struct tool_types *t);

enum stream_finish { STREAM_OPEN, STREAM_FINISH_STOP, STREAM_FINISH_TOOL_CALLS, STREAM_FINISH_LENGTH };

struct stream;
/* in_reasoning: the prompt ended inside a thought (4.7's "<think>"). may_think: a leading <think> opens a thought. types
 * may be NULL. Emits nothing by itself; memory bounded by the longest name, key or non-string value. */
int32_t stream_open(struct mem *m, const struct tok *t, const struct tool_types *types, enum chat_family family,
    bool in_reasoning, struct stream **out, glm_error *err);
void stream_close(struct stream *s);
int32_t stream_put(struct stream *s, int32_t id, const struct stream_sink *sink, glm_error *err); /* one token */
/* The same machine by pieces, for `parse` and tests: text that is not markup, and markup by kind. */
int32_t stream_put_text(struct stream *s, const char *bytes, size_t size, const struct stream_sink *sink, glm_error *err);
int32_t stream_put_special(struct stream *s, enum tok_special which, const struct stream_sink *sink, glm_error *err);
/* End of input. `length`: cut by a limit. Flushes what was held; an unfinished call is never emitted as STREAM_CALL with
 * an argument missing. */
int32_t stream_end(struct stream *s, bool length, const struct stream_sink *sink, enum stream_finish *finish,
    glm_error *err);
bool stream_in_reasoning(const struct stream *s);
uint32_t stream_n_call(const struct stream *s); /* complete calls so far */

/* ---- sampler (sample.c) ------------------------------------------------------------------------------------------------ */

struct sample_options {
    float temperature;    /* 0: greedy */
    float top_p, min_p, repeat_penalty; /* 1, 0, 1: off */
    int32_t top_k;        /* 0: off */
    uint64_t seed;
};
struct sampler; /* scratch for one session: n_vocab candidates, the recent tokens for the penalty */
int32_t sampler_open(struct mem *m, uint32_t n_vocab, struct sampler **out, glm_error *err);
void sampler_close(struct sampler *s);
int32_t sample_check(const struct sample_options *o, glm_error *err); /* GLM_EINVAL for NaN, infinite or out of range */
/* Draws from logits [n_vocab] (not changed). mask: a bit per token that may be drawn, or NULL. history: the tokens that the
 * repetition penalty looks at. The draw is keyed by (seed, position) alone (a counter generator: the same on every
 * machine). Ties go to the lowest id. A NaN among the logits: GLM_ENUMERIC with its index. No allocation. */
int32_t sample_draw(struct sampler *s, const struct sample_options *o, const float *logits, const uint32_t *mask,
    const int32_t *history, size_t n_history, uint64_t position, int32_t *id, glm_error *err);

#endif
