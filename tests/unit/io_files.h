/* io_files.h: for tests of lib/io: files that live in memory behind the file hook, a maker of
 * safetensors files, and an allocator that fails on demand. Every read and map hands out exactly
 * the bytes asked for, so that a sanitizer sees one byte too many.
 */
#ifndef TEST_IO_FILES_H
#define TEST_IO_FILES_H

#include "lib/io/io.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- files in memory ----------------------------------------------------------------------- */

struct mf_entry {
    char name[128];
    uint8_t *bytes;
    size_t size;
};

struct mf {
    struct mf_entry entry[64];
    size_t n;
    uint64_t n_read, n_map, n_open; /* of calls; n_open: files open now */
    uint64_t fail_at;               /* the call of read or map that fails, from 1; 0: none */
    glm_files hook;
    struct fs fs;
};

static int32_t GLM_CALL mf_open(void *user, const char *name, void **file, uint64_t *size)
{
    struct mf *m = user;
    for (size_t i = 0; i < m->n; i++)
        if (strcmp(m->entry[i].name, name) == 0) {
            *file = &m->entry[i];
            *size = m->entry[i].size;
            m->n_open++;
            return GLM_OK;
        }
    return GLM_EIO;
}

static int32_t GLM_CALL mf_read(void *user, void *file, uint64_t offset, void *to, uint64_t size)
{
    struct mf *m = user;
    const struct mf_entry *e = file;
    m->n_read++;
    if (m->n_read + m->n_map == m->fail_at || offset > e->size || size > e->size - offset)
        return GLM_EIO;
    if (size > 0)
        memcpy(to, e->bytes + offset, size);
    return GLM_OK;
}

static int32_t GLM_CALL mf_map(
    void *user, void *file, uint64_t offset, uint64_t size, const void **at)
{
    struct mf *m = user;
    const struct mf_entry *e = file;
    m->n_map++;
    if (m->n_read + m->n_map == m->fail_at || offset > e->size || size > e->size - offset)
        return GLM_EIO;
    *at = e->bytes + offset;
    return GLM_OK;
}

static void GLM_CALL mf_unmap(void *user, void *file, const void *at, uint64_t size)
{
    (void)user, (void)file, (void)at, (void)size;
}

static void GLM_CALL mf_close(void *user, void *file)
{
    struct mf *m = user;
    (void)file;
    m->n_open--;
}

static void mf_init(struct mf *m)
{
    memset(m, 0, sizeof(*m));
    m->hook = (glm_files){
        (uint32_t)sizeof(glm_files), 0, m, mf_open, mf_read, mf_map, mf_unmap, mf_close};
    fs_init(&m->fs, &m->hook);
}

static struct mf_entry *mf_find(struct mf *m, const char *name)
{
    for (size_t i = 0; i < m->n; i++)
        if (strcmp(m->entry[i].name, name) == 0)
            return &m->entry[i];
    return NULL;
}

/* Adds or replaces. */
static void mf_put(struct mf *m, const char *name, const void *bytes, size_t size)
{
    struct mf_entry *e = mf_find(m, name);
    if (e == NULL) {
        ck_assert(m->n < ARRAY_LEN(m->entry));
        e = &m->entry[m->n++];
        snprintf(e->name, sizeof(e->name), "%s", name);
    }
    uint8_t *copy = malloc(size > 0 ? size : 1);
    ck_assert_ptr_nonnull(copy);
    if (size > 0)
        memcpy(copy, bytes, size);
    free(e->bytes);
    e->bytes = copy;
    e->size = size;
}

static inline void mf_text(struct mf *m, const char *name, const char *text)
{
    mf_put(m, name, text, strlen(text));
}

static inline void mf_remove(struct mf *m, const char *name)
{
    struct mf_entry *e = mf_find(m, name);
    if (e == NULL)
        return;
    free(e->bytes);
    *e = m->entry[--m->n];
    m->entry[m->n] = (struct mf_entry){0};
}

static inline void mf_free(struct mf *m)
{
    ck_assert_uint_eq(m->n_open, 0);
    for (size_t i = 0; i < m->n; i++)
        free(m->entry[i].bytes);
    memset(m->entry, 0, sizeof(m->entry));
    m->n = 0;
}

static inline const char *data_path(const char *name, char *path, size_t size)
{
    const char *dir = getenv("GLM_TEST_DATA");
    snprintf(path, size, "%s/%s", dir != NULL ? dir : "tests/data", name);
    return path;
}

