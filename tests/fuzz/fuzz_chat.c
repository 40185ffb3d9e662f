/* fuzz_chat.c: {"messages", "tools", "kwargs"} through the chat template. The ids of a render spell the same text that the
 * render as text is; markup comes from the template alone: as many special ids as special pieces. The first byte chooses
 * family, and the host's reading of messages or the template's. */
#include "fuzz.h"

#include "lib/text/text.h"

static struct mem mem;
static struct tok *tok;

static void open_once(void)
{
    size_t size;
    glm_error err = GLM_ERROR_INIT;
    char *json = fuzz_model_file("tokenizer.json", &size);
    struct vocab_source src = {.kind = VOCAB_JSON, .where = "tokenizer.json", .json = json, .json_size = size};

    mem_init(&mem, NULL);
    FUZZ_CHECK(tok_open(&mem, &src, 0, &tok, &err) == GLM_OK);
    free(json);
}

static int32_t count_special(void *user, enum chat_piece kind, enum tok_special special, const char *text, size_t size)
{
    (void)text, (void)size;
    if (kind == CHAT_SPECIAL && tok_id(tok, special) >= 0)
        ++*(size_t *)user;
    return 0;
}

static void render(const struct chat_message *messages, size_t n, const struct json *tools, const struct chat_options *how)
{
    struct buf text, again;
    struct ids ids;
    struct tok_decoder d = {{0}, 0};
    size_t n_special = 0, n_added = 0, bad, *ends = calloc(n + 1, sizeof *ends);
    struct chat_sink sink = {.user = &n_special, .put = count_special};
    glm_error err = GLM_ERROR_INIT;
    int32_t rc;

    buf_init(&text, &mem);
    buf_init(&again, &mem);
    ids_init(&ids, &mem);
    rc = chat_render_text(&mem, messages, n, tools, how, &text, &err);
    FUZZ_CHECK(chat_render_ids(tok, &mem, messages, n, tools, how, &ids, ends, &err) == rc);
    if (rc == GLM_OK) {
        FUZZ_CHECK(chat_render(&mem, messages, n, tools, how, &sink, &err) == GLM_OK);
        for (size_t i = 0; i < ids.n; i++) {
            n_added += tok_is_added(tok, ids.id[i]);
            tok_decode(tok, &d, ids.id[i], &again);
        }
        tok_decode_end(&d, &again);
        FUZZ_CHECK(n_added == n_special);
        FUZZ_CHECK(again.size == text.size && (text.size == 0 || memcmp(again.data, text.data, text.size) == 0));
        FUZZ_CHECK(utf8_is_valid(text.data ? text.data : "", text.size, &bad));
        for (size_t i = 0; i < n; i++)
            FUZZ_CHECK(ends[i] <= ids.n && (i == 0 || ends[i] >= ends[i - 1]));
    } else {
        fuzz_check_error(rc, &err);
        FUZZ_CHECK(ids.n == 0);
    }
    buf_free(&text);
    buf_free(&again);
    ids_free(&ids);
    free(ends);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_in in = {data, size};
    uint32_t choice = fuzz_byte(&in);
    struct json_doc doc = {0};
    struct arena arena;
    const struct chat_message *messages;
    const struct json *list, *tools;
    struct tool_types *types = NULL;
    struct chat_options how = {.family = choice & 1 ? CHAT_47 : CHAT_45, .add_generation_prompt = choice >> 1 & 1};
    size_t n;
    uint64_t before;
    glm_error err = GLM_ERROR_INIT;
    int32_t rc;

    if (tok == NULL)
        open_once();
    before = mem.used;
    arena_init(&arena, &mem);
    if (json_parse(&mem, (const char *)in.at, in.left, 0, "input", &doc, &err) == GLM_OK) {
        list = json_get(doc.root, "messages");
        tools = json_get(doc.root, "tools");
        rc = chat_options_from_kwargs(json_get(doc.root, "kwargs"), &how, &err);
        rc = rc ? rc : chat_from_json(&arena, &mem, list ? list : doc.root, choice & 4 ? CHAT_OPENAI : 0, &messages, &n, &err);
        if (rc)
            fuzz_check_error(rc, &err);
        else
            render(messages, n, tools, &how);
        rc = tool_types_open(&mem, tools, &types, &err);
        if (rc)
            fuzz_check_error(rc, &err);
        tool_types_close(types);
    }
    arena_free(&arena);
    json_free(&doc);
    FUZZ_CHECK(mem.used == before);
    return 0;
}
