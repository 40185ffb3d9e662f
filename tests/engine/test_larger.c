/* test_larger.c: models with a cache of experts (glm_model_options.expert_cache_bytes), through the public API: the same
 * answers bit for bit from every kind of checkpoint, however small the cache; reads that are slow or fail; steps, batches,
 * the worker, cancelling, forks. tests/unit/test_cache.c has the cache itself. */
#include "host.h"
#include "../unit/failing_alloc.h"

#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static glm_model *open_with(const char *path, uint64_t cache, const glm_files *files, uint32_t weights)
{
    glm_model_options o = GLM_MODEL_OPTIONS_INIT;
    glm_error err = GLM_ERROR_INIT;
    glm_model *m = NULL;
    o.n_threads = 2;
    o.expert_cache_bytes = cache;
    o.files = files;
    o.weights = weights;
    OK(glm_model_open(path, &o, &m, &err));
    return m;
}

/* The least that the model takes: a refusal names it. */
static uint64_t least_cache(const char *path)
{
    glm_model_options o = GLM_MODEL_OPTIONS_INIT;
    glm_error err = GLM_ERROR_INIT;
    glm_model *m = (glm_model *)(void *)&o;
    o.expert_cache_bytes = 1;
    ck_assert_int_eq(glm_model_open(path, &o, &m, &err), GLM_EINVAL);
    ck_assert_ptr_null(m);
    ck_assert_str_eq(err.where, "expert_cache_bytes");
    ck_assert_ptr_nonnull(strstr(err.message, "at least"));
    return err.offset;
}

static glm_stats stats_of(glm_session *s)
{
    glm_stats st = GLM_STATS_INIT;
    glm_error err = GLM_ERROR_INIT;
    OK(glm_session_stats(s, &st, &err));
    return st;
}

static void step_ready(glm_session *s, uint64_t budget_ns)
{
    glm_event ev = GLM_EVENT_INIT;
    glm_step how = GLM_STEP_INIT;
    glm_error err = GLM_ERROR_INIT;
    how.budget_ns = budget_ns;
    while (ev.type != GLM_EVENT_READY)
        OK(glm_session_step(s, &how, &ev, &err));
}

/* ---- one answer ------------------------------------------------------------------------------------------------------ */

#define N_PROMPT 40u
#define N_MORE 6u

/* Logits of all rows of a prompt, then of tokens one by one. */
static float *logits_of(glm_model *m, uint64_t budget_ns, glm_stats *st)
{
    glm_model_info info = GLM_MODEL_INFO_INIT;
    glm_error err = GLM_ERROR_INIT;
    int32_t ids[N_PROMPT + N_MORE];
    glm_session *s = NULL;
    float *out;

    OK(glm_model_describe(m, &info, &err));
    out = malloc((size_t)(N_PROMPT + N_MORE) * info.n_vocab * sizeof *out);
    for (uint32_t i = 0; i < N_PROMPT + N_MORE; i++)
        ids[i] = (int32_t)((i * 2654435761u >> 7) % info.n_vocab);
    OK(glm_session_open(m, NULL, &s, &err));
    for (uint32_t at = 0, n = N_PROMPT; at < N_PROMPT + N_MORE; at += n, n = 1) {
        OK(glm_session_feed(s, ids + at, n, GLM_ROWS_ALL, &err));
        step_ready(s, budget_ns);
        for (uint32_t r = 0; r < n; r++) {
            const float *row;
            OK(glm_session_logits(s, r, &row, &err));
            memcpy(out + (size_t)(at + r) * info.n_vocab, row, info.n_vocab * sizeof *out);
        }
    }
    *st = stats_of(s);
    glm_session_close(s);
    return out;
}

