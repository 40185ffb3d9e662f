/* test_steer.c: what a conversation keeps in the cache, forks, marks, and old turns let go; through the public API. */
#include "host.h"

static glm_model *model;
static struct host_answer a, b;

static void open_model(void) { model = host_model(); }
static void close_model(void) { glm_model_close(model); }

static glm_session *quiet(void) /* without thinking, so that a template changes nothing of the past */
{
    glm_session *s = host_session(model, 0, 0);
    host_turn(s, GLM_THINK_OFF, 100, 0, 0);
    return s;
}

/* ---- what is not computed again -------------------------------------------------------------------------------- */

START_TEST(a_conversation_is_never_computed_again)
{
    static const char *const said[] = { "What is 23 + 58?", "Hello!", "Repeat: blue lamp", "What is 7 * 8?" };
    glm_session *s = quiet();
    uint64_t known = 0;
    for (size_t i = 0; i < 4; i++) {
        host_say(s, said[i]);
        host_finish(s, 0, NULL, &a);
        ck_assert_uint_eq(a.end.end_reason, GLM_END_STOP);
        ck_assert_uint_eq(a.end.n_reused, known);
        known = a.end.n_prompt + a.end.n_answer - 1; /* the stop token is never computed */
    }
    glm_session_close(s);
}
END_TEST

/* At temperature 2 tokens come that no tokenizer would have chosen for the same text. */
START_TEST(odd_tokens_are_kept)
{
    for (uint64_t seed = 1; seed <= 8; seed++) {
        glm_session *s = host_session(model, 0, 0);
        host_turn(s, GLM_THINK_OFF, 60, 2.0f, seed);
        host_say(s, "Hello!");
        host_finish(s, 0, NULL, &a);
        host_say(s, "And now?");
        host_turn(s, GLM_THINK_OFF, 1, 0, 0);
        host_finish(s, 0, NULL, &b);
        if (!a.n_call && !a.reasoning[0] && a.text[0])
            ck_assert_uint_ge(b.end.n_reused, a.end.n_prompt + a.end.n_answer - 1);
        glm_session_close(s);
    }
}
END_TEST

START_TEST(a_tool_call_and_its_thought_are_kept)
{
    glm_error err = GLM_ERROR_INIT;
    glm_session *s = host_session(model, 0, 0);
    uint64_t n_think, n_answer, n_prompt;
    host_turn(s, GLM_THINK_ON, 200, 0, 0);
    OK(glm_session_tools(s, host_weather_tools, GLM_NTS, &err));
    host_say(s, "What is the weather in Oslo?");
    host_finish(s, 0, NULL, &a);
    ck_assert_uint_eq(a.end.end_reason, GLM_END_TOOLS);
    n_prompt = a.end.n_prompt;
    n_think = a.end.n_think;
    n_answer = a.end.n_answer;
    OK(glm_tool_result(s, a.call_id, "rain, 8 C", GLM_NTS, &err));
    host_finish(s, 0, NULL, &b);
    ck_assert_uint_eq(b.end.n_reused, n_prompt + n_think + n_answer - 1);
    ck_assert(strstr(b.text, "rain"));
    glm_session_close(s);
}
END_TEST

/* A dropped thought changes the past: what stands before it is kept. */
START_TEST(a_dropped_thought_costs_what_follows_it)
{
    glm_session *s = host_session(model, 0, 0);
    host_turn(s, GLM_THINK_ON, 200, 0, 0);
    host_say(s, "What is 23 + 58?");
    host_finish(s, 0, NULL, &a);
    ck_assert(a.reasoning[0]);
    host_say(s, "What is 10 + 11?");
    host_finish(s, 0, NULL, &b);
    ck_assert_uint_ge(b.end.n_reused, a.end.n_prompt);
    ck_assert_uint_le(b.end.n_reused, a.end.n_prompt + 3);
    glm_session_close(s);
}
END_TEST

static void give_messages(glm_session *s, const char *json, uint64_t *n_common)
{
    glm_error err = GLM_ERROR_INIT;
    OK(glm_session_messages(s, json, GLM_NTS, n_common, &err));
}

