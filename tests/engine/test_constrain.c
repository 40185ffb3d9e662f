/* test_constrain.c: calls and answers that fit their declarations whatever the model would like to say; through the public
 * API. A temperature of 2 makes the small model babble, so that the constraint does the work. */
#include "host.h"

static glm_model *model;
static struct host_answer a, b;

static void open_model(void) { model = host_model(); }
static void close_model(void) { glm_model_close(model); }

static const char tools[] =
    "[{\"type\": \"function\", \"function\": {\"name\": \"set_lamp\", \"parameters\": {\"type\": \"object\", \"properties\": {"
    "\"room\": {\"enum\": [\"kitchen\", \"hall\"]}, \"level\": {\"type\": \"integer\", \"minimum\": 0, \"maximum\": 9}},"
    "\"required\": [\"room\", \"level\"], \"additionalProperties\": false}}},"
    "{\"type\": \"function\", \"function\": {\"name\": \"lamp_off\", \"parameters\": {\"type\": \"object\", \"properties\": {},"
    "\"additionalProperties\": false}}}]";

static glm_turn_options options(float temperature, uint64_t seed, uint32_t max_tokens)
{
    glm_turn_options o = GLM_TURN_OPTIONS_INIT;
    o.temperature = temperature;
    o.seed = seed;
    o.max_tokens = max_tokens;
    return o;
}

static glm_session *session_with(const glm_turn_options *o, const char *declared)
{
    glm_error err = GLM_ERROR_INIT;
    glm_session *s = host_session(model, 0, 0);
    if (declared)
        OK(glm_session_tools(s, declared, GLM_NTS, &err));
    OK(glm_session_turn(s, o, &err));
    host_say(s, "Hello!");
    return s;
}

/* {"room": one of two, "level": a digit} in any order. */
static bool is_set_lamp(const char *arguments)
{
    const char *level = strstr(arguments, "\"level\": ");
    double x = level ? strtod(level + 9, NULL) : -1; /* 5e0 is an integer, too */
    return x >= 0 && x <= 9 && x == (double)(int)x &&
        (strstr(arguments, "\"room\": \"kitchen\"") || strstr(arguments, "\"room\": \"hall\""));
}

/* ---- calls ------------------------------------------------------------------------------------------------------------ */

START_TEST(a_call_is_made_and_fits)
{
    unsigned n_call = 0, n_end = 0;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        glm_turn_options o = options(2.0f, seed, 400);
        glm_session *s;
        o.thinking = seed % 2 ? GLM_THINK_OFF : GLM_THINK_ON;
        o.tool_choice = GLM_TOOLS_NAMED;
        o.tool_name = "set_lamp";
        s = session_with(&o, tools);
        host_finish(s, seed % 3 ? 0 : 200000, NULL, &a);
        ck_assert(a.end.end_reason == GLM_END_TOOLS || a.end.end_reason == GLM_END_LENGTH);
        if (a.n_call == 1)
            ck_assert_msg(is_set_lamp(a.arguments), "%s", a.arguments);
        n_call += a.n_call;
        n_end += a.end.end_reason == GLM_END_TOOLS;
        glm_session_close(s);
    }
    ck_assert_uint_gt(n_call, 10);
    ck_assert_uint_gt(n_end, 10);
}
END_TEST

/* After the result the model may answer, even though a call was asked for. */
START_TEST(a_required_call_is_required_once)
{
    glm_error err = GLM_ERROR_INIT;
    glm_turn_options o = options(0, 0, 300);
    glm_session *s;
    o.tool_choice = GLM_TOOLS_REQUIRED;
    s = session_with(&o, host_weather_tools);
    host_finish(s, 0, NULL, &a);
    ck_assert_uint_ge(a.n_call, 1);
    ck_assert_uint_eq(a.end.end_reason, GLM_END_TOOLS);
    OK(glm_tool_result(s, a.call_id, "rain, 8 C", GLM_NTS, &err));
    host_finish(s, 0, "rain, 8 C", &b);
    ck_assert_uint_eq(b.end.end_reason, GLM_END_STOP);
    ck_assert(b.text[0]);
    glm_session_close(s);
}
END_TEST

START_TEST(without_tools_no_call)
{
    for (uint64_t seed = 1; seed <= 10; seed++) {
        glm_turn_options o = options(2.0f, seed, 100);
        glm_session *s;
        o.tool_choice = GLM_TOOLS_NONE;
        s = session_with(&o, tools);
        host_finish(s, 0, NULL, &a);
        ck_assert_uint_eq(a.n_call, 0);
        glm_session_close(s);
    }
}
END_TEST

/* ---- answers ------------------------------------------------------------------------------------------------------------ */

