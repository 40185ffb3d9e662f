/* test_sample.c: the sampler against a plain reference that sorts and uses libm; its distribution;
 * its answers for broken logits and masks; the same draws on every machine.
 */
#include "lib/text/sample_pass.h"
#include "lib/text/text.h"
#include "text_data.h"

#include <float.h>
#include <math.h>

static struct sample_options plain(float temperature)
{
    return (struct sample_options){
        .temperature = temperature, .top_p = 1, .repeat_penalty = 1, .seed = 7};
}

static struct sampler *open_sampler(struct mem *m, uint32_t n_vocab)
{
    struct sampler *s;
    glm_error err = GLM_ERROR_INIT;
    mem_init(m, NULL);
    ck_assert_int_eq(sampler_open(m, n_vocab, &s, &err), 0);
    return s;
}

static int32_t draw(struct sampler *s, const struct sample_options *o, const float *logits,
    const uint32_t *mask, uint64_t position)
{
    int32_t id = -1;
    glm_error err = GLM_ERROR_INIT;
    int32_t rc = sample_draw(s, o, logits, mask, NULL, 0, position, &id, &err);
    ck_assert_msg(rc == 0, "%s", err.message);
    return id;
}

/* ---- the reference --------------------------------------------------------------------------- */

static void philox(uint64_t seed, uint64_t position, uint32_t out[4])
{
    uint32_t x0 = (uint32_t)position, x1 = (uint32_t)(position >> 32), x2 = 0, x3 = 0;
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int i = 0; i < 10; i++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
        uint64_t p0 = x0 * (uint64_t)0xD2511F53u, p1 = x2 * (uint64_t)0xCD9E8D57u;
        uint32_t y0 = (uint32_t)(p1 >> 32) ^ x1 ^ k0, y2 = (uint32_t)(p0 >> 32) ^ x3 ^ k1;
        x1 = (uint32_t)p1;
        x3 = (uint32_t)p0;
        x0 = y0;
        x2 = y2;
    }
    out[0] = x0;
    out[1] = x1;
    out[2] = x2;
    out[3] = x3;
}

struct candidate {
    double logit, weight;
    int32_t id;
    bool kept;
};

static int by_logit(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    return x->logit != y->logit ? (x->logit < y->logit ? 1 : -1) : x->id - y->id;
}

static int by_id(const void *a, const void *b)
{
    return ((const struct candidate *)a)->id - ((const struct candidate *)b)->id;
}

/* The token that the documented filters give; -1 where a border or the draw lies too close to call.
 */
static int32_t reference(const struct sample_options *o, const float *logits, uint32_t n,
    const uint32_t *mask, const int32_t *history, size_t n_history, uint64_t position)
{
    struct candidate *c = calloc(n, sizeof *c);
    uint32_t k = n;
    int32_t answer = -1;
    for (uint32_t i = 0; i < n; i++) {
        bool seen = false;
        for (size_t h = 0; h < n_history; h++)
            seen = seen || history[h] == (int32_t)i;
        float x = logits[i];
        if (seen)
            x = x > 0 ? x / o->repeat_penalty : x * o->repeat_penalty;
        c[i] = (struct candidate){
            mask && !(mask[i / 32] >> i % 32 & 1) ? -INFINITY : x, 0, (int32_t)i, true};
    }
    qsort(c, n, sizeof *c, by_logit);
    if (o->temperature == 0) {
        answer = c[0].id;
        goto done;
    }
    if (o->top_k > 0 && (uint32_t)o->top_k < n)
        k = (uint32_t)o->top_k;
    double total = 0, before = 0, u, sum = 0, reached = 0, top = c[0].logit;
    for (uint32_t i = 0; i < k; i++)
        total += c[i].weight = exp((c[i].logit - top) / o->temperature);
    for (uint32_t i = 0; i < n; i++) {
        double border = (double)o->top_p * total;
        if (i < k && o->top_p < 1 && fabs(before - border) < 1e-5 * total)
            goto done;
        if (i < k && o->min_p > 0 && fabs(c[i].weight - o->min_p) < 1e-5)
            c[i].kept =
                c[i].weight >= o->min_p; /* only the top token itself can lie there exactly */
        c[i].kept =
            i < k && c[i].weight >= o->min_p && (o->top_p == 1 || before < border || i == 0);
        before += c[i].weight;
        sum += c[i].kept ? c[i].weight : 0;
    }
    qsort(c, n, sizeof *c, by_id);
    uint32_t out[4];
    philox(o->seed, position, out);
    u = (double)((((uint64_t)out[0] << 32) | out[1]) >> 11) / 9007199254740992.0;
    for (uint32_t i = 0; i < n && answer < 0; i++) {
        if (!c[i].kept)
            continue;
        reached += c[i].weight;
        if (fabs(reached - u * sum) < 1e-4 * sum)
            goto done;
        if (reached > u * sum)
            answer = c[i].id;
    }
done:
    free(c);
    return answer;
}

