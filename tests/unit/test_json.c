/* test_json.c: the JSON reader of lib/base and the tree built from it: what is refused, depth,
 * shape, memory. */
#include "failing_alloc.h"
#include "lib/base/base.h"

#include <check.h>

#include <pthread.h>
#include <stdio.h>
#include <time.h>

static struct mem mem;

static void setup(void)
{
    mem_init(&mem, NULL);
}

static void teardown(void)
{
    ck_assert_uint_eq(mem.used, 0);
}

static int32_t parse(const char *text, uint32_t flags, struct json_doc *doc, glm_error *err)
{
    return json_parse(&mem, text, strlen(text), flags, "test.json", doc, err);
}

static void parse_ok(const char *text, struct json_doc *doc)
{
    glm_error err = GLM_ERROR_INIT;

    if (parse(text, 0, doc, &err))
        ck_abort_msg("%s: %s", text, err.message);
}

/* ---- reader ---------------------------------------------------------------------------------- */

/* Events as text: [ ] { }, k<key>, s<string>, n<number>, t f z for the words. */
static void read_events(struct json_reader *r, struct buf *out)
{
    enum json_event event;

    while ((event = json_reader_next(r, NULL)) < JSON_EV_END) {
        if (event == JSON_EV_OPEN)
            buf_char(out, r->value.type == JSON_ARRAY ? '[' : '{');
        else if (event == JSON_EV_CLOSE)
            buf_char(out, ')');
        else
            buf_char(out, event == JSON_EV_KEY ? 'k' : "zftns"[r->value.type]);
        if ((event == JSON_EV_KEY || event == JSON_EV_VALUE) && r->value.type >= JSON_NUMBER) {
            buf_put(out, r->value.text, r->value.size);
            buf_char(out, ';');
        }
    }
    buf_char(out, event == JSON_EV_END ? '.' : '!');
}

static void expect_events(const char *text, const char *events)
{
    struct json_reader r;
    struct buf out;

    buf_init(&out, &mem);
    json_reader_init(&r, &mem, text, strlen(text), "test.json");
    read_events(&r, &out);
    ck_assert_str_eq(out.data, events);
    json_reader_free(&r);
    buf_free(&out);
}

START_TEST(reader_events)
{
    expect_events("[]", "[).");
    expect_events(" { } ", "{).");
    expect_events("\t\r\n null\n", "z.");
    expect_events("[true,false,null,-1.5e+3,\"x\"]", "[tfzn-1.5e+3;sx;).");
    expect_events("{\"a\" : [1, {\"b\":\"\"}] , \"c\":0}", "{ka;[n1;{kb;s;))kc;n0;).");
    expect_events("\"a long string without any escape, \xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"",
        "sa long string without any escape, \xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80;.");
    expect_events("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0041\\u00e9\\u20AC\\ud83d\\uDE00 end\"",
        "s\"\\/\b\f\n\r\tA\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80 end;.");
    expect_events("[1,2", "[n1;n2;!");
    expect_events("", "!");
}
END_TEST

START_TEST(reader_offsets_and_views)
{
    const char text[] = "{\"key\": [12, \"v\"]}";
    struct json_reader r;

    json_reader_init(&r, &mem, text, strlen(text), NULL);
    ck_assert_int_eq(json_reader_next(&r, NULL), JSON_EV_OPEN);
    ck_assert_uint_eq(r.value.offset, 0);
    ck_assert_int_eq(json_reader_next(&r, NULL), JSON_EV_KEY);
    ck_assert_uint_eq(r.value.offset, 1);
    ck_assert_ptr_eq(r.value.text, text + 2); /* not copied */
    ck_assert_int_eq(json_reader_next(&r, NULL), JSON_EV_OPEN);
    ck_assert_uint_eq(r.value.offset, 8);
    ck_assert_int_eq(json_reader_next(&r, NULL), JSON_EV_VALUE);
    ck_assert_uint_eq(r.value.offset, 9);
    ck_assert_int_eq(json_reader_next(&r, NULL), JSON_EV_VALUE);
    ck_assert_uint_eq(r.value.offset, 13);
    for (int i = 0; i < 2; i++)
        ck_assert_int_eq(json_reader_next(&r, NULL), JSON_EV_CLOSE);
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(json_reader_next(&r, NULL), JSON_EV_END);
    json_reader_free(&r);
}
END_TEST

