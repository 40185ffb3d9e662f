/* test_oom.c: every allocation of a conversation (open a model, chat with a tool call, close), of two sessions in shared
 * passes, and of two that the worker runs, fails in turn, once and from then on. Each failure must be GLM_ENOMEM from some call, leak nothing, and leave the session usable. With an argument
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

/* ---- two sessions together ------------------------------------------------------------------------------------------ */

struct pair {
    glm_session *s[2];
    bool ended[2];
};

static void pair_event(struct pair *p, int i, const glm_event *ev, int32_t *rc)
{
    p->ended[i] |= ev->type == GLM_EVENT_TURN_END || ev->type == GLM_EVENT_ERROR;
    if (ev->type == GLM_EVENT_ERROR && !*rc)
        *rc = ev->status;
}

/* Both to their ends, in shared passes; of a failed session its status. */
static int32_t batch_pair(struct pair *p, glm_error *err)
{
    int32_t failed = GLM_OK, rc = GLM_OK;
    p->ended[0] = p->ended[1] = false;
    while (!rc && !(p->ended[0] && p->ended[1])) {
        glm_event ev[2] = { GLM_EVENT_INIT, GLM_EVENT_INIT }, *at[2];
        glm_session *s[2];
        int index[2], n = 0;
        for (int i = 0; i < 2; i++)
            if (!p->ended[i]) {
                at[n] = &ev[n];
                index[n] = i;
                s[n++] = p->s[i];
            }
        rc = glm_sessions_step(s, (uint32_t)n, NULL, at, err);
        for (int i = 0; i < n && !rc; i++)
            pair_event(p, index[i], &ev[i], &failed);
    }
    return rc ? rc : failed;
}

/* The same by the worker. */
static int32_t work_pair(struct pair *p, glm_error *err)
{
    int32_t failed = GLM_OK;
    for (int i = 0; i < 2; i++) {
        int32_t rc = glm_session_start(p->s[i], err);
        p->ended[i] = rc != GLM_OK;
        failed = failed ? failed : rc;
    }
    while (!(p->ended[0] && p->ended[1]))
        for (int i = 0; i < 2; i++) {
            glm_event ev = GLM_EVENT_INIT;
            if (!p->ended[i] && !glm_session_poll(p->s[i], &ev, err))
                pair_event(p, i, &ev, &failed);
        }
    return failed;
}

/* Once memory is there again both can go on, whatever state they were left in. */
static bool pair_recovers(struct pair *p)
{
    glm_error err = GLM_ERROR_INIT;
    for (int i = 0; i < 2; i++) {
        if (glm_session_say(p->s[i], GLM_ROLE_USER, "Hello!", GLM_NTS, &err) == GLM_ESTATE)
            glm_session_cancel(p->s[i]);
    }
    if (!batch_pair(p, &err))
        return true;
    fprintf(stderr, "after a failure: %s\n", err.message);
    return false;
}

static int32_t together(const char *path, struct failing_alloc *failing, int32_t (*run)(struct pair *, glm_error *),
    glm_error *err)
{
    const glm_allocator hook = failing_hook(failing);
    const uint64_t k = failing->fail_at;
    glm_model_options mo = GLM_MODEL_OPTIONS_INIT;
    glm_turn_options to = GLM_TURN_OPTIONS_INIT;
    glm_model *m = NULL;
    struct pair p = { { NULL, NULL }, { false, false } };
    int32_t rc;

    mo.allocator = &hook;
    mo.n_threads = 2;
    to.temperature = 0;
    to.max_tokens = 20;
    failing->fail_at = 0; /* opening has its own turn */
    rc = glm_model_open(path, &mo, &m, err);
    for (int i = 0; i < 2 && !rc; i++) {
        rc = glm_session_open(m, NULL, &p.s[i], err);
        if (!rc)
            rc = glm_session_turn(p.s[i], &to, err);
        if (!rc)
            rc = say(p.s[i], i ? "Hello!" : "What is 23 + 58?", err);
    }
    failing->fail_at = failing->n_alloc + k;
    if (!rc) {
        rc = run(&p, err);
        failing->fail_at = 0;
        if (rc && !pair_recovers(&p))
            rc = GLM_ESTATE;
        n_turn += 2 * !rc;
    }
    glm_session_close(p.s[0]);
    glm_session_close(p.s[1]);
    glm_model_close(m);
    return rc;
}

static int32_t batch(const char *path, struct failing_alloc *failing, glm_error *err)
{
    return together(path, failing, batch_pair, err);
}

static int32_t worker(const char *path, struct failing_alloc *failing, glm_error *err)
{
    return together(path, failing, work_pair, err);
}

/* ---- every allocation --------------------------------------------------------------------------------------------------- */

typedef int32_t scenario(const char *path, struct failing_alloc *failing, glm_error *err);

static int fail_each(const char *path, scenario *run, int mode, uint64_t stride, uint64_t *count)
{
    int n_bad = 0;
    for (uint64_t k = 1;; k += stride) {
        struct failing_alloc f;
        glm_error err = GLM_ERROR_INIT;
        int32_t rc;
        failing_init(&f, k, mode);
        rc = run(path, &f, &err);
        if (f.bytes != 0 || f.n_wrong != 0) {
            printf("allocation %llu: %llu bytes leaked, %llu wrong releases\n", (unsigned long long)k,
                (unsigned long long)f.bytes, (unsigned long long)f.n_wrong);
            n_bad++;
        }
        if (!failing_hit(&f))
            return n_bad + (rc != GLM_OK);
        if (rc != GLM_ENOMEM && !(rc == GLM_OK && run == worker)) { /* the worker can do without some */
            printf("scenario %d, allocation %llu: status %s (%s)\n", run == batch ? 1 : run == worker ? 2 : 0,
                (unsigned long long)k, glm_status_name(rc), err.message);
            n_bad++;
        }
        ++*count;
    }
}

int main(int argc, char **argv)
{
    static scenario *const scenarios[] = { converse, batch, worker };
    const char *path = getenv("GLM_TEST_MODEL");
    uint64_t stride = argc > 1 ? strtoull(argv[1], NULL, 10) : 1, count = 0;
    int n_bad = 0;

    for (size_t i = 0; i < sizeof scenarios / sizeof *scenarios; i++) {
        n_bad += fail_each(path, scenarios[i], FAIL_ONCE, stride, &count);
        n_bad += fail_each(path, scenarios[i], FAIL_FROM_THEN_ON, stride, &count);
    }
    printf("%llu allocations failed in turn, %u whole turns, %u tool calls\n", (unsigned long long)count, n_turn, n_call);
    if (n_call == 0) {
        printf("the model never called its tool: the test shows less than it says\n");
        n_bad++;
    }
    printf("%d passed, %d failed\n", (int)count - n_bad, n_bad);
    return n_bad != 0;
}
