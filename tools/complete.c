/* complete.c: `glm45 complete`: goes on with a text, token by token, without a conversation around it. Public API only. */
#include "args.h"
#include "progress.h"
#include "report.h"
#include "session_args.h"
#include "textfile.h"
#include "tools.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_TOKENS 256u
#define HELD 16u     /* tokens that are kept back for the rest of a character */
#define STOPS 3u

static const char help[] =
    "usage: glm45 complete MODEL [--prompt TEXT] [options]\n"
    "\n"
    "Goes on with a text, from --prompt or from stdin, until the model ends it. The text goes in as it is.\n"
    "\n"
    "  --prompt TEXT         the text                               [all of stdin]\n"
    "  --special             special tokens spelled out in it (\"[gMASK]<sop>\", \"<|code_prefix|>\") are meant as such\n"
    "  --echo                write the prompt, too\n"
    "  --ignore-end          go on behind the tokens that end a text\n"
    SESSION_ARGS_HELP
    "\n"
    "example: glm45 complete GLM-4.5-Air-Base --special --prompt '[gMASK]<sop>The capital of Norway is' --max-tokens 8\n";

struct completion {
    struct session_args args;
    const char *prompt;
    bool special, echo, ignore_end;
    glm_model *model;
    glm_session *session;
    char *input;           /* of stdin */
    int32_t *ids;          /* [n] of the prompt */
    size_t n;
    int32_t stop[STOPS];
    size_t n_stop;
    int32_t held[HELD];
    size_t n_held;
};

static int take_prompt(struct completion *c)
{
    const char *text = c->prompt;
    size_t size = text ? strlen(text) : 0;
    uint32_t flags = c->special ? GLM_TOKENIZE_SPECIALS : 0;
    glm_error err = GLM_ERROR_INIT;
    int32_t rc;

    if (!text && !(text = c->input = textfile_read("complete", NULL, &size)))
        return EXIT_FAILED;
    rc = glm_tokenize(c->model, text, size, flags, NULL, 0, &c->n, &err);
    if (rc && rc != GLM_ELIMIT)
        return report_error("complete", &err);
    if (c->n == 0)
        return report_failed("complete", "the prompt is empty; give at least a character");
    c->ids = malloc(c->n * sizeof *c->ids);
    if (!c->ids)
        return report_failed("complete", "out of memory for the prompt");
    if (glm_tokenize(c->model, text, size, flags, c->ids, c->n, &c->n, &err))
        return report_error("complete", &err);
    if (c->echo)
        fwrite(text, 1, size, stdout);
    return EXIT_FINE;
}

/* The family's end tokens, by their spelling; a vocabulary without them never ends. */
static void find_stops(struct completion *c)
{
    static const char *const names[STOPS] = { "<|endoftext|>", "<|user|>", "<|observation|>" };
    for (size_t i = 0; i < STOPS; i++) {
        size_t n = 0;
        int32_t id;
        if (!glm_tokenize(c->model, names[i], GLM_NTS, GLM_TOKENIZE_SPECIALS, &id, 1, &n, NULL) && n == 1)
            c->stop[c->n_stop++] = id;
    }
}

static bool is_stop(const struct completion *c, int32_t id)
{
    for (size_t i = 0; i < c->n_stop && !c->ignore_end; i++)
        if (c->stop[i] == id)
            return true;
    return false;
}

/* Writes the held tokens, unless they end inside a character and more may come. */
static int put_held(struct completion *c, bool last)
{
    static const char replacement[] = "\xef\xbf\xbd";
    glm_error err = GLM_ERROR_INIT;
    char text[4096];
    size_t size = 0;

    if (c->n_held == 0)
        return EXIT_FINE;
    if (glm_detokenize(c->model, c->held, c->n_held, text, sizeof text, &size, &err))
        return report_error("complete", &err);
    if (!last && c->n_held < HELD && size >= 3 && memcmp(text + size - 3, replacement, 3) == 0)
        return EXIT_FINE;
    c->n_held = 0;
    fwrite(text, 1, size, stdout);
    return report_flush("complete");
}

static int feed(struct completion *c, const int32_t *ids, size_t n)
{
    glm_error err = GLM_ERROR_INIT;
    glm_event ev = GLM_EVENT_INIT;
    glm_step how = GLM_STEP_INIT;
    struct progress p;
    int32_t rc = glm_session_feed(c->session, ids, n, GLM_ROWS_LAST, &err);

    how.budget_ns = 100000000u;
    progress_begin(&p, "reading the prompt");
    while (!rc && ev.type != GLM_EVENT_READY) {
        rc = glm_session_step(c->session, &how, &ev, &err);
        if (n > 1)
            progress_show(&p, (double)ev.rows_done, (double)n, "tokens");
    }
    progress_end(&p);
    return rc ? report_error("complete", &err) : EXIT_FINE;
}

static int generate(struct completion *c)
{
    glm_error err = GLM_ERROR_INIT;
    glm_model_info info = GLM_MODEL_INFO_INIT;
    uint64_t most = c->args.max_tokens ? c->args.max_tokens : DEFAULT_TOKENS, room;
    int status = EXIT_FINE;

    if (glm_model_describe(c->model, &info, &err))
        return report_error("complete", &err);
    room = c->args.n_ctx ? c->args.n_ctx : info.n_ctx_train;
    if (c->n > room)
        return report_failed("complete", "the prompt has %zu tokens, the context %llu: shorten it%s", c->n,
            (unsigned long long)room, c->args.n_ctx ? " or raise --context" : "");
    status = feed(c, c->ids, c->n);
    for (uint64_t i = 0; i < most && status == EXIT_FINE; i++) {
        int32_t id;
        if (glm_session_sample(c->session, &id, &err))
            return report_error("complete", &err);
        if (is_stop(c, id))
            break;
        c->held[c->n_held++] = id;
        status = put_held(c, false);
        if (c->n + i + 1 >= room)
            break;
        if (status == EXIT_FINE && i + 1 < most)
            status = feed(c, &id, 1);
    }
    if (status == EXIT_FINE)
        status = put_held(c, true);
    return status;
}

static int run(struct completion *c)
{
    glm_error err = GLM_ERROR_INIT;
    glm_turn_options turn = session_args_turn(&c->args);
    int status = session_args_open(&c->args, "complete", &c->model, &c->session);

    turn.max_tokens = 0; /* of a conversation's turn */
    if (status != EXIT_FINE)
        return status;
    if (glm_session_turn(c->session, &turn, &err))
        return report_error("complete", &err);
    find_stops(c);
    status = take_prompt(c);
    return status == EXIT_FINE ? generate(c) : status;
}

int complete_main(int argc, char **argv)
{
    struct completion c = { .prompt = NULL };
    const struct arg args[] = {
        { .name = "--prompt", .kind = ARG_TEXT, .to = &c.prompt },
        { .name = "--special", .kind = ARG_FLAG, .to = &c.special },
        { .name = "--echo", .kind = ARG_FLAG, .to = &c.echo },
        { .name = "--ignore-end", .kind = ARG_FLAG, .to = &c.ignore_end },
        SESSION_ARGS(c.args),
    };
    const struct arg_table table = { "complete", help, args, sizeof args / sizeof args[0], &c.args.model };
    int status = args_read(&table, argc, argv);

    if (status == ARGS_GO_ON)
        status = run(&c);
    glm_session_close(c.session);
    glm_model_close(c.model);
    free(c.input);
    free(c.ids);
    return status;
}
