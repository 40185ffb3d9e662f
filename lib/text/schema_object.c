/* schema_object.c: shapes of objects: what two of them demand together, what breaks one, and what the run needs to know of each.
 */
#include "schema.h"

#include <string.h>

#define SOME_MAX 3u
#define CLASSES_MAX 48u

static int order(const struct vocab_text *a, const struct vocab_text *b)
{
    size_t n = a->size < b->size ? a->size : b->size;
    int c = n > 0 ? memcmp(a->text, b->text, n) : 0;
    return c != 0 ? c : a->size < b->size ? -1 : a->size > b->size;
}

uint32_t object_add(struct schema *s, const struct object_shape *o)
{
    if (!rx_grow(s->rx, &s->object, &s->object_cap, (uint64_t)s->n_object + 1, sizeof *o))
        return 0;
    s->object[s->n_object] = *o;
    return s->n_object++;
}

static bool among(const struct json *declared, const struct vocab_text *name)
{
    for (const struct json *k = declared ? json_first(declared) : NULL; k; k = json_next(declared, k))
        if (k->size == name->size && (name->size == 0 || !memcmp(k->text, name->text, name->size)))
            return true;
    return false;
}

static bool concerns(struct schema *s, uint32_t on, uint32_t off, const struct json *declared, const struct vocab_text *name)
{
    if (among(declared, name))
        return false;
    if (on != RX_ALL && !rx_match(s->rx, on, name->text, name->size))
        return false;
    return off == RX_EMPTY || !rx_match(s->rx, off, name->text, name->size);
}

uint32_t object_child(struct schema *s, const struct object_shape *o, const struct property *p)
{
    uint32_t term = p->term;
    for (uint32_t i = 0; i < o->n_each && term != TERM_FALSE; i++) {
        const struct each_key *e = &o->each[i];
        if (e->term != TERM_TRUE && concerns(s, e->on, e->off, e->declared, &p->name))
            term = term_and2(s, term, e->term);
    }
    return term;
}

/* ---- together ---------------------------------------------------------------------------------------------------------- */

static void merge_properties(struct schema *s, const struct object_shape *a, const struct object_shape *b, struct object_shape *o)
{
    struct property *to = schema_alloc(s, (size_t)a->n_property + b->n_property, sizeof *to);
    uint32_t i = 0, k = 0;
    o->property = to;
    while (to != NULL && (i < a->n_property || k < b->n_property)) {
        int c = i == a->n_property ? 1 : k == b->n_property ? -1 : order(&a->property[i].name, &b->property[k].name);
        struct property p = c <= 0 ? a->property[i] : b->property[k];
        if (c == 0) {
            p.term = term_and2(s, p.term, b->property[k].term);
            p.required = p.required || b->property[k].required;
        }
        i += c <= 0;
        k += c >= 0;
        to[o->n_property++] = p;
    }
}

#define JOIN(field, count)                                                                                      \
    do {                                                                                                        \
        o.count = a->count + b->count;                                                                          \
        void *list = o.count > 0 ? schema_alloc(s, o.count, sizeof *o.field) : NULL;                            \
        if (list != NULL) {                                                                                     \
            if (a->count > 0)                                                                                   \
                memcpy(list, a->field, a->count * sizeof *o.field);                                             \
            if (b->count > 0)                                                                                   \
                memcpy((char *)list + a->count * sizeof *o.field, b->field, b->count * sizeof *o.field);        \
        }                                                                                                       \
        o.field = list;                                                                                         \
    } while (0)

static bool can_be(struct schema *s, const struct object_shape *o)
{
    uint32_t n_required = 0;
    for (uint32_t i = 0; i < o->n_property && !s->failed; i++) {
        if (!o->property[i].required)
            continue;
        n_required++;
        if (term_is_none(s, object_child(s, o, &o->property[i])))
            return false;
    }
    return !s->failed && o->min <= o->max && n_required <= o->max;
}

