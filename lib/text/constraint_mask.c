/* constraint_mask.c: the set of tokens that may come next. Each configuration gives its part: the tokens that lie within its
 * terminal, which depend on the terminal's state alone and are kept for when it comes back, and those that go beyond its end,
 * which are walked with the frames. Walks are over the vocabulary's trie: a dead prefix costs one step whatever hangs below it.
 */
#include "constraint_int.h"

#define DEPTH_MAX 1024u
#define FEW_IDS 600u /* fewer tokens are kept as a list */

static void set_bit(uint32_t *bits, int32_t id)
{
    bits[id / 32] |= 1u << id % 32;
}

static void clear_bit(uint32_t *bits, int32_t id)
{
    bits[id / 32] &= ~(1u << id % 32);
}

/* ---- within a terminal --------------------------------------------------------------------------------------------------- */

/* How many characters of a slice may follow whatever they are, where after so many none may: then tokens of the slice are told
 * by their length alone. Follows sets of expressions, level by level; gives up where there are many. */
#define LEVEL_MAX 12u

struct level {
    uint32_t node[LEVEL_MAX], n;
};

static bool level_put(struct level *l, uint32_t node)
{
    for (uint32_t i = 0; i < l->n; i++)
        if (l->node[i] == node)
            return true;
    if (l->n == LEVEL_MAX)
        return false;
    l->node[l->n++] = node;
    return true;
}

/* Adds what the node leads to by the slice's characters. *covered: all of them lead somewhere; *any: one does. */
static bool level_step(struct rx *x, uint32_t node, uint32_t plane, const struct trie_chars *c, struct level *to, bool *covered,
    bool *any)
{
    uint32_t n, i = 0;
    rx_moves(x, node, &n);
    *covered = true;
    for (uint32_t k = 0; k < c->n; k++) {
        uint32_t lo = plane + c->range[k].lo, hi = plane + c->range[k].hi, p = lo;
        while (i < n && x->move[x->node[node].moves + i].hi < lo)
            i++;
        for (uint32_t j = i; j < n && p <= hi; j++) {
            struct rx_move m = x->move[x->node[node].moves + j];
            if (m.lo > hi)
                break;
            if (!rx_live(x, m.to))
                continue;
            *covered = *covered && m.lo <= p;
            p = m.hi + 1;
            *any = true;
            if (!level_put(to, m.to))
                return false;
        }
        *covered = *covered && p > hi;
    }
    return true;
}

/* Whether any characters may follow, however many: the texts that end in something, as a pattern that is not anchored allows.
 * Its alternatives are as many as it has places to be in, so that following them would not help. */
static bool takes_any(struct rx *x, uint32_t node)
{
    uint32_t content = x->node[node].kind == RX_KIND_QUOTE ? x->node[node].a : node;
    uint32_t n = x->node[content].kind == RX_KIND_ALT ? x->node[content].n : 1;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t part = x->node[content].kind == RX_KIND_ALT ? x->child[x->node[content].list + i] : content;
        if (part == RX_ALL || (x->node[part].kind == RX_KIND_CAT && x->node[part].a == RX_ALL && rx_live(x, x->node[part].b)))
            return true;
    }
    return false;
}

static bool takes_slice(struct rx *x, uint32_t node, uint32_t plane, const struct trie_chars *c, uint32_t *most)
{
    struct level now = { { node }, 1 }, next;
    for (*most = 0; *most < TRIE_LENGTHS && !x->failed; ++*most) {
        uint32_t n_covered = 0, n_any = 0;
        next.n = 0;
        for (uint32_t i = 0; i < now.n; i++) {
            bool covered, any = false;
            if (!level_step(x, now.node[i], plane, c, &next, &covered, &any))
                return false;
            n_covered += covered;
            n_any += any;
        }
        if (n_any == 0)
            return *most > 0;
        if (n_covered < now.n)
            return false;
        if (next.n == now.n && !memcmp(next.node, now.node, next.n * sizeof *next.node)) {
            *most = TRIE_LENGTHS;
            break;
        }
        now = next;
    }
    return !x->failed;
}

/* The largest slice that is allowed as a whole, or by length; false: none. */
static bool find_slice(struct rx *x, uint32_t state, uint32_t *slice, uint32_t *most)
{
    const struct rx_state *s = &x->state[state];
    uint32_t node = s->node, kind = x->node[node].kind;
    if (s->kind != RX_AT_NODE)
        return false;
    if (kind == RX_KIND_QUOTE && x->node[x->node[node].a].kind == RX_KIND_KEYS) /* what literals allow, other keys do, too */
        node = rx_key_rest(x, x->node[x->node[node].a].a);
    *slice = 0;
    *most = TRIE_LENGTHS;
    if (takes_any(x, node))
        return true;
    for (; *slice < TRIE_SLICES; ++*slice)
        if (takes_slice(x, node, kind == RX_KIND_QUOTE ? x->node[node].b : 0, &trie_slice_chars[*slice], most))
            return true;
    return false;
}

