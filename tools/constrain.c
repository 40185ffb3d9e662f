/* constrain.c: `glm45 constrain`: walks texts through a grammar token by token and says which ones it accepts, and how long each
 * mask took.
 */
#include "../lib/text/constraint.h"

#include "args.h"
#include "lines.h"
#include "report.h"
#include "text_model.h"
#include "tools.h"

#include <string.h>

static const char help[] =
    "usage: glm45 constrain MODEL\n"
    "\n"
    "Reads lines {\"schema\": ..., \"texts\": [\"...\"]} and writes for each, at once,\n"
    "{\"error\", \"compile_us\", \"accepted\": [...], \"mask_us\": [[...]]}. MODEL is a checkpoint, a tokenizer.json or a folder with\n"
    "one. Each text is tokenized without special tokens and walked: the mask of the whole vocabulary is computed and timed, the\n"
    "token must be in it, the grammar moves on. A text is accepted if it is walked to its end and may end there.\n"
    "\n"
    "error is null, or {\"pointer\", \"message\"} where the grammar is refused (or the line is no JSON): then there are no walks.\n"
    "\n"
    "Instead of \"schema\" a line may have\n"
    "  \"regex\": \"...\"        an ECMA-262 pattern for the whole text\n"
    "  \"choices\": [\"...\"]    the texts that are allowed\n"
    "  \"tools\": [...]        a turn with tool calls, its tags spelled out in the texts; with \"tool_choice\" (\"auto\", \"none\",\n"
    "                        \"required\", a tool's name) and \"template\" (\"4.5\", \"4.7\"; the model's)\n"
    "\n"
    "The first bad line ends the command with status 1 and an error that names the line.\n";

struct walker {
    const struct text_model *t;
    struct con_vocab *vocab;
    uint32_t *mask;
    struct ids ids;
    struct buf times, accepted;
};

static void put_us(struct buf *out, uint64_t ns)
{
    buf_u64(out, ns / 1000);
    buf_char(out, '.');
    buf_char(out, (char)('0' + ns / 100 % 10));
}

static int32_t walk(struct walker *w, struct con_grammar *g, const struct json *text, uint32_t flags, glm_error *err)
{
    struct con_run *run = NULL;
    bool fits = true;
    w->ids.n = 0;
    int32_t rc = tok_encode(w->t->tok, text->text, text->size, flags, &w->ids, err);
    if (!rc)
        rc = con_open(w->t->mem, g, &run, err);
    buf_char(&w->times, '[');
    for (size_t i = 0; i < w->ids.n && fits && !rc; i++) {
        int32_t id = w->ids.id[i];
        uint64_t start = os_now_ns();
        rc = con_mask(run, w->mask, err);
        if (i > 0)
            buf_str(&w->times, ", ");
        put_us(&w->times, os_now_ns() - start);
        fits = !rc && (w->mask[id / 32] >> id % 32 & 1);
        if (fits)
            rc = con_accept(run, id, err);
    }
    buf_char(&w->times, ']');
    buf_str(&w->accepted, !rc && fits && con_can_end(run) ? "true" : "false");
    con_close(run);
    return rc;
}

static void put_error(struct buf *out, const glm_error *err)
{
    buf_str(out, "{\"pointer\": ");
    json_put_string(out, err->where, strlen(err->where));
    buf_str(out, ", \"message\": ");
    json_put_string(out, err->message, strlen(err->message));
    buf_char(out, '}');
}

static int32_t read_choice(struct con_spec *spec, const struct json *choice, glm_error *err)
{
    static const char *const names[] = { "auto", "none", "required" };
    if (choice == NULL || choice->type == JSON_NULL)
        return 0;
    const struct json *function = json_get(choice, "function");
    const struct json *name = choice->type == JSON_STRING ? choice : json_get(function ? function : choice, "name");
    if (name == NULL || name->type != JSON_STRING)
        return err_set(err, GLM_EINVAL, choice->offset, "/tool_choice", "auto, none, required or a tool's name");
    for (uint32_t i = 0; i < ARRAY_LEN(names); i++)
        if (choice->type == JSON_STRING && json_is_text(name, names[i])) {
            spec->choice = (enum con_tool_choice)(CON_AUTO + i);
            return 0;
        }
    spec->choice = CON_NAMED;
    spec->name = name->text;
    spec->name_size = name->size;
    return 0;
}

static int32_t read_spec(const struct lines *l, const struct text_model *t, struct con_spec *spec, glm_error *err)
{
    const struct json *root = l->doc.root, *regex = json_get(root, "regex"), *template_name = json_get(root, "template");
    *spec = (struct con_spec){ .kind = CON_SCHEMA, .schema = json_get(root, "schema"), .family = t->family };
    if (regex != NULL && regex->type == JSON_STRING) {
        spec->kind = CON_REGEX;
        spec->regex = regex->text;
        spec->regex_size = regex->size;
    } else if ((spec->choices = json_get(root, "choices")) != NULL) {
        spec->kind = CON_CHOICE;
    } else if ((spec->tools = json_get(root, "tools")) != NULL) {
        spec->kind = CON_TURN;
        if (template_name != NULL)
            spec->family = json_is_text(template_name, "4.7") ? CHAT_47 : CHAT_45;
        return read_choice(spec, json_get(root, "tool_choice"), err);
    } else if (spec->schema == NULL) {
        return err_set(err, GLM_EINVAL, 0, NULL, "a line needs \"schema\", \"regex\", \"choices\" or \"tools\"");
    }
    return 0;
}