START_TEST(an_answer_fits_its_schema)
{
    unsigned n_end = 0;
    for (uint64_t seed = 1; seed <= 30; seed++) {
        glm_turn_options o = options(1.5f, seed, 200);
        glm_session *s;
        double x;
        o.thinking = seed % 2 ? GLM_THINK_OFF : GLM_THINK_BUDGET;
        o.think_tokens = seed % 2 ? 0 : 10;
        o.answer_schema = "{\"type\": \"object\", \"properties\": {\"x\": {\"type\": \"integer\", \"minimum\": 10, \"maximum\": 99}},"
            "\"required\": [\"x\"], \"additionalProperties\": false}";
        s = session_with(&o, seed % 5 ? NULL : tools);
        host_finish(s, 0, NULL, &a);
        if (a.end.end_reason == GLM_END_STOP) {
            n_end++;
            ck_assert_msg(a.text[0] == '{' && strstr(a.text, "\"x\":"), "%s", a.text);
            x = strtod(strstr(a.text, "\"x\":") + 4, NULL); /* 9.5e01 is an integer, too */
            ck_assert_msg(x >= 10 && x <= 99 && x == (double)(int)x, "%s", a.text);
            ck_assert_uint_eq(a.n_call, 0);
        }
        glm_session_close(s);
    }
    ck_assert_uint_gt(n_end, 15); /* others still write zeros behind a point */
}
END_TEST

START_TEST(an_answer_matches_its_pattern)
{
    for (uint64_t seed = 1; seed <= 20; seed++) {
        glm_turn_options o = options(2.0f, seed, 200);
        glm_session *s;
        o.thinking = seed % 2 ? GLM_THINK_OFF : GLM_THINK_BUDGET;
        o.think_tokens = seed % 2 ? 0 : 5;
        o.answer_pattern = "yes|no|perhaps, on [0-9]{4}-[0-9]{2}";
        s = session_with(&o, NULL);
        host_finish(s, 0, NULL, &a);
        ck_assert_uint_eq(a.end.end_reason, GLM_END_STOP);
        ck_assert_msg(!strcmp(a.text, "yes") || !strcmp(a.text, "no") || (strlen(a.text) == 19 &&
            !strncmp(a.text, "perhaps, on ", 12) && a.text[16] == '-'), "%s", a.text);
        glm_session_close(s);
    }
}
END_TEST

/* What must follow is not sampled: fewer passes, the same text however it is stepped, forked or drafted. */
START_TEST(stepped_and_forked_it_is_the_same)
{
    for (uint64_t seed = 1; seed <= 6; seed++) {
        glm_turn_options o = options(1.0f, seed, 300);
        glm_error err = GLM_ERROR_INIT;
        glm_step how = GLM_STEP_INIT;
        glm_event ev = GLM_EVENT_INIT;
        glm_session *s, *t = NULL;
        static struct host_answer rest;
        o.thinking = GLM_THINK_OFF;
        o.tool_choice = GLM_TOOLS_NAMED;
        o.tool_name = "set_lamp";
        how.budget_ns = 100000;
        s = session_with(&o, tools);
        host_finish(s, 0, NULL, &a);
        glm_session_close(s);
        s = session_with(&o, tools);
        memset(&b, 0, sizeof b);
        for (uint64_t i = 0; i < 3 * seed && ev.type != GLM_EVENT_TURN_END; i++) {
            OK(glm_session_step(s, &how, &ev, &err));
            host_take(&b, &ev);
        }
        if (ev.type != GLM_EVENT_TURN_END) {
            OK(glm_session_fork(s, &t, &err));
            glm_session_close(s);
            host_finish(t, 100000, NULL, &rest);
            strcat(b.text, rest.text);
            strcat(b.arguments, rest.arguments);
            ck_assert_str_eq(a.text, b.text);
            ck_assert_str_eq(a.arguments, b.arguments);
            ck_assert_uint_eq(a.end.n_answer, rest.end.n_answer);
            glm_session_close(t);
        } else {
            glm_session_close(s);
        }
    }
}
END_TEST

/* ---- refusals ------------------------------------------------------------------------------------------------------------ */

START_TEST(what_cannot_be_enforced_is_refused)
{
    static const char unique[] = "[{\"type\": \"function\", \"function\": {\"name\": \"f\", \"parameters\": {\"type\": \"object\","
        "\"properties\": {\"list\": {\"type\": \"array\", \"items\": {\"type\": \"string\"}, \"uniqueItems\": true}}}}}]";
    glm_error err = GLM_ERROR_INIT;
    glm_turn_options o = options(0, 0, 50);
    glm_session *s = session_with(&o, tools);
    ck_assert_int_eq(glm_session_tools(s, unique, GLM_NTS, &err), GLM_ESCHEMA);
    ck_assert_msg(strstr(err.where, "/list"), "%s", err.where);
    ck_assert(err.message[0]);
    o.answer_schema = "{\"type\": \"nothing\"}";
    ck_assert_int_eq(glm_session_turn(s, &o, &err), GLM_ESCHEMA);
    o.answer_schema = "{";
    ck_assert_int_eq(glm_session_turn(s, &o, &err), GLM_EFORMAT);
    o.answer_schema = NULL;
    o.answer_pattern = "(";
    ck_assert_int_eq(glm_session_turn(s, &o, &err), GLM_ESCHEMA);
    o.answer_pattern = NULL;
    o.tool_choice = GLM_TOOLS_NAMED;
    ck_assert_int_eq(glm_session_turn(s, &o, &err), GLM_EINVAL);
    o.tool_name = "nobody";
    ck_assert_int_ne(glm_session_turn(s, &o, &err), GLM_OK);
    host_finish(s, 0, "done", &a); /* the tools and options before are still there */
    ck_assert(a.end.end_reason == GLM_END_STOP || a.end.end_reason == GLM_END_LENGTH);
    glm_session_close(s);
}
END_TEST

