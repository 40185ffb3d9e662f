/* check_matmul.c: decoding of rows, and matrix multiplies and SwiGLU on float, Q8 and BF16
 * activations. */
#include "checkasm.h"

#include <stdio.h>

#define POISON 0x7fc0dead /* a NaN that no arithmetic gives */

static void poison(float *y, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = f32_from_bits(POISON);
}

/* ---- decode ---------------------------------------------------------------------------------- */

void check_decode_row(struct check *c)
{
    for (uint32_t format = W_F32; format < W_FORMAT_COUNT; format++) {
        for (uint32_t i = 0; i < 24; i++) {
            struct weight w;
            rand_weight(
                c, format, rand_in(c, 1, 20), rand_n_in(c, format, i < 8 ? 64 : 2000), i % 2, &w);
            float *a = case_alloc(c, w.n_in * sizeof *a, 64),
                  *b = case_alloc(c, w.n_in * sizeof *b, 4);
            uint32_t row = rand_below(c, w.n_out);
            poison(b, w.n_in);
            c->ref.decode_row(&w, row, a);
            c->fast.decode_row(&w, row, b);
            same_floats(c, a, b, w.n_in, format_name[format]);
            case_free(c);
        }
    }
}

/* ---- multiply -------------------------------------------------------------------------------- */

/* Forms of activations. */
enum form { FLOAT, Q8, BF16 };

static bool takes(enum form form, const struct weight *w)
{
    return form == FLOAT || (form == Q8 ? k_has_q8(w->format) : k_has_bf16(w));
}

static size_t row_bytes(enum form form, uint32_t n_in)
{
    return form == Q8 ? q8_row_bytes(n_in) : form == BF16 ? bf16_row_bytes(n_in) : n_in * sizeof(float);
}

static void make_row(const struct kernels *k, enum form form, const float *f, uint32_t n_in, void *row)
{
    if (form == Q8)
        k->quantize_q8(f, n_in, row);
    else if (form == BF16)
        k->round_bf16(f, n_in, row);
    else
        memcpy(row, f, n_in * sizeof *f);
}

static void multiply(const struct kernels *k, enum form form, const struct matmul *mm, uint32_t begin, uint32_t end,
    void *scratch)
{
    (form == Q8 ? k->matmul_q8 : form == BF16 ? k->matmul_bf16 : k->matmul_f32)(mm, begin, end, scratch);
}

static void swiglu(const struct kernels *k, enum form form, const struct swiglu *sg, uint32_t begin, uint32_t end,
    void *scratch)
{
    (form == Q8 ? k->swiglu_q8 : form == BF16 ? k->swiglu_bf16 : k->swiglu_f32)(sg, begin, end, scratch);
}

/* Activations: n rows of the multiply, out of more, through an index at times. BF16 rows have each table's own layout:
 * *other gets those of the fast kernels. */
static void rand_x(struct check *c, enum form form, uint32_t n, uint32_t n_in, struct rows *x, struct rows *other)
{
    uint32_t n_stored = n + rand_below(c, 4);
    size_t row = row_bytes(form, n_in);
    uint64_t stride = rand_below(c, 2) ? row : (row + 63) / 64 * 64 + 64 * rand_below(c, 3);
    if (form != FLOAT)
        stride = (stride + 63) & ~(uint64_t)63;
    size_t size = (n_stored - 1) * stride + row;
    char *data = case_alloc(c, size, form != FLOAT ? 64 : 4), *fast = data;
    float *f = case_alloc(c, n_in * sizeof *f, 4);
    if (form == BF16)
        fast = case_alloc(c, size, 64);
    for (uint32_t i = 0; i < n_stored; i++) {
        rand_rows(c, f, n_in);
        make_row(&c->ref, form, f, n_in, data + i * stride);
        if (form == BF16)
            make_row(&c->fast, form, f, n_in, fast + i * stride);
    }
    uint32_t *index = NULL;
    if (rand_below(c, 2)) {
        index = case_alloc(c, n * sizeof *index, 4);
        for (uint32_t i = 0; i < n; i++)
            index[i] = rand_below(c, n_stored);
    }
    *x = (struct rows){ .data = data, .stride = stride, .index = index, .n = n };
    *other = *x;
    other->data = fast;
}

