/* rx_pattern.c: ECMA-262 patterns (without flags) as expressions. A pattern is read into a tree, and the tree is turned from
 * its end to its beginning, each part with what may follow it: so anchors and look-ahead, which speak of what follows, become
 * ordinary expressions. Back references, look-behind and word boundaries are refused.
 */
#include "tok_int.h"
#include "rx.h"

#include <string.h>

#define NEST_MAX 24u
#define PARTS_MAX 100000u

enum part_kind { P_EMPTY, P_SET, P_CAT, P_ALT, P_REP, P_BEGIN, P_END, P_AHEAD, P_NOT_AHEAD };

struct part {
    uint8_t kind;
    uint8_t has_end, has_begin, has_ahead, zero_width; /* of the whole subtree */
    uint8_t can_be_empty;
    uint32_t first, next; /* children and siblings; 0: none */
    uint32_t lo, hi, set;
};

struct reader {
    struct rx *x;
    const char *text;
    size_t size, pos;
    struct part *part;
    uint32_t n_part, cap, depth;
    bool no_end; /* a `$` matches nowhere */
    const char *problem;
};

/* ---- reading ---------------------------------------------------------------------------------------------------------- */

static uint32_t add(struct reader *r, struct part p)
{
    if (r->n_part >= PARTS_MAX)
        r->problem = "the pattern is too long";
    if (r->problem || !rx_grow(r->x, &r->part, &r->cap, (uint64_t)r->n_part + 1, sizeof p))
        return 0;
    r->part[r->n_part] = p;
    return r->n_part++;
}

static bool at_end(const struct reader *r)
{
    return r->pos >= r->size || r->problem || r->x->failed;
}

static bool take(struct reader *r, const char *what)
{
    size_t n = strlen(what);
    if (r->size - r->pos < n || memcmp(r->text + r->pos, what, n) != 0)
        return false;
    r->pos += n;
    return true;
}

static uint32_t next_char(struct reader *r)
{
    uint32_t c = 0, n = at_end(r) ? 0 : utf8_decode(r->text + r->pos, r->size - r->pos, &c);
    if (n == 0)
        r->problem = "the pattern ends too early";
    r->pos += n;
    return c;
}

static const struct rx_range digits[] = { { '0', '9' } };
static const struct rx_range words[] = { { '0', '9' }, { 'A', 'Z' }, { '_', '_' }, { 'a', 'z' } };
static const struct rx_range spaces[] = { { 9, 13 }, { ' ', ' ' }, { 0xA0, 0xA0 }, { 0x1680, 0x1680 }, { 0x2000, 0x200A },
    { 0x2028, 0x2029 }, { 0x202F, 0x202F }, { 0x205F, 0x205F }, { 0x3000, 0x3000 }, { 0xFEFF, 0xFEFF } };
static const struct rx_range line_ends[] = { { '\n', '\n' }, { '\r', '\r' }, { 0x2028, 0x2029 } };

/* The code points that are not in a set. */
static uint32_t others(struct rx *x, uint32_t set)
{
    uint32_t n = 0, p = 0, all;
    if (set == RX_EMPTY)
        return rx_range(x, 0, RX_CODE_MAX);
    struct rx_range *out = mem_array(x->mem, (size_t)x->node[set].n + 1, sizeof *out);
    if (out == NULL) {
        x->failed = x->failed ? x->failed : GLM_ENOMEM;
        return RX_EMPTY;
    }
    for (uint32_t i = 0; i < x->node[set].n; i++) {
        struct rx_range in = x->range[x->node[set].list + i];
        if (in.lo > p)
            out[n++] = (struct rx_range){ p, in.lo - 1 };
        p = in.hi + 1;
    }
    if (p <= RX_CODE_MAX)
        out[n++] = (struct rx_range){ p, RX_CODE_MAX };
    all = n == 0 ? RX_EMPTY : rx_set(x, out, n);
    mem_free(x->mem, out);
    return all;
}

static uint32_t known_class(struct rx *x, uint32_t c)
{
    switch (c) {
    case 'd': case 'D': return rx_set(x, digits, ARRAY_LEN(digits));
    case 'w': case 'W': return rx_set(x, words, ARRAY_LEN(words));
    case 's': case 'S': return rx_set(x, spaces, ARRAY_LEN(spaces));
    default: return RX_EMPTY;
    }
}

