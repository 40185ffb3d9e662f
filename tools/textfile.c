/* textfile.c: see textfile.h. */
#include "textfile.h"
#include "report.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* NULL: out of memory. */
static char *read_all(FILE *from, size_t *size)
{
    size_t capacity = 1u << 16, n = 0, got;
    char *text = malloc(capacity);

    while (text && (got = fread(text + n, 1, capacity - n - 1, from)) > 0) {
        n += got;
        if (n + 1 == capacity) {
            char *more = realloc(text, capacity * 2);
            if (!more)
                free(text);
            text = more;
            capacity *= 2;
        }
    }
    if (text)
        text[n] = '\0';
    *size = n;
    return text;
}

char *textfile_read(const char *command, const char *path, size_t *size)
{
    FILE *from = path ? fopen(path, "rb") : stdin;
    char *text;

    if (!from) {
        report_failed(command, "%s: %s", path, strerror(errno));
        return NULL;
    }
    text = read_all(from, size);
    if (!text)
        report_failed(command, "out of memory for %s", path ? path : "stdin");
    if (text && ferror(from)) {
        report_failed(command, "%s cannot be read: %s", path ? path : "stdin", strerror(errno));
        free(text);
        text = NULL;
    }
    if (path)
        fclose(from);
    return text;
}
