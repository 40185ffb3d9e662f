/* schema_ref.c: what references mean: $id and $anchor are collected once with the base they stand under, and references are
 * resolved against them (RFC 3986, section 5). Only what lies in the document can be meant.
 */
#include "schema.h"

#include <string.h>

#define URI_MAX 2048u
#define IDS_MAX 4096u

struct schema_id {
    const char *uri; /* without a fragment; anchors: with it */
    size_t size;
    const struct json *at;
    bool is_anchor;
};

struct uri {
    char text[URI_MAX];
    size_t size;
};

/* ---- joining --------------------------------------------------------------------------------------------------------- */

static size_t scheme_size(const char *t, size_t n)
{
    size_t i = 0;
    while (i < n && ((t[i] | 32) >= 'a' && (t[i] | 32) <= 'z' ? true : i > 0 && (strchr("+-.0123456789", t[i]) && t[i])))
        i++;
    return i > 0 && i < n && t[i] == ':' ? i + 1 : 0;
}

static size_t authority_end(const char *t, size_t n)
{
    size_t i = scheme_size(t, n);
    if (n - i >= 2 && t[i] == '/' && t[i + 1] == '/')
        for (i += 2; i < n && t[i] != '/' && t[i] != '?'; i++) {}
    return i;
}

static void put(struct uri *u, const char *t, size_t n)
{
    if (n > sizeof u->text - u->size)
        n = sizeof u->text - u->size;
    memcpy(u->text + u->size, t, n);
    u->size += n;
}

/* Takes "." and ".." out of the path that begins at `from`. */
static void remove_dots(struct uri *u, size_t from)
{
    size_t o = from, i = from;
    while (i < u->size && u->text[i] != '?') {
        size_t end = i + (u->text[i] == '/');
        while (end < u->size && u->text[end] != '/' && u->text[end] != '?')
            end++;
        const char *part = u->text + i + (u->text[i] == '/');
        size_t n = (size_t)(u->text + end - part);
        if (n == 2 && !memcmp(part, "..", 2)) {
            while (o > from && u->text[--o] != '/') {}
        } else if (n != 1 || part[0] != '.') {
            memmove(u->text + o, u->text + i, end - i);
            o += end - i;
        }
        i = end;
    }
    memmove(u->text + o, u->text + i, u->size - i);
    u->size = o + u->size - i;
}

static void join(struct uri *u, const char *base, size_t n_base, const char *ref, size_t n)
{
    size_t root = authority_end(base, n_base), end = n_base;
    u->size = 0;
    if (n == 0) {
        put(u, base, n_base);
        return;
    }
    if (scheme_size(ref, n) > 0) {
        put(u, ref, n);
        return;
    }
    if (n >= 2 && ref[0] == '/' && ref[1] == '/') {
        put(u, base, scheme_size(base, n_base));
    } else if (ref[0] == '/') {
        put(u, base, root);
    } else {
        const char *query = memchr(base, '?', n_base);
        end = query != NULL ? (size_t)(query - base) : n_base;
        while (ref[0] != '?' && end > root && base[end - 1] != '/')
            end--;
        put(u, base, end);
    }
    put(u, ref, n);
    remove_dots(u, authority_end(u->text, u->size));
}

/* ---- collecting ------------------------------------------------------------------------------------------------------- */

static void add(struct schema *s, const struct uri *u, const struct json *at, bool is_anchor)
{
    if (s->n_id >= IDS_MAX)
        schema_fail(s, GLM_ELIMIT, at, "the schema has too many identifiers");
    if (s->failed || !rx_grow(s->rx, &s->id, &s->id_cap, (uint64_t)s->n_id + 1, sizeof *s->id))
        return;
    char *kept = schema_alloc(s, u->size + 1, 1);
    if (kept == NULL)
        return;
    memcpy(kept, u->text, u->size);
    s->id[s->n_id++] = (struct schema_id){ kept, u->size, at, is_anchor };
}

