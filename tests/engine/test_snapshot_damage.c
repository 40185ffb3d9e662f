/* test_snapshot_damage.c: snapshots that are damaged, cut short, of another model, of a newer library or written to do harm
 * are refused, and nothing else changes by it; streams, disks and allocations that fail leave no trace. With the argument
 * "full" there is more of each. */
#include "../unit/failing_alloc.h"
#include "snapshot_edit.h"

#include <check.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static bool full;
static glm_model *model;
static glm_model_info info = GLM_MODEL_INFO_INIT;

#define N_BESIDE 3
static glm_session *beside[N_BESIDE]; /* sessions that must not notice */
static int32_t expected[N_BESIDE][64]; /* what they would say */

/* What tools need is built once per model: with a first declaration, so that a load takes and gives back the same. */
static glm_model *declare_once(glm_model *m)
{
    glm_error err = GLM_ERROR_INIT;
    glm_session *s = NULL;
    ck_assert(!glm_session_open(m, NULL, &s, &err));
    ck_assert(!glm_session_tools(s, "[{\"type\": \"function\", \"function\": {\"name\": \"f\"}}]", GLM_NTS, &err));
    glm_session_close(s);
    return m;
}

static glm_model *open_with(const char *path, const glm_allocator *hook)
{
    glm_model_options o = GLM_MODEL_OPTIONS_INIT;
    glm_error err = GLM_ERROR_INIT;
    glm_model *m = NULL;
    o.allocator = hook;
    o.n_threads = 2;
    ck_assert_msg(!glm_model_open(path, &o, &m, &err), "%s: %s", err.where, err.message);
    return m;
}

static void feed(glm_session *s, const int32_t *ids, size_t n)
{
    glm_event ev = GLM_EVENT_INIT;
    ck_assert(!glm_session_feed(s, ids, n, GLM_ROWS_LAST, NULL));
    while (ev.type != GLM_EVENT_READY)
        ck_assert(!glm_session_step(s, NULL, &ev, NULL));
}

static glm_session *session(glm_model *m, uint32_t kv_type, const int32_t *ids, size_t n)
{
    glm_session_options o = GLM_SESSION_OPTIONS_INIT;
    glm_turn_options t = GLM_TURN_OPTIONS_INIT;
    glm_session *s = NULL;
    o.kv_type = kv_type;
    o.n_ctx = 512;
    t.temperature = 0;
    ck_assert(!glm_session_open(m, &o, &s, NULL));
    ck_assert(!glm_session_turn(s, &t, NULL));
    if (n)
        feed(s, ids, n);
    return s;
}

static void next_tokens(glm_session *s, int32_t out[64])
{
    for (int i = 0; i < 64; i++) {
        ck_assert(!glm_session_sample(s, &out[i], NULL));
        feed(s, &out[i], 1);
    }
}

static void setup(void)
{
    static const int32_t ids[] = { 30, 31, 32, 33, 34, 35, 36, 37 };
    model = open_with(getenv("GLM_TEST_MODEL"), NULL);
    ck_assert(!glm_model_describe(model, &info, NULL));
    for (size_t i = 0; i < N_BESIDE; i++) {
        glm_session *s = session(model, GLM_KV_AUTO, ids + i, 5);
        next_tokens(s, expected[i]);
        glm_session_close(s);
        beside[i] = session(model, GLM_KV_AUTO, ids + i, 5);
    }
}

static void teardown(void)
{
    int32_t got[64];
    for (size_t i = 0; i < N_BESIDE; i++) {
        next_tokens(beside[i], got);
        ck_assert_mem_eq(got, expected[i], sizeof got);
        glm_session_close(beside[i]);
    }
    glm_model_close(model);
}

static const char tools[] = "[{\"type\": \"function\", \"function\": {\"name\": \"get_weather\", \"description\": \"weather of a "
                            "city\", \"parameters\": {\"type\": \"object\", \"properties\": {\"city\": {\"type\": \"string\"}}}}}]";

