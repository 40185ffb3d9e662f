/* schema_term.c: terms, each made once, and the walk that normalises all that can be reached from some of them. */
#include "place.h"
#include "schema.h"

#define NEST_MAX 28u
#define TERMS_MAX 60000u

/* ---- refusing --------------------------------------------------------------------------------------------------------- */

/* The JSON pointer of a value, found by descending to it from the root: only for errors. */
static void find_place(const struct json *root, const struct json *at, struct place *p)
{
    while (root != at) {
        const struct json *v = json_first(root);
        size_t i = 0;
        for (; v != NULL; v = json_next(root, v), i++) {
            const struct json *value = root->type == JSON_OBJECT ? v + 1 : v;
            if (at >= value && at < value + value->span)
                break;
        }
        if (v == NULL)
            return;
        if (root->type == JSON_ARRAY) {
            place_index(p, i);
            root = v;
            continue;
        }
        place_text(p, "/");
        for (size_t k = 0; k < v->size; k++) {
            char c[3] = { v->text[k], 0, 0 };
            place_text(p, c[0] == '~' ? "~0" : c[0] == '/' ? "~1" : c);
        }
        root = v + 1;
    }
}

void schema_fail(struct schema *s, int32_t code, const struct json *at, const char *reason)
{
    struct place p = { { 0 }, 0 };
    if (s->failed)
        return;
    s->failed = code;
    if (at != NULL && s->root != NULL)
        place_text(&p, s->prefix);
    if (at != NULL && s->root != NULL)
        find_place(s->root, at, &p);
    err_set(s->err, code, at != NULL ? at->offset : 0, p.text, "%s", reason);
}

uint32_t schema_refuse(struct schema *s, const struct json *at, const char *below, const char *reason)
{
    const struct json *v = json_get(at, below);
    schema_fail(s, GLM_ESCHEMA, v != NULL ? v : at, reason);
    return TERM_FALSE;
}

void *schema_alloc(struct schema *s, size_t n, size_t size)
{
    uint64_t bytes;
    void *p = NULL;
    if (!s->failed && ck_mul(n, size, &bytes) && (!s->rx->byte_max || s->rx->bytes + bytes <= s->rx->byte_max)) {
        p = arena_alloc(&s->arena, bytes > 0 ? (size_t)bytes : 1, 8);
        s->rx->bytes += bytes;
        if (p == NULL)
            schema_fail(s, GLM_ENOMEM, NULL, "out of memory for a schema");
        else
            memset(p, 0, (size_t)bytes);
    } else if (!s->failed) {
        schema_fail(s, GLM_ELIMIT, NULL, "the schema needs more memory than the limits of a grammar allow");
    }
    return p;
}

/* ---- making -------------------------------------------------------------------------------------------------------------- */

static uint32_t mix(uint32_t h, uint32_t v)
{
    h = (h ^ v) * 0x9E3779B1u;
    return h ^ h >> 15;
}

static uint32_t hash_term(const struct term *t)
{
    uint32_t h = mix(mix(t->kind, (uint32_t)((uintptr_t)t->at >> 3)), t->n_part);
    for (uint32_t i = 0; i < t->n_part; i++)
        h = mix(h, t->part[i]);
    return h;
}

static bool same_term(const struct term *a, const struct term *b)
{
    return a->kind == b->kind && a->at == b->at && a->n_part == b->n_part &&
        (a->n_part == 0 || !memcmp(a->part, b->part, a->n_part * sizeof *a->part));
}

static bool grow_hash(struct schema *s)
{
    uint32_t size = s->hash ? (s->hash_mask + 1) * 4 : 256, cap = 0, *hash = NULL;
    if (!rx_grow(s->rx, &hash, &cap, size, sizeof *hash))
        return false;
    memset(hash, 0, size * sizeof *hash);
    mem_free(s->mem, s->hash);
    s->hash = hash;
    s->hash_mask = size - 1;
    for (uint32_t i = 0; i < s->n_term; i++) {
        uint32_t slot = hash_term(&s->term[i]) & s->hash_mask;
        s->term[i].next = hash[slot];
        hash[slot] = i + 1;
    }
    return true;
}

