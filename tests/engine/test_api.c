/* test_api.c: the public API as a host uses and misuses it, on the shipped small model. */
#include <glm45/glm45.h>

#include <check.h>
#include <math.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static glm_model *model;

static const char *model_path(void) { return getenv("GLM_TEST_MODEL"); }

static void open_model(void)
{
    glm_error err = GLM_ERROR_INIT;
    ck_assert_msg(!glm_model_open(model_path(), NULL, &model, &err), "%s: %s", err.where, err.message);
}

static void close_model(void) { glm_model_close(model); }

static glm_session *session(uint32_t n_ctx)
{
    glm_session_options o = GLM_SESSION_OPTIONS_INIT;
    glm_error err = GLM_ERROR_INIT;
    glm_session *s = NULL;
    o.n_ctx = n_ctx;
    ck_assert_msg(!glm_session_open(model, &o, &s, &err), "%s", err.message);
    return s;
}

static void greedy(glm_session *s, uint32_t max_tokens)
{
    glm_turn_options o = GLM_TURN_OPTIONS_INIT;
    glm_error err = GLM_ERROR_INIT;
    o.temperature = 0;
    o.max_tokens = max_tokens;
    ck_assert_msg(!glm_session_turn(s, &o, &err), "%s", err.message);
}

static void say(glm_session *s, const char *text)
{
    glm_error err = GLM_ERROR_INIT;
    ck_assert_msg(!glm_session_say(s, GLM_ROLE_USER, text, GLM_NTS, &err), "%s", err.message);
}

struct answer {
    char text[4096], reasoning[4096];
    unsigned n_none, n_call;
    glm_event end;
};

static void append(char *to, size_t room, const glm_event *ev)
{
    ck_assert_uint_lt(strlen(to) + ev->text_size, room);
    ck_assert_uint_eq(strlen(ev->text), ev->text_size); /* NUL-terminated */
    strcat(to, ev->text);
}

/* A turn to its end; tool calls get `result`, or none where it is NULL. */
static struct answer finish(glm_session *s, uint64_t budget_ns, const char *result)
{
    glm_step how = GLM_STEP_INIT;
    glm_event ev = GLM_EVENT_INIT;
    glm_error err = GLM_ERROR_INIT;
    struct answer a;

    memset(&a, 0, sizeof a);
    how.budget_ns = budget_ns;
    while (ev.type != GLM_EVENT_TURN_END) {
        ck_assert_msg(!glm_session_step(s, &how, &ev, &err), "%s", err.message);
        if (ev.type == GLM_EVENT_TEXT)
            append(a.text, sizeof a.text, &ev);
        if (ev.type == GLM_EVENT_REASONING)
            append(a.reasoning, sizeof a.reasoning, &ev);
        a.n_none += ev.type == GLM_EVENT_NONE;
        if (ev.type == GLM_EVENT_TOOL_CALL) {
            a.n_call++;
            ck_assert_uint_ne(ev.call_id, 0);
            ck_assert(ev.arguments[0] == '{' && ev.arguments[ev.arguments_size - 1] == '}');
            if (result)
                ck_assert_msg(!glm_tool_result(s, ev.call_id, result, GLM_NTS, &err), "%s", err.message);
        }
    }
    a.end = ev;
    return a;
}

static const char weather_tools[] =
    "[{\"type\": \"function\", \"function\": {\"name\": \"get_weather\", \"description\": \"weather of a city\", "
    "\"parameters\": {\"type\": \"object\", \"properties\": {\"city\": {\"type\": \"string\"}}, \"required\": "
    "[\"city\"]}}}]";

static glm_session *weather_session(void)
{
    glm_error err = GLM_ERROR_INIT;
    glm_session *s = session(2048);
    greedy(s, 300);
    ck_assert_msg(!glm_session_tools(s, weather_tools, GLM_NTS, &err), "%s", err.message);
    say(s, "What is the weather in Oslo?");
    return s;
}

/* ---- conversation -------------------------------------------------------------------------------------------- */

START_TEST(an_answer_with_a_thought)
{
    glm_session *s = session(0);
    greedy(s, 0);
    say(s, "What is 23 + 58?");
    struct answer a = finish(s, 0, NULL);
    ck_assert_uint_eq(a.end.end_reason, GLM_END_STOP);
    ck_assert(a.reasoning[0] && a.text[0]);
    ck_assert(!strstr(a.text, "<") && !strstr(a.reasoning, "<"));
    ck_assert_uint_gt(a.end.n_think, 0);
    ck_assert_uint_gt(a.end.n_answer, 0);
    ck_assert_uint_gt(a.end.prefill_ns, 0);
    glm_session_close(s);
}
END_TEST

START_TEST(thinking_off)
{
    glm_turn_options o = GLM_TURN_OPTIONS_INIT;
    glm_error err = GLM_ERROR_INIT;
    glm_session *s = session(0);
    o.temperature = 0;
    o.thinking = GLM_THINK_OFF;
    ck_assert(!glm_session_turn(s, &o, &err));
    say(s, "What is 23 + 58?");
    struct answer a = finish(s, 0, NULL);
    ck_assert_str_eq(a.reasoning, "");
    ck_assert(a.text[0]);
    ck_assert_uint_eq(a.end.n_think, 0);
    glm_session_close(s);
}
END_TEST

