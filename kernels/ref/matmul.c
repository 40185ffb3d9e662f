/* matmul.c: matrix multiply and SwiGLU on float32 activations. A weight row is decoded once a call
 * and used for all rows of activations.
 *
 * Legend: x[row, in], w[out, in], y[row, out] = sum over in of x w. scratch holds one decoded row
 * [n_in], for SwiGLU two.
 */
#include "ref.h"

void ref_matmul_f32(const struct matmul *mm, uint32_t out_begin, uint32_t out_end, void *scratch)
{
    float *row = scratch;
    for (uint32_t out = out_begin; out < out_end; out++) {
        ref_decode_row(mm->w, out, row);
        for (uint32_t i = 0; i < mm->x.n; i++) {
            float v = ref_dot(rows_at(&mm->x, i), row, mm->w->n_in);
            float *y = mm->y + i * mm->y_stride + out;
            if (mm->mode == MM_ADD)
                *y += v;
            else
                *y = mm->bias ? v + mm->bias[out] : v;
        }
    }
}

void ref_swiglu_f32(const struct swiglu *sg, uint32_t out_begin, uint32_t out_end, void *scratch)
{
    float *gate = scratch, *up = gate + sg->gate->n_in;
    for (uint32_t out = out_begin; out < out_end; out++) {
        ref_decode_row(sg->gate, out, gate);
        ref_decode_row(sg->up, out, up);
        for (uint32_t i = 0; i < sg->x.n; i++) {
            const float *x = rows_at(&sg->x, i);
            sg->y[i * sg->y_stride + out] =
                ref_silu_mul(ref_dot(x, gate, sg->gate->n_in), ref_dot(x, up, sg->up->n_in));
        }
    }
}
