/* stream_call.c: the grammar of one tool call, in both families' spacing, and what is made of calls
 * that break it. Either everything that the model wrote into a call reaches the host, or the call
 * is cut: never a call with an argument missing.
 */
#include "stream_int.h"

#include <string.h>

bool stream_in_call(const struct stream *s)
{
    return s->state >= AT_NAME && s->state <= AT_BROKEN;
}

static struct vocab_text part_text(const struct stream *s)
{
    return stream_trim(s->part.data != NULL ? s->part.data : "", s->part.size);
}

/* ---- events ---------------------------------------------------------------------------------- */

static void emit_call(
    struct stream *s, enum stream_event_type type, const char *arguments, size_t size)
{
    struct stream_event ev = {.type = type, .call = s->i_call};
    if (type == STREAM_CALL_DELTA) {
        ev.text = arguments;
        ev.text_size = size;
    } else {
        ev.name = s->name.data;
        ev.name_size = s->name.size;
        ev.arguments = arguments;
        ev.arguments_size = size;
    }
    if (!s->drop_calls)
        stream_emit(s, &ev);
}

void stream_call_flush(struct stream *s)
{
    size_t n = s->arguments.size - s->n_sent;
    if (!s->begun || n == 0)
        return;
    emit_call(s, STREAM_CALL_DELTA, s->arguments.data + s->n_sent, n);
    s->n_sent = s->arguments.size;
}

void stream_call_cut(struct stream *s)
{
    if (s->state == AT_BROKEN) /* has been */
        return;
    s->n_cut++;
    if (s->begun) {
        stream_call_flush(s);
        emit_call(s, STREAM_CALL_CUT, NULL, 0);
        s->begun = false;
    }
}

void stream_call_broken(struct stream *s)
{
    stream_call_cut(s);
    s->state = AT_BROKEN;
}

/* ---- parts of a call ------------------------------------------------------------------------- */

void stream_call_open(struct stream *s)
{
    struct buf *const all[] = {&s->name, &s->part, &s->arguments, &s->held};
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        buf_clear(all[i]);
    s->n_sent = s->n_argument = 0;
    s->begun = s->has_duplicate = s->as_string = false;
    s->state = AT_NAME;
}

/* The name ends at a newline or the first tag. */
static bool end_name(struct stream *s)
{
    struct vocab_text name = stream_trim(s->name.data != NULL ? s->name.data : "", s->name.size);
    if (name.size == 0) {
        stream_call_broken(s);
        return false;
    }
    memmove(s->name.data, name.text, name.size);
    s->name.size = name.size;
    s->name.data[name.size] = 0;
    s->tool = tool_types_find(s->types, s->name.data, s->name.size);
    s->i_call = s->n_begun++;
    s->begun = true;
    emit_call(s, STREAM_CALL_BEGIN, NULL, 0);
    buf_char(&s->arguments, '{');
    s->state = AT_GAP;
    return true;
}

static uint64_t hash_of(const char *text, size_t size) /* FNV-1a */
{
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < size; i++)
        h = (h ^ (uint8_t)text[i]) * 0x100000001b3u;
    return h;
}

static bool same_key(
    const struct stream *s, const struct stream_argument *a, const struct stream_argument *b)
{
    size_t size = a->key_end - a->key;
    return a->hash == b->hash && size == b->key_end - b->key &&
           memcmp(s->arguments.data + a->key, s->arguments.data + b->key, size) == 0;
}

/* The key is in part. */
static bool end_key(struct stream *s)
{
    struct vocab_text key = part_text(s);
    if (key.size == 0 || s->n_argument == STREAM_ARGUMENTS_MAX) {
        stream_call_broken(s);
        return false;
    }
    struct stream_argument *a = &s->argument[s->n_argument];
    s->value_types = tool_type_of(s->tool, key.text, key.size);
    if (s->n_argument > 0)
        buf_str(&s->arguments, ", ");
    a->key = s->arguments.size;
    json_put_string(&s->arguments, key.text, key.size);
    a->key_end = s->arguments.size;
    a->hash = hash_of(key.text, key.size);
    buf_str(&s->arguments, ": ");
    for (size_t i = 0; i < s->n_argument && !s->has_duplicate; i++)
        s->has_duplicate = same_key(s, &s->argument[i], a);
    buf_clear(&s->part);
    s->state = AT_AFTER_KEY;
    return true;
}

/* The arguments with each key once, where it first stood, with its last value: what a reader makes
 * of the deltas. */
static void put_once(struct stream *s)
{
    buf_clear(&s->scratch);
    buf_char(&s->scratch, '{');
    for (size_t i = 0; i < s->n_argument; i++) {
        const struct stream_argument *last = &s->argument[i];
        bool again = false;
        for (size_t k = 0; k < i && !again; k++)
            again = same_key(s, &s->argument[k], last);
        if (again)
            continue;
        for (size_t k = i + 1; k < s->n_argument; k++)
            if (same_key(s, &s->argument[k], &s->argument[i]))
                last = &s->argument[k];
        if (s->scratch.size > 1)
            buf_str(&s->scratch, ", ");
        buf_put(&s->scratch, s->arguments.data + last->key, last->end - last->key);
    }
    buf_char(&s->scratch, '}');
}

static void complete(struct stream *s)
{
    buf_char(&s->arguments, '}');
    stream_call_flush(s);
    if (s->has_duplicate)
        put_once(s);
    const struct buf *whole = s->has_duplicate ? &s->scratch : &s->arguments;
    emit_call(s, STREAM_CALL, whole->data, whole->size);
    s->begun = false;
    s->n_call += !s->drop_calls;
    s->state = AT_TEXT;
}