static uint32_t intern(struct schema *s, struct term t)
{
    if (s->failed || (s->n_term >= (s->hash ? s->hash_mask + 1 : 0) && !grow_hash(s)))
        return TERM_FALSE;
    uint32_t slot = hash_term(&t) & s->hash_mask;
    for (uint32_t i = s->hash[slot]; i != 0; i = s->term[i - 1].next)
        if (same_term(&s->term[i - 1], &t))
            return i - 1;
    if (s->n_term >= TERMS_MAX) {
        schema_fail(s, GLM_ELIMIT, s->root, "the schema has too many combinations of subschemas");
        return TERM_FALSE;
    }
    if (!rx_grow(s->rx, &s->term, &s->term_cap, (uint64_t)s->n_term + 1, sizeof t))
        return TERM_FALSE;
    if (t.n_part > 0) {
        uint32_t *kept = schema_alloc(s, t.n_part, sizeof *kept);
        if (kept == NULL)
            return TERM_FALSE;
        memcpy(kept, t.part, t.n_part * sizeof *kept);
        t.part = kept;
    }
    t.next = s->hash[slot];
    s->term[s->n_term] = t;
    s->hash[slot] = ++s->n_term;
    return s->n_term - 1;
}

uint32_t term_place(struct schema *s, const struct json *at)
{
    if (at->type == JSON_TRUE || (at->type == JSON_OBJECT && at->count == 0))
        return TERM_TRUE;
    if (at->type == JSON_FALSE)
        return TERM_FALSE;
    return intern(s, (struct term){ .kind = TERM_KIND_PLACE, .at = at });
}

uint32_t term_const(struct schema *s, const struct json *value)
{
    return intern(s, (struct term){ .kind = TERM_KIND_CONST, .at = value });
}

/* Flat, sorted, each part once. `unit` has no effect, `zero` decides all. */
static uint32_t term_list(struct schema *s, enum term_kind kind, const uint32_t *part, uint32_t n, uint32_t unit, uint32_t zero)
{
    uint32_t list[256], k = 0;
    for (uint32_t i = 0; i < n; i++) {
        const struct term *t = &s->term[part[i]];
        const uint32_t *from = t->kind == kind ? t->part : &part[i];
        uint32_t count = t->kind == kind ? t->n_part : 1;
        for (uint32_t j = 0; j < count; j++) {
            uint32_t at = 0;
            if (from[j] == zero)
                return zero;
            while (at < k && list[at] < from[j])
                at++;
            if (from[j] == unit || (at < k && list[at] == from[j]))
                continue;
            if (k == ARRAY_LEN(list)) {
                schema_fail(s, GLM_ELIMIT, s->root, "the schema combines too many subschemas in one place");
                return TERM_FALSE;
            }
            memmove(list + at + 1, list + at, (k++ - at) * sizeof *list);
            list[at] = from[j];
        }
    }
    for (uint32_t i = 0; i < k; i++)
        for (uint32_t j = 0; j < k && s->term[list[i]].kind == TERM_KIND_NOT; j++)
            if (list[j] == s->term[list[i]].part[0])
                return zero;
    if (k <= 1)
        return k == 0 ? unit : list[0];
    return intern(s, (struct term){ .kind = (uint8_t)kind, .part = list, .n_part = k });
}

uint32_t term_and(struct schema *s, const uint32_t *part, uint32_t n)
{
    return term_list(s, TERM_KIND_AND, part, n, TERM_TRUE, TERM_FALSE);
}

uint32_t term_or(struct schema *s, const uint32_t *part, uint32_t n)
{
    return term_list(s, TERM_KIND_OR, part, n, TERM_FALSE, TERM_TRUE);
}

