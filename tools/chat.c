/* chat.c: `glm45 chat`: a conversation in the terminal, or with lines from a pipe. A host of the public API like any other:
 * it says messages, steps, answers calls, goes back, saves and loads. What a person sees of it is in chat_show.c; what a
 * terminal and a tool's command need, in terminal.c and toolfile.c.
 */
#include "args.h"
#include "chat_show.h"
#include "report.h"
#include "session_args.h"
#include "tools.h"

#include <stdlib.h>
#include <string.h>

#define STEP_NS 100000000u   /* between two looks at the progress bar and the keyboard */

static const char help[] =
    "usage: glm45 chat MODEL [options]\n"
    "\n"
    "A conversation in the terminal. Ctrl-C stops the answer, not the program. Where stdin is no terminal, each line is a\n"
    "message; where stdout is none, only answers are written to it.\n"
    "\n"
    "  --system TEXT         what the model is told before anything else\n"
    "  --say TEXT            a message; may come again. The program ends after the answers\n"
    "  --no-think            no thinking before the answer\n"
    "  --think-budget N      at most N tokens of it\n"
    "  --think-close TEXT    ends a thought that is closed early\n"
    "  --keep-thoughts       past thoughts stay in the prompt, where the template knows how (4.7)\n"
    "  --show-thinking       thinking also where stdout is no terminal\n"
    "  --tools FILE          tools that the model may call: an array as chat APIs have it, each with a member \"command\":\n"
    "                        [\"program\", \"argument\"]: arguments come as JSON on its stdin, its stdout is the result\n"
    "  --load FILE           goes on with a saved conversation\n"
    "  --save FILE           saves it at the end\n"
    "  --overflow drop       when the context is full, the oldest turns are forgotten [error]\n"
    "  --template 4.5|4.7    the chat template                      [the checkpoint's]\n"
    TURN_ARGS_HELP
    SESSION_ARGS_HELP
    "\n"
    "In the conversation: /help lists the commands. A line that ends in \\ goes on with the next.\n"
    "\n"
    "example: glm45 chat GLM-4.5-Air-Q4_K_M.gguf --system 'You are terse.'\n";

static const char commands[] =
    "/think on|off|N   with or without thinking, or with at most N tokens of it, from the next message on\n"
    "/end              while the model thinks: enough, the answer please\n"
    "/undo             takes the last message and its answer back\n"
    "/save FILE        saves the conversation; /load FILE goes on with it\n"
    "/system TEXT      another system message; begins anew\n"
    "/reset            begins anew\n"
    "/quit             leaves; so does Ctrl-D, or Ctrl-C twice\n"
    "//text            a message that begins with a slash\n";

struct marks {             /* of the messages said, to go back to */
    uint64_t *item;
    size_t n, capacity;
};

struct chat {
    struct session_args args;
    const char *system, *tools_path, *load_path, *save_path, *think_close;
    char *system_owned;    /* of /system */
    struct arg_texts say;
    uint64_t think_budget;
    bool no_think, has_think_budget, keep_thoughts;
    struct show show;
    struct toolfile *tools;
    glm_model *model;
    glm_session *session;
    glm_turn_options turn;
    struct marks marks;
    char *ahead;           /* a line that came while the model answered; it is the next one */
};

/* ---- a turn ---------------------------------------------------------------------------------------------------------------- */

static void cancel(void *session) { glm_session_cancel(session); }

static int32_t call_tool(struct chat *c, const glm_event *ev, glm_error *err)
{
    struct tool_answer a;
    int32_t rc;

    fflush(show_remarks(&c->show));
    if (!toolfile_run(c->tools, ev->name, ev->arguments, ev->arguments_size, terminal_interrupted, &a)) {
        err->code = GLM_ENOMEM;
        snprintf(err->message, sizeof err->message, "out of memory for a tool's result");
        return GLM_ENOMEM;
    }
    show_result(&c->show, &a);
    rc = glm_tool_result(c->session, ev->call_id, a.text, a.size, err);
    free(a.text);
    return rc;
}

