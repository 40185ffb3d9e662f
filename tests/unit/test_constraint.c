/* test_constraint.c: grammars, walked token by token: what is accepted, refused, and where; masks against what is accepted,
 * token by token; random walks that must end in valid text; going back and forking; forced tokens; small stacks; every
 * allocation failed in turn.
 */
#include "failing_alloc.h"
#include "lib/text/constraint.h"
#include "text_data.h"
#include "tok_fixture.h"

#include <pthread.h>

static struct mem mem;
static struct tok *tok;
static struct con_vocab *vocab;
static uint32_t *bits, *other;

static void set_up(void)
{
    glm_error err = GLM_ERROR_INIT;
    mem_init(&mem, NULL);
    tok = fixture_open(&mem, "tokenizer.json");
    ck_assert_int_eq(con_vocab_open(&mem, tok, 151552, &vocab, &err), 0);
    bits = mem_zarray(&mem, con_n_word(vocab), sizeof *bits);
    other = mem_zarray(&mem, con_n_word(vocab), sizeof *other);
}

static void tear_down(void)
{
    mem_free(&mem, bits);
    mem_free(&mem, other);
    con_vocab_close(vocab);
    tok_close(tok);
    ck_assert_uint_eq(mem.used, 0);
}

/* ---- helpers --------------------------------------------------------------------------------------------------------- */

static struct con_grammar *compile_spec(struct con_spec spec, const char *json, glm_error *err)
{
    struct json_doc doc = { 0 };
    struct con_grammar *g = NULL;
    if (json != NULL)
        doc = data_json(&mem, json, strlen(json));
    if (spec.kind == CON_TURN && doc.root != NULL && doc.root->type == JSON_ARRAY)
        spec.tools = doc.root;
    else if (spec.kind == CON_CHOICE)
        spec.choices = doc.root;
    else
        spec.schema = doc.root;
    con_compile(&mem, vocab, &spec, &g, err);
    json_free(&doc); /* the grammar has a copy */
    return g;
}

static struct con_grammar *schema(const char *json)
{
    glm_error err = GLM_ERROR_INIT;
    struct con_grammar *g = compile_spec((struct con_spec){ .kind = CON_SCHEMA }, json, &err);
    ck_assert_msg(g != NULL, "%s: %s %s", json, err.where, err.message);
    return g;
}

static bool in_mask(const uint32_t *m, int32_t id)
{
    return m[id / 32] >> id % 32 & 1;
}

/* Walks as a host does; a token that the mask leaves out must be refused. */
static bool accepts(struct con_grammar *g, const char *text, uint32_t flags)
{
    glm_error err = GLM_ERROR_INIT;
    struct con_run *run;
    struct ids ids;
    bool fits = true;
    ids_init(&ids, &mem);
    ck_assert_int_eq(tok_encode(tok, text, strlen(text), flags, &ids, &err), 0);
    ck_assert_int_eq(con_open(&mem, g, &run, &err), 0);
    for (size_t i = 0; i < ids.n && fits; i++) {
        ck_assert_msg(con_mask(run, bits, &err) == 0, "%s", err.message);
        fits = in_mask(bits, ids.id[i]);
        ck_assert_int_eq(con_accept(run, ids.id[i], &err), fits ? 0 : GLM_EINVAL);
    }
    fits = fits && con_can_end(run);
    con_close(run);
    ids_free(&ids);
    return fits;
}

/* Texts after "+" must be accepted, after "-" not; NULL ends them. */
static void check_texts(struct con_grammar *g, const char *const *texts, uint32_t flags, const char *what)
{
    for (; *texts; texts++)
        ck_assert_msg(accepts(g, *texts + 1, flags) == (**texts == '+'), "%s: %s", what, *texts);
    con_release(g);
}

/* ---- JSON Schema --------------------------------------------------------------------------------------------------------- */

#define TEXTS(...) (const char *const[]){ __VA_ARGS__, NULL }
struct row {
    const char *schema;
    const char *const *texts;
};