static uint32_t of_class(struct rx *x, enum tok_class class)
{
    uint32_t out = RX_EMPTY, from = 0, n = 0;
    struct rx_range r[900];
    for (uint32_t c = 0; c <= RX_CODE_MAX + 1; c++) {
        bool in = c <= RX_CODE_MAX && tok_class_of(c) == class;
        if (in && (c == 0 || tok_class_of(c - 1) != class))
            from = c;
        if (!in && c > 0 && tok_class_of(c - 1) == class && n < ARRAY_LEN(r))
            r[n++] = (struct rx_range){ from, c - 1 };
    }
    if (n > 0)
        out = rx_set(x, r, n);
    return out;
}

/* \p{L} and \p{N} in their spellings. */
static uint32_t property(struct reader *r)
{
    static const struct {
        const char *name;
        enum tok_class class;
    } known[] = { { "{L}", TOK_LETTER }, { "{Letter}", TOK_LETTER }, { "{N}", TOK_NUMBER }, { "{Number}", TOK_NUMBER } };
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (take(r, known[i].name))
            return of_class(r->x, known[i].class);
    r->problem = "only the properties L and N are known";
    return RX_EMPTY;
}

static bool hex(struct reader *r, uint32_t n, uint32_t *out)
{
    uint32_t v = 0;
    if (r->size - r->pos < n)
        return false;
    for (uint32_t i = 0; i < n; i++) {
        char c = r->text[r->pos + i];
        uint32_t d = c >= '0' && c <= '9' ? (uint32_t)(c - '0') : (c | 32) >= 'a' && (c | 32) <= 'f' ? (uint32_t)((c | 32) - 'a') + 10 : 16;
        if (d == 16)
            return false;
        v = v * 16 + d;
    }
    r->pos += n;
    *out = v;
    return true;
}

static uint32_t unicode_escape(struct reader *r)
{
    uint32_t c, low;
    size_t at = r->pos;
    if (take(r, "{")) {
        uint32_t v = 0, n = 0, d;
        while (n < 8 && hex(r, 1, &d)) {
            v = v * 16 + d;
            n++;
        }
        if (n > 0 && v <= RX_CODE_MAX && take(r, "}"))
            return v;
        r->pos = at;
        return 'u';
    }
    if (!hex(r, 4, &c))
        return 'u';
    at = r->pos;
    if (c >= 0xD800 && c < 0xDC00 && take(r, "\\u") && hex(r, 4, &low) && low >= 0xDC00 && low < 0xE000)
        return 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
    r->pos = at;
    return c;
}

/* Behind a backslash: one character, or a class in *set. */
static uint32_t escape(struct reader *r, bool in_class, uint32_t *set)
{
    uint32_t c = next_char(r), v;
    *set = RX_EMPTY;
    switch (c) {
    case 'd': case 'w': case 's': *set = known_class(r->x, c); return 0;
    case 'D': case 'W': case 'S': *set = others(r->x, known_class(r->x, c)); return 0;
    case 'p': *set = property(r); return 0;
    case 'P': *set = others(r->x, property(r)); return 0;
    case 'n': return '\n';
    case 'r': return '\r';
    case 't': return '\t';
    case 'f': return '\f';
    case 'v': return '\v';
    case 'u': return unicode_escape(r);
    case 'x': return hex(r, 2, &v) ? v : 'x';
    case 'c':
        if (r->pos < r->size && ((r->text[r->pos] | 32) >= 'a' && (r->text[r->pos] | 32) <= 'z'))
            return (uint32_t)r->text[r->pos++] & 31;
        r->problem = "\\c needs a letter";
        return 0;
    case 'b':
        if (in_class)
            return '\b';
        r->problem = "word boundaries are not supported";
        return 0;
    case 'B':
        r->problem = "word boundaries are not supported";
        return 0;
    case '0':
        if (r->pos == r->size || r->text[r->pos] < '0' || r->text[r->pos] > '9')
            return 0;
        r->problem = "octal escapes are not supported";
        return 0;
    case 'k':
        r->problem = "back references are not supported";
        return 0;
    case 'a': case 'Z': case 'A': case 'z':
        r->problem = "this escape means nothing in ECMA-262";
        return c;
    default:
        if (c >= '1' && c <= '9')
            r->problem = "back references are not supported";
        return c;
    }
}