START_TEST(budgets_do_not_change_the_answer)
{
    static const uint64_t budgets[] = { 1, 50000, 1000000, 16000000 };
    glm_session *s = session(0);
    greedy(s, 64);
    say(s, "What is 41 + 17?");
    struct answer whole = finish(s, 0, NULL);
    glm_session_close(s);
    for (size_t i = 0; i < sizeof budgets / sizeof *budgets; i++) {
        s = session(0);
        greedy(s, 64);
        say(s, "What is 41 + 17?");
        struct answer a = finish(s, budgets[i], NULL);
        ck_assert_str_eq(a.text, whole.text);
        ck_assert_str_eq(a.reasoning, whole.reasoning);
        if (budgets[i] == 1)
            ck_assert_uint_gt(a.n_none, 20); /* it really yields */
        glm_session_close(s);
    }
}
END_TEST

START_TEST(a_tool_call_answered_at_once)
{
    glm_session *s = weather_session();
    struct answer a = finish(s, 0, "sunny");
    ck_assert_uint_eq(a.n_call, 1);
    ck_assert_uint_eq(a.end.end_reason, GLM_END_STOP);
    ck_assert(a.text[0]);
    ck_assert_uint_gt(a.end.n_reused, 0); /* the second message reuses the first one's prompt */
    glm_session_close(s);
}
END_TEST

START_TEST(a_tool_call_answered_later)
{
    glm_error err = GLM_ERROR_INIT;
    glm_event ev = GLM_EVENT_INIT;
    glm_session *s = weather_session();
    struct answer direct = finish(s, 0, "sunny");
    glm_session_close(s);

    s = weather_session();
    uint64_t id = 0;
    while (ev.type != GLM_EVENT_TURN_END) {
        ck_assert(!glm_session_step(s, NULL, &ev, &err));
        id = ev.type == GLM_EVENT_TOOL_CALL ? ev.call_id : id;
    }
    ck_assert_uint_eq(ev.end_reason, GLM_END_TOOLS);
    ck_assert_int_eq(glm_session_step(s, NULL, &ev, &err), GLM_ESTATE);
    ck_assert_int_eq(glm_session_say(s, GLM_ROLE_USER, "x", GLM_NTS, &err), GLM_ESTATE);
    ck_assert_int_eq(glm_tool_result(s, id + 7, "x", GLM_NTS, &err), GLM_EINVAL);
    ck_assert(!glm_tool_result(s, id, "sunny", GLM_NTS, &err));
    ck_assert_int_eq(glm_tool_result(s, id, "sunny", GLM_NTS, &err), GLM_EINVAL);
    struct answer later = finish(s, 0, NULL);
    ck_assert_str_eq(later.text, direct.text);
    glm_session_close(s);
}
END_TEST

START_TEST(prefix_reuse)
{
    glm_stats stats = GLM_STATS_INIT;
    glm_error err = GLM_ERROR_INIT;
    glm_session *s = session(0);
    greedy(s, 40);
    say(s, "Hello!");
    struct answer first = finish(s, 0, NULL);
    say(s, "What is 2 + 3?");
    struct answer second = finish(s, 0, NULL);
    ck_assert_uint_eq(first.end.n_reused, 0);
    ck_assert_uint_ge(second.end.n_reused, first.end.n_prompt - 1);
    ck_assert(!glm_session_stats(s, &stats, &err));
    ck_assert_uint_eq(stats.n_reused, second.end.n_reused);
    ck_assert_uint_eq(stats.n_prompt, first.end.n_prompt + second.end.n_prompt);
    glm_session_close(s);
}
END_TEST

/* The same conversation given as an array answers the same. */
START_TEST(messages_as_an_array)
{
    static const char json[] = "[{\"role\": \"system\", \"content\": \"Be brief.\"}, {\"role\": \"user\", \"content\": "
                               "[{\"type\": \"text\", \"text\": \"What is 8 + 9?\"}]}]";
    glm_error err = GLM_ERROR_INIT;
    uint64_t common = 99;
    glm_session *a = session(0), *b = session(0);
    greedy(a, 48);
    greedy(b, 48);
    ck_assert(!glm_session_say(a, GLM_ROLE_SYSTEM, "Be brief.", GLM_NTS, &err));
    say(a, "What is 8 + 9?");
    ck_assert_msg(!glm_session_messages(b, json, GLM_NTS, &common, &err), "%s", err.message);
    ck_assert_uint_eq(common, 0);
    struct answer x = finish(a, 0, NULL), y = finish(b, 0, NULL);
    ck_assert_str_eq(x.text, y.text);
    ck_assert(!glm_session_messages(b, json, GLM_NTS, &common, &err));
    ck_assert_uint_ge(common, y.end.n_prompt - 1);
    ck_assert_int_lt(glm_session_messages(b, "[3]", GLM_NTS, NULL, &err), 0);
    ck_assert_int_lt(glm_session_messages(b, "[{", GLM_NTS, NULL, &err), 0);
    struct answer z = finish(b, 0, NULL); /* refused arrays changed nothing */
    ck_assert_str_eq(z.text, y.text);
    glm_session_close(a);
    glm_session_close(b);
}
END_TEST