START_TEST(reader_skips)
{
    const char text[] = "{\"a\":{\"x\":[1,{}]},\"b\":2,\"c\":[[[]],3],\"d\":4}";
    struct json_reader r;

    json_reader_init(&r, &mem, text, strlen(text), NULL);
    ck_assert_int_eq(json_reader_next(&r, NULL), JSON_EV_OPEN);
    ck_assert_int_eq(json_reader_next(&r, NULL), JSON_EV_KEY);
    ck_assert(json_reader_skip(&r, NULL)); /* a key's object */
    ck_assert_int_eq(json_reader_next(&r, NULL), JSON_EV_KEY);
    ck_assert_int_eq(r.value.text[0], 'b');
    ck_assert(json_reader_skip(&r, NULL)); /* a key's number */
    ck_assert_int_eq(json_reader_next(&r, NULL), JSON_EV_KEY);
    ck_assert_int_eq(json_reader_next(&r, NULL), JSON_EV_OPEN);
    ck_assert(json_reader_skip(&r, NULL)); /* the rest of an array */
    ck_assert_int_eq(json_reader_next(&r, NULL), JSON_EV_KEY);
    ck_assert_int_eq(r.value.text[0], 'd');
    ck_assert(json_reader_skip(&r, NULL));
    ck_assert_int_eq(json_reader_next(&r, NULL), JSON_EV_CLOSE);
    ck_assert_int_eq(json_reader_next(&r, NULL), JSON_EV_END);
    json_reader_free(&r);

    json_reader_init(&r, &mem, "[[1,[2,", 7, NULL);
    ck_assert_int_eq(json_reader_next(&r, NULL), JSON_EV_OPEN);
    ck_assert_int_eq(json_reader_next(&r, NULL), JSON_EV_OPEN);
    ck_assert(!json_reader_skip(&r, NULL));
    ck_assert_int_eq(json_reader_next(&r, NULL), JSON_EV_ERROR); /* for good */
    json_reader_free(&r);
}
END_TEST

/* ---- what is refused, and where -------------------------------------------------------------- */

static const struct {
    const char *text;
    uint64_t offset;
} refused[] = {
    {"", 0},
    {"  ", 2},
    {"x", 0},
    {"nul", 3},
    {"nulL", 3},
    {"truefalse", 4},
    {"True", 0},
    {"[1,]", 3},
    {"[,1]", 1},
    {"[1 2]", 3},
    {"[1", 2},
    {"[1}", 2},
    {"]", 0},
    {"[]]", 2},
    {"{", 1},
    {"{\"a\"}", 4},
    {"{\"a\":}", 5},
    {"{\"a\":1,}", 7},
    {"{a:1}", 1},
    {"{1:1}", 1},
    {"{\"a\" 1}", 5},
    {"{\"a\":1]", 6},
    {"{\"a\":1 \"b\":2}", 7},
    {"{,}", 1},
    {"1 2", 2},
    {"01", 1},
    {"-", 1},
    {"-a", 1},
    {"+1", 0},
    {".5", 0},
    {"1.", 2},
    {"1.e5", 2},
    {"1e", 2},
    {"1e+", 3},
    {"0x10", 1},
    {"1_000", 1},
    {"NaN", 0},
    {"Infinity", 0},
    {"-Infinity", 1},
    {"\"abc", 4},
    {"\"a\nb\"", 2},
    {"\"a\x1f\"", 2},
    {"\"\\x41\"", 1},
    {"\"\\\"", 3},
    {"\"\\u12g4\"", 1},
    {"\"\\u12\"", 1},
    {"\"\\ud800\"", 1},
    {"\"\\ud800x\"", 1},
    {"\"\\udc00\"", 1},
    {"\"\\ud800\\u0041\"", 1},
    {"\"ok\\ud83d\\ud83d\"", 3},
    {"\"\xff\"", 1},
    {"\"a\xc3(\"", 2},
    {"\"\xed\xa0\x80\"", 1},
    {"\"\xc0\xaf\"", 1},
    {"\"\\n\xf5\x80\x80\x80\"", 3},
    {"'a'", 0},
    {"\xef\xbb\xbf[]", 0},
    {"[1]//x", 3},
    {"/*x*/1", 0},
    {"[1]\f", 3},
    {"\xc2\xa0"
     "1",
        0},
};

START_TEST(refused_with_offset)
{
    glm_error err = GLM_ERROR_INIT;
    struct json_doc doc;
    const char *text = refused[_i].text;

    ck_assert_int_eq(parse(text, 0, &doc, &err), GLM_EFORMAT);
    if (err.offset != refused[_i].offset)
        ck_abort_msg("%s: offset %d, not %d", text, (int)err.offset, (int)refused[_i].offset);
    ck_assert_str_eq(err.where, "test.json");
    ck_assert_int_eq(parse(text, 0, &doc, NULL), GLM_EFORMAT);
    json_free(&doc);
}
END_TEST

