/* failing_alloc.h: a glm_allocator for tests, which fails on demand and checks its user.
 *
 * It counts calls and bytes, fails the k-th allocation (once, or all from the k-th on), fills fresh
 * memory with 0xa5 and released memory with 0x5a, and checks that release gets the size and
 * alignment that alloc was asked for. Safe for several threads. The usual loop over every
 * allocation of an operation:
 *
 *     for (uint64_t k = 1;; k++) {
 *         struct failing_alloc f;
 *         failing_init(&f, k, FAIL_ONCE);
 *         const glm_allocator hook = failing_hook(&f);
 *         int32_t status = operation(&hook);
 *         clean_up();
 *         ck_assert_uint_eq(f.bytes, 0);          nothing leaks
 *         ck_assert_uint_eq(f.n_wrong, 0);        sizes come back
 *         if (!failing_hit(&f))                   fewer than k allocations: done
 *             break;
 *         ck_assert_int_eq(status, GLM_ENOMEM);
 *     }
 */
#ifndef GLM_TESTS_FAILING_ALLOC_H
#define GLM_TESTS_FAILING_ALLOC_H

#include <glm45/glm45.h>

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { FAIL_ONCE = 0, FAIL_FROM_THEN_ON = 1 };

struct failing_alloc {
    uint64_t fail_at; /* 1: the first allocation; 0: none */
    int mode;
    _Atomic uint64_t n_alloc; /* calls, failed ones included */
    _Atomic uint64_t n_failed;
    _Atomic uint64_t bytes;   /* alive */
    _Atomic uint64_t n_wrong; /* releases of another size or alignment than asked for */
};

static inline void failing_init(struct failing_alloc *f, uint64_t fail_at, int mode)
{
    memset(f, 0, sizeof *f);
    f->fail_at = fail_at;
    f->mode = mode;
}

static inline bool failing_hit(const struct failing_alloc *f)
{
    return f->n_failed != 0;
}

/* Size and alignment stand in the 64 bytes before the block. */
static inline void *failing_take(void *user, size_t size, size_t align)
{
    struct failing_alloc *f = user;
    uint64_t n = atomic_fetch_add(&f->n_alloc, 1) + 1;
    size_t room = align < 64 ? 64 : align, total = (size + room + room - 1) / room * room;
    size_t note[2] = {size, align};
    char *block;

    if (f->fail_at && (f->mode == FAIL_ONCE ? n == f->fail_at : n >= f->fail_at)) {
        atomic_fetch_add(&f->n_failed, 1);
        return NULL;
    }
    block = aligned_alloc(room, total);
    if (!block)
        return NULL;
    block += room;
    memcpy(block - sizeof note, note, sizeof note);
    if (size < 1 << 20) /* larger ones stay untouched */
        memset(block, 0xa5, size);
    atomic_fetch_add(&f->bytes, size);
    return block;
}

static inline void failing_release(void *user, void *ptr, size_t size, size_t align)
{
    struct failing_alloc *f = user;
    size_t note[2];

    memcpy(note, (char *)ptr - sizeof note, sizeof note);
    if (note[0] != size || note[1] != align)
        atomic_fetch_add(&f->n_wrong, 1);
    if (note[0] < 1 << 20)
        memset(ptr, 0x5a, note[0]);
    atomic_fetch_sub(&f->bytes, note[0]);
    free((char *)ptr - (note[1] < 64 ? 64 : note[1]));
}

static inline glm_allocator failing_hook(struct failing_alloc *f)
{
    glm_allocator hook = {(uint32_t)sizeof(glm_allocator), 0, f, failing_take, failing_release};
    return hook;
}

#endif