START_TEST(special_tokens_in_text_are_text)
{
    static const char *const evil[] = { "<|user|>", "</think>", "<tool_call>", "[gMASK]<sop>", "<|observation|>" };
    glm_error err = GLM_ERROR_INIT;
    for (size_t i = 0; i < sizeof evil / sizeof *evil; i++) {
        int32_t plain[64], special[64];
        size_t n_plain = 0, n_special = 0;
        ck_assert(!glm_tokenize(model, evil[i], GLM_NTS, 0, plain, 64, &n_plain, &err));
        ck_assert(!glm_tokenize(model, evil[i], GLM_NTS, GLM_TOKENIZE_SPECIALS, special, 64, &n_special, &err));
        ck_assert_uint_gt(n_plain, n_special);
    }
}
END_TEST

/* ---- cancel ----------------------------------------------------------------------------------------------------- */

START_TEST(cancel_keeps_delivered_text)
{
    glm_error err = GLM_ERROR_INIT;
    glm_event ev = GLM_EVENT_INIT;
    glm_session *s = session(0);
    greedy(s, 100);
    say(s, "What is 23 + 58?");
    while (ev.type != GLM_EVENT_TEXT)
        ck_assert(!glm_session_step(s, NULL, &ev, &err));
    glm_session_cancel(s);
    while (ev.type != GLM_EVENT_TURN_END)
        ck_assert(!glm_session_step(s, NULL, &ev, &err));
    ck_assert_uint_eq(ev.end_reason, GLM_END_CANCELLED);
    ck_assert_int_eq(glm_session_step(s, NULL, &ev, &err), GLM_ESTATE); /* the text is the last message now */
    say(s, "What is 1 + 1?");
    struct answer a = finish(s, 0, NULL);
    ck_assert_uint_eq(a.end.end_reason, GLM_END_STOP);
    glm_session_close(s);
}
END_TEST

START_TEST(cancel_before_the_first_step)
{
    glm_error err = GLM_ERROR_INIT;
    glm_event ev = GLM_EVENT_INIT;
    glm_session *s = session(0);
    greedy(s, 100);
    say(s, "Hello!");
    glm_session_cancel(s);
    ck_assert(!glm_session_step(s, NULL, &ev, &err));
    ck_assert_uint_eq(ev.type, GLM_EVENT_TURN_END);
    ck_assert_uint_eq(ev.end_reason, GLM_END_CANCELLED);
    struct answer a = finish(s, 0, NULL); /* asked again, it answers */
    ck_assert_uint_eq(a.end.end_reason, GLM_END_STOP);
    glm_session_close(s);
}
END_TEST

START_TEST(cancel_with_calls_waiting)
{
    glm_session *s = weather_session();
    struct answer a = finish(s, 0, NULL);
    ck_assert_uint_eq(a.end.end_reason, GLM_END_TOOLS);
    glm_session_cancel(s);
    a = finish(s, 0, NULL);
    ck_assert_uint_eq(a.end.end_reason, GLM_END_CANCELLED);
    say(s, "Hello!");
    a = finish(s, 0, "sunny");
    ck_assert_uint_eq(a.end.end_reason, GLM_END_STOP);
    glm_session_close(s);
}
END_TEST

/* With its results there, but before the next message: nothing is under way that could be kept. */
START_TEST(cancel_between_messages)
{
    glm_session *s = weather_session();
    glm_event ev = GLM_EVENT_INIT;
    glm_error err = GLM_ERROR_INIT;
    uint64_t id = 0, before = 0, after = 0;
    while (ev.type != GLM_EVENT_TURN_END) {
        ck_assert(!glm_session_step(s, NULL, &ev, &err));
        id = ev.type == GLM_EVENT_TOOL_CALL ? ev.call_id : id;
    }
    ck_assert(!glm_session_mark(s, &before, &err));
    ck_assert(!glm_tool_result(s, id, "sunny", GLM_NTS, &err));
    glm_session_cancel(s);
    ck_assert_uint_eq(finish(s, 0, NULL).end.end_reason, GLM_END_CANCELLED);
    ck_assert(!glm_session_mark(s, &after, &err));
    ck_assert_uint_eq(after, before + 1); /* the result, and no message twice */
    ck_assert_uint_eq(finish(s, 0, NULL).end.end_reason, GLM_END_STOP);
    glm_session_close(s);
}
END_TEST

static struct answer finish_in_batch(glm_session *s)
{
    glm_event ev = GLM_EVENT_INIT, *evs = &ev;
    glm_error err = GLM_ERROR_INIT;
    struct answer a;
    memset(&a, 0, sizeof a);
    while (ev.type != GLM_EVENT_TURN_END)
        ck_assert_msg(!glm_sessions_step(&s, 1, NULL, &evs, &err), "%s", err.message);
    a.end = ev;
    return a;
}

