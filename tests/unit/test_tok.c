/* test_tok.c: encoding and decoding against the reference library's ids, and the promises that no
 * vector shows: markup in plain text, split characters, linear time, a small stack. */
#include "failing_alloc.h"
#include "lib/text/tok_int.h"
#include "test_data.h"
#include "tok_fixture.h"

#include <check.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static struct mem mem;
static struct tok *real; /* the whole tokenizer, opened once */

static void open_real(void)
{
    mem_init(&mem, NULL);
    real = fixture_open(&mem, "tokenizer.json");
}

static void close_real(void)
{
    tok_close(real);
    ck_assert_uint_eq(mem.used, 0);
}

static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static void check_round_trip(
    const struct tok *t, const struct ids *v, const char *text, size_t size)
{
    struct tok_decoder d = { { 0 }, 0 };
    struct buf out;
    buf_init(&out, &mem);
    buf_reserve(&out, size + 1);
    for (size_t i = 0; i < v->n; i++)
        tok_decode(t, &d, v->id[i], &out);
    tok_decode_end(&d, &out);
    ck_assert_uint_eq(out.size, size);
    ck_assert(!memcmp(out.data, text, size));
    buf_free(&out);
}

/* ---- goldens --------------------------------------------------------------------------------- */

static bool has_added(const struct tok *t, const struct ids *v)
{
    for (size_t i = 0; i < v->n; i++)
        if (tok_is_added(t, v->id[i]))
            return true;
    return false;
}

static void check_ids(const struct ids *v, const struct json *ids, const char *name, size_t line)
{
    size_t i = 0;
    int64_t want;
    ck_assert_msg(v->n == ids->count, "%s:%zu: %zu ids, not %u", name, line, v->n, ids->count);
    for (const struct json *w = json_first(ids); w; w = json_next(ids, w), i++) {
        ck_assert(json_i64(w, &want));
        ck_assert_msg(v->id[i] == want, "%s:%zu: id %zu is %d, not %lld", name, line, i, v->id[i],
            (long long)want);
    }
}

static void check_golden(const struct tok *t, const char *name, size_t n_line)
{
    size_t size, line = 0;
    char *text = test_load(name, &size), *at = text, *row;
    while ((row = test_line(&at))) {
        struct json_doc doc;
        struct ids v, plain;
        line++;
        ck_assert_int_eq(json_parse(&mem, row, strlen(row), 0, name, &doc, NULL), 0);
        const struct json *source = json_get(doc.root, "text");
        ids_init(&v, &mem);
        ck_assert_int_eq(tok_encode(t, source->text, source->size, TOK_SPECIALS, &v, NULL), 0);
        check_ids(&v, json_get(doc.root, "ids"), name, line);
        check_round_trip(t, &v, source->text, source->size);
        ids_init(&plain, &mem);
        ck_assert_int_eq(tok_encode(t, source->text, source->size, 0, &plain, NULL), 0);
        ck_assert(!has_added(t, &plain));
        if (!has_added(t, &v))
            check_ids(&plain, json_get(doc.root, "ids"), name, line);
        check_round_trip(t, &plain, source->text, source->size);
        ids_free(&v);
        ids_free(&plain);
        json_free(&doc);
    }
    ck_assert_uint_eq(line, n_line);
    free(text);
}

START_TEST(golden_ids)
{
    check_golden(real, "tok_golden.jsonl", 2675);
    check_golden(real, "tok_real_ids.jsonl", 22);
}
END_TEST

START_TEST(golden_long_pieces)
{
    check_golden(real, "tok_long.jsonl", 160);
}
END_TEST

START_TEST(golden_other_vocabulary)
{
    struct tok *t = fixture_open(&mem, "tok_small.json");
    check_golden(t, "tok_small_ids.jsonl", 160);
    tok_close(t);
}
END_TEST

START_TEST(golden_from_gguf)
{
    struct fixture_gguf g;
    struct tok *t;
    glm_error err = GLM_ERROR_INIT;
    fixture_gguf_init(&g, &mem, "tokenizer.json", 151552);
    ck_assert_msg(tok_open(&mem, &g.src, 151552, &t, &err) == 0, "%s", err.message);
    fixture_gguf_free(&g);
    ck_assert_uint_eq(tok_n(t), 151365);
    check_golden(t, "tok_golden.jsonl", 2675);
    for (uint32_t i = 0; i < TOK_SPECIAL_COUNT; i++)
        ck_assert_int_eq(tok_id(t, i), tok_id(real, i));
    tok_close(t);
}
END_TEST

