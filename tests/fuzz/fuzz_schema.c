/* fuzz_schema.c: schemas, patterns and tools through the constraint engine's compiler, and a walk through what it made. A
 * byte says what the input is, some the walk, the rest is its text. What compiles starts with a mask that is not empty; every
 * token of a mask is taken, one that is not in it is refused and changes nothing; going back and a fork give the same mask. */
#include "fuzz.h"

#include "lib/text/constraint.h"

#define WALK 24u

static struct mem mem;
static struct tok *tok;
static struct con_vocab *vocab;

static void open_once(void)
{
    size_t size;
    glm_error err = GLM_ERROR_INIT;
    char *json = fuzz_model_file("tokenizer.json", &size);
    struct vocab_source src = {.kind = VOCAB_JSON, .where = "tokenizer.json", .json = json, .json_size = size};

    mem_init(&mem, NULL);
    FUZZ_CHECK(tok_open(&mem, &src, 0, &tok, &err) == GLM_OK);
    FUZZ_CHECK(con_vocab_open(&mem, tok, 0, &vocab, &err) == GLM_OK);
    free(json);
}

/* The n-th token of a mask, counted around; -1: it is empty. */
static int32_t pick(const uint32_t *bits, uint32_t n)
{
    uint32_t words = con_n_word(vocab), count = 0;
    for (uint32_t i = 0; i < words; i++)
        count += (uint32_t)__builtin_popcount(bits[i]);
    if (count == 0)
        return -1;
    n = n * 2654435761u % count;
    for (uint32_t i = 0; i < words * 32; i++)
        if ((bits[i / 32] >> i % 32 & 1) && n-- == 0)
            return (int32_t)i;
    return -1;
}

static bool is_end(int32_t id)
{
    static const enum tok_special ends[] = {TOK_ENDOFTEXT, TOK_USER, TOK_OBSERVATION};
    for (size_t i = 0; i < ARRAY_LEN(ends); i++)
        if (id == tok_id(tok, ends[i]))
            return true;
    return false;
}

/* A limit may be met on the way; everything else holds. */
static void walk(struct con_run *r, const uint8_t *steps, uint32_t n)
{
    uint32_t words = con_n_word(vocab);
    uint32_t *bits = malloc(words * sizeof *bits), *again = malloc(words * sizeof *again);
    glm_error err = GLM_ERROR_INIT;
    struct con_run *fork = NULL;

    for (uint32_t i = 0; i < n; i++) {
        int32_t rc = con_mask(r, bits, &err), id, bad;
        if (rc) {
            FUZZ_CHECK(rc == GLM_ELIMIT);
            break;
        }
        id = pick(bits, steps[i]);
        if (id < 0 || is_end(id))
            break;
        bad = (int32_t)(steps[i] * 37u % (words * 32));
        if (!(bits[bad / 32] >> bad % 32 & 1) && (uint32_t)bad < tok_n(tok)) {
            FUZZ_CHECK(con_accept(r, bad, &err) != GLM_OK);
            FUZZ_CHECK(con_n_token(r) == i);
        }
        rc = con_accept(r, id, &err);
        if (rc && rc != GLM_ELIMIT)
            fprintf(stderr, "step %u, token %d: %d %s\n", i, id, rc, err.message);
        FUZZ_CHECK(rc == GLM_OK || rc == GLM_ELIMIT);
        if (rc)
            break;
        if (i % 8 == 3) {
            con_rewind(r, i);
            FUZZ_CHECK(con_mask(r, again, &err) != GLM_OK || !memcmp(bits, again, words * sizeof *bits));
            FUZZ_CHECK(con_fork(r, &fork, &err) == GLM_OK);
            FUZZ_CHECK(con_mask(fork, again, &err) != GLM_OK || !memcmp(bits, again, words * sizeof *bits));
            con_close(fork);
            rc = con_accept(r, id, &err);
            if (rc)
                break;
        }
    }
    free(bits);
    free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct con_limits limits = {.bytes = 16u << 20, .cache_bytes = 1u << 20, .states = 60000, .work = 30000};
    struct con_spec spec = {.limits = &limits};
    struct con_grammar *g = NULL;
    struct con_run *r = NULL;
    struct json_doc doc = {0};
    glm_error err = GLM_ERROR_INIT;
    uint8_t steps[WALK];
    uint64_t used;
    int32_t rc = GLM_OK;

    if (!tok)
        open_once();
    if (size < WALK + 2)
        return 0;
    used = mem.used;
    memcpy(steps, data + 1, WALK);
    const char *text = (const char *)data + 1 + WALK;
    size -= 1 + WALK;
    spec.family = data[0] & 64 ? CHAT_47 : CHAT_45;
    if (data[0] % 4 == 0) {
        if (!utf8_is_valid(text, size, &(size_t){0}))
            return 0;
        spec.kind = CON_REGEX;
        spec.regex = text;
        spec.regex_size = size;
    } else if (json_parse(&mem, text, size, 0, "input", &doc, NULL)) {
        return 0;
    } else if (data[0] % 4 == 1) {
        spec.kind = CON_SCHEMA;
        spec.schema = doc.root;
    } else {
        spec.kind = CON_TURN;
        spec.choice = data[0] & 32 ? CON_REQUIRED : CON_AUTO;
        spec.may_think = data[0] & 16;
        if (data[0] % 4 == 2)
            spec.tools = doc.root;
        else
            spec.schema = doc.root;
    }
    rc = con_compile(&mem, vocab, &spec, &g, &err);
    json_free(&doc);
    if (rc)
        fuzz_check_error(rc, &err);
    if (!rc)
        FUZZ_CHECK(con_open(&mem, g, &r, &err) == GLM_OK);
    if (r)
        walk(r, steps, WALK);
    con_close(r);
    con_release(g);
    FUZZ_CHECK(mem.used == used);
    return 0;
}