/* A call that takes the turn's last token is carried out, but the turn does not go on past its limit: with results given
 * at once, later, and later in a batch. */
START_TEST(a_call_at_the_limit)
{
    for (int late = 0; late < 3; late++) {
        glm_session *s = weather_session();
        glm_error err = GLM_ERROR_INIT;
        glm_event ev = GLM_EVENT_INIT;
        uint64_t id = 0, n;
        struct answer a = finish(s, 0, NULL);
        n = a.end.n_think + a.end.n_answer;
        glm_session_close(s);
        s = weather_session();
        greedy(s, (uint32_t)n);
        while (ev.type != GLM_EVENT_TURN_END) {
            ck_assert(!glm_session_step(s, NULL, &ev, &err));
            id = ev.type == GLM_EVENT_TOOL_CALL ? ev.call_id : id;
            if (ev.type == GLM_EVENT_TOOL_CALL && !late)
                ck_assert(!glm_tool_result(s, id, "sunny", GLM_NTS, &err));
        }
        if (late) {
            ck_assert_uint_eq(ev.end_reason, GLM_END_TOOLS);
            ck_assert(!glm_tool_result(s, id, "sunny", GLM_NTS, &err));
            ev = late == 1 ? finish(s, 0, NULL).end : finish_in_batch(s).end;
        }
        ck_assert_uint_eq(ev.end_reason, GLM_END_LENGTH);
        ck_assert_uint_eq(ev.n_think + ev.n_answer, n);
        greedy(s, 100);
        ck_assert_uint_eq(finish(s, 0, NULL).end.end_reason, GLM_END_STOP); /* the next turn answers the result */
        glm_session_close(s);
    }
}
END_TEST

static void *cancel_soon(void *s)
{
    usleep(2000);
    glm_session_cancel(s);
    return NULL;
}

/* What a cancelled session says next is what a fresh one with the same conversation says. */
START_TEST(cancel_from_another_thread)
{
    for (int i = 0; i < 20; i++) {
        pthread_t thread;
        glm_session *s = session(0);
        greedy(s, 400);
        say(s, "What is 123 + 456?");
        ck_assert(!pthread_create(&thread, NULL, cancel_soon, s));
        struct answer a = finish(s, 0, NULL);
        pthread_join(thread, NULL);
        ck_assert(a.end.end_reason == GLM_END_CANCELLED || a.end.end_reason == GLM_END_STOP);
        glm_session_close(s);
    }
}
END_TEST

/* A conversation of its own in a thread; no check in it, since Check's are for one thread. */
struct talk {
    glm_session *s;
    char text[4096];
    size_t size;
    int32_t status;
};

static void *talk_on(void *arg)
{
    struct talk *t = arg;
    for (int turn = 0; turn < 2 && !t->status; turn++) {
        glm_event ev = GLM_EVENT_INIT;
        const char *text = turn ? "What is 7 + 5?" : "Hello! Who are you?";
        t->status = glm_session_say(t->s, GLM_ROLE_USER, text, GLM_NTS, NULL);
        while (!t->status && ev.type != GLM_EVENT_TURN_END) {
            t->status = glm_session_step(t->s, NULL, &ev, NULL);
            if (!t->status && ev.type == GLM_EVENT_TEXT && t->size + ev.text_size < sizeof t->text) {
                memcpy(t->text + t->size, ev.text, ev.text_size);
                t->size += ev.text_size;
            }
        }
    }
    return NULL;
}

/* Two threads on one model say what one alone says. */
START_TEST(sessions_in_two_threads)
{
    struct talk t[3];
    pthread_t thread[2];
    memset(t, 0, sizeof t);
    for (int i = 0; i < 3; i++) {
        t[i].s = session(0);
        greedy(t[i].s, 60);
    }
    talk_on(&t[2]);
    for (int i = 0; i < 2; i++)
        ck_assert(!pthread_create(&thread[i], NULL, talk_on, &t[i]));
    for (int i = 0; i < 2; i++)
        pthread_join(thread[i], NULL);
    ck_assert_uint_gt(t[2].size, 10);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(t[i].status, GLM_OK);
        ck_assert_str_eq(t[i].text, t[2].text);
        glm_session_close(t[i].s);
    }
}
END_TEST

/* ---- tokens ------------------------------------------------------------------------------------------------------ */

static void feed_all(glm_session *s, const int32_t *ids, size_t n, uint32_t rows)
{
    glm_error err = GLM_ERROR_INIT;
    glm_event ev = GLM_EVENT_INIT;
    ck_assert_msg(!glm_session_feed(s, ids, n, rows, &err), "%s", err.message);
    while (ev.type != GLM_EVENT_READY)
        ck_assert(!glm_session_step(s, NULL, &ev, &err));
    ck_assert_uint_eq(ev.rows_done, n);
}

