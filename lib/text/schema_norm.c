/* schema_norm.c: and, or, not and exactly-one on normal forms. Languages and words are combined as such; shapes by distributing,
 * where a pair that no value can meet is dropped at once: that is what keeps unions of tagged objects small.
 */
#include "schema.h"

#include <string.h>

#define SHAPES_MAX 96u
#define WORK_MAX 20000u

struct norm norm_none(void)
{
    return (struct norm){ .string = RX_EMPTY, .number = RX_EMPTY };
}

struct norm norm_any(struct schema *s)
{
    static const uint32_t any_shape = 0;
    if (!s->any_number)
        s->any_number = rx_json_number(s->rx);
    return (struct norm){ .string = RX_ALL, .number = s->any_number, .words = WORD_NULL | WORD_TRUE | WORD_FALSE,
        .n_object = 1, .n_array = 1, .object = &any_shape, .array = &any_shape };
}

static uint32_t compared(struct schema *s)
{
    if (!s->compared)
        s->compared = rx_json_number_compared(s->rx);
    return s->compared;
}

bool norm_is_none(struct schema *s, const struct norm *a)
{
    return !a->words && a->n_object == 0 && a->n_array == 0 && !rx_live(s->rx, a->string) && !rx_live(s->rx, a->number);
}

/* ---- lists of shapes ------------------------------------------------------------------------------------------------- */

struct shapes {
    uint32_t list[SHAPES_MAX + 1], n;
};

static void put(struct schema *s, struct shapes *to, uint32_t shape, const struct json *at)
{
    for (uint32_t i = 0; i < to->n; i++)
        if (to->list[i] == shape)
            return;
    if (to->n == SHAPES_MAX) {
        schema_fail(s, GLM_ESCHEMA, at, "the schema has too many alternatives to be enforced exactly");
        return;
    }
    to->list[to->n++] = shape;
}

static const uint32_t *keep(struct schema *s, const struct shapes *from)
{
    uint32_t *list = from->n > 0 ? schema_alloc(s, from->n, sizeof *list) : NULL;
    if (list != NULL)
        memcpy(list, from->list, from->n * sizeof *list);
    return list;
}

static bool merge(struct schema *s, bool object, uint32_t a, uint32_t b, uint32_t *out, const struct json *at)
{
    rx_is_overworked(s->rx);
    if (++s->work > WORK_MAX)
        schema_fail(s, GLM_ELIMIT, at, "the schema has too many combinations of alternatives");
    if (s->failed)
        return false;
    if (a == b || b == 0) {
        *out = a;
        return true;
    }
    if (a == 0) {
        *out = b;
        return true;
    }
    return object ? object_merge(s, a, b, out) : array_merge(s, a, b, out, at);
}

static void product(struct schema *s, bool object, const uint32_t *a, uint32_t n, const uint32_t *b, uint32_t k,
    struct shapes *out, const struct json *at)
{
    out->n = 0;
    for (uint32_t i = 0; i < n && !s->failed; i++)
        for (uint32_t j = 0; j < k && !s->failed; j++) {
            uint32_t shape;
            if (merge(s, object, a[i], b[j], &shape, at))
                put(s, out, shape, at);
        }
}

/* Takes from `from` what the shape allows. */
static void subtract(struct schema *s, bool object, struct shapes *from, uint32_t shape, const struct json *at)
{
    uint32_t out[SHAPES_MAX + 1];
    struct shapes left;
    uint32_t n = object ? object_violations(s, shape, out, SHAPES_MAX) : array_violations(s, shape, out, SHAPES_MAX, at);
    if (n > SHAPES_MAX) {
        schema_fail(s, GLM_ESCHEMA, at, "the opposite of this schema has too many alternatives to be enforced exactly");
        return;
    }
    product(s, object, from->list, from->n, out, n, &left, at);
    memcpy(from, &left, sizeof left);
}

/* ---- combining ---------------------------------------------------------------------------------------------------------- */

struct norm norm_and(struct schema *s, const struct norm *a, const struct norm *b, const struct json *at)
{
    struct shapes list;
    struct norm out = { .words = a->words & b->words };
    if (s->any_number && a->number == s->any_number)
        out.number = b->number;
    else
        out.number = s->any_number && b->number == s->any_number ? a->number : rx_and(s->rx, a->number, b->number);
    out.string = rx_and(s->rx, a->string, b->string);
    product(s, true, a->object, a->n_object, b->object, b->n_object, &list, at);
    out.object = keep(s, &list);
    out.n_object = list.n;
    product(s, false, a->array, a->n_array, b->array, b->n_array, &list, at);
    out.array = keep(s, &list);
    out.n_array = list.n;
    return out;
}

static void join(struct schema *s, const uint32_t *a, uint32_t n, struct shapes *to, const struct json *at)
{
    for (uint32_t i = 0; i < n; i++) {
        if (a[i] == 0) { /* any object, any array: the others are among them */
            to->list[0] = 0;
            to->n = 1;
        } else if (to->n != 1 || to->list[0] != 0) {
            put(s, to, a[i], at);
        }
    }
}

