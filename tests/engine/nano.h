/* nano.h: what tests of many sessions share: the shipped small model, sessions of different kinds, and what each says. */
#ifndef GLM_TESTS_NANO_H
#define GLM_TESTS_NANO_H

#include "host.h"

#define N_KIND 8u

/* A conversation of some kind: short and long prompts, greedy and sampled, one with a tool, one whose thought is cut. */
static inline glm_session *open_kind(glm_model *m, uint32_t kind)
{
    static const char *const questions[N_KIND] = { "What is 23 + 58?", "Hello!", "What is the weather in Oslo?",
        "Write a function that adds two numbers.", "Count from 1 to 9.", NULL, "What is 7 + 5?", NULL };
    glm_session_options so = GLM_SESSION_OPTIONS_INIT;
    glm_turn_options to = GLM_TURN_OPTIONS_INIT;
    glm_error err = GLM_ERROR_INIT;
    glm_session *s = NULL;
    char text[2600] = "Remember these words:";

    kind %= N_KIND;
    so.n_ctx = 2048;
    to.temperature = kind % 2 ? 0.9f : 0.0f;
    to.seed = kind;
    to.max_tokens = 24 + 8 * kind;
    to.thinking = kind == 4 ? GLM_THINK_OFF : kind == 6 ? GLM_THINK_BUDGET : GLM_THINK_ON;
    if (kind == 6) {
        to.think_tokens = 5;
        to.think_close = " Enough of that, I know it.";
    }
    while (!questions[kind] && strlen(text) < (kind == 5 ? 700 : 2500))
        strcat(text, " stone river");
    ck_assert_msg(!glm_session_open(m, &so, &s, &err), "%s", err.message);
    ck_assert_msg(!glm_session_turn(s, &to, &err), "%s", err.message);
    if (kind == 2)
        ck_assert_msg(!glm_session_tools(s, host_weather_tools, GLM_NTS, &err), "%s", err.message);
    ck_assert_msg(!glm_session_say(s, GLM_ROLE_USER, questions[kind] ? questions[kind] : text, GLM_NTS, &err), "%s",
        err.message);
    return s;
}

/* What a session said: everything that its events deliver, in one string. */
struct said {
    char text[8192];
    uint32_t n_event, end_reason;
    uint64_t n_answer, n_think;
    bool ended;
};

/* Calls are answered at once. */
static inline void hear(struct said *a, glm_session *s, const glm_event *ev)
{
    glm_error err = GLM_ERROR_INIT;
    size_t n = strlen(a->text);

    ck_assert_uint_lt(n + ev->text_size + ev->arguments_size + 16, sizeof a->text);
    a->n_event += ev->type != GLM_EVENT_NONE;
    switch (ev->type) {
    case GLM_EVENT_REASONING: snprintf(a->text + n, sizeof a->text - n, "{%s}", ev->text); break;
    case GLM_EVENT_TEXT:
    case GLM_EVENT_TOOL_CALL_DELTA: snprintf(a->text + n, sizeof a->text - n, "%s", ev->text); break;
    case GLM_EVENT_TOOL_CALL:
        snprintf(a->text + n, sizeof a->text - n, "[%s]", ev->arguments);
        ck_assert_msg(!glm_tool_result(s, ev->call_id, "sunny", GLM_NTS, &err), "%s", err.message);
        break;
    case GLM_EVENT_TURN_END:
        a->ended = true;
        a->end_reason = ev->end_reason;
        a->n_answer = ev->n_answer;
        a->n_think = ev->n_think;
        break;
    case GLM_EVENT_ERROR: ck_abort_msg("error event: %s", ev->text); break;
    default: break;
    }
}

static inline void step_to_end(glm_session *s, struct said *a)
{
    glm_event ev = GLM_EVENT_INIT;
    glm_error err = GLM_ERROR_INIT;
    while (!a->ended) {
        ck_assert_msg(!glm_session_step(s, NULL, &ev, &err), "%s", err.message);
        hear(a, s, &ev);
    }
}

/* What each kind says when it steps alone. */
static inline void say_alone(glm_model *m, struct said *alone /* [N_KIND] */)
{
    for (uint32_t k = 0; k < N_KIND; k++) {
        glm_session *s = open_kind(m, k);
        memset(&alone[k], 0, sizeof alone[k]);
        step_to_end(s, &alone[k]);
        glm_session_close(s);
    }
}

static inline void check_same(const struct said *a, const struct said *alone)
{
    ck_assert(a->ended);
    ck_assert_str_eq(a->text, alone->text);
    ck_assert_uint_eq(a->end_reason, alone->end_reason);
    ck_assert_uint_eq(a->n_answer, alone->n_answer);
    ck_assert_uint_eq(a->n_think, alone->n_think);
}

/* Numbers that look random and are the same each time. */
static inline uint32_t dice(uint64_t *state, uint32_t n)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33) % n;
}

static inline int run_suite(Suite *suite)
{
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int n_failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return n_failed != 0;
}

#endif