START_TEST(the_token_level)
{
    glm_model_info info = GLM_MODEL_INFO_INIT;
    glm_error err = GLM_ERROR_INIT;
    int32_t ids[64], id = -1;
    size_t n = 0;
    const float *all, *last, *hidden;
    glm_session *a = session(0), *b = session(0);

    ck_assert(!glm_model_describe(model, &info, &err));
    ck_assert(!glm_tokenize(model, "The quick brown fox jumps over 12 dogs", GLM_NTS, 0, ids, 64, &n, &err));
    ck_assert_uint_gt(n, 4);
    ck_assert_int_eq(glm_session_logits(a, 0, &all, &err), GLM_ESTATE);
    feed_all(a, ids, n, GLM_ROWS_ALL);
    for (size_t i = 0; i < n; i++) { /* one by one: the same bits */
        feed_all(b, ids + i, 1, GLM_ROWS_LAST);
        ck_assert(!glm_session_logits(a, i, &all, &err));
        ck_assert(!glm_session_logits(b, GLM_LAST_ROW, &last, &err));
        ck_assert(!memcmp(all, last, info.n_vocab * sizeof *all));
        ck_assert(!glm_session_hidden(a, i, &hidden, &err));
        ck_assert(isfinite(hidden[0]));
    }
    ck_assert_int_eq(glm_session_logits(a, n, &all, &err), GLM_EINVAL);
    greedy(b, 0);
    ck_assert(!glm_session_sample(b, &id, &err));
    for (uint32_t i = 0; i < info.n_vocab; i++)
        ck_assert(last[i] < last[id] || (last[i] == last[id] && (int32_t)i >= id));
    ids[0] = (int32_t)info.n_vocab;
    ck_assert_int_eq(glm_session_feed(b, ids, 1, GLM_ROWS_LAST, &err), GLM_EINVAL);
    ids[0] = -1;
    ck_assert_int_eq(glm_session_feed(b, ids, 1, GLM_ROWS_LAST, &err), GLM_EINVAL);
    glm_session_close(a);
    glm_session_close(b);
}
END_TEST

START_TEST(tokenize_and_back)
{
    static const char text[] = "caf\xc3\xa9 \xe2\x82\xac 42\n";
    glm_error err = GLM_ERROR_INIT;
    int32_t ids[64];
    char back[64];
    size_t n = 0, size = 0;
    ck_assert_int_eq(glm_tokenize(model, text, GLM_NTS, 0, NULL, 0, &n, &err), GLM_ELIMIT);
    ck_assert_uint_gt(n, 0);
    ck_assert(!glm_tokenize(model, text, GLM_NTS, 0, ids, n, &n, &err));
    ck_assert_int_eq(glm_detokenize(model, ids, n, NULL, 0, &size, &err), GLM_ELIMIT);
    ck_assert_uint_eq(size, sizeof text - 1);
    ck_assert_int_eq(glm_detokenize(model, ids, n, back, size, &size, &err), GLM_ELIMIT);
    ck_assert(!glm_detokenize(model, ids, n, back, sizeof back, &size, &err));
    ck_assert_str_eq(back, text);
    ids[0] = INT32_MAX;
    ck_assert_int_eq(glm_detokenize(model, ids, 1, back, sizeof back, &size, &err), GLM_EINVAL);
    ck_assert_int_eq(glm_tokenize(model, "a\xff", GLM_NTS, 0, ids, 64, &n, &err), GLM_EUTF8);
    ck_assert_uint_eq(err.offset, 1);
    ck_assert(!glm_tokenize(model, "", 0, 0, NULL, 0, &n, &err));
    ck_assert_uint_eq(n, 0);
}
END_TEST

/* ---- misuse ------------------------------------------------------------------------------------------------------ */

START_TEST(null_arguments)
{
    glm_error err = GLM_ERROR_INIT;
    glm_model *m = (glm_model *)&err;
    glm_session *s = (glm_session *)&err;
    glm_event ev = GLM_EVENT_INIT;
    ck_assert_int_eq(glm_model_open(NULL, NULL, &m, &err), GLM_EINVAL);
    ck_assert_ptr_null(m);
    ck_assert_int_eq(glm_model_open("x", NULL, NULL, &err), GLM_EINVAL);
    ck_assert_int_eq(glm_session_open(NULL, NULL, &s, NULL), GLM_EINVAL);
    ck_assert_ptr_null(s);
    s = session(0);
    ck_assert_int_eq(glm_session_step(NULL, NULL, &ev, &err), GLM_EINVAL);
    ck_assert_int_eq(glm_session_step(s, NULL, NULL, &err), GLM_EINVAL);
    ck_assert_int_eq(glm_session_say(s, GLM_ROLE_USER, NULL, 3, &err), GLM_EINVAL);
    ck_assert_int_eq(glm_session_say(NULL, GLM_ROLE_USER, "x", 1, &err), GLM_EINVAL);
    ck_assert_int_eq(glm_session_add(s, NULL, &err), GLM_EINVAL);
    ck_assert_int_eq(glm_session_tools(s, NULL, 0, &err), GLM_EINVAL);
    ck_assert_int_eq(glm_session_logits(s, 0, NULL, &err), GLM_EINVAL);
    ck_assert_int_eq(glm_session_sample(s, NULL, &err), GLM_EINVAL);
    ck_assert_int_eq(glm_session_feed(s, NULL, 1, 0, &err), GLM_EINVAL);
    ck_assert_int_eq(glm_model_describe(NULL, NULL, &err), GLM_EINVAL);
    ck_assert_int_eq(glm_tokenize(model, NULL, 3, 0, NULL, 0, NULL, &err), GLM_EINVAL);
    glm_session_cancel(NULL);
    glm_session_close(NULL);
    glm_model_close(NULL);
    glm_session_close(s);
}
END_TEST

