/* saved.c: what a snapshot holds of a session beside its tokens and its cache, as bytes and back: options, the turn under
 * way with its calls, messages. Bytes that are read were not changed since somebody wrote them, and that is all that is
 * known of them: every number and every text is checked before anything is built on it. Little-endian. */
#include "engine_int.h"

#include <string.h>

#define ABSENT UINT64_MAX /* as the length of a text that is not there */

/* ---- numbers and text -------------------------------------------------------------------------------------- */

static void put_u64(struct buf *b, uint64_t v)
{
    char bytes[8];
    for (unsigned i = 0; i < 8; i++)
        bytes[i] = (char)(v >> 8 * i);
    buf_put(b, bytes, sizeof bytes);
}

static void put_f32(struct buf *b, float v)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    put_u64(b, bits);
}

static void put_text(struct buf *b, const char *text, size_t size)
{
    put_u64(b, text ? size : ABSENT);
    if (text)
        buf_put(b, text, size);
}

/* With its NUL, so that it can be used where it lies. */
static void put_string(struct buf *b, const char *text) { put_text(b, text, text ? strlen(text) + 1 : 0); }

static const char *take_bytes(struct saved *in, uint64_t size)
{
    const char *at = in->at;
    if (size > in->left) {
        in->bad = true;
        return NULL;
    }
    in->at += size;
    in->left -= (size_t)size;
    return at;
}

static uint64_t take_u64(struct saved *in)
{
    const char *at = take_bytes(in, 8);
    uint64_t v = 0;
    for (unsigned i = 0; at && i < 8; i++)
        v |= (uint64_t)(unsigned char)at[i] << 8 * i;
    return v;
}

static uint64_t take_most(struct saved *in, uint64_t most)
{
    uint64_t v = take_u64(in);
    in->bad |= v > most;
    return in->bad ? 0 : v;
}

static uint32_t take_u32(struct saved *in) { return (uint32_t)take_most(in, UINT32_MAX); }

