/* bench.c: `glm45 bench`: prefill and decode rates of a model on this machine, and how much of the memory's bandwidth
 * decoding uses. Measures through the public API; the bytes that a token reads come from model_bytes.c.
 *
 * Every repeat of a decode block is preceded by a bandwidth measurement: both see the same machine in the same minute.
 */
#include "args.h"
#include "bandwidth.h"
#include "bench_steps.h"
#include "model_bytes.h"
#include "progress.h"
#include "report.h"
#include "tools.h"

#include <glm45/glm45.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REPEAT_MAX 100u
#define BATCH_MAX 64u
#define BUFFER_BYTES ((size_t)1 << 30)

static const char help[] =
    "usage: glm45 bench MODEL [options]\n"
    "\n"
    "Measures how fast a model runs here: prefill of a prompt, decoding behind contexts of the given lengths, and the share\n"
    "of the memory's read bandwidth, measured in the same run, that decoding uses. Tokens are random; no tokenizer needed.\n"
    "\n"
    "  --threads N        [the machine's cores, at most 8]\n"
    "  --prompt N         tokens of the prompt                            [512]\n"
    "  --context N,N,...  tokens in the cache before decoding             [128,8192, as far as the model goes]\n"
    "  --gen N            tokens to decode in each repeat                 [64]\n"
    "  --batch N          sequences that decode together, at most 64      [1]\n"
    "  --repeat N         medians of so many                              [5]\n"
    "  --seed N           of the random tokens                            [1]\n"
    "  --kv TYPE          of the KV cache: auto f32 bf16 int8 fp8         [auto]\n"
    "  --float            float32 activations throughout\n"
    "  --read             read the weights into memory instead of mapping the file\n"
    "  --expert-cache BYTES  for models larger than the memory: keep so many bytes of experts, such as 20G, and read the\n"
    "                     others when they are needed\n"
    "  --no-bandwidth     do not measure the memory, which takes a buffer of 1 GB\n"
    "  --step-budget MS,MS,...  instead of rates: how much longer than their time budget steps of a session take, through\n"
    "                     the prompt and --gen tokens behind it\n"
    "  --json             one JSON document in place of the table\n"
    "\n"
    "bytes/token are those of the weights that a token is routed through, and of the keys and values of its context. With\n"
    "--batch the weights count once for all sequences, and experts as often as even routing would choose different ones.\n"
    "What is read from the disk for each decoded token, mapped or into the cache of experts, follows the table.\n"
    "A small model stays in the CPU's caches: its share of the memory's bandwidth may then be above 1.\n"
    "\n"
    "example: glm45 bench air-4.gguf --threads 2 --context 128,4096\n";

struct depth {
    uint64_t n_ctx;
    double fill;                /* tokens a second while the context was filled; 0: context 0 */
    double decode, bytes;       /* median tokens a second; bytes a token */
    double bandwidth, fraction; /* median bytes a second of plain reading; of (decode * bytes) to it */
    double low, high;           /* slowest and fastest repeat */
    double disk;                /* bytes a token that the process had read from storage; < 0: not known */
    glm_stats experts;          /* the cache's counts while decoding */
};

struct bench {
    const char *path, *kv;
    uint64_t expert_cache, n_threads, n_prompt, n_gen, n_batch, n_repeat, seed;
    struct arg_counts contexts, budgets;
    bool has_contexts, float_activations, read, json, no_bandwidth;
    glm_model *model;
    glm_model_info info;
    struct model_bytes bytes;
    struct bandwidth *memory;
    uint32_t kv_type;
    double open_s, kv_element;  /* bytes of an element of the cache */
    uint64_t rss, rss_peak;     /* after the prefill, before the bandwidth's buffer is there; 0: not known */
    uint64_t random;
    double prefill[REPEAT_MAX], prefill_median;
    struct depth depth[ARG_COUNTS_MAX];
    struct progress progress;
};

/* ---- figures -------------------------------------------------------------------------------------------------------------- */

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Sorts. */
static double median(double *v, uint64_t n)
{
    qsort(v, n, sizeof *v, compare);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

static double seconds_since(uint64_t ns) { return (double)(progress_now() - ns) * 1e-9; }

/* The number on a line of a file in /proc/self; 0: not there. */
static uint64_t proc_line(const char *path, const char *name)
{
    FILE *f = fopen(path, "r");
    char line[256];
    unsigned long long n = 0;

    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, name, strlen(name)) == 0 && line[strlen(name)] == ':')
            n = strtoull(line + strlen(name) + 1, NULL, 10);
    if (f)
        fclose(f);
    return n;
}

