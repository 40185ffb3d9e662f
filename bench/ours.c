/* ours.c: libglm45's side of the comparison with other engines (cpu.py): one model held open, measured on commands from
 * standard input, so that engines can take turns. Forward passes are driven directly (driver.h), because the public API
 * forbids no instruction sets; the first token and constrained drawing are timed through it.
 *
 * Commands, one a line; each answers one line, its seconds or figure, or "error ...":
 *   prefill N SEED          N random tokens in an empty cache, logits of the last
 *   fill N SEED             the same, kept as the context of decode
 *   decode N SEED           N tokens, one a pass, behind the context; then the context is as before
 *   batch B CTX N SEED      seconds of N passes of B sequences, one token each, behind CTX tokens each
 *   read                    bytes a second of plain reading with as many threads
 *   dots                    int8 multiply-adds a second, with as many threads, of what the CPU has for them
 *   bytes                   bytes that a token reads: dense experts kv-elements-per-position, then the multiply-adds of a
 *                           prefilled row, attention's own and the head left out
 */
#include "driver.h"
#include "../tools/bandwidth.h"
#include "../tools/model_bytes.h"

#include <immintrin.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define READ_BYTES ((size_t)1 << 30)

struct ours {
    struct driver d;
    struct bandwidth *memory;
    uint32_t n_threads;
    struct kv_seq kept; /* the context of decode */
    uint32_t n_kept;
};

/* Seconds of n tokens from position pos on. Logits of the last, or of each where they come one by one. */
static double rows(struct ours *o, struct kv_seq *s, uint32_t pos, uint32_t n, uint64_t seed, uint32_t chunk)
{
    int32_t ids[CHUNK];
    double begin;

    seq_reserve(&o->d, s, pos + n);
    reserve_pass(&o->d, pos + n);
    begin = now();
    for (uint32_t done = 0, m; done < n; done += m) {
        m = n - done < chunk ? n - done : chunk;
        uint32_t last = m - 1;
        struct segment seg = { 0, 0, m, pos + done };
        for (uint32_t i = 0; i < m; i++)
            ids[i] = random_id(&seed, o->d.net->hp.n_vocab);
        struct batch b = { .ids = ids, .segments = &seg, .n_row = m, .n_segment = 1, .seqs = &s, .logit_rows = &last,
            .n_logit = chunk == 1 || done + m == n };
        run_pass(&o->d, &b);
    }
    return now() - begin;
}

static double batch(struct ours *o, uint32_t n_seq, uint32_t n_ctx, uint32_t n, uint64_t seed)
{
    struct kv_seq seq[64] = { { 0 } }, *at[64];
    struct segment seg[64];
    int32_t ids[64];
    uint32_t logit_rows[64];
    double begin;

    for (uint32_t i = 0; i < n_seq; i++) {
        seq_reserve(&o->d, &seq[i], n_ctx + n);
        rows(o, &seq[i], 0, n_ctx, seed + 1000 + i, CHUNK);
        at[i] = &seq[i];
        logit_rows[i] = i;
    }
    reserve_pass(&o->d, n_ctx + n);
    begin = now();
    for (uint32_t t = 0; t < n; t++) {
        for (uint32_t i = 0; i < n_seq; i++) {
            ids[i] = random_id(&seed, o->d.net->hp.n_vocab);
            seg[i] = (struct segment){ i, i, 1, n_ctx + t };
        }
        struct batch b = { .ids = ids, .segments = seg, .n_row = n_seq, .n_segment = n_seq, .seqs = at,
            .logit_rows = logit_rows, .n_logit = n_seq };
        run_pass(&o->d, &b);
    }
    begin = now() - begin;
    for (uint32_t i = 0; i < n_seq; i++)
        seq_free(&o->d, &seq[i]);
    return begin;
}

/* ---- the arithmetic peak ------------------------------------------------------------------------------------------------ */

#define DOT_ROUNDS 20000000u

/* Twelve chains of what multiplies 8-bit integers fastest; the result keeps the compiler from dropping them. */
__attribute__((target("avx512f,avx512vnni"))) static double dots_vnni(int *keep)
{
    __m512i a[12], w = _mm512_set1_epi32(*keep), x = _mm512_set1_epi32(*keep + 1), all = _mm512_setzero_si512();
    for (int i = 0; i < 12; i++)
        a[i] = _mm512_setzero_si512();
    for (uint32_t r = 0; r < DOT_ROUNDS; r += 12)
        for (int i = 0; i < 12; i++)
            a[i] = _mm512_dpbusd_epi32(a[i], w, x);
    for (int i = 0; i < 12; i++)
        all = _mm512_add_epi32(all, a[i]);
    *keep = _mm512_reduce_add_epi32(all);
    return 64.0 * DOT_ROUNDS;
}

