/* rx_move.c: derivatives. The moves of an expression say for each range of symbols which expression is left after one of
 * them. They are made when they are first asked for, from those of the operands, and kept. Also what is asked of a whole
 * language: whether it is empty, whether a text belongs to it.
 */
#include "rx.h"

#include <string.h>

#define SEARCH_MAX 2500u /* expressions looked at before a language counts as not empty */

/* ---- lists in the making ------------------------------------------------------------------------------------------- */

static void push(struct rx *x, uint32_t lo, uint32_t hi, uint32_t to, uint32_t base)
{
    if (to == RX_EMPTY || lo > hi)
        return;
    if (x->n_scratch > base) {
        struct rx_move *last = &x->scratch[x->n_scratch - 1];
        if (last->to == to && last->hi + 1 == lo) {
            last->hi = hi;
            return;
        }
    }
    if (rx_grow(x, &x->scratch, &x->scratch_cap, (uint64_t)x->n_scratch + 1, sizeof *x->scratch))
        x->scratch[x->n_scratch++] = (struct rx_move){ lo, hi, to };
}

/* Lists are named by where they begin in x->move and how long they are. */
struct list {
    uint32_t at, n;
};

static struct list moves_of(struct rx *x, uint32_t node)
{
    struct list l;
    rx_moves(x, node, &l.n);
    l.at = x->node[node].moves;
    return l;
}

/* Lists of many ranges mostly go to and fro between two sets of targets. */
#define SEEN_MAX 16u
struct seen_targets {
    uint32_t to[SEEN_MAX], n, joined;
};

static uint32_t join_targets(struct rx *x, const uint32_t *to, uint32_t n, bool all, struct seen_targets *seen)
{
    for (uint32_t i = 0; i < 2; i++)
        if (seen[i].n == n && !memcmp(seen[i].to, to, n * sizeof *to))
            return seen[i].joined;
    struct seen_targets new = { .n = n <= SEEN_MAX ? n : 0 };
    if (new.n > 0)
        memcpy(new.to, to, n * sizeof *to);
    new.joined = all ? rx_and_list(x, to, n) : rx_alt_list(x, to, n);
    seen[1] = seen[0];
    seen[0] = new;
    return new.joined;
}

/* Walks n lists side by side; cursor: [n] list starts, [n] ends, [n] targets. Calls for each stretch on which no list
 * changes. all: a stretch counts only where every list has a move. */
static void sweep(struct rx *x, uint32_t n, bool all, uint32_t base)
{
    uint32_t p = 0;
    struct seen_targets seen[2] = { { .n = 0 }, { .n = 0 } };
    while (!x->failed) {
        uint32_t *at = x->cursor, *end = at + n, *to = end + n, n_to = 0, next = UINT32_MAX;
        for (uint32_t i = 0; i < n; i++) {
            while (at[i] < end[i] && x->move[at[i]].hi < p)
                at[i]++;
            if (at[i] == end[i]) {
                if (all)
                    return;
                continue;
            }
            const struct rx_move *m = &x->move[at[i]];
            uint32_t stop = m->lo > p ? m->lo - 1 : m->hi;
            next = stop < next ? stop : next;
            if (m->lo <= p)
                to[n_to++] = m->to;
        }
        if (next == UINT32_MAX)
            return;
        if (n_to > 0 && (!all || n_to == n)) {
            push(x, p, next, n_to == 1 ? to[0] : join_targets(x, to, n_to, all, seen), base);
        }
        x->work += n / 16; /* long lists are work, too */
        p = next + 1;
    }
}

static void sweep_children(struct rx *x, uint32_t node, bool all, uint32_t base)
{
    uint32_t n = x->node[node].n;
    for (uint32_t i = 0; i < n; i++)
        moves_of(x, x->child[x->node[node].list + i]);
    if (!rx_grow(x, &x->cursor, &x->cursor_cap, 3 * (uint64_t)n, sizeof *x->cursor))
        return;
    for (uint32_t i = 0; i < n; i++) {
        struct list l = moves_of(x, x->child[x->node[node].list + i]);
        x->cursor[i] = l.at;
        x->cursor[n + i] = l.at + l.n;
    }
    sweep(x, n, all, base);
}