static uint64_t memory_line(const char *name) { return 1024 * proc_line("/proc/self/status", name); }
static uint64_t disk_bytes(void) { return proc_line("/proc/self/io", "read_bytes"); }

/* ---- measuring ------------------------------------------------------------------------------------------------------------- */

static int32_t random_id(struct bench *b)
{
    uint64_t z = b->random += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (int32_t)((z ^ z >> 31) % b->info.n_vocab);
}

static int32_t feed(struct bench *b, glm_session *s, const int32_t *ids, size_t n, bool show, glm_error *err)
{
    glm_event ev = GLM_EVENT_INIT;
    glm_step how = GLM_STEP_INIT;
    int32_t rc = glm_session_feed(s, ids, n, GLM_ROWS_LAST, err);

    how.budget_ns = show ? 100000000u : 0;
    while (!rc && ev.type != GLM_EVENT_READY) {
        rc = glm_session_step(s, &how, &ev, err);
        if (show)
            progress_show(&b->progress, (double)ev.rows_done, (double)n, "tokens");
    }
    return rc;
}

/* n random tokens; *rate in tokens a second. */
static int32_t prefill(struct bench *b, glm_session *s, uint64_t n, double *rate, glm_error *err)
{
    int32_t *ids = malloc(n * sizeof *ids), rc = GLM_ENOMEM;
    uint64_t begin;

    *rate = 0;
    if (ids) {
        for (uint64_t i = 0; i < n; i++)
            ids[i] = random_id(b);
        begin = progress_now();
        rc = feed(b, s, ids, n, true, err);
        *rate = (double)n / seconds_since(begin);
    } else {
        snprintf(err->message, sizeof err->message, "out of memory for the prompt");
    }
    free(ids);
    return rc;
}

static int32_t open_session(struct bench *b, uint64_t n_ctx, glm_session **s, glm_error *err)
{
    glm_session_options so = GLM_SESSION_OPTIONS_INIT;
    glm_turn_options turn = GLM_TURN_OPTIONS_INIT;
    int32_t rc;

    so.n_ctx = (uint32_t)n_ctx;
    so.kv_type = b->kv_type;
    turn.temperature = 0;
    rc = glm_session_open(b->model, &so, s, err);
    return rc ? rc : glm_session_turn(*s, &turn, err);
}

static int32_t measure_prefill(struct bench *b, glm_error *err)
{
    int32_t rc = GLM_OK;

    progress_begin(&b->progress, "prefill");
    for (uint64_t r = 0; r < b->n_repeat + 1 && !rc; r++) { /* the first one brings the weights in and is not counted */
        glm_session *s = NULL;
        double rate = 0;
        rc = open_session(b, b->n_prompt, &s, err);
        if (!rc)
            rc = prefill(b, s, b->n_prompt, &rate, err);
        if (r > 0)
            b->prefill[r - 1] = rate;
        glm_session_close(s);
    }
    progress_end(&b->progress);
    if (!rc)
        b->prefill_median = median(b->prefill, b->n_repeat);
    return rc;
}

/* One token more for each sequence, all in one batch. */
static int32_t feed_each(struct bench *b, glm_session *const *s, glm_error *err)
{
    glm_event ev[BATCH_MAX], *at[BATCH_MAX];
    uint64_t n_ready = 0;
    int32_t rc = GLM_OK;

    for (uint64_t i = 0; i < b->n_batch && !rc; i++) {
        int32_t id = random_id(b);
        ev[i] = (glm_event)GLM_EVENT_INIT;
        at[i] = &ev[i];
        rc = glm_session_feed(s[i], &id, 1, GLM_ROWS_LAST, err);
    }
    while (!rc && n_ready < b->n_batch) {
        rc = glm_sessions_step(s, (uint32_t)b->n_batch, NULL, at, err);
        for (uint64_t i = 0; i < b->n_batch && !rc; i++)
            n_ready += ev[i].type == GLM_EVENT_READY;
    }
    return rc;
}

