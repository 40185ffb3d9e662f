/* step.c: one step of a session: at least one unit of work, at most one event. What is computed lives in
 * tokens.c, what it means in turn.c. */
#include "engine_int.h"

static int32_t prefill_event(glm_session *s, glm_error *err)
{
    struct queued *e = events_add(&s->events, GLM_EVENT_PREFILL);
    if (!e)
        return err_nomem(err, "an event");
    e->ev.rows_done = s->queue.n ? s->queue_done : s->turn.n_prompt - s->turn.n_reused;
    e->ev.rows_total = s->turn.n_prompt - s->turn.n_reused;
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

static int32_t sample_next(glm_session *s, glm_error *err)
{
    int32_t id, rc;
    if (think_due(s))
        return turn_settle(s, err);
    rc = tokens_draw(s, &s->turn.sample, s->turn.mask, &id, err);
    return rc ? rc : turn_token(s, id, err);
}

/* After a chunk: an event, more of the queue, or the next token. */
static int32_t chunk_done(glm_session *s, glm_error *err)
{
    bool more = s->queue.n > 0;
    int32_t rc;

    switch (s->state) {
    case SESSION_FEED: return more ? GLM_OK : ready_event(s, err);
    case SESSION_PREFILL:
        rc = prefill_event(s, err);
        return rc || more ? rc : sample_next(s, err);
    default: return more ? GLM_OK : sample_next(s, err);
    }
}

static void count_time(uint64_t *spent, uint64_t *since)
{
    uint64_t now = os_now_ns();
    *spent += now - *since;
    *since = now;
}

static int32_t compute(glm_session *s, uint64_t deadline, glm_error *err)
{
    uint64_t since = os_now_ns();
    uint64_t *spent = s->state == SESSION_PREFILL ? &s->turn.prefill_ns : &s->turn.decode_ns;
    bool done;
    int32_t rc = tokens_run(s, turn_deadline(s, since, deadline), &done, err);

    count_time(spent, &since);
    if (!rc && done)
        rc = chunk_done(s, err);
    if (!rc && turn_expired(s))
        rc = turn_expire(s, err);
    count_time(spent, &since);
    return rc;
}

static int32_t handle_cancel(glm_session *s, glm_error *err)
{
    atomic_store(&s->cancel, false);
    if (s->state == SESSION_FEED) {
        s->turn.n_prompt = s->turn.n_reused = s->turn.n_think = s->turn.n_answer = 0;
        s->turn.prefill_ns = s->turn.decode_ns = 0;
    }
    return turn_cancel(s, err);
}

/* What there is to do, until an event is there or the time is up. */
static int32_t advance(glm_session *s, uint64_t deadline, glm_error *err)
{
    int32_t rc = GLM_OK;
    do {
        if (atomic_load(&s->cancel) && (s->state != SESSION_IDLE || turn_due(s)))
            rc = handle_cancel(s, err);
        else if (s->state == SESSION_TOOLS)
            rc = err_set(err, GLM_ESTATE, 0, NULL, "tool calls wait for results: give them with glm_tool_result, or cancel");
        else if (s->state == SESSION_IDLE && !turn_due(s))
            rc = err_set(err, GLM_ESTATE, 0, NULL, "nothing to do: say or feed something first");
        else if (s->state == SESSION_IDLE)
            rc = turn_begin(s, err);
        else
            rc = compute(s, deadline, err);
    } while (!rc && s->events.head == s->events.n && !(deadline && os_now_ns() >= deadline));
    return rc;
}

int32_t session_step(glm_session *s, uint64_t budget_ns, glm_event *ev, glm_error *err)
{
    uint64_t deadline = budget_ns ? os_now_ns() + budget_ns : 0;
    struct fp_mode mode;
    int32_t rc = GLM_OK;

    events_recycle(&s->events);
    if (events_take(&s->events, ev))
        return GLM_OK;
    mode = fp_enter();
    rc = advance(s, deadline, err);
    fp_leave(mode);
    if (rc && s->state != SESSION_IDLE && s->state != SESSION_TOOLS) {
        events_cut(&s->events, 0, 0);
        turn_abort(s);
    }
    if (!rc && !events_take(&s->events, ev)) {
        uint32_t struct_size = ev->struct_size;
        *ev = (glm_event){ .struct_size = struct_size, .type = GLM_EVENT_NONE };
        ev->rows_total = s->queue.n;
        ev->rows_done = s->queue_done;
    }
    return rc;
}
