/* sample_pass.c: see sample_pass.h. Each pass is written once and compiled for plain x86-64 (or whatever the machine is) and
 * for AVX2, without FMA, which would round differently.
 */
#include "sample_pass.h"

#define LANES 16u
#define GROUP 8u
#define INLINE static inline __attribute__((always_inline))

/* ---- the passes --------------------------------------------------------------------------------------------------------- */

/* A block's. Lanes of signed integers, which vectors can compare; the bias is taken off at the end. */
INLINE struct extent extent(const float *x, uint32_t n)
{
    int32_t least[LANES], most[LANES];
    for (uint32_t j = 0; j < LANES; j++) {
        least[j] = INT32_MAX;
        most[j] = INT32_MIN;
    }
    uint32_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (uint32_t j = 0; j < LANES; j++) {
            int32_t key = (int32_t)(order_of(x[i + j]) ^ 0x80000000u);
            least[j] = key < least[j] ? key : least[j];
            most[j] = key > most[j] ? key : most[j];
        }
    }
    for (; i < n; i++) {
        int32_t key = (int32_t)(order_of(x[i]) ^ 0x80000000u);
        least[0] = key < least[0] ? key : least[0];
        most[0] = key > most[0] ? key : most[0];
    }
    for (uint32_t j = 1; j < LANES; j++) {
        least[0] = least[j] < least[0] ? least[j] : least[0];
        most[0] = most[j] > most[0] ? most[j] : most[0];
    }
    return (struct extent){(uint32_t)least[0] ^ 0x80000000u, (uint32_t)most[0] ^ 0x80000000u};
}

/* Without a branch and with constant bits, so that it becomes vectors. */
INLINE void mask_word(float *to, const float *x, uint32_t word, uint32_t n)
{
    static const uint32_t bit[32] = {
        1u << 0,
        1u << 1,
        1u << 2,
        1u << 3,
        1u << 4,
        1u << 5,
        1u << 6,
        1u << 7,
        1u << 8,
        1u << 9,
        1u << 10,
        1u << 11,
        1u << 12,
        1u << 13,
        1u << 14,
        1u << 15,
        1u << 16,
        1u << 17,
        1u << 18,
        1u << 19,
        1u << 20,
        1u << 21,
        1u << 22,
        1u << 23,
        1u << 24,
        1u << 25,
        1u << 26,
        1u << 27,
        1u << 28,
        1u << 29,
        1u << 30,
        1u << 31,
    };
    for (uint32_t j = 0; j < n; j++) {
        uint32_t keep = (uint32_t) - (int32_t)((word & bit[j]) == bit[j]);
        to[j] = f32_from_bits(
            (f32_bits(x[j]) & keep) | (0xff800000u & ~keep)); /* -infinity where not kept */
    }
}

INLINE void mask(float *to, const float *x, const uint32_t *bits, uint32_t n)
{
    uint32_t n_word = n / 32, rest = n % 32;
    for (uint32_t i = 0; i < n_word; i++)
        mask_word(to + i * 32u, x + i * 32u, bits[i], 32);
    if (rest > 0)
        mask_word(to + n_word * 32u, x + n_word * 32u, bits[n_word], rest);
}

/* e^t for t <= 0 in single precision, 0 below e^-87. Range reduction by ln 2 in two parts and the
 * polynomial of expf in the Cephes library (S. L. Moshier, https://www.netlib.org/cephes/): within
 * 2 units in the last place. */
INLINE float exp_of(float t)
{
    float in = t < -87.0f ? -87.0f : t;
    float shifted =
        in * 1.44269504088896341f + 0x1.8p23f; /* the nearest integer, in the low bits */
    float n = shifted - 0x1.8p23f;
    float r = in - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    float power = f32_from_bits((f32_bits(shifted) - 0x4b400000u + 127u) << 23);
    return t < -87.0f ? 0.0f : p * power;
}

INLINE void weights(float *weight, const float *x, uint32_t n, float max, float temperature)
{
    for (uint32_t i = 0; i < n; i++)
        weight[i] = exp_of((x[i] - max) / temperature);
}

INLINE double sum(const float *weight, uint32_t n)
{
    double lane[8] = {0};
    uint32_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (uint32_t j = 0; j < 8; j++)
            lane[j] += weight[i + j];
    for (; i < n; i++)
        lane[0] += weight[i];
    return ((lane[0] + lane[1]) + (lane[2] + lane[3])) +
           ((lane[4] + lane[5]) + (lane[6] + lane[7]));
}

/* Most groups hold nothing that stays: whether one does is asked of all of it at once. */
INLINE bool any(const float *weight, float light, float least)
{
    uint32_t found = 0;
    for (uint32_t j = 0; j < GROUP; j++)
        found |= (uint32_t)(weight[j] > light) & (uint32_t)(weight[j] >= least);
    return found != 0;
}

INLINE uint32_t keep(float *weight, uint32_t *id, const uint32_t *ids, uint32_t n, float light, float least)
{
    uint32_t kept = 0;
    for (uint32_t i = 0, end; i < n; i = end) {
        end = n - i < GROUP ? n : i + GROUP;
        if (end - i == GROUP && !any(weight + i, light, least))
            continue;
        for (uint32_t k = i; k < end; k++) {
            float w = weight[k];
            id[kept] = ids != NULL ? ids[k] : k;
            weight[kept] = w;
            kept += w > light && w >= least;
        }
    }
    return kept;
}

float sample_exp(float t) { return exp_of(t); }

/* ---- their versions ------------------------------------------------------------------------------------------------------ */

#define PASSES(name, attribute)                                                                                        \
    attribute static struct extent extent_##name(const float *x, uint32_t n) { return extent(x, n); }                  \
    attribute static void mask_##name(float *to, const float *x, const uint32_t *bits, uint32_t n)                     \
    {                                                                                                                  \
        mask(to, x, bits, n);                                                                                          \
    }                                                                                                                  \
    attribute static void weights_##name(float *weight, const float *x, uint32_t n, float max, float temperature)     \
    {                                                                                                                  \
        weights(weight, x, n, max, temperature);                                                                       \
    }                                                                                                                  \
    attribute static double sum_##name(const float *weight, uint32_t n) { return sum(weight, n); }                     \
    attribute static uint32_t keep_##name(float *weight, uint32_t *id, const uint32_t *ids, uint32_t n, float light,    \
        float least)                                                                                                   \
    {                                                                                                                  \
        return keep(weight, id, ids, n, light, least);                                                                 \
    }                                                                                                                  \
    static const struct sample_passes passes_##name = { extent_##name, mask_##name, weights_##name, sum_##name, keep_##name };

PASSES(plain, )
#ifdef __x86_64__
PASSES(avx2, __attribute__((target("avx2"))))
#endif

const struct sample_passes *sample_passes(uint32_t cpu)
{
#ifdef __x86_64__
    if (cpu & CPU_AVX2)
        return &passes_avx2;
#endif
    (void)cpu;
    return &passes_plain;
}