static void add_anchor(struct schema *s, uint32_t base, const char *name, size_t size, const struct json *at)
{
    struct uri u = { .size = 0 };
    put(&u, s->id[base].uri, s->id[base].size);
    put(&u, "#", 1);
    put(&u, name, size);
    add(s, &u, at, true);
}

/* The base below `at`, which stands under `base`: its own, if it has an $id. */
static uint32_t enter(struct schema *s, const struct json *at, uint32_t base)
{
    const struct json *id = json_get(at, "$id"), *anchor = json_get(at, "$anchor");
    if (id == NULL && !s->is_new && at == s->root)
        id = json_get(at, "id");
    if (s->is_old && json_get(at, "$ref") != NULL && at != s->root)
        id = NULL; /* $ref stands alone there */
    if (id != NULL && id->type == JSON_STRING) {
        const char *hash = memchr(id->text, '#', id->size);
        size_t n = hash != NULL ? (size_t)(hash - id->text) : id->size;
        struct uri u;
        if (n > 0) {
            join(&u, s->id[base].uri, s->id[base].size, id->text, n);
            add(s, &u, at, false);
            base = s->failed ? base : s->n_id - 1;
        }
        if (hash != NULL && hash + 1 < id->text + id->size && !s->failed)
            add_anchor(s, base, hash + 1, (size_t)(id->text + id->size - hash - 1), at);
    }
    if (anchor != NULL && anchor->type == JSON_STRING && !s->failed)
        add_anchor(s, base, anchor->text, anchor->size, at);
    return base;
}

static bool is_map(const struct json *key)
{
    static const char *const maps[] = { "properties", "patternProperties", "$defs", "definitions", "dependentSchemas",
        "dependencies" };
    for (size_t i = 0; i < ARRAY_LEN(maps); i++)
        if (json_is_text(key, maps[i]))
            return true;
    return false;
}

static void collect(struct schema *s)
{
    struct open {
        const struct json *in, *next;
        uint32_t base;
        bool map;
    } open[JSON_DEPTH_MAX - 8]; /* no schema that deep can be enforced */
    uint32_t n = 1;
    open[0] = (struct open){ s->root, json_first(s->root), enter(s, s->root, 0), false };
    while (n > 0 && !s->failed) {
        struct open *o = &open[n - 1];
        const struct json *v = o->next;
        if (v == NULL) {
            n--;
            continue;
        }
        o->next = json_next(o->in, v);
        bool member = o->in->type == JSON_OBJECT;
        const struct json *value = member ? v + 1 : v;
        if ((value->type != JSON_OBJECT && value->type != JSON_ARRAY) || n == ARRAY_LEN(open))
            continue;
        if (member && !o->map && (json_is_text(v, "enum") || json_is_text(v, "const")))
            continue;
        bool map = member && !o->map && is_map(v);
        uint32_t base = value->type == JSON_OBJECT && !map ? enter(s, value, o->base) : o->base;
        open[n++] = (struct open){ value, json_first(value), base, map };
    }
}

static bool says(const struct json *v, const char *what)
{
    return v != NULL && v->type == JSON_STRING && strstr(v->text, what) != NULL;
}

int32_t schema_document(struct schema *s, const struct json *root)
{
    const struct json *dialect = json_get(root, "$schema");
    struct uri none = { .size = 0 };
    s->root = root;
    s->is_oldest = says(dialect, "draft-03") || says(dialect, "draft-04");
    s->is_old = s->is_oldest || says(dialect, "draft-05") ||
        says(dialect, "draft-06") || says(dialect, "draft-07");
    s->is_new = says(dialect, "2019-09") || says(dialect, "2020-12");
    s->n_id = 0;
    add(s, &none, root, false);
    if (!s->failed)
        collect(s);
    return s->failed;
}

/* ---- resolving ----------------------------------------------------------------------------------------------------------- */

