/* rx_bytes.c: expressions as states over bytes. Inside a character's spelling (UTF-8, \n, \u00e9) a state stands for what each
 * way to complete it leads to; states with equal futures are one, so that the many spellings of "any character" cost little.
 * A state has a row of 256 followers, made when it is first stepped from.
 */
#include "rx.h"

#include <string.h>

static uint32_t mix(uint32_t h, uint32_t v)
{
    h = (h ^ v) * 0x9E3779B1u;
    return h ^ h >> 15;
}

static uint32_t hash_state(const struct rx *x, const struct rx_state *s)
{
    uint32_t h = mix(mix(mix(s->kind, s->k), s->node), s->n_move);
    for (uint32_t i = 0; i < s->n_move; i++) {
        const struct rx_move *m = &x->move[s->moves + i];
        h = mix(mix(mix(h, m->lo), m->hi), m->to);
    }
    return h;
}

static bool same_state(const struct rx *x, const struct rx_state *a, const struct rx_state *b)
{
    return a->kind == b->kind && a->k == b->k && a->node == b->node && a->n_move == b->n_move &&
        (a->n_move == 0 || !memcmp(x->move + a->moves, x->move + b->moves, a->n_move * sizeof *x->move));
}

static bool grow_hash(struct rx *x)
{
    uint32_t size = x->state_hash ? (x->state_hash_mask + 1) * 4 : 256, cap = 0, *hash = NULL;
    if (!rx_grow(x, &hash, &cap, size, sizeof *hash))
        return false;
    memset(hash, 0, size * sizeof *hash);
    mem_free(x->mem, x->state_hash);
    x->state_hash = hash;
    x->state_hash_mask = size - 1;
    for (uint32_t i = 1; i < x->n_state; i++) {
        uint32_t slot = hash_state(x, &x->state[i]) & x->state_hash_mask;
        x->state[i].next = hash[slot];
        hash[slot] = i;
    }
    return true;
}

/* The state's moves, if any, lie at the end of x->move and are taken back where it exists already. */
static uint32_t intern(struct rx *x, struct rx_state *s)
{
    if (x->failed || rx_is_overworked(x) || (x->n_state >= (x->state_hash ? x->state_hash_mask + 1 : 0) && !grow_hash(x)))
        return 0;
    uint32_t slot = hash_state(x, s) & x->state_hash_mask;
    for (uint32_t i = x->state_hash[slot]; i != 0; i = x->state[i].next)
        if (same_state(x, &x->state[i], s)) {
            if (s->n_move > 0)
                x->n_move = s->moves;
            return i;
        }
    if (x->state_max && x->n_state >= x->state_max) {
        x->failed = GLM_ELIMIT;
        return 0;
    }
    if (!rx_grow(x, &x->state, &x->state_cap, (uint64_t)x->n_state + 1, sizeof *x->state))
        return 0;
    s->row = RX_INF;
    s->next = x->state_hash[slot];
    x->state[x->n_state] = *s;
    x->state_hash[slot] = x->n_state;
    return x->n_state++;
}

uint32_t rx_state_of(struct rx *x, uint32_t node)
{
    if (node == RX_EMPTY)
        return 0;
    if (x->node[node].state != 0)
        return x->node[node].state;
    if (!rx_live(x, node) || x->failed)
        return 0;
    struct rx_state s = { .kind = RX_AT_NODE, .node = node, .accept = x->node[node].nullable };
    uint32_t at = intern(x, &s);
    x->node[node].state = at;
    return at;
}

/* ---- partial spellings ---------------------------------------------------------------------------------------------------- */

/* The part of a list that falls into [from, from + size), counted from there, with `shift` taken off its symbols first, as
 * a new list at the end of x->move; dead targets are left out. */
static struct rx_state part(struct rx *x, const struct rx_state *of, uint32_t shift, uint32_t from, uint32_t size)
{
    struct rx_state s = { .moves = x->n_move };
    x->work += of->n_move / 32; /* long lists are work, too */
    for (uint32_t i = 0; i < of->n_move && !x->failed; i++) {
        struct rx_move m = x->move[of->moves + i];
        if (m.hi < shift || m.hi - shift < from || (m.lo >= shift && m.lo - shift >= from + size))
            continue;
        uint32_t lo = m.lo > shift ? m.lo - shift : 0, hi = m.hi - shift;
        lo = lo > from ? lo - from : 0;
        hi = hi - from < size ? hi - from : size - 1;
        if (!rx_live(x, m.to) || !rx_grow(x, &x->move, &x->move_cap, (uint64_t)x->n_move + 1, sizeof m))
            continue;
        struct rx_move *last = s.n_move > 0 ? &x->move[x->n_move - 1] : NULL;
        if (last != NULL && last->to == m.to && last->hi + 1 == lo) {
            last->hi = hi;
            continue;
        }
        x->move[x->n_move++] = (struct rx_move){ lo, hi, m.to };
        s.n_move++;
    }
    return s;
}

