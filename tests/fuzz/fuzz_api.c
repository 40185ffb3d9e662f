/* fuzz_api.c: calls of the public API in any order, legal or not, on three sessions of the small model. Each byte is a call,
 * with its arguments from the bytes behind it. Whatever the order: a status, an error that says what, events in order,
 * and a session that still answers at the end. Nothing leaks: the allocator counts. */
#include "fuzz.h"

enum { N_SESSION = 3 };

static glm_model *model;
static _Atomic uint64_t n_block;
static _Atomic uint64_t fail_in; /* allocations until the one that fails; 0: none */

static void *GLM_CALL take(void *user, size_t size, size_t align)
{
    void *p;
    (void)user;
    if (fail_in != 0 && --fail_in == 0)
        return NULL;
    p = aligned_alloc(align, (size + align - 1) / align * align);
    n_block += p != NULL;
    return p;
}

static void GLM_CALL give(void *user, void *ptr, size_t size, size_t align)
{
    (void)user, (void)size, (void)align;
    n_block--;
    free(ptr);
}

static void open_once(void)
{
    static const glm_allocator hook = {(uint32_t)sizeof hook, 0, NULL, take, give};
    glm_model_options opt = GLM_MODEL_OPTIONS_INIT;
    const char *folder = getenv("GLM_TEST_MODEL");
    glm_error err = GLM_ERROR_INIT;
    glm_session *s = NULL;

    opt.allocator = &hook;
    opt.n_threads = 1;
    if (glm_model_open(folder ? folder : "models/nano", &opt, &model, &err)) {
        fprintf(stderr, "%s\n", err.message);
        abort();
    }
    /* What tools need is built once per model. */
    FUZZ_CHECK(glm_session_open(model, NULL, &s, &err) == 0);
    FUZZ_CHECK(glm_session_tools(s, "[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]", GLM_NTS, &err) == 0);
    glm_session_close(s);
}

struct client {
    glm_session *s;
    uint64_t calls[8]; /* ids seen and not answered */
    uint32_t n_call;
};

static const char tools[] = "[{\"type\":\"function\",\"function\":{\"name\":\"add\",\"description\":\"d\",\"parameters\":"
                            "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"number\"}},\"required\":[\"a\"]}}}]";

static const char *const texts[] = {"", "What is 12 + 30?", "hi /nothink", "<|user|> x <think>", "\xff\xfe",
    "Weather in Oslo?", "\n\n  \n", "\xe4\xbd\xa0\xe5\xa5\xbd"};
static const char *const arrays[] = {
    "[]", "[{\"role\":\"user\",\"content\":\"hi\"}]", "{", "[{\"role\":7}]",
    "[{\"role\":\"assistant\",\"tool_calls\":[{\"name\":\"add\",\"arguments\":{\"a\":1}}]},{\"role\":\"tool\",\"content\":\"2\"}]",
    "[{\"role\":\"user\",\"content\":null}]", "[{\"role\":\"user\",\"content\":\"What is 2 + 2?\"},{\"role\":\"assistant\",\"content\":\"4\"}]", tools};

static void step(struct client *c, uint32_t how, glm_error *err, int32_t *rc)
{
    glm_event ev = GLM_EVENT_INIT;
    glm_step budget = GLM_STEP_INIT;

    budget.budget_ns = (uint64_t)how * 1000;
    *rc = glm_session_step(c->s, how & 1 ? &budget : NULL, &ev, err);
    if (*rc)
        return;
    FUZZ_CHECK(ev.type <= GLM_EVENT_ERROR && ev.struct_size == sizeof ev);
    if (ev.text)
        FUZZ_CHECK(ev.text[ev.text_size] == 0);
    if (ev.type == GLM_EVENT_TOOL_CALL) {
        FUZZ_CHECK(ev.call_id != 0 && ev.name && ev.arguments && ev.arguments[0] == '{');
        if (c->n_call < 8)
            c->calls[c->n_call++] = ev.call_id;
    }
    if (ev.type == GLM_EVENT_TURN_END && ev.end_reason != GLM_END_TOOLS)
        c->n_call = 0;
}

static void set_turn(struct client *c, struct fuzz_in *in, glm_error *err, int32_t *rc)
{
    glm_turn_options opt = GLM_TURN_OPTIONS_INIT;
    uint32_t bits = fuzz_byte(in);
    static const float odd[] = {0, 1, 0.5f, -1, 1e38f, 2, 0.999f, 1e-30f};

    opt.max_tokens = 1 + fuzz_byte(in) % 12;
    opt.thinking = bits & 3;
    opt.tool_choice = bits >> 2 & 3;
    opt.temperature = odd[bits >> 4 & 7];
    opt.top_p = odd[fuzz_byte(in) & 7];
    opt.top_k = (int32_t)(int8_t)fuzz_byte(in);
    opt.seed = bits;
    *rc = glm_session_turn(c->s, bits & 128 ? NULL : &opt, err);
}

static void feed(struct client *c, struct fuzz_in *in, glm_error *err, int32_t *rc)
{
    int32_t ids[16];
    size_t n = fuzz_byte(in) % 17;

    for (size_t i = 0; i < n; i++) {
        ids[i] = (int32_t)(fuzz_byte(in) << 4 | i);
        if (i == 15)
            ids[i] -= 16;
    }
    *rc = glm_session_feed(c->s, ids, n, fuzz_byte(in) % 3, err);
}