/* Small, and something in every section; a call that waits where `waiting`. */
static void make(glm_model *m, bool waiting, struct snap_bytes *out)
{
    static const int32_t ids[] = { 7, 9 };
    glm_session *s = session(m, GLM_KV_INT8, ids, 2);
    glm_event ev = GLM_EVENT_INIT;
    glm_stream to;

    ck_assert(!glm_session_tools(s, tools, GLM_NTS, NULL));
    ck_assert(!glm_session_infill_file(s, "a.py", "x = 1\n", GLM_NTS, NULL));
    if (!waiting)
        ck_assert(!glm_session_infill(s, "def f():\n    ", GLM_NTS, "\n", GLM_NTS, NULL));
    ck_assert(!glm_session_say(s, GLM_ROLE_USER, "What is the weather in Oslo?", GLM_NTS, NULL));
    while (waiting && ev.type != GLM_EVENT_TURN_END)
        ck_assert(!glm_session_step(s, NULL, &ev, NULL));
    ck_assert(!waiting || ev.end_reason == GLM_END_TOOLS);
    out->size = 0;
    to = snap_stream(out);
    ck_assert(!glm_session_save_to(s, &to, NULL));
    glm_session_close(s);
}

static int32_t try(glm_model *m, struct snap_bytes *bytes, glm_error *err)
{
    glm_session *s = (glm_session *)bytes;
    int32_t rc = snap_load(m, bytes, NULL, &s, err);
    ck_assert_int_eq(rc == GLM_OK, s != NULL);
    glm_session_close(s);
    return rc;
}

static void refused(struct snap_bytes *bytes, int32_t code, const char *what, size_t at)
{
    glm_error err = GLM_ERROR_INIT;
    int32_t rc = try(model, bytes, &err);
    ck_assert_msg(rc == code, "%s %zu: %s, not %s: %s", what, at, glm_status_name(rc), glm_status_name(code), err.message);
    ck_assert_int_eq(err.code, code);
    if (code == GLM_EFORMAT)
        ck_assert_uint_le(err.offset, bytes->size);
}

/* ---- damage --------------------------------------------------------------------------------------------------- */

START_TEST(every_bit_flipped)
{
    struct snap_bytes b = { 0 };
    make(model, full, &b);
    for (size_t i = 0; i < b.size; i++)
        for (int bit = 0; bit < 8; bit++) {
            b.data[i] ^= (unsigned char)(1 << bit);
            refused(&b, GLM_EFORMAT, "bit flipped in byte", i);
            b.data[i] ^= (unsigned char)(1 << bit);
        }
    printf("%zu bits flipped in turn\n", 8 * b.size);
    ck_assert_int_eq(try(model, &b, NULL), GLM_OK);
    snap_bytes_free(&b);
}
END_TEST

START_TEST(every_length)
{
    struct snap_bytes b = { 0 };
    make(model, full, &b);
    size_t whole = b.size;
    for (b.size = 0; b.size < whole; b.size++)
        refused(&b, GLM_EFORMAT, "cut to", b.size);
    printf("cut to %zu lengths\n", whole);
    snap_append(&b, "xyz", 3); /* a stream may go on behind a snapshot */
    b.size = whole + 3;
    ck_assert_int_eq(try(model, &b, NULL), GLM_OK);
    ck_assert_uint_eq(b.at, whole);
    snap_bytes_free(&b);
}
END_TEST

