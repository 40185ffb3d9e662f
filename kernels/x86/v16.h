/* v16.h: sixteen floats at once, one zmm register or two ymm, chosen by the flags that the
 * including file is compiled with. The canonical sum of kernels.h has sixteen chains, so a v16 is a
 * row of chains. Everything is static: no function here may be shared between files of different
 * instruction sets.
 *
 * A tail of n < 16 elements multiplies +0 by -0 in the lanes behind it: their product, -0, leaves
 * any chain as it was.
 */
#ifndef GLM_KERNELS_V16_H
#define GLM_KERNELS_V16_H

#include "x86.h"

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))
#define MAYBE_UNUSED __attribute__((unused))

/* From here to restore_subnormals, numbers too small to be normal are zeros, on the way in and out. The compiler moves neither
 * loads nor stores over these two, but arithmetic: what is computed between them is loaded and stored between them, or lies
 * in a function of its own that is not inlined. */
INLINE uint32_t zero_subnormals(void)
{
    uint32_t mode = _mm_getcsr();
    _mm_setcsr(mode | 0x8040u); /* flush to zero, denormals are zeros */
    __asm__ volatile("" ::: "memory");
    return mode;
}
INLINE void restore_subnormals(uint32_t mode)
{
    __asm__ volatile("" ::: "memory");
    _mm_setcsr(mode);
}

/* Sixteen bytes or more at any address. */
INLINE __m128i load_128(const void *p) { return _mm_loadu_si128(p); }
INLINE __m128i load_64(const void *p) { return _mm_loadl_epi64(p); }

INLINE uint16_t get_u16(const void *p)
{
    uint16_t v;
    memcpy(&v, p, 2);
    return v;
}

INLINE uint32_t get_u32(const void *p)
{
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}

INLINE float half_to_float(const void *p) { return _cvtsh_ss(get_u16(p)); }

#ifdef __AVX512F__

typedef __m512 v16;

INLINE v16 v16_set(float x) { return _mm512_set1_ps(x); }
INLINE v16 v16_load(const void *p) { return _mm512_loadu_ps(p); }
INLINE void v16_store(void *p, v16 x) { _mm512_storeu_ps(p, x); }
INLINE __mmask16 v16_mask(uint32_t n) { return (__mmask16)((1u << n) - 1); }
INLINE v16 v16_load_n(const void *p, uint32_t n) { return _mm512_maskz_loadu_ps(v16_mask(n), p); }
INLINE void v16_store_n(void *p, v16 x, uint32_t n) { _mm512_mask_storeu_ps(p, v16_mask(n), x); }
INLINE v16 v16_add(v16 a, v16 b) { return _mm512_add_ps(a, b); }
INLINE v16 v16_sub(v16 a, v16 b) { return _mm512_sub_ps(a, b); }
INLINE v16 v16_mul(v16 a, v16 b) { return _mm512_mul_ps(a, b); }
INLINE v16 v16_div(v16 a, v16 b) { return _mm512_div_ps(a, b); }
INLINE v16 v16_fma(v16 a, v16 b, v16 c) { return _mm512_fmadd_ps(a, b, c); }
INLINE v16 v16_fnma(v16 a, v16 b, v16 c) { return _mm512_fnmadd_ps(a, b, c); } /* c - a b */
INLINE v16 v16_max(v16 a, v16 b) { return _mm512_max_ps(a, b); } /* a > b ? a : b */
INLINE v16 v16_abs(v16 a) { return _mm512_abs_ps(a); }
INLINE v16 v16_negate(v16 a) { return _mm512_xor_ps(a, _mm512_set1_ps(-0.0f)); }
/* Lanes from n on get `fill`. */
INLINE v16 v16_fill(v16 x, uint32_t n, float fill)
{
    return _mm512_mask_blend_ps(v16_mask(n), _mm512_set1_ps(fill), x);
}
INLINE bool v16_all_less(v16 a, v16 b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ) == 0xffff; }
INLINE v16 v16_from_i8(__m128i q) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(q)); }
INLINE v16 v16_from_bf16(const void *p)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(p)), 16));
}
INLINE v16 v16_from_half(__m256i h) { return _mm512_cvtph_ps(h); }

