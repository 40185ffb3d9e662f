/* chat.c: `glm45 chat`: a conversation in the terminal, or with lines from a pipe. A host of the public API like any other:
 * it says messages, steps, prints events and answers calls. What a terminal and a tool's command need is in terminal.c and
 * toolfile.c.
 */
#include "args.h"
#include "progress.h"
#include "report.h"
#include "session_args.h"
#include "terminal.h"
#include "toolfile.h"
#include "tools.h"

#include <stdlib.h>
#include <string.h>

#define STEP_NS 100000000u   /* between two looks at the progress bar */
#define PREFILL_SHOWN 256u   /* prompts of fewer tokens need no bar */
#define RESULT_SHOWN 400u    /* bytes of a tool's result that a person gets to see */

static const char help[] =
    "usage: glm45 chat MODEL [options]\n"
    "\n"
    "A conversation in the terminal. Ctrl-C stops the answer, not the program. Where stdin is no terminal, each line is a\n"
    "message; where stdout is none, only answers are written to it.\n"
    "\n"
    "  --system TEXT         what the model is told before anything else\n"
    "  --say TEXT            a message; may come again. The program ends after the answers\n"
    "  --no-think            no thinking before the answer\n"
    "  --show-thinking       thinking also where stdout is no terminal\n"
    "  --tools FILE          tools that the model may call: an array as chat APIs have it, each with a member \"command\":\n"
    "                        [\"program\", \"argument\"]: arguments come as JSON on its stdin, its stdout is the result\n"
    "  --template 4.5|4.7    the chat template                      [the checkpoint's]\n"
    SESSION_ARGS_HELP
    "\n"
    "In the conversation: /help lists the commands. A line that ends in \\ goes on with the next.\n"
    "\n"
    "example: glm45 chat GLM-4.5-Air-Q4_K_M.gguf --system 'You are terse.'\n";

static const char commands[] =
    "/think on|off     with or without thinking, from the next message on\n"
    "/system TEXT      another system message; begins anew\n"
    "/reset            begins anew\n"
    "/quit             leaves; so does Ctrl-D, or Ctrl-C twice\n"
    "//text            a message that begins with a slash\n";

struct chat {
    struct session_args args;
    const char *system, *tools_path;
    char *system_owned;        /* of /system */
    struct arg_texts say;
    bool no_think, show_thinking;
    struct terminal terminal;
    struct toolfile *tools;
    glm_model *model;
    glm_session *session;
    glm_turn_options turn;
    struct progress progress;
    uint32_t last;             /* type of the event printed last */
    bool fresh_line;           /* of the answer: nothing is on the line yet */
};

/* ---- printing --------------------------------------------------------------------------------------------------------------- */

static FILE *remarks(const struct chat *c) { return c->terminal.out ? stdout : stderr; }

static void put(struct chat *c, FILE *to, enum style style, const char *text, size_t size)
{
    if (size == 0)
        return;
    terminal_style(&c->terminal, to, style);
    terminal_text(&c->terminal, to, text, size);
    terminal_style(&c->terminal, to, STYLE_PLAIN);
    c->fresh_line = text[size - 1] == '\n';
}

static void end_line(struct chat *c, FILE *to)
{
    if (!c->fresh_line)
        fputc('\n', to);
    c->fresh_line = true;
}

/* Thought, answer and calls each begin on a line of their own. */
static void change_kind(struct chat *c, FILE *to, uint32_t type)
{
    if (c->last != type && c->last != GLM_EVENT_NONE) {
        end_line(c, to);
        if (c->terminal.out && type == GLM_EVENT_TEXT)
            fputc('\n', to);
    }
    c->last = type;
}

static void put_result(struct chat *c, const struct tool_answer *a)
{
    size_t n = a->size;
    if (n > RESULT_SHOWN)
        for (n = RESULT_SHOWN; n > 0 && ((unsigned char)a->text[n] & 0xc0) == 0x80;)
            n--;
    put(c, remarks(c), STYLE_TOOL, a->failed ? "  failed: " : "  result: ", 10);
    put(c, remarks(c), STYLE_DIM, a->text, n);
    if (n < a->size) {
        char more[64];
        put(c, remarks(c), STYLE_DIM, more, (size_t)snprintf(more, sizeof more, " ... (%zu bytes)", a->size));
    }
    end_line(c, remarks(c));
}