/* ---- markup ---------------------------------------------------------------------------------- */

static void check_marked(const struct tok *t, int32_t id)
{
    static const char *const around[][2] = {
        {"", ""}, {"a", "b"}, {" ", "\n"}, {"<", ">"}, {"<|", "|>"}};
    size_t size;
    const char *spelling = tok_bytes(t, id, &size);
    ck_assert_int_eq(tok_find(t, spelling, size), id);
    for (size_t i = 0; i < ARRAY_LEN(around); i++) {
        char text[128];
        struct ids v;
        size_t n = 0;
        int length = snprintf(
            text, sizeof text, "%s%.*s%s", around[i][0], (int)size, spelling, around[i][1]);
        ids_init(&v, &mem);
        ck_assert_int_eq(tok_encode(t, text, (size_t)length, 0, &v, NULL), 0);
        ck_assert(!has_added(t, &v));
        check_round_trip(t, &v, text, (size_t)length);
        v.n = 0;
        ck_assert_int_eq(tok_encode(t, text, (size_t)length, TOK_SPECIALS, &v, NULL), 0);
        for (size_t k = 0; k < v.n; k++)
            n += v.id[k] == id;
        ck_assert_uint_eq(n, 1);
        check_round_trip(t, &v, text, (size_t)length);
        ids_free(&v);
    }
}

START_TEST(markup_is_text_unless_meant)
{
    uint32_t n = 0;
    for (int32_t id = 0; id < (int32_t)tok_n(real); id++)
        if (tok_is_added(real, id)) {
            check_marked(real, id);
            n++;
        }
    ck_assert_uint_eq(n, 36);
    ck_assert_int_eq(tok_id(real, TOK_ENDOFTEXT), 151329);
    ck_assert_int_eq(tok_id(real, TOK_USER), 151336);
    ck_assert_int_eq(tok_id(real, TOK_ARG_VALUE_END), 151359);
    ck_assert_int_eq(tok_id(real, TOK_NOTHINK), 151360);
    ck_assert_int_eq(tok_id(real, TOK_SPECIAL_COUNT), -1);
    ck_assert_int_eq(tok_find(real, "the", 3), -1);
    ck_assert_int_eq(tok_find(real, "", 0), -1);
}
END_TEST

START_TEST(ids_outside_have_no_bytes)
{
    static const int32_t outside[] = { -1, INT32_MIN, 151365, 151551, INT32_MAX };
    size_t size;
    for (size_t i = 0; i < ARRAY_LEN(outside); i++) {
        size = 7;
        ck_assert_ptr_null(tok_bytes(real, outside[i], &size));
        ck_assert_uint_eq(size, 0);
        ck_assert(!tok_is_added(real, outside[i]));
    }
    for (int32_t id = 0; id < 151365; id++)
        ck_assert(tok_bytes(real, id, &size) && size);
}
END_TEST

/* ---- decoding -------------------------------------------------------------------------------- */

/* Whether n bytes can be made one character by more bytes; by trying. */
static bool can_go_on(const char *text, size_t n)
{
    char s[4];
    uint32_t c;
    memcpy(s, text, n);
    for (uint32_t tail = 0; tail < 1u << 6 * (n == 1 ? 2 : 1); tail++) {
        s[n] = (char)(0x80 | (tail & 63));
        if (n < 3)
            s[n + 1] = (char)(0x80 | (tail >> 6 & 63));
        if (n < 2)
            s[3] = (char)0x80;
        for (size_t full = n + 1; full <= 4; full++)
            if (utf8_decode(s, full, &c) == full)
                return true;
    }
    return false;
}

/* What the reference decoder makes of any bytes, written the slow way. */
static void lossy(const char *text, size_t size, struct buf *out)
{
    for (size_t i = 0; i < size;) {
        uint32_t c, n = utf8_decode(text + i, size - i, &c);
        if (n) {
            buf_put(out, text + i, n);
            i += n;
            continue;
        }
        size_t part = 1;
        for (size_t k = 3; k > 1; k--)
            if (k <= size - i && can_go_on(text + i, k)) {
                part = k;
                break;
            }
        buf_str(out, "\xEF\xBF\xBD");
        i += part;
    }
}

