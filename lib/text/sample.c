/* sample.c: from logits to one token. Filters, then one draw from a counter generator. Nothing is
 * ever sorted: borders are found by radix selection on the bits of ordered numbers, in a few linear
 * passes. Every operation is fixed (no libm, sums in index order), so that all machines draw the
 * same token. Scratch belongs to one session; a draw allocates nothing.
 *
 * n_vocab: tokens; a block is BLOCK consecutive tokens; a candidate is a token that may still be
 * drawn.
 */
#include "text.h"
#include "sample_pass.h"

#include <float.h>
#include <math.h>
#include <string.h>

#define BLOCK 256u
#define DIGIT_BITS 11u
#define N_DIGIT (1u << DIGIT_BITS)
#define SHARES                                                                                     \
    4u /* histograms filled in turn: neighbours that fall into one bucket need not wait for each   \
          other */

struct sampler {
    struct mem *mem;
    const struct sample_passes *pass;
    uint32_t n_vocab, n_block;
    float *logit;    /* [n_vocab] after mask and penalty, where there are any */
    float *weight;   /* [n_vocab] e^((logit - max) / temperature), of tokens, then of candidates */
    uint32_t *id;    /* [n_vocab] of the candidates, rising */
    uint32_t *order; /* [n_vocab] of the candidates: see order_of */
    uint32_t *block_top; /* [n_block] largest order in the block */
    uint32_t *seen;      /* [n_vocab / 32, up] tokens that were penalised */
    uint32_t count[SHARES][N_DIGIT];
    double mass[SHARES][1024];
};

/* ---- lifetime and arguments ------------------------------------------------------------------ */

int32_t sampler_open(struct mem *m, uint32_t n_vocab, struct sampler **out, glm_error *err)
{
    *out = NULL;
    if (n_vocab == 0 || n_vocab > INT32_MAX)
        return err_set(
            err, GLM_EINVAL, 0, NULL, "cannot sample from a vocabulary of %u tokens", n_vocab);
    struct sampler *s = mem_zalloc(m, sizeof *s);
    if (s == NULL)
        return err_nomem(err, "the sampler");
    s->mem = m;
    s->pass = sample_passes(cpu_detect());
    s->n_vocab = n_vocab;
    s->n_block = (n_vocab - 1) / BLOCK + 1;
    s->logit = mem_array(m, n_vocab, sizeof *s->logit);
    s->weight = mem_array(m, n_vocab, sizeof *s->weight);
    s->id = mem_array(m, n_vocab, sizeof *s->id);
    s->order = mem_array(m, n_vocab, sizeof *s->order);
    s->block_top = mem_array(m, s->n_block, sizeof *s->block_top);
    s->seen = mem_zarray(m, (n_vocab - 1) / 32 + 1, sizeof *s->seen);
    if (!s->logit || !s->weight || !s->id || !s->order || !s->block_top || !s->seen) {
        sampler_close(s);
        return err_nomem(err, "the sampler");
    }
    *out = s;
    return 0;
}

void sampler_close(struct sampler *s)
{
    if (s == NULL)
        return;
    mem_free(s->mem, s->logit);
    mem_free(s->mem, s->weight);
    mem_free(s->mem, s->id);
    mem_free(s->mem, s->order);
    mem_free(s->mem, s->block_top);
    mem_free(s->mem, s->seen);
    mem_free(s->mem, s);
}

/* Comparisons that a NaN fails. */
int32_t sample_check(const struct sample_options *o, glm_error *err)
{
    if (!(o->temperature >= 0 && o->temperature <= FLT_MAX))
        return err_set(err, GLM_EINVAL, 0, "temperature", "temperature must be a number from 0 up");
    if (!(o->top_p >= 0 && o->top_p <= 1))
        return err_set(err, GLM_EINVAL, 0, "top_p", "top_p must lie between 0 and 1 (1: off)");
    if (!(o->min_p >= 0 && o->min_p <= 1))
        return err_set(err, GLM_EINVAL, 0, "min_p", "min_p must lie between 0 and 1 (0: off)");
    if (!(o->repeat_penalty > 0 && o->repeat_penalty <= FLT_MAX))
        return err_set(
            err, GLM_EINVAL, 0, "repeat_penalty", "repeat_penalty must be above 0 (1: off)");
    if (o->top_k < 0)
        return err_set(err, GLM_EINVAL, 0, "top_k", "top_k must be 0 (off) or a number of tokens");
    return 0;
}

