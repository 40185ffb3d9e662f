/* bench_steps.c: see bench_steps.h. */
#include "bench_steps.h"
#include "progress.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct times {
    double *over, *cpu; /* ms by which each step was late; 0: it was not */
    size_t n, capacity;
};

static double thread_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static bool keep(struct times *t, double over, double cpu)
{
    if (t->n == t->capacity) {
        size_t n = t->capacity ? 2 * t->capacity : 4096;
        double *a = realloc(t->over, n * sizeof *a), *b = a ? realloc(t->cpu, n * sizeof *b) : NULL;
        t->over = a ? a : t->over;
        t->cpu = b ? b : t->cpu;
        if (!b)
            return false;
        t->capacity = n;
    }
    t->over[t->n] = over > 0 ? over : 0;
    t->cpu[t->n++] = cpu > 0 ? cpu : 0;
    return true;
}

static int32_t no_memory(glm_error *err)
{
    snprintf(err->message, sizeof err->message, "out of memory for the steps' times");
    return err->code = GLM_ENOMEM;
}

/* Steps until the queued tokens are computed. */
static int32_t run(glm_session *s, uint64_t budget_ms, struct times *t, glm_error *err)
{
    glm_event ev = GLM_EVENT_INIT;
    glm_step how = GLM_STEP_INIT;
    int32_t rc = GLM_OK;

    how.budget_ns = budget_ms * 1000000u;
    while (!rc && ev.type != GLM_EVENT_READY) {
        uint64_t begin = progress_now();
        double cpu = thread_ms();
        rc = glm_session_step(s, &how, &ev, err);
        double ms = (double)(progress_now() - begin) * 1e-6;
        cpu = thread_ms() - cpu;
        if (!rc && budget_ms && !keep(t, ms - (double)budget_ms, cpu - (double)budget_ms))
            rc = no_memory(err);
    }
    return rc;
}

static int32_t session(glm_model *m, const glm_session_options *so, const int32_t *ids, uint64_t n_prompt, uint64_t n_gen,
    uint64_t budget_ms, struct times *t, glm_error *err)
{
    glm_session *s = NULL;
    int32_t id, rc = glm_session_open(m, so, &s, err);

    if (!rc)
        rc = glm_session_feed(s, ids, n_prompt, GLM_ROWS_LAST, err);
    if (!rc)
        rc = run(s, budget_ms, t, err);
    for (uint64_t i = 0; i < n_gen && !rc; i++) {
        rc = glm_session_feed(s, ids + i % n_prompt, 1, GLM_ROWS_LAST, err);
        if (!rc)
            rc = run(s, budget_ms, t, err);
        if (!rc)
            rc = glm_session_sample(s, &id, err);
    }
    glm_session_close(s);
    return rc;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void summarize(struct times *t, struct step_times *out)
{
    qsort(t->over, t->n, sizeof *t->over, compare);
    qsort(t->cpu, t->n, sizeof *t->cpu, compare);
    size_t last = t->n - 1, p99 = last - last / 100;
    out->n = t->n;
    out->p50 = t->over[last / 2];
    out->p99 = t->over[p99];
    out->most = t->over[last];
    out->cpu_p99 = t->cpu[p99];
    out->cpu_most = t->cpu[last];
}

int32_t bench_steps(glm_model *m, const glm_session_options *so, const int32_t *ids, uint64_t n_prompt, uint64_t n_gen,
    const struct arg_counts *budgets, struct step_times *out, glm_error *err)
{
    struct times t = { 0 };
    int32_t rc = session(m, so, ids, n_prompt, n_gen, 0, &t, err);

    for (size_t i = 0; i < budgets->n && !rc; i++) {
        t.n = 0;
        out[i].budget_ms = budgets->item[i];
        rc = session(m, so, ids, n_prompt, n_gen, budgets->item[i], &t, err);
        if (!rc)
            summarize(&t, &out[i]);
    }
    free(t.over);
    free(t.cpu);
    return rc;
}

void bench_steps_put(const struct step_times *t, size_t n)
{
    printf("%9s  %8s  %24s  %22s\n", "budget ms", "steps", "late by ms: p50 p99 most", "on the CPU: p99 most");
    for (size_t i = 0; i < n; i++)
        printf("%9llu  %8llu  %8.3f %7.3f %7.3f  %13.3f %8.3f\n", (unsigned long long)t[i].budget_ms,
            (unsigned long long)t[i].n, t[i].p50, t[i].p99, t[i].most, t[i].cpu_p99, t[i].cpu_most);
}

void bench_steps_put_json(const struct step_times *t, size_t n)
{
    printf("{\"steps\": [");
    for (size_t i = 0; i < n; i++)
        printf("%s{\"budget_ms\": %llu, \"n\": %llu, \"late_ms_p50\": %.4f, \"late_ms_p99\": %.4f, \"late_ms_max\": %.4f, "
            "\"cpu_late_ms_p99\": %.4f, \"cpu_late_ms_max\": %.4f}", i ? ", " : "", (unsigned long long)t[i].budget_ms,
            (unsigned long long)t[i].n, t[i].p50, t[i].p99, t[i].most, t[i].cpu_p99, t[i].cpu_most);
    printf("]}\n");
}
