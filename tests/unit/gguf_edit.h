/* gguf_edit.h: for tests: takes a GGUF file apart, notes where every count, length and type number
 * stands, and puts it together again after changes. Written from the format's description, not from
 * lib/io, so that it can judge it.
 */
#ifndef TEST_GGUF_EDIT_H
#define TEST_GGUF_EDIT_H

#include "io_files.h"

struct ge_kv {
    char key[128];
    uint32_t type;
    const uint8_t *value; /* everything behind the type */
    size_t size;
};

struct ge_tensor {
    char name[128];
    uint32_t n_dim, type;
    uint64_t ne[4]; /* innermost first, as in the file */
    uint64_t offset;
    const uint8_t *data;
    size_t size;
};

struct ge_field {
    size_t at;
    unsigned width;
    const char *what;
    size_t i; /* which key or tensor */
};

struct ge {
    struct ge_kv kv[80];
    size_t n_kv;
    struct ge_tensor tensor[128];
    size_t n_tensor;
    struct ge_field field[2048];
    size_t n_field;
    size_t meta_end, data_start;
    uint8_t *kept[64]; /* bytes that changes point to */
    size_t n_kept;
};

struct ge_reader {
    struct ge *g;
    const uint8_t *p;
    size_t size, pos;
    bool note;
};

static uint64_t ge_take(struct ge_reader *r, unsigned width, const char *what, size_t i)
{
    uint64_t v = 0;
    if (r->pos + width > r->size) /* ck_assert writes to a file each time */
        ck_abort_msg("the file to take apart is cut short");
    if (what != NULL && r->note && r->g->n_field < ARRAY_LEN(r->g->field))
        r->g->field[r->g->n_field++] = (struct ge_field){r->pos, width, what, i};
    memcpy(&v, r->p + r->pos, width);
    r->pos += width;
    return v;
}

static void ge_skip_value(struct ge_reader *r, uint32_t type, size_t i)
{
    static const uint8_t bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    if (type >= ARRAY_LEN(bytes))
        ck_abort_msg("type %u", type);
    if (type == 8) {
        r->pos += ge_take(r, 8, "length of a string", i);
    } else if (type == 9) {
        uint32_t element = (uint32_t)ge_take(r, 4, "type of an array's elements", i);
        uint64_t n = ge_take(r, 8, "count of an array", i);
        for (uint64_t k = 0; k < n; k++) {
            r->note = k < 3 || k + 1 == n; /* a vocabulary's strings are all alike */
            ge_skip_value(r, element, i);
        }
        r->note = true;
    } else {
        r->pos += bytes[type];
    }
}

static void ge_parse(struct ge *g, const uint8_t *bytes, size_t size)
{
    struct ge_reader r = {g, bytes, size, 0, true};
    memset(g, 0, sizeof *g);
    ck_assert_int_eq(memcmp(bytes, "GGUF", 4), 0);
    r.pos = 4;
    ge_take(&r, 4, "version", 0);
    g->n_tensor = ge_take(&r, 8, "count of tensors", 0);
    g->n_kv = ge_take(&r, 8, "count of keys", 0);
    ck_assert(g->n_tensor <= ARRAY_LEN(g->tensor) && g->n_kv <= ARRAY_LEN(g->kv));
    for (size_t i = 0; i < g->n_kv; i++) {
        struct ge_kv *kv = &g->kv[i];
        size_t n = ge_take(&r, 8, "length of a key", i);
        ck_assert(n < sizeof kv->key);
        memcpy(kv->key, bytes + r.pos, n);
        r.pos += n;
        kv->type = (uint32_t)ge_take(&r, 4, "type of a value", i);
        kv->value = bytes + r.pos;
        ge_skip_value(&r, kv->type, i);
        kv->size = (size_t)(bytes + r.pos - kv->value);
    }
    for (size_t i = 0; i < g->n_tensor; i++) {
        struct ge_tensor *t = &g->tensor[i];
        size_t n = ge_take(&r, 8, "length of a tensor's name", i);
        ck_assert(n < sizeof t->name);
        memcpy(t->name, bytes + r.pos, n);
        r.pos += n;
        t->n_dim = (uint32_t)ge_take(&r, 4, "count of dimensions", i);
        for (uint32_t d = 0; d < t->n_dim; d++)
            t->ne[d] = ge_take(&r, 8, "dimension", i);
        t->type = (uint32_t)ge_take(&r, 4, "type of a tensor", i);
        t->offset = ge_take(&r, 8, "offset of a tensor", i);
    }
    g->meta_end = r.pos;
    g->data_start = (r.pos + 31) / 32 * 32;
    for (size_t i = 0; i < g->n_tensor; i++) {
        uint64_t end = i + 1 < g->n_tensor ? g->tensor[i + 1].offset : size - g->data_start;
        g->tensor[i].data = bytes + g->data_start + g->tensor[i].offset;
        g->tensor[i].size = end - g->tensor[i].offset;
    }
}