/* Blocks in another order, or of another snapshot of the same sizes. */
START_TEST(blocks_exchanged)
{
    static const int32_t ids[2][120] = { { 4 }, { 5 } };
    struct snap_bytes b[2] = { { 0 }, { 0 } };
    static struct snap_parts p[2];

    for (int i = 0; i < 2; i++) {
        glm_session *s = session(model, GLM_KV_F32, ids[i], 120);
        glm_stream to = snap_stream(&b[i]);
        ck_assert(!glm_session_save_to(s, &to, NULL));
        glm_session_close(s);
        ck_assert(snap_apart(&b[i], &p[i]));
        snap_together(&p[i], false, &b[i]); /* blocks of known sizes */
        ck_assert_int_eq(try(model, &b[i], NULL), GLM_OK);
        snap_parts_free(&p[i]);
        ck_assert(snap_apart(&b[i], &p[i]));
    }
    ck_assert_uint_eq(b[0].size, b[1].size);
    ck_assert_uint_gt(p[0].n_block, 5);
    for (size_t i = 1; i < p[0].n_block; i++) {
        size_t at = p[0].block_at[i], end = i + 1 < p[0].n_block ? p[0].block_at[i + 1] : b[0].size;
        struct snap_bytes mixed = { 0 };
        if (memcmp(b[0].data + at, b[1].data + at, end - at) == 0)
            continue;
        snap_append(&mixed, b[0].data, b[0].size);
        memcpy(mixed.data + at, b[1].data + at, end - at);
        refused(&mixed, GLM_EFORMAT, "block of another snapshot", i);
        snap_bytes_free(&mixed);
    }
    for (int i = 0; i < 2; i++) {
        snap_parts_free(&p[i]);
        snap_bytes_free(&b[i]);
    }
}
END_TEST

START_TEST(a_newer_version)
{
    struct snap_bytes b = { 0 };
    glm_error err = GLM_ERROR_INIT;
    make(model, false, &b);
    snap_set(b.data + 8, 4, 2);
    refused(&b, GLM_EFORMAT, "version without checksum", 0);
    snap_seal_head(b.data);
    ck_assert_int_eq(try(model, &b, &err), GLM_EVERSION);
    b.size = 24; /* known from the first bytes alone, whatever comes after */
    ck_assert_int_eq(try(model, &b, &err), GLM_EVERSION);
    b.size = 264;
    snap_set(b.data + 8, 4, 0);
    snap_seal_head(b.data);
    refused(&b, GLM_EFORMAT, "version", 0);
    snap_bytes_free(&b);
}
END_TEST

/* ---- other models ------------------------------------------------------------------------------------------------ */

static char *slurp(const char *path, size_t *size)
{
    FILE *f = fopen(path, "rb");
    char *data;
    ck_assert_ptr_nonnull(f);
    fseek(f, 0, SEEK_END);
    *size = (size_t)ftell(f);
    rewind(f);
    data = calloc(1, *size + 1);
    ck_assert_uint_eq(fread(data, 1, *size, f), *size);
    fclose(f);
    return data;
}

/* A copy of the small model in which the last `from` of a file is `to`, of the same length. */
static void copy_model(const char *folder, const char *file, const char *from, const char *to)
{
    static const char *const names[] = { "config.json", "tokenizer.json", "generation_config.json", "chat_template.jinja",
        "model.safetensors" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[512];
        size_t size;
        FILE *f;
        snprintf(path, sizeof path, "%s/%s", getenv("GLM_TEST_MODEL"), names[i]);
        char *data = slurp(path, &size), *at = NULL;
        for (char *p = data; from && strcmp(names[i], file) == 0 && (p = memmem(p, size - (size_t)(p - data), from, strlen(from))); p++)
            at = p;
        if (at)
            memcpy(at, to, strlen(to));
        else if (strcmp(names[i], file) == 0)
            data[size - 3] ^= 0x41; /* weights: one number of the last tensor in the file */
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        f = fopen(path, "wb");
        ck_assert_uint_eq(fwrite(data, 1, size, f), size);
        fclose(f);
        free(data);
    }
}

static void remove_model(const char *folder)
{
    char command[600];
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    ck_assert_int_eq(system(command), 0);
}

START_TEST(of_another_model)
{
    char folder[] = "/tmp/glm45-other-model-XXXXXX";
    struct snap_bytes b = { 0 };
    glm_error err = GLM_ERROR_INIT;
    glm_model *other;

    ck_assert_ptr_nonnull(mkdtemp(folder));
    make(model, true, &b);
    copy_model(folder, "config.json", "\"rope_theta\": 10000.0", "\"rope_theta\": 20000.0");
    other = open_with(folder, NULL);
    ck_assert_int_eq(try(other, &b, &err), GLM_EMISMATCH);
    ck_assert_msg(strstr(err.message, "nano") && strstr(err.message, "glm45-other-model"), "%s", err.message); /* both by name */
    glm_model_close(other);

    copy_model(folder, "none", NULL, NULL); /* the same model elsewhere is the same model */
    other = open_with(folder, NULL);
    ck_assert_int_eq(try(other, &b, &err), GLM_OK);
    glm_model_close(other);
    remove_model(folder);
    snap_bytes_free(&b);
}
END_TEST

