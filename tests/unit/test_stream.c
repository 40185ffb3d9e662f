/* test_stream.c: output streams and the events they must give, however the input is cut; what every
 * stream must keep to; random and broken streams; every allocation failed in turn.
 */
#include "lib/text/text.h"
#include "text_data.h"

#include <time.h>

/* ---- feeding --------------------------------------------------------------------------------- */

enum feed_mode { WHOLE, BYTES, SPLIT };

/* Input as pieces, its text cut as told: into bytes, or once at byte `split` of the whole. */
static int32_t feed(struct stream *s, const char *text, size_t size, enum feed_mode mode,
    size_t split, const struct stream_sink *sink, glm_error *err)
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

/* ---- what every stream keeps to -------------------------------------------------------------- */

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
        struct json_doc strict = {0};
        ck_assert_int_eq(json_parse(c->mem, c->deltas.data, c->deltas.size, JSON_REFUSE_DUPLICATES,
                             "deltas", &strict, &err),
            GLM_EFORMAT);
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
    ck_assert(c->in_call == (ev->type == STREAM_CALL_DELTA || ev->type == STREAM_CALL ||
                                ev->type == STREAM_CALL_CUT));
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
    case STREAM_CALL_DELTA: buf_put(&c->deltas, ev->text, ev->text_size); break;
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
    case STREAM_STOP: c->stopped = true; break;
    default: buf_put(&c->log, ev->text, ev->text_size); break;
    }
    return c->inner.put(c->inner.user, ev);
}

static struct stream_sink checker_init(struct checker *c, struct mem *m)
{
    *c = (struct checker){.mem = m};
    stream_text_init(&c->text, m);
    c->inner = stream_text_sink(&c->text);
    buf_init(&c->deltas, m);
    buf_init(&c->log, m);
    return (struct stream_sink){c, check_event};
}

static void checker_free(struct checker *c)
{
    stream_text_free(&c->text);
    buf_free(&c->deltas);
    buf_free(&c->log);
}

/* ---- the cases ------------------------------------------------------------------------------- */

static void check_text(
    const struct json *want, const struct buf *got, const char *id, const char *what)
{
    const char *text = want->type == JSON_NULL ? "" : want->text;
    ck_assert_msg(
        got->size == strlen(text) && (got->size == 0 || memcmp(got->data, text, got->size) == 0),
        "%s: %s: want \"%s\", got \"%s\"", id, what, text, got->data ? got->data : "");
}

static void check_calls(const struct json *want, const struct stream_text *got, const char *id)
{
    size_t i = 0;
    ck_assert_msg(want->count == got->n_call, "%s: %zu calls", id, got->n_call);
    for (const struct json *call = json_first(want); call; call = json_next(want, call), i++) {
        ck_assert_str_eq(json_get(call, "name")->text, got->calls[i].name);
        ck_assert_msg(json_is_text(json_get(call, "arguments"), got->calls[i].arguments),
            "%s: want %s, got %s", id, json_get(call, "arguments")->text, got->calls[i].arguments);
    }
}

static const char *finish_name(enum stream_finish finish)
{
    static const char *const names[] = {"open", "stop", "tool_calls", "length"};
    return names[finish];
}

static void run_case(struct mem *m, const struct tool_types *types, const struct json *line,
    enum feed_mode mode, size_t split)
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
    ck_assert_msg(json_is_text(json_get(line, "finish"), finish_name(finish)), "%s: %s", id,
        finish_name(finish));
    ck_assert_uint_ge(stream_n_cut(s), c.n_cut); /* some are cut before they have a name */
    stream_close(s);
    checker_free(&c);
}

static void run_cases(const char *file, const char *tools_file, size_t n_least)
{
    size_t size, n = 0;
    char *tools = data_load(tools_file, &size);
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
    run_cases("stream_cases.jsonl", "stream_tools.json", 33);
}
END_TEST

/* What docs/STREAM.md promises where the grammar leaves a choice or the model breaks it. */
START_TEST(policy)
{
    run_cases("stream_policy.jsonl", "stream_policy_tools.json", 99);
}
END_TEST

/* ---- by tokens ------------------------------------------------------------------------------- */

