/* constraint_object.c: the members of an object as they come, in any order: which keys may still be taken, which value each
 * must have, and when the object may close.
 */
#include "constraint_int.h"

static const struct object_shape *shape_of(const struct con_run *r, const struct frame *f)
{
    return &r->g->schema.object[f->shape];
}

static const uint64_t *seen_of(const struct con_run *r, const struct frame *f)
{
    return f->set ? r->words + f->set : &f->seen;
}

const uint64_t *run_deny(const struct con_run *r, const struct frame *f)
{
    return f->set ? r->words + f->set + shape_of(r, f)->n_word : &f->deny;
}

static bool has(const uint64_t *set, uint32_t i)
{
    return set[i / 64] >> i % 64 & 1;
}

static bool word_room(struct con_run *r, uint32_t need)
{
    uint32_t cap = r->words_cap ? r->words_cap : 64;
    if (need <= r->words_cap)
        return true;
    while (cap < need)
        cap *= 2;
    uint64_t *grown = r->failed || cap > 1u << 26 ? NULL : mem_resize(r->mem, r->words, cap * sizeof *grown);
    if (grown == NULL) {
        r->failed = r->failed ? r->failed : GLM_ENOMEM;
        return false;
    }
    r->words = grown;
    r->words_cap = cap;
    return true;
}

/* Room for both sets of a shape with many keys; false: they fit into the frame, or failed. */
static bool take_words(struct con_run *r, struct frame *f)
{
    uint32_t n = shape_of(r, f)->n_word, old = f->set;
    if (n <= 1 || !word_room(r, r->n_words + 2 * n))
        return false;
    f->set = r->n_words;
    r->n_words += 2 * n;
    if (old)
        memcpy(r->words + f->set, r->words + old, 2 * n * sizeof *r->words);
    else
        memset(r->words + f->set, 0, 2 * n * sizeof *r->words);
    return true;
}

/* ---- what is missing ------------------------------------------------------------------------------------------------------ */

/* Keys that must still come if `extra` (or RX_NO_LABEL) comes now, extra not among them. */
static uint32_t n_missing(const struct con_run *r, const struct frame *f, uint32_t extra)
{
    const struct object_shape *o = shape_of(r, f);
    const uint64_t *seen = seen_of(r, f);
    uint64_t due[64] = { 0 };
    uint32_t n = 0, n_word = o->n_word < 64 ? o->n_word : 64;
    for (uint32_t w = 0; w < n_word; w++)
        due[w] = o->required[w] & ~seen[w];
    for (bool changed = o->n_implied > 0; changed;) {
        changed = false;
        for (uint32_t i = 0; i < o->n_implied; i++) {
            uint32_t a = o->then[i][0], b = o->then[i][1];
            if ((has(seen, a) || a == extra || has(due, a)) && !has(seen, b) && !has(due, b)) {
                due[b / 64] |= 1ull << b % 64;
                changed = true;
            }
        }
    }
    for (uint32_t w = 0; w < n_word; w++)
        n += (uint32_t)__builtin_popcountll(due[w]);
    return n - (extra < o->n_key && has(due, extra));
}

bool run_object_may_close(const struct con_run *r, const struct frame *f)
{
    const struct object_shape *o = shape_of(r, f);
    const uint64_t *seen = seen_of(r, f);
    if (f->count < o->min || f->met != (1u << o->n_some) - 1)
        return false;
    for (uint32_t w = 0; w < o->n_word; w++)
        if (o->required[w] & ~seen[w])
            return false;
    for (uint32_t i = 0; i < o->n_implied; i++)
        if (has(seen, o->then[i][0]) && !has(seen, o->then[i][1]))
            return false;
    return true;
}

/* Whether the conditions that are not met yet can be, with the keys that are left. */
static bool conditions_feasible(const struct con_run *r, const struct frame *f, const uint64_t *deny, uint32_t met)
{
    const struct schema *s = &r->g->schema;
    const struct object_shape *o = shape_of(r, f);
    for (uint32_t k = 0; k < o->n_some; k++) {
        bool possible = met >> k & 1;
        for (uint32_t i = 0; i < o->n_key + o->n_class && !possible; i++)
            possible = (o->meets[i] >> k & 1) && s->term[o->variant[i][1u << k]].live && (i >= o->n_key || !has(deny, i));
        if (!possible)
            return false;
    }
    return true;
}

