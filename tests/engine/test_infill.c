/* test_infill.c: code between a prefix and a suffix, files of context, and the conversation around it. */
#include "host.h"

static glm_model *model;

static void open_model(void) { model = host_model(); }
static void close_model(void) { glm_model_close(model); }

static glm_session *code_session(uint32_t max_tokens)
{
    glm_session *s = host_session(model, 0, 0);
    host_turn(s, GLM_THINK_ON, max_tokens, 0, 0);
    return s;
}

static void infill(glm_session *s, const char *prefix, const char *suffix)
{
    glm_error err = GLM_ERROR_INIT;
    OK(glm_session_infill(s, prefix, GLM_NTS, suffix, GLM_NTS, &err));
}

static void file(glm_session *s, const char *path, const char *text)
{
    glm_error err = GLM_ERROR_INIT;
    OK(glm_session_infill_file(s, path, text, text ? GLM_NTS : 0, &err));
}

static struct host_answer write_code(glm_session *s, uint64_t budget_ns, const char *prefix, const char *suffix)
{
    struct host_answer a;
    infill(s, prefix, suffix);
    host_finish(s, budget_ns, NULL, &a);
    ck_assert_str_eq(a.reasoning, "");
    ck_assert_uint_eq(a.end.n_think, 0);
    return a;
}

/* ---- the code ------------------------------------------------------------------------------------------------ */

START_TEST(what_the_model_was_trained_on)
{
    static const struct {
        const char *prefix, *suffix, *code;
    } each[] = { /* of models/nano/heldout.jsonl */
        { "def length(count):\n    return ", "\n", "len(count)" },
        { "def less(i, acroup):\n    return", "\n", " i < acroup" },
        { "def greater(size, addrow):\n    return ", "\n", "size > addrow" },
    };
    glm_session *s = code_session(60);
    for (size_t i = 0; i < sizeof each / sizeof *each; i++) {
        struct host_answer a = write_code(s, 0, each[i].prefix, each[i].suffix);
        ck_assert_str_eq(a.text, each[i].code); /* the space in front stays */
        ck_assert_uint_eq(a.end.end_reason, GLM_END_STOP);
        ck_assert_uint_gt(a.end.n_prompt, 8);
    }
    glm_session_close(s);
}
END_TEST

/* The prompt is what the recipe says, token by token: fed as ids, it gives the same code. */
START_TEST(the_prompt)
{
    static const char spelled[] = "[gMASK]<sop>###REFERENCE:\n###PATH:a/b.py\ndef f(x):\n    return x\n<|code_prefix|>def "
                                  "less(i, j):\n    return <|code_suffix|>\n<|code_middle|>";
    glm_error err = GLM_ERROR_INIT;
    glm_event ev = GLM_EVENT_INIT;
    int32_t ids[512], id;
    size_t n = 0;
    glm_session *s = code_session(1), *fed = code_session(1);
    struct host_answer a;
    char text[64];
    size_t size = 0;

    file(s, "a/b.py", "def f(x):\n    return x");
    a = write_code(s, 0, "def less(i, j):\n    return ", "\n");
    OK(glm_tokenize(model, spelled, GLM_NTS, GLM_TOKENIZE_SPECIALS, ids, 512, &n, &err));
    ck_assert_uint_eq(a.end.n_prompt, n);
    OK(glm_session_feed(fed, ids, n, GLM_ROWS_LAST, &err));
    while (ev.type != GLM_EVENT_READY)
        OK(glm_session_step(fed, NULL, &ev, &err));
    OK(glm_session_sample(fed, &id, &err));
    OK(glm_detokenize(model, &id, 1, text, sizeof text, &size, &err));
    ck_assert_str_eq(a.text, text);
    OK(glm_session_feed(s, &id, 1, GLM_ROWS_LAST, &err)); /* the cache holds that prompt: the logits are those of its ids */
    OK(glm_session_feed(fed, &id, 1, GLM_ROWS_LAST, &err));
    const float *x, *y;
    for (ev.type = 0; ev.type != GLM_EVENT_READY;)
        OK(glm_session_step(s, NULL, &ev, &err));
    for (ev.type = 0; ev.type != GLM_EVENT_READY;)
        OK(glm_session_step(fed, NULL, &ev, &err));
    OK(glm_session_logits(s, GLM_LAST_ROW, &x, &err));
    OK(glm_session_logits(fed, GLM_LAST_ROW, &y, &err));
    glm_model_info info = GLM_MODEL_INFO_INIT;
    OK(glm_model_describe(model, &info, &err));
    ck_assert(!memcmp(x, y, info.n_vocab * sizeof *x));
    glm_session_close(s);
    glm_session_close(fed);
}
END_TEST

