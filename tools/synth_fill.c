/* synth_fill.c: random numbers straight in a weight format, so that nothing needs a quantizer. A
 * block's bits come from a counter generator keyed by (seed, tensor name), so a tensor is the same
 * in every file that holds it, however it is cut into chunks. Only the scales are chosen: such that
 * the decoded numbers have the standard deviation asked for.
 */
#include "synth.h"

#include <math.h>

static uint64_t mix(uint64_t x) /* splitmix64's finalizer */
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static uint64_t word(uint64_t key, uint64_t i)
{
    return mix(key + (i + 1) * 0x9e3779b97f4a7c15u);
}

uint64_t synth_key(uint64_t seed, const char *name)
{
    uint64_t key = mix(seed + 0x9e3779b97f4a7c15u);
    for (; *name; name++)
        key = mix(key ^ (uint8_t)*name) + 0x632be59bd9b4e019u;
    return key;
}

/* ---- units ----------------------------------------------------------------------------------- */

static bool is_plain(uint32_t format)
{
    return format == W_F32 || format == W_F16 || format == W_BF16 || format == W_F8 ||
           format == W_I4_PACKED;
}

struct synth_unit synth_units(const struct synth_tensor *t)
{
    uint64_t n = 1;
    struct weight_block b = weight_block(t->format);
    for (uint32_t i = 0; i < t->n_dim; i++)
        n *= t->dim[i];
    if (t->format == SYNTH_SHAPE)
        return (struct synth_unit){1, 16};
    if (t->format == W_I4_PACKED) /* n counts 32-bit words here */
        return (struct synth_unit){(n + 1) / 2, 8};
    if (is_plain(t->format))
        return (struct synth_unit){(n + 7) / 8, 8u * b.bytes};
    return (struct synth_unit){n / b.n, b.bytes};
}

/* ---- plain formats --------------------------------------------------------------------------- */

static float uniform(const struct synth_tensor *t, float u, uint64_t sign) /* u in [-1, 1) */
{
    float v = t->mean + t->std * 1.7320508f * u; /* the standard deviation of u is 1/sqrt(3) */
    return t->flip && (sign & 1) ? -v : v;
}

static void fill_f32(const struct synth_tensor *t, uint64_t key, uint64_t unit, uint8_t *to)
{
    for (uint32_t i = 0; i < 4; i++) {
        uint64_t r = word(key, unit * 4 + i);
        float v[2] = {uniform(t, (float)(int32_t)(uint32_t)r * 0x1p-31f, r),
            uniform(t, (float)(int32_t)(uint32_t)(r >> 32) * 0x1p-31f, r >> 32)};
        memcpy(to + 8 * i, v, 8);
    }
}

/* ---- skewed routing -------------------------------------------------------------------------- */

/* A normal variable exceeds the result with probability p. */
static double normal_tail(double p)
{
    double low = -8, high = 8;
    for (int i = 0; i < 60; i++) {
        double z = (low + high) / 2;
        *(0.5 * erfc(z * 0.70710678118654752) > p ? &low : &high) = z;
    }
    return low;
}

/* The share of tokens that choose the expert of a rank: scale * (rank + 1)^-skew, but never all. */
static double chosen(const struct synth_tensor *t, double scale, uint64_t rank)
{
    double p = scale * pow((double)rank + 1, -(double)t->skew);
    return p < 0.95 ? p : 0.95;
}

/* Such that a token has n_used of n. */
static double chosen_scale(const struct synth_tensor *t, uint64_t n)
{
    double low = 0, high = 1e6;
    for (int i = 0; i < 80; i++) {
        double scale = (low + high) / 2, sum = 0;
        for (uint64_t r = 0; r < n; r++)
            sum += chosen(t, scale, r);
        *(sum < t->n_used ? &low : &high) = scale;
    }
    return low;
}

/* An expert is chosen where the sigmoid of its logit and its bias exceed what about n_used experts
 * exceed: here 1. Ranks are a random order. */
