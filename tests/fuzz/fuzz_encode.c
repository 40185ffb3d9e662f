/* fuzz_encode.c: text through the small model's tokenizer. Plain text never becomes markup and comes back as it was, in
 * any cuts; text whose specials are meant comes back too; ill-formed text is no crash. */
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

static void check_decode(const struct ids *ids, const char *text, size_t size)
{
    struct buf out;
    struct tok_decoder d = {{0}, 0};
    size_t bad;

    buf_init(&out, &mem);
    for (size_t i = 0; i < ids->n; i++) {
        tok_decode(tok, &d, ids->id[i], &out);
        FUZZ_CHECK(utf8_is_valid(out.data ? out.data : "", out.size, &bad));
    }
    tok_decode_end(&d, &out);
    FUZZ_CHECK(!out.failed && out.size == size && (size == 0 || memcmp(out.data, text, size) == 0));
    buf_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ids ids;
    struct buf out;
    struct tok_decoder d = {{0}, 0};
    glm_error err = GLM_ERROR_INIT;
    const char *text = (const char *)data;
    size_t bad;

    if (tok == NULL)
        open_once();
    ids_init(&ids, &mem);
    buf_init(&out, &mem);
    if (utf8_is_valid(text, size, &bad))
        for (uint32_t flags = 0; flags <= TOK_SPECIALS; flags++) {
            ids.n = 0;
            FUZZ_CHECK(tok_encode(tok, text, size, flags, &ids, &err) == GLM_OK);
            for (size_t i = 0; i < ids.n; i++)
                FUZZ_CHECK((uint32_t)ids.id[i] < tok_n(tok) && (flags || !tok_is_added(tok, ids.id[i])));
            check_decode(&ids, text, size);
        }
    tok_decode_bytes(&d, text, size, &out);
    tok_decode_end(&d, &out);
    FUZZ_CHECK(utf8_is_valid(out.data ? out.data : "", out.size, &bad));
    ids_free(&ids);
    buf_free(&out);
    return 0;
}
