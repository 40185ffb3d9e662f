/* turn.c: from sampled tokens to events and messages, and the ends of a turn. A turn may span several messages of the model,
 * when it calls tools and goes on with their results; begin.c begins them. */
#include "engine_int.h"

#include <string.h>

/* ---- tokens into events ---------------------------------------------------------------------------------- */

static int32_t event_text(glm_session *s, uint32_t type, const char *text, size_t size, uint64_t call_id)
{
    struct queued *e = events_add(&s->events, type);
    if (!e || !events_text(&s->events, &e->text, text, size))
        return GLM_ENOMEM;
    e->ev.text_size = size;
    e->ev.call_id = call_id;
    return GLM_OK;
}

static int32_t call_begin(glm_session *s, const struct stream_event *ev)
{
    struct turn *t = &s->turn;
    struct queued *e;

    if (t->n_call == t->call_capacity) {
        size_t capacity = t->call_capacity ? 2 * t->call_capacity : 8;
        struct call *call = mem_resize(&s->model->mem, t->call, capacity * sizeof *call);
        if (!call)
            return GLM_ENOMEM;
        t->call = call;
        t->call_capacity = capacity;
    }
    e = events_add(&s->events, GLM_EVENT_TOOL_CALL_BEGIN);
    if (!e || !events_text(&s->events, &e->name, ev->name, ev->name_size))
        return GLM_ENOMEM;
    e->ev.name_size = ev->name_size;
    e->ev.call_id = s->next_call;
    t->call[t->n_call++] = (struct call){ .id = s->next_call++ };
    return GLM_OK;
}

/* The call as an element of the message's JSON array. */
static void put_call(struct buf *b, const struct stream_event *ev, uint64_t id)
{
    buf_str(b, b->size ? ", {\"id\": " : "[{\"id\": ");
    buf_u64(b, id);
    buf_str(b, ", \"name\": ");
    json_put_string(b, ev->name, ev->name_size);
    buf_str(b, ", \"arguments\": ");
    buf_put(b, ev->arguments, ev->arguments_size);
    buf_char(b, '}');
}

static int32_t call_done(glm_session *s, const struct stream_event *ev)
{
    struct turn *t = &s->turn;
    uint64_t id = t->call[t->n_call - 1].id;
    struct queued *e = events_add(&s->events, GLM_EVENT_TOOL_CALL);

    if (!e || !events_text(&s->events, &e->name, ev->name, ev->name_size) ||
        !events_text(&s->events, &e->arguments, ev->arguments, ev->arguments_size))
        return GLM_ENOMEM;
    e->ev.name_size = ev->name_size;
    e->ev.arguments_size = ev->arguments_size;
    e->ev.call_id = id;
    t->call[t->n_call - 1].complete = true;
    put_call(&t->calls, ev, id);
    return t->calls.failed ? GLM_ENOMEM : GLM_OK;
}

static int32_t text_piece(glm_session *s, struct buf *b, uint32_t type, const struct stream_event *ev)
{
    buf_put(b, ev->text, ev->text_size);
    return b->failed ? GLM_ENOMEM : event_text(s, type, ev->text, ev->text_size, 0);
}

/* A call that was cut off was never delivered whole: the host never gets its GLM_EVENT_TOOL_CALL. */
static void drop_incomplete(struct turn *t)
{
    while (t->n_call > 0 && !t->call[t->n_call - 1].complete)
        t->n_call--;
}

static int32_t ready_text(glm_session *s)
{
    struct buf *ready = &s->turn.ready;
    struct stream_event ev = { .text = ready->data, .text_size = ready->size };
    if (ready->failed)
        return GLM_ENOMEM;
    return ready->size ? text_piece(s, &s->turn.text, GLM_EVENT_TEXT, &ev) : GLM_OK;
}

/* What the stop rules let through of it. */
int32_t turn_answer(glm_session *s, const char *text, size_t size)
{
    struct turn *t = &s->turn;
    struct buf *ready = &t->ready;
    buf_clear(ready);
    if (t->stop)
        t->ruled = text_stop_put(t->stop, text, size, ready);
    else
        buf_put(ready, text, size);
    t->stopped |= t->ruled;
    return ready_text(s);
}

/* A piece of the answer is over: no stop string goes on into the next. */
static int32_t answer_end(glm_session *s)
{
    struct turn *t = &s->turn;
    if (!t->stop || t->ruled)
        return GLM_OK;
    buf_clear(&t->ready);
    t->ruled = text_stop_flush(t->stop, &t->ready);
    t->stopped |= t->ruled;
    return ready_text(s);
}