/* Decoding as a host does it: compute one token, draw the next. The drawn one is not the one fed: a model of random weights
 * would soon repeat itself and find its experts in the caches. */
static int32_t decode(struct bench *b, glm_session *const *s, double *rate, glm_error *err)
{
    uint64_t begin = progress_now();
    int32_t rc = GLM_OK;

    for (uint64_t i = 0; i < b->n_gen && !rc; i++) {
        int32_t id = random_id(b), drawn;
        rc = b->n_batch > 1 ? feed_each(b, s, err) : feed(b, s[0], &id, 1, false, err);
        for (uint64_t j = 0; j < b->n_batch && !rc; j++)
            rc = glm_session_sample(s[j], &drawn, err);
        progress_show(&b->progress, (double)i, (double)b->n_gen, "tokens");
    }
    *rate = (double)(b->n_gen * b->n_batch) / seconds_since(begin);
    return rc;
}

/* Bytes of weights for each token: of experts, those that n_batch tokens choose where routing is even. */
static double weight_bytes(const struct bench *b)
{
    double missed = 1, share = b->info.n_expert ? (double)b->info.n_expert_used / b->info.n_expert : 1;

    for (uint64_t i = 0; i < b->n_batch; i++)
        missed *= 1 - share;
    return ((double)b->bytes.dense + (double)b->bytes.experts * (1 - missed) / share) / (double)b->n_batch;
}

/* What the cache of experts has counted since `before`. */
static int32_t count_experts(glm_session *s, const glm_stats *before, glm_stats *out, glm_error *err)
{
    int32_t rc = glm_session_stats(s, out, err);
    out->n_expert_hit -= before->n_expert_hit;
    out->n_expert_miss -= before->n_expert_miss;
    out->n_expert_foreseen -= before->n_expert_foreseen;
    out->n_foreseen_used -= before->n_foreseen_used;
    out->expert_bytes_read -= before->expert_bytes_read;
    out->expert_wait_ns -= before->expert_wait_ns;
    return rc;
}

static int32_t measure_depth(struct bench *b, glm_session *const *s, struct depth *d, glm_error *err)
{
    double rates[REPEAT_MAX], memory[REPEAT_MAX], n_token = (double)(b->n_repeat * b->n_gen * b->n_batch);
    const glm_stats none = GLM_STATS_INIT;
    glm_stats before = GLM_STATS_INIT;
    uint64_t disk;
    int32_t rc = GLM_OK;

    progress_begin(&b->progress, "filling the context");
    for (uint64_t i = 0; i < b->n_batch && d->n_ctx && !rc; i++)
        rc = prefill(b, s[i], d->n_ctx, &d->fill, err);
    progress_end(&b->progress);
    d->experts = none;
    rc = rc ? rc : glm_session_stats(s[0], &before, err);
    disk = disk_bytes();
    progress_begin(&b->progress, "decode");
    for (uint64_t r = 0; r < b->n_repeat && !rc; r++) {
        memory[r] = b->memory ? bandwidth_measure(b->memory) : 0;
        rc = decode(b, s, &rates[r], err);
    }
    d->disk = disk ? (double)(disk_bytes() - disk) / n_token : -1;
    rc = rc ? rc : count_experts(s[0], &before, &d->experts, err);
    progress_end(&b->progress);
    if (rc)
        return rc;
    d->decode = median(rates, b->n_repeat);
    d->low = rates[0];
    d->high = rates[b->n_repeat - 1];
    d->bandwidth = median(memory, b->n_repeat);
    d->bytes = weight_bytes(b) + (double)b->bytes.kv_position * b->kv_element *
        ((double)d->n_ctx + (double)(b->n_repeat * b->n_gen) / 2);
    d->fraction = d->bandwidth > 0 ? d->decode * d->bytes / d->bandwidth : 0;
    return GLM_OK;
}

static int32_t measure_decode(struct bench *b, glm_error *err)
{
    int32_t rc = GLM_OK;
    for (size_t i = 0; i < b->contexts.n && !rc; i++) {
        glm_session *s[BATCH_MAX] = { NULL };
        b->depth[i].n_ctx = b->contexts.item[i];
        for (uint64_t j = 0; j < b->n_batch && !rc; j++)
            rc = open_session(b, b->depth[i].n_ctx + b->n_repeat * b->n_gen, &s[j], err);
        if (!rc)
            rc = measure_depth(b, s, &b->depth[i], err);
        for (uint64_t j = 0; j < b->n_batch; j++)
            glm_session_close(s[j]);
    }
    return rc;
}