static struct ge_kv *ge_key(struct ge *g, const char *key)
{
    for (size_t i = 0; i < g->n_kv; i++)
        if (strcmp(g->kv[i].key, key) == 0)
            return &g->kv[i];
    return NULL;
}

static struct ge_tensor *ge_tensor(struct ge *g, const char *name)
{
    for (size_t i = 0; i < g->n_tensor; i++)
        if (strcmp(g->tensor[i].name, name) == 0)
            return &g->tensor[i];
    ck_abort_msg("no tensor %s", name);
    return NULL;
}

static void ge_remove_key(struct ge *g, const char *key)
{
    struct ge_kv *kv = ge_key(g, key);
    ck_assert_ptr_nonnull(kv);
    memmove(kv, kv + 1, (size_t)(&g->kv[g->n_kv--] - (kv + 1)) * sizeof *kv);
}

static void ge_remove_tensor(struct ge *g, const char *name)
{
    struct ge_tensor *t = ge_tensor(g, name);
    memmove(t, t + 1, (size_t)(&g->tensor[g->n_tensor--] - (t + 1)) * sizeof *t);
}

/* Adds a key or replaces its value. */
static void ge_set(struct ge *g, const char *key, uint32_t type, const void *value, size_t size)
{
    struct ge_kv *kv = ge_key(g, key);
    if (kv == NULL) {
        ck_assert(g->n_kv < ARRAY_LEN(g->kv));
        kv = &g->kv[g->n_kv++];
        snprintf(kv->key, sizeof kv->key, "%s", key);
    }
    uint8_t *copy = malloc(size ? size : 1);
    memcpy(copy, value, size);
    ck_assert(g->n_kept < ARRAY_LEN(g->kept));
    g->kept[g->n_kept++] = copy;
    kv->type = type, kv->value = copy, kv->size = size;
}

static inline void ge_set_u32(struct ge *g, const char *key, uint32_t v)
{
    ge_set(g, key, 4, &v, 4);
}

static inline void ge_set_text(struct ge *g, const char *key, const char *text)
{
    uint8_t value[512];
    uint64_t n = strlen(text);
    memcpy(value, &n, 8);
    memcpy(value + 8, text, n);
    ge_set(g, key, 8, value, 8 + n);
}

static struct ge_tensor *ge_add_tensor(
    struct ge *g, const char *name, uint32_t type, uint64_t ne0, uint64_t ne1, size_t size)
{
    struct ge_tensor *t = &g->tensor[g->n_tensor++];
    ck_assert(g->n_tensor <= ARRAY_LEN(g->tensor));
    uint8_t *data = calloc(1, size);
    g->kept[g->n_kept++] = data;
    *t = (struct ge_tensor){
        .n_dim = ne1 ? 2 : 1, .type = type, .ne = {ne0, ne1}, .data = data, .size = size};
    snprintf(t->name, sizeof t->name, "%s", name);
    return t;
}

static void ge_out(struct buf *b, uint64_t v, unsigned width)
{
    buf_put(b, &v, width);
}

static void ge_pad(struct buf *b, size_t align)
{
    while (b->size % align != 0)
        buf_char(b, 0);
}

/* The file again; offsets are computed unless keep_offsets, and `align` is what data begins at a
 * multiple of. */
static void ge_write(
    const struct ge *g, struct mf *files, const char *name, bool keep_offsets, size_t align)
{
    struct mem m;
    struct buf b;
    uint64_t at = 0;
    mem_init(&m, NULL);
    buf_init(&b, &m);
    buf_put(&b, "GGUF", 4);
    ge_out(&b, 3, 4);
    ge_out(&b, g->n_tensor, 8);
    ge_out(&b, g->n_kv, 8);
    for (size_t i = 0; i < g->n_kv; i++) {
        ge_out(&b, strlen(g->kv[i].key), 8);
        buf_str(&b, g->kv[i].key);
        ge_out(&b, g->kv[i].type, 4);
        buf_put(&b, g->kv[i].value, g->kv[i].size);
    }
    for (size_t i = 0; i < g->n_tensor; i++) {
        const struct ge_tensor *t = &g->tensor[i];
        ge_out(&b, strlen(t->name), 8);
        buf_str(&b, t->name);
        ge_out(&b, t->n_dim, 4);
        for (uint32_t d = 0; d < t->n_dim; d++)
            ge_out(&b, t->ne[d], 8);
        ge_out(&b, t->type, 4);
        ge_out(&b, keep_offsets ? t->offset : at, 8);
        at = (at + t->size + align - 1) / align * align;
    }
    ge_pad(&b, align);
    size_t start = b.size;
    for (size_t i = 0; i < g->n_tensor; i++) {
        while ((b.size - start) % align != 0)
            buf_char(&b, 0);
        buf_put(&b, g->tensor[i].data, g->tensor[i].size);
    }
    ck_assert(!b.failed);
    mf_put(files, name, b.data, b.size);
    buf_free(&b);
}

static void ge_free(struct ge *g)
{
    for (size_t i = 0; i < g->n_kept; i++)
        free(g->kept[i]);
    g->n_kept = 0;
}

#endif
