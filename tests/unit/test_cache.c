/* test_cache.c: the cache of file blocks: what is held is what the file has, who goes when there is no room, reads and
 * allocations that fail, and threads that want more than fits. */
#include "failing_alloc.h"
#include "lib/io/cache.h"

#include <check.h>

#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#define N_BLOCK 64u
#define BIG 20000u    /* bytes of a block's first part */
#define SMALL 3000u   /* of its second, elsewhere */
#define FILE_BYTES (N_BLOCK * (BIG + SMALL) + 777u)

static struct mem mem;
static struct fs fs;
static struct file file;
static char path[] = "/tmp/glm45-test-cache-XXXXXX";
static struct block blocks[N_BLOCK];
static atomic_uint n_read, fail_from; /* of the host's hook: reads from the fail_from-th on fail; 0: none */
static atomic_ullong failed_at;

static uint8_t byte_at(uint64_t offset) { return (uint8_t)(offset * 2654435761u >> 13); }

static void setup(void)
{
    uint8_t *bytes = malloc(FILE_BYTES);
    glm_error err = GLM_ERROR_INIT;
    int fd;

    memcpy(path + sizeof path - 7, "XXXXXX", 6);
    fd = mkstemp(path);
    for (uint32_t i = 0; i < FILE_BYTES; i++)
        bytes[i] = byte_at(i);
    ck_assert_int_eq(write(fd, bytes, FILE_BYTES), FILE_BYTES);
    close(fd);
    free(bytes);
    mem_init(&mem, NULL);
    fs_init(&fs, NULL);
    ck_assert_int_eq(fs_open(&fs, path, &file, &err), GLM_OK);
    memset(blocks, 0, sizeof blocks);
    for (uint32_t i = 0; i < N_BLOCK; i++) {
        blocks[i].part[0] = (struct place){ 0, i * BIG, BIG };
        blocks[i].part[2] = (struct place){ 0, N_BLOCK * BIG + 777 + i * SMALL, SMALL };
    }
    atomic_store(&n_read, 0);
    atomic_store(&fail_from, 0);
}

static void teardown(void)
{
    fs_close(&file);
    unlink(path);
    ck_assert_uint_eq(mem.used, 0);
}

static struct cache_options options(uint32_t n_slot)
{
    static struct cache_file files[1];
    files[0] = (struct cache_file){ &file, path };
    return (struct cache_options){ .fs = &fs, .files = files, .n_file = 1, .blocks = blocks, .n_block = N_BLOCK,
        .bytes = n_slot * cache_block_bytes(&blocks[0]), .least = 2 };
}

static struct cache *open_cache(const struct cache_options *o)
{
    struct cache *c = NULL;
    glm_error err = GLM_ERROR_INIT;
    ck_assert_msg(!cache_open(&mem, o, &c, &err), "%s", err.message);
    return c;
}

static void check_run(const uint8_t *at, uint64_t offset, uint64_t bytes)
{
    uint64_t i = 0;
    while (i < bytes && at[i] == byte_at(offset + i))
        i++;
    ck_assert_uint_eq(i, bytes);
}

static void check_bytes(const struct cache *c, uint32_t b)
{
    const void *at[BLOCK_PARTS];
    cache_parts(c, b, at);
    ck_assert_ptr_null(at[1]);
    for (uint32_t p = 0; p < 3; p += 2)
        check_run(at[p], blocks[b].part[p].offset, blocks[b].part[p].bytes);
}

/* Holds one block, however long it takes. */
static int32_t hold(struct cache *c, uint32_t b, glm_error *err)
{
    struct cache_claim claim = { 0 };
    uint32_t n = 0;
    int32_t rc = cache_hold(c, &claim, &b, 1, false, &n, err);
    while (!rc && n == 0) {
        cache_wait(c, &claim, 1000000);
        rc = cache_hold(c, &claim, &b, 1, false, &n, err);
    }
    return rc;
}

static void use(struct cache *c, uint32_t b)
{
    glm_error err = GLM_ERROR_INIT;
    uint32_t one = 1;
    cache_note(c, &b, &one, 1, 1);
    ck_assert_int_eq(hold(c, b, &err), GLM_OK);
    check_bytes(c, b);
    cache_drop(c, &b, 1);
}