/* What a person types meanwhile: "/end" ends the thought, anything else is the next line, the end of the input too. */
static void look_at_keyboard(struct chat *c)
{
    size_t size;
    bool stopped;
    char *line;

    if (c->ahead || !terminal_waiting(&c->show.terminal))
        return;
    line = terminal_line(&c->show.terminal, "", &size, &stopped);
    if (!line && stopped)
        return;
    if (!line || strcmp(line, "/end") != 0)
        c->ahead = strdup(line ? line : "/quit");
    else if (glm_session_end_thought(c->session, NULL))
        show_remark(&c->show, "there is no thought to end");
}

static int32_t step(struct chat *c, glm_event *ev, glm_error *err)
{
    glm_step how = GLM_STEP_INIT;
    int32_t rc;

    how.budget_ns = STEP_NS;
    look_at_keyboard(c);
    rc = glm_session_step(c->session, &how, ev, err);
    if (rc)
        return rc;
    show_event(&c->show, ev);
    return ev->type == GLM_EVENT_TOOL_CALL ? call_tool(c, ev, err) : GLM_OK;
}

/* Says the message and remembers where it stands. */
static int32_t say(struct chat *c, const char *text, size_t size, glm_error *err)
{
    struct marks *m = &c->marks;
    int32_t rc;

    if (m->n == m->capacity) {
        size_t capacity = m->capacity ? 2 * m->capacity : 64;
        uint64_t *item = realloc(m->item, capacity * sizeof *item);
        if (!item) {
            err->code = GLM_ENOMEM;
            snprintf(err->message, sizeof err->message, "out of memory for a message");
            return GLM_ENOMEM;
        }
        m->item = item;
        m->capacity = capacity;
    }
    rc = glm_session_mark(c->session, &m->item[m->n], err);
    rc = rc ? rc : glm_session_say(c->session, GLM_ROLE_USER, text, size, err);
    m->n += !rc;
    return rc;
}

/* Says a message and prints what comes back. EXIT_FINE or, after an error line, EXIT_FAILED. */
static int answer(struct chat *c, const char *text, size_t size)
{
    glm_error err = GLM_ERROR_INIT;
    glm_event ev = GLM_EVENT_INIT;
    const struct terminal *t = &c->show.terminal;
    int32_t rc = say(c, text, size, &err);

    show_begin(&c->show);
    if (!rc)
        terminal_on_interrupt(cancel, c->session);
    while (!rc && ev.type != GLM_EVENT_TURN_END)
        rc = step(c, &ev, &err);
    progress_end(&c->show.progress);
    terminal_on_interrupt(NULL, NULL);
    if (report_flush("chat") != EXIT_FINE)
        return EXIT_FAILED;
    if (!rc)
        return EXIT_FINE;
    show_abort(&c->show);
    if (rc == GLM_ECONTEXT && t->in && t->out)
        report_note("chat", "the conversation is too long: /undo takes the message back, /reset begins anew");
    return report_error("chat", &err);
}

/* ---- the conversation --------------------------------------------------------------------------------------------------------- */

static int begin(struct chat *c)
{
    glm_error err = GLM_ERROR_INIT;
    int32_t rc = glm_session_messages(c->session, "[]", 2, NULL, &err);

    c->marks.n = 0;
    if (!rc && c->system)
        rc = glm_session_say(c->session, GLM_ROLE_SYSTEM, c->system, GLM_NTS, &err);
    return rc ? report_error("chat", &err) : EXIT_FINE;
}

static int set_thinking(struct chat *c, uint32_t thinking, uint32_t budget)
{
    glm_error err = GLM_ERROR_INIT;
    c->turn.thinking = thinking;
    c->turn.think_tokens = budget;
    return glm_session_turn(c->session, &c->turn, &err) ? report_error("chat", &err) : EXIT_FINE;
}

static int think(struct chat *c, const char *how)
{
    char *end;
    unsigned long n = strtoul(how, &end, 10);

    if (strcmp(how, "on") == 0)
        return set_thinking(c, GLM_THINK_ON, 0);
    if (strcmp(how, "off") == 0)
        return set_thinking(c, GLM_THINK_OFF, 0);
    if (*how < '0' || *how > '9' || *end || n > UINT32_MAX)
        return report_failed("chat", "/think %s: on, off, or a number of tokens", how);
    return set_thinking(c, GLM_THINK_BUDGET, (uint32_t)n);
}

static int undo(struct chat *c)
{
    glm_error err = GLM_ERROR_INIT;

    if (c->marks.n == 0)
        return report_failed("chat", "/undo: there is no message to take back");
    if (glm_session_rewind(c->session, c->marks.item[c->marks.n - 1], &err))
        return report_error("chat", &err);
    c->marks.n--;
    return EXIT_FINE;
}

