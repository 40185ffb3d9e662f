/* tok_int.h: what the tokenizer's files share: the immutable vocabulary with its two hash tables,
 * how it is built, the pre-tokenizer and the merging of one piece. Read text.h first.
 */
#ifndef GLM_TEXT_TOK_INT_H
#define GLM_TEXT_TOK_INT_H

#include "text.h"

#include <string.h>

#define TOK_ID_MAX ((1u << 24) - 1)
#define TOK_ADDED_MAX 4096u   /* added tokens in a vocabulary */
#define TOK_PROBE_MAX 1024u   /* a crafted vocabulary may not turn the tables into lists */
#define TOK_NO_RANK UINT32_MAX

enum tok_kind { TOK_ABSENT = 0, TOK_NORMAL = 1, TOK_ADDED = 2 };

struct tok_token {
    uint32_t at; /* in the pool */
    uint32_t size : 24, kind : 8;
};

/* Bytes to id. Up to eight bytes are the key themselves: most pieces of a text cost one cache line.
 * Longer ones have a 64-bit hash as their key and are compared in the pool. */
struct tok_piece {
    uint64_t key;
    uint32_t id;
    uint32_t size; /* 0: free */
};

/* Two neighbouring tokens to the one that replaces them. */
struct tok_pair {
    uint64_t key; /* left << 32 | right */
    uint32_t rank;
    uint32_t id;
};
#define TOK_PAIR_FREE UINT64_MAX

struct tok {
    struct mem *mem;
    char *pool;              /* the bytes of all tokens */
    struct tok_token *token; /* [n] by id */
    struct tok_piece *piece; /* [piece_mask + 1] */
    struct tok_pair *pair;   /* [pair_mask + 1] */
    uint32_t *added;         /* [n_added] ids by first byte, longer ones first */
    uint32_t n, piece_mask, pair_mask, n_added;
    uint32_t size_max;       /* of a normal token */
    uint32_t added_at[257];  /* where the added tokens of each first byte begin in `added` */
    uint32_t byte_id[256];
    int32_t special[TOK_SPECIAL_COUNT];
    bool ignore_merges;      /* a piece that is a token is that token, whatever the merges say */
};

/* ---- hashing --------------------------------------------------------------------------------- */

#define TOK_HASH_K1 0x9E3779B97F4A7C15u
#define TOK_HASH_K2 0xD6E8FEB86659FD93u

static inline uint64_t tok_mix(uint64_t h)
{
    h *= TOK_HASH_K1;
    return h ^ h >> 32;
}

/* One to eight bytes as one number, by loads that overlap. */
static inline uint64_t tok_load(const char *p, size_t n)
{
    if (n >= 4) {
        uint32_t low, high;
        memcpy(&low, p, 4);
        memcpy(&high, p + n - 4, 4);
        return (uint64_t)high << 8 * (n - 4) | low;
    }
    return (uint64_t)(uint8_t)p[0] | (uint64_t)(uint8_t)p[n / 2] << 8 * (n / 2)
        | (uint64_t)(uint8_t)p[n - 1] << 8 * (n - 1);
}

static inline uint64_t tok_piece_key(const char *p, size_t n)
{
    if (n <= 8)
        return tok_load(p, n);
    uint64_t h = TOK_HASH_K2, w;
    for (size_t i = 0; i + 8 < n; i += 8) {
        memcpy(&w, p + i, 8);
        h = tok_mix(h ^ w);
    }
    memcpy(&w, p + n - 8, 8);
    return tok_mix(h ^ w);
}

static inline uint32_t tok_piece_slot(const struct tok *t, uint64_t key, size_t n)
{
    return (uint32_t)(tok_mix(key + n * TOK_HASH_K2) >> 16) & t->piece_mask;
}

static inline uint32_t tok_pair_slot(const struct tok *t, uint64_t key)
{
    return (uint32_t)(tok_mix(key) >> 8) & t->pair_mask;
}

/* The token made of exactly these bytes (n > 0), or -1. Added tokens are not found. */
static inline int32_t tok_piece_find(const struct tok *t, const char *p, size_t n)
{
    if (n > t->size_max)
        return -1;
    uint64_t key = tok_piece_key(p, n);
    for (uint32_t i = tok_piece_slot(t, key, n);; i = (i + 1) & t->piece_mask) {
        const struct tok_piece *s = &t->piece[i];
        if (s->key == key && s->size == n &&
            (n <= 8 || !memcmp(t->pool + t->token[s->id].at, p, n)))
            return (int32_t)s->id;
        if (!s->size)
            return -1;
    }
}

