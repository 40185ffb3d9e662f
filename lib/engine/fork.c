/* fork.c: a second session that goes on from the same point, and the way back to an earlier one. Text and KV pages are
 * shared until one of the two changes them; what a turn under way holds is copied. */
#include "engine_int.h"

#include <string.h>

/* ---- forks ------------------------------------------------------------------------------------------------- */

static int32_t copy_tokens(glm_session *to, const glm_session *from, glm_error *err)
{
    ids_append(&to->past, from->past.id, from->past.n);
    if (from->queue_done < from->queue.n)
        ids_append(&to->queue, from->queue.id + from->queue_done, from->queue.n - from->queue_done);
    to->feed_rows = from->feed_rows;
    return to->past.failed || to->queue.failed ? err_nomem(err, "token ids") : GLM_OK;
}

/* The results of a feed that the host can read: those that were kept, else the last ones, wherever they lie. */
static int32_t copy_rows(glm_session *to, const glm_session *from, glm_error *err)
{
    size_t n_logit = from->model->info.n_vocab, n_hidden = from->model->info.d_model, last;
    bool all = from->n_kept || tokens_all_rows(from);
    uint64_t rows = all ? from->n_fed : 1;

    to->n_fed = from->n_fed;
    to->n_kept = from->n_kept;
    to->has_logits = from->has_logits;
    if (!all && !from->has_logits)
        return GLM_OK;
    if (!buf_reserve(&to->logits, rows * n_logit * sizeof(float)) ||
        !buf_reserve(&to->hidden, rows * n_hidden * sizeof(float)))
        return err_nomem(err, "the logits");
    buf_put(&to->logits, all ? from->logits.data : (const char *)from->last_logits,
        (all ? from->n_kept : 1) * n_logit * sizeof(float));
    buf_put(&to->hidden, all ? from->hidden.data : (const char *)from->last_hidden,
        (all ? from->n_kept : 1) * n_hidden * sizeof(float));
    last = from->n_kept ? from->n_kept - 1 : 0;
    to->last_logits = (const float *)(const void *)to->logits.data + last * n_logit;
    to->last_hidden = (const float *)(const void *)to->hidden.data + last * n_hidden;
    return GLM_OK;
}

static int32_t copy_calls(glm_session *to, const glm_session *from, glm_error *err)
{
    struct mem *m = &to->model->mem;
    struct turn *t = &to->turn;

    t->call = mem_array(m, from->turn.n_call + 1, sizeof *t->call);
    if (!t->call)
        return err_nomem(err, "tool calls");
    t->call_capacity = from->turn.n_call + 1;
    for (; t->n_call < from->turn.n_call; t->n_call++) {
        struct call *c = &t->call[t->n_call];
        *c = from->turn.call[t->n_call];
        if (!c->result)
            continue;
        c->result = mem_alloc(m, c->result_size + 1);
        if (!c->result)
            return err_nomem(err, "a tool result");
        memcpy(c->result, from->turn.call[t->n_call].result, c->result_size + 1);
    }
    return GLM_OK;
}

static bool copy_buf(struct buf *to, const struct buf *from)
{
    buf_put(to, from->data, from->size);
    return !to->failed;
}

/* The parser needs no copy: the message's tokens, put again, bring a new one to the same state. */
static int32_t copy_stream(glm_session *to, const glm_session *from, glm_error *err)
{
    int32_t rc = turn_open_stream(to, &to->turn.stream, err);
    for (size_t i = from->turn.n_prompt; !rc && i < from->past.n; i++)
        rc = stream_put(to->turn.stream, from->past.id[i], NULL, err);
    if (from->state == SESSION_DECODE)
        for (size_t i = from->queue_done; !rc && i < from->queue.n; i++)
            rc = stream_put(to->turn.stream, from->queue.id[i], NULL, err);
    return rc;
}

static int32_t copy_turn(glm_session *to, const glm_session *from, glm_error *err)
{
    const struct turn *f = &from->turn;
    struct turn *t = &to->turn;
    size_t words = ((size_t)from->model->info.n_vocab + 31) / 32;
    struct turn fresh = *t;
    int32_t rc;

    *t = *f;
    t->reasoning = fresh.reasoning;
    t->text = fresh.text;
    t->calls = fresh.calls;
    t->ready = fresh.ready;
    t->close = fresh.close;
    t->opt = fresh.opt;
    t->opt_block = NULL;
    t->stop = NULL;
    t->call = NULL;
    t->n_call = t->call_capacity = 0;
    t->stream = NULL;
    t->run = NULL;
    t->has_mask = false;
    t->base = f->base ? mem_array(&to->model->mem, words, sizeof *t->base) : NULL;
    t->mask = f->mask ? mem_array(&to->model->mem, words, sizeof *t->mask) : NULL;
    if ((f->base && !t->base) || (f->mask && !t->mask))
        return err_nomem(err, "the token mask");
    if (f->base)
        memcpy(t->base, f->base, words * sizeof *t->base);
    if (!f->active)
        return GLM_OK;
    rc = turn_copy_rules(&to->model->mem, t, f, err);
    if (!rc)
        rc = turn_reserve_text(to, err);
    if (!rc && !(copy_buf(&t->reasoning, &f->reasoning) && copy_buf(&t->text, &f->text) && copy_buf(&t->calls, &f->calls)))
        rc = err_nomem(err, "the answer's text");
    if (!rc)
        rc = copy_calls(to, from, err);
    if (!rc && !f->infill && (from->state == SESSION_PREFILL || from->state == SESSION_DECODE))
        rc = copy_stream(to, from, err);
    return rc;
}

