/* test_chat.c: the chat templates as code against renders of the real templates; hostile JSON;
 * content that spells special tokens; every allocation failed in turn.
 */
#include "lib/text/text.h"
#include "text_data.h"

static enum chat_family family_of(const struct json *line)
{
    return json_is_text(json_get(line, "template"), "glm-4.7") ? CHAT_47 : CHAT_45;
}

/* Renders one line {template, messages, tools, kwargs} as text. */
static int32_t render_line(
    struct mem *m, const struct json *line, uint32_t flags, struct buf *out, glm_error *err)
{
    struct chat_options how = {.family = family_of(line)};
    const struct chat_message *messages = NULL;
    size_t n = 0;
    struct arena arena;
    arena_init(&arena, m);
    int32_t rc = chat_options_from_kwargs(json_get(line, "kwargs"), &how, err);
    if (!rc)
        rc = chat_from_json(&arena, m, json_get(line, "messages"), flags, &messages, &n, err);
    if (!rc)
        rc = chat_render_text(m, messages, n, json_get(line, "tools"), &how, out, err);
    arena_free(&arena);
    return rc;
}

/* Every line's render, byte for byte; "rendered": null is one that the template refuses. */
static size_t check_renders(const char *file)
{
    size_t size, n_line = 0, n_wrong = 0;
    char *data = data_load(file, &size), *at = data, *text;
    struct mem m;
    mem_init(&m, NULL);
    while ((text = data_line(&at)) != NULL) {
        struct json_doc doc = data_json(&m, text, strlen(text));
        const struct json *want = json_get(doc.root, "rendered");
        struct buf out;
        glm_error err = GLM_ERROR_INIT;
        buf_init(&out, &m);
        int32_t rc = render_line(&m, doc.root, 0, &out, &err);
        n_line++;
        if (want->type == JSON_NULL ? rc == 0
                                    : rc != 0 || out.size != want->size ||
                                          memcmp(out.data, want->text, out.size) != 0) {
            n_wrong++;
            fprintf(stderr, "%s:%zu\n  want %s\n  got  %s (%d %s)\n", file, n_line,
                want->text ? want->text : "error", out.data ? out.data : "", rc, err.message);
        }
        buf_free(&out);
        json_free(&doc);
    }
    free(data);
    ck_assert_uint_eq(n_wrong, 0);
    ck_assert_uint_eq(atomic_load(&m.used), 0);
    return n_line;
}

START_TEST(golden)
{
    ck_assert_uint_eq(check_renders("chat_golden.jsonl"), 150);
}
END_TEST

/* Random conversations with every odd type in every field, rendered by the templates themselves. */
START_TEST(random_renders)
{
    ck_assert_uint_eq(check_renders("chat_extra.jsonl"), 400);
}
END_TEST

/* ---- arguments, detection, refusals ---------------------------------------------------------- */

START_TEST(template_arguments)
{
    static const struct {
        const char *json;
        enum chat_flag want;
    } values[] = {{"null", CHAT_FALSE}, {"0", CHAT_FALSE}, {"-0.0", CHAT_FALSE},
        {"0e7", CHAT_FALSE}, {"1e-999", CHAT_FALSE}, {"false", CHAT_FALSE}, {"\"\"", CHAT_FALSE},
        {"[]", CHAT_FALSE}, {"{}", CHAT_FALSE}, {"true", CHAT_TRUE}, {"1", CHAT_TRUE},
        {"0.5", CHAT_TRUE}, {"\"x\"", CHAT_TRUE}, {"\"false\"", CHAT_TRUE}, {"[0]", CHAT_TRUE},
        {"{\"a\": 0}", CHAT_TRUE}, {"1000000000000000000000000", CHAT_TRUE}};
    struct mem m;
    mem_init(&m, NULL);
    for (size_t i = 0; i < ARRAY_LEN(values); i++) {
        char text[200];
        int n = snprintf(text, sizeof text,
            "{\"enable_thinking\": %s, \"clear_thinking\": %s, \"other\": 1}", values[i].json,
            values[i].json);
        struct json_doc doc = data_json(&m, text, (size_t)n);
        struct chat_options how = {.family = CHAT_47};
        ck_assert_int_eq(chat_options_from_kwargs(doc.root, &how, NULL), 0);
        ck_assert_msg(how.enable_thinking == values[i].want, "%s", text);
        ck_assert_int_eq(how.clear_thinking, values[i].want);
        ck_assert_int_eq(how.family, CHAT_47);
        ck_assert(!how.add_generation_prompt);
        json_free(&doc);
    }
    struct json_doc doc = data_json(&m, "[1]", 3);
    struct chat_options how = {0};
    ck_assert_int_eq(chat_options_from_kwargs(NULL, &how, NULL), 0);
    ck_assert_int_eq(how.enable_thinking, CHAT_UNDEFINED);
    ck_assert_int_eq(chat_options_from_kwargs(doc.root, &how, NULL), GLM_EINVAL);
    json_free(&doc);
}
END_TEST

