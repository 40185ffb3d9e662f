/* batch.c: several sessions in one forward pass, which reads the weights once for all of them. A shared pass belongs to
 * the model and is used again; what it computes is known to a session as a ticket. A pass that a budget cuts short goes on
 * in the next call that has all its members, unless one of them did something else meanwhile: that makes the ticket void,
 * and the others begin anew from their queues. Nothing of a session changes before its rows are computed, and writing keys
 * and values twice writes the same.
 *
 * A call (struct joint): cancels; then the pass that is under way, or turns that begin and a new pass; then the tokens of its rows, a few
 * sessions at a time on the model's threads. It returns early, at a unit's end, when the time is up or a cancel comes. */
#include "engine_int.h"

#include <string.h>

#define FINISH_MAX 16u           /* sessions between two looks at the clock, and at most one for each thread */
#define PARALLEL_VOCAB 16384u    /* below, waking a thread takes longer than a draw */

struct shared_pass {
    struct shared_pass *next;
    struct pass *pass;
    uint32_t n_row, n_logit, n_ctx; /* its room */
    bool in_use;                 /* by a call */
    uint64_t ticket;             /* 0: nothing is under way */
    uint32_t n_member;           /* that are not finished */
    bool computed;               /* what is left is to finish them */
    int32_t ids[PREFILL_ROWS];
    uint32_t logit_rows[PREFILL_ROWS];
    struct segment segments[BATCH_MAX];
    struct kv_seq *seqs[BATCH_MAX];
};

struct joint {
    glm_model *m;
    glm_session *const *s;
    uint32_t n;
    uint64_t deadline;
    enum step_work work[BATCH_MAX]; /* of each session */
    glm_session *member[BATCH_MAX];
    uint32_t n_member;
    const atomic_bool *flag[BATCH_MAX + 1];
    struct stop stop;
    struct shared_pass *p;
    uint64_t charged;            /* computing time up to here stands in the turns */
};

static bool time_is_up(const struct joint *c)
{
    return stop_asked(&c->stop) || (c->deadline && os_now_ns() >= c->deadline);
}

static bool takes_part(const glm_session *s, const struct shared_pass *p)
{
    return p->ticket && s->share.pass == p && s->share.ticket == p->ticket;
}

static void failed(glm_session *s, int32_t rc)
{
    if (!rc)
        return;
    step_failed(s);
    s->failed = true;
}

/* ---- passes -------------------------------------------------------------------------------------------------- */

/* While other members are being finished, one that leaves does not matter to them. */
void batch_leave(glm_session *s)
{
    struct shared_pass *p = s->share.pass;
    if (!p)
        return;
    monitor_enter(s->model->lock);
    if (takes_part(s, p)) {
        p->n_member--;
        if (!p->computed || p->n_member == 0)
            p->ticket = 0;
    }
    monitor_leave(s->model->lock);
    s->share.pass = NULL;
}

void batch_free(glm_model *m)
{
    while (m->shared) {
        struct shared_pass *p = m->shared;
        m->shared = p->next;
        pass_close(p->pass);
        mem_free(&m->mem, p);
    }
}

/* The pass under way that can go on now and has the most of these sessions; NULL: none. */
static struct shared_pass *find_under_way(const struct joint *c)
{
    struct shared_pass *best = NULL;
    uint32_t n_best = 0;

    monitor_enter(c->m->lock);
    for (struct shared_pass *p = c->m->shared; p; p = p->next) {
        uint32_t n = 0;
        if (p->in_use || !p->ticket)
            continue;
        for (uint32_t i = 0; i < c->n; i++)
            n += c->work[i] == STEP_COMPUTE && takes_part(c->s[i], p);
        if (n > n_best && (p->computed || n == p->n_member)) {
            best = p;
            n_best = n;
        }
    }
    if (best)
        best->in_use = true;
    monitor_leave(c->m->lock);
    return best;
}

