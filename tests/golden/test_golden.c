/* test_golden.c: every checkpoint of tests/data/golden against what transformers computed in float32 on the weights
 * as the file decodes. Bounds and their reasons: tests/data/golden/README.md. One folder a run, or all. */
#include "../../lib/model/model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N_GREEDY 64

struct expect {
    char *bytes;
    size_t size;
    struct json_doc doc;
};

struct array { /* a tensor of expect.safetensors */
    const void *data;
    uint64_t dim[3];
};

static struct mem mem;
static struct fs fs;
static unsigned n_failed, n_checked;

static void check(bool ok, const char *folder, const char *what, double value, double bound)
{
    n_checked++;
    n_failed += !ok;
    if (!ok || getenv("GOLDEN_VERBOSE"))
        printf("%s %s: %s %.3g (bound %.3g)\n", ok ? "ok  " : "FAIL", folder, what, value, bound);
}

static bool expect_open(const char *path, struct expect *e)
{
    glm_error err = GLM_ERROR_INIT;
    uint64_t n;
    memset(e, 0, sizeof *e);
    if (fs_load(&mem, &fs, path, 64 << 20, &e->bytes, &e->size, &err))
        return false;
    memcpy(&n, e->bytes, 8);
    if (json_parse(&mem, e->bytes + 8, n, 0, path, &e->doc, &err)) {
        printf("%s: %s\n", path, err.message);
        exit(1);
    }
    return true;
}

static void expect_close(struct expect *e)
{
    json_free(&e->doc);
    mem_free(&mem, e->bytes);
}

static bool expect_array(const struct expect *e, const char *name, struct array *a)
{
    const struct json *t = json_get(e->doc.root, name), *v;
    uint64_t header, begin = 0;
    unsigned i = 0;
    if (!t)
        return false;
    memcpy(&header, e->bytes, 8);
    memset(a, 0, sizeof *a);
    for (v = json_first(json_get(t, "shape")); v; v = json_next(json_get(t, "shape"), v))
        json_u64(v, &a->dim[i++]);
    json_u64(json_first(json_get(t, "data_offsets")), &begin);
    a->data = e->bytes + 8 + header + begin;
    return true;
}

