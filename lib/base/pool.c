/* pool.c: a model's threads. Owns its workers, which live from pool_open to pool_close and sleep
 * while there is nothing to do, or stands for the host's runner, and then owns no thread.
 *
 * A run is published in one atomic word, its ticket: the run's number in the upper half, the next
 * task in the lower. Whoever moves the ticket from i to i + 1 has task i. A worker may wake so late
 * that the run it saw is over: then the word has changed and its claim fails, so that nobody waits
 * for workers that have not come. The fields of the next run are only written while the ticket is
 * closed, and read with acquire: a worker that read a field of the next run must find the ticket
 * moved. */
#include "base.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>

enum {
    THREADS_MAX = 1024,
    THREADS_DEFAULT = 8,
    STACK_SIZE = 256 * 1024,
    SPIN_NS = 40000, /* a decoding step starts the next run sooner than this; then threads park */
    SPINS_PER_CLOCK = 32
};

#define CLOSED UINT32_MAX /* in the lower half of a ticket: no task to be had */
#define ONE_RUN (UINT64_C(1) << 32)

struct pool {
    struct mem *mem;
    glm_runner runner; /* run is NULL: our own threads */
    uint32_t width, n_worker;
    pthread_t *worker;    /* [n_worker] */
    pthread_mutex_t turn; /* held by the caller of a run from its begin to its end */
    pthread_mutex_t lock; /* of the two conditions; held for moments only */
    pthread_cond_t wake, done;
    _Atomic uint64_t ticket;
    _Atomic(glm_task_fn) fn;
    void *_Atomic task;
    _Atomic uint32_t count;
    _Atomic uint32_t left;       /* tasks of the run not finished */
    _Atomic uint32_t n_parked;   /* workers asleep or falling asleep */
    _Atomic uint32_t is_waiting; /* the caller sleeps or is falling asleep */
    _Atomic uint32_t stop;
};

static uint32_t run_of(uint64_t ticket)
{
    return (uint32_t)(ticket >> 32);
}

static uint32_t next_of(uint64_t ticket)
{
    return (uint32_t)ticket;
}

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* ---- taking tasks ---------------------------------------------------------------------------- */

static void finish_task(struct pool *p)
{
    if (atomic_fetch_sub(&p->left, 1) != 1 || !atomic_load(&p->is_waiting))
        return;
    pthread_mutex_lock(&p->lock);
    pthread_cond_signal(&p->done);
    pthread_mutex_unlock(&p->lock);
}

/* Takes tasks while the run that the ticket shows has some; returns the ticket that had none, or
 * one of the run before where the next is not open yet: its worker must not think that it has seen
 * it. */
static uint64_t take_tasks(struct pool *p)
{
    uint64_t ticket = atomic_load_explicit(&p->ticket, memory_order_acquire);

    for (;;) {
        glm_task_fn fn = atomic_load_explicit(&p->fn, memory_order_acquire);
        void *task = atomic_load_explicit(&p->task, memory_order_acquire);
        uint32_t count = atomic_load_explicit(&p->count, memory_order_acquire), i = next_of(ticket);

        if (i == CLOSED)
            return ticket - ONE_RUN;
        if (i >= count)
            return ticket;
        if (!atomic_compare_exchange_weak_explicit(
                &p->ticket, &ticket, ticket + 1, memory_order_acq_rel, memory_order_acquire))
            continue;
        ticket++;
        fn(task, i);
        finish_task(p);
    }
}

/* ---- workers --------------------------------------------------------------------------------- */

static bool is_news(struct pool *p, uint64_t seen)
{
    uint64_t ticket = atomic_load(&p->ticket);
    return (run_of(ticket) != run_of(seen) && next_of(ticket) != CLOSED) || atomic_load(&p->stop);
}

/* A short while, since runs come in bursts; true: there is another run. */
static bool spin_for_news(struct pool *p, uint64_t seen)
{
    uint64_t until = os_now_ns() + SPIN_NS;

    do {
        for (uint32_t i = 0; i < SPINS_PER_CLOCK; i++) {
            if (is_news(p, seen))
                return true;
            relax();
        }
    } while (os_now_ns() < until);
    return false;
}

static void park(struct pool *p, uint64_t seen)
{
    pthread_mutex_lock(&p->lock);
    /* Counted before the look at the ticket: publish() looks in the other order. */
    atomic_fetch_add(&p->n_parked, 1);
    while (!is_news(p, seen))
        pthread_cond_wait(&p->wake, &p->lock);
    atomic_fetch_sub(&p->n_parked, 1);
    pthread_mutex_unlock(&p->lock);
}

static void *work(void *arg)
{
    struct pool *p = arg;
    uint64_t seen = CLOSED; /* run 0 never was */

    fp_enter();
    park(p, seen);
    while (!atomic_load(&p->stop)) {
        seen = take_tasks(p);
        if (!spin_for_news(p, seen))
            park(p, seen);
    }
    return NULL;
}

/* ---- the caller ------------------------------------------------------------------------------ */

/* Opens the next run to the workers and wakes as many as can find a task. */
static void publish(struct pool *p, glm_task_fn fn, void *task, uint32_t count)
{
    uint64_t run = (uint64_t)(run_of(atomic_load(&p->ticket)) + 1) * ONE_RUN;
    uint32_t parked, wanted = count - 1;

    atomic_store(&p->ticket, run | CLOSED);
    atomic_store_explicit(&p->fn, fn, memory_order_release);
    atomic_store_explicit(&p->task, task, memory_order_release);
    atomic_store_explicit(&p->count, count, memory_order_release);
    atomic_store(&p->left, count);
    atomic_store(&p->ticket, run);
    parked = atomic_load(&p->n_parked);
    if (!parked)
        return;
    if (wanted > p->n_worker - parked)
        wanted -= p->n_worker - parked; /* those that are awake come first */
    else
        wanted = 0;
    pthread_mutex_lock(&p->lock);
    if (wanted >= parked)
        pthread_cond_broadcast(&p->wake);
    else
        for (; wanted; wanted--)
            pthread_cond_signal(&p->wake);
    pthread_mutex_unlock(&p->lock);
}