/* ---- output --------------------------------------------------------------------------------------------------------------- */

static void put_table(const struct bench *b)
{
    printf("%s: %u layers, %.3f GB of weights, opened in %.3f s; %llu threads, batch %llu\n", b->path, b->info.n_layer,
        (double)b->info.weight_bytes * 1e-9, b->open_s, (unsigned long long)b->n_threads, (unsigned long long)b->n_batch);
    if (b->rss)
        printf("memory after the prefill: %.1f MB resident, %.1f MB at most, mapped weights included\n",
            (double)b->rss * 1e-6, (double)b->rss_peak * 1e-6);
    printf("prefill of %llu tokens: %.2f tokens/s (%.2f to %.2f in %llu repeats)\n\n", (unsigned long long)b->n_prompt,
        b->prefill_median, b->prefill[0], b->prefill[b->n_repeat - 1], (unsigned long long)b->n_repeat);
    printf("%9s  %11s  %12s  %19s  %13s  %12s  %8s\n", "context", "fill tok/s", "decode tok/s", "slowest - fastest",
        "MB/token", "read GB/s", "fraction");
    for (size_t i = 0; i < b->contexts.n; i++) {
        const struct depth *d = &b->depth[i];
        printf("%9llu  %11.2f  %12.2f  %8.2f - %8.2f  %13.3f  %12.2f  %8.3f\n", (unsigned long long)d->n_ctx, d->fill,
            d->decode, d->low, d->high, d->bytes * 1e-6, d->bandwidth * 1e-9, d->fraction);
    }
}

static double part(uint64_t n, uint64_t rest) { return n + rest ? (double)n / (double)(n + rest) : 0; }

/* The disk's part, one line for each context. */
static void put_disk(const struct bench *b)
{
    double n_token = (double)(b->n_repeat * b->n_gen * b->n_batch);

    for (size_t i = 0; i < b->contexts.n; i++) {
        const struct depth *d = &b->depth[i];
        const glm_stats *x = &d->experts;
        if (d->disk >= 0)
            printf("%sat %llu: %.3f MB/token from the disk\n", i ? "" : "\n", (unsigned long long)d->n_ctx, d->disk * 1e-6);
        if (b->expert_cache)
            printf("    cache of experts: %.1f of 100 there; read %.3f MB/token, waited %.2f ms/token; %.2f/token foreseen, "
                "%.0f of 100 rightly\n", 100 * part(x->n_expert_hit, x->n_expert_miss),
                (double)x->expert_bytes_read * 1e-6 / n_token, (double)x->expert_wait_ns * 1e-6 / n_token,
                (double)x->n_expert_foreseen / n_token,
                x->n_expert_foreseen ? 100 * (double)x->n_foreseen_used / (double)x->n_expert_foreseen : 0);
    }
}

static void put_json(const struct bench *b)
{
    printf("{\"threads\": %llu, \"batch\": %llu, \"gen\": %llu, \"repeat\": %llu, \"open_s\": %.6f, \"weight_bytes\": %llu, "
        "\"rss_bytes\": %llu, \"rss_peak_bytes\": %llu, \"bandwidth_buffer_bytes\": %zu, "
        "\"prefill\": {\"tokens\": %llu, \"tokens_per_s\": %.4f, \"slowest\": %.4f, \"fastest\": %.4f}, \"decode\": [",
        (unsigned long long)b->n_threads, (unsigned long long)b->n_batch, (unsigned long long)b->n_gen,
        (unsigned long long)b->n_repeat, b->open_s, (unsigned long long)b->info.weight_bytes,
        (unsigned long long)b->rss, (unsigned long long)b->rss_peak, b->memory ? bandwidth_size(b->memory) : 0,
        (unsigned long long)b->n_prompt, b->prefill_median, b->prefill[0], b->prefill[b->n_repeat - 1]);
    for (size_t i = 0; i < b->contexts.n; i++) {
        const struct depth *d = &b->depth[i];
        printf("%s{\"context\": %llu, \"fill_tokens_per_s\": %.4f, \"tokens_per_s\": %.4f, \"slowest\": %.4f, "
            "\"fastest\": %.4f, \"bytes_per_token\": %.0f, \"read_bytes_per_s\": %.0f, \"fraction\": %.4f, "
            "\"disk_bytes_per_token\": %.0f, \"experts\": {\"hit\": %llu, \"miss\": %llu, \"foreseen\": %llu, "
            "\"foreseen_used\": %llu, \"bytes_read\": %llu, \"wait_ns\": %llu}}", i ? ", " : "",
            (unsigned long long)d->n_ctx, d->fill, d->decode, d->low, d->high, d->bytes, d->bandwidth, d->fraction, d->disk,
            (unsigned long long)d->experts.n_expert_hit, (unsigned long long)d->experts.n_expert_miss,
            (unsigned long long)d->experts.n_expert_foreseen, (unsigned long long)d->experts.n_foreseen_used,
            (unsigned long long)d->experts.expert_bytes_read, (unsigned long long)d->experts.expert_wait_ns);
    }
    printf("]}\n");
}

