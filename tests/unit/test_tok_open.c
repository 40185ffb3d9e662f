/* test_tok_open.c: opening vocabularies: what is accepted, what is refused and in which words,
 * damaged files, failing memory. */
#include "failing_alloc.h"
#include "lib/text/tok_int.h"
#include "test_data.h"
#include "tok_fixture.h"

#include <check.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct mem mem;

static int32_t open_text(
    struct mem *m, const char *text, size_t size, uint32_t n_vocab, struct tok **t, glm_error *err)
{
    struct vocab_source src = {
        .kind = VOCAB_JSON, .where = "dir/tokenizer.json", .json = text, .json_size = size};
    return tok_open(m, &src, n_vocab, t, err);
}

static int32_t open_small(const struct fixture_small *f, struct tok **t, glm_error *err)
{
    struct buf text;
    buf_init(&text, &mem);
    fixture_small_print(f, &text);
    int32_t status = open_text(&mem, text.data, text.size, 0, t, err);
    buf_free(&text);
    return status;
}

static void check_encode(
    const struct tok *t, const char *text, uint32_t flags, size_t n, const int32_t *want)
{
    struct ids v;
    ids_init(&v, &mem);
    ck_assert_int_eq(tok_encode(t, text, strlen(text), flags, &v, NULL), 0);
    ck_assert_msg(v.n == n, "%s: %zu ids", text, v.n);
    for (size_t i = 0; i < n; i++)
        ck_assert_int_eq(v.id[i], want[i]);
    ids_free(&v);
}
#define CHECK_ENCODE(t, text, flags, ...)                                                          \
    check_encode(t, text, flags, sizeof(int32_t[]){__VA_ARGS__} / sizeof(int32_t),                 \
        (int32_t[]){__VA_ARGS__})

/* ---- accepted -------------------------------------------------------------------------------- */

static void check_small(const struct tok *t)
{
    ck_assert_uint_eq(tok_n(t), 302);
    CHECK_ENCODE(t, "abc", 0, 257);
    CHECK_ENCODE(t, "abcab", 0, 257, 256);
    CHECK_ENCODE(t, "bcabc", 0, 258, 257);
    CHECK_ENCODE(t, " ab", 0, ' ', 256);
    CHECK_ENCODE(t, "<xy>", 0, '<', 'x', 'y', '>');
    CHECK_ENCODE(t, "<xy><x>", TOK_SPECIALS, 301, 300);
    CHECK_ENCODE(t, "<x<xy>a", TOK_SPECIALS, '<', 'x', 301, 'a');
    ck_assert_int_eq(tok_id(t, TOK_THINK), -1);
    ck_assert_int_eq(tok_find(t, "<xy>", 4), 301);
}

START_TEST(small_opens_in_every_form)
{
    static const char *const merges[] = {"[[\"a\",\"b\"],[\"b\",\"c\"],[\"ab\",\"c\"]]",
        "[\"a b\",\"b c\",\"ab c\"]", "[\"a b\",[\"b\",\"\\u0063\"],[\"a\\u0062\",\"c\"]]"};
    for (size_t i = 0; i < 2 * ARRAY_LEN(merges); i++) {
        struct fixture_small f;
        struct tok *t;
        glm_error err = GLM_ERROR_INIT;
        fixture_small_init(&f);
        f.merges = merges[i / 2];
        f.merges_first = i % 2;
        ck_assert_msg(open_small(&f, &t, &err) == 0, "%s", err.message);
        check_small(t);
        tok_close(t);
    }
}
END_TEST

START_TEST(what_does_not_matter_is_accepted)
{
    static const char *const post[] = {NULL, "null", "{\"type\":\"ByteLevel\"}",
        "{\"type\":\"Sequence\",\"processors\":[{\"type\":\"ByteLevel\"}]}",
        "{\"type\":\"Sequence\",\"processors\":[]}"};
    for (size_t i = 0; i < ARRAY_LEN(post); i++) {
        struct fixture_small f;
        struct tok *t;
        fixture_small_init(&f);
        f.post_processor = post[i];
        f.normalizer = i ? "null" : NULL;
        f.settings = i ? "\"ignore_merges\":true,\"unk_token\":\"\",\"new\":{\"a\":[1]}"
                       : "\"ignore_merges\":true";
        ck_assert_int_eq(open_small(&f, &t, NULL), 0);
        check_small(t);
        tok_close(t);
    }
    struct fixture_small f;
    struct tok *t;
    fixture_small_init(&f);
    f.added = NULL;
    ck_assert_int_eq(open_small(&f, &t, NULL), 0);
    ck_assert_uint_eq(tok_n(t), 259);
    CHECK_ENCODE(t, "<x>", TOK_SPECIALS, '<', 'x', '>');
    tok_close(t);
}
END_TEST

