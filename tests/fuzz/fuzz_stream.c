/* fuzz_stream.c: a model's output, as a run of pieces, through the stream parser: text cut anywhere, markup by kind, tags as
 * spelled, tokens of the small model. Events are in order, texts are whole characters, the deltas of a call make its
 * arguments, and those are one JSON object. Where the pieces are the same but otherwise cut, so is the outcome. */
#include "fuzz.h"

#include "lib/text/text.h"

static struct mem mem;
static struct tok *tok;
static struct tool_types *types;

static const char tools[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"get\",\"parameters\":{\"type\":\"object\",\"properties\":{"
    "\"city\":{\"type\":\"string\"},\"n\":{\"type\":\"integer\"},\"any\":{},\"list\":{\"type\":\"array\"},"
    "\"maybe\":{\"type\":[\"string\",\"null\"]},\"obj\":{\"type\":\"object\"},\"x\":{\"type\":\"number\"}},"
    "\"required\":[\"city\"]}}},{\"name\":\"bare\"}]";

static void open_once(void)
{
    size_t size;
    glm_error err = GLM_ERROR_INIT;
    struct json_doc doc;
    char *json = fuzz_model_file("tokenizer.json", &size);
    struct vocab_source src = {.kind = VOCAB_JSON, .where = "tokenizer.json", .json = json, .json_size = size};

    mem_init(&mem, NULL);
    FUZZ_CHECK(tok_open(&mem, &src, 0, &tok, &err) == GLM_OK);
    FUZZ_CHECK(json_parse(&mem, tools, sizeof tools - 1, 0, "tools", &doc, &err) == GLM_OK);
    FUZZ_CHECK(tool_types_open(&mem, doc.root, &types, &err) == GLM_OK);
    json_free(&doc);
    free(json);
}

struct watch {
    struct stream_text text;
    struct stream_sink collect;
    struct buf deltas;
    bool in_call, stopped;
    uint32_t call, n_call, n_cut;
};

static void check_call(const struct watch *w, const struct stream_event *ev)
{
    struct json_doc doc, deltas;
    glm_error err = GLM_ERROR_INIT;

    FUZZ_CHECK(w->in_call && ev->call == w->call && ev->arguments[ev->arguments_size] == 0);
    FUZZ_CHECK(json_parse(&mem, ev->arguments, ev->arguments_size, JSON_REFUSE_DUPLICATES, "call", &doc, &err) == GLM_OK);
    FUZZ_CHECK(doc.root->type == JSON_OBJECT);
    FUZZ_CHECK(json_parse(&mem, w->deltas.data, w->deltas.size, 0, "deltas", &deltas, &err) == GLM_OK);
    /* with a key given twice the deltas have more members, and equal is one of distinct keys */
    if (deltas.root->count == doc.root->count)
        FUZZ_CHECK(w->deltas.size == ev->arguments_size && memcmp(w->deltas.data, ev->arguments, ev->arguments_size) == 0);
    json_free(&doc);
    json_free(&deltas);
}

static int32_t watch_put(void *user, const struct stream_event *ev)
{
    struct watch *w = user;
    size_t bad;

    FUZZ_CHECK(!w->stopped);
    if (ev->type == STREAM_REASONING || ev->type == STREAM_TEXT || ev->type == STREAM_CALL_DELTA)
        FUZZ_CHECK(ev->text_size > 0 && utf8_is_valid(ev->text, ev->text_size, &bad));
    if (ev->type == STREAM_CALL_BEGIN || ev->type == STREAM_CALL || ev->type == STREAM_CALL_CUT)
        FUZZ_CHECK(utf8_is_valid(ev->name, ev->name_size, &bad) && ev->name[ev->name_size] == 0);
    switch (ev->type) {
    case STREAM_CALL_BEGIN:
        FUZZ_CHECK(!w->in_call);
        w->in_call = true;
        w->call = ev->call;
        buf_clear(&w->deltas);
        break;
    case STREAM_CALL_DELTA:
        FUZZ_CHECK(w->in_call && ev->call == w->call);
        buf_put(&w->deltas, ev->text, ev->text_size);
        break;
    case STREAM_CALL:
        check_call(w, ev);
        w->in_call = false;
        w->n_call++;
        break;
    case STREAM_CALL_CUT:
        FUZZ_CHECK(w->in_call && ev->call == w->call);
        w->in_call = false;
        w->n_cut++;
        break;
    case STREAM_STOP: w->stopped = true; break;
    default: FUZZ_CHECK(!w->in_call);
    }
    return w->collect.put(w->collect.user, ev);
}

/* The pieces: a byte of kind, then what it needs. cut: texts go in byte by byte. */
static void run(const uint8_t *data, size_t size, bool cut, struct watch *w, enum stream_finish *finish)
{
    struct fuzz_in in = {data, size};
    uint32_t how = fuzz_byte(&in);
    struct stream *s;
    struct stream_sink sink = {w, watch_put};
    glm_error err = GLM_ERROR_INIT;

    memset(w, 0, sizeof *w);
    stream_text_init(&w->text, &mem);
    w->collect = stream_text_sink(&w->text);
    buf_init(&w->deltas, &mem);
    FUZZ_CHECK(stream_open(&mem, tok, how & 8 ? NULL : types, how & 1 ? CHAT_47 : CHAT_45, how >> 1 & 1, &s, &err) == 0);
    stream_drop_calls(s, how >> 2 & 1);
    while (in.left > 0) {
        uint32_t kind = fuzz_byte(&in);
        int32_t rc = 0;
        if (kind < TOK_SPECIAL_COUNT)
            rc = stream_put_special(s, (enum tok_special)kind, &sink, &err);
        else if (kind < 0x80) {
            size_t n = kind - TOK_SPECIAL_COUNT < in.left ? kind - TOK_SPECIAL_COUNT : in.left;
            for (size_t i = 0; i < n && !rc; i += cut ? 1 : n)
                rc = stream_put_text(s, (const char *)in.at + i, cut ? 1 : n, &sink, &err);
            in.at += n;
            in.left -= n;
        } else if (kind < 0xc0) {
            int32_t id = (int32_t)((kind & 63) << 8 | fuzz_byte(&in));
            rc = stream_put(s, id, &sink, &err);
        } else {
            size_t n;
            const char *text = fuzz_part(&in, &n);
            rc = stream_put_spelled(s, text, n, &sink, &err);
        }
        FUZZ_CHECK(rc == 0);
    }
    FUZZ_CHECK(stream_end(s, how >> 4 & 1, &sink, finish, &err) == 0);
    FUZZ_CHECK(!w->in_call && stream_n_call(s) == w->n_call && stream_n_cut(s) >= w->n_cut && *finish != STREAM_OPEN);
    stream_close(s);
}

static bool same(const struct buf *a, const struct buf *b)
{
    return a->size == b->size && (a->size == 0 || memcmp(a->data, b->data, a->size) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct watch whole, cut;
    enum stream_finish ends[2] = {STREAM_OPEN, STREAM_OPEN};
    uint64_t before;

    if (tok == NULL)
        open_once();
    before = mem.used;
    run(data, size, false, &whole, &ends[0]);
    run(data, size, true, &cut, &ends[1]);
    FUZZ_CHECK(ends[0] == ends[1] && whole.n_call == cut.n_call && whole.n_cut == cut.n_cut);
    FUZZ_CHECK(same(&whole.text.reasoning, &cut.text.reasoning) && same(&whole.text.content, &cut.text.content));
    for (size_t i = 0; i < whole.text.n_call; i++)
        FUZZ_CHECK(strcmp(whole.text.calls[i].arguments, cut.text.calls[i].arguments) == 0);
    stream_text_free(&whole.text);
    stream_text_free(&cut.text);
    buf_free(&whole.deltas);
    buf_free(&cut.deltas);
    FUZZ_CHECK(mem.used == before);
    return 0;
}
