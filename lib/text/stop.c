/* stop.c: where an answer ends before the model ends it: at one of several strings, after some lines, before a line that
 * is indented less. Text goes in as it comes and comes out once it is certain to belong to the answer; how it is cut makes
 * no difference. The strings and all state are one block of memory: nothing is allocated after text_stop_open, and the
 * time is linear in the text.
 */
#include "text.h"

#include <string.h>

#define TAIL_MAX 4096u /* bytes of blank lines, or of a line of brackets, that may wait for the line behind them */

/* A string, matched as Knuth, Morris and Pratt do: the last n bytes of the text are its first n. */
struct pattern {
    const char *text;
    const uint32_t *fail; /* [size]: the longest proper prefix of the first i + 1 bytes that also ends them */
    uint32_t size, n;
};

/* The line that the text is in, for rules on lines. */
struct line {
    uint32_t n_ended;   /* lines before it */
    uint32_t column;    /* of its first character that is not blank */
    bool blank;         /* no such character so far */
    bool fixed;         /* the column is known: the line began before the text */
    bool closing;       /* indented too little, but nothing but closing brackets so far */
};

struct text_stop {
    struct mem *mem;
    struct pattern *pattern; /* [n_pattern] */
    uint32_t n_pattern;
    uint32_t reach;          /* a match begins so many bytes before the end, but a longer string may begin before it; 0: none */
    uint32_t max_lines;
    bool dedent;
    bool has_base;
    uint32_t base;           /* column of the first line with text */
    struct line line;
    uint32_t n_tail;
    char tail[TAIL_MAX];     /* what waits in front of the line rules: line ends, blanks, brackets */
};

/* ---- rules on lines ---------------------------------------------------------------------------------------------- */

static void put_tail(struct text_stop *s, struct buf *out)
{
    buf_put(out, s->tail, s->n_tail);
    s->n_tail = 0;
}

static void hold(struct text_stop *s, char c, struct buf *out)
{
    if (s->n_tail == TAIL_MAX)
        put_tail(s, out);
    s->tail[s->n_tail++] = c;
}

static uint32_t next_column(uint32_t column, char c) { return c == '\t' ? (column / 8 + 1) * 8 : column + 1; }

static bool is_closer(char c) { return c == ')' || c == ']' || c == '}'; }

/* A line's end: it waits, since it is not delivered in front of a line that does not belong to the answer. */
static bool line_end(struct text_stop *s, struct buf *out)
{
    bool last = s->max_lines && s->line.n_ended + 1 >= s->max_lines;
    bool carriage = s->n_tail && s->tail[s->n_tail - 1] == '\r';

    s->n_tail -= carriage;
    if (last || !s->dedent || s->line.closing)
        put_tail(s, out);
    if (last)
        return true;
    s->line = (struct line){ .n_ended = s->line.n_ended + 1, .blank = true };
    if (carriage)
        hold(s, '\r', out);
    hold(s, '\n', out);
    if (!s->dedent)
        put_tail(s, out);
    return false;
}

/* The first character of a line that is not blank decides whether the line belongs to the answer. */
static bool line_begin(struct text_stop *s, char c, struct buf *out)
{
    s->line.blank = false;
    if (!s->has_base) {
        s->has_base = true;
        s->base = s->line.column;
    }
    if (s->line.column < s->base) {
        if (!is_closer(c))
            return true;
        s->line.closing = true;
        hold(s, c, out);
        return false;
    }
    put_tail(s, out);
    buf_char(out, c);
    return false;
}

static bool line_put(struct text_stop *s, char c, struct buf *out)
{
    struct line *l = &s->line;
    bool space = c == ' ' || c == '\t';

    if (c == '\n')
        return line_end(s, out);
    if (c == '\r') {
        hold(s, c, out);
    } else if (!s->dedent || !(l->blank || l->closing)) {
        put_tail(s, out); /* a carriage return inside a line */
        buf_char(out, c);
    } else if (l->blank && space) {
        l->column = l->fixed ? l->column : next_column(l->column, c);
        hold(s, c, out);
    } else if (l->blank) {
        return line_begin(s, c, out);
    } else if (space || is_closer(c) || c == ';' || c == ',') {
        hold(s, c, out);
    } else {
        return true;
    }
    return false;
}

static bool lines_put(struct text_stop *s, const char *text, size_t size, struct buf *out)
{
    if (!s->max_lines && !s->dedent) {
        buf_put(out, text, size);
        return false;
    }
    for (size_t i = 0; i < size; i++)
        if (line_put(s, text[i], out))
            return true;
    return false;
}

/* ---- strings ------------------------------------------------------------------------------------------------------ */

static void advance(struct pattern *p, char c)
{
    uint32_t n = p->n;
    while (n && (n == p->size || p->text[n] != c))
        n = p->fail[n - 1];
    p->n = p->text[n] == c ? n + 1 : n;
}

static const struct pattern *longest(const struct text_stop *s)
{
    const struct pattern *best = &s->pattern[0];
    for (uint32_t i = 1; i < s->n_pattern; i++)
        if (s->pattern[i].n > best->n)
            best = &s->pattern[i];
    return best;
}

/* One byte of text. The bytes that may still begin a string are the first ones of the pattern with the longest partial
 * match: they need no memory of their own. A match ends the text where it begins once no string that begins before it is
 * still possible. */