bool object_merge(struct schema *s, uint32_t i, uint32_t k, uint32_t *out)
{
    const struct object_shape one = s->object[i], two = s->object[k], *a = &one, *b = &two;
    struct object_shape o = { .min = a->min > b->min ? a->min : b->min, .max = a->max < b->max ? a->max : b->max };
    merge_properties(s, a, b, &o);
    JOIN(each, n_each);
    JOIN(some, n_some);
    JOIN(implied, n_implied);
    if (s->failed || !can_be(s, &o))
        return false;
    *out = object_add(s, &o);
    return true;
}

/* ---- broken ------------------------------------------------------------------------------------------------------------- */

static uint32_t with_property(struct schema *s, struct vocab_text name, uint32_t term, bool required)
{
    struct object_shape o = { .max = COUNT_INF, .n_property = 1 };
    struct property *p = schema_alloc(s, 1, sizeof *p);
    if (p == NULL)
        return 0;
    *p = (struct property){ name, term, required };
    o.property = p;
    return object_add(s, &o);
}

static uint32_t with_implied_broken(struct schema *s, const struct implied *imp)
{
    uint32_t a = with_property(s, imp->key, TERM_TRUE, true), b = with_property(s, imp->then, TERM_FALSE, false), both;
    return !s->failed && object_merge(s, a, b, &both) ? both : RX_INF;
}

/* Keys that a condition on the others leaves out are told by their names: as properties that anything fits. */
static void put_declared(struct schema *s, const struct json *declared, struct object_shape *o)
{
    uint32_t n = 0;
    struct property *p = schema_alloc(s, declared != NULL ? declared->count : 0, sizeof *p);
    if (p == NULL)
        return;
    for (const struct json *k = declared ? json_first(declared) : NULL; k; k = json_next(declared, k))
        p[n++] = (struct property){ { k->text, k->size }, TERM_TRUE, false };
    o->property = p;
    o->n_property = properties_sort(s, p, n);
}

static uint32_t with_some(struct schema *s, const struct each_key *e)
{
    struct object_shape o = { .max = COUNT_INF, .n_some = 1 };
    struct some_key *k = schema_alloc(s, 1, sizeof *k);
    if (k == NULL)
        return 0;
    *k = (struct some_key){ e->on, e->off, term_not(s, e->term), e->declared };
    o.some = k;
    put_declared(s, e->declared, &o);
    return object_add(s, &o);
}

static uint32_t with_each(struct schema *s, const struct some_key *k)
{
    struct object_shape o = { .max = COUNT_INF, .n_each = 1 };
    struct each_key *e = schema_alloc(s, 1, sizeof *e);
    if (e == NULL)
        return 0;
    *e = (struct each_key){ k->on, k->off, term_not(s, k->term), k->declared };
    o.each = e;
    put_declared(s, k->declared, &o);
    return object_add(s, &o);
}

uint32_t object_violations(struct schema *s, uint32_t i, uint32_t *out, uint32_t max)
{
    const struct object_shape o = s->object[i];
    uint32_t n = 0;
    uint64_t most = (uint64_t)o.n_property * 2 + o.n_each + o.n_some + o.n_implied + 2;
    if (most > max)
        return max + 1;
    for (uint32_t k = 0; k < o.n_property; k++) {
        const struct property *p = &o.property[k];
        if (p->term != TERM_TRUE)
            out[n++] = with_property(s, p->name, term_not(s, p->term), true);
        if (p->required)
            out[n++] = with_property(s, p->name, TERM_FALSE, false);
    }
    for (uint32_t k = 0; k < o.n_each; k++)
        if (o.each[k].term != TERM_TRUE)
            out[n++] = with_some(s, &o.each[k]);
    for (uint32_t k = 0; k < o.n_some; k++)
        out[n++] = with_each(s, &o.some[k]);
    for (uint32_t k = 0; k < o.n_implied; k++)
        if ((out[n] = with_implied_broken(s, &o.implied[k])) != RX_INF)
            n++;
    struct object_shape fewer = { .max = o.min - 1 }, more = { .min = o.max + 1, .max = COUNT_INF };
    if (o.min > 0)
        out[n++] = object_add(s, &fewer);
    if (o.max != COUNT_INF)
        out[n++] = object_add(s, &more);
    return n;
}