static int save(struct chat *c, const char *path)
{
    glm_error err = GLM_ERROR_INIT;
    if (glm_session_save(c->session, path, &err))
        return report_failed("chat", "%s is not saved: %s", path, err.message);
    return EXIT_FINE;
}

/* Tools that were declared stay the conversation's; those of --tools take their place. */
static int32_t set_up(struct chat *c, glm_session *s, glm_error *err)
{
    int32_t rc = glm_session_turn(s, &c->turn, err);
    if (!rc && c->tools) {
        size_t size = 0;
        const char *declared = toolfile_declared(c->tools, &size);
        rc = glm_session_tools(s, declared, size, err);
        if (rc)
            snprintf(err->where, sizeof err->where, "%s", c->tools_path);
    }
    return rc;
}

static int load(struct chat *c, const char *path)
{
    glm_error err = GLM_ERROR_INIT;
    glm_session_options options = GLM_SESSION_OPTIONS_INIT;
    glm_session *loaded = NULL;

    if (session_args_options(&c->args, "chat", &options) != EXIT_FINE)
        return EXIT_USAGE;
    if (glm_session_load(c->model, path, &options, &loaded, &err))
        return report_failed("chat", "%s: %s", path, err.message);
    if (set_up(c, loaded, &err)) {
        glm_session_close(loaded);
        return report_error("chat", &err);
    }
    glm_session_close(c->session);
    c->session = loaded;
    c->marks.n = 0;
    return EXIT_FINE;
}

static int set_system(struct chat *c, const char *text)
{
    char *copy = strdup(text);
    if (!copy)
        return report_failed("chat", "out of memory");
    free(c->system_owned);
    c->system = c->system_owned = copy;
    return begin(c);
}

/* A line that begins with a slash. *quit: it was the last. */
static int obey(struct chat *c, const char *line, bool *quit)
{
    int status = EXIT_FINE;
    if (strcmp(line, "/quit") == 0 || strcmp(line, "/exit") == 0)
        *quit = true;
    else if (strcmp(line, "/help") == 0)
        fputs(commands, show_remarks(&c->show));
    else if (strcmp(line, "/reset") == 0)
        status = begin(c);
    else if (strcmp(line, "/undo") == 0)
        status = undo(c);
    else if (strcmp(line, "/end") == 0)
        status = report_failed("chat", "/end: only during a thought");
    else if (strncmp(line, "/think ", 7) == 0)
        status = think(c, line + 7);
    else if (strncmp(line, "/save ", 6) == 0 && line[6])
        status = save(c, line + 6);
    else if (strncmp(line, "/load ", 6) == 0 && line[6])
        status = load(c, line + 6);
    else if (strncmp(line, "/system ", 8) == 0 && line[8])
        status = set_system(c, line + 8);
    else
        status = report_failed("chat", "%s is no command; /help lists them", line);
    return status;
}

static bool is_blank(const char *line) { return line[strspn(line, " \t")] == '\0'; }

/* The next line, also one that came ahead of its time. *owned: free() it. */
static char *next_line(struct chat *c, size_t *size, bool *stopped, char **owned)
{
    *owned = c->ahead;
    c->ahead = NULL;
    *stopped = false;
    if (!*owned)
        return terminal_line(&c->show.terminal, "> ", size, stopped);
    *size = strlen(*owned);
    return *owned;
}

/* Lines until the end. A person goes on after an error, a script does not. */
static int converse(struct chat *c)
{
    bool person = c->show.terminal.in, stopped, asked = false, quit = false;
    int status = EXIT_FINE;

    while (!quit && (status == EXIT_FINE || person)) {
        size_t size;
        char *line, *owned;
        terminal_on_interrupt(NULL, NULL);
        line = next_line(c, &size, &stopped, &owned);
        if (!line && !(stopped && person))
            break;
        if (!line) { /* Ctrl-C */
            if (asked)
                break;
            fputs("\n(Ctrl-C again, Ctrl-D or /quit leaves)\n", show_remarks(&c->show));
            asked = true;
            continue;
        }
        asked = false;
        if (line[0] == '/' && line[1] != '/')
            status = obey(c, line, &quit);
        else if (!is_blank(line) || strlen(line) != size)
            status = answer(c, line + (line[0] == '/'), size - (line[0] == '/'));
        free(owned);
    }
    if (person && c->show.terminal.out && !quit)
        fputc('\n', stdout);
    return person ? EXIT_FINE : status;
}

