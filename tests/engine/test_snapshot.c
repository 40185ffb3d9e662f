/* test_snapshot.c: a session that was saved and loaded goes on as the one that was not: logits bit for bit, tokens found
 * again in the cache, calls that wait, files on disk. What damaged and hostile snapshots do is in
 * test_snapshot_damage.c. */
#include "snapshot_edit.h"

#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static glm_model *model;
static glm_model_info info = GLM_MODEL_INFO_INIT;

static void open_model(void)
{
    glm_error err = GLM_ERROR_INIT;
    ck_assert_msg(!glm_model_open(getenv("GLM_TEST_MODEL"), NULL, &model, &err), "%s: %s", err.where, err.message);
    ck_assert(!glm_model_describe(model, &info, &err));
}

static void close_model(void) { glm_model_close(model); }

#define OK(call)                                                                                                       \
    do {                                                                                                               \
        glm_error err = GLM_ERROR_INIT;                                                                                \
        int32_t rc_ = (call);                                                                                          \
        ck_assert_msg(rc_ == GLM_OK, "%s: %s: %s", glm_status_name(rc_), err.where, err.message);                      \
    } while (0)
#define REFUSED(code_, call)                                                                                           \
    do {                                                                                                               \
        glm_error err = GLM_ERROR_INIT;                                                                                \
        int32_t rc_ = (call);                                                                                          \
        ck_assert_msg(rc_ == (code_), "%s, not %s: %s", glm_status_name(rc_), glm_status_name(code_), err.message);    \
        ck_assert_int_eq(err.code, code_);                                                                             \
        ck_assert(err.message[0]);                                                                                     \
    } while (0)

static glm_session *session(uint32_t kv_type, uint32_t n_ctx)
{
    glm_session_options o = GLM_SESSION_OPTIONS_INIT;
    glm_session *s = NULL;
    o.kv_type = kv_type;
    o.n_ctx = n_ctx;
    OK(glm_session_open(model, &o, &s, &err));
    return s;
}

static void feed(glm_session *s, const int32_t *ids, size_t n)
{
    glm_event ev = GLM_EVENT_INIT;
    if (n == 0)
        return;
    OK(glm_session_feed(s, ids, n, GLM_ROWS_LAST, &err));
    while (ev.type != GLM_EVENT_READY)
        OK(glm_session_step(s, NULL, &ev, &err));
}

static const float *logits(glm_session *s)
{
    const float *at = NULL;
    OK(glm_session_logits(s, GLM_LAST_ROW, &at, &err));
    return at;
}

static void save(glm_session *s, struct snap_bytes *to)
{
    glm_stream stream;
    to->size = 0;
    stream = snap_stream(to);
    OK(glm_session_save_to(s, &stream, &err));
}

static glm_session *load(struct snap_bytes *from)
{
    glm_session *s = NULL;
    OK(snap_load(model, from, NULL, &s, &err));
    ck_assert_uint_eq(from->at, from->size);
    return s;
}

static glm_session *saved_and_loaded(glm_session *s)
{
    struct snap_bytes bytes = { 0 };
    save(s, &bytes);
    glm_session *loaded = load(&bytes);
    snap_bytes_free(&bytes);
    return loaded;
}

static void greedy(glm_session *s, uint32_t max_tokens)
{
    glm_turn_options o = GLM_TURN_OPTIONS_INIT;
    o.temperature = 0;
    o.max_tokens = max_tokens;
    OK(glm_session_turn(s, &o, &err));
}

static void say(glm_session *s, const char *text) { OK(glm_session_say(s, GLM_ROLE_USER, text, GLM_NTS, &err)); }

struct answer {
    char text[8192];
    uint64_t call_id;
    glm_event end;
};

static struct answer finish(glm_session *s)
{
    glm_event ev = GLM_EVENT_INIT;
    struct answer a;
    memset(&a, 0, sizeof a);
    while (ev.type != GLM_EVENT_TURN_END) {
        OK(glm_session_step(s, NULL, &ev, &err));
        if (ev.type == GLM_EVENT_TEXT || ev.type == GLM_EVENT_REASONING) {
            ck_assert_uint_lt(strlen(a.text) + ev.text_size, sizeof a.text);
            strcat(a.text, ev.text);
        }
        if (ev.type == GLM_EVENT_TOOL_CALL)
            a.call_id = ev.call_id;
    }
    a.end = ev;
    return a;
}