/* ---- finished ------------------------------------------------------------------------------------------------------------- */

struct classes {
    uint32_t keys[CLASSES_MAX], term[CLASSES_MAX], n;
    uint8_t meets[CLASSES_MAX];
};

/* Splits each class into what `keys` matches and the rest. Those in it get the term, and the mark. */
static void split(struct schema *s, struct classes *c, uint32_t keys, uint32_t term, uint8_t mark)
{
    uint32_t n = c->n;
    for (uint32_t i = 0; i < n && !s->failed; i++) {
        uint32_t in = rx_and(s->rx, c->keys[i], keys);
        uint32_t out = keys == RX_ALL ? RX_EMPTY : rx_and(s->rx, c->keys[i], rx_not(s->rx, keys));
        uint32_t old = c->term[i];
        uint8_t old_meets = c->meets[i];
        if (!rx_live(s->rx, in))
            continue;
        c->keys[i] = in;
        c->term[i] = term_and2(s, old, term);
        c->meets[i] |= mark;
        if (out == RX_EMPTY || !rx_live(s->rx, out))
            continue;
        if (c->n == CLASSES_MAX) {
            schema_fail(s, GLM_ESCHEMA, s->root, "an object has too many overlapping patterns for its keys");
            return;
        }
        c->keys[c->n] = out;
        c->term[c->n] = old;
        c->meets[c->n++] = old_meets;
    }
}

static uint32_t key_language(struct schema *s, uint32_t on, uint32_t off)
{
    return off == RX_EMPTY ? on : rx_and(s->rx, on, rx_not(s->rx, off));
}

/* Classes of few keys become properties: so a run sees when they are used up. Texts of the language, depth first. */
#define FEW_KEYS 64u

static uint32_t list_keys(struct schema *s, uint32_t keys, struct property *to, uint32_t n)
{
    struct open {
        uint32_t node, size;
    } open[256];
    char text[128 * 4];
    uint32_t n_open = 1;
    struct rx *x = s->rx;
    char (*texts)[128] = schema_alloc(s, ARRAY_LEN(open), sizeof *texts);
    open[0] = (struct open){ keys, 0 };
    while (texts != NULL && n_open > 0 && !x->failed) {
        struct open at = open[--n_open];
        uint32_t n_move;
        memcpy(text, texts[n_open], at.size);
        if (x->node[at.node].nullable) {
            char *kept = schema_alloc(s, at.size + 1, 1);
            if (kept == NULL || n == FEW_KEYS)
                return RX_INF;
            memcpy(kept, text, at.size);
            to[n++] = (struct property){ { kept, at.size }, TERM_TRUE, false };
        }
        rx_moves(x, at.node, &n_move);
        for (uint32_t i = 0; i < n_move; i++) {
            struct rx_move m = x->move[x->node[at.node].moves + i];
            for (uint32_t c = m.lo; c <= m.hi && rx_live(x, m.to); c++) {
                char bytes[4];
                uint32_t size = utf8_encode(c, bytes);
                if (n_open == ARRAY_LEN(open) || at.size + size > sizeof texts[0])
                    return RX_INF;
                if (size == 0)
                    continue;
                memcpy(texts[n_open], text, at.size);
                memcpy(texts[n_open] + at.size, bytes, size);
                open[n_open++] = (struct open){ m.to, at.size + size };
            }
        }
    }
    return n;
}

