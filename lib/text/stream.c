/* stream.c: from tokens to typed pieces. Takes tokens or text, keeps characters whole, splits the
 * output into thought, answer and calls, and delivers the first two without the space around them.
 * A stream lives for one turn.
 */
#include "stream_int.h"

#include <string.h>

bool stream_is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r' || c == '\v' || c == '\f';
}

struct vocab_text stream_trim(const char *text, size_t size)
{
    while (size > 0 && stream_is_space(text[0])) {
        text++;
        size--;
    }
    while (size > 0 && stream_is_space(text[size - 1]))
        size--;
    return (struct vocab_text){text, size};
}

void stream_emit(struct stream *s, const struct stream_event *ev)
{
    if (s->status == 0 && s->sink != NULL)
        s->status = s->sink->put(s->sink->user, ev);
}

/* ---- segments -------------------------------------------------------------------------------- */

static void deliver(struct stream *s, const char *text, size_t size)
{
    struct stream_event ev = {.type = s->state == AT_THOUGHT ? STREAM_REASONING : STREAM_TEXT,
        .text = text,
        .text_size = size};
    if (size > 0)
        stream_emit(s, &ev);
}

/* Space waits until text follows it; at a segment's end it is dropped. What no glue can be long
 * enough for goes out in pieces of a fixed size, so that how the input was cut makes no difference.
 */
static void hold_space(struct stream *s, const char *text, size_t size)
{
    while (size > 0) {
        size_t n = STREAM_SPACE_MAX - s->space.size;
        n = n < size ? n : size;
        buf_put(&s->space, text, n);
        text += n;
        size -= n;
        if (s->space.size == STREAM_SPACE_MAX) {
            deliver(s, s->space.data, s->space.size);
            buf_clear(&s->space);
        }
    }
}

static void segment_text(struct stream *s, const char *text, size_t size)
{
    size_t end = size;
    if (!s->in_segment) {
        while (size > 0 && stream_is_space(text[0])) {
            text++;
            size--;
        }
        end = size;
    }
    while (end > 0 && stream_is_space(text[end - 1]))
        end--;
    if (end > 0) {
        deliver(s, s->space.data, s->space.size);
        buf_clear(&s->space);
        deliver(s, text, end);
        s->in_segment = true;
    }
    hold_space(s, text + end, size - end);
}

static void segment_end(struct stream *s)
{
    buf_clear(&s->space);
    s->in_segment = false;
}

/* ---- the machine ----------------------------------------------------------------------------- */

static bool is_stop(enum tok_special which)
{
    switch (which) {
    case TOK_ENDOFTEXT:
    case TOK_EOP:
    case TOK_SYSTEM:
    case TOK_USER:
    case TOK_ASSISTANT:
    case TOK_OBSERVATION: return true;
    default: return false;
    }
}

static void stop(struct stream *s)
{
    static const struct stream_event stopped = {.type = STREAM_STOP};
    if (stream_in_call(s))
        stream_call_stop(s);
    s->unclosed_thought = s->state == AT_THOUGHT;
    segment_end(s);
    s->state = AT_END;
    stream_emit(s, &stopped);
}

void stream_on_text(struct stream *s, const char *text, size_t size)
{
    if (s->state == AT_TEXT || s->state == AT_THOUGHT)
        segment_text(s, text, size);
    else if (stream_in_call(s))
        stream_call_text(s, text, size);
}

void stream_on_special(struct stream *s, enum tok_special which)
{
    if (s->state == AT_END)
        return;
    if (which == TOK_NOTHINK) { /* a word in the answer; a switch only in a user's message */
        stream_on_text(s, chat_spelling(which), strlen(chat_spelling(which)));
    } else if (is_stop(which)) {
        stop(s);
    } else if (stream_in_call(s)) {
        stream_call_special(s, which);
    } else if (which == TOK_TOOL_CALL) {
        segment_end(s);
        stream_call_open(s);
    } else if (which == TOK_THINK && s->state == AT_TEXT) {
        segment_end(s);
        s->state = AT_THOUGHT;
    } else if (which == TOK_THINK_END && s->state == AT_THOUGHT) {
        segment_end(s);
        s->state = AT_TEXT;
    } /* any other tag has no business here and is swallowed */
}

