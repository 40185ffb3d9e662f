/* json.c: the JSON reader (RFC 8259, strict), one event per call. Owns the scratch that holds
 * decoded strings; other texts are views into the document, which must outlive the reader. The
 * stack does not grow with the depth: open containers are one byte each in the reader. */
#include "base.h"

#include <string.h>

enum reader_state {
    AT_VALUE,         /* a value must come */
    AT_FIRST_ELEMENT, /* behind '[': a value or ']' */
    AT_FIRST_KEY,     /* behind '{': a key or '}' */
    AT_COLON,         /* behind a key */
    BEHIND_VALUE,     /* ',' or the closing bracket, or the end */
    FAILED
};

void json_reader_init(
    struct json_reader *r, struct mem *m, const char *text, size_t size, const char *where)
{
    r->text = text;
    r->where = where;
    r->size = size;
    r->pos = 0;
    r->depth = 0;
    r->state = AT_VALUE;
    buf_init(&r->scratch, m);
    memset(&r->value, 0, sizeof r->value);
}

void json_reader_free(struct json_reader *r)
{
    if (r->scratch.mem)
        buf_free(&r->scratch);
}

static enum json_event fail(
    struct json_reader *r, glm_error *err, int32_t code, size_t at, const char *what)
{
    r->state = FAILED;
    r->pos = at;
    err_set(err, code, at, r->where, "invalid JSON at byte %zu: %s", at, what);
    return JSON_EV_ERROR;
}

static enum json_event malformed(struct json_reader *r, glm_error *err, size_t at, const char *what)
{
    return fail(r, err, GLM_EFORMAT, at, at < r->size ? what : "the text ends too early");
}

static void skip_space(struct json_reader *r)
{
    const char *text = r->text;
    size_t at = r->pos, size = r->size;

    while (
        at < size && (text[at] == ' ' || text[at] == '\n' || text[at] == '\r' || text[at] == '\t'))
        at++;
    r->pos = at;
}

static void set_value(
    struct json_reader *r, enum json_type type, const char *text, size_t size, size_t offset)
{
    r->value.type = (uint8_t)type;
    r->value.span = 1;
    r->value.count = 0;
    r->value.size = (uint32_t)size;
    r->value.text = text;
    r->value.offset = offset;
}

/* ---- strings --------------------------------------------------------------------------------- */

/* True where one of the eight bytes is a quote, a backslash, a control character or not ASCII. The
 * classic test of a word for small bytes may name a byte too many behind a true hit, never one too
 * few. */
static bool has_special(uint64_t x)
{
    const uint64_t ones = 0x0101010101010101u, tops = 0x8080808080808080u;
    uint64_t quote = x ^ ones * '"', escape = x ^ ones * '\\';

    return ((x - ones * 0x20) | (quote - ones) | (escape - ones) | x) & tops;
}

/* From `at` over plain characters; returns the place of the quote, escape, control character,
 * ill-formed sequence or end that stops it. */
static size_t scan_plain(const char *text, size_t size, size_t at)
{
    for (;;) {
        unsigned char c;
        uint32_t n, code;

        while (size - at >= 8) {
            uint64_t eight;
            memcpy(&eight, text + at, 8);
            if (has_special(eight))
                break;
            at += 8;
        }
        while (at < size && (c = (unsigned char)text[at]) < 0x80) {
            if (c == '"' || c == '\\' || c < 0x20)
                return at;
            at++;
        }
        if (at == size)
            return at;
        n = utf8_decode(text + at, size - at, &code);
        if (!n)
            return at;
        at += n;
    }
}

/* Four hexadecimal digits at text, or -1. */
static int32_t hex4(const char *text)
{
    int32_t value = 0;

    for (uint32_t i = 0; i < 4; i++) {
        unsigned char c = (unsigned char)text[i];
        int32_t digit;
        if (c >= '0' && c <= '9')
            digit = c - '0';
        else if ((c | 32) >= 'a' && (c | 32) <= 'f')
            digit = (c | 32) - 'a' + 10;
        else
            return -1;
        value = value << 4 | digit;
    }
    return value;
}

/* The \u escape at text + at into the scratch; returns its length, or 0 where it is malformed or
 * half a pair. */