__attribute__((target("avx2"))) static double dots_avx2(int *keep)
{
    __m256i a[6], w = _mm256_set1_epi32(*keep), x = _mm256_set1_epi32(*keep + 1), all = _mm256_setzero_si256();
    for (int i = 0; i < 6; i++)
        a[i] = _mm256_setzero_si256();
    for (uint32_t r = 0; r < DOT_ROUNDS; r += 6)
        for (int i = 0; i < 6; i++) {
            __asm__("" : "+x"(w));
            a[i] = _mm256_add_epi16(a[i], _mm256_maddubs_epi16(w, x));
        }
    for (int i = 0; i < 6; i++)
        all = _mm256_add_epi32(all, a[i]);
    *keep = _mm256_extract_epi32(all, 0);
    return 32.0 * DOT_ROUNDS;
}

struct dots {
    bool vnni;
    double n;
    pthread_t thread;
};

static void *dots_run(void *arg)
{
    struct dots *d = arg;
    int keep = 1;
    d->n = d->vnni ? dots_vnni(&keep) : dots_avx2(&keep);
    return NULL;
}

static double dots_once(const struct ours *o)
{
    uint32_t cpu = backend_cpu(o->d.net->be);
    struct dots d[64];
    double begin = now(), n = 0;
    for (uint32_t i = 0; i < o->n_threads; i++) {
        d[i].vnni = (cpu & CPU_AVX512) && (cpu & CPU_VNNI);
        pthread_create(&d[i].thread, NULL, dots_run, &d[i]);
    }
    for (uint32_t i = 0; i < o->n_threads; i++) {
        pthread_join(d[i].thread, NULL);
        n += d[i].n;
    }
    return n / (now() - begin);
}

/* The best of five: another process on a core makes it no smaller a limit. */
static double dots(const struct ours *o)
{
    double best = 0;
    for (int i = 0; i < 5; i++) {
        double n = dots_once(o);
        best = n > best ? n : best;
    }
    return best;
}

/* ---- commands ------------------------------------------------------------------------------------------------------------- */

static double command(struct ours *o, const char *line)
{
    unsigned a = 0, b = 0, c = 0, d = 0;
    char name[16] = "";
    double t;
    sscanf(line, "%15s %u %u %u %u", name, &a, &b, &c, &d);
    if (strcmp(name, "prefill") == 0) {
        struct kv_seq s = { 0 };
        t = rows(o, &s, 0, a, b, CHUNK);
        seq_free(&o->d, &s);
        return t;
    }
    if (strcmp(name, "fill") == 0) {
        o->n_kept = a;
        return rows(o, &o->kept, 0, a, b, CHUNK);
    }
    if (strcmp(name, "decode") == 0)
        return rows(o, &o->kept, o->n_kept, a, b, 1);
    if (strcmp(name, "batch") == 0 && a <= 64)
        return batch(o, a, b, c, d);
    if (strcmp(name, "read") == 0)
        return bandwidth_measure(o->memory);
    if (strcmp(name, "dots") == 0)
        return dots(o);
    return -1;
}

static double macs(const struct hparams *hp)
{
    double d = hp->d_model, q = (double)hp->n_head * hp->d_head, kv = (double)hp->n_head_kv * hp->d_head;
    double moe = 3.0 * hp->d_ff_exp * (hp->n_expert_used + hp->n_expert_shared) + hp->n_expert;
    uint32_t n_dense = hp->n_layer_dense < hp->n_layer ? hp->n_layer_dense : hp->n_layer;
    return d * (hp->n_layer * (2 * q + 2 * kv) + n_dense * 3.0 * hp->d_ff + (hp->n_layer - n_dense) * moe);
}

static void answer(struct ours *o, const char *line)
{
    struct model_bytes n;
    glm_error err = GLM_ERROR_INIT;
    if (strncmp(line, "bytes", 5) != 0)
        printf("%.9g\n", command(o, line));
    else if (model_bytes_read(o->d.path, &n, &err))
        fatal("bytes", &err);
    else
        printf("%llu %llu %llu %.0f\n", (unsigned long long)n.dense, (unsigned long long)n.experts,
            (unsigned long long)n.kv_position, macs(&o->d.net->hp));
    fflush(stdout);
}

/* Bytes of memory that this process alone holds: mapped weights are not among them. */
static unsigned long long private_bytes(void)
{
    FILE *f = fopen("/proc/self/status", "r");
    char line[256];
    unsigned long long kb = 0;
    while (f && fgets(line, sizeof line, f))
        sscanf(line, "RssAnon: %llu", &kb);
    if (f)
        fclose(f);
    return kb * 1024;
}

/* Seconds to open, and from nothing to the first token after n of a prompt, through the public API; then the bytes of private
 * memory, and of the keys and values among them. */