START_TEST(ignore_merges_is_honoured)
{
    struct fixture_small f;
    struct tok *t;
    fixture_small_init(&f);
    f.vocab_more = "\"qq\":256";
    f.merges = "[]";
    ck_assert_int_eq(open_small(&f, &t, NULL), 0);
    CHECK_ENCODE(t, "qq", 0, 256);
    CHECK_ENCODE(t, "qqq", 0, 'q', 'q', 'q');
    tok_close(t);
    f.settings = "\"ignore_merges\":false";
    ck_assert_int_eq(open_small(&f, &t, NULL), 0);
    CHECK_ENCODE(t, "qq", 0, 'q', 'q');
    tok_close(t);
    f.settings = "\"byte_fallback\":false"; /* and false if it is not there */
    ck_assert_int_eq(open_small(&f, &t, NULL), 0);
    CHECK_ENCODE(t, "qq", 0, 'q', 'q');
    tok_close(t);
}
END_TEST

START_TEST(a_pair_listed_twice_has_the_later_rank)
{
    struct fixture_small f;
    struct tok *t;
    fixture_small_init(&f);
    f.merges = "[\"a b\",\"b c\",\"a b\"]";
    ck_assert_int_eq(open_small(&f, &t, NULL), 0);
    CHECK_ENCODE(t, "xabc", 0, 'x', 'a', 258);
    tok_close(t);
}
END_TEST

/* ---- refused --------------------------------------------------------------------------------- */

#define SPLIT(regex, behavior, invert)                                                             \
    "{\"type\":\"Split\",\"pattern\":{" regex "},\"behavior\":\"" behavior "\",\"invert\":" invert \
    "}"
#define SEQUENCE(a, b) "{\"type\":\"Sequence\",\"pretokenizers\":[" a "," b "]}"
#define BYTES "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}"
#define ADDED(id, content, flag) "[{\"id\":" id ",\"content\":" content "," flag "}]"

struct refusal {
    size_t member; /* of fixture_small */
    const char *value;
    int32_t code;
    const char *words; /* in the message */
};
#define M(name) offsetof(struct fixture_small, name)

