/* glm45.c: the command-line program: finds the command that its first argument names and hands over to it. */
#include "report.h"
#include "tools.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

static const struct command {
    const char *name, *what;
    int (*run)(int argc, char **argv);
} commands[] = {
    { "chat", "talk with a model in the terminal", chat_main },
    { "complete", "go on with a text", complete_main },
    { "infill", "write the code that belongs at a place in a file", infill_main },
    { "inspect", "show what a checkpoint holds and the memory it needs", inspect_main },
    { "synth", "write a checkpoint of random weights, for tests and benchmarks", synth_main },
    { "bench", "measure prefill and decode rates", bench_main },
    { "tokenize", "texts to token ids, for scripts", tokenize_main },
    { "render", "conversations to prompts, for scripts", render_main },
    { "parse", "a model's output to reasoning, content and tool calls, for scripts", parse_main },
    { "constrain", "texts through a JSON schema, pattern or tool grammar, for scripts", constrain_main },
    { "logits", "token ids to logits, for scripts", logits_main },
};
#define N_COMMAND (sizeof commands / sizeof commands[0])

static void put_help(FILE *to)
{
    fputs("usage: glm45 COMMAND ...\n\n"
          "Runs GLM-4.5 family language models.\n\n", to);
    for (size_t i = 0; i < N_COMMAND; i++)
        fprintf(to, "  %-9s  %s\n", commands[i].name, commands[i].what);
    fputs("\n  glm45 COMMAND --help   the command's arguments\n"
          "  glm45 --version\n\n"
          "MODEL, in all commands, is a Hugging Face folder or a GGUF file (the first of its splits).\n"
          "Exit status: 0 fine, 1 failed, 2 wrongly called.\n", to);
}

static int put_version(void)
{
    uint32_t v = glm_version();
    printf("glm45 %u.%u.%u\n", v / 10000, v / 100 % 100, v % 100);
    return report_flush(NULL);
}

static const struct command *find(const char *name)
{
    for (size_t i = 0; i < N_COMMAND; i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

/* `glm45 help COMMAND` is `glm45 COMMAND --help`. */
static int help_main(int argc, char **argv)
{
    const struct command *c = argc > 1 ? find(argv[1]) : NULL;
    char option[] = "--help", *call[] = { argc > 1 ? argv[1] : NULL, option, NULL };

    if (c)
        return c->run(2, call);
    if (argc > 1)
        return report_usage(NULL, "\"%s\" is no command", argv[1]);
    put_help(stdout);
    return report_flush(NULL);
}

int main(int argc, char **argv)
{
    const struct command *c;

    signal(SIGPIPE, SIG_IGN); /* a reader that goes away is a failed write, not a death */
    if (argc < 2) {
        put_help(stderr);
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0)
        return help_main(argc - 1, argv + 1);
    if (strcmp(argv[1], "--version") == 0)
        return put_version();
    c = find(argv[1]);
    if (!c)
        return report_usage(NULL, "\"%s\" is no command", argv[1]);
    return c->run(argc - 1, argv + 1);
}
