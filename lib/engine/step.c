/* step.c: one step of a session: at least one unit of work, at most one event. What is computed lives in
 * tokens.c, what it means in turn.c. */
#include "engine_int.h"

#include <string.h>

static int32_t prefill_event(glm_session *s, glm_error *err)
{
    struct queued *e = events_add(&s->events, GLM_EVENT_PREFILL);
    if (!e)
        return err_nomem(err, "an event");
    e->ev.rows_total = s->turn.n_prompt - s->turn.n_reused;
    e->ev.rows_done = s->queue.n && s->queue_done < e->ev.rows_total ? s->queue_done : e->ev.rows_total;
    return GLM_OK;
}

static int32_t ready_event(glm_session *s, glm_error *err)
{
    struct queued *e = events_add(&s->events, GLM_EVENT_READY);
    if (!e)
        return err_nomem(err, "an event");
    e->ev.rows_done = e->ev.rows_total = s->n_fed;
    s->state = SESSION_IDLE;
    return GLM_OK;
}

/* Everything queued is computed: the message goes on from here. */
static bool at_end(const glm_session *s)
{
    return s->queue.n == 0 && (s->state == SESSION_PREFILL || s->state == SESSION_DECODE);
}

bool step_draws(const glm_session *s)
{
    return at_end(s) && !think_due(s);
}

int32_t step_draw(glm_session *s, int32_t *id, glm_error *err)
{
    const uint32_t *mask;
    int32_t rc = constrain_mask(s, &mask, err);
    return rc ? rc : tokens_draw(s, &s->turn.sample, mask, id, err);
}

int32_t step_chunk(glm_session *s, const int32_t *id, glm_error *err)
{
    int32_t rc = GLM_OK;

    if (s->state == SESSION_FEED)
        return s->queue.n ? GLM_OK : ready_event(s, err);
    if (s->state == SESSION_PREFILL)
        rc = prefill_event(s, err);
    if (rc || !at_end(s))
        return rc;
    return id ? turn_token(s, *id, err) : turn_settle(s, err);
}

static int32_t chunk_done(glm_session *s, glm_error *err)
{
    bool draws = step_draws(s);
    int32_t id = 0, rc = draws ? step_draw(s, &id, err) : GLM_OK;
    return rc ? rc : step_chunk(s, draws ? &id : NULL, err);
}

static void count_time(uint64_t *spent, uint64_t *since)
{
    uint64_t now = os_now_ns();
    *spent += now - *since;
    *since = now;
}

static int32_t compute(glm_session *s, uint64_t deadline, glm_error *err)
{
    uint64_t begin = os_now_ns(), since = begin, before = s->stats.n_generated;
    bool prefill = s->state == SESSION_PREFILL, done = draft_accept(s); /* the next token without another pass */
    uint64_t *spent = prefill ? &s->turn.prefill_ns : &s->turn.decode_ns;
    int32_t rc = done ? GLM_OK : tokens_run(s, turn_deadline(s, since, deadline), &done, err);

    count_time(spent, &since);
    if (!rc && done)
        rc = chunk_done(s, err);
    if (!rc && turn_expired(s))
        rc = turn_expire(s, err);
    count_time(spent, &since);
    if (!prefill && !rc)
        draft_timed(s, since - begin, s->stats.n_generated - before);
    return rc;
}

int32_t step_cancel(glm_session *s, glm_error *err)
{
    atomic_store(&s->cancel, false);
    if (s->state == SESSION_FEED) {
        constrain_unfed(s, s->queue.n - s->queue_done);
        s->turn.n_prompt = s->turn.n_reused = s->turn.n_think = s->turn.n_answer = 0;
        s->turn.prefill_ns = s->turn.decode_ns = 0;
    }
    return turn_cancel(s, err);
}

enum step_work step_work(const glm_session *s)
{
    bool idle = s->state == SESSION_IDLE, due = idle && turn_due(s);

    if (atomic_load(&s->cancel) && (!idle || due))
        return STEP_CANCEL;
    if (s->state == SESSION_TOOLS)
        return STEP_WAIT;
    return due ? STEP_BEGIN : idle ? STEP_NOTHING : STEP_COMPUTE;
}

int32_t step_refuse(enum step_work work, glm_error *err)
{
    return err_set(err, GLM_ESTATE, 0, NULL, work == STEP_WAIT
        ? "tool calls wait for results: give them with glm_tool_result, or cancel"
        : "nothing to do: say or feed something first");
}

/* What there is to do, until an event is there or the time is up. */
static int32_t advance(glm_session *s, uint64_t deadline, glm_error *err)
{
    int32_t rc = GLM_OK;
    do {
        enum step_work work = step_work(s);
        switch (work) {
        case STEP_CANCEL: rc = step_cancel(s, err); break;
        case STEP_BEGIN: rc = turn_begin(s, err); break;
        case STEP_COMPUTE: rc = compute(s, deadline, err); break;
        default: rc = step_refuse(work, err);
        }
    } while (!rc && s->events.head == s->events.n && !(deadline && os_now_ns() >= deadline));
    return rc;
}

void step_failed(glm_session *s)
{
    if (s->state == SESSION_IDLE || s->state == SESSION_TOOLS)
        return;
    events_cut(&s->events, 0, 0);
    if (s->state == SESSION_FEED)
        constrain_unfed(s, s->queue.n - s->queue_done);
    turn_abort(s);
}

static void failure_event(glm_session *s, glm_event *ev)
{
    ev->type = GLM_EVENT_ERROR;
    ev->status = s->failure.code;
    ev->text = s->failure.message;
    ev->text_size = strlen(s->failure.message);
    s->failed = false;
}

void step_event(glm_session *s, glm_event *ev)
{
    uint32_t struct_size = ev->struct_size;

    if (events_take(&s->events, ev))
        return;
    *ev = (glm_event){ .struct_size = struct_size, .type = GLM_EVENT_NONE };
    ev->rows_total = s->queue.n;
    ev->rows_done = s->queue_done;
    if (s->failed)
        failure_event(s, ev);
}

int32_t session_step(glm_session *s, uint64_t budget_ns, glm_event *ev, glm_error *err)
{
    uint64_t deadline = budget_ns ? os_now_ns() + budget_ns : 0;
    struct fp_mode mode;
    int32_t rc = GLM_OK;

    events_recycle(&s->events);
    if (events_take(&s->events, ev))
        return GLM_OK;
    s->in_batch = false;
    if (step_work(s) == STEP_COMPUTE)
        rc = tokens_ready(s, err); /* a session that was in a batch has no pass; failing, it stays as it is */
    if (rc)
        return rc;
    mode = fp_enter();
    rc = advance(s, deadline, err);
    fp_leave(mode);
    if (rc)
        step_failed(s);
    else
        step_event(s, ev);
    return rc;
}
