/* test_one_answer.c: the logits of a position are the same bit for bit for prefill chunks of 1, 3, 64 and 512, for 1, 2
 * and 5 threads, alone and batched with other sequences, on every instruction set that this CPU has, for float and int8
 * activations and every KV type, with all experts mapped and with a cache of as few as can be. The model is a checkpoint of tests/data/golden; prompts are longer than a KV span where
 * the model allows it. */
#include "../../lib/model/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N_CHECK 24 /* last positions whose logits are compared */

static struct mem mem;
static struct fs fs;
static unsigned n_failed, n_checked;

struct seq {
    struct kv_seq kv;
    int32_t *ids;
    uint32_t n, done;
};

static void fatal(const char *what, const glm_error *err)
{
    printf("%s: %s: %s\n", what, err->where, err->message);
    exit(1);
}

static void seq_open(struct seq *s, const struct net *n, uint32_t kv_type, uint32_t n_id, uint32_t seed)
{
    struct kv_shape shape = net_kv_shape(n);
    s->kv = (struct kv_seq){ .type = kv_type, .n_page = (n_id + KV_PAGE_ROWS - 1) / KV_PAGE_ROWS };
    s->kv.page = malloc(s->kv.n_page * sizeof *s->kv.page);
    for (uint32_t i = 0; i < s->kv.n_page; i++) {
        s->kv.page[i] = mem_alloc(&mem, kv_page_bytes(&shape, kv_type));
        memset(s->kv.page[i], 0xa5, kv_page_bytes(&shape, kv_type)); /* what is not written must not matter */
    }
    s->ids = malloc(n_id * sizeof *s->ids);
    for (uint32_t i = 0; i < n_id; i++) {
        seed = seed * 1664525u + 1013904223u;
        s->ids[i] = (int32_t)((seed >> 8) % n->hp.n_vocab);
    }
    s->n = n_id;
    s->done = 0;
}

static void seq_close(struct seq *s)
{
    for (uint32_t i = 0; i < s->kv.n_page; i++)
        mem_free(&mem, s->kv.page[i]);
    free(s->kv.page);
    free(s->ids);
}

/* One pass over the next rows of each sequence; keeps the logits of the last positions of the first. */
static void advance(struct net *n, struct pass *p, struct seq *s, uint32_t n_seq, const uint32_t *rows, float *out)
{
    struct segment seg[4];
    struct kv_seq *kv[4];
    uint32_t logit_rows[512], n_logit = 0, n_row = 0;
    int32_t ids[600];
    glm_error err = GLM_ERROR_INIT;

    for (uint32_t i = 0; i < n_seq; i++) {
        kv[i] = &s[i].kv;
        seg[i] = (struct segment){ i, n_row, rows[i], s[i].done };
        memcpy(ids + n_row, s[i].ids + s[i].done, rows[i] * sizeof *ids);
        n_row += rows[i];
    }
    for (uint32_t r = 0; r < rows[0]; r++)
        if (s[0].done + r + N_CHECK >= s[0].n)
            logit_rows[n_logit++] = r;
    struct batch b = { .ids = ids, .segments = seg, .n_row = n_row, .n_segment = n_seq, .seqs = kv,
        .logit_rows = logit_rows, .n_logit = n_logit };
    if (pass_begin(p, &b, &err))
        fatal("pass_begin", &err);
    for (bool done = false; !done;)
        if (pass_run(p, 0, NULL, &done, &err))
            fatal("pass_run", &err);
    for (uint32_t i = 0; i < n_logit; i++) {
        uint32_t at = s[0].done + logit_rows[i] + N_CHECK - s[0].n;
        memcpy(out + (size_t)at * n->hp.n_vocab, pass_logits(p, i), n->hp.n_vocab * sizeof *out);
    }
    for (uint32_t i = 0; i < n_seq; i++)
        s[i].done += rows[i];
}

struct how {
    uint32_t chunk, threads, cpu;
    bool batched, cached;
};

/* The fewest bytes that a cache of experts may have: a refusal names them. */
static uint64_t least_cache(struct ckpt *c, const struct backend_options *bo)
{
    struct net *n;
    glm_error err = GLM_ERROR_INIT;
    if (net_open_cached(&mem, c, bo, 1, &n, &err) != GLM_EINVAL)
        fatal("a cache of 1 byte", &err);
    return err.offset;
}