/* ---- the extent of the logits -------------------------------------------------------------------- */

static uint32_t block_size(const struct sampler *s, uint32_t i_block)
{
    uint32_t left = s->n_vocab - i_block * BLOCK;
    return left < BLOCK ? left : BLOCK;
}

static void widen(struct extent *all, struct extent e)
{
    all->least = e.least < all->least ? e.least : all->least;
    all->most = e.most > all->most ? e.most : all->most;
}

/* Fills block_top. A NaN's order lies outside those of the two infinities. */
static struct extent scan(struct sampler *s, const float *x /* [n_vocab] */)
{
    struct extent all = {UINT32_MAX, 0};
    for (uint32_t b = 0; b < s->n_block; b++) {
        struct extent e = s->pass->extent(x + (size_t)b * BLOCK, block_size(s, b));
        s->block_top[b] = e.most;
        widen(&all, e);
    }
    return all;
}

/* Fills s->logit with what the mask leaves, and block_top of that; *raw: the extent of all logits. */
static struct extent scan_masked(struct sampler *s, const float *x, const uint32_t *mask, struct extent *raw)
{
    struct extent left = {UINT32_MAX, 0};
    *raw = left;
    for (uint32_t b = 0; b < s->n_block; b++) {
        size_t at = (size_t)b * BLOCK;
        uint32_t n = block_size(s, b);
        widen(raw, s->pass->extent(x + at, n));
        s->pass->mask(s->logit + at, x + at, mask + at / 32, n);
        struct extent e = s->pass->extent(s->logit + at, n);
        s->block_top[b] = e.most;
        widen(&left, e);
    }
    return left;
}

static int32_t refuse_number(const struct sampler *s, const float *x, glm_error *err)
{
    uint32_t i = 0;
    while (i + 1 < s->n_vocab && order_of(x[i]) >= ORDER_MINUS_INFINITY &&
           order_of(x[i]) < ORDER_PLUS_INFINITY)
        i++;
    return err_set(err, GLM_ENUMERIC, i, "logits",
        "the logit of token %u is %s: the weights or their format are damaged", i,
        order_of(x[i]) == ORDER_PLUS_INFINITY ? "infinite" : "not a number");
}

/* The lowest id whose logit is the largest. */
static int32_t first_of(const struct sampler *s, const float *x, uint32_t most)
{
    uint32_t b = 0;
    while (s->block_top[b] != most)
        b++;
    uint32_t i = b * BLOCK;
    while (order_of(x[i]) != most)
        i++;
    return (int32_t)i;
}

/* ---- mask and repetition penalty ------------------------------------------------------------- */

static void apply_penalty(
    const struct sampler *s, float penalty, const int32_t *history, size_t n_history)
{
    for (size_t i = 0; i < n_history; i++) {
        uint32_t id = (uint32_t)history[i];
        if (id >= s->n_vocab || s->seen[id / 32] >> (id % 32) & 1)
            continue;
        s->seen[id / 32] |= 1u << (id % 32);
        float x = s->logit[id];
        x = x > 0 ? x / penalty : x * penalty;
        s->logit[id] = x > FLT_MAX ? FLT_MAX : x;
    }
    for (size_t i = 0; i < n_history; i++)
        if ((uint32_t)history[i] < s->n_vocab)
            s->seen[(uint32_t)history[i] / 32] = 0;
}

/* ---- top_k ----------------------------------------------------------------------------------- */

struct border { /* what is above `at` stays, and of what is equal to it the first n_equal */
    uint32_t at;
    uint32_t n_equal;
};

static void clear_histograms(struct sampler *s)
{
    memset(s->count, 0, sizeof s->count);
    memset(s->mass, 0, sizeof s->mass);
}

static uint32_t count_in(const struct sampler *s, uint32_t digit)
{
    return s->count[0][digit] + s->count[1][digit] + s->count[2][digit] + s->count[3][digit];
}

static double mass_in(const struct sampler *s, uint32_t digit)
{
    return (s->mass[0][digit] + s->mass[1][digit]) + (s->mass[2][digit] + s->mass[3][digit]);
}