struct norm norm_or(struct schema *s, const struct norm *a, const struct norm *b, const struct json *at)
{
    struct norm out = { .words = a->words | b->words };
    struct shapes list = { .n = 0 };
    out.string = rx_alt(s->rx, a->string, b->string);
    out.number = rx_alt(s->rx, a->number, b->number);
    join(s, a->object, a->n_object, &list, at);
    join(s, b->object, b->n_object, &list, at);
    out.object = keep(s, &list);
    out.n_object = list.n;
    list.n = 0;
    join(s, a->array, a->n_array, &list, at);
    join(s, b->array, b->n_array, &list, at);
    out.array = keep(s, &list);
    out.n_array = list.n;
    return out;
}

static uint32_t not_number(struct schema *s, uint32_t number)
{
    if (number == RX_EMPTY)
        return norm_any(s).number;
    if (s->any_number && number == s->any_number)
        return RX_EMPTY;
    return rx_and(s->rx, compared(s), rx_not(s->rx, number));
}

struct norm norm_not(struct schema *s, const struct norm *a, const struct json *at)
{
    struct norm out = { .string = rx_not(s->rx, a->string), .number = not_number(s, a->number),
        .words = (WORD_NULL | WORD_TRUE | WORD_FALSE) & ~a->words };
    struct shapes list = { .list = { 0 }, .n = 1 };
    for (uint32_t i = 0; i < a->n_object && !s->failed; i++)
        subtract(s, true, &list, a->object[i], at);
    out.object = keep(s, &list);
    out.n_object = list.n;
    list = (struct shapes){ .list = { 0 }, .n = 1 };
    for (uint32_t i = 0; i < a->n_array && !s->failed; i++)
        subtract(s, false, &list, a->array[i], at);
    out.array = keep(s, &list);
    out.n_array = list.n;
    return out;
}

/* ---- exactly one -------------------------------------------------------------------------------------------------------- */

/* Of each alternative what no other one allows; an alternative that cannot meet the shape takes nothing away. */
static void only_here(struct schema *s, bool object, const struct norm *a, uint32_t n, uint32_t here, struct shapes *out,
    const struct json *at)
{
    const uint32_t *mine = object ? a[here].object : a[here].array;
    uint32_t n_mine = object ? a[here].n_object : a[here].n_array;
    for (uint32_t i = 0; i < n_mine; i++) {
        struct shapes left = { .list = { mine[i] }, .n = 1 };
        for (uint32_t k = 0; k < n && left.n > 0; k++) {
            const uint32_t *others = object ? a[k].object : a[k].array;
            uint32_t n_other = object ? a[k].n_object : a[k].n_array, both;
            for (uint32_t j = 0; j < n_other && k != here && left.n > 0 && !s->failed; j++)
                if (merge(s, object, mine[i], others[j], &both, at))
                    subtract(s, object, &left, others[j], at);
        }
        for (uint32_t k = 0; k < left.n; k++)
            put(s, out, left.list[k], at);
    }
}

static uint32_t only_one_language(struct schema *s, const struct norm *a, uint32_t n, bool string)
{
    uint32_t out = RX_EMPTY;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t mine = string ? a[i].string : a[i].number, others = RX_EMPTY;
        for (uint32_t k = 0; k < n; k++) {
            uint32_t other = string ? a[k].string : a[k].number;
            if (k != i && mine != RX_EMPTY && other != RX_EMPTY && !rx_disjoint(s->rx, mine, other))
                others = rx_alt(s->rx, others, other);
        }
        if (others != RX_EMPTY)
            mine = rx_and(s->rx, mine, string ? rx_not(s->rx, others) : not_number(s, others));
        out = rx_alt(s->rx, out, mine);
    }
    return out;
}

struct norm norm_one_of(struct schema *s, const struct norm *a, uint32_t n, const struct json *at)
{
    struct norm out = norm_none();
    struct shapes list = { .n = 0 };
    for (uint32_t bit = 1; bit <= WORD_FALSE; bit <<= 1) {
        uint32_t count = 0;
        for (uint32_t i = 0; i < n; i++)
            count += (a[i].words & bit) != 0;
        out.words |= count == 1 ? bit : 0;
    }
    out.string = only_one_language(s, a, n, true);
    out.number = only_one_language(s, a, n, false);
    for (uint32_t i = 0; i < n && !s->failed; i++)
        only_here(s, true, a, n, i, &list, at);
    out.object = keep(s, &list);
    out.n_object = list.n;
    list.n = 0;
    for (uint32_t i = 0; i < n && !s->failed; i++)
        only_here(s, false, a, n, i, &list, at);
    out.array = keep(s, &list);
    out.n_array = list.n;
    return out;
}