static int32_t deliver(glm_session *s, const struct stream_event *ev)
{
    struct turn *t = &s->turn;
    switch (ev->type) {
    case STREAM_REASONING: return text_piece(s, &t->reasoning, GLM_EVENT_REASONING, ev);
    case STREAM_TEXT: return turn_answer(s, ev->text, ev->text_size);
    case STREAM_CALL_BEGIN: return call_begin(s, ev);
    case STREAM_CALL_DELTA:
        return event_text(s, GLM_EVENT_TOOL_CALL_DELTA, ev->text, ev->text_size, t->call[t->n_call - 1].id);
    case STREAM_CALL: return call_done(s, ev);
    case STREAM_CALL_CUT: drop_incomplete(t); break;
    case STREAM_STOP: t->stopped = true; break;
    }
    return GLM_OK;
}

static int32_t on_stream(void *user, const struct stream_event *ev)
{
    glm_session *s = user;
    int32_t rc = ev->type == STREAM_TEXT ? GLM_OK : answer_end(s);
    return rc || s->turn.ruled ? rc : deliver(s, ev);
}

/* ---- the end of a message --------------------------------------------------------------------------------- */

/* The tokens of the message so far. Those that were not computed yet are copied behind the others, where there is room. */
static struct ids message_ids(const glm_session *s)
{
    size_t n_past = s->past.n - s->turn.body, n_queue = s->queue.n - s->queue_done;
    struct ids ids = { .id = s->past.id + s->turn.body, .n = n_past + n_queue };
    if (n_queue)
        memcpy(ids.id + n_past, s->queue.id + s->queue_done, n_queue * sizeof *ids.id);
    return ids;
}

/* The model's message joins the conversation: what was delivered, without calls that never became whole. `whole`: the
 * ids that it was written in say just that, so that they can stand for it in prompts to come. */
static int32_t append_message(glm_session *s, bool keep_reasoning, bool whole, glm_error *err)
{
    struct turn *t = &s->turn;
    glm_message msg = { .struct_size = sizeof msg, .role = GLM_ROLE_ASSISTANT };
    struct ids ids = { 0 };
    size_t calls_size = t->calls.size;
    int32_t rc;

    if (t->calls.size)
        buf_char(&t->calls, ']');
    if (t->calls.failed)
        return err_nomem(err, "a message");
    msg.text = t->text.data ? t->text.data : "";
    msg.text_size = t->text.size;
    msg.reasoning = keep_reasoning && t->reasoning.data ? t->reasoning.data : "";
    msg.reasoning_size = keep_reasoning ? t->reasoning.size : 0;
    msg.calls_json = calls_size ? t->calls.data : NULL;
    msg.calls_size = t->calls.size;
    if (whole)
        ids = message_ids(s);
    rc = messages_add(&s->messages, &msg, whole ? &ids : NULL, 0, err);
    t->calls.size = calls_size;
    return rc;
}

void turn_drop_calls(glm_session *s)
{
    for (size_t i = 0; i < s->turn.n_call; i++)
        mem_free(&s->model->mem, s->turn.call[i].result);
    s->turn.n_call = 0;
}

int32_t turn_end(glm_session *s, uint32_t reason, glm_error *err)
{
    struct turn *t = &s->turn;
    struct queued *e = events_add(&s->events, GLM_EVENT_TURN_END);

    if (!e)
        return err_nomem(err, "an event");
    e->ev.end_reason = reason;
    e->ev.n_prompt = t->n_prompt;
    e->ev.n_reused = t->n_reused;
    e->ev.n_think = t->n_think;
    e->ev.n_answer = t->n_answer;
    e->ev.prefill_ns = t->prefill_ns;
    e->ev.decode_ns = t->decode_ns;
    tokens_drop_queue(s);
    if (reason == GLM_END_TOOLS) {
        s->state = SESSION_TOOLS;
    } else {
        s->state = SESSION_IDLE;
        t->active = t->infill = false;
        turn_drop_calls(s);
    }
    return GLM_OK;
}

static bool all_answered(const struct turn *t)
{
    for (size_t i = 0; i < t->n_call; i++)
        if (!t->call[i].answered)
            return false;
    return true;
}

/* Results become messages in the order of the calls. */
int32_t turn_results(glm_session *s, glm_error *err)
{
    struct turn *t = &s->turn;
    size_t before = s->messages.n;
    int32_t rc = GLM_OK;

    for (size_t i = 0; i < t->n_call && !rc; i++) {
        glm_message msg = { .struct_size = sizeof msg, .role = GLM_ROLE_TOOL };
        msg.text = t->call[i].result;
        msg.text_size = t->call[i].result_size;
        rc = messages_add(&s->messages, &msg, NULL, t->call[i].id, err);
    }
    if (rc)
        messages_cut(&s->messages, before);
    return rc;
}