/* ---- the command ------------------------------------------------------------------------------------------------------------ */

/* How many bytes an element of the KV cache takes. false: no such type. The scales of int8 and fp8, one for each head, are
 * not counted: three in a hundred. */
static bool set_kv(struct bench *b)
{
    static const struct {
        const char *name;
        uint32_t type;
        double bytes;
    } types[] = { { "auto", GLM_KV_AUTO, 0 }, { "f32", GLM_KV_F32, 4 }, { "bf16", GLM_KV_BF16, 2 },
        { "int8", GLM_KV_INT8, 1 }, { "fp8", GLM_KV_FP8, 1 } };
    double layers = b->info.n_layer + b->info.n_nextn; /* kv_bytes_per_token is of both, decoding reads the first */

    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (strcmp(types[i].name, b->kv) == 0) {
            b->kv_type = types[i].type;
            b->kv_element = types[i].bytes > 0 ? types[i].bytes
                : (double)b->info.kv_bytes_per_token * b->info.n_layer / layers / (double)b->bytes.kv_position;
            return true;
        }
    return false;
}

/* The default contexts that the model can hold; those that were asked for must fit. */
static int set_contexts(struct bench *b)
{
    static const uint64_t defaults[] = { 128, 8192 };
    uint64_t room = b->info.n_ctx_train, need = b->n_repeat * b->n_gen;

    if (!b->has_contexts)
        for (size_t i = 0; i < sizeof defaults / sizeof defaults[0]; i++)
            if (defaults[i] + need <= room)
                b->contexts.item[b->contexts.n++] = defaults[i];
    if (!b->has_contexts && b->contexts.n == 0)
        b->contexts.n = 1; /* no context at all */
    for (size_t i = 0; i < b->contexts.n; i++)
        if (b->contexts.item[i] + need > room)
            return report_usage("bench", "--context: %llu and %llu repeats of %llu tokens exceed the model's %llu positions",
                (unsigned long long)b->contexts.item[i], (unsigned long long)b->n_repeat, (unsigned long long)b->n_gen,
                (unsigned long long)room);
    if (b->n_prompt > room)
        return report_usage("bench", "--prompt: the model has %llu positions", (unsigned long long)room);
    return EXIT_FINE;
}

static int32_t open_model(struct bench *b, glm_error *err)
{
    glm_model_options mo = GLM_MODEL_OPTIONS_INIT;
    uint64_t begin = progress_now();
    int32_t rc;

    mo.n_threads = (uint32_t)b->n_threads;
    mo.activations = b->float_activations ? GLM_ACTIVATIONS_F32 : GLM_ACTIVATIONS_AUTO;
    mo.expert_cache_bytes = b->expert_cache;
    mo.weights = b->read ? GLM_WEIGHTS_READ : GLM_WEIGHTS_MAP;
    rc = glm_model_open(b->path, &mo, &b->model, err);
    b->open_s = seconds_since(begin);
    b->info.struct_size = sizeof b->info;
    if (!rc)
        rc = glm_model_describe(b->model, &b->info, err);
    return rc ? rc : model_bytes_read(b->path, &b->bytes, err);
}

