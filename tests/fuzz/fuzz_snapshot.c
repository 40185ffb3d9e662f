/* fuzz_snapshot.c: snapshots with right checksums and any contents. An input is a run of edits of a good snapshot (first
 * byte odd), or takes the place of one of its sections (even). Whatever comes of it: a status with an error that says
 * what, or a session that can be stepped, saved and closed. Nothing leaks: the allocator counts. */
#include "../engine/snapshot_edit.h"

#include <stdint.h>
#include <stdio.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_CHECK(condition)                                                                                          \
    do                                                                                                                 \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition);                             \
            abort();                                                                                                   \
        }                                                                                                              \
    while (0)

static glm_model *model;
static struct snap_bytes good;
static _Atomic uint64_t n_block, n_byte;

static void *GLM_CALL take(void *user, size_t size, size_t align)
{
    void *p = aligned_alloc(align, (size + align - 1) / align * align);
    (void)user;
    n_block += p != NULL;
    n_byte += p ? size : 0;
    FUZZ_CHECK(n_byte < 256 << 20);
    return p;
}

static void GLM_CALL give(void *user, void *ptr, size_t size, size_t align)
{
    (void)user, (void)align;
    n_block--;
    n_byte -= size;
    free(ptr);
}

/* The good one: a call that waits, messages with sampled ids, tools, a file of context, options with text. */
static void open_once(void)
{
    static const char tools[] = "[{\"type\": \"function\", \"function\": {\"name\": \"get_weather\", \"description\": \"weather of "
                                "a city\", \"parameters\": {\"type\": \"object\", \"properties\": {\"city\": {\"type\": "
                                "\"string\"}}, \"required\": [\"city\"]}}}]";
    static const char *const stop[] = { "zebra" };
    static const glm_allocator hook = { (uint32_t)sizeof hook, 0, NULL, take, give };
    glm_model_options opt = GLM_MODEL_OPTIONS_INIT;
    glm_session_options so = GLM_SESSION_OPTIONS_INIT;
    glm_turn_options to = GLM_TURN_OPTIONS_INIT;
    const char *folder = getenv("GLM_TEST_MODEL");
    glm_session *s = NULL;
    glm_stream out = snap_stream(&good);
    glm_event ev = GLM_EVENT_INIT;

    opt.allocator = &hook;
    opt.n_threads = 1;
    so.n_ctx = 512;
    so.kv_type = GLM_KV_INT8;
    to.temperature = 0;
    to.stop = stop;
    to.n_stop = 1;
    FUZZ_CHECK(!glm_model_open(folder ? folder : "models/nano", &opt, &model, NULL));
    FUZZ_CHECK(!glm_session_open(model, &so, &s, NULL) && !glm_session_turn(s, &to, NULL));
    FUZZ_CHECK(!glm_session_tools(s, tools, GLM_NTS, NULL) && !glm_session_infill_file(s, "a.py", "x = 1\n", GLM_NTS, NULL));
    FUZZ_CHECK(!glm_session_say(s, GLM_ROLE_USER, "What is the weather in Oslo?", GLM_NTS, NULL));
    while (ev.type != GLM_EVENT_TURN_END)
        FUZZ_CHECK(!glm_session_step(s, NULL, &ev, NULL));
    FUZZ_CHECK(ev.end_reason == GLM_END_TOOLS && !glm_session_save_to(s, &out, NULL));
    glm_session_close(s);
}

static void edit(struct snap_parts *p, const uint8_t *data, size_t size)
{
    for (; size >= 5; data += 5, size -= 5) {
        struct snap_bytes *x = &p->section[data[0] % 4];
        size_t at = (size_t)data[1] | (size_t)data[2] << 8;
        if (data[0] >= 224) { /* the header, its lengths included */
            p->head[24 + at % (SNAP_HEAD - 32)] = data[4];
            continue;
        }
        if (x->size == 0)
            continue;
        at %= x->size;
        switch (data[3] % 4) {
        case 0: x->data[at] = data[4]; break;
        case 1: x->data[at] ^= (unsigned char)(1 << data[4] % 8); break;
        case 2: snap_set(x->data + at, at + 8 <= x->size ? 8 : 1, data[4] < 128 ? data[4] : UINT64_MAX - data[4] + 128); break;
        default: x->size = p->section + 3 == x ? x->size : at; break;
        }
    }
}

static void use(glm_session *s)
{
    struct snap_bytes again = { 0 };
    glm_stream out = snap_stream(&again);
    glm_session *other = NULL;
    glm_event ev = GLM_EVENT_INIT;
    glm_error err = GLM_ERROR_INIT;

    FUZZ_CHECK(!glm_session_save_to(s, &out, &err) && !snap_load(model, &again, NULL, &other, &err));
    glm_session_close(other);
    other = NULL;
    if (!glm_session_fork(s, &other, &err))
        glm_session_close(other);
    for (uint64_t id = 1; id < 4; id++)
        (void)glm_tool_result(s, id, "x", 1, &err);
    for (int i = 0; i < 6; i++)
        if (glm_session_step(s, NULL, &ev, &err))
            break;
    glm_session_cancel(s);
    for (int i = 0; i < 6; i++)
        if (glm_session_step(s, NULL, &ev, &err))
            break;
    snap_bytes_free(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct snap_parts p;
    struct snap_bytes bytes = { 0 };
    glm_session *s = NULL;
    glm_error err = GLM_ERROR_INIT;
    uint64_t before;
    int32_t rc;

    if (!model)
        open_once();
    if (size == 0)
        return 0;
    FUZZ_CHECK(snap_apart(&good, &p));
    if (data[0] & 1) {
        edit(&p, data + 1, size - 1);
        snap_together(&p, size % 2, &bytes);
    } else {
        struct snap_bytes *x = &p.section[data[0] / 2 % 4];
        x->size = 0;
        snap_append(x, data + 1, size - 1);
        snap_together(&p, true, &bytes);
    }
    before = n_block;
    rc = snap_load(model, &bytes, NULL, &s, &err);
    FUZZ_CHECK((rc == GLM_OK) == (s != NULL));
    FUZZ_CHECK(rc == GLM_OK || (rc < 0 && err.code == rc && err.message[0]));
    if (s)
        use(s);
    glm_session_close(s);
    FUZZ_CHECK(n_block == before);
    snap_parts_free(&p);
    snap_bytes_free(&bytes);
    return 0;
}