static double max_error(const float *a, const float *b, uint64_t n)
{
    double most = 0;
    for (uint64_t i = 0; i < n; i++)
        most = fmax(most, isfinite(a[i]) ? fabs((double)a[i] - b[i]) : INFINITY);
    return most;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* |error|_2 / |logits|_2 of each position: the median, and the value that nine in ten stay below. */
static void relative_errors(const float *a, const float *b, uint64_t n_row, uint64_t n, double *median, double *p90)
{
    double *each = malloc(n_row * sizeof *each);
    for (uint64_t r = 0; r < n_row; r++) {
        double e = 0, s = 0;
        for (uint64_t i = 0; i < n; i++) {
            double d = (double)a[r * n + i] - b[r * n + i];
            e += d * d;
            s += (double)b[r * n + i] * b[r * n + i];
        }
        each[r] = sqrt(e / s);
    }
    qsort(each, n_row, sizeof *each, compare_doubles);
    *median = each[n_row / 2];
    *p90 = each[n_row * 9 / 10];
    free(each);
}

static void kv_make(const struct net *n, uint32_t type, uint32_t n_pos, struct kv_seq *seq)
{
    struct kv_shape shape = net_kv_shape(n);
    seq->type = type;
    seq->n_page = (n_pos + KV_PAGE_ROWS - 1) / KV_PAGE_ROWS;
    seq->page = malloc(seq->n_page * sizeof *seq->page);
    for (uint32_t i = 0; i < seq->n_page; i++)
        seq->page[i] = mem_alloc(&mem, kv_page_bytes(&shape, type));
}

static void kv_drop(struct kv_seq *seq)
{
    for (uint32_t i = 0; i < seq->n_page; i++)
        mem_free(&mem, seq->page[i]);
    free(seq->page);
}

/* Runs ids at pos in one pass; logits of all rows, or of the last `tail`. */
static void run(struct pass *p, struct kv_seq *seq, const int32_t *ids, uint32_t n, uint32_t pos, uint32_t tail,
    const float *mtp, float *residual)
{
    struct segment seg = { 0, 0, n, pos };
    uint32_t *rows = malloc(tail * sizeof *rows);
    struct batch b = { .ids = ids, .segments = &seg, .n_row = n, .n_segment = 1, .seqs = &seq, .n_logit = tail,
        .logit_rows = rows, .mtp_hidden = mtp, .residual = residual, .residual_rows = n };
    glm_error err = GLM_ERROR_INIT;
    for (uint32_t i = 0; i < tail; i++)
        rows[i] = n - tail + i;
    if (pass_begin(p, &b, &err)) {
        printf("pass_begin: %s\n", err.message);
        exit(1);
    }
    for (bool done = false; !done;)
        if (pass_run(p, 0, NULL, &done, &err)) {
            printf("pass_run: %s\n", err.message);
            exit(1);
        }
    free(rows);
}

static int32_t argmax(const float *v, uint64_t n)
{
    uint64_t best = 0;
    for (uint64_t i = 1; i < n; i++)
        best = v[i] > v[best] ? i : best;
    return (int32_t)best;
}

static void greedy(struct pass *p, struct kv_seq *seq, const char *folder, const struct array *want, uint32_t pos,
    uint32_t n_vocab)
{
    const int32_t *ids = want->data;
    int32_t next = argmax(pass_logits(p, pos - 1), n_vocab);
    unsigned same = 0;
    for (uint32_t i = 0; i < N_GREEDY; i++) {
        same += next == ids[i];
        run(p, seq, &ids[i], 1, pos + i, 1, NULL, NULL);
        next = argmax(pass_logits(p, 0), n_vocab);
    }
    check(same == N_GREEDY, folder, "greedy tokens equal", same, N_GREEDY);
}

#define BF16_MEDIAN 4e-3 /* relative error of logits that bfloat16 activations may have */

struct bounds {
    double logits, hidden;        /* absolute; relative to a row's largest value */
    double median, p90;           /* relative error of a position's logits; 0: not checked */
    bool greedy;
};

static void check_hidden(const struct net *n, const char *folder, const float *got, const struct array *want, double bound)
{
    const float *w = want->data;
    double most = 0;
    for (uint64_t r = 0; r < want->dim[0] * want->dim[1]; r++) {
        double top = 0;
        for (uint32_t i = 0; i < n->hp.d_model; i++)
            top = fmax(top, fabs((double)w[r * n->hp.d_model + i]));
        most = fmax(most, max_error(got + r * n->hp.d_model, w + r * n->hp.d_model, n->hp.d_model) / top);
    }
    check(most <= bound, folder, "hidden states", most, bound);
}

/* As drafts are made: logits of the last row alone, keys and values of those before it from passes without any. */
static void check_draft(struct net *n, struct pass *p, struct kv_seq *seq, const char *folder, const int32_t *ids, uint32_t t,
    const float *states)
{
    uint32_t half = t / 2;
    size_t bytes = n->hp.n_vocab * sizeof(float);
    float *last = malloc(bytes);
    memcpy(last, pass_logits(p, t - 1), bytes);
    run(p, seq, ids + 1, t, 0, 1, states, NULL);
    check(!memcmp(last, pass_logits(p, 0), bytes), folder, "the last draft by itself", 0, 0);
    run(p, seq, ids + 1, half, 0, 0, states, NULL);
    run(p, seq, ids + 1 + half, t - half, half, 2, states + (size_t)half * n->hp.d_model, NULL);
    check(!memcmp(last, pass_logits(p, 1), bytes), folder, "the last draft behind keys and values", 0, 0);
    free(last);
}

static void check_mtp(struct net *n, struct pass *p, struct kv_seq *seq, const char *folder, const struct expect *e,
    const int32_t *ids, uint32_t t, double bound)
{
    struct array want;
    float *states;
    if (!expect_array(e, "mtp_logits", &want))
        return;
    check(n->hp.n_nextn == 1, folder, "MTP layer found", n->hp.n_nextn, 1);
    states = malloc((size_t)t * n->hp.d_model * sizeof *states);
    run(p, seq, ids, t, 0, t, NULL, NULL);
    memcpy(states, pass_hidden(p, 0), (size_t)t * n->hp.d_model * sizeof *states);
    run(p, seq, ids + 1, t - 1, 0, t - 1, states, NULL);
    double most = max_error(pass_logits(p, 0), want.data, want.dim[0] * want.dim[1]);
    if (bound > 0)
        check(most <= bound, folder, "MTP logits", most, bound);
    check_draft(n, p, seq, folder, ids, t - 1, states);
    free(states);
}

static void check_long(struct net *n, const char *dir, const char *folder, uint32_t kv_type)
{
    struct expect e;
    struct array ids, want;
    struct kv_seq seq;
    struct pass *p;
    glm_error err = GLM_ERROR_INIT;
    char path[512];

    snprintf(path, sizeof path, "%s/%s/long.safetensors", dir, folder);
    if (!expect_open(path, &e))
        return;
    expect_array(&e, "ids", &ids);
    expect_array(&e, "logits", &want);
    kv_make(n, kv_type, (uint32_t)ids.dim[0], &seq);
    if (pass_open(n, 512, 4, (uint32_t)ids.dim[0], &p, &err))
        exit(1);
    for (uint32_t pos = 0, m; pos < ids.dim[0]; pos += m) {
        m = ids.dim[0] - pos < 512 ? (uint32_t)ids.dim[0] - pos : 512;
        run(p, &seq, (const int32_t *)ids.data + pos, m, pos, pos + m == ids.dim[0] ? 4 : 0, NULL, NULL);
    }
    check(max_error(pass_logits(p, 0), want.data, 4 * (uint64_t)n->hp.n_vocab) <= 2e-3, folder, "long prompt",
        max_error(pass_logits(p, 0), want.data, 4 * (uint64_t)n->hp.n_vocab), 2e-3);
    pass_close(p);
    kv_drop(&seq);
    expect_close(&e);
}

/* Keys and values as bfloat16, and so queries and weights: no bits of their own, but within what such numbers cost. */
static void check_bf16(struct net *n, const char *label, const struct array *ids, const struct array *logits)
{
    uint32_t t = (uint32_t)ids->dim[0];
    struct kv_seq seq;
    struct pass *p;
    glm_error err = GLM_ERROR_INIT;
    double median, p90;

    kv_make(n, GLM_KV_BF16, t, &seq);
    if (pass_open(n, t, t, t, &p, &err))
        exit(1);
    run(p, &seq, ids->data, t, 0, t, NULL, NULL);
    relative_errors(pass_logits(p, 0), logits->data, t, n->hp.n_vocab, &median, &p90);
    check(median <= BF16_MEDIAN, label, "median relative error, bfloat16 keys and values", median, BF16_MEDIAN);
    pass_close(p);
    kv_drop(&seq);
}

/* Prompts with two experts so close together at an early position that any rounding of keys turns them over. */
static bool near_tie(const char *folder)
{
    return !strcmp(folder, "air-int4-packed-asym") || !strcmp(folder, "air-int4-awq-asym");
}

static void check_folder(const char *dir, const char *folder, const char *model, bool float_mode, const struct bounds *b)
{
    char path[512], label[128];
    struct ckpt_options co = { .weights = GLM_WEIGHTS_MAP, .fs = &fs };
    struct backend_options bo = { .n_threads = 2, .float_activations = float_mode, .cpu_mask = UINT32_MAX };
    struct ckpt *c;
    struct net *n;
    struct pass *p;
    struct expect e;
    struct array ids, logits, hidden, greedy_ids;
    struct kv_seq seq;
    glm_error err = GLM_ERROR_INIT;
    double median, p90;

    snprintf(label, sizeof label, "%s%s", folder, float_mode ? " (float)" : "");
    snprintf(path, sizeof path, "%s/%s/%s", dir, folder, model);
    if (ckpt_open(&mem, path, &co, &c, &err) || net_open(&mem, c, &bo, &n, &err)) {
        printf("FAIL %s: %s: %s\n", label, err.where, err.message);
        n_failed++;
        return;
    }
    snprintf(path, sizeof path, "%s/%s/expect.safetensors", dir, folder);
    if (!expect_open(path, &e))
        exit(1);
    expect_array(&e, "ids", &ids);
    expect_array(&e, "logits", &logits);
    expect_array(&e, "hidden", &hidden);
    expect_array(&e, "greedy", &greedy_ids);
    uint32_t t = (uint32_t)ids.dim[0], type = GLM_KV_F32;
    float *residual = malloc(hidden.dim[0] * t * n->hp.d_model * sizeof *residual);

    kv_make(n, type, t + N_GREEDY, &seq);
    if (pass_open(n, t, t, t + N_GREEDY, &p, &err))
        exit(1);
    run(p, &seq, ids.data, t, 0, t, NULL, residual);
    double most = max_error(pass_logits(p, 0), logits.data, (uint64_t)t * n->hp.n_vocab);
    relative_errors(pass_logits(p, 0), logits.data, t, n->hp.n_vocab, &median, &p90);
    if (b->logits > 0)
        check(most <= b->logits, label, "logits", most, b->logits);
    if (b->median > 0) {
        check(median <= b->median, label, "median relative error", median, b->median);
        check(p90 <= 2 * b->median, label, "90th percentile", p90, 2 * b->median);
    }
    if (b->hidden > 0)
        check_hidden(n, label, residual, &hidden, b->hidden);
    if (b->greedy)
        greedy(p, &seq, label, &greedy_ids, t, n->hp.n_vocab);
    check_mtp(n, p, &seq, label, &e, ids.data, t, b->logits);
    if (float_mode)
        check_long(n, dir, folder, type);
    if (float_mode && !near_tie(folder))
        check_bf16(n, label, &ids, &logits);
    free(residual);
    pass_close(p);
    kv_drop(&seq);
    expect_close(&e);
    net_close(n);
    ckpt_close(c);
}

/* llama.cpp's median relative error on the same file: integer dot products may not be worse. Of safetensors with bfloat16 or
 * FP8 weights the bound for activations rounded to bfloat16. 0: float32 activations only. */
static const struct {
    const char *folder, *model;
    double fast_median;
} folders[] = {
    { "air-bf16", "", 4e-3 }, { "air-fused", "", 4e-3 }, { "air-fp8", "", 4e-3 }, { "air-int4-packed-sym", "", 4e-3 },
    { "air-int4-packed-asym", "", 4e-3 }, { "air-int4-awq-asym", "", 4e-3 }, { "air-int4-gptq-asym", "", 4e-3 },
    { "glm45-sharded", "", 4e-3 }, { "glm45-fp8-block", "", 4e-3 }, { "group-f32", "", 0 }, { "group-mixed", "", 4e-3 },
    { "air256-gguf-split", "split-00001-of-00003.gguf", 6.0e-4 }, { "air256-gguf-BF16", "BF16.gguf", 3.4e-3 },
    { "air256-gguf-Q8_0", "Q8_0.gguf", 1.24e-2 }, { "air256-gguf-Q4_0", "Q4_0.gguf", 1.30e-2 },
    { "air256-gguf-Q4_1", "Q4_1.gguf", 1.32e-2 }, { "air256-gguf-Q5_0", "Q5_0.gguf", 1.25e-2 },
    { "air256-gguf-Q5_1", "Q5_1.gguf", 1.25e-2 }, { "air256-gguf-Q2_K", "Q2_K.gguf", 1.45e-2 },
    { "air256-gguf-Q3_K_M", "Q3_K_M.gguf", 1.39e-2 }, { "air256-gguf-Q4_K_M", "Q4_K_M.gguf", 1.50e-2 },
    { "air256-gguf-Q5_K_M", "Q5_K_M.gguf", 1.49e-2 }, { "air256-gguf-Q6_K", "Q6_K.gguf", 1.42e-2 },
    { "air256-gguf-IQ4_NL", "IQ4_NL.gguf", 1.35e-2 }, { "air256-gguf-IQ4_XS", "IQ4_XS.gguf", 1.45e-2 },
    { "air256-gguf-MXFP4_MOE", "MXFP4_MOE.gguf", 1.23e-2 }, { "glm45mtp-gguf-Q8_0", "Q8_0.gguf", 1.79e-2 },
};

int main(int argc, char **argv)
{
    const struct bounds exact = { 2e-4, 1e-4, 0, 0, true };
    const char *data = getenv("GLM_TEST_DATA");
    char dir[512];

    snprintf(dir, sizeof dir, "%s/golden", data ? data : "tests/data");
    mem_init(&mem, NULL);
    fs_init(&fs, NULL);
    for (size_t i = 0; i < ARRAY_LEN(folders); i++) {
        struct bounds fast = exact;
        if (argc > 1 && strcmp(argv[1], folders[i].folder))
            continue;
        if (folders[i].fast_median > 0)
            fast = (struct bounds){ 0, 0, folders[i].fast_median, 0, false };
        check_folder(dir, folders[i].folder, folders[i].model, true, &exact);
        check_folder(dir, folders[i].folder, folders[i].model, false, &fast);
    }
    check(atomic_load(&mem.used) == 0, "all", "bytes not freed", (double)atomic_load(&mem.used), 0);
    printf("%u passed, %u failed\n", n_checked - n_failed, n_failed);
    return n_failed != 0;
}
