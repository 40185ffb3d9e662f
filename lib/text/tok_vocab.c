/* tok_vocab.c: makes the immutable vocabulary out of tokens, merges and added tokens, wherever they
 * come from, and answers what is in it. All that a file says is checked here; the readers only take
 * the file apart.
 */
#include "tok_int.h"

/* ---- answers --------------------------------------------------------------------------------- */

uint32_t tok_n(const struct tok *t)
{
    return t->n;
}

int32_t tok_id(const struct tok *t, enum tok_special which)
{
    return (uint32_t)which < TOK_SPECIAL_COUNT ? t->special[which] : -1;
}

int32_t tok_find(const struct tok *t, const char *content, size_t size)
{
    if (!size)
        return -1;
    uint8_t first = (uint8_t)content[0];
    for (uint32_t i = t->added_at[first]; i < t->added_at[first + 1]; i++) {
        const struct tok_token *a = &t->token[t->added[i]];
        if (a->size == size && !memcmp(t->pool + a->at, content, size))
            return (int32_t)t->added[i];
    }
    return -1;
}

bool tok_is_added(const struct tok *t, int32_t id)
{
    return id >= 0 && (uint32_t)id < t->n && t->token[id].kind == TOK_ADDED;
}

void tok_close(struct tok *t)
{
    if (!t)
        return;
    mem_free(t->mem, t->pool);
    mem_free(t->mem, t->token);
    mem_free(t->mem, t->piece);
    mem_free(t->mem, t->pair);
    mem_free(t->mem, t->added);
    mem_free(t->mem, t);
}

/* ---- building -------------------------------------------------------------------------------- */

int32_t tok_build_init(
    struct tok_build *b, struct mem *m, const char *where, uint32_t n_vocab, glm_error *err)
{
    memset(b, 0, sizeof *b);
    b->where = where;
    b->n_vocab = n_vocab;
    b->id_max = TOK_ID_MAX;
    buf_init(&b->pool, m);
    buf_init(&b->scratch, m);
    b->tok = mem_zalloc(m, sizeof *b->tok);
    if (!b->tok)
        return err_nomem(err, "the tokenizer");
    b->tok->mem = m;
    return GLM_OK;
}

void tok_build_free(struct tok_build *b)
{
    mem_free(b->pool.mem, b->merge);
    if (b->tok)
        b->tok->pool = NULL; /* the same memory as b->pool */
    tok_close(b->tok);
    buf_free(&b->pool);
    buf_free(&b->scratch);
}

/* Grows the array of tokens so that it has an entry for id. */
static bool make_room(struct tok_build *b, uint32_t id)
{
    if (id < b->capacity)
        return true;
    uint32_t capacity = b->capacity ? b->capacity : 1024;
    while (capacity <= id)
        capacity *= 2;
    struct tok_token *grown = mem_resize(b->tok->mem, b->tok->token, capacity * sizeof *grown);
    if (!grown)
        return false;
    memset(grown + b->capacity, 0, (capacity - b->capacity) * sizeof *grown);
    b->tok->token = grown;
    b->capacity = capacity;
    return true;
}

static int32_t put_token(struct tok_build *b, uint64_t id, const char *bytes, size_t size,
    enum tok_kind kind, uint64_t offset, const char *place, glm_error *err)
{
    struct tok *t = b->tok;
    if (id > b->id_max)
        return err_set(err, GLM_EFORMAT, offset, b->where,
            "%s: id %llu is beyond the limit of %u for a file of this size", place,
            (unsigned long long)id, b->id_max);
    if (b->n_vocab && id >= b->n_vocab)
        return err_set(err, GLM_EFORMAT, offset, b->where,
            "%s: id %llu, but the model has %u rows: is this the"
            " tokenizer of another model?",
            place, (unsigned long long)id, b->n_vocab);
    if (!size || size >= 1u << 24 || b->pool.size + size > UINT32_MAX)
        return err_set(err, GLM_EFORMAT, offset, b->where, "%s: a token of %zu bytes", place, size);
    if (!make_room(b, (uint32_t)id))
        return err_nomem(err, "the tokenizer's tokens");
    if (t->token[id].kind != TOK_ABSENT)
        return err_set(err, GLM_EFORMAT, offset, b->where, "%s: id %u is given to two tokens",
            place, (uint32_t)id);
    t->token[id].at = (uint32_t)b->pool.size;
    t->token[id].size = (uint32_t)size & 0xFFFFFF;
    buf_put(&b->pool, bytes, size);
    if (b->pool.failed)
        return err_nomem(err, "the tokenizer's text");
    t->pool = b->pool.data;
    t->token[id].kind = kind;
    if (t->n <= id)
        t->n = (uint32_t)id + 1;
    return GLM_OK;
}

