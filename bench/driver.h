/* driver.h: forward passes of lib/model as the engine drives them, for benches that measure the passes themselves: the
 * public API neither gives a draft's time nor forbids instruction sets. What fails ends the program.
 */
#ifndef GLM_BENCH_DRIVER_H
#define GLM_BENCH_DRIVER_H

#include "../lib/model/model.h"

#define CHUNK 512u /* rows of a prefill pass, as the engine's */

struct driver {
    const char *path;
    struct mem mem;
    struct fs fs;
    struct ckpt *ckpt;
    struct net *net;
    struct pass *pass; /* for positions below pass_ctx, up to 8 rows with logits */
    uint32_t pass_ctx;
};

void fatal(const char *what, const glm_error *err); /* err NULL: out of memory */
double now(void);                                    /* seconds */
/* The same numbers as in rival.py: engines see the same tokens and route to the same experts. */
int32_t random_id(uint64_t *state, uint32_t n_vocab);
void driver_open(struct driver *d, const char *path, uint32_t n_threads, uint32_t cpu_mask);
void driver_close(struct driver *d);
void seq_reserve(struct driver *d, struct kv_seq *s, uint32_t n_pos); /* bfloat16 pages */
void seq_free(struct driver *d, struct kv_seq *s);
void reserve_pass(struct driver *d, uint32_t n_ctx);
void run_pass(struct driver *d, const struct batch *b);

#endif
