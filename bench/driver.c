/* driver.c: see driver.h. */
#include "driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void fatal(const char *what, const glm_error *err)
{
    printf("error %s: %s\n", what, err ? err->message : "out of memory");
    exit(1);
}

double now(void) { return (double)os_now_ns() * 1e-9; }

int32_t random_id(uint64_t *state, uint32_t n_vocab)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (int32_t)((z ^ z >> 31) % n_vocab);
}

void driver_open(struct driver *d, const char *path, uint32_t n_threads, uint32_t cpu_mask)
{
    glm_error err = GLM_ERROR_INIT;
    struct ckpt_options co = { .weights = GLM_WEIGHTS_MAP, .fs = &d->fs };
    struct backend_options bo = { .n_threads = n_threads, .cpu_mask = cpu_mask };
    *d = (struct driver){ .path = path };
    mem_init(&d->mem, NULL);
    fs_init(&d->fs, NULL);
    if (ckpt_open(&d->mem, path, &co, &d->ckpt, &err) || net_open(&d->mem, d->ckpt, &bo, &d->net, &err))
        fatal("open", &err);
}

void driver_close(struct driver *d)
{
    pass_close(d->pass);
    net_close(d->net);
    ckpt_close(d->ckpt);
}

void seq_reserve(struct driver *d, struct kv_seq *s, uint32_t n_pos)
{
    struct kv_shape shape = net_kv_shape(d->net);
    uint32_t n = (n_pos + KV_PAGE_ROWS - 1) / KV_PAGE_ROWS;
    s->type = GLM_KV_BF16;
    if (n <= s->n_page)
        return;
    s->page = realloc(s->page, n * sizeof *s->page);
    for (; s->page && s->n_page < n; s->n_page++) {
        size_t bytes = kv_page_bytes(&shape, GLM_KV_BF16);
        s->page[s->n_page] = mem_alloc(&d->mem, bytes);
        if (!s->page[s->n_page])
            fatal("keys and values", NULL);
        memset(s->page[s->n_page], 0, bytes); /* page faults are not what is measured */
    }
}

void seq_free(struct driver *d, struct kv_seq *s)
{
    for (uint32_t i = 0; i < s->n_page; i++)
        mem_free(&d->mem, s->page[i]);
    free(s->page);
    *s = (struct kv_seq){ 0 };
}

void reserve_pass(struct driver *d, uint32_t n_ctx)
{
    glm_error err = GLM_ERROR_INIT;
    if (d->pass && n_ctx <= d->pass_ctx)
        return;
    pass_close(d->pass);
    d->pass_ctx = n_ctx;
    if (pass_open(d->net, CHUNK, 8, n_ctx, &d->pass, &err))
        fatal("pass_open", &err);
}

void run_pass(struct driver *d, const struct batch *b)
{
    glm_error err = GLM_ERROR_INIT;
    if (pass_begin(d->pass, b, &err))
        fatal("pass_begin", &err);
    for (bool done = false; !done;)
        if (pass_run(d->pass, 0, NULL, &done, &err))
            fatal("pass_run", &err);
}
