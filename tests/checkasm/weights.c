/* weights.c: valid random weights of every format, some of them hostile: scales of any finite size,
 * subnormal or zero, quants at the ends of their range.
 */
#include "checkasm.h"

const char *const format_name[W_FORMAT_COUNT] = {
    "none", "F32", "F16", "BF16", "F8", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "IQ4_NL", "MXFP4",
    "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS", "I4_PACKED", "I4_AWQ", "I4_GPTQ",
};

/* Where the float16 fields of a block are; 0xff: none. */
static const uint8_t half_at[W_FORMAT_COUNT][2] = {
    [W_Q8_0] = { 0, 0xff },
    [W_Q4_0] = { 0, 0xff },
    [W_Q4_1] = { 0, 2 },
    [W_Q5_0] = { 0, 0xff },
    [W_Q5_1] = { 0, 2 },
    [W_IQ4_NL] = { 0, 0xff },
    [W_MXFP4] = { 0xff, 0xff },
    [W_Q2_K] = { 80, 82 },
    [W_Q3_K] = { 108, 0xff },
    [W_Q4_K] = { 0, 2 },
    [W_Q5_K] = { 0, 2 },
    [W_Q6_K] = { 208, 0xff },
    [W_IQ4_XS] = { 0, 0xff },
};

uint32_t rand_n_in(struct check *c, uint32_t format, uint32_t limit)
{
    uint32_t step = weight_block(format).n;
    if (step == 0)
        step = 8;
    return step * rand_in(c, 1, limit / step > 0 ? limit / step : 1);
}

/* A float16 scale. */
static uint16_t rand_half(struct check *c, bool hostile)
{
    uint16_t h = (uint16_t)rand_u64(c);
    switch (hostile ? rand_below(c, 6) : 5) {
    case 0: return h & 0x8000u;                                             /* zero */
    case 1: return h & 0x83ffu;                                             /* subnormal */
    case 2: return (h & 0x7c00u) == 0x7c00u ? h & 0xbfffu : h;              /* any finite one */
    default: return (uint16_t)((h & 0x83ffu) | (rand_in(c, 5, 11) << 10));  /* 2^-10 to 2^-4 */
    }
}

static void rand_blocks(
    struct check *c, uint32_t format, uint8_t *row, uint32_t n_block, uint32_t bytes, bool hostile)
{
    for (uint32_t i = 0; i < n_block; i++, row += bytes) {
        uint32_t style = hostile ? rand_below(c, 8) : 7;
        if (style < 3)
            memset(row, style == 0 ? 0x80 : style == 1 ? 0x00 : 0xff, bytes);
        for (uint32_t j = 0; j < 2; j++) {
            uint16_t h = rand_half(c, hostile);
            if (half_at[format][j] != 0xff)
                memcpy(row + half_at[format][j], &h, 2);
        }
        if (format == W_MXFP4)
            row[0] = (uint8_t)(hostile ? rand_below(c, 255) : rand_in(c, 118, 124));
    }
}

/* n scales of a format at `to`. */
static void rand_scales(struct check *c, uint32_t format, void *to, size_t n, bool hostile)
{
    uint8_t *at = to;
    for (size_t i = 0; i < n; i++) {
        float f = f32_from_f16(rand_half(c, hostile));
        uint16_t half = format == W_F16 ? f16_from_f32(f) : bf16_from_f32(f);
        if (format == W_F32)
            memcpy(at + 4 * i, &f, 4);
        else
            memcpy(at + 2 * i, &half, 2);
    }
}

static void rand_plain(struct check *c, struct weight *w, uint8_t *row, bool hostile)
{
    for (uint32_t i = 0; i < w->n_in; i++) {
        float f = rand_float(c) * 0.05f;
        if (hostile && rand_below(c, 64) == 0)
            f = rand_below(c, 2) ? 0.0f : f * 0x1p-125f;
        uint16_t half = w->format == W_F16 ? f16_from_f32(f) : bf16_from_f32(f);
        if (w->format == W_F32)
            memcpy(row + 4 * (size_t)i, &f, 4);
        else if (w->format == W_F8)
            row[i] =
                (row[i] & 0x7fu) == 0x7fu && !(hostile && rand_below(c, 50) == 0) ? 0x80 : row[i];
        else
            memcpy(row + 2 * (size_t)i, &half, 2);
    }
}

