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

/* Characters of a plain token; UINT32_MAX: it is none. */
static uint32_t plain_chars(const struct entry *e)
{
    uint32_t n = 0;
    if (!utf8_is_valid((const char *)e->text, e->size, NULL))
        return UINT32_MAX;
    for (uint32_t i = 0; i < e->size; i++) {
        uint8_t c = e->text[i];
        if (c < 0x20 || c == '"' || c == '\\')
            return UINT32_MAX;
        n += (c & 0xC0) != 0x80;
    }
    return n < TRIE_PLAIN_MAX ? n : UINT32_MAX;
}

static void note_plain(struct trie *t, const struct entry *e, uint32_t n_char)
{
    for (uint32_t i = n_char; i < TRIE_PLAIN_MAX; i++)
        t->plain[(size_t)i * t->n_word + e->id / 32] |= 1u << e->id % 32;
}

/* Nodes of sorted entries in preorder; `open` holds the path to the current one. rest marks: 1 for nodes on the way to a
 * token that is not plain. */
static void lay_out(struct trie *t, const struct entry *e, size_t n, uint32_t *open, uint8_t *mark)
{
    uint32_t depth = 0;
    for (size_t i = 0; i < n; i++) {
        size_t keep = i == 0 ? 0 : shared_prefix(&e[i - 1], &e[i]);
        uint32_t n_char = plain_chars(&e[i]);
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
        if (n_char != UINT32_MAX)
            note_plain(t, &e[i], n_char);
        else
            for (uint32_t k = depth; k > 0 && !mark[open[k - 1]]; k--)
                mark[open[k - 1]] = 1;
    }
    while (depth > 0) {
        depth--;
        t->node[open[depth]].size = t->n - open[depth];
    }
}

static void list_rest(struct trie *t, const uint8_t *mark)
{
    uint32_t open[1024], n_open = 0;
    for (uint32_t i = 0; i < t->n; i++) {
        if (!mark[i])
            continue;
        while (n_open > 0 && t->node[t->rest[open[n_open - 1]]].depth >= t->node[i].depth)
            t->rest_next[open[--n_open]] = t->n_rest;
        open[n_open++] = t->n_rest;
        t->rest[t->n_rest++] = i;
    }
    while (n_open > 0)
        t->rest_next[open[--n_open]] = t->n_rest;
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
    uint32_t n_node = count_nodes(e, n), open[1024];
    uint8_t *mark = mem_array(t->mem, n_node + 1, 1);
    uint32_t n_rest = 0;
    t->node = mem_array(t->mem, (size_t)n_node + 1, sizeof *t->node);
    t->plain = mem_zarray(t->mem, (size_t)TRIE_PLAIN_MAX * t->n_word, sizeof *t->plain);
    if (mark == NULL || t->node == NULL || t->plain == NULL) {
        mem_free(t->mem, mark);
        return false;
    }
    lay_out(t, e, n, open, mark);
    for (uint32_t i = 0; i < t->n; i++)
        n_rest += mark[i];
    t->rest = mem_array(t->mem, (size_t)n_rest + 1, sizeof *t->rest);
    t->rest_next = mem_array(t->mem, (size_t)n_rest + 1, sizeof *t->rest_next);
    if (t->rest != NULL && t->rest_next != NULL)
        list_rest(t, mark);
    mem_free(t->mem, mark);
    return t->rest != NULL && t->rest_next != NULL;
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
    if (fine) {
        t->mem = m;
        t->n_token = tok_n(tok);
        t->n_word = (t->n_token + 31) / 32;
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
    mem_free(t->mem, t->rest);
    mem_free(t->mem, t->rest_next);
    mem_free(t->mem, t->plain);
    mem_free(t->mem, t);
}
