/* sample.c: from logits to one token. Filters, then one draw from a counter generator. Nothing is
 * ever sorted: borders are found by radix selection on the bits of ordered numbers, in a few linear
 * passes. Every operation is fixed (no libm, sums in index order), so that all machines draw the
 * same token. Scratch belongs to one session; a draw allocates nothing.
 *
 * n_vocab: tokens; a block is BLOCK consecutive tokens; a candidate is a token that may still be
 * drawn.
 */
#include "text.h"
#include "../base/weight.h"

#include <float.h>
#include <math.h>
#include <string.h>

#define BLOCK 256u
#define LANES 16u
#define DIGIT_BITS 11u
#define N_DIGIT (1u << DIGIT_BITS)
#define SHARES                                                                                     \
    4u /* histograms filled in turn: neighbours that fall into one bucket need not wait for each   \
          other */

struct sampler {
    struct mem *mem;
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

/* ---- logits as ordered integers -------------------------------------------------------------- */

#define ORDER_MINUS_INFINITY 0x007fffffu
#define ORDER_PLUS_INFINITY 0xff800000u

/* Unsigned integers in the order of the floats. Adding 0 makes the two zeros one. */
static inline uint32_t order_of(float f)
{
    uint32_t bits = f32_bits(f + 0.0f);
    return bits ^ ((uint32_t) - (int32_t)(bits >> 31) | 0x80000000u);
}

struct extent {
    uint32_t least, most;
};

/* Lanes of signed integers, which SSE2 can compare; the bias is taken off at the end. */
static struct extent block_extent(const float *x, uint32_t n)
{
    int32_t least[LANES], most[LANES];
    for (uint32_t j = 0; j < LANES; j++) {
        least[j] = INT32_MAX;
        most[j] = INT32_MIN;
    }
    uint32_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (uint32_t j = 0; j < LANES; j++) {
            int32_t key = (int32_t)(order_of(x[i + j]) ^ 0x80000000u);
            least[j] = key < least[j] ? key : least[j];
            most[j] = key > most[j] ? key : most[j];
        }
    }
    for (; i < n; i++) {
        int32_t key = (int32_t)(order_of(x[i]) ^ 0x80000000u);
        least[0] = key < least[0] ? key : least[0];
        most[0] = key > most[0] ? key : most[0];
    }
    for (uint32_t j = 1; j < LANES; j++) {
        least[0] = least[j] < least[0] ? least[j] : least[0];
        most[0] = most[j] > most[0] ? most[j] : most[0];
    }
    return (struct extent){(uint32_t)least[0] ^ 0x80000000u, (uint32_t)most[0] ^ 0x80000000u};
}

static uint32_t block_size(const struct sampler *s, uint32_t i_block)
{
    uint32_t left = s->n_vocab - i_block * BLOCK;
    return left < BLOCK ? left : BLOCK;
}

