/* worker.c: a model's worker: one thread that steps all started sessions together, and the queues that its events wait
 * in. It lives from the first start to the close of the last session that was ever started; whoever closes that one joins
 * it.
 *
 * A started session stays entered (session_enter), so that every call which knows nothing of the worker finds it busy. Two
 * locks: the worker's own, held for moments, guards its list and the event queues; a session's `state` is held while a
 * unit of work changes the session, and by the few calls that may change it meanwhile. Order: the worker's, one state, the
 * model's. */
#include "engine_int.h"

struct run {
    struct worker *worker;
    struct monitor *state;
    atomic_bool started;         /* until the host has polled the turn's end */
    atomic_flag polling;
    struct events polled;        /* the poller's: what its events point into */
    /* under the worker's lock: */
    struct events out;           /* what the worker has put; swapped with `polled` when that is empty */
    struct bell bell;            /* rings while n_waiting > 0 */
    uint64_t n_waiting, bytes;   /* of both queues, and the error */
    bool active;                 /* in the worker's list */
    bool running;                /* in the batch that computes now */
    bool stuck;                  /* no memory to put its events into `out`: they stay in the session */
    bool paused;                 /* passed over: whoever takes events wakes the worker */
    bool error;                  /* the session's failure is its last event */
};

struct worker {
    struct mem *mem;
    struct monitor *lock;
    struct thread *thread;
    uint32_t n_run;              /* sessions with a run; under the model's lock */
    glm_session **list;          /* [n] active; room for n_room */
    uint32_t n, n_room, capacity;
    uint32_t first;              /* where the next batch begins, when there are more than it takes */
    bool stop;
    atomic_bool hurry;           /* a running session is being closed */
};

/* ---- events ------------------------------------------------------------------------------------------------------ */

static bool is_end(uint32_t type)
{
    return type == GLM_EVENT_TURN_END || type == GLM_EVENT_READY || type == GLM_EVENT_ERROR;
}

static void drop_from_list(struct worker *w, glm_session *s)
{
    uint32_t i = 0;
    while (i < w->n && w->list[i] != s)
        i++;
    if (i < w->n)
        w->list[i] = w->list[--w->n];
    s->run->active = false;
}

static bool has_end(const struct events *q)
{
    return q->n > q->head && is_end(q->item[q->n - 1].ev.type);
}

static void count(struct run *r, const struct events *q)
{
    r->n_waiting += q->n - q->head;
    for (size_t i = q->head; i < q->n; i++)
        r->bytes += event_bytes(&q->item[i].ev);
}

/* A session's events go to where the host takes them. After its last one the worker never touches it again. */
static void hand_over(struct worker *w, glm_session *s)
{
    struct run *r = s->run, more = { .n_waiting = 0 };
    bool over;

    monitor_enter(r->state);
    over = s->failed || has_end(&s->events);
    count(&more, &s->events);
    r->stuck = !events_move(&r->out, &s->events);
    monitor_leave(r->state);
    if (r->stuck)
        return;
    r->error = s->failed;
    r->n_waiting += more.n_waiting + r->error;
    r->bytes += more.bytes;
    bell_set(&r->bell, r->n_waiting > 0);
    if (over)
        drop_from_list(w, s);
}

/* ---- the thread ---------------------------------------------------------------------------------------------------- */

/* Events that found no memory fit once the host has taken the others. */
static void hand_over_rest(struct worker *w)
{
    for (uint32_t i = w->n; i-- > 0;)
        if (w->list[i]->run->stuck && w->list[i]->run->out.n == 0)
            hand_over(w, w->list[i]);
}

static uint32_t choose(struct worker *w, glm_session **chosen)
{
    uint32_t n = 0;

    hand_over_rest(w);
    for (uint32_t i = 0; i < w->n && n < BATCH_MAX; i++) {
        glm_session *s = w->list[(w->first + i) % w->n];
        struct run *r = s->run;
        r->paused = r->stuck || (r->bytes > s->event_bytes && !atomic_load(&s->cancel));
        r->running = !r->paused;
        if (r->running)
            chosen[n++] = s;
    }
    return n;
}

static void fail_all(glm_session *const *s, uint32_t n, const glm_error *err)
{
    for (uint32_t i = 0; i < n; i++) {
        run_hold(s[i]);
        s[i]->failure = *err;
        step_failed(s[i]);
        s[i]->failed = true;
        run_release(s[i]);
    }
}

