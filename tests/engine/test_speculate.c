/* test_speculate.c: drafts of the MTP layer change the speed and nothing else; through the public API. */
#include "host.h"

static glm_model *model;
static struct host_answer a, b;

static void open_model(void) { model = host_model(); }
static void close_model(void) { glm_model_close(model); }

static glm_session *session(uint32_t speculation)
{
    glm_session_options o = GLM_SESSION_OPTIONS_INIT;
    glm_error err = GLM_ERROR_INIT;
    glm_session *s = NULL;
    o.speculation = speculation;
    OK(glm_session_open(model, &o, &s, &err));
    return s;
}

static glm_stats stats_of(glm_session *s)
{
    glm_stats st = GLM_STATS_INIT;
    glm_error err = GLM_ERROR_INIT;
    OK(glm_session_stats(s, &st, &err));
    return st;
}

static const char *const questions[] = { "What is 123 + 456?", "Hello!", "What is the weather in Oslo?", "Repeat: blue lamp 7",
    "What is 91 - 17?", "What is the weather in Rome?" };

/* Three turns, one with a tool, as one text. */
static void talk(glm_session *s, size_t first, uint32_t thinking, uint32_t max_tokens, float temperature, uint64_t budget_ns,
    char *out)
{
    glm_error err = GLM_ERROR_INIT;
    out[0] = '\0';
    host_turn(s, thinking, max_tokens, temperature, 11 + first);
    OK(glm_session_tools(s, host_weather_tools, GLM_NTS, &err));
    for (size_t i = 0; i < 3; i++) {
        host_say(s, questions[(first + i) % 6]);
        host_finish(s, budget_ns, "rain, 8 C", &a);
        sprintf(out + strlen(out), "%s|%s|%s|%u|%llu|%llu\n", a.reasoning, a.arguments, a.text, a.end.end_reason,
            (unsigned long long)a.end.n_think, (unsigned long long)a.end.n_answer);
    }
}

START_TEST(the_text_is_the_same)
{
    static char plain[32768], drafted[32768];
    static const uint64_t budgets[] = { 0, 200000, 1000000 };
    uint64_t n_drafted = 0, n_accepted = 0;
    for (unsigned i = 0; i < 24; i++) {
        float temperature = i % 3 == 0 ? 0.0f : i % 3 == 1 ? 0.8f : 2.0f;
        uint32_t thinking = i % 2 ? GLM_THINK_OFF : GLM_THINK_ON, max_tokens = i % 5 == 4 ? 9 : 120;
        glm_session *s = session(GLM_SPECULATION_OFF), *t = session(i % 4 ? GLM_SPECULATION_ON : GLM_SPECULATION_AUTO);
        talk(s, i, thinking, max_tokens, temperature, 0, plain);
        talk(t, i, thinking, max_tokens, temperature, budgets[i % 3], drafted);
        ck_assert_str_eq(plain, drafted);
        ck_assert_uint_eq(stats_of(s).n_drafted, 0);
        ck_assert_uint_eq(stats_of(s).n_generated, stats_of(t).n_generated);
        n_drafted += stats_of(t).n_drafted;
        n_accepted += stats_of(t).n_accepted;
        glm_session_close(s);
        glm_session_close(t);
    }
    ck_assert_uint_gt(n_drafted, 500);
    ck_assert_uint_gt(n_accepted, n_drafted / 2);
}
END_TEST

/* The MTP layer's keys and values follow the conversation: what it foretells comes true as often in later turns. */
START_TEST(most_drafts_come_true)
{
    glm_session *s = session(GLM_SPECULATION_ON);
    host_turn(s, GLM_THINK_ON, 200, 0, 0);
    for (int i = 0; i < 6; i++) {
        uint64_t drafted = stats_of(s).n_drafted, accepted = stats_of(s).n_accepted;
        char text[64];
        snprintf(text, sizeof text, "What is %d + %d?", 117 + 31 * i, 256 - 7 * i);
        host_say(s, text);
        host_finish(s, 0, NULL, &a);
        drafted = stats_of(s).n_drafted - drafted;
        accepted = stats_of(s).n_accepted - accepted;
        ck_assert_uint_gt(drafted, 10);
        ck_assert_uint_ge(accepted * 10, drafted * 8);
    }
    glm_session_close(s);
}
END_TEST

static double measured_speedup(void)
{
    glm_session *s = session(GLM_SPECULATION_AUTO);
    host_turn(s, GLM_THINK_ON, 200, 0, 0);
    for (int k = 0; k < 4; k++) {
        host_say(s, questions[k]);
        host_finish(s, 0, NULL, &a);
    }
    double speedup = stats_of(s).draft_speedup;
    glm_session_close(s);
    return speedup;
}

static double median_speedup(void)
{
    double list[7];
    for (int n = 0; n < 7; n++) {
        double x = measured_speedup();
        int i = n;
        for (; i > 0 && list[i - 1] > x; i--)
            list[i] = list[i - 1];
        list[i] = x;
    }
    return list[3];
}