START_TEST(schemas)
{
    const struct row rows[] = {
        { "true", TEXTS("+1", "+\"a\"", "+[1, {\"a\": null}]", "+{}", "+-1.5e-3", "-[1,]", "-{\"a\"}", "-01", "-nul", "-", "-1 2") },
        { "{\"type\": \"integer\"}", TEXTS("+0", "+-12", "+1.0", "+1e2", "+1.5e1", "-1.5", "-1.25e1", "-\"1\"", "-1e-1") },
        { "{\"$schema\": \"http://json-schema.org/draft-04/schema#\", \"type\": \"integer\"}", TEXTS("+1", "-1.0") },
        { "{\"minimum\": -2.5, \"exclusiveMaximum\": 10}",
            TEXTS("+-2.5", "+9.99", "+0", "+1e-07", "-10", "-10.0", "-1e1", "-1e+16", "-2.6e1", "+\"x\"", "--2.51", "+-0.0") },
        { "{\"multipleOf\": 0.01}", TEXTS("+1", "+0.07", "+12.50", "-0.075", "+1e300", "+0") },
        { "{\"type\": \"integer\", \"multipleOf\": 7, \"minimum\": 8, \"maximum\": 30}",
            TEXTS("+14", "+28", "-7", "-35", "-15", "+21.0") },
        { "{\"type\": \"string\", \"minLength\": 2, \"maxLength\": 3}",
            TEXTS("+\"ab\"", "+\"\\u00e9\\n\"", "+\"\xe6\x97\xa5\xe6\x9c\xac\xf0\x9f\x98\x80\"", "-\"a\"", "-\"abcd\"",
                "+\"\\ud83d\\ude00b\"", "-\"\\ud83d\\ude00\"", "-\"\\ud83d\"") },
        { "{\"pattern\": \"^a+$|b\"}", TEXTS("+\"aaa\"", "+\"xbx\"", "-\"aac\"", "+\"\\u0061\"", "+5") },
        { "{\"pattern\": \"^(?!no)[a-z]+$\"}", TEXTS("+\"yes\"", "-\"nope\"", "+\"on\"") },
        { "{\"format\": \"date\"}", TEXTS("+\"2024-02-29\"", "-\"2023-02-29\"", "-\"2024-13-01\"", "+7") },
        { "{\"format\": \"made-up\"}", TEXTS("+\"anything\"") },
        { "{\"enum\": [1, \"a\", null, {\"k\": [true]}]}",
            TEXTS("+1", "+1.0", "+\"a\"", "+null", "+{\"k\": [true]}", "-{\"k\": [false]}", "-2", "-{}", "+\"\\u0061\"") },
        { "{\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"integer\"}, \"b\": {}}, \"required\": [\"a\"]}",
            TEXTS("+{\"a\": 1}", "+{\"b\": [], \"a\": 1}", "+{\"a\":1,\"x\":2}", "-{\"b\": 1}", "-{\"a\": \"1\"}",
                "-{\"a\": 1, \"a\": 2}", "-{\"a\": 1, \"x\": 1, \"x\": 2}", "+{\"a\": 1, \"ab\": 1, \"aa\": 2}", "-{}") },
        { "{\"properties\": {\"a\": {}}, \"additionalProperties\": false}", TEXTS("+{}", "+{\"a\": 1}", "-{\"b\": 1}", "+3") },
        { "{\"patternProperties\": {\"^x\": {\"type\": \"string\"}}, \"additionalProperties\": {\"type\": \"null\"}}",
            TEXTS("+{\"x1\": \"\"}", "+{\"y\": null}", "-{\"x1\": null}", "-{\"y\": \"\"}") },
        { "{\"propertyNames\": {\"maxLength\": 1}, \"minProperties\": 2}",
            TEXTS("+{\"a\": 1, \"b\": 2}", "-{\"a\": 1}", "-{\"ab\": 1, \"c\": 2}") },
        { "{\"dependentRequired\": {\"a\": [\"b\"]}, \"maxProperties\": 2}",
            TEXTS("+{\"a\": 1, \"b\": 2}", "+{\"b\": 2, \"a\": 1}", "-{\"a\": 1}", "-{\"a\": 1, \"c\": 1}", "+{\"c\": 1}") },
        { "{\"prefixItems\": [{\"type\": \"integer\"}, {\"type\": \"string\"}], \"items\": false, \"minItems\": 1}",
            TEXTS("+[1]", "+[1, \"a\"]", "-[]", "-[\"a\"]", "-[1, \"a\", 2]") },
        { "{\"contains\": {\"const\": 1}, \"minContains\": 2, \"maxContains\": 2, \"type\": \"array\"}",
            TEXTS("+[1, 0, 1]", "-[1, 0]", "-[1, 1, 1]") },
        { "{\"properties\": {\"a\": {\"type\": \"array\", \"contains\": {\"const\": true}, \"maxContains\": 0, \"maxItems\": 3}}}",
            TEXTS("+{}", "+{\"b\": [false]}", "-{\"a\": []}", "-{\"a\": [false]}") },
        { "{\"oneOf\": [{\"multipleOf\": 3}, {\"multipleOf\": 5}]}", TEXTS("+9", "+10", "-15", "-7", "-\"a\"") },
        { "{\"oneOf\": [{\"required\": [\"a\"]}, {\"required\": [\"b\"]}]}",
            TEXTS("+{\"a\": 1}", "+{\"b\": 1, \"c\": 2}", "-{\"a\": 1, \"b\": 2}", "-{}") },
        { "{\"not\": {\"type\": \"object\", \"properties\": {\"k\": {\"const\": 1}}}}",
            TEXTS("+1", "+{\"k\": 2}", "-{\"k\": 1}", "-{}", "-{\"k\": 1.0}", "-{\"k\": 1e0}") },
        { "{\"if\": {\"properties\": {\"k\": {\"const\": \"s\"}}, \"required\": [\"k\"]}, \"then\": {\"properties\": {\"v\": "
          "{\"type\": \"string\"}}}, \"else\": {\"properties\": {\"v\": {\"type\": \"number\"}}}}",
            TEXTS("+{\"k\": \"s\", \"v\": \"x\"}", "-{\"k\": \"s\", \"v\": 1}", "+{\"v\": 1, \"k\": \"t\"}", "-{\"v\": \"x\"}") },
        { "{\"$defs\": {\"tree\": {\"type\": \"object\", \"properties\": {\"l\": {\"$ref\": \"#/$defs/tree\"}, \"v\": {\"type\": "
          "\"integer\"}}, \"required\": [\"v\"], \"additionalProperties\": false}}, \"$ref\": \"#/$defs/tree\"}",
            TEXTS("+{\"v\": 1}", "+{\"l\": {\"l\": {\"v\": 3}, \"v\": 2}, \"v\": 1}", "-{\"l\": {}, \"v\": 1}") },
        { "{\"anyOf\": [{\"$ref\": \"#/$defs/a\"}, {\"items\": {\"$ref\": \"#\"}, \"type\": \"array\"}], \"$defs\": {\"a\": "
          "{\"$anchor\": \"x\", \"type\": \"null\"}}}", TEXTS("+null", "+[[null], []]", "-[[1]]") },
        { "{\"properties\": {\"q\\\"\\n\": {\"type\": \"null\"}}, \"required\": [\"q\\\"\\n\"]}",
            TEXTS("+{\"q\\\"\\n\": null}", "-{\"q\\\"\\n\": 1}", "-{\"q\\u0022\\n\": null}") },
        { "{\"multipleOf\": 5}", TEXTS("+5", "+1e+20", "+1.5e+16", "+1e1", "-1e0", "-7e+00", "-1e+23", "-9.007199254740995e+16") },
        { "{\"multipleOf\": 1}", TEXTS("+9007199254740991.0", "+1.2345678901234567e+19", "+0", "-1.5", "-1.25e1") },
        { "{\"type\": \"integer\", \"multipleOf\": 0.5}", TEXTS("+3", "+1.2345678901234567e+19", "-0.5") },
        { "{\"minimum\": 1}", TEXTS("+9007199254740991.0", "+9007199254740994.0", "+9007199254740993", "-0.5") },
        { "{\"enum\": [0.05, -300, 1200000]}",
            TEXTS("+0.05", "+5e-2", "+5.0e-02", "+0.050", "+-300.0", "+-3e2", "+-3e+02", "+1.2e6", "+1.20e+06", "+1200000", "-300",
                "-1.2e5", "-0.5", "-0.051", "-5e2", "-3e-2", "-12e5") },
        { "{\"not\": {\"enum\": [12, 0.5]}}", TEXTS("+13", "+\"12\"", "+5e1", "-12", "-12.0", "-1.2e1", "-0.50", "-5e-1") },
        { "{\"not\": {\"properties\": {\"a\": {}}, \"additionalProperties\": false}}",
            TEXTS("+{\"b\": 1}", "+{\"a\": 1, \"b\": 1}", "-{\"a\": 1}", "-{}", "-3") },
        { "{\"not\": {\"const\": {\"a\": 1.5}}}",
            TEXTS("+{\"a\": 2}", "+{}", "+{\"a\": 1.5, \"b\": 1}", "+1.5", "-{\"a\": 1.5}", "-{\"a\": 15e-1}", "-{\"a\": 1.50}") },
        { "{\"oneOf\": [{\"enum\": [{\"q\": false, \"a1\": 1.0}]}, {}]}", TEXTS("+{}", "+{\"q\": false}", "-{\"q\": false, \"a1\": 1.0}") },
        { "{\"pattern\": \"^(a{1,3}){2,4}$\"}", TEXTS("+\"aa\"", "+\"aaaaaaaaaaaa\"", "-\"a\"", "-\"aaaaaaaaaaaaa\"") },
        { "{\"pattern\": \"^(a{3}){0,2}$\"}", TEXTS("+\"\"", "+\"aaa\"", "+\"aaaaaa\"", "-\"aaaa\"", "-\"aaaaaaaaa\"") },
        { "{\"pattern\": \"^(a{2,}){0,2}$\"}", TEXTS("+\"\"", "+\"aa\"", "+\"aaaaa\"", "-\"a\"") },
        { "{\"pattern\": \"^((a?){2}){3}$\"}", TEXTS("+\"\"", "+\"aaaaaa\"", "-\"aaaaaaa\"") },
        { "{\"pattern\": \"[a-z]{20}x\"}", TEXTS("+\"AAabcdefghijklmnopqrstxAA\"", "-\"abcdefghijklmnopqrsx\"", "-\"AA\"") },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        check_texts(schema(rows[i].schema), rows[i].texts, 0, rows[i].schema);
}
END_TEST

START_TEST(refusals)
{
    static const struct {
        const char *schema, *where;
        int32_t code;
    } rows[] = {
        { "{\"properties\": {\"a\": {\"items\": {\"pattern\": \"(a)\\\\1\"}}}}", "/properties/a/items/pattern", GLM_ESCHEMA },
        { "{\"properties\": {\"a/b\": {\"$ref\": \"#/$defs/none\"}}}", "/properties/a~1b/$ref", GLM_ESCHEMA },
        { "{\"unevaluatedProperties\": false}", "/unevaluatedProperties", GLM_ESCHEMA },
        { "{\"items\": [true, {\"type\": \"strange\"}]}", "/items/1/type", GLM_ESCHEMA },
        { "{\"allOf\": [{\"minLength\": -1}]}", "/allOf/0/minLength", GLM_ESCHEMA },
        { "{\"$ref\": \"#\"}", "", GLM_ESCHEMA },
        { "false", "", GLM_ESCHEMA },
        { "{\"type\": \"object\", \"required\": [\"a\"], \"properties\": {\"a\": false}}", "", GLM_ESCHEMA },
        { "{\"type\": \"array\", \"items\": {\"type\": \"string\"}, \"uniqueItems\": true}", "", GLM_ESCHEMA },
        { "{\"type\": \"array\", \"contains\": {\"const\": true}, \"maxContains\": 0}", "", GLM_ESCHEMA },
        { "[]", "", GLM_ESCHEMA },
        { "{\"properties\": {\"h\": {\"format\": \"hostname\"}}}", "/properties/h/format", GLM_ESCHEMA },
        { "{\"pattern\": \"\\\\p{L}{1000}\"}", "/pattern", GLM_ELIMIT },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        glm_error err = GLM_ERROR_INIT;
        struct con_grammar *g = compile_spec((struct con_spec){ .kind = CON_SCHEMA }, rows[i].schema, &err);
        ck_assert_msg(g == NULL, "%s", rows[i].schema);
        ck_assert_msg(err.code == rows[i].code && strcmp(err.where, rows[i].where) == 0 && err.message[0], "%s: %d %s %s",
            rows[i].schema, err.code, err.where, err.message);
    }
}
END_TEST

START_TEST(other_kinds)
{
    glm_error err = GLM_ERROR_INIT;
    struct con_grammar *g = compile_spec((struct con_spec){ .kind = CON_REGEX, .regex = "a+b?|^$", .regex_size = 7 }, NULL, &err);
    check_texts(g, TEXTS("+aab", "+", "+a", "-b", "-aabb"), 0, "regex");
    g = compile_spec((struct con_spec){ .kind = CON_CHOICE }, "[\"yes\", \"no\", \"nope\"]", &err);
    check_texts(g, TEXTS("+yes", "+no", "+nope", "-nop", "-", "-yesno"), 0, "choice");
    g = compile_spec((struct con_spec){ .kind = CON_OBJECT }, NULL, &err);
    check_texts(g, TEXTS("+{}", "+{\"a\": [1]}", "-[]", "-1"), 0, "object");
    g = compile_spec((struct con_spec){ .kind = CON_VALUE }, NULL, &err);
    check_texts(g, TEXTS("+{}", "+1", "-x"), 0, "value");
}
END_TEST

/* ---- turns ------------------------------------------------------------------------------------------------------------------ */

static const char tools[] =
    "[{\"type\": \"function\", \"function\": {\"name\": \"look\", \"parameters\": {\"type\": \"object\", \"properties\": {"
    "\"city\": {\"type\": \"string\", \"minLength\": 1}, \"days\": {\"type\": \"integer\", \"maximum\": 7}, \"unit\": {\"enum\": "
    "[\"c\", \"f\"]}, \"id\": {\"type\": [\"string\", \"integer\"]}, \"any\": {}, \"o\": {\"type\": \"object\", \"required\": "
    "[\"x\"], \"properties\": {\"x\": {\"type\": \"number\"}}}}, \"required\": [\"city\"]}}},"
    " {\"name\": \"looks\", \"parameters\": {\"type\": \"object\", \"properties\": {}, \"additionalProperties\": {\"type\": "
    "\"boolean\"}}}, {\"name\": \"stop\"}]";

/* A call's spelling: name, then key and value pairs, NULL. */
static char *call(bool old, const char *const *part)
{
    struct buf b;
    buf_init(&b, &mem);
    buf_str(&b, "<tool_call>");
    buf_str(&b, *part++);
    buf_str(&b, old ? "\n" : "");
    for (; *part; part += 2) {
        buf_str(&b, "<arg_key>");
        buf_str(&b, part[0]);
        buf_str(&b, old ? "</arg_key>\n<arg_value>" : "</arg_key><arg_value>");
        buf_str(&b, part[1]);
        buf_str(&b, old ? "</arg_value>\n" : "</arg_value>");
    }
    buf_str(&b, "</tool_call>");
    return b.data;
}

static const struct {
    bool fits;
    const char *part[8];
} calls[] = {
    { true, { "look", "city", "Oslo \"x\"\n<b> {" } },
    { true, { "look", "days", "3", "city", "Oslo" } },
    { true, { "look", "city", "a", "o", "{\"x\": 1.5, \"y\": [\"</arg>\"]}" } },
    { true, { "look", "city", "a", "id", "12", "any", "[1]" } },
    { true, { "look", "city", "a", "id", "12a", "any", "words" } },
    { true, { "looks", "p", "true", "q", "false" } },
    { true, { "stop" } },
    { false, { "look" } },
    { false, { "look", "city", "" } },
    { false, { "look", "city", "a", "city", "b" } },
    { false, { "look", "city", "a", "days", "8" } },
    { false, { "look", "city", "a", "days", "\"3\"" } },
    { false, { "look", "city", "a", "unit", "\"c\"" } },
    { false, { "look", "city", "a", "id", "1.5" } },
    { false, { "look", "city", "a", "id", " 12 " } },
    { false, { "look", "city", "a", "any", "[1" } },
    { false, { "look", "city", "a", "other", "1" } },
    { false, { "looks", "p", "true", "p", "false" } },
    { false, { "looks", " p", "true" } },
    { false, { "loo", "city", "a" } },
    { false, { "stop", "a", "1" } },
};

START_TEST(turns)
{
    for (int old = 0; old < 2; old++) {
        glm_error err = GLM_ERROR_INIT;
        struct con_spec spec = { .kind = CON_TURN, .family = old ? CHAT_45 : CHAT_47, .may_think = true };
        struct con_grammar *g = compile_spec(spec, tools, &err);
        ck_assert_msg(g != NULL, "%s %s", err.where, err.message);
        for (size_t i = 0; i < ARRAY_LEN(calls); i++) {
            char *text = call(old, calls[i].part);
            ck_assert_msg(accepts(g, text, TOK_SPECIALS) == calls[i].fits, "%d %s", old, text);
            mem_free(&mem, text);
        }
        check_texts(g, TEXTS("+", "+hello {", "+<think>hm</think>hello", "+<think>hm", "-</tool_call>"), TOK_SPECIALS, "free");
    }
}
END_TEST

START_TEST(choices)
{
    static const char stop[] = "+<tool_call>stop</tool_call>", no_stop[] = "-<tool_call>stop</tool_call>";
    glm_error err = GLM_ERROR_INIT;
    struct con_spec spec = { .kind = CON_TURN, .family = CHAT_47, .choice = CON_NONE };
    check_texts(compile_spec(spec, tools, &err), TEXTS("+hello", no_stop), TOK_SPECIALS, "none");
    spec.choice = CON_REQUIRED;
    check_texts(compile_spec(spec, tools, &err), TEXTS("-hello", stop, "-hi<tool_call>stop</tool_call>there", "+<tool_call>stop</tool_call>there"), TOK_SPECIALS,
        "required");
    spec.choice = CON_NAMED;
    spec.name = "looks";
    spec.name_size = 5;
    check_texts(compile_spec(spec, tools, &err), TEXTS(no_stop, "+<tool_call>looks</tool_call>", "-hello"), TOK_SPECIALS, "named");
    spec.name = "none";
    spec.name_size = 4;
    ck_assert_ptr_null(compile_spec(spec, tools, &err));
    ck_assert_int_eq(err.code, GLM_ESCHEMA);
    ck_assert_ptr_null(compile_spec((struct con_spec){ .kind = CON_TURN, .family = CHAT_47 },
        "[{\"name\": \"a\"}, {\"name\": \"b\", \"parameters\": {\"properties\": {\"x\": {\"pattern\": \"[\"}}}}]", &err));
    ck_assert_str_eq(err.where, "/1/parameters/properties/x/pattern");
}
END_TEST

START_TEST(answers)
{
    glm_error err = GLM_ERROR_INIT;
    struct con_spec spec = { .kind = CON_TURN, .family = CHAT_45, .may_think = true };
    struct con_grammar *g = compile_spec(spec, "{\"type\": \"integer\"}", &err);
    check_texts(g, TEXTS("+1", "+\n<think>\nso</think>\n12", "+<think></think>3", "-<think>so</think>x", "-one", "-<think>1"),
        TOK_SPECIALS, "answer");
    spec.in_thought = true;
    g = compile_spec(spec, "{\"type\": \"integer\"}", &err);
    check_texts(g, TEXTS("+so</think>1", "-1", "-so</think>\"1\""), TOK_SPECIALS, "in thought");
}
END_TEST

/* ---- masks ---------------------------------------------------------------------------------------------------------------------- */

/* Every token of the vocabulary: it is in the mask if and only if it is accepted, and leaves the run where it was. */
static void check_mask(struct con_run *run)
{
    glm_error err = GLM_ERROR_INIT;
    size_t n = con_n_token(run);
    ck_assert_int_eq(con_mask(run, other, &err), 0);
    for (uint32_t id = 0; id < 32 * con_n_word(vocab); id++) {
        int32_t rc = con_accept(run, (int32_t)id, &err);
        ck_assert_msg((rc == 0) == in_mask(other, (int32_t)id), "token %u after %zu: %d", id, n, rc);
        ck_assert(rc == 0 || rc == GLM_EINVAL);
        con_rewind(run, n);
        ck_assert_uint_eq(con_n_token(run), n);
    }
}

static void walk_and_check(struct con_grammar *g, const char *text, uint32_t flags)
{
    glm_error err = GLM_ERROR_INIT;
    struct con_run *run;
    struct ids ids;
    ids_init(&ids, &mem);
    ck_assert_int_eq(tok_encode(tok, text, strlen(text), flags, &ids, &err), 0);
    ck_assert_int_eq(con_open(&mem, g, &run, &err), 0);
    for (size_t i = 0; i < ids.n; i++) {
        check_mask(run);
        ck_assert_int_eq(con_accept(run, ids.id[i], &err), 0);
    }
    check_mask(run);
    con_close(run);
    con_release(g);
    ids_free(&ids);
}

START_TEST(masks_say_what_is_accepted)
{
    glm_error err = GLM_ERROR_INIT;
    walk_and_check(schema("{\"properties\": {\"name\": {\"type\": \"string\", \"maxLength\": 6}, \"named\": {\"pattern\": \"^[a-z]+$\"}},"
                          " \"required\": [\"name\"]}"),
        "{\"name\": \"ab\", \"x\": 1,", 0);
    walk_and_check(schema("{\"type\": \"array\", \"items\": {\"anyOf\": [{\"type\": \"integer\", \"maximum\": 50}, {\"enum\": [\"a b\", "
                          "\"a\"]}]}, \"maxItems\": 2}"),
        "[12, \"a\"", 0);
    walk_and_check(compile_spec((struct con_spec){ .kind = CON_TURN, .family = CHAT_45 }, tools, &err),
        "<tool_call>look\n<arg_key>city</arg_key>\n<arg_value>a", TOK_SPECIALS);
}
END_TEST

static uint64_t draw(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

/* A token of the mask, the shorter the likelier. */
static int32_t pick(uint64_t *seed)
{
    int32_t best = -1;
    size_t best_size = 1000;
    for (uint32_t tries = 0; tries < 4000; tries++) {
        int32_t id = (int32_t)(draw(seed) % (32ull * con_n_word(vocab)));
        size_t size = 1000;
        if (!in_mask(bits, id))
            continue;
        tok_bytes(tok, id, &size);
        if (best < 0 || size < best_size) {
            best = id;
            best_size = size;
        }
    }
    for (uint32_t id = 0; best < 0 && id < 32 * con_n_word(vocab); id++)
        best = in_mask(bits, (int32_t)id) ? (int32_t)id : -1;
    return best;
}

/* Walks that the mask leads never come to a dead end, and calls come out whole. */
START_TEST(random_turns)
{
    for (uint64_t round = 1; round <= 8; round++) {
        glm_error err = GLM_ERROR_INIT;
        struct con_spec spec = { .kind = CON_TURN, .family = round % 2 ? CHAT_45 : CHAT_47, .choice = CON_REQUIRED };
        struct con_grammar *g = compile_spec(spec, tools, &err);
        struct json_doc doc = data_json(&mem, tools, strlen(tools));
        struct tool_types *types;
        struct stream *s;
        struct stream_text turn;
        struct con_run *run;
        uint64_t seed = round * 0x9E3779B97F4A7C15u;
        ck_assert_int_eq(tool_types_open(&mem, doc.root, &types, &err), 0);
        ck_assert_int_eq(stream_open(&mem, tok, types, spec.family, false, &s, &err), 0);
        stream_text_init(&turn, &mem);
        struct stream_sink sink = stream_text_sink(&turn);
        ck_assert_int_eq(con_open(&mem, g, &run, &err), 0);
        int32_t id = tok_id(tok, TOK_TOOL_CALL);
        for (uint32_t n = 0; n < 400 && !con_can_end(run); n++) {
            ck_assert_int_eq(con_mask(run, bits, &err), 0);
            if (n > 0) {
                id = pick(&seed);
                for (int k = TOK_TOOL_CALL_END; k <= TOK_ARG_VALUE_END; k++) /* an end, where there is one */
                    if ((k == TOK_TOOL_CALL_END || k == TOK_ARG_VALUE_END) && n > 60 &&
                        in_mask(bits, tok_id(tok, (enum tok_special)k)))
                        id = tok_id(tok, (enum tok_special)k);
            }
            ck_assert_msg(id >= 0, "a dead end");
            ck_assert_int_eq(con_accept(run, id, &err), 0);
            ck_assert_int_eq(stream_put(s, id, &sink, &err), 0);
        }
        if (con_can_end(run)) {
            ck_assert_uint_eq(turn.n_call, 1);
            ck_assert_uint_eq(stream_n_cut(s), 0);
        }
        con_close(run);
        con_release(g);
        stream_close(s);
        stream_text_free(&turn);
        tool_types_close(types);
        json_free(&doc);
    }
}
END_TEST

START_TEST(forks_and_rewinds)
{
    static const char text[] = "{\"a\": [1, 2], \"b\": \"xyz\"}";
    glm_error err = GLM_ERROR_INIT;
    struct con_grammar *g = schema("{\"properties\": {\"a\": {\"type\": \"array\"}, \"b\": {\"maxLength\": 5}}}");
    struct con_run *run, *fork;
    struct ids ids;
    ids_init(&ids, &mem);
    ck_assert_int_eq(tok_encode(tok, text, strlen(text), 0, &ids, &err), 0);
    ck_assert_int_eq(con_open(&mem, g, &run, &err), 0);
    con_release(g); /* the run holds it */
    for (size_t i = 0; i < ids.n; i++)
        ck_assert_int_eq(con_accept(run, ids.id[i], &err), 0);
    for (size_t n = ids.n; n-- > 0;) { /* back one by one, and from there on again in a fork */
        con_rewind(run, n);
        ck_assert_int_eq(con_fork(run, &fork, &err), 0);
        ck_assert_int_eq(con_mask(run, bits, &err), 0);
        ck_assert_int_eq(con_mask(fork, other, &err), 0);
        ck_assert_int_eq(memcmp(bits, other, con_n_word(vocab) * sizeof *bits), 0);
        for (size_t i = n; i < ids.n; i++)
            ck_assert_int_eq(con_accept(fork, ids.id[i], &err), 0);
        ck_assert(con_can_end(fork) && !con_can_end(run));
        con_close(fork);
    }
    con_close(run);
    ids_free(&ids);
}
END_TEST

/* ---- what must not hurt --------------------------------------------------------------------------------------------------------- */

static void *on_small_stack(void *arg)
{
    static const char *const hostile[] = { "{\"pattern\": \"((a{0,1000}){0,1000}){0,1000}\"}", "{\"pattern\": \"^(a|b)*a(a|b){200}$\"}",
        "{\"type\": \"array\", \"minItems\": 1000000000}", "{\"multipleOf\": 1000003, \"minimum\": 5, \"maximum\": 1000000}" };
    glm_error err = GLM_ERROR_INIT;
    struct buf deep;
    buf_init(&deep, &mem);
    for (int kind = 0; kind < 4; kind++) {
        static const char *const open[] = { "{\"allOf\": [", "{\"not\": ", "{\"items\": ", "{\"properties\": {\"a\": " };
        static const char *const close[] = { "]}", "}", "}", "}}" };
        buf_clear(&deep);
        for (int i = 0; i < 100; i++)
            buf_str(&deep, open[kind]);
        buf_str(&deep, "{\"oneOf\": [{\"minimum\": 3}, {\"type\": \"string\"}]}");
        for (int i = 0; i < 100; i++)
            buf_str(&deep, close[kind]);
        con_release(compile_spec((struct con_spec){ .kind = CON_SCHEMA }, deep.data, &err));
    }
    for (size_t i = 0; i < ARRAY_LEN(hostile); i++) {
        struct con_grammar *g = compile_spec((struct con_spec){ .kind = CON_SCHEMA }, hostile[i], &err);
        struct con_run *run = NULL;
        if (g != NULL && con_open(&mem, g, &run, &err) == 0)
            con_mask(run, bits, &err);
        con_close(run);
        con_release(g);
    }
    buf_free(&deep);
    *(bool *)arg = true;
    return NULL;
}

#ifdef __SANITIZE_ADDRESS__
#define SMALL_STACK (256u << 10) /* its frames are several times as large */
#else
#define SMALL_STACK (64u << 10)
#endif

START_TEST(small_stack)
{
    bool done = false;
    pthread_attr_t attr;
    pthread_t thread;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, SMALL_STACK);
    ck_assert_int_eq(pthread_create(&thread, &attr, on_small_stack, &done), 0);
    pthread_join(thread, NULL);
    pthread_attr_destroy(&attr);
    ck_assert(done);
}
END_TEST

START_TEST(limits)
{
    const struct con_limits tight[] = { { .bytes = 20000 }, { .states = 40 }, { .work = 60 } };
    for (size_t i = 0; i < ARRAY_LEN(tight); i++) {
        glm_error err = GLM_ERROR_INIT;
        struct con_spec spec = { .kind = CON_SCHEMA, .limits = &tight[i] };
        ck_assert_ptr_null(compile_spec(spec, "{\"pattern\": \"^(a|b)*c[0-9]{3}x?y?z?$\", \"minimum\": 12.5, \"maximum\": 99}", &err));
        ck_assert_int_eq(err.code, GLM_ELIMIT);
    }
}
END_TEST

static void walk_ids(struct con_run *run, const struct ids *ids)
{
    glm_error err = GLM_ERROR_INIT;
    for (size_t i = 0; i < ids->n; i++) {
        ck_assert_int_eq(con_mask(run, bits, &err), 0);
        ck_assert_int_eq(con_accept(run, ids->id[i], &err), 0);
    }
}

/* Once a grammar has seen its states and a run its lengths. */
START_TEST(no_allocation_once_warm)
{
    static const char json[] = "{\"type\": \"object\", \"properties\": {\"a\": {\"type\": \"array\", \"items\": {\"type\": "
                               "\"string\"}}, \"b\": {\"type\": \"integer\", \"minimum\": 3}}, \"required\": [\"a\"]}";
    static const char text[] = "{\"a\": [\"one two\", \"\\u00e9\", \"\xe6\x97\xa5\"], \"b\": 1234, \"other\": {\"c\": [null]}}";
    struct failing_alloc f;
    struct mem m;
    glm_error err = GLM_ERROR_INIT;
    struct con_grammar *g = NULL;
    struct con_run *run = NULL;
    struct ids ids;
    failing_init(&f, 0, FAIL_ONCE);
    const glm_allocator hook = failing_hook(&f);
    mem_init(&m, &hook);
    ids_init(&ids, &mem);
    struct json_doc doc = data_json(&mem, json, strlen(json));
    struct con_spec spec = { .kind = CON_SCHEMA, .schema = doc.root };
    ck_assert_int_eq(con_compile(&m, vocab, &spec, &g, &err), 0);
    ck_assert_int_eq(con_open(&m, g, &run, &err), 0);
    ck_assert_int_eq(tok_encode(tok, text, strlen(text), 0, &ids, &err), 0);
    uint64_t before = f.n_alloc;
    walk_ids(run, &ids);
    ck_assert_uint_gt(f.n_alloc, before);
    con_rewind(run, 0);
    before = f.n_alloc;
    walk_ids(run, &ids);
    ck_assert_uint_eq(f.n_alloc, before);
    con_close(run);
    con_release(g);
    ids_free(&ids);
    json_free(&doc);
    ck_assert_uint_eq(f.bytes, 0);
}
END_TEST

static int32_t compile_and_walk(struct mem *m)
{
    static const char json[] = "[{\"name\": \"f\", \"parameters\": {\"type\": \"object\", \"properties\": {\"a\": {\"anyOf\": [{\"type\": "
                               "\"array\", \"items\": {\"pattern\": \"^x\"}}, {\"type\": \"integer\", \"minimum\": 3}]}}}}]";
    glm_error err = GLM_ERROR_INIT;
    struct json_doc doc = data_json(&mem, json, strlen(json));
    struct con_spec spec = { .kind = CON_TURN, .family = CHAT_47, .tools = doc.root };
    struct con_grammar *g = NULL;
    struct con_run *run = NULL, *fork = NULL;
    struct ids ids;
    ids_init(&ids, &mem);
    tok_encode(tok, "<tool_call>f<arg_key>a</arg_key><arg_value>[\"xy\"]</arg_value></tool_call>", 74, TOK_SPECIALS, &ids, &err);
    int32_t rc = con_compile(m, vocab, &spec, &g, &err);
    if (!rc)
        rc = con_open(m, g, &run, &err);
    for (size_t i = 0; i < ids.n && !rc; i++) {
        rc = con_mask(run, bits, &err);
        if (!rc)
            rc = con_accept(run, ids.id[i], &err);
        if (rc)
            ck_assert_uint_eq(con_n_token(run), i);
    }
    if (!rc)
        rc = con_fork(run, &fork, &err);
    con_close(fork);
    con_close(run);
    con_release(g);
    ids_free(&ids);
    json_free(&doc);
    return rc;
}

START_TEST(failing_allocations)
{
    uint64_t k = 1;
    for (;; k += k > 40 ? 7 : 1) { /* the first ones all, then one in seven: both parities come by */
        struct failing_alloc f;
        struct mem m;
        failing_init(&f, k, k % 2 ? FAIL_ONCE : FAIL_FROM_THEN_ON);
        const glm_allocator hook = failing_hook(&f);
        mem_init(&m, &hook);
        int32_t rc = compile_and_walk(&m);
        ck_assert_uint_eq(f.bytes, 0);
        ck_assert_uint_eq(f.n_wrong, 0);
        if (!failing_hit(&f)) {
            ck_assert_int_eq(rc, 0);
            break;
        }
        ck_assert_msg(rc == GLM_ENOMEM, "allocation %llu: %d", (unsigned long long)k, rc);
    }
    ck_assert_uint_gt(k, 20);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("constraint");
    TCase *c = tcase_create("grammars");
    tcase_add_unchecked_fixture(c, set_up, tear_down);
    tcase_set_timeout(c, 240);
    tcase_add_test(c, schemas);
    tcase_add_test(c, refusals);
    tcase_add_test(c, other_kinds);
    tcase_add_test(c, turns);
    tcase_add_test(c, choices);
    tcase_add_test(c, answers);
    tcase_add_test(c, masks_say_what_is_accepted);
    tcase_add_test(c, random_turns);
    tcase_add_test(c, forks_and_rewinds);
    tcase_add_test(c, small_stack);
    tcase_add_test(c, limits);
    tcase_add_test(c, no_allocation_once_warm);
    tcase_add_test(c, failing_allocations);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
