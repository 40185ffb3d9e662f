/* infill.c: `glm45 infill`: the code that belongs at a place in a file, as an editor would ask for it. Public API only. */
#include "args.h"
#include "progress.h"
#include "report.h"
#include "session_args.h"
#include "textfile.h"
#include "tools.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STEP_NS 100000000u   /* between two looks at the progress bar */
#define PREFILL_SHOWN 256u   /* prompts of fewer tokens need no bar */

static const char help[] =
    "usage: glm45 infill MODEL [--file FILE] [options]\n"
    "       glm45 infill MODEL --prefix FILE [--suffix FILE] [options]\n"
    "\n"
    "Writes the code that belongs at a place in a file, and nothing else.\n"
    "\n"
    "  --file FILE           the file, with --marker at the place   [all of stdin]\n"
    "  --marker TEXT         stands once in the file                [<cursor>]\n"
    "  --prefix FILE         what stands before the place, instead of --file\n"
    "  --suffix FILE         what stands behind it                  [nothing]\n"
    "  --context-file FILE   another file of the project that the model gets to see; may come again\n"
    "  --whole               write the whole file, with the code in its place\n"
    "  --stop-lines N        most lines of code\n"
    "  --stop-dedent         the code ends before a line that is indented less than its first one\n"
    TURN_ARGS_HELP
    SESSION_ARGS_HELP
    "\n"
    "example: printf 'def add(a, b):\\n    return <cursor>\\n' | glm45 infill models/nano --temperature 0\n";

struct infilling {
    struct session_args args;
    const char *file, *marker, *prefix_path, *suffix_path;
    struct arg_texts context;
    bool whole;
    glm_model *model;
    glm_session *session;
    char *text, *tail;       /* of --file or --prefix; of --suffix */
    const char *suffix;
    size_t prefix_size, suffix_size;
};

/* Where the one marker stands in the text. EXIT_FINE, or EXIT_FAILED after an error line. */
static int find_place(struct infilling *f, size_t size)
{
    const char *name = f->file ? f->file : "stdin", *at = NULL;
    size_t n = strlen(f->marker), found = 0;

    for (size_t i = 0; n <= size && i <= size - n; i++)
        if (memcmp(f->text + i, f->marker, n) == 0) {
            at = f->text + i;
            found++;
            i += n - 1;
        }
    if (found != 1)
        return report_failed("infill", "%s: \"%s\" stands in it %zu times; it has to mark one place", name, f->marker, found);
    f->prefix_size = (size_t)(at - f->text);
    f->suffix = at + n;
    f->suffix_size = size - f->prefix_size - n;
    return EXIT_FINE;
}

static int read_texts(struct infilling *f)
{
    size_t size = 0;

    f->text = textfile_read("infill", f->prefix_path ? f->prefix_path : f->file, &size);
    if (!f->text)
        return EXIT_FAILED;
    if (!f->prefix_path)
        return find_place(f, size);
    f->prefix_size = size;
    f->suffix = "";
    if (f->suffix_path) {
        f->suffix = f->tail = textfile_read("infill", f->suffix_path, &f->suffix_size);
        if (!f->tail)
            return EXIT_FAILED;
    }
    return EXIT_FINE;
}

static int show_files(struct infilling *f)
{
    for (size_t i = 0; i < f->context.n; i++) {
        glm_error err = GLM_ERROR_INIT;
        size_t size = 0;
        char *text = textfile_read("infill", f->context.item[i], &size);
        int32_t rc;
        if (!text)
            return EXIT_FAILED;
        rc = glm_session_infill_file(f->session, f->context.item[i], text, size, &err);
        free(text);
        if (rc)
            return report_failed("infill", "%s: %s", f->context.item[i], err.message);
    }
    return EXIT_FINE;
}

static int write_code(struct infilling *f)
{
    glm_error err = GLM_ERROR_INIT;
    glm_event ev = GLM_EVENT_INIT;
    glm_step how = GLM_STEP_INIT;
    struct progress p;
    int32_t rc = glm_session_infill(f->session, f->text, f->prefix_size, f->suffix, f->suffix_size, &err);

    how.budget_ns = STEP_NS;
    progress_begin(&p, "reading the prompt");
    while (!rc && ev.type != GLM_EVENT_TURN_END) {
        rc = glm_session_step(f->session, &how, &ev, &err);
        if (rc || ev.type == GLM_EVENT_NONE || ev.type == GLM_EVENT_PREFILL) {
            if (!rc && ev.rows_total >= PREFILL_SHOWN)
                progress_show(&p, (double)ev.rows_done, (double)ev.rows_total, "tokens");
            continue;
        }
        progress_end(&p);
        if (ev.type == GLM_EVENT_TEXT) {
            fwrite(ev.text, 1, ev.text_size, stdout);
            if (report_flush("infill") != EXIT_FINE)
                return EXIT_FAILED;
        }
    }
    progress_end(&p);
    if (rc)
        return report_error("infill", &err);
    if (ev.end_reason == GLM_END_LENGTH)
        report_note("infill", "cut: --max-tokens or the context is used up");
    if (ev.end_reason == GLM_END_TIME)
        report_note("infill", "cut: --max-seconds is used up");
    return EXIT_FINE;
}

static int run(struct infilling *f)
{
    glm_error err = GLM_ERROR_INIT;
    glm_turn_options turn = session_args_turn(&f->args);
    int status;

    if (f->prefix_path && f->file)
        return report_usage("infill", "--prefix and --file exclude one another");
    if (f->suffix_path && !f->prefix_path)
        return report_usage("infill", "--suffix goes with --prefix");
    if (!*f->marker)
        return report_usage("infill", "--marker is empty");
    status = read_texts(f);
    if (status == EXIT_FINE)
        status = session_args_open(&f->args, "infill", &f->model, &f->session);
    if (status != EXIT_FINE)
        return status;
    if (glm_session_turn(f->session, &turn, &err))
        return report_error("infill", &err);
    status = show_files(f);
    if (status != EXIT_FINE)
        return status;
    if (f->whole)
        fwrite(f->text, 1, f->prefix_size, stdout);
    status = write_code(f);
    if (f->whole && status == EXIT_FINE)
        fwrite(f->suffix, 1, f->suffix_size, stdout);
    return status == EXIT_FINE ? report_flush("infill") : status;
}

int infill_main(int argc, char **argv)
{
    struct infilling f = { .marker = "<cursor>" };
    const struct arg args[] = {
        { .name = "--file", .kind = ARG_TEXT, .to = &f.file },
        { .name = "--marker", .kind = ARG_TEXT, .to = &f.marker },
        { .name = "--prefix", .kind = ARG_TEXT, .to = &f.prefix_path },
        { .name = "--suffix", .kind = ARG_TEXT, .to = &f.suffix_path },
        { .name = "--context-file", .kind = ARG_TEXTS, .to = &f.context },
        { .name = "--whole", .kind = ARG_FLAG, .to = &f.whole },
        { .name = "--stop-lines", .kind = ARG_COUNT, .to = &f.args.stop_lines, .most = UINT32_MAX },
        { .name = "--stop-dedent", .kind = ARG_FLAG, .to = &f.args.stop_dedent },
        TURN_ARGS(f.args),
        SESSION_ARGS(f.args),
    };
    const struct arg_table table = { "infill", help, args, sizeof args / sizeof args[0], &f.args.model };
    int status = args_read(&table, argc, argv);

    if (status == ARGS_GO_ON)
        status = run(&f);
    glm_session_close(f.session);
    glm_model_close(f.model);
    free(f.text);
    free(f.tail);
    free(f.context.item);
    free(f.args.stop.item);
    return status;
}