/* Any that is free, the roomiest first. */
static struct shared_pass *find_free(glm_model *m)
{
    struct shared_pass *best = NULL;

    monitor_enter(m->lock);
    for (struct shared_pass *p = m->shared; p; p = p->next)
        if (!p->in_use && !p->ticket && (!best || p->n_row > best->n_row))
            best = p;
    if (best)
        best->in_use = true;
    monitor_leave(m->lock);
    return best;
}

static struct shared_pass *add_pass(glm_model *m)
{
    struct shared_pass *p = mem_zalloc(&m->mem, sizeof *p);
    if (!p)
        return NULL;
    p->in_use = true;
    monitor_enter(m->lock);
    p->next = m->shared;
    m->shared = p;
    monitor_leave(m->lock);
    return p;
}

static void put_back(struct joint *c)
{
    monitor_enter(c->m->lock);
    c->p->in_use = false;
    monitor_leave(c->m->lock);
    c->p = NULL;
}

/* Sizes in powers of two, so that a batch which grows by one session does not get a new pass each time. */
static uint32_t rounded(uint32_t n)
{
    uint32_t size = 8;
    while (size < n)
        size *= 2;
    return size < PREFILL_ROWS ? size : PREFILL_ROWS;
}

struct room {
    uint32_t n, n_row, n_logit, n_ctx; /* of n sessions */
};

/* What these sessions can need. A turn that begins may have any number of rows. */
static struct room room_wanted(const struct joint *c)
{
    struct room r = { 0, 0, 0, 0 };
    uint32_t most = tokens_logit_rows(c->m);

    for (uint32_t i = 0; i < c->n; i++) {
        const glm_session *s = c->s[i];
        size_t left = s->queue.n - s->queue_done;
        uint32_t rows = left < PREFILL_ROWS && c->work[i] == STEP_COMPUTE ? (uint32_t)left : PREFILL_ROWS;
        if (c->work[i] < STEP_BEGIN)
            continue;
        r.n++;
        r.n_row += rows;
        r.n_logit += c->work[i] == STEP_COMPUTE && tokens_all_rows(s) ? rows : 1;
        r.n_ctx = s->n_ctx > r.n_ctx ? s->n_ctx : r.n_ctx;
    }
    if (r.n_logit > most)
        r.n_logit = r.n > most ? r.n : most;
    r.n_row = rounded(r.n_row);
    r.n_logit = rounded(r.n_logit);
    return r;
}

/* The old pass goes only when the new one is there. */
static int32_t make_room(glm_model *m, struct shared_pass *p, struct room r, glm_error *err)
{
    struct pass *pass;
    bool will_do = p->n_row >= r.n && p->n_logit >= r.n && p->n_ctx >= r.n_ctx; /* in smaller chunks */
    int32_t rc;

    if (p->pass && r.n_row <= p->n_row && r.n_logit <= p->n_logit && r.n_ctx <= p->n_ctx)
        return GLM_OK;
    if (p->pass) {
        r.n_row = r.n_row > p->n_row ? r.n_row : p->n_row;
        r.n_logit = r.n_logit > p->n_logit ? r.n_logit : p->n_logit;
        r.n_ctx = r.n_ctx > p->n_ctx ? r.n_ctx : p->n_ctx;
    }
    rc = pass_open(m->net, r.n_row, r.n_logit, r.n_ctx, &pass, err);
    if (rc)
        return will_do ? GLM_OK : rc;
    pass_close(p->pass);
    p->pass = pass;
    p->n_row = r.n_row;
    p->n_logit = r.n_logit;
    p->n_ctx = r.n_ctx;
    return GLM_OK;
}

static int32_t take_pass(struct joint *c, glm_error *err)
{
    int32_t rc;

    c->p = find_under_way(c);
    if (c->p)
        return GLM_OK;
    c->p = find_free(c->m);
    if (!c->p)
        c->p = add_pass(c->m);
    if (!c->p)
        return err_nomem(err, "a shared pass");
    rc = make_room(c->m, c->p, room_wanted(c), err);
    if (rc)
        put_back(c);
    return rc;
}