static bool is_refusal(int32_t code)
{
    return code == GLM_ESCHEMA || code == GLM_ELIMIT || code == GLM_ENOTSUP;
}

/* A text that needs more than the limits allow is not accepted; anything else that fails ends the command. */
static int32_t walk_all(struct walker *w, struct con_grammar *g, const struct json *texts, uint32_t flags, glm_error *err)
{
    for (const struct json *v = texts ? json_first(texts) : NULL; v; v = json_next(texts, v)) {
        if (v->type != JSON_STRING)
            return err_set(err, GLM_EINVAL, v->offset, "/texts", "texts are strings");
        if (w->accepted.size > 0) {
            buf_str(&w->accepted, ", ");
            buf_str(&w->times, ", ");
        }
        int32_t rc = walk(w, g, v, flags, err);
        if (rc && !is_refusal(rc))
            return rc;
        err_clear(err);
    }
    return 0;
}

/* A schema that cannot even be read is refused like any other. */
static int32_t answer_unread(struct lines *l)
{
    buf_str(&l->out, "{\"error\": ");
    put_error(&l->out, &l->refused);
    buf_str(&l->out, ", \"compile_us\": 0.0, \"accepted\": [], \"mask_us\": []}");
    return 0;
}

static int32_t answer(struct lines *l, struct walker *w, glm_error *err)
{
    struct con_spec spec;
    struct con_grammar *g = NULL;
    const struct json *texts = lines_member(l, "texts", JSON_ARRAY, false, err);
    int32_t rc = err->code ? err->code : read_spec(l, w->t, &spec, err);
    if (rc)
        return rc;
    buf_clear(&w->times);
    buf_clear(&w->accepted);
    uint64_t start = os_now_ns();
    rc = con_compile(w->t->mem, w->vocab, &spec, &g, err);
    uint64_t took = os_now_ns() - start;
    buf_str(&l->out, "{\"error\": ");
    if (is_refusal(rc))
        put_error(&l->out, err);
    else if (rc)
        return rc;
    else
        buf_str(&l->out, "null");
    if (rc)
        err_clear(err);
    else if ((rc = walk_all(w, g, texts, spec.kind == CON_TURN ? TOK_SPECIALS : 0, err)) != 0)
        goto end;
    buf_str(&l->out, ", \"compile_us\": ");
    put_us(&l->out, took);
    buf_str(&l->out, ", \"accepted\": [");
    buf_put(&l->out, w->accepted.data, w->accepted.size);
    buf_str(&l->out, "], \"mask_us\": [");
    buf_put(&l->out, w->times.data, w->times.size);
    buf_str(&l->out, "]}");
    rc = w->times.failed || w->accepted.failed ? err_nomem(err, "an answer") : 0;
end:
    con_release(g);
    return rc;
}

static int answer_all(struct walker *w)
{
    struct lines l;
    int status;

    lines_open(&l, w->t->mem, "constrain");
    l.answers_bad_json = true;
    while ((status = lines_next(&l)) == LINES_GO_ON) {
        glm_error err = GLM_ERROR_INIT;
        status = (l.refused.code ? answer_unread(&l) : answer(&l, w, &err)) ? lines_bad(&l, &err) : lines_answer(&l);
        if (status != LINES_GO_ON)
            break;
    }
    lines_close(&l);
    return status;
}

int constrain_main(int argc, char **argv)
{
    const char *model = NULL;
    const struct arg_table table = { "constrain", help, NULL, 0, &model };
    glm_error err = GLM_ERROR_INIT;
    struct walker w = { 0 };
    struct text_model t;
    struct mem m;
    int status = args_read(&table, argc, argv);

    if (status != ARGS_GO_ON)
        return status;
    mem_init(&m, NULL);
    status = text_model_open(&t, &m, model, NULL, true, "constrain");
    if (status != EXIT_FINE)
        return status;
    w.t = &t;
    ids_init(&w.ids, &m);
    buf_init(&w.times, &m);
    buf_init(&w.accepted, &m);
    if (con_vocab_open(&m, t.tok, 0, &w.vocab, &err)) {
        status = report_error("constrain", &err);
    } else if ((w.mask = mem_zarray(&m, con_n_word(w.vocab), sizeof *w.mask)) == NULL) {
        status = report_failed("constrain", "out of memory for a mask");
    } else {
        status = answer_all(&w);
    }
    mem_free(&m, w.mask);
    con_vocab_close(w.vocab);
    ids_free(&w.ids);
    buf_free(&w.times);
    buf_free(&w.accepted);
    text_model_close(&t);
    return status;
}
