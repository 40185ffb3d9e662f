/* schema_array.c: shapes of arrays: what two of them demand together, what breaks one, and whether one can be completed. */
#include "schema.h"

#include <string.h>

#define PREFIX_MAX 1024u
#define COUNTED_MAX 62u

uint32_t array_add(struct schema *s, const struct array_shape *a)
{
    if (!rx_grow(s->rx, &s->array, &s->array_cap, (uint64_t)s->n_array + 1, sizeof *a))
        return 0;
    s->array[s->n_array] = *a;
    if (a->rest == TERM_FALSE && a->max > a->n_prefix)
        s->array[s->n_array].max = a->n_prefix;
    return s->n_array++;
}

static uint32_t item_of(const struct array_shape *a, uint32_t i)
{
    return i < a->n_prefix ? a->prefix[i] : a->rest;
}

/* ---- together ---------------------------------------------------------------------------------------------------------- */

static bool merge_counted(struct schema *s, const struct array_shape *a, const struct array_shape *b, struct array_shape *o,
    const struct json *at)
{
    o->has_counted = a->has_counted || b->has_counted;
    o->counted = a->has_counted ? a->counted : b->counted;
    if (!a->has_counted || !b->has_counted)
        return true;
    if (a->counted.term != b->counted.term || a->counted.from != b->counted.from) {
        schema_fail(s, GLM_ESCHEMA, o->at ? o->at : at, "only one condition on how many items fit a schema can be enforced");
        return false;
    }
    o->counted.lo = a->counted.lo > b->counted.lo ? a->counted.lo : b->counted.lo;
    o->counted.hi = a->counted.hi < b->counted.hi ? a->counted.hi : b->counted.hi;
    return o->counted.lo <= o->counted.hi;
}

bool array_merge(struct schema *s, uint32_t i, uint32_t k, uint32_t *out, const struct json *at)
{
    const struct array_shape a = s->array[i], b = s->array[k];
    struct array_shape o = { .n_prefix = a.n_prefix > b.n_prefix ? a.n_prefix : b.n_prefix,
        .min = a.min > b.min ? a.min : b.min, .max = a.max < b.max ? a.max : b.max, .unique = a.unique || b.unique,
        .at = a.at ? a.at : b.at };
    uint32_t *prefix = schema_alloc(s, o.n_prefix, sizeof *prefix);
    if (prefix == NULL || !merge_counted(s, &a, &b, &o, at))
        return false;
    for (uint32_t n = 0; n < o.n_prefix; n++)
        prefix[n] = term_and2(s, item_of(&a, n), item_of(&b, n));
    o.prefix = prefix;
    o.rest = term_and2(s, a.rest, b.rest);
    if (o.min > o.max || s->failed)
        return false;
    for (uint32_t n = 0; n < o.n_prefix && n < o.min; n++)
        if (term_is_none(s, prefix[n]))
            return false;
    if (o.min > o.n_prefix && term_is_none(s, o.rest))
        return false;
    *out = array_add(s, &o);
    return !s->failed;
}

/* ---- broken ------------------------------------------------------------------------------------------------------------- */

static uint32_t with_count(struct schema *s, const struct counted *c, uint32_t term, uint32_t lo, uint32_t hi)
{
    struct array_shape o = { .rest = TERM_TRUE, .max = COUNT_INF, .has_counted = true };
    o.counted = (struct counted){ c->from, term, lo, hi };
    return array_add(s, &o);
}

static uint32_t with_item(struct schema *s, uint32_t i, uint32_t term)
{
    struct array_shape o = { .rest = TERM_TRUE, .min = i + 1, .max = COUNT_INF, .n_prefix = i + 1 };
    uint32_t *prefix = schema_alloc(s, i + 1, sizeof *prefix);
    for (uint32_t k = 0; prefix != NULL && k <= i; k++)
        prefix[k] = k < i ? TERM_TRUE : term;
    o.prefix = prefix;
    return prefix != NULL ? array_add(s, &o) : 0;
}

uint32_t array_violations(struct schema *s, uint32_t i, uint32_t *out, uint32_t max, const struct json *at)
{
    const struct array_shape a = s->array[i];
    uint32_t n = 0;
    if (a.n_prefix + 6u > max)
        return max + 1;
    if (a.unique)
        schema_fail(s, GLM_ESCHEMA, a.at ? a.at : at, "the opposite of uniqueItems cannot be enforced");
    for (uint32_t k = 0; k < a.n_prefix; k++)
        if (a.prefix[k] != TERM_TRUE)
            out[n++] = with_item(s, k, term_not(s, a.prefix[k]));
    if (a.rest != TERM_TRUE && a.rest != TERM_FALSE) {
        struct counted c = { a.n_prefix, 0, 0, 0 };
        out[n++] = with_count(s, &c, term_not(s, a.rest), 1, COUNT_INF);
    }
    if (a.has_counted && a.counted.lo > 0)
        out[n++] = with_count(s, &a.counted, a.counted.term, 0, a.counted.lo - 1);
    if (a.has_counted && a.counted.hi != COUNT_INF)
        out[n++] = with_count(s, &a.counted, a.counted.term, a.counted.hi + 1, COUNT_INF);
    struct array_shape fewer = { .rest = TERM_TRUE, .max = a.min - 1 };
    struct array_shape more = { .rest = TERM_TRUE, .min = a.max + 1, .max = COUNT_INF };
    if (a.min > 0)
        out[n++] = array_add(s, &fewer);
    if (a.max != COUNT_INF)
        out[n++] = array_add(s, &more);
    return n;
}

