/* arena.c: many small objects that die together. Owns a list of chunks taken from a struct mem;
 * objects are cut from the top chunk and live until arena_free. */
#include "base.h"

#include <string.h>

enum { CHUNK_FIRST = 4096, CHUNK_LAST = 1 << 20 };

struct arena_chunk {
    struct arena_chunk *next;
    size_t size, used; /* of the bytes from the chunk's own start */
};

void arena_init(struct arena *a, struct mem *m)
{
    a->mem = m;
    a->top = NULL;
}

/* Where an object would start in the chunk; SIZE_MAX where it does not fit. */
static size_t place_in(const struct arena_chunk *c, size_t size, size_t align)
{
    size_t base = (size_t)(uintptr_t)c, at = ((base + c->used + align - 1) & ~(align - 1)) - base;
    return at <= c->size && size <= c->size - at ? at : SIZE_MAX;
}

static struct arena_chunk *add_chunk(struct arena *a, size_t need)
{
    size_t size = a->top ? a->top->size : CHUNK_FIRST / 2;
    struct arena_chunk *c;
    bool own = need > CHUNK_LAST / 4;

    size = size >= CHUNK_LAST / 2 ? CHUNK_LAST : 2 * size;
    if (own || size < need)
        size = need;
    c = mem_alloc(a->mem, size);
    if (!c)
        return NULL;
    c->size = size;
    c->used = sizeof *c;
    if (own &&
        a->top) { /* a large object goes below the top, which still has room for small ones */
        c->next = a->top->next;
        a->top->next = c;
    } else {
        c->next = a->top;
        a->top = c;
    }
    return c;
}

void *arena_alloc(struct arena *a, size_t size, size_t align)
{
    struct arena_chunk *c = a->top;
    size_t at = c ? place_in(c, size, align) : SIZE_MAX;

    if (at == SIZE_MAX) {
        if (size > PTRDIFF_MAX - sizeof *c - 2 * align)
            return NULL;
        c = add_chunk(a, size + sizeof *c + align);
        if (!c)
            return NULL;
        at = place_in(c, size, align);
    }
    c->used = at + size;
    return (char *)c + at;
}

char *arena_copy(struct arena *a, const void *bytes, size_t size)
{
    char *copy = size < SIZE_MAX ? arena_alloc(a, size + 1, 1) : NULL;

    if (!copy)
        return NULL;
    if (size)
        memcpy(copy, bytes, size);
    copy[size] = 0;
    return copy;
}

void arena_free(struct arena *a)
{
    struct arena_chunk *c = a->top;

    while (c) {
        struct arena_chunk *next = c->next;
        mem_free(a->mem, c);
        c = next;
    }
    a->top = NULL;
}
