/* messages.c: the conversation as a list of messages. Their text lives in shared, immutable blocks, so that a fork costs a
 * pointer a message; the tool calls' arguments are kept parsed. An assistant's message that the model wrote keeps the ids
 * it was sampled as: rendering it again then gives the very tokens that the KV cache holds. */
#include "engine_int.h"

#include <string.h>

void messages_init(struct messages *v, struct mem *m) { *v = (struct messages){ .mem = m }; }

/* ---- shared text --------------------------------------------------------------------------------------- */

static struct message_text *text_new(struct mem *m)
{
    struct message_text *t = mem_zalloc(m, sizeof *t);
    if (!t)
        return NULL;
    t->mem = m;
    atomic_init(&t->owners, 1);
    arena_init(&t->arena, m);
    return t;
}

static void text_share(struct message_text *t) { atomic_fetch_add_explicit(&t->owners, 1, memory_order_relaxed); }

static void text_drop(struct message_text *t)
{
    if (!t || atomic_fetch_sub_explicit(&t->owners, 1, memory_order_acq_rel) != 1)
        return;
    arena_free(&t->arena);
    json_free(&t->doc);
    mem_free(t->mem, t);
}

/* ---- the list --------------------------------------------------------------------------------------------- */

static void message_free(struct mem *m, struct message *msg)
{
    mem_free(m, msg->kept);
    text_drop(msg->text);
}

void messages_cut(struct messages *v, size_t n)
{
    while (v->n > n)
        message_free(v->mem, &v->item[--v->n]);
}

void messages_free(struct messages *v)
{
    messages_cut(v, 0);
    mem_free(v->mem, v->item);
    *v = (struct messages){ .mem = v->mem };
}

static bool reserve(struct messages *v, size_t n)
{
    size_t capacity = v->capacity ? v->capacity : 8;
    struct message *item;

    if (n <= v->capacity)
        return true;
    while (capacity < n)
        capacity *= 2;
    item = mem_resize(v->mem, v->item, capacity * sizeof *item);
    if (!item)
        return false;
    v->item = item;
    v->capacity = capacity;
    return true;
}

/* ---- from the public form ----------------------------------------------------------------------------------- */

static const char *copy_text(struct arena *a, const char *text, size_t size, bool *failed)
{
    const char *copy = text ? arena_copy(a, text, size) : NULL;
    *failed |= text && !copy;
    return copy;
}

/* Calls: [{"name", "arguments", ...}]. */
static int32_t fill_call(const struct json *v, size_t i, struct chat_call *out, glm_error *err)
{
    const struct json *name = json_get(v, "name"), *args = json_get(v, "arguments");
    if (!name || name->type != JSON_STRING)
        return err_set(err, GLM_EINVAL, v->offset, "calls_json", "call %zu has no \"name\" string", i);
    if (!args || args->type != JSON_OBJECT)
        return err_set(err, GLM_EINVAL, v->offset, "calls_json", "the \"arguments\" of call %zu are not an object", i);
    out->name = name->text;
    out->name_size = name->size;
    out->arguments = args;
    return GLM_OK;
}

static int32_t fill_calls(struct message *msg, struct mem *m, const char *text, size_t size, glm_error *err)
{
    struct chat_call *calls;
    size_t i = 0;
    struct json_doc *doc = &msg->text->doc;
    int32_t rc = json_parse(m, text, size, 0, "calls_json", doc, err);

    if (rc)
        return rc;
    if (doc->root->type != JSON_ARRAY)
        return err_set(err, GLM_EINVAL, 0, "calls_json", "the calls are not a JSON array");
    calls = arena_alloc(&msg->text->arena, (doc->root->count + 1) * sizeof *calls, _Alignof(struct chat_call));
    if (!calls)
        return err_nomem(err, "a message");
    for (const struct json *v = json_first(doc->root); v && !rc; v = json_next(doc->root, v), i++)
        rc = fill_call(v, i, &calls[i], err);
    msg->chat.calls = calls;
    msg->chat.n_call = doc->root->count;
    return rc;
}

static int32_t fill(struct message *msg, struct mem *m, const glm_message *from, const struct ids *ids, glm_error *err)
{
    struct chat_message *c = &msg->chat;
    struct arena *a = &msg->text->arena;
    bool failed = false;

    c->role = from->role;
    c->flags = from->flags;
    c->text = copy_text(a, from->text, from->text_size, &failed);
    c->text_size = from->text_size;
    c->reasoning = copy_text(a, from->reasoning, from->reasoning_size, &failed);
    c->reasoning_size = from->reasoning_size;
    if (ids && ids->n) {
        int32_t *copy = arena_alloc(a, ids->n * sizeof *copy, _Alignof(int32_t));
        failed |= !copy;
        if (copy)
            memcpy(copy, ids->id, ids->n * sizeof *copy);
        c->ids = copy;
        c->n_id = ids->n;
    }
    if (failed)
        return err_nomem(err, "a message");
    return from->calls_json ? fill_calls(msg, m, from->calls_json, from->calls_size, err) : GLM_OK;
}

