/* parse.c: `glm45 parse`: a model's output, markup and all, to reasoning, content and tool calls, a line each. */
#include "args.h"
#include "lines.h"
#include "report.h"
#include "text_model.h"
#include "tools.h"

#include <string.h>

#define TOOLS_LIMIT (64u << 20)

static const char help[] =
    "usage: glm45 parse MODEL [--template 4.5|4.7] [--tools FILE]\n"
    "\n"
    "Reads lines {\"input\": \"...\", \"prompt_ends\": \"...\"} and writes for each, at once,\n"
    "{\"reasoning\", \"content\", \"tool_calls\": [{\"name\", \"arguments\"}], \"finish\"}: what a conversation would have delivered.\n"
    "MODEL is a checkpoint, a tokenizer.json or a folder with one.\n"
    "\n"
    "  input         what the model wrote, its special tokens spelled out\n"
    "  prompt_ends   the end of the prompt before it: \"<think>\" there opens the thought; may be left out\n"
    "  tool_choice   \"none\": calls are dropped; may be left out\n"
    "\n"
    "  --template 4.5|4.7   which template [the checkpoint's, else 4.5]\n"
    "  --tools FILE         the declared tools, an array as chat APIs have it: the types of arguments come from there\n"
    "\n"
    "reasoning and content are null where there is none, arguments is a string that holds a JSON object, finish is stop,\n"
    "tool_calls or length. The first bad line ends the command with status 1 and an error that names the line.\n";

static bool ends_in_thought(const struct json *prompt)
{
    static const char tag[] = "<think>";
    size_t size = prompt ? prompt->size : 0, n = sizeof tag - 1;
    while (size > 0 && strchr(" \t\r\n", prompt->text[size - 1]))
        size--;
    return size >= n && memcmp(prompt->text + size - n, tag, n) == 0;
}

static void put_text(struct buf *out, const struct buf *text)
{
    if (text->size)
        json_put_string(out, text->data, text->size);
    else
        buf_str(out, "null");
}

static void put_turn(struct buf *out, const struct stream_text *turn, enum stream_finish finish)
{
    static const char *const names[] = { "length", "stop", "tool_calls", "length" };
    buf_str(out, "{\"reasoning\": ");
    put_text(out, &turn->reasoning);
    buf_str(out, ", \"content\": ");
    put_text(out, &turn->content);
    buf_str(out, ", \"tool_calls\": [");
    for (size_t i = 0; i < turn->n_call; i++) {
        buf_str(out, i ? ", {\"name\": " : "{\"name\": ");
        json_put_string(out, turn->calls[i].name, turn->calls[i].name_size);
        buf_str(out, ", \"arguments\": ");
        json_put_string(out, turn->calls[i].arguments, turn->calls[i].arguments_size);
        buf_char(out, '}');
    }
    buf_str(out, "], \"finish\": \"");
    buf_str(out, names[finish]);
    buf_str(out, "\"}");
}

static int32_t parse(struct lines *l, const struct text_model *t, const struct tool_types *types, glm_error *err)
{
    const struct json *input = lines_member(l, "input", JSON_STRING, true, err), *prompt = NULL;
    enum stream_finish finish = STREAM_OPEN;
    struct stream *s = NULL;
    struct stream_text turn;
    struct stream_sink sink;
    int32_t rc;

    if (input)
        prompt = lines_member(l, "prompt_ends", JSON_STRING, false, err);
    if (err->code)
        return err->code;
    stream_text_init(&turn, t->mem);
    sink = stream_text_sink(&turn);
    rc = stream_open(t->mem, NULL, types, t->family, ends_in_thought(prompt), &s, err);
    if (!rc) {
        const struct json *choice = json_get(l->doc.root, "tool_choice");
        stream_drop_calls(s, choice && json_is_text(choice, "none"));
        rc = stream_put_spelled(s, input->text, input->size, &sink, err);
    }
    if (!rc)
        rc = stream_end(s, false, &sink, &finish, err);
    if (!rc)
        put_turn(&l->out, &turn, finish);
    stream_close(s);
    stream_text_free(&turn);
    return rc;
}

static int answer_all(const struct text_model *t, const struct tool_types *types)
{
    struct lines l;
    int status;

    lines_open(&l, t->mem, "parse");
    while ((status = lines_next(&l)) == LINES_GO_ON) {
        glm_error err = GLM_ERROR_INIT;
        status = parse(&l, t, types, &err) ? lines_bad(&l, &err) : lines_answer(&l);
        if (status != LINES_GO_ON)
            break;
    }
    lines_close(&l);
    return status;
}

/* The file is read whole; its types are all that is kept. */
static int read_tools(struct mem *m, const struct fs *fs, const char *path, struct tool_types **types)
{
    glm_error err = GLM_ERROR_INIT;
    struct json_doc doc = { 0 };
    char *text = NULL;
    size_t size;
    int32_t rc;

    if (!path)
        return EXIT_FINE;
    rc = fs_load(m, fs, path, TOOLS_LIMIT, &text, &size, &err);
    if (!rc)
        rc = json_parse(m, text, size, JSON_REFUSE_DUPLICATES, path, &doc, &err);
    if (rc)
        report_error("parse", &err);
    else if ((rc = tool_types_open(m, doc.root, types, &err)) != 0)
        report_failed("parse", "%s: %s: %s", path, err.where, err.message);
    json_free(&doc);
    mem_free(m, text);
    return rc ? EXIT_FAILED : EXIT_FINE;
}

int parse_main(int argc, char **argv)
{
    const char *model = NULL, *family = NULL, *tools = NULL;
    const struct arg args[] = {
        { .name = "--template", .kind = ARG_TEXT, .to = &family },
        { .name = "--tools", .kind = ARG_TEXT, .to = &tools },
    };
    const struct arg_table table = { "parse", help, args, ARRAY_LEN(args), &model };
    struct tool_types *types = NULL;
    struct text_model t;
    struct mem m;
    int status = args_read(&table, argc, argv);

    if (status != ARGS_GO_ON)
        return status;
    mem_init(&m, NULL);
    status = text_model_open(&t, &m, model, family, false, "parse");
    if (status != EXIT_FINE)
        return status;
    status = read_tools(&m, &t.fs, tools, &types);
    if (status == EXIT_FINE)
        status = answer_all(&t, types);
    tool_types_close(types);
    text_model_close(&t);
    return status;
}
