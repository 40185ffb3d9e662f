/* args.c: see args.h. Options are --name VALUE or --name=VALUE; "--" ends them. Texts point into argv. */
#include "args.h"
#include "report.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct arg *find(const struct arg_table *t, const char *text, const char **value)
{
    const char *equals = strchr(text, '=');
    size_t size = equals ? (size_t)(equals - text) : strlen(text);

    for (size_t i = 0; i < t->n; i++) {
        const struct arg *a = &t->args[i];
        if (a->letter && strcmp(a->letter, text) == 0)
            return a;
        if (strlen(a->name) == size && memcmp(a->name, text, size) == 0) {
            *value = equals ? equals + 1 : NULL;
            return a;
        }
    }
    return NULL;
}

static bool read_count(const char *text, size_t size, uint64_t *out)
{
    uint64_t v = 0;
    if (size == 0 || size > 20)
        return false;
    for (size_t i = 0; i < size; i++)
        if (text[i] < '0' || text[i] > '9' || __builtin_mul_overflow(v, 10u, &v) ||
            __builtin_add_overflow(v, (uint64_t)(text[i] - '0'), &v))
            return false;
    *out = v;
    return true;
}

static bool read_bytes(const char *text, uint64_t *out)
{
    size_t size = strlen(text);
    static const char units[] = "KMGT";
    const char *unit = size ? strchr(units, text[size - 1]) : NULL;
    uint32_t shift = unit ? 10 * (uint32_t)(unit - units + 1) : 0;

    return read_count(text, size - (unit != NULL), out) && *out <= UINT64_MAX >> shift && (*out <<= shift, true);
}

static int out_of_range(const struct arg_table *t, const struct arg *a, const char *value)
{
    if (a->most == UINT64_MAX)
        return report_usage(t->command, "%s: \"%s\" is no whole number of at least %llu", a->name, value,
            (unsigned long long)a->least);
    return report_usage(t->command, "%s: \"%s\" is no whole number from %llu to %llu", a->name, value,
        (unsigned long long)a->least, (unsigned long long)a->most);
}

static int set_counts(const struct arg_table *t, const struct arg *a, const char *value)
{
    struct arg_counts *list = a->to;
    list->n = 0;
    for (const char *p = value;; p++) {
        size_t size = strcspn(p, ",");
        uint64_t v;
        if (list->n == ARG_COUNTS_MAX)
            return report_usage(t->command, "%s: at most %d numbers", a->name, ARG_COUNTS_MAX);
        if (!read_count(p, size, &v) || v < a->least || v > a->most)
            return out_of_range(t, a, value);
        list->item[list->n++] = v;
        p += size;
        if (!*p)
            return ARGS_GO_ON;
    }
}

static int set_number(const struct arg_table *t, const struct arg *a, const char *value)
{
    char *end;
    double v = strtod(value, &end);
    if (end == value || *end || !(v >= a->low && v <= a->high))
        return report_usage(t->command, "%s: \"%s\" is no number from %g to %g", a->name, value, a->low, a->high);
    *(double *)a->to = v;
    return ARGS_GO_ON;
}

static int add_text(const struct arg_table *t, const struct arg *a, const char *value)
{
    struct arg_texts *list = a->to;
    const char **item = realloc(list->item, (list->n + 1) * sizeof *item);
    if (!item)
        return report_failed(t->command, "out of memory");
    list->item = item;
    list->item[list->n++] = value;
    return ARGS_GO_ON;
}

static int set(const struct arg_table *t, const struct arg *a, const char *value)
{
    uint64_t v;
    if (a->given)
        *a->given = true;
    switch (a->kind) {
    case ARG_FLAG: *(bool *)a->to = true; return ARGS_GO_ON;
    case ARG_TEXT: *(const char **)a->to = value; return ARGS_GO_ON;
    case ARG_COUNT:
        if (!read_count(value, strlen(value), &v) || v < a->least || v > a->most)
            return out_of_range(t, a, value);
        *(uint64_t *)a->to = v;
        return ARGS_GO_ON;
    case ARG_BYTES:
        if (!read_bytes(value, &v) || v < a->least || v > a->most)
            return report_usage(t->command, "%s: \"%s\" is no number of bytes, such as 2000000000 or 2G", a->name, value);
        *(uint64_t *)a->to = v;
        return ARGS_GO_ON;
    case ARG_NUMBER: return set_number(t, a, value);
    case ARG_TEXTS: return add_text(t, a, value);
    case ARG_COUNTS: return set_counts(t, a, value);
    }
    return ARGS_GO_ON;
}

static int read_model(const struct arg_table *t, const char *text)
{
    if (!t->model)
        return report_usage(t->command, "\"%s\" is one argument too many", text);
    if (*t->model)
        return report_usage(t->command, "\"%s\" is one argument too many: MODEL is %s", text, *t->model);
    *t->model = text;
    return ARGS_GO_ON;
}

int args_read(const struct arg_table *t, int argc, char **argv)
{
    bool options = true;
    int status = ARGS_GO_ON;

    for (int i = 1; i < argc; i++) /* first: whoever asks for help has not got the rest right yet */
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            fputs(t->help, stdout);
            return report_flush(t->command);
        }
    for (int i = 1; i < argc && status == ARGS_GO_ON; i++) {
        const char *value = NULL;
        const struct arg *a;
        if (!options || argv[i][0] != '-' || !argv[i][1]) {
            status = read_model(t, argv[i]);
            continue;
        }
        if (strcmp(argv[i], "--") == 0) {
            options = false;
            continue;
        }
        a = find(t, argv[i], &value);
        if (!a)
            return report_usage(t->command, "%s: no such option", argv[i]);
        if (a->kind == ARG_FLAG && value)
            return report_usage(t->command, "%s takes no value", a->name);
        if (a->kind != ARG_FLAG && !value) {
            if (i + 1 == argc)
                return report_usage(t->command, "%s: a value must follow", a->name);
            value = argv[++i];
        }
        status = set(t, a, value);
    }
    if (status == ARGS_GO_ON && t->model && !*t->model)
        return report_usage(t->command, "MODEL is missing");
    return status;
}