START_TEST(values_out_of_range)
{
    static const float bad[] = { INFINITY, -INFINITY, -1.0f, 1e38f };
    glm_error err = GLM_ERROR_INIT;
    glm_turn_options o = GLM_TURN_OPTIONS_INIT;
    glm_session *s = session(0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        glm_turn_options t = o;
        t.top_p = bad[i];
        ck_assert_int_eq(glm_session_turn(s, &t, &err), GLM_EINVAL);
        t = o;
        t.min_p = bad[i];
        ck_assert_int_eq(glm_session_turn(s, &t, &err), GLM_EINVAL);
        t = o;
        t.temperature = bad[i];
        if (bad[i] < 0 || isinf(bad[i]))
            ck_assert_int_eq(glm_session_turn(s, &t, &err), GLM_EINVAL);
        t = o;
        t.repeat_penalty = bad[i];
        if (bad[i] < 0 || isinf(bad[i]))
            ck_assert_int_eq(glm_session_turn(s, &t, &err), GLM_EINVAL);
    }
    o.top_k = -2;
    ck_assert_int_eq(glm_session_turn(s, &o, &err), GLM_EINVAL);
    o.top_k = INT32_MIN;
    ck_assert_int_eq(glm_session_turn(s, &o, &err), GLM_EINVAL);
    o.top_k = -1;
    o.thinking = 77;
    ck_assert_int_eq(glm_session_turn(s, &o, &err), GLM_EINVAL);
    o.thinking = GLM_THINK_ON;
    o.n_logprobs = 1;
    ck_assert_int_eq(glm_session_turn(s, &o, &err), GLM_ENOTSUP);
    ck_assert_int_eq(glm_session_say(s, 17, "x", 1, &err), GLM_EINVAL);
    ck_assert_int_eq(glm_session_say(s, GLM_ROLE_USER, "ab\xc3", 3, &err), GLM_EUTF8);
    ck_assert_uint_eq(err.offset, 2);
    ck_assert_int_eq(glm_session_tools(s, "{", GLM_NTS, &err), GLM_EFORMAT);
    ck_assert_int_eq(glm_session_tools(s, "[{\"type\": \"function\"}]", GLM_NTS, &err), GLM_ESCHEMA);
    ck_assert(err.where[0] == '/');
    glm_session_close(s);
}
END_TEST

START_TEST(struct_sizes)
{
    struct {
        glm_turn_options o;
        uint64_t more;
    } newer = { GLM_TURN_OPTIONS_INIT, 0 };
    glm_error err = GLM_ERROR_INIT;
    glm_session *s = session(0);
    newer.o.struct_size = sizeof newer;
    ck_assert(!glm_session_turn(s, &newer.o, &err)); /* a newer host that uses nothing new */
    newer.more = 1;
    ck_assert_int_eq(glm_session_turn(s, &newer.o, &err), GLM_EVERSION);
    newer.o.struct_size = 3;
    ck_assert_int_eq(glm_session_turn(s, &newer.o, &err), GLM_EINVAL);
    struct {
        glm_model_info i;
        uint64_t more;
    } info = { GLM_MODEL_INFO_INIT, 7 };
    info.i.struct_size = sizeof info;
    ck_assert(!glm_model_describe(model, &info.i, &err));
    ck_assert_uint_eq(info.i.struct_size, sizeof info);
    ck_assert_uint_eq(info.more, 0);
    glm_session_close(s);
}
END_TEST

/* Hosts compiled against a header whose structs were shorter. */
START_TEST(older_hosts)
{
    glm_error err = GLM_ERROR_INIT;
    glm_session *s = session(0);
    glm_stats st;
    memset(&st, 0x5a, sizeof st);
    st.struct_size = 64;
    ck_assert(!glm_session_stats(s, &st, &err));
    ck_assert_uint_eq(st.struct_size, 64);
    ck_assert_uint_eq(st.n_generated, 0);
    ck_assert_uint_eq(((const unsigned char *)&st)[64], 0x5a); /* what lies behind is the host's */
    st.struct_size = 63;
    ck_assert_int_eq(glm_session_stats(s, &st, &err), GLM_EINVAL);
    glm_turn_options turn = GLM_TURN_OPTIONS_INIT;
    turn.struct_size = (uint32_t)offsetof(glm_turn_options, keep_thoughts);
    ck_assert(!glm_session_turn(s, &turn, &err));
    glm_session_close(s);
    glm_session_options o = GLM_SESSION_OPTIONS_INIT;
    o.struct_size = (uint32_t)offsetof(glm_session_options, speculation);
    ck_assert(!glm_session_open(model, &o, &s, &err));
    glm_session_close(s);
}
END_TEST