/* The border of the k largest of order[n], k <= n. */
static struct border select_count(struct sampler *s, const uint32_t *order, uint32_t n, uint32_t k)
{
    uint32_t at = 0, mask = 0;
    for (uint32_t bits_done = 0; bits_done < 32;) {
        uint32_t width = 32 - bits_done < DIGIT_BITS ? 32 - bits_done : DIGIT_BITS;
        uint32_t shift = 32 - bits_done - width, digit = (1u << width) - 1;
        memset(s->count, 0, sizeof s->count);
        for (uint32_t i = 0; i < n; i++)
            if ((order[i] & mask) == at)
                s->count[i % SHARES][order[i] >> shift & digit]++;
        uint32_t d = digit;
        for (uint32_t here; (here = count_in(s, d)) < k; d--)
            k -= here;
        at |= d << shift;
        mask |= digit << shift;
        bits_done += width;
    }
    return (struct border){at, k};
}

/* Candidates are all tokens whose order is at least `least`; returns how many. */
static uint32_t gather_orders(struct sampler *s, const float *x, uint32_t least)
{
    uint32_t n = 0;
    for (uint32_t b = 0; b < s->n_block; b++) {
        if (s->block_top[b] < least)
            continue;
        uint32_t end = b * BLOCK + block_size(s, b);
        for (uint32_t i = b * BLOCK; i < end; i++) {
            uint32_t order = order_of(x[i]);
            s->id[n] = i;
            s->order[n] = order;
            n += order >= least;
        }
    }
    return n;
}

/* The k largest logits as candidates. The k-th largest block top is a first bound: k blocks reach
 * it, so at least k tokens do, and few blocks more need be looked at. */
static uint32_t keep_top_k(struct sampler *s, const float *x, uint32_t k)
{
    uint32_t least = ORDER_MINUS_INFINITY + 1;
    if (k <= s->n_block) {
        uint32_t bound = select_count(s, s->block_top, s->n_block, k).at;
        least = bound > least ? bound : least;
    }
    uint32_t n = gather_orders(s, x, least), kept = 0;
    if (n <= k)
        return n;
    struct border border = select_count(s, s->order, n, k);
    for (uint32_t i = 0; i < n; i++) {
        bool equal = s->order[i] == border.at;
        if (s->order[i] < border.at || (equal && border.n_equal == 0))
            continue;
        border.n_equal -= equal;
        s->id[kept++] = s->id[i];
    }
    return kept;
}

/* ---- weights --------------------------------------------------------------------------------- */

/* ---- top_p and min_p ------------------------------------------------------------------------- */

/* Drops candidates below a weight that no filter lets pass: min_p's, and top_p's share of the rest
 * spread over all. What lies at or below that spread adds up to less than top_p drops. ids NULL:
 * candidate i is token i. */
static uint32_t drop_light(
    struct sampler *s, const uint32_t *ids, uint32_t n, double total, float top_p, float min_p)
{
    float light = top_p < 1 ? (float)((1.0 - (double)top_p) * total / n * 0.999) : 0.0f;
    return s->pass->keep(s->weight, s->id, ids, n, light, min_p);
}

/* The border of the smallest set of heaviest candidates whose weight reaches `target`. Positive
 * floats order as their bits do; a weight is at most 1, so 30 bits are enough. All stay where
 * rounding keeps the sum short of the target. */
static struct border select_mass(struct sampler *s, uint32_t n, double target)
{
    uint32_t at = 0, mask = 0;
    double above = 0;
    for (uint32_t shift = 30; shift > 0;) {
        shift -= 10;
        clear_histograms(s);
        for (uint32_t i = 0; i < n; i++) {
            uint32_t bits = f32_bits(s->weight[i]);
            if ((bits & mask) != at)
                continue;
            s->mass[i % SHARES][bits >> shift & 1023] += s->weight[i];
            s->count[i % SHARES][bits >> shift & 1023]++;
        }
        uint32_t d = 1023, last = 1023;
        for (; d < 1024; d--) { /* down to 0, then around */
            if (count_in(s, d) == 0)
                continue;
            last = d;
            if (above + mass_in(s, d) >= target)
                break;
            above += mass_in(s, d);
        }
        if (d >= 1024) { /* short of it: the lightest bucket holds the border */
            d = last;
            above -= mass_in(s, d);
        }
        at |= d << shift;
        mask |= 1023u << shift;
    }
    uint32_t n_equal = 1, n_all = count_in(s, at & 1023);
    double each = f32_from_bits(at);
    while (n_equal < n_all && above + n_equal * each < target)
        n_equal++;
    return (struct border){at, n_equal};
}