START_TEST(bytes_are_the_files)
{
    for (int buffered = 0; buffered < 2; buffered++) {
        struct cache_options o = options(5);
        struct cache *c;
        struct cache_stats st;
        o.buffered = buffered;
        c = open_cache(&o);
        for (uint32_t i = 0; i < 3 * N_BLOCK; i++)
            use(c, i * 37 % N_BLOCK);
        use(c, (3 * N_BLOCK - 1) * 37 % N_BLOCK);
        cache_stats(c, &st);
        ck_assert_uint_eq(st.n_hit, 1);
        ck_assert_uint_eq(st.n_miss, 3 * N_BLOCK);
        ck_assert_uint_ge(st.bytes_read, 3ull * N_BLOCK * (BIG + SMALL));
        cache_close(c);
    }
}
END_TEST

/* A part that follows another in the file is read with it; a part of 1.5 pieces in two reads. */
START_TEST(parts_that_touch)
{
    struct block b = { .part = { { 0, 5, 4000 }, { 0, 4005, 200 }, { 0, 4205, 1200000 } } };
    struct cache_options o = options(5);
    const void *at[BLOCK_PARTS];
    glm_error err = GLM_ERROR_INIT;
    struct cache *c;

    ck_assert_uint_lt(cache_block_bytes(&b), 4200 + 1200000 + 3 * 4096);
    o.blocks = &b;
    o.n_block = 1;
    o.bytes = 2000000;
    c = open_cache(&o);
    ck_assert(cache_is_whole(c));
    ck_assert_int_eq(hold(c, 0, &err), GLM_OK);
    cache_parts(c, 0, at);
    ck_assert_ptr_eq((const char *)at[0] + 4000, at[1]);
    check_run(at[0], 5, 1204200);
    cache_drop(c, &(uint32_t){ 0 }, 1);
    cache_close(c);
}
END_TEST

START_TEST(what_is_used_often_stays)
{
    struct cache_options o = options(10);
    struct cache *c = open_cache(&o);
    struct cache_stats before, after;

    for (uint32_t i = 0; i < 100; i++)
        use(c, i % 5);
    for (uint32_t i = 5; i < N_BLOCK; i++) /* all others once, as a long prompt does */
        use(c, i);
    cache_stats(c, &before);
    for (uint32_t i = 0; i < 5; i++)
        use(c, i);
    cache_stats(c, &after);
    ck_assert_uint_eq(after.n_hit - before.n_hit, 5);
    cache_close(c);
}
END_TEST

/* And goes when it is used no more. */
START_TEST(what_was_used_once_goes)
{
    struct cache_options o = options(10);
    struct cache *c;
    struct cache_stats before, after;

    o.half_life = 20;
    c = open_cache(&o);
    for (uint32_t i = 0; i < 100; i++)
        use(c, i % 5);
    for (uint32_t i = 0; i < 300; i++)
        use(c, 20 + i % 10);
    cache_stats(c, &before);
    for (uint32_t i = 0; i < 10; i++)
        use(c, 20 + i);
    cache_stats(c, &after);
    ck_assert_uint_eq(after.n_hit - before.n_hit, 10);
    cache_close(c);
}
END_TEST

static uint64_t zipf_hits(double half_life)
{
    struct cache_options o = options(16);
    struct cache *c;
    struct cache_stats st;
    uint64_t state = 5;
    double sum = 0;

    o.half_life = half_life;
    c = open_cache(&o);
    for (uint32_t r = 0; r < N_BLOCK; r++)
        sum += 1.0 / (r + 1);
    for (uint32_t i = 0; i < 3000; i++) {
        uint32_t b = 0, one = 1;
        glm_error err = GLM_ERROR_INIT;
        state = state * 6364136223846793005u + 1442695040888963407u;
        for (double u = (double)(state >> 11) * 0x1p-53 * sum; b + 1 < N_BLOCK && u > 1.0 / (b + 1); b++)
            u -= 1.0 / (b + 1);
        b = b * 37 % N_BLOCK;
        cache_note(c, &b, &one, 1, 1);
        ck_assert_int_eq(hold(c, b, &err), GLM_OK);
        cache_drop(c, &b, 1);
    }
    cache_stats(c, &st);
    ck_assert_uint_eq(st.n_hit + st.n_miss, 3000);
    cache_close(c);
    return st.n_hit;
}

/* The least recently used going first is what a half-life of no time means. */
START_TEST(frequency_beats_recency)
{
    uint64_t ours = zipf_hits(0), lru = zipf_hits(1e-3);
    ck_assert_msg(ours > lru + lru / 20, "%llu hits, %llu of LRU", (unsigned long long)ours, (unsigned long long)lru);
}
END_TEST