static const struct refusal refusals[] = {
    {M(added), "{}", GLM_EFORMAT, "/added_tokens: must be an array"},
    {M(added), "7", GLM_EFORMAT, "/added_tokens: must be an array"},
    {M(added), "[7]", GLM_EFORMAT, "each token must be an object"},
    {M(added), "[[]]", GLM_EFORMAT, "each token must be an object"},
    {M(added), "[{}]", GLM_EFORMAT, "without id or content"},
    {M(added), "[{\"id\":300}]", GLM_EFORMAT, "without id or content"},
    {M(added), ADDED("\"300\"", "\"a\"", "\"special\":true"), GLM_EFORMAT, "whole number"},
    {M(added), ADDED("-1", "\"a\"", "\"special\":true"), GLM_EFORMAT, "whole number"},
    {M(added), ADDED("1.5", "\"a\"", "\"special\":true"), GLM_EFORMAT, "whole number"},
    {M(added), ADDED("16777216", "\"<a\"", "\"special\":true"), GLM_EFORMAT, "beyond the limit"},
    {M(added), ADDED("99999999999999", "\"<a\"", "\"special\":true"), GLM_EFORMAT,
        "beyond the limit"},
    {M(added), ADDED("300", "[]", "\"special\":true"), GLM_EFORMAT, "content must be a string"},
    {M(added), ADDED("300", "\"\"", "\"special\":true"), GLM_EFORMAT, "a token of 0 bytes"},
    {M(added), ADDED("97", "\"<a\"", "\"special\":true"), GLM_EFORMAT,
        "id 97 is given to two tokens"},
    {M(added), ADDED("300", "\"abc\"", "\"special\":true"), GLM_EFORMAT,
        "also a token of plain text"},
    {M(added), ADDED("300", "\"<a\"", "\"lstrip\":true"), GLM_ENOTSUP, "lstrip"},
    {M(added), ADDED("300", "\"<a\"", "\"rstrip\":true"), GLM_ENOTSUP, "rstrip"},
    {M(added), ADDED("300", "\"<a\"", "\"single_word\":true"), GLM_ENOTSUP, "single_word"},
    {M(added), ADDED("300", "\"<a\"", "\"normalized\":true"), GLM_ENOTSUP, "normalized"},
    {M(added), ADDED("300", "\"<a\"", "\"normalized\":0"), GLM_EFORMAT, "must be true or false"},
    {M(added), "[{\"id\":300,\"content\":\"<a\"},{\"id\":301,\"content\":\"<a\"}]", GLM_EFORMAT,
        "are the same text"},
    {M(normalizer), "{\"type\":\"NFC\"}", GLM_ENOTSUP, "/normalizer: \"NFC\""},
    {M(normalizer), "[]", GLM_ENOTSUP, "/normalizer"},
    {M(pre_tokenizer), NULL, GLM_EFORMAT, "/pre_tokenizer: missing"},
    {M(pre_tokenizer), "null", GLM_ENOTSUP, "/pre_tokenizer"},
    {M(pre_tokenizer), "{\"type\":\"ByteLevel\"}", GLM_ENOTSUP, "/pre_tokenizer: \"ByteLevel\""},
    {M(pre_tokenizer), "{\"type\":\"Sequence\"}", GLM_ENOTSUP, "/pre_tokenizer"},
    {M(pre_tokenizer), "{\"type\":\"Sequence\",\"pretokenizers\":{}}", GLM_ENOTSUP,
        "/pre_tokenizer"},
    {M(pre_tokenizer), "{\"type\":\"Sequence\",\"pretokenizers\":[" BYTES "]}", GLM_ENOTSUP,
        "/pre_tokenizer"},
    {M(pre_tokenizer), SEQUENCE("{\"type\":\"Digits\"}", BYTES), GLM_ENOTSUP,
        "pretokenizers/0: \"Digits\""},
    {M(pre_tokenizer), SEQUENCE("1", BYTES), GLM_ENOTSUP, "pretokenizers/0"},
    {M(pre_tokenizer), SEQUENCE(SPLIT("\"Regex\":\"a|b\"", "Isolated", "false"), BYTES),
        GLM_ENOTSUP, "Regex: \"a|b\""},
    {M(pre_tokenizer), SEQUENCE(SPLIT("\"String\":\"a\"", "Isolated", "false"), BYTES), GLM_ENOTSUP,
        "without a Regex"},
    {M(pre_tokenizer), SEQUENCE(SPLIT("\"Regex\":\"a\"", "Removed", "false"), BYTES), GLM_ENOTSUP,
        "Isolated"},
    {M(pre_tokenizer), SEQUENCE(SPLIT("\"Regex\":\"a\"", "Isolated", "true"), BYTES), GLM_ENOTSUP,
        "inverted"},
    {M(post_processor), "{\"type\":\"TemplateProcessing\"}", GLM_ENOTSUP, "TemplateProcessing"},
    {M(post_processor), "{\"type\":\"Sequence\"}", GLM_ENOTSUP, "/post_processor"},
    {M(post_processor), "{\"type\":\"Sequence\",\"processors\":[{\"type\":\"Bert\"}]}", GLM_ENOTSUP,
        "\"Bert\""},
    {M(decoder), NULL, GLM_EFORMAT, "/decoder: missing"},
    {M(decoder), "null", GLM_ENOTSUP, "/decoder"},
    {M(decoder), "{\"type\":\"WordPiece\"}", GLM_ENOTSUP, "/decoder: \"WordPiece\""},
    {M(type), NULL, GLM_EFORMAT, "/model/type: missing"},
    {M(type), "\"Unigram\"", GLM_ENOTSUP, "/model/type"},
    {M(type), "3", GLM_EFORMAT, "/model/type: must be a string"},
    {M(settings), "\"ignore_merges\":1", GLM_EFORMAT, "/model/ignore_merges"},
    {M(settings), "\"byte_fallback\":true", GLM_ENOTSUP, "/model/byte_fallback"},
    {M(settings), "\"dropout\":0.1", GLM_ENOTSUP, "/model/dropout"},
    {M(settings), "\"end_of_word_suffix\":\"</w>\"", GLM_ENOTSUP, "/model/end_of_word_suffix"},
    {M(settings), "\"vocab\":7", GLM_EFORMAT, "/model/vocab: must be an object"},
    {M(settings), "\"vocab\":{}", GLM_EFORMAT, "no token for the byte 0x0"},
    {M(vocab_more), "\"ab\":\"256\"", GLM_EFORMAT, "/model/vocab: an id must be a whole number"},
    {M(vocab_more), "\"ab\":[]", GLM_EFORMAT, "/model/vocab: an id must be a whole number"},
    {M(vocab_more), "\"ab\":16777216", GLM_EFORMAT, "beyond the limit"},
    {M(vocab_more), "\"ab\":255", GLM_EFORMAT, "id 255 is given to two tokens"},
    {M(vocab_more), "\"ab\":256,\"ab\":257", GLM_EFORMAT, "tokens 256 and 257 are the same bytes"},
    {M(vocab_more), "\"\":256", GLM_EFORMAT, "a token of 0 bytes"},
    {M(vocab_more), "\"a b\":256", GLM_EFORMAT, "\"a b\" (id 256) is not in byte-level spelling"},
    {M(vocab_more), "\"a\\u0144\":256", GLM_EFORMAT, "is not in byte-level spelling"},
    {M(vocab_more), "\"\\u4e2d\":256", GLM_EFORMAT, "is not in byte-level spelling"},
    {M(merges), NULL, GLM_EFORMAT, "/model/merges: missing"},
    {M(merges), "{}", GLM_EFORMAT, "/model/merges: must be an array"},
    {M(merges), "null", GLM_EFORMAT, "/model/merges: must be an array"},
    {M(merges), "[7]", GLM_EFORMAT, "/model/merges: a merge must be"},
    {M(merges), "[\"ab\"]", GLM_EFORMAT, "must be \"left right\""},
    {M(merges), "[\"\"]", GLM_EFORMAT, "must be \"left right\""},
    {M(merges), "[\" b\"]", GLM_EFORMAT, "merge 0 (\"\" and \"b\")"},
    {M(merges), "[\"a \"]", GLM_EFORMAT, "merge 0"},
    {M(merges), "[\"a b c\"]", GLM_EFORMAT, "merge 0"},
    {M(merges), "[\"a b\",\"x y\"]", GLM_EFORMAT, "merge 1 (\"x\" and \"y\")"},
    {M(merges), "[[\"a\"]]", GLM_EFORMAT, "two strings"},
    {M(merges), "[[\"a\",7]]", GLM_EFORMAT, "two strings"},
    {M(merges), "[[\"a\",\"b\",\"c\"]]", GLM_EFORMAT, "two strings"},
    {M(merges), "[[[\"a\"],\"b\"]]", GLM_EFORMAT, "two strings"},
};