/* ---- next ------------------------------------------------------------------------------------------------------------------- */

/* Sets f's deny; returns whether keys of classes may come. */
static bool find_denied(struct con_run *r, struct frame *f)
{
    const struct object_shape *o = shape_of(r, f);
    uint64_t *deny = f->set ? r->words + f->set + o->n_word : &f->deny;
    const uint64_t *seen = seen_of(r, f);
    for (uint32_t w = 0; w < o->n_word; w++)
        deny[w] = seen[w] | o->dead[w];
    if (o->max == COUNT_INF)
        return true;
    uint32_t left = o->max - (f->count < o->max ? f->count : o->max);
    for (uint32_t i = 0; i < o->n_key; i++)
        if (left == 0 || (!has(deny, i) && n_missing(r, f, i) > left - 1))
            deny[i / 64] |= 1ull << i % 64;
    return left > 0 && n_missing(r, f, RX_NO_LABEL) <= left - 1;
}

static bool any_key(const struct con_run *r, const struct frame *f)
{
    const struct object_shape *o = shape_of(r, f);
    const uint64_t *deny = run_deny(r, f);
    for (uint32_t i = 0; i < o->n_key; i += 64) {
        uint64_t all = o->n_key - i >= 64 ? ~0ull : (1ull << (o->n_key - i)) - 1;
        if (~deny[i / 64] & all)
            return true;
    }
    return false;
}

static bool is_raw(const struct con_run *r, const struct frame *f);

/* f: its members so far. Puts what can follow: another key, the end. */
void run_object_next(struct con_run *r, struct frame f, bool first, uint32_t base)
{
    struct con_grammar *g = r->g;
    const struct object_shape *o = shape_of(r, &f);
    take_words(r, &f);
    if (r->failed)
        return;
    bool classes = find_denied(r, &f);
    if (!conditions_feasible(r, &f, run_deny(r, &f), f.met))
        return;
    uint32_t node = first ? o->first[!classes] : o->next[!classes];
    bool key = any_key(r, &f) || (classes && node != (first ? o->first[1] : o->next[1]));
    bool close = run_object_may_close(r, &f);
    if (!key && !close)
        return;
    f.classes = classes;
    uint32_t at = run_frame(r, f);
    if (is_raw(r, &f)) {
        run_put(r, (struct config){ .kind = C_ARGUMENTS, .frame = at }, base);
        return;
    }
    if (key && node != RX_EMPTY) {
        struct config c = { .kind = C_KEY, .state = rx_state_of(&g->rx, node), .frame = at };
        if (c.state != 0)
            run_put(r, c, base);
    }
    if (close)
        run_put(r, (struct config){ .kind = C_OBJECT_CLOSE, .state = g->punct[1][0], .frame = at }, base);
}

/* ---- keys ---------------------------------------------------------------------------------------------------------------------- */

uint32_t run_type(struct con_run *r, uint32_t before, uint8_t byte)
{
    if (!word_room(r, r->n_words + 1))
        return 0;
    r->words[r->n_words] = typed_word(before, before ? typed_size(r->words[before]) + 1 : 1, byte);
    return r->n_words++;
}

static bool same_key(const struct con_run *r, uint32_t a, uint32_t b)
{
    for (; a != b && a && b; a = (uint32_t)(r->words[a] >> 32), b = (uint32_t)(r->words[b] >> 32))
        if ((uint32_t)r->words[a] != (uint32_t)r->words[b]) /* size and byte */
            return false;
    return a == b;
}

static bool is_used(const struct con_run *r, const struct frame *f, uint32_t typed)
{
    for (uint32_t at = f->used; at; at = (uint32_t)r->words[at + 1])
        if (same_key(r, (uint32_t)r->words[at], typed))
            return true;
    return false;
}

static bool note_used(struct con_run *r, struct frame *f, uint32_t typed)
{
    if (!word_room(r, r->n_words + 2))
        return false;
    r->words[r->n_words] = typed;
    r->words[r->n_words + 1] = f->used;
    f->used = r->n_words;
    r->n_words += 2;
    return true;
}