/* ---- tests ----------------------------------------------------------------------------------- */

START_TEST(philox_vectors)
{
    uint32_t out[4]; /* kat_vectors of the Random123 library */
    philox(0, 0, out);
    ck_assert_uint_eq(out[0], 0x6627e8d5u);
    ck_assert_uint_eq(out[1], 0xe169c58du);
    ck_assert_uint_eq(out[2], 0xbc57ac4cu);
    ck_assert_uint_eq(out[3], 0x9b00dbd8u);

    /* Equal logits spread u over the ids: the sampler's u is the generator's. */
    enum { N = 1 << 17 };
    struct mem m;
    struct sampler *s = open_sampler(&m, N);
    float *logits = calloc(N, sizeof *logits);
    struct sample_options o = plain(1);
    const uint64_t seeds[] = {0, 1, UINT64_MAX, 0x0123456789abcdefu};
    for (size_t i = 0; i < ARRAY_LEN(seeds); i++) {
        for (uint64_t position = 0; position < 3; position++) {
            o.seed = seeds[i];
            philox(o.seed, position << 31, out);
            ck_assert_int_eq(draw(s, &o, logits, NULL, position << 31), out[0] >> 15);
        }
    }
    free(logits);
    sampler_close(s);
}
END_TEST

static float gaussian(uint64_t *state, float scale)
{
    double a = (double)((next_random(state) >> 11) + 1) * 0x1p-53,
           b = (double)(next_random(state) >> 11) * 0x1p-53;
    return scale * (float)(sqrt(-2 * log(a)) * cos(6.283185307179586 * b));
}

