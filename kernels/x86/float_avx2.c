/* float_avx2.c: decoding, matrix multiplies on float activations and vector operations, compiled
 * for AVX2 with FMA, F16C and BMI2. The code is that of the float_*.h files, over the sixteen-float
 * vectors of v16.h; only the entry below has a name outside.
 */
#include "bf16_float.h"
#include "float_matmul.h"
#include "float_vector.h"

void x86_float_avx2(struct kernels *k)
{
    k->decode_row = decode_row;
    k->matmul_f32 = matmul_f32;
    k->swiglu_f32 = swiglu_f32;
    k->matmul_bf16 = matmul_bf16;
    k->swiglu_bf16 = swiglu_bf16;
    k->round_bf16 = round_bf16;
    k->quantize_q8 = quantize_q8;
    k->rms_norm = rms_norm;
    k->rope = rope;
    k->dot = dot;
    k->add = add;
    k->axpy = axpy;
}