static void same_answer(const struct answer *a, const struct answer *b)
{
    ck_assert_str_eq(a->text, b->text);
    ck_assert_uint_eq(a->end.n_prompt, b->end.n_prompt);
    ck_assert_uint_eq(a->end.n_reused, b->end.n_reused);
    ck_assert_uint_eq(a->end.n_answer, b->end.n_answer);
    ck_assert_uint_eq(a->end.n_think, b->end.n_think);
    ck_assert_uint_eq(a->end.end_reason, b->end.end_reason);
    ck_assert_uint_eq(a->call_id, b->call_id);
}

/* ---- tokens ------------------------------------------------------------------------------------------------------ */

START_TEST(tokens_in_every_kv_type)
{
    static const size_t counts[] = { 0, 1, 63, 64, 65, 700 };
    uint32_t type = (uint32_t)_i;
    int32_t ids[720];

    for (int32_t i = 0; i < 720; i++)
        ids[i] = 1 + i * 37 % 1900;
    for (size_t k = 0; k < sizeof counts / sizeof *counts; k++) {
        glm_session *a = session(type, 1024);
        feed(a, ids, counts[k]);
        glm_session *b = saved_and_loaded(a);
        for (size_t i = counts[k]; i < counts[k] + 3; i++) { /* over a page's border, too */
            feed(a, ids + i, 1);
            feed(b, ids + i, 1);
            ck_assert_mem_eq(logits(a), logits(b), info.n_vocab * sizeof(float));
        }
        glm_session_close(a);
        glm_session_close(b);
    }
}
END_TEST

START_TEST(more_tokens_than_a_group_of_blocks)
{
    static int32_t ids[3000];
    glm_session *a = session(GLM_KV_F32, 0), *b;

    for (int32_t i = 0; i < 3000; i++)
        ids[i] = 1 + i * 131 % 1900;
    feed(a, ids, 3000);
    b = saved_and_loaded(a);
    feed(a, ids, 2);
    feed(b, ids, 2);
    ck_assert_mem_eq(logits(a), logits(b), info.n_vocab * sizeof(float));
    glm_session_close(a);
    glm_session_close(b);
}
END_TEST

/* What lies in the pages behind the last token is not in the file: two sessions with the same tokens give the same bytes. */
START_TEST(the_same_session_gives_the_same_bytes)
{
    static const int32_t ids[] = { 5, 6, 7, 8, 9 };
    struct snap_bytes x = { 0 }, y = { 0 };
    glm_session *a = session(GLM_KV_F32, 256), *b = session(GLM_KV_F32, 256);

    feed(a, ids, 5);
    feed(b, ids, 3);
    feed(b, ids + 3, 2);
    save(a, &x);
    save(b, &y);
    ck_assert_uint_eq(x.size, y.size);
    ck_assert_mem_eq(x.data, y.data, x.size);
    glm_session_close(a);
    a = load(&x);
    save(a, &y);
    ck_assert_uint_eq(x.size, y.size);
    ck_assert_mem_eq(x.data, y.data, x.size);
    glm_session_close(a);
    glm_session_close(b);
    snap_bytes_free(&x);
    snap_bytes_free(&y);
}
END_TEST

/* ---- conversations ------------------------------------------------------------------------------------------------- */

START_TEST(a_conversation_goes_on)
{
    glm_session *a = session(GLM_KV_AUTO, 0), *b;
    struct answer x, y;

    greedy(a, 60);
    OK(glm_session_say(a, GLM_ROLE_SYSTEM, "Be brief. <|user|>", GLM_NTS, &err));
    say(a, "What is 23 + 58?");
    finish(a);
    b = saved_and_loaded(a);
    for (int i = 0; i < 3; i++) {
        say(a, "What is 2 + 3?");
        say(b, "What is 2 + 3?");
        x = finish(a);
        y = finish(b);
        same_answer(&x, &y);
        ck_assert_uint_gt(y.end.n_reused, 20);
    }
    glm_session_close(a);
    glm_session_close(b);
}
END_TEST