struct find {
    struct con_grammar *g;
    uint32_t *bits;
    struct exit_point *exits;
    uint32_t n_exit, exit_cap;
    bool wants_exits;
};

static bool visit(struct find *f, uint32_t node, uint32_t state)
{
    struct rx *x = &f->g->rx;
    const struct trie_node *t = &f->g->vocab->trie->node[node];
    if (t->id >= 0)
        set_bit(f->bits, t->id);
    if (!f->wants_exits || t->size == 1 || !rx_accepts(x, state))
        return true;
    if (!rx_grow(x, &f->exits, &f->exit_cap, (uint64_t)f->n_exit + 1, sizeof *f->exits))
        return false;
    f->exits[f->n_exit++] = (struct exit_point){ node, rx_label_of(x, state) };
    return true;
}

static void find_all(struct find *f, uint32_t start)
{
    struct rx *x = &f->g->rx;
    const struct trie *t = f->g->vocab->trie;
    uint32_t at[DEPTH_MAX + 1];
    at[0] = start;
    for (uint32_t i = 0; i < t->n && !x->failed;) {
        const struct trie_node *n = &t->node[i];
        uint32_t to = rx_step(x, at[n->depth - 1], n->byte);
        if (to == 0) {
            i += n->size;
            continue;
        }
        at[n->depth] = to;
        if (!visit(f, i, to))
            return;
        i++;
    }
}

/* The same over the nodes that lead to tokens outside a slice; those of the slice are known. */
static void find_rest(struct find *f, uint32_t start, uint32_t slice, uint32_t most)
{
    struct rx *x = &f->g->rx;
    const struct trie *t = f->g->vocab->trie;
    uint32_t at[DEPTH_MAX + 1];
    const uint32_t *shorter = trie_shorter(t, slice, most);
    const struct trie_slice *s = &t->slice[slice];
    for (uint32_t w = 0; w < t->n_word; w++)
        f->bits[w] |= shorter[w];
    at[0] = start;
    for (uint32_t k = 0; k < s->n_rest && !x->failed;) {
        const struct trie_node *n = &t->node[s->rest[k]];
        uint32_t to = rx_step(x, at[n->depth - 1], n->byte);
        if (to == 0) {
            k = s->rest_next[k];
            continue;
        }
        at[n->depth] = to;
        if (!visit(f, s->rest[k], to))
            return;
        k++;
    }
}

static void drop_oldest(struct con_grammar *g)
{
    struct inside *in = g->oldest;
    g->oldest = in->next;
    if (g->oldest == NULL)
        g->newest = NULL;
    g->by_state[in->state] = NULL;
    g->cache_bytes -= in->bytes;
    mem_free(g->mem, in);
}

static uint32_t count_bits(const uint32_t *bits, uint32_t n)
{
    uint32_t total = 0;
    for (uint32_t i = 0; i < n; i++)
        total += (uint32_t)__builtin_popcount(bits[i]);
    return total;
}

static void list_ids(const uint32_t *bits, uint32_t n, int32_t *id)
{
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t w = bits[i]; w; w &= w - 1)
            *id++ = (int32_t)(i * 32 + (uint32_t)__builtin_ctz(w));
}

static void sort_exits(struct exit_point *e, uint32_t n)
{
    for (uint32_t i = 1; i < n; i++) /* found in order; labels are few and mostly one */
        for (uint32_t k = i; k > 0 && e[k].label < e[k - 1].label; k--) {
            struct exit_point swap = e[k];
            e[k] = e[k - 1];
            e[k - 1] = swap;
        }
}