static void check_detect(char *text, size_t size, bool want_known, enum chat_family want)
{
    bool known = !want_known;
    ck_assert_int_eq(chat_detect(text, size, &known), want);
    ck_assert(known == want_known);
}

START_TEST(detect)
{
    static const char *const files[] = {"glm-4.5.jinja", "glm-4.7.jinja"};
    for (size_t i = 0; i < 2; i++) {
        size_t size;
        char *text = data_load(files[i], &size);
        enum chat_family family = i ? CHAT_47 : CHAT_45;
        check_detect(text, size, true, family);
        text[size] = '\n'; /* republished: a newline at the end, a comment at the start */
        check_detect(text, size + 1, true, family);
        text[0] = ' ';
        check_detect(text, size, false, CHAT_45);
        free(text);
    }
    bool known = true;
    ck_assert_int_eq(chat_detect(NULL, 0, &known), CHAT_45);
    ck_assert(!known);
    char both[] = "[gMASK]<sop> <|observation|> <arg_key> /nothink clear_thinking "
                  "<tool_call>{function-name}<arg_key>";
    check_detect(both, sizeof both - 1, false, CHAT_45);
}
END_TEST

/* What can not be rendered is refused at its place. */
START_TEST(refusals)
{
    static const struct {
        const char *messages, *where;
    } bad[] = {
        {"{}", ""},
        {"null", ""},
        {"\"x\"", ""},
        {"[1]", "/0"},
        {"[{}, null]", "/1"},
        {"[{\"role\": \"tool\", \"content\": null}]", "/0/content"},
        {"[{\"role\": \"tool\", \"content\": 7}]", "/0/content"},
        {"[{\"role\": \"assistant\", \"tool_calls\": 7}]", "/0/tool_calls"},
        {"[{\"role\": \"assistant\", \"tool_calls\": {\"a\": 1}}]", "/0/tool_calls"},
        {"[{\"role\": \"assistant\", \"tool_calls\": [7]}]", "/0/tool_calls/0/name"},
        {"[{\"role\": \"assistant\", \"tool_calls\": [{\"function\": \"f\"}]}]",
            "/0/tool_calls/0/name"},
        {"[{\"role\": \"assistant\", \"tool_calls\": [{\"name\": \"f\"}]}]",
            "/0/tool_calls/0/arguments"},
        {"[{\"role\": \"assistant\", \"tool_calls\": [{\"name\": \"f\", \"arguments\": []}]}]",
            "/0/tool_calls/0/arguments"},
        {"[{\"role\": \"user\"}, {\"role\": \"assistant\", \"tool_calls\": [{\"name\": \"f\", "
         "\"arguments\": {}}, "
         "{\"name\": \"f\", \"arguments\": \"{\\\"a\\\": \"}]}]",
            "/1/tool_calls/1/arguments"},
        {"[{\"role\": \"assistant\", \"tool_calls\": [{\"name\": \"f\", \"arguments\": \"[1]\"}]}]",
            "/0/tool_calls/0/arguments"},
    };
    struct mem m;
    mem_init(&m, NULL);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct json_doc doc = data_json(&m, bad[i].messages, strlen(bad[i].messages));
        struct arena arena;
        const struct chat_message *out = (void *)&m;
        size_t n = 99;
        glm_error err = GLM_ERROR_INIT;
        arena_init(&arena, &m);
        ck_assert_msg(chat_from_json(&arena, &m, doc.root, 0, &out, &n, &err) == GLM_EINVAL, "%s",
            bad[i].messages);
        ck_assert_str_eq(err.where, bad[i].where);
        ck_assert(out == (void *)&m && n == 99);
        arena_free(&arena);
        json_free(&doc);
    }
    struct json_doc tools = data_json(&m, "{\"a\": 1}", 8);
    struct chat_options how = {.family = CHAT_45};
    struct buf out;
    buf_init(&out, &m);
    ck_assert_int_eq(chat_render_text(&m, NULL, 0, tools.root, &how, &out, NULL), GLM_EINVAL);
    ck_assert_uint_eq(out.size, 0);
    json_free(&tools);
    ck_assert_uint_eq(atomic_load(&m.used), 0);
}
END_TEST