START_TEST(options_are_kept)
{
    glm_turn_options o = GLM_TURN_OPTIONS_INIT;
    glm_session *a = session(GLM_KV_AUTO, 512), *b;
    struct answer x, y;

    o.temperature = 1.3f;
    o.top_k = 50;
    o.seed = 1234567890123;
    o.thinking = GLM_THINK_OFF;
    o.max_tokens = 40;
    OK(glm_session_turn(a, &o, &err));
    say(a, "Tell me a story.");
    b = saved_and_loaded(a);
    x = finish(a);
    y = finish(b);
    same_answer(&x, &y);
    ck_assert_uint_eq(y.end.n_think, 0);
    glm_session_close(a);
    glm_session_close(b);
}
END_TEST

START_TEST(options_with_text_are_kept)
{
    static const char *const stop[] = { "zebra", "\n\n\n" };
    glm_turn_options o = GLM_TURN_OPTIONS_INIT;
    glm_session *a = session(GLM_KV_AUTO, 1024), *b;
    struct answer x, y;

    o.temperature = 0;
    o.thinking = GLM_THINK_BUDGET;
    o.think_tokens = 3;
    o.think_close = "That will do.";
    o.stop = stop;
    o.n_stop = 2;
    o.max_tokens = 60;
    OK(glm_session_turn(a, &o, &err));
    say(a, "What is 23 + 58?");
    b = saved_and_loaded(a);
    x = finish(a);
    y = finish(b);
    ck_assert(strstr(x.text, "That will do."));
    same_answer(&x, &y);
    glm_session_close(a);
    glm_session_close(b);
}
END_TEST

START_TEST(code_to_be_filled_in)
{
    glm_session *a = session(GLM_KV_AUTO, 1024), *b, *c;
    glm_turn_options o = GLM_TURN_OPTIONS_INIT;
    struct answer x, y, z;

    o.temperature = 0;
    o.max_tokens = 30;
    o.stop_lines = 3;
    OK(glm_session_turn(a, &o, &err));
    OK(glm_session_infill_file(a, "lib/sum.py", "def total(v):\n    return sum(v)\n", GLM_NTS, &err));
    b = saved_and_loaded(a); /* with files of context */
    OK(glm_session_infill(a, "def add(a, b):\n    ", GLM_NTS, "\n\nprint(add(1, 2))\n", GLM_NTS, &err));
    OK(glm_session_infill(b, "def add(a, b):\n    ", GLM_NTS, "\n\nprint(add(1, 2))\n", GLM_NTS, &err));
    c = saved_and_loaded(a); /* before the turn's first step */
    x = finish(a);
    y = finish(b);
    z = finish(c);
    ck_assert(x.text[0]);
    same_answer(&x, &y);
    same_answer(&x, &z);
    glm_session_close(b);
    b = saved_and_loaded(a);
    OK(glm_session_infill(a, "def mul(a, b):\n    ", GLM_NTS, "\n", GLM_NTS, &err));
    OK(glm_session_infill(b, "def mul(a, b):\n    ", GLM_NTS, "\n", GLM_NTS, &err));
    x = finish(a);
    y = finish(b);
    same_answer(&x, &y);
    ck_assert_uint_gt(y.end.n_reused, 10);
    glm_session_close(a);
    glm_session_close(b);
    glm_session_close(c);
}
END_TEST

static const char history[] =
    "[{\"role\": \"system\", \"content\": \"You are terse.\"}, {\"role\": \"user\", \"content\": [{\"type\": \"text\", "
    "\"text\": \"weather?\"}]}, {\"role\": \"assistant\", \"content\": null, \"reasoning_content\": \"I need it.\", "
    "\"tool_calls\": [{\"id\": \"a\", \"type\": \"function\", \"function\": {\"name\": \"get_weather\", \"arguments\": "
    "\"{\\\"city\\\": \\\"Oslo\\\", \\\"n\\\": 1e5, \\\"x\\\": [1.0, null, {\\\"k\\\": -0.0}]}\"}}]}, {\"role\": \"tool\", "
    "\"content\": [{\"type\": \"text\", \"text\": \"sunny\"}]}, {\"role\": \"assistant\", \"content\": \"Sun.\"}, "
    "{\"role\": \"user\", \"content\": \"And in Rome? \\u4e2d\\ud83d\\ude00\"}]";

START_TEST(messages_of_every_kind)
{
    glm_session *a = session(GLM_KV_AUTO, 0), *b;
    struct answer x, y;
    uint64_t common = 0;

    greedy(a, 24);
    OK(glm_session_messages(a, history, GLM_NTS, NULL, &err));
    b = saved_and_loaded(a);
    x = finish(a);
    y = finish(b);
    same_answer(&x, &y);
    OK(glm_session_messages(b, history, GLM_NTS, &common, &err));
    ck_assert_uint_ge(common, x.end.n_prompt - 1); /* every message was rendered as before */
    glm_session_close(a);
    glm_session_close(b);
}
END_TEST