/* Fills block_top. A NaN's order lies outside those of the two infinities. */
static struct extent scan(struct sampler *s, const float *x /* [n_vocab] */)
{
    struct extent all = {UINT32_MAX, 0};
    for (uint32_t b = 0; b < s->n_block; b++) {
        struct extent e = block_extent(x + (size_t)b * BLOCK, block_size(s, b));
        s->block_top[b] = e.most;
        all.least = e.least < all.least ? e.least : all.least;
        all.most = e.most > all.most ? e.most : all.most;
    }
    return all;
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

/* Without a branch and with constant bits, so that it becomes vectors. */
static void apply_mask_word(float *to, const float *x, uint32_t word, uint32_t n)
{
    static const uint32_t bit[32] = {
        1u << 0,
        1u << 1,
        1u << 2,
        1u << 3,
        1u << 4,
        1u << 5,
        1u << 6,
        1u << 7,
        1u << 8,
        1u << 9,
        1u << 10,
        1u << 11,
        1u << 12,
        1u << 13,
        1u << 14,
        1u << 15,
        1u << 16,
        1u << 17,
        1u << 18,
        1u << 19,
        1u << 20,
        1u << 21,
        1u << 22,
        1u << 23,
        1u << 24,
        1u << 25,
        1u << 26,
        1u << 27,
        1u << 28,
        1u << 29,
        1u << 30,
        1u << 31,
    };
    for (uint32_t j = 0; j < n; j++) {
        uint32_t keep = (uint32_t) - (int32_t)((word & bit[j]) == bit[j]);
        to[j] = f32_from_bits(
            (f32_bits(x[j]) & keep) | (0xff800000u & ~keep)); /* -infinity where not kept */
    }
}

static void apply_mask(const struct sampler *s, const float *logits, const uint32_t *mask)
{
    uint32_t n_word = s->n_vocab / 32, rest = s->n_vocab % 32;
    for (uint32_t i = 0; i < n_word; i++)
        apply_mask_word(s->logit + i * 32u, logits + i * 32u, mask[i], 32);
    if (rest > 0)
        apply_mask_word(s->logit + n_word * 32u, logits + n_word * 32u, mask[n_word], rest);
}

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

/* e^t for t <= 0 in single precision, 0 below e^-87. Range reduction by ln 2 in two parts and the
 * polynomial of expf in the Cephes library (S. L. Moshier, https://www.netlib.org/cephes/): within
 * 2 units in the last place. */
static inline float exp_of(float t)
{
    float in = t < -87.0f ? -87.0f : t;
    float shifted =
        in * 1.44269504088896341f + 0x1.8p23f; /* the nearest integer, in the low bits */
    float n = shifted - 0x1.8p23f;
    float r = in - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    float power = f32_from_bits((f32_bits(shifted) - 0x4b400000u + 127u) << 23);
    return t < -87.0f ? 0.0f : p * power;
}

static void put_weights(float *weight, const float *x, uint32_t n, float max, float temperature)
{
    for (uint32_t i = 0; i < n; i++)
        weight[i] = exp_of((x[i] - max) / temperature);
}

static double sum_of(const float *weight, uint32_t n)
{
    double lane[8] = {0};
    uint32_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (uint32_t j = 0; j < 8; j++)
            lane[j] += weight[i + j];
    for (; i < n; i++)
        lane[0] += weight[i];
    return ((lane[0] + lane[1]) + (lane[2] + lane[3])) +
           ((lane[4] + lane[5]) + (lane[6] + lane[7]));
}

/* ---- top_p and min_p ------------------------------------------------------------------------- */

/* Drops candidates below a weight that no filter lets pass: min_p's, and top_p's share of the rest
 * spread over all. What lies at or below that spread adds up to less than top_p drops. ids NULL:
 * candidate i is token i. */
static uint32_t drop_light(
    struct sampler *s, const uint32_t *ids, uint32_t n, double total, float top_p, float min_p)
{
    float light = top_p < 1 ? (float)((1.0 - (double)top_p) * total / n * 0.999) : 0.0f;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < n; i++) {
        float w = s->weight[i];
        s->id[kept] = ids != NULL ? ids[i] : i;
        s->weight[kept] = w;
        kept += w > light && w >= min_p;
    }
    return kept;
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
        total += sum_of(s->weight + i, n - i < BLOCK ? n - i : BLOCK);
    double target = u * total;
    uint32_t at = 0;
    while (n - at > BLOCK) {
        double sum = sum_of(s->weight + at, BLOCK);
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
            s->weight[i] = exp_of((x[ids[i]] - max) / o->temperature);
    } else {
        put_weights(s->weight, x, n, max, o->temperature);
    }
    double total = sum_of(s->weight, n);
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
    struct extent extent = scan(s, logits);
    if (extent.least < ORDER_MINUS_INFINITY || extent.most >= ORDER_PLUS_INFINITY)
        return refuse_number(s, logits, err);
    bool penalise = o->repeat_penalty != 1 && n_history > 0;
    if (mask != NULL || penalise) {
        if (mask != NULL)
            apply_mask(s, logits, mask);
        else
            memcpy(s->logit, logits, s->n_vocab * sizeof *logits);
        if (penalise)
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
