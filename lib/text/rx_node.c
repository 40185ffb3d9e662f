/* rx_node.c: making expressions. Equal ones are one node: constructors bring their operands into a normal form (flat, sorted,
 * without what cannot matter) and look it up, which is what keeps derivatives finite.
 */
#include "rx.h"

#include <string.h>

bool rx_grow(struct rx *x, void *array, uint32_t *capacity, uint64_t need, size_t element)
{
    void *old;
    uint64_t want = *capacity ? *capacity : 64;
    if (need <= *capacity)
        return true;
    while (want < need)
        want += want / 2;
    if (x->failed)
        return false;
    uint64_t more = (want - *capacity) * element;
    if (want > UINT32_MAX / 2 || (x->byte_max && x->bytes + more > x->byte_max)) {
        x->failed = GLM_ELIMIT;
        return false;
    }
    memcpy(&old, array, sizeof old);
    void *grown = mem_resize(x->mem, old, (size_t)want * element);
    if (grown == NULL) {
        x->failed = GLM_ENOMEM;
        return false;
    }
    x->bytes += more;
    memcpy(array, &grown, sizeof grown);
    *capacity = (uint32_t)want;
    return true;
}

/* ---- interning ------------------------------------------------------------------------------------------------------ */

static uint32_t mix(uint32_t h, uint32_t v)
{
    h = (h ^ v) * 0x9E3779B1u;
    return h ^ h >> 15;
}

static uint32_t hash_node(const struct rx *x, const struct rx_node *n)
{
    uint32_t h = mix(mix(mix(mix(mix(mix(n->kind, n->a), n->b), n->lo), n->hi), n->depth), n->n);
    for (uint32_t i = 0; i < n->n; i++)
        h = n->kind == RX_KIND_SET ? mix(mix(h, x->range[n->list + i].lo), x->range[n->list + i].hi)
                                   : mix(h, x->child[n->list + i]);
    return h;
}

static bool same_node(const struct rx *x, const struct rx_node *a, const struct rx_node *b)
{
    if (a->kind != b->kind || a->a != b->a || a->b != b->b || a->lo != b->lo || a->hi != b->hi || a->depth != b->depth ||
        a->n != b->n)
        return false;
    if (a->n == 0)
        return true;
    return a->kind == RX_KIND_SET ? !memcmp(x->range + a->list, x->range + b->list, a->n * sizeof *x->range)
                                  : !memcmp(x->child + a->list, x->child + b->list, a->n * sizeof *x->child);
}

static bool grow_hash(struct rx *x)
{
    uint32_t size = x->node_hash ? (x->hash_mask + 1) * 4 : 256, cap = 0, *hash = NULL;
    if (!rx_grow(x, &hash, &cap, size, sizeof *hash))
        return false;
    memset(hash, 0, size * sizeof *hash);
    mem_free(x->mem, x->node_hash);
    x->node_hash = hash;
    x->hash_mask = size - 1;
    for (uint32_t i = 0; i < x->n_node; i++) {
        uint32_t slot = hash_node(x, &x->node[i]) & x->hash_mask;
        x->node[i].next = hash[slot];
        hash[slot] = i + 1;
    }
    return true;
}

bool rx_is_overworked(struct rx *x)
{
    bool late = x->deadline_ns && (x->work & 255) == 0 && os_now_ns() > x->deadline_ns;
    if ((++x->work > x->work_max && x->work_max) || late)
        x->failed = x->failed ? x->failed : GLM_ELIMIT;
    return x->failed != 0;
}