static void check_checkpoint(const char *path)
{
    glm_model_info info = GLM_MODEL_INFO_INIT;
    glm_error err = GLM_ERROR_INIT;
    glm_model *m = open_with(path, 0, NULL, GLM_WEIGHTS_MAP);
    uint64_t least = least_cache(path);
    glm_stats st;
    float *want = logits_of(m, 0, &st);

    OK(glm_model_describe(m, &info, &err));
    ck_assert_uint_eq(st.n_expert_hit + st.n_expert_miss + st.expert_bytes_read, 0);
    glm_model_close(m);
    for (uint32_t i = 0; i < 4; i++) {
        const uint64_t cache[4] = { least, 2 * least, least, UINT64_MAX };
        m = open_with(path, cache[i], NULL, i == 2 ? GLM_WEIGHTS_READ : GLM_WEIGHTS_MAP);
        float *got = logits_of(m, i == 1 ? 1000 : 0, &st);
        ck_assert_msg(memcmp(got, want, (size_t)(N_PROMPT + N_MORE) * info.n_vocab * sizeof *got) == 0,
            "%s: other logits with a cache of %llu bytes", path, (unsigned long long)cache[i]);
        ck_assert_uint_gt(st.n_expert_miss, 0);
        ck_assert_uint_gt(st.expert_bytes_read, 0);
        free(got);
        glm_model_close(m);
    }
    free(want);
}

/* Plain and fused experts, one file and several, every kind of scales. */
static const char *const checkpoints[] = { "air-bf16", "air-fused", "air-fp8", "air-int4-packed-sym", "air-int4-packed-asym",
    "air-int4-awq-asym", "air-int4-gptq-asym", "glm45-sharded", "glm45-fp8-block", "group-mixed",
    "air256-gguf-split/split-00001-of-00003.gguf", "air256-gguf-Q4_K_M/Q4_K_M.gguf", "air256-gguf-Q4_0/Q4_0.gguf",
    "glm45mtp-gguf-Q8_0/Q8_0.gguf" };

START_TEST(logits_are_the_same)
{
    char path[512];
    snprintf(path, sizeof path, "%s/golden/%s", getenv("GLM_TEST_DATA"), checkpoints[_i]);
    check_checkpoint(path);
}
END_TEST

static void ask(glm_session *s, uint32_t speculation)
{
    (void)speculation;
    host_turn(s, GLM_THINK_ON, 60, 0.8f, 11);
    host_say(s, "What is 23 + 58?");
}

static glm_session *open_speculating(glm_model *m, uint32_t speculation)
{
    glm_session_options o = GLM_SESSION_OPTIONS_INIT;
    glm_error err = GLM_ERROR_INIT;
    glm_session *s = NULL;
    o.n_ctx = 1024;
    o.speculation = speculation;
    OK(glm_session_open(m, &o, &s, &err));
    return s;
}

START_TEST(text_is_the_same)
{
    const char *path = getenv("GLM_TEST_MODEL");
    uint64_t least = least_cache(path);
    static struct host_answer want, got;
    glm_model *m = open_with(path, 0, NULL, GLM_WEIGHTS_MAP);
    glm_session *s = open_speculating(m, GLM_SPECULATION_OFF);

    ask(s, 0);
    host_finish(s, 0, NULL, &want);
    glm_session_close(s);
    glm_model_close(m);
    for (uint32_t i = 0; i < 6; i++) {
        m = open_with(path, i < 3 ? least : 3 * least, NULL, GLM_WEIGHTS_MAP);
        s = open_speculating(m, i % 3 == 2 ? GLM_SPECULATION_ON : GLM_SPECULATION_OFF);
        ask(s, 0);
        host_finish(s, i % 3 == 1 ? 1 : 0, NULL, &got);
        ck_assert_str_eq(got.text, want.text);
        ck_assert_str_eq(got.reasoning, want.reasoning);
        glm_session_close(s);
        glm_model_close(m);
    }
}
END_TEST

/* Both halves of a fork compute at once on two threads, with room for one token's experts each. */
struct half {
    glm_session *s;
    struct host_answer answer;
};

static void *finish_half(void *arg)
{
    struct half *h = arg;
    host_finish(h->s, 200000, NULL, &h->answer);
    return NULL;
}

