/* constraint_step.c: how configurations move. Within a terminal a byte leads from state to state; where the terminal may end,
 * the frame says what can follow, and all of that is put beside it at once: so a set of configurations always shows every
 * terminal that the next byte may belong to.
 */
#include "constraint_int.h"

/* ---- growing ------------------------------------------------------------------------------------------------------------ */

static bool room(struct con_run *r, void *array, uint32_t *capacity, uint32_t need, size_t element)
{
    void *old;
    uint32_t want = *capacity ? *capacity : 64;
    if (need <= *capacity)
        return true;
    while (want < need)
        want *= 2;
    memcpy(&old, array, sizeof old);
    void *grown = r->failed || want > 1u << 26 ? NULL : mem_resize(r->mem, old, (size_t)want * element);
    if (grown == NULL) {
        r->failed = r->failed ? r->failed : GLM_ENOMEM;
        return false;
    }
    memcpy(array, &grown, sizeof grown);
    *capacity = want;
    return true;
}

static bool same_frame(const struct con_run *r, uint32_t i, uint32_t k)
{
    const struct frame *a = &r->frame[i], *b = &r->frame[k];
    if (i == k)
        return true;
    if (i == NO_FRAME || k == NO_FRAME || a->kind != b->kind || a->parent != b->parent || a->shape != b->shape ||
        a->count != b->count || a->counted != b->counted || a->label != b->label || a->met != b->met ||
        a->variant != b->variant || a->tool != b->tool || a->used != b->used || a->seen != b->seen || a->deny != b->deny)
        return false;
    return a->set == b->set || (a->set && b->set && a->kind == F_OBJECT &&
        !memcmp(r->words + a->set, r->words + b->set, 2 * r->g->schema.object[a->shape].n_word * sizeof *r->words));
}

static bool is_among(const struct con_run *r, uint32_t frames, uint32_t frame)
{
    for (; r->frame[frames].kind == F_EITHER; frames = r->frame[frames].parent)
        if (same_frame(r, r->frame[frames].shape, frame))
            return true;
    return same_frame(r, frames, frame);
}

/* A value's beginning that two frames wait for is one configuration: alternatives inside it are not multiplied by those around
 * it. */
static bool joins(struct con_run *r, struct config *o, const struct config *c)
{
    if (c->kind != C_SCALAR && c->kind != C_OBJECT_OPEN && c->kind != C_ARRAY_OPEN)
        return false;
    if (!is_among(r, o->frame, c->frame)) {
        uint32_t at = (uint32_t)(o - r->config);
        uint32_t both = run_frame(r, (struct frame){ .kind = F_EITHER, .parent = o->frame, .shape = c->frame });
        r->config[at].frame = both;
    }
    return true;
}

void run_put(struct con_run *r, struct config c, uint32_t base)
{
    for (uint32_t i = base; i < r->n_config; i++) {
        struct config *o = &r->config[i];
        if (o->kind == c.kind && o->state == c.state && o->arg == c.arg && o->typed == c.typed &&
            (same_frame(r, o->frame, c.frame) || joins(r, o, &c)))
            return;
    }
    if (r->n_config - base >= CONFIGS_MAX)
        r->failed = r->failed ? r->failed : GLM_ELIMIT;
    if (!r->failed && room(r, &r->config, &r->config_cap, r->n_config + 1, sizeof c))
        r->config[r->n_config++] = c;
}

uint32_t run_frame(struct con_run *r, struct frame f)
{
    if (!room(r, &r->frame, &r->frame_cap, r->n_frame + 1, sizeof f))
        return 0;
    r->frame[r->n_frame] = f;
    return r->n_frame++;
}

/* ---- values -------------------------------------------------------------------------------------------------------------- */

static uint32_t scalar(struct con_grammar *g, const struct norm *n)
{
    struct rx *x = &g->rx;
    uint32_t out = rx_alt(x, n->string == RX_EMPTY ? RX_EMPTY : rx_quote(x, n->string), n->number);
    static const struct {
        uint32_t bit;
        const char *word;
    } words[] = { { WORD_NULL, "null" }, { WORD_TRUE, "true" }, { WORD_FALSE, "false" } };
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (n->words & words[i].bit)
            out = rx_alt(x, out, rx_text(x, words[i].word, strlen(words[i].word)));
    return out;
}

