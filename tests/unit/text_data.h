/* text_data.h: what the tests of lib/text share: files of JSON lines, and an allocator that fails
 * on request. */
#ifndef GLM_TEST_TEXT_DATA_H
#define GLM_TEST_TEXT_DATA_H

#include "lib/text/text.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

/* A file of tests/data, NUL-terminated; free() it. */
static inline char *data_load(const char *name, size_t *size)
{
    char path[512];
    const char *folder = getenv("GLM_TEST_DATA");
    snprintf(path, sizeof path, "%s/%s", folder ? folder : "tests/data", name);
    FILE *f = fopen(path, "rb");
    ck_assert_msg(f != NULL, "%s", path);
    fseek(f, 0, SEEK_END);
    *size = (size_t)ftell(f);
    rewind(f);
    char *data = malloc(*size + 1);
    ck_assert_uint_eq(fread(data, 1, *size, f), *size);
    data[*size] = 0;
    fclose(f);
    return data;
}

/* Cuts the next line off *at; NULL at the end. */
static inline char *data_line(char **at)
{
    char *line = *at;
    if (*line == 0)
        return NULL;
    char *end = strchr(line, '\n');
    *at = end ? end + 1 : line + strlen(line);
    if (end)
        *end = 0;
    return line;
}

static inline struct json_doc data_json(struct mem *m, const char *text, size_t size)
{
    struct json_doc doc = {0};
    glm_error err = GLM_ERROR_INIT;
    int32_t rc = json_parse(m, text, size, 0, "test", &doc, &err);
    ck_assert_msg(
        rc == 0, "%s at %llu in %.200s", err.message, (unsigned long long)err.offset, text);
    return doc;
}

/* An allocator whose n-th request from now fails (or all from there on); counts what is alive. */
struct faulty {
    glm_allocator hook;
    uint64_t n_alloc, n_alive, fail_at; /* fail_at 0: never */
    bool for_good;
};

static inline void *faulty_alloc(void *user, size_t size, size_t align)
{
    struct faulty *f = user;
    f->n_alloc++;
    if (f->fail_at && (f->n_alloc == f->fail_at || (f->for_good && f->n_alloc > f->fail_at)))
        return NULL;
    size_t room = (size + align - 1) / align * align;
    void *p = aligned_alloc(align, room ? room : align);
    f->n_alive += p != NULL;
    return p;
}

static inline void faulty_release(void *user, void *p, size_t size, size_t align)
{
    struct faulty *f = user;
    (void)size;
    (void)align;
    f->n_alive -= p != NULL;
    free(p);
}

static inline void faulty_init(struct faulty *f, struct mem *m, uint64_t fail_at, bool for_good)
{
    *f = (struct faulty){.fail_at = fail_at, .for_good = for_good};
    f->hook = (glm_allocator){
        .struct_size = sizeof f->hook, .user = f, .alloc = faulty_alloc, .release = faulty_release};
    mem_init(m, &f->hook);
}

/* The same on every machine, for property tests. */
static inline uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* The real tokenizer; *json must outlive it: free() it. */
static inline struct tok *data_tok(struct mem *m, char **json)
{
    size_t size;
    char *packed = data_load("tokenizer.json.zst", &size);
    unsigned long long room = ZSTD_getFrameContentSize(packed, size);
    ck_assert(room < 1u << 30);
    *json = malloc((size_t)room);
    ck_assert_uint_eq(ZSTD_decompress(*json, (size_t)room, packed, size), room);
    free(packed);
    struct vocab_source src = {
        .kind = VOCAB_JSON, .where = "tokenizer.json", .json = *json, .json_size = (size_t)room};
    struct tok *t = NULL;
    glm_error err = GLM_ERROR_INIT;
    int32_t rc = tok_open(m, &src, 0, &t, &err);
    ck_assert_msg(rc == 0, "%s %s", err.where, err.message);
    return t;
}

#endif