START_TEST(a_client_pays_from_the_first_difference)
{
    static char json[16384];
    uint64_t same, edited;
    glm_session *s = quiet();
    give_messages(s, "[{\"role\": \"user\", \"content\": \"What is 23 + 58?\"}]", NULL);
    host_finish(s, 0, NULL, &a);
    snprintf(json, sizeof json, "[{\"role\": \"user\", \"content\": \"What is 23 + 58?\"}, {\"role\": \"assistant\", "
        "\"content\": \"%s\"}, {\"role\": \"user\", \"content\": \"Hello!\"}]", a.text);
    give_messages(s, json, &same);
    ck_assert_uint_eq(same, a.end.n_prompt + a.end.n_answer - 1);
    give_messages(s, "[{\"role\": \"user\", \"content\": \"What is 23 + 58?\"}, {\"role\": \"assistant\", \"content\": "
        "\"Who knows.\"}, {\"role\": \"user\", \"content\": \"Hello!\"}]", &edited);
    ck_assert_uint_lt(edited, same);
    ck_assert_uint_ge(edited, a.end.n_prompt);
    host_finish(s, 0, NULL, &b);
    ck_assert_uint_eq(b.end.n_reused, edited);
    glm_session_close(s);
}
END_TEST

START_TEST(a_client_that_sends_no_thoughts_back_keeps_them)
{
    static char json[16384];
    uint64_t common;
    glm_error err = GLM_ERROR_INIT;
    glm_session *s = host_session(model, 0, 0);
    host_turn(s, GLM_THINK_ON, 200, 0, 0);
    OK(glm_session_tools(s, host_weather_tools, GLM_NTS, &err));
    give_messages(s, "[{\"role\": \"user\", \"content\": \"What is the weather in Oslo?\"}]", NULL);
    host_finish(s, 0, NULL, &a);
    ck_assert_uint_eq(a.n_call, 1);
    glm_session_cancel(s);
    host_finish(s, 0, NULL, &b); /* the pending call is given up; the client's array brings it back */
    snprintf(json, sizeof json, "[{\"role\": \"user\", \"content\": \"What is the weather in Oslo?\"}, {\"role\": "
        "\"assistant\", \"content\": null, \"tool_calls\": [{\"function\": {\"name\": \"get_weather\", \"arguments\": %s}}]},"
        "{\"role\": \"tool\", \"content\": \"rain, 8 C\"}]", a.arguments);
    give_messages(s, json, &common);
    ck_assert_uint_ge(common, a.end.n_prompt);
    host_finish(s, 0, NULL, &b);
    ck_assert(strstr(b.text, "rain"));
    glm_session_close(s);
}
END_TEST

/* ---- forks ---------------------------------------------------------------------------------------------------------- */

/* Forked after each of the first steps of a turn: both go on to what a session alone says. */
static void fork_everywhere(uint32_t thinking, float temperature, bool tools, const char *question)
{
    glm_error err = GLM_ERROR_INIT;
    glm_step how = GLM_STEP_INIT;
    static struct host_answer alone, parent, child;
    how.budget_ns = 200000;
    for (unsigned after = 0; after < 60; after += after < 12 ? 1 : 7) {
        glm_session *s = host_session(model, 0, 0), *t = NULL;
        glm_event ev = GLM_EVENT_INIT;
        host_turn(s, thinking, 120, temperature, 7);
        if (tools)
            OK(glm_session_tools(s, host_weather_tools, GLM_NTS, &err));
        host_say(s, question);
        if (after == 0)
            host_finish(s, 0, "rain, 8 C", &alone);
        memset(&parent, 0, sizeof parent);
        for (unsigned i = 0; i < after && ev.type != GLM_EVENT_TURN_END; i++) {
            OK(glm_session_step(s, &how, &ev, &err));
            host_take(&parent, &ev);
        }
        if (after && ev.type != GLM_EVENT_TURN_END && !parent.n_call) {
            struct host_answer rest;
            child = parent;
            OK(glm_session_fork(s, &t, &err));
            host_finish(t, 200000, "rain, 8 C", &rest);
            strcat(child.text, rest.text);
            strcat(child.reasoning, rest.reasoning);
            host_finish(s, 200000, "rain, 8 C", &rest);
            strcat(parent.text, rest.text);
            strcat(parent.reasoning, rest.reasoning);
            ck_assert_str_eq(parent.text, alone.text);
            ck_assert_str_eq(child.text, alone.text);
            ck_assert_str_eq(parent.reasoning, alone.reasoning);
            ck_assert_str_eq(child.reasoning, alone.reasoning);
            ck_assert_uint_eq(rest.end.end_reason, alone.end.end_reason);
        }
        glm_session_close(s);
        glm_session_close(t);
    }
}