static uint32_t scalar_state(struct con_grammar *g, uint32_t term, uint32_t spaced)
{
    struct con_start *at = &g->start[term];
    if (!at->known[spaced]) {
        uint32_t node = scalar(g, &g->schema.term[term].norm);
        if (spaced && node != RX_EMPTY)
            node = rx_cat(&g->rx, rx_rep(&g->rx, rx_range(&g->rx, ' ', ' '), 0, 1), node);
        at->state[spaced] = rx_state_of(&g->rx, node);
        at->known[spaced] = !g->rx.failed;
    }
    return at->state[spaced];
}

/* All ways in which a value of the term can begin. */
void run_value(struct con_run *r, uint32_t term, uint32_t frame, uint32_t spaced, uint32_t base)
{
    struct con_grammar *g = r->g;
    const struct norm *n = &g->schema.term[term].norm;
    uint32_t state = scalar_state(g, term, spaced);
    if (state != 0)
        run_put(r, (struct config){ .kind = C_SCALAR, .state = state, .frame = frame }, base);
    for (uint32_t i = 0; i < n->n_object; i++)
        if (g->schema.object[n->object[i]].live)
            run_put(r, (struct config){ .kind = C_OBJECT_OPEN, .state = g->punct[0][spaced], .frame = frame,
                .arg = n->object[i] }, base);
    for (uint32_t i = 0; i < n->n_array; i++)
        if (g->schema.array[n->array[i]].live)
            run_put(r, (struct config){ .kind = C_ARRAY_OPEN, .state = g->punct[2][spaced], .frame = frame,
                .arg = n->array[i] }, base);
}

/* ---- arrays --------------------------------------------------------------------------------------------------------------- */

/* An item can be taken in up to three ways: plain, counted, not counted. */
static void items(struct con_run *r, const struct frame *f, bool only_ask, bool *any, uint32_t spaced, uint32_t base)
{
    const struct schema *s = &r->g->schema;
    const struct array_shape *a = &s->array[f->shape];
    const uint32_t *item = a->item[f->count < a->n_item ? f->count : a->n_item];
    bool counts = a->has_counted && f->count >= a->counted.from;
    bool exact = counts && a->counted.hi != COUNT_INF;
    for (uint32_t v = 0; v < 3; v++) {
        uint32_t counted = f->counted + (v == 1);
        if ((v == 1 && !counts) || (v == 0 && exact) || (v == 2 && !exact) || !s->term[item[v]].live)
            continue;
        if (v == 1 && !exact && f->counted >= a->counted.lo) /* enough: need not be told apart */
            continue;
        if (f->count >= a->max || !array_feasible(s, a, f->count + 1, counted))
            continue;
        *any = true;
        if (only_ask)
            return;
        struct frame to = *f;
        to.variant = (uint8_t)v;
        run_value(r, item[v], run_frame(r, to), spaced, base);
    }
}

static void array_next(struct con_run *r, struct frame f, bool first, uint32_t base)
{
    struct con_grammar *g = r->g;
    const struct array_shape *a = &g->schema.array[f.shape];
    bool more = false, enough = f.count >= a->min && (!a->has_counted || f.counted >= a->counted.lo);
    uint32_t at = NO_FRAME;
    items(r, &f, true, &more, 0, base);
    if (!first || enough)
        at = run_frame(r, f);
    if (enough && (!a->has_counted || f.counted <= a->counted.hi))
        run_put(r, (struct config){ .kind = C_ARRAY_CLOSE, .state = g->punct[3][0], .frame = at }, base);
    if (more && first)
        items(r, &f, false, &more, 0, base);
    else if (more)
        run_put(r, (struct config){ .kind = C_ARRAY_COMMA, .state = g->punct[4][0], .frame = at }, base);
}

static void array_value_done(struct con_run *r, const struct frame *f, uint32_t base)
{
    const struct array_shape *a = &r->g->schema.array[f->shape];
    struct frame to = *f;
    to.count += to.count < COUNT_INF - 2;
    if (f->variant == 1 && to.counted < (a->counted.hi != COUNT_INF ? a->counted.hi + 1 : a->counted.lo))
        to.counted++;
    to.variant = 0;
    array_next(r, to, false, base);
}

/* ---- ends -------------------------------------------------------------------------------------------------------------------- */

void run_value_done(struct con_run *r, uint32_t frame, uint32_t base)
{
    const struct frame f = r->frame[frame];
    switch (f.kind) {
    case F_ROOT: run_put(r, (struct config){ .kind = C_DONE, .frame = frame }, base); break;
    case F_OBJECT: run_object_value_done(r, &f, base); break;
    case F_ARRAY: array_value_done(r, &f, base); break;
    case F_EITHER: /* the first of a pair may be one itself, the second never is */
        for (uint32_t at = frame; !r->failed; at = r->frame[at].parent) {
            bool last = r->frame[at].kind != F_EITHER;
            run_value_done(r, last ? at : r->frame[at].shape, base);
            if (last)
                break;
        }
        break;
    default: run_put(r, (struct config){ .kind = C_VALUE_END, .frame = frame }, base); break;
    }
}

