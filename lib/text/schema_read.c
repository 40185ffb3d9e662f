/* schema_read.c: keywords to normal forms. Each group of keywords gives what it allows of its own type; types that the schema
 * does not name are taken away; then come the keywords that combine whole schemas.
 */
#include "schema.h"

#include <string.h>

#define TYPE_NULL 1u
#define TYPE_BOOLEAN 2u
#define TYPE_STRING 4u
#define TYPE_INTEGER 8u
#define TYPE_NUMBER 16u
#define TYPE_ARRAY 32u
#define TYPE_OBJECT 64u
#define TYPE_ANY 127u

/* ---- small readers ------------------------------------------------------------------------------------------------------- */

/* A count; one that is larger than any text can be is COUNT_INF - 1. */
static bool count(struct schema *s, const struct json *at, const char *key, uint32_t *out)
{
    const struct json *v = json_get(at, key);
    uint64_t n = 0;
    double large;
    if (v == NULL)
        return false;
    if (v->type != JSON_NUMBER || (!json_u64(v, &n) && !(json_f64(v, &large) && large > 0))) {
        schema_refuse(s, at, key, "a count is a whole number that is not negative");
        return false;
    }
    if (n == 0 && !json_u64(v, &n))
        n = COUNT_INF - 1;
    *out = n < COUNT_INF - 1 ? (uint32_t)n : COUNT_INF - 1;
    return true;
}

static const struct json *member(struct schema *s, const struct json *at, const char *key, enum json_type type)
{
    const struct json *v = json_get(at, key);
    if (v == NULL || v->type == type)
        return v;
    schema_refuse(s, at, key, type == JSON_OBJECT ? "this keyword's value is an object"
            : type == JSON_ARRAY ? "this keyword's value is an array"
            : type == JSON_STRING ? "this keyword's value is a string" : "this keyword's value is a number");
    return NULL;
}

static uint32_t type_of_name(struct schema *s, const struct json *name)
{
    static const struct {
        const char *name;
        uint32_t type;
    } known[] = { { "null", TYPE_NULL }, { "boolean", TYPE_BOOLEAN }, { "string", TYPE_STRING }, { "integer", TYPE_INTEGER },
        { "number", TYPE_INTEGER | TYPE_NUMBER }, { "array", TYPE_ARRAY }, { "object", TYPE_OBJECT } };
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (json_is_text(name, known[i].name))
            return known[i].type;
    schema_fail(s, GLM_ESCHEMA, name, "this is not the name of a JSON type");
    return 0;
}

static uint32_t types(struct schema *s, const struct json *at)
{
    const struct json *type = json_get(at, "type");
    uint32_t out = 0;
    if (type == NULL)
        return TYPE_ANY;
    if (type->type != JSON_ARRAY)
        return type_of_name(s, type);
    for (const struct json *v = json_first(type); v; v = json_next(type, v))
        out |= type_of_name(s, v);
    return out;
}

/* A term for a member that is a schema; `missing` where it is not there. */
static uint32_t sub(struct schema *s, const struct json *at, const char *key, uint32_t missing)
{
    const struct json *v = json_get(at, key);
    if (v == NULL)
        return missing;
    if (v->type != JSON_OBJECT && v->type != JSON_TRUE && v->type != JSON_FALSE)
        return schema_refuse(s, at, key, "a schema is an object or a boolean");
    return term_place(s, v);
}

static uint32_t pattern(struct schema *s, const struct json *text)
{
    glm_error err = GLM_ERROR_INIT;
    uint32_t out = RX_EMPTY;
    int32_t rc = rx_pattern(s->rx, text->text, text->size, false, &out, &err);
    if (rc)
        schema_fail(s, rc, text, err.message);
    return out;
}

/* ---- strings, numbers ------------------------------------------------------------------------------------------------------ */