START_TEST(refused_nul_bytes)
{
    glm_error err = GLM_ERROR_INIT;
    struct json_doc doc;

    ck_assert_int_eq(json_parse(&mem, "\"a\0b\"", 5, 0, NULL, &doc, &err), GLM_EFORMAT);
    ck_assert_uint_eq(err.offset, 2);
    ck_assert_int_eq(json_parse(&mem, "1\0", 2, 0, NULL, &doc, &err), GLM_EFORMAT);
    ck_assert_int_eq(json_parse(&mem, NULL, 0, 0, NULL, &doc, &err), GLM_EFORMAT);
}
END_TEST

static const char sample[] =
    "{\"model\": {\"vocab\": {\"\\u0120a\": 1, \"b\\n\": -2.50, \"\xe2\x82\xac\": 3e-7},"
    " \"merges\": [[\"a\", \"b\"], []]}, \"x\": [true, false, null, {}, \"\\ud83d\\ude00\"]}";

/* A copy of exactly the bytes, so that a sanitizer sees one byte too far. */
static void parse_exact(const char *text, size_t size)
{
    char *copy = malloc(size ? size : 1);
    struct json_doc doc;
    struct buf b;

    memcpy(copy, text, size);
    buf_init(&b, &mem);
    if (!json_parse(&mem, copy, size, JSON_REFUSE_DUPLICATES, NULL, &doc, NULL)) {
        struct json_doc again; /* what is accepted can be written and read again */
        json_put_value(&b, doc.root);
        ck_assert_int_eq(json_parse(&mem, b.data, b.size, 0, NULL, &again, NULL), GLM_OK);
        ck_assert(json_equal(doc.root, again.root));
        json_free(&again);
    }
    json_free(&doc);
    buf_free(&b);
    free(copy);
}

START_TEST(every_prefix_is_refused)
{
    struct json_doc doc;

    for (size_t size = 0; size < sizeof sample - 1; size++) {
        glm_error err = GLM_ERROR_INIT;
        ck_assert_int_eq(json_parse(&mem, sample, size, 0, NULL, &doc, &err), GLM_EFORMAT);
        ck_assert_uint_le(err.offset, size);
        parse_exact(sample, size);
    }
    parse_exact(sample, sizeof sample - 1);
}
END_TEST

START_TEST(every_changed_byte_is_survived)
{
    char text[sizeof sample];

    for (size_t at = 0; at < sizeof sample - 1; at++)
        for (int c = 0; c < 256; c++) {
            memcpy(text, sample, sizeof sample);
            text[at] = (char)c;
            parse_exact(text, sizeof sample - 1);
        }
}
END_TEST

/* ---- depth ----------------------------------------------------------------------------------- */

static char *nested(const char *open, size_t n, const char *middle, const char *close)
{
    struct buf b;
    char *text;

    buf_init(&b, &mem);
    for (size_t i = 0; i < n; i++)
        buf_str(&b, open);
    buf_str(&b, middle);
    for (size_t i = 0; i < n; i++)
        buf_str(&b, close);
    text = strdup(b.data);
    buf_free(&b);
    return text;
}

START_TEST(depth_limit)
{
    char *deep = nested("[", JSON_DEPTH_MAX, "1", "]"),
         *deeper = nested("[", JSON_DEPTH_MAX + 1, "1", "]");
    char *objects = nested("{\"a\":", JSON_DEPTH_MAX, "[]", "}");
    glm_error err = GLM_ERROR_INIT;
    struct json_doc doc;
    struct buf b;

    buf_init(&b, &mem);
    parse_ok(deep, &doc);
    ck_assert(json_equal(doc.root, doc.root));
    json_put_value(&b, doc.root);
    ck_assert_str_eq(b.data, deep);
    json_free(&doc);
    ck_assert_int_eq(parse(deeper, 0, &doc, &err), GLM_ELIMIT);
    ck_assert_uint_eq(err.offset, JSON_DEPTH_MAX);
    ck_assert_int_eq(parse(objects, 0, &doc, &err), GLM_ELIMIT);
    ck_assert_uint_eq(err.offset, 5 * JSON_DEPTH_MAX);
    buf_free(&b);
    free(deep);
    free(deeper);
    free(objects);
}
END_TEST

