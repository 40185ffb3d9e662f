/* chat_python.c: the parts of Python that the templates lean on: str.strip, truth, str() and repr()
 * of values that came from JSON. Views point into their caller's text; only the printers append to
 * a buffer.
 */
#include "chat_int.h"

#include <string.h>

/* ---- text ------------------------------------------------------------------------------------ */

/* What str.strip() takes off: bidirectional class WS, B or S, or category Zs. */
static bool is_space(uint32_t c)
{
    if (c < 0x80)
        return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20);
    return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 ||
           c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

struct chat_view chat_strip(struct chat_view v)
{
    uint32_t c, length;
    while (v.size > 0 && (length = utf8_decode(v.text, v.size, &c)) != 0 && is_space(c)) {
        v.text += length;
        v.size -= length;
    }
    while (v.size > 0) {
        size_t start = v.size - 1;
        while (start > 0 && v.size - start < 4 && ((uint8_t)v.text[start] & 0xc0) == 0x80)
            start--;
        length = utf8_decode(v.text + start, v.size - start, &c);
        if (length != v.size - start || !is_space(c))
            break;
        v.size = start;
    }
    return v;
}

struct chat_view chat_strip_newlines(struct chat_view v, bool left, bool right)
{
    while (left && v.size > 0 && v.text[0] == '\n') {
        v.text++;
        v.size--;
    }
    while (right && v.size > 0 && v.text[v.size - 1] == '\n')
        v.size--;
    return v;
}

bool chat_find(
    struct chat_view v, const char *what, struct chat_view *before, struct chat_view *after)
{
    size_t length = strlen(what);
    for (size_t i = 0; i + length <= v.size; i++) {
        const char *at = memchr(v.text + i, what[0], v.size - length + 1 - i);
        if (at == NULL)
            return false;
        i = (size_t)(at - v.text);
        if (memcmp(at, what, length) == 0) {
            *before = (struct chat_view){v.text, i};
            *after = (struct chat_view){at + length, v.size - i - length};
            return true;
        }
    }
    return false;
}

bool chat_find_last(struct chat_view v, const char *what, struct chat_view *after)
{
    size_t length = strlen(what);
    for (size_t i = v.size; i >= length; i--) {
        if (memcmp(v.text + i - length, what, length) == 0) {
            *after = (struct chat_view){v.text + i, v.size - i};
            return true;
        }
    }
    return false;
}

bool chat_ends_with(struct chat_view v, const char *what)
{
    size_t length = strlen(what);
    return v.size >= length && memcmp(v.text + v.size - length, what, length) == 0;
}

/* ---- values ---------------------------------------------------------------------------------- */

bool chat_truth(const struct json *v)
{
    if (v == NULL)
        return false;
    switch (v->type) {
    case JSON_TRUE: return true;
    case JSON_NUMBER: /* zero, however it is spelled: no digit but 0 before the exponent, or too
                         small for a double */
        for (size_t i = 0; i < v->size && v->text[i] != 'e' && v->text[i] != 'E'; i++) {
            double f;
            if (v->text[i] >= '1' && v->text[i] <= '9')
                return !json_f64(v, &f) || f != 0;
        }
        return false;
    case JSON_STRING: return v->size > 0;
    case JSON_ARRAY:
    case JSON_OBJECT: return v->count > 0;
    default: return false;
    }
}

/* Categories Cc, Cf, Co, Cs, Zl, Zp and Zs but for the space, which repr() escapes (Unicode 16.0,
 * UnicodeData.txt). Unassigned code points count as printable here: which ones those are differs
 * from one Python to the next. */