static uint32_t read_string(struct schema *s, const struct json *at)
{
    uint32_t lo = 0, hi = RX_INF, out = RX_ALL;
    bool bounded = count(s, at, "minLength", &lo);
    bounded = count(s, at, "maxLength", &hi) || bounded;
    const struct json *regex = member(s, at, "pattern", JSON_STRING), *format = json_get(at, "format");
    if (bounded)
        out = lo > hi ? RX_EMPTY : rx_rep(s->rx, rx_range(s->rx, 0, RX_CODE_MAX), lo, hi == COUNT_INF - 1 ? RX_INF : hi);
    if (regex != NULL)
        out = rx_and(s->rx, out, pattern(s, regex));
    if (format != NULL && format->type == JSON_STRING && !s->failed) {
        glm_error err = GLM_ERROR_INIT;
        uint32_t text = RX_EMPTY;
        bool known;
        int32_t rc = rx_format(s->rx, format->text, format->size, &known, &text, &err);
        if (rc)
            schema_fail(s, rc, format, err.message);
        else if (known)
            out = rx_and(s->rx, out, text);
    }
    return out;
}

/* Whether every whole number is a multiple of p / 10^k. */
static bool divides_one(uint32_t p, uint32_t k)
{
    uint64_t power = 1;
    for (uint32_t i = 0; i < k; i++)
        power *= 10;
    return power % p == 0;
}

static uint32_t multiple(struct schema *s, const struct json *at, bool whole, bool strict)
{
    const struct json *v = member(s, at, "multipleOf", JSON_NUMBER);
    uint32_t p, k;
    if (v == NULL)
        return RX_ALL;
    if (!rx_divisor_read(v->text, v->size, &p, &k)) {
        schema_fail(s, GLM_ESCHEMA, v, "multipleOf is enforced for divisors above 0 of up to nine digits");
        return RX_EMPTY;
    }
    if (divides_one(p, k) && whole)
        return RX_ALL;
    return p == 1 && k == 0 ? rx_json_integer(s->rx) : rx_multiple(s->rx, p, k, strict);
}

/* Bounds of one direction. `upper`: the numbers that are not above (or at) the bound. */
static uint32_t bound(struct schema *s, const struct json *at, const char *key, bool upper, bool strict)
{
    const struct json *v = json_get(at, key);
    uint32_t out;
    if (v == NULL || v->type == JSON_TRUE || v->type == JSON_FALSE)
        return RX_ALL;
    if (v->type != JSON_NUMBER)
        return schema_refuse(s, at, key, "a bound is a number");
    if (!rx_number_from(s->rx, v->text, v->size, upper ? !strict : strict, &out))
        return schema_refuse(s, at, key, "the bound has too many digits to be enforced");
    if (!s->compared)
        s->compared = rx_json_number_compared(s->rx);
    return upper ? rx_and(s->rx, s->compared, rx_not(s->rx, out)) : out;
}

static bool is_true(const struct json *at, const char *key)
{
    const struct json *v = json_get(at, key);
    return v != NULL && v->type == JSON_TRUE;
}

static uint32_t read_number(struct schema *s, const struct json *at, uint32_t type)
{
    uint32_t part[6], n = 0;
    part[n++] = bound(s, at, "minimum", false, is_true(at, "exclusiveMinimum")); /* draft 4 has booleans there */
    part[n++] = bound(s, at, "maximum", true, is_true(at, "exclusiveMaximum"));
    part[n++] = bound(s, at, "exclusiveMinimum", false, true);
    part[n++] = bound(s, at, "exclusiveMaximum", true, true);
    if (!(type & TYPE_NUMBER)) {
        if (!s->integer)
            s->integer = s->is_oldest ? rx_json_whole(s->rx) : rx_json_integer(s->rx);
        part[n++] = s->integer;
    }
    uint32_t out = rx_and_list(s->rx, part, n), any = norm_any(s).number;
    uint32_t divided = multiple(s, at, !(type & TYPE_NUMBER), out != RX_ALL);
    if (divided == RX_ALL)
        return out == RX_ALL ? any : out;
    if (!s->compared)
        s->compared = rx_json_number_compared(s->rx);
    return rx_and(s->rx, divided, rx_and(s->rx, out, s->compared));
}

