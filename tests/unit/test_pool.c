/* test_pool.c: the thread pool of lib/base: each task once, callers in turn, parking, the host's
 * runner, failures. */
#include "failing_alloc.h"
#include "lib/base/base.h"

#include <check.h>

#include <fenv.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { MAX_TASKS = 300 };

static struct mem mem;

static struct pool *open_pool(uint32_t n_threads)
{
    struct pool *p = NULL;

    mem_init(&mem, NULL);
    ck_assert_int_eq(pool_open(&mem, n_threads, NULL, &p, NULL), GLM_OK);
    return p;
}

static void close_pool(struct pool *p)
{
    pool_close(p);
    ck_assert_uint_eq(mem.used, 0);
}

struct counters {
    _Atomic uint32_t n[MAX_TASKS];
};

static void GLM_CALL count_task(void *task, uint32_t i)
{
    atomic_fetch_add(&((struct counters *)task)->n[i], 1);
}

/* false: some task was not called exactly once. */
static bool run_counted(struct pool *p, uint32_t count)
{
    struct counters c;

    for (uint32_t i = 0; i < MAX_TASKS; i++)
        atomic_init(&c.n[i], 0);
    pool_run(p, count_task, &c, count);
    for (uint32_t i = 0; i < MAX_TASKS; i++)
        if (c.n[i] != (i < count))
            return false;
    return true;
}

START_TEST(each_task_once)
{
    static const uint32_t threads[] = {1, 2, 3, 8};
    struct pool *p = open_pool(threads[_i]);

    ck_assert_uint_eq(pool_width(p), threads[_i]);
    for (uint32_t round = 0; round < 30; round++)
        for (uint32_t count = 0; count < MAX_TASKS; count += 1 + count / 4)
            ck_assert(run_counted(p, count));
    close_pool(p);
}
END_TEST

static void *run_many(void *arg)
{
    for (uint32_t k = 0; k < 1500; k++)
        if (!run_counted(arg, 1 + k % 40))
            return arg;
    return NULL;
}

START_TEST(callers_take_turns)
{
    struct pool *p = open_pool(3);
    pthread_t caller[4];

    for (size_t i = 0; i < ARRAY_LEN(caller); i++)
        ck_assert_int_eq(pthread_create(&caller[i], NULL, run_many, p), 0);
    for (size_t i = 0; i < ARRAY_LEN(caller); i++) {
        void *failed;
        pthread_join(caller[i], &failed);
        ck_assert_ptr_null(failed);
    }
    close_pool(p);
}
END_TEST

/* ---- several threads at work ----------------------------------------------------------------- */

struct meeting {
    _Atomic uint32_t here;
    uint32_t wanted;
    uint64_t until;
};

/* Waits for the others: only a test may do that. */
static void GLM_CALL meet(void *task, uint32_t i)
{
    struct meeting *m = task;

    (void)i;
    atomic_fetch_add(&m->here, 1);
    while (atomic_load(&m->here) < m->wanted && os_now_ns() < m->until)
        usleep(100);
}

START_TEST(threads_really_share)
{
    struct pool *p = open_pool(4);

    for (int i = 0; i < 5; i++) {
        struct meeting m = {0, 4, os_now_ns() + 20000000000u};
        pool_run(p, meet, &m, 4); /* ends in time only if all four threads came */
        ck_assert_uint_eq(m.here, 4);
        ck_assert_uint_lt(os_now_ns(), m.until);
        usleep(2000); /* parked in between */
    }
    close_pool(p);
}
END_TEST

static void GLM_CALL slow_last(void *task, uint32_t i)
{
    if (i == 0)
        usleep(3000);
    atomic_fetch_add((_Atomic uint32_t *)task, 1);
}

START_TEST(caller_waits_for_all)
{
    struct pool *p = open_pool(2);

    for (int k = 0; k < 20; k++) {
        _Atomic uint32_t n = 0;
        pool_run(p, slow_last, &n, 50);
        ck_assert_uint_eq(n, 50);
    }
    close_pool(p);
}
END_TEST

