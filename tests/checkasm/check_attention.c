/* check_attention.c: keys and values into pages, attention over pages, the merge of partial
 * results. */
#include "checkasm.h"

#include <math.h>
#include <stdio.h>

static const char *const kv_name[] = { "", "f32", "bf16", "int8", "f8" };

void check_kv_store(struct check *c)
{
    for (uint32_t i = 0; i < 400; i++) {
        uint32_t type = rand_in(c, KV_F32, KV_F8), d_head = i % 3 ? 128 : rand_in(c, 1, 70);
        size_t bytes = kv_head_bytes(type, d_head);
        float *k = case_alloc(c, d_head * sizeof *k, 4), *v = case_alloc(c, d_head * sizeof *v, 4);
        char *a = case_alloc(c, bytes, 64), *b = case_alloc(c, bytes, 64);
        rand_rows(c, k, d_head);
        rand_rows(c, v, d_head);
        memset(a, 0x33, bytes);
        memset(b, 0x33, bytes);
        uint32_t slot = rand_below(c, KV_PAGE);
        c->ref.kv_store(type, d_head, k, v, slot, a);
        c->fast.kv_store(type, d_head, k, v, slot, b);
        size_t plane = 2 * (size_t)KV_PAGE * d_head * kv_elem_bytes(type);
        if (type == KV_F32) {
            same_floats(c, (float *)(void *)a, (float *)(void *)b, plane / 4, kv_name[type]);
        } else {
            same_bytes(c, a, b, plane, kv_name[type]);
            same_floats(c, (float *)(void *)(a + plane), (float *)(void *)(b + plane),
                (bytes - plane) / 4, "scales");
        }
        case_free(c);
    }
}

/* TINY: every score underflows to -0. SMALL: products and sums lie about the smallest normal number. */
enum { ORDINARY, HOSTILE, TINY, SMALL };

static const void **rand_pages(
    struct check *c, uint32_t type, uint32_t d_head, uint32_t n_page, uint32_t style)
{
    const void **page = case_alloc(c, n_page * sizeof *page, 64);
    float *k = case_alloc(c, d_head * sizeof *k, 64), *v = case_alloc(c, d_head * sizeof *v, 64);
    for (uint32_t i = 0; i < n_page; i++) {
        void *head = case_alloc(c, kv_head_bytes(type, d_head), 64);
        memset(head, 0, kv_head_bytes(type, d_head));
        for (uint32_t slot = 0; slot < KV_PAGE; slot++) {
            for (uint32_t j = 0; j < d_head; j++) {
                k[j] = rand_float(c);
                v[j] = rand_float(c);
            }
            if (style == HOSTILE) {
                rand_rows(c, k, d_head);
                rand_rows(c, v, d_head);
            }
            for (uint32_t j = 0; j < d_head && style == TINY; j++)
                k[j] = 0x1p-80f;
            for (uint32_t j = 0; j < d_head && style == SMALL; j++) {
                k[j] *= 0x1p-62f;
                v[j] *= 0x1p-124f;
            }
            c->ref.kv_store(type, d_head, k, v, slot, head);
        }
        page[i] = head;
    }
    return page;
}

static struct attention rand_attention(struct check *c, uint32_t style)
{
    static const uint32_t head_choice[] = { 128, 128, 64, 32, 16, 80, 24, 7 };
    struct attention a = { .kv_type = rand_in(c, KV_F32, KV_F8),
        .d_head = head_choice[rand_below(c, 8)] };
    uint32_t n_page = rand_in(c, 1, 5);
    a.n_q = rand_below(c, 2) ? 12 : rand_in(c, 1, 9);
    a.n_row = rand_below(c, 2) ? 1 : rand_in(c, 1, 20);
    a.scale = 1.0f / sqrtf((float)a.d_head);
    a.pos_begin = rand_below(c, n_page) * KV_PAGE;
    a.pos_end = rand_in(c, a.pos_begin, n_page * KV_PAGE);
    uint32_t *pos = case_alloc(c, a.n_row * sizeof *pos, 4);
    uint32_t first = rand_below(c, n_page * KV_PAGE);
    for (uint32_t r = 0; r < a.n_row; r++)
        pos[r] = rand_below(c, 8) ? first + r : rand_below(c, n_page * KV_PAGE);
    a.pos = pos;
    a.q_stride = (uint64_t)a.n_q * a.d_head + rand_below(c, 3) * 3;
    float *q = case_alloc(c, ((a.n_row - 1) * a.q_stride + a.n_q * a.d_head) * sizeof *q, 4);
    for (uint64_t i = 0; i < (a.n_row - 1) * a.q_stride + a.n_q * a.d_head; i++)
        q[i] = style == TINY ? -0x1p-80f : rand_float(c) * (style == HOSTILE ? 8.0f : 2.0f);
    for (uint64_t i = 0; i < (uint64_t)a.n_q * a.d_head && style == SMALL; i++)
        q[i] = rand_float(c) * 0x1p-63f;
    if (style == HOSTILE)
        rand_rows(c, q, a.d_head);
    a.q = q;
    a.page = rand_pages(c, a.kv_type, a.d_head, n_page,
        style == HOSTILE && rand_below(c, 2) ? (uint32_t)ORDINARY : style);
    return a;
}