/* The whole input as the model would give it: token by token, its tags as their ids. */
static void run_tokens(
    struct mem *m, const struct tok *t, const struct tool_types *types, const struct json *line)
{
    const struct json *input = json_get(line, "input"), *prompt = json_get(line, "prompt_ends");
    const char *id = json_get(line, "id")->text;
    bool thinking = prompt->size >= 7 && strcmp(prompt->text + prompt->size - 7, "<think>") == 0;
    struct ids ids;
    struct stream *s;
    struct checker c;
    enum stream_finish finish = STREAM_OPEN;
    struct stream_sink sink = checker_init(&c, m);
    ids_init(&ids, m);
    ck_assert_int_eq(tok_encode(t, input->text, input->size, TOK_SPECIALS, &ids, NULL), 0);
    ck_assert_int_eq(stream_open(m, t, types, CHAT_45, thinking, &s, NULL), 0);
    stream_drop_calls(s, strcmp(id, "41-tool-choice-none") == 0);
    for (size_t i = 0; i < ids.n; i++)
        ck_assert_int_eq(stream_put(s, ids.id[i], &sink, NULL), 0);
    ck_assert_int_eq(stream_end(s, false, &sink, &finish, NULL), 0);
    check_text(json_get(line, "reasoning"), &c.text.reasoning, id, "reasoning");
    check_text(json_get(line, "content"), &c.text.content, id, "content");
    check_calls(json_get(line, "tool_calls"), &c.text, id);
    ck_assert_msg(json_is_text(json_get(line, "finish"), finish_name(finish)), "%s: %s", id,
        finish_name(finish));
    stream_close(s);
    checker_free(&c);
    ids_free(&ids);
}

static struct tool_types *load_types(struct mem *m, const char *file)
{
    size_t size;
    char *tools = data_load(file, &size);
    struct json_doc declared = data_json(m, tools, size);
    struct tool_types *types = NULL;
    ck_assert_int_eq(tool_types_open(m, declared.root, &types, NULL), 0);
    json_free(&declared);
    free(tools);
    return types;
}

/* The same spelling in plain text is no markup: all of it is the answer. */
static void check_plain_text(struct mem *m, const struct tok *t)
{
    static const char text[] =
        "<think>a</think><tool_call>now</tool_call><|user|> [gMASK]/nothink<arg_key>";
    struct ids ids;
    struct stream *s;
    struct checker c;
    enum stream_finish finish = STREAM_OPEN;
    struct stream_sink sink = checker_init(&c, m);
    ids_init(&ids, m);
    ck_assert_int_eq(tok_encode(t, text, strlen(text), 0, &ids, NULL), 0);
    ck_assert_int_eq(stream_open(m, t, NULL, CHAT_45, false, &s, NULL), 0);
    for (size_t i = 0; i < ids.n; i++)
        ck_assert_int_eq(stream_put(s, ids.id[i], &sink, NULL), 0);
    ck_assert_int_eq(stream_put(s, -1, &sink, NULL), 0); /* no tokens at all: nothing */
    ck_assert_int_eq(stream_put(s, 151551, &sink, NULL), 0);
    ck_assert_int_eq(stream_put(s, tok_find(t, "<|begin_of_box|>", 16), &sink, NULL), 0);
    ck_assert_int_eq(stream_end(s, false, &sink, &finish, NULL), 0);
    ck_assert_str_eq(c.text.content.data, text);
    ck_assert_uint_eq(c.text.n_call, 0);
    ck_assert_int_eq(finish, STREAM_FINISH_STOP);
    stream_close(s);
    checker_free(&c);
    ids_free(&ids);
}

START_TEST(tokens)
{
    static const char *const files[][2] = {{"stream_cases.jsonl", "stream_tools.json"},
        {"stream_policy.jsonl", "stream_policy_tools.json"}};
    struct mem m;
    char *json;
    mem_init(&m, NULL);
    struct tok *t = data_tok(&m, &json);
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        size_t size;
        struct tool_types *types = load_types(&m, files[i][1]);
        char *data = data_load(files[i][0], &size), *at = data, *text;
        while ((text = data_line(&at)) != NULL) {
            struct json_doc doc = data_json(&m, text, strlen(text));
            run_tokens(&m, t, types, doc.root);
            json_free(&doc);
        }
        tool_types_close(types);
        free(data);
    }
    check_plain_text(&m, t);
    tok_close(t);
    free(json);
    ck_assert_uint_eq(atomic_load(&m.used), 0);
}
END_TEST

/* ---- random streams -------------------------------------------------------------------------- */

