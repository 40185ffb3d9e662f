/* tok_bpe.c: merges the bytes of one piece into tokens: always the pair of neighbours with the
 * lowest rank, the leftmost of equals. Short pieces on the stack; long ones through a window of
 * constant size, so that a piece of any size takes linear time and, beside its ids, 80 KiB.
 *
 * Why windows are exact. Let a text be x t z, none of them empty, where merging "x t" alone ends
 * with a token boundary between x and t, and merging "t z" alone ends with one between t and z.
 * Then merging x t z gives the tokens of x t up to that first boundary, followed by the tokens of t
 * z. Proof: suppose that some merge crosses one of the two boundaries, and take the first that
 * does, say between x and t. Until then every merge was inside x, t or z, and those inside x and t
 * were the ones, in the same order, that merging "x t" makes: what is lowest among them does not
 * depend on z. So merging "x t" comes to the same state, where the crossing pair is the lowest of
 * all; it would take it. The other boundary likewise. Nothing is assumed of the ranks. So: merge a
 * window; begin the next one at a token boundary b0 near its end; any boundary b1 > b0 that both
 * agree on makes t = [b0, b1), and the first window's tokens up to b0 are final. If they agree on
 * none, the first window was too short: double it.
 */
#include "tok_int.h"

#define WINDOW 2048u
#define NONE UINT32_MAX

/* Symbols are named by the offset of their first byte in the window. */
struct tok_window {
    uint32_t capacity;  /* bytes */
    uint32_t n_heap;
    uint32_t *id;       /* [capacity] NONE: merged into an earlier one */
    uint32_t *next;     /* [capacity] */
    uint32_t *previous; /* [capacity] */
    uint32_t *rank;     /* [capacity] of the pair that begins here; TOK_NO_RANK: none */
    uint32_t *made;     /* [capacity] the token that this pair becomes */
    uint64_t *heap;     /* [2 * capacity] rank << 32 | symbol, lowest first; some out of date */
    uint32_t *boundary; /* [capacity] of the window before: ends of its tokens beyond b0, from b0 */
};

uint32_t tok_bpe_short(const struct tok *t, const char *text, uint32_t size, int32_t *out)
{
    uint32_t id[TOK_SHORT], rank[TOK_SHORT], made[TOK_SHORT], n = size;
    for (uint32_t i = 0; i < n; i++)
        id[i] = t->byte_id[(uint8_t)text[i]];
    for (uint32_t i = 0; i + 1 < n; i++) {
        const struct tok_pair *pair = tok_pair_find(t, id[i], id[i + 1]);
        rank[i] = pair ? pair->rank : TOK_NO_RANK;
        made[i] = pair ? pair->id : 0;
    }
    while (n > 1) {
        uint32_t at = 0, lowest = rank[0];
        for (uint32_t i = 1; i + 1 < n; i++)
            if (rank[i] < lowest) {
                lowest = rank[i];
                at = i;
            }
        if (lowest == TOK_NO_RANK)
            break;
        id[at] = made[at];
        n--;
        for (uint32_t i = at + 1; i < n; i++) {
            id[i] = id[i + 1];
            rank[i - 1] = rank[i];
            made[i - 1] = made[i];
        }
        for (uint32_t i = at ? at - 1 : 0; i <= at && i + 1 < n; i++) {
            const struct tok_pair *pair = tok_pair_find(t, id[i], id[i + 1]);
            rank[i] = pair ? pair->rank : TOK_NO_RANK;
            made[i] = pair ? pair->id : 0;
        }
    }
    for (uint32_t i = 0; i < n; i++)
        out[i] = (int32_t)id[i];
    return n;
}

/* ---- one window ------------------------------------------------------------------------------ */

static void sift_down(uint64_t *heap, uint32_t n, uint32_t i, uint64_t v)
{
    for (uint32_t child; (child = 2 * i + 1) < n; i = child) {
        child += child + 1 < n && heap[child + 1] < heap[child];
        if (v <= heap[child])
            break;
        heap[i] = heap[child];
    }
    heap[i] = v;
}

static void heap_put(struct tok_window *w, uint64_t v)
{
    uint32_t i = w->n_heap++;
    for (; i && w->heap[(i - 1) / 2] > v; i = (i - 1) / 2)
        w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = v;
}

static uint64_t heap_take(struct tok_window *w)
{
    uint64_t top = w->heap[0];
    w->n_heap--;
    if (w->n_heap)
        sift_down(w->heap, w->n_heap, 0, w->heap[w->n_heap]);
    return top;
}

/* Looks up the pair that begins at symbol i; true: there is one. */
static bool rate(struct tok_window *w, const struct tok *t, uint32_t i)
{
    const struct tok_pair *pair =
        w->next[i] == NONE ? NULL : tok_pair_find(t, w->id[i], w->id[w->next[i]]);
    w->rank[i] = pair ? pair->rank : TOK_NO_RANK;
    w->made[i] = pair ? pair->id : 0;
    return pair;
}