/* ---- arrays ------------------------------------------------------------------------------------------------------------------ */

static void read_prefix(struct schema *s, const struct json *list, struct array_shape *a)
{
    uint32_t *prefix = schema_alloc(s, list->count, sizeof *prefix);
    for (const struct json *v = json_first(list); v && prefix; v = json_next(list, v)) {
        if (v->type != JSON_OBJECT && v->type != JSON_TRUE && v->type != JSON_FALSE)
            schema_fail(s, GLM_ESCHEMA, v, "a schema is an object or a boolean");
        prefix[a->n_prefix++] = term_place(s, v);
    }
    a->prefix = prefix;
}

static uint32_t read_array(struct schema *s, const struct json *at)
{
    struct array_shape a = { .rest = TERM_TRUE, .max = COUNT_INF, .at = at };
    const struct json *items = json_get(at, "items"), *prefix = json_get(at, "prefixItems");
    bool any = json_get(at, "unevaluatedItems") == NULL;
    if (!any && sub(s, at, "unevaluatedItems", TERM_TRUE) != TERM_TRUE)
        schema_refuse(s, at, "unevaluatedItems", "unevaluatedItems cannot be enforced");
    if (items != NULL && items->type == JSON_ARRAY) {
        if (s->is_new)
            schema_refuse(s, at, "items", "a list of schemas is called prefixItems in this draft");
        read_prefix(s, items, &a);
        a.rest = sub(s, at, "additionalItems", TERM_TRUE);
    } else {
        if (prefix != NULL && !s->is_old && (prefix = member(s, at, "prefixItems", JSON_ARRAY)) != NULL)
            read_prefix(s, prefix, &a);
        a.rest = sub(s, at, "items", TERM_TRUE);
    }
    count(s, at, "minItems", &a.min);
    count(s, at, "maxItems", &a.max);
    if (json_get(at, "contains") != NULL) {
        a.counted = (struct counted){ 0, sub(s, at, "contains", TERM_TRUE), 1, COUNT_INF };
        if (!s->is_old) {
            count(s, at, "minContains", &a.counted.lo);
            count(s, at, "maxContains", &a.counted.hi);
        }
        a.has_counted = a.counted.lo > 0 || a.counted.hi != COUNT_INF;
    }
    a.unique = is_true(at, "uniqueItems");
    if (a.min == 0 && a.max == COUNT_INF && a.n_prefix == 0 && a.rest == TERM_TRUE && !a.has_counted && !a.unique)
        return 0;
    return array_add(s, &a);
}

/* ---- objects ------------------------------------------------------------------------------------------------------------------ */

static int order(const struct vocab_text *a, const struct vocab_text *b)
{
    size_t n = a->size < b->size ? a->size : b->size;
    int c = n > 0 ? memcmp(a->text, b->text, n) : 0;
    return c != 0 ? c : a->size < b->size ? -1 : a->size > b->size;
}

uint32_t properties_sort(struct schema *s, struct property *p, uint32_t n)
{
    uint32_t o = 0;
    for (uint32_t gap = n / 2; gap > 0; gap /= 2)
        for (uint32_t i = gap; i < n; i++)
            for (uint32_t k = i; k >= gap && order(&p[k].name, &p[k - gap].name) < 0; k -= gap) {
                struct property swap = p[k];
                p[k] = p[k - gap];
                p[k - gap] = swap;
            }
    for (uint32_t i = 1; i < n; i++) {
        if (order(&p[o].name, &p[i].name) == 0) {
            p[o].term = term_and2(s, p[o].term, p[i].term);
            p[o].required = p[o].required || p[i].required;
        } else {
            p[++o] = p[i];
        }
    }
    return n > 0 ? o + 1 : 0;
}

static const struct json *dependencies(struct schema *s, const struct json *at, uint32_t which)
{
    static const char *const keys[] = { "dependentRequired", "dependencies" };
    if ((which == 0 && s->is_old) || (which == 1 && s->is_new))
        return NULL;
    return member(s, at, keys[which], JSON_OBJECT);
}