START_TEST(forks_on_two_threads)
{
    const char *path = getenv("GLM_TEST_MODEL");
    glm_model *m = open_with(path, least_cache(path), NULL, GLM_WEIGHTS_MAP);
    glm_session *s = open_speculating(m, GLM_SPECULATION_OFF);
    static struct half half[4];
    glm_event ev = GLM_EVENT_INIT;
    glm_error err = GLM_ERROR_INIT;
    pthread_t id[4];

    ask(s, 0);
    OK(glm_session_step(s, NULL, &ev, &err));
    half[0].s = s;
    for (uint32_t i = 1; i < 4; i++)
        OK(glm_session_fork(s, &half[i].s, &err));
    for (uint32_t i = 0; i < 4; i++)
        ck_assert_int_eq(pthread_create(&id[i], NULL, finish_half, &half[i]), 0);
    for (uint32_t i = 0; i < 4; i++)
        pthread_join(id[i], NULL);
    for (uint32_t i = 0; i < 4; i++) {
        ck_assert_str_eq(half[i].answer.text, half[0].answer.text);
        ck_assert_str_eq(half[i].answer.reasoning, half[0].answer.reasoning);
        glm_session_close(half[i].s);
    }
    glm_model_close(m);
}
END_TEST

/* ---- a slow, failing or shrinking disk ---------------------------------------------------------------------------------- */

static atomic_uint slow_us, n_read, fail_from; /* of reads that are not of open's */
static atomic_int n_inside, overlapped;

static int32_t GLM_CALL host_open(void *user, const char *name, void **file, uint64_t *size)
{
    struct stat st;
    int fd = open(name, O_RDONLY);
    (void)user;
    if (fd < 0 || fstat(fd, &st) || !S_ISREG(st.st_mode)) {
        if (fd >= 0)
            close(fd);
        return GLM_EIO;
    }
    *file = (void *)((intptr_t)fd + 1);
    *size = (uint64_t)st.st_size;
    return GLM_OK;
}

static int32_t GLM_CALL host_read(void *user, void *file, uint64_t offset, void *to, uint64_t size)
{
    uint32_t us = atomic_load(&slow_us), from = atomic_load(&fail_from);
    int32_t rc = GLM_OK;
    (void)user;
    if (atomic_fetch_add(&n_inside, 1))
        atomic_store(&overlapped, 1);
    if (us)
        usleep(us);
    if (from && atomic_fetch_add(&n_read, 1) + 1 >= from)
        rc = GLM_EIO;
    else if (pread((int)((intptr_t)file - 1), to, size, (off_t)offset) != (ssize_t)size)
        rc = GLM_EIO;
    atomic_fetch_sub(&n_inside, 1);
    return rc;
}

static void GLM_CALL host_close(void *user, void *file)
{
    (void)user;
    close((int)((intptr_t)file - 1));
}

/* From here on reads are fine again; those that have failed already are over and known. */
static void stop_failing(void)
{
    atomic_store(&fail_from, 0);
    do
        usleep(20000);
    while (atomic_load(&n_inside));
}

static const glm_files slow_files = { sizeof(glm_files), 0, NULL, host_open, host_read, NULL, NULL, host_close };

static glm_model *open_slow(void)
{
    const char *path = getenv("GLM_TEST_MODEL");
    atomic_store(&slow_us, 0);
    atomic_store(&fail_from, 0);
    atomic_store(&n_read, 0);
    return open_with(path, least_cache(path), &slow_files, GLM_WEIGHTS_MAP);
}

START_TEST(steps_do_not_wait_for_the_disk)
{
    glm_model *m = open_slow();
    glm_session *s = open_speculating(m, GLM_SPECULATION_OFF);
    glm_step how = GLM_STEP_INIT;
    glm_event ev = GLM_EVENT_INIT;
    glm_error err = GLM_ERROR_INIT;
    uint64_t late = 0;
    uint32_t n_early = 0;

    ask(s, 0);
    OK(glm_session_step(s, NULL, &ev, &err)); /* the prompt */
    atomic_store(&slow_us, 100000);
    how.budget_ns = 2000000;
    for (uint32_t i = 0; i < 100; i++) {
        uint64_t begin = now_ns(), took;
        OK(glm_session_step(s, &how, &ev, &err));
        took = now_ns() - begin;
        n_early += took < 50000000; /* on a busy machine some steps are late all the same */
        late = took > late ? took : late;
    }
    ck_assert_msg(n_early >= 80, "%u of 100 steps; the latest took %llu us", n_early, (unsigned long long)late / 1000);
    atomic_store(&slow_us, 0);
    ck_assert_int_eq(atomic_load(&overlapped), 0);
    ck_assert_uint_gt(stats_of(s).expert_wait_ns, 50000000);
    glm_session_close(s);
    glm_model_close(m);
}
END_TEST

static void *cancel_soon(void *arg)
{
    usleep(50000);
    glm_session_cancel(arg);
    return NULL;
}