START_TEST(refusals_say_what_and_where)
{
    for (size_t i = 0; i < 2 * ARRAY_LEN(refusals); i++) {
        const struct refusal *r = &refusals[i / 2];
        struct fixture_small f;
        struct tok *t = (struct tok *)&f;
        glm_error err = GLM_ERROR_INIT;
        fixture_small_init(&f);
        f.merges_first = i % 2;
        memcpy((char *)&f + r->member, &r->value, sizeof r->value);
        int32_t status = open_small(&f, &t, &err);
        ck_assert_msg(status == r->code, "%zu: %d, %s", i / 2, status, err.message);
        ck_assert_int_eq(err.code, r->code);
        ck_assert_msg(strstr(err.message, r->words) != NULL, "%zu: \"%s\" is not in: %s", i / 2,
            r->words, err.message);
        ck_assert_str_eq(err.where, "dir/tokenizer.json");
        ck_assert_ptr_null(t);
        ck_assert_int_eq(open_small(&f, &t, NULL), r->code);
        ck_assert_uint_eq(mem.used, 0);
    }
}
END_TEST

/* The offset of an error leads to the value, also where merges wait for the vocabulary. */
START_TEST(refusals_name_the_offset)
{
    for (int first = 0; first < 2; first++) {
        struct fixture_small f;
        struct buf text;
        struct tok *t;
        glm_error err = GLM_ERROR_INIT;
        fixture_small_init(&f);
        f.merges_first = first;
        f.merges = "[\"a b\", \"x y\"]";
        buf_init(&text, &mem);
        fixture_small_print(&f, &text);
        ck_assert_int_eq(open_text(&mem, text.data, text.size, 0, &t, &err), GLM_EFORMAT);
        ck_assert(!memcmp(text.data + err.offset, "\"x y\"", 5));
        buf_free(&text);
    }
}
END_TEST

