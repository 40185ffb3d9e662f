/* speculation.c: what speculative decoding costs on a checkpoint with an MTP layer, and what that would bring.
 *
 * One token a pass costs T1. With drafts a pass has the next token and the draft, T2, or two drafts, T3; and the MTP layer
 * runs over the tokens that the pass before gave, one or two rows, D1 or D2. At an acceptance of a that makes, per token,
 *     speed-up = (1 + a) T1 / (T2 + (1 - a) D1 + a D2).
 * The limit beside it puts bytes for times: those that each pass must touch, where n rows touch of E experts, k a row,
 * E (1 - (1 - k/E)^n). Passes take turns, so that each repeat sees the same machine; all is in medians.
 */
#include "driver.h"
#include "../tools/model_bytes.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N_KIND 5u

struct kind {
    const char *name;
    uint32_t n_row;
    bool is_draft;
};
static const struct kind kinds[N_KIND] = { { "T1: one row", 1, false }, { "T2: two rows", 2, false },
    { "T3: three rows", 3, false }, { "D1: draft, one row", 1, true }, { "D2: draft, two rows", 2, true } };

struct run {
    struct driver d;
    struct kv_seq seq;
    float *hidden; /* [3, d_model] of the last trunk pass */
    uint32_t n_ctx;
    uint64_t seed;
    double *seconds[N_KIND]; /* [n_repeat] */
    double bytes[N_KIND];
};

static double run_rows(struct run *r, uint32_t pos, uint32_t n, uint32_t n_logit, bool is_draft)
{
    const struct hparams *hp = &r->d.net->hp;
    int32_t ids[CHUNK];
    uint32_t logit_rows[3] = { 0, 1, 2 };
    struct kv_seq *seq = &r->seq;
    struct segment seg = { 0, 0, n, pos };
    struct batch b = { .ids = ids, .segments = &seg, .n_row = n, .n_segment = 1, .seqs = &seq, .logit_rows = logit_rows,
        .n_logit = n_logit, .mtp_hidden = is_draft ? r->hidden : NULL };
    for (uint32_t i = 0; i < n; i++)
        ids[i] = random_id(&r->seed, hp->n_vocab);
    if (is_draft)
        logit_rows[0] = n - 1;
    double begin = now();
    run_pass(&r->d, &b);
    double seconds = now() - begin;
    for (uint32_t i = 0; i < n && i < 3 && !is_draft; i++)
        memcpy(r->hidden + i * hp->d_model, pass_hidden(r->d.pass, i), hp->d_model * sizeof(float));
    return seconds;
}

static void open_all(struct run *r, const char *path, uint32_t n_threads, uint32_t n_repeat)
{
    driver_open(&r->d, path, n_threads, UINT32_MAX);
    if (!r->d.net->hp.n_nextn) {
        printf("error %s: it has no MTP layer\n", path);
        exit(1);
    }
    seq_reserve(&r->d, &r->seq, r->n_ctx + 3);
    reserve_pass(&r->d, r->n_ctx + 3);
    r->hidden = calloc(3u * r->d.net->hp.d_model, sizeof(float));
    for (uint32_t k = 0; k < N_KIND; k++)
        r->seconds[k] = calloc(n_repeat, sizeof(double));
    if (!r->hidden || !r->seconds[N_KIND - 1])
        fatal("results", NULL);
}

static void count_bytes(struct run *r, const char *path)
{
    glm_error err = GLM_ERROR_INIT;
    const struct hparams *hp = &r->d.net->hp;
    struct model_bytes n;
    if (model_bytes_read(path, &n, &err))
        fatal(path, &err);
    for (uint32_t k = 0; k < N_KIND; k++) {
        double each = hp->n_expert ? (double)hp->n_expert_used / hp->n_expert : 1;
        double experts = (1 - pow(1 - each, kinds[k].n_row)) / each; /* in shares of one token's */
        r->bytes[k] = kinds[k].is_draft ? (double)n.draft + experts * (double)n.draft_experts
                                        : (double)n.dense + experts * (double)n.experts;
        double kv = 2.0 * (double)n.kv_position * r->n_ctx;
        r->bytes[k] += kinds[k].is_draft ? kv / hp->n_layer : kv;
    }
}

static int order(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double speed_up(const double *t, double a)
{
    return (1 + a) * t[0] / (t[1] + (1 - a) * t[3] + a * t[4]);
}

static void report(struct run *r, uint32_t n_repeat, double a)
{
    double t[N_KIND];
    printf("| | ms | of T1 | MB | of T1 |\n|---|---|---|---|---|\n");
    for (uint32_t k = 0; k < N_KIND; k++) {
        qsort(r->seconds[k], n_repeat, sizeof(double), order);
        t[k] = r->seconds[k][n_repeat / 2];
        printf("| %s | %.3f | %.2f | %.1f | %.2f |\n", kinds[k].name, t[k] * 1e3, t[k] / t[0], r->bytes[k] * 1e-6,
            r->bytes[k] / r->bytes[0]);
    }
    printf("\nspeed-up at acceptance %.2f: %.3f; limit of the bytes: %.3f; share of it: %.3f\n", a, speed_up(t, a),
        speed_up(r->bytes, a), speed_up(t, a) / speed_up(r->bytes, a));
}

int main(int argc, char **argv)
{
    uint32_t n_threads = argc > 2 ? (uint32_t)atoi(argv[2]) : 2, n_repeat = argc > 4 ? (uint32_t)atoi(argv[4]) : 21;
    double a = argc > 5 ? atof(argv[5]) : 0.8;
    struct run r = { .n_ctx = argc > 3 ? (uint32_t)atoi(argv[3]) : 128, .seed = 1 };
    if (argc < 2 || n_threads < 1 || n_threads > 64 || n_repeat < 1 || r.n_ctx < 1 || r.n_ctx > (1u << 20) || a < 0 || a > 1) {
        fprintf(stderr, "usage: bench-speculation MODEL [THREADS [CONTEXT [REPEATS [ACCEPTANCE]]]]   (2 128 21 0.8)\n");
        return 2;
    }
    open_all(&r, argv[1], n_threads, n_repeat);
    count_bytes(&r, argv[1]);
    for (uint32_t pos = 0, n; pos < r.n_ctx; pos += n) {
        n = r.n_ctx - pos < CHUNK ? r.n_ctx - pos : CHUNK;
        run_rows(&r, pos, n, 0, false);
    }
    for (uint32_t i = 0; i < n_repeat + 1; i++) /* the first brings pages in */
        for (uint32_t k = 0; k < N_KIND; k++)
            r.seconds[k][i > 0 ? i - 1 : 0] = run_rows(&r, r.n_ctx, kinds[k].n_row,
                kinds[k].is_draft ? 1 : kinds[k].n_row, kinds[k].is_draft);
    report(&r, n_repeat, a);
    seq_free(&r.d, &r.seq);
    free(r.hidden);
    for (uint32_t k = 0; k < N_KIND; k++)
        free(r.seconds[k]);
    driver_close(&r.d);
    return 0;
}