START_TEST(against_reference)
{
    uint64_t state = 1;
    uint32_t n_checked = 0;
    for (uint32_t round = 0; round < 3000; round++) {
        uint32_t n = 1 + (uint32_t)(next_random(&state) % (round % 10 ? 60 : 2000));
        struct mem m;
        struct sampler *s = open_sampler(&m, n);
        float logits[2000], scale = (float)(1 + next_random(&state) % 8);
        uint32_t mask[63];
        int32_t history[20];
        for (uint32_t i = 0; i < n; i++) {
            logits[i] = gaussian(&state, scale);
            if (next_random(&state) % 8 == 0)
                logits[i] = next_random(&state) % 3 ? roundf(logits[i]) : -INFINITY;
        }
        for (size_t i = 0; i < 63; i++)
            mask[i] = (uint32_t)next_random(&state) | (uint32_t)next_random(&state);
        for (size_t i = 0; i < 20; i++)
            history[i] = (int32_t)(next_random(&state) % (n + 2)) - 1;
        uint32_t sure = (uint32_t)(next_random(&state) % n);
        logits[sure] = 1;
        mask[sure / 32] |= 1u << sure % 32;
        static const float temperatures[] = {0, 0.1f, 0.6f, 1, 2},
                           shares[] = {0, 0.3f, 0.9f, 0.95f, 1}, minima[] = {0, 0, 0.02f, 0.3f, 1},
                           penalties[] = {1, 1, 1.3f, 0.8f};
        struct sample_options o = {.temperature = temperatures[next_random(&state) % 5],
            .top_p = shares[next_random(&state) % 5],
            .min_p = minima[next_random(&state) % 5],
            .repeat_penalty = penalties[next_random(&state) % 4],
            .top_k = (int32_t)(next_random(&state) % 4 * 7),
            .seed = next_random(&state)};
        const uint32_t *masked = next_random(&state) % 2 ? mask : NULL;
        for (uint64_t position = 0; position < 4; position++) {
            int32_t id = -1, want = reference(&o, logits, n, masked, history, 20, position);
            glm_error err = GLM_ERROR_INIT;
            ck_assert_int_eq(
                sample_draw(s, &o, logits, masked, history, 20, position, &id, &err), 0);
            ck_assert(id >= 0 && (uint32_t)id < n && (!masked || mask[id / 32] >> id % 32 & 1));
            ck_assert_msg(want < 0 || want == id,
                "round %u: want %d, got %d (T %g k %d p %g min %g n %u)", round, want, id,
                (double)o.temperature, o.top_k, (double)o.top_p, (double)o.min_p, n);
            n_checked += want >= 0;
        }
        sampler_close(s);
        ck_assert_uint_eq(atomic_load(&m.used), 0);
    }
    ck_assert_uint_gt(n_checked, 10000); /* the reference was sure nearly always */
}
END_TEST

/* Pearson's statistic for 16 tokens against the softmax; 44.26 is the 0.01 % point at 15 degrees of
 * freedom. */
START_TEST(distribution)
{
    enum { N = 16, DRAWS = 200000 };
    struct mem m;
    struct sampler *s = open_sampler(&m, N);
    float logits[N];
    double sum = 0, statistic = 0;
    uint32_t count[N] = {0};
    struct sample_options o = plain(0.8f);
    for (int i = 0; i < N; i++) {
        logits[i] = 0.3f * (float)(i * 7 % N) - 1;
        sum += exp(logits[i] / 0.8);
    }
    for (uint64_t position = 0; position < DRAWS; position++)
        count[draw(s, &o, logits, NULL, position)]++;
    for (int i = 0; i < N; i++) {
        double expected = DRAWS * exp(logits[i] / 0.8) / sum;
        statistic += (count[i] - expected) * (count[i] - expected) / expected;
    }
    ck_assert_msg(statistic < 44.26, "%g", statistic);
    ck_assert_msg(statistic > 2.6, "%g", statistic); /* and not too good to be drawn */
    sampler_close(s);
}
END_TEST

START_TEST(greedy_ties)
{
    enum { N = 700 };
    struct mem m;
    struct sampler *s = open_sampler(&m, N);
    float logits[N];
    struct sample_options o = plain(0);
    for (int i = 0; i < N; i++)
        logits[i] = -5;
    logits[699] = logits[300] = logits[555] = 2;
    ck_assert_int_eq(draw(s, &o, logits, NULL, 0), 300);
    logits[300] = -INFINITY;
    ck_assert_int_eq(draw(s, &o, logits, NULL, 0), 555);
    for (int i = 0; i < N; i++)
        logits[i] = i % 2 ? 0.0f : -0.0f;
    ck_assert_int_eq(draw(s, &o, logits, NULL, 0), 0);
    o = plain(1);
    o.top_k = 1;
    ck_assert_int_eq(draw(s, &o, logits, NULL, 0), 0);
    o.top_k = 0;
    o.top_p = 0;
    ck_assert_int_eq(draw(s, &o, logits, NULL, 0), 0);
    uint32_t mask[22] = {0};
    mask[9] = 1u << 11;
    ck_assert_int_eq(draw(s, &o, logits, mask, 0), 299);
    sampler_close(s);
}
END_TEST