int32_t messages_add(struct messages *v, const glm_message *from, const struct ids *ids, uint64_t call_id, glm_error *err)
{
    struct message *msg;
    int32_t rc;

    if (!reserve(v, v->n + 1))
        return err_nomem(err, "a message");
    msg = &v->item[v->n];
    *msg = (struct message){ .text = text_new(v->mem), .call_id = call_id };
    rc = msg->text ? fill(msg, v->mem, from, ids, err) : err_nomem(err, "a message");
    if (rc)
        message_free(v->mem, msg);
    else
        v->n++;
    return rc;
}

/* ---- from JSON ------------------------------------------------------------------------------------------------ */

int32_t messages_from_json(struct messages *v, struct json_doc *doc, glm_error *err)
{
    const struct chat_message *chat = NULL;
    struct message_text *text = text_new(v->mem);
    size_t n = 0;
    int32_t rc;

    if (!text)
        return err_nomem(err, "the messages");
    rc = chat_from_json(&text->arena, v->mem, doc->root, CHAT_OPENAI, &chat, &n, err);
    if (!rc && !reserve(v, n ? n : 1))
        rc = err_nomem(err, "the messages");
    for (size_t i = 0; !rc && i < n; i++, v->n++) {
        text_share(text);
        v->item[i] = (struct message){ .text = text, .chat = chat[i] };
    }
    if (!rc && n) {
        text->doc = *doc;
        *doc = (struct json_doc){ 0 };
    }
    text_drop(text);
    return rc;
}

static bool same_text(const char *a, size_t a_size, const char *b, size_t b_size)
{
    return a_size == b_size && (a_size == 0 || memcmp(a, b, a_size) == 0);
}

static bool same_calls(const struct chat_message *a, const struct chat_message *b)
{
    if (a->n_call != b->n_call)
        return false;
    for (size_t i = 0; i < a->n_call; i++)
        if (!same_text(a->calls[i].name, a->calls[i].name_size, b->calls[i].name, b->calls[i].name_size) ||
            !json_equal(a->calls[i].arguments, b->calls[i].arguments))
            return false;
    return true;
}

void messages_adopt(struct messages *v, const struct messages *old)
{
    size_t n = v->n < old->n ? v->n : old->n;
    for (size_t i = 0; i < n; i++) {
        const struct chat_message *a = &v->item[i].chat, *b = &old->item[i].chat;
        if (a->role != GLM_ROLE_ASSISTANT || b->role != GLM_ROLE_ASSISTANT || !b->ids || a->flags != b->flags ||
            old->item[i].kept || !same_text(a->text, a->text_size, b->text, b->text_size) || !same_calls(a, b) ||
            (a->reasoning && !same_text(a->reasoning, a->reasoning_size, b->reasoning, b->reasoning_size)))
            continue;
        text_share(old->item[i].text);
        text_drop(v->item[i].text);
        v->item[i] = old->item[i];
    }
}

/* ---- forks ------------------------------------------------------------------------------------------------------ */

static bool copy_kept(struct mem *m, struct message *msg)
{
    struct chat_call *kept;
    if (!msg->kept)
        return true;
    kept = mem_array(m, msg->chat.n_call + 1, sizeof *kept);
    if (kept)
        memcpy(kept, msg->kept, msg->chat.n_call * sizeof *kept);
    msg->chat.calls = msg->kept = kept;
    return kept != NULL;
}

int32_t messages_fork(struct messages *to, const struct messages *from, glm_error *err)
{
    if (!reserve(to, from->n ? from->n : 1))
        return err_nomem(err, "the messages");
    for (; to->n < from->n; to->n++) {
        struct message *msg = &to->item[to->n];
        *msg = from->item[to->n];
        if (!copy_kept(to->mem, msg)) {
            messages_cut(to, 0);
            return err_nomem(err, "the messages");
        }
        text_share(msg->text);
    }
    return GLM_OK;
}

/* ---- the rest ------------------------------------------------------------------------------------------------------ */

int32_t messages_keep_calls(struct messages *v, const bool *keep, glm_error *err)
{
    struct message *msg = &v->item[v->n - 1];
    struct chat_call *kept = mem_array(v->mem, msg->chat.n_call + 1, sizeof *kept);
    size_t n = 0;

    if (!kept)
        return err_nomem(err, "a message");
    for (size_t i = 0; i < msg->chat.n_call; i++)
        if (keep[i])
            kept[n++] = msg->chat.calls[i];
    mem_free(v->mem, msg->kept);
    msg->chat.calls = msg->kept = kept;
    msg->chat.n_call = n;
    msg->chat.ids = NULL; /* they hold the other calls, too */
    msg->chat.n_id = 0;
    return GLM_OK;
}

struct chat_message *messages_chat(const struct messages *v, size_t n_lead, size_t first, struct arena *arena, size_t *n)
{
    struct chat_message *chat = arena_alloc(arena, (v->n + 1) * sizeof *chat, _Alignof(struct chat_message));
    *n = 0;
    for (size_t i = 0; chat && i < v->n; i++)
        if (i < n_lead || i >= first)
            chat[(*n)++] = v->item[i].chat;
    return chat;
}
