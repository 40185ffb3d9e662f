/* think.c: closing a thought before the model does: at its budget, or when the host asks. Whatever the model was about to
 * write, what stands in the conversation then is whole characters, the closing phrase, </think>; the answer is sampled as
 * if the model had closed the thought itself. */
#include "engine_int.h"

bool think_due(const glm_session *s)
{
    const struct turn *t = &s->turn;
    if (t->infill || t->stopped || !stream_in_reasoning(t->stream))
        return false;
    return atomic_load(&s->end_thought) || (t->opt.thinking == GLM_THINK_BUDGET && t->n_thought >= t->opt.think_tokens);
}

/* ---- half characters --------------------------------------------------------------------------------------------- */

/* The i-th token from the end, computed or not. */
static int32_t from_end(const glm_session *s, size_t i)
{
    return i < s->queue.n ? s->queue.id[s->queue.n - 1 - i] : s->past.id[s->past.n - 1 - (i - s->queue.n)];
}

static size_t bytes_from_end(const glm_session *s, size_t i)
{
    size_t size;
    tok_bytes(s->model->tok, from_end(s, i), &size);
    return size;
}

/* Whether the i-th token from the end begins inside a character. */
static bool begins_inside(const glm_session *s, size_t i)
{
    size_t size;
    const char *bytes = tok_bytes(s->model->tok, from_end(s, i), &size);
    return size && ((unsigned char)bytes[0] & 0xc0) == 0x80;
}

/* Tokens from the end that hold the last n_partial bytes, and where such a token ends another character, those that this
 * one began in; *size: their bytes. */
static size_t tokens_back(const glm_session *s, size_t n_partial, size_t *size)
{
    size_t n = 0, n_most = s->turn.n_thought, n_least, least;

    *size = 0;
    do
        *size += bytes_from_end(s, n++);
    while (*size < n_partial && n < n_most);
    n_least = n;
    least = *size;
    while (begins_inside(s, n - 1) && n < n_most && n < n_least + 3)
        *size += bytes_from_end(s, n++);
    if (!begins_inside(s, n - 1))
        return n;
    *size = least; /* ill-formed text: there is no beginning */
    return n_least;
}

/* Their positions will be written again, and a fork may share the page of some. */
static int32_t forget(glm_session *s, size_t n, glm_error *err)
{
    struct turn *t = &s->turn;
    size_t queued = n < s->queue.n ? n : s->queue.n;

    constrain_forget(s, n);
    t->n_think -= n;
    t->n_thought -= n;
    t->n_left += n;
    s->queue.n -= queued;
    if (n > queued)
        tokens_truncate(s, s->past.n - (n - queued));
    return kv_reserve(&s->kv, s->past.n, (uint64_t)s->kv.seq.n_page * KV_PAGE_ROWS, err);
}

/* A character that the thought ends in the middle of is taken back, token by token. What else those tokens held has been
 * delivered already and comes back as tokens of its own. */
static int32_t drop_partial(glm_session *s, glm_error *err)
{
    struct turn *t = &s->turn;
    const struct tok *tok = s->model->tok;
    size_t n_partial = stream_drop_partial(t->stream), size, n;
    struct ids rest;
    int32_t rc;

    if (n_partial == 0)
        return GLM_OK;
    n = tokens_back(s, n_partial, &size);
    buf_clear(&t->ready);
    for (size_t i = n; i > 0; i--) {
        size_t n_byte;
        const char *bytes = tok_bytes(tok, from_end(s, i - 1), &n_byte);
        buf_put(&t->ready, bytes, n_byte);
    }
    if (t->ready.failed)
        return err_nomem(err, "the end of a thought");
    rc = forget(s, n, err);
    if (rc)
        return rc;
    size = utf8_valid_prefix(t->ready.data, size > n_partial ? size - n_partial : 0);
    ids_init(&rest, &s->model->mem);
    rc = tok_encode(tok, t->ready.data, size, 0, &rest, err);
    if (!rc && rest.n < t->n_left) {
        for (size_t i = 0; i < rest.n && !rc; i++)
            rc = constrain_take(s, rest.id[i], err);
        ids_append(&s->queue, rest.id, rest.n);
        t->n_think += rest.n;
        t->n_thought += rest.n;
        t->n_left -= rest.n;
    }
    ids_free(&rest);
    return rc;
}

/* ---- the end of a thought ------------------------------------------------------------------------------------------- */

static int32_t cut_event(glm_session *s, uint64_t n_thought, glm_error *err)
{
    struct queued *e = events_add(&s->events, GLM_EVENT_THINK_CUT);
    if (!e)
        return err_nomem(err, "an event");
    e->ev.n_think = n_thought;
    return GLM_OK;
}

/* The message does not think again: a budget is the message's. */
int32_t think_close(glm_session *s, glm_error *err)
{
    struct turn *t = &s->turn;
    int32_t open = tok_id(s->model->tok, TOK_THINK), rc = drop_partial(s, err);
    uint64_t n_thought = t->n_thought;

    atomic_store(&s->end_thought, false);
    if (rc)
        return rc;
    if (t->n_left < t->close.n) {
        t->n_left = 0;
        return GLM_OK;
    }
    text_loop_begin(&t->loop);
    rc = turn_force(s, t->close.id, t->close.n, err);
    if (!rc)
        rc = cut_event(s, n_thought, err);
    if (open >= 0)
        t->base[open / 32] &= ~(1u << open % 32);
    t->has_mask = false;
    return rc;
}

/* The thought is still to come where the message has neither thought nor said anything. */
static bool thought_ahead(const glm_session *s)
{
    const struct turn *t = &s->turn;
    return t->opt.thinking != GLM_THINK_OFF && !t->thought && t->text.size == 0 && t->n_call == 0;
}

int32_t session_end_thought(glm_session *s, glm_error *err)
{
    bool computing = s->state == SESSION_PREFILL || s->state == SESSION_DECODE;
    if (!computing || s->turn.infill)
        return err_set(err, GLM_ESTATE, 0, NULL, "no turn is under way: there is no thought to close");
    if (tok_id(s->model->tok, TOK_THINK_END) < 0)
        return err_set(err, GLM_ENOTSUP, 0, NULL, "the vocabulary has no </think>: thoughts cannot be closed");
    if (!stream_in_reasoning(s->turn.stream) && !thought_ahead(s))
        return err_set(err, GLM_ESTATE, 0, NULL, "the message is past its thought");
    atomic_store(&s->end_thought, true);
    return GLM_OK;
}
