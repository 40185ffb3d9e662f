/* chat_json.c: an OpenAI-style array of messages into chat_message records, read as the templates
 * would read it: every field by its type, undefined told apart from null. What the template would
 * stop at (a call without a name, arguments that are no object) is GLM_EINVAL with its JSON
 * pointer. Records live in the caller's arena.
 */
#include "chat_int.h"
#include "place.h"

#include <string.h>

struct reader {
    struct arena *arena;
    struct mem *mem;
    glm_error *err;
    uint32_t flags;
    size_t i_message;
    struct buf text; /* scratch for what has to be put together */
};

/* ---- errors ---------------------------------------------------------------------------------- */

static int32_t refuse(
    const struct reader *r, const struct json *at, const char *field, const char *why)
{
    struct place p = {{0}, 0};
    place_index(&p, r->i_message);
    place_text(&p, field);
    return err_set(r->err, GLM_EINVAL, at != NULL ? at->offset : 0, p.text, "%s", why);
}

static int32_t refuse_call(const struct reader *r, const struct json *at, size_t i_call,
    const char *field, const char *why)
{
    struct place p = {{0}, 0};
    place_text(&p, "/tool_calls");
    place_index(&p, i_call);
    place_text(&p, field);
    return refuse(r, at, p.text, why);
}

/* ---- text ------------------------------------------------------------------------------------ */

static int32_t keep(struct reader *r, struct chat_view *out)
{
    out->size = r->text.size;
    out->text = r->text.failed
                    ? NULL
                    : arena_copy(r->arena, r->text.data != NULL ? r->text.data : "", r->text.size);
    return out->text != NULL ? 0 : err_nomem(r->err, "messages");
}

static void put_part(struct reader *r, const struct json *part)
{
    if (part->type == JSON_STRING) {
        buf_put(&r->text, part->text, part->size);
    } else if (json_is_text(json_get(part, "type"), "text")) {
        const struct json *text = json_get(part, "text");
        if (text != NULL && !(text->type == JSON_NULL && (r->flags & CHAT_OPENAI)))
            chat_put_str(&r->text, text);
    }
}

/* The templates' macro visible_text. */
static int32_t visible_text(struct reader *r, const struct json *content, struct chat_view *out)
{
    *out = (struct chat_view){"", 0};
    if (content == NULL || (content->type == JSON_NULL && (r->flags & CHAT_OPENAI)))
        return 0;
    if (content->type == JSON_STRING) {
        *out = (struct chat_view){content->text, content->size};
        return 0;
    }
    buf_clear(&r->text);
    if (content->type == JSON_ARRAY) {
        for (const struct json *part = json_first(content); part; part = json_next(content, part))
            put_part(r, part);
    } else {
        chat_put_str(&r->text, content);
    }
    return keep(r, out);
}

/* ---- tool results ---------------------------------------------------------------------------- */

static bool is_text_parts(const struct json *list)
{
    for (const struct json *part = json_first(list); part; part = json_next(list, part)) {
        const struct json *text = json_get(part, "text");
        if (!json_is_text(json_get(part, "type"), "text") || text == NULL ||
            text->type != JSON_STRING || json_get(part, "output") != NULL)
            return false;
    }
    return list->count > 0;
}

/* A list prints one response an element, its member "output" if it has one; of an object Jinja
 * walks the keys. */