/* One multiply (or SwiGLU, with a second matrix) by the reference in one call, by the fast kernel
 * in two. */
static void multiply_case(
    struct check *c, enum form form, const struct weight *w, const struct weight *up, uint32_t n_row)
{
    char what[128];
    uint64_t y_stride = w->n_out + rand_below(c, 3) * 5;
    size_t n_y = (n_row - 1) * y_stride + w->n_out, n_scratch = k_scratch_bytes(w->n_in);
    float *a = case_alloc(c, n_y * sizeof *a, 4), *b = case_alloc(c, n_y * sizeof *b, 4);
    float *bias = case_alloc(c, w->n_out * sizeof *bias, 4);
    void *scratch = scratch_alloc(c, n_scratch);
    uint32_t begin = rand_below(c, w->n_out), end = rand_in(c, begin, w->n_out), middle;
    struct matmul mm = { .w = w, .y_stride = y_stride };
    struct swiglu sg = { .gate = w, .up = up, .y_stride = y_stride };

    if (rand_below(c, 2)) {
        begin = 0;
        end = w->n_out;
    }
    middle = rand_below(c, 2) ? end : rand_in(c, begin, end);
    struct rows x, fast_x;
    rand_x(c, form, n_row, w->n_in, &x, &fast_x);
    mm.mode = rand_below(c, 2) ? MM_ADD : MM_STORE;
    for (uint32_t i = 0; i < w->n_out; i++)
        bias[i] = rand_float(c);
    if (mm.mode == MM_STORE && rand_below(c, 2))
        mm.bias = bias;
    for (size_t i = 0; i < n_y; i++)
        a[i] = mm.mode == MM_ADD && !up ? rand_float(c) : f32_from_bits(POISON);
    memcpy(b, a, n_y * sizeof *a);

    snprintf(what, sizeof what, "%s%s%s n_in %u n_out %u [%u,%u,%u) rows %u%s%s%s",
        format_name[w->format], up ? " " : "", up ? format_name[up->format] : "", w->n_in, w->n_out,
        begin, middle, end, n_row, mm.mode == MM_ADD ? " add" : "", mm.bias ? " bias" : "",
        x.index ? " index" : "");
    for (uint32_t part = 0; part < 3; part++) {
        const struct kernels *k = part == 0 ? &c->ref : &c->fast;
        uint32_t from = part == 2 ? middle : begin, to = part == 1 ? middle : end;
        mm.y = sg.y = part == 0 ? a : b;
        mm.x = sg.x = part == 0 ? x : fast_x;
        if (up)
            swiglu(k, form, &sg, from, to, scratch);
        else
            multiply(k, form, &mm, from, to, scratch);
    }
    same_floats(c, a, b, n_y, what);
    if (!scratch_intact(scratch, n_scratch))
        fail(c, what);
}

static bool form_has(enum form form, uint32_t format)
{
    return form == FLOAT || (form == Q8 ? k_has_q8(format) : format == W_BF16 || format == W_F8);
}

/* A weight that the form's multiply takes. */
static void rand_form_weight(struct check *c, enum form form, uint32_t format, uint32_t n_out, uint32_t n_in,
    bool hostile, struct weight *w)
{
    rand_weight(c, format, n_out, n_in, hostile, w);
    if (!takes(form, w)) {
        w->block_in = 128;
        if (!takes(form, w))
            fail(c, "no such weight");
    }
}