static int check_options(const struct chat *c)
{
    if (c->no_think && c->has_think_budget)
        return report_usage("chat", "--no-think and --think-budget exclude one another");
    if (c->system && c->load_path)
        return report_usage("chat", "--system begins a conversation, --load goes on with one");
    return EXIT_FINE;
}

static int open_chat(struct chat *c)
{
    glm_error err = GLM_ERROR_INIT;
    int status = check_options(c);

    if (status != EXIT_FINE)
        return status;
    if (c->tools_path && toolfile_open(c->tools_path, &c->tools, &err))
        return report_error("chat", &err);
    status = session_args_open(&c->args, "chat", &c->model, &c->session);
    if (status != EXIT_FINE)
        return status;
    c->turn = session_args_turn(&c->args);
    c->turn.think_close = c->think_close;
    c->turn.thinking = c->no_think ? GLM_THINK_OFF : c->has_think_budget ? GLM_THINK_BUDGET : GLM_THINK_ON;
    c->turn.think_tokens = (uint32_t)c->think_budget;
    c->turn.keep_thoughts = c->keep_thoughts;
    if (c->load_path)
        return load(c, c->load_path);
    if (set_up(c, c->session, &err))
        return report_error("chat", &err);
    return begin(c);
}

static int talk(struct chat *c)
{
    const struct terminal *t = &c->show.terminal;
    int status = EXIT_FINE;

    for (size_t i = 0; i < c->say.n && status == EXIT_FINE; i++)
        status = answer(c, c->say.item[i], strlen(c->say.item[i]));
    if (c->say.n)
        return status;
    if (t->in && t->out) {
        terminal_style(t, stdout, STYLE_DIM);
        fputs("/help lists the commands, Ctrl-C stops an answer\n", stdout);
        terminal_style(t, stdout, STYLE_PLAIN);
    }
    return converse(c);
}

static int run(struct chat *c)
{
    int status = open_chat(c);

    if (status == EXIT_FINE)
        status = talk(c);
    if (status == EXIT_FINE && c->save_path)
        status = save(c, c->save_path);
    return status;
}

int chat_main(int argc, char **argv)
{
    struct chat c = { .no_think = false };
    const struct arg args[] = {
        { .name = "--system", .kind = ARG_TEXT, .to = &c.system },
        { .name = "--say", .kind = ARG_TEXTS, .to = &c.say },
        { .name = "--no-think", .kind = ARG_FLAG, .to = &c.no_think },
        { .name = "--think-budget", .kind = ARG_COUNT, .to = &c.think_budget, .most = UINT32_MAX,
            .given = &c.has_think_budget },
        { .name = "--think-close", .kind = ARG_TEXT, .to = &c.think_close },
        { .name = "--keep-thoughts", .kind = ARG_FLAG, .to = &c.keep_thoughts },
        { .name = "--show-thinking", .kind = ARG_FLAG, .to = &c.show.thinking },
        { .name = "--tools", .kind = ARG_TEXT, .to = &c.tools_path },
        { .name = "--load", .kind = ARG_TEXT, .to = &c.load_path },
        { .name = "--save", .kind = ARG_TEXT, .to = &c.save_path },
        { .name = "--overflow", .kind = ARG_TEXT, .to = &c.args.overflow },
        { .name = "--template", .kind = ARG_TEXT, .to = &c.args.template_name },
        TURN_ARGS(c.args),
        SESSION_ARGS(c.args),
    };
    const struct arg_table table = { "chat", help, args, sizeof args / sizeof args[0], &c.args.model };
    int status = args_read(&table, argc, argv);

    if (status == ARGS_GO_ON) {
        terminal_open(&c.show.terminal);
        status = run(&c);
        terminal_close(&c.show.terminal);
    }
    glm_session_close(c.session);
    glm_model_close(c.model);
    toolfile_close(c.tools);
    free(c.marks.item);
    free(c.ahead);
    free(c.system_owned);
    free(c.say.item);
    free(c.args.stop.item);
    return status;
}
