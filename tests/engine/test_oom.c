/* test_oom.c: every allocation of a conversation (open a model, chat with a tool call, close) fails in turn, once and from
 * then on. Each failure must be GLM_ENOMEM from some call, leak nothing, and leave the session usable. With an argument
 * n, every n-th allocation only: the quick suite takes a sample, the full suite all. */
#include "../unit/failing_alloc.h"

#include <stdio.h>
#include <stdlib.h>

static const char tools[] =
    "[{\"type\": \"function\", \"function\": {\"name\": \"get_weather\", \"description\": \"weather of a city\", "
    "\"parameters\": {\"type\": \"object\", \"properties\": {\"city\": {\"type\": \"string\"}}, \"required\": "
    "[\"city\"]}}}]";

static unsigned n_call, n_turn;

/* One turn to its end. A failure is given back at once. */
static int32_t run_turn(glm_session *s, glm_error *err)
{
    glm_event ev = GLM_EVENT_INIT;
    int32_t rc = GLM_OK;
    while (!rc && ev.type != GLM_EVENT_TURN_END) {
        rc = glm_session_step(s, NULL, &ev, err);
        if (!rc && ev.type == GLM_EVENT_TOOL_CALL) {
            n_call++;
            rc = glm_tool_result(s, ev.call_id, "sunny, 21 degrees", GLM_NTS, err);
        }
    }
    n_turn += !rc;
    return rc;
}

static int32_t say(glm_session *s, const char *text, glm_error *err)
{
    return glm_session_say(s, GLM_ROLE_USER, text, GLM_NTS, err);
}

/* A session whose turn failed must be able to try again once memory is there; `failing` is switched off for that. */
static int32_t converse(const char *path, struct failing_alloc *failing, glm_error *err)
{
    const glm_allocator hook = failing_hook(failing);
    glm_model_options mo = GLM_MODEL_OPTIONS_INIT;
    glm_turn_options to = GLM_TURN_OPTIONS_INIT;
    glm_model *m = NULL;
    glm_session *s = NULL;
    int32_t rc;

    mo.allocator = &hook;
    mo.n_threads = 2;
    to.temperature = 0;
    to.max_tokens = 120;
    rc = glm_model_open(path, &mo, &m, err);
    if (!rc)
        rc = glm_session_open(m, NULL, &s, err);
    if (!rc)
        rc = glm_session_tools(s, tools, GLM_NTS, err);
    if (!rc)
        rc = glm_session_turn(s, &to, err);
    if (!rc)
        rc = say(s, "What is the weather in Oslo?", err);
    if (!rc) {
        rc = run_turn(s, err);
        if (rc) { /* the session survives */
            glm_error again = GLM_ERROR_INIT;
            failing->fail_at = 0;
            if (glm_session_say(s, GLM_ROLE_USER, "Hello!", GLM_NTS, &again) == GLM_ESTATE) {
                glm_session_cancel(s);
                if (run_turn(s, &again))
                    rc = GLM_ESTATE;
            } else if (run_turn(s, &again)) {
                fprintf(stderr, "after a failure: %s\n", again.message);
                rc = GLM_ESTATE;
            }
        }
    }
    glm_session_close(s);
    glm_model_close(m);
    return rc;
}

static int fail_each(const char *path, int mode, uint64_t stride, uint64_t *count)
{
    int n_bad = 0;
    for (uint64_t k = 1;; k += stride) {
        struct failing_alloc f;
        glm_error err = GLM_ERROR_INIT;
        int32_t rc;
        failing_init(&f, k, mode);
        rc = converse(path, &f, &err);
        if (f.bytes != 0 || f.n_wrong != 0) {
            printf("allocation %llu: %llu bytes leaked, %llu wrong releases\n", (unsigned long long)k,
                (unsigned long long)f.bytes, (unsigned long long)f.n_wrong);
            n_bad++;
        }
        if (!failing_hit(&f))
            return n_bad + (rc != GLM_OK);
        if (rc != GLM_ENOMEM) {
            printf("allocation %llu: status %s (%s)\n", (unsigned long long)k, glm_status_name(rc), err.message);
            n_bad++;
        }
        ++*count;
    }
}

int main(int argc, char **argv)
{
    const char *path = getenv("GLM_TEST_MODEL");
    uint64_t stride = argc > 1 ? strtoull(argv[1], NULL, 10) : 1, count = 0;
    int n_bad = 0;

    n_bad += fail_each(path, FAIL_ONCE, stride, &count);
    n_bad += fail_each(path, FAIL_FROM_THEN_ON, stride, &count);
    printf("%llu allocations failed in turn, %u whole turns, %u tool calls\n", (unsigned long long)count, n_turn, n_call);
    if (n_call == 0) {
        printf("the model never called its tool: the test shows less than it says\n");
        n_bad++;
    }
    printf("%d passed, %d failed\n", (int)count - n_bad, n_bad);
    return n_bad != 0;
}
