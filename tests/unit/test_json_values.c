/* test_json_values.c: JSON values of lib/base: numbers, equality and writing. */
#include "lib/base/base.h"

#include <check.h>

#include <fenv.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct mem mem;

static void setup(void)
{
    mem_init(&mem, NULL);
}

static void teardown(void)
{
    ck_assert_uint_eq(mem.used, 0);
}

static void parse_ok(const char *text, struct json_doc *doc)
{
    glm_error err = GLM_ERROR_INIT;

    if (json_parse(&mem, text, strlen(text), 0, "test.json", doc, &err))
        ck_abort_msg("%s: %s", text, err.message);
}

/* ---- equality -------------------------------------------------------------------------------- */

static const struct {
    const char *a, *b;
    bool equal;
} pairs[] = {
    {"1", "1.0", true},
    {"1e2", "100", true},
    {"0.1e1", "1", true},
    {"-0", "0.0", true},
    {"1200", "12e2", true},
    {"0.0012", "12E-4", true},
    {"1", "-1", false},
    {"1", "2", false},
    {"10000000000000000000000000000001", "10000000000000000000000000000000", false},
    {"0.1", "0.1000000000000000055511151231257827", false},
    {"12.5", "1.25", false},
    {"1e99999999999999999999", "0", false},
    {"\"a\"", "\"\\u0061\"", true},
    {"\"a\"", "\"b\"", false},
    {"\"1\"", "1", false},
    {"null", "false", false},
    {"true", "true", true},
    {"[]", "{}", false},
    {"[1,2]", "[1,2.0]", true},
    {"[1,2]", "[2,1]", false},
    {"[1]", "[1,1]", false},
    {"[[]]", "[{}]", false},
    {"{\"a\":1,\"b\":[2]}", "{\"b\":[2],\"a\":1}", true},
    {"{\"a\":1}", "{\"a\":1,\"b\":1}", false},
    {"{\"a\":1,\"b\":1}", "{\"a\":1}", false},
    {"{\"a\":1}", "{\"b\":1}", false},
    {"{\"a\":1,\"a\":2}", "{\"a\":2}", true},
    {"{\"a\":1,\"a\":2}", "{\"a\":3,\"a\":1}", false},
    {"{\"a\":1,\"a\":2,\"b\":3}", "{\"b\":3,\"c\":1,\"a\":2}", false},
    {"{\"x\":{\"y\":[{\"z\":1},2]},\"w\":3}", "{\"w\":3,\"x\":{\"y\":[{\"z\":1},2]}}", true},
    {"{\"x\":{\"y\":[{\"z\":1},2]},\"w\":3}", "{\"w\":3,\"x\":{\"y\":[{\"z\":0},2]}}", false},
    {"[[1,[2]],[3]]", "[[1,[2]],[4]]", false},
    {"{}", "{}", true},
};

START_TEST(equality)
{
    struct json_doc a, b;

    parse_ok(pairs[_i].a, &a);
    parse_ok(pairs[_i].b, &b);
    ck_assert_int_eq(json_equal(a.root, b.root), pairs[_i].equal);
    ck_assert_int_eq(json_equal(b.root, a.root), pairs[_i].equal);
    ck_assert(json_equal(a.root, a.root));
    json_free(&a);
    json_free(&b);
}
END_TEST

/* ---- numbers --------------------------------------------------------------------------------- */