START_TEST(several_at_once)
{
    struct cache_options o = options(8);
    struct cache *c = open_cache(&o);
    struct cache_claim claim = { 0 };
    uint32_t want[6] = { 1, 2, 3, 4, 5, 6 }, n = 0, n_left = 6, *at = want, seen = 0;
    glm_error err = GLM_ERROR_INIT;

    ck_assert_uint_eq(cache_hold_most(c, 0), 4);
    while (n_left) {
        ck_assert_int_eq(cache_hold(c, &claim, at, n_left, false, &n, &err), GLM_OK);
        ck_assert_uint_le(n, 4);
        for (uint32_t i = 0; i < n; i++) {
            check_bytes(c, at[i]);
            seen |= 1u << at[i];
        }
        cache_drop(c, at, n);
        at += n;
        n_left -= n;
        if (n == 0)
            cache_wait(c, &claim, 1000000);
    }
    ck_assert_uint_eq(seen, 0x7e);
    want[0] = 1; /* all of them, or none */
    want[1] = 9;
    do {
        ck_assert_int_eq(cache_hold(c, &claim, want, 2, true, &n, &err), GLM_OK);
        ck_assert(n == 0 || n == 2);
        if (n == 0)
            cache_wait(c, &claim, 1000000);
    } while (n == 0);
    cache_drop(c, want, 2);
    cache_quit(c, &claim, want, 2);
    cache_close(c);
}
END_TEST

START_TEST(guesses)
{
    struct cache_options o = options(8);
    struct cache *c = open_cache(&o);
    struct cache_stats st;
    uint32_t held[4] = { 0, 1, 2, 3 }, guess[3] = { 10, 11, 12 }, one = 1;
    glm_error err = GLM_ERROR_INIT;

    for (uint32_t i = 0; i < 4; i++)
        ck_assert_int_eq(hold(c, held[i], &err), GLM_OK);
    cache_prefetch(c, guess, 3);
    for (uint32_t i = 0; i < 4; i++)
        check_bytes(c, held[i]);
    cache_note(c, &guess[1], &one, 1, 1);
    ck_assert_int_eq(hold(c, guess[1], &err), GLM_OK);
    check_bytes(c, guess[1]);
    cache_stats(c, &st);
    ck_assert_uint_eq(st.n_prefetched, 3);
    ck_assert_uint_eq(st.n_prefetch_used, 1);
    cache_prefetch(c, (const uint32_t[]){ 20, 21, 22, 23, 24, 25, 26, 27 }, 8); /* more than there is room for */
    cache_drop(c, held, 4);
    cache_drop(c, &guess[1], 1);
    for (uint32_t i = 0; i < N_BLOCK; i++)
        use(c, i);
    cache_close(c);
}
END_TEST

/* ---- what fails ----------------------------------------------------------------------------------------------------- */

static int32_t GLM_CALL host_open(void *user, const char *name, void **handle, uint64_t *size)
{
    (void)user, (void)name;
    *handle = &n_read;
    *size = FILE_BYTES;
    return GLM_OK;
}

static int32_t GLM_CALL host_read(void *user, void *handle, uint64_t offset, void *to, uint64_t size)
{
    uint32_t from = atomic_load(&fail_from);
    (void)user, (void)handle;
    if (from && atomic_fetch_add(&n_read, 1) + 1 >= from) {
        atomic_store(&failed_at, offset);
        return GLM_EIO;
    }
    for (uint64_t i = 0; i < size; i++)
        ((uint8_t *)to)[i] = byte_at(offset + i);
    return GLM_OK;
}

static void GLM_CALL host_close(void *user, void *handle) { (void)user, (void)handle; }

static const glm_files hosts_files = { sizeof(glm_files), 0, NULL, host_open, host_read, NULL, NULL, host_close };