/* Copies a file of tests/data under the name that it shall have. */
static inline void mf_load(struct mf *m, const char *data_name, const char *name)
{
    char path[512];
    FILE *f = fopen(data_path(data_name, path, sizeof(path)), "rb");
    ck_assert_msg(f != NULL, "%s", path);
    ck_assert_int_eq(fseek(f, 0, SEEK_END), 0);
    size_t size = (size_t)ftell(f);
    rewind(f);
    uint8_t *bytes = malloc(size + 1);
    ck_assert_uint_eq(fread(bytes, 1, size, f), size);
    fclose(f);
    mf_put(m, name, bytes, size);
    free(bytes);
}

/* ---- a safetensors file, tensor by tensor -------------------------------------------------- */

struct st_maker {
    char header[1 << 16];
    size_t n_header;
    uint8_t data[1 << 16];
    size_t n_data;
};

static inline void maker_begin(struct st_maker *s)
{
    s->n_header = (size_t)snprintf(s->header, sizeof(s->header), "{");
    s->n_data = 0;
}

/* shape as JSON: "[2,3]"; bytes NULL: zeros. */
static inline void maker_add(struct st_maker *s, const char *name, const char *dtype,
    const char *shape, const void *bytes, size_t size)
{
    ck_assert(s->n_data + size <= sizeof(s->data));
    if (bytes != NULL)
        memcpy(s->data + s->n_data, bytes, size);
    else
        memset(s->data + s->n_data, 0, size);
    s->n_header += (size_t)snprintf(s->header + s->n_header, sizeof(s->header) - s->n_header,
        "%s\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}",
        s->n_header > 1 ? "," : "", name, dtype, shape, s->n_data, s->n_data + size);
    s->n_data += size;
    ck_assert(s->n_header + 2 < sizeof(s->header));
}

/* The container of a header and data, under a name. */
static inline void put_container(struct mf *m, const char *name, const char *header,
    size_t n_header, const void *data, size_t n_data)
{
    uint8_t *bytes = malloc(8 + n_header + n_data);
    for (unsigned i = 0; i < 8; i++)
        bytes[i] = (uint8_t)((uint64_t)n_header >> 8 * i);
    memcpy(bytes + 8, header, n_header);
    if (n_data > 0)
        memcpy(bytes + 8 + n_header, data, n_data);
    mf_put(m, name, bytes, 8 + n_header + n_data);
    free(bytes);
}

static inline void maker_end(struct st_maker *s, struct mf *m, const char *name)
{
    s->header[s->n_header++] = '}';
    put_container(m, name, s->header, s->n_header, s->data, s->n_data);
}

/* ---- an allocator that fails --------------------------------------------------------------- */

struct fail_alloc {
    uint64_t n, fail_at; /* calls so far; the call that fails, from 1; 0: none */
    bool persistent;     /* and every later one */
    uint64_t live;       /* blocks not released */
};

static inline void *GLM_CALL fail_alloc_get(void *user, size_t size, size_t align)
{
    struct fail_alloc *a = user;
    a->n++;
    if (a->fail_at != 0 && (a->n == a->fail_at || (a->persistent && a->n > a->fail_at)))
        return NULL;
    void *p = aligned_alloc(align, (size + align - 1) / align * align);
    if (p != NULL)
        memset(p, 0xa5, size);
    a->live += p != NULL;
    return p;
}

static inline void GLM_CALL fail_alloc_release(void *user, void *ptr, size_t size, size_t align)
{
    struct fail_alloc *a = user;
    (void)size, (void)align;
    a->live--;
    free(ptr);
}

static inline void fail_alloc_init(struct fail_alloc *a, struct mem *m)
{
    *a = (struct fail_alloc){0};
    glm_allocator hook = {(uint32_t)sizeof(hook), 0, a, fail_alloc_get, fail_alloc_release};
    mem_init(m, &hook);
}

/* ---- opening ------------------------------------------------------------------------------- */

/* Opens `path`; a failure must say what and where, leave no memory in use and no file open. */
static inline int32_t open_checked(struct mf *m, const char *path, uint32_t weights,
    struct mem *mem, struct ckpt **c, glm_error *err)
{
    struct ckpt_options opt = {.weights = weights, .fs = &m->fs};
    *err = (glm_error)GLM_ERROR_INIT;
    int32_t rc = ckpt_open(mem, path, &opt, c, err);
    if (rc == GLM_OK) {
        ck_assert_ptr_nonnull(*c);
        return rc;
    }
    ck_assert_int_lt(rc, 0);
    ck_assert_int_eq(err->code, rc);
    ck_assert_msg(err->message[0] != 0 && (err->where[0] != 0 || rc == GLM_ENOMEM),
        "status %d: '%s' '%s'", rc, err->where, err->message);
    ck_assert_ptr_null(*c);
    ck_assert_uint_eq(mem->used, 0);
    ck_assert_uint_eq(m->n_open, 0);
    return rc;
}

#endif