static int first_token(const char *path, uint32_t n_threads, uint32_t n, uint32_t n_ctx)
{
    glm_error err = GLM_ERROR_INIT;
    glm_model_options mo = GLM_MODEL_OPTIONS_INIT;
    glm_session_options so = GLM_SESSION_OPTIONS_INIT;
    glm_event ev = GLM_EVENT_INIT;
    glm_stats stats = GLM_STATS_INIT;
    glm_model *m;
    glm_session *s;
    double begin = now(), opened, sampled;
    int32_t ids[CHUNK], id;
    uint64_t seed = 1;

    mo.n_threads = n_threads;
    so.n_ctx = n_ctx > n ? n_ctx : n + 64;
    if (glm_model_open(path, &mo, &m, &err))
        fatal("open", &err);
    opened = now() - begin;
    for (uint32_t i = 0; i < n; i++)
        ids[i] = random_id(&seed, 1000);
    if (glm_session_open(m, &so, &s, &err) || glm_session_feed(s, ids, n, GLM_ROWS_LAST, &err))
        fatal("session", &err);
    while (ev.type != GLM_EVENT_READY)
        if (glm_session_step(s, NULL, &ev, &err))
            fatal("step", &err);
    if (glm_session_sample(s, &id, &err))
        fatal("sample", &err);
    sampled = now() - begin;
    if (glm_session_stats(s, &stats, &err))
        fatal("stats", &err);
    printf("%.6f %.6f %llu %llu\n", opened, sampled, private_bytes(), (unsigned long long)stats.kv_bytes);
    glm_session_close(s);
    glm_model_close(m);
    return 0;
}

/* An answer that JSON schema holds to a form, token by token, as a host of the token level writes it. */
static void constrain(glm_session *s)
{
    static const char schema[] =
        "{\"type\":\"object\",\"properties\":{\"title\":{\"type\":\"string\"},\"pages\":{\"type\":\"array\","
        "\"items\":{\"type\":\"object\",\"properties\":{\"number\":{\"type\":\"integer\",\"minimum\":1},"
        "\"text\":{\"type\":\"string\"}},\"required\":[\"number\",\"text\"]}}},\"required\":[\"title\",\"pages\"]}";
    glm_error err = GLM_ERROR_INIT;
    glm_turn_options to = GLM_TURN_OPTIONS_INIT;
    to.answer_schema = schema;
    if (glm_session_turn(s, &to, &err))
        fatal("turn", &err);
}

static void step_to_ready(glm_session *s)
{
    glm_error err = GLM_ERROR_INIT;
    glm_event ev = GLM_EVENT_INIT;
    while (ev.type != GLM_EVENT_READY)
        if (glm_session_step(s, NULL, &ev, &err))
            fatal("step", &err);
}

/* Seconds of n tokens' forward passes, and of drawing them under a schema. */
static int constrained(const char *path, uint32_t n_threads, uint32_t n)
{
    glm_error err = GLM_ERROR_INIT;
    glm_model_options mo = GLM_MODEL_OPTIONS_INIT;
    glm_session_options so = GLM_SESSION_OPTIONS_INIT;
    glm_model *m;
    glm_session *s;
    int32_t id = 100;
    double passes = 0, draws = 0;

    mo.n_threads = n_threads;
    so.n_ctx = n + 64;
    if (glm_model_open(path, &mo, &m, &err) || glm_session_open(m, &so, &s, &err))
        fatal("open", &err);
    for (uint32_t i = 0; i < n + 2; i++) { /* two that are not counted: caches, and what the schema is compiled to */
        double begin = now(), ready;
        if (glm_session_feed(s, &id, 1, GLM_ROWS_LAST, &err))
            fatal("feed", &err);
        step_to_ready(s);
        ready = now();
        if (i == 0)
            constrain(s);
        if (glm_session_sample(s, &id, &err))
            fatal("sample", &err);
        passes += i < 2 ? 0 : ready - begin;
        draws += i < 2 ? 0 : now() - ready;
    }
    printf("%.9g %.9g\n", passes, draws);
    glm_session_close(s);
    glm_model_close(m);
    return 0;
}

static void open_all(struct ours *o, const char *path, uint32_t cpu_mask)
{
    driver_open(&o->d, path, o->n_threads, cpu_mask);
    o->memory = bandwidth_open(o->n_threads, READ_BYTES);
    if (!o->memory)
        fatal("bandwidth", NULL);
}

int main(int argc, char **argv)
{
    struct ours o = { 0 };
    char line[256];
    unsigned n = 0, n_ctx = 0;

    if (argc != 4) {
        fprintf(stderr, "usage: ours MODEL THREADS avx512|avx2|none|first-token-after-N[-of-CONTEXT]|constrained-N\n");
        return 2;
    }
    o.n_threads = (uint32_t)atoi(argv[2]);
    if (o.n_threads < 1 || o.n_threads > 64)
        return 2;
    if (sscanf(argv[3], "first-token-after-%u-of-%u", &n, &n_ctx) >= 1)
        return first_token(argv[1], o.n_threads, n < 1 ? 1 : n > CHUNK ? CHUNK : n, n_ctx);
    if (sscanf(argv[3], "constrained-%u", &n) == 1)
        return constrained(argv[1], o.n_threads, n > CHUNK ? CHUNK : n);
    double begin = now();
    open_all(&o, argv[1], strcmp(argv[3], "avx2") == 0 ? CPU_AVX2 : strcmp(argv[3], "none") == 0 ? 0 : UINT32_MAX);
    printf("ready %.6f\n", now() - begin);
    fflush(stdout);
    while (fgets(line, sizeof line, stdin))
        answer(&o, line);
    seq_free(&o.d, &o.kept);
    driver_close(&o.d);
    bandwidth_close(o.memory);
    return 0;
}