/* ---- what to compute --------------------------------------------------------------------------------------------- */

static void find_members(struct joint *c)
{
    c->n_member = 0;
    for (uint32_t i = 0; i < c->n; i++)
        if (takes_part(c->s[i], c->p))
            c->member[c->n_member++] = c->s[i];
}

/* What ends a turn before it is computed any further. true: something did. */
static bool end_turn(glm_session *s)
{
    if (step_work(s) == STEP_CANCEL)
        failed(s, step_cancel(s, &s->failure));
    else if (turn_expired(s))
        failed(s, turn_expire(s, &s->failure));
    else
        return false;
    return true;
}

/* Cancels and time limits come before anything is computed, and again where one has stopped a pass. */
static uint32_t end_turns(struct joint *c)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < c->n; i++) {
        glm_session *s = c->s[i];
        if (s->events.n || s->failed)
            continue;
        run_hold(s);
        n += end_turn(s);
        c->work[i] = s->events.n || s->failed ? STEP_NOTHING : step_work(s);
        run_release(s);
    }
    return n;
}

/* Turns that are due begin. false: the time is up, and something was done in it. */
static bool begin_turns(struct joint *c)
{
    for (uint32_t i = 0; i < c->n; i++) {
        glm_session *s = c->s[i];
        if (c->work[i] == STEP_BEGIN) {
            run_hold(s);
            failed(s, turn_begin(s, &s->failure));
            run_release(s);
            c->work[i] = s->failed || s->events.n ? STEP_NOTHING : STEP_COMPUTE; /* it may end there and then */
            if (time_is_up(c))
                return false;
        }
    }
    return true;
}

/* Rows for each member: one each, then as evenly as their queues allow. */
static void share_rows(struct joint *c)
{
    uint32_t room = c->p->n_row, open = c->n_member, n_all = 0, all_most;

    for (uint32_t i = 0; i < c->n_member; i++)
        n_all += tokens_all_rows(c->member[i]);
    all_most = n_all ? 1 + (c->p->n_logit - c->n_member) / n_all : 0;
    for (uint32_t i = 0; i < c->n_member; i++)
        c->member[i]->share.chunk = (struct chunk){ 0 };
    while (room && open) {
        uint32_t each = room / open ? room / open : 1;
        open = 0;
        for (uint32_t i = 0; i < c->n_member; i++) {
            glm_session *s = c->member[i];
            struct chunk *k = &s->share.chunk;
            size_t left = s->queue.n - s->queue_done;
            uint32_t want = tokens_all_rows(s) && all_most < left ? all_most : left < PREFILL_ROWS ? (uint32_t)left : PREFILL_ROWS;
            uint32_t more = want - k->n_row < each ? want - k->n_row : each;
            more = more < room ? more : room;
            k->n_row += more;
            room -= more;
            open += k->n_row < want;
        }
    }
}

/* The members' rows, one behind the other. */
static void lay_out(struct joint *c, struct batch *b)
{
    struct shared_pass *p = c->p;

    *b = (struct batch){ .ids = p->ids, .segments = p->segments, .seqs = p->seqs, .logit_rows = p->logit_rows };
    for (uint32_t i = 0; i < c->n_member; i++) {
        glm_session *s = c->member[i];
        struct chunk *k = &s->share.chunk;
        k->row = b->n_row;
        k->logit = b->n_logit;
        tokens_chunk(s, k, p->logit_rows);
        memcpy(p->ids + k->row, s->queue.id + s->queue_done, k->n_row * sizeof *p->ids);
        p->segments[i] = (struct segment){ .seq = i, .row = k->row, .n_row = k->n_row, .pos = (uint32_t)s->past.n };
        p->seqs[i] = &s->kv.seq;
        s->has_logits = false;
        s->pass_running = false;
        draft_drop(s);
        b->n_row += k->n_row;
        b->n_logit += k->n_logit;
    }
    b->n_segment = c->n_member;
}

