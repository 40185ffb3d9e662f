/* trie.c: building the byte trie of a vocabulary. Tokens are sorted by their bytes (merge sort from the bottom up),
 * then laid out in one pass.
 */
#include "trie.h"

#include <string.h>

struct entry {
    const uint8_t *text;
    uint32_t size, id;
};

static int compare(const struct entry *a, const struct entry *b)
{
    size_t n = a->size < b->size ? a->size : b->size;
    int order = memcmp(a->text, b->text, n);
    if (order != 0)
        return order;
    return a->size < b->size ? -1 : a->size > b->size;
}

/* Merge sort from the bottom up: the order of a vocabulary is anything. */
static void sort(struct entry *e, struct entry *scratch, size_t n)
{
    struct entry *from = e, *to = scratch;
    for (size_t width = 1; width < n; width *= 2) {
        for (size_t at = 0; at < n; at += 2 * width) {
            size_t mid = at + width < n ? at + width : n, end = at + 2 * width < n ? at + 2 * width : n;
            size_t i = at, k = mid;
            for (size_t o = at; o < end; o++)
                to[o] = i < mid && (k == end || compare(&from[i], &from[k]) <= 0) ? from[i++] : from[k++];
        }
        struct entry *swap = from;
        from = to;
        to = swap;
    }
    if (from != e)
        memcpy(e, from, n * sizeof *e);
}

static size_t shared_prefix(const struct entry *a, const struct entry *b)
{
    size_t n = a->size < b->size ? a->size : b->size, i = 0;
    while (i < n && a->text[i] == b->text[i])
        i++;
    return i;
}

#define BEYOND_SPACES { 0x3001, 0xD7FF }, { 0xE000, 0xFEFE }, { 0xFF00, 0x10FFFF }
const struct trie_chars trie_slice_chars[TRIE_SLICES] = {
    { 12, { { 0x20, 0x21 }, { 0x23, 0x5B }, { 0x5D, 0x9F }, { 0xA1, 0x167F }, { 0x1681, 0x1FFF }, { 0x200B, 0x2027 },
              { 0x202A, 0x202E }, { 0x2030, 0x205E }, { 0x2060, 0x2FFF }, BEYOND_SPACES } },
    { 12, { { 0x21, 0x21 }, { 0x23, 0x5B }, { 0x5D, 0x9F }, { 0xA1, 0x167F }, { 0x1681, 0x1FFF }, { 0x200B, 0x2027 },
              { 0x202A, 0x202E }, { 0x2030, 0x205E }, { 0x2060, 0x2FFF }, BEYOND_SPACES } },
    { 3, { { '0', '9' }, { 'A', 'Z' }, { 'a', 'z' } } },
    { 1, { { 'a', 'z' } } },
};

static bool in_slice(const struct trie_chars *s, uint32_t c)
{
    for (uint32_t i = 0; i < s->n; i++)
        if (c <= s->range[i].hi)
            return c >= s->range[i].lo;
    return false;
}

/* Characters of a token of the slice; UINT32_MAX: it is none. */
static uint32_t slice_chars(const struct entry *e, const struct trie_chars *s)
{
    uint32_t n = 0, c;
    for (uint32_t i = 0, size; i < e->size; i += size, n++) {
        size = utf8_decode((const char *)e->text + i, e->size - i, &c);
        if (size == 0 || n + 1 >= TRIE_LENGTHS || !in_slice(s, c))
            return UINT32_MAX;
    }
    return n;
}

static void note_shorter(struct trie *t, struct trie_slice *s, const struct entry *e, uint32_t n_char)
{
    for (uint32_t i = n_char; i < TRIE_LENGTHS; i++)
        s->shorter[(size_t)i * t->n_word + e->id / 32] |= 1u << e->id % 32;
}

/* Nodes of sorted entries in preorder; `open` holds the path to the current one. Marks: a bit per slice for nodes on the way
 * to a token outside of it. */
static void lay_out(struct trie *t, const struct entry *e, size_t n, uint32_t *open, uint8_t *mark)
{
    uint32_t depth = 0;
    for (size_t i = 0; i < n; i++) {
        size_t keep = i == 0 ? 0 : shared_prefix(&e[i - 1], &e[i]);
        while (depth > keep) {
            struct trie_node *closed = &t->node[open[--depth]];
            closed->size = (uint32_t)(t->n - open[depth]);
        }
        for (; depth < e[i].size; depth++) {
            open[depth] = t->n;
            mark[t->n] = 0;
            t->node[t->n++] = (struct trie_node){ .id = -1, .depth = (uint16_t)(depth + 1), .byte = e[i].text[depth] };
        }
        t->node[open[depth - 1]].id = (int32_t)e[i].id;
        for (uint32_t k = 0; k < TRIE_SLICES; k++) {
            uint32_t n_char = slice_chars(&e[i], &trie_slice_chars[k]);
            if (n_char != UINT32_MAX)
                note_shorter(t, &t->slice[k], &e[i], n_char);
            else
                for (uint32_t d = depth; d > 0 && !(mark[open[d - 1]] >> k & 1); d--)
                    mark[open[d - 1]] |= (uint8_t)(1u << k);
        }
    }
    while (depth > 0) {
        depth--;
        t->node[open[depth]].size = t->n - open[depth];
    }
}

