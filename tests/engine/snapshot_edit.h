/* snapshot_edit.h: snapshots in memory for tests, taken apart and put together again with right checksums, as somebody
 * would who means harm. Written from docs/SNAPSHOT.md and not from the library's code, so that the two check each other. */
#ifndef GLM_TESTS_SNAPSHOT_EDIT_H
#define GLM_TESTS_SNAPSHOT_EDIT_H

#include <glm45/glm45.h>

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

enum { SNAP_HEAD = 264, SNAP_SECTION_AT = 80, SNAP_N_SECTION = 5, SNAP_BLOCK_HEAD = 32, SNAP_BLOCK_BYTES = 128 << 10 };

/* ---- bytes that a host writes to and reads from ------------------------------------------------------------- */

struct snap_bytes {
    unsigned char *data;
    size_t size, capacity;
    size_t at;              /* reading */
    size_t most;            /* bytes that one read gives; 0: all */
    uint64_t n_call, fail_at; /* the call that fails; 0: none */
    size_t capacity_end;    /* writes past it fail; 0: none */
};

static inline void snap_bytes_free(struct snap_bytes *b)
{
    free(b->data);
    memset(b, 0, sizeof *b);
}

static inline void snap_append(struct snap_bytes *b, const void *data, size_t size)
{
    if (b->size + size > b->capacity) {
        b->capacity = 2 * (b->size + size);
        b->data = realloc(b->data, b->capacity);
    }
    if (size)
        memcpy(b->data + b->size, data, size);
    b->size += size;
}

static inline int32_t GLM_CALL snap_write(void *user, const void *data, size_t size)
{
    struct snap_bytes *b = user;
    if (++b->n_call == b->fail_at || (b->capacity_end && b->size + size > b->capacity_end))
        return -28;
    snap_append(b, data, size);
    return 0;
}

static inline int32_t GLM_CALL snap_read(void *user, void *to, size_t size, size_t *got)
{
    struct snap_bytes *b = user;
    if (++b->n_call == b->fail_at)
        return -5;
    if (b->most && size > b->most)
        size = b->most;
    if (size > b->size - b->at)
        size = b->size - b->at;
    if (size)
        memcpy(to, b->data + b->at, size);
    b->at += size;
    *got = size;
    return 0;
}

static inline glm_stream snap_stream(struct snap_bytes *b)
{
    glm_stream s = { (uint32_t)sizeof s, 0, b, snap_write, snap_read };
    b->at = 0;
    b->n_call = 0;
    return s;
}

static inline int32_t snap_load(glm_model *m, struct snap_bytes *b, const glm_session_options *opt, glm_session **s,
    glm_error *err)
{
    glm_stream from = snap_stream(b);
    return glm_session_load_from(m, &from, opt, s, err);
}

/* ---- numbers and checksums ------------------------------------------------------------------------------------- */

static inline uint64_t snap_get(const unsigned char *at, unsigned n)
{
    uint64_t v = 0;
    while (n--)
        v = v << 8 | at[n];
    return v;
}

static inline void snap_set(unsigned char *at, unsigned n, uint64_t v)
{
    for (unsigned i = 0; i < n; i++, v >>= 8)
        at[i] = (unsigned char)v;
}

static inline uint64_t snap_mix(uint64_t state, uint64_t word)
{
    uint64_t x = (state ^ word) * UINT64_C(0x9e3779b97f4a7c15);
    return (x << 29) | (x >> 35);
}

static inline uint64_t snap_sum(uint64_t seed, const unsigned char *at, size_t size)
{
    const uint64_t k = UINT64_C(0x9e3779b97f4a7c15);
    uint64_t a = seed, b = seed + k, c = seed ^ k, d = seed - k, h = snap_mix(seed, size);
    size_t i = 0;
    for (; size - i >= 32; i += 32) {
        a = snap_mix(a, snap_get(at + i, 8));
        b = snap_mix(b, snap_get(at + i + 8, 8));
        c = snap_mix(c, snap_get(at + i + 16, 8));
        d = snap_mix(d, snap_get(at + i + 24, 8));
    }
    h = snap_mix(snap_mix(snap_mix(snap_mix(h, a), b), c), d);
    for (; size - i >= 8; i += 8)
        h = snap_mix(h, snap_get(at + i, 8));
    h = snap_mix(h, snap_get(at + i, (unsigned)(size - i)));
    h = (h ^ (h >> 32)) * k;
    return h ^ (h >> 29);
}