static bool has_required(const struct stream *s)
{
    const char *name;
    size_t size;
    for (size_t i = 0; (name = tool_type_required(s->tool, i, &size)) != NULL; i++) {
        bool found = false;
        uint64_t hash = hash_of(name, size);
        for (size_t k = 0; k < s->n_argument && !found; k++)
            found = s->argument[k].hash == hash;
        if (!found)
            return false;
    }
    return true;
}

/* The model went on without </tool_call>. Nothing that it wrote may be missing; nothing that the
 * tool needs, either. */
static void complete_or_cut(struct stream *s)
{
    if (s->state == AT_NAME && s->name.size > 0)
        end_name(s);
    if (s->state == AT_GAP && s->part.size == 0 && s->tool != NULL && has_required(s))
        complete(s);
    else
        stream_call_cut(s);
}

void stream_call_stop(struct stream *s)
{
    if (s->state == AT_VALUE)
        stream_value_resolve(s);
    if (stream_in_call(s))
        complete_or_cut(s);
    s->state = AT_TEXT;
}

/* ---- input ----------------------------------------------------------------------------------- */

static void name_text(struct stream *s, const char *text, size_t size)
{
    while (s->name.size == 0 && size > 0 && stream_is_space(text[0])) {
        text++;
        size--;
    }
    const char *newline = size > 0 ? memchr(text, '\n', size) : NULL;
    size_t n = newline != NULL ? (size_t)(newline - text) : size;
    buf_put(&s->name, text, n < STREAM_NAME_MAX ? n : STREAM_NAME_MAX);
    if (s->name.size > STREAM_NAME_MAX)
        stream_call_broken(s);
    else if (newline != NULL && end_name(s))
        stream_call_text(s, newline + 1, size - n - 1);
}

/* What stands where only a tag belongs is kept, but for space before it: a tag may be missing. */
static void part_append(struct stream *s, const char *text, size_t size)
{
    while (s->part.size == 0 && size > 0 && stream_is_space(text[0])) {
        text++;
        size--;
    }
    buf_put(&s->part, text, size);
    if (s->part.size > STREAM_NAME_MAX)
        stream_call_broken(s);
}

void stream_call_text(struct stream *s, const char *text, size_t size)
{
    if (s->state == AT_NAME)
        name_text(s, text, size);
    else if (s->state == AT_VALUE)
        stream_value_text(s, text, size);
    else if (s->state != AT_BROKEN)
        part_append(s, text, size);
}

static void in_name(struct stream *s, enum tok_special which)
{
    if (which == TOK_ARG_KEY || which == TOK_TOOL_CALL_END) {
        if (end_name(s))
            stream_call_special(s, which);
        else if (which == TOK_TOOL_CALL_END)
            s->state = AT_TEXT;
    } else {
        stream_call_broken(s);
    }
}

static void in_gap(struct stream *s, enum tok_special which)
{
    bool blank = s->part.size == 0;
    if (which == TOK_ARG_KEY && blank) {
        buf_clear(&s->part);
        s->state = AT_KEY;
    } else if (which == TOK_ARG_KEY_END && !blank) { /* its <arg_key> is missing */
        end_key(s);
    } else if (which == TOK_ARG_VALUE && !blank) { /* both are */
        struct vocab_text key = part_text(s);
        if (memchr(key.text, '\n', key.size) != NULL)
            stream_call_broken(s);
        else if (end_key(s))
            stream_value_open(s);
    } else if (which == TOK_TOOL_CALL_END && blank) {
        complete(s);
    } else if (which != TOK_ARG_VALUE_END || !blank) { /* closed twice: harmless */
        stream_call_broken(s);
    }
}

static void in_key(struct stream *s, enum tok_special which)
{
    if (which == TOK_ARG_KEY_END)
        end_key(s);
    else if (which == TOK_ARG_VALUE && end_key(s)) /* </arg_key> is missing */
        stream_value_open(s);
    else if (which != TOK_ARG_VALUE && (which != TOK_ARG_KEY || s->part.size > 0))
        stream_call_broken(s);
}

static void after_key(struct stream *s, enum tok_special which)
{
    bool blank = s->part.size == 0;
    if (which == TOK_ARG_VALUE && blank) {
        stream_value_open(s);
    } else if (which == TOK_ARG_VALUE_END && !blank) { /* <arg_value> is missing */
        buf_clear(&s->replay);
        buf_put(&s->replay, s->part.data, s->part.size);
        stream_value_open(s);
        stream_value_text(s, s->replay.data, s->replay.size);
        stream_value_close(s);
    } else if (which != TOK_ARG_KEY_END || !blank) {
        stream_call_broken(s);
    }
}

static bool is_call_tag(enum tok_special which)
{
    return which == TOK_TOOL_CALL || which == TOK_TOOL_CALL_END ||
           (which >= TOK_ARG_KEY && which <= TOK_ARG_VALUE_END);
}

void stream_call_special(struct stream *s, enum tok_special which)
{
    if (s->state == AT_VALUE) {
        stream_value_special(s, which);
        return;
    }
    if (!is_call_tag(which)) /* a thought's tag and the like: as if it were not there */
        return;
    if (which == TOK_TOOL_CALL) {
        if (s->state == AT_NAME && s->name.size == 0) /* said twice */
            return;
        complete_or_cut(s);
        stream_call_open(s);
        return;
    }
    switch (s->state) {
    case AT_NAME: in_name(s, which); break;
    case AT_GAP: in_gap(s, which); break;
    case AT_KEY: in_key(s, which); break;
    case AT_AFTER_KEY: after_key(s, which); break;
    default: break;
    }
    if (which == TOK_TOOL_CALL_END && s->state == AT_BROKEN)
        s->state = AT_TEXT;
}