/* Chains 8 apart are added, then 4, 2, 1. */
INLINE float v16_fold(v16 a)
{
    __m256 b = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}

/* Four folds together: to[i] = fold of a[i]. */
INLINE void v16_fold4(const v16 *a, float *to)
{
    v16 ab = _mm512_add_ps(
        _mm512_shuffle_f32x4(a[0], a[1], 0x44), _mm512_shuffle_f32x4(a[0], a[1], 0xee));
    v16 cd = _mm512_add_ps(
        _mm512_shuffle_f32x4(a[2], a[3], 0x44), _mm512_shuffle_f32x4(a[2], a[3], 0xee));
    v16 s = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
    s = _mm512_add_ps(s, _mm512_permute_ps(s, 0xee));
    s = _mm512_add_ps(s, _mm512_permute_ps(s, 0x55));
    _mm_storeu_ps(to, _mm512_castps512_ps128(_mm512_maskz_compress_ps(0x1111, s)));
}

INLINE float v16_max_of(v16 a) { return _mm512_reduce_max_ps(a); } /* no NaN among them */

/* k_exp of kernels/ref, step for step. */
INLINE v16 v16_exp(v16 x)
{
    v16 z = v16_fma(x, v16_set(0x1.715476p+0f), v16_set(0x1.8p+23f)),
        n = v16_sub(z, v16_set(0x1.8p+23f));
    v16 r = v16_fnma(n, v16_set(0x1.7f7d1cp-20f), v16_fnma(n, v16_set(0x1.62e4p-1f), x));
    v16 p = v16_set(0x1.6a23c2p-10f);
    p = v16_fma(p, r, v16_set(0x1.123a22p-7f));
    p = v16_fma(p, r, v16_set(0x1.5558f4p-5f));
    p = v16_fma(p, r, v16_set(0x1.555492p-3f));
    p = v16_fma(p, r, v16_set(0x1.fffffcp-2f));
    p = v16_fma(p, r, v16_set(1.0f));
    p = v16_fma(p, r, v16_set(1.0f));
    __m512i bits =
        _mm512_add_epi32(_mm512_castps_si512(p), _mm512_slli_epi32(_mm512_castps_si512(z), 23));
    v16 y = _mm512_castsi512_ps(bits);
    y = _mm512_mask_mov_ps(
        y, _mm512_cmp_ps_mask(x, v16_set(-87.3f), _CMP_LT_OQ), _mm512_setzero_ps());
    y = _mm512_mask_mov_ps(
        y, _mm512_cmp_ps_mask(x, v16_set(88.7f), _CMP_GT_OQ), v16_set(__builtin_inff()));
    return _mm512_mask_mov_ps(y, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), x);
}

/* p times 2 to the integer in the last bits of z; 0 where x is below `least`. */
INLINE v16 v16_ldexp(v16 p, v16 z, v16 x, float least)
{
    __m512i power = _mm512_slli_epi32(_mm512_castps_si512(z), 23);
    __mmask16 keep = _mm512_cmp_ps_mask(x, v16_set(least), _CMP_NLT_UQ);
    return _mm512_castsi512_ps(_mm512_maskz_add_epi32(keep, _mm512_castps_si512(p), power));
}

/* Round to nearest even; a value out of int8 does not occur. */
INLINE __m128i v16_to_i8(v16 x) { return _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x)); }

INLINE __m256i v16_to_bf16(v16 x)
{
    __m512i u = _mm512_castps_si512(x), one = _mm512_set1_epi32(1);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), one);
    __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd);
    __m512i nan = _mm512_or_si512(u, _mm512_set1_epi32(0x400000));
    rounded = _mm512_mask_mov_epi32(rounded, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), nan);
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16));
}

#else /* AVX2 */

typedef struct {
    __m256 lo, hi;
} v16;

