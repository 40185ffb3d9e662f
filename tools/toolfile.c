/* toolfile.c: see toolfile.h. */
#include "toolfile.h"
#include "run_command.h"

#include "../lib/base/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_LIMIT (16u << 20)
#define COMMAND_SECONDS 30

struct tool {
    const char *name;
    char **argv; /* NULL-terminated */
};

struct toolfile {
    struct mem mem;
    struct arena arena;
    struct json_doc doc;
    struct buf declared;
    struct tool *tool;
    uint32_t n;
};

static int32_t bad(glm_error *err, const char *path, uint32_t i, const char *place, const char *what)
{
    char where[128];
    snprintf(where, sizeof where, "%.90s: /%u%s", path, i, place);
    return err_set(err, GLM_ESCHEMA, 0, where, "%s", what);
}

static int32_t read_command(struct toolfile *t, const char *path, uint32_t i, const struct json *command, glm_error *err)
{
    char **argv;
    uint32_t n = 0;

    if (!command || command->type != JSON_ARRAY || command->count == 0)
        return bad(err, path, i, "/command", "an array is wanted here: the program to run, and its arguments");
    argv = arena_alloc(&t->arena, (command->count + 1u) * sizeof *argv, sizeof *argv);
    if (!argv)
        return err_nomem(err, "the tools");
    for (const struct json *v = json_first(command); v; v = json_next(command, v)) {
        if (v->type != JSON_STRING || strlen(v->text) != v->size)
            return bad(err, path, i, "/command", "its elements are strings");
        argv[n] = arena_copy(&t->arena, v->text, v->size);
        if (!argv[n++])
            return err_nomem(err, "the tools");
    }
    argv[n] = NULL;
    t->tool[i].argv = argv;
    return GLM_OK;
}

/* The tool as the model is to know it: without its command. */
static void declare(struct buf *b, const struct json *tool)
{
    const char *comma = "";
    buf_char(b, '{');
    for (const struct json *key = json_first(tool); key; key = json_next(tool, key)) {
        if (json_is_text(key, "command"))
            continue;
        buf_str(b, comma);
        json_put_string(b, key->text, key->size);
        buf_str(b, ": ");
        json_put_value(b, key + 1);
        comma = ", ";
    }
    buf_char(b, '}');
}

static int32_t read_tool(struct toolfile *t, const char *path, uint32_t i, const struct json *v, glm_error *err)
{
    const struct json *function = json_get(v, "function"), *name = json_get(function ? function : v, "name");

    if (v->type != JSON_OBJECT)
        return bad(err, path, i, "", "an object is wanted here: {\"type\": \"function\", \"function\": ..., \"command\": ...}");
    if (!name || name->type != JSON_STRING)
        return bad(err, path, i, function ? "/function/name" : "/name", "a string is wanted here, the tool's name");
    t->tool[i].name = name->text;
    if (i)
        buf_str(&t->declared, ", ");
    declare(&t->declared, v);
    return read_command(t, path, i, json_get(v, "command"), err);
}

static int32_t read_file(struct toolfile *t, const char *path, glm_error *err)
{
    struct fs fs;
    char *text = NULL;
    size_t size = 0;
    uint32_t i = 0;
    int32_t rc;

    fs_init(&fs, NULL);
    rc = fs_load(&t->mem, &fs, path, FILE_LIMIT, &text, &size, err);
    if (!rc)
        rc = json_parse(&t->mem, text, size, JSON_REFUSE_DUPLICATES, path, &t->doc, err);
    mem_free(&t->mem, text);
    if (!rc && t->doc.root->type != JSON_ARRAY)
        rc = err_set(err, GLM_ESCHEMA, 0, path, "an array of tools is wanted");
    if (rc)
        return rc;
    t->n = t->doc.root->count;
    t->tool = arena_alloc(&t->arena, (t->n + 1u) * sizeof *t->tool, sizeof(void *));
    if (!t->tool)
        return err_nomem(err, "the tools");
    buf_char(&t->declared, '[');
    for (const struct json *v = json_first(t->doc.root); v && !rc; v = json_next(t->doc.root, v), i++)
        rc = read_tool(t, path, i, v, err);
    buf_char(&t->declared, ']');
    return rc ? rc : t->declared.failed ? err_nomem(err, "the tools") : GLM_OK;
}

int32_t toolfile_open(const char *path, struct toolfile **out, glm_error *err)
{
    struct toolfile *t = calloc(1, sizeof *t);
    int32_t rc;

    *out = NULL;
    if (!t)
        return err_nomem(err, "the tools");
    mem_init(&t->mem, NULL);
    arena_init(&t->arena, &t->mem);
    buf_init(&t->declared, &t->mem);
    rc = read_file(t, path, err);
    if (rc)
        toolfile_close(t);
    else
        *out = t;
    return rc;
}

void toolfile_close(struct toolfile *t)
{
    if (!t)
        return;
    buf_free(&t->declared);
    json_free(&t->doc);
    arena_free(&t->arena);
    free(t);
}

const char *toolfile_declared(const struct toolfile *t, size_t *size)
{
    *size = t->declared.size;
    return t->declared.data;
}

/* ---- running -------------------------------------------------------------------------------------------------------------- */

static void append_valid(struct buf *b, const char *text, size_t size)
{
    for (size_t at = 0; at < size;) {
        size_t n = utf8_valid_prefix(text + at, size - at);
        buf_put(b, text + at, n);
        at += n;
        if (at < size) {
            buf_str(b, "\xef\xbf\xbd");
            at++;
        }
    }
}

static void describe(struct buf *b, const char *name, const struct command_result *r)
{
    char line[256] = "";
    if (r->problem)
        snprintf(line, sizeof line, "error: %.80s cannot be run: %s", name, r->problem);
    else if (r->stopped)
        snprintf(line, sizeof line, "error: stopped by the user");
    else if (r->timed_out)
        snprintf(line, sizeof line, "error: stopped after %d seconds", COMMAND_SECONDS);
    else if (r->cut)
        snprintf(line, sizeof line, "error: the output was cut at %u bytes", COMMAND_OUTPUT);
    else if (r->status)
        snprintf(line, sizeof line, "error: exit status %d", r->status);
    if (*line && b->size && b->data[b->size - 1] != '\n')
        buf_char(b, '\n');
    append_valid(b, line, strlen(line));
}

bool toolfile_run(const struct toolfile *t, const char *name, const char *arguments, size_t size, bool (*stop)(void),
    struct tool_answer *out)
{
    struct command_result r = { .problem = "there is no such tool" };
    struct mem mem;
    struct buf text;
    char *const *argv = NULL;

    for (uint32_t i = 0; t && i < t->n; i++)
        if (strcmp(t->tool[i].name, name) == 0)
            argv = t->tool[i].argv;
    if (argv)
        run_command(argv, arguments, size, COMMAND_SECONDS, stop, &r);
    mem_init(&mem, NULL);
    buf_init(&text, &mem);
    append_valid(&text, r.output ? r.output : "", r.size);
    if (r.size && !r.cut && text.size && text.data[text.size - 1] == '\n') /* what echo and print add */
        text.size--;
    describe(&text, name, &r);
    free(r.output);
    *out = (struct tool_answer){ .size = text.size, .failed = r.problem || r.stopped || r.timed_out || r.cut || r.status };
    out->text = text.failed ? NULL : malloc(text.size + 1);
    if (out->text) {
        if (text.size)
            memcpy(out->text, text.data, text.size);
        out->text[text.size] = '\0';
    }
    buf_free(&text);
    return out->text != NULL;
}