/* The list of *n lies at the end of its pool, and is taken back where the node exists already. */
static uint32_t intern(struct rx *x, struct rx_node *n)
{
    uint32_t *pool = n->kind == RX_KIND_SET ? &x->n_range : &x->n_child;
    if (x->failed || rx_is_overworked(x))
        return RX_EMPTY;
    if (x->n_node >= (x->node_hash ? x->hash_mask + 1 : 0) && !grow_hash(x))
        return RX_EMPTY;
    uint32_t slot = hash_node(x, n) & x->hash_mask;
    for (uint32_t i = x->node_hash[slot]; i != 0; i = x->node[i - 1].next)
        if (same_node(x, &x->node[i - 1], n)) {
            if (n->n > 0)
                *pool = n->list;
            return i - 1;
        }
    if (x->state_max && x->n_node >= x->state_max) {
        x->failed = GLM_ELIMIT;
        return RX_EMPTY;
    }
    if (!rx_grow(x, &x->node, &x->node_cap, (uint64_t)x->n_node + 1, sizeof *x->node))
        return RX_EMPTY;
    n->n_move = RX_INF;
    n->next = x->node_hash[slot];
    if (!n->nullable)
        n->label = RX_NO_LABEL;
    x->node[x->n_node] = *n;
    x->node_hash[slot] = ++x->n_node;
    return x->n_node - 1;
}

int32_t rx_init(struct rx *x, struct mem *m, glm_error *err)
{
    *x = (struct rx){ .mem = m };
    struct rx_node empty = { .kind = RX_KIND_EMPTY, .live = RX_LIVE_NO };
    struct rx_node eps = { .kind = RX_KIND_EPS, .nullable = 1, .label = RX_NO_LABEL, .live = RX_LIVE_YES };
    intern(x, &empty);
    intern(x, &eps);
    struct rx_node all = { .kind = RX_KIND_REP, .nullable = 1, .label = RX_NO_LABEL, .hi = RX_INF, .a = 3 };
    intern(x, &all);
    rx_range(x, 0, RX_CODE_MAX);
    uint32_t cap = 0;
    if (rx_grow(x, &x->state, &x->state_cap, 1, sizeof *x->state) && rx_grow(x, &x->rows, &cap, 256, sizeof *x->rows)) {
        x->row_cap = cap / 256;
        memset(x->rows, 0, 256 * sizeof *x->rows);
        x->state[0] = (struct rx_state){ .kind = RX_AT_NODE, .row = 0 };
        x->n_state = x->n_row = 1;
    }
    if (!x->failed)
        return 0;
    rx_free(x);
    return err_nomem(err, "a grammar");
}

void rx_free(struct rx *x)
{
    void *const all[] = { x->node, x->range, x->move, x->child, x->literals, x->divisor, x->node_hash, x->state, x->rows,
        x->state_hash, x->scratch, x->stack, x->cursor };
    if (x->mem == NULL)
        return;
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        mem_free(x->mem, all[i]);
    *x = (struct rx){ 0 };
}

int32_t rx_check(struct rx *x, const char *what, glm_error *err)
{
    int32_t rc = x->failed;
    x->failed = 0;
    x->depth = 0;
    x->n_scratch = 0;
    if (rc == GLM_ENOMEM)
        return err_nomem(err, "a grammar");
    return rc ? err_set(err, rc, 0, what, "this needs more states, memory or time than the limits of a grammar allow") : 0;
}

/* ---- sets ----------------------------------------------------------------------------------------------------------- */

static void sort_ranges(struct rx_range *r, uint32_t n)
{
    for (uint32_t gap = n / 2; gap > 0; gap /= 2) /* Shell's: lists are short or nearly sorted */
        for (uint32_t i = gap; i < n; i++)
            for (uint32_t k = i; k >= gap && r[k].lo < r[k - gap].lo; k -= gap) {
                struct rx_range swap = r[k];
                r[k] = r[k - gap];
                r[k - gap] = swap;
            }
}

