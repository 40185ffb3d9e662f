/* stream_value.c: an argument's value into JSON. A string goes out as it comes, verbatim; anything
 * else is looked at when it is whole, its type taken from the tool's schema. Tags inside a value
 * are its text unless they show that the value's own end is missing.
 */
#include "stream_int.h"

#include <string.h>

#define TAG ((char)0xff)

/* ---- strings --------------------------------------------------------------------------------- */

static void put_inside_string(struct stream *s, const char *text, size_t size)
{
    buf_clear(&s->scratch);
    json_put_string(&s->scratch, text, size);
    buf_put(&s->arguments, s->scratch.data + 1, s->scratch.size - 2);
}

static void become_string(struct stream *s)
{
    s->as_string = true;
    buf_char(&s->arguments, '"');
    put_inside_string(s, s->part.data != NULL ? s->part.data : "", s->part.size);
    buf_clear(&s->part);
}

/* ---- other types ----------------------------------------------------------------------------- */

static uint32_t types_of_number(const struct json *v)
{
    int64_t i;
    uint64_t u;
    bool plain = true;
    for (size_t k = 0; k < v->size; k++)
        plain = plain && (v->text[k] == '-' || (v->text[k] >= '0' && v->text[k] <= '9'));
    return plain || json_i64(v, &i) || json_u64(v, &u) ? TOOL_INTEGER : TOOL_REAL;
}

/* The type of a JSON text; 0: it is none. The reader borrows our scratch, which has room for any
 * string in it. */
static uint32_t types_of_text(struct stream *s, struct vocab_text text)
{
    glm_error ignored = GLM_ERROR_INIT;
    struct json_reader r;
    json_reader_init(&r, s->mem, text.text, text.size, NULL);
    buf_clear(&s->scratch);
    r.scratch = s->scratch;
    enum json_event first = json_reader_next(&r, &ignored), event = first;
    uint32_t types = 0;
    if (first == JSON_EV_VALUE || first == JSON_EV_OPEN) {
        switch (r.value.type) {
        case JSON_NULL: types = TOOL_NULL; break;
        case JSON_FALSE:
        case JSON_TRUE: types = TOOL_BOOLEAN; break;
        case JSON_NUMBER: types = types_of_number(&r.value); break;
        case JSON_STRING: types = TOOL_STRING; break;
        case JSON_ARRAY: types = TOOL_ARRAY; break;
        default: types = TOOL_OBJECT; break;
        }
    }
    while (event != JSON_EV_END && event != JSON_EV_ERROR)
        event = json_reader_next(&r, &ignored);
    s->scratch = r.scratch;
    return event == JSON_EV_END ? types : 0;
}

/* Python's spelling, which models slip into. */
static const char *python_literal(struct vocab_text text, uint32_t types)
{
    static const struct {
        const char *from, *to;
        uint32_t type;
    } known[] = {{"True", "true", TOOL_BOOLEAN}, {"False", "false", TOOL_BOOLEAN},
        {"None", "null", TOOL_NULL}};
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if ((types & known[i].type) && types != TOOL_ANY && strlen(known[i].from) == text.size &&
            memcmp(known[i].from, text.text, text.size) == 0)
            return known[i].to;
    return NULL;
}

/* The value in part is whole. With a string among the types that the schema allows, it is one
 * unless it reads as one of the others; without one, any JSON is passed on (the host sees what the
 * model meant), and text that is no JSON becomes a string. Where nothing is declared, JSON is JSON
 * and the rest is text. */
static void put_value(struct stream *s)
{
    struct vocab_text text = stream_trim(s->part.data != NULL ? s->part.data : "", s->part.size);
    uint32_t types = types_of_text(s, text), allowed = s->value_types;
    const char *literal = python_literal(text, allowed);
    bool other = allowed != TOOL_ANY && (allowed & TOOL_STRING) != 0;
    if (literal != NULL) {
        buf_str(&s->arguments, literal);
    } else if (types != 0 && (!other || (types & allowed & ~TOOL_STRING) != 0)) {
        buf_put(&s->arguments, text.text, text.size);
    } else {
        become_string(s);
        buf_char(&s->arguments, '"');
    }
}

/* Whether what has come of a value that may be a string and something else can only be a string. */
static bool must_be_string(struct stream *s)
{
    static const struct {
        const char *first;
        uint32_t types;
    } starts[] = {{"-0123456789", TOOL_INTEGER | TOOL_REAL}, {"tfTF", TOOL_BOOLEAN},
        {"nN", TOOL_NULL}, {"[", TOOL_ARRAY}, {"{", TOOL_OBJECT}};
    while (s->n_lead < s->part.size && stream_is_space(s->part.data[s->n_lead]))
        s->n_lead++;
    if (!(s->value_types & TOOL_STRING) || s->n_lead == s->part.size)
        return false;
    char c = s->part.data[s->n_lead];
    if (c == '"' && s->value_types == TOOL_ANY)
        return false;
    for (size_t i = 0; i < ARRAY_LEN(starts); i++)
        if ((s->value_types & starts[i].types) && c != 0 && strchr(starts[i].first, c) != NULL)
            return c != '[' && c != '{' &&
                   s->part.size > 1024; /* no word and no number is so long */
    return true;
}

/* ---- a value's life -------------------------------------------------------------------------- */

void stream_value_open(struct stream *s)
{
    buf_clear(&s->part);
    s->n_lead = 0;
    s->as_string = false;
    s->state = AT_VALUE;
    if (s->value_types == TOOL_STRING)
        become_string(s);
}

static void value_put(struct stream *s, const char *text, size_t size)
{
    if (s->as_string) {
        put_inside_string(s, text, size);
        return;
    }
    buf_put(&s->part, text, size);
    if (must_be_string(s))
        become_string(s);
}