static float take_f32(struct saved *in)
{
    uint32_t bits = take_u32(in);
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

/* NULL: absent, or bad. */
static const char *take_text(struct saved *in, size_t *size)
{
    uint64_t n = take_u64(in);
    const char *text = n == ABSENT || in->bad ? NULL : take_bytes(in, n);
    size_t bad;

    *size = text ? (size_t)n : 0;
    in->bad |= text && !utf8_is_valid(text, *size, &bad);
    return in->bad ? NULL : text;
}

static const char *take_string(struct saved *in)
{
    size_t size;
    const char *text = take_text(in, &size);
    in->bad |= text && (size == 0 || memchr(text, '\0', size) != text + size - 1);
    return in->bad ? NULL : text;
}

static void put_ids(struct buf *b, const int32_t *ids, size_t n)
{
    put_u64(b, n);
    for (size_t i = 0; i < n; i++)
        put_u64(b, (uint32_t)ids[i]);
}

/* The number of ids that follow; each takes 8 bytes. */
static size_t take_n_ids(struct saved *in) { return (size_t)take_most(in, in->left / 8); }

static int32_t take_id(struct saved *in, const glm_session *s) { return (int32_t)take_most(in, s->model->info.n_vocab - 1); }

static int32_t nonsense(const struct saved *in, const char *what, glm_error *err)
{
    return err_set(err, GLM_EFORMAT, in->offset, in->where, "the snapshot's %s make no sense: it was not written by this "
        "library, or by a damaged one", what);
}

/* ---- options -------------------------------------------------------------------------------------------------- */

static void put_options(struct buf *b, const glm_turn_options *o)
{
    put_u64(b, o->thinking);
    put_u64(b, o->think_tokens);
    put_u64(b, o->max_tokens);
    put_u64(b, o->max_ns);
    put_u64(b, o->seed);
    put_f32(b, o->temperature);
    put_f32(b, o->top_p);
    put_f32(b, o->min_p);
    put_f32(b, o->repeat_penalty);
    put_u64(b, (uint32_t)o->top_k);
    put_u64(b, o->tool_choice);
    put_string(b, o->tool_name);
    put_string(b, o->think_close);
    put_string(b, o->answer_schema);
    put_u64(b, o->n_stop);
    for (uint32_t i = 0; i < o->n_stop; i++)
        put_string(b, o->stop[i]);
    put_u64(b, o->n_logprobs);
    put_u64(b, o->stop_lines);
    put_u64(b, o->stop_dedent);
    put_u64(b, o->keep_thoughts);
    put_string(b, o->answer_pattern);
}

#define STOP_MAX 64u

/* Options whose texts lie in the saved bytes. */
struct saved_options {
    glm_turn_options opt;
    const char *stop[STOP_MAX];
};

static void take_options(struct saved *in, struct saved_options *out)
{
    glm_turn_options *o = &out->opt;

    *o = (glm_turn_options){ .struct_size = sizeof *o };
    o->thinking = (uint32_t)take_most(in, GLM_THINK_BUDGET);
    o->think_tokens = take_u32(in);
    o->max_tokens = take_u32(in);
    o->max_ns = take_u64(in);
    o->seed = take_u64(in);
    o->temperature = take_f32(in);
    o->top_p = take_f32(in);
    o->min_p = take_f32(in);
    o->repeat_penalty = take_f32(in);
    o->top_k = (int32_t)take_u32(in);
    in->bad |= o->top_k < -1;
    o->tool_choice = (uint32_t)take_most(in, GLM_TOOLS_NAMED);
    o->tool_name = take_string(in);
    o->think_close = take_string(in);
    o->answer_schema = take_string(in);
    o->n_stop = (uint32_t)take_most(in, STOP_MAX);
    for (uint32_t i = 0; i < o->n_stop; i++) {
        out->stop[i] = take_string(in);
        in->bad |= !out->stop[i];
    }
    o->stop = o->n_stop ? out->stop : NULL;
    o->n_logprobs = take_u32(in);
    o->stop_lines = take_u32(in);
    o->stop_dedent = (uint32_t)take_most(in, 1);
    o->keep_thoughts = (uint32_t)take_most(in, 1);
    o->answer_pattern = take_string(in);
}

/* Copied into the session, as those of turns to come. */
static int32_t use_options(struct saved *in, glm_session *s, glm_error *err)
{
    struct saved_options o;
    int32_t rc;

    take_options(in, &o);
    if (in->bad)
        return nonsense(in, "options", err);
    rc = session_turn(s, &o.opt, err);
    return rc == GLM_EINVAL ? nonsense(in, "options", err) : rc;
}

/* ---- the turn under way ------------------------------------------------------------------------------------------- */

static void put_sample(struct buf *b, const struct sample_options *o)
{
    put_f32(b, o->temperature);
    put_f32(b, o->top_p);
    put_f32(b, o->min_p);
    put_f32(b, o->repeat_penalty);
    put_u64(b, (uint32_t)o->top_k);
    put_u64(b, o->seed);
}

static void take_sample(struct saved *in, struct sample_options *o)
{
    o->temperature = take_f32(in);
    o->top_p = take_f32(in);
    o->min_p = take_f32(in);
    o->repeat_penalty = take_f32(in);
    o->top_k = (int32_t)take_u32(in);
    o->seed = take_u64(in);
    in->bad |= sample_check(o, NULL) != GLM_OK;
}

static void put_turn(struct buf *b, const glm_session *s)
{
    const struct turn *t = &s->turn;

    put_options(b, &t->opt);
    put_sample(b, &t->sample);
    put_u64(b, t->n_left);
    put_u64(b, t->n_prompt);
    put_u64(b, t->n_reused);
    put_u64(b, t->n_think);
    put_u64(b, t->n_answer);
    put_u64(b, t->prefill_ns);
    put_u64(b, t->decode_ns);
    if (s->state != SESSION_TOOLS) { /* the results are messages already */
        put_u64(b, 0);
        return;
    }
    put_u64(b, t->n_call);
    for (size_t i = 0; i < t->n_call; i++) {
        put_u64(b, t->call[i].id);
        put_text(b, t->call[i].answered ? t->call[i].result : NULL, t->call[i].result_size);
    }
}

static int32_t take_call(struct saved *in, glm_session *s, struct call *c, glm_error *err)
{
    size_t size;
    const char *result;

    *c = (struct call){ .id = take_most(in, s->next_call - 1), .complete = true };
    result = take_text(in, &size);
    if (in->bad || c->id == 0)
        return nonsense(in, "calls", err);
    if (!result)
        return GLM_OK;
    c->result = mem_alloc(&s->model->mem, size + 1);
    if (!c->result)
        return err_nomem(err, "a tool result");
    memcpy(c->result, result, size);
    c->result[size] = '\0';
    c->result_size = size;
    c->answered = true;
    return GLM_OK;
}

/* The calls are those of the last message, in its order, and at least one has no result yet. */
static int32_t take_calls(struct saved *in, glm_session *s, glm_error *err)
{
    struct turn *t = &s->turn;
    size_t n = (size_t)take_u64(in), n_answered = 0;
    const struct message *last = s->messages.n ? &s->messages.item[s->messages.n - 1] : NULL;

    if (in->bad || (n > 0) != (s->state == SESSION_TOOLS) || (n > 0 && (!last || last->chat.n_call != n)))
        return nonsense(in, "calls", err);
    if (n == 0)
        return GLM_OK;
    t->call = mem_array(&s->model->mem, n, sizeof *t->call);
    if (!t->call)
        return err_nomem(err, "tool calls");
    t->call_capacity = n;
    while (t->n_call < n) {
        int32_t rc = take_call(in, s, &t->call[t->n_call], err);
        if (rc)
            return rc;
        n_answered += t->call[t->n_call++].answered;
    }
    return n_answered < n ? GLM_OK : nonsense(in, "calls", err);
}

static int32_t take_turn(struct saved *in, glm_session *s, glm_error *err)
{
    struct turn *t = &s->turn;
    int32_t rc = s->model->tok ? use_options(in, s, err) : nonsense(in, "turn", err);

    if (!rc)
        rc = turn_freeze(s, err);
    if (rc)
        return rc;
    t->active = true;
    take_sample(in, &t->sample);
    t->n_left = take_most(in, s->model->info.n_ctx_train);
    t->n_prompt = take_u64(in);
    t->n_reused = take_u64(in);
    t->n_think = take_u64(in);
    t->n_answer = take_u64(in);
    t->prefill_ns = take_u64(in);
    t->decode_ns = take_u64(in);
    return in->bad ? nonsense(in, "turn", err) : take_calls(in, s, err);
}

/* ---- code to be filled in ------------------------------------------------------------------------------------------- */

static void put_infill(struct buf *b, const struct infill *v)
{
    put_u64(b, v->n_file);
    for (size_t i = 0; i < v->n_file; i++) {
        put_string(b, v->file[i].path);
        put_ids(b, v->file[i].ids.id, v->file[i].ids.n);
    }
    put_u64(b, v->pending);
    if (!v->pending)
        return;
    put_ids(b, v->prompt.id, v->prompt.n);
    put_text(b, v->line.data ? v->line.data : "", v->line.size);
}

static int32_t take_ids(struct saved *in, const glm_session *s, struct ids *out, glm_error *err)
{
    size_t n = take_n_ids(in);
    for (size_t i = 0; i < n; i++)
        ids_put(out, take_id(in, s));
    return out->failed ? err_nomem(err, "token ids") : GLM_OK;
}

static int32_t take_file(struct saved *in, const glm_session *s, struct infill_file *f, glm_error *err)
{
    struct mem *m = s->infill.mem;
    const char *path = take_string(in);

    if (!path)
        return nonsense(in, "files of context", err);
    f->path = mem_alloc(m, strlen(path) + 1);
    if (!f->path)
        return err_nomem(err, "a file of context");
    memcpy(f->path, path, strlen(path) + 1);
    return take_ids(in, s, &f->ids, err);
}

static int32_t take_infill(struct saved *in, glm_session *s, glm_error *err)
{
    struct infill *v = &s->infill;
    size_t n = (size_t)take_most(in, in->left / 16), size;
    const char *line;
    int32_t rc = GLM_OK;

    if (n) {
        v->file = mem_array(v->mem, n, sizeof *v->file);
        v->capacity = n;
        if (!v->file)
            return err_nomem(err, "the files of context");
    }
    while (!rc && v->n_file < n) {
        struct infill_file *f = &v->file[v->n_file++];
        f->path = NULL;
        ids_init(&f->ids, v->mem);
        rc = take_file(in, s, f, err);
    }
    v->pending = !rc && take_most(in, 1);
    if (rc || !v->pending)
        return rc;
    rc = take_ids(in, s, &v->prompt, err);
    line = take_text(in, &size);
    if (!rc && (!line || v->prompt.n == 0 || !s->model->tok))
        rc = nonsense(in, "code", err);
    if (!rc)
        buf_put(&v->line, line, size);
    return rc || !v->line.failed ? rc : err_nomem(err, "the code prompt");
}

/* ---- the session ---------------------------------------------------------------------------------------------------- */

void saved_put_session(const glm_session *s, struct buf *out)
{
    put_u64(out, s->overflow);
    put_u64(out, s->next_call);
    put_u64(out, s->first_message);
    put_u64(out, s->state == SESSION_TOOLS);
    put_u64(out, s->turn.active);
    if (s->turn.active)
        put_turn(out, s);
    put_options(out, &s->options);
    put_infill(out, &s->infill);
}

int32_t saved_take_session(struct saved *in, glm_session *s, glm_error *err)
{
    bool tools, active;
    int32_t rc = GLM_OK;

    s->overflow = (uint32_t)take_most(in, GLM_OVERFLOW_DROP_OLDEST);
    s->next_call = take_u64(in);
    s->first_message = (size_t)take_most(in, s->messages.n);
    tools = take_most(in, 1);
    active = take_most(in, 1);
    if (in->bad || s->next_call == 0 || (tools && !active))
        return nonsense(in, "options", err);
    if (tools)
        s->state = SESSION_TOOLS;
    if (active)
        rc = take_turn(in, s, err);
    if (!rc)
        rc = use_options(in, s, err);
    if (!rc)
        rc = take_infill(in, s, err);
    return !rc && (in->bad || in->left) ? nonsense(in, "options", err) : rc;
}

/* ---- messages ---------------------------------------------------------------------------------------------------------- */

static void put_calls(struct buf *b, const struct chat_message *c)
{
    struct buf json;

    buf_init(&json, b->mem);
    put_u64(b, c->n_call);
    for (size_t i = 0; i < c->n_call; i++) {
        buf_clear(&json);
        json_put_value(&json, c->calls[i].arguments);
        put_text(b, c->calls[i].name, c->calls[i].name_size);
        put_text(b, json.data, json.size);
        b->failed |= json.failed;
    }
    buf_free(&json);
}

void saved_put_messages(const struct messages *v, struct buf *out)
{
    put_u64(out, v->n);
    for (size_t i = 0; i < v->n; i++) {
        const struct chat_message *c = &v->item[i].chat;
        put_u64(out, c->role);
        put_u64(out, c->flags);
        put_u64(out, v->item[i].call_id);
        put_text(out, c->text, c->text_size);
        put_text(out, c->reasoning, c->reasoning_size);
        put_calls(out, c);
        put_u64(out, c->list_result);
        put_u64(out, c->n_part);
        for (size_t k = 0; k < c->n_part; k++)
            put_text(out, c->parts[k].text, c->parts[k].size);
        put_ids(out, c->ids, c->ids ? c->n_id : 0);
    }
}

/* Room for n records, each of which takes at least 8 bytes of what is left. */
static void *take_array(struct saved *in, struct arena *a, uint64_t n, size_t size)
{
    if (n > in->left / 8) {
        in->bad = true;
        return NULL;
    }
    return arena_alloc(a, (size_t)n * size, 8);
}

/* The arguments are parsed one by one: they may be nested as deep as any document may. */
static int32_t take_message_calls(struct saved *in, struct message *msg, struct mem *m, glm_error *err)
{
    uint64_t n = take_most(in, msg->chat.role == GLM_ROLE_ASSISTANT ? UINT64_MAX : 0);
    struct chat_call *calls = n ? take_array(in, &msg->text->arena, n, sizeof *calls) : NULL;

    if (n && !in->bad && !calls)
        return err_nomem(err, "a message");
    for (size_t i = 0; !in->bad && i < n; i++) {
        struct json value = { .type = JSON_STRING };
        size_t size, name_size;
        int32_t rc;
        const char *name = take_text(in, &name_size);

        value.text = take_text(in, &size);
        if (in->bad || !name || !value.text || size >= UINT32_MAX)
            return nonsense(in, "messages", err);
        value.size = (uint32_t)size;
        calls[i] = (struct chat_call){ .name = arena_copy(&msg->text->arena, name, name_size), .name_size = name_size };
        if (!calls[i].name)
            return err_nomem(err, "a message");
        rc = chat_arguments(&msg->text->arena, m, &value, in->where, &calls[i].arguments, NULL);
        if (rc)
            return rc == GLM_ENOMEM ? err_nomem(err, "a message") : nonsense(in, "messages", err);
    }
    msg->chat.calls = calls;
    msg->chat.n_call = (size_t)n;
    return GLM_OK;
}

static int32_t take_parts(struct saved *in, struct message *msg, glm_error *err)
{
    uint64_t n;
    struct vocab_text *parts;

    msg->chat.list_result = take_most(in, 1);
    n = take_u64(in);
    parts = n ? take_array(in, &msg->text->arena, n, sizeof *parts) : NULL;
    if (n && !in->bad && !parts)
        return err_nomem(err, "a message");
    for (size_t i = 0; !in->bad && i < n; i++) {
        const char *text = take_text(in, &parts[i].size);
        in->bad |= !text;
        parts[i].text = in->bad ? NULL : arena_copy(&msg->text->arena, text, parts[i].size);
        if (!in->bad && !parts[i].text)
            return err_nomem(err, "a message");
    }
    msg->chat.parts = parts;
    msg->chat.n_part = (size_t)n;
    return GLM_OK;
}

static int32_t take_message_ids(struct saved *in, struct message *msg, const glm_session *s, glm_error *err)
{
    size_t n = take_n_ids(in);
    int32_t *ids = n ? arena_alloc(&msg->text->arena, n * sizeof *ids, _Alignof(int32_t)) : NULL;

    in->bad |= n && msg->chat.role != GLM_ROLE_ASSISTANT;
    if (n && !ids)
        return err_nomem(err, "a message");
    for (size_t i = 0; i < n; i++)
        ids[i] = take_id(in, s);
    msg->chat.ids = ids;
    msg->chat.n_id = n;
    return GLM_OK;
}

static int32_t take_message(struct saved *in, glm_session *s, glm_error *err)
{
    struct messages *v = &s->messages;
    glm_message from = { .struct_size = sizeof from };
    uint64_t call_id;
    struct message *msg;
    int32_t rc;

    from.role = take_u32(in);
    from.flags = (uint32_t)take_most(in, GLM_MESSAGE_SPECIALS);
    call_id = take_u64(in);
    from.text = take_text(in, &from.text_size);
    from.reasoning = take_text(in, &from.reasoning_size);
    if (in->bad || (from.role > GLM_ROLE_TOOL && from.role != CHAT_ROLE_UNKNOWN))
        return nonsense(in, "messages", err);
    rc = messages_add(v, &from, NULL, call_id, err);
    if (rc)
        return rc;
    msg = &v->item[v->n - 1];
    rc = take_message_calls(in, msg, v->mem, err);
    if (!rc)
        rc = take_parts(in, msg, err);
    if (!rc)
        rc = take_message_ids(in, msg, s, err);
    return !rc && in->bad ? nonsense(in, "messages", err) : rc;
}

int32_t saved_take_messages(struct saved *in, glm_session *s, glm_error *err)
{
    uint64_t n = take_u64(in);
    int32_t rc = GLM_OK;

    if (n && !s->model->tok)
        return nonsense(in, "messages", err);
    while (!rc && s->messages.n < n)
        rc = take_message(in, s, err);
    return !rc && (in->bad || in->left) ? nonsense(in, "messages", err) : rc;
}