/* Arguments nested as deep as a document may be can be saved, and read again. */
START_TEST(arguments_of_any_depth)
{
    enum { DEPTH = 255 };
    char json[4096] = "[{\"role\": \"user\", \"content\": \"x\"}, {\"role\": \"assistant\", \"content\": \"\", \"tool_calls\": "
                      "[{\"function\": {\"name\": \"f\", \"arguments\": \"{\\\"a\\\": ";
    struct snap_bytes x = { 0 }, y = { 0 };
    glm_session *a = session(GLM_KV_AUTO, 0), *b;

    for (int i = 0; i < DEPTH; i++)
        strcat(json, "[");
    for (int i = 0; i < DEPTH; i++)
        strcat(json, "]");
    strcat(json, "}\"}}]}]");
    OK(glm_session_messages(a, json, GLM_NTS, NULL, &err));
    save(a, &x);
    b = load(&x);
    save(b, &y);
    ck_assert_uint_eq(x.size, y.size);
    ck_assert_mem_eq(x.data, y.data, x.size);
    glm_session_close(a);
    glm_session_close(b);
    snap_bytes_free(&x);
    snap_bytes_free(&y);
}
END_TEST

/* ---- tools ------------------------------------------------------------------------------------------------------------ */

static const char tools[] =
    "[{\"type\": \"function\", \"function\": {\"name\": \"get_weather\", \"description\": \"weather of a city\", "
    "\"parameters\": {\"type\": \"object\", \"properties\": {\"city\": {\"type\": \"string\"}}, \"required\": "
    "[\"city\"]}}}]";

static glm_session *calling(uint64_t *id)
{
    glm_session *s = session(GLM_KV_AUTO, 2048);
    struct answer a;

    greedy(s, 300);
    OK(glm_session_tools(s, tools, GLM_NTS, &err));
    say(s, "What is the weather in Oslo?");
    a = finish(s);
    ck_assert_uint_eq(a.end.end_reason, GLM_END_TOOLS);
    *id = a.call_id;
    return s;
}

START_TEST(calls_that_wait)
{
    uint64_t id;
    glm_session *a = calling(&id), *b = saved_and_loaded(a), *c;
    glm_event ev = GLM_EVENT_INIT;
    struct answer x, y, z;

    REFUSED(GLM_ESTATE, glm_session_step(b, NULL, &ev, &err));
    REFUSED(GLM_EINVAL, glm_tool_result(b, id + 7, "x", GLM_NTS, &err));
    OK(glm_tool_result(a, id, "sunny", GLM_NTS, &err));
    OK(glm_tool_result(b, id, "sunny", GLM_NTS, &err));
    REFUSED(GLM_EINVAL, glm_tool_result(b, id, "sunny", GLM_NTS, &err));
    c = saved_and_loaded(b); /* with results, before the turn goes on */
    x = finish(a);
    y = finish(b);
    z = finish(c);
    same_answer(&x, &y);
    same_answer(&x, &z);
    say(a, "What is the weather in Rome?"); /* call ids are not given twice */
    say(b, "What is the weather in Rome?");
    x = finish(a);
    y = finish(b);
    same_answer(&x, &y);
    ck_assert(x.call_id == 0 || x.call_id > id);
    glm_session_close(a);
    glm_session_close(b);
    glm_session_close(c);
}
END_TEST

START_TEST(waiting_calls_can_be_cancelled)
{
    uint64_t id;
    glm_session *a = calling(&id), *b = saved_and_loaded(a);
    struct answer x, y;

    glm_session_cancel(a);
    glm_session_cancel(b);
    x = finish(a);
    y = finish(b);
    same_answer(&x, &y);
    say(a, "Hello!");
    say(b, "Hello!");
    x = finish(a);
    y = finish(b);
    same_answer(&x, &y);
    glm_session_close(a);
    glm_session_close(b);
}
END_TEST

START_TEST(a_turn_that_goes_on_can_be_cancelled)
{
    uint64_t id;
    glm_session *a = calling(&id), *b;
    OK(glm_tool_result(a, id, "sunny", GLM_NTS, &err));
    b = saved_and_loaded(a);
    glm_session_cancel(b);
    ck_assert_uint_eq(finish(b).end.end_reason, GLM_END_CANCELLED);
    finish(b);
    glm_session_close(a);
    glm_session_close(b);
}
END_TEST