/* With every result there the turn goes on by itself, else it ends and waits for them. */
static int32_t end_with_calls(glm_session *s, glm_error *err)
{
    bool whole = stream_n_cut(s->turn.stream) == 0 && !s->turn.ruled;
    int32_t rc = append_message(s, true, whole, err);
    if (rc)
        return rc;
    if (!all_answered(&s->turn))
        return turn_end(s, GLM_END_TOOLS, err);
    rc = turn_results(s, err);
    return rc ? rc : turn_begin(s, err);
}

static int32_t end_code(glm_session *s, uint32_t reason, glm_error *err)
{
    if (answer_end(s))
        return err_nomem(err, "the code");
    return turn_end(s, s->turn.ruled ? GLM_END_STOP : reason, err);
}

/* reason: STOP, or the limit that cut the message short. A stop rule may apply to the last of the text even then. */
static int32_t end_message(glm_session *s, uint32_t reason, glm_error *err)
{
    struct turn *t = &s->turn;
    struct stream_sink sink = { s, on_stream };
    bool limit = reason != GLM_END_STOP, whole;
    enum stream_finish finish;
    int32_t rc;

    if (t->infill)
        return end_code(s, reason, err);
    whole = !(limit && stream_drop_partial(t->stream));
    rc = stream_end(t->stream, limit, &sink, &finish, err);
    if (rc == GLM_ENOMEM || (!rc && answer_end(s)))
        rc = err_nomem(err, "the answer's text");
    if (rc)
        return rc;
    if (t->ruled)
        limit = false;
    drop_incomplete(t);
    if (t->n_call > 0 && !limit)
        return end_with_calls(s, err);
    whole = whole && stream_n_cut(t->stream) == 0 && !stream_in_reasoning(t->stream) && !(limit && t->calls.size) && !t->ruled;
    if (limit) /* calls of a message that was cut are not carried out */
        t->calls.size = 0;
    rc = append_message(s, true, whole, err);
    return rc ? rc : turn_end(s, limit ? reason : GLM_END_STOP, err);
}

/* ---- tokens ------------------------------------------------------------------------------------------------- */

static bool is_eos(const glm_model *m, int32_t id)
{
    const struct generation_defaults *g = ckpt_generation(m->ckpt);
    for (uint32_t i = 0; i < g->n_eos; i++)
        if (g->eos[i] == id)
            return true;
    return false;
}

static int32_t loop_event(glm_session *s, uint32_t period, uint64_t length)
{
    struct queued *e = events_add(&s->events, GLM_EVENT_LOOP);
    if (!e)
        return GLM_ENOMEM;
    e->ev.rows_done = length;
    e->ev.rows_total = period;
    return GLM_OK;
}

/* The next token of the message. A tag belongs to neither side of it: it counts as answer. */
static int32_t take(glm_session *s, int32_t id, glm_error *err)
{
    struct turn *t = &s->turn;
    struct stream_sink sink = { s, on_stream };
    bool thinking = !t->infill && stream_in_reasoning(t->stream);
    uint64_t length;
    uint32_t period;
    int32_t rc = GLM_OK;

    if (is_eos(s->model, id))
        t->stopped = true;
    else
        rc = t->infill ? infill_put(s, id, err) : stream_put(t->stream, id, &sink, err);
    t->thought |= !t->infill && stream_in_reasoning(t->stream);
    thinking = thinking && !t->stopped && stream_in_reasoning(t->stream);
    *(thinking ? &t->n_think : &t->n_answer) += 1;
    t->n_thought += thinking;
    t->n_left--;
    if (!t->stopped)
        ids_put(&s->queue, id);
    if (!rc && !t->stopped)
        rc = constrain_take(s, id, err);
    if (!rc && text_loop_put(&t->loop, id, &period, &length))
        rc = loop_event(s, period, length);
    if (rc == GLM_ENOMEM || s->queue.failed) /* sinks cannot say it */
        rc = err_nomem(err, "a token's events");
    return rc;
}

int32_t turn_settle(glm_session *s, glm_error *err)
{
    struct turn *t = &s->turn;
    int32_t rc = GLM_OK;
    bool again = true;

    while (!rc && again && !t->stopped && t->n_left) {
        again = false;
        if (think_due(s))
            rc = think_close(s, err);
        if (!rc && !t->stopped && t->n_left)
            rc = constrain_forced(s, &again, err);
    }
    if (!rc && t->stopped)
        return end_message(s, GLM_END_STOP, err);
    if (!rc && t->n_left == 0)
        return end_message(s, GLM_END_LENGTH, err);
    s->state = SESSION_DECODE;
    return rc;
}