static size_t unicode_escape(struct json_reader *r, size_t at)
{
    int32_t high, low;
    uint32_t code;
    size_t used = 6;
    char utf8[4];

    if (r->size - at < 6 || (high = hex4(r->text + at + 2)) < 0)
        return 0;
    code = (uint32_t)high;
    if (code >= 0xd800 && code < 0xdc00) {
        if (r->size - at < 12 || r->text[at + 6] != '\\' || r->text[at + 7] != 'u')
            return 0;
        low = hex4(r->text + at + 8);
        if (low < 0xdc00 || low > 0xdfff)
            return 0;
        code = 0x10000 + ((code - 0xd800) << 10) + ((uint32_t)low - 0xdc00);
        used = 12;
    }
    if (code >= 0xdc00 && code < 0xe000)
        return 0;
    buf_put(&r->scratch, utf8, utf8_encode(code, utf8));
    return used;
}

/* The escape at `at` into the scratch; returns its length or 0. */
static size_t decode_escape(struct json_reader *r, size_t at)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *found;

    if (r->size - at < 2)
        return 0;
    if (r->text[at + 1] == 'u')
        return unicode_escape(r, at);
    found = memchr(from, r->text[at + 1], sizeof from - 1);
    if (!found)
        return 0;
    buf_char(&r->scratch, to[found - from]);
    return 2;
}

static enum json_event stopped_in_string(struct json_reader *r, size_t at, glm_error *err)
{
    unsigned char c = at < r->size ? (unsigned char)r->text[at] : 0;

    if (c >= 0x80)
        return malformed(r, err, at, "ill-formed UTF-8");
    return malformed(r, err, at, "a control character in a string must be escaped");
}

/* The rest of a string with escapes, from its first one at `at`. */
static enum json_event read_escaped(
    struct json_reader *r, size_t start, size_t at, enum json_event event, glm_error *err)
{
    buf_clear(&r->scratch);
    buf_put(&r->scratch, r->text + start + 1, at - start - 1);
    for (;;) {
        size_t end, used;

        if (at < r->size && r->text[at] == '\\') {
            used = decode_escape(r, at);
            if (!used)
                return malformed(r, err, at, "not a valid escape (half a surrogate pair is none)");
            at += used;
        }
        end = scan_plain(r->text, r->size, at);
        buf_put(&r->scratch, r->text + at, end - at);
        at = end;
        if (at < r->size && r->text[at] == '"')
            break;
        if (at == r->size || r->text[at] != '\\')
            return stopped_in_string(r, at, err);
    }
    if (r->scratch.failed) {
        r->state = FAILED;
        err_nomem(err, "a JSON string");
        return JSON_EV_ERROR;
    }
    if (r->scratch.size > UINT32_MAX)
        return fail(r, err, GLM_ELIMIT, start, "a string of more than 4 GiB");
    set_value(r, JSON_STRING, r->scratch.data, r->scratch.size, start);
    r->pos = at + 1;
    return event;
}

static enum json_event read_string(struct json_reader *r, enum json_event event, glm_error *err)
{
    size_t start = r->pos, at = scan_plain(r->text, r->size, start + 1);

    if (at == r->size || r->text[at] != '"') {
        if (at < r->size && r->text[at] == '\\')
            return read_escaped(r, start, at, event, err);
        return stopped_in_string(r, at, err);
    }
    if (at - start - 1 > UINT32_MAX)
        return fail(r, err, GLM_ELIMIT, start, "a string of more than 4 GiB");
    set_value(r, JSON_STRING, r->text + start + 1, at - start - 1, start);
    r->pos = at + 1;
    return event;
}

/* ---- numbers and words ----------------------------------------------------------------------- */

static bool is_digit(const struct json_reader *r, size_t at)
{
    return at < r->size && r->text[at] >= '0' && r->text[at] <= '9';
}

static size_t skip_digits(const struct json_reader *r, size_t at)
{
    while (is_digit(r, at))
        at++;
    return at;
}

static enum json_event read_number(struct json_reader *r, glm_error *err)
{
    size_t start = r->pos, at = start + (r->text[start] == '-');

    if (!is_digit(r, at))
        return malformed(r, err, at, "a digit was expected");
    at = r->text[at] == '0' ? at + 1 : skip_digits(r, at);
    if (at < r->size && r->text[at] == '.') {
        if (!is_digit(r, ++at))
            return malformed(r, err, at, "a digit was expected behind the decimal point");
        at = skip_digits(r, at);
    }
    if (at < r->size && (r->text[at] | 32) == 'e') {
        at++;
        if (at < r->size && (r->text[at] == '+' || r->text[at] == '-'))
            at++;
        if (!is_digit(r, at))
            return malformed(r, err, at, "a digit was expected in the exponent");
        at = skip_digits(r, at);
    }
    if (at - start > UINT32_MAX)
        return fail(r, err, GLM_ELIMIT, start, "a number of more than 4 GiB");
    set_value(r, JSON_NUMBER, r->text + start, at - start, start);
    r->pos = at;
    r->state = BEHIND_VALUE;
    return JSON_EV_VALUE;
}