/* ---- input ----------------------------------------------------------------------------------- */

#define SLICE 4096u

/* Room for everything that n more bytes of text, and the tags held so far, can turn into: a byte
 * becomes at most six in JSON (\u0000), a held tag of two bytes at most 16. GLM_ENOMEM leaves the
 * stream as it was. */
static int32_t room(struct stream *s, size_t n, glm_error *err)
{
    size_t text = n + s->part.size + s->held.size;
    struct buf *const plain[] = {
        &s->name, &s->held, &s->replay}; /* space has its all from the start */
    bool ok = buf_reserve(&s->part, 8 * (n + s->held.size) + 64);
    for (size_t i = 0; i < ARRAY_LEN(plain); i++)
        ok = buf_reserve(plain[i], n + s->held.size + 64) && ok;
    ok = buf_reserve(&s->arguments, 8 * text + 64) && ok;
    ok = buf_reserve(&s->scratch,
             8 * text + 64 + (s->has_duplicate || s->held.size > 0 ? s->arguments.size : 0)) &&
         ok;
    if (ok)
        return 0;
    for (size_t i = 0; i < ARRAY_LEN(plain); i++)
        plain[i]->failed = false;
    s->part.failed = s->arguments.failed = s->scratch.failed = false;
    return err_nomem(err, "the parsed output");
}

/* A piece of input has been taken in by the machine: what it has ready goes out now. */
static int32_t settle(struct stream *s)
{
    if (stream_in_call(s))
        stream_call_flush(s);
    int32_t rc = s->status;
    s->status = 0;
    return rc;
}

static void begin(struct stream *s, const struct stream_sink *sink, glm_error *err)
{
    s->sink = sink;
    s->err = err;
    s->status = 0;
}

static int32_t feed_decoded(struct stream *s, const struct stream_sink *sink, glm_error *err)
{
    begin(s, sink, err);
    stream_on_text(s, s->decoded.data, s->decoded.size);
    buf_clear(&s->decoded);
    return settle(s);
}

int32_t stream_put_text(struct stream *s, const char *bytes, size_t size,
    const struct stream_sink *sink, glm_error *err)
{
    int32_t rc = 0;
    while (size > 0 && s->state != AT_END && !rc) {
        size_t n = size < SLICE ? size : SLICE;
        rc = room(s, 3 * (n + 4), err); /* a byte that is no text becomes U+FFFD */
        if (rc)
            return rc;
        tok_decode_bytes(&s->decoder, bytes, n, &s->decoded);
        rc = feed_decoded(s, sink, err);
        bytes += n;
        size -= n;
    }
    return rc;
}

int32_t stream_put_special(
    struct stream *s, enum tok_special which, const struct stream_sink *sink, glm_error *err)
{
    if (s->state == AT_END)
        return 0;
    int32_t rc = room(s, 32, err);
    if (rc)
        return rc;
    tok_decode_end(&s->decoder, &s->decoded); /* a tag cuts a character short */
    rc = feed_decoded(s, sink, err);
    if (rc)
        return rc;
    begin(s, sink, err);
    stream_on_special(s, which);
    return settle(s);
}

int32_t stream_put(struct stream *s, int32_t id, const struct stream_sink *sink, glm_error *err)
{
    size_t size;
    const char *bytes = tok_bytes(s->tok, id, &size);
    if (bytes == NULL)
        return 0;
    if (!tok_is_added(s->tok, id))
        return stream_put_text(s, bytes, size, sink, err);
    for (uint32_t i = 0; i < TOK_SPECIAL_COUNT; i++)
        if (s->special[i] == id)
            return stream_put_special(s, (enum tok_special)i, sink, err);
    /* Markup of other models of the family (boxes, images): a value is verbatim, elsewhere it means
     * nothing. */
    return s->state == AT_VALUE ? stream_put_text(s, bytes, size, sink, err) : 0;
}