/* One member of a class; *set where it is a class itself. */
static uint32_t class_atom(struct reader *r, uint32_t *set)
{
    *set = RX_EMPTY;
    return take(r, "\\") ? escape(r, true, set) : next_char(r);
}

static uint32_t read_class(struct reader *r)
{
    bool inverted = take(r, "^");
    uint32_t out = RX_EMPTY, set;
    while (!at_end(r) && r->text[r->pos] != ']') {
        uint32_t lo = class_atom(r, &set), hi = lo, second = RX_EMPTY;
        if (set != RX_EMPTY) {
            out = rx_alt(r->x, out, set);
            continue;
        }
        if (r->size - r->pos >= 2 && r->text[r->pos] == '-' && r->text[r->pos + 1] != ']') {
            size_t at = r->pos++;
            hi = class_atom(r, &second);
            if (second != RX_EMPTY) { /* [a-\d]: the dash is one */
                r->pos = at;
                hi = lo;
            } else if (hi < lo) {
                r->problem = "a range of a class goes backwards";
            }
        }
        out = rx_alt(r->x, out, rx_range(r->x, lo, hi));
    }
    if (!take(r, "]"))
        r->problem = "a class is not closed";
    return inverted ? others(r->x, out) : out;
}

static bool number(struct reader *r, uint32_t *out)
{
    uint64_t v = 0;
    size_t from = r->pos;
    while (r->pos < r->size && r->text[r->pos] >= '0' && r->text[r->pos] <= '9') {
        v = v * 10 + (uint64_t)(r->text[r->pos++] - '0');
        v = v > 0x7FFFFFFF ? 0x7FFFFFFF : v;
    }
    *out = (uint32_t)v;
    return r->pos > from;
}

/* {2}, {2,}, {2,5}; anything else is text. */
static bool braces(struct reader *r, uint32_t *lo, uint32_t *hi)
{
    size_t at = r->pos;
    if (!take(r, "{"))
        return false;
    if (number(r, lo)) {
        *hi = *lo;
        if (take(r, ",") && !number(r, hi))
            *hi = RX_INF;
        if (take(r, "}"))
            return true;
    }
    r->pos = at;
    return false;
}

static uint32_t quantify(struct reader *r, uint32_t atom)
{
    uint32_t lo = 0, hi = 0;
    if (atom == 0)
        return 0;
    if (take(r, "*")) {
        hi = RX_INF;
    } else if (take(r, "+")) {
        lo = 1;
        hi = RX_INF;
    } else if (take(r, "?")) {
        hi = 1;
    } else if (!braces(r, &lo, &hi)) {
        return atom;
    }
    take(r, "?"); /* lazy or greedy: the same language */
    if (lo > hi)
        r->problem = "a count's bounds are the wrong way round";
    struct part p = r->part[atom];
    struct part q = { .kind = P_REP, .first = atom, .lo = lo, .hi = hi, .has_end = p.has_end, .has_begin = p.has_begin,
        .has_ahead = p.has_ahead, .zero_width = p.zero_width, .can_be_empty = lo == 0 || p.can_be_empty };
    if (r->pos < r->size && strchr("*+?", r->text[r->pos]) && r->text[r->pos])
        r->problem = "nothing to repeat";
    return add(r, q);
}

static uint32_t read_alternatives(struct reader *r);

static uint32_t read_group(struct reader *r)
{
    struct part look = { .kind = P_EMPTY, .zero_width = 1, .can_be_empty = 1, .has_ahead = 1 };
    if (take(r, "?=")) {
        look.kind = P_AHEAD;
    } else if (take(r, "?!")) {
        look.kind = P_NOT_AHEAD;
    } else if (take(r, "?<=") || take(r, "?<!")) {
        r->problem = "look-behind is not supported";
    } else if (take(r, "?<")) {
        while (!at_end(r) && r->text[r->pos] != '>')
            r->pos++;
        if (!take(r, ">"))
            r->problem = "a group's name is not closed";
    } else if (take(r, "?") && !take(r, ":")) {
        r->problem = "this kind of group is not known";
    }
    uint32_t inner = read_alternatives(r);
    if (!take(r, ")"))
        r->problem = r->problem ? r->problem : "a group is not closed";
    if (look.kind == P_EMPTY || inner == 0)
        return inner;
    look.first = inner;
    look.has_begin = r->part[inner].has_begin;
    return add(r, look);
}

