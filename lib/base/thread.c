/* thread.c: what a thread of our own needs of the system, beside the pool: a lock with a condition, the thread
 * itself, and a descriptor that tells a host's event loop that something waits. */
#include "base.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/eventfd.h>
#endif

#define STACK_SIZE ((size_t)1 << 20)

/* ---- monitors ---------------------------------------------------------------------------------- */

struct monitor {
    struct mem *mem;
    pthread_mutex_t lock;
    pthread_cond_t change;
};

int32_t monitor_open(struct mem *m, struct monitor **out, glm_error *err)
{
    struct monitor *k = mem_zalloc(m, sizeof *k);
    pthread_condattr_t clock;

    *out = NULL;
    if (!k)
        return err_nomem(err, "a lock");
    k->mem = m;
    pthread_mutex_init(&k->lock, NULL);
    pthread_condattr_init(&clock);
#if defined(__linux__)
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
#endif
    pthread_cond_init(&k->change, &clock);
    pthread_condattr_destroy(&clock);
    *out = k;
    return GLM_OK;
}

void monitor_close(struct monitor *k)
{
    if (!k)
        return;
    pthread_cond_destroy(&k->change);
    pthread_mutex_destroy(&k->lock);
    mem_free(k->mem, k);
}

void monitor_enter(struct monitor *k) { pthread_mutex_lock(&k->lock); }
void monitor_leave(struct monitor *k) { pthread_mutex_unlock(&k->lock); }
void monitor_wait(struct monitor *k) { pthread_cond_wait(&k->change, &k->lock); }
void monitor_wait_for(struct monitor *k, uint64_t ns)
{
    struct timespec t;
#if defined(__linux__)
    clock_gettime(CLOCK_MONOTONIC, &t);
#else
    clock_gettime(CLOCK_REALTIME, &t);
#endif
    ns += (uint64_t)t.tv_nsec;
    t.tv_sec += (time_t)(ns / 1000000000u);
    t.tv_nsec = (long)(ns % 1000000000u);
    pthread_cond_timedwait(&k->change, &k->lock, &t);
}

void monitor_wake(struct monitor *k) { pthread_cond_broadcast(&k->change); }

/* ---- threads ----------------------------------------------------------------------------------- */

struct thread {
    struct mem *mem;
    pthread_t id;
    void (*run)(void *arg);
    void *arg;
};

static void *enter_thread(void *arg)
{
    struct thread *t = arg;
    t->run(t->arg);
    return NULL;
}

/* The host's signals are for the host's threads. */
static int start(struct thread *t)
{
    pthread_attr_t attr;
    sigset_t all, before;
    int reason = pthread_attr_init(&attr);

    if (reason)
        return reason;
    pthread_attr_setstacksize(&attr, STACK_SIZE);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    reason = pthread_create(&t->id, &attr, enter_thread, t);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    return reason;
}

int32_t thread_open(struct mem *m, void (*run)(void *arg), void *arg, struct thread **out, glm_error *err)
{
    struct thread *t = mem_zalloc(m, sizeof *t);
    int reason;

    *out = NULL;
    if (!t)
        return err_nomem(err, "a thread");
    t->mem = m;
    t->run = run;
    t->arg = arg;
    reason = start(t);
    if (reason) {
        mem_free(m, t);
        return err_set(err, reason == EAGAIN || reason == ENOMEM ? GLM_ENOMEM : GLM_ENOTSUP, 0, NULL,
            "the system gave no thread (error %d)", reason);
    }
    *out = t;
    return GLM_OK;
}

void thread_join(struct thread *t)
{
    if (!t)
        return;
    pthread_join(t->id, NULL);
    mem_free(t->mem, t);
}

/* ---- bells ------------------------------------------------------------------------------------- */

#if defined(__linux__)
static int open_pair(int fd[2])
{
    fd[0] = fd[1] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return fd[0] < 0 ? errno : 0;
}
#else
static int open_pair(int fd[2])
{
    if (pipe(fd))
        return errno;
    for (int i = 0; i < 2; i++) {
        fcntl(fd[i], F_SETFD, FD_CLOEXEC);
        fcntl(fd[i], F_SETFL, O_NONBLOCK);
    }
    return 0;
}
#endif

int32_t bell_open(struct bell *b, glm_error *err)
{
    int fd[2], reason = open_pair(fd);

    if (reason)
        return err_set(err, reason == EMFILE || reason == ENFILE || reason == ENOMEM ? GLM_ENOMEM : GLM_ENOTSUP, 0, NULL,
            "the system gave no file descriptor (error %d)", reason);
    *b = (struct bell){ fd[0], fd[1], false };
    return GLM_OK;
}

void bell_close(struct bell *b)
{
    close(b->read_fd);
    if (b->write_fd != b->read_fd)
        close(b->write_fd);
}

/* Eight bytes: what an eventfd counts, and a pipe does not mind. */
void bell_set(struct bell *b, bool ringing)
{
    uint64_t one = 1;
    ssize_t n;

    if (b->ringing == ringing)
        return;
    do
        n = ringing ? write(b->write_fd, &one, sizeof one) : read(b->read_fd, &one, sizeof one);
    while (n < 0 && errno == EINTR);
    b->ringing = ringing;
}