static bool strings_put(struct text_stop *s, char c, struct buf *out)
{
    const struct pattern *before = longest(s);
    uint32_t n_before = before->n, total = n_before + 1, ready;
    bool stop;

    s->reach += s->reach != 0;
    for (uint32_t i = 0; i < s->n_pattern; i++) {
        advance(&s->pattern[i], c);
        if (s->pattern[i].n == s->pattern[i].size && s->pattern[i].size > s->reach)
            s->reach = s->pattern[i].size;
    }
    stop = s->reach && s->reach >= longest(s)->n;
    ready = total - (stop ? s->reach : longest(s)->n);
    if (lines_put(s, before->text, ready < n_before ? ready : n_before, out))
        return true;
    if (ready > n_before && lines_put(s, &c, 1, out))
        return true;
    if (stop)
        put_tail(s, out); /* no line comes that could say otherwise */
    return stop;
}

static void forget(struct text_stop *s)
{
    for (uint32_t i = 0; i < s->n_pattern; i++)
        s->pattern[i].n = 0;
    s->reach = s->n_tail = 0;
}

bool text_stop_put(struct text_stop *s, const char *text, size_t size, struct buf *out)
{
    bool stop = s->n_pattern == 0 && lines_put(s, text, size, out);
    for (size_t i = 0; s->n_pattern && i < size && !stop; i++)
        stop = strings_put(s, text[i], out);
    if (stop)
        forget(s);
    return stop;
}

bool text_stop_flush(struct text_stop *s, struct buf *out)
{
    const struct pattern *p = s->n_pattern ? longest(s) : NULL;
    bool ended = p && lines_put(s, p->text, p->n - s->reach, out), stop = ended || s->reach;

    if (!ended)
        put_tail(s, out);
    forget(s);
    return stop;
}

void text_stop_begin(struct text_stop *s, const char *line, size_t size)
{
    forget(s);
    s->has_base = false;
    s->line = (struct line){ .blank = true };
    for (size_t i = 0; i < size && !s->line.fixed; i++) {
        if (line[i] == ' ' || line[i] == '\t')
            s->line.column = next_column(s->line.column, line[i]);
        else
            s->line.fixed = true;
    }
}

/* ---- lifetime ------------------------------------------------------------------------------------------------------ */

static void fill_pattern(struct pattern *p, const char *text, uint32_t *fail, uint32_t size)
{
    uint32_t n = 0;
    *p = (struct pattern){ text, fail, size, 0 };
    fail[0] = 0;
    for (uint32_t i = 1; i < size; i++) {
        while (n && text[n] != text[i])
            n = fail[n - 1];
        n += text[n] == text[i];
        fail[i] = n;
    }
}

int32_t text_stop_check(const struct text_stop_rules *rules, glm_error *err)
{
    for (uint32_t i = 0; i < rules->n_stop; i++) {
        size_t size = strlen(rules->stop[i]);
        if (size == 0)
            return err_set(err, GLM_EINVAL, i, "stop", "stop string %u is empty", i);
        if (size > TEXT_STOP_MAX)
            return err_set(err, GLM_ELIMIT, i, "stop", "stop string %u is longer than %u bytes", i, TEXT_STOP_MAX);
    }
    return GLM_OK;
}

int32_t text_stop_open(struct mem *m, const struct text_stop_rules *rules, struct text_stop **out, glm_error *err)
{
    int32_t rc = text_stop_check(rules, err);
    size_t bytes = 0;
    struct text_stop *s;
    uint32_t *fail;
    char *text;

    *out = NULL;
    if (rc)
        return rc;
    for (uint32_t i = 0; i < rules->n_stop; i++)
        bytes += strlen(rules->stop[i]);
    s = mem_alloc(m, sizeof *s + rules->n_stop * sizeof *s->pattern + bytes * (sizeof *fail + 1));
    if (!s)
        return err_nomem(err, "the stop rules");
    memset(s, 0, sizeof *s);
    s->mem = m;
    s->pattern = (struct pattern *)(void *)(s + 1);
    s->n_pattern = rules->n_stop;
    s->max_lines = rules->lines;
    s->dedent = rules->dedent;
    fail = (uint32_t *)(void *)(s->pattern + s->n_pattern);
    text = (char *)(fail + bytes);
    for (uint32_t i = 0; i < rules->n_stop; i++) {
        size_t size = strlen(rules->stop[i]);
        memcpy(text, rules->stop[i], size);
        fill_pattern(&s->pattern[i], text, fail, (uint32_t)size);
        fail += size;
        text += size;
    }
    text_stop_begin(s, NULL, 0);
    *out = s;
    return GLM_OK;
}

/* The block is copied as it stands; only the pointers into it move. */
int32_t text_stop_copy(struct mem *m, const struct text_stop *from, struct text_stop **out, glm_error *err)
{
    size_t size = mem_size(from);
    const char *old = (const char *)from;
    struct text_stop *s = mem_alloc(m, size);

    *out = s;
    if (!s)
        return err_nomem(err, "the stop rules");
    memcpy(s, from, size);
    s->mem = m;
    s->pattern = (struct pattern *)(void *)(s + 1);
    for (uint32_t i = 0; i < s->n_pattern; i++) {
        struct pattern *p = &s->pattern[i];
        p->text = (const char *)s + (p->text - old);
        p->fail = (const uint32_t *)(const void *)((const char *)s + ((const char *)p->fail - old));
    }
    return GLM_OK;
}

void text_stop_close(struct text_stop *s)
{
    if (s)
        mem_free(s->mem, s);
}