START_TEST(every_byte_must_have_a_token)
{
    for (int byte = 0; byte < 256; byte++) {
        struct fixture_small f;
        struct tok *t;
        glm_error err = GLM_ERROR_INIT;
        char words[64];
        fixture_small_init(&f);
        f.skip_byte = byte;
        f.merges = "[]";
        snprintf(words, sizeof words, "no token for the byte 0x%x", byte);
        ck_assert_int_eq(open_small(&f, &t, &err), GLM_EFORMAT);
        ck_assert_msg(strstr(err.message, words) != NULL, "%s", err.message);
    }
}
END_TEST

START_TEST(ids_stay_below_the_models_rows)
{
    struct fixture_small f;
    struct buf text;
    struct tok *t;
    glm_error err = GLM_ERROR_INIT;
    fixture_small_init(&f);
    buf_init(&text, &mem);
    fixture_small_print(&f, &text);
    ck_assert_int_eq(open_text(&mem, text.data, text.size, 302, &t, NULL), 0);
    tok_close(t);
    ck_assert_int_eq(open_text(&mem, text.data, text.size, 301, &t, &err), GLM_EFORMAT);
    ck_assert_ptr_nonnull(strstr(err.message, "id 301, but the model has 301 rows"));
    ck_assert_int_eq(open_text(&mem, text.data, text.size, 100, &t, &err), GLM_EFORMAT);
    buf_free(&text);
}
END_TEST

/* The table of tokens has an entry for each id up to the largest: a small file may not ask for 128 MiB. */
START_TEST(far_ids_cost_nothing)
{
    static const char *const far[] = {"16777215", "4194304", "1048577"};
    char added[512];
    struct fixture_small f;
    struct tok *t;
    glm_error err = GLM_ERROR_INIT;
    fixture_small_init(&f);
    for (size_t i = 0; i < ARRAY_LEN(far); i++) {
        snprintf(added, sizeof added, "[{\"id\":%s,\"content\":\"<x>\"}]", far[i]);
        f.added = added;
        mem.peak = 0;
        ck_assert_int_eq(open_small(&f, &t, &err), GLM_EFORMAT);
        ck_assert_msg(strstr(err.message, far[i]) && strstr(err.message, "beyond the limit"), "%s", err.message);
        ck_assert_uint_le(mem.peak, 16 << 20);
    }
    f.added = "[{\"id\":1048576,\"content\":\"<x>\"}]"; /* more rows than any model of the family has */
    ck_assert_int_eq(open_small(&f, &t, &err), 0);
    ck_assert_uint_le(mem.peak, 32 << 20);
    tok_close(t);
    ck_assert_uint_eq(mem.used, 0);
}
END_TEST

/* Cut anywhere, or with one byte changed: an error or a tokenizer that works, never more. */
START_TEST(damaged_files_give_errors)
{
    struct fixture_small f;
    struct buf text;
    struct tok *t;
    fixture_small_init(&f);
    buf_init(&text, &mem);
    fixture_small_print(&f, &text);
    for (size_t size = 0; size < text.size; size++) {
        glm_error err = GLM_ERROR_INIT;
        char *copy = malloc(size + 1); /* of the exact size, for the sanitizer */
        memcpy(copy, text.data, size);
        ck_assert_int_eq(open_text(&mem, copy, size, 0, &t, &err), GLM_EFORMAT);
        ck_assert_str_eq(err.where, "dir/tokenizer.json");
        ck_assert_uint_le(err.offset, size);
        free(copy);
    }
    for (size_t i = 0; i < text.size; i++) {
        char kept = text.data[i];
        text.data[i] = (char)("\"{}[],:0x\xC3\\"[i % 11]);
        if (open_text(&mem, text.data, text.size, 0, &t, NULL) == 0) {
            CHECK_ENCODE(t, "z", 0, 'z');
            tok_close(t);
        }
        text.data[i] = kept;
    }
    buf_free(&text);
    ck_assert_uint_eq(mem.used, 0);
}
END_TEST