uint32_t rx_set(struct rx *x, const struct rx_range *r, uint32_t n)
{
    uint32_t at = x->n_range, used = 0;
    if (n == 0 || !rx_grow(x, &x->range, &x->range_cap, (uint64_t)at + n, sizeof *r))
        return RX_EMPTY;
    struct rx_range *to = x->range + at;
    memcpy(to, r, n * sizeof *r);
    sort_ranges(to, n);
    for (uint32_t i = 1; i < n; i++) {
        if (to[i].lo <= to[used].hi + 1)
            to[used].hi = to[i].hi > to[used].hi ? to[i].hi : to[used].hi;
        else
            to[++used] = to[i];
    }
    x->n_range = at + used + 1;
    struct rx_node node = { .kind = RX_KIND_SET, .list = at, .n = used + 1, .live = RX_LIVE_YES };
    return intern(x, &node);
}

uint32_t rx_range(struct rx *x, uint32_t lo, uint32_t hi)
{
    struct rx_range r = { lo, hi };
    return rx_set(x, &r, 1);
}

/* ---- sequence, repetition ------------------------------------------------------------------------------------------- */

uint32_t rx_cat(struct rx *x, uint32_t a, uint32_t b)
{
    uint32_t heads[64], n = 0;
    if (a == RX_EMPTY || b == RX_EMPTY)
        return RX_EMPTY;
    while (x->node[a].kind == RX_KIND_CAT) { /* to the right: a(bc), never (ab)c */
        if (n == ARRAY_LEN(heads)) {
            b = rx_cat(x, x->node[a].b, b);
            a = x->node[a].a;
            continue;
        }
        heads[n++] = x->node[a].a;
        a = x->node[a].b;
    }
    heads[n < 64 ? n++ : 63] = a;
    while (n-- > 0) {
        uint32_t head = heads[n];
        if (head == RX_EPS)
            continue;
        if (b == RX_EPS) {
            b = head;
            continue;
        }
        const struct rx_node *h = &x->node[head], *t = &x->node[b];
        struct rx_node node = { .kind = RX_KIND_CAT, .a = head, .b = b, .nullable = h->nullable && t->nullable,
            .has_not = h->has_not || t->has_not };
        node.label = h->label != RX_NO_LABEL && h->nullable ? h->label : t->label;
        b = intern(x, &node);
    }
    return b;
}

/* Whether (a{l,h}){lo,hi} is a{l lo,h hi}: no count in between is left out. */
static bool is_one_rep(const struct rx_node *in, uint32_t lo, uint32_t hi, uint64_t *least, uint64_t *most)
{
    *least = (uint64_t)in->lo * lo;
    *most = in->hi == RX_INF || hi == RX_INF ? RX_INF : (uint64_t)in->hi * hi;
    bool gapless = lo == hi || in->lo <= 1 || in->lo - 1 <= (uint64_t)lo * (in->hi - in->lo);
    return in->kind == RX_KIND_REP && gapless && *least < RX_INF && (*most < RX_INF || in->hi == RX_INF || hi == RX_INF);
}

uint32_t rx_rep(struct rx *x, uint32_t a, uint32_t lo, uint32_t hi)
{
    uint64_t least, most;
    if (hi == 0 || a == RX_EPS)
        return RX_EPS;
    if (a == RX_EMPTY)
        return lo == 0 ? RX_EPS : RX_EMPTY;
    while (is_one_rep(&x->node[a], lo, hi, &least, &most)) {
        a = x->node[a].a;
        lo = (uint32_t)least;
        hi = (uint32_t)most;
    }
    if (lo == 1 && hi == 1)
        return a;
    struct rx_node in = x->node[a];
    if (in.nullable)
        lo = 0;
    if (lo == 0 && hi == 1 && in.nullable)
        return a;
    struct rx_node node = { .kind = RX_KIND_REP, .a = a, .lo = lo, .hi = hi, .nullable = lo == 0, .label = RX_NO_LABEL,
        .has_not = in.has_not };
    return intern(x, &node);
}

/* ---- alternatives, intersections -------------------------------------------------------------------------------------- */