int32_t turn_force(glm_session *s, const int32_t *ids, size_t n, glm_error *err)
{
    int32_t rc = GLM_OK;
    for (size_t i = 0; i < n && !rc && s->turn.n_left && !s->turn.stopped; i++)
        rc = take(s, ids[i], err);
    return rc;
}

int32_t turn_token(glm_session *s, int32_t id, glm_error *err)
{
    int32_t rc = take(s, id, err);
    s->stats.n_generated++;
    return rc ? rc : turn_settle(s, err);
}

/* ---- time ----------------------------------------------------------------------------------------------------- */

static uint64_t spent(const struct turn *t) { return t->prefill_ns + t->decode_ns; }

static bool computing(const glm_session *s) { return s->state == SESSION_PREFILL || s->state == SESSION_DECODE; }

bool turn_expired(const glm_session *s)
{
    return computing(s) && s->turn.opt.max_ns && spent(&s->turn) >= s->turn.opt.max_ns;
}

uint64_t turn_deadline(const glm_session *s, uint64_t now, uint64_t deadline)
{
    uint64_t most = s->turn.opt.max_ns, end;
    if (!computing(s) || !most)
        return deadline;
    end = most > spent(&s->turn) ? most - spent(&s->turn) : 1;
    end = end < UINT64_MAX - now ? now + end : UINT64_MAX;
    return deadline && deadline < end ? deadline : end;
}

/* In the prompt there is no message yet. */
int32_t turn_expire(glm_session *s, glm_error *err)
{
    return s->state == SESSION_PREFILL ? turn_end(s, GLM_END_TIME, err) : end_message(s, GLM_END_TIME, err);
}

/* ---- other ends --------------------------------------------------------------------------------------------- */

/* Only the answered calls of the last message stay in it, and their results follow. */
static int32_t keep_answered(glm_session *s, glm_error *err)
{
    struct turn *t = &s->turn;
    struct mem *m = &s->model->mem;
    bool *keep = mem_zarray(m, t->n_call + 1, sizeof *keep);
    size_t n = 0;
    int32_t rc;

    if (!keep)
        return err_nomem(err, "the results of calls");
    for (size_t i = 0; i < t->n_call; i++)
        keep[i] = t->call[i].answered;
    rc = messages_keep_calls(&s->messages, keep, err);
    mem_free(m, keep);
    if (rc)
        return rc;
    for (size_t i = 0; i < t->n_call; i++)
        if (t->call[i].answered)
            t->call[n++] = t->call[i];
    t->n_call = n;
    rc = turn_results(s, err);
    if (!rc && n == 0 && s->messages.item[s->messages.n - 1].chat.text_size == 0)
        messages_cut(&s->messages, s->messages.n - 1);
    return rc;
}

static bool any_answered(const struct turn *t)
{
    for (size_t i = 0; i < t->n_call; i++)
        if (t->call[i].answered)
            return true;
    return false;
}

/* Delivered text stays; an unfinished thought and unanswered calls go. */
int32_t turn_cancel(glm_session *s, glm_error *err)
{
    struct turn *t = &s->turn;
    int32_t rc = GLM_OK;

    if (s->state == SESSION_TOOLS) {
        rc = keep_answered(s, err);
    } else if (t->active && !t->infill && s->state != SESSION_IDLE) { /* between two messages nothing is under way */
        drop_incomplete(t);
        if (t->text.size || any_answered(t)) {
            rc = append_message(s, !stream_in_reasoning(t->stream), false, err);
            if (!rc && t->n_call)
                rc = keep_answered(s, err);
        }
    }
    if (rc)
        return rc;
    if (s->state == SESSION_IDLE)
        s->infill.pending = false;
    return turn_end(s, GLM_END_CANCELLED, err);
}

void turn_abort(glm_session *s)
{
    tokens_drop_queue(s);
    turn_drop_calls(s);
    s->turn.active = s->turn.infill = false;
    s->state = SESSION_IDLE;
}

void turn_free(glm_session *s)
{
    struct mem *m = &s->model->mem;
    turn_drop_calls(s);
    mem_free(m, s->turn.opt_block);
    ids_free(&s->turn.close);
    text_stop_close(s->turn.stop);
    buf_free(&s->turn.ready);
    mem_free(m, s->turn.call);
    mem_free(m, s->turn.mask);
    constrain_close(s);
    buf_free(&s->turn.reasoning);
    buf_free(&s->turn.text);
    buf_free(&s->turn.calls);
    stream_close(s->turn.stream);
}