/* A bf16 norm, found by its name in the file's header. */
static void change_norm(const char *folder)
{
    char path[512], *data, *at;
    size_t size;
    FILE *f;
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    data = slurp(path, &size);
    at = memmem(data, size, "\"model.layers.2.input_layernorm.weight\"", 39);
    ck_assert_ptr_nonnull(at);
    at = strstr(strstr(at, "data_offsets"), "[") + 1;
    data[8 + snap_get((unsigned char *)data, 8) + strtoull(at, NULL, 10)] ^= 4;
    f = fopen(path, "wb");
    ck_assert_uint_eq(fwrite(data, 1, size, f), size);
    fclose(f);
    free(data);
}

START_TEST(of_the_same_model_with_other_weights)
{
    char folder[] = "/tmp/glm45-other-model-XXXXXX";
    struct snap_bytes b = { 0 };
    glm_error err = GLM_ERROR_INIT;
    glm_model *other;

    ck_assert_ptr_nonnull(mkdtemp(folder));
    make(model, true, &b);
    copy_model(folder, "none", NULL, NULL);
    change_norm(folder);
    other = open_with(folder, NULL);
    ck_assert_int_eq(try(other, &b, &err), GLM_EMISMATCH);
    ck_assert_msg(strstr(err.message, "other weights"), "%s", err.message);
    glm_model_close(other);
    remove_model(folder);
    snap_bytes_free(&b);
}
END_TEST

/* ---- streams that fail ---------------------------------------------------------------------------------------------- */

START_TEST(streams)
{
    struct snap_bytes b = { 0 }, w = { 0 };
    glm_error err = GLM_ERROR_INIT;
    glm_session *s = NULL, *t = NULL;
    glm_stream to;
    uint64_t n_read;

    make(model, true, &b);
    ck_assert(!snap_load(model, &b, NULL, &s, &err));
    n_read = b.n_call;
    for (b.fail_at = 1; b.fail_at <= n_read; b.fail_at++) {
        ck_assert_int_eq(snap_load(model, &b, NULL, &t, &err), GLM_EIO);
        ck_assert_ptr_null(t);
        ck_assert(strstr(err.message, "-5"));
    }
    b.fail_at = 0;
    for (b.most = 1; b.most < 40; b.most += 6)
        ck_assert_int_eq(try(model, &b, &err), GLM_OK);

    for (w.fail_at = 1;; w.fail_at++) { /* the session can be saved after each failure */
        w.size = 0;
        to = snap_stream(&w);
        if (!glm_session_save_to(s, &to, &err))
            break;
        ck_assert_int_eq(err.code, GLM_EIO);
        ck_assert(strstr(err.message, "-28"));
    }
    ck_assert_uint_gt(w.fail_at, 5);
    ck_assert_uint_eq(w.size, b.size);
    ck_assert_mem_eq(w.data, b.data, b.size);
    glm_session_close(s);
    snap_bytes_free(&b);
    snap_bytes_free(&w);
}
END_TEST

static int32_t GLM_CALL read_too_much(void *user, void *to, size_t size, size_t *got)
{
    int32_t rc = snap_read(user, to, size, got);
    *got = size + 1;
    return rc;
}

START_TEST(a_read_that_gives_too_much)
{
    struct snap_bytes b = { 0 };
    glm_session *s = NULL;
    make(model, false, &b);
    glm_stream from = snap_stream(&b);
    from.read = read_too_much;
    ck_assert_int_eq(glm_session_load_from(model, &from, NULL, &s, NULL), GLM_EIO);
    snap_bytes_free(&b);
}
END_TEST

/* ---- allocations that fail ---------------------------------------------------------------------------------------------- */