static uint32_t keep_top_p(struct sampler *s, uint32_t n, double target)
{
    struct border border = select_mass(s, n, target);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t bits = f32_bits(s->weight[i]);
        bool equal = bits == border.at;
        if (bits < border.at || (equal && border.n_equal == 0))
            continue;
        border.n_equal -= equal;
        s->id[kept] = s->id[i];
        s->weight[kept++] = s->weight[i];
    }
    return kept;
}

/* ---- the draw -------------------------------------------------------------------------------- */

/* Philox4x32-10 (J. K. Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011): a
 * number in [0, 1) for each seed and position. */
static double uniform(uint64_t seed, uint64_t position)
{
    uint32_t c[4] = {(uint32_t)position, (uint32_t)(position >> 32), 0, 0};
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    for (uint32_t round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xd2511f53u * c[0], b = (uint64_t)0xcd9e8d57u * c[2];
        uint32_t next[4] = {(uint32_t)(b >> 32) ^ c[1] ^ key[0], (uint32_t)b,
            (uint32_t)(a >> 32) ^ c[3] ^ key[1], (uint32_t)a};
        memcpy(c, next, sizeof c);
        key[0] += 0x9e3779b9u;
        key[1] += 0xbb67ae85u;
    }
    return (double)(((uint64_t)c[0] << 32 | c[1]) >> 11) * 0x1p-53;
}

/* Walks the weights in the order of the ids, a block at a time. */
static int32_t draw(const struct sampler *s, uint32_t n, double u)
{
    double total = 0, reached = 0;
    for (uint32_t i = 0; i < n; i += BLOCK)
        total += s->pass->sum(s->weight + i, n - i < BLOCK ? n - i : BLOCK);
    double target = u * total;
    uint32_t at = 0;
    while (n - at > BLOCK) {
        double sum = s->pass->sum(s->weight + at, BLOCK);
        if (reached + sum > target)
            break;
        reached += sum;
        at += BLOCK;
    }
    uint32_t last =
        n - at < BLOCK ? n - 1 : at + BLOCK - 1; /* rounding may leave the target to the last one */
    for (; at < last; at++) {
        reached += s->weight[at];
        if (reached > target)
            break;
    }
    return (int32_t)s->id[at];
}

static int32_t filter_and_draw(
    struct sampler *s, const struct sample_options *o, const float *x, float max, double u)
{
    uint32_t n = s->n_vocab;
    const uint32_t *ids = NULL;
    if (o->top_k > 0 && (uint32_t)o->top_k < s->n_vocab) {
        n = keep_top_k(s, x, (uint32_t)o->top_k);
        ids = s->id;
        for (uint32_t i = 0; i < n; i++)
            s->weight[i] = sample_exp((x[ids[i]] - max) / o->temperature);
    } else {
        s->pass->weights(s->weight, x, n, max, o->temperature);
    }
    double total = s->pass->sum(s->weight, n);
    n = drop_light(s, ids, n, total, o->top_p, o->min_p);
    if (o->top_p < 1)
        n = keep_top_p(s, n, (double)o->top_p * total);
    return draw(s, n, u);
}

int32_t sample_draw(struct sampler *s, const struct sample_options *o, const float *logits,
    const uint32_t *mask, const int32_t *history, size_t n_history, uint64_t position, int32_t *id,
    glm_error *err)
{
    int32_t rc = sample_check(o, err);
    if (rc)
        return rc;
    const float *x = logits;
    struct extent raw, extent = mask != NULL ? scan_masked(s, logits, mask, &raw) : (raw = scan(s, logits));
    if (raw.least < ORDER_MINUS_INFINITY || raw.most >= ORDER_PLUS_INFINITY)
        return refuse_number(s, logits, err);
    if (mask != NULL)
        x = s->logit;
    if (o->repeat_penalty != 1 && n_history > 0) {
        if (mask == NULL)
            memcpy(s->logit, logits, s->n_vocab * sizeof *logits);
        apply_penalty(s, o->repeat_penalty, history, n_history);
        x = s->logit;
        extent = scan(s, x);
    }
    if (extent.most == ORDER_MINUS_INFINITY)
        return err_set(
            err, GLM_ESTATE, position, "logits", "no token is left to draw: the mask allows none");
    int32_t best = first_of(s, x, extent.most);
    *id =
        o->temperature == 0 ? best : filter_and_draw(s, o, x, x[best], uniform(o->seed, position));
    return 0;
}
