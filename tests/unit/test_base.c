/* test_base.c: errors, log, memory, arena, buffer, checked arithmetic, UTF-8 and SHA-256 of
 * lib/base. */
#include "failing_alloc.h"
#include "lib/base/base.h"

#include <check.h>

#include <inttypes.h>
#include <stdio.h>

/* ---- errors and log -------------------------------------------------------------------------- */

START_TEST(error_formats)
{
    glm_error err = GLM_ERROR_INIT;
    size_t size = 18446744073709551615u;
    long long low = INT64_MIN;

    ck_assert_int_eq(
        err_set(&err, GLM_EIO, 7, "a.bin", "%s|%.*s|%d|%u|%x|%zu|%lld|%" PRIu64 "|%%|%c", "text", 3,
            "abcdef", -5, 4294967295u, 0xbeefu, size, low, UINT64_MAX, 'z'),
        GLM_EIO);
    ck_assert_str_eq(err.message, "text|abc|-5|4294967295|beef|18446744073709551615|"
                                  "-9223372036854775808|18446744073709551615|%|z");
    ck_assert_str_eq(err.where, "a.bin");
    ck_assert_int_eq(err.code, GLM_EIO);
    ck_assert_uint_eq(err.offset, 7);
    ck_assert_uint_eq(err.struct_size, sizeof err);
    err_clear(&err);
    ck_assert_int_eq(err.code, 0);
    ck_assert_str_eq(err.message, "");
    ck_assert_str_eq(err.where, "");
    ck_assert_uint_eq(err.struct_size, sizeof err);
}
END_TEST

START_TEST(error_may_be_absent)
{
    ck_assert_int_eq(err_set(NULL, GLM_EFORMAT, 0, "x", "%s", "y"), GLM_EFORMAT);
    ck_assert_int_eq(err_nomem(NULL, "x"), GLM_ENOMEM);
    err_clear(NULL);
}
END_TEST

START_TEST(error_wraps_itself)
{
    glm_error err = GLM_ERROR_INIT;

    err_set(&err, GLM_EIO, 0, "inner", "no such file");
    err_set(&err, GLM_EFORMAT, 0, err.where, "%s: %s", err.where, err.message);
    ck_assert_str_eq(err.message, "inner: no such file");
    ck_assert_str_eq(err.where, "inner");
    err_nomem(&err, "the KV cache");
    ck_assert_str_eq(err.message, "out of memory for the KV cache");
    ck_assert_str_eq(err.where, "");
}
END_TEST

START_TEST(error_cuts_at_characters)
{
    char long_text[600];
    size_t bad;

    for (size_t shift = 0; shift < 4; shift++) { /* a four-byte character across the cut */
        glm_error err = GLM_ERROR_INIT;
        memset(long_text, 'x', shift);
        for (size_t i = shift; i + 4 < sizeof long_text; i += 4)
            memcpy(long_text + i, "\xf0\x9f\x98\x80", 5);
        err_set(&err, GLM_EIO, 0, long_text, "%s", long_text);
        ck_assert(utf8_is_valid(err.message, strlen(err.message), &bad));
        ck_assert_uint_ge(strlen(err.message), sizeof err.message - 4);
        ck_assert(utf8_is_valid(err.where, strlen(err.where), &bad));
        ck_assert_uint_ge(strlen(err.where), sizeof err.where - 4);
        ck_assert(!strncmp(err.where, "...\xf0", 4));
        ck_assert(!memcmp(err.where + strlen(err.where) - 4, "\xf0\x9f\x98\x80", 4));
    }
}
END_TEST

START_TEST(error_where_keeps_its_end)
{
    glm_error err = GLM_ERROR_INIT;
    char path[300], exact[sizeof err.where];

    memset(path, 'd', sizeof path);
    memcpy(path + 290, "/name.bin", 10);
    err_set(&err, GLM_EIO, 0, path, "x");
    ck_assert_uint_eq(strlen(err.where), sizeof err.where - 1);
    ck_assert(!strncmp(err.where, "...d", 4));
    ck_assert_str_eq(err.where + strlen(err.where) - 9, "/name.bin");
    memset(exact, 'e', sizeof exact);
    exact[sizeof exact - 1] = 0;
    err_set(&err, GLM_EIO, 0, exact, "x");
    ck_assert_str_eq(err.where, exact);
}
END_TEST