void run_exit(struct con_run *r, struct config c, uint32_t label, uint32_t base)
{
    struct frame f = { .parent = c.frame, .shape = c.arg };
    bool any;
    switch (c.kind) {
    case C_SCALAR:
    case C_TEXT: run_value_done(r, c.frame, base); break;
    case C_KEY: run_object_key(r, &c, label, base); break;
    case C_COLON: run_object_values(r, c.frame, base); break;
    case C_OBJECT_OPEN:
        f.kind = F_OBJECT;
        run_object_next(r, f, true, base);
        break;
    case C_ARRAY_OPEN:
        f.kind = F_ARRAY;
        array_next(r, f, true, base);
        break;
    case C_ARRAY_COMMA:
        f = r->frame[c.frame];
        items(r, &f, false, &any, 1, base);
        break;
    case C_OBJECT_CLOSE:
    case C_ARRAY_CLOSE: run_value_done(r, r->frame[c.frame].parent, base); break;
    default: call_exit(r, c, label, base); break;
    }
}

/* ---- bytes -------------------------------------------------------------------------------------------------------------------- */

static void step(struct con_run *r, struct config c, uint8_t byte, uint32_t base)
{
    struct rx *x = &r->g->rx;
    bool key = c.kind == C_KEY || c.kind == C_RAW_KEY;
    if (c.kind == C_FREE) {
        run_put(r, c, base);
        return;
    }
    uint32_t to = c.state != 0 ? rx_step(x, c.state, byte) : 0;
    if (to == 0 || (key && !run_key_live(r, &c, to)))
        return;
    if (key && r->g->schema.object[r->frame[c.frame].shape].n_class > 0) {
        const struct rx_state *at = &x->state[c.state]; /* the quote before a key, and what stands before it, are not its own */
        if (c.kind == C_RAW_KEY || at->kind != RX_AT_NODE || x->node[at->node].kind == RX_KIND_QUOTE)
            c.typed = run_type(r, c.typed, byte);
    }
    if (c.typed && c.kind == C_KEY && run_key_is_used_up(r, &c, to))
        return;
    c.state = to;
    const struct rx_state *s = &x->state[to];
    uint8_t kind = x->node[s->node].kind;
    bool accepts = s->accept, goes_on = s->kind != RX_AT_NODE || (kind != RX_KIND_EPS && kind != RX_KIND_LABEL);
    uint32_t label = accepts ? rx_label_of(x, to) : RX_NO_LABEL;
    if (goes_on)
        run_put(r, c, base);
    if (accepts)
        run_exit(r, c, label, base);
}

void run_step(struct con_run *r, uint32_t from, uint32_t n, uint8_t byte)
{
    uint32_t base = r->n_config;
    for (uint32_t i = 0; i < n && !r->failed; i++)
        step(r, r->config[from + i], byte, base);
    if (r->g->rx.failed && !r->failed)
        r->failed = r->g->rx.failed;
}

void run_step_special(struct con_run *r, uint32_t from, uint32_t n, enum tok_special which)
{
    uint32_t base = r->n_config;
    for (uint32_t i = 0; i < n && !r->failed; i++)
        call_special(r, r->config[from + i], which, base);
    if (r->g->rx.failed && !r->failed)
        r->failed = r->g->rx.failed;
}

void run_start(struct con_run *r)
{
    struct con_grammar *g = r->g;
    if (!room(r, &r->words, &r->words_cap, 2, sizeof *r->words))
        return;
    r->words[0] = 0; /* index 0 means none */
    r->n_words = 1;
    uint32_t root = run_frame(r, (struct frame){ .kind = F_ROOT, .parent = NO_FRAME });
    if (g->kind == CON_TURN)
        call_start(r, 0);
    else if (g->kind == CON_REGEX || g->kind == CON_CHOICE) {
        run_put(r, (struct config){ .kind = C_TEXT, .state = g->root, .frame = root }, 0);
        if (g->root != 0 && rx_accepts(&g->rx, g->root))
            run_exit(r, r->config[0], RX_NO_LABEL, 0);
    } else {
        run_value(r, g->root, root, 0, 0);
    }
    if (g->rx.failed && !r->failed)
        r->failed = g->rx.failed;
}