static uint64_t cpu_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

START_TEST(idle_threads_park)
{
    struct pool *p = open_pool(4);
    uint64_t before;

    ck_assert(run_counted(p, 100));
    usleep(20000);
    before = cpu_ns();
    usleep(300000);
    ck_assert_uint_lt(
        cpu_ns() - before, 30000000); /* a single spinning thread would take ten times that */
    ck_assert(run_counted(p, 100));
    close_pool(p);
}
END_TEST

/* ---- what a task finds around it ------------------------------------------------------------- */

struct around {
    volatile float one, three;
    _Atomic uint32_t n_wrong;
    _Atomic uint32_t
        n_signal_open; /* tasks on a thread other than the caller's that lets SIGUSR1 in */
    pthread_t caller;
};

static void GLM_CALL look_around(void *task, uint32_t i)
{
    struct around *a = task;
    sigset_t set;

    (void)i;
    if (a->one / a->three != 1.0f / 3.0f)
        atomic_fetch_add(&a->n_wrong, 1);
    pthread_sigmask(SIG_SETMASK, NULL, &set);
    if (!pthread_equal(pthread_self(), a->caller) && !sigismember(&set, SIGUSR1))
        atomic_fetch_add(&a->n_signal_open, 1);
    usleep(50);
}

START_TEST(tasks_have_default_mode)
{
    static const uint32_t threads[] = {1, 4};
    struct around a = {1, 3, 0, 0, pthread_self()};
    struct pool *p;
    sigset_t set;

    fesetround(FE_DOWNWARD);
    p = open_pool(threads[_i]); /* threads inherit the mode of the one that makes them */
    for (int k = 0; k < 10; k++) {
        pool_run(p, look_around, &a, 1);
        pool_run(p, look_around, &a, 40);
    }
    ck_assert_int_eq(fegetround(), FE_DOWNWARD);
    ck_assert(a.one / a.three < 0.33333334f);
    fesetround(FE_TONEAREST);
    ck_assert_uint_eq(a.n_wrong, 0);
    ck_assert_uint_eq(a.n_signal_open, 0);
    pthread_sigmask(SIG_SETMASK, NULL, &set);
    ck_assert(!sigismember(&set, SIGUSR1));
    close_pool(p);
}
END_TEST

/* ---- the host's runner ----------------------------------------------------------------------- */

static void GLM_CALL run_backwards(void *user, glm_task_fn fn, void *task, uint32_t count)
{
    ++*(int *)user;
    fesetround(FE_DOWNWARD); /* a job thread may have any mode */
    for (uint32_t i = count; i-- > 0;)
        fn(task, i);
    fesetround(FE_TONEAREST);
}

START_TEST(runner_of_the_host)
{
    int n_run = 0;
    const glm_runner runner = {sizeof runner, 5, &n_run, run_backwards};
    struct around a = {1, 3, 0, 0, pthread_self()};
    struct pool *p = NULL;

    mem_init(&mem, NULL);
    ck_assert_int_eq(pool_open(&mem, 64, &runner, &p, NULL), GLM_OK);
    ck_assert_uint_eq(pool_width(p), 5);
    ck_assert(run_counted(p, 0));
    ck_assert_int_eq(n_run, 0);
    ck_assert(run_counted(p, 17));
    pool_run(p, look_around, &a, 9);
    ck_assert_int_eq(n_run, 2);
    ck_assert_uint_eq(a.n_wrong, 0);
    close_pool(p);
}
END_TEST

