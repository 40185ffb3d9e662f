/* json_dom.c: a parsed document as one flat array of values, and asking it. The document is read
 * twice: once to check it and count, once to fill, so that it is exactly two blocks in its arena,
 * which live until json_free. */
#include "base.h"
#include "base_int.h"

#include <string.h>

/* ---- parsing --------------------------------------------------------------------------------- */

struct counts {
    uint64_t n_value, n_text; /* values; bytes of their texts with a NUL each */
    uint32_t n_member;        /* of the largest object */
};

/* Reads and checks the whole document. */
static int32_t count_values(struct json_reader *r, struct counts *n, glm_error *err)
{
    for (;;) {
        enum json_event event = json_reader_next(r, err);
        if (event == JSON_EV_ERROR)
            return err->code;
        if (event == JSON_EV_END)
            break;
        if (event == JSON_EV_CLOSE)
            continue;
        n->n_value++;
        if (r->value.type == JSON_STRING || r->value.type == JSON_NUMBER)
            n->n_text += (uint64_t)r->value.size + 1;
    }
    if (n->n_value > UINT32_MAX)
        return err_set(
            err, GLM_ELIMIT, 0, r->where, "the JSON document has more than 4 billion values");
    return GLM_OK;
}

/* The second reading; it fails only for want of scratch. */
static int32_t fill_values(
    struct json_reader *r, struct json *values, char *text, struct counts *n, glm_error *err)
{
    uint32_t open[JSON_DEPTH_MAX], at = 0, depth = 0;

    for (;;) {
        enum json_event event = json_reader_next(r, err);
        struct json *v;

        if (event == JSON_EV_ERROR)
            return err->code;
        if (event == JSON_EV_END)
            return GLM_OK;
        if (event == JSON_EV_CLOSE) {
            v = &values[open[--depth]];
            v->span = at - open[depth];
            if (v->type == JSON_OBJECT && v->count > n->n_member)
                n->n_member = v->count;
            continue;
        }
        if (depth) { /* a member counts once, at its key */
            v = &values[open[depth - 1]];
            v->count += v->type == JSON_ARRAY || event == JSON_EV_KEY;
        }
        v = &values[at];
        *v = r->value;
        if (v->type == JSON_STRING || v->type == JSON_NUMBER) {
            memcpy(text, v->text, v->size);
            text[v->size] = 0;
            v->text = text;
            text += (size_t)v->size + 1;
        } else {
            v->text = "";
            v->size = 0;
        }
        if (event == JSON_EV_OPEN)
            open[depth++] = at;
        at++;
    }
}

/* ---- duplicate keys -------------------------------------------------------------------------- */

static bool same_text(const struct json *a, const struct json *b)
{
    return a->size == b->size && !memcmp(a->text, b->text, a->size);
}

static bool less(const struct json *a, const struct json *b)
{
    if (a->size != b->size)
        return a->size < b->size;
    return memcmp(a->text, b->text, a->size) < 0;
}

/* A bottom-up merge sort: stable, never worse than n log n on hostile keys, no recursion. Returns
 * where the sorted keys are: in keys or in spare. */
static const struct json **sort_keys(const struct json **keys, const struct json **spare, size_t n)
{
    for (size_t width = 1; width < n; width *= 2) {
        const struct json **swap;
        for (size_t start = 0; start < n; start += 2 * width) {
            size_t a = start, mid = start + width < n ? start + width : n, b = mid;
            size_t end = n - start > 2 * width ? start + 2 * width : n;
            for (size_t to = start; to < end; to++)
                spare[to] =
                    a < mid && (b == end || !less(keys[b], keys[a])) ? keys[a++] : keys[b++];
        }
        swap = keys;
        keys = spare;
        spare = swap;
    }
    return keys;
}

/* The first key of the object that repeats an earlier one, or NULL. room holds twice the members.
 */
static const struct json *find_duplicate(const struct json *object, const struct json **room)
{
    const struct json *found = NULL;
    size_t n = 0;

    for (const struct json *k = json_first(object); k; k = json_next(object, k))
        room[n++] = k;
    room = sort_keys(room, room + n, n);
    for (size_t i = 1; i < n; i++)
        if (same_text(room[i - 1], room[i]) && (!found || room[i] < found))
            found = room[i];
    return found;
}

static int32_t refuse_duplicates(
    struct mem *m, const struct json_doc *doc, uint32_t n_member, const char *where, glm_error *err)
{
    const struct json **room, *found = NULL;

    if (n_member < 2)
        return GLM_OK;
    room = mem_array(m, n_member, 2 * sizeof *room);
    if (!room)
        return err_nomem(err, "the keys of a JSON object");
    for (size_t i = 0; i < doc->n_value && !found; i++)
        if (doc->root[i].type == JSON_OBJECT && doc->root[i].count > 1)
            found = find_duplicate(&doc->root[i], room);
    mem_free(m, room);
    if (!found)
        return GLM_OK;
    return err_set(err, GLM_EFORMAT, found->offset, where,
        "the JSON key \"%s\" appears twice in one object (byte %llu)", found->text,
        (unsigned long long)found->offset);
}

int32_t json_parse(struct mem *m, const char *text, size_t size, uint32_t flags, const char *where,
    struct json_doc *doc, glm_error *err)
{
    struct json_reader r;
    struct json_doc d = {{m, NULL}, NULL, 0};
    struct counts n = {0, 0, 0};
    glm_error own = GLM_ERROR_INIT;
    struct json *values = NULL;
    char *texts = NULL;
    size_t bytes;
    int32_t status;