uint32_t term_and2(struct schema *s, uint32_t a, uint32_t b)
{
    uint32_t both[2] = { a, b };
    return a == b || b == TERM_TRUE ? a : a == TERM_TRUE ? b : term_and(s, both, 2);
}

uint32_t term_not(struct schema *s, uint32_t a)
{
    if (a <= TERM_TRUE)
        return a == TERM_TRUE ? TERM_FALSE : TERM_TRUE;
    if (s->term[a].kind == TERM_KIND_NOT)
        return s->term[a].part[0];
    return intern(s, (struct term){ .kind = TERM_KIND_NOT, .part = &a, .n_part = 1 });
}

/* ---- normalising ------------------------------------------------------------------------------------------------------------ */

static struct norm combine(struct schema *s, struct term t)
{
    struct norm out = t.kind == TERM_KIND_AND ? norm_any(s) : norm_none();
    for (uint32_t i = 0; i < t.n_part && !s->failed; i++) {
        const struct norm *n = term_norm(s, t.part[i]);
        if (n == NULL)
            break;
        struct norm part = *n;
        if (t.kind == TERM_KIND_NOT)
            out = norm_not(s, &part, NULL);
        else
            out = t.kind == TERM_KIND_AND ? norm_and(s, &out, &part, NULL) : norm_or(s, &out, &part, NULL);
    }
    return out;
}

const struct norm *term_norm(struct schema *s, uint32_t term)
{
    struct term t = s->term[term];
    if (s->failed)
        return NULL;
    if (t.state == TERM_DONE)
        return &s->term[term].norm;
    if (t.state == TERM_BUSY) {
        schema_fail(s, GLM_ESCHEMA, t.at, "the schema refers to itself without an object or array in between");
        return NULL;
    }
    if (++s->depth > NEST_MAX) {
        schema_fail(s, GLM_ELIMIT, t.at, "subschemas of one value are nested too deep");
        return NULL;
    }
    s->term[term].state = TERM_BUSY;
    s->term[term].begun = s->depth;
    switch (t.kind) {
    case TERM_KIND_FALSE: t.norm = norm_none(); break;
    case TERM_KIND_TRUE: t.norm = norm_any(s); break;
    case TERM_KIND_PLACE: t.norm = schema_read(s, t.at); break;
    case TERM_KIND_CONST: t.norm = schema_read_const(s, t.at); break;
    default: t.norm = combine(s, t); break;
    }
    s->depth--;
    if (s->rx->failed && !s->failed)
        s->failed = rx_check(s->rx, NULL, s->err);
    if (s->failed)
        return NULL;
    s->term[term].norm = t.norm;
    s->term[term].state = TERM_DONE;
    return &s->term[term].norm;
}

/* A glance at a member that an object must have: whether alternatives exclude each other mostly shows there. What fails in it
 * does not count: the term may never be needed. */
bool term_is_none(struct schema *s, uint32_t term)
{
    bool none = false;
    if (term == TERM_FALSE || s->failed)
        return term == TERM_FALSE;
    if (s->term[term].state == TERM_DONE)
        return norm_is_none(s, &s->term[term].norm);
    if (s->term[term].state == TERM_BUSY || s->quick >= 3 || s->depth > NEST_MAX / 2)
        return false;
    glm_error ignored = GLM_ERROR_INIT, *err = s->err;
    uint32_t depth = s->depth;
    s->quick++;
    s->err = &ignored;
    const struct norm *n = term_norm(s, term);
    none = n != NULL && norm_is_none(s, n);
    s->quick--;
    s->err = err;
    if (s->failed == GLM_ESCHEMA) {
        s->failed = 0;
        for (uint32_t i = 0; i < s->n_term; i++) /* what this glance had begun is taken up again where it is needed */
            if (s->term[i].state == TERM_BUSY && s->term[i].begun > depth)
                s->term[i].state = TERM_NEW;
    } else if (s->failed && err != NULL) {
        *err = ignored;
    }
    s->depth = depth;
    return none;
}

