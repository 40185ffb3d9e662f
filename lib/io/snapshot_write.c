/* snapshot_write.c: sections into blocks. Numbers of several bytes are split into planes first, byte i of each into plane
 * i: the high bytes of floats repeat and compress, the low ones are noise and are then stored as they are. */
#include "snapshot_int.h"

#include <zstd.h>
#include <zstd_errors.h>

#define LEVEL 1

struct snap_writer {
    struct mem *mem;
    struct snap_sink to;
    struct snap_head head;
    struct snap_place place;
    ZSTD_CCtx *zstd;
    size_t group, fill;      /* bytes of the current group, and those that are there */
    uint32_t n_block;
    uint64_t sum;            /* of all so far */
    uint8_t *numbers;        /* [4 * SNAP_BLOCK] the group */
    uint8_t *plane;          /* [SNAP_BLOCK] */
    uint8_t *block;          /* [BLOCK_HEAD_BYTES + SNAP_BLOCK] */
};

static void put_head(uint8_t *at, const struct snap_head *h)
{
    memset(at, 0, HEAD_BYTES);
    memcpy(at + HEAD_MAGIC, SNAP_MAGIC, 8);
    put_le32(at + HEAD_VERSION, SNAP_VERSION);
    put_le32(at + HEAD_SIZE, HEAD_BYTES);
    put_le64(at + HEAD_PREFIX_SUM, checksum64(0, at, HEAD_PREFIX_SUM));
    memcpy(at + HEAD_FINGERPRINT, h->fingerprint, 32);
    put_le32(at + HEAD_KV_TYPE, h->kv_type);
    put_le32(at + HEAD_N_CTX, h->n_ctx);
    put_le32(at + HEAD_ROUNDING, h->rounding);
    put_le64(at + HEAD_WEIGHTS, h->weights);
    put_le32(at + HEAD_N_SECTION, SNAP_SECTION_COUNT);
    for (uint32_t i = 0; i < SNAP_SECTION_COUNT; i++) {
        put_le32(at + HEAD_SECTIONS + 16 * i, i + 1);
        put_le32(at + HEAD_SECTIONS + 16 * i + 4, h->plane[i]);
        put_le64(at + HEAD_SECTIONS + 16 * i + 8, h->bytes[i]);
    }
    memcpy(at + HEAD_MODEL, h->model, strnlen(h->model, SNAP_MODEL_MAX - 1));
    put_le64(at + HEAD_SUM, checksum64(get_le64(at + HEAD_PREFIX_SUM), at + HEAD_FINGERPRINT, HEAD_SUM - HEAD_FINGERPRINT));
}

static int32_t write_head(struct snap_writer *w, glm_error *err)
{
    uint8_t bytes[HEAD_BYTES];
    put_head(bytes, &w->head);
    w->sum = get_le64(bytes + HEAD_SUM);
    return w->to.write(w->to.user, bytes, sizeof bytes, err);
}

int32_t snap_create(struct mem *m, const struct snap_sink *to, const struct snap_head *head, struct snap_writer **out,
    glm_error *err)
{
    struct snap_writer *w = NULL;
    int32_t rc = GLM_OK;

    *out = NULL;
    for (unsigned i = 0; i < SNAP_KV; i++)
        if (head->bytes[i] > SNAP_TEXT_MAX)
            return err_set(err, GLM_ELIMIT, head->bytes[i], NULL,
                "the conversation takes %llu bytes; a snapshot holds at most %llu", (unsigned long long)head->bytes[i],
                (unsigned long long)SNAP_TEXT_MAX);
    w = mem_zalloc(m, sizeof *w);
    if (!w)
        return err_nomem(err, "a snapshot");
    w->mem = m;
    w->to = *to;
    w->head = *head;
    w->place = snap_first_place(head);
    w->numbers = mem_alloc(m, 4 * SNAP_BLOCK);
    w->plane = mem_alloc(m, SNAP_BLOCK);
    w->block = mem_alloc(m, BLOCK_HEAD_BYTES + SNAP_BLOCK);
    w->zstd = ZSTD_createCCtx();
    if (!w->numbers || !w->plane || !w->block || !w->zstd)
        rc = err_nomem(err, "a snapshot");
    if (!rc)
        rc = write_head(w, err);
    if (rc) {
        snap_writer_close(w);
        return rc;
    }
    w->group = snap_next_group(&w->place, &w->head);
    *out = w;
    return GLM_OK;
}