/* The bytes in parts cut by `cuts` (a bit a place), each step's output well-formed on its own. */
static void check_decode(const char *text, size_t size, uint64_t cuts)
{
    struct tok_decoder d = { { 0 }, 0 };
    struct buf got, want;
    size_t from = 0, bad;
    buf_init(&got, &mem);
    buf_init(&want, &mem);
    buf_str(&got, "");
    buf_str(&want, "");
    for (size_t i = 1; i <= size; i++)
        if (i == size || (cuts >> i % 64 & 1)) {
            size_t before = got.size;
            tok_decode_bytes(&d, text + from, i - from, &got);
            ck_assert(
                got.size == before || utf8_is_valid(got.data + before, got.size - before, &bad));
            from = i;
        }
    tok_decode_end(&d, &got);
    lossy(text, size, &want);
    ck_assert_uint_eq(got.size, want.size);
    ck_assert(!got.size || !memcmp(got.data, want.data, got.size));
    buf_free(&got);
    buf_free(&want);
}

START_TEST(decoding_replaces_maximal_parts)
{
    static const char table_3_8[] = "a\xF1\x80\x80\xE1\x80\xC2"
                                    "b\x80"
                                    "c\x80\xBF"
                                    "d"; /* The Unicode Standard, table 3-8 */
    static const char want[] = "a\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"
                               "b\xEF\xBF\xBD"
                               "c\xEF\xBF\xBD\xEF\xBF\xBD"
                               "d";
    struct tok_decoder d = { { 0 }, 0 };
    struct buf out;
    buf_init(&out, &mem);
    tok_decode_bytes(&d, table_3_8, sizeof table_3_8 - 1, &out);
    tok_decode_end(&d, &out);
    ck_assert_str_eq(out.data, want);
    buf_free(&out);
}
END_TEST

START_TEST(decoding_at_every_cut)
{
    static const char text[] = "a\xC3\xA9\xE4\xB8\xAD\xF0\x9F\x91\xA8\xE2\x80\x8D\xF0\x9F\x91\xA9"
                               "\xED\x9F\xBF\xF4\x8F\xBF\xBF!";
    static const char odd[] =
        "\x80\xE0\x80\xF0\x80\xED\xA0\x80\xF4\x90\x80\xC0\xAF\xF5\xFF\xE4\xB8";
    for (size_t i = 0; i < sizeof text; i++)
        for (size_t k = i; k < sizeof text; k++)
            check_decode(text, sizeof text - 1, 1ull << i | 1ull << k);
    for (uint64_t cuts = 0; cuts < 1u << (sizeof odd - 1); cuts += 7)
        check_decode(odd, sizeof odd - 1, cuts);
    uint64_t state = 3;
    for (int i = 0; i < 20000; i++) {
        static const uint8_t likely[] = {
            0x41, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC2, 0xE0, 0xE4, 0xED, 0xF0, 0xF1, 0xF4};
        char bytes[24];
        for (size_t k = 0; k < sizeof bytes; k++)
            bytes[k] = (char)likely[next_random(&state) % sizeof likely];
        check_decode(bytes, sizeof bytes, next_random(&state));
    }
}
END_TEST

/* ---- any input ------------------------------------------------------------------------------- */

START_TEST(random_text_comes_back)
{
    uint64_t state = 11;
    struct ids v;
    struct buf text;
    ids_init(&v, &mem);
    buf_init(&text, &mem);
    for (int i = 0; i < 4000; i++) {
        static const uint32_t limit[] = { 0x80, 0x800, 0x3000, 0xD800, 0x110000 };
        size_t n = 1 + next_random(&state) % 200;
        buf_clear(&text);
        for (size_t k = 0; k < n; k++) {
            char c[4];
            uint32_t code =
                (uint32_t)(next_random(&state) % limit[next_random(&state) % ARRAY_LEN(limit)]);
            buf_put(&text, c, utf8_encode(code, c)); /* nothing for a surrogate */
        }
        v.n = 0;
        ck_assert_int_eq(tok_encode(real, text.data, text.size, 0, &v, NULL), 0);
        check_round_trip(real, &v, text.data, text.size);
    }
    buf_free(&text);
    ids_free(&v);
}
END_TEST