static float skewed_bias(const struct synth_tensor *t, uint64_t key, double scale, uint64_t expert)
{
    uint64_t rank = 0, n = t->dim[0];
    for (uint64_t e = 0; e < n; e++)
        rank += word(key, e) < word(key, expert);
    double logit = SYNTH_LOGIT_STD * normal_tail(chosen(t, scale, rank));
    return (float)(1 - 1 / (1 + exp(-logit)));
}

static void fill_skewed(
    const struct synth_tensor *t, uint64_t key, uint64_t first, uint64_t count, uint8_t *to)
{
    double scale = chosen_scale(t, t->dim[0]);
    for (uint64_t e = first * 8; e < (first + count) * 8; e++, to += 4) {
        float bias = e < t->dim[0] ? skewed_bias(t, key, scale, e) : 0;
        memcpy(to, &bias, 4);
    }
}

static void fill_16(const struct synth_tensor *t, uint64_t key, uint64_t unit, uint8_t *to)
{
    for (uint32_t i = 0; i < 2; i++) {
        uint64_t r = word(key, unit * 2 + i);
        uint16_t h[4];
        for (uint32_t j = 0; j < 4; j++, r >>= 16) {
            float v = uniform(t, (float)(int16_t)(uint16_t)r * 0x1p-15f, r);
            h[j] = t->format == W_BF16 ? bf16_from_f32(v) : f16_from_f32(v);
        }
        memcpy(to + 8 * i, h, 8);
    }
}

static void fill_f8(uint64_t key, uint64_t unit, uint8_t *to)
{
    uint64_t r = word(key, unit);
    for (uint32_t i = 0; i < 8; i++, r >>= 8) {
        uint8_t b = (uint8_t)r;
        to[i] = (b & 0x7f) == 0x7f ? b ^ 1 : b; /* no NaN */
    }
}

/* ---- blocks ---------------------------------------------------------------------------------- */

/* The scales a block may get: the wanted one times 0.75 to 1.25, of either sign, so that the
 * formats whose numbers are not centred (-8 to 7) have no mean. m: the offset that centres an
 * unsigned format. */
struct scales {
    uint16_t d[64], m[64];
    uint8_t exponent;   /* MXFP4 */
    uint32_t threshold; /* and of 256, how often the next one */
};

/* Standard deviation of a block's numbers before its scale; offset: what the minimum is multiplied
 * by, in scales. */
static float unit_std(uint32_t format, float *offset)
{
    *offset = 0;
    switch (format) {
    case W_Q8_0: return 73.9f;
    case W_Q4_0: return 4.61f;
    case W_Q4_1: *offset = -7.5f; return 4.61f;
    case W_Q5_0: return 9.23f;
    case W_Q5_1: *offset = -15.5f; return 9.23f;
    case W_IQ4_NL: return 67.4f;
    case W_Q2_K: *offset = 1.5f; return 1.118f * 11.7f;
    case W_Q3_K: return 2.35f * 18.5f;
    case W_Q4_K: *offset = 7.5f; return 4.61f * 48.4f;
    case W_Q5_K: *offset = 15.5f; return 9.23f * 48.4f;
    case W_Q6_K: return 18.5f * 73.9f;
    case W_IQ4_XS: return 67.4f * 18.5f;
    case W_MXFP4: return 5.85f;
    default: return 1;
    }
}

static void make_scales(const struct synth_tensor *t, struct scales *s)
{
    float offset, d = t->std / unit_std(t->format, &offset);
    for (uint32_t i = 0; i < 64; i++) {
        float v = d * (0.75f + 0.5f / 31.0f * (float)(i & 31u)) * (i < 32 ? 1.0f : -1.0f);
        s->d[i] = f16_from_f32(v);
        s->m[i] = f16_from_f32(v * offset);
    }
    float e = log2f(d) + 128, low = floorf(e);
    low = low < 0 ? 0 : low > 254 ? 254 : low;
    s->exponent = (uint8_t)low;
    s->threshold = (uint32_t)((e - low) * 256);
}