START_TEST(a_fork_says_the_same)
{
    fork_everywhere(GLM_THINK_ON, 0, false, "What is 23 + 58?");
    fork_everywhere(GLM_THINK_OFF, 1.5f, false, "Hello!");
    fork_everywhere(GLM_THINK_ON, 0, true, "What is the weather in Oslo?");
}
END_TEST

START_TEST(a_fork_waits_for_tools_too)
{
    glm_error err = GLM_ERROR_INIT;
    glm_session *s = host_session(model, 0, 0), *t = NULL;
    host_turn(s, GLM_THINK_ON, 200, 0, 0);
    OK(glm_session_tools(s, host_weather_tools, GLM_NTS, &err));
    host_say(s, "What is the weather in Oslo?");
    host_finish(s, 0, NULL, &a);
    OK(glm_session_fork(s, &t, &err));
    OK(glm_tool_result(t, a.call_id, "rain, 8 C", GLM_NTS, &err));
    OK(glm_tool_result(s, a.call_id, "snow, -3 C", GLM_NTS, &err));
    host_finish(t, 0, NULL, &b);
    ck_assert(strstr(b.text, "rain"));
    host_finish(s, 0, NULL, &a);
    ck_assert(strstr(a.text, "snow"));
    glm_session_close(s);
    glm_session_close(t);
}
END_TEST

static uint64_t shared_bytes(glm_session *s, uint64_t *all)
{
    glm_stats st = GLM_STATS_INIT;
    glm_error err = GLM_ERROR_INIT;
    OK(glm_session_stats(s, &st, &err));
    if (all)
        *all = st.kv_bytes;
    return st.kv_shared_bytes;
}

START_TEST(a_fork_pays_for_what_it_writes)
{
    glm_error err = GLM_ERROR_INIT;
    glm_session *s = quiet(), *t = NULL;
    uint64_t all, of_fork;
    host_say(s, "Hello!");
    host_finish(s, 0, NULL, &a);
    ck_assert_uint_eq(shared_bytes(s, &all), 0);
    OK(glm_session_fork(s, &t, &err));
    ck_assert_uint_gt(shared_bytes(t, &of_fork), 0);
    ck_assert_uint_le(of_fork, all);
    ck_assert_uint_eq(shared_bytes(t, NULL), of_fork);
    host_say(t, "What is 23 + 58?");
    host_finish(t, 0, NULL, &b);
    host_say(s, "What is 23 + 58?"); /* the parent's tail is as it was */
    host_finish(s, 0, NULL, &a);
    ck_assert_str_eq(a.text, b.text);
    ck_assert_uint_eq(a.end.n_reused, b.end.n_reused);
    glm_session_close(s);
    ck_assert_uint_eq(shared_bytes(t, NULL), 0);
    glm_session_close(t);
}
END_TEST

