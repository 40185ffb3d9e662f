/* bf16.c: matrix multiply and SwiGLU on activations rounded to bfloat16, against bfloat16 and FP8
 * weights. A row of activations is n_in bfloat16 numbers here.
 *
 * Legend: x[row, in], w[out, in], y[row, out] = sum over in of x w. scratch holds one decoded row
 * [n_in] as float32, for SwiGLU two.
 */
#include "ref.h"

bool k_has_bf16(const struct weight *w)
{
    if (w->format == W_F8)
        return w->block_in % 32 == 0 || w->block_in >= w->n_in;
    return w->format == W_BF16;
}

void ref_round_bf16(const float *x, uint32_t n_in, void *row)
{
    uint16_t *to = row;
    for (uint32_t i = 0; i < n_in; i++)
        to[i] = bf16_from_f32(x[i]);
}

/* Row `out` without its scales. */
static void decode(const struct weight *w, uint32_t out, float *to)
{
    const uint8_t *b = (const uint8_t *)w->data + out * w->row_bytes;
    for (uint32_t i = 0; i < w->n_in; i++)
        to[i] = flushed(w->format == W_BF16 ? f32_from_bf16(load_u16(b + 2 * (size_t)i))
                                          : f32_from_e4m3(b[i]));
}

static float scale_of(const struct weight *w, uint32_t out, uint32_t block)
{
    const uint8_t *row = (const uint8_t *)w->scale + out / w->block_out * w->scale_row_bytes;
    if (w->scale_format == W_F32)
        return flushed(f32_from_bits(load_u32(row + 4 * (size_t)block)));
    uint16_t half = load_u16(row + 2 * (size_t)block);
    return flushed(w->scale_format == W_F16 ? f32_from_f16(half) : f32_from_bf16(half));
}

/* Inputs [begin, end) into the chains of a block. */
static void block_chains(
    const uint16_t *x, const float *w, uint32_t begin, uint32_t end, float a[16])
{
    for (uint32_t j = 0; j < 16; j++)
        a[j] = 0.0f;
    for (uint32_t i = begin; i < end; i += 2) {
        float *chain = &a[(i - begin) / 2 % 16];
        if (i + 1 < end)
            *chain = fma_flushed(f32_from_bf16(x[i + 1]), w[i + 1], *chain);
        *chain = fma_flushed(f32_from_bf16(x[i]), w[i], *chain);
    }
}

static float dot(const struct weight *w, uint32_t out, const uint16_t *x, const float *row)
{
    float acc[16] = { 0 }, a[16];
    uint32_t step = w->format == W_F8 && w->block_in < w->n_in ? w->block_in : w->n_in;
    for (uint32_t begin = 0, block = 0; begin < w->n_in; begin += step, block++) {
        uint32_t end = w->n_in - begin < step ? w->n_in : begin + step;
        block_chains(x, row, begin, end, a);
        for (uint32_t j = 0; j < 16; j++)
            acc[j] = w->format == W_F8 ? fma_flushed(a[j], scale_of(w, out, block), acc[j]) : a[j];
    }
    for (uint32_t n = 8; n > 0; n /= 2)
        for (uint32_t j = 0; j < n; j++)
            acc[j] = flushed(acc[j] + acc[j + n]);
    return acc[0];
}

void ref_matmul_bf16(const struct matmul *mm, uint32_t out_begin, uint32_t out_end, void *scratch)
{
    float *row = scratch;
    for (uint32_t out = out_begin; out < out_end; out++) {
        decode(mm->w, out, row);
        for (uint32_t i = 0; i < mm->x.n; i++) {
            float v = dot(mm->w, out, rows_at(&mm->x, i), row);
            float *y = mm->y + i * mm->y_stride + out;
            if (mm->mode == MM_ADD)
                *y += v;
            else
                *y = mm->bias ? v + mm->bias[out] : v;
        }
    }
}

void ref_swiglu_bf16(const struct swiglu *sg, uint32_t out_begin, uint32_t out_end, void *scratch)
{
    float *gate = scratch, *up = gate + sg->gate->n_in;
    for (uint32_t out = out_begin; out < out_end; out++) {
        decode(sg->gate, out, gate);
        decode(sg->up, out, up);
        for (uint32_t i = 0; i < sg->x.n; i++) {
            const uint16_t *x = rows_at(&sg->x, i);
            sg->y[i * sg->y_stride + out] =
                ref_silu_mul(dot(sg->gate, out, x, gate), dot(sg->up, out, x, up));
        }
    }
}