/* ---- finished ------------------------------------------------------------------------------------------------------------- */

static void child(struct schema *s, uint32_t term)
{
    if (s->term[term].is_child == 0)
        s->term[term].is_child = 1;
}

void array_finish(struct schema *s, uint32_t i)
{
    struct array_shape a = s->array[i];
    if (a.finished)
        return;
    a.n_item = a.has_counted && a.counted.from > a.n_prefix ? a.counted.from : a.n_prefix;
    if (a.n_item > PREFIX_MAX ||
        (a.has_counted && (a.counted.hi != COUNT_INF ? a.counted.hi : a.counted.lo) > COUNTED_MAX)) {
        schema_fail(s, GLM_ESCHEMA, a.at ? a.at : s->root, "an array has more separate items or counts than can be enforced");
        return;
    }
    if (a.unique && a.max > 1) {
        schema_fail(s, GLM_ESCHEMA, a.at, "uniqueItems cannot be enforced on arrays of more than one item");
        return;
    }
    a.item = schema_alloc(s, (size_t)a.n_item + 1, sizeof *a.item);
    for (uint32_t k = 0; a.item != NULL && k <= a.n_item; k++) {
        uint32_t *item = a.item[k];
        item[0] = item[1] = item[2] = item_of(&a, k);
        if (a.has_counted && k >= a.counted.from) {
            item[1] = term_and2(s, item[0], a.counted.term);
            if (a.counted.hi != COUNT_INF)
                item[2] = term_and2(s, item[0], term_not(s, a.counted.term));
        }
        for (uint32_t v = 0; v < 3; v++)
            child(s, item[v]);
    }
    a.finished = true;
    s->array[i] = a;
}

static bool alive(const struct schema *s, uint32_t term)
{
    return s->term[term].live;
}

/* All further items are alike: so many that must count, and as many as are missing to the least length. */
static bool tail_feasible(const struct schema *s, const struct array_shape *a, uint64_t n, uint64_t count)
{
    const uint32_t *item = a->item[a->n_item];
    uint64_t due = a->counted.lo > count ? a->counted.lo - count : 0, length = n + due;
    if (count + due > a->counted.hi || (due > 0 && !alive(s, item[1])) || (length > a->max && a->max != COUNT_INF))
        return false;
    if (length >= a->min || alive(s, item[2]))
        return a->min <= a->max;
    return alive(s, item[1]) && (a->counted.hi == COUNT_INF || count + due + (a->min - length) <= a->counted.hi);
}

static bool counted_feasible(const struct schema *s, const struct array_shape *a, uint32_t n, uint32_t count)
{
    uint32_t cap = a->counted.hi != COUNT_INF ? a->counted.hi : a->counted.lo;
    uint64_t counts = 1ull << (count < cap ? count : cap); /* which ones can be reached */
    for (; n < a->n_item && counts != 0; n++) {
        if (n >= a->min && n <= a->max && (counts >> a->counted.lo) != 0)
            return true;
        if (n >= a->max)
            return false;
        const uint32_t *item = a->item[n];
        uint64_t same = alive(s, item[2]) ? counts : 0, more = 0;
        if (n >= a->counted.from && alive(s, item[1])) {
            more = counts << 1;
            uint64_t over = more >> (cap + 1) & 1;
            more &= (2ull << cap) - 1;
            more |= over && a->counted.hi == COUNT_INF ? 1ull << cap : 0;
        }
        counts = same | more;
    }
    for (uint32_t i = 0; i <= cap; i++)
        if ((counts >> i & 1) && tail_feasible(s, a, n, i))
            return true;
    return false;
}

bool array_feasible(const struct schema *s, const struct array_shape *a, uint32_t n, uint32_t count)
{
    if (n > a->max || a->min > a->max)
        return false;
    if (a->has_counted)
        return (a->counted.hi == COUNT_INF || count <= a->counted.hi) && counted_feasible(s, a, n, count);
    for (; n < a->n_item && n < a->min; n++)
        if (!alive(s, a->item[n][0]))
            return false;
    return n >= a->min || alive(s, a->item[a->n_item][0]);
}