static unsigned fail_loads(glm_model *m, struct failing_alloc *f, struct snap_bytes *b, int mode)
{
    unsigned n = 0;
    for (uint64_t k = 1;; k++) {
        uint64_t before = f->bytes;
        glm_error err = GLM_ERROR_INIT;
        f->mode = mode;
        f->n_failed = 0;
        f->fail_at = f->n_alloc + k;
        int32_t rc = try(m, b, &err);
        f->fail_at = 0;
        ck_assert_uint_eq(f->bytes, before);
        ck_assert_uint_eq(f->n_wrong, 0);
        if (!failing_hit(f)) {
            ck_assert_int_eq(rc, GLM_OK);
            return n;
        }
        ck_assert_msg(rc == GLM_ENOMEM, "allocation %u: %s: %s", n, glm_status_name(rc), err.message);
        n++;
    }
}

static unsigned fail_saves(glm_session *s, struct failing_alloc *f, const struct snap_bytes *b, int mode)
{
    struct snap_bytes w = { 0 };
    unsigned n = 0;
    for (uint64_t k = 1;; k++) {
        uint64_t before = f->bytes;
        glm_error err = GLM_ERROR_INIT;
        w.size = 0;
        glm_stream to = snap_stream(&w);
        f->mode = mode;
        f->n_failed = 0;
        f->fail_at = f->n_alloc + k;
        int32_t rc = glm_session_save_to(s, &to, &err);
        f->fail_at = 0;
        ck_assert_uint_eq(f->bytes, before);
        if (!failing_hit(f)) {
            ck_assert_int_eq(rc, GLM_OK);
            ck_assert_uint_eq(w.size, b->size);
            ck_assert_mem_eq(w.data, b->data, b->size);
            snap_bytes_free(&w);
            return n;
        }
        ck_assert_msg(rc == GLM_ENOMEM, "allocation %u: %s: %s", n, glm_status_name(rc), err.message);
        n++;
    }
}

START_TEST(every_allocation_fails)
{
    struct failing_alloc f;
    struct snap_bytes b = { 0 };
    glm_session *s = NULL;
    unsigned n;

    failing_init(&f, 0, FAIL_ONCE);
    const glm_allocator hook = failing_hook(&f);
    glm_model *m = declare_once(open_with(getenv("GLM_TEST_MODEL"), &hook));
    make(m, true, &b);
    n = fail_loads(m, &f, &b, FAIL_ONCE);
    n += fail_loads(m, &f, &b, FAIL_FROM_THEN_ON);
    ck_assert(!snap_load(m, &b, NULL, &s, NULL));
    n += fail_saves(s, &f, &b, FAIL_ONCE);
    n += fail_saves(s, &f, &b, FAIL_FROM_THEN_ON);
    printf("%u allocations failed in turn\n", n);
    ck_assert_uint_gt(n, 40);
    glm_session_close(s);
    glm_model_close(m);
    ck_assert_uint_eq(f.bytes, 0);
    snap_bytes_free(&b);
}
END_TEST

/* ---- snapshots written to do harm --------------------------------------------------------------------------------------- */

/* Right checksums, wrong numbers: refused, and without taking memory for what is not there. */
struct counted {
    uint64_t now, peak;
};

static void *GLM_CALL counted_alloc(void *user, size_t size, size_t align)
{
    struct counted *c = user;
    c->now += size;
    c->peak = c->now > c->peak ? c->now : c->peak;
    return aligned_alloc(align, (size + align - 1) / align * align);
}

static void GLM_CALL counted_release(void *user, void *ptr, size_t size, size_t align)
{
    struct counted *c = user;
    (void)align;
    c->now -= size;
    free(ptr);
}