/* Merges text [size <= capacity]: the symbols that stay are its tokens. */
static void merge_window(struct tok_window *w, const struct tok *t, const char *text, uint32_t size)
{
    w->n_heap = 0;
    for (uint32_t i = 0; i < size; i++) {
        w->id[i] = t->byte_id[(uint8_t)text[i]];
        w->next[i] = i + 1 < size ? i + 1 : NONE;
        w->previous[i] = i ? i - 1 : NONE;
    }
    for (uint32_t i = 0; i < size; i++)
        if (rate(w, t, i))
            w->heap[w->n_heap++] = (uint64_t)w->rank[i] << 32 | i;
    for (uint32_t i = w->n_heap / 2; i-- > 0;)
        sift_down(w->heap, w->n_heap, i, w->heap[i]);
    while (w->n_heap) {
        uint64_t top = heap_take(w);
        uint32_t i = (uint32_t)top;
        if (w->id[i] == NONE || w->rank[i] != top >> 32)
            continue;
        uint32_t gone = w->next[i], after = w->next[gone], before = w->previous[i];
        w->id[i] = w->made[i];
        w->id[gone] = NONE;
        w->next[i] = after;
        if (after != NONE)
            w->previous[after] = i;
        if (rate(w, t, i))
            heap_put(w, (uint64_t)w->rank[i] << 32 | i);
        if (before != NONE && rate(w, t, before))
            heap_put(w, (uint64_t)w->rank[before] << 32 | before);
    }
}

/* ---- a long piece ---------------------------------------------------------------------------- */

static void window_free(struct mem *m, struct tok_window *w)
{
    if (!w)
        return;
    mem_free(m, w->heap);
    mem_free(m, w->id);
    mem_free(m, w);
}

static struct tok_window *window_new(struct mem *m, uint32_t capacity)
{
    struct tok_window *w = mem_zalloc(m, sizeof *w);
    if (!w)
        return NULL;
    w->capacity = capacity;
    w->id = mem_array(m, capacity, 6 * sizeof *w->id);
    w->heap = mem_array(m, capacity, 2 * sizeof *w->heap);
    if (!w->id || !w->heap) {
        window_free(m, w);
        return NULL;
    }
    w->next = w->id + capacity;
    w->previous = w->next + capacity;
    w->rank = w->previous + capacity;
    w->made = w->rank + capacity;
    w->boundary = w->made + capacity;
    return w;
}

static bool make_window(struct tok_bpe *b, uint32_t capacity)
{
    if (b->window && b->window->capacity >= capacity)
        return true;
    window_free(b->out->mem, b->window);
    b->window = window_new(b->out->mem, capacity);
    return b->window;
}

void tok_bpe_free(struct tok_bpe *b)
{
    window_free(b->out->mem, b->window);
    b->window = NULL;
}

/* Appends the tokens before `end`, a boundary or NONE, of the window at text. */
static bool put_tokens(struct tok_bpe *b, const char *text, uint32_t end)
{
    const struct tok_window *w = b->window;
    struct ids *out = b->out;
    uint32_t n = 0;
    for (uint32_t i = 0; i != NONE && i < end; i = w->next[i])
        n++;
    if (!tok_bpe_room(b, text, n))
        return false;
    for (uint32_t i = 0; i != NONE && i < end; i = w->next[i])
        out->id[out->n++] = (int32_t)w->id[i];
    return true;
}

/* The first token boundary at or behind `from`, and into w->boundary those behind that one; *n of
 * them. The end of the window is one, but no b0. NONE: the tokens are too long for this window. */
static uint32_t note_boundaries(struct tok_window *w, uint32_t from, uint32_t size, uint32_t *n)
{
    uint32_t i = from;
    *n = 0;
    while (i < size && w->id[i] == NONE)
        i++;
    if (i == size)
        return NONE;
    for (uint32_t k = w->next[i]; k != NONE; k = w->next[k])
        w->boundary[(*n)++] = k - i;
    w->boundary[(*n)++] = size - i;
    return i;
}

/* Whether the window has a boundary among the n noted ones, all of them inside it. */
static bool agrees(const struct tok_window *w, uint32_t n)
{
    for (uint32_t k = 0; k < n; k++)
        if (w->id[w->boundary[k]] != NONE)
            return true;
    return false;
}

static uint32_t window_size(size_t left, uint32_t wish)
{
    return left < wish ? (uint32_t)left : wish;
}

bool tok_bpe_long(struct tok_bpe *b, const char *text, size_t size)
{
    const struct tok *t = b->tok;
    uint32_t wish = WINDOW, n = window_size(size, wish), n_boundary;
    if (!make_window(b, n))
        return false;
    merge_window(b->window, t, text, n);
    while (n < size) {
        /* The window [text, text + n) is merged; the tokens of all before it are in out. */
        size_t n_out = b->out->n;
        uint32_t b0 = note_boundaries(b->window, n - n / 8, n, &n_boundary);
        if (b0 != NONE) {
            if (!put_tokens(b, text, b0))
                return false;
            uint32_t next = 2 * (n - b0) > WINDOW ? 2 * (n - b0) : WINDOW; /* at most n */
            uint32_t n_next = window_size(size - b0, next);
            merge_window(b->window, t, text + b0, n_next);
            if (agrees(b->window, n_boundary)) {
                text += b0;
                size -= b0;
                n = n_next;
                wish = next;
                continue;
            }
        }
        b->out->n = n_out;
        if (wish > UINT32_MAX / 4)
            return false;
        wish *= 2;
        n = window_size(size, wish);
        if (!make_window(b, n))
            return false;
        merge_window(b->window, t, text, n);
    }
    return put_tokens(b, text, NONE);
}
