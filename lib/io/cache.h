/* cache.h: blocks of files in a bounded memory, for models that are larger than it. A block is what is used together (an
 * expert: its matrices with their scales), a slot the place in memory of one. Users hold blocks while they compute with
 * them; what nobody holds makes room for others, least used first. Blocks that are not there are read by threads of the
 * cache, several at a time, past the system's page cache where that can be done.
 *
 * Any number of threads. Nothing here is ever mapped: a file that is cut short is an error, not a signal.
 */
#ifndef GLM_IO_CACHE_H
#define GLM_IO_CACHE_H

#include "io.h"

#define BLOCK_PARTS 9u

struct block {
    struct place part[BLOCK_PARTS]; /* those of 0 bytes are left out */
};
struct cache_file {
    const struct file *file;        /* open as long as the cache */
    const char *name;
};
struct cache_options {
    const struct fs *fs;
    const struct cache_file *files; /* copied, as the blocks are; by place.file */
    uint32_t n_file;
    const struct block *blocks;
    uint32_t n_block;
    uint64_t bytes;        /* of all slots */
    uint32_t least;        /* slots that blocks of each size must have, if there are so many blocks */
    double half_life;      /* ticks after which a use counts half; 0: CACHE_HALF_LIFE */
    uint32_t n_reader;     /* 0: CACHE_READERS. A host's file hook is called by one at a time */
    bool buffered;         /* read through the page cache */
    bool (*warm)(void *user, uint32_t i); /* or NULL: called by a reader with 0, 1, .. before it reads, until it returns false */
    void *warm_user;
};
#define CACHE_HALF_LIFE 256.0
#define CACHE_READERS 4u

struct cache;

/* Fewer bytes than `least` asks for: GLM_EINVAL with the number that is enough. */
int32_t cache_open(struct mem *m, const struct cache_options *opt, struct cache **out, glm_error *err);
void cache_close(struct cache *c); /* waits for reads under way; NULL is fine */
uint64_t cache_block_bytes(const struct block *b); /* of the slot that it takes */

/* n blocks are about to be used, the i-th count[i] times: for the statistics, and for what is worth keeping. ticks is how
 * far the cache's clock goes on: a model's tokens. */
void cache_note(struct cache *c, const uint32_t *block, const uint32_t *count, uint32_t n, double ticks);

/* A user who waits. Zeroed at first; blocks that it has asked for are kept for it until they were held or it quits. */
struct cache_claim {
    struct cache_claim *next;
    bool queued;
    uint64_t seen;
};

/* Blocks of this one's size that one hold has at most: half of the slots. */
uint32_t cache_hold_most(const struct cache *c, uint32_t block);
/* Holds some of n blocks, at least one, and moves them to the front of block[]; *n_held says how many. With `all`, which is
 * for what was held together before, all of them. 0: they are not there yet; reading them has begun, so cache_wait and ask
 * again, or cache_quit. Wait with empty hands: others may need what you hold. Errors: GLM_EIO with the file and the offset;
 * the claim is over then. */
int32_t cache_hold(struct cache *c, struct cache_claim *claim, uint32_t *block, uint32_t n, bool all, uint32_t *n_held,
    glm_error *err);
/* Begins to read what of n blocks is not there, for a claim that will hold them. */
void cache_ask(struct cache *c, struct cache_claim *claim, const uint32_t *block, uint32_t n);
void cache_wait(struct cache *c, struct cache_claim *claim, uint64_t ns); /* until something was read, at most that long */
void cache_quit(struct cache *c, struct cache_claim *claim, const uint32_t *block, uint32_t n); /* what it asked for */
void cache_drop(struct cache *c, const uint32_t *block, uint32_t n); /* as often as they were held */
void cache_parts(const struct cache *c, uint32_t block, const void *at[BLOCK_PARTS]); /* of a block that is held */

/* Begins to read blocks that are likely to be used soon, behind those that somebody waits for. */
void cache_prefetch(struct cache *c, const uint32_t *block, uint32_t n);

bool cache_is_whole(const struct cache *c); /* every block has a slot: nothing is ever dropped */

struct cache_stats {
    uint64_t n_hit, n_miss;  /* of the blocks noted: there already, or not */
    uint64_t n_prefetched, n_prefetch_used; /* blocks; used before they were dropped again */
    uint64_t bytes_read, wait_ns;
};
void cache_stats(struct cache *c, struct cache_stats *out);

#endif
