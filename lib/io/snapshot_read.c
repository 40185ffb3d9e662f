/* snapshot_read.c: blocks back into sections. Nothing in the file is believed before its checksum was seen to be right,
 * and not then either: whoever writes a file can write its checksums. Memory is taken for one group of blocks, whatever
 * the header says. */
#include "snapshot_int.h"

#include <zstd.h>
#include <zstd_errors.h>

struct snap_reader {
    struct mem *mem;
    struct snap_source from;
    struct snap_head head;
    struct snap_place place;
    ZSTD_DCtx *zstd;
    size_t group, done;      /* bytes of the current group, and those that were given out */
    uint32_t n_block;
    uint64_t sum, offset, group_offset;
    uint8_t *numbers;        /* [4 * SNAP_BLOCK] the group */
    uint8_t *plane;          /* [SNAP_BLOCK] */
    uint8_t *stored;         /* [SNAP_BLOCK] */
};

static int32_t damaged(const struct snap_reader *r, uint64_t offset, const char *what, glm_error *err)
{
    return err_set(err, GLM_EFORMAT, offset, r->from.where,
        "the snapshot is damaged at byte %llu: %s. Use another copy of it", (unsigned long long)offset, what);
}

/* All `size` bytes, however few the source gives at a time. */
static int32_t read_all(struct snap_reader *r, void *to, size_t size, glm_error *err)
{
    uint8_t *at = to;
    while (size) {
        size_t got = 0;
        int32_t rc = r->from.read(r->from.user, at, size, &got, err);
        if (rc)
            return rc;
        if (got == 0)
            return damaged(r, r->offset, "it ends there, it was cut short", err);
        if (got > size)
            return err_set(err, GLM_EIO, r->offset, r->from.where, "read gave %zu bytes, %zu were asked for", got, size);
        at += got;
        size -= got;
        r->offset += got;
    }
    return GLM_OK;
}

/* ---- the header ------------------------------------------------------------------------------------ */

static int32_t check_prefix(const struct snap_reader *r, const uint8_t *at, glm_error *err)
{
    uint32_t version = get_le32(at + HEAD_VERSION);

    if (memcmp(at + HEAD_MAGIC, SNAP_MAGIC, 8) != 0)
        return err_set(err, GLM_EFORMAT, 0, r->from.where, "this is no snapshot: it does not begin like one");
    if (get_le64(at + HEAD_PREFIX_SUM) != checksum64(0, at, HEAD_PREFIX_SUM))
        return damaged(r, HEAD_VERSION, "the header's checksum is another one", err);
    if (version > SNAP_VERSION)
        return err_set(err, GLM_EVERSION, HEAD_VERSION, r->from.where,
            "the snapshot has format %u, this library reads up to %u: use a newer one", version, SNAP_VERSION);
    if (version == 0 || get_le32(at + HEAD_SIZE) != HEAD_BYTES)
        return damaged(r, HEAD_VERSION, "its format is unknown", err);
    return GLM_OK;
}

static bool take_sections(const uint8_t *at, struct snap_head *h)
{
    for (uint32_t i = 0; i < SNAP_SECTION_COUNT; i++, at += 16) {
        uint32_t plane = get_le32(at + 4);
        h->plane[i] = (uint8_t)plane;
        h->bytes[i] = get_le64(at + 8);
        if (get_le32(at) != i + 1 || (plane != 1 && plane != 2 && plane != 4) || h->bytes[i] % plane != 0 ||
            (i != SNAP_KV && h->bytes[i] > SNAP_TEXT_MAX))
            return false;
    }
    return true;
}

static int32_t read_head(struct snap_reader *r, glm_error *err)
{
    uint8_t at[HEAD_BYTES];
    struct snap_head *h = &r->head;
    int32_t rc = read_all(r, at, HEAD_PREFIX_BYTES, err);

    if (!rc)
        rc = check_prefix(r, at, err);
    if (!rc)
        rc = read_all(r, at + HEAD_PREFIX_BYTES, HEAD_BYTES - HEAD_PREFIX_BYTES, err);
    if (rc)
        return rc;
    r->sum = checksum64(get_le64(at + HEAD_PREFIX_SUM), at + HEAD_FINGERPRINT, HEAD_SUM - HEAD_FINGERPRINT);
    if (r->sum != get_le64(at + HEAD_SUM))
        return damaged(r, HEAD_FINGERPRINT, "the header's checksum is another one", err);
    if (get_le32(at + HEAD_N_SECTION) != SNAP_SECTION_COUNT || !take_sections(at + HEAD_SECTIONS, h))
        return damaged(r, HEAD_SECTIONS, "the table of sections makes no sense", err);
    memcpy(h->fingerprint, at + HEAD_FINGERPRINT, 32);
    memcpy(h->model, at + HEAD_MODEL, SNAP_MODEL_MAX - 1);
    h->kv_type = get_le32(at + HEAD_KV_TYPE);
    h->n_ctx = get_le32(at + HEAD_N_CTX);
    h->rounding = get_le32(at + HEAD_ROUNDING);
    h->weights = get_le64(at + HEAD_WEIGHTS);
    return GLM_OK;
}

