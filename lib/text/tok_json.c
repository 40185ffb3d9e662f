/* tok_json.c: reads a tokenizer.json into a tok_build, by events, because the file has a million
 * values. What is not the family's pipeline is refused by name: a tokenizer that is almost right
 * gives almost right answers. `truncation` and `padding` are wishes of whoever saved the file, not
 * part of the vocabulary, and are passed over.
 */
#include "tok_int.h"

#define ID_ALWAYS (1u << 20) /* an id that any file may have: many times the family's largest */

struct reading {
    struct tok_build *b;
    struct mem *mem;
    struct json_reader r;
    struct buf content;           /* a copy of what the next event would take away */
    uint64_t base;                /* of the reader's text in the file */
    size_t merges_at, merges_end; /* merges that came before the vocabulary; 0: none */
    bool type, vocab, merges, pre_tokenizer, decoder; /* seen */
};

static int32_t bad(const struct reading *in, glm_error *err, const char *place, const char *what)
{
    uint64_t offset = in->base + in->r.value.offset;
    return err_set(err, GLM_EFORMAT, offset, in->b->where, "%s: %s (at byte %llu)", place, what,
        (unsigned long long)offset);
}

/* name: what the file has. */
static int32_t unknown(
    const struct reading *in, glm_error *err, uint64_t offset, const char *place, const char *name)
{
    return err_set(err, GLM_ENOTSUP, offset, in->b->where,
        "%s: \"%s\" is not what the GLM-4.5 family has", place, name);
}

static bool key_is(const struct json_reader *r, const char *key)
{
    return r->value.size == strlen(key) && !memcmp(r->value.text, key, r->value.size);
}

/* The next event if it is not an error; else a status. err is not NULL. */
static int32_t next(struct reading *in, enum json_event *event, glm_error *err)
{
    *event = json_reader_next(&in->r, err);
    return *event == JSON_EV_ERROR ? err->code : GLM_OK;
}

static int32_t skip(struct reading *in, glm_error *err)
{
    return json_reader_skip(&in->r, err) ? GLM_OK : err->code;
}

static int32_t open_container(
    struct reading *in, enum json_type type, const char *place, glm_error *err)
{
    enum json_event event;
    int32_t status = next(in, &event, err);
    if (status)
        return status;
    if (event != JSON_EV_OPEN || in->r.value.type != type)
        return bad(in, err, place, type == JSON_OBJECT ? "must be an object" : "must be an array");
    return GLM_OK;
}

/* ---- small parts, as trees ------------------------------------------------------------------- */

/* The value that comes, as a document whose offsets begin at *base. */
static int32_t read_tree(struct reading *in, struct json_doc *doc, uint64_t *base, glm_error *err)
{
    enum json_event event;
    int32_t status = next(in, &event, err);
    if (status)
        return status;
    *base = in->r.value.offset;
    if (event == JSON_EV_OPEN && (status = skip(in, err)))
        return status;
    return json_parse(in->mem, in->r.text + *base, in->r.pos - *base, 0, in->b->where, doc, err);
}

static const char *type_name(const struct json *v)
{
    const struct json *type = json_get(v, "type");
    return type && type->type == JSON_STRING ? type->text : "(no type)";
}

static bool has_type(const struct json *v, const char *type)
{
    const struct json *t = json_get(v, "type");
    return t && json_is_text(t, type);
}

static bool is_false(const struct json *object, const char *key)
{
    const struct json *v = json_get(object, key);
    return v && v->type == JSON_FALSE;
}