/* The byte that a character of the byte-level spelling stands for, or -1. Printable Latin-1 stands
 * for itself, the other 68 bytes, in order, are U+0100 and on. */
static int spelled_byte(uint32_t c)
{
    if ((c >= 0x21 && c <= 0x7E) || (c >= 0xA1 && c <= 0xFF && c != 0xAD))
        return (int)c;
    if (c < 0x100 || c > 0x143)
        return -1;
    c -= 0x100;
    if (c < 33)
        return (int)c;
    return c < 67 ? (int)(127 + c - 33) : 0xAD;
}

/* Appends the bytes that a spelling stands for; false: a character of it stands for none. The room
 * is there. */
static bool put_spelled(struct buf *out, const char *text, size_t size)
{
    char *to = out->data + out->size;
    for (size_t i = 0; i < size; i++) {
        uint32_t c = (uint8_t)text[i];
        if (c >= 0xC2 && c <= 0xC5 && i + 1 < size)
            c = (c & 0x1F) << 6 | ((uint8_t)text[++i] & 0x3F);
        else if (c >= 0x80)
            return false;
        int byte = spelled_byte(c);
        if (byte < 0)
            return false;
        *to++ = (char)byte;
    }
    out->size = (size_t)(to - out->data);
    return true;
}

int32_t tok_build_normal(struct tok_build *b, uint64_t id, const char *spelling, size_t size,
    uint64_t offset, const char *place, glm_error *err)
{
    buf_clear(&b->scratch);
    if (!buf_reserve(&b->scratch, size))
        return err_nomem(err, "the tokenizer's text");
    if (!put_spelled(&b->scratch, spelling, size))
        return err_set(err, GLM_EFORMAT, offset, b->where,
            "%s: \"%.*s\" (id %llu) is not in byte-level spelling", place,
            (int)(size < 64 ? size : 64), spelling, (unsigned long long)id);
    b->n_normal++;
    return put_token(b, id, b->scratch.data, b->scratch.size, TOK_NORMAL, offset, place, err);
}

int32_t tok_build_added(struct tok_build *b, uint64_t id, const char *content, size_t size,
    uint64_t offset, const char *place, glm_error *err)
{
    struct tok *t = b->tok;
    if (t->n_added == TOK_ADDED_MAX)
        return err_set(err, GLM_EFORMAT, offset, b->where, "%s: more than %u added tokens", place,
            TOK_ADDED_MAX);
    if (!t->added) {
        t->added = mem_array(t->mem, TOK_ADDED_MAX, sizeof *t->added);
        if (!t->added)
            return err_nomem(err, "the tokenizer's added tokens");
    }
    int32_t status = put_token(b, id, content, size, TOK_ADDED, offset, place, err);
    if (!status)
        t->added[t->n_added++] = (uint32_t)id;
    return status;
}

/* A power of two that n entries fill to at most 5/8. */
static uint32_t table_size(uint32_t n)
{
    uint32_t size = 64;
    while (size / 8 * 5 < n)
        size *= 2;
    return size;
}

static int32_t crafted(const struct tok_build *b, glm_error *err)
{
    return err_set(err, GLM_EFORMAT, 0, b->where,
        "the vocabulary was made to collide in hash tables; use the published"
        " file");
}

