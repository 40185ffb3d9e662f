/* bandwidth.c: see bandwidth.h. Each thread reads its own part of the buffer, over and over until the time is up, with
 * enough independent loads under way to keep the memory busy.
 */
#include "bandwidth.h"
#include "progress.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MEASURE_NS 200000000u
#define STRIDE (64u << 10) /* bytes between two looks at the clock */

struct reader {
    struct bandwidth *b;
    const uint64_t *from;
    size_t n;              /* words, a multiple of STRIDE / 8 */
    uint64_t bytes, check;
    pthread_t thread;
};

struct bandwidth {
    uint32_t n_threads;
    size_t size;
    uint64_t *data;
    struct reader *readers;
    uint64_t deadline;     /* ns */
};

uint32_t bandwidth_cores(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
    return n < 1 ? 1 : n > 8 ? 8 : (uint32_t)n;
}

struct bandwidth *bandwidth_open(uint32_t n_threads, size_t most)
{
    struct bandwidth *b = calloc(1, sizeof *b);
    long pages = sysconf(_SC_AVPHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    size_t quarter = pages > 0 && page > 0 ? (size_t)pages / 4 * (size_t)page : most, unit = (size_t)n_threads * STRIDE;

    if (!b)
        return NULL;
    b->n_threads = n_threads;
    b->size = (most < quarter ? most : quarter) / unit * unit;
    b->size = b->size ? b->size : unit;
    b->readers = calloc(n_threads, sizeof *b->readers);
    b->data = aligned_alloc(64, b->size);
    if (!b->readers || !b->data) {
        bandwidth_close(b);
        return NULL;
    }
    memset(b->data, 1, b->size); /* pages of its own, not the one of zeros */
    return b;
}

void bandwidth_close(struct bandwidth *b)
{
    if (!b)
        return;
    free(b->readers);
    free(b->data);
    free(b);
}

size_t bandwidth_size(const struct bandwidth *b) { return b->size; }

static uint64_t read_stride(const uint64_t *p)
{
    uint64_t s[8] = { 0 };
    for (size_t i = 0; i < STRIDE / 8; i += 8)
        for (size_t k = 0; k < 8; k++)
            s[k] += p[i + k];
    return s[0] + s[1] + s[2] + s[3] + s[4] + s[5] + s[6] + s[7];
}

static void *read_part(void *user)
{
    struct reader *r = user;
    size_t at = 0;
    r->bytes = 0;
    do {
        r->check += read_stride(r->from + at);
        r->bytes += STRIDE;
        at = at + STRIDE / 8 == r->n ? 0 : at + STRIDE / 8;
    } while (progress_now() < r->b->deadline);
    return NULL;
}

double bandwidth_measure(struct bandwidth *b)
{
    size_t words = b->size / 8 / b->n_threads;
    uint64_t begin = progress_now(), total = 0;
    uint32_t n = 0;

    b->deadline = begin + MEASURE_NS;
    for (; n < b->n_threads; n++) {
        struct reader *r = &b->readers[n];
        *r = (struct reader){ .b = b, .from = b->data + n * words, .n = words };
        if (pthread_create(&r->thread, NULL, read_part, r))
            break;
    }
    for (uint32_t i = 0; i < n; i++) {
        pthread_join(b->readers[i].thread, NULL);
        total += b->readers[i].bytes;
    }
    return n < b->n_threads ? 0 : (double)total / ((double)(progress_now() - begin) * 1e-9);
}