/* Where there is no memory for a pass that all share, fewer need less. */
static void advance(glm_session *const *s, uint32_t n, const atomic_bool *hurry)
{
    glm_error err = GLM_ERROR_INIT;
    int32_t rc;

    while ((rc = batch_step(s, n, 0, hurry, &err)) == GLM_ENOMEM && n > 1)
        n /= 2;
    if (rc)
        fail_all(s, n, &err);
}

static void settle(struct worker *w, glm_session *const *s, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        if (s[i]->run->active)
            hand_over(w, s[i]);
        s[i]->run->running = false;
    }
    if (!atomic_exchange(&w->hurry, false))
        w->first += n; /* others have their turn, where there are more than a batch takes */
    monitor_wake(w->lock); /* those that wait to close a session */
}

static void work(void *arg)
{
    struct worker *w = arg;
    glm_session *chosen[BATCH_MAX];
    uint32_t n;

    monitor_enter(w->lock);
    while (!w->stop) {
        n = choose(w, chosen);
        if (n == 0) {
            monitor_wait(w->lock);
            continue;
        }
        monitor_leave(w->lock);
        advance(chosen, n, &w->hurry);
        monitor_enter(w->lock);
        settle(w, chosen, n);
    }
    monitor_leave(w->lock);
}

static void worker_close(struct worker *w)
{
    if (!w)
        return;
    if (w->thread) {
        monitor_enter(w->lock);
        w->stop = true;
        monitor_wake(w->lock);
        monitor_leave(w->lock);
        thread_join(w->thread);
    }
    monitor_close(w->lock);
    mem_free(w->mem, w->list);
    mem_free(w->mem, w);
}

static int32_t worker_open(struct mem *m, struct worker **out, glm_error *err)
{
    struct worker *w = mem_zalloc(m, sizeof *w);
    int32_t rc;

    if (!w)
        return err_nomem(err, "the worker");
    w->mem = m;
    atomic_init(&w->hurry, false);
    rc = monitor_open(m, &w->lock, err);
    if (!rc)
        rc = thread_open(m, work, w, &w->thread, err);
    if (rc)
        worker_close(w);
    else
        *out = w;
    return rc;
}

static void worker_leave(glm_model *m)
{
    struct worker *w, *unused = NULL;

    monitor_enter(m->lock);
    w = m->worker;
    if (--w->n_run == 0) {
        unused = w;
        m->worker = NULL;
    }
    monitor_leave(m->lock);
    worker_close(unused);
}

/* Room in the list for one session more. */
static int32_t add_room(struct worker *w, glm_error *err)
{
    uint32_t capacity = w->capacity ? 2 * w->capacity : 16;
    glm_session **list;

    if (w->n_room < w->capacity)
        return GLM_OK;
    list = mem_resize(w->mem, w->list, capacity * sizeof *list);
    if (!list)
        return err_nomem(err, "the worker's list");
    w->list = list;
    w->capacity = capacity;
    return GLM_OK;
}

/* The model's worker, made if need be, counts one session more. */
static int32_t worker_join(glm_model *m, struct worker **out, glm_error *err)
{
    struct worker *w = NULL;
    int32_t rc = GLM_OK;

    monitor_enter(m->lock);
    if (!m->worker)
        rc = worker_open(&m->mem, &m->worker, err);
    if (!rc) {
        w = m->worker;
        w->n_run++;
    }
    monitor_leave(m->lock);
    if (rc)
        return rc;
    monitor_enter(w->lock);
    rc = add_room(w, err);
    w->n_room += !rc;
    monitor_leave(w->lock);
    if (rc)
        worker_leave(m);
    *out = w;
    return rc;
}

/* ---- a session's run ----------------------------------------------------------------------------------------------- */

void run_hold(glm_session *s)
{
    if (s->run)
        monitor_enter(s->run->state);
}

void run_release(glm_session *s)
{
    if (s->run)
        monitor_leave(s->run->state);
}

static void run_free(struct mem *m, struct run *r)
{
    events_free(&r->out);
    events_free(&r->polled);
    monitor_close(r->state);
    mem_free(m, r);
}