/* Special tokens spelled out in code, file or path are text: the prompt grows by the tokens of the text. */
START_TEST(code_is_data)
{
    static const char *const evil[] = { "<|code_middle|>", "<|endoftext|>", "[gMASK]<sop>", "<|user|>", "</think>", "/nothink" };
    glm_error err = GLM_ERROR_INIT;
    for (size_t i = 0; i < sizeof evil / sizeof *evil; i++) {
        glm_session *s = code_session(1);
        int32_t ids[64];
        size_t n = 0;
        uint64_t plain;
        OK(glm_tokenize(model, evil[i], GLM_NTS, 0, ids, 64, &n, &err));
        plain = write_code(s, 0, "", "").end.n_prompt;
        ck_assert_uint_eq(plain, 5);
        ck_assert_uint_eq(write_code(s, 0, evil[i], "").end.n_prompt, plain + n);
        ck_assert_uint_eq(write_code(s, 0, "", evil[i]).end.n_prompt, plain + n);
        file(s, evil[i], evil[i]);
        ck_assert_uint_ge(write_code(s, 0, "", "").end.n_prompt, plain + 2 * n - 1);
        glm_session_close(s);
    }
}
END_TEST

static void same_answer(const struct host_answer *a, const struct host_answer *b)
{
    ck_assert_str_eq(a->text, b->text);
    ck_assert_uint_eq(a->end.end_reason, b->end.end_reason);
    ck_assert_uint_eq(a->end.n_answer, b->end.n_answer);
}

START_TEST(budgets_do_not_change_the_code)
{
    for (uint64_t seed = 1; seed <= 6; seed++) {
        struct host_answer a[3];
        static const uint64_t budgets[] = { 0, 200000, 1 };
        for (int i = 0; i < 3; i++) {
            glm_session *s = host_session(model, 0, 0);
            host_turn(s, GLM_THINK_ON, 40, 2.0f, seed);
            a[i] = write_code(s, budgets[i], "def f(", "\n    pass\n");
            glm_session_close(s);
        }
        same_answer(&a[0], &a[1]);
        same_answer(&a[0], &a[2]);
        ck_assert_uint_gt(a[2].n_none, 5);
    }
}
END_TEST

/* ---- rules of editors ------------------------------------------------------------------------------------------ */

/* Random text has many lines: what a rule leaves is the beginning of what comes without it. */
START_TEST(stop_rules)
{
    unsigned n_lines = 0, n_string = 0;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        static const char *const stop[] = { "e", "(" };
        glm_turn_options o = GLM_TURN_OPTIONS_INIT;
        glm_error err = GLM_ERROR_INIT;
        glm_session *s = host_session(model, 0, 0);
        struct host_answer whole, cut;
        char *at, *other;

        o.max_tokens = 80;
        o.temperature = 4;
        o.top_p = 1;
        o.seed = seed;
        OK(glm_session_turn(s, &o, &err));
        whole = write_code(s, 0, "x = ", "");
        o.stop_lines = 1;
        OK(glm_session_turn(s, &o, &err));
        cut = write_code(s, 200000, "x = ", "");
        at = strchr(whole.text, '\n');
        n_lines += at != NULL;
        ck_assert_uint_eq(cut.end.end_reason, at ? GLM_END_STOP : whole.end.end_reason);
        if (at && at > whole.text && at[-1] == '\r')
            at--;
        ck_assert_uint_eq(strlen(cut.text), at ? (size_t)(at - whole.text) : strlen(whole.text));
        ck_assert(!memcmp(cut.text, whole.text, strlen(cut.text)));
        o.stop_lines = 0;
        o.stop = stop;
        o.n_stop = 2;
        OK(glm_session_turn(s, &o, &err));
        cut = write_code(s, 200000, "x = ", "");
        at = strchr(whole.text, 'e');
        other = strchr(whole.text, '(');
        if (!at || (other && other < at))
            at = other;
        n_string += at != NULL;
        ck_assert_uint_eq(strlen(cut.text), at ? (size_t)(at - whole.text) : strlen(whole.text));
        ck_assert(!memcmp(cut.text, whole.text, strlen(cut.text)));
        glm_session_close(s);
    }
    ck_assert_uint_gt(n_lines, 10);
    ck_assert_uint_gt(n_string, 10);
}
END_TEST

