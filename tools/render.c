/* render.c: `glm45 render`: conversations to prompts, as text and as token ids, a line each. */
#include "args.h"
#include "lines.h"
#include "report.h"
#include "text_model.h"
#include "tools.h"

#include <stdio.h>
#include <string.h>

static const char help[] =
    "usage: glm45 render MODEL [--template 4.5|4.7]\n"
    "\n"
    "Reads lines {\"messages\": [...], \"tools\": [...] or null, \"kwargs\": {...}} and writes {\"text\": \"...\", \"ids\": [...]}\n"
    "for each, at once. MODEL is a checkpoint, a tokenizer.json or a folder with one.\n"
    "\n"
    "text is what the chat template prints. ids are what a model is given: the template's own special tokens by id, text of\n"
    "messages and tools as text, also where it spells out a special token.\n"
    "\n"
    "  messages   as chat APIs have them: role, content, reasoning_content, tool_calls\n"
    "  tools      as chat APIs have them; may be left out\n"
    "  kwargs     the template's arguments: add_generation_prompt, enable_thinking, clear_thinking; may be left out\n"
    "\n"
    "  --template 4.5|4.7   which template [the checkpoint's, else 4.5]\n"
    "\n"
    "The first bad line ends the command with status 1 and an error that names the line and the place in it.\n";

struct request {
    const struct chat_message *messages;
    size_t n_message;
    const struct json *tools;
    struct chat_options how;
};

static int32_t read_request(const struct lines *l, const struct text_model *t, struct arena *arena, struct request *r,
    glm_error *err)
{
    const struct json *messages = lines_member(l, "messages", JSON_ARRAY, true, err), *kwargs;
    int32_t rc;

    *r = (struct request){ .how = { .family = t->family } };
    if (!messages)
        return err->code;
    r->tools = lines_member(l, "tools", JSON_ARRAY, false, err);
    kwargs = err->code ? NULL : lines_member(l, "kwargs", JSON_OBJECT, false, err);
    rc = err->code ? err->code : chat_options_from_kwargs(kwargs, &r->how, err);
    if (rc)
        return rc;
    rc = chat_from_json(arena, t->mem, messages, 0, &r->messages, &r->n_message, err);
    if (rc) { /* its pointer starts at the array */
        char inner[sizeof err->where];
        memcpy(inner, err->where, sizeof inner);
        snprintf(err->where, sizeof err->where, "/messages%.100s", inner);
    }
    return rc;
}

static int32_t render(struct lines *l, const struct text_model *t, struct ids *ids, struct buf *text, glm_error *err)
{
    struct request r;
    struct arena arena;
    int32_t rc;

    arena_init(&arena, t->mem);
    rc = read_request(l, t, &arena, &r, err);
    if (!rc)
        rc = chat_render_text(t->mem, r.messages, r.n_message, r.tools, &r.how, text, err);
    if (!rc)
        rc = chat_render_ids(t->tok, t->mem, r.messages, r.n_message, r.tools, &r.how, ids, NULL, err);
    arena_free(&arena);
    return rc;
}

static int answer(struct lines *l, const struct text_model *t, struct ids *ids, struct buf *text)
{
    glm_error err = GLM_ERROR_INIT;

    ids->n = 0;
    buf_clear(text);
    if (render(l, t, ids, text, &err))
        return lines_bad(l, &err);
    buf_str(&l->out, "{\"text\": ");
    json_put_string(&l->out, text->data ? text->data : "", text->size);
    buf_str(&l->out, ", \"ids\": [");
    for (size_t i = 0; i < ids->n; i++) {
        if (i)
            buf_str(&l->out, ", ");
        buf_i64(&l->out, ids->id[i]);
    }
    buf_str(&l->out, "]}");
    return lines_answer(l);
}

static int answer_all(const struct text_model *t)
{
    struct lines l;
    struct ids ids;
    struct buf text;
    int status;

    lines_open(&l, t->mem, "render");
    ids_init(&ids, t->mem);
    buf_init(&text, t->mem);
    while ((status = lines_next(&l)) == LINES_GO_ON && (status = answer(&l, t, &ids, &text)) == LINES_GO_ON) {}
    buf_free(&text);
    ids_free(&ids);
    lines_close(&l);
    return status;
}

int render_main(int argc, char **argv)
{
    const char *model = NULL, *family = NULL;
    const struct arg args[] = { { .name = "--template", .kind = ARG_TEXT, .to = &family } };
    const struct arg_table table = { "render", help, args, ARRAY_LEN(args), &model };
    struct text_model t;
    struct mem m;
    int status = args_read(&table, argc, argv);

    if (status != ARGS_GO_ON)
        return status;
    mem_init(&m, NULL);
    status = text_model_open(&t, &m, model, family, true, "render");
    if (status != EXIT_FINE)
        return status;
    status = answer_all(&t);
    text_model_close(&t);
    return status;
}