/* ---- forks -------------------------------------------------------------------------------------------------------------- */

START_TEST(forks)
{
    glm_session *a = session(GLM_KV_AUTO, 0), *b = NULL, *c, *d = NULL;
    struct answer x, y;

    greedy(a, 40);
    say(a, "What is 4 + 5?");
    finish(a);
    OK(glm_session_fork(a, &b, &err));
    say(b, "And 6 + 7?");
    finish(b);
    c = saved_and_loaded(b); /* pages of two owners */
    OK(glm_session_fork(c, &d, &err));
    glm_session_close(c);
    say(b, "Why?");
    say(d, "Why?");
    x = finish(b);
    y = finish(d);
    same_answer(&x, &y);
    glm_session_close(a);
    glm_session_close(b);
    glm_session_close(d);
}
END_TEST

/* ---- states --------------------------------------------------------------------------------------------------------------- */

START_TEST(only_between_turns)
{
    struct snap_bytes bytes = { 0 };
    glm_stream to = snap_stream(&bytes);
    glm_session *s = session(GLM_KV_AUTO, 0);
    glm_event ev = GLM_EVENT_INIT;
    int32_t id = 5;

    OK(glm_session_feed(s, &id, 1, GLM_ROWS_LAST, &err));
    REFUSED(GLM_ESTATE, glm_session_save_to(s, &to, &err));
    OK(glm_session_step(s, NULL, &ev, &err));
    greedy(s, 20);
    say(s, "Hello!");
    while (ev.type != GLM_EVENT_TURN_END) {
        OK(glm_session_step(s, NULL, &ev, &err));
        if (ev.type != GLM_EVENT_TURN_END || ev.pending)
            REFUSED(GLM_ESTATE, glm_session_save_to(s, &to, &err));
    }
    ck_assert_uint_eq(bytes.size, 0);
    OK(glm_session_save_to(s, &to, &err));
    glm_session_close(s);
    snap_bytes_free(&bytes);
}
END_TEST

/* Sessions of the worker cannot be saved until their turn's end was polled; whoever computed the turn, it is the same then. */
START_TEST(after_the_worker_and_in_batches)
{
    struct snap_bytes bytes = { 0 };
    glm_stream to = snap_stream(&bytes);
    glm_session *a = session(GLM_KV_AUTO, 0), *b, *c = session(GLM_KV_AUTO, 0);
    glm_event ev = GLM_EVENT_INIT, more = GLM_EVENT_INIT, *evs[2] = { &ev, &more };
    struct answer x, y;

    greedy(a, 30);
    greedy(c, 30);
    say(a, "What is 1 + 2?");
    OK(glm_session_start(a, &err));
    REFUSED(GLM_EBUSY, glm_session_save_to(a, &to, &err));
    while (ev.type != GLM_EVENT_TURN_END)
        OK(glm_session_poll(a, &ev, &err));
    b = saved_and_loaded(a);
    say(a, "And 3 + 4?");
    say(b, "And 3 + 4?");
    say(c, "What is 5 + 6?");
    for (int open = 3; open;) {
        glm_session *s[2] = { b, c };
        OK(glm_sessions_step(s, 2, NULL, evs, &err));
        open &= ~((ev.type == GLM_EVENT_TURN_END) | (more.type == GLM_EVENT_TURN_END) << 1);
    }
    glm_session_close(c);
    c = saved_and_loaded(b);
    finish(a);
    say(a, "Why?");
    say(c, "Why?");
    x = finish(a);
    y = finish(c);
    same_answer(&x, &y);
    glm_session_close(a);
    glm_session_close(b);
    glm_session_close(c);
    snap_bytes_free(&bytes);
}
END_TEST

