/* rx.h: regular languages with intersection and complement, as hash-consed expressions whose derivatives are taken lazily
 * (Brzozowski; Owens, Reppy, Turon 2009). Symbols are code points, or code points inside a JSON string (RX_STRING + c),
 * which are spelled with JSON's escapes, or inside a key (RX_KEY + c), which have one spelling only; rx_bytes.c turns them into
 * states over bytes.
 *
 * A `struct rx` owns all expressions and states of a grammar. Constructors never return an error: they set `failed` and give
 * RX_EMPTY, and callers look once at the end. Nothing here recurses on input; recursion on an expression's nesting is bounded
 * by RX_DEPTH_MAX, beyond which `failed` is GLM_ELIMIT.
 */
#ifndef GLM_TEXT_RX_H
#define GLM_TEXT_RX_H

#include "text.h"

#define RX_EMPTY 0u /* no text at all */
#define RX_EPS 1u   /* the empty text */
#define RX_ALL 2u   /* any text */
#define RX_INF UINT32_MAX
#define RX_STRING 0x200000u
#define RX_KEY 0x400000u
#define RX_CODE_MAX 0x10FFFFu
#define RX_NO_LABEL UINT32_MAX
#define RX_DEPTH_MAX 120u

struct rx_range {
    uint32_t lo, hi;
};
struct rx_move { /* on symbols lo..hi to the expression `to`; lists are sorted and disjoint */
    uint32_t lo, hi, to;
};

enum rx_kind {
    RX_KIND_EMPTY, RX_KIND_EPS,
    RX_KIND_SET,   /* ranges */
    RX_KIND_CAT,   /* a, then b */
    RX_KIND_ALT, RX_KIND_AND, /* children */
    RX_KIND_NOT,   /* any text but a's */
    RX_KIND_REP,   /* lo to hi times a */
    RX_KIND_QUOTE, /* the rest of a JSON string whose content is a: its characters (RX_STRING or RX_KEY, b), then a quote */
    RX_KIND_LABEL, /* the empty text, with a mark that says which alternative has matched */
    RX_KIND_KEYS,  /* literals lo..hi of set b from byte `depth` on; where none matches, a */
    RX_KIND_MOD    /* the rest of a number that is a multiple of number b */
};

struct rx_node {
    uint8_t kind, nullable, live, has_not; /* live: RX_LIVE_... */
    uint32_t a, b, lo, hi, depth;
    uint32_t list, n;      /* children in rx->child, or ranges in rx->range */
    uint32_t label;        /* where nullable */
    uint32_t moves, n_move; /* in rx->move; n_move RX_INF: not yet known */
    uint32_t state;        /* of the bytes, or 0 */
    uint32_t next;         /* in the hash chain */
};
enum { RX_LIVE_UNKNOWN, RX_LIVE_YES, RX_LIVE_NO, RX_LIVE_VISITED };

struct rx_literals { /* sorted by bytes, no duplicates */
    const struct vocab_text *text;
    uint32_t n;
    bool labelled; /* the i-th literal's label is i */
};
struct rx_divisor { /* multiples of p / 10^k */
    uint32_t p, k;
};

enum rx_state_kind { RX_AT_NODE, RX_AT_UTF8, RX_AT_ESCAPE, RX_AT_HEX, RX_AT_LOW };

/* A state over bytes: an expression, or a place inside a character's spelling with what each way to complete it leads to. */
struct rx_state {
    uint8_t kind, k;       /* k: bytes or digits that are still to come */
    uint8_t accept;
    uint32_t node;         /* RX_AT_NODE, RX_AT_ESCAPE, RX_AT_LOW */
    uint32_t moves, n_move; /* RX_AT_UTF8, RX_AT_HEX: over the numbers that the rest can spell */
    uint32_t row;          /* index of its 256 followers in rx->rows, or RX_INF */
    uint32_t next;
};

struct rx {
    struct mem *mem;
    struct rx_node *node;
    struct rx_range *range;
    struct rx_move *move;
    uint32_t *child;
    struct rx_literals *literals;
    struct rx_divisor *divisor;
    uint32_t n_node, n_range, n_move, n_child, n_literals, n_divisor;
    uint32_t node_cap, range_cap, move_cap, child_cap, literals_cap, divisor_cap;
    uint32_t *node_hash;   /* [hash_mask + 1] */
    uint32_t hash_mask;
    struct rx_state *state;
    uint32_t *rows;        /* [n_row][256] */
    uint32_t *state_hash;
    uint32_t n_state, state_cap, n_row, row_cap, state_hash_mask;
    struct rx_move *scratch; /* a stack of lists that are being made */
    uint32_t n_scratch, scratch_cap;
    uint32_t *stack, *cursor; /* for searches; for lists that are walked side by side */
    uint32_t stack_cap, cursor_cap;
    uint32_t depth;
    uint32_t state_max;    /* limits; 0: none */
    uint64_t byte_max, bytes;
    uint64_t deadline_ns;  /* 0: none */
    uint32_t work, work_max; /* expressions and states asked for since the caller set work to 0; work_max 0: no limit */
    int32_t failed;        /* GLM_ENOMEM or GLM_ELIMIT; sticks until rx_forgive */
};