static const struct {
    const char *text;
    bool is_u64, is_i64;
    uint64_t u;
    int64_t i;
} integers[] = {
    {"0", true, true, 0, 0},
    {"-0", true, true, 0, 0},
    {"-0.0e5", true, true, 0, 0},
    {"7", true, true, 7, 7},
    {"1.0", true, true, 1, 1},
    {"1e3", true, true, 1000, 1000},
    {"1.50e1", true, true, 15, 15},
    {"1500e-2", true, true, 15, 15},
    {"-3", false, true, 0, -3},
    {"0.5", false, false, 0, 0},
    {"1e-1", false, false, 0, 0},
    {"18446744073709551615", true, false, UINT64_MAX, 0},
    {"18446744073709551616", false, false, 0, 0},
    {"1.8446744073709551615e19", true, false, UINT64_MAX, 0},
    {"99999999999999999999", false, false, 0, 0},
    {"9223372036854775807", true, true, INT64_MAX, INT64_MAX},
    {"9223372036854775808", true, false, UINT64_C(1) << 63, 0},
    {"-9223372036854775808", false, true, 0, INT64_MIN},
    {"-9223372036854775809", false, false, 0, 0},
    {"1e19", true, false, UINT64_C(10000000000000000000), 0},
    {"1e20", false, false, 0, 0},
    {"1e999999999999999999999999", false, false, 0, 0},
    {"1e-999999999999999999999", false, false, 0, 0},
    {"0e999999999999999999999999", true, true, 0, 0},
    {"100000000000000000000000000000000e-32", true, true, 1, 1},
    {"\"1\"", false, false, 0, 0},
};

START_TEST(number_integers)
{
    struct json_doc doc;
    uint64_t u = 99;
    int64_t i = 99;

    parse_ok(integers[_i].text, &doc);
    ck_assert_int_eq(json_u64(doc.root, &u), integers[_i].is_u64);
    ck_assert_uint_eq(u, integers[_i].is_u64 ? integers[_i].u : 99);
    ck_assert_int_eq(json_i64(doc.root, &i), integers[_i].is_i64);
    ck_assert_int_eq(i, integers[_i].is_i64 ? integers[_i].i : 99);
    ck_assert(!json_u64(NULL, &u) && !json_i64(NULL, &i));
    json_free(&doc);
}
END_TEST

/* The table of tests/data/doubles.py, under whatever rounding mode the host has set. */
static void check_doubles(void)
{
    char path[512], text[2048], shown[64];
    uint64_t want, bits;
    size_t n = 0;
    FILE *f;
    struct buf b;

    snprintf(path, sizeof path, "%s/doubles.txt", getenv("GLM_TEST_DATA"));
    f = fopen(path, "r");
    ck_assert_ptr_nonnull(f);
    buf_init(&b, &mem);
    while (fscanf(f, "%2047s %lx %63s", text, &want, shown) == 3) {
        struct json_doc doc;
        double value = 0;
        bool finite = (want >> 52 & 0x7ff) != 0x7ff;
        parse_ok(text, &doc);
        if (json_f64(doc.root, &value) != finite)
            ck_abort_msg("%s: finite or not?", text);
        memcpy(&bits, &value, sizeof bits);
        if (bits != want)
            ck_abort_msg("%s: %lx, not %lx", text, bits, want);
        buf_clear(&b);
        json_put_f64(&b, value);
        if (strcmp(b.data, shown))
            ck_abort_msg("%s: written %s, not %s", text, b.data, shown);
        json_free(&doc);
        n++;
    }
    ck_assert_uint_gt(n, 3000);
    ck_assert(feof(f));
    fclose(f);
    buf_free(&b);
}

START_TEST(number_doubles)
{
    const int modes[] = {FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO};

    fesetround(modes[_i]);
    check_doubles();
    fesetround(FE_TONEAREST);
}
END_TEST

START_TEST(number_of_many_digits)
{
    char *text = malloc(1000003);
    struct json_doc doc;
    double value;

    memset(text, '3', 1000002); /* 0.333... of a million digits */
    memcpy(text, "0.", 2);
    text[1000002] = 0;
    parse_ok(text, &doc);
    ck_assert(json_f64(doc.root, &value));
    ck_assert(value == 1.0 / 3);
    json_free(&doc);
    free(text);
}
END_TEST

START_TEST(number_not_finite)
{
    struct buf b;

    buf_init(&b, &mem);
    json_put_f64(&b, (double)INFINITY);
    json_put_f64(&b, (double)-INFINITY);
    json_put_f64(&b, (double)NAN);
    ck_assert_str_eq(b.data, "Infinity-InfinityNaN");
    buf_free(&b);
}
END_TEST