void check_attention(struct check *c)
{
    for (uint32_t i = 0; i < 300; i++) {
        struct attention a = rand_attention(c, i % 11 == 10 ? TINY
                                               : i % 11 == 9 ? SMALL
                                               : i % 3 == 0 ? HOSTILE
                                                            : ORDINARY);
        size_t n = (size_t)a.n_row * a.n_q * (a.d_head + 2),
               n_scratch = k_attention_scratch_bytes(a.d_head, a.n_q);
        float *x = case_alloc(c, n * sizeof *x, 4), *y = case_alloc(c, n * sizeof *y, 4);
        void *scratch = scratch_alloc(c, n_scratch);
        char what[128];
        memset(x, 0xa5, n * sizeof *x);
        memset(y, 0xa5, n * sizeof *y);
        a.out = x;
        c->ref.attention(&a, scratch);
        a.out = y;
        c->fast.attention(&a, scratch);
        snprintf(what, sizeof what, "%s d_head %u n_q %u rows %u [%u,%u) first %u",
            kv_name[a.kv_type], a.d_head, a.n_q, a.n_row, a.pos_begin, a.pos_end, a.pos[0]);
        same_floats(c, x, y, n, what);
        if (!scratch_intact(scratch, n_scratch))
            fail(c, "scratch");
        case_free(c);
    }
}

void check_attention_merge(struct check *c)
{
    for (uint32_t i = 0; i < 200; i++) {
        uint32_t d_head = i % 2 ? 128 : rand_in(c, 1, 70), n_part = rand_in(c, 1, 12);
        uint64_t stride = d_head + 2 + rand_below(c, 2) * 64;
        size_t n = (n_part - 1) * stride + d_head + 2;
        float *part = case_alloc(c, n * sizeof *part, 4);
        float *a = case_alloc(c, d_head * sizeof *a, 4), *b = case_alloc(c, d_head * sizeof *b, 4);
        rand_rows(c, part, (uint32_t)n);
        for (uint32_t p = 0; p < n_part; p++) {
            float *l = part + p * stride + d_head;
            l[0] = fabsf(rand_float(c)) + 1e-3f;
            l[1] = rand_float(c) * 20;
            if (rand_below(c, 4) == 0) { /* a part without positions */
                memset(part + p * stride, 0, (d_head + 1) * sizeof *part);
                l[1] = -INFINITY;
            }
        }
        c->ref.attention_merge(part, n_part, stride, d_head, a);
        c->fast.attention_merge(part, n_part, stride, d_head, b);
        same_floats(c, a, b, d_head, "y");
        case_free(c);
    }
}

/* ---- speed: one KV head of the family's shape, 1024 positions -------------------------------- */

struct attention_bench {
    struct attention a;
    void *scratch;
};

static void run_attention(const struct kernels *k, void *arg)
{
    struct attention_bench *b = arg;
    k->attention(&b->a, b->scratch);
}

void bench_attention(struct check *c)
{
    static const uint32_t row_choice[] = { 1, 16 };
    enum { D_HEAD = 128, N_Q = 12, N_PAGE = 16 };
    for (uint32_t i = 0; i < 8; i++) {
        uint32_t type = KV_F32 + i % 4, n_row = row_choice[i / 4], n_pos = N_PAGE * KV_PAGE;
        struct attention_bench b = { .scratch =
                                         scratch_alloc(c, k_attention_scratch_bytes(D_HEAD, N_Q)) };
        float *q = case_alloc(c, n_row * N_Q * D_HEAD * sizeof *q, 64);
        uint32_t *pos = case_alloc(c, n_row * sizeof *pos, 64);
        char what[64];
        for (uint32_t j = 0; j < n_row * N_Q * D_HEAD; j++)
            q[j] = rand_float(c);
        for (uint32_t r = 0; r < n_row; r++)
            pos[r] = n_pos - 1;
        b.a = (struct attention){ .kv_type = type,
            .d_head = D_HEAD,
            .n_q = N_Q,
            .n_row = n_row,
            .scale = 0.0883883f,
            .q = q,
            .q_stride = N_Q * D_HEAD,
            .pos = pos,
            .page = rand_pages(c, type, D_HEAD, N_PAGE, ORDINARY),
            .pos_end = n_pos,
            .out = case_alloc(c, n_row * N_Q * (D_HEAD + 2) * sizeof(float), 64) };
        snprintf(what, sizeof what, "%s rows %u", kv_name[type], n_row);
        bench_print(c, &(struct bench){ .what = what,
                           .gop = 4e-9 * n_row * N_Q * D_HEAD * n_pos,
                           .gb = 1e-9 * N_PAGE * (double)kv_head_bytes(type, D_HEAD),
                           .run = run_attention,
                           .arg = &b });
        case_free(c);
    }
}