INLINE v16 v16_set(float x) { return (v16){ _mm256_set1_ps(x), _mm256_set1_ps(x) }; }
INLINE v16 v16_load(const void *p)
{
    return (v16){ _mm256_loadu_ps(p), _mm256_loadu_ps((const float *)p + 8) };
}
INLINE void v16_store(void *p, v16 x)
{
    _mm256_storeu_ps(p, x.lo);
    _mm256_storeu_ps((float *)p + 8, x.hi);
}
/* Of lanes first .. first + 7, those below n. */
INLINE __m256i v8_mask(uint32_t n, int first)
{
    return _mm256_cmpgt_epi32(
        _mm256_set1_epi32((int)n - first), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
INLINE v16 v16_load_n(const void *p, uint32_t n)
{
    return (v16){ _mm256_maskload_ps(p, v8_mask(n, 0)),
        _mm256_maskload_ps((const float *)p + 8, v8_mask(n, 8)) };
}
INLINE void v16_store_n(void *p, v16 x, uint32_t n)
{
    _mm256_maskstore_ps(p, v8_mask(n, 0), x.lo);
    _mm256_maskstore_ps((float *)p + 8, v8_mask(n, 8), x.hi);
}
#define V16_PAIR(op, a, b) ((v16){ op((a).lo, (b).lo), op((a).hi, (b).hi) })
INLINE v16 v16_add(v16 a, v16 b) { return V16_PAIR(_mm256_add_ps, a, b); }
INLINE v16 v16_sub(v16 a, v16 b) { return V16_PAIR(_mm256_sub_ps, a, b); }
INLINE v16 v16_mul(v16 a, v16 b) { return V16_PAIR(_mm256_mul_ps, a, b); }
INLINE v16 v16_div(v16 a, v16 b) { return V16_PAIR(_mm256_div_ps, a, b); }
INLINE v16 v16_fma(v16 a, v16 b, v16 c)
{
    return (v16){ _mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi) };
}
INLINE v16 v16_fnma(v16 a, v16 b, v16 c) /* c - a b */
{
    return (v16){ _mm256_fnmadd_ps(a.lo, b.lo, c.lo), _mm256_fnmadd_ps(a.hi, b.hi, c.hi) };
}
INLINE v16 v16_max(v16 a, v16 b) { return V16_PAIR(_mm256_max_ps, a, b); } /* a > b ? a : b */
INLINE v16 v16_abs(v16 a) { return V16_PAIR(_mm256_andnot_ps, v16_set(-0.0f), a); }
INLINE v16 v16_negate(v16 a) { return V16_PAIR(_mm256_xor_ps, v16_set(-0.0f), a); }
/* Lanes from n on get `fill`. */
INLINE v16 v16_fill(v16 x, uint32_t n, float fill)
{
    __m256 f = _mm256_set1_ps(fill);
    return (v16){ _mm256_blendv_ps(f, x.lo, _mm256_castsi256_ps(v8_mask(n, 0))),
                  _mm256_blendv_ps(f, x.hi, _mm256_castsi256_ps(v8_mask(n, 8))) };
}
INLINE bool v16_all_less(v16 a, v16 b)
{
    __m256 lo = _mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ), hi = _mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ);
    return _mm256_movemask_ps(_mm256_and_ps(lo, hi)) == 0xff;
}
INLINE v16 v16_from_i8(__m128i q)
{
    return (v16){ _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q)),
                  _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(q, 8))) };
}
INLINE v16 v16_from_bf16(const void *p)
{
    __m256i lo = _mm256_cvtepu16_epi32(load_128(p)),
            hi = _mm256_cvtepu16_epi32(load_128((const char *)p + 16));
    return (v16){ _mm256_castsi256_ps(_mm256_slli_epi32(lo, 16)),
        _mm256_castsi256_ps(_mm256_slli_epi32(hi, 16)) };
}
INLINE v16 v16_from_half(__m256i h)
{
    return (v16){ _mm256_cvtph_ps(_mm256_castsi256_si128(h)),
        _mm256_cvtph_ps(_mm256_extracti128_si256(h, 1)) };
}

/* Chains 8 apart are added, then 4, 2, 1. */
INLINE float v16_fold(v16 a)
{
    __m256 b = _mm256_add_ps(a.lo, a.hi);
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}