/* Names that required or a dependency adds are properties too: those that anything fits. */
static uint32_t count_properties(struct schema *s, const struct json *at)
{
    const struct json *p = member(s, at, "properties", JSON_OBJECT), *r = json_get(at, "required");
    uint32_t n = (p ? p->count : 0) + (r && r->type == JSON_ARRAY ? r->count : 0);
    for (uint32_t i = 0; i < 2; i++) {
        const struct json *d = dependencies(s, at, i);
        for (const struct json *k = d ? json_first(d) : NULL; k; k = json_next(d, k))
            n += k[1].type == JSON_ARRAY ? 1 + k[1].count : 0;
    }
    return n;
}

static void read_properties(struct schema *s, const struct json *at, struct object_shape *o)
{
    struct property *p = schema_alloc(s, count_properties(s, at), sizeof *p);
    const struct json *list = json_get(at, "properties"), *required = json_get(at, "required");
    uint32_t n = 0;
    if (p == NULL)
        return;
    for (const struct json *k = list ? json_first(list) : NULL; k; k = json_next(list, k)) {
        if (k[1].type != JSON_OBJECT && k[1].type != JSON_TRUE && k[1].type != JSON_FALSE)
            schema_fail(s, GLM_ESCHEMA, k + 1, "a schema is an object or a boolean");
        p[n++] = (struct property){ schema_name(k), term_place(s, k + 1), false };
    }
    if (required != NULL && required->type == JSON_ARRAY)
        for (const struct json *v = json_first(required); v; v = json_next(required, v)) {
            if (v->type != JSON_STRING)
                schema_fail(s, GLM_ESCHEMA, v, "required lists names");
            p[n++] = (struct property){ schema_name(v), TERM_TRUE, true };
        }
    for (uint32_t i = 0; i < 2; i++) {
        const struct json *d = dependencies(s, at, i);
        for (const struct json *k = d ? json_first(d) : NULL; k; k = json_next(d, k)) {
            if (k[1].type != JSON_ARRAY)
                continue;
            p[n++] = (struct property){ schema_name(k), TERM_TRUE, false };
            for (const struct json *v = json_first(k + 1); v; v = json_next(k + 1, v))
                p[n++] = (struct property){ schema_name(v), TERM_TRUE, false };
        }
    }
    o->property = p;
    o->n_property = properties_sort(s, p, n);
}

static void read_implied(struct schema *s, const struct json *at, struct object_shape *o)
{
    uint32_t n = 0;
    struct implied *list = NULL;
    for (uint32_t round = 0; round < 2; round++) {
        for (uint32_t i = 0; i < 2; i++) {
            const struct json *d = dependencies(s, at, i);
            for (const struct json *k = d ? json_first(d) : NULL; k; k = json_next(d, k))
                for (const struct json *v = k[1].type == JSON_ARRAY ? json_first(k + 1) : NULL; v; v = json_next(k + 1, v)) {
                    if (v->type != JSON_STRING)
                        schema_fail(s, GLM_ESCHEMA, v, "a dependency lists names");
                    if (list != NULL)
                        list[n] = (struct implied){ schema_name(k), schema_name(v) };
                    n++;
                }
        }
        if (round == 1 || n == 0)
            break;
        list = schema_alloc(s, n, sizeof *list);
        if (list == NULL)
            return;
        n = 0;
    }
    o->implied = list;
    o->n_implied = n;
}