START_TEST(reads_that_fail)
{
    struct fs host;
    struct file hosted;
    glm_error err = GLM_ERROR_INIT;

    fs_init(&host, &hosts_files);
    ck_assert_int_eq(fs_open(&host, "weights", &hosted, &err), GLM_OK);
    struct cache_file files[1] = { { &hosted, "weights" } };
    struct cache_options o = options(6);
    o.fs = &host;
    o.files = files;
    for (uint32_t k = 1; k < 12; k++) {
        struct cache *c = open_cache(&o);
        uint32_t n_good = 0, guess[2] = { 40, 41 };
        atomic_store(&n_read, 0);
        atomic_store(&fail_from, k);
        err = (glm_error)GLM_ERROR_INIT;
        for (uint32_t b = 0; b < 8 && !err.code; b++)
            if (!hold(c, b, &err)) {
                check_bytes(c, b);
                cache_drop(c, &b, 1);
                n_good++;
            }
        ck_assert_uint_eq(n_good, (k - 1) / 2); /* a block takes two reads */
        ck_assert_int_eq(err.code, GLM_EIO);
        ck_assert_str_eq(err.where, "weights");
        ck_assert_uint_eq(err.offset, atomic_load(&failed_at));
        cache_prefetch(c, guess, 2); /* fails, and nobody hears of it */
        usleep(1000);
        atomic_store(&fail_from, 0);
        for (uint32_t b = 0; b < N_BLOCK; b++)
            use(c, b);
        cache_close(c);
    }
}
END_TEST

/* A file that is cut short while it is in use. */
START_TEST(a_file_that_shrinks)
{
    for (int buffered = 0; buffered < 2; buffered++) {
        struct cache_options o = options(6);
        glm_error err = GLM_ERROR_INIT;
        struct cache *c;
        o.buffered = buffered;
        c = open_cache(&o);
        use(c, 3);
        ck_assert_int_eq(truncate(path, 100000), 0);
        ck_assert_int_eq(hold(c, 30, &err), GLM_EIO);
        ck_assert_ptr_nonnull(strstr(err.message, "cut short"));
        cache_close(c);
        teardown();
        setup();
    }
}
END_TEST

START_TEST(too_few_bytes)
{
    struct cache_options o = options(1);
    struct cache *c;
    glm_error err = GLM_ERROR_INIT;

    ck_assert_int_eq(cache_open(&mem, &o, &c, &err), GLM_EINVAL);
    ck_assert_ptr_null(c);
    ck_assert_uint_gt(err.offset, cache_block_bytes(&blocks[0]));
    o.bytes = err.offset - 1;
    ck_assert_int_eq(cache_open(&mem, &o, &c, &err), GLM_EINVAL);
    o.bytes = err.offset;
    c = open_cache(&o);
    ck_assert_uint_eq(cache_hold_most(c, 0), 1);
    for (uint32_t b = 0; b < N_BLOCK; b++)
        use(c, b);
    cache_close(c);
}
END_TEST

/* Layers of two sizes each get their share. */
START_TEST(two_sizes)
{
    struct cache_options o = options(12);
    struct cache *c;

    for (uint32_t b = N_BLOCK / 2; b < N_BLOCK; b++)
        blocks[b].part[2].bytes = 0;
    o.least = 4;
    c = open_cache(&o);
    ck_assert_uint_ge(cache_hold_most(c, 0) + cache_hold_most(c, N_BLOCK - 1), 5);
    for (uint32_t i = 0; i < 2 * N_BLOCK; i++) {
        uint32_t b = i * 29 % N_BLOCK;
        const void *at[BLOCK_PARTS];
        glm_error err = GLM_ERROR_INIT;
        ck_assert_int_eq(hold(c, b, &err), GLM_OK);
        cache_parts(c, b, at);
        ck_assert_uint_eq(*((const uint8_t *)at[0] + BIG - 1), byte_at(b * BIG + BIG - 1));
        ck_assert_int_eq(at[2] == NULL, b >= N_BLOCK / 2);
        cache_drop(c, &b, 1);
    }
    cache_close(c);
}
END_TEST

/* A block that alone has its size, and one slot, among others. */
START_TEST(sizes_in_one_hold)
{
    struct cache_options o = options(16);
    struct cache *c;
    struct cache_claim claim = { 0 };
    glm_error err = GLM_ERROR_INIT;

    blocks[2].part[2].bytes = 0;
    c = open_cache(&o);
    ck_assert_uint_eq(cache_hold_most(c, 2), 1);
    for (uint32_t round = 0; round < 50; round++) {
        uint32_t want[4] = { 2, 3, 4, 5 + round }, n = 0, all = 0;
        while (n == 0) {
            ck_assert_int_eq(cache_hold(c, &claim, want, 4, false, &n, &err), GLM_OK);
            if (n == 0)
                cache_wait(c, &claim, 1000000);
        }
        cache_drop(c, want, n); /* as a pass does between steps; then it wants the same ones */
        cache_quit(c, &claim, want, 4);
        for (uint32_t tries = 0; all != n; tries++) {
            ck_assert_uint_lt(tries, 10000);
            ck_assert_int_eq(cache_hold(c, &claim, want, n, true, &all, &err), GLM_OK);
            if (all == 0)
                cache_wait(c, &claim, 1000000);
        }
        cache_drop(c, want, n);
        cache_quit(c, &claim, want, 4);
    }
    cache_close(c);
}
END_TEST