static size_t random_stream(uint64_t *state, char *text, size_t capacity)
{
    static const char *const words[] = {"get", "city", "bare", "any", "obj", "maybe", "now", "1",
        "-2.5", "null", "{", "}", "\"", "[1]", " ", "\n", "\n\n", " ", "\t", "\xc3\xa9",
        "\xf0\x9f\x98\x80", "\xe6\x9d", "\xff", "\xf0\x9f", "a b", "\\u", "True", "</", "<tool",
        "\r\n"};
    size_t size = 0, n = next_random(state) % 60;
    for (size_t i = 0; i < n; i++) {
        uint64_t pick = next_random(state);
        const char *word = words[pick / 64 % ARRAY_LEN(words)];
        if (pick % 64 < 28) /* mostly the tags of calls and thoughts */
            word = chat_spelling(
                (enum tok_special)(TOK_THINK + pick / 64 % (TOK_SPECIAL_COUNT - TOK_THINK)));
        else if (pick % 64 == 28)
            word = chat_spelling((enum tok_special)(pick / 64 % TOK_SPECIAL_COUNT));
        else if (pick % 64 < 34)
            word = "<tool_call>get<arg_key>city</arg_key><arg_value>";
        if (size + strlen(word) >= capacity)
            break;
        memcpy(text + size, word, strlen(word));
        size += strlen(word);
    }
    return size;
}

static void run_random(struct mem *m, const struct tool_types *types, const char *text, size_t size,
    bool thinking, enum feed_mode mode, size_t split, struct buf *log)
{
    struct stream *s;
    struct checker c;
    enum stream_finish finish = STREAM_OPEN;
    struct stream_sink sink = checker_init(&c, m);
    ck_assert_int_eq(stream_open(m, NULL, types, CHAT_45, thinking, &s, NULL), 0);
    ck_assert_int_eq(feed(s, text, size, mode, split, &sink, NULL), 0);
    ck_assert_int_eq(stream_end(s, split % 3 == 0 && mode == WHOLE, &sink, &finish, NULL), 0);
    ck_assert(!c.in_call);
    ck_assert_uint_eq(stream_n_call(s), c.n_complete);
    if (mode == WHOLE || log->size == 0)
        buf_put(log, c.log.data ? c.log.data : "", c.log.size);
    else
        ck_assert_msg(log->size == c.log.size && memcmp(log->data, c.log.data, log->size) == 0,
            "%.*s\n--- whole:%s\n--- cut at %zu:%s", (int)size, text, log->data, split, c.log.data);
    stream_close(s);
    checker_free(&c);
}

START_TEST(random_streams)
{
    struct mem m;
    uint64_t state = 11;
    mem_init(&m, NULL);
    struct tool_types *types = load_types(&m, "stream_policy_tools.json");
    for (uint32_t round = 0; round < 1500; round++) {
        char text[4000];
        struct buf log, other;
        size_t size = random_stream(&state, text, sizeof text);
        bool thinking = next_random(&state) % 4 == 0;
        buf_init(&log, &m);
        buf_init(&other, &m);
        run_random(&m, types, text, size, thinking, WHOLE, 1, &log);
        run_random(&m, types, text, size, thinking, BYTES, 1, &log);
        for (uint32_t k = 0; k < 4; k++)
            run_random(
                &m, types, text, size, thinking, SPLIT, next_random(&state) % (size + 1), &log);
        run_random(&m, types, text, size, thinking, WHOLE, 3, &other); /* ended by a limit */
        buf_free(&log);
        buf_free(&other);
    }
    tool_types_close(types);
    ck_assert_uint_eq(atomic_load(&m.used), 0);
}
END_TEST

/* ---- size ------------------------------------------------------------------------------------ */

/* What is too long to be a name or a key is no call; what is too long to be glue is text. */
START_TEST(limits)
{
    enum { LONG = 200000 };
    struct mem m;
    mem_init(&m, NULL);
    char *text = malloc(LONG + 200);
    static const struct {
        const char *before, *after;
        char fill;
        size_t n_content;
    } all[] = {{"<tool_call>", "</tool_call>ok", 'n', 2},
        {"<tool_call>get<arg_key>", "</arg_key></tool_call>ok", 'k', 2}, {"a", "b", '\n', LONG + 2},
        {"a", "", '\n', 1 + LONG / 65536 * 65536}, {"", "b", ' ', 1}};
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        for (int mode = WHOLE; mode <= BYTES; mode++) {
            size_t size = strlen(all[i].before);
            memcpy(text, all[i].before, size);
            memset(text + size, all[i].fill, LONG);
            size += LONG;
            memcpy(text + size, all[i].after, strlen(all[i].after) + 1);
            size += strlen(all[i].after);
            struct stream *s;
            struct checker c;
            enum stream_finish finish;
            struct stream_sink sink = checker_init(&c, &m);
            ck_assert_int_eq(stream_open(&m, NULL, NULL, CHAT_45, false, &s, NULL), 0);
            ck_assert_int_eq(feed(s, text, size, (enum feed_mode)mode, 0, &sink, NULL), 0);
            ck_assert_int_eq(stream_end(s, false, &sink, &finish, NULL), 0);
            ck_assert_uint_eq(c.text.content.size, all[i].n_content);
            ck_assert_uint_eq(c.text.n_call, 0);
            stream_close(s);
            checker_free(&c);
        }
    }
    free(text);
    ck_assert_uint_eq(atomic_load(&m.used), 0);
}
END_TEST