START_TEST(lengths_that_lie)
{
    static const uint64_t values[] = { 0, 1, 3, 4, 7, 8, 255, 4096, 1 << 20, 256 << 20, (256 << 20) + 1, INT32_MAX, UINT32_MAX,
        UINT64_C(1) << 32, UINT64_C(1) << 40, INT64_MAX, UINT64_C(1) << 63, UINT64_MAX - 3, UINT64_MAX };
    static struct snap_parts p;
    struct counted count = { 0, 0 };
    const glm_allocator hook = { (uint32_t)sizeof hook, 0, &count, counted_alloc, counted_release };
    glm_model *m = declare_once(open_with(getenv("GLM_TEST_MODEL"), &hook));
    struct snap_bytes b = { 0 };
    uint64_t before = count.now;
    unsigned n = 0;

    make(m, true, &b);
    ck_assert(snap_apart(&b, &p));
    for (int section = 0; section < SNAP_N_SECTION; section++)
        for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
            unsigned char keep[SNAP_HEAD];
            glm_error err = GLM_ERROR_INIT;
            if (values[i] == p.section[section].size)
                continue;
            memcpy(keep, p.head, SNAP_HEAD);
            snap_set(p.head + SNAP_SECTION_AT + 16 * section + 8, 8, values[i]);
            snap_together(&p, false, &b);
            memcpy(p.head, keep, SNAP_HEAD);
            count.peak = count.now;
            ck_assert_msg(try(m, &b, &err) == GLM_EFORMAT, "section %d, %llu bytes: %s", section, (unsigned long long)values[i],
                err.message);
            ck_assert_uint_le(count.peak - before, 4 << 20);
            n++;
        }
    ck_assert_uint_gt(n, 80);
    for (int i = 56; i < 256; i += 4) { /* every number of the header, and the model's name */
        static const uint32_t numbers[] = { 0, 1, 2, 5, 255, 513, 4097, INT32_MAX, UINT32_MAX };
        for (size_t k = 0; k < sizeof numbers / sizeof *numbers; k++) {
            unsigned char keep[SNAP_HEAD];
            memcpy(keep, p.head, SNAP_HEAD);
            snap_set(p.head + i, 4, numbers[k]);
            snap_together(&p, false, &b);
            memcpy(p.head, keep, SNAP_HEAD);
            count.peak = count.now;
            (void)try(m, &b, NULL);
            ck_assert_uint_le(count.peak - before, 4 << 20);
        }
    }
    snap_parts_free(&p);
    snap_bytes_free(&b);
    ck_assert_uint_eq(count.now, before);
    glm_model_close(m);
}
END_TEST

/* A block's own numbers. */
START_TEST(blocks_that_lie)
{
    static const uint32_t numbers[] = { 0, 1, 2, 31, 131072, 131073, INT32_MAX, UINT32_MAX };
    static struct snap_parts p;
    struct snap_bytes b = { 0 }, c = { 0 };
    make(model, false, &b);
    ck_assert(snap_apart(&b, &p));
    snap_together(&p, false, &b);
    for (int field = 0; field < 16; field += 4)
        for (size_t k = 0; k < sizeof numbers / sizeof *numbers; k++) {
            uint64_t sum = snap_get(b.data + SNAP_HEAD - 8, 8);
            if (snap_get(b.data + SNAP_HEAD + field, 4) == numbers[k])
                continue;
            c.size = 0;
            snap_append(&c, b.data, b.size);
            snap_set(c.data + SNAP_HEAD + field, 4, numbers[k]);
            snap_set(c.data + SNAP_HEAD + 24, 8, snap_sum(sum, c.data + SNAP_HEAD, 24));
            refused(&c, GLM_EFORMAT, "number of a block", (size_t)field);
        }
    snap_parts_free(&p);
    snap_bytes_free(&b);
    snap_bytes_free(&c);
}
END_TEST

static uint32_t random_u32(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*state >> 33);
}