static uint32_t read_atom(struct reader *r)
{
    struct part p = { .kind = P_SET };
    uint32_t c, set = RX_EMPTY;
    if (take(r, "("))
        return read_group(r);
    if (take(r, "^"))
        return add(r, (struct part){ .kind = P_BEGIN, .has_begin = 1, .zero_width = 1, .can_be_empty = 1 });
    if (take(r, "$"))
        return add(r, (struct part){ .kind = P_END, .has_end = 1, .zero_width = 1, .can_be_empty = 1 });
    if (take(r, "[")) {
        p.set = read_class(r);
        return add(r, p);
    }
    if (take(r, ".")) {
        p.set = others(r->x, rx_set(r->x, line_ends, ARRAY_LEN(line_ends)));
        return add(r, p);
    }
    if (r->text[r->pos] == '*' || r->text[r->pos] == '+' || r->text[r->pos] == '?')
        r->problem = "nothing to repeat";
    c = take(r, "\\") ? escape(r, false, &set) : next_char(r);
    p.set = set != RX_EMPTY ? set : rx_range(r->x, c, c);
    return add(r, p);
}

static void adopt(struct reader *r, struct part *p, uint32_t *last, uint32_t child)
{
    const struct part c = r->part[child];
    if (*last == 0)
        p->first = child;
    else
        r->part[*last].next = child;
    *last = child;
    p->has_end |= c.has_end;
    p->has_begin |= c.has_begin;
    p->has_ahead |= c.has_ahead;
}

static uint32_t read_sequence(struct reader *r)
{
    struct part p = { .kind = P_CAT, .zero_width = 1, .can_be_empty = 1 };
    uint32_t last = 0;
    while (!at_end(r) && r->text[r->pos] != '|' && r->text[r->pos] != ')') {
        uint32_t child = quantify(r, read_atom(r));
        if (child == 0)
            return 0;
        p.zero_width &= r->part[child].zero_width;
        p.can_be_empty &= r->part[child].can_be_empty;
        adopt(r, &p, &last, child);
    }
    return add(r, p);
}

static uint32_t read_alternatives(struct reader *r)
{
    struct part p = { .kind = P_ALT, .zero_width = 1 };
    uint32_t last = 0;
    if (++r->depth > NEST_MAX)
        r->problem = "groups are nested too deep";
    do {
        uint32_t child = at_end(r) && r->problem ? 0 : read_sequence(r);
        if (child == 0)
            return 0;
        p.zero_width &= r->part[child].zero_width;
        p.can_be_empty |= r->part[child].can_be_empty;
        adopt(r, &p, &last, child);
    } while (take(r, "|"));
    r->depth--;
    return add(r, p);
}

/* ---- turning ---------------------------------------------------------------------------------------------------------------- */

static uint32_t turn(struct reader *r, uint32_t part, uint32_t then, bool start);

static uint32_t turn_sequence(struct reader *r, uint32_t part, uint32_t then, bool start)
{
    uint32_t list[512], n = 0;
    for (uint32_t c = r->part[part].first; c; c = r->part[c].next) {
        if (n == ARRAY_LEN(list)) {
            r->problem = "a sequence has too many parts";
            return RX_EMPTY;
        }
        list[n++] = c;
    }
    for (uint32_t i = n; i-- > 0;) {
        bool first = start, nullable = start;
        for (uint32_t k = 0; k < i; k++) {
            first = first && r->part[list[k]].zero_width;
            nullable = nullable && r->part[list[k]].can_be_empty;
        }
        if (r->part[list[i]].has_begin && nullable && !first)
            r->problem = "a ^ behind something that may be empty is not supported";
        then = turn(r, list[i], then, first);
    }
    return then;
}

/* Each count of a set will have a list of moves of its own. Sets of few ranges cost next to nothing. */
static void charge_repeat(struct rx *x, uint32_t body, const struct part *p)
{
    uint32_t n_range = x->node[body].kind == RX_KIND_SET ? x->node[body].n : 0;
    uint64_t work = x->work + (uint64_t)(n_range / 64) * 32 * (p->hi == RX_INF ? p->lo : p->hi);
    x->work = work < UINT32_MAX / 2 ? (uint32_t)work : UINT32_MAX / 2;
}