START_TEST(cancel_does_not_wait_for_the_disk)
{
    glm_model *m = open_slow();
    glm_session *s = open_speculating(m, GLM_SPECULATION_OFF);
    glm_event ev = GLM_EVENT_INIT;
    glm_error err = GLM_ERROR_INIT;
    static struct host_answer a;
    pthread_t id;
    uint64_t begin;

    ask(s, 0);
    OK(glm_session_step(s, NULL, &ev, &err));
    atomic_store(&slow_us, 1000000);
    ck_assert_int_eq(pthread_create(&id, NULL, cancel_soon, s), 0);
    begin = now_ns();
    while (ev.type != GLM_EVENT_TURN_END)
        OK(glm_session_step(s, NULL, &ev, &err));
    ck_assert_uint_lt(now_ns() - begin, 700000000);
    ck_assert_uint_eq(ev.end_reason, GLM_END_CANCELLED);
    pthread_join(id, NULL);
    atomic_store(&slow_us, 0);
    host_say(s, "And 1 + 1?");
    host_finish(s, 0, NULL, &a);
    glm_session_close(s);
    glm_model_close(m);
}
END_TEST

START_TEST(reads_that_fail)
{
    static struct host_answer want, got;
    glm_model *m = open_slow();
    glm_session *s = open_speculating(m, GLM_SPECULATION_OFF);

    ask(s, 0);
    host_finish(s, 0, NULL, &want);
    glm_session_close(s);
    for (uint32_t from = 1; from < 60; from += 7) {
        glm_error err = GLM_ERROR_INIT;
        glm_event ev = GLM_EVENT_INIT;
        int32_t rc = GLM_OK;
        s = open_speculating(m, GLM_SPECULATION_ON);
        ask(s, 0);
        atomic_store(&n_read, 0);
        atomic_store(&fail_from, from);
        while (!rc && ev.type != GLM_EVENT_TURN_END)
            rc = glm_session_step(s, NULL, &ev, &err);
        stop_failing();
        ck_assert_int_eq(rc, GLM_EIO);
        ck_assert_ptr_nonnull(strstr(err.where, "model.safetensors"));
        ck_assert_uint_gt(err.offset, 0);
        host_finish(s, 0, NULL, &got); /* the message is still to be answered */
        ck_assert_str_eq(got.text, want.text);
        ck_assert_str_eq(got.reasoning, want.reasoning);
        glm_session_close(s);
    }
    glm_model_close(m);
}
END_TEST

START_TEST(a_feed_that_fails)
{
    glm_model *m = open_slow();
    glm_session *s = open_speculating(m, GLM_SPECULATION_OFF);
    glm_event ev = GLM_EVENT_INIT;
    glm_error err = GLM_ERROR_INIT;
    const int32_t ids[5] = { 300, 301, 302, 303, 304 };
    const float *logits;

    atomic_store(&fail_from, 3);
    OK(glm_session_feed(s, ids, 5, GLM_ROWS_LAST, &err));
    ck_assert_int_eq(glm_session_step(s, NULL, &ev, &err), GLM_EIO);
    ck_assert_int_eq(glm_session_logits(s, GLM_LAST_ROW, &logits, &err), GLM_ESTATE);
    stop_failing();
    err = (glm_error)GLM_ERROR_INIT;
    OK(glm_session_feed(s, ids, 5, GLM_ROWS_LAST, &err));
    step_ready(s, 0);
    OK(glm_session_logits(s, GLM_LAST_ROW, &logits, &err));
    glm_session_close(s);
    glm_model_close(m);
}
END_TEST

