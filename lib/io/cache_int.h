/* cache_int.h: what the cache's table (cache.c) and its readers (cache_read.c) share behind cache.h. */
#ifndef GLM_IO_CACHE_INT_H
#define GLM_IO_CACHE_INT_H

#include "cache.h"

#define NO_SLOT UINT32_MAX

enum slot_state { SLOT_FREE, SLOT_READING, SLOT_READY, SLOT_FAILED };

struct slot {
    uint8_t *data;
    uint32_t block;
    enum slot_state state;
    uint32_t n_hold;
    const struct cache_claim *wanted; /* by whom: not to be dropped before it was held */
    bool prefetched;       /* and not used yet */
    uint32_t round;        /* of the prefetch */
    /* SLOT_READING */
    struct slot *next;     /* in a queue */
    bool queued, urgent;
    uint32_t run, n_flying; /* the next run to read, and from where; reads under way */
    uint64_t at;
    bool failed;
};

/* Slots of one size. */
struct slot_class {
    uint64_t size;
    uint32_t n_block, n_slot;
    struct slot *slots;
    void *memory;
};
#define CLASS_MAX 16u

struct slot_queue {
    struct slot *first, *last;
};

struct cache {
    struct mem *mem;
    struct monitor *lock;        /* of everything below */
    struct cache_file *files;
    struct direct {
        struct file file;        /* fs NULL: there is none */
        bool off;                /* it did not work out */
    } *direct;                   /* [n_file] */
    uint32_t n_file;
    struct block *blocks;
    uint32_t n_block;
    uint8_t *class_of;           /* [n_block] */
    struct slot **slot_of;       /* [n_block] NULL: it has none */
    double *score;               /* [n_block] log2 of uses, each halved by its age, in units of time zero */
    double now, half_life;
    struct slot_class classes[CLASS_MAX];
    uint32_t n_class;
    struct cache_claim *claims;  /* who waits, the first one first */
    struct slot_queue urgent, idle;
    uint64_t n_done;             /* slots that were read, well or not */
    uint32_t round;
    glm_error failure;           /* the last one of a read */
    struct cache_stats stats;
    bool stop;
    struct thread *readers[64];
    uint32_t n_reader;
    bool (*warm)(void *user, uint32_t i);
    void *warm_user;
};

/* A block in its slot. Parts that lie one behind the other in a file are read as one run. A run's first byte has the same
 * place in its page as in the file, so that direct reads need no copy. */
struct layout {
    struct run {
        uint32_t file;
        uint64_t offset, bytes, at; /* at: of its byte `offset` in the slot */
    } run[BLOCK_PARTS];
    uint32_t n_run;
    uint64_t at[BLOCK_PARTS], size;
};
void block_lay_out(const struct block *b, struct layout *l);

/* cache_read.c; inside the lock */
void read_begin(struct cache *c, struct slot *s, bool urgent);
void read_hurry(struct cache *c, struct slot *s);
int32_t readers_open(struct cache *c, uint32_t n, glm_error *err); /* outside, like the next */
void readers_close(struct cache *c);

#endif