START_TEST(error_shows_ill_formed_bytes)
{
    glm_error err = GLM_ERROR_INIT;

    err_set(&err, GLM_EIO, 0,
        "a\xff"
        "b",
        "<%s> %s", "\xc3(\xe2\x82", "end");
    ck_assert_str_eq(err.message, "<?(\?\?> end");
    ck_assert_str_eq(err.where, "a?b");
}
END_TEST

struct log_text {
    char text[2048];
    size_t size;
    uint32_t level, n;
};

static void GLM_CALL log_write(void *user, uint32_t level, const char *text, size_t size)
{
    struct log_text *l = user;

    ck_assert_uint_lt(size, sizeof l->text);
    ck_assert_uint_eq(strlen(text), size);
    memcpy(l->text, text, size + 1);
    l->size = size;
    l->level = level;
    l->n++;
}

START_TEST(log_levels)
{
    struct log_text l = {"", 0, 0, 0};
    glm_logger hook = {sizeof hook, LOG_WARN, &l, log_write};
    char long_text[3000];

    log_put(NULL, LOG_ERROR, "nobody hears");
    log_put(&hook, LOG_INFO, "too low");
    ck_assert_uint_eq(l.n, 0);
    log_put(&hook, LOG_WARN, "layer %u of %s", 3u, "x");
    ck_assert_str_eq(l.text, "layer 3 of x");
    ck_assert_uint_eq(l.level, LOG_WARN);
    memset(long_text, 'a', sizeof long_text);
    long_text[sizeof long_text - 1] = 0;
    log_put(&hook, LOG_ERROR, "%s", long_text);
    ck_assert_uint_eq(l.size, 1023);
    hook.write = NULL;
    log_put(&hook, LOG_ERROR, "nobody hears");
    ck_assert_uint_eq(l.n, 2);
}
END_TEST

/* ---- memory ---------------------------------------------------------------------------------- */

START_TEST(mem_blocks)
{
    struct failing_alloc f;
    struct mem m;
    void *block[200];

    failing_init(&f, 0, FAIL_ONCE);
    const glm_allocator hook = failing_hook(&f);
    mem_init(&m, &hook);
    for (size_t i = 0; i < ARRAY_LEN(block); i++) {
        block[i] = i % 2 ? mem_zalloc(&m, i) : mem_alloc(&m, i);
        ck_assert_ptr_nonnull(block[i]);
        ck_assert_uint_eq((uintptr_t)block[i] % 64, 0);
        ck_assert_uint_eq(mem_size(block[i]), i);
        for (size_t j = 0; j < i; j++)
            ck_assert_int_eq(((uint8_t *)block[i])[j], i % 2 ? 0 : 0xa5);
        memset(block[i], (int)i, i);
    }
    ck_assert_uint_eq(m.used, f.bytes);
    ck_assert_uint_eq(m.peak, m.used);
    for (size_t i = 0; i < ARRAY_LEN(block); i++) {
        for (size_t j = 0; j < i; j++)
            ck_assert_int_eq(((uint8_t *)block[i])[j], (int)i);
        mem_free(&m, block[i]);
    }
    mem_free(&m, NULL);
    ck_assert_uint_eq(m.used, 0);
    ck_assert_uint_eq(f.bytes, 0);
    ck_assert_uint_eq(f.n_wrong, 0);
    ck_assert_uint_gt(m.peak, 199 * 100);
}
END_TEST

/* Pages of this process in memory; 0: not told. */
static long resident_pages(void)
{
    FILE *f = fopen("/proc/self/statm", "r");
    long total, resident = 0;

    if (f && fscanf(f, "%ld %ld", &total, &resident) != 2)
        resident = 0;
    if (f)
        fclose(f);
    return resident;
}