/* Every member hears of it, and each can go on. */
START_TEST(a_batch_that_fails)
{
    glm_model *m = open_slow();
    glm_session *s[3];
    glm_event ev[3] = { GLM_EVENT_INIT, GLM_EVENT_INIT, GLM_EVENT_INIT }, *at[3] = { &ev[0], &ev[1], &ev[2] };
    glm_error err = GLM_ERROR_INIT;
    static struct host_answer a[3];

    for (uint32_t i = 0; i < 3; i++) {
        s[i] = open_speculating(m, GLM_SPECULATION_OFF);
        ask(s[i], 0);
    }
    OK(glm_sessions_step(s, 3, NULL, at, &err)); /* turns begin */
    atomic_store(&fail_from, 2);
    for (uint32_t n = 0; n < 3;) {
        OK(glm_sessions_step(s, 3, NULL, at, &err));
        n = 0;
        for (uint32_t i = 0; i < 3; i++)
            if (ev[i].type == GLM_EVENT_ERROR) {
                ck_assert_int_eq(ev[i].status, GLM_EIO);
                ck_assert_ptr_nonnull(strstr(ev[i].text, "model.safetensors"));
                n++;
            }
        ck_assert(n == 0 || n == 3);
    }
    stop_failing();
    for (uint32_t i = 0; i < 3; i++)
        host_finish(s[i], 0, NULL, &a[i]);
    for (uint32_t i = 0; i < 3; i++) {
        ck_assert_str_eq(a[i].text, a[0].text);
        glm_session_close(s[i]);
    }
    glm_model_close(m);
}
END_TEST

static void copy_file(const char *from, const char *to)
{
    char buffer[65536];
    size_t n;
    FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
    ck_assert(in && out);
    while ((n = fread(buffer, 1, sizeof buffer, in)) > 0)
        ck_assert_uint_eq(fwrite(buffer, 1, n, out), n);
    fclose(in);
    ck_assert_int_eq(fclose(out), 0);
}

/* With the rest in memory, no signal can come of a file that another program cuts short. */
START_TEST(a_file_that_shrinks)
{
    char from[512], path[] = "/tmp/glm45-test-larger-XXXXXX.gguf";
    glm_model_info info = GLM_MODEL_INFO_INIT;
    glm_error err = GLM_ERROR_INIT;
    glm_event ev = GLM_EVENT_INIT;
    const int32_t ids[4] = { 1, 2, 3, 4 };
    glm_session *s = NULL;
    glm_model *m;
    int fd = mkstemps(path, 5);

    ck_assert_int_ge(fd, 0);
    close(fd);
    snprintf(from, sizeof from, "%s/golden/air256-gguf-Q4_0/Q4_0.gguf", getenv("GLM_TEST_DATA"));
    copy_file(from, path);
    m = open_with(path, least_cache(path), NULL, GLM_WEIGHTS_READ);
    OK(glm_model_describe(m, &info, &err));
    OK(glm_session_open(m, NULL, &s, &err));
    ck_assert_int_eq(truncate(path, 4096), 0);
    OK(glm_session_feed(s, ids, 4, GLM_ROWS_LAST, &err));
    ck_assert_int_eq(glm_session_step(s, NULL, &ev, &err), GLM_EIO);
    ck_assert_str_eq(err.where, path);
    ck_assert_ptr_nonnull(strstr(err.message, "cut short"));
    glm_session_close(s);
    glm_model_close(m);
    unlink(path);
}
END_TEST

/* ---- handles ----------------------------------------------------------------------------------------------------------- */

