/* tok_encode.c: from text to ids: added tokens where they are meant, pieces looked up whole, the
 * others merged, and the growing arrays of ids. Nothing outlives a call but what it appends.
 */
#include "tok_int.h"

/* ---- arrays of ids --------------------------------------------------------------------------- */

void ids_init(struct ids *v, struct mem *m)
{
    *v = (struct ids){ .mem = m };
}

bool ids_reserve(struct ids *v, size_t extra)
{
    if (v->failed)
        return false;
    if (extra <= v->capacity - v->n)
        return true;
    size_t capacity = v->capacity + v->capacity / 2 + 16, size;
    if (capacity - v->n < extra && __builtin_add_overflow(v->n, extra, &capacity))
        capacity = SIZE_MAX;
    int32_t *grown = __builtin_mul_overflow(capacity, sizeof *grown, &size)
                         ? NULL
                         : mem_resize(v->mem, v->id, size);
    if (!grown) {
        v->failed = true;
        return false;
    }
    v->id = grown;
    v->capacity = capacity;
    return true;
}

void ids_put(struct ids *v, int32_t id)
{
    if (ids_reserve(v, 1))
        v->id[v->n++] = id;
}

void ids_append(struct ids *v, const int32_t *id, size_t n)
{
    if (n && ids_reserve(v, n)) {
        memcpy(v->id + v->n, id, n * sizeof *id);
        v->n += n;
    }
}

void ids_free(struct ids *v)
{
    mem_free(v->mem, v->id);
    ids_init(v, v->mem);
}

/* ---- encoding -------------------------------------------------------------------------------- */

/* A large text gets room by how many ids it has made so far, so that the last growth copies little:
 * the peak stays near the result itself. */
bool tok_bpe_room(struct tok_bpe *b, const char *at, size_t extra)
{
    struct ids *out = b->out;
    if (extra <= out->capacity - out->n && !out->failed)
        return true;
    size_t done = (size_t)(at - b->text), left = (size_t)(b->end - at), made = out->n - b->n_before;
    size_t per_256 = done < 4096 ? 64 : made * 256 / done + 4; /* ids in 256 bytes */
    return ids_reserve(out, extra + left / 256 * per_256);
}

/* A text repeats its words: a merged piece remembers where it stood and where its ids are. */
struct seen {
    const char *text; /* NULL: free */
    size_t at;        /* in out->id */
    uint32_t size, n;
};
#define SEEN_MAX 4096u

struct encoder {
    struct tok_bpe bpe;
    struct seen *seen; /* [seen_mask + 1], or NULL for a small text */
    uint32_t seen_mask;
};

static bool put_merged(struct encoder *e, const char *piece, uint32_t size)
{
    struct ids *out = e->bpe.out;
    struct seen *s = NULL;
    if (!tok_bpe_room(&e->bpe, piece, size))
        return false;
    if (e->seen) {
        s = &e->seen[(uint32_t)(tok_mix(tok_piece_key(piece, size) + size) >> 8) & e->seen_mask];
        if (s->text && s->size == size && !memcmp(s->text, piece, size)) {
            memcpy(out->id + out->n, out->id + s->at, s->n * sizeof *out->id);
            out->n += s->n;
            return true;
        }
    }
    uint32_t n = tok_bpe_short(e->bpe.tok, piece, size, out->id + out->n);
    if (s)
        *s = (struct seen){ piece, out->n, size, n };
    out->n += n;
    return true;
}

static bool put_id(struct encoder *e, const char *at, int32_t id)
{
    struct ids *out = e->bpe.out;
    if (out->n == out->capacity && !tok_bpe_room(&e->bpe, at, 1))
        return false;
    out->id[out->n++] = id;
    return true;
}

/* Text without added tokens; false: out of memory. */
static bool put_plain(struct encoder *e, const char *text, const char *end)
{
    const struct tok *t = e->bpe.tok;
    bool done = true;
    while (done && text < end) {
        size_t size = tok_split(text, end);
        int32_t id = t->ignore_merges ? tok_piece_find(t, text, size) : -1;
        if (id >= 0)
            done = put_id(e, text, id);
        else if (size <= TOK_SHORT)
            done = put_merged(e, text, (uint32_t)size);
        else
            done = tok_bpe_long(&e->bpe, text, size);
        text += size;
    }
    return done;
}

/* The first added token in the text, the longest where several begin; returns where, or end. */
static const char *find_added(const struct tok *t, const char *text, const char *end, int32_t *id)
{
    for (; text < end; text++) {
        uint8_t first = (uint8_t)*text;
        for (uint32_t i = t->added_at[first]; i < t->added_at[first + 1]; i++) {
            const struct tok_token *a = &t->token[t->added[i]];
            if (a->size <= (size_t)(end - text) && !memcmp(t->pool + a->at, text, a->size)) {
                *id = (int32_t)t->added[i];
                return text;
            }
        }
    }
    return end;
}

/* Text in which added tokens are meant: what lies between them is cut into pieces on its own. */
static bool put_marked(struct encoder *e, const char *text, const char *end)
{
    const struct tok *t = e->bpe.tok;
    while (text < end) {
        int32_t id = -1;
        const char *at = find_added(t, text, end, &id);
        if (!put_plain(e, text, at))
            return false;
        if (at == end)
            break;
        if (!put_id(e, at, id))
            return false;
        text = at + t->token[id].size;
    }
    return true;
}

int32_t tok_encode(const struct tok *t, const char *text, size_t size, uint32_t flags,
    struct ids *out, glm_error *err)
{
    if (out->failed)
        return err_nomem(err, "token ids");
    if (!size)
        return GLM_OK;
    struct encoder e = { .bpe = { t, text, text + size, out, out->n, NULL } };
    bool done = false;
    if (size >= 512) {
        uint32_t n_seen = 64;
        while (n_seen < SEEN_MAX && n_seen < size / 16)
            n_seen *= 2;
        e.seen = mem_zarray(out->mem, n_seen, sizeof *e.seen);
        e.seen_mask = n_seen - 1;
        if (!e.seen)
            goto fail;
    }
    done = (flags & TOK_SPECIALS ? put_marked : put_plain)(&e, text, text + size);
fail:
    mem_free(out->mem, e.seen);
    tok_bpe_free(&e.bpe);
    if (done)
        return GLM_OK;
    out->n = e.bpe.n_before;
    return err_nomem(err, "token ids");
}