START_TEST(a_call_without_tools_is_refused)
{
    glm_error err = GLM_ERROR_INIT;
    glm_event ev = GLM_EVENT_INIT;
    glm_turn_options o = options(0, 0, 50);
    glm_session *s;
    o.tool_choice = GLM_TOOLS_REQUIRED;
    s = session_with(&o, NULL);
    ck_assert_int_eq(glm_session_step(s, NULL, &ev, &err), GLM_EINVAL);
    ck_assert_str_eq(err.where, "tool_choice");
    glm_session_close(s);
}
END_TEST

/* ---- the token level ------------------------------------------------------------------------------------------------------ */

static void feed(glm_session *s, const int32_t *ids, size_t n)
{
    glm_error err = GLM_ERROR_INIT;
    glm_event ev = GLM_EVENT_INIT;
    OK(glm_session_feed(s, ids, n, GLM_ROWS_LAST, &err));
    while (ev.type != GLM_EVENT_READY)
        OK(glm_session_step(s, NULL, &ev, &err));
}

START_TEST(a_host_that_samples_for_itself)
{
    int32_t ids[64], bad;
    size_t n = 0;
    char text[64] = "";
    glm_error err = GLM_ERROR_INIT;
    glm_turn_options o = options(1.0f, 3, 0);
    glm_session *s = host_session(model, 0, 0);
    const uint32_t *bits = NULL;

    ck_assert_int_eq(glm_session_mask(s, &bits, &err), GLM_ESTATE);
    o.answer_pattern = "[0-9]{3}x";
    OK(glm_session_turn(s, &o, &err));
    OK(glm_tokenize(model, "Give me a number: ", GLM_NTS, 0, ids, 64, &n, &err));
    feed(s, ids, n); /* before the first mask: the prompt */
    for (unsigned i = 0; i < 8 && strlen(text) < 4; i++) {
        size_t size = 0;
        int32_t id;
        OK(glm_session_mask(s, &bits, &err));
        OK(glm_session_sample(s, &id, &err));
        ck_assert(bits[id / 32] >> id % 32 & 1);
        OK(glm_detokenize(model, &id, 1, text + strlen(text), sizeof text - strlen(text), &size, &err));
        OK(glm_tokenize(model, "q", GLM_NTS, 0, &bad, 1, &n, &err));
        OK(glm_session_mask(s, &bits, &err));
        ck_assert(!(bits[bad / 32] >> bad % 32 & 1));
        ck_assert_int_eq(glm_session_feed(s, &bad, 1, GLM_ROWS_LAST, &err), GLM_EINVAL);
        feed(s, &id, 1);
    }
    ck_assert_msg(strlen(text) == 4 && text[3] == 'x', "%s", text);
    glm_session_close(s);
}
END_TEST

START_TEST(misuse)
{
    glm_error err = GLM_ERROR_INIT;
    const uint32_t *bits;
    glm_turn_options o = options(0, 0, 0);
    glm_session *s = host_session(model, 0, 0);
    ck_assert_int_eq(glm_session_mask(NULL, &bits, &err), GLM_EINVAL);
    ck_assert_int_eq(glm_session_mask(s, NULL, &err), GLM_EINVAL);
    o.answer_schema = "{}";
    o.answer_pattern = "a";
    ck_assert_int_eq(glm_session_turn(s, &o, &err), GLM_EINVAL);
    o.answer_pattern = NULL;
    o.tool_choice = GLM_TOOLS_REQUIRED;
    ck_assert_int_eq(glm_session_turn(s, &o, &err), GLM_EINVAL);
    o.tool_choice = GLM_TOOLS_AUTO;
    o.tool_name = "f";
    ck_assert_int_eq(glm_session_turn(s, &o, &err), GLM_EINVAL);
    glm_session_close(s);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("constrain");
    TCase *t = tcase_create("constrain");
    tcase_add_checked_fixture(t, open_model, close_model);
    tcase_add_test(t, a_call_is_made_and_fits);
    tcase_add_test(t, a_required_call_is_required_once);
    tcase_add_test(t, without_tools_no_call);
    tcase_add_test(t, an_answer_fits_its_schema);
    tcase_add_test(t, an_answer_matches_its_pattern);
    tcase_add_test(t, stepped_and_forked_it_is_the_same);
    tcase_add_test(t, what_cannot_be_enforced_is_refused);
    tcase_add_test(t, a_call_without_tools_is_refused);
    tcase_add_test(t, a_host_that_samples_for_itself);
    tcase_add_test(t, misuse);
    suite_add_tcase(suite, t);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