START_TEST(foreign_documents_are_refused)
{
    static const char *const texts[] = {"", " ", "null", "[]", "{}", "7", "\"a\"", "{\"model\":7}",
        "{\"model\":[]}", "{\"model\":{}}",
        "{\"added_tokens\":[{\"id\":1,\"content\":\"<\",\"lstrip\":false}]}", "{}{}"};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct tok *t;
        ck_assert_int_eq(open_text(&mem, texts[i], strlen(texts[i]), 0, &t, NULL), GLM_EFORMAT);
        ck_assert_ptr_null(t);
    }
    struct vocab_source none = { .kind = VOCAB_NONE };
    struct tok *t;
    glm_error err = GLM_ERROR_INIT;
    ck_assert_int_eq(tok_open(&mem, &none, 0, &t, &err), GLM_ENOTSUP);
    ck_assert_ptr_nonnull(strstr(err.message, "tokenizer.json"));
    tok_close(NULL);
}
END_TEST

/* Tokens that all want the same place of the hash table, as only a crafted file has them. */
START_TEST(crafted_collisions_are_refused)
{
    enum { N = 1100, MASK = 4095 }; /* 1,356 tokens in 4,096 places */
    const struct tok shape = { .piece_mask = MASK };
    struct fixture_small f;
    struct buf more;
    struct tok *t;
    glm_error err = GLM_ERROR_INIT;
    uint32_t n = 0;
    buf_init(&more, &mem);
    for (uint64_t i = 0; n < N; i++) {
        char text[9] = { 0 };
        for (int k = 0; k < 8; k++)
            text[k] = (char)('a' + (i >> 4 * k & 15));
        if (tok_piece_slot(&shape, tok_piece_key(text, 8), 8) >= 8)
            continue;
        buf_str(&more, n ? ",\"" : "\"");
        buf_str(&more, text);
        buf_str(&more, "\":");
        buf_u64(&more, 400 + n++);
    }
    fixture_small_init(&f);
    f.vocab_more = more.data;
    f.merges = "[]";
    ck_assert_int_eq(open_small(&f, &t, &err), GLM_EFORMAT);
    ck_assert_ptr_nonnull(strstr(err.message, "collide"));
    buf_free(&more);
}
END_TEST

START_TEST(too_many_added_tokens)
{
    struct fixture_small f;
    struct buf more;
    struct tok *t;
    glm_error err = GLM_ERROR_INIT;
    buf_init(&more, &mem);
    for (uint32_t i = 0; i <= TOK_ADDED_MAX; i++) {
        buf_str(&more, i ? ",{\"id\":" : "[{\"id\":");
        buf_u64(&more, 1000 + i);
        buf_str(&more, ",\"content\":\"<");
        buf_u64(&more, i);
        buf_str(&more, ">\"}");
    }
    buf_char(&more, ']');
    fixture_small_init(&f);
    f.added = more.data;
    ck_assert_int_eq(open_small(&f, &t, &err), GLM_EFORMAT);
    ck_assert_ptr_nonnull(strstr(err.message, "added tokens"));
    buf_free(&more);
}
END_TEST

/* ---- GGUF ------------------------------------------------------------------------------------ */

/* A byte-level vocabulary without merges that apply, as small test models have. */
struct toy {
    struct vocab_source src;
    struct vocab_text tokens[262], merges[3];
    int32_t types[262];
    char spelling[256][4];
};