START_TEST(allocations_that_fail)
{
    for (uint64_t k = 1;; k++) {
        struct failing_alloc f;
        struct cache_options o = options(5);
        struct cache *c = NULL;
        glm_error err = GLM_ERROR_INIT;
        struct mem m;
        failing_init(&f, k, FAIL_ONCE);
        const glm_allocator hook = failing_hook(&f);
        mem_init(&m, &hook);
        int32_t rc = cache_open(&m, &o, &c, &err);
        if (!rc)
            use(c, 7);
        cache_close(c);
        ck_assert_uint_eq(f.bytes, 0);
        ck_assert_uint_eq(f.n_wrong, 0);
        if (!failing_hit(&f))
            break;
        ck_assert_int_eq(rc, GLM_ENOMEM);
        ck_assert_ptr_null(c);
    }
}
END_TEST

/* ---- threads -------------------------------------------------------------------------------------------------------- */

struct user {
    struct cache *c;
    uint64_t state;
};

/* Windows of several blocks, all of them at once or as they come, with hands full and empty; some give up. */
static void *use_windows(void *arg)
{
    struct user *u = arg;
    struct cache_claim claim = { 0 };
    glm_error err = GLM_ERROR_INIT;

    for (uint32_t round = 0; round < 200; round++) {
        bool all = round % 2;
        uint32_t want[3], count[3] = { 1, 1, 1 }, n = 0, tries = 0;
        u->state = u->state * 6364136223846793005u + 1442695040888963407u;
        want[0] = (uint32_t)(u->state >> 33) % N_BLOCK;
        want[1] = (want[0] + 1 + (uint32_t)(u->state >> 40) % 20) % N_BLOCK;
        want[2] = (want[1] + 21) % N_BLOCK;
        cache_note(u->c, want, count, 3, 1);
        do {
            if (cache_hold(u->c, &claim, want, 3, all, &n, &err))
                abort();
            if (n == 0)
                cache_wait(u->c, &claim, 1000000);
        } while (n == 0 && (round % 7 || tries++ < 1));
        for (uint32_t i = 0; i < n; i++)
            check_bytes(u->c, want[i]);
        cache_drop(u->c, want, n);
        cache_quit(u->c, &claim, want, 3);
        if (round % 5 == 0)
            cache_prefetch(u->c, want, 3);
    }
    return NULL;
}

START_TEST(many_users_of_few_slots)
{
    struct cache_options o = options(6);
    struct cache *c = open_cache(&o);
    pthread_t id[5];
    struct user u[5];

    for (uint32_t i = 0; i < 5; i++) {
        u[i] = (struct user){ c, i + 1 };
        ck_assert_int_eq(pthread_create(&id[i], NULL, use_windows, &u[i]), 0);
    }
    for (uint32_t i = 0; i < 5; i++)
        pthread_join(id[i], NULL);
    cache_close(c);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cache");
    SRunner *runner = srunner_create(suite);
    TCase *all = tcase_create("all");
    int failed;

    tcase_add_checked_fixture(all, setup, teardown);
    tcase_add_test(all, bytes_are_the_files);
    tcase_add_test(all, parts_that_touch);
    tcase_add_test(all, what_is_used_often_stays);
    tcase_add_test(all, what_was_used_once_goes);
    tcase_add_test(all, frequency_beats_recency);
    tcase_add_test(all, several_at_once);
    tcase_add_test(all, guesses);
    tcase_add_test(all, reads_that_fail);
    tcase_add_test(all, a_file_that_shrinks);
    tcase_add_test(all, too_few_bytes);
    tcase_add_test(all, two_sizes);
    tcase_add_test(all, sizes_in_one_hold);
    tcase_add_test(all, allocations_that_fail);
    tcase_add_test(all, many_users_of_few_slots);
    suite_add_tcase(suite, all);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