/* What a session from a changed snapshot does is up to it, but it does it in its own memory. */
static void use(glm_session *s)
{
    glm_event ev = GLM_EVENT_INIT;
    glm_turn_options t = GLM_TURN_OPTIONS_INIT;
    struct snap_bytes b = { 0 };
    glm_stream to = snap_stream(&b);
    glm_session *other = NULL;
    int32_t rc = GLM_OK;

    if (!glm_session_save_to(s, &to, NULL))
        ck_assert_int_eq(try(model, &b, NULL), GLM_OK); /* what can be saved can be loaded */
    if (!glm_session_fork(s, &other, NULL))
        glm_session_close(other);
    for (uint64_t id = 0; id < 4; id++)
        (void)glm_tool_result(s, id, "x", 1, NULL);
    for (int i = 0; i < 12 && !rc && ev.type != GLM_EVENT_TURN_END; i++)
        rc = glm_session_step(s, NULL, &ev, NULL);
    glm_session_cancel(s);
    for (int i = 0; i < 12 && !rc && ev.type != GLM_EVENT_TURN_END; i++)
        rc = glm_session_step(s, NULL, &ev, NULL);
    t.max_tokens = 2;
    (void)glm_session_turn(s, &t, NULL);
    (void)glm_session_say(s, GLM_ROLE_USER, "x", 1, NULL);
    for (int i = 0; i < 12 && !rc; i++)
        rc = glm_session_step(s, NULL, &ev, NULL);
    snap_bytes_free(&b);
}

START_TEST(contents_that_lie)
{
    static const unsigned char bytes[] = { 0, 1, 2, 0x7f, 0x80, 0xff };
    static struct snap_parts p;
    uint64_t state = 12345 + (uint64_t)_i;
    unsigned n_ok = 0, n = full ? 40000 : 800;
    struct snap_bytes b = { 0 };

    make(model, _i, &b);
    for (unsigned round = 0; round < n; round++) {
        static const int which[] = { 0, 0, 1, 2, 2, 2, 3 };
        glm_session *s = NULL;
        glm_error err = GLM_ERROR_INIT;
        struct snap_bytes changed = { 0 };
        ck_assert(snap_apart(&b, &p));
        struct snap_bytes *x = &p.section[which[random_u32(&state) % 7]];
        for (uint32_t k = random_u32(&state) % 3 + 1; k && x->size; k--) {
            size_t at = random_u32(&state) % x->size;
            switch (random_u32(&state) % 4) {
            case 0: x->data[at] = bytes[random_u32(&state) % sizeof bytes]; break;
            case 1: x->data[at] ^= (unsigned char)(1 << random_u32(&state) % 8); break;
            case 2: snap_set(x->data + (at < x->size - 8 ? at & ~(size_t)7 : 0), x->size > 8 ? 8 : 1, random_u32(&state) % 3); break;
            default: if (x != &p.section[3]) x->size = at; break;
            }
        }
        snap_together(&p, true, &changed);
        int32_t rc = snap_load(model, &changed, NULL, &s, &err);
        if (rc) {
            ck_assert_msg(rc == GLM_EFORMAT || rc == GLM_ENOTSUP || rc == GLM_ECONTEXT, "%s: %s", glm_status_name(rc), err.message);
        } else {
            n_ok++;
            use(s);
        }
        glm_session_close(s);
        snap_bytes_free(&changed);
        snap_parts_free(&p);
    }
    printf("%u of %u changed snapshots were taken\n", n_ok, n);
    ck_assert_uint_lt(n_ok, n);
    snap_bytes_free(&b);
}
END_TEST

int main(int argc, char **argv)
{
    Suite *suite = suite_create("snapshot_damage");
    TCase *tc = tcase_create("damage");
    SRunner *runner;
    int n_failed;

    full = argc > 1 && strcmp(argv[1], "full") == 0;
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, full ? 3000 : 120);
    tcase_add_test(tc, every_bit_flipped);
    tcase_add_test(tc, every_length);
    tcase_add_test(tc, blocks_exchanged);
    tcase_add_test(tc, a_newer_version);
    tcase_add_test(tc, of_another_model);
    tcase_add_test(tc, of_the_same_model_with_other_weights);
    tcase_add_test(tc, streams);
    tcase_add_test(tc, a_read_that_gives_too_much);
    tcase_add_test(tc, every_allocation_fails);
    tcase_add_test(tc, lengths_that_lie);
    tcase_add_test(tc, blocks_that_lie);
    tcase_add_loop_test(tc, contents_that_lie, 0, 2);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    n_failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return n_failed != 0;
}