/* Every session that computes joins. false: there is none. */
static bool begin_pass(struct joint *c)
{
    struct batch b;
    int32_t rc;

    c->n_member = 0;
    for (uint32_t i = 0; i < c->n; i++) {
        glm_session *s = c->s[i];
        if (c->work[i] != STEP_COMPUTE)
            continue;
        run_hold(s);
        batch_leave(s);
        rc = tokens_ready(s, &s->failure);
        if (!rc)
            c->member[c->n_member++] = s;
        failed(s, rc);
        run_release(s);
    }
    if (c->n_member == 0)
        return false;
    share_rows(c);
    lay_out(c, &b);
    rc = pass_begin(c->p->pass, &b, &c->member[0]->failure);
    if (rc) { /* ids were checked when they came, so that there is no such case */
        run_hold(c->member[0]);
        failed(c->member[0], rc);
        run_release(c->member[0]);
        return false;
    }
    monitor_enter(c->m->lock);
    c->p->ticket = ++c->m->n_ticket;
    c->p->n_member = c->n_member;
    c->p->computed = false;
    monitor_leave(c->m->lock);
    for (uint32_t i = 0; i < c->n_member; i++) {
        c->member[i]->share.pass = c->p;
        c->member[i]->share.ticket = c->p->ticket;
    }
    return true;
}

/* ---- what was computed --------------------------------------------------------------------------------------------- */

/* Every member waited for the whole pass. */
static void charge(struct joint *c, uint32_t from)
{
    uint64_t now = os_now_ns(), ns = now - c->charged;
    for (uint32_t i = from; i < c->n_member; i++) {
        struct turn *t = &c->member[i]->turn;
        *(c->member[i]->state == SESSION_PREFILL ? &t->prefill_ns : &t->decode_ns) += ns;
    }
    c->charged = now;
}

struct group {
    const struct joint *c;
    uint32_t first;
};

/* What needs the pass's results: keeping rows, drawing the next token. Nothing that the host may touch meanwhile. */
static void GLM_CALL finish_task(void *task, uint32_t i)
{
    const struct group *g = task;
    glm_session *s = g->c->member[g->first + i];
    struct share *share = &s->share;

    share->rc = tokens_computed(s, g->c->p->pass, &share->chunk, &s->failure);
    share->drawn = !share->rc && step_draws(s);
    if (share->drawn)
        share->rc = step_draw(s, &share->id, &s->failure);
    else if (!share->rc)
        tokens_keep_last(s);
}

/* The token becomes events. Only a turn that ends here keeps its logits: until the next pass nobody can read others. */
static void finish_session(glm_session *s)
{
    int32_t rc = s->share.rc;

    if (!rc)
        rc = step_chunk(s, s->share.drawn ? &s->share.id : NULL, &s->failure);
    failed(s, rc);
    if (s->state == SESSION_IDLE || s->state == SESSION_TOOLS)
        tokens_keep_last(s);
    else
        s->has_logits = false;
}

static void finish_group(struct joint *c, uint32_t first, uint32_t n)
{
    struct group g = { c, first };

    monitor_enter(c->m->lock);
    c->p->n_member -= n;
    monitor_leave(c->m->lock);
    for (uint32_t i = 0; i < n; i++)
        c->member[first + i]->share.pass = NULL;
    if (c->m->info.n_vocab < PARALLEL_VOCAB)
        for (uint32_t i = 0; i < n; i++)
            finish_task(&g, i);
    else
        backend_each(c->m->net->be, finish_task, &g, n);
    for (uint32_t i = 0; i < n; i++) {
        run_hold(c->member[first + i]);
        finish_session(c->member[first + i]);
        run_release(c->member[first + i]);
    }
}