static void check_openai(struct mem *m, const char *messages, const char *want)
{
    char line[1000];
    int size =
        snprintf(line, sizeof line, "{\"template\": \"glm-4.7\", \"messages\": %s}", messages);
    struct json_doc doc = data_json(m, line, (size_t)size);
    struct buf out;
    buf_init(&out, m);
    ck_assert_int_eq(render_line(m, doc.root, CHAT_OPENAI, &out, NULL), 0);
    ck_assert_str_eq(out.data, want);
    buf_free(&out);
    json_free(&doc);
}

/* What clients send and the templates print badly. */
START_TEST(openai)
{
    struct mem m;
    mem_init(&m, NULL);
    check_openai(&m,
        "[{\"role\": \"assistant\", \"content\": null, \"tool_calls\": [{\"function\": {\"name\": "
        "\"f\", "
        "\"arguments\": \"{\\\"a\\\": [1, \\\"\\\\u00e9\\\"], \\\"b\\\": \\\"x\\\"}\"}}, "
        "{\"name\": \"g\", "
        "\"arguments\": \" \"}]}]",
        "[gMASK]<sop><|assistant|></think><tool_call>f<arg_key>a</arg_key><arg_value>[1, "
        "\"\u00e9\"]</arg_value>"
        "<arg_key>b</arg_key><arg_value>x</arg_value></tool_call><tool_call>g</tool_call>");
    check_openai(&m,
        "[{\"role\": \"tool\", \"content\": [{\"type\": \"text\", \"text\": \"a\"}, {\"type\": "
        "\"text\", "
        "\"text\": \"b\"}]}, {\"role\": \"tool\", \"content\": null}, {\"role\": \"user\", "
        "\"content\": null}]",
        "[gMASK]<sop><|observation|><tool_response>ab</tool_response><tool_response></"
        "tool_response><|user|>");
    ck_assert_uint_eq(atomic_load(&m.used), 0);
}
END_TEST

/* ---- ids ------------------------------------------------------------------------------------- */

static bool spells_special(const struct json *v)
{
    for (const struct json *end = v + v->span; v < end; v++)
        for (uint32_t i = 0; v->type == JSON_STRING && i < TOK_SPECIAL_COUNT; i++)
            if (strstr(v->text, chat_spelling((enum tok_special)i)) || strlen(v->text) != v->size)
                return true;
    return false;
}

static int32_t line_ids(struct mem *m, const struct tok *t, const struct json *line,
    struct ids *out, size_t *ends, glm_error *err)
{
    struct chat_options how = {.family = family_of(line)};
    const struct chat_message *messages = NULL;
    size_t n = 0;
    struct arena arena;
    arena_init(&arena, m);
    int32_t rc = chat_options_from_kwargs(json_get(line, "kwargs"), &how, err);
    if (!rc)
        rc = chat_from_json(&arena, m, json_get(line, "messages"), 0, &messages, &n, err);
    if (!rc)
        rc = chat_render_ids(t, m, messages, n, json_get(line, "tools"), &how, out, ends, err);
    arena_free(&arena);
    return rc;
}

/* Ends of messages are borders: the first messages of a conversation, rendered on their own, are
 * its first ids, as long as the rest does not change what they show (no user message follows,
 * thoughts aside). */