static void sort_ids(uint32_t *v, uint32_t n)
{
    for (uint32_t gap = n / 2; gap > 0; gap /= 2)
        for (uint32_t i = gap; i < n; i++)
            for (uint32_t k = i; k >= gap && v[k] < v[k - gap]; k -= gap) {
                uint32_t swap = v[k];
                v[k] = v[k - gap];
                v[k - gap] = swap;
            }
}

/* Flattens into the end of the child pool. Returns the number; RX_INF: failed. */
static uint32_t flatten(struct rx *x, enum rx_kind kind, const uint32_t *list, uint32_t n)
{
    uint32_t at = x->n_child, total = 0;
    for (uint32_t i = 0; i < n; i++)
        total += x->node[list[i]].kind == kind ? x->node[list[i]].n : 1;
    x->work += total / 8; /* long lists are work, too */
    /* list may lie in the pool itself, which can move */
    bool inside = x->child && list >= x->child && list < x->child + x->child_cap;
    size_t offset = inside ? (size_t)(list - x->child) : 0;
    if (!rx_grow(x, &x->child, &x->child_cap, (uint64_t)at + total, sizeof *list))
        return RX_INF;
    if (inside)
        list = x->child + offset;
    for (uint32_t i = 0, o = at; i < n; i++) {
        const struct rx_node *c = &x->node[list[i]];
        if (c->kind == kind) {
            memcpy(x->child + o, x->child + c->list, c->n * sizeof *list);
            o += c->n;
        } else {
            x->child[o++] = list[i];
        }
    }
    sort_ids(x->child + at, total);
    return total;
}

static bool is_length(const struct rx *x, uint32_t id) /* ANY{lo,hi} */
{
    return x->node[id].kind == RX_KIND_REP && x->node[id].a == 3;
}

static bool has_child(const uint32_t *v, uint32_t n, uint32_t id)
{
    for (uint32_t i = 0; i < n; i++)
        if (v[i] == id)
            return true;
    return false;
}

/* Sets among the alternatives become one; so do sets among the conjuncts. Returns the new number. */
static uint32_t merge_sets(struct rx *x, uint32_t at, uint32_t n)
{
    uint32_t n_set = 0, o = 0, total = 0;
    for (uint32_t i = 0; i < n; i++)
        if (x->node[x->child[at + i]].kind == RX_KIND_SET) {
            n_set++;
            total += x->node[x->child[at + i]].n;
        }
    if (n_set < 2)
        return n;
    uint32_t base = x->n_range;
    if (!rx_grow(x, &x->range, &x->range_cap, (uint64_t)base + 2 * (uint64_t)total, sizeof *x->range))
        return 0;
    uint32_t r = base + total; /* rx_set writes at base: the copy must lie behind what it uses */
    for (uint32_t i = 0; i < n; i++) {
        uint32_t id = x->child[at + i];
        if (x->node[id].kind == RX_KIND_SET) {
            memcpy(x->range + r, x->range + x->node[id].list, x->node[id].n * sizeof *x->range);
            r += x->node[id].n;
        } else {
            x->child[at + o++] = id;
        }
    }
    uint32_t set = rx_set(x, x->range + base + total, total);
    x->child[at + o++] = set;
    sort_ids(x->child + at, o);
    return o;
}

static uint32_t make_list(struct rx *x, enum rx_kind kind, uint32_t at, uint32_t n)
{
    if (n == 1) {
        x->n_child = at;
        return x->child[at];
    }
    struct rx_node node = { .kind = (uint8_t)kind, .list = at, .n = n, .label = RX_NO_LABEL };
    bool all = true, any = false;
    for (uint32_t i = 0; i < n; i++) {
        const struct rx_node *c = &x->node[x->child[at + i]];
        node.has_not = node.has_not || c->has_not;
        all = all && c->nullable;
        any = any || c->nullable;
        if (c->nullable && node.label == RX_NO_LABEL)
            node.label = c->label;
    }
    node.nullable = kind == RX_KIND_ALT ? any : all;
    node.has_not = node.has_not || kind == RX_KIND_AND;
    x->n_child = at + n;
    return intern(x, &node);
}