static void check_multiply(struct check *c, enum form form, bool swiglu)
{
    static const uint32_t row_choice[] = { 1, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16,
        17, 24, 31, 32, 33, 40, 43, 47 };
    for (uint32_t format = W_F32; format < W_FORMAT_COUNT; format++) {
        if (!form_has(form, format))
            continue;
        for (uint32_t i = 0; i < (form == BF16 ? 96 : 32); i++) {
            uint32_t n_row = row_choice[rand_below(c, sizeof row_choice / sizeof *row_choice)];
            uint32_t n_out = rand_in(c, 1, i < 12 ? 20 : 80);
            uint32_t n_in = rand_n_in(c, format, i < 12 ? 300 : n_row * n_out > 1000 ? 1024 : 4200);
            bool hostile = rand_below(c, 2);
            struct weight w, up;
            rand_form_weight(c, form, format, n_out, n_in, hostile, &w);
            if (swiglu) {
                /* up: the same format, or another one that has the same number of inputs */
                uint32_t other = rand_below(c, 3) ? format : form == Q8 ? (uint32_t)W_Q8_0 : (uint32_t)W_BF16;
                if (n_in % 32)
                    other = format;
                rand_form_weight(c, form, other, w.n_out, n_in, hostile, &up);
                up.n_out = w.n_out;
            }
            multiply_case(c, form, &w, swiglu ? &up : NULL, n_row);
            case_free(c);
        }
    }
}

void check_matmul_f32(struct check *c) { check_multiply(c, FLOAT, false); }
void check_swiglu_f32(struct check *c) { check_multiply(c, FLOAT, true); }
void check_matmul_q8(struct check *c) { check_multiply(c, Q8, false); }
void check_swiglu_q8(struct check *c) { check_multiply(c, Q8, true); }
void check_matmul_bf16(struct check *c) { check_multiply(c, BF16, false); }
void check_swiglu_bf16(struct check *c) { check_multiply(c, BF16, true); }

void check_quantize_q8(struct check *c)
{
    for (uint32_t i = 0; i < 400; i++) {
        uint32_t n_in = 32 * rand_in(c, 1, 70), n_scale = n_in / 32;
        size_t bytes = q8_sum_at(n_in) + n_in / 16 * sizeof(int32_t);
        float *x = case_alloc(c, n_in * sizeof *x, 4);
        char *a = case_alloc(c, bytes, 4), *b = case_alloc(c, bytes, 4);
        rand_rows(c, x, n_in);
        if (i % 3 == 0) /* halves, which must round to even */
            for (uint32_t j = 0; j < n_in; j++)
                x[j] = j % 32 == 7 ? 127.0f : (float)(int32_t)rand_in(c, 0, 252) * 0.5f - 63.0f;
        memset(a, 0xa5, bytes);
        memset(b, 0xa5, bytes);
        c->ref.quantize_q8(x, n_in, a);
        c->fast.quantize_q8(x, n_in, b);
        same_floats(c, (float *)(void *)(a + q8_scale_at(n_in)),
            (float *)(void *)(b + q8_scale_at(n_in)), n_scale, "scales");
        memset(a + q8_scale_at(n_in), 0, n_scale * sizeof(float));
        memset(b + q8_scale_at(n_in), 0, n_scale * sizeof(float));
        same_bytes(c, a, b, bytes, "quants and sums");
        case_free(c);
    }
}

/* ---- speed ----------------------------------------------------------------------------------- */

struct multiply_bench {
    enum form form;
    struct matmul mm;
    struct swiglu sg; /* gate NULL: the matmul */
    uint32_t n_out;
    void *scratch;
    const void *x, *ref_x; /* rows in the layouts of the fast table and of the reference */
    void (*ref_matmul)(const struct matmul *mm, uint32_t out_begin, uint32_t out_end, void *scratch);
};

static void run_multiply(const struct kernels *k, void *arg)
{
    struct multiply_bench *b = arg;
    if (b->form == BF16) /* in the layout of the table's own rows */
        b->mm.x.data = b->sg.x.data = k->matmul_bf16 == b->ref_matmul ? b->ref_x : b->x;
    if (b->sg.gate)
        swiglu(k, b->form, &b->sg, 0, b->n_out, b->scratch);
    else
        multiply(k, b->form, &b->mm, 0, b->n_out, b->scratch);
}