/* One block of memory: the record, then its lists. */
static struct inside *keep(struct con_grammar *g, uint32_t state, const struct find *f)
{
    uint32_t n_word = g->vocab->n_word, n = count_bits(f->bits, n_word);
    size_t list = n <= FEW_IDS ? n * sizeof(int32_t) : n_word * sizeof(uint32_t);
    size_t bytes = sizeof(struct inside) + list + f->n_exit * sizeof *f->exits;
    struct inside *in = mem_alloc(g->mem, bytes);
    if (in == NULL) {
        g->rx.failed = g->rx.failed ? g->rx.failed : GLM_ENOMEM;
        return NULL;
    }
    *in = (struct inside){ .state = state, .n_id = n, .n_exit = f->n_exit, .has_exits = f->wants_exits, .bytes = bytes };
    in->exits = (struct exit_point *)(in + 1);
    char *behind = (char *)(in->exits + f->n_exit);
    if (f->n_exit > 0)
        memcpy(in->exits, f->exits, f->n_exit * sizeof *f->exits);
    sort_exits(in->exits, in->n_exit);
    if (n <= FEW_IDS) {
        in->id = (int32_t *)behind;
        list_ids(f->bits, n_word, in->id);
    } else {
        in->bits = (uint32_t *)behind;
        memcpy(in->bits, f->bits, n_word * sizeof *in->bits);
    }
    g->by_state[state] = in;
    if (g->newest != NULL)
        g->newest->next = in;
    else
        g->oldest = in;
    g->newest = in;
    g->cache_bytes += bytes;
    while (g->cache_bytes > g->cache_max && g->oldest != in)
        drop_oldest(g);
    return in;
}

static const struct inside *inside_of(struct con_grammar *g, uint32_t state, bool wants_exits)
{
    struct rx *x = &g->rx;
    uint32_t old = g->by_state_cap, slice, most;
    if (state < old && g->by_state[state] != NULL && (g->by_state[state]->has_exits || !wants_exits))
        return g->by_state[state];
    struct find f = { .g = g, .wants_exits = wants_exits };
    f.bits = g->scratch_bits;
    memset(f.bits, 0, g->vocab->n_word * sizeof *f.bits);
    if (find_slice(x, state, &slice, &most))
        find_rest(&f, state, slice, most);
    else
        find_all(&f, state);
    const struct inside *in = NULL;
    if (!x->failed && rx_grow(x, &g->by_state, &g->by_state_cap, (uint64_t)x->n_state + 1, sizeof *g->by_state)) {
        if (g->by_state_cap > old)
            memset(g->by_state + old, 0, (g->by_state_cap - old) * sizeof *g->by_state);
        if (g->by_state[state] != NULL) { /* made without exits before */
            struct inside **at = &g->oldest, *last = NULL;
            while (*at != g->by_state[state]) {
                last = *at;
                at = &(*at)->next;
            }
            struct inside *dropped = *at;
            *at = dropped->next;
            if (g->newest == dropped)
                g->newest = last;
            g->cache_bytes -= dropped->bytes;
            mem_free(g->mem, dropped);
        }
        in = keep(g, state, &f);
    }
    mem_free(g->mem, f.exits);
    x->bytes -= (uint64_t)f.exit_cap * sizeof *f.exits;
    return in;
}

/* ---- beyond its end -------------------------------------------------------------------------------------------------------- */

struct mark {
    uint32_t n_config, n_frame, n_words;
};

static struct mark mark_of(const struct con_run *r)
{
    return (struct mark){ r->n_config, r->n_frame, r->n_words };
}

static void forget(struct con_run *r, struct mark m)
{
    r->n_config = m.n_config;
    r->n_frame = m.n_frame;
    r->n_words = m.n_words;
}

/* Whether tokens may go on beyond what this kind waits for. */
static bool has_bytes(uint32_t kind)
{
    return kind != C_TEXT && kind != C_RAW && kind != C_RAW_KEY;
}

/* Tokens below a node of the trie, from configurations [from, from + n) on. */
static void walk_below(struct con_run *r, uint32_t node, uint32_t from, uint32_t n, uint32_t *bits)
{
    const struct trie *t = r->g->vocab->trie;
    struct {
        uint32_t from, n;
        struct mark mark;
    } at[DEPTH_MAX / 8];
    uint32_t top = t->node[node].depth, end = node + t->node[node].size;
    at[0].from = from;
    at[0].n = n;
    at[0].mark = mark_of(r);
    for (uint32_t i = node + 1; i < end && !r->failed;) {
        const struct trie_node *here = &t->node[i];
        uint32_t depth = here->depth - top;
        if (depth >= ARRAY_LEN(at)) {
            i += here->size;
            continue;
        }
        forget(r, at[depth - 1].mark);
        uint32_t first = r->n_config;
        run_step(r, at[depth - 1].from, at[depth - 1].n, here->byte);
        if (r->n_config == first) {
            i += here->size;
            continue;
        }
        at[depth].from = first;
        at[depth].n = r->n_config - first;
        at[depth].mark = mark_of(r);
        if (here->id >= 0)
            set_bit(bits, here->id);
        i++;
    }
    forget(r, at[0].mark);
}

/* The first byte behind an end is the same for many tokens: what it leads to is found once. */
struct first {
    uint32_t from[256], n[256];
    uint8_t known[256];
};

