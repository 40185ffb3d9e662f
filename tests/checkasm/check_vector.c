/* check_vector.c: norms, rotations, dot products and sums of vectors. */
#include "checkasm.h"

#include <stdio.h>

/* A vector that ends at the end of accessible memory. */
static float *rand_vector(struct check *c, uint32_t n)
{
    float *x = case_alloc(c, n * sizeof *x, 4);
    rand_rows(c, x, n);
    return x;
}

static float *copy_vector(struct check *c, const float *x, uint32_t n)
{
    float *y = case_alloc(c, n * sizeof *y, 4);
    return memcpy(y, x, n * sizeof *y);
}

static uint32_t rand_length(struct check *c, uint32_t i)
{
    return rand_in(c, 1, i % 2 ? 70 : 3000);
}

void check_rms_norm(struct check *c)
{
    for (uint32_t i = 0; i < 200; i++) {
        uint32_t n = rand_length(c, i);
        float *x = rand_vector(c, n), *w = rand_vector(c, n), *a = copy_vector(c, x, n),
              *b = copy_vector(c, x, n);
        c->ref.rms_norm(x, w, n, 1e-5f, a);
        c->fast.rms_norm(x, w, n, 1e-5f, b);
        same_floats(c, a, b, n, "out of place");
        memcpy(b, x, n * sizeof *b);
        c->fast.rms_norm(b, w, n, 1e-5f, b);
        same_floats(c, a, b, n, "in place");
        case_free(c);
    }
}

void check_rope(struct check *c)
{
    for (uint32_t i = 0; i < 200; i++) {
        uint32_t half = rand_in(c, 1, 70);
        float *a = rand_vector(c, 2 * half), *b = copy_vector(c, a, 2 * half);
        float *cosine = rand_vector(c, half), *sine = rand_vector(c, half);
        c->ref.rope(a, 2 * half, cosine, sine);
        c->fast.rope(b, 2 * half, cosine, sine);
        same_floats(c, a, b, 2 * half, "head");
        case_free(c);
    }
}

void check_dot(struct check *c)
{
    for (uint32_t i = 0; i < 400; i++) {
        uint32_t n = i < 66 ? i : rand_length(c, i);
        float *x = rand_vector(c, n + !n), *y = rand_vector(c, n + !n);
        if (i % 7 == 0) /* sums that underflow to zeros of either sign */
            for (uint32_t j = 0; j < n; j++)
                y[j] *= 0x1p-149f;
        if (i % 7 == 1) { /* every chain underflows to -0 */
            for (uint32_t j = 0; j < n; j++) {
                x[j] = -0x1p-80f;
                y[j] = 0x1p-80f;
            }
        }
        float a = c->ref.dot(x, y, n), b = c->fast.dot(x, y, n);
        char what[32];
        snprintf(what, sizeof what, "n %u", n);
        same_floats(c, &a, &b, 1, what);
        case_free(c);
    }
}

void check_add(struct check *c)
{
    for (uint32_t i = 0; i < 200; i++) {
        uint32_t n = rand_length(c, i);
        float *x = rand_vector(c, n), *a = rand_vector(c, n), *b = copy_vector(c, a, n);
        c->ref.add(a, x, n);
        c->fast.add(b, x, n);
        same_floats(c, a, b, n, "y");
        case_free(c);
    }
}

void check_axpy(struct check *c)
{
    for (uint32_t i = 0; i < 200; i++) {
        uint32_t n = rand_length(c, i);
        float *x = rand_vector(c, n), *a = rand_vector(c, n), *b = copy_vector(c, a, n),
              f = rand_float(c);
        c->ref.axpy(a, f, x, n);
        c->fast.axpy(b, f, x, n);
        same_floats(c, a, b, n, "y");
        case_free(c);
    }
}

/* ---- speed: one row of 4096, or heads of 128 ------------------------------------------------- */

struct vector_bench {
    float *x, *w, *y, *page;
};

static void run_rms_norm(const struct kernels *k, void *arg)
{
    struct vector_bench *b = arg;
    k->rms_norm(b->x, b->w, 4096, 1e-5f, b->y);
}

static void run_rope(const struct kernels *k, void *arg)
{
    struct vector_bench *b = arg;
    k->rope(b->y, 64, b->x, b->w);
}

static void run_dot(const struct kernels *k, void *arg)
{
    struct vector_bench *b = arg;
    b->y[0] = k->dot(b->x, b->w, 4096);
}

static void run_add(const struct kernels *k, void *arg)
{
    struct vector_bench *b = arg;
    k->add(b->y, b->x, 4096);
}

static void run_axpy(const struct kernels *k, void *arg)
{
    struct vector_bench *b = arg;
    k->axpy(b->y, 0.0f, b->x, 4096);
}

static void run_kv_store(const struct kernels *k, void *arg)
{
    struct vector_bench *b = arg;
    k->kv_store(KV_BF16, 128, b->x, b->w, 5, b->page);
}

static void run_merge(const struct kernels *k, void *arg)
{
    struct vector_bench *b = arg;
    k->attention_merge(b->x, 8, 130, 128, b->y);
}

void bench_vectors(struct check *c)
{
    struct vector_bench b = { .x = case_alloc(c, 16384, 64),
        .w = case_alloc(c, 16384, 64),
        .y = case_alloc(c, 16384, 64),
        .page = case_alloc(c, kv_head_bytes(KV_F32, 128), 64) };
    for (uint32_t i = 0; i < 4096; i++) {
        b.x[i] = rand_float(c);
        b.w[i] = rand_float(c);
        b.y[i] = rand_float(c);
    }
    const struct {
        const char *name;
        struct bench bench;
    } all[] = {
        { "rms_norm", { "4096", 4 * 4096e-9, 0, run_rms_norm, &b } },
        { "rope", { "64", 6 * 32e-9, 0, run_rope, &b } },
        { "dot", { "4096", 2 * 4096e-9, 0, run_dot, &b } },
        { "add", { "4096", 4096e-9, 0, run_add, &b } },
        { "axpy", { "4096", 2 * 4096e-9, 0, run_axpy, &b } },
        { "kv_store", { "bf16 128", 0, 4 * 256e-9, run_kv_store, &b } },
        { "attention_merge", { "8 parts of 128", 2 * 8 * 128e-9, 0, run_merge, &b } },
    };
    for (uint32_t i = 0; i < sizeof all / sizeof *all; i++)
        if (!strcmp(all[i].name, c->name))
            bench_print(c, &all[i].bench);
    case_free(c);
}