static int32_t check_split(
    const struct reading *in, const struct json *v, uint64_t base, glm_error *err)
{
    const char *place = "/pre_tokenizer/pretokenizers/0";
    const struct json *behavior = json_get(v, "behavior"),
                      *pattern = json_get(json_get(v, "pattern"), "Regex");
    if (!has_type(v, "Split"))
        return unknown(in, err, base + v->offset, place, type_name(v));
    if (!behavior || !json_is_text(behavior, "Isolated") || !is_false(v, "invert"))
        return unknown(in, err, base + v->offset, place, "Split other than Isolated, not inverted");
    if (!pattern || pattern->type != JSON_STRING)
        return unknown(in, err, base + v->offset, place, "Split without a Regex");
    if (!json_is_text(pattern, tok_pattern))
        return unknown(in, err, base + pattern->offset,
            "/pre_tokenizer/pretokenizers/0/pattern/Regex", pattern->text);
    return GLM_OK;
}

static int32_t check_pre_tokenizer(
    const struct reading *in, const struct json *root, uint64_t base, glm_error *err)
{
    const struct json *list = json_get(root, "pretokenizers"),
                      *split = list ? json_first(list) : NULL;
    if (!has_type(root, "Sequence"))
        return unknown(in, err, base, "/pre_tokenizer", type_name(root));
    if (!list || list->type != JSON_ARRAY || list->count != 2)
        return unknown(
            in, err, base, "/pre_tokenizer", "a Sequence other than Split and ByteLevel");
    int32_t status = check_split(in, split, base, err);
    const struct json *bytes = json_next(list, split);
    if (!status && !has_type(bytes, "ByteLevel"))
        status = unknown(
            in, err, base + bytes->offset, "/pre_tokenizer/pretokenizers/1", type_name(bytes));
    if (!status && (!is_false(bytes, "add_prefix_space") || !is_false(bytes, "use_regex")))
        status = unknown(in, err, base + bytes->offset, "/pre_tokenizer/pretokenizers/1",
            "ByteLevel with add_prefix_space or use_regex");
    return status;
}

/* ByteLevel only moves offsets; anything else would add tokens. */
static int32_t check_post_processor(
    const struct reading *in, const struct json *root, uint64_t base, glm_error *err)
{
    const struct json *list = json_get(root, "processors");
    if (root->type == JSON_NULL || has_type(root, "ByteLevel"))
        return GLM_OK;
    if (!has_type(root, "Sequence") || !list)
        return unknown(in, err, base, "/post_processor", type_name(root));
    for (const struct json *v = json_first(list); v; v = json_next(list, v))
        if (!has_type(v, "ByteLevel"))
            return unknown(in, err, base + v->offset, "/post_processor/processors", type_name(v));
    return GLM_OK;
}

enum part { PART_NORMALIZER, PART_PRE_TOKENIZER, PART_POST_PROCESSOR, PART_DECODER };

static int32_t read_part(struct reading *in, enum part part, glm_error *err)
{
    struct json_doc doc = { 0 };
    uint64_t base = 0;
    int32_t status = read_tree(in, &doc, &base, err);
    if (status)
        return status;
    switch (part) {
    case PART_NORMALIZER:
        if (doc.root->type != JSON_NULL)
            status = unknown(in, err, base, "/normalizer", type_name(doc.root));
        break;
    case PART_PRE_TOKENIZER:
        in->pre_tokenizer = true;
        status = check_pre_tokenizer(in, doc.root, base, err);
        break;
    case PART_POST_PROCESSOR:
        status = check_post_processor(in, doc.root, base, err);
        break;
    case PART_DECODER:
        in->decoder = true;
        if (!has_type(doc.root, "ByteLevel"))
            status = unknown(in, err, base, "/decoder", type_name(doc.root));
        break;
    }
    json_free(&doc);
    return status;
}

/* ---- added tokens ---------------------------------------------------------------------------- */