/* A key that has no room for another character. */
bool run_key_must_end(struct rx *x, uint32_t state)
{
    const struct rx_state *s = &x->state[state];
    const struct rx_node *n = &x->node[s->node];
    uint32_t n_move;
    if (s->kind != RX_AT_NODE || n->kind != RX_KIND_QUOTE || !x->node[n->a].nullable)
        return false;
    uint32_t content = n->a;
    rx_moves(x, content, &n_move);
    for (uint32_t i = 0; i < n_move; i++)
        if (rx_live(x, x->move[x->node[content].moves + i].to))
            return false;
    return true;
}

bool run_key_is_used_up(struct con_run *r, const struct config *c, uint32_t state)
{
    const struct frame *f = &r->frame[c->frame];
    if (f->used == 0 || !run_key_must_end(&r->g->rx, state))
        return false;
    uint32_t n_words = r->n_words, whole = run_type(r, c->typed, '"');
    bool used = is_used(r, &r->frame[c->frame], whole);
    r->n_words = n_words;
    return used;
}

/* The i-th used key's bytes that follow what is typed, with the quote that ends it; false: it begins otherwise. */
bool run_used_rest(const struct con_run *r, const struct config *c, uint32_t pair, uint8_t *rest, uint32_t max, uint32_t *n)
{
    uint32_t at = (uint32_t)r->words[pair], size = typed_size(r->words[at]);
    uint32_t have = c->typed ? typed_size(r->words[c->typed]) : 0;
    if (size <= have || size - have > max)
        return false;
    *n = size - have;
    for (uint32_t i = *n; i-- > 0; at = (uint32_t)(r->words[at] >> 32))
        rest[i] = (uint8_t)r->words[at];
    return have == 0 || same_key(r, at, c->typed);
}

void run_object_key(struct con_run *r, const struct config *c, uint32_t label, uint32_t base)
{
    struct frame f = r->frame[c->frame];
    const struct object_shape *o = shape_of(r, &f);
    if (label < o->n_key && has(run_deny(r, &f), label))
        return;
    if (label >= o->n_key && !r->asking && (is_used(r, &f, c->typed) || !note_used(r, &f, c->typed)))
        return;
    f.label = label;
    uint32_t at = run_frame(r, f);
    if (c->kind == C_RAW_KEY)
        run_put(r, (struct config){ .kind = C_KEY_END, .frame = at }, base);
    else
        run_put(r, (struct config){ .kind = C_COLON, .state = r->g->punct[5][0], .frame = at }, base);
}

/* The arguments of a call are an object whose keys and values are written between tags. */
static bool is_raw(const struct con_run *r, const struct frame *f)
{
    return r->frame[f->parent].kind == F_CALL;
}

static void put_value(struct con_run *r, struct frame f, uint32_t term, uint32_t base)
{
    uint32_t at = run_frame(r, f);
    if (is_raw(r, &f))
        call_argument(r, term, at, base);
    else
        run_value(r, term, at, 1, base);
}

/* The values that the property under way may have: plain, or such that conditions are met by them. */
void run_object_values(struct con_run *r, uint32_t frame, uint32_t base)
{
    const struct schema *s = &r->g->schema;
    struct frame f = r->frame[frame];
    const struct object_shape *o = shape_of(r, &f);
    if (o->n_some == 0) {
        put_value(r, f, o->child[f.label], base);
        return;
    }
    uint64_t deny[64] = { 0 };
    for (uint32_t w = 0; w < o->n_word && w < ARRAY_LEN(deny); w++)
        deny[w] = run_deny(r, &f)[w];
    if (f.label < o->n_key)
        deny[f.label / 64] |= 1ull << f.label % 64;
    for (uint32_t set = 0; set < 1u << o->n_some; set++) {
        if ((set & ~(uint32_t)o->meets[f.label]) || (set & f.met) || !s->term[o->variant[f.label][set]].live ||
            !conditions_feasible(r, &f, deny, f.met | set))
            continue;
        f.variant = (uint8_t)set;
        put_value(r, f, o->variant[f.label][set], base);
    }
}

bool run_object_any_key(const struct con_run *r, uint32_t frame)
{
    const struct frame *f = &r->frame[frame];
    const struct object_shape *o = shape_of(r, f);
    return any_key(r, f) || (f->classes && o->raw[0] != o->raw[1]);
}