START_TEST(mem_default_hook)
{
    struct mem m;
    char *p;
    const size_t large = (size_t)1 << 28;
    long before;

    mem_init(&m, NULL);
    p = mem_zarray(&m, 100, 10);
    ck_assert_ptr_nonnull(p);
    ck_assert_int_eq(p[999], 0);
    mem_free(&m, p);
    before = resident_pages();
    p = mem_alloc(&m, large);
    ck_assert_ptr_nonnull(p);
    p[large - 1] = 1;
    ck_assert_uint_eq(mem_size(p), large);
    if (!getenv("MALLOC_PERTURB_")) /* then the C library itself fills the block */
        ck_assert_int_lt(resident_pages() - before, 4000); /* large blocks are not touched */
    mem_free(&m, p);
    ck_assert_uint_eq(m.used, 0);
}
END_TEST

START_TEST(mem_refuses_overflow)
{
    struct failing_alloc f;
    struct mem m;

    failing_init(&f, 0, FAIL_ONCE);
    const glm_allocator hook = failing_hook(&f);
    mem_init(&m, &hook);
    ck_assert_ptr_null(mem_alloc(&m, SIZE_MAX));
    ck_assert_ptr_null(mem_alloc(&m, SIZE_MAX - 63));
    ck_assert_ptr_null(mem_zalloc(&m, (size_t)PTRDIFF_MAX));
    ck_assert_ptr_null(mem_array(&m, SIZE_MAX / 2, 3));
    ck_assert_ptr_null(mem_zarray(&m, (size_t)1 << 33, (size_t)1 << 32));
    ck_assert_uint_eq(f.n_alloc, 0);
    ck_assert_uint_eq(m.used, 0);
}
END_TEST

START_TEST(mem_resize_keeps)
{
    struct failing_alloc f;
    struct mem m;
    uint8_t *p, *q;

    failing_init(&f, 4, FAIL_FROM_THEN_ON);
    const glm_allocator hook = failing_hook(&f);
    mem_init(&m, &hook);
    p = mem_resize(&m, NULL, 100);
    ck_assert_ptr_nonnull(p);
    for (int i = 0; i < 100; i++)
        p[i] = (uint8_t)i;
    p = mem_resize(&m, p, 1000);
    ck_assert_uint_eq(mem_size(p), 1000);
    q = mem_resize(&m, p, 600); /* stays where it is */
    ck_assert_ptr_eq(p, q);
    ck_assert_uint_eq(mem_size(q), 600);
    p = mem_resize(&m, q, 50); /* moves, so that memory comes back */
    ck_assert_uint_eq(f.bytes, 50 + 64);
    for (int i = 0; i < 50; i++)
        ck_assert_int_eq(p[i], i);
    ck_assert_ptr_null(mem_resize(&m, p, 5000));
    ck_assert_uint_eq(mem_size(p), 50);
    ck_assert_int_eq(p[49], 49);
    mem_free(&m, p);
    ck_assert_uint_eq(f.bytes, 0);
    ck_assert_uint_eq(f.n_wrong, 0);
}
END_TEST

static void *GLM_CALL crooked_alloc(void *user, size_t size, size_t align)
{
    char *p = aligned_alloc(align, (size + 2 * align - 1) / align * align);
    (void)user;
    return p ? p + 8 : NULL;
}

static void GLM_CALL crooked_release(void *user, void *ptr, size_t size, size_t align)
{
    (void)size;
    (void)align;
    ++*(int *)user;
    free((char *)ptr - 8);
}

START_TEST(mem_refuses_misaligned_hook)
{
    int released = 0;
    const glm_allocator hook = {sizeof hook, 0, &released, crooked_alloc, crooked_release};
    struct mem m;

    mem_init(&m, &hook);
    ck_assert_ptr_null(mem_alloc(&m, 10));
    ck_assert_int_eq(released, 1);
    ck_assert_uint_eq(m.used, 0);
}
END_TEST