int32_t snap_open(struct mem *m, const struct snap_source *from, struct snap_head *head, struct snap_reader **out,
    glm_error *err)
{
    struct snap_reader *r = mem_zalloc(m, sizeof *r);
    int32_t rc = GLM_OK;

    *out = NULL;
    if (!r)
        return err_nomem(err, "a snapshot");
    r->mem = m;
    r->from = *from;
    rc = read_head(r, err);
    if (!rc) {
        r->place = snap_first_place(&r->head);
        r->numbers = mem_alloc(m, 4 * SNAP_BLOCK);
        r->plane = mem_alloc(m, SNAP_BLOCK);
        r->stored = mem_alloc(m, SNAP_BLOCK);
        r->zstd = ZSTD_createDCtx();
        if (!r->numbers || !r->plane || !r->stored || !r->zstd)
            rc = err_nomem(err, "a snapshot");
    }
    if (rc) {
        snap_reader_close(r);
        return rc;
    }
    *head = r->head;
    *out = r;
    return GLM_OK;
}

void snap_reader_close(struct snap_reader *r)
{
    if (!r)
        return;
    ZSTD_freeDCtx(r->zstd);
    mem_free(r->mem, r->numbers);
    mem_free(r->mem, r->plane);
    mem_free(r->mem, r->stored);
    mem_free(r->mem, r);
}

/* ---- blocks ------------------------------------------------------------------------------------------ */

static int32_t read_block_head(struct snap_reader *r, uint8_t *head, size_t n, uint32_t *stored, glm_error *err)
{
    uint64_t offset = r->offset, before = r->sum;
    int32_t rc = read_all(r, head, BLOCK_HEAD_BYTES, err);

    if (rc)
        return rc;
    r->sum = checksum64(before, head, BLOCK_SUM);
    if (r->sum != get_le64(head + BLOCK_SUM))
        return damaged(r, offset, "a block's checksum is another one", err);
    *stored = get_le32(head + BLOCK_STORED);
    if (get_le32(head + BLOCK_SECTION) != r->place.section + 1 || get_le32(head + BLOCK_INDEX) != r->n_block++ ||
        get_le32(head + BLOCK_RAW) != n || *stored == 0 || *stored > n)
        return damaged(r, offset, "a block is not the one that belongs there", err);
    return GLM_OK;
}

/* The next block, n bytes once it is unpacked. */
static int32_t read_block(struct snap_reader *r, uint8_t *to, size_t n, glm_error *err)
{
    uint64_t before = r->sum, offset;
    uint8_t head[BLOCK_HEAD_BYTES], *place;
    uint32_t stored = 0;
    size_t size;
    int32_t rc = read_block_head(r, head, n, &stored, err);

    if (rc)
        return rc;
    offset = r->offset;
    place = stored == n ? to : r->stored;
    rc = read_all(r, place, stored, err);
    if (rc)
        return rc;
    if (checksum64(before, place, stored) != get_le64(head + BLOCK_DATA_SUM))
        return damaged(r, offset, "the checksum of the bytes there is another one", err);
    if (stored == n)
        return GLM_OK;
    size = ZSTD_decompressDCtx(r->zstd, to, n, r->stored, stored);
    if (ZSTD_isError(size) && ZSTD_getErrorCode(size) == ZSTD_error_memory_allocation)
        return err_nomem(err, "a snapshot");
    return size == n ? GLM_OK : damaged(r, offset, "what is compressed there cannot be unpacked", err);
}

static void give_plane(uint8_t *numbers, size_t n, size_t width, size_t i, const uint8_t *plane)
{
    switch (width) {
    case 2:
        for (size_t k = 0; k < n; k++)
            numbers[2 * k + i] = plane[k];
        break;
    default:
        for (size_t k = 0; k < n; k++)
            numbers[4 * k + i] = plane[k];
        break;
    }
}

static int32_t read_group(struct snap_reader *r, glm_error *err)
{
    size_t group = snap_next_group(&r->place, &r->head), width, n;
    int32_t rc = GLM_OK;

    if (group == 0)
        return err_set(err, GLM_EINVAL, 0, NULL, "the snapshot has no more bytes");
    width = r->head.plane[r->place.section];
    n = group / width;
    r->group_offset = r->offset;
    if (width == 1)
        rc = read_block(r, r->numbers, n, err);
    for (size_t i = 0; !rc && width > 1 && i < width; i++) {
        rc = read_block(r, r->plane, n, err);
        if (!rc)
            give_plane(r->numbers, n, width, i, r->plane);
    }
    r->group = rc ? 0 : group;
    r->done = 0;
    return rc;
}

int32_t snap_get(struct snap_reader *r, void *to, size_t size, glm_error *err)
{
    uint8_t *at = to;
    while (size) {
        size_t n = r->group - r->done;
        if (n == 0) {
            int32_t rc = read_group(r, err);
            if (rc)
                return rc;
            continue;
        }
        n = n < size ? n : size;
        memcpy(at, r->numbers + r->done, n);
        r->done += n;
        at += n;
        size -= n;
    }
    return GLM_OK;
}

int32_t snap_at_end(struct snap_reader *r, glm_error *err)
{
    uint8_t more;
    size_t got = 0;
    int32_t rc = r->from.read(r->from.user, &more, 1, &got, err);

    if (rc)
        return rc;
    return got ? damaged(r, r->offset, "something stands behind its end", err) : GLM_OK;
}

uint64_t snap_offset(const struct snap_reader *r) { return r->group_offset; }
