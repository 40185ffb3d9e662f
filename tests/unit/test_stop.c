/* test_stop.c: stop rules against a plain search in the whole text, however the text is cut; loops of tokens. */
#include "lib/text/text.h"
#include "failing_alloc.h"

#include <check.h>
#include <string.h>

static struct mem mem;

static void set_up(void) { mem_init(&mem, NULL); }

static struct text_stop *open_stop(const char *const *stop, uint32_t n, uint32_t lines, bool dedent)
{
    struct text_stop_rules rules = { stop, n, lines, dedent };
    struct text_stop *s = NULL;
    ck_assert_int_eq(text_stop_open(&mem, &rules, &s, NULL), GLM_OK);
    return s;
}

/* The answer that comes out of a text that is fed in pieces of n bytes, the first of n_first. */
static bool run(struct text_stop *s, const char *line, const char *text, size_t size, size_t n_first, size_t n, struct buf *out)
{
    size_t at = 0;
    text_stop_begin(s, line, strlen(line));
    buf_clear(out);
    while (at < size) {
        size_t piece = at == 0 ? n_first : n;
        piece = piece < size - at ? piece : size - at;
        if (text_stop_put(s, text + at, piece, out))
            return true;
        ck_assert_uint_le(out->size, at + piece);
        at += piece;
    }
    return text_stop_flush(s, out);
}

static void check_text(const struct buf *out, const char *want, size_t size)
{
    ck_assert_uint_eq(out->size, size);
    ck_assert(size == 0 || !memcmp(out->data, want, size));
}

/* Cut at every byte, into single bytes, and not at all. */
static void expect(struct text_stop *s, const char *line, const char *text, const char *want, bool stops)
{
    size_t size = strlen(text);
    struct buf out;
    buf_init(&out, &mem);
    for (size_t cut = 1; cut <= size + 1; cut++) {
        ck_assert_int_eq(run(s, line, text, size, cut, size, &out), stops);
        check_text(&out, want, strlen(want));
    }
    ck_assert_int_eq(run(s, line, text, size, 1, 1, &out), stops);
    check_text(&out, want, strlen(want));
    buf_free(&out);
}

/* ---- strings ------------------------------------------------------------------------------------------------------- */

static size_t first_stop(const char *text, const char *const *stop, uint32_t n)
{
    size_t first = SIZE_MAX;
    for (uint32_t i = 0; i < n; i++) {
        const char *at = strstr(text, stop[i]);
        if (at && (size_t)(at - text) < first)
            first = (size_t)(at - text);
    }
    return first;
}

static void expect_search(const char *text, const char *const *stop, uint32_t n)
{
    struct text_stop *s = open_stop(stop, n, 0, false);
    size_t at = first_stop(text, stop, n);
    char want[512];
    memcpy(want, text, strlen(text) + 1);
    if (at != SIZE_MAX)
        want[at] = '\0';
    expect(s, "", text, want, at != SIZE_MAX);
    text_stop_close(s);
}

START_TEST(strings_that_lie_in_one_another)
{
    static const char *const inner[] = { "abcd", "bc" }, *const same[] = { "ab", "abc" }, *const cross[] = { "abc", "bcd" };
    static const char *const self[] = { "aabaab", "aab" }, *const accents[] = { "\xc3\xa9\xc3\xa8", "\xe2\x82\xac" };
    static const char *const texts[] = { "abcd", "xabcx", "xabcdx", "bcd", "aabc", "abab", "", "a", "aabaaabaab", "ab",
        "zzbczz", "\xc3\xa9\xc3\xa9\xc3\xa8", "caf\xc3\xa9 \xe2\x82\xac", "\xe2\x82\xad\xc3\xa9", "abc", "abcab" };
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        expect_search(texts[i], inner, 2);
        expect_search(texts[i], same, 2);
        expect_search(texts[i], cross, 2);
        expect_search(texts[i], self, 2);
        expect_search(texts[i], self + 1, 1);
        expect_search(texts[i], accents, 2);
    }
}
END_TEST

static uint32_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

