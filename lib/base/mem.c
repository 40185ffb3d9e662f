/* mem.c: every allocation of a model goes through here to the host's hook. Before each block stands
 * a 64-byte header with its size, so that the hook's release gets what its alloc was asked for. The
 * default hook is the only place in the library that calls the C library's allocator. A block lives
 * until mem_free. */
#include "base.h"

#include <stdlib.h>
#include <string.h>

enum { MEM_ALIGN = 64 };

struct mem_header {
    size_t size;     /* as asked for */
    size_t capacity; /* of the block behind the header; the hook gave MEM_ALIGN more */
    char fill[MEM_ALIGN - 2 * sizeof(size_t)];
};
_Static_assert(
    sizeof(struct mem_header) == MEM_ALIGN, "the block behind the header must be aligned");

/* Large blocks come from mmap untouched: a model may reserve more than it will use. */
static void *GLM_CALL default_alloc(void *user, size_t size, size_t align)
{
    void *ptr = NULL;

    (void)user;
    return posix_memalign(&ptr, align, size) ? NULL : ptr;
}

static void GLM_CALL default_release(void *user, void *ptr, size_t size, size_t align)
{
    (void)user;
    (void)size;
    (void)align;
    free(ptr);
}

static struct mem_header *header_of(const void *ptr)
{
    return (struct mem_header *)(uintptr_t)ptr - 1;
}

static void count_up(struct mem *m, uint64_t n)
{
    uint64_t used = atomic_fetch_add_explicit(&m->used, n, memory_order_relaxed) + n;
    uint64_t peak = atomic_load_explicit(&m->peak, memory_order_relaxed);

    while (used > peak && !atomic_compare_exchange_weak_explicit(
                              &m->peak, &peak, used, memory_order_relaxed, memory_order_relaxed))
        ;
}

void mem_init(struct mem *m, const glm_allocator *hook)
{
    static const glm_allocator standard = {
        (uint32_t)sizeof(glm_allocator), 0, NULL, default_alloc, default_release};

    m->hook = hook ? *hook : standard;
    atomic_init(&m->used, 0);
    atomic_init(&m->peak, 0);
}

void *mem_alloc(struct mem *m, size_t size)
{
    struct mem_header *h;

    if (size > PTRDIFF_MAX - MEM_ALIGN)
        return NULL;
    h = m->hook.alloc(m->hook.user, size + MEM_ALIGN, MEM_ALIGN);
    if (!h)
        return NULL;
    if ((uintptr_t)h %
        MEM_ALIGN) { /* a hook that breaks its word must not become a fault in a kernel */
        m->hook.release(m->hook.user, h, size + MEM_ALIGN, MEM_ALIGN);
        return NULL;
    }
    h->size = size;
    h->capacity = size;
    count_up(m, (uint64_t)size + MEM_ALIGN);
    return h + 1;
}

/* Touches every page: what is large and mostly unused should come from mem_alloc. */
void *mem_zalloc(struct mem *m, size_t size)
{
    void *ptr = mem_alloc(m, size);

    if (ptr)
        memset(ptr, 0, size);
    return ptr;
}

void *mem_array(struct mem *m, size_t n, size_t size)
{
    size_t total;
    return __builtin_mul_overflow(n, size, &total) ? NULL : mem_alloc(m, total);
}

void *mem_zarray(struct mem *m, size_t n, size_t size)
{
    size_t total;
    return __builtin_mul_overflow(n, size, &total) ? NULL : mem_zalloc(m, total);
}

void *mem_resize(struct mem *m, void *ptr, size_t size)
{
    struct mem_header *h;
    void *copy;

    if (!ptr)
        return mem_alloc(m, size);
    h = header_of(ptr);
    if (size <= h->capacity && size >= h->capacity / 2) {
        h->size = size;
        return ptr;
    }
    copy = mem_alloc(m, size);
    if (!copy)
        return NULL;
    memcpy(copy, ptr, size < h->size ? size : h->size);
    mem_free(m, ptr);
    return copy;
}

void mem_free(struct mem *m, void *ptr)
{
    size_t total;

    if (!ptr)
        return;
    total = header_of(ptr)->capacity + MEM_ALIGN;
    atomic_fetch_sub_explicit(&m->used, total, memory_order_relaxed);
    m->hook.release(m->hook.user, header_of(ptr), total, MEM_ALIGN);
}

size_t mem_size(const void *ptr)
{
    return header_of(ptr)->size;
}