/* The innermost identified schema that `at` lies in. */
static uint32_t base_of(const struct schema *s, const struct json *at)
{
    uint32_t best = 0;
    for (uint32_t i = 0; i < s->n_id; i++) {
        const struct json *in = s->id[i].at;
        if (!s->id[i].is_anchor && at >= in && at < in + in->span && in >= s->id[best].at)
            best = i;
    }
    return best;
}

static const struct json *find(const struct schema *s, const struct uri *u, bool is_anchor)
{
    for (uint32_t i = 0; i < s->n_id; i++)
        if (s->id[i].is_anchor == is_anchor && s->id[i].size == u->size && !memcmp(s->id[i].uri, u->text, u->size))
            return s->id[i].at;
    return NULL;
}

static uint32_t hex(char c)
{
    return c >= '0' && c <= '9' ? (uint32_t)(c - '0') : (c | 32) >= 'a' && (c | 32) <= 'f' ? (uint32_t)((c | 32) - 'a') + 10 : 16;
}

/* One token of a pointer: percent signs, then tildes are undone. */
static size_t token(const char *t, size_t n, char *out)
{
    size_t o = 0;
    for (size_t i = 0; i < n; i++) {
        char c = t[i];
        if (c == '%' && i + 2 < n && hex(t[i + 1]) < 16 && hex(t[i + 2]) < 16) {
            c = (char)(hex(t[i + 1]) << 4 | hex(t[i + 2]));
            i += 2;
        }
        if (c == '~' && i + 1 < n && (t[i + 1] == '0' || t[i + 1] == '1'))
            c = t[++i] == '0' ? '~' : '/';
        out[o++] = c;
    }
    return o;
}

static const struct json *step(const struct json *v, const char *t, size_t n)
{
    size_t index = 0;
    for (size_t i = 0; i < n && v->type == JSON_ARRAY; i++) {
        if (t[i] < '0' || t[i] > '9' || index > UINT32_MAX)
            return NULL;
        index = index * 10 + (size_t)(t[i] - '0');
    }
    for (const struct json *at = json_first(v); at; at = json_next(v, at)) {
        if (v->type == JSON_ARRAY && index-- == 0)
            return at;
        if (v->type == JSON_OBJECT && at->size == n && (n == 0 || !memcmp(at->text, t, n)))
            return at + 1;
    }
    return NULL;
}

static const struct json *follow(const struct json *v, const char *t, size_t n)
{
    char name[URI_MAX];
    while (v != NULL && n > 0) {
        const char *end = memchr(t + 1, '/', n - 1);
        size_t size = end != NULL ? (size_t)(end - t) - 1 : n - 1;
        if (t[0] != '/' || size > sizeof name)
            return NULL;
        size_t decoded = token(t + 1, size, name);
        v = step(v, name, decoded);
        t += size + 1;
        n -= size + 1;
    }
    return v;
}

const struct json *schema_resolve(struct schema *s, const struct json *at, const struct json *ref)
{
    const struct json *target = NULL;
    struct uri u;
    if (ref->type != JSON_STRING || ref->size >= URI_MAX / 2) {
        schema_fail(s, GLM_ESCHEMA, ref, "a reference is a string");
        return NULL;
    }
    const struct schema_id *base = &s->id[base_of(s, at)];
    const char *hash = memchr(ref->text, '#', ref->size);
    size_t n = hash != NULL ? (size_t)(hash - ref->text) : ref->size;
    size_t n_fragment = hash != NULL ? ref->size - n - 1 : 0;
    join(&u, base->uri, base->size, ref->text, n);
    if (n_fragment == 0 || hash[1] == '/') {
        target = n == 0 ? base->at : find(s, &u, false);
        if (target != NULL && n_fragment > 0)
            target = follow(target, hash + 1, n_fragment);
    } else {
        put(&u, hash, n_fragment + 1);
        target = find(s, &u, true);
    }
    if (target == NULL)
        schema_fail(s, GLM_ESCHEMA, ref, "the reference leads to nothing in this document");
    return target;
}