/* At least one group, until the time is up. A member that is not in this call loses its part. */
static void finish(struct joint *c)
{
    uint32_t width = backend_width(c->m->net->be), n;

    width = width < FINISH_MAX ? width : FINISH_MAX;
    for (uint32_t i = 0; i < c->n_member; i += n) {
        n = c->n_member - i < width ? c->n_member - i : width;
        if (i > 0 && time_is_up(c))
            return;
        finish_group(c, i, n);
        charge(c, i + n);
    }
    monitor_enter(c->m->lock);
    c->p->ticket = 0;
    monitor_leave(c->m->lock);
}

/* ---- a call ------------------------------------------------------------------------------------------------------------ */

/* The first of the members' time limits may come before the step's. */
static uint64_t deadline(const struct joint *c)
{
    uint64_t now = os_now_ns(), first = c->deadline;
    for (uint32_t i = 0; i < c->n_member; i++)
        first = turn_deadline(c->member[i], now, first);
    return first;
}

/* A pass that failed has failed for each of its members. */
static void fail_members(struct joint *c, int32_t rc, const glm_error *err)
{
    for (uint32_t i = 0; i < c->n_member; i++) {
        glm_session *s = c->member[i];
        run_hold(s);
        s->failure = *err;
        failed(s, rc);
        run_release(s);
    }
}

static void compute(struct joint *c)
{
    if (c->p->ticket) {
        find_members(c);
    } else if (!begin_turns(c) || !begin_pass(c)) {
        return;
    }
    if (!c->p->computed) {
        glm_error err = GLM_ERROR_INIT;
        bool done;
        int32_t rc = pass_run(c->p->pass, deadline(c), &c->stop, &done, &err);
        charge(c, 0);
        if (rc)
            fail_members(c, rc, &err);
        if (done) {
            monitor_enter(c->m->lock);
            c->p->computed = true;
            monitor_leave(c->m->lock);
        }
        if (!done || time_is_up(c))
            return;
    }
    finish(c);
}

static bool any_work(const struct joint *c, enum step_work least)
{
    for (uint32_t i = 0; i < c->n; i++)
        if (c->work[i] >= least)
            return true;
    return false;
}

/* What each session would do. Those with events waiting do not advance. */
static int32_t look(struct joint *c, glm_error *err)
{
    bool waits = false;

    for (uint32_t i = 0; i < c->n; i++) {
        glm_session *s = c->s[i];
        run_hold(s);
        events_recycle(&s->events);
        s->in_batch = true;
        c->work[i] = s->events.n || s->failed ? STEP_NOTHING : step_work(s);
        waits = waits || s->events.n || s->failed;
        run_release(s);
        if (c->work[i] >= STEP_CANCEL)
            c->flag[c->stop.n++] = &s->cancel;
    }
    if (waits || any_work(c, STEP_CANCEL))
        return GLM_OK;
    return step_refuse(c->work[0], err);
}

int32_t batch_step(glm_session *const *s, uint32_t n, uint64_t deadline, const atomic_bool *hurry, glm_error *err)
{
    struct joint c = { .m = s[0]->model, .s = s, .n = n, .deadline = deadline, .charged = os_now_ns() };
    struct fp_mode mode;
    int32_t rc;

    c.stop.flag = c.flag;
    if (hurry)
        c.flag[c.stop.n++] = hurry;
    rc = look(&c, err);
    if (rc)
        return rc;
    mode = fp_enter();
    if (end_turns(&c) == 0 && any_work(&c, STEP_BEGIN)) {
        rc = take_pass(&c, err);
        if (!rc) {
            compute(&c);
            put_back(&c);
            end_turns(&c);
        }
    }
    fp_leave(mode);
    return rc;
}

int32_t sessions_step(glm_session *const *s, uint32_t n, uint64_t budget_ns, glm_error *err)
{
    return batch_step(s, n, budget_ns ? os_now_ns() + budget_ns : 0, NULL, err);
}

void session_event(glm_session *s, glm_event *ev) { step_event(s, ev); }