static void put_u16(uint8_t *to, uint16_t v)
{
    to[0] = (uint8_t)v;
    to[1] = (uint8_t)(v >> 8);
}

/* Q4_K and Q5_K: eight 6-bit scales, here 32 to 63, with the minimum of a group equal to its scale.
 */
static void put_k_scales(uint8_t s[12], uint64_t r)
{
    for (uint32_t g = 0; g < 4; g++, r >>= 10) {
        uint32_t a = 32u | (r & 31u), b = 32u | (r >> 5 & 31u);
        s[g] = s[g + 4] = (uint8_t)(a | (b >> 4) << 6);
        s[g + 8] = (uint8_t)((b & 15u) * 17u);
    }
}

/* Puts the scales into a block of random bytes; r decides. */
static void put_scales(uint32_t format, const struct scales *s, uint64_t r, uint8_t *b)
{
    uint32_t i = r & 63u;
    r >>= 6;
    switch (format) {
    case W_Q8_0:
    case W_Q4_0:
    case W_Q5_0:
    case W_IQ4_NL:
    case W_IQ4_XS: put_u16(b, s->d[i]); break;
    case W_Q4_1:
    case W_Q5_1: put_u16(b, s->d[i]), put_u16(b + 2, s->m[i]); break;
    case W_Q2_K:
        for (uint32_t g = 0; g < 16; g++, r >>= 3)
            b[g] = (uint8_t)((8u | (r & 7u)) * 17u);
        put_u16(b + 80, s->d[i]), put_u16(b + 82, s->m[i]);
        break;
    case W_Q3_K: put_u16(b + 108, s->d[i]); break;
    case W_Q4_K:
    case W_Q5_K:
        put_u16(b, s->d[i]), put_u16(b + 2, s->m[i]);
        put_k_scales(b + 4, r);
        break;
    case W_Q6_K: put_u16(b + 208, s->d[i]); break;
    case W_MXFP4: b[0] = (uint8_t)(s->exponent + ((r & 255u) < s->threshold)); break;
    default: break;
    }
}

static void fill_blocks(const struct synth_tensor *t, uint32_t bytes, uint64_t key, uint64_t first,
    uint64_t count, uint8_t *to)
{
    struct scales s;
    uint32_t n_word = bytes / 8, rest = bytes % 8;
    make_scales(t, &s);
    for (uint64_t u = first; u < first + count; u++, to += bytes) {
        uint64_t at = u * (n_word + 2), r;
        for (uint32_t i = 0; i < n_word; i++) {
            r = word(key, at + i);
            memcpy(to + 8 * i, &r, 8);
        }
        r = word(key, at + n_word);
        memcpy(to + 8 * n_word, &r, rest);
        put_scales(t->format, &s, word(key, at + n_word + 1), to);
    }
}

size_t synth_fill(
    const struct synth_tensor *t, uint64_t key, uint64_t first, uint64_t count, uint8_t *to)
{
    struct synth_unit unit = synth_units(t);
    uint64_t bytes = count * unit.bytes, left = t->bytes - first * unit.bytes;
    if (t->format == SYNTH_SHAPE) {
        for (uint32_t i = 0; i < 16; i++)
            to[i] = (uint8_t)(t->dim[i / 8] >> 8 * (i % 8));
    } else if (t->skew > 0 && t->format == W_F32) {
        fill_skewed(t, key, first, count, to);
    } else if (!is_plain(t->format)) {
        fill_blocks(t, unit.bytes, key, first, count, to);
    } else {
        for (uint64_t u = 0; u < count; u++) {
            uint8_t *at = to + u * unit.bytes;
            uint64_t r = word(key, first + u);
            if (t->format == W_F32)
                fill_f32(t, key, first + u, at);
            else if (t->format == W_F8)
                fill_f8(key, first + u, at);
            else if (t->format == W_I4_PACKED)
                memcpy(at, &r, 8);
            else
                fill_16(t, key, first + u, at);
        }
    }
    return (size_t)(bytes < left ? bytes : left); /* a last unit may be cut */
}