static int32_t run_open(glm_session *s, glm_error *err)
{
    struct mem *m = &s->model->mem;
    struct run *r = mem_zalloc(m, sizeof *r);
    int32_t rc;

    if (!r)
        return err_nomem(err, "a started session");
    events_init(&r->out, m);
    events_init(&r->polled, m);
    atomic_init(&r->started, false);
    atomic_flag_clear(&r->polling);
    rc = monitor_open(m, &r->state, err);
    if (!rc)
        rc = bell_open(&r->bell, err);
    if (!rc) {
        rc = worker_join(s->model, &r->worker, err);
        if (rc)
            bell_close(&r->bell);
    }
    if (rc)
        run_free(m, r);
    else
        s->run = r;
    return rc;
}

void run_close(glm_session *s)
{
    struct run *r = s->run;
    struct worker *w;

    if (!r)
        return;
    w = r->worker;
    session_cancel(s);
    monitor_enter(w->lock);
    if (r->active)
        drop_from_list(w, s);
    while (r->running) {
        atomic_store(&w->hurry, true);
        monitor_wait(w->lock);
    }
    w->n_room--;
    monitor_leave(w->lock);
    s->run = NULL;
    bell_close(&r->bell);
    run_free(&s->model->mem, r);
    worker_leave(s->model);
}

/* ---- what the host does ---------------------------------------------------------------------------------------------- */

bool session_enter_started(glm_session *s, bool *started)
{
    struct run *r = s->run;

    *started = false;
    if (r && atomic_load(&r->started)) {
        monitor_enter(r->state);
        *started = atomic_load(&r->started);
        if (*started)
            return true;
        monitor_leave(r->state);
    }
    return session_enter(s);
}

void session_leave_started(glm_session *s, bool started)
{
    if (started)
        run_release(s);
    else
        session_leave(s);
}

static void swap(struct events *a, struct events *b)
{
    struct events was = *a;
    *a = *b;
    *b = was;
}

/* What waits already is polled first; it may be the end. */
static void enlist(glm_session *s, struct run *r)
{
    struct worker *w = r->worker;

    monitor_enter(w->lock);
    events_recycle(&r->polled);
    swap(&r->polled, &s->events);
    count(r, &r->polled);
    bell_set(&r->bell, r->n_waiting > 0);
    atomic_store(&r->started, true);
    r->active = !has_end(&r->polled);
    if (r->active)
        w->list[w->n++] = s;
    monitor_wake(w->lock);
    monitor_leave(w->lock);
}

int32_t session_start(glm_session *s, glm_error *err)
{
    enum step_work work = step_work(s);
    int32_t rc;

    if (work < STEP_CANCEL && s->events.head == s->events.n)
        return step_refuse(work, err);
    rc = s->run ? GLM_OK : run_open(s, err);
    if (!rc)
        enlist(s, s->run);
    return rc;
}

/* Takes an event, under the worker's lock. */
static void take(glm_session *s, struct run *r, glm_event *ev)
{
    if (r->polled.n == 0)
        swap(&r->polled, &r->out);
    if (events_take(&r->polled, ev)) {
        r->bytes -= event_bytes(ev);
    } else if (r->error) {
        r->error = false;
        step_event(s, ev);
    } else {
        uint32_t struct_size = ev->struct_size;
        *ev = (glm_event){ .struct_size = struct_size, .type = GLM_EVENT_NONE };
        return;
    }
    ev->pending = (uint32_t)--r->n_waiting;
    bell_set(&r->bell, r->n_waiting > 0);
    if (r->paused)
        monitor_wake(r->worker->lock);
}

/* The turn's end is delivered: the session is the host's again. */
static void finish(glm_session *s, struct run *r)
{
    monitor_enter(r->state);
    atomic_store(&r->started, false);
    session_leave(s);
    monitor_leave(r->state);
}

int32_t session_poll(glm_session *s, glm_event *ev, glm_error *err)
{
    struct run *r = s->run;

    if (!r || !atomic_load(&r->started))
        return err_set(err, GLM_ESTATE, 0, NULL, "nothing was started, or its end was polled: use glm_session_start");
    if (atomic_flag_test_and_set(&r->polling))
        return err_set(err, GLM_EBUSY, 0, NULL, "another thread is polling the session");
    events_recycle(&r->polled);
    monitor_enter(r->worker->lock);
    take(s, r, ev);
    monitor_leave(r->worker->lock);
    atomic_flag_clear(&r->polling);
    if (is_end(ev->type))
        finish(s, r);
    return GLM_OK;
}

intptr_t session_fd(const glm_session *s)
{
    const struct run *r = s->run;
    return r ? r->bell.read_fd : -1;
}
