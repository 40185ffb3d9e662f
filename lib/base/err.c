/* err.c: filling error records, and the small formatter that they and the log share. The C
 * library's printf family is avoided: it reads the locale and may allocate. Owns nothing; every
 * text is built on the stack and copied, so that an argument may point into the record that is
 * being filled. */
#include "base_int.h"

#include <string.h>

struct writer {
    char *to;
    size_t size, capacity; /* capacity without the NUL */
};

static void write_bytes(struct writer *w, const char *bytes, size_t size)
{
    size_t room = w->capacity - w->size;

    if (size > room)
        size = room;
    memcpy(w->to + w->size, bytes, size);
    w->size += size;
}

static void write_number(struct writer *w, uint64_t value, uint32_t radix, bool negative)
{
    char digits[24];
    size_t n = sizeof digits;

    do {
        digits[--n] = "0123456789abcdef"[value % radix];
        value /= radix;
    } while (value);
    if (negative)
        digits[--n] = '-';
    write_bytes(w, digits + n, sizeof digits - n);
}

/* Bytes of text up to its NUL, at most limit: with "%.*s" there need be no NUL. */
static size_t bounded_length(const char *text, size_t limit)
{
    const char *end = memchr(text, 0, limit);
    return end ? (size_t)(end - text) : limit;
}

/* Cuts an unfinished sequence at the end and replaces other ill-formed bytes: file and tensor names
 * come from files. */
static size_t make_valid(char *text, size_t size, bool cut)
{
    size_t at = utf8_valid_prefix(text, size);

    while (at < size) {
        if (cut && size - at < 4 && (unsigned char)text[at] >= 0xc2) {
            size_t i = at + 1;
            while (i < size && ((unsigned char)text[i] & 0xc0) == 0x80)
                i++;
            if (i == size)
                return at;
        }
        text[at++] = '?';
        at += utf8_valid_prefix(text + at, size - at);
    }
    return size;
}

/* A list of variable arguments is passed on by pointer only inside a struct: as an array type it
 * decays otherwise. */
struct arguments {
    va_list list;
};

static void write_integer(
    struct writer *w, struct arguments *args, char conversion, int longs, bool is_size)
{
    uint64_t u;

    if (conversion == 'd') {
        int64_t i;
        if (is_size)
            i = (int64_t)va_arg(args->list, ptrdiff_t);
        else if (longs == 2)
            i = va_arg(args->list, long long);
        else
            i = longs ? va_arg(args->list, long) : va_arg(args->list, int);
        write_number(w, i < 0 ? 0 - (uint64_t)i : (uint64_t)i, 10, i < 0);
        return;
    }
    if (is_size)
        u = va_arg(args->list, size_t);
    else if (longs == 2)
        u = va_arg(args->list, unsigned long long);
    else
        u = longs ? va_arg(args->list, unsigned long) : va_arg(args->list, unsigned);
    write_number(w, u, conversion == 'x' ? 16 : 10, false);
}

static void write_text(struct writer *w, const char *text, size_t limit)
{
    if (!text)
        text = "(null)", limit = limit < 6 ? limit : 6;
    write_bytes(w, text, limit == SIZE_MAX ? strlen(text) : bounded_length(text, limit));
}

/* One conversion, fmt behind its '%'; returns the place behind it, or NULL where it is none of
 * ours. */
static const char *write_conversion(struct writer *w, const char *fmt, struct arguments *args)
{
    size_t limit = SIZE_MAX;
    int longs = 0;
    bool is_size = false;

    if (fmt[0] == '.' && fmt[1] == '*') {
        int n = va_arg(args->list, int);
        limit = n < 0 ? SIZE_MAX : (size_t)n;
        fmt += 2;
    }
    for (; *fmt == 'l'; fmt++)
        longs++;
    if (*fmt == 'z')
        is_size = true, fmt++;
    switch (*fmt) {
    case '%': write_bytes(w, "%", 1); break;
    case 's': write_text(w, va_arg(args->list, const char *), limit); break;
    case 'c': {
        char c = (char)va_arg(args->list, int);
        write_bytes(w, &c, 1);
        break;
    }
    case 'd':
    case 'u':
    case 'x': write_integer(w, args, *fmt, longs, is_size); break;
    default: return NULL;
    }
    return fmt + 1;
}

size_t text_format(char *to, size_t capacity, const char *fmt, va_list args)
{
    struct writer w = {to, 0, capacity - 1};
    struct arguments copy;

    va_copy(copy.list, args);
    while (fmt && *fmt && w.size < w.capacity) {
        size_t plain = strcspn(fmt, "%");
        write_bytes(&w, fmt, plain);
        fmt += plain;
        if (*fmt == '%')
            fmt = write_conversion(&w, fmt + 1, &copy);
    }
    va_end(copy.list);
    w.size = make_valid(to, w.size, w.size == w.capacity);
    to[w.size] = 0;
    return w.size;
}

/* The end of a path or pointer says more than its beginning. */
static void keep_end(char *to, size_t capacity, const char *from)
{
    size_t size = strlen(from), dots = 0;

    if (size >= capacity) {
        from += size - (capacity - 4);
        while (((unsigned char)*from & 0xc0) == 0x80)
            from++;
        size = strlen(from);
        dots = 3;
        memcpy(to, "...", 3);
    }
    memcpy(to + dots, from, size);
    size = make_valid(to, dots + size, false);
    to[size] = 0;
}

int32_t err_set(
    glm_error *err, int32_t code, uint64_t offset, const char *where, const char *fmt, ...)
{
    char message[sizeof err->message], place[sizeof err->where];
    va_list args;

    if (!err)
        return code;
    va_start(args, fmt);
    text_format(message, sizeof message, fmt, args);
    va_end(args);
    keep_end(place, sizeof place, where ? where : "");
    err->code = code;
    err->offset = offset;
    memcpy(err->where, place, strlen(place) + 1);
    memcpy(err->message, message, strlen(message) + 1);
    return code;
}

int32_t err_nomem(glm_error *err, const char *what)
{
    return err_set(err, GLM_ENOMEM, 0, NULL, "out of memory for %s", what);
}

void err_clear(glm_error *err)
{
    if (!err)
        return;
    err->code = 0;
    err->offset = 0;
    err->where[0] = 0;
    err->message[0] = 0;
}