/* Few letters, so that strings overlap all the time. */
START_TEST(random_strings)
{
    uint64_t state = 42;
    unsigned n_stopped = 0, n_none = 0;
    for (int round = 0; round < 3000; round++) {
        char store[64][12], text[80];
        const char *stop[64];
        uint32_t n = 1 + next_random(&state) % (round % 10 == 0 ? 64 : 4), size = next_random(&state) % 60;
        for (uint32_t i = 0; i < n; i++) {
            uint32_t length = 2 + next_random(&state) % 9;
            for (uint32_t k = 0; k < length; k++)
                store[i][k] = (char)('a' + next_random(&state) % 3);
            store[i][length] = '\0';
            stop[i] = store[i];
        }
        for (uint32_t k = 0; k < size; k++)
            text[k] = (char)('a' + next_random(&state) % 3);
        text[size] = '\0';
        expect_search(text, stop, n);
        *(first_stop(text, stop, n) == SIZE_MAX ? &n_none : &n_stopped) += 1;
    }
    ck_assert_uint_gt(n_stopped, 500);
    ck_assert_uint_gt(n_none, 300);
}
END_TEST

/* Text that cannot begin a stop string is not held back. */
START_TEST(nothing_is_held_back_in_vain)
{
    static const char *const stop[] = { "END", "\n\n" };
    struct text_stop *s = open_stop(stop, 2, 0, false);
    struct buf out;
    buf_init(&out, &mem);
    ck_assert(!text_stop_put(s, "one EN", 6, &out));
    check_text(&out, "one ", 4);
    ck_assert(!text_stop_put(s, "TER", 3, &out));
    check_text(&out, "one ENTER", 9);
    ck_assert(!text_stop_put(s, "\n", 1, &out));
    check_text(&out, "one ENTER", 9);
    ck_assert(text_stop_put(s, "\nmore", 5, &out));
    check_text(&out, "one ENTER", 9);
    buf_free(&out);
    text_stop_close(s);
}
END_TEST

/* A long run against a pattern that nearly matches: time would show it if it were not linear. */
START_TEST(long_texts)
{
    static char pattern[20002], text[400001];
    const char *stop = pattern;
    struct text_stop *s;
    struct buf out;
    memset(pattern, 'a', 20000);
    strcpy(pattern + 20000, "b");
    memset(text, 'a', 400000);
    s = open_stop(&stop, 1, 0, false);
    buf_init(&out, &mem);
    ck_assert(!run(s, "", text, 400000, 3, 3, &out));
    check_text(&out, text, 400000);
    text[399999] = 'b';
    ck_assert(run(s, "", text, 400000, 3, 3, &out));
    check_text(&out, text, 400000 - 20001);
    buf_free(&out);
    text_stop_close(s);
}
END_TEST

START_TEST(refused)
{
    static const char *const empty[] = { "x", "" };
    static char longer[TEXT_STOP_MAX + 2];
    const char *too_long = longer;
    struct text_stop_rules rules = { empty, 2, 0, false };
    struct text_stop *s = NULL;
    glm_error err = GLM_ERROR_INIT;
    ck_assert_int_eq(text_stop_open(&mem, &rules, &s, &err), GLM_EINVAL);
    ck_assert_uint_eq(err.offset, 1);
    ck_assert_ptr_null(s);
    memset(longer, 'x', TEXT_STOP_MAX + 1);
    rules = (struct text_stop_rules){ &too_long, 1, 0, false };
    ck_assert_int_eq(text_stop_open(&mem, &rules, &s, &err), GLM_ELIMIT);
}
END_TEST

/* A copy goes on where the original stands, and lives longer than it. */
START_TEST(copies)
{
    static const char *const stop[] = { "stop here", "pest" };
    struct text_stop *a = open_stop(stop, 2, 0, false), *b = NULL;
    struct buf out;
    buf_init(&out, &mem);
    ck_assert(!text_stop_put(a, "go stop h", 9, &out));
    ck_assert_int_eq(text_stop_copy(&mem, a, &b, NULL), GLM_OK);
    text_stop_close(a);
    ck_assert(text_stop_put(b, "ere", 3, &out));
    check_text(&out, "go ", 3);
    buf_free(&out);
    text_stop_close(b);
}
END_TEST

