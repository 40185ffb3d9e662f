/* test_stream.c: output streams and the events they must give, however the input is cut; what every stream must keep to;
 * random and broken streams; every allocation failed in turn.
 */
#include "lib/text/text.h"
#include "text_data.h"

/* ---- feeding --------------------------------------------------------------------------------------------------------------- */

enum feed_mode { WHOLE, BYTES, SPLIT };

/* Input as pieces, its text cut as told: into bytes, or once at byte `split` of the whole. */
static int32_t feed(struct stream *s, const char *text, size_t size, enum feed_mode mode, size_t split,
    const struct stream_sink *sink, glm_error *err)
{
    int32_t rc = 0;
    for (size_t at = 0; at < size && !rc;) {
        size_t length, n = 0;
        enum tok_special which = chat_spelled(text + at, size - at, &length);
        if (which != TOK_SPECIAL_COUNT) {
            rc = stream_put_special(s, which, sink, err);
            at += length;
            continue;
        }
        do
            n++;
        while (mode != BYTES && at + n < size && !(mode == SPLIT && at + n == split) &&
            chat_spelled(text + at + n, size - at - n, &length) == TOK_SPECIAL_COUNT);
        rc = stream_put_text(s, text + at, n, sink, err);
        at += n;
    }
    return rc;
}

/* ---- what every stream keeps to ---------------------------------------------------------------------------------------------- */

struct checker {
    struct mem *mem;
    struct stream_text text;
    struct stream_sink inner;
    struct buf deltas;
    struct buf log; /* events but for how text is cut */
    bool in_call, stopped;
    enum stream_event_type last;
    uint32_t i_call, n_complete, n_cut;
};

static void check_whole_call(struct checker *c, const struct stream_event *ev)
{
    struct json_doc streamed = data_json(c->mem, c->deltas.data, c->deltas.size);
    struct json_doc whole = data_json(c->mem, ev->arguments, ev->arguments_size);
    ck_assert_int_eq(whole.root->type, JSON_OBJECT);
    ck_assert(ev->arguments[ev->arguments_size] == 0);
    if (strcmp(c->deltas.data, ev->arguments) != 0) { /* a key given twice, and nothing else */
        glm_error err = GLM_ERROR_INIT;
        struct json_doc strict = { 0 };
        ck_assert_int_eq(json_parse(c->mem, c->deltas.data, c->deltas.size, JSON_REFUSE_DUPLICATES, "deltas", &strict,
            &err), GLM_EFORMAT);
        ck_assert(json_equal(streamed.root, whole.root));
    }
    json_free(&streamed);
    json_free(&whole);
}

static int32_t check_event(void *user, const struct stream_event *ev)
{
    struct checker *c = user;
    size_t bad;
    ck_assert(!c->stopped);
    if (ev->type == STREAM_REASONING || ev->type == STREAM_TEXT || ev->type == STREAM_CALL_DELTA) {
        ck_assert_uint_gt(ev->text_size, 0);
        ck_assert(utf8_is_valid(ev->text, ev->text_size, &bad));
    }
    ck_assert(c->in_call == (ev->type == STREAM_CALL_DELTA || ev->type == STREAM_CALL || ev->type == STREAM_CALL_CUT));
    if (c->in_call)
        ck_assert_uint_eq(ev->call, c->i_call);
    if (c->log.size == 0 || c->last != ev->type || ev->type > STREAM_TEXT) {
        if (ev->type != STREAM_CALL_DELTA)
            buf_char(&c->log, "\nrtb\nCSX"[ev->type + 1]);
    }
    c->last = ev->type;
    switch (ev->type) {
    case STREAM_CALL_BEGIN:
        ck_assert_uint_eq(ev->call, c->n_complete + c->n_cut);
        c->i_call = ev->call;
        c->in_call = true;
        buf_clear(&c->deltas);
        buf_put(&c->log, ev->name, ev->name_size);
        break;
    case STREAM_CALL_DELTA:
        buf_put(&c->deltas, ev->text, ev->text_size);
        break;
    case STREAM_CALL:
        check_whole_call(c, ev);
        buf_put(&c->log, ev->arguments, ev->arguments_size);
        c->in_call = false;
        c->n_complete++;
        break;
    case STREAM_CALL_CUT:
        buf_put(&c->log, c->deltas.data, c->deltas.size);
        c->in_call = false;
        c->n_cut++;
        break;
    case STREAM_STOP:
        c->stopped = true;
        break;
    default:
        buf_put(&c->log, ev->text, ev->text_size);
        break;
    }
    return c->inner.put(c->inner.user, ev);
}