static int32_t result_parts(struct reader *r, const struct json *list, struct chat_message *out)
{
    out->list_result = true;
    if (list == NULL || list->count == 0)
        return 0;
    size_t bytes;
    if (!ck_size((uint64_t)list->count * sizeof(struct vocab_text), &bytes))
        return err_nomem(r->err, "messages");
    struct vocab_text *parts = arena_alloc(r->arena, bytes, _Alignof(struct vocab_text));
    if (parts == NULL)
        return err_nomem(r->err, "messages");
    size_t n = 0;
    for (const struct json *item = json_first(list); item; item = json_next(list, item)) {
        const struct json *output = list->type == JSON_ARRAY ? json_get(item, "output") : NULL;
        const struct json *print = output != NULL ? output : item;
        struct chat_view text = {print->text, print->size};
        if (print->type != JSON_STRING) {
            buf_clear(&r->text);
            chat_put_str(&r->text, print);
            int32_t rc = keep(r, &text);
            if (rc)
                return rc;
        }
        parts[n++] = (struct vocab_text){text.text, text.size};
    }
    out->parts = parts;
    out->n_part = n;
    return 0;
}

static int32_t tool_result(struct reader *r, const struct json *content, struct chat_message *out)
{
    bool openai = (r->flags & CHAT_OPENAI) != 0;
    struct chat_view text = {"", 0};
    if (content != NULL &&
        (content->type == JSON_STRING || (content->type == JSON_NULL && openai) ||
            (content->type == JSON_ARRAY && openai && is_text_parts(content)))) {
        int32_t rc = visible_text(r, content, &text);
        out->text = text.text;
        out->text_size = text.size;
        return rc;
    }
    if (content != NULL && content->type != JSON_ARRAY && content->type != JSON_OBJECT)
        return refuse(r, content, "/content", "a tool result must be a string or a list");
    return result_parts(r, content, out);
}

/* ---- calls ----------------------------------------------------------------------------------- */

/* A parsed document's values are one flat array: copied as it is, then the texts. */
static const struct json *copy_values(struct arena *arena, const struct json *root, size_t n)
{
    struct json *copy = arena_alloc(arena, n * sizeof *copy, _Alignof(struct json));
    if (copy == NULL)
        return NULL;
    memcpy(copy, root, n * sizeof *copy);
    for (size_t i = 0; i < n; i++) {
        if (copy[i].type != JSON_STRING && copy[i].type != JSON_NUMBER)
            continue;
        copy[i].text = arena_copy(arena, root[i].text, root[i].size);
        if (copy[i].text == NULL)
            return NULL;
    }
    return copy;
}

static bool is_blank(const struct json *string)
{
    return chat_strip((struct chat_view){string->text, string->size}).size == 0;
}

int32_t chat_arguments(struct arena *arena, struct mem *m, const struct json *value,
    const char *where, const struct json **object, glm_error *err)
{
    static const struct json no_arguments = {.type = JSON_OBJECT, .span = 1};
    if (value != NULL && value->type == JSON_OBJECT) {
        *object = value;
        return 0;
    }
    if (value == NULL || value->type != JSON_STRING)
        return err_set(err, GLM_EINVAL, value != NULL ? value->offset : 0, where,
            "a call's arguments must be an object, or a string that holds one");
    if (is_blank(value)) {
        *object = &no_arguments;
        return 0;
    }
    struct json_doc doc = {0};
    int32_t rc = json_parse(m, value->text, value->size, 0, where, &doc, err);
    if (rc == GLM_ENOMEM)
        return rc;
    if (rc || doc.root->type != JSON_OBJECT) {
        rc = err_set(
            err, GLM_EINVAL, value->offset, where, "a call's arguments must be a JSON object");
    } else {
        const struct json *copy = copy_values(arena, doc.root, doc.n_value);
        if (copy != NULL)
            *object = copy;
        else
            rc = err_nomem(err, "messages");
    }
    json_free(&doc);
    return rc;
}

static int32_t read_call(
    struct reader *r, const struct json *item, size_t i_call, struct chat_call *out)
{
    const struct json *function = json_get(item, "function");
    if (chat_truth(function))
        item = function;
    const struct json *name = json_get(item, "name");
    if (name == NULL || name->type != JSON_STRING)
        return refuse_call(
            r, name != NULL ? name : item, i_call, "/name", "a call needs a name, a string");
    out->name = name->text;
    out->name_size = name->size;
    struct place p = {{0}, 0};
    place_index(&p, r->i_message);
    place_text(&p, "/tool_calls");
    place_index(&p, i_call);
    place_text(&p, "/arguments");
    return chat_arguments(
        r->arena, r->mem, json_get(item, "arguments"), p.text, &out->arguments, r->err);
}