START_TEST(allocations_fail)
{
    static const char *const stop[] = { "ab", "cd" };
    struct failing_alloc f;
    failing_init(&f, 1, FAIL_ONCE);
    const glm_allocator hook = failing_hook(&f);
    struct text_stop_rules rules = { stop, 2, 1, true };
    struct text_stop *s = NULL;
    struct mem failing;
    mem_init(&failing, &hook);
    ck_assert_int_eq(text_stop_open(&failing, &rules, &s, NULL), GLM_ENOMEM);
    ck_assert_ptr_null(s);
    ck_assert_int_eq(text_stop_open(&failing, &rules, &s, NULL), GLM_OK);
    text_stop_close(s);
    ck_assert_uint_eq(f.bytes, 0);
}
END_TEST

/* ---- lines ---------------------------------------------------------------------------------------------------------- */

START_TEST(lines)
{
    static const struct {
        uint32_t lines;
        const char *text, *want;
        bool stops;
    } each[] = {
        { 1, "one\ntwo", "one", true },
        { 1, "one", "one", false },
        { 1, "one\r\ntwo", "one", true },
        { 1, "a\rb\ntwo", "a\rb", true },
        { 1, "\none", "", true },
        { 2, "one\ntwo\nthree", "one\ntwo", true },
        { 2, "one\r\ntwo\r\nthree", "one\r\ntwo", true },
        { 2, "one\n\nthree", "one\n", true },
        { 3, "one\n\n  \nthree", "one\n\n  ", true },
        { 3, "one\n", "one\n", false },
        { 3, "one\r", "one\r", false },
        { 2, "a\r \nb\n", "a\r \nb", true },
    };
    for (size_t i = 0; i < ARRAY_LEN(each); i++) {
        struct text_stop *s = open_stop(NULL, 0, each[i].lines, false);
        expect(s, "", each[i].text, each[i].want, each[i].stops);
        text_stop_close(s);
    }
}
END_TEST

START_TEST(dedent)
{
    static const struct {
        const char *line, *text, *want;
        bool stops;
    } each[] = {
        { "", "a\n  b\nc", "a\n  b\nc", false },
        { "    ", "return 1\n    x = 2\n\ndef g():\n", "return 1\n    x = 2", true },
        { "    ", "return 1\n\n\n", "return 1\n\n\n", false },
        { "    y = ", "1\n    x\nend", "1\n    x", true },
        { "def f():", "\n    return 1\n\ndef g():", "\n    return 1", true },
        { "def f():", " # why\n    return 1\ndef g():", " # why\n    return 1\ndef g():", false },
        { "", "    a\n  b", "    a", true },
        { "  ", "  a\n    b\n   c", "  a\n    b", true },
        { "    ", "a,\n    b\n)\nbar()", "a,\n    b\n)", true },
        { "        ", "x = 1;\n    }\n}\n\nint g()", "x = 1;\n    }\n}", true },
        { "    ", "x\n}", "x\n}", false },
        { "    ", "x\n});\n    y\n} else {\n", "x\n});\n    y", true },
        { "    ", "x\r\n}\r\nint y;", "x\r\n}", true },
        { "\t", "x\n\ty\n        z\n       w", "x\n\ty\n        z", true },
        { "    ", "x\n  ", "x\n  ", false },
        { "    ", "x  \n\nint y;", "x  ", true },
        { "    ", "\n\n    x\ny", "\n\n    x", true },
    };
    for (size_t i = 0; i < ARRAY_LEN(each); i++) {
        struct text_stop *s = open_stop(NULL, 0, 0, true);
        expect(s, each[i].line, each[i].text, each[i].want, each[i].stops);
        text_stop_close(s);
    }
}
END_TEST

/* All rules at once: the first that applies. */
START_TEST(rules_together)
{
    static const char *const stop[] = { "TODO", "\n\n\n" };
    struct text_stop *s = open_stop(stop, 2, 4, true);
    expect(s, "  ", "a\n  b TODO", "a\n  b ", true);
    expect(s, "  ", "a\n  b\nc TODO", "a\n  b", true);
    expect(s, "  ", "a\n\n\n  b", "a", true);
    expect(s, "  ", "a\n  b\n  c\n  d\n  e", "a\n  b\n  c\n  d", true);
    expect(s, "  ", "a\n}TODO", "a\n}", true);
    expect(s, "  ", "a\n}TOD", "a", true);
    text_stop_close(s);
}
END_TEST

