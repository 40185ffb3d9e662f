/* vector.c: operations on vectors of float32, and the one exponential. The order of arithmetic is
 * the definition: see kernels.h. fmaf rounds once, everything else once an operation.
 */
#include "ref.h"

#include <math.h>

#define N_CHAIN 16

/* l[16] to one: chains 8 apart are added, then 4, 2, 1. */
static float fold(float *l)
{
    for (uint32_t half = N_CHAIN / 2; half > 0; half /= 2)
        for (uint32_t j = 0; j < half; j++)
            l[j] += l[j + half];
    return l[0];
}

float ref_dot(const float *a, const float *b, uint32_t n)
{
    float l[N_CHAIN] = { 0 };
    for (uint32_t i = 0; i < n; i++)
        l[i % N_CHAIN] = fmaf(a[i], b[i], l[i % N_CHAIN]);
    return fold(l);
}

float ref_sum(const float *a, uint32_t n)
{
    float l[N_CHAIN] = { 0 };
    for (uint32_t i = 0; i < n; i++)
        l[i % N_CHAIN] += a[i];
    return fold(l);
}

/* exp(x) = 2^n exp(r), n = round(x / ln 2), r = x - n ln 2 in two steps (n * LN2_HIGH is exact).
 * exp(r) = 1 + r + r^2 (1/2 + r (1/6 + ...)): the coefficients are those of a minimax fit on
 * |r| <= ln(2) / 2. Within [-87.3, 88.7] the result is a normal number, so that n may be added to
 * its exponent. */
float k_exp(float x)
{
    const float log2_e = 0x1.715476p+0f, round = 0x1.8p+23f;
    const float ln2_high = 0x1.62e4p-1f, ln2_low = 0x1.7f7d1cp-20f;

    if (x < -87.3f)
        return 0.0f;
    if (x > 88.7f)
        return INFINITY;
    if (!(x == x))
        return x;
    float z = fmaf(x, log2_e, round); /* the sum's last bits hold n */
    float n = z - round;
    float r = fmaf(-n, ln2_low, fmaf(-n, ln2_high, x));
    float p = 0x1.6a23c2p-10f;
    p = fmaf(p, r, 0x1.123a22p-7f);
    p = fmaf(p, r, 0x1.5558f4p-5f);
    p = fmaf(p, r, 0x1.555492p-3f);
    p = fmaf(p, r, 0x1.fffffcp-2f);
    p = fmaf(p, r, 1.0f);
    p = fmaf(p, r, 1.0f);
    return f32_from_bits(f32_bits(p) + (f32_bits(z) << 23));
}

float ref_silu_mul(float gate, float up)
{
    float s = 1.0f / (1.0f + k_exp(-gate));
    float gs = gate * s;
    return gs * up;
}

void ref_rms_norm(const float *x, const float *w, uint32_t n, float eps, float *y)
{
    float mean = ref_dot(x, x, n) / (float)n;
    float r = 1.0f / sqrtf(mean + eps);
    for (uint32_t i = 0; i < n; i++) {
        float xr = x[i] * r;
        y[i] = xr * w[i];
    }
}

void ref_rope(float *x, uint32_t n_rot, const float *c, const float *s)
{
    uint32_t half = n_rot / 2;
    for (uint32_t i = 0; i < half; i++) {
        float a = x[i], b = x[i + half];
        float bs = b * s[i], as = a * s[i];
        x[i] = fmaf(a, c[i], -bs);
        x[i + half] = fmaf(b, c[i], as);
    }
}

void ref_add(float *y, const float *x, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        y[i] += x[i];
}

void ref_axpy(float *y, float a, const float *x, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        y[i] = fmaf(a, x[i], y[i]);
}