static int32_t put_piece(struct tok_build *b, uint32_t id, glm_error *err)
{
    struct tok *t = b->tok;
    uint32_t size = t->token[id].size;
    const char *bytes = t->pool + t->token[id].at;
    uint64_t key = tok_piece_key(bytes, size);
    uint32_t i = tok_piece_slot(t, key, size);
    for (uint32_t n = 0; t->piece[i].size; i = (i + 1) & t->piece_mask) {
        const struct tok_piece *s = &t->piece[i];
        if (s->key == key && s->size == size && !memcmp(t->pool + t->token[s->id].at, bytes, size))
            return err_set(
                err, GLM_EFORMAT, 0, b->where, "tokens %u and %u are the same bytes", s->id, id);
        if (++n == TOK_PROBE_MAX)
            return crafted(b, err);
    }
    t->piece[i] = (struct tok_piece){ key, id, size };
    if (size > t->size_max)
        t->size_max = size;
    return GLM_OK;
}

int32_t tok_build_pieces(struct tok_build *b, glm_error *err)
{
    struct tok *t = b->tok;
    int32_t status;
    uint32_t size = table_size(b->n_normal);
    t->piece = mem_zarray(t->mem, size, sizeof *t->piece);
    if (!t->piece)
        return err_nomem(err, "the tokenizer's vocabulary");
    t->piece_mask = size - 1;
    for (uint32_t id = 0; id < t->n; id++)
        if (t->token[id].kind == TOK_NORMAL && (status = put_piece(b, id, err)))
            return status;
    for (uint32_t c = 0; c < 256; c++) {
        char byte = (char)c;
        int32_t id = tok_piece_find(t, &byte, 1);
        if (id < 0)
            return err_set(
                err, GLM_EFORMAT, 0, b->where, "the vocabulary has no token for the byte 0x%x", c);
        t->byte_id[c] = (uint32_t)id;
    }
    return GLM_OK;
}

static bool put_merge(struct tok_build *b, struct tok_merge merge)
{
    if (b->n_merge == b->merge_capacity) {
        uint32_t capacity = b->merge_capacity ? b->merge_capacity * 2 : 4096;
        struct tok_merge *grown = mem_resize(b->tok->mem, b->merge, capacity * sizeof *grown);
        if (!grown)
            return false;
        b->merge = grown;
        b->merge_capacity = capacity;
    }
    b->merge[b->n_merge++] = merge;
    return true;
}

int32_t tok_build_merge(struct tok_build *b, const char *left, size_t left_size, const char *right,
    size_t right_size, bool lenient, uint64_t offset, const char *place, glm_error *err)
{
    struct buf *s = &b->scratch;
    int32_t ids[3] = { -1, -1, -1 };
    buf_clear(s);
    if (!buf_reserve(s, left_size + right_size))
        return err_nomem(err, "the tokenizer's merges");
    if (put_spelled(s, left, left_size)) {
        size_t cut = s->size;
        if (cut && put_spelled(s, right, right_size) && s->size > cut) {
            ids[0] = tok_piece_find(b->tok, s->data, cut);
            ids[1] = tok_piece_find(b->tok, s->data + cut, s->size - cut);
            ids[2] = tok_piece_find(b->tok, s->data, s->size);
        }
    }
    if (ids[0] < 0 || ids[1] < 0 || ids[2] < 0) {
        if (lenient)
            return GLM_OK;
        return err_set(err, GLM_EFORMAT, offset, b->where,
            "%s: merge %u (\"%.*s\" and \"%.*s\") has parts or a result"
            " that are no tokens",
            place, b->n_merge, (int)(left_size < 40 ? left_size : 40), left,
            (int)(right_size < 40 ? right_size : 40), right);
    }
    if (b->n_merge == TOK_ID_MAX)
        return err_set(
            err, GLM_EFORMAT, offset, b->where, "%s: more than %u merges", place, TOK_ID_MAX);
    if (!put_merge(b, (struct tok_merge){ (uint32_t)ids[0], (uint32_t)ids[1], (uint32_t)ids[2] }))
        return err_nomem(err, "the tokenizer's merges");
    return GLM_OK;
}