static uint32_t keep_part(struct rx *x, struct rx_state s, enum rx_state_kind kind, uint32_t k)
{
    s.kind = (uint8_t)kind;
    s.k = (uint8_t)k;
    return s.n_move > 0 ? intern(x, &s) : 0;
}

/* Lead bytes of what a list has above U+007F, surrogates left out. */
static void put_leads(struct rx *x, uint32_t *row, const struct rx_state *list, uint32_t shift)
{
    for (uint32_t lead = 0xC2; lead < 0xF5 && !x->failed; lead++) {
        uint32_t k = lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : 3, size = 1u << 6 * k;
        uint32_t from = (lead & (0x3Fu >> k)) << 6 * k;
        struct rx_state s = part(x, list, shift, from, size);
        uint32_t lo = lead == 0xE0 ? 0x800 : lead == 0xF0 ? 0x10000 : 0, hi = lead == 0xED ? 0x7FF : size - 1;
        if (lo > 0 || hi < size - 1) { /* too long a spelling, or a surrogate */
            uint32_t o = s.moves;
            for (uint32_t i = 0; i < s.n_move; i++) {
                struct rx_move m = x->move[s.moves + i];
                m.lo = m.lo > lo ? m.lo : lo;
                m.hi = m.hi < hi ? m.hi : hi;
                if (m.lo <= m.hi)
                    x->move[o++] = m;
            }
            s.n_move = o - s.moves;
            x->n_move = o;
        }
        row[lead] = keep_part(x, s, RX_AT_UTF8, k);
    }
}

static void put_plain(struct rx *x, uint32_t *row, const struct rx_move *m)
{
    for (uint32_t c = m->lo; c <= m->hi && c < 0x80; c++)
        row[c] = rx_state_of(x, m->to);
}

static void put_in_string(struct rx *x, uint32_t *row, const struct rx_move *m, uint32_t plane)
{
    uint32_t lo = m->lo - plane, hi = m->hi - plane, to = rx_state_of(x, m->to);
    for (uint32_t c = lo; c <= hi && c < 0x80; c++)
        if (c >= 0x20 && c != '"' && c != '\\')
            row[c] = to;
}

/* Whether a list's character has an escape: in a key only where it needs one; in a string what \u can spell. */
static bool has_escape(const struct rx_move *m, uint32_t plane)
{
    uint32_t lo = m->lo - plane, hi = m->hi - plane;
    if (plane == RX_KEY)
        return lo < 0x20 || (lo <= '"' && hi >= '"') || (lo <= '\\' && hi >= '\\');
    return lo < 0xD800 || (lo <= 0xFFFF && hi >= 0xE000) || (lo <= 0x10000 && hi >= RX_CODE_MAX);
}

/* Moves may change x->move while a row is made: they are read by index. */
static void row_of_node(struct rx *x, uint32_t *row, uint32_t node)
{
    uint32_t n;
    bool escape = false, high = false, high_string = false;
    rx_moves(x, node, &n);
    struct rx_state list = { .moves = x->node[node].moves, .n_move = n };
    uint32_t plane = n > 0 && x->move[list.moves + n - 1].lo >= RX_KEY ? RX_KEY : RX_STRING;
    for (uint32_t i = 0; i < n && !x->failed; i++) {
        struct rx_move m = x->move[list.moves + i];
        if (!rx_live(x, m.to)) /* asked of all before parts of the list are written behind it */
            continue;
        if (m.lo >= RX_STRING) {
            escape = escape || has_escape(&m, plane);
            high_string = high_string || m.hi >= plane + 0x80;
            put_in_string(x, row, &m, plane);
        } else {
            high = high || m.hi >= 0x80;
            put_plain(x, row, &m);
        }
    }
    if (high)
        put_leads(x, row, &list, 0);
    if (high_string)
        put_leads(x, row, &list, plane);
    if (escape) {
        struct rx_state s = { .kind = RX_AT_ESCAPE, .node = node };
        row['\\'] = intern(x, &s);
    }
}