START_TEST(refusals)
{
    enum { N = 1000 };
    struct mem m;
    struct sampler *s = open_sampler(&m, N);
    float logits[N] = {0};
    uint32_t mask[32] = {0};
    int32_t id = 77;
    glm_error err = GLM_ERROR_INIT;
    const float bad[] = {NAN, -NAN, INFINITY};
    struct sample_options options[] = {plain(0), plain(1)};
    for (size_t k = 0; k < 2; k++) {
        for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
            for (uint32_t at = 0; at < N; at += 111) {
                logits[at] = bad[i];
                ck_assert_int_eq(
                    sample_draw(s, &options[k], logits, NULL, NULL, 0, 0, &id, &err), GLM_ENUMERIC);
                ck_assert_uint_eq(err.offset, at);
                ck_assert_int_eq(
                    sample_draw(s, &options[k], logits, mask, NULL, 0, 0, &id, NULL), GLM_ENUMERIC);
                logits[at] = 0;
            }
        }
        ck_assert_int_eq(
            sample_draw(s, &options[k], logits, mask, NULL, 0, 0, &id, &err), GLM_ESTATE);
        mask[31] = 0xffffff00u; /* beyond the vocabulary */
        ck_assert_int_eq(
            sample_draw(s, &options[k], logits, mask, NULL, 0, 0, &id, &err), GLM_ESTATE);
        ck_assert_int_eq(id, 77);
        mask[31] = 0;
    }
    for (int i = 0; i < N; i++)
        logits[i] = -INFINITY;
    ck_assert_int_eq(sample_draw(s, &options[1], logits, NULL, NULL, 0, 0, &id, &err), GLM_ESTATE);

    const struct sample_options wrong[] = {
        {.temperature = -1, .top_p = 1, .repeat_penalty = 1},
        {.temperature = NAN, .top_p = 1, .repeat_penalty = 1},
        {.temperature = INFINITY, .top_p = 1, .repeat_penalty = 1},
        {.top_p = 1.1f, .repeat_penalty = 1},
        {.top_p = NAN, .repeat_penalty = 1},
        {.top_p = 1, .min_p = -0.1f, .repeat_penalty = 1},
        {.top_p = 1, .repeat_penalty = 0},
        {.top_p = 1, .repeat_penalty = INFINITY},
        {.top_p = 1, .repeat_penalty = 1, .top_k = -1},
    };
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
        ck_assert_int_eq(sample_check(&wrong[i], &err), GLM_EINVAL);
    sampler_close(s);
}
END_TEST

/* The same ids on every machine and compiler: a change here is a change of what users get for their
 * seeds. */
START_TEST(pinned)
{
    enum { N = 151552 };
    struct mem m;
    struct sampler *s = open_sampler(&m, N);
    float *logits = malloc(N * sizeof *logits);
    uint64_t state = 3, hash = 0xcbf29ce484222325u;
    for (int i = 0; i < N; i++) /* a sum of four uniforms: no libm in the input */
        logits[i] = (float)((next_random(&state) & 0xffff) + (next_random(&state) & 0xffff) +
                            (next_random(&state) & 0xffff) + (next_random(&state) & 0xffff)) /
                        8192.0f -
                    16.0f;
    struct sample_options o[] = {plain(1), plain(0.6f), plain(1), plain(2), plain(1)};
    o[1].top_p = 0.95f;
    o[2].top_k = 40;
    o[3].min_p = 0.05f;
    o[4].top_k = 5000;
    o[4].top_p = 0.9f;
    for (size_t k = 0; k < ARRAY_LEN(o); k++)
        for (uint64_t position = 0; position < 12; position++)
            hash = (hash ^ (uint64_t)draw(s, &o[k], logits, NULL, position)) * 0x100000001b3u;
    ck_assert_msg(hash == 0x670c41e104a6487u, "0x%llx", (unsigned long long)hash);
    free(logits);
    sampler_close(s);
}
END_TEST

