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
    /* For messages that come with their ids; NULL: they are rendered from their text like any other. */
    int32_t (*put_ids)(void *user, const int32_t *ids, size_t n);
};

/* The template's own arguments, with "defined" told apart from a value as Jinja does. */
enum chat_flag { CHAT_UNDEFINED = 0, CHAT_FALSE = 1, CHAT_TRUE = 2 };
struct chat_options { /* zeroed but for family: the template's defaults */
    enum chat_family family;
    enum chat_flag enable_thinking;  /* None and 0 are CHAT_FALSE */
    enum chat_flag clear_thinking;   /* 4.7 only */
    bool add_generation_prompt;
};
/* The template arguments as a JSON object (or NULL), truth as Python has it (null, 0, "", [], {} are false): sets the
 * three flags, leaves family. Members that the templates do not read are ignored. */
int32_t chat_options_from_kwargs(const struct json *kwargs, struct chat_options *how, glm_error *err);

/* The spelling of a special token; NULL outside the enum. */
const char *chat_spelling(enum tok_special which);
/* The special token whose spelling stands at text; TOK_SPECIAL_COUNT: none. *size: bytes of the spelling. */
enum tok_special chat_spelled(const char *text, size_t n, size_t *size);

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
    const struct vocab_text *parts; /* role tool, list_result: each part its own <tool_response> */
    size_t n_part;
    bool list_result;          /* the tool content was a list: text is not used */
    /* Assistant: the ids that the model wrote the message in, all that followed <|assistant|>; or NULL. chat_render_ids gives
     * them as they are where the template prints the whole message, its thought too. */
    const int32_t *ids;
    size_t n_id;
};
#define CHAT_ROLE_UNKNOWN 99u

/* tools: the declared JSON array, or NULL (JSON null, an empty array are the same as NULL); each tool is printed as
 * json_put_value does. A special token that the template itself prints is a CHAT_SPECIAL piece, "/nothink" included;
 * a "/nothink" that ends a user's text is one too where enable_thinking is CHAT_FALSE (4.5): there it is the switch.
 * All other text of messages and tools is content. */
int32_t chat_render(struct mem *m, const struct chat_message *messages, size_t n_message, const struct json *tools,
    const struct chat_options *how, const struct chat_sink *sink, glm_error *err);

/* The render as text, tags and all, appended to out: what the reference prints, byte for byte. */
int32_t chat_render_text(struct mem *m, const struct chat_message *messages, size_t n_message, const struct json *tools,
    const struct chat_options *how, struct buf *out, glm_error *err);

/* An OpenAI-style array into chat_message records, as the templates would read it: content string, missing (empty), null
 * (the word None, which is what Jinja prints), list of parts, or anything else as Python prints it; reasoning_content;
 * tool_calls with or without "function", arguments an object or a string that holds one (an empty string: no arguments);
 * role "tool" with string or list. Errors carry the JSON pointer in err->where. The records live in arena and point into
 * it and into messages. */
#define CHAT_OPENAI 1u /* for hosts: a null content is an empty one (clients send it beside tool_calls), and a tool result
                          given as a list of text parts is their text */
int32_t chat_from_json(struct arena *arena, struct mem *m, const struct json *messages, uint32_t flags,
    const struct chat_message **out, size_t *n, glm_error *err);
/* The arguments of one call, an object or a string that holds one, as chat_from_json takes them. */
int32_t chat_arguments(struct arena *arena, struct mem *m, const struct json *value, const char *where,
    const struct json **object, glm_error *err);

/* A sink that makes token ids: special pieces by id (a special token that the vocabulary lacks falls back to its
 * spelling as text), runs of scaffold and content through tok_encode. Scaffold and content that touch are encoded as
 * one text, as the reference does when it tokenizes the whole render, except that content never becomes markup.
 * message_end[i]: ids so far after message i. That is always a clean border: whatever follows a message begins with a
 * special token or follows one, so no run of text spans it. A failure leaves out as it was. */
int32_t chat_render_ids(const struct tok *t, struct mem *m, const struct chat_message *messages, size_t n_message,
    const struct json *tools, const struct chat_options *how, struct ids *out, size_t *message_end /* [n] or NULL */,
    glm_error *err);

/* ---- stream parser (stream.c): tokens to typed pieces ---------------------------------------------------------------- */

/* A turn's output is a run of segments. Space around a segment is glue and never delivered: reasoning and answer come out
 * as the template would print them again, stripped. Markup is markup only as its own token; in text it is text. Where a
 * model breaks the grammar docs/STREAM.md says what each state does; the rule behind it: a call is complete only with all
 * that the model gave it, or it is not emitted as STREAM_CALL at all. */