static void walk_exits(struct con_run *r, const struct exit_point *e, uint32_t n_exit, uint32_t from, uint32_t n, uint32_t *bits,
    struct first *first)
{
    const struct trie *t = r->g->vocab->trie;
    memset(first->known, 0, sizeof first->known);
    for (uint32_t i = 0; i < n_exit && !r->failed; i++) {
        uint32_t end = e[i].node + t->node[e[i].node].size;
        for (uint32_t k = e[i].node + 1; k < end; k += t->node[k].size) {
            const struct trie_node *child = &t->node[k];
            if (!first->known[child->byte]) {
                first->known[child->byte] = 1;
                first->from[child->byte] = r->n_config;
                run_step(r, from, n, child->byte);
                first->n[child->byte] = r->n_config - first->from[child->byte];
            }
            if (first->n[child->byte] == 0)
                continue;
            if (child->id >= 0)
                set_bit(bits, child->id);
            if (child->size > 1)
                walk_below(r, k, first->from[child->byte], first->n[child->byte], bits);
        }
    }
}

/* ---- keys: some of a state's tokens may be denied ------------------------------------------------------------------------------ */

/* Takes away the tokens that lead to keys which may not come now; only paths that touch one are walked. */
static void deny_keys(struct con_run *r, const struct config *c, uint32_t *bits)
{
    struct rx *x = &r->g->rx;
    const struct trie *t = r->g->vocab->trie;
    uint32_t at[DEPTH_MAX + 1];
    at[0] = c->state;
    for (uint32_t i = 0; i < t->n && !x->failed;) {
        const struct trie_node *n = &t->node[i];
        uint32_t to = rx_step(x, at[n->depth - 1], n->byte);
        if (to == 0 || !run_key_touched(r, c, to)) {
            i += n->size;
            continue;
        }
        if (!run_key_live(r, c, to)) {
            for (uint32_t k = i; k < i + n->size; k++)
                if (t->node[k].id >= 0)
                    clear_bit(bits, t->node[k].id);
            i += n->size;
            continue;
        }
        at[n->depth] = to;
        i++;
    }
}

static bool denies(const struct con_run *r, const struct config *c)
{
    const struct frame *f = &r->frame[c->frame];
    const uint64_t *deny = run_deny(r, f);
    for (uint32_t w = 0; w < r->g->schema.object[f->shape].n_word; w++)
        if (deny[w])
            return true;
    return false;
}

static void add_inside(const struct inside *in, uint32_t *bits, uint32_t n_word)
{
    if (in->bits == NULL) {
        for (uint32_t i = 0; i < in->n_id; i++)
            set_bit(bits, in->id[i]);
        return;
    }
    for (uint32_t w = 0; w < n_word; w++)
        bits[w] |= in->bits[w];
}

/* ---- keys that were there before ---------------------------------------------------------------------------------------------- */

/* The trie's node that these bytes lead to, or RX_INF. */
static uint32_t find_node(const struct trie *t, const uint8_t *bytes, uint32_t n)
{
    uint32_t i = 0, end = t->n;
    for (uint32_t k = 0; k < n; k++) {
        while (i < end && t->node[i].byte != bytes[k])
            i += t->node[i].size;
        if (i >= end)
            return RX_INF;
        if (k + 1 == n)
            return i;
        end = i + t->node[i].size;
        i++;
    }
    return RX_INF;
}

/* Takes away the tokens with which a key that is no property's would come a second time. */
static void deny_used(struct con_run *r, const struct config *c, uint32_t *bits)
{
    static const char *const before[] = { "", "\"", " \"", ",\"", ", \"" };
    const struct trie *t = r->g->vocab->trie;
    struct rx *x = &r->g->rx;
    uint8_t text[300];
    for (uint32_t pair = r->frame[c->frame].used; pair; pair = (uint32_t)r->words[pair + 1])
        for (size_t k = 0; k < ARRAY_LEN(before) && (k == 0 || c->typed == 0); k++) {
            uint32_t n_before = (uint32_t)strlen(before[k]), n, to = c->state;
            memcpy(text, before[k], n_before);
            if (!run_used_rest(r, c, pair, text + n_before, sizeof text - n_before, &n))
                break;
            bool ends = false; /* before its quote, where nothing else can come */
            uint32_t size = 0;
            for (; size < n_before + n && to != 0 && !ends; size++) {
                to = rx_step(x, to, text[size]);
                ends = to != 0 && size + 2 == n_before + n && run_key_must_end(x, to);
            }
            uint32_t node = to != 0 && (ends || rx_accepts(x, to)) ? find_node(t, text, size) : RX_INF;
            for (uint32_t i = node; node != RX_INF && i < node + t->node[node].size; i++)
                if (t->node[i].id >= 0)
                    clear_bit(bits, t->node[i].id);
        }
}