static const uint32_t unprintable[][2] = {
    {0x0, 0x1f},
    {0x7f, 0xa0},
    {0xad, 0xad},
    {0x600, 0x605},
    {0x61c, 0x61c},
    {0x6dd, 0x6dd},
    {0x70f, 0x70f},
    {0x890, 0x891},
    {0x8e2, 0x8e2},
    {0x1680, 0x1680},
    {0x180e, 0x180e},
    {0x2000, 0x200f},
    {0x2028, 0x202f},
    {0x205f, 0x2064},
    {0x2066, 0x206f},
    {0x3000, 0x3000},
    {0xd800, 0xf8ff},
    {0xfeff, 0xfeff},
    {0xfff9, 0xfffb},
    {0x110bd, 0x110bd},
    {0x110cd, 0x110cd},
    {0x13430, 0x1343f},
    {0x1bca0, 0x1bca3},
    {0x1d173, 0x1d17a},
    {0xe0001, 0xe0001},
    {0xe0020, 0xe007f},
    {0xf0000, 0x10ffff},
};

static bool is_printable(uint32_t c)
{
    for (size_t i = 0; i < ARRAY_LEN(unprintable) && unprintable[i][0] <= c; i++)
        if (c <= unprintable[i][1])
            return false;
    return true;
}

static void put_escape(struct buf *b, uint32_t c)
{
    static const char hex[] = "0123456789abcdef";
    uint32_t n_digit = c < 0x100 ? 2 : c < 0x10000 ? 4 : 8;
    buf_char(b, '\\');
    buf_char(b, n_digit == 2 ? 'x' : n_digit == 4 ? 'u' : 'U');
    for (uint32_t i = n_digit; i-- > 0;)
        buf_char(b, hex[c >> (4 * i) & 15]);
}

static void put_string_repr(struct buf *b, const char *text, size_t size)
{
    bool has_single = size > 0 && memchr(text, '\'', size) != NULL;
    char quote = has_single && memchr(text, '"', size) == NULL ? '"' : '\'';
    buf_char(b, quote);
    for (size_t i = 0; i < size;) {
        uint32_t c = 0, length = utf8_decode(text + i, size - i, &c);
        if (length == 0) /* not from a JSON document: those are valid UTF-8 */
            break;
        if (c == '\n' || c == '\r' || c == '\t' || c == '\\' || c == (uint8_t)quote) {
            buf_char(b, '\\');
            buf_char(b, c == '\n' ? 'n' : c == '\r' ? 'r' : c == '\t' ? 't' : (char)c);
        } else if (is_printable(c)) {
            buf_put(b, text + i, length);
        } else {
            put_escape(b, c);
        }
        i += length;
    }
    buf_char(b, quote);
}

static void put_scalar(struct buf *b, const struct json *v)
{
    switch (v->type) {
    case JSON_NULL: buf_str(b, "None"); break;
    case JSON_FALSE: buf_str(b, "False"); break;
    case JSON_TRUE: buf_str(b, "True"); break;
    case JSON_STRING: put_string_repr(b, v->text, v->size); break;
    default: json_put_value(b, v); break;
    }
}

struct level {              /* an open container while its values are printed */
    const struct json *end; /* the first value behind it */
    uint32_t n;             /* values seen, keys among them */
    uint32_t type;
};

static void put_separator(struct buf *b, struct level *in)
{
    if (in->type == JSON_OBJECT && in->n % 2 == 1)
        buf_str(b, ": ");
    else if (in->n > 0)
        buf_str(b, ", ");
    in->n++;
}

/* Walks the flat array once; the depth is bounded by the JSON reader. */
static void put_repr(struct buf *b, const struct json *v)
{
    struct level open[JSON_DEPTH_MAX + 1];
    size_t depth = 0;
    for (const struct json *end = v + v->span; v < end; v++) {
        if (depth > 0)
            put_separator(b, &open[depth - 1]);
        if (v->type == JSON_ARRAY || v->type == JSON_OBJECT) {
            buf_char(b, v->type == JSON_ARRAY ? '[' : '{');
            if (depth == ARRAY_LEN(open))
                return;
            open[depth++] = (struct level){v + v->span, 0, v->type};
        } else {
            put_scalar(b, v);
        }
        while (depth > 0 && open[depth - 1].end == v + 1) {
            depth--;
            buf_char(b, open[depth].type == JSON_ARRAY ? ']' : '}');
        }
    }
}

void chat_put_str(struct buf *b, const struct json *v)
{
    if (v->type == JSON_STRING)
        buf_put(b, v->text, v->size);
    else
        put_repr(b, v);
}