static void wait_for_rest(struct pool *p)
{
    uint64_t until = 0;

    for (;;) {
        for (uint32_t i = 0; i < SPINS_PER_CLOCK; i++) {
            if (!atomic_load(&p->left))
                return;
            relax();
        }
        if (!until)
            until = os_now_ns() + SPIN_NS;
        else if (os_now_ns() >= until)
            break;
    }
    pthread_mutex_lock(&p->lock);
    atomic_store(&p->is_waiting, 1);
    while (atomic_load(&p->left))
        pthread_cond_wait(&p->done, &p->lock);
    atomic_store(&p->is_waiting, 0);
    pthread_mutex_unlock(&p->lock);
}

static void run_here(glm_task_fn fn, void *task, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        fn(task, i);
}

/* A task as the host's runner sees it: its threads have the host's floating-point mode. */
struct hosted {
    glm_task_fn fn;
    void *task;
    uint32_t count;
};

static void GLM_CALL run_hosted(void *task, uint32_t index)
{
    const struct hosted *h = task;
    struct fp_mode mode;

    if (index >= h->count)
        return;
    mode = fp_enter();
    h->fn(h->task, index);
    fp_leave(mode);
}

void pool_run(struct pool *p, glm_task_fn fn, void *task, uint32_t count)
{
    struct fp_mode mode;

    if (!count)
        return;
    if (p->runner.run) {
        struct hosted h = {fn, task, count};
        p->runner.run(p->runner.user, run_hosted, &h, count);
        return;
    }
    pthread_mutex_lock(&p->turn);
    mode = fp_enter();
    if (count == 1 || !p->n_worker) {
        run_here(fn, task, count);
    } else {
        publish(p, fn, task, count);
        take_tasks(p);
        wait_for_rest(p);
    }
    fp_leave(mode);
    pthread_mutex_unlock(&p->turn);
}

uint32_t pool_width(const struct pool *p)
{
    return p->width;
}

/* ---- opening and closing --------------------------------------------------------------------- */

/* The host's signals are for the host's threads. */
static int start_workers(struct pool *p, uint32_t n)
{
    pthread_attr_t attr;
    sigset_t all, before;
    int reason = pthread_attr_init(&attr);

    if (reason)
        return reason;
    pthread_attr_setstacksize(&attr, STACK_SIZE);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (; !reason && p->n_worker < n; p->n_worker += !reason)
        reason = pthread_create(&p->worker[p->n_worker], &attr, work, p);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    return reason;
}

static int32_t check_runner(const glm_runner *runner, glm_error *err)
{
    if (runner->struct_size < sizeof *runner)
        return err_set(
            err, GLM_EINVAL, 0, "runner.struct_size", "set glm_runner.struct_size to its sizeof");
    if (!runner->run)
        return err_set(err, GLM_EINVAL, 0, "runner.run", "glm_runner.run is NULL");
    if (!runner->width || runner->width > THREADS_MAX)
        return err_set(err, GLM_EINVAL, 0, "runner.width",
            "glm_runner.width is %u: it must be 1 to %d", (unsigned)runner->width, THREADS_MAX);
    return GLM_OK;
}

static uint32_t default_threads(void)
{
    uint32_t n = os_n_cpu();
    return n < THREADS_DEFAULT ? n : THREADS_DEFAULT;
}

int32_t pool_open(
    struct mem *m, uint32_t n_threads, const glm_runner *runner, struct pool **out, glm_error *err)
{
    struct pool *p;
    int32_t status = runner ? check_runner(runner, err) : GLM_OK;
    int reason;

    if (status)
        return status;
    if (!runner && n_threads > THREADS_MAX)
        return err_set(err, GLM_EINVAL, 0, "n_threads", "%u threads are more than %d",
            (unsigned)n_threads, THREADS_MAX);
    if (!n_threads)
        n_threads = default_threads();
    p = mem_zalloc(m, sizeof *p);
    if (!p)
        return err_nomem(err, "the thread pool");
    p->mem = m;
    p->width = n_threads;
    atomic_init(&p->ticket, CLOSED);
    pthread_mutex_init(&p->turn, NULL);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    pthread_cond_init(&p->done, NULL);
    if (runner) {
        p->runner = *runner;
        p->width = runner->width;
    } else if (n_threads > 1) {
        p->worker = mem_array(m, n_threads - 1, sizeof *p->worker);
        if (!p->worker) {
            status = err_nomem(err, "the thread pool");
            goto fail;
        }
        reason = start_workers(p, n_threads - 1);
        if (reason) {
            status = err_set(err, reason == EAGAIN || reason == ENOMEM ? GLM_ENOMEM : GLM_EIO,
                p->n_worker, NULL, "the system gave %u threads of %u (error %d): ask for fewer",
                (unsigned)p->n_worker + 1, (unsigned)n_threads, reason);
            goto fail;
        }
    }
    *out = p;
    return GLM_OK;
fail:
    pool_close(p);
    return status;
}

void pool_close(struct pool *p)
{
    if (!p)
        return;
    atomic_store(&p->stop, 1);
    pthread_mutex_lock(&p->lock);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    for (uint32_t i = 0; i < p->n_worker; i++)
        pthread_join(p->worker[i], NULL);
    pthread_cond_destroy(&p->done);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    pthread_mutex_destroy(&p->turn);
    mem_free(p->mem, p->worker);
    mem_free(p->mem, p);
}