START_TEST(runner_refused)
{
    int n_run = 0;
    const glm_runner good = {sizeof good, 5, &n_run, run_backwards};
    glm_runner bad = good;
    glm_error err = GLM_ERROR_INIT;
    struct pool *p = NULL;

    mem_init(&mem, NULL);
    bad.struct_size = 8;
    ck_assert_int_eq(pool_open(&mem, 1, &bad, &p, &err), GLM_EINVAL);
    ck_assert_str_eq(err.where, "runner.struct_size");
    bad = good;
    bad.run = NULL;
    ck_assert_int_eq(pool_open(&mem, 1, &bad, &p, &err), GLM_EINVAL);
    bad = good;
    bad.width = 0;
    ck_assert_int_eq(pool_open(&mem, 1, &bad, &p, &err), GLM_EINVAL);
    ck_assert_int_eq(pool_open(&mem, 100000, NULL, &p, &err), GLM_EINVAL);
    ck_assert_str_eq(err.where, "n_threads");
    ck_assert_ptr_null(p);
    ck_assert_uint_eq(mem.used, 0);
}
END_TEST

/* ---- opening and its failures ---------------------------------------------------------------- */

START_TEST(default_width)
{
    struct pool *p = open_pool(0);

    ck_assert_uint_eq(pool_width(p), os_n_cpu() < 8 ? os_n_cpu() : 8);
    close_pool(p);
    pool_close(NULL);
}
END_TEST

START_TEST(out_of_memory)
{
    for (uint64_t k = 1;; k++) {
        struct failing_alloc f;
        struct pool *p = NULL;
        glm_error err = GLM_ERROR_INIT;
        int32_t status;
        failing_init(&f, k, FAIL_ONCE);
        const glm_allocator hook = failing_hook(&f);
        mem_init(&mem, &hook);
        status = pool_open(&mem, 2, NULL, &p, &err);
        if (status)
            ck_assert_ptr_null(p);
        pool_close(p);
        ck_assert_uint_eq(f.bytes, 0);
        ck_assert_uint_eq(f.n_wrong, 0);
        if (!failing_hit(&f)) {
            ck_assert_int_eq(status, GLM_OK);
            ck_assert_uint_eq(k, 3); /* the pool and its list of threads */
            break;
        }
        ck_assert_int_eq(status, GLM_ENOMEM);
    }
}
END_TEST

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
START_TEST(out_of_threads)
{
    struct rlimit before, little;
    glm_error err = GLM_ERROR_INIT;
    struct pool *p = NULL;
    int32_t status;

    mem_init(&mem, NULL);
    getrlimit(RLIMIT_AS, &before);
    little = before;
    little.rlim_cur = 150u << 20; /* some stacks fit, hundreds do not */
    ck_assert_int_eq(setrlimit(RLIMIT_AS, &little), 0);
    status = pool_open(&mem, 1000, NULL, &p, &err);
    setrlimit(RLIMIT_AS, &before);
    ck_assert_int_eq(status, GLM_ENOMEM);
    ck_assert_ptr_null(p);
    ck_assert_uint_eq(mem.used, 0);
    p = open_pool(2);
    ck_assert(run_counted(p, 20));
    close_pool(p);
}
END_TEST
#endif

START_TEST(open_and_close)
{
    for (int i = 0; i < 200; i++) {
        struct pool *p = open_pool(3);
        if (i % 2)
            ck_assert(run_counted(p, 7));
        close_pool(p);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("pool");
    SRunner *runner = srunner_create(suite);
    TCase *tcase = tcase_create("pool");
    int failed;

    tcase_add_loop_test(tcase, each_task_once, 0, 4);
    tcase_add_test(tcase, callers_take_turns);
    tcase_add_test(tcase, threads_really_share);
    tcase_add_test(tcase, caller_waits_for_all);
    tcase_add_test(tcase, idle_threads_park);
    tcase_add_loop_test(tcase, tasks_have_default_mode, 0, 2);
    tcase_add_test(tcase, runner_of_the_host);
    tcase_add_test(tcase, runner_refused);
    tcase_add_test(tcase, default_width);
    tcase_add_test(tcase, out_of_memory);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    tcase_add_test(tcase, out_of_threads);
#endif
    tcase_add_test(tcase, open_and_close);
    suite_add_tcase(suite, tcase);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