/* What GLM_SPECULATION_AUTO measures, here about 1.1. Other work on the machine moves it, so the bound is wide and it may try
 * again; a token that a draft gave, counted as one without drafts, makes it 0.65. */
START_TEST(times_are_of_what_they_say)
{
    double median = getenv("GLM_TEST_EXPERT_CACHE") ? 1 : 0; /* there it is the disk's time */
    for (int i = 0; i < 3 && median < 0.85; i++)
        median = median_speedup();
    ck_assert_msg(median >= 0.85, "%f", median);
    glm_session *plain = session(GLM_SPECULATION_OFF);
    ck_assert(stats_of(plain).draft_speedup == 0);
    glm_session_close(plain);
}
END_TEST

START_TEST(cancelled_and_gone_on_with)
{
    static char plain[32768], drafted[32768];
    for (unsigned after = 1; after < 40; after += 3) {
        glm_session *s = session(GLM_SPECULATION_ON), *t = session(GLM_SPECULATION_OFF);
        glm_error err = GLM_ERROR_INIT;
        glm_event ev = GLM_EVENT_INIT;
        glm_step how = GLM_STEP_INIT;
        how.budget_ns = 100000;
        host_turn(s, GLM_THINK_ON, 200, 0, 0);
        host_say(s, "What is 123 + 456?");
        for (unsigned i = 0; i < after && ev.type != GLM_EVENT_TURN_END; i++)
            OK(glm_session_step(s, &how, &ev, &err));
        glm_session_cancel(s);
        if (ev.type != GLM_EVENT_TURN_END)
            host_finish(s, 0, NULL, &b);
        OK(glm_session_rewind(s, 0, &err));
        talk(s, after, GLM_THINK_ON, 120, 0, 0, drafted);
        talk(t, after, GLM_THINK_ON, 120, 0, 0, plain);
        ck_assert_str_eq(plain, drafted);
        glm_session_close(s);
        glm_session_close(t);
    }
}
END_TEST

START_TEST(a_fork_drafts_on)
{
    glm_error err = GLM_ERROR_INIT;
    glm_step how = GLM_STEP_INIT;
    how.budget_ns = 100000;
    for (unsigned after = 1; after < 50; after += 7) {
        glm_session *s = session(GLM_SPECULATION_ON), *t = NULL;
        glm_event ev = GLM_EVENT_INIT;
        host_turn(s, GLM_THINK_ON, 200, 0.7f, 3);
        host_say(s, "What is 123 + 456?");
        for (unsigned i = 0; i < after; i++)
            OK(glm_session_step(s, &how, &ev, &err));
        if (ev.type != GLM_EVENT_TURN_END) {
            OK(glm_session_fork(s, &t, &err));
            host_finish(s, 0, NULL, &a);
            host_finish(t, 0, NULL, &b);
            ck_assert_str_eq(a.text, b.text);
            ck_assert_str_eq(a.reasoning, b.reasoning);
        }
        glm_session_close(s);
        glm_session_close(t);
    }
}
END_TEST

/* From the token level or a batch the MTP layer's past has holes: no drafts then, and the same text. */
START_TEST(beside_the_token_level)
{
    static const int32_t ids[] = { 5, 6, 7, 8, 9 };
    static char plain[32768], drafted[32768];
    for (unsigned i = 0; i < 2; i++) {
        glm_session *s = session(i ? GLM_SPECULATION_ON : GLM_SPECULATION_OFF);
        glm_error err = GLM_ERROR_INIT;
        glm_event ev = GLM_EVENT_INIT;
        host_turn(s, GLM_THINK_ON, 200, 0, 0);
        host_say(s, "What is 123 + 456?");
        host_finish(s, 0, NULL, &a);
        OK(glm_session_feed(s, ids, 5, GLM_ROWS_ALL, &err));
        while (ev.type != GLM_EVENT_READY)
            OK(glm_session_step(s, NULL, &ev, &err));
        talk(s, 0, GLM_THINK_OFF, 120, 0, 0, i ? drafted : plain);
        glm_session_close(s);
    }
    ck_assert_str_eq(plain, drafted);
}
END_TEST

START_TEST(misuse)
{
    glm_session_options o = GLM_SESSION_OPTIONS_INIT;
    glm_error err = GLM_ERROR_INIT;
    glm_session *s = NULL;
    o.speculation = 3;
    ck_assert_int_eq(glm_session_open(model, &o, &s, &err), GLM_EINVAL);
    ck_assert_str_eq(err.where, "speculation");
    o.speculation = 0;
    o.reserved = 1;
    ck_assert_int_eq(glm_session_open(model, &o, &s, &err), GLM_EINVAL);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("speculate");
    TCase *t = tcase_create("speculate");
    tcase_add_checked_fixture(t, open_model, close_model);
    tcase_add_test(t, the_text_is_the_same);
    tcase_add_test(t, most_drafts_come_true);
    tcase_add_test(t, times_are_of_what_they_say);
    tcase_add_test(t, cancelled_and_gone_on_with);
    tcase_add_test(t, a_fork_drafts_on);
    tcase_add_test(t, beside_the_token_level);
    tcase_add_test(t, misuse);
    suite_add_tcase(suite, t);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