static inline void snap_seal_head(unsigned char *head)
{
    snap_set(head + 16, 8, snap_sum(0, head, 16));
    snap_set(head + SNAP_HEAD - 8, 8, snap_sum(snap_get(head + 16, 8), head + 24, SNAP_HEAD - 32));
}

/* ---- apart and together ------------------------------------------------------------------------------------------ */

struct snap_parts {
    unsigned char head[SNAP_HEAD];
    struct snap_bytes section[SNAP_N_SECTION]; /* KV and tokens as planes, group by group: as they lie in the file */
    size_t n_block;
    size_t block_at[4096];
};

/* Blocks unpacked; false where the file is not as the format says. */
static inline bool snap_apart(const struct snap_bytes *file, struct snap_parts *p)
{
    static unsigned char raw[SNAP_BLOCK_BYTES];
    size_t at = SNAP_HEAD;
    uint64_t sum;

    memset(p, 0, sizeof *p);
    if (file->size < SNAP_HEAD)
        return false;
    memcpy(p->head, file->data, SNAP_HEAD);
    snap_seal_head(p->head);
    if (memcmp(p->head, file->data, SNAP_HEAD) != 0)
        return false;
    sum = snap_get(p->head + SNAP_HEAD - 8, 8);
    while (at < file->size) {
        const unsigned char *b = file->data + at;
        uint32_t section = (uint32_t)snap_get(b, 4) - 1, n = (uint32_t)snap_get(b + 8, 4), stored = (uint32_t)snap_get(b + 12, 4);
        if (section >= SNAP_N_SECTION || n > SNAP_BLOCK_BYTES || stored > n || snap_get(b + 4, 4) != p->n_block ||
            snap_get(b + 16, 8) != snap_sum(sum, b + SNAP_BLOCK_HEAD, stored))
            return false;
        sum = snap_sum(sum, b, 24);
        if (snap_get(b + 24, 8) != sum)
            return false;
        if (stored == n)
            memcpy(raw, b + SNAP_BLOCK_HEAD, n);
        else if (ZSTD_decompress(raw, n, b + SNAP_BLOCK_HEAD, stored) != n)
            return false;
        snap_append(&p->section[section], raw, n);
        p->block_at[p->n_block++] = at;
        at += SNAP_BLOCK_HEAD + stored;
    }
    return true;
}

static inline void snap_parts_free(struct snap_parts *p)
{
    for (unsigned i = 0; i < SNAP_N_SECTION; i++)
        snap_bytes_free(&p->section[i]);
}

static inline void snap_add_block(struct snap_bytes *to, unsigned section, uint32_t index, uint64_t *sum,
    const unsigned char *data, uint32_t raw, uint32_t stored)
{
    unsigned char head[SNAP_BLOCK_HEAD];
    snap_set(head, 4, section + 1);
    snap_set(head + 4, 4, index);
    snap_set(head + 8, 4, raw);
    snap_set(head + 12, 4, stored);
    snap_set(head + 16, 8, snap_sum(*sum, data, stored));
    *sum = snap_sum(*sum, head, 24);
    snap_set(head + 24, 8, *sum);
    snap_append(to, head, sizeof head);
    snap_append(to, data, stored);
}

/* A whole file, its blocks stored as they are. `sized`: the header's lengths are made those of the sections. */
static inline void snap_together(struct snap_parts *p, bool sized, struct snap_bytes *to)
{
    uint32_t index = 0;
    uint64_t sum;

    for (unsigned i = 0; sized && i < SNAP_N_SECTION; i++)
        snap_set(p->head + SNAP_SECTION_AT + 16 * i + 8, 8, p->section[i].size);
    snap_seal_head(p->head);
    sum = snap_get(p->head + SNAP_HEAD - 8, 8);
    to->size = 0;
    snap_append(to, p->head, SNAP_HEAD);
    for (unsigned i = 0; i < SNAP_N_SECTION; i++) {
        const struct snap_bytes *s = &p->section[i];
        size_t width = snap_get(p->head + SNAP_SECTION_AT + 16 * i + 4, 4);
        if (width != 2 && width != 4)
            width = 1;
        for (size_t at = 0, group = 0; at < s->size; at += group) {
            group = s->size - at < width * SNAP_BLOCK_BYTES ? s->size - at : width * SNAP_BLOCK_BYTES;
            for (size_t k = 0; k < width; k++)
                snap_add_block(to, i, index++, &sum, s->data + at + k * (group / width), (uint32_t)(group / width),
                    (uint32_t)(group / width));
        }
    }
}

#endif