int32_t stream_put_spelled(
    struct stream *s, const char *text, size_t size, const struct stream_sink *sink, glm_error *err)
{
    size_t done = 0, at = 0;
    int32_t rc = 0;
    while (at < size && !rc) {
        size_t length;
        enum tok_special which = chat_spelled(text + at, size - at, &length);
        if (which == TOK_SPECIAL_COUNT) {
            at++;
            continue;
        }
        rc = stream_put_text(s, text + done, at - done, sink, err);
        if (!rc)
            rc = stream_put_special(s, which, sink, err);
        done = at += length;
    }
    return rc ? rc : stream_put_text(s, text + done, size - done, sink, err);
}

int32_t stream_end(struct stream *s, bool length, const struct stream_sink *sink,
    enum stream_finish *finish, glm_error *err)
{
    bool open = false;
    if (s->state != AT_END) {
        int32_t rc = room(s, 32, err);
        if (rc)
            return rc;
        tok_decode_end(&s->decoder, &s->decoded);
        rc = feed_decoded(s, sink, err);
        if (rc)
            return rc;
    }
    begin(s, sink, err);
    if (s->state == AT_VALUE && !length)
        stream_value_resolve(s);
    if (stream_in_call(s)) {
        open = true;
        stream_call_cut(s);
    }
    open = open || s->state == AT_THOUGHT;
    s->unclosed_thought = s->unclosed_thought || s->state == AT_THOUGHT;
    segment_end(s);
    s->state = AT_END;
    *finish = length || open  ? STREAM_FINISH_LENGTH
              : s->n_call > 0 ? STREAM_FINISH_TOOL_CALLS
                              : STREAM_FINISH_STOP;
    return settle(s);
}

/* ---- lifetime -------------------------------------------------------------------------------- */

int32_t stream_open(struct mem *m, const struct tok *t, const struct tool_types *types,
    enum chat_family family, bool in_reasoning, struct stream **out, glm_error *err)
{
    (void)family; /* one grammar reads both */
    *out = NULL;
    struct stream *s = mem_zalloc(m, sizeof *s);
    if (s == NULL)
        return err_nomem(err, "the output parser");
    struct buf *const all[] = {&s->space, &s->name, &s->part, &s->arguments, &s->held, &s->replay,
        &s->decoded, &s->scratch};
    s->mem = m;
    s->tok = t;
    s->types = types;
    s->state = in_reasoning ? AT_THOUGHT : AT_TEXT;
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        buf_init(all[i], m);
    for (uint32_t i = 0; i < TOK_SPECIAL_COUNT; i++)
        s->special[i] = t != NULL ? tok_id(t, (enum tok_special)i) : -1;
    s->argument = mem_array(m, STREAM_ARGUMENTS_MAX, sizeof *s->argument);
    if (s->argument == NULL || !buf_reserve(&s->decoded, 3 * (SLICE + 8)) ||
        !buf_reserve(&s->space, STREAM_SPACE_MAX)) {
        stream_close(s);
        return err_nomem(err, "the output parser");
    }
    *out = s;
    return 0;
}

void stream_close(struct stream *s)
{
    if (s == NULL)
        return;
    struct buf *const all[] = {&s->space, &s->name, &s->part, &s->arguments, &s->held, &s->replay,
        &s->decoded, &s->scratch};
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        buf_free(all[i]);
    mem_free(s->mem, s->argument);
    mem_free(s->mem, s);
}

int32_t stream_reserve(struct stream *s, size_t bytes, glm_error *err)
{
    return room(s, bytes != 0 ? bytes : SLICE, err);
}

void stream_drop_calls(struct stream *s, bool drop)
{
    s->drop_calls = drop;
}

bool stream_in_reasoning(const struct stream *s)
{
    return s->state == AT_THOUGHT || s->unclosed_thought;
}

uint32_t stream_drop_partial(struct stream *s)
{
    uint32_t n = s->decoder.n_held;
    s->decoder.n_held = 0;
    return n;
}

uint32_t stream_n_call(const struct stream *s)
{
    return s->n_call;
}

uint32_t stream_n_cut(const struct stream *s)
{
    return s->n_cut;
}