static uint32_t target_in_string(struct rx *x, const struct rx_state *list, uint32_t plane, uint32_t c)
{
    for (uint32_t i = 0; i < list->n_move; i++) {
        struct rx_move m = x->move[list->moves + i];
        if (m.lo <= plane + c && m.hi >= plane + c)
            return rx_state_of(x, m.to);
    }
    return 0;
}

/* What four digits can spell. Pairs of surrogates are taken where all characters beyond U+FFFF lead to the same. */
static uint32_t after_u(struct rx *x, const struct rx_state *list)
{
    struct rx_state s = part(x, list, RX_STRING, 0, 0x10000), whole = { .moves = x->n_move };
    uint32_t pair = RX_EMPTY;
    for (uint32_t i = 0; i < list->n_move; i++) {
        struct rx_move m = x->move[list->moves + i];
        if (m.lo >= RX_STRING && m.lo <= RX_STRING + 0x10000 && m.hi >= RX_STRING + RX_CODE_MAX)
            pair = m.to;
    }
    if (!rx_grow(x, &x->move, &x->move_cap, (uint64_t)x->n_move + 2 * s.n_move + 2, sizeof *x->move))
        return 0;
    /* without surrogates; a high one goes to a state of its own, marked by RX_STRING */
    struct rx_move *to = x->move + x->n_move;
    uint32_t n = 0;
    bool put = false;
    for (uint32_t i = 0; i < s.n_move; i++) {
        struct rx_move m = x->move[s.moves + i];
        if (m.lo < 0xD800)
            to[n++] = (struct rx_move){ m.lo, m.hi < 0xD800 ? m.hi : 0xD7FF, m.to };
        if (m.hi >= 0xD800 && !put && pair != RX_EMPTY) {
            to[n++] = (struct rx_move){ 0xD800, 0xDBFF, pair | 0x80000000u };
            put = true;
        }
        if (m.hi > 0xDFFF)
            to[n++] = (struct rx_move){ m.lo > 0xE000 ? m.lo : 0xE000, m.hi, m.to };
    }
    memmove(x->move + s.moves, to, n * sizeof *to); /* s is not needed any more */
    whole.moves = s.moves;
    whole.n_move = n;
    x->n_move = s.moves + n;
    return keep_part(x, whole, RX_AT_HEX, 4);
}

#define SMALL_DIGITS 8u /* beside RX_AT_HEX's k: in a key there is only one way to write a digit */

/* Controls without a letter of their own, which even a key must spell with four digits. */
static uint32_t after_u_in_key(struct rx *x, const struct rx_state *list)
{
    struct rx_state s = part(x, list, RX_KEY, 0, 0x20), kept = { .moves = x->n_move };
    if (!rx_grow(x, &x->move, &x->move_cap, (uint64_t)x->n_move + 3 * (uint64_t)s.n_move, sizeof *x->move))
        return 0;
    for (uint32_t i = 0; i < s.n_move; i++) {
        static const struct rx_range bare[] = { { 0, 7 }, { 11, 11 }, { 14, 31 } };
        struct rx_move m = x->move[s.moves + i];
        for (size_t k = 0; k < ARRAY_LEN(bare); k++) {
            struct rx_move cut = { m.lo > bare[k].lo ? m.lo : bare[k].lo, m.hi < bare[k].hi ? m.hi : bare[k].hi, m.to };
            if (cut.lo <= cut.hi) {
                x->move[x->n_move++] = cut;
                kept.n_move++;
            }
        }
    }
    memmove(x->move + s.moves, x->move + kept.moves, kept.n_move * sizeof *x->move);
    kept.moves = s.moves;
    x->n_move = s.moves + kept.n_move;
    return keep_part(x, kept, RX_AT_HEX, 4 | SMALL_DIGITS);
}

