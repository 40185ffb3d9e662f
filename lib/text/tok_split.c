/* tok_split.c: the pre-tokenizer: cuts text into the pieces that the family's regular expression
 * finds, by hand and in linear time. Pure functions; the character classes are those of
 * tok_unicode.c.
 */
#include "tok_int.h"

/* The alternatives in order, as the functions below carry them out. A regular expression takes the
 * first alternative that matches, not the longest. */
const char tok_pattern[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)"    /* contraction; long s (U+017F) folds to s */
    "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+"  /* a word, with one character of any other kind before it */
    "|\\p{N}{1,3}"                    /* up to three digits */
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*" /* punctuation, with one blank before and line ends behind */
    "|\\s*[\\r\\n]+"                  /* white space up to the last line end in its run */
    "|\\s+(?!\\S)"                    /* white space but for the last one before something else */
    "|\\s+";

#define L TOK_LETTER
#define N TOK_NUMBER
#define S TOK_SPACE
static const uint8_t ascii_class[128] = {
    0, 0, 0, 0, 0, 0, 0, 0, 0, S, S, S, S, S, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    S, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, N, N, N, N, N, N, N, N, N, N, 0, 0, 0, 0, 0, 0,
    0, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, 0, 0, 0, 0, 0,
    0, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, 0, 0, 0, 0, 0,
};
#undef L
#undef N
#undef S

static inline bool is_continuation(uint8_t c)
{
    return (c & 0xC0) == 0x80;
}

/* Class and length of the character at p (p < end). A byte that is no character is one of class
 * other, so that any input is cut somewhere. */
static enum tok_class class_multi(const uint8_t *p, const uint8_t *end, uint32_t *size)
{
    size_t left = (size_t)(end - p);
    *size = 1;
    if (p[0] < 0xC2)
        return TOK_OTHER;
    if (p[0] < 0xE0) {
        if (left < 2 || !is_continuation(p[1]))
            return TOK_OTHER;
        *size = 2;
        return tok_class_of((p[0] & 0x1Fu) << 6 | (p[1] & 0x3Fu));
    }
    if (left < 3 || !is_continuation(p[1]) || !is_continuation(p[2]))
        return TOK_OTHER;
    if (p[0] < 0xF0) {
        *size = 3;
        return tok_class_of((p[0] & 0xFu) << 12 | (p[1] & 0x3Fu) << 6 | (p[2] & 0x3Fu));
    }
    uint32_t c = (p[0] & 7u) << 18 | (p[1] & 0x3Fu) << 12 | (p[2] & 0x3Fu) << 6;
    if (p[0] > 0xF4 || left < 4 || !is_continuation(p[3]) || c >= 0x110000)
        return TOK_OTHER;
    *size = 4;
    return tok_class_of(c | (p[3] & 0x3Fu));
}

static inline enum tok_class class_at(const uint8_t *p, const uint8_t *end, uint32_t *size)
{
    if (*p >= 0x80)
        return class_multi(p, end, size);
    *size = 1;
    return (enum tok_class)ascii_class[*p];
}

/* The end of the run of one class that starts at p. */
static inline const uint8_t *run_end(const uint8_t *p, const uint8_t *end, enum tok_class class)
{
    uint32_t size;
    while (p < end && class_at(p, end, &size) == class)
        p += size;
    return p;
}

static inline bool is_line_end(uint8_t c)
{
    return c == '\n' || c == '\r';
}

/* Length of the contraction behind the apostrophe at p, or 0. */
static size_t contraction(const uint8_t *p, const uint8_t *end)
{
    size_t left = (size_t)(end - p);
    if (left < 2)
        return 0;
    uint8_t a = p[1] | 0x20; /* only letters become these letters */
    if (a == 's' || a == 't' || a == 'm' || a == 'd')
        return 2;
    if (left < 3)
        return 0;
    uint8_t b = p[2] | 0x20;
    if (((a == 'r' || a == 'v') && b == 'e') || (a == 'l' && b == 'l'))
        return 3;
    return p[1] == 0xC5 && p[2] == 0xBF ? 3 : 0; /* U+017F */
}

static const uint8_t *punctuation_end(const uint8_t *p, const uint8_t *end)
{
    p = run_end(p, end, TOK_OTHER);
    while (p < end && is_line_end(*p))
        p++;
    return p;
}

/* White space that neither a word nor punctuation takes along. The run ends at `stop`. A run is
 * looked at three times at most: once up to its last line end, once up to its last character, once
 * for that one. */
static const uint8_t *space_end(const uint8_t *p, const uint8_t *end)
{
    const uint8_t *line = NULL, *last = p, *q = p;
    uint32_t size;
    while (q < end && class_at(q, end, &size) == TOK_SPACE) {
        last = q;
        q += size;
        if (is_line_end(*last))
            line = q;
    }
    if (line)
        return line;
    return q == end || last == p ? q : last;
}

size_t tok_split(const char *text, const char *text_end)
{
    const uint8_t *p = (const uint8_t *)text, *end = (const uint8_t *)text_end, *q;
    uint32_t size, next_size;
    enum tok_class class = class_at(p, end, &size), next;

    if (class == TOK_LETTER)
        return (size_t)(run_end(p + size, end, TOK_LETTER) - p);
    if (class == TOK_NUMBER) {
        q = p + size;
        for (int i = 1; i < 3 && q < end && class_at(q, end, &size) == TOK_NUMBER; i++)
            q += size;
        return (size_t)(q - p);
    }
    if (*p == '\'' && (size_t)(end - p) > 1) {
        size_t n = contraction(p, end);
        if (n)
            return n;
    }
    q = p + size;
    if (q < end && !is_line_end(*p)) {
        next = class_at(q, end, &next_size);
        if (next == TOK_LETTER)
            return (size_t)(run_end(q + next_size, end, TOK_LETTER) - p);
        if (*p == ' ' && next == TOK_OTHER)
            return (size_t)(punctuation_end(q, end) - p);
    }
    if (class == TOK_OTHER)
        return (size_t)(punctuation_end(q, end) - p);
    return (size_t)(space_end(p, end) - p);
}