/* Appends the list with `then` behind each target. */
static void follow(struct rx *x, struct list l, uint32_t then, uint32_t base)
{
    for (uint32_t i = 0; i < l.n; i++) {
        struct rx_move m = x->move[l.at + i];
        push(x, m.lo, m.hi, rx_cat(x, m.to, then), base);
    }
}

/* Two lists that both lie in scratch, from base and from mid on, become one. */
static void unite(struct rx *x, uint32_t base, uint32_t mid)
{
    uint32_t i = base, k = mid, end = x->n_scratch, p = 0;
    while (!x->failed && (i < mid || k < end)) {
        struct rx_move a = { UINT32_MAX, UINT32_MAX, 0 }, b = a;
        if (i < mid)
            a = x->scratch[i];
        if (k < end)
            b = x->scratch[k];
        uint32_t lo = a.lo > p ? a.lo : p, lo_b = b.lo > p ? b.lo : p, stop;
        bool in_a = i < mid && lo <= lo_b, in_b = k < end && lo_b <= lo;
        uint32_t from = lo < lo_b ? lo : lo_b;
        stop = in_a ? a.hi : b.hi;
        if (in_a && in_b)
            stop = a.hi < b.hi ? a.hi : b.hi;
        else if (in_a && k < end && b.lo <= stop)
            stop = b.lo - 1;
        else if (in_b && i < mid && a.lo <= stop)
            stop = a.lo - 1;
        push(x, from, stop, in_a && in_b ? rx_alt(x, a.to, b.to) : in_a ? a.to : b.to, end);
        p = stop + 1;
        i += i < mid && a.hi <= stop;
        k += k < end && b.hi <= stop;
    }
    uint32_t n = x->n_scratch - end;
    memmove(x->scratch + base, x->scratch + end, n * sizeof *x->scratch);
    x->n_scratch = base + n;
}

/* ---- one kind after the other ------------------------------------------------------------------------------------------ */

static void move_cat(struct rx *x, uint32_t a, uint32_t b, uint32_t base)
{
    for (;;) { /* along a chain of parts that may be empty */
        uint32_t mid = x->n_scratch;
        follow(x, moves_of(x, a), b, mid);
        if (mid > base)
            unite(x, base, mid);
        if (!x->node[a].nullable || x->failed)
            return;
        if (x->node[b].kind != RX_KIND_CAT)
            break;
        a = x->node[b].a;
        b = x->node[b].b;
    }
    struct list l = moves_of(x, b);
    uint32_t mid = x->n_scratch;
    follow(x, l, RX_EPS, mid);
    unite(x, base, mid);
}

static void move_not(struct rx *x, uint32_t a, uint32_t base)
{
    struct list l = moves_of(x, a);
    uint32_t p = 0;
    for (uint32_t i = 0; i < l.n; i++) {
        struct rx_move m = x->move[l.at + i];
        if (m.lo > p)
            push(x, p, m.lo - 1, RX_ALL, base);
        push(x, m.lo, m.hi, rx_not(x, m.to), base);
        p = m.hi + 1;
    }
    if (p <= RX_CODE_MAX)
        push(x, p, RX_CODE_MAX, RX_ALL, base);
}

static void move_rep(struct rx *x, uint32_t node, uint32_t base)
{
    struct rx_node n = x->node[node];
    struct list l = moves_of(x, n.a);
    uint32_t then = rx_rep(x, n.a, n.lo > 0 ? n.lo - 1 : 0, n.hi == RX_INF ? RX_INF : n.hi - 1);
    follow(x, l, then, base);
}

static void move_quote(struct rx *x, uint32_t a, uint32_t plane, uint32_t base)
{
    struct list l = moves_of(x, a);
    if (x->node[a].nullable)
        push(x, '"', '"', x->node[a].label == RX_NO_LABEL ? RX_EPS : rx_label(x, x->node[a].label), base);
    for (uint32_t i = 0; i < l.n; i++) {
        struct rx_move m = x->move[l.at + i];
        push(x, plane + m.lo, plane + m.hi, plane == RX_KEY ? rx_key_rest(x, m.to) : rx_quote_rest(x, m.to), base);
    }
}

