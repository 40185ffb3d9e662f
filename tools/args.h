/* args.h: the arguments of a command, by a table. Every command takes options and one MODEL. */
#ifndef GLM_TOOLS_ARGS_H
#define GLM_TOOLS_ARGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum arg_kind {
    ARG_FLAG,   /* bool */
    ARG_TEXT,   /* const char * */
    ARG_COUNT,  /* uint64_t, least to most */
    ARG_BYTES,  /* uint64_t, least to most: a count, or one with K, M, G or T behind it, of 1024 each */
    ARG_NUMBER, /* double, low to high */
    ARG_TEXTS,  /* struct arg_texts: the option may come again */
    ARG_COUNTS  /* struct arg_counts: 128,8192 */
};

struct arg_texts { /* item is released with free() */
    const char **item;
    size_t n;
};

#define ARG_COUNTS_MAX 16
struct arg_counts {
    uint64_t item[ARG_COUNTS_MAX];
    size_t n;
};

struct arg {
    const char *name;   /* "--out" */
    const char *letter; /* "-o", or NULL */
    enum arg_kind kind;
    void *to;
    uint64_t least, most;
    double low, high;
    bool *given;        /* set where the option came; or NULL */
};

struct arg_table {
    const char *command, *help;
    const struct arg *args;
    size_t n;
    const char **model; /* the one argument that is no option; it must come. NULL: none */
};

#define ARGS_GO_ON (-1)
/* Reads argv[1] and on. ARGS_GO_ON, or the status to exit with: after --help, or after an error line. */
int args_read(const struct arg_table *table, int argc, char **argv);

#endif