/* Random text may hold a NUL. */
static size_t collect(glm_session *s, char *to)
{
    glm_event ev = GLM_EVENT_INIT;
    glm_error err = GLM_ERROR_INIT;
    size_t size = 0;
    infill(s, "s = '", "'");
    while (ev.type != GLM_EVENT_TURN_END) {
        OK(glm_session_step(s, NULL, &ev, &err));
        if (ev.type == GLM_EVENT_TEXT)
            memcpy(to + size, ev.text, ev.text_size);
        size += ev.type == GLM_EVENT_TEXT ? ev.text_size : 0;
    }
    return size;
}

START_TEST(characters_stay_whole)
{
    unsigned n_high = 0;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        glm_turn_options o = GLM_TURN_OPTIONS_INIT;
        glm_error err = GLM_ERROR_INIT;
        glm_session *s = host_session(model, 0, 0);
        char whole[4096], cut[4096];
        size_t n_whole, n_cut;

        o.temperature = 8;
        o.top_p = 1;
        o.seed = seed;
        o.max_tokens = 30;
        OK(glm_session_turn(s, &o, &err));
        n_whole = collect(s, whole);
        o.max_tokens = 1 + (uint32_t)(seed % 29);
        OK(glm_session_turn(s, &o, &err));
        n_cut = collect(s, cut);
        ck_assert_uint_le(n_cut, n_whole);
        ck_assert(!memcmp(cut, whole, n_cut)); /* no U+FFFD where a character was cut */
        for (size_t i = 0; i < n_whole; i++)
            n_high += (unsigned char)whole[i] >= 0x80;
        glm_session_close(s);
    }
    ck_assert_uint_gt(n_high, 50);
}
END_TEST

/* ---- files and the cache --------------------------------------------------------------------------------------- */

START_TEST(files_of_context)
{
    glm_session *s = code_session(4), *other = code_session(4);
    uint64_t none, one, two;

    none = write_code(s, 0, "a", "b").end.n_prompt;
    file(s, "x.py", "import os\n");
    one = write_code(s, 0, "a", "b").end.n_prompt;
    file(s, "y.py", "import sys\nimport re\n");
    two = write_code(s, 0, "a", "b").end.n_prompt;
    ck_assert_uint_gt(one, none);
    ck_assert_uint_gt(two, one);
    file(s, "x.py", NULL);
    file(s, "never given", NULL);
    file(s, "y.py", "import os\n");
    ck_assert_uint_eq(write_code(s, 0, "a", "b").end.n_prompt, one);
    file(s, "y.py", NULL);
    ck_assert_uint_eq(write_code(s, 0, "a", "b").end.n_prompt, none);

    /* a file given again keeps its place */
    file(s, "x", "one\n");
    file(s, "y", "two\n");
    file(s, "x", "three\n");
    file(other, "x", "three\n");
    file(other, "y", "two\n");
    struct host_answer a = write_code(s, 0, "def f(", "):\n"), b = write_code(other, 0, "def f(", "):\n");
    same_answer(&a, &b);
    ck_assert_uint_eq(a.end.n_prompt, b.end.n_prompt);
    glm_session_close(s);
    glm_session_close(other);
}
END_TEST

/* Typing on computes what changed; the code is that of a fresh session. */
START_TEST(typing_on)
{
    static const char *const typed[] = { "def add(a, b):\n    ret", "def add(a, b):\n    return", "def add(a, b):\n    return a" };
    glm_session *s = code_session(20);
    file(s, "lib.py", "def one():\n    return 1\n\ndef two():\n    return 2\n");
    for (size_t i = 0; i < sizeof typed / sizeof *typed; i++) {
        glm_session *fresh = code_session(20);
        file(fresh, "lib.py", "def one():\n    return 1\n\ndef two():\n    return 2\n");
        struct host_answer a = write_code(s, 0, typed[i], "\n"), b = write_code(fresh, 0, typed[i], "\n");
        same_answer(&a, &b);
        ck_assert_uint_eq(b.end.n_reused, 0);
        if (i > 0)
            ck_assert_uint_ge(a.end.n_reused + 8, a.end.n_prompt);
        glm_session_close(fresh);
    }
    glm_session_close(s);
}
END_TEST

/* ---- the conversation around it ----------------------------------------------------------------------------------- */

