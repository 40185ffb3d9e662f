/* float_finish.h: what is done with the finished dot products of a panel of 16 outputs, and which rows
 * they are of; for all multiplies that sum in float32. Static in each including file.
 */
#ifndef GLM_KERNELS_FLOAT_FINISH_H
#define GLM_KERNELS_FLOAT_FINISH_H

#include "v16.h"

#define PANEL 16
#define UNROLL _Pragma("GCC unroll 16")

static void row_pointers(const struct rows *x, uint32_t row, uint32_t n, const char **to)
{
    for (uint32_t i = 0; i < n; i++)
        to[i] = rows_at(x, row + i);
}

/* Outputs out .. out + n_out of rows row .. row + n from their dot products. */
static void finish_matmul(const struct matmul *mm, uint32_t out, uint32_t n_out, uint32_t row,
    uint32_t n, const float *dots)
{
    for (uint32_t r = 0; r < n; r++) {
        float *y = mm->y + (row + r) * mm->y_stride + out;
        v16 v = v16_load(dots + r * PANEL);
        if (mm->mode == MM_ADD)
            v = v16_add(v16_load_n(y, n_out), v);
        else if (mm->bias)
            v = v16_add(v, v16_load_n(mm->bias + out, n_out));
        v16_store_n(y, v, n_out);
    }
}

static void finish_swiglu(const struct swiglu *sg, uint32_t out, uint32_t n_out, uint32_t row,
    uint32_t n, const float *gate, const float *up)
{
    v16 one = v16_set(1.0f);
    for (uint32_t r = 0; r < n; r++) {
        v16 g = v16_load(gate + r * PANEL), u = v16_load(up + r * PANEL);
        v16 s = v16_div(one, v16_add(one, v16_exp(v16_negate(g))));
        v16_store_n(sg->y + (row + r) * sg->y_stride + out, v16_mul(v16_mul(g, s), u), n_out);
    }
}

#endif