START_TEST(arena_objects)
{
    struct failing_alloc f;
    struct mem m;
    struct arena a;
    uint8_t *p[1000];

    failing_init(&f, 0, FAIL_ONCE);
    const glm_allocator hook = failing_hook(&f);
    mem_init(&m, &hook);
    arena_init(&a, &m);
    for (size_t i = 0; i < ARRAY_LEN(p); i++) {
        size_t size = i % 97 == 0 ? 400000 : i % 50, align = (size_t)1 << i % 8;
        p[i] = arena_alloc(&a, size, align);
        ck_assert_ptr_nonnull(p[i]);
        ck_assert_uint_eq((uintptr_t)p[i] % align, 0);
        memset(p[i], (int)(i & 255), size);
    }
    for (size_t i = 0; i < ARRAY_LEN(p); i++) {
        size_t size = i % 97 == 0 ? 400000 : i % 50;
        for (size_t j = 0; j < size; j += 1 + size / 60)
            ck_assert_int_eq(p[i][j], i & 255);
    }
    ck_assert_uint_lt(f.n_alloc, 30);
    ck_assert_str_eq(arena_copy(&a, "abcdef", 3), "abc");
    ck_assert_str_eq(arena_copy(&a, NULL, 0), "");
    ck_assert_ptr_null(arena_alloc(&a, SIZE_MAX, 8));
    ck_assert_ptr_null(arena_alloc(&a, PTRDIFF_MAX, 1));
    ck_assert_ptr_null(arena_copy(&a, "", SIZE_MAX));
    arena_free(&a);
    ck_assert_uint_eq(f.bytes, 0);
    ck_assert_ptr_nonnull(arena_alloc(&a, 1, 1));
    arena_free(&a);
    arena_free(&a);
    ck_assert_uint_eq(f.bytes, 0);
    ck_assert_uint_eq(f.n_wrong, 0);
}
END_TEST

START_TEST(arena_out_of_memory)
{
    struct failing_alloc f;
    struct mem m;
    struct arena a;

    failing_init(&f, 2, FAIL_ONCE);
    const glm_allocator hook = failing_hook(&f);
    mem_init(&m, &hook);
    arena_init(&a, &m);
    ck_assert_str_eq(arena_copy(&a, "first", 5), "first");
    ck_assert_ptr_null(arena_alloc(&a, 100000, 8));
    ck_assert_ptr_nonnull(arena_alloc(&a, 100000, 8));
    arena_free(&a);
    ck_assert_uint_eq(f.bytes, 0);
}
END_TEST

START_TEST(buf_writes)
{
    struct mem m;
    struct buf b;

    mem_init(&m, NULL);
    buf_init(&b, &m);
    ck_assert_ptr_null(b.data);
    buf_u64(&b, 0);
    buf_char(&b, ' ');
    buf_u64(&b, UINT64_MAX);
    buf_char(&b, ' ');
    buf_i64(&b, INT64_MIN);
    buf_char(&b, ' ');
    buf_i64(&b, INT64_MAX);
    buf_str(&b, " text");
    buf_put(&b, NULL, 0);
    ck_assert_str_eq(
        b.data, "0 18446744073709551615 -9223372036854775808 9223372036854775807 text");
    ck_assert_uint_eq(b.size, strlen(b.data));
    for (int i = 0; i < 100000; i++) {
        buf_char(&b, 'q');
        ck_assert_int_eq(b.data[b.size], 0);
    }
    buf_clear(&b);
    ck_assert_str_eq(b.data, "");
    buf_put(&b, "a\0b", 3);
    ck_assert_uint_eq(b.size, 3);
    ck_assert(!memcmp(b.data, "a\0b", 4));
    ck_assert(!buf_reserve(&b, SIZE_MAX));
    ck_assert(b.failed);
    buf_free(&b);
    ck_assert(!b.failed && !b.data && !b.size);
    buf_str(&b, "again");
    ck_assert_str_eq(b.data, "again");
    buf_free(&b);
    ck_assert_uint_eq(m.used, 0);
}
END_TEST

START_TEST(buf_failure_sticks)
{
    struct failing_alloc f;
    struct mem m;
    struct buf b;

    failing_init(&f, 2, FAIL_ONCE);
    const glm_allocator hook = failing_hook(&f);
    mem_init(&m, &hook);
    buf_init(&b, &m);
    buf_str(&b, "kept");
    for (int i = 0; i < 100; i++)
        buf_str(&b, "0123456789");
    ck_assert(b.failed);
    ck_assert_uint_lt(b.size, 70);
    ck_assert_int_eq(b.data[b.size], 0);
    ck_assert(!buf_reserve(&b, 0));
    ck_assert_uint_eq(f.n_alloc, 2); /* the later writes did not even try */
    buf_clear(&b);
    ck_assert(!b.failed);
    buf_str(&b, "new");
    ck_assert_str_eq(b.data, "new");
    buf_free(&b);
    ck_assert_uint_eq(f.bytes, 0);
}
END_TEST