/* The passes of the CPU against those in plain C, bit for bit; what lies behind the n elements stays. */
START_TEST(vectors_change_no_bit)
{
    static float x[1000], a[1000], b[1000];
    static uint32_t bits[32], ids[1000], id_a[1000], id_b[1000];
    const struct sample_passes *fast = sample_passes(cpu_detect()), *slow = sample_passes(0);
    uint64_t state = 11;
    for (uint32_t round = 0; round < 3000; round++) {
        uint32_t n = (uint32_t)(next_random(&state) % 900);
        for (uint32_t i = 0; i < 1000; i++) {
            x[i] = gaussian(&state, 8);
            if (next_random(&state) % 16 == 0)
                x[i] = f32_from_bits((uint32_t)next_random(&state)); /* NaN, infinities, subnormals */
            ids[i] = 3 * i;
        }
        for (uint32_t i = 0; i < 32; i++)
            bits[i] = (uint32_t)next_random(&state);
        struct extent e = fast->extent(x, n), f = slow->extent(x, n);
        ck_assert(e.least == f.least && e.most == f.most);
        memset(a, 0x5a, sizeof a);
        memset(b, 0x5a, sizeof b);
        fast->mask(a, x, bits, n);
        slow->mask(b, x, bits, n);
        ck_assert_mem_eq(a, b, sizeof a);
        for (uint32_t i = 0; i < n; i++)
            x[i] = round % 4 ? -fabsf(gaussian(&state, 30)) : i % 7 ? -INFINITY : x[i];
        fast->weights(a, x, n, 0.25f, 0.6f);
        slow->weights(b, x, n, 0.25f, 0.6f);
        ck_assert_mem_eq(a, b, sizeof a);
        double sum_a = fast->sum(a, n), sum_b = slow->sum(b, n);
        ck_assert_mem_eq(&sum_a, &sum_b, sizeof sum_a);
        float light = round % 3 ? a[n / 2] : 0, least = round % 5 ? 0 : 1e-3f;
        uint32_t kept = fast->keep(a, id_a, round % 2 ? ids : NULL, n, light, least);
        ck_assert_uint_eq(kept, slow->keep(b, id_b, round % 2 ? ids : NULL, n, light, least));
        ck_assert_mem_eq(a, b, kept * sizeof *a);
        ck_assert_mem_eq(id_a, id_b, kept * sizeof *id_a);
    }
}
END_TEST

START_TEST(no_memory)
{
    for (uint64_t fail_at = 1;; fail_at++) {
        struct mem m;
        struct faulty f;
        struct sampler *s = (void *)&f;
        glm_error err = GLM_ERROR_INIT;
        faulty_init(&f, &m, fail_at, false);
        int32_t rc = sampler_open(&m, 1000, &s, &err);
        if (rc == 0) {
            uint64_t n = f.n_alloc;
            float logits[1000] = {1};
            struct sample_options o = plain(1);
            o.top_p = 0.5f;
            draw(s, &o, logits, NULL, 3);
            ck_assert_uint_eq(f.n_alloc, n);
            sampler_close(s);
            ck_assert_uint_eq(f.n_alive, 0);
            ck_assert_uint_gt(fail_at, 5);
            return;
        }
        ck_assert_int_eq(rc, GLM_ENOMEM);
        ck_assert(s == NULL);
        ck_assert_uint_eq(f.n_alive, 0);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("sample");
    TCase *tc = tcase_create("sample");
    suite_add_tcase(suite, tc);
    tcase_add_test(tc, philox_vectors);
    tcase_add_test(tc, against_reference);
    tcase_add_test(tc, distribution);
    tcase_add_test(tc, greedy_ties);
    tcase_add_test(tc, refusals);
    tcase_add_test(tc, pinned);
    tcase_add_test(tc, vectors_change_no_bit);
    tcase_add_test(tc, no_memory);
    SRunner *r = srunner_create(suite);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