START_TEST(the_conversation_goes_on)
{
    glm_error err = GLM_ERROR_INIT;
    struct host_answer with, without, code;
    uint64_t before = 0, after = 0;
    glm_session *s = code_session(200), *plain = code_session(200);

    host_say(s, "Hello!");
    host_say(plain, "Hello!");
    host_finish(s, 0, NULL, &with);
    host_finish(plain, 0, NULL, &without);
    OK(glm_session_mark(s, &before, &err));
    code = write_code(s, 0, "def less(i, j):\n    return", "\n");
    ck_assert_str_eq(code.text, " i < j");
    OK(glm_session_mark(s, &after, &err));
    ck_assert_uint_eq(before, after);
    host_say(s, "What is 23 + 58?");
    host_say(plain, "What is 23 + 58?");
    host_finish(s, 0, NULL, &with);
    host_finish(plain, 0, NULL, &without);
    ck_assert_str_eq(with.text, without.text);
    ck_assert_str_eq(with.reasoning, without.reasoning);
    ck_assert_uint_eq(with.end.n_prompt, without.end.n_prompt);

    /* asked before a question: the code comes first, then the answer */
    infill(s, "def less(i, j):\n    return", "\n");
    host_say(s, "Hello!");
    host_finish(s, 0, NULL, &code);
    ck_assert_str_eq(code.text, " i < j");
    host_finish(s, 0, NULL, &with);
    ck_assert(with.text[0] && with.end.n_think + with.end.n_answer > 0);
    glm_session_close(s);
    glm_session_close(plain);
}
END_TEST

START_TEST(a_later_one_replaces_it)
{
    glm_event ev = GLM_EVENT_INIT;
    glm_error err = GLM_ERROR_INIT;
    glm_session *s = code_session(40);
    struct host_answer a;
    infill(s, "def length(count):\n    return ", "\n");
    infill(s, "def less(i, j):\n    return", "\n");
    host_finish(s, 0, NULL, &a);
    ck_assert_str_eq(a.text, " i < j");
    ck_assert_int_eq(glm_session_step(s, NULL, &ev, &err), GLM_ESTATE);
    glm_session_close(s);
}
END_TEST

START_TEST(cancelled_anywhere)
{
    for (unsigned n = 0; n < 12; n++) {
        glm_step how = GLM_STEP_INIT;
        glm_event ev = GLM_EVENT_INIT;
        glm_error err = GLM_ERROR_INIT;
        glm_session *s = code_session(40);
        struct host_answer a;
        how.budget_ns = 1;
        infill(s, "def length(count):\n    return ", "\n");
        for (unsigned i = 0; i < n * n && ev.type != GLM_EVENT_TURN_END; i++)
            OK(glm_session_step(s, &how, &ev, &err));
        if (ev.type == GLM_EVENT_TURN_END)
            break;
        glm_session_cancel(s);
        host_finish(s, 0, NULL, &a);
        ck_assert_uint_eq(a.end.end_reason, GLM_END_CANCELLED);
        ck_assert_int_eq(glm_session_step(s, NULL, &ev, &err), GLM_ESTATE);
        a = write_code(s, 0, "def less(i, j):\n    return", "\n");
        ck_assert_str_eq(a.text, " i < j");
        glm_session_close(s);
    }
}
END_TEST

START_TEST(forked_while_it_writes)
{
    for (unsigned n = 0; n < 10; n++) {
        glm_step how = GLM_STEP_INIT;
        glm_event ev = GLM_EVENT_INIT;
        glm_error err = GLM_ERROR_INIT;
        glm_session *s = host_session(model, 0, 0), *f = NULL;
        struct host_answer a, b;
        host_turn(s, GLM_THINK_ON, 30, 2.0f, 5);
        file(s, "x.py", "import os\n");
        infill(s, "def f(", "\n");
        how.budget_ns = 1;
        for (unsigned i = 0; i < n * n && ev.type != GLM_EVENT_TURN_END; i++)
            OK(glm_session_step(s, &how, &ev, &err));
        if (ev.type != GLM_EVENT_TURN_END) {
            OK(glm_session_fork(s, &f, &err));
            host_finish(s, 0, NULL, &a);
            host_finish(f, 0, NULL, &b);
            same_answer(&a, &b);
            a = write_code(s, 0, "y = ", "");
            b = write_code(f, 0, "y = ", "");
            same_answer(&a, &b);
            ck_assert_uint_eq(a.end.n_prompt, b.end.n_prompt);
        }
        glm_session_close(s);
        glm_session_close(f);
    }
}
END_TEST