static bool list_rest(struct trie *t, uint32_t k, const uint8_t *mark)
{
    struct trie_slice *s = &t->slice[k];
    uint32_t open[1001], n_open = 0, n = 0;
    for (uint32_t i = 0; i < t->n; i++)
        n += mark[i] >> k & 1;
    s->rest = mem_array(t->mem, (size_t)n + 1, sizeof *s->rest);
    s->rest_next = mem_array(t->mem, (size_t)n + 1, sizeof *s->rest_next);
    if (s->rest == NULL || s->rest_next == NULL)
        return false;
    for (uint32_t i = 0; i < t->n; i++) {
        if (!(mark[i] >> k & 1))
            continue;
        while (n_open > 0 && t->node[s->rest[open[n_open - 1]]].depth >= t->node[i].depth)
            s->rest_next[open[--n_open]] = s->n_rest;
        open[n_open++] = s->n_rest;
        s->rest[s->n_rest++] = i;
    }
    while (n_open > 0)
        s->rest_next[open[--n_open]] = s->n_rest;
    return true;
}

static size_t collect(const struct tok *tok, struct entry *e, size_t *bytes, uint32_t *longest)
{
    size_t n = 0;
    for (uint32_t id = 0; id < tok_n(tok); id++) {
        size_t size;
        const char *text = tok_bytes(tok, (int32_t)id, &size);
        if (text == NULL || size == 0 || size > 1000 || tok_is_added(tok, (int32_t)id))
            continue;
        if (e != NULL)
            e[n] = (struct entry){ (const uint8_t *)text, (uint32_t)size, id };
        *bytes += size;
        *longest = size > *longest ? (uint32_t)size : *longest;
        n++;
    }
    return n;
}

static uint32_t count_nodes(const struct entry *e, size_t n)
{
    size_t total = 0;
    for (size_t i = 0; i < n; i++)
        total += e[i].size - (i == 0 ? 0 : shared_prefix(&e[i - 1], &e[i]));
    return (uint32_t)total;
}

static bool build(struct trie *t, struct entry *e, size_t n)
{
    uint32_t n_node = count_nodes(e, n), open[1001];
    uint8_t *mark = mem_array(t->mem, n_node + 1, 1);
    bool fine = mark != NULL;
    t->node = mem_array(t->mem, (size_t)n_node + 1, sizeof *t->node);
    fine = fine && t->node != NULL;
    for (uint32_t k = 0; k < TRIE_SLICES && fine; k++) {
        t->slice[k].shorter = mem_zarray(t->mem, (size_t)TRIE_LENGTHS * t->n_word, sizeof(uint32_t));
        fine = t->slice[k].shorter != NULL;
    }
    if (fine)
        lay_out(t, e, n, open, mark);
    for (uint32_t k = 0; k < TRIE_SLICES && fine; k++)
        fine = list_rest(t, k, mark);
    mem_free(t->mem, mark);
    return fine;
}

int32_t trie_open(struct mem *m, const struct tok *tok, struct trie **out, glm_error *err)
{
    size_t bytes = 0, n;
    uint32_t longest = 0;
    *out = NULL;
    n = collect(tok, NULL, &bytes, &longest);
    if (bytes > UINT32_MAX / 4)
        return err_set(err, GLM_ELIMIT, 0, NULL, "the vocabulary has too many bytes for a trie");
    struct trie *t = mem_zalloc(m, sizeof *t);
    struct entry *e = mem_array(m, 2 * (n + 1), sizeof *e);
    bool fine = t != NULL && e != NULL;
    if (t != NULL)
        t->mem = m;
    if (fine) {
        t->n_word = (tok_n(tok) + 31) / 32;
        t->depth_max = longest;
        collect(tok, e, &bytes, &longest);
        sort(e, e + n, n);
        fine = build(t, e, n);
    }
    mem_free(m, e);
    if (!fine) {
        trie_close(t);
        return err_nomem(err, "the vocabulary's trie");
    }
    *out = t;
    return 0;
}

void trie_close(struct trie *t)
{
    if (t == NULL)
        return;
    mem_free(t->mem, t->node);
    for (uint32_t k = 0; k < TRIE_SLICES; k++) {
        mem_free(t->mem, t->slice[k].shorter);
        mem_free(t->mem, t->slice[k].rest);
        mem_free(t->mem, t->slice[k].rest_next);
    }
    mem_free(t->mem, t);
}