/* What is not UTF-8 is refused by the API; should it come here all the same, no byte is lost. */
START_TEST(random_bytes_lose_nothing)
{
    uint64_t state = 12;
    struct ids v;
    ids_init(&v, &mem);
    for (int i = 0; i < 4000; i++) {
        char text[300];
        size_t size = 1 + next_random(&state) % sizeof text, at = 0, n;
        for (size_t k = 0; k < size; k++)
            text[k] = (char)(next_random(&state) >> (i % 2 ? 56 : 33));
        v.n = 0;
        ck_assert_int_eq(tok_encode(real, text, size, TOK_SPECIALS, &v, NULL), 0);
        for (size_t k = 0; k < v.n; k++) {
            const char *bytes = tok_bytes(real, v.id[k], &n);
            ck_assert(at + n <= size && !memcmp(text + at, bytes, n));
            at += n;
        }
        ck_assert_uint_eq(at, size);
    }
    ids_free(&v);
}
END_TEST

START_TEST(encoding_appends)
{
    struct ids v;
    ids_init(&v, &mem);
    ids_put(&v, 5);
    ids_append(&v, (const int32_t[]){ 6, 7 }, 2);
    ids_append(&v, NULL, 0);
    ck_assert_int_eq(tok_encode(real, NULL, 0, 0, &v, NULL), 0);
    ck_assert_int_eq(tok_encode(real, "a", 1, 0, &v, NULL), 0);
    ck_assert_uint_eq(v.n, 4);
    ck_assert_int_eq(v.id[2], 7);
    ck_assert_int_eq(v.id[3], 64);
    ids_free(&v);
}
END_TEST

START_TEST(classes_are_the_measured_ones)
{
    static const struct { const char *key; enum tok_class class; } all[] = {
        { "L", TOK_LETTER }, { "N", TOK_NUMBER }, { "S", TOK_SPACE }
    };
    size_t size;
    char *text = test_load("charclass_oracle.json", &size);
    uint8_t *want = calloc(0x110000, 1);
    struct json_doc doc;
    ck_assert_int_eq(json_parse(&mem, text, size, 0, "oracle", &doc, NULL), 0);
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        const struct json *ranges = json_get(doc.root, all[i].key);
        for (const struct json *v = json_first(ranges); v; v = json_next(ranges, v)) {
            uint64_t first, last;
            ck_assert(
                json_u64(json_first(v), &first) && json_u64(json_next(v, json_first(v)), &last));
            for (; first <= last; first++)
                want[first] = (uint8_t)all[i].class;
        }
    }
    for (uint32_t c = 0; c < 0x110000; c++)
        ck_assert_msg(tok_class_of(c) == want[c], "U+%04X", c);
    json_free(&doc);
    free(want);
    free(text);
}
END_TEST

/* ---- limits ---------------------------------------------------------------------------------- */

struct timing {
    const char *text;
    size_t size;
    double seconds;
};

static double cpu_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void *time_encode(void *arg)
{
    struct timing *t = arg;
    struct ids v;
    ids_init(&v, &mem);
    double start = cpu_seconds();
    ck_assert_int_eq(tok_encode(real, t->text, t->size, TOK_SPECIALS, &v, NULL), 0);
    t->seconds = cpu_seconds() - start;
    ids_free(&v);
    return NULL;
}

/* In a thread with a stack of 64 KiB. */
static double thread_seconds(const char *text, size_t size)
{
    struct timing t = { text, size, 0 };
    pthread_attr_t attr;
    pthread_t thread;
    pthread_attr_init(&attr);
    ck_assert_int_eq(pthread_attr_setstacksize(&attr, 64 << 10), 0);
    ck_assert_int_eq(pthread_create(&thread, &attr, time_encode, &t), 0);
    pthread_join(thread, NULL);
    pthread_attr_destroy(&attr);
    return t.seconds;
}

static double best_seconds(const char *text, size_t size)
{
    double best = 1e9;
    for (int i = 0; i < 3; i++) {
        double seconds = thread_seconds(text, size);
        best = seconds < best ? seconds : best;
    }
    return best;
}