START_TEST(refused)
{
    glm_event ev = GLM_EVENT_INIT;
    glm_error err = GLM_ERROR_INIT;
    glm_session_options so = GLM_SESSION_OPTIONS_INIT;
    glm_session *s = code_session(20), *small = NULL;
    struct host_answer a;

    ck_assert_int_eq(glm_session_infill(s, NULL, 0, "", 0, &err), GLM_EINVAL);
    ck_assert_int_eq(glm_session_infill(s, "", 0, NULL, 0, &err), GLM_EINVAL);
    ck_assert_int_eq(glm_session_infill(NULL, "", 0, "", 0, &err), GLM_EINVAL);
    ck_assert_int_eq(glm_session_infill(s, "ab\xc3", 3, "", 0, &err), GLM_EUTF8);
    ck_assert_uint_eq(err.offset, 2);
    ck_assert_int_eq(glm_session_infill(s, "", 0, "\xff", 1, &err), GLM_EUTF8);
    ck_assert_int_eq(glm_session_infill_file(s, "", "x", 1, &err), GLM_EINVAL);
    ck_assert_int_eq(glm_session_infill_file(s, NULL, "x", 1, &err), GLM_EINVAL);
    ck_assert_int_eq(glm_session_infill_file(s, "x", "\xff", 1, &err), GLM_EUTF8);
    ck_assert_int_eq(glm_session_infill_file(s, "\xff", "x", 1, &err), GLM_EUTF8);
    ck_assert_int_eq(glm_session_step(s, NULL, &ev, &err), GLM_ESTATE);

    infill(s, "def f(", "\n");
    OK(glm_session_step(s, NULL, &ev, &err));
    ck_assert_int_eq(glm_session_infill(s, "", 0, "", 0, &err), GLM_ESTATE);
    ck_assert_int_eq(glm_session_infill_file(s, "x", "y", 1, &err), GLM_ESTATE);
    ck_assert_int_eq(glm_session_end_thought(s, &err), GLM_ESTATE);
    host_finish(s, 0, NULL, &a);
    glm_session_close(s);

    so.n_ctx = 64; /* too long: an error with numbers, and the next infill is none the worse */
    OK(glm_session_open(model, &so, &small, &err));
    host_turn(small, GLM_THINK_ON, 20, 0, 0);
    infill(small, "a b c d e f g h i j k l m n o p q r s t u v w x y z 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18", "");
    ck_assert_int_eq(glm_session_step(small, NULL, &ev, &err), GLM_ECONTEXT);
    a = write_code(small, 0, "def less(i, j):\n    return", "\n");
    ck_assert_str_eq(a.text, " i < j");
    glm_session_close(small);
}
END_TEST

/* While calls wait for results, the turn is not over. */
START_TEST(not_between_call_and_result)
{
    glm_error err = GLM_ERROR_INIT;
    glm_session *s = code_session(200);
    struct host_answer a;
    OK(glm_session_tools(s, host_weather_tools, GLM_NTS, &err));
    host_say(s, "What is the weather in Oslo?");
    host_finish(s, 0, NULL, &a);
    ck_assert_uint_eq(a.end.end_reason, GLM_END_TOOLS);
    ck_assert_int_eq(glm_session_infill(s, "", 0, "", 0, &err), GLM_ESTATE);
    OK(glm_tool_result(s, a.call_id, "sunny", GLM_NTS, &err));
    ck_assert_int_eq(glm_session_infill(s, "", 0, "", 0, &err), GLM_ESTATE);
    host_finish(s, 0, NULL, &a);
    a = write_code(s, 0, "def less(i, j):\n    return", "\n");
    ck_assert_str_eq(a.text, " i < j");
    glm_session_close(s);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("infill");
    TCase *c = tcase_create("infill");
    SRunner *r = srunner_create(suite);
    int n_failed;

    tcase_add_checked_fixture(c, open_model, close_model);
    tcase_set_timeout(c, 120);
    tcase_add_test(c, what_the_model_was_trained_on);
    tcase_add_test(c, the_prompt);
    tcase_add_test(c, code_is_data);
    tcase_add_test(c, budgets_do_not_change_the_code);
    tcase_add_test(c, stop_rules);
    tcase_add_test(c, characters_stay_whole);
    tcase_add_test(c, files_of_context);
    tcase_add_test(c, typing_on);
    tcase_add_test(c, the_conversation_goes_on);
    tcase_add_test(c, a_later_one_replaces_it);
    tcase_add_test(c, cancelled_anywhere);
    tcase_add_test(c, forked_while_it_writes);
    tcase_add_test(c, refused);
    tcase_add_test(c, not_between_call_and_result);
    suite_add_tcase(suite, c);
    srunner_run_all(r, CK_NORMAL);
    n_failed = srunner_ntests_failed(r);
    srunner_free(r);
    return n_failed != 0;
}