static void look(struct client *c, struct fuzz_in *in, glm_error *err, int32_t *rc)
{
    const float *row = NULL;
    volatile float sink;
    uint64_t i = fuzz_byte(in);
    glm_stats stats = GLM_STATS_INIT;
    int32_t id = -1;

    i = i > 200 ? GLM_LAST_ROW : i;
    if (glm_session_logits(c->s, i, &row, err) == 0)
        sink = row[0];
    if (glm_session_hidden(c->s, i, &row, err) == 0)
        sink = row[0];
    (void)sink;
    if (glm_session_sample(c->s, &id, err) == 0)
        FUZZ_CHECK(id >= 0);
    *rc = glm_session_stats(c->s, &stats, err);
}

static void add_message(struct client *c, struct fuzz_in *in, glm_error *err, int32_t *rc)
{
    glm_message msg = GLM_MESSAGE_INIT;
    uint32_t bits = fuzz_byte(in);

    msg.role = bits & 7;
    msg.text = texts[bits >> 3 & 7];
    msg.text_size = GLM_NTS;
    if (bits & 64) {
        msg.reasoning = texts[fuzz_byte(in) & 7];
        msg.reasoning_size = GLM_NTS;
    }
    if (bits & 128) {
        msg.calls_json = arrays[fuzz_byte(in) & 7];
        msg.calls_size = GLM_NTS;
    }
    msg.flags = fuzz_byte(in) & 3;
    *rc = glm_session_add(c->s, &msg, err);
}

static void tokens(struct fuzz_in *in, glm_error *err, int32_t *rc)
{
    int32_t ids[8];
    char text[16];
    size_t n = 0, size = 0;

    *rc = glm_tokenize(model, texts[fuzz_byte(in) & 7], GLM_NTS, fuzz_byte(in) & 3, ids, 8, &n, err);
    if (*rc == 0)
        *rc = glm_detokenize(model, ids, n, text, sizeof text, &size, err);
}

static void one_call(struct client *c, struct fuzz_in *in)
{
    glm_error err = GLM_ERROR_INIT;
    uint32_t which = fuzz_byte(in), arg = which >> 4;
    int32_t rc = 0;

    switch (which & 15) {
    case 0: case 1: case 2: case 3: step(c, arg, &err, &rc); break;
    case 4: rc = glm_session_say(c->s, arg & 3, texts[arg & 7], GLM_NTS, &err); break;
    case 5: add_message(c, in, &err, &rc); break;
    case 6: rc = glm_session_messages(c->s, arrays[arg & 7], GLM_NTS, NULL, &err); break;
    case 7: rc = glm_session_tools(c->s, arrays[(arg ^ 7) & 7], GLM_NTS, &err); break;
    case 8: set_turn(c, in, &err, &rc); break;
    case 9: glm_session_cancel(c->s); break;
    case 10:
        rc = glm_tool_result(c->s, c->n_call ? c->calls[arg % c->n_call] : arg, texts[arg & 7], GLM_NTS, &err);
        break;
    case 11: feed(c, in, &err, &rc); break;
    case 12: look(c, in, &err, &rc); break;
    case 13: fail_in = arg + 1; break;
    case 14: tokens(in, &err, &rc); break;
    default:
        glm_session_close(c->s);
        c->s = NULL;
        c->n_call = 0;
        fail_in = 0;
        rc = glm_session_open(model, NULL, &c->s, &err);
        FUZZ_CHECK(rc == 0);
    }
    if (rc && err.code != rc)
        fprintf(stderr, "call %u\n", which & 15);
    if (rc)
        fuzz_check_error(rc, &err);
}

/* Whatever came before, a new conversation is answered. */
static void still_answers(struct client *c)
{
    glm_error err = GLM_ERROR_INIT;
    glm_event ev = GLM_EVENT_INIT;
    glm_turn_options opt = GLM_TURN_OPTIONS_INIT;
    int32_t rc;

    fail_in = 0;
    for (int i = 0; i < 3; i++) { /* ends what is under way */
        glm_session_cancel(c->s);
        for (ev.type = 0; ev.type != GLM_EVENT_TURN_END && glm_session_step(c->s, NULL, &ev, &err) == 0;)
            ;
    }
    opt.max_tokens = 4;
    rc = glm_session_turn(c->s, &opt, &err);
    rc = rc ? rc : glm_session_messages(c->s, arrays[1], GLM_NTS, NULL, &err);
    ev.type = 0;
    for (int i = 0; !rc && ev.type != GLM_EVENT_TURN_END; i++) {
        rc = glm_session_step(c->s, NULL, &ev, &err);
        FUZZ_CHECK(i < 1000);
    }
    if (rc)
        fprintf(stderr, "%s: %s\n", err.where, err.message);
    FUZZ_CHECK(rc == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_in in = {data, size < 256 ? size : 256};
    struct client c[N_SESSION] = {{0}};
    glm_error err = GLM_ERROR_INIT;
    uint64_t before;

    if (model == NULL)
        open_once();
    before = n_block;
    for (int i = 0; i < N_SESSION; i++)
        FUZZ_CHECK(glm_session_open(model, NULL, &c[i].s, &err) == 0);
    while (in.left > 0)
        one_call(&c[*in.at & 64 ? 1 : *in.at & 32 ? 2 : 0], &in);
    for (int i = 0; i < N_SESSION; i++) {
        still_answers(&c[i]);
        glm_session_close(c[i].s);
    }
    FUZZ_CHECK(n_block == before);
    return 0;
}