void snap_writer_close(struct snap_writer *w)
{
    if (!w)
        return;
    ZSTD_freeCCtx(w->zstd);
    mem_free(w->mem, w->numbers);
    mem_free(w->mem, w->plane);
    mem_free(w->mem, w->block);
    mem_free(w->mem, w);
}

/* Byte i of each of n numbers. */
static void take_plane(const uint8_t *numbers, size_t n, size_t width, size_t i, uint8_t *plane)
{
    switch (width) { /* a constant stride is several times faster */
    case 2:
        for (size_t k = 0; k < n; k++)
            plane[k] = numbers[2 * k + i];
        break;
    default:
        for (size_t k = 0; k < n; k++)
            plane[k] = numbers[4 * k + i];
        break;
    }
}

/* One plane, compressed where that makes it shorter. The block goes out in one piece. */
static int32_t write_block(struct snap_writer *w, const uint8_t *raw, size_t n, glm_error *err)
{
    uint8_t *head = w->block, *stored = w->block + BLOCK_HEAD_BYTES;
    size_t size = n > 1 ? ZSTD_compressCCtx(w->zstd, stored, n - 1, raw, n, LEVEL) : n;

    if (ZSTD_isError(size)) {
        if (ZSTD_getErrorCode(size) == ZSTD_error_memory_allocation)
            return err_nomem(err, "a snapshot");
        size = n; /* there was no room for it: not shorter */
    }
    if (size == n)
        memcpy(stored, raw, n);
    put_le32(head + BLOCK_SECTION, w->place.section + 1);
    put_le32(head + BLOCK_INDEX, w->n_block++);
    put_le32(head + BLOCK_RAW, (uint32_t)n);
    put_le32(head + BLOCK_STORED, (uint32_t)size);
    put_le64(head + BLOCK_DATA_SUM, checksum64(w->sum, stored, size));
    w->sum = checksum64(w->sum, head, BLOCK_SUM);
    put_le64(head + BLOCK_SUM, w->sum);
    return w->to.write(w->to.user, w->block, BLOCK_HEAD_BYTES + size, err);
}

static int32_t write_group(struct snap_writer *w, glm_error *err)
{
    size_t width = w->head.plane[w->place.section], n = w->group / width;
    int32_t rc = GLM_OK;

    if (width == 1)
        return write_block(w, w->numbers, n, err);
    for (size_t i = 0; !rc && i < width; i++) {
        take_plane(w->numbers, n, width, i, w->plane);
        rc = write_block(w, w->plane, n, err);
    }
    return rc;
}

int32_t snap_put(struct snap_writer *w, const void *bytes, size_t size, glm_error *err)
{
    const uint8_t *at = bytes;
    while (size) {
        size_t n = w->group - w->fill;
        n = n < size ? n : size;
        if (n == 0)
            return err_set(err, GLM_EINVAL, 0, NULL, "more bytes than the snapshot's header says");
        memcpy(w->numbers + w->fill, at, n);
        at += n;
        size -= n;
        w->fill += n;
        if (w->fill == w->group) {
            int32_t rc = write_group(w, err);
            if (rc)
                return rc;
            w->fill = 0;
            w->group = snap_next_group(&w->place, &w->head);
        }
    }
    return GLM_OK;
}

bool snap_complete(const struct snap_writer *w) { return w->group == 0; }
