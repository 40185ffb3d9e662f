/* chat_render.c: the two chat templates of the family as code: system, user, assistant and tool
 * turns, declared tools, the thinking switch. The .jinja files are the truth; where this file looks
 * odd, so do they. Output goes to a sink piece by piece; scratch lives for one render.
 */
#include "chat_int.h"

#include <string.h>

struct render {
    const struct chat_options *how;
    const struct chat_sink *sink;
    struct buf json;         /* one JSON value's text */
    enum chat_piece content; /* kind of the current message's content */
    int32_t status;          /* sticks at the first failure */
    bool thinking_off, is_47;
};

static void put(
    struct render *r, enum chat_piece kind, enum tok_special special, const char *text, size_t size)
{
    if (r->status == 0 && size > 0)
        r->status = r->sink->put(r->sink->user, kind, special, text, size);
}

static void special(struct render *r, enum tok_special which)
{
    const char *text = chat_spelling(which);
    put(r, CHAT_SPECIAL, which, text, strlen(text));
}

static void content(struct render *r, const char *text, size_t size)
{
    put(r, r->content, TOK_SPECIAL_COUNT, text, size);
}

/* Text of the template itself, in which tags are tags. */
static void scaffold(struct render *r, const char *text)
{
    const char *start = text;
    for (size_t n = strlen(text); n > 0;) {
        size_t size;
        enum tok_special which = chat_spelled(text, n, &size);
        if (which == TOK_SPECIAL_COUNT) {
            text++;
            n--;
            continue;
        }
        put(r, CHAT_SCAFFOLD, TOK_SPECIAL_COUNT, start, (size_t)(text - start));
        put(r, CHAT_SPECIAL, which, text, size);
        start = text += size;
        n -= size;
    }
    put(r, CHAT_SCAFFOLD, TOK_SPECIAL_COUNT, start, (size_t)(text - start));
}

/* 4.5 sets its parts on lines of their own, 4.7 does not. */
static void newline_45(struct render *r)
{
    if (!r->is_47)
        scaffold(r, "\n");
}

static void json(struct render *r, const struct json *v)
{
    buf_clear(&r->json);
    json_put_value(&r->json, v);
    if (r->json.failed)
        r->status = r->status ? r->status : GLM_ENOMEM;
    else
        content(r, r->json.data, r->json.size);
}

/* ---- turns ----------------------------------------------------------------------------------- */

static void tools_block(struct render *r, const struct json *tools)
{
    r->content = CHAT_CONTENT;
    scaffold(r,
        "<|system|>\n# Tools\n\nYou may call one or more functions to assist with the user "
        "query.\n\n"
        "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n");
    for (const struct json *tool = json_first(tools); tool && !r->status;
         tool = json_next(tools, tool)) {
        json(r, tool);
        scaffold(r, "\n");
    }
    scaffold(r, "</tools>\n\nFor each function call, output the function name and arguments within "
                "the following XML "
                "format:\n");
    scaffold(
        r, r->is_47
               ? "<tool_call>{function-name}<arg_key>{arg-key-1}</"
                 "arg_key><arg_value>{arg-value-1}</arg_value>"
                 "<arg_key>{arg-key-2}</arg_key><arg_value>{arg-value-2}</arg_value>...</tool_call>"
               : "<tool_call>{function-name}\n<arg_key>{arg-key-1}</"
                 "arg_key>\n<arg_value>{arg-value-1}</arg_value>\n"
                 "<arg_key>{arg-key-2}</arg_key>\n<arg_value>{arg-value-2}</arg_value>\n...\n</"
                 "tool_call>");
}

static void user_turn(struct render *r, const struct chat_message *m)
{
    struct chat_view text = {m->text, m->text_size};
    special(r, TOK_USER);
    newline_45(r);
    if (r->is_47 || !r->thinking_off) {
        content(r, text.text, text.size);
        return;
    }
    /* One switch at the very end: the user's own, or one more. */
    if (chat_ends_with(text, chat_spelling(TOK_NOTHINK)))
        text.size -= strlen(chat_spelling(TOK_NOTHINK));
    content(r, text.text, text.size);
    special(r, TOK_NOTHINK);
}

/* A thought inside the content, as raw model output has it. */
static void split_thought(struct chat_view *text, struct chat_view *thought)
{
    struct chat_view before, after;
    if (!chat_find(*text, "</think>", &before, &after))
        return;
    *thought = chat_strip_newlines(before, false, true);
    chat_find_last(*thought, "<think>", thought);
    *thought = chat_strip_newlines(*thought, true, false);
    chat_find_last(*text, "</think>", text);
    *text = chat_strip_newlines(*text, true, false);
}