/* One member of an added token behind its key. */
static int32_t read_added_member(
    struct reading *in, uint64_t *id, bool *has_id, bool *has_content, glm_error *err)
{
    static const char *const flags[] = { "single_word", "lstrip", "rstrip", "normalized" };
    struct json_reader *r = &in->r;
    enum json_event event;
    bool is_id = key_is(r, "id"), is_content = key_is(r, "content");
    const char *flag = NULL;
    for (size_t i = 0; i < ARRAY_LEN(flags); i++)
        if (key_is(r, flags[i]))
            flag = flags[i];
    if (!is_id && !is_content && !flag)
        return skip(in, err);
    int32_t status = next(in, &event, err);
    if (status)
        return status;
    if (flag && r->value.type == JSON_TRUE)
        return unknown(in, err, r->value.offset, "/added_tokens", flag);
    if (flag && r->value.type != JSON_FALSE)
        return bad(in, err, "/added_tokens", "a flag must be true or false");
    if (is_id && !(*has_id = event == JSON_EV_VALUE && json_u64(&r->value, id)))
        return bad(in, err, "/added_tokens", "an id must be a whole number");
    if (is_content) {
        if (r->value.type != JSON_STRING)
            return bad(in, err, "/added_tokens", "content must be a string");
        buf_clear(&in->content);
        buf_put(&in->content, r->value.text, r->value.size);
        *has_content = true;
    }
    return GLM_OK;
}

static int32_t read_added_token(struct reading *in, glm_error *err)
{
    enum json_event event;
    uint64_t id = 0, offset = in->r.value.offset;
    bool has_id = false, has_content = false;
    for (;;) {
        int32_t status = next(in, &event, err);
        if (status)
            return status;
        if (event == JSON_EV_CLOSE)
            break;
        status = read_added_member(in, &id, &has_id, &has_content, err);
        if (status)
            return status;
    }
    if (in->content.failed)
        return err_nomem(err, "an added token");
    if (!has_id || !has_content)
        return bad(in, err, "/added_tokens", "a token without id or content");
    return tok_build_added(
        in->b, id, in->content.data, in->content.size, offset, "/added_tokens", err);
}

static int32_t read_added(struct reading *in, glm_error *err)
{
    enum json_event event;
    int32_t status = open_container(in, JSON_ARRAY, "/added_tokens", err);
    while (!status) {
        status = next(in, &event, err);
        if (status || event == JSON_EV_CLOSE)
            break;
        if (event != JSON_EV_OPEN || in->r.value.type != JSON_OBJECT)
            return bad(in, err, "/added_tokens", "each token must be an object");
        status = read_added_token(in, err);
    }
    return status;
}

/* ---- the model ------------------------------------------------------------------------------- */

static int32_t read_vocab(struct reading *in, glm_error *err)
{
    struct json_reader *r = &in->r;
    enum json_event event;
    if (in->vocab)
        return bad(in, err, "/model/vocab", "is there twice");
    in->vocab = true;
    int32_t status = open_container(in, JSON_OBJECT, "/model/vocab", err);
    while (!status) {
        status = next(in, &event, err);
        if (status || event == JSON_EV_CLOSE)
            break;
        uint64_t id, offset = r->value.offset;
        buf_clear(&in->content); /* the key lives until the next call */
        buf_put(&in->content, r->value.text, r->value.size);
        if (in->content.failed)
            return err_nomem(err, "the tokenizer's vocabulary");
        status = next(in, &event, err);
        if (status)
            return status;
        if (event != JSON_EV_VALUE || !json_u64(&r->value, &id))
            return bad(in, err, "/model/vocab", "an id must be a whole number");
        status = tok_build_normal(
            in->b, id, in->content.data, in->content.size, offset, "/model/vocab", err);
    }
    return status ? status : tok_build_pieces(in->b, err);
}

/* "left right", behind its event. */
static int32_t read_merge_text(struct reading *in, glm_error *err)
{
    const struct json *v = &in->r.value;
    const char *blank = v->size ? memchr(v->text, ' ', v->size) : NULL;
    if (!blank)
        return bad(in, err, "/model/merges", "a merge must be \"left right\"");
    size_t left = (size_t)(blank - v->text);
    return tok_build_merge(in->b, v->text, left, blank + 1, v->size - left - 1, false,
        in->base + v->offset, "/model/merges", err);
}