static void find_classes(struct schema *s, const struct object_shape *o, struct classes *c)
{
    *c = (struct classes){ .n = 1, .keys = { RX_ALL }, .term = { TERM_TRUE } };
    for (uint32_t i = 0; i < o->n_each && !s->failed; i++)
        if (o->each[i].term != TERM_TRUE)
            split(s, c, key_language(s, o->each[i].on, o->each[i].off), o->each[i].term, 0);
    for (uint32_t i = 0; i < o->n_some && !s->failed; i++)
        split(s, c, key_language(s, o->some[i].on, o->some[i].off), TERM_TRUE, (uint8_t)(1u << i));
    uint32_t kept = 0;
    for (uint32_t i = 0; i < c->n; i++)
        if (c->term[i] != TERM_FALSE) {
            c->keys[kept] = c->keys[i];
            c->term[kept] = c->term[i];
            c->meets[kept++] = c->meets[i];
        }
    c->n = kept;
}

/* A key that is a property is told by its name first, so classes that go on for ever need not leave it out. */
static uint32_t without_keys(struct schema *s, const struct object_shape *o, uint32_t keys)
{
    uint32_t match = RX_EMPTY;
    if (keys == RX_ALL)
        return keys;
    for (uint32_t i = 0; i < o->n_property; i++)
        if (rx_match(s->rx, keys, o->property[i].name.text, o->property[i].name.size))
            match = rx_alt(s->rx, match, rx_text(s->rx, o->property[i].name.text, o->property[i].name.size));
    return match == RX_EMPTY ? keys : rx_and(s->rx, keys, rx_not(s->rx, match));
}

static void child(struct schema *s, uint32_t term)
{
    if (s->term[term].is_child == 0)
        s->term[term].is_child = 1;
}

static void set_variants(struct schema *s, struct object_shape *o, uint32_t i)
{
    for (uint32_t set = 0; set < 1u << o->n_some; set++) {
        uint32_t term = o->child[i];
        for (uint32_t k = 0; k < o->n_some; k++)
            if (set >> k & 1)
                term = term_and2(s, term, o->some[k].term);
        o->variant[i][set] = (set & ~(uint32_t)o->meets[i]) ? TERM_FALSE : term;
        child(s, o->variant[i][set]);
    }
}

static uint32_t key_index(const struct object_shape *o, const struct vocab_text *name)
{
    for (uint32_t i = 0; i < o->n_property; i++)
        if (order(&o->property[i].name, name) == 0)
            return i;
    return 0;
}

static void set_required(struct schema *s, struct object_shape *o)
{
    o->n_word = (o->n_key + 63) / 64;
    o->dead = schema_alloc(s, o->n_word, sizeof *o->dead);
    o->required = schema_alloc(s, o->n_word, sizeof *o->required);
    o->then = schema_alloc(s, o->n_implied, sizeof *o->then);
    if (s->failed)
        return;
    for (uint32_t i = 0; i < o->n_key; i++)
        if (o->property[i].required)
            o->required[i / 64] |= 1ull << i % 64;
    for (uint32_t i = 0; i < o->n_implied; i++) {
        o->then[i][0] = key_index(o, &o->implied[i].key);
        o->then[i][1] = key_index(o, &o->implied[i].then);
    }
    for (bool changed = true; changed;) { /* what is required with a required one */
        changed = false;
        for (uint32_t i = 0; i < o->n_implied; i++) {
            uint32_t a = o->then[i][0], b = o->then[i][1];
            if ((o->required[a / 64] >> a % 64 & 1) && !(o->required[b / 64] >> b % 64 & 1)) {
                o->required[b / 64] |= 1ull << b % 64;
                changed = true;
            }
        }
    }
}