/* Literals of a set share what they begin with, so those that go on with the same character are neighbours. */
static void move_keys(struct rx *x, uint32_t node, uint32_t base)
{
    struct rx_node n = x->node[node];
    struct list other = moves_of(x, n.a);
    const struct rx_literals *l = &x->literals[n.b];
    uint32_t i = n.lo + (l->text[n.lo].size == n.depth), k = 0, p = 0;
    while (i < n.hi && !x->failed) {
        uint32_t c = 0, end = i + 1;
        uint32_t size = utf8_decode(l->text[i].text + n.depth, l->text[i].size - n.depth, &c);
        while (end < n.hi && l->text[end].size >= n.depth + size &&
               !memcmp(l->text[end].text + n.depth, l->text[i].text + n.depth, size))
            end++;
        uint32_t beside = RX_EMPTY;
        for (; k < other.n && x->move[other.at + k].lo < c; k++) { /* what comes before c */
            struct rx_move m = x->move[other.at + k];
            push(x, m.lo > p ? m.lo : p, m.hi < c ? m.hi : c - 1, m.to, base);
            if (m.hi >= c)
                break;
        }
        if (k < other.n && x->move[other.at + k].lo <= c && x->move[other.at + k].hi >= c)
            beside = x->move[other.at + k].to;
        push(x, c, c, rx_keys(x, n.b, i, end, n.depth + size, beside), base);
        l = &x->literals[n.b];
        p = c + 1;
        i = end;
    }
    for (; k < other.n; k++) {
        struct rx_move m = x->move[other.at + k];
        push(x, m.lo > p ? m.lo : p, m.hi, m.to, base);
    }
}

static void make(struct rx *x, uint32_t node, uint32_t base)
{
    struct rx_node n = x->node[node];
    switch (n.kind) {
    case RX_KIND_SET:
        for (uint32_t i = 0; i < n.n; i++)
            push(x, x->range[n.list + i].lo, x->range[n.list + i].hi, RX_EPS, base);
        break;
    case RX_KIND_CAT: move_cat(x, n.a, n.b, base); break;
    case RX_KIND_ALT: sweep_children(x, node, false, base); break;
    case RX_KIND_AND: sweep_children(x, node, true, base); break;
    case RX_KIND_NOT: move_not(x, n.a, base); break;
    case RX_KIND_REP: move_rep(x, node, base); break;
    case RX_KIND_QUOTE: move_quote(x, n.a, n.b, base); break;
    case RX_KIND_KEYS: move_keys(x, node, base); break;
    case RX_KIND_MOD: rx_mod_moves(x, node); break;
    default: break;
    }
}

const struct rx_move *rx_moves(struct rx *x, uint32_t node, uint32_t *n)
{
    *n = 0;
    if (x->node[node].n_move == RX_INF && !x->failed) {
        uint32_t base = x->n_scratch;
        if (++x->depth > RX_DEPTH_MAX)
            x->failed = GLM_ELIMIT;
        else
            make(x, node, base);
        x->depth--;
        uint32_t made = x->failed ? 0 : x->n_scratch - base;
        if (!rx_grow(x, &x->move, &x->move_cap, (uint64_t)x->n_move + made, sizeof *x->move)) {
            x->n_scratch = base;
            return NULL;
        }
        if (made > 0)
            memcpy(x->move + x->n_move, x->scratch + base, made * sizeof *x->move);
        x->n_scratch = base;
        x->node[node].moves = x->n_move;
        x->node[node].n_move = made;
        x->n_move += made;
    }
    if (x->failed || x->node[node].n_move == 0)
        return NULL;
    *n = x->node[node].n_move;
    return x->move + x->node[node].moves;
}

/* ---- languages --------------------------------------------------------------------------------------------------------- */

static bool is_known(const struct rx *x, uint32_t id, bool *live)
{
    const struct rx_node *n = &x->node[id];
    *live = n->live == RX_LIVE_YES || n->nullable || (!n->has_not && n->kind != RX_KIND_EMPTY && n->kind != RX_KIND_MOD);
    return *live || n->live == RX_LIVE_NO;
}

/* Depth first. On a find all that is on the path is live; when nothing is left, nothing that was seen is. The stack holds
 * pairs: an expression, and how many of its moves have been tried. `seen` follows behind. */