/* A pair that is listed twice has the later rank, as in the reference. */
static int32_t put_pairs(struct tok_build *b, glm_error *err)
{
    struct tok *t = b->tok;
    uint32_t size = table_size(b->n_merge);
    t->pair = mem_array(t->mem, size, sizeof *t->pair);
    if (!t->pair)
        return err_nomem(err, "the tokenizer's merges");
    memset(t->pair, 0xFF, size * sizeof *t->pair);
    t->pair_mask = size - 1;
    for (uint32_t rank = 0; rank < b->n_merge; rank++) {
        const struct tok_merge *m = &b->merge[rank];
        uint64_t key = (uint64_t)m->left << 32 | m->right;
        uint32_t i = tok_pair_slot(t, key);
        for (uint32_t n = 0; t->pair[i].key != TOK_PAIR_FREE && t->pair[i].key != key;
             i = (i + 1) & t->pair_mask)
            if (++n == TOK_PROBE_MAX)
                return crafted(b, err);
        t->pair[i] = (struct tok_pair){ key, rank, m->id };
    }
    return GLM_OK;
}

/* Orders the added tokens by first byte, longer ones first. There are few. Plain text must not be
 * able to make one. */
static int32_t sort_added(struct tok_build *b, glm_error *err)
{
    struct tok *t = b->tok;
    for (uint32_t i = 0; i < t->n_added; i++) {
        uint32_t id = t->added[i], k = i;
        const struct tok_token *a = &t->token[id];
        if (tok_piece_find(t, t->pool + a->at, a->size) >= 0)
            return err_set(err, GLM_EFORMAT, 0, b->where,
                "added token %u (\"%.*s\") is also a token of plain text", id,
                (int)(a->size < 64 ? a->size : 64), t->pool + a->at);
        for (; k > 0; k--) {
            const struct tok_token *c = &t->token[t->added[k - 1]];
            uint8_t a_first = (uint8_t)t->pool[a->at], c_first = (uint8_t)t->pool[c->at];
            if (c_first < a_first || (c_first == a_first && c->size > a->size))
                break;
            if (c->size == a->size && !memcmp(t->pool + c->at, t->pool + a->at, a->size))
                return err_set(err, GLM_EFORMAT, 0, b->where,
                    "added tokens %u and %u are the same text", t->added[k - 1], id);
            t->added[k] = t->added[k - 1];
        }
        t->added[k] = id;
    }
    uint32_t i = 0;
    for (uint32_t first = 0; first < 256; first++) {
        t->added_at[first] = i;
        while (i < t->n_added && (uint8_t)t->pool[t->token[t->added[i]].at] == first)
            i++;
    }
    t->added_at[256] = i;
    return GLM_OK;
}

int32_t tok_build_finish(struct tok_build *b, struct tok **out, glm_error *err)
{
    struct tok *t = b->tok;
    int32_t status = sort_added(b, err);
    if (!status)
        status = put_pairs(b, err);
    if (status)
        return status;
    for (uint32_t i = 0; i < TOK_SPECIAL_COUNT; i++) {
        const char *content = chat_spelling((enum tok_special)i);
        t->special[i] = tok_find(t, content, strlen(content));
    }
    t->mem = b->pool.mem;
    *out = t;
    b->tok = NULL;
    memset(&b->pool, 0, sizeof b->pool); /* its memory is the token's now */
    b->pool.mem = t->mem;
    return GLM_OK;
}

int32_t tok_open(struct mem *m, const struct vocab_source *src, uint32_t n_vocab, struct tok **out,
    glm_error *err)
{
    struct tok_build b;
    *out = NULL;
    int32_t status = tok_build_init(&b, m, src->where ? src->where : "the tokenizer", n_vocab, err);
    if (!status) {
        switch (src->kind) {
        case VOCAB_JSON: status = tok_json_read(&b, m, src->json, src->json_size, err); break;
        case VOCAB_GGUF: status = tok_gguf_read(&b, src, err); break;
        default:
            status = err_set(err, GLM_ENOTSUP, 0, b.where,
                "the model has no tokenizer: put tokenizer.json beside it");
        }
    }
    if (!status)
        status = tok_build_finish(&b, out, err);
    tok_build_free(&b);
    return status;
}