enum stream_event_type {
    STREAM_REASONING, STREAM_TEXT, STREAM_CALL_BEGIN, STREAM_CALL_DELTA, STREAM_CALL, STREAM_STOP,
    STREAM_CALL_CUT /* the call that began will not be completed: cut off, or malformed */
};

struct stream_event {
    enum stream_event_type type;
    uint32_t call;        /* index of the call in this turn, from 0; a cut call's index is not used again */
    const char *text;     /* REASONING, TEXT, CALL_DELTA: UTF-8, never half a character, never markup */
    size_t text_size;
    const char *name;     /* CALL_BEGIN, CALL, CALL_CUT; NUL-terminated */
    size_t name_size;
    /* CALL: one JSON object, separators ", " and ": ", values that are not strings as the model spelled them. The deltas
     * of the call, one after the other, are the same text; only a key given twice is left out here but for its last
     * value (what a reader of the deltas gets, too). NUL-terminated. */
    const char *arguments;
    size_t arguments_size;
};
struct stream_sink {
    void *user;
    int32_t (*put)(void *user, const struct stream_event *ev); /* pointers live until it returns */
};

/* Types of declared arguments: built once from the tools array; immutable, any number of threads. A tool is
 * {"function": {"name", "parameters"}} or bare; one without a name is GLM_ESCHEMA with its JSON pointer. */
struct tool_types;
int32_t tool_types_open(struct mem *m, const struct json *tools /* NULL: none */, struct tool_types **out, glm_error *err);
void tool_types_close(struct tool_types *t);

#define TOOL_STRING 1u
#define TOOL_INTEGER 2u
#define TOOL_REAL 4u /* a number of any kind is TOOL_INTEGER | TOOL_REAL */
#define TOOL_BOOLEAN 8u
#define TOOL_NULL 16u
#define TOOL_ARRAY 32u
#define TOOL_OBJECT 64u
#define TOOL_ANY 127u
struct tool_type; /* one declared tool */
const struct tool_type *tool_types_find(const struct tool_types *t, const char *name, size_t size); /* NULL: undeclared */
/* The JSON types that the tool's schema allows for an argument; TOOL_ANY where it says nothing. */
uint32_t tool_type_of(const struct tool_type *tool, const char *key, size_t size);
/* The i-th required argument's name, in the schema's order; NULL behind the last. */
const char *tool_type_required(const struct tool_type *tool, size_t i, size_t *size);

enum stream_finish { STREAM_OPEN, STREAM_FINISH_STOP, STREAM_FINISH_TOOL_CALLS, STREAM_FINISH_LENGTH };

struct stream;
/* t: for stream_put; may be NULL where only pieces are fed. in_reasoning: the prompt ended inside a thought (4.7's
 * "<think>"). Both families' spacing is understood whatever the family. Emits nothing by itself. types may be NULL and,
 * like t, must outlive the stream. Sinks may be NULL: what they would get is dropped (to replay a turn). */
int32_t stream_open(struct mem *m, const struct tok *t, const struct tool_types *types, enum chat_family family,
    bool in_reasoning, struct stream **out, glm_error *err);
void stream_close(struct stream *s);
/* Calls are parsed and dropped (tool choice "none"); neither they nor their markup are delivered. */
void stream_drop_calls(struct stream *s, bool drop);
/* Room for a turn of so many bytes (0: a default), so that stream_put need not allocate before. */
int32_t stream_reserve(struct stream *s, size_t bytes, glm_error *err);
/* One token. GLM_ENOMEM: nothing was consumed, the same token may be put again. A sink's nonzero status is returned as it
 * is, the rest of the token's events are dropped. After STREAM_STOP tokens are ignored. */
int32_t stream_put(struct stream *s, int32_t id, const struct stream_sink *sink, glm_error *err);
/* The same machine by pieces, for `parse` and tests: text that is not markup (bytes cut anywhere; GLM_ENOMEM may come
 * after a part of it), markup by kind, and text whose tags are meant as markup (whole tags in one call). */
int32_t stream_put_text(struct stream *s, const char *bytes, size_t size, const struct stream_sink *sink, glm_error *err);
int32_t stream_put_special(struct stream *s, enum tok_special which, const struct stream_sink *sink, glm_error *err);
int32_t stream_put_spelled(struct stream *s, const char *text, size_t size, const struct stream_sink *sink,
    glm_error *err);
/* End of input. `length`: cut by a limit. Flushes what was held; an unfinished call is cut. Without a stop token, an open
 * thought or call is STREAM_FINISH_LENGTH. */