START_TEST(checked_arithmetic)
{
    uint64_t u;
    size_t s;

    ck_assert(ck_add(UINT64_MAX - 1, 1, &u) && u == UINT64_MAX);
    ck_assert(!ck_add(UINT64_MAX, 1, &u));
    ck_assert(ck_mul(UINT64_C(1) << 32, (UINT64_C(1) << 32) - 1, &u));
    ck_assert(!ck_mul(UINT64_C(1) << 32, UINT64_C(1) << 32, &u));
    ck_assert(ck_size(12345, &s) && s == 12345);
    ck_assert(ck_size(UINT64_MAX, &s) == (sizeof(size_t) == 8));
}
END_TEST

/* ---- UTF-8 ----------------------------------------------------------------------------------- */

START_TEST(utf8_every_code_point)
{
    for (uint32_t c = 0; c < 0x110400; c++) {
        bool legal = c <= 0x10ffff && (c < 0xd800 || c > 0xdfff);
        char text[4];
        uint32_t n = utf8_encode(c, text), back = 0;

        if (n != (!legal ? 0u : c < 0x80 ? 1u : c < 0x800 ? 2u : c < 0x10000 ? 3u : 4u))
            ck_abort_msg("U+%x: length %u", c, n);
        if (!n)
            continue;
        if (utf8_decode(text, n, &back) != n || back != c || utf8_valid_prefix(text, n) != n)
            ck_abort_msg("U+%x does not come back", c);
        if (n > 1 && (utf8_decode(text, n - 1, &back) || utf8_valid_prefix(text, n - 1)))
            ck_abort_msg("U+%x cut short is accepted", c);
    }
}
END_TEST

/* Every sequence of three bytes, and of four with the last in range, against the table of the
 * Unicode standard (3-7). */