/* Four folds together: to[i] = fold of a[i]. */
INLINE void v16_fold4(const v16 *a, float *to)
{
    __m256 b[4];
    for (uint32_t i = 0; i < 4; i++)
        b[i] = _mm256_add_ps(a[i].lo, a[i].hi);
    __m256 s = _mm256_add_ps(
        _mm256_permute2f128_ps(b[0], b[2], 0x20), _mm256_permute2f128_ps(b[0], b[2], 0x31));
    __m256 t = _mm256_add_ps(
        _mm256_permute2f128_ps(b[1], b[3], 0x20), _mm256_permute2f128_ps(b[1], b[3], 0x31));
    /* s: chains 0 .. 3 of a[0] and of a[2]; t: of a[1] and of a[3] */
    __m256 u = _mm256_add_ps(_mm256_shuffle_ps(s, t, 0x44), _mm256_shuffle_ps(s, t, 0xee));
    u = _mm256_add_ps(_mm256_shuffle_ps(u, u, 0x88), _mm256_shuffle_ps(u, u, 0xdd));
    _mm_storel_pi((__m64 *)(void *)to, _mm256_castps256_ps128(u));
    _mm_storel_pi((__m64 *)(void *)(to + 2), _mm256_extractf128_ps(u, 1));
}

INLINE float v16_max_of(v16 a) /* no NaN among them */
{
    __m256 b = _mm256_max_ps(a.lo, a.hi);
    __m128 c = _mm_max_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_max_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_max_ss(c, _mm_movehdup_ps(c)));
}

/* k_exp of kernels/ref, step for step. */
INLINE __m256 v8_exp(__m256 x)
{
#define SET _mm256_set1_ps
    __m256 z = _mm256_fmadd_ps(x, SET(0x1.715476p+0f), SET(0x1.8p+23f)),
           n = _mm256_sub_ps(z, SET(0x1.8p+23f));
    __m256 r = _mm256_fnmadd_ps(n, SET(0x1.7f7d1cp-20f), _mm256_fnmadd_ps(n, SET(0x1.62e4p-1f), x));
    __m256 p = SET(0x1.6a23c2p-10f);
    p = _mm256_fmadd_ps(p, r, SET(0x1.123a22p-7f));
    p = _mm256_fmadd_ps(p, r, SET(0x1.5558f4p-5f));
    p = _mm256_fmadd_ps(p, r, SET(0x1.555492p-3f));
    p = _mm256_fmadd_ps(p, r, SET(0x1.fffffcp-2f));
    p = _mm256_fmadd_ps(p, r, SET(1.0f));
    p = _mm256_fmadd_ps(p, r, SET(1.0f));
    __m256i bits =
        _mm256_add_epi32(_mm256_castps_si256(p), _mm256_slli_epi32(_mm256_castps_si256(z), 23));
    __m256 y =
        _mm256_andnot_ps(_mm256_cmp_ps(x, SET(-87.3f), _CMP_LT_OQ), _mm256_castsi256_ps(bits));
    y = _mm256_blendv_ps(y, SET(__builtin_inff()), _mm256_cmp_ps(x, SET(88.7f), _CMP_GT_OQ));
    return _mm256_blendv_ps(y, x, _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
#undef SET
}
INLINE v16 v16_exp(v16 x) { return (v16){ v8_exp(x.lo), v8_exp(x.hi) }; }

/* p times 2 to the integer in the last bits of z; 0 where x is below `least`. */
INLINE __m256 v8_ldexp(__m256 p, __m256 z, __m256 x, float least)
{
    __m256i power = _mm256_slli_epi32(_mm256_castps_si256(z), 23);
    __m256 y = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), power));
    return _mm256_and_ps(y, _mm256_cmp_ps(x, _mm256_set1_ps(least), _CMP_NLT_UQ));
}
INLINE v16 v16_ldexp(v16 p, v16 z, v16 x, float least)
{
    return (v16){ v8_ldexp(p.lo, z.lo, x.lo, least), v8_ldexp(p.hi, z.hi, x.hi, least) };
}

/* Eight int32 each to sixteen int16, in order. */
INLINE __m256i pack_i32(__m256i lo, __m256i hi)
{
    return _mm256_permute4x64_epi64(_mm256_packs_epi32(lo, hi), 0xd8);
}

