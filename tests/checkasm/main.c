/* main.c: runs the checks of every kernel on every instruction set that this CPU has.
 *
 *   checkasm [--bench] [--seed N] [--level avx2|avx512|vnni] [NAME...]     NAME: part of a kernel's
 * name
 *
 * Exit status 1 if any case differs. Each case prints nothing unless it fails.
 */
#include "checkasm.h"

#include "../../lib/base/base.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE ((size_t)4096)
#define GUARD ((size_t)256)

static struct check *current; /* for the fault handler */

/* ---- random ---------------------------------------------------------------------------------- */

uint64_t rand_u64(struct check *c)
{
    uint64_t z = c->random += 0x9e3779b97f4a7c15u; /* splitmix64 */
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

uint32_t rand_below(struct check *c, uint32_t n)
{
    return (uint32_t)((rand_u64(c) >> 32) * n >> 32);
}

uint32_t rand_in(struct check *c, uint32_t low, uint32_t high)
{
    return low + rand_below(c, high - low + 1);
}

float rand_float(struct check *c)
{
    uint64_t r = rand_u64(c);
    int32_t sum = 0;
    for (uint32_t i = 0; i < 4; i++)
        sum += (int32_t)(r >> 16 * i & 0xffff) - 32768;
    return (float)sum * 0x1.bp-17f;
}

void rand_bytes(struct check *c, void *to, size_t size)
{
    uint8_t *b = to;
    for (size_t i = 0; i < size; i += 8) {
        uint64_t r = rand_u64(c);
        memcpy(b + i, &r, size - i < 8 ? size - i : 8);
    }
}

void rand_rows(struct check *c, float *x, uint32_t n)
{
    uint32_t style = rand_below(c, 24);
    for (uint32_t i = 0; i < n; i++) {
        x[i] = rand_float(c);
        if (style == 0)
            x[i] *= 0x1p-140f;
        if (style == 1)
            x[i] *= 0x1p100f;
        if (style == 2 && i / 32 % 2)
            x[i] = 0;
        if (style == 3)
            x[i] = (float)(int32_t)rand_in(c, 0, 4) - 2.0f;
    }
    if (style == 4)
        x[rand_below(c, n)] = NAN;
    if (style == 5)
        x[rand_below(c, n)] = -INFINITY;
}

/* ---- memory ---------------------------------------------------------------------------------- */

void *case_alloc(struct check *c, size_t size, size_t align)
{
    size_t room = (size + PAGE - 1) & ~(PAGE - 1);
    if (c->n_block == MAX_BLOCKS)
        abort();
    char *map =
        mmap(NULL, room + 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED || mprotect(map, PAGE, PROT_NONE) ||
        mprotect(map + PAGE + room, PAGE, PROT_NONE))
        abort();
    c->block[c->n_block].at = map;
    c->block[c->n_block++].size = room + 2 * PAGE;
    if (rand_below(c, 4) == 0)
        return map + PAGE;
    return map + PAGE + ((room - size) & ~(align - 1));
}

void case_free(struct check *c)
{
    while (c->n_block > 0) {
        c->n_block--;
        munmap(c->block[c->n_block].at, c->block[c->n_block].size);
    }
}

void *scratch_alloc(struct check *c, size_t size)
{
    char *at = (char *)case_alloc(c, size + 2 * GUARD, 64) + GUARD;
    memset(at - GUARD, 0xa5, size + 2 * GUARD);
    return at;
}

bool scratch_intact(const void *scratch, size_t size)
{
    const uint8_t *b = scratch;
    for (size_t i = 0; i < GUARD; i++)
        if (*(b - 1 - i) != 0xa5 || b[size + i] != 0xa5)
            return false;
    return true;
}

/* ---- comparison ------------------------------------------------------------------------------ */

void fail(struct check *c, const char *what)
{
    if (c->n_fail++ < 40)
        printf("FAIL %s %s: %s\n", c->level, c->name, what);
}

bool same_floats(struct check *c, const float *a, const float *b, size_t n, const char *what)
{
    c->n_case++;
    for (size_t i = 0; i < n; i++) {
        if (f32_bits(a[i]) == f32_bits(b[i]) || (isnan(a[i]) && isnan(b[i])))
            continue;
        char text[256];
        snprintf(text, sizeof text, "%s: float %zu of %zu is %a, not %a", what, i, n, (double)b[i],
            (double)a[i]);
        fail(c, text);
        return false;
    }
    return true;
}

bool same_bytes(struct check *c, const void *a, const void *b, size_t n, const char *what)
{
    const uint8_t *x = a, *y = b;
    c->n_case++;
    for (size_t i = 0; i < n; i++) {
        if (x[i] == y[i])
            continue;
        char text[256];
        snprintf(text, sizeof text, "%s: byte %zu of %zu is %u, not %u", what, i, n, y[i], x[i]);
        fail(c, text);
        return false;
    }
    return true;
}

/* ---- speed ----------------------------------------------------------------------------------- */

/* Processor time: on a busy machine the clock on the wall measures the others. */
static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Seconds a run, of enough runs to take 2 ms. */
static double time_runs(const struct bench *b, const struct kernels *k)
{
    for (uint32_t n = 1;; n *= 2) {
        double begin = now();
        for (uint32_t i = 0; i < n; i++)
            b->run(k, b->arg);
        double t = now() - begin;
        if (t > 2e-3)
            return t / n;
    }
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void bench_print(struct check *c, const struct bench *b)
{
    double fast[9], ref[3];
    for (uint32_t i = 0; i < ARRAY_LEN(fast); i++) {
        fast[i] = time_runs(b, &c->fast);
        if (i < ARRAY_LEN(ref))
            ref[i] = time_runs(b, &c->ref);
    }
    qsort(fast, ARRAY_LEN(fast), sizeof *fast, by_value);
    qsort(ref, ARRAY_LEN(ref), sizeof *ref, by_value);
    double t = fast[ARRAY_LEN(fast) / 2];
    printf("%-7s %-16s %-26s", c->level, c->name, b->what);
    if (b->gop > 0)
        printf(" %8.2f GOP/s", b->gop / t);
    if (b->gb > 0)
        printf(" %8.2f GB/s", b->gb / t);
    printf("  x%.1f\n", ref[ARRAY_LEN(ref) / 2] / t);
    fflush(stdout);
}

/* ---- the run --------------------------------------------------------------------------------- */

/* A fault is a finding: name the kernel, then die of it. */
static void on_fault(int number)
{
    static const char head[] = "FAULT in ";
    (void)!write(1, head, sizeof head - 1);
    (void)!write(1, current->level, strlen(current->level));
    (void)!write(1, " ", 1);
    (void)!write(1, current->name, strlen(current->name));
    (void)!write(1, "\n", 1);
    signal(number, SIG_DFL);
    raise(number);
}

static uint32_t cpu_features(void)
{
    uint32_t f = 0;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
        __builtin_cpu_supports("bmi2"))
        f |= CPU_AVX2;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        f |= CPU_AVX512;
    if (__builtin_cpu_supports("avx512vnni"))
        f |= CPU_VNNI;
    if (__builtin_cpu_supports("avx512bf16"))
        f |= CPU_BF16;
#endif
    return f;
}

static const struct {
    const char *name;
    size_t at; /* of the function in struct kernels */
    void (*check)(struct check *c);
    void (*bench)(struct check *c);
} kernel[] = {
#define KERNEL(name, bench) { #name, offsetof(struct kernels, name), check_##name, bench }
    KERNEL(decode_row, bench_decode_row),
    KERNEL(matmul_f32, bench_matmul_f32),
    KERNEL(swiglu_f32, bench_swiglu_f32),
    KERNEL(matmul_q8, bench_matmul_q8),
    KERNEL(swiglu_q8, bench_swiglu_q8),
    KERNEL(quantize_q8, bench_quantize_q8),
    KERNEL(round_bf16, bench_round_bf16),
    KERNEL(matmul_bf16, bench_matmul_bf16),
    KERNEL(swiglu_bf16, bench_swiglu_bf16),
    KERNEL(rms_norm, bench_vectors),
    KERNEL(rope, bench_vectors),
    KERNEL(dot, bench_vectors),
    KERNEL(add, bench_vectors),
    KERNEL(axpy, bench_vectors),
    KERNEL(kv_store, bench_vectors),
    KERNEL(attention, bench_attention),
    KERNEL(attention_merge, bench_vectors),
#undef KERNEL
};

static const struct {
    const char *name;
    uint32_t needs;
} level[] = {
    { "avx2", CPU_AVX2 },
    { "avx512", CPU_AVX2 | CPU_AVX512 },
    { "vnni", CPU_AVX2 | CPU_AVX512 | CPU_VNNI },
    { "bf16", CPU_AVX2 | CPU_AVX512 | CPU_VNNI | CPU_BF16 },
};

struct options {
    bool bench;
    uint64_t seed;
    const char *level;
    const char *const *filter;
    int n_filter;
};

static bool wanted(const struct options *o, const char *name)
{
    for (int i = 0; i < o->n_filter; i++)
        if (strstr(name, o->filter[i]))
            return true;
    return o->n_filter == 0;
}

static bool same_function(const struct kernels *a, const struct kernels *b, size_t at)
{
    return memcmp((const char *)a + at, (const char *)b + at, sizeof(void (*)(void))) == 0;
}

/* Every function that this level brings. */
static void run_level(struct check *c, const struct options *o)
{
    for (uint32_t i = 0; i < ARRAY_LEN(kernel); i++) {
        if (!wanted(o, kernel[i].name) || same_function(&c->fast, &c->prior, kernel[i].at))
            continue;
        uint32_t n_case = c->n_case, n_fail = c->n_fail;
        c->name = kernel[i].name;
        c->random = o->seed * 1000003 + i;
        if (o->bench) {
            kernel[i].bench(c);
            continue;
        }
        kernel[i].check(c);
        printf("%-7s %-16s %6u cases%s\n", c->level, c->name, c->n_case - n_case,
            c->n_fail > n_fail ? "  FAILED" : "");
        fflush(stdout);
    }
}

static bool parse(int argc, char **argv, struct options *o)
{
    int i = 1;
    for (; i < argc && argv[i][0] == '-'; i++) {
        if (!strcmp(argv[i], "--bench"))
            o->bench = true;
        else if (!strcmp(argv[i], "--seed") && i + 1 < argc)
            o->seed = strtoull(argv[++i], NULL, 0);
        else if (!strcmp(argv[i], "--level") && i + 1 < argc)
            o->level = argv[++i];
        else
            return false;
    }
    o->filter = (const char *const *)argv + i;
    o->n_filter = argc - i;
    return true;
}

int main(int argc, char **argv)
{
    struct check c = { .level = "", .name = "" };
    struct options o = { .seed = 1 };
    if (!parse(argc, argv, &o)) {
        fprintf(stderr, "usage: checkasm [--bench] [--seed N] [--level LEVEL] [NAME...]\n");
        return 2;
    }
    current = &c;
    signal(SIGSEGV, on_fault);
    signal(SIGBUS, on_fault);
    signal(SIGILL, on_fault);

    uint32_t features = cpu_features();
    kernels_ref(&c.ref);
    c.prior = c.ref;
    for (uint32_t i = 0; i < ARRAY_LEN(level); i++) {
        if ((features & level[i].needs) != level[i].needs) {
            printf("%-7s not on this CPU\n", level[i].name);
            continue;
        }
        c.level = level[i].name;
        kernels_ref(&c.fast);
        kernels_x86(&c.fast, level[i].needs);
        if (!o.level || !strcmp(o.level, level[i].name))
            run_level(&c, &o);
        c.prior = c.fast;
    }
    if (!o.bench)
        printf("%u cases, %u failed (seed %llu)\n", c.n_case, c.n_fail, (unsigned long long)o.seed);
    return c.n_fail > 0;
}
