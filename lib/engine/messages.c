/* messages.c: the conversation as a list of messages. Each owns copies of its text in an arena of its own;
 * the tool calls' arguments are kept parsed. */
#include "engine_int.h"

#include <string.h>

void messages_init(struct messages *v, struct mem *m) { *v = (struct messages){ .mem = m }; }

static void message_free(struct message *msg)
{
    arena_free(&msg->arena);
    json_free(&msg->doc);
}

void messages_cut(struct messages *v, size_t n)
{
    while (v->n > n)
        message_free(&v->item[--v->n]);
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
    int32_t rc = json_parse(m, text, size, 0, "calls_json", &msg->doc, err);

    if (rc)
        return rc;
    if (msg->doc.root->type != JSON_ARRAY)
        return err_set(err, GLM_EINVAL, 0, "calls_json", "the calls are not a JSON array");
    calls = arena_alloc(&msg->arena, (msg->doc.root->count + 1) * sizeof *calls, _Alignof(struct chat_call));
    if (!calls)
        return err_nomem(err, "a message");
    for (const struct json *v = json_first(msg->doc.root); v && !rc; v = json_next(msg->doc.root, v), i++)
        rc = fill_call(v, i, &calls[i], err);
    msg->chat.calls = msg->calls = calls;
    msg->chat.n_call = msg->doc.root->count;
    return rc;
}

static int32_t fill(struct message *msg, struct mem *m, const glm_message *from, glm_error *err)
{
    struct chat_message *c = &msg->chat;
    bool failed = false;

    c->role = from->role;
    c->flags = from->flags;
    c->text = copy_text(&msg->arena, from->text, from->text_size, &failed);
    c->text_size = from->text_size;
    c->reasoning = copy_text(&msg->arena, from->reasoning, from->reasoning_size, &failed);
    c->reasoning_size = from->reasoning_size;
    if (failed)
        return err_nomem(err, "a message");
    return from->calls_json ? fill_calls(msg, m, from->calls_json, from->calls_size, err) : GLM_OK;
}

int32_t messages_add(struct messages *v, const glm_message *from, uint64_t call_id, glm_error *err)
{
    struct message *msg;
    int32_t rc;

    if (!reserve(v, v->n + 1))
        return err_nomem(err, "a message");
    msg = &v->item[v->n];
    memset(msg, 0, sizeof *msg);
    arena_init(&msg->arena, v->mem);
    msg->call_id = call_id;
    rc = fill(msg, v->mem, from, err);
    if (rc)
        message_free(msg);
    else
        v->n++;
    return rc;
}

/* The first message owns the document and the arena of all: they come and go together, or from the end. */
int32_t messages_from_json(struct messages *v, struct json_doc *doc, glm_error *err)
{
    const struct chat_message *chat = NULL;
    struct arena arena;
    size_t n = 0;
    int32_t rc;

    arena_init(&arena, v->mem);
    rc = chat_from_json(&arena, v->mem, doc->root, CHAT_OPENAI, &chat, &n, err);
    if (!rc && !reserve(v, n ? n : 1))
        rc = err_nomem(err, "the messages");
    if (rc || n == 0) {
        arena_free(&arena);
        return rc;
    }
    for (size_t i = 0; i < n; i++) {
        struct message *msg = &v->item[i];
        memset(msg, 0, sizeof *msg);
        arena_init(&msg->arena, v->mem);
        msg->chat = chat[i];
    }
    v->item[0].arena = arena;
    v->item[0].doc = *doc;
    *doc = (struct json_doc){ 0 };
    v->n = n;
    return GLM_OK;
}

struct chat_message *messages_chat(const struct messages *v, struct arena *arena)
{
    struct chat_message *chat = arena_alloc(arena, (v->n + 1) * sizeof *chat, _Alignof(struct chat_message));
    for (size_t i = 0; chat && i < v->n; i++)
        chat[i] = v->item[i].chat;
    return chat;
}