/* Blank lines beyond what is kept back are delivered; nothing is lost or doubled. */
START_TEST(many_blank_lines)
{
    static char text[20010];
    struct text_stop *s = open_stop(NULL, 0, 0, true);
    struct buf out;
    buf_init(&out, &mem);
    text[0] = 'a';
    memset(text + 1, '\n', 20000);
    strcpy(text + 20001, "    b");
    ck_assert(!run(s, "    ", text, strlen(text), 1, 7, &out));
    check_text(&out, text, strlen(text));
    buf_free(&out);
    text_stop_close(s);
}
END_TEST

/* ---- loops ---------------------------------------------------------------------------------------------------------- */

struct found {
    unsigned n;
    uint32_t period;
    uint64_t length, at;
};

static struct found look(const int32_t *ids, size_t n)
{
    struct text_loop l;
    struct found f = { 0, 0, 0, 0 };
    text_loop_begin(&l);
    for (size_t i = 0; i < n; i++)
        if (text_loop_put(&l, ids[i], &f.period, &f.length)) {
            f.n++;
            f.at = i + 1;
        }
    return f;
}

START_TEST(loops_of_every_period)
{
    static int32_t ids[2000];
    for (uint32_t p = 1; p <= TEXT_LOOP_PERIOD + 1; p++) {
        size_t lead = 37, need = lead + p + (3 * p > 48 ? 3 * p : 48);
        for (size_t i = 0; i < ARRAY_LEN(ids); i++)
            ids[i] = i < lead ? 5000 + (int32_t)i : (int32_t)((i - lead) % p);
        struct found f = look(ids, ARRAY_LEN(ids));
        if (p > TEXT_LOOP_PERIOD) {
            ck_assert_uint_eq(f.n, 0);
            continue;
        }
        ck_assert_uint_eq(f.n, 1); /* once, however long it lasts */
        ck_assert_uint_eq(f.period, p);
        ck_assert_uint_eq(f.at, need);
        ck_assert_uint_eq(f.length, need - lead);
        ck_assert_uint_eq(look(ids, need - 1).n, 0);
    }
}
END_TEST

START_TEST(a_broken_loop_arms_it_again)
{
    static int32_t ids[400];
    for (size_t i = 0; i < ARRAY_LEN(ids); i++)
        ids[i] = i == 150 || i == 160 ? 99 : (int32_t)(i % 3);
    struct found f = look(ids, ARRAY_LEN(ids));
    ck_assert_uint_eq(f.n, 2);
    ck_assert_uint_eq(f.period, 3);
    ck_assert_uint_eq(f.at, 161 + 3 + 48);
}
END_TEST

START_TEST(no_loop)
{
    static int32_t ids[5000];
    uint64_t state = 7;
    for (size_t i = 0; i < ARRAY_LEN(ids); i++)
        ids[i] = (int32_t)(next_random(&state) % 8);
    ck_assert_uint_eq(look(ids, ARRAY_LEN(ids)).n, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("stop");
    TCase *c = tcase_create("stop");
    SRunner *r = srunner_create(suite);
    int n_failed;

    tcase_add_checked_fixture(c, set_up, NULL);
    tcase_set_timeout(c, 120);
    tcase_add_test(c, strings_that_lie_in_one_another);
    tcase_add_test(c, random_strings);
    tcase_add_test(c, nothing_is_held_back_in_vain);
    tcase_add_test(c, long_texts);
    tcase_add_test(c, refused);
    tcase_add_test(c, copies);
    tcase_add_test(c, allocations_fail);
    tcase_add_test(c, lines);
    tcase_add_test(c, dedent);
    tcase_add_test(c, rules_together);
    tcase_add_test(c, many_blank_lines);
    tcase_add_test(c, loops_of_every_period);
    tcase_add_test(c, a_broken_loop_arms_it_again);
    tcase_add_test(c, no_loop);
    suite_add_tcase(suite, c);
    srunner_run_all(r, CK_NORMAL);
    n_failed = srunner_ntests_failed(r);
    srunner_free(r);
    return n_failed != 0;
}