static void read_each(struct schema *s, const struct json *at, struct object_shape *o)
{
    const struct json *patterns = member(s, at, "patternProperties", JSON_OBJECT);
    const struct json *names = json_get(at, "propertyNames");
    uint32_t other = sub(s, at, "additionalProperties", TERM_TRUE), off = RX_EMPTY;
    struct each_key *e = schema_alloc(s, (patterns ? patterns->count : 0) + 2, sizeof *e);
    if (e == NULL)
        return;
    o->each = e;
    for (const struct json *k = patterns ? json_first(patterns) : NULL; k && !s->failed; k = json_next(patterns, k)) {
        uint32_t keys = pattern(s, k);
        if (k[1].type != JSON_OBJECT && k[1].type != JSON_TRUE && k[1].type != JSON_FALSE)
            schema_fail(s, GLM_ESCHEMA, k + 1, "a schema is an object or a boolean");
        off = rx_alt(s->rx, off, keys);
        e[o->n_each++] = (struct each_key){ keys, RX_EMPTY, term_place(s, k + 1), NULL };
    }
    if (other != TERM_TRUE)
        e[o->n_each++] = (struct each_key){ RX_ALL, off, other, member(s, at, "properties", JSON_OBJECT) };
    if (names != NULL && !s->failed) {
        const struct norm *n = term_norm(s, sub(s, at, "propertyNames", TERM_TRUE));
        if (n != NULL && n->string != RX_ALL)
            e[o->n_each++] = (struct each_key){ RX_ALL, n->string, TERM_FALSE, NULL };
    }
}

static uint32_t read_object(struct schema *s, const struct json *at)
{
    struct object_shape o = { .max = COUNT_INF };
    if (sub(s, at, "unevaluatedProperties", TERM_TRUE) != TERM_TRUE)
        schema_refuse(s, at, "unevaluatedProperties", "unevaluatedProperties cannot be enforced");
    read_properties(s, at, &o);
    read_implied(s, at, &o);
    read_each(s, at, &o);
    count(s, at, "minProperties", &o.min);
    count(s, at, "maxProperties", &o.max);
    if (o.n_property + o.n_implied + o.n_each == 0 && o.min == 0 && o.max == COUNT_INF)
        return 0;
    return object_add(s, &o);
}

/* ---- whole schemas ------------------------------------------------------------------------------------------------------------ */

static struct norm by_type(struct schema *s, const struct json *at)
{
    uint32_t type = types(s, at);
    struct norm out = norm_none();
    if (type & TYPE_NULL)
        out.words |= WORD_NULL;
    if (type & TYPE_BOOLEAN)
        out.words |= WORD_TRUE | WORD_FALSE;
    if (type & TYPE_STRING)
        out.string = read_string(s, at);
    if (type & (TYPE_INTEGER | TYPE_NUMBER))
        out.number = read_number(s, at, type);
    if (type & TYPE_ARRAY) {
        out.array = schema_one(s, read_array(s, at));
        out.n_array = 1;
    }
    if (type & TYPE_OBJECT) {
        out.object = schema_one(s, read_object(s, at));
        out.n_object = 1;
    }
    return out;
}

static void meet(struct schema *s, struct norm *out, uint32_t term, const struct json *at)
{
    const struct norm *n = s->failed ? NULL : term_norm(s, term);
    if (n == NULL)
        return;
    struct norm with = *n;
    *out = norm_and(s, out, &with, at);
}

static struct norm read_any_of(struct schema *s, const struct json *list)
{
    struct norm out = norm_none();
    for (const struct json *v = json_first(list); v && !s->failed; v = json_next(list, v)) {
        const struct norm *n = term_norm(s, term_place(s, v));
        if (n == NULL)
            break;
        struct norm with = *n;
        out = norm_or(s, &out, &with, list);
    }
    return out;
}

static struct norm read_one_of(struct schema *s, const struct json *list)
{
    struct norm *all = schema_alloc(s, list->count, sizeof *all);
    uint32_t n = 0;
    for (const struct json *v = json_first(list); v && all && !s->failed; v = json_next(list, v)) {
        const struct norm *one_of = term_norm(s, term_place(s, v));
        if (one_of != NULL)
            all[n++] = *one_of;
    }
    return s->failed ? norm_none() : norm_one_of(s, all, n, list);
}

static struct norm only_object_with(struct schema *s, struct vocab_text name, uint32_t term, bool required, bool others)
{
    struct norm out = others ? norm_any(s) : norm_none();
    struct object_shape o = { .max = COUNT_INF, .n_property = 1 };
    struct property *p = schema_alloc(s, 1, sizeof *p);
    if (p == NULL)
        return out;
    *p = (struct property){ name, term, required };
    o.property = p;
    out.object = schema_one(s, object_add(s, &o));
    out.n_object = 1;
    return out;
}