/* ---- all of it --------------------------------------------------------------------------------------------------------------- */

int32_t schema_open(struct schema *s, struct mem *m, struct rx *x, glm_error *err)
{
    *s = (struct schema){ .mem = m, .rx = x, .err = err };
    arena_init(&s->arena, m);
    intern(s, (struct term){ .kind = TERM_KIND_FALSE, .state = TERM_NEW });
    intern(s, (struct term){ .kind = TERM_KIND_TRUE });
    struct object_shape any_object = { .max = COUNT_INF };
    struct array_shape any_array = { .rest = TERM_TRUE, .max = COUNT_INF };
    object_add(s, &any_object);
    array_add(s, &any_array);
    if (x->failed && !s->failed)
        s->failed = rx_check(x, NULL, err);
    return s->failed;
}

void schema_close(struct schema *s)
{
    if (s->mem == NULL)
        return;
    mem_free(s->mem, s->term);
    mem_free(s->mem, s->object);
    mem_free(s->mem, s->array);
    mem_free(s->mem, s->hash);
    mem_free(s->mem, s->id);
    arena_free(&s->arena);
}

static void reach(struct schema *s, uint32_t term)
{
    const struct norm *n = term_norm(s, term);
    if (n == NULL)
        return;
    struct norm norm = *n;
    for (uint32_t i = 0; i < norm.n_object && !s->failed; i++)
        object_finish(s, norm.object[i]);
    for (uint32_t i = 0; i < norm.n_array && !s->failed; i++)
        array_finish(s, norm.array[i]);
}

/* Whether any value fits: a least fixed point, since an object may demand a member of its own kind. */
static bool term_live(struct schema *s, const struct term *t)
{
    if (t->norm.words || rx_live(s->rx, t->norm.string) || rx_live(s->rx, t->norm.number))
        return true;
    for (uint32_t i = 0; i < t->norm.n_object; i++)
        if (s->object[t->norm.object[i]].live)
            return true;
    for (uint32_t i = 0; i < t->norm.n_array; i++)
        if (s->array[t->norm.array[i]].live)
            return true;
    return false;
}

static void find_live(struct schema *s)
{
    for (bool changed = true; changed && !s->failed;) {
        changed = false;
        for (uint32_t i = 0; i < s->n_object; i++)
            if (s->object[i].finished && !s->object[i].live && object_live(s, &s->object[i]))
                s->object[i].live = changed = true;
        for (uint32_t i = 0; i < s->n_array; i++)
            if (s->array[i].finished && !s->array[i].live && array_feasible(s, &s->array[i], 0, 0))
                s->array[i].live = changed = true;
        for (uint32_t i = 0; i < s->n_term; i++)
            if (s->term[i].state == TERM_DONE && !s->term[i].live && term_live(s, &s->term[i]))
                changed = true, s->term[i].live = 1;
    }
}

/* object_finish and array_finish mark the terms of values by is_child. */
int32_t schema_finish(struct schema *s, const uint32_t *roots, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        s->term[roots[i]].is_child = 1;
    for (uint32_t i = 0, changed = 1; changed && !s->failed;) {
        changed = 0;
        for (i = 0; i < s->n_term && !s->failed; i++)
            if (s->term[i].is_child == 1) {
                s->term[i].is_child = 2;
                changed = 1;
                reach(s, i);
            }
    }
    if (!s->failed)
        find_live(s);
    for (uint32_t i = 0; i < s->n_object && !s->failed; i++)
        if (s->object[i].finished && s->object[i].live)
            object_ready(s, &s->object[i]);
    if (s->rx->failed && !s->failed)
        s->failed = rx_check(s->rx, NULL, s->err);
    return s->failed;
}
