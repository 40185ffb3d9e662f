/* report.c: see report.h. Writes to stderr only; holds nothing. */
#include "report.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* One line, whatever a file name or an argument brings along: a terminal must not obey it. */
static void put_line(const char *command, bool usage, const char *fmt, va_list args)
{
    const char *space = command ? " " : "", *name = command ? command : "";
    char text[1024];

    vsnprintf(text, sizeof text, fmt, args);
    for (char *p = text; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = '?';
    fprintf(stderr, "glm45%s%s: %s", space, name, text);
    if (usage)
        fprintf(stderr, "; see glm45%s%s --help", space, name);
    fputc('\n', stderr);
}

int report_failed(const char *command, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    put_line(command, false, fmt, args);
    va_end(args);
    return EXIT_FAILED;
}

int report_usage(const char *command, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    put_line(command, true, fmt, args);
    va_end(args);
    return EXIT_USAGE;
}

void report_note(const char *command, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    put_line(command, false, fmt, args);
    va_end(args);
}

int report_error(const char *command, const glm_error *err)
{
    if (err->where[0])
        return report_failed(command, "%s: %s", err->where, err->message);
    return report_failed(command, "%s", err->message);
}

int report_flush(const char *command)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return EXIT_FINE;
    if (errno == EPIPE) /* of the write that failed: nothing since has failed */
        return EXIT_FAILED;
    return report_failed(command, "stdout cannot be written to: %s", strerror(errno));
}