static void call(struct render *r, const struct chat_call *c)
{
    newline_45(r);
    special(r, TOK_TOOL_CALL);
    content(r, c->name, c->name_size);
    newline_45(r);
    for (const struct json *key = json_first(c->arguments); key && !r->status;
         key = json_next(c->arguments, key)) {
        const struct json *value = key + 1;
        special(r, TOK_ARG_KEY);
        content(r, key->text, key->size);
        special(r, TOK_ARG_KEY_END);
        newline_45(r);
        special(r, TOK_ARG_VALUE);
        if (value->type == JSON_STRING)
            content(r, value->text, value->size);
        else
            json(r, value);
        special(r, TOK_ARG_VALUE_END);
        newline_45(r);
    }
    special(r, TOK_TOOL_CALL_END);
}

static void assistant_turn(struct render *r, const struct chat_message *m, bool keep_thought)
{
    struct chat_view text = {m->text, m->text_size}, thought = {m->reasoning, m->reasoning_size};
    if (m->reasoning == NULL)
        split_thought(&text, &thought);
    special(r, TOK_ASSISTANT);
    bool show = keep_thought && thought.size > 0;
    if (m->ids != NULL && r->sink->put_ids != NULL && (show || thought.size == 0)) {
        if (r->status == 0)
            r->status = r->sink->put_ids(r->sink->user, m->ids, m->n_id);
        return;
    }
    newline_45(r);
    if (show || !r->is_47)
        special(r, TOK_THINK);
    if (show) {
        thought = chat_strip(thought);
        content(r, thought.text, thought.size);
    }
    special(r, TOK_THINK_END);
    text = chat_strip(text);
    if (text.size > 0) {
        newline_45(r);
        content(r, text.text, text.size);
    }
    for (size_t i = 0; i < m->n_call; i++)
        call(r, &m->calls[i]);
}

static void response(struct render *r, const char *text, size_t size)
{
    newline_45(r);
    special(r, TOK_TOOL_RESPONSE);
    newline_45(r);
    content(r, text, size);
    newline_45(r);
    special(r, TOK_TOOL_RESPONSE_END);
}

static void tool_turn(struct render *r, const struct chat_message *m, bool after_tool)
{
    if (!after_tool || m->list_result)
        special(r, TOK_OBSERVATION);
    if (!m->list_result)
        response(r, m->text, m->text_size);
    for (size_t i = 0; m->list_result && i < m->n_part; i++)
        response(r, m->parts[i].text, m->parts[i].size);
}

static void system_turn(struct render *r, const struct chat_message *m)
{
    special(r, TOK_SYSTEM);
    newline_45(r);
    content(r, m->text, m->text_size);
}

/* ---- the whole ------------------------------------------------------------------------------- */

static void conversation(struct render *r, const struct chat_message *messages, size_t n)
{
    size_t after_user =
        0; /* one more than the last user message's index: its answer may still show its thoughts */
    for (size_t i = 0; i < n; i++)
        if (messages[i].role == GLM_ROLE_USER)
            after_user = i + 1;
    bool keep_all = r->is_47 && r->how->clear_thinking == CHAT_FALSE;
    for (size_t i = 0; i < n && !r->status; i++) {
        const struct chat_message *m = &messages[i];
        r->content = m->flags & GLM_MESSAGE_SPECIALS ? CHAT_CONTENT_SPECIALS : CHAT_CONTENT;
        switch (m->role) {
        case GLM_ROLE_USER: user_turn(r, m); break;
        case GLM_ROLE_ASSISTANT: assistant_turn(r, m, keep_all || i >= after_user); break;
        case GLM_ROLE_TOOL: tool_turn(r, m, i > 0 && messages[i - 1].role == GLM_ROLE_TOOL); break;
        case GLM_ROLE_SYSTEM: system_turn(r, m); break;
        default: break;
        }
        if (!r->status && r->sink->message_end != NULL)
            r->status = r->sink->message_end(r->sink->user, i);
    }
}

static void generation_prompt(struct render *r)
{
    special(r, TOK_ASSISTANT);
    if (r->is_47)
        special(r, r->thinking_off ? TOK_THINK_END : TOK_THINK);
    else if (r->thinking_off)
        scaffold(r, "\n<think></think>");
}

int32_t chat_render(struct mem *m, const struct chat_message *messages, size_t n_message,
    const struct json *tools, const struct chat_options *how, const struct chat_sink *sink,
    glm_error *err)
{
    if (chat_truth(tools) && tools->type != JSON_ARRAY)
        return err_set(err, GLM_EINVAL, tools->offset, NULL, "tools must be a JSON array");
    struct render r = {.how = how,
        .sink = sink,
        .thinking_off = how->enable_thinking == CHAT_FALSE,
        .is_47 = how->family == CHAT_47};
    buf_init(&r.json, m);
    scaffold(&r, "[gMASK]<sop>");
    if (chat_truth(tools))
        tools_block(&r, tools);
    conversation(&r, messages, n_message);
    if (how->add_generation_prompt)
        generation_prompt(&r);
    if (r.json.failed)
        r.status = err_nomem(err, "the rendered conversation");
    buf_free(&r.json);
    return r.status;
}