/* true: properties were added. */
static bool name_few_keys(struct schema *s, struct object_shape *o, const struct classes *c)
{
    struct property more[FEW_KEYS];
    uint32_t n = 0;
    for (uint32_t i = 0; i < c->n && !s->failed; i++) {
        uint32_t keys = without_keys(s, o, c->keys[i]), with;
        if (keys == RX_ALL || rx_count(s->rx, keys, FEW_KEYS + 1 - n) > FEW_KEYS - n)
            continue;
        with = list_keys(s, keys, more, n);
        n = with == RX_INF ? n : with;
    }
    if (n == 0 || s->failed)
        return false;
    struct property *all = schema_alloc(s, (size_t)o->n_property + n, sizeof *all);
    if (all == NULL)
        return false;
    for (uint32_t i = 1; i < n; i++)
        for (uint32_t k = i; k > 0 && order(&more[k].name, &more[k - 1].name) < 0; k--) {
            struct property swap = more[k];
            more[k] = more[k - 1];
            more[k - 1] = swap;
        }
    for (uint32_t i = 0, a = 0, b = 0; i < o->n_property + n; i++)
        all[i] = b == n || (a < o->n_property && order(&o->property[a].name, &more[b].name) < 0) ? o->property[a++] : more[b++];
    o->property = all;
    o->n_property += n;
    return true;
}

static void finish(struct schema *s, struct object_shape *o)
{
    struct classes c;
    find_classes(s, o, &c);
    if (name_few_keys(s, o, &c)) { /* what is left of such a class is empty, and must not count as one */
        uint32_t kept = 0;
        for (uint32_t i = 0; i < c.n; i++)
            if (c.keys[i] == RX_ALL || rx_live(s->rx, without_keys(s, o, c.keys[i]))) {
                c.keys[kept] = c.keys[i];
                c.term[kept] = c.term[i];
                c.meets[kept++] = c.meets[i];
            }
        c.n = kept;
    }
    o->n_key = o->n_property;
    o->n_class = c.n;
    o->child = schema_alloc(s, (size_t)o->n_key + c.n, sizeof *o->child);
    o->class_keys = schema_alloc(s, c.n, sizeof *o->class_keys);
    o->meets = schema_alloc(s, (size_t)o->n_key + c.n, sizeof *o->meets);
    o->variant = o->n_some > 0 ? schema_alloc(s, (size_t)o->n_key + c.n, sizeof *o->variant) : NULL;
    set_required(s, o);
    for (uint32_t i = 0; i < o->n_key + c.n && !s->failed; i++) {
        o->child[i] = i < o->n_key ? object_child(s, o, &o->property[i]) : c.term[i - o->n_key];
        child(s, o->child[i]);
        if (i >= o->n_key) {
            o->class_keys[i - o->n_key] = without_keys(s, o, c.keys[i - o->n_key]);
            o->meets[i] = c.meets[i - o->n_key];
        }
        for (uint32_t k = 0; k < o->n_some && i < o->n_key; k++)
            if (concerns(s, o->some[k].on, o->some[k].off, o->some[k].declared, &o->property[i].name))
                o->meets[i] |= (uint8_t)(1u << k);
        if (o->n_some > 0 && !s->failed)
            set_variants(s, o, i);
    }
    for (uint32_t i = 0; i < c.n && !s->failed && (o->min > 0 || o->n_some > 0); i++) {
        uint32_t n = rx_count(s->rx, o->class_keys[i], 4096);
        o->class_count = n >= 4096 || o->class_count == COUNT_INF ? COUNT_INF : o->class_count + n;
    }
}

void object_finish(struct schema *s, uint32_t i)
{
    struct object_shape o = s->object[i];
    if (o.finished)
        return;
    if (o.n_property > 4096 || o.n_some > SOME_MAX || (o.n_some > 0 && o.max != COUNT_INF)) {
        schema_fail(s, GLM_ESCHEMA, s->root, "too many conditions on an object at once to be enforced exactly");
        return;
    }
    o.finished = true;
    s->object[i].finished = true; /* a cycle comes back here */
    finish(s, &o);
    s->object[i] = o;
}