static void check_ends(struct mem *m, const struct tok *t, const struct json *line,
    const struct ids *whole, const size_t *ends)
{
    struct chat_options how = {.family = family_of(line)};
    const struct chat_message *messages = NULL;
    size_t n = 0;
    struct arena arena;
    struct ids part;
    arena_init(&arena, m);
    ids_init(&part, m);
    ck_assert_int_eq(chat_options_from_kwargs(json_get(line, "kwargs"), &how, NULL), 0);
    ck_assert_int_eq(
        chat_from_json(&arena, m, json_get(line, "messages"), 0, &messages, &n, NULL), 0);
    how.add_generation_prompt = false;
    for (size_t i = 0, later = 0; i < n; i++, later = 0) {
        for (size_t k = i + 1; k < n; k++)
            later += messages[k].role == GLM_ROLE_USER;
        part.n = 0;
        if (later > 0)
            continue;
        ck_assert_int_eq(chat_render_ids(t, m, messages, i + 1, json_get(line, "tools"), &how,
                             &part, NULL, NULL),
            0);
        ck_assert_uint_eq(part.n, ends[i]);
        ck_assert(memcmp(part.id, whole->id, part.n * sizeof *part.id) == 0);
    }
    ids_free(&part);
    arena_free(&arena);
}

/* Where no content spells a tag, the ids are those of the whole text read with special tokens on.
 */
static size_t check_ids(const struct tok *t, const char *file)
{
    size_t size, n_same = 0;
    char *data = data_load(file, &size), *at = data, *text;
    struct mem m;
    mem_init(&m, NULL);
    while ((text = data_line(&at)) != NULL) {
        struct json_doc doc = data_json(&m, text, strlen(text));
        const struct json *want = json_get(doc.root, "rendered");
        struct ids got, whole;
        size_t ends[64];
        ids_init(&got, &m);
        ids_init(&whole, &m);
        if (want->type == JSON_STRING) {
            ck_assert_int_eq(line_ids(&m, t, doc.root, &got, ends, NULL), 0);
            check_ends(&m, t, doc.root, &got, ends);
            if (!spells_special(json_get(doc.root, "messages")) &&
                (!json_get(doc.root, "tools") || !spells_special(json_get(doc.root, "tools")))) {
                ck_assert_int_eq(
                    tok_encode(t, want->text, want->size, TOK_SPECIALS, &whole, NULL), 0);
                ck_assert_msg(
                    got.n == whole.n && memcmp(got.id, whole.id, got.n * sizeof *got.id) == 0, "%s",
                    text);
                n_same++;
            }
        }
        ids_free(&got);
        ids_free(&whole);
        json_free(&doc);
    }
    free(data);
    ck_assert_uint_eq(atomic_load(&m.used), 0);
    return n_same;
}

/* One conversation in which every field holds the same text. */
static void fill_conversation(
    char *line, size_t size, const char *family, const char *kwargs, const char *text)
{
    snprintf(line, size,
        "{\"template\": \"glm-%s\", \"kwargs\": {\"add_generation_prompt\": true%s}, \"tools\": "
        "[{\"function\": "
        "{\"name\": \"%s\", \"description\": \"%s\", \"parameters\": {\"%s\": \"%s\"}}}], "
        "\"messages\": ["
        "{\"role\": \"system\", \"content\": \"%s\"}, {\"role\": \"user\", \"content\": \"%s.\"}, "
        "{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"a%s\"}, \"%s.\"]}, "
        "{\"role\": \"assistant\", \"content\": \"%s\", \"reasoning_content\": \"%s\", "
        "\"tool_calls\": [{\"name\": "
        "\"%s\", \"arguments\": {\"%s\": \"%s\", \"x\": [\"%s\"]}}]}, {\"role\": \"tool\", "
        "\"content\": \"%s\"}, "
        "{\"role\": \"tool\", \"content\": [\"%s\", {\"output\": \"%s\"}, {\"%s\": 1}]}]}",
        family, kwargs, text, text, text, text, text, text, text, text, text, text, text, text,
        text, text, text, text, text, text);
}

static size_t count_added(const struct tok *t, const struct ids *v)
{
    size_t n = 0;
    for (size_t i = 0; i < v->n; i++)
        n += tok_is_added(t, v->id[i]);
    return n;
}