/* What files usually have: FP8 with one scale an output, int4 in the order of its groups. */
static void usual_weight(
    struct check *c, uint32_t format, uint32_t n_out, uint32_t n_in, struct weight *w)
{
    rand_weight(c, format, n_out, n_in, false, w);
    w->group = NULL;
    if (format != W_F8)
        return;
    float *scale = case_alloc(c, n_out * sizeof *scale, 4);
    for (uint32_t i = 0; i < n_out; i++)
        scale[i] = 0.001f;
    w->scale = scale;
    w->scale_format = W_F32;
    w->scale_row_bytes = sizeof *scale;
    w->block_out = 1;
    w->block_in = n_in;
    uint8_t *b = case_alloc(c, (size_t)n_out * n_in, 64);
    rand_bytes(c, b, (size_t)n_out * n_in);
    for (size_t i = 0; i < (size_t)n_out * n_in; i++)
        b[i] = (uint8_t)((b[i] & 0x87u) | (5u + (b[i] >> 3) % 9u)
                                              << 3); /* 2^-2 .. 2^6, as of a normal distribution */
    w->data = b;
    w->row_bytes = n_in;
}

static void bench_rows(struct check *c, uint32_t format, enum form form, bool swiglu, uint32_t n_row,
    uint32_t n_out, uint32_t n_in)
{
    struct weight w, up;
    char what[64];
    usual_weight(c, format, n_out, n_in, &w);
    usual_weight(c, format, n_out, n_in, &up);
    struct multiply_bench b = {
        .form = form, .n_out = n_out, .scratch = scratch_alloc(c, k_scratch_bytes(n_in))
    };
    size_t stride = row_bytes(form, n_in);
    char *x = case_alloc(c, n_row * stride, 64), *ref_x = case_alloc(c, n_row * stride, 64);
    float *f = case_alloc(c, n_in * sizeof *f, 64),
          *y = case_alloc(c, (size_t)n_row * n_out * sizeof *y, 64);
    for (uint32_t i = 0; i < n_row; i++) {
        for (uint32_t j = 0; j < n_in; j++)
            f[j] = rand_float(c);
        make_row(&c->fast, form, f, n_in, x + i * stride);
        make_row(&c->ref, form, f, n_in, ref_x + i * stride);
    }
    b.x = x;
    b.ref_x = ref_x;
    b.ref_matmul = c->ref.matmul_bf16;
    b.mm = (struct matmul){
        .w = &w, .x = { .data = x, .stride = stride, .n = n_row }, .y = y, .y_stride = n_out
    };
    if (swiglu)
        b.sg = (struct swiglu){ .gate = &w, .up = &up, .x = b.mm.x, .y = y, .y_stride = n_out };
    double scale = swiglu ? 2 : 1;
    snprintf(what, sizeof what, "%s [%u,%u] x%u", format_name[format], n_out, n_in, n_row);
    bench_print(c, &(struct bench){ .what = what,
                       .gop = 2e-9 * scale * n_row * n_out * n_in,
                       .gb = n_row <= 4 ? 1e-9 * scale * (double)weight_bytes(&w) : 0,
                       .run = run_multiply,
                       .arg = &b });
    case_free(c);
}

static void bench_multiply(struct check *c, enum form form, bool swiglu)
{
    for (uint32_t format = W_F32; format < W_FORMAT_COUNT; format++) {
        if (!form_has(form, format))
            continue;
        bench_rows(c, format, form, swiglu, 1, swiglu ? 704 : 1408, 4096);
        bench_rows(c, format, form, swiglu, 4, 352, 4096);
        bench_rows(c, format, form, swiglu, 32, 128, 4096);
    }
}

void bench_matmul_f32(struct check *c) { bench_multiply(c, FLOAT, false); }
void bench_swiglu_f32(struct check *c) { bench_multiply(c, FLOAT, true); }
void bench_matmul_q8(struct check *c) { bench_multiply(c, Q8, false); }
void bench_swiglu_q8(struct check *c) { bench_multiply(c, Q8, true); }
void bench_matmul_bf16(struct check *c) { bench_multiply(c, BF16, false); }
void bench_swiglu_bf16(struct check *c) { bench_multiply(c, BF16, true); }

static void run_decode(const struct kernels *k, void *arg)
{
    struct multiply_bench *b = arg;
    for (uint32_t i = 0; i < b->n_out; i++)
        k->decode_row(b->mm.w, i, b->scratch);
}