    if (!err)
        err = &own;
    memset(doc, 0, sizeof *doc);
    json_reader_init(&r, m, text, size, where);
    status = count_values(&r, &n, err);
    json_reader_free(&r);
    if (status)
        return status;
    if (n.n_value <= PTRDIFF_MAX / sizeof *values)
        values = arena_alloc(&d.arena, (size_t)n.n_value * sizeof *values, sizeof(void *));
    if (values && ck_size(n.n_text, &bytes))
        texts = arena_alloc(&d.arena, bytes, 1);
    if (!texts) {
        status = err_nomem(err, "a JSON document");
        goto fail;
    }
    d.root = values;
    d.n_value = (size_t)n.n_value;
    json_reader_init(&r, m, text, size, where);
    status = fill_values(&r, values, texts, &n, err);
    json_reader_free(&r);
    if (!status && (flags & JSON_REFUSE_DUPLICATES))
        status = refuse_duplicates(m, &d, n.n_member, where, err);
    if (status)
        goto fail;
    *doc = d;
    return GLM_OK;
fail:
    arena_free(&d.arena);
    return status;
}

void json_free(struct json_doc *doc)
{
    arena_free(&doc->arena);
    doc->root = NULL;
    doc->n_value = 0;
}

/* ---- asking ---------------------------------------------------------------------------------- */

const struct json *json_first(const struct json *container)
{
    if (!container || (container->type != JSON_ARRAY && container->type != JSON_OBJECT) ||
        !container->count)
        return NULL;
    return container + 1;
}

const struct json *json_next(const struct json *container, const struct json *v)
{
    if (container->type == JSON_OBJECT)
        v++; /* from the key to its value */
    v += v->span;
    return v < container + container->span ? v : NULL;
}

/* The last member of that key: its key, or NULL. */
static const struct json *find_key(const struct json *object, const char *key, size_t size)
{
    const struct json *found = NULL;

    for (const struct json *k = json_first(object); k; k = json_next(object, k))
        if (k->size == size && !memcmp(k->text, key, size))
            found = k;
    return found;
}

const struct json *json_get(const struct json *object, const char *key)
{
    const struct json *k;

    if (!object || object->type != JSON_OBJECT)
        return NULL;
    k = find_key(object, key, strlen(key));
    return k ? k + 1 : NULL;
}

bool json_is_text(const struct json *v, const char *text)
{
    size_t size = strlen(text);
    return v && v->type == JSON_STRING && v->size == size && !memcmp(v->text, text, size);
}

bool json_bool(const struct json *v, bool *out)
{
    if (!v || (v->type != JSON_TRUE && v->type != JSON_FALSE))
        return false;
    *out = v->type == JSON_TRUE;
    return true;
}

/* ---- equality -------------------------------------------------------------------------------- */

/* Members that count: of several with one key, the last. */
static uint32_t count_distinct(const struct json *object)
{
    uint32_t n = 0;

    for (const struct json *k = json_first(object); k; k = json_next(object, k))
        n += find_key(object, k->text, k->size) == k;
    return n;
}

/* Two values without what they contain. */
static bool same_head(const struct json *a, const struct json *b)
{
    if (a->type != b->type)
        return false;
    switch (a->type) {
    case JSON_NUMBER: return decimal_equal(a, b);
    case JSON_STRING: return same_text(a, b);
    case JSON_ARRAY: return a->count == b->count;
    case JSON_OBJECT: return count_distinct(a) == count_distinct(b);
    default: return true;
    }
}

/* The container of a that is being walked, its counterpart in b, and where the walks stand; as
 * distances from the roots, to keep the stack small. */
struct level {
    uint32_t a, b, at_a, at_b;
};

/* The next pair of values to compare under a level; false: the level is done. *b is NULL where b
 * has no such member. */
static bool next_pair(struct level *l, const struct json *root_a, const struct json *root_b,
    const struct json **a, const struct json **b)
{
    const struct json *in_a = root_a + l->a, *in_b = root_b + l->b, *k;

    for (;;) {
        const struct json *at = l->at_a ? json_next(in_a, root_a + l->at_a) : json_first(in_a);
        if (!at)
            return false;
        l->at_a = (uint32_t)(at - root_a);
        if (in_a->type == JSON_ARRAY) {
            k = l->at_b ? json_next(in_b, root_b + l->at_b) : json_first(in_b);
            l->at_b = (uint32_t)(k - root_b);
            *a = at;
            *b = k;
            return true;
        }
        if (find_key(in_a, at->text, at->size) != at)
            continue; /* a later member of the same key counts instead */
        k = find_key(in_b, at->text, at->size);
        *a = at + 1;
        *b = k ? k + 1 : NULL;
        return true;
    }
}

/* Members are looked up one by one: quadratic in the members of an object, meant for schemas and
 * arguments. */
bool json_equal(const struct json *a, const struct json *b)
{
    struct level stack[JSON_DEPTH_MAX];
    const struct json *va = a, *vb = b;
    uint32_t depth = 0;

    for (;;) {
        if (!vb || !same_head(va, vb))
            return false;
        if (va->type == JSON_ARRAY || va->type == JSON_OBJECT)
            stack[depth++] = (struct level){(uint32_t)(va - a), (uint32_t)(vb - b), 0, 0};
        while (depth && !next_pair(&stack[depth - 1], a, b, &va, &vb))
            depth--;
        if (!depth)
            return true;
    }
}