/* ---- one configuration ------------------------------------------------------------------------------------------------------------ */

static void add_exits(struct con_run *r, struct config c, const struct inside *in, uint32_t *bits)
{
    struct first first;
    struct mark m = mark_of(r);
    for (uint32_t k = 0, end; k < in->n_exit && !r->failed; k = end) {
        uint32_t from = r->n_config;
        for (end = k; end < in->n_exit && in->exits[end].label == in->exits[k].label; end++) {}
        run_exit(r, c, in->exits[k].label, from);
        if (r->n_config > from)
            walk_exits(r, in->exits + k, end - k, from, r->n_config - from, bits, &first);
        forget(r, m);
    }
}

/* A key's tokens are found for themselves: some are taken away again. */
static void add_key(struct con_run *r, struct config c, const struct inside *in, uint32_t *bits)
{
    struct con_grammar *g = r->g;
    uint32_t *part = g->scratch_bits;
    memset(part, 0, g->vocab->n_word * sizeof *part);
    add_inside(in, part, g->vocab->n_word);
    if (denies(r, &c))
        deny_keys(r, &c, part);
    if (has_bytes(c.kind))
        add_exits(r, c, in, part);
    if (c.kind == C_KEY)
        deny_used(r, &c, part);
    for (uint32_t w = 0; w < g->vocab->n_word; w++)
        bits[w] |= part[w];
}

static void add_config(struct con_run *r, uint32_t i, uint32_t *bits)
{
    struct con_grammar *g = r->g;
    struct config c = r->config[i];
    bool key = c.kind == C_KEY || c.kind == C_RAW_KEY;
    if (c.kind == C_FREE)
        for (uint32_t w = 0; w < g->vocab->n_word; w++)
            bits[w] |= g->vocab->normal[w];
    const struct inside *in = c.state != 0 ? inside_of(g, c.state, has_bytes(c.kind)) : NULL;
    if (in == NULL)
        return;
    if (key && (denies(r, &c) || r->frame[c.frame].used)) {
        add_key(r, c, in, bits);
        return;
    }
    add_inside(in, bits, g->vocab->n_word);
    if (has_bytes(c.kind))
        add_exits(r, c, in, bits);
}

/* ---- the mask ----------------------------------------------------------------------------------------------------------------------- */

static void add_specials(const struct con_run *r, uint32_t from, uint32_t n, uint32_t *bits)
{
    static const enum tok_special tags[] = { TOK_THINK, TOK_THINK_END, TOK_TOOL_CALL, TOK_TOOL_CALL_END, TOK_ARG_KEY,
        TOK_ARG_KEY_END, TOK_ARG_VALUE, TOK_ARG_VALUE_END };
    static const enum tok_special stops[] = { TOK_ENDOFTEXT, TOK_USER, TOK_OBSERVATION };
    const int32_t *id = r->g->special;
    for (uint32_t i = from; i < from + n; i++) {
        if (r->config[i].state == 0 || r->config[i].kind == C_GLUE)
            for (size_t k = 0; k < ARRAY_LEN(tags); k++)
                if (id[tags[k]] >= 0 && call_allows(r, &r->config[i], tags[k]))
                    set_bit(bits, id[tags[k]]);
        for (size_t k = 0; k < ARRAY_LEN(stops) && call_can_end(r, &r->config[i]); k++)
            if (id[stops[k]] >= 0)
                set_bit(bits, id[stops[k]]);
    }
}

int32_t con_mask(struct con_run *r, uint32_t *bits, glm_error *err)
{
    const struct moment *now = &r->moment[r->n_moment - 1];
    struct mark m = mark_of(r);
    int32_t rc;
    pthread_mutex_lock(&r->g->lock);
    r->g->rx.work = 0;
    memset(bits, 0, r->g->vocab->n_word * sizeof *bits);
    r->asking = true;
    for (uint32_t i = 0; i < now->n && !r->failed && !r->g->rx.failed; i++)
        add_config(r, now->first + i, bits);
    add_specials(r, now->first, now->n, bits);
    forget(r, m);
    r->asking = false;
    rc = rx_check(&r->g->rx, NULL, err);
    pthread_mutex_unlock(&r->g->lock);
    if (!rc && r->failed)
        rc = r->failed == GLM_ENOMEM ? err_nomem(err, "a mask")
            : err_set(err, r->failed, 0, NULL, "the grammar is in more states at once than its limits allow");
    r->failed = 0;
    return rc;
}