struct small_stack {
    const char *text;
    int32_t status;
    uint64_t ns;
};

static uint64_t cpu_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Everything that walks a document, on 64 KiB of stack. */
static void *on_small_stack(void *arg)
{
    struct small_stack *s = arg;
    glm_error err = GLM_ERROR_INIT;
    struct json_doc doc;
    uint64_t start = cpu_ns();

    s->status =
        json_parse(&mem, s->text, strlen(s->text), JSON_REFUSE_DUPLICATES, NULL, &doc, &err);
    s->ns = cpu_ns() - start;
    if (!s->status) {
        struct buf b;
        double value;
        buf_init(&b, &mem);
        json_equal(doc.root, doc.root);
        json_put_value(&b, doc.root);
        json_f64(&doc.root[doc.n_value - 1], &value);
        json_put_f64(&b, value);
        buf_free(&b);
    }
    json_free(&doc);
    return NULL;
}

static struct small_stack run_on_small_stack(const char *text)
{
    struct small_stack s = {text, 1, 0};
    pthread_attr_t attr;
    pthread_t thread;

    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 64 * 1024);
    ck_assert_int_eq(pthread_create(&thread, &attr, on_small_stack, &s), 0);
    pthread_join(thread, NULL);
    pthread_attr_destroy(&attr);
    return s;
}

START_TEST(depth_bombs)
{
    char *arrays = nested("[", 1000000, "", "]"), *objects = nested("{\"a\":", 1000000, "1", "}");
    char *legal =
        nested("[[1, {\"a\": 5e-324}],", JSON_DEPTH_MAX - 2, "2.2250738585072011e-308", "]");
    struct small_stack s = run_on_small_stack(arrays);

    ck_assert_int_eq(s.status, GLM_ELIMIT);
    ck_assert_uint_lt(s.ns, 50000000);
    s = run_on_small_stack(objects);
    ck_assert_int_eq(s.status, GLM_ELIMIT);
    ck_assert_uint_lt(s.ns, 50000000);
    s = run_on_small_stack(legal);
    ck_assert_int_eq(s.status, GLM_OK);
    free(arrays);
    free(objects);
    free(legal);
}
END_TEST

/* ---- tree ------------------------------------------------------------------------------------ */

START_TEST(tree_shape)
{
    struct json_doc doc;
    const struct json *a, *v;
    char text[] =
        "{\"a\": [10, [], {\"n\": null}], \"t\": true, \"e\\u0000f\": \"x\\u0000y\", \"a\": {}}";
    bool flag = false;

    parse_ok(text, &doc);
    memset(text, 'x', sizeof text); /* the document does not need it any more */
    ck_assert_uint_eq(doc.n_value, 14);
    ck_assert_int_eq(doc.root->type, JSON_OBJECT);
    ck_assert_uint_eq(doc.root->count, 4);
    ck_assert_uint_eq(doc.root->span, doc.n_value);
    a = json_first(doc.root);
    ck_assert(json_is_text(a, "a"));
    ck_assert_uint_eq(a->offset, 1);
    a++;
    ck_assert_int_eq(a->type, JSON_ARRAY);
    ck_assert_uint_eq(a->count, 3);
    ck_assert_uint_eq(a->span, 6);
    ck_assert_uint_eq(a->offset, 6);
    v = json_first(a);
    ck_assert_str_eq(v->text, "10");
    v = json_next(a, v);
    ck_assert_int_eq(v->type, JSON_ARRAY);
    ck_assert_ptr_null(json_first(v));
    v = json_next(a, v);
    ck_assert_int_eq(json_get(v, "n")->type, JSON_NULL);
    ck_assert_ptr_null(json_next(a, v));
    ck_assert_int_eq(json_get(doc.root, "a")->type, JSON_OBJECT); /* the last one wins */
    ck_assert(json_bool(json_get(doc.root, "t"), &flag) && flag);
    ck_assert(!json_bool(json_get(doc.root, "a"), &flag));
    ck_assert(!json_bool(NULL, &flag));
    ck_assert_ptr_null(json_get(doc.root, "e")); /* a key goes beyond its NUL */
    ck_assert_ptr_null(json_get(doc.root, "missing"));
    ck_assert_ptr_null(json_get(json_get(doc.root, "t"), "a"));
    ck_assert_ptr_null(json_get(NULL, "a"));
    v = json_first(doc.root);
    v = json_next(doc.root, json_next(doc.root, v)); /* the third member */
    ck_assert_uint_eq(v->size, 3);
    ck_assert(!memcmp(v->text, "e\0f", 4));
    ck_assert_uint_eq(v[1].size, 3);
    ck_assert(!memcmp(v[1].text, "x\0y", 4));
    ck_assert(!json_is_text(v + 1, "x"));
    json_free(&doc);
    json_free(&doc);
}
END_TEST