/* The merge of two tokens, or NULL. */
static inline const struct tok_pair *tok_pair_find(
    const struct tok *t, uint32_t left, uint32_t right)
{
    uint64_t key = (uint64_t)left << 32 | right;
    for (uint32_t i = tok_pair_slot(t, key);; i = (i + 1) & t->pair_mask) {
        const struct tok_pair *s = &t->pair[i];
        if (s->key == key)
            return s;
        if (s->key == TOK_PAIR_FREE)
            return NULL;
    }
}

/* ---- building (tok_vocab.c) ------------------------------------------------------------------ */

/* Normal tokens, then pieces, then merges, then finish; added tokens at any time before finish. */

struct tok_merge {
    uint32_t left, right, id;
};

struct tok_build {
    struct tok *tok;
    const char *where;       /* the file, for errors */
    uint32_t n_vocab;        /* 0: unknown */
    uint32_t id_max;         /* the table has an entry for each id up to the largest */
    uint32_t capacity;       /* of tok->token */
    uint32_t n_normal;
    struct buf pool, scratch;
    struct tok_merge *merge; /* [n_merge], rank order */
    uint32_t n_merge, merge_capacity;
};

int32_t tok_build_init(
    struct tok_build *b, struct mem *m, const char *where, uint32_t n_vocab, glm_error *err);
void tok_build_free(struct tok_build *b); /* what finish did not take */
/* A normal token in byte-level spelling. place names it in errors (a JSON pointer or a key). */
int32_t tok_build_normal(struct tok_build *b, uint64_t id, const char *spelling, size_t size,
    uint64_t offset, const char *place, glm_error *err);
int32_t tok_build_added(struct tok_build *b, uint64_t id, const char *content, size_t size,
    uint64_t offset, const char *place, glm_error *err);
int32_t tok_build_pieces(struct tok_build *b, glm_error *err);
/* The next merge. lenient: one whose parts or result are no tokens is passed over (it can never
 * apply). */
int32_t tok_build_merge(struct tok_build *b, const char *left, size_t left_size, const char *right,
    size_t right_size, bool lenient, uint64_t offset, const char *place, glm_error *err);
int32_t tok_build_finish(struct tok_build *b, struct tok **out, glm_error *err);

int32_t tok_json_read(
    struct tok_build *b, struct mem *m, const char *text, size_t size, glm_error *err);
int32_t tok_gguf_read(struct tok_build *b, const struct vocab_source *src, glm_error *err);

/* ---- the pre-tokenizer (tok_split.c, table in tok_unicode.c) --------------------------------- */

extern const char tok_pattern[]; /* the family's regular expression, which tok_split carries out */

enum tok_class { TOK_OTHER = 0, TOK_LETTER = 1, TOK_NUMBER = 2, TOK_SPACE = 3 };
extern const uint8_t tok_class_index[8704];
extern const uint8_t tok_class_block[];
static inline enum tok_class tok_class_of(uint32_t code_point)
{
    uint32_t block = tok_class_index[code_point >> 7], low = code_point & 127;
    return (enum tok_class)(tok_class_block[block * 32 + low / 4] >> low % 4 * 2 & 3);
}

/* Bytes of the piece at text (text < end). */
size_t tok_split(const char *text, const char *end);

/* ---- merging one piece (tok_bpe.c) ----------------------------------------------------------- */

#define TOK_SHORT 64u /* bytes of a piece that is merged on the stack */

/* One call of tok_encode: where its ids go and how far it is. */
struct tok_bpe {
    const struct tok *tok;
    const char *text, *end;    /* the whole text */
    struct ids *out;
    size_t n_before;           /* ids in out before the call */
    struct tok_window *window; /* scratch for long pieces; NULL until one comes */
};

/* Room in out for `extra` ids more, when the text is encoded up to `at`. False: out of memory. */
bool tok_bpe_room(struct tok_bpe *b, const char *at, size_t extra);
/* Ids of a piece of 1 to TOK_SHORT bytes into out [size]; returns how many. */
uint32_t tok_bpe_short(const struct tok *t, const char *text, uint32_t size, int32_t *out);
/* Any size, in linear time; appends to out. False: out of memory. */
bool tok_bpe_long(struct tok_bpe *b, const char *text, size_t size);
void tok_bpe_free(struct tok_bpe *b);

bool ids_reserve(struct ids *v, size_t extra); /* false: out of memory, failed set */

#endif
