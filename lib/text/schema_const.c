/* schema_const.c: const and enum: the values that equal these. A number equals every spelling of its value, an object one with
 * the same members in any order.
 */
#include "schema.h"

const uint32_t *schema_one(struct schema *s, uint32_t shape)
{
    uint32_t *list = schema_alloc(s, 1, sizeof *list);
    if (list != NULL)
        *list = shape;
    return list;
}

static void const_object(struct schema *s, const struct json *v, struct norm *out)
{
    struct object_shape o = { .max = v->count, .n_each = 1 };
    struct property *p = schema_alloc(s, v->count, sizeof *p);
    struct each_key *e = schema_alloc(s, 1, sizeof *e);
    uint32_t n = 0;
    if (p == NULL || e == NULL)
        return;
    for (const struct json *k = json_first(v); k; k = json_next(v, k))
        p[n++] = (struct property){ schema_name(k), term_const(s, k + 1), true };
    *e = (struct each_key){ RX_ALL, RX_EMPTY, TERM_FALSE, v };
    o.property = p;
    o.n_property = properties_sort(s, p, n);
    o.each = e;
    out->object = schema_one(s, object_add(s, &o));
    out->n_object = 1;
}

static void const_array(struct schema *s, const struct json *v, struct norm *out)
{
    struct array_shape a = { .rest = TERM_FALSE, .min = v->count, .max = v->count, .at = v };
    uint32_t *prefix = schema_alloc(s, v->count, sizeof *prefix);
    for (const struct json *i = json_first(v); i && prefix; i = json_next(v, i))
        prefix[a.n_prefix++] = term_const(s, i);
    a.prefix = prefix;
    out->array = schema_one(s, array_add(s, &a));
    out->n_array = 1;
}

struct norm schema_read_const(struct schema *s, const struct json *v)
{
    struct norm out = norm_none();
    switch (v->type) {
    case JSON_NULL: out.words = WORD_NULL; break;
    case JSON_TRUE: out.words = WORD_TRUE; break;
    case JSON_FALSE: out.words = WORD_FALSE; break;
    case JSON_STRING: out.string = rx_text(s->rx, v->text, v->size); break;
    case JSON_NUMBER:
        if (!rx_number_equal(s->rx, v->text, v->size, &out.number))
            schema_fail(s, GLM_ESCHEMA, v, "the number has too many digits to be enforced");
        break;
    case JSON_ARRAY: const_array(s, v, &out); break;
    default: const_object(s, v, &out); break;
    }
    return out;
}

static uint32_t enum_strings(struct schema *s, const struct json *list)
{
    struct property *p = schema_alloc(s, list->count, sizeof *p);
    uint32_t n = 0;
    if (p == NULL)
        return RX_EMPTY;
    for (const struct json *v = json_first(list); v; v = json_next(list, v))
        if (v->type == JSON_STRING)
            p[n++] = (struct property){ schema_name(v), TERM_TRUE, false };
    if (n <= 1)
        return n == 0 ? RX_EMPTY : rx_text(s->rx, p[0].name.text, p[0].name.size);
    n = properties_sort(s, p, n);
    struct vocab_text *names = schema_alloc(s, n, sizeof *names);
    for (uint32_t i = 0; i < n && names; i++)
        names[i] = p[i].name;
    return names != NULL ? rx_literals(s->rx, names, n, false, RX_EMPTY) : RX_EMPTY;
}

struct norm schema_read_enum(struct schema *s, const struct json *list)
{
    struct norm out = norm_none();
    uint32_t numbers[64], n = 0;
    out.string = enum_strings(s, list);
    for (const struct json *v = json_first(list); v && !s->failed && !s->rx->failed; v = json_next(list, v)) {
        if (v->type == JSON_STRING)
            continue;
        struct norm one_value = schema_read_const(s, v);
        if (v->type == JSON_NUMBER) {
            numbers[n++] = one_value.number;
            one_value.number = RX_EMPTY;
            if (n == ARRAY_LEN(numbers)) {
                numbers[0] = rx_alt_list(s->rx, numbers, n);
                n = 1;
            }
            continue;
        }
        out = norm_or(s, &out, &one_value, list);
    }
    out.number = n > 0 ? rx_alt_list(s->rx, numbers, n) : RX_EMPTY;
    return out;
}