/* ---- writing: what Python 3.11's json.dumps(json.loads(text), ensure_ascii=False) gives ------ */

static const struct {
    const char *text, *written;
} documents[] = {
    {"[]", "[]"}, {" { } ", "{}"}, {"[[],{},[{}]]", "[[], {}, [{}]]"}, {"null", "null"},
    {"[true,false,null]", "[true, false, null]"},
    {"{\"a\":1,\"b\":[2,{\"c\":3}]}", "{\"a\": 1, \"b\": [2, {\"c\": 3}]}"},
    {"{\"z\":1,\"a\":{\"y\":[],\"b\":{}},\"m\":\"\"}",
        "{\"z\": 1, \"a\": {\"y\": [], \"b\": {}}, \"m\": \"\"}"},
    {"-0", "0"}, {"-0.0", "-0.0"}, {"-0e0", "-0.0"}, {"1.0", "1.0"}, {"1.50", "1.5"},
    {"1E5", "100000.0"}, {"1e-07", "1e-07"}, {"0.0000001", "1e-07"}, {"0.0001", "0.0001"},
    {"1e16", "1e+16"}, {"1e15", "1000000000000000.0"},
    {"10000000000000000000000", "10000000000000000000000"},
    {"-12345678901234567890", "-12345678901234567890"},
    {"123456789012345678.0", "1.2345678901234568e+17"}, {"0.1", "0.1"},
    {"0.30000000000000004", "0.30000000000000004"}, {"5e-324", "5e-324"}, {"1e22", "1e+22"},
    {"1e-400", "0.0"}, {"100e-2", "1.0"},
    {"\"\\u0000\\u001f\\b\\f\\n\\r\\t\\u007f\"", "\"\\u0000\\u001f\\b\\f\\n\\r\\t\x7f\""},
    {"\"\\\"\\\\\\/\"", "\"\\\"\\\\/\""},
    {"\"\\u00e9\\u20ac\\ud83d\\ude00\\u2028\"",
        "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\xe2\x80\xa8\""},
    {"{\"\\n\":\"<|user|>\"}", "{\"\\n\": \"<|user|>\"}"},
    {"1e999", "1e999"}, /* here Python writes Infinity, which is no JSON */
};

START_TEST(write_values)
{
    struct json_doc doc;
    struct buf b;

    buf_init(&b, &mem);
    parse_ok(documents[_i].text, &doc);
    json_put_value(&b, doc.root);
    ck_assert_str_eq(b.data, documents[_i].written);
    json_free(&doc);
    buf_free(&b);
}
END_TEST

START_TEST(write_part)
{
    struct json_doc doc;
    struct buf b;

    buf_init(&b, &mem);
    parse_ok("[{\"a\": [1, {\"b\": 2}], \"c\": 3}, 4]", &doc);
    json_put_value(&b, json_get(json_first(doc.root), "a"));
    ck_assert_str_eq(b.data, "[1, {\"b\": 2}]");
    json_free(&doc);
    buf_clear(&b);
    json_put_string(&b, "a\0\"", 3);
    ck_assert_str_eq(b.data, "\"a\\u0000\\\"\"");
    buf_free(&b);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("json_values");
    SRunner *runner = srunner_create(suite);
    TCase *tcase = tcase_create("json_values");
    int failed;

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_loop_test(tcase, equality, 0, ARRAY_LEN(pairs));
    tcase_add_loop_test(tcase, number_integers, 0, ARRAY_LEN(integers));
    tcase_add_loop_test(tcase, number_doubles, 0, 4);
    tcase_add_test(tcase, number_of_many_digits);
    tcase_add_test(tcase, number_not_finite);
    tcase_add_loop_test(tcase, write_values, 0, ARRAY_LEN(documents));
    tcase_add_test(tcase, write_part);
    suite_add_tcase(suite, tcase);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