static enum json_event read_word(
    struct json_reader *r, enum json_type type, const char *word, glm_error *err)
{
    size_t start = r->pos, size = strlen(word);

    for (size_t i = 0; i < size; i++)
        if (start + i == r->size || r->text[start + i] != word[i])
            return malformed(r, err, start + i, "a value was expected");
    set_value(r, type, r->text + start, size, start);
    r->pos = start + size;
    r->state = BEHIND_VALUE;
    return JSON_EV_VALUE;
}

/* ---- structure ------------------------------------------------------------------------------- */

static enum json_event open_container(struct json_reader *r, enum json_type type, glm_error *err)
{
    if (r->depth == JSON_DEPTH_MAX)
        return fail(r, err, GLM_ELIMIT, r->pos, "nested more than 256 levels deep");
    r->open[r->depth++] = (uint8_t)type;
    set_value(r, type, NULL, 0, r->pos);
    r->pos++;
    r->state = type == JSON_ARRAY ? AT_FIRST_ELEMENT : AT_FIRST_KEY;
    return JSON_EV_OPEN;
}

static enum json_event close_container(struct json_reader *r)
{
    r->depth--;
    r->pos++;
    r->state = BEHIND_VALUE;
    return JSON_EV_CLOSE;
}

static enum json_event read_value(struct json_reader *r, glm_error *err)
{
    char c = r->pos < r->size ? r->text[r->pos] : 0;

    switch (c) {
    case '"': r->state = BEHIND_VALUE; return read_string(r, JSON_EV_VALUE, err);
    case '{': return open_container(r, JSON_OBJECT, err);
    case '[': return open_container(r, JSON_ARRAY, err);
    case 't': return read_word(r, JSON_TRUE, "true", err);
    case 'f': return read_word(r, JSON_FALSE, "false", err);
    case 'n': return read_word(r, JSON_NULL, "null", err);
    default:
        if (c == '-' || (c >= '0' && c <= '9'))
            return read_number(r, err);
        return malformed(r, err, r->pos, "a value was expected");
    }
}

static enum json_event read_key(struct json_reader *r, glm_error *err)
{
    if (r->pos == r->size || r->text[r->pos] != '"')
        return malformed(r, err, r->pos, "a key in quotes was expected");
    r->state = AT_COLON;
    return read_string(r, JSON_EV_KEY, err);
}

/* Behind a value: the comma and what follows it, the closing bracket, or the end. */
static enum json_event read_separator(struct json_reader *r, glm_error *err)
{
    bool in_object;

    if (!r->depth) {
        if (r->pos == r->size)
            return JSON_EV_END;
        return malformed(r, err, r->pos, "something follows the document");
    }
    in_object = r->open[r->depth - 1] == JSON_OBJECT;
    if (r->pos < r->size && r->text[r->pos] == (in_object ? '}' : ']'))
        return close_container(r);
    if (r->pos == r->size || r->text[r->pos] != ',')
        return malformed(
            r, err, r->pos, in_object ? "',' or '}' was expected" : "',' or ']' was expected");
    r->pos++;
    skip_space(r);
    return in_object ? read_key(r, err) : read_value(r, err);
}

enum json_event json_reader_next(struct json_reader *r, glm_error *err)
{
    char c;

    if (r->state == FAILED)
        return fail(r, err, GLM_EFORMAT, r->pos, "reading failed before");
    skip_space(r);
    c = r->pos < r->size ? r->text[r->pos] : 0;
    switch ((enum reader_state)r->state) {
    case AT_FIRST_ELEMENT: return c == ']' ? close_container(r) : read_value(r, err);
    case AT_FIRST_KEY: return c == '}' ? close_container(r) : read_key(r, err);
    case AT_COLON:
        if (c != ':')
            return malformed(r, err, r->pos, "':' was expected");
        r->pos++;
        skip_space(r);
        return read_value(r, err);
    case BEHIND_VALUE: return read_separator(r, err);
    case AT_VALUE:
    case FAILED:
    default: return read_value(r, err);
    }
}

bool json_reader_skip(struct json_reader *r, glm_error *err)
{
    uint32_t depth = r->depth;
    enum json_event event;

    if (r->state == AT_COLON) { /* a scalar ends at once, a container at its end */
        event = json_reader_next(r, err);
        if (event != JSON_EV_OPEN)
            return event == JSON_EV_VALUE;
    } else if (depth) {
        depth--;
    }
    while (r->depth > depth) {
        event = json_reader_next(r, err);
        if (event == JSON_EV_ERROR || event == JSON_EV_END)
            return false;
    }
    return true;
}