static void put_end(struct chat *c, const glm_event *ev)
{
    double s = (double)ev->decode_ns * 1e-9;
    uint64_t n = ev->n_think + ev->n_answer;

    if (c->terminal.out || c->last == GLM_EVENT_TEXT)
        end_line(c, stdout);
    terminal_style(&c->terminal, stdout, STYLE_DIM);
    if (ev->end_reason == GLM_END_LENGTH)
        fprintf(remarks(c), "[cut: --max-tokens or the context is used up]\n");
    if (ev->end_reason == GLM_END_CANCELLED)
        fprintf(remarks(c), "[stopped]\n");
    if (c->terminal.out && c->terminal.in)
        fprintf(stdout, "[%llu + %llu tokens, %.1f a second]\n", (unsigned long long)ev->n_prompt, (unsigned long long)n,
            s > 0 ? (double)n / s : 0);
    terminal_style(&c->terminal, stdout, STYLE_PLAIN);
    fflush(stdout);
}

/* ---- a turn ---------------------------------------------------------------------------------------------------------------- */

static void cancel(void *session) { glm_session_cancel(session); }

static int32_t call_tool(struct chat *c, const glm_event *ev, glm_error *err)
{
    struct tool_answer a;
    int32_t rc;

    put(c, remarks(c), STYLE_TOOL, ")\n", 2);
    fflush(remarks(c));
    if (!toolfile_run(c->tools, ev->name, ev->arguments, ev->arguments_size, terminal_interrupted, &a)) {
        err->code = GLM_ENOMEM;
        snprintf(err->message, sizeof err->message, "out of memory for a tool's result");
        return GLM_ENOMEM;
    }
    put_result(c, &a);
    rc = glm_tool_result(c->session, ev->call_id, a.text, a.size, err);
    free(a.text);
    return rc;
}

static int32_t on_event(struct chat *c, const glm_event *ev, glm_error *err)
{
    if (ev->type != GLM_EVENT_NONE && ev->type != GLM_EVENT_PREFILL)
        progress_end(&c->progress);
    switch (ev->type) {
    case GLM_EVENT_NONE:
    case GLM_EVENT_PREFILL:
        if (ev->rows_total >= PREFILL_SHOWN)
            progress_show(&c->progress, (double)ev->rows_done, (double)ev->rows_total, "tokens");
        break;
    case GLM_EVENT_REASONING:
        if (!c->terminal.out && !c->show_thinking)
            break;
        change_kind(c, stdout, ev->type);
        put(c, stdout, STYLE_DIM, ev->text, ev->text_size);
        break;
    case GLM_EVENT_TEXT:
        change_kind(c, stdout, ev->type);
        put(c, stdout, STYLE_PLAIN, ev->text, ev->text_size);
        break;
    case GLM_EVENT_TOOL_CALL_BEGIN:
        change_kind(c, remarks(c), GLM_EVENT_TOOL_CALL);
        end_line(c, remarks(c));
        put(c, remarks(c), STYLE_TOOL, ev->name, ev->name_size);
        put(c, remarks(c), STYLE_TOOL, "(", 1);
        break;
    case GLM_EVENT_TOOL_CALL_DELTA: put(c, remarks(c), STYLE_DIM, ev->text, ev->text_size); break;
    case GLM_EVENT_TOOL_CALL: return call_tool(c, ev, err);
    case GLM_EVENT_TURN_END: put_end(c, ev); break;
    default: break;
    }
    fflush(stdout);
    return GLM_OK;
}

/* Says a message and prints what comes back. EXIT_FINE or, after an error line, EXIT_FAILED. */
static int answer(struct chat *c, const char *text, size_t size)
{
    glm_error err = GLM_ERROR_INIT;
    glm_event ev = GLM_EVENT_INIT;
    glm_step how = GLM_STEP_INIT;
    int32_t rc = glm_session_say(c->session, GLM_ROLE_USER, text, size, &err);

    how.budget_ns = STEP_NS;
    c->last = GLM_EVENT_NONE;
    c->fresh_line = true;
    progress_begin(&c->progress, "reading the prompt");
    if (!rc)
        terminal_on_interrupt(cancel, c->session);
    while (!rc && ev.type != GLM_EVENT_TURN_END) {
        rc = glm_session_step(c->session, &how, &ev, &err);
        if (!rc)
            rc = on_event(c, &ev, &err);
    }
    progress_end(&c->progress);
    terminal_on_interrupt(NULL, NULL);
    if (report_flush("chat") != EXIT_FINE)
        return EXIT_FAILED;
    if (!rc)
        return EXIT_FINE;
    end_line(c, stdout);
    fflush(stdout);
    if (rc == GLM_ECONTEXT && c->terminal.in && c->terminal.out)
        report_note("chat", "the conversation is too long: /reset begins anew");
    return report_error("chat", &err);
}

/* ---- the conversation --------------------------------------------------------------------------------------------------------- */