static struct stream_sink checker_init(struct checker *c, struct mem *m)
{
    *c = (struct checker){ .mem = m };
    stream_text_init(&c->text, m);
    c->inner = stream_text_sink(&c->text);
    buf_init(&c->deltas, m);
    buf_init(&c->log, m);
    return (struct stream_sink){ c, check_event };
}

static void checker_free(struct checker *c)
{
    stream_text_free(&c->text);
    buf_free(&c->deltas);
    buf_free(&c->log);
}

/* ---- the cases --------------------------------------------------------------------------------------------------------------- */

static void check_text(const struct json *want, const struct buf *got, const char *id, const char *what)
{
    const char *text = want->type == JSON_NULL ? "" : want->text;
    ck_assert_msg(got->size == strlen(text) && (got->size == 0 || memcmp(got->data, text, got->size) == 0),
        "%s: %s: want \"%s\", got \"%s\"", id, what, text, got->data ? got->data : "");
}

static void check_calls(const struct json *want, const struct stream_text *got, const char *id)
{
    size_t i = 0;
    ck_assert_msg(want->count == got->n_call, "%s: %zu calls", id, got->n_call);
    for (const struct json *call = json_first(want); call; call = json_next(want, call), i++) {
        ck_assert_str_eq(json_get(call, "name")->text, got->calls[i].name);
        ck_assert_msg(json_is_text(json_get(call, "arguments"), got->calls[i].arguments), "%s: want %s, got %s", id,
            json_get(call, "arguments")->text, got->calls[i].arguments);
    }
}

static const char *finish_name(enum stream_finish finish)
{
    static const char *const names[] = { "open", "stop", "tool_calls", "length" };
    return names[finish];
}

static void run_case(struct mem *m, const struct tool_types *types, const struct json *line, enum feed_mode mode,
    size_t split)
{
    const char *id = json_get(line, "id")->text;
    const struct json *prompt = json_get(line, "prompt_ends"), *input = json_get(line, "input");
    enum chat_family family = json_is_text(json_get(line, "format"), "4.7") ? CHAT_47 : CHAT_45;
    bool thinking = prompt->size >= 7 && strcmp(prompt->text + prompt->size - 7, "<think>") == 0;
    glm_error err = GLM_ERROR_INIT;
    enum stream_finish finish = STREAM_OPEN;
    struct stream *s;
    struct checker c;
    struct stream_sink sink = checker_init(&c, m);
    ck_assert_int_eq(stream_open(m, NULL, types, family, thinking, &s, &err), 0);
    stream_drop_calls(s, strcmp(id, "41-tool-choice-none") == 0);
    ck_assert_int_eq(feed(s, input->text, input->size, mode, split, &sink, &err), 0);
    ck_assert_int_eq(stream_end(s, false, &sink, &finish, &err), 0);
    check_text(json_get(line, "reasoning"), &c.text.reasoning, id, "reasoning");
    check_text(json_get(line, "content"), &c.text.content, id, "content");
    check_calls(json_get(line, "tool_calls"), &c.text, id);
    ck_assert_msg(json_is_text(json_get(line, "finish"), finish_name(finish)), "%s: %s", id, finish_name(finish));
    ck_assert_uint_eq(stream_n_cut(s), c.n_cut);
    stream_close(s);
    checker_free(&c);
}

static void run_cases(const char *file, size_t n_least)
{
    size_t size, n = 0;
    char *tools = data_load("stream_tools.json", &size);
    struct mem m;
    mem_init(&m, NULL);
    struct json_doc declared = data_json(&m, tools, size);
    struct tool_types *types;
    glm_error err = GLM_ERROR_INIT;
    ck_assert_int_eq(tool_types_open(&m, declared.root, &types, &err), 0);
    json_free(&declared);
    char *data = data_load(file, &size), *at = data, *text;
    while ((text = data_line(&at)) != NULL) {
        struct json_doc doc = data_json(&m, text, strlen(text));
        run_case(&m, types, doc.root, WHOLE, 0);
        run_case(&m, types, doc.root, BYTES, 0);
        for (size_t split = 1; split < json_get(doc.root, "input")->size; split++)
            run_case(&m, types, doc.root, SPLIT, split);
        json_free(&doc);
        n++;
    }
    ck_assert_uint_ge(n, n_least);
    tool_types_close(types);
    free(data);
    free(tools);
    ck_assert_uint_eq(atomic_load(&m.used), 0);
}

START_TEST(cases)
{
    run_cases("stream_cases.jsonl", 33);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("stream");
    TCase *tc = tcase_create("stream");
    suite_add_tcase(suite, tc);
    tcase_add_test(tc, cases);
    SRunner *r = srunner_create(suite);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
