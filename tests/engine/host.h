/* host.h: what the tests of the public API have in common: a model, sessions, and turns run to their end. */
#ifndef GLM_TEST_HOST_H
#define GLM_TEST_HOST_H

#include <glm45/glm45.h>

#include <check.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OK(call) ck_assert_msg((call) == GLM_OK, "%s: %s: %s", #call, err.where, err.message)

static inline glm_model *host_model_threads(uint32_t n_threads)
{
    glm_model_options o = GLM_MODEL_OPTIONS_INIT;
    glm_error err = GLM_ERROR_INIT;
    glm_model *m = NULL;
    o.n_threads = n_threads;
    if (getenv("GLM_TEST_EXPERT_CACHE")) /* the same tests with as few experts in memory as can be */
        o.expert_cache_bytes = strtoull(getenv("GLM_TEST_EXPERT_CACHE"), NULL, 10);
    OK(glm_model_open(getenv("GLM_TEST_MODEL"), &o, &m, &err));
    return m;
}

static inline glm_model *host_model(void) { return host_model_threads(0); }

static inline glm_session *host_session(glm_model *m, uint32_t n_ctx, uint32_t overflow)
{
    glm_session_options o = GLM_SESSION_OPTIONS_INIT;
    glm_error err = GLM_ERROR_INIT;
    glm_session *s = NULL;
    o.n_ctx = n_ctx;
    o.overflow = overflow;
    OK(glm_session_open(m, &o, &s, &err));
    return s;
}

static inline void host_turn(glm_session *s, uint32_t thinking, uint32_t max_tokens, float temperature, uint64_t seed)
{
    glm_turn_options o = GLM_TURN_OPTIONS_INIT;
    glm_error err = GLM_ERROR_INIT;
    o.thinking = thinking;
    o.max_tokens = max_tokens;
    o.temperature = temperature;
    o.seed = seed;
    OK(glm_session_turn(s, &o, &err));
}

static inline void host_say(glm_session *s, const char *text)
{
    glm_error err = GLM_ERROR_INIT;
    OK(glm_session_say(s, GLM_ROLE_USER, text, GLM_NTS, &err));
}

/* Everything that a turn delivered. */
struct host_answer {
    char text[8192], reasoning[8192], arguments[4096];
    uint64_t call_id;
    unsigned n_none, n_call, n_event;
    glm_event end;
};

static inline void host_append(char *to, size_t room, const char *text, size_t size)
{
    ck_assert_uint_lt(strlen(to) + size, room);
    ck_assert(text[size] == '\0');
    if (memchr(text, 0, size)) /* a model may say it */
        return;
    strcat(to, text);
}

static inline void host_take(struct host_answer *a, const glm_event *ev)
{
    a->n_event++;
    a->n_none += ev->type == GLM_EVENT_NONE;
    if (ev->type == GLM_EVENT_TEXT)
        host_append(a->text, sizeof a->text, ev->text, ev->text_size);
    if (ev->type == GLM_EVENT_REASONING)
        host_append(a->reasoning, sizeof a->reasoning, ev->text, ev->text_size);
    if (ev->type == GLM_EVENT_TOOL_CALL) {
        a->n_call++;
        a->call_id = ev->call_id;
        host_append(a->arguments, sizeof a->arguments, ev->arguments, ev->arguments_size);
    }
    a->end = *ev;
}

/* The turn to its end; calls get `result`, or none where it is NULL. */
static inline void host_finish(glm_session *s, uint64_t budget_ns, const char *result, struct host_answer *a)
{
    glm_step how = GLM_STEP_INIT;
    glm_event ev = GLM_EVENT_INIT;
    glm_error err = GLM_ERROR_INIT;

    memset(a, 0, sizeof *a);
    how.budget_ns = budget_ns;
    while (ev.type != GLM_EVENT_TURN_END) {
        OK(glm_session_step(s, &how, &ev, &err));
        host_take(a, &ev);
        if (ev.type == GLM_EVENT_TOOL_CALL && result)
            OK(glm_tool_result(s, ev.call_id, result, GLM_NTS, &err));
    }
}

static const char host_weather_tools[] =
    "[{\"type\": \"function\", \"function\": {\"name\": \"get_weather\", \"description\": \"weather of a city\", "
    "\"parameters\": {\"type\": \"object\", \"properties\": {\"city\": {\"type\": \"string\"}}, \"required\": "
    "[\"city\"]}}}]";

#endif