/* ["left", "right"], behind its opening. */
static int32_t read_merge_pair(struct reading *in, glm_error *err)
{
    struct json_reader *r = &in->r;
    enum json_event event;
    uint64_t offset = in->base + r->value.offset;
    size_t left = 0;
    buf_clear(&in->content);
    for (int i = 0; i < 2; i++) {
        int32_t status = next(in, &event, err);
        if (status)
            return status;
        if (event != JSON_EV_VALUE || r->value.type != JSON_STRING)
            return bad(in, err, "/model/merges", "a merge must be two strings");
        if (i == 0)
            left = r->value.size;
        buf_put(&in->content, r->value.text, r->value.size);
    }
    if (in->content.failed)
        return err_nomem(err, "the tokenizer's merges");
    int32_t status = next(in, &event, err);
    if (status)
        return status;
    if (event != JSON_EV_CLOSE)
        return bad(in, err, "/model/merges", "a merge must be two strings");
    return tok_build_merge(in->b, in->content.data, left, in->content.data + left,
        in->content.size - left, false, offset, "/model/merges", err);
}

static int32_t read_merges(struct reading *in, glm_error *err)
{
    struct json_reader *r = &in->r;
    enum json_event event;
    int32_t status = open_container(in, JSON_ARRAY, "/model/merges", err);
    while (!status) {
        status = next(in, &event, err);
        if (status || event == JSON_EV_CLOSE)
            break;
        if (event == JSON_EV_OPEN && r->value.type == JSON_ARRAY)
            status = read_merge_pair(in, err);
        else if (event == JSON_EV_VALUE && r->value.type == JSON_STRING)
            status = read_merge_text(in, err);
        else
            status = bad(in, err, "/model/merges", "a merge must be \"left right\" or two strings");
    }
    return status;
}

/* Merges name tokens, so they wait for the vocabulary. */
static int32_t find_merges(struct reading *in, glm_error *err)
{
    if (in->merges)
        return bad(in, err, "/model/merges", "is there twice");
    in->merges = true;
    if (in->vocab)
        return read_merges(in, err);
    int32_t status = open_container(in, JSON_ARRAY, "/model/merges", err);
    in->merges_at = in->r.value.offset;
    if (!status)
        status = skip(in, err);
    in->merges_end = in->r.pos;
    return status;
}

static int32_t read_waiting_merges(struct reading *in, glm_error *err)
{
    struct json_reader whole = in->r;
    json_reader_init(
        &in->r, in->mem, whole.text + in->merges_at, in->merges_end - in->merges_at, whole.where);
    in->base = in->merges_at;
    int32_t status = read_merges(in, err);
    in->base = 0;
    json_reader_free(&in->r);
    in->r = whole;
    return status;
}

/* Settings that must be off: null, false or "" say so. */
static int32_t read_model_setting(struct reading *in, const char *place, glm_error *err)
{
    enum json_event event;
    int32_t status = next(in, &event, err);
    if (status)
        return status;
    const struct json *v = &in->r.value;
    if (v->type == JSON_NULL || v->type == JSON_FALSE || (v->type == JSON_STRING && !v->size))
        return GLM_OK;
    return unknown(in, err, v->offset, place, "a setting other than null or false");
}

static int32_t read_model_type(struct reading *in, glm_error *err)
{
    enum json_event event;
    int32_t status = next(in, &event, err);
    if (status)
        return status;
    in->type = true;
    if (in->r.value.type != JSON_STRING)
        return bad(in, err, "/model/type", "must be a string");
    return key_is(&in->r, "BPE") ? GLM_OK
                                 : unknown(in, err, in->r.value.offset, "/model/type", "not BPE");
}

static int32_t read_ignore_merges(struct reading *in, glm_error *err)
{
    enum json_event event;
    int32_t status = next(in, &event, err);
    if (status)
        return status;
    if (!json_bool(&in->r.value, &in->b->tok->ignore_merges))
        return bad(in, err, "/model/ignore_merges", "must be true or false");
    return GLM_OK;
}

