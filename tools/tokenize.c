/* tokenize.c: `glm45 tokenize`: texts to token ids, a line each. */
#include "args.h"
#include "lines.h"
#include "report.h"
#include "text_model.h"
#include "tools.h"

static const char help[] =
    "usage: glm45 tokenize MODEL [--special]\n"
    "\n"
    "Reads lines {\"text\": \"...\"} and writes a line [ids] for each, at once. MODEL is a checkpoint, a tokenizer.json or a\n"
    "folder with one. No token is added in front.\n"
    "\n"
    "  --special   special tokens spelled out in a text (\"<|user|>\") are meant as such, not as text\n"
    "\n"
    "The first bad line ends the command with status 1 and an error that names the line.\n"
    "\n"
    "example: echo '{\"text\": \"Hello\"}' | glm45 tokenize GLM-4.5-Air\n";

static int answer(struct lines *l, const struct tok *tok, uint32_t flags, struct ids *ids)
{
    glm_error err = GLM_ERROR_INIT;
    const struct json *text = lines_member(l, "text", JSON_STRING, true, &err);

    ids->n = 0;
    if (!text || tok_encode(tok, text->text, text->size, flags, ids, &err))
        return lines_bad(l, &err);
    buf_char(&l->out, '[');
    for (size_t i = 0; i < ids->n; i++) {
        if (i)
            buf_char(&l->out, ',');
        buf_i64(&l->out, ids->id[i]);
    }
    buf_char(&l->out, ']');
    return lines_answer(l);
}

static int answer_all(struct text_model *t, uint32_t flags)
{
    struct lines l;
    struct ids ids;
    int status;

    lines_open(&l, t->mem, "tokenize");
    ids_init(&ids, t->mem);
    while ((status = lines_next(&l)) == LINES_GO_ON && (status = answer(&l, t->tok, flags, &ids)) == LINES_GO_ON) {}
    ids_free(&ids);
    lines_close(&l);
    return status;
}

int tokenize_main(int argc, char **argv)
{
    const char *model = NULL;
    bool special = false;
    const struct arg args[] = { { .name = "--special", .kind = ARG_FLAG, .to = &special } };
    const struct arg_table table = { "tokenize", help, args, ARRAY_LEN(args), &model };
    struct text_model t;
    struct mem m;
    int status = args_read(&table, argc, argv);

    if (status != ARGS_GO_ON)
        return status;
    mem_init(&m, NULL);
    status = text_model_open(&t, &m, model, NULL, true, "tokenize");
    if (status != EXIT_FINE)
        return status;
    status = answer_all(&t, special ? TOK_SPECIALS : 0);
    text_model_close(&t);
    return status;
}