uint32_t rx_alt_list(struct rx *x, const uint32_t *list, uint32_t n)
{
    uint32_t at = x->n_child, total = flatten(x, RX_KIND_ALT, list, n), o = 0;
    if (total == RX_INF)
        return RX_EMPTY;
    uint32_t *v = x->child + at;
    bool nullable = false;
    for (uint32_t i = 0; i < total; i++) {
        if (v[i] == RX_ALL)
            return RX_ALL;
        if (v[i] != RX_EMPTY && (o == 0 || v[o - 1] != v[i]))
            v[o++] = v[i];
        nullable = nullable || (v[i] != RX_EPS && x->node[v[i]].nullable);
    }
    if (nullable && o > 1 && v[0] == RX_EPS) /* another one matches the empty text already */
        memmove(v, v + 1, --o * sizeof *v);
    for (uint32_t i = 0; i < o; i++)
        if (x->node[v[i]].kind == RX_KIND_NOT && has_child(v, o, x->node[v[i]].a))
            return RX_ALL;
    if (o == 0)
        return RX_EMPTY;
    o = merge_sets(x, at, o);
    return x->failed ? RX_EMPTY : make_list(x, RX_KIND_ALT, at, o);
}

/* Two bounds on the length are one. */
static uint32_t merge_lengths(struct rx *x, uint32_t at, uint32_t n)
{
    uint32_t lo = 0, hi = RX_INF, o = 0, n_length = 0;
    for (uint32_t i = 0; i < n; i++)
        n_length += is_length(x, x->child[at + i]);
    if (n_length < 2)
        return n;
    for (uint32_t i = 0; i < n; i++) {
        const struct rx_node *c = &x->node[x->child[at + i]];
        if (!is_length(x, x->child[at + i])) {
            x->child[at + o++] = x->child[at + i];
            continue;
        }
        lo = c->lo > lo ? c->lo : lo;
        hi = c->hi < hi ? c->hi : hi;
    }
    if (lo > hi)
        return 0;
    x->child[at + o++] = rx_rep(x, 3, lo, hi);
    sort_ids(x->child + at, o);
    return o;
}

uint32_t rx_and_list(struct rx *x, const uint32_t *list, uint32_t n)
{
    uint32_t at = x->n_child, total = flatten(x, RX_KIND_AND, list, n), o = 0;
    if (total == RX_INF)
        return RX_EMPTY;
    uint32_t *v = x->child + at;
    bool nullable = true;
    for (uint32_t i = 0; i < total; i++) {
        if (v[i] == RX_EMPTY)
            return RX_EMPTY;
        if (v[i] != RX_ALL && (o == 0 || v[o - 1] != v[i]))
            v[o++] = v[i];
        nullable = nullable && x->node[v[i]].nullable;
    }
    if (o == 0)
        return RX_ALL;
    if (v[0] == RX_EPS)
        return nullable ? RX_EPS : RX_EMPTY;
    for (uint32_t i = 0; i < o; i++)
        if (x->node[v[i]].kind == RX_KIND_NOT && has_child(v, o, x->node[v[i]].a))
            return RX_EMPTY;
    x->n_child = at + o; /* rx_rep does not use the pool, but keep it whole */
    o = merge_lengths(x, at, o);
    return x->failed || o == 0 ? RX_EMPTY : make_list(x, RX_KIND_AND, at, o);
}

uint32_t rx_alt(struct rx *x, uint32_t a, uint32_t b)
{
    uint32_t both[2] = { a, b };
    return a == b || b == RX_EMPTY ? a : a == RX_EMPTY ? b : rx_alt_list(x, both, 2);
}

uint32_t rx_and(struct rx *x, uint32_t a, uint32_t b)
{
    uint32_t both[2] = { a, b };
    return a == b || b == RX_ALL ? a : a == RX_ALL ? b : rx_and_list(x, both, 2);
}