START_TEST(arguments)
{
    struct snap_bytes bytes = { 0 };
    glm_stream to = snap_stream(&bytes), bad;
    glm_session *s = session(GLM_KV_INT8, 100), *t = (glm_session *)&bytes;
    glm_session_options o = GLM_SESSION_OPTIONS_INIT;
    static const int32_t ids[80] = { 3 };

    feed(s, ids, 80);
    OK(glm_session_save_to(s, &to, &err));
    REFUSED(GLM_EINVAL, glm_session_save(NULL, "/tmp/x", &err));
    REFUSED(GLM_EINVAL, glm_session_save(s, NULL, &err));
    REFUSED(GLM_EINVAL, glm_session_save(s, "/tmp/", &err));
    REFUSED(GLM_EINVAL, glm_session_save_to(s, NULL, &err));
    REFUSED(GLM_EINVAL, glm_session_load(NULL, "/tmp/x", NULL, &t, &err));
    ck_assert_ptr_null(t);
    REFUSED(GLM_EINVAL, glm_session_load(model, NULL, NULL, &t, &err));
    REFUSED(GLM_EINVAL, glm_session_load(model, "/tmp/x", NULL, NULL, &err));
    REFUSED(GLM_EIO, glm_session_load(model, "/tmp/no/such/file", NULL, &t, &err));
    REFUSED(GLM_EINVAL, glm_session_load_from(model, NULL, NULL, &t, &err));
    bad = to;
    bad.write = NULL;
    REFUSED(GLM_EINVAL, glm_session_save_to(s, &bad, &err));
    OK(glm_session_load_from(model, (bytes.at = 0, &bad), NULL, &t, &err)); /* reading needs no write */
    glm_session_close(t);
    bad.read = NULL;
    REFUSED(GLM_EINVAL, glm_session_load_from(model, &bad, NULL, &t, &err));
    bad = to;
    bad.struct_size = 8;
    REFUSED(GLM_EINVAL, glm_session_save_to(s, &bad, &err));
    bad = to;
    bad.reserved = 1;
    REFUSED(GLM_EINVAL, glm_session_load_from(model, &bad, NULL, &t, &err));

    o.n_ctx = 79;
    REFUSED(GLM_ECONTEXT, snap_load(model, &bytes, &o, &t, &err));
    o.n_ctx = info.n_ctx_train + 1;
    REFUSED(GLM_EINVAL, snap_load(model, &bytes, &o, &t, &err));
    o.n_ctx = 80;
    OK(snap_load(model, &bytes, &o, &t, &err));
    REFUSED(GLM_ECONTEXT, glm_session_feed(t, ids, 1, GLM_ROWS_LAST, &err));
    glm_session_close(t);
    o.n_ctx = 0;
    OK(snap_load(model, &bytes, &o, &t, &err));
    REFUSED(GLM_ECONTEXT, glm_session_feed(t, ids, 21, GLM_ROWS_LAST, &err));
    glm_session_close(t);
    o.kv_type = GLM_KV_BF16;
    REFUSED(GLM_EMISMATCH, snap_load(model, &bytes, &o, &t, &err));
    o.kv_type = GLM_KV_INT8;
    OK(snap_load(model, &bytes, &o, &t, &err));
    glm_session_close(t);
    glm_session_close(s);
    snap_bytes_free(&bytes);
}
END_TEST

START_TEST(the_cap_of_all_caches)
{
    struct snap_bytes bytes = { 0 };
    glm_model_options mo = GLM_MODEL_OPTIONS_INIT;
    glm_model *small = NULL;
    glm_session *s = session(GLM_KV_F32, 512), *t = NULL;
    static const int32_t ids[200] = { 3 };

    feed(s, ids, 200);
    save(s, &bytes);
    mo.kv_bytes = 4 * 64 * info.kv_bytes_per_token; /* four pages: the snapshot's own */
    OK(glm_model_open(getenv("GLM_TEST_MODEL"), &mo, &small, &err));
    for (int i = 0; i < 3; i++) { /* nothing is left of those that fail */
        glm_session *u = NULL;
        OK(snap_load(small, &bytes, NULL, &t, &err));
        REFUSED(GLM_ENOMEM, snap_load(small, &bytes, NULL, &u, &err));
        ck_assert_ptr_null(u);
        glm_session_close(t);
    }
    glm_session_close(s);
    glm_model_close(small);
    snap_bytes_free(&bytes);
}
END_TEST

/* ---- files ------------------------------------------------------------------------------------------------------------------ */

static char folder[] = "/tmp/glm45-test-snapshot-XXXXXX", path[128];

static void make_folder(void)
{
    open_model();
    memcpy(folder + sizeof folder - 7, "XXXXXX", 6);
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/chat.glms", folder);
}

static void remove_folder(void)
{
    unlink(path);
    ck_assert_int_eq(rmdir(folder), 0); /* nothing else was left in it */
    close_model();
}

