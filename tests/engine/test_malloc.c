/* test_malloc.c: the C library's allocator, interposed. With a host's allocator the library calls it for nothing of its own
 * (threads, and zstd where it is used, may); without one, each call of it, theirs included, fails in turn from opening a
 * model to closing it: a status, no crash, no lost block. With an argument n, every n-th call only. Not for builds with
 * sanitizers, which interpose themselves. */
#include "../unit/failing_alloc.h"

#include <errno.h>
#include <stdio.h>

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *ptr, size_t size);
extern void *__libc_memalign(size_t align, size_t size);
extern void __libc_free(void *ptr);

static _Atomic uint64_t n_call, fail_at; /* calls since it was armed; the one that fails, 0: none */
static _Atomic int64_t alive;

static bool fails(void)
{
    uint64_t n = atomic_fetch_add(&n_call, 1) + 1;
    return n == fail_at;
}

static void *counted(void *ptr)
{
    alive += ptr != NULL;
    return ptr;
}

void *malloc(size_t size)
{
    return fails() ? (errno = ENOMEM, NULL) : counted(__libc_malloc(size));
}

void *calloc(size_t n, size_t size)
{
    return fails() ? (errno = ENOMEM, NULL) : counted(__libc_calloc(n, size));
}

void *realloc(void *ptr, size_t size)
{
    if (!ptr)
        return malloc(size);
    return fails() ? (errno = ENOMEM, NULL) : __libc_realloc(ptr, size);
}

void *memalign(size_t align, size_t size);
void *memalign(size_t align, size_t size)
{
    return fails() ? (errno = ENOMEM, NULL) : counted(__libc_memalign(align, size));
}

void *aligned_alloc(size_t align, size_t size)
{
    return memalign(align, size);
}

int posix_memalign(void **ptr, size_t align, size_t size)
{
    *ptr = memalign(align, size);
    return *ptr ? 0 : ENOMEM;
}

void free(void *ptr)
{
    alive -= ptr != NULL;
    __libc_free(ptr);
}

/* A host's allocator over the original. */
static void *GLM_CALL host_take(void *user, size_t size, size_t align)
{
    (void)user;
    return __libc_memalign(align, size);
}

static void GLM_CALL host_give(void *user, void *ptr, size_t size, size_t align)
{
    (void)user, (void)size, (void)align;
    __libc_free(ptr);
}

static const char tools[] =
    "[{\"type\": \"function\", \"function\": {\"name\": \"get_weather\", \"description\": \"weather of a city\", "
    "\"parameters\": {\"type\": \"object\", \"properties\": {\"city\": {\"type\": \"string\"}}, \"required\": [\"city\"]}}}]";
static unsigned n_tool_call;

static int32_t converse(const char *path, const glm_allocator *hook, uint32_t n_threads, glm_error *err)
{
    glm_model_options mo = GLM_MODEL_OPTIONS_INIT;
    glm_turn_options to = GLM_TURN_OPTIONS_INIT;
    glm_event ev = GLM_EVENT_INIT;
    glm_model *m = NULL;
    glm_session *s = NULL;
    int32_t rc;

    mo.allocator = hook;
    mo.n_threads = n_threads;
    to.temperature = 0;
    to.max_tokens = 120;
    rc = glm_model_open(path, &mo, &m, err);
    rc = rc ? rc : glm_session_open(m, NULL, &s, err);
    rc = rc ? rc : glm_session_tools(s, tools, GLM_NTS, err);
    rc = rc ? rc : glm_session_turn(s, &to, err);
    rc = rc ? rc : glm_session_say(s, GLM_ROLE_USER, "What is the weather in Oslo?", GLM_NTS, err);
    while (!rc && ev.type != GLM_EVENT_TURN_END) {
        rc = glm_session_step(s, NULL, &ev, err);
        if (!rc && ev.type == GLM_EVENT_TOOL_CALL) {
            n_tool_call++;
            rc = glm_tool_result(s, ev.call_id, "sunny, 21 degrees", GLM_NTS, err);
        }
    }
    glm_session_close(s);
    glm_model_close(m);
    return rc;
}

/* The library's own memory comes from the hook. One thread: no other is started. */
static int hook_is_used(const char *path)
{
    static const glm_allocator hook = {(uint32_t)sizeof hook, 0, NULL, host_take, host_give};
    glm_error err = GLM_ERROR_INIT;
    uint64_t calls;
    int32_t rc;

    n_call = 0;
    rc = converse(path, &hook, 1, &err);
    calls = n_call;
    if (rc || calls)
        printf("with a host's allocator: status %d, %llu calls of malloc\n", rc, (unsigned long long)calls);
    return rc || calls;
}

static int fail_each(const char *path, uint64_t stride, uint64_t *count)
{
    int n_bad = 0;

    for (uint64_t k = 1;; k += stride) {
        glm_error err = GLM_ERROR_INIT;
        int64_t before = alive;
        uint64_t calls;
        int32_t rc;
        n_call = 0;
        fail_at = k;
        rc = converse(path, NULL, 2, &err);
        fail_at = 0;
        calls = n_call;
        if (alive != before) {
            printf("call %llu: %lld blocks lost\n", (unsigned long long)k, (long long)(alive - before));
            n_bad++;
        }
        if (calls < k)
            return n_bad + (rc != GLM_OK);
        if (rc != GLM_ENOMEM) {
            printf("call %llu: %s (%s)\n", (unsigned long long)k, glm_status_name(rc), err.message);
            n_bad++;
        }
        ++*count;
    }
}

int main(int argc, char **argv)
{
    const char *path = getenv("GLM_TEST_MODEL");
    uint64_t stride = argc > 1 ? strtoull(argv[1], NULL, 10) : 1, count = 0;
    glm_error err = GLM_ERROR_INIT;
    int n_bad;

    printf("\n"); /* stdout has its buffer, and a first thread what the C library keeps of it */
    n_bad = converse(path, NULL, 2, &err) != GLM_OK;
    n_bad += hook_is_used(path);
    n_bad += fail_each(path, stride, &count);
    printf("%llu calls failed in turn, %u tool calls\n", (unsigned long long)count, n_tool_call);
    n_bad += n_tool_call == 0 || count == 0;
    printf("%d passed, %d failed\n", (int)count - n_bad, n_bad);
    return n_bad != 0;
}
