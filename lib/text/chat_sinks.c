/* chat_sinks.c: where a render goes: the reference's text, or token ids in which content can not
 * become markup. Scratch lives for one render.
 */
#include "chat_int.h"

/* ---- text ------------------------------------------------------------------------------------ */

static int32_t text_put(
    void *user, enum chat_piece kind, enum tok_special special, const char *text, size_t size)
{
    struct buf *out = user;
    (void)kind;
    (void)special;
    buf_put(out, text, size);
    return out->failed ? GLM_ENOMEM : 0;
}

int32_t chat_render_text(struct mem *m, const struct chat_message *messages, size_t n_message,
    const struct json *tools, const struct chat_options *how, struct buf *out, glm_error *err)
{
    struct chat_sink sink = {.user = out, .put = text_put};
    int32_t rc = chat_render(m, messages, n_message, tools, how, &sink, err);
    return rc == GLM_ENOMEM ? err_nomem(err, "the rendered conversation") : rc;
}

/* ---- ids ------------------------------------------------------------------------------------- */

struct chat_ids {
    const struct tok *tok;
    struct ids *out;
    struct buf run; /* scaffold and content since the last special token */
    uint32_t flags; /* TOK_SPECIALS if the run's content is trusted: one message's content is all of
                       one kind */
    size_t *message_end; /* [n_message] or NULL */
    glm_error *err;
};

static int32_t end_run(struct chat_ids *c)
{
    int32_t rc = 0;
    if (c->run.failed)
        rc = err_nomem(c->err, "the rendered conversation");
    else if (c->run.size > 0)
        rc = tok_encode(c->tok, c->run.data, c->run.size, c->flags, c->out, c->err);
    buf_clear(&c->run);
    c->flags = 0;
    return rc;
}

static int32_t ids_sink_put(
    void *user, enum chat_piece kind, enum tok_special special, const char *text, size_t size)
{
    struct chat_ids *c = user;
    int32_t id = kind == CHAT_SPECIAL ? tok_id(c->tok, special) : -1;
    if (id < 0) {
        if (kind == CHAT_CONTENT_SPECIALS)
            c->flags = TOK_SPECIALS;
        buf_put(&c->run, text, size);
        return c->run.failed ? err_nomem(c->err, "the rendered conversation") : 0;
    }
    int32_t rc = end_run(c);
    if (rc)
        return rc;
    ids_put(c->out, id);
    return c->out->failed ? err_nomem(c->err, "token ids") : 0;
}

static int32_t ids_sink_put_ids(void *user, const int32_t *ids, size_t n)
{
    struct chat_ids *c = user;
    int32_t rc = end_run(c);
    if (rc)
        return rc;
    ids_append(c->out, ids, n);
    return c->out->failed ? err_nomem(c->err, "token ids") : 0;
}

static int32_t ids_sink_message_end(void *user, size_t index)
{
    struct chat_ids *c = user;
    int32_t rc = end_run(c);
    if (!rc && c->message_end != NULL)
        c->message_end[index] = c->out->n;
    return rc;
}

int32_t chat_render_ids(const struct tok *t, struct mem *m, const struct chat_message *messages,
    size_t n_message, const struct json *tools, const struct chat_options *how, struct ids *out,
    size_t *message_end, glm_error *err)
{
    struct chat_ids c = {.tok = t, .out = out, .message_end = message_end, .err = err};
    struct chat_sink sink = {.user = &c, .put = ids_sink_put, .message_end = ids_sink_message_end, .put_ids = ids_sink_put_ids};
    size_t n = out->n;
    bool failed = out->failed;
    buf_init(&c.run, m);
    int32_t rc = chat_render(m, messages, n_message, tools, how, &sink, err);
    if (!rc)
        rc = end_run(&c);
    if (rc) {
        out->n = n;
        out->failed = failed;
    }
    buf_free(&c.run);
    return rc;
}