START_TEST(a_fork_samples_from_the_same_logits)
{
    static const int32_t ids[] = { 5, 6, 7, 8, 9 };
    glm_error err = GLM_ERROR_INIT;
    glm_event ev = GLM_EVENT_INIT;
    for (uint32_t rows = GLM_ROWS_LAST; rows <= GLM_ROWS_ALL; rows++) {
        glm_session *s = host_session(model, 0, 0), *t = NULL;
        const float *x = NULL, *y = NULL;
        glm_model_info info = GLM_MODEL_INFO_INIT;
        int32_t i, j;
        OK(glm_model_describe(model, &info, &err));
        OK(glm_session_feed(s, ids, 5, rows, &err));
        while (ev.type != GLM_EVENT_READY)
            OK(glm_session_step(s, NULL, &ev, &err));
        OK(glm_session_fork(s, &t, &err));
        OK(glm_session_logits(s, GLM_LAST_ROW, &x, &err));
        OK(glm_session_logits(t, GLM_LAST_ROW, &y, &err));
        ck_assert(!memcmp(x, y, info.n_vocab * sizeof *x));
        OK(glm_session_logits(t, 4, &y, &err));
        ck_assert(!memcmp(x, y, info.n_vocab * sizeof *x));
        OK(glm_session_hidden(s, GLM_LAST_ROW, &x, &err));
        OK(glm_session_hidden(t, GLM_LAST_ROW, &y, &err));
        ck_assert(!memcmp(x, y, info.d_model * sizeof *x));
        ck_assert_int_eq(glm_session_logits(t, 0, &y, &err), rows == GLM_ROWS_ALL ? GLM_OK : GLM_ESTATE);
        OK(glm_session_sample(s, &i, &err));
        OK(glm_session_sample(t, &j, &err));
        ck_assert_int_eq(i, j);
        glm_session_close(s);
        glm_session_close(t);
        ev.type = GLM_EVENT_NONE;
    }
}
END_TEST

/* ---- marks ------------------------------------------------------------------------------------------------------------ */

START_TEST(rewound_it_says_the_same_again)
{
    glm_error err = GLM_ERROR_INIT;
    glm_session *s = quiet();
    uint64_t mark = 99;
    host_say(s, "Hello!");
    host_finish(s, 0, NULL, &a);
    OK(glm_session_mark(s, &mark, &err));
    ck_assert_uint_eq(mark, 2);
    host_say(s, "What is 23 + 58?");
    host_finish(s, 0, NULL, &a);
    OK(glm_session_rewind(s, mark, &err));
    host_say(s, "What is 23 + 58?");
    host_finish(s, 0, NULL, &b);
    ck_assert_str_eq(a.text, b.text);
    ck_assert_uint_eq(b.end.n_reused, b.end.n_prompt - 1); /* all but the token whose logits are wanted */
    ck_assert_int_eq(glm_session_rewind(s, 5, &err), GLM_EINVAL);
    OK(glm_session_rewind(s, 0, &err));
    ck_assert_int_eq(glm_session_step(s, NULL, &a.end, &err), GLM_ESTATE);
    glm_session_close(s);
}
END_TEST

START_TEST(rewinding_gives_pending_calls_up)
{
    glm_error err = GLM_ERROR_INIT;
    glm_session *s = host_session(model, 0, 0);
    glm_event ev = GLM_EVENT_INIT;
    uint64_t mark;
    host_turn(s, GLM_THINK_ON, 200, 0, 0);
    OK(glm_session_tools(s, host_weather_tools, GLM_NTS, &err));
    OK(glm_session_mark(s, &mark, &err));
    host_say(s, "What is the weather in Oslo?");
    OK(glm_session_step(s, NULL, &ev, &err));
    ck_assert_int_eq(glm_session_rewind(s, mark, &err), GLM_ESTATE);
    ck_assert_int_eq(glm_session_mark(s, &mark, &err), GLM_ESTATE);
    host_finish(s, 0, NULL, &a);
    ck_assert_uint_eq(a.end.end_reason, GLM_END_TOOLS);
    OK(glm_session_rewind(s, mark, &err));
    ck_assert_int_eq(glm_tool_result(s, a.call_id, "rain", GLM_NTS, &err), GLM_EINVAL);
    host_say(s, "Hello!");
    host_finish(s, 0, NULL, &b);
    ck_assert_uint_eq(b.end.end_reason, GLM_END_STOP);
    glm_session_close(s);
}
END_TEST

/* ---- a full context ------------------------------------------------------------------------------------------------------ */

