/* snapshot_int.h: the bytes of a snapshot, for the two files that write and read them. Numbers are little-endian. */
#ifndef GLM_IO_SNAPSHOT_INT_H
#define GLM_IO_SNAPSHOT_INT_H

#include "snapshot.h"

#include <string.h>

/* The header. Its first 24 bytes are the same in all versions. */
#define SNAP_MAGIC "\x89glm45s\n"
enum {
    HEAD_MAGIC = 0,
    HEAD_VERSION = 8,
    HEAD_SIZE = 12,
    HEAD_PREFIX_SUM = 16,    /* of the bytes before it */
    HEAD_PREFIX_BYTES = 24,
    HEAD_FINGERPRINT = 24,
    HEAD_KV_TYPE = 56,
    HEAD_N_CTX = 60,
    HEAD_ROUNDING = 64,
    HEAD_N_SECTION = 68,
    HEAD_WEIGHTS = 72,
    HEAD_SECTIONS = 80,      /* each: kind from 1, bytes of a number, u64 bytes */
    HEAD_MODEL = HEAD_SECTIONS + 16 * SNAP_SECTION_COUNT,
    HEAD_SUM = HEAD_MODEL + SNAP_MODEL_MAX, /* of the bytes behind the prefix, seeded with its sum */
    HEAD_BYTES = HEAD_SUM + 8
};

/* A block: this, then its bytes. Stored bytes are a zstd frame, or the bytes themselves where that is no shorter. */
enum {
    BLOCK_SECTION = 0,       /* kind of its section */
    BLOCK_INDEX = 4,         /* of the block in the file, modulo 2^32 */
    BLOCK_RAW = 8,
    BLOCK_STORED = 12,       /* 1 to BLOCK_RAW */
    BLOCK_DATA_SUM = 16,     /* of the stored bytes, seeded with the sum before */
    BLOCK_SUM = 24,          /* of the bytes before it, seeded with the block's before, or the header's */
    BLOCK_HEAD_BYTES = 32
};

static inline void put_le32(uint8_t *at, uint32_t v)
{
    for (unsigned i = 0; i < 4; i++)
        at[i] = (uint8_t)(v >> 8 * i);
}
static inline void put_le64(uint8_t *at, uint64_t v)
{
    put_le32(at, (uint32_t)v);
    put_le32(at + 4, (uint32_t)(v >> 32));
}
static inline uint32_t get_le32(const uint8_t *at)
{
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}
static inline uint64_t get_le64(const uint8_t *at) { return get_le32(at) | (uint64_t)get_le32(at + 4) << 32; }

/* Where both sides stand in the sections: groups of up to SNAP_BLOCK numbers, which never span two. */
struct snap_place {
    unsigned section;        /* SNAP_SECTION_COUNT: all done */
    uint64_t left;           /* bytes of the section behind the current group */
};
/* Bytes of the next group; 0: there is none. */
static inline size_t snap_next_group(struct snap_place *p, const struct snap_head *h)
{
    uint64_t most;
    while (p->left == 0 && p->section < SNAP_SECTION_COUNT)
        if (++p->section < SNAP_SECTION_COUNT)
            p->left = h->bytes[p->section];
    if (p->section == SNAP_SECTION_COUNT)
        return 0;
    most = (uint64_t)SNAP_BLOCK * h->plane[p->section];
    most = p->left < most ? p->left : most;
    p->left -= most;
    return (size_t)most;
}
static inline struct snap_place snap_first_place(const struct snap_head *h)
{
    return (struct snap_place){ .section = 0, .left = h->bytes[0] };
}

#endif