static float *compute(struct ckpt *c, bool float_mode, uint32_t kv_type, uint32_t n_id, const struct how *how)
{
    struct backend_options bo = { .n_threads = how->threads, .float_activations = float_mode, .cpu_mask = how->cpu };
    struct net *n;
    struct pass *p;
    struct seq s[3];
    glm_error err = GLM_ERROR_INIT;
    uint32_t n_seq = how->batched ? 3 : 1;
    float *out;

    if (net_open_cached(&mem, c, &bo, how->cached ? least_cache(c, &bo) : 0, &n, &err) || pass_open(n, 600, N_CHECK, n_id, &p, &err))
        fatal("net_open", &err);
    out = calloc((size_t)N_CHECK * n->hp.n_vocab, sizeof *out);
    for (uint32_t i = 0; i < n_seq; i++)
        seq_open(&s[i], n, kv_type, i ? n_id / (i + 1) : n_id, 7 + i);
    while (s[0].done < s[0].n) { /* the others come with 1 or 2 rows as long as they last */
        uint32_t rows[3], m = 0;
        rows[m++] = s[0].n - s[0].done < how->chunk ? s[0].n - s[0].done : how->chunk;
        for (uint32_t i = 1; i < n_seq && s[i].done + i <= s[i].n; i++)
            rows[m++] = i;
        advance(n, p, s, m, rows, out);
    }
    for (uint32_t i = 0; i < n_seq; i++)
        seq_close(&s[i]);
    pass_close(p);
    net_close(n);
    return out;
}

static void check_model(const char *path, bool float_mode, uint32_t kv_type, uint32_t n_id)
{
    static const struct how hows[] = {
        { 1, 1, UINT32_MAX, false, false }, { 3, 2, UINT32_MAX, false, false }, { 64, 5, UINT32_MAX, false, false },
        { 512, 2, UINT32_MAX, true, false }, { 3, 5, UINT32_MAX, true, false }, { 64, 2, CPU_AVX2, false, false },
        { 64, 2, 0, false, false }, { 1, 2, CPU_AVX2, true, false }, { 1, 2, UINT32_MAX, false, true },
        { 512, 2, UINT32_MAX, true, true }, { 3, 1, CPU_AVX2, true, true },
    };
    struct how first = { 512, 1, UINT32_MAX, false, false };
    struct ckpt_options co = { .weights = GLM_WEIGHTS_MAP, .fs = &fs };
    struct ckpt *c, *by_tensor;
    glm_error err = GLM_ERROR_INIT;
    float *want;

    if (ckpt_open(&mem, path, &co, &c, &err))
        fatal(path, &err);
    co.by_tensor = true;
    if (ckpt_open(&mem, path, &co, &by_tensor, &err))
        fatal(path, &err);
    size_t bytes = (size_t)N_CHECK * ckpt_hparams(c)->n_vocab * sizeof(float);
    want = compute(c, float_mode, kv_type, n_id, &first);
    for (size_t i = 0; i < ARRAY_LEN(hows); i++) {
        float *got = compute(hows[i].cached ? by_tensor : c, float_mode, kv_type, n_id, &hows[i]);
        bool same = memcmp(got, want, bytes) == 0;
        n_checked++;
        n_failed += !same;
        if (!same)
            printf("FAIL %s%s kv %u: chunk %u, %u threads, cpu mask %x%s%s differ\n", path, float_mode ? " (float)" : "",
                kv_type, hows[i].chunk, hows[i].threads, hows[i].cpu, hows[i].batched ? ", batched" : "",
                hows[i].cached ? ", cached" : "");
        free(got);
    }
    free(want);
    ckpt_close(by_tensor);
    ckpt_close(c);
}

int main(void)
{
    static const struct {
        const char *path;
        bool float_mode;
        uint32_t kv_type, n_id;
    } cases[] = {
        { "air-bf16", false, GLM_KV_F32, 1100 }, /* two KV spans */
        { "air256-gguf-Q4_K_M/Q4_K_M.gguf", false, GLM_KV_BF16, 300 },
        { "air256-gguf-Q4_0/Q4_0.gguf", false, GLM_KV_INT8, 200 },
        { "air256-gguf-Q2_K/Q2_K.gguf", true, GLM_KV_FP8, 130 },
        { "glm45-fp8-block", false, GLM_KV_BF16, 130 },
        { "group-mixed", false, GLM_KV_F32, 130 },
    };
    const char *data = getenv("GLM_TEST_DATA");
    char path[512];

    mem_init(&mem, NULL);
    fs_init(&fs, NULL);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        snprintf(path, sizeof path, "%s/golden/%s", data ? data : "tests/data", cases[i].path);
        check_model(path, cases[i].float_mode, cases[i].kv_type, cases[i].n_id);
    }
    printf("%u passed, %u failed\n", n_checked - n_failed, n_failed);
    return n_failed != 0;
}