START_TEST(many_arguments)
{
    struct mem m;
    struct stream *s;
    struct checker c;
    enum stream_finish finish;
    mem_init(&m, NULL);
    for (int n = 511; n <= 513; n++) { /* 512 is the most */
        struct stream_sink sink = checker_init(&c, &m);
        ck_assert_int_eq(stream_open(&m, NULL, NULL, CHAT_45, false, &s, NULL), 0);
        ck_assert_int_eq(stream_put_spelled(s, "<tool_call>f", 12, &sink, NULL), 0);
        for (int i = 0; i < n; i++) {
            char text[80];
            int size = snprintf(
                text, sizeof text, "<arg_key>k%d</arg_key><arg_value>%d</arg_value>", i, i);
            ck_assert_int_eq(stream_put_spelled(s, text, (size_t)size, &sink, NULL), 0);
        }
        ck_assert_int_eq(stream_put_spelled(s, "</tool_call>", 12, &sink, NULL), 0);
        ck_assert_int_eq(stream_end(s, false, &sink, &finish, NULL), 0);
        ck_assert_uint_eq(c.text.n_call, n <= 512);
        stream_close(s);
        checker_free(&c);
    }
}
END_TEST

/* Nothing that a stream holds is looked at again for each byte: a hostile stream of 20,000 pieces
 * takes well under two seconds of processor time, where a quadratic parser takes minutes. */
START_TEST(linear)
{
    static const char *const units[] = {" ", "<tool_call>", "</arg_value> ",
        "<arg_value><arg_key>k</arg_key>x", "x</tool_call> ", "<tool_call>now</tool_call>",
        "<tool_call>f<arg_key>k</arg_key><arg_value> "};
    static const char *const starts[] = {"", "<tool_call>get<arg_key>city</arg_key><arg_value>",
        "<tool_call>bare<arg_key>any</arg_key><arg_value>", "<tool_call>get\n"};
    struct mem m;
    mem_init(&m, NULL);
    struct tool_types *types = load_types(&m, "stream_policy_tools.json");
    for (size_t i = 0; i < ARRAY_LEN(starts) * ARRAY_LEN(units); i++) {
        const char *start = starts[i % ARRAY_LEN(starts)], *unit = units[i / ARRAY_LEN(starts)];
        struct stream *s;
        enum stream_finish finish;
        ck_assert_int_eq(stream_open(&m, NULL, types, CHAT_45, false, &s, NULL), 0);
        clock_t begin = clock();
        ck_assert_int_eq(stream_put_spelled(s, start, strlen(start), NULL, NULL), 0);
        for (size_t k = 0; k < 20000; k++)
            ck_assert_int_eq(stream_put_spelled(s, unit, strlen(unit), NULL, NULL), 0);
        ck_assert_int_eq(stream_end(s, false, NULL, &finish, NULL), 0);
        ck_assert_msg(clock() - begin < 2 * CLOCKS_PER_SEC, "%s %s", start, unit);
        stream_close(s);
    }
    tool_types_close(types);
}
END_TEST

/* ---- memory ---------------------------------------------------------------------------------- */

static const char rich[] =
    "<think>one\xc3\xa9</think> text \n <tool_call>get\n<arg_key>city</arg_key>\n<arg_value>A "
    "<tool_call> B\n<arg_key>n</arg_key>"
    "<arg_value> {\"a\": [\"\\u00e9\"]} "
    "</arg_value><arg_key>city</arg_key><arg_value>\x01\x02\x03</arg_value></tool_call> "
    "<tool_call>bare<arg_key>obj</arg_key><arg_value>{\"k\": "
    "\"\\n\"}</tool_call><tool_call>now</tool_call><|observation|>";