void stream_value_close(struct stream *s)
{
    if (s->as_string)
        buf_char(&s->arguments, '"');
    else
        put_value(s);
    s->argument[s->n_argument++].end = s->arguments.size;
    s->as_string = false;
    buf_clear(&s->part);
    s->state = AT_GAP;
}

/* ---- tags inside a value --------------------------------------------------------------------- */

static bool is_tag(const struct buf *b, size_t at, enum tok_special which)
{
    return at + 1 < b->size && b->data[at] == TAG && b->data[at + 1] == (char)which;
}

static void hold_tag(struct stream *s, enum tok_special which)
{
    char tag[2] = {TAG, (char)which};
    buf_put(&s->held, tag, sizeof tag);
}

/* Where the run of text that ends at `end` begins: behind a tag, or at 0. */
static size_t text_start(const struct buf *b, size_t end)
{
    while (end > 0 && !(end > 1 && b->data[end - 2] == TAG))
        end--;
    return end;
}

static bool is_blank(const struct buf *b, size_t from, size_t to)
{
    return stream_trim(b->data + from, to - from).size == 0;
}

/* The first `end` bytes of what is held are the value's text after all. */
static void release_as_text(struct stream *s, size_t end)
{
    for (size_t at = 0; at < end;) {
        if (s->held.data[at] == TAG) {
            const char *spelling = chat_spelling((enum tok_special)s->held.data[at + 1]);
            value_put(s, spelling, strlen(spelling));
            at += 2;
            continue;
        }
        const char *tag = memchr(s->held.data + at, TAG, end - at);
        size_t stop = tag != NULL ? (size_t)(tag - s->held.data) : end;
        value_put(s, s->held.data + at, stop - at);
        at = stop;
    }
}

/* The value ended before the tag at `at` in what is held: what comes after it is read as a call's
 * markup. */
static void end_value_before(struct stream *s, size_t at)
{
    release_as_text(s, at);
    stream_value_close(s);
    buf_clear(&s->replay);
    buf_put(&s->replay, s->held.data + at, s->held.size - at);
    buf_clear(&s->held);
    for (size_t i = 0; i < s->replay.size;) {
        if (s->replay.data[i] == TAG) {
            stream_on_special(s, (enum tok_special)s->replay.data[i + 1]);
            i += 2;
            continue;
        }
        const char *tag = memchr(s->replay.data + i, TAG, s->replay.size - i);
        size_t stop = tag != NULL ? (size_t)(tag - s->replay.data) : s->replay.size;
        stream_on_text(s, s->replay.data + i, stop - i);
        i = stop;
    }
}

/* Held is "... <arg_key> key </arg_key>" with an <arg_value> behind it now: the next argument of
 * this call, or of a call that follows it (even one without arguments in between). Where did the
 * value end? At the first tag of that chain. */
static size_t chain_start(const struct buf *b, size_t arg_key)
{
    size_t at = arg_key;
    for (;;) {
        size_t name = text_start(b, at);
        if (name < 2 || !is_tag(b, name - 2, TOK_TOOL_CALL))
            return at;
        at = name - 2;
        size_t gap = text_start(b, at);
        if (gap < 2 || !is_tag(b, gap - 2, TOK_TOOL_CALL_END) || !is_blank(b, gap, at))
            return at;
        at = gap - 2;
    }
}

static void open_tag_in_value(struct stream *s)
{
    const struct buf *b = &s->held;
    size_t gap = text_start(b, b->size);
    bool after_key = gap >= 2 && is_tag(b, gap - 2, TOK_ARG_KEY_END) && is_blank(b, gap, b->size);
    if (!after_key) {
        hold_tag(s, TOK_ARG_VALUE);
        return;
    }
    size_t key = text_start(b, gap - 2);
    if (key < 2 ||
        !is_tag(b, key - 2, TOK_ARG_KEY)) { /* another argument began, nobody can say where */
        stream_call_broken(s);
        return;
    }
    end_value_before(s, chain_start(b, key - 2));
    stream_on_special(s, TOK_ARG_VALUE);
}

void stream_value_text(struct stream *s, const char *text, size_t size)
{
    if (s->held.size > 0)
        buf_put(&s->held, text, size);
    else
        value_put(s, text, size);
}

void stream_value_special(struct stream *s, enum tok_special which)
{
    const char *spelling = chat_spelling(which);
    switch (which) {
    case TOK_ARG_VALUE_END:
        release_as_text(s, s->held.size);
        buf_clear(&s->held);
        stream_value_close(s);
        break;
    case TOK_ARG_VALUE: open_tag_in_value(s); break;
    case TOK_TOOL_CALL:
    case TOK_TOOL_CALL_END:
    case TOK_ARG_KEY:
    case TOK_ARG_KEY_END: hold_tag(s, which); break;
    default: /* no part of a call's grammar */
        stream_value_text(s, spelling, strlen(spelling));
        break;
    }
}

/* The first </tool_call> that only space, and maybe another call, follows. */
static bool find_call_end(const struct buf *b, size_t *at)
{
    for (size_t i = 0; i + 1 < b->size; i++) {
        if (!is_tag(b, i, TOK_TOOL_CALL_END))
            continue;
        size_t next = i + 2;
        while (next < b->size && stream_is_space(b->data[next]))
            next++;
        if (next == b->size || is_tag(b, next, TOK_TOOL_CALL)) {
            *at = i;
            return true;
        }
    }
    return false;
}

/* Input has ended inside a value. What follows its last call may again lack an end; few do, so few
 * rounds are enough. */
void stream_value_resolve(struct stream *s)
{
    size_t at;
    for (uint32_t round = 0; round < 8 && s->state == AT_VALUE && find_call_end(&s->held, &at);
         round++)
        end_value_before(s, at);
}