static uint32_t table_length(const uint8_t *s)
{
    uint8_t low = 0x80, high = 0xbf;
    uint32_t n = s[0] < 0x80   ? 1
                 : s[0] < 0xc2 ? 0
                 : s[0] < 0xe0 ? 2
                 : s[0] < 0xf0 ? 3
                 : s[0] < 0xf5 ? 4
                               : 0;

    low = s[0] == 0xe0 ? 0xa0 : s[0] == 0xf0 ? 0x90 : low;
    high = s[0] == 0xed ? 0x9f : s[0] == 0xf4 ? 0x8f : high;
    if (n > 1 && (s[1] < low || s[1] > high))
        return 0;
    for (uint32_t i = 2; i < n; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    return n;
}

START_TEST(utf8_every_sequence)
{
    for (uint32_t i = 0; i < 1u << 24; i++) {
        uint8_t s[4] = {(uint8_t)(i >> 16), (uint8_t)(i >> 8), (uint8_t)i, 0xbf};
        uint32_t code, n = utf8_decode((const char *)s, 4, &code);
        if (n != table_length(s))
            ck_abort_msg("%02x %02x %02x: %u", s[0], s[1], s[2], n);
    }
    ck_assert_uint_eq(utf8_decode("\xf0\x9f\x98\x7f", 4, &(uint32_t){0}), 0);
}
END_TEST

START_TEST(utf8_prefix_at_every_place)
{
    char text[64];
    size_t bad;

    for (size_t at = 0; at < 40; at++) {
        memset(text, 'a', sizeof text);
        text[at] = '\xff';
        ck_assert_uint_eq(utf8_valid_prefix(text, 40), at);
        ck_assert(!utf8_is_valid(text, 40, &bad));
        ck_assert_uint_eq(bad, at);
        ck_assert(!utf8_is_valid(text, 40, NULL));
        ck_assert(utf8_is_valid(text, at, &bad));
        memcpy(text + at, "\xe2\x82\xac", 3);
        ck_assert_uint_eq(utf8_valid_prefix(text, 40), at > 37 ? at : 40);
    }
    ck_assert(utf8_is_valid("", 0, &bad));
}
END_TEST

START_TEST(utf8_arguments)
{
    glm_error err = GLM_ERROR_INIT;
    size_t size = GLM_NTS;

    ck_assert_int_eq(utf8_argument("h\xc3\xa9", &size, "text", &err), GLM_OK);
    ck_assert_uint_eq(size, 3);
    size = 0;
    ck_assert_int_eq(utf8_argument(NULL, &size, "text", &err), GLM_OK);
    size = 3;
    ck_assert_int_eq(utf8_argument(NULL, &size, "text", &err), GLM_EINVAL);
    size = GLM_NTS;
    ck_assert_int_eq(utf8_argument(NULL, &size, "text", &err), GLM_EINVAL);
    size = GLM_NTS - 1;
    ck_assert_int_eq(utf8_argument("a", &size, "text", &err), GLM_EINVAL);
    size = 4;
    ck_assert_int_eq(utf8_argument("ab\xc3(", &size, "text", &err), GLM_EUTF8);
    ck_assert_uint_eq(err.offset, 2);
    ck_assert_str_eq(err.where, "text");
}
END_TEST

/* ---- SHA-256 --------------------------------------------------------------------------------- */

static void hash(const char *text, size_t size, size_t step, char hex[65])
{
    struct sha256 h;
    uint8_t digest[32];

    sha256_init(&h);
    for (size_t i = 0; i < size; i += step)
        sha256_put(&h, text + i, size - i < step ? size - i : step);
    sha256_end(&h, digest);
    for (int i = 0; i < 32; i++)
        snprintf(hex + 2 * i, 3, "%02x", digest[i]);
}

START_TEST(sha256_known)
{
    char hex[65], again[65], *million = malloc(1000000);

    hash("", 0, 1, hex);
    ck_assert_str_eq(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    hash("abc", 3, 3, hex);
    ck_assert_str_eq(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    hash("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56, 56, hex);
    ck_assert_str_eq(hex, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    ck_assert_ptr_nonnull(million);
    memset(million, 'a', 1000000);
    hash(million, 1000000, 1000000, hex);
    ck_assert_str_eq(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    for (size_t size = 0; size < 300; size++) {
        hash(million, size, 300, hex);
        hash(million, size, 1 + size % 67, again);
        ck_assert_str_eq(hex, again);
    }
    free(million);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("base");
    SRunner *runner = srunner_create(suite);
    TCase *errors = tcase_create("errors"), *memory = tcase_create("memory");
    TCase *utf8 = tcase_create("utf8"), *sha = tcase_create("sha256");
    int failed;

    tcase_add_test(errors, error_formats);
    tcase_add_test(errors, error_may_be_absent);
    tcase_add_test(errors, error_wraps_itself);
    tcase_add_test(errors, error_cuts_at_characters);
    tcase_add_test(errors, error_where_keeps_its_end);
    tcase_add_test(errors, error_shows_ill_formed_bytes);
    tcase_add_test(errors, log_levels);
    tcase_add_test(memory, mem_blocks);
    tcase_add_test(memory, mem_default_hook);
    tcase_add_test(memory, mem_refuses_overflow);
    tcase_add_test(memory, mem_resize_keeps);
    tcase_add_test(memory, mem_refuses_misaligned_hook);
    tcase_add_test(memory, arena_objects);
    tcase_add_test(memory, arena_out_of_memory);
    tcase_add_test(memory, buf_writes);
    tcase_add_test(memory, buf_failure_sticks);
    tcase_add_test(memory, checked_arithmetic);
    tcase_add_test(utf8, utf8_every_code_point);
    tcase_add_test(utf8, utf8_every_sequence);
    tcase_add_test(utf8, utf8_prefix_at_every_place);
    tcase_add_test(utf8, utf8_arguments);
    tcase_add_test(sha, sha256_known);
    suite_add_tcase(suite, errors);
    suite_add_tcase(suite, memory);
    suite_add_tcase(suite, utf8);
    suite_add_tcase(suite, sha);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