void run_object_raw_key(struct con_run *r, uint32_t frame, uint32_t base)
{
    const struct frame *f = &r->frame[frame];
    struct config c = { .kind = C_RAW_KEY, .frame = frame };
    c.state = rx_state_of(&r->g->rx, shape_of(r, f)->raw[!f->classes]);
    if (c.state != 0 && run_object_any_key(r, frame))
        run_put(r, c, base);
}

void run_object_value_done(struct con_run *r, const struct frame *from, uint32_t base)
{
    struct frame f = *from;
    const struct object_shape *o = shape_of(r, &f);
    take_words(r, &f);
    if (r->failed)
        return;
    if (f.label < o->n_key) {
        uint64_t *seen = f.set ? r->words + f.set : &f.seen;
        seen[f.label / 64] |= 1ull << f.label % 64;
    }
    f.count += f.count < COUNT_INF - 2;
    f.met |= f.variant;
    f.variant = 0;
    f.label = 0;
    run_object_next(r, f, false, base);
}

/* ---- keys within their spelling -------------------------------------------------------------------------------------------------- */

/* The literals that a node can still become, [*lo, *hi), and whether it can become anything else. */
static bool key_range(const struct con_run *r, uint32_t node, uint32_t *lo, uint32_t *hi, bool *inside)
{
    const struct rx *x = &r->g->rx;
    const struct rx_node *n = &x->node[node];
    *lo = *hi = 0;
    *inside = true;
    if (n->kind == RX_KIND_QUOTE)
        n = &x->node[n->a];
    if (n->kind == RX_KIND_KEYS) {
        *lo = n->lo;
        *hi = n->hi;
        return n->a != RX_EMPTY;
    }
    if (n->kind == RX_KIND_LABEL) {
        *lo = n->b;
        *hi = n->b + 1;
        return false;
    }
    if (n->kind == RX_KIND_CAT) /* what stands before the first character of a key */
        *inside = x->node[n->a].kind == RX_KIND_LABEL || x->node[n->b].kind == RX_KIND_LABEL;
    return true;
}

static bool node_live(const struct con_run *r, const struct frame *f, uint32_t node)
{
    const struct object_shape *o = &r->g->schema.object[f->shape];
    const uint64_t *deny = run_deny(r, f);
    uint32_t lo, hi;
    bool inside;
    if (key_range(r, node, &lo, &hi, &inside) || lo >= o->n_key)
        return true;
    for (uint32_t i = lo; i < hi; i++)
        if (!has(deny, i))
            return true;
    return false;
}

static bool node_touched(const struct con_run *r, const struct frame *f, uint32_t node)
{
    const struct object_shape *o = &r->g->schema.object[f->shape];
    const uint64_t *deny = run_deny(r, f);
    uint32_t lo, hi;
    bool inside;
    key_range(r, node, &lo, &hi, &inside);
    for (uint32_t i = lo; i < hi && i < o->n_key; i++)
        if (has(deny, i))
            return true;
    return !inside;
}

bool run_key_live(struct con_run *r, const struct config *c, uint32_t state)
{
    const struct rx *x = &r->g->rx;
    const struct rx_state *s = &x->state[state];
    const struct frame *f = &r->frame[c->frame];
    uint32_t n = 0, moves;
    if (s->kind == RX_AT_ESCAPE) { /* another character will come: the key may not end here */
        rx_moves(&r->g->rx, s->node, &n);
        moves = x->node[s->node].moves;
        for (uint32_t i = 0; i < n; i++)
            if (x->move[moves + i].lo >= RX_KEY && node_live(r, f, x->move[moves + i].to))
                return true;
        return false;
    }
    if (s->n_move == 0)
        return node_live(r, f, s->node);
    for (uint32_t i = 0; i < s->n_move; i++)
        if (node_live(r, f, x->move[s->moves + i].to & 0x7FFFFFFFu))
            return true;
    return false;
}

bool run_key_touched(struct con_run *r, const struct config *c, uint32_t state)
{
    const struct rx *x = &r->g->rx;
    const struct rx_state *s = &x->state[state];
    const struct frame *f = &r->frame[c->frame];
    if (s->n_move == 0)
        return node_touched(r, f, s->node);
    for (uint32_t i = 0; i < s->n_move; i++)
        if (node_touched(r, f, x->move[s->moves + i].to & 0x7FFFFFFFu))
            return true;
    return false;
}