/* Keys that cannot be taken: no value fits, or one that must come with them cannot be taken. */
static void find_dead(struct schema *s, struct object_shape *o)
{
    for (uint32_t i = 0; i < o->n_key; i++) {
        uint64_t bit = 1ull << i % 64;
        o->dead[i / 64] = s->term[o->child[i]].live ? o->dead[i / 64] & ~bit : o->dead[i / 64] | bit;
    }
    for (bool changed = true; changed;) {
        changed = false;
        for (uint32_t i = 0; i < o->n_implied; i++) {
            uint32_t a = o->then[i][0], b = o->then[i][1];
            if ((o->dead[b / 64] >> b % 64 & 1) && !(o->dead[a / 64] >> a % 64 & 1)) {
                o->dead[a / 64] |= 1ull << a % 64;
                changed = true;
            }
        }
    }
}

static bool some_possible(struct schema *s, const struct object_shape *o, uint32_t k)
{
    for (uint32_t i = 0; i < o->n_key + o->n_class; i++)
        if ((o->meets[i] >> k & 1) && s->term[o->variant[i][1u << k]].live)
            return true;
    return false;
}

bool object_live(struct schema *s, struct object_shape *o)
{
    uint64_t n_live = 0, n_required = 0;
    find_dead(s, o);
    for (uint32_t w = 0; w < o->n_word; w++)
        if (o->required[w] & o->dead[w])
            return false;
    for (uint32_t i = 0; i < o->n_key; i++) {
        n_live += !(o->dead[i / 64] >> i % 64 & 1);
        n_required += o->required[i / 64] >> i % 64 & 1;
    }
    for (uint32_t i = 0; i < o->n_class; i++)
        if (s->term[o->child[o->n_key + i]].live)
            n_live += o->class_count;
    for (uint32_t k = 0; k < o->n_some; k++)
        if (!some_possible(s, o, k))
            return false;
    return o->min <= o->max && n_required <= o->max && o->min <= n_live;
}

/* A key between tags is trimmed by whoever reads it, so it must not need that; nor may it be empty. */
static uint32_t trimmed_key(struct schema *s)
{
    static const char pattern[] = "[^ \\t\\r\\n\\v\\f](?:[^]*[^ \\t\\r\\n\\v\\f])?";
    uint32_t out;
    int32_t rc = rx_pattern(s->rx, pattern, sizeof pattern - 1, true, &out, s->err);
    if (rc)
        s->failed = rc;
    return out;
}

void object_ready(struct schema *s, struct object_shape *o)
{
    struct rx *x = s->rx;
    uint32_t other = RX_EMPTY;
    struct vocab_text *names = schema_alloc(s, o->n_key, sizeof *names);
    if (names == NULL || o->ready)
        return;
    o->ready = true;
    find_dead(s, o);
    for (uint32_t i = 0; i < o->n_key; i++)
        names[i] = o->property[i].name;
    for (uint32_t i = 0; i < o->n_class; i++)
        if (s->term[o->child[o->n_key + i]].live)
            other = rx_alt(x, other, rx_cat(x, o->class_keys[i], rx_label(x, o->n_key + i)));
    uint32_t space = rx_rep(x, rx_range(x, ' ', ' '), 0, 1), comma = rx_range(x, ',', ',');
    uint32_t trimmed = o->is_call && other != RX_EMPTY ? trimmed_key(s) : RX_ALL;
    rx_literals(x, names, o->n_key, true, RX_EMPTY);
    o->literals = x->n_literals - 1;
    for (uint32_t i = 0; i < 2; i++) {
        uint32_t keys = rx_keys(x, o->literals, 0, o->n_key, 0, i == 0 ? other : RX_EMPTY);
        uint32_t quoted = rx_cat(x, rx_range(x, '"', '"'), rx_key_rest(x, keys));
        o->raw[i] = rx_keys(x, o->literals, 0, o->n_key, 0, i == 0 ? rx_and(x, other, trimmed) : RX_EMPTY);
        o->first[i] = rx_cat(x, space, quoted);
        o->next[i] = rx_cat(x, comma, rx_cat(x, space, quoted));
    }
}