void bench_decode_row(struct check *c)
{
    for (uint32_t format = W_F32; format < W_FORMAT_COUNT; format++) {
        struct weight w;
        usual_weight(c, format, 16, 4096, &w);
        struct multiply_bench b = {
            .mm = { .w = &w }, .n_out = 16, .scratch = case_alloc(c, 4096 * sizeof(float), 64)
        };
        bench_print(c, &(struct bench){ .what = format_name[format],
                           .gop = 1e-9 * 16 * 4096,
                           .run = run_decode,
                           .arg = &b });
        case_free(c);
    }
}

static void run_quantize(const struct kernels *k, void *arg)
{
    struct multiply_bench *b = arg;
    k->quantize_q8(b->mm.x.data, 4096, b->scratch);
}

void bench_quantize_q8(struct check *c)
{
    float *x = case_alloc(c, 4096 * sizeof *x, 64);
    for (uint32_t i = 0; i < 4096; i++)
        x[i] = rand_float(c);
    struct multiply_bench b = { .mm = { .x = { .data = x } },
        .scratch = case_alloc(c, q8_row_bytes(4096), 64) };
    bench_print(
        c, &(struct bench){
               .what = "4096", .gop = 4096e-9, .gb = 4 * 4096e-9, .run = run_quantize, .arg = &b });
    case_free(c);
}

/* Each table has its own layout: rows are compared through a multiply by the weights 1 of a unit matrix. */
void check_round_bf16(struct check *c)
{
    for (uint32_t i = 0; i < 100; i++) {
        uint32_t n_in = rand_in(c, 1, i < 50 ? 70 : 300);
        float *x = case_alloc(c, n_in * sizeof *x, 4), *a = case_alloc(c, n_in * sizeof *a, 4),
              *b = case_alloc(c, n_in * sizeof *b, 4);
        uint16_t *unit = case_alloc(c, (size_t)n_in * n_in * sizeof *unit, 2);
        void *row = case_alloc(c, bf16_row_bytes(n_in), 64), *scratch = scratch_alloc(c, k_scratch_bytes(n_in));
        struct weight w = { .format = W_BF16, .n_out = n_in, .n_in = n_in, .data = unit, .row_bytes = 2 * (uint64_t)n_in };
        struct matmul mm = { .w = &w, .x = { .data = row, .stride = bf16_row_bytes(n_in), .n = 1 }, .y_stride = n_in };
        memset(unit, 0, (size_t)n_in * n_in * sizeof *unit);
        for (uint32_t j = 0; j < n_in; j++)
            unit[(size_t)j * n_in + j] = 0x3f80;
        rand_rows(c, x, n_in);
        for (uint32_t j = 0; j < n_in; j += 3) /* halfway between two bfloat16 */
            x[j] = f32_from_bits((f32_bits(x[j]) & 0xffff0000u) | 0x8000u);
        for (uint32_t fast = 0; fast < 2; fast++) {
            const struct kernels *k = fast ? &c->fast : &c->ref;
            mm.y = fast ? b : a;
            memset(row, 0xa5, bf16_row_bytes(n_in));
            k->round_bf16(x, n_in, row);
            k->matmul_bf16(&mm, 0, n_in, scratch);
        }
        same_floats(c, a, b, n_in, "rounded");
        case_free(c);
    }
}

static void run_round(const struct kernels *k, void *arg)
{
    struct multiply_bench *b = arg;
    k->round_bf16(b->mm.x.data, 4096, b->scratch);
}

void bench_round_bf16(struct check *c)
{
    float *x = case_alloc(c, 4096 * sizeof *x, 64);
    for (uint32_t i = 0; i < 4096; i++)
        x[i] = rand_float(c);
    struct multiply_bench b = { .mm = { .x = { .data = x } }, .scratch = case_alloc(c, bf16_row_bytes(4096), 64) };
    bench_print(c,
        &(struct bench){ .what = "4096", .gop = 4096e-9, .gb = 4 * 4096e-9, .run = run_round, .arg = &b });
    case_free(c);
}