static int32_t read_calls(struct reader *r, const struct json *list, struct chat_message *out)
{
    if (!chat_truth(list))
        return 0;
    if (list->type != JSON_ARRAY)
        return refuse(r, list, "/tool_calls", "tool_calls must be a list");
    size_t bytes;
    struct chat_call *calls = NULL;
    if (ck_size((uint64_t)list->count * sizeof *calls, &bytes))
        calls = arena_alloc(r->arena, bytes, _Alignof(struct chat_call));
    if (calls == NULL)
        return err_nomem(r->err, "messages");
    size_t n = 0;
    for (const struct json *item = json_first(list); item; item = json_next(list, item), n++) {
        int32_t rc = read_call(r, item, n, &calls[n]);
        if (rc)
            return rc;
    }
    out->calls = calls;
    out->n_call = n;
    return 0;
}

/* ---- messages -------------------------------------------------------------------------------- */

static uint32_t role_of(const struct json *role)
{
    static const char *const names[] = {
        [GLM_ROLE_SYSTEM] = "system",
        [GLM_ROLE_USER] = "user",
        [GLM_ROLE_ASSISTANT] = "assistant",
        [GLM_ROLE_TOOL] = "tool",
    };
    for (uint32_t i = 0; i < ARRAY_LEN(names); i++)
        if (role != NULL && json_is_text(role, names[i]))
            return i;
    return CHAT_ROLE_UNKNOWN;
}

static int32_t read_message(struct reader *r, const struct json *v, struct chat_message *out)
{
    *out = (struct chat_message){.role = CHAT_ROLE_UNKNOWN};
    if (v->type != JSON_OBJECT)
        return refuse(r, v, "", "a message must be an object");
    out->role = role_of(json_get(v, "role"));
    const struct json *content = json_get(v, "content");
    if (out->role == CHAT_ROLE_UNKNOWN)
        return 0;
    if (out->role == GLM_ROLE_TOOL)
        return tool_result(r, content, out);

    struct chat_view text;
    int32_t rc = visible_text(r, content, &text);
    if (rc)
        return rc;
    out->text = text.text;
    out->text_size = text.size;
    if (out->role != GLM_ROLE_ASSISTANT)
        return 0;
    const struct json *reasoning = json_get(v, "reasoning_content");
    if (reasoning != NULL && reasoning->type == JSON_STRING) {
        out->reasoning = reasoning->text;
        out->reasoning_size = reasoning->size;
    }
    return read_calls(r, json_get(v, "tool_calls"), out);
}

int32_t chat_from_json(struct arena *arena, struct mem *m, const struct json *messages,
    uint32_t flags, const struct chat_message **out, size_t *n, glm_error *err)
{
    if (messages == NULL || messages->type != JSON_ARRAY)
        return err_set(err, GLM_EINVAL, messages != NULL ? messages->offset : 0, NULL,
            "messages must be a JSON array");
    struct reader r = {.arena = arena, .mem = m, .err = err, .flags = flags};
    buf_init(&r.text, m);
    struct chat_message *list = NULL;
    size_t bytes;
    if (ck_size(((uint64_t)messages->count + 1) * sizeof *list, &bytes))
        list = arena_alloc(arena, bytes, _Alignof(struct chat_message));
    int32_t rc = list != NULL ? 0 : err_nomem(err, "messages");
    for (const struct json *v = json_first(messages); v && !rc; v = json_next(messages, v))
        rc = read_message(&r, v, &list[r.i_message]), r.i_message++;
    if (!rc) {
        *out = list;
        *n = r.i_message;
    }
    buf_free(&r.text);
    return rc;
}