bool rx_live(struct rx *x, uint32_t start)
{
    bool live = false;
    if (is_known(x, start, &live))
        return live;
    uint32_t n_path = 1, n_seen = 1, cap = SEARCH_MAX;
    if (!rx_grow(x, &x->stack, &x->stack_cap, 64, sizeof *x->stack))
        return false;
    uint32_t *seen = NULL, seen_cap = 0;
    if (!rx_grow(x, &seen, &seen_cap, 64, sizeof *seen))
        return false;
    x->stack[0] = start;
    x->stack[1] = 0;
    seen[0] = start;
    x->node[start].live = RX_LIVE_VISITED;
    while (n_path > 0 && !live && !x->failed) {
        uint32_t at = x->stack[2 * n_path - 2], *tried = &x->stack[2 * n_path - 1], n;
        const struct rx_move *m = rx_moves(x, at, &n);
        for (uint32_t i = *tried; *tried == 0 && i < n && !live; i++) /* near ones first */
            is_known(x, m[i].to, &live);
        if (live || n_seen >= cap)
            break;
        while (*tried < n && x->node[m[*tried].to].live != RX_LIVE_UNKNOWN)
            ++*tried;
        if (*tried == n) {
            n_path--;
            continue;
        }
        uint32_t to = m[(*tried)++].to;
        if (!rx_grow(x, &x->stack, &x->stack_cap, 2 * (uint64_t)n_path + 2, sizeof *x->stack) ||
            !rx_grow(x, &seen, &seen_cap, (uint64_t)n_seen + 1, sizeof *seen))
            break;
        x->node[to].live = RX_LIVE_VISITED;
        x->stack[2 * n_path] = to;
        x->stack[2 * n_path + 1] = 0;
        n_path++;
        seen[n_seen++] = to;
    }
    live = live || (n_seen >= cap && n_path > 0);
    for (uint32_t i = 0; i < n_seen; i++)
        x->node[seen[i]].live = live || x->failed ? RX_LIVE_UNKNOWN : RX_LIVE_NO;
    for (uint32_t i = 0; i < n_path && live; i++)
        x->node[x->stack[2 * i]].live = RX_LIVE_YES;
    mem_free(x->mem, seen);
    x->bytes -= (uint64_t)seen_cap * sizeof *seen;
    return live;
}

bool rx_match(struct rx *x, uint32_t node, const char *text, size_t size)
{
    for (size_t i = 0; i < size;) {
        uint32_t c, n, k = 0, step = utf8_decode(text + i, size - i, &c);
        const struct rx_move *m = rx_moves(x, node, &n);
        while (k < n && m[k].hi < c)
            k++;
        if (step == 0 || k == n || m[k].lo > c)
            return false;
        node = m[k].to;
        i += step;
    }
    return x->node[node].nullable;
}

bool rx_disjoint(struct rx *x, uint32_t a, uint32_t b)
{
    return !rx_live(x, rx_and(x, a, b));
}

uint32_t rx_count(struct rx *x, uint32_t node, uint32_t most)
{
    uint64_t total = 0;
    uint32_t n_open = 1, budget = 4096, *open = NULL, cap = 0;
    if (most == 0 || !rx_live(x, node) || !rx_grow(x, &open, &cap, 64, sizeof *open))
        return 0;
    open[0] = node;
    open[1] = 1;
    while (n_open > 0 && total < most && !x->failed) {
        uint32_t at = open[2 * --n_open], times = open[2 * n_open + 1], n;
        total += x->node[at].nullable ? times : 0;
        const struct rx_move *m = rx_moves(x, at, &n);
        if (budget < n) { /* too many to be few */
            total = most;
            break;
        }
        budget -= n;
        for (uint32_t i = 0; i < n; i++) {
            uint32_t to = x->move[x->node[at].moves + i].to;
            uint64_t width = (uint64_t)(m[i].hi - m[i].lo + 1) * times;
            if (!rx_live(x, to) || !rx_grow(x, &open, &cap, 2 * (uint64_t)n_open + 2, sizeof *open))
                continue;
            m = x->move + x->node[at].moves;
            open[2 * n_open] = to;
            open[2 * n_open++ + 1] = width < most ? (uint32_t)width : most;
        }
    }
    mem_free(x->mem, open);
    x->bytes -= (uint64_t)cap * sizeof *open;
    return total < most ? (uint32_t)total : most;
}