/* What the rest of a turn will need: as its first step took it for the parent. */
static int32_t reserve_rest(glm_session *to, const glm_session *from, glm_error *err)
{
    uint64_t left = to->queue.n, n_pos = to->past.n + left;

    if (from->state == SESSION_PREFILL || from->state == SESSION_DECODE)
        n_pos += to->turn.n_left;
    if (left)
        return tokens_reserve(to, to->past.n, turn_pass_rows(to, left), n_pos, err);
    if (from->sampler)
        return sampler_open(&to->model->mem, to->model->info.n_vocab, &to->sampler, err);
    return GLM_OK;
}

static int32_t copy_session(glm_session *to, const glm_session *from, glm_error *err)
{
    int32_t rc;

    to->in_batch = from->in_batch;
    rc = turn_options_copy(&to->model->mem, &from->options, &to->options, &to->options_block, err);
    if (rc)
        return rc;
    to->in_batch = from->in_batch;
    to->next_call = from->next_call;
    to->first_message = from->first_message;
    to->tools = from->tools;
    if (to->tools)
        atomic_fetch_add_explicit(&to->tools->owners, 1, memory_order_relaxed);
    rc = messages_fork(&to->messages, &from->messages, err);
    if (!rc)
        rc = kv_fork(&to->kv, &from->kv, from->past.n, err);
    if (!rc)
        rc = copy_tokens(to, from, err);
    if (!rc)
        rc = copy_rows(to, from, err);
    if (!rc)
        rc = copy_turn(to, from, err);
    if (!rc)
        rc = infill_copy(&to->infill, &from->infill, err);
    if (!rc)
        rc = reserve_rest(to, from, err);
    if (!rc)
        rc = draft_copy(to, from, err);
    if (!rc)
        rc = constrain_copy(to, from, err);
    if (!rc && !events_copy(&to->events, &from->events))
        rc = err_nomem(err, "events");
    to->state = from->state;
    return rc;
}

int32_t session_fork(glm_session *s, glm_session **out, glm_error *err)
{
    glm_session_options o = { .struct_size = sizeof o, .n_ctx = s->n_ctx, .kv_type = s->kv.seq.type };
    glm_session *to;
    int32_t rc;

    o.overflow = s->overflow;
    o.speculation = s->draft.mode;
    o.event_bytes = s->event_bytes;
    *out = NULL;
    rc = session_open(s->model, &o, &to, err);
    if (rc)
        return rc;
    rc = copy_session(to, s, err);
    if (rc) {
        session_close(to);
        return rc;
    }
    atomic_store(&to->cancel, atomic_load(&s->cancel));
    atomic_store(&to->end_thought, atomic_load(&s->end_thought));
    *out = to;
    return GLM_OK;
}

/* ---- marks -------------------------------------------------------------------------------------------------- */

static int32_t check_between(const glm_session *s, glm_error *err)
{
    if ((s->state != SESSION_IDLE && s->state != SESSION_TOOLS) || (s->state == SESSION_IDLE && s->turn.active))
        return err_set(err, GLM_ESTATE, 0, NULL, "a turn is under way: step to its end or cancel first");
    return GLM_OK;
}

int32_t session_mark(const glm_session *s, uint64_t *mark, glm_error *err)
{
    int32_t rc = check_between(s, err);
    if (!rc)
        *mark = s->messages.n;
    return rc;
}

int32_t session_rewind(glm_session *s, uint64_t mark, glm_error *err)
{
    int32_t rc = check_between(s, err);

    if (rc)
        return rc;
    if (mark > s->messages.n)
        return err_set(err, GLM_EINVAL, mark, "mark", "the conversation has %zu messages only", s->messages.n);
    turn_abort(s);
    events_clear(&s->events);
    messages_cut(&s->messages, mark);
    if (s->first_message >= mark)
        s->first_message = 0;
    atomic_store(&s->cancel, false);
    return GLM_OK;
}