static int run_steps(struct bench *b, glm_error *err)
{
    struct step_times times[ARG_COUNTS_MAX];
    glm_session_options so = GLM_SESSION_OPTIONS_INIT;
    int32_t *ids, rc;

    if (b->n_prompt + b->n_gen > b->info.n_ctx_train)
        return report_usage("bench", "--prompt and --gen: the model has %u positions", b->info.n_ctx_train);
    ids = malloc(b->n_prompt * sizeof *ids);
    if (!ids)
        return report_failed("bench", "out of memory for the prompt");
    for (uint64_t i = 0; i < b->n_prompt; i++)
        ids[i] = random_id(b);
    so.n_ctx = (uint32_t)(b->n_prompt + b->n_gen);
    so.kv_type = b->kv_type;
    rc = bench_steps(b->model, &so, ids, b->n_prompt, b->n_gen, &b->budgets, times, err);
    free(ids);
    if (rc)
        return report_error("bench", err);
    (b->json ? bench_steps_put_json : bench_steps_put)(times, b->budgets.n);
    return report_flush("bench");
}

static int run(struct bench *b)
{
    glm_error err = GLM_ERROR_INIT;
    int status;

    b->n_threads = b->n_threads ? b->n_threads : bandwidth_cores();
    b->random = b->seed;
    if (open_model(b, &err))
        return report_error("bench", &err);
    if (!set_kv(b))
        return report_usage("bench", "--kv: \"%s\" is none of auto, f32, bf16, int8, fp8", b->kv);
    if (b->budgets.n)
        return run_steps(b, &err);
    status = set_contexts(b);
    if (status != EXIT_FINE)
        return status;
    if (measure_prefill(b, &err))
        return report_error("bench", &err);
    b->rss = memory_line("VmRSS");
    b->rss_peak = memory_line("VmHWM");
    if (!b->no_bandwidth)
        b->memory = bandwidth_open((uint32_t)b->n_threads, BUFFER_BYTES);
    if (!b->no_bandwidth && !b->memory)
        return report_failed("bench", "out of memory for measuring the bandwidth");
    if (measure_decode(b, &err))
        return report_error("bench", &err);
    if (b->json)
        put_json(b);
    else
        put_table(b), put_disk(b);
    return report_flush("bench");
}

int bench_main(int argc, char **argv)
{
    struct bench b = { .kv = "auto", .n_prompt = 512, .n_gen = 64, .n_batch = 1, .n_repeat = 5, .seed = 1 };
    const struct arg args[] = {
        { .name = "--threads", .kind = ARG_COUNT, .to = &b.n_threads, .least = 1, .most = 1024 },
        { .name = "--prompt", .kind = ARG_COUNT, .to = &b.n_prompt, .least = 1, .most = UINT32_MAX },
        { .name = "--context", .kind = ARG_COUNTS, .to = &b.contexts, .most = UINT32_MAX, .given = &b.has_contexts },
        { .name = "--gen", .kind = ARG_COUNT, .to = &b.n_gen, .least = 1, .most = 1000000 },
        { .name = "--batch", .kind = ARG_COUNT, .to = &b.n_batch, .least = 1, .most = BATCH_MAX },
        { .name = "--repeat", .kind = ARG_COUNT, .to = &b.n_repeat, .least = 1, .most = REPEAT_MAX },
        { .name = "--seed", .kind = ARG_COUNT, .to = &b.seed, .most = UINT64_MAX },
        { .name = "--kv", .kind = ARG_TEXT, .to = &b.kv },
        { .name = "--float", .kind = ARG_FLAG, .to = &b.float_activations },
        { .name = "--read", .kind = ARG_FLAG, .to = &b.read },
        { .name = "--expert-cache", .kind = ARG_BYTES, .to = &b.expert_cache, .most = UINT64_MAX },
        { .name = "--no-bandwidth", .kind = ARG_FLAG, .to = &b.no_bandwidth },
        { .name = "--step-budget", .kind = ARG_COUNTS, .to = &b.budgets, .least = 1, .most = 60000 },
        { .name = "--json", .kind = ARG_FLAG, .to = &b.json },
    };
    const struct arg_table table = { "bench", help, args, sizeof args / sizeof args[0], &b.path };
    int status = args_read(&table, argc, argv);

    if (status == ARGS_GO_ON)
        status = run(&b);
    bandwidth_close(b.memory);
    glm_model_close(b.model);
    return status;
}
