/* json_write.c: JSON text as Python's json.dumps(ensure_ascii=False) writes it: what chat templates
 * were trained on. Writes into the caller's buffer; owns nothing. */
#include "base.h"
#include "base_int.h"

#include <string.h>

static void put_escape(struct buf *b, unsigned char c)
{
    static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
    const char *found = memchr(from, c, sizeof from - 1);
    char text[6] = {'\\', 'u', '0', '0', "0123456789abcdef"[c >> 4], "0123456789abcdef"[c & 15]};

    if (found) {
        text[1] = to[found - from];
        buf_put(b, text, 2);
    } else {
        buf_put(b, text, sizeof text);
    }
}

void json_put_string(struct buf *b, const char *text, size_t size)
{
    size_t done = 0;

    buf_char(b, '"');
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c >= 0x20 && c != '"' && c != '\\')
            continue;
        buf_put(b, text + done, i - done);
        put_escape(b, c);
        done = i + 1;
    }
    buf_put(b, text + done, size - done);
    buf_char(b, '"');
}

/* Integers keep their digits, others are read and written; what no double holds keeps its spelling,
 * since "Infinity" would be no JSON. */
static void put_number(struct buf *b, const struct json *v)
{
    double value;
    bool integral = true;

    for (uint32_t i = 0; i < v->size; i++)
        if (v->text[i] == '.' || v->text[i] == 'e' || v->text[i] == 'E')
            integral = false;
    if (integral && v->size == 2 && v->text[0] == '-' && v->text[1] == '0')
        buf_char(b, '0'); /* Python's integers know no negative zero */
    else if (integral || !json_f64(v, &value))
        buf_put(b, v->text, v->size);
    else
        json_put_f64(b, value);
}

static void put_scalar(struct buf *b, const struct json *v)
{
    switch (v->type) {
    case JSON_NULL: buf_put(b, "null", 4); break;
    case JSON_FALSE: buf_put(b, "false", 5); break;
    case JSON_TRUE: buf_put(b, "true", 4); break;
    case JSON_NUMBER: put_number(b, v); break;
    default: json_put_string(b, v->text, v->size); break;
    }
}

void json_put_value(struct buf *b, const struct json *v)
{
    const struct json *open[JSON_DEPTH_MAX], *end = v + v->span;
    uint32_t depth = 0;
    bool first = true, is_value = false; /* is_value: behind a key */

    for (; v < end; v++) {
        if (!first)
            buf_put(b, is_value ? ": " : ", ", 2);
        first = false;
        is_value = depth && open[depth - 1]->type == JSON_OBJECT && !is_value;
        if (v->type == JSON_ARRAY || v->type == JSON_OBJECT) {
            buf_char(b, v->type == JSON_ARRAY ? '[' : '{');
            open[depth++] = v;
            first = true;
            is_value = false;
        } else {
            put_scalar(b, v);
        }
        while (depth && v + 1 == open[depth - 1] + open[depth - 1]->span) {
            buf_char(b, open[--depth]->type == JSON_ARRAY ? ']' : '}');
            first = false;
            is_value = false;
        }
    }
}