/* One piece at a time; a piece that fails for want of memory is put again. */
static int32_t feed_stubborn(struct stream *s, const struct stream_sink *sink, uint32_t *n_failed)
{
    glm_error err = GLM_ERROR_INIT;
    for (size_t at = 0, length, n; at < sizeof rich - 1; at += n) {
        enum tok_special which = chat_spelled(rich + at, sizeof rich - 1 - at, &length);
        int32_t rc;
        n = which != TOK_SPECIAL_COUNT ? length : 1;
        do {
            rc = which != TOK_SPECIAL_COUNT ? stream_put_special(s, which, sink, &err)
                                            : stream_put_text(s, rich + at, 1, sink, &err);
            *n_failed += rc == GLM_ENOMEM;
        } while (rc == GLM_ENOMEM && *n_failed < 2);
        if (rc)
            return rc;
    }
    return 0;
}

START_TEST(no_memory)
{
    struct mem plain;
    mem_init(&plain, NULL);
    struct tool_types *types = load_types(&plain, "stream_policy_tools.json");
    struct buf want;
    buf_init(&want, &plain);
    run_random(&plain, types, rich, sizeof rich - 1, false, BYTES, 1, &want);
    ck_assert(strstr(want.data, "X") == NULL);
    uint32_t n_retried = 0, done = 0;
    for (uint64_t fail_at = 1; !done; fail_at++) {
        struct mem m;
        struct faulty f;
        struct stream *s = NULL;
        struct checker c;
        enum stream_finish finish = STREAM_OPEN;
        uint32_t n_failed = 0;
        faulty_init(&f, &m, fail_at, false);
        if (stream_open(&m, NULL, types, CHAT_45, false, &s, NULL)) {
            ck_assert(s == NULL && f.n_alive == 0);
            continue;
        }
        struct stream_sink sink = checker_init(&c, &plain);
        ck_assert_int_eq(feed_stubborn(s, &sink, &n_failed), 0);
        ck_assert_int_eq(stream_end(s, false, &sink, &finish, NULL), 0);
        ck_assert(c.log.size == want.size && memcmp(c.log.data, want.data, want.size) == 0);
        ck_assert_int_eq(finish, STREAM_FINISH_TOOL_CALLS);
        n_retried += n_failed;
        done = f.n_alloc < fail_at;
        stream_close(s);
        checker_free(&c);
        ck_assert_uint_eq(f.n_alive, 0);
    }
    ck_assert_uint_gt(n_retried, 3);

    /* With room reserved, tokens allocate nothing. */
    struct mem m;
    struct faulty f;
    struct stream *s;
    uint32_t n_failed = 0;
    faulty_init(&f, &m, 0, false);
    ck_assert_int_eq(stream_open(&m, NULL, types, CHAT_45, false, &s, NULL), 0);
    ck_assert_int_eq(stream_reserve(s, 10000, NULL), 0);
    uint64_t n = f.n_alloc;
    ck_assert_int_eq(feed_stubborn(s, NULL, &n_failed), 0);
    ck_assert_uint_eq(f.n_alloc, n);
    stream_close(s);
    buf_free(&want);
    tool_types_close(types);
    ck_assert_uint_eq(atomic_load(&plain.used), 0);
}
END_TEST

START_TEST(types_no_memory)
{
    size_t size;
    struct mem plain;
    mem_init(&plain, NULL);
    char *tools = data_load("stream_policy_tools.json", &size);
    struct json_doc doc = data_json(&plain, tools, size);
    int32_t rc = GLM_ENOMEM;
    for (uint64_t fail_at = 1; rc == GLM_ENOMEM; fail_at++) {
        struct mem m;
        struct faulty f;
        struct tool_types *types = NULL;
        faulty_init(&f, &m, fail_at, fail_at % 2);
        rc = tool_types_open(&m, doc.root, &types, NULL);
        ck_assert((rc == 0) == (types != NULL));
        tool_types_close(types);
        ck_assert_uint_eq(f.n_alive, 0);
    }
    ck_assert_int_eq(rc, 0);
    json_free(&doc);
    free(tools);
}
END_TEST