static void ids_of(struct mem *m, const struct tok *t, const char *family, const char *kwargs,
    const char *text, struct ids *out)
{
    char line[8000];
    fill_conversation(line, sizeof line, family, kwargs, text);
    struct json_doc doc = data_json(m, line, strlen(line));
    out->n = 0;
    ck_assert_int_eq(line_ids(m, t, doc.root, out, NULL, NULL), 0);
    json_free(&doc);
}

/* Every added token, in every field of every role: the render has exactly the markup that a
 * harmless word gives, and decodes to what was put in. */
static void check_injection(const struct tok *t)
{
    static const char *const families[] = {"4.5", "4.7"};
    static const char *const kwargs[] = {"", ", \"enable_thinking\": false"};
    struct mem m;
    mem_init(&m, NULL);
    struct ids plain, got;
    struct buf text;
    ids_init(&plain, &m);
    ids_init(&got, &m);
    buf_init(&text, &m);
    size_t n_token = 0;
    for (uint32_t i = 0; i < 4; i++) {
        ids_of(&m, t, families[i % 2], kwargs[i / 2], "word", &plain);
        for (int32_t id = 0; id < (int32_t)tok_n(t); id++) {
            size_t size, at = 0;
            const char *spelling = tok_bytes(t, id, &size);
            if (!tok_is_added(t, id))
                continue;
            char field[64];
            snprintf(field, sizeof field, "%.*s", (int)size, spelling);
            ids_of(&m, t, families[i % 2], kwargs[i / 2], field, &got);
            ck_assert_msg(count_added(t, &got) == count_added(t, &plain), "%s", field);
            buf_clear(&text);
            for (size_t k = 0; k < got.n; k++) {
                const char *bytes = tok_bytes(t, got.id[k], &size);
                buf_put(&text, bytes, size);
            }
            for (const char *p = text.data; (p = strstr(p, field)) != NULL; p++)
                at++;
            ck_assert_uint_ge(at, 18); /* in each field that is printed */
            n_token++;
        }
    }
    ck_assert_uint_ge(n_token, 4 * 36);
    ids_free(&plain);
    ids_free(&got);
    buf_free(&text);
    ck_assert_uint_eq(atomic_load(&m.used), 0);
}

static size_t count_id(const struct ids *v, int32_t id)
{
    size_t n = 0;
    for (size_t i = 0; i < v->n; i++)
        n += v->id[i] == id;
    return n;
}

/* The switch is a token only where it is the switch; trusted text may hold markup. */
static void check_switch(const struct tok *t)
{
    struct mem m;
    mem_init(&m, NULL);
    struct ids ids;
    ids_init(&ids, &m);
    struct chat_message user = {
        .role = GLM_ROLE_USER, .text = "say /nothink or /nothink", .text_size = 24};
    struct chat_options how = {.family = CHAT_45, .enable_thinking = CHAT_FALSE};
    int32_t nothink = tok_id(t, TOK_NOTHINK);
    const struct {
        enum chat_family family;
        enum chat_flag thinking;
        uint32_t flags;
        size_t want;
    } all[] = {{CHAT_45, CHAT_FALSE, 0, 1}, {CHAT_45, CHAT_TRUE, 0, 0},
        {CHAT_45, CHAT_UNDEFINED, 0, 0}, {CHAT_47, CHAT_FALSE, 0, 0},
        {CHAT_45, CHAT_FALSE, GLM_MESSAGE_SPECIALS, 2},
        {CHAT_47, CHAT_TRUE, GLM_MESSAGE_SPECIALS, 2}};
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        how.family = all[i].family;
        how.enable_thinking = all[i].thinking;
        user.flags = all[i].flags;
        ids.n = 0;
        ck_assert_int_eq(chat_render_ids(t, &m, &user, 1, NULL, &how, &ids, NULL, NULL), 0);
        ck_assert_uint_eq(count_id(&ids, nothink), all[i].want);
    }
    ids_free(&ids);
}

