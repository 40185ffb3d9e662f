/* test_chat.c: the chat templates as code against renders of the real templates; hostile JSON; content that spells
 * special tokens; every allocation failed in turn.
 */
#include "lib/text/text.h"
#include "text_data.h"

static enum chat_family family_of(const struct json *line)
{
    return json_is_text(json_get(line, "template"), "glm-4.7") ? CHAT_47 : CHAT_45;
}

/* Renders one line {template, messages, tools, kwargs} as text. */
static int32_t render_line(struct mem *m, const struct json *line, uint32_t flags, struct buf *out, glm_error *err)
{
    struct chat_options how = { .family = family_of(line) };
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
        if (want->type == JSON_NULL ? rc == 0 :
            rc != 0 || out.size != want->size || memcmp(out.data, want->text, out.size) != 0) {
            n_wrong++;
            fprintf(stderr, "%s:%zu\n  want %s\n  got  %s (%d %s)\n", file, n_line, want->text ? want->text : "error",
                out.data ? out.data : "", rc, err.message);
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



int main(void)
{
    Suite *s = suite_create("chat");
    TCase *tc = tcase_create("chat");
    suite_add_tcase(s, tc);
    tcase_add_test(tc, golden);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