static int begin(struct chat *c)
{
    glm_error err = GLM_ERROR_INIT;
    int32_t rc = glm_session_messages(c->session, "[]", 2, NULL, &err);

    if (!rc && c->system)
        rc = glm_session_say(c->session, GLM_ROLE_SYSTEM, c->system, GLM_NTS, &err);
    return rc ? report_error("chat", &err) : EXIT_FINE;
}

static int set_thinking(struct chat *c, bool on)
{
    glm_error err = GLM_ERROR_INIT;
    c->turn.thinking = on ? GLM_THINK_ON : GLM_THINK_OFF;
    return glm_session_turn(c->session, &c->turn, &err) ? report_error("chat", &err) : EXIT_FINE;
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
        fputs(commands, remarks(c));
    else if (strcmp(line, "/reset") == 0)
        status = begin(c);
    else if (strcmp(line, "/think on") == 0 || strcmp(line, "/think off") == 0)
        status = set_thinking(c, line[8] == 'n');
    else if (strncmp(line, "/system ", 8) == 0 && line[8])
        status = set_system(c, line + 8);
    else
        status = report_failed("chat", "%s is no command; /help lists them", line);
    return status;
}

static bool is_blank(const char *line) { return line[strspn(line, " \t")] == '\0'; }

/* Lines until the end. A person goes on after an error, a script does not. */
static int converse(struct chat *c)
{
    bool person = c->terminal.in, stopped, asked = false, quit = false;
    int status = EXIT_FINE;

    while (!quit && (status == EXIT_FINE || person)) {
        size_t size;
        char *line;
        terminal_on_interrupt(NULL, NULL);
        line = terminal_line(&c->terminal, "> ", &size, &stopped);
        if (!line && !(stopped && person))
            break;
        if (!line) { /* Ctrl-C */
            if (asked)
                break;
            fputs("\n(Ctrl-C again, Ctrl-D or /quit leaves)\n", remarks(c));
            asked = true;
            continue;
        }
        asked = false;
        if (is_blank(line) && strlen(line) == size)
            continue;
        if (line[0] == '/' && line[1] != '/')
            status = obey(c, line, &quit);
        else
            status = answer(c, line + (line[0] == '/'), size - (line[0] == '/'));
    }
    if (person && c->terminal.out && !quit)
        fputc('\n', stdout);
    return person ? EXIT_FINE : status;
}

static int open_chat(struct chat *c)
{
    glm_error err = GLM_ERROR_INIT;
    size_t size = 0;
    int status;

    if (c->tools_path && toolfile_open(c->tools_path, &c->tools, &err))
        return report_error("chat", &err);
    status = session_args_open(&c->args, "chat", &c->model, &c->session);
    if (status != EXIT_FINE)
        return status;
    if (c->tools) {
        const char *declared = toolfile_declared(c->tools, &size);
        if (glm_session_tools(c->session, declared, size, &err))
            return report_failed("chat", "%s: %s: %s", c->tools_path, err.where, err.message);
    }
    c->turn = session_args_turn(&c->args);
    status = set_thinking(c, !c->no_think);
    return status == EXIT_FINE ? begin(c) : status;
}

static int run(struct chat *c)
{
    int status = open_chat(c);

    if (status != EXIT_FINE)
        return status;
    for (size_t i = 0; i < c->say.n && status == EXIT_FINE; i++)
        status = answer(c, c->say.item[i], strlen(c->say.item[i]));
    if (c->say.n)
        return status;
    if (c->terminal.in && c->terminal.out) {
        terminal_style(&c->terminal, stdout, STYLE_DIM);
        fputs("/help lists the commands, Ctrl-C stops an answer\n", stdout);
        terminal_style(&c->terminal, stdout, STYLE_PLAIN);
    }
    return converse(c);
}

int chat_main(int argc, char **argv)
{
    struct chat c = { .no_think = false };
    const struct arg args[] = {
        { .name = "--system", .kind = ARG_TEXT, .to = &c.system },
        { .name = "--say", .kind = ARG_TEXTS, .to = &c.say },
        { .name = "--no-think", .kind = ARG_FLAG, .to = &c.no_think },
        { .name = "--show-thinking", .kind = ARG_FLAG, .to = &c.show_thinking },
        { .name = "--tools", .kind = ARG_TEXT, .to = &c.tools_path },
        { .name = "--template", .kind = ARG_TEXT, .to = &c.args.template_name },
        SESSION_ARGS(c.args),
    };
    const struct arg_table table = { "chat", help, args, sizeof args / sizeof args[0], &c.args.model };
    int status = args_read(&table, argc, argv);

    if (status == ARGS_GO_ON) {
        terminal_open(&c.terminal);
        status = run(&c);
        terminal_close(&c.terminal);
    }
    glm_session_close(c.session);
    glm_model_close(c.model);
    toolfile_close(c.tools);
    free(c.system_owned);
    free(c.say.item);
    return status;
}