START_TEST(bad_tools)
{
    static const struct {
        const char *json, *where;
    } bad[] = {{"{}", ""}, {"[1]", "/0/name"},
        {"[{\"name\": \"a\"}, {\"function\": {\"name\": 1}}]", "/1/function/name"},
        {"[{\"name\": \"\"}]", "/0/name"}};
    struct mem m;
    mem_init(&m, NULL);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct json_doc doc = data_json(&m, bad[i].json, strlen(bad[i].json));
        struct tool_types *types;
        glm_error err = GLM_ERROR_INIT;
        ck_assert_int_eq(tool_types_open(&m, doc.root, &types, &err), GLM_ESCHEMA);
        ck_assert_str_eq(err.where, bad[i].where);
        ck_assert(types == NULL);
        json_free(&doc);
    }
    ck_assert_uint_eq(atomic_load(&m.used), 0);
}
END_TEST

/* References that lead to references, each to be searched for among many members: without a limit for the whole document
 * this takes hours. The types are still right for what comes before the limit. */
START_TEST(hostile_tools)
{
    enum { N = 5000 };
    struct mem m;
    struct buf b;
    struct tool_types *types;
    mem_init(&m, NULL);
    buf_init(&b, &m);
    buf_str(&b, "[{\"name\": \"f\", \"parameters\": {\"properties\": {\"a\": {\"type\": \"integer\"}");
    for (uint64_t i = 0; i < N; i++) {
        buf_str(&b, ", \"p");
        buf_u64(&b, i);
        buf_str(&b, "\": {\"$ref\": \"#/d\"}");
    }
    buf_str(&b, "}, \"x\": 0");
    for (uint64_t i = 0; i < N; i++) {
        buf_str(&b, ", \"x");
        buf_u64(&b, i);
        buf_str(&b, "\": 0");
    }
    buf_str(&b, ", \"e\": {\"type\": \"string\"}, \"d\": {\"allOf\": [{\"$ref\": \"#/e\"}");
    for (uint64_t i = 0; i < 400; i++)
        buf_str(&b, ", {\"$ref\": \"#/e\"}");
    buf_str(&b, "]}}}]");
    ck_assert(!b.failed);
    struct json_doc doc = data_json(&m, b.data, b.size);
    clock_t start = clock();
    ck_assert_int_eq(tool_types_open(&m, doc.root, &types, NULL), 0);
    double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    ck_assert_msg(seconds < 2, "%.1f seconds", seconds);
    const struct tool_type *f = tool_types_find(types, "f", 1);
    ck_assert_uint_eq(tool_type_of(f, "a", 1), TOOL_INTEGER);
    ck_assert_uint_eq(tool_type_of(f, "p0", 2), TOOL_STRING);
    ck_assert_uint_eq(tool_type_of(f, "p4999", 5), TOOL_ANY);
    tool_types_close(types);
    json_free(&doc);
    buf_free(&b);
    ck_assert_uint_eq(atomic_load(&m.used), 0);
}
END_TEST

/* A sink's own status comes back, and the stream goes on behind it. */
static int32_t fail_first(void *user, const struct stream_event *ev)
{
    uint32_t *n = user;
    (void)ev;
    return (*n)++ == 0 ? -77 : 0;
}

START_TEST(sink_fails)
{
    struct mem m;
    struct stream *s;
    uint32_t n = 0;
    enum stream_finish finish;
    struct stream_sink sink = {&n, fail_first};
    mem_init(&m, NULL);
    ck_assert_int_eq(stream_open(&m, NULL, NULL, CHAT_45, false, &s, NULL), 0);
    ck_assert_int_eq(stream_put_text(s, "a", 1, &sink, NULL), -77);
    ck_assert_int_eq(stream_put_text(s, "b", 1, &sink, NULL), 0);
    ck_assert_int_eq(stream_end(s, true, &sink, &finish, NULL), 0);
    ck_assert_int_eq(finish, STREAM_FINISH_LENGTH);
    ck_assert_uint_eq(n, 2);
    stream_close(s);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("stream");
    TCase *tc = tcase_create("stream");
    suite_add_tcase(suite, tc);
    tcase_add_test(tc, cases);
    tcase_add_test(tc, policy);
    tcase_add_test(tc, tokens);
    tcase_add_test(tc, random_streams);
    tcase_add_test(tc, limits);
    tcase_add_test(tc, many_arguments);
    tcase_add_test(tc, linear);
    tcase_add_test(tc, no_memory);
    tcase_add_test(tc, types_no_memory);
    tcase_add_test(tc, bad_tools);
    tcase_add_test(tc, hostile_tools);
    tcase_add_test(tc, sink_fails);
    SRunner *r = srunner_create(suite);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
