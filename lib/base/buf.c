/* buf.c: a growing byte string. Owns its data, which moves when it grows, until buf_free. A failed
 * allocation sticks and later writes do nothing, so that callers test once. */
#include "base.h"

#include <string.h>

void buf_init(struct buf *b, struct mem *m)
{
    b->mem = m;
    b->data = NULL;
    b->size = b->capacity = 0;
    b->failed = false;
}

bool buf_reserve(struct buf *b, size_t extra)
{
    size_t need, capacity;
    char *data;

    if (b->failed)
        return false;
    if (extra < b->capacity - b->size) /* the NUL needs one more */
        return true;
    if (extra > PTRDIFF_MAX - b->size - 1)
        goto fail;
    need = b->size + extra + 1;
    capacity = b->capacity < 64                ? 64
               : b->capacity > PTRDIFF_MAX / 2 ? PTRDIFF_MAX
                                               : 2 * b->capacity;
    if (capacity < need)
        capacity = need;
    data = mem_resize(b->mem, b->data, capacity);
    if (!data)
        goto fail;
    data[b->size] = 0;
    b->data = data;
    b->capacity = capacity;
    return true;
fail:
    b->failed = true;
    return false;
}

void buf_put(struct buf *b, const void *bytes, size_t size)
{
    if (!buf_reserve(b, size))
        return;
    if (size)
        memcpy(b->data + b->size, bytes, size);
    b->size += size;
    b->data[b->size] = 0;
}

void buf_str(struct buf *b, const char *text)
{
    buf_put(b, text, strlen(text));
}

void buf_char(struct buf *b, char c)
{
    buf_put(b, &c, 1);
}

void buf_u64(struct buf *b, uint64_t v)
{
    char digits[20];
    size_t n = sizeof digits;

    do {
        digits[--n] = (char)('0' + v % 10);
        v /= 10;
    } while (v);
    buf_put(b, digits + n, sizeof digits - n);
}

void buf_i64(struct buf *b, int64_t v)
{
    if (v < 0)
        buf_char(b, '-');
    buf_u64(b, v < 0 ? 0 - (uint64_t)v : (uint64_t)v);
}

void buf_clear(struct buf *b)
{
    b->size = 0;
    b->failed = false;
    if (b->data)
        b->data[0] = 0;
}

void buf_free(struct buf *b)
{
    mem_free(b->mem, b->data);
    buf_init(b, b->mem);
}