START_TEST(old_turns_are_let_go)
{
    glm_error err = GLM_ERROR_INIT;
    glm_session *s = host_session(model, 200, GLM_OVERFLOW_DROP_OLDEST);
    uint64_t mark, before = 0;
    unsigned dropped = 0;
    host_turn(s, GLM_THINK_OFF, 40, 0, 0);
    OK(glm_session_say(s, GLM_ROLE_SYSTEM, "You are Nano.", GLM_NTS, &err));
    for (int i = 0; i < 30; i++) {
        host_say(s, i % 2 ? "What is 23 + 58?" : "Repeat: blue lamp");
        host_finish(s, 0, NULL, &a);
        ck_assert_uint_eq(a.end.end_reason, GLM_END_STOP);
        ck_assert_uint_le(a.end.n_prompt + 40, 200);
        ck_assert(a.text[0]);
        if (a.end.n_prompt > before && i > 0)
            ck_assert_uint_gt(a.end.n_reused, before);
        dropped += a.end.n_prompt < before;
        before = a.end.n_prompt;
    }
    ck_assert_uint_gt(dropped, 0);
    ck_assert_uint_le(dropped, 12); /* some at once, not one a turn */
    OK(glm_session_mark(s, &mark, &err));
    ck_assert_uint_eq(mark, 61);
    OK(glm_session_rewind(s, 3, &err));
    host_say(s, "Hello!");
    host_finish(s, 0, NULL, &a);
    ck_assert_uint_eq(a.end.end_reason, GLM_END_STOP);
    glm_session_close(s);
}
END_TEST

START_TEST(the_current_turn_is_never_let_go)
{
    char text[2000];
    glm_error err = GLM_ERROR_INIT;
    glm_event ev = GLM_EVENT_INIT;
    glm_session *s = host_session(model, 200, GLM_OVERFLOW_DROP_OLDEST);
    host_turn(s, GLM_THINK_OFF, 40, 0, 0);
    host_say(s, "Hello!");
    host_finish(s, 0, NULL, &a);
    memset(text, 0, sizeof text);
    for (int i = 0; i < 150; i++)
        strcat(text, "lamp 7 ");
    host_say(s, text);
    ck_assert_int_eq(glm_session_step(s, NULL, &ev, &err), GLM_ECONTEXT);
    ck_assert(strstr(err.message, "200"));
    OK(glm_session_rewind(s, 2, &err));
    host_say(s, "Hello!");
    host_finish(s, 0, NULL, &b);
    ck_assert_uint_gt(b.end.n_reused, 0);
    glm_session_close(s);
}
END_TEST

START_TEST(misuse)
{
    glm_error err = GLM_ERROR_INIT;
    glm_session *s = quiet(), *t = s;
    uint64_t mark;
    ck_assert_int_eq(glm_session_fork(NULL, &t, &err), GLM_EINVAL);
    ck_assert_ptr_null(t);
    ck_assert_int_eq(glm_session_fork(s, NULL, &err), GLM_EINVAL);
    ck_assert_int_eq(glm_session_mark(s, NULL, &err), GLM_EINVAL);
    ck_assert_int_eq(glm_session_mark(NULL, &mark, &err), GLM_EINVAL);
    ck_assert_int_eq(glm_session_rewind(NULL, 0, &err), GLM_EINVAL);
    glm_session_close(s);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("steer");
    TCase *t = tcase_create("steer");
    tcase_add_checked_fixture(t, open_model, close_model);
    tcase_add_test(t, a_conversation_is_never_computed_again);
    tcase_add_test(t, odd_tokens_are_kept);
    tcase_add_test(t, a_tool_call_and_its_thought_are_kept);
    tcase_add_test(t, a_dropped_thought_costs_what_follows_it);
    tcase_add_test(t, a_client_pays_from_the_first_difference);
    tcase_add_test(t, a_client_that_sends_no_thoughts_back_keeps_them);
    tcase_add_test(t, a_fork_says_the_same);
    tcase_add_test(t, a_fork_waits_for_tools_too);
    tcase_add_test(t, a_fork_pays_for_what_it_writes);
    tcase_add_test(t, a_fork_samples_from_the_same_logits);
    tcase_add_test(t, rewound_it_says_the_same_again);
    tcase_add_test(t, rewinding_gives_pending_calls_up);
    tcase_add_test(t, old_turns_are_let_go);
    tcase_add_test(t, the_current_turn_is_never_let_go);
    tcase_add_test(t, misuse);
    suite_add_tcase(suite, t);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
