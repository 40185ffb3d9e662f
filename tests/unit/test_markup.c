/* test_markup.c: text is data. Every added token of the real vocabulary, spelled out in every field of every role, in both
 * families with thinking on and off: the markup of the prompt stays what it is without it, and no letter is lost. */
#include "text_data.h"
#include "tok_fixture.h"

static struct mem mem;
static struct tok *tok;

static void set_up(void)
{
    mem_init(&mem, NULL);
    tok = fixture_open(&mem, "tokenizer.json");
}

static void tear_down(void)
{
    tok_close(tok);
    ck_assert_uint_eq(atomic_load(&mem.used), 0);
}

/* A conversation with a field in every place that a host can fill: @a@ to @p@. */
#define N_FIELD 16
static const char conversation[] =
    "{\"messages\": ["
    "{\"role\": \"system\", \"content\": \"@a@\"},"
    "{\"role\": \"user\", \"content\": \"@b@\"},"
    "{\"role\": \"assistant\", \"reasoning_content\": \"@c@\", \"content\": \"@d@\", \"tool_calls\": ["
    "{\"function\": {\"name\": \"@e@\", \"arguments\": {\"@f@\": \"@g@\", \"list\": [\"@h@\", {\"@i@\": 1}]}}},"
    "{\"function\": {\"name\": \"plain\", \"arguments\": {\"x\": 1}}}]},"
    "{\"role\": \"tool\", \"content\": \"@j@\"},"
    "{\"role\": \"tool\", \"content\": [{\"type\": \"text\", \"text\": \"@k@\"}]},"
    "{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"@l@\"}, {\"type\": \"text\", \"text\": \" and more\"}]},"
    "{\"role\": \"assistant\", \"reasoning_content\": \"@c@\", \"content\": \"@d@\"}, {\"role\": \"user\", \"content\": \"last\"}],"
    "\"tools\": [{\"type\": \"function\", \"function\": {\"name\": \"@m@\", \"description\": \"@n@\", \"parameters\": "
    "{\"type\": \"object\", \"properties\": {\"@o@\": {\"type\": \"string\", \"description\": \"@p@\", \"enum\": [\"@n@\"]}}}}}]}";

/* The field `which` becomes text, all others a word. */
static void fill(struct buf *out, uint32_t which, const char *text, size_t size)
{
    buf_clear(out);
    for (const char *c = conversation; *c; c++) {
        if (c[0] == '@' && c[2] == '@' && c[1] >= 'a' && c[1] < 'a' + N_FIELD) {
            if (c[1] == (char)('a' + which))
                buf_put(out, text, size);
            else
                buf_str(out, "word");
            c += 2;
        } else {
            buf_char(out, *c);
        }
    }
}

/* The prompt's ids, and its text as the templates print it. */
static void render(const struct buf *json, const struct chat_options *how, struct ids *ids, struct buf *text)
{
    struct json_doc doc = data_json(&mem, json->data, json->size);
    const struct chat_message *messages = NULL;
    const struct json *tools = json_get(doc.root, "tools");
    struct arena arena;
    size_t n = 0;
    glm_error err = GLM_ERROR_INIT;

    arena_init(&arena, &mem);
    ck_assert_int_eq(chat_from_json(&arena, &mem, json_get(doc.root, "messages"), CHAT_OPENAI, &messages, &n, &err), 0);
    ck_assert_int_eq(chat_render_ids(tok, &mem, messages, n, tools, how, ids, NULL, &err), 0);
    ck_assert_int_eq(chat_render_text(&mem, messages, n, tools, how, text, &err), 0);
    arena_free(&arena);
    json_free(&doc);
}

static void markup_of(const struct ids *ids, struct ids *markup)
{
    for (size_t i = 0; i < ids->n; i++)
        if (tok_is_added(tok, ids->id[i]))
            ids_put(markup, ids->id[i]);
}

static bool same_ids(const struct ids *a, const struct ids *b)
{
    return a->n == b->n && memcmp(a->id, b->id, a->n * sizeof *a->id) == 0;
}

static bool ids_say(const struct ids *ids, const struct buf *text)
{
    size_t at = 0;
    for (size_t i = 0; i < ids->n; i++) {
        size_t size;
        const char *bytes = tok_bytes(tok, ids->id[i], &size);
        if (size > text->size - at || memcmp(text->data + at, bytes, size))
            return false;
        at += size;
    }
    return at == text->size;
}

static void check_field(uint32_t field, const char *text, size_t size, const struct chat_options *how, const struct ids *want)
{
    struct buf json, rendered;
    struct ids ids, markup;
    buf_init(&json, &mem);
    buf_init(&rendered, &mem);
    ids_init(&ids, &mem);
    ids_init(&markup, &mem);
    fill(&json, field, text, size);
    render(&json, how, &ids, &rendered);
    markup_of(&ids, &markup);
    ck_assert_msg(same_ids(&markup, want), "field %c, text %.*s", 'a' + field, (int)size, text);
    ck_assert_msg(ids_say(&ids, &rendered), "field %c, text %.*s", 'a' + field, (int)size, text);
    buf_free(&json);
    buf_free(&rendered);
    ids_free(&ids);
    ids_free(&markup);
}

static void check_token(const char *spelling, size_t size, const struct chat_options *how, const struct ids *want)
{
    struct buf text;
    buf_init(&text, &mem);
    for (int form = 0; form < 4; form++) {
        buf_clear(&text);
        if (form == 1 || form == 3)
            buf_str(&text, "so ");
        buf_put(&text, spelling, size);
        if (form == 3) /* the same twice, and half of it */
            buf_put(&text, spelling, size);
        if (form >= 2)
            buf_put(&text, spelling, size / 2 + 1);
        for (uint32_t field = 0; field < N_FIELD; field++)
            check_field(field, text.data, text.size, how, want);
    }
    buf_free(&text);
}

static void check_all(const struct chat_options *how)
{
    struct buf json, text;
    struct ids ids, want;
    unsigned n_added = 0;

    buf_init(&json, &mem);
    buf_init(&text, &mem);
    ids_init(&ids, &mem);
    ids_init(&want, &mem);
    fill(&json, N_FIELD, "", 0);
    render(&json, how, &ids, &text);
    markup_of(&ids, &want);
    ck_assert_uint_gt(want.n, 30);
    for (uint32_t id = 0; id < tok_n(tok); id++) {
        size_t size;
        const char *spelling = tok_bytes(tok, (int32_t)id, &size);
        if (!tok_is_added(tok, (int32_t)id))
            continue;
        n_added++;
        check_token(spelling, size, how, &want);
    }
    ck_assert_uint_eq(n_added, 36);
    buf_free(&json);
    buf_free(&text);
    ids_free(&ids);
    ids_free(&want);
}

START_TEST(markup_never_changes)
{
    struct chat_options how = { .family = _i & 1 ? CHAT_47 : CHAT_45, .add_generation_prompt = true };
    how.enable_thinking = _i & 2 ? CHAT_FALSE : CHAT_TRUE;
    how.clear_thinking = _i & 4 ? CHAT_FALSE : CHAT_UNDEFINED;
    check_all(&how);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("markup");
    TCase *c = tcase_create("markup");
    SRunner *r = srunner_create(suite);
    int n_failed;

    tcase_add_checked_fixture(c, set_up, tear_down);
    tcase_set_timeout(c, 240);
    tcase_add_loop_test(c, markup_never_changes, 0, 8);
    suite_add_tcase(suite, c);
    srunner_run_all(r, CK_NORMAL);
    n_failed = srunner_ntests_failed(r);
    srunner_free(r);
    return n_failed != 0;
}