START_TEST(a_file)
{
    static const int32_t ids[] = { 5, 6, 7, 8, 9, 10 };
    glm_session *a = session(GLM_KV_AUTO, 256), *b = NULL;
    struct stat before, after;
    FILE *f;

    feed(a, ids, 3);
    OK(glm_session_save(a, path, &err));
    ck_assert_int_eq(chmod(path, 0640), 0);
    ck_assert_int_eq(stat(path, &before), 0);
    feed(a, ids + 3, 2);
    OK(glm_session_save(a, path, &err));
    ck_assert_int_eq(stat(path, &after), 0);
    ck_assert_uint_ne(before.st_ino, after.st_ino); /* another file took its place */
    ck_assert_uint_eq(after.st_mode & 0777, 0640);
    OK(glm_session_load(model, path, NULL, &b, &err));
    feed(a, ids + 5, 1);
    feed(b, ids + 5, 1);
    ck_assert_mem_eq(logits(a), logits(b), info.n_vocab * sizeof(float));
    glm_session_close(b);

    f = fopen(path, "ab"); /* bytes behind the end */
    fputc(0, f);
    fclose(f);
    REFUSED(GLM_EFORMAT, glm_session_load(model, path, NULL, &b, &err));
    for (off_t size = after.st_size - 1; size > 0; size -= 977) {
        ck_assert_int_eq(truncate(path, size), 0);
        REFUSED(GLM_EFORMAT, glm_session_load(model, path, NULL, &b, &err));
        ck_assert_ptr_null(b);
    }
    ck_assert_int_eq(truncate(path, 0), 0);
    REFUSED(GLM_EFORMAT, glm_session_load(model, path, NULL, &b, &err));
    REFUSED(GLM_EIO, glm_session_load(model, folder, NULL, &b, &err));
    REFUSED(GLM_EIO, glm_session_save(a, folder, &err));
    glm_session_close(a);
}
END_TEST

START_TEST(places_that_cannot_be_written)
{
    glm_session *a = session(GLM_KV_AUTO, 256);
    char name[300];

    snprintf(name, sizeof name, "%s/none/chat", folder);
    REFUSED(GLM_EIO, glm_session_save(a, name, &err));
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    REFUSED(GLM_EIO, glm_session_save(a, name, &err));
    REFUSED(GLM_EIO, glm_session_save(a, "/dev/null", &err)); /* no device is replaced */
    REFUSED(GLM_EIO, glm_session_save(a, "/proc/chat", &err));
    if (access("/dev/full", W_OK) == 0)
        REFUSED(GLM_EIO, glm_session_save(a, "/dev/full", &err));
    glm_session_close(a);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("snapshot");
    TCase *tc = tcase_create("memory"), *files = tcase_create("files");
    SRunner *runner;
    int n_failed;

    tcase_add_checked_fixture(tc, open_model, close_model);
    tcase_set_timeout(tc, 120);
    tcase_set_timeout(files, 120);
    tcase_add_loop_test(tc, tokens_in_every_kv_type, GLM_KV_F32, GLM_KV_FP8 + 1);
    tcase_add_test(tc, more_tokens_than_a_group_of_blocks);
    tcase_add_test(tc, the_same_session_gives_the_same_bytes);
    tcase_add_test(tc, a_conversation_goes_on);
    tcase_add_test(tc, options_are_kept);
    tcase_add_test(tc, options_with_text_are_kept);
    tcase_add_test(tc, code_to_be_filled_in);
    tcase_add_test(tc, messages_of_every_kind);
    tcase_add_test(tc, arguments_of_any_depth);
    tcase_add_test(tc, calls_that_wait);
    tcase_add_test(tc, waiting_calls_can_be_cancelled);
    tcase_add_test(tc, a_turn_that_goes_on_can_be_cancelled);
    tcase_add_test(tc, forks);
    tcase_add_test(tc, only_between_turns);
    tcase_add_test(tc, after_the_worker_and_in_batches);
    tcase_add_test(tc, arguments);
    tcase_add_test(tc, the_cap_of_all_caches);
    tcase_add_checked_fixture(files, make_folder, remove_folder);
    tcase_add_test(files, a_file);
    tcase_add_test(files, places_that_cannot_be_written);
    suite_add_tcase(suite, tc);
    suite_add_tcase(suite, files);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    n_failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return n_failed != 0;
}