/* Round to nearest even; a value out of int8 does not occur. */
INLINE __m128i v16_to_i8(v16 x)
{
    __m256i w = pack_i32(_mm256_cvtps_epi32(x.lo), _mm256_cvtps_epi32(x.hi));
    return _mm_packs_epi16(_mm256_castsi256_si128(w), _mm256_extracti128_si256(w, 1));
}

INLINE __m256i v8_to_bf16(__m256 x)
{
    __m256i u = _mm256_castps_si256(x);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd);
    __m256i nan = _mm256_or_si256(u, _mm256_set1_epi32(0x400000));
    __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    return _mm256_srli_epi32(_mm256_blendv_epi8(rounded, nan, is_nan), 16);
}
INLINE __m256i v16_to_bf16(v16 x)
{
    return _mm256_permute4x64_epi64(_mm256_packus_epi32(v8_to_bf16(x.lo), v8_to_bf16(x.hi)), 0xd8);
}

#endif

/* ---- the same for both ----------------------------------------------------------------------- */

/* Sixteen E4M3 bytes, each the high half of a word whose low half is 0. As float16 the seven bits mean
 * 2^-8 of their value, subnormals too; 0x7f is made a NaN. */
INLINE v16 v16_from_f8_high(__m256i w)
{
    w = _mm256_and_si256(_mm256_srai_epi16(w, 1), _mm256_set1_epi16((short)0xbfff));
    __m256i nan = _mm256_cmpeq_epi16(
        _mm256_and_si256(w, _mm256_set1_epi16(0x7fff)), _mm256_set1_epi16(0x3f80));
    w = _mm256_or_si256(w, _mm256_and_si256(nan, _mm256_set1_epi16(0x7c00)));
    return v16_mul(v16_from_half(w), v16_set(256.0f));
}
INLINE v16 v16_from_f8(__m128i b)
{
    return v16_from_f8_high(_mm256_slli_epi16(_mm256_cvtepu8_epi16(b), 8));
}

/* The same in fewer steps where none is NaN: as float32 the seven bits mean 2^-120 of their value
 * (the subnormal ones are subnormal in float32 too). */
INLINE v16 v16_from_f8_less120(const void *p)
{
#ifdef __AVX512F__
    __m512i w = _mm512_slli_epi32(_mm512_cvtepi8_epi32(load_128(p)), 20);
    return _mm512_castsi512_ps(_mm512_and_si512(w, _mm512_set1_epi32((int)0x87f00000u)));
#else
    __m256i keep = _mm256_set1_epi32((int)0x87f00000u);
    __m256i lo = _mm256_slli_epi32(_mm256_cvtepi8_epi32(load_64(p)), 20);
    __m256i hi = _mm256_slli_epi32(_mm256_cvtepi8_epi32(load_64((const char *)p + 8)), 20);
    return (v16){ _mm256_castsi256_ps(_mm256_and_si256(lo, keep)),
        _mm256_castsi256_ps(_mm256_and_si256(hi, keep)) };
#endif
}

/* A NaN among 64 bytes of E4M3. */
INLINE bool f8_has_nan(const void *p)
{
#ifdef __AVX512F__
    __m512i most = _mm512_set1_epi8(0x7f);
    return _mm512_cmpeq_epi8_mask(_mm512_and_si512(_mm512_loadu_si512(p), most), most) != 0;
#else
    __m256i most = _mm256_set1_epi8(0x7f), lo = _mm256_loadu_si256(p);
    __m256i hi = _mm256_loadu_si256((const __m256i *)(const void *)((const char *)p + 32));
    lo = _mm256_cmpeq_epi8(_mm256_and_si256(lo, most), most);
    hi = _mm256_cmpeq_epi8(_mm256_and_si256(hi, most), most);
    return !_mm256_testz_si256(_mm256_or_si256(lo, hi), _mm256_or_si256(lo, hi));
#endif
}

/* Row i of the multiply. */
INLINE const char *rows_at(const struct rows *x, uint32_t i)
{
    return (const char *)x->data + (x->index ? x->index[i] : i) * x->stride;
}

#endif