START_TEST(token_ids)
{
    struct mem m;
    char *json;
    mem_init(&m, NULL);
    struct tok *t = data_tok(&m, &json);
    ck_assert_uint_gt(check_ids(t, "chat_golden.jsonl"), 120);
    ck_assert_uint_gt(check_ids(t, "chat_extra.jsonl"), 30);
    check_injection(t);
    check_switch(t);
    tok_close(t);
    free(json);
    ck_assert_uint_eq(atomic_load(&m.used), 0);
}
END_TEST

/* ---- memory ---------------------------------------------------------------------------------- */

static const char everything[] = "{\"template\": \"glm-4.5\", \"kwargs\": {\"enable_thinking\": "
                                 "false}, \"tools\": [{\"a\": {\"b\": [1, \"c\"]}}], "
                                 "\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": "
                                 "\"text\", \"text\": {\"a\": [null, \"q'\"]}}, \"x\"]}, "
                                 "{\"role\": \"assistant\", \"content\": {\"k\": 1.5}, "
                                 "\"tool_calls\": [{\"name\": \"f\", \"arguments\": "
                                 "\"{\\\"a\\\": {\\\"b\\\": [1, \\\"s\\\"]}}\"}, {\"name\": \"f\", "
                                 "\"arguments\": {\"c\": [1]}}]}, "
                                 "{\"role\": \"tool\", \"content\": [{\"output\": [1]}, \"s\"]}]}";

START_TEST(no_memory)
{
    struct mem plain;
    mem_init(&plain, NULL);
    struct json_doc doc = data_json(&plain, everything, strlen(everything));
    for (uint32_t for_good = 0; for_good < 2; for_good++) {
        int32_t rc = GLM_ENOMEM;
        uint64_t fail_at = 1;
        for (; rc == GLM_ENOMEM; fail_at++) {
            struct mem m;
            struct faulty f;
            struct buf out;
            glm_error err = GLM_ERROR_INIT;
            faulty_init(&f, &m, fail_at, for_good);
            buf_init(&out, &m);
            rc = render_line(&m, doc.root, 0, &out, &err);
            ck_assert(rc == 0 || (rc == GLM_ENOMEM && err.code == GLM_ENOMEM));
            ck_assert(rc != 0 || f.n_alloc < f.fail_at);
            buf_free(&out);
            ck_assert_uint_eq(f.n_alive, 0);
        }
        ck_assert_int_eq(rc, 0);
        ck_assert_uint_gt(fail_at, 5);
    }
    json_free(&doc);
}
END_TEST

/* A sink that gives up: the status comes back, nothing more is put. */
static int32_t give_up(
    void *user, enum chat_piece kind, enum tok_special special, const char *text, size_t size)
{
    uint32_t *left = user;
    (void)kind;
    (void)special;
    ck_assert(text != NULL && size > 0);
    ck_assert_uint_gt(*left, 0);
    return --*left == 0 ? -1234 : 0;
}

START_TEST(sink_stops)
{
    struct mem m;
    mem_init(&m, NULL);
    struct json_doc doc = data_json(&m, everything, strlen(everything));
    struct arena arena;
    arena_init(&arena, &m);
    const struct chat_message *messages;
    size_t n;
    ck_assert_int_eq(
        chat_from_json(&arena, &m, json_get(doc.root, "messages"), 0, &messages, &n, NULL), 0);
    int32_t rc = -1234;
    for (uint32_t pieces = 1; rc != 0; pieces++) {
        uint32_t left = pieces;
        struct chat_sink sink = {.user = &left, .put = give_up};
        struct chat_options how = {.family = CHAT_47, .add_generation_prompt = true};
        rc = chat_render(&m, messages, n, json_get(doc.root, "tools"), &how, &sink, NULL);
        ck_assert(rc == -1234 || (rc == 0 && pieces > 30));
    }
    arena_free(&arena);
    json_free(&doc);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("chat");
    TCase *tc = tcase_create("chat");
    suite_add_tcase(s, tc);
    tcase_add_test(tc, golden);
    tcase_add_test(tc, random_renders);
    tcase_add_test(tc, template_arguments);
    tcase_add_test(tc, detect);
    tcase_add_test(tc, refusals);
    tcase_add_test(tc, openai);
    tcase_add_test(tc, token_ids);
    tcase_add_test(tc, no_memory);
    tcase_add_test(tc, sink_stops);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