START_TEST(states)
{
    glm_error err = GLM_ERROR_INIT;
    glm_event ev = GLM_EVENT_INIT;
    int32_t id = 0;
    glm_session *s = session(0);
    ck_assert_int_eq(glm_session_step(s, NULL, &ev, &err), GLM_ESTATE);
    ck_assert_int_eq(glm_session_sample(s, &id, &err), GLM_ESTATE);
    greedy(s, 50);
    say(s, "What is 12 + 13?");
    ck_assert(!glm_session_step(s, NULL, &ev, &err));
    ck_assert_int_eq(glm_session_say(s, GLM_ROLE_USER, "x", 1, &err), GLM_ESTATE);
    ck_assert_int_eq(glm_session_tools(s, "[]", 2, &err), GLM_ESTATE);
    ck_assert_int_eq(glm_session_feed(s, &id, 1, 0, &err), GLM_ESTATE);
    ck_assert_int_eq(glm_tool_result(s, 1, "x", 1, &err), GLM_EINVAL);
    finish(s, 0, NULL);
    ck_assert_int_eq(glm_session_step(s, NULL, &ev, &err), GLM_ESTATE);
    glm_session_close(s);
}
END_TEST

START_TEST(context_limits)
{
    glm_error err = GLM_ERROR_INIT;
    glm_event ev = GLM_EVENT_INIT;
    glm_turn_options o = GLM_TURN_OPTIONS_INIT;
    glm_session *s = session(24);
    o.temperature = 0;
    o.max_tokens = 24;
    ck_assert(!glm_session_turn(s, &o, &err));
    say(s, "What is 12 + 13?");
    ck_assert_int_eq(glm_session_step(s, NULL, &ev, &err), GLM_ECONTEXT);
    ck_assert(strstr(err.message, "24"));
    o.max_tokens = 0; /* what the context holds */
    ck_assert(!glm_session_turn(s, &o, &err));
    struct answer a = finish(s, 0, NULL);
    ck_assert_uint_eq(a.end.end_reason, GLM_END_LENGTH);
    ck_assert_uint_eq(a.end.n_prompt + a.end.n_think + a.end.n_answer, 24);
    glm_session_close(s);
}
END_TEST

START_TEST(kv_cap)
{
    glm_model_options mo = GLM_MODEL_OPTIONS_INIT;
    glm_model_info info = GLM_MODEL_INFO_INIT;
    glm_error err = GLM_ERROR_INIT;
    glm_event ev = GLM_EVENT_INIT;
    glm_model *m;
    glm_session *a, *b;
    ck_assert(!glm_model_describe(model, &info, &err));
    mo.kv_bytes = info.kv_bytes_per_token * 128;
    ck_assert(!glm_model_open(model_path(), &mo, &m, &err));
    ck_assert(!glm_session_open(m, NULL, &a, &err));
    ck_assert(!glm_session_open(m, NULL, &b, &err));
    glm_model_close(m); /* sessions keep it */
    greedy(a, 40);
    greedy(b, 300);
    say(a, "Hello!");
    say(b, "Hello!");
    finish(a, 0, NULL);
    ck_assert_int_eq(glm_session_step(b, NULL, &ev, &err), GLM_ENOMEM);
    glm_session_close(a);
    greedy(b, 100);
    finish(b, 0, NULL);
    glm_session_close(b);
}
END_TEST

struct rogue {
    glm_session *s;
    int32_t busy;
};

static void *step_from_runner(void *user)
{
    struct rogue *r = user;
    glm_error err = GLM_ERROR_INIT;
    glm_event ev = GLM_EVENT_INIT;
    r->busy = glm_session_step(r->s, NULL, &ev, &err);
    return NULL;
}

static struct rogue rogue;
static unsigned runner_calls;

/* A host's job system that runs tasks backwards, one after the other, and tries a second thread on the session. */
static void GLM_CALL run_backwards(void *user, glm_task_fn fn, void *task, uint32_t count)
{
    (void)user;
    if (rogue.s && !rogue.busy) {
        pthread_t thread;
        ck_assert(!pthread_create(&thread, NULL, step_from_runner, &rogue));
        pthread_join(thread, NULL);
    }
    runner_calls++;
    while (count-- > 0)
        fn(task, count);
}

