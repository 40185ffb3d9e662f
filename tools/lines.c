/* lines.c: see lines.h. Lines may be as long as memory holds; a NUL or ill-formed UTF-8 in one is an error of that line. */
#include "lines.h"
#include "report.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void lines_open(struct lines *l, struct mem *m, const char *command)
{
    *l = (struct lines){ .command = command, .mem = m };
    buf_init(&l->out, m);
}

void lines_close(struct lines *l)
{
    free(l->text);
    json_free(&l->doc);
    buf_free(&l->out);
}

int lines_bad(const struct lines *l, const glm_error *err)
{
    return report_failed(l->command, "line %llu: %s%s%s", (unsigned long long)l->number, err->where,
        err->where[0] ? ": " : "", err->message);
}

static bool is_blank(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (text[i] != ' ' && text[i] != '\t' && text[i] != '\r' && text[i] != '\n')
            return false;
    return true;
}

int lines_next(struct lines *l)
{
    glm_error err = GLM_ERROR_INIT;
    ssize_t n;

    json_free(&l->doc);
    buf_clear(&l->out);
    do {
        errno = 0;
        n = getline(&l->text, &l->capacity, stdin);
        if (n < 0 && (ferror(stdin) || errno == ENOMEM))
            return report_failed(l->command, "stdin cannot be read behind line %llu: %s", (unsigned long long)l->number,
                strerror(errno));
        if (n < 0)
            return EXIT_FINE;
        l->number++;
    } while (is_blank(l->text, (size_t)n));
    while (n > 0 && (l->text[n - 1] == '\n' || l->text[n - 1] == '\r'))
        n--;
    l->refused = (glm_error)GLM_ERROR_INIT;
    if (json_parse(l->mem, l->text, (size_t)n, 0, "", &l->doc, &err)) {
        if (l->answers_bad_json && err.code != GLM_ENOMEM) {
            l->refused = err;
            return LINES_GO_ON;
        }
        report_failed(l->command, "line %llu: %s", (unsigned long long)l->number, err.message); /* which names the byte */
        return EXIT_FAILED;
    }
    return LINES_GO_ON;
}

int lines_answer(struct lines *l)
{
    buf_char(&l->out, '\n');
    if (l->out.failed)
        return report_failed(l->command, "line %llu: out of memory for the answer", (unsigned long long)l->number);
    fwrite(l->out.data, 1, l->out.size, stdout);
    return report_flush(l->command) == EXIT_FINE ? LINES_GO_ON : EXIT_FAILED;
}

static const char *type_name(enum json_type type)
{
    switch (type) {
    case JSON_STRING: return "a string";
    case JSON_ARRAY: return "an array";
    case JSON_OBJECT: return "an object";
    case JSON_NUMBER: return "a number";
    case JSON_NULL: return "null";
    default: return "true or false";
    }
}

const struct json *lines_member(const struct lines *l, const char *key, enum json_type type, bool needed, glm_error *err)
{
    const struct json *v = json_get(l->doc.root, key);
    char pointer[64];

    snprintf(pointer, sizeof pointer, "/%s", key);
    if (l->doc.root->type != JSON_OBJECT) {
        err_set(err, GLM_EINVAL, 0, "/", "an object is wanted here, not %s", type_name(l->doc.root->type));
        return NULL;
    }
    if ((!v || v->type == JSON_NULL) && needed)
        err_set(err, GLM_EINVAL, 0, pointer, "%s is wanted here, and missing", type_name(type));
    if (!v || v->type == JSON_NULL)
        return NULL;
    if (v->type == type)
        return v;
    err_set(err, GLM_EINVAL, v->offset, pointer, "%s is wanted here, not %s", type_name(type), type_name(v->type));
    return NULL;
}