static void toy_init(struct toy *y)
{
    uint32_t other = 0;
    memset(y, 0, sizeof *y);
    for (uint32_t c = 0; c < 256; c++) {
        bool plain = (c >= 0x21 && c <= 0x7E) || (c >= 0xA1 && c != 0xAD);
        y->tokens[c] = (struct vocab_text){
            y->spelling[c], utf8_encode(plain ? c : 0x100 + other++, y->spelling[c])};
        y->types[c] = 1;
    }
    static const char *const more[] = { "ab", "<|user|>", "<think>", "[PAD1]", "[PAD1]", "abc" };
    static const int32_t types[] = { 1, 3, 4, 5, 5, 1 };
    for (size_t i = 0; i < ARRAY_LEN(more); i++) {
        y->tokens[256 + i] = (struct vocab_text){ more[i], strlen(more[i]) };
        y->types[256 + i] = types[i];
    }
    y->merges[0] = (struct vocab_text){ "x y", 3 };
    y->merges[1] = (struct vocab_text){ "a b", 3 };
    y->merges[2] = (struct vocab_text){ "ab c", 4 };
    y->src = (struct vocab_source){.kind = VOCAB_GGUF,
        .where = "m.gguf",
        .n_token = 262,
        .model = "gpt2",
        .pre = "chatglm-bpe",
        .tokens = y->tokens,
        .types = y->types,
        .merges = y->merges,
        .n_merge = 3};
}

START_TEST(gguf_opens)
{
    struct toy y;
    struct tok *t;
    size_t size;
    toy_init(&y);
    ck_assert_int_eq(tok_open(&mem, &y.src, 262, &t, NULL), 0);
    ck_assert_uint_eq(tok_n(t), 262);
    CHECK_ENCODE(t, "zabcxy", 0, 'z', 261, 'x', 'y');
    CHECK_ENCODE(t, "<|user|><think>", TOK_SPECIALS, 257, 258);
    ck_assert_int_eq(tok_id(t, TOK_USER), 257);
    ck_assert_int_eq(tok_id(t, TOK_THINK), 258);
    ck_assert_ptr_null(tok_bytes(t, 259, &size));
    tok_close(t);
    y.src.types = NULL; /* all normal */
    y.src.n_token = 257;
    y.src.n_merge = 0;
    y.src.merges = NULL;
    y.src.pre = "glm4";
    ck_assert_int_eq(tok_open(&mem, &y.src, 0, &t, NULL), 0);
    ck_assert_uint_eq(tok_n(t), 257);
    CHECK_ENCODE(t, "ab", 0, 256);
    CHECK_ENCODE(t, "abab", 0, 'a', 'b', 'a', 'b');
    tok_close(t);
}
END_TEST

static void check_gguf_refused(const struct toy *y, int32_t code, const char *words)
{
    struct tok *t;
    glm_error err = GLM_ERROR_INIT;
    ck_assert_int_eq(tok_open(&mem, &y->src, 0, &t, &err), code);
    ck_assert_msg(strstr(err.message, words) != NULL, "%s", err.message);
    ck_assert_str_eq(err.where, "m.gguf");
    ck_assert_ptr_null(t);
}

START_TEST(gguf_refusals)
{
    struct toy y;
    toy_init(&y), y.src.model = "llama",
                  check_gguf_refused(&y, GLM_ENOTSUP, "tokenizer.ggml.model: \"llama\"");
    toy_init(&y), y.src.model = NULL, check_gguf_refused(&y, GLM_ENOTSUP, "tokenizer.ggml.model");
    toy_init(&y), y.src.pre = "qwen2",
                  check_gguf_refused(&y, GLM_ENOTSUP, "tokenizer.ggml.pre: \"qwen2\"");
    toy_init(&y), y.src.pre = NULL, check_gguf_refused(&y, GLM_ENOTSUP, "tokenizer.ggml.pre");
    toy_init(&y), y.src.tokens = NULL, check_gguf_refused(&y, GLM_EFORMAT, "tokenizer.ggml.tokens");
    toy_init(&y), y.src.n_token = 0, check_gguf_refused(&y, GLM_EFORMAT, "tokenizer.ggml.tokens");
    toy_init(&y), y.src.merges = NULL, check_gguf_refused(&y, GLM_EFORMAT, "tokenizer.ggml.merges");
    toy_init(&y), y.types[5] = 2, check_gguf_refused(&y, GLM_ENOTSUP, "token 5 has type 2");
    toy_init(&y), y.types[5] = 6, check_gguf_refused(&y, GLM_ENOTSUP, "token 5 has type 6");
    toy_init(&y), y.types[5] = 5, check_gguf_refused(&y, GLM_EFORMAT, "no token for the byte 0x5");
    toy_init(&y), y.types[259] = 1, y.tokens[259].size = 0,
                  check_gguf_refused(&y, GLM_EFORMAT, "a token of 0 bytes");
    toy_init(&y), y.types[259] = 1, y.types[260] = 1,
                  check_gguf_refused(&y, GLM_EFORMAT, "259 and 260 are the same");
    toy_init(&y), y.merges[2].size = 2,
                  check_gguf_refused(&y, GLM_EFORMAT, "entry 2 is not \"left right\"");
    toy_init(&y), y.merges[1].size = 0,
                  check_gguf_refused(&y, GLM_EFORMAT, "entry 1 is not \"left right\"");
}
END_TEST

