/* snapshot.h: the container that a session is saved in. docs/SNAPSHOT.md has the format byte by byte. Depends on lib/base
 * and zstd only; knows nothing of what the sections hold.
 *
 * A snapshot is a header and then the bytes of all sections, one section after the other, cut into blocks of at most
 * SNAP_BLOCK bytes. The header says how long each section is, so that a reader knows what to expect before it makes room
 * for it. Every byte is covered by a checksum, and every checksum depends on all that came before it. Both sides go through
 * a snapshot once, forward, in bounded memory.
 */
#ifndef GLM_IO_SNAPSHOT_H
#define GLM_IO_SNAPSHOT_H

#include "../base/base.h"

#define SNAP_VERSION 1u
#define SNAP_BLOCK (128u << 10)           /* what zstd compresses as one block: one set of tables for one byte plane */
#define SNAP_TEXT_MAX (256ull << 20)      /* of a section that is not bounded by the model and the context */
#define SNAP_MODEL_MAX 96u

enum snap_section {
    SNAP_SESSION,   /* options, counters, the turn under way and its calls */
    SNAP_TOOLS,     /* the declared tools as JSON; empty: none */
    SNAP_MESSAGES,
    SNAP_TOKENS,    /* int32: the ids whose keys and values are in the cache */
    SNAP_KV,        /* their keys and values */
    SNAP_SECTION_COUNT
};

struct snap_head {
    uint8_t fingerprint[32];
    char model[SNAP_MODEL_MAX];           /* what the model is, for people; NUL-terminated */
    uint32_t kv_type, n_ctx;
    uint32_t rounding;                    /* of activations: bit 0 int8, bit 1 bfloat16 */
    uint64_t weights;                     /* checksum of samples of the weights, which the fingerprint does not see */
    uint8_t plane[SNAP_SECTION_COUNT];    /* bytes of a number: byte i of each goes to plane i. 1, 2 or 4 */
    uint64_t bytes[SNAP_SECTION_COUNT];   /* multiples of plane */
};

/* ---- writing (snapshot_write.c) ------------------------------------------------------------------------------------ */

struct snap_sink {
    void *user;
    int32_t (*write)(void *user, const void *data, size_t size, glm_error *err); /* all of it, or a status */
};
struct snap_writer;
/* Writes the header. A section that is too long: GLM_ELIMIT. *out is NULL on failure. */
int32_t snap_create(struct mem *m, const struct snap_sink *to, const struct snap_head *head, struct snap_writer **out,
    glm_error *err);
/* The next bytes of the sections, in their order; where one ends is known from the header. */
int32_t snap_put(struct snap_writer *w, const void *bytes, size_t size, glm_error *err);
bool snap_complete(const struct snap_writer *w); /* all sections are there and written */
void snap_writer_close(struct snap_writer *w);   /* NULL is fine */

/* ---- reading (snapshot_read.c) --------------------------------------------------------------------------------------- */

struct snap_source {
    void *user;
    int32_t (*read)(void *user, void *to, size_t size, size_t *got, glm_error *err); /* *got 0: the end */
    const char *where;                    /* names the file in errors */
};
struct snap_reader;
/* Reads and checks the header. GLM_EFORMAT (no snapshot, damaged), GLM_EVERSION (of a newer library). */
int32_t snap_open(struct mem *m, const struct snap_source *from, struct snap_head *head, struct snap_reader **out,
    glm_error *err);
/* The next bytes of the sections, checked. Damage is GLM_EFORMAT with the offset in the file. */
int32_t snap_get(struct snap_reader *r, void *to, size_t size, glm_error *err);
/* GLM_EFORMAT unless the source ends here. */
int32_t snap_at_end(struct snap_reader *r, glm_error *err);
uint64_t snap_offset(const struct snap_reader *r); /* in the file, of the blocks that the last bytes came from */
void snap_reader_close(struct snap_reader *r);   /* NULL is fine */

#endif