static void row_of_escape(struct rx *x, uint32_t *row, uint32_t node)
{
    static const char letters[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    uint32_t n;
    rx_moves(x, node, &n);
    struct rx_state list = { .moves = x->node[node].moves, .n_move = n };
    bool key = n > 0 && x->move[list.moves + n - 1].lo >= RX_KEY;
    for (uint32_t i = 0; letters[i]; i++)
        if (!key || letters[i] != '/')
            row[(uint8_t)letters[i]] = target_in_string(x, &list, key ? RX_KEY : RX_STRING, (uint8_t)meant[i]);
    row['u'] = key ? after_u_in_key(x, &list) : after_u(x, &list);
}

/* A list's part without the liveness test and with marked targets: for digits. */
static uint32_t after_digit(struct rx *x, const struct rx_state *s, uint32_t digit)
{
    uint32_t k = s->k & 7u, size = 1u << 4 * (k - 1), from = digit * size;
    struct rx_state out = { .moves = x->n_move };
    for (uint32_t i = 0; i < s->n_move; i++) {
        struct rx_move m = x->move[s->moves + i];
        if (m.hi < from || m.lo >= from + size)
            continue;
        if (k == 1) {
            if (!(m.to & 0x80000000u))
                return rx_state_of(x, m.to);
            struct rx_state low = { .kind = RX_AT_LOW, .k = 6, .node = m.to & 0x7FFFFFFFu };
            return intern(x, &low);
        }
        if (!rx_grow(x, &x->move, &x->move_cap, (uint64_t)x->n_move + 1, sizeof m))
            return 0;
        x->move[x->n_move++] = (struct rx_move){ m.lo > from ? m.lo - from : 0,
            m.hi - from < size ? m.hi - from : size - 1, m.to };
        out.n_move++;
    }
    return keep_part(x, out, RX_AT_HEX, s->k - 1u);
}

static void row_of_hex(struct rx *x, uint32_t *row, const struct rx_state *s)
{
    for (uint32_t d = 0; d < 16 && !x->failed; d++) {
        uint32_t to = after_digit(x, s, d);
        row[d < 10 ? '0' + d : 'a' + d - 10] = to;
        if (d >= 10 && !(s->k & SMALL_DIGITS))
            row['A' + d - 10] = to;
    }
}

/* The second half of a pair: \uDC00 to \uDFFF. */
static void row_of_low(struct rx *x, uint32_t *row, const struct rx_state *s)
{
    struct rx_state next = { .kind = RX_AT_LOW, .k = (uint8_t)(s->k - 1u), .node = s->node };
    uint32_t to = s->k > 1 ? intern(x, &next) : rx_state_of(x, s->node);
    const char *allowed = s->k == 6 ? "\\" : s->k == 5 ? "u" : s->k == 4 ? "dD" : s->k == 3 ? "cdefCDEF" : "0123456789abcdefABCDEF";
    for (uint32_t i = 0; allowed[i]; i++)
        row[(uint8_t)allowed[i]] = to;
}

static void row_of_utf8(struct rx *x, uint32_t *row, const struct rx_state *s)
{
    uint32_t size = 1u << 6 * (s->k - 1);
    for (uint32_t j = 0; j < 64 && !x->failed; j++) {
        if (s->k > 1) {
            row[0x80 + j] = keep_part(x, part(x, s, 0, j * size, size), RX_AT_UTF8, s->k - 1u);
            continue;
        }
        for (uint32_t i = 0; i < s->n_move; i++) {
            struct rx_move m = x->move[s->moves + i];
            if (m.lo <= j && m.hi >= j)
                row[0x80 + j] = rx_state_of(x, m.to);
        }
    }
}

const uint32_t *rx_row(struct rx *x, uint32_t state)
{
    uint32_t row[256] = { 0 }, cap = x->row_cap * 256;
    struct rx_state s = x->state[state];
    if (x->failed)
        return NULL;
    switch (s.kind) {
    case RX_AT_NODE: row_of_node(x, row, s.node); break;
    case RX_AT_UTF8: row_of_utf8(x, row, &s); break;
    case RX_AT_ESCAPE: row_of_escape(x, row, s.node); break;
    case RX_AT_HEX: row_of_hex(x, row, &s); break;
    default: row_of_low(x, row, &s); break;
    }
    if (x->failed || !rx_grow(x, &x->rows, &cap, ((uint64_t)x->n_row + 1) * 256, sizeof *row))
        return NULL;
    x->row_cap = cap / 256;
    memcpy(x->rows + (size_t)x->n_row * 256, row, sizeof row);
    x->state[state].row = x->n_row;
    return x->rows + (size_t)x->n_row++ * 256;
}