static uint32_t turn_repeat(struct reader *r, const struct part *p, uint32_t then, bool start)
{
    if (!p->has_end && !p->has_begin && !p->has_ahead) {
        uint32_t body = turn(r, p->first, RX_EPS, false);
        charge_repeat(r->x, body, p);
        return rx_cat(r->x, rx_rep(r->x, body, p->lo, p->hi), then);
    }
    if (p->lo == 1 && p->hi == RX_INF) {
        struct part rest = *p;
        rest.lo = 0;
        return turn(r, p->first, turn_repeat(r, &rest, then, false), start);
    }
    if (p->lo <= 1 && p->hi == 1)
        return rx_alt(r->x, p->lo == 0 ? then : RX_EMPTY, turn(r, p->first, then, start));
    if (p->hi != RX_INF || p->lo > 0 || p->has_ahead || p->has_begin || r->no_end) {
        r->problem = "an anchor or look-ahead inside a repetition is not supported";
        return RX_EMPTY;
    }
    /* A round that ends at the text's end is the last: (a$|b)*c is b*(c|a), and the a only where c may be empty. */
    r->no_end = true;
    uint32_t rounds = turn(r, p->first, RX_EPS, false);
    r->no_end = false;
    uint32_t last = r->x->node[then].nullable ? turn(r, p->first, RX_EPS, false) : RX_EMPTY;
    return rx_cat(r->x, rx_rep(r->x, rounds, p->lo, RX_INF), rx_alt(r->x, then, last));
}

static uint32_t turn(struct reader *r, uint32_t part, uint32_t then, bool start)
{
    const struct part p = r->part[part];
    uint32_t out = RX_EMPTY;
    if (r->problem || r->x->failed)
        return RX_EMPTY;
    switch (p.kind) {
    case P_SET: return rx_cat(r->x, p.set, then);
    case P_CAT: return turn_sequence(r, part, then, start);
    case P_ALT:
        for (uint32_t c = p.first; c; c = r->part[c].next)
            out = rx_alt(r->x, out, turn(r, c, then, start));
        return out;
    case P_REP: return turn_repeat(r, &p, then, start);
    case P_BEGIN: return start ? then : RX_EMPTY;
    case P_END: return r->x->node[then].nullable && !r->no_end ? RX_EPS : RX_EMPTY;
    case P_AHEAD: return rx_and(r->x, turn(r, p.first, RX_ALL, start), then);
    case P_NOT_AHEAD: return rx_and(r->x, rx_not(r->x, turn(r, p.first, RX_ALL, start)), then);
    default: return then;
    }
}

static uint32_t anywhere(struct reader *r, uint32_t root)
{
    uint32_t first = turn(r, root, RX_ALL, true);
    if (!r->part[root].has_begin && !r->part[root].has_ahead)
        return rx_cat(r->x, RX_ALL, first);
    uint32_t later = turn(r, root, RX_ALL, false);
    uint32_t some = rx_cat(r->x, rx_range(r->x, 0, RX_CODE_MAX), RX_ALL);
    return rx_alt(r->x, first, rx_cat(r->x, some, later));
}

static uint32_t read_whole(struct reader *r)
{
    uint32_t root = 0;
    if (rx_grow(r->x, &r->part, &r->cap, 16, sizeof *r->part)) {
        r->n_part = 1;
        root = read_alternatives(r);
    }
    if (!r->problem && !r->x->failed && r->pos < r->size)
        r->problem = "a ) closes nothing";
    return root;
}

int32_t rx_pattern(struct rx *x, const char *text, size_t size, bool whole, uint32_t *out, glm_error *err)
{
    struct reader r = { .x = x, .text = text, .size = size };
    uint32_t root = read_whole(&r);
    *out = RX_EMPTY;
    if (!r.problem && !x->failed)
        *out = whole ? turn(&r, root, RX_EPS, true) : anywhere(&r, root);
    mem_free(x->mem, r.part);
    x->bytes -= (uint64_t)r.cap * sizeof *r.part;
    if (x->failed) /* what looks like a problem may follow from that */
        return rx_check(x, NULL, err);
    if (r.problem)
        return err_set(err, GLM_ESCHEMA, r.pos, NULL, "the pattern cannot be enforced: %s", r.problem);
    return 0;
}