START_TEST(in_a_child_process)
{
    const char *path = getenv("GLM_TEST_MODEL");
    glm_model *m = open_with(path, least_cache(path), NULL, GLM_WEIGHTS_MAP);
    glm_session *s = open_speculating(m, GLM_SPECULATION_OFF);
    static struct host_answer a;
    int status = 0;
    pid_t pid;

    ask(s, 0);
    pid = fork();
    if (pid == 0) {
        glm_event ev = GLM_EVENT_INIT;
        int32_t rc = glm_session_step(s, NULL, &ev, NULL);
        glm_session_close(s);
        glm_model_close(m);
        _exit(rc == GLM_EFORK ? 0 : 1);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    host_finish(s, 0, NULL, &a);
    glm_session_close(s);
    glm_model_close(m);
}
END_TEST

START_TEST(estimates)
{
    const char *path = getenv("GLM_TEST_MODEL");
    glm_model_options o = GLM_MODEL_OPTIONS_INIT;
    glm_estimate plain = GLM_ESTIMATE_INIT, cached = GLM_ESTIMATE_INIT;
    glm_error err = GLM_ERROR_INIT;
    uint64_t least = least_cache(path);

    OK(glm_model_estimate(path, &o, NULL, 1, &plain, &err));
    o.expert_cache_bytes = least;
    OK(glm_model_estimate(path, &o, NULL, 1, &cached, &err));
    ck_assert_uint_eq(cached.private_bytes, plain.private_bytes + least);
    ck_assert_uint_lt(cached.mapped_bytes, plain.mapped_bytes * 3 / 4);
}
END_TEST

/* Opening and the first turn, with each allocation in turn failing. */
START_TEST(allocations_that_fail)
{
    const char *path = getenv("GLM_TEST_MODEL");
    uint64_t least = least_cache(path);

    for (uint64_t k = 1;; k += 1 + k / 40) {
        struct failing_alloc f;
        glm_model_options o = GLM_MODEL_OPTIONS_INIT;
        glm_error err = GLM_ERROR_INIT;
        glm_event ev = GLM_EVENT_INIT;
        glm_session *s = NULL;
        glm_model *m = NULL;
        failing_init(&f, k, FAIL_ONCE);
        const glm_allocator hook = failing_hook(&f);
        o.allocator = &hook;
        o.expert_cache_bytes = least;
        o.n_threads = 1;
        int32_t rc = glm_model_open(path, &o, &m, &err);
        rc = rc ? rc : glm_session_open(m, NULL, &s, &err);
        rc = rc ? rc : glm_session_feed(s, (const int32_t[]){ 300, 301 }, 2, GLM_ROWS_LAST, &err);
        rc = rc ? rc : glm_session_step(s, NULL, &ev, &err);
        glm_session_close(s);
        glm_model_close(m);
        ck_assert_uint_eq(f.bytes, 0);
        ck_assert_uint_eq(f.n_wrong, 0);
        if (!failing_hit(&f))
            break;
        ck_assert_int_eq(rc, GLM_ENOMEM);
    }
}
END_TEST

/* A host of the first version gets the first fields only. */
START_TEST(older_stats)
{
    const char *path = getenv("GLM_TEST_MODEL");
    glm_model *m = open_with(path, least_cache(path), NULL, GLM_WEIGHTS_MAP);
    glm_session *s = open_speculating(m, GLM_SPECULATION_OFF);
    static struct host_answer a;
    glm_stats st = GLM_STATS_INIT;
    glm_error err = GLM_ERROR_INIT;

    ask(s, 0);
    host_finish(s, 0, NULL, &a);
    memset(&st, 0x55, sizeof st);
    st.struct_size = offsetof(glm_stats, n_expert_hit);
    OK(glm_session_stats(s, &st, &err));
    ck_assert_uint_gt(st.n_generated, 0);
    ck_assert_uint_eq(st.n_expert_hit, 0x5555555555555555u);
    st = (glm_stats)GLM_STATS_INIT;
    OK(glm_session_stats(s, &st, &err));
    ck_assert_uint_gt(st.n_expert_hit + st.n_expert_miss, 0);
    ck_assert_uint_ge(st.n_expert_foreseen, st.n_foreseen_used);
    st.struct_size = offsetof(glm_stats, draft_speedup) - 1;
    ck_assert_int_eq(glm_session_stats(s, &st, &err), GLM_EINVAL);
    glm_session_close(s);
    glm_model_close(m);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("larger");
    SRunner *runner = srunner_create(suite);
    TCase *same = tcase_create("same"), *disk = tcase_create("disk"), *handles = tcase_create("handles");
    int failed;

    tcase_set_timeout(same, 120);
    tcase_set_timeout(disk, 120);
    tcase_add_loop_test(same, logits_are_the_same, 0, (int)(sizeof checkpoints / sizeof checkpoints[0]));
    tcase_add_test(same, text_is_the_same);
    tcase_add_test(same, forks_on_two_threads);
    tcase_add_test(disk, steps_do_not_wait_for_the_disk);
    tcase_add_test(disk, cancel_does_not_wait_for_the_disk);
    tcase_add_test(disk, reads_that_fail);
    tcase_add_test(disk, a_feed_that_fails);
    tcase_add_test(disk, a_batch_that_fails);
    tcase_add_test(disk, a_file_that_shrinks);
    tcase_add_test(handles, in_a_child_process);
    tcase_add_test(handles, estimates);
    tcase_add_test(handles, allocations_that_fail);
    tcase_add_test(handles, older_stats);
    suite_add_tcase(suite, same);
    suite_add_tcase(suite, disk);
    suite_add_tcase(suite, handles);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