static void rand_f8_scales(struct check *c, struct weight *w, bool hostile)
{
    bool per_channel = rand_below(c, 2);
    w->block_out = per_channel ? 1 : rand_below(c, 2) ? 128 : 16;
    w->block_in = per_channel ? w->n_in : rand_below(c, 3) ? 128 : 48;
    w->scale_format = W_F32 + rand_below(c, 3);
    uint32_t n_row = (w->n_out + w->block_out - 1) / w->block_out,
             n_col = (w->n_in + w->block_in - 1) / w->block_in;
    size_t element = w->scale_format == W_F32 ? 4 : 2;
    w->scale_row_bytes = n_col * element;
    void *scale = case_alloc(c, n_row * w->scale_row_bytes, 1);
    rand_scales(c, w->scale_format, scale, (size_t)n_row * n_col, hostile);
    w->scale = scale;
}

/* Scales, zero points and groups of an int4 matrix; packed along outputs except for
 * compressed-tensors. */
static void rand_i4_groups(struct check *c, struct weight *w, bool hostile)
{
    bool packed = w->format == W_I4_PACKED;
    w->block_in = 32u << rand_below(c, 3);
    uint32_t n_group = (w->n_in + w->block_in - 1) / w->block_in;
    w->scale_format = packed ? (uint32_t)W_BF16 : (uint32_t)W_F16;
    size_t n_scale = (size_t)n_group * w->n_out;
    void *scale = case_alloc(c, 2 * n_scale, 1);
    rand_scales(c, w->scale_format, scale, n_scale, hostile);
    w->scale = scale;
    w->scale_row_bytes = 2 * (uint64_t)(packed ? n_group : w->n_out);
    if (rand_below(c, 3)) {
        uint32_t n_word = (w->n_out + 7) / 8;
        void *zero = case_alloc(c, 4 * (size_t)n_word * n_group, 1);
        rand_bytes(c, zero, 4 * (size_t)n_word * n_group);
        w->zero = zero;
        w->zero_row_bytes = 4 * (uint64_t)(packed ? n_group : n_word);
    }
    if (w->format != W_I4_AWQ && rand_below(c, 2)) {
        int32_t *group = case_alloc(c, w->n_in * sizeof *group, 64);
        for (uint32_t i = 0; i < w->n_in; i++)
            group[i] = (int32_t)rand_below(c, n_group);
        w->group = group;
    }
}

void rand_weight(
    struct check *c, uint32_t format, uint32_t n_out, uint32_t n_in, bool hostile, struct weight *w)
{
    struct weight_block size = weight_block(format);
    *w = (struct weight){ .format = format, .n_out = n_out, .n_in = n_in };
    uint32_t n_row = n_out;
    if (format == W_I4_AWQ || format == W_I4_GPTQ) {
        w->n_out = (n_out + 7) & ~7u;
        n_row = format == W_I4_AWQ ? n_in : n_in / 8;
        w->row_bytes = format == W_I4_AWQ ? w->n_out / 8 * 4 : w->n_out * 4;
    } else {
        w->row_bytes = format == W_I4_PACKED ? n_in / 2 : (uint64_t)n_in / size.n * size.bytes;
    }
    uint64_t packed = w->row_bytes;
    if (rand_below(c, 4) == 0 && size.n > 0)
        w->row_bytes += rand_below(c, 40);
    uint8_t *data = case_alloc(c, (size_t)((n_row - 1) * w->row_bytes + packed), 1);
    rand_bytes(c, data, (size_t)((n_row - 1) * w->row_bytes + packed));
    w->data = data;
    for (uint32_t r = 0; r < n_row; r++) {
        if (format <= W_F8)
            rand_plain(c, w, data + r * w->row_bytes, hostile);
        else if (size.n > 1)
            rand_blocks(c, format, data + r * w->row_bytes, n_in / size.n, size.bytes, hostile);
    }
    if (format == W_F8)
        rand_f8_scales(c, w, hostile);
    if (format >= W_I4_PACKED)
        rand_i4_groups(c, w, hostile);
}

uint64_t weight_bytes(const struct weight *w)
{
    uint32_t n_row = w->format == W_I4_AWQ    ? w->n_in
                     : w->format == W_I4_GPTQ ? w->n_in / 8
                                              : w->n_out;
    return n_row * w->row_bytes;
}