static int32_t read_model_member(struct reading *in, glm_error *err)
{
    static const char *const off[][2] = {
        { "dropout", "/model/dropout" },
        { "unk_token", "/model/unk_token" },
        { "continuing_subword_prefix", "/model/continuing_subword_prefix" },
        { "end_of_word_suffix", "/model/end_of_word_suffix" },
        { "fuse_unk", "/model/fuse_unk" },
        { "byte_fallback", "/model/byte_fallback" },
    };
    const struct json_reader *r = &in->r;
    if (key_is(r, "type"))
        return read_model_type(in, err);
    if (key_is(r, "ignore_merges"))
        return read_ignore_merges(in, err);
    if (key_is(r, "vocab"))
        return read_vocab(in, err);
    if (key_is(r, "merges"))
        return find_merges(in, err);
    for (size_t i = 0; i < ARRAY_LEN(off); i++)
        if (key_is(r, off[i][0]))
            return read_model_setting(in, off[i][1], err);
    return skip(in, err);
}

static int32_t read_model(struct reading *in, glm_error *err)
{
    enum json_event event;
    int32_t status = open_container(in, JSON_OBJECT, "/model", err);
    while (!status) {
        status = next(in, &event, err);
        if (status || event == JSON_EV_CLOSE)
            break;
        status = read_model_member(in, err);
    }
    return status;
}

/* ---- the file -------------------------------------------------------------------------------- */

static int32_t read_member(struct reading *in, glm_error *err)
{
    static const char *const parts[] = {
        [PART_NORMALIZER] = "normalizer", [PART_PRE_TOKENIZER] = "pre_tokenizer",
        [PART_POST_PROCESSOR] = "post_processor", [PART_DECODER] = "decoder",
    };
    const struct json_reader *r = &in->r;
    if (key_is(r, "added_tokens"))
        return read_added(in, err);
    if (key_is(r, "model"))
        return read_model(in, err);
    for (size_t i = 0; i < ARRAY_LEN(parts); i++)
        if (key_is(r, parts[i]))
            return read_part(in, (enum part)i, err);
    return skip(in, err);
}

static int32_t read_file(struct reading *in, glm_error *err)
{
    enum json_event event;
    int32_t status = open_container(in, JSON_OBJECT, "the file", err);
    while (!status) {
        status = next(in, &event, err);
        if (status || event == JSON_EV_CLOSE)
            break;
        status = read_member(in, err);
    }
    if (!status)
        status = next(in, &event, err); /* the end, or what should not be there */
    if (!status && in->merges_at && in->vocab)
        status = read_waiting_merges(in, err);
    return status;
}

static int32_t check_complete(const struct reading *in, glm_error *err)
{
    const char *missing = !in->pre_tokenizer ? "/pre_tokenizer"
                          : !in->decoder     ? "/decoder"
                          : !in->type        ? "/model/type"
                          : !in->vocab       ? "/model/vocab"
                          : !in->merges      ? "/model/merges"
                                             : NULL;
    if (!missing)
        return GLM_OK;
    return err_set(
        err, GLM_EFORMAT, 0, in->b->where, "%s: missing; is this a tokenizer.json?", missing);
}

int32_t tok_json_read(
    struct tok_build *b, struct mem *m, const char *text, size_t size, glm_error *err)
{
    struct reading in = { .b = b, .mem = m };
    glm_error own = GLM_ERROR_INIT; /* its code is wanted even where the caller wants no error */
    if (!err)
        err = &own;
    /* Ids may have gaps, but a small file shall not cost much memory: 8 bytes an id. */
    size_t id_max = size / 4 > ID_ALWAYS ? size / 4 : ID_ALWAYS;
    b->id_max = id_max < TOK_ID_MAX ? (uint32_t)id_max : TOK_ID_MAX;
    buf_init(&in.content, m);
    json_reader_init(&in.r, m, text, size, b->where);
    int32_t status = read_file(&in, err);
    if (!status)
        status = check_complete(&in, err);
    json_reader_free(&in.r);
    buf_free(&in.content);
    return status;
}