int32_t stream_end(struct stream *s, bool length, const struct stream_sink *sink, enum stream_finish *finish,
    glm_error *err);
bool stream_in_reasoning(const struct stream *s); /* also after a stop: the thought was never closed */
uint32_t stream_n_call(const struct stream *s);   /* complete calls so far */
uint32_t stream_n_cut(const struct stream *s);    /* calls that were begun and will never be complete */

/* A sink that collects a whole turn: segments of one kind that others come between are joined by a newline. */
struct stream_call {
    const char *name, *arguments; /* NUL-terminated */
    size_t name_size, arguments_size;
};
struct stream_text {
    struct buf reasoning, content;
    struct arena arena;
    struct stream_call *calls; /* [n_call] in order */
    size_t n_call, capacity;
    uint8_t last[2];           /* whether reasoning, content may go on without a newline */
    struct mem *mem;
};
void stream_text_init(struct stream_text *c, struct mem *m);
struct stream_sink stream_text_sink(struct stream_text *c); /* put fails with GLM_ENOMEM */
void stream_text_free(struct stream_text *c);

/* Forgets the bytes of an unfinished character; returns how many there were. */
uint32_t stream_drop_partial(struct stream *s);

/* ---- stop rules (stop.c) ------------------------------------------------------------------------------------------------- */

/* The answer is the text before the first place where a stop string stands in it (before the longest that begins there, if
 * strings lie in one another), and before the end of its last line: a line's end in front of what does not belong to the
 * answer is not delivered, nor are blank lines before a line that is indented less. */
struct text_stop_rules {
    const char *const *stop; /* [n_stop], none of them empty */
    uint32_t n_stop;
    uint32_t lines;          /* 0: any number */
    bool dedent;             /* ends before a line that is indented less than the first one that is not blank, unless it only
                                closes brackets. A tab goes to the next multiple of 8 columns */
};
#define TEXT_STOP_MAX 65536u /* bytes of a stop string */
struct text_stop;
/* GLM_EINVAL for an empty string, GLM_ELIMIT for one that is too long; text_stop_open checks this, too. */
int32_t text_stop_check(const struct text_stop_rules *rules, glm_error *err);
int32_t text_stop_open(struct mem *m, const struct text_stop_rules *rules, struct text_stop **out, glm_error *err);
int32_t text_stop_copy(struct mem *m, const struct text_stop *from, struct text_stop **out, glm_error *err); /* as it stands */
void text_stop_close(struct text_stop *s);
/* A new text, which goes on with this line: its indentation counts. */
void text_stop_begin(struct text_stop *s, const char *line, size_t size);
/* More text; what is certain to belong to the answer is appended to out. true: the answer ends there, whatever follows. No
 * allocation but out's. */
bool text_stop_put(struct text_stop *s, const char *text, size_t size, struct buf *out);
/* No text follows, for now: what was held back is appended to out. true: the answer ends there. */
bool text_stop_flush(struct text_stop *s, struct buf *out);

/* ---- loops (loop.c) ------------------------------------------------------------------------------------------------------- */

#define TEXT_LOOP_PERIOD 256u /* longest run of tokens that is looked for */
struct text_loop {
    uint64_t n;
    int32_t recent[TEXT_LOOP_PERIOD];
    uint32_t run[TEXT_LOOP_PERIOD];
    uint32_t period; /* of the loop that was found and still lasts; 0: none */
};
void text_loop_begin(struct text_loop *l);
/* One token. true: a loop has become certain, the last `length` tokens are `period` tokens over and over. Once for each
 * loop. */
bool text_loop_put(struct text_loop *l, int32_t id, uint32_t *period, uint64_t *length);

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
 * repetition penalty looks at (ids outside the vocabulary are ignored). Filters in order: mask, repetition penalty (once
 * per distinct token: divides a positive logit, multiplies a negative one), temperature, top_k, top_p (the smallest set
 * of most likely tokens whose share reaches it), min_p (relative to the most likely). The draw is keyed by (seed,
 * position) alone (Philox4x32-10, a counter generator) and uses no libm: the same on every machine. Ties go to the lowest
 * id, at temperature 0 and at each filter's border. A NaN or +infinity among the logits: GLM_ENUMERIC with its index;
 * nothing left to draw (mask empty, all -infinity): GLM_ESTATE. No allocation. */
int32_t sample_draw(struct sampler *s, const struct sample_options *o, const float *logits, const uint32_t *mask,
    const int32_t *history, size_t n_history, uint64_t position, int32_t *id, glm_error *err);

#endif