START_TEST(time_is_linear)
{
    static const char *const units[] = {"a", "abcdefghijklmnopqrstuvwxyz", " ", " \n", "\r", "7",
        "!", "<", "<|", "'", "=", "\u00e9", "\u4e2d", "\u0301", "\u200d",
        "\U0001F468\u200d\U0001F469\u200d", "\xff", "\u3000"};
    enum { SIZE = 1 << 18 };
    char *text = malloc(2 * SIZE);
    for (size_t i = 0; i < ARRAY_LEN(units); i++) {
        size_t unit = strlen(units[i]);
        double ratio = 9;
        for (size_t k = 0; k < 2 * SIZE; k++)
            text[k] = units[i][k % unit];
        for (int attempt = 0; attempt < 5 && ratio > 2.2; attempt++) /* other processes disturb */
            ratio = best_seconds(text, 2 * SIZE) / best_seconds(text, SIZE);
        ck_assert_msg(
            ratio <= 2.2, "\"%s\": twice the text takes %.2f times as long", units[i], ratio);
    }
    free(text);
}
END_TEST

/* 64 MB of one class in a thread with a stack of 64 KiB, for the full suite: no piece is too long, no time too much. */
START_TEST(long_text_of_one_class)
{
    static const char *const units[] = {"a", " ", "7", "!", "\n", "\u4e2d", "\U0001F468\u200d\U0001F469\u200d"};
    enum { SIZE = 64 << 20 };
    char *text = malloc(SIZE);
    ck_assert_ptr_nonnull(text);
    for (size_t i = 0; i < ARRAY_LEN(units); i++) {
        size_t unit = strlen(units[i]);
        double half = 0, whole = 0;
        for (size_t k = 0; k < SIZE; k++)
            text[k] = units[i][k % unit];
        for (int attempt = 0; attempt < 3 && (attempt == 0 || whole > 2.2 * half); attempt++) {
            half = thread_seconds(text, SIZE / 2);
            whole = thread_seconds(text, SIZE);
        }
        ck_assert_msg(whole <= 2.2 * half, "\"%s\": 64 MB take %.2f s, 32 MB %.2f s", units[i], whole, half);
    }
    free(text);
}
END_TEST

START_TEST(encoding_survives_failing_memory)
{
    enum { SIZE = 20000 };
    char *text = malloc(SIZE);
    for (size_t i = 0; i < SIZE; i++)
        text[i] = (char)(i < 9000 ? 'a' + i * i % 23 : i % 7 ? 'a' + i % 26 : ' ');
    for (uint64_t k = 1;; k++) {
        struct failing_alloc f;
        struct mem m;
        struct ids v;
        failing_init(&f, k, FAIL_ONCE);
        const glm_allocator hook = failing_hook(&f);
        mem_init(&m, &hook);
        ids_init(&v, &m);
        int32_t status = tok_encode(real, text, SIZE, 0, &v, NULL);
        if (failing_hit(&f)) {
            ck_assert_int_eq(status, GLM_ENOMEM);
            ck_assert_uint_eq(v.n, 0);
        }
        ids_free(&v);
        ck_assert_uint_eq(f.bytes, 0);
        ck_assert_uint_eq(f.n_wrong, 0);
        if (!failing_hit(&f)) {
            ck_assert_int_eq(status, 0);
            ck_assert_uint_gt(k, 4);
            break;
        }
    }
    free(text);
}
END_TEST

static void add_all(TCase *c)
{
    tcase_add_test(c, golden_ids);
    tcase_add_test(c, golden_long_pieces);
    tcase_add_test(c, golden_other_vocabulary);
    tcase_add_test(c, golden_from_gguf);
    tcase_add_test(c, markup_is_text_unless_meant);
    tcase_add_test(c, ids_outside_have_no_bytes);
    tcase_add_test(c, decoding_replaces_maximal_parts);
    tcase_add_test(c, decoding_at_every_cut);
    tcase_add_test(c, random_text_comes_back);
    tcase_add_test(c, random_bytes_lose_nothing);
    tcase_add_test(c, encoding_appends);
    tcase_add_test(c, classes_are_the_measured_ones);
    tcase_add_test(c, time_is_linear);
    tcase_add_test(c, encoding_survives_failing_memory);
}

/* With the argument "long": the test that takes long, instead of the others. */
int main(int argc, char **argv)
{
    Suite *suite = suite_create("tok");
    TCase *c = tcase_create("tok");
    tcase_add_unchecked_fixture(c, open_real, close_real);
    if (argc > 1 && strcmp(argv[1], "long") == 0) {
        tcase_set_timeout(c, 900);
        tcase_add_test(c, long_text_of_one_class);
    } else {
        add_all(c);
    }
    suite_add_tcase(suite, c);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