int32_t rx_init(struct rx *x, struct mem *m, glm_error *err); /* zeroes x first; set limits after it */
void rx_free(struct rx *x);
int32_t rx_check(struct rx *x, const char *what, glm_error *err); /* the sticky failure as a status, which is cleared */
bool rx_is_overworked(struct rx *x); /* counts one step of work; true: failed */
/* Grows an array of rx's; false: failed is set. */
bool rx_grow(struct rx *x, void *array /* pointer to the pointer */, uint32_t *capacity, uint64_t need, size_t element);

/* ---- making (rx_node.c) ------------------------------------------------------------------------------------------- */

uint32_t rx_set(struct rx *x, const struct rx_range *r, uint32_t n); /* any order, may overlap */
uint32_t rx_range(struct rx *x, uint32_t lo, uint32_t hi);
uint32_t rx_cat(struct rx *x, uint32_t a, uint32_t b);
uint32_t rx_alt(struct rx *x, uint32_t a, uint32_t b);
uint32_t rx_and(struct rx *x, uint32_t a, uint32_t b);
uint32_t rx_alt_list(struct rx *x, const uint32_t *list, uint32_t n);
uint32_t rx_and_list(struct rx *x, const uint32_t *list, uint32_t n);
uint32_t rx_not(struct rx *x, uint32_t a);
uint32_t rx_rep(struct rx *x, uint32_t a, uint32_t lo, uint32_t hi);
uint32_t rx_quote(struct rx *x, uint32_t content);  /* with both quotes */
uint32_t rx_quote_rest(struct rx *x, uint32_t content); /* behind the first one */
uint32_t rx_key_rest(struct rx *x, uint32_t content);   /* the same of a key */
uint32_t rx_label(struct rx *x, uint32_t label);
uint32_t rx_text(struct rx *x, const char *text, size_t size);
/* The literals must outlive x. other: for texts that are no literal; its labels stay. */
uint32_t rx_literals(struct rx *x, const struct vocab_text *sorted, uint32_t n, bool labelled, uint32_t other);
uint32_t rx_keys(struct rx *x, uint32_t set, uint32_t lo, uint32_t hi, uint32_t depth, uint32_t other);
uint32_t rx_multiple(struct rx *x, uint32_t p, uint32_t k, bool strict); /* numbers that are multiples of p / 10^k */
uint32_t rx_mod(struct rx *x, uint32_t divisor, uint32_t rem, uint32_t phase);
bool rx_mod_is_open(uint32_t phase); /* digits may follow that make it any multiple */
bool rx_mod_nullable(const struct rx *x, uint32_t divisor, uint32_t rem, uint32_t phase);

/* ---- moving (rx_move.c) ------------------------------------------------------------------------------------------- */

/* The moves of a node, which are made on the first call; NULL with *n 0 where there are none. Lives until the next call. */
const struct rx_move *rx_moves(struct rx *x, uint32_t node, uint32_t *n);
bool rx_live(struct rx *x, uint32_t node);   /* any text matches; searches, remembers */
bool rx_match(struct rx *x, uint32_t node, const char *text, size_t size); /* plain symbols */
bool rx_disjoint(struct rx *x, uint32_t a, uint32_t b);
/* How many texts match, at most `most`: counted exactly up to there (an infinite language gives `most`). */
uint32_t rx_count(struct rx *x, uint32_t node, uint32_t most);
void rx_mod_moves(struct rx *x, uint32_t node); /* rx_number.c: appends to scratch */

/* ---- bytes (rx_bytes.c) ------------------------------------------------------------------------------------------- */

uint32_t rx_state_of(struct rx *x, uint32_t node); /* 0: dead */
const uint32_t *rx_row(struct rx *x, uint32_t state); /* its 256 followers, made on the first call; NULL: failed */
static inline uint32_t rx_step(struct rx *x, uint32_t state, uint8_t byte)
{
    uint32_t row = x->state[state].row;
    if (row != RX_INF)
        return x->rows[(size_t)row * 256 + byte];
    const uint32_t *made = rx_row(x, state);
    return made != NULL ? made[byte] : 0;
}
static inline bool rx_accepts(const struct rx *x, uint32_t state) { return x->state[state].accept; }
static inline uint32_t rx_label_of(const struct rx *x, uint32_t state) { return x->node[x->state[state].node].label; }

/* ---- languages ---------------------------------------------------------------------------------------------------- */

/* An ECMA-262 pattern as the language of the texts in which it matches somewhere; whole: of the texts that it matches from
 * end to end. GLM_ESCHEMA where it is malformed or uses what no automaton can do (back references). */
int32_t rx_pattern(struct rx *x, const char *text, size_t size, bool whole, uint32_t *out, glm_error *err);
uint32_t rx_json_number(struct rx *x);
uint32_t rx_json_integer(struct rx *x); /* 1.0 and 1e2 too */
uint32_t rx_json_whole(struct rx *x);   /* without point and exponent */
/* All numbers in spellings that the sets below tell apart: what a complement of one of them is taken from. */
uint32_t rx_json_number_compared(struct rx *x);
/* Numbers at or above a bound (above: strictly). Given as JSON spells a number. False: too long to be compared. */
bool rx_number_from(struct rx *x, const char *bound, size_t size, bool strict, uint32_t *out);
bool rx_number_equal(struct rx *x, const char *number, size_t size, uint32_t *out);
bool rx_divisor_read(const char *number, size_t size, uint32_t *p, uint32_t *k);
/* Text that a known format allows; false: the format is an annotation. */
int32_t rx_format(struct rx *x, const char *name, size_t size, bool *known, uint32_t *out, glm_error *err);

#endif