START_TEST(tree_duplicates)
{
    glm_error err = GLM_ERROR_INIT;
    struct json_doc doc;
    struct buf b;

    ck_assert_int_eq(
        parse("{\"a\":1,\"b\":2,\"a\":3}", JSON_REFUSE_DUPLICATES, &doc, &err), GLM_EFORMAT);
    ck_assert_uint_eq(err.offset, 13);
    ck_assert_int_eq(parse("[{\"x\":{\"a\":1,\"\\u0061\":2}}]", JSON_REFUSE_DUPLICATES, &doc, &err),
        GLM_EFORMAT);
    ck_assert_uint_eq(err.offset, 13);
    ck_assert_int_eq(
        parse("[{\"a\":1},{\"a\":{\"a\":1}}]", JSON_REFUSE_DUPLICATES, &doc, &err), GLM_OK);
    json_free(&doc);

    buf_init(&b, &mem); /* 200,000 keys, of which two are equal: found, and fast */
    buf_char(&b, '{');
    for (uint64_t i = 0; i < 200000; i++) {
        buf_str(&b, i ? ",\"k" : "\"k");
        buf_u64(&b, (i == 150000 ? 777 : i) * 2654435761u % 1000003);
        buf_str(&b, "\":0");
    }
    buf_char(&b, '}');
    ck_assert_int_eq(json_parse(&mem, b.data, b.size, 0, NULL, &doc, &err), GLM_OK);
    json_free(&doc);
    ck_assert_int_eq(
        json_parse(&mem, b.data, b.size, JSON_REFUSE_DUPLICATES, NULL, &doc, &err), GLM_EFORMAT);
    ck_assert_uint_gt(err.offset, b.size / 2);
    ck_assert(!strncmp(b.data + err.offset, "\"k398827\":", 10)); /* of 777 */
    buf_free(&b);
}
END_TEST

START_TEST(tree_out_of_memory)
{
    const char text[] = "{\"a\\n\":[1,2,3],\"b\":{\"c\":\"\\u0041\",\"d\":\"e\"},\"a\":0.5}";
    uint64_t n_failed = 0;

    for (int mode = FAIL_ONCE; mode <= FAIL_FROM_THEN_ON; mode++)
        for (uint64_t k = 1;; k++) {
            struct failing_alloc f;
            struct mem m;
            struct json_doc doc;
            glm_error err = GLM_ERROR_INIT;
            int32_t status;
            failing_init(&f, k, mode);
            const glm_allocator hook = failing_hook(&f);
            mem_init(&m, &hook);
            status =
                json_parse(&m, text, sizeof text - 1, JSON_REFUSE_DUPLICATES, NULL, &doc, &err);
            ck_assert_int_eq(status, err.code);
            if (status) {
                ck_assert_uint_eq(f.bytes, 0);
                ck_assert_ptr_null(doc.root);
            }
            json_free(&doc);
            ck_assert_uint_eq(f.bytes, 0);
            ck_assert_uint_eq(f.n_wrong, 0);
            if (!failing_hit(&f)) {
                ck_assert_int_eq(status, GLM_OK);
                break;
            }
            ck_assert_int_eq(status, GLM_ENOMEM);
            n_failed++;
        }
    ck_assert_uint_ge(
        n_failed, 8); /* two readings' scratch, values, texts and keys, in both modes */
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("json");
    SRunner *runner = srunner_create(suite);
    TCase *tcase = tcase_create("json");
    int failed;

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, reader_events);
    tcase_add_test(tcase, reader_offsets_and_views);
    tcase_add_test(tcase, reader_skips);
    tcase_add_loop_test(tcase, refused_with_offset, 0, ARRAY_LEN(refused));
    tcase_add_test(tcase, refused_nul_bytes);
    tcase_add_test(tcase, every_prefix_is_refused);
    tcase_add_test(tcase, every_changed_byte_is_survived);
    tcase_add_test(tcase, depth_limit);
    tcase_add_test(tcase, depth_bombs);
    tcase_add_test(tcase, tree_shape);
    tcase_add_test(tcase, tree_duplicates);
    tcase_add_test(tcase, tree_out_of_memory);
    suite_add_tcase(suite, tcase);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