START_TEST(a_runner_and_a_second_thread)
{
    glm_runner runner = { sizeof runner, 3, NULL, run_backwards };
    glm_model_options mo = GLM_MODEL_OPTIONS_INIT;
    glm_error err = GLM_ERROR_INIT;
    glm_model *own = model, *m;
    glm_session *s = session(0);
    greedy(s, 60);
    say(s, "What is 5 + 6?");
    struct answer want = finish(s, 0, NULL);
    glm_session_close(s);

    mo.runner = &runner;
    ck_assert(!glm_model_open(model_path(), &mo, &m, &err));
    model = m;
    s = session(0);
    model = own;
    greedy(s, 60);
    say(s, "What is 5 + 6?");
    rogue.s = s;
    struct answer got = finish(s, 0, NULL);
    rogue.s = NULL;
    ck_assert_int_eq(rogue.busy, GLM_EBUSY);
    ck_assert_uint_gt(runner_calls, 0);
    ck_assert_str_eq(got.text, want.text);
    ck_assert_str_eq(got.reasoning, want.reasoning);
    glm_session_close(s);
    glm_model_close(m);
}
END_TEST

START_TEST(in_a_forked_child)
{
    glm_session *s = session(0);
    int status = 0;
    say(s, "Hello!");
    pid_t pid = fork();
    if (pid == 0) {
        glm_event ev = GLM_EVENT_INIT;
        glm_session *other = NULL;
        int bad = glm_session_step(s, NULL, &ev, NULL) != GLM_EFORK;
        bad |= glm_session_open(model, NULL, &other, NULL) != GLM_EFORK;
        glm_session_close(s);
        glm_model_close(model);
        _exit(bad);
    }
    waitpid(pid, &status, 0);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    greedy(s, 20);
    finish(s, 0, NULL);
    glm_session_close(s);
}
END_TEST

START_TEST(estimate_and_describe)
{
    glm_estimate e = GLM_ESTIMATE_INIT;
    glm_model_info info = GLM_MODEL_INFO_INIT;
    glm_session_options so = GLM_SESSION_OPTIONS_INIT;
    glm_error err = GLM_ERROR_INIT;
    so.n_ctx = 640;
    ck_assert(!glm_model_describe(model, &info, &err));
    ck_assert_msg(!glm_model_estimate(model_path(), NULL, &so, 3, &e, &err), "%s", err.message);
    ck_assert_uint_eq(e.kv_bytes, 3 * 640 * info.kv_bytes_per_token);
    ck_assert_uint_eq(e.mapped_bytes, info.weight_bytes);
    ck_assert_uint_gt(e.private_bytes, 0);
    ck_assert_int_lt(glm_model_estimate("/nowhere", NULL, &so, 3, &e, &err), 0);
    ck_assert(strstr(err.message, "nowhere") || strstr(err.where, "nowhere"));
}
END_TEST

START_TEST(a_tokenizer_without_weights)
{
    glm_model_options mo = GLM_MODEL_OPTIONS_INIT;
    glm_error err = GLM_ERROR_INIT;
    glm_model *m;
    glm_session *s;
    size_t n = 0;
    mo.weights = GLM_WEIGHTS_NONE;
    ck_assert_msg(!glm_model_open(model_path(), &mo, &m, &err), "%s", err.message);
    ck_assert_int_eq(glm_tokenize(m, "Hello", GLM_NTS, 0, NULL, 0, &n, &err), GLM_ELIMIT);
    ck_assert_uint_gt(n, 0);
    ck_assert_int_eq(glm_session_open(m, NULL, &s, &err), GLM_ESTATE);
    glm_model_close(m);
}
END_TEST

START_TEST(names_and_version)
{
    ck_assert_uint_eq(glm_version(), GLM_VERSION_MAJOR * 10000 + GLM_VERSION_MINOR * 100 + GLM_VERSION_PATCH);
    ck_assert_str_eq(glm_status_name(GLM_OK), "GLM_OK");
    ck_assert_str_eq(glm_status_name(GLM_EFORK), "GLM_EFORK");
    ck_assert_str_eq(glm_status_name(GLM_ENOTSUP), "GLM_ENOTSUP");
    ck_assert_str_eq(glm_status_name(-17), "unknown status");
    ck_assert_str_eq(glm_status_name(1), "unknown status");
    ck_assert_str_eq(glm_status_name(INT32_MIN), "unknown status");
}
END_TEST

int main(void)
{
    const TTest *const tests[] = { an_answer_with_a_thought, thinking_off, budgets_do_not_change_the_answer,
        a_tool_call_answered_at_once, a_tool_call_answered_later, prefix_reuse, messages_as_an_array,
        special_tokens_in_text_are_text, cancel_keeps_delivered_text, cancel_before_the_first_step,
        cancel_with_calls_waiting, cancel_between_messages, a_call_at_the_limit, cancel_from_another_thread,
        sessions_in_two_threads, the_token_level, tokenize_and_back, null_arguments,
        values_out_of_range, struct_sizes, older_hosts, states, context_limits, kv_cap, a_runner_and_a_second_thread,
        in_a_forked_child, estimate_and_describe, a_tokenizer_without_weights, names_and_version };
    Suite *suite = suite_create("api");
    TCase *tc = tcase_create("api");
    tcase_add_checked_fixture(tc, open_model, close_model);
    tcase_set_timeout(tc, 60);
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        tcase_add_test(tc, tests[i]);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int n_failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return n_failed != 0;
}