uint32_t rx_not(struct rx *x, uint32_t a)
{
    if (x->failed)
        return RX_EMPTY;
    if (a == RX_EMPTY)
        return RX_ALL;
    if (a == RX_ALL)
        return RX_EMPTY;
    if (x->node[a].kind == RX_KIND_NOT)
        return x->node[a].a;
    struct rx_node node = { .kind = RX_KIND_NOT, .a = a, .nullable = !x->node[a].nullable, .label = RX_NO_LABEL, .has_not = 1 };
    return intern(x, &node);
}

/* ---- the rest --------------------------------------------------------------------------------------------------------- */

static uint32_t quote_rest(struct rx *x, uint32_t content, uint32_t plane)
{
    if (content == RX_EMPTY)
        return RX_EMPTY;
    struct rx_node node = { .kind = RX_KIND_QUOTE, .a = content, .b = plane, .has_not = x->node[content].has_not };
    return intern(x, &node);
}

uint32_t rx_quote_rest(struct rx *x, uint32_t content)
{
    return quote_rest(x, content, RX_STRING);
}

uint32_t rx_key_rest(struct rx *x, uint32_t content)
{
    return quote_rest(x, content, RX_KEY);
}

uint32_t rx_quote(struct rx *x, uint32_t content)
{
    return rx_cat(x, rx_range(x, '"', '"'), rx_quote_rest(x, content));
}

uint32_t rx_label(struct rx *x, uint32_t label)
{
    struct rx_node node = { .kind = RX_KIND_LABEL, .b = label, .nullable = 1, .label = label, .live = RX_LIVE_YES };
    return label == RX_NO_LABEL ? RX_EPS : intern(x, &node);
}

uint32_t rx_text(struct rx *x, const char *text, size_t size)
{
    struct vocab_text literal = { text, size };
    uint32_t out = RX_EPS;
    for (size_t end = size; end > 0;) { /* from the end, so that each step is one node */
        size_t at = end - 1;
        uint32_t c;
        while (at > 0 && ((uint8_t)literal.text[at] & 0xC0) == 0x80)
            at--;
        if (utf8_decode(literal.text + at, end - at, &c) == 0)
            return RX_EMPTY;
        out = rx_cat(x, rx_range(x, c, c), out);
        end = at;
    }
    return out;
}

uint32_t rx_literals(struct rx *x, const struct vocab_text *sorted, uint32_t n, bool labelled, uint32_t other)
{
    if (!rx_grow(x, &x->literals, &x->literals_cap, (uint64_t)x->n_literals + 1, sizeof *x->literals))
        return RX_EMPTY;
    x->literals[x->n_literals++] = (struct rx_literals){ sorted, n, labelled };
    return rx_keys(x, x->n_literals - 1, 0, n, 0, other);
}

uint32_t rx_keys(struct rx *x, uint32_t set, uint32_t lo, uint32_t hi, uint32_t depth, uint32_t other)
{
    if (lo >= hi || x->failed)
        return other;
    const struct rx_literals *l = &x->literals[set];
    bool whole = l->text[lo].size == depth;
    struct rx_node node = { .kind = RX_KIND_KEYS, .a = other, .b = set, .lo = lo, .hi = hi, .depth = depth,
        .nullable = whole || x->node[other].nullable, .has_not = x->node[other].has_not, .live = RX_LIVE_YES };
    node.label = whole ? (l->labelled ? lo : RX_NO_LABEL) : x->node[other].label;
    return intern(x, &node);
}

uint32_t rx_mod(struct rx *x, uint32_t divisor, uint32_t rem, uint32_t phase)
{
    struct rx_node node = { .kind = RX_KIND_MOD, .b = divisor, .lo = rem, .hi = phase, .label = RX_NO_LABEL,
        .nullable = rx_mod_nullable(x, divisor, rem, phase) };
    if (rx_mod_is_open(phase))
        node.live = RX_LIVE_YES;
    return intern(x, &node);
}
