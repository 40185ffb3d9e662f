/* sample_pass.h: the passes of sample.c that go over all logits, and how floats are ordered as integers. The CPU's vectors
 * make them faster and change no bit: each element is computed by the same operations, sums have eight lanes everywhere.
 */
#ifndef GLM_TEXT_SAMPLE_PASS_H
#define GLM_TEXT_SAMPLE_PASS_H

#include "../base/base.h"
#include "../base/weight.h"

#define ORDER_MINUS_INFINITY 0x007fffffu
#define ORDER_PLUS_INFINITY 0xff800000u

/* Unsigned integers in the order of the floats. Adding 0 makes the two zeros one. */
static inline uint32_t order_of(float f)
{
    uint32_t bits = f32_bits(f + 0.0f);
    return bits ^ ((uint32_t) - (int32_t)(bits >> 31) | 0x80000000u);
}

struct extent {
    uint32_t least, most; /* orders */
};

struct sample_passes {
    struct extent (*extent)(const float *x, uint32_t n);
    /* to = x where the mask's bit is set, else -infinity */
    void (*mask)(float *to, const float *x, const uint32_t *mask, uint32_t n);
    void (*weights)(float *weight, const float *x, uint32_t n, float max, float temperature); /* e^((x - max) / temperature) */
    double (*sum)(const float *weight, uint32_t n);
    /* Keeps, in order, candidates with weight > light and >= least: their weights, and their ids (candidate i is ids[i], or i). */
    uint32_t (*keep)(float *weight, uint32_t *id, const uint32_t *ids, uint32_t n, float light, float least);
};
const struct sample_passes *sample_passes(uint32_t cpu); /* the fastest with these CPU_* features; 0: plain C */
float sample_exp(float t);                       /* of one element, as `weights` has it */

#endif