/* Without the key, or with it and as the schema says. */
static void meet_dependent(struct schema *s, struct norm *out, const struct json *map)
{
    for (const struct json *k = json_first(map); k && !s->failed; k = json_next(map, k)) {
        if (k[1].type == JSON_ARRAY)
            continue;
        struct norm without = only_object_with(s, schema_name(k), TERM_FALSE, false, true);
        struct norm with = only_object_with(s, schema_name(k), TERM_TRUE, true, false);
        meet(s, &with, term_place(s, k + 1), map);
        struct norm either = norm_or(s, &without, &with, map);
        *out = norm_and(s, out, &either, map);
    }
}

static void meet_if(struct schema *s, struct norm *out, const struct json *at)
{
    uint32_t test = sub(s, at, "if", TERM_TRUE);
    uint32_t then = sub(s, at, "then", TERM_TRUE), other = sub(s, at, "else", TERM_TRUE);
    if (json_get(at, "if") == NULL || (then == TERM_TRUE && other == TERM_TRUE))
        return;
    uint32_t both[2] = { term_and2(s, test, then), term_and2(s, term_not(s, test), other) };
    meet(s, out, term_or(s, both, 2), json_get(at, "if"));
}

static void meet_list(struct schema *s, struct norm *out, const struct json *at)
{
    const struct json *all = member(s, at, "allOf", JSON_ARRAY), *any = member(s, at, "anyOf", JSON_ARRAY);
    const struct json *exactly = member(s, at, "oneOf", JSON_ARRAY), *dependent;
    for (const struct json *v = all ? json_first(all) : NULL; v && !s->failed; v = json_next(all, v))
        meet(s, out, term_place(s, v), all);
    if (any != NULL && !s->failed) {
        struct norm n = read_any_of(s, any);
        *out = norm_and(s, out, &n, any);
    }
    if (exactly != NULL && !s->failed) {
        struct norm n = read_one_of(s, exactly);
        *out = norm_and(s, out, &n, exactly);
    }
    if (!s->is_old && (dependent = member(s, at, "dependentSchemas", JSON_OBJECT)) != NULL)
        meet_dependent(s, out, dependent);
    if (!s->is_new && (dependent = member(s, at, "dependencies", JSON_OBJECT)) != NULL)
        meet_dependent(s, out, dependent);
}

struct norm schema_read(struct schema *s, const struct json *at)
{
    const struct json *ref = json_get(at, "$ref"), *v;
    struct norm out = norm_any(s);
    if (at->type != JSON_OBJECT) {
        schema_fail(s, GLM_ESCHEMA, at, "a schema is an object or a boolean");
        return out;
    }
    if (ref != NULL) {
        const struct json *target = schema_resolve(s, at, ref);
        if (target != NULL)
            meet(s, &out, term_place(s, target), ref);
        if (s->is_old || s->failed)
            return out;
    }
    if (json_get(at, "$dynamicRef") != NULL)
        schema_refuse(s, at, "$dynamicRef", "$dynamicRef cannot be enforced");
    if (json_get(at, "$recursiveRef") != NULL)
        schema_refuse(s, at, "$recursiveRef", "$recursiveRef cannot be enforced");
    struct norm own = by_type(s, at);
    out = norm_and(s, &out, &own, at);
    if ((v = json_get(at, "const")) != NULL)
        meet(s, &out, term_const(s, v), v);
    if ((v = member(s, at, "enum", JSON_ARRAY)) != NULL && !s->failed) {
        struct norm listed = schema_read_enum(s, v);
        out = norm_and(s, &out, &listed, v);
    }
    meet_list(s, &out, at);
    if ((v = json_get(at, "not")) != NULL)
        meet(s, &out, term_not(s, sub(s, at, "not", TERM_TRUE)), v);
    meet_if(s, &out, at);
    return out;
}