/* ---- memory and stack ------------------------------------------------------------------------ */

static void check_failing(const struct vocab_source *src)
{
    for (uint64_t k = 1;; k++) {
        struct failing_alloc f;
        struct mem m;
        struct tok *t;
        glm_error err = GLM_ERROR_INIT;
        failing_init(&f, k, FAIL_ONCE);
        const glm_allocator hook = failing_hook(&f);
        mem_init(&m, &hook);
        int32_t status = tok_open(&m, src, 0, &t, &err);
        bool hit = failing_hit(&f);
        ck_assert_msg(status == (hit ? GLM_ENOMEM : GLM_OK), "allocation %llu: %s",
            (unsigned long long)k, err.message);
        ck_assert((t != NULL) == !hit);
        tok_close(t);
        ck_assert_uint_eq(f.bytes, 0);
        ck_assert_uint_eq(f.n_wrong, 0);
        if (!hit) {
            ck_assert_uint_gt(k, 8);
            break;
        }
    }
}

START_TEST(opening_survives_failing_memory)
{
    struct fixture_small f;
    struct toy y;
    struct buf text;
    buf_init(&text, &mem);
    for (int first = 0; first < 2; first++) {
        fixture_small_init(&f);
        f.merges_first = first;
        f.merges = "[\"a b\",[\"\\u0062\",\"c\"],\"\\u0061b c\"]";
        buf_clear(&text);
        fixture_small_print(&f, &text);
        struct vocab_source src = { .kind = VOCAB_JSON, .json = text.data, .json_size = text.size };
        check_failing(&src);
    }
    buf_free(&text);
    toy_init(&y);
    check_failing(&y.src);
}
END_TEST

static void *open_in_thread(void *arg)
{
    *(struct tok **)arg = fixture_open(&mem, "tok_small.json");
    return NULL;
}

START_TEST(a_small_stack_is_enough)
{
    struct tok *t = NULL;
    pthread_attr_t attr;
    pthread_t thread;
    pthread_attr_init(&attr);
    ck_assert_int_eq(pthread_attr_setstacksize(&attr, 64 << 10), 0);
    ck_assert_int_eq(pthread_create(&thread, &attr, open_in_thread, &t), 0);
    pthread_join(thread, NULL);
    pthread_attr_destroy(&attr);
    ck_assert_uint_eq(tok_n(t), 3036);
    tok_close(t);
}
END_TEST

static void begin(void)
{
    mem_init(&mem, NULL);
}

static void nothing_leaks(void)
{
    ck_assert_uint_eq(mem.used, 0);
}

int main(void)
{
    Suite *suite = suite_create("tok_open");
    TCase *c = tcase_create("tok_open");
    tcase_add_checked_fixture(c, begin, nothing_leaks);
    tcase_add_test(c, small_opens_in_every_form);
    tcase_add_test(c, what_does_not_matter_is_accepted);
    tcase_add_test(c, ignore_merges_is_honoured);
    tcase_add_test(c, a_pair_listed_twice_has_the_later_rank);
    tcase_add_test(c, refusals_say_what_and_where);
    tcase_add_test(c, refusals_name_the_offset);
    tcase_add_test(c, every_byte_must_have_a_token);
    tcase_add_test(c, ids_stay_below_the_models_rows);
    tcase_add_test(c, far_ids_cost_nothing);
    tcase_add_test(c, damaged_files_give_errors);
    tcase_add_test(c, foreign_documents_are_refused);
    tcase_add_test(c, crafted_collisions_are_refused);
    tcase_add_test(c, too_many_added_tokens);
    tcase_add_test(c, gguf_opens);
    tcase_add_test(c, gguf_refusals);
    tcase_add_test(c, opening_survives_failing_memory);
    tcase_add_test(c, a_small_stack_is_enough);
    suite_add_tcase(suite, c);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
